/*
 * StatefulSet: pods with names that stay, "web-0", "web-1", ..., in order.
 *
 * OrderedReady makes, replaces and removes one pod at a time, each only when all before it are
 * running and available; Parallel does not wait. Surplus pods go from the highest ordinal down. A
 * rolling update deletes pods of an old revision from the highest ordinal down to the partition, one
 * after the other (maxUnavailable at a time). Pods below the partition are made from the current
 * revision, the others from the update revision; when all are of the update revision it becomes the
 * current one. Each pod has its own claims, made before it and kept after it, unless the retention
 * policy says otherwise.
 *
 * Rules as k8s.io/kubernetes pkg/controller/statefulset.
 */
#include "controlplane/controllers/history.h"
#include "controlplane/controllers/pod_control.h"
#include "controlplane/controllers/statefulset_claims.h"
#include "base/buf.h"
#include "base/clock.h"
#include <inttypes.h>

#define GVR_STATEFULSETS ((struct th_gvr){"apps", "v1", "statefulsets"})
#define GVR_CLAIMS ((struct th_gvr){"", "v1", "persistentvolumeclaims"})
#define POD_NAME_LABEL "statefulset.kubernetes.io/pod-name"
#define POD_INDEX_LABEL "apps.kubernetes.io/pod-index"

struct stateful {
    struct th_ctrl *c;
    const char *key;
    struct th_json *set; /* ours */
    const char *name, *ns;
    int64_t start, replicas, partition;
    bool ordered, rolling;
    struct th_json *revisions;     /* array, oldest first, the update revision last */
    const struct th_json *current; /* revisions */
    const struct th_json *update;
    struct th_json **slots;        /* by ordinal - start: pod or NULL; references */
    struct th_pods surplus;        /* highest ordinal first */
    int64_t wait_ms;
};

static void on_pod(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    th_podctl_on_pod(c, th_ctrl_state(c), old, now, GVR_STATEFULSETS, "StatefulSet");
}

/* The ordinal in "web-3", -1 when the name is not of this set. */
static int64_t ordinal_of(const char *set, const char *pod)
{
    size_t n = strlen(set);
    char *end = NULL;
    if (strncmp(set, pod, n) != 0 || pod[n] != '-' || !pod[n + 1] || pod[n + 1] == '-') {
        return -1;
    }
    int64_t v = strtoll(pod + n + 1, &end, 10);
    return *end ? -1 : v;
}

static bool is_member(const struct th_json *set, const struct th_json *pod)
{
    return ordinal_of(th_json_path_str(set, "metadata.name"),
                      th_json_path_str(pod, "metadata.name")) >= 0;
}

static const char *revision_of(const struct th_json *pod)
{
    return th_json_str(
        th_json_get(th_json_path(pod, "metadata.labels"), TH_REVISION_HASH_LABEL));
}

static bool is_terminating(const struct th_json *pod)
{
    return th_json_path_str(pod, "metadata.deletionTimestamp") != NULL;
}

static bool is_running_and_available(struct stateful *x, const struct th_json *pod)
{
    int64_t wait = 0;
    bool yes = th_streq(th_json_path_str(pod, "status.phase"), "Running") &&
               th_pod_is_available(pod, th_json_path_int(x->set, "spec.minReadySeconds", 0), &wait);
    if (wait > 0 && (x->wait_ms == 0 || wait < x->wait_ms)) {
        x->wait_ms = wait;
    }
    return yes;
}

static bool is_healthy(struct stateful *x, const struct th_json *pod)
{
    return pod && !is_terminating(pod) && is_running_and_available(x, pod);
}

/* ---- Building pods and claims ---- */

static char *claim_name(const struct th_json *tmpl, const char *pod)
{
    return th_xasprintf("%s-%s", th_json_path_str(tmpl, "metadata.name"), pod);
}

/* The template's volumes of the claims' names give way to the pod's own claims. */
static void set_volumes(const struct stateful *x, struct th_json *pod, const char *name)
{
    const struct th_json *templates = th_json_path(x->set, "spec.volumeClaimTemplates");
    for (size_t i = 0; i < th_json_len(templates); i++) {
        const struct th_json *t = th_json_at(templates, i);
        const char *volume = th_json_path_str(t, "metadata.name");
        struct th_json *volumes = th_json_path_array(pod, "spec.volumes");
        th_autofree char *claim = claim_name(t, name);
        for (size_t k = th_json_len(volumes); k-- > 0;) {
            if (th_streq(th_json_path_str(th_json_at(volumes, k), "name"), volume)) {
                th_json_del_at(volumes, k);
            }
        }
        th_json_append(volumes,
                       th_json_build("{'name':%s,'persistentVolumeClaim':{'claimName':%s}}", volume,
                                     claim));
    }
}

static struct th_json *build_pod(const struct stateful *x, int64_t ordinal)
{
    bool old = x->rolling && ordinal < x->start + x->partition;
    const struct th_json *revision = old ? x->current : x->update;
    struct th_json *tmpl TH_AUTO(th_json) = th_json_dup(th_history_template(revision));
    (void)th_json_del(tmpl, "$patch");
    struct th_json *pod = th_pod_from_template(tmpl, x->set);
    th_autofree char *name = th_xasprintf("%s-%" PRId64, x->name, ordinal);
    th_autofree char *index = th_xasprintf("%" PRId64, ordinal);
    (void)th_json_path_del(pod, "metadata.generateName");
    th_json_path_set_str(pod, "metadata.name", name);
    struct th_json *labels = th_json_path_object(pod, "metadata.labels");
    th_json_set_str(labels, POD_NAME_LABEL, name);
    th_json_set_str(labels, POD_INDEX_LABEL, index);
    th_json_set_str(labels, TH_REVISION_HASH_LABEL, th_json_path_str(revision, "metadata.name"));
    th_json_path_set_str(pod, "spec.hostname", name);
    const char *service = th_json_path_str(x->set, "spec.serviceName");
    if (service && *service) {
        th_json_path_set_str(pod, "spec.subdomain", service);
    }
    set_volumes(x, pod, name);
    return pod;
}

static int create_claims(struct stateful *x, const char *pod, struct th_err *err)
{
    const struct th_json *templates = th_json_path(x->set, "spec.volumeClaimTemplates");
    for (size_t i = 0; i < th_json_len(templates); i++) {
        const struct th_json *t = th_json_at(templates, i);
        th_autofree char *name = claim_name(t, pod);
        struct th_json *have TH_AUTO(th_json) =
            th_informer_get(th_ctrl_informer(x->c, GVR_CLAIMS), x->ns, name);
        if (have && !is_terminating(have)) {
            continue;
        }
        if (have) {
            return th_fail(err, TH_R_CONFLICT, "pvc %s is being deleted", name);
        }
        struct th_json *claim TH_AUTO(th_json) = th_json_dup(t);
        th_json_set_str(claim, "apiVersion", "v1");
        th_json_set_str(claim, "kind", "PersistentVolumeClaim");
        (void)th_json_del(claim, "status");
        th_json_path_set_str(claim, "metadata.name", name);
        th_json_path_set_str(claim, "metadata.namespace", x->ns);
        struct th_json_iter it = TH_JSON_ITER(th_json_path(x->set, "spec.selector.matchLabels"));
        while (th_json_next(&it)) {
            th_json_set(th_json_path_object(claim, "metadata.labels"), it.name,
                        th_json_ref(it.value));
        }
        int r = th_client_create(th_ctrl_client(x->c), GVR_CLAIMS, x->ns, claim, NULL, err);
        if (r == -TH_R_ALREADY_EXISTS) {
            th_err_done(err);
            continue;
        }
        if (r < 0) {
            th_event_record(th_ctrl_recorder(x->c), x->set, "Warning", "FailedCreate",
                            "create Claim %s for Pod %s in StatefulSet %s failed error: %s", name,
                            pod, x->name, err->msg);
            return r;
        }
        th_event_record(th_ctrl_recorder(x->c), x->set, "Normal", "SuccessfulCreate",
                        "create Claim %s Pod %s in StatefulSet %s success", name, pod, x->name);
    }
    return 0;
}

static int own_claims(struct stateful *x, const struct th_json *pod, bool surplus,
                      struct th_err *err)
{
    const struct th_json *templates = th_json_path(x->set, "spec.volumeClaimTemplates");
    struct th_json *typed TH_AUTO(th_json) = th_json_dup(pod);
    th_json_set_str(typed, "apiVersion", "v1");
    th_json_set_str(typed, "kind", "Pod");
    for (size_t i = 0; i < th_json_len(templates); i++) {
        th_autofree char *name =
            claim_name(th_json_at(templates, i), th_json_path_str(pod, "metadata.name"));
        struct th_json *claim TH_AUTO(th_json) =
            th_informer_get(th_ctrl_informer(x->c, GVR_CLAIMS), x->ns, name);
        if (!claim || !th_statefulset_own_claim(claim, x->set, typed, surplus)) {
            continue;
        }
        int r = th_client_update(th_ctrl_client(x->c), GVR_CLAIMS, x->ns, name, "", claim, NULL,
                                 err);
        if (r == -TH_R_NOT_FOUND) {
            th_err_done(err);
            r = 0;
        }
        TH_TRY(r);
    }
    return 0;
}

/* ---- Making and removing pods ---- */

static void say(struct stateful *x, const char *verb, const char *pod, const struct th_err *why)
{
    bool create = th_streq(verb, "create");
    if (!why) {
        th_event_record(th_ctrl_recorder(x->c), x->set, "Normal",
                        create ? "SuccessfulCreate" : "SuccessfulDelete",
                        "%s Pod %s in StatefulSet %s successful", verb, pod, x->name);
    } else {
        th_event_record(th_ctrl_recorder(x->c), x->set, "Warning",
                        create ? "FailedCreate" : "FailedDelete",
                        "%s Pod %s in StatefulSet %s failed error: %s", verb, pod, x->name,
                        why->msg ? why->msg : "");
    }
}

static int create_pod(struct stateful *x, int64_t ordinal, struct th_err *err)
{
    struct th_json *pod TH_AUTO(th_json) = build_pod(x, ordinal);
    const char *name = th_json_path_str(pod, "metadata.name");
    struct th_json *made TH_AUTO(th_json) = NULL;
    TH_TRY(create_claims(x, name, err));
    int r = th_client_create(th_ctrl_client(x->c), TH_GVR_PODS, x->ns, pod, &made, err);
    say(x, "create", name, r < 0 ? err : NULL);
    TH_TRY(r);
    th_ctrl_expect(x->c, x->key, TH_GVR_PODS, made);
    x->slots[ordinal - x->start] = th_steal(&made);
    return 0;
}

static int delete_pod(struct stateful *x, const struct th_json *pod, struct th_err *err)
{
    if (is_terminating(pod)) {
        return 0;
    }
    int r = th_ctrl_delete(x->c, x->key, TH_GVR_PODS, pod, NULL, err);
    say(x, "delete", th_json_path_str(pod, "metadata.name"), r < 0 ? err : NULL);
    return r;
}

/* One that ended is deleted and comes again under its name. */
static int replace_ended(struct stateful *x, int64_t i, struct th_err *err)
{
    struct th_json *pod = x->slots[i];
    const char *phase = th_json_path_str(pod, "status.phase");
    bool failed = th_streq(phase, "Failed");
    if (is_terminating(pod) || (!failed && !th_streq(phase, "Succeeded"))) {
        return 0;
    }
    th_event_record(th_ctrl_recorder(x->c), x->set, failed ? "Warning" : "Normal",
                    failed ? "RecreatingFailedPod" : "RecreatingTerminatedPod",
                    "StatefulSet %s is recreating %s Pod %s", x->key,
                    failed ? "failed" : "terminated", th_json_path_str(pod, "metadata.name"));
    TH_TRY(delete_pod(x, pod, err));
    return 1;
}

/* Brings the ordinals that should be there; 1: something has to be waited for first. */
static int fill(struct stateful *x, struct th_err *err)
{
    for (int64_t i = 0; i < x->replicas; i++) {
        if (!x->slots[i]) {
            TH_TRY(create_pod(x, x->start + i, err));
            if (x->ordered) {
                return 1;
            }
            continue;
        }
        int r = replace_ended(x, i, err);
        TH_TRY(r);
        if (x->ordered && (r > 0 || !is_healthy(x, x->slots[i]))) {
            return 1;
        }
        TH_TRY(own_claims(x, x->slots[i], false, err));
    }
    return 0;
}

/* Surplus pods, the highest first; in order: the next one when the one before has gone, and not
 * while one of those that stay is not well. Nor is one taken that is not well itself, unless it is the
 * only one. */
static int condemn(struct stateful *x, struct th_err *err)
{
    size_t lowest_ill = x->surplus.n;
    for (size_t i = 0; i < x->surplus.n; i++) {
        lowest_ill = is_healthy(x, x->surplus.v[i]) ? lowest_ill : i;
    }
    for (size_t i = 0; i < x->surplus.n; i++) {
        const struct th_json *pod = x->surplus.v[i];
        TH_TRY(own_claims(x, pod, true, err));
        if (is_terminating(pod)) {
            if (x->ordered) {
                return 1;
            }
            continue;
        }
        if (x->ordered && !is_healthy(x, pod) && i != lowest_ill) {
            return 1;
        }
        TH_TRY(delete_pod(x, pod, err));
        if (x->ordered) {
            return 1;
        }
    }
    return 0;
}

static int64_t max_unavailable(const struct stateful *x)
{
    const struct th_json *v =
        th_json_path(x->set, "spec.updateStrategy.rollingUpdate.maxUnavailable");
    const char *text = th_json_str(v);
    int64_t n = text ? (strtoll(text, NULL, 10) * x->replicas + 99) / 100 : th_json_as_int(v, 1);
    return n < 1 ? 1 : n;
}

static int roll(struct stateful *x, struct th_err *err)
{
    const char *wanted = th_json_path_str(x->update, "metadata.name");
    int64_t room = max_unavailable(x);
    for (int64_t i = x->replicas - 1; i >= 0; i--) {
        room -= !is_healthy(x, x->slots[i]);
    }
    for (int64_t i = x->replicas - 1; i >= x->partition; i--) {
        struct th_json *pod = x->slots[i];
        bool healthy = is_healthy(x, pod);
        if (pod && !is_terminating(pod) && !th_streq(revision_of(pod), wanted)) {
            if (healthy && room-- <= 0) {
                return 0;
            }
            TH_TRY(delete_pod(x, pod, err));
            if (room <= 0) {
                return 0;
            }
        } else if (!healthy && room <= 0) {
            return 0; /* wait for the one that was replaced */
        }
    }
    return 0;
}

/* ---- Status ---- */

static int write_status(struct stateful *x, int64_t collisions, struct th_err *err)
{
    struct th_json *status TH_AUTO(th_json) =
        th_json_get(x->set, "status") ? th_json_dup(th_json_get(x->set, "status"))
                                      : th_json_object();
    const char *cur = th_json_path_str(x->current, "metadata.name");
    const char *upd = th_json_path_str(x->update, "metadata.name");
    int64_t all = 0, ready = 0, available = 0, current = 0, updated = 0, at_update = 0;
    for (size_t i = 0; i < (size_t)x->replicas + x->surplus.n; i++) {
        const struct th_json *pod = i < (size_t)x->replicas
                                        ? x->slots[i]
                                        : x->surplus.v[i - (size_t)x->replicas];
        if (!pod) {
            continue;
        }
        const char *revision = revision_of(pod);
        bool running = th_streq(th_json_path_str(pod, "status.phase"), "Running");
        all++;
        ready += running && th_pod_is_ready(pod);
        available += is_running_and_available(x, pod);
        current += !is_terminating(pod) && th_streq(revision, cur);
        updated += !is_terminating(pod) && th_streq(revision, upd);
        at_update += i < (size_t)x->replicas && is_healthy(x, pod) && th_streq(revision, upd);
    }
    th_json_set_int(status, "observedGeneration",
                    th_json_path_int(x->set, "metadata.generation", 0));
    th_json_set_int(status, "replicas", all);
    th_status_count(status, "readyReplicas", ready);
    th_json_set_int(status, "availableReplicas", available);
    th_status_count(status, "updatedReplicas", updated);
    if (x->rolling && x->partition == 0 && at_update == x->replicas && all == x->replicas) {
        cur = upd; /* the update is complete */
        current = updated;
    }
    th_status_count(status, "currentReplicas", current);
    th_json_set_str(status, "currentRevision", cur);
    th_json_set_str(status, "updateRevision", upd);
    th_json_set_int(status, "collisionCount", collisions);
    return th_ctrl_write_status(x->c, x->key, GVR_STATEFULSETS, x->set, status, err);
}

/* ---- The whole ---- */

static int higher_first(const void *pa, const void *pb)
{
    const char *a = th_json_path_str(*(struct th_json *const *)pa, "metadata.name");
    const char *b = th_json_path_str(*(struct th_json *const *)pb, "metadata.name");
    int64_t oa = strtoll(strrchr(a, '-') + 1, NULL, 10);
    int64_t ob = strtoll(strrchr(b, '-') + 1, NULL, 10);
    return oa > ob ? -1 : oa < ob;
}

static void sort_pods(struct stateful *x, const struct th_pods *pods)
{
    x->slots = th_xcalloc((size_t)x->replicas + 1, sizeof(struct th_json *));
    for (size_t i = 0; i < pods->n; i++) {
        struct th_json *pod = pods->v[i];
        int64_t ordinal = ordinal_of(x->name, th_json_path_str(pod, "metadata.name"));
        int64_t slot = ordinal - x->start;
        if (ordinal >= 0 && slot >= 0 && slot < x->replicas) {
            x->slots[slot] = th_json_ref(pod);
        } else if (ordinal >= 0) {
            th_pods_add(&x->surplus, pod);
        }
    }
    if (x->surplus.n > 1) {
        qsort(x->surplus.v, x->surplus.n, sizeof(struct th_json *), higher_first);
    }
}

static const struct th_json *revision_named(const struct stateful *x, const char *name)
{
    for (size_t i = 0; name && i < th_json_len(x->revisions); i++) {
        if (th_streq(th_json_path_str(th_json_at(x->revisions, i), "metadata.name"), name)) {
            return th_json_at(x->revisions, i);
        }
    }
    return NULL;
}

static int trim(struct stateful *x, const struct th_pods *pods, struct th_err *err)
{
    struct th_strv live TH_CLEANUP(th_strv_done) = TH_STRV_INIT;
    th_strv_add(&live, th_json_path_str(x->current, "metadata.name"));
    th_strv_add(&live, th_json_path_str(x->update, "metadata.name"));
    for (size_t i = 0; i < pods->n; i++) {
        const char *name = revision_of(pods->v[i]);
        if (name) {
            th_strv_add(&live, name);
        }
    }
    return th_history_trim(x->c, x->key, x->set, x->revisions, &live, err);
}

static int sync_set(struct stateful *x, const struct th_pods *pods, struct th_err *err)
{
    int64_t collisions = th_json_path_int(x->set, "status.collisionCount", 0);
    TH_TRY(th_history_current(x->c, x->key, x->set, &collisions, &x->revisions, err));
    x->update = th_json_at(x->revisions, th_json_len(x->revisions) - 1);
    x->current = revision_named(x, th_json_path_str(x->set, "status.currentRevision"));
    x->current = x->current ? x->current : x->update;
    sort_pods(x, pods);
    struct th_err why TH_CLEANUP(th_err_done) = TH_ERR_INIT;
    int r = fill(x, &why);
    if (r == 0) {
        r = condemn(x, &why);
    }
    if (r == 0 && x->rolling) {
        r = roll(x, &why);
    }
    TH_TRY(write_status(x, collisions, err));
    TH_TRY(trim(x, pods, err));
    if (r < 0) {
        th_err_move(err, &why);
    }
    return r < 0 ? r : 0;
}

static int reconcile(struct th_ctrl *c, const char *key, int64_t *ret_after_ms, struct th_err *err)
{
    const char *name = NULL;
    th_autofree char *ns = th_ctrl_key_split(key, &name);
    struct th_json *set TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, GVR_STATEFULSETS), ns, name);
    if (!set || th_json_path_str(set, "metadata.deletionTimestamp")) {
        return 0;
    }
    struct th_selector *sel TH_AUTO(th_selector) = NULL;
    TH_TRY(th_selector_from_json(th_json_path(set, "spec.selector"), &sel, err));
    struct stateful x = {
        .c = c,
        .key = key,
        .set = set,
        .name = name,
        .ns = ns,
        .start = th_json_path_int(set, "spec.ordinals.start", 0),
        .replicas = th_json_path_int(set, "spec.replicas", 1),
        .partition =
            th_json_path_int(set, "spec.updateStrategy.rollingUpdate.partition", 0),
        .ordered = !th_streq(th_json_path_str(set, "spec.podManagementPolicy"), "Parallel"),
        .rolling = !th_streq(th_json_path_str(set, "spec.updateStrategy.type"), "OnDelete")};
    struct th_pods pods TH_CLEANUP(th_pods_done) = {NULL, 0, 0};
    int r = th_podctl_claim(c, th_ctrl_state(c), set, GVR_STATEFULSETS, sel, is_member, &pods, err);
    r = r < 0 ? r : sync_set(&x, &pods, err);
    *ret_after_ms = x.wait_ms;
    for (int64_t i = 0; x.slots && i < x.replicas; i++) {
        th_json_unref(x.slots[i]);
    }
    free(x.slots);
    th_pods_done(&x.surplus);
    th_json_unref(x.revisions);
    return r;
}

static const struct th_ctrl_watch watches[] = {
    {.gvr = {"apps", "v1", "statefulsets"}, .on_event = th_ctrl_on_self},
    {.gvr = {"apps", "v1", "controllerrevisions"}},
    {.gvr = {"", "v1", "persistentvolumeclaims"}},
    {.gvr = {"", "v1", "pods"}, .on_event = on_pod},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_statefulset = {
    .name = "statefulset-controller",
    .account = "statefulset-controller",
    .watches = watches,
    .reconcile = reconcile,
    .state_new = th_orphans_new,
    .state_free = th_orphans_free,
};
