/*
 * What Go's encoder would add to an object: members that are written though they hold nothing
 * (structs that are not pointers, fields without omitempty). Upstream computes ownership on its
 * decoded objects, so these members exist for it on both sides of a comparison, and whether a
 * creation "adds" spec or f:resources depends on them. Only built-in types have them; custom
 * resources are compared as they are.
 */
#include "controlplane/schema/typed_priv.h"

static void fill(const struct th_type *t, struct th_json *o);

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
        struct th_json *o = th_json_object();
        fill(f->sub, o);
        return o;
    }
    default:
        return NULL;
    }
}

static void fill_value(const struct th_field *f, struct th_json *v)
{
    if (f->type != TH_F_STRUCT) {
        return;
    }
    if (f->shape == TH_SHAPE_ONE) {
        fill(f->sub, v);
    } else if (f->shape == TH_SHAPE_LIST) {
        for (size_t i = 0; i < th_json_len(v); i++) {
            fill(f->sub, th_json_at(v, i));
        }
    } else if (f->shape == TH_SHAPE_MAP) {
        struct th_json_iter it = TH_JSON_ITER(v);
        while (th_json_next(&it)) {
            fill(f->sub, it.value);
        }
    }
}

static void fill(const struct th_type *t, struct th_json *o)
{
    if (!th_json_is(o, TH_JSON_OBJECT)) {
        return;
    }
    for (size_t i = 0; i < t->n_fields; i++) {
        const struct th_field *f = &t->fields[i];
        struct th_json *v = th_json_get(o, f->name);
        if (v) {
            fill_value(f, v);
        } else if (!(f->flags & TH_FF_OMITZERO) &&
                   (!(f->flags & TH_FF_OMITEMPTY) || is_go_struct(f))) {
            th_json_set(o, f->name, zero(f));
        }
    }
}

struct th_json *th_typed_fill(const struct th_type *t, const struct th_json *o)
{
    struct th_json *out = th_json_is(o, TH_JSON_OBJECT) ? th_json_dup(o) : th_json_object();
    if (t && th_type_find(t->name) == t) {
        fill(t, out);
    }
    return out;
}
