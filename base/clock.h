#ifndef TH_BASE_CLOCK_H
#define TH_BASE_CLOCK_H
/* Time. All code asks here, so that tests can put a simulated clock in place. */
#include "base/err.h"
#include <pthread.h>
#include <stdint.h>

int64_t th_now_ms(void); /* wall clock, milliseconds since 1970 */
int64_t th_now_us(void);
int64_t th_mono_ms(void); /* monotonic; for timeouts and durations */
int64_t th_mono_us(void);
int64_t th_mono_real_ms(void); /* never simulated: for waiting on other processes */
void th_sleep_ms(int64_t ms);  /* on a simulated clock: until the clock is moved that far */

/* Tests: from now on time stands at wall_ms and moves only through th_clock_advance_ms. */
void th_clock_simulate(int64_t wall_ms);
void th_clock_advance_ms(int64_t ms);
void th_clock_real(void);
bool th_clock_is_simulated(void);

/* For code that waits until some moment by its own means: fn runs (in the thread that moves the
 * clock) whenever simulated time changes or the kind of clock does, and should wake the waiter.
 * Neither call may be made while holding a lock that fn takes. */
struct th_clock_watch {
    void (*fn)(void *arg);
    void *arg;
    struct th_clock_watch *prev, *next;
};
void th_clock_watch_add(struct th_clock_watch *w);
void th_clock_watch_del(struct th_clock_watch *w);
/* pthread_cond_wait until th_mono_ms() may have reached the deadline (INT64_MAX: none). May wake
 * early; on a simulated clock the caller's watch must broadcast cond. cond is made without
 * attributes: its clock does not matter here. */
void th_clock_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, int64_t deadline_mono_ms);

#define TH_TIME_LEN 40
/* RFC 3339 as Kubernetes prints it: metav1.Time has seconds ("2026-01-02T03:04:05Z"),
 * metav1.MicroTime six digits. buf has at least TH_TIME_LEN bytes; returns buf. */
char *th_time_format(int64_t ms, char *buf);
char *th_time_format_milli(int64_t ms, char *buf); /* log lines */
char *th_time_format_micro(int64_t us, char *buf);
char *th_time_format_nano(int64_t sec, int32_t nsec, char *buf);       /* CRI logs: nine digits */
int th_time_parse(const char *s, int64_t *ret_us, struct th_err *err); /* any RFC 3339 */
/* Go's duration syntax: "300ms", "1h15m30.918s". */
int th_duration_parse(const char *s, int64_t *ret_us, struct th_err *err);
char *th_duration_format(int64_t us, char *buf); /* as Go's Duration.String */
/* "5s", "3m20s", "4h", "2d5h", as k8s.io/apimachinery duration.HumanDuration. */
char *th_duration_human(int64_t ms, char *buf);
#endif
