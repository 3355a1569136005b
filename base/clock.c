/* Time: one place to ask, so that time can be a test's (or a teacher's) to move.
 *
 * Problem: leases, back-off, probes, certificates and garbage collection all follow the clock.
 * Tests must run years of it in milliseconds, and a simulated cluster lets its user turn it.
 * Design: an atomic flag selects between the kernel's clocks and two counters that only
 * th_clock_advance_ms moves. Code that waits on a condition variable or in epoll until some moment
 * cannot be woken by a counter, so it registers a watch; each change of the simulated time calls
 * every watch, which makes its owner look at the time again.
 *
 * Invariants: the watch list has a lock of its own, held while watches run. A watch may take
 * its owner's lock, therefore watches are never added or removed under that lock. Reading the
 * time takes no lock at all. The simulated monotonic clock continues from the real one, so
 * deadlines taken before the switch stay in the future.
 */
#include "base/clock.h"

#include "base/alloc.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

static struct {
    _Atomic bool simulated;
    _Atomic int64_t wall_us; /* meaningful while simulated */
    _Atomic int64_t mono_us;
    pthread_mutex_t lock; /* guards the condition of sleepers */
    pthread_cond_t moved;
    pthread_mutex_t watch_lock; /* guards watches; taken before any owner's lock */
    struct th_clock_watch *watches;
} clk = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .moved = PTHREAD_COND_INITIALIZER,
    .watch_lock = PTHREAD_MUTEX_INITIALIZER,
};

static int64_t read_us(clockid_t id)
{
    struct timespec ts;
    (void)clock_gettime(id, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t th_now_us(void)
{
    return clk.simulated ? clk.wall_us : read_us(CLOCK_REALTIME);
}

int64_t th_now_ms(void)
{
    return th_now_us() / 1000;
}

int64_t th_mono_us(void)
{
    return clk.simulated ? clk.mono_us : read_us(CLOCK_MONOTONIC);
}

int64_t th_mono_ms(void)
{
    return th_mono_us() / 1000;
}

int64_t th_mono_real_ms(void)
{
    return read_us(CLOCK_MONOTONIC) / 1000;
}

bool th_clock_is_simulated(void)
{
    return clk.simulated;
}

static void announce(void)
{
    (void)pthread_mutex_lock(&clk.lock);
    (void)pthread_cond_broadcast(&clk.moved);
    (void)pthread_mutex_unlock(&clk.lock);
    (void)pthread_mutex_lock(&clk.watch_lock);
    for (struct th_clock_watch *w = clk.watches; w; w = w->next) {
        w->fn(w->arg);
    }
    (void)pthread_mutex_unlock(&clk.watch_lock);
}

void th_clock_simulate(int64_t wall_ms)
{
    if (!clk.simulated) {
        clk.mono_us = read_us(CLOCK_MONOTONIC);
    }
    clk.wall_us = wall_ms * 1000;
    clk.simulated = true;
    announce();
}

void th_clock_advance_ms(int64_t ms)
{
    TH_ASSERT(clk.simulated && ms >= 0);
    clk.wall_us += ms * 1000;
    clk.mono_us += ms * 1000;
    announce();
}

void th_clock_real(void)
{
    clk.simulated = false;
    announce();
}

void th_clock_watch_add(struct th_clock_watch *w)
{
    (void)pthread_mutex_lock(&clk.watch_lock);
    w->prev = NULL;
    w->next = clk.watches;
    if (w->next) {
        w->next->prev = w;
    }
    clk.watches = w;
    (void)pthread_mutex_unlock(&clk.watch_lock);
}

void th_clock_watch_del(struct th_clock_watch *w)
{
    (void)pthread_mutex_lock(&clk.watch_lock);
    if (w->prev) {
        w->prev->next = w->next;
    } else {
        clk.watches = w->next;
    }
    if (w->next) {
        w->next->prev = w->prev;
    }
    (void)pthread_mutex_unlock(&clk.watch_lock);
}

void th_clock_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, int64_t deadline_mono_ms)
{
    if (deadline_mono_ms == INT64_MAX || clk.simulated) {
        (void)pthread_cond_wait(cond, mutex);
        return;
    }
    struct timespec ts = {
        .tv_sec = deadline_mono_ms / 1000,
        .tv_nsec = deadline_mono_ms % 1000 * 1000000,
    };
    (void)pthread_cond_clockwait(cond, mutex, CLOCK_MONOTONIC, &ts);
}

void th_sleep_ms(int64_t ms)
{
    int64_t until = th_mono_ms() + ms;
    if (clk.simulated) {
        (void)pthread_mutex_lock(&clk.lock);
        while (clk.simulated && th_mono_ms() < until) {
            (void)pthread_cond_wait(&clk.moved, &clk.lock);
        }
        (void)pthread_mutex_unlock(&clk.lock);
        return;
    }
    struct timespec ts = {.tv_sec = until / 1000, .tv_nsec = until % 1000 * 1000000};
    while (ms > 0 && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) != 0) {
        /* interrupted by a signal: the deadline is absolute, so just go on */
    }
}
