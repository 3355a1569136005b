/*
 * The environment of expressions in webhooks' match conditions and in admission policies.
 *
 * object, oldObject and params are dynamic: their kind is known only when a request comes. request and
 * namespaceObject are typed by the built-in types AdmissionRequest and Namespace without the members
 * that upstream keeps from expressions, so that a wrong member is refused when it is written.
 */
#include "controlplane/schema/cel/cel_admission.h"

#define MAX_VARS 8

int th_cel_admission_compile(const char *text, const struct th_cel_env *env,
                             enum th_cel_result want, struct th_cel_prog **ret, struct th_err *err)
{
    static const char *const not_in_request[] = {"object", "oldObject", "uid", NULL};
    static const char *const not_in_namespace[] = {"apiVersion", "kind", NULL};
    struct th_cel_var_type v[MAX_VARS];
    struct th_cel_var_type object = {.kind = TH_CEL_VAR_DYN}, params = {.kind = TH_CEL_VAR_DYN};
    object = env->object ? *env->object : object;
    params = env->params ? *env->params : params;
    size_t n = 0;
    object.name = "object";
    v[n++] = object;
    object.name = "oldObject";
    v[n++] = object;
    v[n++] = (struct th_cel_var_type){.name = "request",
                                      .kind = TH_CEL_VAR_TABLE,
                                      .table = th_type_find("admission.v1.AdmissionRequest"),
                                      .hidden = not_in_request};
    v[n++] = (struct th_cel_var_type){.name = "namespaceObject",
                                      .kind = TH_CEL_VAR_TABLE,
                                      .table = th_type_find("core.v1.Namespace"),
                                      .hidden = not_in_namespace};
    if (env->flags & TH_CEL_ADMIT_PARAMS) {
        params.name = "params";
        v[n++] = params;
    }
    if (env->flags & TH_CEL_ADMIT_AUTHORIZER) {
        v[n++] = (struct th_cel_var_type){.name = "authorizer", .kind = TH_CEL_VAR_AUTHORIZER};
        v[n++] = (struct th_cel_var_type){.name = "authorizer.requestResource",
                                          .kind = TH_CEL_VAR_RESOURCE_CHECK};
    }
    if (env->flags & TH_CEL_ADMIT_VARIABLES) {
        v[n++] = (struct th_cel_var_type){.name = "variables",
                                          .kind = TH_CEL_VAR_NAMED,
                                          .named = env->variables,
                                          .n_named = env->n_variables};
    }
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    int r = th_cel_compile(text, v, n, want, ret, &local);
    if (r < 0) {
        return th_fail(err, TH_R_INVALID, "%s%s",
                       th_startswith(local.msg, "ERROR: ") ? "compilation failed: " : "", local.msg);
    }
    return 0;
}

void th_cel_variables_init(struct th_cel_variables *l, const struct th_json *list,
                           const struct th_cel_env *env)
{
    size_t n = th_json_len(list);
    *l = (struct th_cel_variables){.v = th_xcalloc(n + 1, sizeof(*l->v)),
                                   .progs = th_xcalloc(n + 1, sizeof(struct th_cel_prog *))};
    for (size_t i = 0; i < n; i++) {
        const char *name = th_json_path_str(th_json_at(list, i), "name");
        const char *expr = th_json_path_str(th_json_at(list, i), "expression");
        struct th_cel_env e = *env;
        e.flags |= TH_CEL_ADMIT_VARIABLES;
        e.variables = l->v;
        e.n_variables = i;
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        l->v[i].name = th_xstrdup(name ? name : "");
        if (th_cel_admission_compile(expr ? expr : "", &e, TH_CEL_RESULT_ANY, &l->progs[i], &err) < 0) {
            l->v[i].error = th_xstrdup(err.msg);
        }
        l->v[i].prog = l->progs[i];
        l->n++;
    }
}

void th_cel_variables_done(struct th_cel_variables *l)
{
    for (size_t i = 0; i < l->n; i++) {
        th_cel_prog_free(l->progs[i]);
        free((char *)(uintptr_t)l->v[i].name);
        free((char *)(uintptr_t)l->v[i].error);
    }
    free(l->v);
    free(l->progs);
    *l = (struct th_cel_variables){.v = NULL};
}

int th_cel_admission_eval(struct th_cel_session *s, const struct th_cel_prog *p, const char *expr,
                          int64_t *budget, enum th_cel_outcome *ret, char **ret_text,
                          struct th_json **ret_json, struct th_err *err)
{
    uint64_t cost = 0;
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    int r = th_cel_session_eval(s, p, TH_CEL_PER_CALL_LIMIT, ret, &cost, ret_text, ret_json, &local);
    if (cost > (uint64_t)*budget) {
        *budget = 0;
        return th_fail(err, TH_R_EXPIRED,
                       "validation failed due to running out of cost budget, no further validation "
                       "rules will be run");
    }
    *budget -= (int64_t)cost;
    if (r == -TH_R_INVALID) { /* a result that is not what it says */
        return th_fail(err, TH_R_INVALID, "%s", local.msg);
    }
    return r < 0 ? th_fail(err, TH_R_INVALID, "expression '%s' resulted in error: %s", expr, local.msg)
                 : 0;
}
