/* ServiceAccount: every namespace that lives has one named "default". */
#include "controlplane/controllers/controller.h"
#include "base/buf.h"

static void on_account(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    const struct th_json *obj = now ? now : old;
    if (!now && th_streq(th_json_path_str(obj, "metadata.name"), "default")) {
        th_ctrl_enqueue(c, th_json_path_str(obj, "metadata.namespace"));
    }
}

static int reconcile(struct th_ctrl *c, const char *key, int64_t *ret_after_ms, struct th_err *err)
{
    (void)ret_after_ms;
    struct th_json *ns TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, TH_GVR_NAMESPACES), "", key);
    if (!ns || !th_streq(th_json_path_str(ns, "status.phase"), "Active")) {
        return 0;
    }
    struct th_json *there TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, TH_GVR_SERVICEACCOUNTS), key, "default");
    if (there) {
        return 0;
    }
    struct th_json *sa TH_AUTO(th_json) = th_json_build(
        "{'apiVersion':'v1','kind':'ServiceAccount','metadata':{'name':'default','namespace':%s}}",
        key);
    int r = th_client_create(th_ctrl_client(c), TH_GVR_SERVICEACCOUNTS, key, sa, NULL, err);
    if (r == -TH_R_ALREADY_EXISTS) {
        th_err_done(err);
        r = 0;
    }
    return r;
}

static const struct th_ctrl_watch watches[] = {
    {.gvr = {"", "v1", "namespaces"}, .on_event = th_ctrl_on_self},
    {.gvr = {"", "v1", "serviceaccounts"}, .on_event = on_account},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_serviceaccount = {
    .name = "serviceaccount-controller",
    .watches = watches,
    .reconcile = reconcile,
};
