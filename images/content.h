#ifndef TH_IMAGES_CONTENT_H
#define TH_IMAGES_CONTENT_H
/* The content store: one OCI layout that loads, pulls and builds write and containers run from.
 * Thread-safe, and several processes may have the same folder open. */
#include "base/buf.h"
#include "base/err.h"
#include "images/stream.h"
#include <stdint.h>

struct th_images;
enum {
    TH_IMAGES_NO_UNPACK = 1 /* keep blobs only; for hosts without root. th_images_unpack still does */
};
int th_images_open(const char *dir, unsigned flags, struct th_images **ret, struct th_err *err)
    TH_MUST_USE;
void th_images_close(struct th_images *s);
const char *th_images_dir(const struct th_images *s);

struct th_image_layer {
    char *diff_id;    /* of the uncompressed tar; the name of the unpacked folder */
    char *digest;     /* of the blob */
    char *media_type;
    int64_t size;     /* of the blob */
    char *fs;         /* absolute path of the unpacked folder (may not exist before unpack) */
};
/* What a container runtime needs from the image's config. */
struct th_image_config {
    struct th_strv entrypoint, cmd, env, ports /* "8080/tcp" */, volumes, shell;
    char *user, *workdir, *stop_signal; /* "" when not set */
    struct th_strv labels;              /* "k=v" */
};
struct th_image {
    char *id;              /* CRI's and docker's image ID: "sha256:<config digest>" */
    char *manifest_digest; /* "sha256:..." */
    struct th_strv names;  /* normalized "docker.io/library/x:tag", sorted; empty when untagged */
    struct th_strv digests; /* "docker.io/library/x@sha256:..." for pulled and named images */
    struct th_image_config config;
    char *config_json;     /* the whole config blob */
    char *architecture, *os;
    int64_t created_ms;    /* 0 when not said */
    int64_t size;          /* blobs: config, manifest and layers */
    struct th_image_layer *layers; /* bottom first */
    size_t n_layers;
};
void th_image_free(struct th_image *i);
TH_DEFINE_AUTO(th_image, th_image_free)

/* By reference ("nginx", "x:1", "r/x@sha256:..."), by image ID or by an unambiguous prefix of one
 * (12 or more hex digits). -TH_R_NO_IMAGE with a hint when not here. */
int th_images_resolve(struct th_images *s, const char *ref, struct th_image **ret,
                      struct th_err *err) TH_MUST_USE;
/* Every image, newest first. Free with th_image_list_free. */
int th_images_list(struct th_images *s, struct th_image ***ret, size_t *ret_n, struct th_err *err)
    TH_MUST_USE;
void th_image_list_free(struct th_image **l, size_t n);
/* Makes sure every layer is unpacked (a missing folder is made again from its blob). */
int th_images_unpack(struct th_images *s, const struct th_image *img, struct th_err *err)
    TH_MUST_USE;
/* Mounts the image's root at target with its own upper and work folders. Unpacks when needed. */
int th_images_mount(struct th_images *s, const struct th_image *img, const char *upper,
                    const char *work, const char *target, struct th_err *err) TH_MUST_USE;

/* Moves the name to the image (what it named before becomes untagged). */
int th_images_tag(struct th_images *s, const char *src, const char *dst, struct th_err *err)
    TH_MUST_USE;
/* Removes a name; with the last name (or when given an ID) the image itself, unless a lease holds
 * it (-TH_R_CONFLICT, overridden by force: the name goes, the content stays until the lease ends).
 * An ID with several names needs force. Fills what happened: "untagged"/"deleted" lists may be
 * NULL. Collects garbage after. */
int th_images_remove(struct th_images *s, const char *ref, bool force, struct th_strv *ret_untagged,
                     struct th_strv *ret_deleted, struct th_err *err) TH_MUST_USE;

/* A lease (a container's ID) keeps an image's content whatever happens to its names. Durable.
 * Leasing twice under one name moves the lease. Releasing what is not there is success. */
int th_images_lease(struct th_images *s, const char *lease, const char *image_id,
                    struct th_err *err) TH_MUST_USE;
int th_images_unlease(struct th_images *s, const char *lease, struct th_err *err);
int th_images_leases(struct th_images *s, struct th_strv *ret_names, struct th_err *err) TH_MUST_USE;

struct th_images_usage {
    uint64_t blobs_b, layers_b; /* on disk */
    uint64_t images, blobs, layers, cache_entries;
};
int th_images_du(struct th_images *s, struct th_images_usage *ret, struct th_err *err) TH_MUST_USE;
/* Deletes what no image, lease or build-cache entry needs. drop_untagged removes images without
 * a name and without a lease first; drop_cache forgets the build cache. */
struct th_images_gc_opts {
    bool drop_untagged, drop_cache;
};
int th_images_gc(struct th_images *s, const struct th_images_gc_opts *opts, uint64_t *ret_freed_b,
                 struct th_err *err) TH_MUST_USE;

/* ---- for the other files of this room: writing content ---- */

/* While a session is open garbage collection waits, so that content written but not yet named
 * stays. Sessions may be many at a time. */
struct th_images_session;
int th_images_session_begin(struct th_images *s, struct th_images_session **ret, struct th_err *err)
    TH_MUST_USE;
void th_images_session_end(struct th_images_session *ss);
TH_DEFINE_AUTO(th_images_session, th_images_session_end)

/* A folder of the caller's own inside the store (same file system); removed by session end. */
const char *th_images_session_tmp(struct th_images_session *ss);
/* Stores a blob from a stream. want (may be NULL) is verified: -TH_R_DIGEST_MISMATCH.
 * ret_digest has TH_DIGEST_LEN bytes. */
int th_images_put_blob(struct th_images_session *ss, struct th_reader in, const char *want,
                       uint64_t max, char *ret_digest, uint64_t *ret_size, struct th_err *err)
    TH_MUST_USE;
int th_images_put_bytes(struct th_images_session *ss, const void *p, size_t n, char *ret_digest,
                        struct th_err *err) TH_MUST_USE;
/* Moves a finished file of session tmp into the blobs under a digest the caller has computed. */
int th_images_take_blob(struct th_images_session *ss, const char *file, const char *digest,
                        struct th_err *err) TH_MUST_USE;
bool th_images_has_blob(struct th_images *s, const char *digest);
char *th_images_blob_path(struct th_images *s, const char *digest); /* caller frees */
int th_images_read_blob(struct th_images *s, const char *digest, size_t max, struct th_buf *b,
                        struct th_err *err) TH_MUST_USE;
char *th_images_layer_path(struct th_images *s, const char *diff_id); /* .../fs; caller frees */
bool th_images_has_layer(struct th_images *s, const char *diff_id);
/* Unpacks a layer blob (verifying diff_id) unless its folder is there. diff_id NULL: taken from
 * the data. ret_diff_id may be NULL. */
int th_images_unpack_blob(struct th_images_session *ss, const char *digest, const char *diff_id,
                          char *ret_diff_id, struct th_err *err) TH_MUST_USE;
/* Takes a ready overlay upper folder as the unpacked form of diff_id (same file system). */
int th_images_take_layer(struct th_images_session *ss, const char *upper_dir, const char *diff_id,
                         struct th_err *err) TH_MUST_USE;
/* Records an image by its manifest, whose blobs must all be there, under a normalized name (NULL:
 * untagged, still listed). ret_id (TH_DIGEST_LEN) may be NULL. */
int th_images_add(struct th_images_session *ss, const char *manifest_digest, const char *name,
                  char *ret_id, struct th_err *err) TH_MUST_USE;
/* Build cache: key is 64 hex digits; the entry keeps the layer and its blob from collection. */
struct th_cache_entry {
    char diff_id[TH_DIGEST_LEN], digest[TH_DIGEST_LEN];
    int64_t size;
    bool empty; /* the step changed no file */
};
bool th_images_cache_get(struct th_images *s, const char *key, struct th_cache_entry *ret);
int th_images_cache_put(struct th_images_session *ss, const char *key,
                        const struct th_cache_entry *e, struct th_err *err) TH_MUST_USE;

#define TH_MT_OCI_MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define TH_MT_OCI_INDEX "application/vnd.oci.image.index.v1+json"
#define TH_MT_OCI_CONFIG "application/vnd.oci.image.config.v1+json"
#define TH_MT_OCI_LAYER "application/vnd.oci.image.layer.v1.tar"
#define TH_MT_OCI_LAYER_GZIP "application/vnd.oci.image.layer.v1.tar+gzip"
#define TH_MT_OCI_LAYER_ZSTD "application/vnd.oci.image.layer.v1.tar+zstd"
#define TH_MT_DOCKER_MANIFEST "application/vnd.docker.distribution.manifest.v2+json"
#define TH_MT_DOCKER_LIST "application/vnd.docker.distribution.manifest.list.v2+json"
#define TH_MT_DOCKER_CONFIG "application/vnd.docker.container.image.v1+json"
#define TH_MT_DOCKER_LAYER "application/vnd.docker.image.rootfs.diff.tar"
#define TH_MT_DOCKER_LAYER_GZIP "application/vnd.docker.image.rootfs.diff.tar.gzip"
#define TH_MT_DOCKER_LAYER_ZSTD "application/vnd.docker.image.rootfs.diff.tar.zstd"
#endif
