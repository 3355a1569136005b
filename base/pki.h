#ifndef TH_BASE_PKI_H
#define TH_BASE_PKI_H
/* Certificates and keys over GnuTLS: ECDSA P-256 throughout, PEM in and out. */
#include "base/buf.h"
#include "base/err.h"
struct th_pki_pair {
    char *cert_pem; /* NULL for a bare key */
    char *key_pem;
};
void th_pki_pair_done(struct th_pki_pair *p);
#define TH_AUTO_PAIR TH_CLEANUP(th_pki_pair_done)
#define TH_PKI_CA_DAYS 3650
/* A self-signed CA, valid TH_PKI_CA_DAYS, backdated by an hour. */
int th_pki_ca_new(const char *common_name, struct th_pki_pair *ret, struct th_err *err) TH_MUST_USE;
enum th_pki_use { TH_PKI_SERVER = 1, TH_PKI_CLIENT = 2 };
struct th_pki_req {
    const char *common_name;          /* user name of a client */
    const char *const *organizations; /* groups of a client; NULL-terminated or NULL */
    const char *const *dns_names;     /* NULL-terminated or NULL */
    const char *const *ip_addresses;  /* textual; NULL-terminated or NULL */
    unsigned use;                     /* enum th_pki_use bits */
    int days;
};
int th_pki_issue(const struct th_pki_pair *ca, const struct th_pki_req *req,
                 struct th_pki_pair *ret, struct th_err *err) TH_MUST_USE;
/* Whether the certificate belongs to the key, and (ca_pem not NULL) is signed by that CA: 0, else
 * TH_R_PARSE or TH_R_INVALID with what is wrong. Validity in time is not looked at. */
int th_pki_check(const char *cert_pem, const char *key_pem, const char *ca_pem,
                 struct th_err *err) TH_MUST_USE;
int th_pki_key_new(char **ret_key_pem, struct th_err *err) TH_MUST_USE;
int th_pki_public_pem(const char *key_pem, char **ret_pub_pem, struct th_err *err) TH_MUST_USE;
/* Raw public point, for a JWK: 32 bytes each. */
int th_pki_public_xy(const char *key_pem, unsigned char x[32], unsigned char y[32],
                     struct th_err *err);
/* ES256 (r||s, 64 bytes) over data. */
int th_pki_sign_es256(const char *key_pem, const void *p, size_t n, unsigned char sig[64],
                      struct th_err *err) TH_MUST_USE;
int th_pki_verify_es256(const char *key_pem_private_or_public, const void *p, size_t n,
                        const unsigned char sig[64], struct th_err *err) TH_MUST_USE;
/* Subject of a certificate: CN and all O's. For kubeconfigs and authentication. Each ret may be
 * NULL; organizations are added to ret_orgs. */
int th_pki_subject(const char *cert_pem, char **ret_cn, struct th_strv *ret_orgs,
                   int64_t *ret_not_after_ms, struct th_err *err) TH_MUST_USE;

/* ---- Certificate requests (pki_request.c): any key, PKCS#10 in PEM ---- */
struct th_pki_request { /* owned */
    char *common_name; /* NULL when the subject has none */
    struct th_strv organizations;
    struct th_strv dns_names, ip_addresses, emails, uris;
};
void th_pki_request_done(struct th_pki_request *r);
/* Exactly one "CERTIFICATE REQUEST" whose signature is by the key in it. TH_R_PARSE. */
int th_pki_request_parse(const char *pem, struct th_pki_request *ret, struct th_err *err) TH_MUST_USE;
enum th_pki_key_usage { /* bits of RFC 5280's keyUsage */
    TH_PKI_KU_DIGITAL_SIGNATURE = 1,
    TH_PKI_KU_CONTENT_COMMITMENT = 2,
    TH_PKI_KU_KEY_ENCIPHERMENT = 4,
    TH_PKI_KU_DATA_ENCIPHERMENT = 8,
    TH_PKI_KU_KEY_AGREEMENT = 16,
    TH_PKI_KU_CERT_SIGN = 32,
    TH_PKI_KU_CRL_SIGN = 64,
    TH_PKI_KU_ENCIPHER_ONLY = 128,
    TH_PKI_KU_DECIPHER_ONLY = 256
};
struct th_pki_terms { /* what the signer grants, whatever the request's extensions say */
    unsigned key_usage;              /* enum th_pki_key_usage bits; 0: no such extension */
    const char *const *purposes;     /* OIDs of extended key usages; NULL-terminated or NULL */
    int64_t not_before_s, not_after_s; /* the latter is cut to the CA's */
};
/* Subject, key and alternative names of the request, no other extension. */
int th_pki_request_sign(const struct th_pki_pair *ca, const char *pem, const struct th_pki_terms *t,
                        char **ret_cert_pem, struct th_err *err) TH_MUST_USE;
/* All blocks are certificates that parse, at least one. TH_R_PARSE. */
int th_pki_certificates_check(const char *pem, struct th_err *err) TH_MUST_USE;
#endif
