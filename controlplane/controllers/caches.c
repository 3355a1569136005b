/*
 * The caches of the controllers: one informer per resource, shared, and what is awaited from them.
 *
 * Declared caches (some row watches the resource) exist from start to stop and hold whole objects.
 * Controllers that work on everything (row.on_any: the garbage collector) bring further ones, for
 * all that discovery lists, with metadata only: they are looked at again every FOLLOW_MS and when a
 * CustomResourceDefinition changes, so that custom resources come and go. An informer that goes
 * first tells the end of what it held.
 *
 * Reading one's own writes: a cache is always a little behind. A controller that writes tells
 * th_ctrl_expect what the server answered; its key then waits until that revision has come through
 * the watch (or EXPECT_TIMEOUT_MS has passed: an object can be gone again before the cache saw it).
 * A deletion answers with no revision; it is awaited by looking at the object. This does the work
 * of upstream's expectations, with the store's single sequence of revisions.
 */
#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "controlplane/controllers/controller_priv.h"

#define EXPECT_TIMEOUT_MS 5000
#define CRDS "customresourcedefinitions"
#define CRD_SETTLE_MS 100

struct th_ctrl_await {
    struct th_ctrl_await *next;
    struct th_ctrl_cache *cache;
    int64_t rv;                 /* 0: a deletion */
    char *ns, *name, *uid;      /* of a deletion */
    int64_t until_ms;           /* monotonic */
};

static void await_free(void *p)
{
    struct th_ctrl_await *a = p;
    while (a) {
        struct th_ctrl_await *next = a->next;
        free(a->ns);
        free(a->name);
        free(a->uid);
        free(a);
        a = next;
    }
}

void th_ctrl_caches_init(struct th_controllers *set)
{
    th_hmap_init(&set->expectations, await_free);
}

struct th_ctrl_cache *th_ctrl_cache_find(struct th_controllers *set, struct th_gvr gvr)
{
    for (size_t i = 0; i < set->n_declared; i++) {
        const struct th_rl_item *r = &set->declared[i]->r;
        if (th_streq(r->plural, gvr.plural) && th_streq(r->group, gvr.group)) {
            return set->declared[i];
        }
    }
    return NULL;
}

static struct th_ctrl_cache *cache_new(struct th_controllers *set, const struct th_rl_item *r)
{
    struct th_ctrl_cache *cache = TH_NEW(struct th_ctrl_cache);
    cache->set = set;
    cache->r = th_rl_item_dup(r);
    return cache;
}

static void cache_free(struct th_ctrl_cache *cache)
{
    th_informer_stop(cache->informer);
    th_rl_item_done(&cache->r);
    free(cache);
}

void th_ctrl_cache_declare(struct th_controllers *set, const struct th_rl_item *r)
{
    if (!th_ctrl_cache_find(set, th_rl_gvr(r))) {
        struct th_ctrl_cache *cache = cache_new(set, r);
        cache->declared = true;
        set->declared = th_xrealloc(set->declared,
                                    (set->n_declared + 1) * sizeof(struct th_ctrl_cache *));
        set->declared[set->n_declared++] = cache;
    }
}

void th_ctrl_caches_done(struct th_controllers *set)
{
    for (size_t i = 0; i < set->n_others; i++) {
        cache_free(set->others[i]);
    }
    for (size_t i = 0; i < set->n_declared; i++) {
        cache_free(set->declared[i]);
    }
    free(set->others);
    free(set->declared);
    th_hmap_done(&set->expectations);
}

/* ---- Events ---- */

static int64_t rv_of(const struct th_json *obj)
{
    const char *rv = th_json_path_str(obj, "metadata.resourceVersion");
    return rv ? strtoll(rv, NULL, 10) : 0;
}

static void tell_rows(struct th_ctrl_cache *cache, const struct th_json *old,
                      const struct th_json *now)
{
    struct th_controllers *set = cache->set;
    for (size_t i = 0; i < set->n; i++) {
        struct th_ctrl *c = &set->controllers[i];
        for (const struct th_ctrl_watch *w = c->row->watches; w->gvr.plural; w++) {
            if (w->on_event && cache->declared && th_streq(w->gvr.plural, cache->r.plural) &&
                th_streq(w->gvr.group, cache->r.group)) {
                w->on_event(c, old, now);
            }
        }
        if (c->row->on_any) {
            c->row->on_any(c, &cache->r, old, now);
        }
    }
    if (set->any && th_streq(cache->r.plural, CRDS)) {
        th_wq_add_after(set->queue, TH_CTRL_FOLLOW_KEY, CRD_SETTLE_MS);
    }
}

static void on_event(void *arg, const struct th_json *old, const struct th_json *now)
{
    struct th_ctrl_cache *cache = arg;
    struct th_controllers *set = cache->set;
    int64_t rv = now ? rv_of(now) : 0;
    pthread_mutex_lock(&set->lock);
    while (!set->started) { /* event functions may look into the other caches */
        pthread_cond_wait(&set->started_cond, &set->lock);
    }
    cache->seen_rv = rv > cache->seen_rv ? rv : cache->seen_rv;
    pthread_mutex_unlock(&set->lock);
    tell_rows(cache, old, now);
}

static int start_informer(struct th_ctrl_cache *cache, struct th_err *err)
{
    struct th_informer_opts o = {.gvr = th_rl_gvr(&cache->r),
                                 .on_event = on_event,
                                 .arg = cache,
                                 .metadata_only = !cache->declared};
    return th_informer_start(cache->set->client, &o, &cache->informer, err);
}

int th_ctrl_caches_start(struct th_controllers *set, struct th_err *err)
{
    for (size_t i = 0; i < set->n_declared; i++) {
        TH_TRY(start_informer(set->declared[i], err));
    }
    return 0;
}

/* ---- Following discovery ---- */

static bool follows(const struct th_rl_item *r)
{
    unsigned needed = TH_RL_LIST | TH_RL_WATCH | TH_RL_DELETE;
    bool event = th_streq(r->plural, "events") &&
                 (!*r->group || th_streq(r->group, "events.k8s.io")); /* as upstream */
    return r->preferred && (r->verbs & needed) == needed && !event;
}

static bool tell_end(void *arg, struct th_json *obj)
{
    tell_rows(arg, obj, NULL);
    return true;
}

static bool is_followed(struct th_controllers *set, const struct th_rl_item *r)
{
    for (size_t i = 0; i < set->n_others; i++) {
        const struct th_rl_item *have = &set->others[i]->r;
        if (th_streq(have->plural, r->plural) && th_streq(have->group, r->group) &&
            th_streq(have->version, r->version)) {
            return true;
        }
    }
    return th_ctrl_cache_find(set, th_rl_gvr(r)) != NULL;
}

static void drop_unserved(struct th_controllers *set, const struct th_rl *served)
{
    for (size_t i = 0; i < set->n_others;) {
        struct th_ctrl_cache *cache = set->others[i];
        const struct th_rl_item *r = th_rl_for_gvr(served, th_rl_gvr(&cache->r));
        if (r && follows(r)) {
            i++;
            continue;
        }
        pthread_mutex_lock(&set->lock);
        set->others[i] = set->others[--set->n_others];
        pthread_mutex_unlock(&set->lock);
        th_informer_each(cache->informer, NULL, tell_end, cache);
        cache_free(cache);
    }
}

int th_ctrl_caches_follow(struct th_controllers *set, struct th_err *err)
{
    struct th_rl served TH_CLEANUP(th_rl_done) = TH_RL_INIT;
    TH_TRY(th_rl_discover(set->client, &served, err));
    drop_unserved(set, &served);
    for (size_t i = 0; i < served.n; i++) {
        const struct th_rl_item *r = &served.v[i];
        if (!follows(r) || is_followed(set, r)) {
            continue;
        }
        struct th_ctrl_cache *cache = cache_new(set, r);
        int e = start_informer(cache, err);
        if (e < 0) {
            cache_free(cache);
            return e;
        }
        pthread_mutex_lock(&set->lock);
        set->others =
            th_xrealloc(set->others, (set->n_others + 1) * sizeof(struct th_ctrl_cache *));
        set->others[set->n_others++] = cache;
        pthread_mutex_unlock(&set->lock);
        th_debug("controllers", "following", "resource=%s group=%s", r->plural, r->group);
    }
    pthread_mutex_lock(&set->lock);
    struct th_rl before = set->served;
    set->served = served;
    served = before;
    pthread_mutex_unlock(&set->lock);
    return 0;
}

size_t th_ctrl_count_objects(struct th_ctrl *c, const char *group, const char *plural,
                             const char *ns)
{
    const struct th_ctrl_cache *own =
        th_ctrl_cache_find(c->set, (struct th_gvr){group, NULL, plural});
    if (own) {
        return th_informer_count_in(own->informer, ns);
    }
    size_t n = 0;
    pthread_mutex_lock(&c->set->lock); /* keeps the cache from being stopped meanwhile */
    for (size_t i = 0; i < c->set->n_others; i++) {
        const struct th_ctrl_cache *cache = c->set->others[i];
        if (th_streq(cache->r.plural, plural) && th_streq(cache->r.group, group)) {
            n = th_informer_count_in(cache->informer, ns);
        }
    }
    pthread_mutex_unlock(&c->set->lock);
    return n;
}

bool th_ctrl_served(struct th_ctrl *c, const char *api_version, const char *kind,
                    struct th_rl_item *ret)
{
    pthread_mutex_lock(&c->set->lock);
    const struct th_rl_item *r = th_rl_for_kind(&c->set->served, api_version, kind);
    if (r) {
        *ret = th_rl_item_dup(r);
    }
    pthread_mutex_unlock(&c->set->lock);
    return r != NULL;
}

/* ---- Awaiting ---- */

static void await_add(struct th_ctrl *c, const char *key, struct th_ctrl_await *a)
{
    th_autofree char *full = th_ctrl_full_key(c, key);
    a->until_ms = th_mono_ms() + EXPECT_TIMEOUT_MS;
    pthread_mutex_lock(&c->set->lock);
    a->next = th_hmap_remove(&c->set->expectations, full);
    th_hmap_set(&c->set->expectations, full, a);
    pthread_mutex_unlock(&c->set->lock);
}

void th_ctrl_expect(struct th_ctrl *c, const char *key, struct th_gvr gvr,
                    const struct th_json *written)
{
    struct th_ctrl_cache *cache = th_ctrl_cache_find(c->set, gvr);
    int64_t rv = rv_of(written);
    if (cache && rv > 0) {
        struct th_ctrl_await *a = TH_NEW(struct th_ctrl_await);
        a->cache = cache;
        a->rv = rv;
        await_add(c, key, a);
    }
}

void th_ctrl_expect_gone(struct th_ctrl *c, const char *key, struct th_gvr gvr,
                         const struct th_json *obj)
{
    struct th_ctrl_cache *cache = th_ctrl_cache_find(c->set, gvr);
    if (cache) {
        struct th_ctrl_await *a = TH_NEW(struct th_ctrl_await);
        a->cache = cache;
        a->ns = th_xstrdup(th_json_path_str(obj, "metadata.namespace"));
        a->name = th_xstrdup(th_json_path_str(obj, "metadata.name"));
        a->uid = th_xstrdup(th_json_path_str(obj, "metadata.uid"));
        await_add(c, key, a);
    }
}

static bool still_open(const struct th_ctrl_await *a)
{
    if (th_mono_ms() >= a->until_ms) {
        return false;
    }
    if (a->rv > 0) {
        return a->cache->seen_rv < a->rv;
    }
    struct th_json *obj TH_AUTO(th_json) = th_informer_get(a->cache->informer, a->ns, a->name);
    return obj && th_streq(th_json_path_str(obj, "metadata.uid"), a->uid) &&
           !th_json_path_str(obj, "metadata.deletionTimestamp");
}

bool th_ctrl_awaits(struct th_controllers *set, const char *full)
{
    pthread_mutex_lock(&set->lock);
    struct th_ctrl_await *a = set->expectations.n ? th_hmap_remove(&set->expectations, full) : NULL;
    while (a && !still_open(a)) {
        struct th_ctrl_await *next = a->next;
        a->next = NULL;
        await_free(a);
        a = next;
    }
    if (a) {
        th_hmap_set(&set->expectations, full, a);
    }
    pthread_mutex_unlock(&set->lock);
    return a != NULL;
}
