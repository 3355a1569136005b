/* Node: registered and kept current by its node agent. */
#include "controlplane/resources/rows.h"

const char *th_node_selectable(const struct th_json *obj, const char *field, char *buf)
{
    (void)buf;
    return th_json_path_bool(obj, field, false) ? "true" : "false";
}

static const char *address(const struct th_json *obj, const char *type)
{
    const struct th_json *list = th_json_path(obj, "status.addresses");
    for (size_t i = 0; i < th_json_len(list); i++) {
        if (th_streq(th_json_path_str(th_json_at(list, i), "type"), type)) {
            return th_json_path_str(th_json_at(list, i), "address");
        }
    }
    return "<none>";
}

void th_row_node_roles(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells)
{
    (void)c;
    static const char prefix[] = "node-role.kubernetes.io/";
    th_autostrv struct th_strv list = TH_STRV_INIT;
    struct th_json_iter it = TH_JSON_ITER(th_json_path(obj, "metadata.labels"));
    while (th_json_next(&it)) {
        if (th_startswith(it.name, prefix) && it.name[sizeof(prefix) - 1]) {
            th_strv_add(&list, it.name + sizeof(prefix) - 1);
        } else if (th_streq(it.name, "kubernetes.io/role") && th_json_str(it.value)) {
            th_strv_add(&list, th_json_str(it.value));
        }
    }
    th_strv_sort(&list);
    th_autofree char *text = list.n ? th_strv_join(&list, ",") : th_xstrdup("<none>");
    th_json_append_str(cells, text);
}

void th_row_node_status(const struct th_req_ctx *c, const struct th_json *obj,
                        struct th_json *cells)
{
    (void)c;
    const char *ready = "Unknown";
    const struct th_json *list = th_json_path(obj, "status.conditions");
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *cond = th_json_at(list, i);
        if (th_streq(th_json_path_str(cond, "type"), "Ready")) {
            ready = th_streq(th_json_path_str(cond, "status"), "True") ? "Ready" : "NotReady";
        }
    }
    bool cordoned = th_json_path_bool(obj, "spec.unschedulable", false);
    th_json_append(cells, th_json_stringf("%s%s", ready, cordoned ? ",SchedulingDisabled" : ""));
}

void th_row_node_addresses(const struct th_req_ctx *c, const struct th_json *obj,
                           struct th_json *cells)
{
    (void)c;
    th_json_append_str(cells, address(obj, "InternalIP"));
    th_json_append_str(cells, address(obj, "ExternalIP"));
}
