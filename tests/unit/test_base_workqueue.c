/* base/workqueue: merging, exclusion per key, delays and back-off on a simulated clock. */
#include "base/clock.h"
#include "base/workqueue.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static int set_up(void **state)
{
    th_clock_simulate(0);
    *state = th_wq_new(5, 1000);
    return 0;
}

static int tear_down(void **state)
{
    th_wq_free(*state);
    th_clock_real();
    return 0;
}

/* The next key must be this one (NULL: none is ready). It stays active. */
static void expect(struct th_wq *q, const char *key)
{
    th_autofree char *got = th_wq_get_timeout(q, 0);
    if (key) {
        assert_non_null(got);
        assert_string_equal(got, key);
    } else {
        assert_null(got);
    }
}

static void keys_wait_once_and_in_order(void **state)
{
    struct th_wq *q = *state;
    th_wq_add(q, "a");
    th_wq_add(q, "b");
    th_wq_add(q, "a");
    assert_int_equal(th_wq_len(q), 2);
    expect(q, "a");
    expect(q, "b");
    expect(q, NULL);
}

static void a_key_added_while_active_comes_again_after_done(void **state)
{
    struct th_wq *q = *state;
    th_wq_add(q, "a");
    expect(q, "a");
    th_wq_add(q, "a");
    th_wq_add(q, "a");
    expect(q, NULL); /* never two at a time */
    th_wq_add(q, "b");
    th_wq_done(q, "a");
    expect(q, "b");
    expect(q, "a");
    th_wq_done(q, "a");
    expect(q, NULL);
    th_wq_done(q, "unknown");
}

static void delays_let_the_earliest_win(void **state)
{
    struct th_wq *q = *state;
    th_wq_add_after(q, "late", 500);
    th_wq_add_after(q, "x", 300);
    th_wq_add_after(q, "x", 100);
    th_wq_add_after(q, "x", 200);
    th_wq_add_after(q, "now", 0);
    th_wq_add_after(q, "past", -5);
    expect(q, "now");
    expect(q, "past");
    th_clock_advance_ms(99);
    expect(q, NULL);
    th_clock_advance_ms(1);
    assert_int_equal(th_wq_len(q), 1);
    expect(q, "x");
    th_wq_done(q, "x");
    th_clock_advance_ms(399);
    expect(q, NULL); /* the later moments of x are gone */
    th_clock_advance_ms(1);
    expect(q, "late");
}

static void adding_at_once_cancels_the_delay(void **state)
{
    struct th_wq *q = *state;
    th_wq_add_after(q, "a", 50);
    th_wq_add(q, "a");
    th_wq_add_after(q, "a", 10); /* it waits already */
    expect(q, "a");
    th_wq_done(q, "a");
    th_clock_advance_ms(1000);
    expect(q, NULL);
}

static void a_delay_that_ends_while_active_repeats_the_key(void **state)
{
    struct th_wq *q = *state;
    th_wq_add(q, "a");
    expect(q, "a");
    th_wq_add_after(q, "a", 10);
    th_clock_advance_ms(20);
    expect(q, NULL);
    th_wq_done(q, "a");
    expect(q, "a");
}

static void back_off_doubles_up_to_the_maximum(void **state)
{
    struct th_wq *q = *state;
    static const int64_t delays[] = {5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000};
    for (size_t i = 0; i < TH_ARRAY_LEN(delays); i++) {
        assert_int_equal(th_wq_failures(q, "a"), (int)i);
        th_wq_add_backoff(q, "a");
        th_clock_advance_ms(delays[i] - 1);
        expect(q, NULL);
        th_clock_advance_ms(1);
        expect(q, "a");
        th_wq_done(q, "a");
    }
    th_wq_forget(q, "a");
    th_wq_forget(q, "unknown");
    assert_int_equal(th_wq_failures(q, "a"), 0);
    th_wq_add_backoff(q, "a");
    th_clock_advance_ms(5);
    expect(q, "a");
    for (int i = 0; i < 100; i++) { /* no overflow of the shift */
        th_wq_add_backoff(q, "b");
    }
    assert_int_equal(th_wq_failures(q, "b"), 100);
    th_wq_add_backoff(q, "c");
    th_clock_advance_ms(1000);
    expect(q, "b");
}

static void *get_main(void *arg)
{
    return th_wq_get(arg);
}

static void shutdown_wakes_waiting_workers_and_refuses_keys(void **state)
{
    struct th_wq *q = *state;
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, get_main, q), 0);
    }
    th_wq_shutdown(q);
    for (int i = 0; i < 3; i++) {
        void *key = "";
        assert_int_equal(pthread_join(threads[i], &key), 0);
        assert_null(key);
    }
    th_wq_add(q, "a");
    th_wq_add_after(q, "b", 1);
    th_wq_add_backoff(q, "c");
    expect(q, NULL);
    assert_int_equal(th_wq_len(q), 0);
}

static void moving_the_clock_wakes_a_waiting_worker(void **state)
{
    struct th_wq *q = *state;
    th_wq_add_after(q, "a", 60000);
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, get_main, q), 0);
    th_clock_advance_ms(60000);
    void *key = NULL;
    assert_int_equal(pthread_join(t, &key), 0);
    assert_string_equal(key, "a");
    free(key);
}

static void a_timeout_ends_the_wait_in_real_time(void **state)
{
    struct th_wq *q = *state;
    th_clock_real();
    int64_t begin = th_mono_ms();
    assert_null(th_wq_get_timeout(q, 20));
    assert_true(th_mono_ms() - begin >= 20);
    th_wq_add_after(q, "a", 20);
    th_autofree char *key = th_wq_get_timeout(q, 20000);
    assert_string_equal(key, "a");
    assert_true(th_mono_ms() - begin >= 40);
}

enum { KEYS = 8, ADDERS = 3, ADDS = 2000 };
static _Atomic int working[KEYS];
static _Atomic int added[KEYS]; /* increased before each add */
static _Atomic int seen[KEYS];  /* what a worker saw of `added` while it had the key */
static _Atomic bool overlapped;

static void *worker_main(void *arg)
{
    struct th_wq *q = arg;
    char *key;
    while ((key = th_wq_get(q))) {
        int k = key[0] - 'a';
        if (working[k]++ != 0) {
            overlapped = true;
        }
        seen[k] = added[k];
        working[k]--;
        if (seen[k] % 7 == 0) {
            th_wq_add_backoff(q, key);
        } else {
            th_wq_forget(q, key);
        }
        th_wq_done(q, key);
        free(key);
    }
    return NULL;
}

static void *adder_main(void *arg)
{
    for (int i = 0; i < ADDS; i++) {
        char key[2] = {(char)('a' + i % KEYS), '\0'};
        added[i % KEYS]++;
        if (i % 3) {
            th_wq_add(arg, key);
        } else {
            th_wq_add_after(arg, key, i % 2);
        }
    }
    return NULL;
}

static void many_threads_lose_no_key_and_never_share_one(void **state)
{
    struct th_wq *q = *state;
    th_clock_real();
    pthread_t workers[4];
    pthread_t adders[ADDERS];
    for (size_t i = 0; i < TH_ARRAY_LEN(workers); i++) {
        assert_int_equal(pthread_create(&workers[i], NULL, worker_main, q), 0);
    }
    for (size_t i = 0; i < ADDERS; i++) {
        assert_int_equal(pthread_create(&adders[i], NULL, adder_main, q), 0);
    }
    for (size_t i = 0; i < ADDERS; i++) {
        assert_int_equal(pthread_join(adders[i], NULL), 0);
    }
    /* Whatever was added last must still be seen: wait for that, with a deadline. */
    int64_t deadline = th_mono_ms() + 20000;
    for (int k = 0; k < KEYS; k++) {
        while (seen[k] != added[k] && th_mono_ms() < deadline) {
            (void)sched_yield();
        }
        assert_int_equal(seen[k], added[k]);
    }
    th_wq_shutdown(q);
    for (size_t i = 0; i < TH_ARRAY_LEN(workers); i++) {
        assert_int_equal(pthread_join(workers[i], NULL), 0);
    }
    assert_false(overlapped);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(keys_wait_once_and_in_order),
        TEST(a_key_added_while_active_comes_again_after_done),
        TEST(delays_let_the_earliest_win),
        TEST(adding_at_once_cancels_the_delay),
        TEST(a_delay_that_ends_while_active_repeats_the_key),
        TEST(back_off_doubles_up_to_the_maximum),
        TEST(shutdown_wakes_waiting_workers_and_refuses_keys),
        TEST(moving_the_clock_wakes_a_waiting_worker),
        TEST(a_timeout_ends_the_wait_in_real_time),
        TEST(many_threads_lose_no_key_and_never_share_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
