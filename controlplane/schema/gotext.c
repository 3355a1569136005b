/* Go's text forms of scalars: quoted strings, RFC 3339 times, base64, durations.
 *
 * The API's error messages carry what Go's decoders say ("parsing time \"x\" as ...: cannot parse
 * ..."), and the accepted language is Go's too: times take any number of fraction digits except
 * MicroTime, which takes exactly six; base64 ignores line breaks. base/clock.h has the product's own
 * time functions; these exist because here the words and the corner cases are part of the API.
 *
 * Limits: years 0 to 9999, as the layout has four digits. */
#include "controlplane/schema/gotext.h"

void th_go_quote(struct th_buf *b, const char *s)
{
    static const char escapes[] = "\aa\bb\ff\nn\rr\tt\vv\"\"\\\\";
    th_buf_putc(b, '"');
    for (const unsigned char *p = (const unsigned char *)s; *p; p++) {
        const char *e = NULL;
        for (size_t i = 0; i + 1 < sizeof(escapes) - 1; i += 2) {
            if ((unsigned char)escapes[i] == *p) {
                e = &escapes[i + 1];
            }
        }
        if (e) {
            th_buf_putc(b, '\\');
            th_buf_putc(b, *e);
        } else if (*p < 0x20 || *p == 0x7f) {
            th_buf_printf(b, "\\x%02x", *p);
        } else {
            th_buf_putc(b, (char)*p);
        }
    }
    th_buf_putc(b, '"');
}

/* ---- times ---- */

static int64_t days_from_civil(int64_t y, int m, int d)
{
    y -= m <= 2;
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    int64_t yoe = y - era * 400;
    int64_t doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
    int64_t doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    return era * 146097 + doe - 719468;
}

static int days_in_month(int y, int m)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
    return days[m - 1] + (m == 2 && leap);
}

struct time_scan {
    const char *whole, *p;
    bool micro;
};

static int time_fail(const struct time_scan *t, const char *rest, const char *element,
                     struct th_err *err)
{
    th_autobuf struct th_buf a = TH_BUF_INIT, b = TH_BUF_INIT;
    th_go_quote(&a, t->whole);
    th_go_quote(&b, rest);
    return th_fail(err, TH_R_BAD_REQUEST, "parsing time %s as \"%s\": cannot parse %s as \"%s\"",
                   th_buf_cstr(&a),
                   t->micro ? "2006-01-02T15:04:05.000000Z07:00" : "2006-01-02T15:04:05Z07:00",
                   th_buf_cstr(&b), element);
}

static int time_range(const struct time_scan *t, const char *what, struct th_err *err)
{
    th_autobuf struct th_buf a = TH_BUF_INIT;
    th_go_quote(&a, t->whole);
    return th_fail(err, TH_R_BAD_REQUEST, "parsing time %s: %s out of range", th_buf_cstr(&a), what);
}

static bool digit(char c)
{
    return c >= '0' && c <= '9';
}

static int time_digits(struct time_scan *t, int n, const char *element, int *ret,
                       struct th_err *err)
{
    int v = 0;
    for (int i = 0; i < n; i++) {
        if (!digit(t->p[i])) {
            return time_fail(t, t->p, element, err);
        }
        v = v * 10 + (t->p[i] - '0');
    }
    t->p += n;
    *ret = v;
    return 0;
}

static int time_mark(struct time_scan *t, char c, struct th_err *err)
{
    char element[2] = {c, '\0'};
    if (*t->p != c) {
        return time_fail(t, t->p, element, err);
    }
    t->p++;
    return 0;
}

/* The hour may have one digit in Go ("stdHour" reads two, "15" is strict about neither). */
static int time_hour(struct time_scan *t, int *ret, struct th_err *err)
{
    if (digit(t->p[0]) && !digit(t->p[1])) {
        *ret = t->p[0] - '0';
        t->p++;
        return 0;
    }
    return time_digits(t, 2, "15", ret, err);
}

static int time_fraction(struct time_scan *t, int32_t *ret_nsec, struct th_err *err)
{
    int64_t ns = 0;
    if (t->micro) {
        if (*t->p != '.' && *t->p != ',') {
            return time_fail(t, t->p, ".000000", err);
        }
        for (int i = 1; i <= 6; i++) {
            if (!digit(t->p[i])) {
                return time_fail(t, t->p, ".000000", err);
            }
            ns = ns * 10 + (t->p[i] - '0');
        }
        t->p += 7;
        *ret_nsec = (int32_t)(ns * 1000);
        return 0;
    }
    *ret_nsec = 0;
    if ((*t->p == '.' || *t->p == ',') && digit(t->p[1])) {
        int64_t unit = 100000000;
        for (t->p++; digit(*t->p); t->p++) {
            ns += (*t->p - '0') * unit;
            unit /= 10;
        }
        *ret_nsec = (int32_t)ns;
    }
    return 0;
}

static int time_zone(struct time_scan *t, int64_t *ret_offset, struct th_err *err)
{
    const char *begin = t->p;
    if (*t->p == 'Z') {
        t->p++;
        *ret_offset = 0;
        return 0;
    }
    bool shape = (*begin == '+' || *begin == '-') && digit(begin[1]) && digit(begin[2]) &&
                 begin[3] == ':' && digit(begin[4]) && digit(begin[5]);
    if (!shape) {
        return time_fail(t, begin, "Z07:00", err);
    }
    int h = (begin[1] - '0') * 10 + (begin[2] - '0');
    int m = (begin[4] - '0') * 10 + (begin[5] - '0');
    if (h > 24) {
        return time_range(t, "time zone offset hour", err);
    }
    if (m > 60) {
        return time_range(t, "time zone offset minute", err);
    }
    t->p += 6;
    *ret_offset = (h * 60 + m) * 60ll * (*begin == '-' ? -1 : 1);
    return 0;
}

int th_go_time_parse(const char *s, bool micro, int64_t *ret_sec, int32_t *ret_nsec,
                     struct th_err *err)
{
    struct time_scan t = {s, s, micro};
    int y = 0, mo = 0, d = 0, h = 0, mi = 0, sec = 0;
    int32_t nsec = 0;
    int64_t offset = 0;
    TH_TRY(time_digits(&t, 4, "2006", &y, err));
    TH_TRY(time_mark(&t, '-', err));
    TH_TRY(time_digits(&t, 2, "01", &mo, err));
    if (mo < 1 || mo > 12) {
        return time_range(&t, "month", err);
    }
    TH_TRY(time_mark(&t, '-', err));
    TH_TRY(time_digits(&t, 2, "02", &d, err));
    TH_TRY(time_mark(&t, 'T', err));
    TH_TRY(time_hour(&t, &h, err));
    if (h > 23) {
        return time_range(&t, "hour", err);
    }
    TH_TRY(time_mark(&t, ':', err));
    TH_TRY(time_digits(&t, 2, "04", &mi, err));
    if (mi > 59) {
        return time_range(&t, "minute", err);
    }
    TH_TRY(time_mark(&t, ':', err));
    TH_TRY(time_digits(&t, 2, "05", &sec, err));
    if (sec > 59) {
        return time_range(&t, "second", err);
    }
    TH_TRY(time_fraction(&t, &nsec, err));
    TH_TRY(time_zone(&t, &offset, err));
    if (*t.p) {
        th_autobuf struct th_buf a = TH_BUF_INIT, b = TH_BUF_INIT;
        th_go_quote(&a, s);
        th_go_quote(&b, t.p);
        return th_fail(err, TH_R_BAD_REQUEST, "parsing time %s: extra text: %s", th_buf_cstr(&a),
                       th_buf_cstr(&b));
    }
    if (d < 1 || d > days_in_month(y, mo)) {
        return time_range(&t, "day", err);
    }
    *ret_sec = days_from_civil(y, mo, d) * 86400 + h * 3600 + mi * 60 + sec - offset;
    *ret_nsec = nsec;
    return 0;
}

char *th_go_time_format(int64_t sec, int32_t nsec, bool micro, char *buf)
{
    int64_t days = sec / 86400, rest = sec % 86400;
    if (rest < 0) {
        rest += 86400;
        days--;
    }
    int64_t z = days + 719468;
    int64_t era = (z >= 0 ? z : z - 146096) / 146097;
    int64_t doe = z - era * 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    int64_t mp = (5 * doy + 2) / 153;
    int d = (int)(doy - (153 * mp + 2) / 5 + 1);
    int m = (int)(mp < 10 ? mp + 3 : mp - 9);
    long long y = (long long)(yoe + era * 400 + (m <= 2));
    int n = snprintf(buf, TH_GO_TIME_LEN, "%04lld-%02d-%02dT%02d:%02d:%02d", y, m, d,
                     (int)(rest / 3600), (int)(rest / 60 % 60), (int)(rest % 60));
    if (micro) {
        n += snprintf(buf + n, TH_GO_TIME_LEN - (size_t)n, ".%06d", (int)(nsec / 1000));
    }
    (void)snprintf(buf + n, TH_GO_TIME_LEN - (size_t)n, "Z");
    return buf;
}

/* ---- base64 ---- */

static int b64_value(char c)
{
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (digit(c)) {
        return c - '0' + 52;
    }
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static int b64_fail(size_t at, struct th_err *err)
{
    return th_fail(err, TH_R_BAD_REQUEST, "illegal base64 data at input byte %zu", at);
}

static size_t b64_skip_breaks(const char *s, size_t n, size_t i)
{
    while (i < n && (s[i] == '\n' || s[i] == '\r')) {
        i++;
    }
    return i;
}

int th_go_base64_decode(const char *s, size_t n, struct th_buf *b, struct th_err *err)
{
    size_t i = 0;
    for (;;) {
        uint32_t word = 0;
        int have = 0;
        bool padded = false;
        while (have < 4) {
            i = b64_skip_breaks(s, n, i);
            if (i == n) {
                return have == 0 ? 0 : b64_fail(i - (size_t)have, err);
            }
            char c = s[i++];
            if (c == '=') {
                if (have < 2) {
                    return b64_fail(i - 1, err);
                }
                i = b64_skip_breaks(s, n, i);
                if (have == 2) {
                    if (i == n) {
                        return b64_fail(n, err);
                    }
                    if (s[i] != '=') {
                        return b64_fail(i - 1, err);
                    }
                    i = b64_skip_breaks(s, n, i + 1);
                }
                if (i < n) {
                    return b64_fail(i, err); /* trailing garbage */
                }
                padded = true;
                break;
            }
            int v = b64_value(c);
            if (v < 0) {
                return b64_fail(i - 1, err);
            }
            word = (word << 6) | (uint32_t)v;
            have++;
        }
        word <<= 6 * (4 - have);
        unsigned char out[3] = {(unsigned char)(word >> 16), (unsigned char)(word >> 8),
                                (unsigned char)word};
        th_buf_add(b, out, (size_t)(have - 1));
        if (padded) {
            return 0;
        }
    }
}

/* ---- durations ---- */

static int64_t duration_unit(const char *s, size_t n)
{
    static const struct {
        const char *name;
        int64_t ns;
    } units[] = {{"ns", 1},           {"us", 1000},          {"\xc2\xb5s", 1000},
                 {"\xce\xbcs", 1000}, {"ms", 1000000},       {"s", 1000000000ll},
                 {"m", 60000000000ll}, {"h", 3600000000000ll}};
    for (size_t i = 0; i < TH_ARRAY_LEN(units); i++) {
        if (strlen(units[i].name) == n && memcmp(units[i].name, s, n) == 0) {
            return units[i].ns;
        }
    }
    return 0;
}

static int duration_fail(const char *what, const char *s, struct th_err *err)
{
    th_autobuf struct th_buf q = TH_BUF_INIT;
    th_go_quote(&q, s);
    return th_fail(err, TH_R_BAD_REQUEST, "time: %s duration %s", what, th_buf_cstr(&q));
}

int th_go_duration_parse(const char *s, int64_t *ret_ns, struct th_err *err)
{
    const char *p = s;
    bool neg = *p == '-';
    if (*p == '-' || *p == '+') {
        p++;
    }
    if (p[0] == '0' && p[1] == '\0') {
        *ret_ns = 0;
        return 0;
    }
    if (!*p) {
        return duration_fail("invalid", s, err);
    }
    unsigned __int128 total = 0;
    while (*p) {
        unsigned __int128 whole = 0;
        const char *begin = p;
        for (; digit(*p); p++) {
            whole = whole * 10 + (unsigned)(*p - '0');
            if (whole > (unsigned __int128)INT64_MAX + 1) {
                return duration_fail("invalid", s, err);
            }
        }
        bool digits = p != begin;
        unsigned __int128 frac = 0, scale = 1;
        if (*p == '.') {
            begin = ++p;
            for (; digit(*p); p++) {
                if (scale < 1000000000000000000ull) {
                    frac = frac * 10 + (unsigned)(*p - '0');
                    scale *= 10;
                }
            }
            digits = digits || p != begin;
        }
        if (!digits) {
            return duration_fail("invalid", s, err);
        }
        begin = p;
        while (*p && *p != '.' && !digit(*p)) {
            p++;
        }
        if (p == begin) {
            return duration_fail("missing unit in", s, err);
        }
        int64_t unit = duration_unit(begin, (size_t)(p - begin));
        if (unit == 0) {
            th_autobuf struct th_buf q = TH_BUF_INIT, u = TH_BUF_INIT;
            th_autofree char *text = th_xstrndup(begin, (size_t)(p - begin));
            th_go_quote(&u, text);
            th_go_quote(&q, s);
            return th_fail(err, TH_R_BAD_REQUEST, "time: unknown unit %s in duration %s",
                           th_buf_cstr(&u), th_buf_cstr(&q));
        }
        total += whole * (unsigned __int128)unit + frac * (unsigned __int128)unit / scale;
        if (total > (unsigned __int128)INT64_MAX + (neg ? 1 : 0)) {
            return duration_fail("invalid", s, err);
        }
    }
    *ret_ns = neg ? (int64_t)(0 - (uint64_t)total) : (int64_t)total;
    return 0;
}

/* "1h0m0s", "1.5s", "250ms", "10us" with Go's micro sign, "7ns", "0s". */
char *th_go_duration_format(int64_t ns, char *buf)
{
    uint64_t u = ns < 0 ? 0 - (uint64_t)ns : (uint64_t)ns;
    const char *sign = ns < 0 ? "-" : "";
    if (u == 0) {
        (void)snprintf(buf, TH_GO_TIME_LEN, "0s");
        return buf;
    }
    char frac[24] = "";
    if (u < 1000000000ull) {
        uint64_t unit = u < 1000 ? 1 : u < 1000000 ? 1000 : 1000000;
        const char *name = unit == 1 ? "ns" : unit == 1000 ? "\xc2\xb5s" : "ms";
        int n = unit == 1 ? 0 : snprintf(frac, sizeof(frac), ".%0*llu", unit == 1000 ? 3 : 6,
                                         (unsigned long long)(u % unit));
        while (n > 0 && (frac[n - 1] == '0' || frac[n - 1] == '.')) {
            frac[--n] = '\0';
        }
        (void)snprintf(buf, TH_GO_TIME_LEN, "%s%llu%s%s", sign, (unsigned long long)(u / unit), frac,
                       name);
        return buf;
    }
    int n = snprintf(frac, sizeof(frac), ".%09llu", (unsigned long long)(u % 1000000000ull));
    while (n > 0 && (frac[n - 1] == '0' || frac[n - 1] == '.')) {
        frac[--n] = '\0';
    }
    uint64_t s = u / 1000000000ull;
    if (s >= 3600) {
        (void)snprintf(buf, TH_GO_TIME_LEN, "%s%lluh%llum%llu%ss", sign,
                       (unsigned long long)(s / 3600), (unsigned long long)(s / 60 % 60),
                       (unsigned long long)(s % 60), frac);
    } else if (s >= 60) {
        (void)snprintf(buf, TH_GO_TIME_LEN, "%s%llum%llu%ss", sign, (unsigned long long)(s / 60),
                       (unsigned long long)(s % 60), frac);
    } else {
        (void)snprintf(buf, TH_GO_TIME_LEN, "%s%llu%ss", sign, (unsigned long long)s, frac);
    }
    return buf;
}

/* ---- Printing ---- */

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void print(const struct th_json *o, struct th_buf *b)
{
    switch (th_json_type(o)) {
    case TH_JSON_NULL:
        th_buf_puts(b, "<nil>");
        break;
    case TH_JSON_STRING:
        th_buf_puts(b, th_json_str(o));
        break;
    case TH_JSON_ARRAY:
        th_buf_putc(b, '[');
        for (size_t i = 0; i < th_json_len(o); i++) {
            th_buf_puts(b, i ? " " : "");
            print(th_json_at(o, i), b);
        }
        th_buf_putc(b, ']');
        break;
    case TH_JSON_OBJECT: {
        size_t n = 0;
        const char **names = th_xcalloc(th_json_len(o) + 1, sizeof(*names));
        struct th_json_iter it = TH_JSON_ITER(o);
        while (th_json_next(&it)) {
            names[n++] = it.name;
        }
        qsort(names, n, sizeof(*names), by_text);
        th_buf_puts(b, "map[");
        for (size_t i = 0; i < n; i++) {
            th_buf_printf(b, "%s%s:", i ? " " : "", names[i]);
            print(th_json_get(o, names[i]), b);
        }
        th_buf_putc(b, ']');
        free(names);
        break;
    }
    default:
        th_json_dump(o, b);
    }
}

char *th_go_print(const struct th_json *o)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    print(o, &b);
    return th_xstrdup(th_buf_cstr(&b));
}

char *th_go_trim_space(const char *s)
{
    static const char white[] = " \t\r\n\v\f";
    s += strspn(s, white);
    size_t n = strlen(s);
    while (n > 0 && strchr(white, s[n - 1])) {
        n--;
    }
    return th_xstrndup(s, n);
}
