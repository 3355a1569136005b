/* Nobody hands out more than he has: roles and bindings are looked at when they are written.
 *
 * Who writes a role must hold every permission in it already, or the verb "escalate" on it; who
 * writes a binding must hold all of the role's, or the verb "bind" on the role. To let a ClusterRole
 * gather others' rules one must hold everything. Members of system:masters do. Changes that only let
 * the garbage collector finish its work (owner references, finalizers) are free.
 *
 * Upstream has this in the storage of the four kinds, behind mutating and before validating
 * admission; here it is the last of the mutating plugins, without a name, so that it cannot be
 * switched off.
 */
#include "controlplane/api/admission/admission.h"
#include "controlplane/api/rbac.h"

#define GROUP "rbac.authorization.k8s.io"

/* Only ownerReferences and finalizers differ (and what the server keeps itself). */
static bool only_for_gc(const struct th_json *obj, const struct th_json *old)
{
    TH_AUTO(th_json) struct th_json *a = th_json_dup(obj);
    TH_AUTO(th_json) struct th_json *b = th_json_dup(old);
    static const char *const free_fields[] = {"metadata.ownerReferences", "metadata.finalizers",
                                              "metadata.managedFields", "metadata.resourceVersion"};
    for (size_t i = 0; i < TH_ARRAY_LEN(free_fields); i++) {
        (void)th_json_path_del(a, free_fields[i]);
        (void)th_json_path_del(b, free_fields[i]);
    }
    return th_json_equal(a, b);
}

static bool allowed(struct th_call *c, const char *verb, const char *plural, const char *name)
{
    struct th_attrs at = {.id = c->req->id,
                          .verb = verb,
                          .resource = true,
                          .group = GROUP,
                          .version = "*",
                          .plural = plural,
                          .ns = c->route.ns,
                          .name = name};
    return th_authz_allowed(c->api->authz, &at, NULL);
}

/* What is missing, in upstream's words, or nothing. */
static bool covered(struct th_call *c, const struct th_rules *asked, struct th_buf *why)
{
    TH_CLEANUP(th_rules_done) struct th_rules owned = {.v = NULL};
    TH_CLEANUP(th_rules_done) struct th_rules missing = {.v = NULL};
    th_autobuf struct th_buf problem = TH_BUF_INIT;
    const struct th_identity *id = c->req->id;
    th_rbac_rules_for(th_authz_rbac(c->api->authz), id, c->route.ns, &owned, &problem);
    th_rules_uncovered(&owned, asked, &missing);
    if (missing.n == 0) {
        return true;
    }
    th_autofree char *groups = th_strv_join(&id->groups, "\" \"");
    th_buf_printf(why,
                  "user \"%s\" (groups=[%s%s%s]) is attempting to grant RBAC permissions not "
                  "currently held:\n",
                  id->user, id->groups.n ? "\"" : "", groups, id->groups.n ? "\"" : "");
    th_rules_describe(&missing, why);
    if (problem.n > 0) {
        th_buf_printf(why, "; resolution errors: [%s]", th_buf_cstr(&problem));
    }
    return false;
}

static bool gathers(const struct th_json *role)
{
    return th_json_len(th_json_path(role, "aggregationRule.clusterRoleSelectors")) > 0;
}

static int check_role(struct th_call *c, const struct th_json *obj, const struct th_json *old,
                      struct th_err *err)
{
    if (allowed(c, "escalate", c->res->plural, c->route.name) || (old && only_for_gc(obj, old))) {
        return 0;
    }
    const char *name = th_json_path_str(obj, "metadata.name");
    TH_CLEANUP(th_rules_done) struct th_rules asked = {.v = NULL};
    th_autobuf struct th_buf why = TH_BUF_INIT;
    th_rules_add_json(&asked, th_json_get(obj, "rules"));
    if (!covered(c, &asked, &why)) {
        return th_fail_forbidden(err, c->res, name, "%s", th_buf_cstr(&why));
    }
    if (!gathers(obj) && !(old && gathers(old))) {
        return 0;
    }
    TH_AUTO(th_json) struct th_json *everything =
        th_json_build("[{'verbs':['*'],'apiGroups':['*'],'resources':['*']},"
                      "{'verbs':['*'],'nonResourceURLs':['*']}]");
    TH_CLEANUP(th_rules_done) struct th_rules all = {.v = NULL};
    th_rules_add_json(&all, everything);
    if (!covered(c, &all, &why)) {
        return th_fail_forbidden(err, c->res, name,
                                 "must have cluster-admin privileges to use the aggregationRule");
    }
    return 0;
}

static int check_binding(struct th_call *c, const struct th_json *obj, const struct th_json *old,
                         struct th_err *err)
{
    const char *kind = th_json_path_str(obj, "roleRef.kind");
    const char *role = th_json_path_str(obj, "roleRef.name");
    if (old && only_for_gc(obj, old)) {
        return 0;
    }
    bool known = th_streq(kind, "Role") || th_streq(kind, "ClusterRole");
    if (!known || !role) {
        return 0; /* validation has the word */
    }
    if (allowed(c, "bind", th_streq(kind, "Role") ? "roles" : "clusterroles", role)) {
        return 0;
    }
    TH_CLEANUP(th_rules_done) struct th_rules asked = {.v = NULL};
    th_autobuf struct th_buf why = TH_BUF_INIT;
    TH_TRY(th_rbac_role_rules(th_authz_rbac(c->api->authz), kind, role, c->route.ns, &asked, err));
    if (!covered(c, &asked, &why)) {
        return th_fail_forbidden(err, c->res, th_json_path_str(obj, "metadata.name"), "%s",
                                 th_buf_cstr(&why));
    }
    return 0;
}

static int mutate(struct th_call *c, struct th_json *obj, const struct th_json *old,
                  struct th_err *err)
{
    if (!th_streq(c->res->group, GROUP) || c->sub || c->req->id->system ||
        th_identity_in(c->req->id, "system:masters") || !th_authz_uses_rbac(c->api->authz)) {
        return 0;
    }
    return th_endswith(c->res->plural, "bindings") ? check_binding(c, obj, old, err)
                                                   : check_role(c, obj, old, err);
}

const struct th_admission_plugin th_admission_rbac_escalation = {.mutate = mutate};
