/* Byte streams.
 *
 * A reader or writer is a function and its argument, so that a layer can be read from a socket,
 * counted, hashed, decompressed and hashed again in one pass with a fixed amount of memory. Each
 * stage borrows the one before it. Nothing here knows what the bytes mean.
 *
 * Decompression finds its kind from the first bytes, because media types in the wild are not
 * reliable. Truncation is told apart from the end: gzip and zstd both say when a frame is complete.
 */
#include "images/stream.h"
#include "base/io.h"

#include <errno.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#define CHUNK (128u << 10)

static ssize_t fd_read(void *arg, void *p, size_t n, struct th_err *err)
{
    int fd = (int)(intptr_t)arg;
    for (;;) {
        ssize_t r = read(fd, p, n);
        if (r >= 0) {
            return r;
        }
        if (errno != EINTR) {
            return th_fail_errno(err, errno, TH_R_IO, "read");
        }
    }
}

static int fd_write(void *arg, const void *p, size_t n, struct th_err *err)
{
    return th_io_write_all((int)(intptr_t)arg, p, n, err);
}

struct th_reader th_reader_fd(int fd)
{
    return (struct th_reader){fd_read, (void *)(intptr_t)fd};
}

struct th_writer th_writer_fd(int fd)
{
    return (struct th_writer){fd_write, (void *)(intptr_t)fd};
}

static ssize_t mem_read(void *arg, void *p, size_t n, struct th_err *err)
{
    struct th_mem_reader *m = arg;
    (void)err;
    size_t k = m->n - m->at < n ? m->n - m->at : n;
    if (k > 0) {
        memcpy(p, m->p + m->at, k);
        m->at += k;
    }
    return (ssize_t)k;
}

struct th_reader th_reader_mem(struct th_mem_reader *m)
{
    return (struct th_reader){mem_read, m};
}

static int buf_write(void *arg, const void *p, size_t n, struct th_err *err)
{
    th_buf_add(arg, p, n);
    return th_buf_check(arg, err);
}

struct th_writer th_writer_buf(struct th_buf *b)
{
    return (struct th_writer){buf_write, b};
}

ssize_t th_reader_fill(struct th_reader r, void *p, size_t n, struct th_err *err)
{
    size_t got = 0;
    while (got < n) {
        ssize_t k = r.read(r.arg, (char *)p + got, n - got, err);
        if (k < 0) {
            return k;
        }
        if (k == 0) {
            break;
        }
        got += (size_t)k;
    }
    return (ssize_t)got;
}

/* ---- decompression ---- */

struct th_decomp {
    struct th_reader in;
    enum th_compression kind;
    bool started, in_eof, frame_open;
    unsigned char buf[CHUNK];
    size_t at, n;
    z_stream z;
    ZSTD_DStream *zstd;
};

struct th_decomp *th_decomp_new(struct th_reader in)
{
    struct th_decomp *d = TH_NEW(struct th_decomp);
    d->in = in;
    return d;
}

void th_decomp_free(struct th_decomp *d)
{
    if (!d) {
        return;
    }
    if (d->started && d->kind == TH_COMP_GZIP) {
        (void)inflateEnd(&d->z);
    }
    ZSTD_freeDStream(d->zstd);
    free(d);
}

enum th_compression th_decomp_kind(const struct th_decomp *d)
{
    return d->kind;
}

static int decomp_start(struct th_decomp *d, struct th_err *err)
{
    ssize_t n = th_reader_fill(d->in, d->buf, sizeof(d->buf), err);
    if (n < 0) {
        return (int)n;
    }
    d->n = (size_t)n;
    d->in_eof = d->n < sizeof(d->buf);
    if (d->n >= 2 && d->buf[0] == 0x1f && d->buf[1] == 0x8b) {
        d->kind = TH_COMP_GZIP;
        TH_ASSERT(inflateInit2(&d->z, 15 + 16) == Z_OK);
    } else if (d->n >= 4 && memcmp(d->buf, "\x28\xb5\x2f\xfd", 4) == 0) {
        d->kind = TH_COMP_ZSTD;
        d->zstd = ZSTD_createDStream();
        TH_ASSERT(d->zstd != NULL);
        /* a frame may ask for a window of this size at most: 128 MiB */
        (void)ZSTD_DCtx_setParameter(d->zstd, ZSTD_d_windowLogMax, 27);
    }
    d->started = true;
    return 0;
}

static int decomp_refill(struct th_decomp *d, struct th_err *err)
{
    if (d->at < d->n || d->in_eof) {
        return 0;
    }
    ssize_t n = d->in.read(d->in.arg, d->buf, sizeof(d->buf), err);
    if (n < 0) {
        return (int)n;
    }
    d->at = 0;
    d->n = (size_t)n;
    d->in_eof = n == 0;
    return 0;
}

static int damaged(struct th_err *err, const char *what, const char *why)
{
    (void)th_fail(err, TH_R_BAD_ARCHIVE, "%s data is damaged: %s", what, why);
    return th_hint(err, "the file may be cut off; make or copy it again");
}

static ssize_t gzip_read(struct th_decomp *d, void *p, size_t n, struct th_err *err)
{
    d->z.next_out = p;
    d->z.avail_out = (uInt)n;
    while (d->z.avail_out == n) {
        TH_TRY(decomp_refill(d, err));
        if (d->at == d->n) { /* the input's end */
            if (d->frame_open) {
                return damaged(err, "gzip", "unexpected end");
            }
            return 0;
        }
        if (!d->frame_open && d->buf[d->at] == 0) {
            d->at++; /* zero padding between or after members */
            continue;
        }
        d->frame_open = true;
        d->z.next_in = d->buf + d->at;
        d->z.avail_in = (uInt)(d->n - d->at);
        int r = inflate(&d->z, Z_NO_FLUSH);
        d->at = d->n - d->z.avail_in;
        if (r == Z_STREAM_END) {
            d->frame_open = false;
            TH_ASSERT(inflateReset(&d->z) == Z_OK);
        } else if (r != Z_OK && r != Z_BUF_ERROR) {
            return damaged(err, "gzip", d->z.msg ? d->z.msg : "invalid stream");
        }
    }
    return (ssize_t)(n - d->z.avail_out);
}

static ssize_t zstd_read(struct th_decomp *d, void *p, size_t n, struct th_err *err)
{
    ZSTD_outBuffer out = {p, n, 0};
    while (out.pos == 0) {
        TH_TRY(decomp_refill(d, err));
        ZSTD_inBuffer in = {d->buf, d->n, d->at};
        bool end = d->at == d->n;
        if (end && !d->frame_open) {
            return 0;
        }
        size_t r = ZSTD_decompressStream(d->zstd, &out, &in);
        d->at = in.pos;
        if (ZSTD_isError(r)) {
            return damaged(err, "zstd", ZSTD_getErrorName(r));
        }
        d->frame_open = r != 0;
        if (end && out.pos == 0 && d->frame_open) {
            return damaged(err, "zstd", "unexpected end");
        }
    }
    return (ssize_t)out.pos;
}

static ssize_t decomp_read(void *arg, void *p, size_t n, struct th_err *err)
{
    struct th_decomp *d = arg;
    if (n == 0) {
        return 0;
    }
    n = n > (1u << 30) ? (1u << 30) : n;
    if (!d->started) {
        TH_TRY(decomp_start(d, err));
    }
    if (d->kind == TH_COMP_GZIP) {
        return gzip_read(d, p, n, err);
    }
    if (d->kind == TH_COMP_ZSTD) {
        return zstd_read(d, p, n, err);
    }
    TH_TRY(decomp_refill(d, err));
    size_t k = d->n - d->at < n ? d->n - d->at : n;
    memcpy(p, d->buf + d->at, k);
    d->at += k;
    return (ssize_t)k;
}

struct th_reader th_decomp_reader(struct th_decomp *d)
{
    return (struct th_reader){decomp_read, d};
}

/* ---- compression ---- */

struct th_comp {
    struct th_writer out;
    enum th_compression kind;
    z_stream z;
    ZSTD_CCtx *zstd;
    unsigned char buf[CHUNK];
};

struct th_comp *th_comp_new(struct th_writer out, enum th_compression kind, int level)
{
    struct th_comp *c = TH_NEW(struct th_comp);
    c->out = out;
    c->kind = kind;
    if (kind == TH_COMP_GZIP) {
        TH_ASSERT(deflateInit2(&c->z, level ? level : Z_DEFAULT_COMPRESSION, Z_DEFLATED, 15 + 16, 8,
                               Z_DEFAULT_STRATEGY) == Z_OK);
    } else if (kind == TH_COMP_ZSTD) {
        c->zstd = ZSTD_createCCtx();
        TH_ASSERT(c->zstd != NULL);
        (void)ZSTD_CCtx_setParameter(c->zstd, ZSTD_c_compressionLevel, level ? level : 3);
        (void)ZSTD_CCtx_setParameter(c->zstd, ZSTD_c_checksumFlag, 1);
    }
    return c;
}

void th_comp_free(struct th_comp *c)
{
    if (!c) {
        return;
    }
    if (c->kind == TH_COMP_GZIP) {
        (void)deflateEnd(&c->z);
    }
    ZSTD_freeCCtx(c->zstd);
    free(c);
}

static int gzip_push(struct th_comp *c, const void *p, size_t n, int flush, struct th_err *err)
{
    c->z.next_in = (Bytef *)(uintptr_t)p;
    c->z.avail_in = (uInt)n;
    do {
        c->z.next_out = c->buf;
        c->z.avail_out = sizeof(c->buf);
        (void)deflate(&c->z, flush);
        size_t k = sizeof(c->buf) - c->z.avail_out;
        if (k > 0) {
            TH_TRY(c->out.write(c->out.arg, c->buf, k, err));
        }
    } while (c->z.avail_out == 0);
    return 0;
}

static int zstd_push(struct th_comp *c, const void *p, size_t n, ZSTD_EndDirective end,
                     struct th_err *err)
{
    ZSTD_inBuffer in = {p, n, 0};
    for (;;) {
        ZSTD_outBuffer out = {c->buf, sizeof(c->buf), 0};
        size_t left = ZSTD_compressStream2(c->zstd, &out, &in, end);
        if (ZSTD_isError(left)) {
            return th_fail(err, TH_R_INTERNAL, "zstd: %s", ZSTD_getErrorName(left));
        }
        if (out.pos > 0) {
            TH_TRY(c->out.write(c->out.arg, c->buf, out.pos, err));
        }
        if (end == ZSTD_e_end ? left == 0 : in.pos == in.size) {
            return 0;
        }
    }
}

static int comp_write(void *arg, const void *p, size_t n, struct th_err *err)
{
    struct th_comp *c = arg;
    const char *s = p;
    while (n > 0) {
        size_t k = n > (1u << 30) ? (1u << 30) : n;
        if (c->kind == TH_COMP_GZIP) {
            TH_TRY(gzip_push(c, s, k, Z_NO_FLUSH, err));
        } else if (c->kind == TH_COMP_ZSTD) {
            TH_TRY(zstd_push(c, s, k, ZSTD_e_continue, err));
        } else {
            TH_TRY(c->out.write(c->out.arg, s, k, err));
        }
        s += k;
        n -= k;
    }
    return 0;
}

struct th_writer th_comp_writer(struct th_comp *c)
{
    return (struct th_writer){comp_write, c};
}

int th_comp_finish(struct th_comp *c, struct th_err *err)
{
    if (c->kind == TH_COMP_GZIP) {
        return gzip_push(c, NULL, 0, Z_FINISH, err);
    }
    if (c->kind == TH_COMP_ZSTD) {
        return zstd_push(c, NULL, 0, ZSTD_e_end, err);
    }
    return 0;
}

/* ---- hashing ---- */

void th_hash_stream_init(struct th_hash_stream *h)
{
    h->sha = th_sha256_new();
    h->n = 0;
}

static int hash_pass(struct th_hash_stream *h, const void *p, size_t n, struct th_err *err)
{
    h->n += n;
    if (h->limit && h->n > h->limit) {
        return th_fail(err, TH_R_TOO_LARGE, "more than the limit of %llu bytes",
                       (unsigned long long)h->limit);
    }
    th_sha256_add(h->sha, p, n);
    return 0;
}

static ssize_t hash_read(void *arg, void *p, size_t n, struct th_err *err)
{
    struct th_hash_stream *h = arg;
    ssize_t r = h->in.read(h->in.arg, p, n, err);
    if (r > 0) {
        TH_TRY(hash_pass(h, p, (size_t)r, err));
    }
    return r;
}

static int hash_write(void *arg, const void *p, size_t n, struct th_err *err)
{
    struct th_hash_stream *h = arg;
    TH_TRY(hash_pass(h, p, n, err));
    return h->out.write ? h->out.write(h->out.arg, p, n, err) : 0;
}

struct th_reader th_hash_stream_reader(struct th_hash_stream *h)
{
    return (struct th_reader){hash_read, h};
}

struct th_writer th_hash_stream_writer(struct th_hash_stream *h)
{
    return (struct th_writer){hash_write, h};
}

void th_hash_stream_digest(struct th_hash_stream *h, char *out)
{
    unsigned char d[TH_SHA256_LEN];
    th_sha256_finish(h->sha, d);
    h->sha = NULL;
    memcpy(out, "sha256:", 7);
    th_hex(d, sizeof(d), out + 7);
}

void th_hash_stream_done(struct th_hash_stream *h)
{
    if (h->sha) {
        th_sha256_free(h->sha);
        h->sha = NULL;
    }
}

void th_digest_of(const void *p, size_t n, char *out)
{
    memcpy(out, "sha256:", 7);
    th_sha256_hex(p, n, out + 7);
}
