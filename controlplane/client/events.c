/* The recorder of Events.
 *
 * Problem: controllers and nodes say what they do as Event objects. Saying it must never hold up
 * the work, and a loop that fails a thousand times must not write a thousand objects.
 *
 * Design: th_event_record builds the Event in the caller's thread and puts it into a bounded
 * queue; one thread writes them. What arrives is correlated as client-go's EventCorrelator does
 * it, so that `kubectl describe` shows the same lines:
 *
 *   - the spam filter: per source and object a bucket of 25 events, refilled by one in 5
 *     minutes;
 *   - aggregation: from the tenth different message of one (object, type, reason) within 10
 *     minutes on, further ones become one Event "(combined from similar events): ...";
 *   - counting: the same Event again is a PATCH of count and lastTimestamp.
 *
 * What is remembered for this is bounded: at CACHE_MAX entries, half of a map is forgotten.
 *
 * An Event whose namespace is being deleted, or which the server refuses for another reason, is
 * dropped with a line in the log. When the server is away the thread tries a few times, the queue
 * fills, and newer events are dropped with a line that counts them.
 */
#include "base/clock.h"
#include "base/hmap.h"
#include "base/log.h"
#include "base/rand.h"
#include "controlplane/client/client.h"

#include <inttypes.h>
#include <pthread.h>

#define QUEUE_MAX 1000
#define CACHE_MAX 4096
#define SPAM_BURST 25.0
#define SPAM_REFILL_MS (300.0 * 1000.0)
#define AGGREGATE_AT 10
#define WINDOW_MS (600 * INT64_C(1000))
#define TRIES 12
#define RETRY_MS 1000

struct item {
    struct item *next;
    struct th_json *event; /* as to be created */
    int64_t now_ms;
};

/* One source and object: how many events it may still write. */
struct bucket {
    double tokens;
    int64_t at_ms;
};
/* One (object, type, reason): how many different messages lately. */
struct group {
    struct th_hmap messages; /* a set */
    int64_t at_ms;
};
/* One Event that was written. */
struct written {
    char *ns, *name;
    int64_t count, at_ms;
};

struct th_recorder {
    struct th_client *c;
    char *component, *host;
    pthread_t thread;
    struct th_clock_watch clock_watch;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    struct item *first, **last; /* lock */
    size_t n, dropped;          /* lock */
    bool stop;                  /* lock */
    uint64_t serial;            /* atomic */
    /* the thread's own */
    struct th_hmap buckets, groups, seen;
};

static void group_free(void *p)
{
    struct group *g = p;
    th_hmap_done(&g->messages);
    free(g);
}

static void written_free(void *p)
{
    struct written *w = p;
    free(w->ns);
    free(w->name);
    free(w);
}

/* ---- Correlation; the thread's own ---- */

static const char *str(const struct th_json *e, const char *path)
{
    const char *s = th_json_path_str(e, path);
    return s ? s : "";
}

static char *object_key(const struct th_json *e)
{
    return th_xasprintf("%s\x01%s\x01%s\x01%s\x01%s\x01%s\x01%s\x01%s", str(e, "source.component"),
                        str(e, "source.host"), str(e, "involvedObject.kind"),
                        str(e, "involvedObject.namespace"), str(e, "involvedObject.name"),
                        str(e, "involvedObject.uid"), str(e, "involvedObject.apiVersion"),
                        str(e, "involvedObject.fieldPath"));
}

/* Keeps a map below its bound: half of it goes, whichever half, since all of it is only a memory of
 * what was lately. */
static void bound(struct th_hmap *m)
{
    if (m->n < CACHE_MAX) {
        return;
    }
    th_autostrv struct th_strv drop = TH_STRV_INIT;
    struct th_hmap_entry *e;
    for (size_t it = 0; drop.n < CACHE_MAX / 2 && (e = th_hmap_next(m, &it));) {
        th_strv_add(&drop, e->key);
    }
    for (size_t i = 0; i < drop.n; i++) {
        void *v = th_hmap_remove(m, drop.v[i]);
        if (m->free_fn && v) {
            m->free_fn(v);
        }
    }
}

/* The token bucket; false: too many events about this object. */
static bool spam_ok(struct th_recorder *r, const char *object, int64_t now_ms)
{
    struct bucket *b = th_hmap_get(&r->buckets, object);
    if (!b) {
        bound(&r->buckets);
        b = TH_NEW(struct bucket);
        b->tokens = SPAM_BURST;
        b->at_ms = now_ms;
        th_hmap_set(&r->buckets, object, b);
    }
    b->tokens += (double)(now_ms - b->at_ms) / SPAM_REFILL_MS;
    b->tokens = b->tokens > SPAM_BURST ? SPAM_BURST : b->tokens;
    b->at_ms = now_ms;
    if (b->tokens < 1.0) {
        return false;
    }
    b->tokens -= 1.0;
    return true;
}

/* True when this message is one too many of its kind and is to be folded into one Event. */
static bool aggregated(struct th_recorder *r, const char *group, const char *message,
                       int64_t now_ms)
{
    struct group *g = th_hmap_get(&r->groups, group);
    if (!g) {
        bound(&r->groups);
        g = TH_NEW(struct group);
        th_hmap_init(&g->messages, NULL);
        th_hmap_set(&r->groups, group, g);
    } else if (now_ms - g->at_ms > WINDOW_MS) {
        th_hmap_clear(&g->messages);
    }
    g->at_ms = now_ms;
    th_hmap_set(&g->messages, message, NULL);
    if (g->messages.n < AGGREGATE_AT) {
        return false;
    }
    (void)th_hmap_remove(&g->messages, message); /* the set grows no further */
    return true;
}

/* ---- Writing ---- */

/* Waits ms or until the recorder stops; true when it stops. */
static bool pause_ms(struct th_recorder *r, int64_t ms)
{
    int64_t until = th_mono_ms() + ms;
    pthread_mutex_lock(&r->lock);
    while (!r->stop && th_mono_ms() < until) {
        th_clock_cond_wait(&r->cond, &r->lock, until);
    }
    bool stop = r->stop;
    pthread_mutex_unlock(&r->lock);
    return stop;
}

static int count_up(struct th_recorder *r, struct written *w, const struct item *it,
                    struct th_err *err)
{
    TH_AUTO(th_json)
    struct th_json *patch = th_json_build(
        "{'count':%d,'lastTimestamp':%s,'message':%s}", w->count + 1,
        th_json_path_str(it->event, "lastTimestamp"), th_json_path_str(it->event, "message"));
    const struct th_patch_opts o = {.kind = TH_PATCH_STRATEGIC};
    TH_TRY(th_client_patch(r->c, TH_GVR_EVENTS, w->ns, w->name, NULL, &o, patch, NULL, err));
    w->count++;
    w->at_ms = it->now_ms;
    return 0;
}

static int create(struct th_recorder *r, const char *key, const struct item *it, struct th_err *err)
{
    const char *ns = th_json_path_str(it->event, "metadata.namespace");
    TH_TRY(th_client_create(r->c, TH_GVR_EVENTS, ns, it->event, NULL, err));
    struct written *w = TH_NEW(struct written);
    w->ns = th_xstrdup(ns);
    w->name = th_xstrdup(th_json_path_str(it->event, "metadata.name"));
    w->count = 1;
    w->at_ms = it->now_ms;
    bound(&r->seen);
    th_hmap_set(&r->seen, key, w);
    return 0;
}

static int write_once(struct th_recorder *r, const char *key, const struct item *it,
                      struct th_err *err)
{
    struct written *w = th_hmap_get(&r->seen, key);
    if (w) {
        int rc = count_up(r, w, it, err);
        if (rc != -TH_R_NOT_FOUND) {
            return rc;
        }
        th_err_done(err); /* it went away with time: begin a new one */
    }
    return create(r, key, it, err);
}

static bool away(int rc)
{
    return rc == -TH_R_UNAVAILABLE || rc == -TH_R_TIMEOUT || rc == -TH_R_TOO_MANY_REQUESTS ||
           rc == -TH_R_SERVER_TIMEOUT || rc == -TH_R_IO;
}

static void write_event(struct th_recorder *r, const char *key, const struct item *it)
{
    for (int try = 1;; try++) {
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        int rc = write_once(r, key, it, &err);
        if (rc == 0) {
            return;
        }
        if (!away(rc) || try == TRIES || pause_ms(r, RETRY_MS)) {
            th_info("events", "event dropped", "reason=%s message=%s err=%s",
                    str(it->event, "reason"), th_log_q(str(it->event, "message")),
                    th_log_q(err.msg));
            return;
        }
    }
}

static void handle(struct th_recorder *r, struct item *it)
{
    th_autofree char *object = object_key(it->event);
    th_autofree char *group = th_xasprintf(
        "%s\x01%s\x01%s\x01%s\x01%s", object, str(it->event, "type"), str(it->event, "reason"),
        str(it->event, "reportingComponent"), str(it->event, "reportingInstance"));
    const char *message = str(it->event, "message");
    bool fold = aggregated(r, group, message, it->now_ms);
    th_autofree char *key = fold ? th_xstrdup(group) : th_xasprintf("%s\x01%s", group, message);
    if (!spam_ok(r, object, it->now_ms)) {
        th_debug("events", "too many events about one object", "name=%s reason=%s",
                 str(it->event, "involvedObject.name"), str(it->event, "reason"));
        return;
    }
    if (fold) {
        th_json_set(it->event, "message",
                    th_json_stringf("(combined from similar events): %s", message));
    }
    write_event(r, key, it);
}

static struct item *take(struct th_recorder *r, size_t *ret_dropped)
{
    pthread_mutex_lock(&r->lock);
    while (!r->first && !r->stop) {
        th_clock_cond_wait(&r->cond, &r->lock, INT64_MAX);
    }
    struct item *it = r->first;
    if (it) {
        r->first = it->next;
        r->n--;
        if (!r->first) {
            r->last = &r->first;
        }
    }
    *ret_dropped = r->dropped;
    r->dropped = 0;
    pthread_mutex_unlock(&r->lock);
    return it;
}

static void item_free(struct item *it)
{
    th_json_unref(it->event);
    free(it);
}

static void *run(void *arg)
{
    struct th_recorder *r = arg;
    struct item *it;
    size_t dropped;
    while ((it = take(r, &dropped))) { /* what is queued at the end is still written */
        if (dropped > 0) {
            th_warn("events", "events dropped: the queue was full", "n=%zu", dropped);
        }
        handle(r, it);
        item_free(it);
    }
    return NULL;
}

/* ---- Recording ---- */

static void set_opt(struct th_json *o, const char *name, const char *value)
{
    if (value && *value) {
        th_json_set_str(o, name, value);
    }
}

static struct th_json *build(struct th_recorder *r, const struct th_json *obj,
                             const char *field_path, const char *type, const char *reason,
                             const char *message, int64_t now_ms)
{
    char stamp[TH_TIME_LEN];
    th_time_format(now_ms, stamp);
    struct th_json *ref = th_json_object();
    set_opt(ref, "kind", th_json_path_str(obj, "kind"));
    set_opt(ref, "namespace", th_json_path_str(obj, "metadata.namespace"));
    set_opt(ref, "name", th_json_path_str(obj, "metadata.name"));
    set_opt(ref, "uid", th_json_path_str(obj, "metadata.uid"));
    set_opt(ref, "apiVersion", th_json_path_str(obj, "apiVersion"));
    set_opt(ref, "resourceVersion", th_json_path_str(obj, "metadata.resourceVersion"));
    set_opt(ref, "fieldPath", field_path);
    const char *ns = th_json_path_str(obj, "metadata.namespace");
    const char *name = th_json_path_str(obj, "metadata.name");
    /* Upstream's name: the object's and the time in nanoseconds, in hex. */
    uint64_t unique = (uint64_t)now_ms * 1000000u +
                      __atomic_fetch_add(&r->serial, 1, __ATOMIC_RELAXED) % 1000000u;
    th_autofree char *event_name = th_xasprintf("%s.%016" PRIx64, name ? name : "unknown", unique);
    struct th_json *e = th_json_build(
        "{'kind':'Event','apiVersion':'v1','metadata':{'name':%s,'namespace':%s},'involvedObject':%"
        "o,"
        "'reason':%s,'message':%s,'source':{'component':%s},'firstTimestamp':%s,'lastTimestamp':%s,"
        "'count':%d,'type':%s,'eventTime':null,'reportingComponent':%s,'reportingInstance':%s}",
        event_name, ns && *ns ? ns : "default", ref, reason, message, r->component, stamp, stamp,
        (int64_t)1, type, r->component, r->host ? r->host : "");
    set_opt(th_json_get(e, "source"), "host", r->host);
    return e;
}

TH_PRINTF(6, 0)
static void record(struct th_recorder *r, const struct th_json *obj, const char *field_path,
                   const char *type, const char *reason, const char *fmt, va_list ap)
{
    th_autofree char *message = th_xvasprintf(fmt, ap);
    struct item *it = TH_NEW(struct item);
    it->now_ms = th_now_ms();
    it->event = build(r, obj, field_path, type, reason, message, it->now_ms);
    pthread_mutex_lock(&r->lock);
    bool room = r->n < QUEUE_MAX && !r->stop;
    if (room) {
        *r->last = it;
        r->last = &it->next;
        r->n++;
        pthread_cond_signal(&r->cond);
    } else {
        r->dropped++;
    }
    pthread_mutex_unlock(&r->lock);
    if (!room) {
        item_free(it);
    }
}

void th_event_record_at(struct th_recorder *r, const struct th_json *obj, const char *field_path,
                        const char *type, const char *reason, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    record(r, obj, field_path, type, reason, fmt, ap);
    va_end(ap);
}

void th_event_record(struct th_recorder *r, const struct th_json *obj, const char *type,
                     const char *reason, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    record(r, obj, NULL, type, reason, fmt, ap);
    va_end(ap);
}

static void clock_moved(void *arg)
{
    struct th_recorder *r = arg;
    pthread_mutex_lock(&r->lock);
    pthread_cond_broadcast(&r->cond);
    pthread_mutex_unlock(&r->lock);
}

struct th_recorder *th_recorder_new(struct th_client *c, const char *component, const char *host)
{
    struct th_recorder *r = TH_NEW(struct th_recorder);
    r->c = c;
    r->component = th_xstrdup(component);
    r->host = th_xstrdup(host);
    r->last = &r->first;
    th_rand_bytes(&r->serial, sizeof(r->serial));
    th_hmap_init(&r->buckets, free);
    th_hmap_init(&r->groups, group_free);
    th_hmap_init(&r->seen, written_free);
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->cond, NULL);
    int e = pthread_create(&r->thread, NULL, run, r);
    TH_ASSERT(e == 0);
    r->clock_watch = (struct th_clock_watch){.fn = clock_moved, .arg = r};
    th_clock_watch_add(&r->clock_watch);
    return r;
}

void th_recorder_free(struct th_recorder *r)
{
    if (!r) {
        return;
    }
    th_clock_watch_del(&r->clock_watch);
    pthread_mutex_lock(&r->lock);
    r->stop = true;
    pthread_cond_broadcast(&r->cond);
    pthread_mutex_unlock(&r->lock);
    pthread_join(r->thread, NULL);
    th_hmap_done(&r->buckets);
    th_hmap_done(&r->groups);
    th_hmap_done(&r->seen);
    pthread_cond_destroy(&r->cond);
    pthread_mutex_destroy(&r->lock);
    free(r->component);
    free(r->host);
    free(r);
}
