/* Authorization: the authorizers in their order, and what a refusal says.
 *
 * As upstream: members of system:masters first, then each mode of --authorization-mode; the first
 * that allows ends it, and the reasons of those that do not are joined for the message. Denials do
 * not exist apart from that: there is no authorizer here that says a hard no.
 *
 * In-process parts of the control plane act as themselves (the scheduler's user, the controllers'
 * ServiceAccounts) with their default roles; the API server's own client, and controllers whose row
 * names no account, are `system` and are not asked.
 */
#include "controlplane/api/rbac.h"

#include "controlplane/resources/rbac_defaults.h"

enum mode { MODE_NODE = 1, MODE_RBAC = 2, MODE_ALLOW = 4 };

struct th_authz {
    struct th_store *store;
    struct th_rbac *rbac;
    struct th_rules node_rules; /* of system:node, as a new cluster has it */
    unsigned modes;
};

static int parse_modes(const char *text, unsigned *ret, struct th_err *err)
{
    static const struct {
        const char *name;
        unsigned bit;
    } known[] = {{"Node", MODE_NODE}, {"RBAC", MODE_RBAC}, {"AlwaysAllow", MODE_ALLOW},
                 {"AlwaysDeny", 0}};
    th_autostrv struct th_strv names = TH_STRV_INIT;
    th_strv_split(&names, text, ',');
    for (size_t i = 0; i < names.n; i++) {
        size_t k = 0;
        while (k < TH_ARRAY_LEN(known) && strcmp(known[k].name, names.v[i]) != 0) {
            k++;
        }
        if (k == TH_ARRAY_LEN(known)) {
            (void)th_fail(err, TH_R_USAGE, "unknown authorization mode \"%s\"", names.v[i]);
            return th_hint(err, "modes are Node, RBAC, AlwaysAllow and AlwaysDeny");
        }
        *ret |= known[k].bit;
    }
    return 0;
}

int th_authz_new(struct th_store *store, const char *modes, struct th_authz **ret,
                 struct th_err *err)
{
    unsigned bits = 0;
    TH_TRY(parse_modes(modes ? modes : "Node,RBAC", &bits, err));
    struct th_authz *a = TH_NEW(struct th_authz);
    a->store = store;
    a->modes = bits;
    a->rbac = th_rbac_new(store);
    TH_AUTO(th_json) struct th_json *role = th_rbac_default("ClusterRole", "system:node");
    th_rules_add_json(&a->node_rules, th_json_get(role, "rules"));
    *ret = a;
    return 0;
}

void th_authz_free(struct th_authz *a)
{
    if (!a) {
        return;
    }
    th_rbac_free(a->rbac);
    th_rules_done(&a->node_rules);
    free(a);
}

struct th_rbac *th_authz_rbac(struct th_authz *a)
{
    return a->rbac;
}

bool th_authz_uses_rbac(const struct th_authz *a)
{
    return a->modes & MODE_RBAC;
}

bool th_authz_allowed(struct th_authz *a, const struct th_attrs *at, struct th_buf *reason)
{
    if (at->id->system || (a->modes & MODE_ALLOW) || th_identity_in(at->id, "system:masters")) {
        return true;
    }
    const char *node = a->modes & MODE_NODE ? th_identity_node(at->id) : NULL;
    if (node && th_node_allowed(a->store, node, &a->node_rules, at, reason)) {
        return true;
    }
    if (!(a->modes & MODE_RBAC)) {
        return false;
    }
    th_autobuf struct th_buf why = TH_BUF_INIT;
    bool ok = th_rbac_allowed(a->rbac, at, reason ? &why : NULL);
    if (reason && ok) {
        th_buf_clear(reason); /* what the node authorizer did not like does not count any more */
    }
    if (reason && why.n > 0) {
        th_buf_printf(reason, "%s%s", reason->n > 0 ? "\n" : "", th_buf_cstr(&why));
    }
    return ok;
}

/* Upstream keeps what users chose from being read as markup. */
static char *escape(const char *s)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    for (; *s; s++) {
        const char *as = *s == '&' ? "&amp;" : *s == '<' ? "&lt;" : *s == '>' ? "&gt;" : NULL;
        if (as) {
            th_buf_puts(&b, as);
        } else {
            th_buf_putc(&b, *s);
        }
    }
    th_buf_puts(&b, "");
    return b.n > 0 ? th_buf_steal(&b, NULL) : th_xstrdup("");
}

static char *describe(const struct th_attrs *at)
{
    if (!at->resource) {
        return th_xasprintf("User \"%s\" cannot %s path \"%s\"", at->id->user, at->verb, at->path);
    }
    bool sub = at->sub && *at->sub;
    bool ns = at->ns && *at->ns;
    return th_xasprintf("User \"%s\" cannot %s resource \"%s%s%s\" in API group \"%s\" %s%s%s",
                        at->id->user, at->verb, at->plural, sub ? "/" : "", sub ? at->sub : "",
                        at->group, ns ? "in the namespace \"" : "at the cluster scope",
                        ns ? at->ns : "", ns ? "\"" : "");
}

int th_authorize(struct th_api *api, const struct th_attrs *at, struct th_err *err)
{
    if (th_authz_allowed(api->authz, at, NULL)) {
        return 0;
    }
    th_autobuf struct th_buf reason = TH_BUF_INIT;
    (void)th_authz_allowed(api->authz, at, &reason); /* again, for the words */
    th_autofree char *plain = describe(at);
    th_autofree char *what = escape(plain);
    const char *sep = reason.n > 0 ? ": " : "";
    if (!at->resource) {
        /* apierrors.NewForbidden without a resource */
        return th_fail_obj(err, TH_R_FORBIDDEN, "", NULL, NULL, "forbidden: %s%s%s", what, sep,
                           th_buf_cstr(&reason));
    }
    th_autofree char *gr = th_gr_name(at->group, at->plural);
    bool named = at->name && *at->name;
    return th_fail_obj(err, TH_R_FORBIDDEN, at->group, at->plural, named ? at->name : NULL,
                       "%s%s%s%s is forbidden: %s%s%s", gr, named ? " \"" : "",
                       named ? at->name : "", named ? "\"" : "", what, sep, th_buf_cstr(&reason));
}

/* ---- what rows ask (resources/access.h) ---- */

static bool access_allowed(void *self, const struct th_attrs *at, struct th_buf *reason)
{
    struct th_api *api = self;
    return th_authz_allowed(api->authz, at, reason);
}

static struct th_json *access_rules(void *self, const struct th_identity *id, const char *ns,
                                    bool *ret_incomplete, struct th_buf *problem)
{
    struct th_api *api = self;
    struct th_authz *a = api->authz;
    struct th_json *list = th_json_array();
    *ret_incomplete = false;
    if ((a->modes & MODE_NODE) && th_identity_node(id)) {
        *ret_incomplete = true;
        th_buf_puts(problem, "node authorizer does not support user rule resolution");
    }
    if (a->modes & MODE_ALLOW) {
        th_json_append(list, th_json_build("{'verbs':['*'],'apiGroups':['*'],'resources':['*']}"));
        th_json_append(list, th_json_build("{'verbs':['*'],'nonResourceURLs':['*']}"));
    }
    if (a->modes & MODE_RBAC) {
        TH_CLEANUP(th_rules_done) struct th_rules rules = {.v = NULL};
        th_autobuf struct th_buf more = TH_BUF_INIT;
        th_rbac_rules_for(a->rbac, id, ns, &rules, &more);
        for (size_t i = 0; i < rules.n; i++) {
            th_json_append(list, th_rule_json(&rules.v[i]));
        }
        if (more.n > 0) {
            th_buf_printf(problem, "%s%s", problem->n > 0 ? ", " : "", th_buf_cstr(&more));
        }
    }
    return list;
}

void th_authz_access(struct th_api *api, struct th_access *ret)
{
    *ret = (struct th_access){.self = api,
                              .allowed = access_allowed,
                              .rules = access_rules,
                              .token = th_authn_token,
                              .usage = th_usage_get};
}
