/* The thread that makes rounds: when it makes one and what it says about why. */
#include "base/clock.h"
#include "controlplane/api/rounds.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

struct seen {
    pthread_mutex_t lock; /* guards the rest */
    pthread_cond_t cond;
    int rounds, woken;
    int due; /* so many rounds ask for another one at once */
};

static int64_t round_of(void *arg, bool woken)
{
    struct seen *s = arg;
    (void)pthread_mutex_lock(&s->lock);
    s->rounds++;
    s->woken += woken;
    int64_t next = s->due-- > 0 ? th_mono_real_ms() : INT64_MAX;
    (void)pthread_cond_broadcast(&s->cond);
    (void)pthread_mutex_unlock(&s->lock);
    return next;
}

static void await_rounds(struct seen *s, int n)
{
    (void)pthread_mutex_lock(&s->lock);
    while (s->rounds < n) {
        (void)pthread_cond_wait(&s->cond, &s->lock);
    }
    assert_int_equal(s->rounds, n);
    (void)pthread_mutex_unlock(&s->lock);
}

static void a_wake_makes_a_round(void **state)
{
    (void)state;
    struct seen s = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
    struct th_rounds r;
    th_rounds_start(&r, round_of, &s);
    await_rounds(&s, 1);
    th_rounds_wake(&r);
    await_rounds(&s, 2);
    th_rounds_stop(&r, NULL, 0);
    assert_int_equal(s.rounds, 2);
    assert_int_equal(s.woken, 2);
}

static void a_round_may_ask_for_the_next(void **state)
{
    (void)state;
    struct seen s = {
        .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER, .due = 3};
    struct th_rounds r;
    th_rounds_start(&r, round_of, &s);
    await_rounds(&s, 4);
    th_rounds_stop(&r, NULL, 0);
    assert_int_equal(s.rounds, 4);
    assert_int_equal(s.woken, 1); /* the first */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wake_makes_a_round),
        cmocka_unit_test(a_round_may_ask_for_the_next),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
