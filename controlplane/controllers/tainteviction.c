/*
 * Taint eviction: pods leave nodes that have NoExecute taints which they do not tolerate, at once or
 * when their tolerationSeconds are over.
 *
 * The key is a pod. When its eviction began to be due is remembered (per pod, from when this process
 * saw it), so that a later look does not start the count again; it is forgotten when the pod need
 * not go any more. Which nodes have such taints is kept from the nodes' events, so that events of
 * pods elsewhere cost nothing. Rules as k8s.io/kubernetes pkg/controller/tainteviction.
 */
#include "controlplane/controllers/controller.h"
#include "controlplane/controllers/podutil.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/hmap.h"
#include "controlplane/schema/toleration.h"
#include <pthread.h>

struct due {
    char *uid;
    int64_t since_ms; /* monotonic */
};

struct state {
    pthread_mutex_t lock;
    struct th_hmap tainted; /* lock; names of nodes with NoExecute taints */
    struct th_hmap due;     /* lock; pod key -> struct due */
};

static void due_free(void *p)
{
    struct due *d = p;
    if (d) {
        free(d->uid);
        free(d);
    }
}

static void *state_new(struct th_ctrl *c)
{
    (void)c;
    struct state *s = TH_NEW(struct state);
    pthread_mutex_init(&s->lock, NULL);
    th_hmap_init(&s->tainted, NULL);
    th_hmap_init(&s->due, due_free);
    return s;
}

static void state_free(void *p)
{
    struct state *s = p;
    th_hmap_done(&s->tainted);
    th_hmap_done(&s->due);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

/* ---- Events ---- */

static struct th_json *execute_taints(const struct th_json *node)
{
    struct th_json *out = th_json_array();
    const struct th_json *taints = th_json_path(node, "spec.taints");
    for (size_t i = 0; i < th_json_len(taints); i++) {
        if (th_streq(th_json_path_str(th_json_at(taints, i), "effect"), "NoExecute")) {
            th_json_append(out, th_json_dup(th_json_at(taints, i)));
        }
    }
    return out;
}

struct on_node_arg {
    struct th_ctrl *c;
    const char *node;
};

static bool enqueue_if_there(void *arg, struct th_json *pod)
{
    struct on_node_arg *a = arg;
    if (th_streq(th_json_path_str(pod, "spec.nodeName"), a->node)) {
        th_ctrl_enqueue_obj(a->c, pod);
    }
    return true;
}

static void on_node(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    struct state *s = th_ctrl_state(c);
    struct th_json *before TH_AUTO(th_json) = execute_taints(old);
    struct th_json *after TH_AUTO(th_json) = execute_taints(now);
    const char *name = th_json_path_str(now ? now : old, "metadata.name");
    pthread_mutex_lock(&s->lock);
    if (th_json_len(after)) {
        th_hmap_set(&s->tainted, name, NULL);
    } else {
        (void)th_hmap_remove(&s->tainted, name);
    }
    pthread_mutex_unlock(&s->lock);
    if (!th_json_equal(before, after)) {
        struct on_node_arg a = {c, name};
        th_informer_each(th_ctrl_informer(c, TH_GVR_PODS), NULL, enqueue_if_there, &a);
    }
}

static void on_pod(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    struct state *s = th_ctrl_state(c);
    const struct th_json *obj = now ? now : old;
    const char *node = th_json_path_str(obj, "spec.nodeName");
    th_autofree char *key = th_ctrl_key(obj);
    pthread_mutex_lock(&s->lock);
    bool concerned = (node && th_hmap_has(&s->tainted, node)) || th_hmap_has(&s->due, key);
    pthread_mutex_unlock(&s->lock);
    if (concerned) {
        th_ctrl_enqueue(c, key);
    }
}

/* ---- One pod ---- */

/* Since when it has been due; from now when it was not. */
static int64_t due_since(struct state *s, const char *key, const char *uid)
{
    pthread_mutex_lock(&s->lock);
    struct due *d = th_hmap_get(&s->due, key);
    if (!d || !th_streq(d->uid, uid)) {
        d = TH_NEW(struct due);
        d->uid = th_xstrdup(uid);
        d->since_ms = th_mono_ms();
        th_hmap_set(&s->due, key, d);
    }
    int64_t since = d->since_ms;
    pthread_mutex_unlock(&s->lock);
    return since;
}

static bool forget(struct state *s, const char *key)
{
    pthread_mutex_lock(&s->lock);
    struct due *d = th_hmap_remove(&s->due, key);
    pthread_mutex_unlock(&s->lock);
    due_free(d);
    return d != NULL;
}

static int say_why(void *arg, struct th_json *pod, struct th_err *err)
{
    (void)err;
    if (!th_streq(th_json_path_str(pod, "metadata.uid"), arg)) {
        return 0;
    }
    return th_cond_put(th_json_path_array(pod, "status.conditions"), "DisruptionTarget", "True",
                       "DeletionByTaintManager",
                       "Taint manager: deleting due to NoExecute taint");
}

static int evict(struct th_ctrl *c, const char *key, const struct th_json *pod, struct th_err *err)
{
    th_event_record(th_ctrl_recorder(c), pod, "Normal", "TaintManagerEviction",
                    "Marking for deletion Pod %s", key);
    int r = th_client_modify(th_ctrl_client(c), TH_GVR_PODS,
                             th_json_path_str(pod, "metadata.namespace"),
                             th_json_path_str(pod, "metadata.name"), "status", say_why,
                             (void *)(uintptr_t)th_json_path_str(pod, "metadata.uid"), NULL, err);
    if (r == -TH_R_NOT_FOUND) {
        th_err_done(err);
        return 0;
    }
    TH_TRY(r);
    return th_ctrl_delete(c, key, TH_GVR_PODS, pod, NULL, err);
}

static int reconcile(struct th_ctrl *c, const char *key, int64_t *ret_after_ms, struct th_err *err)
{
    struct state *s = th_ctrl_state(c);
    const char *name = NULL;
    th_autofree char *ns = th_ctrl_key_split(key, &name);
    struct th_json *pod TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, TH_GVR_PODS), ns, name);
    const char *node_name = th_json_path_str(pod, "spec.nodeName");
    if (!pod || !node_name || !*node_name || th_json_path_str(pod, "metadata.deletionTimestamp")) {
        (void)forget(s, key);
        return 0;
    }
    struct th_json *node TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, TH_GVR_NODES), NULL, node_name);
    struct th_json *taints TH_AUTO(th_json) = execute_taints(node);
    int64_t seconds = -1;
    bool tolerated =
        th_tolerates_execution(th_json_path(pod, "spec.tolerations"), taints, &seconds);
    if (tolerated && seconds < 0) {
        if (forget(s, key)) {
            th_event_record(th_ctrl_recorder(c), pod, "Normal", "TaintManagerEviction",
                            "Cancelling deletion of Pod %s", key);
        }
        return 0;
    }
    int64_t left = 0;
    if (tolerated) {
        left = due_since(s, key, th_json_path_str(pod, "metadata.uid")) + seconds * 1000 -
               th_mono_ms();
    }
    if (left > 0) {
        *ret_after_ms = left;
        return 0;
    }
    TH_TRY(evict(c, key, pod, err));
    (void)forget(s, key);
    return 0;
}

static const struct th_ctrl_watch watches[] = {
    {.gvr = {"", "v1", "nodes"}, .on_event = on_node},
    {.gvr = {"", "v1", "pods"}, .on_event = on_pod},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_tainteviction = {
    .name = "taint-eviction-controller",
    .account = "node-controller",
    .watches = watches,
    .reconcile = reconcile,
    .state_new = state_new,
    .state_free = state_free,
};
