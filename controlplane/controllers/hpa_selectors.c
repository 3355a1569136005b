/* Which autoscaler reads which pods: two that read the same pods would pull at each other, so neither
 * scales while that is so.
 *
 * As upstream: an autoscaler is known from when its object is there until it goes, and its selector (of
 * its target's scale) from its first round on. The pods of the one that is looked at decide: when the
 * selector of another in the namespace matches one of them, all that match are named. */
#include "controlplane/controllers/hpa_priv.h"

#include "base/hmap.h"

#include <pthread.h>

struct th_hpa_selectors {
    pthread_mutex_t lock;
    struct th_hmap map; /* lock; "ns/name" -> selector; nothing until its first round */
};

static void free_selector(void *p)
{
    th_selector_free(p);
}

struct th_hpa_selectors *th_hpa_selectors_new(void)
{
    struct th_hpa_selectors *s = TH_NEW(struct th_hpa_selectors);
    (void)pthread_mutex_init(&s->lock, NULL);
    th_hmap_init(&s->map, free_selector);
    return s;
}

void th_hpa_selectors_free(struct th_hpa_selectors *s)
{
    th_hmap_done(&s->map);
    (void)pthread_mutex_destroy(&s->lock);
    free(s);
}

void th_hpa_selectors_know(struct th_hpa_selectors *s, const char *key)
{
    (void)pthread_mutex_lock(&s->lock);
    if (!th_hmap_has(&s->map, key)) {
        th_hmap_set(&s->map, key, th_selector_nothing());
    }
    (void)pthread_mutex_unlock(&s->lock);
}

void th_hpa_selectors_forget(struct th_hpa_selectors *s, const char *key)
{
    (void)pthread_mutex_lock(&s->lock);
    th_selector_free(th_hmap_remove(&s->map, key));
    (void)pthread_mutex_unlock(&s->lock);
}

/* Those of the namespace that match one of the pods, "{name ns}" each, sorted. Under the lock. */
static void who_match(const struct th_hpa_selectors *s, const char *ns, const struct th_pods *pods,
                      struct th_strv *ret)
{
    struct th_hmap_entry *e;
    for (size_t it = 0; (e = th_hmap_next(&s->map, &it));) {
        const char *slash = strchr(e->key, '/');
        bool here = slash && strlen(ns) == (size_t)(slash - e->key) &&
                    strncmp(e->key, ns, strlen(ns)) == 0;
        bool found = false;
        for (size_t i = 0; here && i < pods->n && !found; i++) {
            found = th_selector_matches(e->value, th_json_path(pods->v[i], "metadata.labels"));
        }
        if (found) {
            th_strv_take(ret, th_xasprintf("{%s %s}", slash + 1, ns));
        }
    }
    th_strv_sort(ret);
}

char *th_hpa_selectors_others(struct th_hpa_selectors *s, const char *key, const struct th_hpa_query *q)
{
    TH_AUTO(th_selector) struct th_selector *sel = NULL;
    if (th_selector_parse(q->selector, &sel, NULL) < 0) {
        return NULL;
    }
    struct th_pods pods TH_CLEANUP(th_pods_done) = {NULL, 0, 0};
    th_hpa_pods(q, &pods);
    th_autostrv struct th_strv who = TH_STRV_INIT;
    (void)pthread_mutex_lock(&s->lock);
    if (th_hmap_has(&s->map, key)) { /* not when it went meanwhile */
        th_hmap_set(&s->map, key, th_steal(&sel));
    }
    who_match(s, q->ns, &pods, &who);
    (void)pthread_mutex_unlock(&s->lock);
    th_autofree char *list = th_strv_join(&who, " ");
    return who.n > 1 ? th_xasprintf("pods by selector %s are controlled by multiple HPAs: [%s]",
                                    q->selector, list)
                     : NULL;
}
