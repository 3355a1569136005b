/* FlowSchemas as they are matched: lists of strings, read once from the stored objects.
 *
 * A schema matches when one of its rules has the user among its subjects and the request among its
 * resource or non-resource rules. "*" stands for all; a non-resource path that ends in "*" for all
 * that begin so. A ServiceAccount is its user name, all of a namespace's are their group.
 */
#include "controlplane/api/flow.h"

static void add_all(struct th_strv *to, const struct th_json *list)
{
    for (size_t i = 0; i < th_json_len(list); i++) {
        const char *s = th_json_str(th_json_at(list, i));
        if (s) {
            th_strv_add(to, s);
        }
    }
}

static void rule_done(struct th_flow_rule *r)
{
    th_strv_done(&r->verbs);
    th_strv_done(&r->groups);
    th_strv_done(&r->resources);
    th_strv_done(&r->namespaces);
}

static void read_rules(struct th_flow_subjects *s, const struct th_json *list, bool resource)
{
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *o = th_json_at(list, i);
        struct th_flow_rule *r = &s->rules[s->n_rules++];
        *r = (struct th_flow_rule){.resource = resource};
        add_all(&r->verbs, th_json_get(o, "verbs"));
        add_all(&r->groups, th_json_get(o, "apiGroups"));
        add_all(&r->resources, th_json_get(o, resource ? "resources" : "nonResourceURLs"));
        add_all(&r->namespaces, th_json_get(o, "namespaces"));
        r->cluster_scope = th_json_as_bool(th_json_get(o, "clusterScope"), false);
    }
}

static void read_subject(struct th_flow_subjects *s, const struct th_json *o)
{
    const char *user = th_json_path_str(o, "user.name");
    const char *group = th_json_path_str(o, "group.name");
    const char *account = th_json_path_str(o, "serviceAccount.name");
    const char *ns = th_json_path_str(o, "serviceAccount.namespace");
    if (user) {
        th_strv_add(&s->users, user);
    } else if (group) {
        th_strv_add(&s->groups, group);
    } else if (account && ns && th_streq(account, "*")) {
        th_strv_addf(&s->groups, "system:serviceaccounts:%s", ns);
    } else if (account && ns) {
        th_strv_addf(&s->users, "system:serviceaccount:%s:%s", ns, account);
    }
}

struct th_flow_schema *th_flow_schema_new(const struct th_json *o)
{
    struct th_flow_schema *s = TH_NEW(struct th_flow_schema);
    const char *level = th_json_path_str(o, "spec.priorityLevelConfiguration.name");
    const char *uid = th_json_path_str(o, "metadata.uid");
    const char *by = th_json_path_str(o, "spec.distinguisherMethod.type");
    const struct th_json *rules = th_json_path(o, "spec.rules");
    s->name = th_xstrdup(th_json_path_str(o, "metadata.name"));
    s->level = th_xstrdup(level ? level : "");
    (void)snprintf(s->uid, sizeof(s->uid), "%s", uid ? uid : "");
    s->precedence = th_json_path_int(o, "spec.matchingPrecedence", 1000);
    s->distinguish = th_streq(by, "ByUser")        ? TH_FLOW_BY_USER
                     : th_streq(by, "ByNamespace") ? TH_FLOW_BY_NAMESPACE
                                                   : TH_FLOW_ONE;
    s->n_subjects = th_json_len(rules);
    s->subjects = th_xcalloc(s->n_subjects + 1, sizeof(*s->subjects));
    for (size_t i = 0; i < s->n_subjects; i++) {
        const struct th_json *r = th_json_at(rules, i);
        const struct th_json *who = th_json_get(r, "subjects");
        const struct th_json *res = th_json_get(r, "resourceRules");
        const struct th_json *other = th_json_get(r, "nonResourceRules");
        s->subjects[i].rules = th_xcalloc(th_json_len(res) + th_json_len(other) + 1,
                                          sizeof(*s->subjects[i].rules));
        for (size_t k = 0; k < th_json_len(who); k++) {
            read_subject(&s->subjects[i], th_json_at(who, k));
        }
        read_rules(&s->subjects[i], res, true);
        read_rules(&s->subjects[i], other, false);
    }
    return s;
}

void th_flow_schema_free(struct th_flow_schema *s)
{
    if (!s) {
        return;
    }
    for (size_t i = 0; i < s->n_subjects; i++) {
        for (size_t k = 0; k < s->subjects[i].n_rules; k++) {
            rule_done(&s->subjects[i].rules[k]);
        }
        free(s->subjects[i].rules);
        th_strv_done(&s->subjects[i].users);
        th_strv_done(&s->subjects[i].groups);
    }
    free(s->subjects);
    free(s->name);
    free(s->level);
    free(s);
}

int th_flow_schema_cmp(const void *pa, const void *pb)
{
    const struct th_flow_schema *a = *(const struct th_flow_schema *const *)pa;
    const struct th_flow_schema *b = *(const struct th_flow_schema *const *)pb;
    if (a->precedence != b->precedence) {
        return a->precedence < b->precedence ? -1 : 1;
    }
    return strcmp(a->name, b->name);
}

static bool has(const struct th_strv *list, const char *s)
{
    for (size_t i = 0; i < list->n; i++) {
        if (th_streq(list->v[i], "*") || th_streq(list->v[i], s)) {
            return true;
        }
    }
    return false;
}

static bool is_subject(const struct th_flow_subjects *s, const struct th_identity *id)
{
    if (has(&s->users, id->user)) {
        return true;
    }
    for (size_t i = 0; i < s->groups.n; i++) {
        if (th_streq(s->groups.v[i], "*") || th_identity_in(id, s->groups.v[i])) {
            return true;
        }
    }
    return false;
}

static bool resource_matches(const struct th_flow_rule *r, const struct th_attrs *at)
{
    if (!has(&r->verbs, at->verb) || !has(&r->groups, at->group ? at->group : "")) {
        return false;
    }
    th_autofree char *with_sub =
        at->sub && *at->sub ? th_xasprintf("%s/%s", at->plural, at->sub) : NULL;
    if (!has(&r->resources, with_sub ? with_sub : at->plural)) {
        return false;
    }
    return at->ns && *at->ns ? has(&r->namespaces, at->ns) : r->cluster_scope;
}

static bool path_matches(const struct th_flow_rule *r, const struct th_attrs *at)
{
    for (size_t i = 0; has(&r->verbs, at->verb) && i < r->resources.n; i++) {
        const char *p = r->resources.v[i];
        size_t n = strlen(p);
        if (n > 0 && p[n - 1] == '*' ? strncmp(p, at->path, n - 1) == 0 : th_streq(p, at->path)) {
            return true;
        }
    }
    return false;
}

bool th_flow_schema_matches(const struct th_flow_schema *s, const struct th_attrs *at)
{
    for (size_t i = 0; i < s->n_subjects; i++) {
        if (!is_subject(&s->subjects[i], at->id)) {
            continue;
        }
        for (size_t k = 0; k < s->subjects[i].n_rules; k++) {
            const struct th_flow_rule *r = &s->subjects[i].rules[k];
            if (r->resource == at->resource &&
                (r->resource ? resource_matches(r, at) : path_matches(r, at))) {
                return true;
            }
        }
    }
    return false;
}
