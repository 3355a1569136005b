/* What a call sees as served: the built-in rows, those of custom resources and the APIServices.
 *
 * A call takes the current set of either kind on first use and keeps it to its end, so that it sees
 * one state of both. Documents made from them (discovery, OpenAPI) are kept in the API's cache until a
 * set is replaced; th_call_lock_docs gives a call the cache only when its sets are those the documents
 * were made from. Built-in groups are described apart from all others, so their documents stay.
 */
#include "controlplane/api/priv.h"

#include "controlplane/api/aggregate/aggregate.h"
#include "controlplane/api/customs.h"

struct th_customs *th_call_customs(struct th_call *c)
{
    if (!c->customs) {
        c->customs = th_customs_get(c->api->customs);
    }
    return c->customs;
}

struct th_aggr_set *th_call_aggr(struct th_call *c)
{
    if (!c->aggr) {
        c->aggr = th_aggr_get(c->api->aggr);
    }
    return c->aggr;
}

bool th_call_hides(struct th_call *c, const struct th_resource *r)
{
    if (!r->optional) {
        return false;
    }
    const struct th_aggr_service *s = th_aggr_find(th_call_aggr(c), r->group, r->version);
    return !s || !s->local;
}

/* "/openapi/v3/apis/apps/v1": the document of a built-in group, which no definition changes. */
static bool doc_stays(const char *key)
{
    static const char prefix[] = "/openapi/v3/";
    if (!th_startswith(key, prefix)) {
        return false;
    }
    const char *gv = key + strlen(prefix);
    if (th_startswith(gv, "api/")) {
        return true;
    }
    gv += strlen("apis/");
    const char *g;
    for (size_t i = 0; (g = th_group_at(i)); i++) {
        size_t n = strlen(g);
        if (n && strncmp(gv, g, n) == 0 && gv[n] == '/') {
            return true;
        }
    }
    return false;
}

static void drop_docs(struct th_api *api)
{
    th_autostrv struct th_strv old = TH_STRV_INIT;
    const struct th_hmap_entry *e;
    for (size_t it = 0; (e = th_hmap_next(&api->cache, &it));) {
        if (!doc_stays(e->key)) {
            th_strv_add(&old, e->key);
        }
    }
    for (size_t i = 0; i < old.n; i++) {
        th_doc_free(th_hmap_remove(&api->cache, old.v[i]));
    }
}

void th_call_lock_docs(struct th_call *c)
{
    for (;;) {
        const struct th_customs *set = th_call_customs(c);
        const struct th_aggr_set *aggr = th_call_aggr(c);
        /* each of the three only grows, so their sum tells older from newer */
        uint64_t serial = (set ? set->serial : 0) + (aggr ? aggr->serial : 0) +
                          th_aggr_docs_serial(c->api->aggr);
        (void)pthread_mutex_lock(&c->api->lock);
        if (serial > c->api->docs_serial) {
            drop_docs(c->api);
            c->api->docs_serial = serial;
        }
        if (serial == c->api->docs_serial) {
            return;
        }
        (void)pthread_mutex_unlock(&c->api->lock); /* ours is older: take the new one */
        th_customs_unref(c->customs);
        th_aggr_unref(c->aggr);
        c->customs = NULL;
        c->aggr = NULL;
    }
}

const struct th_resource *th_call_resource_at(struct th_call *c, size_t i)
{
    const struct th_resource *r;
    size_t n = 0;
    while ((r = th_resource_at(n)) && !(r->optional && th_call_hides(c, r))) { /* optional ones are last */
        n++;
    }
    return i < n ? th_resource_at(i) : th_customs_at(th_call_customs(c), i - n);
}

bool th_group_served(struct th_call *c, const char *group)
{
    const struct th_resource *r;
    for (size_t i = 0; (r = th_call_resource_at(c, i)); i++) {
        if (th_streq(r->group, group)) {
            return true;
        }
    }
    return false;
}
