/*
 * Usage of quotas; see quota.h. Rules as k8s.io/kubernetes pkg/quota/v1/evaluator/core: a pod that
 * has ended (or is past its grace period) uses nothing but its count as an object; requests count
 * under their bare name too; the scopes BestEffort, NotBestEffort, Terminating, NotTerminating,
 * PriorityClass and CrossNamespacePodAffinity choose among pods, VolumeAttributesClass among volume
 * claims. A device claim uses the most devices of each class that it could get.
 *
 * Unlike upstream the amounts of a pod that is being resized are those it asks for now, and devices
 * that extended resources stand for (requests.deviceclass.resource.kubernetes.io/CLASS) are not counted.
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
    const char *note = th_json_str(th_json_get(th_json_path(claim, "metadata.annotations"),
                                               "volume.beta.kubernetes.io/storage-class"));
    const char *class = note ? note : th_json_path_str(claim, "spec.storageClassName");
    const char *given = th_json_path_str(claim, "status.allocatedResources.storage");
    int64_t bytes = th_quota_amount("requests.storage", text);
    int64_t given_bytes = th_quota_amount("requests.storage", given);
    if (text && given_bytes > bytes) { /* a growth that failed was taken back */
        bytes = given_bytes;
    }
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

/* ---- Device claims ---- */

#define DEVICES_OF_ALL 32 /* allocationMode All: as many as one claim may get at most */

static void add_devices(struct th_amounts *a, const struct th_json *request, bool max)
{
    const char *class = th_json_path_str(request, "deviceClassName");
    const char *mode = th_json_path_str(request, "allocationMode");
    int64_t n = !mode || th_streq(mode, "ExactCount") ? th_json_path_int(request, "count", 1)
                : th_streq(mode, "All")               ? DEVICES_OF_ALL
                                                      : 0;
    th_autofree char *name =
        th_xasprintf("%s.deviceclass.resource.k8s.io/devices", class ? class : "");
    int64_t had = max ? th_amounts_get(a, name) : 0;
    add(a, name, n > had ? n - had : 0);
}

static void device_usage(const struct th_json *claim, struct th_amounts *ret)
{
    const struct th_json *list = th_json_path(claim, "spec.devices.requests");
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *r = th_json_at(list, i);
        const struct th_json *any = th_json_get(r, "firstAvailable");
        struct th_amounts worst TH_CLEANUP(th_amounts_done) = {NULL, 0};
        for (size_t k = 0; k < th_json_len(any); k++) {
            add_devices(&worst, th_json_at(any, k), true);
        }
        if (th_json_len(any) == 0 && th_json_get(r, "exactly")) {
            add_devices(&worst, th_json_get(r, "exactly"), false);
        }
        th_amounts_add(ret, &worst, 1);
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
    if (th_streq(group, "resource.k8s.io") && th_streq(plural, "resourceclaims")) {
        device_usage(obj, ret);
    }
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

/* Whether one of the names (or that there is none) is what a selector of this operator asks for. */
static bool selects(const char *op, const struct th_json *values, const struct th_strv *names)
{
    if (names->n == 0) {
        return th_streq(op, "NotIn") || th_streq(op, "DoesNotExist");
    }
    bool found = th_streq(op, "Exists");
    for (size_t i = 0; i < names->n && !found; i++) {
        bool listed = false;
        for (size_t k = 0; k < th_json_len(values); k++) {
            listed = listed || th_streq(th_json_str(th_json_at(values, k)), names->v[i]);
        }
        found = (th_streq(op, "In") && listed) || (th_streq(op, "NotIn") && !listed);
    }
    return found;
}

static void add_name(struct th_strv *names, const struct th_json *obj, const char *path)
{
    const char *name = th_json_path_str(obj, path);
    if (name && *name) {
        th_strv_add(names, name);
    }
}

static bool claim_in_scope(const char *scope, const char *op, const struct th_json *values,
                           const struct th_json *claim)
{
    th_autostrv struct th_strv classes = TH_STRV_INIT;
    add_name(&classes, claim, "spec.volumeAttributesClassName");
    add_name(&classes, claim, "status.currentVolumeAttributesClassName");
    add_name(&classes, claim, "status.modifyVolumeStatus.targetVolumeAttributesClassName");
    return th_streq(scope, "VolumeAttributesClass") && selects(op, values, &classes);
}

static bool pod_in_scope(const char *scope, const char *op, const struct th_json *values,
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
    th_autostrv struct th_strv classes = TH_STRV_INIT;
    add_name(&classes, pod, "spec.priorityClassName");
    return th_streq(scope, "PriorityClass") && selects(op, values, &classes);
}

bool th_quota_covers(const struct th_json *quota, const char *group, const char *plural,
                     const struct th_json *obj)
{
    const struct th_json *scopes = th_json_path(quota, "spec.scopes");
    const struct th_json *more = th_json_path(quota, "spec.scopeSelector.matchExpressions");
    if (th_json_len(scopes) == 0 && th_json_len(more) == 0) {
        return true;
    }
    bool pod = th_streq(plural, "pods");
    if (*group || (!pod && !th_streq(plural, "persistentvolumeclaims"))) {
        return false;
    }
    bool (*in_scope)(const char *, const char *, const struct th_json *, const struct th_json *) =
        pod ? pod_in_scope : claim_in_scope;
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
