/* ServiceAccount tokens: what is issued parses, what is not ours does not. */
#include "base/clock.h"
#include "base/encode.h"
#include "base/pki.h"
#include "controlplane/resources/token.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define ISSUER "https://kubernetes.default.svc.cluster.local"
static char *key;

static int setup(void **state)
{
    (void)state;
    return th_pki_key_new(&key, NULL);
}

static int teardown(void **state)
{
    (void)state;
    free(key);
    return 0;
}

static char *issue(struct th_token_req *r)
{
    r->issuer = ISSUER;
    r->ns = "ns";
    r->sa_name = "sa";
    r->sa_uid = "u-1";
    r->now_ms = r->now_ms ? r->now_ms : th_now_ms();
    r->ttl_s = r->ttl_s ? r->ttl_s : 600;
    char *token = NULL;
    assert_int_equal(th_token_issue(key, r, &token, NULL), 0);
    free(r->jti);
    return token;
}

static void a_bound_token_carries_its_claims(void **state)
{
    (void)state;
    const char *audiences[] = {"vault", "other", NULL};
    struct th_token_req r = {.audiences = audiences, .bound_kind = "Pod", .bound_name = "p",
                             .bound_uid = "p-1", .node_name = "n", .node_uid = "n-1"};
    th_autofree char *token = issue(&r);
    TH_CLEANUP(th_token_claims_done) struct th_token_claims c = {0};
    assert_int_equal(th_token_parse(key, ISSUER, token, &c, NULL), 0);
    assert_string_equal(c.subject, "system:serviceaccount:ns:sa");
    assert_string_equal(c.pod_name, "p");
    assert_string_equal(c.pod_uid, "p-1");
    assert_string_equal(c.node_uid, "n-1");
    assert_null(c.secret_name);
    assert_int_equal(c.audiences.n, 2);
    assert_false(c.legacy);
    assert_int_equal(th_token_check_time(&c, th_now_ms(), NULL), 0);
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    assert_int_equal(th_token_check_time(&c, th_now_ms() + 700 * 1000, &err), -TH_R_UNAUTHORIZED);
    assert_string_equal(err.msg, "service account token has expired");
    assert_int_equal(th_token_check_time(&c, th_now_ms() - 700 * 1000, &err), -TH_R_UNAUTHORIZED);
    assert_string_equal(err.msg, "service account token is not valid yet");
}

static void the_token_of_a_secret_never_expires(void **state)
{
    (void)state;
    th_autofree char *token = NULL;
    assert_int_equal(th_token_issue_legacy(key, "ns", "sa", "u-1", "s", &token, NULL), 0);
    TH_CLEANUP(th_token_claims_done) struct th_token_claims c = {0};
    assert_int_equal(th_token_parse(key, ISSUER, token, &c, NULL), 0);
    assert_true(c.legacy);
    assert_string_equal(c.secret_name, "s");
    assert_int_equal(th_token_check_time(&c, th_now_ms() + 1000ll * 86400 * 3650, NULL), 0);
}

static void other_keys_issuers_and_shapes_are_refused(void **state)
{
    (void)state;
    struct th_token_req r = {.bound_kind = NULL};
    th_autofree char *token = issue(&r);
    struct th_token_claims c = {0};
    th_autofree char *other = NULL;
    assert_int_equal(th_pki_key_new(&other, NULL), 0);
    assert_int_equal(th_token_parse(other, ISSUER, token, &c, NULL), -TH_R_UNAUTHORIZED);
    assert_int_equal(th_token_parse(key, "https://else", token, &c, NULL), -TH_R_UNAUTHORIZED);
    static const char *const shapes[] = {"", ".", "..", "a.b.c", "e30.e30.", "e30.e30.AAAA",
                                         "bnVsbA.bnVsbA.AAAA", "e30"};
    for (size_t i = 0; i < TH_ARRAY_LEN(shapes); i++) {
        assert_int_equal(th_token_parse(key, ISSUER, shapes[i], &c, NULL), -TH_R_UNAUTHORIZED);
    }
    /* one claim changed, the signature kept */
    char *dot = strchr(token, '.');
    dot[10] = dot[10] == 'A' ? 'B' : 'A';
    assert_int_equal(th_token_parse(key, ISSUER, token, &c, NULL), -TH_R_UNAUTHORIZED);
}

static void alg_none_is_refused(void **state)
{
    (void)state;
    struct th_token_req r = {.bound_kind = NULL};
    th_autofree char *token = issue(&r);
    th_autobuf struct th_buf b = TH_BUF_INIT;
    static const char header[] = "{\"alg\":\"none\"}";
    th_b64url_encode(header, strlen(header), &b);
    th_buf_puts(&b, strchr(token, '.'));
    struct th_token_claims c = {0};
    assert_int_equal(th_token_parse(key, ISSUER, th_buf_cstr(&b), &c, NULL), -TH_R_UNAUTHORIZED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bound_token_carries_its_claims),
        cmocka_unit_test(the_token_of_a_secret_never_expires),
        cmocka_unit_test(other_keys_issuers_and_shapes_are_refused),
        cmocka_unit_test(alg_none_is_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
