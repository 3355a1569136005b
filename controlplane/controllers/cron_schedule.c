/* When a cron schedule is due; see cron_schedule.h. When both days are restricted, either one is
 * enough, as in the library that upstream uses (robfig/cron v3). */
#include "controlplane/controllers/cron_schedule.h"
#include "base/buf.h"
#include <time.h>

#define YEARS_MAX 5

static bool has(uint64_t bits, int n)
{
    return bits >> n & 1;
}

static bool day_fits(const struct th_cron *c, const struct tm *t)
{
    bool day = has(c->days, t->tm_mday), weekday = has(c->weekdays, t->tm_wday);
    return c->any_day || c->any_weekday ? day && weekday : day || weekday;
}

int64_t th_cron_next(const struct th_cron *c, int64_t after_s)
{
    if (c->every_s > 0) {
        return after_s + c->every_s;
    }
    time_t now = (time_t)(after_s - after_s % 60 + 60);
    struct tm t;
    (void)gmtime_r(&now, &t);
    int last_year = t.tm_year + YEARS_MAX;
    while (t.tm_year <= last_year) {
        if (!has(c->months, t.tm_mon + 1)) {
            t = (struct tm){.tm_year = t.tm_year, .tm_mon = t.tm_mon + 1, .tm_mday = 1};
        } else if (!day_fits(c, &t)) {
            t = (struct tm){.tm_year = t.tm_year, .tm_mon = t.tm_mon, .tm_mday = t.tm_mday + 1};
        } else if (!has(c->hours, t.tm_hour)) {
            t.tm_hour++;
            t.tm_min = 0;
        } else if (!has(c->minutes, t.tm_min)) {
            t.tm_min++;
        } else {
            return timegm(&t);
        }
        (void)timegm(&t); /* brings the members into their ranges, the weekday too */
    }
    return -1;
}
