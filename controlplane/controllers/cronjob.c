/*
 * CronJob: makes a Job at every scheduled time.
 *
 * The last scheduled time that has passed since the last one that was used (status.lastScheduleTime,
 * else the creation) is the one to act on; earlier missed ones are not made up for. How late it may
 * be says startingDeadlineSeconds; what happens when an earlier Job still runs says
 * concurrencyPolicy. The Job's name is made of the scheduled minute, so that a time is never used
 * twice. Ended Jobs leave status.active and are kept up to the history limits.
 *
 * Rules as k8s.io/kubernetes pkg/controller/cronjob.
 */
#include "controlplane/controllers/controller.h"
#include "controlplane/controllers/cron_schedule.h"
#include "controlplane/controllers/podutil.h"
#include "base/buf.h"
#include "base/clock.h"
#include <inttypes.h>
#include <strings.h>

#define GVR_JOBS ((struct th_gvr){"batch", "v1", "jobs"})
#define GVR_CRONJOBS ((struct th_gvr){"batch", "v1", "cronjobs"})
#define MISSED_MAX 100
#define SCHEDULED_ANNOTATION "batch.kubernetes.io/cronjob-scheduled-timestamp"

struct cron {
    struct th_ctrl *c;
    const char *key;
    struct th_json *obj;    /* our copy */
    struct th_json *status; /* borrowed from obj */
    struct th_json *jobs;   /* array: all that it owns */
    struct th_timezone zone;
};

static void on_job(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    th_ctrl_enqueue_owner(c, old, now, "CronJob");
}

static const char *ended_as(const struct th_json *job)
{
    return th_cond_is_true(job, "Complete") ? "Complete"
           : th_cond_is_true(job, "Failed") ? "Failed"
                                            : NULL;
}

/* ---- Jobs that are there ---- */

static struct th_json *job_by_uid(const struct cron *x, const char *uid)
{
    for (size_t i = 0; i < th_json_len(x->jobs); i++) {
        if (th_streq(th_json_path_str(th_json_at(x->jobs, i), "metadata.uid"), uid)) {
            return th_json_at(x->jobs, i);
        }
    }
    return NULL;
}

static bool is_active(const struct cron *x, const char *uid)
{
    const struct th_json *active = th_json_get(x->status, "active");
    for (size_t i = 0; i < th_json_len(active); i++) {
        if (th_streq(th_json_path_str(th_json_at(active, i), "uid"), uid)) {
            return true;
        }
    }
    return false;
}

static void note_success(struct cron *x, const struct th_json *job)
{
    int64_t ms = th_obj_time_ms(job, "status.completionTime");
    if (th_streq(ended_as(job), "Complete") && ms > th_obj_time_ms(x->status, "lastSuccessfulTime")) {
        th_json_set_str(x->status, "lastSuccessfulTime",
                        th_json_path_str(job, "status.completionTime"));
    }
}

/* What ended or vanished leaves the list of active ones. */
static void update_active(struct cron *x)
{
    struct th_json *active = th_json_get(x->status, "active");
    for (size_t i = 0; i < th_json_len(x->jobs); i++) {
        const struct th_json *job = th_json_at(x->jobs, i);
        const char *name = th_json_path_str(job, "metadata.name");
        if (!ended_as(job) && !is_active(x, th_json_path_str(job, "metadata.uid"))) {
            th_event_record(th_ctrl_recorder(x->c), x->obj, "Warning", "UnexpectedJob",
                            "Saw a job that the controller did not create or forgot: %s", name);
        }
    }
    for (size_t i = th_json_len(active); i-- > 0;) {
        const char *name = th_json_path_str(th_json_at(active, i), "name");
        const struct th_json *job = job_by_uid(x, th_json_path_str(th_json_at(active, i), "uid"));
        if (job && !ended_as(job)) {
            continue;
        }
        if (job) {
            th_event_record(th_ctrl_recorder(x->c), x->obj, "Normal", "SawCompletedJob",
                            "Saw completed job: %s, condition: %s", name, ended_as(job));
            note_success(x, job);
        } else {
            th_event_record(th_ctrl_recorder(x->c), x->obj, "Normal", "MissingJob",
                            "Active job went missing: %s", name);
        }
        th_json_del_at(active, i);
    }
    if (active && th_json_len(active) == 0) {
        (void)th_json_del(x->status, "active");
    }
}

static int older_first(const struct th_json *a, const struct th_json *b)
{
    int64_t ta = th_obj_time_ms(a, "status.startTime"), tb = th_obj_time_ms(b, "status.startTime");
    return ta != tb ? (ta < tb ? -1 : 1)
                    : strcmp(th_json_path_str(a, "metadata.name"),
                             th_json_path_str(b, "metadata.name"));
}

static int trim(struct cron *x, const char *how, int64_t keep, struct th_err *err)
{
    int64_t n = 0;
    for (size_t i = 0; i < th_json_len(x->jobs); i++) {
        n += th_streq(ended_as(th_json_at(x->jobs, i)), how);
    }
    for (size_t i = 0; i < th_json_len(x->jobs) && n > keep; i++) {
        const struct th_json *job = th_json_at(x->jobs, i);
        if (th_streq(ended_as(job), how) && !th_json_path_str(job, "metadata.deletionTimestamp")) {
            TH_TRY(th_ctrl_delete(x->c, x->key, GVR_JOBS, job, "Background", err));
            th_event_record(th_ctrl_recorder(x->c), x->obj, "Normal", "SuccessfulDelete",
                            "Deleted job %s", th_json_path_str(job, "metadata.name"));
            n--;
        }
    }
    return 0;
}

static int trim_history(struct cron *x, struct th_err *err)
{
    th_json_sort(x->jobs, older_first);
    TH_TRY(trim(x, "Complete", th_json_path_int(x->obj, "spec.successfulJobsHistoryLimit", 3),
                err));
    return trim(x, "Failed", th_json_path_int(x->obj, "spec.failedJobsHistoryLimit", 1), err);
}

/* ---- The schedule ---- */

/* The latest scheduled time that is due (seconds), 0 when none is. */
static int64_t due_time(struct cron *x, const struct th_cron *schedule, int64_t now_s)
{
    const struct th_timezone *zone = &x->zone;
    int64_t from = th_obj_time_ms(x->obj, "metadata.creationTimestamp") / 1000;
    int64_t last = th_obj_time_ms(x->status, "lastScheduleTime") / 1000;
    from = last > from ? last : from;
    int64_t deadline = th_json_path_int(x->obj, "spec.startingDeadlineSeconds", -1);
    if (deadline >= 0 && now_s - deadline > from) {
        from = now_s - deadline;
    }
    int64_t due = 0, missed = 0;
    for (int64_t t = th_cron_next(schedule, zone, from); t > 0 && t <= now_s;
         t = th_cron_next(schedule, zone, t)) {
        due = t;
        /* A long pause of a dense schedule: jump to where the present begins. */
        if (++missed == MISSED_MAX) {
            int64_t step = th_cron_next(schedule, zone, t) - t;
            if (step > 0 && now_s - t > 2 * step && schedule->every_s == 0) {
                t = now_s - 2 * step - 60 > t ? now_s - 2 * step - 60 : t;
            }
        }
    }
    if (missed > MISSED_MAX) {
        th_event_record(th_ctrl_recorder(x->c), x->obj, "Warning", "TooManyMissedTimes",
                        "too many missed start times. Set or decrease "
                        ".spec.startingDeadlineSeconds or check clock skew");
    }
    return due;
}

/* RFC 3339 with the offset of the job's zone. */
static const char *local_text(const struct cron *x, int64_t when_s, char text[TH_TIME_LEN])
{
    int64_t east = th_timezone_offset(&x->zone, when_s);
    (void)th_time_format((when_s + east) * 1000, text);
    if (east != 0) {
        size_t n = strcspn(text, "Z");
        int64_t minutes = (east < 0 ? -east : east) / 60;
        (void)snprintf(text + n, TH_TIME_LEN - n, "%c%02d:%02d", east < 0 ? '-' : '+',
                       (int)(minutes / 60), (int)(minutes % 60));
    }
    return text;
}

static struct th_json *build_job(const struct cron *x, int64_t when_s)
{
    static const char *const copied[] = {"labels", "annotations"};
    const struct th_json *tmpl = th_json_path(x->obj, "spec.jobTemplate");
    char when[TH_TIME_LEN];
    th_autofree char *name = th_xasprintf("%s-%" PRId64, th_json_path_str(x->obj, "metadata.name"),
                                          when_s / 60);
    struct th_json *owners = th_json_array();
    th_json_append(owners, th_owner_ref_build(x->obj, true, true));
    struct th_json *job = th_json_build(
        "{'apiVersion':'batch/v1','kind':'Job','metadata':{'name':%s,'namespace':%s,"
        "'ownerReferences':%o},'spec':%o}",
        name, th_json_path_str(x->obj, "metadata.namespace"), owners,
        th_json_dup(th_json_get(tmpl, "spec")));
    for (size_t i = 0; i < TH_ARRAY_LEN(copied); i++) {
        const struct th_json *v = th_json_get(th_json_get(tmpl, "metadata"), copied[i]);
        if (th_json_len(v)) {
            th_json_set(th_json_get(job, "metadata"), copied[i], th_json_dup(v));
        }
    }
    th_json_set_str(th_json_path_object(job, "metadata.annotations"), SCHEDULED_ANNOTATION,
                    local_text(x, when_s, when));
    return job;
}

/* 1: go on and start, 0: not this time. */
static int make_way(struct cron *x, struct th_err *err)
{
    const char *policy = th_json_path_str(x->obj, "spec.concurrencyPolicy");
    const struct th_json *active = th_json_get(x->status, "active");
    if (th_json_len(active) == 0) {
        return 1;
    }
    if (th_streq(policy, "Forbid")) {
        th_event_record(th_ctrl_recorder(x->c), x->obj, "Normal", "JobAlreadyActive",
                        "Not starting job because prior execution is running and concurrency "
                        "policy is Forbid");
        return 0;
    }
    for (size_t i = 0; th_streq(policy, "Replace") && i < th_json_len(active); i++) {
        const struct th_json *job = job_by_uid(x, th_json_path_str(th_json_at(active, i), "uid"));
        if (job) {
            TH_TRY(th_ctrl_delete(x->c, x->key, GVR_JOBS, job, "Background", err));
            th_event_record(th_ctrl_recorder(x->c), x->obj, "Normal", "SuccessfulDelete",
                            "Deleted job %s", th_json_path_str(job, "metadata.name"));
        }
    }
    if (th_streq(policy, "Replace")) {
        (void)th_json_del(x->status, "active");
    }
    return 1;
}

static int start_job(struct cron *x, int64_t when_s, struct th_err *err)
{
    int r = make_way(x, err);
    if (r <= 0) {
        return r;
    }
    struct th_json *job TH_AUTO(th_json) = build_job(x, when_s);
    struct th_json *made TH_AUTO(th_json) = NULL;
    r = th_client_create(th_ctrl_client(x->c), GVR_JOBS,
                         th_json_path_str(x->obj, "metadata.namespace"), job, &made, err);
    char when[TH_TIME_LEN];
    if (r == -TH_R_ALREADY_EXISTS) { /* made before, and not remembered */
        th_err_done(err);
        th_json_set_str(x->status, "lastScheduleTime", th_time_format(when_s * 1000, when));
        return 0;
    }
    if (r < 0) {
        th_event_record(th_ctrl_recorder(x->c), x->obj, "Warning", "FailedCreate",
                        "Error creating job: %s", err->msg);
        return r;
    }
    th_ctrl_expect(x->c, x->key, GVR_JOBS, made);
    th_event_record(th_ctrl_recorder(x->c), x->obj, "Normal", "SuccessfulCreate", "Created job %s",
                    th_json_path_str(made, "metadata.name"));
    th_json_append(
        th_json_path_array(x->status, "active"),
        th_json_build("{'apiVersion':'batch/v1','kind':'Job','name':%s,'namespace':%s,'uid':%s,"
                      "'resourceVersion':%s}",
                      th_json_path_str(made, "metadata.name"),
                      th_json_path_str(made, "metadata.namespace"),
                      th_json_path_str(made, "metadata.uid"),
                      th_json_path_str(made, "metadata.resourceVersion")));
    th_json_set_str(x->status, "lastScheduleTime", th_time_format(when_s * 1000, when));
    return 0;
}

static int follow_schedule(struct cron *x, int64_t *ret_after_ms, struct th_err *err)
{
    struct th_cron schedule;
    struct th_err bad TH_CLEANUP(th_err_done) = TH_ERR_INIT;
    const char *text = th_json_path_str(x->obj, "spec.schedule");
    const char *zone = th_json_path_str(x->obj, "spec.timeZone");
    if (th_json_path_str(x->obj, "metadata.deletionTimestamp") ||
        th_json_path_bool(x->obj, "spec.suspend", false)) {
        return 0;
    }
    if (!th_timezone_find(zone ? zone : "", &x->zone)) {
        th_event_record(th_ctrl_recorder(x->c), x->obj, "Warning", "UnknownTimeZone",
                        "invalid timeZone: unknown time zone %s", zone);
        return 0;
    }
    if (th_cron_parse(text ? text : "", &schedule, &bad) < 0) {
        th_event_record(th_ctrl_recorder(x->c), x->obj, "Warning", "UnparseableSchedule",
                        "unparseable schedule: %s : %s", text ? text : "", bad.msg);
        return 0;
    }
    int64_t now_s = th_now_ms() / 1000;
    if (th_cron_next(&schedule, &x->zone, now_s) < 0) { /* the 31st of February */
        th_event_record(th_ctrl_recorder(x->c), x->obj, "Warning", "InvalidSchedule",
                        "invalid schedule: %s : time difference between two schedules is less than "
                        "1 second",
                        text);
        return 0;
    }
    int64_t due = due_time(x, &schedule, now_s);
    if (due > 0) {
        TH_TRY(start_job(x, due, err));
    }
    int64_t next = th_cron_next(&schedule, &x->zone, schedule.every_s > 0 && due > 0 ? due : now_s);
    if (next > 0) {
        *ret_after_ms = next * 1000 - th_now_ms() + 100;
    }
    return 0;
}

static bool collect(void *arg, struct th_json *job)
{
    th_json_append(arg, th_json_ref(job));
    return true;
}

static int reconcile(struct th_ctrl *c, const char *key, int64_t *ret_after_ms, struct th_err *err)
{
    const char *name = NULL;
    th_autofree char *ns = th_ctrl_key_split(key, &name);
    struct th_json *stored TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, GVR_CRONJOBS), ns, name);
    if (!stored) {
        return 0;
    }
    struct th_json *copy TH_AUTO(th_json) = th_json_dup(stored);
    struct th_json *jobs TH_AUTO(th_json) = th_json_array();
    struct cron x = {.c = c,
                     .key = key,
                     .obj = copy,
                     .status = th_json_path_object(copy, "status"),
                     .jobs = jobs};
    th_informer_by_owner(th_ctrl_informer(c, GVR_JOBS), th_json_path_str(copy, "metadata.uid"),
                         collect, jobs);
    TH_TRY(trim_history(&x, err));
    update_active(&x);
    int r = follow_schedule(&x, ret_after_ms, err);
    struct th_json *status TH_AUTO(th_json) = th_json_ref(x.status);
    if (th_json_len(status) || th_json_get(stored, "status")) {
        struct th_err second TH_CLEANUP(th_err_done) = TH_ERR_INIT;
        int w = th_ctrl_write_status(c, key, GVR_CRONJOBS, stored, status, &second);
        if (w < 0 && r >= 0) {
            th_err_move(err, &second);
            r = w;
        }
    }
    return r;
}

static const struct th_ctrl_watch watches[] = {
    {.gvr = {"batch", "v1", "cronjobs"}, .on_event = th_ctrl_on_self},
    {.gvr = {"batch", "v1", "jobs"}, .on_event = on_job},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_cronjob = {
    .name = "cronjob-controller",
    .account = "cronjob-controller",
    .watches = watches,
    .reconcile = reconcile,
};
