/*
 * The scheduler: one pod at a time from the queue onto the best node that fits.
 *
 * Informers of pods, nodes and namespaces keep a picture of the cluster (framework.h). A pod that
 * was bound is put into the picture at once ("assumed"), so that the next one does not take the same
 * room before the watch has told; the watch's event replaces the assumption. A bind that fails takes
 * it back. A pod that fits nowhere may preempt others (preempt.c): they are deleted, the node is
 * noted as nominated, and pods of no greater priority leave the room alone until it comes again.
 *
 * The lock guards the picture. Node trees are read only under it, since a tree belongs to one
 * thread at a time. The scheduling thread works under the lock, which is short: filters and scores
 * of a pod read memory only; writing to the API happens outside.
 *
 * A pod whose claims are not bound yet when its node is chosen stays assumed there until they are
 * (volumes.h). Upstream also looks at claims of devices; docs/unsupported.md says what is missing.
 */
#include "controlplane/scheduler/scheduler.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "controlplane/scheduler/framework.h"
#include "controlplane/scheduler/queue.h"
#include "controlplane/scheduler/volumes.h"
#include <pthread.h>

#define GVR_CLAIMS ((struct th_gvr){"", "v1", "persistentvolumeclaims"})
#define GVR_VOLUMES ((struct th_gvr){"", "v1", "persistentvolumes"})
#define GVR_CLASSES ((struct th_gvr){"storage.k8s.io", "v1", "storageclasses"})
#define GVR_PDBS ((struct th_gvr){"policy", "v1", "poddisruptionbudgets"})

struct th_scheduler {
    struct th_client *client;
    char *name;
    struct th_recorder *recorder;
    struct th_informer *pods_informer, *nodes_informer, *namespaces_informer, *pdbs_informer;
    struct th_sched_volume_caches storage;
    struct th_schedq *queue;
    pthread_t thread;
    bool started;
    bool stopping; /* atomic */
    pthread_mutex_t lock;
    struct th_picture picture; /* lock */
    bool waits_for_pods;       /* lock; one did not fit because of where others are */
};

/* ---- Events ---- */

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
    bool waiting = now && !placed && !ended(now) && is_ours(s, now);
    bool wake = false;
    pthread_mutex_lock(&s->lock);
    if (!now || (placed && ended(now))) {
        wake = th_picture_drop_pod(&s->picture, key);
    } else if (placed) {
        th_picture_put_pod(&s->picture, node, now);
        wake = s->waits_for_pods;
        s->waits_for_pods = false;
    }
    th_picture_nominate(&s->picture, now ? now : old,
                        waiting ? th_json_path_str(now, "status.nominatedNodeName") : NULL);
    pthread_mutex_unlock(&s->lock);
    if (waiting) {
        th_schedq_add(s->queue, key, th_json_path_int(now, "spec.priority", 0));
    } else {
        th_schedq_remove(s->queue, key);
    }
    if (wake) {
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

static void on_node(void *arg, const struct th_json *old, const struct th_json *now)
{
    struct th_scheduler *s = arg;
    if (same_for_us(old, now)) {
        return; /* heartbeats */
    }
    const char *name = th_json_path_str(now ? now : old, "metadata.name");
    pthread_mutex_lock(&s->lock);
    if (now) {
        th_picture_put_node(&s->picture, now);
    } else {
        th_picture_drop_node(&s->picture, name);
    }
    pthread_mutex_unlock(&s->lock);
    th_schedq_wake(s->queue);
}

static void on_namespace(void *arg, const struct th_json *old, const struct th_json *now)
{
    struct th_scheduler *s = arg;
    pthread_mutex_lock(&s->lock);
    th_picture_put_namespace(&s->picture, th_json_path_str(now ? now : old, "metadata.name"),
                             th_json_path(now, "metadata.labels"));
    pthread_mutex_unlock(&s->lock);
}

/* A claim, a volume or a class. */
static void on_storage(void *arg, const struct th_json *old, const struct th_json *now)
{
    const struct th_scheduler *s = arg;
    if (now && !th_json_equal(old, now)) {
        th_schedq_wake(s->queue);
    }
}

/* ---- One pod ---- */

/* Where a pod goes, or why nowhere, and who has to make room. */
struct placement {
    char *node;             /* NULL: none fits */
    char *why;              /* then: FailedScheduling's message */
    char *nominated;        /* and where it will fit when the victims are gone */
    struct th_json *victims; /* array of {apiVersion, kind, metadata} */
};

static void placement_done(struct placement *p)
{
    free(p->node);
    free(p->why);
    free(p->nominated);
    th_json_unref(p->victims);
}

static bool collect_pdb(void *arg, struct th_json *pdb)
{
    th_json_append(arg, th_json_ref(pdb));
    return true;
}

/* Why the pod may not preempt, or NULL. */
static const char *not_eligible(const struct th_scheduler *s, const struct th_sched_ctx *c)
{
    if (th_streq(th_json_path_str(c->pod, "spec.preemptionPolicy"), "Never")) {
        return "not eligible due to preemptionPolicy=Never.";
    }
    const char *nominated = th_json_path_str(c->pod, "status.nominatedNodeName");
    const struct th_node_info *n =
        nominated && *nominated ? th_hmap_get(&s->picture.nodes, nominated) : NULL;
    for (size_t i = 0; n && i < n->n_pods; i++) {
        if (n->pods[i]->deleting && n->pods[i]->priority < c->priority) {
            return "not eligible due to a terminating pod on the nominated node.";
        }
    }
    return NULL;
}

/* Sets what comes after a refusal everywhere; the lock is held. */
static void preempt(struct th_scheduler *s, struct th_sched_ctx *c,
                    const struct th_verdict *verdicts, const struct th_json *pdbs, const char *why,
                    struct placement *ret)
{
    struct th_sched_pod **victims = NULL;
    size_t n = 0;
    th_autofree char *no = NULL;
    const char *barred = not_eligible(s, c);
    const struct th_node_info *node =
        barred ? NULL : th_sched_preempt(c, &s->picture, verdicts, pdbs, &victims, &n, &no);
    if (!node) {
        ret->why = th_xasprintf("%s preemption: %s", why, barred ? barred : no);
        return;
    }
    ret->why = th_xstrdup(why);
    ret->nominated = th_xstrdup(node->name);
    ret->victims = th_json_array();
    for (size_t i = 0; i < n; i++) {
        const struct th_sched_pod *v = victims[i];
        th_json_append(ret->victims,
                       th_json_build("{'apiVersion':'v1','kind':'Pod','metadata':{'namespace':%s,"
                                     "'name':%s,'uid':%s}}",
                                     v->ns, strchr(v->key, '/') + 1, v->uid));
    }
    free(victims);
    th_picture_nominate(&s->picture, c->pod, node->name);
}

/* Looks at all nodes; the lock is held. */
static void place_locked(struct th_scheduler *s, struct th_sched_ctx *c,
                         struct th_node_info **nodes, size_t n, const struct th_json *pdbs,
                         struct th_sched_volumes *volumes, struct placement *ret)
{
    struct th_reasons why TH_CLEANUP(th_reasons_done);
    th_reasons_init(&why);
    th_autofree struct th_verdict *verdicts = th_xcalloc(n + 1, sizeof(*verdicts));
    th_autofree struct th_node_info **fit = th_xcalloc(n + 1, sizeof(*fit));
    size_t n_fit = 0;
    th_sched_prepare(c);
    for (size_t i = 0; i < n; i++) {
        verdicts[i].fit = th_sched_filter_nominated(c, &s->picture, nodes[i], &verdicts[i].why);
        if (verdicts[i].fit == TH_FIT) {
            fit[n_fit++] = nodes[i];
        } else {
            th_reasons_add(&why, verdicts[i].why);
        }
    }
    if (n_fit > 0) {
        const struct th_node_info *best = th_sched_pick(c, fit, n_fit);
        ret->node = th_xstrdup(best->name);
        if (volumes) {
            (void)th_sched_volumes_fit(volumes, best, volumes->chosen, NULL);
        }
        th_picture_put_pod(&s->picture, best->name, c->pod);
    } else if (n == 0) {
        ret->why = th_xstrdup("no nodes available to schedule pods");
    } else {
        th_autofree char *text = th_reasons_text(&why, n);
        s->waits_for_pods = s->waits_for_pods || c->aff || c->any_aff ||
                            th_json_path(c->pod, "spec.topologySpreadConstraints");
        preempt(s, c, verdicts, pdbs, text, ret);
    }
    for (size_t i = 0; i < n; i++) {
        free(verdicts[i].why);
    }
}

static void place(struct th_scheduler *s, const char *key, const struct th_json *pod,
                  struct th_sched_volumes *volumes, struct placement *ret)
{
    struct th_json *pdbs TH_AUTO(th_json) = th_json_array();
    th_informer_each(s->pdbs_informer, NULL, collect_pdb, pdbs);
    pthread_mutex_lock(&s->lock);
    (void)th_picture_drop_pod(&s->picture, key); /* it waited for its volumes */
    th_autofree struct th_node_info **nodes = th_xcalloc(s->picture.nodes.n + 1, sizeof(*nodes));
    size_t n = 0;
    struct th_hmap_entry *e;
    for (size_t it = 0; (e = th_hmap_next(&s->picture.nodes, &it));) {
        nodes[n++] = e->value;
    }
    struct th_sched_ctx c;
    th_sched_ctx_init(&c, &s->picture, pod, nodes, n);
    c.volumes = volumes;
    if (volumes && volumes->refusal && n > 0) {
        ret->why = th_xasprintf("0/%zu nodes are available: %s. preemption: 0/%zu nodes are "
                                "available: %zu Preemption is not helpful for scheduling.",
                                n, volumes->refusal, n, n);
    } else {
        place_locked(s, &c, nodes, n, pdbs, volumes, ret);
    }
    th_sched_ctx_done(&c);
    pthread_mutex_unlock(&s->lock);
}

static const struct th_json *scheduled_condition(const struct th_json *pod)
{
    const struct th_json *conditions = th_json_path(pod, "status.conditions");
    for (size_t i = 0; i < th_json_len(conditions); i++) {
        if (th_streq(th_json_path_str(th_json_at(conditions, i), "type"), "PodScheduled")) {
            return th_json_at(conditions, i);
        }
    }
    return NULL;
}

/* Says in the status why the pod waits, and where room is being made for it. */
static int say_why(struct th_scheduler *s, const struct th_json *pod, const struct placement *p,
                   struct th_err *err)
{
    const struct th_json *old = scheduled_condition(pod);
    const char *before = th_json_path_str(pod, "status.nominatedNodeName");
    bool same_node = th_streq(before ? before : "", p->nominated ? p->nominated : "");
    bool same = th_streq(th_json_path_str(old, "status"), "False");
    if (same && same_node && th_streq(th_json_path_str(old, "message"), p->why)) {
        return 0;
    }
    char now[TH_TIME_LEN];
    const char *since = same ? th_json_path_str(old, "lastTransitionTime") : NULL;
    struct th_json *patch TH_AUTO(th_json) = th_json_build(
        "{'status':{'conditions':[{'type':'PodScheduled','status':'False','reason':'Unschedulable',"
        "'message':%s,'lastProbeTime':%o,'lastTransitionTime':%s}]}}",
        p->why, NULL, since ? since : th_time_format(th_now_ms(), now));
    if (!same_node) {
        th_json_path_set(patch, "status.nominatedNodeName",
                         p->nominated ? th_json_string(p->nominated) : NULL);
    }
    struct th_patch_opts o = {.kind = TH_PATCH_STRATEGIC, .field_manager = "kube-scheduler"};
    return th_client_patch(s->client, TH_GVR_PODS, th_json_path_str(pod, "metadata.namespace"),
                           th_json_path_str(pod, "metadata.name"), "status", &o, patch, NULL, err);
}

/* A victim's condition says why it goes, then it is deleted. */
static int evict(struct th_scheduler *s, const struct th_json *pod, const struct th_json *victim,
                 const char *node, struct th_err *err)
{
    const char *ns = th_json_path_str(victim, "metadata.namespace");
    const char *name = th_json_path_str(victim, "metadata.name");
    char now[TH_TIME_LEN];
    th_autofree char *message =
        th_xasprintf("%s: preempting to accommodate a higher priority pod", s->name);
    struct th_json *patch TH_AUTO(th_json) = th_json_build(
        "{'metadata':{'uid':%s},'status':{'conditions':[{'type':'DisruptionTarget','status':'True',"
        "'reason':'PreemptionByScheduler','message':%s,'lastTransitionTime':%s}]}}",
        th_json_path_str(victim, "metadata.uid"), message, th_time_format(th_now_ms(), now));
    struct th_patch_opts po = {.kind = TH_PATCH_STRATEGIC, .field_manager = "kube-scheduler"};
    struct th_delete_opts o = TH_DELETE_OPTS_INIT;
    o.uid = th_json_path_str(victim, "metadata.uid");
    int r = th_client_patch(s->client, TH_GVR_PODS, ns, name, "status", &po, patch, NULL, err);
    if (r >= 0) {
        r = th_client_delete(s->client, TH_GVR_PODS, ns, name, &o, NULL, err);
    }
    if (r == -TH_R_NOT_FOUND || r == -TH_R_CONFLICT) {
        th_err_done(err);
        return 0;
    }
    if (r >= 0) {
        th_event_record(s->recorder, victim, "Normal", "Preempted",
                        "Preempted by pod %s on node %s", th_json_path_str(pod, "metadata.uid"),
                        node);
    }
    return r;
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
    (void)th_picture_drop_pod(&s->picture, key);
    pthread_mutex_unlock(&s->lock);
    if (err->reason == TH_R_NOT_FOUND) {
        th_schedq_remove(s->queue, key); /* deleted meanwhile */
        return;
    }
    th_event_record(s->recorder, pod, "Warning", "FailedScheduling", "binding rejected: %s",
                    err->msg ? err->msg : "");
    th_schedq_unschedulable(s->queue, key, false);
}

static void volumes_failed(struct th_scheduler *s, const char *key, const struct th_json *pod,
                           const struct th_err *err)
{
    pthread_mutex_lock(&s->lock);
    (void)th_picture_drop_pod(&s->picture, key);
    pthread_mutex_unlock(&s->lock);
    if (err->reason != TH_R_CONFLICT) { /* another pod was quicker, and the caches are behind */
        th_event_record(s->recorder, pod, "Warning", "FailedScheduling",
                        "running PreBind plugin \"VolumeBinding\": %s", err->msg ? err->msg : "");
    }
    th_schedq_unschedulable(s->queue, key, false);
}

static void not_placed(struct th_scheduler *s, const char *key, const struct th_json *pod,
                       const struct placement *p)
{
    struct th_err err TH_CLEANUP(th_err_done) = TH_ERR_INIT;
    th_event_record(s->recorder, pod, "Warning", "FailedScheduling", "%s", p->why);
    int r = say_why(s, pod, p, &err);
    for (size_t i = 0; r >= 0 && i < th_json_len(p->victims); i++) {
        r = evict(s, pod, th_json_at(p->victims, i), p->nominated, &err);
    }
    if (r < 0) {
        th_debug("scheduler", "not written", "pod=%s error=%s", key,
                 th_log_q(err.msg ? err.msg : ""));
    }
    th_schedq_unschedulable(s->queue, key, r >= 0);
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
    struct placement p TH_CLEANUP(placement_done) = {NULL, NULL, NULL, NULL};
    struct th_sched_volumes *volumes TH_AUTO(th_sched_volumes) =
        th_sched_volumes_new(&s->storage, pod);
    place(s, key, pod, volumes, &p);
    if (!p.node) {
        not_placed(s, key, pod, &p);
        return;
    }
    int waits = th_sched_volumes_bind(s->client, volumes, p.node, &err);
    if (waits < 0) {
        volumes_failed(s, key, pod, &err);
        return;
    }
    if (waits > 0) {
        th_schedq_wait(s->queue, key);
        return;
    }
    if (bind_pod(s, pod, p.node, &err) < 0) {
        bind_failed(s, key, pod, &err);
        return;
    }
    th_schedq_remove(s->queue, key);
    th_event_record(s->recorder, pod, "Normal", "Scheduled", "Successfully assigned %s to %s", key,
                    p.node);
    th_debug("scheduler", "bound", "pod=%s node=%s", key, p.node);
}

static void *run(void *arg)
{
    struct th_scheduler *s = arg;
    struct th_informer *const all[] = {s->nodes_informer,   s->namespaces_informer,
                                       s->pods_informer,    s->pdbs_informer,
                                       s->storage.claims,   s->storage.volumes,
                                       s->storage.classes};
    for (size_t i = 0; i < TH_ARRAY_LEN(all); i++) {
        while (!th_informer_wait_synced(all[i], 50)) {
            if (__atomic_load_n(&s->stopping, __ATOMIC_ACQUIRE)) {
                return NULL;
            }
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
    th_picture_init(&s->picture);
    s->queue = th_schedq_new();
    s->recorder = th_recorder_new(client, s->name, "");
    const struct {
        struct th_gvr gvr;
        void (*on_event)(void *arg, const struct th_json *old, const struct th_json *now);
        struct th_informer **slot;
    } caches[] = {{TH_GVR_NODES, on_node, &s->nodes_informer},
                  {TH_GVR_NAMESPACES, on_namespace, &s->namespaces_informer},
                  {TH_GVR_PODS, on_pod, &s->pods_informer},
                  {GVR_PDBS, NULL, &s->pdbs_informer},
                  {GVR_CLAIMS, on_storage, &s->storage.claims},
                  {GVR_VOLUMES, on_storage, &s->storage.volumes},
                  {GVR_CLASSES, on_storage, &s->storage.classes}};
    for (size_t i = 0; i < TH_ARRAY_LEN(caches); i++) {
        struct th_informer_opts io = {
            .gvr = caches[i].gvr, .on_event = caches[i].on_event, .arg = s};
        int r = th_informer_start(client, &io, caches[i].slot, err);
        if (r < 0) {
            th_scheduler_stop(s);
            return r;
        }
    }
    TH_ASSERT(pthread_create(&s->thread, NULL, run, s) == 0);
    s->started = true;
    *ret = s;
    return 0;
}

void th_scheduler_stop(struct th_scheduler *s)
{
    if (!s) {
        return;
    }
    __atomic_store_n(&s->stopping, true, __ATOMIC_RELEASE);
    th_schedq_shutdown(s->queue);
    if (s->started) {
        (void)pthread_join(s->thread, NULL);
    }
    th_informer_stop(s->nodes_informer);
    th_informer_stop(s->namespaces_informer);
    th_informer_stop(s->pods_informer);
    th_informer_stop(s->pdbs_informer);
    th_informer_stop(s->storage.claims);
    th_informer_stop(s->storage.volumes);
    th_informer_stop(s->storage.classes);
    th_recorder_free(s->recorder);
    th_schedq_free(s->queue);
    th_picture_done(&s->picture);
    pthread_mutex_destroy(&s->lock);
    free(s->name);
    free(s);
}
