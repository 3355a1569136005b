#ifndef TH_IMAGES_LAYER_H
#define TH_IMAGES_LAYER_H
/* Layers: tar streams to overlay lower folders and back. */
#include "images/tar.h"

struct th_layer_apply_opts {
    bool whiteouts;   /* .wh.x becomes an overlay whiteout; false: such names are plain files */
    bool keep_owner;  /* chown to the entry's uid and gid (needs root) */
    bool keep_xattrs; /* set xattrs (security.capability, user.*) */
    bool skip_devices; /* leave out device nodes instead of making them */
    uint64_t max_bytes;   /* 0: TH_LIMIT_LAYER_B */
    uint64_t max_entries; /* 0: TH_LIMIT_LAYER_ENTRIES */
};
struct th_layer_stat {
    uint64_t bytes;   /* of regular files */
    uint64_t entries;
};
/* Unpacks an uncompressed tar under the existing folder dir. No entry can touch anything outside
 * it: absolute names are taken below dir, ".." is refused, symbolic links on the way are resolved
 * inside dir. The rest of `in` is read to its end (so that a hash around it is complete).
 * -TH_R_BAD_ARCHIVE for what a sound layer never has. */
int th_layer_apply(struct th_reader in, const char *dir, const struct th_layer_apply_opts *opts,
                   struct th_layer_stat *ret, struct th_err *err) TH_MUST_USE;

struct th_layer_write_opts {
    bool whiteouts;         /* overlay whiteouts in dir become .wh. entries */
    int64_t mtime_max_s;    /* later times are set to this; 0: no limit */
    bool mtime_fixed;       /* every time is mtime_max_s */
    bool owner_root;        /* uid and gid 0 for all */
    const char *prefix;     /* put in front of every path ("app"), or NULL */
    /* Returns false to leave a path (below dir) out; of a folder: it and all below. */
    bool (*filter)(void *arg, const char *rel, bool is_dir);
    void *filter_arg;
};
/* Writes dir as a tar: sorted, so the same tree gives the same bytes. Sockets are left out. Does
 * not write the end of the archive, so that several can follow one another. */
int th_layer_write(const char *dir, const struct th_layer_write_opts *opts,
                   struct th_tar_writer *w, struct th_layer_stat *ret, struct th_err *err)
    TH_MUST_USE;

/* Mounts an overlay at target: lowers from the topmost down, upper and work on one file system.
 * upper NULL: read-only, and then two lowers at least. */
int th_overlay_mount(const char *const *lowers, size_t n_lowers, const char *upper,
                     const char *work, const char *target, struct th_err *err) TH_MUST_USE;
#endif
