#ifndef TH_IMAGES_REGISTRY_H
#define TH_IMAGES_REGISTRY_H
/* Pulling from registries (OCI distribution over libcurl). */
#include "images/archive.h"
#include "images/keyring.h"

struct th_pull_opts {
    const struct th_keyring *keyring; /* each credential for the image in turn; none, NULL: anonymous */
    const char *const *mirrors;       /* "docker.io=https://mirror:5000", NULL-terminated, or NULL */
    const char *const *insecure;      /* hosts spoken to over http; NULL-terminated, or NULL */
    const char *architecture;         /* NULL: this machine's */
    th_image_progress_fn progress;
    void *progress_arg;
    int64_t timeout_ms;               /* without any byte; 0: 30 s */
};
/* Pulls ref into the store. Credentials go to the registry of the image only, never to a mirror. No network is -TH_R_OFFLINE with a hint; localhost and 127.0.0.0/8
 * registries are spoken to over http. ret (may be NULL) is the image. */
int th_images_pull(struct th_images *s, const char *ref, const struct th_pull_opts *opts,
                   struct th_image **ret, struct th_err *err) TH_MUST_USE;
#endif
