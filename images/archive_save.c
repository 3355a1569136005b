/* Saving images: one tar that is an OCI layout and a docker archive at once.
 *
 * The blobs are written as they are stored, so that digests survive; manifest.json points into
 * blobs/sha256 as docker save has done since version 25, and docker load of any age follows such
 * paths. Blobs shared by several images are written once. The same images give the same bytes.
 */
#include "images/archive.h"
#include "base/io.h"
#include "images/content_priv.h"
#include "images/reference.h"
#include "images/tar.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

struct save {
    struct th_images *s;
    struct th_tar_writer w;
    struct th_hmap done;       /* digests written */
    struct th_json *index;     /* manifests */
    struct th_json *docker;    /* manifest.json */
};

static int write_dir(struct save *v, const char *path, struct th_err *err)
{
    struct th_tar_entry e = {
        .type = TH_TAR_DIR, .path = (char *)(uintptr_t)path, .mode = 0755};
    return th_tar_write_entry(&v->w, &e, err);
}

static int write_blob(struct save *v, const char *digest, struct th_err *err)
{
    if (th_hmap_has(&v->done, digest)) {
        return 0;
    }
    th_hmap_set(&v->done, digest, v);
    th_autofree char *file = th_images_blob_path(v->s, digest);
    th_autoclose int fd = open(file, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0) {
        return th_fail_errno(err, errno, TH_R_STATE_CORRUPT, "blob %s", digest);
    }
    th_autofree char *path = th_xasprintf("blobs/sha256/%s", digest + 7);
    struct th_tar_entry e = {
        .type = TH_TAR_REG, .path = path, .mode = 0644, .size = (uint64_t)st.st_size};
    TH_TRY(th_tar_write_entry(&v->w, &e, err));
    th_autofree char *buf = th_xmalloc(TH_IO_COPY_BUF);
    uint64_t left = e.size;
    while (left > 0) {
        ssize_t n = read(fd, buf, left < TH_IO_COPY_BUF ? (size_t)left : TH_IO_COPY_BUF);
        if (n <= 0) {
            return th_fail_errno(err, n < 0 ? errno : EIO, TH_R_IO, "read blob %s", digest);
        }
        TH_TRY(th_tar_write_data(&v->w, buf, (size_t)n, err));
        left -= (uint64_t)n;
    }
    return 0;
}

/* The entry of manifest.json for this image, made when new; its RepoTags. */
static struct th_json *docker_entry(struct save *v, const struct th_image *img)
{
    th_autofree char *config = th_xasprintf("blobs/sha256/%s", img->id + 7);
    for (size_t i = 0; i < th_json_len(v->docker); i++) {
        struct th_json *d = th_json_at(v->docker, i);
        if (th_streq(th_json_path_str(d, "Config"), config)) {
            return d;
        }
    }
    struct th_json *d = th_json_build("{'Config':%s,'RepoTags':[],'Layers':[]}", config);
    for (size_t i = 0; i < img->n_layers; i++) {
        th_json_append(th_json_get(d, "Layers"),
                       th_json_stringf("blobs/sha256/%s", img->layers[i].digest + 7));
    }
    th_json_append(v->docker, d);
    return d;
}

static int save_one(struct save *v, const char *ref, struct th_err *err)
{
    TH_AUTO(th_image) struct th_image *img = NULL;
    TH_TRY(th_images_resolve(v->s, ref, &img, err));
    th_autobuf struct th_buf m = TH_BUF_INIT;
    TH_AUTO(th_json) struct th_json *doc = NULL;
    TH_TRY(th_images_read_blob(v->s, img->manifest_digest, 1u << 24, &m, err));
    TH_TRY(th_json_parse(m.p, m.n, NULL, &doc, err));
    const char *type = th_json_path_str(doc, "mediaType");
    struct th_json *desc =
        th_json_build("{'mediaType':%s,'digest':%s,'size':%d}", type ? type : TH_MT_OCI_MANIFEST,
                      img->manifest_digest, (int64_t)m.n);
    struct th_json *entry = docker_entry(v, img);
    TH_AUTO_REF struct th_ref r = {0};
    th_autofree char *full = NULL;
    if (th_ref_parse(ref, &r, NULL) == 0 && !r.digest) {
        full = th_ref_string(&r);
    }
    if (full && th_strv_has(&img->names, full)) {
        th_autofree char *familiar = th_ref_familiar(&r);
        struct th_json *ann = th_json_object();
        th_json_set_str(ann, "io.containerd.image.name", full);
        th_json_set_str(ann, "org.opencontainers.image.ref.name", r.tag);
        th_json_set(desc, "annotations", ann);
        th_json_append_str(th_json_get(entry, "RepoTags"), familiar);
    }
    th_json_append(v->index, desc);
    TH_TRY(write_blob(v, img->manifest_digest, err));
    TH_TRY(write_blob(v, img->id, err));
    for (size_t i = 0; i < img->n_layers; i++) {
        TH_TRY(write_blob(v, img->layers[i].digest, err));
    }
    return 0;
}

static int write_json(struct save *v, const char *path, const struct th_json *o,
                      struct th_err *err)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_json_dump(o, &b);
    return th_tar_write_file(&v->w, path, 0644, b.p, b.n, err);
}

static int save_all(struct save *v, const char *const *refs, size_t n, struct th_err *err)
{
    TH_TRY(write_dir(v, "blobs", err));
    TH_TRY(write_dir(v, "blobs/sha256", err));
    for (size_t i = 0; i < n; i++) {
        TH_TRY(save_one(v, refs[i], err));
    }
    TH_AUTO(th_json) struct th_json *index =
        th_json_build("{'schemaVersion':2,'mediaType':%s,'manifests':%o}", TH_MT_OCI_INDEX,
                      th_json_ref(v->index));
    TH_AUTO(th_json) struct th_json *layout =
        th_json_build("{'imageLayoutVersion':%s}", "1.0.0");
    TH_TRY(write_json(v, "index.json", index, err));
    TH_TRY(write_json(v, "manifest.json", v->docker, err));
    TH_TRY(write_json(v, "oci-layout", layout, err));
    return th_tar_write_end(&v->w, err);
}

int th_images_save(struct th_images *s, const char *const *refs, size_t n, struct th_writer out,
                   struct th_err *err)
{
    for (size_t i = 0; i < n; i++) { /* a missing image is told before the first byte */
        TH_AUTO(th_image) struct th_image *img = NULL;
        TH_TRY(th_images_resolve(s, refs[i], &img, err));
    }
    TH_AUTO(th_images_session) struct th_images_session *ss = NULL;
    TH_TRY(th_images_session_begin(s, &ss, err));
    struct save v = {.s = s, .index = th_json_array(), .docker = th_json_array()};
    th_tar_writer_init(&v.w, out);
    th_hmap_init(&v.done, NULL);
    int r = save_all(&v, refs, n, err);
    th_hmap_done(&v.done);
    th_json_unref(v.index);
    th_json_unref(v.docker);
    return r;
}
