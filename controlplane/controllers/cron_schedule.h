#ifndef TH_CRON_SCHEDULE_H
#define TH_CRON_SCHEDULE_H
/* Cron schedules: five fields (minute, hour, day of month, month, day of week; lists, ranges, steps,
 * names), the descriptors @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually, and
 * "@every DURATION". Times are UTC. */
#include "base/err.h"
#include <stdint.h>

struct th_cron {
    uint64_t minutes, hours, days, months, weekdays; /* bit n: n is in */
    bool any_day, any_weekday;                       /* the field began with a star */
    int64_t every_s;                                 /* > 0: @every */
};
int th_cron_parse(const char *text, struct th_cron *ret, struct th_err *err) TH_MUST_USE;
/* The first moment after `after_s` (seconds since 1970), or -1 when there is none in five years. */
int64_t th_cron_next(const struct th_cron *c, int64_t after_s);
#endif
