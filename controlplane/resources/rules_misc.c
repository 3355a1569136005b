/* Rules of storage, RBAC, scheduling and webhook objects that a line of rules.tsv cannot say. */
#include "controlplane/resources/amounts.h"
#include "controlplane/resources/rows.h"
#include "controlplane/resources/rules.h"

#include "base/buf.h"
#include "controlplane/schema/validate.h"

#include <ctype.h>

/* ---- RBAC ---- */

#define RBAC_GROUP "rbac.authorization.k8s.io"

static void check_policy_rules(const struct th_view *v, bool namespaced)
{
    for (size_t i = 0; i < th_view_len(v, "rules"); i++) {
        struct th_view r = th_view_item(v, "rules", i);
        size_t groups = th_view_len(&r, "apiGroups"), resources = th_view_len(&r, "resources");
        const struct th_json *urls = th_view_get(&r, "nonResourceURLs");
        if (th_view_len(&r, "verbs") == 0) {
            th_bad_required(&r, "verbs", "verbs must contain at least one value");
        }
        if (th_view_len(&r, "nonResourceURLs") > 0) {
            if (namespaced) {
                th_bad_json(&r, "nonResourceURLs", urls,
                            "namespaced rules cannot apply to non-resource URLs");
            }
            if (groups > 0 || resources > 0 || th_view_len(&r, "resourceNames") > 0) {
                th_bad_json(&r, "nonResourceURLs", urls,
                            "rules cannot apply to both regular resources and non-resource URLs");
            }
            continue;
        }
        if (groups == 0) {
            th_bad_required(&r, "apiGroups", "resource rules must supply at least one api group");
        }
        if (resources == 0) {
            th_bad_required(&r, "resources", "resource rules must supply at least one resource");
        }
    }
}

void th_rule_role(const struct th_view *v)
{
    check_policy_rules(v, true);
}

void th_rule_cluster_role(const struct th_view *v)
{
    check_policy_rules(v, false);
    if (th_view_has(v, "aggregationRule") &&
        th_view_len(v, "aggregationRule.clusterRoleSelectors") == 0) {
        th_bad_required(v, "aggregationRule.clusterRoleSelectors",
                        "at least one clusterRoleSelector required if aggregationRule is non-nil");
    }
}

static void check_subject(const struct th_view *s, bool namespaced)
{
    const char *name = th_view_str(s, "name"), *kind = th_view_str(s, "kind");
    const char *group = th_view_str(s, "apiGroup");
    if (!*name) {
        th_bad_required(s, "name", "");
    }
    if (th_streq(kind, "ServiceAccount")) {
        if (*name) {
            (void)th_check_format(s, "name", name, TH_NAME_DNS1123_SUBDOMAIN);
        }
        if (*group) {
            th_bad_unsupported(s, "apiGroup", group, "");
        }
        if (!namespaced && !*th_view_str(s, "namespace")) {
            th_bad_required(s, "namespace", "");
        }
    } else if (!th_word_in(kind, "User|Group")) {
        th_bad_unsupported(s, "kind", kind, "ServiceAccount|User|Group");
    } else if (!th_streq(group, RBAC_GROUP)) {
        th_bad_unsupported(s, "apiGroup", group, RBAC_GROUP);
    }
}

static void check_binding(const struct th_view *v, bool namespaced)
{
    const char *group = th_view_str(v, "roleRef.apiGroup"), *kind = th_view_str(v, "roleRef.kind");
    const char *name = th_view_str(v, "roleRef.name");
    const char *kinds = namespaced ? "Role|ClusterRole" : "ClusterRole";
    if (!th_streq(group, RBAC_GROUP)) {
        th_bad_unsupported(v, "roleRef.apiGroup", group, RBAC_GROUP);
    }
    if (!th_word_in(kind, kinds)) {
        th_bad_unsupported(v, "roleRef.kind", kind, kinds);
    }
    if (!*name) {
        th_bad_required(v, "roleRef.name", "");
    } else {
        (void)th_check_format(v, "roleRef.name", name, TH_NAME_PATH_SEGMENT);
    }
    for (size_t i = 0; i < th_view_len(v, "subjects"); i++) {
        struct th_view s = th_view_item(v, "subjects", i);
        check_subject(&s, namespaced);
    }
}

void th_rule_role_binding(const struct th_view *v)
{
    check_binding(v, true);
}

void th_rule_cluster_role_binding(const struct th_view *v)
{
    check_binding(v, false);
}

/* ---- Storage ---- */

static void check_provisioner(const struct th_view *v, const char *member)
{
    th_autofree char *s = th_xstrdup(th_view_str(v, member));
    for (char *p = s; *p; p++) {
        *p = (char)tolower((unsigned char)*p);
    }
    if (!*s) {
        th_bad_required(v, member, "");
    } else {
        (void)th_check_format(v, member, s, TH_NAME_QUALIFIED);
    }
}

static void check_parameters(const struct th_view *v)
{
    const struct th_json *map = th_view_get(v, "parameters");
    size_t total = 0;
    if (th_json_len(map) > 512) {
        th_bad_too_long(v, "parameters", 512);
        return;
    }
    struct th_json_iter it = TH_JSON_ITER(map);
    while (th_json_next(&it)) {
        if (!*it.name) {
            th_bad_str(v, "parameters", it.name, "field can not be empty.");
        }
        total += strlen(it.name) + th_json_str_len(it.value);
    }
    if (total > 256 * 1024) {
        th_bad_too_long(v, "parameters", 256 * 1024);
    }
}

void th_rule_storage_class(const struct th_view *v)
{
    check_provisioner(v, "provisioner");
    check_parameters(v);
}

void th_rule_attributes_class(const struct th_view *v)
{
    check_provisioner(v, "driverName");
    check_parameters(v);
    if (th_view_len(v, "parameters") == 0) {
        th_bad_required(v, "parameters", "must contain at least one key/value pair");
    }
}

void th_rule_attachment_spec(const struct th_view *v)
{
    struct th_view s = th_view_at(v, "source");
    static const char one[] =
        "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    bool inl = th_view_has(v, "source.inlineVolumeSpec");
    bool pv = th_view_has(v, "source.persistentVolumeName");
    const char *name = th_view_str(v, "source.persistentVolumeName");
    th_check_driver_name(v, "attacher");
    if (!inl && !pv) {
        th_bad_required(v, "source", one);
    } else if (inl && pv) {
        th_bad_forbidden(v, "source", one);
    } else if (pv && !*name) {
        th_bad_required(&s, "persistentVolumeName", "must specify non empty persistentVolumeName");
    }
    (void)th_check_format(v, "nodeName", th_view_str(v, "nodeName"), TH_NAME_DNS1123_SUBDOMAIN);
    if (pv) {
        (void)th_check_format(&s, "persistentVolumeName", name, TH_NAME_DNS1123_SUBDOMAIN);
    }
}

void th_rule_csi_driver_spec(const struct th_view *v)
{
    size_t n = th_view_len(v, "tokenRequests");
    for (size_t i = 0; i < n; i++) {
        struct th_view t = th_view_item(v, "tokenRequests", i);
        const char *audience = th_view_str(&t, "audience");
        int64_t secs = th_view_int(&t, "expirationSeconds", 600);
        bool seen = false;
        for (size_t k = 0; k < i && !seen; k++) {
            struct th_view o = th_view_item(v, "tokenRequests", k);
            seen = th_streq(th_view_str(&o, "audience"), audience);
        }
        if (seen) {
            th_bad_duplicate(&t, "audience", audience);
        } else if (secs < 600) {
            th_bad_int(&t, "expirationSeconds", secs,
                       "may not specify a duration less than 10 minutes");
        } else if (secs > INT64_C(1) << 32) {
            th_bad_int(&t, "expirationSeconds", secs,
                       "may not specify a duration larger than 2^32 seconds");
        }
    }
    for (size_t i = 0; i < th_view_len(v, "volumeLifecycleModes"); i++) {
        struct th_view m = th_view_item(v, "volumeLifecycleModes", i);
        const char *mode = th_view_str(&m, NULL);
        if (!th_word_in(mode, "Persistent|Ephemeral")) {
            th_bad_unsupported(v, "volumeLifecycleModes", mode, "Persistent|Ephemeral");
        }
    }
    int64_t period = th_view_int(v, "nodeAllocatableUpdatePeriodSeconds", 10);
    if (period < 10) {
        th_bad_int(v, "nodeAllocatableUpdatePeriodSeconds", period,
                   "must be greater than or equal to 10 seconds");
    }
    if (th_view_has(v, "serviceAccountTokenInSecrets") && n == 0) {
        th_bad_value(v, "serviceAccountTokenInSecrets",
                     "serviceAccountTokenInSecrets is set but no tokenRequests are specified");
    }
}

void th_csi_driver_validate_update(const struct th_req_ctx *c, const struct th_json *obj,
                                   const struct th_json *old, struct th_err *err)
{
    (void)c;
    static const struct {
        const char *member, *said;
    } frozen[] = {{"spec.attachRequired", "spec.attachedRequired"},
                  {"spec.volumeLifecycleModes", "spec.volumeLifecycleModes"}};
    struct th_view v = TH_VIEW(obj, err);
    for (size_t i = 0; i < TH_ARRAY_LEN(frozen); i++) {
        const struct th_json *now = th_json_path(obj, frozen[i].member);
        if (!th_json_equal(now, th_json_path(old, frozen[i].member))) {
            th_bad_json(&v, frozen[i].said, now, "field is immutable");
        }
    }
}

void th_rule_csi_node_driver(const struct th_view *v)
{
    const char *id = th_view_str(v, "nodeID");
    th_check_driver_name(v, "name");
    if (!*id) {
        th_bad_required(v, "nodeID", "");
    } else if (strlen(id) > 256) {
        th_bad_str(v, "nodeID", id, "must be 256 characters or less");
    }
    size_t n = th_view_len(v, "topologyKeys");
    for (size_t i = 0; i < n; i++) {
        struct th_view k = th_view_item(v, "topologyKeys", i);
        const char *key = th_view_str(&k, NULL);
        if (!*key) {
            th_bad_required(v, NULL, "");
        }
        for (size_t j = 0; j < i; j++) {
            struct th_view o = th_view_item(v, "topologyKeys", j);
            if (th_streq(th_view_str(&o, NULL), key)) {
                th_bad_duplicate(v, NULL, key);
                break;
            }
        }
        (void)th_check_format(v, NULL, key, TH_NAME_QUALIFIED);
    }
}

/* ---- Priority and runtime classes ---- */

void th_rule_priority_class(const struct th_view *v)
{
    static const struct {
        const char *name;
        int64_t value;
    } known[] = {{"system-node-critical", 2000001000}, {"system-cluster-critical", 2000000000}};
    const char *name = th_view_str(v, "metadata.name");
    int64_t value = th_view_int(v, "value", 0);
    if (th_startswith(name, "system-")) {
        th_autofree char *why = NULL;
        for (size_t i = 0; i < TH_ARRAY_LEN(known) && !why; i++) {
            if (!th_streq(known[i].name, name)) {
                continue;
            }
            if (value != known[i].value) {
                why = th_xasprintf("value of %s PriorityClass must be %lld", name,
                                   (long long)known[i].value);
            } else if (th_view_bool(v, "globalDefault")) {
                why = th_xasprintf("globalDefault of %s PriorityClass must be false", name);
            } else {
                return;
            }
        }
        th_autofree char *all = th_xasprintf(
            "priority class names with 'system-' prefix are reserved for system use only. error: %s%s",
            why ? why : name, why ? "" : " is not a known system priority class");
        th_bad_forbidden(v, "metadata.name", all);
    } else if (value > 1000000000) {
        th_bad_forbidden(v, "value",
                         "maximum allowed value of a user defined priority is 1000000000");
    }
}

/* ---- Webhooks ---- */

static bool has_word(const struct th_view *v, const char *member, const char *word)
{
    for (size_t i = 0; i < th_view_len(v, member); i++) {
        struct th_view o = th_view_item(v, member, i);
        if (th_streq(th_view_str(&o, NULL), word)) {
            return true;
        }
    }
    return false;
}

/* One of many with "*" among them. */
static void check_star(const struct th_view *v, const char *member, const char *what)
{
    if (th_view_len(v, member) > 1 && has_word(v, member, "*")) {
        th_autofree char *why = th_xasprintf("if '*' is present, must not specify other %s", what);
        th_bad_json(v, member, th_view_get(v, member), why);
    }
}

void th_rule_rule_with_operations(const struct th_view *v)
{
    if (th_view_len(v, "operations") == 0) {
        th_bad_required(v, "operations", "");
    }
    check_star(v, "operations", "operations");
    for (size_t i = 0; i < th_view_len(v, "operations"); i++) {
        struct th_view o = th_view_item(v, "operations", i);
        const char *s = th_view_str(&o, NULL);
        if (!th_word_in(s, "*|CONNECT|CREATE|DELETE|UPDATE")) {
            th_bad_unsupported(&o, NULL, s, "*|CONNECT|CREATE|DELETE|UPDATE");
        }
    }
    if (th_view_len(v, "apiGroups") == 0) {
        th_bad_required(v, "apiGroups", "");
    }
    check_star(v, "apiGroups", "API groups");
    if (th_view_len(v, "apiVersions") == 0) {
        th_bad_required(v, "apiVersions", "");
    }
    check_star(v, "apiVersions", "API versions");
    for (size_t i = 0; i < th_view_len(v, "apiVersions"); i++) {
        struct th_view o = th_view_item(v, "apiVersions", i);
        if (!*th_view_str(&o, NULL)) {
            th_bad_required(&o, NULL, "");
        }
    }
    size_t n = th_view_len(v, "resources");
    bool plain = false;
    if (n == 0) {
        th_bad_required(v, "resources", "");
    }
    for (size_t i = 0; i < n; i++) {
        struct th_view o = th_view_item(v, "resources", i);
        const char *s = th_view_str(&o, NULL);
        if (!*s) {
            th_bad_required(&o, NULL, "");
        } else if (!strchr(s, '/')) {
            plain = !th_streq(s, "*");
        }
    }
    if (n > 1 && has_word(v, "resources", "*/*")) {
        th_bad_json(v, "resources", th_view_get(v, "resources"),
                    "if '*/*' is present, must not specify other resources");
    }
    if (plain && has_word(v, "resources", "*")) {
        th_bad_json(v, "resources", th_view_get(v, "resources"),
                    "if '*' is present, must not specify other resources without subresources");
    }
    if (th_view_has(v, "scope")) {
        const char *scope = th_view_str(v, "scope");
        if (!th_word_in(scope, "*|Cluster|Namespaced")) {
            th_bad_unsupported(v, "scope", scope, "*|Cluster|Namespaced");
        }
    }
}

static void check_full_name(const struct th_view *v)
{
    const char *name = th_view_str(v, "name"), *dot = strchr(name, '.');
    if (!*name) {
        th_bad_required(v, "name", "");
    } else if (th_check_format(v, "name", name, TH_NAME_DNS1123_SUBDOMAIN) &&
               (!dot || !strchr(dot + 1, '.'))) {
        th_bad_str(v, "name", name,
                   "should be a domain with at least three segments separated by dots");
    }
}

static void check_url(const struct th_view *v)
{
    static const char form[] = "desired format: https://host[/path]";
    const char *url = th_view_str(v, "url"), *sep = strstr(url, "://");
    if (!th_startswith(url, "https://")) {
        th_autofree char *scheme = th_xstrndup(url, sep ? (size_t)(sep - url) : 0);
        th_autofree char *why =
            th_xasprintf("'https' is the only allowed URL scheme; %s", form);
        th_bad_str(v, "url", scheme, why);
    }
    if (!sep || !sep[3] || sep[3] == '/') {
        th_autofree char *why = th_xasprintf("host must be specified; %s", form);
        th_bad_str(v, "url", "", why);
    }
}

static void check_service(const struct th_view *v)
{
    struct th_view s = th_view_at(v, "service");
    const char *path = th_view_str(&s, "path");
    int64_t port = th_view_int(&s, "port", 443);
    if (!*th_view_str(&s, "name")) { /* upstream takes the one for the other */
        th_bad_required(&s, "namespace", "");
    }
    if (!*th_view_str(&s, "namespace")) {
        th_bad_required(&s, "name", "");
    }
    if (port < 1 || port > 65535) {
        th_bad_int(&s, "port", port, "port is not valid: must be between 1 and 65535, inclusive");
    }
    if (*path && *path != '/') {
        th_bad_str(&s, "path", path, "must start with a '/'");
    }
}

static void check_review_versions(const struct th_view *v)
{
    static const char member[] = "admissionReviewVersions";
    size_t n = th_view_len(v, member);
    bool known = false;
    if (n == 0) {
        th_bad_required(v, member, "must specify one of v1, v1beta1");
        return;
    }
    for (size_t i = 0; i < n; i++) {
        struct th_view o = th_view_item(v, member, i);
        const char *s = th_view_str(&o, NULL);
        bool again = false;
        for (size_t k = 0; k < i && !again; k++) {
            struct th_view e = th_view_item(v, member, k);
            again = th_streq(th_view_str(&e, NULL), s);
        }
        if (again) {
            th_bad_str(&o, NULL, s, "duplicate version");
        } else {
            (void)th_check_format(&o, NULL, s, TH_NAME_DNS1035_LABEL);
        }
        known |= th_word_in(s, "v1|v1beta1");
    }
    if (!known) {
        th_bad_json(v, member, th_view_get(v, member), "must include at least one of v1, v1beta1");
    }
}

void th_rule_webhook(const struct th_view *v)
{
    check_full_name(v);
    if (!th_view_has(v, "sideEffects")) {
        th_bad_required(v, "sideEffects", "must specify one of None, NoneOnDryRun");
    } else {
        (void)th_check_one_of(v, "sideEffects", th_view_str(v, "sideEffects"), "None|NoneOnDryRun");
    }
    struct th_view cc = th_view_at(v, "clientConfig");
    bool url = th_view_has(v, "clientConfig.url"), service = th_view_has(v, "clientConfig.service");
    if (url == service) {
        th_bad_required(v, "clientConfig", "exactly one of url or service is required");
    } else if (url) {
        check_url(&cc);
    } else {
        check_service(&cc);
    }
    check_review_versions(v);
    th_check_match_conditions(v, false);
}

/* ---- Flow control ---- */

void th_rule_flow_schema_spec(const struct th_view *v)
{
    const char *name = th_view_str(v, "priorityLevelConfiguration.name");
    int64_t precedence = th_view_int(v, "matchingPrecedence", 1000);
    if (precedence < 1) {
        th_bad_int(v, "matchingPrecedence", precedence, "must be a positive value");
    }
    if (precedence > 10000) {
        th_bad_int(v, "matchingPrecedence", precedence, "must not be greater than 10000");
    }
    if (!*name) {
        th_bad_required(v, "priorityLevelConfiguration.name", "must reference a priority level");
    }
}

void th_rule_policy_rules_with_subjects(const struct th_view *v)
{
    if (th_view_len(v, "subjects") == 0) {
        th_bad_required(v, "subjects", "subjects must contain at least one value");
    }
    if (th_view_len(v, "resourceRules") == 0 && th_view_len(v, "nonResourceRules") == 0) {
        th_bad_required(v, NULL,
                        "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
}

void th_rule_flow_subject(const struct th_view *v)
{
    static const struct {
        const char *kind, *member;
    } kinds[] = {{"ServiceAccount", "serviceAccount"}, {"User", "user"}, {"Group", "group"}};
    const char *kind = th_view_str(v, "kind");
    bool known = false;
    for (size_t i = 0; i < TH_ARRAY_LEN(kinds); i++) {
        bool its = th_streq(kinds[i].kind, kind), has = th_view_has(v, kinds[i].member);
        known |= its;
        if (its && !has) {
            th_autofree char *why = th_xasprintf("%s is required when subject kind is '%s'",
                                                 kinds[i].member, kind);
            th_bad_required(v, kinds[i].member, why);
        } else if (its && !*th_view_str(&(struct th_view){.obj = th_view_get(v, kinds[i].member)},
                                        "name")) {
            struct th_view s = th_view_at(v, kinds[i].member);
            th_bad_required(&s, "name", "");
        }
    }
    if (!known) {
        th_bad_unsupported(v, "kind", kind, "Group|ServiceAccount|User");
    }
}

void th_rule_flow_resource_rule(const struct th_view *v)
{
    if (th_view_len(v, "namespaces") == 0 && !th_view_bool(v, "clusterScope")) {
        th_bad_required(v, "namespaces",
                        "resource rules that are not cluster scoped must supply at least one namespace");
    }
}

void th_rule_priority_level_spec(const struct th_view *v)
{
    const char *type = th_view_str(v, "type");
    bool limited = th_view_has(v, "limited"), exempt = th_view_has(v, "exempt");
    if (!th_word_in(type, "Exempt|Limited")) {
        th_bad_unsupported(v, "type", type, "Exempt|Limited");
    } else if (th_streq(type, "Limited")) {
        if (exempt) {
            th_bad_forbidden(v, "exempt", "must be nil if the type is Limited");
        }
        if (!limited) {
            th_bad_required(v, "limited", "must not be empty when type is Limited");
        }
    } else if (limited) {
        th_bad_forbidden(v, "limited", "must be nil if the type is not Limited");
    }
}
