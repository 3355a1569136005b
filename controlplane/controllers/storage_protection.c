/*
 * Objects in use stay: the finalizers of claims, volumes and VolumeAttributesClasses.
 *
 * Admission gives each of them a finalizer (StorageObjectInUseProtection). When one is to go, its
 * controller here takes the finalizer away as soon as nobody needs it: a claim when no pod that has
 * a node uses it (one that is over but still there counts too, as upstream), a volume when it is not
 * Bound, a class when no claim and no volume names it. Before a claim or a class is let go the
 * server is asked, since a cache may not know the newest user yet. Objects older than the admission
 * plugin get their finalizer here.
 */
#include "controlplane/controllers/pv_priv.h"
#include "base/buf.h"

#define GVR_ATTRIBUTES ((struct th_gvr){"storage.k8s.io", "v1", "volumeattributesclasses"})

struct kind {
    struct th_gvr gvr;
    const char *finalizer;
    /* 1: somebody needs it. */
    int (*used)(struct th_ctrl *c, const struct th_json *obj, struct th_err *err);
};

static void on_object(struct th_ctrl *c, const struct th_json *now, const char *finalizer)
{
    bool going = now && th_json_path_str(now, "metadata.deletionTimestamp");
    if (now && going == th_has_finalizer(now, finalizer)) {
        th_ctrl_enqueue_obj(c, now);
    }
}

static int protect(struct th_ctrl *c, const char *key, const struct kind *k, struct th_err *err)
{
    const char *name = NULL;
    th_autofree char *ns = th_ctrl_key_split(key, &name);
    struct th_json *obj TH_AUTO(th_json) = th_informer_get(th_ctrl_informer(c, k->gvr), ns, name);
    bool going = th_json_path_str(obj, "metadata.deletionTimestamp");
    if (!obj || going != th_has_finalizer(obj, k->finalizer)) {
        return 0;
    }
    if (!going) {
        th_add_finalizer(obj, k->finalizer);
        return pv_put(c, key, k->gvr, "", &obj, err);
    }
    int used = k->used(c, obj, err);
    if (used != 0) {
        return used < 0 ? used : 0;
    }
    (void)th_drop_finalizer(obj, k->finalizer);
    int r = th_client_update(th_ctrl_client(c), k->gvr, ns, name, "", obj, NULL, err);
    if (r == -TH_R_NOT_FOUND) {
        th_err_done(err);
        r = 0;
    }
    return r;
}

/* ---- Claims ---- */

struct pod_search {
    const struct th_json *claim;
    bool found;
};

static bool look_at_pod(void *arg, struct th_json *pod)
{
    struct pod_search *s = arg;
    const char *node = th_json_path_str(pod, "spec.nodeName");
    s->found = node && *node && th_pod_uses_claim(pod, s->claim);
    return !s->found;
}

static int claim_used(struct th_ctrl *c, const struct th_json *claim, struct th_err *err)
{
    struct pod_search s = {claim, false};
    const char *ns = th_json_path_str(claim, "metadata.namespace");
    th_informer_each(th_ctrl_informer(c, TH_GVR_PODS), ns, look_at_pod, &s);
    if (s.found) {
        return 1;
    }
    struct th_json *list TH_AUTO(th_json) = NULL;
    TH_TRY(th_client_list(th_ctrl_client(c), TH_GVR_PODS, ns, NULL, NULL, &list, err));
    const struct th_json *pods = th_json_get(list, "items");
    for (size_t i = 0; i < th_json_len(pods) && !s.found; i++) {
        (void)look_at_pod(&s, th_json_at(pods, i));
    }
    return s.found;
}

static const struct kind claims = {{"", "v1", "persistentvolumeclaims"}, TH_PVC_FINALIZER,
                                   claim_used};

static void on_claim(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    (void)old;
    on_object(c, now, TH_PVC_FINALIZER);
}

/* A pod that went may have been a claim's last. */
static void on_pod(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    const struct th_json *volumes = th_json_path(old, "spec.volumes");
    bool same = old && now &&
                th_streq(th_json_path_str(old, "metadata.uid"), th_json_path_str(now, "metadata.uid"));
    for (size_t i = 0; !same && i < th_json_len(volumes); i++) {
        th_autofree char *name = th_pod_claim_name(old, th_json_at(volumes, i), NULL);
        if (name) {
            th_autofree char *key =
                th_xasprintf("%s/%s", th_json_path_str(old, "metadata.namespace"), name);
            th_ctrl_enqueue(c, key);
        }
    }
}

static int reconcile_claim(struct th_ctrl *c, const char *key, int64_t *ret_after_ms,
                           struct th_err *err)
{
    (void)ret_after_ms;
    return protect(c, key, &claims, err);
}

static const struct th_ctrl_watch claim_watches[] = {
    {.gvr = {"", "v1", "persistentvolumeclaims"}, .on_event = on_claim},
    {.gvr = {"", "v1", "pods"}, .on_event = on_pod},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_pvc_protection = {
    .name = "pvc-protection-controller",
    .account = "pvc-protection-controller",
    .watches = claim_watches,
    .reconcile = reconcile_claim,
};

/* ---- Volumes ---- */

static int volume_used(struct th_ctrl *c, const struct th_json *volume, struct th_err *err)
{
    (void)c;
    (void)err;
    return th_streq(th_json_path_str(volume, "status.phase"), "Bound");
}

static const struct kind volumes = {{"", "v1", "persistentvolumes"}, TH_PV_FINALIZER, volume_used};

static void on_volume(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    (void)old;
    on_object(c, now, TH_PV_FINALIZER);
}

static int reconcile_volume(struct th_ctrl *c, const char *key, int64_t *ret_after_ms,
                            struct th_err *err)
{
    (void)ret_after_ms;
    return protect(c, key, &volumes, err);
}

static const struct th_ctrl_watch volume_watches[] = {
    {.gvr = {"", "v1", "persistentvolumes"}, .on_event = on_volume},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_pv_protection = {
    .name = "pv-protection-controller",
    .account = "pv-protection-controller",
    .watches = volume_watches,
    .reconcile = reconcile_volume,
};

/* ---- VolumeAttributesClasses ---- */

static bool names_class(const struct th_json *obj, const char *class)
{
    return th_streq(th_json_path_str(obj, "spec.volumeAttributesClassName"), class) ||
           th_streq(th_json_path_str(obj, "status.currentVolumeAttributesClassName"), class) ||
           th_streq(th_json_path_str(obj, "status.modifyVolumeStatus.targetVolumeAttributesClassName"),
                    class);
}

static int class_used(struct th_ctrl *c, const struct th_json *class, struct th_err *err)
{
    const char *name = th_json_path_str(class, "metadata.name");
    const struct th_gvr gvrs[] = {GVR_CLAIMS, GVR_VOLUMES};
    for (size_t k = 0; k < TH_ARRAY_LEN(gvrs); k++) {
        struct th_json *list TH_AUTO(th_json) = NULL;
        TH_TRY(th_client_list(th_ctrl_client(c), gvrs[k], NULL, NULL, NULL, &list, err));
        const struct th_json *items = th_json_get(list, "items");
        for (size_t i = 0; i < th_json_len(items); i++) {
            if (names_class(th_json_at(items, i), name)) {
                return 1;
            }
        }
    }
    return 0;
}

static const struct kind classes = {{"storage.k8s.io", "v1", "volumeattributesclasses"},
                                    TH_VAC_FINALIZER, class_used};

static void on_class(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    (void)old;
    on_object(c, now, TH_VAC_FINALIZER);
}

static void enqueue_named(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    static const char *const paths[] = {"spec.volumeAttributesClassName",
                                        "status.currentVolumeAttributesClassName"};
    for (size_t i = 0; i < TH_ARRAY_LEN(paths); i++) {
        const char *was = th_json_path_str(old, paths[i]);
        if (was && *was && !th_streq(was, th_json_path_str(now, paths[i]))) {
            th_ctrl_enqueue(c, was);
        }
    }
}

static int reconcile_class(struct th_ctrl *c, const char *key, int64_t *ret_after_ms,
                           struct th_err *err)
{
    (void)ret_after_ms;
    return protect(c, key, &classes, err);
}

static const struct th_ctrl_watch class_watches[] = {
    {.gvr = {"storage.k8s.io", "v1", "volumeattributesclasses"}, .on_event = on_class},
    {.gvr = {"", "v1", "persistentvolumeclaims"}, .on_event = enqueue_named},
    {.gvr = {"", "v1", "persistentvolumes"}, .on_event = enqueue_named},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_vac_protection = {
    .name = "volumeattributesclass-protection-controller",
    .account = "volumeattributesclass-protection-controller",
    .watches = class_watches,
    .reconcile = reconcile_class,
};
