/* Rules of containers that a line of rules.tsv cannot say: what init and ephemeral containers may not
 * have, environment, mounts, resources, probes and hooks of the life cycle (upstream:
 * pkg/apis/core/validation, validateContainers and what it calls).
 *
 * A container's view hangs under its PodSpec's, which is where volumes, claims and the grace period
 * are looked up. Some of upstream's paths leave out an index; they are kept as they are.
 */
#include "controlplane/resources/rules.h"

#include "base/buf.h"
#include "controlplane/resources/amounts.h"
#include "controlplane/schema/quantity.h"

static bool is_init(const struct th_view *ctr)
{
    return th_streq(ctr->member, "initContainers");
}

static bool is_ephemeral(const struct th_view *ctr)
{
    return th_streq(ctr->member, "ephemeralContainers");
}

/* ---- Environment ---- */

static void check_field_ref(const struct th_view *ref, const char *paths)
{
    const char *path = th_view_str(ref, "fieldPath");
    if (!*th_view_str(ref, "apiVersion")) {
        th_bad_required(ref, "apiVersion", "");
        return;
    }
    if (!*path) {
        th_bad_required(ref, "fieldPath", "");
        return;
    }
    const char *open = strstr(path, "['");
    size_t n = strlen(path);
    if (open && n > 2 && th_streq(path + n - 2, "']")) {
        th_autofree char *base = th_xstrndup(path, (size_t)(open - path));
        th_autofree char *sub = th_xstrndup(open + 2, (size_t)(path + n - 2 - (open + 2)));
        if (th_streq(base, "metadata.annotations")) {
            for (char *p = sub; *p; p++) {
                *p = (char)(*p >= 'A' && *p <= 'Z' ? *p + 32 : *p);
            }
        } else if (!th_streq(base, "metadata.labels")) {
            th_autofree char *why =
                th_xasprintf("error converting fieldPath: field label does not support subscript: %s",
                             path);
            th_bad_str(ref, "fieldPath", path, why);
            return;
        }
        (void)th_check_format(ref, NULL, sub, TH_NAME_QUALIFIED);
        return;
    }
    static const char known[] = "metadata.annotations|metadata.labels|metadata.name|"
                                "metadata.namespace|metadata.uid|spec.nodeName|spec.restartPolicy|"
                                "spec.serviceAccountName|spec.schedulerName|status.phase|"
                                "status.hostIP|status.hostIPs|status.podIP|status.podIPs|spec.host";
    if (!th_word_in(path, known)) {
        th_autofree char *why =
            th_xasprintf("error converting fieldPath: field label not supported: %s", path);
        th_bad_str(ref, "fieldPath", path, why);
    } else {
        (void)th_check_one_of(ref, "fieldPath", th_streq(path, "spec.host") ? "spec.nodeName" : path,
                              paths);
    }
}

static void check_divisor(const struct th_view *ref)
{
    const char *resource = th_view_str(ref, "resource"), *d = th_view_str(ref, "divisor");
    static const char sizes[] = "1|1k|1M|1G|1T|1P|1E|1Ki|1Mi|1Gi|1Ti|1Pi|1Ei";
    static const char words[] = "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, "
                                "1Pi, 1Ei are supported with the %s resource";
    struct th_quantity q;
    if (!*d || th_quantity_parse(d, &q, NULL) < 0 || q.nano == 0) {
        return;
    }
    char text[TH_QUANTITY_LEN];
    (void)th_quantity_format(q, text);
    const char *dot = strchr(resource, '.');
    const char *what = dot ? dot + 1 : resource;
    if (th_streq(what, "cpu")) {
        if (!th_word_in(text, "1m|1")) {
            th_bad_str(ref, "divisor", resource,
                       "only divisor's values 1m and 1 are supported with the cpu resource");
        }
        return;
    }
    const char *name = th_streq(what, "memory")                ? "memory"
                       : th_streq(what, "ephemeral-storage")   ? "local ephemeral storage"
                       : th_startswith(what, "hugepages-")     ? "hugepages"
                                                               : NULL;
    if (name && !th_word_in(text, sizes)) {
        char why[200];
        (void)snprintf(why, sizeof(why), words, name);
        th_bad_str(ref, "divisor", resource, why);
    }
}

static void check_resource_ref(const struct th_view *ref, bool volume)
{
    static const char names[] = "limits.cpu|limits.ephemeral-storage|limits.memory|requests.cpu|"
                                "requests.ephemeral-storage|requests.memory";
    const char *resource = th_view_str(ref, "resource");
    if (volume && !*th_view_str(ref, "containerName")) {
        th_bad_required(ref, "containerName", "");
    } else if (!*resource) {
        th_bad_required(ref, "resource", "");
    } else if (!th_startswith(resource, "limits.hugepages-") &&
               !th_startswith(resource, "requests.hugepages-")) {
        (void)th_check_one_of(ref, "resource", resource, names);
    }
    check_divisor(ref);
}

void th_rule_env_var(const struct th_view *v)
{
    static const char *const sources[] = {"fieldRef", "resourceFieldRef", "configMapKeyRef",
                                          "secretKeyRef", "fileKeyRef"};
    const char *name = th_view_str(v, "name");
    if (!*name) {
        th_bad_required(v, "name", "");
    } else {
        (void)th_check_format(v, "name", name, TH_NAME_ENV);
    }
    if (!th_view_has(v, "valueFrom")) {
        return;
    }
    struct th_view from = th_view_at(v, "valueFrom");
    size_t n = 0;
    for (size_t i = 0; i < TH_ARRAY_LEN(sources); i++) {
        n += th_view_has(&from, sources[i]);
    }
    if (th_view_has(&from, "fieldRef")) {
        struct th_view ref = th_view_at(&from, "fieldRef");
        check_field_ref(&ref, "metadata.name|metadata.namespace|metadata.uid|spec.nodeName|"
                              "spec.serviceAccountName|status.hostIP|status.hostIPs|status.podIP|"
                              "status.podIPs");
    }
    if (th_view_has(&from, "resourceFieldRef")) {
        struct th_view ref = th_view_at(&from, "resourceFieldRef");
        check_resource_ref(&ref, false);
    }
    if (n == 0) {
        th_bad_str(&from, NULL, "", "must specify one of: `fieldRef`, `resourceFieldRef`, "
                                    "`configMapKeyRef`, `secretKeyRef` or `fileKeyRef`");
    } else if (*th_view_str(v, "value")) {
        th_bad_str(&from, NULL, "", "may not be specified when `value` is not empty");
    } else if (n > 1) {
        th_bad_str(&from, NULL, "", "may not have more than one field specified at a time");
    }
}

static void check_env_from(const struct th_view *ctr)
{
    for (size_t i = 0; i < th_view_len(ctr, "envFrom"); i++) {
        struct th_view e = th_view_item(ctr, "envFrom", i);
        int n = th_view_has(&e, "configMapRef") + th_view_has(&e, "secretRef");
        if (n == 0) {
            th_bad_str(ctr, "envFrom", "", "must specify one of: `configMapRef` or `secretRef`");
        } else if (n > 1) {
            th_bad_str(ctr, "envFrom", "", "may not have more than one field specified at a time");
        }
    }
}

void th_rule_downward_items(const struct th_view *v)
{
    for (size_t i = 0; i < th_view_len(v, "items"); i++) {
        const struct th_view f = th_view_item(v, "items", i);
        struct th_view at = *v; /* upstream names the list's owner, not the item */
        at.obj = f.obj;
        const char *path = th_view_str(&at, "path");
        if (!*path) {
            th_bad_required(&at, "path", "");
        }
        th_check_non_reserved(&at, "path", path);
        bool field = th_view_has(&at, "fieldRef"), res = th_view_has(&at, "resourceFieldRef");
        if (field) {
            struct th_view ref = th_view_at(&at, "fieldRef");
            check_field_ref(&ref, "metadata.annotations|metadata.labels|metadata.name|"
                                  "metadata.namespace|metadata.uid");
            if (res) {
                th_bad_str(&at, NULL, "resource",
                           "fieldRef and resourceFieldRef can not be specified simultaneously");
            }
        } else if (res) {
            struct th_view ref = th_view_at(&at, "resourceFieldRef");
            check_resource_ref(&ref, true);
        } else {
            th_bad_required(&at, NULL, "one of fieldRef and resourceFieldRef is required");
        }
        int64_t mode = th_view_int(&at, "mode", 0);
        if (mode < 0 || mode > 0777) {
            th_bad_int(&at, "mode", mode,
                       "must be a number between 0 and 0777 (octal), both inclusive");
        }
    }
}

/* ---- Mounts and devices ---- */

/* Volumes are checked before containers: one with causes does not count as being there. */
static bool has_causes(const struct th_view *volume)
{
    const struct th_err *err = volume->err;
    if (!err || err->n_causes == 0) {
        return false;
    }
    th_autofree char *path = th_view_path(volume, NULL);
    size_t n = strlen(path);
    for (size_t i = 0; i < err->n_causes; i++) {
        const char *field = err->causes[i].field;
        if (strncmp(field, path, n) == 0 && (field[n] == '\0' || field[n] == '.')) {
            return true;
        }
    }
    return false;
}

static const struct th_json *find_volume(const struct th_view *ctr, const char *name)
{
    for (size_t i = 0; ctr->up && i < th_view_len(ctr->up, "volumes"); i++) {
        struct th_view v = th_view_item(ctr->up, "volumes", i);
        if (th_view_is(&v, "name", name) && !has_causes(&v)) {
            return v.obj;
        }
    }
    /* A StatefulSet makes a volume of each of its claims: spec.template.spec is below that spec. */
    const struct th_view *template = ctr->up ? ctr->up->up : NULL;
    const struct th_view *set = template ? template->up : NULL;
    for (size_t i = 0; set && i < th_view_len(set, "volumeClaimTemplates"); i++) {
        struct th_view claim = th_view_item(set, "volumeClaimTemplates", i);
        if (th_view_is(&claim, "metadata.name", name)) {
            return claim.obj;
        }
    }
    return NULL;
}

/* Whether some element of list before `end` has this value. */
static bool listed(const struct th_json *list, size_t end, const char *member, const char *value)
{
    for (size_t i = 0; i < th_json_len(list) && i < end; i++) {
        const char *s = th_json_path_str(th_json_at(list, i), member);
        if (th_streq(s ? s : "", value)) {
            return true;
        }
    }
    return false;
}

static void check_propagation(const struct th_view *ctr, const struct th_view *m)
{
    const char *mode = th_view_str(m, "mountPropagation");
    struct th_view list = th_view_at(ctr, "volumeMounts"); /* upstream leaves the index out */
    if (!th_view_has(m, "mountPropagation")) {
        return;
    }
    (void)th_check_one_of(&list, "mountPropagation", mode, "Bidirectional|HostToContainer|None");
    if (th_streq(mode, "Bidirectional") && !th_view_bool(ctr, "securityContext.privileged")) {
        th_bad_forbidden(&list, "mountPropagation", "Bidirectional mount propagation is available "
                                                    "only to privileged containers");
    }
}

static void check_recursive(const struct th_view *ctr, const struct th_view *m)
{
    const char *mode = th_view_str(m, "recursiveReadOnly");
    const char *propagation = th_view_str(m, "mountPropagation");
    struct th_view list = th_view_at(ctr, "volumeMounts");
    if (!th_view_has(m, "recursiveReadOnly") || th_streq(mode, "Disabled")) {
        return;
    }
    if (!th_check_one_of(&list, "recursiveReadOnly", mode, "Disabled|Enabled|IfPossible")) {
        return;
    }
    if (!th_view_bool(m, "readOnly")) {
        th_bad_forbidden(&list, "recursiveReadOnly", "may only be specified when readOnly is true");
    }
    if (*propagation && !th_streq(propagation, "None")) {
        th_bad_forbidden(&list, "recursiveReadOnly",
                         "may only be specified when mountPropagation is None or not specified");
    }
}

static void check_mount(const struct th_view *ctr, size_t i)
{
    struct th_view m = th_view_item(ctr, "volumeMounts", i);
    struct th_view list = th_view_at(ctr, "volumeMounts");
    const struct th_json *devices = th_view_get(ctr, "volumeDevices");
    const char *name = th_view_str(&m, "name"), *path = th_view_str(&m, "mountPath");
    if (!*name) {
        th_bad_required(&m, "name", "");
    }
    if (!find_volume(ctr, name)) {
        th_bad_not_found(&m, "name", name);
    }
    if (!*path) {
        th_bad_required(&m, "mountPath", "");
    }
    if (listed(list.obj, i, "mountPath", path)) {
        th_bad_str(&m, "mountPath", path, "must be unique");
    }
    if (listed(devices, SIZE_MAX, "name", name)) {
        th_bad_str(&m, "name", name, "must not already exist in volumeDevices");
    }
    if (listed(devices, SIZE_MAX, "devicePath", path)) {
        th_bad_str(&m, "mountPath", path, "must not already exist as a path in volumeDevices");
    }
    const char *sub = th_view_str(&m, "subPath"), *expr = th_view_str(&m, "subPathExpr");
    if (*sub) {
        th_check_descending(&list, "subPath", sub);
    }
    if (*expr) {
        if (*sub) {
            th_bad_str(&m, "subPathExpr", expr,
                       "subPathExpr and subPath are mutually exclusive");
        }
        th_check_descending(&list, "subPathExpr", expr);
    }
    check_propagation(ctr, &m);
    check_recursive(ctr, &m);
}

static void check_device(const struct th_view *ctr, size_t i)
{
    struct th_view d = th_view_item(ctr, "volumeDevices", i);
    const struct th_json *list = th_view_get(ctr, "volumeDevices");
    const struct th_json *mounts = th_view_get(ctr, "volumeMounts");
    const char *name = th_view_str(&d, "name"), *path = th_view_str(&d, "devicePath");
    const struct th_json *volume = find_volume(ctr, name);
    if (!*name) {
        th_bad_required(&d, "name", "");
    } else if (listed(list, i, "name", name)) {
        th_bad_str(&d, "name", name, "must be unique");
    }
    if (!volume) {
        th_bad_not_found(&d, "name", name);
    } else if (!th_json_get(volume, "persistentVolumeClaim") && !th_json_get(volume, "ephemeral") &&
               !th_json_get(volume, "metadata")) {
        th_bad_str(&d, "name", name, "can only use volume source type of PersistentVolumeClaim or "
                                     "Ephemeral for block mode");
    }
    if (!*path) {
        th_bad_required(&d, "devicePath", "");
    }
    if (listed(list, i, "devicePath", path)) {
        th_bad_str(&d, "devicePath", path, "must be unique");
    }
    if (strstr(path, "..")) {
        TH_AUTO_ERR struct th_err probe = TH_ERR_INIT;
        struct th_view quiet = d;
        quiet.err = &probe;
        th_check_no_backsteps(&quiet, NULL, path);
        if (probe.n_causes) {
            th_bad_str(&d, "devicePath", path, "can not contain backsteps ('..')");
        }
    }
    if (listed(mounts, SIZE_MAX, "name", name)) {
        th_bad_str(&d, "name", name, "must not already exist in volumeMounts");
    }
    if (listed(mounts, SIZE_MAX, "mountPath", path)) {
        th_bad_str(&d, "devicePath", path, "must not already exist as a path in volumeMounts");
    }
}

/* ---- Probes and life cycle ---- */

/* `members`: the handlers there can be, in upstream's order. */
static void check_handler(const struct th_view *v, const char *const *members)
{
    size_t n = 0;
    for (; *members; members++) {
        if (!th_view_has(v, *members)) {
            continue;
        }
        struct th_view h = th_view_at(v, *members);
        if (n++ > 0) {
            th_bad_forbidden(&h, NULL, "may not specify more than 1 handler type");
        } else if (th_streq(*members, "exec")) {
            if (th_view_len(&h, "command") == 0) {
                th_bad_required(&h, "command", "");
            }
        } else if (th_streq(*members, "httpGet")) {
            if (!*th_view_str(&h, "path")) {
                th_bad_required(&h, "path", "");
            }
            th_check_port_or_name(&h, "port");
            (void)th_check_one_of(&h, "scheme", th_view_str(&h, "scheme"), "HTTP|HTTPS");
            for (size_t i = 0; i < th_view_len(&h, "httpHeaders"); i++) {
                struct th_view one = th_view_item(&h, "httpHeaders", i);
                (void)th_check_format(&h, "httpHeaders", th_view_str(&one, "name"),
                                      TH_NAME_HTTP_HEADER);
            }
        } else if (!th_streq(*members, "sleep")) {
            th_check_port_or_name(&h, "port");
        }
    }
    if (n == 0) {
        th_bad_required(v, NULL, "must specify a handler type");
    }
}

/* The PodSpec above a view inside a container. */
static const struct th_view *spec_above(const struct th_view *v)
{
    for (; v; v = v->up) {
        if (th_streq(v->member, "containers") || is_init(v) || is_ephemeral(v)) {
            return v->up;
        }
    }
    return NULL;
}

void th_rule_handler(const struct th_view *v)
{
    static const char *const members[] = {"exec", "httpGet", "tcpSocket", "sleep", NULL};
    check_handler(v, members);
    const struct th_view *spec = spec_above(v);
    int64_t seconds = th_view_int(v, "sleep.seconds", 0);
    int64_t grace = spec ? th_view_int(spec, "terminationGracePeriodSeconds", 30) : 30;
    bool alone = !th_view_has(v, "exec") && !th_view_has(v, "httpGet") && !th_view_has(v, "tcpSocket");
    if (alone && th_view_has(v, "sleep") && (seconds < 0 || seconds > grace)) {
        th_autofree char *why = th_xasprintf(
            "must be non-negative and less than terminationGracePeriodSeconds (%lld)",
            (long long)grace);
        th_bad_int(v, "sleep", seconds, why);
    }
}

void th_rule_lifecycle(const struct th_view *v)
{
    static const char linux_signals[] =
        "SIGABRT|SIGALRM|SIGBUS|SIGCHLD|SIGCLD|SIGCONT|SIGFPE|SIGHUP|SIGILL|SIGINT|SIGIO|SIGIOT|"
        "SIGKILL|SIGPIPE|SIGPOLL|SIGPROF|SIGPWR|SIGQUIT|SIGRTMAX|SIGRTMAX-1|SIGRTMAX-10|SIGRTMAX-11|"
        "SIGRTMAX-12|SIGRTMAX-13|SIGRTMAX-14|SIGRTMAX-2|SIGRTMAX-3|SIGRTMAX-4|SIGRTMAX-5|SIGRTMAX-6|"
        "SIGRTMAX-7|SIGRTMAX-8|SIGRTMAX-9|SIGRTMIN|SIGRTMIN+1|SIGRTMIN+10|SIGRTMIN+11|SIGRTMIN+12|"
        "SIGRTMIN+13|SIGRTMIN+14|SIGRTMIN+15|SIGRTMIN+2|SIGRTMIN+3|SIGRTMIN+4|SIGRTMIN+5|SIGRTMIN+6|"
        "SIGRTMIN+7|SIGRTMIN+8|SIGRTMIN+9|SIGSEGV|SIGSTKFLT|SIGSTOP|SIGSYS|SIGTERM|SIGTRAP|SIGTSTP|"
        "SIGTTIN|SIGTTOU|SIGURG|SIGUSR1|SIGUSR2|SIGVTALRM|SIGWINCH|SIGXCPU|SIGXFSZ";
    const struct th_view *spec = spec_above(v);
    if (!th_view_has(v, "stopSignal")) {
        return;
    }
    const char *os = spec ? th_view_str(spec, "os.name") : "";
    if (!*os) {
        th_bad_forbidden(v, "stopSignal", "may not be set for containers with empty `spec.os.name`");
    } else {
        (void)th_check_one_of(v, "stopSignal", th_view_str(v, "stopSignal"),
                              th_streq(os, "windows") ? "SIGKILL|SIGTERM" : linux_signals);
    }
}

void th_rule_probe(const struct th_view *v)
{
    static const char *const members[] = {"exec", "httpGet", "tcpSocket", "grpc", NULL};
    if (is_init(v->up) && !th_view_is(v->up, "restartPolicy", "Always")) {
        return; /* forbidden as a whole */
    }
    if (is_ephemeral(v->up)) {
        return;
    }
    check_handler(v, members);
    bool readiness = th_streq(v->member, "readinessProbe");
    if (!readiness && th_view_int(v, "successThreshold", 1) != 1) {
        th_bad_int(v, "successThreshold", th_view_int(v, "successThreshold", 1), "must be 1");
    }
    if (readiness && th_view_has(v, "terminationGracePeriodSeconds")) {
        th_bad_value(v, "terminationGracePeriodSeconds", "must not be set for readinessProbes");
    }
}

/* ---- Resources ---- */

static void check_claims(const struct th_view *res, const struct th_view *spec)
{
    const struct th_json *known = spec ? th_view_get(spec, "resourceClaims") : NULL;
    th_autostrv struct th_strv seen = TH_STRV_INIT, names = TH_STRV_INIT;
    for (size_t i = 0; i < th_json_len(known); i++) {
        const char *n = th_json_path_str(th_json_at(known, i), "name");
        if (n && *n) {
            th_strv_add(&names, n);
        }
    }
    th_strv_sort(&names);
    for (size_t i = 0; i < th_view_len(res, "claims"); i++) {
        struct th_view c = th_view_item(res, "claims", i);
        const char *name = th_view_str(&c, "name"), *request = th_view_str(&c, "request");
        if (!*name) {
            th_bad_required(&c, NULL, "");
            continue;
        }
        th_autofree char *id = *request ? th_xasprintf("%s/%s", name, request) : th_xstrdup(name);
        if (*request) {
            (void)th_check_format(&c, "request", request, TH_NAME_DNS1123_LABEL);
        }
        if (th_strv_has(&seen, name) || th_strv_has(&seen, id)) {
            th_bad_duplicate(&c, NULL, th_strv_has(&seen, name) ? name : id);
        }
        th_strv_add(&seen, id);
        if (!th_strv_has(&names, name)) {
            th_autofree char *all = th_strv_join(&names, ", ");
            th_autofree char *path = th_view_path(&c, NULL);
            th_err_add_cause(res->err, "FieldValueNotFound", path,
                             "Not found: \"%s\": must be one of the names in pod.spec.resourceClaims%s%s",
                             name, names.n ? ": " : " which is empty", all);
        }
    }
}

static void check_pod_claims_only(const struct th_view *spec)
{
    struct th_view res = th_view_at(spec, "resources");
    if (th_view_has(&res, "claims")) {
        th_bad_forbidden(&res, "claims", "claims may not be set for Resources at pod-level");
    }
}

/* ---- The container ---- */

static void check_resize_policy(const struct th_view *ctr)
{
    struct th_view list = th_view_at(ctr, "resizePolicy");
    th_autostrv struct th_strv seen = TH_STRV_INIT;
    bool never = ctr->up && th_view_is(ctr->up, "restartPolicy", "Never");
    for (size_t i = 0; i < th_json_len(list.obj); i++) {
        struct th_view p = th_view_item(ctr, "resizePolicy", i);
        const char *name = th_view_str(&p, "resourceName"), *policy = th_view_str(&p, "restartPolicy");
        if (th_strv_has(&seen, name)) {
            th_bad_duplicate(&p, NULL, name);
        }
        th_strv_add(&seen, name);
        if (!*name) {
            th_bad_required(&list, NULL, "");
        } else {
            (void)th_check_one_of(&list, NULL, name, "cpu|memory");
        }
        if (!*policy) {
            th_bad_required(&list, NULL, "");
        } else {
            (void)th_check_one_of(&list, NULL, policy, "NotRequired|RestartContainer");
        }
        if (never && !th_streq(policy, "NotRequired")) {
            th_bad_str(&list, NULL, policy,
                       "must be 'NotRequired' when pod `restartPolicy` is 'Never'");
        }
        if (is_init(ctr) && !th_view_is(ctr, "restartPolicy", "Always") &&
            th_streq(policy, "RestartContainer")) {
            th_bad_str(&p, "restartPolicy", policy, "must not be set to 'RestartContainer' for "
                                                    "non-sidecar initContainers");
        }
    }
}

static void check_restart(const struct th_view *ctr)
{
    const struct th_json *rules = th_view_get(ctr, "restartPolicyRules");
    if (!th_view_has(ctr, "restartPolicy")) {
        if (th_json_len(rules) > 0) {
            th_bad_required(ctr, "restartPolicy",
                            "must specify restartPolicy when restart rules are used");
        }
    } else {
        (void)th_check_one_of(ctr, "restartPolicy", th_view_str(ctr, "restartPolicy"),
                              "Always|Never|OnFailure");
    }
    if (th_json_len(rules) > 20) {
        th_bad_too_many(ctr, "restartPolicyRules", th_json_len(rules), 20);
    }
    for (size_t i = 0; i < th_json_len(rules); i++) {
        struct th_view r = th_view_item(ctr, "restartPolicyRules", i);
        (void)th_check_one_of(&r, "action", th_view_str(&r, "action"),
                              "Restart|RestartAllContainers");
        if (!th_view_has(&r, "exitCodes")) {
            th_bad_required(&r, "exitCodes", "must be specified");
            continue;
        }
        (void)th_check_one_of(&r, "exitCodes.operator", th_view_str(&r, "exitCodes.operator"),
                              "In|NotIn");
        if (th_view_len(&r, "exitCodes.values") > 255) {
            th_bad_too_many(&r, "exitCodes.values", th_view_len(&r, "exitCodes.values"), 255);
        }
    }
}

static void check_not_for_init(const struct th_view *ctr)
{
    static const char *const members[] = {"lifecycle", "livenessProbe", "readinessProbe",
                                          "startupProbe"};
    for (size_t i = 0; i < TH_ARRAY_LEN(members); i++) {
        if (th_view_has(ctr, members[i]) && !th_view_is(ctr, "restartPolicy", "Always")) {
            th_bad_forbidden(ctr, members[i],
                             "may not be set for init containers without restartPolicy=Always");
        }
    }
}

static void check_not_for_ephemeral(const struct th_view *ctr)
{
    static const char words[] = "cannot be set for an Ephemeral Container";
    static const char *const members[] = {"ports", "resources", "resizePolicy", "restartPolicy",
                                          "restartPolicyRules", "livenessProbe", "readinessProbe",
                                          "startupProbe", "lifecycle"};
    for (size_t i = 0; i < TH_ARRAY_LEN(members); i++) {
        const struct th_json *value = th_view_get(ctr, members[i]);
        if (value && (th_json_is(value, TH_JSON_STRING) || th_json_len(value) > 0)) {
            th_bad_forbidden(ctr, members[i], words);
        }
    }
    for (size_t i = 0; i < th_view_len(ctr, "volumeMounts"); i++) {
        struct th_view m = th_view_item(ctr, "volumeMounts", i);
        static const char *const subs[] = {"subPath", "subPathExpr"};
        for (size_t k = 0; k < TH_ARRAY_LEN(subs); k++) {
            if (*th_view_str(&m, subs[k])) {
                th_bad_forbidden(&m, subs[k], words);
            }
        }
    }
}

static void check_basics(const struct th_view *v)
{
    const char *name = th_view_str(v, "name");
    if (!*name) {
        th_bad_required(v, "name", "");
    } else {
        (void)th_check_format(v, "name", name, TH_NAME_DNS1123_LABEL);
    }
    if (!*th_view_str(v, "image")) {
        th_bad_required(v, "image", "");
    }
    static const char *const words[][2] = {
        {"terminationMessagePolicy", "File|FallbackToLogsOnError"},
        {"imagePullPolicy", "Always|IfNotPresent|Never"}};
    for (size_t i = 0; i < TH_ARRAY_LEN(words); i++) {
        const char *s = th_view_str(v, words[i][0]);
        if (!*s) {
            th_bad_required(v, words[i][0], "");
        } else {
            (void)th_check_one_of(v, words[i][0], s, words[i][1]);
        }
    }
}

static void check_port_names(const struct th_view *v)
{
    th_autostrv struct th_strv seen = TH_STRV_INIT;
    for (size_t i = 0; i < th_view_len(v, "ports"); i++) {
        struct th_view p = th_view_item(v, "ports", i);
        const char *name = th_view_str(&p, "name");
        if (!*name || !th_check_format(&p, "name", name, TH_NAME_PORT)) {
            continue;
        }
        if (th_strv_has(&seen, name)) {
            th_bad_duplicate(&p, "name", name);
        } else {
            th_strv_add(&seen, name);
        }
    }
}

void th_rule_container(const struct th_view *v)
{
    check_basics(v);
    check_port_names(v);
    check_env_from(v);
    for (size_t i = 0; i < th_view_len(v, "volumeMounts"); i++) {
        check_mount(v, i);
    }
    for (size_t i = 0; i < th_view_len(v, "volumeDevices"); i++) {
        check_device(v, i);
    }
    struct th_view res = th_view_at(v, "resources");
    th_check_requirements(&res, false);
    check_claims(&res, v->up);
    check_resize_policy(v);
    if (is_ephemeral(v)) {
        const char *image = th_view_str(v, "image");
        size_t n = strlen(image);
        if (n && (image[0] == ' ' || image[n - 1] == ' ')) {
            th_bad_str(v, "image", image, "must not have leading or trailing whitespace");
        }
        check_not_for_ephemeral(v);
        return;
    }
    check_restart(v);
    if (is_init(v)) {
        check_not_for_init(v);
    }
    if (v->index == 0 && th_streq(v->member, "containers") && v->up &&
        th_view_has(v->up, "resources")) {
        struct th_view pod = th_view_at(v->up, "resources");
        check_pod_claims_only(v->up);
        th_check_requirements(&pod, true);
    }
}
