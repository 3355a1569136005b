/*
 * Values: made, compared, printed.
 *
 * Objects and lists that come from outside stay JSON and are seen through their schema member by
 * member; only what an expression touches is converted. A member's type follows the schema: a string
 * of format date-time is a timestamp, a number without a fraction where the schema says number is a
 * double. Names that are no identifiers are escaped (a.b is a__dot__b).
 *
 * Lists of type set and map are equal in any order, as upstream.
 */
#include "controlplane/schema/cel/cel_priv.h"

#include "base/encode.h"
#include "controlplane/schema/gotext.h"

#include <math.h>

bool cel_charge(struct cel_eval *e, uint64_t units)
{
    e->cost = e->cost > UINT64_MAX - units ? UINT64_MAX : e->cost + units;
    e->over |= e->cost > e->limit;
    return !e->over;
}

uint64_t cel_text_cost(size_t n)
{
    return (n + 9) / 10;
}

struct cel_val cel_error(struct cel_eval *e, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    th_autofree char *s = th_xvasprintf(fmt, ap);
    va_end(ap);
    size_t n = strlen(s);
    return (struct cel_val){.kind = CEL_ERROR, .s = {cel_strdup(&e->a, s, n), n}};
}

struct cel_val cel_no_overload(void)
{
    return (struct cel_val){.kind = CEL_ERROR, .s = TH_STR("no such overload")};
}

struct cel_val cel_text(const char *s)
{
    return cel_string(s, strlen(s));
}

struct cel_val cel_none(void)
{
    return (struct cel_val){.kind = CEL_OPTIONAL, .opt = NULL};
}

struct cel_val cel_some(struct cel_eval *e, struct cel_val v)
{
    struct cel_val *p = cel_alloc(&e->a, sizeof(*p));
    *p = v;
    return (struct cel_val){.kind = CEL_OPTIONAL, .opt = p};
}

struct cel_val cel_make_list(struct cel_eval *e, struct cel_val *v, size_t n)
{
    struct cel_list *l = cel_alloc(&e->a, sizeof(*l));
    l->v = v ? v : cel_alloc(&e->a, sizeof(*v));
    l->n = n;
    return (struct cel_val){.kind = CEL_LIST, .list = l};
}

struct cel_val cel_make_map(struct cel_eval *e, struct cel_val *keys, struct cel_val *vals, size_t n)
{
    struct cel_map *m = cel_alloc(&e->a, sizeof(*m));
    m->keys = keys ? keys : cel_alloc(&e->a, sizeof(*keys));
    m->vals = vals;
    m->n = n;
    return (struct cel_val){.kind = CEL_MAP, .map = m};
}

/* ---- JSON seen through a schema ---- */

static struct cel_val text_of_json(struct cel_eval *e, const struct th_json *j, const char *format)
{
    const char *s = th_json_str(j);
    size_t n = th_json_str_len(j);
    int64_t sec, ns;
    int32_t nsec;
    if (th_streq(format, "byte")) {
        th_autobuf struct th_buf b = TH_BUF_INIT;
        if (th_b64_decode(s, n, &b, NULL) >= 0) {
            return (struct cel_val){.kind = CEL_BYTES,
                                    .s = {cel_strdup(&e->a, th_buf_cstr(&b), b.n), b.n}};
        }
        return cel_error(e, "Invalid base64 data");
    }
    if (th_streq(format, "duration")) {
        return th_go_duration_parse(s, &ns, NULL) >= 0
                   ? (struct cel_val){.kind = CEL_DURATION, .i = ns}
                   : cel_error(e, "Invalid duration %s", s);
    }
    if (th_streq(format, "date") || th_streq(format, "date-time")) {
        th_autofree char *full = format[4] ? th_xstrdup(s) : th_xasprintf("%sT00:00:00Z", s);
        return th_go_time_parse(full, false, &sec, &nsec, NULL) >= 0
                   ? (struct cel_val){.kind = CEL_TIMESTAMP, .ts = {sec, nsec}}
                   : cel_error(e, "Invalid %s formatted string %s", format, s);
    }
    return cel_string(s, n);
}

static struct cel_val container_of_json(struct cel_eval *e, const struct th_json *j,
                                        const struct th_structural *s, bool resource)
{
    if (th_json_is(j, TH_JSON_ARRAY)) {
        struct cel_list *l = cel_alloc(&e->a, sizeof(*l));
        l->json = j;
        l->schema = s;
        return (struct cel_val){.kind = CEL_LIST, .list = l};
    }
    struct cel_map *m = cel_alloc(&e->a, sizeof(*m));
    m->json = j;
    m->schema = s;
    m->resource = resource || (s && (s->flags & TH_SF_EMBEDDED));
    m->object = s && (s->n_props > 0 || !s->additional || m->resource);
    return (struct cel_val){.kind = CEL_MAP, .map = m};
}

struct cel_val cel_of_json(struct cel_eval *e, const struct th_json *j,
                           const struct th_structural *s, bool resource)
{
    switch (th_json_type(j)) {
    case TH_JSON_NULL:
        return (struct cel_val){.kind = CEL_NULL};
    case TH_JSON_BOOL:
        return cel_bool(th_json_as_bool(j, false));
    case TH_JSON_INT:
        return s && s->type == TH_ST_NUMBER && !(s->flags & TH_SF_INTORSTR)
                   ? cel_double(th_json_as_double(j, 0))
                   : cel_int(th_json_as_int(j, 0));
    case TH_JSON_DOUBLE: {
        double d = th_json_as_double(j, 0);
        return s && (s->type == TH_ST_INTEGER || (s->flags & TH_SF_INTORSTR)) && d == floor(d) &&
                       fabs(d) < 9.2e18
                   ? cel_int((int64_t)d)
                   : cel_double(d);
    }
    case TH_JSON_STRING:
        return text_of_json(e, j, s && !(s->flags & TH_SF_INTORSTR) ? s->format : NULL);
    default:
        return container_of_json(e, j, s, resource);
    }
}

size_t cel_list_len(const struct cel_list *l)
{
    return l->json ? th_json_len(l->json) : l->n;
}

struct cel_val cel_list_at(struct cel_eval *e, const struct cel_list *l, size_t i)
{
    return l->json ? cel_of_json(e, th_json_at(l->json, i), l->schema ? l->schema->items : NULL,
                                 false)
                   : l->v[i];
}

size_t cel_map_len(const struct cel_map *m)
{
    return m->json ? th_json_len(m->json) : m->n;
}

bool cel_escape(const char *name, struct th_buf *b)
{
    static const char *const words[] = {
        "true",  "false", "null",     "in",  "as",     "break", "const",   "continue",  "else",
        "for",   "function", "if",    "import", "let", "loop",  "package", "namespace", "return",
        "var",   "void",  "while"};
    if (!*name || (*name >= '0' && *name <= '9')) {
        return false;
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(words); i++) {
        if (strcmp(words[i], name) == 0) {
            th_buf_printf(b, "__%s__", name);
            return true;
        }
    }
    for (const char *p = name; *p; p++) {
        bool plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
                     (*p >= '0' && *p <= '9') || *p == '_';
        if (p[0] == '_' && p[1] == '_') {
            th_buf_puts(b, "__underscores__");
            p++;
        } else if (plain) {
            th_buf_putc(b, *p);
        } else if (*p == '.' || *p == '-' || *p == '/') {
            th_buf_puts(b, *p == '.' ? "__dot__" : *p == '-' ? "__dash__" : "__slash__");
        } else {
            return false;
        }
    }
    return true;
}

/* The member of an object that an identifier names; NULL when there is none. */
static const struct th_sprop *object_member(const struct cel_map *m, const char *ident)
{
    bool plain = !strstr(ident, "__");
    for (size_t i = 0; m->schema && i < m->schema->n_props; i++) {
        const struct th_sprop *p = &m->schema->props[i];
        if (plain && strcmp(p->name, ident) == 0) {
            return p;
        }
        if (!plain) {
            th_autobuf struct th_buf b = TH_BUF_INIT;
            if (cel_escape(p->name, &b) && th_streq(th_buf_cstr(&b), ident)) {
                return p;
            }
        }
    }
    return NULL;
}

static bool object_get(struct cel_eval *e, const struct cel_map *m, const char *name,
                       struct cel_val *ret)
{
    bool type_meta = th_streq(name, "apiVersion") || th_streq(name, "kind");
    bool meta_name = th_streq(name, "name") || th_streq(name, "generateName");
    if ((m->resource && type_meta) || (m->meta && meta_name)) {
        *ret = cel_of_json(e, th_json_get(m->json, name), NULL, false);
        return th_json_has(m->json, name);
    }
    if (m->resource && th_streq(name, "metadata")) {
        struct cel_map *meta = cel_alloc(&e->a, sizeof(*meta));
        *meta = (struct cel_map){.json = th_json_get(m->json, name), .object = true, .meta = true};
        *ret = (struct cel_val){.kind = CEL_MAP, .map = meta};
        return th_json_has(m->json, name);
    }
    const struct th_sprop *p = object_member(m, name);
    if (!p || !th_json_has(m->json, p->name)) {
        return false;
    }
    *ret = cel_of_json(e, th_json_get(m->json, p->name), p->s, false);
    return true;
}

bool cel_map_get(struct cel_eval *e, const struct cel_map *m, struct cel_val key,
                 struct cel_val *ret)
{
    if (!m->json) {
        for (size_t i = 0; i < m->n; i++) {
            if (cel_equal(e, m->keys[i], key) == 1) {
                *ret = m->vals[i];
                return true;
            }
        }
        return false;
    }
    if (key.kind != CEL_STRING) {
        return false;
    }
    th_autofree char *name = th_xstrndup(key.s.p, key.s.n);
    if (m->object) {
        return object_get(e, m, name, ret);
    }
    if (!th_json_has(m->json, name)) {
        return false;
    }
    *ret = cel_of_json(e, th_json_get(m->json, name), m->schema ? m->schema->additional : NULL,
                       false);
    return true;
}

struct cel_val *cel_map_keys(struct cel_eval *e, const struct cel_map *m, size_t *ret_n)
{
    *ret_n = cel_map_len(m);
    if (!m->json) {
        return m->keys;
    }
    struct cel_val *v = cel_alloc(&e->a, (*ret_n + 1) * sizeof(*v));
    size_t n = 0;
    struct th_json_iter it = TH_JSON_ITER(m->json);
    while (th_json_next(&it)) {
        th_autobuf struct th_buf b = TH_BUF_INIT;
        if (m->object && !cel_escape(it.name, &b)) {
            continue;
        }
        const char *name = m->object ? th_buf_cstr(&b) : it.name;
        v[n++] = cel_string(cel_strdup(&e->a, name, strlen(name)), strlen(name));
    }
    *ret_n = n;
    return v;
}

/* ---- Comparing ---- */

static bool is_number(struct cel_val v)
{
    return v.kind == CEL_INT || v.kind == CEL_UINT || v.kind == CEL_DOUBLE;
}

static int three_way(bool less, bool more)
{
    return less ? -1 : more;
}

static int compare_numbers(struct cel_val a, struct cel_val b)
{
    if (a.kind == b.kind && a.kind != CEL_DOUBLE) {
        return a.kind == CEL_INT ? three_way(a.i < b.i, a.i > b.i) : three_way(a.u < b.u, a.u > b.u);
    }
    if (a.kind == CEL_INT && b.kind == CEL_UINT) {
        return a.i < 0 ? -1 : three_way((uint64_t)a.i < b.u, (uint64_t)a.i > b.u);
    }
    if (a.kind == CEL_UINT && b.kind == CEL_INT) {
        return -compare_numbers(b, a);
    }
    long double x = a.kind == CEL_DOUBLE ? a.d : a.kind == CEL_INT ? (long double)a.i : (long double)a.u;
    long double y = b.kind == CEL_DOUBLE ? b.d : b.kind == CEL_INT ? (long double)b.i : (long double)b.u;
    return x != x || y != y ? 2 : three_way(x < y, x > y);
}

int cel_compare(struct cel_val a, struct cel_val b)
{
    if (is_number(a) && is_number(b)) {
        return compare_numbers(a, b);
    }
    if (a.kind != b.kind) {
        return 3;
    }
    switch (a.kind) {
    case CEL_BOOL:
        return (int)a.b - (int)b.b;
    case CEL_STRING:
    case CEL_BYTES: {
        size_t n = a.s.n < b.s.n ? a.s.n : b.s.n;
        int c = n ? memcmp(a.s.p, b.s.p, n) : 0;
        return c ? (c > 0) - (c < 0) : three_way(a.s.n < b.s.n, a.s.n > b.s.n);
    }
    case CEL_TIMESTAMP:
        return a.ts.sec != b.ts.sec ? three_way(a.ts.sec < b.ts.sec, true)
                                    : three_way(a.ts.nsec < b.ts.nsec, a.ts.nsec > b.ts.nsec);
    case CEL_DURATION:
        return three_way(a.i < b.i, a.i > b.i);
    default:
        return 3;
    }
}

/* Lists of type set or map: every element has its equal on the other side. */
static int equal_unordered(struct cel_eval *e, const struct cel_list *a, const struct cel_list *b)
{
    for (size_t i = 0; i < cel_list_len(a); i++) {
        bool found = false;
        for (size_t k = 0; k < cel_list_len(b) && !found; k++) {
            if (!cel_charge(e, 1)) {
                return 0;
            }
            found = cel_equal(e, cel_list_at(e, a, i), cel_list_at(e, b, k)) == 1;
        }
        if (!found) {
            return 0;
        }
    }
    return 1;
}

static int equal_lists(struct cel_eval *e, const struct cel_list *a, const struct cel_list *b)
{
    size_t n = cel_list_len(a);
    if (n != cel_list_len(b)) {
        return 0;
    }
    if (a->schema && (a->schema->flags & (TH_SF_LIST_SET | TH_SF_LIST_MAP))) {
        return equal_unordered(e, a, b);
    }
    for (size_t i = 0; i < n; i++) {
        int r = cel_equal(e, cel_list_at(e, a, i), cel_list_at(e, b, i));
        if (r != 1) {
            return r;
        }
    }
    return 1;
}

static int equal_maps(struct cel_eval *e, const struct cel_map *a, const struct cel_map *b)
{
    if (cel_map_len(a) != cel_map_len(b)) {
        return 0;
    }
    if (a->json && b->json) {
        return th_json_equal(a->json, b->json);
    }
    size_t n;
    struct cel_val *keys = cel_map_keys(e, a, &n);
    for (size_t i = 0; i < n; i++) {
        struct cel_val x, y;
        if (!cel_map_get(e, a, keys[i], &x) || !cel_map_get(e, b, keys[i], &y)) {
            return 0;
        }
        int r = cel_equal(e, x, y);
        if (r != 1) {
            return r;
        }
    }
    return 1;
}

static int semver_equal(const struct cel_semver *a, const struct cel_semver *b)
{
    return a->major == b->major && a->minor == b->minor && a->patch == b->patch &&
           th_streq(a->pre, b->pre);
}

int cel_equal(struct cel_eval *e, struct cel_val a, struct cel_val b)
{
    if (is_number(a) && is_number(b)) {
        return compare_numbers(a, b) == 0;
    }
    if (a.kind == CEL_ERROR || b.kind == CEL_ERROR) {
        return -1;
    }
    if (a.kind != b.kind) {
        return 0;
    }
    switch (a.kind) {
    case CEL_NULL:
        return 1;
    case CEL_LIST:
        return equal_lists(e, a.list, b.list);
    case CEL_MAP:
        return equal_maps(e, a.map, b.map);
    case CEL_OPTIONAL:
        return a.opt && b.opt ? cel_equal(e, *a.opt, *b.opt) : !a.opt && !b.opt;
    case CEL_TYPE:
    case CEL_URL:
    case CEL_FORMAT:
        return th_str_eq(a.s, b.s);
    case CEL_QUANTITY:
        return th_quantity_cmp(*a.quantity, *b.quantity) == 0;
    case CEL_IP:
    case CEL_CIDR:
        return a.net.bits == b.net.bits && a.net.ip->v6 == b.net.ip->v6 &&
               memcmp(a.net.ip->b, b.net.ip->b, 16) == 0;
    case CEL_SEMVER:
        return semver_equal(a.semver, b.semver);
    default:
        return cel_compare(a, b) == 0;
    }
}

/* ---- Names and text ---- */

const char *cel_type_name(struct cel_val v)
{
    static const char *const names[CEL_KINDS_] = {
        [CEL_ERROR] = "error",     [CEL_NULL] = "null_type",
        [CEL_BOOL] = "bool",       [CEL_INT] = "int",
        [CEL_UINT] = "uint",       [CEL_DOUBLE] = "double",
        [CEL_STRING] = "string",   [CEL_BYTES] = "bytes",
        [CEL_TIMESTAMP] = "google.protobuf.Timestamp", [CEL_DURATION] = "google.protobuf.Duration",
        [CEL_LIST] = "list",       [CEL_MAP] = "map",
        [CEL_OPTIONAL] = "optional_type", [CEL_TYPE] = "type",
        [CEL_URL] = "kubernetes.URL", [CEL_QUANTITY] = "kubernetes.Quantity",
        [CEL_IP] = "net.IP",       [CEL_CIDR] = "net.CIDR",
        [CEL_FORMAT] = "kubernetes.NamedFormat", [CEL_SEMVER] = "kubernetes.Semver",
        [CEL_AUTHORIZER] = "kubernetes.authorization.Authorizer",
        [CEL_PATH_CHECK] = "kubernetes.authorization.PathCheck",
        [CEL_GROUP_CHECK] = "kubernetes.authorization.GroupCheck",
        [CEL_RESOURCE_CHECK] = "kubernetes.authorization.ResourceCheck",
        [CEL_DECISION] = "kubernetes.authorization.Decision",
        [CEL_NAMED] = "kubernetes.variables"};
    return v.kind == CEL_MAP && v.map->type_name ? v.map->type_name : names[v.kind];
}

size_t cel_char_len(const char *p, const char *end)
{
    size_t n = 1;
    while (p + n < end && ((unsigned char)p[n] & 0xc0) == 0x80) {
        n++;
    }
    return n;
}

size_t cel_runes(struct th_str s)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        n += ((unsigned char)s.p[i] & 0xc0) != 0x80;
    }
    return n;
}

void cel_print(struct cel_eval *e, struct cel_val v, struct th_buf *b)
{
    char text[TH_QUANTITY_LEN > 64 ? TH_QUANTITY_LEN : 64];
    switch (v.kind) {
    case CEL_NULL:
        th_buf_puts(b, "null");
        break;
    case CEL_BOOL:
        th_buf_puts(b, v.b ? "true" : "false");
        break;
    case CEL_INT:
        th_buf_printf(b, "%lld", (long long)v.i);
        break;
    case CEL_UINT:
        th_buf_printf(b, "%llu", (unsigned long long)v.u);
        break;
    case CEL_DOUBLE:
        if (isnan(v.d) || isinf(v.d)) {
            th_buf_puts(b, isnan(v.d) ? "NaN" : v.d > 0 ? "+Inf" : "-Inf");
        } else {
            (void)th_json_format_double_g(v.d, text);
            th_buf_puts(b, text);
        }
        break;
    case CEL_TIMESTAMP: {
        th_go_time_format(v.ts.sec, 0, false, text);
        size_t n = strlen(text);
        th_buf_add(b, text, n - 1);
        if (v.ts.nsec) {
            char frac[16];
            int k = snprintf(frac, sizeof(frac), ".%09d", v.ts.nsec);
            while (frac[k - 1] == '0') {
                k--;
            }
            th_buf_add(b, frac, (size_t)k);
        }
        th_buf_putc(b, 'Z');
        break;
    }
    case CEL_DURATION: { /* seconds, as protobuf's JSON has them */
        bool neg = v.i < 0;
        uint64_t ns = neg ? 0 - (uint64_t)v.i : (uint64_t)v.i;
        th_buf_printf(b, "%s%llu", neg ? "-" : "", (unsigned long long)(ns / 1000000000u));
        if (ns % 1000000000u) {
            char frac[16];
            int k = snprintf(frac, sizeof(frac), ".%09llu", (unsigned long long)(ns % 1000000000u));
            while (frac[k - 1] == '0') {
                k--;
            }
            th_buf_add(b, frac, (size_t)k);
        }
        th_buf_putc(b, 's');
        break;
    }
    case CEL_LIST:
        th_buf_putc(b, '[');
        for (size_t i = 0; i < cel_list_len(v.list); i++) {
            th_buf_puts(b, i ? ", " : "");
            cel_print(e, cel_list_at(e, v.list, i), b);
        }
        th_buf_putc(b, ']');
        break;
    case CEL_MAP: {
        size_t n;
        struct cel_val *keys = cel_map_keys(e, v.map, &n);
        th_buf_putc(b, '{');
        for (size_t i = 0; i < n; i++) {
            struct cel_val x = {.kind = CEL_NULL};
            (void)cel_map_get(e, v.map, keys[i], &x);
            th_buf_puts(b, i ? ", " : "");
            cel_print(e, keys[i], b);
            th_buf_puts(b, ": ");
            cel_print(e, x, b);
        }
        th_buf_putc(b, '}');
        break;
    }
    case CEL_QUANTITY:
        th_buf_puts(b, th_quantity_format(*v.quantity, text));
        break;
    case CEL_OPTIONAL:
        th_buf_puts(b, v.opt ? "optional(" : "optional.none()");
        if (v.opt) {
            cel_print(e, *v.opt, b);
            th_buf_putc(b, ')');
        }
        break;
    case CEL_SEMVER:
        th_buf_printf(b, "%llu.%llu.%llu%s%s", (unsigned long long)v.semver->major,
                      (unsigned long long)v.semver->minor, (unsigned long long)v.semver->patch,
                      *v.semver->pre ? "-" : "", v.semver->pre);
        break;
    case CEL_IP:
    case CEL_CIDR: /* fn_net.c prints them */
        break;
    case CEL_AUTHORIZER:
    case CEL_PATH_CHECK:
    case CEL_GROUP_CHECK:
    case CEL_RESOURCE_CHECK:
    case CEL_DECISION:
    case CEL_NAMED:
        th_buf_puts(b, cel_type_name(v));
        break;
    default:
        th_buf_addstr(b, v.s);
    }
}

struct th_json *cel_to_json(const struct cel_val *v, struct cel_eval *e)
{
    switch (v->kind) {
    case CEL_NULL:
        return NULL;
    case CEL_BOOL:
        return th_json_bool(v->b);
    case CEL_INT:
        return th_json_int(v->i);
    case CEL_UINT:
        return v->u <= INT64_MAX ? th_json_int((int64_t)v->u) : th_json_double((double)v->u);
    case CEL_DOUBLE:
        return th_json_double(v->d);
    case CEL_BYTES: {
        th_autobuf struct th_buf b = TH_BUF_INIT;
        th_b64_encode(v->s.p, v->s.n, &b);
        return th_json_string(th_buf_cstr(&b));
    }
    case CEL_LIST: {
        struct th_json *a = th_json_array();
        for (size_t i = 0; i < cel_list_len(v->list); i++) {
            struct cel_val x = cel_list_at(e, v->list, i);
            th_json_append(a, cel_to_json(&x, e));
        }
        return a;
    }
    case CEL_MAP: {
        if (v->map->json) {
            return th_json_dup(v->map->json);
        }
        struct th_json *o = th_json_object();
        for (size_t i = 0; i < v->map->n; i++) {
            th_autobuf struct th_buf k = TH_BUF_INIT;
            cel_print(e, v->map->keys[i], &k);
            th_json_set(o, th_buf_cstr(&k), cel_to_json(&v->map->vals[i], e));
        }
        return o;
    }
    case CEL_OPTIONAL:
        return v->opt ? cel_to_json(v->opt, e) : NULL;
    default: {
        th_autobuf struct th_buf b = TH_BUF_INIT;
        cel_print(e, *v, &b);
        return th_json_string_n(th_buf_cstr(&b), b.n);
    }
    }
}
