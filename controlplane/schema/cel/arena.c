/* Memory that is freed all at once: what a program or one evaluation is made of. An evaluation's
 * total is bounded by its cost limit, since everything that allocates is charged. */
#include "controlplane/schema/cel/cel_priv.h"

#define CHUNK_B 8192

struct cel_chunk {
    struct cel_chunk *next;
    _Alignas(16) char data[];
};

void *cel_alloc(struct cel_arena *a, size_t n)
{
    n = (n + 15u) & ~(size_t)15;
    if (n > a->left) {
        size_t size = n > CHUNK_B ? n : CHUNK_B;
        struct cel_chunk *c = th_xcalloc(1, sizeof(*c) + size);
        c->next = a->chunks;
        a->chunks = c;
        a->at = c->data;
        a->left = size;
        a->total += size;
    }
    void *p = a->at;
    a->at += n;
    a->left -= n;
    return p;
}

char *cel_strdup(struct cel_arena *a, const char *s, size_t n)
{
    char *p = cel_alloc(a, n + 1);
    if (n) {
        memcpy(p, s, n);
    }
    return p;
}

char *cel_printf(struct cel_arena *a, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    th_autofree char *s = th_xvasprintf(fmt, ap);
    va_end(ap);
    return cel_strdup(a, s, strlen(s));
}

void cel_arena_done(struct cel_arena *a)
{
    while (a->chunks) {
        struct cel_chunk *c = a->chunks;
        a->chunks = c->next;
        free(c);
    }
    a->left = 0;
}

struct cel_mark cel_arena_mark(const struct cel_arena *a)
{
    return (struct cel_mark){a->chunks, a->left, a->at};
}

void cel_arena_release(struct cel_arena *a, struct cel_mark m)
{
    while (a->chunks != m.chunks) {
        struct cel_chunk *c = a->chunks;
        a->chunks = c->next;
        free(c);
    }
    if (m.left) {
        memset(m.at, 0, m.left); /* what is allocated is zero */
    }
    a->left = m.left;
    a->at = m.at;
}
