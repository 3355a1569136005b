/* Text: the standard functions, the strings extension (version 2) and Kubernetes' find functions.
 * Positions count characters, not bytes. */
#include "controlplane/schema/cel/fn_priv.h"

#include "controlplane/schema/regex.h"

static struct cel_val copy(struct cel_eval *e, const struct th_buf *b)
{
    (void)cel_charge(e, cel_text_cost(b->n));
    return cel_string(cel_strdup(&e->a, th_buf_cstr(b), b->n), b->n);
}

/* Byte offset of character i, which may be the one past the end; false when there is none. */
static bool offset_of(struct th_str s, int64_t i, size_t *ret)
{
    size_t at = 0;
    for (; i > 0 && at < s.n; i--) {
        at += cel_char_len(s.p + at, s.p + s.n);
    }
    *ret = at;
    return i == 0;
}

static struct cel_val out_of_range(struct cel_eval *e, int64_t i)
{
    return cel_error(e, "index out of range: %lld", (long long)i);
}

CEL_FN_DEF(cel_fn_contains)
{
    struct th_str a = args[0].s, b = args[1].s;
    (void)cel_charge(e, cel_text_cost(a.n) * (cel_text_cost(b.n) ? cel_text_cost(b.n) : 1));
    return cel_bool(b.n == 0 || memmem(a.p, a.n, b.p, b.n) != NULL);
}

CEL_FN_DEF(cel_fn_starts_with)
{
    struct th_str a = args[0].s, b = args[1].s;
    (void)cel_charge(e, cel_text_cost(b.n));
    return cel_bool(b.n <= a.n && (b.n == 0 || memcmp(a.p, b.p, b.n) == 0));
}

CEL_FN_DEF(cel_fn_ends_with)
{
    struct th_str a = args[0].s, b = args[1].s;
    (void)cel_charge(e, cel_text_cost(b.n));
    return cel_bool(b.n <= a.n && (b.n == 0 || memcmp(a.p + a.n - b.n, b.p, b.n) == 0));
}

/* ---- Regular expressions ---- */

static uint64_t regex_cost(size_t text, size_t pattern)
{
    uint64_t per = (pattern + 3) / 4;
    return cel_text_cost(text + 1) * (per ? per : 1);
}

static struct th_regex *compile(struct cel_eval *e, struct th_str p, struct cel_val *ret)
{
    struct th_regex *re = NULL;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (th_regex_new(p.p, p.n, &re, &err) < 0) {
        *ret = cel_error(e, "%s", err.msg);
    }
    return re;
}

CEL_FN_DEF(cel_fn_matches)
{
    struct cel_val bad;
    if (!cel_charge(e, regex_cost(args[0].s.n, args[1].s.n))) {
        return cel_no_overload();
    }
    TH_AUTO(th_regex) struct th_regex *re = compile(e, args[1].s, &bad);
    if (!re) {
        return bad;
    }
    int r = th_regex_match(re, args[0].s.p, args[0].s.n, NULL);
    return r < 0 ? cel_error(e, "regular expression costs too much") : cel_bool(r);
}

CEL_FN_DEF(cel_fn_find)
{
    struct cel_val bad;
    size_t at, len;
    (void)cel_charge(e, regex_cost(args[0].s.n, args[1].s.n));
    TH_AUTO(th_regex) struct th_regex *re = compile(e, args[1].s, &bad);
    if (!re) {
        return bad;
    }
    int r = th_regex_find(re, args[0].s.p, args[0].s.n, 0, &at, &len, NULL);
    return r < 0    ? cel_error(e, "regular expression costs too much")
           : r == 0 ? cel_text("")
                    : cel_string(args[0].s.p + at, len);
}

CEL_FN_DEF(cel_fn_find_all)
{
    struct cel_val bad;
    struct th_str s = args[0].s;
    int64_t max = n > 2 ? args[2].i : -1;
    (void)cel_charge(e, regex_cost(s.n, args[1].s.n));
    TH_AUTO(th_regex) struct th_regex *re = compile(e, args[1].s, &bad);
    if (!re) {
        return bad;
    }
    struct cel_val *v = cel_alloc(&e->a, (s.n + 2) * sizeof(*v));
    size_t k = 0, from = 0, at, len;
    while (from <= s.n && (max < 0 || k < (size_t)max)) {
        int r = th_regex_find(re, s.p, s.n, from, &at, &len, NULL);
        if (r < 0) {
            return cel_error(e, "regular expression costs too much");
        }
        if (r == 0 || !cel_charge(e, 1)) {
            break;
        }
        v[k++] = cel_string(s.p + at, len);
        from = len ? at + len : at + (at < s.n ? cel_char_len(s.p + at, s.p + s.n) : 1);
    }
    return cel_make_list(e, v, k);
}

/* ---- Positions ---- */

CEL_FN_DEF(cel_fn_char_at)
{
    size_t at;
    struct th_str s = args[0].s;
    if (args[1].i < 0 || !offset_of(s, args[1].i, &at)) {
        return out_of_range(e, args[1].i);
    }
    return at == s.n ? cel_text("") : cel_string(s.p + at, cel_char_len(s.p + at, s.p + s.n));
}

CEL_FN_DEF(cel_fn_index_of)
{
    struct th_str s = args[0].s, sub = args[1].s;
    int64_t from = n > 2 ? args[2].i : 0;
    size_t at;
    (void)cel_charge(e, cel_text_cost(s.n));
    if (from < 0 || !offset_of(s, from, &at)) {
        return out_of_range(e, from);
    }
    const char *p = sub.n ? memmem(s.p + at, s.n - at, sub.p, sub.n) : s.p + at;
    return cel_int(p ? (int64_t)cel_runes((struct th_str){s.p, (size_t)(p - s.p)}) : -1);
}

CEL_FN_DEF(cel_fn_last_index_of)
{
    struct th_str s = args[0].s, sub = args[1].s;
    size_t limit = s.n;
    (void)cel_charge(e, cel_text_cost(s.n));
    if (n > 2 && (args[2].i < 0 || !offset_of(s, args[2].i, &limit))) {
        return out_of_range(e, args[2].i);
    }
    for (size_t at = limit + 1; at-- > 0;) {
        if (at + sub.n <= s.n && (sub.n == 0 || memcmp(s.p + at, sub.p, sub.n) == 0)) {
            return cel_int((int64_t)cel_runes((struct th_str){s.p, at}));
        }
    }
    return cel_int(-1);
}

CEL_FN_DEF(cel_fn_substring)
{
    struct th_str s = args[0].s;
    int64_t runes = (int64_t)cel_runes(s), from = args[1].i, to = n > 2 ? args[2].i : runes;
    size_t a = 0, b = 0;
    if (from < 0 || from > runes) {
        return out_of_range(e, from);
    }
    if (to < 0 || to > runes) {
        return out_of_range(e, to);
    }
    if (from > to) {
        return cel_error(e, "invalid substring range. start: %lld, end: %lld", (long long)from,
                         (long long)to);
    }
    (void)offset_of(s, from, &a);
    (void)offset_of(s, to, &b);
    return cel_string(s.p + a, b - a);
}

/* ---- Making text ---- */

CEL_FN_DEF(cel_fn_join)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    for (size_t i = 0; i < cel_list_len(args[0].list); i++) {
        struct cel_val v = cel_list_at(e, args[0].list, i);
        if (v.kind != CEL_STRING) {
            return cel_no_overload();
        }
        if (i && n > 1) {
            th_buf_addstr(&b, args[1].s);
        }
        th_buf_addstr(&b, v.s);
    }
    return copy(e, &b);
}

static struct cel_val map_ascii(struct cel_eval *e, struct th_str s, char from, char to, int by)
{
    char *p = cel_strdup(&e->a, s.p, s.n);
    (void)cel_charge(e, cel_text_cost(s.n));
    for (size_t i = 0; i < s.n; i++) {
        p[i] = (char)(p[i] >= from && p[i] <= to ? p[i] + by : p[i]);
    }
    return cel_string(p, s.n);
}

CEL_FN_DEF(cel_fn_lower)
{
    return map_ascii(e, args[0].s, 'A', 'Z', 32);
}

CEL_FN_DEF(cel_fn_upper)
{
    return map_ascii(e, args[0].s, 'a', 'z', -32);
}

CEL_FN_DEF(cel_fn_replace)
{
    struct th_str s = args[0].s, what = args[1].s, with = args[2].s;
    int64_t max = n > 3 ? args[3].i : -1;
    th_autobuf struct th_buf b = TH_BUF_INIT;
    size_t at = 0;
    while (at <= s.n && max != 0) {
        const char *hit = what.n ? memmem(s.p + at, s.n - at, what.p, what.n) : s.p + at;
        if (!hit || !cel_charge(e, cel_text_cost(with.n) + 1)) {
            break;
        }
        th_buf_add(&b, s.p + at, (size_t)(hit - s.p) - at);
        th_buf_addstr(&b, with);
        at = (size_t)(hit - s.p) + what.n;
        max -= max > 0;
        if (what.n == 0) { /* between all characters */
            if (at >= s.n) {
                at = s.n;
                break;
            }
            size_t c = cel_char_len(s.p + at, s.p + s.n);
            th_buf_add(&b, s.p + at, c);
            at += c;
        }
    }
    th_buf_add(&b, s.p + at, s.n - at);
    return copy(e, &b);
}

CEL_FN_DEF(cel_fn_split)
{
    struct th_str s = args[0].s, sep = args[1].s;
    int64_t max = n > 2 ? args[2].i : -1;
    struct cel_val *v = cel_alloc(&e->a, (s.n + 2) * sizeof(*v));
    size_t k = 0, at = 0;
    (void)cel_charge(e, cel_text_cost(s.n) + 1);
    if (max == 0) {
        return cel_make_list(e, v, 0);
    }
    for (;;) {
        bool last = max > 0 && k + 1 == (size_t)max;
        if (sep.n == 0) {
            if (at >= s.n) {
                break;
            }
            size_t c = last ? s.n - at : cel_char_len(s.p + at, s.p + s.n);
            v[k++] = cel_string(s.p + at, c);
            at += c;
            continue;
        }
        const char *hit = last ? NULL : memmem(s.p + at, s.n - at, sep.p, sep.n);
        size_t len = hit ? (size_t)(hit - s.p) - at : s.n - at;
        v[k++] = cel_string(s.p + at, len);
        if (!hit) {
            break;
        }
        at += len + sep.n;
    }
    return cel_make_list(e, v, k);
}

/* Bytes of a white space character at p, as Unicode has them; 0 for others. */
static size_t space_len(const char *p, size_t n)
{
    static const char *const wide[] = {"\302\205", "\u00a0", "\u1680", "\u2000", "\u2001", "\u2002",
                                       "\u2003", "\u2004", "\u2005", "\u2006", "\u2007", "\u2008",
                                       "\u2009", "\u200a", "\u2028", "\u2029", "\u202f", "\u205f",
                                       "\u3000"};
    if (n && strchr(" \t\n\v\f\r", *p) && *p) {
        return 1;
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(wide); i++) {
        size_t w = strlen(wide[i]);
        if (w <= n && memcmp(p, wide[i], w) == 0) {
            return w;
        }
    }
    return 0;
}

CEL_FN_DEF(cel_fn_trim)
{
    struct th_str s = args[0].s;
    (void)cel_charge(e, cel_text_cost(s.n));
    size_t k;
    while ((k = space_len(s.p, s.n))) {
        s.p += k;
        s.n -= k;
    }
    size_t end = 0; /* behind the last character that is no space */
    for (size_t at = 0; at < s.n;) {
        size_t c = cel_char_len(s.p + at, s.p + s.n);
        end = space_len(s.p + at, s.n - at) ? end : at + c;
        at += c;
    }
    return cel_string(s.p, end);
}

CEL_FN_DEF(cel_fn_quote)
{
    static const char from[] = "\a\b\f\n\r\t\v\\\"", to[] = "abfnrtv\\\"";
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_buf_putc(&b, '"');
    for (size_t i = 0; i < args[0].s.n; i++) {
        char c = args[0].s.p[i];
        const char *at = c ? strchr(from, c) : NULL;
        if (at) {
            th_buf_putc(&b, '\\');
            th_buf_putc(&b, to[at - from]);
        } else {
            th_buf_putc(&b, c);
        }
    }
    th_buf_putc(&b, '"');
    return copy(e, &b);
}

/* ---- format ---- */

static void put_binary(struct th_buf *b, uint64_t v)
{
    char bits[65];
    int k = 64;
    bits[64] = '\0';
    do {
        bits[--k] = (char)('0' + (v & 1));
        v >>= 1;
    } while (v);
    th_buf_puts(b, bits + k);
}

static bool put_integer(char verb, struct cel_val v, struct th_buf *b)
{
    if (v.kind == CEL_BOOL && verb == 'b') {
        th_buf_putc(b, v.b ? '1' : '0');
        return true;
    }
    if ((v.kind == CEL_STRING || v.kind == CEL_BYTES) && (verb == 'x' || verb == 'X')) {
        for (size_t i = 0; i < v.s.n; i++) {
            th_buf_printf(b, verb == 'x' ? "%02x" : "%02X", (unsigned char)v.s.p[i]);
        }
        return true;
    }
    if (v.kind != CEL_INT && v.kind != CEL_UINT) {
        return false;
    }
    bool neg = v.kind == CEL_INT && v.i < 0;
    uint64_t u = v.kind == CEL_UINT ? v.u : neg ? 0 - (uint64_t)v.i : (uint64_t)v.i;
    th_buf_puts(b, neg ? "-" : "");
    if (verb == 'b') {
        put_binary(b, u);
    } else {
        th_buf_printf(b, verb == 'x' ? "%llx" : verb == 'X' ? "%llX" : verb == 'o' ? "%llo" : "%llu",
                      (unsigned long long)u);
    }
    return true;
}

static bool put_real(char verb, int precision, struct cel_val v, struct th_buf *b)
{
    if (v.kind != CEL_DOUBLE && v.kind != CEL_INT && v.kind != CEL_UINT) {
        return false;
    }
    double d = v.kind == CEL_DOUBLE ? v.d : v.kind == CEL_INT ? (double)v.i : (double)v.u;
    if (d != d || d - d != 0) {
        cel_print(NULL, cel_double(d), b);
        return true;
    }
    th_buf_printf(b, verb == 'e' ? "%.*e" : "%.*f", precision, d);
    return true;
}

CEL_FN_DEF(cel_fn_format)
{
    struct th_str f = args[0].s;
    th_autobuf struct th_buf b = TH_BUF_INIT;
    size_t used = 0, have = cel_list_len(args[1].list);
    (void)cel_charge(e, cel_text_cost(f.n));
    for (size_t i = 0; i < f.n; i++) {
        if (f.p[i] != '%') {
            th_buf_putc(&b, f.p[i]);
            continue;
        }
        if (++i < f.n && f.p[i] == '%') {
            th_buf_putc(&b, '%');
            continue;
        }
        int precision = 6;
        if (i < f.n && f.p[i] == '.') {
            precision = 0;
            for (i++; i < f.n && f.p[i] >= '0' && f.p[i] <= '9'; i++) {
                precision = precision > 100 ? precision : precision * 10 + (f.p[i] - '0');
            }
        }
        if (i >= f.n) {
            return cel_error(e, "unexpected end of string");
        }
        char verb = f.p[i];
        if (!strchr("sdfebxXo", verb)) {
            return cel_error(e, "could not parse formatting clause: unrecognized formatting clause "
                                "\"%c\"",
                             verb);
        }
        if (used >= have) {
            return cel_error(e, "index %zu out of range", used);
        }
        struct cel_val v = cel_list_at(e, args[1].list, used++);
        bool ok = true;
        if (verb == 's' || (verb == 'd' && v.kind == CEL_DOUBLE)) {
            cel_print(e, v, &b);
        } else if (verb == 'f' || verb == 'e') {
            ok = put_real(verb, precision, v, &b);
        } else {
            ok = put_integer(verb, v, &b);
        }
        if (!ok) {
            return cel_error(e, "error during formatting: %s clause cannot be used on %s",
                             verb == 'f'   ? "fixed-point"
                             : verb == 'e' ? "scientific"
                             : verb == 'b' ? "binary"
                             : verb == 'o' ? "octal"
                             : verb == 'd' ? "decimal"
                                           : "hex",
                             cel_type_name(v));
        }
    }
    return copy(e, &b);
}
