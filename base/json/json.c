/* JSON trees over json-c.
 *
 * Problem: manifests, API objects, image manifests and state files are all JSON; the tree type
 * behind them must be replaceable, since json-c spends about seventeen bytes of heap per byte of
 * text. Design: struct th_json is never defined. A pointer to it is a pointer to a json_object, and
 * only the files of base/json know. NULL is JSON's null, as in json-c, which lets every getter be
 * chained without tests.
 *
 * Parsing is done twice on purpose: our scanner (scan.c) walks the text first, for json-c's own
 * strictness has gaps (it lets NaN and leading zeros pass, rounds numbers that do not fit, cuts
 * names at an escaped NUL) and its errors carry neither line nor what was expected. json-c's
 * tokener then builds the tree from text that is known to be good. The scan costs a few percent of
 * the parse.
 *
 * Invariants: names never hold a NUL; doubles are finite; json-c's cached serialization is never
 * made (dump.c walks the nodes), so reading a tree does not write to it. Lookups in small objects
 * walk the members in order, since comparing a handful of short names beats hashing one.
 */
#include "base/json/json_priv.h"

#include "base/limits.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>

/* Above this number of members the hash table is asked instead of walking the list. */
#define LINEAR_MEMBERS 8

static size_t count_members(struct json_object *o)
{
    size_t n = 0;
    if (json_object_is_type(o, json_type_object)) {
        for (struct lh_entry *e = lh_table_head(json_object_get_object(o)); e;
             e = lh_entry_next(e)) {
            n += 1 + count_members(lh_entry_v(e));
        }
    } else if (json_object_is_type(o, json_type_array)) {
        for (size_t i = 0; i < json_object_array_length(o); i++) {
            n += count_members(json_object_array_get_idx(o, i));
        }
    }
    return n;
}

int th_json_parse(const char *p, size_t n, struct th_strv *dups, struct th_json **ret,
                  struct th_err *err)
{
    if (n >= INT_MAX) {
        return th_fail(err, TH_R_TOO_LARGE, "JSON document of %zu bytes", n);
    }
    size_t members;
    TH_TRY(th_json_scan(p, n, &members, err));

    /* json-c counts the level of a scalar too, and the scanner already bounds the depth. */
    struct json_tokener *tok = json_tokener_new_ex(TH_LIMIT_JSON_DEPTH + 2);
    TH_ASSERT(tok);
    json_tokener_set_flags(tok, JSON_TOKENER_STRICT);
    struct json_object *o = json_tokener_parse_ex(tok, p, (int)n);
    enum json_tokener_error e = json_tokener_get_error(tok);
    if (e == json_tokener_continue) {
        /* a number at the top level ends only with the text */
        o = json_tokener_parse_ex(tok, "", 1);
        e = json_tokener_get_error(tok);
    }
    json_tokener_free(tok);
    if (e != json_tokener_success) {
        return th_fail(err, TH_R_PARSE, "not JSON: %s", json_tokener_error_desc(e));
    }
    /* The tree keeps one of several equal names; only then is it worth finding out which. */
    if (dups && count_members(o) != members) {
        th_json_scan_dups(p, n, dups);
    }
    *ret = th_json_of(o);
    return 0;
}

int th_json_parse_cstr(const char *s, struct th_json **ret, struct th_err *err)
{
    return th_json_parse(s, strlen(s), NULL, ret, err);
}

struct th_json *th_json_ref(struct th_json *o)
{
    return th_json_of(json_object_get(th_json_c(o)));
}

void th_json_unref(struct th_json *o)
{
    (void)json_object_put(th_json_c(o));
}

struct th_json *th_json_dup(const struct th_json *o)
{
    struct json_object *c = th_json_c(o);
    switch (th_json_type(o)) {
    case TH_JSON_NULL:
        return NULL;
    case TH_JSON_BOOL:
        return th_json_bool(json_object_get_boolean(c));
    case TH_JSON_INT: {
        uint64_t u = json_object_get_uint64(c);
        return u > INT64_MAX ? th_json_of(json_object_new_uint64(u))
                             : th_json_int(json_object_get_int64(c));
    }
    case TH_JSON_DOUBLE:
        return th_json_double(json_object_get_double(c));
    case TH_JSON_STRING:
        return th_json_string_n(th_json_str(o), th_json_str_len(o));
    case TH_JSON_ARRAY: {
        size_t n = json_object_array_length(c);
        struct json_object *a = json_object_new_array_ext((int)(n ? n : 1));
        TH_ASSERT(a);
        for (size_t i = 0; i < n; i++) {
            th_json_append(th_json_of(a), th_json_dup(th_json_of(json_object_array_get_idx(c, i))));
        }
        return th_json_of(a);
    }
    case TH_JSON_OBJECT:
        break;
    }
    struct th_json *copy = th_json_object();
    for (struct lh_entry *e = th_json_first(o); e; e = lh_entry_next(e)) {
        struct th_json *v = th_json_dup(lh_entry_v(e));
        TH_ASSERT(json_object_object_add_ex(th_json_c(copy), lh_entry_k(e), th_json_c(v),
                                            JSON_C_OBJECT_ADD_KEY_IS_NEW) == 0);
    }
    return copy;
}

static bool numbers_equal(struct json_object *a, struct json_object *b)
{
    bool ad = json_object_is_type(a, json_type_double);
    bool bd = json_object_is_type(b, json_type_double);
    if (ad || bd) {
        return json_object_get_double(a) == json_object_get_double(b);
    }
    int64_t av = json_object_get_int64(a);
    /* above INT64_MAX the signed getter sticks at it; below 0 the unsigned one sticks at 0 */
    return av == json_object_get_int64(b) &&
           (av < 0 || json_object_get_uint64(a) == json_object_get_uint64(b));
}

bool th_json_equal(const struct th_json *a, const struct th_json *b)
{
    if (a == b) {
        return true;
    }
    enum th_json_type ta = th_json_type(a);
    enum th_json_type tb = th_json_type(b);
    bool a_num = ta == TH_JSON_INT || ta == TH_JSON_DOUBLE;
    if (a_num && (tb == TH_JSON_INT || tb == TH_JSON_DOUBLE)) {
        return numbers_equal(th_json_c(a), th_json_c(b));
    }
    if (ta != tb) {
        return false;
    }
    size_t n = th_json_len(a);
    switch (ta) {
    case TH_JSON_BOOL:
        return th_json_as_bool(a, false) == th_json_as_bool(b, false);
    case TH_JSON_STRING:
        n = th_json_str_len(a);
        return n == th_json_str_len(b) && memcmp(th_json_str(a), th_json_str(b), n) == 0;
    case TH_JSON_ARRAY:
        if (n != th_json_len(b)) {
            return false;
        }
        for (size_t i = 0; i < n; i++) {
            if (!th_json_equal(th_json_at(a, i), th_json_at(b, i))) {
                return false;
            }
        }
        return true;
    case TH_JSON_OBJECT:
        if (n != th_json_len(b)) {
            return false;
        }
        for (struct lh_entry *e = th_json_first(a); e; e = lh_entry_next(e)) {
            const char *k = lh_entry_k(e);
            struct lh_entry *other = th_json_find(b, k, strlen(k));
            if (!other || !th_json_equal(lh_entry_v(e), lh_entry_v(other))) {
                return false;
            }
        }
        return true;
    default:
        return true;
    }
}

enum th_json_type th_json_type(const struct th_json *o)
{
    switch (json_object_get_type(th_json_c(o))) {
    case json_type_null:
        return TH_JSON_NULL;
    case json_type_boolean:
        return TH_JSON_BOOL;
    case json_type_int:
        return TH_JSON_INT;
    case json_type_double:
        return TH_JSON_DOUBLE;
    case json_type_string:
        return TH_JSON_STRING;
    case json_type_array:
        return TH_JSON_ARRAY;
    case json_type_object:
        return TH_JSON_OBJECT;
    }
    return TH_JSON_NULL;
}

bool th_json_is(const struct th_json *o, enum th_json_type t)
{
    return th_json_type(o) == t;
}

static struct th_json *made(struct json_object *o)
{
    TH_ASSERT(o); /* json-c returns NULL only when malloc does */
    return th_json_of(o);
}

struct th_json *th_json_object(void)
{
    return made(json_object_new_object());
}

struct th_json *th_json_array(void)
{
    return made(json_object_new_array_ext(4));
}

struct th_json *th_json_string(const char *s)
{
    return s ? th_json_string_n(s, strlen(s)) : NULL;
}

struct th_json *th_json_string_n(const char *s, size_t n)
{
    TH_ASSERT(n < INT_MAX);
    return made(json_object_new_string_len(s, (int)n));
}

struct th_json *th_json_stringf(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    th_autofree char *s = th_xvasprintf(fmt, ap);
    va_end(ap);
    return th_json_string(s);
}

struct th_json *th_json_int(int64_t v)
{
    return made(json_object_new_int64(v));
}

struct th_json *th_json_bool(bool v)
{
    return made(json_object_new_boolean(v));
}

struct th_json *th_json_double(double v)
{
    return isfinite(v) ? made(json_object_new_double(v)) : NULL;
}

const char *th_json_str(const struct th_json *o)
{
    return th_json_is(o, TH_JSON_STRING) ? json_object_get_string(th_json_c(o)) : NULL;
}

size_t th_json_str_len(const struct th_json *o)
{
    return th_json_is(o, TH_JSON_STRING) ? (size_t)json_object_get_string_len(th_json_c(o)) : 0;
}

int64_t th_json_as_int(const struct th_json *o, int64_t def)
{
    if (th_json_is(o, TH_JSON_INT)) {
        return json_object_get_int64(th_json_c(o));
    }
    if (th_json_is(o, TH_JSON_DOUBLE)) {
        double d = json_object_get_double(th_json_c(o));
        /* 2^63 itself is a double and does not fit */
        return d == trunc(d) && d >= -0x1p63 && d < 0x1p63 ? (int64_t)d : def;
    }
    return def;
}

double th_json_as_double(const struct th_json *o, double def)
{
    enum th_json_type t = th_json_type(o);
    return t == TH_JSON_INT || t == TH_JSON_DOUBLE ? json_object_get_double(th_json_c(o)) : def;
}

bool th_json_as_bool(const struct th_json *o, bool def)
{
    return th_json_is(o, TH_JSON_BOOL) ? json_object_get_boolean(th_json_c(o)) : def;
}

size_t th_json_len(const struct th_json *o)
{
    switch (json_object_get_type(th_json_c(o))) {
    case json_type_object:
        return (size_t)json_object_object_length(th_json_c(o));
    case json_type_array:
        return json_object_array_length(th_json_c(o));
    default:
        return 0;
    }
}

struct lh_entry *th_json_find(const struct th_json *o, const char *name, size_t n)
{
    struct lh_table *t = json_object_get_object(th_json_c(o));
    if (lh_table_length(t) <= LINEAR_MEMBERS) {
        for (struct lh_entry *e = lh_table_head(t); e; e = lh_entry_next(e)) {
            const char *k = lh_entry_k(e);
            /* most names differ in their first byte already, which saves the call */
            if ((n == 0 || *k == *name) && strncmp(k, name, n) == 0 && k[n] == '\0') {
                return e;
            }
        }
        return NULL;
    }
    if (name[n] == '\0') {
        return lh_table_lookup_entry(t, name);
    }
    char small[128];
    th_autofree char *large = NULL;
    char *z = small;
    if (n >= sizeof(small)) {
        z = large = th_xmalloc(n + 1);
    }
    memcpy(z, name, n);
    z[n] = '\0';
    return lh_table_lookup_entry(t, z);
}

struct th_json *th_json_get(const struct th_json *o, const char *name)
{
    if (!th_json_is(o, TH_JSON_OBJECT)) {
        return NULL;
    }
    struct lh_entry *e = th_json_find(o, name, strlen(name));
    return e ? lh_entry_v(e) : NULL;
}

bool th_json_has(const struct th_json *o, const char *name)
{
    return th_json_is(o, TH_JSON_OBJECT) && th_json_find(o, name, strlen(name));
}

void th_json_set(struct th_json *o, const char *name, struct th_json *value)
{
    TH_ASSERT(th_json_is(o, TH_JSON_OBJECT) && o != value);
    TH_ASSERT(json_object_object_add(th_json_c(o), name, th_json_c(value)) == 0);
}

void th_json_set_str(struct th_json *o, const char *name, const char *value)
{
    th_json_set(o, name, th_json_string(value));
}

void th_json_set_int(struct th_json *o, const char *name, int64_t value)
{
    th_json_set(o, name, th_json_int(value));
}

void th_json_set_bool(struct th_json *o, const char *name, bool value)
{
    th_json_set(o, name, th_json_bool(value));
}

bool th_json_del(struct th_json *o, const char *name)
{
    if (!th_json_is(o, TH_JSON_OBJECT)) {
        return false;
    }
    struct lh_entry *e = th_json_find(o, name, strlen(name));
    return e && lh_table_delete_entry(json_object_get_object(th_json_c(o)), e) == 0;
}

bool th_json_next(struct th_json_iter *it)
{
    if (!it->started) {
        it->started = true;
        it->pos = th_json_is(it->obj, TH_JSON_OBJECT) ? th_json_first(it->obj) : NULL;
    }
    struct lh_entry *e = it->pos;
    if (!e) {
        return false;
    }
    /* Taken now, for the caller may delete e; json-c never moves entries on deletion. */
    it->pos = lh_entry_next(e);
    it->name = lh_entry_k(e);
    it->value = lh_entry_v(e);
    return true;
}

struct th_json *th_json_at(const struct th_json *a, size_t i)
{
    if (!th_json_is(a, TH_JSON_ARRAY)) {
        return NULL;
    }
    return th_json_of(json_object_array_get_idx(th_json_c(a), i)); /* NULL past the end */
}

void th_json_append(struct th_json *a, struct th_json *value)
{
    TH_ASSERT(th_json_is(a, TH_JSON_ARRAY) && a != value);
    TH_ASSERT(json_object_array_add(th_json_c(a), th_json_c(value)) == 0);
}

void th_json_append_str(struct th_json *a, const char *s)
{
    th_json_append(a, th_json_string(s));
}

void th_json_set_at(struct th_json *a, size_t i, struct th_json *value)
{
    TH_ASSERT(i < th_json_len(a) && th_json_is(a, TH_JSON_ARRAY));
    TH_ASSERT(json_object_array_put_idx(th_json_c(a), i, th_json_c(value)) == 0);
}

void th_json_insert_at(struct th_json *a, size_t i, struct th_json *value)
{
    size_t n = th_json_len(a);
    TH_ASSERT(i <= n);
    th_json_append(a, value);
    struct array_list *l = json_object_get_array(th_json_c(a));
    memmove(&l->array[i + 1], &l->array[i], (n - i) * sizeof(l->array[0]));
    l->array[i] = value;
}

void th_json_del_at(struct th_json *a, size_t i)
{
    if (th_json_is(a, TH_JSON_ARRAY) && i < th_json_len(a)) {
        (void)json_object_array_del_idx(th_json_c(a), i, 1);
    }
}

struct sortee {
    struct th_json *node;
    size_t at;
};

static int sort_step(const void *a, const void *b, void *arg)
{
    int (*const *cmp)(const struct th_json *, const struct th_json *) = arg;
    const struct sortee *x = a;
    const struct sortee *y = b;
    int r = (*cmp)(x->node, y->node);
    return r ? r : (x->at > y->at) - (x->at < y->at);
}

void th_json_sort(struct th_json *a, int (*cmp)(const struct th_json *, const struct th_json *))
{
    size_t n = th_json_is(a, TH_JSON_ARRAY) ? th_json_len(a) : 0;
    if (n < 2) {
        return;
    }
    struct array_list *l = json_object_get_array(th_json_c(a));
    th_autofree struct sortee *v = th_xmalloc(n * sizeof(*v));
    for (size_t i = 0; i < n; i++) {
        v[i] = (struct sortee){l->array[i], i}; /* the old place keeps equal elements in order */
    }
    qsort_r(v, n, sizeof(*v), sort_step, &cmp);
    for (size_t i = 0; i < n; i++) {
        l->array[i] = v[i].node;
    }
}
