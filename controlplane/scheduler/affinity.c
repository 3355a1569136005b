/* Terms of affinity to pods, parsed once per pod; see plugin.h. Rules as k8s.io/kube-scheduler
 * framework.AffinityTerm: no namespaces and no namespaceSelector mean the pod's own namespace, an
 * empty namespaceSelector all of them; matchLabelKeys add the pod's own values to the selector and
 * mismatchLabelKeys exclude them. */
#include "base/buf.h"
#include "controlplane/scheduler/plugin.h"

static void term_done(struct th_aff_term *t)
{
    th_selector_free(t->sel);
    th_strv_done(&t->namespaces);
    th_selector_free(t->ns_sel);
    free(t->topology_key);
}

void th_aff_free(struct th_aff *a)
{
    if (a) {
        for (size_t i = 0; i < a->n; i++) {
            term_done(&a->v[i]);
        }
        free(a->v);
        free(a);
    }
}

static void add_keys(struct th_json *sel, const struct th_json *keys, const struct th_json *labels,
                     const char *op)
{
    for (size_t i = 0; i < th_json_len(keys); i++) {
        const char *key = th_json_str(th_json_at(keys, i));
        const char *value = key ? th_json_str(th_json_get(labels, key)) : NULL;
        if (value) {
            th_json_append(
                th_json_path_array(sel, "matchExpressions"),
                th_json_build("{'key':%s,'operator':%s,'values':[%s]}", key, op, value));
        }
    }
}

static bool term_read(struct th_aff_term *t, const struct th_json *pod, const struct th_json *term)
{
    *t = (struct th_aff_term){.topology_key = th_xstrdup(th_json_path_str(term, "topologyKey"))};
    const struct th_json *labels = th_json_path(pod, "metadata.labels");
    struct th_json *sel TH_AUTO(th_json) = th_json_dup(th_json_get(term, "labelSelector"));
    if (sel) {
        add_keys(sel, th_json_get(term, "matchLabelKeys"), labels, "In");
        add_keys(sel, th_json_get(term, "mismatchLabelKeys"), labels, "NotIn");
    }
    const struct th_json *ns_sel = th_json_get(term, "namespaceSelector");
    const struct th_json *names = th_json_get(term, "namespaces");
    if (!t->topology_key || th_selector_from_json(sel, &t->sel, NULL) < 0 ||
        (ns_sel && th_selector_from_json(ns_sel, &t->ns_sel, NULL) < 0)) {
        term_done(t);
        return false;
    }
    for (size_t i = 0; i < th_json_len(names); i++) {
        th_strv_add(&t->namespaces, th_json_str(th_json_at(names, i)));
    }
    if (!ns_sel && th_json_len(names) == 0) {
        th_strv_add(&t->namespaces, th_json_path_str(pod, "metadata.namespace"));
    }
    return true;
}

static void add_list(struct th_aff *a, const struct th_json *pod, const struct th_json *side,
                     bool anti, bool required)
{
    const struct th_json *list =
        th_json_get(side, required ? "requiredDuringSchedulingIgnoredDuringExecution"
                                   : "preferredDuringSchedulingIgnoredDuringExecution");
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *e = th_json_at(list, i);
        struct th_aff_term t;
        if (!term_read(&t, pod, required ? e : th_json_get(e, "podAffinityTerm"))) {
            continue;
        }
        t.anti = anti;
        t.required = required;
        t.weight = required ? 0 : th_json_path_int(e, "weight", 0) * (anti ? -1 : 1);
        a->has_required_anti = a->has_required_anti || (anti && required);
        a->v = th_xrealloc(a->v, (a->n + 1) * sizeof(*a->v));
        a->v[a->n++] = t;
    }
}

struct th_aff *th_aff_new(const struct th_json *pod)
{
    const struct th_json *affinity = th_json_path(pod, "spec.affinity");
    const struct th_json *sides[] = {th_json_get(affinity, "podAffinity"),
                                     th_json_get(affinity, "podAntiAffinity")};
    if (!sides[0] && !sides[1]) {
        return NULL;
    }
    struct th_aff *a = TH_NEW(struct th_aff);
    for (size_t i = 0; i < 4; i++) {
        add_list(a, pod, sides[i / 2], i / 2 == 1, i % 2 == 0);
    }
    if (a->n == 0) {
        th_aff_free(a);
        return NULL;
    }
    return a;
}

bool th_aff_term_matches(const struct th_aff_term *t, const struct th_hmap *namespaces,
                         const char *ns, const struct th_json *labels)
{
    bool in = th_strv_has(&t->namespaces, ns) ||
              (t->ns_sel && (th_selector_empty(t->ns_sel) ||
                             th_selector_matches(t->ns_sel, th_hmap_get(namespaces, ns))));
    return in && th_selector_matches(t->sel, labels);
}
