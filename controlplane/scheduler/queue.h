#ifndef TH_SCHEDULER_QUEUE_H
#define TH_SCHEDULER_QUEUE_H
/* Pods that wait for a node: by priority, then by age. One that did not fit waits until something
 * changes in the cluster, and at least its back-off (1 s doubling to 10 s, as upstream).
 * Thread-safe. */
#include "base/json/json.h"
struct th_schedq;
struct th_schedq *th_schedq_new(void);
void th_schedq_free(struct th_schedq *q);
void th_schedq_add(struct th_schedq *q, const char *key, int64_t priority);
void th_schedq_remove(struct th_schedq *q, const char *key);
/* Blocks for the next pod that may be tried; NULL after shutdown. The caller frees. The pod stays
 * known to the queue until remove or unschedulable. */
char *th_schedq_pop(struct th_schedq *q);
/* The popped pod did not fit, or failed: try again after its back-off and, with wait_for_change,
 * not before th_schedq_wake. */
void th_schedq_unschedulable(struct th_schedq *q, const char *key, bool wait_for_change);
/* The popped pod waits for th_schedq_wake and nothing else. */
void th_schedq_wait(struct th_schedq *q, const char *key);
/* Something changed that may help. */
void th_schedq_wake(struct th_schedq *q);
void th_schedq_shutdown(struct th_schedq *q);
#endif
