/* base/encode: known vectors, strictness, round trips. */
#include "base/encode.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void base64_vectors_of_rfc_4648(void **state)
{
    (void)state;
    static const struct {
        const char *plain, *std, *url;
    } cases[] = {
        {"", "", ""},
        {"f", "Zg==", "Zg"},
        {"fo", "Zm8=", "Zm8"},
        {"foo", "Zm9v", "Zm9v"},
        {"foob", "Zm9vYg==", "Zm9vYg"},
        {"fooba", "Zm9vYmE=", "Zm9vYmE"},
        {"foobar", "Zm9vYmFy", "Zm9vYmFy"},
        {"\xfb\xff\xfe", "+//+", "-__-"},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        th_autobuf struct th_buf b = TH_BUF_INIT;
        th_b64_encode(cases[i].plain, strlen(cases[i].plain), &b);
        assert_string_equal(th_buf_cstr(&b), cases[i].std);
        th_buf_clear(&b);
        th_b64url_encode(cases[i].plain, strlen(cases[i].plain), &b);
        assert_string_equal(th_buf_cstr(&b), cases[i].url);
        th_buf_clear(&b);
        assert_int_equal(th_b64_decode(cases[i].std, strlen(cases[i].std), &b, NULL), 0);
        assert_string_equal(th_buf_cstr(&b), cases[i].plain);
        th_buf_clear(&b);
        assert_int_equal(th_b64url_decode(cases[i].url, strlen(cases[i].url), &b, NULL), 0);
        assert_string_equal(th_buf_cstr(&b), cases[i].plain);
    }
}

static void base64_refuses_what_is_not(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool std_ok, url_ok;
    } cases[] = {
        {"Zg=", false, false},      {"Zg", false, true},     {"Z", false, false},
        {"Zg==Zg==", false, false}, {"Zm9 v", false, false}, {"Zm9v\n", true, false},
        {"Zm9\r\nv", true, false},  {"-__-", false, true},   {"+//+", true, false},
        {"Zh==", true, false},      {"Zh", false, false},    {"====", false, false},
        {"Zm9v=", false, false},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        th_autobuf struct th_buf b = TH_BUF_INIT;
        th_buf_puts(&b, "kept");
        int r = th_b64_decode(cases[i].text, strlen(cases[i].text), &b, NULL);
        assert_int_equal(r == 0, cases[i].std_ok);
        if (r < 0) {
            assert_string_equal(th_buf_cstr(&b), "kept");
        }
        th_buf_truncate(&b, 4);
        r = th_b64url_decode(cases[i].text, strlen(cases[i].text), &b, NULL);
        assert_int_equal(r == 0, cases[i].url_ok);
        if (r < 0) {
            assert_string_equal(th_buf_cstr(&b), "kept");
        }
    }
}

static void sha256_vectors(void **state)
{
    (void)state;
    static const char million_a[] =
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
    char hex[TH_SHA256_HEX_LEN];
    th_sha256_hex("", 0, hex);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    th_sha256_hex("abc", 3, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    struct th_sha256 *h = th_sha256_new();
    char chunk[1000];
    memset(chunk, 'a', sizeof(chunk));
    for (int i = 0; i < 1000; i++) {
        th_sha256_add(h, chunk, sizeof(chunk));
    }
    unsigned char digest[TH_SHA256_LEN];
    th_sha256_finish(h, digest);
    th_hex(digest, sizeof(digest), hex);
    assert_string_equal(hex, million_a);
    th_sha256_free(th_sha256_new());
    th_sha256_free(NULL);
}

static void url_escapes_round_trip(void **state)
{
    (void)state;
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_url_escape(&b, "a b/c?d=é&~._-+%");
    assert_string_equal(th_buf_cstr(&b), "a%20b%2Fc%3Fd%3D%C3%A9%26~._-%2B%25");
    th_autobuf struct th_buf back = TH_BUF_INIT;
    assert_int_equal(th_url_unescape(b.p, b.n, true, &back, NULL), 0);
    assert_string_equal(th_buf_cstr(&back), "a b/c?d=é&~._-+%");
}

static void url_unescape_is_strict(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool plus;
        const char *expected; /* NULL: refused */
    } cases[] = {
        {"a+b", true, "a b"}, {"a+b", false, "a+b"}, {"%41%62", false, "Ab"},
        {"%4", false, NULL},  {"%", false, NULL},    {"%zz", false, NULL},
        {"%00", false, NULL}, {"", false, ""},       {"%e2%82%AC", false, "€"},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        th_autobuf struct th_buf b = TH_BUF_INIT;
        int r = th_url_unescape(cases[i].text, strlen(cases[i].text), cases[i].plus, &b, NULL);
        assert_int_equal(r, cases[i].expected ? 0 : -TH_R_BAD_REQUEST);
        assert_string_equal(th_buf_cstr(&b), cases[i].expected ? cases[i].expected : "");
    }
}

static void utf8_is_judged_as_unicode_says(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool ok;
    } cases[] = {
        {"", true},
        {"plain ascii that is longer than eight bytes", true},
        {"gr\xc3\xbc\xc3\x9f", true},
        {"\xe2\x82\xac", true},
        {"\xf0\x9f\x98\x80", true},
        {"\xf4\x8f\xbf\xbf", true},  /* U+10FFFF */
        {"\xf4\x90\x80\x80", false}, /* above it */
        {"\xed\xa0\x80", false},     /* a surrogate */
        {"\xc0\xaf", false},         /* overlong */
        {"\xe0\x80\xaf", false},     /* overlong */
        {"\xf0\x80\x80\xaf", false}, /* overlong */
        {"\x80", false},
        {"12345678\xff", false},
        {"\xc3", false},
        {"\xe2\x82", false},
        {"\xe2\x28\xa1", false},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        assert_int_equal(th_utf8_valid(cases[i].text, strlen(cases[i].text)), cases[i].ok);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(base64_vectors_of_rfc_4648),
        cmocka_unit_test(base64_refuses_what_is_not),
        cmocka_unit_test(sha256_vectors),
        cmocka_unit_test(url_escapes_round_trip),
        cmocka_unit_test(url_unescape_is_strict),
        cmocka_unit_test(utf8_is_judged_as_unicode_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
