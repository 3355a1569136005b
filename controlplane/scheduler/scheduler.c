/*
 * The scheduler: one pod at a time from the queue onto the best node that fits.
 *
 * Informers of pods and nodes keep a picture of the cluster: per node what can be allocated, what
 * is requested, and which pods are there. A pod that was bound is put into the picture at once
 * ("assumed"), so that the next one does not take the same room before the watch has told; the
 * watch's event replaces the assumption. A bind that fails takes it back.
 *
 * The lock guards the picture. Node trees are read only under it, since a tree belongs to one
 * thread at a time. The scheduling thread works under the lock, which is short: filters and scores
 * of a pod read memory only; writing to the API happens outside.
 *
 * Upstream also preempts pods of lower priority, spreads by topology and keeps to inter-pod
 * affinity; docs/unsupported.md says what is missing here.
 */
#include "controlplane/scheduler/scheduler.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/hmap.h"
#include "base/log.h"
#include "base/rand.h"
#include "controlplane/scheduler/plugin.h"
#include "controlplane/scheduler/queue.h"
#include "controlplane/schema/selector.h"
#include <pthread.h>

#define TH_SCHED_PLUGIN(name) extern const struct th_sched_plugin th_sched_##name;
#include "controlplane/scheduler/plugins.def"
#undef TH_SCHED_PLUGIN

static const struct th_sched_plugin *const plugins[] = {
#define TH_SCHED_PLUGIN(name) &th_sched_##name,
#include "controlplane/scheduler/plugins.def"
#undef TH_SCHED_PLUGIN
};

struct th_scheduler {
    struct th_client *client;
    char *name;
    struct th_recorder *recorder;
    struct th_informer *pods_informer, *nodes_informer;
    struct th_schedq *queue;
    pthread_t thread;
    bool stopping; /* atomic */
    pthread_mutex_t lock;
    struct th_hmap nodes; /* lock; name -> struct th_node_info */
    struct th_hmap pods;  /* lock; key -> struct th_sched_pod */
};

/* ---- The picture ---- */

static void node_free(void *p)
{
    struct th_node_info *n = p;
    if (n) {
        free(n->name);
        th_json_unref(n->obj);
        th_amounts_done(&n->allocatable);
        th_amounts_done(&n->requested);
        free(n->pods);
        free(n);
    }
}

static void pod_free(void *p)
{
    struct th_sched_pod *pod = p;
    if (pod) {
        free(pod->key);
        free(pod->node);
        th_amounts_done(&pod->requests);
        th_host_ports_done(&pod->ports);
        free(pod);
    }
}

static void node_attach(struct th_node_info *n, struct th_sched_pod *pod)
{
    n->pods = th_xgrow(n->pods, &n->cap_pods, n->n_pods + 1, sizeof(*n->pods));
    n->pods[n->n_pods++] = pod;
    th_amounts_add(&n->requested, &pod->requests, 1);
}

static void node_detach(struct th_node_info *n, const struct th_sched_pod *pod)
{
    for (size_t i = 0; i < n->n_pods; i++) {
        if (n->pods[i] == pod) {
            n->pods[i] = n->pods[--n->n_pods];
            th_amounts_add(&n->requested, &pod->requests, -1);
            return;
        }
    }
}

static void picture_remove(struct th_scheduler *s, const char *key)
{
    struct th_sched_pod *pod = th_hmap_remove(&s->pods, key);
    if (pod) {
        struct th_node_info *n = th_hmap_get(&s->nodes, pod->node);
        if (n) {
            node_detach(n, pod);
        }
        pod_free(pod);
    }
}

static void picture_add(struct th_scheduler *s, const char *key, const char *node,
                        const struct th_json *obj)
{
    picture_remove(s, key);
    struct th_sched_pod *pod = TH_NEW(struct th_sched_pod);
    pod->key = th_xstrdup(key);
    pod->node = th_xstrdup(node);
    th_pod_requests(obj, &pod->requests);
    th_host_ports_read(obj, &pod->ports);
    th_hmap_set(&s->pods, key, pod);
    struct th_node_info *n = th_hmap_get(&s->nodes, node);
    if (n) {
        node_attach(n, pod);
    }
}

static char *key_of(const struct th_json *obj)
{
    return th_xasprintf("%s/%s", th_json_path_str(obj, "metadata.namespace"),
                        th_json_path_str(obj, "metadata.name"));
}

static bool ended(const struct th_json *pod)
{
    const char *phase = th_json_path_str(pod, "status.phase");
    return th_streq(phase, "Succeeded") || th_streq(phase, "Failed");
}

static bool is_ours(const struct th_scheduler *s, const struct th_json *pod)
{
    const char *name = th_json_path_str(pod, "spec.schedulerName");
    return th_streq(name ? name : "default-scheduler", s->name) &&
           !th_json_path_str(pod, "metadata.deletionTimestamp") &&
           th_json_len(th_json_path(pod, "spec.schedulingGates")) == 0;
}

static void on_pod(void *arg, const struct th_json *old, const struct th_json *now)
{
    struct th_scheduler *s = arg;
    th_autofree char *key = key_of(now ? now : old);
    const char *node = now ? th_json_path_str(now, "spec.nodeName") : NULL;
    bool placed = node && *node;
    pthread_mutex_lock(&s->lock);
    bool freed = false;
    if (!now || (placed && ended(now))) {
        freed = th_hmap_has(&s->pods, key);
        picture_remove(s, key);
    } else if (placed) {
        picture_add(s, key, node, now);
    }
    pthread_mutex_unlock(&s->lock);
    if (now && !placed && !ended(now) && is_ours(s, now)) {
        th_schedq_add(s->queue, key, th_json_path_int(now, "spec.priority", 0));
    } else {
        th_schedq_remove(s->queue, key);
    }
    if (freed) {
        th_schedq_wake(s->queue);
    }
}

static bool same_for_us(const struct th_json *a, const struct th_json *b)
{
    return a && b &&
           th_json_equal(th_json_path(a, "metadata.labels"), th_json_path(b, "metadata.labels")) &&
           th_json_equal(th_json_path(a, "spec"), th_json_path(b, "spec")) &&
           th_json_equal(th_json_path(a, "status.allocatable"),
                         th_json_path(b, "status.allocatable"));
}

static void node_put(struct th_scheduler *s, const char *name, const struct th_json *obj)
{
    struct th_node_info *n = TH_NEW(struct th_node_info);
    n->name = th_xstrdup(name);
    n->obj = th_json_dup(obj);
    th_amounts_read(&n->allocatable, th_json_path(obj, "status.allocatable"));
    th_hmap_set(&s->nodes, name, n);
    struct th_hmap_entry *e;
    for (size_t it = 0; (e = th_hmap_next(&s->pods, &it));) {
        struct th_sched_pod *pod = e->value;
        if (th_streq(pod->node, name)) {
            node_attach(n, pod);
        }
    }
}

static void on_node(void *arg, const struct th_json *old, const struct th_json *now)
{
    struct th_scheduler *s = arg;
    if (same_for_us(old, now)) {
        return; /* heartbeats */
    }
    const char *name = th_json_path_str(now ? now : old, "metadata.name");
    pthread_mutex_lock(&s->lock);
    if (now) {
        node_put(s, name, now);
    } else {
        node_free(th_hmap_remove(&s->nodes, name));
    }
    pthread_mutex_unlock(&s->lock);
    th_schedq_wake(s->queue);
}

/* ---- One pod ---- */

static void ctx_init(struct th_sched_ctx *c, const struct th_json *pod)
{
    *c = (struct th_sched_ctx){.pod = pod};
    th_pod_requests(pod, &c->requests);
    th_host_ports_read(pod, &c->ports);
    const struct th_json *required = th_json_path(
        pod, "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution");
    c->has_required = required != NULL;
    if (required) {
        c->required = th_node_selector_new(th_json_get(required, "nodeSelectorTerms"));
    }
}

static void ctx_done(struct th_sched_ctx *c)
{
    th_amounts_done(&c->requests);
    th_host_ports_done(&c->ports);
    th_node_selector_free(c->required);
}

/* Counts why nodes did not fit. */
struct reasons {
    struct th_hmap counts; /* text -> count as a pointer-sized number */
};

static void reason_add(struct reasons *r, const char *text)
{
    uintptr_t n = (uintptr_t)th_hmap_get(&r->counts, text);
    th_hmap_set(&r->counts, text, (void *)(n + 1));
}

static bool fits(const struct th_sched_ctx *c, const struct th_node_info *n, struct reasons *r)
{
    for (size_t i = 0; i < TH_ARRAY_LEN(plugins); i++) {
        char buf[128];
        th_autofree char *more = NULL;
        const char *why = plugins[i]->filter ? plugins[i]->filter(c, n, buf, &more) : NULL;
        if (why) {
            reason_add(r, why);
            struct th_strv rest TH_CLEANUP(th_strv_done) = TH_STRV_INIT;
            if (more) {
                th_strv_split(&rest, more, '\n');
            }
            for (size_t k = 0; k < rest.n; k++) {
                reason_add(r, rest.v[k]);
            }
            return false;
        }
    }
    return true;
}

/* "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable." */
static char *explain(size_t nodes, struct reasons *r)
{
    if (nodes == 0) {
        return th_xstrdup("no nodes available to schedule pods");
    }
    struct th_strv parts TH_CLEANUP(th_strv_done) = TH_STRV_INIT;
    struct th_hmap_entry *e;
    for (size_t it = 0; (e = th_hmap_next(&r->counts, &it));) {
        th_strv_addf(&parts, "%zu %s", (size_t)(uintptr_t)e->value, e->key);
    }
    th_strv_sort(&parts);
    th_autofree char *list = th_strv_join(&parts, ", ");
    return th_xasprintf("0/%zu nodes are available: %s.", nodes, list);
}

/* Weighted sum of the plugins' scores, normalized over the candidates; ties are broken by chance.
 */
static const char *pick(const struct th_sched_ctx *c, struct th_node_info *const *nodes, size_t n)
{
    th_autofree int64_t *total = th_xcalloc(n + 1, sizeof(*total));
    th_autofree int64_t *raw = th_xcalloc(n + 1, sizeof(*raw));
    for (size_t p = 0; p < TH_ARRAY_LEN(plugins); p++) {
        const struct th_sched_plugin *plugin = plugins[p];
        int64_t most = 0;
        for (size_t i = 0; plugin->score && i < n; i++) {
            raw[i] = plugin->score(c, nodes[i]);
            most = raw[i] > most ? raw[i] : most;
        }
        for (size_t i = 0; plugin->score && i < n; i++) {
            int64_t v = raw[i];
            if (plugin->score_is_reverse) {
                v = most ? 100 - 100 * v / most : 100;
            } else if (plugin->normalize) {
                v = most ? 100 * v / most : 0;
            }
            total[i] += v * plugin->weight;
        }
    }
    size_t best = 0, ties = 1;
    for (size_t i = 1; i < n; i++) {
        if (total[i] > total[best]) {
            best = i;
            ties = 1;
        } else if (total[i] == total[best] && th_rand_below(++ties) == 0) {
            best = i;
        }
    }
    return nodes[best]->name;
}

/* The node for the pod (caller frees), assumed from here on, or NULL with *ret_why. */
static char *place(struct th_scheduler *s, const char *key, const struct th_json *pod,
                   char **ret_why)
{
    struct th_sched_ctx c TH_CLEANUP(ctx_done);
    ctx_init(&c, pod);
    struct reasons why;
    th_hmap_init(&why.counts, NULL);
    pthread_mutex_lock(&s->lock);
    size_t n = 0;
    th_autofree struct th_node_info **fit = th_xcalloc(s->nodes.n + 1, sizeof(*fit));
    struct th_hmap_entry *e;
    for (size_t it = 0; (e = th_hmap_next(&s->nodes, &it));) {
        if (fits(&c, e->value, &why)) {
            fit[n++] = e->value;
        }
    }
    char *node = n ? th_xstrdup(pick(&c, fit, n)) : NULL;
    if (node) {
        picture_add(s, key, node, pod);
    } else {
        *ret_why = explain(s->nodes.n, &why);
    }
    pthread_mutex_unlock(&s->lock);
    th_hmap_done(&why.counts);
    return node;
}

static int set_condition(struct th_scheduler *s, const struct th_json *pod, const char *message,
                         struct th_err *err)
{
    const struct th_json *conditions = th_json_path(pod, "status.conditions");
    for (size_t i = 0; i < th_json_len(conditions); i++) {
        const struct th_json *c = th_json_at(conditions, i);
        if (th_streq(th_json_path_str(c, "type"), "PodScheduled") &&
            th_streq(th_json_path_str(c, "message"), message)) {
            return 0;
        }
    }
    char now[TH_TIME_LEN];
    struct th_json *patch TH_AUTO(th_json) = th_json_build(
        "{'status':{'conditions':[{'type':'PodScheduled','status':'False','reason':'Unschedulable',"
        "'message':%s,'lastProbeTime':%o,'lastTransitionTime':%s}]}}",
        message, NULL, th_time_format(th_now_ms(), now));
    struct th_patch_opts o = {.kind = TH_PATCH_STRATEGIC, .field_manager = "kube-scheduler"};
    return th_client_patch(s->client, TH_GVR_PODS, th_json_path_str(pod, "metadata.namespace"),
                           th_json_path_str(pod, "metadata.name"), "status", &o, patch, NULL, err);
}

static int bind_pod(struct th_scheduler *s, const struct th_json *pod, const char *node,
                    struct th_err *err)
{
    const char *ns = th_json_path_str(pod, "metadata.namespace");
    const char *name = th_json_path_str(pod, "metadata.name");
    struct th_json *binding TH_AUTO(th_json) = th_json_build(
        "{'apiVersion':'v1','kind':'Binding','metadata':{'name':%s,'namespace':%s,'uid':%s},"
        "'target':{'apiVersion':'v1','kind':'Node','name':%s}}",
        name, ns, th_json_path_str(pod, "metadata.uid"), node);
    return th_client_post(s->client, TH_GVR_PODS, ns, name, "binding", binding, NULL, err);
}

static void bind_failed(struct th_scheduler *s, const char *key, const struct th_json *pod,
                        const struct th_err *err)
{
    pthread_mutex_lock(&s->lock);
    picture_remove(s, key);
    pthread_mutex_unlock(&s->lock);
    if (err->reason == TH_R_NOT_FOUND) {
        th_schedq_remove(s->queue, key); /* deleted meanwhile */
        return;
    }
    th_event_record(s->recorder, pod, "Warning", "FailedScheduling", "binding rejected: %s",
                    err->msg ? err->msg : "");
    th_schedq_unschedulable(s->queue, key, false);
}

static void schedule_one(struct th_scheduler *s, const char *key)
{
    const char *slash = strchr(key, '/');
    th_autofree char *ns = th_xstrndup(key, (size_t)(slash - key));
    struct th_json *pod TH_AUTO(th_json) = th_informer_get(s->pods_informer, ns, slash + 1);
    const char *placed = th_json_path_str(pod, "spec.nodeName");
    if (!pod || (placed && *placed) || !is_ours(s, pod)) {
        th_schedq_remove(s->queue, key);
        return;
    }
    struct th_err err TH_CLEANUP(th_err_done) = TH_ERR_INIT;
    th_autofree char *why = NULL;
    th_autofree char *node = place(s, key, pod, &why);
    if (!node) {
        th_event_record(s->recorder, pod, "Warning", "FailedScheduling", "%s", why);
        if (set_condition(s, pod, why, &err) < 0) {
            th_debug("scheduler", "condition not written", "pod=%s error=%s", key,
                     th_log_q(err.msg ? err.msg : ""));
        }
        th_schedq_unschedulable(s->queue, key, true);
        return;
    }
    if (bind_pod(s, pod, node, &err) < 0) {
        bind_failed(s, key, pod, &err);
        return;
    }
    th_schedq_remove(s->queue, key);
    th_event_record(s->recorder, pod, "Normal", "Scheduled", "Successfully assigned %s to %s", key,
                    node);
    th_debug("scheduler", "bound", "pod=%s node=%s", key, node);
}

static void *run(void *arg)
{
    struct th_scheduler *s = arg;
    while (!th_informer_wait_synced(s->pods_informer, 50) ||
           !th_informer_wait_synced(s->nodes_informer, 50)) {
        if (__atomic_load_n(&s->stopping, __ATOMIC_ACQUIRE)) {
            return NULL;
        }
    }
    for (;;) {
        th_autofree char *key = th_schedq_pop(s->queue);
        if (!key) {
            return NULL;
        }
        schedule_one(s, key);
    }
}

/* ---- Start and stop ---- */

int th_scheduler_start(struct th_client *client, const struct th_scheduler_opts *o,
                       struct th_scheduler **ret, struct th_err *err)
{
    struct th_scheduler *s = TH_NEW(struct th_scheduler);
    s->client = client;
    s->name = th_xstrdup(o && o->name ? o->name : "default-scheduler");
    pthread_mutex_init(&s->lock, NULL);
    th_hmap_init(&s->nodes, node_free);
    th_hmap_init(&s->pods, pod_free);
    s->queue = th_schedq_new();
    s->recorder = th_recorder_new(client, s->name, "");
    struct th_informer_opts pods = {.gvr = TH_GVR_PODS, .on_event = on_pod, .arg = s};
    struct th_informer_opts nodes = {.gvr = TH_GVR_NODES, .on_event = on_node, .arg = s};
    int r = th_informer_start(client, &nodes, &s->nodes_informer, err);
    if (r == 0) {
        r = th_informer_start(client, &pods, &s->pods_informer, err);
    }
    if (r == 0) {
        TH_ASSERT(pthread_create(&s->thread, NULL, run, s) == 0);
        *ret = s;
        return 0;
    }
    th_scheduler_stop(s);
    return r;
}

void th_scheduler_stop(struct th_scheduler *s)
{
    if (!s) {
        return;
    }
    __atomic_store_n(&s->stopping, true, __ATOMIC_RELEASE);
    th_schedq_shutdown(s->queue);
    if (s->pods_informer) {
        (void)pthread_join(s->thread, NULL);
        th_informer_stop(s->pods_informer);
    }
    if (s->nodes_informer) {
        th_informer_stop(s->nodes_informer);
    }
    th_recorder_free(s->recorder);
    th_schedq_free(s->queue);
    th_hmap_done(&s->nodes);
    th_hmap_done(&s->pods);
    pthread_mutex_destroy(&s->lock);
    free(s->name);
    free(s);
}
