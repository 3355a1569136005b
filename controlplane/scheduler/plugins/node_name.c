/* NodeName: a pod that names its node fits nowhere else. */
#include "controlplane/scheduler/plugin.h"

static enum th_fit filter(const struct th_sched_ctx *c, const void *state,
                          const struct th_node_info *n, char **ret_why)
{
    (void)state;
    const char *wanted = th_json_path_str(c->pod, "spec.nodeName");
    if (!wanted || !*wanted || th_streq(wanted, n->name)) {
        return TH_FIT;
    }
    *ret_why = th_xstrdup("node(s) didn't match the requested node name");
    return TH_UNFIT_FOR_CERTAIN;
}

const struct th_sched_plugin th_sched_node_name = {
    .name = "NodeName",
    .filter = filter,
};
