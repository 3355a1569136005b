/*
 * Generic ephemeral volumes: a pod's volume that brings the template of its claim gets that claim,
 * owned by the pod, so that it goes with the pod. A claim of that name that is not the pod's own is
 * never used. Also here: the note on a bound claim that has grown, that something has to resize its
 * volume (upstream's expand controller, which has nothing else to do for volumes like these).
 */
#include "controlplane/controllers/pv_priv.h"
#include "base/buf.h"

static void on_pod(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    (void)old;
    const struct th_json *volumes = th_json_path(now, "spec.volumes");
    for (size_t i = 0; i < th_json_len(volumes); i++) {
        if (th_json_get(th_json_at(volumes, i), "ephemeral") &&
            !th_json_path_str(now, "metadata.deletionTimestamp")) {
            th_ctrl_enqueue_obj(c, now);
            return;
        }
    }
}

/* A claim that went away under its pod is made again. */
static void on_claim(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    if (!now) {
        th_ctrl_enqueue_owner(c, old, NULL, "Pod");
    }
}

static int ensure_claim(struct th_ctrl *c, const char *key, const struct th_json *pod,
                        const struct th_json *volume, struct th_err *err)
{
    const char *ns = th_json_path_str(pod, "metadata.namespace");
    bool ephemeral = false;
    th_autofree char *name = th_pod_claim_name(pod, volume, &ephemeral);
    if (!ephemeral) {
        return 0;
    }
    struct th_json *have TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, GVR_CLAIMS), ns, name);
    if (have) {
        return th_claim_is_owned_by(have, pod)
                   ? 0
                   : th_fail(err, TH_R_CONFLICT,
                             "PVC %s/%s was not created for pod %s/%s (pod is not owner)", ns, name,
                             ns, th_json_path_str(pod, "metadata.name"));
    }
    const struct th_json *tmpl = th_json_path(volume, "ephemeral.volumeClaimTemplate");
    struct th_json *owned TH_AUTO(th_json) = th_json_dup(pod);
    th_json_set_str(owned, "apiVersion", "v1");
    th_json_set_str(owned, "kind", "Pod");
    struct th_json *owners = th_json_array();
    th_json_append(owners, th_owner_ref_build(owned, true, true));
    struct th_json *claim TH_AUTO(th_json) = th_json_build(
        "{'apiVersion':'v1','kind':'PersistentVolumeClaim','metadata':{'name':%s,'namespace':%s,"
        "'ownerReferences':%o}}",
        name, ns, owners);
    static const char *const notes[] = {"labels", "annotations"};
    for (size_t i = 0; i < TH_ARRAY_LEN(notes); i++) {
        const struct th_json *v = th_json_get(th_json_get(tmpl, "metadata"), notes[i]);
        if (v) {
            th_json_set(th_json_get(claim, "metadata"), notes[i], th_json_dup(v));
        }
    }
    th_json_set(claim, "spec", th_json_dup(th_json_get(tmpl, "spec")));
    struct th_json *now TH_AUTO(th_json) = NULL;
    int r = th_client_create(th_ctrl_client(c), GVR_CLAIMS, ns, claim, &now, err);
    if (r < 0) {
        return th_wrap(err, "create PVC %s", name);
    }
    th_ctrl_expect(c, key, GVR_CLAIMS, now);
    return 0;
}

static int reconcile(struct th_ctrl *c, const char *key, int64_t *ret_after_ms, struct th_err *err)
{
    (void)ret_after_ms;
    const char *name = NULL;
    th_autofree char *ns = th_ctrl_key_split(key, &name);
    struct th_json *pod TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, TH_GVR_PODS), ns, name);
    if (!pod || th_json_path_str(pod, "metadata.deletionTimestamp")) {
        return 0;
    }
    const struct th_json *volumes = th_json_path(pod, "spec.volumes");
    for (size_t i = 0; i < th_json_len(volumes); i++) {
        const struct th_json *v = th_json_at(volumes, i);
        int r = ensure_claim(c, key, pod, v, err);
        if (r < 0) {
            th_event_record(th_ctrl_recorder(c), pod, "Warning", "FailedBinding",
                            "ephemeral volume %s: %s", th_json_path_str(v, "name"),
                            err->msg ? err->msg : "");
            return r;
        }
    }
    return 0;
}

static const struct th_ctrl_watch watches[] = {
    {.gvr = {"", "v1", "pods"}, .on_event = on_pod},
    {.gvr = {"", "v1", "persistentvolumeclaims"}, .on_event = on_claim},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_ephemeralvolume = {
    .name = "ephemeral_volume",
    .account = "ephemeral-volume-controller",
    .watches = watches,
    .reconcile = reconcile,
};

/* ---- Claims that grow ---- */

static void on_grown(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    if (old && now && th_quantity_cmp(th_claim_size(now), th_claim_size(old)) > 0) {
        th_ctrl_enqueue_obj(c, now);
    }
}

static int reconcile_grown(struct th_ctrl *c, const char *key, int64_t *ret_after_ms,
                           struct th_err *err)
{
    (void)ret_after_ms;
    (void)err;
    const char *name = NULL;
    th_autofree char *ns = th_ctrl_key_split(key, &name);
    struct th_json *claim TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, GVR_CLAIMS), ns, name);
    struct th_quantity has;
    const char *text = th_json_path_str(claim, "status.capacity.storage");
    if (claim && text && th_quantity_parse(text, &has, NULL) == 0 &&
        th_quantity_cmp(th_claim_size(claim), has) > 0) {
        th_event_record(th_ctrl_recorder(c), claim, "Normal", "ExternalExpanding",
                        "waiting for an external controller to expand this PVC");
    }
    return 0;
}

static const struct th_ctrl_watch grown_watches[] = {
    {.gvr = {"", "v1", "persistentvolumeclaims"}, .on_event = on_grown},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_volume_expand = {
    .name = "volume_expand",
    .account = "expand-controller",
    .watches = grown_watches,
    .reconcile = reconcile_grown,
};
