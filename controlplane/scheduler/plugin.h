#ifndef TH_SCHEDULER_PLUGIN_H
#define TH_SCHEDULER_PLUGIN_H
/* Filters and scores. A plugin is one file in plugins/ with a row in plugins.def; rows are asked in
 * order, and the first filter that says no gives the reason for that node. */
#include "base/json/json.h"
#include <stdint.h>

/* Amounts by resource name: milli-CPU for "cpu", whole units for the others. */
struct th_amount {
    char *name;
    int64_t value;
};
struct th_amounts {
    struct th_amount *v;
    size_t n;
};
void th_amounts_done(struct th_amounts *a);
int64_t th_amounts_get(const struct th_amounts *a, const char *name);
/* a += sign * b */
void th_amounts_add(struct th_amounts *a, const struct th_amounts *b, int sign);
/* From a quantity map such as status.allocatable; bad quantities count as 0. */
void th_amounts_read(struct th_amounts *a, const struct th_json *map);
/* What a pod needs: containers and sidecars together, or the greediest init container with the
 * sidecars before it, plus overhead; as k8s.io/component-helpers resource.PodRequests. Adds
 * "pods": 1. */
void th_pod_requests(const struct th_json *pod, struct th_amounts *ret);

struct th_host_port {
    char *ip; /* "" is all addresses */
    char *proto;
    int port;
};
struct th_host_ports {
    struct th_host_port *v;
    size_t n;
};
void th_host_ports_read(const struct th_json *pod, struct th_host_ports *ret);
void th_host_ports_done(struct th_host_ports *p);

/* A pod that is on a node, or assumed to be. */
struct th_sched_pod {
    char *key; /* "ns/name" */
    char *node;
    struct th_amounts requests;
    struct th_host_ports ports;
};
/* A node as the scheduler sees it. */
struct th_node_info {
    char *name;
    struct th_json *obj;
    struct th_amounts allocatable, requested;
    struct th_sched_pod **pods; /* borrowed from the snapshot's index */
    size_t n_pods, cap_pods;
};
/* The pod to place, with what plugins need of it worked out once. */
struct th_sched_ctx {
    const struct th_json *pod;
    struct th_amounts requests;
    struct th_host_ports ports;
    struct th_node_selector *required;
    bool has_required;
};

struct th_sched_plugin {
    const char *name;
    /* NULL: fits. Else why not, in upstream's words; static or in buf (128 bytes). *ret_more (may
     * get further reasons of the same plugin separated by '\n') is the caller's to free. */
    const char *(*filter)(const struct th_sched_ctx *c, const struct th_node_info *n, char *buf,
                          char **ret_more);
    int64_t (*score)(const struct th_sched_ctx *c, const struct th_node_info *n); /* 0..100 */
    int weight;
    bool score_is_reverse; /* raw scores count badness: normalized as 100 - 100 * raw / max */
    bool normalize;        /* raw scores are scaled so that the best gets 100 */
};
#endif
