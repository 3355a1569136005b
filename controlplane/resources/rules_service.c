/* Rules of Services (upstream: pkg/apis/core/validation, validateService and
 * ValidateServiceClusterIPsRelatedFields). */
#include "controlplane/resources/rows.h"
#include "controlplane/resources/rules.h"

#include "base/buf.h"
#include "controlplane/schema/validate.h"

#include <inttypes.h>

static bool headless(const struct th_view *spec)
{
    const struct th_json *ips = th_view_get(spec, "clusterIPs");
    return th_json_len(ips) == 1 && th_streq(th_json_str(th_json_at(ips, 0)), "None");
}

static bool external(const struct th_view *v)
{
    return th_word_in(th_view_str(v, "type"), "LoadBalancer|NodePort") ||
           (th_view_is(v, "type", "ClusterIP") && th_view_len(v, "externalIPs") > 0);
}

static bool health_checked(const struct th_view *v)
{
    return th_view_is(v, "type", "LoadBalancer") && th_view_is(v, "externalTrafficPolicy", "Local");
}

static void check_port(const struct th_view *v, size_t i, size_t n)
{
    struct th_view p = th_view_item(v, "ports", i);
    const struct th_json *all = th_view_get(v, "ports");
    const char *name = th_view_str(&p, "name");
    if (n > 1 && !*name) {
        th_bad_required(&p, "name", "");
    } else if (*name) {
        (void)th_check_format(&p, "name", name, TH_NAME_DNS1123_LABEL);
        for (size_t k = 0; k < i; k++) {
            if (th_streq(th_json_path_str(th_json_at(all, k), "name"), name)) {
                th_bad_duplicate(&p, "name", name);
                break;
            }
        }
    }
    th_check_port_and_protocol(&p);
    th_check_port_or_name(&p, "targetPort");
    if (th_view_has(&p, "appProtocol")) {
        (void)th_check_format(&p, "appProtocol", th_view_str(&p, "appProtocol"), TH_NAME_QUALIFIED);
    }
    if (th_view_is(v, "type", "ClusterIP") && th_view_int(&p, "nodePort", 0) != 0) {
        th_bad_forbidden(&p, "nodePort", "may not be used when `type` is 'ClusterIP'");
    }
}

/* The same number and protocol twice. */
static void check_repeated(const struct th_view *v)
{
    const struct th_json *all = th_view_get(v, "ports");
    for (size_t i = 0; i < th_json_len(all); i++) {
        struct th_view p = th_view_item(v, "ports", i);
        const char *protocol = th_view_str(&p, "protocol");
        int64_t port = th_view_int(&p, "port", 0), node = th_view_int(&p, "nodePort", 0);
        bool same_node = false, same_port = false;
        for (size_t k = 0; k < i; k++) {
            const struct th_json *o = th_json_at(all, k);
            bool proto = th_streq(th_json_path_str(o, "protocol"), protocol);
            same_node = same_node || (proto && node && th_json_path_int(o, "nodePort", 0) == node);
            same_port = same_port || (proto && th_json_path_int(o, "port", 0) == port);
        }
        if (same_node) {
            th_autofree char *path = th_view_path(&p, "nodePort");
            th_invalid_duplicate(v->err, path, th_view_get(&p, "nodePort"));
        }
        if (same_port) {
            th_autofree char *path = th_view_path(&p, NULL);
            th_err_add_cause(v->err, "FieldValueDuplicate", path,
                             "Duplicate value: {\"Name\":\"\",\"Protocol\":\"%s\",\"AppProtocol\":null,"
                             "\"Port\":%" PRId64 ",\"TargetPort\":0,\"NodePort\":0}",
                             protocol, port);
        }
    }
}

static void check_external_name(const struct th_view *v)
{
    static const char *const none[] = {"clusterIPs", "ipFamilies", "ipFamilyPolicy"};
    for (size_t i = 0; i < TH_ARRAY_LEN(none); i++) {
        const struct th_json *x = th_view_get(v, none[i]);
        if (x && (th_json_is(x, TH_JSON_STRING) || th_json_len(x) > 0)) {
            th_bad_forbidden(v, none[i], "may not be set for ExternalName services");
        }
    }
    th_autofree char *name = th_xstrdup(th_view_str(v, "externalName"));
    size_t n = strlen(name);
    if (n && name[n - 1] == '.') {
        name[n - 1] = '\0';
    }
    if (*name) {
        (void)th_check_format(v, "externalName", name, TH_NAME_DNS1123_SUBDOMAIN);
    } else {
        th_bad_required(v, "externalName", "");
    }
}

static void check_affinity(const struct th_view *v)
{
    const char *affinity = th_view_str(v, "sessionAffinity");
    static const char words[] = "when session affinity type is ClientIP";
    if (!*affinity) {
        th_bad_required(v, "sessionAffinity", "");
    } else {
        (void)th_check_one_of(v, "sessionAffinity", affinity, "ClientIP|None");
    }
    if (!th_streq(affinity, "ClientIP")) {
        return;
    }
    static const char *const steps[] = {"sessionAffinityConfig", "sessionAffinityConfig.clientIP",
                                        "sessionAffinityConfig.clientIP.timeoutSeconds"};
    for (size_t i = 0; i < TH_ARRAY_LEN(steps); i++) {
        if (!th_view_has(v, steps[i])) {
            th_bad_required(v, steps[i], words);
            return;
        }
    }
    int64_t n = th_view_int(v, steps[2], 0);
    if (n <= 0 || n > 86400) {
        th_bad_int(v, steps[2], n, "must be greater than 0 and less than 86400");
    }
}

/* ---- Addresses ---- */

static bool is_v6(const char *ip)
{
    return strchr(ip, ':') != NULL;
}

/* clusterIP, clusterIPs and ipFamilies are three views of one thing. */
static void check_addresses(const struct th_view *v)
{
    const struct th_json *ips = th_view_get(v, "clusterIPs"), *fams = th_view_get(v, "ipFamilies");
    const char *ip = th_view_str(v, "clusterIP");
    if (*ip && th_json_len(ips) == 0) {
        th_bad_required(v, "clusterIPs", "");
    } else if (*ip && !th_streq(th_json_str(th_json_at(ips, 0)), ip)) {
        th_bad_value(v, "clusterIPs", "first value must match `clusterIP`");
    } else if (!*ip && th_json_len(ips) > 0) {
        th_bad_value(v, "clusterIPs", "must be empty when `clusterIP` is not specified");
    }
    for (size_t i = 0; i < th_json_len(fams); i++) {
        struct th_view f = th_view_item(v, "ipFamilies", i);
        const char *family = th_view_str(&f, NULL);
        (void)th_check_one_of(&f, NULL, family, "IPv4|IPv6");
        for (size_t k = 0; k < i; k++) {
            if (th_streq(th_json_str(th_json_at(fams, k)), family)) {
                th_bad_duplicate(&f, NULL, family);
                break;
            }
        }
    }
    if (th_view_has(v, "ipFamilyPolicy")) {
        (void)th_check_one_of(v, "ipFamilyPolicy", th_view_str(v, "ipFamilyPolicy"),
                              "PreferDualStack|RequireDualStack|SingleStack");
    }
    bool bad = false;
    for (size_t i = 0; i < th_json_len(ips); i++) {
        struct th_view x = th_view_item(v, "clusterIPs", i);
        if (i == 0 && th_streq(th_view_str(&x, NULL), "None")) {
            if (th_json_len(ips) > 1) {
                th_bad_value(v, "clusterIPs", "'None' must be the first and only value");
                bad = true;
            }
            continue;
        }
        bad = !th_check_format(&x, NULL, th_view_str(&x, NULL), TH_NAME_IP) || bad;
    }
    if (th_json_len(ips) > 2) {
        th_bad_value(v, "clusterIPs", "may only hold up to 2 values");
    }
    if (bad || headless(v)) {
        return;
    }
    if (th_json_len(ips) > 1 && is_v6(th_json_str(th_json_at(ips, 0))) ==
                                    is_v6(th_json_str(th_json_at(ips, 1)))) {
        th_bad_value(v, "clusterIPs", "may specify no more than one IP for each IP family");
    }
    for (size_t i = 0; i < th_json_len(ips) && i < th_json_len(fams); i++) {
        struct th_view x = th_view_item(v, "clusterIPs", i);
        const char *family = th_json_str(th_json_at(fams, i)), *s = th_view_str(&x, NULL);
        if (family && th_word_in(family, "IPv4|IPv6") && th_streq(family, "IPv6") != is_v6(s)) {
            th_autofree char *why = th_xasprintf(
                "expected an %s value as indicated by `ipFamilies[%zu]`", family, i);
            th_bad_str(&x, NULL, s, why);
        }
    }
}

/* ---- What depends on the type ---- */

static void check_traffic(const struct th_view *v)
{
    const char *policy = th_view_str(v, "externalTrafficPolicy");
    if (!external(v)) {
        if (*policy) {
            th_bad_str(v, "externalTrafficPolicy", policy,
                       "may only be set for externally-accessible services");
        }
    } else if (!*policy) {
        th_bad_required(v, "externalTrafficPolicy", "");
    } else {
        (void)th_check_one_of(v, "externalTrafficPolicy", policy, "Cluster|Local");
    }
    int64_t check = th_view_int(v, "healthCheckNodePort", 0);
    if (!health_checked(v) && check != 0) {
        th_bad_int(v, "healthCheckNodePort", check, "may only be set when `type` is 'LoadBalancer' and "
                                                    "`externalTrafficPolicy` is 'Local'");
    } else if (health_checked(v) && check != 0 && (check < 1 || check > 65535)) {
        th_bad_int(v, "healthCheckNodePort", check, "must be between 1 and 65535, inclusive");
    }
    if (th_view_has(v, "internalTrafficPolicy")) {
        (void)th_check_one_of(v, "internalTrafficPolicy", th_view_str(v, "internalTrafficPolicy"),
                              "Cluster|Local");
    } else if (th_word_in(th_view_str(v, "type"), "NodePort|LoadBalancer|ClusterIP")) {
        th_bad_required(v, "internalTrafficPolicy", "");
    }
    if (th_view_has(v, "trafficDistribution")) {
        (void)th_check_one_of(v, "trafficDistribution", th_view_str(v, "trafficDistribution"),
                              "PreferClose|PreferSameZone|PreferSameNode");
    }
}

static void check_balancer(const struct th_view *v)
{
    static const char words[] = "may only be used when `type` is 'LoadBalancer'";
    bool balancer = th_view_is(v, "type", "LoadBalancer");
    struct th_view ranges = th_view_at(v, "LoadBalancerSourceRanges");
    ranges.obj = th_view_get(v, "loadBalancerSourceRanges");
    if (th_json_len(ranges.obj) > 0 && !balancer) {
        th_bad_forbidden(&ranges, NULL, words);
    }
    for (size_t i = 0; i < th_json_len(ranges.obj); i++) {
        struct th_view r = ranges;
        r.obj = th_json_at(ranges.obj, i);
        r.index = i;
        const char *s = th_view_str(&r, NULL);
        s += strspn(s, " ");
        (void)th_check_format(&r, NULL, s, TH_NAME_CIDR);
    }
    if (th_view_has(v, "allocateLoadBalancerNodePorts") && !balancer) {
        th_bad_forbidden(v, "allocateLoadBalancerNodePorts", words);
    }
    if (!th_view_has(v, "loadBalancerClass")) {
        return;
    }
    if (!balancer) {
        th_bad_forbidden(v, "loadBalancerClass", words);
    } else {
        (void)th_check_format(v, "loadBalancerClass", th_view_str(v, "loadBalancerClass"),
                              TH_NAME_QUALIFIED);
    }
}

void th_rule_service_spec(const struct th_view *v)
{
    const char *type = th_view_str(v, "type");
    size_t n = th_view_len(v, "ports");
    bool named = th_streq(type, "ExternalName");
    if (n == 0 && !headless(v) && !named) {
        th_bad_required(v, "ports", "");
    }
    if (headless(v) && th_word_in(type, "LoadBalancer|NodePort")) {
        th_autofree char *why = th_xasprintf("may not be set to 'None' for %s services", type);
        th_bad_str(v, "clusterIPs[0]", "None", why);
    }
    if (named) {
        check_external_name(v);
    }
    for (size_t i = 0; i < n; i++) {
        check_port(v, i, n);
    }
    th_check_labels(v, "selector");
    check_affinity(v);
    if (!named) {
        check_addresses(v);
    }
    for (size_t i = 0; i < th_view_len(v, "externalIPs"); i++) {
        struct th_view x = th_view_item(v, "externalIPs", i);
        const char *ip = th_view_str(&x, NULL);
        if (th_check_format(&x, NULL, ip, TH_NAME_IP)) {
            th_check_endpoint_ip(&x, NULL, ip);
        }
    }
    if (!*type) {
        th_bad_required(v, "type", "");
    } else {
        (void)th_check_one_of(v, "type", type, "ClusterIP|ExternalName|LoadBalancer|NodePort");
    }
    check_repeated(v);
    check_balancer(v);
    check_traffic(v);
}

/* ---- Updates ---- */

static void check_kept(const struct th_view *v, const struct th_json *old, const char *member,
                       const char *single)
{
    const struct th_json *now = th_view_get(v, member), *was = th_json_path(old, member);
    struct th_view first = th_view_item(v, member, 0);
    size_t a = th_json_len(was), b = th_json_len(now);
    if (a == b) {
        for (size_t i = 0; i < a; i++) {
            if (!th_json_equal(th_json_at(now, i), th_json_at(was, i))) {
                struct th_view x = th_view_item(v, member, th_streq(member, "clusterIPs") ? i : 0);
                th_bad_json(&x, NULL, now, "may not change once set");
            }
        }
        return;
    }
    if (a > b && b == 0) {
        th_autofree char *why = th_xasprintf("primary %s can not be unset", single);
        th_bad_json(&first, NULL, now, why);
    }
    if (a > 0 && b > 0 && !th_json_equal(th_json_at(now, 0), th_json_at(was, 0))) {
        th_bad_json(&first, NULL, th_view_get(v, "clusterIPs"), "may not change once set");
    }
    if (a > b && b == 1 && !th_view_is(v, "ipFamilyPolicy", "SingleStack")) {
        th_autofree char *why = th_xasprintf(
            "must be set to 'SingleStack' when releasing the secondary %s", single);
        th_bad_value(v, "ipFamilyPolicy", why);
    }
}

void th_service_validate_update(const struct th_req_ctx *c, const struct th_json *obj,
                                const struct th_json *old, struct th_err *err)
{
    (void)c;
    struct th_view top = TH_VIEW(obj, err), before = TH_VIEW(old, err);
    struct th_view v = th_view_at(&top, "spec"), was = th_view_at(&before, "spec");
    bool balancers = th_view_is(&v, "type", "LoadBalancer") && th_view_is(&was, "type", "LoadBalancer");
    if (balancers && !th_json_equal(th_view_get(&v, "loadBalancerClass"),
                                    th_view_get(&was, "loadBalancerClass"))) {
        th_bad_value(&v, "loadBalancerClass", "may not change once set");
    }
    if (health_checked(&v) && health_checked(&was) &&
        th_view_int(&v, "healthCheckNodePort", 0) != th_view_int(&was, "healthCheckNodePort", 0)) {
        th_bad_forbidden(&v, "healthCheckNodePort", "field is immutable");
    }
    if (th_view_is(&v, "type", "ExternalName") || th_view_is(&was, "type", "ExternalName")) {
        return;
    }
    if (!(headless(&v) && headless(&was))) {
        check_kept(&v, was.obj, "clusterIPs", "clusterIP");
    }
    if (!headless(&v) && !headless(&was)) {
        check_kept(&v, was.obj, "ipFamilies", "ipFamily");
    }
}
