#ifndef TH_BASE_HEAP_H
#define TH_BASE_HEAP_H
/* A binary min-heap of moments whose nodes are embedded in the caller's structs; equal moments
 * leave in the order they came. Any node can be removed. Not thread-safe. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct th_heap_node {
    int64_t at;
    uint64_t seq;
    size_t place; /* index + 1; 0 while not in a heap, so zeroed memory is a valid node */
};
struct th_heap {
    struct th_heap_node **v;
    size_t n, cap;
    uint64_t seq;
};
void th_heap_done(struct th_heap *h); /* frees the array, not the nodes */
/* Puts the node in at that moment; a node that is in already moves there. */
void th_heap_put(struct th_heap *h, struct th_heap_node *node, int64_t at);
void th_heap_remove(struct th_heap *h, struct th_heap_node *node); /* fine when not in */
static inline struct th_heap_node *th_heap_first(const struct th_heap *h)
{
    return h->n ? h->v[0] : NULL;
}
static inline bool th_heap_has(const struct th_heap_node *node)
{
    return node->place != 0;
}
#endif
