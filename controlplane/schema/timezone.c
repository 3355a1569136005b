/*
 * Time zones: the rule that holds now, not the history.
 *
 * Schedules look ahead, so one line per zone is enough: 600 lines, 25 KB, compiled in, so that a small
 * guest without zoneinfo files and every host give the same answer. What this cannot say: changes that
 * are listed year by year (Morocco's summer time pauses in Ramadan) and those of the past. Upstream
 * takes the zoneinfo files of the machine, or those in its program.
 */
#include "controlplane/schema/timezone.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const struct zone {
    const char *name, *rule;
} zones[] = {
#define TH_TIMEZONE(name, rule) {name, rule},
#include "controlplane/schema/timezones.def"
#undef TH_TIMEZONE
};

#define N_ZONES (sizeof(zones) / sizeof(zones[0]))
#define HOUR_S 3600
#define DAY_S 86400

/* ---- Reading rules ---- */

static bool skip_name(const char **p)
{
    const char *s = *p;
    if (*s == '<') {
        const char *end = strchr(s, '>');
        *p = end ? end + 1 : s;
        return end != NULL;
    }
    while (isalpha((unsigned char)*s)) {
        s++;
    }
    bool any = s > *p;
    *p = s;
    return any;
}

/* [+-]hh[:mm[:ss]] */
static bool read_time(const char **p, int64_t *ret)
{
    int64_t sign = **p == '-' ? -1 : 1, total = 0, unit = HOUR_S;
    *p += **p == '-' || **p == '+';
    if (!isdigit((unsigned char)**p)) {
        return false;
    }
    for (; unit > 0; unit /= 60) {
        char *end = NULL;
        total += strtol(*p, &end, 10) * unit;
        *p = end;
        if (**p != ':') {
            break;
        }
        (*p)++;
    }
    *ret = sign * total;
    return true;
}

static bool read_number(const char **p, int least, int most, int *ret)
{
    char *end = NULL;
    long v = strtol(*p, &end, 10);
    bool fits = end != *p && v >= least && v <= most;
    *ret = (int)v;
    *p = end;
    return fits;
}

static bool read_change(const char **p, struct th_tz_change *c)
{
    *c = (struct th_tz_change){.kind = '0', .time_s = 2 * HOUR_S};
    if (*(*p)++ != ',') {
        return false;
    }
    bool fits;
    if (**p == 'M') {
        c->kind = 'M';
        (*p)++;
        fits = read_number(p, 1, 12, &c->month) && *(*p)++ == '.' &&
               read_number(p, 1, 5, &c->week) && *(*p)++ == '.' && read_number(p, 0, 6, &c->day);
    } else {
        c->kind = **p == 'J' ? 'J' : '0';
        *p += **p == 'J';
        fits = read_number(p, c->kind == 'J', 365, &c->day);
    }
    if (fits && **p == '/') {
        (*p)++;
        fits = read_time(p, &c->time_s);
    }
    return fits;
}

bool th_timezone_parse(const char *rule, struct th_timezone *ret)
{
    struct th_timezone z = {0};
    const char *p = rule;
    int64_t west = 0;
    if (!skip_name(&p) || !read_time(&p, &west)) {
        return false;
    }
    z.std_s = -west;
    z.dst_s = z.std_s + HOUR_S;
    if (*p) {
        z.has_dst = true;
        if (!skip_name(&p)) {
            return false;
        }
        if (*p != ',') {
            if (!read_time(&p, &west)) {
                return false;
            }
            z.dst_s = -west;
        }
        if (!read_change(&p, &z.start) || !read_change(&p, &z.end) || *p) {
            return false;
        }
    }
    *ret = z;
    return true;
}

static int by_name(const void *key, const void *zone)
{
    return strcmp(key, ((const struct zone *)zone)->name);
}

bool th_timezone_find(const char *name, struct th_timezone *ret)
{
    if (!*name) {
        *ret = (struct th_timezone){0};
        return true;
    }
    const struct zone *z = bsearch(name, zones, N_ZONES, sizeof(zones[0]), by_name);
    return z && th_timezone_parse(z->rule, ret);
}

/* ---- Moments ---- */

static int64_t year_start(int year)
{
    struct tm t = {.tm_year = year - 1900, .tm_mday = 1};
    return timegm(&t);
}

static bool is_leap(int year)
{
    return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

/* When the clocks change in that year, in the local time before the change. */
static int64_t change_at(const struct th_tz_change *c, int year)
{
    if (c->kind != 'M') {
        int day = c->kind == 'J' ? c->day - 1 + (is_leap(year) && c->day >= 60) : c->day;
        return year_start(year) + day * DAY_S + c->time_s;
    }
    struct tm t = {.tm_year = year - 1900, .tm_mon = c->month - 1, .tm_mday = 1};
    int64_t first = timegm(&t);
    int day = 1 + (c->day - t.tm_wday + 7) % 7 + (c->week - 1) * 7;
    struct tm next = {.tm_year = year - 1900, .tm_mon = c->month, .tm_mday = 1};
    int days = (int)((timegm(&next) - first) / DAY_S);
    while (day > days) {
        day -= 7;
    }
    return first + (day - 1) * DAY_S + c->time_s;
}

int64_t th_timezone_offset(const struct th_timezone *z, int64_t utc_s)
{
    if (!z || !z->has_dst) {
        return z ? z->std_s : 0;
    }
    time_t local = (time_t)(utc_s + z->std_s);
    struct tm t;
    (void)gmtime_r(&local, &t);
    int year = t.tm_year + 1900;
    int64_t start = change_at(&z->start, year) - z->std_s;
    int64_t end = change_at(&z->end, year) - z->dst_s;
    bool dst = start < end ? utc_s >= start && utc_s < end : utc_s >= start || utc_s < end;
    return dst ? z->dst_s : z->std_s;
}
