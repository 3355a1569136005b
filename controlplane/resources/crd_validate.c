/*
 * CustomResourceDefinition: validation of everything but the schemas.
 *
 * Upstream validates its internal form, into which a v1 definition is converted first: what all
 * versions have in common moves to the top (spec.validation, spec.subresources, ...). Paths of
 * causes show that, and so do ours: home_of() says where a member of a version is shown.
 */
#include "controlplane/resources/crd.h"
#include "controlplane/resources/rows.h"
#include "controlplane/schema/names.h"
#include "controlplane/schema/structural.h"
#include "controlplane/schema/validate.h"

#define MAX_SELECTABLE 8
#define APPROVAL "api-approved.kubernetes.io"

static const char *str_of(const struct th_json *o, const char *path)
{
    const char *s = th_json_path_str(o, path);
    return s ? s : "";
}

static void check_name(struct th_err *err, const char *path, const char *value,
                       enum th_name_format f, const char *prefix)
{
    const char *msgs[TH_NAME_MSGS];
    size_t n = th_name_messages(f, value, msgs);
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_buf_puts(&b, prefix);
    for (size_t i = 0; i < n; i++) {
        th_buf_printf(&b, "%s%s", i ? "," : "", msgs[i]);
    }
    if (n) {
        th_invalid_str(err, path, value, th_buf_cstr(&b));
    }
}

static char *lower_of(const char *s)
{
    char *l = th_xstrdup(s);
    for (char *p = l; *p; p++) {
        *p = (char)(*p >= 'A' && *p <= 'Z' ? *p + 32 : *p);
    }
    return l;
}

/* ---- Names ---- */

static void check_mixed(struct th_err *err, const char *path, const char *value)
{
    th_autofree char *lower = lower_of(value);
    const char *msgs[TH_NAME_MSGS];
    if (*value && th_name_messages(TH_NAME_DNS1035_LABEL, lower, msgs)) {
        th_autofree char *why =
            th_xasprintf("may have mixed case, but should otherwise match: %s", msgs[0]);
        th_invalid_str(err, path, value, why);
    }
}

static void check_labels_list(const struct th_json *list, const char *path, struct th_err *err)
{
    for (size_t i = 0; i < th_json_len(list); i++) {
        const char *s = th_json_str(th_json_at(list, i));
        th_autofree char *at = th_field_index(path, i);
        check_name(err, at, s ? s : "", TH_NAME_DNS1035_LABEL, "");
    }
}

static void check_names(const struct th_json *names, const char *path, bool all, struct th_err *err)
{
    static const char *const members[] = {"plural", "singular", "kind", "listKind"};
    for (size_t i = 0; i < TH_ARRAY_LEN(members); i++) {
        const char *v = str_of(names, members[i]);
        th_autofree char *at = th_field_child(path, members[i]);
        if (!*v && all) {
            th_invalid_required(err, at, "");
        }
        if (*v && i < 2) {
            check_name(err, at, v, TH_NAME_DNS1035_LABEL, "");
        } else if (*v) {
            check_mixed(err, at, v);
        }
    }
    th_autofree char *shorts = th_field_child(path, "shortNames");
    th_autofree char *cats = th_field_child(path, "categories");
    check_labels_list(th_json_get(names, "shortNames"), shorts, err);
    if (*str_of(names, "kind") && th_streq(str_of(names, "kind"), str_of(names, "listKind"))) {
        th_autofree char *at = th_field_child(path, "listKind");
        th_invalid_str(err, at, str_of(names, "listKind"),
                       "kind and listKind may not be the same");
    }
    check_labels_list(th_json_get(names, "categories"), cats, err);
}

static void check_group(const char *group, struct th_err *err)
{
    if (!*group) {
        th_invalid_required(err, "spec.group", "");
    } else if (th_name_dns1123_subdomain(group)) {
        check_name(err, "spec.group", group, TH_NAME_DNS1123_SUBDOMAIN, "");
    } else if (!strchr(group, '.')) {
        th_invalid_str(err, "spec.group", group, "should be a domain with at least one dot");
    }
}

/* ---- Versions ---- */

/* Whether all versions have the same non-empty member: it is shown at the top then. */
static bool is_common(const struct th_json *versions, const char *member)
{
    const struct th_json *first = th_json_get(th_json_at(versions, 0), member);
    for (size_t i = 0; i < th_json_len(versions); i++) {
        const struct th_json *v = th_json_get(th_json_at(versions, i), member);
        if (!v || !th_json_equal(v, first)) {
            return false;
        }
    }
    return th_json_len(versions) > 0;
}

/* Where a member of version i is shown; the caller frees. */
static char *home_of(const struct th_json *versions, size_t i, const char *member, const char *top)
{
    return is_common(versions, member) ? th_xasprintf("spec.%s", top)
                                       : th_xasprintf("spec.versions[%zu].%s", i, member);
}

static void check_json_path(const char *s, const char *path, const char *under,
                            const char *under_too, const char *words, struct th_err *err)
{
    if (*s != '.') {
        th_invalid_str(err, path, s, "must be a simple json path starting with .");
    } else if (under && !th_startswith(s, under) && !(under_too && th_startswith(s, under_too))) {
        th_invalid_str(err, path, s, words);
    }
}

static void check_subresources(const struct th_json *subs, const char *home, struct th_err *err)
{
    const struct th_json *scale = th_json_get(subs, "scale");
    static const struct {
        const char *member, *under, *words;
    } rules[] = {
        {"specReplicasPath", ".spec.", "should be a json path under .spec"},
        {"statusReplicasPath", ".status.", "should be a json path under .status"},
    };
    for (size_t i = 0; scale && i < TH_ARRAY_LEN(rules); i++) {
        th_autofree char *at = th_field_path("%s.scale.%s", home, rules[i].member);
        const char *v = str_of(scale, rules[i].member);
        if (!*v) {
            th_invalid_required(err, at, "");
        } else {
            check_json_path(v, at, rules[i].under, NULL, rules[i].words, err);
        }
    }
    const char *labels = str_of(scale, "labelSelectorPath");
    if (*labels) {
        th_autofree char *at = th_field_path("%s.scale.labelSelectorPath", home);
        check_json_path(labels, at, ".spec.", ".status.",
                        "should be a json path under either .spec or .status", err);
    }
}

static bool one_of(const char *s, const char *const *list)
{
    for (; *list; list++) {
        if (strcmp(s, *list) == 0) {
            return true;
        }
    }
    return false;
}

static void check_columns(const struct th_json *columns, const char *home, struct th_err *err)
{
    static const char *const types[] = {"boolean", "date", "integer", "number", "string", NULL};
    static const char *const formats[] = {"byte",  "date",  "date-time", "double", "float",
                                          "int32", "int64", "password",  NULL};
    for (size_t i = 0; i < th_json_len(columns); i++) {
        const struct th_json *c = th_json_at(columns, i);
        const char *type = str_of(c, "type"), *format = str_of(c, "format");
        const char *path = str_of(c, "jsonPath");
        th_autofree char *at = th_field_index(home, i);
        th_autofree char *name_at = th_field_child(at, "name");
        th_autofree char *type_at = th_field_child(at, "type");
        th_autofree char *format_at = th_field_child(at, "format");
        th_autofree char *path_at = th_field_child(at, "JSONPath");
        if (!*str_of(c, "name")) {
            th_invalid_required(err, name_at, "");
        }
        const char *types_text = "must be one of boolean,date,integer,number,string";
        if (!*type) {
            th_invalid_required(err, type_at, types_text);
        } else if (!one_of(type, types)) {
            th_invalid_str(err, type_at, type, types_text);
        }
        if (*format && !one_of(format, formats)) {
            th_invalid_str(err, format_at, format,
                           "must be one of byte,date,date-time,double,float,int32,int64,password");
        }
        if (!*path) {
            th_invalid_required(err, path_at, "");
        } else {
            check_json_path(path, path_at, NULL, NULL, NULL, err);
        }
    }
}

/* The schema at ".spec.color"; NULL when there is none. Only plain members. */
static const struct th_structural *schema_at(const struct th_structural *s, const char *path)
{
    th_autostrv struct th_strv parts = TH_STRV_INIT;
    th_strv_split(&parts, path + 1, '.');
    for (size_t i = 0; s && i < parts.n; i++) {
        s = th_structural_prop(s, parts.v[i]);
    }
    return s;
}

static void check_selectable(const struct th_json *fields, const struct th_json *schema,
                             const char *home, struct th_err *err)
{
    if (th_json_len(fields) == 0) {
        return;
    }
    if (!schema) {
        th_invalid_str(err, home, "",
                       "may only be set when `version.schema.openAPIV3Schema` is not included");
        return;
    }
    TH_AUTO(th_structural) struct th_structural *s = th_structural_new(schema, true, NULL);
    th_autostrv struct th_strv seen = TH_STRV_INIT;
    for (size_t i = 0; i < th_json_len(fields); i++) {
        const char *path = str_of(th_json_at(fields, i), "jsonPath");
        th_autofree char *item = th_field_index(home, i);
        th_autofree char *at = th_field_child(item, "jsonPath");
        if (!*path) {
            th_invalid_required(err, at, "");
            continue;
        }
        const struct th_structural *t = *path == '.' ? schema_at(s, path) : NULL;
        bool meta = th_startswith(path, ".metadata");
        if (!t && !meta) {
            th_autofree char *why =
                *path != '.' ? th_xasprintf("is an invalid path: expected . or [ at the start of: "
                                            "%s",
                                            path)
                             : th_xasprintf("is an invalid path: does not refer to a valid field");
            th_invalid_str(err, at, path, why);
            continue;
        }
        if (meta) {
            th_invalid_str(err, at, path, "must not point to fields in metadata");
        }
        if (!t || (t->type != TH_ST_STRING && t->type != TH_ST_BOOLEAN &&
                   t->type != TH_ST_INTEGER)) {
            th_invalid_str(err, at, path,
                           "must point to a field of type string, boolean or integer. Enum string "
                           "fields and strings with formats are allowed.");
        }
        if (th_strv_has(&seen, path)) {
            th_invalid_duplicate(err, at, th_json_get(th_json_at(fields, i), "jsonPath"));
        } else {
            th_strv_add(&seen, path);
        }
    }
    if (seen.n > MAX_SELECTABLE) {
        th_invalid_too_many(err, home, seen.n, MAX_SELECTABLE);
    }
}

static void check_deprecation(const struct th_json *v, size_t i, struct th_err *err)
{
    const struct th_json *warning = th_json_get(v, "deprecationWarning");
    const char *text = th_json_str(warning);
    th_autofree char *at = th_field_path("spec.versions[%zu].deprecationWarning", i);
    if (!text) {
        return;
    }
    if (!th_json_as_bool(th_json_get(v, "deprecated"), false)) {
        th_invalid_str(err, at, text, "can only be set for deprecated versions");
        return;
    }
    if (strlen(text) > 256) {
        th_invalid_str(err, at, text, "must be <= 256 characters long");
    }
    if (!*text) {
        th_invalid_str(err, at, text, "must not be an empty string");
    }
    for (const char *p = text; *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f) {
            th_autofree char *why =
                th_xasprintf("must only contain printable UTF-8 characters; non-printable "
                             "character found at index %zu",
                             (size_t)(p - text));
            th_invalid_str(err, at, text, why);
            break;
        }
    }
}

static void check_version(const struct th_json *crd, const struct th_json *versions, size_t i,
                          struct th_err *err)
{
    const struct th_json *v = th_json_at(versions, i);
    const struct th_json *schema = th_json_path(v, "schema.openAPIV3Schema");
    th_autofree char *name_at = th_field_path("spec.versions[%zu].name", i);
    check_name(err, name_at, str_of(v, "name"), TH_NAME_DNS1035_LABEL, "");
    check_deprecation(v, i, err);
    if (!schema) {
        th_autofree char *at = th_field_path("spec.versions[%zu].schema.openAPIV3Schema", i);
        th_invalid_required(err, at, "");
    } else if (i == 0 || !is_common(versions, "schema")) {
        th_autofree char *home = home_of(versions, i, "schema", "validation");
        th_autofree char *at = th_field_child(home, "openAPIV3Schema");
        const struct th_crd_schema_opts o = {
            .status = th_json_path(v, "subresources.status") != NULL, .crd = crd};
        th_crd_validate_schema(schema, at, &o, err);
    }
    if (i == 0 || !is_common(versions, "subresources")) {
        th_autofree char *home = home_of(versions, i, "subresources", "subresources");
        check_subresources(th_json_get(v, "subresources"), home, err);
    }
    if (i == 0 || !is_common(versions, "additionalPrinterColumns")) {
        th_autofree char *home =
            home_of(versions, i, "additionalPrinterColumns", "additionalPrinterColumns");
        check_columns(th_json_get(v, "additionalPrinterColumns"), home, err);
    }
    if (i == 0 || !is_common(versions, "selectableFields")) {
        th_autofree char *home = home_of(versions, i, "selectableFields", "selectableFields");
        check_selectable(th_json_get(v, "selectableFields"), schema, home, err);
    }
}

static void check_versions(const struct th_json *crd, struct th_err *err)
{
    const struct th_json *versions = th_json_path(crd, "spec.versions");
    size_t storage = 0;
    bool unique = true;
    for (size_t i = 0; i < th_json_len(versions); i++) {
        const struct th_json *v = th_json_at(versions, i);
        storage += th_json_as_bool(th_json_get(v, "storage"), false);
        for (size_t k = 0; k < i; k++) {
            unique = unique && !th_streq(str_of(th_json_at(versions, k), "name"),
                                         str_of(v, "name"));
        }
        check_version(crd, versions, i, err);
    }
    if (!unique) {
        th_invalid_value(err, "spec.versions", versions, "must contain unique version names");
    }
    if (storage != 1) {
        th_invalid_value(err, "spec.versions", versions,
                         "must have exactly one version marked as storage version");
    }
}

/* ---- Conversion ---- */

static void check_url(const char *url, const char *path, struct th_err *err)
{
    static const char form[] = "; desired format: https://host[/path]";
    const char *rest = strstr(url, "://");
    th_autofree char *scheme = rest ? th_xstrndup(url, (size_t)(rest - url)) : th_xstrdup("");
    const char *host = rest ? rest + 3 : "";
    size_t n = strcspn(host, "/?#");
    if (!th_streq(scheme, "https")) {
        th_autofree char *why = th_xasprintf("'https' is the only allowed URL scheme%s", form);
        th_invalid_str(err, path, scheme, why);
    }
    const char *at = memchr(host, '@', n);
    if (n == 0) {
        th_autofree char *why = th_xasprintf("host must be specified%s", form);
        th_invalid_str(err, path, "", why);
    }
    if (at) {
        th_autofree char *user = th_xstrndup(host, (size_t)(at - host));
        th_invalid_str(err, path, user, "user information is not permitted in the URL");
    }
    const char *fragment = strchr(url, '#'), *query = strchr(url, '?');
    if (fragment && fragment[1]) {
        th_invalid_str(err, path, fragment + 1, "fragments are not permitted in the URL");
    }
    if (query && query[1] && query[1] != '#') {
        th_autofree char *q = th_xstrndup(query + 1, strcspn(query + 1, "#"));
        th_invalid_str(err, path, q, "query parameters are not permitted in the URL");
    }
}

static void check_service(const struct th_json *svc, const char *path, struct th_err *err)
{
    static const char *const members[] = {"name", "namespace"};
    for (size_t i = 0; i < TH_ARRAY_LEN(members); i++) {
        if (!*str_of(svc, members[i])) {
            th_autofree char *at = th_field_child(path, members[i]);
            th_invalid_required(err, at, "");
        }
    }
    int64_t port = th_json_path_int(svc, "port", 443);
    if (port < 1 || port > 65535) {
        th_autofree char *at = th_field_child(path, "port");
        th_invalid_int(err, at, port,
                       "port is not valid: must be between 1 and 65535, inclusive");
    }
    const char *url = str_of(svc, "path");
    th_autofree char *at = th_field_child(path, "path");
    if (*url && *url != '/') {
        th_invalid_str(err, at, url, "must start with a '/'");
    }
}

static void check_review_versions(const struct th_json *list, struct th_err *err)
{
    static const char path[] = "spec.conversion.conversionReviewVersions";
    bool accepted = false;
    if (th_json_len(list) == 0) {
        th_invalid_required(err, path, "");
        return;
    }
    for (size_t i = 0; i < th_json_len(list); i++) {
        const char *s = th_json_str(th_json_at(list, i));
        th_autofree char *at = th_field_index(path, i);
        bool dup = false;
        for (size_t k = 0; k < i; k++) {
            dup = dup || th_streq(s, th_json_str(th_json_at(list, k)));
        }
        if (dup) {
            th_invalid_str(err, at, s, "duplicate version");
            continue;
        }
        check_name(err, at, s ? s : "", TH_NAME_DNS1035_LABEL, "");
        accepted = accepted || th_streq(s, "v1") || th_streq(s, "v1beta1");
    }
    if (!accepted) {
        th_invalid_value(err, path, list, "must include at least one of v1, v1beta1");
    }
}

static void check_conversion(const struct th_json *conv, struct th_err *err)
{
    static const char *const strategies[] = {"None", "Webhook", NULL};
    static const char config_at[] = "spec.conversion.webhookClientConfig";
    if (!conv) {
        return;
    }
    const char *strategy = str_of(conv, "strategy");
    if (!*strategy) {
        th_invalid_required(err, "spec.conversion.strategy", "");
    } else if (!one_of(strategy, strategies)) {
        th_invalid_not_supported(err, "spec.conversion.strategy", strategy, strategies);
    }
    const struct th_json *config = th_json_path(conv, "webhook.clientConfig");
    const struct th_json *reviews = th_json_path(conv, "webhook.conversionReviewVersions");
    if (!th_streq(strategy, "Webhook")) {
        if (config) {
            th_invalid_forbidden(err, config_at,
                                 "should not be set when strategy is not set to Webhook");
        }
        if (th_json_len(reviews)) {
            th_invalid_forbidden(err, "spec.conversion.conversionReviewVersions",
                                 "should not be set when strategy is not set to Webhook");
        }
        return;
    }
    const char *url = th_json_path_str(config, "url");
    const struct th_json *svc = th_json_get(config, "service");
    if (!config) {
        th_invalid_required(err, config_at, "required when strategy is set to Webhook");
    } else if ((url != NULL) == (svc != NULL)) {
        th_invalid_required(err, config_at, "exactly one of url or service is required");
    } else if (url) {
        check_url(url, "spec.conversion.webhookClientConfig.url", err);
    } else {
        check_service(svc, "spec.conversion.webhookClientConfig.service", err);
    }
    check_review_versions(reviews, err);
}

/* ---- Status and the whole ---- */

static void check_stored_versions(const struct th_json *crd, struct th_err *err)
{
    static const char path[] = "status.storedVersions";
    const struct th_json *stored = th_json_path(crd, path);
    const struct th_json *versions = th_json_path(crd, "spec.versions");
    if (th_json_len(stored) == 0) {
        TH_AUTO(th_json) struct th_json *none = th_json_array();
        th_invalid_value(err, path, stored ? stored : none,
                         "must have at least one stored version");
        return;
    }
    for (size_t i = 0; i < th_json_len(versions); i++) {
        const struct th_json *v = th_json_at(versions, i);
        bool there = false;
        for (size_t k = 0; k < th_json_len(stored); k++) {
            there = there || th_streq(th_json_str(th_json_at(stored, k)), str_of(v, "name"));
        }
        if (th_json_as_bool(th_json_get(v, "storage"), false) && !there) {
            th_autofree char *why =
                th_xasprintf("must have the storage version %s", str_of(v, "name"));
            th_invalid_value(err, path, stored, why);
        }
    }
    for (size_t k = 0; k < th_json_len(stored); k++) {
        const char *s = th_json_str(th_json_at(stored, k));
        bool there = false;
        for (size_t i = 0; i < th_json_len(versions); i++) {
            there = there || th_streq(s, str_of(th_json_at(versions, i), "name"));
        }
        if (!there) {
            th_autofree char *at = th_field_index(path, k);
            th_autofree char *why = th_xasprintf(
                "missing from spec.versions; %s was previously a storage version, and must remain "
                "in spec.versions until a storage migration ensures no data remains persisted in "
                "%s and removes %s from status.storedVersions",
                s, s, s);
            th_invalid_str(err, at, s ? s : "", why);
        }
    }
}

static bool is_community(const char *group)
{
    return th_streq(group, "k8s.io") || th_streq(group, "kubernetes.io") ||
           th_endswith(group, ".k8s.io") || th_endswith(group, ".kubernetes.io");
}

static void check_approval(const struct th_json *crd, const struct th_json *old,
                           struct th_err *err)
{
    const char *now = th_json_str(th_json_get(th_json_path(crd, "metadata.annotations"), APPROVAL));
    const char *was = th_json_str(th_json_get(th_json_path(old, "metadata.annotations"), APPROVAL));
    if (!is_community(str_of(crd, "spec.group")) || (old && th_streq(now, was))) {
        return;
    }
    static const char path[] = "metadata.annotations[" APPROVAL "]";
    if (!now || !*now) {
        th_invalid_required(err, path,
                            "protected groups must have approval annotation "
                            "\"" APPROVAL "\", see https://github.com/kubernetes/enhancements/pull/"
                            "1111");
    } else if (!th_startswith(now, "unapproved") && !strstr(now, "://")) {
        th_autofree char *why = th_xasprintf("protected groups must have approval annotation "
                                             "\"" APPROVAL "\" with either a URL or a reason "
                                             "starting with \"unapproved\", see "
                                             "https://github.com/kubernetes/enhancements/pull/1111");
        th_invalid_str(err, path, now, why);
    }
}

static void check_spec(const struct th_json *crd, struct th_err *err)
{
    static const char *const scopes[] = {"Cluster", "Namespaced", NULL};
    const struct th_json *spec = th_json_get(crd, "spec");
    const char *scope = str_of(spec, "scope");
    check_group(str_of(spec, "group"), err);
    if (!*scope) {
        th_invalid_required(err, "spec.scope", "");
    } else if (!one_of(scope, scopes)) {
        th_invalid_not_supported(err, "spec.scope", scope, scopes);
    }
    check_versions(crd, err);
    check_names(th_json_get(spec, "names"), "spec.names", true, err);
    check_conversion(th_json_get(spec, "conversion"), err);
    check_names(th_json_path(crd, "status.acceptedNames"), "status.acceptedNames", false, err);
    check_stored_versions(crd, err);
}

void th_crd_validate(const struct th_req_ctx *c, const struct th_json *obj, struct th_err *err)
{
    (void)c;
    const char *name = str_of(obj, "metadata.name");
    th_autofree char *want =
        th_xasprintf("%s.%s", str_of(obj, "spec.names.plural"), str_of(obj, "spec.group"));
    if (!th_streq(name, want)) {
        th_invalid_str(err, "metadata.name", name,
                       "must be spec.names.plural+\".\"+spec.group");
    }
    check_spec(obj, err);
    if (th_json_path_bool(obj, "spec.preserveUnknownFields", false)) {
        th_invalid_value(err, "spec.preserveUnknownFields",
                         th_json_path(obj, "spec.preserveUnknownFields"),
                         "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in "
                         "spec.versions[*].schema instead");
    }
    /* the approval of an update is compared with what was there: th_crd_validate_update */
    if (!th_json_path_str(obj, "metadata.resourceVersion")) {
        check_approval(obj, NULL, err);
    }
}

static void check_same(const struct th_json *obj, const struct th_json *old, const char *path,
                       struct th_err *err)
{
    const char *now = str_of(obj, path);
    if (!th_streq(now, str_of(old, path))) {
        th_invalid_str(err, path, now, "field is immutable");
    }
}

void th_crd_validate_update(const struct th_req_ctx *c, const struct th_json *obj,
                            const struct th_json *old, struct th_err *err)
{
    (void)c;
    if (th_streq(th_crd_condition(old, "Established"), "True")) {
        check_same(obj, old, "spec.scope", err);
        check_same(obj, old, "spec.names.kind", err);
    }
    check_same(obj, old, "spec.group", err);
    check_same(obj, old, "spec.names.plural", err);
    check_approval(obj, old, err);
}
