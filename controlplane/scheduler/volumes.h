#ifndef TH_SCHED_VOLUMES_H
#define TH_SCHED_VOLUMES_H
/* The claims of a pod to be placed: what the cluster says of them, which nodes that allows, and
 * binding the volumes when a node was chosen. */
#include "controlplane/client/client.h"
#include "controlplane/scheduler/plugin.h"

struct th_sched_volume_caches {
    struct th_informer *claims, *volumes, *classes;
};
struct th_sched_volumes {
    char *refusal;           /* why no node will do, or NULL */
    struct th_json *bound;   /* the volumes of bound claims */
    bool lost;               /* some bound claim's volume is not there */
    struct th_json *delayed; /* claims that wait for a node, the smallest first */
    struct th_json *classes; /* theirs, by index */
    struct th_json *volumes; /* all, when `delayed` has any */
    struct th_strv alone;    /* names of claims that only one pod may use */
    struct th_json *chosen;  /* of the node: {claim, volume (NULL: to be made)} */
};
/* NULL: the pod uses no claims. Any thread; the result is one thread's. */
struct th_sched_volumes *th_sched_volumes_new(const struct th_sched_volume_caches *caches,
                                              const struct th_json *pod);
void th_sched_volumes_free(struct th_sched_volumes *v);
TH_DEFINE_AUTO(th_sched_volumes, th_sched_volumes_free)
/* Whether the node can have them all; chosen (may be NULL) gets what is to be bound there. On a
 * refusal *ret_why is set, the caller frees. */
bool th_sched_volumes_fit(const struct th_sched_volumes *v, const struct th_node_info *n,
                          struct th_json *chosen, char **ret_why);
/* Writes v->chosen for the node. 1: not bound yet, to be tried again when a claim has changed; 0: all
 * is bound. */
int th_sched_volumes_bind(struct th_client *client, const struct th_sched_volumes *v,
                          const char *node, struct th_err *err) TH_MUST_USE;
#endif
