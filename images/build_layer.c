/* Roots that steps work on, and the layers that come of them.
 *
 * A step that changes files gets an overlay of the stage's layers with an empty upper folder inside
 * the session. When it ends, the upper is written once: through the tar writer, hashed (diff id),
 * compressed with zstd's fastest level, hashed again (blob); then the folder itself becomes the
 * unpacked layer. Nothing is unpacked again.
 *
 * The cache key of a step is the diff ids below it and everything the step depends on; so two
 * Dockerfiles that reach the same files by other ways share what follows.
 */
#include "images/builder_priv.h"
#include "base/clock.h"
#include "base/io.h"
#include "images/content_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/mount.h>
#include <sys/syscall.h>

int b_root_open(struct build *b, const struct blayer *layers, size_t n, bool writable,
                struct broot *ret, struct th_err *err)
{
    struct broot r = {.dir = th_images_session_file(b->ss, "root")};
    r.upper = th_path_join(r.dir, "upper");
    r.root = th_path_join(r.dir, "root");
    th_autofree char *work = th_path_join(r.dir, "work");
    th_autofree char *empty = th_images_path(b->s, "layers/empty/fs");
    const char **lowers = th_xcalloc(n + 2, sizeof(*lowers));
    th_autostrv struct th_strv owned = TH_STRV_INIT;
    size_t k = 0;
    int rc = th_io_mkdir_p(r.upper, 0755, err);
    rc = rc < 0 ? rc : th_io_mkdir_p(work, 0755, err);
    rc = rc < 0 ? rc : th_io_mkdir_p(r.root, 0755, err);
    rc = rc < 0 ? rc : th_io_mkdir_p(empty, 0755, err);
    for (size_t i = n; rc >= 0 && i-- > 0;) {
        rc = th_images_unpack_blob(b->ss, layers[i].digest, layers[i].diff_id, NULL, err);
        th_strv_take(&owned, th_images_layer_path(b->s, layers[i].diff_id));
    }
    for (; k < owned.n; k++) {
        lowers[k] = owned.v[k];
    }
    while (k < (writable ? 1u : 2u)) {
        lowers[k++] = empty;
    }
    if (rc >= 0) {
        rc = th_overlay_mount(lowers, k, writable ? r.upper : NULL, work, r.root, err);
    }
    free(lowers);
    r.mounted = rc >= 0;
    if (rc < 0) {
        b_root_close(&r);
        return rc;
    }
    *ret = r;
    return 0;
}

void b_root_close(struct broot *r)
{
    if (r->mounted) {
        (void)umount2(r->root, MNT_DETACH);
        r->mounted = false;
    }
    if (r->dir) {
        (void)th_io_rm_rf(r->dir, NULL);
    }
    free(r->dir);
    free(r->upper);
    free(r->root);
    *r = (struct broot){0};
}

static void add_layer(struct bstage *st, const struct th_cache_entry *e)
{
    st->layers = th_xrealloc(st->layers, (st->n_layers + 1) * sizeof(*st->layers));
    struct blayer *l = &st->layers[st->n_layers++];
    memset(l, 0, sizeof(*l));
    memcpy(l->diff_id, e->diff_id, sizeof(l->diff_id));
    memcpy(l->digest, e->digest, sizeof(l->digest));
    (void)snprintf(l->media_type, sizeof(l->media_type), "%s", TH_MT_OCI_LAYER_ZSTD);
    l->size = e->size;
    th_json_append_str(th_json_path_array(st->doc, "rootfs.diff_ids"), e->diff_id);
}

/* Tar of the upper, hashed, compressed, hashed, into a file. */
static int write_blob(const char *upper, int fd, struct th_cache_entry *e, struct th_err *err)
{
    struct th_hash_stream outer = {.out = th_writer_fd(fd)}, inner = {0};
    struct th_layer_stat st = {0};
    struct th_layer_write_opts o = {.whiteouts = true};
    struct th_tar_writer w;
    th_hash_stream_init(&outer);
    th_hash_stream_init(&inner);
    TH_AUTO(th_comp) struct th_comp *c =
        th_comp_new(th_hash_stream_writer(&outer), TH_COMP_ZSTD, 1);
    inner.out = th_comp_writer(c);
    th_tar_writer_init(&w, th_hash_stream_writer(&inner));
    int r = th_layer_write(upper, &o, &w, &st, err);
    r = r < 0 ? r : th_tar_write_end(&w, err);
    r = r < 0 ? r : th_comp_finish(c, err);
    e->size = (int64_t)outer.n;
    e->empty = st.entries == 0;
    th_hash_stream_digest(&inner, e->diff_id);
    th_hash_stream_digest(&outer, e->digest);
    return r;
}

static int store_upper(struct build *b, const char *upper, struct th_cache_entry *e,
                       struct th_err *err)
{
    th_autofree char *file = th_images_session_file(b->ss, "layer-blob");
    th_autoclose int fd = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "make %s", file);
    }
    TH_TRY(write_blob(upper, fd, e, err));
    if (e->empty) {
        (void)unlink(file);
        return 0;
    }
    TH_TRY(th_images_take_blob(b->ss, file, e->digest, err));
    return th_images_take_layer(b->ss, upper, e->diff_id, err);
}

int b_commit(struct build *b, struct bstage *st, struct broot *r, const char *key,
             struct th_err *err)
{
    struct th_cache_entry e = {0};
    if (r->mounted && umount2(r->root, MNT_DETACH) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "unmount %s", r->root);
    }
    r->mounted = false;
    TH_TRY(store_upper(b, r->upper, &e, err));
    TH_TRY(th_images_cache_put(b->ss, key, &e, err));
    if (!e.empty) {
        add_layer(st, &e);
    }
    return 0;
}

struct th_sha256 *b_key_begin(const struct bstage *st, const char *kind)
{
    struct th_sha256 *h = th_sha256_new();
    b_key_add(h, "thimble-build", "1");
    for (size_t i = 0; i < st->n_layers; i++) {
        b_key_add(h, "layer", st->layers[i].diff_id);
    }
    b_key_add(h, "kind", kind);
    return h;
}

/* Lengths in front keep "a","bc" and "ab","c" apart. */
void b_key_add(struct th_sha256 *h, const char *name, const char *value)
{
    char len[64];
    value = value ? value : "\x01none";
    int n = snprintf(len, sizeof(len), "%zu:%zu:", strlen(name), strlen(value));
    th_sha256_add(h, len, (size_t)n);
    th_sha256_add(h, name, strlen(name));
    th_sha256_add(h, value, strlen(value));
}

void b_key_end(struct th_sha256 *h, char key[TH_SHA256_HEX_LEN])
{
    unsigned char d[TH_SHA256_LEN];
    th_sha256_finish(h, d);
    th_hex(d, sizeof(d), key);
}

bool b_cache_hit(struct build *b, struct bstage *st, const char *key, struct th_err *err)
{
    struct th_cache_entry e;
    (void)err;
    if (b->o->no_cache || !th_images_cache_get(b->s, key, &e)) {
        return false;
    }
    if (!e.empty) {
        add_layer(st, &e);
    }
    b->was_cached = true;
    b->cached++;
    return true;
}

int b_open_in(const char *root, const char *path, int flags)
{
    th_autoclose int fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return -1;
    }
    struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC),
                           .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    while (*path == '/') {
        path++;
    }
    return (int)syscall(SYS_openat2, fd, *path ? path : ".", &how, sizeof(how));
}

int b_resolve_in(const char *root, const char *path, char **ret, struct th_err *err)
{
    th_autoclose int fd = b_open_in(root, path, O_PATH);
    if (fd < 0) {
        return th_fail_errno(err, errno, errno == ENOENT ? TH_R_NOT_FOUND : TH_R_IO, "%s", path);
    }
    th_autofree char *link = th_xasprintf("/proc/self/fd/%d", fd);
    char target[4097];
    ssize_t n = readlink(link, target, sizeof(target) - 1);
    if (n < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "%s", path);
    }
    *ret = th_xstrndup(target, (size_t)n);
    return 0;
}
