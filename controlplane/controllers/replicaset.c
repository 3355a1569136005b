/*
 * ReplicaSet: keeps as many active pods as it asks for.
 *
 * Pods belong to a set by their controlling owner reference. A pod without one that matches the
 * selector is adopted, one that no longer matches is released. Missing pods are created in batches
 * that double as long as they succeed (a quota that is exhausted costs one failed request, not
 * hundreds); surplus ones are deleted in upstream's order: what costs the service least first.
 * Pods that were created are awaited in the cache (th_ctrl_expect), so none is created twice.
 *
 * Pods without an owner are remembered by key as their events come, so that a reconcile does not
 * have to look at every pod of the namespace.
 */
#include "controlplane/controllers/controller.h"
#include "controlplane/controllers/podutil.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/hmap.h"
#include "controlplane/schema/selector.h"
#include <inttypes.h>
#include <pthread.h>

#define BURST 500 /* pods created or deleted in one go, as upstream */

struct state {
    pthread_mutex_t lock;
    struct th_hmap orphans; /* lock; keys of pods without a controller */
};

static void *state_new(struct th_ctrl *c)
{
    (void)c;
    struct state *s = TH_NEW(struct state);
    pthread_mutex_init(&s->lock, NULL);
    th_hmap_init(&s->orphans, NULL);
    return s;
}

static void state_free(void *p)
{
    struct state *s = p;
    th_hmap_done(&s->orphans);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

/* ---- Events ---- */

struct match {
    struct th_ctrl *c;
    const struct th_json *labels;
};

static bool enqueue_if_matches(void *arg, struct th_json *rs)
{
    struct match *m = arg;
    struct th_selector *sel TH_AUTO(th_selector) = NULL;
    if (th_selector_from_json(th_json_path(rs, "spec.selector"), &sel, NULL) == 0 &&
        !th_selector_empty(sel) && th_selector_matches(sel, m->labels)) {
        th_ctrl_enqueue_obj(m->c, rs);
    }
    return true;
}

static void on_pod(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    struct state *s = th_ctrl_state(c);
    th_autofree char *key = th_ctrl_key(now ? now : old);
    bool orphan =
        now && !th_controller_of(now) && !th_json_path_str(now, "metadata.deletionTimestamp");
    pthread_mutex_lock(&s->lock);
    if (orphan) {
        th_hmap_set(&s->orphans, key, NULL);
    } else {
        (void)th_hmap_remove(&s->orphans, key);
    }
    pthread_mutex_unlock(&s->lock);
    th_ctrl_enqueue_owner(c, old, now, "ReplicaSet");
    if (orphan) {
        struct match m = {c, th_json_path(now, "metadata.labels")};
        th_informer_each(th_ctrl_informer(c, TH_GVR_REPLICASETS),
                         th_json_path_str(now, "metadata.namespace"), enqueue_if_matches, &m);
    }
}

/* ---- Which pods are ours ---- */

struct pods {
    struct th_json **v; /* references */
    size_t n, cap;
};

static void pods_done(struct pods *p)
{
    for (size_t i = 0; i < p->n; i++) {
        th_json_unref(p->v[i]);
    }
    free(p->v);
    *p = (struct pods){NULL, 0, 0};
}

static bool collect(void *arg, struct th_json *pod)
{
    struct pods *p = arg;
    p->v = th_xgrow(p->v, &p->cap, p->n + 1, sizeof(*p->v));
    p->v[p->n++] = th_json_ref(pod);
    return true;
}

static int patch_owner(struct th_ctrl *c, const struct th_json *pod, struct th_json *patch,
                       struct th_json **ret, struct th_err *err)
{
    struct th_json *taken TH_AUTO(th_json) = patch;
    struct th_patch_opts o = {.kind = TH_PATCH_STRATEGIC,
                              .field_manager = "kube-controller-manager"};
    return th_client_patch(th_ctrl_client(c), TH_GVR_PODS,
                           th_json_path_str(pod, "metadata.namespace"),
                           th_json_path_str(pod, "metadata.name"), "", &o, taken, ret, err);
}

static int adopt_orphans(struct th_ctrl *c, const struct th_json *rs, const char *ns,
                         const struct th_selector *sel, struct pods *ret, struct th_err *err)
{
    struct state *s = th_ctrl_state(c);
    struct th_strv keys TH_CLEANUP(th_strv_done) = TH_STRV_INIT;
    th_autofree char *prefix = th_xasprintf("%s/", ns);
    pthread_mutex_lock(&s->lock);
    struct th_hmap_entry *e;
    for (size_t it = 0; (e = th_hmap_next(&s->orphans, &it));) {
        if (th_startswith(e->key, prefix)) {
            th_strv_add(&keys, e->key);
        }
    }
    pthread_mutex_unlock(&s->lock);
    for (size_t i = 0; i < keys.n; i++) {
        struct th_json *pod TH_AUTO(th_json) =
            th_informer_get(th_ctrl_informer(c, TH_GVR_PODS), ns, keys.v[i] + strlen(prefix));
        if (!pod || th_controller_of(pod) || !th_pod_is_active(pod) ||
            !th_selector_matches(sel, th_json_path(pod, "metadata.labels"))) {
            continue;
        }
        struct th_json *now TH_AUTO(th_json) = NULL;
        struct th_json *refs = th_json_array();
        th_json_append(refs, th_owner_ref_build(rs, true, true));
        int r = patch_owner(c, pod,
                            th_json_build("{'metadata':{'ownerReferences':%o,'uid':%s}}", refs,
                                          th_json_path_str(pod, "metadata.uid")),
                            &now, err);
        if (r == -TH_R_NOT_FOUND || r == -TH_R_INVALID || r == -TH_R_CONFLICT) {
            th_err_done(err); /* it is gone, or another owner was faster */
            continue;
        }
        TH_TRY(r);
        (void)collect(ret, now);
    }
    return 0;
}

static int release(struct th_ctrl *c, const struct th_json *rs, const struct th_json *pod,
                   struct th_err *err)
{
    struct th_json *patch =
        th_json_build("{'metadata':{'ownerReferences':[{'$patch':'delete','uid':%s}],'uid':%s}}",
                      th_json_path_str(rs, "metadata.uid"), th_json_path_str(pod, "metadata.uid"));
    int r = patch_owner(c, pod, patch, NULL, err);
    if (r == -TH_R_NOT_FOUND || r == -TH_R_INVALID || r == -TH_R_CONFLICT) {
        th_err_done(err);
        r = 0;
    }
    return r;
}

/* Active pods of the set, adopted ones included. */
static int claim(struct th_ctrl *c, const struct th_json *rs, const struct th_selector *sel,
                 struct pods *ret, struct th_err *err)
{
    struct pods owned TH_CLEANUP(pods_done) = {NULL, 0, 0};
    bool deleting = th_json_path_str(rs, "metadata.deletionTimestamp") != NULL;
    th_informer_by_owner(th_ctrl_informer(c, TH_GVR_PODS), th_json_path_str(rs, "metadata.uid"),
                         collect, &owned);
    for (size_t i = 0; i < owned.n; i++) {
        struct th_json *pod = owned.v[i];
        if (!th_pod_is_active(pod)) {
            continue;
        }
        if (th_selector_matches(sel, th_json_path(pod, "metadata.labels"))) {
            (void)collect(ret, pod);
        } else if (!deleting) {
            TH_TRY(release(c, rs, pod, err));
        }
    }
    return deleting
               ? 0
               : adopt_orphans(c, rs, th_json_path_str(rs, "metadata.namespace"), sel, ret, err);
}

/* ---- Creating and deleting ---- */

static int create_one(struct th_ctrl *c, const struct th_json *rs, const char *key,
                      const struct th_json *pod, struct th_err *err)
{
    struct th_json *made TH_AUTO(th_json) = NULL;
    int r = th_client_create(th_ctrl_client(c), TH_GVR_PODS,
                             th_json_path_str(rs, "metadata.namespace"), pod, &made, err);
    if (r < 0) {
        bool terminating = r == -TH_R_FORBIDDEN && err->msg && strstr(err->msg, "being terminated");
        if (!terminating) {
            th_event_record(th_ctrl_recorder(c), rs, "Warning", "FailedCreate",
                            "Error creating: %s", err->msg);
        }
        return r;
    }
    th_ctrl_expect(c, key, TH_GVR_PODS, made);
    th_event_record(th_ctrl_recorder(c), rs, "Normal", "SuccessfulCreate", "Created pod: %s",
                    th_json_path_str(made, "metadata.name"));
    return 0;
}

static int create_missing(struct th_ctrl *c, const struct th_json *rs, const char *key,
                          int64_t missing, struct th_err *err)
{
    struct th_json *pod TH_AUTO(th_json) =
        th_pod_from_template(th_json_path(rs, "spec.template"), rs);
    missing = missing > BURST ? BURST : missing;
    for (int64_t batch = 1; missing > 0; batch *= 2) {
        for (int64_t i = 0; i < batch && missing > 0; i++, missing--) {
            TH_TRY(create_one(c, rs, key, pod, err));
        }
    }
    return 0;
}

struct ranked {
    struct th_json *pod;
    int64_t cost, same_node, restarts, ready_ms, created_ms;
    int phase;
    bool assigned, ready;
};

static int64_t restarts_of(const struct th_json *pod)
{
    const struct th_json *list = th_json_path(pod, "status.containerStatuses");
    int64_t most = 0;
    for (size_t i = 0; i < th_json_len(list); i++) {
        int64_t n = th_json_path_int(th_json_at(list, i), "restartCount", 0);
        most = n > most ? n : most;
    }
    return most;
}

static int phase_rank(const struct th_json *pod)
{
    const char *phase = th_json_path_str(pod, "status.phase");
    return th_streq(phase, "Running") ? 2 : th_streq(phase, "Unknown") ? 1 : 0;
}

static int by_number(int64_t a, int64_t b)
{
    return a < b ? -1 : a > b;
}

/* Upstream's ActivePodsWithRanks: first what is deleted first. */
static int compare_ranked(const void *pa, const void *pb)
{
    const struct ranked *a = pa, *b = pb;
    int d;
    if (a->assigned != b->assigned) {
        return a->assigned ? 1 : -1;
    }
    if ((d = by_number(a->phase, b->phase)) != 0) {
        return d;
    }
    if (a->ready != b->ready) {
        return a->ready ? 1 : -1;
    }
    if ((d = by_number(a->cost, b->cost)) != 0) {
        return d;
    }
    if ((d = by_number(b->same_node, a->same_node)) != 0) {
        return d;
    }
    if (a->ready && (d = by_number(b->ready_ms, a->ready_ms)) != 0) {
        return d;
    }
    if ((d = by_number(b->restarts, a->restarts)) != 0) {
        return d;
    }
    if ((d = by_number(b->created_ms, a->created_ms)) != 0) {
        return d;
    }
    return strcmp(th_json_path_str(a->pod, "metadata.name"),
                  th_json_path_str(b->pod, "metadata.name"));
}

static struct ranked *rank(const struct pods *pods)
{
    struct ranked *v = th_xcalloc(pods->n + 1, sizeof(*v));
    for (size_t i = 0; i < pods->n; i++) {
        struct th_json *pod = pods->v[i];
        const char *node = th_json_path_str(pod, "spec.nodeName");
        const struct th_json *annotations = th_json_path(pod, "metadata.annotations");
        const char *cost =
            th_json_str(th_json_get(annotations, "controller.kubernetes.io/pod-deletion-cost"));
        v[i] = (struct ranked){
            .pod = pod,
            .assigned = node && *node,
            .phase = phase_rank(pod),
            .ready = th_pod_is_ready(pod),
            .cost = cost ? strtoll(cost, NULL, 10) : 0,
            .restarts = restarts_of(pod),
            .ready_ms = th_obj_time_ms(th_cond_get(pod, "Ready"), "lastTransitionTime"),
            .created_ms = th_obj_time_ms(pod, "metadata.creationTimestamp"),
        };
        for (size_t k = 0; node && k < pods->n; k++) {
            v[i].same_node += th_streq(node, th_json_path_str(pods->v[k], "spec.nodeName"));
        }
    }
    qsort(v, pods->n, sizeof(*v), compare_ranked);
    return v;
}

static int delete_surplus(struct th_ctrl *c, const struct th_json *rs, const struct pods *pods,
                          int64_t surplus, struct th_err *err)
{
    th_autofree struct ranked *order = rank(pods);
    for (int64_t i = 0; i < surplus && i < BURST; i++) {
        const struct th_json *pod = order[i].pod;
        const char *name = th_json_path_str(pod, "metadata.name");
        struct th_delete_opts o = TH_DELETE_OPTS_INIT;
        o.uid = th_json_path_str(pod, "metadata.uid");
        int r = th_client_delete(th_ctrl_client(c), TH_GVR_PODS,
                                 th_json_path_str(pod, "metadata.namespace"), name, &o, NULL, err);
        if (r == -TH_R_NOT_FOUND || r == -TH_R_CONFLICT) {
            th_err_done(err);
            continue;
        }
        if (r < 0) {
            th_event_record(th_ctrl_recorder(c), rs, "Warning", "FailedDelete",
                            "Error deleting: %s", err->msg);
            return r;
        }
        th_event_record(th_ctrl_recorder(c), rs, "Normal", "SuccessfulDelete", "Deleted pod: %s",
                        name);
    }
    return 0;
}

/* ---- Status ---- */

static bool has_all_labels(const struct th_json *pod, const struct th_json *wanted)
{
    const struct th_json *labels = th_json_path(pod, "metadata.labels");
    struct th_json_iter it = TH_JSON_ITER(wanted);
    while (th_json_next(&it)) {
        if (!th_streq(th_json_str(th_json_get(labels, it.name)), th_json_str(it.value))) {
            return false;
        }
    }
    return true;
}

static struct th_json *make_status(const struct th_json *rs, const struct pods *pods, int64_t diff,
                                   int failed, const struct th_err *why, int64_t *ret_wait_ms)
{
    struct th_json *status =
        th_json_path(rs, "status") ? th_json_dup(th_json_path(rs, "status")) : th_json_object();
    int64_t labeled = 0, ready = 0, available = 0;
    int64_t min_ready = th_json_path_int(rs, "spec.minReadySeconds", 0);
    for (size_t i = 0; i < pods->n; i++) {
        int64_t wait = 0;
        labeled += has_all_labels(pods->v[i], th_json_path(rs, "spec.template.metadata.labels"));
        ready += th_pod_is_ready(pods->v[i]);
        available += th_pod_is_available(pods->v[i], min_ready, &wait);
        if (wait > 0 && (*ret_wait_ms == 0 || wait < *ret_wait_ms)) {
            *ret_wait_ms = wait;
        }
    }
    const struct {
        const char *name;
        int64_t value;
    } counts[] = {{"replicas", (int64_t)pods->n},
                  {"fullyLabeledReplicas", labeled},
                  {"readyReplicas", ready},
                  {"availableReplicas", available}};
    for (size_t i = 0; i < TH_ARRAY_LEN(counts); i++) {
        if (counts[i].value || i == 0) {
            th_json_set_int(status, counts[i].name, counts[i].value);
        } else {
            (void)th_json_del(status, counts[i].name);
        }
    }
    th_json_set_int(status, "observedGeneration", th_json_path_int(rs, "metadata.generation", 0));
    struct th_json *conditions = th_json_path_array(status, "conditions");
    if (failed) {
        (void)th_cond_set(conditions, "ReplicaFailure", "True",
                          diff < 0 ? "FailedCreate" : "FailedDelete", why->msg, false);
    } else {
        (void)th_cond_remove(conditions, "ReplicaFailure");
    }
    if (th_json_len(conditions) == 0) {
        (void)th_json_del(status, "conditions");
    }
    return status;
}

static int write_status(struct th_ctrl *c, const char *key, const struct th_json *rs,
                        struct th_json *status, struct th_err *err)
{
    struct th_json *taken TH_AUTO(th_json) = status;
    if (th_json_equal(th_json_path(rs, "status"), taken)) {
        return 0;
    }
    struct th_json *copy TH_AUTO(th_json) = th_json_dup(rs);
    struct th_json *now TH_AUTO(th_json) = NULL;
    th_json_set(copy, "status", th_json_ref(taken));
    int r = th_client_update(th_ctrl_client(c), TH_GVR_REPLICASETS,
                             th_json_path_str(rs, "metadata.namespace"),
                             th_json_path_str(rs, "metadata.name"), "status", copy, &now, err);
    if (r == -TH_R_NOT_FOUND) {
        th_err_done(err);
        return 0;
    }
    TH_TRY(r);
    (void)key;
    return 0;
}

static int reconcile(struct th_ctrl *c, const char *key, int64_t *ret_after_ms, struct th_err *err)
{
    const char *name = NULL;
    th_autofree char *ns = th_ctrl_key_split(key, &name);
    struct th_json *rs TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, TH_GVR_REPLICASETS), ns, name);
    if (!rs) {
        return 0;
    }
    struct th_selector *sel TH_AUTO(th_selector) = NULL;
    TH_TRY(th_selector_from_json(th_json_path(rs, "spec.selector"), &sel, err));
    struct pods pods TH_CLEANUP(pods_done) = {NULL, 0, 0};
    TH_TRY(claim(c, rs, sel, &pods, err));
    int64_t diff = (int64_t)pods.n - th_json_path_int(rs, "spec.replicas", 1);
    int failed = 0;
    struct th_err why TH_CLEANUP(th_err_done) = TH_ERR_INIT;
    if (!th_json_path_str(rs, "metadata.deletionTimestamp")) {
        failed = diff < 0   ? create_missing(c, rs, key, -diff, &why)
                 : diff > 0 ? delete_surplus(c, rs, &pods, diff, &why)
                            : 0;
    }
    struct th_json *status = make_status(rs, &pods, diff, failed, &why, ret_after_ms);
    int r = write_status(c, key, rs, status, err);
    if (failed < 0) {
        th_err_move(err, &why);
        return failed;
    }
    return r;
}

static const struct th_ctrl_watch watches[] = {
    {.gvr = {"apps", "v1", "replicasets"}, .on_event = th_ctrl_on_self},
    {.gvr = {"", "v1", "pods"}, .on_event = on_pod},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_replicaset = {
    .name = "replicaset-controller",
    .watches = watches,
    .reconcile = reconcile,
    .state_new = state_new,
    .state_free = state_free,
};
