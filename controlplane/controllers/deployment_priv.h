#ifndef TH_DEPLOYMENT_PRIV_H
#define TH_DEPLOYMENT_PRIV_H
/* Between the files of the Deployment controller: deployment.c (reconcile), deployment_rs.c (which
 * ReplicaSet is new, revisions, annotations), deployment_rollout.c (scaling and strategies) and
 * deployment_status.c. */
#include "controlplane/controllers/controller.h"
#include "controlplane/controllers/podutil.h"

#define TH_REVISION_ANNOTATION "deployment.kubernetes.io/revision"
#define TH_REVISION_HISTORY_ANNOTATION "deployment.kubernetes.io/revision-history"
#define TH_DESIRED_ANNOTATION "deployment.kubernetes.io/desired-replicas"
#define TH_MAX_ANNOTATION "deployment.kubernetes.io/max-replicas"
#define TH_HASH_LABEL "pod-template-hash"

struct th_rs_list {
    struct th_json **v; /* references */
    size_t n, cap;
};
void th_rs_list_add(struct th_rs_list *l, struct th_json *rs); /* takes a reference of its own */
void th_rs_list_done(struct th_rs_list *l);

/* One reconcile of one Deployment. */
struct th_deploy {
    struct th_ctrl *c;
    const char *key;
    const char *ns, *name;  /* borrowed from d */
    struct th_json *d;      /* our copy; status.conditions are changed in place */
    struct th_rs_list all;  /* owned ReplicaSets */
    struct th_rs_list old;  /* without the new one */
    struct th_json *new_rs; /* reference or NULL */
    int64_t *ret_after_ms;
};

/* deployment_rs.c */
/* Splits x->all into new and old; with create, makes the new one when it is missing, and brings its
 * annotations and the Deployment's revision up to date. May scale nothing. */
int th_deploy_find_sets(struct th_deploy *x, bool create, struct th_err *err) TH_MUST_USE;
int64_t th_deploy_revision(const struct th_json *obj);
bool th_deploy_saturated(const struct th_deploy *x);
int64_t th_deploy_max_surge(const struct th_json *d);
int64_t th_deploy_max_unavailable(const struct th_json *d);
int64_t th_deploy_new_rs_replicas(const struct th_deploy *x); /* as the strategy allows now */
bool th_deploy_is_rolling(const struct th_json *d);
/* PUT of the ReplicaSet with this many replicas and fresh size annotations; replaces *rs by the
 * answer. Gives 1 when it was scaled (with an event), 0 when it was so already. */
int th_deploy_scale_rs(struct th_deploy *x, struct th_json **rs, int64_t replicas,
                       struct th_err *err) TH_MUST_USE;

/* deployment_rollout.c */
int th_deploy_rolling(struct th_deploy *x, struct th_err *err) TH_MUST_USE;
int th_deploy_recreate(struct th_deploy *x, struct th_err *err) TH_MUST_USE;
int th_deploy_scale(struct th_deploy *x,
                    struct th_err *err) TH_MUST_USE; /* paused, or replicas changed */
int th_deploy_cleanup(struct th_deploy *x, struct th_err *err) TH_MUST_USE;

/* deployment_status.c */
int th_deploy_sync_status(struct th_deploy *x, struct th_err *err) TH_MUST_USE; /* plain */
int th_deploy_sync_rollout_status(struct th_deploy *x,
                                  struct th_err *err) TH_MUST_USE; /* with progress */
bool th_deploy_complete(const struct th_json *d, const struct th_json *status);
bool th_deploy_has_deadline(const struct th_json *d);
/* Writes d.status as it is in x->d. */
int th_deploy_write_status(struct th_deploy *x, struct th_json *status,
                           struct th_err *err) TH_MUST_USE;
/* Sets the Progressing condition in x->d.status; true when it changed. */
bool th_deploy_set_progress(struct th_deploy *x, const char *status, const char *reason,
                            const char *fmt, ...) TH_PRINTF(4, 5);
struct th_json *th_deploy_status(struct th_json *d); /* d.status, made when missing; borrowed */
int64_t th_rs_sum(const struct th_rs_list *l, const struct th_json *one_more, const char *path);
#endif
