/* Kubernetes' quantities and semantic versions. */
#include "controlplane/schema/cel/fn_priv.h"

static const __int128 nano = 1000000000;

static struct cel_val make(struct cel_eval *e, struct th_quantity q)
{
    struct th_quantity *p = cel_alloc(&e->a, sizeof(*p));
    *p = q;
    return (struct cel_val){.kind = CEL_QUANTITY, .quantity = p};
}

static bool parse(struct th_str s, struct th_quantity *ret, struct th_err *err)
{
    th_autofree char *text = th_xstrndup(s.p, s.n);
    return th_quantity_parse(text, ret, err) >= 0;
}

CEL_FN_DEF(cel_fn_quantity)
{
    struct th_quantity q;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    return parse(args[0].s, &q, &err) ? make(e, q) : cel_error(e, "%s", err.msg);
}

CEL_FN_DEF(cel_fn_is_quantity)
{
    struct th_quantity q;
    return cel_bool(parse(args[0].s, &q, NULL));
}

CEL_FN_DEF(cel_fn_q_sign)
{
    __int128 v = args[0].quantity->nano;
    return cel_int((v > 0) - (v < 0));
}

static struct th_quantity second(const struct cel_val *args)
{
    return args[1].kind == CEL_QUANTITY ? *args[1].quantity
                                        : th_quantity_from_value(args[1].i, args[0].quantity->format);
}

CEL_FN_DEF(cel_fn_q_add)
{
    return make(e, th_quantity_add(*args[0].quantity, second(args)));
}

CEL_FN_DEF(cel_fn_q_sub)
{
    return make(e, th_quantity_sub(*args[0].quantity, second(args)));
}

static int compare(const struct cel_val *args)
{
    int c = args[0].kind == CEL_SEMVER ? cel_semver_cmp(args[0].semver, args[1].semver)
                                       : th_quantity_cmp(*args[0].quantity, *args[1].quantity);
    return (c > 0) - (c < 0);
}

CEL_FN_DEF(cel_fn_compare_to)
{
    return cel_int(compare(args));
}

CEL_FN_DEF(cel_fn_is_less)
{
    return cel_bool(compare(args) < 0);
}

CEL_FN_DEF(cel_fn_is_greater)
{
    return cel_bool(compare(args) > 0);
}

static bool is_int(const struct th_quantity *q)
{
    return q->nano % nano == 0 && q->nano / nano <= INT64_MAX && q->nano / nano >= INT64_MIN;
}

CEL_FN_DEF(cel_fn_q_is_int)
{
    return cel_bool(is_int(args[0].quantity));
}

CEL_FN_DEF(cel_fn_q_as_int)
{
    return is_int(args[0].quantity) ? cel_int((int64_t)(args[0].quantity->nano / nano))
                                    : cel_error(e, "cannot convert value to integer");
}

CEL_FN_DEF(cel_fn_q_as_float)
{
    return cel_double((double)((long double)args[0].quantity->nano / 1e9L));
}

/* ---- Versions ---- */

/* A number without leading zeros. */
static bool number(const char **s, uint64_t *ret, bool lenient)
{
    const char *p = *s;
    uint64_t v = 0;
    for (; *p >= '0' && *p <= '9'; p++) {
        if (__builtin_mul_overflow(v, (uint64_t)10, &v) ||
            __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v)) {
            return false;
        }
    }
    if (p == *s || (!lenient && **s == '0' && p - *s > 1)) {
        return false;
    }
    *ret = v;
    *s = p;
    return true;
}

/* Dot-separated identifiers; numbers of a pre-release have no leading zeros. */
static bool identifiers(const char *s, bool pre)
{
    for (;;) {
        size_t n = strcspn(s, ".");
        size_t ok = strspn(s, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-");
        size_t digits = strspn(s, "0123456789");
        if (n == 0 || ok < n || (pre && digits >= n && *s == '0' && n > 1)) {
            return false;
        }
        s += n;
        if (!*s) {
            return true;
        }
        s++;
    }
}

static struct cel_semver *parse_version(struct cel_eval *e, struct th_str text, bool normalize)
{
    struct cel_semver *v = cel_alloc(&e->a, sizeof(*v));
    char *s = cel_strdup(&e->a, text.p, text.n);
    v->pre = v->build = "";
    if (normalize && *s == 'v') {
        s++;
    }
    const char *p = s;
    uint64_t *parts[] = {&v->major, &v->minor, &v->patch};
    for (size_t i = 0; i < 3; i++) {
        if (i && *p != '.') {
            if (normalize) {
                break;
            }
            return NULL;
        }
        p += i ? 1 : 0;
        if (!number(&p, parts[i], normalize)) {
            return NULL;
        }
    }
    char *plus = strchr(s, '+');
    if (plus) {
        *plus = '\0';
        v->build = plus + 1;
        if (!identifiers(v->build, false)) {
            return NULL;
        }
    }
    if (*p == '-') {
        v->pre = p + 1;
        return identifiers(v->pre, true) ? v : NULL;
    }
    return *p == '\0' ? v : NULL;
}

CEL_FN_DEF(cel_fn_semver)
{
    struct cel_semver *v = parse_version(e, args[0].s, n > 1 && args[1].b);
    return v ? (struct cel_val){.kind = CEL_SEMVER, .semver = v}
             : cel_error(e, "invalid semantic version: %.*s", (int)args[0].s.n, args[0].s.p);
}

CEL_FN_DEF(cel_fn_is_semver)
{
    return cel_bool(parse_version(e, args[0].s, n > 1 && args[1].b) != NULL);
}

static int cmp_u(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

static int cmp_pre(const char *a, const char *b)
{
    if (!*a || !*b) {
        return *a ? -1 : *b ? 1 : 0;
    }
    for (;;) {
        size_t x = strcspn(a, "."), y = strcspn(b, ".");
        bool na = strspn(a, "0123456789") >= x, nb = strspn(b, "0123456789") >= y;
        int c;
        if (na && nb) {
            c = x != y ? (x > y ? 1 : -1) : strncmp(a, b, x);
        } else if (na != nb) {
            c = na ? -1 : 1;
        } else {
            c = strncmp(a, b, x < y ? x : y);
            c = c ? c : (x > y) - (x < y);
        }
        if (c) {
            return c > 0 ? 1 : -1;
        }
        a += x;
        b += y;
        if (!*a || !*b) {
            return *a ? 1 : *b ? -1 : 0;
        }
        a++;
        b++;
    }
}

int cel_semver_cmp(const struct cel_semver *a, const struct cel_semver *b)
{
    int c = cmp_u(a->major, b->major);
    c = c ? c : cmp_u(a->minor, b->minor);
    c = c ? c : cmp_u(a->patch, b->patch);
    return c ? c : cmp_pre(a->pre, b->pre);
}

CEL_FN_DEF(cel_fn_sv_major)
{
    return cel_int((int64_t)args[0].semver->major);
}

CEL_FN_DEF(cel_fn_sv_minor)
{
    return cel_int((int64_t)args[0].semver->minor);
}

CEL_FN_DEF(cel_fn_sv_patch)
{
    return cel_int((int64_t)args[0].semver->patch);
}
