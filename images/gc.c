/* Collection, sizes, and the build cache's entries.
 *
 * Mark: manifests named by index.json and by leases, with their configs, layers and diff ids; and
 * what build cache entries name. Sweep: every other blob and unpacked layer. It runs only while no
 * session is open (exclusive lock, not waited for: a build may take minutes); when it cannot run it
 * leaves a mark and the end of the next session does it.
 *
 * An unreadable manifest that is still named keeps nothing but itself: the image is broken already.
 */
#include "base/io.h"
#include "base/limits.h"
#include "images/content_priv.h"
#include "images/reference.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

struct marks {
    struct th_images *s;
    struct th_hmap blobs, layers; /* sets of hex digests */
};

static void mark(struct th_hmap *m, const char *digest)
{
    if (th_digest_valid(digest)) {
        th_hmap_set(m, digest + 7, m);
    }
}

static void mark_manifest(struct marks *k, const char *digest)
{
    if (!th_digest_valid(digest) || th_hmap_has(&k->blobs, digest + 7)) {
        return;
    }
    mark(&k->blobs, digest);
    TH_AUTO(th_image) struct th_image *img = NULL;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (th_images_read_image(k->s, digest, &img, &err) < 0) {
        return;
    }
    mark(&k->blobs, img->id);
    for (size_t i = 0; i < img->n_layers; i++) {
        mark(&k->blobs, img->layers[i].digest);
        mark(&k->layers, img->layers[i].diff_id);
    }
}

static void mark_lease(void *arg, const char *name, const char *manifest, const char *id)
{
    (void)name;
    (void)id;
    mark_manifest(arg, manifest);
}

static uint64_t file_size(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}

static uint64_t layer_size(const char *dir)
{
    th_autofree char *p = th_path_join(dir, "bytes");
    th_autobuf struct th_buf b = TH_BUF_INIT;
    return th_io_read_file(p, 64, &b, NULL) < 0 ? 0 : strtoull(th_buf_cstr(&b), NULL, 10);
}

/* Removes children of `sub` that are not in `keep`. A layer is renamed into tmp/ first, so that a
 * kill in the middle never leaves half a layer under its name. */
static int sweep(struct th_images *s, const char *sub, const struct th_hmap *keep, bool dirs,
                 uint64_t *freed, struct th_err *err)
{
    th_autofree char *dir = th_images_path(s, sub);
    th_autostrv struct th_strv names = TH_STRV_INIT;
    TH_TRY(th_io_list(dir, &names, err));
    for (size_t i = 0; i < names.n; i++) {
        if (th_hmap_has(keep, names.v[i]) || th_streq(names.v[i], "empty")) {
            continue;
        }
        th_autofree char *p = th_path_join(dir, names.v[i]);
        *freed += dirs ? layer_size(p) : file_size(p);
        if (!dirs) {
            (void)unlink(p);
            continue;
        }
        th_autofree char *trash =
            th_xasprintf("%s/tmp/trash-%u", s->dir, atomic_fetch_add(&s->tmp_seq, 1));
        if (rename(p, trash) == 0) {
            (void)th_io_rm_rf(trash, NULL);
        }
    }
    return 0;
}

static int drop_unnamed(struct th_images *s, const struct th_hmap *leased, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *index = NULL;
    TH_TRY(th_images_index_read(s, &index, err));
    struct th_json *list = th_json_get(index, "manifests");
    bool changed = false;
    for (size_t i = th_json_len(list); i-- > 0;) {
        const struct th_json *d = th_json_at(list, i);
        const char *digest = th_json_str(th_json_get(d, "digest"));
        if (!th_images_desc_name(d) &&
            !(th_digest_valid(digest) && th_hmap_has(leased, digest + 7))) {
            th_json_del_at(list, i);
            changed = true;
        }
    }
    return changed ? th_images_index_write(s, index, err) : 0;
}

static int mark_index(struct marks *k, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *index = NULL;
    TH_TRY(th_images_index_read(k->s, &index, err));
    const struct th_json *list = th_json_get(index, "manifests");
    for (size_t i = 0; i < th_json_len(list); i++) {
        mark_manifest(k, th_json_path_str(th_json_at(list, i), "digest"));
    }
    return 0;
}

/* Marks what cache entries hold; an entry whose layer is gone is dropped. */
static int mark_cache(struct marks *k, bool drop, struct th_err *err)
{
    th_autofree char *dir = th_images_path(k->s, "cache");
    th_autostrv struct th_strv names = TH_STRV_INIT;
    TH_TRY(th_io_list(dir, &names, err));
    for (size_t i = 0; i < names.n; i++) {
        struct th_cache_entry e;
        if (drop || !th_images_cache_get(k->s, names.v[i], &e)) {
            th_autofree char *p = th_path_join(dir, names.v[i]);
            (void)unlink(p);
        } else if (!e.empty) {
            mark(&k->blobs, e.digest);
            mark(&k->layers, e.diff_id);
        }
    }
    return 0;
}

static int collect(struct th_images *s, const struct th_images_gc_opts *o, uint64_t *freed,
                   struct th_err *err)
{
    th_autoclose int lock = -1;
    TH_TRY(th_images_index_lock(s, &lock, err));
    struct marks k = {.s = s};
    th_hmap_init(&k.blobs, NULL);
    th_hmap_init(&k.layers, NULL);
    int r = th_images_each_lease(s, mark_lease, &k, err);
    if (r >= 0 && o->drop_untagged) {
        r = drop_unnamed(s, &k.blobs, err);
    }
    if (r >= 0) {
        r = mark_index(&k, err);
    }
    if (r >= 0) {
        r = mark_cache(&k, o->drop_cache, err);
    }
    if (r >= 0) {
        r = sweep(s, "blobs/sha256", &k.blobs, false, freed, err);
    }
    if (r >= 0) {
        r = sweep(s, "layers", &k.layers, true, freed, err);
    }
    th_hmap_done(&k.blobs);
    th_hmap_done(&k.layers);
    return r;
}

int th_images_gc(struct th_images *s, const struct th_images_gc_opts *opts, uint64_t *ret_freed_b,
                 struct th_err *err)
{
    th_autofree char *path = th_images_path(s, "lock");
    th_autoclose int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "open %s", path);
    }
    uint64_t freed = 0;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        atomic_store(&s->gc_wanted, true);
        if (opts->drop_untagged || opts->drop_cache) {
            (void)th_fail(err, TH_R_LOCKED, "a build, load or pull is using the image store");
            return th_hint(err, "run it again when that has ended");
        }
    } else {
        atomic_store(&s->gc_wanted, false);
        TH_TRY(collect(s, opts, &freed, err));
    }
    if (ret_freed_b) {
        *ret_freed_b = freed;
    }
    return 0;
}

int th_images_du(struct th_images *s, struct th_images_usage *ret, struct th_err *err)
{
    struct th_images_usage u = {0};
    th_autofree char *blobs = th_images_path(s, "blobs/sha256");
    th_autofree char *layers = th_images_path(s, "layers");
    th_autofree char *cache = th_images_path(s, "cache");
    th_autostrv struct th_strv b = TH_STRV_INIT, l = TH_STRV_INIT, c = TH_STRV_INIT;
    TH_TRY(th_io_list(blobs, &b, err));
    TH_TRY(th_io_list(layers, &l, err));
    TH_TRY(th_io_list(cache, &c, err));
    for (size_t i = 0; i < b.n; i++) {
        th_autofree char *p = th_path_join(blobs, b.v[i]);
        u.blobs_b += file_size(p);
    }
    for (size_t i = 0; i < l.n; i++) {
        th_autofree char *p = th_path_join(layers, l.v[i]);
        u.layers_b += layer_size(p);
        u.layers += !th_streq(l.v[i], "empty");
    }
    struct th_image **v = NULL;
    size_t n = 0;
    TH_TRY(th_images_list(s, &v, &n, err));
    th_image_list_free(v, n);
    u.images = n;
    u.blobs = b.n;
    u.cache_entries = c.n;
    *ret = u;
    return 0;
}

/* ---- the build cache ---- */

static char *cache_path(struct th_images *s, const char *key)
{
    return th_xasprintf("%s/cache/%s", s->dir, key);
}

bool th_images_cache_get(struct th_images *s, const char *key, struct th_cache_entry *ret)
{
    th_autofree char *p = cache_path(s, key);
    th_autobuf struct th_buf b = TH_BUF_INIT;
    TH_AUTO(th_json) struct th_json *o = NULL;
    if (strlen(key) != 64 || th_io_read_file(p, 4096, &b, NULL) < 0 ||
        th_json_parse(b.p, b.n, NULL, &o, NULL) < 0) {
        return false;
    }
    struct th_cache_entry e = {.empty = th_json_path_bool(o, "empty", false),
                               .size = th_json_path_int(o, "size", 0)};
    if (!e.empty) {
        const char *diff = th_json_path_str(o, "diffID"), *dig = th_json_path_str(o, "digest");
        if (!th_digest_valid(diff) || !th_images_has_blob(s, dig)) {
            return false;
        }
        (void)snprintf(e.diff_id, sizeof(e.diff_id), "%s", diff);
        (void)snprintf(e.digest, sizeof(e.digest), "%s", dig);
    }
    *ret = e;
    return true;
}

int th_images_cache_put(struct th_images_session *ss, const char *key,
                        const struct th_cache_entry *e, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *o =
        th_json_build("{'empty':%b,'diffID':%s,'digest':%s,'size':%d}", (int)e->empty, e->diff_id,
                      e->digest, e->size);
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_autofree char *p = cache_path(ss->s, key);
    th_json_dump(o, &b);
    return th_io_write_atomic(p, b.p, b.n, 0644, err);
}
