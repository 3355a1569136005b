/*
 * Compiling the schema of a CustomResourceDefinition.
 *
 * Two things come out of one walk. The first is the type table: the same structs that
 * gen_tables.py writes for built-in types, so that decoding, pruning, field ownership and canonical
 * order have no second implementation. The second is the tree of rules on values, defaults and
 * unions, which built-in types do not have; it is what th_structural is.
 *
 * An element of a list or a map usually is a plain value or an object and is described inside the
 * field, as in built-in types. Where it is itself a list or a map, th_field.elem points to a field
 * of its own.
 *
 * The result owns all it needs and borrows nothing from the definition, whose parsed form is an
 * order of magnitude larger (descriptions) and is thrown away. Nothing is checked here: a
 * definition that does not follow the rules is refused by controlplane/resources before it gets
 * here, and one that is stored all the same compiles into something that is safe to use.
 */
#include "controlplane/schema/structural.h"

#include "controlplane/schema/cel/cel_rules.h"

static struct th_structural *compile(const struct th_json *p, bool root, const char *type_name);

const char *th_stype_name(enum th_stype t)
{
    static const char *const names[] = {"",        "string", "number", "integer",
                                        "boolean", "array",  "object", ""};
    return names[t];
}

const char *th_stype_of(const struct th_json *v)
{
    static const char *const names[] = {
        [TH_JSON_NULL] = "null",     [TH_JSON_BOOL] = "boolean", [TH_JSON_INT] = "integer",
        [TH_JSON_DOUBLE] = "number", [TH_JSON_STRING] = "string", [TH_JSON_ARRAY] = "array",
        [TH_JSON_OBJECT] = "object"};
    return names[th_json_type(v)];
}

static enum th_stype type_of(const char *s)
{
    if (!s || !*s) {
        return TH_ST_ANY;
    }
    for (int t = TH_ST_STRING; t <= TH_ST_OBJECT; t++) {
        if (strcmp(s, th_stype_name((enum th_stype)t)) == 0) {
            return (enum th_stype)t;
        }
    }
    return TH_ST_UNKNOWN;
}

static char *text_of(const struct th_json *p, const char *name)
{
    const char *s = th_json_str(th_json_get(p, name));
    return s && *s ? th_xstrdup(s) : NULL;
}

static int64_t int_of(const struct th_json *p, const char *name)
{
    return th_json_as_int(th_json_get(p, name), -1);
}

static void strings_of(const struct th_json *p, const char *name, struct th_strv *ret)
{
    const struct th_json *a = th_json_get(p, name);
    for (size_t i = 0; i < th_json_len(a); i++) {
        const char *s = th_json_str(th_json_at(a, i));
        if (s) {
            th_strv_add(ret, s);
        }
    }
}

static void list_of(const struct th_json *p, const char *name, struct th_slist *ret)
{
    const struct th_json *a = th_json_get(p, name);
    if (!th_json_is(a, TH_JSON_ARRAY) || th_json_len(a) == 0) {
        return;
    }
    ret->v = th_xcalloc(th_json_len(a), sizeof(struct th_structural *));
    for (size_t i = 0; i < th_json_len(a); i++) {
        ret->v[ret->n++] = compile(th_json_at(a, i), false, NULL);
    }
}

static unsigned flag_if(const struct th_json *p, const char *name, unsigned flag)
{
    return th_json_as_bool(th_json_get(p, name), false) ? flag : 0;
}

static bool number_of(const struct th_json *p, const char *name, double *ret)
{
    const struct th_json *v = th_json_get(p, name);
    *ret = th_json_as_double(v, 0);
    return v != NULL;
}

static unsigned flags_of(const struct th_json *p)
{
    unsigned f = flag_if(p, "nullable", TH_SF_NULLABLE) |
                 flag_if(p, "x-kubernetes-preserve-unknown-fields", TH_SF_PRESERVE) |
                 flag_if(p, "x-kubernetes-embedded-resource", TH_SF_EMBEDDED) |
                 flag_if(p, "x-kubernetes-int-or-string", TH_SF_INTORSTR) |
                 flag_if(p, "uniqueItems", TH_SF_UNIQUE) |
                 flag_if(p, "exclusiveMaximum", TH_SF_EXCL_MAX) |
                 flag_if(p, "exclusiveMinimum", TH_SF_EXCL_MIN);
    const char *list = th_json_str(th_json_get(p, "x-kubernetes-list-type"));
    f |= th_streq(list, "set") ? TH_SF_LIST_SET : th_streq(list, "map") ? TH_SF_LIST_MAP : 0;
    if (th_streq(th_json_str(th_json_get(p, "x-kubernetes-map-type")), "atomic")) {
        f |= TH_SF_MAP_ATOMIC;
    }
    return f;
}

static int prop_cmp(const void *a, const void *b)
{
    return strcmp(((const struct th_sprop *)a)->name, ((const struct th_sprop *)b)->name);
}

const struct th_structural *th_structural_prop(const struct th_structural *s, const char *name)
{
    if (!s || s->n_props == 0) {
        return NULL;
    }
    const struct th_sprop key = {.name = (char *)(uintptr_t)name};
    const struct th_sprop *p = bsearch(&key, s->props, s->n_props, sizeof(*s->props), prop_cmp);
    return p ? p->s : NULL;
}

static void children_of(const struct th_json *p, struct th_structural *s)
{
    const struct th_json *props = th_json_get(p, "properties");
    if (th_json_is(props, TH_JSON_OBJECT) && th_json_len(props) > 0) {
        s->props = th_xcalloc(th_json_len(props), sizeof(*s->props));
        struct th_json_iter it = TH_JSON_ITER(props);
        while (th_json_next(&it)) {
            s->props[s->n_props++] = (struct th_sprop){
                .name = th_xstrdup(it.name), .s = compile(it.value, false, NULL)};
        }
        qsort(s->props, s->n_props, sizeof(*s->props), prop_cmp);
    }
    const struct th_json *items = th_json_get(p, "items");
    if (th_json_is(items, TH_JSON_OBJECT)) {
        s->items = compile(items, false, NULL);
    }
    const struct th_json *more = th_json_get(p, "additionalProperties");
    if (th_json_is(more, TH_JSON_OBJECT)) {
        s->additional = compile(more, false, NULL);
    } else if (more) {
        s->flags |= th_json_as_bool(more, false) ? TH_SF_ANY_MEMBERS : TH_SF_NO_MEMBERS;
    }
    list_of(p, "allOf", &s->all_of);
    list_of(p, "anyOf", &s->any_of);
    list_of(p, "oneOf", &s->one_of);
    if (th_json_is(th_json_get(p, "not"), TH_JSON_OBJECT)) {
        s->not_of = compile(th_json_get(p, "not"), false, NULL);
    }
}

/* Says upwards what is found below, so that walks can stay away. */
static void inherit(struct th_structural *s)
{
    const unsigned up = TH_SF_HAS_RULES | TH_SF_HAS_DEFAULTS;
    for (size_t i = 0; i < s->n_props; i++) {
        s->flags |= s->props[i].s->flags & up;
    }
    s->flags |= s->items ? s->items->flags & up : 0;
    s->flags |= s->additional ? s->additional->flags & up : 0;
    s->flags |= s->dflt ? TH_SF_HAS_DEFAULTS : 0;
    s->flags |= s->n_rules ? TH_SF_HAS_RULES : 0;
}

/* ---- The type table ---- */

static int field_cmp(const void *a, const void *b)
{
    return strcmp(((const struct th_field *)a)->name, ((const struct th_field *)b)->name);
}

static void make_table(struct th_structural *s, bool resource, const char *name)
{
    static const char *const meta[] = {"apiVersion", "kind", "metadata"};
    static const uint8_t meta_types[] = {TH_F_STRING, TH_F_STRING, TH_F_STRUCT};
    size_t n = s->n_props + (resource ? 3 : 0);
    struct th_field *fields = th_xcalloc(n + 1, sizeof(*fields));
    size_t k = 0;
    for (size_t i = 0; resource && i < 3; i++) {
        fields[k++] = (struct th_field){
            .name = meta[i],
            .type = meta_types[i],
            .sub = meta_types[i] == TH_F_STRUCT ? th_type_find("meta.ObjectMeta") : NULL};
    }
    for (size_t i = 0; i < s->n_props; i++) {
        bool implied = false;
        for (size_t m = 0; resource && m < 3; m++) {
            implied = implied || strcmp(s->props[i].name, meta[m]) == 0;
        }
        if (implied) {
            continue;
        }
        fields[k] = s->props[i].s->self;
        fields[k].name = s->props[i].name;
        fields[k].flags |= th_strv_has(&s->required, s->props[i].name) ? TH_FF_REQUIRED : 0;
        k++;
    }
    qsort(fields, k, sizeof(*fields), field_cmp);
    const struct th_field **by_name = th_xcalloc(k + 1, sizeof(*by_name));
    for (size_t i = 0; i < k; i++) {
        by_name[i] = &fields[i];
    }
    struct th_type *t = TH_NEW(struct th_type);
    *t = (struct th_type){.name = th_xstrdup(name ? name : "custom"),
                          .fields = fields,
                          .n_fields = (uint16_t)k,
                          .by_name = by_name,
                          .any = s->additional ? &s->additional->self : NULL,
                          .structural = s,
                          .flags = TH_TF_CUSTOM};
    bool keep = (s->flags & (TH_SF_PRESERVE | TH_SF_ANY_MEMBERS)) != 0;
    t->flags |= keep ? TH_TF_PRESERVE : 0;
    t->flags |= s->flags & TH_SF_MAP_ATOMIC ? TH_TF_ATOMIC : 0;
    s->table = t;
    s->self.type = TH_F_STRUCT;
    s->self.sub = t;
}

/* A list's or a map's field out of what one element is. */
static void of_elements(struct th_structural *s, const struct th_structural *of, enum th_shape shape)
{
    if (of && of->self.shape == TH_SHAPE_ONE) {
        s->self = of->self;
        s->self.dflt = NULL;
    } else {
        s->self.type = TH_F_RAW;
        s->self.elem = of ? &of->self : NULL;
    }
    s->self.shape = (uint8_t)shape;
    s->self.topology = TH_TOPO_GRANULAR;
}

static void make_field(struct th_structural *s, bool root, const char *type_name)
{
    static const uint8_t scalars[] = {
        [TH_ST_ANY] = TH_F_RAW,         [TH_ST_STRING] = TH_F_STRING,
        [TH_ST_NUMBER] = TH_F_DOUBLE,   [TH_ST_INTEGER] = TH_F_INT64,
        [TH_ST_BOOLEAN] = TH_F_BOOL,    [TH_ST_ARRAY] = TH_F_RAW,
        [TH_ST_OBJECT] = TH_F_RAW,      [TH_ST_UNKNOWN] = TH_F_RAW};
    s->self = (struct th_field){.name = "", .type = scalars[s->type]};
    bool resource = root || (s->flags & TH_SF_EMBEDDED);
    if (s->flags & TH_SF_INTORSTR) {
        s->self.type = TH_F_INTORSTR;
    } else if (s->type == TH_ST_ARRAY) {
        of_elements(s, s->items, TH_SHAPE_LIST);
        s->self.topology = s->flags & TH_SF_LIST_MAP   ? TH_TOPO_MAP
                           : s->flags & TH_SF_LIST_SET ? TH_TOPO_SET
                                                       : TH_TOPO_ATOMIC;
        s->self.keys = s->keys.n ? (const char *const *)s->keys.v : NULL;
    } else if (s->type == TH_ST_OBJECT && s->additional && s->n_props == 0 && !resource) {
        of_elements(s, s->additional, TH_SHAPE_MAP);
        s->self.topology = s->flags & TH_SF_MAP_ATOMIC ? TH_TOPO_ATOMIC : TH_TOPO_GRANULAR;
    } else if (s->type == TH_ST_OBJECT || resource || s->n_props > 0) {
        make_table(s, resource, type_name);
    }
    s->self.dflt = s->dflt_text;
}

/* ---- */

static struct th_structural *compile(const struct th_json *p, bool root, const char *type_name)
{
    struct th_structural *s = TH_NEW(struct th_structural);
    s->type = type_of(th_json_str(th_json_get(p, "type")));
    if (root && s->type == TH_ST_ANY) {
        s->type = TH_ST_OBJECT;
    }
    s->flags = flags_of(p);
    s->format = text_of(p, "format");
    s->pattern = text_of(p, "pattern");
    if (s->pattern) {
        (void)!th_regex_new(s->pattern, strlen(s->pattern), &s->regex, NULL);
    }
    s->flags |= number_of(p, "maximum", &s->max) ? TH_SF_HAS_MAX : 0;
    s->flags |= number_of(p, "minimum", &s->min) ? TH_SF_HAS_MIN : 0;
    s->flags |= number_of(p, "multipleOf", &s->multiple) ? TH_SF_HAS_MULTIPLE : 0;
    s->max_length = int_of(p, "maxLength");
    s->min_length = int_of(p, "minLength");
    s->max_items = int_of(p, "maxItems");
    s->min_items = int_of(p, "minItems");
    s->max_props = int_of(p, "maxProperties");
    s->min_props = int_of(p, "minProperties");
    strings_of(p, "required", &s->required);
    strings_of(p, "x-kubernetes-list-map-keys", &s->keys);
    s->enums = th_json_len(th_json_get(p, "enum")) ? th_json_dup(th_json_get(p, "enum")) : NULL;
    if (th_json_get(p, "default")) {
        s->dflt = th_json_dup(th_json_get(p, "default"));
        s->dflt_text = th_json_to_string(s->dflt);
    }
    children_of(p, s);
    s->rules = th_cel_rules_new(th_json_get(p, "x-kubernetes-validations"), &s->n_rules);
    inherit(s);
    make_field(s, root, type_name);
    if (root) {
        th_cel_rules_compile(s);
    }
    return s;
}

struct th_structural *th_structural_new(const struct th_json *props, bool root,
                                        const char *type_name)
{
    return compile(props, root, type_name);
}

static void list_free(struct th_slist *l)
{
    for (size_t i = 0; i < l->n; i++) {
        th_structural_free(l->v[i]);
    }
    free(l->v);
}

void th_structural_free(struct th_structural *s)
{
    if (!s) {
        return;
    }
    for (size_t i = 0; i < s->n_props; i++) {
        free(s->props[i].name);
        th_structural_free(s->props[i].s);
    }
    free(s->props);
    th_structural_free(s->items);
    th_structural_free(s->additional);
    th_structural_free(s->not_of);
    list_free(&s->all_of);
    list_free(&s->any_of);
    list_free(&s->one_of);
    th_strv_done(&s->required);
    th_strv_done(&s->keys);
    free(s->format);
    free(s->pattern);
    th_regex_free(s->regex);
    th_json_unref(s->enums);
    th_json_unref(s->dflt);
    free(s->dflt_text);
    th_cel_rules_free(s->rules, s->n_rules);
    if (s->table) {
        free((void *)(uintptr_t)s->table->name);
        free((void *)(uintptr_t)s->table->fields);
        free((void *)(uintptr_t)s->table->by_name);
        free(s->table);
    }
    free(s);
}
