/* Node: registered and kept current by its node agent. */
#include "controlplane/resources/cells.h"
#include "base/buf.h"

static const char *const short_names[] = {"no", NULL};
static const char *const selectable[] = {"spec.unschedulable", NULL};
static const struct th_column columns[] = {
    TH_COL_NAME,
    {"Status", "string", "", "Whether the node takes pods", 0},
    {"Roles", "string", "", "Roles by label", 0},
    TH_COL_AGE,
    {"Version", "string", "", "Version of the node agent", 0},
    {"Internal-IP", "string", "", "Address inside the cluster", 1},
    {"External-IP", "string", "", "Address outside of it", 1},
    {"OS-Image", "string", "", "Operating system", 1},
    {"Kernel-Version", "string", "", "Kernel", 1},
    {"Container-Runtime", "string", "", "Runtime and its version", 1},
    {0},
};

static const char *selectable_value(const struct th_json *obj, const char *field, char *buf)
{
    (void)buf;
    return th_json_path_bool(obj, field, false) ? "true" : "false";
}

static char *roles(const struct th_json *obj)
{
    static const char prefix[] = "node-role.kubernetes.io/";
    struct th_strv list TH_CLEANUP(th_strv_done) = TH_STRV_INIT;
    struct th_json_iter it = TH_JSON_ITER(th_json_path(obj, "metadata.labels"));
    while (th_json_next(&it)) {
        if (th_startswith(it.name, prefix) && it.name[sizeof(prefix) - 1]) {
            th_strv_add(&list, it.name + sizeof(prefix) - 1);
        } else if (th_streq(it.name, "kubernetes.io/role") && th_json_str(it.value)) {
            th_strv_add(&list, th_json_str(it.value));
        }
    }
    th_strv_sort(&list);
    return list.n ? th_strv_join(&list, ",") : th_xstrdup("<none>");
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

static void row(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells)
{
    const char *ready = "Unknown";
    const struct th_json *list = th_json_path(obj, "status.conditions");
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *cond = th_json_at(list, i);
        if (th_streq(th_json_path_str(cond, "type"), "Ready")) {
            ready = th_streq(th_json_path_str(cond, "status"), "True") ? "Ready" : "NotReady";
        }
    }
    bool cordoned = th_json_path_bool(obj, "spec.unschedulable", false);
    th_autofree char *who = roles(obj);
    th_cell_name(obj, cells);
    th_json_append(cells, th_json_stringf("%s%s", ready, cordoned ? ",SchedulingDisabled" : ""));
    th_json_append_str(cells, who);
    th_cell_age(c, obj, cells);
    th_cell_str(obj, "status.nodeInfo.kubeletVersion", "", cells);
    th_json_append_str(cells, address(obj, "InternalIP"));
    th_json_append_str(cells, address(obj, "ExternalIP"));
    th_cell_str(obj, "status.nodeInfo.osImage", "<unknown>", cells);
    th_cell_str(obj, "status.nodeInfo.kernelVersion", "<unknown>", cells);
    th_cell_str(obj, "status.nodeInfo.containerRuntimeVersion", "<unknown>", cells);
}

static const struct th_subresource subs[] = {
    {"proxy", "", "v1", "NodeProxyOptions",
     TH_VERB_CREATE | TH_VERB_DELETE | TH_VERB_GET | TH_VERB_PATCH | TH_VERB_UPDATE},
    {"status", "", "v1", "Node", TH_VERB_GET | TH_VERB_UPDATE | TH_VERB_PATCH},
    {0},
};

const struct th_resource th_res_core_nodes = {
    .group = "",
    .version = "v1",
    .kind = "Node",
    .plural = "nodes",
    .singular = "node",
    .short_names = short_names,
    .verbs = TH_VERBS_ALL,
    .storage_hash = "XwShjMxG9Fs=",
    .subs = subs,
    .columns = columns,
    .row = row,
    .selectable = selectable,
    .selectable_value = selectable_value,
    /* A node agent registers with its status, as kubelets do. */
    .s = {.no_status_reset = true},
};
