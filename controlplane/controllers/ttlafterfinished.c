/* TTL after finished: Jobs that ended are deleted ttlSecondsAfterFinished later, with their pods. */
#include "controlplane/controllers/controller.h"
#include "controlplane/controllers/podutil.h"
#include "base/buf.h"
#include "base/clock.h"

#define GVR_JOBS ((struct th_gvr){"batch", "v1", "jobs"})

static int reconcile(struct th_ctrl *c, const char *key, int64_t *ret_after_ms, struct th_err *err)
{
    const char *name = NULL;
    th_autofree char *ns = th_ctrl_key_split(key, &name);
    struct th_json *job TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, GVR_JOBS), ns, name);
    const struct th_json *end = th_cond_is_true(job, "Complete") ? th_cond_get(job, "Complete")
                                : th_cond_is_true(job, "Failed") ? th_cond_get(job, "Failed")
                                                                 : NULL;
    if (!end || !th_json_path(job, "spec.ttlSecondsAfterFinished") ||
        th_json_path_str(job, "metadata.deletionTimestamp")) {
        return 0;
    }
    int64_t ttl = th_json_path_int(job, "spec.ttlSecondsAfterFinished", 0);
    int64_t left = th_obj_time_ms(end, "lastTransitionTime") + ttl * 1000 - th_now_ms();
    if (left > 0) {
        *ret_after_ms = left;
        return 0;
    }
    return th_ctrl_delete(c, key, GVR_JOBS, job, "Foreground", err);
}

static const struct th_ctrl_watch watches[] = {
    {.gvr = {"batch", "v1", "jobs"}, .on_event = th_ctrl_on_self},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_ttlafterfinished = {
    .name = "ttl-after-finished-controller",
    .account = "ttl-after-finished-controller",
    .watches = watches,
    .reconcile = reconcile,
};
