/*
 * Quantities: a number with a decimal (k, M, m, u, n, ...), binary (Ki, Mi, ...) or exponent (e3)
 * suffix, and the canonical text of each.
 *
 * Upstream keeps an int64 with a scale, and an arbitrary decimal where that overflows. Here one
 * 128-bit count of nano units holds both, since nothing finer than a nano exists (parsing rounds
 * away from zero there) and 1.7e29 units is past any resource. Above it a value is refused instead
 * of kept, the one place where this is narrower than upstream.
 *
 * The text that comes back to a client is not always canonical: upstream keeps the original text
 * when a quick look says that it is canonical already, and the quick look is generous ("+5",
 * "1.500" and "005" pass). th_quantity_normalize repeats that look, because clients compare what
 * they applied with what they read.
 */
#include "controlplane/schema/quantity.h"
#include "base/buf.h"
#include <inttypes.h>
#include <string.h>

#define NANO 1000000000

typedef __int128 i128;
typedef unsigned __int128 u128;
#define I128_MAX ((i128)(((u128)1 << 127) - 1))

struct suffix {
    char text[3];
    int8_t exp;
};
static const struct suffix decimal[] = {{"n", -9}, {"u", -6}, {"m", -3}, {"", 0},   {"k", 3},
                                        {"M", 6},  {"G", 9},  {"T", 12}, {"P", 15}, {"E", 18}};
static const struct suffix binary[] = {{"Ki", 10}, {"Mi", 20}, {"Gi", 30},
                                       {"Ti", 40}, {"Pi", 50}, {"Ei", 60}};

/* The parts of a quantity's text; num without leading zeros, "0" when there was none. */
struct parts {
    bool negative;
    const char *num, *denom;
    size_t n_num, n_denom;
    enum th_qformat format;
    int exp; /* of 10, or of 2 for the binary family */
};

static int bad_format(struct th_err *err)
{
    return th_fail(err, TH_R_BAD_REQUEST,
                   "quantities must match the regular expression "
                   "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'");
}

static int bad_number(struct th_err *err)
{
    return th_fail(err, TH_R_BAD_REQUEST, "unable to parse numeric part of quantity");
}

static bool interpret(const char *s, struct parts *p)
{
    for (size_t i = 0; i < TH_ARRAY_LEN(decimal); i++) {
        if (strcmp(s, decimal[i].text) == 0) {
            p->format = TH_Q_DECIMAL_SI;
            p->exp = decimal[i].exp;
            return true;
        }
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(binary); i++) {
        if (strcmp(s, binary[i].text) == 0) {
            p->format = TH_Q_BINARY_SI;
            p->exp = binary[i].exp;
            return true;
        }
    }
    if (s[0] != 'e' && s[0] != 'E') {
        return false;
    }
    bool minus = s[1] == '-';
    s += (s[1] == '-' || s[1] == '+') ? 2 : 1;
    if (*s == '\0' || s[strspn(s, "0123456789")]) {
        return false;
    }
    int v = 0;
    for (; *s; s++) {
        v = v > 100000 ? v : v * 10 + (*s - '0'); /* far outside already */
    }
    p->format = TH_Q_DECIMAL_EXP;
    p->exp = minus ? -v : v;
    return true;
}

static int split(const char *s, struct parts *p, struct th_err *err)
{
    static const char digits[] = "0123456789";
    *p = (struct parts){.num = "0", .n_num = 1, .denom = ""};
    if (*s == '\0') {
        return bad_format(err);
    }
    if (*s == '-' || *s == '+') {
        p->negative = *s++ == '-';
    }
    size_t digits_seen = strspn(s, "0");
    s += digits_seen;
    size_t n = strspn(s, digits);
    if (n > 0) {
        p->num = s;
        p->n_num = n;
        s += n;
        digits_seen += n;
    }
    if (*s == '.') {
        p->denom = ++s;
        p->n_denom = strspn(s, digits);
        s += p->n_denom;
    }
    const char *end = s + strspn(s, "eEinumkKMGTP");
    end += *end == '-' || *end == '+';
    end += strspn(end, digits);
    if (*end) {
        return bad_format(err);
    }
    if (!interpret(s, p)) {
        return th_fail(err, TH_R_BAD_REQUEST, "unable to parse quantity's suffix");
    }
    if (p->num[0] == '0' && p->n_denom == 0 && digits_seen == 0 && p->format == TH_Q_BINARY_SI &&
        p->exp >= 50) {
        return bad_number(err); /* a bare "Gi" is zero upstream, a bare "Pi" is not */
    }
    return 0;
}

/* v * 10^e, rounded away from zero when e is negative; false on overflow. */
static bool scale10(i128 *v, int e)
{
    for (; e > 0 && *v != 0; e--) {
        if (__builtin_mul_overflow(*v, (i128)10, v)) {
            return false;
        }
    }
    bool rest = false;
    for (; e < 0 && *v != 0; e++) {
        rest = rest || *v % 10 != 0;
        *v /= 10;
    }
    *v += rest;
    return true;
}

/* The magnitude in nano units. */
static bool magnitude(const struct parts *p, i128 *ret)
{
    i128 v = 0;
    int e = p->format == TH_Q_BINARY_SI ? 9 : p->exp + 9; /* still to multiply by 10^e */
    bool rest = false;                                     /* non-zero digits were dropped */
    for (size_t i = 0; i < p->n_num + p->n_denom; i++) {
        bool frac = i >= p->n_num;
        char c = frac ? p->denom[i - p->n_num] : p->num[i];
        i128 next;
        if (__builtin_mul_overflow(v, (i128)10, &next) ||
            __builtin_add_overflow(next, (i128)(c - '0'), &next)) {
            /* More digits than 128 bits hold. Behind the point they matter only to rounding. */
            if (!frac) {
                return false;
            }
            rest = rest || c != '0';
            continue;
        }
        v = next;
        e -= frac;
    }
    if (p->format == TH_Q_BINARY_SI) {
        /* 2^exp before the decimal scaling, so that "0.5Ki" is exact; where that overflows, the
         * cap below applies anyhow or the digits dropped are under a nano. */
        while (v > (I128_MAX >> p->exp) && e < 9) {
            rest = rest || v % 10 != 0;
            v /= 10;
            e++;
        }
        if (v > (I128_MAX >> p->exp)) {
            *ret = (i128)INT64_MAX * NANO;
            return true;
        }
        v <<= p->exp;
    }
    if (rest) {
        v += v < I128_MAX;
    }
    if (!scale10(&v, e)) {
        if (p->format != TH_Q_BINARY_SI) {
            return false;
        }
        v = (i128)INT64_MAX * NANO;
    }
    if (p->format == TH_Q_BINARY_SI && v > (i128)INT64_MAX * NANO) {
        v = (i128)INT64_MAX * NANO;
    }
    *ret = v;
    return true;
}

static int parse(const char *s, struct parts *p, struct th_quantity *ret, struct th_err *err)
{
    TH_TRY(split(s ? s : "", p, err));
    i128 v;
    if (!magnitude(p, &v)) {
        return bad_number(err);
    }
    enum th_qformat f = p->format;
    if (f == TH_Q_BINARY_SI && v > 0 && v < NANO) {
        f = TH_Q_DECIMAL_SI;
    }
    *ret = (struct th_quantity){.nano = p->negative ? -v : v, .format = f};
    return 0;
}

int th_quantity_parse(const char *s, struct th_quantity *ret, struct th_err *err)
{
    struct parts p;
    return parse(s, &p, ret, err);
}

/* Digits of |v|; returns the first. buf has 48 bytes. */
static char *digits_of(i128 v, char *buf)
{
    u128 u = v < 0 ? -(u128)v : (u128)v;
    char *p = buf + 47;
    *p = '\0';
    do {
        *--p = (char)('0' + (int)(u % 10));
        u /= 10;
    } while (u);
    if (v < 0) {
        *--p = '-';
    }
    return p;
}

char *th_quantity_format(struct th_quantity q, char *buf)
{
    char num[48];
    i128 v = q.nano;
    int e = -9;
    enum th_qformat f = q.format;
    if (v == 0) {
        memcpy(buf, "0", 2);
        return buf;
    }
    if (f == TH_Q_BINARY_SI) {
        i128 limit = (i128)1024 * NANO;
        if ((v > -limit && v < limit) || v % NANO != 0) {
            f = TH_Q_DECIMAL_SI;
        } else {
            v /= NANO;
            size_t k = 0;
            for (; k < TH_ARRAY_LEN(binary) && v % 1024 == 0; k++) {
                v /= 1024;
            }
            (void)snprintf(buf, TH_QUANTITY_LEN, "%s%s", digits_of(v, num),
                           k ? binary[k - 1].text : "");
            return buf;
        }
    }
    /* Steps of a thousand: what upstream gets by moving all tens into the exponent and then back
     * until it is a multiple of three. */
    while (v % 1000 == 0 && (f == TH_Q_DECIMAL_EXP || e < 18)) {
        v /= 1000;
        e += 3;
    }
    char *text = digits_of(v, num);
    if (f == TH_Q_DECIMAL_EXP) {
        (void)snprintf(buf, TH_QUANTITY_LEN, e ? "%se%d" : "%s", text, e);
    } else {
        (void)snprintf(buf, TH_QUANTITY_LEN, "%s%s", text, decimal[(e + 9) / 3].text);
    }
    return buf;
}

/* Upstream's quick look: would it keep the text as it is? */
static bool keeps_text(const struct parts *p, size_t len)
{
    if (len >= TH_QUANTITY_LEN) {
        return false;
    }
    int digits = (int)(p->n_num + p->n_denom);
    char last = p->num[p->n_num - 1];
    if (p->format == TH_Q_BINARY_SI) {
        if (p->n_denom != 0 || 15 - digits - p->exp * 3 / 10 - 1 < 0) {
            return false;
        }
        int tail = last - '0'; /* the value modulo 8: its last three digits decide */
        for (size_t i = 1, unit = 10; i < 3 && i < p->n_num; i++, unit *= 10) {
            tail += (p->num[p->n_num - 1 - i] - '0') * (int)unit;
        }
        return tail % 8 != 0;
    }
    int scale = p->exp - (int)p->n_denom;
    if (digits > 18 || scale < -9 || scale % 3 != 0 || p->num[0] == '0') {
        return false;
    }
    char tail[3];
    for (int i = 0; i < 3; i++) {
        size_t back = (size_t)i + 1;
        if (back > (size_t)digits) {
            return true;
        }
        tail[i] = back <= p->n_denom ? p->denom[p->n_denom - back]
                                     : p->num[p->n_num - (back - p->n_denom)];
    }
    return memcmp(tail, "000", 3) != 0;
}

int th_quantity_normalize(const char *s, char *buf, struct th_err *err)
{
    struct parts p;
    struct th_quantity q;
    TH_TRY(parse(s, &p, &q, err));
    if (keeps_text(&p, strlen(s))) {
        memcpy(buf, s, strlen(s) + 1);
    } else {
        (void)th_quantity_format(q, buf);
    }
    return 0;
}

static int64_t round_up(i128 v, int64_t unit)
{
    i128 r = v / unit;
    if (v % unit != 0) {
        r += v > 0 ? 1 : -1;
    }
    return r > INT64_MAX ? INT64_MAX : r < INT64_MIN ? INT64_MIN : (int64_t)r;
}

int64_t th_quantity_milli(struct th_quantity q)
{
    return round_up(q.nano, NANO / 1000);
}

int64_t th_quantity_value(struct th_quantity q)
{
    return round_up(q.nano, NANO);
}

struct th_quantity th_quantity_from_value(int64_t v, enum th_qformat f)
{
    return (struct th_quantity){.nano = (i128)v * NANO, .format = f};
}

struct th_quantity th_quantity_from_milli(int64_t v, enum th_qformat f)
{
    return (struct th_quantity){.nano = (i128)v * (NANO / 1000), .format = f};
}

int th_quantity_cmp(struct th_quantity a, struct th_quantity b)
{
    return (a.nano > b.nano) - (a.nano < b.nano);
}

struct th_quantity th_quantity_add(struct th_quantity a, struct th_quantity b)
{
    struct th_quantity r = {.format = a.nano == 0 ? b.format : a.format};
    if (__builtin_add_overflow(a.nano, b.nano, &r.nano)) {
        r.nano = a.nano > 0 ? I128_MAX : -I128_MAX;
    }
    return r;
}

struct th_quantity th_quantity_sub(struct th_quantity a, struct th_quantity b)
{
    struct th_quantity r = {.format = a.nano == 0 ? b.format : a.format};
    if (__builtin_sub_overflow(a.nano, b.nano, &r.nano)) {
        r.nano = a.nano > 0 ? I128_MAX : -I128_MAX;
    }
    return r;
}
