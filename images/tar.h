#ifndef TH_IMAGES_TAR_H
#define TH_IMAGES_TAR_H
/* A streaming tar reader (v7, ustar, GNU long names and sparse-free base-256 numbers, pax) and a
 * deterministic pax writer. Names are handed over as they stand: who writes them to a disk goes
 * through th_layer_apply, which checks them. */
#include "images/stream.h"

enum th_tar_type {
    TH_TAR_REG = '0',
    TH_TAR_HARDLINK = '1',
    TH_TAR_SYMLINK = '2',
    TH_TAR_CHAR = '3',
    TH_TAR_BLOCK = '4',
    TH_TAR_DIR = '5',
    TH_TAR_FIFO = '6'
};
struct th_tar_xattr {
    char *name;
    char *value;
    size_t n;
};
struct th_tar_entry {
    enum th_tar_type type;
    char *path; /* without a trailing slash */
    char *link; /* target of links, else NULL */
    uint32_t mode; /* permission bits, with suid, sgid, sticky */
    uint32_t uid, gid;
    uint64_t size; /* of TH_TAR_REG, else 0 */
    int64_t mtime_s;
    uint32_t mtime_ns;
    uint32_t dev_major, dev_minor;
    struct th_tar_xattr *xattrs;
    size_t n_xattrs;
};
void th_tar_entry_done(struct th_tar_entry *e);

struct th_tar_reader;
struct th_tar_reader *th_tar_reader_new(struct th_reader in);
void th_tar_reader_free(struct th_tar_reader *t);
TH_DEFINE_AUTO(th_tar_reader, th_tar_reader_free)
/* 1: the next entry is in *ret_e (borrowed until the next call); 0: the end; negative: error.
 * Data that was not read is skipped. */
int th_tar_next(struct th_tar_reader *t, const struct th_tar_entry **ret_e, struct th_err *err)
    TH_MUST_USE;
/* The current entry's data. */
struct th_reader th_tar_data(struct th_tar_reader *t);
/* Reads the current entry into b; more than max is -TH_R_TOO_LARGE. */
int th_tar_read_all(struct th_tar_reader *t, size_t max, struct th_buf *b, struct th_err *err)
    TH_MUST_USE;

/* Writing: header, then exactly e->size bytes of data through th_tar_write_data, in order. */
struct th_tar_writer {
    struct th_writer out;
    uint64_t left; /* data still owed for the current entry */
    uint32_t pad;
};
void th_tar_writer_init(struct th_tar_writer *w, struct th_writer out);
int th_tar_write_entry(struct th_tar_writer *w, const struct th_tar_entry *e, struct th_err *err)
    TH_MUST_USE;
int th_tar_write_data(struct th_tar_writer *w, const void *p, size_t n, struct th_err *err)
    TH_MUST_USE;
/* A regular file in one call. */
int th_tar_write_file(struct th_tar_writer *w, const char *path, uint32_t mode, const void *p,
                      size_t n, struct th_err *err) TH_MUST_USE;
int th_tar_write_end(struct th_tar_writer *w, struct th_err *err) TH_MUST_USE;
#endif
