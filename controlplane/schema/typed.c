/*
 * Objects through their types, part one: what a place's type is, which element of a list is which,
 * validation, and the set of fields that an object mentions.
 *
 * A list is atomic unless its field says set or map (or, for old annotations, that it merges). Maps
 * and structs are granular unless they say atomic. Without a schema (a custom resource that has
 * none, RawExtension) types are deduced from values: maps granular, lists atomic.
 *
 * List-map elements are told apart by their keys; a missing key counts with the default of its
 * field, as OpenAPI publishes it: what the table says, or Go's zero for members that are always
 * written.
 */
#include "controlplane/schema/typed_priv.h"
#include "controlplane/schema/gotext.h"

/* ---- Types of places ---- */

struct th_tref th_tref_root(const struct th_type *t)
{
    return t ? (struct th_tref){.kind = TH_T_STRUCT, .type = t,
                                .atomic = (t->flags & TH_TF_ATOMIC) != 0}
             : (struct th_tref){.kind = TH_T_DEDUCED};
}

/* One value of a field's base type. */
static struct th_tref field_of(const struct th_field *f);

static struct th_tref base_of(const struct th_field *f)
{
    if (f->elem && f->shape != TH_SHAPE_ONE) {
        return field_of(f->elem);
    }
    if (f->type == TH_F_STRUCT) {
        struct th_tref t = th_tref_root(f->sub);
        t.field = f;
        return t;
    }
    bool any = f->type == TH_F_RAW || f->type == TH_F_SCHEMA_OR_LIST ||
               f->type == TH_F_SCHEMA_OR_BOOL || f->type == TH_F_SCHEMA_OR_STRINGS;
    return (struct th_tref){.kind = any ? TH_T_DEDUCED : TH_T_SCALAR, .field = f};
}

static struct th_tref field_of(const struct th_field *f)
{
    bool merges = (f->patch & TH_PATCH_MERGE) != 0;
    switch ((enum th_shape)f->shape) {
    case TH_SHAPE_LIST:
        return (struct th_tref){.kind = TH_T_LIST,
                                .field = f,
                                .atomic = f->topology == TH_TOPO_ATOMIC ||
                                          (f->topology == TH_TOPO_GRANULAR && !merges)};
    case TH_SHAPE_MAP:
        return (struct th_tref){
            .kind = TH_T_MAP, .field = f, .atomic = f->topology == TH_TOPO_ATOMIC};
    case TH_SHAPE_MAP_LIST:
        return (struct th_tref){
            .kind = TH_T_MAP, .field = f, .element = true, .atomic = f->topology == TH_TOPO_ATOMIC};
    case TH_SHAPE_ONE:
        break;
    }
    struct th_tref t = base_of(f);
    t.atomic = t.atomic || f->topology == TH_TOPO_ATOMIC;
    return t;
}

bool th_tref_member(struct th_tref t, const char *name, struct th_tref *ret, bool *ret_named)
{
    bool unused;
    ret_named = ret_named ? ret_named : &unused;
    *ret_named = false;
    switch (t.kind) {
    case TH_T_STRUCT: {
        const struct th_field *f = th_type_field(t.type, name);
        if (f) {
            *ret = field_of(f);
            *ret_named = true;
            return true;
        }
        if (t.type->any) {
            *ret = field_of(t.type->any);
            return true;
        }
        *ret = (struct th_tref){.kind = TH_T_DEDUCED};
        return (t.type->flags & TH_TF_PRESERVE) != 0;
    }
    case TH_T_MAP:
        if (t.element) {
            *ret = (struct th_tref){.kind = TH_T_LIST, .field = t.field, .atomic = true};
        } else if (t.field) {
            *ret = base_of(t.field);
        } else {
            *ret = (struct th_tref){.kind = t.atomic ? TH_T_UNTYPED : TH_T_DEDUCED};
        }
        return true;
    default:
        *ret = (struct th_tref){.kind = TH_T_DEDUCED};
        return true;
    }
}

struct th_tref th_tref_element(struct th_tref list)
{
    return list.field ? base_of(list.field) : (struct th_tref){.kind = TH_T_UNTYPED};
}

struct th_tref th_tref_resolve(struct th_tref t, struct th_tval v)
{
    if (t.kind != TH_T_DEDUCED && t.kind != TH_T_UNTYPED) {
        return t;
    }
    bool untyped = t.kind == TH_T_UNTYPED;
    if (v.has && th_json_is(v.o, TH_JSON_ARRAY)) {
        return (struct th_tref){.kind = TH_T_LIST, .atomic = true};
    }
    if (!v.has || !v.o || th_json_is(v.o, TH_JSON_OBJECT)) {
        return (struct th_tref){.kind = TH_T_MAP, .atomic = untyped};
    }
    return (struct th_tref){.kind = TH_T_SCALAR};
}

/* ---- Elements of associative lists ---- */

void th_titem_done(struct th_titem *i)
{
    free(i->text);
    th_json_unref(i->val);
    *i = (struct th_titem){.text = NULL};
}

/* The default of a key's field, a new node, or NULL when it has none. */
static struct th_json *key_default(const struct th_field *f)
{
    struct th_json *o = NULL;
    if (f && f->dflt) {
        return th_json_parse_cstr(f->dflt, &o, NULL) == 0 ? o : NULL;
    }
    if (!f || f->pb == 0 || (f->flags & (TH_FF_POINTER | TH_FF_OMITEMPTY))) {
        return NULL;
    }
    switch (f->type) {
    case TH_F_STRING:
        return th_json_string("");
    case TH_F_INT32:
    case TH_F_INT64:
        return th_json_int(0);
    case TH_F_BOOL:
        return th_json_bool(false);
    default:
        return NULL;
    }
}

static int keyed_item(struct th_tref list, const char *const *keys, const struct th_json *e,
                      struct th_titem *ret, struct th_err *err)
{
    if (!e) {
        return th_fail(err, TH_R_INVALID,
                       "associative list with keys may not have a null element");
    }
    if (!th_json_is(e, TH_JSON_OBJECT)) {
        return th_fail(err, TH_R_INVALID, "associative list with keys may not have non-map elements");
    }
    th_autostrv struct th_strv names = TH_STRV_INIT;
    for (size_t i = 0; keys[i]; i++) {
        th_strv_add(&names, keys[i]);
    }
    th_autofree char *declared = th_strv_join(&names, "\" \"");
    th_strv_sort(&names);
    TH_AUTO(th_json) struct th_json *val = th_json_object();
    for (size_t i = 0; i < names.n; i++) {
        const char *key = names.v[i];
        if (th_json_has(e, key)) {
            th_json_set(val, key, th_json_dup(th_json_get(e, key)));
            continue;
        }
        struct th_json *dflt =
            list.field->sub ? key_default(th_type_field(list.field->sub, key)) : NULL;
        if (dflt) {
            th_json_set(val, key, dflt);
        }
    }
    if (th_json_len(val) == 0) {
        return th_fail(err, TH_R_INVALID,
                       "associative list with keys has an element that omits all key fields "
                       "[\"%s\"] (and doesn't have default values for any key fields)",
                       declared);
    }
    ret->text = th_json_to_string(val);
    ret->val = th_steal(&val);
    ret->step = (struct th_fstep){.kind = 'k', .text = ret->text, .val = ret->val};
    return 0;
}

int th_titem_of(struct th_tref list, const struct th_json *e, struct th_titem *ret,
                struct th_err *err)
{
    *ret = (struct th_titem){.text = NULL};
    const struct th_field *f = list.field;
    const char *const merge_keys[] = {f->merge_key, NULL};
    const char *const *keys = f->topology == TH_TOPO_MAP       ? f->keys
                              : f->topology == TH_TOPO_GRANULAR ? merge_keys
                                                                : NULL;
    if (keys && keys[0]) {
        return keyed_item(list, keys, e, ret, err);
    }
    if (th_json_is(e, TH_JSON_OBJECT)) {
        return th_fail(err, TH_R_INVALID,
                       "associative list without keys has an element that's a map type");
    }
    if (th_json_is(e, TH_JSON_ARRAY)) {
        return th_fail(err, TH_R_INVALID,
                       "not supported: associative list with lists as elements");
    }
    if (!e) {
        return th_fail(err, TH_R_INVALID,
                       "associative list without keys has an element that's an explicit null");
    }
    ret->text = th_json_to_string(e);
    ret->val = th_json_dup(e);
    ret->step = (struct th_fstep){.kind = 'v', .text = ret->text, .val = ret->val};
    return 0;
}

/* ---- Validation ---- */

struct checker {
    struct th_strv faults; /* "path: message" */
    struct th_buf path;
    bool allow_dups;
};

static void fault(struct checker *c, const char *fmt, ...) TH_PRINTF(2, 3);
static void fault(struct checker *c, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    th_autofree char *msg = th_xvasprintf(fmt, ap);
    va_end(ap);
    if (c->path.n) {
        th_strv_addf(&c->faults, "%s: %s", th_buf_cstr(&c->path), msg);
    } else {
        th_strv_add(&c->faults, msg);
    }
}

/* Go's name of a decoded JSON value's type. */
static const char *go_type(const struct th_json *o)
{
    static const char *const names[] = {
        [TH_JSON_NULL] = "<nil>",     [TH_JSON_BOOL] = "bool",
        [TH_JSON_INT] = "int64",      [TH_JSON_DOUBLE] = "float64",
        [TH_JSON_STRING] = "string",  [TH_JSON_ARRAY] = "[]interface {}",
        [TH_JSON_OBJECT] = "map[string]interface {}",
    };
    return names[th_json_type(o)];
}

static void check_scalar(struct checker *c, const struct th_field *f, const struct th_json *o)
{
    enum th_json_type t = th_json_type(o);
    th_autofree char *text = th_json_to_string(o);
    bool scalar = t != TH_JSON_ARRAY && t != TH_JSON_OBJECT;
    if (!o || !f) {
        return;
    }
    switch ((enum th_ftype)f->type) {
    case TH_F_STRING:
    case TH_F_BYTES:
        if (t != TH_JSON_STRING) {
            fault(c, "expected string, got &value.valueUnstructured{Value:%s}", text);
        }
        break;
    case TH_F_BOOL:
        if (t != TH_JSON_BOOL) {
            fault(c, "expected boolean, got &{%s}", text);
        }
        break;
    case TH_F_INT32:
    case TH_F_INT64:
    case TH_F_DOUBLE:
        if (t != TH_JSON_INT && t != TH_JSON_DOUBLE) {
            fault(c, "expected numeric (int or float), got %s", go_type(o));
        }
        break;
    default:
        if (!scalar) {
            fault(c, "expected any scalar, got &{%s}", text);
        }
    }
}

static void check(struct checker *c, struct th_tref t, const struct th_json *o);

static void check_list(struct checker *c, struct th_tref t, const struct th_json *o)
{
    TH_AUTO(th_fset) struct th_fset *seen = th_fset_new();
    size_t base = c->path.n;
    for (size_t i = 0; i < th_json_len(o); i++) {
        const struct th_json *e = th_json_at(o, i);
        if (t.atomic) {
            th_buf_printf(&c->path, "[%zu]", i);
        } else {
            struct th_titem item;
            TH_AUTO_ERR struct th_err why = TH_ERR_INIT;
            if (th_titem_of(t, e, &item, &why) < 0) {
                fault(c, "element %zu: %s", i, why.msg);
                return;
            }
            struct th_fnode *n = th_fset_node(seen, item.step);
            if (n->member && !c->allow_dups) {
                th_autobuf struct th_buf b = TH_BUF_INIT;
                th_fstep_print(item.step, &b);
                fault(c, "duplicate entries for key %s", th_buf_cstr(&b));
            }
            n->member = true;
            th_fstep_print(item.step, &c->path);
            th_titem_done(&item);
        }
        check(c, th_tref_element(t), e);
        th_buf_truncate(&c->path, base);
    }
}

static void check(struct checker *c, struct th_tref t, const struct th_json *o)
{
    t = th_tref_resolve(t, (struct th_tval){o, true});
    if (t.kind == TH_T_SCALAR) {
        check_scalar(c, t.field, o);
        return;
    }
    if (!o) {
        return;
    }
    bool list = t.kind == TH_T_LIST;
    if (!th_json_is(o, list ? TH_JSON_ARRAY : TH_JSON_OBJECT)) {
        th_autofree char *text = th_json_to_string(o);
        fault(c, "expected %s, got &{%s}", list ? "list" : "map", text);
        return;
    }
    if (list) {
        check_list(c, t, o);
        return;
    }
    size_t base = c->path.n;
    struct th_json_iter it = TH_JSON_ITER(o);
    while (th_json_next(&it)) {
        struct th_tref sub;
        bool known = th_tref_member(t, it.name, &sub, NULL);
        th_buf_printf(&c->path, ".%s", it.name);
        if (known || c->allow_dups) {
            check(c, sub, it.value);
        } else {
            fault(c, "field not declared in schema");
        }
        th_buf_truncate(&c->path, base);
        if (!known && !c->allow_dups) {
            return;
        }
    }
}

int th_typed_validate(struct th_tref t, const struct th_json *o, bool allow_dups,
                      struct th_err *err)
{
    struct checker c = {.allow_dups = allow_dups};
    check(&c, t, o);
    int rc = 0;
    if (c.faults.n == 1) {
        rc = th_fail(err, TH_R_UNKNOWN, "%s", c.faults.v[0]);
    } else if (c.faults.n > 1) {
        th_autofree char *all = th_strv_join(&c.faults, "\n  ");
        rc = th_fail(err, TH_R_UNKNOWN, "errors:\n  %s", all);
    }
    th_strv_done(&c.faults);
    th_buf_done(&c.path);
    return rc;
}

/* ---- Field sets ---- */

static void fields(struct th_fset *s, struct th_tref t, const struct th_json *o,
                   const struct th_fpath *path);

static void list_fields(struct th_fset *s, struct th_tref t, const struct th_json *o,
                        const struct th_fpath *path)
{
    TH_AUTO(th_fset) struct th_fset *seen = th_fset_new();
    TH_AUTO(th_fset) struct th_fset *dups = th_fset_new();
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < th_json_len(o); i++) {
            struct th_titem item;
            if (th_titem_of(t, th_json_at(o, i), &item, NULL) < 0) {
                continue;
            }
            struct th_fpath at = {.up = path, .step = item.step};
            const struct th_fnode *dup = th_fset_find(dups, item.step);
            if (pass == 0) {
                struct th_fnode *n = th_fset_node(seen, item.step);
                if (n->member) {
                    th_fset_node(dups, item.step)->member = true;
                    th_fset_insert(s, &at);
                }
                n->member = true;
            } else if (!dup) {
                fields(s, th_tref_element(t), th_json_at(o, i), &at);
                th_fset_insert(s, &at);
            }
            th_titem_done(&item);
        }
    }
}

static void fields(struct th_fset *s, struct th_tref t, const struct th_json *o,
                   const struct th_fpath *path)
{
    t = th_tref_resolve(t, (struct th_tval){o, true});
    if (t.kind == TH_T_SCALAR || t.atomic) {
        th_fset_insert(s, path);
        return;
    }
    if (t.kind == TH_T_LIST) {
        list_fields(s, t, o, path);
        return;
    }
    struct th_json_iter it = TH_JSON_ITER(th_json_is(o, TH_JSON_OBJECT) ? o : NULL);
    while (th_json_next(&it)) {
        struct th_tref sub;
        bool named;
        (void)th_tref_member(t, it.name, &sub, &named);
        struct th_fpath at = {.up = path, .step = {.kind = 'f', .text = it.name}};
        fields(s, sub, it.value, &at);
        bool hollow = !it.value || (th_json_is(it.value, TH_JSON_OBJECT) && !th_json_len(it.value));
        if (hollow || !named) {
            th_fset_insert(s, &at);
        }
    }
}

struct th_fset *th_typed_fields(struct th_tref t, const struct th_json *o)
{
    struct th_fset *s = th_fset_new();
    fields(s, t, o, NULL);
    return s;
}

static void ensure_named(struct th_fset *s, struct th_tref t, bool typed)
{
    for (size_t i = 0; s && i < s->n; i++) {
        struct th_fnode *n = &s->v[i];
        struct th_tref sub = {.kind = TH_T_DEDUCED};
        bool named = false, sub_typed = false;
        if (typed && n->kind == 'f' && (t.kind == TH_T_STRUCT || t.kind == TH_T_MAP)) {
            sub_typed = th_tref_member(t, n->text, &sub, &named);
        } else if (typed && n->kind == 'k' && t.kind == TH_T_LIST) {
            sub = th_tref_element(t);
            sub_typed = true;
        }
        n->member = n->member || (named && n->sub);
        ensure_named(n->sub, sub, sub_typed);
    }
}

struct th_fset *th_typed_ensure_named(struct th_tref t, const struct th_fset *s)
{
    struct th_fset *out = th_fset_dup(s);
    ensure_named(out, t, true);
    return out;
}

void th_typed_reconcile(struct th_tref t, struct th_fset *s)
{
    for (size_t i = 0; s && i < s->n; i++) {
        struct th_fnode *n = &s->v[i];
        struct th_tref sub;
        if (n->kind == 'f' && (t.kind == TH_T_STRUCT || t.kind == TH_T_MAP)) {
            if (!th_tref_member(t, n->text, &sub, NULL)) {
                continue;
            }
        } else if (n->kind == 'k' && t.kind == TH_T_LIST && !t.atomic) {
            sub = th_tref_element(t);
        } else {
            continue;
        }
        bool container = sub.kind == TH_T_STRUCT || sub.kind == TH_T_MAP || sub.kind == TH_T_LIST;
        if (container && sub.atomic && n->sub) {
            th_fset_free(n->sub);
            n->sub = NULL;
            n->member = true;
        } else {
            th_typed_reconcile(sub, n->sub);
        }
    }
}
