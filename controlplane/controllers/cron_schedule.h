#ifndef TH_CRON_SCHEDULE_H
#define TH_CRON_SCHEDULE_H
/* When a schedule (schema/cron.h) is due. Times are UTC. */
#include "controlplane/schema/cron.h"

/* The first moment after `after_s` (seconds since 1970), or -1 when there is none in five years. */
int64_t th_cron_next(const struct th_cron *c, int64_t after_s);
#endif
