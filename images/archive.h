#ifndef TH_IMAGES_ARCHIVE_H
#define TH_IMAGES_ARCHIVE_H
/* Images as files: docker-archive (docker save), OCI archive and OCI folder. */
#include "images/content.h"

/* What long operations tell; every pointer is valid during the call only. */
struct th_image_progress {
    const char *stage; /* "reading", "unpacking", "downloading", "loaded" */
    const char *what;  /* a digest or a reference */
    uint64_t done_b, total_b; /* total 0: not known */
};
typedef void (*th_image_progress_fn)(void *arg, const struct th_image_progress *p);

struct th_image_load_opts {
    const char *name;         /* name for an archive that carries none, or NULL */
    const char *architecture; /* NULL: this machine's ("amd64") */
    th_image_progress_fn progress;
    void *progress_arg;
};
/* Loads a tar (plain, gzip or zstd) of either format. Names of what was loaded (IDs for unnamed
 * images) are added to ret_names. Nothing is left behind on failure. opts may be NULL. */
int th_images_load(struct th_images *s, struct th_reader in, const struct th_image_load_opts *opts,
                   struct th_strv *ret_names, struct th_err *err) TH_MUST_USE;
/* Loads an OCI layout folder. */
int th_images_load_dir(struct th_images *s, const char *dir, const struct th_image_load_opts *opts,
                       struct th_strv *ret_names, struct th_err *err) TH_MUST_USE;
/* Writes images as one tar that docker load, podman and every OCI tool read: OCI layout plus
 * manifest.json. */
int th_images_save(struct th_images *s, const char *const *refs, size_t n, struct th_writer out,
                   struct th_err *err) TH_MUST_USE;
/* "amd64", "arm64": this machine in OCI's words. */
const char *th_host_architecture(void);
#endif
