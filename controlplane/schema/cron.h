#ifndef TH_SCHEMA_CRON_H
#define TH_SCHEMA_CRON_H
/* Schedules of CronJobs: five fields of cron, the @descriptors and @every. */
#include "base/err.h"

#include <stdint.h>

struct th_cron {
    uint64_t minutes, hours, days, months, weekdays; /* bit i: value i; weekdays: 0 is Sunday */
    bool any_day, any_weekday;                       /* the field was "*" or "?" */
    int64_t every_s;                                 /* @every: seconds, and nothing else; or 0 */
};
/* TH_R_INVALID with the words that Kubernetes' parser has. A TZ= or CRON_TZ= prefix is skipped. */
int th_cron_parse(const char *text, struct th_cron *ret, struct th_err *err) TH_MUST_USE;
#endif
