/* base/clock: formats, parsing, durations, and the simulated clock. */
#include "base/buf.h"
#include "base/clock.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void times_format_as_rfc_3339(void **state)
{
    (void)state;
    static const struct {
        int64_t ms;
        const char *text;
    } cases[] = {
        {0, "1970-01-01T00:00:00Z"},
        {-1, "1969-12-31T23:59:59Z"},
        {951782400000, "2000-02-29T00:00:00Z"},
        {951868800000, "2000-03-01T00:00:00Z"},
        {1767323045678, "2026-01-02T03:04:05Z"},
        {4102444799999, "2099-12-31T23:59:59Z"},
        {253402300799000, "9999-12-31T23:59:59Z"},
        {-62135596800000, "0001-01-01T00:00:00Z"},
    };
    char buf[TH_TIME_LEN];
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        assert_string_equal(th_time_format(cases[i].ms, buf), cases[i].text);
    }
    assert_string_equal(th_time_format_milli(1767323045008, buf), "2026-01-02T03:04:05.008Z");
    assert_string_equal(th_time_format_micro(1767323045678901, buf), "2026-01-02T03:04:05.678901Z");
    assert_string_equal(th_time_format_micro(-1, buf), "1969-12-31T23:59:59.999999Z");
    assert_string_equal(th_time_format_nano(1767323045, 42, buf), "2026-01-02T03:04:05.000000042Z");
}

static void times_parse_and_reject(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t us;
        bool ok;
    } cases[] = {
        {"1970-01-01T00:00:00Z", 0, true},
        {"2026-01-02T03:04:05.678901Z", 1767323045678901, true},
        {"2026-01-02T03:04:05.6789019Z", 1767323045678901, true},
        {"2026-01-02T03:04:05.5Z", 1767323045500000, true},
        {"2026-01-02T05:34:05+02:30", 1767323045000000, true},
        {"2026-01-01T23:04:05-04:00", 1767323045000000, true},
        {"1969-12-31T23:59:59Z", -1000000, true},
        {"2024-02-29T00:00:00Z", 1709164800000000, true},
        {"2023-02-29T00:00:00Z", 0, false},
        {"2026-13-01T00:00:00Z", 0, false},
        {"2026-00-01T00:00:00Z", 0, false},
        {"2026-01-00T00:00:00Z", 0, false},
        {"2026-01-02T24:00:00Z", 0, false},
        {"2026-01-02T23:60:00Z", 0, false},
        {"2026-01-02T23:59:60Z", 0, false},
        {"2026-01-02T03:04:05", 0, false},
        {"2026-01-02T03:04:05.Z", 0, false},
        {"2026-01-02 03:04:05Z", 0, false},
        {"2026-01-02T03:04:05Zx", 0, false},
        {"2026-1-2T03:04:05Z", 0, false},
        {"2026-01-02T03:04:05+0230", 0, false},
        {"", 0, false},
        {NULL, 0, false},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        int64_t us = 77;
        int r = th_time_parse(cases[i].text, &us, NULL);
        assert_int_equal(r, cases[i].ok ? 0 : -TH_R_PARSE);
        assert_int_equal(us, cases[i].ok ? cases[i].us : 77);
    }
}

static void every_day_survives_a_round_trip(void **state)
{
    (void)state;
    char buf[TH_TIME_LEN];
    char before[TH_TIME_LEN] = "";
    for (int64_t day = -719000; day < 2900000; day += 37) {
        int64_t us;
        th_time_format(day * 86400000, buf);
        assert_int_equal(th_time_parse(buf, &us, NULL), 0);
        assert_int_equal(us, day * 86400000000);
        assert_true(strcmp(before, buf) < 0);
        memcpy(before, buf, sizeof(buf));
    }
}

static void durations_follow_go(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t us;
        const char *back;
    } cases[] = {
        {"0", 0, "0s"},
        {"0s", 0, "0s"},
        {"300ms", 300000, "300ms"},
        {"1.5s", 1500000, "1.5s"},
        {"1h15m30.918s", 4530918000, "1h15m30.918s"},
        {"-2m", -120000000, "-2m0s"},
        {"+5s", 5000000, "5s"},
        {"1m", 60000000, "1m0s"},
        {"2h", 7200000000, "2h0m0s"},
        {"15us", 15, "15\xc2\xb5s"},
        {"15\xc2\xb5s", 15, "15\xc2\xb5s"},
        {"1500ns", 1, "1\xc2\xb5s"},
        {".5s", 500000, "500ms"},
        {"1.s", 1000000, "1s"},
        {"2562047h47m16.854775s", 9223372036854775, "2562047h47m16.854775s"},
    };
    char buf[TH_TIME_LEN];
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        int64_t us = 0;
        assert_int_equal(th_duration_parse(cases[i].text, &us, NULL), 0);
        assert_int_equal(us, cases[i].us);
        assert_string_equal(th_duration_format(us, buf), cases[i].back);
    }
    static const char *const bad[] = {"",         "5",   "s",  ".s",
                                      "1x",       "1s ", "--", "1 s",
                                      "3000000h", "1m5", "-",  "99999999999999999999s"};
    for (size_t i = 0; i < TH_ARRAY_LEN(bad); i++) {
        int64_t us = 5;
        assert_int_equal(th_duration_parse(bad[i], &us, NULL), -TH_R_PARSE);
        assert_int_equal(us, 5);
    }
}

static void ages_follow_kubectl(void **state)
{
    (void)state;
    static const struct {
        int64_t s;
        const char *text;
    } cases[] = {
        {-5, "<invalid>"},  {-1, "0s"},        {0, "0s"},          {119, "119s"},
        {120, "2m"},        {125, "2m5s"},     {599, "9m59s"},     {600, "10m"},
        {10799, "179m"},    {10800, "3h"},     {11100, "3h5m"},    {28799, "7h59m"},
        {28800, "8h"},      {172799, "47h"},   {172800, "2d"},     {190800, "2d5h"},
        {691199, "7d23h"},  {691200, "8d"},    {63071999, "729d"}, {63072000, "2y"},
        {63158400, "2y1d"}, {252288000, "8y"}, {315360000, "10y"},
    };
    char buf[TH_TIME_LEN];
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        assert_string_equal(th_duration_human(cases[i].s * 1000, buf), cases[i].text);
    }
}

static _Atomic int wakes;
static void count_wake(void *arg)
{
    (void)arg;
    wakes++;
}

static void simulated_time_moves_only_when_told(void **state)
{
    (void)state;
    int64_t real = th_mono_ms();
    struct th_clock_watch w = {.fn = count_wake};
    th_clock_watch_add(&w);
    th_clock_simulate(1000000);
    assert_true(th_clock_is_simulated());
    assert_int_equal(th_now_ms(), 1000000);
    int64_t mono = th_mono_ms();
    assert_true(mono >= real);
    th_clock_advance_ms(2500);
    assert_int_equal(th_now_ms(), 1002500);
    assert_int_equal(th_now_us(), 1002500000);
    assert_int_equal(th_mono_ms(), mono + 2500);
    th_clock_simulate(5);
    assert_int_equal(th_now_ms(), 5);
    assert_int_equal(th_mono_ms(), mono + 2500);
    th_clock_real();
    assert_int_equal(wakes, 4);
    th_clock_watch_del(&w);
    th_clock_real();
    assert_int_equal(wakes, 4);
    assert_true(th_now_ms() > 1600000000000);
}

static _Atomic bool woke;
static void *sleeper(void *arg)
{
    (void)arg;
    th_sleep_ms(3600 * 1000);
    woke = true;
    return NULL;
}

static void sleeping_on_a_simulated_clock_ends_when_it_is_moved(void **state)
{
    (void)state;
    th_clock_simulate(0);
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, sleeper, NULL), 0);
    assert_false(woke);
    /* the thread may not have begun to sleep yet, in which case one move would come too early */
    while (!woke) {
        th_clock_advance_ms(1800 * 1000);
    }
    assert_int_equal(pthread_join(t, NULL), 0);
    assert_true(th_now_ms() >= 3600 * 1000);
    th_clock_real();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_format_as_rfc_3339),
        cmocka_unit_test(times_parse_and_reject),
        cmocka_unit_test(every_day_survives_a_round_trip),
        cmocka_unit_test(durations_follow_go),
        cmocka_unit_test(ages_follow_kubectl),
        cmocka_unit_test(simulated_time_moves_only_when_told),
        cmocka_unit_test(sleeping_on_a_simulated_clock_ends_when_it_is_moved),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
