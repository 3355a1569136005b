/* Times and durations as text.
 *
 * Problem: Kubernetes writes RFC 3339 in three precisions, durations in Go's syntax, and ages in a
 * rounded form of its own; all of them are compared byte by byte by clients and tests.
 * Design: plain integer arithmetic on the proleptic Gregorian calendar, counted in days from
 * 0000-03-01 so that the leap day is the last of its year. The C library's calendar is not used:
 * it takes locks, reads time zones, and knows nothing of fractions.
 *
 * Limits: years 0000 to 9999, microseconds (a nanosecond input is cut, not rounded, as metav1
 * does), durations that fit int64 microseconds. Leap seconds do not exist, as in Go.
 */
#include "base/clock.h"

#include "base/buf.h"

#include <inttypes.h>
#include <stdio.h>

#define DAY_S 86400
#define ERA_DAYS 146097           /* 400 years */
#define EPOCH_FROM_MARCH_0 719468 /* days from 0000-03-01 to 1970-01-01 */

struct civil {
    int year, month, day;
};

static struct civil civil_of_days(int64_t days)
{
    days += EPOCH_FROM_MARCH_0;
    int64_t era = (days >= 0 ? days : days - (ERA_DAYS - 1)) / ERA_DAYS;
    int doe = (int)(days - era * ERA_DAYS); /* day of era */
    int yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int doy = doe - (365 * yoe + yoe / 4 - yoe / 100); /* from March 1 */
    int mp = (5 * doy + 2) / 153;                      /* 0 is March */
    struct civil c = {
        .year = yoe + (int)era * 400,
        .month = mp < 10 ? mp + 3 : mp - 9,
        .day = doy - (153 * mp + 2) / 5 + 1,
    };
    c.year += c.month <= 2;
    return c;
}

static int64_t days_of_civil(int year, int month, int day)
{
    year -= month <= 2;
    int era = (year >= 0 ? year : year - 399) / 400;
    int yoe = year - era * 400;
    int doy = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    int doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    return (int64_t)era * ERA_DAYS + doe - EPOCH_FROM_MARCH_0;
}

static char *put_digits(char *at, uint32_t v, int width)
{
    for (int i = width - 1; i >= 0; i--) {
        at[i] = (char)('0' + v % 10);
        v /= 10;
    }
    return at + width;
}

/* fraction_digits 0: no fraction. */
static char *format(int64_t sec, uint32_t fraction, int fraction_digits, char *buf)
{
    int64_t days = sec / DAY_S;
    int64_t rest = sec % DAY_S;
    if (rest < 0) {
        rest += DAY_S;
        days--;
    }
    struct civil c = civil_of_days(days);
    char *at = put_digits(buf, (uint32_t)c.year, 4);
    *at++ = '-';
    at = put_digits(at, (uint32_t)c.month, 2);
    *at++ = '-';
    at = put_digits(at, (uint32_t)c.day, 2);
    *at++ = 'T';
    at = put_digits(at, (uint32_t)(rest / 3600), 2);
    *at++ = ':';
    at = put_digits(at, (uint32_t)(rest / 60 % 60), 2);
    *at++ = ':';
    at = put_digits(at, (uint32_t)(rest % 60), 2);
    if (fraction_digits) {
        *at++ = '.';
        at = put_digits(at, fraction, fraction_digits);
    }
    *at++ = 'Z';
    *at = '\0';
    return buf;
}

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

char *th_time_format(int64_t ms, char *buf)
{
    return format(floor_div(ms, 1000), 0, 0, buf);
}

char *th_time_format_milli(int64_t ms, char *buf)
{
    int64_t sec = floor_div(ms, 1000);
    return format(sec, (uint32_t)(ms - sec * 1000), 3, buf);
}

char *th_time_format_micro(int64_t us, char *buf)
{
    int64_t sec = floor_div(us, 1000000);
    return format(sec, (uint32_t)(us - sec * 1000000), 6, buf);
}

char *th_time_format_nano(int64_t sec, int32_t nsec, char *buf)
{
    return format(sec, (uint32_t)nsec, 9, buf);
}

/* width digits; -1 when one is missing. */
static int take_digits(const char **p, int width)
{
    int v = 0;
    for (int i = 0; i < width; i++) {
        char c = **p;
        if (c < '0' || c > '9') {
            return -1;
        }
        v = v * 10 + (c - '0');
        ++*p;
    }
    return v;
}

static bool take(const char **p, const char *any_of)
{
    if (**p && strchr(any_of, **p)) {
        ++*p;
        return true;
    }
    return false;
}

/* "Z" or "+hh:mm" as seconds east of Greenwich. */
static bool take_zone(const char **p, int *ret_s)
{
    if (take(p, "Zz")) {
        *ret_s = 0;
        return true;
    }
    int sign = **p == '-' ? -1 : 1;
    int h;
    int m;
    if (!take(p, "+-") || (h = take_digits(p, 2)) < 0 || h > 23 || !take(p, ":") ||
        (m = take_digits(p, 2)) < 0 || m > 59) {
        return false;
    }
    *ret_s = sign * (h * 3600 + m * 60);
    return true;
}

static bool parse_time(const char *p, int64_t *ret_us)
{
    int year;
    int month;
    int day;
    int hour;
    int minute;
    int second;
    int zone_s;
    if ((year = take_digits(&p, 4)) < 0 || !take(&p, "-") || (month = take_digits(&p, 2)) < 1 ||
        month > 12 || !take(&p, "-") || (day = take_digits(&p, 2)) < 1 || !take(&p, "Tt") ||
        (hour = take_digits(&p, 2)) < 0 || hour > 23 || !take(&p, ":") ||
        (minute = take_digits(&p, 2)) < 0 || minute > 59 || !take(&p, ":") ||
        (second = take_digits(&p, 2)) < 0 || second > 59) {
        return false;
    }
    int64_t us = 0;
    if (take(&p, ".")) {
        int64_t unit = 100000;
        if (*p < '0' || *p > '9') {
            return false;
        }
        for (; *p >= '0' && *p <= '9'; p++) {
            us += unit * (*p - '0');
            unit /= 10;
        }
    }
    if (!take_zone(&p, &zone_s) || *p) {
        return false;
    }
    int64_t days = days_of_civil(year, month, day);
    struct civil back = civil_of_days(days);
    if (back.month != month || back.day != day) {
        return false; /* February 30 */
    }
    *ret_us = (days * DAY_S + hour * 3600 + minute * 60 + second - zone_s) * 1000000 + us;
    return true;
}

int th_time_parse(const char *s, int64_t *ret_us, struct th_err *err)
{
    if (!s || !parse_time(s, ret_us)) {
        return th_fail(err, TH_R_PARSE, "not an RFC 3339 time: \"%.64s\"", s ? s : "");
    }
    return 0;
}

static const struct {
    const char *name;
    int64_t ns;
} units[] = {
    /* a longer name comes before its prefix */
    {"ns", 1},
    {"us", 1000},
    {"\xc2\xb5s", 1000}, /* micro sign */
    {"\xce\xbcs", 1000}, /* Greek mu */
    {"ms", 1000000},
    {"s", 1000000000},
    {"m", INT64_C(60000000000)},
    {"h", INT64_C(3600000000000)},
};

/* One "12.5ms" added to *ns. */
static bool take_term(const char **p, __int128 *ns)
{
    __int128 whole = 0;
    __int128 fraction = 0;
    __int128 scale = 1;
    bool digits = false;
    for (; **p >= '0' && **p <= '9'; ++*p) {
        digits = true;
        whole = whole * 10 + (**p - '0');
        if (whole > INT64_MAX) {
            return false;
        }
    }
    if (take(p, ".")) {
        for (; **p >= '0' && **p <= '9'; ++*p) {
            digits = true;
            if (scale < INT64_C(1000000000000000)) { /* finer than a nanosecond of an hour */
                fraction = fraction * 10 + (**p - '0');
                scale *= 10;
            }
        }
    }
    if (!digits) {
        return false;
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(units); i++) {
        if (th_startswith(*p, units[i].name)) {
            *p += strlen(units[i].name);
            *ns += whole * units[i].ns + fraction * units[i].ns / scale;
            return true;
        }
    }
    return false;
}

int th_duration_parse(const char *s, int64_t *ret_us, struct th_err *err)
{
    const char *p = s ? s : "";
    bool negative = *p == '-';
    (void)take(&p, "+-");
    __int128 ns = 0;
    bool ok = *p != '\0';
    if (strcmp(p, "0") == 0) {
        p++; /* the only number that needs no unit */
    }
    while (ok && *p) {
        ok = take_term(&p, &ns) && ns <= INT64_MAX;
    }
    if (!ok) {
        return th_fail(err, TH_R_PARSE, "not a duration: \"%.64s\"", s ? s : "");
    }
    *ret_us = (int64_t)(negative ? -ns : ns) / 1000;
    return 0;
}

/* v / 10^digits without trailing zeros. */
static char *put_decimal(char *at, uint64_t v, int digits)
{
    uint64_t unit = 1;
    for (int i = 0; i < digits; i++) {
        unit *= 10;
    }
    at += snprintf(at, 24, "%" PRIu64, v / unit);
    uint64_t rest = v % unit;
    if (rest) {
        *at++ = '.';
        while (rest) {
            unit /= 10;
            *at++ = (char)('0' + rest / unit);
            rest %= unit;
        }
    }
    return at;
}

char *th_duration_format(int64_t us, char *buf)
{
    char *at = buf;
    uint64_t v = us < 0 ? -(uint64_t)us : (uint64_t)us;
    if (us < 0) {
        *at++ = '-';
    }
    if (v > 0 && v < 1000) {
        at = put_decimal(at, v, 0);
        at = stpcpy(at, "\xc2\xb5s");
    } else if (v > 0 && v < 1000000) {
        at = put_decimal(at, v, 3);
        at = stpcpy(at, "ms");
    } else {
        uint64_t minutes = v / 60000000;
        if (minutes >= 60) {
            at = put_decimal(at, minutes / 60, 0);
            *at++ = 'h';
        }
        if (minutes > 0) {
            at = put_decimal(at, minutes % 60, 0);
            *at++ = 'm';
        }
        at = put_decimal(at, v % 60000000, 6);
        *at++ = 's';
    }
    *at = '\0';
    return buf;
}

/* "<a><ua>" or "<a><ua><b><ub>"; the second part only when it is not 0. */
static char *two(char *buf, int64_t a, char ua, int64_t b, char ub)
{
    int n = snprintf(buf, TH_TIME_LEN, "%" PRId64 "%c", a, ua);
    if (b) {
        (void)snprintf(buf + n, (size_t)(TH_TIME_LEN - n), "%" PRId64 "%c", b, ub);
    }
    return buf;
}

char *th_duration_human(int64_t ms, char *buf)
{
    int64_t s = ms / 1000; /* towards zero: up to two seconds of skew count as now */
    int64_t m = s / 60;
    int64_t h = m / 60;
    int64_t d = h / 24;
    if (s < -1) {
        (void)snprintf(buf, TH_TIME_LEN, "<invalid>");
        return buf;
    }
    if (s < 120) {
        return two(buf, s < 0 ? 0 : s, 's', 0, 0);
    }
    if (m < 10) {
        return two(buf, m, 'm', s % 60, 's');
    }
    if (m < 180) {
        return two(buf, m, 'm', 0, 0);
    }
    if (h < 8) {
        return two(buf, h, 'h', m % 60, 'm');
    }
    if (h < 48) {
        return two(buf, h, 'h', 0, 0);
    }
    if (d < 8) {
        return two(buf, d, 'd', h % 24, 'h');
    }
    if (d < 365 * 2) {
        return two(buf, d, 'd', 0, 0);
    }
    if (d < 365 * 8) {
        return two(buf, d / 365, 'y', d % 365, 'd');
    }
    return two(buf, d / 365, 'y', 0, 0);
}
