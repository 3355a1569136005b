#ifndef TH_CONTROLLERS_CSR_H
#define TH_CONTROLLERS_CSR_H
/* What the three controllers of CertificateSigningRequests share. */
#include "base/pki.h"
#include "controlplane/controllers/controller.h"

#define TH_GVR_CSRS                                                                                \
    ((struct th_gvr){"certificates.k8s.io", "v1", "certificatesigningrequests"})
#define TH_SIGNER_CLIENT "kubernetes.io/kube-apiserver-client"
#define TH_SIGNER_KUBELET_CLIENT "kubernetes.io/kube-apiserver-client-kubelet"
#define TH_SIGNER_KUBELET_SERVING "kubernetes.io/kubelet-serving"
#define TH_SIGNER_LEGACY "kubernetes.io/legacy-unknown"

/* A condition of this type with status True. */
bool th_csr_is(const struct th_json *csr, const char *type);
/* The request out of its base64; *ret_pem (may be NULL) is the caller's. */
int th_csr_request(const struct th_json *csr, struct th_pki_request *ret, char **ret_pem,
                   struct th_err *err) TH_MUST_USE;
/* NULL when the request is what a kubelet asks to prove its node (serving: to serve under its node's
 * name); else upstream's words for why not. */
const char *th_csr_kubelet_fault(const struct th_json *csr, const struct th_pki_request *r,
                                 bool serving);
void th_csr_add_condition(struct th_json *csr, const char *type, const char *reason,
                          const char *message);
#endif
