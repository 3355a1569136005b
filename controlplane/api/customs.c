/*
 * Which custom resources there are.
 *
 * The registry watches the definitions in the store and is brought up to date by whoever asks: the
 * queue of its watch is drained under its lock, and when something was in it, the definitions that
 * changed are compiled and a new set takes the place of the old one. So a request sees every
 * definition that was written before it came, without a thread and without delay, and a request that
 * asks for nothing custom pays nothing.
 *
 * Sets and definitions are counted references. A set that is still in use by a watch lives on with
 * the rows and schemas it had; the next request gets the new one.
 */
#include "controlplane/api/customs.h"

#include "base/log.h"
#include "controlplane/api/rounds.h"

#include <pthread.h>

#define PREFIX "apiextensions.k8s.io/customresourcedefinitions/"

struct th_custom_registry {
    struct th_store *store;
    struct th_hook_pool *hooks;
    pthread_mutex_t lock; /* guards everything below */
    struct th_watch *watch;
    struct th_customs *now;
};

struct th_custom_registry *th_custom_registry_new(struct th_store *store, struct th_hook_pool *hooks)
{
    struct th_custom_registry *r = TH_NEW(struct th_custom_registry);
    r->store = store;
    r->hooks = hooks;
    (void)pthread_mutex_init(&r->lock, NULL);
    return r;
}

struct th_customs *th_customs_ref(struct th_customs *c)
{
    if (c) {
        __atomic_add_fetch(&c->refs, 1, __ATOMIC_RELAXED);
    }
    return c;
}

void th_customs_unref(struct th_customs *c)
{
    if (!c || __atomic_sub_fetch(&c->refs, 1, __ATOMIC_ACQ_REL) > 0) {
        return;
    }
    for (size_t i = 0; i < c->n; i++) {
        th_crd_unref(c->v[i]);
    }
    free(c->v);
    th_strv_done(&c->groups);
    free(c);
}

void th_custom_registry_free(struct th_custom_registry *r)
{
    if (!r) {
        return;
    }
    if (r->watch) {
        th_watch_close(r->watch);
    }
    th_customs_unref(r->now);
    (void)pthread_mutex_destroy(&r->lock);
    free(r);
}

static struct th_crd *same_as_before(const struct th_customs *old, const struct th_obj *o)
{
    for (size_t i = 0; old && i < old->n; i++) {
        if (old->v[i]->rv == o->rv && th_streq(old->v[i]->name, strrchr(o->key, '/') + 1)) {
            __atomic_add_fetch(&old->v[i]->refs, 1, __ATOMIC_RELAXED);
            return old->v[i];
        }
    }
    return NULL;
}

static void rebuild(struct th_custom_registry *r)
{
    TH_CLEANUP(th_store_list_done) struct th_store_list l = {.n = 0};
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (th_store_range(r->store, PREFIX, NULL, 0, 0, &l, &err) < 0) {
        th_warn("api", "definitions cannot be read", "error=%s", th_log_q(err.msg));
        return;
    }
    struct th_customs *c = TH_NEW(struct th_customs);
    c->refs = 1;
    c->serial = r->now ? r->now->serial + 1 : 1;
    c->v = th_xcalloc(l.n + 1, sizeof(struct th_crd *));
    for (size_t i = 0; i < l.n; i++) {
        struct th_crd *crd = same_as_before(r->now, l.objs[i]);
        crd = crd ? crd : th_crd_new(l.objs[i], r->hooks);
        if (!crd) {
            continue;
        }
        c->v[c->n++] = crd;
        bool any = false;
        for (size_t k = 0; k < crd->n_versions; k++) {
            any = any || (crd->established && crd->versions[k].served);
        }
        if (any && !th_strv_has(&c->groups, crd->group)) {
            th_strv_add(&c->groups, crd->group);
        }
    }
    th_strv_sort(&c->groups);
    th_customs_unref(r->now);
    r->now = c;
}

struct th_customs *th_customs_get(struct th_custom_registry *r)
{
    (void)pthread_mutex_lock(&r->lock);
    if (th_bell_rang(r->store, PREFIX, NULL, NULL, &r->watch) || !r->now) {
        rebuild(r);
    }
    struct th_customs *c = th_customs_ref(r->now);
    (void)pthread_mutex_unlock(&r->lock);
    return c;
}

const struct th_resource *th_customs_find(const struct th_customs *c, const char *group,
                                          const char *version, const char *plural, bool all)
{
    for (size_t i = 0; c && i < c->n; i++) {
        const struct th_crd *crd = c->v[i];
        if (!th_streq(crd->plural, plural) || !th_streq(crd->group, group) ||
            !(crd->established || all)) {
            continue;
        }
        for (size_t k = 0; k < crd->n_versions; k++) {
            const struct th_custom *v = &crd->versions[k];
            if (th_streq(v->version, version) && (v->served || all)) {
                return &v->res;
            }
        }
    }
    return NULL;
}

const struct th_resource *th_customs_at(const struct th_customs *c, size_t i)
{
    for (size_t d = 0; c && d < c->n; d++) {
        const struct th_crd *crd = c->v[d];
        for (size_t k = 0; crd->established && k < crd->n_versions; k++) {
            if (crd->versions[k].served && i-- == 0) {
                return &crd->versions[k].res;
            }
        }
    }
    return NULL;
}
