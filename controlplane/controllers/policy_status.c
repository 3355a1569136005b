/*
 * Type checking of ValidatingAdmissionPolicies: status.typeChecking.
 *
 * A policy's expressions see objects as dynamic values, so that a wrong member or a comparison of an int
 * with a string fails only when a request comes. This controller compiles them once more against the
 * types that the policy's rules name and writes what the compiler says into the policy's status. It
 * warns and refuses nothing.
 *
 * Types are the built-in tables, and for custom resources the schema that the API server publishes as
 * OpenAPI, as upstream has it from there. Rules with wildcards name no type; of each rule at most ten
 * types are looked at.
 */
#include "controlplane/controllers/controller.h"
#include "controlplane/schema/cel/cel_admission.h"

#define MAX_TYPES 10
#define POLICIES ((struct th_gvr){"admissionregistration.k8s.io", "v1", "validatingadmissionpolicies"})

struct checked_type {
    char *text; /* "apps/v1, Kind=Deployment" */
    struct th_cel_var_type var;
    struct th_structural *schema; /* owned; NULL of a built-in type */
};
struct types {
    struct checked_type *v;
    size_t n, cap;
};

static void types_done(struct types *l)
{
    for (size_t i = 0; i < l->n; i++) {
        free(l->v[i].text);
        th_structural_free(l->v[i].schema);
    }
    free(l->v);
}

static const char *str_of(const struct th_json *o, const char *path)
{
    const char *s = th_json_path_str(o, path);
    return s ? s : "";
}

/* ---- Types ---- */

/* The schema that OpenAPI has for a custom kind; NULL when it has none. */
static struct th_structural *published(struct th_client *client, const char *group,
                                       const char *version, const char *kind)
{
    th_autofree char *path = th_xasprintf("/openapi/v3/apis/%s/%s", group, version);
    th_autobuf struct th_buf body = TH_BUF_INIT;
    TH_AUTO(th_json) struct th_json *doc = NULL;
    const struct th_raw_req req = {.method = "GET", .path = path};
    if (th_client_raw(client, &req, NULL, &body, NULL) < 0 ||
        th_json_parse(th_buf_cstr(&body), body.n, NULL, &doc, NULL) < 0) {
        return NULL;
    }
    struct th_json_iter it = TH_JSON_ITER(th_json_path(doc, "components.schemas"));
    while (th_json_next(&it)) {
        const struct th_json *list = th_json_get(it.value, "x-kubernetes-group-version-kind");
        for (size_t i = 0; i < th_json_len(list); i++) {
            const struct th_json *k = th_json_at(list, i);
            if (th_streq(str_of(k, "kind"), kind) && th_streq(str_of(k, "group"), group) &&
                th_streq(str_of(k, "version"), version)) {
                return th_structural_new(it.value, true, it.name);
            }
        }
    }
    return NULL;
}

/* False when nothing is known of the kind. */
static bool type_of(struct th_client *client, const char *group, const char *version,
                    const char *kind, struct checked_type *ret)
{
    const struct th_kind *k = th_kind_find(group, version, kind);
    *ret = (struct checked_type){.text = NULL};
    if (k) {
        ret->var = (struct th_cel_var_type){.kind = TH_CEL_VAR_TABLE, .table = k->type};
    } else {
        ret->schema = *group ? published(client, group, version, kind) : NULL;
        ret->var = (struct th_cel_var_type){.kind = TH_CEL_VAR_SCHEMA,
                                            .schema = ret->schema,
                                            .resource = true,
                                            .table = th_type_find("meta.ObjectMeta")};
    }
    if (!k && !ret->schema) {
        return false;
    }
    ret->text = th_xasprintf("%s/%s, Kind=%s", group, version, kind);
    return true;
}

static bool has_star(const struct th_json *list)
{
    for (size_t i = 0; i < th_json_len(list); i++) {
        if (strchr(th_json_str(th_json_at(list, i)), '*')) {
            return true;
        }
    }
    return false;
}

static void add_type(struct types *l, struct th_client *client, const struct th_rl_item *r)
{
    struct checked_type t;
    if (!type_of(client, r->group, r->version, r->kind, &t)) {
        return;
    }
    for (size_t i = 0; i < l->n; i++) {
        if (th_streq(l->v[i].text, t.text)) {
            free(t.text);
            th_structural_free(t.schema);
            return;
        }
    }
    l->v = th_xgrow(l->v, &l->cap, l->n + 1, sizeof(*l->v));
    l->v[l->n++] = t;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(((const struct checked_type *)a)->text, ((const struct checked_type *)b)->text);
}

static bool lists(const struct th_json *list, const char *s)
{
    for (size_t i = 0; i < th_json_len(list); i++) {
        if (th_streq(th_json_str(th_json_at(list, i)), s)) {
            return true;
        }
    }
    return false;
}

static void gather(struct types *l, struct th_client *client, const struct th_rl *served,
                   const struct th_json *policy)
{
    const struct th_json *rules = th_json_path(policy, "spec.matchConstraints.resourceRules");
    for (size_t i = 0; i < th_json_len(rules); i++) {
        const struct th_json *r = th_json_at(rules, i);
        const struct th_json *groups = th_json_get(r, "apiGroups");
        const struct th_json *versions = th_json_get(r, "apiVersions");
        size_t n = 0;
        for (size_t k = 0; !has_star(groups) && !has_star(versions) && k < served->n && n < MAX_TYPES;
             k++) {
            const struct th_rl_item *s = &served->v[k];
            if (lists(groups, s->group) && lists(versions, s->version) &&
                lists(th_json_get(r, "resources"), s->plural)) {
                add_type(l, client, s);
                n++;
            }
        }
    }
    if (l->n) {
        qsort(l->v, l->n, sizeof(*l->v), by_text);
    }
}

/* ---- Checking ---- */

static void check(struct types *l, const struct th_json *policy, const struct checked_type *params,
                  const char *expr, const char *at, struct th_json *warnings)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    for (size_t i = 0; i < l->n; i++) {
        struct th_cel_env env = {.flags = TH_CEL_ADMIT_AUTHORIZER, .object = &l->v[i].var};
        TH_CLEANUP(th_cel_variables_done) struct th_cel_variables vars = {.v = NULL};
        if (th_json_path(policy, "spec.paramKind")) {
            env.flags |= TH_CEL_ADMIT_PARAMS;
            env.params = params->text ? &params->var : NULL;
        }
        th_cel_variables_init(&vars, th_json_path(policy, "spec.variables"), &env);
        env.flags |= TH_CEL_ADMIT_VARIABLES;
        env.variables = vars.v;
        env.n_variables = vars.n;
        TH_AUTO(th_cel_prog) struct th_cel_prog *p = NULL;
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        if (th_cel_admission_compile(expr, &env, TH_CEL_RESULT_ANY, &p, &err) < 0) {
            static const char prefix[] = "compilation failed: ";
            const char *msg = err.msg;
            msg += th_startswith(msg, prefix) ? strlen(prefix) : 0;
            th_buf_printf(&b, "%s%s: %s\n", b.n ? "\n" : "", l->v[i].text, msg);
        }
    }
    if (b.n) {
        th_json_append(warnings,
                       th_json_build("{'fieldRef':%s,'warning':%s}", at, th_buf_cstr(&b)));
    }
}

static struct th_json *check_all(struct types *l, const struct th_json *policy,
                                 const struct checked_type *params)
{
    static const char *const members[] = {"expression", "messageExpression"};
    struct th_json *warnings = th_json_array();
    const struct th_json *list = th_json_path(policy, "spec.validations");
    for (size_t i = 0; i < th_json_len(list); i++) {
        for (size_t k = 0; k < TH_ARRAY_LEN(members); k++) {
            const char *expr = str_of(th_json_at(list, i), members[k]);
            th_autofree char *at = th_xasprintf("spec.validations[%zu].%s", i, members[k]);
            if (*expr) {
                check(l, policy, params, expr, at, warnings);
            }
        }
    }
    return warnings;
}

static int reconcile(struct th_ctrl *c, const char *key, int64_t *ret_after_ms, struct th_err *err)
{
    (void)ret_after_ms;
    TH_AUTO(th_json) struct th_json *policy =
        th_informer_get(th_ctrl_informer(c, POLICIES), NULL, key);
    int64_t generation = th_json_path_int(policy, "metadata.generation", 0);
    if (!policy || (th_json_path(policy, "status.typeChecking") &&
                    th_json_path_int(policy, "status.observedGeneration", 0) >= generation)) {
        return 0;
    }
    struct th_client *client = th_ctrl_client(c);
    TH_CLEANUP(th_rl_done) struct th_rl served = TH_RL_INIT;
    TH_CLEANUP(types_done) struct types l = {.v = NULL};
    struct checked_type params = {.text = NULL};
    TH_TRY(th_rl_discover(client, &served, err));
    gather(&l, client, &served, policy);
    th_autofree char *group = NULL;
    th_autofree char *version = NULL;
    const char *gv = th_json_path_str(policy, "spec.paramKind.apiVersion");
    if (gv && th_gv_split(gv, &group, &version, NULL) >= 0) {
        (void)type_of(client, group, version, str_of(policy, "spec.paramKind.kind"), &params);
    }
    struct th_json *warnings = check_all(&l, policy, &params);
    free(params.text);
    th_structural_free(params.schema);
    struct th_json *status = th_json_dup(th_json_get(policy, "status"));
    status = status ? status : th_json_object();
    th_json_set_int(status, "observedGeneration", generation);
    th_json_set(status, "typeChecking", th_json_object());
    if (th_json_len(warnings)) {
        th_json_path_set(status, "typeChecking.expressionWarnings", warnings);
    } else {
        th_json_unref(warnings);
    }
    return th_ctrl_write_status(c, key, POLICIES, policy, status, err);
}

static const struct th_ctrl_watch watches[] = {
    {.gvr = {"admissionregistration.k8s.io", "v1", "validatingadmissionpolicies"},
     .on_event = th_ctrl_on_self},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_policy_status = {
    .name = "validatingadmissionpolicy-status-controller",
    .account = "validatingadmissionpolicy-status-controller",
    .watches = watches,
    .reconcile = reconcile,
};
