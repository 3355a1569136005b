/* Parts of moments and lengths of time. Time zones are fixed offsets ("+02:00", "-05:30"), UTC, or
 * names of the zone database that the system has. */
#include "controlplane/schema/cel/fn_priv.h"

#include "base/io.h"

#include <time.h>

#define ZONE_MAX_B (256u << 10)

static int64_t big_endian(const char *p, int bytes)
{
    uint64_t v = (unsigned char)*p & 0x80 ? UINT64_MAX : 0;
    for (int i = 0; i < bytes; i++) {
        v = v << 8 | (unsigned char)p[i];
    }
    return (int64_t)v;
}

/* A compiled zone (TZif, second part with 64-bit times): the offset that holds at sec. */
static bool offset_in(const struct th_buf *b, int64_t sec, int64_t *ret)
{
    const size_t head = 44;
    if (b->n < 2 * head || memcmp(b->p, "TZif", 4) != 0) {
        return false;
    }
    size_t skip = head;
    size_t counts[6]; /* isutc, isstd, leap, times, types, chars */
    for (int part = 0; part < 2; part++) {
        const char *h = b->p + (part ? skip : 0);
        if (part && (b->n < skip + head || memcmp(h, "TZif", 4) != 0)) {
            return false;
        }
        for (int i = 0; i < 6; i++) {
            counts[i] = (size_t)big_endian(h + 20 + 4 * i, 4);
            if (counts[i] > 100000) {
                return false;
            }
        }
        if (!part) {
            skip += counts[3] * 5 + counts[4] * 6 + counts[5] + counts[2] * 8 + counts[1] +
                    counts[0];
        }
    }
    const char *times = b->p + skip + head, *index = times + counts[3] * 8;
    const char *types = index + counts[3];
    if (b->n < skip + head + counts[3] * 9 + counts[4] * 6 || counts[4] == 0) {
        return false;
    }
    size_t type = 0;
    for (size_t i = 0; i < counts[3] && big_endian(times + 8 * i, 8) <= sec; i++) {
        type = (unsigned char)index[i];
    }
    *ret = big_endian(types + 6 * (type < counts[4] ? type : 0), 4);
    return true;
}

/* Seconds east of UTC at that moment; false when the zone is unknown. */
static bool zone_offset(struct th_str zone, int64_t sec, int64_t *ret)
{
    th_autofree char *s = th_xstrndup(zone.p, zone.n);
    if (!*s || th_streq(s, "UTC") || th_streq(s, "Z")) {
        *ret = 0;
        return true;
    }
    int h, m, used = 0;
    const char *digits = *s == '+' || *s == '-' ? s + 1 : s;
    if (sscanf(digits, "%2d:%2d%n", &h, &m, &used) == 2 && !digits[used] && h < 24 && m < 60) {
        *ret = (*s == '-' ? -1 : 1) * ((int64_t)h * 3600 + m * 60);
        return true;
    }
    if (strstr(s, "..") || *s == '/') {
        return false;
    }
    th_autofree char *path = th_xasprintf("/usr/share/zoneinfo/%s", s);
    th_autobuf struct th_buf b = TH_BUF_INIT;
    return th_io_read_file(path, ZONE_MAX_B, &b, NULL) >= 0 && offset_in(&b, sec, ret);
}

static bool broken_down(struct cel_val *args, size_t n, struct tm *ret)
{
    int64_t off = 0;
    if (n > 1 && !zone_offset(args[1].s, args[0].ts.sec, &off)) {
        return false;
    }
    time_t t = (time_t)(args[0].ts.sec + off);
    return gmtime_r(&t, ret) != NULL;
}

static struct cel_val bad_zone(struct cel_eval *e, struct cel_val zone)
{
    return cel_error(e, "unknown time zone %.*s", (int)zone.s.n, zone.s.p);
}

#define PART(fn, expr)                                                                             \
    CEL_FN_DEF(fn)                                                                                 \
    {                                                                                              \
        struct tm tm;                                                                              \
        return broken_down(args, n, &tm) ? cel_int(expr) : bad_zone(e, args[n - 1]);               \
    }
PART(cel_fn_full_year, tm.tm_year + 1900)
PART(cel_fn_month, tm.tm_mon)
PART(cel_fn_day_of_year, tm.tm_yday)
PART(cel_fn_day_of_month, tm.tm_mday - 1)
PART(cel_fn_date, tm.tm_mday)
PART(cel_fn_day_of_week, tm.tm_wday)

#define CLOCK_PART(fn, expr, of_duration)                                                          \
    CEL_FN_DEF(fn)                                                                                 \
    {                                                                                              \
        struct tm tm;                                                                              \
        if (args[0].kind == CEL_DURATION) {                                                        \
            return cel_int(of_duration);                                                           \
        }                                                                                          \
        return broken_down(args, n, &tm) ? cel_int(expr) : bad_zone(e, args[n - 1]);               \
    }
CLOCK_PART(cel_fn_hours, tm.tm_hour, args[0].i / 3600000000000ll)
CLOCK_PART(cel_fn_minutes, tm.tm_min, args[0].i / 60000000000ll)
CLOCK_PART(cel_fn_seconds, tm.tm_sec, args[0].i / 1000000000)
CLOCK_PART(cel_fn_millis, args[0].ts.nsec / 1000000, args[0].i / 1000000)
