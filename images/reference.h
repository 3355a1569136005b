#ifndef TH_IMAGES_REFERENCE_H
#define TH_IMAGES_REFERENCE_H
/* Image references, read exactly as Docker and the kubelet read them: "nginx" means
 * docker.io/library/nginx:latest. */
#include "base/err.h"

struct th_ref {
    char *domain; /* "docker.io", "localhost:5000" */
    char *path;   /* "library/nginx" */
    char *tag;    /* NULL only when a digest was given without a tag */
    char *digest; /* "sha256:..." or NULL */
};
/* Parses and normalizes; "latest" is added when there is neither tag nor digest.
 * -TH_R_BAD_REFERENCE with a hint otherwise. *ret is the caller's to th_ref_done. */
int th_ref_parse(const char *s, struct th_ref *ret, struct th_err *err) TH_MUST_USE;
void th_ref_done(struct th_ref *r);
#define TH_AUTO_REF TH_CLEANUP(th_ref_done)
char *th_ref_string(const struct th_ref *r);   /* "docker.io/library/nginx:latest"; caller frees */
char *th_ref_name(const struct th_ref *r);     /* "docker.io/library/nginx"; caller frees */
char *th_ref_familiar(const struct th_ref *r); /* "nginx:latest", as people write it; caller frees */
/* Parse and th_ref_string in one step. */
int th_ref_normalize(const char *s, char **ret, struct th_err *err) TH_MUST_USE;
/* "sha256:" and 64 lower-case hex digits. */
bool th_digest_valid(const char *s);
/* The registry that pulls go to: "registry-1.docker.io" for docker.io. */
const char *th_ref_registry_host(const struct th_ref *r);
#endif
