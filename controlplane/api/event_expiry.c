/* Events end an hour after they were last written (--event-ttl), as upstream.
 *
 * One thread that sleeps until the oldest event can be due. An event's last write is the latest time
 * in it: creation, last observation, or an entry of managedFields.
 */
#include "controlplane/api/priv.h"

#include "base/clock.h"
#include "base/log.h"

enum { SHORTEST_SLEEP_MS = 1000, PAGE = 500 };

struct th_event_expiry {
    struct th_store *store;
    int64_t ttl_ms;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool stop;
};

static void later(int64_t *latest, const char *time)
{
    int64_t us;
    if (time && th_time_parse(time, &us, NULL) >= 0 && us / 1000 > *latest) {
        *latest = us / 1000;
    }
}

static int64_t last_write_ms(const struct th_json *e)
{
    static const char *const paths[] = {"metadata.creationTimestamp", "lastTimestamp",
                                        "series.lastObservedTime"};
    int64_t latest = 0;
    for (size_t i = 0; i < TH_ARRAY_LEN(paths); i++) {
        later(&latest, th_json_path_str(e, paths[i]));
    }
    const struct th_json *fields = th_json_path(e, "metadata.managedFields");
    for (size_t i = 0; i < th_json_len(fields); i++) {
        later(&latest, th_json_path_str(th_json_at(fields, i), "time"));
    }
    return latest;
}

/* Removes what is due; gives when the next one may be. */
static int64_t sweep(struct th_event_expiry *x)
{
    int64_t now = th_now_ms(), next = now + x->ttl_ms;
    th_autofree char *after = NULL;
    for (bool more = true; more;) {
        TH_CLEANUP(th_store_list_done) struct th_store_list l = {.n = 0};
        if (th_store_range(x->store, "core/events/", after, PAGE, 0, &l, NULL) < 0) {
            return next;
        }
        for (size_t i = 0; i < l.n; i++) {
            TH_AUTO(th_json) struct th_json *e = NULL;
            if (th_json_parse(l.objs[i]->bytes, l.objs[i]->n, NULL, &e, NULL) < 0) {
                continue;
            }
            int64_t due = last_write_ms(e) + x->ttl_ms;
            if (due > now) {
                next = due < next ? due : next;
                continue;
            }
            struct th_store_write w = {
                .op = TH_STORE_DELETE, .key = l.objs[i]->key, .expect_rv = l.objs[i]->rv};
            TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
            if (th_store_commit(x->store, &w, 1, NULL, &err) < 0 &&
                err.reason != TH_R_CONFLICT && err.reason != TH_R_NOT_FOUND) {
                th_debug("api", "event not removed", "error=%s", th_log_q(err.msg));
            }
        }
        more = l.more && l.n > 0;
        free(after);
        after = more ? th_xstrdup(l.objs[l.n - 1]->key) : NULL;
    }
    return next;
}

static void *run(void *arg)
{
    struct th_event_expiry *x = arg;
    (void)pthread_mutex_lock(&x->lock);
    while (!x->stop) {
        (void)pthread_mutex_unlock(&x->lock);
        int64_t wait = sweep(x) - th_now_ms();
        int64_t until = th_mono_ms() + (wait > SHORTEST_SLEEP_MS ? wait : SHORTEST_SLEEP_MS);
        (void)pthread_mutex_lock(&x->lock);
        while (!x->stop && th_mono_ms() < until) {
            th_clock_cond_wait(&x->cond, &x->lock, until);
        }
    }
    (void)pthread_mutex_unlock(&x->lock);
    return NULL;
}

struct th_event_expiry *th_event_expiry_new(struct th_store *store, int64_t ttl_ms)
{
    struct th_event_expiry *x = TH_NEW(struct th_event_expiry);
    x->store = store;
    x->ttl_ms = ttl_ms;
    (void)pthread_mutex_init(&x->lock, NULL);
    (void)pthread_cond_init(&x->cond, NULL);
    int r = pthread_create(&x->thread, NULL, run, x);
    TH_ASSERT(r == 0);
    return x;
}

void th_event_expiry_free(struct th_event_expiry *x)
{
    if (!x) {
        return;
    }
    (void)pthread_mutex_lock(&x->lock);
    x->stop = true;
    (void)pthread_cond_signal(&x->cond);
    (void)pthread_mutex_unlock(&x->lock);
    (void)pthread_join(x->thread, NULL);
    (void)pthread_cond_destroy(&x->cond);
    (void)pthread_mutex_destroy(&x->lock);
    free(x);
}
