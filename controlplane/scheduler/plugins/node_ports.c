/* NodePorts: a host port can be had once per address and protocol. */
#include "controlplane/scheduler/plugin.h"

static bool clash(const struct th_host_port *a, const struct th_host_port *b)
{
    return a->port == b->port && th_streq(a->proto, b->proto) &&
           (!*a->ip || !*b->ip || th_streq(a->ip, b->ip));
}

static enum th_fit filter(const struct th_sched_ctx *c, const void *state,
                          const struct th_node_info *n, char **ret_why)
{
    (void)state;
    for (size_t p = 0; p < n->n_pods && c->ports.n; p++) {
        const struct th_host_ports *taken = &n->pods[p]->ports;
        for (size_t i = 0; i < taken->n && !n->pods[p]->removed; i++) {
            for (size_t k = 0; k < c->ports.n; k++) {
                if (clash(&taken->v[i], &c->ports.v[k])) {
                    *ret_why =
                        th_xstrdup("node(s) didn't have free ports for the requested pod ports");
                    return TH_UNFIT;
                }
            }
        }
    }
    return TH_FIT;
}

const struct th_sched_plugin th_sched_node_ports = {
    .name = "NodePorts",
    .filter = filter,
};
