/* Which pod the node ends first, when a disk counts as full, how long a crashed container waits. */
#include "vm/node/agent.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static struct pod pods[4];

static void the_one_over_its_request_goes_first(void **state)
{
    (void)state;
    struct victim v[] = {{&pods[0], 500, 600, -5}, {&pods[1], 20, 10, 100}, {&pods[2], 900, 1000, 0}};
    assert_ptr_equal(eviction_choose(v, 3), &pods[1]);
}

static void then_the_lower_priority_then_the_most_over(void **state)
{
    (void)state;
    struct victim v[] = {{&pods[0], 500, 0, 10}, {&pods[1], 100, 0, 1}, {&pods[2], 300, 0, 1}, {&pods[3], 400, 200, 1}};
    assert_ptr_equal(eviction_choose(v, 4), &pods[2]);
}

static void what_is_critical_or_idle_stays(void **state)
{
    (void)state;
    struct victim v[] = {{&pods[0], 500, 0, 2000000000}, {&pods[1], 0, 0, -1}};
    assert_null(eviction_choose(v, 2));
    assert_null(eviction_choose(NULL, 0));
}

static void a_disk_is_full_at_a_tenth_or_a_gibibyte(void **state)
{
    (void)state;
    assert_int_equal(eviction_disk_threshold_b(1000), 100);
    assert_int_equal(eviction_disk_threshold_b(4ull << 40), 1ull << 30);
}

static void crashes_wait_longer_each_time_and_are_forgotten(void **state)
{
    (void)state;
    assert_int_equal(crash_backoff_until(0, 0, 1000), 0); /* the first restart is at once */
    int64_t wait = 0, now = 1000000, last = 0;
    static const int64_t want[] = {10000, 20000, 40000, 80000, 160000, 300000, 300000};
    for (size_t i = 0; i < TH_ARRAY_LEN(want); i++) {
        wait = crash_backoff_next(wait, last, now);
        assert_int_equal(wait, want[i]);
        last = now;
        now += wait;
        assert_int_equal(crash_backoff_until(wait, last, now), now + wait);
    }
    now = last + 600001; /* it has run for more than ten minutes */
    assert_int_equal(crash_backoff_until(wait, last, now), 0);
    assert_int_equal(crash_backoff_next(wait, last, now), 10000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_one_over_its_request_goes_first),
        cmocka_unit_test(then_the_lower_priority_then_the_most_over),
        cmocka_unit_test(what_is_critical_or_idle_stays),
        cmocka_unit_test(crashes_wait_longer_each_time_and_are_forgotten),
        cmocka_unit_test(a_disk_is_full_at_a_tenth_or_a_gibibyte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
