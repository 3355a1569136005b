/* Quantities: parsing, canonical text, rounding, arithmetic. */
#include "controlplane/schema/quantity.h"
#include "base/buf.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static const struct {
    const char *in, *canonical, *normal; /* normal NULL: as canonical */
} good[] = {
    {"0", "0", NULL},
    {"0Gi", "0", NULL},
    {"100m", "100m", NULL},
    {"1000m", "1", NULL},
    {"0.5", "500m", NULL},
    {"1.5", "1500m", NULL},
    {"1.5Gi", "1536Mi", NULL},
    {"1024Ki", "1Mi", NULL},
    {"1000Ki", "1000Ki", NULL},
    {"0.5Gi", "512Mi", NULL},
    {"0.5Ki", "512", NULL},
    {"0.0001Ki", "102400u", NULL},
    {"1024", "1024", NULL},
    {"2048", "2048", NULL},
    {"1000", "1k", NULL},
    {"1000000", "1M", NULL},
    {"2e3", "2e3", NULL},
    {"2000e0", "2e3", NULL},
    {"1E", "1E", NULL},
    {"1E3", "1e3", "1E3"},
    {"+5", "5", "+5"},
    {"005", "5", "005"},
    {"1.500", "1500m", "1.500"},
    {"-1.5Gi", "-1536Mi", NULL},
    {"1.1n", "2n", NULL},
    {"0.1n", "1n", NULL},
    {"-0.1n", "-1n", NULL},
    {"1e-20", "1e-9", NULL},
    {"16Ei", "9223372036854775807", NULL},
    {"100E", "100E", NULL},
    {"1000E", "1000E", NULL},
    {"1e24", "1e24", NULL},
    {".5", "500m", NULL},
    {"5.", "5", "5."},
};

static void canonical_forms_match_upstreams(void **state)
{
    (void)state;
    for (size_t i = 0; i < TH_ARRAY_LEN(good); i++) {
        char buf[TH_QUANTITY_LEN];
        struct th_quantity q;
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        assert_int_equal(th_quantity_parse(good[i].in, &q, &err), 0);
        assert_string_equal(th_quantity_format(q, buf), good[i].canonical);
        assert_int_equal(th_quantity_normalize(good[i].in, buf, &err), 0);
        assert_string_equal(buf, good[i].normal ? good[i].normal : good[i].canonical);
    }
}

static void faults_have_upstreams_words(void **state)
{
    (void)state;
    static const struct {
        const char *in, *msg;
    } bad[] = {
        {"", "quantities must match the regular expression "
             "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"},
        {"abc", "quantities must match the regular expression "
                "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"},
        {"1 Gi", "quantities must match the regular expression "
                 "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"},
        {"1i", "unable to parse quantity's suffix"},
        {"1e", "unable to parse quantity's suffix"},
        {"1mi", "unable to parse quantity's suffix"},
        {"1e99", "unable to parse numeric part of quantity"},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(bad); i++) {
        struct th_quantity q;
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        assert_int_equal(th_quantity_parse(bad[i].in, &q, &err), -TH_R_BAD_REQUEST);
        assert_string_equal(err.msg, bad[i].msg);
    }
}

static struct th_quantity q(const char *s)
{
    struct th_quantity r;
    assert_int_equal(th_quantity_parse(s, &r, NULL), 0);
    return r;
}

static void values_round_away_from_zero_and_saturate(void **state)
{
    (void)state;
    assert_int_equal(th_quantity_value(q("1500m")), 2);
    assert_int_equal(th_quantity_value(q("-1500m")), -2);
    assert_int_equal(th_quantity_milli(q("1n")), 1);
    assert_int_equal(th_quantity_milli(q("250m")), 250);
    assert_int_equal(th_quantity_milli(q("100E")), INT64_MAX);
    assert_int_equal(th_quantity_value(q("-100E")), INT64_MIN);
}

static void sums_keep_the_left_format_unless_zero(void **state)
{
    (void)state;
    char buf[TH_QUANTITY_LEN];
    assert_string_equal(th_quantity_format(th_quantity_add(q("1Gi"), q("512M")), buf), "1548576Ki");
    assert_string_equal(th_quantity_format(th_quantity_add(q("0"), q("1Gi")), buf), "1Gi");
    assert_string_equal(th_quantity_format(th_quantity_sub(q("1"), q("100m")), buf), "900m");
    assert_true(th_quantity_cmp(q("1Gi"), q("1G")) > 0);
    assert_int_equal(th_quantity_cmp(q("1000m"), q("1")), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(canonical_forms_match_upstreams),
        cmocka_unit_test(faults_have_upstreams_words),
        cmocka_unit_test(values_round_away_from_zero_and_saturate),
        cmocka_unit_test(sums_keep_the_left_format_unless_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
