/* Schemas: one per type that a document reaches.
 *
 * kubectl and helm read from them: x-kubernetes-group-version-kind (which schema is a kind), required
 * and types (explain, validation), list types, map keys and patch strategies (merging). Upstream's
 * texts are not copied: every built-in field has our own words in data/descriptions, and so has every
 * type but the lists, which are described by what they list.
 *
 * v2 and v3 differ in where schemas live, in that v3 wraps a reference that has siblings in allOf and
 * shows defaults, and in how int-or-string and quantities are said.
 *
 * A custom resource's types (TH_TF_CUSTOM) have no names of their own and are written in place. */
#include "controlplane/schema/openapi_priv.h"

static const struct {
    const char *name, *v3, *v2, *doc;
} leaves[TH_OA_LEAVES_] = {
    [TH_OA_TIME] = {"io.k8s.apimachinery.pkg.apis.meta.v1.Time",
                    "\"type\":\"string\",\"format\":\"date-time\"",
                    "\"type\":\"string\",\"format\":\"date-time\"",
                    "A moment, as RFC 3339 text with whole seconds."},
    [TH_OA_MICROTIME] = {"io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime",
                         "\"type\":\"string\",\"format\":\"date-time\"",
                         "\"type\":\"string\",\"format\":\"date-time\"",
                         "A moment, as RFC 3339 text with microseconds."},
    [TH_OA_DURATION] = {"io.k8s.apimachinery.pkg.apis.meta.v1.Duration", "\"type\":\"string\"",
                        "\"type\":\"string\"", "A length of time, such as 1h30m or 250ms."},
    [TH_OA_QUANTITY] = {"io.k8s.apimachinery.pkg.api.resource.Quantity",
                        "\"oneOf\":[{\"type\":\"string\"},{\"type\":\"number\"}]",
                        "\"type\":\"string\"",
                        "A number with an optional suffix: 500m is a half, 1Ki is 1024, 1k is 1000."},
    [TH_OA_INTORSTR] = {"io.k8s.apimachinery.pkg.util.intstr.IntOrString",
                        "\"format\":\"int-or-string\",\"oneOf\":[{\"type\":\"integer\"},"
                        "{\"type\":\"string\"}]",
                        "\"type\":\"string\",\"format\":\"int-or-string\"",
                        "A whole number or a text, such as 80, http or 25%."},
    [TH_OA_RAW] = {"io.k8s.apimachinery.pkg.runtime.RawExtension", "\"type\":\"object\"",
                   "\"type\":\"object\"", "Any object; it is kept as it is."},
    [TH_OA_FIELDSV1] = {"io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1", "\"type\":\"object\"",
                        "\"type\":\"object\"",
                        "A set of fields: each member f:<name>, k:<keys> or v:<value> is one step."},
    [TH_OA_JSON] = {"io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON", "", "",
                    "Any JSON value."},
    [TH_OA_SCHEMA_OR_LIST] =
        {"io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray", "", "",
         "A schema or a list of schemas."},
    [TH_OA_SCHEMA_OR_BOOL] =
        {"io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool", "", "",
         "A schema or a boolean."},
    [TH_OA_SCHEMA_OR_STRINGS] = {"io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."
                                 "JSONSchemaPropsOrStringArray",
                                 "", "", "A schema or a list of names."},
    [TH_OA_PATCH_BODY] = {"io.k8s.apimachinery.pkg.apis.meta.v1.Patch", "\"type\":\"object\"",
                          "\"type\":\"object\"", "A change, in the form the content type names."},
};

void th_oa_string(struct th_buf *b, const char *s)
{
    th_buf_putc(b, '"');
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') {
            th_buf_putc(b, '\\');
            th_buf_putc(b, *s);
        } else if (c < 0x20) {
            th_buf_printf(b, "\\u%04x", c);
        } else {
            th_buf_putc(b, *s);
        }
    }
    th_buf_putc(b, '"');
}

void th_oa_reach(struct th_oa *oa, const struct th_type *t)
{
    for (size_t i = 0; i < oa->n_types; i++) {
        if (oa->types[i] == t) {
            return;
        }
    }
    oa->types = th_xgrow(oa->types, &oa->cap_types, oa->n_types + 1, sizeof(*oa->types));
    oa->types[oa->n_types++] = t;
}

static const char *home(const struct th_oa *oa)
{
    return oa->v2 ? "#/definitions/" : "#/components/schemas/";
}

void th_oa_ref(struct th_oa *oa, const struct th_type *t)
{
    th_oa_reach(oa, t);
    th_autofree char *name = th_type_openapi_name(t);
    th_buf_printf(oa->b, "{\"$ref\":\"%s%s\"}", home(oa), name);
}

void th_oa_leaf_ref(struct th_oa *oa, enum th_oa_leaf leaf)
{
    oa->leaves |= 1u << leaf;
    th_buf_printf(oa->b, "{\"$ref\":\"%s%s\"}", home(oa), leaves[leaf].name);
}

/* ---- Descriptions ---- */

static void describe_field(const struct th_oa *oa, const struct th_field *f, struct th_buf *b)
{
    th_buf_puts(b, f->doc);
    if (!f->enums || (!oa->v2 && !(f->flags & TH_FF_OPEN_ENUM))) {
        return; /* kubectl shows the enum of version 3 by itself */
    }
    for (size_t i = 0; f->enums[i]; i++) {
        th_buf_puts(b, i ? ", " : (f->flags & TH_FF_OPEN_ENUM) ? " Known values: " : " One of: ");
        th_buf_puts(b, f->enums[i]);
    }
    th_buf_putc(b, '.');
}

static void put_description(struct th_oa *oa, const char *text)
{
    th_buf_puts(oa->b, "\"description\":");
    th_oa_string(oa->b, text);
}

static void describe_type(struct th_oa *oa, const struct th_type *t)
{
    if (t->doc) {
        put_description(oa, t->doc);
        return;
    }
    th_autobuf struct th_buf text = TH_BUF_INIT;
    const struct th_field *items = th_type_field(t, "items"); /* only lists go without a text */
    const char *of = strrchr(items->sub->name, '.');
    th_buf_printf(&text, "A list of %s objects.", of ? of + 1 : items->sub->name);
    put_description(oa, th_buf_cstr(&text));
}

/* ---- Fields ---- */

static enum th_oa_leaf raw_leaf(const struct th_type *owner, const struct th_field *f)
{
    if (strcmp(f->name, "fieldsV1") == 0) {
        return TH_OA_FIELDSV1;
    }
    return owner && th_endswith(owner->name, ".JSONSchemaProps") ? TH_OA_JSON : TH_OA_RAW;
}

static void put_type(struct th_oa *oa, const struct th_type *t);

/* The inside of one value's schema, without braces. `inner`: an item or a map's value. */
static void put_value(struct th_oa *oa, const struct th_type *owner, const struct th_field *f,
                      bool inner)
{
    static const int leaf_of[] = {
        [TH_F_QUANTITY] = TH_OA_QUANTITY,   [TH_F_INTORSTR] = TH_OA_INTORSTR,
        [TH_F_TIME] = TH_OA_TIME,           [TH_F_MICROTIME] = TH_OA_MICROTIME,
        [TH_F_DURATION] = TH_OA_DURATION,   [TH_F_SCHEMA_OR_LIST] = TH_OA_SCHEMA_OR_LIST,
        [TH_F_SCHEMA_OR_BOOL] = TH_OA_SCHEMA_OR_BOOL,
        [TH_F_SCHEMA_OR_STRINGS] = TH_OA_SCHEMA_OR_STRINGS,
    };
    struct th_buf *b = oa->b;
    bool filled = !oa->v2 && (inner || !(f->flags & (TH_FF_POINTER | TH_FF_OMITEMPTY)));
    switch ((enum th_ftype)f->type) {
    case TH_F_STRING:
        th_buf_printf(b, "\"type\":\"string\"%s", filled ? ",\"default\":\"\"" : "");
        break;
    case TH_F_BOOL:
        th_buf_printf(b, "\"type\":\"boolean\"%s", filled ? ",\"default\":false" : "");
        break;
    case TH_F_INT32:
    case TH_F_INT64:
        th_buf_printf(b, "\"type\":\"integer\",\"format\":\"%s\"%s",
                      f->type == TH_F_INT32 ? "int32" : "int64", filled ? ",\"default\":0" : "");
        break;
    case TH_F_DOUBLE:
        th_buf_puts(b, "\"type\":\"number\",\"format\":\"double\"");
        break;
    case TH_F_BYTES:
        th_buf_puts(b, "\"type\":\"string\",\"format\":\"byte\"");
        break;
    case TH_F_STRUCT:
        if (f->sub->flags & TH_TF_CUSTOM) {
            put_type(oa, f->sub);
            break;
        }
        if (oa->v2) {
            th_oa_reach(oa, f->sub);
            th_autofree char *name = th_type_openapi_name(f->sub);
            th_buf_printf(b, "\"$ref\":\"%s%s\"", home(oa), name);
            break;
        }
        if (inner || !(f->flags & TH_FF_POINTER)) {
            th_buf_puts(b, "\"default\":{},");
        }
        th_buf_puts(b, "\"allOf\":[");
        th_oa_ref(oa, f->sub);
        th_buf_putc(b, ']');
        break;
    default: {
        enum th_oa_leaf leaf = f->type == TH_F_RAW ? raw_leaf(owner, f)
                                                   : (enum th_oa_leaf)leaf_of[f->type];
        if (oa->v2) {
            oa->leaves |= 1u << leaf;
            th_buf_printf(b, "\"$ref\":\"%s%s\"", home(oa), leaves[leaf].name);
        } else {
            th_buf_puts(b, "\"allOf\":[");
            th_oa_leaf_ref(oa, leaf);
            th_buf_putc(b, ']');
        }
        break;
    }
    }
    if (f->enums && !(f->flags & TH_FF_OPEN_ENUM)) {
        th_buf_puts(b, ",\"enum\":[");
        for (size_t i = 0; f->enums[i]; i++) {
            th_buf_puts(b, i ? "," : "");
            th_oa_string(b, f->enums[i]);
        }
        th_buf_putc(b, ']');
    }
}

static void put_merge_extensions(struct th_oa *oa, const struct th_field *f)
{
    struct th_buf *b = oa->b;
    static const char *const list_types[] = {[TH_TOPO_GRANULAR] = "atomic",
                                             [TH_TOPO_ATOMIC] = "atomic",
                                             [TH_TOPO_SET] = "set",
                                             [TH_TOPO_MAP] = "map"};
    if (f->shape == TH_SHAPE_LIST) {
        th_buf_printf(b, ",\"x-kubernetes-list-type\":\"%s\"", list_types[f->topology]);
    } else if (f->topology == TH_TOPO_ATOMIC && f->shape == TH_SHAPE_MAP) {
        th_buf_puts(b, ",\"x-kubernetes-map-type\":\"atomic\"");
    }
    for (size_t i = 0; f->keys && f->keys[i]; i++) {
        th_buf_puts(b, i ? "," : ",\"x-kubernetes-list-map-keys\":[");
        th_oa_string(b, f->keys[i]);
    }
    if (f->keys) {
        th_buf_putc(b, ']');
    }
    if (f->merge_key) {
        th_buf_puts(b, ",\"x-kubernetes-patch-merge-key\":");
        th_oa_string(b, f->merge_key);
    }
    if (f->patch) {
        const char *sep = "";
        th_buf_puts(b, ",\"x-kubernetes-patch-strategy\":\"");
        if (f->patch & TH_PATCH_MERGE) {
            th_buf_puts(b, "merge");
            sep = ",";
        }
        if (f->patch & TH_PATCH_REPLACE) {
            th_buf_printf(b, "%sreplace", sep);
            sep = ",";
        }
        if (f->patch & TH_PATCH_RETAIN_KEYS) {
            th_buf_printf(b, "%sretainKeys", sep);
        }
        th_buf_putc(b, '"');
    }
}

static void put_field(struct th_oa *oa, const struct th_type *owner, const struct th_field *f)
{
    struct th_buf *b = oa->b;
    th_autobuf struct th_buf text = TH_BUF_INIT;
    describe_field(oa, f, &text);
    th_oa_string(b, f->name);
    th_buf_puts(b, ":{");
    bool own_text = !(f->type == TH_F_STRUCT && f->sub && (f->sub->flags & TH_TF_CUSTOM) &&
                      f->shape == TH_SHAPE_ONE);
    if (own_text) {
        put_description(oa, th_buf_cstr(&text));
        th_buf_putc(b, ',');
    }
    switch ((enum th_shape)f->shape) {
    case TH_SHAPE_ONE:
        put_value(oa, owner, f, false);
        break;
    case TH_SHAPE_LIST:
        th_buf_puts(b, "\"type\":\"array\",\"items\":{");
        put_value(oa, owner, f, true);
        th_buf_putc(b, '}');
        break;
    case TH_SHAPE_MAP:
        th_buf_puts(b, "\"type\":\"object\",\"additionalProperties\":{");
        put_value(oa, owner, f, true);
        th_buf_putc(b, '}');
        break;
    case TH_SHAPE_MAP_LIST:
        th_buf_puts(b, "\"type\":\"object\",\"additionalProperties\":{\"type\":\"array\",\"items\":{");
        put_value(oa, owner, f, true);
        th_buf_puts(b, "}}");
        break;
    }
    put_merge_extensions(oa, f);
    th_buf_putc(b, '}');
}

static void put_kinds(struct th_oa *oa, const struct th_type *t)
{
    const struct th_kind *k;
    bool any = false;
    for (size_t i = 0; (k = th_kind_at(i)); i++) {
        if (k->type != t || strcmp(k->group, "meta.k8s.io") == 0) {
            continue;
        }
        th_buf_puts(oa->b, any ? ",{" : ",\"x-kubernetes-group-version-kind\":[{");
        th_buf_printf(oa->b, "\"group\":\"%s\",\"kind\":\"%s\",\"version\":\"%s\"}", k->group,
                      k->kind, k->version);
        any = true;
    }
    if (any) {
        th_buf_putc(oa->b, ']');
    }
}

/* A struct's schema, without braces. */
static void put_type(struct th_oa *oa, const struct th_type *t)
{
    struct th_buf *b = oa->b;
    if (t->openapi) {
        th_buf_puts(b, t->openapi);
        return;
    }
    describe_type(oa, t);
    th_buf_puts(b, ",\"type\":\"object\"");
    bool any = false;
    for (size_t i = 0; i < t->n_fields; i++) {
        if (t->fields[i].flags & TH_FF_REQUIRED) {
            th_buf_puts(b, any ? "," : ",\"required\":[");
            th_oa_string(b, t->fields[i].name);
            any = true;
        }
    }
    th_buf_puts(b, any ? "]" : "");
    for (size_t i = 0; i < t->n_fields; i++) {
        th_buf_puts(b, i ? "," : ",\"properties\":{");
        put_field(oa, t, t->by_name[i]);
    }
    th_buf_puts(b, t->n_fields ? "}" : "");
    if (t->flags & TH_TF_ATOMIC) {
        th_buf_puts(b, ",\"x-kubernetes-map-type\":\"atomic\"");
    }
    if (t->flags & TH_TF_PRESERVE) {
        th_buf_puts(b, ",\"x-kubernetes-preserve-unknown-fields\":true");
    }
    put_kinds(oa, t);
}

void th_oa_schemas(struct th_oa *oa)
{
    struct th_buf *b = oa->b;
    bool any = false;
    for (; oa->written < oa->n_types; oa->written++) {
        const struct th_type *t = oa->types[oa->written];
        th_autofree char *name = th_type_openapi_name(t);
        th_buf_puts(b, any ? "," : "");
        any = true;
        th_oa_string(b, name);
        th_buf_puts(b, ":{");
        put_type(oa, t);
        th_buf_putc(b, '}');
    }
    for (unsigned i = 0; i < TH_OA_LEAVES_; i++) {
        if (!(oa->leaves & (1u << i))) {
            continue;
        }
        th_buf_puts(b, any ? "," : "");
        any = true;
        th_oa_string(b, leaves[i].name);
        th_buf_puts(b, ":{");
        put_description(oa, leaves[i].doc);
        const char *body = oa->v2 ? leaves[i].v2 : leaves[i].v3;
        th_buf_printf(b, "%s%s}", *body ? "," : "", body);
    }
}

void th_oa_done(struct th_oa *oa)
{
    free(oa->types);
}
