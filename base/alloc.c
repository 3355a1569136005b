/* Allocation that cannot fail.
 *
 * Problem: a daemon of many small structs has hundreds of places where malloc may say NULL, none
 * of which can be tested one by one and most of which would have nothing better to do than stop.
 * Design: running out of memory is a broken invariant, reported in one line and followed by
 * abort(), so that a core dump and the supervisor's restart take over. The store is durable at
 * every acknowledged write, so stopping is safe.
 *
 * Invariants: no function here returns NULL except th_xstrdup(NULL); sizes that come from outside
 * were compared with base/limits.h before they arrive, therefore an overflowing multiplication is
 * a bug and aborts as well. The messages are written with write(2): no allocation on the way down.
 */
#include "base/alloc.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static _Noreturn void die_no_memory(size_t n)
{
    char line[96];
    int len = snprintf(line, sizeof(line), "thimble: out of memory (%zu bytes wanted)\n", n);
    if (len > 0) {
        ssize_t w = write(STDERR_FILENO, line, (size_t)len);
        (void)w;
    }
    abort();
}

_Noreturn void th_assert_failed(const char *expr, const char *file, int line)
{
    char text[512];
    int len =
        snprintf(text, sizeof(text), "thimble: broken invariant: %s (%s:%d)\n", expr, file, line);
    if (len >= (int)sizeof(text)) {
        len = (int)sizeof(text) - 1;
    }
    if (len > 0) {
        ssize_t w = write(STDERR_FILENO, text, (size_t)len);
        (void)w;
    }
    abort();
}

void *th_xmalloc(size_t n)
{
    void *p = malloc(n ? n : 1);
    if (!p) {
        die_no_memory(n);
    }
    return p;
}

void *th_xcalloc(size_t count, size_t size)
{
    void *p = count && size ? calloc(count, size) : calloc(1, 1);
    if (!p) {
        die_no_memory(size > 0 && count > SIZE_MAX / size ? SIZE_MAX : count * size);
    }
    return p;
}

void *th_xrealloc(void *p, size_t n)
{
    void *q = realloc(p, n ? n : 1);
    if (!q) {
        die_no_memory(n);
    }
    return q;
}

void *th_xgrow(void *p, size_t *cap, size_t need, size_t size)
{
    if (need <= *cap && p) {
        return p;
    }
    size_t want = *cap ? *cap : 8;
    while (want < need) {
        /* 1.5 times, so that freed blocks can be joined into a later, larger one */
        size_t next = want + want / 2 + 1;
        if (next < want) {
            die_no_memory(SIZE_MAX);
        }
        want = next;
    }
    size_t bytes;
    if (__builtin_mul_overflow(want, size, &bytes)) {
        die_no_memory(SIZE_MAX);
    }
    p = th_xrealloc(p, bytes);
    *cap = want;
    return p;
}

char *th_xstrdup(const char *s)
{
    return s ? th_xmemdup(s, strlen(s) + 1) : NULL;
}

char *th_xstrndup(const char *s, size_t n)
{
    size_t len = strnlen(s, n);
    char *p = th_xmalloc(len + 1);
    memcpy(p, s, len);
    p[len] = '\0';
    return p;
}

void *th_xmemdup(const void *p, size_t n)
{
    void *q = th_xmalloc(n);
    if (n) {
        memcpy(q, p, n);
    }
    return q;
}

char *th_xasprintf(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char *s = th_xvasprintf(fmt, ap);
    va_end(ap);
    return s;
}

char *th_xvasprintf(const char *fmt, va_list ap)
{
    char *s = NULL;
    if (vasprintf(&s, fmt, ap) < 0) {
        /* the only other cause is a result above INT_MAX, which is as hopeless */
        die_no_memory(errno == EOVERFLOW ? SIZE_MAX : 0);
    }
    return s;
}
