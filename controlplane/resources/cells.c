/* Cells of Tables that the rows describe as data, and those that many kinds share.
 *
 * The words are those of kubectl's own printers (upstream: pkg/printers/internalversion), which
 * scripts compare against. Cells with a rule of their own are in the file of their group.
 */
#include "base/buf.h"
#include "base/clock.h"
#include "controlplane/resources/rows.h"
#include "controlplane/schema/selector.h"

void th_cell_name(const struct th_json *obj, struct th_json *cells)
{
    th_json_append_str(cells, th_json_path_str(obj, "metadata.name"));
}

void th_cell_since(const struct th_req_ctx *c, const char *time, struct th_json *cells)
{
    int64_t us = 0;
    if (!time || !*time || th_time_parse(time, &us, NULL) < 0) {
        th_json_append_str(cells, "<unknown>");
        return;
    }
    char text[TH_TIME_LEN];
    int64_t ms = c->now_ms - us / 1000;
    th_json_append_str(cells, th_duration_human(ms < 0 ? 0 : ms, text));
}

void th_cell_age(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells)
{
    th_cell_since(c, th_json_path_str(obj, "metadata.creationTimestamp"), cells);
}

void th_cell_str(const struct th_json *obj, const char *path, const char *dflt,
                 struct th_json *cells)
{
    const char *s = th_json_path_str(obj, path);
    th_json_append_str(cells, s && *s ? s : dflt);
}

void th_cell_labels(const struct th_json *map, struct th_json *cells)
{
    th_autostrv struct th_strv parts = TH_STRV_INIT;
    struct th_json_iter it = TH_JSON_ITER(map);
    while (th_json_next(&it)) {
        const char *v = th_json_str(it.value);
        th_strv_addf(&parts, "%s=%s", it.name, v ? v : "");
    }
    th_strv_sort(&parts);
    th_autofree char *text = parts.n ? th_strv_join(&parts, ",") : th_xstrdup("<none>");
    th_json_append_str(cells, text);
}

void th_cell_containers(const struct th_json *list, struct th_json *cells)
{
    th_autobuf struct th_buf names = TH_BUF_INIT, images = TH_BUF_INIT;
    for (size_t i = 0; i < th_json_len(list); i++) {
        const char *name = th_json_path_str(th_json_at(list, i), "name");
        const char *image = th_json_path_str(th_json_at(list, i), "image");
        th_buf_printf(&names, "%s%s", i ? "," : "", name ? name : "");
        th_buf_printf(&images, "%s%s", i ? "," : "", image ? image : "");
    }
    th_json_append_str(cells, th_buf_cstr(&names));
    th_json_append_str(cells, th_buf_cstr(&images));
}

void th_cell_selector(const struct th_json *selector, struct th_json *cells)
{
    struct th_selector *sel TH_AUTO(th_selector) = NULL;
    if (!selector) {
        th_json_append_str(cells, "<none>");
        return;
    }
    if (th_selector_from_json(selector, &sel, NULL) < 0) {
        th_json_append_str(cells, "<error>");
        return;
    }
    th_autofree char *text = th_selector_format(sel);
    th_json_append_str(cells, *text ? text : "<none>");
}

char *th_join_strings(const struct th_json *list, const char *sep)
{
    th_autostrv struct th_strv parts = TH_STRV_INIT;
    for (size_t i = 0; i < th_json_len(list); i++) {
        const char *s = th_json_str(th_json_at(list, i));
        th_strv_add(&parts, s ? s : "");
    }
    return th_strv_join(&parts, sep);
}

char *th_access_modes(const struct th_json *modes)
{
    static const char *const words[][2] = {{"ReadWriteOnce", "RWO"},
                                           {"ReadOnlyMany", "ROX"},
                                           {"ReadWriteMany", "RWX"},
                                           {"ReadWriteOncePod", "RWOP"}};
    th_autostrv struct th_strv parts = TH_STRV_INIT;
    for (size_t w = 0; w < TH_ARRAY_LEN(words); w++) {
        for (size_t i = 0; i < th_json_len(modes); i++) {
            if (th_streq(th_json_str(th_json_at(modes, i)), words[w][0]) &&
                !th_strv_has(&parts, words[w][1])) {
                th_strv_add(&parts, words[w][1]);
            }
        }
    }
    return th_strv_join(&parts, ",");
}

static struct th_json *as_text(const struct th_json *v, const char *dflt)
{
    if (!v) {
        return th_json_string(dflt);
    }
    if (th_json_is(v, TH_JSON_STRING)) {
        return th_json_string(th_json_str(v));
    }
    th_autofree char *text = th_json_to_string(v);
    return th_json_string(text);
}

/* "data+binaryData": members or elements of all the paths. */
static int64_t count(const struct th_json *obj, const char *paths)
{
    th_autostrv struct th_strv list = TH_STRV_INIT;
    int64_t n = 0;
    th_strv_split(&list, paths, '+');
    for (size_t i = 0; i < list.n; i++) {
        n += (int64_t)th_json_len(th_json_path(obj, list.v[i]));
    }
    return n;
}

static void one_cell(const struct th_req_ctx *c, const struct th_json *obj,
                     const struct th_cell *cell, struct th_json *cells)
{
    const struct th_json *v = cell->path ? th_json_path(obj, cell->path) : NULL;
    switch (cell->kind) {
    case TH_CELL_NAME:
        th_cell_name(obj, cells);
        return;
    case TH_CELL_AGE:
        th_cell_age(c, obj, cells);
        return;
    case TH_CELL_STR:
        th_cell_str(obj, cell->path, cell->dflt, cells);
        return;
    case TH_CELL_INT:
        th_json_append(cells, th_json_int(th_json_as_int(v, 0)));
        return;
    case TH_CELL_BOOL:
        th_json_append(cells, th_json_bool(th_json_as_bool(v, th_streq(cell->dflt, "true"))));
        return;
    case TH_CELL_BOOL_TEXT:
        th_json_append_str(cells, !v ? "<unset>" : th_json_as_bool(v, false) ? "True" : "False");
        return;
    case TH_CELL_VALUE:
        th_json_append(cells, v ? th_json_dup(v) : th_json_string(cell->dflt));
        return;
    case TH_CELL_INTORSTR:
        th_json_append(cells, as_text(v, cell->dflt));
        return;
    case TH_CELL_COUNT:
        th_json_append(cells, th_json_int(count(obj, cell->path)));
        return;
    case TH_CELL_SINCE:
        if (v) {
            th_cell_since(c, th_json_str(v), cells);
        } else {
            th_json_append_str(cells, cell->dflt);
        }
        return;
    case TH_CELL_JOIN: {
        th_autofree char *text = th_join_strings(v, ",");
        th_json_append_str(cells, text);
        return;
    }
    case TH_CELL_LABELS:
        th_cell_labels(v, cells);
        return;
    case TH_CELL_SELECTOR:
        th_cell_selector(v, cells);
        return;
    case TH_CELL_CONTAINERS:
        th_cell_containers(v, cells);
        return;
    case TH_CELL_FN:
        cell->fn(c, obj, cells);
        return;
    case TH_CELL_END:
        return;
    }
}

void th_cells(const struct th_req_ctx *c, const struct th_json *obj, const struct th_cell *list,
              struct th_json *cells)
{
    for (; list->kind != TH_CELL_END; list++) {
        one_cell(c, obj, list, cells);
    }
}

const char *th_selectable_count(const struct th_json *obj, const char *field, char *buf)
{
    (void)snprintf(buf, 64, "%lld", (long long)th_json_path_int(obj, field, 0));
    return buf;
}
