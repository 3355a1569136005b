#ifndef TH_IMAGES_BUILDER_H
#define TH_IMAGES_BUILDER_H
/* Dockerfile builds into the content store. */
#include "images/archive.h"
#include <stdatomic.h>

/* A mount of one RUN step, inside its root. */
struct th_run_mount {
    const char *source;      /* path on this machine; NULL for tmpfs */
    const char *target;      /* absolute, inside the container */
    bool read_only;
    uint64_t tmpfs_size_b;   /* 0: no limit said */
};
/* One process to run to its end. */
struct th_run_spec {
    const char *id;          /* unique, fit for a container name */
    const char *rootfs;      /* a mounted overlay, writable */
    const char *const *argv; /* NULL-terminated */
    const char *const *env;  /* NULL-terminated "K=V" */
    const char *cwd;
    uint32_t uid, gid;
    const uint32_t *gids;    /* supplementary */
    size_t n_gids;
    const struct th_run_mount *mounts;
    size_t n_mounts;
    bool host_network;       /* RUN --network=host; default is loopback only */
    const atomic_bool *cancel; /* may be NULL; true: kill */
    /* Output as it comes, stdout and stderr interleaved; any size, no line structure. */
    void (*output)(void *arg, const char *p, size_t n);
    void *output_arg;
};
/* Runs the process; 0 with *ret_exit (0..255, 128+signal), negative when it could not be run. */
struct th_build_runner {
    int (*run)(void *arg, const struct th_run_spec *spec, int *ret_exit, struct th_err *err);
    void *arg;
};

struct th_runner_crun_opts {
    const char *crun;        /* NULL: "crun" from PATH */
    const char *state_dir;   /* crun --root; must exist */
    const char *cgroup_path; /* parent for the step's cgroup; NULL: --cgroup-manager=disabled */
    uint64_t memory_max_b;   /* 0: none; needs cgroup_path */
};
/* A runner over the crun program: bundle, `crun run`, output through a pipe. No network but
 * loopback. Free with th_runner_crun_free after the last build. */
int th_runner_crun_new(const struct th_runner_crun_opts *opts, struct th_build_runner *ret,
                       struct th_err *err) TH_MUST_USE;
void th_runner_crun_free(struct th_build_runner *r);

enum th_build_event_kind {
    TH_BUILD_START,  /* a step begins */
    TH_BUILD_OUTPUT, /* one line a step's process printed, in text */
    TH_BUILD_DONE,   /* the step has ended: cached, ms */
    TH_BUILD_NOTE    /* something worth a line: a stand-in image, a warning */
};
struct th_build_event {
    enum th_build_event_kind kind;
    int step, total;   /* of all steps of the needed stages; from 1 */
    const char *stage; /* "build", or "stage-0" */
    const char *text;  /* "RUN go build -o hello", or the line */
    bool cached;
    int64_t ms;
};

struct th_build_opts {
    const char *context_dir; /* the unpacked context; NULL: empty */
    const char *dockerfile;  /* path in the context; NULL: "Dockerfile" */
    const char *dockerfile_text; /* instead of the file, or NULL */
    const char *target;      /* stage to stop at, or NULL */
    const char *const *tags;       /* NULL-terminated or NULL */
    const char *const *build_args; /* "K=V"; NULL-terminated or NULL */
    const char *const *labels;     /* "K=V"; NULL-terminated or NULL */
    const char *platform;    /* "linux/amd64"; NULL: this machine's */
    bool no_cache;
    const struct th_build_runner *runner; /* NULL: RUN is -TH_R_UNSUPPORTED */
    /* A base image is not in the store: bring it there and return 0, or fail. NULL: fail. */
    int (*missing_base)(void *arg, const char *ref, struct th_err *err);
    void *missing_base_arg;
    void (*event)(void *arg, const struct th_build_event *e); /* may be NULL; calling thread */
    void *event_arg;
    const atomic_bool *cancel; /* may be NULL; true: stop with -TH_R_CANCELED */
};
struct th_build_result {
    char id[TH_DIGEST_LEN];              /* image ID */
    char manifest_digest[TH_DIGEST_LEN];
    int64_t size;
    int steps, cached_steps;
};
int th_build(struct th_images *s, const struct th_build_opts *opts, struct th_build_result *ret,
             struct th_err *err) TH_MUST_USE;
/* The same with the context as a tar stream (plain, gzip or zstd); opts->context_dir is ignored. */
int th_build_tar(struct th_images *s, struct th_reader context, const struct th_build_opts *opts,
                 struct th_build_result *ret, struct th_err *err) TH_MUST_USE;
/* "user[:group]" against /etc/passwd and /etc/group of a root, as runtimes do. *ret_gids (may be
 * NULL) is the caller's to free. Also for containers. */
int th_image_user(const char *rootfs, const char *user, uint32_t *ret_uid, uint32_t *ret_gid,
                  uint32_t **ret_gids, size_t *ret_n_gids, char **ret_home, struct th_err *err)
    TH_MUST_USE;
#endif
