#ifndef TH_BASE_EVLOOP_H
#define TH_BASE_EVLOOP_H
/* An epoll loop for one thread: descriptors, timers, child exits, and posts from other threads.
 * Only th_ev_post and th_ev_stop may be called from other threads. Callbacks may remove any source,
 * their own included. */
#include "base/err.h"
#include <stdint.h>
#include <sys/types.h>

struct th_ev;
struct th_ev_src;
struct th_ev *th_ev_new(void);
void th_ev_free(struct th_ev *ev); /* removes all sources; posted jobs not yet run are run */
int th_ev_run(struct th_ev *ev);   /* until th_ev_stop; returns its code */
void th_ev_run_once(struct th_ev *ev, int64_t timeout_ms);
void th_ev_stop(struct th_ev *ev, int code);

typedef void th_ev_fd_fn(struct th_ev_src *src, int fd, uint32_t events, void *arg);
typedef void th_ev_timer_fn(struct th_ev_src *src, void *arg);
typedef void th_ev_child_fn(struct th_ev_src *src, pid_t pid, int status, void *arg);
typedef void th_ev_signal_fn(struct th_ev_src *src, int signo, void *arg);
typedef void th_ev_job_fn(void *arg);

/* events: EPOLLIN | EPOLLOUT ...; level-triggered unless EPOLLET is given. The fd stays the
 * caller's. */
struct th_ev_src *th_ev_add_fd(struct th_ev *ev, int fd, uint32_t events, th_ev_fd_fn *fn,
                               void *arg);
void th_ev_set_events(struct th_ev_src *src, uint32_t events);
/* Fires once after delay_ms, then every period_ms if that is > 0. One-shot sources free themselves
 * after their callback. */
struct th_ev_src *th_ev_add_timer(struct th_ev *ev, int64_t delay_ms, int64_t period_ms,
                                  th_ev_timer_fn *fn, void *arg);
void th_ev_timer_reset(struct th_ev_src *src, int64_t delay_ms);
/* Fires once when our child pid ends (pidfd; reaps it), then frees itself. */
struct th_ev_src *th_ev_add_child(struct th_ev *ev, pid_t pid, th_ev_child_fn *fn, void *arg);
/* signalfd; the signal must be blocked in all threads. */
struct th_ev_src *th_ev_add_signal(struct th_ev *ev, int signo, th_ev_signal_fn *fn, void *arg);
void th_ev_remove(struct th_ev_src *src); /* NULL-safe */
/* Runs fn(arg) in the loop's thread, in order. Thread-safe. */
void th_ev_post(struct th_ev *ev, th_ev_job_fn *fn, void *arg);
#endif
