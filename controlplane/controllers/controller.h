#ifndef TH_CONTROLLER_H
#define TH_CONTROLLER_H
/* The controller runtime: what is the same for every controller lives here once. A controller is a
 * row: what it watches, how an event becomes keys, and a reconcile function that reads the caches,
 * computes what should be and writes the difference. It never trusts the event itself.
 *
 * To add one: a file with `const struct th_controller th_ctrl_<name>` and a row in controllers.def.
 */
#include "controlplane/client/client.h"
#include "controlplane/controllers/controllers.h"
#include "controlplane/controllers/resource_list.h"

struct th_ctrl; /* one running controller */

/* Called in an informer's thread; enqueues keys and does nothing else that takes time. */
typedef void th_ctrl_event_fn(struct th_ctrl *c, const struct th_json *old,
                              const struct th_json *now);

struct th_ctrl_watch {
    struct th_gvr gvr;
    th_ctrl_event_fn *on_event; /* NULL: the cache is wanted, events are not */
};

struct th_controller {
    const char *name;
    const char *component;               /* of its events; NULL: its name */
    /* The ServiceAccount in kube-system as which it acts, with that account's default role and no
     * more; NULL: as system:kube-controller-manager itself; "": as the API server, for what upstream's
     * API server does. */
    const char *account;
    const struct th_ctrl_watch *watches; /* ends with gvr.plural NULL */
    /* Makes the world of `key` as it should be. *ret_after_ms > 0 asks to be called again then. A
     * failure is logged and tried again with back-off. One key is never in two threads. */
    int (*reconcile)(struct th_ctrl *c, const char *key, int64_t *ret_after_ms, struct th_err *err);
    int64_t tick_ms;                       /* > 0: key "" is enqueued this often */
    /* Not NULL: also gets the events of every resource that can be listed, watched and deleted
     * (Events excepted), whatever the API serves now or later. Objects have metadata only, unless
     * some row watches the resource. r is valid during the call. */
    void (*on_any)(struct th_ctrl *c, const struct th_rl_item *r, const struct th_json *old,
                   const struct th_json *now);
    void *(*state_new)(struct th_ctrl *c); /* before any event; NULL: none */
    void (*state_free)(void *state);
};

struct th_client *th_ctrl_client(struct th_ctrl *c);
struct th_recorder *th_ctrl_recorder(struct th_ctrl *c);
const struct th_controllers_opts *th_ctrl_opts(struct th_ctrl *c);
void *th_ctrl_state(struct th_ctrl *c);
/* The shared cache of a watched resource; a resource that no row watches is a broken invariant. */
struct th_informer *th_ctrl_informer(struct th_ctrl *c, struct th_gvr gvr);

/* How many objects of a resource ns has, as far as some cache knows (on_any rows: all of them). */
size_t th_ctrl_count_objects(struct th_ctrl *c, const char *group, const char *plural,
                             const char *ns);
/* What is served for this apiVersion and kind, copied to *ret (th_rl_item_done); false: nothing. */
bool th_ctrl_served(struct th_ctrl *c, const char *api_version, const char *kind,
                    struct th_rl_item *ret);

void th_ctrl_enqueue(struct th_ctrl *c, const char *key);
void th_ctrl_enqueue_after(struct th_ctrl *c, const char *key, int64_t delay_ms);
/* "ns/name" or "name" of an object. */
void th_ctrl_enqueue_obj(struct th_ctrl *c, const struct th_json *obj);
char *th_ctrl_key(const struct th_json *obj); /* the caller frees */
/* Splits a key; ns is "" for cluster-scoped ones. name points into key, ns is the caller's. */
char *th_ctrl_key_split(const char *key, const char **ret_name);

/* Event functions for the usual cases: the object itself; its controlling owner of any kind that is
 * reconciled here (kind is the owner's). */
void th_ctrl_on_self(struct th_ctrl *c, const struct th_json *old, const struct th_json *now);
void th_ctrl_enqueue_owner(struct th_ctrl *c, const struct th_json *old, const struct th_json *now,
                           const char *kind);

/* After a create or update for `key`: the answered object must be in the cache before key is
 * reconciled again, so that what was just made is not made twice. */
void th_ctrl_expect(struct th_ctrl *c, const char *key, struct th_gvr gvr,
                    const struct th_json *written);
/* After a delete for `key`: obj must be gone from the cache, or be there with a deletionTimestamp,
 * before key is reconciled again. */
void th_ctrl_expect_gone(struct th_ctrl *c, const char *key, struct th_gvr gvr,
                         const struct th_json *obj);

/* Deletes obj with its uid as precondition and expects it gone. Gone already counts as success.
 * propagation NULL: the kind's default. */
int th_ctrl_delete(struct th_ctrl *c, const char *key, struct th_gvr gvr, const struct th_json *obj,
                   const char *propagation, struct th_err *err) TH_MUST_USE;

/* PUT of obj with that status (borrowed), when it differs from what obj has. A key that is not NULL
 * awaits it. An object that is gone is no failure. */
int th_ctrl_write_status(struct th_ctrl *c, const char *key, struct th_gvr gvr,
                         const struct th_json *obj, struct th_json *status,
                         struct th_err *err) TH_MUST_USE;

/* For controllers whose key is a namespace that must have one certain object: event function of
 * that object (enqueues its namespace), and the reconcile: creates `wanted` when the namespace is
 * Active and has none of that name, or updates it when `same` (may be NULL) says that it differs. */
void th_ctrl_on_namespace_object(struct th_ctrl *c, const struct th_json *old,
                                 const struct th_json *now, const char *name);
int th_ctrl_keep_in_namespace(struct th_ctrl *c, const char *ns, struct th_gvr gvr,
                              const struct th_json *wanted,
                              bool (*same)(const struct th_json *have, const struct th_json *wanted),
                              struct th_err *err) TH_MUST_USE;
#endif
