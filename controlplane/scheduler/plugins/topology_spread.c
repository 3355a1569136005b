/*
 * PodTopologySpread: pods that match a constraint's selector are to be spread over the domains of a
 * node label. Constraints with DoNotSchedule filter by skew (the domain's count with this pod, less
 * the least of all domains); those with ScheduleAnyway score. A pod without constraints spreads with
 * the pods of its controller over hosts and zones, as upstream's built-in defaults do (which find
 * them by the selectors of Services and controllers).
 *
 * Rules as k8s.io/kubernetes pkg/scheduler/framework/plugins/podtopologyspread: nodes that lack a
 * key of a filtering constraint are no part of its domains; nodeAffinityPolicy (Honor) and
 * nodeTaintsPolicy (Ignore) say which other nodes are not; fewer domains than minDomains make the
 * least 0; matchLabelKeys add the pod's own values to the selector.
 */
#include "base/buf.h"
#include "controlplane/scheduler/plugin.h"
#include "controlplane/schema/toleration.h"

#define HOSTNAME "kubernetes.io/hostname"
#define ZONE "topology.kubernetes.io/zone"

struct constraint {
    const char *key;
    int64_t max_skew, min_domains;
    bool hard, honor_affinity, honor_taints, self;
    struct th_selector *sel; /* NULL: the pods of the same controller */
    struct th_hmap counts;   /* domain -> number */
    int64_t least;
    int64_t weight; /* of a soft one, in thousandths: log(domains + 2) */
};
struct spread {
    struct constraint *v;
    size_t n;
    bool any_hard;
    const char *owner;
};

static const struct {
    const char *key;
    int64_t max_skew;
} built_in[] = {{HOSTNAME, 3}, {ZONE, 5}};

/* The natural logarithm of small numbers in thousandths, by its series for (n-1)/(n+1). */
static int64_t log_milli(int64_t n)
{
    double x = ((double)n - 1) / ((double)n + 1), power = x, sum = 0;
    for (int k = 1; k < 400; k += 2) {
        sum += power / k;
        power *= x * x;
    }
    return (int64_t)(2000 * sum);
}

static struct th_selector *selector_of(const struct th_sched_ctx *c, const struct th_json *t)
{
    struct th_json *sel TH_AUTO(th_json) = th_json_dup(th_json_get(t, "labelSelector"));
    const struct th_json *keys = th_json_get(t, "matchLabelKeys");
    for (size_t i = 0; sel && i < th_json_len(keys); i++) {
        const char *key = th_json_str(th_json_at(keys, i));
        const char *value = key ? th_json_str(th_json_get(c->labels, key)) : NULL;
        if (value) {
            th_json_append(th_json_path_array(sel, "matchExpressions"),
                           th_json_build("{'key':%s,'operator':'In','values':[%s]}", key, value));
        }
    }
    struct th_selector *parsed = NULL;
    return th_selector_from_json(sel, &parsed, NULL) == 0 ? parsed : th_selector_nothing();
}

static void add_constraint(struct spread *s, struct constraint k)
{
    s->v = th_xrealloc(s->v, (s->n + 1) * sizeof(*s->v));
    th_hmap_init(&k.counts, NULL);
    s->v[s->n++] = k;
    s->any_hard = s->any_hard || k.hard;
}

static void read_constraints(const struct th_sched_ctx *c, struct spread *s)
{
    const struct th_json *list = th_json_path(c->pod, "spec.topologySpreadConstraints");
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *t = th_json_at(list, i);
        struct constraint k = {
            .key = th_json_path_str(t, "topologyKey"),
            .max_skew = th_json_path_int(t, "maxSkew", 1),
            .min_domains = th_json_path_int(t, "minDomains", 1),
            .hard = !th_streq(th_json_path_str(t, "whenUnsatisfiable"), "ScheduleAnyway"),
            .honor_affinity = !th_streq(th_json_path_str(t, "nodeAffinityPolicy"), "Ignore"),
            .honor_taints = th_streq(th_json_path_str(t, "nodeTaintsPolicy"), "Honor"),
            .sel = selector_of(c, t),
        };
        k.self = th_selector_matches(k.sel, c->labels);
        add_constraint(s, k);
    }
    for (size_t i = 0; th_json_len(list) == 0 && s->owner && i < TH_ARRAY_LEN(built_in); i++) {
        add_constraint(s, (struct constraint){.key = built_in[i].key,
                                              .max_skew = built_in[i].max_skew,
                                              .min_domains = 1,
                                              .honor_affinity = true,
                                              .self = true});
    }
}

static bool taints_tolerated(const struct th_sched_ctx *c, const struct th_node_info *n)
{
    const struct th_json *taints = th_json_path(n->obj, "spec.taints");
    for (size_t i = 0; i < th_json_len(taints); i++) {
        const struct th_json *t = th_json_at(taints, i);
        if (!th_streq(th_json_path_str(t, "effect"), "PreferNoSchedule") &&
            !th_tolerates(th_json_path(c->pod, "spec.tolerations"), t)) {
            return false;
        }
    }
    return true;
}

static bool counts_for(const struct th_sched_ctx *c, const struct constraint *k,
                       const struct th_node_info *n)
{
    return (!k->honor_affinity || th_sched_node_matches(c, n)) &&
           (!k->honor_taints || taints_tolerated(c, n));
}

static int64_t matching(const struct th_sched_ctx *c, const struct spread *s,
                        const struct constraint *k, const struct th_node_info *n)
{
    int64_t sum = 0;
    for (size_t i = 0; i < n->n_pods; i++) {
        const struct th_sched_pod *pod = n->pods[i];
        if (!pod->removed && !pod->deleting && th_streq(pod->ns, c->ns)) {
            sum += k->sel ? th_selector_matches(k->sel, pod->labels)
                          : th_streq(pod->owner_uid, s->owner);
        }
    }
    return sum;
}

static bool has_hard_keys(const struct spread *s, const struct th_node_info *n)
{
    for (size_t i = 0; i < s->n; i++) {
        if (s->v[i].hard && !th_node_label(n, s->v[i].key)) {
            return false;
        }
    }
    return true;
}

static void count_node(const struct th_sched_ctx *c, struct spread *s, const struct th_node_info *n)
{
    bool keys = has_hard_keys(s, n);
    for (size_t i = 0; i < s->n; i++) {
        struct constraint *k = &s->v[i];
        const char *domain = th_node_label(n, k->key);
        if (domain && (keys || !k->hard) && counts_for(c, k, n)) {
            intptr_t now = (intptr_t)th_hmap_get(&k->counts, domain);
            th_hmap_set(&k->counts, domain, (void *)(now + (intptr_t)matching(c, s, k, n)));
        }
    }
}

static void release(void *state)
{
    struct spread *s = state;
    for (size_t i = 0; i < s->n; i++) {
        th_selector_free(s->v[i].sel);
        th_hmap_done(&s->v[i].counts);
    }
    free(s->v);
    free(s);
}

static void *prepare(const struct th_sched_ctx *c)
{
    struct spread *s = TH_NEW(struct spread);
    const struct th_json *refs = th_json_path(c->pod, "metadata.ownerReferences");
    for (size_t i = 0; i < th_json_len(refs); i++) {
        if (th_json_path_bool(th_json_at(refs, i), "controller", false)) {
            s->owner = th_json_path_str(th_json_at(refs, i), "uid");
        }
    }
    read_constraints(c, s);
    if (s->n == 0) {
        release(s);
        return NULL;
    }
    for (size_t i = 0; i < c->n_nodes; i++) {
        count_node(c, s, c->nodes[i]);
    }
    for (size_t i = 0; i < s->n; i++) {
        struct constraint *k = &s->v[i];
        struct th_hmap_entry *e;
        bool few = (int64_t)k->counts.n < k->min_domains;
        k->least = few || k->counts.n == 0 ? 0 : INT64_MAX;
        for (size_t it = 0; !few && (e = th_hmap_next(&k->counts, &it));) {
            k->least = (intptr_t)e->value < k->least ? (intptr_t)e->value : k->least;
        }
        k->weight = log_milli((int64_t)k->counts.n + 2);
    }
    return s;
}

static enum th_fit filter(const struct th_sched_ctx *c, const void *state,
                          const struct th_node_info *n, char **ret_why)
{
    const struct spread *s = state;
    (void)c;
    for (size_t i = 0; i < s->n && s->any_hard; i++) {
        const struct constraint *k = &s->v[i];
        const char *domain = th_node_label(n, k->key);
        if (!k->hard) {
            continue;
        }
        if (!domain) {
            *ret_why = th_xstrdup("node(s) didn't match pod topology spread constraints (missing "
                                  "required label)");
            return TH_UNFIT_FOR_CERTAIN;
        }
        int64_t there = (intptr_t)th_hmap_get(&k->counts, domain);
        if (there + k->self - k->least > k->max_skew) {
            *ret_why = th_xstrdup("node(s) didn't match pod topology spread constraints");
            return TH_UNFIT;
        }
    }
    return TH_FIT;
}

/* Badness; negative for a node that lacks a key of the pod's own soft constraints. */
static int64_t score(const struct th_sched_ctx *c, const void *state, const struct th_node_info *n)
{
    const struct spread *s = state;
    int64_t sum = 0;
    for (size_t i = 0; i < s->n; i++) {
        const struct constraint *k = &s->v[i];
        const char *domain = th_node_label(n, k->key);
        if (k->hard) {
            continue;
        }
        if (!domain && k->sel) {
            return -1;
        }
        if (domain) {
            int64_t there = th_streq(k->key, HOSTNAME)
                                ? matching(c, s, k, n)
                                : (intptr_t)th_hmap_get(&k->counts, domain);
            sum += (there * k->weight + (k->max_skew - 1) * 1000) / 1000;
        }
    }
    return sum;
}

const struct th_sched_plugin th_sched_topology_spread = {
    .name = "PodTopologySpread",
    .prepare = prepare,
    .release = release,
    .filter = filter,
    .score = score,
    .weight = 2,
    .normalize = TH_NORM_SPREAD,
};
