/*
 * DaemonSet: one pod on every node that it fits.
 *
 * A pod is made for its node by required affinity to the node's name, and placed by the scheduler,
 * which checks room. Which nodes are meant: those that match the template's node selector and
 * affinity and whose taints the pod tolerates; a pod that is there may stay as long as no NoExecute
 * taint drives it away. Daemon pods tolerate what is wrong with a node. A rolling update deletes old
 * pods, the unavailable ones first, as maxUnavailable allows; with maxSurge the new one is made
 * beside the old one, which goes when the new one is available.
 *
 * Rules as k8s.io/kubernetes pkg/controller/daemon.
 */
#include "controlplane/controllers/history.h"
#include "controlplane/controllers/pod_control.h"
#include "base/buf.h"
#include "base/clock.h"
#include "controlplane/schema/toleration.h"
#include <inttypes.h>

#define GVR_DAEMONSETS ((struct th_gvr){"apps", "v1", "daemonsets"})
#define BURST 250

struct daemon {
    struct th_ctrl *c;
    const char *key;
    struct th_json *ds; /* ours */
    struct th_json *nodes;
    struct th_json *tolerations; /* of its pods */
    struct th_node_selector *required;
    struct th_pods pods;
    const char *hash; /* of the template now */
    int64_t wait_ms;
};

static bool enqueue(void *arg, struct th_json *ds)
{
    th_ctrl_enqueue_obj(arg, ds);
    return true;
}

static void on_node(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    if (!old || !now ||
        !th_json_equal(th_json_path(old, "spec.taints"), th_json_path(now, "spec.taints")) ||
        !th_json_equal(th_json_path(old, "metadata.labels"),
                       th_json_path(now, "metadata.labels"))) {
        th_informer_each(th_ctrl_informer(c, GVR_DAEMONSETS), NULL, enqueue, c);
    }
}

static void on_pod(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    th_podctl_on_pod(c, th_ctrl_state(c), old, now, GVR_DAEMONSETS, "DaemonSet");
}

/* ---- Which nodes ---- */

static struct th_json *tolerations_of(const struct th_json *ds)
{
    static const struct {
        const char *key, *effect;
        bool host_network;
    } own[] = {{"node.kubernetes.io/not-ready", "NoExecute", false},
               {"node.kubernetes.io/unreachable", "NoExecute", false},
               {"node.kubernetes.io/disk-pressure", "NoSchedule", false},
               {"node.kubernetes.io/memory-pressure", "NoSchedule", false},
               {"node.kubernetes.io/pid-pressure", "NoSchedule", false},
               {"node.kubernetes.io/unschedulable", "NoSchedule", false},
               {"node.kubernetes.io/network-unavailable", "NoSchedule", true}};
    const struct th_json *given = th_json_path(ds, "spec.template.spec.tolerations");
    struct th_json *list = given ? th_json_dup(given) : th_json_array();
    bool host = th_json_path_bool(ds, "spec.template.spec.hostNetwork", false);
    for (size_t i = 0; i < TH_ARRAY_LEN(own); i++) {
        if (!own[i].host_network || host) {
            th_json_append(list, th_json_build("{'key':%s,'operator':'Exists','effect':%s}",
                                               own[i].key, own[i].effect));
        }
    }
    return list;
}

static bool node_matches(const struct daemon *x, const struct th_json *node)
{
    const struct th_json *labels = th_json_path(node, "metadata.labels");
    const char *name = th_json_path_str(node, "metadata.name");
    const char *only = th_json_path_str(x->ds, "spec.template.spec.nodeName");
    struct th_json_iter it = TH_JSON_ITER(th_json_path(x->ds, "spec.template.spec.nodeSelector"));
    while (th_json_next(&it)) {
        if (!th_streq(th_json_str(th_json_get(labels, it.name)), th_json_str(it.value))) {
            return false;
        }
    }
    return (!only || !*only || th_streq(only, name)) &&
           (!x->required || th_node_selector_matches(x->required, labels, name));
}

/* Whether a pod should be started there, and whether one that is there may stay. */
static void wanted_on(const struct daemon *x, const struct th_json *node, bool *ret_run,
                      bool *ret_stay)
{
    const struct th_json *taints = th_json_path(node, "spec.taints");
    *ret_run = *ret_stay = node_matches(x, node);
    for (size_t i = 0; *ret_stay && i < th_json_len(taints); i++) {
        const struct th_json *t = th_json_at(taints, i);
        const char *effect = th_json_path_str(t, "effect");
        if (th_streq(effect, "PreferNoSchedule") || th_tolerates(x->tolerations, t)) {
            continue;
        }
        *ret_run = false;
        *ret_stay = !th_streq(effect, "NoExecute");
    }
}

/* Where a pod is, or is made for. */
static const char *node_of(const struct th_json *pod)
{
    const char *name = th_json_path_str(pod, "spec.nodeName");
    if (name && *name) {
        return name;
    }
    const struct th_json *terms =
        th_json_path(pod, "spec.affinity.nodeAffinity."
                          "requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms");
    const struct th_json *field = th_json_path(th_json_at(terms, 0), "matchFields[0]");
    return th_streq(th_json_path_str(field, "key"), "metadata.name")
               ? th_json_path_str(field, "values[0]")
               : NULL;
}

/* ---- Pods ---- */

static bool is_new(const struct daemon *x, const struct th_json *pod)
{
    return th_streq(
        th_json_str(th_json_get(th_json_path(pod, "metadata.labels"), TH_REVISION_HASH_LABEL)),
        x->hash);
}

static bool is_available(struct daemon *x, const struct th_json *pod)
{
    int64_t wait = 0;
    bool yes = th_pod_is_available(pod, th_json_path_int(x->ds, "spec.minReadySeconds", 0), &wait);
    if (wait > 0 && (x->wait_ms == 0 || wait < x->wait_ms)) {
        x->wait_ms = wait;
    }
    return yes;
}

static int create_on(struct daemon *x, const char *node, struct th_err *err)
{
    struct th_json *pod TH_AUTO(th_json) =
        th_pod_from_template(th_json_path(x->ds, "spec.template"), x->ds);
    th_json_set_str(th_json_path_object(pod, "metadata.labels"), TH_REVISION_HASH_LABEL, x->hash);
    th_json_set_str(th_json_path_object(pod, "metadata.labels"), "pod-template-generation",
                    th_json_str(th_json_get(th_json_path(x->ds, "metadata.annotations"),
                                            "deprecated.daemonset.template.generation")));
    if (!th_json_path_str(pod, "metadata.labels.pod-template-generation")) {
        (void)th_json_path_del(pod, "metadata.labels.pod-template-generation");
    }
    th_json_path_set(pod, "spec.tolerations", th_json_ref(x->tolerations));
    th_json_path_set(pod,
                     "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution",
                     th_json_build("{'nodeSelectorTerms':[{'matchFields':[{'key':'metadata.name',"
                                   "'operator':'In','values':[%s]}]}]}",
                                   node));
    return th_podctl_create(x->c, x->key, x->ds, pod, NULL, err);
}

static int older_first(const void *pa, const void *pb)
{
    const struct th_json *a = *(struct th_json *const *)pa, *b = *(struct th_json *const *)pb;
    int64_t ta = th_obj_time_ms(a, "metadata.creationTimestamp");
    int64_t tb = th_obj_time_ms(b, "metadata.creationTimestamp");
    const char *na = th_json_path_str(a, "spec.nodeName");
    const char *nb = th_json_path_str(b, "spec.nodeName");
    bool pa_ = na && *na, pb_ = nb && *nb;
    if (pa_ != pb_) {
        return pa_ ? -1 : 1; /* the one that is placed counts as the older */
    }
    return ta < tb ? -1 : ta > tb;
}

static int delete_pod(struct daemon *x, const struct th_json *pod, struct th_err *err)
{
    return th_json_path_str(pod, "metadata.deletionTimestamp")
               ? 0
               : th_podctl_delete(x->c, x->key, x->ds, pod, err);
}

static void pods_on(const struct daemon *x, const char *node, struct th_pods *ret)
{
    for (size_t i = 0; i < x->pods.n; i++) {
        if (th_streq(node_of(x->pods.v[i]), node)) {
            th_pods_add(ret, x->pods.v[i]);
        }
    }
    if (ret->n > 1) {
        qsort(ret->v, ret->n, sizeof(struct th_json *), older_first);
    }
}

/* A pod that ended is deleted, to be made again; 1: there was one. */
static int clear_ended(struct daemon *x, const struct th_json *pod, const char *node,
                       struct th_err *err)
{
    const char *phase = th_json_path_str(pod, "status.phase");
    bool failed = th_streq(phase, "Failed");
    if (!failed && !th_streq(phase, "Succeeded")) {
        return 0;
    }
    if (!th_json_path_str(pod, "metadata.deletionTimestamp")) {
        th_event_record(th_ctrl_recorder(x->c), x->ds, failed ? "Warning" : "Normal",
                        failed ? "FailedDaemonPod" : "SucceededDaemonPod",
                        "Found %s daemon pod %s/%s on node %s, will try to %s it",
                        failed ? "failed" : "succeeded",
                        th_json_path_str(pod, "metadata.namespace"),
                        th_json_path_str(pod, "metadata.name"), node, failed ? "kill" : "delete");
    }
    TH_TRY(delete_pod(x, pod, err));
    return 1;
}

static int64_t surge_of(const struct daemon *x, int64_t desired);

/* One node: exactly one pod, or none (two while one surges over the other). */
static int sync_node(struct daemon *x, const struct th_json *node, bool surges, int64_t *created,
                     struct th_err *err)
{
    const char *name = th_json_path_str(node, "metadata.name");
    struct th_pods here TH_CLEANUP(th_pods_done) = {NULL, 0, 0};
    bool run = false, stay = false;
    wanted_on(x, node, &run, &stay);
    pods_on(x, name, &here);
    const struct th_json *kept_new = NULL, *kept_old = NULL;
    size_t left = 0;
    for (size_t i = 0; i < here.n; i++) {
        const struct th_json *pod = here.v[i];
        int r = stay ? clear_ended(x, pod, name, err) : delete_pod(x, pod, err);
        TH_TRY(r);
        if (!stay || r > 0) {
            left++; /* it is going: the next look makes another */
            continue;
        }
        if (th_json_path_str(pod, "metadata.deletionTimestamp")) {
            left++;
            continue;
        }
        const struct th_json **slot = is_new(x, pod) ? &kept_new : &kept_old;
        bool extra = *slot || (!surges && (kept_new || kept_old));
        if (extra) {
            TH_TRY(delete_pod(x, pod, err));
        } else {
            *slot = pod;
        }
    }
    if (surges && kept_old && kept_new && is_available(x, kept_new)) {
        TH_TRY(delete_pod(x, kept_old, err));
    }
    if (run && !kept_new && !kept_old && left == 0 && *created < BURST) {
        (*created)++;
        TH_TRY(create_on(x, name, err));
    }
    return 0;
}

/* ---- Rolling update ---- */

static int64_t scaled(const struct th_json *v, int64_t total, int64_t def)
{
    const char *text = th_json_str(v);
    if (!v) {
        return def;
    }
    return text ? (strtoll(text, NULL, 10) * total + 99) / 100 : th_json_as_int(v, def);
}

static int64_t surge_of(const struct daemon *x, int64_t desired)
{
    return scaled(th_json_path(x->ds, "spec.updateStrategy.rollingUpdate.maxSurge"), desired, 0);
}

struct tally {
    int64_t desired, current, misscheduled, ready, available, updated;
};

/* The pods of one node as an update sees them: alive, new and old. */
static void old_and_new(const struct daemon *x, const char *node, struct th_json **ret_old,
                        struct th_json **ret_new)
{
    *ret_old = *ret_new = NULL;
    for (size_t i = 0; i < x->pods.n; i++) {
        struct th_json *pod = x->pods.v[i];
        if (th_streq(node_of(pod), node) && !th_json_path_str(pod, "metadata.deletionTimestamp")) {
            *(is_new(x, pod) ? ret_new : ret_old) = pod;
        }
    }
}

static int replace_old(struct daemon *x, int64_t desired, struct th_err *err)
{
    int64_t surge = surge_of(x, desired);
    const struct th_json *mu = th_json_path(x->ds, "spec.updateStrategy.rollingUpdate.maxUnavailable");
    int64_t room = surge > 0 ? surge : scaled(mu, desired, 1);
    room = room < 1 && surge == 0 ? 1 : room;
    for (int round = 0; round < 2; round++) { /* what is not available first: it costs nothing */
        for (size_t i = 0; i < th_json_len(x->nodes); i++) {
            const char *node = th_json_path_str(th_json_at(x->nodes, i), "metadata.name");
            bool run = false, stay = false;
            struct th_json *old = NULL, *new = NULL;
            wanted_on(x, th_json_at(x->nodes, i), &run, &stay);
            old_and_new(x, node, &old, &new);
            if (!run) {
                continue;
            }
            bool available = old && is_available(x, old);
            if (round == 0 && surge == 0 && !available && !(new && is_available(x, new))) {
                room--; /* this node does not serve now */
            } else if (round == 0 && surge > 0 && old && new) {
                room--; /* this node surges now */
            }
            if (!old || (surge > 0 && new) || (round == 0 ? available : !available)) {
                continue;
            }
            if (round == 1 && room-- <= 0) {
                return 0;
            }
            TH_TRY(surge > 0 ? create_on(x, node, err) : delete_pod(x, old, err));
        }
    }
    return 0;
}

/* ---- Status ---- */

static struct tally tally(struct daemon *x)
{
    struct tally t = {0, 0, 0, 0, 0, 0};
    for (size_t i = 0; i < th_json_len(x->nodes); i++) {
        bool run = false, stay = false;
        struct th_pods here TH_CLEANUP(th_pods_done) = {NULL, 0, 0};
        wanted_on(x, th_json_at(x->nodes, i), &run, &stay);
        pods_on(x, th_json_path_str(th_json_at(x->nodes, i), "metadata.name"), &here);
        t.desired += run;
        if (!run) {
            t.misscheduled += here.n > 0;
            continue;
        }
        t.current += here.n > 0;
        bool ready = false, available = false, updated = false;
        for (size_t k = 0; k < here.n; k++) {
            ready = ready || th_pod_is_ready(here.v[k]);
            available = available || is_available(x, here.v[k]);
            updated = updated || is_new(x, here.v[k]);
        }
        t.ready += ready;
        t.available += available;
        t.updated += updated;
    }
    return t;
}

static int write_status(struct daemon *x, const struct th_json *stored, const struct tally *t,
                        int64_t collisions, struct th_err *err)
{
    struct th_json *status TH_AUTO(th_json) =
        th_json_get(stored, "status") ? th_json_dup(th_json_get(stored, "status"))
                                      : th_json_object();
    th_json_set_int(status, "currentNumberScheduled", t->current);
    th_json_set_int(status, "numberMisscheduled", t->misscheduled);
    th_json_set_int(status, "desiredNumberScheduled", t->desired);
    th_json_set_int(status, "numberReady", t->ready);
    th_json_set_int(status, "observedGeneration",
                    th_json_path_int(stored, "metadata.generation", 0));
    th_status_count(status, "updatedNumberScheduled", t->updated);
    th_status_count(status, "numberAvailable", t->available);
    th_status_count(status, "numberUnavailable", t->desired - t->available);
    if (collisions) {
        th_json_set_int(status, "collisionCount", collisions);
    }
    return th_ctrl_write_status(x->c, x->key, GVR_DAEMONSETS, stored, status, err);
}

static bool collect_node(void *arg, struct th_json *node)
{
    th_json_append(arg, th_json_ref(node));
    return true;
}

/* Revisions that pods still are of stay, and the one now. */
static int trim(struct daemon *x, const struct th_json *all, struct th_err *err)
{
    struct th_strv live TH_CLEANUP(th_strv_done) = TH_STRV_INIT;
    size_t n = th_json_len(all);
    for (size_t i = 0; i < n; i++) {
        const struct th_json *labels = th_json_path(th_json_at(all, i), "metadata.labels");
        const char *hash = th_json_str(th_json_get(labels, TH_REVISION_HASH_LABEL));
        bool used = i + 1 == n;
        for (size_t k = 0; k < x->pods.n && !used; k++) {
            used = th_streq(th_json_str(th_json_get(th_json_path(x->pods.v[k], "metadata.labels"),
                                                    TH_REVISION_HASH_LABEL)),
                            hash);
        }
        if (used) {
            th_strv_add(&live, th_json_path_str(th_json_at(all, i), "metadata.name"));
        }
    }
    return th_history_trim(x->c, x->key, x->ds, all, &live, err);
}

static int sync_daemon(struct daemon *x, struct th_err *err)
{
    int64_t collisions = th_json_path_int(x->ds, "status.collisionCount", 0);
    struct th_json *revisions TH_AUTO(th_json) = NULL;
    TH_TRY(th_history_current(x->c, x->key, x->ds, &collisions, &revisions, err));
    const struct th_json *now = th_json_at(revisions, th_json_len(revisions) - 1);
    x->hash = th_json_str(
        th_json_get(th_json_path(now, "metadata.labels"), TH_REVISION_HASH_LABEL));
    struct tally t = tally(x);
    bool rolling = !th_streq(th_json_path_str(x->ds, "spec.updateStrategy.type"), "OnDelete");
    bool surges = rolling && surge_of(x, t.desired) > 0;
    int64_t created = 0;
    struct th_err why TH_CLEANUP(th_err_done) = TH_ERR_INIT;
    int r = 0;
    for (size_t i = 0; i < th_json_len(x->nodes) && r >= 0; i++) {
        r = sync_node(x, th_json_at(x->nodes, i), surges, &created, &why);
    }
    if (r >= 0 && rolling && created == 0) {
        r = replace_old(x, t.desired, &why);
    }
    TH_TRY(trim(x, revisions, err));
    TH_TRY(write_status(x, x->ds, &t, collisions, err));
    if (r < 0) {
        th_err_move(err, &why);
    }
    return r;
}

static int reconcile(struct th_ctrl *c, const char *key, int64_t *ret_after_ms, struct th_err *err)
{
    const char *name = NULL;
    th_autofree char *ns = th_ctrl_key_split(key, &name);
    struct th_json *ds TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, GVR_DAEMONSETS), ns, name);
    if (!ds || th_json_path_str(ds, "metadata.deletionTimestamp")) {
        return 0;
    }
    struct th_selector *sel TH_AUTO(th_selector) = NULL;
    TH_TRY(th_selector_from_json(th_json_path(ds, "spec.selector"), &sel, err));
    struct th_json *nodes TH_AUTO(th_json) = th_json_array();
    struct th_json *tolerations TH_AUTO(th_json) = tolerations_of(ds);
    struct daemon x = {
        .c = c, .key = key, .ds = ds, .nodes = nodes, .tolerations = tolerations};
    const struct th_json *terms =
        th_json_path(ds, "spec.template.spec.affinity.nodeAffinity."
                         "requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms");
    x.required = terms ? th_node_selector_new(terms) : NULL;
    th_informer_each(th_ctrl_informer(c, TH_GVR_NODES), NULL, collect_node, nodes);
    int r = th_podctl_claim(c, th_ctrl_state(c), ds, GVR_DAEMONSETS, sel, NULL, &x.pods, err);
    r = r < 0 ? r : sync_daemon(&x, err);
    *ret_after_ms = x.wait_ms;
    th_pods_done(&x.pods);
    th_node_selector_free(x.required);
    return r;
}

static const struct th_ctrl_watch watches[] = {
    {.gvr = {"apps", "v1", "daemonsets"}, .on_event = th_ctrl_on_self},
    {.gvr = {"apps", "v1", "controllerrevisions"}},
    {.gvr = {"", "v1", "nodes"}, .on_event = on_node},
    {.gvr = {"", "v1", "pods"}, .on_event = on_pod},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_daemonset = {
    .name = "daemonset-controller",
    .account = "daemon-set-controller",
    .watches = watches,
    .reconcile = reconcile,
    .state_new = th_orphans_new,
    .state_free = th_orphans_free,
};
