/* Secret. */
#include "controlplane/resources/cells.h"

static const struct th_column columns[] = {
    TH_COL_NAME,
    {"Type", "string", "", "What the data is for", 0},
    {"Data", "string", "", "Number of entries", 0},
    TH_COL_AGE,
    {0},
};
static const char *const selectable[] = {"type", NULL};

static void row(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells)
{
    th_cell_name(obj, cells);
    th_cell_str(obj, "type", "", cells);
    th_json_append(cells, th_json_int((int64_t)th_json_len(th_json_get(obj, "data"))));
    th_cell_age(c, obj, cells);
}

const struct th_resource th_res_core_secrets = {
    .group = "",
    .version = "v1",
    .kind = "Secret",
    .plural = "secrets",
    .singular = "secret",
    .namespaced = true,
    .verbs = TH_VERBS_ALL,
    .storage_hash = "S6u1pOWzb84=",
    .columns = columns,
    .row = row,
    .selectable = selectable,
};
