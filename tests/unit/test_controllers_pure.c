/* What controllers compute from plain values: cron schedules, sets of indexes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/clock.h"
#include "controlplane/controllers/cron_schedule.h"
#include "controlplane/controllers/job_priv.h"

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
        assert_int_equal(th_cron_next(&c, seconds(cases[i].after)), seconds(cases[i].next));
    }
}

static void a_schedule_that_never_comes_says_so(void **state)
{
    (void)state;
    struct th_cron c;
    assert_int_equal(th_cron_parse("0 0 31 2 *", &c, NULL), 0);
    assert_int_equal(th_cron_next(&c, seconds("2026-01-01T00:00:00Z")), -1);
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
        cmocka_unit_test(a_schedule_that_never_comes_says_so),
        cmocka_unit_test(bad_schedules_are_refused_with_a_reason),
        cmocka_unit_test(sets_of_indexes_are_written_as_intervals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
