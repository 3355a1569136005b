#ifndef TH_TESTS_RANDOM_OBJECT_H
#define TH_TESTS_RANDOM_OBJECT_H
/* Random objects of a built-in kind, from its table: for laws that hold whatever an object holds. They
 * decode as their kind; whether they are valid is another matter. Seed with th_rand_seed. */
#include "base/rand.h"
#include "controlplane/schema/schema.h"

static struct th_json *random_scalar(const struct th_field *f)
{
    static const char *const words[] = {"a", "b", "c", "d"};
    switch ((enum th_ftype)f->type) {
    case TH_F_BOOL:
        return th_json_bool(th_rand_below(2));
    case TH_F_INT32:
    case TH_F_INT64:
    case TH_F_INTORSTR:
        return th_json_int((int64_t)th_rand_below(4));
    case TH_F_DOUBLE:
        return th_json_double(0.5);
    case TH_F_QUANTITY:
        return th_json_string(th_rand_below(2) ? "1" : "2");
    case TH_F_TIME:
    case TH_F_MICROTIME:
        return th_json_string("2026-01-02T03:04:05Z");
    case TH_F_DURATION:
        return th_json_string("1s");
    default:
        return th_json_string(words[th_rand_below(4)]);
    }
}

static struct th_json *random_struct(const struct th_type *t, int depth);

static struct th_json *random_one(const struct th_field *f, int depth)
{
    if (f->type == TH_F_RAW) {
        return th_json_build("{'k':%d}", (int64_t)th_rand_below(3));
    }
    return f->type == TH_F_STRUCT ? random_struct(f->sub, depth) : random_scalar(f);
}

/* Keys of list maps and values of sets stay unique. */
static struct th_json *random_list(const struct th_field *f, int depth)
{
    struct th_json *list = th_json_array();
    uint64_t n = 1 + th_rand_below(2); /* nobody owns an empty list */
    for (uint64_t i = 0; i < n; i++) {
        struct th_json *e = random_one(f, depth);
        for (size_t k = 0; f->keys && f->keys[k]; k++) {
            const struct th_field *kf = th_type_field(f->sub, f->keys[k]);
            bool number = kf->type == TH_F_INT32 || kf->type == TH_F_INT64;
            th_json_set(e, f->keys[k],
                        number ? th_json_int((int64_t)i) : th_json_stringf("k%d", (int)i));
        }
        if (f->merge_key && f->type == TH_F_STRUCT) {
            const struct th_field *mf = th_type_field(f->sub, f->merge_key);
            bool number = mf->type == TH_F_INT32 || mf->type == TH_F_INT64;
            th_json_set(e, f->merge_key,
                        number ? th_json_int((int64_t)i) : th_json_stringf("k%d", (int)i));
        }
        if (f->topology == TH_TOPO_SET && f->type == TH_F_STRING) {
            th_json_unref(e);
            e = th_json_stringf("s%d", (int)i);
        }
        th_json_append(list, e);
    }
    return list;
}

static struct th_json *random_struct(const struct th_type *t, int depth)
{
    struct th_json *o = th_json_object();
    for (size_t i = 0; depth > 0 && i < t->n_fields; i++) {
        const struct th_field *f = &t->fields[i];
        if (th_rand_below(3) || strcmp(f->name, "managedFields") == 0) {
            continue;
        }
        struct th_json *v;
        if (f->shape == TH_SHAPE_LIST) {
            v = random_list(f, depth - 1);
        } else if (f->shape == TH_SHAPE_ONE) {
            v = random_one(f, depth - 1);
        } else {
            v = th_json_object();
            if (f->shape == TH_SHAPE_MAP) {
                th_json_set(v, "k", random_one(f, depth - 1));
            }
        }
        th_json_set(o, f->name, v);
    }
    return o;
}

static struct th_json *random_config(const struct th_kind *k, const char *version)
{
    struct th_json *o = random_struct(k->type, 5);
    th_json_set_str(o, "apiVersion", version);
    th_json_set_str(o, "kind", k->kind);
    th_json_path_set_str(o, "metadata.name", "n");
    return o;
}
#endif
