/* Namespace: its deletion has two phases. A delete sets the deletionTimestamp and the phase
 * Terminating; the object goes when spec.finalizers has been emptied through /finalize. */
#include "controlplane/resources/rows.h"

void th_namespace_prepare_create(const struct th_req_ctx *c, struct th_json *obj)
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

void th_namespace_prepare_update(const struct th_req_ctx *c, struct th_json *obj,
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

bool th_namespace_hold(const struct th_req_ctx *c, struct th_json *obj)
{
    (void)c;
    th_json_path_set_str(obj, "status.phase", "Terminating");
    return th_json_len(th_json_path(obj, "spec.finalizers")) > 0;
}

int th_namespace_finalize(const struct th_req_ctx *c, const struct th_json *old,
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
