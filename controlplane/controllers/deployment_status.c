/*
 * What a Deployment says of itself: counts, and the conditions Available, Progressing and
 * ReplicaFailure, with upstream's reasons and messages (pkg/controller/deployment/progress.go).
 * A rollout that makes no progress within progressDeadlineSeconds is reported, not stopped.
 */
#include "controlplane/controllers/deployment_priv.h"
#include "base/buf.h"
#include "base/clock.h"
#include <inttypes.h>

#define NO_DEADLINE INT32_MAX /* upstream's way to say "none" */

struct th_json *th_deploy_status(struct th_json *d)
{
    return th_json_path_object(d, "status");
}

bool th_deploy_has_deadline(const struct th_json *d)
{
    int64_t s = th_json_path_int(d, "spec.progressDeadlineSeconds", NO_DEADLINE);
    return s != NO_DEADLINE;
}

bool th_deploy_set_progress(struct th_deploy *x, const char *status, const char *reason,
                            const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    th_autofree char *message = th_xvasprintf(fmt, ap);
    va_end(ap);
    return th_cond_set(th_json_path_array(th_deploy_status(x->d), "conditions"), "Progressing",
                       status, reason, message, true);
}

int th_deploy_write_status(struct th_deploy *x, struct th_json *status, struct th_err *err)
{
    struct th_json *copy TH_AUTO(th_json) = th_json_dup(x->d);
    struct th_json *now TH_AUTO(th_json) = NULL;
    th_json_set(copy, "status", th_json_dup(status));
    TH_TRY(th_client_update(th_ctrl_client(x->c), TH_GVR_DEPLOYMENTS, x->ns, x->name, "status",
                            copy, &now, err));
    th_json_path_set_str(x->d, "metadata.resourceVersion",
                         th_json_path_str(now, "metadata.resourceVersion"));
    th_json_set(x->d, "status", th_json_dup(th_json_get(now, "status")));
    th_ctrl_expect(x->c, x->key, TH_GVR_DEPLOYMENTS, now);
    return 0;
}

/* The sum, or nothing while one of the sets has not said it yet. */
static void set_terminating(struct th_json *status, const struct th_rs_list *all)
{
    for (size_t i = 0; i < all->n; i++) {
        if (!th_json_path(all->v[i], "status.terminatingReplicas")) {
            (void)th_json_del(status, "terminatingReplicas");
            return;
        }
    }
    th_json_set_int(status, "terminatingReplicas",
                    th_rs_sum(all, NULL, "status.terminatingReplicas"));
}

static struct th_json *calculate(struct th_deploy *x)
{
    struct th_json *status = th_json_dup(th_deploy_status(x->d));
    int64_t available = th_rs_sum(&x->all, NULL, "status.availableReplicas");
    int64_t wanted = th_rs_sum(&x->all, NULL, "spec.replicas");
    int64_t unavailable = wanted > available ? wanted - available : 0;
    th_json_set_int(status, "observedGeneration", th_json_path_int(x->d, "metadata.generation", 0));
    th_status_count(status, "replicas", th_rs_sum(&x->all, NULL, "status.replicas"));
    th_status_count(status, "updatedReplicas",
                    x->new_rs ? th_json_path_int(x->new_rs, "status.replicas", 0) : 0);
    th_status_count(status, "readyReplicas", th_rs_sum(&x->all, NULL, "status.readyReplicas"));
    th_status_count(status, "availableReplicas", available);
    th_status_count(status, "unavailableReplicas", unavailable);
    set_terminating(status, &x->all);
    struct th_json *conditions = th_json_path_array(status, "conditions");
    int64_t least = th_json_path_int(x->d, "spec.replicas", 1) - th_deploy_max_unavailable(x->d);
    if (available >= least) {
        (void)th_cond_set(conditions, "Available", "True", "MinimumReplicasAvailable",
                          "Deployment has minimum availability.", true);
    } else {
        (void)th_cond_set(conditions, "Available", "False", "MinimumReplicasUnavailable",
                          "Deployment does not have minimum availability.", true);
    }
    return status;
}

static int write_if_changed(struct th_deploy *x, struct th_json *status, struct th_err *err)
{
    if (th_json_equal(status, th_json_get(x->d, "status"))) {
        return 0;
    }
    return th_deploy_write_status(x, status, err);
}

int th_deploy_sync_status(struct th_deploy *x, struct th_err *err)
{
    struct th_json *status TH_AUTO(th_json) = calculate(x);
    return write_if_changed(x, status, err);
}

bool th_deploy_complete(const struct th_json *d, const struct th_json *status)
{
    int64_t wanted = th_json_path_int(d, "spec.replicas", 1);
    return th_json_path_int(status, "updatedReplicas", 0) == wanted &&
           th_json_path_int(status, "replicas", 0) == wanted &&
           th_json_path_int(status, "availableReplicas", 0) == wanted &&
           th_json_path_int(status, "observedGeneration", 0) >=
               th_json_path_int(d, "metadata.generation", 0);
}

static bool progressing(const struct th_json *d, const struct th_json *status)
{
    const struct th_json *old = th_json_get(d, "status");
    int64_t old_outdated =
        th_json_path_int(old, "replicas", 0) - th_json_path_int(old, "updatedReplicas", 0);
    int64_t outdated =
        th_json_path_int(status, "replicas", 0) - th_json_path_int(status, "updatedReplicas", 0);
    return th_json_path_int(status, "updatedReplicas", 0) >
               th_json_path_int(old, "updatedReplicas", 0) ||
           outdated < old_outdated ||
           th_json_path_int(status, "readyReplicas", 0) >
               th_json_path_int(old, "readyReplicas", 0) ||
           th_json_path_int(status, "availableReplicas", 0) >
               th_json_path_int(old, "availableReplicas", 0);
}

/* Milliseconds until the deadline, 0 when it has passed, -1 when there is none to wait for. */
static int64_t deadline_left(const struct th_json *d, const struct th_json *condition)
{
    const char *reason = th_json_path_str(condition, "reason");
    if (!condition || th_streq(reason, "NewReplicaSetAvailable")) {
        return -1;
    }
    if (th_streq(reason, "ProgressDeadlineExceeded")) {
        return 0;
    }
    int64_t since = th_obj_time_ms(condition, "lastUpdateTime");
    int64_t left =
        since + th_json_path_int(d, "spec.progressDeadlineSeconds", 600) * 1000 - th_now_ms();
    return left > 0 ? left : 0;
}

/* What the progress is about: "ReplicaSet "x"" once there is one, else the Deployment. */
static char *subject(const struct th_deploy *x)
{
    return x->new_rs
               ? th_xasprintf("ReplicaSet \"%s\"", th_json_path_str(x->new_rs, "metadata.name"))
               : th_xasprintf("Deployment \"%s\"", x->name);
}

/* Progress refreshes lastUpdateTime even when status and reason stay: the deadline counts from
 * there. */
static void refresh(struct th_json *conditions, const char *reason, const char *message)
{
    struct th_json *since TH_AUTO(th_json) = NULL;
    for (size_t i = 0; i < th_json_len(conditions); i++) {
        struct th_json *c = th_json_at(conditions, i);
        if (th_streq(th_json_path_str(c, "type"), "Progressing") &&
            th_streq(th_json_path_str(c, "status"), "True")) {
            since = th_json_dup(th_json_get(c, "lastTransitionTime"));
        }
    }
    (void)th_cond_remove(conditions, "Progressing");
    (void)th_cond_set(conditions, "Progressing", "True", reason, message, true);
    if (since) {
        th_json_set(th_json_at(conditions, th_json_len(conditions) - 1), "lastTransitionTime",
                    th_json_ref(since));
    }
}

static void set_progress_condition(struct th_deploy *x, struct th_json *status)
{
    struct th_json *conditions = th_json_path_array(status, "conditions");
    const struct th_json *now = th_cond_get(x->d, "Progressing");
    bool was_complete =
        th_json_path_int(status, "replicas", 0) == th_json_path_int(status, "updatedReplicas", 0) &&
        th_streq(th_json_path_str(now, "reason"), "NewReplicaSetAvailable");
    if (!th_deploy_has_deadline(x->d)) {
        (void)th_cond_remove(conditions, "Progressing");
        return;
    }
    if (was_complete) {
        return;
    }
    th_autofree char *who = subject(x);
    th_autofree char *message = NULL;
    if (th_deploy_complete(x->d, status)) {
        message = th_xasprintf("%s has successfully progressed.", who);
        (void)th_cond_set(conditions, "Progressing", "True", "NewReplicaSetAvailable", message,
                          true);
    } else if (progressing(x->d, status)) {
        message = th_xasprintf("%s is progressing.", who);
        refresh(conditions, "ReplicaSetUpdated", message);
    } else if (deadline_left(x->d, now) == 0) {
        message = th_xasprintf("%s has timed out progressing.", who);
        (void)th_cond_set(conditions, "Progressing", "False", "ProgressDeadlineExceeded", message,
                          true);
    }
}

static void set_failure_condition(struct th_deploy *x, struct th_json *status)
{
    struct th_json *conditions = th_json_path_array(status, "conditions");
    for (size_t i = 0; i < x->all.n; i++) {
        const struct th_json *c = th_cond_get(x->all.v[i], "ReplicaFailure");
        if (c) {
            (void)th_cond_set(conditions, "ReplicaFailure", th_json_path_str(c, "status"),
                              th_json_path_str(c, "reason"), th_json_path_str(c, "message"), true);
            return;
        }
    }
    (void)th_cond_remove(conditions, "ReplicaFailure");
}

int th_deploy_sync_rollout_status(struct th_deploy *x, struct th_err *err)
{
    struct th_json *status TH_AUTO(th_json) = calculate(x);
    set_progress_condition(x, status);
    set_failure_condition(x, status);
    TH_TRY(write_if_changed(x, status, err));
    int64_t left = deadline_left(x->d, th_cond_get(x->d, "Progressing"));
    if (left > 0 && th_deploy_has_deadline(x->d)) {
        *x->ret_after_ms = left + 1000; /* times are whole seconds */
    }
    return 0;
}
