/* NodeName: a pod that names its node fits nowhere else. */
#include "controlplane/scheduler/plugin.h"

static const char *filter(const struct th_sched_ctx *c, const struct th_node_info *n, char *buf,
                          char **ret_more)
{
    (void)buf;
    (void)ret_more;
    const char *wanted = th_json_path_str(c->pod, "spec.nodeName");
    return !wanted || !*wanted || th_streq(wanted, n->name)
               ? NULL
               : "node(s) didn't match the requested node name";
}

const struct th_sched_plugin th_sched_node_name = {
    .name = "NodeName",
    .filter = filter,
};
