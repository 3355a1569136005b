/*
 * Claims, volumes and pods: who means whom, and which volume suits which claim.
 *
 * The binder (controllers/pv_binder.c) and the scheduler must come to the same answer, or a claim
 * would go back and forth between them; so both ask here. A volume suits a claim when it is big
 * enough, has the claim's volumeMode, class, attributes class, labels and access modes; the
 * smallest such one is taken. One that is meant for the claim already (claimRef) comes first,
 * whatever its class.
 */
#include "controlplane/schema/storage.h"
#include "base/buf.h"
#include "controlplane/schema/selector.h"

#define BETA_CLASS "volume.beta.kubernetes.io/storage-class"

const char *th_annotation(const struct th_json *obj, const char *name)
{
    return th_json_str(th_json_get(th_json_path(obj, "metadata.annotations"), name));
}

static size_t finalizer_at(const struct th_json *all, const char *name)
{
    size_t i = 0;
    while (i < th_json_len(all) && !th_streq(th_json_str(th_json_at(all, i)), name)) {
        i++;
    }
    return i;
}

bool th_has_finalizer(const struct th_json *obj, const char *name)
{
    const struct th_json *all = th_json_path(obj, "metadata.finalizers");
    return finalizer_at(all, name) < th_json_len(all);
}

void th_add_finalizer(struct th_json *obj, const char *name)
{
    if (!th_has_finalizer(obj, name)) {
        th_json_append_str(th_json_path_array(obj, "metadata.finalizers"), name);
    }
}

bool th_drop_finalizer(struct th_json *obj, const char *name)
{
    struct th_json *all = th_json_path(obj, "metadata.finalizers");
    size_t at = finalizer_at(all, name);
    if (at >= th_json_len(all)) {
        return false;
    }
    th_json_del_at(all, at);
    if (th_json_len(all) == 0) {
        (void)th_json_path_del(obj, "metadata.finalizers");
    }
    return true;
}

const char *th_storage_class_of(const struct th_json *obj)
{
    const char *old = th_annotation(obj, BETA_CLASS);
    const char *class = old ? old : th_json_path_str(obj, "spec.storageClassName");
    return class ? class : "";
}

bool th_claim_has_class(const struct th_json *claim)
{
    return th_annotation(claim, BETA_CLASS) || th_json_path(claim, "spec.storageClassName");
}

static struct th_quantity quantity(const char *text)
{
    struct th_quantity q = {0};
    if (!text || th_quantity_parse(text, &q, NULL) < 0) {
        q = th_quantity_from_value(0, TH_Q_BINARY_SI);
    }
    return q;
}

struct th_quantity th_claim_size(const struct th_json *claim)
{
    return quantity(th_json_path_str(claim, "spec.resources.requests.storage"));
}

struct th_quantity th_volume_size(const struct th_json *volume)
{
    return quantity(th_json_path_str(volume, "spec.capacity.storage"));
}

static bool has_word(const struct th_json *list, const char *word)
{
    for (size_t i = 0; i < th_json_len(list); i++) {
        if (th_streq(th_json_str(th_json_at(list, i)), word)) {
            return true;
        }
    }
    return false;
}

bool th_claim_wants_mode(const struct th_json *claim, const char *access_mode)
{
    return has_word(th_json_path(claim, "spec.accessModes"), access_mode);
}

static const char *or(const char *text, const char *otherwise)
{
    return text ? text : otherwise;
}

bool th_volume_modes_differ(const struct th_json *claim, const struct th_json *volume)
{
    return !th_streq(or(th_json_path_str(claim, "spec.volumeMode"), "Filesystem"),
                     or(th_json_path_str(volume, "spec.volumeMode"), "Filesystem"));
}

bool th_volume_has_access_modes(const struct th_json *claim, const struct th_json *volume)
{
    const struct th_json *has = th_json_path(volume, "spec.accessModes");
    const struct th_json *wants = th_json_path(claim, "spec.accessModes");
    for (size_t i = 0; i < th_json_len(wants); i++) {
        if (!has_word(has, th_json_str(th_json_at(wants, i)))) {
            return false;
        }
    }
    return true;
}

bool th_volume_is_for(const struct th_json *volume, const struct th_json *claim)
{
    const struct th_json *ref = th_json_path(volume, "spec.claimRef");
    const char *uid = th_json_path_str(ref, "uid");
    return ref &&
           th_streq(th_json_path_str(ref, "name"), th_json_path_str(claim, "metadata.name")) &&
           th_streq(th_json_path_str(ref, "namespace"),
                    th_json_path_str(claim, "metadata.namespace")) &&
           (!uid || !*uid || th_streq(uid, th_json_path_str(claim, "metadata.uid")));
}

bool th_claim_is_bound(const struct th_json *claim)
{
    const char *name = th_json_path_str(claim, "spec.volumeName");
    return name && *name && th_annotation(claim, TH_ANN_BIND_COMPLETED);
}

bool th_volume_bind(struct th_json *volume, const struct th_json *claim)
{
    const char *uid = th_json_path_str(claim, "metadata.uid");
    bool meant = th_volume_is_for(volume, claim);
    bool dirty = false;
    if (!meant || !th_streq(th_json_path_str(volume, "spec.claimRef.uid"), uid)) {
        th_json_path_set(volume, "spec.claimRef",
                         th_json_build("{'kind':'PersistentVolumeClaim','namespace':%s,'name':%s,"
                                       "'uid':%s,'apiVersion':'v1','resourceVersion':%s}",
                                       th_json_path_str(claim, "metadata.namespace"),
                                       th_json_path_str(claim, "metadata.name"), uid,
                                       th_json_path_str(claim, "metadata.resourceVersion")));
        dirty = true;
    }
    if (!meant && !th_annotation(volume, TH_ANN_BOUND_BY_CONTROLLER)) {
        th_json_set_str(th_json_path_object(volume, "metadata.annotations"),
                        TH_ANN_BOUND_BY_CONTROLLER, "yes");
        dirty = true;
    }
    return dirty;
}

bool th_volume_fits_node(const struct th_json *volume, const struct th_json *node_labels)
{
    const struct th_json *required = th_json_path(volume, "spec.nodeAffinity.required");
    if (!required) {
        return true;
    }
    struct th_node_selector *s TH_AUTO(th_node_selector) =
        th_node_selector_new(th_json_get(required, "nodeSelectorTerms"));
    return th_node_selector_matches(s, node_labels, "");
}

/* Whether the volume could be the claim's, size and kind; the claimRef has been looked at. */
static bool could_be(const struct th_json *claim, const struct th_json *volume)
{
    return th_quantity_cmp(th_volume_size(volume), th_claim_size(claim)) >= 0 &&
           !th_volume_modes_differ(claim, volume) &&
           th_streq(or(th_json_path_str(claim, "spec.volumeAttributesClassName"), ""),
                    or(th_json_path_str(volume, "spec.volumeAttributesClassName"), "")) &&
           !th_json_path_str(volume, "metadata.deletionTimestamp");
}

/* a is to be taken rather than b: for the binder those with fewer access modes, then smaller ones. */
static bool better(const struct th_json *a, const struct th_json *b, bool binder)
{
    size_t modes_a = th_json_len(th_json_path(a, "spec.accessModes"));
    size_t modes_b = b ? th_json_len(th_json_path(b, "spec.accessModes")) : SIZE_MAX;
    if (!b || (binder && modes_a != modes_b)) {
        return modes_a < modes_b;
    }
    return th_quantity_cmp(th_volume_size(a), th_volume_size(b)) < 0;
}

const struct th_json *th_volume_find(const struct th_json *claim, const struct th_json *volumes,
                                     const struct th_json *node_labels, const struct th_strv *taken,
                                     bool delayed)
{
    struct th_selector *sel TH_AUTO(th_selector) = NULL;
    const struct th_json *wanted = th_json_path(claim, "spec.selector");
    const struct th_json *best = NULL;
    if (wanted && th_selector_from_json(wanted, &sel, NULL) < 0) {
        return NULL;
    }
    for (size_t i = 0; i < th_json_len(volumes); i++) {
        const struct th_json *v = th_json_at(volumes, i);
        bool meant = th_volume_is_for(v, claim);
        if ((taken && th_strv_has(taken, th_json_path_str(v, "metadata.name"))) ||
            (th_json_path(v, "spec.claimRef") && !meant) || !could_be(claim, v) ||
            (!node_labels && !th_volume_has_access_modes(claim, v))) {
            continue;
        }
        bool here = !node_labels || th_volume_fits_node(v, node_labels);
        if (meant) {
            return here ? v : NULL;
        }
        if ((!node_labels && delayed) || !here ||
            !th_streq(th_json_path_str(v, "status.phase"), "Available") ||
            (sel && !th_selector_matches(sel, th_json_path(v, "metadata.labels"))) ||
            !th_streq(th_storage_class_of(v), th_storage_class_of(claim)) ||
            !th_volume_has_access_modes(claim, v)) {
            continue;
        }
        best = better(v, best, !node_labels) ? v : best;
    }
    return best;
}

char *th_pod_claim_name(const struct th_json *pod, const struct th_json *volume, bool *ret_ephemeral)
{
    const char *named = th_json_path_str(volume, "persistentVolumeClaim.claimName");
    bool ephemeral = !named && th_json_get(volume, "ephemeral");
    if (ret_ephemeral) {
        *ret_ephemeral = ephemeral;
    }
    return ephemeral ? th_xasprintf("%s-%s", th_json_path_str(pod, "metadata.name"),
                                    th_json_path_str(volume, "name"))
                     : th_xstrdup(named);
}

bool th_claim_is_owned_by(const struct th_json *claim, const struct th_json *pod)
{
    const struct th_json *owners = th_json_path(claim, "metadata.ownerReferences");
    const char *uid = th_json_path_str(pod, "metadata.uid");
    for (size_t i = 0; i < th_json_len(owners); i++) {
        const struct th_json *o = th_json_at(owners, i);
        if (th_json_path_bool(o, "controller", false)) {
            return th_streq(th_json_path_str(o, "uid"), uid);
        }
    }
    return false;
}

bool th_pod_uses_claim(const struct th_json *pod, const struct th_json *claim)
{
    const struct th_json *volumes = th_json_path(pod, "spec.volumes");
    if (!th_streq(th_json_path_str(pod, "metadata.namespace"),
                  th_json_path_str(claim, "metadata.namespace"))) {
        return false;
    }
    for (size_t i = 0; i < th_json_len(volumes); i++) {
        bool ephemeral = false;
        th_autofree char *name = th_pod_claim_name(pod, th_json_at(volumes, i), &ephemeral);
        if (name && th_streq(name, th_json_path_str(claim, "metadata.name")) &&
            (!ephemeral || th_claim_is_owned_by(claim, pod))) {
            return true;
        }
    }
    return false;
}
