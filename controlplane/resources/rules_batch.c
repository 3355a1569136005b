/* Rules of Jobs and CronJobs that a line of rules.tsv cannot say (upstream: pkg/apis/batch/validation),
 * and what a new Job gets: a selector of its own uid, and the labels that match it. */
#include "controlplane/resources/rows.h"
#include "controlplane/resources/rules.h"

#include "base/buf.h"
#include "controlplane/schema/cron.h"
#include "controlplane/schema/selector.h"
#include "controlplane/schema/timezone.h"
#include "controlplane/schema/validate.h"

static const char *const generated[][2] = {{"batch.kubernetes.io/controller-uid", "uid"},
                                           {"batch.kubernetes.io/job-name", "name"},
                                           {"controller-uid", "uid"},
                                           {"job-name", "name"}};

void th_job_prepare_create(const struct th_req_ctx *c, struct th_json *obj)
{
    (void)c;
    if (th_json_path_bool(obj, "spec.manualSelector", false)) {
        return;
    }
    struct th_json *spec = th_json_get(obj, "spec");
    struct th_json *labels = th_json_path_object(spec, "template.metadata.labels");
    const struct th_json *meta = th_json_get(obj, "metadata");
    struct th_json *match = th_json_path_object(spec, "selector.matchLabels");
    for (size_t i = 0; i < TH_ARRAY_LEN(generated); i++) {
        const char *value = th_json_str(th_json_get(meta, generated[i][1]));
        if (!th_json_has(labels, generated[i][0])) {
            th_json_set_str(labels, generated[i][0], value ? value : "");
        }
        if (i == 0 && !th_json_has(match, generated[i][0])) {
            th_json_set_str(match, generated[i][0], value ? value : "");
        }
    }
}

static bool indexed(const struct th_view *v)
{
    return th_view_is(v, "completionMode", "Indexed");
}

/* ---- Failure and success policies ---- */

static bool names_container(const struct th_view *spec, const char *name)
{
    static const char *const lists[] = {"template.spec.containers", "template.spec.initContainers"};
    for (size_t l = 0; l < TH_ARRAY_LEN(lists); l++) {
        for (size_t i = 0; i < th_view_len(spec, lists[l]); i++) {
            struct th_view c = th_view_item(spec, lists[l], i);
            if (th_view_is(&c, "name", name)) {
                return true;
            }
        }
    }
    return false;
}

static void check_exit_codes(const struct th_view *spec, const struct th_view *rule)
{
    struct th_view e = th_view_at(rule, "onExitCodes");
    const char *op = th_view_str(&e, "operator"), *name = th_view_str(&e, "containerName");
    const struct th_json *values = th_view_get(&e, "values");
    if (!e.obj) {
        return;
    }
    if (!*op) {
        th_bad_required(&e, "operator", "valid values: [\"In\" \"NotIn\"]");
    } else {
        (void)th_check_one_of(&e, "operator", op, "In|NotIn");
    }
    if (th_view_has(&e, "containerName") && !names_container(spec, name)) {
        th_bad_str(&e, "containerName", name,
                   "must be one of the container or initContainer names in the pod template");
    }
    if (th_json_len(values) == 0) {
        th_bad_value(&e, "values", "at least one value is required");
    } else if (th_json_len(values) > 255) {
        th_bad_too_many(&e, "values", th_json_len(values), 255);
    }
    bool ordered = true;
    for (size_t i = 0; i < th_json_len(values); i++) {
        struct th_view x = th_view_item(&e, "values", i);
        int64_t n = th_view_int(&x, NULL, 0);
        if (th_streq(op, "In") && n == 0) {
            th_bad_int(&x, NULL, 0, "must not be 0 for the In operator");
        }
        for (size_t k = 0; k < i; k++) {
            if (th_json_as_int(th_json_at(values, k), 0) == n) {
                th_autofree char *path = th_view_path(&x, NULL);
                th_invalid_duplicate(x.err, path, x.obj);
                break;
            }
        }
        ordered = ordered && (i == 0 || th_json_as_int(th_json_at(values, i - 1), 0) <= n);
    }
    if (!ordered) {
        th_bad_value(&e, "values", "must be ordered");
    }
}

/* "Invalid value: detail": upstream leaves the value out. */
static void bad_omitted(const struct th_view *v, const char *member, const char *detail)
{
    th_autofree char *path = th_view_path(v, member);
    th_err_add_cause(v->err, "FieldValueInvalid", path, "Invalid value: %s", detail);
}

static void check_failure_rule(const struct th_view *spec, const struct th_view *rule)
{
    static const char actions[] = "Count|FailIndex|FailJob|Ignore";
    const char *action = th_view_str(rule, "action");
    size_t n = th_view_len(rule, "onPodConditions");
    if (!*action) {
        th_bad_required(rule, "action",
                        "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]");
    } else if (th_streq(action, "FailIndex")) {
        if (!th_view_has(spec, "backoffLimitPerIndex")) {
            th_bad_str(rule, "action", action, "requires the backoffLimitPerIndex to be set");
        }
    } else {
        (void)th_check_one_of(rule, "action", action, actions);
    }
    check_exit_codes(spec, rule);
    if (n > 20) {
        th_bad_too_many(rule, "onPodConditions", n, 20);
    }
    for (size_t i = 0; i < n; i++) {
        struct th_view p = th_view_item(rule, "onPodConditions", i);
        const char *status = th_view_str(&p, "status");
        (void)th_check_format(&p, "type", th_view_str(&p, "type"), TH_NAME_QUALIFIED);
        if (!*status) {
            th_bad_required(&p, "status", "valid values: [\"False\" \"True\" \"Unknown\"]");
        } else {
            (void)th_check_one_of(&p, "status", status, "False|True|Unknown");
        }
    }
    bool codes = th_view_has(rule, "onExitCodes");
    if (codes && n > 0) {
        bad_omitted(rule, NULL, "specifying both OnExitCodes and OnPodConditions is not supported");
    }
    if (!codes && n == 0) {
        bad_omitted(rule, NULL, "specifying one of OnExitCodes and OnPodConditions is required");
    }
}

/* "0-3,7": the number of indexes, or -1 and what is wrong. */
static int64_t count_indexes(const char *text, int64_t completions, char *why, size_t n)
{
    th_autostrv struct th_strv parts = TH_STRV_INIT;
    th_strv_split(&parts, text, ',');
    int64_t total = 0, last = -1;
    for (size_t i = 0; *text && i < parts.n; i++) {
        char *end = NULL;
        const char *s = parts.v[i];
        long a = strtol(s, &end, 10), b = a;
        if (end == s || (*end && *end != '-')) {
            (void)snprintf(why, n, "cannot convert string to integer for index: \"%s\"", s);
            return -1;
        }
        if (*end == '-') {
            const char *second = end + 1;
            b = strtol(second, &end, 10);
            if (end == second || *end) {
                (void)snprintf(why, n, "cannot convert string to integer for index: \"%s\"", second);
                return -1;
            }
            if (a >= b) {
                (void)snprintf(why, n, "non-increasing order, previous: %ld, current: %ld", a, b);
                return -1;
            }
        }
        if (a >= completions || b >= completions) {
            (void)snprintf(why, n, "too large index: \"%ld\"", a >= completions ? a : b);
            return -1;
        }
        if (a <= last) {
            (void)snprintf(why, n, "non-increasing order, previous: %lld, current: %ld",
                           (long long)last, a);
            return -1;
        }
        total += b - a + 1;
        last = b;
    }
    return total;
}

static void check_success_rule(const struct th_view *spec, const struct th_view *rule)
{
    int64_t completions = th_view_int(spec, "completions", 0), total = 0;
    bool count = th_view_has(rule, "succeededCount"), list = th_view_has(rule, "succeededIndexes");
    if (!count && !list) {
        th_bad_required(rule, NULL,
                        "at least one of succeededCount or succeededIndexes must be specified");
    }
    if (list) {
        char why[160] = "";
        const char *text = th_view_str(rule, "succeededIndexes");
        total = count_indexes(text, completions, why, sizeof(why));
        if (total < 0) {
            th_autofree char *all = th_xasprintf("error parsing succeededIndexes: %s", why);
            th_bad_str(rule, "succeededIndexes", text, all);
            total = 0;
        }
    }
    if (!count) {
        return;
    }
    int64_t n = th_view_int(rule, "succeededCount", 0);
    th_check_non_negative(rule, "succeededCount");
    if (n > completions) {
        th_autofree char *why = th_xasprintf(
            "must be less than or equal to %lld (the number of specified completions)",
            (long long)completions);
        th_bad_int(rule, "succeededCount", n, why);
    }
    if (list && n > total) {
        th_autofree char *why = th_xasprintf("must be less than or equal to %lld (the number of "
                                             "indexes in the specified succeededIndexes field)",
                                             (long long)total);
        th_bad_int(rule, "succeededCount", n, why);
    }
}

static void check_policies(const struct th_view *v)
{
    struct th_view failure = th_view_at(v, "podFailurePolicy");
    size_t n = th_view_len(&failure, "rules");
    if (n > 20) {
        th_bad_too_many(&failure, "rules", n, 20);
    }
    for (size_t i = 0; i < n; i++) {
        struct th_view rule = th_view_item(&failure, "rules", i);
        check_failure_rule(v, &rule);
    }
    struct th_view success = th_view_at(v, "successPolicy");
    if (success.obj && !indexed(v)) {
        TH_AUTO(th_json) struct th_json *shown = th_recase(success.obj, true);
        th_bad_json(v, "successPolicy", shown, "requires indexed completion mode");
    } else if (success.obj) {
        n = th_view_len(&success, "rules");
        if (n == 0) {
            th_bad_required(&success, "rules",
                            "at least one rules must be specified when the successPolicy is specified");
        }
        if (n > 20) {
            th_bad_too_many(&success, "rules", n, 20);
        }
        for (size_t i = 0; i < n; i++) {
            struct th_view rule = th_view_item(&success, "rules", i);
            check_success_rule(v, &rule);
        }
    }
    const char *replacement = th_view_str(v, "podReplacementPolicy");
    if (th_view_has(v, "podReplacementPolicy")) {
        (void)th_check_one_of(v, "podReplacementPolicy", replacement,
                              failure.obj ? "Failed" : "Failed|TerminatingOrFailed");
    }
}

/* ---- The spec ---- */

static void check_indexed(const struct th_view *v)
{
    bool completions = th_view_has(v, "completions"), failed = th_view_has(v, "maxFailedIndexes");
    bool per_index = th_view_has(v, "backoffLimitPerIndex");
    int64_t n = th_view_int(v, "completions", 0), p = th_view_int(v, "parallelism", 0);
    int64_t max = th_view_int(v, "maxFailedIndexes", 0);
    if (!completions) {
        th_bad_required(v, "completions", "when completion mode is Indexed");
    }
    if (p > 100000) {
        th_bad_int(v, "parallelism", p,
                   "must be less than or equal to 100000 when completion mode is Indexed");
    }
    if (completions && failed && max > n) {
        th_bad_int(v, "maxFailedIndexes", max, "must be less than or equal to completions");
    }
    if (failed && max > 100000) {
        th_bad_int(v, "maxFailedIndexes", max, "must be less than or equal to 100000");
    }
    if (n <= 100000 || !per_index) {
        return;
    }
    static const char high[] = "must be less than or equal to 10000 when completions are above 100000 "
                               "and used with backoff limit per index";
    if (!failed) {
        th_bad_required(v, "maxFailedIndexes", "must be specified when completions is above 100000");
    }
    if (p > 10000) {
        th_bad_int(v, "parallelism", p, high);
    }
    if (max > 10000) {
        th_bad_int(v, "maxFailedIndexes", max, high);
    }
}

static void check_managed_by(const struct th_view *v)
{
    const char *s = th_view_str(v, "managedBy");
    if (!th_view_has(v, "managedBy")) {
        return;
    }
    th_check_domain_path(v, "managedBy", s);
    if (strlen(s) > 63) {
        th_bad_too_long(v, "managedBy", 63);
    }
}

static void check_restart(const struct th_view *v)
{
    static const char at[] = "template.spec.restartPolicy";
    const char *policy = th_view_str(v, at);
    if (!*policy || th_streq(policy, "Always")) {
        th_bad_required(v, at, "valid values: \"OnFailure\", \"Never\"");
    } else if (!th_word_in(policy, "OnFailure|Never")) {
        th_bad_unsupported(v, at, policy, "OnFailure|Never");
    } else if (th_view_has(v, "podFailurePolicy") && !th_streq(policy, "Never")) {
        th_bad_str(v, at, policy, "only \"Never\" is supported when podFailurePolicy is specified");
    }
}

/* A Job's own spec needs a selector; the one in a CronJob's template must not have one. */
static void check_selector(const struct th_view *v)
{
    const struct th_json *s = th_view_get(v, "selector");
    struct th_selector *sel TH_AUTO(th_selector) = NULL;
    TH_AUTO_ERR struct th_err parse = TH_ERR_INIT;
    if (th_streq(v->up->member, "jobTemplate")) {
        if (s) {
            th_bad_value(v, "selector", "`selector` will be auto-generated");
        }
        if (th_view_bool(v, "manualSelector")) {
            th_autofree char *path = th_view_path(v, "manualSelector");
            th_err_add_cause(v->err, "FieldValueNotSupported", path,
                             "Unsupported value: true: supported values: \"nil\", \"false\"");
        }
        return;
    }
    if (!s) {
        th_bad_required(v, "selector", "");
    } else if (th_selector_from_json(s, &sel, &parse) < 0) {
        return;
    }
    if (!s || !th_selector_matches(sel, th_view_get(v, "template.metadata.labels"))) {
        th_bad_value(v, "template.metadata.labels", "`selector` does not match template `labels`");
    }
}

void th_rule_job_spec(const struct th_view *v)
{
    bool failed = th_view_has(v, "maxFailedIndexes");
    if (failed && !th_view_has(v, "backoffLimitPerIndex")) {
        th_bad_required(v, "backoffLimitPerIndex", "when maxFailedIndexes is specified");
    }
    check_managed_by(v);
    if (th_view_has(v, "completionMode")) {
        (void)th_check_one_of(v, "completionMode", th_view_str(v, "completionMode"),
                              "NonIndexed|Indexed");
    }
    if (indexed(v)) {
        check_indexed(v);
    } else if (!th_view_has(v, "completionMode") || th_view_is(v, "completionMode", "NonIndexed")) {
        static const char *const members[] = {"backoffLimitPerIndex", "maxFailedIndexes"};
        for (size_t i = 0; i < TH_ARRAY_LEN(members); i++) {
            if (th_view_has(v, members[i])) {
                th_bad_value(v, members[i], "requires indexed completion mode");
            }
        }
    }
    check_policies(v);
    check_restart(v);
    check_selector(v);
}

static void check_label(const struct th_view *v, const char *name, const char *wanted)
{
    struct th_view labels = th_view_at(v, "spec.template.metadata.labels");
    const char *have = th_json_str(th_json_get(labels.obj, name));
    struct th_view meta = th_view_at(v, "spec.template.metadata");
    if (!have) {
        struct th_view at = th_view_key(&meta, "labels", name);
        th_autofree char *why = th_xasprintf("must be '%s'", wanted);
        th_bad_required(&at, NULL, why);
    } else if (!th_streq(have, wanted)) {
        struct th_view at = th_view_key(&meta, "labels", name);
        th_autofree char *why = th_xasprintf("must be '%s'", wanted);
        th_bad_json(&at, NULL, labels.obj, why);
    }
}

void th_job_validate_create(const struct th_req_ctx *c, const struct th_json *obj,
                            struct th_err *err)
{
    (void)c;
    struct th_view v = TH_VIEW(obj, err);
    const char *name = th_view_str(&v, "metadata.name"), *uid = th_view_str(&v, "metadata.uid");
    if (!th_view_bool(&v, "spec.manualSelector") && th_view_has(&v, "spec.selector")) {
        check_label(&v, "controller-uid", uid);
        check_label(&v, "job-name", name);
        check_label(&v, "batch.kubernetes.io/controller-uid", uid);
        check_label(&v, "batch.kubernetes.io/job-name", name);
        TH_AUTO(th_json) struct th_json *want = th_json_object();
        for (size_t i = 0; i < TH_ARRAY_LEN(generated); i++) {
            th_json_set_str(want, generated[i][0], i % 2 ? name : uid);
        }
        struct th_selector *sel TH_AUTO(th_selector) = NULL;
        if (th_selector_from_json(th_view_get(&v, "spec.selector"), &sel, NULL) >= 0 &&
            !th_selector_matches(sel, want)) {
            th_bad_value(&v, "spec.selector", "`selector` not auto-generated");
        }
    }
    int64_t n = th_view_int(&v, "spec.completions", 0);
    if (th_view_is(&v, "spec.completionMode", "Indexed") && n > 0) {
        th_autofree char *host = th_xasprintf("%s-%lld", name, (long long)n - 1);
        if (th_name_dns1123_label(host)) {
            th_autofree char *why =
                th_xasprintf("will not able to create pod with invalid DNS label: %s", host);
            th_bad_str(&v, "metadata.name", name, why);
        }
    }
}

/* ---- Updates of Jobs ---- */

static bool ever_started(const struct th_json *old)
{
    return th_json_path_str(old, "status.startTime") != NULL;
}

/* What may change in the template of a Job that is suspended: where its pods are scheduled (before
 * it ever started) and what they need. */
static struct th_json *relaxed_template(const struct th_json *now, const struct th_json *old)
{
    struct th_json *t = th_json_dup(th_json_path(old, "spec.template"));
    static const char *const directives[] = {
        "metadata.annotations", "metadata.labels",        "spec.nodeSelector",
        "spec.tolerations",     "spec.schedulingGates",   "spec.affinity.nodeAffinity"};
    if (!th_json_path_bool(old, "spec.suspend", false)) {
        return t;
    }
    const struct th_json *from = th_json_path(now, "spec.template");
    for (size_t i = 0; !ever_started(old) && i < TH_ARRAY_LEN(directives); i++) {
        const struct th_json *v = th_json_path(from, directives[i]);
        if (v) {
            th_json_path_set(t, directives[i], th_json_dup(v));
        } else {
            (void)th_json_path_del(t, directives[i]);
        }
    }
    if (!th_json_path(from, "spec.affinity") && th_json_len(th_json_path(t, "spec.affinity")) == 0) {
        (void)th_json_path_del(t, "spec.affinity");
    }
    static const char *const lists[] = {"spec.containers", "spec.initContainers"};
    for (size_t l = 0; l < TH_ARRAY_LEN(lists); l++) {
        const struct th_json *a = th_json_path(t, lists[l]), *b = th_json_path(from, lists[l]);
        for (size_t i = 0; i < th_json_len(a) && i < th_json_len(b); i++) {
            const struct th_json *r = th_json_get(th_json_at(b, i), "resources");
            if (r) {
                th_json_set(th_json_at(a, i), "resources", th_json_dup(r));
            }
        }
    }
    return t;
}

void th_job_validate_update(const struct th_req_ctx *c, const struct th_json *obj,
                            const struct th_json *old, struct th_err *err)
{
    (void)c;
    struct th_view v = TH_VIEW(obj, err);
    int64_t now = th_view_int(&v, "spec.completions", -1);
    int64_t was = th_json_path_int(old, "spec.completions", -1);
    bool together = now == th_view_int(&v, "spec.parallelism", -2) &&
                    was == th_json_path_int(old, "spec.parallelism", -2);
    if (now != was) {
        if (!th_view_is(&v, "spec.completionMode", "Indexed") || now < 0) {
            th_bad_value(&v, "spec.completions", "field is immutable");
        } else if (now != th_view_int(&v, "spec.parallelism", -2) ||
                   (!together && was != th_json_path_int(old, "spec.parallelism", -2))) {
            th_autofree char *why =
                th_xasprintf("can only be modified in tandem with spec.parallelism");
            th_bad_int(&v, "spec.completions", now, why);
        }
    }
    TH_AUTO(th_json) struct th_json *allowed = relaxed_template(obj, old);
    if (!th_json_equal(th_view_get(&v, "spec.template"), allowed)) {
        th_bad_value(&v, "spec.template", "field is immutable");
    }
}

/* ---- CronJobs ---- */

static void check_zone(const struct th_view *v)
{
    const char *zone = th_view_str(v, "timeZone");
    if (!th_view_has(v, "timeZone")) {
        return;
    }
    if (!*zone) {
        th_bad_str(v, "timeZone", zone, "timeZone must be nil or non-empty string");
        return;
    }
    th_autofree char *unknown = th_xasprintf("unknown time zone %s", zone);
    th_autostrv struct th_strv parts = TH_STRV_INIT;
    th_strv_split(&parts, zone, '/');
    bool odd = false;
    for (size_t i = 0; i < parts.n; i++) {
        const char *p = parts.v[i];
        size_t n = strlen(p), ok = strspn(p, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz.-_"
                                             "0123456789+");
        odd = odd || n == 0 || n > 14 || ok != n || *p == '-' || th_streq(p, ".") ||
              th_streq(p, "..");
    }
    if (odd) {
        th_bad_str(v, "timeZone", zone, unknown);
        return;
    }
    if (strcasecmp(zone, "Local") == 0) {
        th_bad_str(v, "timeZone", zone, "timeZone must be an explicit time zone as defined in "
                                        "https://www.iana.org/time-zones");
    }
    struct th_timezone z;
    if (!th_timezone_find(zone, &z)) {
        th_bad_str(v, "timeZone", zone, unknown);
    }
}

void th_rule_cronjob_spec(const struct th_view *v)
{
    const char *schedule = th_view_str(v, "schedule");
    struct th_cron cron;
    TH_AUTO_ERR struct th_err parse = TH_ERR_INIT;
    if (!*schedule) {
        th_bad_required(v, "schedule", "");
    } else if (th_cron_parse(schedule, &cron, &parse) < 0) {
        th_bad_str(v, "schedule", schedule, parse.msg);
    }
    if (strstr(schedule, "TZ")) {
        th_bad_str(v, "schedule", schedule,
                   "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
    }
    check_zone(v);
    const char *policy = th_view_str(v, "concurrencyPolicy");
    if (!*policy) {
        th_bad_required(v, "concurrencyPolicy", "");
    } else {
        (void)th_check_one_of(v, "concurrencyPolicy", policy, "Allow|Forbid|Replace");
    }
}

void th_cronjob_validate_create(const struct th_req_ctx *c, const struct th_json *obj,
                                struct th_err *err)
{
    (void)c;
    const char *name = th_json_path_str(obj, "metadata.name");
    if (name && strlen(name) > 52) {
        th_invalid_str(err, "metadata.name", name, "must be no more than 52 characters");
    }
}
