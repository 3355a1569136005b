/* APIServices: who answers for a group and version.
 *
 * One without a Service is answered by this server and always available; the others are looked after
 * by the aggregator (api/aggregate/), which also writes their condition.
 */
#include "controlplane/resources/rows.h"
#include "controlplane/resources/view.h"
#include "base/clock.h"

static bool is_local(const struct th_json *obj)
{
    return !th_json_path(obj, "spec.service");
}

void th_api_service_prepare_create(const struct th_req_ctx *c, struct th_json *obj)
{
    struct th_json *status = th_json_object();
    if (is_local(obj)) {
        char now[TH_TIME_LEN];
        (void)th_time_format(c->now_ms, now);
        th_json_set(status, "conditions",
                    th_json_build("[{'lastTransitionTime':%s,"
                                  "'message':'Local APIServices are always available',"
                                  "'reason':'Local','status':'True','type':'Available'}]",
                                  now));
    }
    th_json_set(obj, "status", status);
}

static void check_service(const struct th_view *v)
{
    struct th_view s = th_view_at(v, "spec.service");
    if (!*th_view_str(&s, "namespace")) {
        th_bad_required(&s, "namespace", "");
    }
    if (!*th_view_str(&s, "name")) {
        th_bad_required(&s, "name", "");
    }
    int64_t port = th_view_int(&s, "port", 443);
    if (port < 1 || port > 65535) {
        th_bad_int(&s, "port", port, "port is not valid: must be between 1 and 65535, inclusive");
    }
    if (th_view_bool(v, "spec.insecureSkipTLSVerify") && *th_view_str(v, "spec.caBundle")) {
        th_bad_value(v, "spec.insecureSkipTLSVerify", "may not be true if caBundle is present");
    }
}

void th_api_service_validate(const struct th_req_ctx *c, const struct th_json *obj,
                             struct th_err *err)
{
    (void)c;
    struct th_view v = TH_VIEW(obj, err);
    const char *group = th_view_str(&v, "spec.group"), *version = th_view_str(&v, "spec.version");
    const char *name = th_view_str(&v, "metadata.name");
    th_autofree char *wanted = th_xasprintf("%s.%s", version, group);
    if (!th_streq(name, wanted)) {
        th_autofree char *why =
            th_xasprintf("must be `spec.version+\".\"+spec.group`: \"%s\"", wanted);
        th_bad_str(&v, "metadata.name", name, why);
    }
    if (!*group && !th_streq(version, "v1")) {
        th_bad_required(&v, "spec.group",
                        "only v1 may have an empty group and it better be legacy kube");
    }
    if (*group) {
        (void)th_check_format(&v, "spec.group", group, TH_NAME_DNS1123_SUBDOMAIN);
    }
    (void)th_check_format(&v, "spec.version", version, TH_NAME_DNS1035_LABEL);
    int64_t priority = th_view_int(&v, "spec.groupPriorityMinimum", 0);
    if (priority <= 0 || priority > 20000) {
        th_bad_int(&v, "spec.groupPriorityMinimum", priority,
                   "must be positive and less than 20000");
    }
    priority = th_view_int(&v, "spec.versionPriority", 0);
    if (priority <= 0 || priority > 1000) {
        th_bad_int(&v, "spec.versionPriority", priority, "must be positive and less than 1000");
    }
    if (!is_local(obj)) {
        check_service(&v);
        return;
    }
    const char *bundle = th_view_str(&v, "spec.caBundle");
    if (*bundle) {
        size_t n = strlen(bundle), padding = strcspn(bundle, "=");
        th_autofree char *shown = th_xasprintf("%zu bytes", n / 4 * 3 - (n - padding));
        th_bad_str(&v, "spec.caBundle", shown, "local APIServices may not have a caBundle");
    }
    if (th_view_bool(&v, "spec.insecureSkipTLSVerify")) {
        th_bad_value(&v, "spec.insecureSkipTLSVerify",
                     "local APIServices may not have insecureSkipTLSVerify");
    }
}

void th_api_service_validate_status(const struct th_req_ctx *c, const struct th_json *obj,
                                    const struct th_json *old, struct th_err *err)
{
    (void)c;
    (void)old;
    struct th_view v = TH_VIEW(obj, err);
    for (size_t i = 0; i < th_view_len(&v, "status.conditions"); i++) {
        struct th_view cond = th_view_item(&v, "status.conditions", i);
        const char *status = th_view_str(&cond, "status");
        if (!th_streq(status, "True") && !th_streq(status, "False") &&
            !th_streq(status, "Unknown")) {
            th_bad_unsupported(&cond, "status", status, "True|False|Unknown");
        }
    }
}

void th_row_api_service(const struct th_req_ctx *c, const struct th_json *obj,
                        struct th_json *cells)
{
    (void)c;
    const char *ns = th_json_path_str(obj, "spec.service.namespace");
    const char *name = th_json_path_str(obj, "spec.service.name");
    th_json_append(cells, is_local(obj) ? th_json_string("Local")
                                        : th_json_stringf("%s/%s", ns ? ns : "", name ? name : ""));
    const struct th_json *list = th_json_path(obj, "status.conditions");
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *cond = th_json_at(list, i);
        if (!th_streq(th_json_path_str(cond, "type"), "Available")) {
            continue;
        }
        const char *status = th_json_path_str(cond, "status");
        const char *reason = th_json_path_str(cond, "reason");
        bool plain = th_streq(status, "True") || !reason || !*reason;
        th_json_append(cells, plain ? th_json_string(status ? status : "")
                                    : th_json_stringf("%s (%s)", status, reason));
        return;
    }
    th_json_append_str(cells, "Unknown");
}
