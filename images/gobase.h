#ifndef TH_IMAGES_GOBASE_H
#define TH_IMAGES_GOBASE_H
/* Images from the Go toolchain of the machine the user sits at (host side; needs no root). */
#include "base/buf.h"
#include "base/err.h"
#include <stdint.h>

struct th_go_note {
    void (*fn)(void *arg, const char *line); /* progress and remarks, one line each; may be NULL */
    void *arg;
};
struct th_gobase_opts {
    const char *ref;         /* "golang:1.16": the name the archive carries */
    const char *context_dir; /* its go.sum (and those below) say which modules to bring, or NULL */
    const char *cache_dir;   /* NULL: $XDG_CACHE_HOME/thimble/gobase */
    bool no_warm_cache;      /* leave the compiled standard library out */
    struct th_go_note note;
};
struct th_gobase_result {
    char *archive;      /* path of a docker/OCI archive, inside the cache folder; caller frees */
    char *go_version;   /* "1.26.8": what the stand-in really has; caller frees */
    char *summary;      /* the one line to show: "golang:1.16 is a stand-in made from ..." */
    uint64_t size_b;    /* of the archive */
    bool cached;        /* it was there already */
};
void th_gobase_result_done(struct th_gobase_result *r);
/* Makes (or finds in the cache) an image archive that stands in for a golang base image.
 * -TH_R_NO_TOOL with a hint when there is no Go. */
int th_gobase_make(const struct th_gobase_opts *opts, struct th_gobase_result *ret,
                   struct th_err *err) TH_MUST_USE;
/* Whether a reference is one that th_gobase_make stands in for: golang, docker.io/library/golang. */
bool th_gobase_is_for(const char *ref);

struct th_gobuild_opts {
    const char *dir;      /* module folder to run in; NULL: the current one */
    const char *package;  /* "./cmd/hello", "." */
    const char *const *tags; /* image names; NULL-terminated, at least one */
    const char *const *labels; /* "K=V"; NULL-terminated or NULL */
    const char *ldflags;  /* or NULL */
    const char *arch;     /* GOARCH; NULL: this machine's */
    const char *out;      /* path of the archive to write */
    struct th_go_note note;
};
struct th_gobuild_result {
    char *image_id;  /* caller frees through _done */
    uint64_t size_b; /* of the archive */
    int64_t compile_ms;
};
void th_gobuild_result_done(struct th_gobuild_result *r);
/* Compiles with the host's Go and writes a minimal image (binary, CA certificates, time zones,
 * user 65532) as an archive for th_images_load. Compiler output is in the error's message. */
int th_gobuild(const struct th_gobuild_opts *opts, struct th_gobuild_result *ret,
               struct th_err *err) TH_MUST_USE;
#endif
