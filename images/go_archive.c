/* The host's Go, and image archives made without a content store.
 *
 * The launcher's side has no root and no store; all it makes is one file that the node loads. A
 * layer is written once, straight through the hashes and the compressor into a file, and then
 * copied into the archive.
 */
#include "images/go_priv.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/proc.h"
#include "images/content.h"
#include "images/reference.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

void go_note(const struct th_go_note *n, const char *fmt, ...)
{
    if (n->fn) {
        va_list ap;
        va_start(ap, fmt);
        th_autofree char *line = th_xvasprintf(fmt, ap);
        va_end(ap);
        n->fn(n->arg, line);
    }
}

void go_host_done(struct go_host *g)
{
    free(g->program);
    free(g->root);
    free(g->version);
    free(g->modcache);
    free(g->arch);
    *g = (struct go_host){0};
}

extern char **environ;

int go_host_run(const struct go_host *g, const char *cwd, const char *const *args,
                const char *const *env, struct th_buf *out, struct th_err *err)
{
    th_autostrv struct th_strv argv = TH_STRV_INIT, all = TH_STRV_INIT;
    th_strv_add(&argv, g->program);
    for (; *args; args++) {
        th_strv_add(&argv, *args);
    }
    for (const char *const *e = env; e && *e; e++) {
        th_strv_add(&all, *e);
    }
    th_strv_add(&all, "GOTOOLCHAIN=local"); /* never downloads another Go */
    for (char **e = environ; *e; e++) {
        bool again = false;
        size_t n = strcspn(*e, "=") + 1;
        for (size_t i = 0; i < all.n; i++) {
            again = again || strncmp(all.v[i], *e, n) == 0;
        }
        if (!again) {
            th_strv_add(&all, *e);
        }
    }
    struct th_proc_opts o = {.argv = (const char *const *)argv.v,
                             .env = (const char *const *)all.v,
                             .cwd = cwd,
                             .stdin_fd = -1,
                             .stdout_fd = -1,
                             .stderr_fd = -1,
                             .die_with_parent = true};
    int code = 0;
    return th_proc_run(&o, TH_STR(""), out, out, -1, &code, err);
}

int go_host_find(struct go_host *ret, struct th_err *err)
{
    struct go_host g = {.program = th_proc_find("go")};
    if (!g.program && access("/usr/local/go/bin/go", X_OK) == 0) {
        g.program = th_xstrdup("/usr/local/go/bin/go");
    }
    if (!g.program) {
        (void)th_fail(err, TH_R_NO_TOOL, "there is no Go on this machine");
        return th_hint(err, "install it (apt-get install golang-go), or load a golang image with "
                            "thimble image load FILE");
    }
    th_autobuf struct th_buf out = TH_BUF_INIT;
    const char *const args[] = {"env", "-json", "GOROOT", "GOVERSION", "GOMODCACHE",
                                "GOHOSTARCH", NULL};
    TH_AUTO(th_json) struct th_json *o = NULL;
    int r = go_host_run(&g, "/", args, NULL, &out, err);
    if (r >= 0) {
        r = th_json_parse(out.p, out.n, NULL, &o, err);
    }
    const char *version = r >= 0 ? th_json_path_str(o, "GOVERSION") : NULL;
    if (!version || !th_startswith(version, "go")) {
        (void)th_wrap(err, "ask %s about itself", g.program);
        go_host_done(&g);
        return r < 0 ? r : th_fail(err, TH_R_NO_TOOL, "go env says nothing about its version");
    }
    g.version = th_xstrndup(version + 2, strcspn(version + 2, " "));
    g.root = th_xstrdup(th_json_path_str(o, "GOROOT"));
    g.modcache = th_xstrdup(th_json_path_str(o, "GOMODCACHE"));
    g.arch = th_xstrdup(th_json_path_str(o, "GOHOSTARCH"));
    *ret = g;
    return 0;
}

/* ---- layers ---- */

int go_layer_begin(const char *path, int level, struct go_layer_writer *w, struct th_err *err)
{
    *w = (struct go_layer_writer){.path = th_xstrdup(path)};
    w->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (w->fd < 0) {
        free(th_steal(&w->path));
        return th_fail_errno(err, errno, TH_R_IO, "make %s", path);
    }
    w->outer.out = th_writer_fd(w->fd);
    th_hash_stream_init(&w->outer);
    w->comp = th_comp_new(th_hash_stream_writer(&w->outer), TH_COMP_ZSTD, level);
    w->inner.out = th_comp_writer(w->comp);
    th_hash_stream_init(&w->inner);
    th_tar_writer_init(&w->tar, th_hash_stream_writer(&w->inner));
    return 0;
}

int go_layer_end(struct go_layer_writer *w, int r, struct go_layer *ret, struct th_err *err)
{
    r = r < 0 ? r : th_tar_write_end(&w->tar, err);
    r = r < 0 ? r : th_comp_finish(w->comp, err);
    if (r >= 0) {
        ret->size = w->outer.n;
        th_hash_stream_digest(&w->inner, ret->diff_id);
        th_hash_stream_digest(&w->outer, ret->digest);
        ret->path = th_steal(&w->path);
    } else {
        (void)unlink(w->path);
    }
    th_hash_stream_done(&w->inner);
    th_hash_stream_done(&w->outer);
    th_comp_free(w->comp);
    (void)close(w->fd);
    free(w->path);
    return r;
}

int go_layer_dir(struct go_layer_writer *w, const char *path, uint32_t mode, struct th_err *err)
{
    struct th_tar_entry e = {.type = TH_TAR_DIR,
                             .path = (char *)(uintptr_t)path,
                             .mode = mode,
                             .mtime_s = GO_MTIME};
    return th_tar_write_entry(&w->tar, &e, err);
}

int go_layer_link(struct go_layer_writer *w, const char *path, const char *to, struct th_err *err)
{
    struct th_tar_entry e = {.type = TH_TAR_SYMLINK,
                             .path = (char *)(uintptr_t)path,
                             .link = (char *)(uintptr_t)to,
                             .mode = 0777,
                             .mtime_s = GO_MTIME};
    return th_tar_write_entry(&w->tar, &e, err);
}

int go_layer_text(struct go_layer_writer *w, const char *path, uint32_t mode, const char *text,
                  struct th_err *err)
{
    struct th_tar_entry e = {.type = TH_TAR_REG,
                             .path = (char *)(uintptr_t)path,
                             .mode = mode,
                             .size = strlen(text),
                             .mtime_s = GO_MTIME};
    TH_TRY(th_tar_write_entry(&w->tar, &e, err));
    return e.size ? th_tar_write_data(&w->tar, text, e.size, err) : 0;
}

/* Copies `left` bytes of fd into the current entry. */
static int copy_data(struct th_tar_writer *w, int fd, uint64_t left, const char *what,
                     struct th_err *err)
{
    th_autofree char *buf = th_xmalloc(TH_IO_COPY_BUF);
    while (left > 0) {
        ssize_t n = read(fd, buf, left < TH_IO_COPY_BUF ? (size_t)left : TH_IO_COPY_BUF);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return th_fail(err, TH_R_IO, "%s changed while it was read", what);
        }
        TH_TRY(th_tar_write_data(w, buf, (size_t)n, err));
        left -= (uint64_t)n;
    }
    return 0;
}

int go_layer_file(struct go_layer_writer *w, const char *path, const char *host_path,
                  uint32_t mode, struct th_err *err)
{
    th_autoclose int fd = open(host_path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        return th_fail_errno(err, fd < 0 ? errno : EINVAL, TH_R_IO, "read %s", host_path);
    }
    struct th_tar_entry e = {.type = TH_TAR_REG,
                             .path = (char *)(uintptr_t)path,
                             .mode = mode,
                             .size = (uint64_t)st.st_size,
                             .mtime_s = GO_MTIME};
    TH_TRY(th_tar_write_entry(&w->tar, &e, err));
    return copy_data(&w->tar, fd, e.size, host_path, err);
}

/* ---- the archive ---- */

static int put_json(struct th_tar_writer *w, const struct th_json *o, char *ret_digest,
                    int64_t *ret_size, struct th_err *err)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_json_dump(o, &b);
    th_digest_of(b.p, b.n, ret_digest);
    *ret_size = (int64_t)b.n;
    th_autofree char *path = th_xasprintf("blobs/sha256/%s", ret_digest + 7);
    return th_tar_write_file(w, path, 0644, b.p, b.n, err);
}

static int put_layer(struct th_tar_writer *w, const struct go_layer *l, struct th_err *err)
{
    th_autoclose int fd = open(l->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "open %s", l->path);
    }
    th_autofree char *path = th_xasprintf("blobs/sha256/%s", l->digest + 7);
    struct th_tar_entry e = {.type = TH_TAR_REG, .path = path, .mode = 0644, .size = l->size};
    TH_TRY(th_tar_write_entry(w, &e, err));
    return copy_data(w, fd, l->size, l->path, err);
}

static int put_lists(struct th_tar_writer *w, const char *manifest, int64_t manifest_size,
                     const char *config, const struct go_layer *layers, size_t n,
                     const char *const *names, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *index =
        th_json_build("{'schemaVersion':2,'mediaType':%s,'manifests':[]}", TH_MT_OCI_INDEX);
    TH_AUTO(th_json) struct th_json *docker =
        th_json_build("[{'Config':%o,'RepoTags':[],'Layers':[]}]",
                      th_json_stringf("blobs/sha256/%s", config + 7));
    struct th_json *d = th_json_at(docker, 0);
    for (size_t i = 0; i < n; i++) {
        th_json_append(th_json_get(d, "Layers"),
                       th_json_stringf("blobs/sha256/%s", layers[i].digest + 7));
    }
    for (; *names; names++) {
        TH_AUTO_REF struct th_ref r = {0};
        TH_TRY(th_ref_parse(*names, &r, err));
        th_autofree char *full = th_ref_string(&r);
        th_autofree char *familiar = th_ref_familiar(&r);
        th_json_append(th_json_get(index, "manifests"),
                       th_json_build("{'mediaType':%s,'digest':%s,'size':%d,'annotations':{"
                                     "'io.containerd.image.name':%s,"
                                     "'org.opencontainers.image.ref.name':%s}}",
                                     TH_MT_OCI_MANIFEST, manifest, manifest_size, full,
                                     r.tag ? r.tag : "latest"));
        th_json_append_str(th_json_get(d, "RepoTags"), familiar);
    }
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_json_dump(index, &b);
    TH_TRY(th_tar_write_file(w, "index.json", 0644, b.p, b.n, err));
    th_buf_clear(&b);
    th_json_dump(docker, &b);
    TH_TRY(th_tar_write_file(w, "manifest.json", 0644, b.p, b.n, err));
    static const char layout[] = "{\"imageLayoutVersion\":\"1.0.0\"}";
    return th_tar_write_file(w, "oci-layout", 0644, layout, sizeof(layout) - 1, err);
}

static int write_all(struct th_tar_writer *w, const struct go_layer *layers, size_t n,
                     const char *arch, struct th_json *config, const char *history,
                     const char *const *names, char ret_id[TH_DIGEST_LEN], struct th_err *err)
{
    char t[TH_TIME_LEN];
    th_time_format(th_now_ms(), t);
    TH_AUTO(th_json) struct th_json *doc =
        th_json_build("{'created':%s,'architecture':%s,'os':'linux','config':%o,"
                      "'rootfs':{'type':'layers','diff_ids':[]},'history':[]}", t, arch, config);
    TH_AUTO(th_json) struct th_json *m = th_json_build(
        "{'schemaVersion':2,'mediaType':%s,'config':{'mediaType':%s},'layers':[]}",
        TH_MT_OCI_MANIFEST, TH_MT_OCI_CONFIG);
    for (size_t i = 0; i < n; i++) {
        th_json_append_str(th_json_path_array(doc, "rootfs.diff_ids"), layers[i].diff_id);
        th_json_append(th_json_get(doc, "history"),
                       th_json_build("{'created':%s,'created_by':%s}", t, history));
        th_json_append(th_json_get(m, "layers"),
                       th_json_build("{'mediaType':%s,'digest':%s,'size':%d}",
                                     TH_MT_OCI_LAYER_ZSTD, layers[i].digest,
                                     (int64_t)layers[i].size));
        TH_TRY(put_layer(w, &layers[i], err));
    }
    int64_t size = 0;
    char manifest[TH_DIGEST_LEN];
    TH_TRY(put_json(w, doc, ret_id, &size, err));
    th_json_path_set_str(m, "config.digest", ret_id);
    th_json_path_set_int(m, "config.size", size);
    TH_TRY(put_json(w, m, manifest, &size, err));
    TH_TRY(put_lists(w, manifest, size, ret_id, layers, n, names, err));
    return th_tar_write_end(w, err);
}

int go_archive_write(const char *path, const struct go_layer *layers, size_t n, const char *arch,
                     struct th_json *config, const char *history, const char *const *names,
                     char ret_id[TH_DIGEST_LEN], uint64_t *ret_size, struct th_err *err)
{
    th_autofree char *tmp = th_xasprintf("%s.%d.tmp", path, (int)getpid());
    th_autoclose int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) {
        int e = errno;
        th_json_unref(config);
        return th_fail_errno(err, e, TH_R_IO, "make %s", tmp);
    }
    struct th_tar_writer w;
    struct stat st;
    th_tar_writer_init(&w, th_writer_fd(fd));
    int r = write_all(&w, layers, n, arch, config, history, names, ret_id, err);
    if (r >= 0 && (fstat(fd, &st) < 0 || rename(tmp, path) < 0)) {
        r = th_fail_errno(err, errno, TH_R_IO, "write %s", path);
    }
    if (r < 0) {
        (void)unlink(tmp);
        return r;
    }
    *ret_size = (uint64_t)st.st_size;
    return 0;
}
