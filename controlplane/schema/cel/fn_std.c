/* The standard operators and conversions, with CEL's errors: "integer overflow", "division by
 * zero", "index out of bounds: 3", "no such key: x". */
#include "controlplane/schema/cel/fn_priv.h"

#include "controlplane/schema/gotext.h"

#include <errno.h>
#include <math.h>

static struct cel_val overflow(struct cel_eval *e, const char *what)
{
    return cel_error(e, "%s overflow", what);
}

CEL_FN_DEF(cel_fn_never)
{
    return cel_no_overload();
}

CEL_FN_DEF(cel_fn_not)
{
    return cel_bool(!args[0].b);
}

CEL_FN_DEF(cel_fn_neg)
{
    if (args[0].kind == CEL_DOUBLE) {
        return cel_double(-args[0].d);
    }
    return args[0].i == INT64_MIN ? overflow(e, "integer") : cel_int(-args[0].i);
}

/* ---- Sums ---- */

static struct cel_val join_text(struct cel_eval *e, struct cel_val a, struct cel_val b)
{
    (void)cel_charge(e, cel_text_cost(a.s.n + b.s.n));
    char *p = cel_alloc(&e->a, a.s.n + b.s.n + 1);
    if (a.s.n) {
        memcpy(p, a.s.p, a.s.n);
    }
    if (b.s.n) {
        memcpy(p + a.s.n, b.s.p, b.s.n);
    }
    return (struct cel_val){.kind = a.kind, .s = {p, a.s.n + b.s.n}};
}

/* The element of list l (n values) that v replaces or repeats: sets by value, maps by key. */
static size_t same_element(struct cel_eval *e, const struct th_structural *s,
                           const struct cel_val *l, size_t n, struct cel_val v)
{
    for (size_t i = 0; i < n; i++) {
        if (s->flags & TH_SF_LIST_SET) {
            if (cel_equal(e, l[i], v) == 1) {
                return i;
            }
            continue;
        }
        bool same = l[i].kind == CEL_MAP && v.kind == CEL_MAP;
        for (size_t k = 0; same && k < s->keys.n; k++) {
            struct cel_val x = {.kind = CEL_NULL}, y = {.kind = CEL_NULL};
            bool hx = cel_map_get(e, l[i].map, cel_text(s->keys.v[k]), &x);
            bool hy = cel_map_get(e, v.map, cel_text(s->keys.v[k]), &y);
            same = hx == hy && (!hx || cel_equal(e, x, y) == 1);
        }
        if (same) {
            return i;
        }
    }
    return n;
}

static struct cel_val join_lists(struct cel_eval *e, const struct cel_list *a,
                                 const struct cel_list *b)
{
    size_t x = cel_list_len(a), y = cel_list_len(b), n = 0;
    if (!cel_charge(e, 1 + (x + y) / 10)) {
        return cel_no_overload();
    }
    struct cel_val *v = cel_alloc(&e->a, (x + y + 1) * sizeof(*v));
    for (; n < x; n++) {
        v[n] = cel_list_at(e, a, n);
    }
    bool merges = a->schema && (a->schema->flags & (TH_SF_LIST_SET | TH_SF_LIST_MAP));
    for (size_t i = 0; i < y; i++) {
        struct cel_val w = cel_list_at(e, b, i);
        size_t at = merges ? same_element(e, a->schema, v, n, w) : n;
        v[at] = w;
        n += at == n;
    }
    return cel_make_list(e, v, n);
}

static struct cel_val shift_time(struct cel_eval *e, struct cel_val t, int64_t ns)
{
    int64_t sec = t.ts.sec + ns / 1000000000, nsec = t.ts.nsec + ns % 1000000000;
    sec += nsec < 0 ? -1 : nsec >= 1000000000;
    nsec += nsec < 0 ? 1000000000 : nsec >= 1000000000 ? -1000000000 : 0;
    if (sec < -62135596800ll || sec > 253402300799ll) {
        return overflow(e, "timestamp");
    }
    return (struct cel_val){.kind = CEL_TIMESTAMP, .ts = {sec, (int32_t)nsec}};
}

static struct cel_val make_int(struct cel_eval *e, enum cel_kind kind, bool over, int64_t v)
{
    return over ? overflow(e, kind == CEL_DURATION ? "duration" : "integer")
                : (struct cel_val){.kind = kind, .i = v};
}

CEL_FN_DEF(cel_fn_add)
{
    struct cel_val a = args[0], b = args[1];
    int64_t i;
    uint64_t u;
    if (a.kind == CEL_DURATION && b.kind == CEL_TIMESTAMP) {
        return shift_time(e, b, a.i);
    }
    switch (a.kind) {
    case CEL_UINT:
        return __builtin_add_overflow(a.u, b.u, &u) ? overflow(e, "unsigned integer")
                                                    : (struct cel_val){.kind = CEL_UINT, .u = u};
    case CEL_DOUBLE:
        return cel_double(a.d + b.d);
    case CEL_STRING:
    case CEL_BYTES:
        return join_text(e, a, b);
    case CEL_LIST:
        return join_lists(e, a.list, b.list);
    case CEL_TIMESTAMP:
        return shift_time(e, a, b.i);
    default: {
        bool over = __builtin_add_overflow(a.i, b.i, &i);
        return make_int(e, a.kind, over, i);
    }
    }
}

CEL_FN_DEF(cel_fn_sub)
{
    struct cel_val a = args[0], b = args[1];
    int64_t i;
    uint64_t u;
    switch (a.kind) {
    case CEL_UINT:
        return __builtin_sub_overflow(a.u, b.u, &u) ? overflow(e, "unsigned integer")
                                                    : (struct cel_val){.kind = CEL_UINT, .u = u};
    case CEL_DOUBLE:
        return cel_double(a.d - b.d);
    case CEL_TIMESTAMP:
        if (b.kind == CEL_TIMESTAMP) {
            int64_t ns;
            bool over = __builtin_mul_overflow(a.ts.sec - b.ts.sec, (int64_t)1000000000, &ns) ||
                        __builtin_add_overflow(ns, (int64_t)a.ts.nsec - b.ts.nsec, &ns);
            return make_int(e, CEL_DURATION, over, ns);
        }
        return b.i == INT64_MIN ? overflow(e, "timestamp") : shift_time(e, a, -b.i);
    default: {
        bool over = __builtin_sub_overflow(a.i, b.i, &i);
        return make_int(e, a.kind, over, i);
    }
    }
}

CEL_FN_DEF(cel_fn_mul)
{
    struct cel_val a = args[0], b = args[1];
    int64_t i;
    uint64_t u;
    if (a.kind == CEL_DOUBLE) {
        return cel_double(a.d * b.d);
    }
    if (a.kind == CEL_UINT) {
        return __builtin_mul_overflow(a.u, b.u, &u) ? overflow(e, "unsigned integer")
                                                    : (struct cel_val){.kind = CEL_UINT, .u = u};
    }
    bool over = __builtin_mul_overflow(a.i, b.i, &i);
    return make_int(e, CEL_INT, over, i);
}

CEL_FN_DEF(cel_fn_div)
{
    struct cel_val a = args[0], b = args[1];
    if (a.kind == CEL_DOUBLE) {
        return cel_double(a.d / b.d);
    }
    if (a.kind == CEL_UINT) {
        return b.u == 0 ? cel_error(e, "division by zero")
                        : (struct cel_val){.kind = CEL_UINT, .u = a.u / b.u};
    }
    if (b.i == 0) {
        return cel_error(e, "division by zero");
    }
    return a.i == INT64_MIN && b.i == -1 ? overflow(e, "integer") : cel_int(a.i / b.i);
}

CEL_FN_DEF(cel_fn_mod)
{
    struct cel_val a = args[0], b = args[1];
    if (a.kind == CEL_UINT) {
        return b.u == 0 ? cel_error(e, "modulus by zero")
                        : (struct cel_val){.kind = CEL_UINT, .u = a.u % b.u};
    }
    if (b.i == 0) {
        return cel_error(e, "modulus by zero");
    }
    return a.i == INT64_MIN && b.i == -1 ? overflow(e, "integer") : cel_int(a.i % b.i);
}

/* ---- Order ---- */

static int order(struct cel_eval *e, const struct cel_val *args)
{
    if (args[0].kind == CEL_STRING || args[0].kind == CEL_BYTES) {
        size_t n = args[0].s.n < args[1].s.n ? args[0].s.n : args[1].s.n;
        (void)cel_charge(e, cel_text_cost(n));
    }
    return cel_compare(args[0], args[1]);
}

CEL_FN_DEF(cel_fn_less)
{
    int c = order(e, args);
    return c == 3 ? cel_no_overload() : cel_bool(c == -1);
}

CEL_FN_DEF(cel_fn_less_equal)
{
    int c = order(e, args);
    return c == 3 ? cel_no_overload() : cel_bool(c == -1 || c == 0);
}

CEL_FN_DEF(cel_fn_greater)
{
    int c = order(e, args);
    return c == 3 ? cel_no_overload() : cel_bool(c == 1);
}

CEL_FN_DEF(cel_fn_greater_equal)
{
    int c = order(e, args);
    return c == 3 ? cel_no_overload() : cel_bool(c == 1 || c == 0);
}

/* ---- Containers ---- */

CEL_FN_DEF(cel_fn_in)
{
    struct cel_val v;
    if (args[1].kind == CEL_MAP) {
        return cel_bool(cel_map_get(e, args[1].map, args[0], &v));
    }
    for (size_t i = 0; i < cel_list_len(args[1].list); i++) {
        if (!cel_charge(e, 1)) {
            return cel_no_overload();
        }
        if (cel_equal(e, cel_list_at(e, args[1].list, i), args[0]) == 1) {
            return cel_bool(true);
        }
    }
    return cel_bool(false);
}

static struct cel_val no_key(struct cel_eval *e, struct cel_val key)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    cel_print(e, key, &b);
    return cel_error(e, "no such key: %s", th_buf_cstr(&b));
}

CEL_FN_DEF(cel_fn_index)
{
    struct cel_val v;
    if (args[0].kind == CEL_MAP) {
        return cel_map_get(e, args[0].map, args[1], &v) ? v : no_key(e, args[1]);
    }
    int64_t i = args[1].i;
    if (i < 0 || (uint64_t)i >= cel_list_len(args[0].list)) {
        return cel_error(e, "index out of bounds: %lld", (long long)i);
    }
    return cel_list_at(e, args[0].list, (size_t)i);
}

CEL_FN_DEF(cel_fn_opt_index)
{
    struct cel_val of = args[0], v;
    if (of.kind == CEL_OPTIONAL) {
        if (!of.opt) {
            return cel_none();
        }
        of = *of.opt;
    }
    if (of.kind == CEL_MAP) {
        return cel_map_get(e, of.map, args[1], &v) ? cel_some(e, v) : cel_none();
    }
    if (of.kind != CEL_LIST || args[1].kind != CEL_INT) {
        return cel_no_overload();
    }
    int64_t i = args[1].i;
    return i < 0 || (uint64_t)i >= cel_list_len(of.list)
               ? cel_none()
               : cel_some(e, cel_list_at(e, of.list, (size_t)i));
}

CEL_FN_DEF(cel_fn_size)
{
    struct cel_val a = args[0];
    return cel_int((int64_t)(a.kind == CEL_STRING  ? cel_runes(a.s)
                             : a.kind == CEL_BYTES ? a.s.n
                             : a.kind == CEL_LIST  ? cel_list_len(a.list)
                                                   : cel_map_len(a.map)));
}

/* ---- Conversions ---- */

static struct cel_val bad_text(struct cel_eval *e, struct cel_val a, const char *type)
{
    return cel_error(e, "type conversion error from 'string' to '%s'%s%.*s", type, ": ",
                     (int)a.s.n, a.s.p);
}

/* A whole number in base 10 without blanks; the caller's copy of the text. */
static bool plain_number(const char *s, bool sign)
{
    s += sign && (*s == '-' || *s == '+');
    size_t n = strspn(s, "0123456789");
    return n > 0 && s[n] == '\0';
}

CEL_FN_DEF(cel_fn_to_int)
{
    struct cel_val a = args[0];
    switch (a.kind) {
    case CEL_UINT:
        return a.u > INT64_MAX ? overflow(e, "integer") : cel_int((int64_t)a.u);
    case CEL_DOUBLE:
        return !(a.d > -9223372036854775808.0 && a.d < 9223372036854775808.0)
                   ? overflow(e, "integer")
                   : cel_int((int64_t)a.d);
    case CEL_STRING: {
        th_autofree char *s = th_xstrndup(a.s.p, a.s.n);
        errno = 0;
        long long v = strtoll(s, NULL, 10);
        return !plain_number(s, true) || errno ? bad_text(e, a, "int") : cel_int(v);
    }
    case CEL_TIMESTAMP:
        return cel_int(a.ts.sec);
    default:
        return cel_int(a.i);
    }
}

CEL_FN_DEF(cel_fn_to_uint)
{
    struct cel_val a = args[0];
    switch (a.kind) {
    case CEL_INT:
        return a.i < 0 ? overflow(e, "unsigned integer")
                       : (struct cel_val){.kind = CEL_UINT, .u = (uint64_t)a.i};
    case CEL_DOUBLE:
        return !(a.d >= 0 && a.d < 18446744073709551616.0)
                   ? overflow(e, "unsigned integer")
                   : (struct cel_val){.kind = CEL_UINT, .u = (uint64_t)a.d};
    case CEL_STRING: {
        th_autofree char *s = th_xstrndup(a.s.p, a.s.n);
        errno = 0;
        unsigned long long v = strtoull(s, NULL, 10);
        return !plain_number(s, false) || errno ? bad_text(e, a, "uint")
                                                : (struct cel_val){.kind = CEL_UINT, .u = v};
    }
    default:
        return a;
    }
}

CEL_FN_DEF(cel_fn_to_double)
{
    struct cel_val a = args[0];
    if (a.kind == CEL_STRING) {
        th_autofree char *s = th_xstrndup(a.s.p, a.s.n);
        char *end = NULL;
        double d = strtod(s, &end);
        bool bad = !*s || *end || strpbrk(s, " \t\n\v\f\r");
        return bad ? bad_text(e, a, "double") : cel_double(d);
    }
    return a.kind == CEL_INT ? cel_double((double)a.i)
           : a.kind == CEL_UINT ? cel_double((double)a.u)
                                : a;
}

static bool valid_utf8(struct th_str s)
{
    th_autofree char *text = th_xasprintf("\"%.*s\"", (int)s.n, s.p);
    for (size_t i = 0; i < s.n; i++) {
        if ((unsigned char)s.p[i] < 0x20 || s.p[i] == '"' || s.p[i] == '\\') {
            text[i + 1] = ' ';
        }
    }
    TH_AUTO(th_json) struct th_json *j = NULL;
    return th_json_parse(text, s.n + 2, NULL, &j, NULL) >= 0;
}

CEL_FN_DEF(cel_fn_to_string)
{
    struct cel_val a = args[0];
    if (a.kind == CEL_STRING) {
        return a;
    }
    if (a.kind == CEL_BYTES) {
        (void)cel_charge(e, cel_text_cost(a.s.n));
        return valid_utf8(a.s) ? cel_string(a.s.p, a.s.n)
                               : cel_error(e, "invalid UTF-8 in bytes, cannot convert to string");
    }
    th_autobuf struct th_buf b = TH_BUF_INIT;
    cel_print(e, a, &b);
    return cel_string(cel_strdup(&e->a, th_buf_cstr(&b), b.n), b.n);
}

CEL_FN_DEF(cel_fn_to_bytes)
{
    return (struct cel_val){.kind = CEL_BYTES, .s = args[0].s};
}

CEL_FN_DEF(cel_fn_to_bool)
{
    static const char *const yes[] = {"1", "t", "T", "true", "TRUE", "True"};
    static const char *const no[] = {"0", "f", "F", "false", "FALSE", "False"};
    struct cel_val a = args[0];
    if (a.kind == CEL_BOOL) {
        return a;
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(yes); i++) {
        if (th_str_eq(a.s, th_str_of(yes[i])) || th_str_eq(a.s, th_str_of(no[i]))) {
            return cel_bool(th_str_eq(a.s, th_str_of(yes[i])));
        }
    }
    return bad_text(e, a, "bool");
}

CEL_FN_DEF(cel_fn_to_timestamp)
{
    struct cel_val a = args[0];
    if (a.kind == CEL_TIMESTAMP) {
        return a;
    }
    int64_t sec = a.i;
    int32_t nsec = 0;
    if (a.kind == CEL_STRING) {
        th_autofree char *s = th_xstrndup(a.s.p, a.s.n);
        if (th_go_time_parse(s, false, &sec, &nsec, NULL) < 0) {
            return bad_text(e, a, "google.protobuf.Timestamp");
        }
    }
    if (sec < -62135596800ll || sec > 253402300799ll) {
        return overflow(e, "timestamp");
    }
    return (struct cel_val){.kind = CEL_TIMESTAMP, .ts = {sec, nsec}};
}

CEL_FN_DEF(cel_fn_to_duration)
{
    struct cel_val a = args[0];
    int64_t ns = a.i;
    if (a.kind == CEL_STRING) {
        th_autofree char *s = th_xstrndup(a.s.p, a.s.n);
        if (th_go_duration_parse(s, &ns, NULL) < 0) {
            return bad_text(e, a, "google.protobuf.Duration");
        }
    }
    return (struct cel_val){.kind = CEL_DURATION, .i = ns};
}

CEL_FN_DEF(cel_fn_to_dyn)
{
    return args[0];
}

CEL_FN_DEF(cel_fn_type)
{
    return (struct cel_val){.kind = CEL_TYPE, .s = th_str_of(cel_type_name(args[0]))};
}
