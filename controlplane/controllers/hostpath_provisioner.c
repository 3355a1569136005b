/*
 * The cluster's own provisioner, thimble.dev/host-path: a volume is a folder on the data disk.
 *
 * Problem: claims of a person's cluster need volumes that are there at once, outlive pods, stops and
 * machine restarts, and go when their claim goes.
 *
 * Design: all nodes of the cluster share the machine's file system, so a volume is the hostPath
 * <volumes>/<name of the PersistentVolume>, open to every user, on any node and with any access
 * mode. The binder asks by annotation, as it asks any external provisioner; the volume points to its
 * claim from the start, so that the binder gives it to no other. A finalizer keeps the volume's
 * object until its folder is gone, whoever deletes the object first. Growing is a matter of the two
 * objects: a folder has no size of its own, the disk's free space is the limit (as with minikube's
 * and kind's provisioners).
 *
 * Invariant: only <volumes>/<name> is ever made or removed, whatever path a volume says.
 */
#include <errno.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/io.h"
#include "controlplane/controllers/pv_priv.h"

static bool is_ours(const struct th_json *obj, const char *note)
{
    return th_streq(th_annotation(obj, note), TH_HOST_PATH_PROVISIONER);
}

/* ---- Making volumes ---- */

/* Why the claim cannot have such a volume, or NULL; the caller frees. */
static char *not_possible(const struct th_json *claim, const struct th_json *class)
{
    if (th_streq(th_json_path_str(claim, "spec.volumeMode"), "Block")) {
        return th_xstrdup(TH_HOST_PATH_PROVISIONER " does not support block volume provisioning");
    }
    if (th_json_path(claim, "spec.selector")) {
        return th_xstrdup("claim.Spec.Selector is not supported");
    }
    if (th_json_path(claim, "spec.dataSource") || th_json_path(claim, "spec.dataSourceRef")) {
        return th_xstrdup("claims with a data source are not supported");
    }
    struct th_json_iter it = TH_JSON_ITER(th_json_get(class, "parameters"));
    return th_json_next(&it) ? th_xasprintf("invalid option \"%s\" for provisioner %s", it.name,
                                            TH_HOST_PATH_PROVISIONER)
                             : NULL;
}

static int make_folder(const char *path, struct th_err *err)
{
    TH_TRY(th_io_mkdir_p(path, 0777, err));
    if (chmod(path, 0777) < 0) { /* whatever the umask is */
        return th_fail_errno(err, errno, TH_R_IO, "%s", path);
    }
    return 0;
}

static struct th_json *build_volume(const char *name, const char *path, const struct th_json *claim,
                                    const struct th_json *class)
{
    const char *policy = th_json_path_str(class, "reclaimPolicy");
    char size[TH_QUANTITY_LEN];
    struct th_json *v = th_json_build(
        "{'apiVersion':'v1','kind':'PersistentVolume','metadata':{'name':%s,'annotations':{"
        "%s:%s}},'spec':{'capacity':{'storage':%s},'hostPath':{'path':%s,'type':''},"
        "'persistentVolumeReclaimPolicy':%s,'storageClassName':%s,'volumeMode':'Filesystem'}}",
        name, TH_ANN_PROVISIONED_BY, TH_HOST_PATH_PROVISIONER,
        th_quantity_format(th_claim_size(claim), size), path, policy ? policy : "Delete",
        th_storage_class_of(claim));
    struct th_json *spec = th_json_get(v, "spec");
    th_json_set(spec, "accessModes", th_json_dup(th_json_path(claim, "spec.accessModes")));
    if (th_json_len(th_json_get(class, "mountOptions"))) {
        th_json_set(spec, "mountOptions", th_json_dup(th_json_get(class, "mountOptions")));
    }
    const char *attributes = th_json_path_str(claim, "spec.volumeAttributesClassName");
    if (attributes && *attributes) {
        th_json_set_str(spec, "volumeAttributesClassName", attributes);
    }
    (void)th_volume_bind(v, claim);
    (void)th_json_del(th_json_path(v, "metadata.annotations"), TH_ANN_BOUND_BY_CONTROLLER);
    if (th_streq(th_json_path_str(spec, "persistentVolumeReclaimPolicy"), "Delete")) {
        th_add_finalizer(v, TH_PROVISIONED_FINALIZER);
    }
    return v;
}

static bool is_wanted(const struct th_json *claim, const struct th_json *class)
{
    const char *volume = th_json_path_str(claim, "spec.volumeName");
    bool delayed =
        th_streq(th_json_path_str(class, "volumeBindingMode"), "WaitForFirstConsumer");
    return (!volume || !*volume) && !th_json_path_str(claim, "metadata.deletionTimestamp") &&
           is_ours(claim, TH_ANN_PROVISIONER) &&
           th_streq(th_json_path_str(class, "provisioner"), TH_HOST_PATH_PROVISIONER) &&
           (!delayed || th_annotation(claim, TH_ANN_SELECTED_NODE));
}

static int make_volume(struct th_ctrl *c, const char *name, const struct th_json *claim,
                       const struct th_json *class, struct th_err *err)
{
    th_autofree char *path = th_path_join(th_ctrl_opts(c)->volumes_dir, name);
    TH_TRY(make_folder(path, err));
    struct th_json *volume TH_AUTO(th_json) = build_volume(name, path, claim, class);
    int r = th_client_create(th_ctrl_client(c), GVR_VOLUMES, NULL, volume, NULL, err);
    if (r == -TH_R_ALREADY_EXISTS) {
        th_err_done(err);
        return 0;
    }
    if (r < 0) {
        (void)rmdir(path);
    }
    return r;
}

static int provision(struct th_ctrl *c, const struct th_json *claim, struct th_err *err)
{
    struct th_recorder *rec = th_ctrl_recorder(c);
    const char *class_name = th_storage_class_of(claim);
    struct th_json *class TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, GVR_CLASSES), "", class_name);
    th_autofree char *name = th_xasprintf("pvc-%s", th_json_path_str(claim, "metadata.uid"));
    struct th_json *have TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, GVR_VOLUMES), "", name);
    if (have || !is_wanted(claim, class)) {
        return 0;
    }
    th_event_record(rec, claim, "Normal", "Provisioning",
                    "External provisioner is provisioning volume for claim \"%s/%s\"",
                    th_json_path_str(claim, "metadata.namespace"),
                    th_json_path_str(claim, "metadata.name"));
    th_autofree char *why = not_possible(claim, class);
    int r = why ? th_fail(err, TH_R_UNSUPPORTED, "%s", why)
                : make_volume(c, name, claim, class, err);
    if (r < 0) {
        th_event_record(rec, claim, "Warning", "ProvisioningFailed",
                        "failed to provision volume with StorageClass \"%s\": %s", class_name,
                        err->msg ? err->msg : "");
        return r;
    }
    th_event_record(rec, claim, "Normal", "ProvisioningSucceeded",
                    "Successfully provisioned volume %s", name);
    return 0;
}

/* ---- Growing ---- */

static int resize(struct th_ctrl *c, const char *key, struct th_json **claim, struct th_err *err)
{
    const char *name = th_json_path_str(*claim, "spec.volumeName");
    const char *text = th_json_path_str(*claim, "status.capacity.storage");
    struct th_quantity has, wants = th_claim_size(*claim);
    char size[TH_QUANTITY_LEN];
    if (!th_claim_is_bound(*claim) || !text || th_quantity_parse(text, &has, NULL) < 0 ||
        th_quantity_cmp(wants, has) <= 0) {
        return 0;
    }
    struct th_json *volume TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, GVR_VOLUMES), "", name);
    if (!is_ours(volume, TH_ANN_PROVISIONED_BY) || !th_volume_is_for(volume, *claim)) {
        return 0;
    }
    (void)th_quantity_format(wants, size);
    th_event_record(th_ctrl_recorder(c), *claim, "Normal", "Resizing",
                    "External resizer is resizing volume %s", name);
    if (th_quantity_cmp(th_volume_size(volume), wants) < 0) {
        th_json_path_set_str(volume, "spec.capacity.storage", size);
        TH_TRY(pv_put(c, key, GVR_VOLUMES, "", &volume, err));
    }
    th_json_path_set_str(*claim, "status.capacity.storage", size);
    th_json_path_set_str(*claim, "status.allocatedResources.storage", size);
    TH_TRY(pv_put(c, key, GVR_CLAIMS, "status", claim, err));
    th_event_record(th_ctrl_recorder(c), *claim, "Normal", "VolumeResizeSuccessful",
                    "Resize volume succeeded");
    return 0;
}

/* ---- Removing ---- */

static bool is_done_with(const struct th_json *volume)
{
    const char *phase = th_json_path_str(volume, "status.phase");
    return is_ours(volume, TH_ANN_PROVISIONED_BY) &&
           th_streq(th_json_path_str(volume, "spec.persistentVolumeReclaimPolicy"), "Delete") &&
           (th_streq(phase, "Released") || th_streq(phase, "Failed"));
}

static int remove_volume(struct th_ctrl *c, const char *key, struct th_json **volume,
                         struct th_err *err)
{
    th_autofree char *path = th_path_join(th_ctrl_opts(c)->volumes_dir, key);
    const char *said = th_json_path_str(*volume, "spec.hostPath.path");
    if (!th_streq(path, said)) {
        th_event_record(th_ctrl_recorder(c), *volume, "Warning", "VolumeFailedDelete",
                        "%s is not a folder of " TH_HOST_PATH_PROVISIONER, said ? said : "(none)");
        return 0;
    }
    int r = th_io_rm_rf(path, err);
    if (r < 0) {
        th_event_record(th_ctrl_recorder(c), *volume, "Warning", "VolumeFailedDelete", "%s",
                        err->msg ? err->msg : "");
        return r;
    }
    if (!th_json_path_str(*volume, "metadata.deletionTimestamp")) {
        TH_TRY(th_ctrl_delete(c, key, GVR_VOLUMES, *volume, NULL, err));
        return 0; /* the finalizer goes when the deletion is seen */
    }
    if (!th_drop_finalizer(*volume, TH_PROVISIONED_FINALIZER)) {
        return 0;
    }
    r = th_client_update(th_ctrl_client(c), GVR_VOLUMES, NULL, key, "", *volume, NULL, err);
    if (r == -TH_R_NOT_FOUND) {
        th_err_done(err);
        r = 0;
    }
    return r;
}

/* A policy that became Retain: the object is not to be kept for the folder's sake. */
static int let_go(struct th_ctrl *c, const char *key, struct th_json **volume, struct th_err *err)
{
    bool going = th_json_path_str(*volume, "metadata.deletionTimestamp");
    if (!going || !is_ours(*volume, TH_ANN_PROVISIONED_BY) ||
        th_streq(th_json_path_str(*volume, "spec.persistentVolumeReclaimPolicy"), "Delete") ||
        !th_drop_finalizer(*volume, TH_PROVISIONED_FINALIZER)) {
        return 0;
    }
    return pv_put(c, key, GVR_VOLUMES, "", volume, err);
}

static int reconcile(struct th_ctrl *c, const char *key, int64_t *ret_after_ms, struct th_err *err)
{
    (void)ret_after_ms;
    const char *name = NULL;
    th_autofree char *ns = th_ctrl_key_split(key, &name);
    if (!th_ctrl_opts(c)->volumes_dir) {
        return 0;
    }
    if (*ns) {
        struct th_json *claim TH_AUTO(th_json) =
            th_informer_get(th_ctrl_informer(c, GVR_CLAIMS), ns, name);
        if (!claim) {
            return 0;
        }
        return th_annotation(claim, TH_ANN_BIND_COMPLETED) ? resize(c, key, &claim, err)
                                                           : provision(c, claim, err);
    }
    struct th_json *volume TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, GVR_VOLUMES), "", name);
    if (!volume) {
        return 0;
    }
    return is_done_with(volume) ? remove_volume(c, key, &volume, err)
                                : let_go(c, key, &volume, err);
}

static void on_claim(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    (void)old;
    if (now) {
        th_ctrl_enqueue_obj(c, now);
    }
}

static void on_volume(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    (void)old;
    if (now && is_ours(now, TH_ANN_PROVISIONED_BY)) {
        th_ctrl_enqueue_obj(c, now);
    }
}

static const struct th_ctrl_watch watches[] = {
    {.gvr = {"", "v1", "persistentvolumeclaims"}, .on_event = on_claim},
    {.gvr = {"", "v1", "persistentvolumes"}, .on_event = on_volume},
    {.gvr = {"storage.k8s.io", "v1", "storageclasses"}},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_hostpath_provisioner = {
    .name = TH_HOST_PATH_PROVISIONER,
    .account = "storage-provisioner",
    .watches = watches,
    .reconcile = reconcile,
};
