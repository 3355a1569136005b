/* Watches.
 *
 * Problem: thousands of watchers, each interested in one resource or one namespace, must all get
 * each event of theirs once and in order, starting from any revision, while a slow one costs
 * nobody else anything.
 *
 * Design: watchers sit in buckets by the whole path segments of their prefix: "group/plural/ns/",
 * "group/plural/" or "" for everything shorter. An event looks into three buckets, whatever the
 * number of watchers elsewhere, and puts one more reference to itself into each queue. The event
 * is shared, and so is its serialized frame.
 *
 * Joining: under hub.lock, which the writer holds while it publishes, a new watcher takes what the
 * ring has after its revision and enters its bucket; nothing can come between. If it begins before
 * the ring, the stretch up to now is read from SQLite in its own thread, in chunks, while new
 * events gather in its queue. If compaction overtakes that reading, the watcher is cut off and
 * lists again.
 *
 * Slow watchers: a queue over TH_LIMIT_WATCH_QUEUE events or TH_LIMIT_WATCH_QUEUE_B bytes is
 * emptied and marked as cut; it gets nothing more. Upstream closes the channel the same way.
 *
 * Progress: published_rv is stored after every queue has got the events up to it. It is read
 * BEFORE a queue is found empty, so all up to it has gone out to the client when the queue is
 * empty.
 */
#include "base/log.h"
#include "controlplane/store/store_priv.h"

#include <inttypes.h>

/* Events of one read of history. */
#define HISTORY_CHUNK 256

struct bucket {
    struct th_watch **v;
    size_t n, cap;
};

struct th_watch {
    struct th_store *s;
    char *prefix;
    size_t prefix_n;
    th_watch_wake_fn *wake;
    void *arg;
    /* hub.lock */
    struct bucket *bucket;
    char *bucket_key;
    size_t at; /* place in the bucket */
    int64_t from_rv;
    /* the reader's own */
    int64_t hist_at, hist_to; /* history still to be read: hist_at < rv <= hist_to */
    int64_t progress;
    /* lock */
    pthread_mutex_t lock;
    struct th_event **v; /* circular, cap is a power of two */
    size_t head, n, cap, bytes;
    size_t spare_n, spare_b; /* what the start put into the queue does not count */
    bool cut;
    /* history that was read and not given out; the reader's own */
    struct th_event *hist[HISTORY_CHUNK];
    size_t hist_i, hist_n;
};

static void bucket_free(void *p)
{
    struct bucket *b = p;
    free(b->v);
    free(b);
}

void th_hub_init(struct th_hub *h)
{
    pthread_mutex_init(&h->lock, NULL);
    th_hmap_init(&h->buckets, bucket_free);
}

void th_hub_done(struct th_hub *h)
{
    th_hmap_done(&h->buckets);
    pthread_mutex_destroy(&h->lock);
}

/* Length of the first `segments` path segments with their slashes; 0 when there are fewer. */
static size_t segments_len(const char *s, int segments)
{
    const char *p = s;
    while (segments-- > 0) {
        p = strchr(p, '/');
        if (!p) {
            return 0;
        }
        p++;
    }
    return (size_t)(p - s);
}

/* ---- The queue; watch.lock held ---- */

static void queue_push(struct th_watch *w, struct th_event *ev)
{
    if (w->n == w->cap) {
        size_t cap = w->cap ? w->cap * 2 : 8;
        struct th_event **v = th_xmalloc(cap * sizeof(struct th_event *));
        for (size_t i = 0; i < w->n; i++) {
            v[i] = w->v[(w->head + i) & (w->cap - 1)];
        }
        free(w->v);
        w->v = v;
        w->cap = cap;
        w->head = 0;
    }
    w->v[(w->head + w->n++) & (w->cap - 1)] = th_event_ref(ev);
    w->bytes += ev->obj->n;
}

static struct th_event *queue_pop(struct th_watch *w)
{
    if (w->n == 0) {
        return NULL;
    }
    struct th_event *ev = w->v[w->head];
    w->head = (w->head + 1) & (w->cap - 1);
    w->n--;
    w->bytes -= ev->obj->n;
    if (w->n == 0 && w->cap > 64) { /* thousands of idle watchers keep no big queues */
        free(w->v);
        w->v = NULL;
        w->cap = w->head = 0;
    }
    if (w->spare_n > 0) {
        w->spare_n--;
        w->spare_b -= ev->obj->n < w->spare_b ? ev->obj->n : w->spare_b;
    }
    return ev;
}

static void queue_drop(struct th_watch *w)
{
    struct th_event *ev;
    while ((ev = queue_pop(w))) {
        th_event_unref(ev);
    }
}

/* ---- Publishing; hub.lock held ---- */

static void offer(struct th_watch *w, struct th_event *ev)
{
    if (ev->rv <= w->from_rv || strncmp(ev->obj->key, w->prefix, w->prefix_n) != 0) {
        return;
    }
    bool wake = false;
    pthread_mutex_lock(&w->lock);
    if (!w->cut) {
        wake = w->n == 0;
        queue_push(w, ev);
        if (w->n > TH_LIMIT_WATCH_QUEUE + w->spare_n ||
            w->bytes > TH_LIMIT_WATCH_QUEUE_B + w->spare_b) {
            queue_drop(w);
            w->cut = wake = true;
        }
    }
    pthread_mutex_unlock(&w->lock);
    if (wake && w->wake) {
        w->wake(w->arg);
    }
}

static void offer_bucket(struct th_hub *h, struct th_event *ev, size_t key_n)
{
    struct bucket *b = th_hmap_get_n(&h->buckets, ev->obj->key, key_n);
    for (size_t i = 0; b && i < b->n; i++) {
        offer(b->v[i], ev);
    }
}

void th_hub_publish(struct th_hub *h, struct th_event *ev)
{
    if (h->watchers == 0) {
        return;
    }
    const char *key = ev->obj->key;
    size_t resource = segments_len(key, 2);
    size_t namespace = segments_len(key, 3);
    offer_bucket(h, ev, 0);
    if (resource > 0) {
        offer_bucket(h, ev, resource);
    }
    if (namespace > 0) {
        offer_bucket(h, ev, namespace);
    }
}

/* ---- Opening and closing ---- */

static void join(struct th_hub *h, struct th_watch *w)
{
    size_t n = segments_len(w->prefix, 3);
    n = n > 0 ? n : segments_len(w->prefix, 2);
    w->bucket_key = th_xstrndup(w->prefix, n);
    struct bucket *b = th_hmap_get(&h->buckets, w->bucket_key);
    if (!b) {
        b = TH_NEW(struct bucket);
        th_hmap_set(&h->buckets, w->bucket_key, b);
    }
    b->v = th_xgrow(b->v, &b->cap, b->n + 1, sizeof(struct th_watch *));
    w->bucket = b;
    w->at = b->n;
    b->v[b->n++] = w;
    h->watchers++;
}

static void leave(struct th_hub *h, struct th_watch *w)
{
    struct bucket *b = w->bucket;
    b->v[w->at] = b->v[--b->n];
    b->v[w->at]->at = w->at;
    if (b->n == 0) {
        bucket_free(th_hmap_remove(&h->buckets, w->bucket_key));
    }
    h->watchers--;
}

/* Fills the queue from the ring, or leaves the past to SQLite. hub.lock held. */
static int start_from(struct th_store *s, struct th_watch *w, struct th_err *err)
{
    pthread_rwlock_rdlock(&s->lock);
    int r = 0;
    if (w->from_rv < s->compacted_rv) {
        r = th_fail(err, TH_R_EXPIRED, "too old resource version: %" PRId64 " (%" PRId64 ")",
                    w->from_rv, s->compacted_rv);
    } else if (w->from_rv < s->rv) {
        bool in_ring = s->ring.n > 0 && th_ring_at(&s->ring, 0)->ev->rv <= w->from_rv + 1;
        if (in_ring) {
            for (size_t i = th_ring_after(&s->ring, w->from_rv); i < s->ring.n; i++) {
                struct th_event *ev = th_ring_at(&s->ring, i)->ev;
                if (strncmp(ev->obj->key, w->prefix, w->prefix_n) == 0) {
                    queue_push(w, ev);
                }
            }
            w->spare_n = w->n;
            w->spare_b = w->bytes;
        } else {
            TH_ASSERT(s->db); /* without a database, the ring reaches back to compacted_rv */
            w->hist_at = w->from_rv;
            w->hist_to = s->rv;
        }
        w->from_rv = s->rv;
    }
    pthread_rwlock_unlock(&s->lock);
    return r;
}

static void watch_free(struct th_watch *w)
{
    queue_drop(w);
    while (w->hist_i < w->hist_n) {
        th_event_unref(w->hist[w->hist_i++]);
    }
    free(w->v);
    free(w->prefix);
    free(w->bucket_key);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

int th_watch_open(struct th_store *s, const char *prefix, int64_t from_rv, th_watch_wake_fn *wake,
                  void *arg, struct th_watch **ret, struct th_err *err)
{
    struct th_watch *w = TH_NEW(struct th_watch);
    w->s = s;
    w->prefix = th_xstrdup(prefix);
    w->prefix_n = strlen(prefix);
    w->wake = wake;
    w->arg = arg;
    w->from_rv = w->progress = from_rv;
    pthread_mutex_init(&w->lock, NULL);
    pthread_mutex_lock(&s->hub.lock);
    int r = 0;
    if (s->hub.watchers >= TH_LIMIT_WATCHERS) {
        r = th_fail(err, TH_R_TOO_MANY_REQUESTS, "too many watches: %d are open",
                    TH_LIMIT_WATCHERS);
    }
    r = r < 0 ? r : start_from(s, w, err);
    if (r == 0) {
        join(&s->hub, w);
    }
    pthread_mutex_unlock(&s->hub.lock);
    if (r < 0) {
        watch_free(w);
        return r;
    }
    *ret = w;
    return 0;
}

void th_watch_close(struct th_watch *w)
{
    if (!w) {
        return;
    }
    pthread_mutex_lock(&w->s->hub.lock);
    leave(&w->s->hub, w);
    pthread_mutex_unlock(&w->s->hub.lock);
    watch_free(w);
}

/* ---- Reading ---- */

static bool take_history(void *arg, struct th_event *ev)
{
    struct th_watch *w = arg;
    w->hist[w->hist_n++] = ev;
    return w->hist_n < HISTORY_CHUNK;
}

/* The next event of the past, or NULL when the past is over or was compacted (cut). */
static struct th_event *history_next(struct th_watch *w)
{
    if (w->hist_i == w->hist_n && w->hist_at < w->hist_to) {
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        w->hist_i = w->hist_n = 0;
        if (th_db_events(w->s->db, w->prefix, w->hist_at, w->hist_to, take_history, w, &w->hist_at,
                         &err) < 0) {
            th_debug("store", "watch cut off", "err=%s", th_log_q(err.msg));
            while (w->hist_n > 0) {
                th_event_unref(w->hist[--w->hist_n]);
            }
            w->hist_at = w->hist_to = 0;
            pthread_mutex_lock(&w->lock);
            queue_drop(w);
            w->cut = true;
            pthread_mutex_unlock(&w->lock);
            return NULL;
        }
    }
    return w->hist_i < w->hist_n ? w->hist[w->hist_i++] : NULL;
}

struct th_event *th_watch_next(struct th_watch *w, bool *ret_cut)
{
    struct th_event *ev = history_next(w);
    bool cut = false;
    if (!ev) {
        int64_t published = __atomic_load_n(&w->s->published_rv, __ATOMIC_ACQUIRE);
        pthread_mutex_lock(&w->lock);
        ev = queue_pop(w);
        cut = w->cut;
        pthread_mutex_unlock(&w->lock);
        if (!ev && !cut && published > w->progress) {
            w->progress = published;
        }
    }
    if (ev) {
        w->progress = ev->rv;
    }
    if (ret_cut) {
        *ret_cut = cut;
    }
    return ev;
}

bool th_watch_cut(struct th_watch *w)
{
    pthread_mutex_lock(&w->lock);
    bool cut = w->cut;
    pthread_mutex_unlock(&w->lock);
    return cut;
}

int64_t th_watch_progress(struct th_watch *w)
{
    return w->progress;
}

void th_store_settle(struct th_store *s)
{
    pthread_mutex_lock(&s->hub.lock);
    pthread_mutex_unlock(&s->hub.lock);
}
