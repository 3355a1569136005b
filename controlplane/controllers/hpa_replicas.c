/*
 * How many replicas the measured values call for: upstream's arithmetic.
 *
 * The ratio of what is used to what is wanted, times the pods that were measured. Pods that are not ready
 * yet count as using nothing when that would scale up, pods without values as using all that is wanted
 * when that would scale down and nothing when up: what is not known must not make things worse. A ratio
 * within the tolerance changes nothing, nor does one that turns round once those pods are counted.
 */
#include "controlplane/controllers/hpa_priv.h"

#include "base/clock.h"

#include <math.h>

#define INITIALIZATION_MS 300000 /* processor time of pods this young is not believed */
#define INITIAL_READINESS_MS 30000

struct pods_by { /* names are borrowed from pods */
    struct th_pods all;
    struct th_strv unready, missing, ignored;
    int64_t ready;
};

static void pods_by_done(struct pods_by *p)
{
    th_pods_done(&p->all);
    th_strv_done(&p->unready);
    th_strv_done(&p->missing);
    th_strv_done(&p->ignored);
}

struct gather {
    const struct th_selector *sel;
    struct th_pods *pods;
};

static bool gather_one(void *arg, struct th_json *pod)
{
    struct gather *g = arg;
    if (th_selector_matches(g->sel, th_json_path(pod, "metadata.labels"))) {
        th_pods_add(g->pods, pod);
    }
    return true;
}

void th_hpa_pods(const struct th_hpa_query *q, struct th_pods *ret)
{
    TH_AUTO(th_selector) struct th_selector *sel = NULL;
    if (th_selector_parse(q->selector, &sel, NULL) >= 0) {
        struct gather g = {sel, ret};
        th_informer_each(th_ctrl_informer(q->c, TH_GVR_PODS), q->ns, gather_one, &g);
    }
}

static bool is_unready(const struct th_json *pod, const struct th_hpa_value *v)
{
    int64_t now = th_now_ms();
    const struct th_json *cond = th_cond_get(pod, "Ready");
    int64_t started = th_obj_time_ms(pod, "status.startTime");
    if (!cond || !started) {
        return true;
    }
    bool no = th_streq(th_json_path_str(cond, "status"), "False");
    int64_t moved = th_obj_time_ms(cond, "lastTransitionTime");
    if (started + INITIALIZATION_MS > now) {
        return no || v->at_ms < moved + v->window_ms;
    }
    return no && started + INITIAL_READINESS_MS > moved;
}

static void group(const struct th_hpa_query *q, const struct th_hpa_values *values,
                  const char *resource, struct pods_by *ret)
{
    th_hpa_pods(q, &ret->all);
    for (size_t i = 0; i < ret->all.n; i++) {
        const struct th_json *pod = ret->all.v[i];
        const char *name = th_json_path_str(pod, "metadata.name");
        const char *phase = th_json_path_str(pod, "status.phase");
        if (th_json_path(pod, "metadata.deletionTimestamp") || th_streq(phase, "Failed")) {
            th_strv_add(&ret->ignored, name);
            continue;
        }
        if (th_streq(phase, "Pending")) {
            th_strv_add(&ret->unready, name);
            continue;
        }
        const struct th_hpa_value *v = th_hpa_values_get(values, name);
        if (!v) {
            th_strv_add(&ret->missing, name);
        } else if (th_streq(resource, "cpu") && is_unready(pod, v)) {
            th_strv_add(&ret->unready, name);
        } else {
            ret->ready++;
        }
    }
}

/* Groups the pods and drops the values of those that do not count. */
static int prepare(const struct th_hpa_query *q, struct th_hpa_values *values, const char *resource,
                   struct pods_by *ret, struct th_err *err)
{
    group(q, values, resource, ret);
    if (ret->all.n == 0) {
        return th_fail(err, TH_R_UNAVAILABLE,
                       "no pods returned by selector while calculating replica count");
    }
    for (size_t i = 0; i < ret->ignored.n; i++) {
        th_hpa_values_remove(values, ret->ignored.v[i]);
    }
    for (size_t i = 0; i < ret->unready.n; i++) {
        th_hpa_values_remove(values, ret->unready.v[i]);
    }
    return values->n > 0 ? 0
                         : th_fail(err, TH_R_UNAVAILABLE, "did not receive metrics for targeted pods "
                                                          "(pods might be unready)");
}

static bool within(const struct th_hpa_query *q, double ratio)
{
    return ratio >= 1.0 - q->tolerance.down && ratio <= 1.0 + q->tolerance.up;
}

/* What the first ratio and the one with all pods counted call for. */
static int64_t decide(const struct th_hpa_query *q, double first, double now, size_t n)
{
    if (within(q, now) || (first < 1.0 && now > 1.0) || (first > 1.0 && now < 1.0)) {
        return q->current;
    }
    int64_t wanted = (int64_t)ceil(now * (double)n);
    if ((now < 1.0 && wanted > q->current) || (now > 1.0 && wanted < q->current)) {
        return q->current;
    }
    return wanted;
}

/* ---- utilization ---- */

static bool is_sidecar(const struct th_json *ctr)
{
    return th_streq(th_json_path_str(ctr, "restartPolicy"), "Always");
}

static int add_requests(const struct th_json *pod, const char *list, const char *resource,
                        const char *container, int64_t *sum, bool *found, struct th_err *err)
{
    bool init = th_streq(list, "spec.initContainers");
    const struct th_json *l = th_json_path(pod, list);
    for (size_t i = 0; i < th_json_len(l); i++) {
        const struct th_json *ctr = th_json_at(l, i);
        const char *name = th_json_path_str(ctr, "name");
        if ((init && !is_sidecar(ctr)) || (*container && !th_streq(name, container))) {
            continue;
        }
        const struct th_json *r = th_json_get(th_json_path(ctr, "resources.requests"), resource);
        if (!r) {
            return th_fail(err, TH_R_UNAVAILABLE,
                           "missing request for %s in container %s of Pod %s", resource, name,
                           th_json_path_str(pod, "metadata.name"));
        }
        *found = true;
        *sum += th_hpa_milli(r);
    }
    return 0;
}

static int requests_of(const struct pods_by *pods, const char *resource, const char *container,
                       struct th_hpa_values *ret, struct th_err *err)
{
    for (size_t i = 0; i < pods->all.n; i++) {
        const struct th_json *pod = pods->all.v[i];
        const char *name = th_json_path_str(pod, "metadata.name");
        const struct th_json *whole =
            th_json_get(th_json_path(pod, "spec.resources.requests"), resource);
        int64_t sum = 0;
        bool found = false;
        if (whole && !*container) {
            th_hpa_values_set(ret, name, th_hpa_milli(whole));
            continue;
        }
        TH_TRY(add_requests(pod, "spec.containers", resource, container, &sum, &found, err));
        TH_TRY(add_requests(pod, "spec.initContainers", resource, container, &sum, &found, err));
        if (*container && !found) {
            return th_fail(err, TH_R_UNAVAILABLE, "container %s not found in Pod %s", container,
                           name);
        }
        th_hpa_values_set(ret, name, sum);
    }
    return 0;
}

/* Usage over requests against the target, of pods that are in both. */
static int utilization(const struct th_hpa_values *values, const struct th_hpa_values *requests,
                       int64_t target, double *ret_ratio, int64_t *ret_percent, int64_t *ret_average,
                       struct th_err *err)
{
    int64_t used = 0, requested = 0, n = 0;
    for (size_t i = 0; i < values->n; i++) {
        const struct th_hpa_value *r = th_hpa_values_get(requests, values->v[i].pod);
        if (r) {
            used += values->v[i].milli;
            requested += r->milli;
            n++;
        }
    }
    if (requested == 0) {
        return th_fail(err, TH_R_UNAVAILABLE, "no metrics returned matched known pods");
    }
    int64_t percent = (int64_t)((__int128)used * 100 / requested);
    *ret_ratio = (double)percent / (double)target;
    if (ret_percent) {
        *ret_percent = percent;
        *ret_average = used / n;
    }
    return 0;
}

int th_hpa_by_utilization(const struct th_hpa_query *q, const char *resource, const char *container,
                          int64_t target, int64_t *ret_replicas, int64_t *ret_utilization,
                          int64_t *ret_usage, struct th_err *err)
{
    TH_CLEANUP(th_hpa_values_done) struct th_hpa_values values = {NULL, 0, 0};
    TH_CLEANUP(th_hpa_values_done) struct th_hpa_values requests = {NULL, 0, 0};
    TH_CLEANUP(pods_by_done) struct pods_by pods = {.ready = 0};
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    if (th_hpa_resource(th_ctrl_client(q->c), q->ns, q->selector, resource, container, &values,
                        &local) < 0) {
        return th_fail(err, TH_R_UNAVAILABLE, "unable to get metrics for resource %s: %s", resource,
                       local.msg);
    }
    TH_TRY(prepare(q, &values, resource, &pods, err));
    if (requests_of(&pods, resource, container, &requests, &local) < 0) {
        return th_fail(err, TH_R_UNAVAILABLE, "%s", local.msg);
    }
    double first = 0, now = 0;
    TH_TRY(utilization(&values, &requests, target, &first, ret_utilization, ret_usage, err));
    bool up_with_unready = pods.unready.n > 0 && first > 1.0;
    if (!up_with_unready && pods.missing.n == 0) {
        *ret_replicas = within(q, first) ? q->current : (int64_t)ceil(first * (double)pods.ready);
        return 0;
    }
    for (size_t i = 0; i < pods.missing.n && first != 1.0; i++) {
        const struct th_hpa_value *r = th_hpa_values_get(&requests, pods.missing.v[i]);
        int64_t percent = target > 100 ? target : 100;
        th_hpa_values_set(&values, pods.missing.v[i],
                          first < 1.0 && r ? r->milli * percent / 100 : 0);
    }
    for (size_t i = 0; up_with_unready && i < pods.unready.n; i++) {
        th_hpa_values_set(&values, pods.unready.v[i], 0);
    }
    TH_TRY(utilization(&values, &requests, target, &now, NULL, NULL, err));
    *ret_replicas = decide(q, first, now, values.n);
    return 0;
}

/* ---- averages over pods ---- */

static double usage_ratio(const struct th_hpa_values *values, int64_t target, int64_t *ret_usage)
{
    int64_t total = 0;
    for (size_t i = 0; i < values->n; i++) {
        total += values->v[i].milli;
    }
    int64_t average = total / (int64_t)values->n;
    if (ret_usage) {
        *ret_usage = average;
    }
    return (double)average / (double)target;
}

int th_hpa_by_average(const struct th_hpa_query *q, struct th_hpa_values *values, const char *resource,
                      int64_t target, int64_t *ret_replicas, int64_t *ret_usage, struct th_err *err)
{
    TH_CLEANUP(pods_by_done) struct pods_by pods = {.ready = 0};
    TH_TRY(prepare(q, values, resource, &pods, err));
    double first = usage_ratio(values, target, ret_usage);
    bool up_with_unready = pods.unready.n > 0 && first > 1.0;
    if (!up_with_unready && pods.missing.n == 0) {
        *ret_replicas = within(q, first) ? q->current : (int64_t)ceil(first * (double)pods.ready);
        return 0;
    }
    for (size_t i = 0; i < pods.missing.n; i++) {
        th_hpa_values_set(values, pods.missing.v[i], first < 1.0 ? target : 0);
    }
    for (size_t i = 0; up_with_unready && i < pods.unready.n; i++) {
        th_hpa_values_set(values, pods.unready.v[i], 0);
    }
    *ret_replicas = decide(q, first, usage_ratio(values, target, NULL), values->n);
    return 0;
}

/* ---- values that are no pod's ---- */

int th_hpa_by_total(const struct th_hpa_query *q, int64_t usage, int64_t target,
                    int64_t *ret_replicas, struct th_err *err)
{
    double ratio = (double)usage / (double)target;
    if (q->current == 0) {
        *ret_replicas = (int64_t)ceil(ratio); /* from nothing: as if there were one */
        return 0;
    }
    if (within(q, ratio)) {
        *ret_replicas = q->current;
        return 0;
    }
    TH_CLEANUP(th_pods_done) struct th_pods pods = {NULL, 0, 0};
    th_hpa_pods(q, &pods);
    if (pods.n == 0) {
        return th_fail(err, TH_R_UNAVAILABLE,
                       "unable to calculate ready pods: no pods returned by selector while "
                       "calculating replica count");
    }
    int64_t ready = 0;
    for (size_t i = 0; i < pods.n; i++) {
        ready += th_streq(th_json_path_str(pods.v[i], "status.phase"), "Running") &&
                 th_pod_is_ready(pods.v[i]);
    }
    *ret_replicas = (int64_t)ceil(ratio * (double)ready);
    return 0;
}

int64_t th_hpa_by_share(const struct th_hpa_query *q, int64_t *usage, int64_t target)
{
    int64_t replicas = q->status_replicas;
    double ratio = (double)*usage / ((double)target * (double)replicas);
    if (replicas == 0 || !within(q, ratio)) {
        replicas = (int64_t)ceil((double)*usage / (double)target);
    }
    if (q->status_replicas > 0) {
        *usage = (int64_t)ceil((double)*usage / (double)q->status_replicas);
    }
    return replicas;
}
