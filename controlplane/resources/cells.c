/* Table cells that many kinds share: the words are those of kubectl's own printers, which clients
 * compare against. */
#include "controlplane/resources/cells.h"

#include "base/clock.h"

void th_cell_name(const struct th_json *obj, struct th_json *cells)
{
    th_json_append_str(cells, th_json_path_str(obj, "metadata.name"));
}

void th_cell_age(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells)
{
    const char *t = th_json_path_str(obj, "metadata.creationTimestamp");
    int64_t us = 0;
    if (!t || th_time_parse(t, &us, NULL) < 0) {
        th_json_append_str(cells, "<unknown>");
        return;
    }
    char text[TH_TIME_LEN];
    int64_t ms = c->now_ms - us / 1000;
    th_json_append_str(cells, th_duration_human(ms < 0 ? 0 : ms, text));
}

void th_cell_str(const struct th_json *obj, const char *path, const char *dflt,
                 struct th_json *cells)
{
    const char *s = th_json_path_str(obj, path);
    th_json_append_str(cells, s && *s ? s : dflt);
}
