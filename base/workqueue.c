/* The keyed work queue.
 *
 * Problem: a controller hears of an object a hundred times while it looks at it once. Work must be
 * merged by key, must never run twice at the same time for one key, must be repeated when
 * something happened meanwhile, and must slow down for a key that keeps failing without holding
 * up the others. Design: one record per key that is known at all, in a hash map. A key is
 *   waiting  in the FIFO, at most once;
 *   active   handed out by get and not yet done;
 *   dirty    added while active: done puts it back to the FIFO's end;
 *   delayed  in a heap of moments, from which it moves to "added" when its time has come.
 * A delayed key that is added at once leaves the heap: the earlier moment is now.
 *
 * Invariants: a key is never waiting and active at once; a record with none of these states and no
 * failures is freed, so the memory follows the live keys. Workers sleep on one condition until the
 * earliest delayed key; a watch on the clock wakes them when simulated time moves.
 * Different from client-go: after shutdown get gives NULL at once instead of draining the queue,
 * since our controllers rebuild their queues by listing when they start.
 */
#include "base/workqueue.h"

#include "base/clock.h"
#include "base/heap.h"
#include "base/hmap.h"

#include <pthread.h>

struct item {
    struct th_heap_node delay; /* first: the heap gives back pointers to it */
    char *key;
    struct item *prev, *next; /* FIFO neighbours while waiting */
    bool waiting, active, dirty;
    int failures;
};

struct th_wq {
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t changed;
    struct th_clock_watch watch;
    struct th_hmap items;
    struct item *first, *last;
    size_t n_waiting;
    struct th_heap delayed;
    int64_t base_ms, max_ms; /* constant */
    bool stopped;
};

static void wake(void *arg)
{
    struct th_wq *q = arg;
    (void)pthread_mutex_lock(&q->lock);
    (void)pthread_cond_broadcast(&q->changed);
    (void)pthread_mutex_unlock(&q->lock);
}

static void item_free(void *p)
{
    struct item *it = p;
    free(it->key);
    free(it);
}

struct th_wq *th_wq_new(int64_t backoff_base_ms, int64_t backoff_max_ms)
{
    struct th_wq *q = TH_NEW(struct th_wq);
    (void)pthread_mutex_init(&q->lock, NULL);
    (void)pthread_cond_init(&q->changed, NULL);
    th_hmap_init(&q->items, item_free);
    q->base_ms = backoff_base_ms;
    q->max_ms = backoff_max_ms;
    q->watch = (struct th_clock_watch){.fn = wake, .arg = q};
    th_clock_watch_add(&q->watch);
    return q;
}

void th_wq_free(struct th_wq *q)
{
    if (!q) {
        return;
    }
    th_clock_watch_del(&q->watch);
    th_heap_done(&q->delayed);
    th_hmap_done(&q->items);
    (void)pthread_cond_destroy(&q->changed);
    (void)pthread_mutex_destroy(&q->lock);
    free(q);
}

static struct item *item_of(struct th_wq *q, const char *key)
{
    struct item *it = th_hmap_get(&q->items, key);
    if (!it) {
        it = TH_NEW(struct item);
        it->key = th_xstrdup(key);
        th_hmap_set(&q->items, key, it);
    }
    return it;
}

/* Frees the record when nothing is known about the key any more. */
static void settle(struct th_wq *q, struct item *it)
{
    if (!it->waiting && !it->active && !th_heap_has(&it->delay) && it->failures == 0) {
        item_free(th_hmap_remove(&q->items, it->key));
    }
}

static void add_now(struct th_wq *q, struct item *it)
{
    th_heap_remove(&q->delayed, &it->delay);
    if (it->active) {
        it->dirty = true;
        return;
    }
    if (it->waiting) {
        return;
    }
    it->waiting = true;
    it->next = NULL;
    it->prev = q->last;
    if (q->last) {
        q->last->next = it;
    } else {
        q->first = it;
    }
    q->last = it;
    q->n_waiting++;
    (void)pthread_cond_signal(&q->changed);
}

static void add_at(struct th_wq *q, struct item *it, int64_t at)
{
    if (it->waiting || (th_heap_has(&it->delay) && it->delay.at <= at)) {
        return;
    }
    th_heap_put(&q->delayed, &it->delay, at);
    if (th_heap_first(&q->delayed) == &it->delay) {
        (void)pthread_cond_signal(&q->changed); /* some worker's sleep is now too long */
    }
}

/* Moves what is due into the FIFO. Gives the next moment something will be due. */
static int64_t release_due(struct th_wq *q)
{
    struct th_heap_node *node = th_heap_first(&q->delayed);
    int64_t now = node ? th_mono_ms() : 0;
    while (node && node->at <= now) {
        add_now(q, (struct item *)node);
        node = th_heap_first(&q->delayed);
    }
    return node ? node->at : INT64_MAX;
}

void th_wq_add(struct th_wq *q, const char *key)
{
    (void)pthread_mutex_lock(&q->lock);
    if (!q->stopped) {
        add_now(q, item_of(q, key));
    }
    (void)pthread_mutex_unlock(&q->lock);
}

void th_wq_add_after(struct th_wq *q, const char *key, int64_t delay_ms)
{
    int64_t at = th_mono_ms() + delay_ms;
    (void)pthread_mutex_lock(&q->lock);
    if (q->stopped) {
        /* nobody will ask for it */
    } else if (delay_ms <= 0) {
        add_now(q, item_of(q, key));
    } else {
        add_at(q, item_of(q, key), at);
    }
    (void)pthread_mutex_unlock(&q->lock);
}

void th_wq_add_backoff(struct th_wq *q, const char *key)
{
    int64_t now = th_mono_ms();
    (void)pthread_mutex_lock(&q->lock);
    if (!q->stopped) {
        struct item *it = item_of(q, key);
        int64_t delay = it->failures < 40 ? q->base_ms << it->failures : q->max_ms;
        if (delay > q->max_ms || delay < 0) {
            delay = q->max_ms;
        }
        it->failures += it->failures < INT32_MAX;
        if (delay > 0) {
            add_at(q, it, now + delay);
        } else {
            add_now(q, it);
        }
    }
    (void)pthread_mutex_unlock(&q->lock);
}

void th_wq_forget(struct th_wq *q, const char *key)
{
    (void)pthread_mutex_lock(&q->lock);
    struct item *it = th_hmap_get(&q->items, key);
    if (it) {
        it->failures = 0;
        settle(q, it);
    }
    (void)pthread_mutex_unlock(&q->lock);
}

int th_wq_failures(struct th_wq *q, const char *key)
{
    (void)pthread_mutex_lock(&q->lock);
    struct item *it = th_hmap_get(&q->items, key);
    int n = it ? it->failures : 0;
    (void)pthread_mutex_unlock(&q->lock);
    return n;
}

/* The lock is held. */
static char *take_first(struct th_wq *q)
{
    struct item *it = q->first;
    q->first = it->next;
    if (q->first) {
        q->first->prev = NULL;
    } else {
        q->last = NULL;
    }
    q->n_waiting--;
    it->waiting = false;
    it->active = true;
    if (q->first || q->delayed.n > 0) {
        /* This worker is busy now; another one has to look after the rest and the next moment. */
        (void)pthread_cond_signal(&q->changed);
    }
    return th_xstrdup(it->key);
}

static char *get_until(struct th_wq *q, int64_t deadline)
{
    char *key = NULL;
    (void)pthread_mutex_lock(&q->lock);
    while (!q->stopped) {
        int64_t due = release_due(q);
        if (q->first) {
            key = take_first(q);
            break;
        }
        if (deadline != INT64_MAX && th_mono_ms() >= deadline) {
            break;
        }
        th_clock_cond_wait(&q->changed, &q->lock, due < deadline ? due : deadline);
    }
    (void)pthread_mutex_unlock(&q->lock);
    return key;
}

char *th_wq_get(struct th_wq *q)
{
    return get_until(q, INT64_MAX);
}

char *th_wq_get_timeout(struct th_wq *q, int64_t timeout_ms)
{
    return get_until(q, th_mono_ms() + timeout_ms);
}

void th_wq_done(struct th_wq *q, const char *key)
{
    (void)pthread_mutex_lock(&q->lock);
    struct item *it = th_hmap_get(&q->items, key);
    if (it && it->active) {
        it->active = false;
        if (it->dirty && !q->stopped) {
            it->dirty = false;
            add_now(q, it);
        } else {
            settle(q, it);
        }
    }
    (void)pthread_mutex_unlock(&q->lock);
}

void th_wq_shutdown(struct th_wq *q)
{
    (void)pthread_mutex_lock(&q->lock);
    q->stopped = true;
    (void)pthread_cond_broadcast(&q->changed);
    (void)pthread_mutex_unlock(&q->lock);
}

size_t th_wq_len(struct th_wq *q)
{
    (void)pthread_mutex_lock(&q->lock);
    (void)release_due(q);
    size_t n = q->n_waiting;
    (void)pthread_mutex_unlock(&q->lock);
    return n;
}
