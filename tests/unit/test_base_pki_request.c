/* Certificate requests: read, signed on the signer's terms, refused when they are not what they say.
 * The requests were made with openssl: an ECDSA key, subject O=a, O=b, CN=x and names; and one whose
 * signature was changed afterwards. */
#include "base/clock.h"
#include "base/pki.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const char good[] =
    "-----BEGIN CERTIFICATE REQUEST-----\n"
    "MIIBFDCBugIBADAkMQowCAYDVQQKDAFhMQowCAYDVQQKDAFiMQowCAYDVQQDDAF4\n"
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE9v1LT6HRGKhvJ0A8UJ3q8i7B8EOq\n"
    "PI1E5SYj8PDQziU2ti5yChxHlpMMt5YEOkZ+9xeEl+k2IEIWTuEuARes2aA0MDIG\n"
    "CSqGSIb3DQEJDjElMCMwIQYDVR0RBBowGIICbjGHBAoAAAeBBWFAYi5jhgV1cm46\n"
    "eDAKBggqhkjOPQQDAgNJADBGAiEAnIUC1w6i7XzQbnbW6o93t26mwpqFTupULZca\n"
    "tPQNG1ECIQDg+/5JCNsOQ/zrimyX6FUgU5amvDvRfdX9zps24Knrnw==\n"
    "-----END CERTIFICATE REQUEST-----\n";

static void a_request_is_read(void **state)
{
    (void)state;
    TH_CLEANUP(th_pki_request_done) struct th_pki_request r = {.common_name = NULL};
    assert_int_equal(th_pki_request_parse(good, &r, NULL), 0);
    assert_string_equal(r.common_name, "x");
    assert_int_equal(r.organizations.n, 2);
    assert_string_equal(r.organizations.v[1], "b");
    assert_string_equal(r.dns_names.v[0], "n1");
    assert_string_equal(r.ip_addresses.v[0], "10.0.0.7");
    assert_string_equal(r.emails.v[0], "a@b.c");
    assert_string_equal(r.uris.v[0], "urn:x");
}

static void a_certificate_has_the_signers_terms(void **state)
{
    (void)state;
    TH_AUTO_PAIR struct th_pki_pair ca = {NULL, NULL};
    assert_int_equal(th_pki_ca_new("ca", &ca, NULL), 0);
    const char *purposes[] = {"1.3.6.1.5.5.7.3.2", NULL};
    int64_t now_s = th_now_ms() / 1000;
    struct th_pki_terms t = {.key_usage = TH_PKI_KU_DIGITAL_SIGNATURE, .purposes = purposes,
                             .not_before_s = now_s - 300, .not_after_s = now_s + 3600};
    th_autofree char *cert = NULL;
    assert_int_equal(th_pki_request_sign(&ca, good, &t, &cert, NULL), 0);
    assert_int_equal(th_pki_certificates_check(cert, NULL), 0);
    th_autofree char *cn = NULL;
    th_autostrv struct th_strv orgs = TH_STRV_INIT;
    int64_t end = 0;
    assert_int_equal(th_pki_subject(cert, &cn, &orgs, &end, NULL), 0);
    assert_string_equal(cn, "x");
    assert_int_equal(orgs.n, 2);
    assert_int_equal(end, (now_s + 3600) * 1000);
    /* never past the CA's own end */
    t.not_after_s = now_s + 100ll * 365 * 86400;
    th_autofree char *longer = NULL;
    assert_int_equal(th_pki_request_sign(&ca, good, &t, &longer, NULL), 0);
    assert_int_equal(th_pki_subject(longer, NULL, NULL, &end, NULL), 0);
    assert_true(end < (now_s + 11ll * 365 * 86400) * 1000);
}

static void other_blocks_and_changed_ones_are_refused(void **state)
{
    (void)state;
    struct th_pki_request r = {.common_name = NULL};
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    assert_true(th_pki_request_parse("", &r, &err) < 0);
    assert_string_equal(err.msg, "PEM block type must be CERTIFICATE REQUEST");
    th_autofree char *changed = th_xstrdup(good);
    char *p = strstr(changed, "\n-----END") - 12; /* inside the signature */
    *p = *p == 'A' ? 'B' : 'A';
    assert_true(th_pki_request_parse(changed, &r, NULL) < 0);
    assert_true(th_pki_certificates_check(good, &err) < 0);
    assert_string_equal(err.msg,
                        "only CERTIFICATE PEM blocks are allowed, found \"CERTIFICATE REQUEST\"");
    assert_true(th_pki_certificates_check("nothing", &err) < 0);
    assert_string_equal(err.msg, "must contain at least one CERTIFICATE PEM block");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_is_read),
        cmocka_unit_test(a_certificate_has_the_signers_terms),
        cmocka_unit_test(other_blocks_and_changed_ones_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
