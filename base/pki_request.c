/* Certificate requests: read, and turned into certificates.
 *
 * Problem: somebody else made the key, with any algorithm, and wrote into his request whatever he
 * likes; the signer decides what of it becomes true. Design: subject, key and subject alternative
 * names are taken over, every other extension of the request is dropped and replaced by the signer's
 * own terms. Names with a NUL inside are refused: to those who compare C strings they would be
 * another name.
 *
 * Upstream signs with crypto/x509 on the same terms (PermissiveSigningPolicy).
 */
#include "base/pki.h"

#include "base/limits.h"

#include <arpa/inet.h>
#include <gnutls/crypto.h>
#include <gnutls/x509.h>

#define BEGIN "-----BEGIN CERTIFICATE REQUEST-----"

static void crq_free(gnutls_x509_crq_t *c)
{
    if (*c) {
        gnutls_x509_crq_deinit(*c);
    }
}
static void crt_free(gnutls_x509_crt_t *c)
{
    if (*c) {
        gnutls_x509_crt_deinit(*c);
    }
}
static void key_free(gnutls_x509_privkey_t *k)
{
    if (*k) {
        gnutls_x509_privkey_deinit(*k);
    }
}
static void datum_free(gnutls_datum_t *d)
{
    gnutls_free(d->data);
}

#define TLS_TRY(err, reason, what, call)                                                           \
    do {                                                                                           \
        int tls_r_ = (call);                                                                       \
        if (tls_r_ < 0) {                                                                          \
            return th_fail((err), (reason), "%s: %s", (what), gnutls_strerror(tls_r_));            \
        }                                                                                          \
    } while (0)

void th_pki_request_done(struct th_pki_request *r)
{
    free(r->common_name);
    th_strv_done(&r->organizations);
    th_strv_done(&r->dns_names);
    th_strv_done(&r->ip_addresses);
    th_strv_done(&r->emails);
    th_strv_done(&r->uris);
    *r = (struct th_pki_request){.common_name = NULL};
}

static int crq_import(const char *pem, gnutls_x509_crq_t *ret, struct th_err *err)
{
    gnutls_datum_t d = {(unsigned char *)(uintptr_t)pem, (unsigned)strlen(pem)};
    if (strlen(pem) > TH_LIMIT_CONFIG_FILE_B || !strstr(pem, BEGIN)) {
        return th_fail(err, TH_R_PARSE, "PEM block type must be CERTIFICATE REQUEST");
    }
    TLS_TRY(err, TH_R_INTERNAL, "certificate request", gnutls_x509_crq_init(ret));
    TLS_TRY(err, TH_R_PARSE, "certificate request",
            gnutls_x509_crq_import(*ret, &d, GNUTLS_X509_FMT_PEM));
    return 0;
}

/* The i-th value of one kind of name in the subject: 1 there, 0 none. */
static int subject_part(gnutls_x509_crq_t crq, const char *oid, unsigned i, char **ret,
                        struct th_err *err)
{
    size_t n = 0;
    int r = gnutls_x509_crq_get_dn_by_oid(crq, oid, (int)i, 0, NULL, &n);
    if (r == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) {
        return 0;
    }
    if (r != GNUTLS_E_SHORT_MEMORY_BUFFER || n > TH_LIMIT_HEADER_B) {
        return th_fail(err, TH_R_PARSE, "certificate request: subject: %s", gnutls_strerror(r));
    }
    th_autofree char *buf = th_xcalloc(1, n + 1);
    TLS_TRY(err, TH_R_PARSE, "certificate request: subject",
            gnutls_x509_crq_get_dn_by_oid(crq, oid, (int)i, 0, buf, &n));
    if (strlen(buf) < n) {
        return th_fail(err, TH_R_PARSE, "certificate request: a NUL byte in the subject");
    }
    *ret = th_steal(&buf);
    return 1;
}

static int read_subject(gnutls_x509_crq_t crq, struct th_pki_request *r, struct th_err *err)
{
    TH_TRY(subject_part(crq, GNUTLS_OID_X520_COMMON_NAME, 0, &r->common_name, err));
    for (unsigned i = 0;; i++) {
        char *o = NULL;
        int rc = subject_part(crq, GNUTLS_OID_X520_ORGANIZATION_NAME, i, &o, err);
        if (rc <= 0) {
            return rc;
        }
        th_strv_take(&r->organizations, o);
    }
}

/* One alternative name: its type, or a negative error of GnuTLS. */
static int alt_name(gnutls_x509_crq_t crq, unsigned i, char **ret, size_t *ret_n)
{
    size_t n = 0;
    unsigned type = 0;
    int r = gnutls_x509_crq_get_subject_alt_name(crq, i, NULL, &n, &type, NULL);
    if (r != GNUTLS_E_SHORT_MEMORY_BUFFER && r < 0) {
        return r;
    }
    if (n > TH_LIMIT_HEADER_B) {
        return GNUTLS_E_X509_UNSUPPORTED_EXTENSION;
    }
    th_autofree char *buf = th_xcalloc(1, n + 1);
    r = gnutls_x509_crq_get_subject_alt_name(crq, i, buf, &n, &type, NULL);
    if (r >= 0) {
        *ret = th_steal(&buf);
        *ret_n = n;
    }
    return r;
}

static int add_alt_name(struct th_pki_request *r, int type, const char *p, size_t n,
                        struct th_err *err)
{
    char text[INET6_ADDRSTRLEN];
    if (type == GNUTLS_SAN_IPADDRESS) {
        if ((n != 4 && n != 16) || !inet_ntop(n == 4 ? AF_INET : AF_INET6, p, text, sizeof(text))) {
            return th_fail(err, TH_R_PARSE, "certificate request: an IP address of %zu bytes", n);
        }
        th_strv_add(&r->ip_addresses, text);
        return 0;
    }
    if (strlen(p) < n) {
        return th_fail(err, TH_R_PARSE, "certificate request: a NUL byte in a name");
    }
    struct th_strv *to = type == GNUTLS_SAN_DNSNAME      ? &r->dns_names
                         : type == GNUTLS_SAN_RFC822NAME ? &r->emails
                         : type == GNUTLS_SAN_URI        ? &r->uris
                                                         : NULL;
    if (to) {
        th_strv_add(to, p);
    }
    return 0;
}

static int read_names(gnutls_x509_crq_t crq, struct th_pki_request *r, struct th_err *err)
{
    for (unsigned i = 0;; i++) {
        th_autofree char *p = NULL;
        size_t n = 0;
        int type = alt_name(crq, i, &p, &n);
        if (type == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) {
            return 0;
        }
        TLS_TRY(err, TH_R_PARSE, "certificate request: alternative names", type);
        TH_TRY(add_alt_name(r, type, p, n, err));
    }
}

int th_pki_request_parse(const char *pem, struct th_pki_request *ret, struct th_err *err)
{
    TH_CLEANUP(crq_free) gnutls_x509_crq_t crq = NULL;
    TH_CLEANUP(th_pki_request_done) struct th_pki_request r = {.common_name = NULL};
    TH_TRY(crq_import(pem, &crq, err));
    TLS_TRY(err, TH_R_PARSE, "certificate request: its signature", gnutls_x509_crq_verify(crq, 0));
    TH_TRY(read_subject(crq, &r, err));
    TH_TRY(read_names(crq, &r, err));
    *ret = r;
    r = (struct th_pki_request){.common_name = NULL};
    return 0;
}

static unsigned key_usage(unsigned bits)
{
    static const struct {
        unsigned ours, theirs;
    } map[] = {{TH_PKI_KU_DIGITAL_SIGNATURE, GNUTLS_KEY_DIGITAL_SIGNATURE},
               {TH_PKI_KU_CONTENT_COMMITMENT, GNUTLS_KEY_NON_REPUDIATION},
               {TH_PKI_KU_KEY_ENCIPHERMENT, GNUTLS_KEY_KEY_ENCIPHERMENT},
               {TH_PKI_KU_DATA_ENCIPHERMENT, GNUTLS_KEY_DATA_ENCIPHERMENT},
               {TH_PKI_KU_KEY_AGREEMENT, GNUTLS_KEY_KEY_AGREEMENT},
               {TH_PKI_KU_CERT_SIGN, GNUTLS_KEY_KEY_CERT_SIGN},
               {TH_PKI_KU_CRL_SIGN, GNUTLS_KEY_CRL_SIGN},
               {TH_PKI_KU_ENCIPHER_ONLY, GNUTLS_KEY_ENCIPHER_ONLY},
               {TH_PKI_KU_DECIPHER_ONLY, GNUTLS_KEY_DECIPHER_ONLY}};
    unsigned r = 0;
    for (size_t i = 0; i < TH_ARRAY_LEN(map); i++) {
        r |= bits & map[i].ours ? map[i].theirs : 0;
    }
    return r;
}

static int set_terms(gnutls_x509_crt_t crt, gnutls_x509_crt_t ca, const struct th_pki_terms *t,
                     struct th_err *err)
{
    static const char what[] = "certificate";
    unsigned char serial[16];
    TLS_TRY(err, TH_R_INTERNAL, what, gnutls_rnd(GNUTLS_RND_NONCE, serial, sizeof(serial)));
    serial[0] = (unsigned char)((serial[0] & 0x7f) | 0x40);
    time_t end = (time_t)t->not_after_s;
    time_t limit = gnutls_x509_crt_get_expiration_time(ca);
    if (end > limit) {
        end = limit;
    }
    if (t->not_before_s >= limit) {
        return th_fail(err, TH_R_INVALID, "the signer has expired");
    }
    TLS_TRY(err, TH_R_INTERNAL, what, gnutls_x509_crt_set_version(crt, 3));
    TLS_TRY(err, TH_R_INTERNAL, what, gnutls_x509_crt_set_serial(crt, serial, sizeof(serial)));
    TLS_TRY(err, TH_R_INTERNAL, what,
            gnutls_x509_crt_set_activation_time(crt, (time_t)t->not_before_s));
    TLS_TRY(err, TH_R_INTERNAL, what, gnutls_x509_crt_set_expiration_time(crt, end));
    TLS_TRY(err, TH_R_INTERNAL, what, gnutls_x509_crt_set_basic_constraints(crt, 0, -1));
    if (t->key_usage) {
        TLS_TRY(err, TH_R_INTERNAL, what,
                gnutls_x509_crt_set_key_usage(crt, key_usage(t->key_usage)));
    }
    for (const char *const *p = t->purposes; p && *p; p++) {
        TLS_TRY(err, TH_R_INTERNAL, what, gnutls_x509_crt_set_key_purpose_oid(crt, *p, 0));
    }
    unsigned char id[64];
    size_t n = sizeof(id);
    if (gnutls_x509_crt_get_subject_key_id(ca, id, &n, NULL) >= 0) {
        TLS_TRY(err, TH_R_INTERNAL, what, gnutls_x509_crt_set_authority_key_id(crt, id, n));
    }
    return 0;
}

static int copy_names(gnutls_x509_crt_t crt, gnutls_x509_crq_t crq, struct th_err *err)
{
    for (unsigned i = 0;; i++) {
        th_autofree char *p = NULL;
        size_t n = 0;
        int type = alt_name(crq, i, &p, &n);
        if (type == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) {
            return 0;
        }
        TLS_TRY(err, TH_R_PARSE, "alternative names", type);
        if (type == GNUTLS_SAN_DNSNAME || type == GNUTLS_SAN_RFC822NAME ||
            type == GNUTLS_SAN_URI || type == GNUTLS_SAN_IPADDRESS) {
            TLS_TRY(err, TH_R_PARSE, "alternative names",
                    gnutls_x509_crt_set_subject_alt_name(crt, (gnutls_x509_subject_alt_name_t)type,
                                                         p, (unsigned)n, GNUTLS_FSAN_APPEND));
        }
    }
}

int th_pki_request_sign(const struct th_pki_pair *ca, const char *pem, const struct th_pki_terms *t,
                        char **ret_cert_pem, struct th_err *err)
{
    TH_CLEANUP(crq_free) gnutls_x509_crq_t crq = NULL;
    TH_CLEANUP(crt_free) gnutls_x509_crt_t crt = NULL;
    TH_CLEANUP(crt_free) gnutls_x509_crt_t ca_crt = NULL;
    TH_CLEANUP(key_free) gnutls_x509_privkey_t ca_key = NULL;
    gnutls_datum_t cert = {(unsigned char *)ca->cert_pem, (unsigned)strlen(ca->cert_pem)};
    gnutls_datum_t key = {(unsigned char *)ca->key_pem, (unsigned)strlen(ca->key_pem)};
    TH_TRY(crq_import(pem, &crq, err));
    TLS_TRY(err, TH_R_PARSE, "certificate request: its signature", gnutls_x509_crq_verify(crq, 0));
    TLS_TRY(err, TH_R_INTERNAL, "CA", gnutls_x509_crt_init(&ca_crt));
    TLS_TRY(err, TH_R_PARSE, "CA", gnutls_x509_crt_import(ca_crt, &cert, GNUTLS_X509_FMT_PEM));
    TLS_TRY(err, TH_R_INTERNAL, "CA", gnutls_x509_privkey_init(&ca_key));
    TLS_TRY(err, TH_R_PARSE, "CA",
            gnutls_x509_privkey_import2(ca_key, &key, GNUTLS_X509_FMT_PEM, NULL, 0));
    TLS_TRY(err, TH_R_INTERNAL, "certificate", gnutls_x509_crt_init(&crt));
    TLS_TRY(err, TH_R_PARSE, "certificate request", gnutls_x509_crt_set_crq(crt, crq));
    TH_TRY(copy_names(crt, crq, err));
    TH_TRY(set_terms(crt, ca_crt, t, err));
    TLS_TRY(err, TH_R_INTERNAL, "signing a certificate",
            gnutls_x509_crt_sign2(crt, ca_crt, ca_key, GNUTLS_DIG_SHA256, 0));
    TH_CLEANUP(datum_free) gnutls_datum_t out = {0};
    TLS_TRY(err, TH_R_INTERNAL, "writing a certificate",
            gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_PEM, &out));
    *ret_cert_pem = th_xstrndup((const char *)out.data, out.size);
    return 0;
}

int th_pki_certificates_check(const char *pem, struct th_err *err)
{
    static const char begin[] = "-----BEGIN ";
    static const char wanted[] = "-----BEGIN CERTIFICATE-----";
    size_t blocks = 0;
    for (const char *p = pem; (p = strstr(p, begin)); p += strlen(begin), blocks++) {
        if (!th_startswith(p, wanted)) {
            const char *type = p + strlen(begin);
            return th_fail(err, TH_R_PARSE, "only CERTIFICATE PEM blocks are allowed, found \"%.*s\"",
                           (int)strcspn(type, "-\n"), type);
        }
        TH_CLEANUP(crt_free) gnutls_x509_crt_t crt = NULL;
        gnutls_datum_t d = {(unsigned char *)(uintptr_t)p, (unsigned)strlen(p)};
        TLS_TRY(err, TH_R_INTERNAL, "certificate", gnutls_x509_crt_init(&crt));
        TLS_TRY(err, TH_R_PARSE, "x509: malformed certificate",
                gnutls_x509_crt_import(crt, &d, GNUTLS_X509_FMT_PEM));
    }
    return blocks ? 0
                  : th_fail(err, TH_R_PARSE, "must contain at least one CERTIFICATE PEM block");
}
