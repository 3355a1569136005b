/* Validation by rules that hang on types (rules.tsv).
 *
 * A walk over the field tables visits every object inside the one that is validated; each is
 * checked by the rules of its type, so a Container is checked in a Pod and in a Deployment's template
 * alike, and types without rules below them are not entered. Upstream validates by hand, kind by
 * kind, and accepts much that its OpenAPI documents call required or closed; so the tables' own
 * "required" and enum marks are not enforced, only what rules.tsv says, with upstream's words.
 *
 * Order: a type's own rules first, then the types below in the order of fields. Upstream's order
 * differs in places; the set of causes is what is kept equal.
 *
 * Status is not entered: it is written by controllers and has rules of its own (validate_status).
 */
#include "controlplane/resources/rules.h"

#include "base/buf.h"

static bool empty(const struct th_json *v)
{
    switch (th_json_type(v)) {
    case TH_JSON_NULL:
        return true;
    case TH_JSON_STRING:
        return th_json_str_len(v) == 0;
    case TH_JSON_ARRAY:
    case TH_JSON_OBJECT:
        return th_json_len(v) == 0;
    case TH_JSON_INT:
        return th_json_as_int(v, 0) == 0;
    default:
        return false;
    }
}

static void check_range(const struct th_rule *r, const struct th_view *v)
{
    const struct th_json *value = th_view_get(v, r->member);
    int64_t n = th_json_as_int(value, 0);
    if (!value || (n >= r->min && n <= r->max)) {
        return;
    }
    if (r->arg) {
        th_bad_int(v, r->member, n, r->arg);
        return;
    }
    th_autofree char *words = th_xasprintf("must be between %lld and %lld, inclusive",
                                           (long long)r->min, (long long)r->max);
    th_bad_int(v, r->member, n, words);
}

static void check_unique(const struct th_rule *r, const struct th_view *v)
{
    const struct th_json *list = th_view_get(v, r->member);
    th_autostrv struct th_strv seen = TH_STRV_INIT;
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *one = th_json_at(list, i);
        const char *s = th_json_str(r->arg ? th_json_get(one, r->arg) : one);
        if (!s || !*s) {
            continue;
        }
        if (th_strv_has(&seen, s)) {
            struct th_view item = th_view_item(v, r->member, i);
            th_bad_duplicate(&item, r->arg, s);
        } else {
            th_strv_add(&seen, s);
        }
    }
}

static void check_each(const struct th_rule *r, const struct th_view *v)
{
    for (size_t i = 0; i < th_view_len(v, r->member); i++) {
        struct th_view item = th_view_item(v, r->member, i);
        (void)th_check_format(&item, NULL, th_view_str(&item, NULL), (enum th_name_format)r->min);
    }
}

static void check_number(const struct th_rule *r, const struct th_view *v)
{
    int64_t n = th_view_int(v, r->member, 0);
    switch (r->kind) {
    case TH_RULE_NON_NEGATIVE:
        th_check_non_negative(v, r->member);
        return;
    case TH_RULE_POSITIVE:
        if (!th_view_has(v, r->member)) {
            return;
        }
        __attribute__((fallthrough));
    case TH_RULE_POSITIVE_ALWAYS:
        if (n <= 0) {
            th_bad_int(v, r->member, n, "must be greater than 0");
        }
        return;
    case TH_RULE_PORT:
        if (n != 0 && (n < 1 || n > 65535)) {
            th_bad_int(v, r->member, n, "must be between 1 and 65535, inclusive");
        }
        return;
    case TH_RULE_FILE_MODE:
        if (n < 0 || n > 0777) {
            th_bad_int(v, r->member, n,
                       "must be a number between 0 and 0777 (octal), both inclusive");
        }
        return;
    default:
        check_range(r, v);
    }
}

static void check_text(const struct th_rule *r, const struct th_view *v)
{
    const char *s = th_view_str(v, r->member);
    switch (r->kind) {
    case TH_RULE_ONE_OF:
        if (*s) {
            (void)th_check_one_of(v, r->member, s, r->arg);
        }
        return;
    case TH_RULE_ONE_OF_ALWAYS:
        (void)th_check_one_of(v, r->member, s, r->arg);
        return;
    case TH_RULE_FORMAT:
        if (*s) {
            (void)th_check_format(v, r->member, s, (enum th_name_format)r->min);
        }
        return;
    case TH_RULE_FORMAT_ALWAYS:
        (void)th_check_format(v, r->member, s, (enum th_name_format)r->min);
        return;
    case TH_RULE_FORMAT_PRESENT:
        if (th_view_has(v, r->member)) {
            (void)th_check_format(v, r->member, s, (enum th_name_format)r->min);
        }
        return;
    case TH_RULE_MAX_BYTES:
        if (strlen(s) > (size_t)r->max) {
            th_bad_too_long(v, r->member, (int)r->max);
        }
        return;
    case TH_RULE_NO_BACKSTEPS:
        th_check_no_backsteps(v, r->member, s);
        return;
    case TH_RULE_DESCENDING:
        th_check_descending(v, r->member, s);
        return;
    default:
        return;
    }
}

static void check_rule(const struct th_rule *r, const struct th_view *v)
{
    switch (r->kind) {
    case TH_RULE_HOOK:
        r->hook(v);
        return;
    case TH_RULE_REQUIRED:
        if (empty(th_view_get(v, r->member))) {
            th_bad_required(v, r->member, r->arg);
        }
        return;
    case TH_RULE_PRESENT:
        if (!th_view_has(v, r->member)) {
            th_bad_required(v, r->member, r->arg);
        }
        return;
    case TH_RULE_FORBIDDEN:
        if (!empty(th_view_get(v, r->member))) {
            th_bad_forbidden(v, r->member, r->arg);
        }
        return;
    case TH_RULE_NON_NEGATIVE:
    case TH_RULE_POSITIVE:
    case TH_RULE_POSITIVE_ALWAYS:
    case TH_RULE_RANGE:
    case TH_RULE_PORT:
    case TH_RULE_FILE_MODE:
        check_number(r, v);
        return;
    case TH_RULE_PORT_OR_NAME:
        th_check_port_or_name(v, r->member);
        return;
    case TH_RULE_FORMAT_EACH:
        check_each(r, v);
        return;
    case TH_RULE_MAX_ITEMS:
        if (th_view_len(v, r->member) > (size_t)r->max) {
            th_bad_too_many(v, r->member, th_view_len(v, r->member), (size_t)r->max);
        }
        return;
    case TH_RULE_UNIQUE:
    case TH_RULE_UNIQUE_STRINGS:
        check_unique(r, v);
        return;
    case TH_RULE_QUANTITY:
        (void)th_check_quantity(v, r->member);
        return;
    case TH_RULE_LABELS:
        th_check_labels(v, r->member);
        return;
    default:
        check_text(r, v);
    }
}

static const struct th_rule_list *rules_of(const struct th_type *t)
{
    const struct th_type *first = th_type_at(0);
    return t >= first && t < first + th_type_rules_n ? &th_type_rules[t - first] : NULL;
}

static void walk(const struct th_type *t, const struct th_view *v);

static void walk_field(const struct th_field *f, const struct th_view *v)
{
    const struct th_json *value = th_json_get(v->obj, f->name);
    const struct th_rule_list *list = f->type == TH_F_STRUCT ? rules_of(f->sub) : NULL;
    if (!value || !list || (list->n == 0 && !list->below) ||
        (!v->up && (th_streq(f->name, "metadata") || th_streq(f->name, "status")))) {
        return;
    }
    if (f->shape == TH_SHAPE_ONE) {
        struct th_view c = th_view_at(v, f->name);
        walk(f->sub, &c);
    } else if (f->shape == TH_SHAPE_LIST && th_json_is(value, TH_JSON_ARRAY)) {
        for (size_t i = 0; i < th_json_len(value); i++) {
            struct th_view c = th_view_item(v, f->name, i);
            walk(f->sub, &c);
        }
    } else if (f->shape == TH_SHAPE_MAP && th_json_is(value, TH_JSON_OBJECT)) {
        struct th_json_iter it = TH_JSON_ITER(value);
        while (th_json_next(&it)) {
            struct th_view c = th_view_key(v, f->name, it.name);
            walk(f->sub, &c);
        }
    }
}

static void walk(const struct th_type *t, const struct th_view *v)
{
    const struct th_rule_list *list = rules_of(t);
    if (!list || !th_json_is(v->obj, TH_JSON_OBJECT)) {
        return;
    }
    for (size_t i = 0; i < list->n; i++) {
        check_rule(&list->rules[i], v);
    }
    for (size_t i = 0; list->below && i < t->n_fields; i++) {
        walk_field(&t->fields[i], v);
    }
}

void th_rules_check(const struct th_type *t, const struct th_json *obj, struct th_err *err)
{
    struct th_view v = TH_VIEW(obj, err);
    walk(t, &v);
}

void th_rules_check_view(const struct th_type *t, const struct th_view *v)
{
    walk(t, v);
}
