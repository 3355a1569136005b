/* Rules of workloads that a line of rules.tsv cannot say (upstream: pkg/apis/apps/validation), and of
 * their scale and status. */
#include "controlplane/resources/rows.h"
#include "controlplane/resources/rules.h"

#include "base/buf.h"
#include "controlplane/schema/selector.h"
#include "controlplane/schema/validate.h"

/* ---- Amounts that may be percentages ---- */

static bool is_percent(const char *s)
{
    size_t n = strlen(s);
    if (n < 2 || s[n - 1] != '%') {
        return false;
    }
    for (size_t i = 0; i + 1 < n; i++) {
        if (s[i] < '0' || s[i] > '9') {
            return false;
        }
    }
    return true;
}

int64_t th_int_or_percent(const struct th_json *v)
{
    const char *s = th_json_str(v);
    return s ? strtol(s, NULL, 10) : th_json_as_int(v, 0);
}

void th_check_int_or_percent(const struct th_view *v, const char *member)
{
    const struct th_json *x = th_view_get(v, member);
    const char *s = th_json_str(x);
    if (s) {
        (void)th_check_format(v, member, s, TH_NAME_PERCENT);
    } else {
        th_check_non_negative(v, member);
    }
}

void th_check_at_most_100_percent(const struct th_view *v, const char *member)
{
    const char *s = th_json_str(th_view_get(v, member));
    if (s && is_percent(s) && strtol(s, NULL, 10) > 100) {
        th_bad_str(v, member, s, "must not be greater than 100%");
    }
}

/* ---- Selectors and templates ---- */

/* The selector's text as Go's internal types show it in JSON. */
static void bad_selector(const struct th_view *v, const char *detail)
{
    th_bad_value(v, "selector", detail);
}

/* The template's labels must be what the selector looks for. */
static void check_match(const struct th_view *v)
{
    struct th_selector *sel TH_AUTO(th_selector) = NULL;
    TH_AUTO_ERR struct th_err parse = TH_ERR_INIT;
    const struct th_json *selector = th_view_get(v, "selector");
    if (selector && th_selector_from_json(selector, &sel, &parse) < 0) {
        return;
    }
    if (!selector || (!th_selector_empty(sel) &&
                      !th_selector_matches(sel, th_view_get(v, "template.metadata.labels")))) {
        th_bad_value(v, "template.metadata.labels", "`selector` does not match template `labels`");
    }
}

static bool selector_parses(const struct th_view *v)
{
    struct th_selector *sel TH_AUTO(th_selector) = NULL;
    TH_AUTO_ERR struct th_err parse = TH_ERR_INIT;
    return th_selector_from_json(th_view_get(v, "selector"), &sel, &parse) >= 0;
}

static void check_selector(const struct th_view *v, const char *empty, const char *unparsable)
{
    const struct th_json *s = th_view_get(v, "selector");
    if (!s) {
        th_bad_required(v, "selector", "");
    } else if (th_json_len(th_json_get(s, "matchLabels")) +
                   th_json_len(th_json_get(s, "matchExpressions")) ==
               0) {
        bad_selector(v, empty);
    } else if (unparsable && !selector_parses(v)) {
        bad_selector(v, unparsable);
    }
    check_match(v);
}

static void check_template(const struct th_view *v, const char *what)
{
    const char *policy = th_view_str(v, "template.spec.restartPolicy");
    if (!th_streq(policy, "Always")) {
        th_bad_unsupported(v, "template.spec.restartPolicy", policy, "Always");
    }
    if (th_view_has(v, "template.spec.activeDeadlineSeconds")) {
        th_autofree char *why =
            th_xasprintf("activeDeadlineSeconds in %s is not Supported", what);
        th_bad_forbidden(v, "template.spec.activeDeadlineSeconds", why);
    }
}

/* A strategy as Go's encoder shows it. */
static struct th_json *shown_strategy(const struct th_view *s)
{
    const struct th_json *r = th_view_get(s, "rollingUpdate");
    return th_json_build("{'Type':%s,'RollingUpdate':%o}", th_view_str(s, "type"),
                         r ? th_recase(r, true) : NULL);
}

static void bad_strategy(const struct th_view *s, const char *values)
{
    TH_AUTO(th_json) struct th_json *shown = shown_strategy(s);
    th_autofree char *text = th_json_to_string(shown), *path = th_view_path(s, NULL);
    th_err_add_cause(s->err, "FieldValueNotSupported", path,
                     "Unsupported value: %s: supported values: %s", text, values);
}

/* ---- Deployments and ReplicaSets ---- */

static void check_deployment_strategy(const struct th_view *v)
{
    struct th_view s = th_view_at(v, "strategy");
    const char *type = th_view_str(&s, "type");
    if (th_streq(type, "Recreate")) {
        if (th_view_has(&s, "rollingUpdate")) {
            th_bad_forbidden(&s, "rollingUpdate",
                             "may not be specified when strategy `type` is 'Recreate'");
        }
        return;
    }
    if (!th_streq(type, "RollingUpdate")) {
        bad_strategy(&s, "\"Recreate\", \"RollingUpdate\"");
        return;
    }
    struct th_view r = th_view_at(&s, "rollingUpdate");
    static const char *const amounts[] = {"maxUnavailable", "maxSurge"};
    for (size_t i = 0; i < TH_ARRAY_LEN(amounts); i++) {
        th_check_int_or_percent(&r, amounts[i]);
    }
    if (th_int_or_percent(th_view_get(&r, "maxUnavailable")) == 0 &&
        th_int_or_percent(th_view_get(&r, "maxSurge")) == 0) {
        th_bad_value(&r, "maxUnavailable", "may not be 0 when `maxSurge` is 0");
    }
    th_check_at_most_100_percent(&r, "maxUnavailable");
}

void th_rule_deployment_spec(const struct th_view *v)
{
    check_selector(v, "empty selector is invalid for deployment", "invalid label selector");
    if (selector_parses(v)) {
        check_template(v, "ReplicaSet");
    }
    check_deployment_strategy(v);
    int64_t deadline = th_view_int(v, "progressDeadlineSeconds", 0);
    if (th_view_has(v, "progressDeadlineSeconds") &&
        deadline <= th_view_int(v, "minReadySeconds", 0)) {
        th_bad_int(v, "progressDeadlineSeconds", deadline, "must be greater than minReadySeconds");
    }
}

void th_rule_replicaset_spec(const struct th_view *v)
{
    check_selector(v, "empty selector is invalid for deployment", "invalid label selector");
    if (selector_parses(v)) {
        check_template(v, "ReplicaSet");
    }
}

void th_rule_replication_controller_spec(const struct th_view *v)
{
    const struct th_json *selector = th_view_get(v, "selector");
    if (th_json_len(selector) == 0) {
        th_bad_required(v, "selector", "");
    }
    if (!th_view_has(v, "template")) {
        th_bad_required(v, "template", "");
        return;
    }
    struct th_json_iter it = TH_JSON_ITER(selector);
    const struct th_json *labels = th_view_get(v, "template.metadata.labels");
    while (th_json_next(&it)) {
        if (!th_streq(th_json_str(it.value), th_json_str(th_json_get(labels, it.name)))) {
            th_bad_value(v, "template.metadata.labels",
                         "`selector` does not match template `labels`");
            break;
        }
    }
    check_template(v, "ReplicationController");
}

/* ---- DaemonSets ---- */

static void check_daemon_strategy(const struct th_view *v)
{
    struct th_view s = th_view_at(v, "updateStrategy");
    const char *type = th_view_str(&s, "type");
    if (th_streq(type, "OnDelete")) {
        return;
    }
    if (!th_streq(type, "RollingUpdate")) {
        bad_strategy(&s, "\"RollingUpdate\", \"OnDelete\"");
        return;
    }
    struct th_view r = th_view_at(&s, "rollingUpdate");
    if (!r.obj) {
        th_bad_required(&s, "rollingUpdate", "");
        return;
    }
    static const char *const amounts[] = {"maxUnavailable", "maxSurge"};
    for (size_t i = 0; i < TH_ARRAY_LEN(amounts); i++) {
        th_check_int_or_percent(&r, amounts[i]);
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(amounts); i++) {
        th_check_at_most_100_percent(&r, amounts[i]);
    }
    bool unavailable = th_int_or_percent(th_view_get(&r, "maxUnavailable")) != 0;
    bool surge = th_int_or_percent(th_view_get(&r, "maxSurge")) != 0;
    if (unavailable && surge) {
        th_bad_value(&r, "maxSurge", "may not be set when maxUnavailable is non-zero");
    } else if (!unavailable && !surge) {
        th_bad_required(&r, "maxUnavailable", "cannot be 0 when maxSurge is 0");
    }
}

void th_rule_daemonset_spec(const struct th_view *v)
{
    const struct th_json *s = th_view_get(v, "selector");
    check_match(v);
    if (s && th_json_len(th_json_get(s, "matchLabels")) +
                     th_json_len(th_json_get(s, "matchExpressions")) ==
                 0) {
        bad_selector(v, "empty selector is invalid for daemonset");
    }
    check_template(v, "DaemonSet");
    check_daemon_strategy(v);
}

/* ---- StatefulSets ---- */

static void check_stateful_strategy(const struct th_view *v)
{
    struct th_view s = th_view_at(v, "updateStrategy");
    struct th_view r = th_view_at(&s, "rollingUpdate");
    const char *type = th_view_str(&s, "type");
    if (!*type) {
        th_bad_required(&s, NULL, "");
    } else if (th_streq(type, "OnDelete")) {
        if (r.obj) {
            th_bad_value(&s, "rollingUpdate", "only allowed for updateStrategy 'RollingUpdate'");
        }
    } else if (!th_streq(type, "RollingUpdate")) {
        TH_AUTO(th_json) struct th_json *shown = shown_strategy(&s);
        th_bad_json(&s, NULL, shown, "must be 'RollingUpdate' or 'OnDelete'");
    } else if (r.obj) {
        th_check_non_negative(&r, "partition");
        if (th_view_has(&r, "maxUnavailable")) {
            th_check_int_or_percent(&r, "maxUnavailable");
            if (th_int_or_percent(th_view_get(&r, "maxUnavailable")) == 0) {
                th_bad_value(&r, "maxUnavailable", "cannot be 0");
            }
            th_check_at_most_100_percent(&r, "maxUnavailable");
        }
    }
}

void th_rule_statefulset_spec(const struct th_view *v)
{
    const char *management = th_view_str(v, "podManagementPolicy");
    if (!*management) {
        th_bad_required(v, "podManagementPolicy", "");
    } else if (!th_word_in(management, "OrderedReady|Parallel")) {
        th_bad_str(v, "podManagementPolicy", management, "must be 'OrderedReady' or 'Parallel'");
    }
    check_stateful_strategy(v);
    struct th_view retention = th_view_at(v, "persistentVolumeClaimRetentionPolicy");
    static const char *const when[] = {"whenDeleted", "whenScaled"};
    for (size_t i = 0; retention.obj && i < TH_ARRAY_LEN(when); i++) {
        (void)th_check_one_of(&retention, when[i], th_view_str(&retention, when[i]),
                              "Retain|Delete");
    }
    if (th_view_int(v, "ordinals.start", 0) < 0) {
        th_bad_int(v, "ordinals.start", th_view_int(v, "ordinals.start", 0),
                   "must be greater than or equal to 0");
    }
    check_selector(v, "empty selector is invalid for statefulset", "");
    check_template(v, "StatefulSet");
}

void th_statefulset_validate_create(const struct th_req_ctx *c, const struct th_json *obj,
                                    struct th_err *err)
{
    (void)c;
    struct th_view v = TH_VIEW(obj, err);
    const char *service = th_view_str(&v, "spec.serviceName");
    if (*service) {
        (void)th_check_format(&v, "spec.serviceName", service, TH_NAME_DNS1123_LABEL);
    }
}

void th_statefulset_validate_update(const struct th_req_ctx *c, const struct th_json *obj,
                                    const struct th_json *old, struct th_err *err)
{
    (void)c;
    static const char *const may[] = {
        "replicas", "template", "updateStrategy", "minReadySeconds",
        "ordinals", "revisionHistoryLimit", "persistentVolumeClaimRetentionPolicy"};
    TH_AUTO(th_json) struct th_json *a = th_json_dup(th_json_get(obj, "spec"));
    TH_AUTO(th_json) struct th_json *b = th_json_dup(th_json_get(old, "spec"));
    for (size_t i = 0; i < TH_ARRAY_LEN(may); i++) {
        (void)th_json_del(a, may[i]);
        (void)th_json_del(b, may[i]);
    }
    if (!th_json_equal(a, b)) {
        th_invalid_forbidden(
            err, "spec",
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', "
            "'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and "
            "'minReadySeconds' are forbidden");
    }
}

void th_revision_validate_create(const struct th_req_ctx *c, const struct th_json *obj,
                                 struct th_err *err)
{
    (void)c;
    const struct th_json *data = th_json_get(obj, "data");
    if (!data) {
        th_invalid_required(err, "data", "data is mandatory");
    } else if (!th_json_is(data, TH_JSON_OBJECT)) {
        th_invalid_required(err, "data", "data must be a valid JSON object");
    }
}

/* ---- Status: counts that fit together ---- */

/* Counts of a status: none negative, none of `parts` above the whole. */
static void check_counts(const struct th_view *v, const char *const *counts,
                         const char *const *parts, const char *whole, const char *words)
{
    for (; *counts; counts++) {
        th_check_non_negative(v, *counts);
    }
    for (; parts && *parts; parts++) {
        int64_t n = th_view_int(v, *parts, 0);
        if (n > th_view_int(v, whole, 0)) {
            th_bad_int(v, *parts, n, words);
        }
    }
}

static void check_collisions(const struct th_view *v, const struct th_json *old)
{
    int64_t now = th_view_int(v, "collisionCount", 0);
    if (now < th_json_path_int(old, "status.collisionCount", 0)) {
        th_bad_int(v, "collisionCount", now, "cannot be decremented");
    }
}

void th_workload_validate_status(const struct th_req_ctx *c, const struct th_json *obj,
                                 const struct th_json *old, struct th_err *err)
{
    (void)c;
    static const char *const counts[] = {
        "observedGeneration", "replicas", "fullyLabeledReplicas", "updatedReplicas",
        "readyReplicas", "currentReplicas", "availableReplicas", "unavailableReplicas",
        "terminatingReplicas", "currentNumberScheduled", "numberMisscheduled",
        "desiredNumberScheduled", "numberReady", "updatedNumberScheduled", "numberAvailable",
        "numberUnavailable", "collisionCount", NULL};
    static const char *const parts[] = {"fullyLabeledReplicas", "updatedReplicas", "readyReplicas",
                                        "currentReplicas", "availableReplicas", NULL};
    static const char *const available[] = {"availableReplicas", NULL};
    static const char *const none[] = {NULL};
    struct th_view top = TH_VIEW(obj, err);
    struct th_view v = th_view_at(&top, "status");
    bool daemon = th_view_is(&top, "kind", "DaemonSet");
    bool stateful = th_view_is(&top, "kind", "StatefulSet");
    check_counts(&v, counts, daemon ? NULL : parts, "replicas",
                 "cannot be greater than status.replicas");
    if (!daemon) {
        check_counts(&v, none, available, "readyReplicas",
                     stateful ? "cannot be greater than status.readyReplicas"
                              : "cannot be greater than readyReplicas");
    }
    check_collisions(&v, old);
}
