/*
 * Owning pods; see pod_control.h. Rules as k8s.io/kubernetes pkg/controller
 * (controller_ref_manager.go, controller_utils.go): a reference is added or removed with the uid in
 * the patch, so that a pod that was made anew under the name is left alone; before the first
 * adoption of a reconcile the owner is asked for afresh, since one that is being deleted with
 * orphaning must not take its pods back.
 */
#include "controlplane/controllers/pod_control.h"
#include "base/buf.h"
#include "base/hmap.h"
#include <pthread.h>

void th_pods_add(struct th_pods *p, struct th_json *pod)
{
    p->v = th_xgrow(p->v, &p->cap, p->n + 1, sizeof(*p->v));
    p->v[p->n++] = th_json_ref(pod);
}

void th_pods_done(struct th_pods *p)
{
    for (size_t i = 0; i < p->n; i++) {
        th_json_unref(p->v[i]);
    }
    free(p->v);
    *p = (struct th_pods){NULL, 0, 0};
}

/* ---- Pods without a controller ---- */

struct th_orphans {
    pthread_mutex_t lock;
    struct th_hmap keys; /* lock; "ns/name" */
};

void *th_orphans_new(struct th_ctrl *c)
{
    (void)c;
    struct th_orphans *o = TH_NEW(struct th_orphans);
    pthread_mutex_init(&o->lock, NULL);
    th_hmap_init(&o->keys, NULL);
    return o;
}

void th_orphans_free(void *state)
{
    struct th_orphans *o = state;
    th_hmap_done(&o->keys);
    pthread_mutex_destroy(&o->lock);
    free(o);
}

static void note(struct th_orphans *o, const struct th_json *obj, bool orphan)
{
    th_autofree char *key = th_ctrl_key(obj);
    pthread_mutex_lock(&o->lock);
    if (orphan) {
        th_hmap_set(&o->keys, key, NULL);
    } else {
        (void)th_hmap_remove(&o->keys, key);
    }
    pthread_mutex_unlock(&o->lock);
}

int th_podctl_selector(const struct th_json *owner, struct th_selector **ret, struct th_err *err)
{
    const struct th_json *sel = th_json_path(owner, "spec.selector");
    if (th_streq(th_json_path_str(owner, "kind"), "ReplicationController")) {
        *ret = th_selector_from_map(sel);
        return 0;
    }
    return th_selector_from_json(sel, ret, err);
}

struct match {
    struct th_ctrl *c;
    const struct th_json *labels;
};

static bool enqueue_if_matches(void *arg, struct th_json *owner)
{
    struct match *m = arg;
    struct th_selector *sel TH_AUTO(th_selector) = NULL;
    if (th_podctl_selector(owner, &sel, NULL) == 0 &&
        !th_selector_empty(sel) && th_selector_matches(sel, m->labels)) {
        th_ctrl_enqueue_obj(m->c, owner);
    }
    return true;
}

void th_podctl_on_pod(struct th_ctrl *c, struct th_orphans *o, const struct th_json *old,
                      const struct th_json *now, struct th_gvr gvr, const char *kind)
{
    bool orphan =
        now && !th_controller_of(now) && !th_json_path_str(now, "metadata.deletionTimestamp");
    note(o, now ? now : old, orphan);
    th_ctrl_enqueue_owner(c, old, now, kind);
    if (orphan) {
        struct match m = {c, th_json_path(now, "metadata.labels")};
        th_informer_each(th_ctrl_informer(c, gvr), th_json_path_str(now, "metadata.namespace"),
                         enqueue_if_matches, &m);
    }
}

/* ---- Claiming ---- */

static int patch_refs(struct th_ctrl *c, struct th_gvr gvr, const struct th_json *obj,
                      struct th_json *patch, struct th_json **ret, struct th_err *err)
{
    struct th_json *taken TH_AUTO(th_json) = patch;
    struct th_patch_opts o = {.kind = TH_PATCH_STRATEGIC,
                              .field_manager = "kube-controller-manager"};
    int r = th_client_patch(th_ctrl_client(c), gvr, th_json_path_str(obj, "metadata.namespace"),
                            th_json_path_str(obj, "metadata.name"), "", &o, taken, ret, err);
    if (r == -TH_R_NOT_FOUND || r == -TH_R_INVALID || r == -TH_R_CONFLICT) {
        th_err_done(err); /* it is gone, or another owner was faster */
        return 0;
    }
    return r < 0 ? r : 1;
}

int th_ctrl_adopt(struct th_ctrl *c, struct th_gvr gvr, const struct th_json *obj,
                  const struct th_json *owner, struct th_json **ret, struct th_err *err)
{
    struct th_json *refs = th_json_array();
    th_json_append(refs, th_owner_ref_build(owner, true, true));
    return patch_refs(c, gvr, obj,
                      th_json_build("{'metadata':{'ownerReferences':%o,'uid':%s}}", refs,
                                    th_json_path_str(obj, "metadata.uid")),
                      ret, err);
}

int th_ctrl_release(struct th_ctrl *c, struct th_gvr gvr, const struct th_json *obj,
                    const struct th_json *owner, struct th_err *err)
{
    return patch_refs(
        c, gvr, obj,
        th_json_build("{'metadata':{'ownerReferences':[{'$patch':'delete','uid':%s}],'uid':%s}}",
                      th_json_path_str(owner, "metadata.uid"),
                      th_json_path_str(obj, "metadata.uid")),
        NULL, err);
}

int th_ctrl_may_adopt(struct th_ctrl *c, struct th_gvr gvr, const struct th_json *owner,
                      struct th_err *err)
{
    struct th_json *now TH_AUTO(th_json) = NULL;
    int r = th_client_get(th_ctrl_client(c), gvr, th_json_path_str(owner, "metadata.namespace"),
                          th_json_path_str(owner, "metadata.name"), &now, err);
    if (r == -TH_R_NOT_FOUND) {
        th_err_done(err);
        return 0;
    }
    TH_TRY(r);
    return th_streq(th_json_path_str(now, "metadata.uid"),
                    th_json_path_str(owner, "metadata.uid")) &&
           !th_json_path_str(now, "metadata.deletionTimestamp");
}

static bool collect(void *arg, struct th_json *pod)
{
    th_pods_add(arg, pod);
    return true;
}

static void orphans_of(struct th_orphans *o, const char *ns, struct th_strv *ret)
{
    th_autofree char *prefix = th_xasprintf("%s/", ns);
    pthread_mutex_lock(&o->lock);
    struct th_hmap_entry *e;
    for (size_t it = 0; (e = th_hmap_next(&o->keys, &it));) {
        if (th_startswith(e->key, prefix)) {
            th_strv_add(ret, e->key + strlen(prefix));
        }
    }
    pthread_mutex_unlock(&o->lock);
}

static int adopt_orphans(struct th_ctrl *c, struct th_orphans *o, const struct th_json *owner,
                         struct th_gvr gvr, const struct th_selector *sel,
                         bool (*may_adopt)(const struct th_json *owner, const struct th_json *pod),
                         struct th_pods *ret, struct th_err *err)
{
    const char *ns = th_json_path_str(owner, "metadata.namespace");
    struct th_strv names TH_CLEANUP(th_strv_done) = TH_STRV_INIT;
    orphans_of(o, ns, &names);
    bool asked = false;
    for (size_t i = 0; i < names.n; i++) {
        struct th_json *pod TH_AUTO(th_json) =
            th_informer_get(th_ctrl_informer(c, TH_GVR_PODS), ns, names.v[i]);
        if (!pod || th_controller_of(pod) || th_json_path_str(pod, "metadata.deletionTimestamp") ||
            !th_selector_matches(sel, th_json_path(pod, "metadata.labels")) ||
            !(may_adopt ? may_adopt(owner, pod) : th_pod_is_active(pod))) {
            continue;
        }
        int r = asked ? 1 : th_ctrl_may_adopt(c, gvr, owner, err);
        if (r <= 0) {
            return r;
        }
        asked = true;
        struct th_json *now TH_AUTO(th_json) = NULL;
        r = th_ctrl_adopt(c, TH_GVR_PODS, pod, owner, &now, err);
        TH_TRY(r);
        if (r > 0) {
            th_pods_add(ret, now);
        }
    }
    return 0;
}

int th_podctl_claim(struct th_ctrl *c, struct th_orphans *o, const struct th_json *owner,
                    struct th_gvr gvr, const struct th_selector *sel,
                    bool (*may_adopt)(const struct th_json *owner, const struct th_json *pod),
                    struct th_pods *ret, struct th_err *err)
{
    struct th_pods owned TH_CLEANUP(th_pods_done) = {NULL, 0, 0};
    bool deleting = th_json_path_str(owner, "metadata.deletionTimestamp") != NULL;
    th_informer_by_owner(th_ctrl_informer(c, TH_GVR_PODS), th_json_path_str(owner, "metadata.uid"),
                         collect, &owned);
    for (size_t i = 0; i < owned.n; i++) {
        struct th_json *pod = owned.v[i];
        if (th_selector_matches(sel, th_json_path(pod, "metadata.labels"))) {
            th_pods_add(ret, pod);
        } else if (!deleting) {
            TH_TRY(th_ctrl_release(c, TH_GVR_PODS, pod, owner, err));
        }
    }
    return deleting ? 0 : adopt_orphans(c, o, owner, gvr, sel, may_adopt, ret, err);
}

/* ---- Making and deleting ---- */

int th_podctl_create(struct th_ctrl *c, const char *key, const struct th_json *owner,
                     const struct th_json *pod, struct th_json **ret, struct th_err *err)
{
    struct th_json *made TH_AUTO(th_json) = NULL;
    int r = th_client_create(th_ctrl_client(c), TH_GVR_PODS,
                             th_json_path_str(owner, "metadata.namespace"), pod, &made, err);
    if (r < 0) {
        bool terminating = r == -TH_R_FORBIDDEN && err->msg && strstr(err->msg, "being terminated");
        if (!terminating) {
            th_event_record(th_ctrl_recorder(c), owner, "Warning", "FailedCreate",
                            "Error creating: %s", err->msg);
        }
        return r;
    }
    th_ctrl_expect(c, key, TH_GVR_PODS, made);
    th_event_record(th_ctrl_recorder(c), owner, "Normal", "SuccessfulCreate", "Created pod: %s",
                    th_json_path_str(made, "metadata.name"));
    if (ret) {
        *ret = th_steal(&made);
    }
    return 0;
}

int th_podctl_delete(struct th_ctrl *c, const char *key, const struct th_json *owner,
                     const struct th_json *pod, struct th_err *err)
{
    const char *name = th_json_path_str(pod, "metadata.name");
    struct th_delete_opts o = TH_DELETE_OPTS_INIT;
    o.uid = th_json_path_str(pod, "metadata.uid");
    int r = th_client_delete(th_ctrl_client(c), TH_GVR_PODS,
                             th_json_path_str(pod, "metadata.namespace"), name, &o, NULL, err);
    bool gone = r == -TH_R_NOT_FOUND || r == -TH_R_CONFLICT;
    if (gone) {
        th_err_done(err);
    } else if (r < 0) {
        th_event_record(th_ctrl_recorder(c), owner, "Warning", "FailedDelete", "Error deleting: %s",
                        err->msg);
        return r;
    } else {
        th_event_record(th_ctrl_recorder(c), owner, "Normal", "SuccessfulDelete",
                        "Deleted pod: %s", name);
    }
    th_ctrl_expect_gone(c, key, TH_GVR_PODS, pod);
    return 0;
}
