/*
 * Deployment: one ReplicaSet per template, and the way from one to the next.
 *
 * A reconcile works on a copy of the cached object. Everything it reads may be a little old: every
 * write carries the resource version it was computed from, so a stale one fails with a conflict and
 * the key comes again; th_ctrl_expect makes that rare.
 */
#include "controlplane/controllers/deployment_priv.h"
#include "base/buf.h"
#include "controlplane/controllers/pod_control.h"

static bool enqueue_if_selects(void *arg, struct th_json *d)
{
    void **args = arg;
    struct th_selector *sel TH_AUTO(th_selector) = NULL;
    if (th_selector_from_json(th_json_path(d, "spec.selector"), &sel, NULL) == 0 &&
        !th_selector_empty(sel) &&
        th_selector_matches(sel, th_json_path(args[1], "metadata.labels"))) {
        th_ctrl_enqueue_obj(args[0], d);
    }
    return true;
}

static void on_replicaset(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    th_ctrl_enqueue_owner(c, old, now, "Deployment");
    if (now && !th_controller_of(now)) {
        void *args[] = {c, (void *)(uintptr_t)now};
        th_informer_each(th_ctrl_informer(c, TH_GVR_DEPLOYMENTS),
                         th_json_path_str(now, "metadata.namespace"), enqueue_if_selects, args);
    }
}

/* Recreate waits for the last old pod to be gone. */
static void on_pod(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    const struct th_json *ref = th_controller_of(now ? now : old);
    bool ended = !now || !th_pod_is_active(now);
    if (!ended || !ref || !th_streq(th_json_path_str(ref, "kind"), "ReplicaSet")) {
        return;
    }
    struct th_json *rs TH_AUTO(th_json) = th_informer_get(
        th_ctrl_informer(c, TH_GVR_REPLICASETS),
        th_json_path_str(now ? now : old, "metadata.namespace"), th_json_path_str(ref, "name"));
    th_ctrl_enqueue_owner(c, NULL, rs, "Deployment");
}

struct claim {
    struct th_deploy *x;
    struct th_selector *sel;
    struct th_rs_list orphans, strangers;
};

static bool claim_one(void *arg, struct th_json *rs)
{
    struct claim *cl = arg;
    const char *owner = th_controller_uid(rs);
    bool matches = th_selector_matches(cl->sel, th_json_path(rs, "metadata.labels"));
    if (owner && th_streq(owner, th_json_path_str(cl->x->d, "metadata.uid"))) {
        th_rs_list_add(matches ? &cl->x->all : &cl->strangers, rs);
    } else if (!owner && matches && !th_json_path_str(rs, "metadata.deletionTimestamp")) {
        th_rs_list_add(&cl->orphans, rs);
    }
    return true;
}

static int adopt_and_release(struct claim *cl, struct th_err *err)
{
    struct th_deploy *x = cl->x;
    for (size_t i = 0; i < cl->strangers.n; i++) {
        TH_TRY(th_ctrl_release(x->c, TH_GVR_REPLICASETS, cl->strangers.v[i], x->d, err));
    }
    for (size_t i = 0; i < cl->orphans.n; i++) {
        int r = i > 0 ? 1 : th_ctrl_may_adopt(x->c, TH_GVR_DEPLOYMENTS, x->d, err);
        if (r <= 0) {
            return r;
        }
        struct th_json *now TH_AUTO(th_json) = NULL;
        r = th_ctrl_adopt(x->c, TH_GVR_REPLICASETS, cl->orphans.v[i], x->d, &now, err);
        TH_TRY(r);
        if (r > 0) {
            th_rs_list_add(&x->all, now);
        }
    }
    return 0;
}

static int claim_sets(struct th_deploy *x, struct th_err *err)
{
    struct claim cl = {.x = x};
    TH_TRY(th_selector_from_json(th_json_path(x->d, "spec.selector"), &cl.sel, err));
    th_informer_each(th_ctrl_informer(x->c, TH_GVR_REPLICASETS), x->ns, claim_one, &cl);
    bool deleting = th_json_path_str(x->d, "metadata.deletionTimestamp") != NULL;
    int r = deleting ? 0 : adopt_and_release(&cl, err);
    th_rs_list_done(&cl.orphans);
    th_rs_list_done(&cl.strangers);
    th_selector_free(cl.sel);
    return r;
}

/* Pausing and resuming leave a mark, and the deadline does not run while paused. */
static int note_pause(struct th_deploy *x, struct th_err *err)
{
    if (!th_deploy_has_deadline(x->d)) {
        return 0;
    }
    const struct th_json *now = th_cond_get(x->d, "Progressing");
    const char *reason = th_json_path_str(now, "reason");
    if (th_streq(reason, "ProgressDeadlineExceeded")) {
        return 0;
    }
    bool paused = th_json_path_bool(x->d, "spec.paused", false);
    bool marked = th_streq(reason, "DeploymentPaused");
    bool changed = false;
    if (paused && !marked) {
        changed = th_deploy_set_progress(x, "Unknown", "DeploymentPaused", "Deployment is paused");
    } else if (!paused && marked) {
        changed =
            th_deploy_set_progress(x, "Unknown", "DeploymentResumed", "Deployment is resumed");
    }
    return changed ? th_deploy_write_status(x, th_deploy_status(x->d), err) : 0;
}

/* Was spec.replicas changed since the sets were sized? */
static bool scaling(const struct th_deploy *x)
{
    int64_t wanted = th_json_path_int(x->d, "spec.replicas", 1);
    for (size_t i = 0; i < x->all.n; i++) {
        const struct th_json *a = th_json_path(x->all.v[i], "metadata.annotations");
        const char *desired = th_json_str(th_json_get(a, TH_DESIRED_ANNOTATION));
        if (th_json_path_int(x->all.v[i], "spec.replicas", 0) > 0 && desired &&
            strtoll(desired, NULL, 10) != wanted) {
            return true;
        }
    }
    return false;
}

static int sync_deployment(struct th_deploy *x, struct th_err *err)
{
    TH_TRY(claim_sets(x, err));
    if (th_json_path_str(x->d, "metadata.deletionTimestamp")) {
        TH_TRY(th_deploy_find_sets(x, false, err));
        return th_deploy_sync_status(x, err);
    }
    TH_TRY(note_pause(x, err));
    if (th_json_path_bool(x->d, "spec.paused", false) || scaling(x)) {
        return th_deploy_scale(x, err);
    }
    return th_deploy_is_rolling(x->d) ? th_deploy_rolling(x, err) : th_deploy_recreate(x, err);
}

static int reconcile(struct th_ctrl *c, const char *key, int64_t *ret_after_ms, struct th_err *err)
{
    const char *name = NULL;
    th_autofree char *ns = th_ctrl_key_split(key, &name);
    struct th_json *d TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, TH_GVR_DEPLOYMENTS), ns, name);
    if (!d) {
        return 0;
    }
    if (th_json_len(th_json_path(d, "spec.selector")) == 0) {
        th_event_record(th_ctrl_recorder(c), d, "Warning", "SelectingAll",
                        "This deployment is selecting all pods. A non-empty selector is required.");
        return 0;
    }
    struct th_deploy x = {
        .c = c, .key = key, .ns = ns, .name = name, .d = d, .ret_after_ms = ret_after_ms};
    int r = sync_deployment(&x, err);
    th_rs_list_done(&x.all);
    th_rs_list_done(&x.old);
    th_json_unref(x.new_rs);
    return r;
}

static const struct th_ctrl_watch watches[] = {
    {.gvr = {"apps", "v1", "deployments"}, .on_event = th_ctrl_on_self},
    {.gvr = {"apps", "v1", "replicasets"}, .on_event = on_replicaset},
    {.gvr = {"", "v1", "pods"}, .on_event = on_pod},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_deployment = {
    .name = "deployment-controller",
    .account = "deployment-controller",
    .watches = watches,
    .reconcile = reconcile,
};
