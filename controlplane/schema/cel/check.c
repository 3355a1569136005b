/*
 * The type checker.
 *
 * Types of variables come from schemas; everything that is not known is dyn, which fits everywhere.
 * A function has overloads, written as short signatures (functions.c); a call is right when some
 * overload's parameters take the arguments, with type parameters bound as they are met. Where an
 * argument is dyn, several overloads may fit: all are kept and the evaluator chooses by the values.
 *
 * Faults are gathered, each with its position, and come out as upstream's compiler prints them. What
 * a faulty part would have been is T_ERROR, about which nothing more is said.
 *
 * Numbers of different types may be compared by order, not by equality; lists and maps hold values
 * of one type. null fits objects and opaque values, as upstream.
 */
#include "controlplane/schema/cel/cel_priv.h"

#include "controlplane/schema/gotext.h"

struct scope {
    const struct scope *up;
    const char *name;
    const struct cel_type *type;
};
struct checker {
    struct th_cel_prog *p;
    const struct th_cel_var_type *vars;
    size_t n_vars;
    int exempt; /* inside of format(): literals may mix types */
};
struct bindings {
    const struct cel_type *v[2];
};

static const struct cel_type dyn = {.t = T_DYN}, bad = {.t = T_ERROR};
static const struct cel_type kinds[CEL_KINDS_] = {
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

static const struct cel_type *make(struct checker *c, int t, const struct cel_type *a,
                                   const struct cel_type *b)
{
    struct cel_type *n = cel_alloc(&c->p->a, sizeof(*n));
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

static void print(const struct cel_type *t, struct th_buf *b)
{
    cel_print_type(t, false, b);
}

bool cel_type_is_message(const struct cel_type *t, const char *name)
{
    return t->t == T_OBJECT && t->name && strcmp(t->name, name) == 0;
}

/* ---- Types out of schemas ---- */

static const struct cel_type *of_schema(struct checker *c, const struct th_structural *s,
                                        bool resource)
{
    if (!s) {
        return NULL;
    }
    if (s->flags & TH_SF_INTORSTR) {
        return &dyn;
    }
    const char *f = s->format;
    const struct cel_type *sub;
    switch (s->type) {
    case TH_ST_STRING:
        return th_streq(f, "byte")                                ? &kinds[CEL_BYTES]
               : th_streq(f, "duration")                          ? &kinds[CEL_DURATION]
               : th_streq(f, "date") || th_streq(f, "date-time") ? &kinds[CEL_TIMESTAMP]
                                                                  : &kinds[CEL_STRING];
    case TH_ST_NUMBER:
        return &kinds[CEL_DOUBLE];
    case TH_ST_INTEGER:
        return &kinds[CEL_INT];
    case TH_ST_BOOLEAN:
        return &kinds[CEL_BOOL];
    case TH_ST_ARRAY:
        sub = of_schema(c, s->items, false);
        return sub ? make(c, T_LIST, sub, NULL) : NULL;
    case TH_ST_OBJECT: {
        if (s->additional && s->n_props == 0) {
            sub = of_schema(c, s->additional, false);
            return sub ? make(c, T_MAP, &kinds[CEL_STRING], sub) : NULL;
        }
        struct cel_type *t = cel_alloc(&c->p->a, sizeof(*t));
        t->t = T_OBJECT;
        t->schema = s;
        t->resource = resource || (s->flags & TH_SF_EMBEDDED);
        return t;
    }
    default:
        return NULL;
    }
}

static const struct cel_type *of_table(struct checker *c, const struct th_type *table,
                                       const char *const *hidden)
{
    struct cel_type *t = cel_alloc(&c->p->a, sizeof(*t));
    *t = (struct cel_type){.t = T_OBJECT, .table = table, .hidden = hidden};
    return t;
}

/* One member of a built-in type, as its OpenAPI schema would have it. */
static const struct cel_type *of_field(struct checker *c, const struct th_field *f)
{
    const struct cel_type *t = &dyn;
    switch (f->type) {
    case TH_F_STRING:
    case TH_F_QUANTITY:
    case TH_F_DURATION:
        t = &kinds[CEL_STRING];
        break;
    case TH_F_BOOL:
        t = &kinds[CEL_BOOL];
        break;
    case TH_F_INT32:
    case TH_F_INT64:
        t = &kinds[CEL_INT];
        break;
    case TH_F_DOUBLE:
        t = &kinds[CEL_DOUBLE];
        break;
    case TH_F_BYTES:
        t = &kinds[CEL_BYTES];
        break;
    case TH_F_TIME:
    case TH_F_MICROTIME:
        t = &kinds[CEL_TIMESTAMP];
        break;
    case TH_F_STRUCT:
        t = of_table(c, f->sub, NULL);
        break;
    default:
        break;
    }
    switch (f->shape) {
    case TH_SHAPE_LIST:
        return make(c, T_LIST, t, NULL);
    case TH_SHAPE_MAP:
        return make(c, T_MAP, &kinds[CEL_STRING], t);
    case TH_SHAPE_MAP_LIST:
        return make(c, T_MAP, &kinds[CEL_STRING], make(c, T_LIST, t, NULL));
    default:
        return t;
    }
}

static const struct cel_type *member_of_table(struct checker *c, const struct cel_type *t,
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
            return of_field(c, f);
        }
    }
    return NULL;
}

/* Members of what a literal of a message type makes; of Object anything. */
static const struct cel_type *member_of_message(const struct cel_type *t, const char *name)
{
    if (strcmp(t->name, "JSONPatch") != 0) {
        return &dyn;
    }
    return th_streq(name, "op") || th_streq(name, "path") || th_streq(name, "from")
               ? &kinds[CEL_STRING]
           : th_streq(name, "value") ? &dyn
                                     : NULL;
}

static const struct cel_type *member_of(struct checker *c, const struct cel_type *t,
                                        const char *name)
{
    if (t->name) {
        return member_of_message(t, name);
    }
    if (t->named) {
        for (size_t i = 0; i < t->n_named; i++) {
            const struct th_cel_named *n = &t->named[i];
            if (strcmp(n->name, name) == 0) {
                return n->prog ? n->prog->type : &dyn;
            }
        }
        return NULL;
    }
    if (t->table && !t->schema) {
        return member_of_table(c, t, name);
    }
    if (t->meta) {
        return th_streq(name, "name") || th_streq(name, "generateName") ? &kinds[CEL_STRING] : NULL;
    }
    if (t->resource) {
        if (th_streq(name, "apiVersion") || th_streq(name, "kind")) {
            return &kinds[CEL_STRING];
        }
        if (th_streq(name, "metadata") && t->table) {
            return of_table(c, t->table, NULL);
        }
        if (th_streq(name, "metadata")) {
            struct cel_type *m = cel_alloc(&c->p->a, sizeof(*m));
            m->t = T_OBJECT;
            m->meta = true;
            return m;
        }
    }
    for (size_t i = 0; t->schema && i < t->schema->n_props; i++) {
        th_autobuf struct th_buf b = TH_BUF_INIT;
        if (cel_escape(t->schema->props[i].name, &b) && th_streq(th_buf_cstr(&b), name)) {
            return of_schema(c, t->schema->props[i].s, false);
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

/* One type of a signature; *s moves on. */
static const struct cel_type *sig_type(struct checker *c, const char **s)
{
    char ch = *(*s)++;
    const struct cel_type *a, *b;
    struct cel_type *p;
    switch (ch) {
    case '*':
        return &dyn;
    case 'T':
        return &kinds[CEL_TYPE];
    case 'A':
    case 'B':
        p = cel_alloc(&c->p->a, sizeof(*p));
        p->t = T_PARAM;
        p->param = ch;
        return p;
    case '[':
        a = sig_type(c, s);
        (*s)++;
        return make(c, T_LIST, a, NULL);
    case '?':
        a = sig_type(c, s);
        return make(c, T_OPTIONAL, a, NULL);
    case '{':
        a = sig_type(c, s);
        (*s)++;
        b = sig_type(c, s);
        (*s)++;
        return make(c, T_MAP, a, b);
    default:
        return &kinds[kind_of_letter(ch)];
    }
}

static bool takes_null(const struct cel_type *t)
{
    return t->t == T_OBJECT || t->t == T_OPTIONAL ||
           (t->t == T_KIND && (t->of_kind >= CEL_TIMESTAMP || t->of_kind == CEL_NULL));
}

static bool assignable(const struct cel_type *to, const struct cel_type *from, struct bindings *b);

static bool same_object(const struct cel_type *a, const struct cel_type *b)
{
    return a->schema == b->schema && a->meta == b->meta && a->table == b->table &&
           a->named == b->named && (a->name == b->name || th_streq(a->name, b->name));
}

static bool bind(char param, const struct cel_type *from, struct bindings *b)
{
    const struct cel_type **slot = &b->v[param - 'A'];
    if (!*slot || (*slot)->t == T_DYN) {
        *slot = *slot && (*slot)->t == T_DYN ? *slot : from;
        return true;
    }
    struct bindings none = {{NULL, NULL}};
    if (assignable(*slot, from, &none)) {
        return true;
    }
    if (assignable(from, *slot, &none)) { /* null first, then the object */
        *slot = from;
        return true;
    }
    return false;
}

static bool assignable(const struct cel_type *to, const struct cel_type *from, struct bindings *b)
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
        return assignable(to->a, from->a, b);
    case T_MAP:
        return assignable(to->a, from->a, b) && assignable(to->b, from->b, b);
    case T_OBJECT:
        return same_object(to, from);
    default:
        return true;
    }
}

static const struct cel_type *substitute(struct checker *c, const struct cel_type *t,
                                         const struct bindings *b)
{
    switch (t->t) {
    case T_PARAM:
        return b->v[t->param - 'A'] ? b->v[t->param - 'A'] : &dyn;
    case T_LIST:
    case T_OPTIONAL:
        return make(c, (int)t->t, substitute(c, t->a, b), NULL);
    case T_MAP:
        return make(c, T_MAP, substitute(c, t->a, b), substitute(c, t->b, b));
    default:
        return t;
    }
}

static bool same(const struct cel_type *a, const struct cel_type *b)
{
    if (a->t != b->t) {
        return false;
    }
    switch (a->t) {
    case T_KIND:
        return a->of_kind == b->of_kind;
    case T_LIST:
    case T_OPTIONAL:
        return same(a->a, b->a);
    case T_MAP:
        return same(a->a, b->a) && same(a->b, b->b);
    case T_OBJECT:
        return same_object(a, b);
    default:
        return true;
    }
}

/* ---- Calls ---- */

bool cel_fn_is_member(const struct cel_fn *f)
{
    return f->sig[0] == 'm';
}

static bool is_function(const char *name)
{
    for (size_t i = 0; i < cel_functions_n; i++) {
        if (strcmp(cel_functions[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

static void no_overload(struct checker *c, const struct cel_node *n, bool member,
                        const struct cel_type *const *args, size_t n_args)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    if (member) {
        print(args[0], &b);
        th_buf_putc(&b, '.');
    }
    th_buf_putc(&b, '(');
    for (size_t i = member; i < n_args; i++) {
        th_buf_puts(&b, i > (size_t)member ? ", " : "");
        print(args[i], &b);
    }
    th_buf_putc(&b, ')');
    cel_issue(c->p, n->pos, "found no matching overload for '%s' applied to '%s'", n->name,
              th_buf_cstr(&b));
}

static const struct cel_type *check(struct checker *c, struct cel_node *n,
                                    const struct scope *scope);

/* "a.b" of a chain of names, or NULL. */
static char *qualified(const struct cel_node *n, struct cel_arena *a)
{
    if (n->kind == N_IDENT) {
        return cel_strdup(a, n->name, strlen(n->name));
    }
    if (n->kind == N_SELECT && !n->test && !n->opt_select) {
        const char *of = qualified(n->target, a);
        return of ? cel_printf(a, "%s.%s", of, n->name) : NULL;
    }
    return NULL;
}

static const struct cel_type *find_var(struct checker *c, const char *name,
                                       const struct scope *scope)
{
    for (; scope; scope = scope->up) {
        if (strcmp(scope->name, name) == 0) {
            return scope->type;
        }
    }
    for (size_t i = 0; i < c->n_vars; i++) {
        const struct th_cel_var_type *v = &c->vars[i];
        if (strcmp(v->name, name) != 0) {
            continue;
        }
        if (!th_strv_has(&c->p->used, name)) {
            th_strv_add(&c->p->used, name);
        }
        const struct cel_type *t;
        switch (v->kind) {
        case TH_CEL_VAR_BOOL:
            return &kinds[CEL_BOOL];
        case TH_CEL_VAR_INT:
            return &kinds[CEL_INT];
        case TH_CEL_VAR_STRING:
            return &kinds[CEL_STRING];
        case TH_CEL_VAR_SCHEMA:
        case TH_CEL_VAR_OPTIONAL_SCHEMA:
            t = of_schema(c, v->schema, v->resource);
            t = t ? t : &dyn;
            if (t->t == T_OBJECT && v->table) {
                struct cel_type *whole = cel_alloc(&c->p->a, sizeof(*whole));
                *whole = *t;
                whole->table = v->table;
                t = whole;
            }
            return v->kind == TH_CEL_VAR_SCHEMA ? t : make(c, T_OPTIONAL, t, NULL);
        case TH_CEL_VAR_TABLE:
            return of_table(c, v->table, v->hidden);
        case TH_CEL_VAR_NAMED: {
            struct cel_type *n = cel_alloc(&c->p->a, sizeof(*n));
            static const struct th_cel_named none = {NULL, NULL, NULL};
            *n = (struct cel_type){
                .t = T_OBJECT, .named = v->named ? v->named : &none, .n_named = v->n_named};
            return n;
        }
        case TH_CEL_VAR_AUTHORIZER:
            return &kinds[CEL_AUTHORIZER];
        case TH_CEL_VAR_RESOURCE_CHECK:
            return &kinds[CEL_RESOURCE_CHECK];
        default:
            return &dyn;
        }
    }
    return NULL;
}

/* Patterns, moments and lengths of time that are written out must parse. */
static void check_text(struct checker *c, const struct cel_node *n, bool member)
{
    const struct cel_node *arg = n->n_args ? n->args[n->n_args - 1] : NULL;
    if (!arg || arg->kind != N_LIT || arg->lit.kind != CEL_STRING) {
        return;
    }
    const char *s = arg->lit.s.p;
    bool ok = true;
    int64_t sec;
    int32_t nsec;
    if (strcmp(n->name, "matches") == 0) {
        TH_AUTO(th_regex) struct th_regex *re = NULL;
        ok = th_regex_new(s, arg->lit.s.n, &re, NULL) >= 0;
    } else if (!member && strcmp(n->name, "duration") == 0) {
        ok = th_go_duration_parse(s, &sec, NULL) >= 0;
    } else if (!member && strcmp(n->name, "timestamp") == 0) {
        ok = th_go_time_parse(s, false, &sec, &nsec, NULL) >= 0;
    }
    if (!ok) {
        cel_issue(c->p, arg->pos, "invalid %s argument", n->name);
    }
}

static const struct cel_type *check_call(struct checker *c, struct cel_node *n,
                                         const struct scope *scope)
{
    /* optional.of(x): a name in front of a function's */
    if (n->target) {
        char *of = qualified(n->target, &c->p->a);
        const char *first = of ? cel_strdup(&c->p->a, of, strcspn(of, ".")) : NULL;
        char *full = of ? cel_printf(&c->p->a, "%s.%s", of, n->name) : NULL;
        if (full && is_function(full) && !find_var(c, first, scope)) {
            n->name = full;
            n->target = NULL;
        }
    }
    bool member = n->target != NULL;
    size_t n_args = n->n_args + (member ? 1 : 0);
    const struct cel_type **types = cel_alloc(&c->p->a, (n_args + 1) * sizeof(struct cel_type *));
    bool broken = false, mixes = member && strcmp(n->name, "format") == 0;
    c->exempt += mixes;
    for (size_t i = 0; i < n_args; i++) {
        struct cel_node *arg = member ? (i ? n->args[i - 1] : n->target) : n->args[i];
        types[i] = check(c, arg, scope);
        broken |= types[i]->t == T_ERROR;
    }
    c->exempt -= mixes;
    if (broken) {
        return &bad;
    }
    if (!is_function(n->name)) {
        cel_issue(c->p, n->pos, "undeclared reference to '%s' (in container '')", n->name);
        return &bad;
    }
    const struct cel_type *result = NULL;
    n->fns = cel_alloc(&c->p->a, 16 * sizeof(struct cel_fn *));
    for (size_t i = 0; i < cel_functions_n; i++) {
        const struct cel_fn *f = &cel_functions[i];
        if (strcmp(f->name, n->name) != 0 || cel_fn_is_member(f) != member) {
            continue;
        }
        struct bindings b = {{NULL, NULL}};
        const char *s = strchr(f->sig, ':') + 1;
        size_t k = 0;
        bool fits = true;
        for (; *s != '>' && fits; k++) {
            const struct cel_type *want = sig_type(c, &s);
            fits = k < n_args && assignable(want, types[k], &b);
        }
        if (!fits || k != n_args) {
            continue;
        }
        s = strchr(s, '>') + 1;
        const struct cel_type *t = substitute(c, sig_type(c, &s), &b);
        result = !result ? t : same(result, t) ? result : &dyn;
        TH_ASSERT(n->n_fns < 16);
        n->fns[n->n_fns++] = f;
    }
    if (!result) {
        no_overload(c, n, member, types, n_args);
        return &bad;
    }
    check_text(c, n, member);
    return result;
}

/* ---- The other nodes ---- */

static const struct cel_type *check_ident(struct checker *c, struct cel_node *n,
                                          const struct scope *scope)
{
    static const char *const type_names[] = {
        "bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type", "type",
        "optional_type", "net.IP", "net.CIDR", "kubernetes.URL", "kubernetes.Quantity",
        "google.protobuf.Timestamp", "google.protobuf.Duration"};
    const struct cel_type *t = find_var(c, n->name, n->absolute ? NULL : scope);
    if (t) {
        return t;
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(type_names); i++) {
        if (strcmp(type_names[i], n->name) == 0) {
            n->kind = N_LIT;
            n->lit = (struct cel_val){.kind = CEL_TYPE, .s = th_str_of(type_names[i])};
            return &kinds[CEL_TYPE];
        }
    }
    cel_issue(c->p, n->pos, "undeclared reference to '%s' (in container '')", n->name);
    return &bad;
}

static const struct cel_type *check_select(struct checker *c, struct cel_node *n,
                                           const struct scope *scope)
{
    char *full = qualified(n, &c->p->a);
    if (full && !n->test && !n->opt_select && find_var(c, full, NULL)) { /* authorizer.requestResource */
        n->kind = N_IDENT;
        n->name = full;
        return find_var(c, full, NULL);
    }
    if (full && (th_startswith(full, "google.protobuf.") || th_streq(full, "net.IP") ||
                 th_streq(full, "net.CIDR") || th_startswith(full, "kubernetes."))) {
        struct cel_node as = *n;
        as.kind = N_IDENT;
        as.name = full;
        const struct cel_type *t = check_ident(c, &as, NULL);
        if (t->t != T_ERROR) {
            *n = as;
            return t;
        }
        return t;
    }
    const struct cel_type *of = check(c, n->target, scope);
    bool optional = n->opt_select;
    if (of->t == T_OPTIONAL) {
        of = of->a;
        optional = true;
    }
    const struct cel_type *t = NULL;
    switch (of->t) {
    case T_ERROR:
        return &bad;
    case T_DYN:
        t = &dyn;
        break;
    case T_MAP:
        t = of->b;
        break;
    case T_OBJECT:
        t = member_of(c, of, n->name);
        if (!t) {
            cel_issue(c->p, n->pos, "undefined field '%s'", n->name);
            return &bad;
        }
        break;
    default: {
        th_autobuf struct th_buf b = TH_BUF_INIT;
        print(of, &b);
        cel_issue(c->p, n->pos, "type '%s' does not support field selection", th_buf_cstr(&b));
        return &bad;
    }
    }
    return n->test ? &kinds[CEL_BOOL] : optional ? make(c, T_OPTIONAL, t, NULL) : t;
}

static void expected(struct checker *c, uint32_t pos, const struct cel_type *want,
                     const struct cel_type *have)
{
    th_autobuf struct th_buf a = TH_BUF_INIT, b = TH_BUF_INIT;
    print(want, &a);
    print(have, &b);
    cel_issue(c->p, pos, "expected type '%s' but found '%s'", th_buf_cstr(&a), th_buf_cstr(&b));
}

/* Joins the type of one more element. */
static const struct cel_type *join(struct checker *c, const struct cel_type *so_far,
                                   const struct cel_node *n, const struct cel_type *t, bool optional)
{
    if (optional && t->t != T_ERROR && t->t != T_DYN) {
        if (t->t != T_OPTIONAL) {
            expected(c, n->pos, make(c, T_OPTIONAL, t, NULL), t);
            return &bad;
        }
        t = t->a;
    }
    if (!so_far || so_far->t == T_ERROR) {
        return t;
    }
    struct bindings b = {{NULL, NULL}};
    if (so_far->t == T_DYN || t->t == T_DYN) {
        return &dyn;
    }
    if (assignable(so_far, t, &b)) {
        return so_far;
    }
    if (assignable(t, so_far, &b)) {
        return t;
    }
    if (c->exempt) {
        return &dyn;
    }
    expected(c, n->pos, so_far, t);
    return &bad;
}

static const struct cel_type *check_literal(struct checker *c, struct cel_node *n,
                                            const struct scope *scope)
{
    const struct cel_type *k = NULL, *v = NULL;
    bool map = n->kind == N_MAP;
    for (size_t i = 0; i < n->n_args; i++) {
        const struct cel_type *t = check(c, n->args[i], scope);
        bool opt = n->optional && n->optional[i] && !(map && i % 2 == 0);
        if (map && i % 2 == 0) {
            k = join(c, k, n->args[i], t, false);
        } else {
            v = join(c, v, n->args[i], t, opt);
        }
    }
    return map ? make(c, T_MAP, k ? k : &dyn, v ? v : &dyn) : make(c, T_LIST, v ? v : &dyn, NULL);
}

static const struct cel_type *check_message(struct checker *c, struct cel_node *n,
                                            const struct scope *scope)
{
    bool known = c->p->messages && (strcmp(n->name, "JSONPatch") == 0 ||
                                    strcmp(n->name, "Object") == 0 ||
                                    th_startswith(n->name, "Object."));
    if (!known) {
        cel_issue(c->p, n->pos, "undeclared reference to '%s' (in container '')", n->name);
        return &bad;
    }
    struct cel_type *t = cel_alloc(&c->p->a, sizeof(*t));
    *t = (struct cel_type){.t = T_OBJECT, .name = n->name};
    for (size_t i = 0; i < n->n_args; i++) {
        const struct cel_type *v = check(c, n->args[i], scope);
        const struct cel_type *want = member_of_message(t, n->fields[i]);
        if (n->optional && n->optional[i] && v->t == T_OPTIONAL) {
            v = v->a;
        }
        struct bindings b = {{NULL, NULL}};
        if (!want) {
            cel_issue(c->p, n->args[i]->pos, "undefined field '%s'", n->fields[i]);
        } else if (!assignable(want, v, &b)) {
            th_autobuf struct th_buf w = TH_BUF_INIT, h = TH_BUF_INIT;
            print(want, &w);
            print(v, &h);
            cel_issue(c->p, n->args[i]->pos,
                      "expected type of field '%s' is '%s' but provided type is '%s'", n->fields[i],
                      th_buf_cstr(&w), th_buf_cstr(&h));
        }
    }
    return t;
}

static const struct cel_type *check_bool(struct checker *c, struct cel_node *n,
                                         const struct scope *scope)
{
    const struct cel_type *t = check(c, n, scope);
    struct bindings b = {{NULL, NULL}};
    if (!assignable(&kinds[CEL_BOOL], t, &b)) {
        expected(c, n->pos, &kinds[CEL_BOOL], t);
        return &bad;
    }
    return t;
}

static const struct cel_type *check_fold(struct checker *c, struct cel_node *n,
                                         const struct scope *scope)
{
    const struct cel_type *range = check(c, n->target, scope);
    const struct cel_type *one = &dyn, *two = &dyn;
    bool opt = n->fold == FOLD_OPT_MAP || n->fold == FOLD_OPT_FLAT_MAP;
    if (range->t == T_ERROR) {
        one = two = &bad;
    } else if (opt ? range->t == T_OPTIONAL : range->t == T_LIST) {
        one = n->name2 ? &kinds[CEL_INT] : range->a;
        two = range->a;
    } else if (!opt && range->t == T_MAP) {
        one = range->a;
        two = range->b;
    } else if (range->t != T_DYN) {
        th_autobuf struct th_buf b = TH_BUF_INIT;
        print(range, &b);
        if (opt) {
            cel_issue(c->p, n->pos, "found no matching overload for '%s' applied to '%s.()'",
                      n->fold == FOLD_OPT_MAP ? "optMap" : "optFlatMap", th_buf_cstr(&b));
        } else {
            cel_issue(c->p, n->target->pos,
                      "expression of type '%s' cannot be range of a comprehension (must be list, "
                      "map, or dynamic)",
                      th_buf_cstr(&b));
        }
        one = two = &bad;
    }
    struct scope s1 = {scope, n->name, one}, s2 = {&s1, n->name2, two};
    const struct scope *inner = n->name2 ? &s2 : &s1;
    if (n->filter) {
        (void)check_bool(c, n->filter, inner);
    }
    const struct cel_type *t;
    switch (n->fold) {
    case FOLD_ALL:
    case FOLD_EXISTS:
    case FOLD_EXISTS_ONE:
        (void)check_bool(c, n->step, inner);
        return &kinds[CEL_BOOL];
    case FOLD_FILTER:
        (void)check_bool(c, n->step, inner);
        return make(c, T_LIST, one, NULL);
    case FOLD_SORT_BY:
        (void)check(c, n->step, inner);
        return make(c, T_LIST, one, NULL);
    case FOLD_MAP:
    case FOLD_TRANSFORM_LIST:
        return make(c, T_LIST, check(c, n->step, inner), NULL);
    case FOLD_TRANSFORM_MAP:
        return make(c, T_MAP, one, check(c, n->step, inner));
    case FOLD_TRANSFORM_ENTRY:
        t = check(c, n->step, inner);
        if (t->t != T_MAP && t->t != T_DYN && t->t != T_ERROR) {
            expected(c, n->step->pos, make(c, T_MAP, &dyn, &dyn), t);
            return &bad;
        }
        return t;
    case FOLD_OPT_MAP:
        return make(c, T_OPTIONAL, check(c, n->step, inner), NULL);
    case FOLD_OPT_FLAT_MAP:
        t = check(c, n->step, inner);
        if (t->t != T_OPTIONAL && t->t != T_DYN && t->t != T_ERROR) {
            expected(c, n->step->pos, make(c, T_OPTIONAL, &dyn, NULL), t);
            return &bad;
        }
        return t;
    }
    return &bad;
}

static const struct cel_type *check(struct checker *c, struct cel_node *n,
                                    const struct scope *scope)
{
    switch (n->kind) {
    case N_LIT:
        n->type = &kinds[n->lit.kind];
        break;
    case N_IDENT:
        n->type = check_ident(c, n, scope);
        break;
    case N_SELECT:
        n->type = check_select(c, n, scope);
        break;
    case N_CALL:
        n->type = check_call(c, n, scope);
        break;
    case N_LIST:
    case N_MAP:
        n->type = check_literal(c, n, scope);
        break;
    case N_MESSAGE:
        n->type = check_message(c, n, scope);
        break;
    case N_FOLD:
        n->type = check_fold(c, n, scope);
        break;
    }
    return n->type;
}

int cel_check(struct th_cel_prog *p, const struct th_cel_var_type *vars, size_t n_vars,
              const struct cel_type **ret)
{
    struct checker c = {.p = p, .vars = vars, .n_vars = n_vars};
    *ret = check(&c, p->root, NULL);
    return p->issues.n ? -TH_R_INVALID : 0;
}
