#ifndef TH_POD_CONTROL_H
#define TH_POD_CONTROL_H
/* What all controllers that own pods do alike: find theirs (adopt, release), make and delete them
 * with events, and wait until the cache has seen it. */
#include "controlplane/controllers/controller.h"
#include "controlplane/controllers/podutil.h"
#include "controlplane/schema/selector.h"

struct th_pods {
    struct th_json **v; /* references */
    size_t n, cap;
};
void th_pods_add(struct th_pods *p, struct th_json *pod); /* takes a reference of its own */
void th_pods_done(struct th_pods *p);

/* spec.selector of an owner: a LabelSelector, or a plain map (ReplicationController). */
int th_podctl_selector(const struct th_json *owner, struct th_selector **ret,
                       struct th_err *err) TH_MUST_USE;

/* The state of such a controller: rows set state_new and state_free to these two (or embed it). It
 * remembers pods without a controller as their events come, so that a reconcile need not look at
 * every pod of the namespace. */
struct th_orphans;
void *th_orphans_new(struct th_ctrl *c);
void th_orphans_free(void *state);

/* The pod event: enqueues the controlling owner of that kind; for a pod without one, every object
 * of `gvr` in its namespace whose spec.selector matches it. */
void th_podctl_on_pod(struct th_ctrl *c, struct th_orphans *o, const struct th_json *old,
                      const struct th_json *now, struct th_gvr gvr, const char *kind);

/* The pods of owner (whose apiVersion and kind are set): owned ones that match sel; those that do
 * not are released, matching ones without a controller are adopted when may_adopt (NULL: when they
 * are active) agrees. Ended and terminating pods are included. */
int th_podctl_claim(struct th_ctrl *c, struct th_orphans *o, const struct th_json *owner,
                    struct th_gvr gvr, const struct th_selector *sel,
                    bool (*may_adopt)(const struct th_json *owner, const struct th_json *pod),
                    struct th_pods *ret, struct th_err *err) TH_MUST_USE;

/* Creates pod for owner and tells it (SuccessfulCreate, FailedCreate); key awaits it. ret may be
 * NULL. */
int th_podctl_create(struct th_ctrl *c, const char *key, const struct th_json *owner,
                     const struct th_json *pod, struct th_json **ret,
                     struct th_err *err) TH_MUST_USE;
/* The same for deletion (SuccessfulDelete, FailedDelete); a pod that is gone is no failure. */
int th_podctl_delete(struct th_ctrl *c, const char *key, const struct th_json *owner,
                     const struct th_json *pod, struct th_err *err) TH_MUST_USE;

/* Owner references of other objects. 1: done, 0: obj is gone or has another owner by now. */
int th_ctrl_adopt(struct th_ctrl *c, struct th_gvr gvr, const struct th_json *obj,
                  const struct th_json *owner, struct th_json **ret,
                  struct th_err *err) TH_MUST_USE;
int th_ctrl_release(struct th_ctrl *c, struct th_gvr gvr, const struct th_json *obj,
                    const struct th_json *owner, struct th_err *err) TH_MUST_USE;
/* Asks the server whether owner still is the same and not being deleted: caches may be behind. */
int th_ctrl_may_adopt(struct th_ctrl *c, struct th_gvr gvr, const struct th_json *owner,
                      struct th_err *err) TH_MUST_USE;
#endif
