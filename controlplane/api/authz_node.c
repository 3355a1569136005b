/* What a node's agent may do: the Node authorizer.
 *
 * Kinds that belong to nobody in particular are judged by the rules of the role system:node. Those
 * that may hold others' secrets are allowed only when a pod on that node leads to them: a pod's
 * Secrets, ConfigMaps, claims and ServiceAccount, a claim's volume, a volume's Secrets.
 *
 * Upstream keeps a graph of all that, fed by informers. Here the store is in memory and its objects
 * are text, so the relation is looked up when it is asked for: the pods of one namespace are scanned
 * for the node's name and the wanted name as bytes, and only those that have both are parsed. A node
 * asks when it starts a pod, some requests a second at most; a scan of a thousand pods costs less
 * than a millisecond, and there is nothing to keep consistent.
 */
#include "controlplane/api/rbac.h"

static bool is(const struct th_attrs *at, const char *group, const char *plural)
{
    return strcmp(at->group, group) == 0 && strcmp(at->plural, plural) == 0;
}

static bool one_of(const char *s, const char *const *list)
{
    for (; *list; list++) {
        if (strcmp(s, *list) == 0) {
            return true;
        }
    }
    return false;
}

static const char *const reads[] = {"get", "list", "watch", NULL};
static const char *const own_verbs[] = {"get", "create", "update", "patch", "delete", NULL};

static bool say(struct th_buf *reason, const char *fmt, ...) TH_PRINTF(2, 3);
static bool say(struct th_buf *reason, const char *fmt, ...)
{
    if (reason) {
        va_list ap;
        va_start(ap, fmt);
        th_buf_vprintf(reason, fmt, ap);
        va_end(ap);
    }
    return false;
}

static bool selects(const struct th_attrs *at, const char *field, const char *node)
{
    struct th_fieldsel f = {.n = 0};
    if (!at->field_selector || th_fieldsel_parse(at->field_selector, &f, NULL) < 0) {
        return false;
    }
    bool found = false;
    for (size_t i = 0; i < f.n; i++) {
        found = found || (!f.terms[i].negate && th_streq(f.terms[i].field, field) &&
                          th_streq(f.terms[i].value, node));
    }
    th_fieldsel_done(&f);
    return found;
}

/* ---- what a pod leads to ---- */

enum target { POD, SECRET, CONFIGMAP, CLAIM, ACCOUNT };

static bool named(const struct th_json *o, const char *path, const char *name)
{
    return th_streq(th_json_path_str(o, path), name);
}

static bool container_uses(const struct th_json *ct, enum target t, const char *name)
{
    bool secret = t == SECRET;
    const struct th_json *from = th_json_get(ct, "envFrom");
    for (size_t i = 0; i < th_json_len(from); i++) {
        if (named(th_json_at(from, i), secret ? "secretRef.name" : "configMapRef.name", name)) {
            return true;
        }
    }
    const struct th_json *env = th_json_get(ct, "env");
    for (size_t i = 0; i < th_json_len(env); i++) {
        if (named(th_json_at(env, i),
                  secret ? "valueFrom.secretKeyRef.name" : "valueFrom.configMapKeyRef.name", name)) {
            return true;
        }
    }
    return false;
}

static bool volume_uses(const struct th_json *pod, const struct th_json *v, enum target t,
                        const char *name)
{
    static const char *const secrets[] = {
        "secret.secretName",         "azureFile.secretName",      "cephfs.secretRef.name",
        "cinder.secretRef.name",     "csi.nodePublishSecretRef.name", "flexVolume.secretRef.name",
        "iscsi.secretRef.name",      "rbd.secretRef.name",        "scaleIO.secretRef.name",
        "storageos.secretRef.name"};
    if (t == CLAIM) {
        th_autofree char *made =
            th_json_get(v, "ephemeral")
                ? th_xasprintf("%s-%s", th_json_path_str(pod, "metadata.name"),
                               th_json_path_str(v, "name"))
                : NULL;
        return named(v, "persistentVolumeClaim.claimName", name) || th_streq(made, name);
    }
    if (t == CONFIGMAP && named(v, "configMap.name", name)) {
        return true;
    }
    for (size_t i = 0; t == SECRET && i < TH_ARRAY_LEN(secrets); i++) {
        if (named(v, secrets[i], name)) {
            return true;
        }
    }
    const struct th_json *sources = th_json_path(v, "projected.sources");
    for (size_t i = 0; i < th_json_len(sources); i++) {
        if (named(th_json_at(sources, i), t == SECRET ? "secret.name" : "configMap.name", name)) {
            return true;
        }
    }
    return false;
}

static bool pod_uses(const struct th_json *pod, enum target t, const char *name)
{
    if (t == POD) {
        return named(pod, "metadata.name", name);
    }
    /* a node makes mirror pods itself: they lead nowhere */
    if (th_json_get(th_json_path(pod, "metadata.annotations"), "kubernetes.io/config.mirror")) {
        return false;
    }
    if (t == ACCOUNT) {
        return named(pod, "spec.serviceAccountName", name);
    }
    const struct th_json *volumes = th_json_path(pod, "spec.volumes");
    for (size_t i = 0; i < th_json_len(volumes); i++) {
        if (volume_uses(pod, th_json_at(volumes, i), t, name)) {
            return true;
        }
    }
    if (t == CLAIM) {
        return false;
    }
    static const char *const lists[] = {"spec.containers", "spec.initContainers",
                                        "spec.ephemeralContainers"};
    for (size_t l = 0; l < TH_ARRAY_LEN(lists); l++) {
        const struct th_json *list = th_json_path(pod, lists[l]);
        for (size_t i = 0; i < th_json_len(list); i++) {
            if (container_uses(th_json_at(list, i), t, name)) {
                return true;
            }
        }
    }
    const struct th_json *pull = th_json_path(pod, "spec.imagePullSecrets");
    for (size_t i = 0; t == SECRET && i < th_json_len(pull); i++) {
        if (named(th_json_at(pull, i), "name", name)) {
            return true;
        }
    }
    return false;
}

static bool mentions(const struct th_obj *o, const char *text)
{
    return memmem(o->bytes, o->n, text, strlen(text)) != NULL;
}

static bool pod_leads(struct th_store *store, const char *node, const char *ns, enum target t,
                      const char *name)
{
    TH_CLEANUP(th_store_list_done) struct th_store_list l = {.n = 0};
    th_autofree char *prefix =
        t == POD ? th_xasprintf("core/pods/%s/%s", ns, name) : th_xasprintf("core/pods/%s/", ns);
    th_autofree char *there = th_xasprintf("\"nodeName\":\"%s\"", node);
    /* the name of a generic ephemeral volume's claim is put together of two */
    const char *needle = t == CLAIM ? "\"volumes\"" : name;
    if (th_store_range(store, prefix, NULL, 0, 0, &l, NULL) < 0) {
        return false;
    }
    for (size_t i = 0; i < l.n; i++) {
        TH_AUTO(th_json) struct th_json *pod = NULL;
        if (mentions(l.objs[i], there) && mentions(l.objs[i], needle) &&
            th_json_parse(l.objs[i]->bytes, l.objs[i]->n, NULL, &pod, NULL) >= 0 &&
            named(pod, "spec.nodeName", node) && pod_uses(pod, t, name)) {
            return true;
        }
    }
    return false;
}

static struct th_json *volume(struct th_store *store, const char *name)
{
    th_autofree char *key = th_xasprintf("core/persistentvolumes/-/%s", name);
    TH_AUTO(th_obj) struct th_obj *o = th_store_get(store, key);
    struct th_json *pv = NULL;
    return o && th_json_parse(o->bytes, o->n, NULL, &pv, NULL) >= 0 ? pv : NULL;
}

static bool volume_leads(struct th_store *store, const char *node, const struct th_json *pv)
{
    const char *ns = th_json_path_str(pv, "spec.claimRef.namespace");
    const char *claim = th_json_path_str(pv, "spec.claimRef.name");
    return ns && claim && pod_leads(store, node, ns, CLAIM, claim);
}

/* A Secret that a volume needs to be mounted. */
static bool volumes_lead(struct th_store *store, const char *node, const char *ns, const char *name)
{
    TH_CLEANUP(th_store_list_done) struct th_store_list l = {.n = 0};
    if (th_store_range(store, "core/persistentvolumes/", NULL, 0, 0, &l, NULL) < 0) {
        return false;
    }
    static const char *const refs[] = {"spec.csi.nodePublishSecretRef", "spec.csi.nodeStageSecretRef",
                                       "spec.csi.nodeExpandSecretRef",  "spec.iscsi.secretRef",
                                       "spec.rbd.secretRef",            "spec.cephfs.secretRef",
                                       "spec.flexVolume.secretRef"};
    for (size_t i = 0; i < l.n; i++) {
        TH_AUTO(th_json) struct th_json *pv = NULL;
        if (!mentions(l.objs[i], name) ||
            th_json_parse(l.objs[i]->bytes, l.objs[i]->n, NULL, &pv, NULL) < 0) {
            continue;
        }
        for (size_t k = 0; k < TH_ARRAY_LEN(refs); k++) {
            const struct th_json *ref = th_json_path(pv, refs[k]);
            const char *in = th_json_path_str(ref, "namespace");
            in = in && *in ? in : th_json_path_str(pv, "spec.claimRef.namespace");
            if (named(ref, "name", name) && th_streq(in, ns) && volume_leads(store, node, pv)) {
                return true;
            }
        }
    }
    return false;
}

/* ---- kind by kind ---- */

static bool unrelated(struct th_buf *reason, const char *node)
{
    return say(reason, "no relationship found between node '%s' and this object", node);
}

static bool related(struct th_store *store, const char *node, enum target t,
                    const struct th_attrs *at, struct th_buf *reason)
{
    if (!at->name || !*at->name) {
        return say(reason, "No Object name found");
    }
    const char *ns = at->ns ? at->ns : "";
    return pod_leads(store, node, ns, t, at->name) ||
           (t == SECRET && volumes_lead(store, node, ns, at->name)) || unrelated(reason, node);
}

static bool single_get(const struct th_attrs *at, struct th_buf *reason)
{
    if (!th_streq(at->verb, "get")) {
        return say(reason, "can only get individual resources of this type");
    }
    return !at->sub || !*at->sub || say(reason, "cannot get subresource");
}

static bool object_read(struct th_store *store, const char *node, enum target t,
                        const struct th_attrs *at, struct th_buf *reason)
{
    if (!one_of(at->verb, reads)) {
        return say(reason, "can only read resources of this type");
    }
    if (at->sub && *at->sub) {
        return say(reason, "cannot read subresource");
    }
    if (!at->ns || !*at->ns) {
        return say(reason, "can only read namespaced object of this type");
    }
    return related(store, node, t, at, reason);
}

static bool claim(struct th_store *store, const char *node, const struct th_attrs *at,
                  struct th_buf *reason)
{
    if (th_streq(at->sub, "status")) {
        return th_streq(at->verb, "update") || th_streq(at->verb, "patch")
                   ? related(store, node, CLAIM, at, reason)
                   : say(reason, "can only get/update/patch this type");
    }
    return single_get(at, reason) && related(store, node, CLAIM, at, reason);
}

static bool persistent_volume(struct th_store *store, const char *node, const struct th_attrs *at,
                              struct th_buf *reason)
{
    if (!single_get(at, reason)) {
        return false;
    }
    TH_AUTO(th_json) struct th_json *pv = at->name ? volume(store, at->name) : NULL;
    return (pv && volume_leads(store, node, pv)) || unrelated(reason, node);
}

static bool attachment(struct th_store *store, const char *node, const struct th_attrs *at,
                       struct th_buf *reason)
{
    if (!single_get(at, reason)) {
        return false;
    }
    th_autofree char *key =
        th_xasprintf("storage.k8s.io/volumeattachments/-/%s", at->name ? at->name : "");
    TH_AUTO(th_obj) struct th_obj *o = th_store_get(store, key);
    TH_AUTO(th_json) struct th_json *va = NULL;
    return (o && th_json_parse(o->bytes, o->n, NULL, &va, NULL) >= 0 &&
            named(va, "spec.nodeName", node)) ||
           unrelated(reason, node);
}

static bool account(struct th_store *store, const char *node, const struct th_attrs *at,
                    struct th_buf *reason)
{
    if (th_streq(at->verb, "get") && (!at->sub || !*at->sub)) {
        return related(store, node, ACCOUNT, at, reason);
    }
    if (!th_streq(at->verb, "create") || !at->name || !*at->name) {
        return say(reason, "can only create tokens for individual service accounts");
    }
    if (!th_streq(at->sub, "token")) {
        return say(reason, "can only create token subresource of serviceaccount");
    }
    return related(store, node, ACCOUNT, at, reason);
}

static bool own(const char *node, const struct th_attrs *at, const char *what, const char *article,
                struct th_buf *reason)
{
    if (!one_of(at->verb, own_verbs)) {
        return say(reason, "can only get, create, update, patch, or delete a %s", article);
    }
    /* on create the name is not known here: NodeRestriction looks at it */
    if (!th_streq(at->verb, "create") && !th_streq(at->name, node)) {
        return say(reason, "can only access %s with the same name as the requesting node", what);
    }
    return true;
}

static bool lease(const char *node, const struct th_attrs *at, struct th_buf *reason)
{
    if (one_of(at->verb, own_verbs) && !th_streq(at->ns, "kube-node-lease")) {
        return say(reason, "can only access leases in the \"kube-node-lease\" system namespace");
    }
    return own(node, at, "node lease", "node lease", reason);
}

static bool node_object(const char *node, const struct th_attrs *at, struct th_buf *reason)
{
    static const char *const writes[] = {"create", "update", "patch", NULL};
    bool sub = at->sub && *at->sub;
    if (th_streq(at->sub, "status")) {
        return th_streq(at->verb, "update") || th_streq(at->verb, "patch");
    }
    if (sub || (!one_of(at->verb, writes) && !one_of(at->verb, reads))) {
        return false;
    }
    if (one_of(at->verb, writes) || th_streq(at->name, node)) {
        return true;
    }
    if (!at->name || !*at->name) {
        return say(reason, "node '%s' cannot read all nodes, only its own Node object", node);
    }
    return say(reason, "node '%s' cannot read '%s', only its own Node object", node, at->name);
}

static bool pod(struct th_store *store, const char *node, const struct th_attrs *at,
                struct th_buf *reason)
{
    if (th_streq(at->sub, "status")) {
        return th_streq(at->verb, "update") || th_streq(at->verb, "patch");
    }
    if (th_streq(at->sub, "eviction")) {
        return th_streq(at->verb, "create");
    }
    if (at->sub && *at->sub) {
        return false;
    }
    if (th_streq(at->verb, "get")) {
        return related(store, node, POD, at, reason);
    }
    if (th_streq(at->verb, "list") || th_streq(at->verb, "watch")) {
        if (selects(at, "spec.nodeName", node)) {
            return true;
        }
        return at->name && *at->name
                   ? related(store, node, POD, at, reason)
                   : say(reason, "can only list/watch pods with spec.nodeName field selector");
    }
    return th_streq(at->verb, "create") || th_streq(at->verb, "delete");
}

bool th_node_allowed(struct th_store *store, const char *node, const struct th_rules *rules,
                     const struct th_attrs *at, struct th_buf *reason)
{
    if (!*node) {
        return say(reason, "unknown node for user \"%s\"", at->id->user);
    }
    if (!at->resource) {
        return th_rules_allow(rules, at);
    }
    if (is(at, "", "secrets")) {
        return object_read(store, node, SECRET, at, reason);
    }
    if (is(at, "", "configmaps")) {
        return object_read(store, node, CONFIGMAP, at, reason);
    }
    if (is(at, "", "persistentvolumeclaims")) {
        return claim(store, node, at, reason);
    }
    if (is(at, "", "persistentvolumes")) {
        return persistent_volume(store, node, at, reason);
    }
    if (is(at, "storage.k8s.io", "volumeattachments")) {
        return attachment(store, node, at, reason);
    }
    if (is(at, "", "serviceaccounts")) {
        return account(store, node, at, reason);
    }
    if (is(at, "coordination.k8s.io", "leases")) {
        return lease(node, at, reason);
    }
    if (is(at, "storage.k8s.io", "csinodes")) {
        return own(node, at, "CSINode", "CSINode", reason);
    }
    if (is(at, "", "nodes")) {
        return node_object(node, at, reason);
    }
    if (is(at, "", "pods")) {
        return pod(store, node, at, reason);
    }
    return th_rules_allow(rules, at);
}
