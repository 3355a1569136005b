/*
 * MutatingAdmissionPolicy: changes that expressions make to objects.
 *
 * For each binding of a policy that matches, and each of its parameter objects, the policy's mutations
 * are applied in order, each to what the one before made: an ApplyConfiguration is merged into the
 * object by its type (th_merge_configuration), a JSONPatch is a list of operations. A failure refuses
 * the request unless failurePolicy is Ignore; all failures are told, the first is the message.
 *
 * Which invocation may be called again is known by policy, binding and parameter, as upstream; matching
 * and parameters are settled before the first mutation, from the object as it came.
 */
#include "controlplane/api/admission/policies.h"

struct invocation {
    const struct th_policy *policy;
    const struct th_binding *binding;
    const struct th_resource *as;
    struct th_json *param; /* owned */
    char *id;
};
struct pass {
    struct th_admit *a;
    struct invocation *v;
    size_t n, cap;
    struct th_strv failures; /* texts, of policies that do not fail open */
    bool invalid;            /* the first is of an expression, not of the configuration */
};

static void pass_done(struct pass *p)
{
    for (size_t i = 0; i < p->n; i++) {
        th_json_unref(p->v[i].param);
        free(p->v[i].id);
    }
    free(p->v);
    th_strv_done(&p->failures);
}

static void failed(struct pass *p, const struct th_policy *policy, const struct th_binding *b,
                   bool config, const char *why)
{
    if (policy->fail_open) {
        return;
    }
    p->invalid = p->failures.n ? p->invalid : !config;
    th_autofree char *text =
        config ? th_xasprintf("failed to configure %s: %s", b ? "binding" : "policy", why)
               : th_xstrdup(why);
    if (b) {
        th_strv_addf(&p->failures, "policy '%s' with binding '%s' denied request: %s", policy->name,
                     b->name, text);
    } else {
        th_strv_addf(&p->failures, "policy \"%s\" denied request: %s", policy->name, text);
    }
}

/* ---- Who is to be called ---- */

static void add(struct pass *p, const struct th_policy *policy, const struct th_binding *b,
                const struct th_resource *as, const struct th_json *param)
{
    const char *ns = th_json_path_str(param, "metadata.namespace");
    const char *name = th_json_path_str(param, "metadata.name");
    p->v = th_xgrow(p->v, &p->cap, p->n + 1, sizeof(*p->v));
    p->v[p->n++] = (struct invocation){
        .policy = policy,
        .binding = b,
        .as = as,
        .param = param ? th_json_dup(param) : NULL,
        .id = th_xasprintf("policy %s/%s/%s/%s", policy->name, b->name, ns ? ns : "", name ? name : "")};
}

static void gather(struct pass *p, const struct th_policy *policy)
{
    const struct th_resource *as = NULL, *row = NULL, *ignored = NULL;
    TH_AUTO_ERR struct th_err why = TH_ERR_INIT;
    int r = th_match(&policy->match, p->a, &as, &why);
    if (r == 0) {
        return;
    }
    if (r < 0 || th_policy_param_row(p->a, policy, &row, &why) < 0) {
        failed(p, policy, NULL, true, why.msg);
        return;
    }
    for (size_t i = 0; i < policy->n_bindings; i++) {
        const struct th_binding *b = policy->bindings[i];
        TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
        TH_AUTO(th_json) struct th_json *params = NULL;
        r = th_match(&b->match, p->a, &ignored, &local);
        if (r > 0) {
            r = th_policy_params(p->a, policy, row, b, &params, &local);
        }
        if (r < 0) {
            failed(p, policy, b, true, local.msg);
        }
        for (size_t k = 0; k < th_json_len(params); k++) {
            add(p, policy, b, as, th_json_at(params, k));
        }
    }
}

/* ---- Mutations ---- */

static const struct th_type *type_of(const struct th_admit *a, const struct th_resource *as)
{
    const struct th_subresource *s = a->c->sub;
    const struct th_kind *k = s && !th_streq(s->kind, a->c->res->kind)
                                  ? th_kind_find(s->group, s->version, s->kind)
                                  : th_resource_kind(as);
    return k ? k->type : NULL;
}

static int apply(struct th_admit *a, const struct th_resource *as, const struct th_json *object,
                 struct th_json *config, struct th_json **ret, struct th_err *err)
{
    static const char *const members[] = {"apiVersion", "kind"};
    for (size_t i = 0; i < TH_ARRAY_LEN(members); i++) {
        struct th_json *v = th_json_get(object, members[i]);
        th_json_set(config, members[i], v ? th_json_dup(v) : NULL);
    }
    TH_AUTO_ERR struct th_err why = TH_ERR_INIT;
    return th_merge_configuration(type_of(a, as), object, config, ret, &why) < 0
               ? th_fail(err, TH_R_INVALID, "error applying patch: %s", why.msg)
               : 0;
}

/* 1 when a test in the patch did not hold: then nothing is changed. */
static int patch(const struct th_json *object, const struct th_json *ops, struct th_json **ret,
                 struct th_err *err)
{
    TH_AUTO_ERR struct th_err why = TH_ERR_INIT;
    if (th_json_patch(object, ops, ret, &why) >= 0) {
        return 0;
    }
    const char *text = why.hint ? why.hint : why.msg;
    return strstr(text, "test failed") ? 1 : th_fail(err, TH_R_INVALID, "JSON Patch: %s", text);
}

/* One mutation. An error of the request itself (not of the policy) sets *ret_fatal. */
static int mutate(struct th_admit *a, const struct invocation *v, const struct th_mutation *m,
                  bool *ret_changed, bool *ret_fatal, struct th_err *err)
{
    if (!m->prog) {
        return th_fail(err, TH_R_INVALID, "%s", m->error);
    }
    struct th_json *object = NULL;
    const struct th_json *old = NULL;
    TH_AUTO(th_json) struct th_json *result = NULL;
    struct th_json *made = NULL;
    {
        TH_CLEANUP(th_cel_scope_close) struct th_cel_scope s = {.n = 0};
        *ret_fatal = true;
        TH_TRY(th_cel_scope_open(&s, a, v->as, v->param, &v->policy->variables, true, err));
        *ret_fatal = false;
        enum th_cel_outcome out;
        TH_TRY(th_cel_admission_eval(s.session, m->prog, m->expr, &s.budget, &out, NULL, &result,
                                     err));
    }
    TH_TRY(th_admit_form(a, v->as, &object, &old, err));
    int r = m->apply ? apply(a, v->as, object, result, &made, err)
                     : patch(object, result, &made, err);
    if (r != 0) {
        return r < 0 ? r : 0;
    }
    bool changed = false;
    *ret_fatal = true;
    TH_TRY(th_admit_replace(a, v->as, made, &changed, err));
    *ret_fatal = false;
    *ret_changed = *ret_changed || changed;
    return 0;
}

/* As with webhooks: those that may be called again are, after a change by a later one. */
static void require_again(struct th_admit *a)
{
    for (size_t i = 0; i < a->policies_seen.n; i++) {
        if (!th_strv_has(&a->again, a->policies_seen.v[i])) {
            th_strv_add(&a->again, a->policies_seen.v[i]);
        }
    }
    th_strv_done(&a->policies_seen);
    a->reinvoke = true;
}

static int invoke(struct pass *p, const struct invocation *v, struct th_err *err)
{
    TH_AUTO_ERR struct th_err why = TH_ERR_INIT;
    int r = th_conditions_match(&v->policy->conditions, p->a, v->as, v->param, v->policy->fail_open,
                                &why);
    if (r < 0) {
        failed(p, v->policy, v->binding, false, why.msg);
        return 0;
    }
    if (r == 0 || (p->a->reinvoking && !th_strv_has(&p->a->again, v->id))) {
        return 0;
    }
    bool changed = false;
    for (size_t i = 0; p->a->object && i < v->policy->n_mutations; i++) {
        TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
        bool fatal = false;
        r = mutate(p->a, v, &v->policy->mutations[i], &changed, &fatal, &local);
        if (r < 0 && fatal) {
            if (err) {
                th_err_move(err, &local);
            }
            return r;
        }
        if (r < 0) {
            failed(p, v->policy, v->binding, false, local.msg);
        }
    }
    if (changed) {
        require_again(p->a);
    }
    if (v->policy->again) {
        th_strv_add(&p->a->policies_seen, v->id);
    }
    return 0;
}

static int refuse(struct pass *p, struct th_err *err)
{
    enum th_reason reason = p->invalid ? TH_R_INVALID : TH_R_FORBIDDEN;
    (void)th_admit_forbidden(p->a, err, "admission request denied by policy");
    if (err) { /* upstream keeps the code of Forbidden whatever the reason */
        free(err->msg);
        err->msg = th_xstrdup(p->failures.v[0]);
        err->http_code = 403;
        err->reason = reason;
        for (size_t i = 0; i < p->failures.n; i++) {
            th_err_add_cause(err, "", "", "%s", p->failures.v[i]);
        }
    }
    return -(int)reason;
}

static int review_mutate(struct th_admit *a, struct th_err *err)
{
    TH_CLEANUP(pass_done) struct pass p = {.a = a};
    if (th_policy_exempt(a->c) || a->set->n_mutating_policies == 0) {
        return 0;
    }
    for (size_t i = 0; i < a->set->n_mutating_policies; i++) {
        gather(&p, a->set->mutating_policies[i]);
    }
    if (a->reinvoking && a->policies_output && !th_json_equal(a->policies_output, a->object)) {
        require_again(a);
    }
    for (size_t i = 0; i < p.n; i++) {
        TH_TRY(invoke(&p, &p.v[i], err));
    }
    if (!a->reinvoking && a->object) {
        a->policies_output = th_json_dup(a->object);
    }
    return p.failures.n ? refuse(&p, err) : 0;
}

const struct th_admission_plugin th_admission_mutating_policy = {
    .name = "MutatingAdmissionPolicy", .review_mutate = review_mutate};
