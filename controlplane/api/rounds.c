/* Bells and rounds, for those who keep something true or a copy of something.
 *
 * They do not follow events one by one: whatever happens, they look at the present state of what they
 * keep and do what is missing. So a watch serves as a bell only, its events are thrown away, and many
 * of them that come during one round make one more round. A round that could not do everything
 * says when to try again; a wake comes before that.
 *
 * Time here is the machine's, also under a simulated clock: what is waited for are others (servers,
 * writes), which take real time.
 */
#include "controlplane/api/rounds.h"

#include "base/clock.h"
#include "base/log.h"

static void no_wake(void *arg)
{
    (void)arg; /* we look when we are asked */
}

bool th_bell_rang(struct th_store *s, const char *prefix, th_watch_wake_fn *wake, void *arg,
                  struct th_watch **bell)
{
    bool rang = !*bell, cut = false;
    struct th_event *e;
    while (*bell && (e = th_watch_next(*bell, &cut))) {
        rang = true;
        th_event_unref(e);
    }
    if (cut) {
        th_watch_close(*bell);
        *bell = NULL;
        rang = true;
    }
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    wake = wake ? wake : no_wake;
    if (!*bell && th_watch_open(s, prefix, th_store_rv(s), wake, arg, bell, &err) < 0) {
        *bell = NULL;
        th_warn("api", "objects cannot be watched", "prefix=%s error=%s", prefix,
                th_log_q(err.msg));
    }
    return rang;
}

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
    (void)th_bell_rang(s, prefix, th_rounds_wake, r, watch);
}
