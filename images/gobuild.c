/* An image from a Go package, without a Dockerfile: compiled by the host's Go, one small layer.
 *
 * CGO_ENABLED=0 makes the program static, so that the image needs nothing but it, certificates for
 * TLS, time zones (Go's own zip, when the toolchain has it) and a user that is not root. -trimpath
 * and fixed times make the same source give the same layer.
 */
#include "images/go_priv.h"
#include "base/clock.h"
#include "base/io.h"
#include "images/reference.h"

#include <sys/stat.h>

struct gobuild {
    const struct th_gobuild_opts *o;
    struct go_host go;
    char *tmp, *binary, *name;
    struct go_layer layer;
};

void th_gobuild_result_done(struct th_gobuild_result *r)
{
    free(r->image_id);
    *r = (struct th_gobuild_result){0};
}

/* The name `go build` itself would give the program. */
static int program_name(struct gobuild *b, struct th_err *err)
{
    th_autobuf struct th_buf out = TH_BUF_INIT;
    const char *const args[] = {"list", "-f", "{{.Name}} {{.Target}} {{.ImportPath}}",
                                b->o->package, NULL};
    int r = go_host_run(&b->go, b->o->dir, args, NULL, &out, err);
    if (r < 0) {
        (void)th_fail(err, TH_R_BUILD_FAILED, "go list %s: %s", b->o->package, th_buf_cstr(&out));
        return th_hint(err, "the package is relative to the folder with go.mod, such as ./cmd/x");
    }
    th_autostrv struct th_strv lines = TH_STRV_INIT, words = TH_STRV_INIT;
    th_strv_split(&lines, th_buf_cstr(&out), '\n');
    const char *line = lines.v[lines.n > 1 ? lines.n - 2 : 0];
    th_strv_split(&words, line, ' ');
    if (words.n < 3 || !th_streq(words.v[0], "main")) {
        (void)th_fail(err, TH_R_BUILD_FAILED, "package %s is not a program (package main)",
                      b->o->package);
        return th_hint(err, "name the folder that holds func main, such as ./cmd/hello");
    }
    b->name = th_xstrdup(th_path_base(*words.v[1] ? words.v[1] : words.v[2]));
    return 0;
}

static int compile(struct gobuild *b, int64_t *ret_ms, struct th_err *err)
{
    int64_t t0 = th_mono_ms();
    th_autofree char *arch = th_xasprintf("GOARCH=%s", b->o->arch ? b->o->arch : b->go.arch);
    const char *const env[] = {"CGO_ENABLED=0", "GOOS=linux", arch, NULL};
    const char *args[10] = {"build", "-trimpath", "-buildvcs=false", "-o", b->binary};
    size_t n = 5;
    th_autofree char *ldflags =
        b->o->ldflags ? th_xasprintf("-ldflags=%s", b->o->ldflags) : NULL;
    if (ldflags) {
        args[n++] = ldflags;
    }
    args[n++] = b->o->package;
    th_autobuf struct th_buf out = TH_BUF_INIT;
    if (go_host_run(&b->go, b->o->dir, args, env, &out, err) < 0) {
        while (out.n > 0 && out.p[out.n - 1] == '\n') {
            th_buf_truncate(&out, out.n - 1);
        }
        (void)th_fail(err, TH_R_BUILD_FAILED, "go build %s failed:\n%.4000s", b->o->package,
                      th_buf_cstr(&out));
        return th_hint(err, "the compiler's messages above name file and line");
    }
    *ret_ms = th_mono_ms() - t0;
    return 0;
}

static int fill(struct gobuild *b, struct go_layer_writer *w, struct th_err *err)
{
    static const char *const dirs[] = {"app", "etc", "etc/ssl", "etc/ssl/certs", "home"};
    static const char certs[] = "/etc/ssl/certs/ca-certificates.crt";
    for (size_t i = 0; i < TH_ARRAY_LEN(dirs); i++) {
        TH_TRY(go_layer_dir(w, dirs[i], 0755, err));
    }
    struct th_tar_entry home = {.type = TH_TAR_DIR,
                                .path = (char *)(uintptr_t)"home/nonroot",
                                .mode = 0700,
                                .uid = 65532,
                                .gid = 65532,
                                .mtime_s = GO_MTIME};
    TH_TRY(th_tar_write_entry(&w->tar, &home, err));
    TH_TRY(go_layer_dir(w, "tmp", 01777, err));
    TH_TRY(go_layer_text(w, "etc/passwd", 0644,
                         "root:x:0:0:root:/root:/sbin/nologin\n"
                         "nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n", err));
    TH_TRY(go_layer_text(w, "etc/group", 0644, "root:x:0:\nnonroot:x:65532:\n", err));
    TH_TRY(go_layer_text(w, "etc/nsswitch.conf", 0644, "hosts: files dns\n", err));
    if (th_io_exists(certs)) {
        TH_TRY(go_layer_file(w, certs + 1, certs, 0644, err));
    }
    th_autofree char *zones = th_path_join(b->go.root, "lib/time/zoneinfo.zip");
    if (th_io_exists(zones)) {
        TH_TRY(go_layer_file(w, "app/zoneinfo.zip", zones, 0644, err));
    }
    th_autofree char *to = th_xasprintf("app/%s", b->name);
    return go_layer_file(w, to, b->binary, 0755, err);
}

static struct th_json *image_config(const struct gobuild *b)
{
    struct th_json *c = th_json_build(
        "{'User':'65532:65532','Env':['PATH=/app','ZONEINFO=/app/zoneinfo.zip',"
        "'SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt'],'Entrypoint':[%o],"
        "'WorkingDir':'/home/nonroot','Labels':{}}", th_json_stringf("/app/%s", b->name));
    for (const char *const *l = b->o->labels; l && *l; l++) {
        th_autofree char *name = th_xstrndup(*l, strcspn(*l, "="));
        const char *eq = strchr(*l, '=');
        th_json_set_str(th_json_get(c, "Labels"), name, eq ? eq + 1 : "");
    }
    return c;
}

static int make(struct gobuild *b, struct th_gobuild_result *ret, struct th_err *err)
{
    for (const char *const *t = b->o->tags; *t; t++) {
        th_autofree char *check = NULL;
        TH_TRY(th_ref_normalize(*t, &check, err));
    }
    TH_TRY(go_host_find(&b->go, err));
    TH_TRY(program_name(b, err));
    b->tmp = th_xasprintf("%s.build", b->o->out);
    b->binary = th_xasprintf("%s/%s", b->tmp, "program");
    TH_TRY(th_io_mkdir_p(b->tmp, 0700, err));
    go_note(&b->o->note, "compiling %s with Go %s", b->o->package, b->go.version);
    TH_TRY(compile(b, &ret->compile_ms, err));
    th_autofree char *file = th_path_join(b->tmp, "layer");
    struct go_layer_writer w;
    TH_TRY(go_layer_begin(file, 3, &w, err));
    int r = fill(b, &w, err);
    TH_TRY(go_layer_end(&w, r, &b->layer, err));
    char id[TH_DIGEST_LEN];
    th_autofree char *history = th_xasprintf("thimble: go build %s", b->o->package);
    TH_TRY(go_archive_write(b->o->out, &b->layer, 1, b->o->arch ? b->o->arch : b->go.arch,
                            image_config(b), history, b->o->tags, id, &ret->size_b, err));
    ret->image_id = th_xstrdup(id);
    return 0;
}

int th_gobuild(const struct th_gobuild_opts *opts, struct th_gobuild_result *ret,
               struct th_err *err)
{
    struct gobuild b = {.o = opts};
    struct th_gobuild_result res = {0};
    int r = make(&b, &res, err);
    if (b.tmp) {
        (void)th_io_rm_rf(b.tmp, NULL);
    }
    go_host_done(&b.go);
    free(b.tmp);
    free(b.binary);
    free(b.name);
    free(b.layer.path);
    if (r < 0) {
        th_gobuild_result_done(&res);
        return r;
    }
    *ret = res;
    return 0;
}
