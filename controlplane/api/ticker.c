/* One timer thread for all watches.
 *
 * Thousands of watches each want a bookmark once a minute and an end after half an hour. A timer
 * for each would wake an idle process all the time; so due times are rounded up to whole ticks and
 * the thread sleeps until the earliest. A pass over the list costs microseconds and happens once a
 * tick at most.
 *
 * fn runs under the ticker's lock: it may take a connection's lock, and nobody who holds such a
 * lock may call the ticker.
 */
#include "controlplane/api/ticker.h"

#include "base/alloc.h"
#include "base/clock.h"

#define TICK_MS 1000

struct th_ticker {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    struct th_tick list; /* ring */
    int64_t next_ms;     /* what the thread sleeps for */
    bool stop;
    pthread_t thread;
    struct th_clock_watch clock;
};

static void clock_moved(void *arg)
{
    struct th_ticker *t = arg;
    (void)pthread_mutex_lock(&t->lock);
    (void)pthread_cond_broadcast(&t->cond);
    (void)pthread_mutex_unlock(&t->lock);
}

static void *run(void *arg)
{
    struct th_ticker *t = arg;
    (void)pthread_mutex_lock(&t->lock);
    while (!t->stop) {
        int64_t now = th_mono_ms();
        int64_t next = INT64_MAX;
        for (struct th_tick *k = t->list.next; k != &t->list; k = k->next) {
            if (k->due_ms <= now) {
                k->due_ms = INT64_MAX; /* once, until it is set again */
                k->fn(k->arg);
            }
            if (k->due_ms < next) {
                next = k->due_ms;
            }
        }
        t->next_ms = next;
        if (next > th_mono_ms()) {
            th_clock_cond_wait(&t->cond, &t->lock, next);
        }
    }
    (void)pthread_mutex_unlock(&t->lock);
    return NULL;
}

struct th_ticker *th_ticker_new(void)
{
    struct th_ticker *t = TH_NEW(struct th_ticker);
    (void)pthread_mutex_init(&t->lock, NULL);
    (void)pthread_cond_init(&t->cond, NULL);
    t->list.prev = t->list.next = &t->list;
    t->next_ms = INT64_MAX;
    t->clock = (struct th_clock_watch){.fn = clock_moved, .arg = t};
    th_clock_watch_add(&t->clock);
    TH_ASSERT(pthread_create(&t->thread, NULL, run, t) == 0);
    return t;
}

void th_ticker_free(struct th_ticker *t)
{
    if (!t) {
        return;
    }
    (void)pthread_mutex_lock(&t->lock);
    TH_ASSERT(t->list.next == &t->list);
    t->stop = true;
    (void)pthread_cond_broadcast(&t->cond);
    (void)pthread_mutex_unlock(&t->lock);
    (void)pthread_join(t->thread, NULL);
    th_clock_watch_del(&t->clock);
    (void)pthread_cond_destroy(&t->cond);
    (void)pthread_mutex_destroy(&t->lock);
    free(t);
}

static int64_t round_up(int64_t due)
{
    return due == INT64_MAX ? due : (due + TICK_MS - 1) / TICK_MS * TICK_MS;
}

static void set_locked(struct th_ticker *t, struct th_tick *k, int64_t due_ms)
{
    k->due_ms = round_up(due_ms);
    if (k->due_ms < t->next_ms) {
        t->next_ms = k->due_ms;
        (void)pthread_cond_broadcast(&t->cond);
    }
}

void th_tick_add(struct th_ticker *t, struct th_tick *k, int64_t due_ms, th_apiwatch_wake_fn *fn,
                 void *arg)
{
    (void)pthread_mutex_lock(&t->lock);
    k->fn = fn;
    k->arg = arg;
    k->prev = t->list.prev;
    k->next = &t->list;
    k->prev->next = k;
    t->list.prev = k;
    set_locked(t, k, due_ms);
    (void)pthread_mutex_unlock(&t->lock);
}

void th_tick_set(struct th_ticker *t, struct th_tick *k, int64_t due_ms)
{
    (void)pthread_mutex_lock(&t->lock);
    set_locked(t, k, due_ms);
    (void)pthread_mutex_unlock(&t->lock);
}

void th_tick_del(struct th_ticker *t, struct th_tick *k)
{
    (void)pthread_mutex_lock(&t->lock);
    if (k->next) {
        k->prev->next = k->next;
        k->next->prev = k->prev;
        k->prev = k->next = NULL;
    }
    (void)pthread_mutex_unlock(&t->lock);
}
