#ifndef TH_IMAGES_DOCKERIGNORE_H
#define TH_IMAGES_DOCKERIGNORE_H
/* .dockerignore, as Docker matches it. */
#include "base/buf.h"
#include "base/err.h"

struct th_ignore;
/* text: lines of patterns. -TH_R_INVALID for a malformed pattern. */
int th_ignore_parse(const char *text, size_t n, struct th_ignore **ret, struct th_err *err)
    TH_MUST_USE;
void th_ignore_free(struct th_ignore *i);
TH_DEFINE_AUTO(th_ignore, th_ignore_free)
/* rel: slash-separated, no leading "./". true when the path (or a parent of it) is left out. */
bool th_ignore_match(const struct th_ignore *i, const char *rel);
/* false when nothing below the excluded folder can come back through a "!" pattern. */
bool th_ignore_must_descend(const struct th_ignore *i, const char *rel);
/* One pattern with Go's path.Match rules plus **; for COPY --exclude and wildcards. */
bool th_glob_match(const char *pattern, const char *path);

/* Sends the build context in dir as a tar: .dockerignore (or <dockerfile>.dockerignore) applied,
 * the Dockerfile and .dockerignore themselves always included, owners 0:0. dockerfile is relative
 * to dir. For the client side of a build. */
struct th_writer;
int th_context_write(const char *dir, const char *dockerfile, const struct th_writer *out,
                     uint64_t *ret_bytes, struct th_err *err) TH_MUST_USE;
/* The whole folder as a tar, whatever .dockerignore says: an OCI layout to load. */
int th_folder_write(const char *dir, const struct th_writer *out, struct th_err *err) TH_MUST_USE;
#endif
