#ifndef TH_SCHEDULER_FRAMEWORK_H
#define TH_SCHEDULER_FRAMEWORK_H
/* The picture of the cluster, and running the plugins over it. Not thread-safe: the scheduler's lock
 * guards it. */
#include "controlplane/scheduler/plugin.h"

struct th_picture {
    struct th_hmap nodes;      /* name -> struct th_node_info */
    struct th_hmap pods;       /* key -> struct th_sched_pod, on nodes or assumed */
    struct th_hmap nominated;  /* key -> struct th_sched_pod, waiting for victims to go */
    struct th_hmap namespaces; /* name -> labels */
    size_t n_aff;              /* pods with affinity to pods */
};
void th_picture_init(struct th_picture *p);
void th_picture_done(struct th_picture *p);
void th_picture_put_pod(struct th_picture *p, const char *node, const struct th_json *pod);
bool th_picture_drop_pod(struct th_picture *p, const char *key); /* false: was not there */
void th_picture_put_node(struct th_picture *p, const struct th_json *node);
void th_picture_drop_node(struct th_picture *p, const char *name);
/* node NULL: not nominated any more. */
void th_picture_nominate(struct th_picture *p, const struct th_json *pod, const char *node);
void th_picture_put_namespace(struct th_picture *p, const char *name, const struct th_json *labels);

/* Why nodes did not fit. */
struct th_verdict {
    enum th_fit fit;
    char *why;
};
struct th_reasons {
    struct th_hmap counts; /* text -> count as a pointer-sized number */
};
void th_reasons_init(struct th_reasons *r);
void th_reasons_done(struct th_reasons *r);
void th_reasons_add(struct th_reasons *r, const char *lines);
/* "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable."; the caller frees. */
char *th_reasons_text(const struct th_reasons *r, size_t nodes);

/* nodes is borrowed and must hold all nodes of the picture. */
void th_sched_ctx_init(struct th_sched_ctx *c, const struct th_picture *p,
                       const struct th_json *pod, struct th_node_info *const *nodes,
                       size_t n_nodes);
void th_sched_ctx_done(struct th_sched_ctx *c);
/* Runs the plugins' prepare (again): after the picture has changed. */
void th_sched_prepare(struct th_sched_ctx *c);
/* Through all filters; *ret_why (may be NULL) is the caller's to free. */
enum th_fit th_sched_filter(const struct th_sched_ctx *c, const struct th_node_info *n,
                            char **ret_why);
/* The same with pods of at least this pod's priority that are nominated to the node. */
enum th_fit th_sched_filter_nominated(struct th_sched_ctx *c, struct th_picture *p,
                                      struct th_node_info *n, char **ret_why);
/* The best of nodes that fit (n > 0): weighted sum of the plugins' scores, normalized over them;
 * ties are broken by chance. */
struct th_node_info *th_sched_pick(const struct th_sched_ctx *c, struct th_node_info *const *nodes,
                                   size_t n);

/* Preemption: the node where the pod would fit when *ret_victims (borrowed; the caller frees the
 * array) went, or NULL with *ret_why ("0/1 nodes are available: 1 No preemption victims found for
 * incoming pod."). verdicts are those of the nodes of c. pdbs: array of PodDisruptionBudgets. */
struct th_node_info *th_sched_preempt(struct th_sched_ctx *c, struct th_picture *p,
                                      const struct th_verdict *verdicts, const struct th_json *pdbs,
                                      struct th_sched_pod ***ret_victims, size_t *ret_n,
                                      char **ret_why);
/* For preempt.c: a node's pods without the removed ones count again. */
void th_node_hide(struct th_node_info *n, struct th_sched_pod *pod, bool hidden);
#endif
