/*
 * Validation rules of custom resources.
 *
 * A rule stands at a node of the schema and sees the value there as self, and the value before the
 * update as oldSelf where old and new can be matched: through objects and maps by name, through
 * lists of type map by key, through other lists not at all. A rule that uses oldSelf is skipped when
 * there is none, unless it says optionalOldSelf.
 *
 * Each rule has a cost limit of its own, and all rules of a request share a budget. A rule that is
 * broken on a value that did not change is a warning, not a fault, unless it compares with oldSelf.
 *
 * Rules that do not compile are kept with the reason: a definition that was stored by a newer
 * program fails its objects with that reason, not silently.
 */
#include "controlplane/schema/cel/cel_rules.h"

#include "controlplane/schema/gotext.h"
#include "controlplane/schema/validate.h"

#define MAX_MESSAGE_B 5120

static char *text_of(const struct th_json *o, const char *name)
{
    const char *s = th_json_str(th_json_get(o, name));
    return th_xstrdup(s ? s : "");
}

struct th_cel_rule *th_cel_rules_new(const struct th_json *list, size_t *ret_n)
{
    size_t n = th_json_is(list, TH_JSON_ARRAY) ? th_json_len(list) : 0;
    *ret_n = n;
    struct th_cel_rule *v = n ? th_xcalloc(n, sizeof(*v)) : NULL;
    for (size_t i = 0; i < n; i++) {
        const struct th_json *r = th_json_at(list, i);
        v[i].rule = text_of(r, "rule");
        v[i].message = text_of(r, "message");
        v[i].message_expr = text_of(r, "messageExpression");
        v[i].reason = text_of(r, "reason");
        v[i].field_path = text_of(r, "fieldPath");
        v[i].optional_old = th_json_as_bool(th_json_get(r, "optionalOldSelf"), false);
    }
    return v;
}

void th_cel_rules_free(struct th_cel_rule *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(v[i].rule);
        free(v[i].message);
        free(v[i].message_expr);
        free(v[i].reason);
        free(v[i].field_path);
        free(v[i].error);
        free(v[i].message_error);
        free(v[i].at);
        th_cel_prog_free(v[i].prog);
        th_cel_prog_free(v[i].message_prog);
    }
    free(v);
}

/* ---- Field paths ---- */

/* ".a.b['c d']" along the schema; the caller frees, NULL with *ret_why (static) when it is none. */
static char *field_path(const struct th_structural *s, const char *p, const char **ret_why)
{
    th_autobuf struct th_buf out = TH_BUF_INIT;
    *ret_why = "must be a valid path";
    while (*p) {
        th_autobuf struct th_buf name = TH_BUF_INIT;
        if (*p == '.') {
            size_t n = strcspn(p + 1, ".[");
            th_buf_add(&name, p + 1, n);
            p += n + 1;
        } else if (p[0] == '[' && p[1] == '\'') {
            for (p += 2; *p && *p != '\''; p++) {
                if (*p == '\\' && p[1]) {
                    p++;
                }
                th_buf_putc(&name, *p);
            }
            if (p[0] != '\'' || p[1] != ']') {
                return NULL;
            }
            p += 2;
        } else {
            return NULL;
        }
        if (!s || name.n == 0) {
            return NULL;
        }
        if (s->n_props) {
            s = th_structural_prop(s, th_buf_cstr(&name));
            th_buf_printf(&out, "%s%s", out.n ? "." : "", th_buf_cstr(&name));
        } else {
            s = s->additional;
            th_buf_printf(&out, "[%s]", th_buf_cstr(&name));
        }
        if (!s) {
            return NULL;
        }
    }
    return th_buf_steal(&out, NULL);
}

/* ---- Compiling ---- */

static void compile_rule(struct th_cel_rule *r, const struct th_structural *s, bool resource)
{
    th_autofree char *text = th_go_trim_space(r->rule);
    if (!*text) {
        return;
    }
    const struct th_cel_var_type vars[] = {
        {.name = "self", .kind = TH_CEL_VAR_SCHEMA, .schema = s, .resource = resource},
        {.name = "oldSelf",
         .kind = r->optional_old ? TH_CEL_VAR_OPTIONAL_SCHEMA : TH_CEL_VAR_SCHEMA,
         .schema = s,
         .resource = resource},
    };
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (th_cel_compile(r->rule, vars, 2, TH_CEL_RESULT_BOOL, &r->prog, &err) < 0) {
        r->error = th_startswith(err.msg, "must evaluate")
                       ? th_xasprintf("cel expression %s", err.msg)
                       : th_xasprintf("compilation failed: %s", err.msg);
        return;
    }
    r->uses_old = th_cel_prog_uses(r->prog, "oldSelf");
    if (*r->message_expr) {
        TH_AUTO_ERR struct th_err bad = TH_ERR_INIT;
        if (th_cel_compile(r->message_expr, vars, 2, TH_CEL_RESULT_STRING, &r->message_prog,
                           &bad) < 0) {
            r->message_error =
                th_startswith(bad.msg, "must evaluate")
                    ? th_xasprintf("messageExpression %s", bad.msg)
                    : th_xasprintf("messageExpression compilation failed: %s", bad.msg);
        }
    }
    if (*r->field_path) {
        const char *why;
        r->at = field_path(s, r->field_path, &why);
    }
}

static void compile_node(const struct th_structural *s, bool resource)
{
    if (!s || !(s->flags & TH_SF_HAS_RULES)) {
        return;
    }
    for (size_t i = 0; i < s->n_rules; i++) {
        compile_rule(&s->rules[i], s, resource || (s->flags & TH_SF_EMBEDDED));
    }
    for (size_t i = 0; i < s->n_props; i++) {
        compile_node(s->props[i].s, false);
    }
    compile_node(s->items, false);
    compile_node(s->additional, false);
}

void th_cel_rules_compile(const struct th_structural *root)
{
    compile_node(root, true);
}

/* ---- Checking definitions ---- */

static bool has_newline(const char *s)
{
    return strchr(s, '\n') != NULL;
}

/* A rule as upstream's messages show it. */
static struct th_json *shown(const struct th_cel_rule *r)
{
    struct th_json *o = th_json_build(
        "{'Rule':%s,'Message':%s,'MessageExpression':%s,'Reason':%s,'FieldPath':%s}", r->rule,
        r->message, r->message_expr, *r->reason ? r->reason : NULL, r->field_path);
    th_json_set(o, "OptionalOldSelf", r->optional_old ? th_json_bool(true) : NULL);
    return o;
}

/* What can be said without compiling; false when something is wrong. */
static bool check_texts(const struct th_structural *s, const struct th_cel_rule *r,
                        const char *path, struct th_err *err)
{
    static const char *const reasons[] = {"FieldValueDuplicate", "FieldValueForbidden",
                                          "FieldValueInvalid", "FieldValueRequired", NULL};
    size_t before = err->n_causes;
    th_autofree char *rule = th_go_trim_space(r->rule);
    th_autofree char *message = th_go_trim_space(r->message);
    th_autofree char *expr = th_go_trim_space(r->message_expr);
    th_autofree char *at_path = th_go_trim_space(r->field_path);
    th_autofree char *rule_at = th_field_child(path, "rule");
    th_autofree char *message_at = th_field_child(path, "message");
    th_autofree char *expr_at = th_field_child(path, "messageExpression");
    th_autofree char *reason_at = th_field_child(path, "reason");
    th_autofree char *field_at = th_field_child(path, "fieldPath");
    if (!*rule) {
        th_invalid_required(err, rule_at, "rule is not specified");
    } else if (*r->message && !*message) {
        th_invalid_str(err, message_at, r->message, "must be non-empty if specified");
    } else if (has_newline(message)) {
        th_invalid_str(err, message_at, r->message, "must not contain line breaks");
    } else if (has_newline(rule) && !*message) {
        th_invalid_required(err, message_at,
                            "message must be specified if rule contains line breaks");
    }
    if (*r->message_expr && !*expr) {
        th_invalid_required(err, expr_at, "messageExpression must be non-empty if specified");
    }
    bool known = !*r->reason;
    for (size_t i = 0; reasons[i]; i++) {
        known = known || th_streq(reasons[i], r->reason);
    }
    if (!known) {
        th_invalid_not_supported(err, reason_at, r->reason, reasons);
    }
    if (*r->field_path && !*at_path) {
        th_invalid_str(err, field_at, r->field_path, "must be non-empty if specified");
    }
    if (has_newline(r->field_path)) {
        th_invalid_str(err, field_at, r->field_path, "must not contain line breaks");
    }
    const char *why;
    th_autofree char *normal = *r->field_path ? field_path(s, r->field_path, &why) : NULL;
    if (*r->field_path && !normal) {
        th_invalid_str(err, field_at, r->field_path, "must be a valid path");
    }
    return err->n_causes == before;
}

static void check_compiled(const struct th_cel_rule *r, const char *path, const char *uncorrelated,
                           struct th_err *err)
{
    th_autofree char *rule_at = th_field_child(path, "rule");
    TH_AUTO(th_json) struct th_json *bad = shown(r);
    if (r->error) {
        th_invalid_value(err, rule_at, bad, r->error);
    }
    if (r->message_error) {
        th_autofree char *at = th_field_child(path, "messageExpression");
        th_invalid_value(err, at, bad, r->message_error);
    }
    if (r->uses_old && uncorrelated) {
        th_autofree char *why = th_xasprintf("oldSelf cannot be used on the uncorrelatable portion "
                                             "of the schema within %s",
                                             uncorrelated);
        th_invalid_str(err, rule_at, r->rule, why);
    } else if (!r->uses_old && r->optional_old && !r->error) {
        th_autofree char *at = th_field_child(path, "optionalOldSelf");
        TH_AUTO(th_json) struct th_json *yes = th_json_bool(true);
        th_invalid_value(err, at, yes, "may not be set if oldSelf is not used in rule");
    }
}

static void check_node(const struct th_structural *s, const char *path, const char *uncorrelated,
                       struct th_err *err)
{
    if (!s || !(s->flags & TH_SF_HAS_RULES)) {
        return;
    }
    for (size_t i = 0; i < s->n_props; i++) {
        th_autofree char *props = th_field_child(path, "properties");
        th_autofree char *at = th_field_key(props, s->props[i].name);
        check_node(s->props[i].s, at, uncorrelated, err);
    }
    if (s->additional) {
        th_autofree char *at = th_field_child(path, "additionalProperties");
        check_node(s->additional, at, uncorrelated, err);
    }
    if (s->items) {
        th_autofree char *at = th_field_child(path, "items");
        const char *un = s->flags & TH_SF_LIST_MAP ? uncorrelated
                         : uncorrelated            ? uncorrelated
                                                   : path;
        check_node(s->items, at, un, err);
    }
    bool sound = true;
    for (int pass = 0; pass < 2 && sound; pass++) {
        for (size_t i = 0; i < s->n_rules; i++) {
            th_autofree char *at = th_field_path("%s.x-kubernetes-validations[%zu]", path, i);
            if (pass == 0) {
                sound = check_texts(s, &s->rules[i], at, err) && sound;
            } else {
                check_compiled(&s->rules[i], at, uncorrelated, err);
            }
        }
    }
}

void th_cel_rules_check(const struct th_structural *root, const char *path, struct th_err *err)
{
    size_t before = err->n_causes;
    check_node(root, path, NULL, err);
    if (err->n_causes == before) {
        th_cel_rules_check_cost(root, path, err);
    }
}

/* ---- Validating objects ---- */

struct run {
    int64_t *budget;
    struct th_strv *warnings;
    struct th_err *err;
};
struct pair {
    const struct th_json *now, *old;
    bool has_old;    /* old and new can be matched and old is there */
    bool unchanged;  /* this place, or one that it could be matched by, is equal to its old */
    bool matched;    /* matching has not been lost on the way */
};

/* "Invalid value: \"string\": text" at a place whose path may be empty. */
static void fault(struct run *r, const char *path, const char *type, const char *fmt, ...)
    TH_PRINTF(4, 5);
static void fault(struct run *r, const char *path, const char *type, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    th_autofree char *text = th_xvasprintf(fmt, ap);
    va_end(ap);
    th_invalid_str(r->err, *path ? path : "<nil>", type, text);
}

/* What a rule is called in messages: its message, or itself. */
static char *rule_name(const struct th_cel_rule *rule)
{
    return th_go_trim_space(*rule->message ? rule->message : rule->rule);
}

/* The text of messageExpression; NULL when there is none or it fails (the message serves then). */
static char *eval_message(struct run *r, const struct th_cel_rule *rule,
                          const struct th_cel_binding *vars)
{
    uint64_t cost = 0;
    enum th_cel_outcome out;
    th_autofree char *text = NULL;
    if (!rule->message_prog ||
        th_cel_eval(rule->message_prog, vars, 2, TH_CEL_PER_CALL_LIMIT, 0, &out, &cost, &text, NULL,
                    NULL) < 0 ||
        !text) {
        *r->budget -= (int64_t)cost;
        return NULL;
    }
    *r->budget -= (int64_t)cost;
    char *t = th_go_trim_space(text);
    if (!*t || has_newline(t) || strlen(t) > MAX_MESSAGE_B) {
        free(t);
        return NULL;
    }
    return t;
}

static void add_fault(struct th_err *err, const char *path, const struct th_json *value,
                      bool container, const char *reason, const char *detail)
{
    if (th_streq(reason, "FieldValueForbidden")) {
        th_invalid_forbidden(err, path, detail);
    } else if (th_streq(reason, "FieldValueRequired")) {
        th_invalid_required(err, path, detail);
    } else if (container) {
        bool dup = th_streq(reason, "FieldValueDuplicate");
        th_err_add_cause(err, dup ? reason : "FieldValueInvalid", path, "%s%s%s",
                         dup ? "Duplicate value" : "Invalid value", dup ? "" : ": ",
                         dup ? "" : detail);
    } else if (th_streq(reason, "FieldValueDuplicate")) {
        th_invalid_duplicate(err, path, value);
    } else {
        th_invalid_value(err, path, value, detail);
    }
}

static void report(struct run *r, const struct th_structural *s, const struct th_cel_rule *rule,
                   const struct pair *p, const char *path, const struct th_cel_binding *vars)
{
    th_autofree char *detail = eval_message(r, rule, vars);
    if (!detail) {
        th_autofree char *name = rule_name(rule);
        detail = *rule->message ? th_xstrdup(name) : th_xasprintf("failed rule: %s", name);
    }
    th_autofree char *at = !rule->at              ? th_xstrdup(path)
                           : *rule->at == '['     ? th_xasprintf("%s%s", path, rule->at)
                                                  : th_field_child(path, rule->at);
    bool container = s->type == TH_ST_OBJECT || s->type == TH_ST_ARRAY;
    const char *field = *at ? at : "<nil>";
    if (rule->uses_old || !p->unchanged) {
        add_fault(r->err, field, p->now, container, rule->reason, detail);
    } else if (r->warnings) {
        TH_AUTO_ERR struct th_err w = TH_ERR_INIT;
        add_fault(&w, field, p->now, container, rule->reason, detail);
        th_strv_addf(r->warnings, "%s: %s", w.causes[0].field, w.causes[0].msg);
    }
}

static void run_rule(struct run *r, const struct th_structural *s, const struct th_cel_rule *rule,
                     const struct pair *p, const char *path, bool resource)
{
    const char *type = th_stype_name(s->type);
    th_autofree char *name = rule_name(rule);
    if (rule->error) {
        fault(r, path, type, "rule compile error: %s", rule->error);
        return;
    }
    if (!rule->prog || (rule->uses_old && !p->has_old && !rule->optional_old)) {
        return;
    }
    const struct th_cel_binding vars[] = {
        {.name = "self", .value = p->now, .schema = s, .resource = resource},
        {.name = "oldSelf",
         .value = p->old,
         .schema = s,
         .resource = resource,
         .optional = rule->optional_old,
         .present = p->has_old},
    };
    enum th_cel_outcome out = TH_CEL_FALSE;
    uint64_t cost = 0;
    TH_AUTO_ERR struct th_err why = TH_ERR_INIT;
    int rc = th_cel_eval(rule->prog, vars, 2, TH_CEL_PER_CALL_LIMIT, 0, &out, &cost, NULL, NULL,
                         &why);
    if ((int64_t)cost > *r->budget) {
        fault(r, path, type,
              "validation failed due to running out of cost budget, no further validation rules "
              "will be run");
        *r->budget = -1;
        return;
    }
    *r->budget -= (int64_t)cost;
    if (rc < 0 && th_startswith(why.msg, "no such overload")) {
        fault(r, path, type,
              "'%s': call arguments did not match a supported operator, function or macro "
              "signature for rule: %s",
              why.msg, name);
    } else if (rc < 0 && th_startswith(why.msg, "operation cancelled")) {
        fault(r, path, type,
              "'%s': no further validation rules will be run due to call cost exceeds limit for "
              "rule: %s",
              why.msg, name);
        *r->budget = -1;
    } else if (rc < 0) {
        fault(r, path, type, "%s evaluating rule: %s", why.msg, name);
    } else if (out != TH_CEL_TRUE) {
        report(r, s, rule, p, path, vars);
    }
}

static void walk(struct run *r, const struct th_structural *s, const struct pair *p,
                 const char *path, bool root);

static struct pair below(const struct pair *p, const struct th_json *now, const struct th_json *old,
                         bool found)
{
    struct pair c = {.now = now, .old = old, .has_old = found && old, .matched = p->matched};
    /* Where matching is lost, the nearest place that could be matched decides. */
    c.unchanged = p->matched && found ? th_json_equal(now, old) : p->unchanged;
    c.matched = p->matched && found;
    return c;
}

static const struct th_json *same_key(const struct th_structural *s, const struct th_json *old,
                                      const struct th_json *e)
{
    for (size_t i = 0; (s->flags & TH_SF_LIST_MAP) && i < th_json_len(old); i++) {
        const struct th_json *o = th_json_at(old, i);
        bool same = th_json_is(o, TH_JSON_OBJECT);
        for (size_t k = 0; same && k < s->keys.n; k++) {
            same = th_json_equal(th_json_get(o, s->keys.v[k]), th_json_get(e, s->keys.v[k]));
        }
        if (same) {
            return o;
        }
    }
    return NULL;
}

static void walk_children(struct run *r, const struct th_structural *s, const struct pair *p,
                          const char *path)
{
    if (th_json_is(p->now, TH_JSON_ARRAY)) {
        const struct th_json *old = th_json_is(p->old, TH_JSON_ARRAY) ? p->old : NULL;
        for (size_t i = 0; s->items && i < th_json_len(p->now) && *r->budget >= 0; i++) {
            th_autofree char *at = th_field_index(path, i);
            const struct th_json *o = same_key(s, old, th_json_at(p->now, i));
            struct pair c = below(p, th_json_at(p->now, i), o, o != NULL);
            walk(r, s->items, &c, at, false);
        }
        return;
    }
    const struct th_json *old = th_json_is(p->old, TH_JSON_OBJECT) ? p->old : NULL;
    struct th_json_iter it = TH_JSON_ITER(th_json_is(p->now, TH_JSON_OBJECT) ? p->now : NULL);
    while (th_json_next(&it) && *r->budget >= 0) {
        const struct th_structural *sub = th_structural_prop(s, it.name);
        th_autofree char *at =
            sub ? th_field_child(path, it.name) : th_field_key(path, it.name);
        struct pair c = below(p, it.value, th_json_get(old, it.name), th_json_has(old, it.name));
        walk(r, sub ? sub : s->additional, &c, at, false);
    }
}

static void walk(struct run *r, const struct th_structural *s, const struct pair *p,
                 const char *path, bool root)
{
    if (!s || !(s->flags & TH_SF_HAS_RULES) || !p->now) {
        return;
    }
    for (size_t i = 0; i < s->n_rules && *r->budget >= 0; i++) {
        run_rule(r, s, &s->rules[i], p, path, root || (s->flags & TH_SF_EMBEDDED));
    }
    walk_children(r, s, p, path);
}

void th_cel_rules_validate(const struct th_structural *root, const struct th_json *obj,
                           const struct th_json *old, const char *path, int64_t *budget,
                           struct th_strv *warnings, struct th_err *err)
{
    struct run r = {.budget = budget, .warnings = warnings, .err = err};
    struct pair p = {.now = obj, .old = old, .has_old = old != NULL, .matched = old != NULL};
    p.unchanged = old && th_json_equal(obj, old);
    walk(&r, root, &p, path, true);
}
