/*
 * The scheduling queue. A map of waiting pods scanned for the best one: a scan of some thousand
 * small entries costs less than one placement, and no heap has to be kept right under removals.
 *
 * A wake that comes while a pod is being tried must not be lost: the pod was tried against a state
 * before the change. So each pod notes the number of wakes at its pop, and one that saw fewer than
 * there are when it comes back does not wait for another.
 *
 * Waiting pods are tried again after UNSCHEDULABLE_MAX_MS even if nothing was noticed.
 */
#include "controlplane/scheduler/queue.h"
#include "base/clock.h"
#include "base/hmap.h"
#include <pthread.h>

#define BACKOFF_FIRST_MS 1000
#define BACKOFF_MAX_MS 10000
#define UNSCHEDULABLE_MAX_MS 300000

struct waiting {
    int64_t priority;
    uint64_t order;    /* of arrival */
    int64_t ready_ms;  /* monotonic; back-off ends */
    int64_t latest_ms; /* monotonic; tried again at the latest, when `held` */
    uint64_t seen_wakes;
    int attempts;
    bool held; /* waits for a change */
    bool popped;
};

struct th_schedq {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    struct th_hmap pods; /* lock */
    uint64_t next_order, wakes;
    bool stop;
    struct th_clock_watch watch;
};

static void clock_moved(void *arg)
{
    struct th_schedq *q = arg;
    pthread_mutex_lock(&q->lock);
    pthread_cond_broadcast(&q->cond);
    pthread_mutex_unlock(&q->lock);
}

struct th_schedq *th_schedq_new(void)
{
    struct th_schedq *q = TH_NEW(struct th_schedq);
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->cond, NULL);
    th_hmap_init(&q->pods, free);
    q->watch = (struct th_clock_watch){.fn = clock_moved, .arg = q};
    th_clock_watch_add(&q->watch);
    return q;
}

void th_schedq_free(struct th_schedq *q)
{
    th_clock_watch_del(&q->watch);
    th_hmap_done(&q->pods);
    pthread_cond_destroy(&q->cond);
    pthread_mutex_destroy(&q->lock);
    free(q);
}

void th_schedq_add(struct th_schedq *q, const char *key, int64_t priority)
{
    pthread_mutex_lock(&q->lock);
    struct waiting *w = th_hmap_get(&q->pods, key);
    if (!w) {
        w = TH_NEW(struct waiting);
        w->order = q->next_order++;
        th_hmap_set(&q->pods, key, w);
    }
    w->priority = priority;
    w->held = false; /* it may have changed into one that fits */
    pthread_cond_signal(&q->cond);
    pthread_mutex_unlock(&q->lock);
}

void th_schedq_remove(struct th_schedq *q, const char *key)
{
    pthread_mutex_lock(&q->lock);
    free(th_hmap_remove(&q->pods, key));
    pthread_mutex_unlock(&q->lock);
}

/* The best pod that may be tried, or NULL with the time until one may. */
static const char *best(struct th_schedq *q, int64_t now, int64_t *ret_wait_ms)
{
    struct th_hmap_entry *e, *found = NULL;
    *ret_wait_ms = -1;
    for (size_t it = 0; (e = th_hmap_next(&q->pods, &it));) {
        struct waiting *w = e->value;
        if (w->popped) {
            continue;
        }
        int64_t at = w->held ? w->latest_ms : w->ready_ms;
        if (at > now) {
            *ret_wait_ms = *ret_wait_ms < 0 || at - now < *ret_wait_ms ? at - now : *ret_wait_ms;
            continue;
        }
        const struct waiting *b = found ? found->value : NULL;
        if (!b || w->priority > b->priority ||
            (w->priority == b->priority && w->order < b->order)) {
            found = e;
        }
    }
    return found ? found->key : NULL;
}

char *th_schedq_pop(struct th_schedq *q)
{
    char *key = NULL;
    pthread_mutex_lock(&q->lock);
    while (!q->stop && !key) {
        int64_t left = -1;
        const char *found = best(q, th_mono_ms(), &left);
        if (!found) {
            th_clock_cond_wait(&q->cond, &q->lock, left < 0 ? INT64_MAX : th_mono_ms() + left);
            continue;
        }
        key = th_xstrdup(found);
        struct waiting *w = th_hmap_get(&q->pods, found);
        w->popped = true;
        w->seen_wakes = q->wakes;
        w->attempts++;
    }
    pthread_mutex_unlock(&q->lock);
    return key;
}

void th_schedq_unschedulable(struct th_schedq *q, const char *key, bool wait_for_change)
{
    pthread_mutex_lock(&q->lock);
    struct waiting *w = th_hmap_get(&q->pods, key);
    if (w) {
        int64_t backoff = BACKOFF_FIRST_MS;
        for (int i = 1; i < w->attempts && backoff < BACKOFF_MAX_MS; i++) {
            backoff *= 2;
        }
        int64_t now = th_mono_ms();
        w->ready_ms = now + (backoff < BACKOFF_MAX_MS ? backoff : BACKOFF_MAX_MS);
        w->latest_ms = now + UNSCHEDULABLE_MAX_MS;
        w->held = wait_for_change && w->seen_wakes == q->wakes;
        w->popped = false;
        pthread_cond_signal(&q->cond);
    }
    pthread_mutex_unlock(&q->lock);
}

void th_schedq_wait(struct th_schedq *q, const char *key)
{
    pthread_mutex_lock(&q->lock);
    struct waiting *w = th_hmap_get(&q->pods, key);
    if (w) {
        w->attempts--;
        w->ready_ms = th_mono_ms();
        w->latest_ms = w->ready_ms + UNSCHEDULABLE_MAX_MS;
        w->held = w->seen_wakes == q->wakes;
        w->popped = false;
        pthread_cond_signal(&q->cond);
    }
    pthread_mutex_unlock(&q->lock);
}

void th_schedq_wake(struct th_schedq *q)
{
    struct th_hmap_entry *e;
    pthread_mutex_lock(&q->lock);
    q->wakes++;
    for (size_t it = 0; (e = th_hmap_next(&q->pods, &it));) {
        ((struct waiting *)e->value)->held = false;
    }
    pthread_cond_signal(&q->cond);
    pthread_mutex_unlock(&q->lock);
}

void th_schedq_shutdown(struct th_schedq *q)
{
    pthread_mutex_lock(&q->lock);
    q->stop = true;
    pthread_cond_broadcast(&q->cond);
    pthread_mutex_unlock(&q->lock);
}
