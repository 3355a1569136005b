/*
 * The schema in a CustomResourceDefinition, checked when the definition is written.
 *
 * Two sets of rules, as upstream has them: what a structural schema is (every place has a type
 * outside of unions, unions only restrict, metadata cannot be restricted but for names), and what of
 * OpenAPI is allowed at all (no $ref, no definitions, list types that fit, defaults that are
 * pruned and valid). A fault of the first set is shown with that of the second. Expressions of
 * x-kubernetes-validations are checked last, when nothing else is wrong.
 *
 * The order of causes is that of the members in the definition; upstream's is that of Go's maps.
 */
#include "controlplane/resources/crd.h"
#include "controlplane/schema/cel/cel_rules.h"
#include "controlplane/schema/structural.h"
#include "controlplane/schema/validate.h"

enum level { ROOT, ITEM, FIELD };

static const char *str_of(const struct th_json *s, const char *member)
{
    const char *t = th_json_str(th_json_get(s, member));
    return t ? t : "";
}

static bool flag(const struct th_json *s, const char *member)
{
    return th_json_as_bool(th_json_get(s, member), false);
}

static void required(struct th_err *err, const char *path, const char *member, const char *detail)
{
    th_autofree char *at = th_field_child(path, member);
    th_invalid_required(err, at, detail);
}

static void forbidden(struct th_err *err, const char *path, const char *member, const char *detail)
{
    th_autofree char *at = th_field_child(path, member);
    th_invalid_forbidden(err, at, detail);
}

static void invalid(struct th_err *err, const char *path, const char *member,
                    const struct th_json *bad, const char *detail)
{
    th_autofree char *at = th_field_child(path, member);
    th_invalid_value(err, at, bad, detail);
}

/* ---- Structurality ---- */

static bool is_int_or_string(const struct th_json *list)
{
    return th_json_len(list) == 2 && th_json_len(th_json_at(list, 0)) == 1 &&
           th_json_len(th_json_at(list, 1)) == 1 &&
           th_streq(str_of(th_json_at(list, 0), "type"), "integer") &&
           th_streq(str_of(th_json_at(list, 1), "type"), "string");
}

static void check_nested(const struct th_json *s, bool skip_any, const char *path,
                         struct th_err *err);

/* allOf, anyOf, oneOf, not and the pattern of one schema. */
static void check_unions(const struct th_json *s, bool skip_any, bool skip_first_all,
                         const char *path, struct th_err *err)
{
    static const char *const unions[] = {"anyOf", "allOf", "oneOf"};
    for (size_t u = 0; u < TH_ARRAY_LEN(unions); u++) {
        const struct th_json *list = th_json_get(s, unions[u]);
        for (size_t i = 0; !(u == 0 && skip_any) && i < th_json_len(list); i++) {
            th_autofree char *at = th_field_path("%s.%s[%zu]", path, unions[u], i);
            check_nested(th_json_at(list, i), u == 1 && i == 0 && skip_first_all, at, err);
        }
    }
    if (th_json_get(s, "not")) {
        th_autofree char *at = th_field_child(path, "not");
        check_nested(th_json_get(s, "not"), false, at, err);
    }
    const char *pattern = str_of(s, "pattern");
    if (*pattern) {
        TH_AUTO_ERR struct th_err why = TH_ERR_INIT;
        TH_AUTO(th_regex) struct th_regex *re = NULL;
        if (th_regex_new(pattern, strlen(pattern), &re, &why) < 0) {
            th_autofree char *detail =
                th_xasprintf("must be a valid regular expression, but isn't: %s", why.msg);
            invalid(err, path, "pattern", th_json_get(s, "pattern"), detail);
        }
    }
}

/* What a schema inside a union must not say. */
static void check_nested(const struct th_json *s, bool skip_any, const char *path,
                         struct th_err *err)
{
    check_unions(s, skip_any, false, path, err);
    if (th_json_is(th_json_get(s, "items"), TH_JSON_OBJECT)) {
        th_autofree char *at = th_field_child(path, "items");
        check_nested(th_json_get(s, "items"), false, at, err);
    }
    struct th_json_iter it = TH_JSON_ITER(th_json_get(s, "properties"));
    while (th_json_next(&it)) {
        th_autofree char *props = th_field_child(path, "properties");
        th_autofree char *at = th_field_key(props, it.name);
        check_nested(it.value, false, at, err);
        if (th_streq(it.name, "metadata")) {
            th_invalid_forbidden(err, at, "must not be specified in a nested context");
        }
    }
    static const struct {
        const char *member, *detail;
    } rules[] = {
        {"type", "must be empty to be structural"},
        {"additionalProperties", "must be undefined to be structural"},
        {"default", "must be undefined to be structural"},
        {"title", "must be empty to be structural"},
        {"description", "must be empty to be structural"},
        {"nullable", "must be false to be structural"},
        {"x-kubernetes-preserve-unknown-fields", "must be false to be structural"},
        {"x-kubernetes-embedded-resource", "must be false to be structural"},
        {"x-kubernetes-int-or-string", "must be false to be structural"},
        {"x-kubernetes-list-map-keys", "must be empty to be structural"},
        {"x-kubernetes-list-type", "must be undefined to be structural"},
        {"x-kubernetes-map-type", "must be undefined to be structural"},
        {"x-kubernetes-validations", "must be empty to be structural"},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(rules); i++) {
        const struct th_json *v = th_json_get(s, rules[i].member);
        bool off = th_json_is(v, TH_JSON_BOOL) && !th_json_as_bool(v, true) &&
                   !th_streq(rules[i].member, "additionalProperties");
        if (v && !off) {
            forbidden(err, path, rules[i].member, rules[i].detail);
        }
    }
}

/* metadata at the root may restrict name and generateName, nothing else. */
static void check_root_metadata(const struct th_json *meta, const char *path, struct th_err *err)
{
    bool ok = true;
    struct th_json_iter it = TH_JSON_ITER(meta);
    while (th_json_next(&it)) {
        if (th_streq(it.name, "properties")) {
            struct th_json_iter p = TH_JSON_ITER(it.value);
            while (th_json_next(&p)) {
                ok = ok && (th_streq(p.name, "name") || th_streq(p.name, "generateName"));
            }
        } else if (!th_streq(it.name, "type") && !th_streq(it.name, "default") &&
                   !th_streq(it.name, "description")) {
            ok = false;
        } else if (th_streq(it.name, "description") && th_json_str_len(it.value)) {
            ok = false;
        }
    }
    if (!ok) {
        th_invalid_forbidden(err, path,
                             "must not specify anything other than name and generateName, but "
                             "metadata is implicitly specified");
    }
}

static void check_type_said(const struct th_json *s, enum level lvl, const char *path,
                            struct th_err *err)
{
    static const char *const where[] = {"must not be empty at the root",
                                        "must not be empty for specified array items",
                                        "must not be empty for specified object fields"};
    const char *type = str_of(s, "type");
    if (flag(s, "x-kubernetes-embedded-resource")) {
        if (!*type) {
            required(err, path, "type",
                     "must be object if x-kubernetes-embedded-resource is true");
        } else if (!th_streq(type, "object")) {
            invalid(err, path, "type", th_json_get(s, "type"),
                    "must be object if x-kubernetes-embedded-resource is true");
        }
    } else if (!*type && !flag(s, "x-kubernetes-int-or-string") &&
               !flag(s, "x-kubernetes-preserve-unknown-fields")) {
        required(err, path, "type", where[lvl]);
    }
    if (lvl == ROOT && *type && !th_streq(type, "object")) {
        invalid(err, path, "type", th_json_get(s, "type"), "must be object at the root");
    }
}

static void check_meta_members(const struct th_json *s, enum level lvl, const char *path,
                               struct th_err *err)
{
    bool embedded = flag(s, "x-kubernetes-embedded-resource");
    bool check = lvl == ROOT || embedded;
    const struct th_json *props = th_json_get(s, "properties");
    th_autofree char *props_at = th_field_child(path, "properties");
    static const char *const words[] = {"kind", "apiVersion"};
    for (size_t i = 0; check && i < TH_ARRAY_LEN(words); i++) {
        const struct th_json *p = th_json_get(props, words[i]);
        if (p && !th_streq(str_of(p, "type"), "string")) {
            th_autofree char *at = th_field_key(props_at, words[i]);
            invalid(err, at, "type", th_json_get(p, "type"), "must be string");
        }
    }
    const struct th_json *meta = th_json_get(props, "metadata");
    if (meta) {
        th_autofree char *at = th_field_key(props_at, "metadata");
        if (check && !th_streq(str_of(meta, "type"), "object")) {
            invalid(err, at, "type", th_json_get(meta, "type"), "must be object");
        }
        if (lvl == ROOT) {
            check_root_metadata(meta, at, err);
        }
    }
    if (embedded && !flag(s, "x-kubernetes-preserve-unknown-fields") && th_json_len(props) == 0) {
        th_invalid_required(err, props_at,
                            "must not be empty if x-kubernetes-embedded-resource is true without "
                            "x-kubernetes-preserve-unknown-fields");
    }
}

static void check_structural(const struct th_json *s, enum level lvl, const char *path,
                             struct th_err *err)
{
    const struct th_json *items = th_json_get(s, "items");
    const struct th_json *more = th_json_get(s, "additionalProperties");
    if (th_streq(str_of(s, "type"), "array") && !items) {
        required(err, path, "items", "must be specified");
    }
    if (th_json_is(items, TH_JSON_OBJECT)) {
        th_autofree char *at = th_field_child(path, "items");
        check_structural(items, ITEM, at, err);
    }
    struct th_json_iter it = TH_JSON_ITER(th_json_get(s, "properties"));
    while (th_json_next(&it)) {
        th_autofree char *props = th_field_child(path, "properties");
        th_autofree char *at = th_field_key(props, it.name);
        check_structural(it.value, FIELD, at, err);
    }
    if (more) {
        th_autofree char *at = th_field_child(path, "additionalProperties");
        if (lvl == ROOT) {
            th_invalid_forbidden(err, at, "must not be used at the root");
        }
        if (th_json_is(more, TH_JSON_OBJECT)) {
            check_structural(more, FIELD, at, err);
        }
        if (flag(s, "x-kubernetes-embedded-resource")) {
            th_invalid_forbidden(err, at,
                                 "must not be used if x-kubernetes-embedded-resource is set");
        }
    }
    if (flag(s, "x-kubernetes-int-or-string")) {
        if (flag(s, "x-kubernetes-preserve-unknown-fields")) {
            invalid(err, path, "x-kubernetes-preserve-unknown-fields",
                    th_json_get(s, "x-kubernetes-preserve-unknown-fields"),
                    "must be false if x-kubernetes-int-or-string is true");
        }
        if (flag(s, "x-kubernetes-embedded-resource")) {
            invalid(err, path, "x-kubernetes-embedded-resource",
                    th_json_get(s, "x-kubernetes-embedded-resource"),
                    "must be false if x-kubernetes-int-or-string is true");
        }
    }
    const struct th_json *first_all = th_json_at(th_json_get(s, "allOf"), 0);
    check_unions(s, is_int_or_string(th_json_get(s, "anyOf")),
                 is_int_or_string(th_json_get(first_all, "anyOf")), path, err);
    check_type_said(s, lvl, path, err);
    check_meta_members(s, lvl, path, err);
}

/* ---- Defaults ---- */

/* Each default is pruned and valid by the schema it stands in. */
static void check_defaults(const struct th_structural *s, bool inside_meta, const char *path,
                           struct th_err *err)
{
    if (s->flags & TH_SF_EMBEDDED) {
        inside_meta = false;
    }
    if (s->dflt) {
        th_autofree char *at = th_field_child(path, "default");
        TH_AUTO(th_json) struct th_json *copy = th_json_dup(s->dflt);
        if (!inside_meta &&
            th_structural_prune(s, copy, (s->flags & TH_SF_EMBEDDED) != 0)) {
            th_invalid_value(err, at, s->dflt, "must not have unknown fields");
        }
        th_structural_validate(s, s->dflt, NULL, false, at, err);
    }
    for (size_t i = 0; i < s->n_props; i++) {
        bool meta = inside_meta || ((s->flags & TH_SF_EMBEDDED) &&
                                    th_streq(s->props[i].name, "metadata"));
        th_autofree char *props = th_field_child(path, "properties");
        th_autofree char *at = th_field_key(props, s->props[i].name);
        check_defaults(s->props[i].s, meta, at, err);
    }
    if (s->items) {
        th_autofree char *at = th_field_child(path, "items");
        check_defaults(s->items, inside_meta, at, err);
    }
    if (s->additional) {
        th_autofree char *at = th_field_child(path, "additionalProperties");
        check_defaults(s->additional, inside_meta, at, err);
    }
}

/* ---- What of OpenAPI is allowed ---- */

struct place {
    const char *no_default; /* why there must be no default, or NULL */
    bool in_meta;
};

static void check_openapi(const struct th_json *s, const char *path, bool root, struct place at,
                          struct th_err *err);

static void check_members_allowed(const struct th_json *s, const char *path, struct place at,
                                  struct th_err *err)
{
    static const char *const types[] = {"array",  "boolean", "integer", "number",
                                        "object", "string",  NULL};
    static const char *const not_supported[] = {"id", "additionalItems", "patternProperties",
                                                "definitions", "dependencies", "$ref"};
    const char *type = str_of(s, "type");
    bool known = !*type;
    for (size_t i = 0; types[i]; i++) {
        known = known || th_streq(types[i], type);
    }
    if (!known) {
        th_autofree char *p = th_field_child(path, "type");
        th_invalid_not_supported(err, p, type, types);
    }
    if (th_json_has(s, "default") && at.no_default) {
        th_autofree char *why = th_xasprintf("must not be set%s%s", *at.no_default ? " " : "",
                                             at.no_default);
        forbidden(err, path, "default", why);
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(not_supported); i++) {
        if (th_json_get(s, not_supported[i])) {
            th_autofree char *why = th_xasprintf("%s is not supported", not_supported[i]);
            forbidden(err, path, not_supported[i], why);
        }
    }
    if (th_streq(type, "null")) {
        forbidden(err, path, "type", "type cannot be set to null, use nullable as an alternative");
    }
    if (th_json_is(th_json_get(s, "items"), TH_JSON_ARRAY)) {
        forbidden(err, path, "items", "items must be a schema object and not an array");
    }
    if (flag(s, "x-kubernetes-embedded-resource") && at.in_meta) {
        forbidden(err, path, "x-kubernetes-embedded-resource",
                  "must not be used inside of resource meta");
    }
    if (flag(s, "uniqueItems")) {
        forbidden(err, path, "uniqueItems",
                  "uniqueItems cannot be set to true since the runtime complexity becomes "
                  "quadratic");
    }
}

static bool list_has(const struct th_json *list, const char *s)
{
    for (size_t i = 0; i < th_json_len(list); i++) {
        if (th_streq(th_json_str(th_json_at(list, i)), s)) {
            return true;
        }
    }
    return false;
}

static void check_list_keys(const struct th_json *s, const char *path, struct th_err *err)
{
    const struct th_json *keys = th_json_get(s, "x-kubernetes-list-map-keys");
    const struct th_json *items = th_json_get(s, "items");
    if (th_json_len(keys) == 0) {
        required(err, path, "x-kubernetes-list-map-keys",
                 "must not be empty if x-kubernetes-list-type is map");
    }
    if (!items) {
        required(err, path, "items", "must have a schema if x-kubernetes-list-type is map");
        return;
    }
    th_autofree char *items_at = th_field_child(path, "items");
    if (!th_streq(str_of(items, "type"), "object")) {
        invalid(err, items_at, "type", th_json_get(items, "type"),
                "must be object if parent array's x-kubernetes-list-type is map");
        return;
    }
    th_autofree char *props_at = th_field_child(items_at, "properties");
    for (size_t i = 0; i < th_json_len(keys); i++) {
        const char *key = th_json_str(th_json_at(keys, i));
        const struct th_json *p = th_json_get(th_json_get(items, "properties"), key ? key : "");
        th_autofree char *at = th_field_key(props_at, key ? key : "");
        const char *type = str_of(p, "type");
        if (!p) {
            invalid(err, path, "x-kubernetes-list-map-keys", keys,
                    "entries must all be names of item properties");
        } else if (th_streq(type, "array") || th_streq(type, "object")) {
            invalid(err, at, "type", th_json_get(items, "type"),
                    "must be a scalar type if parent array's x-kubernetes-list-type is map");
        }
        for (size_t k = 0; k < i; k++) {
            if (th_streq(th_json_str(th_json_at(keys, k)), key)) {
                invalid(err, path, "x-kubernetes-list-map-keys", keys,
                        "must not contain duplicate entries");
                break;
            }
        }
        if (p && !list_has(th_json_get(items, "required"), key) && !th_json_has(p, "default")) {
            required(err, at, "default",
                     "this property is in x-kubernetes-list-map-keys, so it must have a default "
                     "or be a required property");
        }
        if (flag(p, "nullable")) {
            forbidden(err, at, "nullable",
                      "this property is in x-kubernetes-list-map-keys, so it cannot be nullable");
        }
    }
}

static void check_kind_of(const struct th_json *s, const char *path, const char *ext,
                          const char *type, struct th_err *err)
{
    const char *have = str_of(s, "type");
    if (!th_json_get(s, ext) || th_streq(have, type)) {
        return;
    }
    th_autofree char *why = th_xasprintf("must be %s if %s is specified", type, ext);
    if (!*have) {
        required(err, path, "type", why);
    } else {
        invalid(err, path, "type", th_json_get(s, "type"), why);
    }
}

static void check_topology(const struct th_json *s, const char *path, struct th_err *err)
{
    static const char *const list_types[] = {"atomic", "set", "map", NULL};
    static const char *const map_types[] = {"atomic", "granular", NULL};
    const struct th_json *preserve = th_json_get(s, "x-kubernetes-preserve-unknown-fields");
    if (preserve && !th_json_as_bool(preserve, true)) {
        invalid(err, path, "x-kubernetes-preserve-unknown-fields", preserve,
                "must be true or undefined");
    }
    const char *list = th_json_str(th_json_get(s, "x-kubernetes-list-type"));
    const char *map = th_json_str(th_json_get(s, "x-kubernetes-map-type"));
    check_kind_of(s, path, "x-kubernetes-map-type", "object", err);
    if (map && !th_streq(map, "atomic") && !th_streq(map, "granular")) {
        th_autofree char *at = th_field_child(path, "x-kubernetes-map-type");
        th_invalid_not_supported(err, at, map, map_types);
    }
    check_kind_of(s, path, "x-kubernetes-list-type", "array", err);
    const struct th_json *items = th_json_get(s, "items");
    th_autofree char *items_at = th_field_child(path, "items");
    if (th_streq(list, "set") && th_streq(str_of(s, "type"), "array") && items) {
        const char *type = str_of(items, "type");
        const struct th_json *il = th_json_get(items, "x-kubernetes-list-type");
        if (th_streq(type, "array") && il && !th_streq(th_json_str(il), "atomic")) {
            invalid(err, items_at, "x-kubernetes-list-type", il,
                    "must be atomic as item of a list with x-kubernetes-list-type=set");
        }
        if (th_streq(type, "object") &&
            !th_streq(str_of(items, "x-kubernetes-map-type"), "atomic")) {
            invalid(err, items_at, "x-kubernetes-map-type", il,
                    "must be atomic as item of a list with x-kubernetes-list-type=set");
        }
    }
    if (list && !th_streq(list, "atomic") && !th_streq(list, "set") && !th_streq(list, "map")) {
        th_autofree char *at = th_field_child(path, "x-kubernetes-list-type");
        th_invalid_not_supported(err, at, list, list_types);
    }
    if (th_json_len(th_json_get(s, "x-kubernetes-list-map-keys")) && !th_streq(list, "map")) {
        const char *why = "must be map if x-kubernetes-list-map-keys is non-empty";
        if (!list) {
            required(err, path, "x-kubernetes-list-type", why);
        } else {
            invalid(err, path, "x-kubernetes-list-type", th_json_get(s, "x-kubernetes-list-type"),
                    why);
        }
    }
    if ((th_streq(list, "set") || th_streq(list, "map")) && flag(items, "nullable")) {
        th_autofree char *why =
            th_xasprintf("cannot be nullable when x-kubernetes-list-type is %s", list);
        forbidden(err, items_at, "nullable", why);
    }
    if (th_streq(list, "map")) {
        check_list_keys(s, path, err);
    }
}

static void check_openapi_list(const struct th_json *s, const char *member, const char *path,
                               struct place at, struct th_err *err)
{
    const struct th_json *list = th_json_get(s, member);
    for (size_t i = 0; i < th_json_len(list); i++) {
        th_autofree char *p = th_field_path("%s.%s[%zu]", path, member, i);
        check_openapi(th_json_at(list, i), p, false, at, err);
    }
}

static void check_openapi(const struct th_json *s, const char *path, bool root, struct place at,
                          struct th_err *err)
{
    check_members_allowed(s, path, at, err);
    const struct th_json *props = th_json_get(s, "properties");
    const struct th_json *more = th_json_get(s, "additionalProperties");
    th_autofree char *more_at = th_field_child(path, "additionalProperties");
    if (more && th_json_len(props) && !th_json_as_bool(more, false)) {
        th_invalid_forbidden(err, more_at,
                             "additionalProperties and properties are mutual exclusive");
    }
    if (th_json_is(more, TH_JSON_OBJECT)) {
        struct place sub = at;
        if (at.in_meta) {
            sub.no_default = "inside additionalProperties applying to object metadata";
        }
        check_openapi(more, more_at, false, sub, err);
    }
    struct th_json_iter it = TH_JSON_ITER(props);
    while (th_json_next(&it)) {
        struct place sub = at;
        bool meta = th_streq(it.name, "metadata") || th_streq(it.name, "kind") ||
                    th_streq(it.name, "apiVersion");
        th_autofree char *why = th_xasprintf("in top-level %s", it.name);
        if (meta && (root || flag(s, "x-kubernetes-embedded-resource"))) {
            sub.in_meta = true;
            sub.no_default = root ? why : sub.no_default;
        }
        th_autofree char *props_at = th_field_child(path, "properties");
        th_autofree char *p = th_field_key(props_at, it.name);
        check_openapi(it.value, p, false, sub, err);
    }
    if (th_json_get(s, "not")) {
        th_autofree char *p = th_field_child(path, "not");
        check_openapi(th_json_get(s, "not"), p, false, at, err);
    }
    check_openapi_list(s, "allOf", path, at, err);
    check_openapi_list(s, "oneOf", path, at, err);
    check_openapi_list(s, "anyOf", path, at, err);
    if (th_json_is(th_json_get(s, "items"), TH_JSON_OBJECT)) {
        th_autofree char *p = th_field_child(path, "items");
        check_openapi(th_json_get(s, "items"), p, false, at, err);
    }
    check_topology(s, path, err);
}

/* With the status subresource, the root says only what can be said of spec and status apart. */
static void check_root_with_status(const struct th_json *s, const char *path, struct th_err *err)
{
    static const char *const allowed[] = {
        "description", "type",      "format",    "title",      "maximum",  "exclusiveMaximum",
        "minimum",     "exclusiveMinimum", "maxLength", "minLength", "pattern", "maxItems",
        "minItems",    "uniqueItems", "multipleOf", "required", "items",   "properties",
        "externalDocs", "example",  "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-validations"};
    struct th_json_iter it = TH_JSON_ITER(s);
    while (th_json_next(&it)) {
        if (th_streq(it.name, "type") && !th_streq(th_json_str(it.value), "object")) {
            invalid(err, path, "type", it.value,
                    "only \"object\" is allowed as the type at the root of the schema if the "
                    "status subresource is enabled");
            return;
        }
        bool ok = it.value == NULL;
        for (size_t i = 0; i < TH_ARRAY_LEN(allowed); i++) {
            ok = ok || th_streq(allowed[i], it.name);
        }
        if (!ok) {
            th_invalid_value(err, path, s,
                             "only [Description Type Format Title Maximum ExclusiveMaximum Minimum "
                             "ExclusiveMinimum MaxLength MinLength Pattern MaxItems MinItems "
                             "UniqueItems MultipleOf Required Items Properties ExternalDocs Example "
                             "XPreserveUnknownFields XValidations] fields are allowed at the root "
                             "of the schema if the status subresource is enabled");
            return;
        }
    }
}

void th_crd_validate_schema(const struct th_json *schema, const char *path,
                            const struct th_crd_schema_opts *o, struct th_err *err)
{
    if (o->status) {
        check_root_with_status(schema, path, err);
    }
    if (flag(schema, "nullable")) {
        forbidden(err, path, "nullable", "nullable cannot be true at the root");
    }
    size_t structural = err->n_causes;
    check_structural(schema, ROOT, path, err);
    bool sound = err->n_causes == structural;
    TH_AUTO(th_structural) struct th_structural *s = NULL;
    if (sound) {
        s = th_structural_new(schema, true, NULL);
        check_defaults(s, false, path, err);
    }
    size_t plain = err->n_causes;
    check_openapi(schema, path, true, (struct place){.no_default = NULL}, err);
    if (s && err->n_causes == plain) {
        th_cel_rules_check(s, path, err);
    }
}
