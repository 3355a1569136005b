/* CertificateApproval, CertificateSigning, CertificateSubjectRestriction: who may decide about a
 * certificate request, who may put a certificate into it, and what nobody may ask for.
 *
 * Deciding and signing take the verb approve or sign on the request's signer, by its full name or as
 * "<domain>/" + "*". The signer that is asked is that of the stored request. */
#include "controlplane/api/admission/admission.h"

#include "base/encode.h"
#include "base/pki.h"

#define GROUP "certificates.k8s.io"
#define CLIENT_SIGNER "kubernetes.io/kube-apiserver-client"

static bool is_request(const struct th_call *c, const char *sub)
{
    return th_streq(c->res->plural, "certificatesigningrequests") &&
           th_streq(c->res->group, GROUP) && th_streq(c->sub ? c->sub->name : NULL, sub);
}

static bool may(struct th_call *c, const char *verb, const char *signer)
{
    const char *slash = strchr(signer, '/');
    th_autofree char *all =
        th_xasprintf("%.*s/*", (int)(slash ? slash - signer : (ptrdiff_t)strlen(signer)), signer);
    struct th_attrs at = {.id = c->req->id,
                          .verb = verb,
                          .resource = true,
                          .group = GROUP,
                          .version = "*",
                          .plural = "signers",
                          .name = signer};
    if (th_authz_allowed(c->api->authz, &at, NULL)) {
        return true;
    }
    at.name = all;
    return th_authz_allowed(c->api->authz, &at, NULL);
}

static int check(struct th_call *c, const char *verb, const struct th_json *old, struct th_err *err)
{
    const char *signer = th_json_path_str(old, "spec.signerName");
    signer = signer ? signer : "";
    if (may(c, verb, signer)) {
        return 0;
    }
    return th_fail_forbidden(err, c->res, c->route.name,
                             "user not permitted to %s requests with signerName \"%s\"", verb,
                             signer);
}

static int approval(struct th_call *c, const struct th_json *obj, const struct th_json *old,
                    struct th_err *err)
{
    (void)obj;
    return old && is_request(c, "approval") ? check(c, "approve", old, err) : 0;
}

static int signing(struct th_call *c, const struct th_json *obj, const struct th_json *old,
                   struct th_err *err)
{
    if (!old || !is_request(c, "status")) {
        return 0;
    }
    static const char *const parts[] = {"status.certificate", "status.conditions"};
    for (size_t i = 0; i < TH_ARRAY_LEN(parts); i++) {
        if (!th_json_equal(th_json_path(obj, parts[i]), th_json_path(old, parts[i]))) {
            return check(c, "sign", old, err);
        }
    }
    return 0;
}

static int subject(struct th_call *c, const struct th_json *obj, const struct th_json *old,
                   struct th_err *err)
{
    const char *signer = th_json_path_str(obj, "spec.signerName");
    const char *packed = th_json_path_str(obj, "spec.request");
    if (old || !is_request(c, NULL) || !th_streq(signer, CLIENT_SIGNER)) {
        return 0;
    }
    const char *name = th_json_path_str(obj, "metadata.name");
    th_autobuf struct th_buf pem = TH_BUF_INIT;
    TH_CLEANUP(th_pki_request_done) struct th_pki_request r = {.common_name = NULL};
    TH_AUTO_ERR struct th_err why = TH_ERR_INIT;
    if (th_b64_decode(packed ? packed : "", packed ? strlen(packed) : 0, &pem, &why) < 0 ||
        th_pki_request_parse(th_buf_cstr(&pem), &r, &why) < 0) {
        return th_fail_forbidden(err, c->res, name, "failed to parse CSR: %s", why.msg);
    }
    if (th_strv_has(&r.organizations, "system:masters")) {
        return th_fail_forbidden(err, c->res, name,
                                 "use of " CLIENT_SIGNER " signer with system:masters group is not "
                                 "allowed");
    }
    return 0;
}

const struct th_admission_plugin th_admission_certificate_approval = {
    .name = "CertificateApproval", .validate = approval};
const struct th_admission_plugin th_admission_certificate_signing = {.name = "CertificateSigning",
                                                                     .validate = signing};
const struct th_admission_plugin th_admission_certificate_subject = {
    .name = "CertificateSubjectRestriction", .validate = subject};
