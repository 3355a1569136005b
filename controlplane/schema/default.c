/* Defaults, hung on types.
 *
 * Upstream generates, for every kind, a walk that calls a SetDefaults function wherever its type
 * occurs: a PodSpec gets its dnsPolicy inside a Pod, a Deployment or a CronJob alike. Here the same
 * walk is done over the field tables; what to set is data/type_defaults.tsv, compiled next to the
 * types, and the few rules that a row cannot say are functions in default_hooks.c.
 *
 * Order is upstream's: a type's own rows first, then the types below it. A type without defaults
 * below it (TH_TF_DEFAULTS unset) is not entered, so the walk costs what it changes.
 *
 * Invariants: defaulting is idempotent; it never removes or overrules what a client set (except
 * sessionAffinityConfig, as upstream). A row's value counts as unset when the member is missing, or
 * empty and not a pointer in Go.
 *
 * What admission plugins add (tolerations, ServiceAccount volumes, default classes) and what a
 * resource allocates (ClusterIPs, selectors of Jobs) is not defaulting and not here. */
#include "controlplane/schema/quantity.h"
#include "controlplane/schema/schema_priv.h"
#include "controlplane/schema/structural.h"

static bool empty(const struct th_json *v)
{
    switch (th_json_type(v)) {
    case TH_JSON_NULL:
        return true;
    case TH_JSON_BOOL:
        return !th_json_as_bool(v, false);
    case TH_JSON_INT:
    case TH_JSON_DOUBLE:
        return th_json_as_double(v, 0) == 0;
    case TH_JSON_STRING:
        return th_json_str_len(v) == 0;
    case TH_JSON_ARRAY:
    case TH_JSON_OBJECT:
        return th_json_len(v) == 0;
    }
    return true;
}

static struct th_json *from_text(const char *json)
{
    size_t n = strlen(json);
    if (n >= 2 && json[0] == '"' && !memchr(json, '\\', n)) {
        return th_json_string_n(json + 1, n - 2);
    }
    struct th_json *v = NULL;
    int r = th_json_parse(json, n, NULL, &v, NULL);
    TH_ASSERT(r >= 0); /* the tables are ours */
    return v;
}

static void apply_row(const struct th_default *row, struct th_json *obj)
{
    if (row->hook) {
        row->hook(obj);
        return;
    }
    struct th_json *now = th_json_path(obj, row->path);
    if (now && (row->pointer || !empty(now))) {
        return;
    }
    if (row->cond) {
        const struct th_json *c = th_json_path(obj, row->cond);
        if (row->cond_value ? !th_streq(th_json_str(c), row->cond_value)
                            : empty(c) != row->cond_unset) {
            return;
        }
    }
    th_json_path_set(obj, row->path, from_text(row->value));
}

/* Quantities of a ResourceList finer than a thousandth are rounded up to one. */
static void round_resources(struct th_json *list)
{
    th_autostrv struct th_strv names = TH_STRV_INIT, values = TH_STRV_INIT;
    struct th_json_iter it = TH_JSON_ITER(list);
    while (th_json_next(&it)) {
        struct th_quantity q;
        const char *s = th_json_str(it.value);
        const __int128 milli = 1000000;
        if (!s || th_quantity_parse(s, &q, NULL) < 0 || q.nano % milli == 0) {
            continue;
        }
        q.nano = (q.nano / milli + (q.nano > 0 ? 1 : -1)) * milli;
        char text[TH_QUANTITY_LEN];
        th_strv_add(&names, it.name);
        th_strv_add(&values, th_quantity_format(q, text));
    }
    for (size_t i = 0; i < names.n; i++) {
        th_json_set_str(list, names.v[i], values.v[i]);
    }
}

static void apply_type(const struct th_type *t, struct th_json *obj);

static void apply_field(const struct th_field *f, struct th_json *obj)
{
    if (f->type == TH_F_QUANTITY && f->shape == TH_SHAPE_MAP) {
        if (th_streq(f->go, "v1.ResourceList")) {
            struct th_json *list = th_json_get(obj, f->name);
            if (th_json_is(list, TH_JSON_OBJECT)) {
                round_resources(list);
            }
        }
        return;
    }
    if (f->type != TH_F_STRUCT || !(f->sub->flags & TH_TF_DEFAULTS)) {
        return;
    }
    struct th_json *v = th_json_get(obj, f->name);
    if (f->shape == TH_SHAPE_ONE) {
        if (!v && !(f->flags & (TH_FF_POINTER | TH_FF_OMITZERO))) {
            v = th_json_object(); /* a struct by value is always there */
            th_schema_complete(f->sub, v);
            th_json_set(obj, f->name, v);
        }
        apply_type(f->sub, v);
    } else if (f->shape == TH_SHAPE_LIST && th_json_is(v, TH_JSON_ARRAY)) {
        for (size_t i = 0; i < th_json_len(v); i++) {
            apply_type(f->sub, th_json_at(v, i));
        }
    } else if (f->shape == TH_SHAPE_MAP && th_json_is(v, TH_JSON_OBJECT)) {
        struct th_json_iter it = TH_JSON_ITER(v);
        while (th_json_next(&it)) {
            apply_type(f->sub, it.value);
        }
    }
}

static void apply_type(const struct th_type *t, struct th_json *obj)
{
    if (!th_json_is(obj, TH_JSON_OBJECT)) {
        return;
    }
    if (t >= th_builtin_types && t < th_builtin_types + th_builtin_types_n) {
        const struct th_default_list *list = &th_builtin_defaults[t - th_builtin_types];
        for (size_t i = 0; i < list->n; i++) {
            apply_row(&list->rows[i], obj);
        }
    }
    for (size_t i = 0; i < t->n_fields; i++) {
        apply_field(&t->fields[i], obj);
    }
}

void th_schema_default(const struct th_kind *k, struct th_json *obj)
{
    if (k->type->flags & TH_TF_CUSTOM) {
        th_structural_default(k->type->structural, obj);
    } else if (k->type->flags & TH_TF_DEFAULTS) {
        apply_type(k->type, obj);
    }
}
