/*
 * Events: stored as core/v1, served as events.k8s.io/v1 too. The two forms have the same content
 * under other names; storing one keeps a watch on either complete.
 */
#include "controlplane/resources/rows.h"
#include "base/buf.h"
#include "base/clock.h"
#include <inttypes.h>

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

const char *th_event_selectable(const struct th_json *obj, const char *field, char *buf)
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

void th_row_event(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells)
{
    th_autofree char *kind = th_xstrdup(FIRST(obj, "involvedObject.kind", "regarding.kind"));
    lower(kind);
    const char *component = FIRST(obj, "source.component", "deprecatedSource.component",
                                  "reportingComponent", "reportingController");
    const char *host = FIRST(obj, "source.host", "deprecatedSource.host", "reportingInstance");
    int64_t count = th_json_path_int(
        obj, "series.count",
        th_json_path_int(obj, "count", th_json_path_int(obj, "deprecatedCount", 1)));
    th_cell_since(c,
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
    th_cell_since(c, FIRST(obj, "firstTimestamp", "deprecatedFirstTimestamp", "eventTime"), cells);
    th_json_append(cells, th_json_stringf("%" PRId64, count ? count : 1));
    th_json_append_str(cells, FIRST(obj, "metadata.name"));
}

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
        if (th_json_has(obj, renamed[i][from])) { /* times that are not set are shown as null */
            struct th_json *v = th_json_get(obj, renamed[i][from]);
            th_json_set(obj, renamed[i][to], v ? th_json_ref(v) : NULL);
            (void)th_json_del(obj, renamed[i][from]);
        }
    }
}

int th_event_to_storage(struct th_json *obj, struct th_err *err)
{
    (void)err;
    rename_members(obj, 1, 0);
    th_json_set_str(obj, "apiVersion", "v1");
    return 0;
}

int th_event_from_storage(struct th_json *obj, struct th_err *err)
{
    (void)err;
    rename_members(obj, 0, 1);
    th_json_set_str(obj, "apiVersion", "events.k8s.io/v1");
    return 0;
}
