/* An event loop for one thread, over epoll.
 *
 * Problem: the node agent, the guest's PID 1 and the launcher wait for descriptors, moments, child
 * exits, signals and results from worker threads at the same time. Design: everything but moments
 * is a descriptor in one epoll set (pidfd for children, signalfd per signal, eventfd for
 * posts); moments are in a heap that bounds epoll's timeout. With a simulated clock the timeout is
 * infinite and a watch on the clock rings the eventfd.
 *
 * Invariants: callbacks may remove any source. A source that is removed is only marked dead and put
 * in the graveyard, which is emptied after the batch of events that may still name it. A child
 * source holds the only wait for its pid, so pids are reaped exactly once. Timers that are due fire
 * in the order of their moments; a periodic timer that was late does not catch up with a burst.
 *
 * Threads: th_ev_post and th_ev_stop take the post lock and ring the eventfd; all else belongs to
 * the loop's thread (or to its creator before th_ev_run).
 */
#include "base/evloop.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/heap.h"
#include "base/proc.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

#define BATCH 64

enum kind { FD, TIMER, CHILD, SIGNAL };

struct th_ev_src {
    struct th_heap_node due; /* first: the heap gives back pointers to it; used by timers */
    struct th_ev *ev;
    struct th_ev_src *prev, *next; /* all sources of the loop; next also links the graveyard */
    enum kind kind;
    bool dead;
    bool always;     /* a file or the like, which epoll refuses since it is always ready */
    uint32_t events; /* wanted; kept for such sources only */
    int fd;          /* the caller's for FD, ours for CHILD and SIGNAL, -1 for TIMER */
    union {
        th_ev_fd_fn *fd;
        th_ev_timer_fn *timer;
        th_ev_child_fn *child;
        th_ev_signal_fn *signal;
    } fn;
    void *arg;
    int64_t period_ms;
    pid_t pid;
    int signo;
};

struct post {
    struct post *next;
    th_ev_job_fn *fn;
    void *arg;
};

struct th_ev {
    int epoll_fd, wake_fd;
    unsigned depth; /* of nested th_ev_run_once */
    size_t n_always;
    struct th_ev_src *sources, *graveyard;
    struct th_heap timers;
    struct th_clock_watch watch;
    pthread_mutex_t lock; /* guards the four below */
    struct post *first, **last;
    bool stopped;
    int code;
};

static void ring(void *arg)
{
    struct th_ev *ev = arg;
    uint64_t one = 1;
    ssize_t w = write(ev->wake_fd, &one, sizeof(one));
    (void)w; /* EAGAIN means it is ringing already */
}

struct th_ev *th_ev_new(void)
{
    struct th_ev *ev = TH_NEW(struct th_ev);
    ev->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    ev->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    TH_ASSERT(ev->epoll_fd >= 0 && ev->wake_fd >= 0);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL};
    TH_ASSERT(epoll_ctl(ev->epoll_fd, EPOLL_CTL_ADD, ev->wake_fd, &e) == 0);
    (void)pthread_mutex_init(&ev->lock, NULL);
    ev->last = &ev->first;
    ev->watch = (struct th_clock_watch){.fn = ring, .arg = ev};
    th_clock_watch_add(&ev->watch);
    return ev;
}

static void bury(struct th_ev *ev)
{
    while (ev->graveyard) {
        struct th_ev_src *s = ev->graveyard;
        ev->graveyard = s->next;
        free(s);
    }
}

/* Runs what was posted so far; what those jobs post waits for the next turn. */
static bool run_posts(struct th_ev *ev)
{
    (void)pthread_mutex_lock(&ev->lock);
    struct post *p = ev->first;
    ev->first = NULL;
    ev->last = &ev->first;
    (void)pthread_mutex_unlock(&ev->lock);
    bool any = p != NULL;
    while (p) {
        struct post *next = p->next;
        p->fn(p->arg);
        free(p);
        p = next;
    }
    return any;
}

void th_ev_free(struct th_ev *ev)
{
    if (!ev) {
        return;
    }
    while (run_posts(ev)) {
        /* a job may have posted another one */
    }
    while (ev->sources) {
        th_ev_remove(ev->sources);
    }
    bury(ev);
    th_clock_watch_del(&ev->watch);
    th_heap_done(&ev->timers);
    (void)close(ev->wake_fd);
    (void)close(ev->epoll_fd);
    (void)pthread_mutex_destroy(&ev->lock);
    free(ev);
}

static struct th_ev_src *add(struct th_ev *ev, enum kind kind, int fd, uint32_t events, void *arg)
{
    struct th_ev_src *s = TH_NEW(struct th_ev_src);
    s->ev = ev;
    s->kind = kind;
    s->fd = fd;
    s->arg = arg;
    if (fd >= 0) {
        struct epoll_event e = {.events = events, .data.ptr = s};
        s->always = epoll_ctl(ev->epoll_fd, EPOLL_CTL_ADD, fd, &e) != 0;
        TH_ASSERT(!s->always || errno == EPERM);
        s->events = events;
        ev->n_always += s->always;
    }
    s->next = ev->sources;
    if (s->next) {
        s->next->prev = s;
    }
    ev->sources = s;
    return s;
}

struct th_ev_src *th_ev_add_fd(struct th_ev *ev, int fd, uint32_t events, th_ev_fd_fn *fn,
                               void *arg)
{
    TH_ASSERT(fd >= 0);
    struct th_ev_src *s = add(ev, FD, fd, events, arg);
    s->fn.fd = fn;
    return s;
}

void th_ev_set_events(struct th_ev_src *src, uint32_t events)
{
    TH_ASSERT(src->kind == FD && !src->dead);
    struct epoll_event e = {.events = events, .data.ptr = src};
    src->events = events;
    TH_ASSERT(src->always || epoll_ctl(src->ev->epoll_fd, EPOLL_CTL_MOD, src->fd, &e) == 0);
}

static int64_t after(int64_t delay_ms)
{
    return th_mono_ms() + (delay_ms > 0 ? delay_ms : 0);
}

struct th_ev_src *th_ev_add_timer(struct th_ev *ev, int64_t delay_ms, int64_t period_ms,
                                  th_ev_timer_fn *fn, void *arg)
{
    struct th_ev_src *s = add(ev, TIMER, -1, 0, arg);
    s->fn.timer = fn;
    s->period_ms = period_ms;
    th_heap_put(&ev->timers, &s->due, after(delay_ms));
    return s;
}

void th_ev_timer_reset(struct th_ev_src *src, int64_t delay_ms)
{
    TH_ASSERT(src->kind == TIMER && !src->dead);
    th_heap_put(&src->ev->timers, &src->due, after(delay_ms));
}

struct th_ev_src *th_ev_add_child(struct th_ev *ev, pid_t pid, th_ev_child_fn *fn, void *arg)
{
    int fd = th_proc_pidfd(pid);
    TH_ASSERT(fd >= 0); /* an unreaped child of ours always has one */
    struct th_ev_src *s = add(ev, CHILD, fd, EPOLLIN, arg);
    s->fn.child = fn;
    s->pid = pid;
    return s;
}

struct th_ev_src *th_ev_add_signal(struct th_ev *ev, int signo, th_ev_signal_fn *fn, void *arg)
{
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, signo);
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    TH_ASSERT(fd >= 0);
    struct th_ev_src *s = add(ev, SIGNAL, fd, EPOLLIN, arg);
    s->fn.signal = fn;
    s->signo = signo;
    return s;
}

void th_ev_remove(struct th_ev_src *src)
{
    if (!src || src->dead) {
        return;
    }
    struct th_ev *ev = src->ev;
    src->dead = true;
    ev->n_always -= src->always;
    if (src->fd >= 0) {
        /* fails only if the caller closed its descriptor first, which took it out already */
        (void)epoll_ctl(ev->epoll_fd, EPOLL_CTL_DEL, src->fd, NULL);
        if (src->kind != FD) {
            (void)close(src->fd);
        }
    }
    th_heap_remove(&ev->timers, &src->due);
    if (src->prev) {
        src->prev->next = src->next;
    } else {
        ev->sources = src->next;
    }
    if (src->next) {
        src->next->prev = src->prev;
    }
    src->next = ev->graveyard;
    ev->graveyard = src;
}

void th_ev_post(struct th_ev *ev, th_ev_job_fn *fn, void *arg)
{
    struct post *p = TH_NEW(struct post);
    p->fn = fn;
    p->arg = arg;
    (void)pthread_mutex_lock(&ev->lock);
    *ev->last = p;
    ev->last = &p->next;
    ring(ev); /* under the lock, so that the loop cannot be gone before the ring */
    (void)pthread_mutex_unlock(&ev->lock);
}

void th_ev_stop(struct th_ev *ev, int code)
{
    (void)pthread_mutex_lock(&ev->lock);
    if (!ev->stopped) {
        ev->stopped = true;
        ev->code = code;
    }
    ring(ev);
    (void)pthread_mutex_unlock(&ev->lock);
}

static void dispatch(struct th_ev_src *s, uint32_t events)
{
    struct signalfd_siginfo info;
    int status;
    switch (s->kind) {
    case FD:
        s->fn.fd(s, s->fd, events, s->arg);
        break;
    case CHILD:
        if (waitpid(s->pid, &status, WNOHANG) == s->pid) {
            s->fn.child(s, s->pid, status, s->arg);
            th_ev_remove(s);
        }
        break;
    case SIGNAL:
        while (!s->dead && read(s->fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
            s->fn.signal(s, s->signo, s->arg);
        }
        break;
    case TIMER:
        break;
    }
}

static void run_timers(struct th_ev *ev)
{
    int64_t now = ev->timers.n ? th_mono_ms() : 0;
    struct th_heap_node *node;
    /* Timers set by these callbacks are later than now, or at it with a later sequence; the first
     * sequence number that was not given yet keeps a zero delay from starving the descriptors. */
    uint64_t end = ev->timers.seq;
    while ((node = th_heap_first(&ev->timers)) && node->at <= now && node->seq < end) {
        struct th_ev_src *s = (struct th_ev_src *)node;
        th_heap_remove(&ev->timers, node);
        if (s->period_ms > 0) {
            int64_t next = node->at + s->period_ms;
            th_heap_put(&ev->timers, node, next > now ? next : now + s->period_ms);
        }
        s->fn.timer(s, s->arg);
        if (!s->dead && s->period_ms <= 0 && !th_heap_has(&s->due)) {
            th_ev_remove(s); /* unless the callback reset it */
        }
    }
}

static int wait_ms(const struct th_ev *ev, int64_t timeout_ms)
{
    struct th_heap_node *node = th_heap_first(&ev->timers);
    if (node) {
        int64_t left = node->at - th_mono_ms();
        if (left <= 0) {
            return 0;
        }
        if (!th_clock_is_simulated() && (timeout_ms < 0 || left < timeout_ms)) {
            timeout_ms = left;
        }
    }
    return timeout_ms < 0 ? -1 : timeout_ms > INT_MAX ? INT_MAX : (int)timeout_ms;
}

/* One call for each source that needs no waiting. New sources go to the front of the list, dead
 * ones keep their place in memory until the turn is over, so a copy of the pointers is enough. */
static void run_always(struct th_ev *ev)
{
    struct th_ev_src *batch[BATCH];
    size_t n = 0;
    for (struct th_ev_src *s = ev->sources; s && n < BATCH; s = s->next) {
        if (s->always && (s->events & (EPOLLIN | EPOLLOUT))) {
            batch[n++] = s;
        }
    }
    for (size_t i = 0; i < n; i++) {
        if (!batch[i]->dead) {
            dispatch(batch[i], batch[i]->events & (EPOLLIN | EPOLLOUT));
        }
    }
}

static bool any_always(const struct th_ev *ev)
{
    for (struct th_ev_src *s = ev->n_always ? ev->sources : NULL; s; s = s->next) {
        if (s->always && (s->events & (EPOLLIN | EPOLLOUT))) {
            return true;
        }
    }
    return false;
}

void th_ev_run_once(struct th_ev *ev, int64_t timeout_ms)
{
    struct epoll_event events[BATCH];
    bool always = any_always(ev);
    int n = epoll_wait(ev->epoll_fd, events, BATCH, always ? 0 : wait_ms(ev, timeout_ms));
    ev->depth++;
    TH_ASSERT(n >= 0 || errno == EINTR);
    for (int i = 0; i < n; i++) {
        struct th_ev_src *s = events[i].data.ptr;
        if (!s) {
            uint64_t rings;
            ssize_t r = read(ev->wake_fd, &rings, sizeof(rings));
            (void)r;
            (void)run_posts(ev);
        } else if (!s->dead) {
            dispatch(s, events[i].events);
        }
    }
    if (always) {
        run_always(ev);
    }
    run_timers(ev);
    if (--ev->depth == 0) { /* an outer turn's batch may still name what died in an inner one */
        bury(ev);
    }
}

static bool stopped(struct th_ev *ev)
{
    (void)pthread_mutex_lock(&ev->lock);
    bool r = ev->stopped;
    (void)pthread_mutex_unlock(&ev->lock);
    return r;
}

int th_ev_run(struct th_ev *ev)
{
    while (!stopped(ev)) {
        th_ev_run_once(ev, -1);
    }
    (void)pthread_mutex_lock(&ev->lock);
    ev->stopped = false; /* so that the loop can be run again */
    int code = ev->code;
    (void)pthread_mutex_unlock(&ev->lock);
    return code;
}
