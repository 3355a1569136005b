/*
 * Job: pods that run until enough of them have succeeded.
 *
 * A reconcile counts what has ended (job_count.c), decides whether the job is to end, brings the
 * number of active pods to what is wanted, and stores the status. A job ends in two steps, as
 * upstream since pods may outlive the decision: SuccessCriteriaMet or FailureTarget first, Complete
 * or Failed when the last pod has ended. Failures slow new pods down (10 s doubling to 10 min,
 * counted from the failures since the last success). Indexed jobs have a pod per index, with
 * JOB_COMPLETION_INDEX in its environment.
 *
 * Rules as k8s.io/kubernetes pkg/controller/job.
 */
#include "controlplane/controllers/job_priv.h"
#include "controlplane/controllers/pod_rank.h"
#include "base/buf.h"
#include "base/clock.h"
#include <inttypes.h>

#define GVR_JOBS ((struct th_gvr){"batch", "v1", "jobs"})
#define BACKOFF_MS 10000
#define BACKOFF_MAX_MS 600000
#define CREATE_MAX 500
#define POD_KEY "pod|" /* keys of pods, in front of "ns/name" */

/* A pod that is being deleted, or let go, may have no job any more that counts it. */
static void on_pod(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    th_podctl_on_pod(c, th_ctrl_state(c), old, now, GVR_JOBS, "Job");
    if (now && th_job_is_tracked(now) &&
        (!th_controller_of(now) || th_json_path_str(now, "metadata.deletionTimestamp"))) {
        th_autofree char *own = th_ctrl_key(now);
        th_autofree char *key = th_xasprintf(POD_KEY "%s", own);
        th_ctrl_enqueue(c, key);
    }
}

static bool job_bool(const struct th_job *j, const char *path)
{
    return th_json_path_bool(j->job, path, false);
}

static void set_condition(struct th_job *j, const char *type, const char *status,
                          const char *reason, const char *message)
{
    struct th_json *list = th_json_path_array(j->status, "conditions");
    if (th_cond_put(list, type, status, reason, message)) {
        th_json_set(th_cond_get(j->job, type), "lastProbeTime", th_time_now_json());
    }
}

/* ---- Deciding ---- */

static void fail(struct th_job *j, const char *reason, const char *message)
{
    if (!j->fail_reason) {
        j->fail_reason = th_xstrdup(reason);
        j->fail_message = th_xstrdup(message);
    }
}

/* With restartPolicy OnFailure the node restarts containers: their restarts count. */
static int64_t restarts(const struct th_job *j)
{
    static const char *const lists[] = {"status.containerStatuses",
                                        "status.initContainerStatuses"};
    int64_t sum = 0;
    for (size_t i = 0; i < j->active.n; i++) {
        for (size_t l = 0; l < TH_ARRAY_LEN(lists); l++) {
            const struct th_json *list = th_json_path(j->active.v[i], lists[l]);
            for (size_t k = 0; k < th_json_len(list); k++) {
                sum += th_json_path_int(th_json_at(list, k), "restartCount", 0);
            }
        }
    }
    return sum;
}

static void check_limits(struct th_job *j)
{
    int64_t limit = th_json_path_int(j->job, "spec.backoffLimit", 6);
    const char *policy = th_json_path_str(j->job, "spec.template.spec.restartPolicy");
    int64_t again = th_streq(policy, "OnFailure") ? restarts(j) : 0;
    if (j->failed > limit || (again > 0 && again >= (limit ? limit : 1))) {
        fail(j, "BackoffLimitExceeded", "Job has reached the specified backoff limit");
    }
    int64_t deadline = th_json_path_int(j->job, "spec.activeDeadlineSeconds", -1);
    int64_t start = th_obj_time_ms(j->job, "status.startTime");
    if (deadline >= 0 && start > 0 && !job_bool(j, "spec.suspend")) {
        int64_t left = start + deadline * 1000 - th_now_ms();
        if (left <= 0) {
            fail(j, "DeadlineExceeded", "Job was active longer than specified deadline");
        } else if (*j->ret_after_ms == 0 || left < *j->ret_after_ms) {
            *j->ret_after_ms = left;
        }
    }
    int64_t most = th_json_path_int(j->job, "spec.maxFailedIndexes", -1);
    if (most >= 0 && (int64_t)j->failed_indexes.count > most) {
        fail(j, "MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of "
                                            "failed indexes");
    }
}

/* Which rule of the success policy is met; -1: none. */
static int64_t success_rule(const struct th_job *j)
{
    const struct th_json *rules = th_json_path(j->job, "spec.successPolicy.rules");
    for (size_t i = 0; i < th_json_len(rules); i++) {
        const struct th_json *r = th_json_at(rules, i);
        const char *text = th_json_path_str(r, "succeededIndexes");
        int64_t count = th_json_path_int(r, "succeededCount", -1), met = 0;
        struct th_indexes wanted TH_CLEANUP(th_indexes_done);
        th_indexes_init(&wanted, j->completed.n, text);
        for (size_t k = 0; k < j->completed.n; k++) {
            met += j->completed.has[k] && (!text || wanted.has[k]);
        }
        if (met >= (count >= 0 ? count : (int64_t)wanted.count) && met > 0) {
            return (int64_t)i;
        }
    }
    return -1;
}

/* Sets SuccessCriteriaMet or FailureTarget, once and for all. */
static void decide(struct th_job *j)
{
    if (th_job_condition(j, "SuccessCriteriaMet") || th_job_condition(j, "FailureTarget")) {
        return;
    }
    check_limits(j);
    if (j->fail_reason) {
        set_condition(j, "FailureTarget", "True", j->fail_reason, j->fail_message);
        return;
    }
    int64_t rule = success_rule(j);
    if (rule >= 0) {
        th_autofree char *m = th_xasprintf("Matched rules at index %" PRId64, rule);
        set_condition(j, "SuccessCriteriaMet", "True", "SuccessPolicy", m);
        return;
    }
    bool counted = th_json_path(j->job, "spec.completions") != NULL;
    int64_t completions = th_json_path_int(j->job, "spec.completions", 0);
    int64_t bad = (int64_t)j->failed_indexes.count;
    if (counted ? j->succeeded + bad >= completions : j->succeeded > 0 && j->active.n == 0) {
        if (bad > 0) {
            set_condition(j, "FailureTarget", "True", "FailedIndexes", "Job has failed indexes");
        } else {
            set_condition(j, "SuccessCriteriaMet", "True", "CompletionsReached",
                          "Reached expected number of succeeded pods");
        }
    }
}

/* The decision becomes final when no pod runs any more. */
static void conclude(struct th_job *j)
{
    if (j->active.n > 0 || j->terminating > 0) {
        return;
    }
    const struct th_json *good = th_cond_get(j->job, "SuccessCriteriaMet");
    const struct th_json *bad = th_cond_get(j->job, "FailureTarget");
    const struct th_json *why = th_cond_is_true(j->job, "SuccessCriteriaMet") ? good : bad;
    th_autofree char *reason = th_xstrdup(th_json_path_str(why, "reason"));
    th_autofree char *message = th_xstrdup(th_json_path_str(why, "message"));
    bool success = why == good;
    set_condition(j, success ? "Complete" : "Failed", "True", reason, message);
    if (success) {
        th_json_set(j->status, "completionTime", th_time_now_json());
        th_event_record(th_ctrl_recorder(j->c), j->job, "Normal", "Completed", "Job completed");
    } else {
        th_event_record(th_ctrl_recorder(j->c), j->job, "Warning", reason, "%s", message);
    }
    struct th_json *uncounted = th_json_path_object(j->status, "uncountedTerminatedPods");
    (void)th_json_del(uncounted, "succeeded");
    (void)th_json_del(uncounted, "failed");
    th_status_count(j->status, "succeeded", j->succeeded);
    th_status_count(j->status, "failed", j->failed);
}

/* ---- Pods ---- */

/* How long new pods have to wait after failures. */
static int64_t backoff_left(const struct th_job *j)
{
    int64_t success = 0, last = 0, failures = 0;
    for (size_t i = 0; i < j->pods.n; i++) {
        if (th_streq(th_json_path_str(j->pods.v[i], "status.phase"), "Succeeded")) {
            int64_t ms = th_job_pod_finished_ms(j->pods.v[i]);
            success = ms > success ? ms : success;
        }
    }
    for (size_t i = 0; i < j->pods.n; i++) {
        int64_t ms = th_job_pod_finished_ms(j->pods.v[i]);
        if (th_job_pod_failed(j, j->pods.v[i]) && ms > success) {
            failures++;
            last = ms > last ? ms : last;
        }
    }
    if (failures == 0) {
        return 0;
    }
    int64_t wait = BACKOFF_MS;
    for (int64_t i = 1; i < failures && wait < BACKOFF_MAX_MS; i++) {
        wait *= 2;
    }
    wait = wait > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : wait;
    int64_t left = last + wait - th_now_ms();
    return left > 0 ? left : 0;
}

static void set_index(struct th_job *j, struct th_json *pod, int64_t index)
{
    const char *name = th_json_path_str(j->job, "metadata.name");
    char text[24];
    (void)snprintf(text, sizeof(text), "%" PRId64, index);
    th_json_set_str(th_json_path_object(pod, "metadata.annotations"), TH_JOB_INDEX, text);
    th_json_set_str(th_json_path_object(pod, "metadata.labels"), TH_JOB_INDEX, text);
    th_json_path_set(pod, "metadata.generateName",
                     th_json_stringf("%s-%" PRId64 "-", name, index));
    if (!th_json_path(pod, "spec.hostname")) {
        th_json_path_set(pod, "spec.hostname", th_json_stringf("%s-%" PRId64, name, index));
    }
    if (th_json_path(j->job, "spec.backoffLimitPerIndex")) {
        (void)snprintf(text, sizeof(text), "%" PRId64, th_job_index_failures(j, index));
        th_json_set_str(th_json_path_object(pod, "metadata.annotations"), TH_JOB_INDEX_FAILURES,
                        text);
    }
    static const char *const lists[] = {"spec.containers", "spec.initContainers"};
    for (size_t l = 0; l < TH_ARRAY_LEN(lists); l++) {
        const struct th_json *list = th_json_path(pod, lists[l]);
        for (size_t i = 0; i < th_json_len(list); i++) {
            th_json_append(
                th_json_path_array(th_json_at(list, i), "env"),
                th_json_build("{'name':'JOB_COMPLETION_INDEX','valueFrom':{'fieldRef':{"
                              "'fieldPath':%s}}}",
                              "metadata.labels['" TH_JOB_INDEX "']"));
        }
    }
}

/* The next index that has neither completed, failed nor a pod; -1: none. */
static int64_t next_index(const struct th_job *j, const struct th_indexes *busy, size_t from)
{
    for (size_t i = from; i < busy->n; i++) {
        if (!busy->has[i] && !j->completed.has[i] && !j->failed_indexes.has[i]) {
            return (int64_t)i;
        }
    }
    return -1;
}

static void busy_indexes(const struct th_job *j, struct th_indexes *ret)
{
    th_indexes_init(ret, j->completed.n, NULL);
    for (size_t i = 0; i < j->pods.n; i++) {
        const struct th_json *pod = j->pods.v[i];
        int64_t index = th_job_pod_index(pod);
        bool ended = th_streq(th_json_path_str(pod, "status.phase"), "Succeeded") ||
                     th_job_pod_failed(j, pod);
        if (index >= 0 && !ended) {
            th_indexes_add(ret, (size_t)index);
        }
    }
}

static int create_pods(struct th_job *j, int64_t n, struct th_err *err)
{
    int64_t wait = backoff_left(j);
    if (wait > 0) {
        *j->ret_after_ms = *j->ret_after_ms == 0 || wait < *j->ret_after_ms ? wait
                                                                            : *j->ret_after_ms;
        return 0;
    }
    struct th_indexes busy TH_CLEANUP(th_indexes_done);
    busy_indexes(j, &busy);
    int64_t index = -1;
    for (int64_t i = 0; i < n && i < CREATE_MAX; i++) {
        struct th_json *pod TH_AUTO(th_json) =
            th_pod_from_template(th_json_path(j->job, "spec.template"), j->job);
        th_json_append_str(th_json_path_array(pod, "metadata.finalizers"), TH_JOB_FINALIZER);
        if (j->indexed) {
            index = next_index(j, &busy, (size_t)(index + 1));
            if (index < 0) {
                break;
            }
            set_index(j, pod, index);
        }
        struct th_json *made TH_AUTO(th_json) = NULL;
        TH_TRY(th_podctl_create(j->c, j->key, j->job, pod, &made, err));
        th_pods_add(&j->active, made);
    }
    return 0;
}

static int delete_pods(struct th_job *j, int64_t n, struct th_err *err)
{
    th_autofree struct th_json **order = th_pod_rank(&j->active, &j->active);
    int64_t gone = 0;
    for (; gone < n && gone < (int64_t)j->active.n; gone++) {
        TH_TRY(th_podctl_delete(j->c, j->key, j->job, order[gone], err));
    }
    j->terminating += gone;
    struct th_pods left = {NULL, 0, 0};
    for (int64_t i = gone; i < (int64_t)j->active.n; i++) {
        th_pods_add(&left, order[i]);
    }
    th_pods_done(&j->active);
    j->active = left;
    return 0;
}

static int manage(struct th_job *j, struct th_err *err)
{
    bool ending = th_job_condition(j, "SuccessCriteriaMet") || th_job_condition(j, "FailureTarget");
    if (ending || job_bool(j, "spec.suspend")) {
        return delete_pods(j, (int64_t)j->active.n, err);
    }
    int64_t active = (int64_t)j->active.n;
    int64_t parallel = th_json_path_int(j->job, "spec.parallelism", 1), wanted = parallel;
    if (th_json_path(j->job, "spec.completions")) {
        int64_t left = th_json_path_int(j->job, "spec.completions", 1) - j->succeeded -
                       (int64_t)j->failed_indexes.count;
        wanted = left < parallel ? left : parallel;
    } else if (j->succeeded > 0) {
        wanted = active;
    }
    if (active > wanted) {
        return delete_pods(j, active - wanted, err);
    }
    bool patient = th_streq(th_json_path_str(j->job, "spec.podReplacementPolicy"), "Failed") ||
                   th_json_path(j->job, "spec.podFailurePolicy");
    int64_t missing = wanted - active - (patient ? j->terminating : 0);
    return missing > 0 ? create_pods(j, missing, err) : 0;
}

/* ---- The whole ---- */

static void suspend_or_resume(struct th_job *j)
{
    bool suspended = job_bool(j, "spec.suspend");
    if (suspended && !th_job_condition(j, "Suspended")) {
        set_condition(j, "Suspended", "True", "JobSuspended", "Job suspended");
        (void)th_json_del(j->status, "startTime");
        th_event_record(th_ctrl_recorder(j->c), j->job, "Normal", "Suspended", "Job suspended");
    } else if (!suspended && th_job_condition(j, "Suspended")) {
        set_condition(j, "Suspended", "False", "JobResumed", "Job resumed");
        th_event_record(th_ctrl_recorder(j->c), j->job, "Normal", "Resumed", "Job resumed");
    }
    if (!suspended && !th_json_get(j->status, "startTime")) {
        th_json_set(j->status, "startTime", th_time_now_json());
    }
}

static void sort_pods(struct th_job *j)
{
    for (size_t i = 0; i < j->pods.n; i++) {
        struct th_json *pod = j->pods.v[i];
        if (th_pod_is_active(pod)) {
            th_pods_add(&j->active, pod);
            j->ready += th_pod_is_ready(pod);
        }
        j->terminating += th_pod_is_terminating(pod);
    }
}

static int64_t ready_of(const struct th_job *j)
{
    int64_t n = 0;
    for (size_t i = 0; i < j->active.n; i++) {
        n += th_pod_is_ready(j->active.v[i]);
    }
    return n;
}

static int sync_job(struct th_job *j, const struct th_json *stored, struct th_err *err)
{
    struct th_err why TH_CLEANUP(th_err_done) = TH_ERR_INIT;
    sort_pods(j);
    suspend_or_resume(j);
    th_job_count(j);
    decide(j);
    int managed = manage(j, &why);
    if (th_job_condition(j, "SuccessCriteriaMet") || th_job_condition(j, "FailureTarget")) {
        conclude(j);
    }
    th_status_count(j->status, "active", (int64_t)j->active.n);
    th_json_set_int(j->status, "ready", ready_of(j));
    th_json_set_int(j->status, "terminating", j->terminating);
    struct th_json *status TH_AUTO(th_json) = th_json_ref(j->status);
    TH_TRY(th_ctrl_write_status(j->c, j->key, GVR_JOBS, stored, status, err));
    bool finished = th_job_condition(j, "Complete") || th_job_condition(j, "Failed");
    TH_TRY(th_job_release_pods(j, finished, err));
    if (managed < 0) {
        th_err_move(err, &why);
    }
    return managed < 0 ? managed : 0;
}

/* Takes the finalizer off a pod whose job is gone. */
static int check_pod(struct th_ctrl *c, const char *pod_key, struct th_err *err)
{
    const char *name = NULL;
    th_autofree char *ns = th_ctrl_key_split(pod_key, &name);
    struct th_json *pod TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, TH_GVR_PODS), ns, name);
    const struct th_json *ref = th_controller_of(pod);
    if (!pod || !th_job_is_tracked(pod)) {
        return 0;
    }
    if (th_streq(th_json_path_str(ref, "kind"), "Job")) {
        struct th_json *job TH_AUTO(th_json) = NULL;
        int r = th_client_get(th_ctrl_client(c), GVR_JOBS, ns, th_json_path_str(ref, "name"), &job,
                              err);
        if (r == -TH_R_NOT_FOUND) {
            th_err_done(err);
            r = 0;
        }
        TH_TRY(r);
        if (th_streq(th_json_path_str(job, "metadata.uid"), th_json_path_str(ref, "uid"))) {
            return 0;
        }
    }
    return th_job_untrack(c, NULL, pod, err);
}

/* The pods of a job that has ended must not be held by the finalizer. */
static bool release_one(void *arg, struct th_json *pod)
{
    th_pods_add(&((struct th_job *)arg)->pods, pod);
    return true;
}

static int reconcile(struct th_ctrl *c, const char *key, int64_t *ret_after_ms, struct th_err *err)
{
    if (th_startswith(key, POD_KEY)) {
        return check_pod(c, key + strlen(POD_KEY), err);
    }
    const char *name = NULL;
    th_autofree char *ns = th_ctrl_key_split(key, &name);
    struct th_json *job TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, GVR_JOBS), ns, name);
    const char *by = th_json_path_str(job, "spec.managedBy");
    if (!job || (by && !th_streq(by, "kubernetes.io/job-controller"))) {
        return 0;
    }
    struct th_json *copy TH_AUTO(th_json) = th_json_dup(job);
    struct th_job j = {
        .c = c, .key = key, .job = copy, .ret_after_ms = ret_after_ms};
    j.status = th_json_path_object(copy, "status");
    j.indexed = th_streq(th_json_path_str(copy, "spec.completionMode"), "Indexed");
    size_t n = j.indexed ? (size_t)th_json_path_int(copy, "spec.completions", 0) : 0;
    th_indexes_init(&j.completed, n, th_json_path_str(copy, "status.completedIndexes"));
    th_indexes_init(&j.failed_indexes, n, th_json_path_str(copy, "status.failedIndexes"));
    bool over = th_job_condition(&j, "Complete") || th_job_condition(&j, "Failed") ||
                th_json_path_str(job, "metadata.deletionTimestamp");
    int r = 0;
    if (over) {
        th_informer_by_owner(th_ctrl_informer(c, TH_GVR_PODS), th_json_path_str(job, "metadata.uid"),
                             release_one, &j);
        r = th_job_release_pods(&j, true, err);
    } else {
        struct th_selector *sel TH_AUTO(th_selector) = NULL;
        r = th_selector_from_json(th_json_path(job, "spec.selector"), &sel, err);
        if (r == 0) {
            r = th_podctl_claim(c, th_ctrl_state(c), job, GVR_JOBS, sel, NULL, &j.pods, err);
        }
        r = r < 0 ? r : sync_job(&j, job, err);
    }
    th_pods_done(&j.pods);
    th_pods_done(&j.active);
    th_indexes_done(&j.completed);
    th_indexes_done(&j.failed_indexes);
    free(j.fail_reason);
    free(j.fail_message);
    return r;
}

static const struct th_ctrl_watch watches[] = {
    {.gvr = {"batch", "v1", "jobs"}, .on_event = th_ctrl_on_self},
    {.gvr = {"", "v1", "pods"}, .on_event = on_pod},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_job = {
    .name = "job-controller",
    .account = "job-controller",
    .watches = watches,
    .reconcile = reconcile,
    .state_new = th_orphans_new,
    .state_free = th_orphans_free,
};
