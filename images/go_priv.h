#ifndef TH_IMAGES_GO_PRIV_H
#define TH_IMAGES_GO_PRIV_H
/* What gobase.c and gobuild.c share: the host's Go, and writing an image archive. */
#include "base/json/json.h"
#include "images/gobase.h"
#include "images/tar.h"

struct go_host {
    char *program;  /* absolute path of go */
    char *root;     /* GOROOT */
    char *version;  /* "1.26.8" */
    char *modcache; /* GOMODCACHE */
    char *arch;     /* GOHOSTARCH */
};
void go_host_done(struct go_host *g);
/* Finds Go in PATH, then in /usr/local/go; -TH_R_NO_TOOL with a hint. */
int go_host_find(struct go_host *ret, struct th_err *err);
/* Runs go with extra environment ("K=V", NULL-terminated), output gathered. */
int go_host_run(const struct go_host *g, const char *cwd, const char *const *args,
                const char *const *env, struct th_buf *out, struct th_err *err);
void go_note(const struct th_go_note *n, const char *fmt, ...) TH_PRINTF(2, 3);

/* A layer being written to a zstd file. */
struct go_layer {
    char *path;
    char diff_id[TH_DIGEST_LEN], digest[TH_DIGEST_LEN];
    uint64_t size;
};
struct go_layer_writer {
    struct th_tar_writer tar;
    struct th_hash_stream inner, outer;
    struct th_comp *comp;
    int fd;
    char *path;
};
int go_layer_begin(const char *path, int level, struct go_layer_writer *w, struct th_err *err);
/* Ends the tar in any case; r < 0: only cleans up and returns r. */
int go_layer_end(struct go_layer_writer *w, int r, struct go_layer *ret, struct th_err *err);
int go_layer_dir(struct go_layer_writer *w, const char *path, uint32_t mode, struct th_err *err);
int go_layer_link(struct go_layer_writer *w, const char *path, const char *to, struct th_err *err);
/* A file of the host under another name; missing is an error. */
int go_layer_file(struct go_layer_writer *w, const char *path, const char *host_path,
                  uint32_t mode, struct th_err *err);
int go_layer_text(struct go_layer_writer *w, const char *path, uint32_t mode, const char *text,
                  struct th_err *err);
/* Writes an OCI and docker archive atomically. config is the "config" object (taken). */
int go_archive_write(const char *path, const struct go_layer *layers, size_t n, const char *arch,
                     struct th_json *config, const char *history, const char *const *names,
                     char ret_id[TH_DIGEST_LEN], uint64_t *ret_size, struct th_err *err);
#define GO_MTIME 1577836800 /* 2020-01-01: same input, same layer */
#endif
