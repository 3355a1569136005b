/*
 * Usage of quotas; see quota.h. Rules as k8s.io/kubernetes pkg/quota/v1/evaluator/core: a pod that
 * has ended (or is past its grace period) uses nothing but its count as an object; requests count
 * under their bare name too; the scopes BestEffort, NotBestEffort, Terminating, NotTerminating,
 * PriorityClass and CrossNamespacePodAffinity choose among pods.
 */
#include "controlplane/schema/quota.h"
#include "base/buf.h"
#include "base/clock.h"

static void add(struct th_amounts *a, const char *name, int64_t value)
{
    struct th_amount one = {(char *)(uintptr_t)name, value};
    struct th_amounts list = {&one, 1};
    th_amounts_add(a, &list, 1);
}

bool th_quota_is_cpu(const char *name)
{
    return th_streq(name, "cpu") || th_streq(name, "requests.cpu") || th_streq(name, "limits.cpu");
}

static bool is_bytes(const char *name)
{
    return strstr(name, "memory") || strstr(name, "storage") || strstr(name, "hugepages-");
}

struct th_quantity th_quota_quantity(const char *name, int64_t amount)
{
    return th_quota_is_cpu(name)
               ? th_quantity_from_milli(amount, TH_Q_DECIMAL_SI)
               : th_quantity_from_value(amount,
                                        is_bytes(name) ? TH_Q_BINARY_SI : TH_Q_DECIMAL_SI);
}

int64_t th_quota_amount(const char *name, const char *text)
{
    struct th_quantity q;
    if (!text || th_quantity_parse(text, &q, NULL) < 0) {
        return 0;
    }
    return th_quota_is_cpu(name) ? th_quantity_milli(q) : th_quantity_value(q);
}

static bool has_ended(const struct th_json *pod)
{
    const char *phase = th_json_path_str(pod, "status.phase");
    const char *deleted = th_json_path_str(pod, "metadata.deletionTimestamp");
    int64_t us = 0;
    return th_streq(phase, "Succeeded") || th_streq(phase, "Failed") ||
           (deleted && th_time_parse(deleted, &us, NULL) == 0 && us / 1000 < th_now_ms());
}

/* Under "requests.NAME", and under the bare names that stand for requests. */
static void pod_usage(const struct th_json *pod, struct th_amounts *ret)
{
    struct th_amounts requests TH_CLEANUP(th_amounts_done) = {NULL, 0};
    struct th_amounts limits TH_CLEANUP(th_amounts_done) = {NULL, 0};
    if (has_ended(pod)) {
        return;
    }
    th_pod_requests(pod, &requests);
    th_pod_limits(pod, &limits);
    for (size_t i = 0; i < requests.n; i++) {
        const char *name = requests.v[i].name;
        th_autofree char *long_name = th_xasprintf("requests.%s", name);
        bool bare = th_streq(name, "cpu") || th_streq(name, "memory") ||
                    th_streq(name, "ephemeral-storage") || th_startswith(name, "hugepages-") ||
                    th_streq(name, "pods");
        if (bare) {
            add(ret, name, requests.v[i].value);
        }
        if (!th_streq(name, "pods")) {
            add(ret, long_name, requests.v[i].value);
        }
    }
    for (size_t i = 0; i < limits.n; i++) {
        th_autofree char *name = th_xasprintf("limits.%s", limits.v[i].name);
        add(ret, name, limits.v[i].value);
    }
}

static void service_usage(const struct th_json *svc, struct th_amounts *ret)
{
    const char *type = th_json_path_str(svc, "spec.type");
    int64_t ports = (int64_t)th_json_len(th_json_path(svc, "spec.ports"));
    bool balancer = th_streq(type, "LoadBalancer");
    bool allocates = th_json_path_bool(svc, "spec.allocateLoadBalancerNodePorts", true);
    add(ret, "services", 1);
    add(ret, "services.loadbalancers", balancer);
    add(ret, "services.nodeports",
        th_streq(type, "NodePort") || (balancer && allocates) ? ports : 0);
}

static void claim_usage(const struct th_json *claim, struct th_amounts *ret)
{
    const char *text =
        th_json_str(th_json_get(th_json_path(claim, "spec.resources.requests"), "storage"));
    const char *class = th_json_path_str(claim, "spec.storageClassName");
    int64_t bytes = th_quota_amount("requests.storage", text);
    add(ret, "persistentvolumeclaims", 1);
    add(ret, "requests.storage", bytes);
    if (class && *class) {
        th_autofree char *count =
            th_xasprintf("%s.storageclass.storage.k8s.io/persistentvolumeclaims", class);
        th_autofree char *size =
            th_xasprintf("%s.storageclass.storage.k8s.io/requests.storage", class);
        add(ret, count, 1);
        add(ret, size, bytes);
    }
}

void th_quota_usage(const char *group, const char *plural, const struct th_json *obj,
                    struct th_amounts *ret)
{
    static const char *const counted[] = {"configmaps", "replicationcontrollers",
                                          "resourcequotas", "secrets"};
    *ret = (struct th_amounts){NULL, 0};
    th_autofree char *count = th_xasprintf("count/%s%s%s", plural, *group ? "." : "", group);
    add(ret, count, 1);
    if (*group) {
        return;
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(counted); i++) {
        if (th_streq(plural, counted[i])) {
            add(ret, plural, 1);
        }
    }
    if (th_streq(plural, "pods")) {
        pod_usage(obj, ret);
    } else if (th_streq(plural, "services")) {
        service_usage(obj, ret);
    } else if (th_streq(plural, "persistentvolumeclaims")) {
        claim_usage(obj, ret);
    }
}

/* ---- Scopes ---- */

static bool asks_for_nothing(const struct th_json *pod)
{
    struct th_amounts requests TH_CLEANUP(th_amounts_done) = {NULL, 0};
    struct th_amounts limits TH_CLEANUP(th_amounts_done) = {NULL, 0};
    th_pod_requests(pod, &requests);
    th_pod_limits(pod, &limits);
    return th_amounts_get(&requests, "cpu") == 0 && th_amounts_get(&requests, "memory") == 0 &&
           th_amounts_get(&limits, "cpu") == 0 && th_amounts_get(&limits, "memory") == 0;
}

static bool looks_across(const struct th_json *pod)
{
    static const char *const sides[] = {"spec.affinity.podAffinity",
                                        "spec.affinity.podAntiAffinity"};
    for (size_t s = 0; s < TH_ARRAY_LEN(sides); s++) {
        struct th_json_iter it = TH_JSON_ITER(th_json_path(pod, sides[s]));
        while (th_json_next(&it)) {
            for (size_t i = 0; i < th_json_len(it.value); i++) {
                const struct th_json *e = th_json_at(it.value, i);
                const struct th_json *inner = th_json_get(e, "podAffinityTerm");
                const struct th_json *t = inner ? inner : e;
                if (th_json_len(th_json_get(t, "namespaces")) ||
                    th_json_get(t, "namespaceSelector")) {
                    return true;
                }
            }
        }
    }
    return false;
}

static bool in_scope(const char *scope, const char *op, const struct th_json *values,
                     const struct th_json *pod)
{
    bool terminating = th_json_path(pod, "spec.activeDeadlineSeconds") != NULL;
    if (th_streq(scope, "Terminating") || th_streq(scope, "NotTerminating")) {
        return terminating == th_streq(scope, "Terminating");
    }
    if (th_streq(scope, "BestEffort") || th_streq(scope, "NotBestEffort")) {
        return asks_for_nothing(pod) == th_streq(scope, "BestEffort");
    }
    if (th_streq(scope, "CrossNamespacePodAffinity")) {
        return looks_across(pod);
    }
    if (!th_streq(scope, "PriorityClass")) {
        return false;
    }
    const char *class = th_json_path_str(pod, "spec.priorityClassName");
    bool has = class && *class, listed = false;
    for (size_t i = 0; has && i < th_json_len(values); i++) {
        listed = listed || th_streq(th_json_str(th_json_at(values, i)), class);
    }
    return th_streq(op, "In")             ? listed
           : th_streq(op, "NotIn")        ? !listed
           : th_streq(op, "DoesNotExist") ? !has
                                          : has;
}

bool th_quota_covers(const struct th_json *quota, const char *group, const char *plural,
                     const struct th_json *obj)
{
    const struct th_json *scopes = th_json_path(quota, "spec.scopes");
    const struct th_json *more = th_json_path(quota, "spec.scopeSelector.matchExpressions");
    if (th_json_len(scopes) == 0 && th_json_len(more) == 0) {
        return true;
    }
    if (*group || !th_streq(plural, "pods")) {
        return false;
    }
    for (size_t i = 0; i < th_json_len(scopes); i++) {
        if (!in_scope(th_json_str(th_json_at(scopes, i)), "Exists", NULL, obj)) {
            return false;
        }
    }
    for (size_t i = 0; i < th_json_len(more); i++) {
        const struct th_json *e = th_json_at(more, i);
        if (!in_scope(th_json_path_str(e, "scopeName"), th_json_path_str(e, "operator"),
                      th_json_get(e, "values"), obj)) {
            return false;
        }
    }
    return true;
}
