/* VolumeRestrictions: a claim with ReadWriteOncePod is one pod's, on whatever node that one is. */
#include "controlplane/scheduler/volumes.h"

static bool in_use(const struct th_sched_ctx *c, const struct th_node_info *n)
{
    for (size_t i = 0; i < n->n_pods; i++) {
        const struct th_sched_pod *pod = n->pods[i];
        for (size_t k = 0; k < pod->claims.n && !pod->removed && th_streq(pod->ns, c->ns); k++) {
            if (th_strv_has(&c->volumes->alone, pod->claims.v[k])) {
                return true;
            }
        }
    }
    return false;
}

static enum th_fit filter(const struct th_sched_ctx *c, const void *state,
                          const struct th_node_info *n, char **ret_why)
{
    (void)state;
    (void)n;
    for (size_t i = 0; c->volumes && c->volumes->alone.n > 0 && i < c->n_nodes; i++) {
        if (in_use(c, c->nodes[i])) {
            *ret_why = th_xstrdup("node(s) unavailable due to PersistentVolumeClaim with "
                                  "ReadWriteOncePod access mode already in-use by another pod");
            return TH_UNFIT;
        }
    }
    return TH_FIT;
}

const struct th_sched_plugin th_sched_volume_restrictions = {
    .name = "VolumeRestrictions",
    .filter = filter,
};
