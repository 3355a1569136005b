/*
 * InterPodAffinity: pods that want to be near others, or away from them, counted by topology domain
 * ("zone=a"). prepare counts once over all pods:
 *
 *   near     per required affinity term of the pod: pods that match ALL of its terms;
 *   away     per required anti-affinity term of the pod: pods that match it;
 *   keeping  required anti-affinity of pods that are there and mean this one;
 *   liking   weights of preferred terms, of this pod and of those that are there (whose required
 *            affinity counts 1 too).
 *
 * The first pod of a group that wants to be near itself may go anywhere. Rules as k8s.io/kubernetes
 * pkg/scheduler/framework/plugins/interpodaffinity.
 */
#include "base/buf.h"
#include "controlplane/scheduler/plugin.h"

struct counts {
    struct th_hmap near, away, keeping, liking; /* "key=value" -> number */
    bool any_near, matches_itself;
};

static void add(struct th_hmap *m, const struct th_node_info *n, const char *key, int64_t by)
{
    const char *value = th_node_label(n, key);
    if (value) {
        th_autofree char *pair = th_xasprintf("%s=%s", key, value);
        intptr_t now = (intptr_t)th_hmap_get(m, pair);
        th_hmap_set(m, pair, (void *)(now + (intptr_t)by));
    }
}

static int64_t get(const struct th_hmap *m, const char *key, const char *value)
{
    th_autofree char *pair = th_xasprintf("%s=%s", key, value);
    return (intptr_t)th_hmap_get(m, pair);
}

static bool matches_all_near(const struct th_sched_ctx *c, const char *ns,
                             const struct th_json *labels)
{
    bool any = false;
    for (size_t i = 0; c->aff && i < c->aff->n; i++) {
        const struct th_aff_term *t = &c->aff->v[i];
        if (t->required && !t->anti) {
            any = true;
            if (!th_aff_term_matches(t, c->namespaces, ns, labels)) {
                return false;
            }
        }
    }
    return any;
}

/* What the pod to place thinks of one that is there. */
static void count_ours(const struct th_sched_ctx *c, struct counts *k, const struct th_node_info *n,
                       const struct th_sched_pod *pod)
{
    bool near = matches_all_near(c, pod->ns, pod->labels);
    for (size_t i = 0; c->aff && i < c->aff->n; i++) {
        const struct th_aff_term *t = &c->aff->v[i];
        if (t->required && !t->anti) {
            if (near) {
                add(&k->near, n, t->topology_key, 1);
                k->any_near = true;
            }
        } else if (th_aff_term_matches(t, c->namespaces, pod->ns, pod->labels)) {
            if (t->required) {
                add(&k->away, n, t->topology_key, 1);
            } else {
                add(&k->liking, n, t->topology_key, t->weight);
            }
        }
    }
}

/* What one that is there thinks of the pod to place. */
static void count_theirs(const struct th_sched_ctx *c, struct counts *k,
                         const struct th_node_info *n, const struct th_sched_pod *pod)
{
    for (size_t i = 0; i < pod->aff->n; i++) {
        const struct th_aff_term *t = &pod->aff->v[i];
        if (!th_aff_term_matches(t, c->namespaces, c->ns, c->labels)) {
            continue;
        }
        if (t->required && t->anti) {
            add(&k->keeping, n, t->topology_key, 1);
        } else {
            add(&k->liking, n, t->topology_key, t->required ? 1 : t->weight);
        }
    }
}

static void *prepare(const struct th_sched_ctx *c)
{
    if (!c->aff && !c->any_aff) {
        return NULL;
    }
    struct counts *k = TH_NEW(struct counts);
    struct th_hmap *maps[] = {&k->near, &k->away, &k->keeping, &k->liking};
    for (size_t i = 0; i < TH_ARRAY_LEN(maps); i++) {
        th_hmap_init(maps[i], NULL);
    }
    for (size_t i = 0; i < c->n_nodes; i++) {
        const struct th_node_info *n = c->nodes[i];
        for (size_t p = 0; p < n->n_pods; p++) {
            const struct th_sched_pod *pod = n->pods[p];
            if (pod->removed) {
                continue;
            }
            count_ours(c, k, n, pod);
            if (pod->aff) {
                count_theirs(c, k, n, pod);
            }
        }
    }
    k->matches_itself = matches_all_near(c, c->ns, c->labels);
    return k;
}

static void release(void *state)
{
    struct counts *k = state;
    struct th_hmap *maps[] = {&k->near, &k->away, &k->keeping, &k->liking};
    for (size_t i = 0; i < TH_ARRAY_LEN(maps); i++) {
        th_hmap_done(maps[i]);
    }
    free(k);
}

static bool near_enough(const struct th_sched_ctx *c, const struct counts *k,
                        const struct th_node_info *n)
{
    bool all = true;
    for (size_t i = 0; c->aff && i < c->aff->n; i++) {
        const struct th_aff_term *t = &c->aff->v[i];
        if (!t->required || t->anti) {
            continue;
        }
        const char *value = th_node_label(n, t->topology_key);
        if (!value) {
            return false;
        }
        all = all && get(&k->near, t->topology_key, value) > 0;
    }
    return all || (!k->any_near && k->matches_itself);
}

static bool too_near(const struct th_sched_ctx *c, const struct counts *k,
                     const struct th_node_info *n)
{
    for (size_t i = 0; c->aff && i < c->aff->n; i++) {
        const struct th_aff_term *t = &c->aff->v[i];
        const char *value = th_node_label(n, t->topology_key);
        if (t->required && t->anti && value && get(&k->away, t->topology_key, value) > 0) {
            return true;
        }
    }
    return false;
}

static int64_t sum_of_domains(const struct th_hmap *m, const struct th_node_info *n)
{
    int64_t sum = 0;
    struct th_json_iter it = TH_JSON_ITER(th_json_path(n->obj, "metadata.labels"));
    while (m->n > 0 && th_json_next(&it)) {
        sum += get(m, it.name, th_json_str(it.value));
    }
    return sum;
}

static enum th_fit filter(const struct th_sched_ctx *c, const void *state,
                          const struct th_node_info *n, char **ret_why)
{
    const struct counts *k = state;
    if (!near_enough(c, k, n)) {
        *ret_why = th_xstrdup("node(s) didn't match pod affinity rules");
        return TH_UNFIT_FOR_CERTAIN;
    }
    if (too_near(c, k, n)) {
        *ret_why = th_xstrdup("node(s) didn't match pod anti-affinity rules");
        return TH_UNFIT;
    }
    if (sum_of_domains(&k->keeping, n) > 0) {
        *ret_why = th_xstrdup("node(s) didn't satisfy existing pods anti-affinity rules");
        return TH_UNFIT;
    }
    return TH_FIT;
}

static int64_t score(const struct th_sched_ctx *c, const void *state, const struct th_node_info *n)
{
    (void)c;
    const struct counts *k = state;
    return sum_of_domains(&k->liking, n);
}

const struct th_sched_plugin th_sched_interpod_affinity = {
    .name = "InterPodAffinity",
    .prepare = prepare,
    .release = release,
    .filter = filter,
    .score = score,
    .weight = 2,
    .normalize = TH_NORM_RANGE,
};
