/* Authorization: system:masters, nodes, then RBAC.
 *
 * RBAC is evaluated on parsed copies of the roles and bindings. They change rarely and are asked for
 * constantly, so the copies are kept and rebuilt when the set in the store changes; the set's count
 * and newest revision tell (a delete changes the count, a write the revision). Everything happens
 * under one lock, since trees belong to one thread at a time; an evaluation takes microseconds.
 *
 * Aggregated ClusterRoles are resolved here by their label selectors too, so that admin, edit and
 * view work before any controller has filled their rules in.
 *
 * Nodes (group system:nodes, user system:node:<name>) get what a node agent needs by a short list
 * in place of upstream's graph: reads of everything it mounts or runs, writes of its own kinds.
 */
#include "controlplane/api/priv.h"

struct role {
    char *ns, *name; /* ns "" for ClusterRole */
    struct th_json *tree;
};
struct binding {
    char *ns; /* "" for ClusterRoleBinding */
    struct th_json *tree;
};
struct th_authz {
    struct th_store *store;
    pthread_mutex_t lock; /* guards everything below */
    bool built;
    size_t seen_n;
    int64_t seen_rv;
    struct role *roles;
    size_t n_roles, cap_roles;
    struct binding *bindings;
    size_t n_bindings, cap_bindings;
};

struct th_authz *th_authz_new(struct th_store *store)
{
    struct th_authz *a = TH_NEW(struct th_authz);
    a->store = store;
    (void)pthread_mutex_init(&a->lock, NULL);
    return a;
}

static void drop(struct th_authz *a)
{
    for (size_t i = 0; i < a->n_roles; i++) {
        free(a->roles[i].ns);
        free(a->roles[i].name);
        th_json_unref(a->roles[i].tree);
    }
    for (size_t i = 0; i < a->n_bindings; i++) {
        free(a->bindings[i].ns);
        th_json_unref(a->bindings[i].tree);
    }
    a->n_roles = 0;
    a->n_bindings = 0;
}

void th_authz_free(struct th_authz *a)
{
    if (!a) {
        return;
    }
    drop(a);
    free(a->roles);
    free(a->bindings);
    (void)pthread_mutex_destroy(&a->lock);
    free(a);
}

static void add(struct th_authz *a, const struct th_obj *o)
{
    TH_AUTO(th_json) struct th_json *tree = NULL;
    if (th_json_parse(o->bytes, o->n, NULL, &tree, NULL) < 0) {
        return;
    }
    const char *kind = th_json_path_str(tree, "kind");
    const char *ns = th_json_path_str(tree, "metadata.namespace");
    const char *name = th_json_path_str(tree, "metadata.name");
    if (th_endswith(kind ? kind : "", "Binding")) {
        a->bindings = th_xgrow(a->bindings, &a->cap_bindings, a->n_bindings + 1,
                               sizeof(*a->bindings));
        a->bindings[a->n_bindings++] =
            (struct binding){.ns = th_xstrdup(ns ? ns : ""), .tree = th_steal(&tree)};
    } else {
        a->roles = th_xgrow(a->roles, &a->cap_roles, a->n_roles + 1, sizeof(*a->roles));
        a->roles[a->n_roles++] = (struct role){.ns = th_xstrdup(ns ? ns : ""),
                                               .name = th_xstrdup(name ? name : ""),
                                               .tree = th_steal(&tree)};
    }
}

static void refresh(struct th_authz *a)
{
    TH_CLEANUP(th_store_list_done) struct th_store_list l = {.n = 0};
    if (th_store_range(a->store, "rbac.authorization.k8s.io/", NULL, 0, 0, &l, NULL) < 0) {
        return;
    }
    int64_t newest = 0;
    for (size_t i = 0; i < l.n; i++) {
        newest = l.objs[i]->rv > newest ? l.objs[i]->rv : newest;
    }
    if (a->built && a->seen_n == l.n && a->seen_rv == newest) {
        return;
    }
    drop(a);
    for (size_t i = 0; i < l.n; i++) {
        add(a, l.objs[i]);
    }
    a->built = true;
    a->seen_n = l.n;
    a->seen_rv = newest;
}

static bool has(const struct th_json *list, const char *s)
{
    for (size_t i = 0; i < th_json_len(list); i++) {
        if (th_streq(th_json_str(th_json_at(list, i)), s)) {
            return true;
        }
    }
    return false;
}

static bool path_matches(const struct th_json *urls, const char *path)
{
    for (size_t i = 0; i < th_json_len(urls); i++) {
        const char *u = th_json_str(th_json_at(urls, i));
        size_t n = u ? strlen(u) : 0;
        if (n > 0 && u[n - 1] == '*' ? strncmp(path, u, n - 1) == 0 : th_streq(u, path)) {
            return true;
        }
    }
    return false;
}

static bool rule_allows(const struct th_json *rule, const struct th_attrs *at)
{
    const struct th_json *verbs = th_json_get(rule, "verbs");
    if (!has(verbs, at->verb) && !has(verbs, "*")) {
        return false;
    }
    if (!at->resource) {
        return path_matches(th_json_get(rule, "nonResourceURLs"), at->path);
    }
    const struct th_json *groups = th_json_get(rule, "apiGroups");
    if (!has(groups, at->group) && !has(groups, "*")) {
        return false;
    }
    const struct th_json *resources = th_json_get(rule, "resources");
    bool sub = at->sub && *at->sub;
    th_autofree char *full = sub ? th_xasprintf("%s/%s", at->plural, at->sub)
                                 : th_xstrdup(at->plural);
    th_autofree char *any = sub ? th_xasprintf("*/%s", at->sub) : NULL;
    if (!has(resources, "*") && !has(resources, full) && !(any && has(resources, any))) {
        return false;
    }
    const struct th_json *names = th_json_get(rule, "resourceNames");
    return th_json_len(names) == 0 || (at->name && has(names, at->name));
}

static bool rules_allow(const struct th_json *rules, const struct th_attrs *at)
{
    for (size_t i = 0; i < th_json_len(rules); i++) {
        if (rule_allows(th_json_at(rules, i), at)) {
            return true;
        }
    }
    return false;
}

static bool role_allows(const struct th_authz *a, const struct role *r, const struct th_attrs *at,
                        int depth)
{
    if (rules_allow(th_json_get(r->tree, "rules"), at)) {
        return true;
    }
    const struct th_json *sel = th_json_path(r->tree, "aggregationRule.clusterRoleSelectors");
    for (size_t i = 0; depth < 4 && i < th_json_len(sel); i++) {
        TH_AUTO(th_selector) struct th_selector *s = NULL;
        if (th_selector_from_json(th_json_at(sel, i), &s, NULL) < 0) {
            continue;
        }
        for (size_t k = 0; k < a->n_roles; k++) {
            const struct role *other = &a->roles[k];
            if (other != r && !*other->ns &&
                th_selector_matches(s, th_json_path(other->tree, "metadata.labels")) &&
                role_allows(a, other, at, depth + 1)) {
                return true;
            }
        }
    }
    return false;
}

static bool subject_is(const struct th_json *s, const struct binding *b,
                       const struct th_identity *id)
{
    const char *kind = th_json_str(th_json_get(s, "kind"));
    const char *name = th_json_str(th_json_get(s, "name"));
    if (th_streq(kind, "User")) {
        return th_streq(name, id->user);
    }
    if (th_streq(kind, "Group")) {
        return name && th_identity_in(id, name);
    }
    const char *ns = th_json_str(th_json_get(s, "namespace"));
    th_autofree char *user =
        th_xasprintf("system:serviceaccount:%s:%s", ns && *ns ? ns : b->ns, name ? name : "");
    return th_streq(kind, "ServiceAccount") && th_streq(user, id->user);
}

static bool binding_allows(const struct th_authz *a, const struct binding *b,
                           const struct th_attrs *at)
{
    if (*b->ns && (!at->resource || !th_streq(b->ns, at->ns))) {
        return false;
    }
    const struct th_json *subjects = th_json_get(b->tree, "subjects");
    bool mine = false;
    for (size_t i = 0; !mine && i < th_json_len(subjects); i++) {
        mine = subject_is(th_json_at(subjects, i), b, at->id);
    }
    if (!mine) {
        return false;
    }
    const char *kind = th_json_path_str(b->tree, "roleRef.kind");
    const char *name = th_json_path_str(b->tree, "roleRef.name");
    const char *ns = th_streq(kind, "Role") ? b->ns : "";
    for (size_t i = 0; i < a->n_roles; i++) {
        if (th_streq(a->roles[i].name, name) && th_streq(a->roles[i].ns, ns)) {
            return role_allows(a, &a->roles[i], at, 0);
        }
    }
    return false;
}

static bool is_one_of(const char *s, const char *const *list)
{
    for (; s && *list; list++) {
        if (strcmp(s, *list) == 0) {
            return true;
        }
    }
    return false;
}

static bool node_allows(const struct th_attrs *at)
{
    static const char *const reads[] = {"get", "list", "watch", NULL};
    static const char *const writes[] = {"nodes", "pods", "events", "leases", "csinodes",
                                         "certificatesigningrequests", NULL};
    if (!at->resource) {
        return th_streq(at->verb, "get");
    }
    if (th_streq(at->plural, "serviceaccounts") && th_streq(at->sub, "token")) {
        return th_streq(at->verb, "create");
    }
    if (th_streq(at->group, "authentication.k8s.io") || th_streq(at->group, "authorization.k8s.io")) {
        return th_streq(at->verb, "create");
    }
    return is_one_of(at->verb, reads) || is_one_of(at->plural, writes);
}

bool th_authz_allowed(struct th_authz *a, const struct th_attrs *at)
{
    if (at->id->system || th_identity_in(at->id, "system:masters")) {
        return true;
    }
    if (th_identity_in(at->id, "system:nodes") && th_startswith(at->id->user, "system:node:") &&
        node_allows(at)) {
        return true;
    }
    bool ok = false;
    (void)pthread_mutex_lock(&a->lock);
    refresh(a);
    for (size_t i = 0; !ok && i < a->n_bindings; i++) {
        ok = binding_allows(a, &a->bindings[i], at);
    }
    (void)pthread_mutex_unlock(&a->lock);
    return ok;
}

int th_authorize(struct th_api *api, const struct th_attrs *at, struct th_err *err)
{
    if (th_authz_allowed(api->authz, at)) {
        return 0;
    }
    if (!at->resource) {
        return th_fail(err, TH_R_FORBIDDEN, "forbidden: User \"%s\" cannot %s path \"%s\"",
                       at->id->user, at->verb, at->path);
    }
    bool sub = at->sub && *at->sub;
    th_autofree char *what = sub ? th_xasprintf("%s/%s", at->plural, at->sub)
                                 : th_xstrdup(at->plural);
    th_autofree char *gr = th_gr_name(at->group, at->plural);
    th_autofree char *where = at->ns && *at->ns ? th_xasprintf("in the namespace \"%s\"", at->ns)
                                                : th_xstrdup("at the cluster scope");
    th_autofree char *which = at->name && *at->name ? th_xasprintf("%s \"%s\"", gr, at->name)
                                                    : th_xstrdup(gr);
    return th_fail_obj(err, TH_R_FORBIDDEN, at->group, at->plural, at->name,
                       "%s is forbidden: User \"%s\" cannot %s resource \"%s\" in API group \"%s\" "
                       "%s",
                       which, at->id->user, at->verb, what, at->group, where);
}
