/* PersistentVolumeClaimResize: a claim only grows once it is bound, and where its class says so. */
#include "controlplane/api/admission/admission.h"

#include "controlplane/schema/quantity.h"

static bool grows(const struct th_json *obj, const struct th_json *old)
{
    struct th_quantity now, was;
    const char *a = th_json_path_str(obj, "spec.resources.requests.storage");
    const char *b = th_json_path_str(old, "spec.resources.requests.storage");
    return a && b && th_quantity_parse(a, &now, NULL) >= 0 && th_quantity_parse(b, &was, NULL) >= 0 &&
           th_quantity_cmp(now, was) > 0;
}

static const char *class_of(const struct th_json *claim)
{
    const char *note = th_json_str(th_json_get(th_json_path(claim, "metadata.annotations"),
                                               "volume.beta.kubernetes.io/storage-class"));
    return note ? note : th_json_path_str(claim, "spec.storageClassName");
}

static bool class_allows(struct th_call *c, const char *class)
{
    TH_AUTO(th_json) struct th_json *t = NULL;
    th_autofree char *key = th_xasprintf("storage.k8s.io/storageclasses/-/%s", class);
    TH_AUTO(th_obj) struct th_obj *o = th_store_get(c->api->store, key);
    return o && th_json_parse(o->bytes, o->n, NULL, &t, NULL) >= 0 &&
           th_json_path_bool(t, "allowVolumeExpansion", false);
}

static int validate(struct th_call *c, const struct th_json *obj, const struct th_json *old,
                    struct th_err *err)
{
    if (!old || c->sub || *c->res->group || !th_streq(c->res->plural, "persistentvolumeclaims") ||
        !grows(obj, old)) {
        return 0;
    }
    const char *name = th_json_path_str(obj, "metadata.name");
    const char *now = class_of(obj), *was = class_of(old);
    if (!th_streq(th_json_path_str(old, "status.phase"), "Bound")) {
        return th_fail_forbidden(err, c->res, name,
                                 "Only bound persistent volume claims can be expanded");
    }
    if (!now || !*now || !th_streq(now, was) || !class_allows(c, now)) {
        return th_fail_forbidden(err, c->res, name,
                                 "only dynamically provisioned pvc can be resized and the storageclass "
                                 "that provisions the pvc must support resize");
    }
    return 0;
}

const struct th_admission_plugin th_admission_claim_resize = {.name = "PersistentVolumeClaimResize",
                                                              .validate = validate};
