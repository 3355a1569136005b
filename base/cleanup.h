#ifndef TH_BASE_CLEANUP_H
#define TH_BASE_CLEANUP_H
/* Automatic release of what a scope owns, by GNU's cleanup attribute.
 *
 *   th_autofree char *s = th_xstrdup(x);        freed at the end of the scope
 *   th_autoclose int fd = open(...);            closed if >= 0
 *   TH_AUTO(th_json) struct th_json *o = ...;   th_json_unref(o)
 *   return th_steal(&s);                        hands ownership out
 */
#include <stdlib.h>
#include <unistd.h>

#define TH_CLEANUP(fn) __attribute__((cleanup(fn)))
#define TH_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define TH_MUST_USE __attribute__((warn_unused_result))
#define TH_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define TH_UNUSED __attribute__((unused))

/* Defines the function that TH_AUTO(type) runs for `struct type *`; free_fn accepts NULL. */
#define TH_DEFINE_AUTO(type, free_fn)                                                              \
    static inline TH_UNUSED void th_auto_##type##_(struct type **p)                                \
    {                                                                                              \
        if (*p) {                                                                                  \
            free_fn(*p);                                                                           \
        }                                                                                          \
    }
#define TH_AUTO(type) TH_CLEANUP(th_auto_##type##_)

static inline void th_autofree_(void *p)
{
    free(*(void **)p);
}
static inline void th_autoclose_(int *fd)
{
    if (*fd >= 0) {
        (void)close(*fd);
    }
}
#define th_autofree TH_CLEANUP(th_autofree_)
#define th_autoclose TH_CLEANUP(th_autoclose_)

/* Moves a pointer (or a descriptor) out of a variable that would release it. */
#define th_steal(pp)                                                                               \
    __extension__({                                                                                \
        __typeof__(*(pp)) th_steal_tmp_ = *(pp);                                                   \
        *(pp) = NULL;                                                                              \
        th_steal_tmp_;                                                                             \
    })
static inline int th_steal_fd(int *fd)
{
    int r = *fd;
    *fd = -1;
    return r;
}
#endif
