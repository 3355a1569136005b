/* The checks of the Pod Security Standards (upstream: k8s.io/pod-security-admission/policy). */
#include "controlplane/api/admission/pod_security.h"

struct pod {
    const struct th_json *spec, *annotations;
    int minor;
    struct th_ps_result *ret;
};
/* True when the container (or, with its own securityContext, the pod) breaks the rule; bad values go
 * to `values`. */
typedef bool broken_fn(const struct pod *p, const struct th_json *ct, struct th_strv *values);

static void forbid(const struct pod *p, const char *reason, const char *fmt, ...) TH_PRINTF(3, 4);
static void forbid(const struct pod *p, const char *reason, const char *fmt, ...)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    va_list ap;
    va_start(ap, fmt);
    th_buf_vprintf(&b, fmt, ap);
    va_end(ap);
    th_strv_add(&p->ret->reasons, reason);
    th_strv_addf(&p->ret->details, "%s (%s)", reason, th_buf_cstr(&b));
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void add_once(struct th_strv *v, const char *s)
{
    if (!th_strv_has(v, s)) {
        th_strv_add(v, s);
        qsort(v->v, v->n, sizeof(*v->v), by_text);
    }
}

static char *join(const struct th_strv *v, const char *quote, const char *between)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    for (size_t i = 0; i < v->n; i++) {
        th_buf_printf(&b, "%s%s%s%s", i ? between : "", quote, v->v[i], quote);
    }
    th_buf_puts(&b, "");
    return th_xstrdup(th_buf_cstr(&b));
}

static char *quoted(const struct th_strv *v)
{
    return join(v, "\"", ", ");
}

static const char *s(const struct th_strv *v)
{
    return v->n == 1 ? "" : "s";
}

static void each_container(const struct pod *p, broken_fn *fn, struct th_strv *names,
                           struct th_strv *values)
{
    static const char *const lists[] = {"initContainers", "containers", "ephemeralContainers"};
    for (size_t l = 0; l < TH_ARRAY_LEN(lists); l++) {
        const struct th_json *list = th_json_get(p->spec, lists[l]);
        for (size_t i = 0; i < th_json_len(list); i++) {
            const struct th_json *ct = th_json_at(list, i);
            if (fn(p, ct, values)) {
                const char *name = th_json_path_str(ct, "name");
                th_strv_add(names, name ? name : "");
            }
        }
    }
}

/* "pod and container "c"", or NULL when nobody broke the rule. */
static char *setters(const struct pod *p, broken_fn *fn, struct th_strv *values)
{
    TH_CLEANUP(th_strv_done) struct th_strv names = {0};
    bool pod = fn(p, p->spec, values);
    each_container(p, fn, &names, values);
    th_autofree char *q = quoted(&names);
    if (names.n == 0) {
        return pod ? th_xstrdup("pod") : NULL;
    }
    return th_xasprintf("%scontainer%s %s", pod ? "pod and " : "", s(&names), q);
}

static const struct th_json *ctx_of(const struct th_json *o, const char *member)
{
    return th_json_get(th_json_get(o, "securityContext"), member);
}

static bool is_windows(const struct pod *p)
{
    return p->minor >= 25 && th_streq(th_json_path_str(p->spec, "os.name"), "windows");
}

/* A pod in a user namespace of its own may be root there. */
static bool has_own_users(const struct pod *p)
{
    return p->minor >= 35 && !th_json_path_bool(p->spec, "hostUsers", true);
}

/* Adds list's strings (or `member` of its objects) that are not in the NULL-terminated allowed. */
static bool add_others(const struct th_json *list, const char *member, const char *const *allowed,
                       struct th_strv *values)
{
    bool any = false;
    for (size_t i = 0; i < th_json_len(list); i++) {
        const char *v = member ? th_json_path_str(th_json_at(list, i), member)
                               : th_json_str(th_json_at(list, i));
        bool ok = v == NULL;
        for (const char *const *a = allowed; !ok && *a; a++) {
            ok = th_streq(*a, v);
        }
        if (!ok) {
            add_once(values, v);
            any = true;
        }
    }
    return any;
}

/* ---- Baseline ---- */

static bool bad_apparmor(const struct pod *p, const struct th_json *o, struct th_strv *values)
{
    (void)p;
    const struct th_json *profile = ctx_of(o, "appArmorProfile");
    const char *type = th_json_path_str(profile, "type");
    if (!profile || th_streq(type, "RuntimeDefault") || th_streq(type, "Localhost")) {
        return false;
    }
    add_once(values, type ? type : "");
    return true;
}

static void check_apparmor(const struct pod *p)
{
    static const char prefix[] = "container.apparmor.security.beta.kubernetes.io/";
    TH_CLEANUP(th_strv_done) struct th_strv values = {0};
    TH_CLEANUP(th_strv_done) struct th_strv notes = {0};
    th_autofree char *who = setters(p, bad_apparmor, &values);
    struct th_json_iter it = TH_JSON_ITER(p->annotations);
    while (th_json_next(&it)) {
        const char *v = th_json_str(it.value);
        if (th_startswith(it.name, prefix) && v && *v && !th_streq(v, "runtime/default") &&
            !th_startswith(v, "localhost/")) {
            th_autofree char *note = th_xasprintf("%s=\"%s\"", it.name, v);
            add_once(&notes, note);
        }
    }
    if (!who && notes.n == 0) {
        return;
    }
    for (size_t i = 0; i < notes.n; i++) {
        th_strv_add(&values, notes.v[i]);
    }
    th_autofree char *q = quoted(&values);
    forbid(p, values.n == 1 ? "forbidden AppArmor profile" : "forbidden AppArmor profiles",
           "%s%s%s%s must not set AppArmor profile type to %s", who ? who : "",
           who && notes.n ? " and " : "", notes.n ? "annotation" : "", notes.n > 1 ? "s" : "", q);
}

static bool bad_added(const struct pod *p, const struct th_json *ct, struct th_strv *values)
{
    (void)p;
    static const char *const fine[] = {
        "AUDIT_WRITE", "CHOWN",   "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD",
        "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT", NULL};
    return add_others(th_json_path(ctx_of(ct, "capabilities"), "add"), NULL, fine, values);
}

static void check_capabilities(const struct pod *p)
{
    TH_CLEANUP(th_strv_done) struct th_strv names = {0};
    TH_CLEANUP(th_strv_done) struct th_strv values = {0};
    each_container(p, bad_added, &names, &values);
    th_autofree char *n = quoted(&names), *v = quoted(&values);
    if (names.n > 0) {
        forbid(p, "non-default capabilities",
               "container%s %s must not include %s in securityContext.capabilities.add", s(&names), n,
               v);
    }
}

static void check_host_namespaces(const struct pod *p)
{
    static const char *const members[] = {"hostNetwork", "hostPID", "hostIPC"};
    TH_CLEANUP(th_strv_done) struct th_strv v = {0};
    for (size_t i = 0; i < TH_ARRAY_LEN(members); i++) {
        if (th_json_path_bool(p->spec, members[i], false)) {
            th_strv_addf(&v, "%s=true", members[i]);
        }
    }
    th_autofree char *all = join(&v, "", ", ");
    if (v.n > 0) {
        forbid(p, "host namespaces", "%s", all);
    }
}

static void check_host_paths(const struct pod *p)
{
    TH_CLEANUP(th_strv_done) struct th_strv names = {0};
    const struct th_json *list = th_json_get(p->spec, "volumes");
    for (size_t i = 0; i < th_json_len(list); i++) {
        if (th_json_get(th_json_at(list, i), "hostPath")) {
            th_strv_add(&names, th_json_path_str(th_json_at(list, i), "name"));
        }
    }
    th_autofree char *q = quoted(&names);
    if (names.n > 0) {
        forbid(p, "hostPath volumes", "volume%s %s", s(&names), q);
    }
}

static bool bad_ports(const struct pod *p, const struct th_json *ct, struct th_strv *values)
{
    (void)p;
    const struct th_json *list = th_json_get(ct, "ports");
    bool any = false;
    for (size_t i = 0; i < th_json_len(list); i++) {
        int64_t port = th_json_path_int(th_json_at(list, i), "hostPort", 0);
        th_autofree char *text = th_xasprintf("%lld", (long long)port);
        if (port) {
            add_once(values, text);
            any = true;
        }
    }
    return any;
}

static void check_host_ports(const struct pod *p)
{
    TH_CLEANUP(th_strv_done) struct th_strv names = {0};
    TH_CLEANUP(th_strv_done) struct th_strv values = {0};
    each_container(p, bad_ports, &names, &values);
    th_autofree char *n = quoted(&names), *v = join(&values, "", ", ");
    if (names.n > 0) {
        forbid(p, "hostPort", "container%s %s %s hostPort%s %s", s(&names), n,
               names.n == 1 ? "uses" : "use", s(&values), v);
    }
}

static bool bad_probe_hosts(const struct pod *p, const struct th_json *ct, struct th_strv *values)
{
    (void)p;
    static const char *const paths[] = {
        "livenessProbe.httpGet.host",       "livenessProbe.tcpSocket.host",
        "readinessProbe.httpGet.host",      "readinessProbe.tcpSocket.host",
        "startupProbe.httpGet.host",        "startupProbe.tcpSocket.host",
        "lifecycle.postStart.httpGet.host", "lifecycle.postStart.tcpSocket.host",
        "lifecycle.preStop.httpGet.host",   "lifecycle.preStop.tcpSocket.host"};
    bool any = false;
    for (size_t i = 0; i < TH_ARRAY_LEN(paths); i++) {
        const char *host = th_json_path_str(ct, paths[i]);
        if (host && *host) {
            add_once(values, host);
            any = true;
        }
    }
    return any;
}

static void check_probe_hosts(const struct pod *p)
{
    TH_CLEANUP(th_strv_done) struct th_strv names = {0};
    TH_CLEANUP(th_strv_done) struct th_strv values = {0};
    if (p->minor < 34) {
        return;
    }
    each_container(p, bad_probe_hosts, &names, &values);
    if (names.n > 0) {
        qsort(names.v, names.n, sizeof(*names.v), by_text);
        th_autofree char *n = quoted(&names), *v = quoted(&values);
        forbid(p, "probe or lifecycle host", "container%s %s %s probe or lifecycle host%s %s",
               s(&names), n, names.n == 1 ? "uses" : "use", s(&values), v);
    }
}

static bool bad_privileged(const struct pod *p, const struct th_json *ct, struct th_strv *values)
{
    (void)p;
    (void)values;
    return th_json_as_bool(ctx_of(ct, "privileged"), false);
}

static void check_privileged(const struct pod *p)
{
    TH_CLEANUP(th_strv_done) struct th_strv names = {0};
    each_container(p, bad_privileged, &names, NULL);
    th_autofree char *n = quoted(&names);
    if (names.n > 0) {
        forbid(p, "privileged", "container%s %s must not set securityContext.privileged=true",
               s(&names), n);
    }
}

static bool bad_proc_mount(const struct pod *p, const struct th_json *ct, struct th_strv *values)
{
    (void)p;
    const char *mount = th_json_str(ctx_of(ct, "procMount"));
    if (!mount || th_streq(mount, "Default")) {
        return false;
    }
    add_once(values, mount);
    return true;
}

static void check_proc_mount(const struct pod *p)
{
    TH_CLEANUP(th_strv_done) struct th_strv names = {0};
    TH_CLEANUP(th_strv_done) struct th_strv values = {0};
    each_container(p, bad_proc_mount, &names, &values);
    th_autofree char *n = quoted(&names), *v = quoted(&values);
    if (names.n > 0) {
        forbid(p, "procMount", "container%s %s must not set securityContext.procMount to %s",
               s(&names), n, v);
    }
}

static void check_proc_mount_baseline(const struct pod *p)
{
    if (!has_own_users(p)) {
        check_proc_mount(p);
    }
}

static bool bad_selinux(const struct pod *p, const struct th_json *o, struct th_strv *values)
{
    const struct th_json *opts = ctx_of(o, "seLinuxOptions");
    const char *type = th_json_path_str(opts, "type");
    const char *user = th_json_path_str(opts, "user"), *role = th_json_path_str(opts, "role");
    static const char *const fine[] = {"", "container_t", "container_init_t", "container_kvm_t"};
    bool ok = !type || (p->minor >= 31 && th_streq(type, "container_engine_t"));
    for (size_t i = 0; i < TH_ARRAY_LEN(fine); i++) {
        ok |= th_streq(type, fine[i]);
    }
    if (!ok) {
        add_once(values, type);
    }
    return !ok || (user && *user) || (role && *role);
}

static bool sets_user(const struct pod *p, const struct th_json *o, struct th_strv *values)
{
    (void)p;
    (void)values;
    const char *v = th_json_path_str(ctx_of(o, "seLinuxOptions"), "user");
    return v && *v;
}

static bool sets_role(const struct pod *p, const struct th_json *o, struct th_strv *values)
{
    (void)p;
    (void)values;
    const char *v = th_json_path_str(ctx_of(o, "seLinuxOptions"), "role");
    return v && *v;
}

static void check_selinux(const struct pod *p)
{
    TH_CLEANUP(th_strv_done) struct th_strv types = {0};
    TH_CLEANUP(th_strv_done) struct th_strv what = {0};
    th_autofree char *who = setters(p, bad_selinux, &types);
    if (!who) {
        return;
    }
    th_autofree char *user = setters(p, sets_user, NULL), *role = setters(p, sets_role, NULL);
    th_autofree char *q = quoted(&types);
    if (types.n > 0) {
        th_strv_addf(&what, "type%s %s", s(&types), q);
    }
    if (user) {
        th_strv_add(&what, "user may not be set");
    }
    if (role) {
        th_strv_add(&what, "role may not be set");
    }
    th_autofree char *all = join(&what, "", "; ");
    forbid(p, "seLinuxOptions", "%s set forbidden securityContext.seLinuxOptions: %s", who, all);
}

static bool bad_seccomp(const struct pod *p, const struct th_json *o, struct th_strv *values)
{
    (void)p;
    const struct th_json *profile = ctx_of(o, "seccompProfile");
    const char *type = th_json_path_str(profile, "type");
    if (!profile || th_streq(type, "RuntimeDefault") || th_streq(type, "Localhost")) {
        return false;
    }
    add_once(values, type ? type : "");
    return true;
}

/* True when something was said. */
static bool seccomp_set_badly(const struct pod *p)
{
    TH_CLEANUP(th_strv_done) struct th_strv values = {0};
    th_autofree char *who = setters(p, bad_seccomp, &values), *v = quoted(&values);
    if (who) {
        forbid(p, "seccompProfile", "%s must not set securityContext.seccompProfile.type to %s", who,
               v);
    }
    return who != NULL;
}

static void check_seccomp(const struct pod *p)
{
    if (p->minor >= 19) {
        (void)seccomp_set_badly(p);
    }
}

static void check_sysctls(const struct pod *p)
{
    static const struct {
        const char *name;
        int since;
    } fine[] = {{"kernel.shm_rmid_forced", 0},
                {"net.ipv4.ip_local_port_range", 0},
                {"net.ipv4.tcp_syncookies", 0},
                {"net.ipv4.ping_group_range", 0},
                {"net.ipv4.ip_unprivileged_port_start", 0},
                {"net.ipv4.ip_local_reserved_ports", 27},
                {"net.ipv4.tcp_keepalive_time", 29},
                {"net.ipv4.tcp_fin_timeout", 29},
                {"net.ipv4.tcp_keepalive_intvl", 29},
                {"net.ipv4.tcp_keepalive_probes", 29},
                {"net.ipv4.tcp_rmem", 32},
                {"net.ipv4.tcp_wmem", 32}};
    TH_CLEANUP(th_strv_done) struct th_strv bad = {0};
    const struct th_json *list = ctx_of(p->spec, "sysctls");
    for (size_t i = 0; i < th_json_len(list); i++) {
        const char *name = th_json_path_str(th_json_at(list, i), "name");
        bool ok = false;
        for (size_t k = 0; k < TH_ARRAY_LEN(fine) && !ok; k++) {
            ok = th_streq(name, fine[k].name) && p->minor >= fine[k].since;
        }
        if (!ok) {
            th_strv_add(&bad, name ? name : "");
        }
    }
    th_autofree char *all = join(&bad, "", ", ");
    if (bad.n > 0) {
        forbid(p, "forbidden sysctls", "%s", all);
    }
}

static bool bad_host_process(const struct pod *p, const struct th_json *o, struct th_strv *values)
{
    (void)p;
    (void)values;
    return th_json_path_bool(ctx_of(o, "windowsOptions"), "hostProcess", false);
}

static void check_host_process(const struct pod *p)
{
    th_autofree char *who = setters(p, bad_host_process, NULL);
    if (who) {
        forbid(p, "hostProcess", "%s must not set securityContext.windowsOptions.hostProcess=true",
               who);
    }
}

/* ---- Restricted ---- */

static bool may_escalate(const struct pod *p, const struct th_json *ct, struct th_strv *values)
{
    (void)p;
    (void)values;
    return th_json_as_bool(ctx_of(ct, "allowPrivilegeEscalation"), true);
}

static void check_escalation(const struct pod *p)
{
    TH_CLEANUP(th_strv_done) struct th_strv names = {0};
    if (p->minor < 8 || is_windows(p)) {
        return;
    }
    each_container(p, may_escalate, &names, NULL);
    th_autofree char *n = quoted(&names);
    if (names.n > 0) {
        forbid(p, "allowPrivilegeEscalation != false",
               "container%s %s must set securityContext.allowPrivilegeEscalation=false", s(&names),
               n);
    }
}

static bool keeps_capabilities(const struct pod *p, const struct th_json *ct,
                               struct th_strv *values)
{
    (void)p;
    (void)values;
    const struct th_json *drop = th_json_path(ctx_of(ct, "capabilities"), "drop");
    for (size_t i = 0; i < th_json_len(drop); i++) {
        if (th_streq(th_json_str(th_json_at(drop, i)), "ALL")) {
            return false;
        }
    }
    return true;
}

static bool adds_capabilities(const struct pod *p, const struct th_json *ct, struct th_strv *values)
{
    (void)p;
    static const char *const fine[] = {"NET_BIND_SERVICE", NULL};
    return add_others(th_json_path(ctx_of(ct, "capabilities"), "add"), NULL, fine, values);
}

static void check_capabilities_restricted(const struct pod *p)
{
    TH_CLEANUP(th_strv_done) struct th_strv keep = {0};
    TH_CLEANUP(th_strv_done) struct th_strv add = {0};
    TH_CLEANUP(th_strv_done) struct th_strv values = {0};
    TH_CLEANUP(th_strv_done) struct th_strv what = {0};
    if (p->minor < 22 || is_windows(p)) {
        return;
    }
    each_container(p, keeps_capabilities, &keep, NULL);
    each_container(p, adds_capabilities, &add, &values);
    th_autofree char *k = quoted(&keep), *a = quoted(&add), *v = quoted(&values);
    if (keep.n > 0) {
        th_strv_addf(&what, "container%s %s must set securityContext.capabilities.drop=[\"ALL\"]",
                     s(&keep), k);
    }
    if (add.n > 0) {
        th_strv_addf(&what, "container%s %s must not include %s in securityContext.capabilities.add",
                     s(&add), a, v);
    }
    th_autofree char *all = join(&what, "", "; ");
    if (what.n > 0) {
        forbid(p, "unrestricted capabilities", "%s", all);
    }
}

static void check_volumes(const struct pod *p)
{
    static const char *const fine[] = {"configMap", "csi",       "downwardAPI",
                                       "emptyDir",  "ephemeral", "image",
                                       "persistentVolumeClaim", "projected", "secret"};
    TH_CLEANUP(th_strv_done) struct th_strv names = {0};
    TH_CLEANUP(th_strv_done) struct th_strv types = {0};
    const struct th_json *list = th_json_get(p->spec, "volumes");
    for (size_t i = 0; i < th_json_len(list); i++) {
        const char *type = "unknown";
        bool ok = false;
        struct th_json_iter it = TH_JSON_ITER(th_json_at(list, i));
        while (th_json_next(&it)) {
            for (size_t k = 0; k < TH_ARRAY_LEN(fine); k++) {
                ok |= th_streq(it.name, fine[k]);
            }
            type = th_streq(it.name, "name") ? type : it.name;
        }
        if (!ok) {
            th_strv_add(&names, th_json_path_str(th_json_at(list, i), "name"));
            add_once(&types, type);
        }
    }
    th_autofree char *n = quoted(&names), *t = quoted(&types);
    if (names.n > 0) {
        forbid(p, "restricted volume types", "volume%s %s %s restricted volume type%s %s", s(&names), n,
               names.n == 1 ? "uses" : "use", s(&types), t);
    }
}

static bool roots_on_purpose(const struct pod *p, const struct th_json *o, struct th_strv *values)
{
    (void)p;
    (void)values;
    return !th_json_as_bool(ctx_of(o, "runAsNonRoot"), true);
}

static bool says_nothing_of_root(const struct pod *p, const struct th_json *ct,
                                 struct th_strv *values)
{
    (void)p;
    (void)values;
    return !ctx_of(ct, "runAsNonRoot");
}

static void check_non_root(const struct pod *p)
{
    TH_CLEANUP(th_strv_done) struct th_strv names = {0};
    if (has_own_users(p)) {
        return;
    }
    th_autofree char *who = setters(p, roots_on_purpose, NULL);
    if (who) {
        forbid(p, "runAsNonRoot != true", "%s must not set securityContext.runAsNonRoot=false", who);
        return;
    }
    if (!ctx_of(p->spec, "runAsNonRoot")) {
        each_container(p, says_nothing_of_root, &names, NULL);
    }
    th_autofree char *n = quoted(&names);
    if (names.n > 0) {
        forbid(p, "runAsNonRoot != true",
               "pod or container%s %s must set securityContext.runAsNonRoot=true", s(&names), n);
    }
}

static bool is_user_0(const struct pod *p, const struct th_json *o, struct th_strv *values)
{
    (void)p;
    (void)values;
    return th_json_as_int(ctx_of(o, "runAsUser"), -1) == 0;
}

static void check_user(const struct pod *p)
{
    if (p->minor < 23 || has_own_users(p)) {
        return;
    }
    th_autofree char *who = setters(p, is_user_0, NULL);
    if (who) {
        forbid(p, "runAsUser=0", "%s must not set runAsUser=0", who);
    }
}

static bool has_no_seccomp(const struct pod *p, const struct th_json *ct, struct th_strv *values)
{
    (void)p;
    (void)values;
    return !ctx_of(ct, "seccompProfile");
}

static void check_seccomp_restricted(const struct pod *p)
{
    TH_CLEANUP(th_strv_done) struct th_strv names = {0};
    if (p->minor < 19 || is_windows(p) || seccomp_set_badly(p)) {
        return;
    }
    if (!ctx_of(p->spec, "seccompProfile")) {
        each_container(p, has_no_seccomp, &names, NULL);
    }
    th_autofree char *n = quoted(&names);
    if (names.n > 0) {
        forbid(p, "seccompProfile",
               "pod or container%s %s must set securityContext.seccompProfile.type to "
               "\"RuntimeDefault\" or \"Localhost\"",
               s(&names), n);
    }
}

/* In the order of upstream's ids. What the restricted level checks more strictly is left to that. */
static const struct {
    void (*check)(const struct pod *p);
    bool restricted;
    bool replaced; /* at the restricted level */
} checks[] = {
    {check_apparmor, false, false},
    {check_capabilities, false, true},
    {check_host_namespaces, false, false},
    {check_host_paths, false, true},
    {check_host_ports, false, false},
    {check_probe_hosts, false, false},
    {check_privileged, false, false},
    {check_proc_mount_baseline, false, true},
    {check_selinux, false, false},
    {check_seccomp, false, true},
    {check_sysctls, false, false},
    {check_host_process, false, false},
    {check_escalation, true, false},
    {check_capabilities_restricted, true, false},
    {check_proc_mount, true, false},
    {check_volumes, true, false},
    {check_non_root, true, false},
    {check_user, true, false},
    {check_seccomp_restricted, true, false},
};

void th_ps_check(enum th_ps_level level, int minor, const struct th_json *annotations,
                 const struct th_json *spec, struct th_ps_result *ret)
{
    struct pod p = {.spec = spec, .annotations = annotations, .minor = minor, .ret = ret};
    for (size_t i = 0; i < TH_ARRAY_LEN(checks); i++) {
        bool applies = level == TH_PS_RESTRICTED ? !checks[i].replaced
                                                 : level == TH_PS_BASELINE && !checks[i].restricted;
        if (applies) {
            checks[i].check(&p);
        }
    }
}

void th_ps_result_done(struct th_ps_result *r)
{
    th_strv_done(&r->reasons);
    th_strv_done(&r->details);
}
