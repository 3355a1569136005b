/* The scheduling queue: order, back-off, waiting for a change, wakes that come in between. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/clock.h"
#include "controlplane/scheduler/queue.h"
#include <pthread.h>

static void assert_next(struct th_schedq *q, const char *key)
{
    th_autofree char *got = th_schedq_pop(q);
    assert_string_equal(got, key);
}

/* Pops in a thread of its own, so that a test can see that nothing comes yet. */
struct popper {
    struct th_schedq *q;
    pthread_t thread;
    char *got;
    bool done; /* atomic */
};

static void *pop(void *arg)
{
    struct popper *p = arg;
    p->got = th_schedq_pop(p->q);
    __atomic_store_n(&p->done, true, __ATOMIC_RELEASE);
    return NULL;
}

static void popper_start(struct popper *p, struct th_schedq *q)
{
    *p = (struct popper){.q = q};
    assert_int_equal(pthread_create(&p->thread, NULL, pop, p), 0);
}

static void assert_popped(struct popper *p, const char *key)
{
    assert_int_equal(pthread_join(p->thread, NULL), 0);
    assert_string_equal(p->got, key);
    free(p->got);
}

static void the_most_important_comes_first_then_the_oldest(void **state)
{
    (void)state;
    struct th_schedq *q = th_schedq_new();
    th_schedq_add(q, "d/a", 0);
    th_schedq_add(q, "d/b", 5);
    th_schedq_add(q, "d/c", 0);
    th_schedq_add(q, "d/d", 5);
    th_schedq_remove(q, "d/d");
    assert_next(q, "d/b");
    assert_next(q, "d/a");
    assert_next(q, "d/c");
    th_schedq_shutdown(q);
    assert_null(th_schedq_pop(q));
    th_schedq_free(q);
}

static void one_that_failed_backs_off_twice_as_long_each_time(void **state)
{
    (void)state;
    th_clock_simulate(0);
    struct th_schedq *q = th_schedq_new();
    th_schedq_add(q, "d/a", 0);
    assert_next(q, "d/a");
    static const int64_t waits[] = {1000, 2000, 4000, 8000, 10000, 10000};
    for (size_t i = 0; i < TH_ARRAY_LEN(waits); i++) {
        struct popper p;
        th_schedq_unschedulable(q, "d/a", false);
        popper_start(&p, q);
        th_clock_advance_ms(waits[i] - 1);
        th_schedq_add(q, "d/mark", 0);
        assert_popped(&p, "d/mark");
        th_schedq_remove(q, "d/mark");
        th_clock_advance_ms(1);
        assert_next(q, "d/a");
    }
    th_schedq_free(q);
    th_clock_real();
}

static void one_that_fits_nowhere_waits_for_a_change(void **state)
{
    (void)state;
    th_clock_simulate(0);
    struct th_schedq *q = th_schedq_new();
    struct popper p;
    th_schedq_add(q, "d/a", 0);
    assert_next(q, "d/a");
    th_schedq_unschedulable(q, "d/a", true);
    popper_start(&p, q);
    th_clock_advance_ms(60000);
    th_schedq_add(q, "d/mark", 0);
    assert_popped(&p, "d/mark");
    th_schedq_remove(q, "d/mark");
    th_schedq_wake(q);
    assert_next(q, "d/a");
    /* ... but not for ever */
    th_schedq_unschedulable(q, "d/a", true);
    th_clock_advance_ms(300000);
    assert_next(q, "d/a");
    th_schedq_free(q);
    th_clock_real();
}

static void a_wake_while_it_is_tried_is_not_lost(void **state)
{
    (void)state;
    th_clock_simulate(0);
    struct th_schedq *q = th_schedq_new();
    th_schedq_add(q, "d/a", 0);
    assert_next(q, "d/a");
    th_schedq_wake(q);
    th_schedq_unschedulable(q, "d/a", true);
    th_clock_advance_ms(1000);
    assert_next(q, "d/a");
    th_schedq_free(q);
    th_clock_real();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_most_important_comes_first_then_the_oldest),
        cmocka_unit_test(one_that_failed_backs_off_twice_as_long_each_time),
        cmocka_unit_test(one_that_fits_nowhere_waits_for_a_change),
        cmocka_unit_test(a_wake_while_it_is_tried_is_not_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
