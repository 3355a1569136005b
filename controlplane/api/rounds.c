/* Rounds: the thread of those who keep something true.
 *
 * A keeper does not follow events one by one: whatever happens, it looks at the present state of what
 * it keeps and does what is missing. So a watch serves as a bell only, its events are thrown away, and
 * many of them that come during one round make one more round. A round that could not do everything
 * says when to try again; a wake comes before that.
 *
 * Time here is the machine's, also under a simulated clock: what is waited for are others (servers,
 * writes), which take real time.
 */
#include "controlplane/api/rounds.h"

#include "base/clock.h"

static void wait_for_next(struct th_rounds *r, int64_t due_ms)
{
    const struct timespec until = {.tv_sec = due_ms / 1000, .tv_nsec = due_ms % 1000 * 1000000};
    int e = 0;
    while (!r->woken && !r->stop && e == 0) {
        e = due_ms < INT64_MAX
                ? pthread_cond_clockwait(&r->cond, &r->lock, CLOCK_MONOTONIC, &until)
                : pthread_cond_wait(&r->cond, &r->lock);
    }
}

static void *run(void *arg)
{
    struct th_rounds *r = arg;
    bool woken = true;
    for (;;) {
        int64_t due_ms = r->fn(r->arg, woken);
        (void)pthread_mutex_lock(&r->lock);
        wait_for_next(r, due_ms);
        woken = r->woken;
        r->woken = false;
        bool stop = r->stop;
        (void)pthread_mutex_unlock(&r->lock);
        if (stop) {
            return NULL;
        }
    }
}

void th_rounds_start(struct th_rounds *r, th_rounds_fn *fn, void *arg)
{
    *r = (struct th_rounds){.fn = fn, .arg = arg};
    (void)pthread_mutex_init(&r->lock, NULL);
    (void)pthread_cond_init(&r->cond, NULL);
    int e = pthread_create(&r->thread, NULL, run, r);
    TH_ASSERT(e == 0);
}

void th_rounds_wake(void *arg)
{
    struct th_rounds *r = arg;
    (void)pthread_mutex_lock(&r->lock);
    r->woken = true;
    (void)pthread_cond_signal(&r->cond);
    (void)pthread_mutex_unlock(&r->lock);
}

void th_rounds_stop(struct th_rounds *r, struct th_watch **watches, size_t n)
{
    (void)pthread_mutex_lock(&r->lock);
    r->stop = true;
    (void)pthread_cond_signal(&r->cond);
    (void)pthread_mutex_unlock(&r->lock);
    (void)pthread_join(r->thread, NULL);
    for (size_t i = 0; i < n; i++) { /* before what they signal goes */
        if (watches[i]) {
            th_watch_close(watches[i]);
        }
    }
    (void)pthread_cond_destroy(&r->cond);
    (void)pthread_mutex_destroy(&r->lock);
}

void th_rounds_follow(struct th_rounds *r, struct th_store *s, const char *prefix,
                      struct th_watch **watch)
{
    struct th_event *e;
    bool cut = false;
    while (*watch && (e = th_watch_next(*watch, &cut))) {
        th_event_unref(e);
    }
    if (cut) {
        th_watch_close(*watch);
        *watch = NULL;
    }
    if (!*watch && th_watch_open(s, prefix, th_store_rv(s), th_rounds_wake, r, watch, NULL) < 0) {
        *watch = NULL;
    }
}
