#ifndef TH_SCHEMA_STORAGE_H
#define TH_SCHEMA_STORAGE_H
/* What claims (PersistentVolumeClaim), volumes (PersistentVolume) and pods say about each other: for
 * the binder, the provisioner, the scheduler and the node agent. Pure; as k8s.io/component-helpers
 * storage/volume. */
#include "base/json/json.h"
#include "controlplane/schema/quantity.h"

#define TH_ANN_BIND_COMPLETED "pv.kubernetes.io/bind-completed"
#define TH_ANN_BOUND_BY_CONTROLLER "pv.kubernetes.io/bound-by-controller"
#define TH_ANN_PROVISIONED_BY "pv.kubernetes.io/provisioned-by"
#define TH_ANN_SELECTED_NODE "volume.kubernetes.io/selected-node"
#define TH_ANN_PROVISIONER "volume.kubernetes.io/storage-provisioner"
#define TH_ANN_BETA_PROVISIONER "volume.beta.kubernetes.io/storage-provisioner"
#define TH_ANN_DEFAULT_CLASS "storageclass.kubernetes.io/is-default-class"
#define TH_PVC_FINALIZER "kubernetes.io/pvc-protection"
#define TH_PV_FINALIZER "kubernetes.io/pv-protection"
#define TH_VAC_FINALIZER "kubernetes.io/vac-protection"
#define TH_PROVISIONED_FINALIZER "external-provisioner.volume.kubernetes.io/finalizer"
/* The cluster's own provisioner: folders on the data disk. */
#define TH_HOST_PATH_PROVISIONER "thimble.dev/host-path"

const char *th_annotation(const struct th_json *obj, const char *name); /* NULL: not there */
bool th_has_finalizer(const struct th_json *obj, const char *name);
void th_add_finalizer(struct th_json *obj, const char *name);
bool th_drop_finalizer(struct th_json *obj, const char *name); /* false: was not there */

/* The class that a claim or a volume names (the old annotation counts), or "". */
const char *th_storage_class_of(const struct th_json *claim_or_volume);
bool th_claim_has_class(const struct th_json *claim); /* names one, be it "" */
/* spec.resources.requests.storage, spec.capacity.storage; zero when there is none. */
struct th_quantity th_claim_size(const struct th_json *claim);
struct th_quantity th_volume_size(const struct th_json *volume);
bool th_claim_wants_mode(const struct th_json *claim, const char *access_mode);
bool th_volume_modes_differ(const struct th_json *claim, const struct th_json *volume);
bool th_volume_has_access_modes(const struct th_json *claim, const struct th_json *volume);

/* claimRef means this claim (a claimRef without uid: a claim of this name). */
bool th_volume_is_for(const struct th_json *volume, const struct th_json *claim);
/* The claim has its volume, and the binder has said so. */
bool th_claim_is_bound(const struct th_json *claim);
/* Makes volume point to claim; true when something changed. */
bool th_volume_bind(struct th_json *volume, const struct th_json *claim);
/* spec.nodeAffinity allows a node with these labels. */
bool th_volume_fits_node(const struct th_json *volume, const struct th_json *node_labels);

/* The volume that suits claim best among volumes (array): one that is meant for it, else the
 * smallest available one. node_labels NULL: the binder asks, which takes access modes apart (fewest
 * first) and with `delayed` leaves free volumes to the scheduler. `taken` (may be NULL) has names of
 * volumes to pass over. Borrowed from volumes; NULL: none. */
const struct th_json *th_volume_find(const struct th_json *claim, const struct th_json *volumes,
                                     const struct th_json *node_labels, const struct th_strv *taken,
                                     bool delayed);

/* The name of the claim that a volume of a pod's spec uses, which is the caller's; NULL: it uses
 * none. *ret_ephemeral (may be NULL): it is made for the pod. */
char *th_pod_claim_name(const struct th_json *pod, const struct th_json *volume,
                        bool *ret_ephemeral);
/* A claim made for a volume of the pod is the pod's own. */
bool th_claim_is_owned_by(const struct th_json *claim, const struct th_json *pod);
/* Some volume of the pod uses the claim. */
bool th_pod_uses_claim(const struct th_json *pod, const struct th_json *claim);
#endif
