/* What an unquoted YAML scalar means.
 *
 * Problem: `port: 8080`, `on`, `1e3`, `0x1f`, `~` and `2026-01-02` are written alike and mean
 * different things, and clients compare our reading with that of the Go library behind kubectl.
 * Design: that library's rules (YAML 1.1 words, C-like integers with underscores, its float
 * pattern, its subset of timestamps), decided from the first byte as it does: a scalar that does
 * not begin like a word of the table, a digit, a sign or a point is a string at once.
 *
 * The same function serves the writer: a string must be quoted exactly when it would be read as
 * something else.
 */
#include "base/json/yaml_priv.h"

#include <errno.h>
#include <math.h>

static const struct {
    const char *word;
    enum th_yaml_kind kind;
    bool b;
} words[] = {
    {"y", TH_YAML_BOOL, true},       {"Y", TH_YAML_BOOL, true},
    {"yes", TH_YAML_BOOL, true},     {"Yes", TH_YAML_BOOL, true},
    {"YES", TH_YAML_BOOL, true},     {"true", TH_YAML_BOOL, true},
    {"True", TH_YAML_BOOL, true},    {"TRUE", TH_YAML_BOOL, true},
    {"on", TH_YAML_BOOL, true},      {"On", TH_YAML_BOOL, true},
    {"ON", TH_YAML_BOOL, true},      {"n", TH_YAML_BOOL, false},
    {"N", TH_YAML_BOOL, false},      {"no", TH_YAML_BOOL, false},
    {"No", TH_YAML_BOOL, false},     {"NO", TH_YAML_BOOL, false},
    {"false", TH_YAML_BOOL, false},  {"False", TH_YAML_BOOL, false},
    {"FALSE", TH_YAML_BOOL, false},  {"off", TH_YAML_BOOL, false},
    {"Off", TH_YAML_BOOL, false},    {"OFF", TH_YAML_BOOL, false},
    {"~", TH_YAML_NULL, false},      {"null", TH_YAML_NULL, false},
    {"Null", TH_YAML_NULL, false},   {"NULL", TH_YAML_NULL, false},
    {".nan", TH_YAML_RANGE, false},  {".NaN", TH_YAML_RANGE, false},
    {".NAN", TH_YAML_RANGE, false},  {".inf", TH_YAML_RANGE, false},
    {".Inf", TH_YAML_RANGE, false},  {".INF", TH_YAML_RANGE, false},
    {"+.inf", TH_YAML_RANGE, false}, {"+.Inf", TH_YAML_RANGE, false},
    {"+.INF", TH_YAML_RANGE, false}, {"-.inf", TH_YAML_RANGE, false},
    {"-.Inf", TH_YAML_RANGE, false}, {"-.INF", TH_YAML_RANGE, false},
    {"<<", TH_YAML_MERGE, false},
};

static size_t digits_at(const char *s)
{
    return strspn(s, "0123456789");
}

/* [-+]?(\.D+|D+(\.D*)?)([eE][-+]?D+)? over the whole string */
static bool is_float(const char *s)
{
    s += *s == '+' || *s == '-';
    size_t whole = digits_at(s);
    s += whole;
    if (*s == '.') {
        size_t fraction = digits_at(++s);
        if (whole == 0 && fraction == 0) {
            return false;
        }
        s += fraction;
    } else if (whole == 0) {
        return false;
    }
    if (*s == 'e' || *s == 'E') {
        s++;
        s += *s == '+' || *s == '-';
        size_t n = digits_at(s);
        if (n == 0) {
            return false;
        }
        s += n;
    }
    return *s == '\0';
}

/* Go's integer literals: 0x, 0o, 0b, a leading 0 for octal, else decimal. */
static bool as_integer(const char *s, struct th_yaml_value *v)
{
    bool negative = *s == '-';
    s += *s == '+' || *s == '-';
    int base = 10;
    if (s[0] == '0' && s[1]) {
        switch (s[1] | 0x20) {
        case 'x':
            base = 16;
            s += 2;
            break;
        case 'o':
            base = 8;
            s += 2;
            break;
        case 'b':
            base = 2;
            s += 2;
            break;
        default:
            base = 8;
            s++;
        }
    }
    const char *all = "0123456789abcdefABCDEF";
    size_t n = base == 16   ? strspn(s, all)
               : base == 10 ? digits_at(s)
               : base == 8  ? strspn(s, "01234567")
                            : strspn(s, "01");
    if (n == 0 || s[n]) {
        return false;
    }
    errno = 0;
    uint64_t u = strtoull(s, NULL, base);
    v->kind = TH_YAML_INT;
    if (errno == ERANGE || (negative && u > (uint64_t)INT64_MAX + 1)) {
        v->kind = TH_YAML_RANGE;
    } else if (negative) {
        v->i = (int64_t)-u;
    } else {
        v->is_unsigned = u > INT64_MAX;
        v->u = u;
        v->i = (int64_t)u;
    }
    return true;
}

/* low to high digits whose value is at most max. */
static bool take_field(const char **p, size_t low, size_t high, int max)
{
    size_t n = digits_at(*p);
    if (n < low || n > high) {
        return false;
    }
    int v = 0;
    for (size_t i = 0; i < n; i++) {
        v = v * 10 + (*p)[i] - '0';
    }
    *p += n;
    return v <= max;
}

static bool take_char(const char **p, const char *any_of)
{
    if (!**p || !strchr(any_of, **p)) {
        return false;
    }
    ++*p;
    return true;
}

/* Y-m-d, optionally "T" or " " and h:m:s with a fraction, the former with a zone. */
static bool is_time(const char *p)
{
    static const int month_days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int year = (int)strtol(p, NULL, 10);
    if (digits_at(p) != 4) {
        return false;
    }
    p += 4;
    int month = p[0] == '-' ? (int)strtol(p + 1, NULL, 10) : 0;
    if (month < 1 || month > 12 || !take_char(&p, "-") || !take_field(&p, 1, 2, 12) ||
        !take_char(&p, "-")) {
        return false;
    }
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    int last = month == 2 && !leap ? 28 : month_days[month - 1];
    if (strtol(p, NULL, 10) < 1 || !take_field(&p, 1, 2, last)) {
        return false;
    }
    if (!*p) {
        return true;
    }
    bool zoned = *p != ' ';
    if (!take_char(&p, "Tt ") || !take_field(&p, 1, 2, 23) || !take_char(&p, ":") ||
        !take_field(&p, 1, 2, 59) || !take_char(&p, ":") || !take_field(&p, 1, 2, 59)) {
        return false;
    }
    if (*p == '.' || *p == ',') {
        size_t n = digits_at(p + 1);
        if (n == 0) {
            return false;
        }
        p += n + 1;
    }
    if (zoned && !take_char(&p, "Z")) {
        return take_char(&p, "+-") && take_field(&p, 2, 2, 24) && take_char(&p, ":") &&
               take_field(&p, 2, 2, 60) && !*p;
    }
    return !*p;
}

static struct th_yaml_value number_or_string(const char *s, size_t n)
{
    struct th_yaml_value v = {.kind = TH_YAML_STR};
    char plain[512];
    if (n >= sizeof(plain)) {
        return v; /* Go would read a number of 500 digits as one; no value of ours is that long */
    }
    size_t m = 0;
    for (size_t i = 0; i < n; i++) {
        if (s[i] != '_') {
            plain[m++] = s[i];
        }
    }
    plain[m] = '\0';
    if (*s != '.' && as_integer(plain, &v)) {
        return v;
    }
    if (is_float(plain)) {
        v.d = strtod(plain, NULL);
        v.kind = isfinite(v.d) ? TH_YAML_FLOAT : TH_YAML_STR; /* Go's parser fails: a string */
    }
    return v;
}

struct th_yaml_value th_yaml_resolve(const char *s, size_t n)
{
    struct th_yaml_value v = {.kind = TH_YAML_STR};
    if (n == 0) {
        v.kind = TH_YAML_NULL;
        return v;
    }
    if (strlen(s) != n || !strchr("+-0123456789yYnNtTfFoO~.<", *s)) {
        return v;
    }
    for (size_t i = 0; n <= 5 && i < TH_ARRAY_LEN(words); i++) {
        if (strcmp(s, words[i].word) == 0) {
            v.kind = words[i].kind;
            v.b = words[i].b;
            return v;
        }
    }
    if (!strchr("+-0123456789.", *s)) {
        return v;
    }
    if (is_time(s)) {
        v.kind = TH_YAML_TIME;
        return v;
    }
    return number_or_string(s, n);
}

bool th_yaml_is_base60(const char *s, size_t n)
{
    if (strlen(s) != n) {
        return false;
    }
    s += *s == '+' || *s == '-';
    if (digits_at(s) == 0) {
        return false;
    }
    s += strspn(s, "0123456789_");
    if (*s != ':') {
        return false;
    }
    while (*s == ':') {
        size_t k = digits_at(++s);
        if (k == 0 || k > 2 || (k == 2 && *s > '5')) {
            return false;
        }
        s += k;
    }
    if (*s == '.') {
        s++;
        s += strspn(s, "0123456789_");
    }
    return *s == '\0';
}
