/*
 * NodeResourcesFit: what is requested must be free; among the nodes that fit, the one with most
 * left over (LeastAllocated over CPU and memory) scores best. A pod that asks for nothing counts
 * with upstream's small default, so that such pods spread too.
 */
#include "controlplane/scheduler/plugin.h"
#include <stdio.h>

#define DEFAULT_CPU_MILLI 100
#define DEFAULT_MEMORY_B (200ll << 20)

static const char *filter(const struct th_sched_ctx *c, const struct th_node_info *n, char *buf,
                          char **ret_more)
{
    struct th_buf more TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    const char *first = NULL;
    for (size_t i = 0; i < c->requests.n; i++) {
        const struct th_amount *r = &c->requests.v[i];
        int64_t left =
            th_amounts_get(&n->allocatable, r->name) - th_amounts_get(&n->requested, r->name);
        if (r->value == 0 || r->value <= left) {
            continue;
        }
        char text[128];
        if (th_streq(r->name, "pods")) {
            (void)snprintf(text, sizeof(text), "Too many pods");
        } else {
            (void)snprintf(text, sizeof(text), "Insufficient %s", r->name);
        }
        if (!first) {
            (void)snprintf(buf, 128, "%s", text);
            first = buf;
        } else {
            th_buf_printf(&more, "%s%s", more.n ? "\n" : "", text);
        }
    }
    if (more.n) {
        *ret_more = th_buf_steal(&more, NULL);
    }
    return first;
}

static int64_t free_share(int64_t capacity, int64_t used)
{
    return capacity <= 0 || used > capacity ? 0 : (capacity - used) * 100 / capacity;
}

static int64_t at_least(int64_t v, int64_t least)
{
    return v ? v : least;
}

static int64_t score(const struct th_sched_ctx *c, const struct th_node_info *n)
{
    int64_t cpu = at_least(th_amounts_get(&c->requests, "cpu"), DEFAULT_CPU_MILLI);
    int64_t memory = at_least(th_amounts_get(&c->requests, "memory"), DEFAULT_MEMORY_B);
    /* Pods that asked for nothing are counted by number. */
    int64_t pods = (int64_t)n->n_pods;
    int64_t used_cpu = at_least(th_amounts_get(&n->requested, "cpu"), pods * DEFAULT_CPU_MILLI);
    int64_t used_memory =
        at_least(th_amounts_get(&n->requested, "memory"), pods * DEFAULT_MEMORY_B);
    return (free_share(th_amounts_get(&n->allocatable, "cpu"), used_cpu + cpu) +
            free_share(th_amounts_get(&n->allocatable, "memory"), used_memory + memory)) /
           2;
}

const struct th_sched_plugin th_sched_node_resources = {
    .name = "NodeResourcesFit",
    .filter = filter,
    .score = score,
    .weight = 1,
};
