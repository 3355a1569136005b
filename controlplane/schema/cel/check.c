/*
 * The type checker.
 *
 * Types of variables come from schemas; everything that is not known is dyn, which fits everywhere.
 * A function has overloads, written as short signatures (functions.c, types.c); a call is right
 * when some overload's parameters take the arguments, with type parameters bound as they are met.
 * Where an argument is dyn, several overloads may fit: all are kept and the evaluator chooses by
 * the values.
 *
 * Faults are gathered, each with its position, and come out as upstream's compiler prints them.
 * What a faulty part would have been is T_ERROR, about which nothing more is said.
 *
 * Numbers of different types may be compared by order, not by equality; lists and maps hold values
 * of one type. null fits objects and opaque values, as upstream.
 */
#include "controlplane/schema/cel/types.h"

#include "controlplane/schema/gotext.h"

struct scope {
    const struct scope *up;
    const char *name;
    const struct cel_type *type;
};
struct checker {
    struct th_cel_prog *p;
    struct cel_arena *mem; /* the program's */
    const struct th_cel_var_type *vars;
    size_t n_vars;
    int exempt; /* inside of format(): literals may mix types */
};

static void print(const struct cel_type *t, struct th_buf *b)
{
    cel_print_type(t, false, b);
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
            return &cel_kinds[CEL_BOOL];
        case TH_CEL_VAR_INT:
            return &cel_kinds[CEL_INT];
        case TH_CEL_VAR_STRING:
            return &cel_kinds[CEL_STRING];
        case TH_CEL_VAR_SCHEMA:
        case TH_CEL_VAR_OPTIONAL_SCHEMA:
            t = cel_type_of_schema(c->mem, v->schema, v->resource);
            t = t ? t : &cel_dyn;
            if (t->t == T_OBJECT && v->table) {
                struct cel_type *whole = cel_alloc(&c->p->a, sizeof(*whole));
                *whole = *t;
                whole->table = v->table;
                t = whole;
            }
            return v->kind == TH_CEL_VAR_SCHEMA ? t : cel_type_make(c->mem, T_OPTIONAL, t, NULL);
        case TH_CEL_VAR_TABLE:
            return cel_type_of_table(c->mem, v->table, v->hidden);
        case TH_CEL_VAR_NAMED: {
            struct cel_type *n = cel_alloc(&c->p->a, sizeof(*n));
            static const struct th_cel_named none = {NULL, NULL, NULL};
            *n = (struct cel_type){
                .t = T_OBJECT, .named = v->named ? v->named : &none, .n_named = v->n_named};
            return n;
        }
        case TH_CEL_VAR_AUTHORIZER:
            return &cel_kinds[CEL_AUTHORIZER];
        case TH_CEL_VAR_RESOURCE_CHECK:
            return &cel_kinds[CEL_RESOURCE_CHECK];
        default:
            return &cel_dyn;
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
        return &cel_bad;
    }
    if (!is_function(n->name)) {
        cel_issue(c->p, n->pos, "undeclared reference to '%s' (in container '')", n->name);
        return &cel_bad;
    }
    const struct cel_type *result = NULL;
    n->fns = cel_alloc(&c->p->a, 16 * sizeof(struct cel_fn *));
    for (size_t i = 0; i < cel_functions_n; i++) {
        const struct cel_fn *f = &cel_functions[i];
        if (strcmp(f->name, n->name) != 0 || cel_fn_is_member(f) != member) {
            continue;
        }
        struct cel_bindings b = {{NULL, NULL}};
        const char *s = strchr(f->sig, ':') + 1;
        size_t k = 0;
        bool fits = true;
        for (; *s != '>' && fits; k++) {
            const struct cel_type *want = cel_type_of_sig(c->mem, &s);
            fits = k < n_args && cel_type_takes(want, types[k], &b);
        }
        if (!fits || k != n_args) {
            continue;
        }
        s = strchr(s, '>') + 1;
        const struct cel_type *t = cel_type_substitute(c->mem, cel_type_of_sig(c->mem, &s), &b);
        result = !result ? t : cel_type_same(result, t) ? result : &cel_dyn;
        TH_ASSERT(n->n_fns < 16);
        n->fns[n->n_fns++] = f;
    }
    if (!result) {
        no_overload(c, n, member, types, n_args);
        return &cel_bad;
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
            return &cel_kinds[CEL_TYPE];
        }
    }
    cel_issue(c->p, n->pos, "undeclared reference to '%s' (in container '')", n->name);
    return &cel_bad;
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
        return &cel_bad;
    case T_DYN:
        t = &cel_dyn;
        break;
    case T_MAP:
        t = of->b;
        break;
    case T_OBJECT:
        t = cel_type_member(c->mem, of, n->name);
        if (!t) {
            cel_issue(c->p, n->pos, "undefined field '%s'", n->name);
            return &cel_bad;
        }
        break;
    default: {
        th_autobuf struct th_buf b = TH_BUF_INIT;
        print(of, &b);
        cel_issue(c->p, n->pos, "type '%s' does not support field selection", th_buf_cstr(&b));
        return &cel_bad;
    }
    }
    return n->test    ? &cel_kinds[CEL_BOOL]
           : optional ? cel_type_make(c->mem, T_OPTIONAL, t, NULL)
                      : t;
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
            expected(c, n->pos, cel_type_make(c->mem, T_OPTIONAL, t, NULL), t);
            return &cel_bad;
        }
        t = t->a;
    }
    if (!so_far || so_far->t == T_ERROR) {
        return t;
    }
    struct cel_bindings b = {{NULL, NULL}};
    if (so_far->t == T_DYN || t->t == T_DYN) {
        return &cel_dyn;
    }
    if (cel_type_takes(so_far, t, &b)) {
        return so_far;
    }
    if (cel_type_takes(t, so_far, &b)) {
        return t;
    }
    if (c->exempt) {
        return &cel_dyn;
    }
    expected(c, n->pos, so_far, t);
    return &cel_bad;
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
    k = k ? k : &cel_dyn;
    v = v ? v : &cel_dyn;
    return map ? cel_type_make(c->mem, T_MAP, k, v) : cel_type_make(c->mem, T_LIST, v, NULL);
}

static const struct cel_type *check_message(struct checker *c, struct cel_node *n,
                                            const struct scope *scope)
{
    bool known = c->p->messages && (strcmp(n->name, "JSONPatch") == 0 ||
                                    strcmp(n->name, "Object") == 0 ||
                                    th_startswith(n->name, "Object."));
    if (!known) {
        cel_issue(c->p, n->pos, "undeclared reference to '%s' (in container '')", n->name);
        return &cel_bad;
    }
    struct cel_type *t = cel_alloc(&c->p->a, sizeof(*t));
    *t = (struct cel_type){.t = T_OBJECT, .name = n->name};
    for (size_t i = 0; i < n->n_args; i++) {
        const struct cel_type *v = check(c, n->args[i], scope);
        const struct cel_type *want = cel_type_message_member(t, n->fields[i]);
        if (n->optional && n->optional[i] && v->t == T_OPTIONAL) {
            v = v->a;
        }
        struct cel_bindings b = {{NULL, NULL}};
        if (!want) {
            cel_issue(c->p, n->args[i]->pos, "undefined field '%s'", n->fields[i]);
        } else if (!cel_type_takes(want, v, &b)) {
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
    struct cel_bindings b = {{NULL, NULL}};
    if (!cel_type_takes(&cel_kinds[CEL_BOOL], t, &b)) {
        expected(c, n->pos, &cel_kinds[CEL_BOOL], t);
        return &cel_bad;
    }
    return t;
}

static const struct cel_type *check_fold(struct checker *c, struct cel_node *n,
                                         const struct scope *scope)
{
    const struct cel_type *range = check(c, n->target, scope);
    const struct cel_type *one = &cel_dyn, *two = &cel_dyn;
    bool opt = n->fold == FOLD_OPT_MAP || n->fold == FOLD_OPT_FLAT_MAP;
    if (range->t == T_ERROR) {
        one = two = &cel_bad;
    } else if (opt ? range->t == T_OPTIONAL : range->t == T_LIST) {
        one = n->name2 ? &cel_kinds[CEL_INT] : range->a;
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
        one = two = &cel_bad;
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
        return &cel_kinds[CEL_BOOL];
    case FOLD_FILTER:
        (void)check_bool(c, n->step, inner);
        return cel_type_make(c->mem, T_LIST, one, NULL);
    case FOLD_SORT_BY:
        (void)check(c, n->step, inner);
        return cel_type_make(c->mem, T_LIST, one, NULL);
    case FOLD_MAP:
    case FOLD_TRANSFORM_LIST:
        return cel_type_make(c->mem, T_LIST, check(c, n->step, inner), NULL);
    case FOLD_TRANSFORM_MAP:
        return cel_type_make(c->mem, T_MAP, one, check(c, n->step, inner));
    case FOLD_TRANSFORM_ENTRY:
        t = check(c, n->step, inner);
        if (t->t != T_MAP && t->t != T_DYN && t->t != T_ERROR) {
            expected(c, n->step->pos, cel_type_make(c->mem, T_MAP, &cel_dyn, &cel_dyn), t);
            return &cel_bad;
        }
        return t;
    case FOLD_OPT_MAP:
        return cel_type_make(c->mem, T_OPTIONAL, check(c, n->step, inner), NULL);
    case FOLD_OPT_FLAT_MAP:
        t = check(c, n->step, inner);
        if (t->t != T_OPTIONAL && t->t != T_DYN && t->t != T_ERROR) {
            expected(c, n->step->pos, cel_type_make(c->mem, T_OPTIONAL, &cel_dyn, NULL), t);
            return &cel_bad;
        }
        return t;
    }
    return &cel_bad;
}

static const struct cel_type *check(struct checker *c, struct cel_node *n,
                                    const struct scope *scope)
{
    switch (n->kind) {
    case N_LIT:
        n->type = &cel_kinds[n->lit.kind];
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
    struct checker c = {.p = p, .mem = &p->a, .vars = vars, .n_vars = n_vars};
    *ret = check(&c, p->root, NULL);
    return p->issues.n ? -TH_R_INVALID : 0;
}
