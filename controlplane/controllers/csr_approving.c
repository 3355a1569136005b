/* Approving: a kubelet that asks for its node's client certificate is approved by itself when
 * authorization lets its user create certificatesigningrequests/selfnodeclient (its own) or
 * /nodeclient (any). Everything else waits for somebody with kubectl certificate approve.
 *
 * Also here: what the controllers of the kind share. */
#include "controlplane/controllers/csr.h"

#include "base/encode.h"

bool th_csr_is(const struct th_json *csr, const char *type)
{
    const struct th_json *list = th_json_path(csr, "status.conditions");
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *c = th_json_at(list, i);
        if (th_streq(th_json_path_str(c, "type"), type) &&
            th_streq(th_json_path_str(c, "status"), "True")) {
            return true;
        }
    }
    return false;
}

int th_csr_request(const struct th_json *csr, struct th_pki_request *ret, char **ret_pem,
                   struct th_err *err)
{
    const char *packed = th_json_path_str(csr, "spec.request");
    th_autobuf struct th_buf pem = TH_BUF_INIT;
    TH_TRY(th_b64_decode(packed ? packed : "", packed ? strlen(packed) : 0, &pem, err));
    TH_TRY(th_pki_request_parse(th_buf_cstr(&pem), ret, err));
    if (ret_pem) {
        *ret_pem = th_buf_steal(&pem, NULL);
    }
    return 0;
}

/* Exactly digital signature and `purpose`, key encipherment if they like. */
static bool usages_are(const struct th_json *csr, const char *purpose)
{
    const struct th_json *list = th_json_path(csr, "spec.usages");
    bool signature = false;
    bool right = false;
    for (size_t i = 0; i < th_json_len(list); i++) {
        const char *u = th_json_str(th_json_at(list, i));
        signature = signature || th_streq(u, "digital signature");
        right = right || th_streq(u, purpose);
        if (!th_streq(u, "digital signature") && !th_streq(u, purpose) &&
            !th_streq(u, "key encipherment")) {
            return false;
        }
    }
    return signature && right;
}

const char *th_csr_kubelet_fault(const struct th_json *csr, const struct th_pki_request *r,
                                 bool serving)
{
    if (r->organizations.n != 1 || !th_streq(r->organizations.v[0], "system:nodes")) {
        return "subject organization is not system:nodes";
    }
    if (serving && r->dns_names.n == 0 && r->ip_addresses.n == 0) {
        return "DNS or IP subjectAltName is required";
    }
    if (!serving && r->dns_names.n > 0) {
        return "DNS subjectAltNames are not allowed";
    }
    if (r->emails.n > 0) {
        return "Email subjectAltNames are not allowed";
    }
    if (!serving && r->ip_addresses.n > 0) {
        return "IP subjectAltNames are not allowed";
    }
    if (r->uris.n > 0) {
        return "URI subjectAltNames are not allowed";
    }
    const char *words = serving ? "usages did not match [digital signature key encipherment server auth]"
                                : "usages did not match [client auth digital signature key encipherment]";
    bool usages = usages_are(csr, serving ? "server auth" : "client auth");
    if (serving && !usages) {
        return words;
    }
    if (!r->common_name || !th_startswith(r->common_name, "system:node:")) {
        return "subject common name does not begin with system:node:";
    }
    return usages ? NULL : words;
}

void th_csr_add_condition(struct th_json *csr, const char *type, const char *reason,
                          const char *message)
{
    th_json_append(th_json_path_array(csr, "status.conditions"),
                   th_json_build("{'type':%s,'status':'True','reason':%s,'message':%s}", type, reason,
                                 message));
}

static int allowed(struct th_ctrl *c, const struct th_json *csr, const char *sub, bool *ret,
                   struct th_err *err)
{
    static const struct th_gvr reviews = {"authorization.k8s.io", "v1", "subjectaccessreviews"};
    TH_AUTO(th_json) struct th_json *review = th_json_build(
        "{'apiVersion':'authorization.k8s.io/v1','kind':'SubjectAccessReview','spec':{'user':%s,"
        "'resourceAttributes':{'group':'certificates.k8s.io','resource':"
        "'certificatesigningrequests','verb':'create','subresource':%s,'version':'*'}}}",
        th_json_path_str(csr, "spec.username"), sub);
    static const char *const members[] = {"uid", "groups", "extra"};
    for (size_t i = 0; i < TH_ARRAY_LEN(members); i++) {
        const struct th_json *v = th_json_get(th_json_get(csr, "spec"), members[i]);
        if (v) {
            th_json_set(th_json_get(review, "spec"), members[i], th_json_dup(v));
        }
    }
    TH_AUTO(th_json) struct th_json *answer = NULL;
    TH_TRY(th_client_create(th_ctrl_client(c), reviews, NULL, review, &answer, err));
    *ret = th_json_path_bool(answer, "status.allowed", false);
    return 0;
}

static int reconcile(struct th_ctrl *c, const char *key, int64_t *ret_after_ms, struct th_err *err)
{
    (void)ret_after_ms;
    TH_AUTO(th_json) struct th_json *csr =
        th_informer_get(th_ctrl_informer(c, TH_GVR_CSRS), "", key);
    const char *have = th_json_path_str(csr, "status.certificate");
    if (!csr || (have && *have) || th_csr_is(csr, "Approved") || th_csr_is(csr, "Denied") ||
        !th_streq(th_json_path_str(csr, "spec.signerName"), TH_SIGNER_KUBELET_CLIENT)) {
        return 0;
    }
    TH_CLEANUP(th_pki_request_done) struct th_pki_request r = {.common_name = NULL};
    TH_TRY(th_csr_request(csr, &r, NULL, err));
    if (th_csr_kubelet_fault(csr, &r, false)) {
        return 0;
    }
    bool self = th_streq(th_json_path_str(csr, "spec.username"), r.common_name);
    bool yes = false;
    const char *message = "Auto approving self kubelet client certificate after "
                          "SubjectAccessReview.";
    if (self) {
        TH_TRY(allowed(c, csr, "selfnodeclient", &yes, err));
    }
    if (!yes) {
        message = "Auto approving kubelet client certificate after SubjectAccessReview.";
        TH_TRY(allowed(c, csr, "nodeclient", &yes, err));
    }
    if (!yes) {
        return 0;
    }
    th_csr_add_condition(csr, "Approved", "AutoApproved", message);
    return th_client_update(th_ctrl_client(c), TH_GVR_CSRS, NULL, key, "approval", csr, NULL, err);
}

static const struct th_ctrl_watch watches[] = {
    {.gvr = {"certificates.k8s.io", "v1", "certificatesigningrequests"},
     .on_event = th_ctrl_on_self},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_csr_approving = {
    .name = "certificatesigningrequest-approving-controller",
    .account = "certificate-controller",
    .watches = watches,
    .reconcile = reconcile,
};
