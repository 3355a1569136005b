/* ConfigMap. */
#include "controlplane/resources/cells.h"

static const char *const short_names[] = {"cm", NULL};

static const struct th_column columns[] = {
    TH_COL_NAME,
    {"Data", "string", "", "Number of entries, text and binary", 0},
    TH_COL_AGE,
    {0},
};

static void row(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells)
{
    th_cell_name(obj, cells);
    size_t n = th_json_len(th_json_get(obj, "data")) + th_json_len(th_json_get(obj, "binaryData"));
    th_json_append(cells, th_json_int((int64_t)n));
    th_cell_age(c, obj, cells);
}

const struct th_resource th_res_core_configmaps = {
    .group = "",
    .version = "v1",
    .kind = "ConfigMap",
    .plural = "configmaps",
    .singular = "configmap",
    .short_names = short_names,
    .namespaced = true,
    .verbs = TH_VERBS_ALL,
    .storage_hash = "qFsyl6wFWjQ=",
    .columns = columns,
    .row = row,
};
