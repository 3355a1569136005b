/*
 * Evaluation.
 *
 * The tree is walked; values are small structs, what they point to lives in an arena that ends with
 * the evaluation. Errors are values: && and || (and the macros built on them) pass over one when the
 * other side decides. Everything else hands an error on.
 *
 * Each step is charged as upstream's interpreter charges it: a name or a member 1, a list 10, a map
 * 30, text by a tenth of its bytes, a walk by its elements. When the limit is passed, everything
 * ends in one error. That also bounds memory: what allocates is charged.
 */
#include "base/limits.h"
#include "controlplane/schema/cel/cel_priv.h"

#define LIST_COST 10
#define MAP_COST 30
#define MESSAGE_COST 40
#define MAX_DEPTH 400

struct cel_named_slot {
    bool done, busy;
    struct cel_val v;
};

static struct cel_val over(void)
{
    return (struct cel_val){
        .kind = CEL_ERROR, .s = TH_STR("operation cancelled: actual cost limit exceeded")};
}

/* ---- Names ---- */

static struct cel_val variable(struct cel_eval *e, const char *name, const struct cel_local *locals)
{
    for (; locals; locals = locals->up) {
        if (locals->name && strcmp(locals->name, name) == 0) {
            return locals->v;
        }
    }
    for (size_t i = 0; i < e->n_vars; i++) {
        const struct th_cel_binding *b = &e->vars[i];
        if (strcmp(b->name, name) != 0) {
            continue;
        }
        if (b->optional && !b->present) {
            return cel_none();
        }
        if (b->authorizer) {
            struct cel_authz *z = cel_alloc(&e->a, sizeof(*z));
            *z = (struct cel_authz){.by = b->authorizer};
            if (b->check) {
                z->q = b->authorizer->own;
            }
            return (struct cel_val){.kind = b->check ? CEL_RESOURCE_CHECK : CEL_AUTHORIZER,
                                    .authz = z};
        }
        if (b->named) {
            return (struct cel_val){.kind = CEL_NAMED};
        }
        struct cel_val v = cel_of_json(e, b->value, b->schema, b->resource);
        return b->optional ? cel_some(e, v) : v;
    }
    return cel_error(e, "no such attribute(s): %s", name);
}

/* What stands behind variables.x: evaluated once, with a limit of its own. */
static struct cel_val named_value(struct cel_eval *e, const char *name)
{
    const struct th_cel_binding *b = NULL;
    for (size_t i = 0; i < e->n_vars && !b; i++) {
        b = e->vars[i].named ? &e->vars[i] : NULL;
    }
    size_t at = 0;
    while (b && at < b->n_named && strcmp(b->named[at].name, name) != 0) {
        at++;
    }
    if (!b || at == b->n_named) {
        return cel_error(e, "no such key: %s", name);
    }
    const struct th_cel_named *n = &b->named[at];
    if (!n->prog) {
        return cel_error(e, "composited variable \"%s\" fails to compile: %s", name, n->error);
    }
    if (!e->slots) {
        e->slots = cel_alloc(&e->a, (b->n_named + 1) * sizeof(*e->slots));
    }
    struct cel_named_slot *slot = &e->slots[at];
    if (slot->busy) {
        return cel_error(e, "composited variable \"%s\" refers to itself", name);
    }
    if (!slot->done) {
        uint64_t cost = e->cost, limit = e->limit;
        e->cost = 0;
        e->limit = TH_CEL_PER_CALL_LIMIT;
        slot->busy = true;
        slot->v = cel_eval_node(e, n->prog->root, NULL);
        slot->busy = false;
        slot->done = true;
        e->named_runs++;
        if (slot->v.kind == CEL_ERROR) {
            slot->v = cel_error(e, "composited variable \"%s\" fails to evaluate: %.*s", name,
                                (int)slot->v.s.n, slot->v.s.p);
        }
        e->named_cost += e->cost;
        e->cost = cost;
        e->limit = limit;
        e->over = cost > limit;
    }
    return slot->v;
}

static struct cel_val select_member(struct cel_eval *e, const struct cel_node *n, struct cel_val of)
{
    bool optional = n->opt_select;
    if (of.kind == CEL_OPTIONAL) {
        if (!of.opt) {
            return n->test ? cel_bool(false) : cel_none();
        }
        of = *of.opt;
        optional = true;
    }
    if (of.kind == CEL_ERROR) {
        return of;
    }
    if (of.kind == CEL_NAMED) {
        return n->test ? cel_bool(true) : named_value(e, n->name);
    }
    if (of.kind != CEL_MAP) {
        return n->test && of.kind == CEL_NULL ? cel_bool(false) : cel_error(e, "no such key: %s", n->name);
    }
    struct cel_val v;
    bool there = cel_map_get(e, of.map, cel_text(n->name), &v);
    if (n->test) {
        return cel_bool(there);
    }
    if (optional) {
        return there ? cel_some(e, v) : cel_none();
    }
    return there ? v : cel_error(e, "no such key: %s", n->name);
}

/* ---- Calls ---- */

static bool fits(char want, struct cel_val v)
{
    static const char letters[] = "nbiudsytDUQICFVapgrxT[{?";
    static const enum cel_kind of[] = {
        CEL_NULL,      CEL_BOOL,       CEL_INT,         CEL_UINT,           CEL_DOUBLE,
        CEL_STRING,    CEL_BYTES,      CEL_TIMESTAMP,   CEL_DURATION,       CEL_URL,
        CEL_QUANTITY,  CEL_IP,         CEL_CIDR,        CEL_FORMAT,         CEL_SEMVER,
        CEL_AUTHORIZER, CEL_PATH_CHECK, CEL_GROUP_CHECK, CEL_RESOURCE_CHECK, CEL_DECISION,
        CEL_TYPE,      CEL_LIST,       CEL_MAP,         CEL_OPTIONAL};
    if (want == '*' || want == 'A' || want == 'B') {
        return true;
    }
    const char *at = strchr(letters, want);
    return at && want && of[at - letters] == v.kind;
}

/* Behind one type of a signature. */
static const char *skip_type(const char *s)
{
    int depth = 0;
    do {
        depth += *s == '[' || *s == '{';
        depth -= *s == ']' || *s == '}';
        if (*s == '?' && depth == 0) {
            return skip_type(s + 1);
        }
        s++;
    } while (depth > 0);
    return s;
}

static bool overload_fits(const struct cel_fn *f, const struct cel_val *args, size_t n)
{
    const char *s = strchr(f->sig, ':') + 1;
    size_t i = 0;
    for (; *s != '>'; i++) {
        if (i >= n || !fits(*s, args[i])) {
            return false;
        }
        s = skip_type(s);
    }
    return i == n;
}

static struct cel_val logical(struct cel_eval *e, const struct cel_node *n,
                              const struct cel_local *locals, bool decides)
{
    struct cel_val a = cel_eval_node(e, n->args[0], locals);
    if (a.kind == CEL_BOOL && a.b == decides) {
        return a;
    }
    struct cel_val b = cel_eval_node(e, n->args[1], locals);
    if (b.kind == CEL_BOOL && b.b == decides) {
        return b;
    }
    if (a.kind == CEL_BOOL && b.kind == CEL_BOOL) {
        return cel_bool(!decides);
    }
    return a.kind == CEL_ERROR ? a : b.kind == CEL_ERROR ? b : cel_no_overload();
}

static struct cel_val conditional(struct cel_eval *e, const struct cel_node *n,
                                  const struct cel_local *locals)
{
    struct cel_val c = cel_eval_node(e, n->args[0], locals);
    if (c.kind != CEL_BOOL) {
        return c.kind == CEL_ERROR ? c : cel_no_overload();
    }
    return cel_eval_node(e, n->args[c.b ? 1 : 2], locals);
}

static uint64_t size_cost(struct cel_val v)
{
    return v.kind == CEL_STRING || v.kind == CEL_BYTES ? cel_text_cost(v.s.n)
           : v.kind == CEL_LIST                         ? cel_list_len(v.list)
           : v.kind == CEL_MAP                          ? cel_map_len(v.map)
                                                        : 1;
}

static struct cel_val equality(struct cel_eval *e, const struct cel_node *n,
                               const struct cel_local *locals, bool want)
{
    struct cel_val a = cel_eval_node(e, n->args[0], locals);
    struct cel_val b = cel_eval_node(e, n->args[1], locals);
    if (a.kind == CEL_ERROR || b.kind == CEL_ERROR) {
        return a.kind == CEL_ERROR ? a : b;
    }
    uint64_t x = size_cost(a), y = size_cost(b);
    if (!cel_charge(e, x < y ? (x ? x : 1) : (y ? y : 1))) {
        return over();
    }
    int r = cel_equal(e, a, b);
    return r < 0 ? cel_no_overload() : cel_bool((r == 1) == want);
}

static struct cel_val call(struct cel_eval *e, const struct cel_node *n,
                           const struct cel_local *locals)
{
    if (!n->target && n->name[0] == '_') {
        if (strcmp(n->name, "_&&_") == 0 || strcmp(n->name, "_||_") == 0) {
            return logical(e, n, locals, n->name[1] == '|');
        }
        if (strcmp(n->name, "_?_:_") == 0) {
            return conditional(e, n, locals);
        }
        if (strcmp(n->name, "_==_") == 0 || strcmp(n->name, "_!=_") == 0) {
            return equality(e, n, locals, n->name[1] == '=');
        }
    }
    size_t n_args = n->n_args + (n->target ? 1 : 0);
    struct cel_val *args = cel_alloc(&e->a, (n_args + 1) * sizeof(*args));
    for (size_t i = 0; i < n_args; i++) {
        const struct cel_node *arg = n->target ? (i ? n->args[i - 1] : n->target) : n->args[i];
        args[i] = cel_eval_node(e, arg, locals);
        if (args[i].kind == CEL_ERROR) {
            return args[i];
        }
    }
    if (!cel_charge(e, 1)) {
        return over();
    }
    for (size_t i = 0; i < n->n_fns; i++) {
        if (overload_fits(n->fns[i], args, n_args)) {
            return n->fns[i]->call(e, args, n_args);
        }
    }
    return cel_no_overload();
}

/* ---- Literals ---- */

static struct cel_val list_literal(struct cel_eval *e, const struct cel_node *n,
                                   const struct cel_local *locals)
{
    struct cel_val *v = cel_alloc(&e->a, (n->n_args + 1) * sizeof(*v));
    size_t k = 0;
    for (size_t i = 0; i < n->n_args; i++) {
        struct cel_val x = cel_eval_node(e, n->args[i], locals);
        if (x.kind == CEL_ERROR) {
            return x;
        }
        if (n->optional && n->optional[i]) {
            if (x.kind != CEL_OPTIONAL) {
                return cel_no_overload();
            }
            if (!x.opt) {
                continue;
            }
            x = *x.opt;
        }
        v[k++] = x;
    }
    return cel_charge(e, LIST_COST) ? cel_make_list(e, v, k) : over();
}

static bool key_kind(struct cel_val k)
{
    return k.kind == CEL_STRING || k.kind == CEL_INT || k.kind == CEL_UINT || k.kind == CEL_BOOL ||
           k.kind == CEL_DOUBLE;
}

static struct cel_val map_literal(struct cel_eval *e, const struct cel_node *n,
                                  const struct cel_local *locals)
{
    struct cel_val *keys = cel_alloc(&e->a, (n->n_args / 2 + 1) * sizeof(*keys));
    struct cel_val *vals = cel_alloc(&e->a, (n->n_args / 2 + 1) * sizeof(*vals));
    size_t k = 0;
    for (size_t i = 0; i < n->n_args; i += 2) {
        struct cel_val key = cel_eval_node(e, n->args[i], locals);
        struct cel_val val = cel_eval_node(e, n->args[i + 1], locals);
        if (key.kind == CEL_ERROR || val.kind == CEL_ERROR) {
            return key.kind == CEL_ERROR ? key : val;
        }
        if (!key_kind(key)) {
            return cel_error(e, "unsupported key type: %s", cel_type_name(key));
        }
        if (n->optional && n->optional[i]) {
            if (val.kind != CEL_OPTIONAL) {
                return cel_no_overload();
            }
            if (!val.opt) {
                continue;
            }
            val = *val.opt;
        }
        for (size_t j = 0; j < k; j++) {
            if (cel_equal(e, keys[j], key) == 1) {
                th_autobuf struct th_buf b = TH_BUF_INIT;
                cel_print(e, key, &b);
                return cel_error(e, "Failed with repeated key: %s", th_buf_cstr(&b));
            }
        }
        keys[k] = key;
        vals[k++] = val;
    }
    return cel_charge(e, MAP_COST) ? cel_make_map(e, keys, vals, k) : over();
}

/* Object{...}: a map that knows its name. */
static struct cel_val message_literal(struct cel_eval *e, const struct cel_node *n,
                                      const struct cel_local *locals)
{
    struct cel_val *keys = cel_alloc(&e->a, (n->n_args + 1) * sizeof(*keys));
    struct cel_val *vals = cel_alloc(&e->a, (n->n_args + 1) * sizeof(*vals));
    size_t k = 0;
    for (size_t i = 0; i < n->n_args; i++) {
        struct cel_val v = cel_eval_node(e, n->args[i], locals);
        if (v.kind == CEL_ERROR) {
            return v;
        }
        if (n->optional && n->optional[i]) {
            if (v.kind != CEL_OPTIONAL) {
                return cel_no_overload();
            }
            if (!v.opt) {
                continue;
            }
            v = *v.opt;
        }
        keys[k] = cel_text(n->fields[i]);
        vals[k++] = v;
    }
    if (!cel_charge(e, MESSAGE_COST)) {
        return over();
    }
    struct cel_map *m = cel_alloc(&e->a, sizeof(*m));
    *m = (struct cel_map){.keys = keys, .vals = vals, .n = k, .type_name = n->name};
    return (struct cel_val){.kind = CEL_MAP, .map = m};
}

/* The names of message types below a value against the places where they stand; what is wrong goes
 * to b, a line each. */
static void check_names(struct cel_val v, const char *path, struct th_buf *b)
{
    if (v.kind == CEL_LIST && v.list->v) {
        for (size_t i = 0; i < v.list->n; i++) {
            check_names(v.list->v[i], path, b);
        }
    }
    if (v.kind != CEL_MAP || v.map->json) {
        return;
    }
    const char *name = v.map->type_name;
    if (name && strcmp(name, path) != 0) {
        th_buf_printf(b, "%sunexpected type name \"%s\", expected \"%s\", which matches field name "
                         "path from root Object type",
                      b->n ? "\n" : "", name, path);
    }
    for (size_t i = 0; i < v.map->n; i++) {
        th_autofree char *at = name ? th_xasprintf("%s.%.*s", path, (int)v.map->keys[i].s.n,
                                                   v.map->keys[i].s.p)
                                    : th_xstrdup(path);
        check_names(v.map->vals[i], at, b);
    }
}

/* The same for a whole result: an Object, or the values of a list of patches. */
static void check_result(struct cel_eval *e, struct cel_val v, struct th_buf *b)
{
    if (v.kind == CEL_MAP && v.map->type_name) {
        check_names(v, v.map->type_name, b);
    }
    for (size_t i = 0; v.kind == CEL_LIST && i < cel_list_len(v.list); i++) {
        struct cel_val op = cel_list_at(e, v.list, i), val;
        if (op.kind == CEL_MAP && cel_map_get(e, op.map, cel_text("value"), &val) &&
            val.kind == CEL_MAP && val.map->type_name) {
            check_names(val, val.map->type_name, b);
        }
    }
}

/* ---- Macros ---- */

struct fold {
    struct cel_eval *e;
    const struct cel_node *n;
    struct cel_val *keys, *vals; /* what is built */
    size_t k;
    size_t found;
    struct cel_val error;  /* first one that may be passed over */
    bool has_error;
};

/* One element: true to go on, false with *ret set. */
static bool fold_step(struct fold *f, struct cel_val one, struct cel_val two,
                      const struct cel_local *outer, struct cel_val *ret)
{
    const struct cel_node *n = f->n;
    struct cel_eval *e = f->e;
    struct cel_local l1 = {outer, n->name, one}, l2 = {&l1, n->name2, two};
    const struct cel_local *locals = n->name2 ? &l2 : &l1;
    if (n->filter) {
        struct cel_val v = cel_eval_node(e, n->filter, locals);
        if (v.kind != CEL_BOOL) {
            *ret = v.kind == CEL_ERROR ? v : cel_no_overload();
            return false;
        }
        if (!v.b) {
            return true;
        }
    }
    struct cel_val v = cel_eval_node(e, n->step, locals);
    if (n->fold == FOLD_SORT_BY && v.kind != CEL_ERROR) {
        if (!cel_charge(e, LIST_COST + 2)) {
            *ret = over();
            return false;
        }
        f->vals[f->k] = one;
        f->keys[f->k++] = v;
        return true;
    }
    bool builds = n->fold == FOLD_MAP || n->fold == FOLD_FILTER || n->fold >= FOLD_TRANSFORM_LIST;
    if (!cel_charge(e, builds ? LIST_COST + 2 : 3)) {
        *ret = over();
        return false;
    }
    bool lenient = n->fold == FOLD_ALL || n->fold == FOLD_EXISTS;
    if (v.kind == CEL_ERROR || (!builds && v.kind != CEL_BOOL) ||
        (n->fold == FOLD_FILTER && v.kind != CEL_BOOL)) {
        struct cel_val err = v.kind == CEL_ERROR ? v : cel_no_overload();
        if (!lenient || e->over) {
            *ret = err;
            return false;
        }
        f->error = f->has_error ? f->error : err;
        f->has_error = true;
        return true;
    }
    switch (n->fold) {
    case FOLD_ALL:
    case FOLD_EXISTS:
        if (v.b == (n->fold == FOLD_EXISTS)) {
            *ret = v;
            return false;
        }
        return true;
    case FOLD_EXISTS_ONE:
        f->found += v.b;
        return true;
    case FOLD_FILTER:
        if (v.b) {
            f->vals[f->k++] = one;
        }
        return true;
    case FOLD_TRANSFORM_MAP:
        f->keys[f->k] = one;
        f->vals[f->k++] = v;
        return true;
    case FOLD_TRANSFORM_ENTRY: {
        size_t m = 0;
        struct cel_val *keys = v.kind == CEL_MAP ? cel_map_keys(e, v.map, &m) : NULL;
        if (m != 1) {
            *ret = v.kind == CEL_MAP && m == 0 ? v : cel_no_overload();
            return v.kind == CEL_MAP && m == 0;
        }
        for (size_t i = 0; i < f->k; i++) {
            if (cel_equal(e, f->keys[i], keys[0]) == 1) {
                th_autobuf struct th_buf b = TH_BUF_INIT;
                cel_print(e, keys[0], &b);
                *ret = cel_error(e, "insert failed: key %s already exists", th_buf_cstr(&b));
                return false;
            }
        }
        f->keys[f->k] = keys[0];
        (void)cel_map_get(e, v.map, keys[0], &f->vals[f->k]);
        f->k++;
        return true;
    }
    default:
        f->vals[f->k++] = v;
        return true;
    }
}

static struct cel_val fold_optional(struct cel_eval *e, const struct cel_node *n,
                                    const struct cel_local *locals, struct cel_val of)
{
    if (of.kind != CEL_OPTIONAL) {
        return of.kind == CEL_ERROR ? of : cel_no_overload();
    }
    if (!of.opt) {
        return cel_none();
    }
    struct cel_local l = {locals, n->name, *of.opt};
    struct cel_val v = cel_eval_node(e, n->step, &l);
    return v.kind == CEL_ERROR || n->fold == FOLD_OPT_FLAT_MAP ? v : cel_some(e, v);
}

struct sorted {
    struct cel_val key, v;
    size_t at; /* equal keys keep their order */
};

static int by_key(const void *pa, const void *pb)
{
    const struct sorted *a = pa, *b = pb;
    int c = cel_compare(a->key, b->key);
    return c ? c : a->at < b->at ? -1 : a->at > b->at;
}

static struct cel_val sort_by(struct cel_eval *e, const struct fold *f)
{
    struct sorted *v = cel_alloc(&e->a, (f->k + 1) * sizeof(*v));
    for (size_t i = 0; i < f->k; i++) {
        if (cel_compare(f->keys[i], f->keys[i]) == 3) {
            return cel_error(e, "list elements must be comparable");
        }
        if (f->keys[i].kind != f->keys[0].kind) {
            return cel_error(e, "list elements must have the same type");
        }
        v[i] = (struct sorted){f->keys[i], f->vals[i], i};
    }
    if (!cel_charge(e, f->k)) {
        return over();
    }
    if (f->k > 1) {
        qsort(v, f->k, sizeof(*v), by_key);
    }
    for (size_t i = 0; i < f->k; i++) {
        f->vals[i] = v[i].v;
    }
    return cel_make_list(e, f->vals, f->k);
}

static struct cel_val fold(struct cel_eval *e, const struct cel_node *n,
                           const struct cel_local *locals)
{
    struct cel_val of = cel_eval_node(e, n->target, locals);
    if (n->fold == FOLD_OPT_MAP || n->fold == FOLD_OPT_FLAT_MAP) {
        return fold_optional(e, n, locals, of);
    }
    if (of.kind != CEL_LIST && of.kind != CEL_MAP) {
        return of.kind == CEL_ERROR ? of : cel_no_overload();
    }
    bool list = of.kind == CEL_LIST;
    size_t len = 0;
    struct cel_val *keys = list ? NULL : cel_map_keys(e, of.map, &len);
    len = list ? cel_list_len(of.list) : len;
    struct fold f = {.e = e, .n = n};
    f.keys = cel_alloc(&e->a, (len + 1) * sizeof(struct cel_val));
    f.vals = cel_alloc(&e->a, (len + 1) * sizeof(struct cel_val));
    struct cel_val ret;
    for (size_t i = 0; i < len; i++) {
        struct cel_val one = list ? (n->name2 ? cel_int((int64_t)i) : cel_list_at(e, of.list, i))
                                  : keys[i];
        struct cel_val two = {.kind = CEL_NULL};
        if (n->name2 && list) {
            two = cel_list_at(e, of.list, i);
        } else if (n->name2) {
            (void)cel_map_get(e, of.map, keys[i], &two);
        }
        if (!fold_step(&f, one, two, locals, &ret)) {
            return ret;
        }
    }
    if (f.has_error) {
        return f.error;
    }
    switch (n->fold) {
    case FOLD_ALL:
        return cel_bool(true);
    case FOLD_EXISTS:
        return cel_bool(false);
    case FOLD_EXISTS_ONE:
        return cel_bool(f.found == 1);
    case FOLD_SORT_BY:
        return sort_by(e, &f);
    case FOLD_TRANSFORM_MAP:
    case FOLD_TRANSFORM_ENTRY:
        return cel_make_map(e, f.keys, f.vals, f.k);
    default:
        return cel_make_list(e, f.vals, f.k);
    }
}

/* ---- */

struct cel_val cel_eval_node(struct cel_eval *e, const struct cel_node *n,
                             const struct cel_local *locals)
{
    if (e->over) {
        return over();
    }
    if (++e->depth > MAX_DEPTH) {
        e->depth--;
        return cel_error(e, "expression nests too deeply");
    }
    struct cel_val v;
    switch (n->kind) {
    case N_LIT:
        v = n->lit;
        break;
    case N_IDENT:
        v = cel_charge(e, 1) ? variable(e, n->name, n->absolute ? NULL : locals) : over();
        break;
    case N_SELECT:
        v = select_member(e, n, cel_eval_node(e, n->target, locals));
        v = n->test || cel_charge(e, 1) ? v : over();
        break;
    case N_CALL:
        v = call(e, n, locals);
        break;
    case N_LIST:
        v = list_literal(e, n, locals);
        break;
    case N_MAP:
        v = map_literal(e, n, locals);
        break;
    case N_MESSAGE:
        v = message_literal(e, n, locals);
        break;
    default:
        v = fold(e, n, locals);
    }
    e->depth--;
    return e->over ? over() : v;
}

/* ---- Programs ---- */

void th_cel_prog_free(struct th_cel_prog *p)
{
    if (p) {
        cel_arena_done(&p->a);
        free(p->text);
        free(p->issues.v);
        th_strv_done(&p->used);
        free(p);
    }
}

bool th_cel_prog_uses(const struct th_cel_prog *p, const char *var)
{
    return th_strv_has(&p->used, var);
}

/* "ERROR: <input>:1:6: message\n | source\n | .....^" for each issue. */
static int fail_issues(const struct th_cel_prog *p, struct th_err *err)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    for (size_t i = 0; i < p->issues.n; i++) {
        const struct cel_issue *is = &p->issues.v[i];
        const char *line = p->text, *at = p->text + is->pos;
        int row = 1;
        for (const char *q = p->text; q < at; q++) {
            if (*q == '\n') {
                line = q + 1;
                row++;
            }
        }
        size_t col = cel_runes((struct th_str){line, (size_t)(at - line)});
        th_buf_printf(&b, "%sERROR: <input>:%d:%zu: %s\n | %.*s\n | ", i ? "\n" : "", row, col + 1,
                      is->msg, (int)strcspn(line, "\n"), line);
        for (size_t k = 0; k < col; k++) {
            th_buf_putc(&b, '.');
        }
        th_buf_putc(&b, '^');
    }
    return th_fail(err, TH_R_INVALID, "%s", th_buf_cstr(&b));
}

static bool result_fits(const struct cel_type *t, enum th_cel_result want)
{
    bool kind = t->t == T_KIND;
    switch (want) {
    case TH_CEL_RESULT_ANY:
        return true;
    case TH_CEL_RESULT_BOOL:
    case TH_CEL_RESULT_IS_BOOL:
        return kind && t->of_kind == CEL_BOOL;
    case TH_CEL_RESULT_STRING:
    case TH_CEL_RESULT_IS_STRING:
        return kind && t->of_kind == CEL_STRING;
    case TH_CEL_RESULT_STRING_OR_NULL:
        return kind && (t->of_kind == CEL_STRING || t->of_kind == CEL_NULL);
    case TH_CEL_RESULT_OBJECT:
        return cel_type_is_message(t, "Object");
    default:
        return t->t == T_LIST && cel_type_is_message(t->a, "JSONPatch");
    }
}

int th_cel_compile(const char *text, const struct th_cel_var_type *vars, size_t n_vars,
                   enum th_cel_result want, struct th_cel_prog **ret, struct th_err *err)
{
    static const char *const wanted[] = {
        [TH_CEL_RESULT_BOOL] = "a bool",
        [TH_CEL_RESULT_STRING] = "a string",
        [TH_CEL_RESULT_IS_BOOL] = "bool",
        [TH_CEL_RESULT_IS_STRING] = "string",
        [TH_CEL_RESULT_STRING_OR_NULL] = "one of [string null_type]",
        [TH_CEL_RESULT_OBJECT] = "Object",
        [TH_CEL_RESULT_PATCHES] = "list(JSONPatch)",
    };
    bool plain = want < TH_CEL_RESULT_IS_BOOL;
    if (strlen(text) > TH_LIMIT_CEL_B) {
        return th_fail(err, TH_R_INVALID, "expression code point size exceeds limit: size: %zu, "
                                          "limit %u",
                       strlen(text), TH_LIMIT_CEL_B);
    }
    TH_AUTO(th_cel_prog) struct th_cel_prog *p = TH_NEW(struct th_cel_prog);
    p->text = th_xstrdup(text);
    p->messages = p->checks_names = want >= TH_CEL_RESULT_OBJECT;
    p->root = cel_parse(p);
    if (!p->root || cel_check(p, vars, n_vars, &p->type) < 0) {
        return fail_issues(p, err);
    }
    if (!result_fits(p->type, want)) {
        th_autobuf struct th_buf got = TH_BUF_INIT;
        cel_print_type(p->type, true, &got);
        return th_fail(err, TH_R_INVALID, "must evaluate to %s%s%s", wanted[want],
                       plain ? "" : " but got ", plain ? "" : th_buf_cstr(&got));
    }
    *ret = th_steal(&p);
    return 0;
}

/* ---- Running ---- */

struct th_cel_session {
    struct cel_eval e;
};

struct th_cel_session *th_cel_session_new(const struct th_cel_binding *vars, size_t n_vars,
                                          int64_t now_ms)
{
    struct th_cel_session *s = TH_NEW(struct th_cel_session);
    s->e = (struct cel_eval){.vars = vars, .n_vars = n_vars, .now_ms = now_ms};
    return s;
}

void th_cel_session_free(struct th_cel_session *s)
{
    if (s) {
        cel_arena_done(&s->e.a);
        free(s);
    }
}

static int run(struct cel_eval *e, const struct th_cel_prog *p, uint64_t cost_limit,
               enum th_cel_outcome *ret, uint64_t *ret_cost, char **ret_text,
               struct th_json **ret_json, struct th_err *err)
{
    e->prog = p;
    e->cost = e->named_cost = 0;
    e->limit = cost_limit;
    e->over = false;
    e->depth = 0;
    struct cel_val v = cel_eval_node(e, p->root, NULL);
    *ret_cost = e->cost + e->named_cost;
    if (v.kind == CEL_ERROR) {
        return th_fail(err, TH_R_BAD_REQUEST, "%.*s", (int)v.s.n, v.s.p);
    }
    if (p->checks_names) {
        th_autobuf struct th_buf b = TH_BUF_INIT;
        check_result(e, v, &b);
        if (b.n) {
            return th_fail(err, TH_R_INVALID, "type mismatch: %s", th_buf_cstr(&b));
        }
    }
    *ret = v.kind == CEL_BOOL     ? (v.b ? TH_CEL_TRUE : TH_CEL_FALSE)
           : v.kind == CEL_STRING ? TH_CEL_TEXT
                                  : TH_CEL_OTHER;
    if (ret_text && v.kind == CEL_STRING) {
        *ret_text = th_xstrndup(v.s.p, v.s.n);
    }
    if (ret_json) {
        *ret_json = cel_to_json(&v, e);
    }
    return 0;
}

int th_cel_session_eval(struct th_cel_session *s, const struct th_cel_prog *p, uint64_t cost_limit,
                        enum th_cel_outcome *ret, uint64_t *ret_cost, char **ret_text,
                        struct th_json **ret_json, struct th_err *err)
{
    struct cel_mark before = cel_arena_mark(&s->e.a);
    size_t named = s->e.named_runs;
    int r = run(&s->e, p, cost_limit, ret, ret_cost, ret_text, ret_json, err);
    if (s->e.named_runs == named) { /* nothing that stays was made */
        cel_arena_release(&s->e.a, before);
    }
    return r;
}

int th_cel_eval(const struct th_cel_prog *p, const struct th_cel_binding *vars, size_t n_vars,
                uint64_t cost_limit, int64_t now_ms, enum th_cel_outcome *ret, uint64_t *ret_cost,
                char **ret_text, struct th_json **ret_json, struct th_err *err)
{
    struct cel_eval e = {.vars = vars, .n_vars = n_vars, .now_ms = now_ms};
    int r = run(&e, p, cost_limit, ret, ret_cost, ret_text, ret_json, err);
    cel_arena_done(&e.a);
    return r;
}
