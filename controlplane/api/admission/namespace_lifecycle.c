/* NamespaceLifecycle: nothing is created in a namespace that is not there or is going, and the
 * namespaces that the cluster itself stands on are not deleted. */
#include "base/json/slice.h"
#include "controlplane/api/admission/admission.h"

static int fail_terminating(struct th_call *c, const struct th_json *obj, struct th_err *err)
{
    const char *name = th_json_path_str(obj, "metadata.name");
    (void)th_fail_forbidden(err, c->res, name,
                            "unable to create new content in namespace %s because it is being "
                            "terminated",
                            c->route.ns);
    if (err) {
        th_err_add_cause(err, "NamespaceTerminating", "metadata.namespace",
                         "namespace %s is being terminated", c->route.ns);
    }
    return -TH_R_FORBIDDEN;
}

static int mutate(struct th_call *c, struct th_json *obj, const struct th_json *old,
                  struct th_err *err)
{
    if (old || !c->res->namespaced || !c->route.ns) {
        return 0;
    }
    th_autofree char *key = th_xasprintf("core/namespaces/-/%s", c->route.ns);
    TH_AUTO(th_obj) struct th_obj *ns = th_store_get(c->api->store, key);
    if (!ns) {
        return th_fail_obj(err, TH_R_NOT_FOUND, "", "namespaces", c->route.ns,
                           "namespaces \"%s\" not found", c->route.ns);
    }
    struct th_str phase = th_json_slice_path((struct th_str){ns->bytes, ns->n}, "status.phase");
    if (!th_str_eq(th_json_slice_text(phase), TH_STR("Terminating"))) {
        return 0;
    }
    return fail_terminating(c, obj, err);
}

static int on_delete(struct th_call *c, const char *name, struct th_err *err)
{
    static const char *const immortal[] = {"default", "kube-system", "kube-public"};
    if (*c->res->group || !th_streq(c->res->plural, "namespaces")) {
        return 0;
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(immortal); i++) {
        if (th_streq(name, immortal[i])) {
            return th_fail_forbidden(err, c->res, name, "this namespace may not be deleted");
        }
    }
    return 0;
}

const struct th_admission_plugin th_admission_namespace_lifecycle = {
    .name = "NamespaceLifecycle", .mutate = mutate, .on_delete = on_delete};
