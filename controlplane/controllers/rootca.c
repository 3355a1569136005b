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
    th_ctrl_on_namespace_object(c, old, now, NAME);
}

static bool same_data(const struct th_json *have, const struct th_json *wanted)
{
    return th_json_equal(th_json_get(have, "data"), th_json_get(wanted, "data"));
}

static int reconcile(struct th_ctrl *c, const char *key, int64_t *ret_after_ms, struct th_err *err)
{
    (void)ret_after_ms;
    const char *pem = th_ctrl_opts(c)->ca_cert_pem;
    if (!pem) {
        return 0;
    }
    struct th_json *wanted TH_AUTO(th_json) = th_json_build(
        "{'apiVersion':'v1','kind':'ConfigMap','metadata':{'name':'" NAME "','namespace':%s,"
        "'annotations':{'kubernetes.io/description':%s}},'data':{'ca.crt':%s}}",
        key, NOTE, pem);
    return th_ctrl_keep_in_namespace(c, key, TH_GVR_CONFIGMAPS, wanted, same_data, err);
}

static const struct th_ctrl_watch watches[] = {
    {.gvr = {"", "v1", "namespaces"}, .on_event = th_ctrl_on_self},
    {.gvr = {"", "v1", "configmaps"}, .on_event = on_configmap},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_rootca = {
    .name = "root-ca-certificate-publisher-controller",
    .account = "root-ca-cert-publisher",
    .watches = watches,
    .reconcile = reconcile,
};
