/*
 * TaintToleration: NoSchedule and NoExecute taints keep pods away that do not tolerate them;
 * PreferNoSchedule ones count against a node.
 */
#include "controlplane/scheduler/plugin.h"
#include "controlplane/schema/toleration.h"

static enum th_fit filter(const struct th_sched_ctx *c, const void *state,
                          const struct th_node_info *n, char **ret_why)
{
    (void)state;
    const struct th_json *taints = th_json_path(n->obj, "spec.taints");
    const struct th_json *tolerations = th_json_path(c->pod, "spec.tolerations");
    for (size_t i = 0; i < th_json_len(taints); i++) {
        const struct th_json *taint = th_json_at(taints, i);
        if (!th_streq(th_json_path_str(taint, "effect"), "PreferNoSchedule") &&
            !th_tolerates(tolerations, taint)) {
            *ret_why = th_xstrdup("node(s) had untolerated taint(s)");
            return TH_UNFIT_FOR_CERTAIN;
        }
    }
    return TH_FIT;
}

static int64_t score(const struct th_sched_ctx *c, const void *state, const struct th_node_info *n)
{
    (void)state;
    const struct th_json *taints = th_json_path(n->obj, "spec.taints");
    const struct th_json *tolerations = th_json_path(c->pod, "spec.tolerations");
    int64_t intolerable = 0;
    for (size_t i = 0; i < th_json_len(taints); i++) {
        const struct th_json *taint = th_json_at(taints, i);
        intolerable += th_streq(th_json_path_str(taint, "effect"), "PreferNoSchedule") &&
                       !th_tolerates(tolerations, taint);
    }
    return intolerable;
}

const struct th_sched_plugin th_sched_taint_toleration = {
    .name = "TaintToleration",
    .filter = filter,
    .score = score,
    .weight = 3,
    .normalize = TH_NORM_REVERSE,
};
