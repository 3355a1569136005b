/* Deployment and ReplicaSet. */
#include "controlplane/resources/cells.h"
#include "controlplane/resources/podrules.h"
#include "base/buf.h"
#include <inttypes.h>

#define RWP (TH_VERB_GET | TH_VERB_UPDATE | TH_VERB_PATCH)

static const char *const categories[] = {"all", NULL};
static const char *const deploy_short[] = {"deploy", NULL};
static const char *const rs_short[] = {"rs", NULL};

static void validate(const struct th_req_ctx *c, const struct th_json *obj, struct th_err *err)
{
    (void)c;
    th_validate_workload(obj, err);
}

static void validate_update(const struct th_req_ctx *c, const struct th_json *obj,
                            const struct th_json *old, struct th_err *err)
{
    (void)c;
    th_validate_workload(obj, err);
    th_validate_selector_immutable(obj, old, err);
}

static const struct th_column deploy_columns[] = {
    TH_COL_NAME,
    {"Ready", "string", "", "Replicas that are ready, of those wanted", 0},
    {"Up-to-date", "string", "", "Replicas of the newest template", 0},
    {"Available", "string", "", "Replicas that have been ready long enough", 0},
    TH_COL_AGE,
    {"Containers", "string", "", "Names of the containers", 1},
    {"Images", "string", "", "Images of the containers", 1},
    {"Selector", "string", "", "Which pods belong to it", 1},
    {0},
};

static void deploy_row(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells)
{
    th_cell_name(obj, cells);
    th_json_append(cells, th_json_stringf("%" PRId64 "/%" PRId64,
                                          th_json_path_int(obj, "status.readyReplicas", 0),
                                          th_json_path_int(obj, "spec.replicas", 0)));
    th_json_append(cells, th_json_int(th_json_path_int(obj, "status.updatedReplicas", 0)));
    th_json_append(cells, th_json_int(th_json_path_int(obj, "status.availableReplicas", 0)));
    th_cell_age(c, obj, cells);
    th_cell_containers(obj, "spec.template.spec.containers", cells);
    th_cell_selector(th_json_path(obj, "spec.selector"), cells);
}

static const struct th_subresource deploy_subs[] = {
    {"scale", "autoscaling", "v1", "Scale", RWP, .update = th_scale_update, .get = th_scale_get},
    {"status", "apps", "v1", "Deployment", RWP},
    {0},
};

const struct th_resource th_res_apps_deployments = {
    .group = "apps",
    .version = "v1",
    .kind = "Deployment",
    .plural = "deployments",
    .singular = "deployment",
    .short_names = deploy_short,
    .categories = categories,
    .namespaced = true,
    .verbs = TH_VERBS_ALL,
    .storage_hash = "8aSe+NMegvE=",
    .subs = deploy_subs,
    .columns = deploy_columns,
    .row = deploy_row,
    .s = {.validate = validate, .validate_update = validate_update, .has_generation = true},
};

static const struct th_column rs_columns[] = {
    TH_COL_NAME,
    {"Desired", "integer", "", "Replicas that are wanted", 0},
    {"Current", "integer", "", "Replicas there are", 0},
    {"Ready", "integer", "", "Replicas that are ready", 0},
    TH_COL_AGE,
    {"Containers", "string", "", "Names of the containers", 1},
    {"Images", "string", "", "Images of the containers", 1},
    {"Selector", "string", "", "Which pods belong to it", 1},
    {0},
};

static void rs_row(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells)
{
    th_cell_name(obj, cells);
    th_json_append(cells, th_json_int(th_json_path_int(obj, "spec.replicas", 0)));
    th_json_append(cells, th_json_int(th_json_path_int(obj, "status.replicas", 0)));
    th_json_append(cells, th_json_int(th_json_path_int(obj, "status.readyReplicas", 0)));
    th_cell_age(c, obj, cells);
    th_cell_containers(obj, "spec.template.spec.containers", cells);
    th_cell_selector(th_json_path(obj, "spec.selector"), cells);
}

static const struct th_subresource rs_subs[] = {
    {"scale", "autoscaling", "v1", "Scale", RWP, .update = th_scale_update, .get = th_scale_get},
    {"status", "apps", "v1", "ReplicaSet", RWP},
    {0},
};

const struct th_resource th_res_apps_replicasets = {
    .group = "apps",
    .version = "v1",
    .kind = "ReplicaSet",
    .plural = "replicasets",
    .singular = "replicaset",
    .short_names = rs_short,
    .categories = categories,
    .namespaced = true,
    .verbs = TH_VERBS_ALL,
    .storage_hash = "P1RzHs8/mWQ=",
    .subs = rs_subs,
    .columns = rs_columns,
    .row = rs_row,
    .s = {.validate = validate, .validate_update = validate_update, .has_generation = true},
};
