#ifndef TH_BASE_BUF_H
#define TH_BASE_BUF_H
/* Borrowed slices, growable buffers and string lists. */
#include "base/alloc.h"
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* A borrowed run of bytes; not NUL-terminated, never freed through this. */
struct th_str {
    const char *p;
    size_t n;
};
#define TH_STR(lit) ((struct th_str){(lit), sizeof(lit) - 1})
static inline struct th_str th_str_of(const char *s)
{
    return (struct th_str){s, s ? strlen(s) : 0};
}
bool th_str_eq(struct th_str a, struct th_str b);
static inline bool th_streq(const char *a, const char *b) /* NULL equals NULL only */
{
    return a == b || (a && b && strcmp(a, b) == 0);
}
bool th_startswith(const char *s, const char *prefix);
bool th_endswith(const char *s, const char *suffix);

/* A growable byte string, always NUL-terminated once anything was added (th_buf_cstr always is).
 * `max` bounds the length: 0 means TH_BUF_DEFAULT_MAX. Going over it sets `overflow`, drops the
 * addition and makes th_buf_check fail, so callers test once at the end. */
struct th_buf {
    char *p;
    size_t n, cap, max;
    bool overflow;
};
#define TH_BUF_DEFAULT_MAX ((size_t)1 << 30)
#define TH_BUF_INIT                                                                                \
    {                                                                                              \
        .p = NULL                                                                                  \
    }
void th_buf_init(struct th_buf *b, size_t max);
void th_buf_done(struct th_buf *b);
#define th_autobuf TH_CLEANUP(th_buf_done)
void th_buf_clear(struct th_buf *b); /* keeps the memory */
/* Room for `more` bytes and a NUL at p+n. Gives memory only: whoever then adds to n by hand also
 * answers for max and for the NUL. */
void th_buf_reserve(struct th_buf *b, size_t more);
struct th_err;
int th_buf_check(const struct th_buf *b, struct th_err *err); /* -TH_R_TOO_LARGE after overflow */
void th_buf_add(struct th_buf *b, const void *p, size_t n);
void th_buf_puts(struct th_buf *b, const char *s);
void th_buf_putc(struct th_buf *b, char c);
void th_buf_addstr(struct th_buf *b, struct th_str s);
void th_buf_printf(struct th_buf *b, const char *fmt, ...) TH_PRINTF(2, 3);
void th_buf_vprintf(struct th_buf *b, const char *fmt, va_list ap) TH_PRINTF(2, 0);
void th_buf_truncate(struct th_buf *b, size_t n);
void th_buf_consume(struct th_buf *b, size_t n); /* drops n bytes from the front */
const char *th_buf_cstr(const struct th_buf *b); /* "" when empty; valid until the next change */
struct th_str th_buf_str(const struct th_buf *b);
char *th_buf_steal(struct th_buf *b, size_t *ret_n); /* the caller frees; ret_n may be NULL */

/* A growable list of owned strings; v is NULL-terminated once anything was added. */
struct th_strv {
    char **v;
    size_t n, cap;
};
#define TH_STRV_INIT                                                                               \
    {                                                                                              \
        .v = NULL                                                                                  \
    }
void th_strv_done(struct th_strv *l);
#define th_autostrv TH_CLEANUP(th_strv_done)
void th_strv_add(struct th_strv *l, const char *s); /* copies */
void th_strv_take(struct th_strv *l, char *s);      /* owns s */
void th_strv_addf(struct th_strv *l, const char *fmt, ...) TH_PRINTF(2, 3);
bool th_strv_has(const struct th_strv *l, const char *s);
void th_strv_sort(struct th_strv *l);
char *th_strv_join(const struct th_strv *l, const char *sep); /* the caller frees */
/* Splits at each `sep`; empty parts are kept. "" gives one empty part. */
void th_strv_split(struct th_strv *l, const char *s, char sep);
#endif
