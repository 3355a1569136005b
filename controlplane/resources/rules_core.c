/* Rules of the core group that a line of rules.tsv cannot say: ConfigMaps, Secrets, quotas and limits,
 * nodes, claims and volumes when they change (upstream: pkg/apis/core/validation). */
#include "controlplane/resources/amounts.h"
#include "controlplane/resources/rows.h"
#include "controlplane/resources/rules.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/encode.h"
#include "controlplane/schema/quantity.h"
#include "controlplane/schema/validate.h"

#define MAX_DATA_B (1024 * 1024)

/* ---- ConfigMaps and Secrets ---- */

/* Keys of a map of data; adds up the sizes. */
static void check_keys(const struct th_view *v, const char *member, bool base64, size_t *total)
{
    struct th_json_iter it = TH_JSON_ITER(th_view_get(v, member));
    while (th_json_next(&it)) {
        struct th_view at = th_view_key(v, member, it.name);
        (void)th_check_format(&at, NULL, it.name, TH_NAME_CONFIG_KEY);
        size_t n = th_json_str_len(it.value);
        *total += base64 ? n / 4 * 3 : n;
    }
}

void th_rule_config_map(const struct th_view *v)
{
    size_t total = 0;
    check_keys(v, "data", false, &total);
    struct th_json_iter it = TH_JSON_ITER(th_view_get(v, "data"));
    while (th_json_next(&it)) {
        if (th_json_has(th_view_get(v, "binaryData"), it.name)) {
            struct th_view at = th_view_key(v, "data", it.name);
            th_bad_str(&at, NULL, it.name, "duplicate of key present in binaryData");
        }
    }
    check_keys(v, "binaryData", true, &total);
    if (total > MAX_DATA_B) {
        th_bad_too_long(v, NULL, MAX_DATA_B);
    }
}

static void need_key(const struct th_view *v, const char *key)
{
    if (!th_json_has(th_view_get(v, "data"), key)) {
        struct th_view at = th_view_key(v, "data", key);
        th_bad_required(&at, NULL, "");
    }
}

static void check_json_key(const struct th_view *v, const char *key)
{
    const char *text = th_json_str(th_json_get(th_view_get(v, "data"), key));
    need_key(v, key);
    if (!text) {
        return;
    }
    th_autobuf struct th_buf bytes = TH_BUF_INIT;
    TH_AUTO(th_json) struct th_json *parsed = NULL;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    bool ok = th_b64_decode(text, strlen(text), &bytes, &err) >= 0 &&
              th_json_parse(th_buf_cstr(&bytes), bytes.n, NULL, &parsed, &err) >= 0 &&
              (!parsed || th_json_is(parsed, TH_JSON_OBJECT));
    if (!ok) {
        struct th_view at = th_view_key(v, "data", key);
        th_bad_str(&at, NULL, "<secret contents redacted>",
                   bytes.n == 0 ? "unexpected end of JSON input" : "invalid JSON object");
    }
}

void th_rule_secret(const struct th_view *v)
{
    const char *type = th_view_str(v, "type");
    const struct th_json *data = th_view_get(v, "data");
    size_t total = 0;
    check_keys(v, "data", true, &total);
    if (total > MAX_DATA_B) {
        th_bad_too_long(v, "data", MAX_DATA_B);
    }
    if (th_streq(type, "kubernetes.io/service-account-token")) {
        static const char name[] = "kubernetes.io/service-account.name";
        const char *account = th_json_str(th_json_get(th_view_get(v, "metadata.annotations"), name));
        if (!account || !*account) {
            struct th_view at = th_view_key(v, "metadata.annotations", name);
            th_bad_required(&at, NULL, "");
        }
    } else if (th_streq(type, "kubernetes.io/dockercfg")) {
        check_json_key(v, ".dockercfg");
    } else if (th_streq(type, "kubernetes.io/dockerconfigjson")) {
        check_json_key(v, ".dockerconfigjson");
    } else if (th_streq(type, "kubernetes.io/basic-auth")) {
        if (!th_json_has(data, "username") && !th_json_has(data, "password")) {
            need_key(v, "username");
            need_key(v, "password");
        }
    } else if (th_streq(type, "kubernetes.io/ssh-auth")) {
        const char *key = th_json_str(th_json_get(data, "ssh-privatekey"));
        if (!key || !*key) {
            struct th_view at = th_view_key(v, "data", "ssh-privatekey");
            th_bad_required(&at, NULL, "");
        }
    } else if (th_streq(type, "kubernetes.io/tls")) {
        need_key(v, "tls.crt");
        need_key(v, "tls.key");
    }
}

void th_data_validate_update(const struct th_req_ctx *c, const struct th_json *obj,
                             const struct th_json *old, struct th_err *err)
{
    (void)c;
    static const char *const members[] = {"data", "binaryData"};
    static const char words[] = "field is immutable when `immutable` is set";
    if (!th_json_as_bool(th_json_get(old, "immutable"), false)) {
        return;
    }
    if (!th_json_as_bool(th_json_get(obj, "immutable"), false)) {
        th_invalid_forbidden(err, "immutable", words);
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(members); i++) {
        const struct th_json *a = th_json_get(obj, members[i]), *b = th_json_get(old, members[i]);
        if (!th_json_equal(a, b) && th_json_len(a) + th_json_len(b) > 0) {
            th_invalid_forbidden(err, members[i], words);
        }
    }
}

/* A Secret without a type that is changed keeps the one it has. */
void th_secret_prepare_update(const struct th_req_ctx *c, struct th_json *obj,
                              const struct th_json *old)
{
    (void)c;
    const char *type = th_json_path_str(obj, "type"), *was = th_json_path_str(old, "type");
    if ((!type || !*type) && was) {
        th_json_set_str(obj, "type", was);
    }
}

/* ---- Quotas ---- */

static const char scopes[] = "Terminating|NotTerminating|BestEffort|NotBestEffort|PriorityClass|"
                             "CrossNamespacePodAffinity|VolumeAttributesClass";

static bool scope_fits(const char *scope, const char *resource)
{
    static const char compute[] = "pods|cpu|memory|requests.cpu|requests.memory|limits.cpu|"
                                  "limits.memory|ephemeral-storage|requests.ephemeral-storage|"
                                  "limits.ephemeral-storage";
    if (th_word_in(scope, "Terminating|NotTerminating|NotBestEffort|PriorityClass|"
                          "CrossNamespacePodAffinity")) {
        return th_word_in(resource, compute);
    }
    if (th_streq(scope, "BestEffort")) {
        return th_streq(resource, "pods");
    }
    if (th_streq(scope, "VolumeAttributesClass")) {
        return th_word_in(resource, "persistentvolumeclaims|requests.storage");
    }
    return true;
}

static bool has_scope(const struct th_json *list, const char *member, const char *scope)
{
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *one = th_json_at(list, i);
        if (th_streq(th_json_str(member ? th_json_get(one, member) : one), scope)) {
            return true;
        }
    }
    return false;
}

static void check_pairs(const struct th_view *v, const char *list, const char *member)
{
    const struct th_json *all = th_view_get(v, list);
    if ((has_scope(all, member, "BestEffort") && has_scope(all, member, "NotBestEffort")) ||
        (has_scope(all, member, "Terminating") && has_scope(all, member, "NotTerminating"))) {
        th_bad_json(v, list, th_view_get(v, "scopes"), "conflicting scopes");
    }
}

static void check_scope_expression(const struct th_view *v, const struct th_view *e)
{
    static const char at[] = "scopeSelector.matchExpressions";
    const char *scope = th_view_str(e, "scopeName"), *op = th_view_str(e, "operator");
    struct th_view list = th_view_at(v, at);
    if (!th_word_in(scope, scopes)) {
        th_bad_str(&list, "scopeName", scope, "unsupported scope");
    }
    struct th_json_iter it = TH_JSON_ITER(th_view_get(v, "hard"));
    while (th_json_next(&it)) {
        if (th_resource_is_quota(it.name) && !scope_fits(scope, it.name)) {
            TH_AUTO(th_json) struct th_json *shown = th_recase(th_view_get(v, "scopeSelector"), true);
            th_bad_json(v, at, shown, "unsupported scope applied to resource");
        }
    }
    if (th_word_in(scope, "BestEffort|NotBestEffort|Terminating|NotTerminating|"
                          "CrossNamespacePodAffinity") &&
        !th_streq(op, "Exists")) {
        th_bad_str(&list, "operator", op,
                   "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, "
                   "ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, "
                   "ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity");
    }
    size_t n = th_view_len(e, "values");
    if (th_word_in(op, "In|NotIn")) {
        if (n == 0) {
            th_bad_required(&list, "values", "must be at least one value when `operator` is 'In' or "
                                             "'NotIn' for scope selector");
        }
    } else if (th_word_in(op, "Exists|DoesNotExist")) {
        if (n > 0) {
            th_bad_json(&list, "values", th_view_get(e, "values"),
                        "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope "
                        "selector");
        }
    } else {
        th_bad_str(&list, "operator", op, "not a valid selector operator");
    }
}

static void check_hard(const struct th_view *v, const char *member)
{
    struct th_json_iter it = TH_JSON_ITER(th_view_get(v, member));
    while (th_json_next(&it)) {
        struct th_view at = th_view_key(v, member, it.name);
        (void)th_check_resource_name(&at, it.name);
        if (!strchr(it.name, '/') && !th_resource_is_quota(it.name)) {
            th_bad_str(&at, NULL, it.name, "must be a standard resource for quota");
        }
        th_check_resource_amount(&at, it.name);
    }
}

void th_rule_quota_spec(const struct th_view *v)
{
    const struct th_json *list = th_view_get(v, "scopes");
    check_hard(v, "hard");
    for (size_t i = 0; i < th_json_len(list); i++) {
        const char *scope = th_json_str(th_json_at(list, i));
        scope = scope ? scope : "";
        if (!th_word_in(scope, scopes)) {
            th_bad_value(v, "scopes", "unsupported scope");
        }
        struct th_json_iter it = TH_JSON_ITER(th_view_get(v, "hard"));
        while (th_json_next(&it)) {
            if (th_resource_is_quota(it.name) && !scope_fits(scope, it.name)) {
                th_bad_value(v, "scopes", "unsupported scope applied to resource");
            }
        }
    }
    check_pairs(v, "scopes", NULL);
    for (size_t i = 0; i < th_view_len(v, "scopeSelector.matchExpressions"); i++) {
        struct th_view e = th_view_item(v, "scopeSelector.matchExpressions", i);
        check_scope_expression(v, &e);
    }
}

void th_quota_validate_update(const struct th_req_ctx *c, const struct th_json *obj,
                              const struct th_json *old, struct th_err *err)
{
    (void)c;
    const struct th_json *a = th_json_path(obj, "spec.scopes"), *b = th_json_path(old, "spec.scopes");
    bool same = th_json_len(a) == th_json_len(b);
    for (size_t i = 0; same && i < th_json_len(a); i++) {
        same = has_scope(b, NULL, th_json_str(th_json_at(a, i)));
    }
    if (!same) {
        th_invalid_value(err, "spec.scopes", a, "field is immutable");
    }
}

void th_quota_validate_status(const struct th_req_ctx *c, const struct th_json *obj,
                              const struct th_json *old, struct th_err *err)
{
    (void)c;
    (void)old;
    struct th_view v = TH_VIEW(obj, err);
    check_hard(&v, "status.hard");
    check_hard(&v, "status.used");
}

/* ---- LimitRanges ---- */

static bool amount(const struct th_view *v, const char *member, const char *key,
                   struct th_quantity *ret)
{
    const char *s = th_json_str(th_json_get(th_view_get(v, member), key));
    return s && th_quantity_parse(s, ret, NULL) == 0;
}

struct pair_rule {
    const char *low, *high, *at, *format;
};
static const struct pair_rule pairs[] = {
    {"min", "max", "min", "min value %s is greater than max value %s"},
    {"min", "defaultRequest", "defaultRequest",
     "min value %s is greater than default request value %s"},
    {"defaultRequest", "max", "defaultRequest",
     "default request value %s is greater than max value %s"},
    {"defaultRequest", "default", "defaultRequest",
     "default request value %s is greater than default limit value %s"},
    {"min", "default", "default", "min value %s is greater than default value %s"},
    {"default", "max", "default", "default value %s is greater than max value %s"},
};

static void check_limit_key(const struct th_view *v, const char *key)
{
    struct th_quantity a, b, ratio;
    for (size_t i = 0; i < TH_ARRAY_LEN(pairs); i++) {
        if (!amount(v, pairs[i].low, key, &a) || !amount(v, pairs[i].high, key, &b) ||
            th_quantity_cmp(a, b) <= 0) {
            continue;
        }
        const char *low = th_json_str(th_json_get(th_view_get(v, pairs[i].low), key));
        const char *high = th_json_str(th_json_get(th_view_get(v, pairs[i].high), key));
        const char *shown = i == 0 || i == 4 ? low : i == 5 ? high
                                         : th_json_str(th_json_get(th_view_get(v, pairs[i].at), key));
        th_autobuf struct th_buf why = TH_BUF_INIT;
        const char *split = strstr(pairs[i].format, "%s");
        const char *second = strstr(split + 2, "%s");
        th_buf_printf(&why, "%.*s%s%.*s%s", (int)(split - pairs[i].format), pairs[i].format, low,
                      (int)(second - split - 2), split + 2, high);
        struct th_view at = th_view_key(v, pairs[i].at, key);
        th_bad_str(&at, NULL, shown, th_buf_cstr(&why));
    }
    const char *text = th_json_str(th_json_get(th_view_get(v, "maxLimitRequestRatio"), key));
    if (!amount(v, "maxLimitRequestRatio", key, &ratio)) {
        return;
    }
    struct th_view at = th_view_key(v, "maxLimitRequestRatio", key);
    if (ratio.nano < 1000000000) {
        th_autofree char *why = th_xasprintf("ratio %s is less than 1", text);
        th_bad_str(&at, NULL, text, why);
    }
    if (amount(v, "min", key, &a) && amount(v, "max", key, &b) && a.nano > 0) {
        double most = (double)b.nano / (double)a.nano;
        if ((double)ratio.nano / 1e9 > most) {
            th_autofree char *why =
                th_xasprintf("ratio %s is greater than max/min = %f", text, most);
            th_bad_str(&at, NULL, text, why);
        }
    }
}

static void check_limit_names(const struct th_view *v, const char *member, struct th_strv *keys)
{
    bool of_pods = th_word_in(th_view_str(v, "type"), "Pod|Container");
    struct th_json_iter it = TH_JSON_ITER(th_view_get(v, member));
    while (th_json_next(&it)) {
        struct th_view at = th_view_key(v, member, it.name);
        (void)th_check_resource_name(&at, it.name);
        if (of_pods && !strchr(it.name, '/') && !th_resource_is_container(it.name)) {
            th_bad_str(&at, NULL, it.name, "must be a standard resource for containers");
        }
        if (!th_strv_has(keys, it.name)) {
            th_strv_add(keys, it.name);
        }
    }
}

void th_rule_limit(const struct th_view *v)
{
    const char *type = th_view_str(v, "type");
    static const char *const members[] = {"max", "min", "default", "defaultRequest",
                                          "maxLimitRequestRatio"};
    th_autostrv struct th_strv keys = TH_STRV_INIT;
    if (th_check_format(v, "type", type, TH_NAME_QUALIFIED) && !strchr(type, '/') &&
        !th_word_in(type, "Pod|Container|PersistentVolumeClaim")) {
        th_bad_str(v, "type", type, "must be a standard limit type or fully qualified");
    }
    const struct th_json *all = th_view_get(v->up, v->member);
    for (size_t i = 0; i < v->index; i++) {
        if (th_streq(th_json_path_str(th_json_at(all, i), "type"), type)) {
            th_bad_duplicate(v, "type", type);
            break;
        }
    }
    bool pod = th_streq(type, "Pod");
    for (size_t i = 0; i < TH_ARRAY_LEN(members); i++) {
        if (pod && (i == 2 || i == 3)) {
            if (th_view_len(v, members[i]) > 0) {
                th_bad_forbidden(v, members[i], "may not be specified when `type` is 'Pod'");
            }
        } else {
            check_limit_names(v, members[i], &keys);
        }
    }
    if (th_streq(type, "PersistentVolumeClaim") && !th_view_has(v, "min.storage") &&
        !th_view_has(v, "max.storage")) {
        th_bad_required(v, "limits",
                        "either minimum or maximum storage value is required, but neither was provided");
    }
    for (size_t i = 0; i < keys.n; i++) {
        check_limit_key(v, keys.v[i]);
    }
}

/* ---- Nodes ---- */

void th_rule_node_spec(const struct th_view *v)
{
    const struct th_json *taints = th_view_get(v, "taints");
    struct th_view top = *th_view_top(v);
    for (size_t i = 0; i < th_json_len(taints); i++) {
        struct th_view t = th_view_item(v, "taints", i);
        struct th_view at = th_view_item(&top, "metadata.taints", i); /* upstream's path */
        at.obj = t.obj;
        const char *key = th_view_str(&at, "key"), *effect = th_view_str(&at, "effect");
        (void)th_check_format(&at, "key", key, TH_NAME_QUALIFIED);
        (void)th_check_format(&at, "value", th_view_str(&at, "value"), TH_NAME_LABEL_VALUE);
        if (!*effect) {
            th_bad_required(&at, "effect", "");
        } else {
            (void)th_check_one_of(&at, "effect", effect, "NoSchedule|PreferNoSchedule|NoExecute");
        }
        for (size_t k = 0; k < i; k++) {
            const struct th_json *o = th_json_at(taints, k);
            if (th_streq(th_json_path_str(o, "key"), key) &&
                th_streq(th_json_path_str(o, "effect"), effect)) {
                th_autofree char *path = th_view_path(&at, NULL);
                th_err_add_cause(v->err, "FieldValueDuplicate", path,
                                 "Duplicate value: {\"Key\":\"%s\",\"Value\":\"%s\",\"Effect\":\"%s\","
                                 "\"TimeAdded\":null}: taints must be unique by key and effect pair",
                                 key, th_view_str(&at, "value"), effect);
                break;
            }
        }
    }
    const struct th_json *cidrs = th_view_get(v, "podCIDRs");
    const char *a = th_json_str(th_json_at(cidrs, 0)), *b = th_json_str(th_json_at(cidrs, 1));
    if (th_json_len(cidrs) > 2 || (a && b && !strchr(a, ':') == !strchr(b, ':'))) {
        th_bad_value(v, "podCIDRs", "may specify no more than one CIDR for each IP family");
    }
    for (size_t i = 0; i < th_view_len(v, "podCIDRs"); i++) {
        struct th_view c = th_view_item(v, "podCIDRs", i);
        (void)th_check_format(&c, NULL, th_view_str(&c, NULL), TH_NAME_CIDR);
    }
}

void th_node_validate_update(const struct th_req_ctx *c, const struct th_json *obj,
                             const struct th_json *old, struct th_err *err)
{
    (void)c;
    const struct th_json *was = th_json_path(old, "spec.podCIDRs");
    if (th_json_len(was) > 0 && !th_json_equal(was, th_json_path(obj, "spec.podCIDRs"))) {
        th_invalid_forbidden(err, "spec.podCIDRs",
                             "node updates may not change podCIDR except from \"\" to valid");
    }
    const char *id = th_json_path_str(old, "spec.providerID");
    if (id && *id && !th_streq(id, th_json_path_str(obj, "spec.providerID"))) {
        th_invalid_forbidden(err, "spec.providerID",
                             "node updates may not change providerID except from \"\" to valid");
    }
}

/* ---- Volumes and claims ---- */

static void set_phase_time(const struct th_req_ctx *c, struct th_json *pv)
{
    char now[TH_TIME_LEN];
    th_json_path_set_str(pv, "status.lastPhaseTransitionTime", th_time_format(c->now_ms, now));
}

void th_pv_prepare_create(const struct th_req_ctx *c, struct th_json *obj)
{
    th_phase_pending(c, obj);
    set_phase_time(c, obj);
}

/* A phase that changes says since when it is, unless the writer does. */
void th_pv_prepare_status(const struct th_req_ctx *c, struct th_json *obj,
                          const struct th_json *old)
{
    static const char *const since = "status.lastPhaseTransitionTime";
    bool same_time = th_json_equal(th_json_path(obj, since), th_json_path(old, since));
    if (!th_streq(th_json_path_str(obj, "status.phase"), th_json_path_str(old, "status.phase"))) {
        if (!th_json_path(obj, since) || same_time) {
            set_phase_time(c, obj);
        }
    } else if (!th_json_path(obj, since) && th_json_path(old, since)) {
        th_json_path_set(obj, since, th_json_dup(th_json_path(old, since)));
    }
}

/* dataSource is the older name of what dataSourceRef can say too. */
void th_pvc_prepare_create(const struct th_req_ctx *c, struct th_json *obj)
{
    th_phase_pending(c, obj);
    struct th_json *spec = th_json_get(obj, "spec");
    const struct th_json *source = th_json_get(spec, "dataSource");
    const struct th_json *ref = th_json_get(spec, "dataSourceRef");
    const char *ns = th_json_path_str(ref, "namespace");
    if (source && !ref) {
        th_json_set(spec, "dataSourceRef", th_json_dup(source));
    } else if (ref && !source && (!ns || !*ns)) {
        th_json_set(spec, "dataSource", th_json_dup(ref));
    }
    const char *kind = th_json_path_str(spec, "dataSource.kind");
    const char *group = th_json_path_str(spec, "dataSource.apiGroup");
    bool claim = th_streq(kind, "PersistentVolumeClaim") && (!group || !*group);
    bool snapshot = th_streq(kind, "VolumeSnapshot") && th_streq(group, "snapshot.storage.k8s.io");
    if (th_json_get(spec, "dataSource") && !claim && !snapshot) {
        (void)th_json_del(spec, "dataSource"); /* anything else only dataSourceRef may say */
    }
}

static const char not_source[] = "capacity|claimRef|nodeAffinity|accessModes|mountOptions|"
                                 "persistentVolumeReclaimPolicy|storageClassName|volumeMode|"
                                 "volumeAttributesClassName";

static struct th_json *sources_of(const struct th_json *pv)
{
    struct th_json *s = th_json_dup(th_json_get(pv, "spec"));
    struct th_json_iter it = TH_JSON_ITER(s);
    while (th_json_next(&it)) {
        if (th_word_in(it.name, not_source)) {
            (void)th_json_del(s, it.name);
        }
    }
    return s;
}

void th_pv_validate_update(const struct th_req_ctx *c, const struct th_json *obj,
                           const struct th_json *old, struct th_err *err)
{
    (void)c;
    TH_AUTO(th_json) struct th_json *a = sources_of(obj);
    TH_AUTO(th_json) struct th_json *b = sources_of(old);
    if (th_json_get(b, "csi") && !th_json_path(b, "csi.controllerExpandSecretRef")) {
        (void)th_json_path_del(a, "csi.controllerExpandSecretRef");
    }
    if (!th_json_equal(a, b)) {
        th_invalid_forbidden(err, "spec.persistentvolumesource",
                             "spec.persistentvolumesource is immutable after creation");
    }
    const struct th_json *mode = th_json_path(obj, "spec.volumeMode");
    if (!th_json_equal(mode, th_json_path(old, "spec.volumeMode"))) {
        th_invalid_value(err, "volumeMode", mode, "field is immutable");
    }
    const struct th_json *affinity = th_json_path(old, "spec.nodeAffinity");
    if (affinity && !th_json_equal(affinity, th_json_path(obj, "spec.nodeAffinity"))) {
        th_invalid_value(err, "nodeAffinity", th_json_path(obj, "spec.nodeAffinity"),
                         "field is immutable, except for updating from beta label to GA");
    }
    if (th_json_path(old, "spec.volumeAttributesClassName") &&
        !th_json_path(obj, "spec.volumeAttributesClassName")) {
        th_invalid_forbidden(err, "spec.volumeAttributesClassName",
                             "update from non-nil value to nil is forbidden");
    }
}

/* What may change in a claim is taken over before the rest is compared. */
static void forgive_claim(struct th_json *a, struct th_json *b, const struct th_json *old)
{
    const char *volume = th_json_path_str(b, "volumeName");
    static const char *const annotation = "volume.beta.kubernetes.io/storage-class";
    const struct th_json *beta = th_json_get(th_json_path(old, "metadata.annotations"), annotation);
    if (!volume || !*volume) {
        (void)th_json_del(a, "volumeName");
        (void)th_json_del(b, "volumeName");
    }
    const char *class = th_json_path_str(a, "storageClassName");
    if (class && !th_json_get(b, "storageClassName") &&
        (!beta || th_streq(th_json_str(beta), class))) {
        (void)th_json_del(a, "storageClassName");
    }
    if (th_streq(th_json_path_str(old, "status.phase"), "Bound")) {
        (void)th_json_path_del(a, "resources.requests.storage");
        (void)th_json_path_del(b, "resources.requests.storage");
        (void)th_json_del(a, "volumeAttributesClassName");
        (void)th_json_del(b, "volumeAttributesClassName");
    }
}

void th_pvc_validate_update(const struct th_req_ctx *c, const struct th_json *obj,
                            const struct th_json *old, struct th_err *err)
{
    (void)c;
    TH_AUTO(th_json) struct th_json *a = th_json_dup(th_json_get(obj, "spec"));
    TH_AUTO(th_json) struct th_json *b = th_json_dup(th_json_get(old, "spec"));
    forgive_claim(a, b, old);
    if (!th_json_equal(a, b)) {
        th_invalid_forbidden(err, "spec", "spec is immutable after creation except resources.requests "
                                          "and volumeAttributesClassName for bound claims");
    }
    struct th_quantity now, was, have = {0};
    const char *n = th_json_path_str(obj, "spec.resources.requests.storage");
    const char *w = th_json_path_str(old, "spec.resources.requests.storage");
    const char *h = th_json_path_str(old, "status.capacity.storage");
    if (n && w && th_quantity_parse(n, &now, NULL) == 0 && th_quantity_parse(w, &was, NULL) == 0 &&
        th_quantity_cmp(now, was) < 0 && (!h || th_quantity_parse(h, &have, NULL) == 0) &&
        th_quantity_cmp(now, have) <= 0) {
        th_invalid_forbidden(err, "spec.resources.requests.storage",
                             "field can not be less than status.capacity");
    }
    const struct th_json *mode = th_json_path(obj, "spec.volumeMode");
    if (!th_json_equal(mode, th_json_path(old, "spec.volumeMode"))) {
        th_invalid_value(err, "volumeMode", mode, "field is immutable");
    }
}

/* ---- Endpoints and namespaces ---- */

void th_check_endpoint_ip(const struct th_view *v, const char *member, const char *ip)
{
    if (th_streq(ip, "0.0.0.0") || th_streq(ip, "::")) {
        th_autofree char *why = th_xasprintf("may not be unspecified (%s)", ip);
        th_bad_str(v, member, ip, why);
    } else if (th_startswith(ip, "127.") || th_streq(ip, "::1")) {
        th_bad_str(v, member, ip, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    } else if (th_startswith(ip, "169.254.") || th_startswith(ip, "fe80:")) {
        th_bad_str(v, member, ip, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    } else if (th_startswith(ip, "224.0.0.") || th_startswith(ip, "ff02:")) {
        th_bad_str(v, member, ip,
                   "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

void th_rule_endpoint_subset(const struct th_view *v)
{
    static const char *const lists[] = {"addresses", "notReadyAddresses"};
    size_t n = th_view_len(v, lists[0]) + th_view_len(v, lists[1]);
    if (n == 0) {
        th_bad_required(v, NULL, "must specify `addresses` or `notReadyAddresses`");
    }
    for (size_t l = 0; l < TH_ARRAY_LEN(lists); l++) {
        for (size_t i = 0; i < th_view_len(v, lists[l]); i++) {
            struct th_view a = th_view_item(v, lists[l], i);
            const char *ip = th_view_str(&a, "ip"), *host = th_view_str(&a, "hostname");
            if (th_check_format(&a, "ip", ip, TH_NAME_IP)) {
                th_check_endpoint_ip(&a, "ip", ip);
            } else {
                th_bad_str(&a, "ip", ip, "must be a valid IP address"); /* upstream says both */
            }
            if (*host) {
                (void)th_check_format(&a, "hostname", host, TH_NAME_DNS1123_LABEL);
            }
        }
    }
    n = th_view_len(v, "ports");
    for (size_t i = 0; i < n; i++) {
        struct th_view p = th_view_item(v, "ports", i);
        const char *name = th_view_str(&p, "name");
        if (n > 1 && !*name) {
            th_bad_required(&p, "name", "");
        } else if (*name) {
            (void)th_check_format(&p, "name", name, TH_NAME_DNS1123_LABEL);
        }
        th_check_port_and_protocol(&p);
    }
}

void th_rule_namespace_spec(const struct th_view *v)
{
    for (size_t i = 0; i < th_view_len(v, "finalizers"); i++) {
        const char *f = th_json_str(th_json_at(th_view_get(v, "finalizers"), i));
        f = f ? f : "";
        if (!th_check_format(v, "finalizers", f, TH_NAME_QUALIFIED)) {
            continue;
        }
        if (!strchr(f, '/') && !th_streq(f, "kubernetes")) {
            th_bad_str(v, "finalizers", f,
                       "name is neither a standard finalizer name nor is it fully qualified");
        }
    }
}
