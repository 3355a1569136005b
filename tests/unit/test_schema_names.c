/* Names, labels and addresses: what is accepted, and upstream's words for what is not. */
#include "controlplane/schema/names.h"
#include "base/buf.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

struct row {
    enum th_name_format f;
    const char *s;
    const char *messages; /* joined by "; ", "" when valid */
};

#define A63 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static const struct row rows[] = {
    {TH_NAME_DNS1123_LABEL, "a-0", ""},
    {TH_NAME_DNS1123_LABEL, A63, ""},
    {TH_NAME_DNS1123_LABEL, A63 "a", "must be no more than 63 characters"},
    {TH_NAME_DNS1123_LABEL, "a.b", "must not contain dots"},
    {TH_NAME_DNS1123_LABEL, "-a",
     "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and "
     "must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used "
     "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"},
    {TH_NAME_DNS1123_SUBDOMAIN, "a.b-c.0", ""},
    {TH_NAME_DNS1123_SUBDOMAIN, "Foo",
     "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
     "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
     "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"},
    {TH_NAME_DNS1123_SUBDOMAIN_UNDERSCORE, "_a._b-c", ""},
    {TH_NAME_DNS1123_WILDCARD, "*.a.b", ""},
    {TH_NAME_DNS1035_LABEL, "0a",
     "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an "
     "alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', "
     "regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"},
    {TH_NAME_QUALIFIED, "example.com/My_Name.1", ""},
    {TH_NAME_QUALIFIED, "/x", "prefix part must be non-empty"},
    {TH_NAME_QUALIFIED, "x/",
     "name part must be non-empty; name part must consist of alphanumeric characters, '-', '_' or "
     "'.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  "
     "or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"},
    {TH_NAME_LABEL_VALUE, "", ""},
    {TH_NAME_LABEL_VALUE, "a" A63, "must be no more than 63 bytes"},
    {TH_NAME_PORT, "http-2", ""},
    {TH_NAME_PORT, "80--",
     "must contain at least one letter (a-z); must not contain consecutive hyphens; must not begin "
     "or end with a hyphen"},
    {TH_NAME_ENV, "a b!", ""},
    {TH_NAME_ENV, "a=b",
     "a valid environment variable name must consist only of printable ASCII characters other than "
     "'='"},
    {TH_NAME_CONFIG_KEY, "..x", "must not start with '..'"},
    {TH_NAME_PATH_SEGMENT, "..", "may not be '..'"},
    {TH_NAME_PATH_SEGMENT, "a/b%c", "may not contain '/'; may not contain '%'"},
    {TH_NAME_PERCENT, "10%", ""},
    {TH_NAME_IP, "10.0.0.1", ""},
    {TH_NAME_IP, "2001:db8::1", ""},
    {TH_NAME_IP, "10.0.0.01", "must not have leading 0s"},
    {TH_NAME_IP, "::ffff:1.2.3.4", "must not be an IPv4-mapped IPv6 address"},
    {TH_NAME_IP, "256.1.1.1", "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"},
    {TH_NAME_IP, "1.2.3", "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"},
    {TH_NAME_CIDR, "10.0.0.0/8", ""},
    {TH_NAME_CIDR, "10.0.0.1/8", "must not have bits set beyond the prefix length"},
    {TH_NAME_CIDR, "10.0.0.0/33",
     "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"},
};

static void names_are_judged_in_upstreams_words(void **state)
{
    (void)state;
    for (size_t i = 0; i < TH_ARRAY_LEN(rows); i++) {
        const char *v[TH_NAME_MSGS];
        size_t n = th_name_messages(rows[i].f, rows[i].s, v);
        th_autobuf struct th_buf b = TH_BUF_INIT;
        for (size_t k = 0; k < n; k++) {
            th_buf_printf(&b, "%s%s", k ? "; " : "", v[k]);
        }
        assert_string_equal(th_buf_cstr(&b), rows[i].messages);
    }
}

static void plain_functions_give_the_first_message(void **state)
{
    (void)state;
    assert_null(th_name_dns1123_subdomain("kube-system"));
    assert_string_equal(th_name_port("80--"), "must contain at least one letter (a-z)");
    assert_non_null(th_name_qualified(NULL));
    assert_null(th_name_label_value(NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_judged_in_upstreams_words),
        cmocka_unit_test(plain_functions_give_the_first_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
