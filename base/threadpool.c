/* Up to a fixed number of threads that take jobs from one queue.
 *
 * Problem: pulling, unpacking, running tools and waiting for a disk block; event loops and HTTP threads
 * must not. Design: a list of (function, argument) pairs under one lock; a job tells its result by
 * itself, usually with th_ev_post.
 *
 * Idle workers stand in a stack, each with a semaphore of its own: the one that worked last, whose
 * caches and heap are warm, works next, and a submit wakes exactly one. Threads are made when no idle
 * one is there, so a pool for forty that is used by two costs two.
 *
 * Invariants: jobs start in the order they were submitted; th_pool_free runs everything that is
 * queued, then joins, so an argument is never leaked. Submitting from inside a job is allowed, also
 * while the pool is being freed.
 */
#include "base/threadpool.h"

#include "base/alloc.h"

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

struct job {
    struct job *next;
    void (*fn)(void *arg);
    void *arg;
};
struct worker {
    struct th_pool *pool;
    struct worker *idle_next;
    sem_t wake;
    pthread_t thread;
};

struct th_pool {
    pthread_mutex_t lock; /* guards all below */
    struct job *first, **last;
    struct worker *idle;
    size_t running; /* a job that runs may still submit */
    bool stopping;
    size_t n, made; /* threads allowed, and there */
    struct worker *workers;
    char name[12];
};

/* Under lock. */
static void wake_all(struct th_pool *p)
{
    while (p->idle) {
        struct worker *w = p->idle;
        p->idle = w->idle_next;
        (void)sem_post(&w->wake);
    }
}

static void *work(void *arg)
{
    struct worker *w = arg;
    struct th_pool *p = w->pool;
    (void)pthread_mutex_lock(&p->lock);
    for (;;) {
        while (!p->first && (!p->stopping || p->running > 0)) {
            w->idle_next = p->idle;
            p->idle = w;
            (void)pthread_mutex_unlock(&p->lock);
            while (sem_wait(&w->wake) != 0) {
                /* a signal came */
            }
            (void)pthread_mutex_lock(&p->lock);
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
            wake_all(p);
        }
    }
    (void)pthread_mutex_unlock(&p->lock);
    return NULL;
}

/* One more thread; under lock. False when the system gives none. */
static bool hire(struct th_pool *p)
{
    struct worker *w = &p->workers[p->made];
    pthread_attr_t attr;
    sigset_t all; /* signals are for the thread that owns a signalfd */
    (void)sigfillset(&all);
    (void)pthread_attr_init(&attr);
    (void)pthread_attr_setsigmask_np(&attr, &all);
    w->pool = p;
    (void)sem_init(&w->wake, 0, 0);
    bool ok = pthread_create(&w->thread, &attr, work, w) == 0;
    (void)pthread_attr_destroy(&attr);
    if (!ok) {
        (void)sem_destroy(&w->wake);
        return false;
    }
    char thread_name[16];
    (void)snprintf(thread_name, sizeof(thread_name), "%.11s-%zu", p->name, p->made % 100);
    (void)pthread_setname_np(w->thread, thread_name);
    p->made++;
    return true;
}

struct th_pool *th_pool_new(const char *name, size_t threads)
{
    TH_ASSERT(threads > 0);
    struct th_pool *p = TH_NEW(struct th_pool);
    (void)pthread_mutex_init(&p->lock, NULL);
    p->last = &p->first;
    p->n = threads;
    p->workers = th_xcalloc(threads, sizeof(*p->workers));
    (void)snprintf(p->name, sizeof(p->name), "%s", name);
    (void)pthread_mutex_lock(&p->lock);
    TH_ASSERT(hire(p)); /* one there is for sure */
    (void)pthread_mutex_unlock(&p->lock);
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
    struct worker *w = p->idle;
    if (w) {
        p->idle = w->idle_next;
    } else if (p->made < p->n) {
        (void)hire(p); /* without it the job waits for those that are there */
    }
    (void)pthread_mutex_unlock(&p->lock);
    if (w) {
        (void)sem_post(&w->wake);
    }
}

void th_pool_free(struct th_pool *p)
{
    if (!p) {
        return;
    }
    (void)pthread_mutex_lock(&p->lock);
    p->stopping = true;
    wake_all(p);
    (void)pthread_mutex_unlock(&p->lock);
    for (size_t i = 0;; i++) {
        (void)pthread_mutex_lock(&p->lock);
        bool there = i < p->made; /* a last job may have brought one more */
        (void)pthread_mutex_unlock(&p->lock);
        if (!there) {
            break;
        }
        (void)pthread_join(p->workers[i].thread, NULL);
        (void)sem_destroy(&p->workers[i].wake);
    }
    (void)pthread_mutex_destroy(&p->lock);
    free(p->workers);
    free(p);
}
