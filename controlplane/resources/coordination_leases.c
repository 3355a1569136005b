/* Lease. */
#include "controlplane/resources/cells.h"

static const struct th_column columns[] = {
    TH_COL_NAME,
    {"Holder", "string", "", "Who holds the lease", 0},
    TH_COL_AGE,
    {0},
};

static void row(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells)
{
    th_cell_name(obj, cells);
    th_cell_str(obj, "spec.holderIdentity", "", cells);
    th_cell_age(c, obj, cells);
}

const struct th_resource th_res_coordination_leases = {
    .group = "coordination.k8s.io",
    .version = "v1",
    .kind = "Lease",
    .plural = "leases",
    .singular = "lease",
    .namespaced = true,
    .verbs = TH_VERBS_ALL,
    .storage_hash = "gqkMMb/YqFM=",
    .columns = columns,
    .row = row,
    .s = {.allow_create_on_update = true, .need_rv_on_update = true},
};
