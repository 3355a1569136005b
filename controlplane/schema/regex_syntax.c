/*
 * Go's regular expression syntax, checked and rewritten for PCRE2.
 *
 * The two dialects share most of their syntax but not all: PCRE2 has look-around, back references,
 * recursion, possessive and atomic groups, which RE2 refuses because they cannot be matched in
 * linear time; and some escapes mean other things (\s without vertical tab, \v one character, \Z
 * and \G unknown). So a pattern is scanned once here: what Go refuses is refused with Go's words,
 * what differs is written so that PCRE2 understands the same, all else is copied.
 *
 * Limits: Go's own, a repeat count and the product of nested ones of 1000, and 1000 levels of
 * groups. Class names (\p{Greek}) are checked by PCRE2.
 */
#include "controlplane/schema/regex_syntax.h"

#define MAX_REPEAT 1000
#define MAX_DEPTH 256

struct scan {
    const char *p, *end, *start;
    struct th_buf *out;
    struct th_strv *names;
    struct th_err *err;
    int depth;
    unsigned product; /* of the counted repeats of what was read last */
    bool literal_brace;
};

static int fail(struct scan *s, const char *what, const char *from, const char *to)
{
    return th_fail(s->err, TH_R_INVALID, "error parsing regexp: %s: `%.*s`", what,
                   (int)(to - from), from);
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static int hex_value(char c)
{
    return is_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                 : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                        : -1;
}

/* Bytes of the character at p. */
static size_t char_len(const char *p, const char *end)
{
    size_t n = 1;
    while (p + n < end && ((unsigned char)p[n] & 0xc0) == 0x80) {
        n++;
    }
    return n;
}

static void put_code(struct scan *s, unsigned code)
{
    th_buf_printf(s->out, "\\x{%X}", code);
}

/* \x41, \x{10FFFF}; p stands behind the x. */
static int hex_escape(struct scan *s, const char *from, unsigned *ret)
{
    unsigned v = 0;
    if (s->p < s->end && *s->p == '{') {
        const char *q = s->p + 1;
        int digits = 0;
        for (; q < s->end && *q != '}'; q++, digits++) {
            int h = hex_value(*q);
            v = v * 16 + (unsigned)h;
            if (h < 0 || v > 0x10ffff) {
                return fail(s, "invalid escape sequence", from, q + 1);
            }
        }
        if (q >= s->end || digits == 0) {
            return fail(s, "invalid escape sequence", from, q < s->end ? q + 1 : s->end);
        }
        s->p = q + 1;
    } else {
        if (s->end - s->p < 2 || hex_value(s->p[0]) < 0 || hex_value(s->p[1]) < 0) {
            const char *to = s->p + 2 < s->end ? s->p + 2 : s->end;
            return fail(s, "invalid escape sequence", from, to);
        }
        v = (unsigned)(hex_value(s->p[0]) * 16 + hex_value(s->p[1]));
        s->p += 2;
    }
    *ret = v;
    return 0;
}

/* One escaped character that means itself, inside and outside of classes; from is the backslash.
 * 1 with *ret, 0 when it is none of these. */
static int char_escape(struct scan *s, const char *from, unsigned *ret)
{
    char c = *s->p;
    static const char letters[] = "aftnrv", codes[] = "\a\f\t\n\r\v";
    const char *at = strchr(letters, c);
    if (at && c) {
        s->p++;
        *ret = (unsigned char)codes[at - letters];
        return 1;
    }
    if (c == 'x') {
        s->p++;
        TH_TRY(hex_escape(s, from, ret));
        return 1;
    }
    if (c >= '0' && c <= '7' && (c == '0' || (s->p + 1 < s->end && s->p[1] >= '0' && s->p[1] <= '7'))) {
        unsigned v = 0;
        for (int i = 0; i < 3 && s->p < s->end && *s->p >= '0' && *s->p <= '7'; i++) {
            v = v * 8 + (unsigned)(*s->p++ - '0');
        }
        *ret = v;
        return 1;
    }
    if ((unsigned char)c < 0x80 && !is_word(c)) {
        s->p++;
        *ret = (unsigned char)c;
        return 1;
    }
    return 0;
}

/* \pN and \p{Greek}: copied; PCRE2 knows the names. */
static int unicode_class(struct scan *s, const char *from)
{
    const char *q = s->p + 1;
    if (q < s->end && *q == '{') {
        while (q < s->end && *q != '}') {
            q++;
        }
        if (q == s->end) {
            return fail(s, "invalid character class range", from, s->end);
        }
    }
    if (q >= s->end) {
        return fail(s, "invalid character class range", from, s->end);
    }
    q += char_len(q, s->end);
    th_buf_add(s->out, from, (size_t)(q - from));
    s->p = q;
    return 1;
}

/* \d \s \w and \p inside or outside of a class: 1 when written. */
static int class_escape(struct scan *s, const char *from, bool inside)
{
    switch (*s->p) {
    case 'd':
    case 'D':
    case 'w':
    case 'W':
        th_buf_add(s->out, from, 2);
        s->p++;
        return 1;
    case 's':
        th_buf_puts(s->out, inside ? "\\t\\n\\f\\r\\x20" : "[\\t\\n\\f\\r\\x20]");
        s->p++;
        return 1;
    case 'S':
        th_buf_puts(s->out, inside ? "\\x00-\\x08\\x0B\\x0E-\\x1F\\x21-\\x{10FFFF}"
                                   : "[^\\t\\n\\f\\r\\x20]");
        s->p++;
        return 1;
    case 'p':
    case 'P':
        return unicode_class(s, from);
    default:
        return 0;
    }
}

/* One end of a range in a class. */
static int class_char(struct scan *s, const char *class_start, unsigned *ret)
{
    if (s->p >= s->end) {
        return fail(s, "missing closing ]", class_start, s->end);
    }
    if (*s->p == '\\') {
        const char *from = s->p++;
        if (s->p >= s->end) {
            return fail(s, "trailing backslash at end of expression", s->end, s->end);
        }
        int r = char_escape(s, from, ret);
        if (r == 0) {
            return fail(s, "invalid escape sequence", from, s->p + char_len(s->p, s->end));
        }
        return r;
    }
    size_t n = char_len(s->p, s->end);
    unsigned char c = (unsigned char)*s->p;
    unsigned v = n == 1 ? c : n == 2 ? c & 0x1fu : n == 3 ? c & 0xfu : c & 7u;
    for (size_t i = 1; i < n; i++) {
        v = v << 6 | ((unsigned char)s->p[i] & 0x3fu);
    }
    s->p += n;
    *ret = v;
    return 1;
}

static bool posix_class(struct scan *s)
{
    static const char *const names[] = {"alnum", "alpha", "ascii", "blank", "cntrl", "digit",
                                        "graph", "lower", "print", "punct", "space", "upper",
                                        "word",  "xdigit"};
    for (size_t i = 0; i < TH_ARRAY_LEN(names); i++) {
        for (int neg = 0; neg < 2; neg++) {
            char text[16];
            int n = snprintf(text, sizeof(text), "[:%s%s:]", neg ? "^" : "", names[i]);
            if (s->end - s->p >= n && memcmp(s->p, text, (size_t)n) == 0) {
                th_buf_add(s->out, text, (size_t)n);
                s->p += n;
                return true;
            }
        }
    }
    return false;
}

static int char_class(struct scan *s)
{
    const char *start = s->p++;
    th_buf_putc(s->out, '[');
    if (s->p < s->end && *s->p == '^') {
        th_buf_putc(s->out, '^');
        s->p++;
    }
    for (bool first = true; s->p >= s->end || *s->p != ']' || first; first = false) {
        if (s->p >= s->end) {
            return fail(s, "missing closing ]", start, s->end);
        }
        if (*s->p == '-' && !first && s->p + 1 < s->end && s->p[1] != ']') {
            /* Go: a bare - in the middle must be the start of a range */
            const char *q = s->p + 1 + char_len(s->p + 1, s->end);
            return fail(s, "invalid character class range", s->p, q);
        }
        if (s->end - s->p > 2 && s->p[0] == '[' && s->p[1] == ':') {
            if (posix_class(s)) {
                continue;
            }
            const char *close = strstr(s->p, ":]");
            if (close && close < s->end) {
                return fail(s, "invalid character class range", s->p, close + 2);
            }
        }
        if (*s->p == '\\' && s->p + 1 < s->end) {
            const char *from = s->p++;
            int r = class_escape(s, from, true);
            if (r != 0) {
                TH_TRY(r);
                continue;
            }
            s->p = from;
        }
        const char *range = s->p;
        unsigned lo, hi;
        TH_TRY(class_char(s, start, &lo));
        hi = lo;
        if (s->end - s->p >= 2 && s->p[0] == '-' && s->p[1] != ']') {
            s->p++;
            TH_TRY(class_char(s, start, &hi));
            if (hi < lo) {
                return fail(s, "invalid character class range", range, s->p);
            }
        }
        put_code(s, lo);
        if (hi != lo) {
            th_buf_putc(s->out, '-');
            put_code(s, hi);
        }
    }
    s->p++;
    th_buf_putc(s->out, ']');
    return 0;
}

/* Behind a backslash outside of a class. *ret_atom is false for \Q..\E, which may hold nothing. */
static int escape(struct scan *s, bool *ret_atom)
{
    const char *from = s->p++;
    if (s->p >= s->end) {
        return fail(s, "trailing backslash at end of expression", s->end, s->end);
    }
    *ret_atom = true;
    switch (*s->p) {
    case 'A':
    case 'b':
    case 'B':
    case 'z':
        th_buf_add(s->out, from, 2);
        s->p++;
        return 0;
    case 'Q': {
        s->p++;
        const char *at = s->p;
        while (s->p < s->end && !(s->end - s->p >= 2 && s->p[0] == '\\' && s->p[1] == 'E')) {
            if ((unsigned char)*s->p < 0x80 && !is_word(*s->p)) {
                th_buf_putc(s->out, '\\');
            }
            th_buf_putc(s->out, *s->p++);
        }
        *ret_atom = s->p > at;
        s->p = s->p < s->end ? s->p + 2 : s->end;
        return 0;
    }
    default:
        break;
    }
    int r = class_escape(s, from, false);
    if (r != 0) {
        return r < 0 ? r : 0;
    }
    unsigned code;
    r = char_escape(s, from, &code);
    if (r == 0) {
        return fail(s, "invalid escape sequence", from, s->p + char_len(s->p, s->end));
    }
    TH_TRY(r);
    put_code(s, code);
    return 0;
}

/* "{2}", "{2,}", "{2,5}" at p: its length, or 0 when it is plain text. */
static size_t counted(const char *p, const char *end, long *ret_min, long *ret_max)
{
    const char *q = p + 1;
    long v[2] = {-1, -1};
    for (int i = 0; i < 2; i++) {
        if (q < end && is_digit(*q)) {
            v[i] = 0;
            for (; q < end && is_digit(*q); q++) {
                v[i] = v[i] > 100000 ? v[i] : v[i] * 10 + (*q - '0');
            }
        } else if (i == 0) {
            return 0;
        }
        if (i == 0) {
            if (q < end && *q == '}') {
                v[1] = v[0];
                break;
            }
            if (q >= end || *q != ',') {
                return 0;
            }
            q++;
        }
    }
    if (q >= end || *q != '}') {
        return 0;
    }
    *ret_min = v[0];
    *ret_max = v[1];
    return (size_t)(q + 1 - p);
}

/* A repetition at p, with its lazy mark: its length or 0. */
static size_t repeat_at(const char *p, const char *end, long *ret_min, long *ret_max)
{
    size_t n = 0;
    *ret_min = -2;
    if (p < end && (*p == '*' || *p == '+' || *p == '?')) {
        n = 1;
    } else if (p < end && *p == '{') {
        n = counted(p, end, ret_min, ret_max);
    }
    if (n && p + n < end && p[n] == '?') {
        n++;
    }
    return n;
}

static int repetition(struct scan *s, bool have_atom, bool *ret_done)
{
    long min, max;
    size_t n = repeat_at(s->p, s->end, &min, &max);
    *ret_done = n > 0;
    if (n == 0) {
        return 0;
    }
    if (!have_atom) {
        return fail(s, "missing argument to repetition operator", s->p, s->p + n);
    }
    if (min != -2) {
        if (min > MAX_REPEAT || max > MAX_REPEAT || (max >= 0 && max < min)) {
            return fail(s, "invalid repeat count", s->p, s->p + n);
        }
        long top = max > min ? max : min;
        s->product *= (unsigned)(top > 0 ? top : 1);
        if (s->product > MAX_REPEAT) {
            return fail(s, "invalid repeat count", s->p, s->p + n);
        }
    }
    long a, b;
    size_t more = repeat_at(s->p + n, s->end, &a, &b);
    if (more) {
        return fail(s, "invalid nested repetition operator", s->p, s->p + n + more);
    }
    th_buf_add(s->out, s->p, n);
    s->p += n;
    return 0;
}

/* Behind "(?": flags or a name. *ret_group is false for "(?i)", which opens nothing. */
static int group_kind(struct scan *s, const char *from, bool *ret_group)
{
    const char *q = s->p; /* behind the ? */
    *ret_group = true;
    bool python = s->end - q >= 2 && q[0] == 'P' && q[1] == '<';
    bool angle = q < s->end && q[0] == '<' && !(q + 1 < s->end && (q[1] == '=' || q[1] == '!'));
    if (python || angle) {
        const char *name = q + (python ? 2 : 1), *e = name;
        while (e < s->end && *e != '>') {
            e++;
        }
        if (e == s->end) {
            return fail(s, "invalid named capture", from, s->end);
        }
        bool ok = e > name && !is_digit(*name);
        for (const char *c = name; c < e; c++) {
            ok = ok && is_word(*c);
        }
        th_autofree char *text = th_xstrndup(name, (size_t)(e - name));
        if (!ok) {
            return fail(s, "invalid named capture", from, e + 1);
        }
        if (th_strv_has(s->names, text)) {
            return fail(s, "duplicate capture group name", name, e);
        }
        th_strv_add(s->names, text);
        th_buf_putc(s->out, '('); /* PCRE2 need not know the name, whose length it limits */
        s->p = e + 1;
        return 0;
    }
    bool minus = false, any = false;
    th_buf_puts(s->out, "(?");
    for (; q < s->end; q++) {
        if (strchr("imsU", *q) && *q) {
            any = true;
        } else if (*q == '-' && !minus) {
            minus = true;
            any = false;
        } else if ((*q == ':' || *q == ')') && (!minus || any)) {
            th_buf_add(s->out, s->p, (size_t)(q + 1 - s->p));
            *ret_group = *q == ':';
            s->p = q + 1;
            return 0;
        } else {
            break;
        }
    }
    return q >= s->end ? fail(s, "missing closing )", s->start, s->end)
                       : fail(s, "invalid or unsupported Perl syntax", from,
                              q + char_len(q, s->end));
}

static int alternatives(struct scan *s);

static int group(struct scan *s, bool *ret_atom)
{
    const char *from = s->p++;
    bool opens = true;
    *ret_atom = true;
    if (s->p < s->end && *s->p == '?') {
        s->p++;
        TH_TRY(group_kind(s, from, &opens));
    } else {
        th_strv_add(s->names, "");
        th_buf_putc(s->out, '(');
    }
    if (!opens) {
        *ret_atom = false;
        return 0;
    }
    if (++s->depth > MAX_DEPTH) {
        return fail(s, "expression nests too deeply", s->start, s->end);
    }
    TH_TRY(alternatives(s));
    s->depth--;
    if (s->p >= s->end) {
        return fail(s, "missing closing )", s->start, s->end);
    }
    s->p++;
    th_buf_putc(s->out, ')');
    return 0;
}

/* Up to a closing bracket or the end. */
static int alternatives(struct scan *s)
{
    bool atom = false;
    unsigned most = 1;
    while (s->p < s->end && *s->p != ')') {
        bool done = false;
        s->product = atom ? s->product : 1;
        TH_TRY(repetition(s, atom, &done));
        most = s->product > most ? s->product : most;
        if (done) {
            continue;
        }
        s->product = 1;
        switch (*s->p) {
        case '(':
            TH_TRY(group(s, &atom));
            most = s->product > most ? s->product : most;
            break;
        case '[':
            TH_TRY(char_class(s));
            atom = true;
            break;
        case '\\':
            TH_TRY(escape(s, &atom));
            break;
        case '|':
            th_buf_putc(s->out, *s->p++);
            atom = false;
            break;
        case '{':
        case '}':
        case ']':
        case '#':
        case ' ':
            th_buf_putc(s->out, '\\');
            th_buf_putc(s->out, *s->p++);
            atom = true;
            break;
        default:
            if ((unsigned char)*s->p < 0x20) {
                put_code(s, (unsigned char)*s->p++);
            } else {
                th_buf_putc(s->out, *s->p++);
            }
            while (s->p < s->end && ((unsigned char)*s->p & 0xc0) == 0x80) {
                th_buf_putc(s->out, *s->p++);
            }
            atom = true;
        }
    }
    s->product = most;
    return 0;
}

int th_regex_translate(const char *p, size_t n, struct th_buf *out, struct th_strv *names,
                       struct th_err *err)
{
    struct scan s = {.p = p, .end = p + n, .start = p, .out = out, .names = names, .err = err,
                     .product = 1};
    TH_TRY(alternatives(&s));
    return s.p < s.end ? fail(&s, "unexpected )", s.start, s.end) : 0;
}
