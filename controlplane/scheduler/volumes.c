/*
 * The claims of a pod to be placed; see volumes.h.
 *
 * Claims that are bound tie the pod to the nodes of their volumes. Claims of classes with
 * WaitForFirstConsumer are bound here: for each node the smallest free volumes that suit are looked
 * for, and what has none is provisioned, if the class can. When a node is chosen the volumes get
 * their claimRef, the claims that need a volume the annotation selected-node; binder and provisioner
 * do the rest. All other claims have to be bound before.
 *
 * Upstream's scheduler waits in a goroutine per pod until the claims are bound. Here the pod stays
 * assumed on its node and is tried again when a claim changes: its claims then lead to the same
 * node. What another pod's volumes were just bound to may not be known yet; the volume's
 * resourceVersion settles that, and the pod is tried again. Storage capacity (CSIStorageCapacity) is
 * not looked at: there are no CSI drivers.
 */
#include "controlplane/scheduler/volumes.h"
#include "base/buf.h"
#include "controlplane/schema/storage.h"

#define GVR_CLAIMS ((struct th_gvr){"", "v1", "persistentvolumeclaims"})
#define GVR_VOLUMES ((struct th_gvr){"", "v1", "persistentvolumes"})

void th_sched_volumes_free(struct th_sched_volumes *v)
{
    if (v) {
        free(v->refusal);
        th_json_unref(v->bound);
        th_json_unref(v->delayed);
        th_json_unref(v->classes);
        th_json_unref(v->volumes);
        th_json_unref(v->chosen);
        th_strv_done(&v->alone);
        free(v);
    }
}

/* ---- Looking at the claims ---- */

/* Why a pod cannot use the claim, or NULL; the caller frees. */
static char *refuse(const struct th_json *pod, const struct th_json *claim, const char *name,
                    bool ephemeral)
{
    const char *ns = th_json_path_str(pod, "metadata.namespace");
    if (!claim) {
        return ephemeral ? th_xasprintf("waiting for ephemeral volume controller to create the "
                                        "persistentvolumeclaim \"%s\"",
                                        name)
                         : th_xasprintf("persistentvolumeclaim \"%s\" not found", name);
    }
    if (th_streq(th_json_path_str(claim, "status.phase"), "Lost")) {
        const char *volume = th_json_path_str(claim, "spec.volumeName");
        return th_xasprintf("persistentvolumeclaim \"%s\" bound to non-existent persistentvolume "
                            "\"%s\"",
                            name, volume ? volume : "");
    }
    if (th_json_path_str(claim, "metadata.deletionTimestamp")) {
        return th_xasprintf("persistentvolumeclaim \"%s\" is being deleted", name);
    }
    if (ephemeral && !th_claim_is_owned_by(claim, pod)) {
        return th_xasprintf("PVC %s/%s was not created for pod %s/%s (pod is not owner)", ns, name,
                            ns, th_json_path_str(pod, "metadata.name"));
    }
    return NULL;
}

/* Keeps `delayed` and `classes` in the order of the claims' sizes. */
static void add_delayed(struct th_sched_volumes *v, struct th_json *claim, struct th_json *class)
{
    size_t at = 0;
    while (at < th_json_len(v->delayed) &&
           th_quantity_cmp(th_claim_size(th_json_at(v->delayed, at)), th_claim_size(claim)) <= 0) {
        at++;
    }
    th_json_insert_at(v->delayed, at, claim);
    th_json_insert_at(v->classes, at, class);
}

static void add_claim(struct th_sched_volumes *v, const struct th_sched_volume_caches *caches,
                      struct th_json *claim)
{
    const char *volume = th_json_path_str(claim, "spec.volumeName");
    if (th_claim_is_bound(claim)) {
        struct th_json *pv = th_informer_get(caches->volumes, "", volume);
        v->lost = v->lost || !pv;
        if (pv) {
            th_json_append(v->bound, pv);
        }
        return;
    }
    const char *name = th_storage_class_of(claim);
    struct th_json *class = *name ? th_informer_get(caches->classes, "", name) : NULL;
    if ((!volume || !*volume) &&
        th_streq(th_json_path_str(class, "volumeBindingMode"), "WaitForFirstConsumer")) {
        add_delayed(v, th_json_ref(claim), class);
        return;
    }
    th_json_unref(class);
    if (!v->refusal) {
        v->refusal = th_xstrdup("pod has unbound immediate PersistentVolumeClaims");
    }
}

static bool collect(void *arg, struct th_json *obj)
{
    th_json_append(arg, th_json_ref(obj));
    return true;
}

struct th_sched_volumes *th_sched_volumes_new(const struct th_sched_volume_caches *caches,
                                              const struct th_json *pod)
{
    const struct th_json *list = th_json_path(pod, "spec.volumes");
    const char *ns = th_json_path_str(pod, "metadata.namespace");
    struct th_json *claims TH_AUTO(th_json) = th_json_array();
    char *refusal = NULL;
    bool any = false;
    for (size_t i = 0; i < th_json_len(list) && !refusal; i++) {
        bool ephemeral = false;
        th_autofree char *name = th_pod_claim_name(pod, th_json_at(list, i), &ephemeral);
        if (name) {
            struct th_json *claim = th_informer_get(caches->claims, ns, name);
            any = true;
            refusal = refuse(pod, claim, name, ephemeral);
            th_json_append(claims, claim);
        }
    }
    if (!any) {
        return NULL;
    }
    struct th_sched_volumes *v = TH_NEW(struct th_sched_volumes);
    *v = (struct th_sched_volumes){.refusal = refusal,
                                   .bound = th_json_array(),
                                   .delayed = th_json_array(),
                                   .classes = th_json_array(),
                                   .volumes = th_json_array(),
                                   .chosen = th_json_array(),
                                   .alone = TH_STRV_INIT};
    for (size_t i = 0; i < th_json_len(claims) && !refusal; i++) {
        struct th_json *claim = th_json_at(claims, i);
        if (th_claim_wants_mode(claim, "ReadWriteOncePod")) {
            th_strv_add(&v->alone, th_json_path_str(claim, "metadata.name"));
        }
        add_claim(v, caches, claim);
    }
    if (th_json_len(v->delayed) > 0) {
        th_informer_each(caches->volumes, NULL, collect, v->volumes);
    }
    return v;
}

/* ---- One node ---- */

/* allowedTopologies of a class: terms ORed, expressions of a term ANDed. */
static bool topology_allows(const struct th_json *class, const struct th_json *labels)
{
    const struct th_json *terms = th_json_get(class, "allowedTopologies");
    bool fits = th_json_len(terms) == 0;
    for (size_t i = 0; i < th_json_len(terms) && !fits; i++) {
        const struct th_json *exprs = th_json_get(th_json_at(terms, i), "matchLabelExpressions");
        fits = th_json_len(exprs) > 0;
        for (size_t k = 0; k < th_json_len(exprs) && fits; k++) {
            const struct th_json *e = th_json_at(exprs, k);
            const struct th_json *values = th_json_get(e, "values");
            const char *have = th_json_str(th_json_get(labels, th_json_path_str(e, "key")));
            bool found = false;
            for (size_t j = 0; j < th_json_len(values) && have; j++) {
                found = found || th_streq(have, th_json_str(th_json_at(values, j)));
            }
            fits = found;
        }
    }
    return fits;
}

static bool can_provision(const struct th_json *class, const struct th_json *labels)
{
    const char *provisioner = th_json_path_str(class, "provisioner");
    return provisioner && *provisioner &&
           !th_streq(provisioner, "kubernetes.io/no-provisioner") && topology_allows(class, labels);
}

static void choose(struct th_json *chosen, const struct th_json *claim, const struct th_json *pv)
{
    if (chosen) {
        th_json_append(chosen, th_json_build("{'claim':%o,'volume':%o}", th_json_dup(claim),
                                             th_json_dup(pv)));
    }
}

/* The claims that wait for a node. */
static bool delayed_fit(const struct th_sched_volumes *v, const struct th_node_info *n,
                        struct th_json *chosen)
{
    const struct th_json *labels = th_json_path(n->obj, "metadata.labels");
    struct th_json *none TH_AUTO(th_json) = th_json_object();
    struct th_strv taken TH_CLEANUP(th_strv_done) = TH_STRV_INIT;
    for (size_t i = 0; i < th_json_len(v->delayed); i++) {
        const struct th_json *claim = th_json_at(v->delayed, i);
        const char *selected = th_annotation(claim, TH_ANN_SELECTED_NODE);
        if (selected && !th_streq(selected, n->name)) {
            return false;
        }
        const struct th_json *pv =
            selected ? NULL
                     : th_volume_find(claim, v->volumes, labels ? labels : none, &taken, true);
        if (!pv && !can_provision(th_json_at(v->classes, i), labels)) {
            return false;
        }
        if (pv) {
            th_strv_add(&taken, th_json_path_str(pv, "metadata.name"));
        }
        choose(chosen, claim, pv);
    }
    return true;
}

bool th_sched_volumes_fit(const struct th_sched_volumes *v, const struct th_node_info *n,
                          struct th_json *chosen, char **ret_why)
{
    const struct th_json *labels = th_json_path(n->obj, "metadata.labels");
    struct th_strv why TH_CLEANUP(th_strv_done) = TH_STRV_INIT;
    for (size_t i = 0; i < th_json_len(v->bound) && why.n == 0; i++) {
        if (!th_volume_fits_node(th_json_at(v->bound, i), labels)) {
            th_strv_add(&why, "node(s) didn't match PersistentVolume's node affinity");
        }
    }
    if (!delayed_fit(v, n, chosen)) {
        th_strv_add(&why, "node(s) didn't find available persistent volumes to bind");
    }
    if (v->lost) {
        th_strv_add(&why, "node(s) unavailable due to one or more pvc(s) bound to non-existent "
                          "pv(s)");
    }
    if (why.n > 0) {
        *ret_why = th_strv_join(&why, "\n");
    }
    return why.n == 0;
}

/* ---- Binding ---- */

static int bind_one(struct th_client *client, const struct th_json *one, const char *node,
                    struct th_err *err)
{
    const struct th_json *claim = th_json_get(one, "claim");
    if (th_json_get(one, "volume")) {
        struct th_json *pv TH_AUTO(th_json) = th_json_dup(th_json_get(one, "volume"));
        return th_volume_bind(pv, claim)
                   ? th_client_update(client, GVR_VOLUMES, NULL,
                                      th_json_path_str(pv, "metadata.name"), "", pv, NULL, err)
                   : 0;
    }
    if (th_annotation(claim, TH_ANN_SELECTED_NODE)) {
        return 0;
    }
    struct th_json *now TH_AUTO(th_json) = th_json_dup(claim);
    th_json_set_str(th_json_path_object(now, "metadata.annotations"), TH_ANN_SELECTED_NODE, node);
    return th_client_update(client, GVR_CLAIMS, th_json_path_str(now, "metadata.namespace"),
                            th_json_path_str(now, "metadata.name"), "", now, NULL, err);
}

int th_sched_volumes_bind(struct th_client *client, const struct th_sched_volumes *v,
                          const char *node, struct th_err *err)
{
    size_t n = v ? th_json_len(v->chosen) : 0;
    for (size_t i = 0; i < n; i++) {
        TH_TRY(bind_one(client, th_json_at(v->chosen, i), node, err));
    }
    return n > 0;
}
