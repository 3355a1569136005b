/* NodeAffinity: nodeSelector and required affinity filter, preferred affinity scores. */
#include "controlplane/scheduler/plugin.h"

bool th_sched_node_matches(const struct th_sched_ctx *c, const struct th_node_info *n)
{
    const struct th_json *labels = th_json_path(n->obj, "metadata.labels");
    struct th_json_iter it = TH_JSON_ITER(th_json_path(c->pod, "spec.nodeSelector"));
    while (th_json_next(&it)) {
        if (!th_streq(th_json_str(th_json_get(labels, it.name)), th_json_str(it.value))) {
            return false;
        }
    }
    return !c->required || th_node_selector_matches(c->required, labels, n->name);
}

static enum th_fit filter(const struct th_sched_ctx *c, const void *state,
                          const struct th_node_info *n, char **ret_why)
{
    (void)state;
    if (th_sched_node_matches(c, n)) {
        return TH_FIT;
    }
    *ret_why = th_xstrdup("node(s) didn't match Pod's node affinity/selector");
    return TH_UNFIT_FOR_CERTAIN;
}

static int64_t score(const struct th_sched_ctx *c, const void *state, const struct th_node_info *n)
{
    (void)state;
    const struct th_json *list = th_json_path(
        c->pod, "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution");
    int64_t sum = 0;
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *term = th_json_at(list, i);
        struct th_json *terms TH_AUTO(th_json) = th_json_array();
        th_json_append(terms, th_json_dup(th_json_get(term, "preference")));
        struct th_node_selector *sel TH_AUTO(th_node_selector) = th_node_selector_new(terms);
        if (th_node_selector_matches(sel, th_json_path(n->obj, "metadata.labels"), n->name)) {
            sum += th_json_path_int(term, "weight", 0);
        }
    }
    return sum;
}

const struct th_sched_plugin th_sched_node_affinity = {
    .name = "NodeAffinity",
    .filter = filter,
    .score = score,
    .weight = 2,
    .normalize = TH_NORM_MAX,
};
