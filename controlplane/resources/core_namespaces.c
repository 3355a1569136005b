/* Namespace: its deletion has two phases. A delete sets the deletionTimestamp and the phase
 * Terminating; the object goes when spec.finalizers has been emptied through /finalize. */
#include "controlplane/resources/cells.h"
#include "controlplane/schema/names.h"

static const char *const short_names[] = {"ns", NULL};
static const char *const selectable[] = {"status.phase", NULL};
static const struct th_column columns[] = {
    TH_COL_NAME,
    {"Status", "string", "", "Active or Terminating", 0},
    TH_COL_AGE,
    {0},
};

static void row(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells)
{
    th_cell_name(obj, cells);
    th_cell_str(obj, "status.phase", "", cells);
    th_cell_age(c, obj, cells);
}

static void prepare_create(const struct th_req_ctx *c, struct th_json *obj)
{
    (void)c;
    struct th_json *f = th_json_path_array(obj, "spec.finalizers");
    bool has = false;
    for (size_t i = 0; i < th_json_len(f); i++) {
        has = has || th_streq(th_json_str(th_json_at(f, i)), "kubernetes");
    }
    if (!has) {
        th_json_append_str(f, "kubernetes");
    }
    th_json_path_set_str(obj, "status.phase", "Active");
    const char *name = th_json_path_str(obj, "metadata.name");
    if (name) {
        th_json_set_str(th_json_path_object(obj, "metadata.labels"), "kubernetes.io/metadata.name",
                        name);
    }
}

static void prepare_update(const struct th_req_ctx *c, struct th_json *obj,
                           const struct th_json *old)
{
    (void)c;
    th_json_path_set(obj, "spec.finalizers", th_json_dup(th_json_path(old, "spec.finalizers")));
    const char *name = th_json_path_str(obj, "metadata.name");
    if (name) {
        th_json_set_str(th_json_path_object(obj, "metadata.labels"), "kubernetes.io/metadata.name",
                        name);
    }
}

static bool hold(const struct th_req_ctx *c, struct th_json *obj)
{
    (void)c;
    th_json_path_set_str(obj, "status.phase", "Terminating");
    return th_json_len(th_json_path(obj, "spec.finalizers")) > 0;
}

static int finalize(const struct th_req_ctx *c, const struct th_json *old,
                    const struct th_json *body, struct th_json **ret, struct th_err *err)
{
    (void)c;
    (void)err;
    struct th_json *n = th_json_dup(old);
    struct th_json *f = th_json_path(body, "spec.finalizers");
    if (th_json_len(f) > 0) {
        th_json_path_set(n, "spec.finalizers", th_json_dup(f));
    } else {
        th_json_path_del(n, "spec.finalizers");
    }
    *ret = n;
    return 0;
}

static const struct th_subresource subs[] = {
    {"finalize", "", "v1", "Namespace", TH_VERB_UPDATE, .update = finalize},
    {"status", "", "v1", "Namespace", TH_VERB_GET | TH_VERB_UPDATE | TH_VERB_PATCH},
    {0},
};

const struct th_resource th_res_core_namespaces = {
    .group = "",
    .version = "v1",
    .kind = "Namespace",
    .plural = "namespaces",
    .singular = "namespace",
    .short_names = short_names,
    .verbs = TH_VERBS_ALL & ~(unsigned)TH_VERB_DELETECOLLECTION,
    .storage_hash = "Q3oi5N2YM8M=",
    .subs = subs,
    .columns = columns,
    .row = row,
    .selectable = selectable,
    .s = {.prepare_create = prepare_create,
          .prepare_update = prepare_update,
          .hold = hold,
          .name_check = th_name_dns1123_label},
};
