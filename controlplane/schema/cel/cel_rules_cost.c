/*
 * Whether a definition's validation rules could cost too much.
 *
 * A rule is evaluated once for each place where its schema node stands: as often as maxItems and
 * maxProperties on the way allow, or, where one of them is missing, as often as the smallest such
 * value fits into a request. One rule has a limit, and so have all rules of a version together.
 */
#include "controlplane/schema/cel/cel_rules.h"

#include "controlplane/schema/validate.h"

#define RULE_LIMIT 10e6
#define TOTAL_LIMIT 100e6
#define MANY (TOTAL_LIMIT / 100) /* from here on a rule is named when the total is too much */
#define N_NAMED 4

struct named {
    char *path;
    double cost;
};
struct total {
    double cost;
    struct named worst[N_NAMED]; /* the costliest first */
    struct th_err *err;
};

static void complain(struct th_err *err, const char *path, const char *what, double cost,
                     double limit)
{
    double factor = cost / limit;
    th_autofree char *times = factor > 100   ? th_xstrdup("more than 100x")
                              : factor < 1.5 ? th_xasprintf("%fx", factor)
                                             : th_xasprintf("%.1fx", factor);
    th_autofree char *msg =
        th_xasprintf("%s exceeds budget by factor of %s (try simplifying the rule, or adding "
                     "maxItems, maxProperties, and maxLength where arrays, maps, and strings are "
                     "declared)",
                     what, times);
    th_invalid_forbidden(err, path, msg);
}

static void count(struct total *t, const char *path, double cost)
{
    t->cost += cost;
    if (cost < MANY) {
        return;
    }
    struct named n = {th_xstrdup(path), cost};
    for (size_t i = 0; i < N_NAMED; i++) {
        if (!t->worst[i].path || t->worst[i].cost < n.cost) {
            struct named moved = t->worst[i];
            t->worst[i] = n;
            n = moved;
        }
    }
    free(n.path);
}

/* places: how often the node may stand in one object; negative when nothing bounds it. */
static void check_rule(struct total *t, const struct th_structural *s, const struct th_cel_rule *r,
                       const char *path, double places)
{
    if (!r->prog) {
        return;
    }
    const struct th_cel_var_type vars[] = {
        {.name = "self", .kind = TH_CEL_VAR_SCHEMA, .schema = s},
        {.name = "oldSelf", .kind = TH_CEL_VAR_SCHEMA, .schema = s},
    };
    th_autofree char *at = th_field_child(path, "rule");
    double cost = th_cel_max_cost(r->prog, vars, 2) * (places < 0 ? th_cel_max_places(s) : places);
    if (cost > RULE_LIMIT) {
        complain(t->err, at, "estimated rule cost", cost, RULE_LIMIT);
    }
    count(t, at, cost);
    if (r->message_prog) {
        th_autofree char *expr_at = th_field_child(path, "messageExpression");
        cost = th_cel_max_cost(r->message_prog, vars, 2);
        if (cost > RULE_LIMIT) {
            complain(t->err, expr_at, "estimated messageExpression cost", cost, RULE_LIMIT);
        }
        count(t, expr_at, cost);
    }
}

static double times(double places, int64_t max)
{
    return places < 0 || max < 0 ? -1 : places * (double)max;
}

static void check_node(struct total *t, const struct th_structural *s, const char *path,
                       double places)
{
    if (!s || !(s->flags & TH_SF_HAS_RULES)) {
        return;
    }
    for (size_t i = 0; i < s->n_props; i++) {
        th_autofree char *props = th_field_child(path, "properties");
        th_autofree char *at = th_field_key(props, s->props[i].name);
        check_node(t, s->props[i].s, at, places);
    }
    if (s->additional) {
        th_autofree char *at = th_field_child(path, "additionalProperties");
        check_node(t, s->additional, at, times(places, s->max_props));
    }
    if (s->items) {
        th_autofree char *at = th_field_child(path, "items");
        check_node(t, s->items, at, times(places, s->max_items));
    }
    for (size_t i = 0; i < s->n_rules; i++) {
        th_autofree char *at = th_field_path("%s.x-kubernetes-validations[%zu]", path, i);
        check_rule(t, s, &s->rules[i], at, places);
    }
}

void th_cel_rules_check_cost(const struct th_structural *root, const char *path,
                             struct th_err *err)
{
    struct total t = {.err = err};
    check_node(&t, root, path, 1);
    for (size_t i = 0; i < N_NAMED; i++) {
        if (t.cost > TOTAL_LIMIT && t.worst[i].path) {
            th_invalid_forbidden(err, t.worst[i].path,
                                 "contributed to estimated rule cost total exceeding cost limit "
                                 "for entire OpenAPIv3 schema");
        }
        free(t.worst[i].path);
    }
    if (t.cost > TOTAL_LIMIT) {
        complain(err, path,
                 "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema",
                 t.cost, TOTAL_LIMIT);
    }
}
