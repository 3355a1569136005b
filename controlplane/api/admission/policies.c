/*
 * Admission policies: from the stored objects to programs, and from a request to what programs see.
 *
 * A policy's expressions are compiled one by one; those of its variables first, since the others are
 * typed by them. An expression that does not compile (a policy from before a rule was made stricter)
 * is kept with its error and fails when it would run.
 *
 * Parameters are read when they are needed, from the store: a request sees the parameters that were
 * written before it. Upstream has them from informers, a moment late.
 */
#include "controlplane/api/admission/policies.h"

#include "controlplane/api/customs.h"

static char *text_of(const struct th_json *o, const char *path)
{
    const char *s = th_json_path_str(o, path);
    return s ? th_xstrdup(s) : NULL;
}

static char *text_or_empty(const struct th_json *o, const char *path)
{
    const char *s = th_json_path_str(o, path);
    return th_xstrdup(s ? s : "");
}

/* ---- Making ---- */

static struct th_cel_prog *compile(const char *expr, const struct th_policy *p, unsigned flags,
                                   enum th_cel_result want, char **ret_error)
{
    const struct th_cel_env env = {
        .flags = flags | TH_CEL_ADMIT_VARIABLES | (p->param_kind ? TH_CEL_ADMIT_PARAMS : 0u),
        .variables = p->variables.v,
        .n_variables = p->variables.n};
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    struct th_cel_prog *prog = NULL;
    if (th_cel_admission_compile(expr, &env, want, &prog, &err) < 0) {
        if (ret_error) {
            *ret_error = th_xasprintf("compilation error: %s", err.msg);
        }
        return NULL;
    }
    return prog;
}

static void read_validations(struct th_policy *p, const struct th_json *list)
{
    p->validations = th_xcalloc(th_json_len(list) + 1, sizeof(*p->validations));
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *o = th_json_at(list, i);
        struct th_validation *v = &p->validations[p->n_validations++];
        v->expr = text_or_empty(o, "expression");
        v->message = text_or_empty(o, "message");
        v->reason = text_of(o, "reason");
        v->message_expr = text_of(o, "messageExpression");
        v->prog = compile(v->expr, p, TH_CEL_ADMIT_AUTHORIZER, TH_CEL_RESULT_IS_BOOL, &v->error);
        if (v->message_expr && *v->message_expr) {
            v->message_prog = compile(v->message_expr, p, 0, TH_CEL_RESULT_IS_STRING, NULL);
        }
    }
}

static void read_mutations(struct th_policy *p, const struct th_json *list)
{
    p->mutations = th_xcalloc(th_json_len(list) + 1, sizeof(*p->mutations));
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *o = th_json_at(list, i);
        struct th_mutation *m = &p->mutations[p->n_mutations++];
        m->apply = th_streq(th_json_path_str(o, "patchType"), "ApplyConfiguration");
        m->expr = text_or_empty(o, m->apply ? "applyConfiguration.expression" : "jsonPatch.expression");
        m->prog = compile(m->expr, p, TH_CEL_ADMIT_AUTHORIZER,
                          m->apply ? TH_CEL_RESULT_OBJECT : TH_CEL_RESULT_PATCHES, &m->error);
    }
}

static void read_annotations(struct th_policy *p, const struct th_json *list)
{
    p->annotations = th_xcalloc(th_json_len(list) + 1, sizeof(*p->annotations));
    for (size_t i = 0; i < th_json_len(list); i++) {
        struct th_annotation *n = &p->annotations[p->n_annotations++];
        n->key = text_or_empty(th_json_at(list, i), "key");
        n->expr = text_or_empty(th_json_at(list, i), "valueExpression");
        n->prog = compile(n->expr, p, TH_CEL_ADMIT_AUTHORIZER, TH_CEL_RESULT_STRING_OR_NULL,
                          &n->error);
    }
}

struct th_policy *th_policy_new(const struct th_json *o, bool mutating)
{
    struct th_policy *p = TH_NEW(struct th_policy);
    const struct th_json *spec = th_json_get(o, "spec");
    p->mutating = mutating;
    p->name = text_or_empty(o, "metadata.name");
    p->fail_open = th_streq(th_json_path_str(spec, "failurePolicy"), "Ignore");
    p->again = th_streq(th_json_path_str(spec, "reinvocationPolicy"), "IfNeeded");
    const char *version = th_json_path_str(spec, "paramKind.apiVersion");
    if (version && th_gv_split(version, &p->param_group, &p->param_version, NULL) >= 0) {
        p->param_kind = text_or_empty(spec, "paramKind.kind");
    }
    th_match_init(&p->match, th_json_get(spec, "matchConstraints"));
    th_conditions_init(&p->conditions, th_json_get(spec, "matchConditions"), p->param_kind != NULL);
    const struct th_cel_env env = {.flags = TH_CEL_ADMIT_AUTHORIZER |
                                            (p->param_kind ? TH_CEL_ADMIT_PARAMS : 0u)};
    th_cel_variables_init(&p->variables, th_json_get(spec, "variables"), &env);
    read_validations(p, th_json_get(spec, "validations"));
    read_mutations(p, th_json_get(spec, "mutations"));
    read_annotations(p, th_json_get(spec, "auditAnnotations"));
    return p;
}

void th_policy_free(struct th_policy *p)
{
    if (!p) {
        return;
    }
    for (size_t i = 0; i < p->n_validations; i++) {
        struct th_validation *v = &p->validations[i];
        free(v->expr);
        free(v->message);
        free(v->reason);
        free(v->message_expr);
        free(v->error);
        th_cel_prog_free(v->prog);
        th_cel_prog_free(v->message_prog);
    }
    for (size_t i = 0; i < p->n_mutations; i++) {
        free(p->mutations[i].expr);
        free(p->mutations[i].error);
        th_cel_prog_free(p->mutations[i].prog);
    }
    for (size_t i = 0; i < p->n_annotations; i++) {
        free(p->annotations[i].key);
        free(p->annotations[i].expr);
        free(p->annotations[i].error);
        th_cel_prog_free(p->annotations[i].prog);
    }
    free(p->validations);
    free(p->mutations);
    free(p->annotations);
    th_cel_variables_done(&p->variables);
    th_conditions_done(&p->conditions);
    th_match_done(&p->match);
    free(p->name);
    free(p->param_group);
    free(p->param_version);
    free(p->param_kind);
    free(p);
}

struct th_binding *th_binding_new(const struct th_json *o)
{
    struct th_binding *b = TH_NEW(struct th_binding);
    const struct th_json *actions = th_json_path(o, "spec.validationActions");
    b->name = text_or_empty(o, "metadata.name");
    b->policy = text_or_empty(o, "spec.policyName");
    th_match_init(&b->match, th_json_path(o, "spec.matchResources"));
    b->match.empty_matches = true;
    b->param_ref = th_json_dup(th_json_path(o, "spec.paramRef"));
    b->actions = th_json_dup(actions);
    for (size_t i = 0; i < th_json_len(actions); i++) {
        const char *s = th_json_str(th_json_at(actions, i));
        b->deny = b->deny || th_streq(s, "Deny");
        b->warn = b->warn || th_streq(s, "Warn");
        b->audit = b->audit || th_streq(s, "Audit");
    }
    return b;
}

void th_binding_free(struct th_binding *b)
{
    if (b) {
        free(b->name);
        free(b->policy);
        th_match_done(&b->match);
        th_json_unref(b->param_ref);
        th_json_unref(b->actions);
        free(b);
    }
}

bool th_policy_exempt(const struct th_call *c)
{
    static const char *const reviews[] = {"selfsubjectreviews", "tokenreviews",
                                          "localsubjectaccessreviews", "selfsubjectaccessreviews",
                                          "selfsubjectrulesreviews", "subjectaccessreviews"};
    bool group = th_streq(c->res->group, "authentication.k8s.io") ||
                 th_streq(c->res->group, "authorization.k8s.io");
    for (size_t i = 0; group && i < TH_ARRAY_LEN(reviews); i++) {
        if (th_streq(c->res->plural, reviews[i])) {
            return true;
        }
    }
    return false;
}

/* ---- Parameters ---- */

int th_policy_param_row(struct th_admit *a, const struct th_policy *p,
                        const struct th_resource **ret, struct th_err *err)
{
    const struct th_resource *r;
    *ret = NULL;
    if (!p->param_kind) {
        return 0;
    }
    for (size_t i = 0; (r = th_call_resource_at(a->c, i)); i++) {
        if (th_streq(r->kind, p->param_kind) && th_streq(r->group, p->param_group) &&
            th_streq(r->version, p->param_version) && (r->verbs & TH_VERB_GET)) {
            *ret = r;
            return 0;
        }
    }
    return th_fail(err, TH_R_NOT_FOUND, "failed to find resource referenced by paramKind: '%s%s%s, "
                                        "Kind=%s'",
                   p->param_group, *p->param_group ? "/" : "", p->param_version, p->param_kind);
}

static const struct th_resource *home_of(const struct th_resource *r)
{
    if (r->storage_row) {
        return r->storage_row;
    }
    if (!r->storage_gv_plural) {
        return r;
    }
    th_autostrv struct th_strv parts = TH_STRV_INIT;
    th_strv_split(&parts, r->storage_gv_plural, '/');
    return th_resource_find(th_streq(parts.v[0], "core") ? "" : parts.v[0], parts.v[1], parts.v[2]);
}

static int list_params(struct th_admit *a, const struct th_resource *r, const char *ns,
                       const struct th_json *ref, struct th_json *list, struct th_err *err)
{
    const char *name = th_json_path_str(ref, "name");
    const struct th_json *sel = th_json_get(ref, "selector");
    TH_AUTO(th_selector) struct th_selector *selector = NULL;
    if (sel) {
        TH_TRY(th_selector_from_json(sel, &selector, err));
    }
    th_autofree char *prefix = th_store_prefix(home_of(r), r->namespaced ? ns : NULL);
    TH_CLEANUP(th_store_list_done) struct th_store_list l = {.n = 0};
    TH_TRY(th_store_range(a->c->api->store, prefix, NULL, 0, 0, &l, err));
    for (size_t i = 0; i < l.n; i++) {
        if (name && *name && !th_streq(strrchr(l.objs[i]->key, '/') + 1, name)) {
            continue;
        }
        struct th_json *o = NULL;
        TH_TRY(th_object_load(r, l.objs[i], &o, err));
        if (selector && !th_selector_matches(selector, th_json_path(o, "metadata.labels"))) {
            th_json_unref(o);
            continue;
        }
        th_json_append(list, o);
    }
    return 0;
}

int th_policy_params(struct th_admit *a, const struct th_policy *p, const struct th_resource *row,
                     const struct th_binding *b, struct th_json **ret, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *list = th_json_array();
    const struct th_json *ref = b->param_ref;
    if (!p->param_kind || !ref) {
        th_json_append(list, NULL);
        *ret = th_steal(&list);
        return 0;
    }
    const char *ns = th_json_path_str(ref, "namespace");
    if (ns && *ns && !row->namespaced) {
        return th_fail(err, TH_R_INVALID,
                       "paramRef.namespace must not be provided for a cluster-scoped `paramKind`");
    }
    ns = ns && *ns ? ns : a->ns;
    if (row->namespaced && !*ns) {
        return th_fail(err, TH_R_INVALID, "cannot use namespaced paramRef in policy binding that "
                                          "matches cluster-scoped resources");
    }
    TH_TRY(list_params(a, row, ns, ref, list, err));
    if (th_json_len(list) == 0 &&
        th_streq(th_json_path_str(ref, "parameterNotFoundAction"), "Deny")) {
        return th_fail(err, TH_R_INVALID, "no params found for policy binding with `Deny` "
                                          "parameterNotFoundAction");
    }
    *ret = th_steal(&list);
    return 0;
}

/* ---- What expressions see ---- */

static bool ask(void *self, const struct th_cel_question *q, struct th_buf *reason)
{
    struct th_cel_scope *s = self;
    struct th_call *c = s->a->c;
    TH_AUTO(th_identity) struct th_identity *account = NULL;
    if (q->account) {
        th_autofree char *user = th_xasprintf("system:serviceaccount:%s:%s", q->account_ns, q->account);
        th_autofree char *group = th_xasprintf("system:serviceaccounts:%s", q->account_ns);
        const char *const groups[] = {"system:serviceaccounts", group, "system:authenticated", NULL};
        account = th_identity_new(user, NULL, groups);
    }
    struct th_attrs at = {.id = account ? account : c->req->id,
                          .verb = q->verb,
                          .resource = !q->path,
                          .path = q->path,
                          .group = q->group,
                          .version = "*",
                          .plural = q->resource,
                          .sub = q->sub,
                          .ns = q->ns,
                          .name = q->name,
                          .field_selector = *q->fields ? q->fields : NULL};
    return th_authz_allowed(c->api->authz, &at, reason);
}

static void bind(struct th_cel_scope *s, const char *name, const struct th_json *value)
{
    s->vars[s->n++] = (struct th_cel_binding){.name = name, .value = value};
}

int th_cel_scope_open(struct th_cel_scope *s, struct th_admit *a, const struct th_resource *as,
                      const struct th_json *params, const struct th_cel_variables *variables,
                      bool with_namespace, struct th_err *err)
{
    *s = (struct th_cel_scope){.a = a, .budget = TH_CEL_BUDGET};
    struct th_json *object = NULL;
    const struct th_json *old = NULL, *ns = NULL;
    bool is_namespace = !*a->c->res->group && th_streq(a->c->res->plural, "namespaces");
    TH_TRY(th_admit_form(a, as, &object, &old, err));
    if (with_namespace && *a->ns && !is_namespace) {
        TH_TRY(th_admit_namespace(a, &ns, err));
    }
    s->request = th_admit_request(a, as);
    s->authorizer = (struct th_cel_authorizer){
        .self = s,
        .allowed = ask,
        .own = {.group = a->c->res->group,
                .resource = a->c->res->plural,
                .sub = a->c->route.sub ? a->c->route.sub : "",
                .ns = a->ns,
                .name = a->name}};
    bind(s, "object", object);
    bind(s, "oldObject", old);
    bind(s, "request", s->request);
    bind(s, "namespaceObject", ns);
    bind(s, "params", params);
    s->vars[s->n++] =
        (struct th_cel_binding){.name = "authorizer", .authorizer = &s->authorizer};
    s->vars[s->n++] = (struct th_cel_binding){
        .name = "authorizer.requestResource", .authorizer = &s->authorizer, .check = true};
    if (variables) {
        s->vars[s->n++] = (struct th_cel_binding){
            .name = "variables", .named = variables->v, .n_named = variables->n};
    }
    s->session = th_cel_session_new(s->vars, s->n, a->c->ctx.now_ms);
    return 0;
}

void th_cel_scope_close(struct th_cel_scope *s)
{
    th_cel_session_free(s->session);
    th_json_unref(s->request);
}

/* ---- Match conditions ---- */

/* What several errors are called together. */
static int fail_all(const struct th_strv *errors, struct th_err *err)
{
    th_autofree char *text = th_strv_join(errors, ", ");
    return th_fail(err, TH_R_INVALID, "%s%s%s", errors->n > 1 ? "[" : "", text,
                   errors->n > 1 ? "]" : "");
}

int th_conditions_match(const struct th_conditions *c, struct th_admit *a,
                        const struct th_resource *as, const struct th_json *params, bool fail_open,
                        struct th_err *err)
{
    if (c->n == 0) {
        return 1;
    }
    TH_CLEANUP(th_cel_scope_close) struct th_cel_scope s = {.n = 0};
    TH_TRY(th_cel_scope_open(&s, a, as, params, NULL, false, err));
    s.budget = TH_CEL_BUDGET_CONDITIONS;
    th_autostrv struct th_strv errors = TH_STRV_INIT;
    for (size_t i = 0; i < c->n; i++) {
        const struct th_condition *k = &c->v[i];
        enum th_cel_outcome out = TH_CEL_FALSE;
        TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
        if (!k->prog) {
            th_strv_add(&errors, k->error);
            continue;
        }
        int r = th_cel_admission_eval(s.session, k->prog, k->expr, &s.budget, &out, NULL, NULL,
                                      &local);
        if (r == -TH_R_EXPIRED) {
            return fail_open ? 0 : th_fail(err, TH_R_INVALID, "%s", local.msg);
        }
        if (r < 0) {
            th_strv_add(&errors, local.msg);
        } else if (out == TH_CEL_FALSE) {
            return 0;
        }
    }
    return errors.n == 0 ? 1 : fail_open ? 0 : fail_all(&errors, err);
}
