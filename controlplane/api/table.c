/* Tables and PartialObjectMetadata: how `kubectl get` and metadata clients see objects.
 *
 * The resource's row says the columns and computes the cells; a row without columns gets Name and
 * Created At, as upstream's default convertor. Text is written straight into the body, object by
 * object, so a Table of any length needs one parsed object at a time.
 */
#include "controlplane/api/priv.h"

static const struct th_column default_columns[] = {
    {"Name", "string", "name", "Name of the object, unique in its scope", 0},
    {"Created At", "date", "", "When the server created the object", 0},
    {0},
};

void th_table_columns(const struct th_call *c, struct th_buf *b)
{
    th_buf_putc(b, '[');
    const struct th_column *own = c->res->columns ? c->res->columns : default_columns;
    const struct th_column *first = c->sub && c->sub->columns ? c->sub->columns : own;
    for (const struct th_column *col = first; col->name; col++) {
        TH_AUTO(th_json) struct th_json *o =
            th_json_build("{'name':%s,'type':%s,'format':%s,'description':%s,'priority':%d}",
                          col->name, col->type, col->format ? col->format : "",
                          col->doc ? col->doc : "", (int64_t)col->priority);
        if (col != first) {
            th_buf_putc(b, ',');
        }
        th_json_dump(o, b);
    }
    th_buf_putc(b, ']');
}

void th_table_head(const struct th_call *c, const char *rv, const char *cont, int64_t remaining,
                   bool columns, struct th_buf *b)
{
    th_buf_printf(b, "{\"kind\":\"Table\",\"apiVersion\":\"%s\",\"metadata\":{", c->accept.gv);
    if (rv) {
        th_buf_printf(b, "\"resourceVersion\":\"%s\"", rv);
    }
    if (cont) {
        th_buf_printf(b, ",\"continue\":\"%s\"", cont);
    }
    if (remaining > 0) {
        th_buf_printf(b, ",\"remainingItemCount\":%lld", (long long)remaining);
    }
    th_buf_puts(b, "},\"columnDefinitions\":");
    if (columns) {
        th_table_columns(c, b);
    } else {
        th_buf_puts(b, "null"); /* the watch's first table had them */
    }
    th_buf_puts(b, ",\"rows\":[");
}

int th_table_include(const struct th_call *c, const char **ret, struct th_err *err)
{
    const char *v = th_query_get(&c->query, "includeObject");
    if (!v || !*v || th_streq(v, "Metadata")) {
        *ret = "Metadata";
    } else if (th_streq(v, "None")) {
        *ret = "None";
    } else if (th_streq(v, "Object")) {
        *ret = "Object";
    } else {
        return th_fail(err, TH_R_BAD_REQUEST, "unrecognized includeObject value: \"%s\"", v);
    }
    return 0;
}

void th_partial_meta(const struct th_json *obj, const char *gv, struct th_buf *b)
{
    th_buf_printf(b, "{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"%s\",\"metadata\":", gv);
    const struct th_json *meta = th_json_get(obj, "metadata");
    if (meta) {
        th_json_dump(meta, b);
    } else {
        th_buf_puts(b, "{}");
    }
    th_buf_putc(b, '}');
}

static void default_cells(const struct th_json *obj, struct th_json *cells)
{
    th_json_append_str(cells, th_json_path_str(obj, "metadata.name"));
    th_json_append_str(cells, th_json_path_str(obj, "metadata.creationTimestamp"));
}

int th_table_row(const struct th_call *c, const struct th_json *obj, const char *include,
                 struct th_buf *b, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *cells = th_json_array();
    if (c->sub && c->sub->row) {
        c->sub->row(&c->ctx, obj, cells);
    } else if (c->res->row) {
        c->res->row(&c->ctx, obj, cells);
    } else {
        default_cells(obj, cells);
    }
    th_buf_puts(b, "{\"cells\":");
    th_json_dump(cells, b);
    if (!th_streq(include, "None")) {
        th_buf_puts(b, ",\"object\":");
        if (th_streq(include, "Object")) {
            th_json_dump(obj, b);
        } else {
            th_partial_meta(obj, c->accept.gv, b);
        }
    }
    th_buf_putc(b, '}');
    return th_buf_check(b, err);
}
