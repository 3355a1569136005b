/* Certificates, keys and signatures over GnuTLS.
 *
 * Problem: the cluster has one CA, a handful of server and client certificates, and ServiceAccount
 * tokens signed with ES256; users' clients (Go, curl, browsers) must accept all of them. Design:
 * ECDSA P-256 and SHA-256 throughout, which every client has and which is quick to make. Keys
 * travel as PKCS#8 PEM, certificates as PEM. Handles of GnuTLS live only inside one call.
 *
 * Invariants: a certificate is backdated by an hour, so that a guest whose clock is a little behind
 * its host accepts it at once; a leaf never outlives its CA; serial numbers are 127 random bits,
 * never zero and never negative. Validity follows base/clock.h, so simulated clusters age properly;
 * keys and serials come from GnuTLS' generator, never from base/rand.h, so a seeded run still has
 * secret keys.
 */
#include "base/pki.h"

#include "base/clock.h"

#include <arpa/inet.h>
#include <gnutls/abstract.h>
#include <gnutls/crypto.h>
#include <gnutls/x509.h>

#define BACKDATE_S 3600
#define DAY_S 86400
#define SIGN_LEN 64

static void crt_free(gnutls_x509_crt_t *c)
{
    if (*c) {
        gnutls_x509_crt_deinit(*c);
    }
}
static void privkey_free(gnutls_privkey_t *k)
{
    if (*k) {
        gnutls_privkey_deinit(*k);
    }
}
static void x509_key_free(gnutls_x509_privkey_t *k)
{
    if (*k) {
        gnutls_x509_privkey_deinit(*k);
    }
}
static void pubkey_free(gnutls_pubkey_t *k)
{
    if (*k) {
        gnutls_pubkey_deinit(*k);
    }
}
static void datum_free(gnutls_datum_t *d)
{
    gnutls_free(d->data);
}
#define AUTO_CRT TH_CLEANUP(crt_free)
#define AUTO_PRIVKEY TH_CLEANUP(privkey_free)
#define AUTO_X509_KEY TH_CLEANUP(x509_key_free)
#define AUTO_PUBKEY TH_CLEANUP(pubkey_free)
#define AUTO_DATUM TH_CLEANUP(datum_free)

static int fail_tls(struct th_err *err, int code, enum th_reason reason, const char *what)
{
    return th_fail(err, reason, "%s: %s", what, gnutls_strerror(code));
}

/* Evaluates a GnuTLS call; leaves the function when it fails. */
#define TLS_TRY(err, reason, what, call)                                                           \
    do {                                                                                           \
        int tls_r_ = (call);                                                                       \
        if (tls_r_ < 0) {                                                                          \
            return fail_tls((err), tls_r_, (reason), (what));                                      \
        }                                                                                          \
    } while (0)

static gnutls_datum_t datum_of(const char *s)
{
    return (gnutls_datum_t){(unsigned char *)(uintptr_t)s, (unsigned)strlen(s)};
}

static char *text_of(const gnutls_datum_t *d)
{
    return th_xstrndup((const char *)d->data, d->size);
}

void th_pki_pair_done(struct th_pki_pair *p)
{
    free(p->cert_pem);
    if (p->key_pem) {
        explicit_bzero(p->key_pem, strlen(p->key_pem));
        free(p->key_pem);
    }
    *p = (struct th_pki_pair){NULL, NULL};
}

static int key_generate(gnutls_x509_privkey_t *ret, struct th_err *err)
{
    TLS_TRY(err, TH_R_INTERNAL, "key", gnutls_x509_privkey_init(ret));
    TLS_TRY(err, TH_R_INTERNAL, "making a key",
            gnutls_x509_privkey_generate(*ret, GNUTLS_PK_ECDSA,
                                         GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0));
    return 0;
}

static int key_export(gnutls_x509_privkey_t key, char **ret, struct th_err *err)
{
    AUTO_DATUM gnutls_datum_t pem = {0};
    TLS_TRY(
        err, TH_R_INTERNAL, "writing a key",
        gnutls_x509_privkey_export2_pkcs8(key, GNUTLS_X509_FMT_PEM, NULL, GNUTLS_PKCS_PLAIN, &pem));
    *ret = text_of(&pem);
    explicit_bzero(pem.data, pem.size);
    return 0;
}

static int x509_key_import(const char *pem, gnutls_x509_privkey_t *ret, struct th_err *err)
{
    gnutls_datum_t d = datum_of(pem);
    TLS_TRY(err, TH_R_INTERNAL, "key", gnutls_x509_privkey_init(ret));
    /* also takes "EC PRIVATE KEY", which others' tools write */
    TLS_TRY(err, TH_R_PARSE, "reading a private key",
            gnutls_x509_privkey_import2(*ret, &d, GNUTLS_X509_FMT_PEM, NULL, 0));
    return 0;
}

static int crt_import(const char *pem, gnutls_x509_crt_t *ret, struct th_err *err)
{
    gnutls_datum_t d = datum_of(pem);
    TLS_TRY(err, TH_R_INTERNAL, "certificate", gnutls_x509_crt_init(ret));
    TLS_TRY(err, TH_R_PARSE, "reading a certificate",
            gnutls_x509_crt_import(*ret, &d, GNUTLS_X509_FMT_PEM));
    return 0;
}

/* What all certificates have: version, serial, key and its id, subject's name, validity. */
static int crt_begin(gnutls_x509_crt_t crt, gnutls_x509_privkey_t key, const char *common_name,
                     int days, time_t not_after_limit, struct th_err *err)
{
    static const char what[] = "certificate";
    unsigned char serial[16];
    TLS_TRY(err, TH_R_INTERNAL, what, gnutls_rnd(GNUTLS_RND_NONCE, serial, sizeof(serial)));
    serial[0] = (unsigned char)((serial[0] & 0x7f) | 0x40);
    time_t now = (time_t)(th_now_ms() / 1000);
    time_t end = now + (time_t)days * DAY_S;
    if (not_after_limit && end > not_after_limit) {
        end = not_after_limit;
    }
    TLS_TRY(err, TH_R_INTERNAL, what, gnutls_x509_crt_set_version(crt, 3));
    TLS_TRY(err, TH_R_INTERNAL, what, gnutls_x509_crt_set_serial(crt, serial, sizeof(serial)));
    TLS_TRY(err, TH_R_INTERNAL, what, gnutls_x509_crt_set_activation_time(crt, now - BACKDATE_S));
    TLS_TRY(err, TH_R_INTERNAL, what, gnutls_x509_crt_set_expiration_time(crt, end));
    TLS_TRY(err, TH_R_INTERNAL, what, gnutls_x509_crt_set_key(crt, key));
    TLS_TRY(err, TH_R_INVALID, "common name of a certificate",
            gnutls_x509_crt_set_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, common_name,
                                          (unsigned)strlen(common_name)));
    unsigned char id[20];
    size_t n = sizeof(id);
    TLS_TRY(err, TH_R_INTERNAL, what, gnutls_x509_crt_get_key_id(crt, 0, id, &n));
    TLS_TRY(err, TH_R_INTERNAL, what, gnutls_x509_crt_set_subject_key_id(crt, id, n));
    return 0;
}

static int crt_finish(gnutls_x509_crt_t crt, gnutls_x509_crt_t ca, gnutls_x509_privkey_t ca_key,
                      gnutls_x509_privkey_t key, struct th_pki_pair *ret, struct th_err *err)
{
    TLS_TRY(err, TH_R_INTERNAL, "signing a certificate",
            gnutls_x509_crt_sign2(crt, ca, ca_key, GNUTLS_DIG_SHA256, 0));
    AUTO_DATUM gnutls_datum_t pem = {0};
    TLS_TRY(err, TH_R_INTERNAL, "writing a certificate",
            gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_PEM, &pem));
    char *key_pem;
    TH_TRY(key_export(key, &key_pem, err));
    *ret = (struct th_pki_pair){.cert_pem = text_of(&pem), .key_pem = key_pem};
    return 0;
}

int th_pki_ca_new(const char *common_name, struct th_pki_pair *ret, struct th_err *err)
{
    AUTO_X509_KEY gnutls_x509_privkey_t key = NULL;
    AUTO_CRT gnutls_x509_crt_t crt = NULL;
    TH_TRY(key_generate(&key, err));
    TLS_TRY(err, TH_R_INTERNAL, "certificate", gnutls_x509_crt_init(&crt));
    TH_TRY(crt_begin(crt, key, common_name, TH_PKI_CA_DAYS, 0, err));
    TLS_TRY(err, TH_R_INTERNAL, "CA", gnutls_x509_crt_set_basic_constraints(crt, 1, -1));
    TLS_TRY(err, TH_R_INTERNAL, "CA",
            gnutls_x509_crt_set_key_usage(crt, GNUTLS_KEY_KEY_CERT_SIGN | GNUTLS_KEY_CRL_SIGN |
                                                   GNUTLS_KEY_DIGITAL_SIGNATURE));
    return crt_finish(crt, crt, key, key, ret, err);
}

static int add_ip(gnutls_x509_crt_t crt, const char *text, struct th_err *err)
{
    unsigned char ip[16];
    unsigned n = inet_pton(AF_INET, text, ip) == 1    ? 4
                 : inet_pton(AF_INET6, text, ip) == 1 ? 16
                                                      : 0;
    if (n == 0) {
        return th_fail(err, TH_R_INVALID, "not an IP address: \"%s\"", text);
    }
    TLS_TRY(
        err, TH_R_INTERNAL, "IP address of a certificate",
        gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_IPADDRESS, ip, n, GNUTLS_FSAN_APPEND));
    return 0;
}

static int add_names(gnutls_x509_crt_t crt, const struct th_pki_req *req, struct th_err *err)
{
    for (size_t i = 0; req->organizations && req->organizations[i]; i++) {
        TLS_TRY(err, TH_R_INVALID, "organization of a certificate",
                gnutls_x509_crt_set_dn_by_oid(crt, GNUTLS_OID_X520_ORGANIZATION_NAME, 0,
                                              req->organizations[i],
                                              (unsigned)strlen(req->organizations[i])));
    }
    for (size_t i = 0; req->dns_names && req->dns_names[i]; i++) {
        TLS_TRY(err, TH_R_INVALID, "DNS name of a certificate",
                gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_DNSNAME, req->dns_names[i],
                                                     (unsigned)strlen(req->dns_names[i]),
                                                     GNUTLS_FSAN_APPEND));
    }
    for (size_t i = 0; req->ip_addresses && req->ip_addresses[i]; i++) {
        TH_TRY(add_ip(crt, req->ip_addresses[i], err));
    }
    return 0;
}

int th_pki_issue(const struct th_pki_pair *ca, const struct th_pki_req *req,
                 struct th_pki_pair *ret, struct th_err *err)
{
    AUTO_X509_KEY gnutls_x509_privkey_t ca_key = NULL;
    AUTO_CRT gnutls_x509_crt_t ca_crt = NULL;
    AUTO_X509_KEY gnutls_x509_privkey_t key = NULL;
    AUTO_CRT gnutls_x509_crt_t crt = NULL;
    TH_TRY(crt_import(ca->cert_pem, &ca_crt, err));
    TH_TRY(x509_key_import(ca->key_pem, &ca_key, err));
    TH_TRY(key_generate(&key, err));
    TLS_TRY(err, TH_R_INTERNAL, "certificate", gnutls_x509_crt_init(&crt));
    TH_TRY(crt_begin(crt, key, req->common_name, req->days,
                     gnutls_x509_crt_get_expiration_time(ca_crt), err));
    TH_TRY(add_names(crt, req, err));
    TLS_TRY(err, TH_R_INTERNAL, "leaf", gnutls_x509_crt_set_basic_constraints(crt, 0, -1));
    TLS_TRY(err, TH_R_INTERNAL, "leaf",
            gnutls_x509_crt_set_key_usage(crt, GNUTLS_KEY_DIGITAL_SIGNATURE));
    if (req->use & TH_PKI_SERVER) {
        TLS_TRY(err, TH_R_INTERNAL, "leaf",
                gnutls_x509_crt_set_key_purpose_oid(crt, GNUTLS_KP_TLS_WWW_SERVER, 0));
    }
    if (req->use & TH_PKI_CLIENT) {
        TLS_TRY(err, TH_R_INTERNAL, "leaf",
                gnutls_x509_crt_set_key_purpose_oid(crt, GNUTLS_KP_TLS_WWW_CLIENT, 0));
    }
    unsigned char id[64];
    size_t n = sizeof(id);
    if (gnutls_x509_crt_get_subject_key_id(ca_crt, id, &n, NULL) >= 0) {
        TLS_TRY(err, TH_R_INTERNAL, "leaf", gnutls_x509_crt_set_authority_key_id(crt, id, n));
    }
    return crt_finish(crt, ca_crt, ca_key, key, ret, err);
}

int th_pki_check(const char *cert_pem, const char *key_pem, const char *ca_pem, struct th_err *err)
{
    AUTO_X509_KEY gnutls_x509_privkey_t key = NULL;
    AUTO_CRT gnutls_x509_crt_t crt = NULL;
    unsigned char of_crt[64], of_key[64];
    size_t n_crt = sizeof(of_crt), n_key = sizeof(of_key);
    TH_TRY(crt_import(cert_pem, &crt, err));
    TH_TRY(x509_key_import(key_pem, &key, err));
    TLS_TRY(err, TH_R_INVALID, "certificate",
            gnutls_x509_crt_get_key_id(crt, GNUTLS_KEYID_USE_SHA256, of_crt, &n_crt));
    TLS_TRY(err, TH_R_INVALID, "key",
            gnutls_x509_privkey_get_key_id(key, GNUTLS_KEYID_USE_SHA256, of_key, &n_key));
    if (n_crt != n_key || memcmp(of_crt, of_key, n_crt) != 0) {
        return th_fail(err, TH_R_INVALID, "the certificate does not belong to the key");
    }
    if (ca_pem) {
        AUTO_CRT gnutls_x509_crt_t ca = NULL;
        unsigned status = 0;
        TH_TRY(crt_import(ca_pem, &ca, err));
        TLS_TRY(err, TH_R_INVALID, "verifying a certificate",
                gnutls_x509_crt_verify(crt, &ca, 1, GNUTLS_VERIFY_DISABLE_TIME_CHECKS, &status));
        if (status != 0) {
            return th_fail(err, TH_R_INVALID, "the certificate is not signed by the CA");
        }
    }
    return 0;
}

int th_pki_key_new(char **ret_key_pem, struct th_err *err)
{
    AUTO_X509_KEY gnutls_x509_privkey_t key = NULL;
    TH_TRY(key_generate(&key, err));
    return key_export(key, ret_key_pem, err);
}

/* Takes a private or a public key in PEM. */
static int pubkey_import(const char *pem, gnutls_pubkey_t *ret, struct th_err *err)
{
    TLS_TRY(err, TH_R_INTERNAL, "key", gnutls_pubkey_init(ret));
    gnutls_datum_t d = datum_of(pem);
    if (strstr(pem, "-----BEGIN PUBLIC KEY-----")) {
        TLS_TRY(err, TH_R_PARSE, "reading a public key",
                gnutls_pubkey_import(*ret, &d, GNUTLS_X509_FMT_PEM));
        return 0;
    }
    AUTO_PRIVKEY gnutls_privkey_t key = NULL;
    TLS_TRY(err, TH_R_INTERNAL, "key", gnutls_privkey_init(&key));
    TLS_TRY(err, TH_R_PARSE, "reading a private key",
            gnutls_privkey_import_x509_raw(key, &d, GNUTLS_X509_FMT_PEM, NULL, 0));
    TLS_TRY(err, TH_R_INTERNAL, "key", gnutls_pubkey_import_privkey(*ret, key, 0, 0));
    return 0;
}

int th_pki_public_pem(const char *key_pem, char **ret_pub_pem, struct th_err *err)
{
    AUTO_PUBKEY gnutls_pubkey_t pub = NULL;
    AUTO_DATUM gnutls_datum_t pem = {0};
    TH_TRY(pubkey_import(key_pem, &pub, err));
    TLS_TRY(err, TH_R_INTERNAL, "writing a public key",
            gnutls_pubkey_export2(pub, GNUTLS_X509_FMT_PEM, &pem));
    *ret_pub_pem = text_of(&pem);
    return 0;
}

/* A big-endian integer as exactly n bytes. */
static bool fixed_width(const gnutls_datum_t *d, unsigned char *out, size_t n)
{
    const unsigned char *p = d->data;
    size_t size = d->size;
    while (size > 0 && *p == 0) {
        p++;
        size--;
    }
    if (size > n) {
        return false;
    }
    memset(out, 0, n - size);
    if (size) {
        memcpy(out + n - size, p, size);
    }
    return true;
}

int th_pki_public_xy(const char *key_pem, unsigned char x[32], unsigned char y[32],
                     struct th_err *err)
{
    AUTO_PUBKEY gnutls_pubkey_t pub = NULL;
    AUTO_DATUM gnutls_datum_t dx = {0};
    AUTO_DATUM gnutls_datum_t dy = {0};
    gnutls_ecc_curve_t curve;
    TH_TRY(pubkey_import(key_pem, &pub, err));
    TLS_TRY(err, TH_R_PARSE, "public point", gnutls_pubkey_export_ecc_raw(pub, &curve, &dx, &dy));
    if (curve != GNUTLS_ECC_CURVE_SECP256R1 || !fixed_width(&dx, x, 32) ||
        !fixed_width(&dy, y, 32)) {
        return th_fail(err, TH_R_PARSE, "not a P-256 key");
    }
    return 0;
}

int th_pki_sign_es256(const char *key_pem, const void *p, size_t n, unsigned char sig[64],
                      struct th_err *err)
{
    AUTO_PRIVKEY gnutls_privkey_t key = NULL;
    gnutls_datum_t pem = datum_of(key_pem);
    gnutls_datum_t data = {(unsigned char *)(uintptr_t)p, (unsigned)n};
    AUTO_DATUM gnutls_datum_t der = {0};
    AUTO_DATUM gnutls_datum_t r = {0};
    AUTO_DATUM gnutls_datum_t s = {0};
    TLS_TRY(err, TH_R_INTERNAL, "key", gnutls_privkey_init(&key));
    TLS_TRY(err, TH_R_PARSE, "reading a private key",
            gnutls_privkey_import_x509_raw(key, &pem, GNUTLS_X509_FMT_PEM, NULL, 0));
    TLS_TRY(err, TH_R_INTERNAL, "signing",
            gnutls_privkey_sign_data2(key, GNUTLS_SIGN_ECDSA_SHA256, 0, &data, &der));
    TLS_TRY(err, TH_R_INTERNAL, "signing", gnutls_decode_rs_value(&der, &r, &s));
    if (!fixed_width(&r, sig, SIGN_LEN / 2) || !fixed_width(&s, sig + SIGN_LEN / 2, SIGN_LEN / 2)) {
        return th_fail(err, TH_R_INVALID, "signing: not a P-256 key");
    }
    return 0;
}

int th_pki_verify_es256(const char *key_pem_private_or_public, const void *p, size_t n,
                        const unsigned char sig[64], struct th_err *err)
{
    AUTO_PUBKEY gnutls_pubkey_t pub = NULL;
    gnutls_datum_t data = {(unsigned char *)(uintptr_t)p, (unsigned)n};
    gnutls_datum_t r = {(unsigned char *)(uintptr_t)sig, SIGN_LEN / 2};
    gnutls_datum_t s = {(unsigned char *)(uintptr_t)sig + SIGN_LEN / 2, SIGN_LEN / 2};
    AUTO_DATUM gnutls_datum_t der = {0};
    TH_TRY(pubkey_import(key_pem_private_or_public, &pub, err));
    TLS_TRY(err, TH_R_UNAUTHORIZED, "signature", gnutls_encode_rs_value(&der, &r, &s));
    TLS_TRY(err, TH_R_UNAUTHORIZED, "signature",
            gnutls_pubkey_verify_data2(pub, GNUTLS_SIGN_ECDSA_SHA256, 0, &data, &der));
    return 0;
}

/* The values of one kind of name in the subject, in order. Read part by part: GnuTLS' getter by OID
 * escapes what is special in RFC 4514, and "a,b" is a good name for a group. */
static void subject_parts(gnutls_x509_dn_t dn, const char *oid, struct th_strv *ret)
{
    gnutls_x509_ava_st ava;
    for (int rdn = 0; gnutls_x509_dn_get_rdn_ava(dn, rdn, 0, &ava) == 0; rdn++) {
        for (int i = 0; gnutls_x509_dn_get_rdn_ava(dn, rdn, i, &ava) == 0; i++) {
            bool same = ava.oid.size >= strlen(oid) &&
                        strncmp((const char *)ava.oid.data, oid, ava.oid.size) == 0;
            /* with a NUL inside it would be another name to those who compare C strings */
            if (same && ava.value.size > 0 && !memchr(ava.value.data, '\0', ava.value.size)) {
                th_strv_take(ret, text_of(&ava.value));
            }
        }
    }
}

int th_pki_subject(const char *cert_pem, char **ret_cn, struct th_strv *ret_orgs,
                   int64_t *ret_not_after_ms, struct th_err *err)
{
    AUTO_CRT gnutls_x509_crt_t crt = NULL;
    TH_TRY(crt_import(cert_pem, &crt, err));
    gnutls_x509_dn_t dn; /* points into crt */
    TLS_TRY(err, TH_R_PARSE, "subject of a certificate", gnutls_x509_crt_get_subject(crt, &dn));
    th_autostrv struct th_strv names = TH_STRV_INIT;
    subject_parts(dn, GNUTLS_OID_X520_COMMON_NAME, &names);
    if (names.n == 0) {
        return th_fail(err, TH_R_PARSE, "certificate without a common name");
    }
    if (ret_cn) {
        *ret_cn = th_xstrdup(names.v[0]);
    }
    if (ret_orgs) {
        subject_parts(dn, GNUTLS_OID_X520_ORGANIZATION_NAME, ret_orgs);
    }
    if (ret_not_after_ms) {
        *ret_not_after_ms = (int64_t)gnutls_x509_crt_get_expiration_time(crt) * 1000;
    }
    return 0;
}
