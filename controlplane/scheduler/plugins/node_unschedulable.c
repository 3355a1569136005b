/* NodeUnschedulable: cordoned nodes take only pods that tolerate the taint of that name. */
#include "controlplane/scheduler/plugin.h"
#include "controlplane/schema/toleration.h"

static enum th_fit filter(const struct th_sched_ctx *c, const void *state,
                          const struct th_node_info *n, char **ret_why)
{
    (void)state;
    if (!th_json_path_bool(n->obj, "spec.unschedulable", false)) {
        return TH_FIT;
    }
    struct th_json *taint TH_AUTO(th_json) =
        th_json_build("{'key':'node.kubernetes.io/unschedulable','effect':'NoSchedule'}");
    if (th_tolerates(th_json_path(c->pod, "spec.tolerations"), taint)) {
        return TH_FIT;
    }
    *ret_why = th_xstrdup("node(s) were unschedulable");
    return TH_UNFIT_FOR_CERTAIN;
}

const struct th_sched_plugin th_sched_node_unschedulable = {
    .name = "NodeUnschedulable",
    .filter = filter,
};
