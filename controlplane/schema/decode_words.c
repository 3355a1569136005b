/* What decoding says when a value has the wrong type: paths, Go's names of types, and the two forms
 * upstream has. sigs.k8s.io/json speaks of JSON and struct fields; the converter that makes structs
 * from maps after a strategic merge (apimachinery's runtime converter) speaks of reflect kinds. */
#include "controlplane/schema/decode_priv.h"

void th_decode_strict_path(const struct th_decode_at *at, struct th_buf *b)
{
    if (!at) {
        return;
    }
    th_decode_strict_path(at->up, b);
    if (at->key) {
        if (b->n) {
            th_buf_putc(b, '.');
        }
        th_buf_puts(b, at->key);
    } else {
        th_buf_printf(b, "[%zu]", at->index);
    }
}

void th_decode_go_path(const struct th_decode_at *at, struct th_buf *b)
{
    if (!at) {
        return;
    }
    th_decode_go_path(at->up, b);
    if (!at->field) {
        return;
    }
    const char *embedded = at->field->go_embedded;
    if (!embedded && (at->field->flags & TH_FF_INLINE)) {
        embedded = "TypeMeta";
    }
    if (b->n) {
        th_buf_putc(b, '.');
    }
    if (embedded) {
        th_buf_puts(b, embedded);
        th_buf_putc(b, '.');
    }
    th_buf_puts(b, at->field->name);
}

static const char *go_struct(const struct th_decode_at *at)
{
    for (; at; at = at->up) {
        if (at->owner) {
            const char *dot = strrchr(at->owner->name, '.');
            return dot ? dot + 1 : at->owner->name;
        }
    }
    return NULL;
}

void th_decode_go_element(const struct th_field *f, struct th_buf *b)
{
    static const char *const names[] = {
        [TH_F_STRING] = "string",           [TH_F_BOOL] = "bool",
        [TH_F_INT32] = "int32",             [TH_F_INT64] = "int64",
        [TH_F_DOUBLE] = "float64",          [TH_F_BYTES] = "[]uint8",
        [TH_F_QUANTITY] = "resource.Quantity", [TH_F_INTORSTR] = "int32",
        [TH_F_TIME] = "string",             [TH_F_MICROTIME] = "string",
        [TH_F_DURATION] = "string",         [TH_F_RAW] = "runtime.RawExtension",
        [TH_F_SCHEMA_OR_LIST] = "v1.JSONSchemaPropsOrArray",
        [TH_F_SCHEMA_OR_BOOL] = "v1.JSONSchemaPropsOrBool",
        [TH_F_SCHEMA_OR_STRINGS] = "v1.JSONSchemaPropsOrStringArray",
    };
    const char *go = f->go;
    if (go && f->shape == TH_SHAPE_LIST && th_startswith(go, "[]")) {
        th_buf_puts(b, go + 2);
    } else if (go && f->shape == TH_SHAPE_MAP && th_startswith(go, "map[string]")) {
        th_buf_puts(b, go + strlen("map[string]"));
    } else if (go && f->shape == TH_SHAPE_ONE && f->type != TH_F_INTORSTR) {
        th_buf_puts(b, go);
    } else if (f->type == TH_F_STRUCT) {
        /* "core.v1.Container" is v1.Container; "meta.ObjectMeta" is in a package v1 too */
        const char *name = f->sub->name, *dot = strchr(name, '.');
        th_buf_printf(b, "%s%s", dot && strchr(dot + 1, '.') ? "" : "v1.", dot ? dot + 1 : name);
    } else {
        th_buf_puts(b, names[f->type]);
    }
}

void th_decode_go_whole(const struct th_field *f, struct th_buf *b)
{
    if (f->shape == TH_SHAPE_ONE) {
        th_decode_go_element(f, b);
    } else if (f->go) {
        th_buf_puts(b, f->go);
    } else {
        th_buf_puts(b, f->shape == TH_SHAPE_LIST  ? "[]"
                       : f->shape == TH_SHAPE_MAP ? "map[string]"
                                                  : "map[string][]");
        th_decode_go_element(f, b);
    }
}

static void describe(const struct th_json *v, bool with_digits, struct th_buf *b)
{
    switch (th_json_type(v)) {
    case TH_JSON_NULL:
        th_buf_puts(b, "null");
        break;
    case TH_JSON_BOOL:
        th_buf_puts(b, "bool");
        break;
    case TH_JSON_INT:
    case TH_JSON_DOUBLE:
        th_buf_puts(b, "number");
        if (with_digits) {
            th_buf_putc(b, ' ');
            size_t n = b->n;
            th_json_dump(v, b);
            if (th_json_is(v, TH_JSON_DOUBLE) && !strpbrk(b->p + n, ".eE")) {
                th_buf_puts(b, ".0");
            }
        }
        break;
    case TH_JSON_STRING:
        th_buf_puts(b, "string");
        break;
    case TH_JSON_ARRAY:
        th_buf_puts(b, "array");
        break;
    case TH_JSON_OBJECT:
        th_buf_puts(b, "object");
        break;
    }
}

void th_decode_json_error(const struct th_decode_at *at, const struct th_json *v, bool with_digits,
                          const char *go_type, struct th_buf *b)
{
    th_autobuf struct th_buf path = TH_BUF_INIT;
    th_buf_puts(b, "json: cannot unmarshal ");
    describe(v, with_digits, b);
    const char *owner = go_struct(at);
    if (owner) {
        th_decode_go_path(at, &path);
        th_buf_printf(b, " into Go struct field %s.%s of type %s", owner, th_buf_cstr(&path),
                      go_type);
    } else {
        th_buf_printf(b, " into Go value of type %s", go_type);
    }
}

/* Go's reflect.Kind of a value that stands in a map[string]interface{}. */
static const char *go_kind(const struct th_json *v)
{
    static const char *const kinds[] = {
        [TH_JSON_NULL] = "invalid",   [TH_JSON_BOOL] = "bool",   [TH_JSON_INT] = "int64",
        [TH_JSON_DOUBLE] = "float64", [TH_JSON_STRING] = "string", [TH_JSON_ARRAY] = "slice",
        [TH_JSON_OBJECT] = "map",
    };
    return kinds[th_json_type(v)];
}

/* Between numbers, and from integers to strings, Go has conversions; JSON has not. */
static bool go_converts(const struct th_json *v, enum th_ftype to)
{
    bool number = th_json_is(v, TH_JSON_INT) || th_json_is(v, TH_JSON_DOUBLE);
    return (th_json_is(v, TH_JSON_INT) && to == TH_F_STRING) ||
           (number && (to == TH_F_INT32 || to == TH_F_INT64 || to == TH_F_DOUBLE));
}

void th_decode_map_error(const struct th_field *f, const struct th_json *v, bool with_digits,
                         const char *go_type, struct th_buf *b)
{
    if (!f) {
        th_decode_json_error(NULL, v, with_digits, go_type, b);
    } else if (th_startswith(go_type, "[]")) {
        th_buf_printf(b, "cannot restore slice from %s", go_kind(v));
    } else if (th_startswith(go_type, "map[")) {
        th_buf_printf(b, "cannot restore map from %s", go_kind(v));
    } else if (f->type == TH_F_STRUCT) {
        th_buf_printf(b, "cannot restore struct from: %s", go_kind(v));
    } else if (go_converts(v, f->type)) {
        th_buf_printf(b, "cannot convert %s to %s", go_kind(v), go_type);
    } else {
        const struct th_field plain = {.type = f->type}; /* a named type's kind is the plain one */
        th_buf_puts(b, "unrecognized type: ");
        th_decode_go_element(&plain, b);
    }
}
