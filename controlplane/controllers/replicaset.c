/*
 * ReplicaSet, and the ReplicationController before it: keeps as many active pods as it asks for.
 *
 * Missing pods are created in batches that double as long as they succeed (a quota that is
 * exhausted costs one failed request, not hundreds); surplus ones are deleted in the order of
 * pod_rank.c: what costs the service least first. What was created and deleted is awaited in the
 * cache, so nothing is done twice.
 */
#include "controlplane/controllers/pod_control.h"
#include "controlplane/controllers/pod_rank.h"
#include "base/buf.h"
#include <inttypes.h>

#define BURST 500 /* pods created or deleted in one go, as upstream */

#define GVR_RC ((struct th_gvr){"", "v1", "replicationcontrollers"})

static void on_pod(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    th_podctl_on_pod(c, th_ctrl_state(c), old, now, TH_GVR_REPLICASETS, "ReplicaSet");
}

static void on_rc_pod(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    th_podctl_on_pod(c, th_ctrl_state(c), old, now, GVR_RC, "ReplicationController");
}

static int create_missing(struct th_ctrl *c, const struct th_json *rs, const char *key,
                          int64_t missing, struct th_err *err)
{
    struct th_json *pod TH_AUTO(th_json) =
        th_pod_from_template(th_json_path(rs, "spec.template"), rs);
    missing = missing > BURST ? BURST : missing;
    for (int64_t batch = 1; missing > 0; batch *= 2) {
        for (int64_t i = 0; i < batch && missing > 0; i++, missing--) {
            TH_TRY(th_podctl_create(c, key, rs, pod, NULL, err));
        }
    }
    return 0;
}

/* ---- Scaling down ---- */

struct related {
    struct th_ctrl *c;
    const char *owner;
    struct th_pods *pods;
};

static bool add_active(void *arg, struct th_json *pod)
{
    if (th_pod_is_active(pod)) {
        th_pods_add(arg, pod);
    }
    return true;
}

static bool add_pods_of(void *arg, struct th_json *rs)
{
    struct related *r = arg;
    if (th_streq(th_controller_uid(rs), r->owner)) {
        th_informer_by_owner(th_ctrl_informer(r->c, TH_GVR_PODS),
                             th_json_path_str(rs, "metadata.uid"), add_active, r->pods);
    }
    return true;
}

/* The pods of all sets of the same owner: they serve together, so spreading counts them all. */
static void related_pods(struct th_ctrl *c, const struct th_json *rs, const struct th_pods *own,
                         struct th_pods *ret)
{
    const char *owner = th_controller_uid(rs);
    if (!owner || !th_streq(th_json_path_str(rs, "kind"), "ReplicaSet")) {
        for (size_t i = 0; i < own->n; i++) {
            th_pods_add(ret, own->v[i]);
        }
        return;
    }
    struct related r = {c, owner, ret};
    th_informer_each(th_ctrl_informer(c, TH_GVR_REPLICASETS),
                     th_json_path_str(rs, "metadata.namespace"), add_pods_of, &r);
}

static int delete_surplus(struct th_ctrl *c, const struct th_json *rs, const char *key,
                          const struct th_pods *pods, int64_t surplus, struct th_err *err)
{
    struct th_pods related TH_CLEANUP(th_pods_done) = {NULL, 0, 0};
    related_pods(c, rs, pods, &related);
    th_autofree struct th_json **order = th_pod_rank(pods, &related);
    for (int64_t i = 0; i < surplus && i < BURST; i++) {
        TH_TRY(th_podctl_delete(c, key, rs, order[i], err));
    }
    return 0;
}

/* ---- Status ---- */

static bool has_all_labels(const struct th_json *pod, const struct th_json *wanted)
{
    const struct th_json *labels = th_json_path(pod, "metadata.labels");
    struct th_json_iter it = TH_JSON_ITER(wanted);
    while (th_json_next(&it)) {
        if (!th_streq(th_json_str(th_json_get(labels, it.name)), th_json_str(it.value))) {
            return false;
        }
    }
    return true;
}

struct counts {
    int64_t labeled, ready, available, terminating;
};

static struct counts count(const struct th_json *rs, const struct th_pods *pods,
                           const struct th_pods *all, int64_t *ret_wait_ms)
{
    struct counts n = {0, 0, 0, 0};
    int64_t min_ready = th_json_path_int(rs, "spec.minReadySeconds", 0);
    for (size_t i = 0; i < pods->n; i++) {
        int64_t wait = 0;
        n.labeled +=
            has_all_labels(pods->v[i], th_json_path(rs, "spec.template.metadata.labels"));
        n.ready += th_pod_is_ready(pods->v[i]);
        n.available += th_pod_is_available(pods->v[i], min_ready, &wait);
        if (wait > 0 && (*ret_wait_ms == 0 || wait < *ret_wait_ms)) {
            *ret_wait_ms = wait;
        }
    }
    for (size_t i = 0; i < all->n; i++) {
        n.terminating += th_pod_is_terminating(all->v[i]);
    }
    return n;
}

static struct th_json *make_status(const struct th_json *rs, const struct th_pods *pods,
                                   const struct counts *n, int64_t diff, int failed,
                                   const struct th_err *why)
{
    struct th_json *status =
        th_json_path(rs, "status") ? th_json_dup(th_json_path(rs, "status")) : th_json_object();
    th_json_set_int(status, "replicas", (int64_t)pods->n);
    th_status_count(status, "fullyLabeledReplicas", n->labeled);
    th_status_count(status, "readyReplicas", n->ready);
    th_status_count(status, "availableReplicas", n->available);
    if (!th_streq(th_json_path_str(rs, "kind"), "ReplicationController")) {
        th_json_set_int(status, "terminatingReplicas", n->terminating);
    }
    th_json_set_int(status, "observedGeneration", th_json_path_int(rs, "metadata.generation", 0));
    struct th_json *conditions = th_json_path_array(status, "conditions");
    if (failed) {
        (void)th_cond_set(conditions, "ReplicaFailure", "True",
                          diff < 0 ? "FailedCreate" : "FailedDelete", why->msg, false);
    } else {
        (void)th_cond_remove(conditions, "ReplicaFailure");
    }
    if (th_json_len(conditions) == 0) {
        (void)th_json_del(status, "conditions");
    }
    return status;
}

static int reconcile_one(struct th_ctrl *c, const char *key, struct th_gvr gvr,
                         int64_t *ret_after_ms, struct th_err *err)
{
    const char *name = NULL;
    th_autofree char *ns = th_ctrl_key_split(key, &name);
    struct th_json *rs TH_AUTO(th_json) = th_informer_get(th_ctrl_informer(c, gvr), ns, name);
    if (!rs) {
        return 0;
    }
    struct th_selector *sel TH_AUTO(th_selector) = NULL;
    TH_TRY(th_podctl_selector(rs, &sel, err));
    struct th_pods all TH_CLEANUP(th_pods_done) = {NULL, 0, 0};
    struct th_pods pods TH_CLEANUP(th_pods_done) = {NULL, 0, 0};
    TH_TRY(th_podctl_claim(c, th_ctrl_state(c), rs, gvr, sel, NULL, &all, err));
    for (size_t i = 0; i < all.n; i++) {
        (void)add_active(&pods, all.v[i]);
    }
    int64_t diff = (int64_t)pods.n - th_json_path_int(rs, "spec.replicas", 1);
    int failed = 0;
    struct th_err why TH_CLEANUP(th_err_done) = TH_ERR_INIT;
    if (!th_json_path_str(rs, "metadata.deletionTimestamp")) {
        failed = diff < 0   ? create_missing(c, rs, key, -diff, &why)
                 : diff > 0 ? delete_surplus(c, rs, key, &pods, diff, &why)
                            : 0;
    }
    struct counts n = count(rs, &pods, &all, ret_after_ms);
    struct th_json *status TH_AUTO(th_json) = make_status(rs, &pods, &n, diff, failed, &why);
    int r = th_ctrl_write_status(c, NULL, gvr, rs, status, err);
    if (failed < 0) {
        th_err_move(err, &why);
        return failed;
    }
    return r;
}

static int reconcile(struct th_ctrl *c, const char *key, int64_t *ret_after_ms, struct th_err *err)
{
    return reconcile_one(c, key, TH_GVR_REPLICASETS, ret_after_ms, err);
}

static int reconcile_rc(struct th_ctrl *c, const char *key, int64_t *ret_after_ms,
                        struct th_err *err)
{
    return reconcile_one(c, key, GVR_RC, ret_after_ms, err);
}

static const struct th_ctrl_watch watches[] = {
    {.gvr = {"apps", "v1", "replicasets"}, .on_event = th_ctrl_on_self},
    {.gvr = {"", "v1", "pods"}, .on_event = on_pod},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_replicaset = {
    .name = "replicaset-controller",
    .account = "replicaset-controller",
    .watches = watches,
    .reconcile = reconcile,
    .state_new = th_orphans_new,
    .state_free = th_orphans_free,
};

static const struct th_ctrl_watch rc_watches[] = {
    {.gvr = {"", "v1", "replicationcontrollers"}, .on_event = th_ctrl_on_self},
    {.gvr = {"", "v1", "pods"}, .on_event = on_rc_pod},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_replicationcontroller = {
    .name = "replicationcontroller-controller",
    .account = "replication-controller",
    .component = "replication-controller",
    .watches = rc_watches,
    .reconcile = reconcile_rc,
    .state_new = th_orphans_new,
    .state_free = th_orphans_free,
};
