/*
 * ValidatingAdmissionPolicy: does a request satisfy the expressions of the policies that match it?
 *
 * For each binding of a policy that matches, and each of its parameter objects, all validations are
 * evaluated. One that is false is denied, warned of or written to the audit log, as the binding says;
 * one that fails counts as false unless failurePolicy is Ignore. Everything that denies is gathered and
 * the first of it is the answer, in the order of policies, bindings, parameters and expressions.
 */
#include "controlplane/api/admission/policies.h"

#include "controlplane/schema/gotext.h"

#define MAX_MESSAGE_B 5120
#define MAX_ANNOTATION_B 10240

struct denial {
    bool set;
    const struct th_policy *policy;
    const struct th_binding *binding; /* NULL: the policy itself is wrong */
    char *message;
    const char *reason; /* NULL: Invalid */
};
struct pass {
    struct th_admit *a;
    const struct th_resource *as;
    struct denial first;
    struct th_json *annotations; /* key -> list of values; of the policy at hand */
};

static void deny(struct pass *p, const struct th_policy *policy, const struct th_binding *binding,
                 const char *reason, const char *fmt, ...) TH_PRINTF(5, 6);
static void deny(struct pass *p, const struct th_policy *policy, const struct th_binding *binding,
                 const char *reason, const char *fmt, ...)
{
    if (p->first.set) {
        return;
    }
    va_list ap;
    va_start(ap, fmt);
    p->first = (struct denial){true, policy, binding, th_xvasprintf(fmt, ap), reason};
    va_end(ap);
}

static void config_error(struct pass *p, const struct th_policy *policy,
                         const struct th_binding *binding, const struct th_err *why)
{
    if (!policy->fail_open) {
        deny(p, policy, binding, NULL, "failed to configure %s: %s", binding ? "binding" : "policy",
             why->msg);
    }
}

/* What a validation that is false says; the caller frees. */
static char *message_of(const struct th_validation *v, struct th_cel_scope *s)
{
    enum th_cel_outcome out;
    th_autofree char *text = NULL;
    if (v->message_prog && th_cel_admission_eval(s->session, v->message_prog, v->message_expr,
                                                 &s->budget, &out, &text, NULL, NULL) >= 0 &&
        text) {
        th_autofree char *t = th_go_trim_space(text);
        if (*t && strlen(t) <= MAX_MESSAGE_B && !strchr(t, '\n')) {
            return th_steal(&t);
        }
    }
    th_autofree char *own = th_go_trim_space(v->message);
    if (*own) {
        return th_steal(&own);
    }
    th_autofree char *expr = th_go_trim_space(v->expr);
    return th_xasprintf("failed expression: %s", expr);
}

static void audit(struct pass *p, const struct th_policy *policy, const struct th_binding *b,
                  size_t index, const char *message)
{
    TH_AUTO(th_json) struct th_json *o = th_json_build(
        "[{'message':%s,'policy':%s,'binding':%s,'expressionIndex':%d,'validationActions':%o}]", message,
        policy->name, b->name, (int64_t)index, th_json_dup(b->actions));
    th_autofree char *text = th_json_to_string(o);
    th_audit_annotate(p->a->c, "validation.policy.admission.k8s.io/validation_failure", text);
}

/* A validation that did not hold. */
static void act(struct pass *p, const struct th_policy *policy, const struct th_binding *b,
                size_t index, const char *reason, const char *message)
{
    if (b->deny) {
        deny(p, policy, b, reason, "%s", message);
    }
    if (b->audit) {
        audit(p, policy, b, index, message);
    }
    if (b->warn) {
        th_strv_addf(&p->a->c->warnings,
                     "Validation failed for ValidatingAdmissionPolicy '%s' with binding '%s': %s",
                     policy->name, b->name, message);
    }
}

/* True to go on. */
static bool validate_one(struct pass *p, const struct th_policy *policy, const struct th_binding *b,
                         size_t i, struct th_cel_scope *s)
{
    const struct th_validation *v = &policy->validations[i];
    enum th_cel_outcome out = TH_CEL_FALSE;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    int r = v->prog ? th_cel_admission_eval(s->session, v->prog, v->expr, &s->budget, &out, NULL,
                                            NULL, &err)
                    : th_fail(&err, TH_R_INVALID, "%s", v->error);
    if (r < 0) {
        if (!policy->fail_open) {
            act(p, policy, b, i, NULL, err.msg);
        }
        return r != -TH_R_EXPIRED;
    }
    if (out != TH_CEL_TRUE) {
        th_autofree char *message = message_of(v, s);
        act(p, policy, b, i, v->reason, message);
    }
    return true;
}

static void keep_annotation(struct pass *p, const char *key, const char *value)
{
    struct th_json *list = th_json_get(p->annotations, key);
    if (!list) {
        list = th_json_array();
        th_json_set(p->annotations, key, list);
    }
    for (size_t i = 0; i < th_json_len(list); i++) {
        if (th_streq(th_json_str(th_json_at(list, i)), value)) {
            return;
        }
    }
    th_json_append(list, th_json_stringf("%.*s", MAX_ANNOTATION_B, value));
}

static void annotate(struct pass *p, const struct th_policy *policy, const struct th_binding *b,
                     const struct th_annotation *n, struct th_cel_scope *s)
{
    enum th_cel_outcome out = TH_CEL_OTHER;
    th_autofree char *text = NULL;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    int r = n->prog ? th_cel_admission_eval(s->session, n->prog, n->expr, &s->budget, &out, &text,
                                            NULL, &err)
                    : th_fail(&err, TH_R_INVALID, "%s", n->error);
    if (r < 0) {
        if (!policy->fail_open) {
            deny(p, policy, b, NULL, "%s", err.msg);
        }
        return;
    }
    th_autofree char *t = th_go_trim_space(text ? text : "");
    if (*t) {
        keep_annotation(p, n->key, t);
    }
}

static int run_param(struct pass *p, const struct th_policy *policy, const struct th_binding *b,
                     const struct th_json *param, struct th_err *err)
{
    TH_AUTO_ERR struct th_err why = TH_ERR_INIT;
    int r = th_conditions_match(&policy->conditions, p->a, p->as, param, policy->fail_open, &why);
    if (r < 0) {
        act(p, policy, b, 0, NULL, why.msg);
        return 0;
    }
    if (r == 0) {
        return 0;
    }
    TH_CLEANUP(th_cel_scope_close) struct th_cel_scope s = {.n = 0};
    TH_TRY(th_cel_scope_open(&s, p->a, p->as, param, &policy->variables, true, err));
    for (size_t i = 0; i < policy->n_validations; i++) {
        if (!validate_one(p, policy, b, i, &s)) {
            return 0;
        }
    }
    s.budget = TH_CEL_BUDGET;
    for (size_t i = 0; i < policy->n_annotations; i++) {
        annotate(p, policy, b, &policy->annotations[i], &s);
    }
    return 0;
}

static int run_binding(struct pass *p, const struct th_policy *policy, const struct th_binding *b,
                       const struct th_resource *row, struct th_err *err)
{
    TH_AUTO_ERR struct th_err why = TH_ERR_INIT;
    const struct th_resource *ignored = NULL;
    TH_AUTO(th_json) struct th_json *params = NULL;
    int r = th_match(&b->match, p->a, &ignored, &why);
    if (r == 0) {
        return 0;
    }
    if (r < 0 || th_policy_params(p->a, policy, row, b, &params, &why) < 0) {
        config_error(p, policy, b, &why);
        return 0;
    }
    for (size_t i = 0; i < th_json_len(params); i++) {
        TH_TRY(run_param(p, policy, b, th_json_at(params, i), err));
    }
    return 0;
}

static void publish(struct pass *p, const struct th_policy *policy)
{
    struct th_json_iter it = TH_JSON_ITER(p->annotations);
    while (th_json_next(&it)) {
        th_autobuf struct th_buf b = TH_BUF_INIT;
        for (size_t i = 0; i < th_json_len(it.value); i++) {
            th_buf_printf(&b, "%s%s", i ? ", " : "", th_json_str(th_json_at(it.value, i)));
        }
        th_autofree char *key = th_xasprintf("%s/%s", policy->name, it.name);
        th_audit_annotate(p->a->c, key, th_buf_cstr(&b));
    }
}

static int run_policy(struct pass *p, const struct th_policy *policy, struct th_err *err)
{
    TH_AUTO_ERR struct th_err why = TH_ERR_INIT;
    const struct th_resource *row = NULL;
    int r = th_match(&policy->match, p->a, &p->as, &why);
    if (r == 0) {
        return 0;
    }
    if (r < 0 || th_policy_param_row(p->a, policy, &row, &why) < 0) {
        config_error(p, policy, NULL, &why);
        return 0;
    }
    TH_AUTO(th_json) struct th_json *annotations = th_json_object();
    p->annotations = annotations;
    for (size_t i = 0; i < policy->n_bindings; i++) {
        TH_TRY(run_binding(p, policy, policy->bindings[i], row, err));
    }
    publish(p, policy);
    return 0;
}

static int code_of(const char *reason)
{
    return th_streq(reason, "Forbidden")               ? 403
           : th_streq(reason, "Unauthorized")          ? 401
           : th_streq(reason, "RequestEntityTooLarge") ? 413
                                                       : 422;
}

static int refuse(struct pass *p, struct th_err *err)
{
    const struct denial *d = &p->first;
    th_autofree char *binding =
        d->binding ? th_xasprintf(" with binding '%s'", d->binding->name) : th_xstrdup("");
    th_autofree char *text = th_xasprintf("ValidatingAdmissionPolicy '%s'%s denied request: %s",
                                          d->policy->name, binding, d->message);
    const char *reason = d->reason && *d->reason ? d->reason : "Invalid";
    (void)th_admit_forbidden(p->a, err, "%s", text);
    if (err) {
        err->reason = th_reason_from_status(reason, code_of(reason));
        err->http_code = code_of(reason);
        err->status_reason = th_xstrdup(reason);
        th_err_add_cause(err, "", "", "%s", text);
    }
    return -(int)th_reason_from_status(reason, code_of(reason));
}

static int review_validate(struct th_admit *a, struct th_err *err)
{
    struct pass p = {.a = a};
    if (th_policy_exempt(a->c)) {
        return 0;
    }
    int r = 0;
    for (size_t i = 0; i < a->set->n_validating_policies && r >= 0; i++) {
        r = run_policy(&p, a->set->validating_policies[i], err);
    }
    if (r >= 0 && p.first.set) {
        r = refuse(&p, err);
    }
    free(p.first.message);
    return r;
}

const struct th_admission_plugin th_admission_validating_policy = {
    .name = "ValidatingAdmissionPolicy", .review_validate = review_validate};
