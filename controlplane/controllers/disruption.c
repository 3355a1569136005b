/*
 * Disruption: how many pods of a PodDisruptionBudget may go now. The eviction subresource takes from
 * status.disruptionsAllowed and notes the pod in status.disruptedPods; here both are computed anew.
 *
 * What is wanted is a number (minAvailable as a number: of the pods that are there) or a share of
 * what the pods' controllers ask for (percentages and maxUnavailable). A pod that was to be evicted
 * and is not being deleted after DELETION_MS counts again. Rules as k8s.io/kubernetes
 * pkg/controller/disruption.
 */
#include "controlplane/controllers/pod_control.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/hmap.h"
#include <inttypes.h>

#define GVR_PDBS ((struct th_gvr){"policy", "v1", "poddisruptionbudgets"})
#define DELETION_MS 120000

struct budget {
    struct th_ctrl *c;
    const char *key;
    struct th_json *pdb; /* our copy */
    struct th_pods pods;
    int64_t *ret_after_ms;
};

/* ---- Events ---- */

struct pod_event {
    struct th_ctrl *c;
    const struct th_json *labels[2];
};

static struct th_selector *selector_of(const struct th_json *pdb)
{
    struct th_selector *sel = NULL;
    return th_selector_from_json(th_json_path(pdb, "spec.selector"), &sel, NULL) == 0
               ? sel
               : th_selector_nothing();
}

static bool enqueue_protecting(void *arg, struct th_json *pdb)
{
    struct pod_event *e = arg;
    struct th_selector *sel TH_AUTO(th_selector) = selector_of(pdb);
    if (th_selector_matches(sel, e->labels[0]) ||
        (e->labels[1] && th_selector_matches(sel, e->labels[1]))) {
        th_ctrl_enqueue_obj(e->c, pdb);
    }
    return true;
}

static void on_pod(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    struct pod_event e = {
        c,
        {th_json_path(now ? now : old, "metadata.labels"), th_json_path(old, "metadata.labels")}};
    th_informer_each(th_ctrl_informer(c, GVR_PDBS),
                     th_json_path_str(now ? now : old, "metadata.namespace"), enqueue_protecting,
                     &e);
}

/* ---- What controllers ask for ---- */

/* The object, or of what upstream does not know by name its Scale: metadata and spec.replicas. */
static int get_scaled(struct th_ctrl *c, const struct th_rl_item *r, const char *ns,
                      const char *name, struct th_json **ret, struct th_err *err)
{
    bool known = th_streq(r->kind, "ReplicaSet") || th_streq(r->kind, "Deployment") ||
                 th_streq(r->kind, "StatefulSet") || th_streq(r->kind, "ReplicationController");
    if (known) {
        return th_client_get(th_ctrl_client(c), th_rl_gvr(r), ns, name, ret, err);
    }
    th_autofree char *path = th_client_path(th_rl_gvr(r), ns, name, "scale");
    struct th_buf body TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    struct th_raw_req req = {.method = "GET", .path = path, .accept = "application/json"};
    TH_TRY(th_client_raw(th_ctrl_client(c), &req, NULL, &body, err));
    return th_json_parse(th_buf_cstr(&body), body.n, NULL, ret, err);
}

/* The replicas that the controller behind ref (or behind that one) asks for; -1: it is gone. */
static int scale_of(struct th_ctrl *c, const char *ns, const struct th_json *ref,
                    char **ret_uid, int64_t *ret, struct th_err *err)
{
    struct th_rl_item r TH_CLEANUP(th_rl_item_done) = {.group = NULL};
    struct th_json *owner TH_AUTO(th_json) = NULL;
    *ret = -1;
    if (!th_ctrl_served(c, th_json_path_str(ref, "apiVersion"), th_json_path_str(ref, "kind"),
                        &r)) {
        return 0;
    }
    int e = get_scaled(c, &r, ns, th_json_path_str(ref, "name"), &owner, err);
    if (e == -TH_R_NOT_FOUND) {
        th_err_done(err);
        return 0;
    }
    TH_TRY(e);
    if (!th_streq(th_json_path_str(owner, "metadata.uid"), th_json_path_str(ref, "uid"))) {
        return 0;
    }
    const struct th_json *above = th_controller_of(owner);
    if (th_streq(r.kind, "ReplicaSet") && th_streq(th_json_path_str(above, "kind"), "Deployment")) {
        return scale_of(c, ns, above, ret_uid, ret, err);
    }
    *ret_uid = th_xstrdup(th_json_path_str(owner, "metadata.uid"));
    *ret = th_json_path_int(owner, "spec.replicas", 1);
    return 0;
}

static int expected_scale(struct budget *b, int64_t *ret, struct th_err *err)
{
    struct th_hmap seen TH_CLEANUP(th_hmap_done); /* uids of those that were counted */
    struct th_hmap refs TH_CLEANUP(th_hmap_done); /* uids of pods' owners that were looked at */
    th_hmap_init(&seen, NULL);
    th_hmap_init(&refs, NULL);
    const char *ns = th_json_path_str(b->pdb, "metadata.namespace");
    bool unmanaged = false;
    *ret = 0;
    for (size_t i = 0; i < b->pods.n; i++) {
        const struct th_json *ref = th_controller_of(b->pods.v[i]);
        const char *ref_uid = th_json_path_str(ref, "uid");
        if (!ref_uid) {
            unmanaged = true;
            continue;
        }
        if (th_hmap_has(&refs, ref_uid)) {
            continue;
        }
        th_hmap_set(&refs, ref_uid, NULL);
        th_autofree char *uid = NULL;
        int64_t n = 0;
        TH_TRY(scale_of(b->c, ns, ref, &uid, &n, err));
        if (n >= 0 && !th_hmap_has(&seen, uid)) {
            th_hmap_set(&seen, uid, NULL);
            *ret += n;
        }
    }
    if (unmanaged) {
        th_event_record(th_ctrl_recorder(b->c), b->pdb, "Warning", "UnmanagedPods",
                        "Pods selected by this PodDisruptionBudget were found to be unmanaged. As "
                        "a result, the status of the PDB cannot be calculated correctly, which may "
                        "result in undefined behavior. To account for these pods please set "
                        "\".spec.minAvailable\" field of the PDB to an integer value.");
    }
    return 0;
}

static int64_t scaled(const struct th_json *v, int64_t total)
{
    const char *text = th_json_str(v);
    return text ? (strtoll(text, NULL, 10) * total + 99) / 100 : th_json_as_int(v, 0);
}

static int wanted(struct budget *b, int64_t *ret_expected, int64_t *ret_desired,
                  struct th_err *err)
{
    const struct th_json *most = th_json_path(b->pdb, "spec.maxUnavailable");
    const struct th_json *least = th_json_path(b->pdb, "spec.minAvailable");
    if (!most && least && !th_json_str(least)) {
        *ret_expected = (int64_t)b->pods.n;
        *ret_desired = th_json_as_int(least, 0);
        return 0;
    }
    *ret_expected = *ret_desired = 0;
    if (!most && !least) {
        return 0;
    }
    TH_TRY(expected_scale(b, ret_expected, err));
    *ret_desired = most ? *ret_expected - scaled(most, *ret_expected)
                        : scaled(least, *ret_expected);
    *ret_desired = *ret_desired < 0 ? 0 : *ret_desired;
    return 0;
}

/* ---- Evictions under way ---- */

static const struct th_json *pod_named(const struct budget *b, const char *name)
{
    for (size_t i = 0; i < b->pods.n; i++) {
        if (th_streq(th_json_path_str(b->pods.v[i], "metadata.name"), name)) {
            return b->pods.v[i];
        }
    }
    return NULL;
}

/* Those that are still to be expected; the others are over, or did not come. */
static struct th_json *still_disrupted(struct budget *b)
{
    struct th_json *out = th_json_object();
    const struct th_json *noted = th_json_path(b->pdb, "status.disruptedPods");
    struct th_json_iter it = TH_JSON_ITER(noted);
    while (th_json_next(&it)) {
        const struct th_json *pod = pod_named(b, it.name);
        if (!pod || th_json_path_str(pod, "metadata.deletionTimestamp")) {
            continue;
        }
        int64_t us = 0;
        const char *text = th_json_str(it.value);
        int64_t since = text && th_time_parse(text, &us, NULL) == 0 ? us / 1000 : 0;
        int64_t left = since + DELETION_MS - th_now_ms();
        if (left <= 0) {
            th_event_record(th_ctrl_recorder(b->c), pod, "Warning", "NotDeleted",
                            "Pod was expected by PDB %s to be deleted but it wasn't", b->key);
            continue;
        }
        if (*b->ret_after_ms == 0 || left < *b->ret_after_ms) {
            *b->ret_after_ms = left;
        }
        th_json_set(out, it.name, th_json_ref(it.value));
    }
    return out;
}

static struct th_json *make_status(struct budget *b, int64_t expected, int64_t desired)
{
    struct th_json *status = th_json_path(b->pdb, "status")
                                 ? th_json_dup(th_json_path(b->pdb, "status"))
                                 : th_json_object();
    struct th_json *disrupted = still_disrupted(b);
    int64_t healthy = 0;
    for (size_t i = 0; i < b->pods.n; i++) {
        const struct th_json *pod = b->pods.v[i];
        healthy += th_pod_is_ready(pod) && !th_json_path_str(pod, "metadata.deletionTimestamp") &&
                   !th_json_has(disrupted, th_json_path_str(pod, "metadata.name"));
    }
    int64_t allowed = expected > 0 && healthy > desired ? healthy - desired : 0;
    int64_t generation = th_json_path_int(b->pdb, "metadata.generation", 0);
    th_json_set_int(status, "observedGeneration", generation);
    th_json_set_int(status, "disruptionsAllowed", allowed);
    th_json_set_int(status, "currentHealthy", healthy);
    th_json_set_int(status, "desiredHealthy", desired);
    th_json_set_int(status, "expectedPods", expected);
    if (th_json_len(disrupted)) {
        th_json_set(status, "disruptedPods", disrupted);
    } else {
        (void)th_json_del(status, "disruptedPods");
        th_json_unref(disrupted);
    }
    struct th_json *conditions = th_json_path_array(status, "conditions");
    (void)th_cond_put(conditions, "DisruptionAllowed", allowed > 0 ? "True" : "False",
                      allowed > 0 ? "SufficientPods" : "InsufficientPods", "");
    for (size_t i = 0; i < th_json_len(conditions); i++) {
        struct th_json *cond = th_json_at(conditions, i);
        if (th_streq(th_json_path_str(cond, "type"), "DisruptionAllowed")) {
            th_json_set_int(cond, "observedGeneration", generation);
        }
    }
    return status;
}

struct collect {
    struct th_selector *sel;
    struct th_pods *pods;
};

static bool add_pod(void *arg, struct th_json *pod)
{
    struct collect *x = arg;
    if (th_selector_matches(x->sel, th_json_path(pod, "metadata.labels"))) {
        th_pods_add(x->pods, pod);
    }
    return true;
}

static int reconcile(struct th_ctrl *c, const char *key, int64_t *ret_after_ms, struct th_err *err)
{
    const char *name = NULL;
    th_autofree char *ns = th_ctrl_key_split(key, &name);
    struct th_json *pdb TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, GVR_PDBS), ns, name);
    if (!pdb || th_json_path_str(pdb, "metadata.deletionTimestamp")) {
        return 0;
    }
    struct budget b = {.c = c, .key = key, .pdb = pdb, .ret_after_ms = ret_after_ms};
    struct th_selector *sel TH_AUTO(th_selector) = selector_of(pdb);
    struct collect x = {sel, &b.pods};
    th_informer_each(th_ctrl_informer(c, TH_GVR_PODS), ns, add_pod, &x);
    int64_t expected = 0, desired = 0;
    int r = wanted(&b, &expected, &desired, err);
    if (r >= 0) {
        struct th_json *status TH_AUTO(th_json) = make_status(&b, expected, desired);
        r = th_ctrl_write_status(c, key, GVR_PDBS, pdb, status, err);
    }
    th_pods_done(&b.pods);
    return r;
}

static const struct th_ctrl_watch watches[] = {
    {.gvr = {"policy", "v1", "poddisruptionbudgets"}, .on_event = th_ctrl_on_self},
    {.gvr = {"", "v1", "pods"}, .on_event = on_pod},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_disruption = {
    .name = "disruption-controller",
    .account = "disruption-controller",
    .component = "controllermanager",
    .watches = watches,
    .reconcile = reconcile,
};
