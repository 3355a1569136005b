/* A stand-in for golang images, from the Go toolchain of the user's machine.
 *
 * "FROM golang:1.16" must work with no network. What such a base is used for is running go in a
 * RUN step, so the stand-in holds just that: the host's toolchain trimmed to what building needs
 * (no tests, no testdata, no cmd sources), a shell with the usual small programs, certificates, and
 * the module files the build context asks for, served to go as a file proxy.
 *
 * The build happens in a small, perhaps emulated machine, where compiling the standard library takes
 * minutes. So the standard library is compiled here, natively and once for each Go version, and its
 * build cache goes into the image: go's cache keys are made of content (toolchain, sources, flags)
 * and not of places, so that a `CGO_ENABLED=0 go build` inside finds every package there. The
 * entries' times lie far in the future, because go trims entries that look unused for five days.
 *
 * The shell is Debian's busybox-static when it is there (one file, no libraries); else dash and the
 * coreutils of the host with the libraries they need.
 *
 * Debian's go, unlike upstream's, is linked dynamically: what is not static brings its libraries along.
 * Up to Go 1.19 a toolchain also has the standard library compiled in GOROOT/pkg, and then a build
 * takes it from there and puts nothing into the cache; it is made to compile all the same.
 *
 * The base layer is made once per Go version and kept under XDG_CACHE_HOME; an archive for a
 * reference adds at most a small layer of modules.
 */
#include "images/go_priv.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/proc.h"
#include "images/layer.h"
#include "images/reference.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#define RECIPE "6"                   /* changes when the layer's content rules do */
#define CACHE_MTIME 4070908800       /* 2099: go's trimming passes these entries over */
#define GOSUM_MAX (8u << 20)
#define WALK_DEPTH 6

static const char *const host_tools[] = {
    "cat", "ls", "cp", "mv", "rm", "mkdir", "rmdir", "ln", "chmod", "chown", "touch", "echo",
    "env", "printf", "pwd", "sleep", "test", "[", "true", "false", "head", "tail", "wc", "sort",
    "uniq", "cut", "tr", "tee", "date", "id", "uname", "dirname", "basename", "expr", "seq",
    "mktemp", "readlink", "realpath", "stat", "du", "find", "xargs", "grep", "sed", "tar", "gzip",
    "which", "hostname", "sha256sum", "nproc", "whoami"};

struct base {
    const struct th_gobase_opts *o;
    struct go_host go;
    char *dir;     /* cache folder */
    char *key;     /* names what the base layer is made of */
    struct go_layer layer, modules;
    bool has_modules;
    char *shell;   /* what the shell is, for people */
    struct th_strv libs; /* shared libraries that programs of the layer need */
};

bool th_gobase_is_for(const char *ref)
{
    TH_AUTO_REF struct th_ref r = {0};
    return th_ref_parse(ref, &r, NULL) == 0 && th_streq(r.domain, "docker.io") &&
           th_streq(r.path, "library/golang");
}

void th_gobase_result_done(struct th_gobase_result *r)
{
    free(r->archive);
    free(r->go_version);
    free(r->summary);
    *r = (struct th_gobase_result){0};
}

/* ---- the pieces of the layer ---- */

static bool src_filter(void *arg, const char *rel, bool is_dir)
{
    (void)arg;
    if (is_dir) {
        return !th_streq(rel, "cmd") && !th_streq(th_path_base(rel), "testdata");
    }
    return !th_endswith(rel, "_test.go") && !th_endswith(rel, ".bash") &&
           !th_endswith(rel, ".bat") && !th_endswith(rel, ".rc");
}

static bool tool_filter(void *arg, const char *rel, bool is_dir)
{
    static const char *const wanted[] = {"asm", "cgo", "compile", "cover", "link", "vet",
                                         "preprofile", "buildid", "pack"};
    (void)arg;
    for (size_t i = 0; i < TH_ARRAY_LEN(wanted); i++) {
        if (th_streq(rel, wanted[i])) {
            return !is_dir;
        }
    }
    return false;
}

/* Libraries a program needs, from ldd: "libc.so.6 => /lib/... (0x..)" and the loader's line. */
static void add_libs(const char *program, struct th_strv *libs)
{
    th_autobuf struct th_buf out = TH_BUF_INIT;
    th_autostrv struct th_strv lines = TH_STRV_INIT;
    if (th_proc_runl(&out, 10000, NULL, "ldd", program, NULL) < 0) {
        return; /* static */
    }
    th_strv_split(&lines, th_buf_cstr(&out), '\n');
    for (size_t i = 0; i < lines.n; i++) {
        const char *p = strchr(lines.v[i], '/');
        if (p) {
            th_autofree char *lib = th_xstrndup(p, strcspn(p, " "));
            if (!th_strv_has(libs, lib)) {
                th_strv_add(libs, lib);
            }
        }
    }
}

static int add_lib(struct go_layer_writer *w, const char *lib, struct th_strv *dirs,
                   struct th_err *err)
{
    th_autostrv struct th_strv parts = TH_STRV_INIT;
    th_autobuf struct th_buf at = TH_BUF_INIT;
    th_strv_split(&parts, lib + 1, '/');
    for (size_t i = 0; i + 1 < parts.n; i++) {
        th_buf_printf(&at, "%s%s", i ? "/" : "", parts.v[i]);
        if (!th_strv_has(dirs, th_buf_cstr(&at))) {
            th_strv_add(dirs, th_buf_cstr(&at));
            TH_TRY(go_layer_dir(w, th_buf_cstr(&at), 0755, err));
        }
    }
    return go_layer_file(w, lib + 1, lib, 0755, err);
}

static int add_all_libs(struct base *b, struct go_layer_writer *w, struct th_err *err)
{
    th_autostrv struct th_strv dirs = TH_STRV_INIT;
    th_strv_add(&dirs, "usr");
    for (size_t i = 0; i < b->libs.n; i++) {
        TH_TRY(add_lib(w, b->libs.v[i], &dirs, err));
    }
    return 0;
}

/* A folder below GOROOT, links on the way followed (Debian links src elsewhere). */
static int add_tree(struct base *b, struct go_layer_writer *w, const char *sub, bool needed,
                    bool (*filter)(void *, const char *, bool), struct th_err *err)
{
    th_autofree char *path = th_path_join(b->go.root, sub);
    th_autofree char *real = realpath(path, NULL);
    th_autofree char *prefix = th_xasprintf("usr/local/go/%s", sub);
    if (!real || !th_io_is_dir(real)) {
        return needed ? th_fail(err, TH_R_NO_TOOL, "Go in %s has no folder %s", b->go.root, sub)
                      : 0;
    }
    struct th_layer_write_opts o = {.mtime_fixed = true,
                                    .mtime_max_s = GO_MTIME,
                                    .owner_root = true,
                                    .prefix = prefix,
                                    .filter = filter};
    TH_TRY(go_layer_dir(w, prefix, 0755, err));
    return th_layer_write(real, &o, &w->tar, NULL, err);
}

static int add_toolchain(struct base *b, struct go_layer_writer *w, struct th_err *err)
{
    static const char *const dirs[] = {"usr", "usr/local", "usr/local/go", "usr/local/go/bin",
                                       "usr/local/go/pkg", "usr/local/go/pkg/tool",
                                       "usr/local/go/lib"};
    static const char *const files[] = {"VERSION", "go.env"};
    for (size_t i = 0; i < TH_ARRAY_LEN(dirs); i++) {
        TH_TRY(go_layer_dir(w, dirs[i], 0755, err));
    }
    th_autofree char *go = th_path_join(b->go.root, "bin/go");
    th_autofree char *gofmt = th_path_join(b->go.root, "bin/gofmt");
    TH_TRY(go_layer_file(w, "usr/local/go/bin/go", go, 0755, err));
    add_libs(go, &b->libs);
    if (th_io_exists(gofmt)) {
        TH_TRY(go_layer_file(w, "usr/local/go/bin/gofmt", gofmt, 0755, err));
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(files); i++) {
        th_autofree char *p = th_path_join(b->go.root, files[i]);
        th_autofree char *to = th_xasprintf("usr/local/go/%s", files[i]);
        if (th_io_exists(p)) {
            TH_TRY(go_layer_file(w, to, p, 0644, err));
        }
    }
    th_autofree char *tools = th_xasprintf("pkg/tool/linux_%s", b->go.arch);
    TH_TRY(add_tree(b, w, tools, true, tool_filter, err));
    TH_TRY(add_tree(b, w, "pkg/include", true, NULL, err));
    TH_TRY(add_tree(b, w, "lib/time", false, NULL, err));
    return add_tree(b, w, "src", true, src_filter, err);
}

static int add_host_shell(struct base *b, struct go_layer_writer *w, struct th_err *err)
{
    th_autofree char *sh = th_proc_find("dash");
    sh = sh ? sh : th_proc_find("sh");
    if (!sh) {
        return th_fail(err, TH_R_NO_TOOL, "there is no shell to put into the image");
    }
    TH_TRY(go_layer_file(w, "bin/sh", sh, 0755, err));
    add_libs(sh, &b->libs);
    for (size_t i = 0; i < TH_ARRAY_LEN(host_tools); i++) {
        th_autofree char *p = th_proc_find(host_tools[i]);
        th_autofree char *to = th_xasprintf("bin/%s", host_tools[i]);
        if (p) {
            TH_TRY(go_layer_file(w, to, p, 0755, err));
            add_libs(p, &b->libs);
        }
    }
    b->shell = th_xstrdup("dash and this machine's coreutils");
    return 0;
}

static char *static_busybox(void)
{
    th_autofree char *p = th_proc_find("busybox");
    th_autobuf struct th_buf out = TH_BUF_INIT;
    if (!p) {
        return NULL;
    }
    /* ldd fails for a static program */
    bool is_static = th_proc_runl(&out, 10000, NULL, "ldd", p, NULL) < 0 ||
                     strstr(th_buf_cstr(&out), "not a dynamic") || !strchr(th_buf_cstr(&out), '>');
    return is_static ? th_steal(&p) : NULL;
}

static int add_shell(struct base *b, struct go_layer_writer *w, struct th_err *err)
{
    th_autofree char *busybox = static_busybox();
    TH_TRY(go_layer_dir(w, "bin", 0755, err));
    TH_TRY(go_layer_dir(w, "usr/bin", 0755, err));
    TH_TRY(go_layer_link(w, "usr/bin/env", "../../bin/env", err));
    th_autobuf struct th_buf out = TH_BUF_INIT;
    if (!busybox || th_proc_runl(&out, 10000, NULL, busybox, "--list", NULL) < 0) {
        return add_host_shell(b, w, err);
    }
    th_autostrv struct th_strv applets = TH_STRV_INIT;
    TH_TRY(go_layer_file(w, "bin/busybox", busybox, 0755, err));
    th_strv_split(&applets, th_buf_cstr(&out), '\n');
    th_strv_sort(&applets);
    for (size_t i = 0; i < applets.n; i++) {
        const char *a = applets.v[i];
        if (!*a || th_streq(a, "busybox") || strchr(a, '/')) {
            continue;
        }
        th_autofree char *to = th_xasprintf("bin/%s", a);
        TH_TRY(go_layer_link(w, to, "busybox", err));
    }
    b->shell = th_xstrdup("busybox");
    return 0;
}

static int add_etc(struct go_layer_writer *w, struct th_err *err)
{
    static const struct {
        const char *path;
        uint32_t mode;
    } dirs[] = {{"dev", 0755}, {"etc", 0755}, {"etc/ssl", 0755}, {"etc/ssl/certs", 0755},
                {"go", 01777}, {"go/bin", 01777}, {"go/src", 01777}, {"proc", 0755},
                {"root", 0700}, {"root/.cache", 0700}, {"root/.config", 0755},
                {"root/.config/go", 0755}, {"root/.config/go/telemetry", 0755}, {"sys", 0755},
                {"tmp", 01777}, {"usr/local/bin", 0755}, {"var", 0755}, {"var/tmp", 01777}};
    static const struct {
        const char *path, *text;
    } files[] = {
        {"etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:"
                       "/bin/false\n"},
        {"etc/group", "root:x:0:\nnogroup:x:65534:\n"},
        {"etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"},
        {"etc/os-release", "ID=thimble-golang\nPRETTY_NAME=\"Thimble's stand-in for golang\"\n"},
        {"root/.config/go/telemetry/mode", "off 2020-01-01\n"}};
    for (size_t i = 0; i < TH_ARRAY_LEN(dirs); i++) {
        TH_TRY(go_layer_dir(w, dirs[i].path, dirs[i].mode, err));
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(files); i++) {
        TH_TRY(go_layer_text(w, files[i].path, 0644, files[i].text, err));
    }
    static const char certs[] = "/etc/ssl/certs/ca-certificates.crt";
    return th_io_exists(certs) ? go_layer_file(w, certs + 1, certs, 0644, err) : 0;
}

/* Compiles the standard library here, into a folder kept for the next time. */
static int warm_cache(struct base *b, char **ret_dir, struct th_err *err)
{
    th_autofree char *dir = th_xasprintf("%s/std-%s", b->dir, b->key);
    th_autofree char *done = th_path_join(dir, "thimble-done");
    if (!th_io_exists(done)) {
        go_note(&b->o->note, "compiling Go %s's standard library once, for later builds",
                b->go.version);
        th_autofree char *cache_env = th_xasprintf("GOCACHE=%s", dir);
        th_autofree char *arch_env = th_xasprintf("GOARCH=%s", b->go.arch);
        th_autofree char *root_env = th_xasprintf("GOROOT=%s", b->go.root);
        const char *const env[] = {cache_env, arch_env, root_env, "CGO_ENABLED=0", "GOOS=linux",
                                   "GOFLAGS=", "GOEXPERIMENT=", "GOWORK=off", "GO111MODULE=on",
                                   "GOPROXY=off", NULL};
        th_autofree char *compiled = th_xasprintf("%s/pkg/linux_%s", b->go.root, b->go.arch);
        const char *const all[] = {"build", "-a", "std", NULL};
        const char *const missing[] = {"build", "std", NULL};
        const char *const *args = th_io_is_dir(compiled) ? all : missing;
        th_autobuf struct th_buf out = TH_BUF_INIT;
        TH_TRY(th_io_mkdir_p(dir, 0755, err));
        if (go_host_run(&b->go, "/", args, env, &out, err) < 0) {
            return th_wrap(err, "compile the standard library");
        }
        TH_TRY(th_io_write_file(done, "", 0, 0644, err));
    }
    *ret_dir = th_steal(&dir);
    return 0;
}

static bool cache_filter(void *arg, const char *rel, bool is_dir)
{
    (void)arg;
    (void)is_dir;
    return !th_streq(rel, "thimble-done") && !th_streq(rel, "trim.txt") &&
           !th_streq(rel, "testexpire.txt") && !th_startswith(rel, "fuzz");
}

static int add_warm_cache(struct base *b, struct go_layer_writer *w, struct th_err *err)
{
    th_autofree char *dir = NULL;
    TH_TRY(warm_cache(b, &dir, err));
    struct th_layer_write_opts o = {.mtime_fixed = true,
                                    .mtime_max_s = CACHE_MTIME,
                                    .owner_root = true,
                                    .prefix = "root/.cache/go-build",
                                    .filter = cache_filter};
    TH_TRY(go_layer_dir(w, "root/.cache/go-build", 0755, err));
    return th_layer_write(dir, &o, &w->tar, NULL, err);
}

static int fill_layer(struct base *b, struct go_layer_writer *w, struct th_err *err)
{
    TH_TRY(add_toolchain(b, w, err));
    TH_TRY(add_shell(b, w, err));
    TH_TRY(add_all_libs(b, w, err));
    TH_TRY(add_etc(w, err));
    return b->o->no_warm_cache ? 0 : add_warm_cache(b, w, err);
}

/* ---- the kept layer ---- */

/* What the layer depends on: the toolchain (by its size and time), the recipe, the shell. */
static char *make_key(const struct base *b)
{
    th_autobuf struct th_buf t = TH_BUF_INIT;
    th_autofree char *go = th_path_join(b->go.root, "bin/go");
    th_autofree char *compile = th_xasprintf("%s/pkg/tool/linux_%s/compile", b->go.root,
                                             b->go.arch);
    th_autofree char *busybox = static_busybox();
    const char *const files[] = {go, compile, busybox ? busybox : "/bin/sh",
                                 "/etc/ssl/certs/ca-certificates.crt"};
    th_buf_printf(&t, "%s %s %s %s %d", RECIPE, b->go.version, b->go.arch, b->go.root,
                  b->o->no_warm_cache);
    for (size_t i = 0; i < TH_ARRAY_LEN(files); i++) {
        struct stat st;
        if (stat(files[i], &st) == 0) {
            th_buf_printf(&t, " %s %lld %lld", files[i], (long long)st.st_size,
                          (long long)st.st_mtime);
        }
    }
    char hex[TH_SHA256_HEX_LEN];
    th_sha256_hex(t.p, t.n, hex);
    return th_xasprintf("%s-%.16s", b->go.version, hex);
}

static bool read_layer(const char *json, const char *file, struct go_layer *l, char **shell)
{
    th_autobuf struct th_buf t = TH_BUF_INIT;
    TH_AUTO(th_json) struct th_json *o = NULL;
    struct stat st;
    if (th_io_read_file(json, 4096, &t, NULL) < 0 ||
        th_json_parse(t.p, t.n, NULL, &o, NULL) < 0 || stat(file, &st) < 0 ||
        st.st_size != th_json_path_int(o, "size", -1) ||
        !th_digest_valid(th_json_path_str(o, "diffID")) ||
        !th_digest_valid(th_json_path_str(o, "digest"))) {
        return false;
    }
    l->size = (uint64_t)st.st_size;
    l->path = th_xstrdup(file);
    (void)snprintf(l->diff_id, sizeof(l->diff_id), "%s", th_json_path_str(o, "diffID"));
    (void)snprintf(l->digest, sizeof(l->digest), "%s", th_json_path_str(o, "digest"));
    *shell = th_xstrdup(th_json_path_str(o, "shell"));
    return true;
}

/* Bases of other Go versions and recipes go when a new one is made. */
static void drop_old(const struct base *b)
{
    th_autostrv struct th_strv names = TH_STRV_INIT;
    if (th_io_list(b->dir, &names, NULL) < 0) {
        return;
    }
    for (size_t i = 0; i < names.n; i++) {
        if (!strstr(names.v[i], b->key) && !th_streq(names.v[i], "lock")) {
            th_autofree char *p = th_path_join(b->dir, names.v[i]);
            (void)th_io_rm_rf(p, NULL);
        }
    }
}

static int base_layer(struct base *b, bool *ret_cached, struct th_err *err)
{
    th_autofree char *file = th_xasprintf("%s/%s.layer", b->dir, b->key);
    th_autofree char *json = th_xasprintf("%s/%s.json", b->dir, b->key);
    *ret_cached = read_layer(json, file, &b->layer, &b->shell);
    if (*ret_cached) {
        return 0;
    }
    drop_old(b);
    th_autofree char *tmp = th_xasprintf("%s.tmp", file);
    struct go_layer_writer w;
    TH_TRY(go_layer_begin(tmp, 3, &w, err));
    int r = fill_layer(b, &w, err);
    TH_TRY(go_layer_end(&w, r, &b->layer, err));
    if (rename(tmp, file) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "write %s", file);
    }
    free(b->layer.path);
    b->layer.path = th_xstrdup(file);
    TH_AUTO(th_json) struct th_json *o =
        th_json_build("{'size':%d,'diffID':%s,'digest':%s,'shell':%s}", (int64_t)b->layer.size,
                      b->layer.diff_id, b->layer.digest, b->shell);
    th_autobuf struct th_buf t = TH_BUF_INIT;
    th_json_dump(o, &t);
    return th_io_write_atomic(json, t.p, t.n, 0644, err);
}

/* ---- modules ---- */

/* go.sum lines of the context: "module version[/go.mod] hash". */
static void gather_sums(const char *dir, int depth, struct th_strv *mods)
{
    th_autostrv struct th_strv names = TH_STRV_INIT;
    if (depth > WALK_DEPTH || th_io_list(dir, &names, NULL) < 0) {
        return;
    }
    for (size_t i = 0; i < names.n; i++) {
        th_autofree char *p = th_path_join(dir, names.v[i]);
        struct stat st;
        if (lstat(p, &st) < 0) {
            continue;
        }
        if (S_ISDIR(st.st_mode) && names.v[i][0] != '.' && !th_streq(names.v[i], "vendor") &&
            !th_streq(names.v[i], "node_modules")) {
            gather_sums(p, depth + 1, mods);
        }
        if (!S_ISREG(st.st_mode) || !th_streq(names.v[i], "go.sum")) {
            continue;
        }
        th_autobuf struct th_buf t = TH_BUF_INIT;
        th_autostrv struct th_strv lines = TH_STRV_INIT;
        if (th_io_read_file(p, GOSUM_MAX, &t, NULL) < 0) {
            continue;
        }
        th_strv_split(&lines, th_buf_cstr(&t), '\n');
        for (size_t k = 0; k < lines.n; k++) {
            size_t n = strcspn(lines.v[k], " ");
            size_t v = lines.v[k][n] ? strcspn(lines.v[k] + n + 1, " ") : 0;
            if (v) {
                th_strv_take(mods, th_xstrndup(lines.v[k], n + 1 + v));
            }
        }
    }
}

/* The module cache's spelling: capitals as "!" and the small letter. */
static void escape_module(struct th_buf *b, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (isupper((unsigned char)s[i])) {
            th_buf_putc(b, '!');
        }
        th_buf_putc(b, (char)tolower((unsigned char)s[i]));
    }
}

static int add_parents(struct go_layer_writer *w, const char *path, struct th_strv *made,
                       struct th_err *err)
{
    for (const char *p = strchr(path, '/'); p; p = strchr(p + 1, '/')) {
        th_autofree char *dir = th_xstrndup(path, (size_t)(p - path));
        if (!th_strv_has(made, dir)) {
            th_strv_add(made, dir);
            TH_TRY(go_layer_dir(w, dir, 0755, err));
        }
    }
    return 0;
}

#define PROXY_DIR "usr/local/share/goproxy"

static int add_module(struct base *b, struct go_layer_writer *w, const char *line,
                      struct th_strv *made, size_t *found, struct th_err *err)
{
    static const char *const exts[] = {"info", "mod", "zip", "ziphash"};
    const char *sp = strchr(line, ' ');
    const char *version = sp + 1;
    bool only_mod = th_endswith(version, "/go.mod");
    th_autobuf struct th_buf at = TH_BUF_INIT;
    escape_module(&at, line, (size_t)(sp - line));
    th_buf_puts(&at, "/@v/");
    escape_module(&at, version, strlen(version) - (only_mod ? 7 : 0));
    if (!th_path_is_inside(th_buf_cstr(&at))) {
        return 0;
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(exts); i++) {
        th_autofree char *host = th_xasprintf("%s/cache/download/%s.%s", b->go.modcache,
                                              th_buf_cstr(&at), exts[i]);
        th_autofree char *to = th_xasprintf(PROXY_DIR "/%s.%s", th_buf_cstr(&at), exts[i]);
        if (th_strv_has(made, to) || (only_mod && i >= 2) || !th_io_exists(host)) {
            continue;
        }
        th_strv_add(made, to);
        TH_TRY(add_parents(w, to, made, err));
        TH_TRY(go_layer_file(w, to, host, 0644, err));
        *found += i == 2;
    }
    return 0;
}

static int module_layer(struct base *b, struct th_err *err)
{
    th_autostrv struct th_strv mods = TH_STRV_INIT, made = TH_STRV_INIT;
    if (!b->o->context_dir) {
        return 0;
    }
    gather_sums(b->o->context_dir, 0, &mods);
    if (mods.n == 0) {
        return 0;
    }
    th_strv_sort(&mods);
    th_autofree char *file = th_xasprintf("%s/%s.modules", b->dir, b->key);
    struct go_layer_writer w;
    size_t found = 0;
    TH_TRY(go_layer_begin(file, 1, &w, err));
    int r = 0;
    for (size_t i = 0; r >= 0 && i < mods.n; i++) {
        r = add_module(b, &w, mods.v[i], &made, &found, err);
    }
    TH_TRY(go_layer_end(&w, r, &b->modules, err));
    b->has_modules = made.n > 0;
    go_note(&b->o->note, "%zu modules come from this machine's module cache", found);
    return 0;
}

/* ---- the whole ---- */

static int cache_dir(struct base *b, struct th_err *err)
{
    if (b->o->cache_dir) {
        b->dir = th_xstrdup(b->o->cache_dir);
    } else {
        const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
        b->dir = xdg && *xdg == '/' ? th_xasprintf("%s/thimble/gobase", xdg)
                                    : th_xasprintf("%s/.cache/thimble/gobase",
                                                   home && *home ? home : "/root");
    }
    return th_io_mkdir_p(b->dir, 0755, err);
}

static struct th_json *image_config(const struct base *b)
{
    struct th_json *c = th_json_build(
        "{'Env':['PATH=/go/bin:/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
        ":/sbin:/bin',%o,'GOTOOLCHAIN=local','GOPATH=/go',%s,'GOSUMDB=off'],'Cmd':['/bin/sh'],"
        "'WorkingDir':'/go','Labels':{'io.thimble.stand-in':%s}}",
        th_json_stringf("GOLANG_VERSION=%s", b->go.version),
        b->has_modules ? "GOPROXY=file:///" PROXY_DIR : "GOPROXY=off", b->o->ref);
    return c;
}

/* One archive for each reference and set of modules, replaced atomically. */
static char *archive_path(const struct base *b)
{
    char hex[TH_SHA256_HEX_LEN];
    th_autofree char *what =
        th_xasprintf("%s %s", b->o->ref, b->has_modules ? b->modules.diff_id : "");
    th_sha256_hex(what, strlen(what), hex);
    return th_xasprintf("%s/%s-%.12s.tar", b->dir, b->key, hex);
}

/* Archives are only on their way to a node: after an hour nobody reads them any more. */
static void drop_stale_archives(const struct base *b)
{
    th_autostrv struct th_strv names = TH_STRV_INIT;
    if (th_io_list(b->dir, &names, NULL) < 0) {
        return;
    }
    for (size_t i = 0; i < names.n; i++) {
        th_autofree char *p = th_path_join(b->dir, names.v[i]);
        struct stat st;
        bool tar = th_endswith(names.v[i], ".tar") || th_endswith(names.v[i], ".tmp");
        if (tar && stat(p, &st) == 0 && th_now_ms() / 1000 - st.st_mtime > 3600) {
            (void)unlink(p);
        }
    }
}

static int make(struct base *b, struct th_gobase_result *ret, struct th_err *err)
{
    TH_AUTO_REF struct th_ref ref = {0};
    TH_TRY(th_ref_parse(b->o->ref, &ref, err));
    TH_TRY(go_host_find(&b->go, err));
    TH_TRY(cache_dir(b, err));
    b->key = make_key(b);
    th_autofree char *lock_path = th_path_join(b->dir, "lock");
    th_autoclose int lock = -1;
    TH_TRY(th_io_lock(lock_path, 600000, &lock, err));
    TH_TRY(base_layer(b, &ret->cached, err));
    TH_TRY(module_layer(b, err));
    th_autofree char *archive = archive_path(b);
    drop_stale_archives(b);
    const struct go_layer layers[] = {b->layer, b->modules};
    const char *const names[] = {b->o->ref, NULL};
    char id[TH_DIGEST_LEN];
    th_autofree char *history =
        th_xasprintf("thimble: stand-in for %s from this machine's Go %s", b->o->ref,
                     b->go.version);
    TH_TRY(go_archive_write(archive, layers, b->has_modules ? 2 : 1, b->go.arch, image_config(b),
                            history, names, id, &ret->size_b, err));
    th_autofree char *familiar = th_ref_familiar(&ref);
    ret->summary = th_xasprintf("%s is a stand-in made from this machine's Go %s (%s; shell: %s; "
                                "%llu MB)", familiar, b->go.version, b->go.root, b->shell,
                                (unsigned long long)(ret->size_b + 500000) / 1000000);
    ret->go_version = th_xstrdup(b->go.version);
    ret->archive = th_steal(&archive);
    return 0;
}

int th_gobase_make(const struct th_gobase_opts *opts, struct th_gobase_result *ret,
                   struct th_err *err)
{
    struct base b = {.o = opts};
    struct th_gobase_result res = {0};
    int r = make(&b, &res, err);
    if (b.modules.path) {
        (void)unlink(b.modules.path);
    }
    go_host_done(&b.go);
    free(b.dir);
    free(b.key);
    free(b.shell);
    th_strv_done(&b.libs);
    free(b.layer.path);
    free(b.modules.path);
    if (r < 0) {
        th_gobase_result_done(&res);
        return r;
    }
    *ret = res;
    return 0;
}
