#ifndef TH_BASE_WORKQUEUE_H
#define TH_BASE_WORKQUEUE_H
/* The keyed queue under every controller: a key waits at most once, is worked on by one worker at
 * a time, can be added with a delay, and backs off per key after failures. As client-go's
 * workqueue. Thread-safe. */
#include "base/buf.h"
#include <stdint.h>
struct th_wq;
struct th_wq *th_wq_new(int64_t backoff_base_ms, int64_t backoff_max_ms);
void th_wq_free(struct th_wq *q);
void th_wq_add(struct th_wq *q, const char *key);
void th_wq_add_after(struct th_wq *q, const char *key, int64_t delay_ms); /* the earliest wins */
void th_wq_add_backoff(struct th_wq *q, const char *key);                 /* base * 2^failures */
void th_wq_forget(struct th_wq *q, const char *key);                      /* failures = 0 */
int th_wq_failures(struct th_wq *q, const char *key);
/* Blocks for the next key (caller frees; must th_wq_done it). NULL after th_wq_shutdown. */
char *th_wq_get(struct th_wq *q);
/* The same, but gives NULL after timeout_ms too; 0 polls. */
char *th_wq_get_timeout(struct th_wq *q, int64_t timeout_ms);
void th_wq_done(struct th_wq *q, const char *key);
void th_wq_shutdown(struct th_wq *q);
size_t th_wq_len(struct th_wq *q);
#endif
