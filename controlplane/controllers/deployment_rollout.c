/*
 * Moving replicas from the old ReplicaSets to the new one: rolling update within maxSurge and
 * maxUnavailable, Recreate, proportional scaling while a rollout is under way, and the clean-up of
 * old revisions. Arithmetic as k8s.io/kubernetes
 * pkg/controller/deployment/{rolling,recreate,sync}.go.
 */
#include "controlplane/controllers/deployment_priv.h"
#include "base/buf.h"
#include <inttypes.h>

static int64_t replicas_of(const struct th_json *rs)
{
    return th_json_path_int(rs, "spec.replicas", 0);
}

static int older_first(const void *a, const void *b)
{
    struct th_json *const *x = a, *const *y = b;
    int64_t tx = th_obj_time_ms(*x, "metadata.creationTimestamp");
    int64_t ty = th_obj_time_ms(*y, "metadata.creationTimestamp");
    return tx < ty ? -1 : tx > ty;
}

/* ---- Rolling update ---- */

static int reconcile_new(struct th_deploy *x, struct th_err *err)
{
    int64_t wanted = th_json_path_int(x->d, "spec.replicas", 1);
    int64_t own = replicas_of(x->new_rs);
    if (own == wanted) {
        return 0;
    }
    return th_deploy_scale_rs(x, &x->new_rs, own > wanted ? wanted : th_deploy_new_rs_replicas(x),
                              err);
}

/* Replicas that are not available go first: they serve nobody. */
static int drop_unhealthy(struct th_deploy *x, int64_t most, int64_t *ret_dropped,
                          struct th_err *err)
{
    *ret_dropped = 0;
    for (size_t i = 0; i < x->old.n && *ret_dropped < most; i++) {
        int64_t own = replicas_of(x->old.v[i]);
        int64_t unhealthy = own - th_json_path_int(x->old.v[i], "status.availableReplicas", 0);
        if (own == 0 || unhealthy <= 0) {
            continue;
        }
        int64_t drop = unhealthy < most - *ret_dropped ? unhealthy : most - *ret_dropped;
        int r = th_deploy_scale_rs(x, &x->old.v[i], own - drop, err);
        TH_TRY(r);
        *ret_dropped += drop;
    }
    return 0;
}

static int scale_down_for_rolling(struct th_deploy *x, int64_t *ret_dropped, struct th_err *err)
{
    *ret_dropped = 0;
    int64_t least = th_json_path_int(x->d, "spec.replicas", 1) - th_deploy_max_unavailable(x->d);
    int64_t available = th_rs_sum(&x->all, NULL, "status.availableReplicas");
    int64_t most = available - least;
    for (size_t i = 0; i < x->old.n && *ret_dropped < most; i++) {
        int64_t own = replicas_of(x->old.v[i]);
        if (own == 0) {
            continue;
        }
        int64_t drop = own < most - *ret_dropped ? own : most - *ret_dropped;
        TH_TRY(th_deploy_scale_rs(x, &x->old.v[i], own - drop, err));
        *ret_dropped += drop;
    }
    return 0;
}

static int reconcile_old(struct th_deploy *x, struct th_err *err)
{
    if (th_rs_sum(&x->old, NULL, "spec.replicas") == 0) {
        return 0;
    }
    qsort(x->old.v, x->old.n, sizeof(*x->old.v), older_first);
    int64_t all = th_rs_sum(&x->all, NULL, "spec.replicas");
    int64_t least = th_json_path_int(x->d, "spec.replicas", 1) - th_deploy_max_unavailable(x->d);
    int64_t new_unavailable =
        replicas_of(x->new_rs) - th_json_path_int(x->new_rs, "status.availableReplicas", 0);
    int64_t most = all - least - new_unavailable;
    if (most <= 0) {
        return 0;
    }
    int64_t unhealthy = 0, healthy = 0;
    TH_TRY(drop_unhealthy(x, most, &unhealthy, err));
    TH_TRY(scale_down_for_rolling(x, &healthy, err));
    return unhealthy + healthy > 0;
}

int th_deploy_rolling(struct th_deploy *x, struct th_err *err)
{
    TH_TRY(th_deploy_find_sets(x, true, err));
    int r = reconcile_new(x, err);
    TH_TRY(r);
    if (r == 0) {
        TH_TRY(reconcile_old(x, err));
    }
    if (th_deploy_complete(x->d, th_json_get(x->d, "status"))) {
        TH_TRY(th_deploy_cleanup(x, err));
    }
    return th_deploy_sync_rollout_status(x, err);
}

/* ---- Recreate ---- */

struct old_pods {
    bool running;
};

static bool note_running(void *arg, struct th_json *pod)
{
    const char *phase = th_json_path_str(pod, "status.phase");
    struct old_pods *o = arg;
    o->running = !th_streq(phase, "Failed") && !th_streq(phase, "Succeeded");
    return !o->running;
}

static bool old_pods_running(struct th_deploy *x)
{
    struct old_pods o = {false};
    for (size_t i = 0; i < x->old.n && !o.running; i++) {
        th_informer_by_owner(th_ctrl_informer(x->c, TH_GVR_PODS),
                             th_json_path_str(x->old.v[i], "metadata.uid"), note_running, &o);
    }
    return o.running;
}

int th_deploy_recreate(struct th_deploy *x, struct th_err *err)
{
    TH_TRY(th_deploy_find_sets(x, false, err));
    bool scaled = false;
    for (size_t i = 0; i < x->old.n; i++) {
        if (replicas_of(x->old.v[i]) > 0) {
            TH_TRY(th_deploy_scale_rs(x, &x->old.v[i], 0, err));
            scaled = true;
        }
    }
    if (scaled || old_pods_running(x)) {
        return th_deploy_sync_rollout_status(x, err);
    }
    if (!x->new_rs) {
        th_rs_list_done(&x->old);
        TH_TRY(th_deploy_find_sets(x, true, err));
    }
    TH_TRY(th_deploy_scale_rs(x, &x->new_rs, th_json_path_int(x->d, "spec.replicas", 1), err));
    if (th_deploy_complete(x->d, th_json_get(x->d, "status"))) {
        TH_TRY(th_deploy_cleanup(x, err));
    }
    return th_deploy_sync_rollout_status(x, err);
}

/* ---- Scaling outside of a rollout's steps ---- */

/* The only active set, or the new one (else the latest old one) when none is; NULL when several
 * are. */
static struct th_json **active_or_latest(struct th_deploy *x)
{
    struct th_json **active = NULL;
    size_t n = 0;
    for (size_t i = 0; i < x->old.n; i++) {
        if (replicas_of(x->old.v[i]) > 0) {
            active = &x->old.v[i];
            n++;
        }
    }
    if (x->new_rs && replicas_of(x->new_rs) > 0) {
        active = &x->new_rs;
        n++;
    }
    if (n > 1) {
        return NULL;
    }
    if (n == 1) {
        return active;
    }
    if (x->new_rs) {
        return &x->new_rs;
    }
    return x->old.n ? &x->old.v[x->old.n - 1] : NULL;
}

static int64_t annotated(const struct th_json *rs, const char *name)
{
    const char *text = th_json_str(th_json_get(th_json_path(rs, "metadata.annotations"), name));
    return text ? strtoll(text, NULL, 10) : 0;
}

/* This set's share of a change, in proportion to its size, never more than what is left. */
static int64_t proportion(const struct th_json *d, const struct th_json *rs, int64_t to_add,
                          int64_t added)
{
    int64_t own = replicas_of(rs);
    int64_t left = to_add - added;
    if (own == 0 || left == 0) {
        return 0;
    }
    int64_t most_before = annotated(rs, TH_MAX_ANNOTATION);
    if (most_before == 0) {
        most_before = th_json_path_int(d, "status.replicas", 0);
    }
    if (most_before == 0) {
        return 0;
    }
    int64_t most = th_json_path_int(d, "spec.replicas", 1) + th_deploy_max_surge(d);
    /* Round half away from zero: own * most / most_before. */
    int64_t share = (2 * own * most + most_before) / (2 * most_before) - own;
    if (to_add > 0) {
        return share < left ? share : left;
    }
    return share > left ? share : left;
}

static int larger_first(const void *a, const void *b)
{
    struct th_json *const *x = a, *const *y = b;
    int64_t d = replicas_of(*y) - replicas_of(*x);
    return d < 0 ? -1 : d > 0 ? 1 : older_first(b, a);
}

static int scale_proportionally(struct th_deploy *x, struct th_err *err)
{
    int64_t wanted = th_json_path_int(x->d, "spec.replicas", 1);
    int64_t allowed = wanted > 0 ? wanted + th_deploy_max_surge(x->d) : 0;
    int64_t to_add = allowed - th_rs_sum(&x->all, NULL, "spec.replicas");
    struct th_rs_list active TH_CLEANUP(th_rs_list_done) = {NULL, 0, 0};
    for (size_t i = 0; i < x->all.n; i++) {
        if (replicas_of(x->all.v[i]) > 0) {
            th_rs_list_add(&active, x->all.v[i]);
        }
    }
    if (active.n == 0) {
        return 0;
    }
    qsort(active.v, active.n, sizeof(*active.v), larger_first);
    th_autofree int64_t *sizes = th_xcalloc(active.n, sizeof(*sizes));
    int64_t added = 0;
    for (size_t i = 0; i < active.n; i++) {
        int64_t share = to_add ? proportion(x->d, active.v[i], to_add, added) : 0;
        sizes[i] = replicas_of(active.v[i]) + share;
        added += share;
    }
    sizes[0] += to_add - added; /* what rounding left goes to the largest */
    for (size_t i = 0; i < active.n; i++) {
        struct th_json *rs = th_json_ref(active.v[i]);
        int r = th_deploy_scale_rs(x, &rs, sizes[i] > 0 ? sizes[i] : 0, err);
        th_json_unref(rs);
        TH_TRY(r);
    }
    return 0;
}

static int scale_sets(struct th_deploy *x, struct th_err *err)
{
    int64_t wanted = th_json_path_int(x->d, "spec.replicas", 1);
    struct th_json **only = active_or_latest(x);
    if (only) {
        return replicas_of(*only) == wanted ? 0 : th_deploy_scale_rs(x, only, wanted, err);
    }
    if (th_deploy_saturated(x)) {
        for (size_t i = 0; i < x->old.n; i++) {
            if (replicas_of(x->old.v[i]) > 0) {
                TH_TRY(th_deploy_scale_rs(x, &x->old.v[i], 0, err));
            }
        }
        return 0;
    }
    return th_deploy_is_rolling(x->d) ? scale_proportionally(x, err) : 0;
}

int th_deploy_scale(struct th_deploy *x, struct th_err *err)
{
    TH_TRY(th_deploy_find_sets(x, false, err));
    TH_TRY(scale_sets(x, err));
    bool paused = th_json_path_bool(x->d, "spec.paused", false);
    if (paused) {
        TH_TRY(th_deploy_cleanup(x, err));
    }
    return th_deploy_sync_status(x, err);
}

/* ---- Old revisions ---- */

static int by_revision(const void *a, const void *b)
{
    struct th_json *const *x = a, *const *y = b;
    int64_t d = th_deploy_revision(*x) - th_deploy_revision(*y);
    return d < 0 ? -1 : d > 0 ? 1 : older_first(a, b);
}

int th_deploy_cleanup(struct th_deploy *x, struct th_err *err)
{
    int64_t keep = th_json_path_int(x->d, "spec.revisionHistoryLimit", 10);
    struct th_rs_list dead TH_CLEANUP(th_rs_list_done) = {NULL, 0, 0};
    for (size_t i = 0; i < x->old.n; i++) {
        if (!th_json_path_str(x->old.v[i], "metadata.deletionTimestamp")) {
            th_rs_list_add(&dead, x->old.v[i]);
        }
    }
    if ((int64_t)dead.n <= keep) {
        return 0;
    }
    qsort(dead.v, dead.n, sizeof(*dead.v), by_revision);
    for (size_t i = 0; i < dead.n - (size_t)keep; i++) {
        const struct th_json *rs = dead.v[i];
        bool quiet = th_json_path_int(rs, "status.replicas", 0) == 0 && replicas_of(rs) == 0 &&
                     th_json_path_int(rs, "metadata.generation", 0) <=
                         th_json_path_int(rs, "status.observedGeneration", 0);
        if (!quiet) {
            continue;
        }
        struct th_delete_opts o = TH_DELETE_OPTS_INIT;
        int r = th_client_delete(th_ctrl_client(x->c), TH_GVR_REPLICASETS, x->ns,
                                 th_json_path_str(rs, "metadata.name"), &o, NULL, err);
        if (r == -TH_R_NOT_FOUND) {
            th_err_done(err);
            continue;
        }
        TH_TRY(r);
    }
    return 0;
}
