/*
 * Strategic merge patch: a merge patch that knows the type of what it changes, so that lists merge
 * by key, and that carries directives for what a plain merge cannot say:
 *
 *   $patch: replace|delete|merge   in a map, or in an element of a merged list
 *   $retainKeys: [...]             drops the members not named (unions)
 *   $deleteFromPrimitiveList/f     removes values from a list of scalars
 *   $setElementOrder/f             the order of a merged list's elements
 *
 * Order laws: elements named in $setElementOrder stand in its order; without it, elements of the
 * patch stand in the patch's order; what only the server has keeps the live order and is put
 * before the first element that stood behind it.
 *
 * Both trees are copies and are taken apart while merging, as upstream does with its maps; members
 * move from the patch into the result by reference.
 *
 * Differences: custom resources have no merge keys and are refused as a format; a null inside a
 * list that should merge, where upstream panics, is an error; order among equal faults is the
 * patch's instead of random.
 */
#include "controlplane/schema/gotext.h"
#include "controlplane/schema/strategic_priv.h"
#include "controlplane/schema/patch.h"

#define DIRECTIVE "$patch"
#define RETAIN_KEYS "$retainKeys"
#define DELETE_PREFIX "$deleteFromPrimitiveList"
#define ORDER_PREFIX "$setElementOrder"

/* What is known of the place in the type where merging is: a struct, or what it is instead. */
struct meta {
    const struct th_type *type;
    const char *kind;
};

static int merge_map(struct th_json **original, struct th_json *patch, struct meta m,
                     struct th_err *err);

static const char *type_name(const struct th_type *t)
{
    const char *dot = strrchr(t->name, '.');
    return dot ? dot + 1 : t->name;
}

static struct meta meta_of(const struct th_field *f, bool element)
{
    static const struct th_type raw = {.name = "runtime.RawExtension"};
    if (f->shape == TH_SHAPE_ONE || (f->shape == TH_SHAPE_LIST && element)) {
        if (f->type == TH_F_RAW) {
            return (struct meta){.type = &raw};
        }
        return (struct meta){.type = f->type == TH_F_STRUCT ? f->sub : NULL, .kind = "string"};
    }
    return (struct meta){.kind = f->shape == TH_SHAPE_LIST ? "slice" : "map"};
}

static int lookup(struct meta m, const char *key, bool list, struct meta *ret_sub,
                  const struct th_field **ret_field, struct th_err *err)
{
    if (!m.type) {
        return th_fail(err, TH_R_INTERNAL,
                       "merging an object in json but data type is not struct, instead is: %s",
                       m.kind);
    }
    const struct th_field *f = m.type->n_fields ? th_type_field(m.type, key) : NULL;
    if (!f) {
        return th_fail(err, TH_R_INTERNAL,
                       "unable to find api field in struct %s for the json field \"%s\"",
                       type_name(m.type), key);
    }
    if (list && f->shape != TH_SHAPE_LIST) {
        return th_fail(err, TH_R_INTERNAL, "expected slice or array type, but got: struct");
    }
    *ret_sub = meta_of(f, list);
    *ret_field = f;
    return 0;
}

/* ---- Directives ---- */

/* Drops what carries a directive from a value that lands on nothing; false: drop all of it. */
static bool remove_directives(struct th_json *o)
{
    if (th_json_is(o, TH_JSON_OBJECT)) {
        if (th_json_has(o, DIRECTIVE)) {
            return false;
        }
        struct th_json_iter it = TH_JSON_ITER(o);
        while (th_json_next(&it)) {
            if (!remove_directives(it.value)) {
                (void)th_json_del(o, it.name);
            }
        }
    } else if (th_json_is(o, TH_JSON_ARRAY)) {
        for (size_t i = th_json_len(o); i-- > 0;) {
            if (!remove_directives(th_json_at(o, i))) {
                th_json_del_at(o, i);
            }
        }
    }
    return true;
}

/* Sets a member to a patch's value that has nothing to merge with. */
static void set_plain(struct th_json *original, const char *key, struct th_json *value)
{
    struct th_json *held = th_json_ref(value); /* key may live in the tree that holds value */
    if (remove_directives(held)) {
        th_json_set(original, key, held);
    } else {
        (void)th_json_del(original, key);
        th_json_unref(held);
    }
}

static int apply_retain_keys(struct th_json *original, struct th_json *patch, struct th_err *err)
{
    static const char *const bad = "invalid patch format of retainKeys";
    if (!th_json_has(patch, RETAIN_KEYS)) {
        return 0;
    }
    TH_AUTO(th_json) struct th_json *keys = th_json_ref(th_json_get(patch, RETAIN_KEYS));
    (void)th_json_del(patch, RETAIN_KEYS);
    if (!th_json_is(keys, TH_JSON_ARRAY)) {
        return th_fail(err, TH_R_BAD_REQUEST, "%s", bad);
    }
    TH_AUTO(th_json) struct th_json *set = th_json_object();
    for (size_t i = 0; i < th_json_len(keys); i++) {
        const char *k = th_json_str(th_json_at(keys, i));
        if (k) {
            th_json_set_bool(set, k, true);
        }
    }
    struct th_json_iter it = TH_JSON_ITER(patch);
    while (th_json_next(&it)) {
        if (it.value && !th_startswith(it.name, DELETE_PREFIX) &&
            !th_startswith(it.name, ORDER_PREFIX) && !th_json_has(set, it.name)) {
            return th_fail(err, TH_R_BAD_REQUEST, "%s", bad);
        }
    }
    struct th_json_iter live = TH_JSON_ITER(original);
    while (th_json_next(&live)) {
        if (!th_json_has(set, live.name)) {
            (void)th_json_del(original, live.name);
        }
    }
    return 0;
}

/* The field's name behind "prefix/"; NULL and an error when the directive has another shape. */
static const char *directive_field(const char *key, const char *prefix, const char *what,
                                   struct th_err *err)
{
    size_t n = strlen(prefix);
    if (strncmp(key, prefix, n) == 0 && key[n] == '/') {
        return key + n + 1;
    }
    (void)th_fail(err, TH_R_BAD_REQUEST, "invalid patch format of %s", what);
    return NULL;
}

/* ---- Lists ---- */

/* One element type in both lists; *ret_maps tells whether it is a map. */
static int element_type(const struct th_json *a, const struct th_json *b, bool *ret_maps,
                        struct th_err *err)
{
    const struct th_json *lists[] = {a, b};
    bool any = false;
    enum th_json_type first = TH_JSON_NULL;
    for (size_t l = 0; l < 2; l++) {
        for (size_t i = 0; i < th_json_len(lists[l]); i++) {
            enum th_json_type t = th_json_type(th_json_at(lists[l], i));
            if (!any) {
                any = true;
                first = t;
                if (t == TH_JSON_ARRAY) {
                    return th_fail(err, TH_R_INVALID,
                                   "the server rejected our request due to an error in our request");
                }
            }
            if (t != first || t == TH_JSON_NULL) {
                th_autofree char *at = th_go_print(a), *bt = th_go_print(b);
                return th_fail(err, TH_R_INTERNAL, "list element types are not identical: [%s %s]",
                               at, bt);
            }
        }
    }
    if (!any) {
        return th_fail(err, TH_R_INTERNAL, "no elements in any of the given slices");
    }
    *ret_maps = first == TH_JSON_OBJECT;
    return 0;
}

/* Finds by merge key; -1 when there is none. */
static int find_by_key(const struct th_json *list, const char *key, const struct th_json *value,
                       int64_t *ret, struct th_err *err)
{
    *ret = -1;
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *e = th_json_at(list, i);
        if (!th_json_is(e, TH_JSON_OBJECT)) {
            return th_fail(err, TH_R_INTERNAL, "value for key %zu is not a map", i);
        }
        if (th_json_has(e, key) && th_json_equal(th_json_get(e, key), value)) {
            *ret = (int64_t)i;
            return 0;
        }
    }
    return 0;
}

/* The elements with a $patch directive act on the list and leave the patch. */
static int apply_special_elements(struct th_json **original, struct th_json **patch,
                                  const char *key, struct th_err *err)
{
    bool replace = false;
    TH_AUTO(th_json) struct th_json *rest = th_json_array();
    for (size_t i = 0; i < th_json_len(*patch); i++) {
        struct th_json *e = th_json_at(*patch, i);
        if (!th_json_has(e, DIRECTIVE)) {
            th_json_append(rest, th_json_ref(e));
            continue;
        }
        const char *what = th_json_str(th_json_get(e, DIRECTIVE));
        if (th_streq(what, "delete")) {
            if (!th_json_has(e, key)) {
                return th_strategic_no_merge_key(e, key, err);
            }
            for (;;) {
                int64_t at;
                TH_TRY(find_by_key(*original, key, th_json_get(e, key), &at, err));
                if (at < 0) {
                    break;
                }
                th_json_del_at(*original, (size_t)at);
            }
        } else if (th_streq(what, "replace")) {
            replace = true;
        } else if (th_streq(what, "merge")) {
            return th_fail(err, TH_R_INTERNAL,
                           "merging lists cannot yet be specified in the patch");
        } else {
            return th_strategic_bad_patch_type(th_json_get(e, DIRECTIVE), e, err);
        }
    }
    th_json_unref(*patch);
    if (replace) {
        th_json_unref(*original);
        *original = th_steal(&rest);
        *patch = th_json_array();
    } else {
        *patch = th_steal(&rest);
    }
    return 0;
}

static int merge_elements(struct th_json *original, struct th_json *patch, const char *key,
                          struct meta m, struct th_json **ret, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *merged = th_json_array();
    for (size_t i = 0; i < th_json_len(original); i++) {
        th_json_append(merged, th_json_ref(th_json_at(original, i)));
    }
    for (size_t i = 0; i < th_json_len(patch); i++) {
        struct th_json *e = th_json_at(patch, i);
        if (!th_json_has(e, key)) {
            return th_strategic_no_merge_key(e, key, err);
        }
        int64_t at;
        TH_TRY(find_by_key(merged, key, th_json_get(e, key), &at, err));
        if (at < 0) {
            th_json_append(merged, th_json_ref(e));
            continue;
        }
        struct th_json *into = th_json_ref(th_json_at(merged, (size_t)at));
        int rc = merge_map(&into, e, m, err);
        if (rc < 0) {
            th_json_unref(into);
            return rc;
        }
        th_json_set_at(merged, (size_t)at, into);
    }
    *ret = th_steal(&merged);
    return 0;
}

static struct th_json *delete_scalars(const struct th_json *from, const struct th_json *what)
{
    struct th_json *kept = th_json_array();
    for (size_t i = 0; i < th_json_len(from); i++) {
        struct th_json *v = th_json_at(from, i);
        if (th_strategic_index(what, v, NULL) < 0) {
            th_json_append(kept, th_json_ref(v));
        }
    }
    return kept;
}

static int merge_list(struct th_json *original_in, struct th_json *patch_in, const char *key,
                      struct meta m, bool deleting, struct th_json **ret, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *original = th_json_ref(original_in);
    TH_AUTO(th_json) struct th_json *patch = th_json_ref(patch_in);
    TH_AUTO(th_json) struct th_json *merged = NULL;
    if (th_json_len(original) == 0 && th_json_len(patch) == 0) {
        *ret = th_steal(&original);
        return 0;
    }
    bool maps;
    TH_TRY(element_type(original, patch, &maps, err));
    if (!maps) {
        if (deleting) {
            *ret = delete_scalars(original, patch);
            return 0;
        }
        merged = th_strategic_union(original, patch);
    } else {
        if (!key) {
            return th_fail(err, TH_R_INTERNAL, "cannot merge lists without merge key for %s",
                           m.type ? "struct" : m.kind);
        }
        TH_TRY(apply_special_elements(&original, &patch, key, err));
        TH_TRY(merge_elements(original, patch, key, m, &merged, err));
    }
    return th_strategic_order(merged, patch, original, key, maps, ret, err);
}

/* The list behind a field, by its strategy. */
static int merge_list_field(struct th_json *original, struct th_json *patch,
                            const struct th_field *f, struct meta m, bool deleting,
                            struct th_json **ret, struct th_err *err)
{
    if ((f->patch & TH_PATCH_MERGE) || deleting) {
        return merge_list(original, patch, f->merge_key, m, deleting, ret, err);
    }
    *ret = th_json_ref(patch);
    return 0;
}

/* The live order that $setElementOrder is weighed against. Upstream deletes and appends in the live
 * list's own memory, so an element that the patch adds takes the place, at the end, of one that it
 * deletes and counts as live. Clients see the order that comes of it, so it is kept. */
static struct th_json *live_order(const struct th_json *have, const struct th_json *patch,
                                  size_t deleted, const char *key)
{
    struct th_json *live = th_json_array();
    for (size_t i = 0; i < th_json_len(have); i++) {
        th_json_append(live, th_json_ref(th_json_at(have, i)));
    }
    bool replaced = false;
    for (size_t i = 0; i < th_json_len(patch); i++) {
        const struct th_json *e = th_json_at(patch, i);
        replaced = replaced || th_streq(th_json_str(th_json_get(e, DIRECTIVE)), "replace");
    }
    for (size_t i = 0; i < th_json_len(patch) && deleted > 0 && !replaced; i++) {
        struct th_json *e = th_json_at(patch, i);
        if (!th_json_has(e, DIRECTIVE) && th_strategic_index(have, e, key) < 0) {
            th_json_append(live, th_json_ref(e));
            deleted--;
        }
    }
    return live;
}

/* One $setElementOrder/<field>: merges the field's list and puts it in order. */
static int apply_order(struct th_json *original, struct th_json *patch, const char *key,
                       struct meta m, struct th_err *err)
{
    th_autofree char *directive = th_xstrdup(key);
    TH_AUTO(th_json) struct th_json *order = th_json_ref(th_json_get(patch, key));
    (void)th_json_del(patch, directive);
    if (!th_json_is(order, TH_JSON_ARRAY)) {
        return th_strategic_bad_arg_type("[]interface {}", order, err);
    }
    const char *field = directive_field(directive, ORDER_PREFIX, "setElementOrder list", err);
    if (!field) {
        return -TH_R_BAD_REQUEST;
    }
    bool in_original = th_json_has(original, field), in_patch = th_json_has(patch, field);
    struct th_json *have = th_json_get(original, field), *want = th_json_get(patch, field);
    if (in_original && !th_json_is(have, TH_JSON_ARRAY)) {
        return th_strategic_bad_arg_type("[]interface {}", have, err);
    }
    if (in_patch && !th_json_is(want, TH_JSON_ARRAY)) {
        return th_strategic_bad_arg_type("[]interface {}", want, err);
    }
    struct meta sub;
    const struct th_field *f;
    TH_TRY(lookup(m, field, true, &sub, &f, err));
    TH_TRY(th_strategic_check_order(want, order, f->merge_key, err));
    TH_AUTO(th_json) struct th_json *merged = NULL;
    if (!in_original && !in_patch) {
        return 0;
    }
    bool maps = false;
    TH_AUTO_ERR struct th_err mixed = TH_ERR_INIT;
    int typed = element_type(have, want, &maps, &mixed); /* merging may empty the lists */
    size_t before = th_json_len(have);
    if (!in_patch) {
        merged = th_json_ref(have);
    } else if (!in_original) {
        (void)remove_directives(want);
        merged = th_json_ref(want);
    } else {
        TH_TRY(merge_list_field(have, want, f, sub, false, &merged, err));
    }
    if (typed < 0) {
        if (err) {
            th_err_move(err, &mixed);
        }
        return typed;
    }
    TH_AUTO(th_json) struct th_json *live =
        live_order(have, want, before - th_json_len(have), f->merge_key);
    struct th_json *ordered;
    TH_TRY(th_strategic_order(merged, order, live, f->merge_key, maps, &ordered, err));
    th_json_set(original, field, ordered);
    (void)th_json_del(patch, field);
    return 0;
}

/* ---- Maps ---- */

/* Merges one member of a patch; `deleting`: its list names values to remove. */
static int merge_member(struct th_json *original, const char *key, struct th_json *value,
                        struct meta m, bool deleting, struct th_err *err)
{
    if (!th_json_has(original, key)) {
        if (!deleting) {
            th_prune_nulls(value);
            set_plain(original, key, value);
        }
        return 0;
    }
    struct th_json *have = th_json_get(original, key);
    if (th_json_type(have) != th_json_type(value)) {
        if (!deleting) {
            th_prune_nulls(value);
            set_plain(original, key, value);
        }
        return 0;
    }
    struct meta sub;
    const struct th_field *f;
    struct th_json *merged;
    if (th_json_is(have, TH_JSON_OBJECT)) {
        TH_TRY(lookup(m, key, false, &sub, &f, err));
        if (f->patch & TH_PATCH_REPLACE) {
            merged = th_json_ref(value);
        } else {
            merged = th_json_ref(have);
            int rc = merge_map(&merged, value, sub, err);
            if (rc < 0) {
                th_json_unref(merged);
                return rc;
            }
        }
        th_json_set(original, key, merged);
    } else if (th_json_is(have, TH_JSON_ARRAY)) {
        TH_TRY(lookup(m, key, true, &sub, &f, err));
        TH_TRY(merge_list_field(have, value, f, sub, deleting, &merged, err));
        th_json_set(original, key, merged);
    } else {
        set_plain(original, key, value);
    }
    return 0;
}

/* Merges patch into *original, which may be replaced; both references stay the caller's. */
static int merge_map(struct th_json **original, struct th_json *patch, struct meta m,
                     struct th_err *err)
{
    if (th_json_has(patch, DIRECTIVE)) {
        TH_AUTO(th_json) struct th_json *what = th_json_ref(th_json_get(patch, DIRECTIVE));
        const char *name = th_json_str(what);
        struct th_json *result;
        if (th_streq(name, "replace")) {
            (void)th_json_del(patch, DIRECTIVE);
            result = th_json_ref(patch);
        } else if (th_streq(name, "delete")) {
            result = th_json_object();
        } else {
            return th_strategic_bad_patch_type(what, patch, err);
        }
        th_json_unref(*original);
        *original = result;
        return 0;
    }
    TH_TRY(apply_retain_keys(*original, patch, err));
    th_autostrv struct th_strv orders = TH_STRV_INIT;
    struct th_json_iter scan = TH_JSON_ITER(patch);
    while (th_json_next(&scan)) {
        if (th_startswith(scan.name, ORDER_PREFIX)) {
            th_strv_add(&orders, scan.name);
        }
    }
    for (size_t i = 0; i < orders.n; i++) {
        TH_TRY(apply_order(*original, patch, orders.v[i], m, err));
    }
    struct th_json_iter it = TH_JSON_ITER(patch);
    while (th_json_next(&it)) {
        const char *key = it.name;
        bool deleting = th_startswith(key, DELETE_PREFIX);
        if (deleting) {
            key = directive_field(key, DELETE_PREFIX, "primitive list", err);
            if (!key) {
                return -TH_R_BAD_REQUEST;
            }
        }
        if (th_json_is_null(it.value)) {
            (void)th_json_del(*original, key);
        } else {
            TH_TRY(merge_member(*original, key, it.value, m, deleting, err));
        }
    }
    return 0;
}

int th_strategic_merge(const struct th_type *t, const struct th_json *obj,
                       const struct th_json *patch, struct th_json **ret, struct th_err *err)
{
    if (!t) {
        return th_fail(err, TH_R_BAD_REQUEST, "strategic merge patch format is not supported");
    }
    if (patch && !th_json_is(patch, TH_JSON_OBJECT)) {
        return th_fail(err, TH_R_BAD_REQUEST,
                       "json: cannot unmarshal %s into Go value of type map[string]interface {}",
                       th_json_is(patch, TH_JSON_ARRAY)    ? "array"
                       : th_json_is(patch, TH_JSON_STRING) ? "string"
                       : th_json_is(patch, TH_JSON_BOOL)   ? "bool"
                                                           : "number");
    }
    TH_AUTO(th_json) struct th_json *result =
        th_json_is(obj, TH_JSON_OBJECT) ? th_json_dup(obj) : th_json_object();
    TH_AUTO(th_json) struct th_json *mine = th_json_dup(patch);
    TH_TRY(merge_map(&result, mine, (struct meta){.type = t}, err));
    *ret = th_steal(&result);
    return 0;
}
