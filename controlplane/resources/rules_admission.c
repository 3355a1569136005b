/*
 * Rules of webhooks' match conditions and of admission policies and their bindings.
 *
 * Expressions are compiled when they are written, in the environment in which they will run
 * (cel_admission.h), so that a policy that is there can be evaluated. A variable is typed by what it is
 * made of, and seen by what comes after it; one that does not compile is dyn for the others, so that
 * one fault is told once.
 */
#include "controlplane/resources/rules.h"
#include "controlplane/schema/cel/cel_admission.h"
#include "controlplane/schema/gotext.h"

#define MAX_CONDITIONS 64
#define MAX_ANNOTATIONS 20
#define MAX_ANNOTATION_EXPR_B 5120

static void check_expr(const struct th_view *v, const char *member, const char *expr,
                       const struct th_cel_env *env, enum th_cel_result want)
{
    TH_AUTO(th_cel_prog) struct th_cel_prog *p = NULL;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (th_cel_admission_compile(expr, env, want, &p, &err) < 0) {
        th_bad_str(v, member, expr, err.msg);
    }
}

void th_check_match_conditions(const struct th_view *v, bool params)
{
    const struct th_cel_env env = {.flags = TH_CEL_ADMIT_AUTHORIZER |
                                            (params ? TH_CEL_ADMIT_PARAMS : 0u)};
    size_t n = th_view_len(v, "matchConditions");
    if (n > MAX_CONDITIONS) {
        th_bad_too_many(v, "matchConditions", n, MAX_CONDITIONS);
    }
    for (size_t i = 0; i < n && i < MAX_CONDITIONS; i++) {
        struct th_view c = th_view_item(v, "matchConditions", i);
        const char *name = th_view_str(&c, "name");
        th_autofree char *expr = th_go_trim_space(th_view_str(&c, "expression"));
        if (!*expr) {
            th_bad_required(&c, "expression", "");
        } else {
            check_expr(&c, "expression", expr, &env, TH_CEL_RESULT_IS_BOOL);
        }
        if (!*name) {
            th_bad_required(&c, "name", "");
        } else {
            (void)th_check_format(&c, "name", name, TH_NAME_QUALIFIED);
        }
    }
}

/* ---- What policies and bindings share ---- */

void th_rule_param_kind(const struct th_view *v)
{
    const char *gv = th_view_str(v, "apiVersion"), *kind = th_view_str(v, "kind");
    const char *slash = strchr(gv, '/');
    if (!*gv) {
        th_bad_required(v, "apiVersion", "");
    } else if (slash && strchr(slash + 1, '/')) {
        th_autofree char *why = th_xasprintf("unexpected GroupVersion string: %s", gv);
        th_bad_str(v, "apiVersion", gv, why);
    } else {
        th_autofree char *group = slash ? th_xstrndup(gv, (size_t)(slash - gv)) : th_xstrdup("");
        const char *version = slash ? slash + 1 : gv;
        if (*group) {
            (void)th_check_format(v, "apiVersion", group, TH_NAME_DNS1123_SUBDOMAIN);
        }
        if (!*version) {
            th_bad_str(v, "apiVersion", gv, "version must be specified");
        } else {
            (void)th_check_format(v, "apiVersion", version, TH_NAME_DNS1035_LABEL);
        }
    }
    if (!*kind) {
        th_bad_required(v, "kind", "");
        return;
    }
    th_autofree char *lower = th_xstrdup(kind);
    for (char *p = lower; *p; p++) {
        *p = (char)(*p >= 'A' && *p <= 'Z' ? *p + 32 : *p);
    }
    const char *msgs[TH_NAME_MSGS];
    if (th_name_messages(TH_NAME_DNS1035_LABEL, lower, msgs)) {
        th_autofree char *why =
            th_xasprintf("may have mixed case, but should otherwise match: %s", msgs[0]);
        th_bad_str(v, "kind", kind, why);
    }
}

void th_rule_named_rule(const struct th_view *v)
{
    for (size_t i = 0; i < th_view_len(v, "resourceNames"); i++) {
        struct th_view n = th_view_item(v, "resourceNames", i);
        const char *name = th_view_str(&n, NULL), *why = th_name_path_segment(name);
        if (why) {
            th_bad_str(&n, NULL, name, why);
        }
        for (size_t k = 0; k < i; k++) {
            struct th_view o = th_view_item(v, "resourceNames", k);
            if (th_streq(th_view_str(&o, NULL), name)) {
                th_bad_duplicate(&n, NULL, name);
                break;
            }
        }
    }
    th_rule_rule_with_operations(v);
}

void th_rule_param_ref(const struct th_view *v)
{
    static const char both[] = "name and selector are mutually exclusive";
    const char *name = th_view_str(v, "name"), *action = th_view_str(v, "parameterNotFoundAction");
    bool selector = th_view_has(v, "selector");
    const char *why = *name ? th_name_path_segment(name) : NULL;
    if (why) {
        th_bad_str(v, "name", name, why);
    }
    if (*name && selector) {
        th_bad_forbidden(v, "name", both);
        th_bad_forbidden(v, "selector", both);
    }
    if (!*name && !selector) {
        th_bad_required(v, NULL, "one of name or selector must be specified");
    }
    if (!*action) {
        th_bad_required(v, "parameterNotFoundAction", "");
    } else if (!th_word_in(action, "Deny|Allow")) {
        th_bad_unsupported(v, "parameterNotFoundAction", action, "Deny|Allow");
    }
}

static void check_policy_name(const struct th_view *v)
{
    const char *name = th_view_str(v, "policyName");
    if (!*name) {
        th_bad_required(v, "policyName", "");
    } else {
        (void)th_check_format(v, "policyName", name, TH_NAME_DNS1123_SUBDOMAIN);
    }
}

void th_rule_validating_binding_spec(const struct th_view *v)
{
    size_t n = th_view_len(v, "validationActions");
    bool deny = false, warn = false;
    check_policy_name(v);
    for (size_t i = 0; i < n; i++) {
        struct th_view a = th_view_item(v, "validationActions", i);
        const char *s = th_view_str(&a, NULL);
        if (!th_word_in(s, "Audit|Deny|Warn")) {
            th_bad_unsupported(&a, NULL, s, "Audit|Deny|Warn");
        }
        for (size_t k = 0; k < i; k++) {
            struct th_view o = th_view_item(v, "validationActions", k);
            if (th_streq(th_view_str(&o, NULL), s)) {
                th_bad_duplicate(&a, NULL, s);
                break;
            }
        }
        deny = deny || th_streq(s, "Deny");
        warn = warn || th_streq(s, "Warn");
    }
    if (deny && warn) {
        th_bad_json(v, "validationActions", th_view_get(v, "validationActions"),
                    "must not contain both Deny and Warn (repeating the same validation failure "
                    "information in the API response and headers serves no purpose)");
    }
    if (n == 0) {
        th_bad_required(v, "validationActions", "at least one validation action is required");
    }
}

/* Mutation is of creates, updates and connections. */
static void check_mutating_ops(const struct th_view *v, const char *match)
{
    static const char allowed[] = "*|CONNECT|CREATE|UPDATE";
    struct th_view m = th_view_at(v, match);
    for (size_t i = 0; i < th_view_len(&m, "resourceRules"); i++) {
        struct th_view r = th_view_item(&m, "resourceRules", i);
        for (size_t k = 0; k < th_view_len(&r, "operations"); k++) {
            struct th_view o = th_view_item(&r, "operations", k);
            if (!th_word_in(th_view_str(&o, NULL), allowed)) {
                struct th_view rules = th_view_at(&m, "resourceRules");
                th_bad_unsupported(&rules, "operations", th_view_str(&o, NULL), allowed);
            }
        }
    }
}

void th_rule_mutating_binding_spec(const struct th_view *v)
{
    check_policy_name(v);
    check_mutating_ops(v, "matchResources");
}

/* ---- Policies ---- */

static bool is_identifier(const char *s)
{
    static const char reserved[] =
        "true|false|null|in|as|break|const|continue|else|for|function|if|import|let|loop|package|"
        "namespace|return|var|void|while";
    bool ok = *s && !(*s >= '0' && *s <= '9');
    for (const char *p = s; *p && ok; p++) {
        ok = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') ||
             *p == '_';
    }
    return ok && !th_word_in(s, reserved);
}

static void check_variables(const struct th_view *v, struct th_cel_variables *vars)
{
    for (size_t i = 0; i < th_view_len(v, "variables"); i++) {
        struct th_view x = th_view_item(v, "variables", i);
        const char *name = th_view_str(&x, "name");
        th_autofree char *short_name = th_go_trim_space(name);
        th_autofree char *expr = th_go_trim_space(th_view_str(&x, "expression"));
        if (!*short_name) {
            th_bad_required(&x, "name", "name is not specified");
        } else if (!is_identifier(name)) {
            th_bad_str(&x, "name", name, "must be a valid CEL identifier");
        }
        if (!*expr) {
            th_bad_required(&x, "expression", "expression is not specified");
        } else if (vars->v[i].error) {
            th_bad_str(&x, "expression", th_view_str(&x, "expression"), vars->v[i].error);
        }
    }
}

/* The environment of a policy's expressions; the variables are made and checked. */
static void open_env(const struct th_view *spec, bool always_variables,
                     struct th_cel_variables *vars, struct th_cel_env *ret)
{
    bool params = th_view_has(spec, "paramKind");
    *ret = (struct th_cel_env){.flags = TH_CEL_ADMIT_AUTHORIZER |
                                        (params ? TH_CEL_ADMIT_PARAMS : 0u)};
    th_cel_variables_init(vars, th_view_get(spec, "variables"), ret);
    check_variables(spec, vars);
    if (vars->n || always_variables) {
        ret->flags |= TH_CEL_ADMIT_VARIABLES;
        ret->variables = vars->v;
        ret->n_variables = vars->n;
    }
}

static void check_common(const struct th_view *spec)
{
    if (!th_view_has(spec, "matchConstraints")) {
        th_bad_required(spec, "matchConstraints", "");
    } else if (th_view_len(spec, "matchConstraints.resourceRules") == 0) {
        th_bad_required(spec, "matchConstraints.resourceRules", "");
    }
    th_check_match_conditions(spec, th_view_has(spec, "paramKind"));
}

static void check_validation(const struct th_view *v, const struct th_cel_env *env)
{
    const char *expr = th_view_str(v, "expression"), *message = th_view_str(v, "message");
    const char *message_expr = th_view_str(v, "messageExpression");
    th_autofree char *short_expr = th_go_trim_space(expr);
    th_autofree char *short_message = th_go_trim_space(message);
    th_autofree char *short_message_expr = th_go_trim_space(message_expr);
    if (!*short_expr) {
        th_bad_required(v, "expression", "expression is not specified");
    } else {
        check_expr(v, "expression", expr, env, TH_CEL_RESULT_IS_BOOL);
    }
    if (*message_expr && !*short_message_expr) {
        th_bad_str(v, "messageExpression", message_expr, "must be non-empty if specified");
    } else if (*short_message_expr) {
        struct th_cel_env e = *env;
        e.flags &= ~TH_CEL_ADMIT_AUTHORIZER;
        check_expr(v, "messageExpression", message_expr, &e, TH_CEL_RESULT_IS_STRING);
    }
    if (*message && !*short_message) {
        th_bad_str(v, "message", message, "must be non-empty if specified");
    } else if (strpbrk(short_message, "\r\n")) {
        th_bad_str(v, "message", message, "must not contain line breaks");
    }
    if (th_view_has(v, "reason") &&
        !th_word_in(th_view_str(v, "reason"), "Forbidden|Invalid|RequestEntityTooLarge")) {
        th_bad_unsupported(v, "reason", th_view_str(v, "reason"),
                           "Forbidden|Invalid|RequestEntityTooLarge");
    }
}

static void check_annotation(const struct th_view *spec, size_t i, const char *policy,
                             const struct th_cel_env *env)
{
    struct th_view v = th_view_item(spec, "auditAnnotations", i);
    const char *key = th_view_str(&v, "key");
    if (*policy) {
        th_autofree char *full = th_xasprintf("%s/%s", policy, key);
        (void)th_check_format(&v, "key", full, TH_NAME_QUALIFIED);
    } else {
        th_bad_str(&v, "key", key, "requires metadata.name be non-empty");
    }
    th_autofree char *expr = th_go_trim_space(th_view_str(&v, "valueExpression"));
    if (!*expr) {
        th_bad_required(&v, "valueExpression", "valueExpression is not specified");
    } else if (strlen(expr) > MAX_ANNOTATION_EXPR_B) {
        th_bad_required(&v, "valueExpression", "must not exceed 5120 bytes in length");
    } else {
        check_expr(&v, "valueExpression", expr, env, TH_CEL_RESULT_STRING_OR_NULL);
    }
    for (size_t k = 0; k < i; k++) {
        struct th_view o = th_view_item(spec, "auditAnnotations", k);
        if (th_streq(th_view_str(&o, "key"), key)) {
            th_bad_duplicate(&v, "key", key);
            break;
        }
    }
}

void th_rule_validating_policy(const struct th_view *v)
{
    struct th_view spec = th_view_at(v, "spec");
    TH_CLEANUP(th_cel_variables_done) struct th_cel_variables vars = {.v = NULL};
    struct th_cel_env env;
    size_t n = th_view_len(&spec, "validations"), annotations = th_view_len(&spec, "auditAnnotations");
    check_common(&spec);
    open_env(&spec, false, &vars, &env);
    if (n == 0 && annotations == 0) {
        static const char none[] = "validations or auditAnnotations must contain at least one item";
        th_bad_required(&spec, "validations", none);
        th_bad_required(&spec, "auditAnnotations", none);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        struct th_view x = th_view_item(&spec, "validations", i);
        check_validation(&x, &env);
    }
    if (annotations > MAX_ANNOTATIONS) {
        th_bad_json(&spec, "auditAnnotations", th_view_get(&spec, "auditAnnotations"),
                    "must not have more than 20 auditAnnotations");
    }
    for (size_t i = 0; i < annotations; i++) {
        check_annotation(&spec, i, th_view_str(v, "metadata.name"), &env);
    }
}

static void check_mutation(const struct th_view *v, const struct th_cel_env *env)
{
    static const char types[] = "ApplyConfiguration|JSONPatch";
    const char *type = th_view_str(v, "patchType");
    if (!*type) {
        th_bad_required(v, "patchType", "");
        return;
    }
    if (!th_word_in(type, types)) {
        th_bad_unsupported(v, "patchType", type, types);
        return;
    }
    bool apply = th_streq(type, "ApplyConfiguration");
    const char *own = apply ? "applyConfiguration" : "jsonPatch";
    const char *other = apply ? "jsonPatch" : "applyConfiguration";
    if (!th_view_has(v, own)) {
        th_autofree char *why = th_xasprintf("must be specified when patchType is %s", type);
        th_bad_required(v, own, why);
    } else {
        struct th_view o = th_view_at(v, own);
        th_autofree char *expr = th_go_trim_space(th_view_str(&o, "expression"));
        if (!*expr) {
            th_bad_required(&o, "expression", "");
        } else {
            check_expr(&o, "expression", expr, env,
                       apply ? TH_CEL_RESULT_OBJECT : TH_CEL_RESULT_PATCHES);
        }
    }
    if (th_view_has(v, other)) {
        th_autofree char *why = th_xasprintf("must not be specified when patchType is %s", type);
        th_autofree char *shown = th_xasprintf("{%s}", other);
        th_bad_str(v, other, shown, why);
    }
}

void th_rule_mutating_policy(const struct th_view *v)
{
    struct th_view spec = th_view_at(v, "spec");
    TH_CLEANUP(th_cel_variables_done) struct th_cel_variables vars = {.v = NULL};
    struct th_cel_env env;
    size_t n = th_view_len(&spec, "mutations");
    check_common(&spec);
    check_mutating_ops(&spec, "matchConstraints");
    open_env(&spec, true, &vars, &env);
    if (n == 0) {
        th_bad_required(&spec, "mutations", "mutations must contain at least one item");
    }
    for (size_t i = 0; i < n; i++) {
        struct th_view x = th_view_item(&spec, "mutations", i);
        check_mutation(&x, &env);
    }
}
