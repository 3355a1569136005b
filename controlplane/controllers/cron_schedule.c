/*
 * Cron schedules; see cron_schedule.h. As the parser upstream uses (robfig/cron v3, standard): when
 * both days are restricted, either one is enough; "?" is a star; a single value with a step runs to
 * the end of the range ("5/15"); Sunday is 0 only.
 */
#include "controlplane/controllers/cron_schedule.h"
#include "base/buf.h"
#include "base/clock.h"
#include <ctype.h>
#include <strings.h>
#include <time.h>

#define YEARS_MAX 5

struct field {
    const char *what;
    unsigned least, most;
    const char *const *names; /* of least, least + 1, ...; NULL-terminated or NULL */
};

static const char *const months[] = {"jan", "feb", "mar", "apr", "may", "jun", "jul",
                                     "aug", "sep", "oct", "nov", "dec", NULL};
static const char *const weekdays[] = {"sun", "mon", "tue", "wed", "thu", "fri", "sat", NULL};
static const struct field fields[] = {{"minute", 0, 59, NULL},
                                      {"hour", 0, 23, NULL},
                                      {"day of month", 1, 31, NULL},
                                      {"month", 1, 12, months},
                                      {"day of week", 0, 6, weekdays}};

static int number(const struct field *f, const char *text, size_t n, unsigned *ret,
                  struct th_err *err)
{
    for (size_t i = 0; f->names && f->names[i]; i++) {
        if (n == 3 && strncasecmp(text, f->names[i], 3) == 0) {
            *ret = f->least + (unsigned)i;
            return 0;
        }
    }
    unsigned v = 0;
    for (size_t i = 0; i < n; i++) {
        if (!isdigit((unsigned char)text[i]) || v > 10000) {
            return th_fail(err, TH_R_BAD_REQUEST, "failed to parse int from %.*s", (int)n, text);
        }
        v = v * 10 + (unsigned)(text[i] - '0');
    }
    if (n == 0) {
        return th_fail(err, TH_R_BAD_REQUEST, "a number is missing in the field %s", f->what);
    }
    *ret = v;
    return 0;
}

/* "a", "a-b", "*", each with "/step". */
static int range(const struct field *f, const char *text, uint64_t *bits, bool *star,
                 struct th_err *err)
{
    const char *slash = strchr(text, '/');
    size_t n = slash ? (size_t)(slash - text) : strlen(text);
    const char *dash = memchr(text, '-', n);
    unsigned from = f->least, to = f->most, step = 1;
    if (n == 1 && (*text == '*' || *text == '?')) {
        *star = *star || !slash;
    } else {
        size_t first = dash ? (size_t)(dash - text) : n;
        TH_TRY(number(f, text, first, &from, err));
        to = slash && !dash ? f->most : from;
        if (dash) {
            TH_TRY(number(f, dash + 1, n - first - 1, &to, err));
        }
    }
    if (slash) {
        struct field plain = {f->what, 0, UINT32_MAX, NULL};
        TH_TRY(number(&plain, slash + 1, strlen(slash + 1), &step, err));
    }
    if (from < f->least) {
        return th_fail(err, TH_R_BAD_REQUEST, "beginning of range (%u) below minimum (%u): %s",
                       from, f->least, text);
    }
    if (to > f->most) {
        return th_fail(err, TH_R_BAD_REQUEST, "end of range (%u) above maximum (%u): %s", to,
                       f->most, text);
    }
    if (from > to) {
        return th_fail(err, TH_R_BAD_REQUEST, "beginning of range (%u) beyond end of range (%u): %s",
                       from, to, text);
    }
    if (step == 0) {
        return th_fail(err, TH_R_BAD_REQUEST, "step of range should be a positive number: %s",
                       text);
    }
    for (unsigned i = from; i <= to; i += step) {
        *bits |= (uint64_t)1 << i;
    }
    return 0;
}

static int parse_field(const struct field *f, const char *text, uint64_t *bits, bool *star,
                       struct th_err *err)
{
    struct th_strv parts TH_CLEANUP(th_strv_done) = TH_STRV_INIT;
    th_strv_split(&parts, text, ',');
    *bits = 0;
    *star = false;
    for (size_t i = 0; i < parts.n; i++) {
        TH_TRY(range(f, parts.v[i], bits, star, err));
    }
    return 0;
}

static int descriptor(const char *text, struct th_cron *ret, struct th_err *err)
{
    static const char *const known[][2] = {
        {"@yearly", "0 0 1 1 *"}, {"@annually", "0 0 1 1 *"}, {"@monthly", "0 0 1 * *"},
        {"@weekly", "0 0 * * 0"}, {"@daily", "0 0 * * *"},    {"@midnight", "0 0 * * *"},
        {"@hourly", "0 * * * *"}};
    for (size_t i = 0; i < TH_ARRAY_LEN(known); i++) {
        if (th_streq(text, known[i][0])) {
            return th_cron_parse(known[i][1], ret, err);
        }
    }
    int64_t us = 0;
    if (th_startswith(text, "@every ") && th_duration_parse(text + 7, &us, NULL) == 0) {
        *ret = (struct th_cron){.every_s = us < 1000000 ? 1 : us / 1000000};
        return 0;
    }
    return th_fail(err, TH_R_BAD_REQUEST, "unrecognized descriptor: %s", text);
}

int th_cron_parse(const char *text, struct th_cron *ret, struct th_err *err)
{
    if (*text == '@') {
        return descriptor(text, ret, err);
    }
    struct th_strv words TH_CLEANUP(th_strv_done) = TH_STRV_INIT;
    for (const char *p = text; *p;) {
        size_t n = strcspn(p, " \t");
        if (n > 0) {
            th_strv_take(&words, th_xstrndup(p, n));
        }
        p += n + strspn(p + n, " \t");
    }
    if (words.n != TH_ARRAY_LEN(fields)) {
        return th_fail(err, TH_R_BAD_REQUEST, "expected exactly 5 fields, found %zu: %s", words.n,
                       text);
    }
    struct th_cron c = {.every_s = 0};
    uint64_t *bits[] = {&c.minutes, &c.hours, &c.days, &c.months, &c.weekdays};
    for (size_t i = 0; i < words.n; i++) {
        bool star = false;
        TH_TRY(parse_field(&fields[i], words.v[i], bits[i], &star, err));
        c.any_day = i == 2 ? star : c.any_day;
        c.any_weekday = i == 4 ? star : c.any_weekday;
    }
    *ret = c;
    return 0;
}

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
