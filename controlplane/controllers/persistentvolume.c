/*
 * The persistent volume binder: brings claims and volumes together.
 *
 * A claim that is not bound gets the volume that it names, or the one that is meant for it, or the
 * smallest that suits; where none does, its class's provisioner is asked for one by an annotation.
 * Classes with WaitForFirstConsumer leave both to the scheduler, which knows the node first. Binding
 * is four writes (volume, its phase, claim, its phase), each of which may be the last before a
 * crash: every pass goes through all four, so that the next one finishes what was begun. Two claims
 * that want the same volume are settled by the volume's resourceVersion.
 *
 * Upstream finds free volumes for waiting claims at its next resync; here an event of a volume or
 * of a class makes the claims that it may help look again at once. The resync of 15 seconds stays,
 * with its repeated events. CSI migration is not there: nothing here has in-tree cloud volumes.
 */
#include "controlplane/controllers/pv_priv.h"
#include "base/buf.h"
#include "base/clock.h"

int pv_put(struct th_ctrl *c, const char *key, struct th_gvr gvr, const char *subresource,
           struct th_json **obj, struct th_err *err)
{
    struct th_json *now = NULL;
    TH_TRY(th_client_update(th_ctrl_client(c), gvr, th_json_path_str(*obj, "metadata.namespace"),
                            th_json_path_str(*obj, "metadata.name"), subresource, *obj, &now, err));
    th_ctrl_expect(c, key, gvr, now);
    th_json_unref(*obj);
    *obj = now;
    return 0;
}

int pv_set_phase(struct th_ctrl *c, const char *key, struct th_json **volume, const char *phase,
                 const char *message, struct th_err *err)
{
    if (th_streq(th_json_path_str(*volume, "status.phase"), phase)) {
        return 0;
    }
    th_json_path_set_str(*volume, "status.phase", phase);
    if (message && *message) {
        th_json_path_set_str(*volume, "status.message", message);
    } else {
        (void)th_json_path_del(*volume, "status.message");
    }
    TH_TRY(pv_put(c, key, GVR_VOLUMES, "status", volume, err));
    return 1;
}

int pv_get(struct th_ctrl *c, struct th_gvr gvr, const char *ns, const char *name,
           struct th_json **ret, struct th_err *err)
{
    *ret = th_informer_get(th_ctrl_informer(c, gvr), ns, name);
    int r = *ret ? 0 : th_client_get(th_ctrl_client(c), gvr, ns, name, ret, err);
    if (r == -TH_R_NOT_FOUND) {
        th_err_done(err);
        *ret = NULL;
        return 0;
    }
    return r;
}

/* ---- Writing claims ---- */

/* Phase and what goes with it; volume NULL: the claim has none. 1: the phase changed. */
static int set_claim_status(struct th_ctrl *c, const char *key, struct th_json **claim,
                            const char *phase, const struct th_json *volume, struct th_err *err)
{
    bool changes = !th_streq(th_json_path_str(*claim, "status.phase"), phase);
    struct th_json *status TH_AUTO(th_json) = th_json_dup(th_json_get(*claim, "status"));
    status = status ? status : th_json_object();
    th_json_set_str(status, "phase", phase);
    if (!volume) {
        (void)th_json_del(status, "accessModes");
        (void)th_json_del(status, "capacity");
        (void)th_json_del(status, "currentVolumeAttributesClassName");
    } else {
        const struct th_json *class = th_json_path(volume, "spec.volumeAttributesClassName");
        th_json_set(status, "accessModes", th_json_dup(th_json_path(volume, "spec.accessModes")));
        if (changes) { /* afterwards they are the resizer's */
            th_json_set(status, "capacity", th_json_dup(th_json_path(volume, "spec.capacity")));
        }
        if (changes && class) {
            th_json_set(status, "currentVolumeAttributesClassName", th_json_dup(class));
        }
    }
    if (th_json_equal(status, th_json_get(*claim, "status"))) {
        return 0;
    }
    th_json_set(*claim, "status", th_json_ref(status));
    TH_TRY(pv_put(c, key, GVR_CLAIMS, "status", claim, err));
    return changes;
}

static int lose_claim(struct th_ctrl *c, const char *key, struct th_json **claim,
                      const char *reason, const char *message, struct th_err *err)
{
    if (th_streq(th_json_path_str(*claim, "status.phase"), "Lost")) {
        return 0;
    }
    TH_TRY(set_claim_status(c, key, claim, "Lost", NULL, err));
    th_event_record(th_ctrl_recorder(c), *claim, "Warning", reason, "%s", message);
    return 0;
}

static int bind_claim(struct th_ctrl *c, const char *key, struct th_json **claim,
                      const struct th_json *volume, struct th_err *err)
{
    const char *name = th_json_path_str(volume, "metadata.name");
    struct th_json *notes = th_json_path_object(*claim, "metadata.annotations");
    bool dirty = false;
    if (!th_streq(th_json_path_str(*claim, "spec.volumeName"), name)) {
        th_json_path_set_str(*claim, "spec.volumeName", name);
        th_json_set_str(notes, TH_ANN_BOUND_BY_CONTROLLER, "yes");
        dirty = true;
    }
    if (!th_json_get(notes, TH_ANN_BIND_COMPLETED)) {
        th_json_set_str(notes, TH_ANN_BIND_COMPLETED, "yes");
        dirty = true;
    }
    return dirty ? pv_put(c, key, GVR_CLAIMS, "", claim, err) : 0;
}

static int bind_both(struct th_ctrl *c, const char *key, struct th_json **volume,
                     struct th_json **claim, struct th_err *err)
{
    if (th_volume_bind(*volume, *claim)) {
        TH_TRY(pv_put(c, key, GVR_VOLUMES, "", volume, err));
    }
    TH_TRY(pv_set_phase(c, key, volume, "Bound", "", err));
    TH_TRY(bind_claim(c, key, claim, *volume, err));
    int r = set_claim_status(c, key, claim, "Bound", *volume, err);
    return r < 0 ? r : 0;
}

/* ---- A claim without a volume ---- */

static bool add_to(void *arg, struct th_json *obj)
{
    th_json_append(arg, th_json_ref(obj));
    return true;
}

static struct th_json *all_of(struct th_ctrl *c, struct th_gvr gvr, const char *ns)
{
    struct th_json *all = th_json_array();
    th_informer_each(th_ctrl_informer(c, gvr), ns, add_to, all);
    return all;
}

static struct th_json *class_of(struct th_ctrl *c, const struct th_json *claim)
{
    const char *name = th_storage_class_of(claim);
    return *name ? th_informer_get(th_ctrl_informer(c, GVR_CLASSES), "", name) : NULL;
}

static bool is_delayed(const struct th_json *class)
{
    return th_streq(th_json_path_str(class, "volumeBindingMode"), "WaitForFirstConsumer");
}

static bool ended(const struct th_json *pod)
{
    const char *phase = th_json_path_str(pod, "status.phase");
    return th_streq(phase, "Succeeded") || th_streq(phase, "Failed");
}

static void say_waiting(struct th_ctrl *c, const struct th_json *claim)
{
    struct th_json *pods TH_AUTO(th_json) =
        all_of(c, TH_GVR_PODS, th_json_path_str(claim, "metadata.namespace"));
    struct th_strv names TH_CLEANUP(th_strv_done) = TH_STRV_INIT;
    for (size_t i = 0; i < th_json_len(pods); i++) {
        const struct th_json *pod = th_json_at(pods, i);
        const char *node = th_json_path_str(pod, "spec.nodeName");
        if ((!node || !*node) && !ended(pod) && th_pod_uses_claim(pod, claim)) {
            th_strv_add(&names, th_json_path_str(pod, "metadata.name"));
        }
    }
    if (names.n == 0) {
        th_event_record(th_ctrl_recorder(c), claim, "Normal", "WaitForFirstConsumer",
                        "waiting for first consumer to be created before binding");
        return;
    }
    th_autofree char *list = th_strv_join(&names, ",");
    th_event_record(th_ctrl_recorder(c), claim, "Normal", "WaitForPodScheduled",
                    "waiting for pod%s %s to be scheduled", names.n > 1 ? "s" : "", list);
}

/* The newest class that is marked as the default, then the first by name; NULL: none. */
static const struct th_json *default_class(const struct th_json *classes)
{
    const struct th_json *best = NULL;
    for (size_t i = 0; i < th_json_len(classes); i++) {
        const struct th_json *k = th_json_at(classes, i);
        if (!th_streq(th_annotation(k, TH_ANN_DEFAULT_CLASS), "true")) {
            continue;
        }
        int newer = !best ? 1 : strcmp(th_json_path_str(k, "metadata.creationTimestamp"),
                                       th_json_path_str(best, "metadata.creationTimestamp"));
        if (newer > 0 || (newer == 0 && strcmp(th_json_path_str(k, "metadata.name"),
                                               th_json_path_str(best, "metadata.name")) < 0)) {
            best = k;
        }
    }
    return best;
}

/* A claim that was made before there was a default class gets it now; 1: it did. */
static int assign_class(struct th_ctrl *c, const char *key, struct th_json **claim,
                        struct th_err *err)
{
    if (th_claim_has_class(*claim)) {
        return 0;
    }
    struct th_json *classes TH_AUTO(th_json) = all_of(c, GVR_CLASSES, NULL);
    const struct th_json *class = default_class(classes);
    if (!class) {
        return 0;
    }
    th_json_path_set_str(*claim, "spec.storageClassName", th_json_path_str(class, "metadata.name"));
    TH_TRY(pv_put(c, key, GVR_CLAIMS, "", claim, err));
    return 1;
}

/* Tells the provisioner of the claim's class that it is wanted. */
static int provision(struct th_ctrl *c, const char *key, struct th_json **claim,
                     const struct th_json *class, struct th_err *err)
{
    struct th_recorder *rec = th_ctrl_recorder(c);
    const char *provisioner = th_json_path_str(class, "provisioner");
    if (!class) {
        th_event_record(rec, *claim, "Warning", "ProvisioningFailed",
                        "storageclass.storage.k8s.io \"%s\" not found",
                        th_storage_class_of(*claim));
        return 0;
    }
    if (th_startswith(provisioner, "kubernetes.io/")) {
        th_event_record(rec, *claim, "Warning", "ProvisioningFailed",
                        "no volume plugin matched name: %s", provisioner);
        return 0;
    }
    if (!th_streq(th_annotation(*claim, TH_ANN_PROVISIONER), provisioner)) {
        struct th_json *notes = th_json_path_object(*claim, "metadata.annotations");
        th_json_set_str(notes, TH_ANN_BETA_PROVISIONER, provisioner);
        th_json_set_str(notes, TH_ANN_PROVISIONER, provisioner);
        TH_TRY(pv_put(c, key, GVR_CLAIMS, "", claim, err));
    }
    th_event_record(rec, *claim, "Normal", "ExternalProvisioning",
                    "Waiting for a volume to be created either by the external provisioner '%s' or "
                    "manually by the system administrator. If volume creation is delayed, please "
                    "verify that the provisioner is running and correctly registered.",
                    provisioner);
    return 0;
}

/* The volumes among which the claim's may be: the one that was made for it, by the name that all
 * provisioners use, spares a look at every volume; otherwise all. */
static struct th_json *candidates(struct th_ctrl *c, const struct th_json *claim)
{
    th_autofree char *name = th_xasprintf("pvc-%s", th_json_path_str(claim, "metadata.uid"));
    struct th_json *made = th_informer_get(th_ctrl_informer(c, GVR_VOLUMES), "", name);
    if (!made || !th_volume_is_for(made, claim)) {
        th_json_unref(made);
        return all_of(c, GVR_VOLUMES, NULL);
    }
    struct th_json *one = th_json_array();
    th_json_append(one, made);
    return one;
}

static int find_volume(struct th_ctrl *c, const char *key, struct th_json **claim,
                       struct th_err *err)
{
    struct th_json *class TH_AUTO(th_json) = class_of(c, *claim);
    struct th_json *volumes TH_AUTO(th_json) = candidates(c, *claim);
    const struct th_json *best = th_volume_find(*claim, volumes, NULL, NULL, is_delayed(class));
    if (best) {
        struct th_json *volume TH_AUTO(th_json) = th_json_dup(best);
        return bind_both(c, key, &volume, claim, err);
    }
    int assigned = assign_class(c, key, claim, err);
    if (assigned != 0) {
        return assigned < 0 ? assigned : 0; /* the write's event brings the claim here again */
    }
    if (is_delayed(class) && !th_annotation(*claim, TH_ANN_SELECTED_NODE)) {
        say_waiting(c, *claim);
    } else if (*th_storage_class_of(*claim)) {
        return provision(c, key, claim, class, err);
    } else {
        th_event_record(th_ctrl_recorder(c), *claim, "Normal", "FailedBinding",
                        "no persistent volumes available for this claim and no storage class is "
                        "set");
    }
    int r = set_claim_status(c, key, claim, "Pending", NULL, err);
    return r < 0 ? r : 0;
}

/* Why a volume that a claim asks for by name cannot be its own, or NULL. */
static const char *mismatch(const struct th_json *volume, const struct th_json *claim)
{
    const char *a = th_json_path_str(claim, "spec.volumeAttributesClassName");
    const char *b = th_json_path_str(volume, "spec.volumeAttributesClassName");
    if (th_quantity_cmp(th_volume_size(volume), th_claim_size(claim)) < 0) {
        return "requested PV is too small";
    }
    if (!th_streq(th_storage_class_of(volume), th_storage_class_of(claim))) {
        return "storageClassName does not match";
    }
    if (!th_streq(a ? a : "", b ? b : "")) {
        return "volumeAttributesClassName does not match";
    }
    if (th_volume_modes_differ(claim, volume)) {
        return "incompatible volumeMode";
    }
    return th_volume_has_access_modes(claim, volume) ? NULL : "incompatible accessMode";
}

/* The claim names its volume. */
static int take_volume(struct th_ctrl *c, const char *key, struct th_json **claim,
                       struct th_err *err)
{
    struct th_recorder *rec = th_ctrl_recorder(c);
    const char *name = th_json_path_str(*claim, "spec.volumeName");
    struct th_json *volume TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, GVR_VOLUMES), "", name);
    if (volume && !th_json_path(volume, "spec.claimRef")) {
        th_autofree char *deleted =
            th_json_path_str(volume, "metadata.deletionTimestamp")
                ? th_xasprintf("the volume is marked for deletion \"%s\"", name)
                : NULL;
        const char *why = deleted ? deleted : mismatch(volume, *claim);
        if (!why) {
            return bind_both(c, key, &volume, claim, err);
        }
        th_event_record(rec, *claim, "Warning", "VolumeMismatch",
                        "Cannot bind to requested volume \"%s\": %s", name, why);
    } else if (volume && th_volume_is_for(volume, *claim)) {
        return bind_both(c, key, &volume, claim, err);
    } else if (volume) {
        th_event_record(rec, *claim, "Warning", "FailedBinding",
                        "volume \"%s\" already bound to a different claim.", name);
    }
    int r = set_claim_status(c, key, claim, "Pending", NULL, err);
    return r < 0 ? r : 0;
}

/* ---- A claim that was bound ---- */

static int keep_bound(struct th_ctrl *c, const char *key, struct th_json **claim,
                      struct th_err *err)
{
    const char *name = th_json_path_str(*claim, "spec.volumeName");
    if (!name || !*name) {
        return lose_claim(c, key, claim, "ClaimLost",
                          "Bound claim has lost reference to PersistentVolume. Data on the volume "
                          "is lost!",
                          err);
    }
    struct th_json *volume TH_AUTO(th_json) = NULL;
    TH_TRY(pv_get(c, GVR_VOLUMES, NULL, name, &volume, err));
    if (!volume) {
        return lose_claim(c, key, claim, "ClaimLost",
                          "Bound claim has lost its PersistentVolume. Data on the volume is lost!",
                          err);
    }
    const char *uid = th_json_path_str(volume, "spec.claimRef.uid");
    if (!th_json_path(volume, "spec.claimRef") ||
        th_streq(uid, th_json_path_str(*claim, "metadata.uid"))) {
        return bind_both(c, key, &volume, claim, err);
    }
    return lose_claim(c, key, claim, "ClaimMisbound",
                      "Two claims are bound to the same volume, this one is bound incorrectly",
                      err);
}

static int sync_claim(struct th_ctrl *c, const char *key, int64_t *ret_after_ms, struct th_err *err)
{
    const char *name = NULL;
    th_autofree char *ns = th_ctrl_key_split(key, &name);
    struct th_json *claim TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, GVR_CLAIMS), ns, name);
    if (!claim) {
        return 0;
    }
    if (th_annotation(claim, TH_ANN_BIND_COMPLETED)) {
        return keep_bound(c, key, &claim, err);
    }
    const char *volume = th_json_path_str(claim, "spec.volumeName");
    *ret_after_ms = PV_RESYNC_MS;
    return volume && *volume ? take_volume(c, key, &claim, err) : find_volume(c, key, &claim, err);
}

static int reconcile(struct th_ctrl *c, const char *key, int64_t *ret_after_ms, struct th_err *err)
{
    return strchr(key, '/') ? sync_claim(c, key, ret_after_ms, err)
                            : pv_sync_volume(c, key, ret_after_ms, err);
}

/* ---- Events ---- */

struct search {
    struct th_ctrl *c;
    const char *ns, *name; /* of a claim; or */
    const char *class;     /* NULL: any */
};

static bool enqueue_waiting(void *arg, struct th_json *claim)
{
    const struct search *s = arg;
    if (!th_annotation(claim, TH_ANN_BIND_COMPLETED) &&
        (!s->class || th_streq(s->class, th_storage_class_of(claim)))) {
        th_ctrl_enqueue_obj(s->c, claim);
    }
    return true;
}

static bool enqueue_volume_of(void *arg, struct th_json *volume)
{
    const struct search *s = arg;
    if (th_streq(th_json_path_str(volume, "spec.claimRef.namespace"), s->ns) &&
        th_streq(th_json_path_str(volume, "spec.claimRef.name"), s->name)) {
        th_ctrl_enqueue_obj(s->c, volume);
    }
    return true;
}

static void enqueue_ref(struct th_ctrl *c, const struct th_json *volume)
{
    const char *ns = th_json_path_str(volume, "spec.claimRef.namespace");
    const char *name = th_json_path_str(volume, "spec.claimRef.name");
    if (ns && name) {
        th_autofree char *key = th_xasprintf("%s/%s", ns, name);
        th_ctrl_enqueue(c, key);
    }
}

static void on_volume(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    th_ctrl_enqueue_obj(c, now ? now : old);
    enqueue_ref(c, old);
    enqueue_ref(c, now);
    if (th_streq(th_json_path_str(now, "status.phase"), "Available")) {
        struct search s = {.c = c, .class = th_storage_class_of(now)};
        th_informer_each(th_ctrl_informer(c, GVR_CLAIMS), NULL, enqueue_waiting, &s);
    }
}

static void on_claim(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    const struct th_json *obj = now ? now : old;
    const char *volume = th_json_path_str(obj, "spec.volumeName");
    th_ctrl_enqueue_obj(c, obj);
    if (volume && *volume) {
        th_ctrl_enqueue(c, volume);
    }
    if (!old || !now) {
        struct search s = {.c = c,
                           .ns = th_json_path_str(obj, "metadata.namespace"),
                           .name = th_json_path_str(obj, "metadata.name")};
        th_informer_each(th_ctrl_informer(c, GVR_VOLUMES), NULL, enqueue_volume_of, &s);
    }
}

static void on_class(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    (void)old;
    if (now) {
        struct search s = {.c = c};
        th_informer_each(th_ctrl_informer(c, GVR_CLAIMS), NULL, enqueue_waiting, &s);
    }
}

static const struct th_ctrl_watch watches[] = {
    {.gvr = {"", "v1", "persistentvolumeclaims"}, .on_event = on_claim},
    {.gvr = {"", "v1", "persistentvolumes"}, .on_event = on_volume},
    {.gvr = {"storage.k8s.io", "v1", "storageclasses"}, .on_event = on_class},
    {.gvr = {"", "v1", "pods"}},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_persistentvolume = {
    .name = "persistentvolume-controller",
    .account = "persistent-volume-binder",
    .watches = watches,
    .reconcile = reconcile,
};
