/* HorizontalPodAutoscaler: autoscaling/v1 over stored autoscaling/v2.
 *
 * v1 can only say a CPU percentage. What it cannot say travels in annotations, as upstream does it,
 * so that a client of v1 that writes back what it read loses nothing: the other metrics and all
 * current metrics in v1's own form, the conditions, and the behavior with Go's field names. A v1
 * object that is written is first freed of them; what they say goes into spec and status.
 */
#include "controlplane/resources/rows.h"

#include "base/buf.h"

#define PREFIX "autoscaling.alpha.kubernetes.io/"
#define CPU_WANTED "spec.targetCPUUtilizationPercentage"
#define CPU_NOW "status.currentCPUUtilizationPercentage"

/* Where a member of a metric is in either form. */
struct pair {
    const char *v1, *v2;
};
struct metric_form {
    const char *type, *member;
    struct pair spec[5], status[5];
};
static const struct metric_form forms[] = {
    {"Resource",
     "resource",
     {{"name", "name"},
      {"targetAverageUtilization", "target.averageUtilization"},
      {"targetAverageValue", "target.averageValue"}},
     {{"name", "name"},
      {"currentAverageUtilization", "current.averageUtilization"},
      {"currentAverageValue", "current.averageValue"}}},
    {"ContainerResource",
     "containerResource",
     {{"name", "name"},
      {"container", "container"},
      {"targetAverageUtilization", "target.averageUtilization"},
      {"targetAverageValue", "target.averageValue"}},
     {{"name", "name"},
      {"container", "container"},
      {"currentAverageUtilization", "current.averageUtilization"},
      {"currentAverageValue", "current.averageValue"}}},
    {"Pods",
     "pods",
     {{"metricName", "metric.name"},
      {"selector", "metric.selector"},
      {"targetAverageValue", "target.averageValue"}},
     {{"metricName", "metric.name"},
      {"selector", "metric.selector"},
      {"currentAverageValue", "current.averageValue"}}},
    {"Object",
     "object",
     {{"metricName", "metric.name"},
      {"selector", "metric.selector"},
      {"target", "describedObject"},
      {"targetValue", "target.value"},
      {"averageValue", "target.averageValue"}},
     {{"metricName", "metric.name"},
      {"selector", "metric.selector"},
      {"target", "describedObject"},
      {"currentValue", "current.value"},
      {"averageValue", "current.averageValue"}}},
    {"External",
     "external",
     {{"metricName", "metric.name"},
      {"metricSelector", "metric.selector"},
      {"targetValue", "target.value"},
      {"targetAverageValue", "target.averageValue"}},
     {{"metricName", "metric.name"},
      {"metricSelector", "metric.selector"},
      {"currentValue", "current.value"},
      {"currentAverageValue", "current.averageValue"}}},
};

static struct th_json *convert_metric(const struct th_json *m, bool status, bool to_v2)
{
    const char *type = th_json_path_str(m, "type");
    struct th_json *out = th_json_object();
    if (type) {
        th_json_set_str(out, "type", type);
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(forms); i++) {
        const struct metric_form *f = &forms[i];
        const struct th_json *from = th_json_get(m, f->member);
        if (!th_streq(f->type, type) || !from) {
            continue;
        }
        struct th_json *to = th_json_object();
        const struct pair *p = status ? f->status : f->spec;
        for (size_t k = 0; k < TH_ARRAY_LEN(f->spec) && p[k].v1; k++) {
            const struct th_json *v = th_json_path(from, to_v2 ? p[k].v1 : p[k].v2);
            if (v) {
                th_json_path_set(to, to_v2 ? p[k].v2 : p[k].v1, th_json_dup(v));
            }
        }
        if (to_v2 && !status) {
            const char *kind = th_json_path(to, "target.averageUtilization") ? "Utilization"
                               : th_json_path(to, "target.averageValue")     ? "AverageValue"
                                                                             : "Value";
            th_json_path_set_str(to, "target.type", kind);
        }
        th_json_set(out, f->member, to);
    }
    return out;
}

static struct th_json *convert_metrics(const struct th_json *list, bool status, bool to_v2)
{
    struct th_json *out = th_json_array();
    for (size_t i = 0; i < th_json_len(list); i++) {
        th_json_append(out, convert_metric(th_json_at(list, i), status, to_v2));
    }
    return out;
}

struct th_json *th_recase(const struct th_json *v, bool upper)
{
    if (th_json_is(v, TH_JSON_ARRAY)) {
        struct th_json *a = th_json_array();
        for (size_t i = 0; i < th_json_len(v); i++) {
            th_json_append(a, th_recase(th_json_at(v, i), upper));
        }
        return a;
    }
    if (!th_json_is(v, TH_JSON_OBJECT)) {
        return th_json_dup(v);
    }
    struct th_json *o = th_json_object();
    struct th_json_iter it = TH_JSON_ITER(v);
    while (th_json_next(&it)) {
        th_autofree char *name = th_xstrdup(it.name);
        char c = *name;
        if (upper ? (c >= 'a' && c <= 'z') : (c >= 'A' && c <= 'Z')) {
            *name = (char)(c ^ 0x20);
        }
        if (it.value) {
            th_json_set(o, name, th_recase(it.value, upper));
        }
    }
    return o;
}

/* The parsed value of an annotation, which is taken away; NULL when it is none. */
static struct th_json *take_annotation(struct th_json *obj, const char *name)
{
    struct th_json *all = th_json_path(obj, "metadata.annotations");
    const char *text = th_json_str(th_json_get(all, name));
    struct th_json *v = NULL;
    if (text && th_json_parse_cstr(text, &v, NULL) < 0) {
        v = NULL;
    }
    (void)th_json_del(all, name);
    return v;
}

static void set_annotation(struct th_json *obj, const char *name, const struct th_json *v)
{
    th_autofree char *text = th_json_to_string(v);
    th_json_set_str(th_json_path_object(obj, "metadata.annotations"), name, text);
}

static bool is_cpu(const struct th_json *m)
{
    return th_streq(th_json_path_str(m, "type"), "Resource") &&
           th_streq(th_json_path_str(m, "resource.name"), "cpu");
}

int th_hpa_to_storage(struct th_json *obj, struct th_err *err)
{
    (void)err;
    TH_AUTO(th_json) struct th_json *others = take_annotation(obj, PREFIX "metrics");
    TH_AUTO(th_json) struct th_json *current = take_annotation(obj, PREFIX "current-metrics");
    TH_AUTO(th_json) struct th_json *conditions = take_annotation(obj, PREFIX "conditions");
    TH_AUTO(th_json) struct th_json *behavior = take_annotation(obj, PREFIX "behavior");
    if (th_json_path(obj, "metadata.annotations") &&
        th_json_len(th_json_path(obj, "metadata.annotations")) == 0) {
        th_json_path_del(obj, "metadata.annotations");
    }
    struct th_json *metrics = convert_metrics(others, false, true);
    const struct th_json *cpu = th_json_path(obj, CPU_WANTED);
    if (cpu) {
        th_json_append(metrics, th_json_build("{'type':'Resource','resource':{'name':'cpu','target':"
                                              "{'type':'Utilization','averageUtilization':%d}}}",
                                              th_json_as_int(cpu, 0)));
        th_json_path_del(obj, CPU_WANTED);
    }
    if (th_json_len(metrics) > 0) {
        th_json_path_set(obj, "spec.metrics", metrics);
    } else {
        th_json_unref(metrics);
    }
    const struct th_json *now = th_json_path(obj, CPU_NOW);
    if (current) {
        th_json_path_set(obj, "status.currentMetrics", convert_metrics(current, true, true));
    } else if (now) {
        th_json_path_set(obj, "status.currentMetrics",
                         th_json_build("[{'type':'Resource','resource':{'name':'cpu','current':"
                                       "{'averageUtilization':%d}}}]",
                                       th_json_as_int(now, 0)));
    }
    th_json_path_del(obj, CPU_NOW);
    if (th_json_is(conditions, TH_JSON_ARRAY)) {
        th_json_path_set(obj, "status.conditions", th_json_dup(conditions));
    }
    if (th_json_len(behavior) > 0) {
        th_json_path_set(obj, "spec.behavior", th_recase(behavior, false));
    }
    th_json_set_str(obj, "apiVersion", "autoscaling/v2");
    return 0;
}

/* Puts what v1 has a field for there and gives the rest in v1's form. */
static struct th_json *split_metrics(struct th_json *obj)
{
    const struct th_json *metrics = th_json_path(obj, "spec.metrics");
    struct th_json *rest = th_json_array();
    for (size_t i = 0; i < th_json_len(metrics); i++) {
        const struct th_json *m = th_json_at(metrics, i);
        const struct th_json *percent = th_json_path(m, "resource.target.averageUtilization");
        if (is_cpu(m) && percent) {
            th_json_path_set(obj, CPU_WANTED, th_json_dup(percent));
        } else {
            th_json_append(rest, convert_metric(m, false, false));
        }
    }
    return rest;
}

int th_hpa_from_storage(struct th_json *obj, struct th_err *err)
{
    (void)err;
    TH_AUTO(th_json) struct th_json *rest = split_metrics(obj);
    const struct th_json *current = th_json_path(obj, "status.currentMetrics");
    const struct th_json *conditions = th_json_path(obj, "status.conditions");
    const struct th_json *behavior = th_json_path(obj, "spec.behavior");
    for (size_t i = 0; i < th_json_len(current); i++) {
        const struct th_json *m = th_json_at(current, i);
        const struct th_json *percent = th_json_path(m, "resource.current.averageUtilization");
        if (is_cpu(m) && percent) {
            th_json_path_set(obj, CPU_NOW, th_json_dup(percent));
        }
    }
    if (th_json_len(rest) > 0) {
        set_annotation(obj, PREFIX "metrics", rest);
    }
    if (th_json_len(current) > 0) {
        TH_AUTO(th_json) struct th_json *old = convert_metrics(current, true, false);
        set_annotation(obj, PREFIX "current-metrics", old);
    }
    if (th_json_len(conditions) > 0) {
        set_annotation(obj, PREFIX "conditions", conditions);
    }
    if (behavior) {
        TH_AUTO(th_json) struct th_json *go = th_recase(behavior, true);
        set_annotation(obj, PREFIX "behavior", go);
    }
    static const char *const gone[] = {"spec.metrics", "spec.behavior", "status.currentMetrics",
                                       "status.conditions"};
    for (size_t i = 0; i < TH_ARRAY_LEN(gone); i++) {
        (void)th_json_path_del(obj, gone[i]);
    }
    th_json_set_str(obj, "apiVersion", "autoscaling/v1");
    return 0;
}
