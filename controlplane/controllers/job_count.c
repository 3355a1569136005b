/*
 * Which pods of a Job count as what.
 *
 * A pod is counted once, however often the controller is interrupted: it carries a finalizer until
 * then. When it has ended its uid goes to status.uncountedTerminatedPods; once that is stored the
 * finalizer comes off; once the pod has no finalizer any more (or is gone) the uid turns into the
 * count. Deleted pods that did not succeed count as failed, unless only Failed ones are to be
 * replaced. As k8s.io/kubernetes pkg/controller/job/tracking_utils.go.
 */
#include "controlplane/controllers/job_priv.h"
#include "base/buf.h"
#include "base/clock.h"
#include <inttypes.h>

bool th_job_condition(const struct th_job *j, const char *type)
{
    return th_cond_is_true(j->job, type);
}

bool th_job_is_tracked(const struct th_json *pod)
{
    const struct th_json *list = th_json_path(pod, "metadata.finalizers");
    for (size_t i = 0; i < th_json_len(list); i++) {
        if (th_streq(th_json_str(th_json_at(list, i)), TH_JOB_FINALIZER)) {
            return true;
        }
    }
    return false;
}

static bool only_failed_are_replaced(const struct th_job *j)
{
    return th_streq(th_json_path_str(j->job, "spec.podReplacementPolicy"), "Failed");
}

bool th_job_pod_failed(const struct th_job *j, const struct th_json *pod)
{
    const char *phase = th_json_path_str(pod, "status.phase");
    if (th_streq(phase, "Failed")) {
        return true;
    }
    return th_json_path_str(pod, "metadata.deletionTimestamp") && !th_streq(phase, "Succeeded") &&
           !only_failed_are_replaced(j) && !th_json_path(j->job, "spec.podFailurePolicy");
}

int64_t th_job_pod_index(const struct th_json *pod)
{
    const char *text =
        th_json_str(th_json_get(th_json_path(pod, "metadata.annotations"), TH_JOB_INDEX));
    return text ? strtoll(text, NULL, 10) : -1;
}

int64_t th_job_pod_finished_ms(const struct th_json *pod)
{
    int64_t latest = 0;
    const struct th_json *list = th_json_path(pod, "status.containerStatuses");
    for (size_t i = 0; i < th_json_len(list); i++) {
        int64_t ms = th_obj_time_ms(th_json_at(list, i), "state.terminated.finishedAt");
        latest = ms > latest ? ms : latest;
    }
    if (latest == 0) {
        latest = th_obj_time_ms(th_cond_get(pod, "Ready"), "lastTransitionTime");
    }
    return latest ? latest : th_obj_time_ms(pod, "metadata.creationTimestamp");
}

/* ---- The pod failure policy ---- */

static bool in_values(const struct th_json *values, int64_t code)
{
    for (size_t i = 0; i < th_json_len(values); i++) {
        if (th_json_as_int(th_json_at(values, i), -1) == code) {
            return true;
        }
    }
    return false;
}

/* The container whose exit code the rule is about, or NULL. */
static const struct th_json *exit_match(const struct th_json *rule, const struct th_json *pod)
{
    static const char *const lists[] = {"status.containerStatuses",
                                        "status.initContainerStatuses"};
    const struct th_json *r = th_json_get(rule, "onExitCodes");
    const char *only = th_json_path_str(r, "containerName");
    bool in = th_streq(th_json_path_str(r, "operator"), "In");
    for (size_t l = 0; r && l < TH_ARRAY_LEN(lists); l++) {
        const struct th_json *list = th_json_path(pod, lists[l]);
        for (size_t i = 0; i < th_json_len(list); i++) {
            const struct th_json *s = th_json_at(list, i);
            int64_t code = th_json_path_int(s, "state.terminated.exitCode", 0);
            if (code != 0 && (!only || th_streq(only, th_json_path_str(s, "name"))) &&
                in_values(th_json_get(r, "values"), code) == in) {
                return s;
            }
        }
    }
    return NULL;
}

static const struct th_json *condition_match(const struct th_json *rule, const struct th_json *pod)
{
    const struct th_json *patterns = th_json_get(rule, "onPodConditions");
    for (size_t i = 0; i < th_json_len(patterns); i++) {
        const struct th_json *p = th_json_at(patterns, i);
        const char *status = th_json_path_str(p, "status");
        const struct th_json *c = th_cond_get(pod, th_json_path_str(p, "type"));
        if (c && th_streq(th_json_path_str(c, "status"), status ? status : "True")) {
            return c;
        }
    }
    return NULL;
}

/* What the policy says of a failed pod: "Count" when nothing. FailJob also sets why. */
static const char *action_for(struct th_job *j, const struct th_json *pod)
{
    const struct th_json *rules = th_json_path(j->job, "spec.podFailurePolicy.rules");
    for (size_t i = 0; i < th_json_len(rules); i++) {
        const struct th_json *rule = th_json_at(rules, i);
        const struct th_json *code = exit_match(rule, pod), *cond = condition_match(rule, pod);
        const char *action = th_json_path_str(rule, "action");
        if (!code && !cond) {
            continue;
        }
        if (th_streq(action, "FailJob") && !j->fail_reason) {
            const char *ns = th_json_path_str(pod, "metadata.namespace");
            const char *name = th_json_path_str(pod, "metadata.name");
            j->fail_reason = th_xstrdup("PodFailurePolicy");
            j->fail_message =
                code ? th_xasprintf("Container %s for pod %s/%s failed with exit code %" PRId64
                                    " matching %s rule at index %zu",
                                    th_json_path_str(code, "name"), ns, name,
                                    th_json_path_int(code, "state.terminated.exitCode", 0), action,
                                    i)
                     : th_xasprintf("Pod %s/%s has condition %s matching %s rule at index %zu", ns,
                                    name, th_json_path_str(cond, "type"), action, i);
        }
        return action;
    }
    return "Count";
}

int64_t th_job_index_failures(const struct th_job *j, int64_t index)
{
    int64_t most = 0;
    for (size_t i = 0; i < j->pods.n; i++) {
        const struct th_json *pod = j->pods.v[i];
        if (th_job_pod_index(pod) == index && th_job_pod_failed(j, pod)) {
            const char *text = th_json_str(
                th_json_get(th_json_path(pod, "metadata.annotations"), TH_JOB_INDEX_FAILURES));
            int64_t n = (text ? strtoll(text, NULL, 10) : 0) + 1;
            most = n > most ? n : most;
        }
    }
    return most;
}

/* ---- Counting ---- */

static bool uid_in(const struct th_json *list, const char *uid)
{
    for (size_t i = 0; i < th_json_len(list); i++) {
        if (th_streq(th_json_str(th_json_at(list, i)), uid)) {
            return true;
        }
    }
    return false;
}

/* Turns uids whose pods have no finalizer any more into the count. */
static void settle(struct th_job *j, struct th_json *uncounted, const char *which)
{
    struct th_json *list = th_json_get(uncounted, which);
    int64_t done = 0;
    for (size_t i = th_json_len(list); i-- > 0;) {
        bool held = false;
        for (size_t k = 0; k < j->pods.n && !held; k++) {
            held = th_streq(th_json_path_str(j->pods.v[k], "metadata.uid"),
                            th_json_str(th_json_at(list, i))) &&
                   th_job_is_tracked(j->pods.v[k]);
        }
        if (!held) {
            th_json_del_at(list, i);
            done++;
        }
    }
    if (done) {
        th_status_count(j->status, which, th_json_path_int(j->status, which, 0) + done);
    }
    if (list && th_json_len(list) == 0) {
        (void)th_json_del(uncounted, which);
    }
}

static void note_failure(struct th_job *j, const struct th_json *pod, struct th_json *uncounted,
                         const char *uid)
{
    const char *action = action_for(j, pod);
    int64_t index = th_job_pod_index(pod);
    bool per_index = j->indexed && th_json_path(j->job, "spec.backoffLimitPerIndex");
    if (th_streq(action, "Ignore")) {
        return; /* replaced, but no failure of the job */
    }
    if (per_index && index >= 0 &&
        (th_streq(action, "FailIndex") ||
         th_job_index_failures(j, index) > th_json_path_int(j->job, "spec.backoffLimitPerIndex", 0))) {
        th_indexes_add(&j->failed_indexes, (size_t)index);
    }
    th_json_append_str(th_json_path_array(uncounted, "failed"), uid);
}

static void note_ended(struct th_job *j, struct th_json *uncounted)
{
    for (size_t i = 0; i < j->pods.n; i++) {
        const struct th_json *pod = j->pods.v[i];
        const char *uid = th_json_path_str(pod, "metadata.uid");
        if (!th_job_is_tracked(pod) || uid_in(th_json_get(uncounted, "succeeded"), uid) ||
            uid_in(th_json_get(uncounted, "failed"), uid)) {
            continue;
        }
        if (th_streq(th_json_path_str(pod, "status.phase"), "Succeeded")) {
            int64_t index = th_job_pod_index(pod);
            if (j->indexed && index >= 0) {
                th_indexes_add(&j->completed, (size_t)index);
            } else if (!j->indexed) {
                th_json_append_str(th_json_path_array(uncounted, "succeeded"), uid);
            }
        } else if (th_job_pod_failed(j, pod)) {
            note_failure(j, pod, uncounted, uid);
        }
    }
}

void th_job_count(struct th_job *j)
{
    struct th_json *uncounted = th_json_path_object(j->status, "uncountedTerminatedPods");
    settle(j, uncounted, "succeeded");
    settle(j, uncounted, "failed");
    note_ended(j, uncounted);
    j->succeeded = th_json_path_int(j->status, "succeeded", 0) +
                   (int64_t)th_json_len(th_json_get(uncounted, "succeeded"));
    j->failed = th_json_path_int(j->status, "failed", 0) +
                (int64_t)th_json_len(th_json_get(uncounted, "failed"));
    if (j->indexed) {
        th_autofree char *done = th_indexes_text(&j->completed);
        j->succeeded = (int64_t)j->completed.count;
        th_status_count(j->status, "succeeded", j->succeeded);
        if (*done) {
            th_json_set_str(j->status, "completedIndexes", done);
        }
        if (th_json_path(j->job, "spec.backoffLimitPerIndex")) {
            th_autofree char *bad = th_indexes_text(&j->failed_indexes);
            th_json_set_str(j->status, "failedIndexes", bad);
        }
    }
}

int th_job_untrack(struct th_ctrl *c, const char *key, const struct th_json *pod,
                   struct th_err *err)
{
    struct th_json *now TH_AUTO(th_json) = NULL;
    struct th_json *patch TH_AUTO(th_json) =
        th_json_build("{'metadata':{'uid':%s,'$deleteFromPrimitiveList/finalizers':[%s]}}",
                      th_json_path_str(pod, "metadata.uid"), TH_JOB_FINALIZER);
    struct th_patch_opts o = {.kind = TH_PATCH_STRATEGIC,
                              .field_manager = "kube-controller-manager"};
    int r = th_client_patch(th_ctrl_client(c), TH_GVR_PODS,
                            th_json_path_str(pod, "metadata.namespace"),
                            th_json_path_str(pod, "metadata.name"), "", &o, patch, &now, err);
    if (r == -TH_R_NOT_FOUND || r == -TH_R_CONFLICT || r == -TH_R_INVALID) {
        th_err_done(err); /* gone, or another pod of that name by now */
        return 0;
    }
    if (r >= 0 && key && !th_json_path_str(pod, "metadata.deletionTimestamp")) {
        th_ctrl_expect(c, key, TH_GVR_PODS, now);
    }
    return r < 0 ? r : 0;
}

int th_job_release_pods(struct th_job *j, bool finished, struct th_err *err)
{
    for (size_t i = 0; i < j->pods.n; i++) {
        const struct th_json *pod = j->pods.v[i];
        bool ended = th_streq(th_json_path_str(pod, "status.phase"), "Succeeded") ||
                     th_job_pod_failed(j, pod);
        if (th_job_is_tracked(pod) && (finished || ended)) {
            TH_TRY(th_job_untrack(j->c, j->key, pod, err));
        }
    }
    return 0;
}
