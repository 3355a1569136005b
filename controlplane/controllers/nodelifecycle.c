/*
 * Node life cycle: a node that is not heard of any more becomes Unknown, and what is wrong with a
 * node becomes taints.
 *
 * A node is heard of when its lease was renewed or the heartbeat of its Ready condition moved. When
 * neither happened for the grace period (counted from when this process saw the last change, so
 * clocks of nodes do not matter), its conditions become Unknown and its pods not ready. Keys:
 *
 *   ""      every monitor period: who has not been heard of?
 *   NODE    something about that node changed: its taints.
 *
 * Taints follow the conditions (TaintNodesByCondition): NoSchedule at once; NoExecute for Ready
 * False or Unknown, which tainteviction.c acts on. NoExecute is held back where the trouble is more
 * likely ours than the nodes': when no node at all is ready (the existing ones are taken off again),
 * or when more than half of at least three are not; and no more than one node gets it every
 * EVICTION_EVERY_MS. Upstream: k8s.io/kubernetes pkg/controller/nodelifecycle, which computes this
 * per zone and lets large clusters go on slowly.
 */
#include "controlplane/controllers/controller.h"
#include "controlplane/controllers/podutil.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/hmap.h"
#include <inttypes.h>
#include <pthread.h>

#define MONITOR_PERIOD_MS 5000
#define MONITOR_GRACE_MS 40000
#define STARTUP_GRACE_MS 60000
#define EVICTION_EVERY_MS 10000
#define UNHEALTHY_LEAST 3
#define UNHEALTHY_PERCENT 55

#define NOT_READY "node.kubernetes.io/not-ready"
#define UNREACHABLE "node.kubernetes.io/unreachable"
#define UNSCHEDULABLE "node.kubernetes.io/unschedulable"

/* Conditions and the taints they bring; the first row that fits a key counts. */
static const struct {
    const char *condition, *status, *taint;
} by_condition[] = {
    {"Ready", "False", NOT_READY},
    {"Ready", "Unknown", UNREACHABLE},
    {"MemoryPressure", "True", "node.kubernetes.io/memory-pressure"},
    {"DiskPressure", "True", "node.kubernetes.io/disk-pressure"},
    {"NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"},
    {"PIDPressure", "True", "node.kubernetes.io/pid-pressure"},
};

struct health {
    char *lease, *heartbeat; /* as last seen */
    int64_t heard_ms;        /* monotonic: when one of them changed */
    bool was_ready;
};

struct state {
    pthread_mutex_t lock;
    struct th_hmap nodes;  /* lock; name -> struct health */
    int64_t last_taint_ms; /* lock; monotonic, of the last NoExecute */
    bool all_down, most_down; /* lock; as of the last look */
};

static void health_free(void *p)
{
    struct health *h = p;
    if (h) {
        free(h->lease);
        free(h->heartbeat);
        free(h);
    }
}

static void *state_new(struct th_ctrl *c)
{
    (void)c;
    struct state *s = TH_NEW(struct state);
    pthread_mutex_init(&s->lock, NULL);
    th_hmap_init(&s->nodes, health_free);
    s->last_taint_ms = INT64_MIN / 2;
    return s;
}

static void state_free(void *p)
{
    struct state *s = p;
    th_hmap_done(&s->nodes);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static int64_t or_default(int64_t v, int64_t def)
{
    return v > 0 ? v : def;
}

static const char *ready_status(const struct th_json *node)
{
    const char *s = th_json_path_str(th_cond_get(node, "Ready"), "status");
    return s ? s : "";
}

/* ---- Heartbeats ---- */

static bool changed(char **slot, const char *now)
{
    if (th_streq(*slot, now)) {
        return false;
    }
    free(*slot);
    *slot = th_xstrdup(now);
    return true;
}

/* Milliseconds since the node was heard of. */
static int64_t silence(struct th_ctrl *c, const struct th_json *node)
{
    struct state *s = th_ctrl_state(c);
    const char *name = th_json_path_str(node, "metadata.name");
    struct th_json *lease TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, TH_GVR_LEASES), "kube-node-lease", name);
    int64_t now = th_mono_ms();
    pthread_mutex_lock(&s->lock);
    struct health *h = th_hmap_get(&s->nodes, name);
    if (!h) {
        h = TH_NEW(struct health);
        h->heard_ms = now;
        th_hmap_set(&s->nodes, name, h);
    }
    bool heard = changed(&h->lease, th_json_path_str(lease, "spec.renewTime"));
    heard = changed(&h->heartbeat,
                    th_json_path_str(th_cond_get(node, "Ready"), "lastHeartbeatTime")) ||
            heard;
    if (heard) {
        h->heard_ms = now;
    }
    int64_t ms = now - h->heard_ms;
    pthread_mutex_unlock(&s->lock);
    return ms;
}

static int make_unknown(void *arg, struct th_json *node, struct th_err *err)
{
    static const char *const types[] = {"Ready", "MemoryPressure", "DiskPressure", "PIDPressure"};
    (void)arg;
    (void)err;
    int any = 0;
    struct th_json *conditions = th_json_path_array(node, "status.conditions");
    for (size_t i = 0; i < TH_ARRAY_LEN(types); i++) {
        const struct th_json *old = th_cond_get(node, types[i]);
        if (th_streq(th_json_path_str(old, "status"), "Unknown")) {
            continue;
        }
        bool never = old == NULL;
        (void)th_cond_put(conditions, types[i], "Unknown",
                          never ? "NodeStatusNeverUpdated" : "NodeStatusUnknown",
                          never ? "Kubelet never posted node status."
                                : "Kubelet stopped posting node status.");
        if (never) {
            th_json_set_str(th_cond_get(node, types[i]), "lastHeartbeatTime",
                            th_json_path_str(node, "metadata.creationTimestamp"));
        }
        any = 1;
    }
    return any;
}

static int look_at(struct th_ctrl *c, const struct th_json *node, struct th_err *err)
{
    const struct th_controllers_opts *o = th_ctrl_opts(c);
    const char *status = ready_status(node);
    int64_t grace = *status ? or_default(o->node_monitor_grace_ms, MONITOR_GRACE_MS)
                            : or_default(o->node_startup_grace_ms, STARTUP_GRACE_MS);
    if (silence(c, node) <= grace || th_streq(status, "Unknown")) {
        return 0;
    }
    int r = th_client_modify(th_ctrl_client(c), TH_GVR_NODES, NULL,
                             th_json_path_str(node, "metadata.name"), "status", make_unknown, NULL,
                             NULL, err);
    if (r == -TH_R_NOT_FOUND) {
        th_err_done(err);
        r = 0;
    }
    return r < 0 ? r : 0;
}

struct look {
    struct th_ctrl *c;
    struct th_json *nodes; /* array */
    size_t ready, not_ready;
};

static bool collect_node(void *arg, struct th_json *node)
{
    struct look *l = arg;
    bool ready = th_streq(ready_status(node), "True");
    l->ready += ready;
    l->not_ready += !ready;
    th_json_append(l->nodes, th_json_ref(node));
    return true;
}

/* All nodes; those that are tainted wrongly by how things stand now are looked at again. */
static int monitor(struct th_ctrl *c, int64_t *ret_after_ms, struct th_err *err)
{
    struct state *s = th_ctrl_state(c);
    struct th_json *nodes TH_AUTO(th_json) = th_json_array();
    struct look l = {.c = c, .nodes = nodes};
    th_informer_each(th_ctrl_informer(c, TH_GVR_NODES), NULL, collect_node, &l);
    pthread_mutex_lock(&s->lock);
    s->all_down = l.ready == 0 && l.not_ready > 0;
    s->most_down = l.not_ready >= UNHEALTHY_LEAST &&
                   l.not_ready * 100 >= (l.ready + l.not_ready) * UNHEALTHY_PERCENT;
    pthread_mutex_unlock(&s->lock);
    int64_t period = or_default(th_ctrl_opts(c)->node_monitor_period_ms, MONITOR_PERIOD_MS);
    *ret_after_ms = period;
    for (size_t i = 0; i < th_json_len(nodes); i++) {
        const struct th_json *node = th_json_at(nodes, i);
        TH_TRY(look_at(c, node, err));
        if (!th_streq(ready_status(node), "True")) {
            th_ctrl_enqueue_obj(c, node); /* NoExecute may have been held back */
        }
    }
    return 0;
}

/* ---- Taints ---- */

static void want(struct th_json *taints, const char *key, const char *effect)
{
    th_json_append(taints, th_json_build("{'key':%s,'effect':%s}", key, effect));
}

/* Whether the node may get a NoExecute taint now. */
static bool may_evict(struct state *s)
{
    pthread_mutex_lock(&s->lock);
    bool held = s->all_down || s->most_down;
    pthread_mutex_unlock(&s->lock);
    return !held;
}

static bool has_taint(const struct th_json *taints, const char *key, const char *effect)
{
    for (size_t i = 0; i < th_json_len(taints); i++) {
        const struct th_json *t = th_json_at(taints, i);
        if (th_streq(th_json_path_str(t, "key"), key) &&
            th_streq(th_json_path_str(t, "effect"), effect)) {
            return true;
        }
    }
    return false;
}

static bool has_execute(const struct th_json *taints)
{
    return has_taint(taints, NOT_READY, "NoExecute") || has_taint(taints, UNREACHABLE, "NoExecute");
}

/* Whether a taint is one that this controller gives and takes. */
static bool is_ours(const struct th_json *taint)
{
    const char *key = th_json_path_str(taint, "key"), *effect = th_json_path_str(taint, "effect");
    if (th_streq(effect, "NoExecute")) {
        return th_streq(key, NOT_READY) || th_streq(key, UNREACHABLE);
    }
    if (!th_streq(effect, "NoSchedule")) {
        return false;
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(by_condition); i++) {
        if (th_streq(key, by_condition[i].taint)) {
            return true;
        }
    }
    return th_streq(key, UNSCHEDULABLE);
}

static struct th_json *wanted_taints(struct state *s, const struct th_json *node)
{
    struct th_json *list = th_json_array();
    for (size_t i = 0; i < TH_ARRAY_LEN(by_condition); i++) {
        const struct th_json *cond = th_cond_get(node, by_condition[i].condition);
        if (th_streq(th_json_path_str(cond, "status"), by_condition[i].status)) {
            want(list, by_condition[i].taint, "NoSchedule");
        }
    }
    if (th_json_path_bool(node, "spec.unschedulable", false)) {
        want(list, UNSCHEDULABLE, "NoSchedule");
    }
    const char *ready = ready_status(node);
    const char *key = th_streq(ready, "False")     ? NOT_READY
                      : th_streq(ready, "Unknown") ? UNREACHABLE
                                                   : NULL;
    pthread_mutex_lock(&s->lock);
    bool all_down = s->all_down;
    pthread_mutex_unlock(&s->lock);
    const struct th_json *now = th_json_path(node, "spec.taints");
    /* A node that has one keeps it (the other key is swapped for it) unless all are down. */
    if (key && !all_down && (has_execute(now) || may_evict(s))) {
        want(list, key, "NoExecute");
    }
    return list;
}

/* Takes the turn to give a first NoExecute taint, when it is one. */
static bool take_turn(struct state *s)
{
    pthread_mutex_lock(&s->lock);
    int64_t now = th_mono_ms();
    bool free_now = now - s->last_taint_ms >= EVICTION_EVERY_MS;
    if (free_now) {
        s->last_taint_ms = now;
    }
    pthread_mutex_unlock(&s->lock);
    return free_now;
}

struct taint_arg {
    struct state *s;
    bool execute; /* a first NoExecute taint may be given */
};

static int set_taints(const struct taint_arg *a, struct th_json *node)
{
    struct th_json *wanted TH_AUTO(th_json) = wanted_taints(a->s, node);
    struct th_json *taints = th_json_path(node, "spec.taints");
    bool execute = a->execute || has_execute(taints);
    int any = 0;
    for (size_t i = th_json_len(taints); i-- > 0;) {
        const struct th_json *t = th_json_at(taints, i);
        if (is_ours(t) && !has_taint(wanted, th_json_path_str(t, "key"),
                                     th_json_path_str(t, "effect"))) {
            th_json_del_at(taints, i);
            any = 1;
        }
    }
    for (size_t i = 0; i < th_json_len(wanted); i++) {
        struct th_json *t = th_json_at(wanted, i);
        const char *effect = th_json_path_str(t, "effect");
        if (!has_taint(taints, th_json_path_str(t, "key"), effect) &&
            (execute || !th_streq(effect, "NoExecute"))) {
            th_json_set(t, "timeAdded", th_time_now_json());
            th_json_append(th_json_path_array(node, "spec.taints"), th_json_ref(t));
            any = 1;
        }
    }
    if (any && th_json_len(th_json_path(node, "spec.taints")) == 0) {
        (void)th_json_path_del(node, "spec.taints");
    }
    return any;
}

/* ---- Labels and pods ---- */

/* Old names of two labels that some selectors still use. */
static int set_labels(struct th_json *node)
{
    static const char *const pairs[][2] = {{"kubernetes.io/os", "beta.kubernetes.io/os"},
                                           {"kubernetes.io/arch", "beta.kubernetes.io/arch"}};
    int any = 0;
    struct th_json *labels = th_json_path(node, "metadata.labels");
    for (size_t i = 0; i < TH_ARRAY_LEN(pairs); i++) {
        const char *v = th_json_str(th_json_get(labels, pairs[i][0]));
        if (v && !th_streq(v, th_json_str(th_json_get(labels, pairs[i][1])))) {
            th_json_set_str(labels, pairs[i][1], v);
            any = 1;
        }
    }
    return any;
}

static int set_both(void *arg, struct th_json *node, struct th_err *err)
{
    (void)err;
    int a = set_taints(arg, node), b = set_labels(node);
    return a || b;
}

struct node_pods {
    struct th_ctrl *c;
    const char *node;
    struct th_err *err;
    int r;
};

static int make_not_ready(void *arg, struct th_json *pod, struct th_err *err)
{
    (void)arg;
    (void)err;
    struct th_json *cond = th_cond_get(pod, "Ready");
    if (!th_streq(th_json_path_str(cond, "status"), "True")) {
        return 0;
    }
    th_json_set_str(cond, "status", "False");
    th_json_set(cond, "lastTransitionTime", th_time_now_json());
    return 1;
}

static bool mark_pod(void *arg, struct th_json *pod)
{
    struct node_pods *n = arg;
    if (!th_streq(th_json_path_str(pod, "spec.nodeName"), n->node) || !th_pod_is_ready(pod)) {
        return true;
    }
    struct th_err err TH_CLEANUP(th_err_done) = TH_ERR_INIT;
    int r = th_client_modify(th_ctrl_client(n->c), TH_GVR_PODS,
                             th_json_path_str(pod, "metadata.namespace"),
                             th_json_path_str(pod, "metadata.name"), "status", make_not_ready, NULL,
                             NULL, &err);
    if (r > 0) {
        th_event_record(th_ctrl_recorder(n->c), pod, "Warning", "NodeNotReady",
                        "Node is not ready");
    } else if (r < 0 && r != -TH_R_NOT_FOUND && n->r == 0) {
        n->r = r;
        th_err_move(n->err, &err);
    }
    return true;
}

/* Ready is over: said, and nobody relies on the node's pods any more. */
static int note_readiness(struct th_ctrl *c, const struct th_json *node, struct th_err *err)
{
    struct state *s = th_ctrl_state(c);
    const char *name = th_json_path_str(node, "metadata.name");
    bool ready = th_streq(ready_status(node), "True");
    pthread_mutex_lock(&s->lock);
    struct health *h = th_hmap_get(&s->nodes, name);
    bool ended = h && h->was_ready && !ready;
    pthread_mutex_unlock(&s->lock);
    if (ended) {
        struct node_pods n = {c, name, err, 0};
        th_informer_each(th_ctrl_informer(c, TH_GVR_PODS), NULL, mark_pod, &n);
        TH_TRY(n.r);
        th_event_record(th_ctrl_recorder(c), node, "Normal", "NodeNotReady",
                        "Node %s status is now: NodeNotReady", name);
    }
    pthread_mutex_lock(&s->lock);
    h = th_hmap_get(&s->nodes, name);
    if (h) {
        h->was_ready = ready;
    }
    pthread_mutex_unlock(&s->lock);
    return 0;
}

static int reconcile(struct th_ctrl *c, const char *key, int64_t *ret_after_ms, struct th_err *err)
{
    if (!*key) {
        return monitor(c, ret_after_ms, err);
    }
    struct state *s = th_ctrl_state(c);
    struct th_json *node TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, TH_GVR_NODES), NULL, key);
    if (!node) {
        pthread_mutex_lock(&s->lock);
        health_free(th_hmap_remove(&s->nodes, key));
        pthread_mutex_unlock(&s->lock);
        return 0;
    }
    (void)silence(c, node);
    TH_TRY(note_readiness(c, node, err));
    struct th_json *wanted TH_AUTO(th_json) = wanted_taints(s, node);
    bool first = has_execute(wanted) && !has_execute(th_json_path(node, "spec.taints"));
    struct taint_arg a = {s, first && take_turn(s)};
    if (first && !a.execute) {
        *ret_after_ms = 1000;
    }
    struct th_json *copy TH_AUTO(th_json) = th_json_dup(node);
    if (!set_both(&a, copy, err)) {
        return 0;
    }
    int r = th_client_modify(th_ctrl_client(c), TH_GVR_NODES, NULL, key, "", set_both, &a, NULL,
                             err);
    if (r == -TH_R_NOT_FOUND) {
        th_err_done(err);
        r = 0;
    }
    return r < 0 ? r : 0;
}

/* Whether anything but heartbeats is different. */
static bool news(const struct th_json *old, const struct th_json *now)
{
    for (size_t i = 0; i < TH_ARRAY_LEN(by_condition); i++) {
        const char *type = by_condition[i].condition;
        if (!th_streq(th_json_path_str(th_cond_get(old, type), "status"),
                      th_json_path_str(th_cond_get(now, type), "status"))) {
            return true;
        }
    }
    return !th_json_equal(th_json_get(old, "spec"), th_json_get(now, "spec")) ||
           !th_json_equal(th_json_path(old, "metadata.labels"),
                          th_json_path(now, "metadata.labels"));
}

static void on_node(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    if (!old || !now || news(old, now)) {
        th_ctrl_enqueue_obj(c, now ? now : old);
    }
}

static const struct th_ctrl_watch watches[] = {
    {.gvr = {"", "v1", "nodes"}, .on_event = on_node},
    {.gvr = {"", "v1", "pods"}},
    {.gvr = {"coordination.k8s.io", "v1", "leases"}},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_nodelifecycle = {
    .name = "node-lifecycle-controller",
    .component = "node-controller",
    .account = "node-controller",
    .watches = watches,
    .reconcile = reconcile,
    .tick_ms = MONITOR_PERIOD_MS,
    .state_new = state_new,
    .state_free = state_free,
};
