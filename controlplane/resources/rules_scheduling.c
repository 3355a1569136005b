/* Rules of selectors, tolerations, affinity and topology spread (upstream: pkg/apis/core/validation
 * and apimachinery's validation of label selectors). */
#include "controlplane/resources/rules.h"

#include "base/buf.h"

#include <errno.h>

/* Values of an expression against its operator. */
static void check_values(const struct th_view *e, bool numbers)
{
    const char *op = th_view_str(e, "operator");
    size_t n = th_view_len(e, "values");
    if (th_word_in(op, "In|NotIn")) {
        if (n == 0) {
            th_bad_required(e, "values", "must be specified when `operator` is 'In' or 'NotIn'");
        }
    } else if (th_word_in(op, "Exists|DoesNotExist")) {
        if (n > 0) {
            th_bad_forbidden(e, "values",
                             "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
    } else if (numbers && th_word_in(op, "Gt|Lt")) {
        if (n != 1) {
            th_bad_required(e, "values", "must be specified single value when `operator` is 'Lt' or "
                                         "'Gt'");
        }
    } else {
        th_bad_str(e, "operator", op, "not a valid selector operator");
    }
}

static void check_label_values(const struct th_view *e)
{
    for (size_t i = 0; i < th_view_len(e, "values"); i++) {
        struct th_view x = th_view_item(e, "values", i);
        (void)th_check_format(&x, NULL, th_view_str(&x, NULL), TH_NAME_LABEL_VALUE);
    }
}

void th_rule_label_selector(const struct th_view *v)
{
    th_check_labels(v, "matchLabels");
    for (size_t i = 0; i < th_view_len(v, "matchExpressions"); i++) {
        struct th_view e = th_view_item(v, "matchExpressions", i);
        check_values(&e, false);
        (void)th_check_format(&e, "key", th_view_str(&e, "key"), TH_NAME_QUALIFIED);
        check_label_values(&e);
    }
}

static void check_field_expression(const struct th_view *e)
{
    if (!th_word_in(th_view_str(e, "operator"), "In|NotIn")) {
        th_bad_str(e, "operator", th_view_str(e, "operator"), "not a valid selector operator");
    } else if (th_view_len(e, "values") != 1) {
        th_bad_required(e, "values", "must be only one value when `operator` is 'In' or 'NotIn' for "
                                     "node field selector");
    }
    if (!th_view_is(e, "key", "metadata.name")) {
        th_bad_str(e, "key", th_view_str(e, "key"), "not a valid field selector key");
        return;
    }
    for (size_t i = 0; i < th_view_len(e, "values"); i++) {
        struct th_view x = th_view_item(e, "values", i);
        (void)th_check_format(&x, NULL, th_view_str(&x, NULL), TH_NAME_DNS1123_SUBDOMAIN);
    }
}

void th_rule_node_selector_term(const struct th_view *v)
{
    bool preference = th_streq(v->member, "preference"); /* values may be odd there */
    for (size_t i = 0; i < th_view_len(v, "matchExpressions"); i++) {
        struct th_view e = th_view_item(v, "matchExpressions", i);
        check_values(&e, true);
        (void)th_check_format(&e, "key", th_view_str(&e, "key"), TH_NAME_QUALIFIED);
        if (!preference) {
            check_label_values(&e);
        }
    }
    for (size_t i = 0; i < th_view_len(v, "matchFields"); i++) {
        struct th_view e = th_view_item(v, "matchFields", i);
        check_field_expression(&e);
    }
}

void th_rule_weight(const struct th_view *v)
{
    int64_t n = th_view_int(v, "weight", 0);
    if (n <= 0 || n > 100) {
        th_bad_int(v, "weight", n, "must be in the range 1-100");
    }
}

/* ---- Tolerations ---- */

static void check_number(const struct th_view *v, const char *value)
{
    size_t n = strlen(value), start = value[0] == '-' ? 1 : 0;
    bool ok = n > start && !(value[start] == '0' && n > start + 1) && !th_streq(value, "-0");
    for (size_t i = start; i < n; i++) {
        ok = ok && value[i] >= '0' && value[i] <= '9';
    }
    if (!ok) {
        th_bad_str(v, "value", value, "must be a valid decimal integer in canonical form");
    }
}

void th_rule_toleration(const struct th_view *v)
{
    const char *op = th_view_str(v, "operator"), *value = th_view_str(v, "value");
    const char *key = th_view_str(v, "key"), *effect = th_view_str(v, "effect");
    if (*key) {
        (void)th_check_format(v, "key", key, TH_NAME_QUALIFIED);
    } else if (!th_streq(op, "Exists")) {
        th_bad_str(v, "operator", op, "operator must be Exists when `key` is empty, which means "
                                      "\"match all values and all keys\"");
    }
    if (th_view_has(v, "tolerationSeconds") && !th_streq(effect, "NoExecute")) {
        th_bad_str(v, "effect", effect,
                   "effect must be 'NoExecute' when `tolerationSeconds` is set");
    }
    if (!*op || th_streq(op, "Equal")) {
        const char *msgs[TH_NAME_MSGS];
        size_t n = th_name_messages(TH_NAME_LABEL_VALUE, value, msgs);
        th_autobuf struct th_buf all = TH_BUF_INIT;
        for (size_t i = 0; i < n; i++) {
            th_buf_printf(&all, "%s%s", i ? ";" : "", msgs[i]);
        }
        if (n) {
            th_bad_str(v, "operator", value, th_buf_cstr(&all));
        }
    } else if (th_streq(op, "Exists")) {
        if (*value) {
            th_bad_str(v, "operator", value, "value must be empty when `operator` is 'Exists'");
        }
    } else if (th_word_in(op, "Lt|Gt")) {
        check_number(v, value);
    } else {
        th_bad_unsupported(v, "operator", op, "Equal|Exists");
    }
    if (*effect) {
        (void)th_check_one_of(v, "effect", effect, "NoSchedule|PreferNoSchedule|NoExecute");
    }
}

/* ---- Keys that a selector is extended with ---- */

static void check_label_keys(const struct th_view *v, const char *member)
{
    size_t n = th_view_len(v, member);
    if (n > 0 && !th_view_has(v, "labelSelector")) {
        th_bad_forbidden(v, member, "must not be specified when labelSelector is not set");
        return;
    }
    for (size_t i = 0; i < n; i++) {
        struct th_view k = th_view_item(v, member, i);
        (void)th_check_format(&k, NULL, th_view_str(&k, NULL), TH_NAME_QUALIFIED);
    }
}

/* What the server adds for a key of matchLabelKeys makes a second expression of the same key. */
static void check_match_keys(const struct th_view *v)
{
    check_label_keys(v, "matchLabelKeys");
    check_label_keys(v, "mismatchLabelKeys");
    const struct th_json *match = th_view_get(v, "matchLabelKeys");
    const struct th_json *mismatch = th_view_get(v, "mismatchLabelKeys");
    th_autostrv struct th_strv keys = TH_STRV_INIT;
    struct th_json_iter it = TH_JSON_ITER(th_view_get(v, "labelSelector.matchLabels"));
    while (th_json_next(&it)) {
        th_strv_add(&keys, it.name);
    }
    for (size_t e = 0; e < th_view_len(v, "labelSelector.matchExpressions"); e++) {
        struct th_view x = th_view_item(v, "labelSelector.matchExpressions", e);
        const char *key = th_view_str(&x, "key");
        for (size_t i = 0; i < th_json_len(match); i++) {
            if (th_streq(th_json_str(th_json_at(match, i)), key) && th_strv_has(&keys, key)) {
                th_autofree char *at = th_xasprintf("[%zu]", i);
                th_bad_str(v, at, key, "exists in both matchLabelKeys and labelSelector");
            }
        }
        th_strv_add(&keys, key);
    }
    for (size_t i = 0; i < th_json_len(match); i++) {
        const char *key = th_json_str(th_json_at(match, i));
        for (size_t k = 0; k < th_json_len(mismatch); k++) {
            if (th_streq(th_json_str(th_json_at(mismatch, k)), key)) {
                struct th_view m = th_view_item(v, "matchLabelKeys", i);
                th_bad_str(&m, NULL, key, "exists in both matchLabelKeys and mismatchLabelKeys");
            }
        }
    }
}

void th_rule_pod_affinity_term(const struct th_view *v)
{
    for (size_t i = 0; i < th_view_len(v, "namespaces"); i++) {
        const char *ns = th_json_str(th_json_at(th_view_get(v, "namespaces"), i));
        (void)th_check_format(v, "namespace", ns ? ns : "", TH_NAME_DNS1123_LABEL);
    }
    check_match_keys(v);
    const char *key = th_view_str(v, "topologyKey");
    if (!*key) {
        th_bad_required(v, "topologyKey", "can not be empty");
    }
    (void)th_check_format(v, "topologyKey", key, TH_NAME_QUALIFIED);
}

/* ---- Topology spread ---- */

static void check_min_domains(const struct th_view *v)
{
    const char *action = th_view_str(v, "whenUnsatisfiable");
    if (!th_view_has(v, "minDomains")) {
        return;
    }
    int64_t n = th_view_int(v, "minDomains", 0);
    if (n <= 0) {
        th_bad_int(v, "minDomains", n, "must be greater than zero");
    }
    if (!th_streq(action, "DoNotSchedule")) {
        th_autofree char *words = th_xasprintf(
            "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not %s", action);
        th_bad_int(v, "minDomains", n, words);
    }
}

void th_rule_topology_spread(const struct th_view *v)
{
    static const char *const policies[] = {"nodeAffinityPolicy", "nodeTaintsPolicy"};
    const char *key = th_view_str(v, "topologyKey"), *action = th_view_str(v, "whenUnsatisfiable");
    if (th_view_int(v, "maxSkew", 0) <= 0) {
        th_bad_int(v, "maxSkew", th_view_int(v, "maxSkew", 0), "must be greater than zero");
    }
    if (!*key) {
        th_bad_required(v, "topologyKey", "can not be empty");
    }
    (void)th_check_one_of(v, "whenUnsatisfiable", action, "DoNotSchedule|ScheduleAnyway");
    const struct th_json *all = th_view_get(v->up, v->member);
    for (size_t i = v->index + 1; i < th_json_len(all); i++) {
        const struct th_json *o = th_json_at(all, i);
        if (th_streq(th_json_path_str(o, "topologyKey"), key) &&
            th_streq(th_json_path_str(o, "whenUnsatisfiable"), action)) {
            th_autofree char *pair = th_xasprintf("{%s, %s}", key, action);
            th_bad_duplicate(v, "{topologyKey, whenUnsatisfiable}", pair);
            break;
        }
    }
    check_min_domains(v);
    for (size_t i = 0; i < TH_ARRAY_LEN(policies); i++) {
        if (th_view_has(v, policies[i])) {
            (void)th_check_one_of(v, policies[i], th_view_str(v, policies[i]), "Honor|Ignore");
        }
    }
    check_match_keys(v);
}
