/* The roles and bindings that a new cluster has, read out of a table.
 *
 * A rule is written "g=apps r=deployments,replicasets v=get,list", rules are joined by "|"; g, r, n,
 * u and v are apiGroups, resources, resourceNames, nonResourceURLs and verbs, and "g=" alone is the
 * core group. Subjects are "User:x", "Group:x" or "ServiceAccount:namespace/name". The table is
 * trusted: a line that does not parse is a broken invariant.
 */
#include "controlplane/resources/rbac_defaults.h"

#include "controlplane/resources/rbac_rows.h"

#define GROUP "rbac.authorization.k8s.io"

static struct th_json *split_list(const char *text)
{
    th_autostrv struct th_strv parts = TH_STRV_INIT;
    th_strv_split(&parts, text, ',');
    struct th_json *a = th_json_array();
    for (size_t i = 0; i < parts.n; i++) {
        th_json_append_str(a, parts.v[i]);
    }
    return a;
}

/* Members in the order of the type, as they are stored. */
static struct th_json *rule_of(const char *text)
{
    static const struct {
        char letter;
        const char *member;
    } names[] = {{'v', "verbs"}, {'g', "apiGroups"}, {'r', "resources"}, {'n', "resourceNames"},
                 {'u', "nonResourceURLs"}};
    th_autostrv struct th_strv parts = TH_STRV_INIT;
    th_strv_split(&parts, text, ' ');
    struct th_json *rule = th_json_object();
    for (size_t k = 0; k < TH_ARRAY_LEN(names); k++) {
        for (size_t i = 0; i < parts.n; i++) {
            if (parts.v[i][0] == names[k].letter) {
                th_json_set(rule, names[k].member, split_list(parts.v[i] + 2));
            }
        }
    }
    TH_ASSERT(th_json_len(rule) == parts.n);
    return rule;
}

static struct th_json *rules_of(const char *text)
{
    struct th_json *a = th_json_array();
    th_autostrv struct th_strv parts = TH_STRV_INIT;
    th_strv_split(&parts, text, '|');
    for (size_t i = 0; *text && i < parts.n; i++) {
        th_json_append(a, rule_of(parts.v[i]));
    }
    return a;
}

static struct th_json *subject_of(const char *text)
{
    const char *colon = strchr(text, ':');
    TH_ASSERT(colon);
    th_autofree char *kind = th_xstrndup(text, (size_t)(colon - text));
    const char *name = colon + 1;
    if (!th_streq(kind, "ServiceAccount")) {
        return th_json_build("{'kind':%s,'apiGroup':%s,'name':%s}", kind, GROUP, name);
    }
    const char *slash = strchr(name, '/');
    TH_ASSERT(slash);
    th_autofree char *ns = th_xstrndup(name, (size_t)(slash - name));
    return th_json_build("{'kind':%s,'name':%s,'namespace':%s}", kind, slash + 1, ns);
}

static void set_binding(struct th_json *o, const struct th_rbac_row *r)
{
    struct th_json *subjects = th_json_array();
    th_autostrv struct th_strv parts = TH_STRV_INIT;
    th_strv_split(&parts, r->content, '|');
    for (size_t i = 0; *r->content && i < parts.n; i++) {
        th_json_append(subjects, subject_of(parts.v[i]));
    }
    const char *colon = strchr(r->ref, ':');
    TH_ASSERT(colon);
    th_autofree char *kind = th_xstrndup(r->ref, (size_t)(colon - r->ref));
    if (th_json_len(subjects) > 0) {
        th_json_set(o, "subjects", subjects);
    } else {
        th_json_unref(subjects);
    }
    th_json_set(o, "roleRef",
                th_json_build("{'apiGroup':%s,'kind':%s,'name':%s}", GROUP, kind, colon + 1));
}

static void set_pair(struct th_json *map, const char *text)
{
    const char *eq = strchr(text, '=');
    TH_ASSERT(eq);
    th_autofree char *key = th_xstrndup(text, (size_t)(eq - text));
    th_json_set_str(map, key, eq + 1);
}

static struct th_json *object_of(const struct th_rbac_row *r)
{
    struct th_json *labels = th_json_build("{'kubernetes.io/bootstrapping':'rbac-defaults'}");
    if (*r->labels) {
        set_pair(labels, r->labels);
    }
    struct th_json *o = th_json_build(
        "{'kind':%s,'apiVersion':'" GROUP "/v1','metadata':{'name':%s,'labels':%o,'annotations':"
        "{'rbac.authorization.kubernetes.io/autoupdate':'true'}}}",
        r->kind, r->name, labels);
    if (*r->ns) {
        th_json_path_set_str(o, "metadata.namespace", r->ns);
    }
    if (th_endswith(r->kind, "Binding")) {
        set_binding(o, r);
        return o;
    }
    if (th_startswith(r->ref, "aggregate:")) {
        struct th_json *match = th_json_object();
        set_pair(match, r->ref + strlen("aggregate:"));
        th_json_set(o, "aggregationRule",
                    th_json_build("{'clusterRoleSelectors':[{'matchLabels':%o}]}", match));
        th_json_set(o, "rules", NULL);
    } else {
        th_json_set(o, "rules", rules_of(r->content));
    }
    return o;
}

struct th_json *th_rbac_defaults(void)
{
    struct th_json *all = th_json_array();
    for (const struct th_rbac_row *r = th_rbac_rows; r->kind; r++) {
        th_json_append(all, object_of(r));
    }
    return all;
}

struct th_json *th_rbac_default(const char *kind, const char *name)
{
    for (const struct th_rbac_row *r = th_rbac_rows; r->kind; r++) {
        if (!*r->ns && strcmp(r->kind, kind) == 0 && strcmp(r->name, name) == 0) {
            return object_of(r);
        }
    }
    return NULL;
}
