/*
 * What Go's encoder would add to an object: members that are written though they hold nothing
 * (structs that are not pointers, fields without omitempty). Upstream computes ownership on its
 * decoded objects, so these members exist for it on both sides of a comparison, and whether a
 * creation "adds" spec or f:resources depends on them. Only built-in types have them; custom
 * resources are compared as they are.
 */
#include "controlplane/schema/typed_priv.h"

static struct th_json *filled(const struct th_type *t, struct th_json *o);

static bool is_go_struct(const struct th_field *f)
{
    return f->shape == TH_SHAPE_ONE && !(f->flags & TH_FF_POINTER) &&
           (f->type == TH_F_STRUCT || f->type == TH_F_TIME || f->type == TH_F_MICROTIME ||
            f->type == TH_F_QUANTITY || f->type == TH_F_INTORSTR || f->type == TH_F_RAW);
}

/* The encoding of a field's zero value. */
static struct th_json *zero(const struct th_field *f)
{
    if (f->shape != TH_SHAPE_ONE || (f->flags & TH_FF_POINTER)) {
        return NULL;
    }
    switch ((enum th_ftype)f->type) {
    case TH_F_STRING:
        return th_json_string("");
    case TH_F_BOOL:
        return th_json_bool(false);
    case TH_F_INT32:
    case TH_F_INT64:
    case TH_F_INTORSTR:
        return th_json_int(0);
    case TH_F_DOUBLE:
        return th_json_double(0);
    case TH_F_QUANTITY:
        return th_json_string("0");
    case TH_F_DURATION:
        return th_json_string("0s");
    case TH_F_STRUCT: {
        TH_AUTO(th_json) struct th_json *o = th_json_object();
        return filled(f->sub, o);
    }
    default:
        return NULL;
    }
}

/* A new reference to v, or to a copy with its structs filled. */
static struct th_json *filled_list(const struct th_type *t, struct th_json *v)
{
    bool changed = false;
    struct th_json *n = th_json_array();
    for (size_t i = 0; i < th_json_len(v); i++) {
        struct th_json *e = filled(t, th_json_at(v, i));
        changed = changed || e != th_json_at(v, i);
        th_json_append(n, e);
    }
    if (!changed) {
        th_json_unref(n);
        return th_json_ref(v);
    }
    return n;
}

static struct th_json *filled_value(const struct th_field *f, struct th_json *v)
{
    if (!v || f->type != TH_F_STRUCT || f->shape == TH_SHAPE_MAP_LIST) {
        return th_json_ref(v);
    }
    if (f->shape == TH_SHAPE_ONE) {
        return filled(f->sub, v);
    }
    if (f->shape == TH_SHAPE_LIST && th_json_is(v, TH_JSON_ARRAY)) {
        return filled_list(f->sub, v);
    }
    if (f->shape != TH_SHAPE_MAP || !th_json_is(v, TH_JSON_OBJECT)) {
        return th_json_ref(v);
    }
    struct th_json *n = th_json_object();
    struct th_json_iter it = TH_JSON_ITER(v);
    while (th_json_next(&it)) {
        th_json_set(n, it.name, filled(f->sub, it.value));
    }
    return n;
}

static bool is_written_when_empty(const struct th_field *f)
{
    return !(f->flags & TH_FF_OMITZERO) && (!(f->flags & TH_FF_OMITEMPTY) || is_go_struct(f));
}

/* Most of an object needs nothing: what is whole is shared, only what changes is copied. */
static struct th_json *filled(const struct th_type *t, struct th_json *o)
{
    if (!th_json_is(o, TH_JSON_OBJECT)) {
        return th_json_ref(o);
    }
    struct th_json *n = NULL;
    for (size_t i = 0; i < t->n_fields; i++) {
        const struct th_field *f = &t->fields[i];
        struct th_json *v = th_json_get(o, f->name);
        if (v ? f->type != TH_F_STRUCT : !is_written_when_empty(f)) {
            continue;
        }
        struct th_json *made = v ? filled_value(f, v) : zero(f);
        if (v && made == v) {
            th_json_unref(made);
            continue;
        }
        if (!n) {
            n = th_json_object();
            struct th_json_iter it = TH_JSON_ITER(o);
            while (th_json_next(&it)) {
                th_json_set(n, it.name, th_json_ref(it.value));
            }
        }
        th_json_set(n, f->name, made);
    }
    return n ? n : th_json_ref(o);
}

struct th_json *th_typed_fill(const struct th_type *t, const struct th_json *o)
{
    if (!th_json_is(o, TH_JSON_OBJECT)) {
        TH_AUTO(th_json) struct th_json *none = th_json_object();
        return t && th_type_find(t->name) == t ? filled(t, none) : th_steal(&none);
    }
    struct th_json *all = (struct th_json *)(uintptr_t)o; /* shared, and read only from here on */
    return t && th_type_find(t->name) == t ? filled(t, all) : th_json_ref(all);
}
