/* base/pki: certificates verify as a TLS peer verifies them; signatures hold and break. */
#include "base/buf.h"
#include "base/clock.h"
#include "base/pki.h"

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static struct th_pki_pair ca;

static int set_up(void **state)
{
    (void)state;
    return th_pki_ca_new("thimble-ca", &ca, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    th_pki_pair_done(&ca);
    th_pki_pair_done(&ca);
    return 0;
}

static gnutls_x509_crt_t load(const char *pem)
{
    gnutls_x509_crt_t crt;
    gnutls_datum_t d = {(unsigned char *)(uintptr_t)pem, (unsigned)strlen(pem)};
    assert_int_equal(gnutls_x509_crt_init(&crt), 0);
    assert_int_equal(gnutls_x509_crt_import(crt, &d, GNUTLS_X509_FMT_PEM), 0);
    return crt;
}

/* The verifier's flags for a certificate used for purpose under that name. */
static unsigned verify(const char *pem, const char *ca_pem, const char *purpose, const char *host)
{
    gnutls_x509_trust_list_t trust;
    gnutls_x509_crt_t root = load(ca_pem);
    gnutls_x509_crt_t crt = load(pem);
    assert_int_equal(gnutls_x509_trust_list_init(&trust, 0), 0);
    assert_int_equal(gnutls_x509_trust_list_add_cas(trust, &root, 1, 0), 1);
    gnutls_typed_vdata_st data[] = {
        {GNUTLS_DT_KEY_PURPOSE_OID, (unsigned char *)(uintptr_t)purpose, 0},
        {GNUTLS_DT_DNS_HOSTNAME, (unsigned char *)(uintptr_t)host, 0},
    };
    unsigned flags = 0;
    assert_int_equal(
        gnutls_x509_trust_list_verify_crt2(trust, &crt, 1, data, host ? 2 : 1, 0, &flags, NULL), 0);
    gnutls_x509_crt_deinit(crt);
    gnutls_x509_trust_list_deinit(trust, 1);
    return flags;
}

static void a_server_certificate_is_good_for_its_names_only(void **state)
{
    (void)state;
    TH_AUTO_PAIR struct th_pki_pair p = {0};
    struct th_pki_req req = {
        .common_name = "kube-apiserver",
        .dns_names = (const char *const[]){"kubernetes", "kubernetes.default.svc", NULL},
        .ip_addresses = (const char *const[]){"127.0.0.1", "::1", NULL},
        .use = TH_PKI_SERVER,
        .days = 30,
    };
    assert_int_equal(th_pki_issue(&ca, &req, &p, NULL), 0);
    assert_int_equal(verify(p.cert_pem, ca.cert_pem, GNUTLS_KP_TLS_WWW_SERVER, "kubernetes"), 0);
    assert_int_equal(
        verify(p.cert_pem, ca.cert_pem, GNUTLS_KP_TLS_WWW_SERVER, "kubernetes.default.svc"), 0);
    assert_int_equal(verify(p.cert_pem, ca.cert_pem, GNUTLS_KP_TLS_WWW_SERVER, "127.0.0.1"), 0);
    assert_int_equal(verify(p.cert_pem, ca.cert_pem, GNUTLS_KP_TLS_WWW_SERVER, "::1"), 0);
    assert_int_not_equal(verify(p.cert_pem, ca.cert_pem, GNUTLS_KP_TLS_WWW_SERVER, "example.org"),
                         0);
    assert_int_not_equal(verify(p.cert_pem, ca.cert_pem, GNUTLS_KP_TLS_WWW_CLIENT, NULL), 0);
}

static void another_ca_is_not_trusted(void **state)
{
    (void)state;
    TH_AUTO_PAIR struct th_pki_pair other = {0};
    TH_AUTO_PAIR struct th_pki_pair p = {0};
    assert_int_equal(th_pki_ca_new("thimble-ca", &other, NULL), 0); /* the same name */
    struct th_pki_req req = {.common_name = "x", .use = TH_PKI_CLIENT, .days = 1};
    assert_int_equal(th_pki_issue(&ca, &req, &p, NULL), 0);
    assert_int_equal(verify(p.cert_pem, ca.cert_pem, GNUTLS_KP_TLS_WWW_CLIENT, NULL), 0);
    assert_int_not_equal(verify(p.cert_pem, other.cert_pem, GNUTLS_KP_TLS_WWW_CLIENT, NULL), 0);
}

static void a_leaf_cannot_sign(void **state)
{
    (void)state;
    TH_AUTO_PAIR struct th_pki_pair leaf = {0};
    TH_AUTO_PAIR struct th_pki_pair p = {0};
    struct th_pki_req req = {.common_name = "x", .use = TH_PKI_CLIENT, .days = 1};
    assert_int_equal(th_pki_issue(&ca, &req, &leaf, NULL), 0);
    assert_int_equal(th_pki_issue(&leaf, &req, &p, NULL), 0);
    gnutls_x509_crt_t crt = load(leaf.cert_pem);
    assert_int_equal(gnutls_x509_crt_get_ca_status(crt, NULL), 0);
    gnutls_x509_crt_deinit(crt);
    crt = load(ca.cert_pem);
    assert_true(gnutls_x509_crt_get_ca_status(crt, NULL) > 0);
    gnutls_x509_crt_deinit(crt);
}

static void validity_follows_our_clock_and_the_ca(void **state)
{
    (void)state;
    th_clock_simulate(1767323045000); /* 2026-01-02 */
    TH_AUTO_PAIR struct th_pki_pair old_ca = {0};
    assert_int_equal(th_pki_ca_new("old", &old_ca, NULL), 0);
    struct th_pki_req req = {.common_name = "x", .use = TH_PKI_CLIENT, .days = 10};
    TH_AUTO_PAIR struct th_pki_pair p = {0};
    assert_int_equal(th_pki_issue(&old_ca, &req, &p, NULL), 0);
    int64_t end = 0;
    assert_int_equal(th_pki_subject(p.cert_pem, NULL, NULL, &end, NULL), 0);
    assert_int_equal(end, 1767323045000 + 10 * INT64_C(86400000));
    gnutls_x509_crt_t crt = load(p.cert_pem);
    assert_int_equal(gnutls_x509_crt_get_activation_time(crt), 1767323045 - 3600);
    gnutls_x509_crt_deinit(crt);
    req.days = 100000;
    th_pki_pair_done(&p);
    assert_int_equal(th_pki_issue(&old_ca, &req, &p, NULL), 0);
    int64_t ca_end = 0;
    assert_int_equal(th_pki_subject(old_ca.cert_pem, NULL, NULL, &ca_end, NULL), 0);
    assert_int_equal(th_pki_subject(p.cert_pem, NULL, NULL, &end, NULL), 0);
    assert_int_equal(end, ca_end);
    th_clock_real();
}

static void subjects_give_user_and_groups(void **state)
{
    (void)state;
    TH_AUTO_PAIR struct th_pki_pair p = {0};
    struct th_pki_req req = {
        .common_name = "system:node:n1",
        .organizations = (const char *const[]){"system:nodes", "o=odd, \"group\"", NULL},
        .use = TH_PKI_CLIENT,
        .days = 1,
    };
    assert_int_equal(th_pki_issue(&ca, &req, &p, NULL), 0);
    th_autofree char *cn = NULL;
    th_autostrv struct th_strv orgs = TH_STRV_INIT;
    int64_t end;
    assert_int_equal(th_pki_subject(p.cert_pem, &cn, &orgs, &end, NULL), 0);
    assert_string_equal(cn, "system:node:n1");
    assert_int_equal(orgs.n, 2);
    assert_true(th_strv_has(&orgs, "system:nodes"));
    assert_true(th_strv_has(&orgs, "o=odd, \"group\""));
}

static void bad_requests_are_refused(void **state)
{
    (void)state;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    struct th_pki_pair p = {0};
    struct th_pki_req req = {.common_name = "x",
                             .ip_addresses = (const char *const[]){"1.2.3", NULL},
                             .use = TH_PKI_SERVER,
                             .days = 1};
    assert_int_equal(th_pki_issue(&ca, &req, &p, &err), -TH_R_INVALID);
    assert_non_null(strstr(err.msg, "1.2.3"));
    struct th_pki_pair bad = {.cert_pem = ca.cert_pem, .key_pem = "no key"};
    req.ip_addresses = NULL;
    assert_int_equal(th_pki_issue(&bad, &req, &p, &err), -TH_R_PARSE);
    assert_int_equal(th_pki_subject("no certificate", NULL, NULL, NULL, &err), -TH_R_PARSE);
    assert_null(p.cert_pem);
}

static void es256_signatures_hold_for_their_data_and_key(void **state)
{
    (void)state;
    th_autofree char *key = NULL;
    th_autofree char *other = NULL;
    th_autofree char *pub = NULL;
    assert_int_equal(th_pki_key_new(&key, NULL), 0);
    assert_int_equal(th_pki_key_new(&other, NULL), 0);
    assert_true(th_startswith(key, "-----BEGIN PRIVATE KEY-----"));
    assert_int_equal(th_pki_public_pem(key, &pub, NULL), 0);
    assert_true(th_startswith(pub, "-----BEGIN PUBLIC KEY-----"));
    /* often enough that r and s begin with zeros or high bits */
    for (int i = 0; i < 64; i++) {
        unsigned char sig[64];
        assert_int_equal(th_pki_sign_es256(key, &i, sizeof(i), sig, NULL), 0);
        assert_int_equal(th_pki_verify_es256(pub, &i, sizeof(i), sig, NULL), 0);
        if (i % 16 == 0) {
            assert_int_equal(th_pki_verify_es256(key, &i, sizeof(i), sig, NULL), 0);
            assert_int_equal(th_pki_verify_es256(other, &i, sizeof(i), sig, NULL),
                             -TH_R_UNAUTHORIZED);
            sig[i] ^= 1;
            assert_int_equal(th_pki_verify_es256(pub, &i, sizeof(i), sig, NULL),
                             -TH_R_UNAUTHORIZED);
            sig[i] ^= 1;
            int changed = i + 1;
            assert_int_equal(th_pki_verify_es256(pub, &changed, sizeof(i), sig, NULL),
                             -TH_R_UNAUTHORIZED);
        }
    }
    unsigned char zero[64] = {0};
    assert_int_equal(th_pki_verify_es256(pub, "", 0, zero, NULL), -TH_R_UNAUTHORIZED);
}

static void public_points_have_32_bytes_each(void **state)
{
    (void)state;
    th_autofree char *key = NULL;
    th_autofree char *pub = NULL;
    assert_int_equal(th_pki_key_new(&key, NULL), 0);
    assert_int_equal(th_pki_public_pem(key, &pub, NULL), 0);
    unsigned char x[2][32];
    unsigned char y[2][32];
    assert_int_equal(th_pki_public_xy(key, x[0], y[0], NULL), 0);
    assert_int_equal(th_pki_public_xy(pub, x[1], y[1], NULL), 0);
    assert_memory_equal(x[0], x[1], 32);
    assert_memory_equal(y[0], y[1], 32);
    assert_memory_not_equal(x[0], y[0], 32);
    assert_int_equal(th_pki_public_xy("junk", x[0], y[0], NULL), -TH_R_PARSE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_server_certificate_is_good_for_its_names_only),
        cmocka_unit_test(another_ca_is_not_trusted),
        cmocka_unit_test(a_leaf_cannot_sign),
        cmocka_unit_test(validity_follows_our_clock_and_the_ca),
        cmocka_unit_test(subjects_give_user_and_groups),
        cmocka_unit_test(bad_requests_are_refused),
        cmocka_unit_test(es256_signatures_hold_for_their_data_and_key),
        cmocka_unit_test(public_points_have_32_bytes_each),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
