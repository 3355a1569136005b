/* ServiceAccount: every namespace that lives has one named "default". */
#include "controlplane/controllers/controller.h"
#include "base/buf.h"

static void on_account(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    th_ctrl_on_namespace_object(c, old, now, "default");
}

static int reconcile(struct th_ctrl *c, const char *key, int64_t *ret_after_ms, struct th_err *err)
{
    (void)ret_after_ms;
    struct th_json *wanted TH_AUTO(th_json) = th_json_build(
        "{'apiVersion':'v1','kind':'ServiceAccount','metadata':{'name':'default','namespace':%s}}",
        key);
    return th_ctrl_keep_in_namespace(c, key, TH_GVR_SERVICEACCOUNTS, wanted, NULL, err);
}

static const struct th_ctrl_watch watches[] = {
    {.gvr = {"", "v1", "namespaces"}, .on_event = th_ctrl_on_self},
    {.gvr = {"", "v1", "serviceaccounts"}, .on_event = on_account},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_serviceaccount = {
    .name = "serviceaccount-controller",
    .account = "service-account-controller",
    .watches = watches,
    .reconcile = reconcile,
};
