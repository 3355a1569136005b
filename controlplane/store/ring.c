/* The ring of recent events: what watches that begin a little in the past and lists at a recent
 * revision read, without SQLite.
 *
 * A circular array that grows by doubling up to its limits. Every revision is one event, so the
 * revisions inside have no gaps and the place of one is found by subtraction. With a database
 * behind it the ring may forget at will; without one it is the history, and what it forgets is
 * compacted.
 */
#include "controlplane/store/store_priv.h"

/* What an event costs beside its object's bytes. */
#define EVENT_OVERHEAD_B (sizeof(struct th_event) + sizeof(struct th_obj) + 64)

void th_ring_done(struct th_ring *r)
{
    while (r->n > 0) {
        th_event_unref(th_ring_pop(r));
    }
    free(r->v);
    *r = (struct th_ring){.v = NULL};
}

struct th_ring_entry *th_ring_at(struct th_ring *r, size_t i)
{
    return &r->v[(r->head + i) & (r->cap - 1)];
}

void th_ring_push(struct th_ring *r, struct th_event *ev, int64_t time_ms)
{
    if (r->n == r->cap) {
        size_t cap = r->cap ? r->cap * 2 : 64;
        struct th_ring_entry *v = th_xmalloc(cap * sizeof(*v));
        for (size_t i = 0; i < r->n; i++) {
            v[i] = *th_ring_at(r, i);
        }
        free(r->v);
        r->v = v;
        r->cap = cap;
        r->head = 0;
    }
    size_t cost = ev->obj->n + EVENT_OVERHEAD_B;
    TH_ASSERT(r->n == 0 || th_ring_at(r, r->n - 1)->ev->rv + 1 == ev->rv);
    r->n++;
    *th_ring_at(r, r->n - 1) = (struct th_ring_entry){ev, time_ms, cost};
    r->bytes += cost;
}

size_t th_ring_after(struct th_ring *r, int64_t rv)
{
    if (r->n == 0) {
        return 0;
    }
    int64_t first = th_ring_at(r, 0)->ev->rv;
    if (rv < first) {
        return 0;
    }
    uint64_t i = (uint64_t)(rv - first) + 1;
    return i < r->n ? (size_t)i : r->n;
}

struct th_event *th_ring_pop(struct th_ring *r)
{
    struct th_ring_entry *e = th_ring_at(r, 0);
    r->bytes -= e->cost_b;
    r->head = (r->head + 1) & (r->cap - 1);
    r->n--;
    return e->ev;
}

bool th_ring_over(const struct th_ring *r)
{
    return r->n > 0 && (r->n > r->max_n || r->bytes > r->max_b);
}
