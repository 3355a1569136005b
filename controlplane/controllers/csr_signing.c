/* Signing: an approved CertificateSigningRequest of one of the four built-in signers gets its
 * certificate from the cluster's CA.
 *
 * Each signer has its own idea of what may be asked; what it does not like becomes the condition
 * Failed. A certificate lives a year or as long as was asked, whichever is less, begins five minutes
 * before now, and carries the usages of the request's spec whatever its extensions say. Without the
 * CA's key (it was given from outside) there is nothing to do here.
 */
#include "controlplane/controllers/csr.h"

#include "base/clock.h"
#include "base/encode.h"

#define TTL_S (365ll * 24 * 3600)
#define TTL_MIN_S 600
#define BACKDATE_S 300
#define SHORT_S (8ll * 3600)
#define MAX_USAGES 32

static const struct {
    const char *name;
    unsigned bit;    /* of the key usage, or */
    const char *oid; /* an extended one */
} known_usages[] = {
    {"signing", TH_PKI_KU_DIGITAL_SIGNATURE, NULL},
    {"digital signature", TH_PKI_KU_DIGITAL_SIGNATURE, NULL},
    {"content commitment", TH_PKI_KU_CONTENT_COMMITMENT, NULL},
    {"key encipherment", TH_PKI_KU_KEY_ENCIPHERMENT, NULL},
    {"key agreement", TH_PKI_KU_KEY_AGREEMENT, NULL},
    {"data encipherment", TH_PKI_KU_DATA_ENCIPHERMENT, NULL},
    {"cert sign", TH_PKI_KU_CERT_SIGN, NULL},
    {"crl sign", TH_PKI_KU_CRL_SIGN, NULL},
    {"encipher only", TH_PKI_KU_ENCIPHER_ONLY, NULL},
    {"decipher only", TH_PKI_KU_DECIPHER_ONLY, NULL},
    {"any", 0, "2.5.29.37.0"},
    {"server auth", 0, "1.3.6.1.5.5.7.3.1"},
    {"client auth", 0, "1.3.6.1.5.5.7.3.2"},
    {"code signing", 0, "1.3.6.1.5.5.7.3.3"},
    {"email protection", 0, "1.3.6.1.5.5.7.3.4"},
    {"s/mime", 0, "1.3.6.1.5.5.7.3.4"},
    {"ipsec end system", 0, "1.3.6.1.5.5.7.3.5"},
    {"ipsec tunnel", 0, "1.3.6.1.5.5.7.3.6"},
    {"ipsec user", 0, "1.3.6.1.5.5.7.3.7"},
    {"timestamping", 0, "1.3.6.1.5.5.7.3.8"},
    {"ocsp signing", 0, "1.3.6.1.5.5.7.3.9"},
    {"microsoft sgc", 0, "1.3.6.1.4.1.311.10.3.3"},
    {"netscape sgc", 0, "2.16.840.1.113730.4.1"},
};

/* NULL: fine. Otherwise why the signer of API clients does not sign; the caller frees. */
static char *client_fault(const struct th_json *usages)
{
    bool client = false;
    for (size_t i = 0; i < th_json_len(usages); i++) {
        const char *u = th_json_str(th_json_at(usages, i));
        client = client || th_streq(u, "client auth");
        if (!th_streq(u, "client auth") && !th_streq(u, "digital signature") &&
            !th_streq(u, "key encipherment")) {
            return th_xasprintf("invalid usage for client certificate: %s", u ? u : "");
        }
    }
    return client ? NULL
                  : th_xstrdup("missing required usage for client certificate: client auth");
}

/* 1 ours and fine, 0 somebody else's, -1 ours and refused (*ret_why, the caller's). */
static int judge(const struct th_json *csr, const struct th_pki_request *r, char **ret_why)
{
    const char *signer = th_json_path_str(csr, "spec.signerName");
    char *why = NULL;
    if (th_streq(signer, TH_SIGNER_CLIENT)) {
        why = client_fault(th_json_path(csr, "spec.usages"));
    } else if (th_streq(signer, TH_SIGNER_KUBELET_CLIENT)) {
        why = th_xstrdup(th_csr_kubelet_fault(csr, r, false));
    } else if (th_streq(signer, TH_SIGNER_KUBELET_SERVING)) {
        why = th_xstrdup(th_csr_kubelet_fault(csr, r, true));
    } else if (!th_streq(signer, TH_SIGNER_LEGACY)) {
        return 0;
    }
    *ret_why = why;
    return why ? -1 : 1;
}

static int sign(struct th_ctrl *c, const struct th_json *csr, const char *pem, char **ret,
                struct th_err *err)
{
    const struct th_controllers_opts *o = th_ctrl_opts(c);
    struct th_pki_pair ca = {.cert_pem = (char *)(uintptr_t)o->ca_cert_pem,
                             .key_pem = (char *)(uintptr_t)o->ca_key_pem};
    int64_t ttl = th_json_path_int(csr, "spec.expirationSeconds", TTL_S);
    ttl = ttl > TTL_S ? TTL_S : ttl < TTL_MIN_S ? TTL_MIN_S : ttl;
    int64_t now_s = th_now_ms() / 1000;
    const char *purposes[MAX_USAGES + 1] = {NULL};
    size_t n = 0;
    struct th_pki_terms t = {.purposes = purposes,
                             .not_before_s = now_s - BACKDATE_S,
                             .not_after_s = now_s + ttl - (ttl < SHORT_S ? 0 : BACKDATE_S)};
    const struct th_json *usages = th_json_path(csr, "spec.usages");
    for (size_t k = 0; k < TH_ARRAY_LEN(known_usages); k++) {
        for (size_t i = 0; i < th_json_len(usages); i++) {
            if (!th_streq(th_json_str(th_json_at(usages, i)), known_usages[k].name)) {
                continue;
            }
            t.key_usage |= known_usages[k].bit;
            if (known_usages[k].oid && (n == 0 || !th_streq(purposes[n - 1], known_usages[k].oid))) {
                purposes[n++] = known_usages[k].oid;
            }
            break;
        }
    }
    return th_pki_request_sign(&ca, pem, &t, ret, err);
}

static int reconcile(struct th_ctrl *c, const char *key, int64_t *ret_after_ms, struct th_err *err)
{
    (void)ret_after_ms;
    TH_AUTO(th_json) struct th_json *csr =
        th_informer_get(th_ctrl_informer(c, TH_GVR_CSRS), "", key);
    const char *have = th_json_path_str(csr, "status.certificate");
    if (!csr || !th_ctrl_opts(c)->ca_key_pem || !th_csr_is(csr, "Approved") ||
        th_csr_is(csr, "Denied") || th_csr_is(csr, "Failed") || (have && *have)) {
        return 0;
    }
    TH_CLEANUP(th_pki_request_done) struct th_pki_request r = {.common_name = NULL};
    th_autofree char *pem = NULL;
    TH_TRY(th_csr_request(csr, &r, &pem, err));
    th_autofree char *why = NULL;
    int ours = judge(csr, &r, &why);
    if (ours == 0) {
        return 0;
    }
    if (ours < 0) {
        th_csr_add_condition(csr, "Failed", "SignerValidationFailure", why);
    } else {
        th_autofree char *cert = NULL;
        TH_TRY(sign(c, csr, pem, &cert, err));
        th_autobuf struct th_buf packed = TH_BUF_INIT;
        th_b64_encode(cert, strlen(cert), &packed);
        th_json_path_set_str(csr, "status.certificate", th_buf_cstr(&packed));
    }
    return th_client_update(th_ctrl_client(c), TH_GVR_CSRS, NULL, key, "status", csr, NULL, err);
}

static const struct th_ctrl_watch watches[] = {
    {.gvr = {"certificates.k8s.io", "v1", "certificatesigningrequests"},
     .on_event = th_ctrl_on_self},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_csr_signing = {
    .name = "certificatesigningrequest-signing-controller",
    .account = "certificate-controller",
    .watches = watches,
    .reconcile = reconcile,
};
