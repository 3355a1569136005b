/* Rules of a PodSpec and of pod templates that a line of rules.tsv cannot say (upstream:
 * pkg/apis/core/validation, ValidatePodSpec and what it calls).
 *
 * Where upstream's answer depends on what the PodSpec is part of (hostPorts may be left out in a
 * template, not in a Pod), the top of the chain of views tells.
 */
#include "controlplane/resources/rules.h"

#include "base/buf.h"
#include "controlplane/schema/selector.h"

static bool in_pod(const struct th_view *v)
{
    return th_streq(th_json_path_str(th_view_top(v)->obj, "kind"), "Pod");
}

void th_rule_pod_template(const struct th_view *v)
{
    struct th_view meta = th_view_at(v, "metadata");
    meta.member = NULL; /* upstream's paths leave metadata out */
    th_check_labels(&meta, "labels");
    th_check_annotations(&meta, "annotations");
    if (th_view_len(v, "spec.ephemeralContainers") > 0) {
        th_bad_forbidden(v, "spec.ephemeralContainers",
                         "ephemeral containers not allowed in pod template");
    }
}

/* ---- Ports of the host ---- */

/* Adds "TCP/ip/80" of every host port of one container; false ones are duplicates. */
static void note_host_ports(const struct th_view *list, size_t i, struct th_strv *seen)
{
    const struct th_view ctr = th_view_item(list->up, list->member, i);
    for (size_t k = 0; k < th_view_len(&ctr, "ports"); k++) {
        struct th_view p = th_view_item(&ctr, "ports", k);
        int64_t port = th_view_int(&p, "hostPort", 0);
        if (port == 0) {
            continue;
        }
        th_autofree char *id = th_xasprintf("%s/%s/%lld", th_view_str(&p, "protocol"),
                                            th_view_str(&p, "hostIP"), (long long)port);
        if (th_strv_has(seen, id)) {
            th_bad_duplicate(&p, "hostPort", id);
        } else {
            th_strv_add(seen, id);
        }
    }
}

static void check_host_ports(const struct th_view *v)
{
    struct th_view list = th_view_at(v, "containers");
    th_autostrv struct th_strv seen = TH_STRV_INIT;
    bool host = th_view_bool(v, "hostNetwork");
    for (size_t i = 0; i < th_json_len(list.obj); i++) {
        note_host_ports(&list, i, &seen);
        struct th_view ctr = th_view_item(v, "containers", i);
        for (size_t k = 0; host && k < th_view_len(&ctr, "ports"); k++) {
            struct th_view p = th_view_item(&ctr, "ports", k);
            int64_t hp = th_view_int(&p, "hostPort", 0), cp = th_view_int(&p, "containerPort", 0);
            if ((hp != 0 || in_pod(v)) && hp != cp) {
                th_bad_int(&p, "hostPort", hp,
                           "must match `containerPort` when `hostNetwork` is true");
            }
        }
    }
    struct th_view init = th_view_at(v, "initContainers");
    for (size_t i = 0; i < th_json_len(init.obj); i++) {
        th_autostrv struct th_strv own = TH_STRV_INIT;
        note_host_ports(&init, i, &own);
    }
}

/* ---- Names of containers ---- */

static void check_names(const struct th_view *v)
{
    static const char *const lists[] = {"containers", "initContainers", "ephemeralContainers"};
    th_autostrv struct th_strv seen = TH_STRV_INIT, others = TH_STRV_INIT;
    for (size_t l = 0; l < TH_ARRAY_LEN(lists); l++) {
        for (size_t i = 0; i < th_view_len(v, lists[l]); i++) {
            struct th_view c = th_view_item(v, lists[l], i);
            const char *name = th_view_str(&c, "name");
            if (th_strv_has(&seen, name)) {
                th_bad_duplicate(&c, "name", name);
            } else if (*name || l != 1) {
                th_strv_add(&seen, name);
            }
            const char *target = th_view_str(&c, "targetContainerName");
            if (l < 2) {
                th_strv_add(&others, name);
            } else if (*target && !th_strv_has(&others, target)) {
                th_bad_not_found(&c, "targetContainerName", target);
            }
        }
    }
}

/* ---- The spec itself ---- */

static void check_dns(const struct th_view *v)
{
    const char *policy = th_view_str(v, "dnsPolicy");
    if (!*policy) {
        th_bad_required(v, "dnsPolicy", "");
    } else {
        (void)th_check_one_of(v, "dnsPolicy", policy,
                              "ClusterFirstWithHostNet|ClusterFirst|Default|None");
    }
    if (!th_streq(policy, "None")) {
        return;
    }
    if (!th_view_has(v, "dnsConfig")) {
        th_bad_required(v, "dnsConfig", "must provide `dnsConfig` when `dnsPolicy` is None");
    } else if (th_view_len(v, "dnsConfig.nameservers") == 0) {
        th_bad_required(v, "dnsConfig.nameservers",
                        "must provide at least one DNS nameserver when `dnsPolicy` is None");
    }
}

static void check_host_users(const struct th_view *v)
{
    if (!th_view_has(v, "hostUsers") || th_view_bool(v, "hostUsers")) {
        return;
    }
    static const char *const members[][2] = {
        {"hostNetwork", "hostNetwork"}, {"hostPID", "HostPID"}, {"hostIPC", "HostIPC"}};
    for (size_t i = 0; i < TH_ARRAY_LEN(members); i++) {
        if (th_view_bool(v, members[i][0])) {
            th_bad_forbidden(v, members[i][1], "when `hostUsers` is false");
        }
    }
    static const char *const lists[] = {"initContainers", "containers", "ephemeralContainers"};
    for (size_t l = 0; l < TH_ARRAY_LEN(lists); l++) {
        for (size_t i = 0; i < th_view_len(v, lists[l]); i++) {
            struct th_view c = th_view_item(v, lists[l], i);
            if (th_view_len(&c, "volumeDevices") > 0) {
                th_bad_forbidden(&c, "volumeDevices", "when `hostUsers` is false");
            }
        }
    }
}

static void check_host_name(const struct th_view *v)
{
    if (!th_view_has(v, "hostnameOverride")) {
        return;
    }
    if (th_view_bool(v, "setHostnameAsFQDN")) {
        th_bad_forbidden(v, "hostnameOverride",
                         "may not be specified when setHostnameAsFQDN is true");
    }
    if (th_view_bool(v, "hostNetwork")) {
        th_bad_forbidden(v, "hostnameOverride", "may not be specified when hostNetwork is true");
    }
    const char *name = th_view_str(v, "hostnameOverride");
    if (strlen(name) > 64) {
        th_bad_too_long(v, "hostnameOverride", 64);
    }
    (void)th_check_format(v, "hostnameOverride", name, TH_NAME_DNS1123_SUBDOMAIN);
}

/* FileKeyRef reads a file of an emptyDir. */
static void check_file_keys(const struct th_view *v, const char *list)
{
    for (size_t i = 0; i < th_view_len(v, list); i++) {
        struct th_view c = th_view_item(v, list, i);
        for (size_t k = 0; k < th_view_len(&c, "env"); k++) {
            struct th_view e = th_view_item(&c, "env", k);
            struct th_view ref = th_view_at(&e, "valueFrom.fileKeyRef");
            const char *name = th_view_str(&ref, "volumeName");
            const struct th_json *volume = NULL, *all = th_view_get(v, "volumes");
            for (size_t n = 0; ref.obj && n < th_json_len(all); n++) {
                if (th_streq(th_json_path_str(th_json_at(all, n), "name"), name)) {
                    volume = th_json_at(all, n);
                }
            }
            if (ref.obj && !volume) {
                th_bad_not_found(&ref, "volumeName", name);
            } else if (ref.obj && !th_json_get(volume, "emptyDir")) {
                th_bad_str(&ref, "volumeName", name, "referenced volume must be of type emptyDir");
            }
        }
    }
}

static void check_only_in_pods(const struct th_view *v)
{
    static const char *const lists[] = {"containers", "initContainers"};
    for (size_t l = 0; l < TH_ARRAY_LEN(lists); l++) {
        for (size_t i = 0; i < th_view_len(v, lists[l]); i++) {
            struct th_view c = th_view_item(v, lists[l], i);
            const char *image = th_view_str(&c, "image");
            size_t n = strlen(image);
            if (n && (strchr(" \t\n\r", image[0]) || strchr(" \t\n\r", image[n - 1]))) {
                th_bad_str(&c, "image", image, "must not have leading or trailing whitespace");
            }
        }
    }
    if (*th_view_str(v, "serviceAccountName")) {
        return;
    }
    for (size_t i = 0; i < th_view_len(v, "volumes"); i++) {
        struct th_view vol = th_view_item(v, "volumes", i);
        for (size_t k = 0; k < th_view_len(&vol, "projected.sources"); k++) {
            struct th_view src = th_view_item(&vol, "projected.sources", k);
            if (th_view_has(&src, "serviceAccountToken")) {
                th_bad_forbidden(&src, "serviceAccountToken",
                                 "must not be specified when serviceAccountName is not set");
            }
        }
    }
}

void th_rule_pod_spec(const struct th_view *v)
{
    if (th_view_len(v, "containers") == 0) {
        th_bad_required(v, "containers", "");
    }
    check_names(v);
    check_host_ports(v);
    const char *restart = th_view_str(v, "restartPolicy");
    if (!*restart) {
        th_bad_required(v, "restartPolicy", "");
    } else {
        (void)th_check_one_of(v, "restartPolicy", restart, "Always|OnFailure|Never");
    }
    check_dns(v);
    if (th_view_bool(v, "shareProcessNamespace") && th_view_bool(v, "hostPID")) {
        struct th_view sc = th_view_at(v, "securityContext");
        TH_AUTO(th_json) struct th_json *yes = th_json_bool(true);
        th_bad_json(&sc, "shareProcessNamespace", yes,
                    "ShareProcessNamespace and HostPID cannot both be enabled");
    }
    check_host_users(v);
    check_host_name(v);
    if (th_view_has(v, "os")) {
        const char *os = th_view_str(v, "os.name");
        if (!*os) {
            th_bad_required(v, "os.name", "");
        } else {
            (void)th_check_one_of(v, "os", os, "linux|windows");
        }
    }
    static const char *const lists[] = {"containers", "initContainers", "ephemeralContainers"};
    for (size_t l = 0; l < TH_ARRAY_LEN(lists); l++) {
        check_file_keys(v, lists[l]);
    }
    if (in_pod(v)) {
        check_only_in_pods(v);
    }
}

void th_rule_scheduling_gate(const struct th_view *v)
{
    const char *name = th_view_str(v, "name");
    const struct th_json *all = th_view_get(v->up, v->member);
    (void)th_check_format(v, NULL, name, TH_NAME_QUALIFIED);
    for (size_t i = 0; i < v->index; i++) {
        if (th_streq(th_json_path_str(th_json_at(all, i), "name"), name)) {
            th_bad_duplicate(v, NULL, name);
            return;
        }
    }
}

void th_rule_dns_config(const struct th_view *v)
{
    size_t n = th_view_len(v, "nameservers"), chars = 0;
    if (n > 3) {
        th_bad_value(v, "nameservers", "must not have more than 3 nameservers");
    }
    for (size_t i = 0; i < n; i++) {
        struct th_view ns = th_view_item(v, "nameservers", i);
        (void)th_check_format(&ns, NULL, th_view_str(&ns, NULL), TH_NAME_IP);
    }
    n = th_view_len(v, "searches");
    if (n > 32) {
        th_bad_value(v, "searches", "must not have more than 32 search paths");
    }
    for (size_t i = 0; i < n; i++) {
        struct th_view s = th_view_item(v, "searches", i);
        th_autofree char *name = th_xstrdup(th_view_str(&s, NULL));
        size_t len = strlen(name);
        chars += len + (i ? 1 : 0);
        if (th_streq(name, ".")) {
            continue;
        }
        if (len && name[len - 1] == '.') {
            name[len - 1] = '\0';
        }
        (void)th_check_format(&s, NULL, name, TH_NAME_DNS1123_SUBDOMAIN_UNDERSCORE);
    }
    if (chars > 2048) {
        th_bad_value(v, "searches",
                     "must not have more than 2048 characters (including spaces) in the search list");
    }
    for (size_t i = 0; i < th_view_len(v, "options"); i++) {
        struct th_view o = th_view_item(v, "options", i);
        if (!*th_view_str(&o, "name")) {
            th_bad_required(&o, NULL, "must not be empty");
        }
    }
}

void th_rule_pod_resource_claim(const struct th_view *v)
{
    static const char *const names[] = {"resourceClaimName", "resourceClaimTemplateName"};
    const char *name = th_view_str(v, "name");
    if (!*name) {
        th_bad_required(v, "name", "");
    } else {
        (void)th_check_format(v, "name", name, TH_NAME_DNS1123_LABEL);
    }
    bool a = th_view_has(v, names[0]), b = th_view_has(v, names[1]);
    TH_AUTO(th_json) struct th_json *shown = th_json_build(
        "{'Name':%s,'ResourceClaimName':%s,'ResourceClaimTemplateName':%s}", name,
        a ? th_view_str(v, names[0]) : NULL, b ? th_view_str(v, names[1]) : NULL);
    if (a && b) {
        th_bad_json(v, NULL, shown, "at most one of `resourceClaimName` or `resourceClaimTemplateName` may "
                              "be specified");
    }
    if (!a && !b) {
        th_bad_json(v, NULL, shown,
                    "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`");
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(names); i++) {
        if (th_view_has(v, names[i])) {
            (void)th_check_format(v, names[i], th_view_str(v, names[i]), TH_NAME_DNS1123_SUBDOMAIN);
        }
    }
}

/* ---- Security ---- */

static void check_id(const struct th_view *v, const char *member)
{
    const struct th_json *id = th_view_get(v, member);
    int64_t n = th_json_as_int(id, 0);
    if (id && (n < 0 || n > 2147483647)) {
        th_bad_int(v, member, n, "must be between 0 and 2147483647, inclusive");
    }
}

static bool sysctl_ok(const char *name)
{
    size_t n = strlen(name);
    bool sep = true; /* a segment begins */
    for (size_t i = 0; i < n; i++) {
        char c = name[i];
        bool alnum = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        bool inner = c == '-' || c == '_';
        bool dot = c == '.' || c == '/';
        bool ends = i + 1 == n || name[i + 1] == '.' || name[i + 1] == '/';
        if ((!alnum && !inner && !dot) || (dot && sep) || (inner && (sep || ends))) {
            return false;
        }
        sep = dot;
    }
    return n > 0 && n <= 253 && !sep;
}

static bool has_prefix(const char *s, const char *const *prefixes)
{
    for (; *prefixes; prefixes++) {
        if (th_startswith(s, *prefixes)) {
            return true;
        }
    }
    return false;
}

static void check_sysctls(const struct th_view *v)
{
    static const char *const net[] = {"net.", "net/", NULL};
    static const char *const ipc[] = {"kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.", NULL};
    th_autostrv struct th_strv seen = TH_STRV_INIT;
    for (size_t i = 0; i < th_view_len(v, "sysctls"); i++) {
        struct th_view s = th_view_item(v, "sysctls", i);
        const char *name = th_view_str(&s, "name");
        if (!*name) {
            th_bad_required(&s, "name", "");
        } else if (!sysctl_ok(name)) {
            th_bad_str(&s, "name", name,
                       "must have at most 253 characters and match regex "
                       "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$");
        } else if (th_strv_has(&seen, name)) {
            th_bad_duplicate(&s, "name", name);
        }
        if (th_view_bool(v->up, "hostNetwork") && has_prefix(name, net)) {
            th_bad_str(&s, "name", name, "may not be specified when 'hostNetwork' is true");
        }
        if (th_view_bool(v->up, "hostIPC") && has_prefix(name, ipc)) {
            th_bad_str(&s, "name", name, "may not be specified when 'hostIPC' is true");
        }
        th_strv_add(&seen, name);
    }
}

void th_rule_pod_security(const struct th_view *v)
{
    static const char *const ids[] = {"fsGroup", "runAsUser", "runAsGroup"};
    static const char *const values[][2] = {{"fsGroupChangePolicy", "Always|OnRootMismatch"},
                                            {"supplementalGroupsPolicy", "Merge|Strict"},
                                            {"seLinuxChangePolicy", "MountOption|Recursive"}};
    for (size_t i = 0; i < TH_ARRAY_LEN(ids); i++) {
        check_id(v, ids[i]);
    }
    for (size_t i = 0; i < th_view_len(v, "supplementalGroups"); i++) {
        struct th_view g = th_view_item(v, "supplementalGroups", i);
        check_id(&g, NULL);
    }
    check_sysctls(v);
    for (size_t i = 0; i < TH_ARRAY_LEN(values); i++) {
        if (th_view_has(v, values[i][0])) {
            (void)th_check_one_of(v, values[i][0], th_view_str(v, values[i][0]), values[i][1]);
        }
    }
}

void th_rule_security(const struct th_view *v)
{
    const struct th_view *spec = v->up ? v->up->up : NULL; /* container, then PodSpec */
    check_id(v, "runAsUser");
    check_id(v, "runAsGroup");
    if (th_view_has(v, "procMount")) {
        bool host_users = !spec || !th_view_has(spec, "hostUsers") || th_view_bool(spec, "hostUsers");
        (void)th_check_one_of(v, "procMount", th_view_str(v, "procMount"), "Default|Unmasked");
        if (host_users && th_view_is(v, "procMount", "Unmasked")) {
            th_bad_value(v, "procMount", "`hostUsers` must be false to use `Unmasked`");
        }
    }
    if (!th_view_has(v, "allowPrivilegeEscalation") ||
        th_view_bool(v, "allowPrivilegeEscalation")) {
        return;
    }
    if (th_view_bool(v, "privileged")) {
        th_bad_value(v, NULL, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
    }
    for (size_t i = 0; i < th_view_len(v, "capabilities.add"); i++) {
        if (th_streq(th_json_str(th_json_at(th_view_get(v, "capabilities.add"), i)),
                     "CAP_SYS_ADMIN")) {
            th_bad_value(v, NULL, "cannot set `allowPrivilegeEscalation` to false and "
                                  "`capabilities.Add` CAP_SYS_ADMIN");
        }
    }
}

static void check_profile_type(const struct th_view *v, const char *detail)
{
    const char *type = th_view_str(v, "type");
    if (!*type) {
        th_bad_required(v, "type", detail);
    } else {
        (void)th_check_one_of(v, "type", type, "Localhost|RuntimeDefault|Unconfined");
    }
}

void th_rule_seccomp(const struct th_view *v)
{
    check_profile_type(v, "type is required when seccompProfile is set");
    bool has = th_view_has(v, "localhostProfile");
    if (!th_view_is(v, "type", "Localhost")) {
        if (has) {
            TH_AUTO(th_json) struct th_json *shown =
                th_json_build("{'Type':%s,'LocalhostProfile':%s}", th_view_str(v, "type"),
                              th_view_str(v, "localhostProfile"));
            th_bad_json(v, "localhostProfile", shown,
                        "can only be set when seccomp type is Localhost");
        }
    } else if (!has) {
        th_bad_required(v, "localhostProfile", "must be set when seccomp type is Localhost");
    } else {
        th_check_descending(v, "localhostProfile", th_view_str(v, "localhostProfile"));
    }
}

void th_rule_apparmor(const struct th_view *v)
{
    check_profile_type(v, "type is required when appArmorProfile is set");
    bool has = th_view_has(v, "localhostProfile");
    const char *profile = th_view_str(v, "localhostProfile");
    size_t n = strlen(profile);
    if (!th_view_is(v, "type", "Localhost")) {
        if (has && (th_view_is(v, "type", "RuntimeDefault") || th_view_is(v, "type", "Unconfined"))) {
            th_bad_value(v, "localhostProfile", "can only be set when AppArmor type is Localhost");
        }
        return;
    }
    if (n && (profile[0] == ' ' || profile[n - 1] == ' ')) {
        th_bad_str(v, "localhostProfile", profile, "must not be padded with whitespace");
    } else if (!n) {
        th_bad_required(v, "localhostProfile", "must be set when AppArmor type is Localhost");
    }
    if (n > 4095) {
        th_bad_too_long(v, "localhostProfile", 4095);
    }
}

void th_rule_windows_options(const struct th_view *v)
{
    if (th_view_has(v, "gmsaCredentialSpecName")) {
        (void)th_check_format(v, "gmsaCredentialSpecName", th_view_str(v, "gmsaCredentialSpecName"),
                              TH_NAME_DNS1123_SUBDOMAIN);
    }
    if (th_view_has(v, "gmsaCredentialSpec") && !*th_view_str(v, "gmsaCredentialSpec")) {
        th_bad_str(v, "gmsaCredentialSpec", "", "gmsaCredentialSpec cannot be an empty string");
    }
    if (th_view_has(v, "runAsUserName") && !*th_view_str(v, "runAsUserName")) {
        th_bad_str(v, "runAsUserName", "", "runAsUserName cannot be an empty string");
    }
}
