#ifndef TH_SCHEDULER_PLUGIN_H
#define TH_SCHEDULER_PLUGIN_H
/* Filters and scores. A plugin is one file in plugins/ with a row in plugins.def; rows are asked in
 * order, and the first filter that says no gives the reason for that node. */
#include "base/buf.h"
#include "base/hmap.h"
#include "base/json/json.h"
#include "controlplane/schema/podresources.h"
#include "controlplane/schema/selector.h"
#include <stdint.h>

struct th_host_port {
    char *ip; /* "" is all addresses */
    char *proto;
    int port;
};
struct th_host_ports {
    struct th_host_port *v;
    size_t n;
};
/* Of containers and sidecars. */
void th_host_ports_read(const struct th_json *pod, struct th_host_ports *ret);
void th_host_ports_done(struct th_host_ports *p);

/* One term of affinity or anti-affinity to pods. */
struct th_aff_term {
    struct th_selector *sel;
    struct th_strv namespaces;
    struct th_selector *ns_sel; /* NULL: the list only */
    char *topology_key;
    int64_t weight; /* of a preferred one; anti-affinity is negative */
    bool anti, required;
};
struct th_aff {
    struct th_aff_term *v;
    size_t n;
    bool has_required_anti;
};
/* NULL when the pod has none. */
struct th_aff *th_aff_new(const struct th_json *pod);
void th_aff_free(struct th_aff *a);

/* A pod that is on a node, or assumed or nominated to be. */
struct th_sched_pod {
    char *key; /* "ns/name" */
    char *ns, *uid, *node, *owner_uid; /* owner_uid NULL: no controller */
    struct th_json *labels;
    struct th_aff *aff;
    struct th_amounts requests;
    struct th_host_ports ports;
    struct th_strv claims; /* PersistentVolumeClaims it names */
    int64_t cpu, memory;   /* th_pod_nonzero */
    int64_t priority, start_ms;
    bool deleting;
    bool removed; /* a simulation of preemption took it away: not to be counted */
};
/* A node as the scheduler sees it. */
struct th_node_info {
    char *name;
    struct th_json *obj;
    struct th_amounts allocatable, requested;
    int64_t cpu, memory;        /* of its pods, th_pod_nonzero */
    struct th_sched_pod **pods; /* borrowed from the picture's index */
    size_t n_pods, cap_pods;
};
/* The value of a label of the node, or NULL. */
const char *th_node_label(const struct th_node_info *n, const char *key);

#define TH_SCHED_PLUGINS_MAX 16
struct th_sched_volumes;
/* The pod to place, with what plugins need of it worked out once, and the cluster around it. */
struct th_sched_ctx {
    const struct th_json *pod;
    const char *ns;
    const struct th_json *labels;
    struct th_amounts requests;
    struct th_host_ports ports;
    int64_t cpu, memory, priority;
    struct th_aff *aff;
    const struct th_sched_volumes *volumes; /* volumes.h; NULL: the pod has no claims */
    struct th_node_selector *required; /* node affinity, NULL: none */
    struct th_node_info *const *nodes; /* all of them */
    size_t n_nodes;
    const struct th_hmap *namespaces; /* name -> labels (struct th_json) */
    bool any_aff;                     /* some pod in the cluster has affinity to pods */
    void *state[TH_SCHED_PLUGINS_MAX]; /* of the plugins' prepare */
};
/* Whether the term, of a pod, means the pod with these labels in ns. */
bool th_aff_term_matches(const struct th_aff_term *t, const struct th_hmap *namespaces,
                         const char *ns, const struct th_json *labels);
/* nodeSelector and required affinity to nodes. */
bool th_sched_node_matches(const struct th_sched_ctx *c, const struct th_node_info *n);

enum th_fit {
    TH_FIT,
    TH_UNFIT,             /* other pods are in the way */
    TH_UNFIT_FOR_CERTAIN, /* no matter which pods there are: preemption does not help */
};
struct th_why {
    char *text; /* in upstream's words; several reasons of one plugin are separated by '\n' */
};

enum th_normalize {
    TH_NORM_NONE,    /* raw scores are 0..100 */
    TH_NORM_MAX,     /* the best gets 100 */
    TH_NORM_REVERSE, /* raw scores count badness: 100 - 100 * raw / max */
    TH_NORM_RANGE,   /* from the least (0) to the best (100); may be negative */
    TH_NORM_SPREAD   /* 100 * (max + min - raw) / max; negative raw is 0 */
};
struct th_sched_plugin {
    const char *name;
    /* Works out what filter and score need of the cluster; NULL result: neither has anything to do.
     * Without prepare both get state NULL and are always asked. */
    void *(*prepare)(const struct th_sched_ctx *c);
    void (*release)(void *state);
    /* On a refusal *ret_why is set, the caller frees. */
    enum th_fit (*filter)(const struct th_sched_ctx *c, const void *state,
                          const struct th_node_info *n, char **ret_why);
    /* nodes: only those that fit. */
    int64_t (*score)(const struct th_sched_ctx *c, const void *state, const struct th_node_info *n);
    int weight;
    enum th_normalize normalize;
};
#endif
