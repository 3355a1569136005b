#ifndef TH_BASE_ENCODE_H
#define TH_BASE_ENCODE_H
/* hex, base64 (standard and URL alphabets), SHA-256, percent-encoding, UTF-8. */
#include "base/buf.h"
#include "base/err.h"
void th_hex(const void *p, size_t n, char *out); /* 2n+1 bytes, lower case */
void th_b64_encode(const void *p, size_t n, struct th_buf *b);
void th_b64url_encode(const void *p, size_t n, struct th_buf *b); /* no padding */
/* Appends to b. Standard base64 needs its padding and skips line ends, as Go's decoder (so the API
 * server) does; the URL form is strict: no padding, no white space, no stray bits. */
int th_b64_decode(const char *p, size_t n, struct th_buf *b, struct th_err *err) TH_MUST_USE;
int th_b64url_decode(const char *p, size_t n, struct th_buf *b, struct th_err *err) TH_MUST_USE;
#define TH_SHA256_LEN 32
#define TH_SHA256_HEX_LEN 65
struct th_sha256; /* heap, since the inside is GnuTLS' */
struct th_sha256 *th_sha256_new(void);
void th_sha256_add(struct th_sha256 *h, const void *p, size_t n);
void th_sha256_finish(struct th_sha256 *h, unsigned char out[TH_SHA256_LEN]); /* frees h */
void th_sha256_free(struct th_sha256 *h);
void th_sha256_hex(const void *p, size_t n, char out[TH_SHA256_HEX_LEN]);
void th_url_escape(struct th_buf *b, const char *s); /* everything but unreserved */
int th_url_unescape(const char *p, size_t n, bool plus_is_space, struct th_buf *b,
                    struct th_err *err);
bool th_utf8_valid(const void *p, size_t n);
/* Length of the valid UTF-8 sequence at p (1 to 4), or 0. n > 0. */
size_t th_utf8_next(const void *p, size_t n);
#endif
