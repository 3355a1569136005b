#ifndef TH_CRON_SCHEDULE_H
#define TH_CRON_SCHEDULE_H
/* When a schedule (schema/cron.h) is due. */
#include "controlplane/schema/cron.h"
#include "controlplane/schema/timezone.h"

/* The first moment after `after_s` (seconds since 1970) at which clocks of the zone (NULL: UTC) show
 * what the schedule says, or -1 when there is none in five years. */
int64_t th_cron_next(const struct th_cron *c, const struct th_timezone *zone, int64_t after_s);
#endif
