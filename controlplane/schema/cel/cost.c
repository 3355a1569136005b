/*
 * What an expression may cost at most, before it ever runs.
 *
 * Costs are counted as the evaluator counts them, with every list, map and text as large as its
 * schema allows; what the schema does not bound is as large as a request may be. A definition whose
 * rules could cost too much is refused when it is written (cel_rules.c), so that its objects are not
 * refused later.
 *
 * Numbers are doubles: products of sizes soon leave 64 bits, and only their order of magnitude counts.
 */
#include "controlplane/schema/cel/cel_priv.h"

#include <math.h>

#define MAX_REQUEST_B (3.0 * 1024 * 1024)
#define UNKNOWN_SIZE 100.0 /* of results of functions that nothing is said about */
#define MAX_NAME 253.0     /* metadata.name */
#define MIN_STRING 2.0
#define MIN_BOOL 4.0
#define MIN_DATE 12.0
#define MIN_DATE_TIME 21.0
#define MIN_DURATION 3.0
#define MAX_DURATION 32.0
#define LIST_COST 10.0
#define MAP_COST 30.0
#define TEXT_FACTOR 0.1
#define REGEX_FACTOR 0.25
#define FORMAT_COST 32.0 /* of matching a named format's pattern, for a tenth of a text */

/* ---- Schemas ---- */

static double min_bytes(const struct th_structural *s)
{
    if (!s) {
        return 1;
    }
    if (s->flags & TH_SF_INTORSTR) {
        return 1;
    }
    const char *f = s->format;
    double sum = 2;
    switch (s->type) {
    case TH_ST_STRING:
        return th_streq(f, "duration")    ? MIN_DURATION
               : th_streq(f, "date")      ? MIN_DATE
               : th_streq(f, "date-time") ? MIN_DATE_TIME
                                          : MIN_STRING;
    case TH_ST_BOOLEAN:
        return MIN_BOOL;
    case TH_ST_ARRAY:
        return 2;
    case TH_ST_OBJECT:
        for (size_t i = 0; i < s->required.n; i++) {
            const struct th_structural *p = th_structural_prop(s, s->required.v[i]);
            if (p && !p->dflt) {
                sum += (double)strlen(s->required.v[i]) + min_bytes(p) + 4;
            }
        }
        return sum;
    default:
        return 1;
    }
}

static double longest_enum(const struct th_structural *s)
{
    double max = 0;
    for (size_t i = 0; i < th_json_len(s->enums); i++) {
        const char *v = th_json_str(th_json_at(s->enums, i));
        double n = v ? (double)strlen(v) : 0;
        max = n > max ? n : max;
    }
    return max;
}

/* The most elements, members or bytes that a value of the schema has. */
static double max_size(const struct th_structural *s)
{
    bool intorstr = (s->flags & TH_SF_INTORSTR) != 0;
    if (s->type == TH_ST_STRING || intorstr) {
        if (s->enums && !intorstr) {
            return longest_enum(s);
        }
        if (s->max_length >= 0) {
            return 4.0 * (double)s->max_length; /* characters to bytes */
        }
        return th_streq(s->format, "duration") || th_streq(s->format, "date-time") ? MAX_DURATION
               : th_streq(s->format, "date")                                       ? MIN_DATE
                                                                                   : MAX_REQUEST_B - 2;
    }
    if (s->type == TH_ST_ARRAY) {
        return s->max_items >= 0 ? (double)s->max_items
                                 : (MAX_REQUEST_B - 2) / (min_bytes(s->items) + 1);
    }
    if (s->type == TH_ST_OBJECT && s->additional && s->n_props == 0) {
        return s->max_props >= 0 ? (double)s->max_props
                                 : (MAX_REQUEST_B - 2) / (min_bytes(s->additional) + 6);
    }
    return 1;
}

/* ---- Expressions ---- */

/* What is known of a value. */
struct view {
    const struct th_structural *s; /* or NULL */
    bool sized;
    double size;
    const struct view *elem; /* of lists that the expression made; or NULL */
    bool text;               /* of unknown size otherwise */
};
struct est {
    double cost; /* at most */
    struct view v;
};
struct local {
    const struct local *up;
    const char *name;
    struct view v;
};
struct coster {
    struct cel_arena a;
    const struct th_cel_var_type *vars;
    size_t n_vars;
};

static struct est estimate(struct coster *c, const struct cel_node *n, const struct local *locals);

static double size_of(const struct view *v)
{
    return v->sized ? v->size : v->s ? max_size(v->s) : v->text ? UNKNOWN_SIZE : 1;
}

static struct view of_size(double n)
{
    return (struct view){.sized = true, .size = n};
}

static struct view of_schema(const struct th_structural *s)
{
    return (struct view){.s = s};
}

static double scaled(double n, double factor)
{
    return ceil(n * factor);
}

static struct view elem_of(const struct view *v)
{
    if (v->elem) {
        return *v->elem;
    }
    if (v->s) {
        const struct th_structural *sub = v->s->items ? v->s->items : v->s->additional;
        return sub ? of_schema(sub) : (struct view){.text = true};
    }
    return (struct view){.text = true};
}

static const struct view *kept(struct coster *c, struct view v)
{
    struct view *p = cel_alloc(&c->a, sizeof(*p));
    *p = v;
    return p;
}

static struct view member_view(const struct view *of, const char *name)
{
    for (size_t i = 0; of->s && i < of->s->n_props; i++) {
        th_autobuf struct th_buf b = TH_BUF_INIT;
        if (cel_escape(of->s->props[i].name, &b) && th_streq(th_buf_cstr(&b), name)) {
            return of_schema(of->s->props[i].s);
        }
    }
    if (of->s && of->s->n_props == 0 && of->s->additional) {
        return of_schema(of->s->additional);
    }
    return of_size(MAX_NAME);
}

static struct est of_ident(const struct coster *c, const struct cel_node *n,
                           const struct local *locals)
{
    for (; locals && !n->absolute; locals = locals->up) {
        if (locals->name && strcmp(locals->name, n->name) == 0) {
            return (struct est){.cost = 1, .v = locals->v};
        }
    }
    for (size_t i = 0; i < c->n_vars; i++) {
        if (strcmp(c->vars[i].name, n->name) == 0) {
            return (struct est){.cost = 1, .v = of_schema(c->vars[i].schema)};
        }
    }
    return (struct est){.cost = 1, .v = {.text = true}};
}

static bool one_of(const char *name, const char *list)
{
    size_t n = strlen(name);
    for (const char *at = list; (at = strstr(at, name)); at += n) {
        if ((at == list || at[-1] == ' ') && (at[n] == ' ' || at[n] == '\0')) {
            return true;
        }
    }
    return false;
}

static bool is_kind(const struct cel_node *n, enum cel_kind kind)
{
    return n->type && n->type->t == T_KIND && n->type->of_kind == kind;
}

static bool is_text(const struct cel_node *n)
{
    return is_kind(n, CEL_STRING) || is_kind(n, CEL_BYTES);
}

/* Cost of comparing one element of a list with another. */
static double compare_cost(const struct view *list)
{
    struct view e = elem_of(list);
    double n = size_of(&e);
    return n > 1 ? 1 + scaled(n, TEXT_FACTOR) : 1;
}

/* A call of a function with arguments a[0..n), the target among them. */
static struct est call(const struct cel_node *n, const struct cel_node *const *nodes,
                       const struct est *a, size_t n_args)
{
    const char *f = n->name;
    double sum = 0;
    for (size_t i = 0; i < n_args; i++) {
        sum += a[i].cost;
    }
    double s0 = n_args > 0 ? size_of(&a[0].v) : 0, s1 = n_args > 1 ? size_of(&a[1].v) : 0;
    bool text = n_args > 0 && is_text(nodes[0]);
    struct view out = {.text = true};
    double cost = 1;
    if (one_of(f, "_&&_ _||_")) {
        cost = 0;
    } else if (strcmp(f, "_?_:_") == 0) {
        sum = a[0].cost + (a[1].cost > a[2].cost ? a[1].cost : a[2].cost);
        double s2 = size_of(&a[2].v);
        out = s1 >= s2 ? a[1].v : a[2].v;
        cost = 0;
    } else if (one_of(f, "_==_ _!=_ _<_ _<=_ _>_ _>=_")) {
        cost = scaled(s0 < s1 ? s0 : s1, TEXT_FACTOR);
        cost = cost < 1 ? 1 : cost;
    } else if (strcmp(f, "_+_") == 0) {
        cost = text ? scaled(s0 + s1, TEXT_FACTOR) : 1;
        out = of_size(s0 + s1);
        out.elem = a[0].v.elem;
        out.s = a[0].v.s;
    } else if (strcmp(f, "@in") == 0) {
        cost = nodes[1]->type && nodes[1]->type->t == T_LIST ? s1 : 1;
    } else if (one_of(f, "_[_] _[?_]")) {
        out = elem_of(&a[0].v);
    } else if (one_of(f, "startsWith endsWith")) {
        cost = scaled(s1, TEXT_FACTOR);
    } else if (one_of(f, "matches find findAll")) {
        cost = scaled(s0 + 1, TEXT_FACTOR) * scaled(s1, REGEX_FACTOR);
        out = of_size(s0);
    } else if (strcmp(f, "contains") == 0) {
        cost = scaled(s0, TEXT_FACTOR) * scaled(s1, TEXT_FACTOR);
    } else if (one_of(f, "isSorted sum min max indexOf lastIndexOf")) {
        cost = text ? scaled(s0, TEXT_FACTOR) : s0 * compare_cost(&a[0].v);
        out = elem_of(&a[0].v);
    } else if (one_of(f, "sets.contains sets.equivalent sets.intersects")) {
        cost = s0 * s1 * (strcmp(f, "sets.equivalent") == 0 ? 2 : 1);
    } else if (one_of(f, "value or orValue optional.of optional.ofNonZeroValue dyn")) {
        out = n_args ? a[0].v : out;
    } else if (one_of(f, "distinct sort reverse slice flatten")) {
        cost = strcmp(f, "distinct") == 0 ? s0 * s0 : s0;
        out = a[0].v;
    } else if (one_of(f, "join")) {
        struct view e = elem_of(&a[0].v);
        out = of_size(s0 * (size_of(&e) + s1));
        cost = scaled(out.size, TEXT_FACTOR);
    } else if (one_of(f, "split replace ip.isCanonical")) {
        cost = scaled(s0, 2 * TEXT_FACTOR);
        out = of_size(s0);
    } else if (one_of(f, "lowerAscii upperAscii substring trim url strings.quote format isIP isCIDR "
                         "cidr ip quantity isQuantity semver isSemver bytes string") &&
               text) {
        cost = scaled(s0, TEXT_FACTOR);
        out = of_size(s0);
    } else if (strcmp(f, "validate") == 0) {
        cost = scaled(s1, TEXT_FACTOR) * FORMAT_COST;
    }
    return (struct est){.cost = sum + cost, .v = out};
}

static struct est of_call(struct coster *c, const struct cel_node *n, const struct local *locals)
{
    size_t n_args = n->n_args + (n->target ? 1 : 0);
    struct est *a = cel_alloc(&c->a, (n_args + 1) * sizeof(*a));
    const struct cel_node **nodes = cel_alloc(&c->a, (n_args + 1) * sizeof(struct cel_node *));
    for (size_t i = 0; i < n_args; i++) {
        nodes[i] = n->target ? (i ? n->args[i - 1] : n->target) : n->args[i];
        a[i] = estimate(c, nodes[i], locals);
    }
    return call(n, nodes, a, n_args);
}

static struct est of_literal(struct coster *c, const struct cel_node *n, const struct local *locals)
{
    struct est out = {.cost = n->kind == N_MAP ? MAP_COST : LIST_COST};
    double widest = 0;
    for (size_t i = 0; i < n->n_args; i++) {
        struct est e = estimate(c, n->args[i], locals);
        out.cost += e.cost;
        double size = size_of(&e.v);
        widest = size > widest ? size : widest;
    }
    out.v = of_size((double)(n->kind == N_MAP ? n->n_args / 2 : n->n_args));
    out.v.elem = kept(c, of_size(widest));
    return out;
}

static struct est of_message(struct coster *c, const struct cel_node *n, const struct local *locals)
{
    struct est out = {.cost = MAP_COST + LIST_COST, .v = of_size(1)};
    for (size_t i = 0; i < n->n_args; i++) {
        out.cost += estimate(c, n->args[i], locals).cost;
    }
    return out;
}

static struct est of_fold(struct coster *c, const struct cel_node *n, const struct local *locals)
{
    struct est range = estimate(c, n->target, locals);
    bool opt = n->fold == FOLD_OPT_MAP || n->fold == FOLD_OPT_FLAT_MAP;
    const struct cel_type *t = n->target->type;
    bool map = t && t->t == T_MAP;
    struct view elem = opt ? range.v : elem_of(&range.v);
    struct view key = map ? (struct view){.text = true} : of_size(1);
    struct local one = {locals, n->name, n->name2 || map ? key : elem};
    struct local two = {&one, n->name2, elem};
    const struct local *inner = n->name2 ? &two : &one;
    struct est filter = n->filter ? estimate(c, n->filter, inner) : (struct est){.cost = 0};
    struct est step = estimate(c, n->step, inner);
    double each = filter.cost + step.cost, times = size_of(&range.v);
    struct est out = {.cost = range.cost, .v = of_size(times)};
    switch (n->fold) {
    case FOLD_ALL:
        out.cost += times * (each + 3) + 1;
        break;
    case FOLD_EXISTS:
        out.cost += times * (each + 4) + 1;
        break;
    case FOLD_EXISTS_ONE:
        out.cost += times * (each + 2) + 2;
        break;
    case FOLD_OPT_MAP:
    case FOLD_OPT_FLAT_MAP:
        out.cost += each + 2;
        out.v = step.v;
        break;
    case FOLD_FILTER:
        out.cost += times * (each + LIST_COST + 3) + LIST_COST + 1;
        out.v.elem = kept(c, map ? key : elem);
        break;
    default:
        out.cost += times * (each + LIST_COST + 2) + LIST_COST + 1;
        out.v.elem = kept(c, step.v);
    }
    return out;
}

static struct est estimate(struct coster *c, const struct cel_node *n, const struct local *locals)
{
    struct est of;
    switch (n->kind) {
    case N_IDENT:
        return of_ident(c, n, locals);
    case N_SELECT:
        of = estimate(c, n->target, locals);
        return (struct est){.cost = of.cost + (n->test ? 0 : 1), .v = member_view(&of.v, n->name)};
    case N_CALL:
        return of_call(c, n, locals);
    case N_LIST:
    case N_MAP:
        return of_literal(c, n, locals);
    case N_MESSAGE:
        return of_message(c, n, locals);
    case N_FOLD:
        return of_fold(c, n, locals);
    default:
        return (struct est){.cost = 0,
                            .v = of_size(n->lit.kind == CEL_STRING || n->lit.kind == CEL_BYTES
                                             ? (double)n->lit.s.n
                                             : 1)};
    }
}

double th_cel_max_cost(const struct th_cel_prog *p, const struct th_cel_var_type *vars,
                       size_t n_vars)
{
    struct coster c = {.vars = vars, .n_vars = n_vars};
    struct est e = estimate(&c, p->root, NULL);
    cel_arena_done(&c.a);
    return e.cost;
}

double th_cel_max_places(const struct th_structural *s)
{
    return floor(MAX_REQUEST_B / (min_bytes(s) + 1));
}
