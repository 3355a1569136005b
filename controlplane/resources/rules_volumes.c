/* Rules of volumes, volume sources and claims that a line of rules.tsv cannot say (upstream:
 * pkg/apis/core/validation, validateVolumeSource, ValidatePersistentVolumeSpec and -ClaimSpec). */
#include "controlplane/resources/rules.h"

#include "base/buf.h"
#include "controlplane/schema/quantity.h"

/* Members of v that are volume sources: objects that are not among `others` (A|B). The first may
 * stand; upstream looks in its own order, which is that of the type's fields. */
static void check_one_source(const struct th_view *v, const char *others)
{
    size_t n = 0;
    struct th_json_iter it = TH_JSON_ITER(v->obj);
    while (th_json_next(&it)) {
        if (it.value && th_json_is(it.value, TH_JSON_OBJECT) && !th_word_in(it.name, others) &&
            n++ > 0) {
            th_bad_forbidden(v, it.name, "may not specify more than 1 volume type");
        }
    }
    if (n == 0) {
        th_bad_required(v, NULL, "must specify a volume type");
    }
}

static const char *pod_name(const struct th_view *v)
{
    const struct th_view *top = th_view_top(v);
    return th_view_is(top, "kind", "Pod") ? th_view_str(top, "metadata.name") : "";
}

void th_rule_volume(const struct th_view *v)
{
    const char *name = th_view_str(v, "name"), *pod = pod_name(v);
    const char *size = th_view_str(v, "emptyDir.sizeLimit");
    struct th_quantity q;
    if (*size && th_quantity_parse(size, &q, NULL) == 0 && q.nano < 0) {
        th_bad_forbidden(v, "emptyDir.sizeLimit", "SizeLimit field must be a valid resource quantity");
    }
    check_one_source(v, "name");
    if (!*name) {
        th_bad_required(v, "name", "");
    } else {
        (void)th_check_format(v, "name", name, TH_NAME_DNS1123_LABEL);
    }
    const struct th_json *all = th_view_get(v->up, v->member);
    for (size_t i = 0; i < v->index; i++) {
        const char *other = th_json_path_str(th_json_at(all, i), "name");
        if (th_streq(other ? other : "", name)) {
            th_bad_duplicate(v, "name", name);
            break;
        }
    }
    if (th_view_has(v, "ephemeral") && *pod && *name) {
        th_autofree char *made = th_xasprintf("%s-%s", pod, name);
        const char *msgs[TH_NAME_MSGS];
        size_t n = th_name_messages(TH_NAME_DNS1123_SUBDOMAIN, made, msgs);
        for (size_t i = 0; i < n; i++) {
            th_autofree char *why = th_xasprintf("PVC name \"%s\": %s", made, msgs[i]);
            th_bad_str(v, "name", name, why);
        }
    }
    const char *claim = th_view_str(v, "persistentVolumeClaim.claimName");
    for (size_t i = 0; *pod && *claim && i < th_json_len(all); i++) {
        const struct th_json *o = th_json_at(all, i);
        th_autofree char *made = th_xasprintf("%s-%s", pod, th_json_path_str(o, "name"));
        if (th_json_get(o, "ephemeral") && th_streq(made, claim)) {
            th_bad_str(v, "persistentVolumeClaim.claimName", claim,
                       "must not reference a PVC that gets created for an ephemeral volume");
        }
    }
}

void th_rule_key_to_path(const struct th_view *v)
{
    th_check_non_reserved(v, "path", th_view_str(v, "path"));
}

void th_rule_host_path(const struct th_view *v)
{
    const char *path = th_view_str(v, "path"), *type = th_view_str(v, "type");
    if (!*path) {
        th_bad_required(v, "path", "");
        return;
    }
    th_check_no_backsteps(v, "path", path);
    static const char types[] = "BlockDevice|CharDevice|Directory|DirectoryOrCreate|File|FileOrCreate|"
                                "Socket";
    if (*type && !th_word_in(type, types)) {
        th_autofree char *all = th_xasprintf("|%s", types);
        th_bad_unsupported(v, "type", type, all);
    }
}

void th_rule_nfs(const struct th_view *v)
{
    const char *path = th_view_str(v, "path");
    if (!*th_view_str(v, "server")) {
        th_bad_required(v, "server", "");
    }
    if (!*path) {
        th_bad_required(v, "path", "");
    }
    if (*path != '/') {
        th_bad_str(v, "path", path, "must be an absolute path");
    }
}

void th_rule_iscsi(const struct th_view *v)
{
    int64_t lun = th_view_int(v, "lun", 0);
    const char *iqn = th_view_str(v, "iqn");
    if (!*th_view_str(v, "targetPortal")) {
        th_bad_required(v, "targetPortal", "");
    }
    if (!*iqn) {
        th_bad_required(v, "iqn", "");
    } else if (!th_startswith(iqn, "iqn") && !th_startswith(iqn, "eui") &&
               !th_startswith(iqn, "naa")) {
        th_bad_str(v, "iqn", iqn, "must be valid format starting with iqn, eui, or naa");
    }
    if (lun < 0 || lun > 255) {
        th_bad_int(v, "lun", lun, "must be between 0 and 255, inclusive");
    }
    if ((th_view_bool(v, "chapAuthDiscovery") || th_view_bool(v, "chapAuthSession")) &&
        !th_view_has(v, "secretRef")) {
        th_bad_required(v, "secretRef", "");
    }
}

void th_rule_fc(const struct th_view *v)
{
    size_t wwns = th_view_len(v, "targetWWNs"), wwids = th_view_len(v, "wwids");
    if (wwns == 0 && wwids == 0) {
        th_bad_required(v, "targetWWNs", "must specify either targetWWNs or wwids, but not both");
    }
    if (wwns && wwids) {
        th_bad_value(v, "targetWWNs", "targetWWNs and wwids can not be specified simultaneously");
    }
    int64_t lun = th_view_int(v, "lun", 0);
    if (wwns && !th_view_has(v, "lun")) {
        th_bad_required(v, "lun", "lun is required if targetWWNs is specified");
    } else if (wwns && (lun < 0 || lun > 255)) {
        th_bad_int(v, "lun", lun, "must be between 0 and 255, inclusive");
    }
}

void th_rule_flocker(const struct th_view *v)
{
    const char *name = th_view_str(v, "datasetName"), *uuid = th_view_str(v, "datasetUUID");
    if (!*name && !*uuid) {
        th_bad_required(v, NULL, "one of datasetName and datasetUUID is required");
    }
    if (*name && *uuid) {
        th_bad_str(v, NULL, "resource",
                   "datasetName and datasetUUID can not be specified simultaneously");
    }
    if (strchr(name, '/')) {
        th_bad_str(v, "datasetName", name, "must not contain '/'");
    }
}

void th_rule_secret_ref(const struct th_view *v)
{
    struct th_view ref = th_view_at(v, "secretRef");
    bool persistent = th_streq(v->up->member, "spec") && th_view_has(v->up, "capacity");
    if (!ref.obj) {
        return;
    }
    if (!*th_view_str(&ref, "name")) {
        th_bad_required(&ref, "name", "");
    }
    if (persistent && !*th_view_str(&ref, "namespace")) {
        th_bad_required(&ref, "namespace", "");
    }
}

void th_rule_flex_options(const struct th_view *v)
{
    struct th_json_iter it = TH_JSON_ITER(th_view_get(v, "options"));
    while (th_json_next(&it)) {
        th_autofree char *ns = th_xasprintf(".%.*s", (int)strcspn(it.name, "/"), it.name);
        for (char *p = ns; *p; p++) {
            *p = (char)(*p >= 'A' && *p <= 'Z' ? *p + 32 : *p);
        }
        if (th_endswith(ns, ".kubernetes.io") || th_endswith(ns, ".k8s.io")) {
            struct th_view at = th_view_key(v, "options", it.name);
            th_bad_str(&at, NULL, it.name, "kubernetes.io and k8s.io namespaces are reserved");
        }
    }
}

void th_rule_azure_disk(const struct th_view *v)
{
    const char *uri = th_view_str(v, "diskURI"), *kind = th_view_str(v, "kind");
    const char *caching = th_view_str(v, "cachingMode");
    if (!*th_view_str(v, "diskName")) {
        th_bad_required(v, "diskName", "");
    }
    if (!*uri) {
        th_bad_required(v, "diskURI", "");
    }
    if (th_view_has(v, "cachingMode")) {
        (void)th_check_one_of(v, "cachingMode", caching, "None|ReadOnly|ReadWrite");
    }
    if (!th_view_has(v, "kind")) {
        return;
    }
    (void)th_check_one_of(v, "kind", kind, "Dedicated|Managed|Shared");
    bool managed = th_streq(kind, "Managed");
    if (managed && !th_startswith(uri, "/subscriptions/")) {
        th_bad_unsupported(v, "diskURI", uri,
                           "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/"
                           "microsoft.compute/disks/{disk-id}");
    }
    if (!managed && !th_startswith(uri, "https://")) {
        th_bad_unsupported(
            v, "diskURI", uri,
            "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd");
    }
}

/* ---- CSI ---- */

static void check_lower_subdomain(const struct th_view *v, const char *member, const char *name)
{
    th_autofree char *lower = th_xstrdup(name);
    for (char *p = lower; *p; p++) {
        *p = (char)(*p >= 'A' && *p <= 'Z' ? *p + 32 : *p);
    }
    const char *msgs[TH_NAME_MSGS];
    size_t n = th_name_messages(TH_NAME_DNS1123_SUBDOMAIN, lower, msgs);
    for (size_t i = 0; i < n; i++) {
        th_bad_str(v, member, name, msgs[i]);
    }
}

void th_check_driver_name(const struct th_view *v, const char *member)
{
    const char *name = th_view_str(v, member);
    if (!*name) {
        th_bad_required(v, member, "");
        return;
    }
    if (strlen(name) > 63) {
        th_bad_too_long(v, member, 63);
    }
    check_lower_subdomain(v, member, name);
}

void th_rule_csi_driver_name(const struct th_view *v)
{
    th_check_driver_name(v, "driver");
}

void th_rule_csi_inline(const struct th_view *v)
{
    const char *name = th_view_str(v, "nodePublishSecretRef.name");
    if (th_view_has(v, "nodePublishSecretRef") && !*name) {
        th_bad_required(v, "nodePublishSecretRef.name", "");
    } else if (*name) {
        (void)th_check_format(v, "name", name, TH_NAME_DNS1123_SUBDOMAIN);
    }
}

void th_rule_csi_secrets(const struct th_view *v)
{
    static const char *const refs[] = {"controllerPublishSecretRef", "controllerExpandSecretRef",
                                       "nodePublishSecretRef", "nodeExpandSecretRef"};
    for (size_t i = 0; i < TH_ARRAY_LEN(refs); i++) {
        struct th_view r = th_view_at(v, refs[i]);
        if (!r.obj) {
            continue;
        }
        const char *name = th_view_str(&r, "name"), *ns = th_view_str(&r, "namespace");
        if (!*name) {
            th_bad_required(&r, "name", "");
        } else {
            (void)th_check_format(&r, "name", name, TH_NAME_DNS1123_SUBDOMAIN);
        }
        if (!*ns) {
            th_bad_required(&r, "namespace", "");
        } else {
            (void)th_check_format(&r, "namespace", ns, TH_NAME_DNS1123_LABEL);
        }
    }
}

void th_rule_image_volume(const struct th_view *v)
{
    const char *policy = th_view_str(v, "pullPolicy");
    if (th_view_is(th_view_top(v), "kind", "Pod") && !*th_view_str(v, "reference")) {
        th_bad_required(v, "reference", "");
    }
    if (!*policy) {
        th_bad_required(v, "pullPolicy", "");
    } else {
        (void)th_check_one_of(v, "pullPolicy", policy, "Always|IfNotPresent|Never");
    }
}

/* ---- Projected ---- */

/* Notes a path that a source writes; two of the same are an error of the whole volume, which names
 * `shown` (upstream shows the source's name for some, the path for others). */
static void note_path(const struct th_view *v, struct th_strv *seen, const char *path,
                      const char *shown)
{
    if (!*path) {
        return;
    }
    if (th_strv_has(seen, path)) {
        th_bad_str(v, NULL, shown, "conflicting duplicate paths");
    } else {
        th_strv_add(seen, path);
    }
}

static void check_token(const struct th_view *v, const struct th_view *src)
{
    struct th_view t = th_view_at(src, "serviceAccountToken");
    if (!t.obj) {
        return;
    }
    int64_t seconds = th_view_int(&t, "expirationSeconds", 3600);
    if (seconds < 600) {
        th_bad_int(&t, "expirationSeconds", seconds,
                   "may not specify a duration less than 10 minutes");
    }
    if (seconds > (1ll << 32)) {
        th_bad_int(&t, "expirationSeconds", seconds,
                   "may not specify a duration larger than 2^32 seconds");
    }
    const char *path = th_view_str(&t, "path");
    if (!*path) {
        th_bad_required(v, "path", "");
    } else {
        th_check_non_reserved(v, "path", path);
    }
}

static void check_bundle(const struct th_view *v, const struct th_view *src, struct th_strv *seen)
{
    struct th_view b = th_view_at(src, "clusterTrustBundle");
    if (!b.obj) {
        return;
    }
    bool name = th_view_has(&b, "name"), signer = th_view_has(&b, "signerName");
    if (name && signer) {
        th_bad_value(&b, NULL, "only one of name and signerName may be used");
    } else if (name) {
        if (!*th_view_str(&b, "name")) {
            th_bad_required(&b, "name", "must be a valid object name");
        }
        if (th_view_has(&b, "labelSelector")) {
            th_bad_value(&b, "labelSelector", "labelSelector must be unset if name is specified");
        }
    } else if (signer) {
        if (!*th_view_str(&b, "signerName")) {
            th_bad_required(&b, "signerName", "must be a valid signer name");
        }
    } else {
        th_bad_required(&b, NULL, "either name or signerName must be specified");
    }
    const char *path = th_view_str(&b, "path");
    if (!*path) {
        th_bad_required(&b, "path", "");
    }
    th_check_non_reserved(&b, "path", path);
    note_path(v, seen, path, path);
}

void th_rule_projected(const struct th_view *v)
{
    static const char *const lists[] = {"secret", "configMap", "downwardAPI"};
    th_autostrv struct th_strv seen = TH_STRV_INIT;
    for (size_t i = 0; i < th_view_len(v, "sources"); i++) {
        struct th_view src = th_view_item(v, "sources", i);
        size_t n = 0;
        struct th_json_iter it = TH_JSON_ITER(src.obj);
        while (th_json_next(&it)) {
            n += it.value != NULL;
        }
        for (size_t l = 0; l < TH_ARRAY_LEN(lists); l++) {
            struct th_view s = th_view_at(&src, lists[l]);
            const struct th_json *items = th_json_get(s.obj, "items");
            for (size_t k = 0; k < th_json_len(items); k++) {
                const char *path = th_json_path_str(th_json_at(items, k), "path");
                path = path ? path : "";
                note_path(v, &seen, path, l == 2 ? path : th_view_str(&s, "name"));
            }
        }
        check_token(v, &src);
        check_bundle(v, &src, &seen);
        if (n > 1) {
            th_bad_forbidden(&src, NULL, "may not specify more than 1 volume type per source");
        }
    }
}

/* ---- Claims ---- */

static void check_access_modes(const struct th_view *v)
{
    static const char modes[] = "ReadOnlyMany|ReadWriteMany|ReadWriteOnce|ReadWriteOncePod";
    bool once_pod = false, others = false;
    for (size_t i = 0; i < th_view_len(v, "accessModes"); i++) {
        const char *m = th_json_str(th_json_at(th_view_get(v, "accessModes"), i));
        m = m ? m : "";
        if (!th_check_one_of(v, "accessModes", m, modes)) {
            continue;
        }
        once_pod = once_pod || th_streq(m, "ReadWriteOncePod");
        others = others || !th_streq(m, "ReadWriteOncePod");
    }
    if (once_pod && others) {
        th_bad_forbidden(v, "accessModes",
                         "may not use ReadWriteOncePod with other access modes");
    }
}

static void check_storage(const struct th_view *v)
{
    struct th_quantity q;
    const char *text = th_view_str(v, "resources.requests.storage");
    if (!*text) {
        th_bad_required(v, "resources[storage]", "");
    } else if (th_quantity_parse(text, &q, NULL) == 0 && q.nano <= 0) {
        th_bad_str(v, "resources[storage]", text, "must be greater than zero");
    }
}

static void check_source(const struct th_view *v, const char *member)
{
    struct th_view s = th_view_at(v, member);
    const char *group = th_view_str(&s, "apiGroup");
    if (!s.obj) {
        return;
    }
    static const char *const needed[] = {"name", "kind"};
    for (size_t i = 0; i < TH_ARRAY_LEN(needed); i++) {
        if (!*th_view_str(&s, needed[i])) {
            th_bad_required(&s, needed[i], "");
        }
    }
    if (!*group && !th_view_is(&s, "kind", "PersistentVolumeClaim")) {
        th_bad_str(&s, NULL, th_view_str(&s, "kind"),
                   "must be 'PersistentVolumeClaim' when referencing the default apiGroup");
    } else if (*group) {
        (void)th_check_format(&s, "apiGroup", group, TH_NAME_DNS1123_SUBDOMAIN);
    }
    const char *ns = th_view_str(&s, "namespace");
    if (*ns) {
        (void)th_check_format(&s, "namespace", ns, TH_NAME_DNS1123_LABEL);
    }
}

void th_rule_claim_spec(const struct th_view *v)
{
    if (th_view_len(v, "accessModes") == 0) {
        th_bad_required(v, "accessModes", "at least 1 access mode is required");
    }
    check_access_modes(v);
    check_storage(v);
    static const char *const classes[] = {"storageClassName", "volumeAttributesClassName"};
    for (size_t i = 0; i < TH_ARRAY_LEN(classes); i++) {
        const char *name = th_view_str(v, classes[i]);
        if (*name) {
            (void)th_check_format(v, classes[i], name, TH_NAME_DNS1123_SUBDOMAIN);
        }
    }
    if (th_view_has(v, "volumeMode")) {
        (void)th_check_one_of(v, "volumeMode", th_view_str(v, "volumeMode"), "Block|Filesystem");
    }
    check_source(v, "dataSource");
    check_source(v, "dataSourceRef");
}

/* Only labels and annotations mean something in a template of a claim. */
void th_rule_claim_template(const struct th_view *v)
{
    th_check_annotations(v, "metadata.annotations");
    th_check_labels(v, "metadata.labels");
    struct th_view meta = th_view_at(v, "metadata");
    struct th_json_iter it = TH_JSON_ITER(meta.obj);
    while (th_json_next(&it)) {
        if (it.value && !th_word_in(it.name, "labels|annotations")) {
            th_bad_forbidden(&meta, it.name, "cannot be set");
        }
    }
}

static void check_capacity(const struct th_view *v)
{
    const struct th_json *capacity = th_view_get(v, "capacity");
    if (th_json_len(capacity) == 0) {
        th_bad_required(v, "capacity", "");
    }
    if (!th_json_has(capacity, "storage") || th_json_len(capacity) > 1) {
        th_autofree char *path = th_view_path(v, "capacity");
        th_autofree char *shown = capacity ? th_json_to_string(capacity) : th_xstrdup("null");
        th_err_add_cause(v->err, "FieldValueNotSupported", path,
                         "Unsupported value: %s: supported values: \"storage\"", shown);
    }
    struct th_json_iter it = TH_JSON_ITER(capacity);
    while (th_json_next(&it)) {
        struct th_view at = th_view_key(v, "capacity", it.name);
        struct th_quantity q;
        const char *text = th_json_str(it.value);
        if (text && th_quantity_parse(text, &q, NULL) == 0 && q.nano <= 0) {
            th_bad_str(&at, NULL, text, "must be greater than zero");
        }
    }
}

void th_rule_volume_spec(const struct th_view *v)
{
    if (th_view_len(v, "accessModes") == 0) {
        th_bad_required(v, "accessModes", "");
    }
    check_access_modes(v);
    check_capacity(v);
    const char *reclaim = th_view_str(v, "persistentVolumeReclaimPolicy");
    if (*reclaim) {
        (void)th_check_one_of(v, "persistentVolumeReclaimPolicy", reclaim, "Delete|Recycle|Retain");
    }
    if (th_view_has(v, "nodeAffinity") && !th_view_has(v, "nodeAffinity.required")) {
        th_bad_required(v, "nodeAffinity.required", "must specify required node constraints");
    }
    check_one_source(v, "capacity|claimRef|nodeAffinity|accessModes|mountOptions");
    if (th_view_has(v, "local") && !th_view_has(v, "nodeAffinity")) {
        th_bad_required(v, "nodeAffinity", "Local volume requires node affinity");
    }
    if (th_view_is(v, "hostPath.path", "/") && th_streq(reclaim, "Recycle")) {
        th_bad_forbidden(v, "persistentVolumeReclaimPolicy",
                         "may not be 'recycle' for a hostPath mount of '/'");
    }
    const char *class = th_view_str(v, "storageClassName");
    if (*class) {
        (void)th_check_format(v, "storageClassName", class, TH_NAME_DNS1123_SUBDOMAIN);
    }
    if (th_view_has(v, "volumeMode")) {
        (void)th_check_one_of(v, "volumeMode", th_view_str(v, "volumeMode"), "Block|Filesystem");
    }
    const char *attributes = th_view_str(v, "volumeAttributesClassName");
    if (!th_view_has(v, "volumeAttributesClassName")) {
        return;
    }
    if (!*attributes) {
        th_bad_required(v, "volumeAttributesClassName", "an empty string is disallowed");
    } else {
        (void)th_check_format(v, "volumeAttributesClassName", attributes, TH_NAME_DNS1123_SUBDOMAIN);
    }
    if (!th_view_has(v, "csi")) {
        th_bad_required(v, "csi", "has to be specified when using volumeAttributesClassName");
    }
}
