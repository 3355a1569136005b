/* SPDY/3.1 frames (draft-mbelshe-httpbis-spdy-00, with 3.1's changes, which concern flow control
 * only).
 *
 *   control: 1 | version 3 (15) | type (16) | flags (8) | length (24) | ...
 *   data:    0 | stream (31)                | flags (8) | length (24) | bytes
 *
 * Header blocks are one zlib stream per direction for the whole connection, over a dictionary that
 * the protocol fixes: so every header block is inflated, also those of frames nobody wants, or the
 * next one would not be readable.
 *
 * Data frames are given out as their bytes arrive, so that their length (up to 16 MiB) needs no
 * memory. Control frames and inflated headers have limits. There is no flow control beyond TCP's:
 * the only clients are Kubernetes', whose library neither sends nor honours WINDOW_UPDATE; the API
 * server's own side is the same. */
#include "vm/node/spdy.h"
#include "base/limits.h"

#include <ctype.h>
#include <strings.h>

enum { T_SYN_STREAM = 1, T_SYN_REPLY, T_RST_STREAM, T_SETTINGS, T_PING = 6, T_GOAWAY, T_HEADERS };
#define HEAD_B 8
#define FLAG_FIN 1

/* The protocol's dictionary: words with their lengths in front (32 bits), then text without. */
static const char *const WORDS[] = {"options",
                                    "head",
                                    "post",
                                    "put",
                                    "delete",
                                    "trace",
                                    "accept",
                                    "accept-charset",
                                    "accept-encoding",
                                    "accept-language",
                                    "accept-ranges",
                                    "age",
                                    "allow",
                                    "authorization",
                                    "cache-control",
                                    "connection",
                                    "content-base",
                                    "content-encoding",
                                    "content-language",
                                    "content-length",
                                    "content-location",
                                    "content-md5",
                                    "content-range",
                                    "content-type",
                                    "date",
                                    "etag",
                                    "expect",
                                    "expires",
                                    "from",
                                    "host",
                                    "if-match",
                                    "if-modified-since",
                                    "if-none-match",
                                    "if-range",
                                    "if-unmodified-since",
                                    "last-modified",
                                    "location",
                                    "max-forwards",
                                    "pragma",
                                    "proxy-authenticate",
                                    "proxy-authorization",
                                    "range",
                                    "referer",
                                    "retry-after",
                                    "server",
                                    "te",
                                    "trailer",
                                    "transfer-encoding",
                                    "upgrade",
                                    "user-agent",
                                    "vary",
                                    "via",
                                    "warning",
                                    "www-authenticate",
                                    "method",
                                    "get",
                                    "status",
                                    "200 OK",
                                    "version",
                                    "HTTP/1.1",
                                    "url",
                                    "public",
                                    "set-cookie",
                                    "keep-alive",
                                    "origin"};
static const char TEXT[] =
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 "
    "Unauthorized"
    "403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, "
    "GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/"
    "plain,"
    "text/"
    "javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq="
    "0.";

static void put32(struct th_buf *b, uint32_t v)
{
    const char bytes[4] = {(char)(v >> 24), (char)(v >> 16), (char)(v >> 8), (char)v};
    th_buf_add(b, bytes, 4);
}

static uint32_t get32(const void *p)
{
    const unsigned char *b = p;
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static void dictionary(struct th_buf *b)
{
    for (size_t i = 0; i < TH_ARRAY_LEN(WORDS); i++) {
        put32(b, (uint32_t)strlen(WORDS[i]));
        th_buf_puts(b, WORDS[i]);
    }
    th_buf_puts(b, TEXT);
}

uint32_t spdy_dictionary_adler(void)
{
    th_autobuf struct th_buf d = TH_BUF_INIT;
    dictionary(&d);
    return (uint32_t)adler32(1, (const Bytef *)d.p, (uInt)d.n);
}

void spdy_init(struct spdy *s)
{
    memset(s, 0, sizeof(*s));
    th_autobuf struct th_buf d = TH_BUF_INIT;
    dictionary(&d);
    TH_ASSERT(inflateInit(&s->inflate) == Z_OK);
    /* Few and tiny headers go out: the smallest window and little memory */
    TH_ASSERT(deflateInit2(&s->deflate, Z_BEST_SPEED, Z_DEFLATED, 11, 1, Z_DEFAULT_STRATEGY) ==
              Z_OK);
    TH_ASSERT(deflateSetDictionary(&s->deflate, (const Bytef *)d.p, (uInt)d.n) == Z_OK);
}

void spdy_done(struct spdy *s)
{
    (void)inflateEnd(&s->inflate);
    (void)deflateEnd(&s->deflate);
    th_buf_done(&s->in);
}

void spdy_feed(struct spdy *s, const void *p, size_t n)
{
    th_buf_add(&s->in, p, n);
}

void spdy_frame_done(struct spdy_frame *f)
{
    th_strv_done(&f->headers);
}

const char *spdy_header(const struct spdy_frame *f, const char *name)
{
    for (size_t i = 0; i + 1 < f->headers.n; i += 2) {
        if (strcasecmp(f->headers.v[i], name) == 0) {
            return f->headers.v[i + 1];
        }
    }
    return NULL;
}

/* ---- reading ---- */

static int inflate_block(struct spdy *s, const char *p, size_t n, struct th_buf *out,
                         struct th_err *err)
{
    s->inflate.next_in = (Bytef *)(uintptr_t)p;
    s->inflate.avail_in = (uInt)n;
    for (;;) {
        char chunk[4096];
        s->inflate.next_out = (Bytef *)chunk;
        s->inflate.avail_out = sizeof(chunk);
        int r = inflate(&s->inflate, Z_SYNC_FLUSH);
        if (r == Z_NEED_DICT) {
            th_autobuf struct th_buf d = TH_BUF_INIT;
            dictionary(&d);
            r = inflateSetDictionary(&s->inflate, (const Bytef *)d.p, (uInt)d.n);
            if (r == Z_OK) {
                continue;
            }
        }
        size_t got = sizeof(chunk) - s->inflate.avail_out;
        if ((r != Z_OK && r != Z_BUF_ERROR) || out->n + got > TH_LIMIT_SPDY_HEADERS_B) {
            return th_fail(err, TH_R_BAD_REQUEST, "SPDY: headers cannot be read");
        }
        th_buf_add(out, chunk, got);
        if (s->inflate.avail_in == 0 && got < sizeof(chunk)) {
            return 0;
        }
        if (got == 0) {
            return th_fail(err, TH_R_BAD_REQUEST, "SPDY: headers cannot be read");
        }
    }
}

/* One length-prefixed text of a header block. */
static bool take_text(const struct th_buf *b, size_t *at, const char **ret, size_t *ret_n)
{
    if (b->n - *at < 4) {
        return false;
    }
    size_t n = get32(b->p + *at);
    if (n > b->n - *at - 4) {
        return false;
    }
    *ret = b->p + *at + 4;
    *ret_n = n;
    *at += 4 + n;
    return true;
}

static int take_headers(struct spdy *s, const char *p, size_t n, struct spdy_frame *f,
                        struct th_err *err)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    TH_TRY(inflate_block(s, p, n, &b, err));
    size_t at = 4;
    uint32_t count = b.n >= 4 ? get32(b.p) : 0;
    for (uint32_t i = 0; i < count; i++) {
        const char *name, *value;
        size_t name_n, value_n;
        if (!take_text(&b, &at, &name, &name_n) || !take_text(&b, &at, &value, &value_n)) {
            return th_fail(err, TH_R_BAD_REQUEST, "SPDY: headers are cut short");
        }
        char *small = th_xstrndup(name, name_n);
        for (char *c = small; *c; c++) {
            *c = (char)tolower((unsigned char)*c);
        }
        th_strv_take(&f->headers, small);
        th_strv_take(&f->headers, th_xstrndup(value, value_n)); /* of several values the first */
    }
    return 0;
}

static int control(struct spdy *s, const char *h, size_t len, struct spdy_frame *f,
                   struct th_err *err)
{
    unsigned version = ((unsigned char)h[0] & 0x7fu) << 8 | (unsigned char)h[1];
    unsigned type = (unsigned)(unsigned char)h[2] << 8 | (unsigned char)h[3];
    const char *body = h + HEAD_B;
    if (version != 3) {
        return th_fail(err, TH_R_BAD_REQUEST, "SPDY: version %u is not spoken here", version);
    }
    /* fields in front of the headers, or all of a frame without */
    size_t need = type == T_SYN_STREAM                       ? 10
                  : type == T_SYN_REPLY || type == T_HEADERS ? 4
                  : type == T_RST_STREAM || type == T_GOAWAY ? 8
                  : type == T_PING                           ? 4
                                                             : 0;
    if (len < need) {
        return th_fail(err, TH_R_BAD_REQUEST, "SPDY: a frame of type %u is too short", type);
    }
    f->fin = h[4] & FLAG_FIN;
    f->kind = SPDY_OTHER;
    if (need > 0 && type != T_PING && type != T_GOAWAY) {
        f->stream = get32(body) & 0x7fffffffu;
    }
    if (type == T_SYN_STREAM || type == T_SYN_REPLY || type == T_HEADERS) {
        f->kind = type == T_SYN_STREAM ? SPDY_SYN_STREAM : SPDY_OTHER;
        return take_headers(s, body + need, len - need, f, err);
    }
    if (type == T_RST_STREAM) {
        f->kind = SPDY_RST;
        f->value = get32(body + 4);
    } else if (type == T_PING) {
        f->kind = SPDY_PING;
        f->value = get32(body);
    } else if (type == T_GOAWAY) {
        f->kind = SPDY_GOAWAY;
    }
    return 0;
}

static int give_data(struct spdy *s, struct spdy_frame *f)
{
    size_t have = s->in.n < s->data_left ? s->in.n : s->data_left;
    *f = (struct spdy_frame){.kind = SPDY_DATA, .stream = s->data_stream, .p = s->in.p, .n = have};
    s->data_left -= (uint32_t)have;
    f->fin = s->data_left == 0 && s->data_fin;
    s->consumed = have;
    return 1;
}

int spdy_next(struct spdy *s, struct spdy_frame *f, struct th_err *err)
{
    th_buf_consume(&s->in, s->consumed);
    s->consumed = 0;
    *f = (struct spdy_frame){.kind = SPDY_OTHER};
    if (s->data_left > 0) {
        return s->in.n > 0 ? give_data(s, f) : 0;
    }
    if (s->in.n < HEAD_B) {
        return 0;
    }
    const char *h = s->in.p;
    size_t len = get32(h + 4) & 0xffffffu;
    if (!(h[0] & 0x80)) {
        s->data_stream = get32(h);
        s->data_fin = h[4] & FLAG_FIN;
        s->data_left = (uint32_t)len;
        if (len == 0) {
            *f = (struct spdy_frame){
                .kind = SPDY_DATA, .stream = s->data_stream, .fin = s->data_fin};
            s->consumed = HEAD_B;
            return 1;
        }
        th_buf_consume(&s->in, HEAD_B);
        return s->in.n > 0 ? give_data(s, f) : 0;
    }
    if (len > TH_LIMIT_SPDY_HEADERS_B) {
        return th_fail(err, TH_R_BAD_REQUEST, "SPDY: a control frame of %zu bytes is too long",
                       len);
    }
    if (s->in.n < HEAD_B + len) {
        return 0;
    }
    int r = control(s, h, len, f, err);
    if (r < 0) {
        spdy_frame_done(f);
        return r;
    }
    s->consumed = HEAD_B + len;
    return 1;
}

/* ---- writing ---- */

static void put_control(struct th_buf *out, unsigned type, unsigned flags, size_t len)
{
    put32(out, 0x80030000u | type);
    put32(out, (uint32_t)flags << 24 | (uint32_t)len);
}

void spdy_put_reply(struct spdy *s, struct th_buf *out, uint32_t stream)
{
    char none[4] = {0}, block[256];
    s->deflate.next_in = (Bytef *)none;
    s->deflate.avail_in = sizeof(none);
    s->deflate.next_out = (Bytef *)block;
    s->deflate.avail_out = sizeof(block);
    TH_ASSERT(deflate(&s->deflate, Z_SYNC_FLUSH) == Z_OK && s->deflate.avail_out > 0);
    size_t n = sizeof(block) - s->deflate.avail_out;
    put_control(out, T_SYN_REPLY, 0, 4 + n);
    put32(out, stream);
    th_buf_add(out, block, n);
}

void spdy_put_data(struct th_buf *out, uint32_t stream, bool fin, const void *p, size_t n)
{
    TH_ASSERT(n <= 0xffffff);
    put32(out, stream & 0x7fffffffu);
    put32(out, (fin ? (uint32_t)FLAG_FIN << 24 : 0) | (uint32_t)n);
    th_buf_add(out, p, n);
}

void spdy_put_rst(struct th_buf *out, uint32_t stream, uint32_t status)
{
    put_control(out, T_RST_STREAM, 0, 8);
    put32(out, stream);
    put32(out, status);
}

void spdy_put_ping(struct th_buf *out, uint32_t id)
{
    put_control(out, T_PING, 0, 4);
    put32(out, id);
}

void spdy_put_goaway(struct th_buf *out, uint32_t last_stream)
{
    put_control(out, T_GOAWAY, 0, 8);
    put32(out, last_stream);
    put32(out, 0);
}
