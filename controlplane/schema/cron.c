/* Schedules of CronJobs (cron.h).
 *
 * The grammar is the standard one of the cron library upstream uses: minute, hour, day of month,
 * month, day of week; each a list of ranges with optional steps; names of months and days in any
 * case; "?" the same as "*". Sunday is 0; 7 is refused, as there. Its error texts reach the user in
 * spec.schedule's cause, so they are kept.
 */
#include "controlplane/schema/cron.h"

#include "base/buf.h"

#include <ctype.h>
#include <strings.h>

struct bounds {
    unsigned min, max;
    const char *const *names; /* of min, min + 1, ...; NULL-terminated or NULL */
};
static const char *const month_names[] = {"jan", "feb", "mar", "apr", "may", "jun", "jul",
                                          "aug", "sep", "oct", "nov", "dec", NULL};
static const char *const day_names[] = {"sun", "mon", "tue", "wed", "thu", "fri", "sat", NULL};
static const struct bounds fields[5] = {
    {0, 59, NULL}, {0, 23, NULL}, {1, 31, NULL}, {1, 12, month_names}, {0, 6, day_names}};

static int parse_number(const char *s, unsigned *ret, struct th_err *err)
{
    const char *p = s + (*s == '-' || *s == '+');
    bool ok = *p != '\0';
    long n = 0;
    for (; ok && *p; p++) {
        ok = isdigit((unsigned char)*p) && n < 100000000;
        n = n * 10 + (*p - '0');
    }
    if (!ok) {
        return th_fail(err, TH_R_INVALID,
                       "failed to parse int from %s: strconv.Atoi: parsing \"%s\": invalid syntax", s,
                       s);
    }
    if (*s == '-') {
        return th_fail(err, TH_R_INVALID, "negative number (%ld) not allowed: %s", -n, s);
    }
    *ret = (unsigned)n;
    return 0;
}

static int parse_value(const char *s, const struct bounds *b, unsigned *ret, struct th_err *err)
{
    for (unsigned i = 0; b->names && b->names[i]; i++) {
        if (strcasecmp(s, b->names[i]) == 0) {
            *ret = b->min + i;
            return 0;
        }
    }
    return parse_number(s, ret, err);
}

static int parse_ends(const char *text, const struct th_strv *ends, const struct bounds *b,
                      unsigned *start, unsigned *end, bool *any, struct th_err *err)
{
    if (th_streq(ends->v[0], "*") || th_streq(ends->v[0], "?")) {
        *start = b->min;
        *end = b->max;
        *any = true;
        return 0;
    }
    TH_TRY(parse_value(ends->v[0], b, start, err));
    *end = *start;
    if (ends->n == 2) {
        TH_TRY(parse_value(ends->v[1], b, end, err));
    } else if (ends->n > 2) {
        return th_fail(err, TH_R_INVALID, "too many hyphens: %s", text);
    }
    return 0;
}

static int parse_range(const char *text, const struct bounds *b, uint64_t *bits, bool *any,
                       struct th_err *err)
{
    th_autostrv struct th_strv parts = TH_STRV_INIT, ends = TH_STRV_INIT;
    unsigned start = 0, end = 0, step = 1;
    bool star = false;
    th_strv_split(&parts, text, '/');
    th_strv_split(&ends, parts.n ? parts.v[0] : "", '-');
    if (ends.n == 0) {
        th_strv_add(&ends, "");
    }
    TH_TRY(parse_ends(text, &ends, b, &start, &end, &star, err));
    if (parts.n == 2) {
        TH_TRY(parse_number(parts.v[1], &step, err));
        if (ends.n == 1 && !star) {
            end = b->max; /* "N/step" means N to the last */
        }
        star = star && step <= 1;
    } else if (parts.n > 2) {
        return th_fail(err, TH_R_INVALID, "too many slashes: %s", text);
    }
    if (start < b->min) {
        return th_fail(err, TH_R_INVALID, "beginning of range (%u) below minimum (%u): %s", start,
                       b->min, text);
    }
    if (end > b->max) {
        return th_fail(err, TH_R_INVALID, "end of range (%u) above maximum (%u): %s", end, b->max,
                       text);
    }
    if (start > end) {
        return th_fail(err, TH_R_INVALID, "beginning of range (%u) beyond end of range (%u): %s",
                       start, end, text);
    }
    if (step == 0) {
        return th_fail(err, TH_R_INVALID, "step of range should be a positive number: %s", text);
    }
    for (unsigned i = start; i <= end; i += step) {
        *bits |= (uint64_t)1 << i;
    }
    *any = *any || star;
    return 0;
}

static int parse_field(const char *text, const struct bounds *b, uint64_t *bits, bool *any,
                       struct th_err *err)
{
    th_autostrv struct th_strv ranges = TH_STRV_INIT;
    th_strv_split(&ranges, text, ',');
    for (size_t i = 0; i < ranges.n; i++) {
        if (*ranges.v[i]) { /* empty parts are skipped */
            TH_TRY(parse_range(ranges.v[i], b, bits, any, err));
        }
    }
    return 0;
}

/* "1h30m", "90s": hours, minutes and seconds. */
static bool parse_duration(const char *s, int64_t *ret)
{
    int64_t total = 0;
    if (!*s) {
        return false;
    }
    while (*s) {
        int64_t n = 0;
        const char *p = s;
        for (; isdigit((unsigned char)*p) && n < 1000000000; p++) {
            n = n * 10 + (*p - '0');
        }
        int64_t unit = *p == 'h' ? 3600 : *p == 'm' && p[1] != 's' ? 60 : *p == 's' ? 1 : 0;
        if (p == s || unit == 0) {
            return false;
        }
        total += n * unit;
        s = p + 1;
    }
    *ret = total < 1 ? 1 : total;
    return true;
}

static int parse_descriptor(const char *text, struct th_cron *ret, struct th_err *err)
{
    static const char *const known[][2] = {
        {"@yearly", "0 0 1 1 *"},  {"@annually", "0 0 1 1 *"}, {"@monthly", "0 0 1 * *"},
        {"@weekly", "0 0 * * 0"},  {"@daily", "0 0 * * *"},    {"@midnight", "0 0 * * *"},
        {"@hourly", "0 * * * *"}};
    for (size_t i = 0; i < TH_ARRAY_LEN(known); i++) {
        if (th_streq(text, known[i][0])) {
            return th_cron_parse(known[i][1], ret, err);
        }
    }
    if (!th_startswith(text, "@every ")) {
        return th_fail(err, TH_R_INVALID, "unrecognized descriptor: %s", text);
    }
    const char *d = text + strlen("@every ");
    *ret = (struct th_cron){0};
    if (!parse_duration(d, &ret->every_s)) {
        return th_fail(err, TH_R_INVALID,
                       "failed to parse duration %s: time: invalid duration \"%s\"", text, d);
    }
    return 0;
}

static void split_fields(const char *text, struct th_strv *ret)
{
    while (*text) {
        size_t n = strcspn(text, " \t\n");
        if (n) {
            th_autofree char *one = th_xstrndup(text, n);
            th_strv_add(ret, one);
        }
        text += n + (text[n] != '\0');
    }
}

int th_cron_parse(const char *text, struct th_cron *ret, struct th_err *err)
{
    if (!*text) {
        return th_fail(err, TH_R_INVALID, "empty spec string");
    }
    if (th_startswith(text, "TZ=") || th_startswith(text, "CRON_TZ=")) {
        text += strcspn(text, " ");
        text += strspn(text, " ");
    }
    if (*text == '@') {
        return parse_descriptor(text, ret, err);
    }
    th_autostrv struct th_strv parts = TH_STRV_INIT;
    split_fields(text, &parts);
    if (parts.n != 5) {
        th_autofree char *all = th_strv_join(&parts, " ");
        return th_fail(err, TH_R_INVALID, "expected exactly 5 fields, found %zu: [%s]", parts.n, all);
    }
    struct th_cron c = {0};
    bool any[5] = {false};
    uint64_t *const bits[5] = {&c.minutes, &c.hours, &c.days, &c.months, &c.weekdays};
    for (size_t i = 0; i < 5; i++) {
        TH_TRY(parse_field(parts.v[i], &fields[i], bits[i], &any[i], err));
    }
    c.any_day = any[2];
    c.any_weekday = any[4];
    *ret = c;
    return 0;
}
