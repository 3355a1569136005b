/* Loading images from archives and folders.
 *
 * Two formats, often in one file: the OCI layout (index.json, blobs/) and docker's (manifest.json
 * naming config and layer files). docker save has written both since 25. A tar is a stream, and
 * the lists may come last, so every file is first spooled into the session's folder with its digest
 * computed on the way; then the lists are read and only what they name moves into the store. A
 * failure at any point leaves nothing but files in the session's folder, which goes with it, and
 * blobs that nothing names, which the next collection takes.
 *
 * An OCI index may hold several platforms: the one of this machine is taken; attestations (platform
 * unknown/unknown) are passed over.
 */
#include "images/archive.h"
#include "base/io.h"
#include "base/limits.h"
#include "images/content_priv.h"
#include "images/reference.h"
#include "images/tar.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#define FILES_MAX 20000
#define NESTING_MAX 4

const char *th_host_architecture(void)
{
    static const struct {
        const char *machine, *arch;
    } known[] = {{"x86_64", "amd64"}, {"aarch64", "arm64"}, {"riscv64", "riscv64"},
                 {"ppc64le", "ppc64le"}, {"s390x", "s390x"}, {"armv7l", "arm"}, {"i686", "386"}};
    struct utsname u;
    if (uname(&u) == 0) {
        for (size_t i = 0; i < TH_ARRAY_LEN(known); i++) {
            if (th_streq(u.machine, known[i].machine)) {
                return known[i].arch;
            }
        }
    }
    return "amd64";
}

/* A file of the archive, spooled. */
struct item {
    char *file;    /* path in the session's folder (or in an OCI folder: not to be moved) */
    char digest[TH_DIGEST_LEN];
    uint64_t size;
    char *link;    /* another path of the archive instead */
};
struct load {
    struct th_images *s;
    struct th_images_session *ss;
    const struct th_image_load_opts *o;
    struct th_strv *names;
    struct th_hmap items; /* cleaned archive path -> struct item */
    const char *dir;      /* OCI folder, or NULL for a tar */
};

static void item_free(void *p)
{
    struct item *i = p;
    free(i->file);
    free(i->link);
    free(i);
}

static int bad(struct th_err *err, const char *fmt, const char *what)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    const char *at = strstr(fmt, "%s");
    th_buf_add(&b, fmt, at ? (size_t)(at - fmt) : strlen(fmt));
    if (at) {
        th_buf_puts(&b, what);
        th_buf_puts(&b, at + 2);
    }
    (void)th_fail(err, TH_R_BAD_ARCHIVE, "%s", th_buf_cstr(&b));
    return th_hint(err, "make the file again with docker save, podman save or thimble image save");
}

static void tell(const struct load *l, const char *stage, const char *what)
{
    if (l->o->progress) {
        struct th_image_progress p = {.stage = stage, .what = what};
        l->o->progress(l->o->progress_arg, &p);
    }
}

/* "./a/../b" style names are refused; leading "./" falls away. NULL when not clean. */
static const char *clean(const char *p)
{
    while (p[0] == '.' && p[1] == '/') {
        p += 2;
    }
    return th_path_is_inside(p) ? p : NULL;
}

static int spool_entry(struct load *l, struct th_tar_reader *t, const struct th_tar_entry *e,
                       struct th_err *err)
{
    const char *path = clean(e->path);
    if (!path) {
        return bad(err, "archive has a file \"%s\" that leads outside", e->path);
    }
    if (e->type != TH_TAR_REG && e->type != TH_TAR_SYMLINK && e->type != TH_TAR_HARDLINK) {
        return 0;
    }
    if (l->items.n >= FILES_MAX) {
        return bad(err, "archive has more files than any image archive%s", "");
    }
    struct item *it = TH_NEW(struct item);
    if (e->type != TH_TAR_REG) { /* old docker save: equal layers are links to one another */
        const char *slash = strrchr(path, '/');
        if (e->type == TH_TAR_HARDLINK || !slash || !th_startswith(e->link, "../")) {
            it->link = th_xstrdup(e->link);
        } else {
            it->link = th_xstrdup(e->link + 3);
        }
        th_hmap_set(&l->items, path, it);
        return 0;
    }
    it->file = th_images_session_file(l->ss, "in");
    th_hmap_set(&l->items, path, it);
    th_autoclose int fd = open(it->file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "make %s", it->file);
    }
    struct th_hash_stream h = {.in = th_tar_data(t), .limit = TH_LIMIT_LAYER_B};
    th_hash_stream_init(&h);
    struct th_reader in = th_hash_stream_reader(&h);
    th_autofree char *buf = th_xmalloc(TH_IO_COPY_BUF);
    ssize_t n = 0;
    int r = 0;
    while (r >= 0 && (n = in.read(in.arg, buf, TH_IO_COPY_BUF, err)) > 0) {
        r = th_io_write_all(fd, buf, (size_t)n, err);
    }
    it->size = h.n;
    th_hash_stream_digest(&h, it->digest);
    return r < 0 ? r : (int)n;
}

static struct item *find(struct load *l, const char *path)
{
    for (int hops = 0; path && hops < 8; hops++) {
        path = clean(path);
        struct item *it = path ? th_hmap_get(&l->items, path) : NULL;
        if (!it || !it->link) {
            return it;
        }
        path = it->link;
    }
    return NULL;
}

static int read_item(struct load *l, const char *path, struct th_buf *b, struct th_err *err)
{
    struct item *it = find(l, path);
    if (!it) {
        return bad(err, "archive names \"%s\" but does not hold it", path);
    }
    /* What two names share was moved into the blobs with the first of them. */
    bool moved = !l->dir && th_images_has_blob(l->s, it->digest);
    th_autofree char *blob = moved ? th_images_blob_path(l->s, it->digest) : NULL;
    return th_io_read_file(moved ? blob : it->file, TH_LIMIT_MANIFEST_B, b, err);
}

static int read_item_json(struct load *l, const char *path, struct th_json **ret,
                          struct th_err *err)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    TH_TRY(read_item(l, path, &b, err));
    if (th_json_parse(b.p, b.n, NULL, ret, NULL) < 0) {
        return bad(err, "%s in the archive is not JSON", path);
    }
    return 0;
}

/* Moves (from a folder: copies) a file of the archive into the blobs. */
static int take(struct load *l, struct item *it, struct th_err *err)
{
    if (th_images_has_blob(l->s, it->digest)) {
        return 0;
    }
    if (!l->dir) {
        return th_images_take_blob(l->ss, it->file, it->digest, err);
    }
    th_autoclose int fd = open(it->file, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "open %s", it->file);
    }
    char got[TH_DIGEST_LEN];
    return th_images_put_blob(l->ss, th_reader_fd(fd), it->digest, TH_LIMIT_LAYER_B, got, NULL,
                              err);
}

static int take_blob(struct load *l, const char *digest, struct th_err *err)
{
    if (!th_digest_valid(digest)) {
        return bad(err, "archive names \"%s\", which is not a sha256 digest",
                   digest ? digest : "");
    }
    th_autofree char *path = th_xasprintf("blobs/sha256/%s", digest + 7);
    struct item *it = find(l, path);
    if (!it) {
        if (th_images_has_blob(l->s, digest)) {
            return 0; /* thin archives leave out what the receiver has */
        }
        return bad(err, "archive does not hold the blob %s", digest);
    }
    if (!l->dir && !th_streq(it->digest, digest)) {
        (void)th_fail(err, TH_R_DIGEST_MISMATCH, "blob %s in the archive really is %s", digest,
                      it->digest);
        return th_hint(err, "the archive was damaged on its way; copy or make it again");
    }
    return take(l, it, err);
}

/* ---- finishing one image ---- */

static int unpack_layers(struct load *l, const char *manifest_digest, struct th_err *err)
{
    TH_AUTO(th_image) struct th_image *img = NULL;
    TH_TRY(th_images_read_image(l->s, manifest_digest, &img, err));
    if (*img->architecture && *img->os && !th_streq(img->os, "linux")) {
        (void)th_fail(err, TH_R_BAD_ARCHIVE, "image is for %s, not for linux", img->os);
        return th_hint(err, "load an image built for linux/%s", th_host_architecture());
    }
    if (l->s->flags & TH_IMAGES_NO_UNPACK) {
        return 0;
    }
    for (size_t i = 0; i < img->n_layers; i++) {
        tell(l, "unpacking", img->layers[i].diff_id);
        TH_TRY(th_images_unpack_blob(l->ss, img->layers[i].digest, img->layers[i].diff_id, NULL,
                                     err));
    }
    return 0;
}

static int add_named(struct load *l, const char *manifest, const struct th_strv *names,
                     struct th_err *err)
{
    char id[TH_DIGEST_LEN];
    TH_TRY(unpack_layers(l, manifest, err));
    if (names->n == 0) {
        TH_TRY(th_images_add(l->ss, manifest, NULL, id, err));
        tell(l, "loaded", id);
        if (l->names) {
            th_strv_add(l->names, id);
        }
        return 0;
    }
    for (size_t i = 0; i < names->n; i++) {
        TH_TRY(th_images_add(l->ss, manifest, names->v[i], id, err));
        tell(l, "loaded", names->v[i]);
        if (l->names && !th_strv_has(l->names, names->v[i])) {
            th_strv_add(l->names, names->v[i]);
        }
    }
    return 0;
}

static void add_ref(struct th_strv *names, const char *ref)
{
    th_autofree char *full = NULL;
    if (ref && th_ref_normalize(ref, &full, NULL) == 0 && !th_strv_has(names, full)) {
        th_strv_add(names, full);
    }
}

/* ---- OCI ---- */

static bool is_index(const struct th_json *doc, const char *type)
{
    return th_streq(type, TH_MT_OCI_INDEX) || th_streq(type, TH_MT_DOCKER_LIST) ||
           (th_json_is(th_json_get(doc, "manifests"), TH_JSON_ARRAY) &&
            !th_json_get(doc, "layers"));
}

/* The descriptor for this machine. Without any platform the only one there is. */
static const struct th_json *choose(const struct th_json *list, const char *arch,
                                    struct th_buf *have)
{
    const struct th_json *plain = NULL;
    size_t n_plain = 0;
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *d = th_json_at(list, i);
        const char *a = th_json_path_str(d, "platform.architecture");
        const char *os = th_json_path_str(d, "platform.os");
        if (!a) {
            plain = d;
            n_plain++;
            continue;
        }
        if (th_streq(a, arch) && th_streq(os, "linux")) {
            return d;
        }
        if (!th_streq(a, "unknown")) {
            th_buf_printf(have, "%s%s/%s", have->n ? ", " : "", os ? os : "?", a);
        }
    }
    return n_plain == 1 && have->n == 0 ? plain : NULL;
}

/* Follows nested indexes down to the manifest for this machine, storing it and what it names. */
static int take_manifest(struct load *l, const char *digest, const char *type, int depth,
                         char *ret_digest, struct th_err *err)
{
    if (depth > NESTING_MAX) {
        return bad(err, "archive nests indexes too deeply at %s", digest);
    }
    if (!th_digest_valid(digest)) {
        return bad(err, "index names \"%s\", which is not a sha256 digest", digest ? digest : "");
    }
    th_autofree char *path = th_xasprintf("blobs/sha256/%s", digest + 7);
    TH_AUTO(th_json) struct th_json *m = NULL;
    TH_TRY(read_item_json(l, path, &m, err));
    if (is_index(m, type)) {
        const char *arch = l->o->architecture ? l->o->architecture : th_host_architecture();
        th_autobuf struct th_buf have = TH_BUF_INIT;
        const struct th_json *d = choose(th_json_get(m, "manifests"), arch, &have);
        if (!d) {
            (void)th_fail(err, TH_R_BAD_ARCHIVE, "archive holds no image for linux/%s (it has %s)",
                          arch, have.n ? th_buf_cstr(&have) : "none");
            return th_hint(err, "save it again for platform linux/%s", arch);
        }
        return take_manifest(l, th_json_path_str(d, "digest"), th_json_path_str(d, "mediaType"),
                             depth + 1, ret_digest, err);
    }
    const struct th_json *layers = th_json_get(m, "layers");
    const char *config = th_json_path_str(m, "config.digest");
    if (!th_json_is(layers, TH_JSON_ARRAY) || !config) {
        return bad(err, "%s in the archive is not an image manifest", path);
    }
    TH_TRY(take_blob(l, digest, err));
    TH_TRY(take_blob(l, config, err));
    for (size_t i = 0; i < th_json_len(layers); i++) {
        TH_TRY(take_blob(l, th_json_path_str(th_json_at(layers, i), "digest"), err));
    }
    (void)snprintf(ret_digest, TH_DIGEST_LEN, "%s", digest);
    return 0;
}

/* RepoTags that manifest.json gives for a config, for OCI indexes without full names. */
static void tags_from_docker(struct load *l, const char *manifest_digest, struct th_strv *names)
{
    TH_AUTO(th_image) struct th_image *img = NULL;
    TH_AUTO(th_json) struct th_json *list = NULL;
    if (!find(l, "manifest.json") ||
        th_images_read_image(l->s, manifest_digest, &img, NULL) < 0 ||
        read_item_json(l, "manifest.json", &list, NULL) < 0) {
        return;
    }
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *d = th_json_at(list, i);
        const char *config = th_json_path_str(d, "Config");
        struct item *it = config ? find(l, config) : NULL;
        if (it ? th_streq(it->digest, img->id) : config && strstr(config, img->id + 7)) {
            const struct th_json *tags = th_json_get(d, "RepoTags");
            for (size_t k = 0; k < th_json_len(tags); k++) {
                add_ref(names, th_json_str(th_json_at(tags, k)));
            }
        }
    }
}

static int load_oci_one(struct load *l, const struct th_json *d, struct th_err *err)
{
    char manifest[TH_DIGEST_LEN];
    TH_TRY(take_manifest(l, th_json_path_str(d, "digest"), th_json_path_str(d, "mediaType"), 0,
                         manifest, err));
    th_autostrv struct th_strv names = TH_STRV_INIT;
    const struct th_json *ann = th_json_get(d, "annotations");
    const char *full = th_json_str(th_json_get(ann, "io.containerd.image.name"));
    const char *ref = th_json_str(th_json_get(ann, "org.opencontainers.image.ref.name"));
    add_ref(&names, full);
    if (names.n == 0 && ref && (strchr(ref, '/') || strchr(ref, ':'))) {
        add_ref(&names, ref);
    }
    if (names.n == 0) {
        tags_from_docker(l, manifest, &names);
    }
    if (names.n == 0 && l->o->name) {
        add_ref(&names, l->o->name);
    }
    if (names.n == 0 && ref && !th_streq(ref, "latest") && (ref[0] < '0' || ref[0] > '9')) {
        add_ref(&names, ref); /* skopeo's oci:dir:NAME */
    }
    return add_named(l, manifest, &names, err);
}

static int load_oci(struct load *l, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *index = NULL;
    TH_TRY(read_item_json(l, "index.json", &index, err));
    const struct th_json *list = th_json_get(index, "manifests");
    if (!th_json_is(list, TH_JSON_ARRAY) || th_json_len(list) == 0) {
        return bad(err, "index.json in the archive names no image%s", "");
    }
    /* Bare manifests of several platforms and no names are one image. */
    bool named = false, platforms = th_json_len(list) > 1;
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *d = th_json_at(list, i);
        named = named || th_json_get(d, "annotations");
        platforms = platforms && th_json_path(d, "platform.architecture");
    }
    if (platforms && !named) {
        const char *arch = l->o->architecture ? l->o->architecture : th_host_architecture();
        th_autobuf struct th_buf have = TH_BUF_INIT;
        const struct th_json *d = choose(list, arch, &have);
        return d ? load_oci_one(l, d, err)
                 : bad(err, "archive holds no image for this machine (it has %s)",
                       th_buf_cstr(&have));
    }
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *d = th_json_at(list, i);
        if (!th_streq(th_json_path_str(d, "platform.architecture"), "unknown")) {
            TH_TRY(load_oci_one(l, d, err));
        }
    }
    return 0;
}

/* ---- docker-archive ---- */

static const char *layer_type(const char *file)
{
    th_autoclose int fd = open(file, O_RDONLY | O_CLOEXEC);
    unsigned char h[4] = {0};
    if (fd >= 0 && pread(fd, h, 4, 0) == 4) {
        if (h[0] == 0x1f && h[1] == 0x8b) {
            return TH_MT_OCI_LAYER_GZIP;
        }
        if (memcmp(h, "\x28\xb5\x2f\xfd", 4) == 0) {
            return TH_MT_OCI_LAYER_ZSTD;
        }
    }
    return TH_MT_OCI_LAYER;
}

static int load_docker_one(struct load *l, const struct th_json *d, struct th_err *err)
{
    const char *config = th_json_path_str(d, "Config");
    const struct th_json *layers = th_json_get(d, "Layers");
    struct item *ci = config ? find(l, config) : NULL;
    if (!ci) {
        return bad(err, "archive does not hold the config \"%s\"", config ? config : "");
    }
    TH_AUTO(th_json) struct th_json *m = th_json_build(
        "{'schemaVersion':2,'mediaType':%s,'config':{'mediaType':%s,'digest':%s,'size':%d},"
        "'layers':[]}",
        TH_MT_OCI_MANIFEST, TH_MT_OCI_CONFIG, ci->digest, (int64_t)ci->size);
    for (size_t i = 0; i < th_json_len(layers); i++) {
        const char *name = th_json_str(th_json_at(layers, i));
        struct item *it = name ? find(l, name) : NULL;
        if (!it) {
            return bad(err, "archive does not hold the layer \"%s\"", name ? name : "");
        }
        const char *type = th_images_has_blob(l->s, it->digest) && !th_io_exists(it->file)
                               ? NULL
                               : layer_type(it->file);
        if (!type) { /* moved already by another image of this archive */
            th_autofree char *p = th_images_blob_path(l->s, it->digest);
            type = layer_type(p);
        }
        th_json_append(th_json_get(m, "layers"),
                       th_json_build("{'mediaType':%s,'digest':%s,'size':%d}", type, it->digest,
                                     (int64_t)it->size));
        TH_TRY(take(l, it, err));
    }
    TH_TRY(take(l, ci, err));
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_json_dump(m, &b);
    char manifest[TH_DIGEST_LEN];
    TH_TRY(th_images_put_bytes(l->ss, b.p, b.n, manifest, err));
    th_autostrv struct th_strv names = TH_STRV_INIT;
    const struct th_json *tags = th_json_get(d, "RepoTags");
    for (size_t i = 0; i < th_json_len(tags); i++) {
        add_ref(&names, th_json_str(th_json_at(tags, i)));
    }
    if (names.n == 0) {
        add_ref(&names, l->o->name);
    }
    return add_named(l, manifest, &names, err);
}

static int load_docker(struct load *l, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *list = NULL;
    TH_TRY(read_item_json(l, "manifest.json", &list, err));
    if (!th_json_is(list, TH_JSON_ARRAY) || th_json_len(list) == 0) {
        return bad(err, "manifest.json in the archive names no image%s", "");
    }
    for (size_t i = 0; i < th_json_len(list); i++) {
        TH_TRY(load_docker_one(l, th_json_at(list, i), err));
    }
    return 0;
}

static int load_lists(struct load *l, struct th_err *err)
{
    if (find(l, "index.json") && find(l, "oci-layout")) {
        return load_oci(l, err);
    }
    if (find(l, "manifest.json")) {
        return load_docker(l, err);
    }
    return bad(err, "archive holds neither index.json nor manifest.json: not an image%s", "");
}

static int spool_all(struct load *l, struct th_reader in, struct th_err *err)
{
    TH_AUTO(th_decomp) struct th_decomp *d = th_decomp_new(in);
    TH_AUTO(th_tar_reader) struct th_tar_reader *t = th_tar_reader_new(th_decomp_reader(d));
    const struct th_tar_entry *e = NULL;
    int r = 0;
    while ((r = th_tar_next(t, &e, err)) > 0) {
        tell(l, "reading", e->path);
        TH_TRY(spool_entry(l, t, e, err));
    }
    if (r == 0 && l->items.n == 0) {
        return bad(err, "archive is empty%s", "");
    }
    return r;
}

static int with_session(struct load *l, struct th_reader *in, struct th_err *err)
{
    static const struct th_image_load_opts none = {0};
    l->o = l->o ? l->o : &none;
    if (l->o->name) {
        th_autofree char *check = NULL;
        TH_TRY(th_ref_normalize(l->o->name, &check, err));
    }
    TH_TRY(th_images_session_begin(l->s, &l->ss, err));
    int r = in ? spool_all(l, *in, err) : 0;
    if (r >= 0) {
        r = load_lists(l, err);
    }
    if (r < 0) {
        atomic_store(&l->s->gc_wanted, true);
    }
    th_images_session_end(l->ss);
    return r;
}

int th_images_load(struct th_images *s, struct th_reader in, const struct th_image_load_opts *opts,
                   struct th_strv *ret_names, struct th_err *err)
{
    struct load l = {.s = s, .o = opts, .names = ret_names};
    th_hmap_init(&l.items, item_free);
    int r = with_session(&l, &in, err);
    th_hmap_done(&l.items);
    return r;
}

/* Enters the files of an OCI folder as items; digests are checked when they are copied. */
static void enter_file(struct load *l, const char *dir, const char *rel)
{
    th_autofree char *p = th_path_join(dir, rel);
    struct stat st;
    if (stat(p, &st) < 0 || !S_ISREG(st.st_mode)) {
        return;
    }
    struct item *it = TH_NEW(struct item);
    it->file = th_steal(&p);
    it->size = (uint64_t)st.st_size;
    const char *base = th_path_base(rel);
    if (th_startswith(rel, "blobs/sha256/") && strlen(base) == 64) {
        (void)snprintf(it->digest, sizeof(it->digest), "sha256:%s", base);
    }
    th_hmap_set(&l->items, rel, it);
}

int th_images_load_dir(struct th_images *s, const char *dir, const struct th_image_load_opts *opts,
                       struct th_strv *ret_names, struct th_err *err)
{
    struct load l = {.s = s, .o = opts, .names = ret_names, .dir = dir};
    th_autofree char *blobs = th_path_join(dir, "blobs/sha256");
    th_autostrv struct th_strv names = TH_STRV_INIT;
    if (!th_io_is_dir(blobs)) {
        (void)th_fail(err, TH_R_BAD_ARCHIVE, "%s is not an OCI image layout", dir);
        return th_hint(err, "such a folder holds oci-layout, index.json and blobs/");
    }
    TH_TRY(th_io_list(blobs, &names, err));
    th_hmap_init(&l.items, item_free);
    enter_file(&l, dir, "index.json");
    enter_file(&l, dir, "oci-layout");
    for (size_t i = 0; i < names.n; i++) {
        th_autofree char *rel = th_xasprintf("blobs/sha256/%s", names.v[i]);
        enter_file(&l, dir, rel);
    }
    int r = with_session(&l, NULL, err);
    th_hmap_done(&l.items);
    return r;
}
