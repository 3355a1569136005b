/* The content store: blobs and unpacked layers.
 *
 * Everything is named by what it holds, so writing is idempotent and needs no locks against other
 * writers: content is made under tmp/, made durable, and renamed into place; who comes second finds
 * it there. The only thing that takes content away is collection (gc.c), and only what nothing
 * names. Content written but not named yet is kept by the session: a shared flock on `lock`, which
 * collection takes exclusively. flock belongs to the open file, so it works between threads and
 * between processes alike, and a killed process leaves none behind; what it left in tmp/ is swept
 * when the store is opened next.
 *
 * Durable means: blobs are fsynced; an unpacked layer is synced as a whole (syncfs) before its
 * rename, because after a power cut a folder that has its final name must have its content.
 *
 * layers/<hex>/fs is written once and never changed: overlay lowers must not change under a mount.
 */
#include "images/content_priv.h"
#include "base/io.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/rand.h"
#include "images/layer.h"
#include "images/reference.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/xattr.h>

char *th_images_path(struct th_images *s, const char *sub)
{
    return th_path_join(s->dir, sub);
}

const char *th_images_dir(const struct th_images *s)
{
    return s->dir;
}

static int flock_open(struct th_images *s, int how, int *ret_fd, struct th_err *err)
{
    th_autofree char *path = th_images_path(s, "lock");
    th_autoclose int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "open %s", path);
    }
    while (flock(fd, how) < 0) {
        if (errno == EWOULDBLOCK) {
            return th_fail(err, TH_R_LOCKED, "image store %s is in use", s->dir);
        }
        if (errno != EINTR) {
            return th_fail_errno(err, errno, TH_R_IO, "lock %s", path);
        }
    }
    *ret_fd = th_steal_fd(&fd);
    return 0;
}

/* What killed processes left in tmp/ goes, when nobody is at work. */
static void sweep_tmp(struct th_images *s)
{
    th_autoclose int fd = -1;
    if (flock_open(s, LOCK_EX | LOCK_NB, &fd, NULL) < 0) {
        return;
    }
    th_autofree char *tmp = th_images_path(s, "tmp");
    th_autostrv struct th_strv names = TH_STRV_INIT;
    if (th_io_list(tmp, &names, NULL) < 0) {
        return;
    }
    for (size_t i = 0; i < names.n; i++) {
        th_autofree char *p = th_path_join(tmp, names.v[i]);
        (void)th_io_rm_rf(p, NULL);
    }
}

int th_images_open(const char *dir, unsigned flags, struct th_images **ret, struct th_err *err)
{
    static const char *const subs[] = {"blobs/sha256", "layers", "leases", "cache", "tmp"};
    struct th_images *s = TH_NEW(struct th_images);
    int r = th_io_mkdir_p(dir, 0711, err);
    char *real = r < 0 ? NULL : realpath(dir, NULL);
    s->dir = real ? real : th_xstrdup(dir);
    s->flags = flags;
    for (size_t i = 0; r >= 0 && i < TH_ARRAY_LEN(subs); i++) {
        th_autofree char *p = th_images_path(s, subs[i]);
        r = th_io_mkdir_p(p, 0711, err);
    }
    th_autofree char *head = th_images_path(s, "oci-layout");
    if (r >= 0 && !th_io_exists(head)) {
        static const char text[] = "{\"imageLayoutVersion\":\"1.0.0\"}";
        r = th_io_write_atomic(head, text, sizeof(text) - 1, 0644, err);
    }
    if (r < 0) {
        th_images_close(s);
        return th_wrap(err, "open image store %s", dir);
    }
    sweep_tmp(s);
    *ret = s;
    return 0;
}

void th_images_close(struct th_images *s)
{
    if (s) {
        free(s->dir);
        free(s);
    }
}

/* ---- sessions ---- */

int th_images_session_begin(struct th_images *s, struct th_images_session **ret,
                            struct th_err *err)
{
    int fd = -1;
    TH_TRY(flock_open(s, LOCK_SH, &fd, err));
    char rnd[13];
    th_rand_suffix(rnd, 12);
    struct th_images_session *ss = TH_NEW(struct th_images_session);
    ss->s = s;
    ss->lock_fd = fd;
    ss->tmp = th_xasprintf("%s/tmp/%d-%s", s->dir, (int)getpid(), rnd);
    int r = th_io_mkdir_p(ss->tmp, 0700, err);
    if (r < 0) {
        th_images_session_end(ss);
        return r;
    }
    *ret = ss;
    return 0;
}

void th_images_session_end(struct th_images_session *ss)
{
    if (!ss) {
        return;
    }
    struct th_images *s = ss->s;
    (void)th_io_rm_rf(ss->tmp, NULL);
    (void)close(ss->lock_fd);
    free(ss->tmp);
    free(ss);
    if (atomic_load(&s->gc_wanted)) {
        struct th_images_gc_opts none = {0};
        if (th_images_gc(s, &none, NULL, NULL) < 0) {
            th_debug("images", "collection after a session failed", NULL);
        }
    }
}

const char *th_images_session_tmp(struct th_images_session *ss)
{
    return ss->tmp;
}

char *th_images_session_file(struct th_images_session *ss, const char *what)
{
    return th_xasprintf("%s/%s-%u", ss->tmp, what, atomic_fetch_add(&ss->seq, 1));
}

/* ---- blobs ---- */

static const char *hex_of(const char *digest)
{
    return digest + 7;
}

char *th_images_blob_path(struct th_images *s, const char *digest)
{
    TH_ASSERT(th_digest_valid(digest));
    return th_xasprintf("%s/blobs/sha256/%s", s->dir, hex_of(digest));
}

bool th_images_has_blob(struct th_images *s, const char *digest)
{
    if (!th_digest_valid(digest)) {
        return false;
    }
    th_autofree char *p = th_images_blob_path(s, digest);
    return th_io_exists(p);
}

int th_images_take_blob(struct th_images_session *ss, const char *file, const char *digest,
                        struct th_err *err)
{
    th_autofree char *dst = th_images_blob_path(ss->s, digest);
    if (th_io_exists(dst)) {
        (void)unlink(file);
        return 0;
    }
    th_autoclose int fd = open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0 || fchmod(fd, 0644) < 0 || rename(file, dst) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "store blob %s", digest);
    }
    return 0;
}

/* Copies all of `in` to a new file. */
static int spool(struct th_reader in, const char *file, struct th_err *err)
{
    th_autoclose int fd = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "make %s", file);
    }
    th_autofree char *buf = th_xmalloc(TH_IO_COPY_BUF);
    for (;;) {
        ssize_t n = in.read(in.arg, buf, TH_IO_COPY_BUF, err);
        if (n <= 0) {
            return (int)n;
        }
        TH_TRY(th_io_write_all(fd, buf, (size_t)n, err));
    }
}

int th_images_put_blob(struct th_images_session *ss, struct th_reader in, const char *want,
                       uint64_t max, char *ret_digest, uint64_t *ret_size, struct th_err *err)
{
    th_autofree char *file = th_images_session_file(ss, "blob");
    struct th_hash_stream h = {.in = in, .limit = max};
    th_hash_stream_init(&h);
    int r = spool(th_hash_stream_reader(&h), file, err);
    if (r < 0) {
        th_hash_stream_done(&h);
        (void)unlink(file);
        return r;
    }
    char digest[TH_DIGEST_LEN];
    uint64_t n = h.n;
    th_hash_stream_digest(&h, digest);
    if (want && !th_streq(want, digest)) {
        (void)unlink(file);
        (void)th_fail(err, TH_R_DIGEST_MISMATCH, "content of %s has digest %s", want, digest);
        return th_hint(err, "the data was damaged on its way; get it again");
    }
    TH_TRY(th_images_take_blob(ss, file, digest, err));
    memcpy(ret_digest, digest, sizeof(digest));
    if (ret_size) {
        *ret_size = n;
    }
    return 0;
}

int th_images_put_bytes(struct th_images_session *ss, const void *p, size_t n, char *ret_digest,
                        struct th_err *err)
{
    struct th_mem_reader m = {.p = p, .n = n};
    return th_images_put_blob(ss, th_reader_mem(&m), NULL, 0, ret_digest, NULL, err);
}

int th_images_read_blob(struct th_images *s, const char *digest, size_t max, struct th_buf *b,
                        struct th_err *err)
{
    if (!th_digest_valid(digest)) {
        return th_fail(err, TH_R_BAD_ARCHIVE, "\"%.100s\" is not a sha256 digest",
                       digest ? digest : "");
    }
    th_autofree char *p = th_images_blob_path(s, digest);
    int r = th_io_read_file(p, max, b, err);
    return r < 0 ? th_wrap(err, "read blob %s", digest) : r;
}

/* ---- unpacked layers ---- */

char *th_images_layer_path(struct th_images *s, const char *diff_id)
{
    TH_ASSERT(th_digest_valid(diff_id));
    return th_xasprintf("%s/layers/%s/fs", s->dir, hex_of(diff_id));
}

bool th_images_has_layer(struct th_images *s, const char *diff_id)
{
    if (!th_digest_valid(diff_id)) {
        return false;
    }
    th_autofree char *p = th_images_layer_path(s, diff_id);
    return th_io_is_dir(p);
}

/* Makes tmp (which holds fs/) the unpacked layer diff_id. */
static int publish_layer(struct th_images *s, const char *tmp, const char *diff_id, uint64_t bytes,
                         struct th_err *err)
{
    th_autofree char *dst = th_xasprintf("%s/layers/%s", s->dir, hex_of(diff_id));
    th_autofree char *size_file = th_path_join(tmp, "bytes");
    char text[32];
    int n = snprintf(text, sizeof(text), "%llu\n", (unsigned long long)bytes);
    TH_TRY(th_io_write_file(size_file, text, (size_t)n, 0644, err));
    th_autoclose int fd = open(tmp, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || syncfs(fd) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "sync layer %s", diff_id);
    }
    if (rename(tmp, dst) < 0 && errno != EEXIST && errno != ENOTEMPTY) {
        return th_fail_errno(err, errno, TH_R_IO, "store layer %s", diff_id);
    }
    return 0;
}

static int unpack_to(struct th_reader raw, const char *fs, char *ret_diff_id, uint64_t *ret_bytes,
                     struct th_err *err)
{
    TH_AUTO(th_decomp) struct th_decomp *d = th_decomp_new(raw);
    struct th_hash_stream h = {.in = th_decomp_reader(d)};
    bool root = geteuid() == 0;
    struct th_layer_apply_opts o = {
        .whiteouts = true, .keep_owner = root, .keep_xattrs = root, .skip_devices = !root};
    struct th_layer_stat st = {0};
    th_hash_stream_init(&h);
    int r = th_layer_apply(th_hash_stream_reader(&h), fs, &o, &st, err);
    if (r >= 0) {
        th_hash_stream_digest(&h, ret_diff_id);
        *ret_bytes = st.bytes;
    }
    th_hash_stream_done(&h);
    return r;
}

int th_images_unpack_blob(struct th_images_session *ss, const char *digest, const char *diff_id,
                          char *ret_diff_id, struct th_err *err)
{
    if (diff_id && th_images_has_layer(ss->s, diff_id)) {
        if (ret_diff_id) {
            (void)snprintf(ret_diff_id, TH_DIGEST_LEN, "%s", diff_id);
        }
        return 0;
    }
    th_autofree char *blob = th_images_blob_path(ss->s, digest);
    th_autoclose int fd = open(blob, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return th_fail_errno(err, errno, TH_R_STATE_CORRUPT, "layer blob %s", digest);
    }
    th_autofree char *tmp = th_images_session_file(ss, "layer");
    th_autofree char *fs = th_path_join(tmp, "fs");
    TH_TRY(th_io_mkdir_p(fs, 0755, err));
    char got[TH_DIGEST_LEN];
    uint64_t bytes = 0;
    int r = unpack_to(th_reader_fd(fd), fs, got, &bytes, err);
    if (r >= 0 && diff_id && !th_streq(diff_id, got)) {
        (void)th_fail(err, TH_R_DIGEST_MISMATCH, "layer %s unpacks to %s, not to the %s its "
                      "image's config names", digest, got, diff_id);
        r = th_hint(err, "the image is damaged; get it again from its source");
    }
    if (r >= 0) {
        r = publish_layer(ss->s, tmp, got, bytes, err);
    }
    (void)th_io_rm_rf(tmp, NULL);
    if (r >= 0 && ret_diff_id) {
        memcpy(ret_diff_id, got, sizeof(got));
    }
    return r;
}

static uint64_t tree_bytes(const char *dir)
{
    uint64_t sum = 0;
    th_autostrv struct th_strv names = TH_STRV_INIT;
    if (th_io_list(dir, &names, NULL) < 0) {
        return 0;
    }
    for (size_t i = 0; i < names.n; i++) {
        th_autofree char *p = th_path_join(dir, names.v[i]);
        struct stat st;
        if (lstat(p, &st) < 0) {
            continue;
        }
        sum += S_ISDIR(st.st_mode) ? tree_bytes(p) : S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
    }
    return sum;
}

int th_images_take_layer(struct th_images_session *ss, const char *upper_dir, const char *diff_id,
                         struct th_err *err)
{
    if (th_images_has_layer(ss->s, diff_id)) {
        return 0;
    }
    th_autofree char *tmp = th_images_session_file(ss, "layer");
    th_autofree char *fs = th_path_join(tmp, "fs");
    TH_TRY(th_io_mkdir_p(tmp, 0755, err));
    if (rename(upper_dir, fs) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "store layer %s", diff_id);
    }
    int r = publish_layer(ss->s, tmp, diff_id, tree_bytes(fs), err);
    (void)th_io_rm_rf(tmp, NULL);
    return r;
}

int th_images_unpack(struct th_images *s, const struct th_image *img, struct th_err *err)
{
    bool all = true;
    for (size_t i = 0; i < img->n_layers; i++) {
        all = all && th_images_has_layer(s, img->layers[i].diff_id);
    }
    if (all) {
        return 0;
    }
    TH_AUTO(th_images_session) struct th_images_session *ss = NULL;
    TH_TRY(th_images_session_begin(s, &ss, err));
    for (size_t i = 0; i < img->n_layers; i++) {
        const struct th_image_layer *l = &img->layers[i];
        TH_TRY(th_images_unpack_blob(ss, l->digest, l->diff_id, NULL, err));
    }
    return 0;
}

int th_images_mount(struct th_images *s, const struct th_image *img, const char *upper,
                    const char *work, const char *target, struct th_err *err)
{
    TH_TRY(th_images_unpack(s, img, err));
    th_autofree char *empty = th_images_path(s, "layers/empty/fs");
    const char **lowers = th_xcalloc(img->n_layers + 2, sizeof(*lowers));
    size_t n = 0;
    for (size_t i = img->n_layers; i-- > 0;) {
        lowers[n++] = img->layers[i].fs;
    }
    int r = 0;
    if (n < (upper ? 1u : 2u)) { /* overlay wants a lower, and two without an upper */
        r = th_io_mkdir_p(empty, 0755, err);
        lowers[n++] = empty;
        if (n < 2 && !upper) {
            lowers[n++] = empty;
        }
    }
    if (r >= 0) {
        r = th_overlay_mount(lowers, n, upper, work, target, err);
    }
    free(lowers);
    return r;
}
