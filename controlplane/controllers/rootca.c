/* Root CA: every namespace that lives has the ConfigMap kube-root-ca.crt, which pods verify the API
 * server with; it is put right again when somebody changes or deletes it. */
#include "controlplane/controllers/controller.h"
#include "base/buf.h"

#define NAME "kube-root-ca.crt"
#define NOTE                                                                                       \
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal "      \
    "endpoints such as the internal service IP or kubernetes.default.svc. No other usage is "      \
    "guaranteed across distributions of Kubernetes clusters."

static void on_configmap(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    const struct th_json *obj = now ? now : old;
    if (th_streq(th_json_path_str(obj, "metadata.name"), NAME)) {
        th_ctrl_enqueue(c, th_json_path_str(obj, "metadata.namespace"));
    }
}

static int reconcile(struct th_ctrl *c, const char *key, int64_t *ret_after_ms, struct th_err *err)
{
    (void)ret_after_ms;
    const char *pem = th_ctrl_opts(c)->ca_cert_pem;
    struct th_json *ns TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, TH_GVR_NAMESPACES), "", key);
    if (!pem || !ns || !th_streq(th_json_path_str(ns, "status.phase"), "Active")) {
        return 0;
    }
    struct th_json *there TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, TH_GVR_CONFIGMAPS), key, NAME);
    if (there && th_json_len(th_json_get(there, "data")) == 1 &&
        th_streq(th_json_str(th_json_get(th_json_get(there, "data"), "ca.crt")), pem)) {
        return 0;
    }
    struct th_json *cm TH_AUTO(th_json) = th_json_build(
        "{'apiVersion':'v1','kind':'ConfigMap','metadata':{'name':'" NAME "','namespace':%s,"
        "'annotations':{'kubernetes.io/description':%s}},'data':{'ca.crt':%s}}",
        key, NOTE, pem);
    if (there) {
        return th_client_update(th_ctrl_client(c), TH_GVR_CONFIGMAPS, key, NAME, "", cm, NULL, err);
    }
    int r = th_client_create(th_ctrl_client(c), TH_GVR_CONFIGMAPS, key, cm, NULL, err);
    if (r == -TH_R_ALREADY_EXISTS) {
        th_err_done(err);
        r = 0;
    }
    return r;
}

static const struct th_ctrl_watch watches[] = {
    {.gvr = {"", "v1", "namespaces"}, .on_event = th_ctrl_on_self},
    {.gvr = {"", "v1", "configmaps"}, .on_event = on_configmap},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_rootca = {
    .name = "root-ca-certificate-publisher-controller",
    .watches = watches,
    .reconcile = reconcile,
};
