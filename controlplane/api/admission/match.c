/*
 * Whether a request is one that a webhook or a policy is about.
 *
 * The order is upstream's, and shows in errors: selectors first, whose failure (a namespace that is not
 * there) counts only for a request that the rules are about; then the rules that exclude; then those
 * that include, first as the request names its resource, and, with matchPolicy Equivalent, as the
 * other resources that the same objects are served as: another version of a custom resource, Events and
 * HorizontalPodAutoscalers in their other group or version.
 */
#include "controlplane/api/admission/match.h"

#include "controlplane/api/customs.h"

static void add_all(struct th_strv *to, const struct th_json *list)
{
    for (size_t i = 0; i < th_json_len(list); i++) {
        const char *s = th_json_str(th_json_at(list, i));
        if (s) {
            th_strv_add(to, s);
        }
    }
}

static struct th_match_rule *read_rules(const struct th_json *list, size_t *ret_n)
{
    *ret_n = th_json_len(list);
    struct th_match_rule *v = th_xcalloc(*ret_n + 1, sizeof(*v));
    for (size_t i = 0; i < *ret_n; i++) {
        const struct th_json *o = th_json_at(list, i);
        add_all(&v[i].ops, th_json_get(o, "operations"));
        add_all(&v[i].groups, th_json_get(o, "apiGroups"));
        add_all(&v[i].versions, th_json_get(o, "apiVersions"));
        add_all(&v[i].resources, th_json_get(o, "resources"));
        add_all(&v[i].names, th_json_get(o, "resourceNames"));
        const char *scope = th_json_path_str(o, "scope");
        v[i].scope = th_streq(scope, "Namespaced") ? TH_SCOPE_NAMESPACED
                     : th_streq(scope, "Cluster")  ? TH_SCOPE_CLUSTER
                                                   : TH_SCOPE_ALL;
    }
    return v;
}

static void free_rules(struct th_match_rule *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        th_strv_done(&v[i].ops);
        th_strv_done(&v[i].groups);
        th_strv_done(&v[i].versions);
        th_strv_done(&v[i].resources);
        th_strv_done(&v[i].names);
    }
    free(v);
}

static struct th_selector *read_selector(struct th_match *m, const struct th_json *o)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    TH_AUTO(th_selector) struct th_selector *s = NULL;
    if (!o) {
        return NULL;
    }
    if (th_selector_from_json(o, &s, &err) < 0) {
        free(m->selector_error);
        m->selector_error = th_xstrdup(err.msg);
        return th_selector_nothing();
    }
    return th_selector_empty(s) ? NULL : th_steal(&s);
}

void th_match_init(struct th_match *m, const struct th_json *o)
{
    const struct th_json *rules = th_json_get(o, "rules");
    *m = (struct th_match){.empty_matches = !rules};
    m->rules = read_rules(rules ? rules : th_json_get(o, "resourceRules"), &m->n_rules);
    m->exclude = read_rules(th_json_get(o, "excludeResourceRules"), &m->n_exclude);
    m->namespaces = read_selector(m, th_json_get(o, "namespaceSelector"));
    m->objects = read_selector(m, th_json_get(o, "objectSelector"));
    m->equivalent = th_streq(th_json_path_str(o, "matchPolicy"), "Equivalent");
}

void th_match_done(struct th_match *m)
{
    free_rules(m->rules, m->n_rules);
    free_rules(m->exclude, m->n_exclude);
    th_selector_free(m->namespaces);
    th_selector_free(m->objects);
    free(m->selector_error);
}

/* ---- Rules ---- */

static bool one_of(const struct th_strv *list, const char *s)
{
    for (size_t i = 0; i < list->n; i++) {
        if (th_streq(list->v[i], "*") || th_streq(list->v[i], s)) {
            return true;
        }
    }
    return false;
}

static bool in_scope(const struct th_match_rule *r, const struct th_match_key *k)
{
    bool namespace_itself = !*k->group && th_streq(k->plural, "namespaces");
    bool namespaced = !namespace_itself && *k->ns;
    return r->scope == TH_SCOPE_ALL || namespaced == (r->scope == TH_SCOPE_NAMESPACED);
}

static bool resource_fits(const struct th_match_rule *r, const struct th_match_key *k)
{
    for (size_t i = 0; i < r->resources.n; i++) {
        const char *s = r->resources.v[i];
        size_t n = strcspn(s, "/");
        const char *sub = s[n] ? s + n + 1 : "";
        bool res = (n == 1 && *s == '*') || (strlen(k->plural) == n && strncmp(s, k->plural, n) == 0);
        if (res && (th_streq(sub, "*") || th_streq(sub, k->sub))) {
            return true;
        }
    }
    return false;
}

bool th_match_rules(const struct th_match_rule *rules, size_t n, const struct th_match_key *k)
{
    for (size_t i = 0; i < n; i++) {
        const struct th_match_rule *r = &rules[i];
        if (in_scope(r, k) && one_of(&r->ops, k->op) && one_of(&r->groups, k->group) &&
            one_of(&r->versions, k->version) && resource_fits(r, k) &&
            (r->names.n == 0 || th_strv_has(&r->names, k->name))) {
            return true;
        }
    }
    return false;
}

static bool rules_match(const struct th_match_rule *rules, size_t n, bool equivalent,
                        struct th_admit *a, const struct th_resource **ret)
{
    const struct th_resource *own = a->c->res;
    struct th_match_key k = th_admit_key(a, own);
    if (th_match_rules(rules, n, &k)) {
        *ret = own;
        return true;
    }
    const struct th_resource *r;
    for (size_t i = 0; equivalent && n && (r = th_admit_equivalent(a, i)); i++) {
        k = th_admit_key(a, r);
        if (th_match_rules(rules, n, &k)) {
            *ret = r;
            return true;
        }
    }
    return false;
}

/* ---- Selectors ---- */

/* 1, 0, or the namespace is not there. */
static int namespace_matches(const struct th_match *m, struct th_admit *a, struct th_err *err)
{
    bool is_namespace = th_streq(a->c->res->plural, "namespaces");
    if (!m->namespaces || (!*a->ns && !is_namespace)) {
        return 1;
    }
    if (is_namespace && !*a->c->res->group && !a->c->sub && !th_streq(a->op, "DELETE")) {
        return th_selector_matches(m->namespaces, th_json_path(a->object, "metadata.labels"));
    }
    const struct th_json *ns = NULL;
    TH_TRY(th_admit_namespace(a, &ns, err));
    return th_selector_matches(m->namespaces, th_json_path(ns, "metadata.labels"));
}

static bool object_matches(const struct th_match *m, const struct th_json *o)
{
    return o && th_selector_matches(m->objects, th_json_path(o, "metadata.labels"));
}

int th_match(const struct th_match *m, struct th_admit *a, const struct th_resource **ret,
             struct th_err *err)
{
    TH_AUTO_ERR struct th_err late = TH_ERR_INIT;
    int in_ns = namespace_matches(m, a, &late);
    if (in_ns == 0 && !m->selector_error) {
        return 0;
    }
    if (m->objects && !m->selector_error && !object_matches(m, a->object) &&
        !object_matches(m, a->old)) {
        return 0;
    }
    const struct th_resource *as = NULL;
    if (rules_match(m->exclude, m->n_exclude, m->equivalent, a, &as)) {
        return 0;
    }
    as = a->c->res;
    if (!(m->n_rules == 0 && m->empty_matches) &&
        !rules_match(m->rules, m->n_rules, m->equivalent, a, &as)) {
        return 0;
    }
    if (m->selector_error) {
        return th_fail(err, TH_R_INTERNAL, "Internal error occurred: %s", m->selector_error);
    }
    if (in_ns < 0) {
        if (err) {
            th_err_move(err, &late);
        }
        return in_ns;
    }
    *ret = as;
    return 1;
}
