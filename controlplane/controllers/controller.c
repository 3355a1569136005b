/*
 * The controller runtime.
 *
 * Problem: a dozen controllers need the same things: caches of what they watch, a queue that holds
 * a key once and gives it to one worker at a time, back-off, events, and an orderly start and stop.
 *
 * Design: one informer per watched resource, shared by all controllers; one work queue for all of
 * them with keys "<index>|<key>", served by a few threads, so that an idle control plane has few
 * threads and a busy one does not let one controller starve another (keys are served in order).
 * Reconciling starts when the caches of all resources have synchronized once.
 *
 * Reading one's own writes: a cache is always a little behind. A controller that creates objects
 * tells th_ctrl_expect what the server answered; the key then waits until that revision has come
 * through the watch (or EXPECT_TIMEOUT_MS has passed: an object can be gone again before the cache
 * saw it). This does the work of upstream's expectations, with the store's single sequence of
 * revisions.
 *
 * Invariants: `controllers`, `caches` and what they point to do not change between start and stop.
 * The lock guards the revisions seen and the expectations only.
 */
#include "controlplane/controllers/controller.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/hmap.h"
#include "base/log.h"
#include "base/workqueue.h"
#include <pthread.h>
#include <stdio.h>

#define DEFAULT_WORKERS 2
#define BACKOFF_BASE_MS 5
#define BACKOFF_MAX_MS 1000000 /* client-go's default controller rate limiter */
#define EXPECT_TIMEOUT_MS 5000
#define EXPECT_POLL_MS 5
#define SYNC_POLL_MS 20

#define TH_CONTROLLER(name) extern const struct th_controller th_ctrl_##name;
#include "controlplane/controllers/controllers.def"
#undef TH_CONTROLLER

static const struct th_controller *const rows[] = {
#define TH_CONTROLLER(name) &th_ctrl_##name,
#include "controlplane/controllers/controllers.def"
#undef TH_CONTROLLER
};

struct cache {
    struct th_controllers *set;
    struct th_gvr gvr;
    struct th_informer *informer;
    int64_t seen_rv; /* set->lock */
};

struct expectation {
    struct cache *cache;
    int64_t rv;
    int64_t until_ms; /* monotonic */
};

struct th_ctrl {
    const struct th_controller *row;
    struct th_controllers *set;
    size_t index;
    struct th_recorder *recorder;
    void *state;
};

struct th_controllers {
    struct th_client *client;
    struct th_controllers_opts opts;
    char *only, *pod_cidr, *service_cidr, *cluster_domain, *ca_cert_pem;
    struct th_ctrl *controllers;
    size_t n;
    struct cache **caches;
    size_t n_caches;
    struct th_wq *queue;
    pthread_t *workers;
    size_t n_workers;
    pthread_mutex_t lock;
    struct th_hmap expectations; /* lock; "<index>|<key>\x01<plural>" -> struct expectation */
    pthread_cond_t started_cond;
    bool started;  /* lock; all informers exist */
    bool stopping; /* atomic */
};

/* ---- What controllers ask for ---- */

struct th_client *th_ctrl_client(struct th_ctrl *c)
{
    return c->set->client;
}

struct th_recorder *th_ctrl_recorder(struct th_ctrl *c)
{
    return c->recorder;
}

const struct th_controllers_opts *th_ctrl_opts(struct th_ctrl *c)
{
    return &c->set->opts;
}

void *th_ctrl_state(struct th_ctrl *c)
{
    return c->state;
}

static struct cache *find_cache(struct th_controllers *set, struct th_gvr gvr)
{
    for (size_t i = 0; i < set->n_caches; i++) {
        if (th_streq(set->caches[i]->gvr.plural, gvr.plural) &&
            th_streq(set->caches[i]->gvr.group, gvr.group)) {
            return set->caches[i];
        }
    }
    return NULL;
}

struct th_informer *th_ctrl_informer(struct th_ctrl *c, struct th_gvr gvr)
{
    struct cache *cache = find_cache(c->set, gvr);
    TH_ASSERT(cache != NULL);
    return cache->informer;
}

static char *full_key(const struct th_ctrl *c, const char *key)
{
    return th_xasprintf("%zu|%s", c->index, key);
}

void th_ctrl_enqueue(struct th_ctrl *c, const char *key)
{
    th_autofree char *full = full_key(c, key);
    th_wq_add(c->set->queue, full);
}

void th_ctrl_enqueue_after(struct th_ctrl *c, const char *key, int64_t delay_ms)
{
    th_autofree char *full = full_key(c, key);
    th_wq_add_after(c->set->queue, full, delay_ms);
}

char *th_ctrl_key(const struct th_json *obj)
{
    const char *ns = th_json_path_str(obj, "metadata.namespace");
    const char *name = th_json_path_str(obj, "metadata.name");
    return ns && *ns ? th_xasprintf("%s/%s", ns, name ? name : "")
                     : th_xasprintf("%s", name ? name : "");
}

char *th_ctrl_key_split(const char *key, const char **ret_name)
{
    const char *slash = strchr(key, '/');
    *ret_name = slash ? slash + 1 : key;
    return th_xstrndup(key, slash ? (size_t)(slash - key) : 0);
}

void th_ctrl_enqueue_obj(struct th_ctrl *c, const struct th_json *obj)
{
    th_autofree char *key = th_ctrl_key(obj);
    th_ctrl_enqueue(c, key);
}

void th_ctrl_on_self(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    th_ctrl_enqueue_obj(c, now ? now : old);
}

static void enqueue_owner_of(struct th_ctrl *c, const struct th_json *obj, const char *kind)
{
    const struct th_json *ref = obj ? th_controller_of(obj) : NULL;
    if (!ref || !th_streq(th_json_path_str(ref, "kind"), kind)) {
        return;
    }
    const char *ns = th_json_path_str(obj, "metadata.namespace");
    const char *name = th_json_path_str(ref, "name");
    th_autofree char *key = ns ? th_xasprintf("%s/%s", ns, name) : th_xstrdup(name);
    th_ctrl_enqueue(c, key);
}

void th_ctrl_enqueue_owner(struct th_ctrl *c, const struct th_json *old, const struct th_json *now,
                           const char *kind)
{
    enqueue_owner_of(c, now, kind);
    if (old && (!now || !th_streq(th_controller_uid(old), th_controller_uid(now)))) {
        enqueue_owner_of(c, old, kind);
    }
}

static int64_t rv_of(const struct th_json *obj)
{
    const char *rv = th_json_path_str(obj, "metadata.resourceVersion");
    return rv ? strtoll(rv, NULL, 10) : 0;
}

void th_ctrl_expect(struct th_ctrl *c, const char *key, struct th_gvr gvr,
                    const struct th_json *written)
{
    struct cache *cache = find_cache(c->set, gvr);
    int64_t rv = rv_of(written);
    if (!cache || rv == 0) {
        return;
    }
    struct expectation *e = TH_NEW(struct expectation);
    *e = (struct expectation){cache, rv, th_mono_ms() + EXPECT_TIMEOUT_MS};
    th_autofree char *full = full_key(c, key);
    th_autofree char *slot = th_xasprintf("%s\x01%s", full, cache->gvr.plural);
    pthread_mutex_lock(&c->set->lock);
    th_hmap_set(&c->set->expectations, slot, e);
    pthread_mutex_unlock(&c->set->lock);
}

/* ---- Workers ---- */

/* Whether something written for this key has not come through its cache yet. */
static bool expectation_open(struct th_controllers *set, const char *full)
{
    bool open = false;
    pthread_mutex_lock(&set->lock);
    for (size_t i = 0; i < set->n_caches && set->expectations.n > 0; i++) {
        th_autofree char *slot = th_xasprintf("%s\x01%s", full, set->caches[i]->gvr.plural);
        struct expectation *e = th_hmap_get(&set->expectations, slot);
        if (e && e->cache->seen_rv < e->rv && th_mono_ms() < e->until_ms) {
            open = true;
        } else if (e) {
            free(th_hmap_remove(&set->expectations, slot));
        }
    }
    pthread_mutex_unlock(&set->lock);
    return open;
}

static void log_failure(const struct th_ctrl *c, const char *key, const struct th_err *err,
                        int failures)
{
    bool expected = err->reason == TH_R_CONFLICT || err->reason == TH_R_NOT_FOUND;
    th_log(expected ? TH_LOG_DEBUG : TH_LOG_WARN, "controllers", "reconcile failed",
           "controller=%s key=%s failures=%d error=%s", c->row->name, th_log_q(key), failures,
           th_log_q(err->msg ? err->msg : ""));
}

static void work_one(struct th_controllers *set, const char *full)
{
    const char *bar = strchr(full, '|');
    struct th_ctrl *c = &set->controllers[strtoul(full, NULL, 10)];
    if (expectation_open(set, full)) {
        th_wq_add_after(set->queue, full, EXPECT_POLL_MS);
        return;
    }
    struct th_err err TH_CLEANUP(th_err_done) = TH_ERR_INIT;
    int64_t after_ms = 0;
    if (c->row->reconcile(c, bar + 1, &after_ms, &err) < 0) {
        th_wq_add_backoff(set->queue, full);
        log_failure(c, bar + 1, &err, th_wq_failures(set->queue, full));
        return;
    }
    th_wq_forget(set->queue, full);
    if (after_ms > 0) {
        th_wq_add_after(set->queue, full, after_ms);
    }
}

static void *work(void *arg)
{
    struct th_controllers *set = arg;
    for (size_t i = 0; i < set->n_caches; i++) {
        while (!th_informer_wait_synced(set->caches[i]->informer, SYNC_POLL_MS)) {
            if (__atomic_load_n(&set->stopping, __ATOMIC_ACQUIRE)) {
                return NULL;
            }
        }
    }
    for (;;) {
        th_autofree char *full = th_wq_get(set->queue);
        if (!full) {
            return NULL;
        }
        work_one(set, full);
        th_wq_done(set->queue, full);
        size_t index = strtoul(full, NULL, 10);
        const struct th_controller *row = set->controllers[index].row;
        const char *key = strchr(full, '|') + 1;
        if (row->tick_ms > 0 && *key == 0) {
            th_wq_add_after(set->queue, full, row->tick_ms);
        }
    }
}

/* ---- Caches ---- */

static void on_event(void *arg, const struct th_json *old, const struct th_json *now)
{
    struct cache *cache = arg;
    struct th_controllers *set = cache->set;
    int64_t rv = now ? rv_of(now) : 0;
    pthread_mutex_lock(&set->lock);
    while (!set->started) { /* event functions may look into the other caches */
        pthread_cond_wait(&set->started_cond, &set->lock);
    }
    cache->seen_rv = rv > cache->seen_rv ? rv : cache->seen_rv;
    pthread_mutex_unlock(&set->lock);
    for (size_t i = 0; i < set->n; i++) {
        struct th_ctrl *c = &set->controllers[i];
        for (const struct th_ctrl_watch *w = c->row->watches; w->gvr.plural; w++) {
            if (w->on_event && th_streq(w->gvr.plural, cache->gvr.plural) &&
                th_streq(w->gvr.group, cache->gvr.group)) {
                w->on_event(c, old, now);
            }
        }
    }
}

static void add_cache(struct th_controllers *set, struct th_gvr gvr)
{
    if (find_cache(set, gvr)) {
        return;
    }
    struct cache *cache = TH_NEW(struct cache);
    *cache = (struct cache){.set = set, .gvr = gvr};
    set->caches = th_xrealloc(set->caches, (set->n_caches + 1) * sizeof(*set->caches));
    set->caches[set->n_caches++] = cache;
}

/* ---- Start and stop ---- */

/* "all", "a,b" (these only) or "all,-a" / "-a" (all but these). */
static bool wanted(const char *only, const char *name)
{
    if (!only || th_streq(only, "all")) {
        return true;
    }
    struct th_strv words TH_CLEANUP(th_strv_done) = TH_STRV_INIT;
    th_strv_split(&words, only, ',');
    bool named = false, rest = true;
    for (size_t i = 0; i < words.n; i++) {
        const char *w = words.v[i];
        if (w[0] == '-' && th_streq(w + 1, name)) {
            return false;
        }
        named = named || th_streq(w, name) || th_streq(w, "all");
        rest = rest && w[0] == '-';
    }
    return named || rest;
}

static void set_started(struct th_controllers *set)
{
    pthread_mutex_lock(&set->lock);
    set->started = true;
    pthread_cond_broadcast(&set->started_cond);
    pthread_mutex_unlock(&set->lock);
}

static void copy_opts(struct th_controllers *set, const struct th_controllers_opts *o)
{
    set->opts = *o;
    set->opts.only = set->only = th_xstrdup(o->only);
    set->opts.pod_cidr = set->pod_cidr = th_xstrdup(o->pod_cidr);
    set->opts.service_cidr = set->service_cidr = th_xstrdup(o->service_cidr);
    set->opts.cluster_domain = set->cluster_domain = th_xstrdup(o->cluster_domain);
    set->opts.ca_cert_pem = set->ca_cert_pem = th_xstrdup(o->ca_cert_pem);
}

int th_controllers_start(struct th_client *client, const struct th_controllers_opts *o,
                         struct th_controllers **ret, struct th_err *err)
{
    struct th_controllers *set = TH_NEW(struct th_controllers);
    set->client = client;
    copy_opts(set, o);
    pthread_mutex_init(&set->lock, NULL);
    pthread_cond_init(&set->started_cond, NULL);
    th_hmap_init(&set->expectations, free);
    set->queue = th_wq_new(BACKOFF_BASE_MS, BACKOFF_MAX_MS);
    set->controllers = th_xcalloc(TH_ARRAY_LEN(rows), sizeof(*set->controllers));
    for (size_t i = 0; i < TH_ARRAY_LEN(rows); i++) {
        if (!wanted(set->opts.only, rows[i]->name)) {
            continue;
        }
        struct th_ctrl *c = &set->controllers[set->n];
        *c = (struct th_ctrl){.row = rows[i], .set = set, .index = set->n};
        c->recorder = th_recorder_new(client, rows[i]->name, "");
        c->state = rows[i]->state_new ? rows[i]->state_new(c) : NULL;
        set->n++;
        for (const struct th_ctrl_watch *w = rows[i]->watches; w->gvr.plural; w++) {
            add_cache(set, w->gvr);
        }
    }
    for (size_t i = 0; i < set->n_caches; i++) {
        struct th_informer_opts io = {
            .gvr = set->caches[i]->gvr, .on_event = on_event, .arg = set->caches[i]};
        int r = th_informer_start(client, &io, &set->caches[i]->informer, err);
        if (r < 0) {
            th_controllers_stop(set);
            return r;
        }
    }
    set_started(set);
    for (size_t i = 0; i < set->n; i++) {
        if (set->controllers[i].row->tick_ms > 0) {
            th_ctrl_enqueue(&set->controllers[i], "");
        }
    }
    size_t workers = o->workers ? o->workers : DEFAULT_WORKERS;
    set->workers = th_xcalloc(workers, sizeof(*set->workers));
    for (; set->n > 0 && set->n_workers < workers; set->n_workers++) {
        TH_ASSERT(pthread_create(&set->workers[set->n_workers], NULL, work, set) == 0);
    }
    *ret = set;
    return 0;
}

void th_controllers_stop(struct th_controllers *set)
{
    if (!set) {
        return;
    }
    __atomic_store_n(&set->stopping, true, __ATOMIC_RELEASE);
    set_started(set); /* a start that failed half-way leaves none waiting */
    th_wq_shutdown(set->queue);
    for (size_t i = 0; i < set->n_workers; i++) {
        (void)pthread_join(set->workers[i], NULL);
    }
    for (size_t i = 0; i < set->n_caches; i++) {
        if (set->caches[i]->informer) {
            th_informer_stop(set->caches[i]->informer);
        }
    }
    for (size_t i = 0; i < set->n; i++) {
        struct th_ctrl *c = &set->controllers[i];
        th_recorder_free(c->recorder);
        if (c->row->state_free) {
            c->row->state_free(c->state);
        }
    }
    for (size_t i = 0; i < set->n_caches; i++) {
        free(set->caches[i]);
    }
    th_wq_free(set->queue);
    th_hmap_done(&set->expectations);
    pthread_cond_destroy(&set->started_cond);
    pthread_mutex_destroy(&set->lock);
    free(set->caches);
    free(set->controllers);
    free(set->workers);
    free(set->only);
    free(set->pod_cidr);
    free(set->service_cidr);
    free(set->cluster_domain);
    free(set->ca_cert_pem);
    free(set);
}
