/* A strict reading of JSON text, without building anything.
 *
 * Problem: what clients send must be accepted or refused exactly as RFC 8259 says, with a position
 * and a reason a person can act on, and the API has to name members that are given twice. A
 * tree builder answers neither question well.
 * Design: one pass over the bytes with a stack of one byte per level. Strings are skipped eight
 * bytes at a time while they are plain ASCII. The pass counts members; the caller compares that
 * with the tree, and only when they differ does a second, slower walk find the duplicates, so the
 * usual document pays nothing for the check.
 *
 * What is refused beyond the grammar: more than TH_LIMIT_JSON_DEPTH levels, invalid UTF-8, integers
 * outside [-2^63, 2^64), doubles that overflow, and member names holding an escaped NUL (a C string
 * could not tell them apart). Unpaired surrogate escapes are left to become U+FFFD, as in Go.
 */
#include "base/json/json_priv.h"

#include "base/encode.h"
#include "base/hmap.h"
#include "base/limits.h"

#include <math.h>

#define MAX_DUPS 100 /* as many as upstream reports for one document */

struct scan {
    const char *start, *p, *end;
    const char *problem; /* set with p at the offending byte */
};

#define ONES 0x0101010101010101ull
#define HIGHS 0x8080808080808080ull

/* Skips bytes that need no look inside a string: printable ASCII except '"' and '\'. */
static const char *skip_plain(const char *p, const char *end)
{
    while (end - p >= 8) {
        uint64_t w;
        memcpy(&w, p, sizeof(w));
        uint64_t quote = w ^ (ONES * '"');
        uint64_t slash = w ^ (ONES * '\\');
        uint64_t special = (quote - ONES) | (slash - ONES) | (w - ONES * 0x20) | w;
        if (special & HIGHS) {
            break;
        }
        p += 8;
    }
    while (p < end) {
        unsigned char c = (unsigned char)*p;
        if (c == '"' || c == '\\' || c < 0x20 || c >= 0x80) {
            break;
        }
        p++;
    }
    return p;
}

static void skip_space(struct scan *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\r' || *s->p == '\t')) {
        s->p++;
    }
}

static bool problem(struct scan *s, const char *what)
{
    s->problem = what;
    return false;
}

static bool is_digit(const char *p, const char *end)
{
    return p < end && *p >= '0' && *p <= '9';
}

static bool is_hex(char c)
{
    return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f');
}

static bool scan_escape(struct scan *s, bool is_name)
{
    if (s->end - s->p < 2) {
        s->p = s->end;
        return problem(s, "unterminated string");
    }
    char c = s->p[1];
    if (c != 'u') {
        if (!c || !strchr("\"\\/bfnrt", c)) {
            return problem(s, "invalid escape in string");
        }
        s->p += 2;
        return true;
    }
    for (int i = 2; i < 6; i++) {
        if (s->p + i >= s->end || !is_hex(s->p[i])) {
            return problem(s, "invalid \\u escape in string");
        }
    }
    if (is_name && memcmp(s->p + 2, "0000", 4) == 0) {
        return problem(s, "NUL in a member name");
    }
    s->p += 6;
    return true;
}

/* At the opening quote; ends after the closing one. */
static bool scan_string(struct scan *s, bool is_name)
{
    s->p++;
    for (;;) {
        s->p = skip_plain(s->p, s->end);
        if (s->p == s->end) {
            return problem(s, "unterminated string");
        }
        unsigned char c = (unsigned char)*s->p;
        if (c == '"') {
            s->p++;
            return true;
        }
        if (c == '\\') {
            if (!scan_escape(s, is_name)) {
                return false;
            }
        } else if (c < 0x20) {
            return problem(s, "control character in string");
        } else {
            size_t n = th_utf8_next(s->p, (size_t)(s->end - s->p));
            if (n == 0) {
                return problem(s, "invalid UTF-8");
            }
            s->p += n;
        }
    }
}

static bool integer_fits(const char *digits, size_t n, bool negative)
{
    const char *max = negative ? "9223372036854775808" : "18446744073709551615";
    size_t m = strlen(max);
    return n < m || (n == m && memcmp(digits, max, n) <= 0);
}

static bool double_fits(const char *p, size_t n)
{
    th_autofree char *z = th_xstrndup(p, n);
    return isfinite(strtod(z, NULL));
}

static bool scan_number(struct scan *s)
{
    const char *begin = s->p;
    bool negative = *s->p == '-';
    s->p += negative;
    const char *digits = s->p;
    if (!is_digit(s->p, s->end)) {
        return problem(s, "expected a digit");
    }
    if (*s->p == '0' && is_digit(s->p + 1, s->end)) {
        return problem(s, "number with a leading zero");
    }
    while (is_digit(s->p, s->end)) {
        s->p++;
    }
    size_t int_digits = (size_t)(s->p - digits);
    bool is_double = false;
    if (s->p < s->end && *s->p == '.') {
        is_double = true;
        s->p++;
        if (!is_digit(s->p, s->end)) {
            return problem(s, "expected a digit after the decimal point");
        }
        while (is_digit(s->p, s->end)) {
            s->p++;
        }
    }
    bool has_exp = s->p < s->end && (*s->p == 'e' || *s->p == 'E');
    if (has_exp) {
        s->p++;
        if (s->p < s->end && (*s->p == '+' || *s->p == '-')) {
            s->p++;
        }
        if (!is_digit(s->p, s->end)) {
            return problem(s, "expected a digit in the exponent");
        }
        while (is_digit(s->p, s->end)) {
            s->p++;
        }
    }
    bool fits = is_double || has_exp
                    ? (!has_exp && int_digits < 300) || double_fits(begin, (size_t)(s->p - begin))
                    : integer_fits(digits, int_digits, negative);
    if (!fits) {
        s->p = begin;
        return problem(s, "number out of range");
    }
    return true;
}

static bool scan_word(struct scan *s, const char *word)
{
    size_t n = strlen(word);
    if ((size_t)(s->end - s->p) < n || memcmp(s->p, word, n) != 0) {
        return problem(s, "expected a value");
    }
    s->p += n;
    return true;
}

static bool scan_scalar(struct scan *s)
{
    switch (*s->p) {
    case '"':
        return scan_string(s, false);
    case 't':
        return scan_word(s, "true");
    case 'f':
        return scan_word(s, "false");
    case 'n':
        return scan_word(s, "null");
    case '-':
    case '0' ... '9':
        return scan_number(s);
    default:
        return problem(s, "expected a value");
    }
}

/* "name" ':' with the space around it. */
static bool scan_name(struct scan *s)
{
    skip_space(s);
    if (s->p == s->end || *s->p != '"') {
        return problem(s, "expected a member name in double quotes");
    }
    if (!scan_string(s, true)) {
        return false;
    }
    skip_space(s);
    if (s->p == s->end || *s->p != ':') {
        return problem(s, "expected ':' after a member name");
    }
    s->p++;
    return true;
}

static bool scan_document(struct scan *s, size_t *members)
{
    char closer[TH_LIMIT_JSON_DEPTH]; /* what ends each open level */
    size_t depth = 0;
    for (;;) {
        skip_space(s);
        if (s->p == s->end) {
            return problem(s, s->p == s->start || depth == 0 ? "expected a value"
                                                             : "unexpected end of document");
        }
        if (*s->p == '{' || *s->p == '[') {
            if (depth == TH_LIMIT_JSON_DEPTH) {
                return problem(s, "nested too deeply");
            }
            char close = closer[depth++] = *s->p == '{' ? '}' : ']';
            s->p++;
            skip_space(s);
            if (s->p < s->end && *s->p == close) {
                s->p++;
                depth--;
            } else if (close == '}') {
                if (!scan_name(s)) {
                    return false;
                }
                ++*members;
                continue;
            } else {
                continue;
            }
        } else if (!scan_scalar(s)) {
            return false;
        }
        /* A value is complete: close levels until one goes on. */
        for (;;) {
            skip_space(s);
            if (depth == 0) {
                return s->p == s->end || problem(s, "unexpected text after the document");
            }
            if (s->p == s->end) {
                return problem(s, "unexpected end of document");
            }
            if (*s->p == ',') {
                s->p++;
                break;
            }
            if (*s->p != closer[depth - 1]) {
                return problem(s, closer[depth - 1] == '}' ? "expected ',' or '}'"
                                                           : "expected ',' or ']'");
            }
            s->p++;
            depth--;
        }
        if (closer[depth - 1] == '}') {
            if (!scan_name(s)) {
                return false;
            }
            ++*members;
        }
    }
}

int th_json_scan(const char *p, size_t n, size_t *ret_members, struct th_err *err)
{
    struct scan s = {.start = p, .p = p, .end = p + n};
    size_t members = 0;
    if (scan_document(&s, &members)) {
        *ret_members = members;
        return 0;
    }
    size_t line = 1;
    const char *line_start = p;
    for (const char *q = p; q < s.p; q++) {
        if (*q == '\n') {
            line++;
            line_start = q + 1;
        }
    }
    return th_fail(err, TH_R_PARSE, "line %zu, column %zu: %s", line,
                   (size_t)(s.p - line_start) + 1, s.problem);
}

/* The walk for duplicates: recursive descent over text that is known to be well formed. */
struct dup_walk {
    struct scan s;
    struct th_buf path;
    struct th_hmap seen; /* paths already reported */
    struct th_strv *out;
};

static void dup_value(struct dup_walk *w);

static void dup_report(struct dup_walk *w)
{
    const char *path = th_buf_cstr(&w->path);
    if (w->out->n < MAX_DUPS && !th_hmap_has(&w->seen, path)) {
        th_hmap_set(&w->seen, path, NULL);
        th_strv_add(w->out, path);
    }
}

/* The member name at s.p, with its escapes resolved. */
static char *dup_name(struct dup_walk *w)
{
    const char *from = w->s.p;
    (void)scan_string(&w->s, true);
    size_t n = (size_t)(w->s.p - from);
    if (!memchr(from, '\\', n)) {
        return th_xstrndup(from + 1, n - 2);
    }
    TH_AUTO(th_json) struct th_json *name = NULL;
    TH_ASSERT(th_json_parse(from, n, NULL, &name, NULL) == 0);
    return th_xstrdup(th_json_str(name));
}

static void dup_object(struct dup_walk *w)
{
    struct th_hmap names;
    th_hmap_init(&names, NULL);
    size_t base = w->path.n;
    do {
        w->s.p++; /* '{' or ',' */
        skip_space(&w->s);
        if (*w->s.p == '}') {
            break;
        }
        th_autofree char *name = dup_name(w);
        skip_space(&w->s);
        w->s.p++; /* ':' */
        if (base) {
            th_buf_putc(&w->path, '.');
        }
        th_buf_puts(&w->path, name);
        if (th_hmap_has(&names, name)) {
            dup_report(w);
        }
        th_hmap_set(&names, name, NULL);
        dup_value(w);
        th_buf_truncate(&w->path, base);
        skip_space(&w->s);
    } while (*w->s.p == ',');
    w->s.p++;
    th_hmap_done(&names);
}

static void dup_array(struct dup_walk *w)
{
    size_t base = w->path.n;
    size_t i = 0;
    do {
        w->s.p++; /* '[' or ',' */
        skip_space(&w->s);
        if (*w->s.p == ']') {
            break;
        }
        th_buf_printf(&w->path, "[%zu]", i++);
        dup_value(w);
        th_buf_truncate(&w->path, base);
        skip_space(&w->s);
    } while (*w->s.p == ',');
    w->s.p++;
}

static void dup_value(struct dup_walk *w)
{
    skip_space(&w->s);
    if (*w->s.p == '{') {
        dup_object(w);
    } else if (*w->s.p == '[') {
        dup_array(w);
    } else {
        (void)scan_scalar(&w->s);
    }
}

void th_json_scan_dups(const char *p, size_t n, struct th_strv *dups)
{
    struct dup_walk w = {.s = {.start = p, .p = p, .end = p + n}, .out = dups};
    th_hmap_init(&w.seen, NULL);
    dup_value(&w);
    th_hmap_done(&w.seen);
    th_buf_done(&w.path);
}
