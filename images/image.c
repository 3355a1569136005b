/* Images: names, configs, leases.
 *
 * index.json is the one place that says which images there are: an OCI index with one descriptor
 * for each name (annotation io.containerd.image.name holds the full one), or a descriptor without
 * a name for an image that lost its last. It is small, read anew by every call and replaced
 * atomically under index.lock, so that any number of processes agree.
 *
 * An image's ID is the digest of its config, as Docker and the CRI have it. Two manifests may share
 * a config (an image loaded from a docker archive and the same one pulled); the list shows them as
 * one image with all names.
 *
 * A lease names a manifest, not a name: retagging never takes a running container's content away.
 */
#include "base/io.h"
#include "base/clock.h"
#include "base/limits.h"
#include "images/content_priv.h"
#include "images/layer.h"
#include "images/reference.h"

#include <errno.h>

#define NAME_ANN "io.containerd.image.name"
#define TAG_ANN "org.opencontainers.image.ref.name"
#define INDEX_MAX (64u << 20)
#define LAYERS_MAX 200

int th_images_index_lock(struct th_images *s, int *ret_fd, struct th_err *err)
{
    th_autofree char *p = th_images_path(s, "index.lock");
    return th_io_lock(p, 30000, ret_fd, err);
}

int th_images_index_read(struct th_images *s, struct th_json **ret, struct th_err *err)
{
    th_autofree char *p = th_images_path(s, "index.json");
    th_autobuf struct th_buf b = TH_BUF_INIT;
    if (!th_io_exists(p)) {
        *ret = th_json_build("{'schemaVersion':2,'mediaType':%s,'manifests':[]}",
                             TH_MT_OCI_INDEX);
        return 0;
    }
    TH_TRY(th_io_read_file(p, INDEX_MAX, &b, err));
    struct th_json *o = NULL;
    if (th_json_parse(b.p, b.n, NULL, &o, err) < 0 ||
        !th_json_is(th_json_get(o, "manifests"), TH_JSON_ARRAY)) {
        th_json_unref(o);
        (void)th_fail(err, TH_R_STATE_CORRUPT, "%s is damaged", p);
        return th_hint(err, "move the file away; images can then be loaded or built again");
    }
    *ret = o;
    return 0;
}

int th_images_index_write(struct th_images *s, const struct th_json *index, struct th_err *err)
{
    th_autofree char *p = th_images_path(s, "index.json");
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_json_dump(index, &b);
    return th_io_write_atomic(p, b.p, b.n, 0644, err);
}

const char *th_images_desc_name(const struct th_json *desc)
{
    return th_json_str(th_json_get(th_json_get(desc, "annotations"), NAME_ANN));
}

static const char *desc_digest(const struct th_json *desc)
{
    const char *d = th_json_str(th_json_get(desc, "digest"));
    return d ? d : "";
}

/* ---- reading an image ---- */

void th_image_free(struct th_image *i)
{
    if (!i) {
        return;
    }
    free(i->id);
    free(i->manifest_digest);
    th_strv_done(&i->names);
    th_strv_done(&i->digests);
    th_strv_done(&i->config.entrypoint);
    th_strv_done(&i->config.cmd);
    th_strv_done(&i->config.env);
    th_strv_done(&i->config.ports);
    th_strv_done(&i->config.volumes);
    th_strv_done(&i->config.shell);
    th_strv_done(&i->config.labels);
    free(i->config.user);
    free(i->config.workdir);
    free(i->config.stop_signal);
    free(i->config_json);
    free(i->architecture);
    free(i->os);
    for (size_t k = 0; k < i->n_layers; k++) {
        free(i->layers[k].diff_id);
        free(i->layers[k].digest);
        free(i->layers[k].media_type);
        free(i->layers[k].fs);
    }
    free(i->layers);
    free(i);
}

void th_image_list_free(struct th_image **l, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        th_image_free(l[i]);
    }
    free(l);
}

static void take_array(struct th_strv *dst, const struct th_json *a)
{
    for (size_t i = 0; i < th_json_len(a); i++) {
        const char *v = th_json_str(th_json_at(a, i));
        if (v) {
            th_strv_add(dst, v);
        }
    }
}

static void take_keys(struct th_strv *dst, const struct th_json *o, bool values)
{
    if (!th_json_is(o, TH_JSON_OBJECT)) {
        return;
    }
    struct th_json_iter it = TH_JSON_ITER(o);
    while (th_json_next(&it)) {
        const char *v = th_json_str(it.value);
        if (values) {
            th_strv_addf(dst, "%s=%s", it.name, v ? v : "");
        } else {
            th_strv_add(dst, it.name);
        }
    }
    th_strv_sort(dst);
}

static char *str_or_empty(const struct th_json *o, const char *name)
{
    const char *v = th_json_str(th_json_get(o, name));
    return th_xstrdup(v ? v : "");
}

static void take_config(struct th_image *img, const struct th_json *doc)
{
    const struct th_json *c = th_json_get(doc, "config");
    take_array(&img->config.entrypoint, th_json_get(c, "Entrypoint"));
    take_array(&img->config.cmd, th_json_get(c, "Cmd"));
    take_array(&img->config.env, th_json_get(c, "Env"));
    take_array(&img->config.shell, th_json_get(c, "Shell"));
    take_keys(&img->config.ports, th_json_get(c, "ExposedPorts"), false);
    take_keys(&img->config.volumes, th_json_get(c, "Volumes"), false);
    take_keys(&img->config.labels, th_json_get(c, "Labels"), true);
    img->config.user = str_or_empty(c, "User");
    img->config.workdir = str_or_empty(c, "WorkingDir");
    img->config.stop_signal = str_or_empty(c, "StopSignal");
    img->architecture = str_or_empty(doc, "architecture");
    img->os = str_or_empty(doc, "os");
    int64_t us = 0;
    const char *created = th_json_str(th_json_get(doc, "created"));
    if (created && th_time_parse(created, &us, NULL) >= 0) {
        img->created_ms = us / 1000;
    }
}

static int damaged(struct th_err *err, const char *digest, const char *why)
{
    (void)th_fail(err, TH_R_BAD_ARCHIVE, "image %s: %s", digest, why);
    return th_hint(err, "the image is damaged; get it again from its source");
}

static int read_json(struct th_images *s, const char *digest, struct th_buf *b,
                     struct th_json **ret, struct th_err *err)
{
    TH_TRY(th_images_read_blob(s, digest, TH_LIMIT_MANIFEST_B, b, err));
    int r = th_json_parse(b->p, b->n, NULL, ret, err);
    if (r < 0 || !th_json_is(*ret, TH_JSON_OBJECT)) {
        return damaged(err, digest, "is not a JSON object");
    }
    return 0;
}

static int take_layers(struct th_images *s, struct th_image *img, const struct th_json *manifest,
                       const struct th_json *config, struct th_err *err)
{
    const struct th_json *layers = th_json_get(manifest, "layers");
    const struct th_json *ids = th_json_path(config, "rootfs.diff_ids");
    size_t n = th_json_len(layers);
    if (n != th_json_len(ids) || n > LAYERS_MAX) {
        return damaged(err, img->manifest_digest,
                       n > LAYERS_MAX ? "has more than 200 layers"
                                      : "manifest and config disagree on the number of layers");
    }
    img->layers = th_xcalloc(n + 1, sizeof(*img->layers));
    for (size_t i = 0; i < n; i++) {
        const struct th_json *l = th_json_at(layers, i);
        const char *id = th_json_str(th_json_at(ids, i));
        const char *digest = th_json_str(th_json_get(l, "digest"));
        const char *type = th_json_str(th_json_get(l, "mediaType"));
        if (!th_digest_valid(id) || !th_digest_valid(digest)) {
            return damaged(err, img->manifest_digest, "has a layer without a valid digest");
        }
        img->n_layers = i + 1;
        img->layers[i] =
            (struct th_image_layer){.diff_id = th_xstrdup(id),
                                    .digest = th_xstrdup(digest),
                                    .media_type = th_xstrdup(type ? type : TH_MT_OCI_LAYER),
                                    .size = th_json_as_int(th_json_get(l, "size"), 0),
                                    .fs = th_images_layer_path(s, id)};
        img->size += img->layers[i].size;
    }
    return 0;
}

static int read_into(struct th_images *s, struct th_image *img, struct th_err *err)
{
    th_autobuf struct th_buf mb = TH_BUF_INIT, cb = TH_BUF_INIT;
    TH_AUTO(th_json) struct th_json *m = NULL;
    TH_AUTO(th_json) struct th_json *c = NULL;
    TH_TRY(read_json(s, img->manifest_digest, &mb, &m, err));
    const char *config = th_json_path_str(m, "config.digest");
    if (!th_digest_valid(config)) {
        return damaged(err, img->manifest_digest, "its manifest names no config");
    }
    TH_TRY(read_json(s, config, &cb, &c, err));
    img->id = th_xstrdup(config);
    img->size = (int64_t)(mb.n + cb.n);
    take_config(img, c);
    TH_TRY(take_layers(s, img, m, c, err));
    img->config_json = th_buf_steal(&cb, NULL);
    return 0;
}

int th_images_read_image(struct th_images *s, const char *manifest_digest, struct th_image **ret,
                         struct th_err *err)
{
    struct th_image *img = TH_NEW(struct th_image);
    img->manifest_digest = th_xstrdup(manifest_digest);
    int r = read_into(s, img, err);
    if (r < 0) {
        th_image_free(img);
        return r;
    }
    *ret = img;
    return 0;
}

/* ---- finding ---- */

/* Fills names and digests from the index: every descriptor with this manifest. */
static void add_name(struct th_image *img, const char *name)
{
    if (!name || th_strv_has(&img->names, name)) {
        return;
    }
    th_strv_add(&img->names, name);
    th_strv_sort(&img->names);
    TH_AUTO_REF struct th_ref r = {0};
    if (th_ref_parse(name, &r, NULL) == 0) {
        th_autofree char *plain = th_ref_name(&r);
        th_autofree char *d = th_xasprintf("%s@%s", plain, img->manifest_digest);
        if (!th_strv_has(&img->digests, d)) {
            th_strv_add(&img->digests, d);
        }
    }
}

static int all_images(struct th_images *s, struct th_image ***ret, size_t *ret_n,
                      struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *index = NULL;
    TH_TRY(th_images_index_read(s, &index, err));
    const struct th_json *list = th_json_get(index, "manifests");
    struct th_image **v = NULL;
    size_t n = 0, cap = 0;
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *d = th_json_at(list, i);
        struct th_image *img = NULL;
        struct th_image *fresh = NULL;
        for (size_t k = 0; k < n && !img; k++) {
            img = th_streq(v[k]->manifest_digest, desc_digest(d)) ? v[k] : NULL;
        }
        if (!img) {
            TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
            if (th_images_read_image(s, desc_digest(d), &fresh, &e) < 0) {
                continue; /* one damaged image does not hide the others */
            }
            for (size_t k = 0; k < n && !img; k++) {
                img = th_streq(v[k]->id, fresh->id) ? v[k] : NULL;
            }
        }
        if (!img) {
            v = th_xgrow(v, &cap, n + 1, sizeof(*v));
            v[n++] = img = th_steal(&fresh);
        }
        th_image_free(fresh);
        add_name(img, th_images_desc_name(d));
    }
    *ret = v;
    *ret_n = n;
    return 0;
}

static int newest_first(const void *a, const void *b)
{
    const struct th_image *x = *(struct th_image *const *)a, *y = *(struct th_image *const *)b;
    if (x->created_ms != y->created_ms) {
        return x->created_ms < y->created_ms ? 1 : -1;
    }
    return strcmp(x->id, y->id);
}

int th_images_list(struct th_images *s, struct th_image ***ret, size_t *ret_n, struct th_err *err)
{
    TH_TRY(all_images(s, ret, ret_n, err));
    if (*ret_n > 1) {
        qsort(*ret, *ret_n, sizeof(**ret), newest_first);
    }
    return 0;
}

static bool is_hex(const char *s)
{
    return *s && strspn(s, "0123456789abcdef") == strlen(s);
}

/* The ID (or prefix) that `ref` is, without "sha256:"; NULL when it is no ID. */
static const char *as_id(const char *ref)
{
    if (th_startswith(ref, "sha256:")) {
        return is_hex(ref + 7) && strlen(ref + 7) <= 64 ? ref + 7 : NULL;
    }
    size_t n = strlen(ref);
    return n >= 12 && n <= 64 && is_hex(ref) ? ref : NULL;
}

static int no_image(struct th_err *err, const char *ref)
{
    (void)th_fail(err, TH_R_NO_IMAGE, "no such image: %s", ref);
    return th_hint(err, "thimble image ls shows what is there; thimble image load, build or pull "
                        "brings more");
}

struct lease_find {
    const char *hex;
    char *manifest;
};
static void lease_match(void *arg, const char *name, const char *manifest, const char *id)
{
    struct lease_find *f = arg;
    (void)name;
    if (!f->manifest && strncmp(id + 7, f->hex, strlen(f->hex)) == 0) {
        f->manifest = th_xstrdup(manifest);
    }
}

static int by_id(struct th_images *s, const char *ref, const char *hex, struct th_image **ret,
                 struct th_err *err)
{
    struct th_image **v = NULL;
    size_t n = 0, hit = 0, hits = 0;
    TH_TRY(all_images(s, &v, &n, err));
    for (size_t i = 0; i < n; i++) {
        if (strncmp(v[i]->id + 7, hex, strlen(hex)) == 0 ||
            strncmp(v[i]->manifest_digest + 7, hex, strlen(hex)) == 0) {
            hit = i;
            hits++;
        }
    }
    if (hits == 1) {
        *ret = v[hit];
        v[hit] = NULL;
    }
    th_image_list_free(v, n);
    if (hits > 1) {
        (void)th_fail(err, TH_R_CONFLICT, "image ID prefix %s is ambiguous", ref);
        return th_hint(err, "write more digits of the ID");
    }
    if (hits == 1) {
        return 0;
    }
    struct lease_find f = {.hex = hex};
    TH_TRY(th_images_each_lease(s, lease_match, &f, err));
    th_autofree char *manifest = f.manifest;
    return manifest ? th_images_read_image(s, manifest, ret, err) : no_image(err, ref);
}

/* The manifest a parsed reference names in the index, or NULL. Borrowed from index. */
static const char *find_name(const struct th_json *index, const struct th_ref *r)
{
    const struct th_json *list = th_json_get(index, "manifests");
    th_autofree char *name = th_ref_name(r);
    th_autofree char *full = th_ref_string(r);
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *d = th_json_at(list, i);
        const char *have = th_images_desc_name(d);
        if (!have) {
            continue;
        }
        if (r->digest) {
            size_t n = strlen(name);
            if (th_streq(desc_digest(d), r->digest) && strncmp(have, name, n) == 0 &&
                (have[n] == ':' || have[n] == '@' || have[n] == 0)) {
                return desc_digest(d);
            }
        } else if (th_streq(have, full)) {
            return desc_digest(d);
        }
    }
    return NULL;
}

static int by_name(struct th_images *s, const char *ref, struct th_image **ret,
                   struct th_err *err)
{
    TH_AUTO_REF struct th_ref r = {0};
    TH_TRY(th_ref_parse(ref, &r, err));
    TH_AUTO(th_json) struct th_json *index = NULL;
    TH_TRY(th_images_index_read(s, &index, err));
    const char *manifest = find_name(index, &r);
    if (!manifest) {
        return no_image(err, ref);
    }
    TH_TRY(th_images_read_image(s, manifest, ret, err));
    const struct th_json *list = th_json_get(index, "manifests");
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *d = th_json_at(list, i);
        if (th_streq(desc_digest(d), manifest)) {
            add_name(*ret, th_images_desc_name(d));
        }
    }
    return 0;
}

int th_images_resolve(struct th_images *s, const char *ref, struct th_image **ret,
                      struct th_err *err)
{
    const char *hex = ref ? as_id(ref) : NULL;
    if (!hex) {
        return by_name(s, ref, ret, err);
    }
    if (!th_startswith(ref, "sha256:") && strlen(hex) < 64) {
        /* "deadbeefcafe" may be a name as well, and a name is meant first */
        TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
        if (by_name(s, ref, ret, &e) == 0) {
            return 0;
        }
    }
    return by_id(s, ref, hex, ret, err);
}

/* ---- changing ---- */

static struct th_json *make_desc(struct th_images *s, const char *manifest, const char *name)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    TH_AUTO(th_json) struct th_json *m = NULL;
    const char *type = NULL;
    if (th_images_read_blob(s, manifest, TH_LIMIT_MANIFEST_B, &b, NULL) == 0 &&
        th_json_parse(b.p, b.n, NULL, &m, NULL) == 0) {
        type = th_json_path_str(m, "mediaType");
    }
    struct th_json *d = th_json_build("{'mediaType':%s,'digest':%s,'size':%d}",
                                      type ? type : TH_MT_OCI_MANIFEST, manifest, (int64_t)b.n);
    TH_AUTO_REF struct th_ref r = {0};
    if (name && th_ref_parse(name, &r, NULL) == 0) {
        struct th_json *ann = th_json_object();
        th_json_set_str(ann, NAME_ANN, name);
        if (r.tag) {
            th_json_set_str(ann, TAG_ANN, r.tag);
        }
        th_json_set(d, "annotations", ann);
    }
    return d;
}

static bool has_manifest(const struct th_json *list, const char *manifest)
{
    for (size_t i = 0; i < th_json_len(list); i++) {
        if (th_streq(desc_digest(th_json_at(list, i)), manifest)) {
            return true;
        }
    }
    return false;
}

/* Takes the name away from whatever has it. The manifest that so loses its last name stays listed
 * without one. *ret_lost (may be NULL) is that manifest. */
static void drop_name(struct th_images *s, struct th_json *list, const char *name)
{
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *d = th_json_at(list, i);
        if (th_streq(th_images_desc_name(d), name)) {
            th_autofree char *lost = th_xstrdup(desc_digest(d));
            th_json_del_at(list, i);
            if (!has_manifest(list, lost)) {
                th_json_append(list, make_desc(s, lost, NULL));
            }
            return;
        }
    }
}

/* An untagged descriptor is superfluous once its manifest has a name again. */
static void drop_untagged(struct th_json *list, const char *manifest)
{
    for (size_t i = th_json_len(list); i-- > 0;) {
        const struct th_json *d = th_json_at(list, i);
        if (th_streq(desc_digest(d), manifest) && !th_images_desc_name(d)) {
            th_json_del_at(list, i);
        }
    }
}

static int put_name(struct th_images *s, const char *manifest, const char *name,
                    struct th_err *err)
{
    th_autoclose int lock = -1;
    TH_TRY(th_images_index_lock(s, &lock, err));
    TH_AUTO(th_json) struct th_json *index = NULL;
    TH_TRY(th_images_index_read(s, &index, err));
    struct th_json *list = th_json_get(index, "manifests");
    if (name) {
        drop_name(s, list, name);
        drop_untagged(list, manifest);
    } else if (has_manifest(list, manifest)) {
        return 0;
    }
    th_json_append(list, make_desc(s, manifest, name));
    return th_images_index_write(s, index, err);
}

int th_images_add(struct th_images_session *ss, const char *manifest_digest, const char *name,
                  char *ret_id, struct th_err *err)
{
    struct th_images *s = ss->s;
    TH_AUTO(th_image) struct th_image *img = NULL;
    TH_TRY(th_images_read_image(s, manifest_digest, &img, err));
    for (size_t i = 0; i < img->n_layers; i++) {
        if (!th_images_has_blob(s, img->layers[i].digest)) {
            return damaged(err, manifest_digest, "a layer blob is missing");
        }
    }
    TH_TRY(put_name(s, manifest_digest, name, err));
    if (ret_id) {
        (void)snprintf(ret_id, TH_DIGEST_LEN, "%s", img->id);
    }
    return 0;
}

int th_images_tag(struct th_images *s, const char *src, const char *dst, struct th_err *err)
{
    TH_AUTO_REF struct th_ref r = {0};
    TH_TRY(th_ref_parse(dst, &r, err));
    if (r.digest) {
        (void)th_fail(err, TH_R_BAD_REFERENCE, "\"%s\" has a digest; a new name takes a tag", dst);
        return th_hint(err, "write it as NAME:TAG");
    }
    th_autofree char *name = th_ref_string(&r);
    TH_AUTO(th_images_session) struct th_images_session *ss = NULL;
    TH_TRY(th_images_session_begin(s, &ss, err));
    TH_AUTO(th_image) struct th_image *img = NULL;
    TH_TRY(th_images_resolve(s, src, &img, err));
    return put_name(s, img->manifest_digest, name, err);
}

struct lease_held {
    const char *manifest;
    char *by;
};
static void lease_holds(void *arg, const char *name, const char *manifest, const char *id)
{
    struct lease_held *h = arg;
    (void)id;
    if (!h->by && th_streq(manifest, h->manifest)) {
        h->by = th_xstrdup(name);
    }
}

static void note(struct th_strv *l, const char *what)
{
    if (l) {
        th_strv_add(l, what);
    }
}

/* The index without what is to go. drop_all: by ID, so every name goes. */
static int remove_locked(struct th_images *s, const struct th_image *img, const char *only_name,
                         bool force, struct th_strv *untagged, struct th_strv *deleted,
                         struct th_err *err)
{
    struct lease_held held = {.manifest = img->manifest_digest};
    TH_TRY(th_images_each_lease(s, lease_holds, &held, err));
    th_autofree char *by = held.by;
    bool last = !only_name || img->names.n <= 1;
    if (last && by && !force) {
        (void)th_fail(err, TH_R_CONFLICT, "image %s is in use by container %s",
                      img->names.n ? img->names.v[0] : img->id, by);
        return th_hint(err, "delete the pod first, or use --force to take only the name away");
    }
    TH_AUTO(th_json) struct th_json *index = NULL;
    TH_TRY(th_images_index_read(s, &index, err));
    struct th_json *list = th_json_get(index, "manifests");
    for (size_t i = th_json_len(list); i-- > 0;) {
        const struct th_json *d = th_json_at(list, i);
        const char *name = th_images_desc_name(d);
        bool mine = only_name ? th_streq(name, only_name)
                              : th_streq(desc_digest(d), img->manifest_digest) ||
                                    (name && th_strv_has(&img->names, name));
        if (mine) {
            if (name) {
                note(untagged, name);
            }
            th_json_del_at(list, i);
        }
    }
    if (last && by) {
        th_json_append(list, make_desc(s, img->manifest_digest, NULL));
    } else if (last) {
        note(deleted, img->id);
    }
    return th_images_index_write(s, index, err);
}

int th_images_remove(struct th_images *s, const char *ref, bool force,
                     struct th_strv *ret_untagged, struct th_strv *ret_deleted,
                     struct th_err *err)
{
    th_autoclose int lock = -1;
    TH_TRY(th_images_index_lock(s, &lock, err));
    TH_AUTO(th_image) struct th_image *img = NULL;
    TH_TRY(th_images_resolve(s, ref, &img, err));
    /* by_name fills only the names of the same manifest; a name given must be one of them */
    th_autofree char *name = NULL;
    if (th_ref_normalize(ref, &name, NULL) < 0 || !th_strv_has(&img->names, name)) {
        free(th_steal(&name));
    }
    if (!name && img->names.n > 1 && !force) {
        (void)th_fail(err, TH_R_CONFLICT, "image %s has %zu names", ref, img->names.n);
        return th_hint(err, "remove the names one by one, or all with --force");
    }
    TH_TRY(remove_locked(s, img, name, force, ret_untagged, ret_deleted, err));
    (void)close(th_steal_fd(&lock));
    struct th_images_gc_opts none = {0};
    return th_images_gc(s, &none, NULL, err);
}

/* ---- leases ---- */

static char *lease_path(struct th_images *s, const char *lease)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_url_escape(&b, lease);
    return th_xasprintf("%s/leases/%s", s->dir, th_buf_cstr(&b));
}

int th_images_lease(struct th_images *s, const char *lease, const char *image_id,
                    struct th_err *err)
{
    TH_AUTO(th_images_session) struct th_images_session *ss = NULL; /* keeps collection away */
    TH_TRY(th_images_session_begin(s, &ss, err));
    TH_AUTO(th_image) struct th_image *img = NULL;
    TH_TRY(th_images_resolve(s, image_id, &img, err));
    th_autofree char *p = lease_path(s, lease);
    th_autofree char *text = th_xasprintf("%s %s\n", img->manifest_digest, img->id);
    return th_io_write_atomic(p, text, strlen(text), 0644, err);
}

int th_images_unlease(struct th_images *s, const char *lease, struct th_err *err)
{
    th_autofree char *p = lease_path(s, lease);
    if (unlink(p) < 0 && errno != ENOENT) {
        return th_fail_errno(err, errno, TH_R_IO, "release lease %s", lease);
    }
    return 0;
}

int th_images_each_lease(struct th_images *s,
                         void (*fn)(void *arg, const char *name, const char *manifest,
                                    const char *id),
                         void *arg, struct th_err *err)
{
    th_autofree char *dir = th_images_path(s, "leases");
    th_autostrv struct th_strv names = TH_STRV_INIT;
    TH_TRY(th_io_list(dir, &names, err));
    for (size_t i = 0; i < names.n; i++) {
        th_autofree char *p = th_path_join(dir, names.v[i]);
        th_autobuf struct th_buf b = TH_BUF_INIT, name = TH_BUF_INIT;
        if (th_io_read_file(p, 4096, &b, NULL) < 0 || b.n < 143 || b.p[71] != ' ') {
            continue; /* a temporary file of a write under way, or gone meanwhile */
        }
        b.p[71] = 0;
        b.p[143] = 0;
        if (th_digest_valid(b.p) && th_digest_valid(b.p + 72) &&
            th_url_unescape(names.v[i], strlen(names.v[i]), false, &name, NULL) == 0) {
            fn(arg, th_buf_cstr(&name), b.p, b.p + 72);
        }
    }
    return 0;
}

static void lease_name(void *arg, const char *name, const char *manifest, const char *id)
{
    (void)manifest;
    (void)id;
    th_strv_add(arg, name);
}

int th_images_leases(struct th_images *s, struct th_strv *ret_names, struct th_err *err)
{
    return th_images_each_lease(s, lease_name, ret_names, err);
}
