/* base/threadpool: order, draining, jobs that submit jobs. */
#include "base/cleanup.h"
#include "base/threadpool.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static int order[1000];
static int done;
static void record(void *arg)
{
    order[done++] = (int)(intptr_t)arg;
}

static void one_thread_runs_jobs_in_order_and_all_of_them(void **state)
{
    (void)state;
    struct th_pool *p = th_pool_new("order", 1);
    for (intptr_t i = 0; i < 1000; i++) {
        th_pool_submit(p, record, (void *)i);
    }
    th_pool_free(p);
    assert_int_equal(done, 1000);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(order[i], i);
    }
}

static pthread_barrier_t barrier;
static void meet(void *arg)
{
    (void)arg;
    (void)pthread_barrier_wait(&barrier);
}

static void jobs_run_on_as_many_threads_as_asked(void **state)
{
    (void)state;
    /* each job waits for three others: with fewer threads this would never end */
    assert_int_equal(pthread_barrier_init(&barrier, NULL, 4), 0);
    struct th_pool *p = th_pool_new("a-name-longer-than-the-kernel-takes", 4);
    for (int i = 0; i < 8; i++) {
        th_pool_submit(p, meet, NULL);
    }
    th_pool_free(p);
    (void)pthread_barrier_destroy(&barrier);
}

static struct th_pool *chain_pool;
static _Atomic int links;
static void chain(void *arg)
{
    links++;
    intptr_t left = (intptr_t)arg;
    if (left > 0) {
        th_pool_submit(chain_pool, chain, (void *)(left - 1));
    }
}

static void jobs_submitted_by_jobs_run_even_while_freeing(void **state)
{
    (void)state;
    chain_pool = th_pool_new("chain", 3);
    th_pool_submit(chain_pool, chain, (void *)(intptr_t)200);
    th_pool_free(chain_pool);
    assert_int_equal(links, 201);
    th_pool_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_thread_runs_jobs_in_order_and_all_of_them),
        cmocka_unit_test(jobs_run_on_as_many_threads_as_asked),
        cmocka_unit_test(jobs_submitted_by_jobs_run_even_while_freeing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
