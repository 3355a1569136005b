/* Validation rules as data: causes name the member in upstream's words; schedules of cron. */
#include "base/buf.h"
#include "controlplane/resources/rules.h"
#include "controlplane/schema/cron.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* "reason field: message" of every cause, one a line. */
static char *causes(const char *gv, const char *kind, const char *text)
{
    TH_AUTO(th_json) struct th_json *obj = NULL;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    th_autobuf struct th_buf b = TH_BUF_INIT;
    const char *slash = strchr(gv, '/');
    th_autofree char *group = slash ? th_xstrndup(gv, (size_t)(slash - gv)) : th_xstrdup("");
    const struct th_kind *k = th_kind_find(group, slash ? slash + 1 : gv, kind);
    assert_non_null(k);
    assert_int_equal(th_json_parse(text, strlen(text), NULL, &obj, NULL), 0);
    th_rules_check(k->type, obj, &err);
    for (size_t i = 0; i < err.n_causes; i++) {
        th_buf_printf(&b, "%s %s: %s\n", err.causes[i].reason, err.causes[i].field,
                      err.causes[i].msg);
    }
    return th_xstrdup(th_buf_cstr(&b));
}

static void rules_name_the_member_and_say_what_is_wrong(void **state)
{
    (void)state;
    static const struct {
        const char *gv, *kind, *text, *want;
    } cases[] = {
        {"coordination.k8s.io/v1", "Lease",
         "{\"spec\":{\"leaseDurationSeconds\":0,\"leaseTransitions\":-1}}",
         "FieldValueInvalid spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0\n"
         "FieldValueInvalid spec.leaseTransitions: Invalid value: -1: must be greater than or equal "
         "to 0\n"},
        {"storage.k8s.io/v1", "StorageClass",
         "{\"provisioner\":\"a/b\",\"reclaimPolicy\":\"Keep\",\"volumeBindingMode\":\"Immediate\"}",
         "FieldValueNotSupported reclaimPolicy: Unsupported value: \"Keep\": supported values: "
         "\"Delete\", \"Retain\"\n"},
        {"rbac.authorization.k8s.io/v1", "Role",
         "{\"rules\":[{\"verbs\":[\"get\"],\"apiGroups\":[\"\"],\"resources\":[\"pods\"]},"
         "{\"verbs\":[],\"apiGroups\":[\"\"]}]}",
         "FieldValueRequired rules[1].verbs: Required value: verbs must contain at least one value\n"
         "FieldValueRequired rules[1].resources: Required value: resource rules must supply at least "
         "one resource\n"},
        {"scheduling.k8s.io/v1", "PriorityClass",
         "{\"metadata\":{\"name\":\"p\"},\"value\":1000000001}",
         "FieldValueForbidden value: Forbidden: maximum allowed value of a user defined priority is "
         "1000000000\n"},
        {"v1", "ConfigMap", "{\"data\":{\"ok\":\"v\"}}", ""},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        th_autofree char *got = causes(cases[i].gv, cases[i].kind, cases[i].text);
        assert_string_equal(got, cases[i].want);
    }
}

static void paths_are_written_as_upstream_does(void **state)
{
    (void)state;
    TH_AUTO(th_json) struct th_json *o =
        th_json_build("{'spec':{'containers':[{'name':'a'},{'image':'b'}],'labels':{'k/x':'v'}}}");
    struct th_view top = TH_VIEW(o, NULL), spec = th_view_at(&top, "spec");
    struct th_view ct = th_view_item(&spec, "containers", 1);
    struct th_view label = th_view_key(&spec, "labels", "k/x");
    th_autofree char *a = th_view_path(&ct, "image"), *b = th_view_path(&label, NULL);
    th_autofree char *c = th_view_path(&spec, NULL);
    assert_string_equal(a, "spec.containers[1].image");
    assert_string_equal(b, "spec.labels[k/x]");
    assert_string_equal(c, "spec");
    assert_string_equal(th_view_str(&ct, "image"), "b");
    assert_string_equal(th_view_str(&ct, "name"), "");
}

static void schedules_of_cron_are_sets_of_bits(void **state)
{
    (void)state;
    struct th_cron c;
    assert_int_equal(th_cron_parse("*/15 0 1,15 jan-mar mon", &c, NULL), 0);
    assert_true(c.minutes == (1ull | 1ull << 15 | 1ull << 30 | 1ull << 45));
    assert_true(c.hours == 1 && c.days == (1ull << 1 | 1ull << 15));
    assert_true(c.months == (1ull << 1 | 1ull << 2 | 1ull << 3) && c.weekdays == 1ull << 1);
    assert_false(c.any_day || c.any_weekday);
    assert_int_equal(th_cron_parse("@every 90s", &c, NULL), 0);
    assert_int_equal(c.every_s, 90);
    assert_true(th_cron_parse("* * * *", &c, NULL) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules_name_the_member_and_say_what_is_wrong),
        cmocka_unit_test(paths_are_written_as_upstream_does),
        cmocka_unit_test(schedules_of_cron_are_sets_of_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
