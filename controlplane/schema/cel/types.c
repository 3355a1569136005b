/*
 * Types of expressions: how they are made, written, and fit each other.
 *
 * A type comes out of a schema, a built-in kind's table, a message's name or a function's signature
 * (a letter for each kind, "[A]", "{A:B}", "?A"; A and B are parameters). Where nothing is known it
 * is dyn, which fits everywhere; T_ERROR is what a faulty part would have been, and fits, too, so
 * that one fault is told once. Types live in the program's memory and are never changed once made;
 * those without parts are constants.
 *
 * To fit is not to be the same: null fits what may be absent, and a parameter takes the first type
 * that it meets, or the wider of two.
 */
#include "controlplane/schema/cel/types.h"

const struct cel_type cel_dyn = {.t = T_DYN}, cel_bad = {.t = T_ERROR};
const struct cel_type cel_kinds[CEL_KINDS_] = {
    [CEL_NULL] = {T_KIND, CEL_NULL},           [CEL_BOOL] = {T_KIND, CEL_BOOL},
    [CEL_INT] = {T_KIND, CEL_INT},             [CEL_UINT] = {T_KIND, CEL_UINT},
    [CEL_DOUBLE] = {T_KIND, CEL_DOUBLE},       [CEL_STRING] = {T_KIND, CEL_STRING},
    [CEL_BYTES] = {T_KIND, CEL_BYTES},         [CEL_TIMESTAMP] = {T_KIND, CEL_TIMESTAMP},
    [CEL_DURATION] = {T_KIND, CEL_DURATION},   [CEL_TYPE] = {T_TYPE, CEL_TYPE},
    [CEL_URL] = {T_KIND, CEL_URL},             [CEL_QUANTITY] = {T_KIND, CEL_QUANTITY},
    [CEL_IP] = {T_KIND, CEL_IP},               [CEL_CIDR] = {T_KIND, CEL_CIDR},
    [CEL_FORMAT] = {T_KIND, CEL_FORMAT},       [CEL_SEMVER] = {T_KIND, CEL_SEMVER},
    [CEL_AUTHORIZER] = {T_KIND, CEL_AUTHORIZER},
    [CEL_PATH_CHECK] = {T_KIND, CEL_PATH_CHECK},
    [CEL_GROUP_CHECK] = {T_KIND, CEL_GROUP_CHECK},
    [CEL_RESOURCE_CHECK] = {T_KIND, CEL_RESOURCE_CHECK},
    [CEL_DECISION] = {T_KIND, CEL_DECISION},
};

const struct cel_type *cel_type_make(struct cel_arena *mem, int t, const struct cel_type *a,
                                     const struct cel_type *b)
{
    struct cel_type *n = cel_alloc(mem, sizeof(*n));
    *n = (struct cel_type){.t = (unsigned)t, .a = a, .b = b};
    return n;
}

/* ---- Text ---- */

void cel_print_type(const struct cel_type *t, bool go, struct th_buf *b)
{
    static const char *const names[CEL_KINDS_] = {
        [CEL_NULL] = "null",           [CEL_BOOL] = "bool",
        [CEL_INT] = "int",             [CEL_UINT] = "uint",
        [CEL_DOUBLE] = "double",       [CEL_STRING] = "string",
        [CEL_BYTES] = "bytes",         [CEL_TIMESTAMP] = "timestamp",
        [CEL_DURATION] = "duration",   [CEL_URL] = "kubernetes.URL",
        [CEL_QUANTITY] = "kubernetes.Quantity", [CEL_IP] = "net.IP",
        [CEL_CIDR] = "net.CIDR",       [CEL_FORMAT] = "kubernetes.NamedFormat",
        [CEL_SEMVER] = "kubernetes.Semver",
        [CEL_AUTHORIZER] = "kubernetes.authorization.Authorizer",
        [CEL_PATH_CHECK] = "kubernetes.authorization.PathCheck",
        [CEL_GROUP_CHECK] = "kubernetes.authorization.GroupCheck",
        [CEL_RESOURCE_CHECK] = "kubernetes.authorization.ResourceCheck",
        [CEL_DECISION] = "kubernetes.authorization.Decision"};
    switch (t->t) {
    case T_KIND:
        th_buf_puts(b, go && t->of_kind == CEL_NULL        ? "null_type"
                       : go && t->of_kind == CEL_TIMESTAMP ? "google.protobuf.Timestamp"
                       : go && t->of_kind == CEL_DURATION  ? "google.protobuf.Duration"
                                                           : names[t->of_kind]);
        break;
    case T_LIST:
    case T_OPTIONAL:
        th_buf_puts(b, t->t == T_LIST ? "list(" : "optional_type(");
        cel_print_type(t->a, go, b);
        th_buf_putc(b, ')');
        break;
    case T_MAP:
        th_buf_puts(b, "map(");
        cel_print_type(t->a, go, b);
        th_buf_puts(b, ", ");
        cel_print_type(t->b, go, b);
        th_buf_putc(b, ')');
        break;
    case T_TYPE:
        th_buf_puts(b, "type");
        break;
    case T_OBJECT:
        th_buf_puts(b, t->name ? t->name : t->named ? "kubernetes.variables" : "object");
        break;
    case T_ERROR:
        th_buf_puts(b, "!error!");
        break;
    default:
        th_buf_puts(b, "dyn");
    }
}

bool cel_type_is_message(const struct cel_type *t, const char *name)
{
    return t->t == T_OBJECT && t->name && strcmp(t->name, name) == 0;
}

/* ---- Types out of schemas ---- */

const struct cel_type *cel_type_of_schema(struct cel_arena *mem, const struct th_structural *s,
                                          bool resource)
{
    if (!s) {
        return NULL;
    }
    if (s->flags & TH_SF_INTORSTR) {
        return &cel_dyn;
    }
    const char *f = s->format;
    const struct cel_type *sub;
    switch (s->type) {
    case TH_ST_STRING:
        return th_streq(f, "byte")                                ? &cel_kinds[CEL_BYTES]
               : th_streq(f, "duration")                          ? &cel_kinds[CEL_DURATION]
               : th_streq(f, "date") || th_streq(f, "date-time") ? &cel_kinds[CEL_TIMESTAMP]
                                                                  : &cel_kinds[CEL_STRING];
    case TH_ST_NUMBER:
        return &cel_kinds[CEL_DOUBLE];
    case TH_ST_INTEGER:
        return &cel_kinds[CEL_INT];
    case TH_ST_BOOLEAN:
        return &cel_kinds[CEL_BOOL];
    case TH_ST_ARRAY:
        sub = cel_type_of_schema(mem, s->items, false);
        return sub ? cel_type_make(mem, T_LIST, sub, NULL) : NULL;
    case TH_ST_OBJECT: {
        if (s->additional && s->n_props == 0) {
            sub = cel_type_of_schema(mem, s->additional, false);
            return sub ? cel_type_make(mem, T_MAP, &cel_kinds[CEL_STRING], sub) : NULL;
        }
        struct cel_type *t = cel_alloc(mem, sizeof(*t));
        t->t = T_OBJECT;
        t->schema = s;
        t->resource = resource || (s->flags & TH_SF_EMBEDDED);
        return t;
    }
    default:
        return NULL;
    }
}

const struct cel_type *cel_type_of_table(struct cel_arena *mem, const struct th_type *table,
                                         const char *const *hidden)
{
    struct cel_type *t = cel_alloc(mem, sizeof(*t));
    *t = (struct cel_type){.t = T_OBJECT, .table = table, .hidden = hidden};
    return t;
}

/* One member of a built-in type, as its OpenAPI schema would have it. */
static const struct cel_type *of_field(struct cel_arena *mem, const struct th_field *f)
{
    const struct cel_type *t = &cel_dyn;
    switch (f->type) {
    case TH_F_STRING:
    case TH_F_QUANTITY:
    case TH_F_DURATION:
        t = &cel_kinds[CEL_STRING];
        break;
    case TH_F_BOOL:
        t = &cel_kinds[CEL_BOOL];
        break;
    case TH_F_INT32:
    case TH_F_INT64:
        t = &cel_kinds[CEL_INT];
        break;
    case TH_F_DOUBLE:
        t = &cel_kinds[CEL_DOUBLE];
        break;
    case TH_F_BYTES:
        t = &cel_kinds[CEL_BYTES];
        break;
    case TH_F_TIME:
    case TH_F_MICROTIME:
        t = &cel_kinds[CEL_TIMESTAMP];
        break;
    case TH_F_STRUCT:
        t = cel_type_of_table(mem, f->sub, NULL);
        break;
    default:
        break;
    }
    switch (f->shape) {
    case TH_SHAPE_LIST:
        return cel_type_make(mem, T_LIST, t, NULL);
    case TH_SHAPE_MAP:
        return cel_type_make(mem, T_MAP, &cel_kinds[CEL_STRING], t);
    case TH_SHAPE_MAP_LIST:
        return cel_type_make(mem, T_MAP, &cel_kinds[CEL_STRING],
                             cel_type_make(mem, T_LIST, t, NULL));
    default:
        return t;
    }
}

static const struct cel_type *member_of_table(struct cel_arena *mem, const struct cel_type *t,
                                              const char *name)
{
    for (const char *const *h = t->hidden; h && *h; h++) {
        if (strcmp(*h, name) == 0) {
            return NULL;
        }
    }
    for (size_t i = 0; i < t->table->n_fields; i++) {
        const struct th_field *f = &t->table->fields[i];
        th_autobuf struct th_buf b = TH_BUF_INIT;
        if (strcmp(f->name, name) == 0 ||
            (cel_escape(f->name, &b) && th_streq(th_buf_cstr(&b), name))) {
            return of_field(mem, f);
        }
    }
    return NULL;
}

const struct cel_type *cel_type_message_member(const struct cel_type *t, const char *name)
{
    if (strcmp(t->name, "JSONPatch") != 0) {
        return &cel_dyn;
    }
    return th_streq(name, "op") || th_streq(name, "path") || th_streq(name, "from")
               ? &cel_kinds[CEL_STRING]
           : th_streq(name, "value") ? &cel_dyn
                                     : NULL;
}

const struct cel_type *cel_type_member(struct cel_arena *mem, const struct cel_type *t,
                                       const char *name)
{
    if (t->name) {
        return cel_type_message_member(t, name);
    }
    if (t->named) {
        for (size_t i = 0; i < t->n_named; i++) {
            const struct th_cel_named *n = &t->named[i];
            if (strcmp(n->name, name) == 0) {
                return n->prog ? n->prog->type : &cel_dyn;
            }
        }
        return NULL;
    }
    if (t->table && !t->schema) {
        return member_of_table(mem, t, name);
    }
    if (t->meta) {
        return th_streq(name, "name") || th_streq(name, "generateName") ? &cel_kinds[CEL_STRING]
                                                                            : NULL;
    }
    if (t->resource) {
        if (th_streq(name, "apiVersion") || th_streq(name, "kind")) {
            return &cel_kinds[CEL_STRING];
        }
        if (th_streq(name, "metadata") && t->table) {
            return cel_type_of_table(mem, t->table, NULL);
        }
        if (th_streq(name, "metadata")) {
            struct cel_type *m = cel_alloc(mem, sizeof(*m));
            m->t = T_OBJECT;
            m->meta = true;
            return m;
        }
    }
    for (size_t i = 0; t->schema && i < t->schema->n_props; i++) {
        th_autobuf struct th_buf b = TH_BUF_INIT;
        if (cel_escape(t->schema->props[i].name, &b) && th_streq(th_buf_cstr(&b), name)) {
            return cel_type_of_schema(mem, t->schema->props[i].s, false);
        }
    }
    return NULL;
}

/* ---- Signatures ---- */

static enum cel_kind kind_of_letter(char ch)
{
    static const char letters[] = "nbiudsytDUQICFVapgrx";
    static const enum cel_kind of[] = {
        CEL_NULL,   CEL_BOOL,      CEL_INT,      CEL_UINT, CEL_DOUBLE,   CEL_STRING, CEL_BYTES,
        CEL_TIMESTAMP, CEL_DURATION, CEL_URL, CEL_QUANTITY, CEL_IP,     CEL_CIDR,
        CEL_FORMAT, CEL_SEMVER,   CEL_AUTHORIZER, CEL_PATH_CHECK, CEL_GROUP_CHECK,
        CEL_RESOURCE_CHECK, CEL_DECISION};
    const char *at = strchr(letters, ch);
    TH_ASSERT(at && ch);
    return of[at - letters];
}

const struct cel_type *cel_type_of_sig(struct cel_arena *mem, const char **s)
{
    char ch = *(*s)++;
    const struct cel_type *a, *b;
    struct cel_type *p;
    switch (ch) {
    case '*':
        return &cel_dyn;
    case 'T':
        return &cel_kinds[CEL_TYPE];
    case 'A':
    case 'B':
        p = cel_alloc(mem, sizeof(*p));
        p->t = T_PARAM;
        p->param = ch;
        return p;
    case '[':
        a = cel_type_of_sig(mem, s);
        (*s)++;
        return cel_type_make(mem, T_LIST, a, NULL);
    case '?':
        a = cel_type_of_sig(mem, s);
        return cel_type_make(mem, T_OPTIONAL, a, NULL);
    case '{':
        a = cel_type_of_sig(mem, s);
        (*s)++;
        b = cel_type_of_sig(mem, s);
        (*s)++;
        return cel_type_make(mem, T_MAP, a, b);
    default:
        return &cel_kinds[kind_of_letter(ch)];
    }
}

static bool takes_null(const struct cel_type *t)
{
    return t->t == T_OBJECT || t->t == T_OPTIONAL ||
           (t->t == T_KIND && (t->of_kind >= CEL_TIMESTAMP || t->of_kind == CEL_NULL));
}

static bool same_object(const struct cel_type *a, const struct cel_type *b)
{
    return a->schema == b->schema && a->meta == b->meta && a->table == b->table &&
           a->named == b->named && (a->name == b->name || th_streq(a->name, b->name));
}

static bool bind(char param, const struct cel_type *from, struct cel_bindings *b)
{
    const struct cel_type **slot = &b->v[param - 'A'];
    if (!*slot || (*slot)->t == T_DYN) {
        *slot = *slot && (*slot)->t == T_DYN ? *slot : from;
        return true;
    }
    struct cel_bindings none = {{NULL, NULL}};
    if (cel_type_takes(*slot, from, &none)) {
        return true;
    }
    if (cel_type_takes(from, *slot, &none)) { /* null first, then the object */
        *slot = from;
        return true;
    }
    return false;
}

bool cel_type_takes(const struct cel_type *to, const struct cel_type *from,
                    struct cel_bindings *b)
{
    if (to->t == T_PARAM) {
        return bind(to->param, from, b);
    }
    if (to->t == T_DYN || from->t == T_DYN || to->t == T_ERROR || from->t == T_ERROR) {
        return true;
    }
    if (from->t == T_KIND && from->of_kind == CEL_NULL) {
        return takes_null(to);
    }
    if (to->t != from->t) {
        return false;
    }
    switch (to->t) {
    case T_KIND:
        return to->of_kind == from->of_kind;
    case T_LIST:
    case T_OPTIONAL:
        return cel_type_takes(to->a, from->a, b);
    case T_MAP:
        return cel_type_takes(to->a, from->a, b) && cel_type_takes(to->b, from->b, b);
    case T_OBJECT:
        return same_object(to, from);
    default:
        return true;
    }
}

const struct cel_type *cel_type_substitute(struct cel_arena *mem, const struct cel_type *t,
                                           const struct cel_bindings *b)
{
    switch (t->t) {
    case T_PARAM:
        return b->v[t->param - 'A'] ? b->v[t->param - 'A'] : &cel_dyn;
    case T_LIST:
    case T_OPTIONAL:
        return cel_type_make(mem, (int)t->t, cel_type_substitute(mem, t->a, b), NULL);
    case T_MAP:
        return cel_type_make(mem, T_MAP, cel_type_substitute(mem, t->a, b),
                             cel_type_substitute(mem, t->b, b));
    default:
        return t;
    }
}

bool cel_type_same(const struct cel_type *a, const struct cel_type *b)
{
    if (a->t != b->t) {
        return false;
    }
    switch (a->t) {
    case T_KIND:
        return a->of_kind == b->of_kind;
    case T_LIST:
    case T_OPTIONAL:
        return cel_type_same(a->a, b->a);
    case T_MAP:
        return cel_type_same(a->a, b->a) && cel_type_same(a->b, b->b);
    case T_OBJECT:
        return same_object(a, b);
    default:
        return true;
    }
}
