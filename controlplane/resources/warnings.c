/* Warnings about what is written, by kind. The rules of pods are warnings_pod.c.
 *
 * A hook here is a row's th_strategy.warn: it runs when an object is valid, before admission has its
 * last word, and not for subresources unless it says so. Controllers are not spared: whoever writes
 * is warned, as upstream. Texts and their order are upstream's, for people search for them.
 * Workloads are looked at again only when an update changed their spec (generation grew).
 */
#include "controlplane/resources/rows.h"
#include "controlplane/resources/warnings.h"

#include "base/encode.h"
#include "base/pki.h"
#include "controlplane/schema/gotext.h"
#include "controlplane/schema/quantity.h"

#include <arpa/inet.h>

void th_warn_at(const struct th_req_ctx *c, const struct th_view *v, const char *member,
                const char *fmt, ...)
{
    if (!c->warnings) {
        return;
    }
    va_list ap;
    va_start(ap, fmt);
    th_autofree char *text = th_xvasprintf(fmt, ap);
    va_end(ap);
    th_autofree char *path = v ? th_view_path(v, member) : NULL;
    th_strv_addf(c->warnings, "%s%s%s", path ? path : "", path ? ": " : "", text);
}

void th_warn_fraction(const struct th_req_ctx *c, const struct th_view *v, const char *member,
                      const char *key)
{
    struct th_view at = th_view_key(v, member, key);
    const char *text = th_json_str(at.obj);
    struct th_quantity q;
    if (text && th_quantity_parse(text, &q, NULL) >= 0 && q.nano % 1000000000 != 0) {
        char shown[TH_QUANTITY_LEN];
        th_warn_at(c, &at, NULL, "fractional byte value \"%s\" is invalid, must be an integer",
                   th_quantity_format(q, shown));
    }
}

void th_warn_claim_spec(const struct th_req_ctx *c, const struct th_view *spec)
{
    th_warn_fraction(c, spec, "resources.requests", "storage");
    th_warn_fraction(c, spec, "resources.limits", "storage");
}

/* ---- addresses that are written in an unusual way ---- */

/* Addresses with leading zeros are refused before (they mean different things to different programs),
 * and so are IPv4 addresses mapped into IPv6: what is left is IPv6 that could be shorter. */
static bool canonical6(const char *ip, char out[INET6_ADDRSTRLEN])
{
    struct in6_addr a;
    if (!strchr(ip, ':') || inet_pton(AF_INET6, ip, &a) != 1 || IN6_IS_ADDR_V4MAPPED(&a)) {
        return false;
    }
    return inet_ntop(AF_INET6, &a, out, INET6_ADDRSTRLEN) && strcmp(out, ip) != 0;
}

void th_warn_ip(const struct th_req_ctx *c, const struct th_view *v, const char *member,
                const char *ip)
{
    char better[INET6_ADDRSTRLEN];
    if (canonical6(ip, better)) {
        th_warn_at(c, v, member,
                   "IPv6 address \"%s\" should be in RFC 5952 canonical format (\"%s\")", ip, better);
    }
}

/* Clears the bits behind the prefix; false when none was set. */
static bool mask(unsigned char *a, unsigned bytes, unsigned prefix)
{
    bool set = false;
    for (unsigned i = 0; i < bytes; i++) {
        unsigned keep = prefix >= 8 * (i + 1) ? 8 : prefix > 8 * i ? prefix - 8 * i : 0;
        unsigned char m = (unsigned char)(0xff00u >> keep);
        set = set || (a[i] & ~m);
        a[i] &= m;
    }
    return set;
}

void th_warn_cidr(const struct th_req_ctx *c, const struct th_view *v, const char *member,
                  const char *cidr)
{
    const char *slash = strchr(cidr, '/');
    th_autofree char *ip = slash ? th_xstrndup(cidr, (size_t)(slash - cidr)) : NULL;
    unsigned char raw[16], net[16];
    int family = ip && strchr(ip, ':') ? AF_INET6 : AF_INET;
    unsigned bytes = family == AF_INET6 ? 16 : 4;
    if (!ip || inet_pton(family, ip, raw) != 1) {
        return;
    }
    unsigned long prefix = strtoul(slash + 1, NULL, 10);
    memcpy(net, raw, sizeof(raw));
    char host[INET6_ADDRSTRLEN], base[INET6_ADDRSTRLEN];
    bool ambiguous = prefix <= 8ul * bytes && mask(net, bytes, (unsigned)prefix);
    if (!inet_ntop(family, raw, host, sizeof(host)) || !inet_ntop(family, net, base, sizeof(base))) {
        return;
    }
    if (ambiguous) {
        th_warn_at(c, v, member,
                   "CIDR value \"%s\" is ambiguous in this context (should be \"%s/%lu\" or "
                   "\"%s/%u\"?)",
                   cidr, base, prefix, host, 8 * bytes);
    } else if (family == AF_INET6 && strcmp(host, ip) != 0) {
        th_warn_at(c, v, member,
                   "IPv6 CIDR value \"%s\" should be in RFC 5952 canonical format (\"%s/%lu\")", cidr,
                   host, prefix);
    }
}

/* ---- pods and what makes them ---- */

static void name_for_pods(const struct th_req_ctx *c, const struct th_view *v, const char *used)
{
    const char *msgs[TH_NAME_MSGS];
    size_t n = th_name_messages(TH_NAME_DNS1123_LABEL, th_view_str(v, "metadata.name"), msgs);
    th_autobuf struct th_buf b = TH_BUF_INIT;
    for (size_t i = 0; i < n; i++) {
        th_buf_printf(&b, "%s%s", i ? " " : "", msgs[i]);
    }
    if (n > 0) {
        th_warn_at(c, v, "metadata.name",
                   "this is used in %s, which can result in surprising behavior; a DNS label is "
                   "recommended: [%s]",
                   used, th_buf_cstr(&b));
    }
}

void th_pod_warn(const struct th_req_ctx *c, const struct th_json *obj, const struct th_json *old)
{
    if (old) {
        return; /* what could be said was said when it was made */
    }
    struct th_view v = TH_VIEW(obj, NULL);
    name_for_pods(c, &v, "the Pod's hostname");
    th_warn_pod_like(c, &v, false);
}

static bool same_generation(const struct th_json *obj, const struct th_json *old)
{
    return old && th_json_path_int(obj, "metadata.generation", 0) ==
                      th_json_path_int(old, "metadata.generation", 0);
}

static void template(const struct th_req_ctx *c, const struct th_view *v, const char *path)
{
    struct th_view t = th_view_at(v, path);
    th_warn_pod_like(c, &t, true);
}

void th_workload_warn(const struct th_req_ctx *c, const struct th_json *obj,
                      const struct th_json *old)
{
    struct th_view v = TH_VIEW(obj, NULL);
    if (!old && !th_streq(c->res->plural, "daemonsets")) {
        name_for_pods(c, &v, "Pod names and hostnames");
    }
    if (!same_generation(obj, old)) {
        template(c, &v, "spec.template");
    }
}

void th_podtemplate_warn(const struct th_req_ctx *c, const struct th_json *obj,
                         const struct th_json *old)
{
    struct th_view v = TH_VIEW(obj, NULL);
    if (!same_generation(obj, old)) {
        template(c, &v, "template");
    }
}

void th_statefulset_warn(const struct th_req_ctx *c, const struct th_json *obj,
                         const struct th_json *old)
{
    struct th_view v = TH_VIEW(obj, NULL);
    if (!same_generation(obj, old)) {
        template(c, &v, "spec.template");
    }
    for (size_t i = 0; i < th_view_len(&v, "spec.volumeClaimTemplates"); i++) {
        struct th_view claim = th_view_item(&v, "spec.volumeClaimTemplates", i);
        struct th_view shown = old ? th_view_at(&claim, "Spec") : claim; /* upstream's path */
        shown.obj = th_json_get(claim.obj, "spec");
        th_warn_claim_spec(c, &shown);
    }
    if (th_view_int(&v, "spec.revisionHistoryLimit", 0) < 0) {
        th_warn_at(c, &v, "spec.revisionHistoryLimit",
                   "a negative value retains all historical revisions; a value >= 0 is recommended");
    }
}

static void job_spec(const struct th_req_ctx *c, const struct th_view *v, const char *path)
{
    struct th_view spec = th_view_at(v, path);
    if (th_view_is(&spec, "completionMode", "Indexed") &&
        th_view_int(&spec, "completions", 0) > 100000 &&
        th_view_int(&spec, "parallelism", 0) > 10000) {
        th_warn_at(c, &spec, NULL,
                   "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism "
                   "higher than 10^4, Kubernetes might not be able to track completedIndexes when a "
                   "big number of indexes fail");
    }
    template(c, &spec, "template");
}

void th_job_warn(const struct th_req_ctx *c, const struct th_json *obj, const struct th_json *old)
{
    struct th_view v = TH_VIEW(obj, NULL);
    if (!old) {
        name_for_pods(c, &v, "Pod names and hostnames");
    }
    if (!same_generation(obj, old)) {
        job_spec(c, &v, "spec");
    }
}

void th_cronjob_warn(const struct th_req_ctx *c, const struct th_json *obj,
                     const struct th_json *old)
{
    struct th_view v = TH_VIEW(obj, NULL);
    if (!old) {
        name_for_pods(c, &v, "Pod names and hostnames");
    }
    if (!same_generation(obj, old)) {
        job_spec(c, &v, "spec.jobTemplate.spec");
    }
    if (old && strstr(th_view_str(&v, "spec.schedule"), "TZ")) {
        th_warn_at(c, NULL, NULL,
                   "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see "
                   "https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more "
                   "details");
    }
}

/* ---- Services and networks ---- */

static void each_ip(const struct th_req_ctx *c, const struct th_view *v, const char *list,
                    const char *member)
{
    for (size_t i = 0; i < th_view_len(v, list); i++) {
        struct th_view item = th_view_item(v, list, i);
        th_warn_ip(c, &item, member, th_view_str(&item, member));
    }
}

static void each_cidr(const struct th_req_ctx *c, const struct th_view *v, const char *list)
{
    for (size_t i = 0; i < th_view_len(v, list); i++) {
        struct th_view item = th_view_item(v, list, i);
        th_warn_cidr(c, &item, NULL, th_view_str(&item, NULL));
    }
}

void th_service_warn(const struct th_req_ctx *c, const struct th_json *obj,
                     const struct th_json *old)
{
    (void)old;
    struct th_view v = TH_VIEW(obj, NULL);
    struct th_view s = th_view_at(&v, "spec");
    const struct th_json *annotations = th_view_get(&v, "metadata.annotations");
    if (th_json_get(annotations, "service.kubernetes.io/topology-aware-hints")) {
        th_warn_at(c, NULL, NULL,
                   "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use "
                   "service.kubernetes.io/topology-mode instead");
    }
    bool external = th_view_is(&s, "type", "ExternalName");
    bool none = th_view_is(&s, "clusterIP", "None");
    bool headless = none && th_view_is(&s, "type", "ClusterIP");
    size_t external_ips = th_view_len(&s, "externalIPs");
    if (!none) {
        each_ip(c, &s, "clusterIPs", NULL);
    }
    if (headless && *th_view_str(&s, "loadBalancerIP")) {
        th_warn_at(c, NULL, NULL, "spec.loadBalancerIP is ignored for headless services");
    }
    if (headless && external_ips > 0) {
        th_warn_at(c, NULL, NULL, "spec.externalIPs is ignored for headless services");
    }
    if (headless && !th_view_is(&s, "sessionAffinity", "None")) {
        th_warn_at(c, NULL, NULL, "spec.SessionAffinity is ignored for headless services");
    }
    each_ip(c, &s, "externalIPs", NULL);
    if (external_ips > 0 && !headless && !external) {
        th_warn_at(c, NULL, NULL,
                   "spec.externalIPs is deprecated and may no longer be implemented in some clusters");
    }
    th_warn_ip(c, &s, "loadBalancerIP", th_view_str(&s, "loadBalancerIP"));
    each_cidr(c, &s, "loadBalancerSourceRanges");
    if (external && external_ips > 0) {
        th_warn_at(c, NULL, NULL,
                   "spec.externalIPs is ignored when spec.type is \"ExternalName\"");
    }
    if (!external && *th_view_str(&s, "externalName")) {
        th_warn_at(c, NULL, NULL,
                   "spec.externalName is ignored when spec.type is not \"ExternalName\"");
    }
    if (th_view_is(&s, "trafficDistribution", "PreferClose")) {
        th_warn_at(c, &s, "trafficDistribution",
                   "\"PreferClose\" is deprecated; use \"PreferSameZone\"");
    }
}

void th_endpoints_warn(const struct th_req_ctx *c, const struct th_json *obj,
                       const struct th_json *old)
{
    (void)old;
    struct th_view v = TH_VIEW(obj, NULL);
    const struct th_json *labels = th_view_get(&v, "metadata.labels");
    if (th_streq(th_json_str(th_json_get(labels, "endpoints.kubernetes.io/managed-by")),
                 "endpoint-controller")) {
        return;
    }
    for (size_t i = 0; i < th_view_len(&v, "subsets"); i++) {
        struct th_view s = th_view_item(&v, "subsets", i);
        each_ip(c, &s, "addresses", "ip");
        each_ip(c, &s, "notReadyAddresses", "ip");
    }
}

void th_slice_warn(const struct th_req_ctx *c, const struct th_json *obj, const struct th_json *old)
{
    struct th_view v = TH_VIEW(obj, NULL);
    if (th_view_is(&v, "addressType", "FQDN")) {
        if (!old) {
            th_warn_at(c, &v, "spec.addressType", "FQDN endpoints are deprecated");
        }
        return;
    }
    for (size_t i = 0; i < th_view_len(&v, "endpoints"); i++) {
        struct th_view e = th_view_item(&v, "endpoints", i);
        each_ip(c, &e, "addresses", NULL);
    }
}

static void peers(const struct th_req_ctx *c, const struct th_view *v, const char *rules,
                  const char *list)
{
    for (size_t i = 0; i < th_view_len(v, rules); i++) {
        struct th_view rule = th_view_item(v, rules, i);
        for (size_t k = 0; k < th_view_len(&rule, list); k++) {
            struct th_view peer = th_view_item(&rule, list, k);
            struct th_view block = th_view_at(&peer, "ipBlock");
            th_warn_cidr(c, &block, "cidr", th_view_str(&block, "cidr"));
            each_cidr(c, &block, "except");
        }
    }
}

void th_networkpolicy_warn(const struct th_req_ctx *c, const struct th_json *obj,
                           const struct th_json *old)
{
    (void)old;
    struct th_view v = TH_VIEW(obj, NULL);
    peers(c, &v, "spec.ingress", "from");
    peers(c, &v, "spec.egress", "to");
}

void th_ingress_warn(const struct th_req_ctx *c, const struct th_json *obj,
                     const struct th_json *old)
{
    const char *key = "kubernetes.io/ingress.class";
    if (!old && !th_json_path(obj, "spec.ingressClassName") &&
        th_json_get(th_json_path(obj, "metadata.annotations"), key)) {
        th_warn_at(c, NULL, NULL,
                   "annotation \"%s\" is deprecated, please use 'spec.ingressClassName' instead",
                   key);
    }
}

/* ---- configuration, identity, nodes ---- */

static char *secret_text(const struct th_json *obj, const char *key)
{
    const char *b64 = th_json_str(th_json_get(th_json_get(obj, "data"), key));
    th_autobuf struct th_buf b = TH_BUF_INIT;
    if (b64 && th_b64_decode(b64, strlen(b64), &b, NULL) >= 0) {
        return th_buf_steal(&b, NULL);
    }
    return NULL;
}

void th_secret_warn(const struct th_req_ctx *c, const struct th_json *obj, const struct th_json *old)
{
    (void)old;
    if (!th_streq(th_json_path_str(obj, "type"), "kubernetes.io/tls")) {
        return;
    }
    th_autofree char *cert = secret_text(obj, "tls.crt");
    th_autofree char *key = secret_text(obj, "tls.key");
    TH_AUTO_ERR struct th_err why = TH_ERR_INIT;
    if (!cert || !strstr(cert, "-----BEGIN CERTIFICATE-----")) {
        th_warn_at(c, NULL, NULL, "tls: failed to find any PEM data in certificate input");
    } else if (!key || !strstr(key, "PRIVATE KEY-----")) {
        th_warn_at(c, NULL, NULL, "tls: failed to find any PEM data in key input");
    } else if (th_pki_check(cert, key, NULL, &why) < 0) {
        th_warn_at(c, NULL, NULL, "%s",
                   why.reason == TH_R_PARSE ? "tls: failed to parse private key"
                                            : "tls: private key does not match public key");
    }
}

void th_serviceaccount_warn(const struct th_req_ctx *c, const struct th_json *obj,
                            const struct th_json *old)
{
    static const char key[] = "kubernetes.io/enforce-mountable-secrets";
    struct th_view v = TH_VIEW(obj, NULL);
    struct th_view at = th_view_key(&v, "metadata.annotations", key);
    bool had = th_json_get(th_json_path(old, "metadata.annotations"), key) != NULL;
    if (at.obj && !had) {
        th_warn_at(c, &at, NULL,
                   "deprecated in v1.32+; prefer separate namespaces to isolate access to mounted "
                   "secrets");
    }
}

void th_node_warn(const struct th_req_ctx *c, const struct th_json *obj, const struct th_json *old)
{
    (void)old;
    struct th_view v = TH_VIEW(obj, NULL);
    if (th_view_has(&v, "spec.configSource")) {
        th_warn_at(c, &v, "spec.configSource", "the feature is removed");
    }
    if (*th_view_str(&v, "spec.externalID")) {
        th_warn_at(c, &v, "spec.externalID",
                   "this field is deprecated, and is unused by Kubernetes");
    }
    each_cidr(c, &v, "spec.podCIDRs");
}

static bool hard(const struct th_json *obj, const char *prefix, const char *name,
                 struct th_quantity *ret)
{
    th_autofree char *key = th_xasprintf("%s%s", prefix, name);
    const char *text = th_json_str(th_json_get(th_json_path(obj, "spec.hard"), key));
    return text && th_quantity_parse(text, ret, NULL) >= 0;
}

void th_quota_warn(const struct th_req_ctx *c, const struct th_json *obj, const struct th_json *old)
{
    static const char *const names[] = {"cpu", "memory", "storage", "ephemeral-storage"};
    for (size_t i = 0; !old && i < TH_ARRAY_LEN(names); i++) {
        struct th_quantity request, limit;
        const char *prefix = "requests.";
        bool have = hard(obj, prefix, names[i], &request);
        if (!have && i < 2) { /* cpu and memory have a bare name too */
            prefix = "";
            have = hard(obj, prefix, names[i], &request);
        }
        if (have && hard(obj, "limits.", names[i], &limit) && th_quantity_cmp(request, limit) > 0) {
            char a[TH_QUANTITY_LEN], b[TH_QUANTITY_LEN];
            th_warn_at(c, NULL, NULL, "ResourceQuota %s%s (%s) should be less than limits.%s (%s)",
                       prefix, names[i], th_quantity_format(request, a), names[i],
                       th_quantity_format(limit, b));
        }
    }
}

void th_runtimeclass_warn(const struct th_req_ctx *c, const struct th_json *obj,
                          const struct th_json *old)
{
    (void)old;
    struct th_view v = TH_VIEW(obj, NULL);
    struct th_json_iter it = TH_JSON_ITER(th_view_get(&v, "scheduling.nodeSelector"));
    while (th_json_next(&it)) {
        const char *why = th_node_label_deprecated(it.name);
        if (why) {
            th_warn_at(c, &v, "scheduling.nodeSelector", "%s", why);
        }
    }
}

/* ---- storage ---- */

static void storage_annotation(const struct th_req_ctx *c, const struct th_view *v, const char *key,
                               const char *text)
{
    struct th_view at = th_view_key(v, "metadata.annotations", key);
    if (at.obj) {
        th_warn_at(c, &at, NULL, "%s", text);
    }
}

#define STORAGE_CLASS_KEY "volume.beta.kubernetes.io/storage-class"
#define STORAGE_CLASS_TEXT "deprecated since v1.8; use \"storageClassName\" attribute instead"

void th_pv_warn(const struct th_req_ctx *c, const struct th_json *obj, const struct th_json *old)
{
    (void)old;
    static const char *const gone[][3] = {
        {"cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"},
        {"photonPersistentDisk", "photonPersistentDisk",
         "deprecated in v1.11, non-functional in v1.16+"},
        {"scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"},
        {"storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"},
        {"glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"},
        {"rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"},
    };
    struct th_view v = TH_VIEW(obj, NULL);
    storage_annotation(c, &v, STORAGE_CLASS_KEY, STORAGE_CLASS_TEXT);
    storage_annotation(c, &v, "volume.beta.kubernetes.io/mount-options",
                       "deprecated since v1.31; use \"mountOptions\" attribute instead");
    if (th_view_is(&v, "spec.persistentVolumeReclaimPolicy", "Recycle")) {
        th_warn_at(c, &v, "spec.persistentVolumeReclaimPolicy",
                   "The Recycle reclaim policy is deprecated. Instead, the recommended approach is to "
                   "use dynamic provisioning.");
    }
    for (size_t i = 0; i < th_view_len(&v, "spec.nodeAffinity.required.nodeSelectorTerms"); i++) {
        struct th_view term = th_view_item(&v, "spec.nodeAffinity.required.nodeSelectorTerms", i);
        th_warn_node_selector_term(c, &term, false);
    }
    struct th_view spec = th_view_at(&v, "spec");
    for (size_t i = 0; i < TH_ARRAY_LEN(gone); i++) {
        if (th_view_has(&spec, gone[i][0])) {
            th_warn_at(c, &spec, gone[i][1], "%s", gone[i][2]);
        }
    }
}

void th_pvc_warn(const struct th_req_ctx *c, const struct th_json *obj, const struct th_json *old)
{
    (void)old;
    struct th_view v = TH_VIEW(obj, NULL);
    storage_annotation(c, &v, STORAGE_CLASS_KEY, STORAGE_CLASS_TEXT);
    struct th_view spec = th_view_at(&v, "spec");
    th_warn_claim_spec(c, &spec);
}

void th_storageclass_warn(const struct th_req_ctx *c, const struct th_json *obj,
                          const struct th_json *old)
{
    (void)old;
    struct th_view v = TH_VIEW(obj, NULL);
    for (size_t i = 0; i < th_view_len(&v, "allowedTopologies"); i++) {
        struct th_view term = th_view_item(&v, "allowedTopologies", i);
        for (size_t k = 0; k < th_view_len(&term, "matchLabelExpressions"); k++) {
            struct th_view e = th_view_item(&term, "matchLabelExpressions", k);
            const char *why = th_node_label_deprecated(th_view_str(&e, "key"));
            if (why) {
                th_warn_at(c, &e, "key", "%s", why);
            }
        }
    }
}

void th_csidriver_warn(const struct th_req_ctx *c, const struct th_json *obj,
                       const struct th_json *old)
{
    const struct th_json *now = th_json_path(obj, "spec.tokenRequests");
    if (th_json_len(now) > 0 && !th_json_path(obj, "spec.serviceAccountTokenInSecrets") &&
        !(old && th_json_equal(now, th_json_path(old, "spec.tokenRequests")))) {
        th_warn_at(c, NULL, NULL,
                   "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set "
                   "to true to prevent possible logging of tokens in volume attributes");
    }
}
