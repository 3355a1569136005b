/* Variables and quotes of the Dockerfile language.
 *
 * One recursive scanner: outside quotes the escape character takes the next byte as it is; single
 * quotes take everything; double quotes expand $ and let the escape character guard only quotes,
 * dollars and itself. ${...} may carry a modifier whose word is scanned in the same way up to the
 * closing brace. Depth and output are limited, since build arguments come from outside.
 */
#include "images/dockerfile.h"

#include <ctype.h>

#define DEPTH_MAX 32
#define OUT_MAX (1u << 20)

struct scan {
    const char *p;
    char escape;
    th_df_lookup fn;
    void *arg;
    struct th_err *err;
    int depth;
    struct th_strv *words; /* split at unquoted blanks when not NULL */
    bool word_open;
};

static int until(struct scan *s, char stop, struct th_buf *out);

static int bad(struct scan *s, const char *why)
{
    return th_fail(s->err, TH_R_DOCKERFILE, "%s", why);
}

static bool name_char(char c)
{
    return isalnum((unsigned char)c) || c == '_';
}

/* Shell patterns: * and ?, with the escape character; the whole of s must match. */
static bool wild(const char *pat, size_t pn, const char *s, size_t n)
{
    size_t pi = 0, si = 0, star = SIZE_MAX, mark = 0;
    while (si < n) {
        size_t lit = pi < pn && pat[pi] == '\\' && pi + 1 < pn ? 1 : 0;
        if (pi < pn && !lit && pat[pi] == '*') {
            star = pi++;
            mark = si;
        } else if (pi < pn && ((!lit && pat[pi] == '?') || pat[pi + lit] == s[si])) {
            pi += 1 + lit;
            si++;
        } else if (star != SIZE_MAX) {
            pi = star + 1;
            si = ++mark;
        } else {
            return false;
        }
    }
    while (pi < pn && pat[pi] == '*') {
        pi++;
    }
    return pi == pn;
}

static void cut(const char *val, const char *pat, bool front, bool longest, struct th_buf *out)
{
    size_t n = strlen(val), pn = strlen(pat);
    for (size_t i = 0; i <= n; i++) {
        size_t k = longest ? n - i : i;
        if (front ? wild(pat, pn, val, k) : wild(pat, pn, val + n - k, k)) {
            th_buf_add(out, front ? val + k : val, n - k);
            return;
        }
    }
    th_buf_puts(out, val);
}

static void replace(const char *val, const char *pat, const char *with, bool all,
                    struct th_buf *out)
{
    size_t n = strlen(val), pn = strlen(pat), at = 0;
    bool done = pn == 0 || n > 65536;
    while (at < n) {
        size_t k = done ? 0 : n - at; /* the longest match here */
        while (k > 0 && !wild(pat, pn, val + at, k)) {
            k--;
        }
        if (k > 0) {
            th_buf_puts(out, with);
            at += k;
            done = !all;
        } else {
            th_buf_putc(out, val[at++]);
        }
    }
}

/* The word of a modifier, expanded, up to `stop`, which is consumed. */
static int modifier_word(struct scan *s, char stop, struct th_buf *out)
{
    struct th_strv *words = s->words;
    s->words = NULL;
    int r = until(s, stop, out);
    s->words = words;
    TH_TRY(r);
    if (*s->p != stop) {
        return bad(s, "syntax error: missing '}' in variable substitution");
    }
    s->p++;
    return 0;
}

static int pattern_modifier(struct scan *s, const char *val, char op, struct th_buf *out)
{
    th_autobuf struct th_buf pat = TH_BUF_INIT, with = TH_BUF_INIT;
    bool twice = *s->p == op;
    s->p += twice;
    if (op != '/') {
        TH_TRY(modifier_word(s, '}', &pat));
        cut(val, th_buf_cstr(&pat), op == '#', twice, out);
        return 0;
    }
    TH_TRY(modifier_word(s, '/', &pat));
    TH_TRY(modifier_word(s, '}', &with));
    replace(val, th_buf_cstr(&pat), th_buf_cstr(&with), twice, out);
    return 0;
}

static int braces(struct scan *s, struct th_buf *out)
{
    const char *from = s->p;
    while (name_char(*s->p)) {
        s->p++;
    }
    size_t n = (size_t)(s->p - from);
    if (n == 0) {
        return bad(s, "bad substitution: ${ without a name");
    }
    const char *val = s->fn(s->arg, from, n);
    char c = *s->p;
    if (c == '}') {
        s->p++;
        th_buf_puts(out, val ? val : "");
        return 0;
    }
    if (c == '#' || c == '%' || c == '/') {
        s->p++;
        return pattern_modifier(s, val ? val : "", c, out);
    }
    bool colon = c == ':';
    s->p += colon;
    char op = *s->p;
    if (op != '-' && op != '+' && op != '?') {
        return bad(s, op ? "unsupported modifier in variable substitution"
                         : "syntax error: missing '}' in variable substitution");
    }
    s->p++;
    th_autobuf struct th_buf word = TH_BUF_INIT;
    TH_TRY(modifier_word(s, '}', &word));
    bool set = val && (!colon || *val);
    if (op == '?' && !set) {
        return th_fail(s->err, TH_R_DOCKERFILE, "%.*s: %s", (int)n, from,
                       word.n ? th_buf_cstr(&word) : "not set");
    }
    if (op == '+') {
        th_buf_puts(out, set ? th_buf_cstr(&word) : "");
    } else {
        th_buf_puts(out, set ? val : th_buf_cstr(&word));
    }
    return 0;
}

static int dollar(struct scan *s, struct th_buf *out)
{
    s->p++;
    if (*s->p == '{') {
        s->p++;
        return braces(s, out);
    }
    const char *from = s->p;
    if (isdigit((unsigned char)*s->p)) {
        s->p++; /* positional: one digit */
    } else {
        while (name_char(*s->p)) {
            s->p++;
        }
    }
    if (s->p == from) {
        th_buf_putc(out, '$');
        return 0;
    }
    const char *val = s->fn(s->arg, from, (size_t)(s->p - from));
    th_buf_puts(out, val ? val : "");
    return 0;
}

static int double_quotes(struct scan *s, struct th_buf *out)
{
    for (s->p++; *s->p != '"';) {
        if (!*s->p) {
            return bad(s, "unexpected end of statement while looking for matching double-quote");
        }
        if (*s->p == '$') {
            TH_TRY(dollar(s, out));
        } else if (*s->p == s->escape && s->p[1] &&
                   (s->p[1] == '"' || s->p[1] == '$' || s->p[1] == s->escape)) {
            th_buf_putc(out, s->p[1]);
            s->p += 2;
        } else {
            th_buf_putc(out, *s->p++);
        }
    }
    s->p++;
    return 0;
}

static int single_quotes(struct scan *s, struct th_buf *out)
{
    const char *end = strchr(s->p + 1, '\'');
    if (!end) {
        return bad(s, "unexpected end of statement while looking for matching single-quote");
    }
    th_buf_add(out, s->p + 1, (size_t)(end - s->p - 1));
    s->p = end + 1;
    return 0;
}

static void end_word(struct scan *s, struct th_buf *out)
{
    if (s->word_open) {
        th_strv_add(s->words, th_buf_cstr(out));
        th_buf_clear(out);
        s->word_open = false;
    }
}

static int until(struct scan *s, char stop, struct th_buf *out)
{
    if (++s->depth > DEPTH_MAX) {
        return bad(s, "variable substitution is nested too deeply");
    }
    while (*s->p && *s->p != stop) {
        if (out->n > OUT_MAX) {
            return bad(s, "variable substitution grows beyond 1 MiB");
        }
        char c = *s->p;
        if (s->words && isspace((unsigned char)c)) {
            end_word(s, out);
            s->p++;
            continue;
        }
        s->word_open = true;
        if (c == '\'') {
            TH_TRY(single_quotes(s, out));
        } else if (c == '"') {
            TH_TRY(double_quotes(s, out));
        } else if (c == '$') {
            TH_TRY(dollar(s, out));
        } else if (c == s->escape) {
            if (s->p[1]) {
                th_buf_putc(out, s->p[1]);
                s->p++;
            }
            s->p++;
        } else {
            th_buf_putc(out, c);
            s->p++;
        }
    }
    s->depth--;
    return 0;
}

int th_df_expand(const char *word, char escape, th_df_lookup fn, void *arg, struct th_buf *out,
                 struct th_err *err)
{
    struct scan s = {.p = word, .escape = escape, .fn = fn, .arg = arg, .err = err};
    return until(&s, 0, out);
}

int th_df_expand_words(const char *word, char escape, th_df_lookup fn, void *arg,
                       struct th_strv *out, struct th_err *err)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    struct scan s = {
        .p = word, .escape = escape, .fn = fn, .arg = arg, .err = err, .words = out};
    TH_TRY(until(&s, 0, &b));
    end_word(&s, &b);
    return 0;
}
