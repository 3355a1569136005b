/* When a cron schedule is due; see cron_schedule.h. When both days are restricted, either one is
 * enough, as in the library that upstream uses (robfig/cron v3). As there, a time that the clocks
 * leave out is left out, and one that they show twice is due twice. */
#include "controlplane/controllers/cron_schedule.h"
#include "base/buf.h"
#include <time.h>

#define YEARS_MAX 5
#define HOUR_S 3600

static bool has(uint64_t bits, int n)
{
    return bits >> n & 1;
}

static bool day_fits(const struct th_cron *c, const struct tm *t)
{
    bool day = has(c->days, t->tm_mday), weekday = has(c->weekdays, t->tm_wday);
    return c->any_day || c->any_weekday ? day && weekday : day || weekday;
}

static struct tm local_time(const struct th_timezone *z, int64_t utc_s)
{
    time_t local = (time_t)(utc_s + th_timezone_offset(z, utc_s));
    struct tm t;
    (void)gmtime_r(&local, &t);
    return t;
}

/* The moment of a local time; where the clocks leave it out, a moment beside it. */
static int64_t moment(const struct th_timezone *z, struct tm *t)
{
    int64_t local = timegm(t);
    int64_t utc = local - th_timezone_offset(z, local);
    return local - th_timezone_offset(z, utc);
}

int64_t th_cron_next(const struct th_cron *c, const struct th_timezone *zone, int64_t after_s)
{
    if (c->every_s > 0) {
        return after_s + c->every_s;
    }
    int64_t at = after_s - after_s % 60 + 60;
    struct tm t = local_time(zone, at);
    int last_year = t.tm_year + YEARS_MAX;
    while (t.tm_year <= last_year) {
        int64_t next;
        if (!has(c->months, t.tm_mon + 1)) {
            struct tm first = {.tm_year = t.tm_year, .tm_mon = t.tm_mon + 1, .tm_mday = 1};
            next = moment(zone, &first);
        } else if (!day_fits(c, &t)) {
            struct tm day = {
                .tm_year = t.tm_year, .tm_mon = t.tm_mon, .tm_mday = t.tm_mday + 1};
            next = moment(zone, &day);
        } else if (!has(c->hours, t.tm_hour)) {
            next = at + HOUR_S - t.tm_min * 60;
        } else if (!has(c->minutes, t.tm_min)) {
            next = at + 60;
        } else {
            return at;
        }
        at = next > at ? next : at + 60;
        t = local_time(zone, at);
    }
    return -1;
}
