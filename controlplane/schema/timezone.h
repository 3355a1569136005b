#ifndef TH_SCHEMA_TIMEZONE_H
#define TH_SCHEMA_TIMEZONE_H
/* Time zones by their IANA names, compiled in. Pure. */
#include <stdbool.h>
#include <stdint.h>

/* A day of the year and a time of it, when clocks change. */
struct th_tz_change {
    char kind; /* 'M': month, week (5: the last), weekday; 'J': day 1..365 without 29 February;
                  '0': day 0..365 */
    int month, week, day;
    int64_t time_s; /* of the local time before the change; may be negative or past midnight */
};
struct th_timezone {
    int64_t std_s, dst_s; /* east of UTC */
    bool has_dst;
    struct th_tz_change start, end;
};
/* False: there is no zone of this name (case counts). "UTC" and "" are UTC. */
bool th_timezone_find(const char *name, struct th_timezone *ret);
/* Reads a rule as POSIX writes TZ ("CET-1CEST,M3.5.0,M10.5.0/3"). */
bool th_timezone_parse(const char *rule, struct th_timezone *ret);
/* Seconds east of UTC at that moment (seconds since 1970). z NULL: UTC. */
int64_t th_timezone_offset(const struct th_timezone *z, int64_t utc_s);
#endif
