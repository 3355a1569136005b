#ifndef TH_BASE_ALLOC_H
#define TH_BASE_ALLOC_H
/* Allocation that cannot fail: out of memory aborts (see CONTRIBUTING.md, "Errors"). Untrusted
 * sizes are therefore checked against base/limits.h before they get here. */
#include "base/cleanup.h"
#include <stdarg.h>
#include <stddef.h>

void *th_xmalloc(size_t n) __attribute__((malloc, returns_nonnull));
void *th_xcalloc(size_t count, size_t size) __attribute__((malloc, returns_nonnull));
void *th_xrealloc(void *p, size_t n) __attribute__((returns_nonnull));
/* Grows an array to hold at least `need` elements of `size` bytes; *cap is in elements. */
void *th_xgrow(void *p, size_t *cap, size_t need, size_t size) __attribute__((returns_nonnull));
/* NULL gives NULL. The caller frees. */
char *th_xstrdup(const char *s);
char *th_xstrndup(const char *s, size_t n) __attribute__((returns_nonnull));
void *th_xmemdup(const void *p, size_t n) __attribute__((returns_nonnull));
/* printf into a new string; the caller frees. */
char *th_xasprintf(const char *fmt, ...) TH_PRINTF(1, 2) __attribute__((returns_nonnull));
char *th_xvasprintf(const char *fmt, va_list ap) TH_PRINTF(1, 0) __attribute__((returns_nonnull));

#define TH_NEW(type) ((type *)th_xcalloc(1, sizeof(type)))

/* A broken invariant aborts, in release builds too. */
_Noreturn void th_assert_failed(const char *expr, const char *file, int line);
#define TH_ASSERT(e) ((e) ? (void)0 : th_assert_failed(#e, __FILE__, __LINE__))
#endif
