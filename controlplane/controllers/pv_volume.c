/*
 * The binder's other half: one volume. Says whether it is Available, Bound, Released or Failed, and
 * does what its reclaim policy says when its claim is gone.
 *
 * Volumes that a provisioner made are deleted by that provisioner, which waits for Released. Of the
 * others only hostPath below /tmp can be deleted, as upstream has it; anything else with the policy
 * Delete becomes Failed and stays. Recycle needs upstream's recycler pod and is not there: Failed.
 */
#include "base/io.h"
#include "base/log.h"
#include "controlplane/controllers/pv_priv.h"

static bool is_phase(const struct th_json *volume, const char *phase)
{
    return th_streq(th_json_path_str(volume, "status.phase"), phase);
}

static int fail_volume(struct th_ctrl *c, const char *key, struct th_json **volume,
                       const char *reason, const char *message, struct th_err *err)
{
    int r = pv_set_phase(c, key, volume, "Failed", message, err);
    if (r > 0) {
        th_event_record(th_ctrl_recorder(c), *volume, "Warning", reason, "%s", message);
    }
    return r < 0 ? r : 0;
}

/* Rolls a binding back: the controller's own is taken away, of a user's only the uid. */
static int unbind(struct th_ctrl *c, const char *key, struct th_json **volume, struct th_err *err)
{
    if (th_annotation(*volume, TH_ANN_BOUND_BY_CONTROLLER)) {
        struct th_json *notes = th_json_path(*volume, "metadata.annotations");
        (void)th_json_path_del(*volume, "spec.claimRef");
        (void)th_json_del(notes, TH_ANN_BOUND_BY_CONTROLLER);
    } else {
        (void)th_json_path_del(*volume, "spec.claimRef.uid");
    }
    TH_TRY(pv_put(c, key, GVR_VOLUMES, "", volume, err));
    int r = pv_set_phase(c, key, volume, "Available", "", err);
    return r < 0 ? r : 0;
}

/* The folder of a hostPath volume below /tmp goes, then the volume. */
static int delete_host_path(struct th_ctrl *c, const char *key, struct th_json **volume,
                            struct th_err *err)
{
    const char *path = th_json_path_str(*volume, "spec.hostPath.path");
    if (!th_startswith(path, "/tmp/") || !path[5] || strstr(path, "..")) {
        th_autofree char *why =
            th_xasprintf("host_path deleter only supports /tmp/.+ but received provided %s", path);
        return fail_volume(c, key, volume, "VolumeFailedDelete", why, err);
    }
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    if (th_io_rm_rf(path, &local) < 0) {
        return fail_volume(c, key, volume, "VolumeFailedDelete", local.msg, err);
    }
    return th_ctrl_delete(c, key, GVR_VOLUMES, *volume, NULL, err);
}

static int delete_volume(struct th_ctrl *c, const char *key, struct th_json **volume,
                         struct th_err *err)
{
    const char *by = th_annotation(*volume, TH_ANN_PROVISIONED_BY);
    if ((by && !th_startswith(by, "kubernetes.io/")) || th_json_path(*volume, "spec.csi")) {
        return 0; /* an external provisioner's */
    }
    if (th_json_path(*volume, "spec.hostPath")) {
        return delete_host_path(c, key, volume, err);
    }
    th_autofree char *why = th_xasprintf(
        "error getting deleter volume plugin for volume \"%s\": no deletable volume plugin matched",
        th_json_path_str(*volume, "metadata.name"));
    return fail_volume(c, key, volume, "VolumeFailedDelete", why, err);
}

/* The claim is gone. */
static int reclaim(struct th_ctrl *c, const char *key, struct th_json **volume,
                   int64_t *ret_after_ms, struct th_err *err)
{
    if (!is_phase(*volume, "Released") && !is_phase(*volume, "Failed")) {
        TH_TRY(pv_set_phase(c, key, volume, "Released", "", err));
    }
    const char *policy = th_json_path_str(*volume, "spec.persistentVolumeReclaimPolicy");
    if (th_streq(policy, "Retain")) {
        return 0;
    }
    *ret_after_ms = PV_RESYNC_MS;
    if (th_streq(policy, "Delete")) {
        return delete_volume(c, key, volume, err);
    }
    if (th_streq(policy, "Recycle")) {
        return fail_volume(c, key, volume, "VolumeFailedRecycle",
                           "No recycler plugin found for the volume!", err);
    }
    return fail_volume(c, key, volume, "VolumeUnknownReclaimPolicy",
                       "Volume has unrecognized PersistentVolumeReclaimPolicy", err);
}

/* The claim that claimRef means, or NULL. What the cache does not have is asked of the server: it
 * may be newer than the cache, and data is at stake. */
static int claim_of(struct th_ctrl *c, const struct th_json *volume, struct th_json **ret,
                    struct th_err *err)
{
    const char *ns = th_json_path_str(volume, "spec.claimRef.namespace");
    const char *name = th_json_path_str(volume, "spec.claimRef.name");
    const char *uid = th_json_path_str(volume, "spec.claimRef.uid");
    struct th_json *claim TH_AUTO(th_json) = NULL;
    TH_TRY(pv_get(c, GVR_CLAIMS, ns, name, &claim, err));
    if (claim && !th_streq(th_json_path_str(claim, "metadata.uid"), uid)) {
        struct th_json *now = NULL;
        int r = th_client_get(th_ctrl_client(c), GVR_CLAIMS, ns, name, &now, err);
        if (r == -TH_R_NOT_FOUND) {
            th_err_done(err);
        } else {
            TH_TRY(r);
        }
        th_json_unref(claim);
        claim = now;
    }
    if (claim && th_streq(th_json_path_str(claim, "metadata.uid"), uid)) {
        *ret = th_steal(&claim);
    }
    return 0;
}

static int sync_claimed(struct th_ctrl *c, const char *key, struct th_json **volume,
                        int64_t *ret_after_ms, struct th_err *err)
{
    struct th_json *claim TH_AUTO(th_json) = NULL;
    TH_TRY(claim_of(c, *volume, &claim, err));
    if (!claim) {
        return reclaim(c, key, volume, ret_after_ms, err);
    }
    const char *bound_to = th_json_path_str(claim, "spec.volumeName");
    const char *name = th_json_path_str(*volume, "metadata.name");
    if (!bound_to || !*bound_to) {
        if (th_volume_modes_differ(claim, *volume)) {
            struct th_recorder *rec = th_ctrl_recorder(c);
            th_event_record(rec, *volume, "Warning", "VolumeMismatch",
                            "Cannot bind PersistentVolume to requested PersistentVolumeClaim "
                            "\"%s\" due to incompatible volumeMode.",
                            th_json_path_str(claim, "metadata.name"));
            th_event_record(rec, claim, "Warning", "VolumeMismatch",
                            "Cannot bind PersistentVolume \"%s\" to requested "
                            "PersistentVolumeClaim due to incompatible volumeMode.",
                            name);
            return 0;
        }
        th_ctrl_enqueue_obj(c, claim);
        return 0;
    }
    if (th_streq(bound_to, name)) {
        int r = pv_set_phase(c, key, volume, "Bound", "", err);
        return r < 0 ? r : 0;
    }
    /* the claim took another one */
    if (th_annotation(*volume, TH_ANN_PROVISIONED_BY) &&
        th_streq(th_json_path_str(*volume, "spec.persistentVolumeReclaimPolicy"), "Delete")) {
        return reclaim(c, key, volume, ret_after_ms, err);
    }
    return unbind(c, key, volume, err);
}

int pv_sync_volume(struct th_ctrl *c, const char *key, int64_t *ret_after_ms, struct th_err *err)
{
    struct th_json *volume TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, GVR_VOLUMES), "", key);
    if (!volume) {
        return 0;
    }
    const char *uid = th_json_path_str(volume, "spec.claimRef.uid");
    if (!uid || !*uid) { /* unused, or kept for a claim to come */
        int r = pv_set_phase(c, key, &volume, "Available", "", err);
        return r < 0 ? r : 0;
    }
    return sync_claimed(c, key, &volume, ret_after_ms, err);
}
