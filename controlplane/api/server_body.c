/* The body of an answer, as libmicrohttpd wants it: bytes that it may keep, a stored revision that is
 * shared with the store, or a long list that is read piece by piece. Large ones are compressed when the
 * client can read that: bytes at once, pieces while they are sent. Watches are server.c's. */
#include "controlplane/api/server_body.h"

#include <zlib.h>

#define GZIP_MIN_B (128u << 10)
#define PIECES_BLOCK_B (64u << 10)

static void unref_obj(void *cls)
{
    th_obj_unref(cls);
}

/* The body compressed, or false when that did not pay. */
static bool compress_body(const char *p, size_t n, struct th_buf *out)
{
    z_stream z = {0};
    if (deflateInit2(&z, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
        return false;
    }
    size_t bound = deflateBound(&z, n);
    th_buf_reserve(out, bound);
    z.next_in = (unsigned char *)p;
    z.avail_in = (unsigned)n;
    z.next_out = (unsigned char *)out->p;
    z.avail_out = (unsigned)bound;
    bool ok = deflate(&z, Z_FINISH) == Z_STREAM_END && z.total_out < n;
    out->n = z.total_out;
    (void)deflateEnd(&z);
    return ok;
}

/* A long list on its way, compressed or not. */
struct pieces_body {
    struct th_pieces *p;
    bool gzip, drained, ended;
    z_stream z;
    char in[16 << 10];
};

static ssize_t pieces_read(void *cls, uint64_t pos, char *buf, size_t max)
{
    (void)pos;
    struct pieces_body *b = cls;
    size_t n = th_pieces_read(b->p, buf, max);
    return n > 0 ? (ssize_t)n : MHD_CONTENT_READER_END_OF_STREAM;
}

static ssize_t pieces_read_gzip(void *cls, uint64_t pos, char *buf, size_t max)
{
    (void)pos;
    struct pieces_body *b = cls;
    b->z.next_out = (unsigned char *)buf;
    b->z.avail_out = max > UINT32_MAX ? UINT32_MAX : (unsigned)max;
    size_t room = b->z.avail_out;
    while (b->z.avail_out == room && !b->ended) {
        if (b->z.avail_in == 0 && !b->drained) {
            b->z.next_in = (unsigned char *)b->in;
            b->z.avail_in = (unsigned)th_pieces_read(b->p, b->in, sizeof(b->in));
            b->drained = b->z.avail_in == 0;
        }
        b->ended = deflate(&b->z, b->drained ? Z_FINISH : Z_NO_FLUSH) == Z_STREAM_END;
    }
    size_t n = room - b->z.avail_out;
    return n > 0 ? (ssize_t)n : MHD_CONTENT_READER_END_OF_STREAM;
}

static void pieces_done(void *cls)
{
    struct pieces_body *b = cls;
    if (b->gzip) {
        (void)deflateEnd(&b->z);
    }
    th_pieces_free(b->p);
    free(b);
}

static struct MHD_Response *pieces_response(struct th_aresp *a, bool gzip)
{
    struct pieces_body *b = TH_NEW(struct pieces_body);
    size_t n = th_pieces_total(a->pieces);
    b->p = th_steal(&a->pieces);
    b->gzip = gzip && n > GZIP_MIN_B &&
              deflateInit2(&b->z, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK;
    if (!b->gzip) {
        return MHD_create_response_from_callback(n, PIECES_BLOCK_B, pieces_read, b, pieces_done);
    }
    struct MHD_Response *r = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, PIECES_BLOCK_B,
                                                               pieces_read_gzip, b, pieces_done);
    (void)MHD_add_response_header(r, "Content-Encoding", "gzip");
    (void)MHD_add_response_header(r, "Vary", "Accept-Encoding");
    return r;
}

struct MHD_Response *th_server_body(struct th_aresp *a, bool gzip)
{
    if (a->pieces) {
        return pieces_response(a, gzip);
    }
    const char *p = a->body_obj ? a->body_obj->bytes : a->body.p;
    size_t n = a->body_obj ? a->body_obj->n : a->body.n;
    th_autobuf struct th_buf packed = TH_BUF_INIT;
    if (gzip && n > GZIP_MIN_B && n < UINT32_MAX / 2 && compress_body(p, n, &packed)) {
        struct MHD_Response *r;
        size_t len = 0;
        char *bytes = th_buf_steal(&packed, &len);
        r = MHD_create_response_from_buffer(len, bytes, MHD_RESPMEM_MUST_FREE);
        (void)MHD_add_response_header(r, "Content-Encoding", "gzip");
        (void)MHD_add_response_header(r, "Vary", "Accept-Encoding");
        return r;
    }
    if (a->body_obj) {
        return MHD_create_response_from_buffer_with_free_callback_cls(
            n, (void *)(uintptr_t)p, unref_obj, th_steal(&a->body_obj));
    }
    if (n == 0) {
        return MHD_create_response_from_buffer(0, (void *)(uintptr_t) "", MHD_RESPMEM_PERSISTENT);
    }
    char *bytes = th_buf_steal(&a->body, &n);
    return MHD_create_response_from_buffer(n, bytes, MHD_RESPMEM_MUST_FREE);
}

void th_server_headers(struct MHD_Response *r, const struct th_aresp *a)
{
    (void)MHD_add_response_header(r, "Cache-Control", "no-cache, private");
    if (a->content_type) {
        (void)MHD_add_response_header(r, "Content-Type", a->content_type);
    }
    for (size_t i = 0; i < a->headers.n; i++) {
        const char *line = a->headers.v[i];
        size_t n = strcspn(line, ":");
        th_autofree char *name = th_xstrndup(line, n);
        (void)MHD_add_response_header(r, name, line + n + (line[n] ? 2 : 0));
    }
}
