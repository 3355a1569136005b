/* A fixed set of threads that take jobs from one queue.
 *
 * Problem: pulling, unpacking and running tools block for seconds; event loops and HTTP threads
 * must not. Design: a list of (function, argument) pairs under one lock, workers sleeping on a
 * condition. A job tells its result by itself, usually with th_ev_post.
 *
 * Invariants: jobs start in the order they were submitted; th_pool_free runs everything that is
 * queued, then joins, so an argument is never leaked. Submitting from inside a job is allowed, also
 * while the pool is being freed.
 */
#include "base/threadpool.h"

#include "base/alloc.h"

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

struct job {
    struct job *next;
    void (*fn)(void *arg);
    void *arg;
};

struct th_pool {
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t more;
    struct job *first, **last;
    size_t running; /* a job that runs may still submit */
    bool stopping;
    size_t n;
    pthread_t *threads; /* set before they start */
    char name[12];
};

static void *work(void *arg)
{
    struct th_pool *p = arg;
    (void)pthread_mutex_lock(&p->lock);
    for (;;) {
        while (!p->first && (!p->stopping || p->running > 0)) {
            (void)pthread_cond_wait(&p->more, &p->lock);
        }
        struct job *j = p->first;
        if (!j) {
            break;
        }
        p->first = j->next;
        if (!p->first) {
            p->last = &p->first;
        }
        p->running++;
        (void)pthread_mutex_unlock(&p->lock);
        j->fn(j->arg);
        free(j);
        (void)pthread_mutex_lock(&p->lock);
        if (--p->running == 0 && p->stopping) {
            (void)pthread_cond_broadcast(&p->more);
        }
    }
    (void)pthread_mutex_unlock(&p->lock);
    return NULL;
}

struct th_pool *th_pool_new(const char *name, size_t threads)
{
    TH_ASSERT(threads > 0);
    struct th_pool *p = TH_NEW(struct th_pool);
    (void)pthread_mutex_init(&p->lock, NULL);
    (void)pthread_cond_init(&p->more, NULL);
    p->last = &p->first;
    p->n = threads;
    p->threads = th_xcalloc(threads, sizeof(*p->threads));
    (void)snprintf(p->name, sizeof(p->name), "%s", name);
    /* Signals are for the thread that owns a signalfd: workers are born with all of them blocked.
     */
    sigset_t all;
    sigset_t old;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    for (size_t i = 0; i < threads; i++) {
        TH_ASSERT(pthread_create(&p->threads[i], NULL, work, p) == 0);
        char thread_name[16];
        (void)snprintf(thread_name, sizeof(thread_name), "%.11s-%zu", p->name, i % 100);
        (void)pthread_setname_np(p->threads[i], thread_name);
    }
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    return p;
}

void th_pool_submit(struct th_pool *p, void (*fn)(void *arg), void *arg)
{
    struct job *j = TH_NEW(struct job);
    j->fn = fn;
    j->arg = arg;
    (void)pthread_mutex_lock(&p->lock);
    *p->last = j;
    p->last = &j->next;
    (void)pthread_cond_signal(&p->more);
    (void)pthread_mutex_unlock(&p->lock);
}

void th_pool_free(struct th_pool *p)
{
    if (!p) {
        return;
    }
    (void)pthread_mutex_lock(&p->lock);
    p->stopping = true;
    (void)pthread_cond_broadcast(&p->more);
    (void)pthread_mutex_unlock(&p->lock);
    for (size_t i = 0; i < p->n; i++) {
        (void)pthread_join(p->threads[i], NULL);
    }
    (void)pthread_cond_destroy(&p->more);
    (void)pthread_mutex_destroy(&p->lock);
    free(p->threads);
    free(p);
}
