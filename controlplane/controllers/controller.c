/*
 * The controller runtime.
 *
 * Problem: a dozen controllers need the same things: caches of what they watch, a queue that holds
 * a key once and gives it to one worker at a time, back-off, events, and an orderly start and stop.
 *
 * Design: one informer per watched resource, shared by all controllers (caches.c); one work queue
 * for all of them with keys "<index>|<key>", served by a few threads, so that an idle control plane
 * has few threads and a busy one does not let one controller starve another (keys are served in
 * order). Reconciling starts when the caches of all declared resources have synchronized once. A row
 * that watches what the API does not serve is left out, with a log line.
 *
 * Invariants: `controllers` and the declared caches do not change between start and stop. The lock
 * guards the revisions seen, what is awaited and the list of other caches.
 */
#include "base/buf.h"
#include "base/log.h"
#include "controlplane/controllers/controller_priv.h"

#define DEFAULT_WORKERS 2
#define BACKOFF_BASE_MS 5
#define BACKOFF_MAX_MS 1000000 /* client-go's default controller rate limiter */
#define EXPECT_POLL_MS 5
#define SYNC_POLL_MS 20
#define FOLLOW_MS 30000 /* looks at what is served, as upstream's collector */

#define TH_CONTROLLER(name) extern const struct th_controller th_ctrl_##name;
#include "controlplane/controllers/controllers.def"
#undef TH_CONTROLLER

static const struct th_controller *const rows[] = {
#define TH_CONTROLLER(name) &th_ctrl_##name,
#include "controlplane/controllers/controllers.def"
#undef TH_CONTROLLER
};

/* ---- What controllers ask for ---- */

struct th_client *th_ctrl_client(struct th_ctrl *c)
{
    return c->client;
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

struct th_informer *th_ctrl_informer(struct th_ctrl *c, struct th_gvr gvr)
{
    struct th_ctrl_cache *cache = th_ctrl_cache_find(c->set, gvr);
    TH_ASSERT(cache != NULL);
    return cache->informer;
}

char *th_ctrl_full_key(const struct th_ctrl *c, const char *key)
{
    return th_xasprintf("%zu|%s", c->index, key);
}

void th_ctrl_enqueue(struct th_ctrl *c, const char *key)
{
    th_autofree char *full = th_ctrl_full_key(c, key);
    th_wq_add(c->set->queue, full);
}

void th_ctrl_enqueue_after(struct th_ctrl *c, const char *key, int64_t delay_ms)
{
    th_autofree char *full = th_ctrl_full_key(c, key);
    th_wq_add_after(c->set->queue, full, delay_ms);
}

/* ---- Workers ---- */

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
    if (th_ctrl_awaits(set, full)) {
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

/* What is served is looked at again; the failure of one try is the next one's business. */
static void follow(struct th_controllers *set)
{
    struct th_err err TH_CLEANUP(th_err_done) = TH_ERR_INIT;
    if (th_ctrl_caches_follow(set, &err) < 0) {
        th_warn("controllers", "discovery failed", "error=%s", th_log_q(err.msg ? err.msg : ""));
    }
    th_wq_add_after(set->queue, TH_CTRL_FOLLOW_KEY, FOLLOW_MS);
}

static void *work(void *arg)
{
    struct th_controllers *set = arg;
    for (size_t i = 0; i < set->n_declared; i++) {
        while (!th_informer_wait_synced(set->declared[i]->informer, SYNC_POLL_MS)) {
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
        if (th_streq(full, TH_CTRL_FOLLOW_KEY)) {
            follow(set);
            th_wq_done(set->queue, full);
            continue;
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
    set->opts.control_plane_ip = set->control_plane_ip = th_xstrdup(o->control_plane_ip);
    set->opts.service_cidr = set->service_cidr = th_xstrdup(o->service_cidr);
    set->opts.cluster_domain = set->cluster_domain = th_xstrdup(o->cluster_domain);
    set->opts.volumes_dir = set->volumes_dir = th_xstrdup(o->volumes_dir);
    set->opts.ca_cert_pem = set->ca_cert_pem = th_xstrdup(o->ca_cert_pem);
}

/* All that the row watches is served. */
static bool is_served(const struct th_controllers *set, const struct th_controller *row)
{
    for (const struct th_ctrl_watch *w = row->watches; w->gvr.plural; w++) {
        if (!th_rl_for_gvr(&set->served, w->gvr)) {
            th_info("controllers", "controller left out: what it watches is not served",
                    "controller=%s resource=%s", row->name, w->gvr.plural);
            return false;
        }
    }
    return true;
}

static int add_rows(struct th_controllers *set, struct th_err *err)
{
    set->controllers = th_xcalloc(TH_ARRAY_LEN(rows), sizeof(*set->controllers));
    for (size_t i = 0; i < TH_ARRAY_LEN(rows); i++) {
        if (!wanted(set->opts.only, rows[i]->name) || !is_served(set, rows[i])) {
            continue;
        }
        struct th_ctrl *c = &set->controllers[set->n];
        *c = (struct th_ctrl){.row = rows[i], .set = set, .index = set->n};
        c->client = set->client;
        set->n++;
        if (rows[i]->account && set->opts.client_for) {
            TH_TRY(set->opts.client_for(set->opts.client_arg, rows[i]->account, &c->client, err));
        }
        c->recorder = 
            th_recorder_new(c->client, rows[i]->component ? rows[i]->component : rows[i]->name, "");
        c->state = rows[i]->state_new ? rows[i]->state_new(c) : NULL;
        set->any = set->any || rows[i]->on_any;
        for (const struct th_ctrl_watch *w = rows[i]->watches; w->gvr.plural; w++) {
            th_ctrl_cache_declare(set, th_rl_for_gvr(&set->served, w->gvr));
        }
    }
    return 0;
}

int th_controllers_start(struct th_client *client, const struct th_controllers_opts *o,
                         struct th_controllers **ret, struct th_err *err)
{
    struct th_controllers *set = TH_NEW(struct th_controllers);
    set->client = client;
    copy_opts(set, o);
    pthread_mutex_init(&set->lock, NULL);
    pthread_cond_init(&set->started_cond, NULL);
    th_ctrl_caches_init(set);
    set->queue = th_wq_new(BACKOFF_BASE_MS, BACKOFF_MAX_MS);
    int r = th_rl_discover(client, &set->served, err);
    if (r == 0) {
        r = add_rows(set, err);
    }
    if (r == 0) {
        r = th_ctrl_caches_start(set, err);
    }
    if (r < 0) {
        th_controllers_stop(set);
        return r;
    }
    set_started(set);
    if (set->any) {
        th_wq_add(set->queue, TH_CTRL_FOLLOW_KEY);
    }
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
    th_ctrl_caches_done(set);
    for (size_t i = 0; i < set->n; i++) {
        struct th_ctrl *c = &set->controllers[i];
        th_recorder_free(c->recorder);
        if (c->row->state_free) {
            c->row->state_free(c->state);
        }
        if (c->client != set->client) {
            th_client_free(c->client);
        }
    }
    th_wq_free(set->queue);
    th_rl_done(&set->served);
    pthread_cond_destroy(&set->started_cond);
    pthread_mutex_destroy(&set->lock);
    free(set->controllers);
    free(set->workers);
    free(set->only);
    free(set->pod_cidr);
    free(set->service_cidr);
    free(set->cluster_domain);
    free(set->ca_cert_pem);
    free(set->volumes_dir);
    free(set->control_plane_ip);
    free(set);
}
