/* The heap under timers and delayed work.
 *
 * Problem: the event loop and the work queue both ask "what is due next" and both cancel what is
 * not due any more. Design: an array heap of pointers to embedded nodes; each node knows its place,
 * so removal needs no search. A sequence number breaks ties, which keeps timers of one moment in
 * the order they were set, and a simulated run repeatable.
 *
 * Invariant: v[i] is not after v[2i+1] and v[2i+2], and v[i]->place == i + 1.
 */
#include "base/heap.h"

#include "base/alloc.h"

static bool before(const struct th_heap_node *a, const struct th_heap_node *b)
{
    return a->at != b->at ? a->at < b->at : a->seq < b->seq;
}

static void place(struct th_heap *h, size_t i, struct th_heap_node *node)
{
    h->v[i] = node;
    node->place = i + 1;
}

static void sift_up(struct th_heap *h, size_t i, struct th_heap_node *node)
{
    while (i > 0 && before(node, h->v[(i - 1) / 2])) {
        place(h, i, h->v[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    place(h, i, node);
}

static void sift_down(struct th_heap *h, size_t i, struct th_heap_node *node)
{
    for (;;) {
        size_t c = 2 * i + 1;
        if (c >= h->n) {
            break;
        }
        if (c + 1 < h->n && before(h->v[c + 1], h->v[c])) {
            c++;
        }
        if (!before(h->v[c], node)) {
            break;
        }
        place(h, i, h->v[c]);
        i = c;
    }
    place(h, i, node);
}

void th_heap_done(struct th_heap *h)
{
    free(h->v);
    *h = (struct th_heap){0};
}

void th_heap_remove(struct th_heap *h, struct th_heap_node *node)
{
    if (node->place == 0) {
        return;
    }
    size_t i = node->place - 1;
    TH_ASSERT(i < h->n && h->v[i] == node);
    node->place = 0;
    struct th_heap_node *last = h->v[--h->n];
    if (last == node) {
        return;
    }
    /* The last one fills the gap; it may belong above or below it. */
    if (i > 0 && before(last, h->v[(i - 1) / 2])) {
        sift_up(h, i, last);
    } else {
        sift_down(h, i, last);
    }
}

void th_heap_put(struct th_heap *h, struct th_heap_node *node, int64_t at)
{
    th_heap_remove(h, node);
    h->v = th_xgrow(h->v, &h->cap, h->n + 1, sizeof(struct th_heap_node *));
    node->at = at;
    node->seq = h->seq++;
    h->n++;
    sift_up(h, h->n - 1, node);
}
