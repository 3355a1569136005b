/* Byte encodings: hex, base64, SHA-256, percent-encoding, UTF-8.
 *
 * Problem: digests, secrets, tokens and URLs pass through these on every request; each is a place
 * where a lenient decoder lets two spellings of one value through. Design: table-driven
 * decoders that accept exactly one spelling, with one deliberate exception: standard base64 skips
 * line ends as Go's decoder does, because people paste wrapped base64 into Secrets and the real API
 * server takes it. SHA-256 is GnuTLS', which uses the processor's instructions where there are
 * any.
 *
 * Invariants: decoders append to the buffer only what they accepted; on failure the buffer is as
 * long as it was.
 */
#include "base/encode.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>

static const char hex_digits[] = "0123456789abcdef";

void th_hex(const void *p, size_t n, char *out)
{
    const unsigned char *b = p;
    for (size_t i = 0; i < n; i++) {
        *out++ = hex_digits[b[i] >> 4];
        *out++ = hex_digits[b[i] & 15];
    }
    *out = '\0';
}

static const char alphabet_std[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char alphabet_url[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static void b64_encode(const unsigned char *p, size_t n, const char *alphabet, bool pad,
                       struct th_buf *b)
{
    char quad[4];
    th_buf_reserve(b, (n + 2) / 3 * 4);
    for (; n >= 3; n -= 3, p += 3) {
        uint32_t v = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
        quad[0] = alphabet[v >> 18];
        quad[1] = alphabet[v >> 12 & 63];
        quad[2] = alphabet[v >> 6 & 63];
        quad[3] = alphabet[v & 63];
        th_buf_add(b, quad, 4);
    }
    if (n > 0) {
        uint32_t v = (uint32_t)p[0] << 16 | (n == 2 ? (uint32_t)p[1] << 8 : 0);
        quad[0] = alphabet[v >> 18];
        quad[1] = alphabet[v >> 12 & 63];
        quad[2] = n == 2 ? alphabet[v >> 6 & 63] : '=';
        quad[3] = '=';
        th_buf_add(b, quad, pad ? 4 : n + 1);
    }
}

void th_b64_encode(const void *p, size_t n, struct th_buf *b)
{
    b64_encode(p, n, alphabet_std, true, b);
}

void th_b64url_encode(const void *p, size_t n, struct th_buf *b)
{
    b64_encode(p, n, alphabet_url, false, b);
}

static int b64_value(char c, bool url)
{
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    if (c == (url ? '-' : '+')) {
        return 62;
    }
    return c == (url ? '_' : '/') ? 63 : -1;
}

static int b64_decode(const char *p, size_t n, bool url, struct th_buf *b, struct th_err *err)
{
    size_t before = b->n;
    uint32_t bits = 0;
    size_t chars = 0; /* of the alphabet */
    size_t pads = 0;
    th_buf_reserve(b, n / 4 * 3 + 3);
    for (size_t i = 0; i < n; i++) {
        if (!url && (p[i] == '\n' || p[i] == '\r')) {
            continue;
        }
        if (!url && p[i] == '=') {
            pads++;
            continue;
        }
        int v = b64_value(p[i], url);
        if (v < 0 || pads) {
            th_buf_truncate(b, before);
            return th_fail(err, TH_R_PARSE, "illegal base64 data at input byte %zu", i);
        }
        bits = bits << 6 | (uint32_t)v;
        if (++chars % 4 == 0) {
            th_buf_add(b, (char[]){(char)(bits >> 16), (char)(bits >> 8), (char)bits}, 3);
            bits = 0;
        }
    }
    size_t rest = chars % 4;
    size_t unused = rest == 2 ? bits & 15 : rest == 3 ? bits & 3 : 0;
    /* Go lets stray low bits pass in standard base64; in tokens they would be a second spelling */
    if (rest == 1 || pads != (url || rest == 0 ? 0 : 4 - rest) || (url && unused)) {
        th_buf_truncate(b, before);
        return th_fail(err, TH_R_PARSE, "illegal base64 data at input byte %zu", n);
    }
    if (rest == 2) {
        th_buf_putc(b, (char)(bits >> 4));
    } else if (rest == 3) {
        th_buf_add(b, (char[]){(char)(bits >> 10), (char)(bits >> 2)}, 2);
    }
    return 0;
}

int th_b64_decode(const char *p, size_t n, struct th_buf *b, struct th_err *err)
{
    return b64_decode(p, n, false, b, err);
}

int th_b64url_decode(const char *p, size_t n, struct th_buf *b, struct th_err *err)
{
    return b64_decode(p, n, true, b, err);
}

/* A th_sha256 is a GnuTLS hash handle. */
struct th_sha256 *th_sha256_new(void)
{
    gnutls_hash_hd_t h;
    TH_ASSERT(gnutls_hash_init(&h, GNUTLS_DIG_SHA256) == 0);
    return (struct th_sha256 *)h;
}

void th_sha256_add(struct th_sha256 *h, const void *p, size_t n)
{
    TH_ASSERT(gnutls_hash((gnutls_hash_hd_t)h, p, n) == 0);
}

void th_sha256_finish(struct th_sha256 *h, unsigned char out[TH_SHA256_LEN])
{
    gnutls_hash_deinit((gnutls_hash_hd_t)h, out);
}

void th_sha256_free(struct th_sha256 *h)
{
    if (h) {
        gnutls_hash_deinit((gnutls_hash_hd_t)h, NULL);
    }
}

void th_sha256_hex(const void *p, size_t n, char out[TH_SHA256_HEX_LEN])
{
    unsigned char digest[TH_SHA256_LEN];
    TH_ASSERT(gnutls_hash_fast(GNUTLS_DIG_SHA256, p, n, digest) == 0);
    th_hex(digest, sizeof(digest), out);
}

void th_url_escape(struct th_buf *b, const char *s)
{
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if ((c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c == '-' ||
            c == '.' || c == '_' || c == '~') {
            th_buf_putc(b, *s);
        } else {
            th_buf_printf(b, "%%%02X", c);
        }
    }
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int th_url_unescape(const char *p, size_t n, bool plus_is_space, struct th_buf *b,
                    struct th_err *err)
{
    size_t before = b->n;
    for (size_t i = 0; i < n; i++) {
        size_t run = i; /* most of a URL stands for itself */
        while (run < n && p[run] != '%' && p[run] != '\0' && (p[run] != '+' || !plus_is_space)) {
            run++;
        }
        th_buf_add(b, p + i, run - i);
        i = run;
        if (i == n) {
            break;
        }
        char c = p[i];
        if (c == '%') {
            int high = i + 2 < n ? hex_value(p[i + 1]) : -1;
            int low = i + 2 < n ? hex_value(p[i + 2]) : -1;
            if (high < 0 || low < 0) {
                th_buf_truncate(b, before);
                return th_fail(err, TH_R_BAD_REQUEST, "invalid URL escape \"%.*s\"",
                               (int)(n - i < 3 ? n - i : 3), p + i);
            }
            c = (char)(high << 4 | low);
            i += 2;
        } else if (c == '+' && plus_is_space) {
            c = ' ';
        }
        if (c == '\0') { /* the rest of the program sees C strings */
            th_buf_truncate(b, before);
            return th_fail(err, TH_R_BAD_REQUEST, "NUL in URL");
        }
        th_buf_putc(b, c);
    }
    return 0;
}

size_t th_utf8_next(const void *p, size_t n)
{
    const unsigned char *s = p;
    if (s[0] < 0x80) {
        return 1;
    }
    /* The second byte's range excludes overlong forms, surrogates and what lies above U+10FFFF. */
    unsigned char low = 0x80;
    unsigned char high = 0xbf;
    size_t len;
    if (s[0] >= 0xc2 && s[0] <= 0xdf) {
        len = 2;
    } else if ((s[0] & 0xf0) == 0xe0) {
        len = 3;
        low = s[0] == 0xe0 ? 0xa0 : low;
        high = s[0] == 0xed ? 0x9f : high;
    } else if (s[0] >= 0xf0 && s[0] <= 0xf4) {
        len = 4;
        low = s[0] == 0xf0 ? 0x90 : low;
        high = s[0] == 0xf4 ? 0x8f : high;
    } else {
        return 0;
    }
    if (n < len || s[1] < low || s[1] > high) {
        return 0;
    }
    for (size_t i = 2; i < len; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return len;
}

bool th_utf8_valid(const void *p, size_t n)
{
    const unsigned char *s = p;
    while (n > 0) {
        uint64_t w;
        if (n >= sizeof(w)) {
            memcpy(&w, s, sizeof(w));
            if (!(w & 0x8080808080808080u)) {
                s += sizeof(w);
                n -= sizeof(w);
                continue;
            }
        }
        size_t len = th_utf8_next(s, n);
        if (len == 0) {
            return false;
        }
        s += len;
        n -= len;
    }
    return true;
}
