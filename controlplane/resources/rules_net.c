/* Rules of networking.k8s.io, discovery.k8s.io, policy and autoscaling that a line of rules.tsv cannot
 * say (upstream: the validation packages of these groups). */
#include "controlplane/resources/amounts.h"
#include "controlplane/resources/rows.h"
#include "controlplane/resources/rules.h"

#include "base/buf.h"
#include "controlplane/schema/quantity.h"
#include "controlplane/schema/validate.h"

#include <arpa/inet.h>

/* ---- CIDRs ---- */

struct net {
    unsigned char bytes[16];
    int bits, len; /* prefix, 32 or 128 */
};

static bool parse_net(const char *text, struct net *ret)
{
    const char *slash = strchr(text, '/');
    if (!slash) {
        return false;
    }
    th_autofree char *ip = th_xstrndup(text, (size_t)(slash - text));
    bool v6 = strchr(ip, ':') != NULL;
    *ret = (struct net){.bits = (int)strtol(slash + 1, NULL, 10), .len = v6 ? 128 : 32};
    return inet_pton(v6 ? AF_INET6 : AF_INET, ip, ret->bytes) == 1 && ret->bits >= 0 &&
           ret->bits <= ret->len;
}

static bool strictly_inside(const struct net *in, const struct net *out)
{
    if (in->len != out->len || in->bits <= out->bits) {
        return false;
    }
    for (int i = 0; i < out->bits; i++) {
        if (((in->bytes[i / 8] ^ out->bytes[i / 8]) >> (7 - i % 8)) & 1) {
            return false;
        }
    }
    return true;
}

/* ---- NetworkPolicies ---- */

void th_rule_policy_port(const struct th_view *v)
{
    const struct th_json *port = th_view_get(v, "port");
    int64_t end = th_view_int(v, "endPort", 0);
    bool has_end = th_view_has(v, "endPort");
    const char *protocol = th_view_str(v, "protocol");
    if (th_view_has(v, "protocol")) {
        (void)th_check_one_of(v, "protocol", protocol, "TCP|UDP|SCTP");
    }
    if (!port) {
        if (has_end) {
            th_bad_int(v, "endPort", end, "may not be specified when `port` is not specified");
        }
        return;
    }
    if (th_json_is(port, TH_JSON_STRING) && has_end) {
        th_bad_int(v, "endPort", end, "may not be specified when `port` is non-numeric");
    }
    th_check_port_or_name(v, "port");
    if (th_json_is(port, TH_JSON_STRING) || !has_end) {
        return;
    }
    if (end < th_json_as_int(port, 0)) {
        th_bad_int(v, "endPort", th_json_as_int(port, 0), "must be greater than or equal to `port`");
    }
    if (end < 1 || end > 65535) {
        th_bad_int(v, "endPort", end, "must be between 1 and 65535, inclusive");
    }
}

void th_rule_policy_peer(const struct th_view *v)
{
    bool block = th_view_has(v, "ipBlock");
    int n = block + th_view_has(v, "podSelector") + th_view_has(v, "namespaceSelector");
    if (n == 0) {
        th_bad_required(v, NULL, "must specify a peer");
    } else if (n > 1 && block) {
        th_bad_forbidden(v, NULL, "may not specify both ipBlock and another peer");
    }
}

void th_rule_ip_block(const struct th_view *v)
{
    const char *cidr = th_view_str(v, "cidr");
    struct net outer, inner;
    if (!*cidr) {
        th_bad_required(v, "cidr", "");
        return;
    }
    if (!th_check_format(v, "cidr", cidr, TH_NAME_CIDR) || !parse_net(cidr, &outer)) {
        return;
    }
    for (size_t i = 0; i < th_view_len(v, "except"); i++) {
        struct th_view e = th_view_item(v, "except", i);
        const char *s = th_view_str(&e, NULL);
        if (th_check_format(&e, NULL, s, TH_NAME_CIDR) && parse_net(s, &inner) &&
            !strictly_inside(&inner, &outer)) {
            th_bad_str(&e, NULL, s, "must be a strict subset of `cidr`");
        }
    }
}

void th_rule_network_policy_spec(const struct th_view *v)
{
    size_t n = th_view_len(v, "policyTypes");
    if (n > 2) {
        th_bad_value(v, "policyTypes", "may not specify more than two policyTypes");
        return;
    }
    for (size_t i = 0; i < n; i++) {
        struct th_view t = th_view_item(v, "policyTypes", i);
        (void)th_check_one_of(&t, NULL, th_view_str(&t, NULL), "Ingress|Egress");
    }
}

/* ---- Ingresses ---- */

static void check_path_name(const struct th_view *v, const char *member)
{
    const char *s = th_view_str(v, member);
    if (!*s) {
        th_bad_required(v, member, "");
    } else {
        (void)th_check_format(v, member, s, TH_NAME_PATH_SEGMENT);
    }
}

static void check_group(const struct th_view *v)
{
    if (th_view_has(v, "apiGroup")) {
        (void)th_check_format(v, "apiGroup", th_view_str(v, "apiGroup"), TH_NAME_DNS1123_SUBDOMAIN);
    }
}

void th_rule_ingress_backend(const struct th_view *v)
{
    bool resource = th_view_has(v, "resource"), service = th_view_has(v, "service");
    if (resource && service) {
        th_bad_str(v, NULL, "", "cannot set both resource and service backends");
        return;
    }
    if (resource) {
        struct th_view r = th_view_at(v, "resource");
        check_group(&r);
        check_path_name(&r, "kind");
        check_path_name(&r, "name");
        return;
    }
    if (!service) {
        th_bad_str(v, NULL, "", "resource or service backend is required");
        return;
    }
    struct th_view s = th_view_at(v, "service");
    const char *name = th_view_str(&s, "name"), *port = th_view_str(&s, "port.name");
    int64_t number = th_view_int(&s, "port.number", 0);
    if (!*name) {
        th_bad_required(&s, "name", "");
    } else {
        (void)th_check_format(&s, "name", name, TH_NAME_DNS1123_LABEL);
    }
    if (*port && number) {
        th_bad_str(v, NULL, "", "cannot set both port name & port number");
    } else if (*port) {
        (void)th_check_format(&s, "port.name", port, TH_NAME_PORT);
    } else if (!number) {
        th_bad_required(v, NULL, "port name or number is required");
    } else if (number < 1 || number > 65535) {
        th_bad_int(&s, "port.number", number, "must be between 1 and 65535, inclusive");
    }
}

static void check_path_text(const struct th_view *v, const char *path)
{
    static const char *const inside[] = {"//", "/./", "/../", "%2f", "%2F"};
    static const char *const ends[] = {"/..", "/."};
    for (size_t i = 0; *path && i < TH_ARRAY_LEN(inside); i++) {
        if (strstr(path, inside[i])) {
            th_autofree char *why = th_xasprintf("must not contain '%s'", inside[i]);
            th_bad_str(v, "path", path, why);
        }
    }
    for (size_t i = 0; *path && i < TH_ARRAY_LEN(ends); i++) {
        if (th_endswith(path, ends[i])) {
            th_autofree char *why = th_xasprintf("cannot end with '%s'", ends[i]);
            th_bad_str(v, "path", path, why);
        }
    }
}

void th_rule_ingress_path(const struct th_view *v)
{
    const char *type = th_view_str(v, "pathType"), *path = th_view_str(v, "path");
    if (!th_view_has(v, "pathType")) {
        th_bad_required(v, "pathType", "pathType must be specified");
        return;
    }
    (void)th_check_one_of(v, "pathType", type, "Exact|ImplementationSpecific|Prefix");
    bool exact = th_word_in(type, "Exact|Prefix");
    if ((exact || (*path && th_streq(type, "ImplementationSpecific"))) && *path != '/') {
        th_bad_str(v, "path", path, "must be an absolute path");
    }
    if (exact) {
        check_path_text(v, path);
    }
}

static void check_host(const struct th_view *v, const char *member, const char *host)
{
    (void)th_check_format(v, member, host,
                          strchr(host, '*') ? TH_NAME_DNS1123_WILDCARD : TH_NAME_DNS1123_SUBDOMAIN);
}

void th_rule_ingress_rule(const struct th_view *v)
{
    const char *host = th_view_str(v, "host");
    unsigned char bytes[16];
    if (inet_pton(AF_INET, host, bytes) == 1 || inet_pton(AF_INET6, host, bytes) == 1) {
        th_bad_str(v, "host", host, "must be a DNS name, not an IP address");
    }
    if (*host) {
        check_host(v, "host", host);
    }
}

void th_rule_ingress_spec(const struct th_view *v)
{
    if (th_view_len(v, "rules") == 0 && !th_view_has(v, "defaultBackend")) {
        th_bad_json(v, NULL, th_view_get(v, "rules"),
                    "either `defaultBackend` or `rules` must be specified");
    }
    for (size_t i = 0; i < th_view_len(v, "tls"); i++) {
        struct th_view t = th_view_item(v, "tls", i);
        for (size_t k = 0; k < th_view_len(&t, "hosts"); k++) {
            struct th_view h = th_view_item(&t, "hosts", k);
            check_host(&h, NULL, th_view_str(&h, NULL));
        }
        const char *secret = th_view_str(&t, "secretName");
        if (*secret) {
            (void)th_check_format(&t, "secretName", secret, TH_NAME_DNS1123_SUBDOMAIN);
        }
    }
}

void th_ingress_validate_create(const struct th_req_ctx *c, const struct th_json *obj,
                                struct th_err *err)
{
    (void)c;
    static const char key[] = "kubernetes.io/ingress.class";
    const char *old = th_json_str(th_json_get(th_json_path(obj, "metadata.annotations"), key));
    const char *class = th_json_path_str(obj, "spec.ingressClassName");
    if (old && class && !th_streq(old, class)) {
        th_invalid_str(err, "annotations.kubernetes.io/ingress.class", old,
                       "must match `ingressClassName` when both are specified");
    }
}

void th_check_domain_path(const struct th_view *v, const char *member, const char *value)
{
    const char *slash = strchr(value, '/');
    if (!*value) {
        th_bad_required(v, member, "");
        return;
    }
    if (!slash || slash == value || !slash[1]) {
        th_bad_str(v, member, value, "must be a domain-prefixed path (such as \"acme.io/foo\")");
        return;
    }
    th_autofree char *host = th_xstrndup(value, (size_t)(slash - value));
    (void)th_check_format(v, member, host, TH_NAME_DNS1123_SUBDOMAIN);
}

void th_rule_ingress_class_spec(const struct th_view *v)
{
    const char *controller = th_view_str(v, "controller");
    if (strlen(controller) > 250) {
        th_bad_too_long(v, "controller", 250);
    }
    th_check_domain_path(v, "controller", controller);
    struct th_view p = th_view_at(v, "parameters");
    if (!p.obj) {
        return;
    }
    check_group(&p);
    check_path_name(&p, "kind");
    check_path_name(&p, "name");
    const char *scope = th_view_str(&p, "scope"), *ns = th_view_str(&p, "namespace");
    if (!th_view_has(&p, "scope")) {
        th_bad_required(&p, "scope", "");
        return;
    }
    (void)th_check_one_of(&p, "scope", scope, "Cluster|Namespace");
    if (th_streq(scope, "Namespace")) {
        if (!*ns) {
            th_bad_required(&p, "namespace", "`parameters.scope` is set to 'Namespace'");
        } else {
            (void)th_check_format(&p, "namespace", ns, TH_NAME_DNS1123_LABEL);
        }
    } else if (th_streq(scope, "Cluster") && th_view_has(&p, "namespace")) {
        th_bad_forbidden(&p, "namespace", "`parameters.scope` is set to 'Cluster'");
    }
}

void th_rule_parent_reference(const struct th_view *v)
{
    const char *group = th_view_str(v, "group"), *ns = th_view_str(v, "namespace");
    if (*group) {
        (void)th_check_format(v, "group", group, TH_NAME_DNS1123_SUBDOMAIN);
    }
    check_path_name(v, "resource");
    check_path_name(v, "name");
    if (*ns) {
        (void)th_check_format(v, "namespace", ns, TH_NAME_PATH_SEGMENT);
    }
}

static bool same_family(const struct th_json *cidrs)
{
    const char *a = th_json_str(th_json_at(cidrs, 0)), *b = th_json_str(th_json_at(cidrs, 1));
    return a && b && !strchr(a, ':') == !strchr(b, ':');
}

void th_rule_service_cidr_spec(const struct th_view *v)
{
    const struct th_json *cidrs = th_view_get(v, "cidrs");
    if (th_json_len(cidrs) == 0) {
        th_bad_required(v, "cidrs", "at least one CIDR required");
        return;
    }
    if (th_json_len(cidrs) > 2) {
        TH_AUTO(th_json) struct th_json *shown = th_json_build("{'CIDRs':%o}", th_json_dup(cidrs));
        th_bad_json(v, "cidrs", shown, "may only hold up to 2 values");
        return;
    }
    bool good = true;
    for (size_t i = 0; i < th_json_len(cidrs); i++) {
        struct th_view c = th_view_item(v, "cidrs", i);
        good &= th_check_format(&c, NULL, th_view_str(&c, NULL), TH_NAME_CIDR);
    }
    if (good && same_family(cidrs)) {
        th_bad_value(v, "cidrs", "may specify no more than one IP for each IP family, i.e "
                                 "192.168.0.0/24 and 2001:db8::/64");
    }
}

void th_service_cidr_validate_update(const struct th_req_ctx *c, const struct th_json *obj,
                                     const struct th_json *old, struct th_err *err)
{
    (void)c;
    struct th_view top = TH_VIEW(obj, err);
    struct th_view v = th_view_at(&top, "spec");
    const struct th_json *now = th_view_get(&v, "cidrs"), *was = th_json_path(old, "spec.cidrs");
    size_t a = th_json_len(was), b = th_json_len(now);
    if (a != b && !(a == 1 && b == 2)) {
        th_bad_value(&v, "cidrs", "field is immutable");
        return;
    }
    for (size_t i = 0; i < a; i++) {
        if (!th_json_equal(th_json_at(now, i), th_json_at(was, i))) {
            struct th_view x = th_view_item(&v, "cidrs", i);
            th_bad_value(&x, NULL, "field is immutable");
        }
    }
}

/* ---- EndpointSlices ---- */

static void check_endpoint_address(const struct th_view *e, const struct th_view *a, const char *type)
{
    const char *s = th_view_str(a, NULL);
    if (th_streq(type, "FQDN")) {
        (void)th_check_format(a, NULL, s, TH_NAME_DNS1123_SUBDOMAIN);
        return;
    }
    if (!th_word_in(type, "IPv4|IPv6") || !th_check_format(a, NULL, s, TH_NAME_IP)) {
        return;
    }
    if (!strchr(s, ':') != th_streq(type, "IPv4")) {
        th_autofree char *why = th_xasprintf("must be an %s address", type);
        th_bad_str(a, NULL, s, why);
    }
    th_check_endpoint_ip(a, NULL, s);
    (void)e;
}

void th_rule_slice(const struct th_view *v)
{
    const char *type = th_view_str(v, "addressType");
    if (!*type) {
        th_bad_required(v, "addressType", "");
    } else {
        (void)th_check_one_of(v, "addressType", type, "FQDN|IPv4|IPv6");
    }
    for (size_t i = 0; i < th_view_len(v, "ports"); i++) {
        struct th_view p = th_view_item(v, "ports", i);
        const char *name = th_view_str(&p, "name"), *protocol = th_view_str(&p, "protocol");
        if (*name) {
            (void)th_check_format(&p, "name", name, TH_NAME_DNS1123_LABEL);
        }
        for (size_t k = 0; k < i; k++) {
            const char *o = th_json_path_str(th_json_at(th_view_get(v, "ports"), k), "name");
            if (th_streq(o ? o : "", name)) {
                th_bad_duplicate(&p, "name", name);
                break;
            }
        }
        (void)th_check_one_of(&p, "protocol", protocol, "SCTP|TCP|UDP");
        if (th_view_has(&p, "appProtocol")) {
            (void)th_check_format(&p, "appProtocol", th_view_str(&p, "appProtocol"),
                                  TH_NAME_QUALIFIED);
        }
    }
    for (size_t i = 0; i < th_view_len(v, "endpoints"); i++) {
        struct th_view e = th_view_item(v, "endpoints", i);
        size_t n = th_view_len(&e, "addresses");
        if (n == 0) {
            th_bad_required(&e, "addresses", "must contain at least 1 address");
        } else if (n > 100) {
            th_bad_too_many(&e, "addresses", n, 100);
        }
        for (size_t k = 0; k < n; k++) {
            struct th_view a = th_view_item(&e, "addresses", k);
            check_endpoint_address(&e, &a, type);
        }
    }
}

/* ---- PodDisruptionBudgets ---- */

void th_rule_pdb_spec(const struct th_view *v)
{
    static const char *const amounts[] = {"minAvailable", "maxUnavailable"};
    if (th_view_has(v, amounts[0]) && th_view_has(v, amounts[1])) {
        TH_AUTO(th_json) struct th_json *shown = th_json_build(
            "{'MinAvailable':%o,'Selector':%o,'MaxUnavailable':%o,'UnhealthyPodEvictionPolicy':%o}",
            th_json_dup(th_view_get(v, amounts[0])),
            th_view_has(v, "selector") ? th_json_dup(th_view_get(v, "selector")) : NULL,
            th_json_dup(th_view_get(v, amounts[1])),
            th_view_has(v, "unhealthyPodEvictionPolicy")
                ? th_json_dup(th_view_get(v, "unhealthyPodEvictionPolicy"))
                : NULL);
        th_bad_json(v, NULL, shown, "minAvailable and maxUnavailable cannot be both set");
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(amounts); i++) {
        if (th_view_has(v, amounts[i])) {
            th_check_int_or_percent(v, amounts[i]);
            th_check_at_most_100_percent(v, amounts[i]);
        }
    }
    if (th_view_has(v, "unhealthyPodEvictionPolicy")) {
        (void)th_check_one_of(v, "unhealthyPodEvictionPolicy",
                              th_view_str(v, "unhealthyPodEvictionPolicy"),
                              "AlwaysAllow|IfHealthyBudget");
    }
}

void th_pdb_validate_status(const struct th_req_ctx *c, const struct th_json *obj,
                            const struct th_json *old, struct th_err *err)
{
    (void)c;
    (void)old;
    static const char *const counts[] = {"disruptionsAllowed", "currentHealthy", "desiredHealthy",
                                         "expectedPods"};
    struct th_view top = TH_VIEW(obj, err);
    struct th_view v = th_view_at(&top, "status");
    for (size_t i = 0; i < TH_ARRAY_LEN(counts); i++) {
        th_check_non_negative(&v, counts[i]);
    }
}

/* ---- HorizontalPodAutoscalers ---- */

static void check_target(const struct th_view *m)
{
    struct th_view t = th_view_at(m, "target");
    static const char *const amounts[] = {"value", "averageValue"};
    const char *type = th_view_str(&t, "type");
    if (!*type) {
        th_bad_required(&t, "type", "must specify a metric target type");
    }
    if (!th_word_in(type, "Utilization|Value|AverageValue")) {
        th_bad_str(&t, "type", type, "must be either Utilization, Value, or AverageValue");
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(amounts); i++) {
        struct th_quantity q;
        const char *s = th_view_str(&t, amounts[i]);
        if (*s && th_quantity_parse(s, &q, NULL) == 0 && q.nano <= 0) {
            th_bad_str(&t, amounts[i], s, "must be positive");
        }
    }
    int64_t percent = th_view_int(&t, "averageUtilization", 1);
    if (percent < 1) {
        th_bad_int(&t, "averageUtilization", percent, "must be greater than 0");
    }
}

static void check_reference(const struct th_view *v, const char *member, bool group)
{
    struct th_view r = th_view_at(v, member);
    const char *gv = th_view_str(&r, "apiVersion");
    check_path_name(&r, "kind");
    check_path_name(&r, "name");
    const char *slash = strchr(gv, '/');
    if (slash && strchr(slash + 1, '/')) {
        th_autofree char *why = th_xasprintf("unexpected GroupVersion string: %s", gv);
        th_bad_str(&r, "apiVersion", gv, why);
    } else if (group && !slash && !th_view_is(&r, "kind", "ReplicationController")) {
        th_bad_str(&r, "apiVersion", gv, "apiVersion must specify API group");
    }
}

static void check_identifier(const struct th_view *m)
{
    struct th_view id = th_view_at(m, "metric");
    const char *name = th_view_str(&id, "name");
    if (!*name) {
        th_bad_required(&id, "name", "must specify a metric name");
    } else {
        (void)th_check_format(&id, "name", name, TH_NAME_PATH_SEGMENT);
    }
}

static void check_object(const struct th_view *m)
{
    check_reference(m, "describedObject", false);
    check_identifier(m);
    check_target(m);
    if (!th_view_has(m, "target.value") && !th_view_has(m, "target.averageValue")) {
        th_bad_required(m, "target.averageValue", "must set either a target value or averageValue");
    }
}

static void check_external(const struct th_view *m)
{
    bool value = th_view_has(m, "target.value"), average = th_view_has(m, "target.averageValue");
    check_identifier(m);
    check_target(m);
    if (!value && !average) {
        th_bad_required(m, "target.averageValue",
                        "must set either a target value for metric or a per-pod target");
    }
    if (value && average) {
        th_bad_forbidden(m, "target.value",
                         "may not set both a target value for metric and a per-pod target");
    }
}

static void check_pods(const struct th_view *m)
{
    check_identifier(m);
    check_target(m);
    if (!th_view_has(m, "target.averageValue")) {
        th_bad_required(m, "target.averageValue", "must specify a positive target averageValue");
    }
}

static void check_resource(const struct th_view *m)
{
    bool percent = th_view_has(m, "target.averageUtilization");
    bool average = th_view_has(m, "target.averageValue");
    const char *name = th_view_str(m, "name"), *container = th_view_str(m, "container");
    bool of_container = th_streq(m->member, "containerResource");
    if (!*name) {
        th_bad_required(m, "name", "must specify a resource name");
    } else if (of_container) {
        struct th_view at = th_view_at(m, "name");
        (void)th_check_resource_name(&at, name);
        if (!strchr(name, '/') && !th_resource_is_container(name)) {
            th_bad_str(&at, NULL, name, "must be a standard resource for containers");
        }
    }
    if (of_container && !*container) {
        th_bad_required(m, "container", "must specify a container");
    } else if (of_container) {
        (void)th_check_format(m, "container", container, TH_NAME_DNS1123_LABEL);
    }
    check_target(m);
    if (!percent && !average) {
        th_bad_required(m, "target.averageUtilization",
                        "must set either a target raw value or a target utilization");
    }
    if (percent && average) {
        th_bad_forbidden(m, "target.averageValue",
                         "may not set both a target raw value and a target utilization");
    }
}

void th_rule_metric(const struct th_view *v)
{
    static const struct {
        const char *type, *member;
        void (*check)(const struct th_view *m);
    } forms[] = {{"Object", "object", check_object},
                 {"External", "external", check_external},
                 {"Pods", "pods", check_pods},
                 {"Resource", "resource", check_resource},
                 {"ContainerResource", "containerResource", check_resource}};
    const char *type = th_view_str(v, "type");
    if (!*type) {
        th_bad_required(v, "type", "must specify a metric source type");
    }
    (void)th_check_one_of(v, "type", type, "ContainerResource|External|Object|Pods|Resource");
    size_t n = 0;
    const char *expected = NULL;
    for (size_t i = 0; i < TH_ARRAY_LEN(forms); i++) {
        struct th_view m = th_view_at(v, forms[i].member);
        if (m.obj && n++ == 0) {
            forms[i].check(&m);
        }
        if (th_streq(type, forms[i].type)) {
            expected = forms[i].member;
        }
    }
    if (expected && !th_view_has(v, expected)) {
        th_bad_required(v, expected, "must populate information for the given metric source");
    }
    for (size_t i = 0; n != 1 && i < TH_ARRAY_LEN(forms); i++) {
        if (th_view_has(v, forms[i].member) && !th_streq(forms[i].member, expected)) {
            th_bad_forbidden(v, forms[i].member, "must populate the given metric source only");
        }
    }
}

void th_rule_scaling_rules(const struct th_view *v)
{
    int64_t window = th_view_int(v, "stabilizationWindowSeconds", 0);
    if (window < 0) {
        th_bad_int(v, "stabilizationWindowSeconds", window, "must be greater than or equal to zero");
    } else if (window > 3600) {
        th_bad_int(v, "stabilizationWindowSeconds", window, "must be less than or equal to 3600");
    }
    if (th_view_has(v, "selectPolicy")) {
        (void)th_check_one_of(v, "selectPolicy", th_view_str(v, "selectPolicy"), "Disabled|Max|Min");
    }
    if (th_view_len(v, "policies") == 0) {
        th_bad_required(v, "policies", "must specify at least one Policy");
    }
    for (size_t i = 0; i < th_view_len(v, "policies"); i++) {
        struct th_view p = th_view_item(v, "policies", i);
        static const char *const numbers[] = {"value", "periodSeconds"};
        (void)th_check_one_of(&p, "type", th_view_str(&p, "type"), "Percent|Pods");
        for (size_t k = 0; k < TH_ARRAY_LEN(numbers); k++) {
            int64_t n = th_view_int(&p, numbers[k], 0);
            if (n <= 0) {
                th_bad_int(&p, numbers[k], n, "must be greater than zero");
            } else if (k == 1 && n > 1800) {
                th_bad_int(&p, numbers[k], n, "must be less than or equal to 1800");
            }
        }
    }
    (void)th_check_quantity(v, "tolerance");
}

void th_rule_autoscaler_spec(const struct th_view *v)
{
    bool has_min = th_view_has(v, "minReplicas");
    int64_t min = th_view_int(v, "minReplicas", 1), max = th_view_int(v, "maxReplicas", 0);
    if (has_min && min < 1) {
        th_bad_int(v, "minReplicas", min, "must be greater than or equal to 1");
    }
    if (max == 0) {
        th_bad_required(v, "maxReplicas", "must be set and greater than 0");
    } else if (max < 0) {
        th_bad_int(v, "maxReplicas", max, "must be greater than or equal to 1");
    }
    if (has_min && max < min) {
        th_bad_int(v, "maxReplicas", max, "must be greater than or equal to `minReplicas`");
    }
    check_reference(v, "scaleTargetRef", true);
    bool zero_ok = false;
    for (size_t i = 0; i < th_view_len(v, "metrics"); i++) {
        struct th_view m = th_view_item(v, "metrics", i);
        zero_ok = zero_ok || th_word_in(th_view_str(&m, "type"), "Object|External");
    }
    if (has_min && min == 0 && !zero_ok) {
        th_bad_forbidden(v, "metrics", "must specify at least one Object or External metric to support "
                                       "scaling to zero replicas");
    }
}
