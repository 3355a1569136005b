#ifndef TH_SCHEDULER_H
#define TH_SCHEDULER_H
/* The scheduler: started after the API answers, stopped before it ends. */
#include "controlplane/client/client.h"

struct th_scheduler;
struct th_scheduler_opts {
    const char *name; /* NULL: "default-scheduler" */
};
/* Gives at once. The client is borrowed and must outlive the scheduler. */
int th_scheduler_start(struct th_client *client, const struct th_scheduler_opts *o,
                       struct th_scheduler **ret, struct th_err *err) TH_MUST_USE;
void th_scheduler_stop(struct th_scheduler *s); /* joins and frees; NULL-safe */
#endif
