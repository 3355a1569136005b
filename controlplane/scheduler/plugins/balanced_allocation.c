/* NodeResourcesBalancedAllocation: CPU and memory should fill up alike. The score is 100 less the
 * standard deviation of the two shares, in percent. */
#include "controlplane/scheduler/plugin.h"

static int64_t permille(int64_t used, int64_t capacity)
{
    return capacity <= 0 || used >= capacity ? 1000 : used * 1000 / capacity;
}

static int64_t score(const struct th_sched_ctx *c, const void *state, const struct th_node_info *n)
{
    (void)state;
    int64_t cpu = permille(th_amounts_get(&n->requested, "cpu") + th_amounts_get(&c->requests, "cpu"),
                           th_amounts_get(&n->allocatable, "cpu"));
    int64_t memory =
        permille(th_amounts_get(&n->requested, "memory") + th_amounts_get(&c->requests, "memory"),
                 th_amounts_get(&n->allocatable, "memory"));
    int64_t apart = cpu > memory ? cpu - memory : memory - cpu;
    return (1000 - apart / 2) / 10;
}

const struct th_sched_plugin th_sched_balanced_allocation = {
    .name = "NodeResourcesBalancedAllocation",
    .score = score,
    .weight = 1,
};
