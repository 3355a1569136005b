/* Cells of workloads and autoscalers that take more than a path. */
#include "base/buf.h"
#include "base/clock.h"
#include "controlplane/resources/rows.h"

#include <inttypes.h>

const struct th_column th_scale_columns[] = {
    {"Name", "string", "", "Name of what is scaled", 0},
    {"Desired", "integer", "", "How many replicas are wanted", 0},
    {"Available", "integer", "", "How many replicas there are", 0},
    {"Age", "string", "", "Time since what is scaled was created", 0},
    {0},
};

void th_row_scale(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells)
{
    th_cell_name(obj, cells);
    th_json_append(cells, th_json_int(th_json_path_int(obj, "spec.replicas", 0)));
    th_json_append(cells, th_json_int(th_json_path_int(obj, "status.replicas", 0)));
    th_cell_age(c, obj, cells);
}

void th_row_ready_of_replicas(const struct th_req_ctx *c, const struct th_json *obj,
                              struct th_json *cells)
{
    (void)c;
    th_json_append(cells, th_json_stringf("%" PRId64 "/%" PRId64,
                                          th_json_path_int(obj, "status.readyReplicas", 0),
                                          th_json_path_int(obj, "spec.replicas", 0)));
}

/* "statefulset.apps/web" */
void th_row_revision_owner(const struct th_req_ctx *c, const struct th_json *obj,
                           struct th_json *cells)
{
    (void)c;
    const struct th_json *owner = th_controller_of(obj);
    const char *gv = th_json_path_str(owner, "apiVersion"), *kind = th_json_path_str(owner, "kind");
    const char *name = th_json_path_str(owner, "name");
    if (!owner || !gv || !kind || !name) {
        th_json_append_str(cells, "<none>");
        return;
    }
    const char *slash = strchr(gv, '/');
    th_autofree char *text = th_xasprintf("%s%s%.*s/", kind, slash ? "." : "",
                                          (int)(slash ? slash - gv : 0), gv);
    for (char *p = text; *p; p++) {
        *p = (char)(*p >= 'A' && *p <= 'Z' ? *p + 32 : *p);
    }
    th_json_append(cells, th_json_stringf("%s%s", text, name));
}

/* ---- Jobs ---- */

static bool job_is(const struct th_json *obj, const char *type)
{
    const struct th_json *list = th_json_path(obj, "status.conditions");
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *cond = th_json_at(list, i);
        if (th_streq(th_json_path_str(cond, "type"), type)) {
            return th_streq(th_json_path_str(cond, "status"), "True");
        }
    }
    return false;
}

static const char *job_status(const struct th_json *obj)
{
    if (job_is(obj, "Complete") || job_is(obj, "Failed")) {
        return job_is(obj, "Complete") ? "Complete" : "Failed";
    }
    if (th_json_path_str(obj, "metadata.deletionTimestamp")) {
        return "Terminating";
    }
    static const char *const types[] = {"Suspended", "FailureTarget", "SuccessCriteriaMet"};
    for (size_t i = 0; i < TH_ARRAY_LEN(types); i++) {
        if (job_is(obj, types[i])) {
            return types[i];
        }
    }
    return "Running";
}

/* How long the job took, or has been running; "" before it started. */
static const char *job_duration(const struct th_req_ctx *c, const struct th_json *obj, char *buf)
{
    int64_t start = 0, end = 0;
    const char *started = th_json_path_str(obj, "status.startTime");
    const char *ended = th_json_path_str(obj, "status.completionTime");
    if (!started || th_time_parse(started, &start, NULL) < 0) {
        return "";
    }
    end = ended && th_time_parse(ended, &end, NULL) >= 0 ? end / 1000 : c->now_ms;
    int64_t ms = end - start / 1000;
    return th_duration_human(ms < 0 ? 0 : ms, buf);
}

void th_row_job(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells)
{
    int64_t done = th_json_path_int(obj, "status.succeeded", 0);
    int64_t wanted = th_json_path_int(obj, "spec.completions", -1);
    int64_t parallel = th_json_path_int(obj, "spec.parallelism", 0);
    char buf[TH_TIME_LEN];
    th_json_append_str(cells, job_status(obj));
    if (wanted >= 0) {
        th_json_append(cells, th_json_stringf("%" PRId64 "/%" PRId64, done, wanted));
    } else if (parallel > 1) {
        th_json_append(cells, th_json_stringf("%" PRId64 "/1 of %" PRId64, done, parallel));
    } else {
        th_json_append(cells, th_json_stringf("%" PRId64 "/1", done));
    }
    th_json_append_str(cells, job_duration(c, obj, buf));
}

/* ---- Autoscalers ---- */

static const char *text_or(const struct th_json *o, const char *path, const char *dflt)
{
    const char *s = th_json_path_str(o, path);
    return s ? s : dflt;
}

/* "50%" of a utilization, or dflt. */
static char *percent(const struct th_json *o, const char *path, const char *dflt)
{
    const struct th_json *v = th_json_path(o, path);
    return v ? th_xasprintf("%" PRId64 "%%", th_json_as_int(v, 0)) : th_xstrdup(dflt);
}

/* "<current>/<target>" of one metric; m and now are the members named by the metric's type. */
static void show_metric(const char *type, const struct th_json *m, const struct th_json *now,
                        struct th_buf *b)
{
    const char *average = th_json_path_str(m, "target.averageValue");
    bool resource = th_streq(type, "Resource") || th_streq(type, "ContainerResource");
    if (resource) {
        th_buf_printf(b, "%s: ", text_or(m, "name", ""));
    }
    if (average || th_streq(type, "Pods")) {
        th_buf_printf(b, "%s/%s%s", text_or(now, "current.averageValue", "<unknown>"),
                      average ? average : "0",
                      th_streq(type, "External") || th_streq(type, "Object") ? " (avg)" : "");
    } else if (resource) {
        th_autofree char *is = percent(now, "current.averageUtilization", "<unknown>");
        th_autofree char *want = percent(m, "target.averageUtilization", "<auto>");
        th_buf_printf(b, "%s/%s", is, want);
    } else {
        th_buf_printf(b, "%s/%s", text_or(now, "current.value", "<unknown>"),
                      text_or(m, "target.value", "0"));
    }
}

static void hpa_targets(const struct th_json *obj, struct th_json *cells)
{
    static const char *const types[][2] = {{"External", "external"},
                                           {"Pods", "pods"},
                                           {"Object", "object"},
                                           {"Resource", "resource"},
                                           {"ContainerResource", "containerResource"}};
    th_autobuf struct th_buf text = TH_BUF_INIT;
    const struct th_json *metrics = th_json_path(obj, "spec.metrics");
    const struct th_json *current = th_json_path(obj, "status.currentMetrics");
    size_t n = th_json_len(metrics), shown = 2;
    for (size_t i = 0; i < n && i < shown; i++) {
        const struct th_json *m = th_json_at(metrics, i);
        const char *type = th_json_path_str(m, "type"), *member = NULL;
        for (size_t k = 0; k < TH_ARRAY_LEN(types); k++) {
            member = th_streq(type, types[k][0]) ? types[k][1] : member;
        }
        th_buf_puts(&text, i ? ", " : "");
        if (member) {
            show_metric(type, th_json_get(m, member),
                        th_json_get(th_json_at(current, i), member), &text);
        } else {
            th_buf_puts(&text, "<unknown type>");
        }
    }
    if (n > shown) {
        th_buf_printf(&text, " + %zu more...", n - shown);
    }
    th_json_append_str(cells, n ? th_buf_cstr(&text) : "<none>");
}

void th_row_hpa(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells)
{
    const struct th_json *min = th_json_path(obj, "spec.minReplicas");
    th_cell_name(obj, cells);
    th_json_append(cells, th_json_stringf("%s/%s", text_or(obj, "spec.scaleTargetRef.kind", ""),
                                          text_or(obj, "spec.scaleTargetRef.name", "")));
    hpa_targets(obj, cells);
    th_json_append(cells, min ? th_json_stringf("%" PRId64, th_json_as_int(min, 0))
                              : th_json_string("<unset>"));
    th_json_append(cells, th_json_int(th_json_path_int(obj, "spec.maxReplicas", 0)));
    th_json_append(cells, th_json_int(th_json_path_int(obj, "status.currentReplicas", 0)));
    th_cell_age(c, obj, cells);
}

void th_row_hpa_v1(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells)
{
    TH_AUTO(th_json) struct th_json *v2 = th_json_dup(obj);
    (void)th_hpa_to_storage(v2, NULL);
    th_row_hpa(c, v2, cells);
}
