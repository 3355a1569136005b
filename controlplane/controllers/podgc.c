/*
 * Pod garbage: pods that nobody else will take away.
 *
 *   - on a node that is gone for ORPHAN_MS (asked for afresh before anything is done): marked Failed
 *     with the condition DisruptionTarget, then deleted;
 *   - being deleted on a node that is not ready and has the taint out-of-service: the same;
 *   - being deleted without ever having had a node: deleted;
 *   - ended ones beyond the threshold: the oldest are deleted (evicted ones first).
 *
 * One pass over all pods every PERIOD_MS, as k8s.io/kubernetes pkg/controller/podgc.
 */
#include "controlplane/controllers/controller.h"
#include "controlplane/controllers/podutil.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/hmap.h"
#include <pthread.h>

#define PERIOD_MS 20000
#define ORPHAN_MS 40000
#define THRESHOLD 12500
#define OUT_OF_SERVICE "node.kubernetes.io/out-of-service"

/* Only the one worker that has the key "" touches it. */
struct state {
    struct th_hmap gone; /* node name -> when it was first missed, monotonic, as a number */
};

static void *state_new(struct th_ctrl *c)
{
    (void)c;
    struct state *s = TH_NEW(struct state);
    th_hmap_init(&s->gone, free);
    return s;
}

static void state_free(void *p)
{
    struct state *s = p;
    th_hmap_done(&s->gone);
    free(s);
}

struct ended {
    struct th_json *pod;
    int64_t created_ms;
    bool evicted;
};

struct pass {
    struct th_ctrl *c;
    struct th_hmap nodes; /* name -> "" or "out" (out of service and not ready) */
    struct th_hmap missing;
    struct th_json *remove, *fail, *lost; /* arrays of pods */
    struct ended *ended;
    size_t n_ended, cap_ended;
};

static bool note_node(void *arg, struct th_json *node)
{
    struct pass *p = arg;
    bool out = false;
    const struct th_json *taints = th_json_path(node, "spec.taints");
    for (size_t i = 0; i < th_json_len(taints); i++) {
        out = out || th_streq(th_json_path_str(th_json_at(taints, i), "key"), OUT_OF_SERVICE);
    }
    out = out && !th_cond_is_true(node, "Ready");
    th_hmap_set(&p->nodes, th_json_path_str(node, "metadata.name"), out ? p : NULL);
    return true;
}

static bool has_ended(const struct th_json *pod)
{
    const char *phase = th_json_path_str(pod, "status.phase");
    return th_streq(phase, "Succeeded") || th_streq(phase, "Failed");
}

static bool note_pod(void *arg, struct th_json *pod)
{
    struct pass *p = arg;
    const char *node = th_json_path_str(pod, "spec.nodeName");
    bool deleting = th_json_path_str(pod, "metadata.deletionTimestamp") != NULL;
    if (!node || !*node) {
        if (deleting) {
            th_json_append(p->remove, th_json_ref(pod));
        }
    } else if (!th_hmap_has(&p->nodes, node)) {
        th_hmap_set(&p->missing, node, NULL);
        th_json_append(p->lost, th_json_ref(pod));
    } else if (deleting && th_hmap_get(&p->nodes, node)) {
        th_json_append(p->fail, th_json_ref(pod));
    }
    if (has_ended(pod) && !deleting) {
        p->ended = th_xgrow(p->ended, &p->cap_ended, p->n_ended + 1, sizeof(*p->ended));
        p->ended[p->n_ended++] = (struct ended){
            th_json_ref(pod), th_obj_time_ms(pod, "metadata.creationTimestamp"),
            th_streq(th_json_path_str(pod, "status.reason"), "Evicted")};
    }
    return true;
}

static int evicted_and_old_first(const void *pa, const void *pb)
{
    const struct ended *a = pa, *b = pb;
    if (a->evicted != b->evicted) {
        return a->evicted ? -1 : 1;
    }
    if (a->created_ms != b->created_ms) {
        return a->created_ms < b->created_ms ? -1 : 1;
    }
    return strcmp(th_json_path_str(a->pod, "metadata.name"),
                  th_json_path_str(b->pod, "metadata.name"));
}

/* A pod that has not ended is Failed before it goes; message NULL: without a condition. */
static int mark_failed(struct th_ctrl *c, const struct th_json *pod, const char *message,
                       struct th_err *err)
{
    if (has_ended(pod)) {
        return 0;
    }
    struct th_json *patch TH_AUTO(th_json) = th_json_build(
        "{'metadata':{'uid':%s},'status':{'phase':'Failed'}}", th_json_path_str(pod, "metadata.uid"));
    if (message) {
        (void)th_cond_put(th_json_path_array(patch, "status.conditions"), "DisruptionTarget",
                          "True", "DeletionByPodGC", message);
    }
    struct th_patch_opts o = {.kind = TH_PATCH_STRATEGIC,
                              .field_manager = "kube-controller-manager"};
    return th_client_patch(th_ctrl_client(c), TH_GVR_PODS,
                           th_json_path_str(pod, "metadata.namespace"),
                           th_json_path_str(pod, "metadata.name"), "status", &o, patch, NULL, err);
}

static int fail_and_remove(struct th_ctrl *c, const struct th_json *pod, const char *message,
                           struct th_err *err)
{
    const char *ns = th_json_path_str(pod, "metadata.namespace");
    const char *name = th_json_path_str(pod, "metadata.name");
    struct th_delete_opts o = TH_DELETE_OPTS_INIT;
    o.grace_s = 0;
    o.uid = th_json_path_str(pod, "metadata.uid");
    int r = mark_failed(c, pod, message, err);
    if (r >= 0) {
        r = th_client_delete(th_ctrl_client(c), TH_GVR_PODS, ns, name, &o, NULL, err);
    }
    if (r == -TH_R_NOT_FOUND || r == -TH_R_CONFLICT || r == -TH_R_INVALID) {
        th_err_done(err);
        r = 0;
    }
    return r < 0 ? r : 0;
}

/* Whether the node has been missing long enough and is not there in truth. */
static int really_gone(struct th_ctrl *c, struct state *s, const char *node, struct th_err *err)
{
    const int64_t *since = th_hmap_get(&s->gone, node);
    if (!since || th_mono_ms() - *since < ORPHAN_MS) {
        return 0;
    }
    int r = th_client_get(th_ctrl_client(c), TH_GVR_NODES, NULL, node, NULL, err);
    if (r == -TH_R_NOT_FOUND) {
        th_err_done(err);
        return 1;
    }
    return r < 0 ? r : 0;
}

/* Begins to count for nodes that are missed now, forgets those that came back. */
static void note_missing(struct state *s, const struct pass *p)
{
    struct th_strv back TH_CLEANUP(th_strv_done) = TH_STRV_INIT;
    struct th_hmap_entry *e;
    for (size_t it = 0; (e = th_hmap_next(&s->gone, &it));) {
        if (!th_hmap_has(&p->missing, e->key)) {
            th_strv_add(&back, e->key);
        }
    }
    for (size_t i = 0; i < back.n; i++) {
        free(th_hmap_remove(&s->gone, back.v[i]));
    }
    for (size_t it = 0; (e = th_hmap_next(&p->missing, &it));) {
        if (!th_hmap_has(&s->gone, e->key)) {
            int64_t *now = TH_NEW(int64_t);
            *now = th_mono_ms();
            th_hmap_set(&s->gone, e->key, now);
        }
    }
}

static int act(struct th_ctrl *c, struct state *s, struct pass *p, struct th_err *err)
{
    for (size_t i = 0; i < th_json_len(p->remove); i++) {
        TH_TRY(fail_and_remove(c, th_json_at(p->remove, i), NULL, err));
    }
    for (size_t i = 0; i < th_json_len(p->fail); i++) {
        TH_TRY(fail_and_remove(c, th_json_at(p->fail, i), "PodGC: node is out of service", err));
    }
    for (size_t i = 0; i < th_json_len(p->lost); i++) {
        const struct th_json *pod = th_json_at(p->lost, i);
        int r = really_gone(c, s, th_json_path_str(pod, "spec.nodeName"), err);
        TH_TRY(r);
        if (r > 0) {
            TH_TRY(fail_and_remove(c, pod, "PodGC: node no longer exists", err));
        }
    }
    int64_t threshold = th_ctrl_opts(c)->terminated_pod_gc_threshold;
    size_t keep = (size_t)(threshold > 0 ? threshold : THRESHOLD);
    if (p->n_ended > keep) {
        qsort(p->ended, p->n_ended, sizeof(*p->ended), evicted_and_old_first);
        for (size_t i = 0; i < p->n_ended - keep; i++) {
            TH_TRY(fail_and_remove(c, p->ended[i].pod, NULL, err));
        }
    }
    return 0;
}

static int reconcile(struct th_ctrl *c, const char *key, int64_t *ret_after_ms, struct th_err *err)
{
    (void)key;
    (void)ret_after_ms;
    struct state *s = th_ctrl_state(c);
    struct pass p = {.c = c,
                     .remove = th_json_array(),
                     .fail = th_json_array(),
                     .lost = th_json_array()};
    th_hmap_init(&p.nodes, NULL);
    th_hmap_init(&p.missing, NULL);
    th_informer_each(th_ctrl_informer(c, TH_GVR_NODES), NULL, note_node, &p);
    th_informer_each(th_ctrl_informer(c, TH_GVR_PODS), NULL, note_pod, &p);
    note_missing(s, &p);
    int r = act(c, s, &p, err);
    for (size_t i = 0; i < p.n_ended; i++) {
        th_json_unref(p.ended[i].pod);
    }
    free(p.ended);
    th_json_unref(p.remove);
    th_json_unref(p.fail);
    th_json_unref(p.lost);
    th_hmap_done(&p.nodes);
    th_hmap_done(&p.missing);
    return r;
}

static const struct th_ctrl_watch watches[] = {
    {.gvr = {"", "v1", "nodes"}},
    {.gvr = {"", "v1", "pods"}},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_podgc = {
    .name = "pod-garbage-collector-controller",
    .account = "pod-garbage-collector",
    .watches = watches,
    .reconcile = reconcile,
    .tick_ms = PERIOD_MS,
    .state_new = state_new,
    .state_free = state_free,
};
