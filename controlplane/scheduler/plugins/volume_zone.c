/* VolumeZone: a volume whose labels name zones or regions ("a__b") wants a node in one of them. Nodes
 * without such labels take any. */
#include "controlplane/scheduler/volumes.h"

#include "base/buf.h"

static const struct {
    const char *label, *newer;
} topologies[] = {{"topology.kubernetes.io/zone", NULL},
                  {"topology.kubernetes.io/region", NULL},
                  {"failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"},
                  {"failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"}};

static bool has_value(const char *list, const char *value)
{
    size_t n = strlen(value);
    for (const char *p = list; p; p = strstr(p, "__"), p = p ? p + 2 : NULL) {
        if (strncmp(p, value, n) == 0 && (!p[n] || strncmp(p + n, "__", 2) == 0)) {
            return true;
        }
    }
    return false;
}

static bool fits(const struct th_json *volume, const struct th_node_info *n)
{
    for (size_t i = 0; i < TH_ARRAY_LEN(topologies); i++) {
        const char *wanted =
            th_json_str(th_json_get(th_json_path(volume, "metadata.labels"), topologies[i].label));
        const char *have = th_node_label(n, topologies[i].label);
        if (!have && topologies[i].newer) {
            have = th_node_label(n, topologies[i].newer);
        }
        if (wanted && (!have || !has_value(wanted, have))) {
            return false;
        }
    }
    return true;
}

static enum th_fit filter(const struct th_sched_ctx *c, const void *state,
                          const struct th_node_info *n, char **ret_why)
{
    (void)state;
    bool zoned = false;
    for (size_t i = 0; c->volumes && i < TH_ARRAY_LEN(topologies); i++) {
        zoned = zoned || th_node_label(n, topologies[i].label);
    }
    for (size_t i = 0; zoned && i < th_json_len(c->volumes->bound); i++) {
        if (!fits(th_json_at(c->volumes->bound, i), n)) {
            *ret_why = th_xstrdup("node(s) had no available volume zone");
            return TH_UNFIT_FOR_CERTAIN;
        }
    }
    return TH_FIT;
}

const struct th_sched_plugin th_sched_volume_zone = {
    .name = "VolumeZone",
    .filter = filter,
};
