/*
 * Who owns the claims of a StatefulSet's pods: nobody (Retain), the set (whenDeleted: Delete), or the
 * pod that is surplus (whenScaled: Delete); the garbage collector does the rest.
 *
 * References of others stay. A claim that another controller manages, or that refers to an earlier set
 * or pod of the same name, is not touched, but that references to this set and pod are taken off
 * beside a foreign controller. As upstream's stateful_set_utils.go decides.
 */
#include "controlplane/controllers/statefulset_claims.h"
#include "base/buf.h"
#include "controlplane/client/client.h"

static const struct th_json *refs_of(const struct th_json *claim)
{
    return th_json_path(claim, "metadata.ownerReferences");
}

static bool is_named(const struct th_json *ref, const struct th_json *obj)
{
    return th_streq(th_json_path_str(ref, "apiVersion"), th_json_path_str(obj, "apiVersion")) &&
           th_streq(th_json_path_str(ref, "kind"), th_json_path_str(obj, "kind")) &&
           th_streq(th_json_path_str(ref, "name"), th_json_path_str(obj, "metadata.name"));
}

static bool is_of(const struct th_json *ref, const struct th_json *obj)
{
    return th_streq(th_json_path_str(ref, "uid"), th_json_path_str(obj, "metadata.uid"));
}

static bool has_ref(const struct th_json *claim, const struct th_json *obj)
{
    const struct th_json *refs = refs_of(claim);
    for (size_t i = 0; i < th_json_len(refs); i++) {
        if (is_of(th_json_at(refs, i), obj)) {
            return true;
        }
    }
    return false;
}

/* Refers to an earlier set or pod of this name. */
static bool is_stale(const struct th_json *claim, const struct th_json *obj)
{
    const struct th_json *refs = refs_of(claim);
    for (size_t i = 0; i < th_json_len(refs); i++) {
        const struct th_json *ref = th_json_at(refs, i);
        if (is_named(ref, obj)) {
            return !is_of(ref, obj);
        }
    }
    return false;
}

static bool has_other_controller(const struct th_json *claim, const struct th_json *set,
                                 const struct th_json *pod)
{
    const struct th_json *refs = refs_of(claim);
    for (size_t i = 0; i < th_json_len(refs); i++) {
        const struct th_json *ref = th_json_at(refs, i);
        bool ours = is_named(ref, set) || is_named(ref, pod);
        if (!ours && th_json_path_bool(ref, "controller", false)) {
            return true;
        }
    }
    return false;
}

/* Has a reference to obj that is not a controller's. */
static bool owns_without_control(const struct th_json *claim, const struct th_json *obj)
{
    const struct th_json *refs = refs_of(claim);
    for (size_t i = 0; i < th_json_len(refs); i++) {
        const struct th_json *ref = th_json_at(refs, i);
        if (is_of(ref, obj) && !th_json_path_bool(ref, "controller", false)) {
            return true;
        }
    }
    return false;
}

static void set_owner(struct th_json *claim, const struct th_json *set, const struct th_json *pod,
                      const struct th_json *owner)
{
    struct th_json *rest = th_json_array();
    const struct th_json *refs = refs_of(claim);
    for (size_t i = 0; i < th_json_len(refs); i++) {
        const struct th_json *ref = th_json_at(refs, i);
        if (!is_named(ref, set) && !is_named(ref, pod)) {
            th_json_append(rest, th_json_dup(ref));
        }
    }
    if (owner) {
        th_json_append(rest, th_owner_ref_build(owner, true, true));
    }
    th_json_path_set(claim, "metadata.ownerReferences", rest);
}

bool th_statefulset_own_claim(struct th_json *claim, const struct th_json *set,
                              const struct th_json *pod, bool surplus)
{
    const struct th_json *policy = th_json_path(set, "spec.persistentVolumeClaimRetentionPolicy");
    bool when_deleted = th_streq(th_json_path_str(policy, "whenDeleted"), "Delete");
    bool when_scaled = th_streq(th_json_path_str(policy, "whenScaled"), "Delete");
    if (is_stale(claim, set) || is_stale(claim, pod)) {
        return false;
    }
    if ((when_deleted || when_scaled) && has_other_controller(claim, set, pod)) {
        bool mixed = has_ref(claim, set) || has_ref(claim, pod);
        if (mixed) {
            set_owner(claim, set, pod, NULL);
        }
        return mixed;
    }
    const struct th_json *owner = surplus && when_scaled ? pod : when_deleted ? set : NULL;
    if (has_ref(claim, set) == (owner == set) && has_ref(claim, pod) == (owner == pod) &&
        !owns_without_control(claim, set) && !owns_without_control(claim, pod)) {
        return false;
    }
    set_owner(claim, set, pod, owner);
    return true;
}
