/* Defaults that depend on more than one member: the rows "@name" of data/type_defaults.tsv.
 *
 * Each function gets the object of the type its row names and may rely on th_schema_decode having
 * been there (right JSON types), but not on any other default having been set unless an earlier row
 * of the same type set it. Upstream: pkg/apis/<group>/<version>/defaults.go. */
#include "base/clock.h"
#include "base/encode.h"
#include "controlplane/schema/quantity.h"
#include "controlplane/schema/schema_priv.h"

/* ---- Images ---- */

/* Whether the part before tag and digest is a name at all: path parts are lower case, the first may
 * be a host with a port. */
static bool image_name_ok(const char *s, size_t n)
{
    const char *slash = memchr(s, '/', n);
    size_t start = 0;
    if (slash) {
        size_t host = (size_t)(slash - s);
        bool upper = false;
        for (size_t i = 0; i < host; i++) {
            upper = upper || (s[i] >= 'A' && s[i] <= 'Z');
        }
        if (upper || memchr(s, '.', host) || memchr(s, ':', host) ||
            (host == 9 && memcmp(s, "localhost", 9) == 0)) {
            start = host + 1;
        }
    }
    for (size_t i = start; i < n; i++) {
        char c = s[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        bool inner = strchr("._-/", c) && i > start && i + 1 < n;
        if (!plain && !inner) {
            return false;
        }
    }
    return n > start;
}

/* The tag is "latest" when it is written so, or when there is neither tag nor digest. */
static bool image_is_latest(const char *image)
{
    if (!image) {
        return false;
    }
    size_t n = strcspn(image, "@");
    bool digest = image[n] == '@';
    size_t name = n;
    for (size_t i = n; i > 0 && image[i - 1] != '/'; i--) {
        if (image[i - 1] == ':') {
            name = i - 1;
        }
    }
    if (!image_name_ok(image, name)) {
        return false;
    }
    if (name == n) {
        return !digest;
    }
    return n - name - 1 == strlen("latest") && memcmp(image + name + 1, "latest", 6) == 0;
}

static bool unset(const struct th_json *o, const char *member)
{
    struct th_json *v = th_json_get(o, member);
    return !v || (th_json_is(v, TH_JSON_STRING) && th_json_str_len(v) == 0);
}

void th_default_image_pull_policy(struct th_json *container)
{
    if (unset(container, "imagePullPolicy")) {
        bool latest = image_is_latest(th_json_str(th_json_get(container, "image")));
        th_json_set_str(container, "imagePullPolicy", latest ? "Always" : "IfNotPresent");
    }
}

void th_default_volume(struct th_json *volume)
{
    bool source = false;
    struct th_json_iter it = TH_JSON_ITER(volume);
    while (th_json_next(&it)) {
        source = source || (it.value && strcmp(it.name, "name") != 0);
    }
    if (!source) {
        th_json_set(volume, "emptyDir", th_json_object());
    }
    struct th_json *image = th_json_get(volume, "image");
    if (image && unset(image, "pullPolicy")) {
        bool latest = image_is_latest(th_json_str(th_json_get(image, "reference")));
        th_json_set_str(image, "pullPolicy", latest ? "Always" : "IfNotPresent");
    }
}

/* ---- Pods ---- */

/* Adds to `into` what `from` has and it lacks. */
static void fill_missing(struct th_json *into, const struct th_json *from)
{
    struct th_json_iter it = TH_JSON_ITER(from);
    while (th_json_next(&it)) {
        if (!th_json_has(into, it.name)) {
            th_json_set(into, it.name, th_json_dup(it.value));
        }
    }
}

static void requests_from_limits(struct th_json *containers)
{
    for (size_t i = 0; i < th_json_len(containers); i++) {
        struct th_json *c = th_json_at(containers, i);
        const struct th_json *limits = th_json_path(c, "resources.limits");
        if (th_json_len(limits) > 0) {
            fill_missing(th_json_path_object(c, "resources.requests"), limits);
        }
    }
}

static void host_ports(struct th_json *containers)
{
    for (size_t i = 0; i < th_json_len(containers); i++) {
        struct th_json *ports = th_json_get(th_json_at(containers, i), "ports");
        for (size_t k = 0; k < th_json_len(ports); k++) {
            struct th_json *p = th_json_at(ports, k);
            int64_t port = th_json_as_int(th_json_get(p, "containerPort"), 0);
            if (th_json_as_int(th_json_get(p, "hostPort"), 0) == 0 && port != 0) {
                th_json_set_int(p, "hostPort", port);
            }
        }
    }
}

/* Adds (or takes the larger of) quantities by name: sums[name] op= list[name]. */
static void merge_quantities(struct th_json *sums, const struct th_json *list, bool larger)
{
    struct th_json_iter it = TH_JSON_ITER(list);
    while (th_json_next(&it)) {
        struct th_quantity a, b;
        const char *text = th_json_str(it.value);
        if (!text || th_quantity_parse(text, &b, NULL) < 0) {
            continue;
        }
        const char *have = th_json_str(th_json_get(sums, it.name));
        if (have && th_quantity_parse(have, &a, NULL) == 0) {
            if (larger && a.nano >= b.nano) {
                continue;
            }
            if (!larger) {
                if (a.nano == 0) {
                    a.format = b.format;
                }
                a.nano += b.nano;
                b = a;
            }
        }
        char buf[TH_QUANTITY_LEN];
        th_json_set_str(sums, it.name, th_quantity_format(b, buf));
    }
}

/* What all containers together need: the sum of the containers and sidecars, or the most that some
 * init container needs with the sidecars before it. `member` is "requests" or "limits". */
static struct th_json *aggregate(const struct th_json *spec, const char *member)
{
    th_autofree char *path = th_xasprintf("resources.%s", member);
    struct th_json *sum = th_json_object();
    const struct th_json *list = th_json_get(spec, "containers");
    for (size_t i = 0; i < th_json_len(list); i++) {
        merge_quantities(sum, th_json_path(th_json_at(list, i), path), false);
    }
    TH_AUTO(th_json) struct th_json *sidecars = th_json_object();
    TH_AUTO(th_json) struct th_json *peak = th_json_object();
    list = th_json_get(spec, "initContainers");
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *c = th_json_at(list, i), *own = th_json_path(c, path);
        if (th_streq(th_json_str(th_json_get(c, "restartPolicy")), "Always")) {
            merge_quantities(sum, own, false);
            merge_quantities(sidecars, own, false);
            merge_quantities(peak, sidecars, true);
        } else {
            TH_AUTO(th_json) struct th_json *with = th_json_dup(sidecars);
            merge_quantities(with, own, false);
            merge_quantities(peak, with, true);
        }
    }
    merge_quantities(sum, peak, true);
    return sum;
}

static bool hugepages(const char *resource)
{
    return th_startswith(resource, "hugepages-");
}

static bool pod_level(const char *resource)
{
    return th_streq(resource, "cpu") || th_streq(resource, "memory") || hugepages(resource);
}

/* spec.resources: limits for huge pages come from the containers', requests from the containers'
 * requests and then from the pod's limits. */
static void pod_resources(struct th_json *spec)
{
    struct th_json *resources = th_json_get(spec, "resources");
    if (!resources || (th_json_len(th_json_get(resources, "limits")) == 0 &&
                       th_json_len(th_json_get(resources, "requests")) == 0)) {
        return;
    }
    TH_AUTO(th_json) struct th_json *limits = aggregate(spec, "limits");
    struct th_json_iter it = TH_JSON_ITER(limits);
    while (th_json_next(&it)) {
        if (hugepages(it.name) && !th_json_has(th_json_get(resources, "requests"), it.name) &&
            !th_json_has(th_json_get(resources, "limits"), it.name)) {
            th_json_set(th_json_path_object(resources, "limits"), it.name, th_json_ref(it.value));
        }
    }
    if (th_json_len(th_json_get(resources, "limits")) == 0) {
        return;
    }
    TH_AUTO(th_json) struct th_json *want = th_json_object();
    TH_AUTO(th_json) struct th_json *requests = aggregate(spec, "requests");
    struct th_json_iter from = TH_JSON_ITER(requests);
    while (th_json_next(&from)) {
        if (pod_level(from.name) && !hugepages(from.name)) {
            th_json_set(want, from.name, th_json_ref(from.value));
        }
    }
    struct th_json_iter lim = TH_JSON_ITER(th_json_get(resources, "limits"));
    while (th_json_next(&lim)) {
        if (pod_level(lim.name) && !th_json_has(want, lim.name)) {
            th_json_set(want, lim.name, th_json_dup(lim.value));
        }
    }
    if (th_json_len(want) > 0) {
        fill_missing(th_json_path_object(resources, "requests"), want);
    }
}

void th_default_pod(struct th_json *pod)
{
    struct th_json *spec = th_json_path_object(pod, "spec");
    requests_from_limits(th_json_get(spec, "containers"));
    requests_from_limits(th_json_get(spec, "initContainers"));
    pod_resources(spec);
    if (!th_json_get(spec, "enableServiceLinks")) {
        th_json_set_bool(spec, "enableServiceLinks", true);
    }
    if (th_json_as_bool(th_json_get(spec, "hostNetwork"), false)) {
        host_ports(th_json_get(spec, "containers"));
        host_ports(th_json_get(spec, "initContainers"));
    }
}

/* ---- Services ---- */

static void service_ports(struct th_json *ports)
{
    for (size_t i = 0; i < th_json_len(ports); i++) {
        struct th_json *p = th_json_at(ports, i), *target = th_json_get(p, "targetPort");
        bool zero = th_json_is(target, TH_JSON_STRING) ? th_json_str_len(target) == 0
                                                       : th_json_as_int(target, 0) == 0;
        if (zero) {
            th_json_set_int(p, "targetPort", th_json_as_int(th_json_get(p, "port"), 0));
        }
    }
}

void th_default_service(struct th_json *svc)
{
    struct th_json *spec = th_json_path_object(svc, "spec");
    if (unset(spec, "sessionAffinity")) {
        th_json_set_str(spec, "sessionAffinity", "None");
    }
    const char *affinity = th_json_str(th_json_get(spec, "sessionAffinity"));
    if (th_streq(affinity, "None")) {
        th_json_del(spec, "sessionAffinityConfig");
    } else if (th_streq(affinity, "ClientIP") &&
               !th_json_path(spec, "sessionAffinityConfig.clientIP.timeoutSeconds")) {
        th_json_set(spec, "sessionAffinityConfig",
                    th_json_build("{'clientIP':{'timeoutSeconds':10800}}"));
    }
    if (unset(spec, "type")) {
        th_json_set_str(spec, "type", "ClusterIP");
    }
    const char *type = th_json_str(th_json_get(spec, "type"));
    bool balanced = th_streq(type, "LoadBalancer");
    bool external = balanced || th_streq(type, "NodePort");
    bool cluster_ip = th_streq(type, "ClusterIP");
    service_ports(th_json_get(spec, "ports"));
    bool reachable = external || (cluster_ip && th_json_len(th_json_get(spec, "externalIPs")) > 0);
    if (reachable && unset(spec, "externalTrafficPolicy")) {
        th_json_set_str(spec, "externalTrafficPolicy", "Cluster");
    }
    if ((external || cluster_ip) && !th_json_get(spec, "internalTrafficPolicy")) {
        th_json_set_str(spec, "internalTrafficPolicy", "Cluster");
    }
    if (!balanced) {
        return;
    }
    if (!th_json_get(spec, "allocateLoadBalancerNodePorts")) {
        th_json_set_bool(spec, "allocateLoadBalancerNodePorts", true);
    }
    struct th_json *ingress = th_json_path(svc, "status.loadBalancer.ingress");
    for (size_t i = 0; i < th_json_len(ingress); i++) {
        struct th_json *one = th_json_at(ingress, i);
        if (!unset(one, "ip") && !th_json_get(one, "ipMode")) {
            th_json_set_str(one, "ipMode", "VIP");
        }
    }
}

/* ---- The rest, by kind ---- */

void th_default_namespace(struct th_json *ns)
{
    const char *name = th_json_path_str(ns, "metadata.name");
    if (name && *name) {
        th_json_set_str(th_json_path_object(ns, "metadata.labels"), "kubernetes.io/metadata.name",
                        name);
    }
}

/* stringData is write-only: it goes into data, base64. */
void th_default_secret(struct th_json *secret)
{
    struct th_json_iter it = TH_JSON_ITER(th_json_get(secret, "stringData"));
    while (th_json_next(&it)) {
        const char *s = th_json_str(it.value);
        th_autobuf struct th_buf text = TH_BUF_INIT;
        th_b64_encode(s ? s : "", th_json_str_len(it.value), &text);
        th_json_set_str(th_json_path_object(secret, "data"), it.name, th_buf_cstr(&text));
    }
    th_json_del(secret, "stringData");
}

/* Old objects may hold a negative period; upstream's conversion reads it as 1. */
void th_default_pod_spec(struct th_json *spec)
{
    if (th_json_as_int(th_json_get(spec, "terminationGracePeriodSeconds"), 0) < 0) {
        th_json_set_int(spec, "terminationGracePeriodSeconds", 1);
    }
}

/* autoscaling/v1 can only say CPU; with no metric at all it is 80 %. */
void th_default_autoscaler_v1(struct th_json *hpa)
{
    const struct th_json *annotations = th_json_path(hpa, "metadata.annotations");
    struct th_json *spec = th_json_path_object(hpa, "spec");
    if (!th_json_get(spec, "targetCPUUtilizationPercentage") &&
        !th_json_has(annotations, "autoscaling.alpha.kubernetes.io/metrics")) {
        th_json_set_int(spec, "targetCPUUtilizationPercentage", 80);
    }
}

void th_default_node_status(struct th_json *status)
{
    const struct th_json *capacity = th_json_get(status, "capacity");
    if (!th_json_get(status, "allocatable") && th_json_len(capacity) > 0) {
        th_json_set(status, "allocatable", th_json_dup(capacity));
    }
}

void th_default_limit_range_item(struct th_json *item)
{
    if (!th_streq(th_json_str(th_json_get(item, "type")), "Container")) {
        return;
    }
    static const char *const from_to[][2] = {
        {"max", "default"}, {"default", "defaultRequest"}, {"min", "defaultRequest"}};
    for (size_t i = 0; i < TH_ARRAY_LEN(from_to); i++) {
        const struct th_json *from = th_json_get(item, from_to[i][0]);
        if (th_json_len(from) > 0) {
            fill_missing(th_json_path_object(item, from_to[i][1]), from);
        }
    }
}

/* Labels of the template become the object's own labels when it has none. */
static void labels_from_template(struct th_json *obj)
{
    const struct th_json *labels = th_json_path(obj, "spec.template.metadata.labels");
    if (th_json_len(labels) > 0 && th_json_len(th_json_path(obj, "metadata.labels")) == 0) {
        th_json_path_set(obj, "metadata.labels", th_json_dup(labels));
    }
}

void th_default_replication_controller(struct th_json *rc)
{
    const struct th_json *labels = th_json_path(rc, "spec.template.metadata.labels");
    if (th_json_len(labels) > 0 && th_json_len(th_json_path(rc, "spec.selector")) == 0) {
        th_json_path_set(rc, "spec.selector", th_json_dup(labels));
    }
    labels_from_template(rc);
}

void th_default_stateful_set(struct th_json *set)
{
    struct th_json *claims = th_json_path(set, "spec.volumeClaimTemplates");
    for (size_t i = 0; i < th_json_len(claims); i++) {
        th_json_set_str(th_json_at(claims, i), "kind", "PersistentVolumeClaim");
        th_json_set_str(th_json_at(claims, i), "apiVersion", "v1");
    }
}

void th_default_job(struct th_json *job)
{
    struct th_json *spec = th_json_path_object(job, "spec");
    if (!th_json_get(spec, "completions") && !th_json_get(spec, "parallelism")) {
        th_json_set_int(spec, "completions", 1);
    }
    labels_from_template(job);
}

void th_default_device_taint(struct th_json *taint)
{
    if (!th_json_get(taint, "timeAdded")) {
        char buf[TH_TIME_LEN];
        th_json_set_str(taint, "timeAdded", th_time_format(th_now_ms(), buf));
    }
}

void th_default_custom_resource_definition(struct th_json *crd)
{
    struct th_json *names = th_json_path_object(crd, "spec.names");
    const char *kind = th_json_str(th_json_get(names, "kind"));
    if (kind && *kind && unset(names, "singular")) {
        th_autofree char *lower = th_xstrdup(kind);
        for (char *p = lower; *p; p++) {
            *p = (char)(*p >= 'A' && *p <= 'Z' ? *p + 32 : *p);
        }
        th_json_set_str(names, "singular", lower);
    }
    if (kind && *kind && unset(names, "listKind")) {
        th_json_set(names, "listKind", th_json_stringf("%sList", kind));
    }
    const struct th_json *versions = th_json_path(crd, "spec.versions");
    if (th_json_len(th_json_path(crd, "status.storedVersions")) > 0) {
        return;
    }
    for (size_t i = 0; i < th_json_len(versions); i++) {
        const struct th_json *v = th_json_at(versions, i);
        if (th_json_as_bool(th_json_get(v, "storage"), false)) {
            th_json_append_str(th_json_path_array(crd, "status.storedVersions"),
                               th_json_str(th_json_get(v, "name")));
            return;
        }
    }
}
