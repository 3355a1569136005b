/*
 * NodeResourcesFit: what is requested must be free; among the nodes that fit, the one with most
 * left over (LeastAllocated over CPU and memory) scores best.
 */
#include "base/buf.h"
#include "controlplane/scheduler/plugin.h"

static enum th_fit filter(const struct th_sched_ctx *c, const void *state,
                          const struct th_node_info *n, char **ret_why)
{
    (void)state;
    struct th_buf why TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    bool never = false;
    for (size_t i = 0; i < c->requests.n; i++) {
        const struct th_amount *r = &c->requests.v[i];
        int64_t all = th_amounts_get(&n->allocatable, r->name);
        if (r->value == 0 || r->value <= all - th_amounts_get(&n->requested, r->name)) {
            continue;
        }
        never = never || r->value > all;
        if (th_streq(r->name, "pods")) {
            th_buf_printf(&why, "%sToo many pods", why.n ? "\n" : "");
        } else {
            th_buf_printf(&why, "%sInsufficient %s", why.n ? "\n" : "", r->name);
        }
    }
    if (why.n == 0) {
        return TH_FIT;
    }
    *ret_why = th_buf_steal(&why, NULL);
    return never ? TH_UNFIT_FOR_CERTAIN : TH_UNFIT;
}

static int64_t free_share(int64_t capacity, int64_t used)
{
    return capacity <= 0 || used > capacity ? 0 : (capacity - used) * 100 / capacity;
}

static int64_t score(const struct th_sched_ctx *c, const void *state, const struct th_node_info *n)
{
    (void)state;
    return (free_share(th_amounts_get(&n->allocatable, "cpu"), n->cpu + c->cpu) +
            free_share(th_amounts_get(&n->allocatable, "memory"), n->memory + c->memory)) /
           2;
}

const struct th_sched_plugin th_sched_node_resources = {
    .name = "NodeResourcesFit",
    .filter = filter,
    .score = score,
    .weight = 1,
};
