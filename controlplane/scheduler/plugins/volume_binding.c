/* VolumeBinding: the node can have the volumes of the pod's claims. */
#include "controlplane/scheduler/volumes.h"

static enum th_fit filter(const struct th_sched_ctx *c, const void *state,
                          const struct th_node_info *n, char **ret_why)
{
    (void)state;
    return !c->volumes || th_sched_volumes_fit(c->volumes, n, NULL, ret_why)
               ? TH_FIT
               : TH_UNFIT_FOR_CERTAIN;
}

const struct th_sched_plugin th_sched_volume_binding = {
    .name = "VolumeBinding",
    .filter = filter,
};
