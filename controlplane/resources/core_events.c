/*
 * Events: stored as core/v1, served as events.k8s.io/v1 too. The two forms have the same content
 * under other names; storing one keeps a watch on either complete.
 */
#include "controlplane/resources/cells.h"
#include "base/buf.h"
#include "base/clock.h"
#include <inttypes.h>

static const char *const short_names[] = {"ev", NULL};
static const char *const selectable[] = {"involvedObject.kind",
                                         "involvedObject.namespace",
                                         "involvedObject.name",
                                         "involvedObject.uid",
                                         "involvedObject.apiVersion",
                                         "involvedObject.resourceVersion",
                                         "involvedObject.fieldPath",
                                         "reason",
                                         "reportingComponent",
                                         "source",
                                         "type",
                                         NULL};
static const char *const selectable_new[] = {"regarding.kind",
                                             "regarding.namespace",
                                             "regarding.name",
                                             "regarding.uid",
                                             "regarding.apiVersion",
                                             "regarding.resourceVersion",
                                             "regarding.fieldPath",
                                             "reason",
                                             "reportingController",
                                             "type",
                                             NULL};
static const struct th_column columns[] = {
    {"Last Seen", "string", "", "Time since it happened last", 0},
    {"Type", "string", "", "Normal or Warning", 0},
    {"Reason", "string", "", "Why, in one word", 0},
    {"Object", "string", "", "What it is about", 0},
    {"Subobject", "string", "", "Which part of it", 1},
    {"Source", "string", "", "Who says so", 1},
    {"Message", "string", "", "What happened", 0},
    {"First Seen", "string", "", "Time since it happened first", 1},
    {"Count", "string", "", "How often", 1},
    {"Name", "string", "name", "Name of the event", 1},
    {0},
};

static const char *first_str(const struct th_json *o, const char *const *paths)
{
    for (; *paths; paths++) {
        const char *v = th_json_path_str(o, *paths);
        if (v && *v) {
            return v;
        }
    }
    return "";
}
#define FIRST(o, ...) first_str(o, (const char *const[]){__VA_ARGS__, NULL})

static void cell_since(const struct th_req_ctx *c, const char *time, struct th_json *cells)
{
    int64_t us = 0;
    char text[TH_TIME_LEN];
    if (!*time || th_time_parse(time, &us, NULL) < 0) {
        th_json_append_str(cells, "<unknown>");
        return;
    }
    int64_t ms = c->now_ms - us / 1000;
    th_json_append_str(cells, th_duration_human(ms < 0 ? 0 : ms, text));
}

static const char *selectable_value(const struct th_json *obj, const char *field, char *buf)
{
    (void)buf;
    if (th_streq(field, "source")) {
        return FIRST(obj, "source.component", "reportingComponent");
    }
    return FIRST(obj, field);
}

static void lower(char *s)
{
    for (; *s; s++) {
        *s = (char)(*s >= 'A' && *s <= 'Z' ? *s + 32 : *s);
    }
}

static void row(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells)
{
    th_autofree char *kind = th_xstrdup(FIRST(obj, "involvedObject.kind", "regarding.kind"));
    lower(kind);
    const char *component = FIRST(obj, "source.component", "deprecatedSource.component",
                                  "reportingComponent", "reportingController");
    const char *host = FIRST(obj, "source.host", "deprecatedSource.host", "reportingInstance");
    int64_t count = th_json_path_int(
        obj, "series.count",
        th_json_path_int(obj, "count", th_json_path_int(obj, "deprecatedCount", 1)));
    cell_since(c,
               FIRST(obj, "series.lastObservedTime", "lastTimestamp", "deprecatedLastTimestamp",
                     "eventTime"),
               cells);
    th_cell_str(obj, "type", "", cells);
    th_cell_str(obj, "reason", "", cells);
    const char *name = FIRST(obj, "involvedObject.name", "regarding.name");
    th_json_append(cells, *kind ? th_json_stringf("%s/%s", kind, name) : th_json_string(name));
    th_json_append_str(cells, FIRST(obj, "involvedObject.fieldPath", "regarding.fieldPath"));
    th_json_append(cells, th_json_stringf("%s%s%s", component, *host ? ", " : "", host));
    th_json_append_str(cells, FIRST(obj, "message", "note"));
    cell_since(c, FIRST(obj, "firstTimestamp", "deprecatedFirstTimestamp", "eventTime"), cells);
    th_json_append(cells, th_json_stringf("%" PRId64, count ? count : 1));
    th_json_append_str(cells, FIRST(obj, "metadata.name"));
}

const struct th_resource th_res_core_events = {
    .group = "",
    .version = "v1",
    .kind = "Event",
    .plural = "events",
    .singular = "event",
    .short_names = short_names,
    .namespaced = true,
    .verbs = TH_VERBS_ALL,
    .storage_hash = "r2yiGXH7wu8=",
    .columns = columns,
    .row = row,
    .selectable = selectable,
    .selectable_value = selectable_value,
    .s = {.allow_create_on_update = true},
};

/* core/v1 name -> events.k8s.io/v1 name */
static const char *const renamed[][2] = {{"involvedObject", "regarding"},
                                         {"message", "note"},
                                         {"reportingComponent", "reportingController"},
                                         {"source", "deprecatedSource"},
                                         {"firstTimestamp", "deprecatedFirstTimestamp"},
                                         {"lastTimestamp", "deprecatedLastTimestamp"},
                                         {"count", "deprecatedCount"}};

static void rename_members(struct th_json *obj, size_t from, size_t to)
{
    for (size_t i = 0; i < TH_ARRAY_LEN(renamed); i++) {
        struct th_json *v = th_json_get(obj, renamed[i][from]);
        if (v) {
            th_json_set(obj, renamed[i][to], th_json_ref(v));
        }
        (void)th_json_del(obj, renamed[i][from]);
    }
}

static int to_storage(struct th_json *obj, struct th_err *err)
{
    (void)err;
    rename_members(obj, 1, 0);
    th_json_set_str(obj, "apiVersion", "v1");
    return 0;
}

static int from_storage(struct th_json *obj, struct th_err *err)
{
    (void)err;
    rename_members(obj, 0, 1);
    th_json_set_str(obj, "apiVersion", "events.k8s.io/v1");
    return 0;
}

const struct th_resource th_res_events_events = {
    .group = "events.k8s.io",
    .version = "v1",
    .kind = "Event",
    .plural = "events",
    .singular = "event",
    .short_names = short_names,
    .namespaced = true,
    .verbs = TH_VERBS_ALL,
    .storage_hash = "r2yiGXH7wu8=",
    .storage_gv_plural = "core/v1/events",
    .to_storage = to_storage,
    .from_storage = from_storage,
    .columns = columns,
    .row = row,
    .selectable = selectable_new,
    .s = {.allow_create_on_update = true},
};
