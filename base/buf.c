/* Growable byte strings and lists of strings.
 *
 * Problem: nearly every answer, frame, file and command line is put together piece by piece, and
 * checking each piece for success would drown the code that says what is being built.
 * Design: additions never report failure. Running out of memory aborts (base/alloc.h); going over
 * the buffer's `max` is remembered in `overflow`, and the addition that did it is dropped whole, so
 * the content is always a prefix made of complete additions. The caller looks once, at the end,
 * with th_buf_check.
 *
 * Invariants: n <= cap - 1 whenever p is set, and p[n] == '\0'; n <= max. `max` bounds the length
 * only: th_buf_reserve gives the memory it was asked for, whatever max says. Lists keep a NULL
 * after their last element, so v can be handed to execve and friends.
 */
#include "base/buf.h"

#include "base/err.h"

#include <stdio.h>

bool th_str_eq(struct th_str a, struct th_str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

bool th_startswith(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

bool th_endswith(const char *s, const char *suffix)
{
    size_t n = strlen(s);
    size_t m = strlen(suffix);
    return n >= m && memcmp(s + n - m, suffix, m) == 0;
}

void th_buf_init(struct th_buf *b, size_t max)
{
    *b = (struct th_buf){.max = max};
}

void th_buf_done(struct th_buf *b)
{
    free(b->p);
    *b = (struct th_buf){.max = b->max};
}

void th_buf_clear(struct th_buf *b)
{
    b->n = 0;
    b->overflow = false;
    if (b->p) {
        b->p[0] = '\0';
    }
}

int th_buf_check(const struct th_buf *b, struct th_err *err)
{
    if (b->overflow) {
        return th_fail(err, TH_R_TOO_LARGE, "more than %zu bytes",
                       b->max ? b->max : TH_BUF_DEFAULT_MAX);
    }
    return 0;
}

static void grow(struct th_buf *b, size_t more)
{
    size_t need;
    if (__builtin_add_overflow(b->n, more, &need) || __builtin_add_overflow(need, 1, &need)) {
        need = SIZE_MAX; /* th_xrealloc aborts with a message */
    }
    size_t cap = b->cap < 32 ? 64 : b->cap * 2;
    if (cap < need) {
        cap = need;
    }
    b->p = th_xrealloc(b->p, cap);
    b->cap = cap;
    b->p[b->n] = '\0';
}

void th_buf_reserve(struct th_buf *b, size_t more)
{
    if (b->cap - b->n <= more) { /* also true for cap == n == 0 */
        grow(b, more);
    }
}

/* Room for n more bytes, or false and overflow set. */
static bool admit(struct th_buf *b, size_t n)
{
    size_t max = b->max ? b->max : TH_BUF_DEFAULT_MAX;
    if (n > max || b->n > max - n) {
        b->overflow = true;
        return false;
    }
    th_buf_reserve(b, n);
    return true;
}

void th_buf_add(struct th_buf *b, const void *p, size_t n)
{
    if (!admit(b, n) || n == 0) {
        return;
    }
    memcpy(b->p + b->n, p, n);
    b->n += n;
    b->p[b->n] = '\0';
}

void th_buf_puts(struct th_buf *b, const char *s)
{
    th_buf_add(b, s, strlen(s));
}

void th_buf_putc(struct th_buf *b, char c)
{
    if (!admit(b, 1)) {
        return;
    }
    b->p[b->n++] = c;
    b->p[b->n] = '\0';
}

void th_buf_addstr(struct th_buf *b, struct th_str s)
{
    th_buf_add(b, s.p, s.n);
}

void th_buf_printf(struct th_buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    th_buf_vprintf(b, fmt, ap);
    va_end(ap);
}

void th_buf_vprintf(struct th_buf *b, const char *fmt, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    th_buf_reserve(b, 63);
    int n = vsnprintf(b->p + b->n, b->cap - b->n, fmt, ap);
    TH_ASSERT(n >= 0);
    b->p[b->n] = '\0'; /* undone until it is known to fit */
    if (admit(b, (size_t)n)) {
        (void)vsnprintf(b->p + b->n, (size_t)n + 1, fmt, again);
        b->n += (size_t)n;
    }
    va_end(again);
}

void th_buf_truncate(struct th_buf *b, size_t n)
{
    if (n < b->n) {
        b->n = n;
        b->p[n] = '\0';
    }
}

void th_buf_consume(struct th_buf *b, size_t n)
{
    if (n >= b->n) {
        th_buf_truncate(b, 0);
        return;
    }
    if (n > 0) {
        memmove(b->p, b->p + n, b->n - n + 1);
        b->n -= n;
    }
}

const char *th_buf_cstr(const struct th_buf *b)
{
    return b->p ? b->p : "";
}

struct th_str th_buf_str(const struct th_buf *b)
{
    return (struct th_str){th_buf_cstr(b), b->n};
}

char *th_buf_steal(struct th_buf *b, size_t *ret_n)
{
    char *p = b->p ? b->p : th_xstrdup("");
    if (ret_n) {
        *ret_n = b->n;
    }
    *b = (struct th_buf){.max = b->max};
    return p;
}

void th_strv_done(struct th_strv *l)
{
    for (size_t i = 0; i < l->n; i++) {
        free(l->v[i]);
    }
    free(l->v);
    *l = (struct th_strv)TH_STRV_INIT;
}

void th_strv_take(struct th_strv *l, char *s)
{
    l->v = th_xgrow(l->v, &l->cap, l->n + 2, sizeof(*l->v));
    l->v[l->n++] = s;
    l->v[l->n] = NULL;
}

void th_strv_add(struct th_strv *l, const char *s)
{
    th_strv_take(l, th_xstrdup(s));
}

void th_strv_addf(struct th_strv *l, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    th_strv_take(l, th_xvasprintf(fmt, ap));
    va_end(ap);
}

bool th_strv_has(const struct th_strv *l, const char *s)
{
    for (size_t i = 0; i < l->n; i++) {
        if (strcmp(l->v[i], s) == 0) {
            return true;
        }
    }
    return false;
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

void th_strv_sort(struct th_strv *l)
{
    if (l->n > 1) {
        qsort(l->v, l->n, sizeof(*l->v), compare);
    }
}

char *th_strv_join(const struct th_strv *l, const char *sep)
{
    struct th_buf b = TH_BUF_INIT;
    for (size_t i = 0; i < l->n; i++) {
        if (i > 0) {
            th_buf_puts(&b, sep);
        }
        th_buf_puts(&b, l->v[i]);
    }
    return th_buf_steal(&b, NULL);
}

void th_strv_split(struct th_strv *l, const char *s, char sep)
{
    for (;;) {
        const char *end = strchr(s, sep);
        if (!end || sep == '\0') {
            th_strv_add(l, s);
            return;
        }
        th_strv_take(l, th_xstrndup(s, (size_t)(end - s)));
        s = end + 1;
    }
}
