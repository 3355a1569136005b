#ifndef TH_IMAGES_STREAM_H
#define TH_IMAGES_STREAM_H
/* Byte streams that can be put behind one another: read from a descriptor, decompress, hash;
 * compress, hash, write. A stream belongs to one thread at a time. */
#include "base/encode.h"
#include "base/err.h"
#include <stdint.h>
#include <sys/types.h>

/* Fills at most n bytes; 0 is the end, negative an error (err set). */
struct th_reader {
    ssize_t (*read)(void *arg, void *p, size_t n, struct th_err *err);
    void *arg;
};
/* Takes all n bytes; 0, or negative with err set. */
struct th_writer {
    int (*write)(void *arg, const void *p, size_t n, struct th_err *err);
    void *arg;
};
struct th_reader th_reader_fd(int fd); /* borrows fd; a pipe or socket is fine */
struct th_writer th_writer_fd(int fd);
struct th_mem_reader {
    const char *p;
    size_t n, at;
};
struct th_reader th_reader_mem(struct th_mem_reader *m);
struct th_writer th_writer_buf(struct th_buf *b);

/* Reads exactly n bytes or, at the end, fewer; returns what came, negative on error. */
ssize_t th_reader_fill(struct th_reader r, void *p, size_t n, struct th_err *err);

enum th_compression { TH_COMP_NONE, TH_COMP_GZIP, TH_COMP_ZSTD };
/* Decompresses what `in` gives; the kind is found from the first bytes. Concatenated gzip members
 * and zstd frames are read on. Truncated or damaged data is -TH_R_BAD_ARCHIVE. */
struct th_decomp;
struct th_decomp *th_decomp_new(struct th_reader in);
struct th_reader th_decomp_reader(struct th_decomp *d);
enum th_compression th_decomp_kind(const struct th_decomp *d); /* after the first read */
void th_decomp_free(struct th_decomp *d);
TH_DEFINE_AUTO(th_decomp, th_decomp_free)

/* Compresses into `out`. level 0 is the library's default. th_comp_finish writes the trailer. */
struct th_comp;
struct th_comp *th_comp_new(struct th_writer out, enum th_compression kind, int level);
struct th_writer th_comp_writer(struct th_comp *c);
int th_comp_finish(struct th_comp *c, struct th_err *err) TH_MUST_USE;
void th_comp_free(struct th_comp *c);
TH_DEFINE_AUTO(th_comp, th_comp_free)

/* Passes bytes through while counting and hashing them. */
struct th_hash_stream {
    struct th_reader in;  /* one of the two */
    struct th_writer out; /* write == NULL: only count */
    struct th_sha256 *sha;
    uint64_t n;
    uint64_t limit; /* 0: none; more bytes are -TH_R_TOO_LARGE */
};
void th_hash_stream_init(struct th_hash_stream *h);
struct th_reader th_hash_stream_reader(struct th_hash_stream *h);
struct th_writer th_hash_stream_writer(struct th_hash_stream *h);
/* "sha256:<hex>" of what passed; ends the hash. out has TH_DIGEST_LEN bytes. */
#define TH_DIGEST_LEN 72
void th_hash_stream_digest(struct th_hash_stream *h, char *out);
void th_hash_stream_done(struct th_hash_stream *h);
/* "sha256:<hex>" of a run of bytes. */
void th_digest_of(const void *p, size_t n, char *out);
#endif
