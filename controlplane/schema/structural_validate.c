/*
 * Values against the schema of a custom resource.
 *
 * Upstream hands this to kube-openapi's validator and turns its errors into field errors; both steps
 * show in what users read ("spec.replicas in body must be of type integer: \"string\""), so the
 * order of checks, the words, and even which branch of an anyOf is reported (the one with most
 * checks passed) follow it. Each schema counts its passed checks for that choice.
 *
 * Errors that belong to no field there (those of unions) have the field "<nil>" here, too.
 *
 * Ratcheting: a place whose value is what it was before the update is not reported, whatever its
 * schema says by now. List elements are compared by key in lists of type map and not at all in
 * others, as upstream.
 */
#include "controlplane/schema/gotext.h"
#include "controlplane/schema/structural.h"
#include "controlplane/schema/validate.h"

#include <math.h>

struct result {
    struct th_err e; /* causes only */
    int count;       /* checks passed */
};
struct prior {
    const struct th_json *v;
    bool has;
};

static void validate(const struct th_structural *s, const struct th_json *v, struct prior old,
                     const char *path, struct result *r);

static void result_done(struct result *r)
{
    th_err_done(&r->e);
}

static void add_once(struct th_err *e, const struct th_cause *c)
{
    for (size_t i = 0; i < e->n_causes; i++) {
        if (strcmp(e->causes[i].msg, c->msg) == 0 && strcmp(e->causes[i].field, c->field) == 0) {
            return;
        }
    }
    th_err_add_cause(e, c->reason, c->field, "%s", c->msg);
}

static void merge(struct result *to, const struct result *from)
{
    for (size_t i = 0; i < from->e.n_causes; i++) {
        add_once(&to->e, &from->e.causes[i]);
    }
    to->count += from->count;
}

/* ---- Causes ---- */

static void fault(struct result *r, const char *reason, const char *path, const char *fmt, ...)
    TH_PRINTF(4, 5);
static void fault(struct result *r, const char *reason, const char *path, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    th_autofree char *msg = th_xvasprintf(fmt, ap);
    va_end(ap);
    const struct th_cause c = {.reason = (char *)(uintptr_t)reason,
                               .field = (char *)(uintptr_t)path,
                               .msg = msg};
    add_once(&r->e, &c);
}

/* "Invalid value: <bad>: <path> in body <what>". */
static void bad_value(struct result *r, const char *path, const struct th_json *bad,
                      const char *fmt, ...) TH_PRINTF(4, 5);
static void bad_value(struct result *r, const char *path, const struct th_json *bad,
                      const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    th_autofree char *what = th_xvasprintf(fmt, ap);
    va_end(ap);
    th_autofree char *detail = th_xasprintf("%s in body %s", path, what);
    th_invalid_value(&r->e, path, bad, detail);
}

static void type_fault(struct result *r, const char *path, const char *want, const char *got)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_buf_puts(&b, "Invalid value: ");
    th_go_quote(&b, got);
    th_buf_printf(&b, ": %s in body must be of type %s: ", path, want);
    th_go_quote(&b, got);
    fault(r, "FieldValueTypeInvalid", path, "%s", th_buf_cstr(&b));
}

/* Errors of unions name the place in their text. */
static void union_fault(struct result *r, const char *path, const char *fmt, ...) TH_PRINTF(3, 4);
static void union_fault(struct result *r, const char *path, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    th_autofree char *what = th_xvasprintf(fmt, ap);
    va_end(ap);
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_go_quote(&b, path);
    fault(r, "FieldValueInvalid", "<nil>", "Invalid value: \"\": %s %s", th_buf_cstr(&b), what);
}

/* ---- Types and formats ---- */

/* The format as far as it is checked for this type: NULL otherwise. */
static const char *format_of(const struct th_structural *s)
{
    if (!s->format) {
        return NULL;
    }
    if (s->flags & TH_SF_INTORSTR) {
        return NULL;
    }
    switch (s->type) {
    case TH_ST_ANY:
    case TH_ST_STRING:
        return th_format_known(s->format) ? s->format : NULL;
    case TH_ST_INTEGER:
        return th_streq(s->format, "int32") || th_streq(s->format, "int64") ? s->format : NULL;
    case TH_ST_NUMBER:
        return th_streq(s->format, "float") || th_streq(s->format, "double") ? s->format : NULL;
    default:
        return NULL;
    }
}

static bool integral(const struct th_json *v)
{
    double d = th_json_as_double(v, 0.5);
    return d == floor(d) && fabs(d) <= 9007199254740991.0;
}

static void check_type(const struct th_structural *s, const struct th_json *v, const char *path,
                       struct result *r)
{
    const char *format = format_of(s);
    bool either = (s->flags & TH_SF_INTORSTR) != 0;
    if (s->type == TH_ST_ANY && !format && !either) {
        return;
    }
    const char *want = either ? "integer,string" : th_stype_name(s->type);
    bool typed = *want != '\0';
    if (!v) {
        if (typed && !(s->flags & TH_SF_NULLABLE)) {
            type_fault(r, path, want, "null");
        } else {
            r->count++;
        }
        return;
    }
    const char *got = th_stype_of(v);
    bool number = th_json_is(v, TH_JSON_INT) || th_json_is(v, TH_JSON_DOUBLE);
    bool text = th_json_is(v, TH_JSON_STRING) || th_json_is(v, TH_JSON_ARRAY);
    bool takes_int = s->type == TH_ST_INTEGER || either, takes_number = s->type == TH_ST_NUMBER;
    bool same = either ? th_streq(got, "integer") || th_streq(got, "string") : th_streq(got, want);
    bool near = (th_json_is(v, TH_JSON_DOUBLE) && takes_int && integral(v)) ||
                (th_json_is(v, TH_JSON_INT) && takes_number);
    if (!text && format && !same && !near) {
        type_fault(r, path, format, th_json_is(v, TH_JSON_DOUBLE) ? "double"
                                    : th_json_is(v, TH_JSON_INT)  ? "int64"
                                                                  : "");
        return;
    }
    if (!takes_int && !takes_number && format && text) {
        r->count++;
        return;
    }
    if (typed && !same && !near) {
        type_fault(r, path, want, got);
        return;
    }
    if (!typed && number) { /* a format for text without a type */
        type_fault(r, path, format ? format : "", got);
        return;
    }
    r->count++;
}

/* ---- Scalars ---- */

static size_t runes(const char *s)
{
    size_t n = 0;
    for (; *s; s++) {
        n += ((unsigned char)*s & 0xc0) != 0x80;
    }
    return n;
}

static void check_string(const struct th_structural *s, const struct th_json *v, const char *path,
                         struct result *r)
{
    const char *text = th_json_str(v);
    int64_t n = (int64_t)runes(text);
    if (s->max_length >= 0 && n > s->max_length) {
        th_invalid_too_long(&r->e, path, (int)s->max_length);
    } else if (s->min_length >= 0 && n < s->min_length) {
        bad_value(r, path, v, "should be at least %lld chars long", (long long)s->min_length);
    } else if (s->pattern && !s->regex) {
        bad_value(r, path, v, "should match '%s, but pattern is invalid'", s->pattern);
    } else if (s->regex && th_regex_match(s->regex, text, strlen(text), NULL) <= 0) {
        bad_value(r, path, v, "should match '%s'", s->pattern);
    }
    r->count++;
    const char *format = format_of(s);
    if (format && s->type != TH_ST_INTEGER && s->type != TH_ST_NUMBER) {
        if (!th_format_valid(format, text)) {
            th_autobuf struct th_buf q = TH_BUF_INIT;
            th_go_quote(&q, text);
            fault(r, "FieldValueTypeInvalid", path,
                  "Invalid value: %s: %s in body must be of type %s: %s", th_buf_cstr(&q), path,
                  format, th_buf_cstr(&q));
        }
        r->count++;
    }
}

/* A bound as Go's %v shows it, for an integer value cut to one. */
static const char *bound_text(double bound, bool as_int, char buf[64])
{
    if (as_int) {
        (void)snprintf(buf, 64, "%lld", (long long)bound);
    } else {
        (void)th_json_format_double_g(bound, buf);
    }
    return buf;
}

static void check_range(const struct th_structural *s, const struct th_json *v, const char *path,
                        struct result *r)
{
    bool out = false;
    double d = th_json_as_double(v, 0);
    if (s->type == TH_ST_INTEGER && th_streq(s->format, "int32")) {
        out = d < -2147483648.0 || d > 2147483647.0;
    } else if (s->type == TH_ST_INTEGER) {
        out = !th_json_is(v, TH_JSON_INT) && fabs(d) >= 9223372036854775808.0;
    } else if (s->type == TH_ST_NUMBER && th_streq(s->format, "float")) {
        out = fabs(d) > 3.4028234663852886e38;
    }
    if (!out) {
        return;
    }
    const char *f = format_of(s);
    th_autofree char *kind = f ? th_xasprintf("with format %s", f) : th_xstrdup("(default format)");
    fault(r, "FieldValueInvalid", "<nil>",
          "Invalid value: \"\": Checked value must be of type %s %s in %s", th_stype_name(s->type),
          kind, path);
}

static bool is_multiple(const struct th_structural *s, const struct th_json *v)
{
    if (th_json_is(v, TH_JSON_INT) && (int64_t)s->multiple > 0) {
        return th_json_as_int(v, 0) % (int64_t)s->multiple == 0;
    }
    double d = th_json_as_double(v, 0);
    double q = s->multiple < 1 ? 1 / s->multiple * d : d / s->multiple;
    return fabs(q - round(q)) < 1e-9;
}

static void check_number(const struct th_structural *s, const struct th_json *v, const char *path,
                         struct result *r)
{
    char buf[64];
    bool as_int = th_json_is(v, TH_JSON_INT);
    double d = th_json_as_double(v, 0);
    check_range(s, v, path, r);
    if (s->flags & TH_SF_HAS_MULTIPLE) {
        if (s->multiple <= 0) {
            bad_value(r, path, v, "factor MultipleOf must be positive");
        } else if (!is_multiple(s, v)) {
            bad_value(r, path, v, "should be a multiple of %s",
                      bound_text(s->multiple, as_int && s->multiple >= 1, buf));
        }
    }
    if (s->flags & TH_SF_HAS_MIN) {
        double min = as_int ? trunc(s->min) : s->min;
        bool excl = (s->flags & TH_SF_EXCL_MIN) != 0;
        if (excl ? d <= min : d < min) {
            bad_value(r, path, v, "should be greater than %s%s", excl ? "" : "or equal to ",
                      bound_text(s->min, as_int, buf));
        }
    }
    if (s->flags & TH_SF_HAS_MAX) {
        double max = as_int ? trunc(s->max) : s->max;
        bool excl = (s->flags & TH_SF_EXCL_MAX) != 0;
        if (excl ? d >= max : d > max) {
            bad_value(r, path, v, "should be less than %s%s", excl ? "" : "or equal to ",
                      bound_text(s->max, as_int, buf));
        }
    }
    r->count += 2;
}

static bool enum_equal(const struct th_json *a, const struct th_json *b)
{
    bool na = th_json_is(a, TH_JSON_INT) || th_json_is(a, TH_JSON_DOUBLE);
    bool nb = th_json_is(b, TH_JSON_INT) || th_json_is(b, TH_JSON_DOUBLE);
    return na && nb ? th_json_as_double(a, 0) == th_json_as_double(b, 0) : th_json_equal(a, b);
}

static void check_enum(const struct th_structural *s, const struct th_json *v, const char *path,
                       struct result *r)
{
    if (!s->enums) {
        return;
    }
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_buf_puts(&b, "Unsupported value: ");
    if (th_json_str(v)) {
        th_go_quote(&b, th_json_str(v));
    } else if (!v) {
        th_buf_puts(&b, "\"null\"");
    } else {
        th_json_dump(v, &b);
    }
    th_buf_puts(&b, ": supported values: ");
    for (size_t i = 0; i < th_json_len(s->enums); i++) {
        const struct th_json *e = th_json_at(s->enums, i);
        if (v && enum_equal(e, v)) {
            return;
        }
        th_autofree char *text =
            th_json_str(e) ? th_xstrdup(th_json_str(e)) : th_json_to_string(e);
        th_buf_puts(&b, i ? ", " : "");
        th_go_quote(&b, text);
    }
    fault(r, "FieldValueNotSupported", path, "%s", th_buf_cstr(&b));
}

/* ---- Unions ---- */

static void check_any_of(const struct th_structural *s, const struct th_json *v, struct prior old,
                         const char *path, struct result *r)
{
    TH_CLEANUP(result_done) struct result best = {.count = -1};
    for (size_t i = 0; i < s->any_of.n; i++) {
        TH_CLEANUP(result_done) struct result one = {.count = 0};
        validate(s->any_of.v[i], v, old, path, &one);
        if (one.e.n_causes == 0) {
            merge(r, &one);
            return;
        }
        if (one.count > best.count) {
            struct result t = best;
            best = one;
            one = t;
        }
    }
    if (s->any_of.n) {
        union_fault(r, path, "must validate at least one schema (anyOf)");
        merge(r, &best);
    }
}

static void check_one_of(const struct th_structural *s, const struct th_json *v, struct prior old,
                         const char *path, struct result *r)
{
    TH_CLEANUP(result_done) struct result best = {.count = -1};
    int passed = 0, first_count = 0;
    for (size_t i = 0; i < s->one_of.n; i++) {
        TH_CLEANUP(result_done) struct result one = {.count = 0};
        validate(s->one_of.v[i], v, old, path, &one);
        if (one.e.n_causes == 0) {
            first_count = passed++ ? first_count : one.count;
        } else if (one.count > best.count) {
            struct result t = best;
            best = one;
            one = t;
        }
    }
    if (s->one_of.n == 0) {
        return;
    }
    if (passed == 1) {
        r->count += first_count;
    } else if (passed > 1) {
        union_fault(r, path, "must validate one and only one schema (oneOf). Found %d valid "
                             "alternatives",
                    passed);
    } else {
        union_fault(r, path,
                    "must validate one and only one schema (oneOf). Found none valid");
        merge(r, &best);
    }
}

static void check_unions(const struct th_structural *s, const struct th_json *v, struct prior old,
                         const char *path, struct result *r)
{
    check_any_of(s, v, old, path, r);
    check_one_of(s, v, old, path, r);
    size_t passed = 0;
    for (size_t i = 0; i < s->all_of.n; i++) {
        TH_CLEANUP(result_done) struct result one = {.count = 0};
        validate(s->all_of.v[i], v, old, path, &one);
        passed += one.e.n_causes == 0;
        merge(r, &one);
    }
    if (passed < s->all_of.n) {
        union_fault(r, path, "must validate all the schemas (allOf)%s",
                    passed == 0 ? ". None validated" : "");
    }
    if (s->not_of) {
        TH_CLEANUP(result_done) struct result one = {.count = 0};
        validate(s->not_of, v, old, path, &one);
        if (one.e.n_causes == 0) {
            union_fault(r, path, "must not validate the schema (not)");
        }
    }
    r->count++;
}

/* ---- Containers ---- */

/* The element of the old list with the same keys. */
static struct prior prior_item(const struct th_structural *s, const struct th_json *e,
                               struct prior old)
{
    struct prior none = {NULL, false};
    if (!old.has || !(s->flags & TH_SF_LIST_MAP) || !th_json_is(e, TH_JSON_OBJECT)) {
        return none;
    }
    for (size_t i = 0; i < th_json_len(old.v); i++) {
        const struct th_json *o = th_json_at(old.v, i);
        bool same = th_json_is(o, TH_JSON_OBJECT);
        for (size_t k = 0; same && k < s->keys.n; k++) {
            same = th_json_equal(th_json_get(o, s->keys.v[k]), th_json_get(e, s->keys.v[k]));
        }
        if (same) {
            return (struct prior){o, true};
        }
    }
    return none;
}

static void check_array(const struct th_structural *s, const struct th_json *v, struct prior old,
                        const char *path, struct result *r)
{
    if (old.has && !th_json_is(old.v, TH_JSON_ARRAY)) {
        old = (struct prior){NULL, false};
    }
    int64_t n = (int64_t)th_json_len(v);
    for (size_t i = 0; s->items && i < (size_t)n; i++) {
        th_autofree char *at = th_field_index(path, i);
        validate(s->items, th_json_at(v, i), prior_item(s, th_json_at(v, i), old), at, r);
    }
    TH_AUTO(th_json) struct th_json *size = th_json_int(n);
    if (s->min_items >= 0 && n < s->min_items) {
        bad_value(r, path, size, "should have at least %lld items", (long long)s->min_items);
    }
    if (s->max_items >= 0 && n > s->max_items) {
        th_invalid_too_many(&r->e, path, (size_t)n, (size_t)s->max_items);
    }
    for (size_t i = 0; (s->flags & TH_SF_UNIQUE) && i < (size_t)n; i++) {
        for (size_t k = 0; k < i; k++) {
            if (th_json_equal(th_json_at(v, i), th_json_at(v, k))) {
                fault(r, "FieldValueInvalid", path,
                      "Invalid value: \"\": %s in body shouldn't contain duplicates", path);
                i = (size_t)n;
                break;
            }
        }
    }
    r->count++;
}

static struct prior prior_member(struct prior old, const char *name)
{
    return old.has && th_json_has(old.v, name) ? (struct prior){th_json_get(old.v, name), true}
                                               : (struct prior){NULL, false};
}

static void check_object(const struct th_structural *s, const struct th_json *v, struct prior old,
                         const char *path, struct result *r)
{
    if (old.has && !th_json_is(old.v, TH_JSON_OBJECT)) {
        old = (struct prior){NULL, false};
    }
    int64_t n = (int64_t)th_json_len(v);
    TH_AUTO(th_json) struct th_json *size = th_json_int(n);
    if (s->min_props >= 0 && n < s->min_props) {
        bad_value(r, path, size, "should have at least %lld properties", (long long)s->min_props);
    }
    if (s->max_props >= 0 && n > s->max_props) {
        th_invalid_too_many(&r->e, path, (size_t)n, (size_t)s->max_props);
    }
    struct th_json_iter it = TH_JSON_ITER(v);
    while ((s->additional || (s->flags & TH_SF_NO_MEMBERS)) && th_json_next(&it)) {
        if (th_structural_prop(s, it.name)) {
            continue;
        }
        th_autofree char *at = th_xasprintf("%s.%s", path, it.name);
        if (s->flags & TH_SF_NO_MEMBERS) {
            fault(r, "FieldValueInvalid", *path ? path : "<nil>",
                  "Invalid value: \"\": %s in body is a forbidden property", at);
        } else {
            validate(s->additional, it.value, prior_member(old, it.name), at, r);
        }
    }
    for (size_t i = 0; i < s->n_props; i++) {
        const char *name = s->props[i].name;
        if (th_json_has(v, name)) {
            th_autofree char *at = th_field_child(path, name);
            validate(s->props[i].s, th_json_get(v, name), prior_member(old, name), at, r);
        }
    }
    for (size_t i = 0; i < s->required.n; i++) {
        if (!th_json_has(v, s->required.v[i])) {
            th_autofree char *at = th_field_child(path, s->required.v[i]);
            th_invalid_required(&r->e, at, "");
        }
    }
}

static void validate(const struct th_structural *s, const struct th_json *v, struct prior old,
                     const char *path, struct result *r)
{
    if (old.has && th_json_equal(old.v, v)) {
        r->count++;
        return;
    }
    check_type(s, v, path, r);
    if (!v) {
        check_enum(s, v, path, r);
        return;
    }
    r->count++;
    check_unions(s, v, old, path, r);
    r->count++;
    switch (th_json_type(v)) {
    case TH_JSON_STRING:
        check_string(s, v, path, r);
        break;
    case TH_JSON_INT:
    case TH_JSON_DOUBLE:
        check_number(s, v, path, r);
        break;
    case TH_JSON_ARRAY:
        check_array(s, v, old, path, r);
        r->count++;
        break;
    default:
        break;
    }
    check_enum(s, v, path, r);
    r->count++;
    if (th_json_is(v, TH_JSON_OBJECT)) {
        check_object(s, v, old, path, r);
        r->count++;
    }
    r->count++;
}

void th_structural_validate(const struct th_structural *s, const struct th_json *v,
                            const struct th_json *old, bool has_old, const char *path,
                            struct th_err *err)
{
    TH_CLEANUP(result_done) struct result r = {.count = 0};
    validate(s, v, (struct prior){old, has_old}, path, &r);
    for (size_t i = 0; i < r.e.n_causes; i++) {
        add_once(err, &r.e.causes[i]);
    }
}
