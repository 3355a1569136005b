/* Volumes of claims: from a pod's volume over its PersistentVolumeClaim to the PersistentVolume and
 * what that is on this node.
 *
 * hostPath and local volumes are folders (or files) of the node; among them are those that the
 * cluster's own provisioner makes. Setting up looks both objects up, checks that they belong to each
 * other, and leaves a link <pod>/volumes/kubernetes.io~persistent-volume/<name> to the path: what
 * later makes mounts (of this container, or after a restart of the agent) needs no API server. A
 * link and no bind mount, so that removing a pod's folder can never reach a volume's data.
 *
 * fsGroup: local volumes and those of the cluster's own provisioner are given to the group as
 * upstream does it (fsGroupChangePolicy: OnRootMismatch looks at the top only); hostPath volumes
 * made by hand are left as they are. All other types of volumes are said to be not supported, and so
 * are raw block devices. */
#include "controlplane/schema/storage.h"
#include "base/io.h"
#include "vm/node/agent.h"

#include <errno.h>
#include <limits.h>
#include <sys/stat.h>

#define GVR_CLAIMS ((struct th_gvr){"", "v1", "persistentvolumeclaims"})
#define GVR_VOLUMES ((struct th_gvr){"", "v1", "persistentvolumes"})

bool vol_is_claim(const struct th_json *vol)
{
    return th_json_get(vol, "persistentVolumeClaim") || th_json_get(vol, "ephemeral");
}

char *vol_claim_dir(const struct pod *p, const struct th_json *vol)
{
    th_autofree char *link = th_path_joinf(p->dir, "volumes/kubernetes.io~persistent-volume/%s",
                                           th_json_path_str(vol, "name"));
    char path[PATH_MAX];
    ssize_t n = readlink(link, path, sizeof(path) - 1);
    return n > 0 ? th_xstrndup(path, (size_t)n) : th_steal(&link);
}

/* The claim, which must be bound, and be the pod's own where it was made for it. */
static int get_claim(struct pod *p, const char *name, bool ephemeral, struct th_json **ret,
                     struct th_err *err)
{
    TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
    TH_AUTO(th_json) struct th_json *claim = NULL;
    if (node_get_object(p->a, GVR_CLAIMS, p->ns, name, &claim, &e) < 0) {
        return th_fail(err, e.reason, "failed to fetch PVC from API server: %s", e.msg ? e.msg : "");
    }
    if (ephemeral && !th_claim_is_owned_by(claim, p->obj)) {
        return th_fail(err, TH_R_CONFLICT, "PVC %s/%s was not created for pod %s/%s (pod is not owner)",
                       p->ns, name, p->ns, p->name);
    }
    if (th_json_path_str(claim, "metadata.deletionTimestamp") &&
        !th_has_finalizer(claim, TH_PVC_FINALIZER)) {
        return th_fail(err, TH_R_CONFLICT, "PVC is being deleted");
    }
    const char *volume = th_json_path_str(claim, "spec.volumeName");
    if (!th_streq(th_json_path_str(claim, "status.phase"), "Bound")) {
        return th_fail(err, TH_R_CONFLICT, "PVC is not bound");
    }
    if (!volume || !*volume) {
        return th_fail(err, TH_R_CONFLICT, "PVC has empty pvc.Spec.VolumeName");
    }
    *ret = th_steal(&claim);
    return 0;
}

static int get_volume(struct pod *p, const struct th_json *claim, struct th_json **ret,
                      struct th_err *err)
{
    const char *name = th_json_path_str(claim, "spec.volumeName");
    const char *claim_uid = th_json_path_str(claim, "metadata.uid");
    TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
    TH_AUTO(th_json) struct th_json *pv = NULL;
    if (node_get_object(p->a, GVR_VOLUMES, NULL, name, &pv, &e) < 0) {
        return th_fail(err, e.reason, "failed to fetch PV %s from API server: %s", name,
                       e.msg ? e.msg : "");
    }
    const char *uid = th_json_path_str(pv, "spec.claimRef.uid");
    if (!th_json_path(pv, "spec.claimRef")) {
        return th_fail(err, TH_R_CONFLICT,
                       "found PV object %s but it has a nil pv.Spec.ClaimRef indicating it is not yet "
                       "bound to the claim",
                       name);
    }
    if (!th_streq(uid, claim_uid)) {
        return th_fail(err, TH_R_CONFLICT,
                       "found PV object %s but its pv.Spec.ClaimRef.UID %s does not point to "
                       "claim.UID %s",
                       name, uid ? uid : "", claim_uid);
    }
    *ret = th_steal(&pv);
    return 0;
}

/* The volume's type, as the name of its member of spec. */
static const char *type_of(const struct th_json *pv)
{
    static const char *const types[] = {"hostPath", "local", "csi", "nfs", "iscsi", "fc", "rbd",
                                        "cephfs", "glusterfs", "flexVolume", "flocker",
                                        "gcePersistentDisk", "awsElasticBlockStore", "azureDisk",
                                        "azureFile", "cinder", "photonPersistentDisk",
                                        "portworxVolume", "quobyte", "scaleIO", "storageos",
                                        "vsphereVolume"};
    for (size_t i = 0; i < TH_ARRAY_LEN(types); i++) {
        if (th_json_get(th_json_get(pv, "spec"), types[i])) {
            return types[i];
        }
    }
    return "unknown";
}

static int make_link(struct pod *p, const struct th_json *vol, const char *path, struct th_err *err)
{
    th_autofree char *dir = th_path_join(p->dir, "volumes/kubernetes.io~persistent-volume");
    th_autofree char *link = th_path_join(dir, th_json_path_str(vol, "name"));
    TH_TRY(th_io_mkdir_p(dir, 0750, err));
    th_autofree char *have = vol_claim_dir(p, vol);
    if (th_streq(have, path)) {
        return 0;
    }
    (void)unlink(link);
    return symlink(path, link) == 0 ? 0 : th_fail_errno(err, errno, TH_R_IO, "%s", link);
}

/* Gives the volume to the pod's fsGroup. */
static void give_to_group(struct pod *p, const struct th_json *pv, const char *path, bool read_only)
{
    int64_t gid = th_json_path_int(p->obj, "spec.securityContext.fsGroup", -1);
    const char *policy = th_json_path_str(p->obj, "spec.securityContext.fsGroupChangePolicy");
    bool ours = th_streq(th_annotation(pv, TH_ANN_PROVISIONED_BY), TH_HOST_PATH_PROVISIONER);
    struct stat st;
    if (gid < 0 || (!ours && !th_json_path(pv, "spec.local")) || stat(path, &st) < 0) {
        return;
    }
    bool fits = (int64_t)st.st_gid == gid && (st.st_mode & 02070) == 02070;
    if (!fits || !th_streq(policy, "OnRootMismatch")) {
        vol_chown(path, gid, read_only);
    }
}

static int set_up(struct pod *p, const struct th_json *vol, const struct th_json *pv, bool read_only,
                  struct th_err *err)
{
    const char *name = th_json_path_str(pv, "metadata.name");
    const char *host = th_json_path_str(pv, "spec.hostPath.path");
    const char *local = th_json_path_str(pv, "spec.local.path");
    if (!host && !local) {
        return th_fail(err, TH_R_UNSUPPORTED,
                       "MountVolume.SetUp failed for volume \"%s\" : volumes of type %s are not "
                       "supported by this node",
                       name, type_of(pv));
    }
    if (local && !th_io_exists(local)) {
        return th_fail(err, TH_R_IO,
                       "MountVolume.NewMounter initialization failed for volume \"%s\" : path \"%s\" "
                       "does not exist",
                       name, local);
    }
    int r = host ? vol_host_path(th_json_get(pv, "spec"), host, err) : 0;
    if (r < 0) {
        return th_wrap(err, "MountVolume.SetUp failed for volume \"%s\" ", name);
    }
    TH_TRY(make_link(p, vol, host ? host : local, err));
    give_to_group(p, pv, host ? host : local, read_only);
    return 0;
}

static bool named_in(const struct th_json *pod, const char *member, const char *volume)
{
    static const char *const lists[] = {"initContainers", "containers", "ephemeralContainers"};
    for (size_t l = 0; l < TH_ARRAY_LEN(lists); l++) {
        const struct th_json *ctrs = th_json_get(th_json_get(pod, "spec"), lists[l]);
        for (size_t i = 0; i < th_json_len(ctrs); i++) {
            const struct th_json *uses = th_json_get(th_json_at(ctrs, i), member);
            for (size_t k = 0; k < th_json_len(uses); k++) {
                if (th_streq(th_json_path_str(th_json_at(uses, k), "name"), volume)) {
                    return true;
                }
            }
        }
    }
    return false;
}

static int process(struct pod *p, const struct th_json *vol, const char *claim_name, bool ephemeral,
                   struct th_json **ret_pv, struct th_err *err)
{
    const char *name = th_json_path_str(vol, "name");
    TH_AUTO(th_json) struct th_json *claim = NULL;
    TH_AUTO(th_json) struct th_json *pv = NULL;
    int r = get_claim(p, claim_name, ephemeral, &claim, err);
    r = r < 0 ? r : get_volume(p, claim, &pv, err);
    if (r < 0) {
        return th_wrap(err, "error processing PVC %s/%s", p->ns, claim_name);
    }
    bool block = th_streq(th_json_path_str(pv, "spec.volumeMode"), "Block");
    if (block && named_in(p->obj, "volumeMounts", name)) {
        return th_fail(err, TH_R_INVALID,
                       "volume %s has volumeMode Block, but is specified in volumeMounts", name);
    }
    if (!block && named_in(p->obj, "volumeDevices", name)) {
        return th_fail(err, TH_R_INVALID,
                       "volume %s has volumeMode Filesystem, but is specified in volumeDevices", name);
    }
    if (block) {
        return th_fail(err, TH_R_UNSUPPORTED,
                       "volumes with volumeMode Block are not supported by this node");
    }
    *ret_pv = th_steal(&pv);
    return 0;
}

int vol_claim_setup(struct pod *p, const struct th_json *vol, struct th_err *err)
{
    const char *name = th_json_path_str(vol, "name");
    bool ephemeral = false;
    th_autofree char *claim = th_pod_claim_name(p->obj, vol, &ephemeral);
    TH_AUTO(th_json) struct th_json *pv = NULL;
    int r = process(p, vol, claim, ephemeral, &pv, err);
    if (r < 0) {
        return th_wrap(err,
                       "Unable to attach or mount volumes: unmounted volumes=[%s], unattached "
                       "volumes=[], failed to process volumes=[%s]",
                       name, name);
    }
    return set_up(p, vol, pv, vol_claim_read_only(vol), err);
}

bool vol_claim_read_only(const struct th_json *vol)
{
    return th_json_path_bool(vol, "persistentVolumeClaim.readOnly", false);
}
