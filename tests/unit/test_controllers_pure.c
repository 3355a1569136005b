/* What controllers compute from plain values: cron schedules, sets of indexes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/clock.h"
#include "controlplane/controllers/cron_schedule.h"
#include "controlplane/controllers/job_priv.h"
#include "controlplane/controllers/statefulset_claims.h"

static int64_t seconds(const char *text)
{
    int64_t us = 0;
    assert_int_equal(th_time_parse(text, &us, NULL), 0);
    return us / 1000000;
}

static void schedules_name_the_next_time(void **state)
{
    (void)state;
    static const struct {
        const char *schedule, *after, *next;
    } cases[] = {
        {"* * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"},
        {"*/15 * * * *", "2026-01-01T00:50:10Z", "2026-01-01T01:00:00Z"},
        {"5/20 * * * *", "2026-01-01T00:06:00Z", "2026-01-01T00:25:00Z"},
        {"0 9-17/4 * * MON-FRI", "2026-01-02T18:00:00Z", "2026-01-05T09:00:00Z"},
        {"30 3 31 * *", "2026-01-31T03:30:00Z", "2026-03-31T03:30:00Z"},
        {"0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"},
        {"0 0 13 * FRI", "2026-01-01T12:00:00Z", "2026-01-02T00:00:00Z"},
        {"0 0 13 * *", "2026-01-01T12:00:00Z", "2026-01-13T00:00:00Z"},
        {"59 23 31 DEC ?", "2026-12-31T23:59:00Z", "2027-12-31T23:59:00Z"},
        {"1,2,40-42 0 * * *", "2026-01-01T00:02:00Z", "2026-01-01T00:40:00Z"},
        {"@hourly", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"},
        {"@weekly", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"},
        {"@yearly", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"},
        {"@every 1h30m", "2026-01-01T00:00:07Z", "2026-01-01T01:30:07Z"},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        struct th_cron c;
        assert_int_equal(th_cron_parse(cases[i].schedule, &c, NULL), 0);
        assert_int_equal(th_cron_next(&c, NULL, seconds(cases[i].after)), seconds(cases[i].next));
    }
}

static void schedules_follow_the_clocks_of_their_zone(void **state)
{
    (void)state;
    static const struct {
        const char *zone, *schedule, *after, *next;
    } cases[] = {
        {"Europe/Berlin", "0 9 * * *", "2026-01-01T09:00:00Z", "2026-01-02T08:00:00Z"},
        {"Europe/Berlin", "0 9 * * *", "2026-07-01T09:00:00Z", "2026-07-02T07:00:00Z"},
        /* 02:30 is left out on 29 March and comes twice on 25 October */
        {"Europe/Berlin", "30 2 * * *", "2026-03-28T12:00:00Z", "2026-03-30T00:30:00Z"},
        {"Europe/Berlin", "30 2 * * *", "2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z"},
        {"Europe/Berlin", "30 2 * * *", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"},
        {"America/New_York", "0 0 1 * *", "2026-06-15T00:00:00Z", "2026-07-01T04:00:00Z"},
        {"Asia/Kolkata", "15 6 * * MON", "2026-01-01T00:00:00Z", "2026-01-05T00:45:00Z"},
        {"Australia/Sydney", "0 12 * * *", "2026-01-01T02:00:00Z", "2026-01-02T01:00:00Z"},
        {"Australia/Sydney", "0 12 * * *", "2026-07-01T03:00:00Z", "2026-07-02T02:00:00Z"},
        {"Europe/Dublin", "0 12 * * *", "2026-01-01T00:00:00Z", "2026-01-01T12:00:00Z"},
        {"Europe/Dublin", "0 12 * * *", "2026-07-01T00:00:00Z", "2026-07-01T11:00:00Z"},
        {"America/Nuuk", "0 0 * * *", "2026-01-01T00:00:00Z", "2026-01-01T02:00:00Z"},
        {"Etc/GMT+5", "@daily", "2026-01-01T00:00:00Z", "2026-01-01T05:00:00Z"},
        {"UTC", "@every 10s", "2026-01-01T00:00:00Z", "2026-01-01T00:00:10Z"},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        struct th_cron c;
        struct th_timezone z;
        assert_true(th_timezone_find(cases[i].zone, &z));
        assert_int_equal(th_cron_parse(cases[i].schedule, &c, NULL), 0);
        assert_int_equal(th_cron_next(&c, &z, seconds(cases[i].after)), seconds(cases[i].next));
    }
}

static void every_zone_has_a_rule_and_no_other_name_has(void **state)
{
    (void)state;
    struct th_timezone z;
    const char *before = "";
#define TH_TIMEZONE(name, rule)                                                                    \
    assert_true(strcmp(before, name) < 0);                                                         \
    assert_true(th_timezone_find(name, &z));                                                       \
    before = name;
#include "controlplane/schema/timezones.def"
#undef TH_TIMEZONE
    assert_false(th_timezone_find("europe/berlin", &z));
    assert_false(th_timezone_find("America", &z));
    assert_false(th_timezone_find("Mars/Olympus", &z));
    static const char *const bad[] = {"", "CET", "CET-1CEST,", "CET-1CEST,M3.5.0", "CET-1CEST,M13.5.0,M1.1.0",
                                      "<+03", "CET-1CEST,M3.5.0,M10.5.0/3x"};
    for (size_t i = 0; i < TH_ARRAY_LEN(bad); i++) {
        assert_false(th_timezone_parse(bad[i], &z));
    }
}

static const char *owners_of(const char *refs, const char *policy, bool surplus, bool *ret_changed,
                             char buf[64])
{
    th_autofree char *claim_text =
        th_xasprintf("{\"metadata\":{\"ownerReferences\":[%s]}}", refs);
    th_autofree char *set_text = th_xasprintf(
        "{\"apiVersion\":\"apps/v1\",\"kind\":\"StatefulSet\",\"metadata\":{\"name\":\"s\","
        "\"uid\":\"S\"},\"spec\":{\"persistentVolumeClaimRetentionPolicy\":%s}}",
        policy);
    struct th_json *claim TH_AUTO(th_json) = NULL;
    struct th_json *set TH_AUTO(th_json) = NULL;
    struct th_json *pod TH_AUTO(th_json) = th_json_build(
        "{'apiVersion':'v1','kind':'Pod','metadata':{'name':'s-1','uid':'P'}}");
    assert_int_equal(th_json_parse_cstr(claim_text, &claim, NULL), 0);
    assert_int_equal(th_json_parse_cstr(set_text, &set, NULL), 0);
    *ret_changed = th_statefulset_own_claim(claim, set, pod, surplus);
    const struct th_json *list = th_json_path(claim, "metadata.ownerReferences");
    buf[0] = 0;
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *r = th_json_at(list, i);
        size_t n = strlen(buf);
        (void)snprintf(buf + n, 64 - n, "%s%s", th_json_path_str(r, "uid"),
                       th_json_path_bool(r, "controller", false) ? "!" : "");
    }
    return buf;
}

static void claims_belong_to_whom_the_policy_says(void **state)
{
    (void)state;
#define SET "{\"apiVersion\":\"apps/v1\",\"kind\":\"StatefulSet\",\"name\":\"s\",\"uid\":\"S\",\"controller\":true}"
#define OLD "{\"apiVersion\":\"apps/v1\",\"kind\":\"StatefulSet\",\"name\":\"s\",\"uid\":\"O\",\"controller\":true}"
#define WEAK "{\"apiVersion\":\"apps/v1\",\"kind\":\"StatefulSet\",\"name\":\"s\",\"uid\":\"S\"}"
#define POD "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"name\":\"s-1\",\"uid\":\"P\",\"controller\":true}"
#define MAP "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"name\":\"m\",\"uid\":\"M\"}"
#define BOSS "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"name\":\"m\",\"uid\":\"B\",\"controller\":true}"
    static const char keep[] = "{\"whenDeleted\":\"Retain\",\"whenScaled\":\"Retain\"}";
    static const char scaled[] = "{\"whenDeleted\":\"Retain\",\"whenScaled\":\"Delete\"}";
    static const char deleted[] = "{\"whenDeleted\":\"Delete\",\"whenScaled\":\"Retain\"}";
    static const char both[] = "{\"whenDeleted\":\"Delete\",\"whenScaled\":\"Delete\"}";
    static const struct {
        const char *refs, *policy;
        bool surplus;
        const char *want; /* uids, controllers with "!" */
        bool changed;
    } cases[] = {
        {"", keep, true, "", false},           {SET, keep, false, "", true},
        {"", scaled, false, "", false},        {"", scaled, true, "P!", true},
        {POD, scaled, true, "P!", false},      {POD, scaled, false, "", true},
        {"", deleted, true, "S!", true},       {SET, deleted, false, "S!", false},
        {WEAK, deleted, false, "S!", true},    {SET, both, true, "P!", true},
        {POD, both, false, "S!", true},        {MAP, deleted, false, "MS!", true},
        {BOSS, scaled, true, "B!", false},     {SET "," BOSS, both, true, "B!", true},
        {OLD, deleted, false, "O!", false},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        bool changed = false;
        char buf[64];
        assert_string_equal(
            owners_of(cases[i].refs, cases[i].policy, cases[i].surplus, &changed, buf),
            cases[i].want);
        assert_int_equal(changed, cases[i].changed);
    }
}

static void a_schedule_that_never_comes_says_so(void **state)
{
    (void)state;
    struct th_cron c;
    assert_int_equal(th_cron_parse("0 0 31 2 *", &c, NULL), 0);
    assert_int_equal(th_cron_next(&c, NULL, seconds("2026-01-01T00:00:00Z")), -1);
}

static void bad_schedules_are_refused_with_a_reason(void **state)
{
    (void)state;
    static const struct {
        const char *schedule, *why;
    } cases[] = {
        {"* * * *", "expected exactly 5 fields, found 4: [* * * *]"},
        {"60 * * * *", "end of range (60) above maximum (59): 60"},
        {"* * 0 * *", "beginning of range (0) below minimum (1): 0"},
        {"* * * * 7", "end of range (7) above maximum (6): 7"},
        {"9-5 * * * *", "beginning of range (9) beyond end of range (5): 9-5"},
        {"*/0 * * * *", "step of range should be a positive number: */0"},
        {"x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"},
        {"@often", "unrecognized descriptor: @often"},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        struct th_cron c;
        struct th_err err TH_CLEANUP(th_err_done) = TH_ERR_INIT;
        assert_true(th_cron_parse(cases[i].schedule, &c, &err) < 0);
        assert_string_equal(err.msg, cases[i].why);
    }
}

static void sets_of_indexes_are_written_as_intervals(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out;
        size_t count;
    } cases[] = {
        {"", "", 0},          {"0", "0", 1},         {"0,1", "0,1", 2},
        {"0-2", "0-2", 3},    {"1,3,4,5,7,8", "1,3-5,7,8", 6},
        {"8-20", "8,9", 2}, /* beyond the end there is nothing */
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        struct th_indexes s TH_CLEANUP(th_indexes_done);
        th_indexes_init(&s, 10, cases[i].in);
        th_autofree char *text = th_indexes_text(&s);
        assert_string_equal(text, cases[i].out);
        assert_int_equal(s.count, cases[i].count);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schedules_name_the_next_time),
        cmocka_unit_test(schedules_follow_the_clocks_of_their_zone),
        cmocka_unit_test(every_zone_has_a_rule_and_no_other_name_has),
        cmocka_unit_test(claims_belong_to_whom_the_policy_says),
        cmocka_unit_test(a_schedule_that_never_comes_says_so),
        cmocka_unit_test(bad_schedules_are_refused_with_a_reason),
        cmocka_unit_test(sets_of_indexes_are_written_as_intervals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
