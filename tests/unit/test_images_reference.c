/* References as distribution/reference reads them. */
#include "images/reference.h"
#include "base/buf.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define HEX64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void names_are_normalized(void **state)
{
    static const struct {
        const char *in, *full, *familiar;
    } cases[] = {
        {"nginx", "docker.io/library/nginx:latest", "nginx:latest"},
        {"nginx:1.25", "docker.io/library/nginx:1.25", "nginx:1.25"},
        {"user/app", "docker.io/user/app:latest", "user/app:latest"},
        {"docker.io/nginx", "docker.io/library/nginx:latest", "nginx:latest"},
        {"index.docker.io/library/nginx", "docker.io/library/nginx:latest", "nginx:latest"},
        {"localhost/app", "localhost/app:latest", "localhost/app:latest"},
        {"localhost:5000/a/b:x", "localhost:5000/a/b:x", "localhost:5000/a/b:x"},
        {"ghcr.io/a/b_c__d--e.f:V1.0-x_y", "ghcr.io/a/b_c__d--e.f:V1.0-x_y",
         "ghcr.io/a/b_c__d--e.f:V1.0-x_y"},
        {"[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"},
        {"Upper/a", "Upper/a:latest", "Upper/a:latest"},
        {"a@sha256:" HEX64, "docker.io/library/a@sha256:" HEX64, "a@sha256:" HEX64},
        {"a:1@sha256:" HEX64, "docker.io/library/a:1@sha256:" HEX64, "a:1@sha256:" HEX64},
    };
    (void)state;
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        TH_AUTO_REF struct th_ref r = {0};
        assert_int_equal(th_ref_parse(cases[i].in, &r, NULL), 0);
        th_autofree char *full = th_ref_string(&r);
        th_autofree char *familiar = th_ref_familiar(&r);
        assert_string_equal(full, cases[i].full);
        assert_string_equal(familiar, cases[i].familiar);
    }
}

static void malformed_names_are_refused_with_a_hint(void **state)
{
    static const char *const cases[] = {
        "", ":tag", "a:", "a::b", "A", "a/B", "a b", "a//b", "/a", "a/", "-a", "a-", "a..b",
        "a.-b", "a___b", HEX64, "a@sha256:123", "a@md5:" HEX64, "a:-x", "https://x/y", "x:y/z:1:2",
        "foo.com:port/a", "-x.com/a"};
    (void)state;
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        TH_AUTO_REF struct th_ref r = {0};
        if (th_ref_parse(cases[i], &r, &err) != -TH_R_BAD_REFERENCE) {
            fail_msg("accepted \"%s\"", cases[i]);
        }
        assert_non_null(err.hint);
    }
}

static void overlong_names_and_tags_are_refused(void **state)
{
    char name[400], tag[200];
    TH_AUTO_REF struct th_ref r = {0};
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    (void)state;
    memset(name, 'a', 256);
    name[256] = 0;
    assert_int_equal(th_ref_parse(name, &r, &err), -TH_R_BAD_REFERENCE);
    memset(tag, 't', sizeof(tag));
    tag[0] = 'a';
    tag[1] = ':';
    tag[131] = 0;
    assert_int_equal(th_ref_parse(tag, &r, &err), -TH_R_BAD_REFERENCE);
    tag[130] = 0;
    assert_int_equal(th_ref_parse(tag, &r, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_normalized),
        cmocka_unit_test(malformed_names_are_refused_with_a_hint),
        cmocka_unit_test(overlong_names_and_tags_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
