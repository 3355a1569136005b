/*
 * HorizontalPodAutoscaler: keeps the replicas of whatever has a scale subresource at what measured values
 * call for.
 *
 * Every quarter of a minute, for each autoscaler: the target's scale is read, each metric of the spec
 * says how many replicas it calls for (hpa_replicas.c), the greatest number counts, and it is held back by
 * what was recommended lately, by the rules of the spec and by its bounds (hpa_behavior.c). What was found
 * and why nothing may be done stands in the conditions AbleToScale, ScalingActive and ScalingLimited, in
 * upstream's words.
 *
 * Recommendations live in memory only, as upstream: after a restart the window begins anew.
 */
#include "controlplane/controllers/hpa_priv.h"

#include "base/clock.h"
#include "base/hmap.h"
#include "controlplane/schema/quantity.h"
#include "controlplane/schema/schema.h"

#include <pthread.h>

#define SYNC_MS 15000
#define TOLERANCE 0.1

static const struct th_gvr gvr = {"autoscaling", "v2", "horizontalpodautoscalers"};

struct state {
    pthread_mutex_t lock;    /* guards the map; a memory belongs to its key's reconcile */
    struct th_hmap memories; /* key -> struct th_hpa_memory */
    struct th_hpa_selectors *selectors;
};

static void *state_new(struct th_ctrl *c)
{
    (void)c;
    struct state *s = TH_NEW(struct state);
    (void)pthread_mutex_init(&s->lock, NULL);
    th_hmap_init(&s->memories, th_hpa_memory_free);
    s->selectors = th_hpa_selectors_new();
    return s;
}

static void state_free(void *p)
{
    struct state *s = p;
    th_hmap_done(&s->memories);
    th_hpa_selectors_free(s->selectors);
    (void)pthread_mutex_destroy(&s->lock);
    free(s);
}

static struct th_hpa_memory *memory_of(struct th_ctrl *c, const char *key)
{
    struct state *s = th_ctrl_state(c);
    (void)pthread_mutex_lock(&s->lock);
    struct th_hpa_memory *m = th_hmap_get(&s->memories, key);
    if (!m) {
        m = TH_NEW(struct th_hpa_memory);
        th_hmap_set(&s->memories, key, m);
    }
    (void)pthread_mutex_unlock(&s->lock);
    return m;
}

static void forget(struct th_ctrl *c, const char *key)
{
    struct state *s = th_ctrl_state(c);
    (void)pthread_mutex_lock(&s->lock);
    th_hpa_memory_free(th_hmap_remove(&s->memories, key));
    (void)pthread_mutex_unlock(&s->lock);
}

/* ---- one round ---- */

struct round {
    struct th_ctrl *c;
    const char *key, *ns;
    const struct th_json *hpa;
    struct th_json *conditions, *metrics; /* owned */
    struct th_json *scale;                /* owned; of the target */
    struct th_rl_item target;
    int64_t current, status_replicas;
    char *selector;
};

static void round_done(struct round *r)
{
    th_json_unref(r->conditions);
    th_json_unref(r->metrics);
    th_json_unref(r->scale);
    th_rl_item_done(&r->target);
    free(r->selector);
}

static void condition(struct round *r, const char *type, bool yes, const char *reason,
                      const char *message)
{
    (void)th_cond_put(r->conditions, type, yes ? "True" : "False", reason, message);
}

static void warn(struct round *r, const char *reason, const char *message)
{
    th_event_record(th_ctrl_recorder(r->c), r->hpa, "Warning", reason, "%s", message);
}

static int write_status(struct round *r, int64_t current, int64_t desired, bool rescaled,
                        struct th_err *err)
{
    struct th_json *status TH_AUTO(th_json) = th_json_object();
    const struct th_json *was = th_json_get(r->hpa, "status");
    th_json_set(status, "conditions", th_json_dup(r->conditions));
    if (r->metrics && th_json_len(r->metrics) > 0) {
        th_json_set(status, "currentMetrics", th_json_dup(r->metrics));
    }
    if (current != 0) {
        th_json_set_int(status, "currentReplicas", current);
    }
    th_json_set_int(status, "desiredReplicas", desired);
    if (rescaled) {
        th_json_set(status, "lastScaleTime", th_time_now_json());
    } else if (th_json_get(was, "lastScaleTime")) {
        th_json_set(status, "lastScaleTime", th_json_dup(th_json_get(was, "lastScaleTime")));
    }
    return th_ctrl_write_status(r->c, NULL, gvr, r->hpa, status, err);
}

static int64_t was_desired(const struct round *r)
{
    return th_json_path_int(r->hpa, "status.desiredReplicas", 0);
}

static int get_scale(struct round *r, struct th_err *err)
{
    const struct th_json *ref = th_json_path(r->hpa, "spec.scaleTargetRef");
    const char *api_version = th_json_path_str(ref, "apiVersion");
    const char *kind = th_json_path_str(ref, "kind"), *name = th_json_path_str(ref, "name");
    if (!th_ctrl_served(r->c, api_version ? api_version : "v1", kind, &r->target)) {
        th_autofree char *group = NULL;
        th_autofree char *version = NULL;
        TH_TRY(th_gv_split(api_version ? api_version : "v1", &group, &version, err));
        return th_fail(err, TH_R_NOT_FOUND, "no matches for kind \"%s\" in group \"%s\"", kind, group);
    }
    th_autofree char *path = th_client_path(th_rl_gvr(&r->target), r->ns, name, "scale");
    th_autobuf struct th_buf body = TH_BUF_INIT;
    const struct th_raw_req req = {.method = "GET", .path = path};
    TH_TRY(th_client_raw(th_ctrl_client(r->c), &req, NULL, &body, err));
    TH_TRY(th_json_parse(th_buf_cstr(&body), body.n, NULL, &r->scale, err));
    r->current = th_json_path_int(r->scale, "spec.replicas", 0);
    r->status_replicas = th_json_path_int(r->scale, "status.replicas", 0);
    const char *selector = th_json_path_str(r->scale, "status.selector");
    r->selector = th_xstrdup(selector ? selector : "");
    return 0;
}

/* ---- metrics ---- */

struct measure { /* one metric of the spec */
    struct round *r;
    const struct th_json *source; /* spec.metrics[i].resource, ... */
    const char *type, *name, *container;
    struct th_hpa_query q;
    int64_t replicas;
    struct th_json *status; /* owned by whoever takes it */
    char *title;            /* for messages */
};

static struct th_json *quantity(int64_t milli)
{
    char buf[TH_QUANTITY_LEN];
    return th_json_string(th_quantity_format(th_quantity_from_milli(milli, TH_Q_DECIMAL_SI), buf));
}

static int64_t target_milli(const struct measure *m, const char *member)
{
    return th_hpa_milli(th_json_get(th_json_get(m->source, "target"), member));
}

static bool has_target(const struct measure *m, const char *member)
{
    return th_json_get(th_json_get(m->source, "target"), member) != NULL;
}

/* {type, <member>: {..., current}} */
static struct th_json *status_of(const char *type, const char *member, struct th_json *inside,
                                 struct th_json *current)
{
    th_json_set(inside, "current", current);
    struct th_json *o = th_json_build("{'type':%s}", type);
    th_json_set(o, member, inside);
    return o;
}

static struct th_json *copy_of(const struct measure *m, const char *a, const char *b)
{
    struct th_json *o = th_json_object();
    const char *names[] = {a, b};
    for (size_t i = 0; i < 2 && names[i]; i++) {
        if (th_json_get(m->source, names[i])) {
            th_json_set(o, names[i], th_json_dup(th_json_get(m->source, names[i])));
        }
    }
    return o;
}

static int measure_resource(struct measure *m, struct th_err *err)
{
    bool container = *m->container != '\0';
    const char *member = container ? "containerResource" : "resource";
    int64_t usage = 0, percent = 0;
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    if (has_target(m, "averageValue")) {
        TH_CLEANUP(th_hpa_values_done) struct th_hpa_values values = {NULL, 0, 0};
        int r = th_hpa_resource(th_ctrl_client(m->r->c), m->q.ns, m->q.selector, m->name,
                                m->container, &values, &local);
        if (r < 0) {
            return th_fail(err, TH_R_UNAVAILABLE,
                           "failed to get %s usage: unable to get metrics for resource %s: %s",
                           m->name, m->name, local.msg);
        }
        if (th_hpa_by_average(&m->q, &values, m->name, target_milli(m, "averageValue"), &m->replicas,
                              &usage, &local) < 0) {
            return th_fail(err, TH_R_UNAVAILABLE, "failed to get %s usage: %s", m->name, local.msg);
        }
        m->title = th_xasprintf("%s %sresource", m->name, container ? "container " : "");
        m->status = status_of(m->type, member, copy_of(m, "name", container ? "container" : NULL),
                              th_json_build("{'averageValue':%o}", quantity(usage)));
        return 0;
    }
    int64_t target = th_json_path_int(m->source, "target.averageUtilization", 0);
    if (target <= 0) {
        return th_fail(err, TH_R_INVALID, "invalid resource metric source: neither an average "
                                          "utilization target nor an average value target was set");
    }
    if (th_hpa_by_utilization(&m->q, m->name, m->container, target, &m->replicas, &percent, &usage,
                              &local) < 0) {
        return th_fail(err, TH_R_UNAVAILABLE, "failed to get %s utilization: %s", m->name, local.msg);
    }
    m->title = th_xasprintf("%s %sresource utilization (percentage of request)", m->name,
                            container ? "container " : "");
    m->status = status_of(m->type, member, copy_of(m, "name", container ? "container" : NULL),
                          th_json_build("{'averageUtilization':%d,'averageValue':%o}", percent,
                                        quantity(usage)));
    return 0;
}

static int measure_pods(struct measure *m, struct th_err *err)
{
    TH_CLEANUP(th_hpa_values_done) struct th_hpa_values values = {NULL, 0, 0};
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    int64_t usage = 0;
    if (th_hpa_pods_metric(th_ctrl_client(m->r->c), m->q.ns, m->q.selector,
                           th_json_get(m->source, "metric"), &values, &local) < 0) {
        return th_fail(err, TH_R_UNAVAILABLE, "unable to get metric %s: %s", m->name, local.msg);
    }
    TH_TRY(th_hpa_by_average(&m->q, &values, "", target_milli(m, "averageValue"), &m->replicas, &usage,
                             err));
    m->title = th_xasprintf("pods metric %s", m->name);
    m->status = status_of(m->type, "pods", copy_of(m, "metric", NULL),
                          th_json_build("{'averageValue':%o}", quantity(usage)));
    return 0;
}

/* Replicas by a target value or average value of something that is no pod's. */
static int by_whole(struct measure *m, int64_t usage, struct th_json **ret_current, struct th_err *err)
{
    if (has_target(m, "value")) {
        TH_TRY(th_hpa_by_total(&m->q, usage, target_milli(m, "value"), &m->replicas, err));
        *ret_current = th_json_build("{'value':%o}", quantity(usage));
        return 0;
    }
    if (has_target(m, "averageValue")) {
        m->replicas = th_hpa_by_share(&m->q, &usage, target_milli(m, "averageValue"));
        *ret_current = th_json_build("{'averageValue':%o}", quantity(usage));
        return 0;
    }
    return th_fail(err, TH_R_INVALID, "neither a value target nor an average value target was set");
}

static int measure_object(struct measure *m, struct th_err *err)
{
    const struct th_json *o = th_json_get(m->source, "describedObject");
    const char *kind = th_json_path_str(o, "kind"), *name = th_json_path_str(o, "name");
    const char *api_version = th_json_path_str(o, "apiVersion");
    struct th_rl_item item = {NULL};
    th_autofree char *path = NULL;
    if (th_streq(kind, "Namespace")) {
        path = th_xasprintf("namespaces/%s/metrics", m->q.ns);
    } else if (th_ctrl_served(m->r->c, api_version ? api_version : "v1", kind, &item)) {
        th_autofree char *where =
            item.namespaced ? th_xasprintf("namespaces/%s/", m->q.ns) : th_xstrdup("");
        path = th_xasprintf("%s%s%s%s/%s", where, item.plural, *item.group ? "." : "", item.group, name);
        th_rl_item_done(&item);
    } else {
        return th_fail(err, TH_R_NOT_FOUND, "no matches for kind \"%s\"", kind);
    }
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    int64_t usage = 0;
    if (th_hpa_object_metric(th_ctrl_client(m->r->c), path, th_json_get(m->source, "metric"), &usage,
                             &local) < 0) {
        return th_fail(err, TH_R_UNAVAILABLE, "unable to get metric %s: %s on %s %s/%s", m->name, kind,
                       m->q.ns, name, local.msg);
    }
    struct th_json *current = NULL;
    TH_TRY(by_whole(m, usage, &current, err));
    m->title = th_xasprintf("%s metric %s", kind, m->name);
    m->status = status_of(m->type, "object", copy_of(m, "metric", "describedObject"), current);
    return 0;
}

static int measure_external(struct measure *m, struct th_err *err)
{
    TH_CLEANUP(th_hpa_values_done) struct th_hpa_values values = {NULL, 0, 0};
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    if (th_hpa_external_metric(th_ctrl_client(m->r->c), m->q.ns, th_json_get(m->source, "metric"),
                               &values, &local) < 0) {
        return th_fail(err, TH_R_UNAVAILABLE, "unable to get external metric %s/%s: %s", m->q.ns,
                       m->name, local.msg);
    }
    int64_t usage = 0;
    for (size_t i = 0; i < values.n; i++) {
        usage += values.v[i].milli;
    }
    struct th_json *current = NULL;
    TH_TRY(by_whole(m, usage, &current, err));
    m->title = th_xasprintf("external metric %s", m->name);
    m->status = status_of(m->type, "external", copy_of(m, "metric", NULL), current);
    return 0;
}

static const struct {
    const char *type, *member, *reason;
    int (*fn)(struct measure *m, struct th_err *err);
    const char *failed; /* with the metric's name */
} kinds[] = {
    {"Resource", "resource", "FailedGetResourceMetric", measure_resource,
     "failed to get %s resource metric value"},
    {"ContainerResource", "containerResource", "FailedGetContainerResourceMetric", measure_resource,
     "failed to get %s container metric value"},
    {"Pods", "pods", "FailedGetPodsMetric", measure_pods, "failed to get pods metric value"},
    {"Object", "object", "FailedGetObjectMetric", measure_object,
     "failed to get object metric value"},
    {"External", "external", "FailedGetExternalMetric", measure_external,
     "failed to get %s external metric value"},
};

/* "failed to get cpu resource metric value: why" */
static char *failed_text(size_t kind, const char *name, const char *why)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    const char *at = strstr(kinds[kind].failed, "%s");
    size_t n = at ? (size_t)(at - kinds[kind].failed) : strlen(kinds[kind].failed);
    th_buf_add(&b, kinds[kind].failed, n);
    th_buf_printf(&b, "%s%s: %s", at ? name : "", at ? at + 2 : "", why);
    return th_buf_steal(&b, NULL);
}

static struct th_hpa_tolerance tolerance(const struct th_json *hpa)
{
    struct th_hpa_tolerance t = {TOLERANCE, TOLERANCE};
    const struct th_json *b = th_json_path(hpa, "spec.behavior");
    const struct th_json *up = th_json_path(b, "scaleUp.tolerance");
    const struct th_json *down = th_json_path(b, "scaleDown.tolerance");
    t.up = up ? (double)th_hpa_milli(up) / 1000.0 : t.up;
    t.down = down ? (double)th_hpa_milli(down) / 1000.0 : t.down;
    return t;
}

static int measure_one(struct round *r, const struct th_json *spec, struct measure *m, char **ret_reason,
                       struct th_err *err)
{
    for (size_t i = 0; i < TH_ARRAY_LEN(kinds); i++) {
        if (!th_streq(th_json_path_str(spec, "type"), kinds[i].type)) {
            continue;
        }
        *m = (struct measure){.r = r,
                              .source = th_json_get(spec, kinds[i].member),
                              .type = kinds[i].type,
                              .q = {.c = r->c,
                                    .ns = r->ns,
                                    .selector = r->selector,
                                    .current = r->current,
                                    .status_replicas = r->status_replicas,
                                    .tolerance = tolerance(r->hpa)}};
        const char *name = th_json_path_str(m->source, "name");
        const char *container = th_json_path_str(m->source, "container");
        name = name ? name : th_json_path_str(m->source, "metric.name");
        m->name = name ? name : "";
        m->container = container ? container : "";
        TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
        if (kinds[i].fn(m, &local) >= 0) {
            return 0;
        }
        *ret_reason = th_xstrdup(kinds[i].reason);
        warn(r, kinds[i].reason, local.msg);
        th_autofree char *message =
            th_xasprintf("the HPA was unable to compute the replica count: %s", local.msg);
        condition(r, "ScalingActive", false, kinds[i].reason, message);
        th_autofree char *text = failed_text(i, m->name, local.msg);
        return th_fail(err, TH_R_UNAVAILABLE, "%s", text);
    }
    *ret_reason = th_xstrdup("InvalidMetricSourceType");
    return th_fail(err, TH_R_INVALID, "unknown metric source type \"%s\"",
                   th_json_path_str(spec, "type"));
}

/* The greatest number that a metric calls for; *ret_title names that metric. */
static int compute(struct round *r, int64_t *ret_replicas, char **ret_title, struct th_err *err)
{
    if (!*r->selector) {
        static const char why[] = "selector is required";
        warn(r, "SelectorRequired", why);
        condition(r, "ScalingActive", false, "InvalidSelector",
                  "the HPA target's scale is missing a selector");
        return th_fail(err, TH_R_INVALID, "%s", why);
    }
    const struct th_hpa_query q = {.c = r->c, .ns = r->ns, .selector = r->selector};
    struct state *s = th_ctrl_state(r->c);
    th_autofree char *shared = th_hpa_selectors_others(s->selectors, r->key, &q);
    if (shared) {
        warn(r, "AmbiguousSelector", shared);
        condition(r, "ScalingActive", false, "AmbiguousSelector", shared);
        return th_fail(err, TH_R_INVALID, "%s", shared);
    }
    const struct th_json *specs = th_json_path(r->hpa, "spec.metrics");
    size_t n = th_json_len(specs), invalid = 0;
    int64_t best = -1;
    th_autofree char *first = NULL;
    th_autofree char *first_reason = NULL;
    th_autofree char *first_message = NULL;
    for (size_t i = 0; i < n; i++) {
        struct measure m;
        th_autofree char *reason = NULL;
        TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
        if (measure_one(r, th_json_at(specs, i), &m, &reason, &local) < 0) {
            if (invalid++ == 0) {
                first = th_xstrdup(local.msg);
                first_reason = th_steal(&reason);
                const struct th_json *cond = NULL;
                for (size_t k = 0; k < th_json_len(r->conditions); k++) {
                    const struct th_json *at = th_json_at(r->conditions, k);
                    cond = th_streq(th_json_path_str(at, "type"), "ScalingActive") ? at : cond;
                }
                first_message = th_xstrdup(th_json_path_str(cond, "message"));
            }
            continue;
        }
        th_json_append(r->metrics, m.status);
        if (m.replicas > best) {
            best = m.replicas;
            free(*ret_title);
            *ret_title = th_steal(&m.title);
        }
        free(m.title);
    }
    if (invalid >= n || (invalid > 0 && best < r->current)) {
        if (first_message) {
            condition(r, "ScalingActive", false, first_reason, first_message);
        }
        return th_fail(err, TH_R_UNAVAILABLE,
                       "invalid metrics (%zu invalid out of %zu), first error is: %s", invalid, n,
                       first);
    }
    th_autofree char *message = th_xasprintf(
        "the HPA was able to successfully calculate a replica count from %s", *ret_title);
    condition(r, "ScalingActive", true, "ValidMetricFound", message);
    *ret_replicas = best;
    return 0;
}

/* ---- scaling ---- */

static int rescale(struct round *r, struct th_hpa_memory *memory, int64_t desired, const char *why,
                   struct th_err *err)
{
    struct th_json *scale TH_AUTO(th_json) = th_json_dup(r->scale);
    th_json_path_set(scale, "spec.replicas", th_json_int(desired));
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    const char *name = th_json_path_str(r->hpa, "spec.scaleTargetRef.name");
    int rc = th_client_update(th_ctrl_client(r->c), th_rl_gvr(&r->target), r->ns, name, "scale", scale,
                              NULL, &local);
    if (rc < 0) {
        th_event_record(th_ctrl_recorder(r->c), r->hpa, "Warning", "FailedRescale",
                        "New size: %lld; reason: %s; error: %s", (long long)desired, why, local.msg);
        th_autofree char *message = th_xasprintf(
            "the HPA controller was unable to update the target scale: %s", local.msg);
        condition(r, "AbleToScale", false, "FailedUpdateScale", message);
        (void)!write_status(r, r->current, was_desired(r), false, NULL);
        return th_fail(err, local.reason, "failed to rescale %s: %s", name, local.msg);
    }
    th_autofree char *message = th_xasprintf(
        "the HPA controller was able to update the target scale to %lld", (long long)desired);
    condition(r, "AbleToScale", true, "SucceededRescale", message);
    th_event_record(th_ctrl_recorder(r->c), r->hpa, "Normal", "SuccessfulRescale",
                    "New size: %lld; reason: %s", (long long)desired, why);
    th_hpa_scaled(memory, th_json_path(r->hpa, "spec.behavior"), r->current, desired, th_now_ms());
    return 0;
}

/* desired and why, from the metrics. */
static int decide(struct round *r, struct th_hpa_memory *memory, int64_t min, int64_t max,
                  int64_t *ret_desired, char **ret_why, struct th_err *err)
{
    int64_t wanted = 0;
    th_autofree char *title = NULL;
    TH_TRY(compute(r, &wanted, &title, err));
    if (wanted > r->current) {
        *ret_why = th_xasprintf("%s above target", title);
    } else if (wanted < r->current) {
        *ret_why = th_xstrdup("All metrics below target");
    }
    struct th_hpa_verdict v = th_hpa_hold_back(memory, th_json_path(r->hpa, "spec.behavior"),
                                               r->current, wanted, min, max, th_now_ms());
    condition(r, "AbleToScale", true, v.able_reason, v.able_message);
    condition(r, "ScalingLimited", v.limited, v.limit_reason, v.limit_message);
    *ret_desired = v.replicas;
    return 0;
}

static int run(struct round *r, struct th_err *err)
{
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    if (get_scale(r, &local) < 0) {
        warn(r, "FailedGetScale", local.msg);
        th_autofree char *message = th_xasprintf(
            "the HPA controller was unable to get the target's current scale: %s", local.msg);
        condition(r, "AbleToScale", false, "FailedGetScale", message);
        TH_TRY(write_status(r, th_json_path_int(r->hpa, "status.currentReplicas", 0), was_desired(r),
                            false, err));
        return 0;
    }
    condition(r, "AbleToScale", true, "SucceededGetScale",
              "the HPA controller was able to get the target's current scale");
    struct th_hpa_memory *memory = memory_of(r->c, r->key);
    th_hpa_first(memory, r->current, th_now_ms());
    int64_t min = th_json_path_int(r->hpa, "spec.minReplicas", 1);
    int64_t max = th_json_path_int(r->hpa, "spec.maxReplicas", 0);
    int64_t desired = r->current;
    th_autofree char *why = NULL;
    if (r->current == 0 && min != 0) {
        condition(r, "ScalingActive", false, "ScalingDisabled",
                  "scaling is disabled since the replica count of the target is zero");
    } else if (r->current > max) {
        why = th_xstrdup("Current number of replicas above Spec.MaxReplicas");
        desired = max;
    } else if (r->current < min) {
        why = th_xstrdup("Current number of replicas below Spec.MinReplicas");
        desired = min;
    } else if (decide(r, memory, min, max, &desired, &why, &local) < 0) {
        TH_TRY(write_status(r, r->current, was_desired(r), false, err));
        warn(r, "FailedComputeMetricsReplicas", local.msg);
        return 0;
    }
    if (desired != r->current) {
        TH_TRY(rescale(r, memory, desired, why ? why : "", err));
        return write_status(r, r->current, desired, true, err);
    }
    return write_status(r, r->current, desired, false, err);
}

static int reconcile(struct th_ctrl *c, const char *key, int64_t *ret_after_ms, struct th_err *err)
{
    const char *name = NULL;
    th_autofree char *ns = th_ctrl_key_split(key, &name);
    struct th_json *hpa TH_AUTO(th_json) = th_informer_get(th_ctrl_informer(c, gvr), ns, name);
    if (!hpa || th_json_path(hpa, "metadata.deletionTimestamp")) {
        forget(c, key);
        return 0;
    }
    const struct th_json *was = th_json_path(hpa, "status.conditions");
    TH_CLEANUP(round_done) struct round r = {
        .c = c,
        .key = key,
        .ns = ns,
        .hpa = hpa,
        .conditions = was ? th_json_dup(was) : th_json_array(),
        .metrics = th_json_array()};
    *ret_after_ms = SYNC_MS;
    return run(&r, err);
}

/* What it wrote itself is no reason to look again before the time. */
static void on_hpa(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    const struct th_json *o = now ? now : old;
    struct state *s = th_ctrl_state(c);
    th_autofree char *key = th_ctrl_key(o);
    (now ? th_hpa_selectors_know : th_hpa_selectors_forget)(s->selectors, key);
    if (!old || !now || !th_json_equal(th_json_get(old, "spec"), th_json_get(now, "spec"))) {
        th_ctrl_enqueue_obj(c, o);
    }
}

static const struct th_ctrl_watch watches[] = {
    {.gvr = {"autoscaling", "v2", "horizontalpodautoscalers"}, .on_event = on_hpa},
    {.gvr = {"", "v1", "pods"}},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_hpa = {
    .name = "horizontal-pod-autoscaler",
    .account = "horizontal-pod-autoscaler",
    .watches = watches,
    .reconcile = reconcile,
    .state_new = state_new,
    .state_free = state_free,
};
