/* NodeRestriction: a node's agent writes what is its node's and nothing else.
 *
 * The Node authorizer lets agents write pods, nodes, leases and tokens because it cannot see what is
 * inside; this plugin can. A node makes only mirror pods of itself that lead to no other object,
 * changes the status of pods that run on it, evicts and deletes those, keeps its own Node without
 * touching taints, owners or labels that schedulers steer by, holds its own Lease and CSINode, and asks
 * for tokens bound to its own pods for the audiences that they name. Whoever is no node passes. */
#include "controlplane/api/admission/admission.h"

#include "base/encode.h"
#include "base/pki.h"

#define MIRROR "kubernetes.io/config.mirror"

struct ask { /* one write by a node */
    struct th_call *c;
    const char *node;
    const struct th_json *obj, *old; /* old NULL on create, obj NULL on delete */
    struct th_err *err;
};

static int no(const struct ask *a, const char *fmt, ...) TH_PRINTF(2, 3);
static int no(const struct ask *a, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    th_autofree char *why = th_xvasprintf(fmt, ap);
    va_end(ap);
    const char *name = a->c->route.name ? a->c->route.name : th_json_path_str(a->obj, "metadata.name");
    return th_fail_forbidden(a->err, a->c->res, name, "%s", why);
}

static struct th_json *load(const struct ask *a, const char *plural, const char *ns,
                            const char *name)
{
    th_autofree char *key = th_xasprintf("core/%s/%s/%s", plural, ns ? ns : "-", name);
    TH_AUTO(th_obj) struct th_obj *o = th_store_get(a->c->api->store, key);
    struct th_json *tree = NULL;
    return o && th_json_parse(o->bytes, o->n, NULL, &tree, NULL) >= 0 ? tree : NULL;
}

static bool is(const struct th_json *o, const char *path, const char *value)
{
    return th_streq(th_json_path_str(o, path), value);
}

/* ---- pods ---- */

static int check_owner(const struct ask *a)
{
    const struct th_json *owners = th_json_path(a->obj, "metadata.ownerReferences");
    if (th_json_len(owners) > 1) {
        return no(a, "node \"%s\" can only create pods with a single owner reference set to itself",
                  a->node);
    }
    const struct th_json *o = th_json_at(owners, 0);
    if (!o || !is(o, "apiVersion", "v1") || !is(o, "kind", "Node") || !is(o, "name", a->node)) {
        return no(a, "node \"%s\" can only create pods with an owner reference set to itself", a->node);
    }
    if (!th_json_path_bool(o, "controller", false)) {
        return no(a, "node \"%s\" can only create pods with a controller owner reference set to itself",
                  a->node);
    }
    if (th_json_path_bool(o, "blockOwnerDeletion", false)) {
        return no(a, "node \"%s\" must not set blockOwnerDeletion on an owner reference", a->node);
    }
    TH_AUTO(th_json) struct th_json *node = load(a, "nodes", NULL, a->node);
    if (!node) {
        return th_fail_obj(a->err, TH_R_NOT_FOUND, "", "nodes", a->node, "node \"%s\" not found",
                           a->node);
    }
    const char *uid = th_json_path_str(o, "uid");
    const char *real = th_json_path_str(node, "metadata.uid");
    return th_streq(uid, real) ? 0
                               : no(a, "node %s UID mismatch: expected %s got %s", a->node,
                                    uid ? uid : "", real ? real : "");
}

/* "secrets", ... when something in this list of containers or volumes leads there. */
static const char *reference_of(const struct th_json *x)
{
    static const struct {
        const char *member, *what;
    } direct[] = {{"secret", "secrets"},
                  {"configMap", "configmaps"},
                  {"persistentVolumeClaim", "persistentvolumeclaims"},
                  {"secretRef", "secrets"},
                  {"configMapRef", "configmaps"},
                  {"clusterTrustBundle", "clustertrustbundles"},
                  {"nodePublishSecretRef", "secrets"}};
    for (size_t i = 0; i < TH_ARRAY_LEN(direct); i++) {
        if (th_json_get(x, direct[i].member)) {
            return direct[i].what;
        }
    }
    return th_json_path(x, "valueFrom.secretKeyRef")      ? "secrets"
           : th_json_path(x, "valueFrom.configMapKeyRef") ? "configmaps"
           : th_json_path(x, "csi.nodePublishSecretRef")  ? "secrets"
                                                          : NULL;
}

static const char *reference_in(const struct th_json *list)
{
    for (size_t i = 0; i < th_json_len(list); i++) {
        const char *what = reference_of(th_json_at(list, i));
        if (!what) {
            what = reference_in(th_json_path(th_json_at(list, i), "projected.sources"));
        }
        if (what) {
            return what;
        }
    }
    return NULL;
}

static const char *pod_reference(const struct th_json *pod)
{
    static const char *const lists[] = {"spec.containers", "spec.initContainers",
                                        "spec.ephemeralContainers"};
    const char *what = th_json_len(th_json_path(pod, "spec.imagePullSecrets")) > 0
                           ? "secrets"
                           : reference_in(th_json_path(pod, "spec.volumes"));
    for (size_t l = 0; l < TH_ARRAY_LEN(lists) && !what; l++) {
        const struct th_json *cts = th_json_path(pod, lists[l]);
        for (size_t i = 0; i < th_json_len(cts) && !what; i++) {
            what = reference_in(th_json_get(th_json_at(cts, i), "env"));
            what = what ? what : reference_in(th_json_get(th_json_at(cts, i), "envFrom"));
        }
    }
    return what;
}

static int pod_create(const struct ask *a)
{
    if (!th_json_has(th_json_path(a->obj, "metadata.annotations"), MIRROR)) {
        return no(a, "pod does not have \"" MIRROR "\" annotation, node \"%s\" can only create mirror "
                     "pods",
                  a->node);
    }
    if (!is(a->obj, "spec.nodeName", a->node)) {
        return no(a, "node \"%s\" can only create pods with spec.nodeName set to itself", a->node);
    }
    TH_TRY(check_owner(a));
    const char *sa = th_json_path_str(a->obj, "spec.serviceAccountName");
    if (sa && *sa) {
        return no(a, "node \"%s\" can not create pods that reference a service account", a->node);
    }
    const char *what = pod_reference(a->obj);
    return what ? no(a, "node \"%s\" can not create pods that reference %s", a->node, what) : 0;
}

static int pod_status(const struct ask *a)
{
    if (!is(a->old, "spec.nodeName", a->node)) {
        return no(a, "node \"%s\" can only update pod status for pods with spec.nodeName set to itself",
                  a->node);
    }
    if (!th_json_equal(th_json_path(a->old, "metadata.labels"),
                       th_json_path(a->obj, "metadata.labels"))) {
        return no(a, "node \"%s\" cannot update labels through pod status", a->node);
    }
    if (!th_json_equal(th_json_path(a->old, "status.resourceClaimStatuses"),
                       th_json_path(a->obj, "status.resourceClaimStatuses"))) {
        return no(a, "node \"%s\" cannot update resource claim statues", a->node);
    }
    return 0;
}

static int own_pod(const struct ask *a, const char *name, const char *verb, const char *quote)
{
    TH_AUTO(th_json) struct th_json *pod = load(a, "pods", a->c->route.ns, name);
    if (!pod) {
        return th_fail_not_found(a->err, a->c->res, name);
    }
    return is(pod, "spec.nodeName", a->node)
               ? 0
               : no(a, "node %s%s%s can only %s pods with spec.nodeName set to itself", quote, a->node,
                    quote, verb);
}

static int pods(const struct ask *a, const char *sub)
{
    if (!sub) {
        return !a->old ? pod_create(a)
                       : no(a,
                            "unexpected operation \"UPDATE\", node \"%s\" can only create and delete "
                            "mirror pods",
                            a->node);
    }
    if (th_streq(sub, "status")) {
        return pod_status(a);
    }
    if (th_streq(sub, "eviction")) {
        return own_pod(a, a->c->route.name, "evict", "");
    }
    return no(a, "unexpected pod subresource \"%s\", only 'status' and 'eviction' are allowed", sub);
}

/* ---- nodes ---- */

static bool in_domain(const char *domain, size_t n, const char *suffix)
{
    size_t m = strlen(suffix);
    return n >= m && memcmp(domain + n - m, suffix, m) == 0 && (n == m || domain[n - m - 1] == '.');
}

static bool is_forbidden_label(const char *key)
{
    static const char *const own[] = {"kubernetes.io/hostname",
                                      "topology.kubernetes.io/zone",
                                      "topology.kubernetes.io/region",
                                      "failure-domain.beta.kubernetes.io/zone",
                                      "failure-domain.beta.kubernetes.io/region",
                                      "beta.kubernetes.io/instance-type",
                                      "node.kubernetes.io/instance-type",
                                      "kubernetes.io/os",
                                      "kubernetes.io/arch",
                                      "beta.kubernetes.io/os",
                                      "beta.kubernetes.io/arch"};
    const char *slash = strchr(key, '/');
    size_t n = slash ? (size_t)(slash - key) : 0;
    if (in_domain(key, n, "node-restriction.kubernetes.io")) {
        return true;
    }
    if (!in_domain(key, n, "kubernetes.io") && !in_domain(key, n, "k8s.io")) {
        return false;
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(own); i++) {
        if (th_streq(own[i], key)) {
            return false;
        }
    }
    return !in_domain(key, n, "kubelet.kubernetes.io") && !in_domain(key, n, "node.kubernetes.io");
}

static void add_changed(const struct th_json *a, const struct th_json *b, struct th_strv *to)
{
    struct th_json_iter it = TH_JSON_ITER(a);
    while (th_json_next(&it)) {
        if (!th_json_equal(it.value, th_json_get(b, it.name)) && is_forbidden_label(it.name) &&
            !th_strv_has(to, it.name)) {
            th_strv_add(to, it.name);
        }
    }
}

static int nodes(const struct ask *a)
{
    const char *name = a->c->route.name ? a->c->route.name : th_json_path_str(a->obj, "metadata.name");
    if (!th_streq(name, a->node)) {
        return no(a, "node \"%s\" is not allowed to modify node \"%s\"", a->node, name ? name : "");
    }
    const struct th_json *config = th_json_path(a->obj, "spec.configSource");
    if (config && !th_json_equal(config, th_json_path(a->old, "spec.configSource"))) {
        return a->old ? no(a, "node \"%s\" is not allowed to update configSource to a new non-nil "
                              "configSource",
                           a->node)
                      : no(a, "node \"%s\" is not allowed to create pods with a non-nil configSource",
                           a->node);
    }
    static const char *const kept[] = {"spec.taints", "metadata.ownerReferences"};
    for (size_t i = 0; a->old && i < TH_ARRAY_LEN(kept); i++) {
        if (!th_json_equal(th_json_path(a->obj, kept[i]), th_json_path(a->old, kept[i]))) {
            return no(a, "node \"%s\" is not allowed to modify %s", a->node, strchr(kept[i], '.') + 1);
        }
    }
    th_autostrv struct th_strv bad = TH_STRV_INIT;
    const struct th_json *now = th_json_path(a->obj, "metadata.labels");
    const struct th_json *before = th_json_path(a->old, "metadata.labels");
    add_changed(now, before, &bad);
    add_changed(before, now, &bad);
    if (bad.n == 0) {
        return 0;
    }
    th_strv_sort(&bad);
    th_autofree char *list = th_strv_join(&bad, ", ");
    return a->old ? no(a, "is not allowed to modify labels: %s", list)
                  : no(a, "node \"%s\" is not allowed to set the following labels: %s", a->node, list);
}

/* ---- the rest ---- */

static int claim_status(const struct ask *a)
{
    TH_AUTO(th_json) struct th_json *x = th_json_dup(a->obj);
    TH_AUTO(th_json) struct th_json *y = th_json_dup(a->old);
    static const char *const free_fields[] = {
        "metadata.resourceVersion", "metadata.managedFields",   "status.capacity",
        "status.conditions",        "status.allocatedResources", "status.allocatedResourceStatuses"};
    for (size_t i = 0; i < TH_ARRAY_LEN(free_fields); i++) {
        (void)th_json_path_del(x, free_fields[i]);
        (void)th_json_path_del(y, free_fields[i]);
    }
    return th_json_equal(x, y) ? 0
                               : no(a,
                                    "node \"%s\" is not allowed to update fields other than "
                                    "status.quantity and status.conditions",
                                    a->node);
}

/* A projected volume of the pod names this audience ("" is the API server's own). */
static bool names_audience(const struct th_json *pod, const char *audience)
{
    const struct th_json *volumes = th_json_path(pod, "spec.volumes");
    for (size_t i = 0; i < th_json_len(volumes); i++) {
        const struct th_json *s = th_json_path(th_json_at(volumes, i), "projected.sources");
        for (size_t k = 0; k < th_json_len(s); k++) {
            const struct th_json *t = th_json_get(th_json_at(s, k), "serviceAccountToken");
            const char *has = th_json_path_str(t, "audience");
            if (t && th_streq(has ? has : "", audience)) {
                return true;
            }
        }
    }
    return false;
}

static int check_audience(const struct ask *a, const struct th_json *pod)
{
    const struct th_json *list = th_json_path(a->obj, "spec.audiences");
    if (th_json_len(list) > 1) {
        return no(a, "node may only request 0 or 1 audiences");
    }
    const char *audience = th_json_len(list) == 1 ? th_json_str(th_json_at(list, 0)) : "";
    audience = audience ? audience : "";
    struct th_attrs at = {.id = a->c->req->id,
                          .verb = "request-serviceaccounts-token-audience",
                          .resource = true,
                          .group = "",
                          .version = "v1",
                          .plural = audience,
                          .ns = a->c->route.ns,
                          .name = a->c->route.name};
    if (names_audience(pod, audience) || th_authz_allowed(a->c->api->authz, &at, NULL)) {
        return 0;
    }
    return no(a,
              "audience \"%s\" not found in pod spec volume, %s is not authorized to request tokens "
              "for this audience",
              audience, a->c->req->id->user);
}

static int token(const struct ask *a)
{
    const struct th_json *ref = th_json_path(a->obj, "spec.boundObjectRef");
    const char *name = th_json_path_str(ref, "name");
    const char *uid = th_json_path_str(ref, "uid");
    if (!ref || !is(ref, "apiVersion", "v1") || !is(ref, "kind", "Pod") || !name || !*name) {
        return no(a, "node requested token not bound to a pod");
    }
    if (!uid || !*uid) {
        return no(a, "node requested token with a pod binding without a uid");
    }
    TH_AUTO(th_json) struct th_json *pod = load(a, "pods", a->c->route.ns, name);
    if (!pod) {
        return th_fail_obj(a->err, TH_R_NOT_FOUND, "", "pods", name, "pod \"%s\" not found", name);
    }
    if (!is(pod, "metadata.uid", uid)) {
        return no(a,
                  "the UID in the bound object reference (%s) does not match the UID in record. The "
                  "object might have been deleted and then recreated",
                  uid);
    }
    if (!is(pod, "spec.nodeName", a->node)) {
        return no(a, "node requested token bound to a pod scheduled on a different node");
    }
    return check_audience(a, pod);
}

static int lease(const struct ask *a)
{
    if (!th_streq(a->c->route.ns, "kube-node-lease")) {
        return no(a, "can only access leases in the \"kube-node-lease\" system namespace");
    }
    const char *name = a->c->route.name ? a->c->route.name : th_json_path_str(a->obj, "metadata.name");
    return th_streq(name, a->node)
               ? 0
               : no(a, "can only access node lease with the same name as the requesting node");
}

static int csinode(const struct ask *a)
{
    const char *name = a->c->route.name ? a->c->route.name : th_json_path_str(a->obj, "metadata.name");
    return th_streq(name, a->node)
               ? 0
               : no(a, "can only access CSINode with the same name as the requesting node");
}

static int slice(const struct ask *a)
{
    const char *of = th_json_path_str(a->old ? a->old : a->obj, "spec.nodeName");
    return th_streq(of, a->node) ? 0 : no(a, "can only %s ResourceSlice with the same NodeName as the "
                                             "requesting node",
                                          a->old ? "update" : "create");
}

static int request(const struct ask *a)
{
    const char *signer = th_json_path_str(a->obj, "spec.signerName");
    if (a->old || (!th_streq(signer, "kubernetes.io/kubelet-serving") &&
                   !th_streq(signer, "kubernetes.io/kube-apiserver-client-kubelet"))) {
        return 0;
    }
    const char *packed = th_json_path_str(a->obj, "spec.request");
    th_autobuf struct th_buf pem = TH_BUF_INIT;
    TH_CLEANUP(th_pki_request_done) struct th_pki_request r = {.common_name = NULL};
    TH_AUTO_ERR struct th_err why = TH_ERR_INIT;
    if (!packed || th_b64_decode(packed, strlen(packed), &pem, &why) < 0 ||
        th_pki_request_parse(th_buf_cstr(&pem), &r, &why) < 0) {
        return no(a, "unable to parse csr: %s", why.msg ? why.msg : "");
    }
    return th_streq(r.common_name, a->c->req->id->user)
               ? 0
               : no(a, "can only create a node CSR with CN=%s", a->c->req->id->user);
}

static int mutate(struct th_call *c, struct th_json *obj, const struct th_json *old,
                  struct th_err *err)
{
    static const struct {
        const char *group, *plural;
        int (*fn)(const struct ask *a);
    } kinds[] = {{"", "nodes", nodes},
                 {"coordination.k8s.io", "leases", lease},
                 {"storage.k8s.io", "csinodes", csinode},
                 {"resource.k8s.io", "resourceslices", slice},
                 {"certificates.k8s.io", "certificatesigningrequests", request}};
    const char *node = th_identity_node(c->req->id);
    if (!node) {
        return 0;
    }
    struct ask a = {c, node, obj, old, err};
    const char *sub = c->sub ? c->sub->name : NULL;
    if (!*node) {
        return no(&a, "could not determine node from user \"%s\"", c->req->id->user);
    }
    if (!*c->res->group && th_streq(c->res->plural, "pods")) {
        return pods(&a, sub);
    }
    if (!*c->res->group && th_streq(c->res->plural, "persistentvolumeclaims")) {
        return th_streq(sub, "status") ? claim_status(&a) : no(&a, "may only update PVC status");
    }
    if (!*c->res->group && th_streq(c->res->plural, "serviceaccounts")) {
        return th_streq(sub, "token") ? token(&a) : 0;
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(kinds); i++) {
        if (th_streq(c->res->group, kinds[i].group) && th_streq(c->res->plural, kinds[i].plural)) {
            return kinds[i].fn(&a);
        }
    }
    return 0;
}

static int on_delete(struct th_call *c, const char *name, struct th_err *err)
{
    const char *node = th_identity_node(c->req->id);
    if (!node || *c->res->group) {
        return 0;
    }
    struct ask a = {c, node, NULL, NULL, err};
    if (th_streq(c->res->plural, "pods")) {
        return own_pod(&a, name, "delete", "\"");
    }
    if (th_streq(c->res->plural, "nodes") && !th_streq(name, node)) {
        return no(&a, "node \"%s\" is not allowed to modify node \"%s\"", node, name);
    }
    return 0;
}

const struct th_admission_plugin th_admission_node_restriction = {
    .name = "NodeRestriction", .mutate = mutate, .on_delete = on_delete};
