/* NodeUnschedulable: cordoned nodes take only pods that tolerate the taint of that name. */
#include "controlplane/scheduler/plugin.h"
#include "controlplane/schema/toleration.h"

static const char *filter(const struct th_sched_ctx *c, const struct th_node_info *n, char *buf,
                          char **ret_more)
{
    (void)buf;
    (void)ret_more;
    if (!th_json_path_bool(n->obj, "spec.unschedulable", false)) {
        return NULL;
    }
    struct th_json *taint TH_AUTO(th_json) =
        th_json_build("{'key':'node.kubernetes.io/unschedulable','effect':'NoSchedule'}");
    return th_tolerates(th_json_path(c->pod, "spec.tolerations"), taint)
               ? NULL
               : "node(s) were unschedulable";
}

const struct th_sched_plugin th_sched_node_unschedulable = {
    .name = "NodeUnschedulable",
    .filter = filter,
};
