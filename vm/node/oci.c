/* config.json: from an image's config and a container's spec to what crun runs.
 *
 * Everything here is a pure function of its input (and /etc/passwd of the root for user names), so
 * that tests can compare whole documents. The rules are the CRI runtimes': command replaces the
 * entrypoint and drops the image's cmd, args replaces cmd; runAsUser beats the image's user;
 * privileged means all capabilities, all devices, nothing masked; allowPrivilegeEscalation false
 * sets no_new_privs. Default capabilities are containerd's, which are Docker's. */
#include "base/encode.h"
#include "base/io.h"
#include "base/limits.h"
#include "base/log.h"
#include "images/builder.h"
#include "vm/node/agent.h"

#include <errno.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

static const char *const DEFAULT_CAPS[] = {
    "CAP_CHOWN",  "CAP_DAC_OVERRIDE", "CAP_FSETID",           "CAP_FOWNER",    "CAP_MKNOD",
    "CAP_NET_RAW", "CAP_SETGID",      "CAP_SETUID",           "CAP_SETFCAP",   "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE", NULL};
/* By the kernel's numbers (linux/capability.h). */
static const char *const ALL_CAPS[] = {
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
    "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
    "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE"};

/* What "all capabilities" means here: those the agent has itself (some hosts take a few from root). */
static void all_caps(struct th_strv *ret)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    uint64_t have = UINT64_MAX;
    if (th_io_read_file("/proc/self/status", 64 << 10, &b, NULL) >= 0) {
        const char *eff = strstr(th_buf_cstr(&b), "CapEff:");
        have = eff ? strtoull(eff + 7, NULL, 16) : have;
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(ALL_CAPS); i++) {
        if (have >> i & 1) {
            th_strv_add(ret, ALL_CAPS[i]);
        }
    }
}

const struct th_json *oci_sec(const struct pod *p, const struct ctr *c, const char *field)
{
    const struct th_json *sc = th_json_get(c->spec, "securityContext");
    const struct th_json *v = th_json_get(sc, field);
    return v ? v : th_json_get(th_json_path(p->obj, "spec.securityContext"), field);
}

static bool ctr_privileged(const struct ctr *c)
{
    return th_json_path_bool(c->spec, "securityContext.privileged", false);
}

static const char *lookup_env(void *arg, const char *name)
{
    return th_json_str(th_json_get(arg, name));
}

static void add_expanded(struct th_json *args, const struct th_json *list, struct th_json *env)
{
    for (size_t i = 0; i < th_json_len(list); i++) {
        const char *s = th_json_str(th_json_at(list, i));
        th_autofree char *x = env_expand(s ? s : "", lookup_env, env);
        th_json_append_str(args, x);
    }
}

static void add_strv(struct th_json *args, const struct th_strv *l)
{
    for (size_t i = 0; i < l->n; i++) {
        th_json_append_str(args, l->v[i]);
    }
}

static struct th_json *make_args(const struct oci_in *in)
{
    struct th_json *args = th_json_array();
    struct th_json *cmd = th_json_get(in->c->spec, "command");
    struct th_json *arg = th_json_get(in->c->spec, "args");
    if (th_json_len(cmd) > 0) {
        add_expanded(args, cmd, in->env);
        add_expanded(args, arg, in->env);
        return args;
    }
    add_strv(args, &in->image->config.entrypoint);
    if (th_json_len(arg) > 0) {
        add_expanded(args, arg, in->env);
    } else {
        add_strv(args, &in->image->config.cmd);
    }
    return args;
}

static struct th_json *make_env(const struct oci_in *in, const char *home)
{
    TH_AUTO(th_json) struct th_json *vars = th_json_object();
    th_json_set_str(vars, "PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    th_autofree char *host = sandbox_hostname(in->p);
    th_json_set_str(vars, "HOSTNAME", host);
    if (th_json_path_bool(in->c->spec, "tty", false)) {
        th_json_set_str(vars, "TERM", "xterm");
    }
    for (size_t i = 0; i < in->image->config.env.n; i++) {
        const char *kv = in->image->config.env.v[i], *eq = strchr(kv, '=');
        th_autofree char *k = th_xstrndup(kv, eq ? (size_t)(eq - kv) : strlen(kv));
        th_json_set_str(vars, k, eq ? eq + 1 : "");
    }
    struct th_json_iter it = TH_JSON_ITER(in->env);
    while (th_json_next(&it)) {
        th_json_set_str(vars, it.name, th_json_str(it.value));
    }
    if (!th_json_has(vars, "HOME")) {
        th_json_set_str(vars, "HOME", home && *home ? home : "/");
    }
    struct th_json *env = th_json_array();
    struct th_json_iter all = TH_JSON_ITER(vars);
    while (th_json_next(&all)) {
        th_json_append(env, th_json_stringf("%s=%s", all.name, th_json_str(all.value)));
    }
    return env;
}

static bool numeric(const char *s)
{
    return s && *s && strspn(s, "0123456789") == strlen(s);
}

static void add_gid(struct th_json *gids, int64_t gid)
{
    for (size_t i = 0; i < th_json_len(gids); i++) {
        if (th_json_as_int(th_json_at(gids, i), -1) == gid) {
            return;
        }
    }
    th_json_append(gids, th_json_int(gid));
}

static int make_user(const struct oci_in *in, struct oci_user *u, char **ret_home, struct th_err *err)
{
    const struct th_json *run_user = oci_sec(in->p, in->c, "runAsUser");
    const struct th_json *run_group = oci_sec(in->p, in->c, "runAsGroup");
    bool non_root = th_json_as_bool(oci_sec(in->p, in->c, "runAsNonRoot"), false);
    const char *img_user = in->image->config.user ? in->image->config.user : "";
    th_autofree char *user = run_user ? th_xasprintf("%lld", (long long)th_json_as_int(run_user, 0))
                                      : th_xstrdup(img_user);
    if (non_root && !run_user) {
        th_autofree char *name = th_xstrndup(user, strcspn(user, ":"));
        char pod[512];
        const char *who = pod_display(in->p, pod);
        if (!*name || th_streq(name, "0") || (numeric(name) && strtol(name, NULL, 10) == 0)) {
            return th_fail(err, TH_R_INVALID,
                           "container has runAsNonRoot and image will run as root (pod: \"%s\", "
                           "container: %s)", who, in->c->name);
        }
        if (!numeric(name)) {
            return th_fail(err, TH_R_INVALID,
                           "container has runAsNonRoot and image has non-numeric user (%s), cannot "
                           "verify user is non-root (pod: \"%s\", container: %s)",
                           name, who, in->c->name);
        }
    }
    if (non_root && run_user && th_json_as_int(run_user, 0) == 0) {
        char pod[512];
        return th_fail(err, TH_R_INVALID,
                       "container's runAsUser breaks non-root policy (pod: \"%s\", container: %s)",
                       pod_display(in->p, pod), in->c->name);
    }
    uint32_t uid = 0, gid = 0, *gids = NULL;
    size_t n = 0;
    TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
    if (th_image_user(in->rootfs, *user ? user : "0", &uid, &gid, &gids, &n, ret_home, &e) < 0) {
        if (!numeric(user)) {
            th_err_move(err, &e);
            return -(int)err->reason;
        }
        uid = (uint32_t)strtoul(user, NULL, 10); /* an image without /etc/passwd */
    }
    u->uid = uid;
    u->gid = run_group ? th_json_as_int(run_group, 0) : (int64_t)gid;
    u->gids = th_json_array();
    add_gid(u->gids, u->gid);
    const char *policy = th_json_str(oci_sec(in->p, in->c, "supplementalGroupsPolicy"));
    for (size_t i = 0; i < n && !th_streq(policy, "Strict"); i++) {
        add_gid(u->gids, gids[i]);
    }
    free(gids);
    struct th_json *psc = th_json_path(in->p->obj, "spec.securityContext");
    struct th_json *extra = th_json_get(psc, "supplementalGroups");
    for (size_t i = 0; i < th_json_len(extra); i++) {
        add_gid(u->gids, th_json_as_int(th_json_at(extra, i), 0));
    }
    if (th_json_get(psc, "fsGroup")) {
        add_gid(u->gids, th_json_path_int(psc, "fsGroup", 0));
    }
    return 0;
}

static char *cap_name(const char *s)
{
    return th_startswith(s, "CAP_") ? th_xstrdup(s) : th_xasprintf("CAP_%s", s);
}

static struct th_json *make_caps(const struct oci_in *in, const struct oci_user *u)
{
    th_autostrv struct th_strv caps = TH_STRV_INIT;
    struct th_json *spec = th_json_path(in->c->spec, "securityContext.capabilities");
    struct th_json *add = th_json_get(spec, "add"), *drop = th_json_get(spec, "drop");
    bool add_all = ctr_privileged(in->c), drop_all = false;
    for (size_t i = 0; i < th_json_len(add); i++) {
        add_all = add_all || th_streq(th_json_str(th_json_at(add, i)), "ALL");
    }
    for (size_t i = 0; i < th_json_len(drop); i++) {
        drop_all = drop_all || th_streq(th_json_str(th_json_at(drop, i)), "ALL");
    }
    if (add_all) {
        all_caps(&caps);
    }
    for (const char *const *base = DEFAULT_CAPS; *base && !add_all && !drop_all; base++) {
        th_strv_add(&caps, *base);
    }
    for (size_t i = 0; i < th_json_len(add) && !add_all; i++) {
        th_autofree char *n = cap_name(th_json_str(th_json_at(add, i)));
        if (!th_strv_has(&caps, n)) {
            th_strv_add(&caps, n);
        }
    }
    TH_AUTO(th_json) struct th_json *list = th_json_array();
    for (size_t i = 0; i < caps.n; i++) {
        bool dropped = false;
        for (size_t k = 0; k < th_json_len(drop) && !ctr_privileged(in->c); k++) {
            th_autofree char *n = cap_name(th_json_str(th_json_at(drop, k)));
            dropped = dropped || th_streq(n, caps.v[i]);
        }
        if (!dropped) {
            th_json_append_str(list, caps.v[i]);
        }
    }
    struct th_json *o = th_json_object();
    th_json_set(o, "bounding", th_json_dup(list));
    /* A user other than root starts with none it may use, as in every runtime. */
    th_json_set(o, "effective", u->uid == 0 ? th_json_dup(list) : th_json_array());
    th_json_set(o, "permitted", u->uid == 0 ? th_json_dup(list) : th_json_array());
    return o;
}

static void mount_add(struct th_json *m, const char *dest, const char *type, const char *src,
                      const char *options)
{
    struct th_json *o = th_json_build("{'destination':%s,'type':%s,'source':%s}", dest, type, src);
    th_autostrv struct th_strv opts = TH_STRV_INIT;
    th_strv_split(&opts, options, ',');
    struct th_json *l = th_json_array();
    for (size_t i = 0; i < opts.n; i++) {
        th_json_append_str(l, opts.v[i]);
    }
    th_json_set(o, "options", l);
    th_json_append(m, o);
}

static bool mounted_by_volume(const struct oci_in *in, const char *dest)
{
    for (size_t i = 0; i < th_json_len(in->mounts); i++) {
        if (th_streq(th_json_path_str(th_json_at(in->mounts, i), "destination"), dest)) {
            return true;
        }
    }
    return false;
}

static void bind_file(const struct oci_in *in, struct th_json *m, const char *dest, const char *name)
{
    if (!mounted_by_volume(in, dest)) {
        th_autofree char *src = th_path_join(in->p->dir, name);
        mount_add(m, dest, "bind", src, "rbind,rprivate,rw");
    }
}

static struct th_json *make_mounts(const struct oci_in *in)
{
    struct th_json *m = th_json_array();
    bool priv = ctr_privileged(in->c);
    mount_add(m, "/proc", "proc", "proc", "nosuid,noexec,nodev");
    mount_add(m, "/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k");
    mount_add(m, "/dev/pts", "devpts", "devpts",
              "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5");
    mount_add(m, "/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev");
    if (in->p->host_network) {
        /* sysfs cannot be mounted in a network namespace that is not its user namespace's own */
        mount_add(m, "/sys", "bind", "/sys", priv ? "rbind,rw" : "rbind,nosuid,noexec,nodev,ro");
    } else {
        mount_add(m, "/sys", "sysfs", "sysfs", priv ? "nosuid,noexec,nodev,rw" : "nosuid,noexec,nodev,ro");
        mount_add(m, "/sys/fs/cgroup", "cgroup", "cgroup",
                  priv ? "nosuid,noexec,nodev,relatime,rw" : "nosuid,noexec,nodev,relatime,ro");
    }
    if (!mounted_by_volume(in, "/dev/shm")) {
        if (th_json_path_bool(in->p->obj, "spec.hostIPC", false)) {
            mount_add(m, "/dev/shm", "bind", "/dev/shm", "rbind,rprivate,rw");
        } else {
            th_autofree char *shm = th_path_join(in->p->dir, "shm");
            mount_add(m, "/dev/shm", "bind", shm, "rbind,rprivate,rw,nosuid,nodev,noexec");
        }
    }
    bind_file(in, m, "/etc/hosts", "etc-hosts");
    bind_file(in, m, "/etc/hostname", "hostname");
    bind_file(in, m, "/etc/resolv.conf", "resolv.conf");
    const char *tpath = th_json_path_str(in->c->spec, "terminationMessagePath");
    if (in->termination_log) {
        mount_add(m, tpath && *tpath ? tpath : "/dev/termination-log", "bind", in->termination_log,
                  "rbind,rprivate,rw");
    }
    for (size_t i = 0; i < th_json_len(in->mounts); i++) {
        th_json_append(m, th_json_dup(th_json_at(in->mounts, i)));
    }
    return m;
}

static void add_ns(struct th_json *l, const char *type, const char *path)
{
    struct th_json *o = th_json_object();
    th_json_set_str(o, "type", type);
    if (path) {
        th_json_set_str(o, "path", path);
    }
    th_json_append(l, o);
}

static struct th_json *make_namespaces(const struct oci_in *in)
{
    struct th_json *l = th_json_array();
    if (!th_json_path_bool(in->p->obj, "spec.hostPID", false)) {
        /* kubectl debug --target: sees that container's processes */
        const char *target = th_json_path_str(in->c->spec, "targetContainerName");
        struct ctr *seen = target && *target ? pod_ctr(in->p, target) : NULL;
        th_autofree char *ns = pod_shares_pids(in->p) ? sandbox_ns_path(in->p, "pid")
                               : seen && seen->cur.state == I_RUNNING
                                   ? th_xasprintf("/proc/%d/ns/pid", (int)seen->cur.pid)
                                   : NULL;
        add_ns(l, "pid", ns);
    }
    if (!th_json_path_bool(in->p->obj, "spec.hostIPC", false)) {
        th_autofree char *ipc = sandbox_ns_path(in->p, "ipc");
        add_ns(l, "ipc", ipc);
    }
    if (!in->p->host_network) {
        th_autofree char *net = sandbox_ns_path(in->p, "net");
        th_autofree char *uts = sandbox_ns_path(in->p, "uts");
        add_ns(l, "network", net);
        add_ns(l, "uts", uts);
    }
    add_ns(l, "mount", NULL);
    if (in->p->a->cg.version == CG_V2 && !ctr_privileged(in->c)) {
        add_ns(l, "cgroup", NULL);
    }
    return l;
}

static struct th_json *paths_of(const char *const *p)
{
    struct th_json *l = th_json_array();
    for (; *p; p++) {
        th_json_append_str(l, *p);
    }
    return l;
}

static struct th_json *make_devices_rule(bool privileged)
{
    struct th_json *l = th_json_array();
    if (privileged) {
        th_json_append(l, th_json_build("{'allow':%b,'access':'rwm'}", 1));
    } else {
        th_json_append(l, th_json_build("{'allow':%b,'access':'rwm'}", 0));
    }
    return l;
}

/* Every device of the node, for privileged containers. Those of /dev/pts and the like are made by
 * file systems of the container's own. */
static void add_devices(struct th_json *list, const char *dir, int depth)
{
    th_autostrv struct th_strv names = TH_STRV_INIT;
    list_or_none(dir, &names);
    for (size_t i = 0; i < names.n && th_json_len(list) < TH_LIMIT_DEVICES; i++) {
        static const char *const skip[] = {"/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd", "/dev/console",
                                           "/dev/ptmx"};
        th_autofree char *path = th_path_join(dir, names.v[i]);
        struct stat st;
        bool skipped = lstat(path, &st) < 0;
        for (size_t k = 0; k < TH_ARRAY_LEN(skip); k++) {
            skipped = skipped || th_streq(path, skip[k]);
        }
        if (skipped) {
            continue;
        }
        if (S_ISDIR(st.st_mode) && depth > 0) {
            add_devices(list, path, depth - 1);
        } else if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode)) {
            th_json_append(list, th_json_build("{'path':%s,'type':%s,'major':%d,'minor':%d,'fileMode':%d,"
                                               "'uid':%d,'gid':%d}", path, S_ISCHR(st.st_mode) ? "c" : "b",
                                               (int64_t)major(st.st_rdev), (int64_t)minor(st.st_rdev),
                                               (int64_t)(st.st_mode & 07777), (int64_t)st.st_uid,
                                               (int64_t)st.st_gid));
        }
    }
}

static int make_seccomp(const struct oci_in *in, struct th_json *linux_, struct th_err *err)
{
    if (ctr_privileged(in->c)) {
        return 0;
    }
    const struct th_json *prof = oci_sec(in->p, in->c, "seccompProfile");
    const char *type = th_json_path_str(prof, "type");
    if (!type || th_streq(type, "Unconfined")) {
        return 0; /* upstream's default without --seccomp-default */
    }
    if (th_streq(type, "RuntimeDefault")) {
        th_json_set(linux_, "seccomp", oci_seccomp_default());
        return 0;
    }
    const char *rel = th_json_path_str(prof, "localhostProfile");
    if (!rel || !th_path_is_inside(rel)) {
        return th_fail(err, TH_R_INVALID, "localhostProfile must be a relative path inside the node's "
                                          "seccomp folder");
    }
    th_autofree char *path = th_path_joinf(in->p->a->o.data, "seccomp/%s", rel);
    th_autobuf struct th_buf b = TH_BUF_INIT;
    TH_AUTO(th_json) struct th_json *o = NULL;
    if (th_io_read_file(path, 1 << 20, &b, err) < 0 || th_json_parse(b.p, b.n, NULL, &o, err) < 0) {
        return th_wrap(err, "cannot load seccomp profile \"%s\"", path);
    }
    th_json_set(linux_, "seccomp", th_steal(&o));
    return 0;
}

static int make_linux(const struct oci_in *in, struct th_json **ret, struct th_err *err)
{
    static const char *const masked[] = {
        "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys",
        "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug",
        "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap", NULL};
    static const char *const readonly[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
                                           "/proc/sysrq-trigger", NULL};
    bool priv = ctr_privileged(in->c);
    TH_AUTO(th_json) struct th_json *l = th_json_object();
    th_json_set(l, "namespaces", make_namespaces(in));
    th_json_set_str(l, "cgroupsPath", in->cgroup_path);
    struct th_json *res = cg_resources(in->p, in->c);
    th_json_set(res, "devices", make_devices_rule(priv));
    th_json_set(l, "resources", res);
    if (priv) {
        struct th_json *devices = th_json_array();
        add_devices(devices, "/dev", 2);
        th_json_set(l, "devices", devices);
    }
    const char *proc_mount = th_json_path_str(in->c->spec, "securityContext.procMount");
    if (!priv && !th_streq(proc_mount, "Unmasked")) {
        th_json_set(l, "maskedPaths", paths_of(masked));
        th_json_set(l, "readonlyPaths", paths_of(readonly));
    }
    TH_TRY(make_seccomp(in, l, err));
    const char *propagation = "rprivate";
    for (size_t i = 0; i < th_json_len(in->mounts); i++) {
        struct th_json *o = th_json_path(th_json_at(in->mounts, i), "options");
        for (size_t k = 0; k < th_json_len(o); k++) {
            const char *s = th_json_str(th_json_at(o, k));
            if (th_streq(s, "rshared")) {
                propagation = "rshared";
            } else if (th_streq(s, "rslave") && !th_streq(propagation, "rshared")) {
                propagation = "rslave";
            }
        }
    }
    th_json_set_str(l, "rootfsPropagation", propagation);
    *ret = th_steal(&l);
    return 0;
}

static struct th_json *make_process(const struct oci_in *in, const struct oci_user *u, const char *home)
{
    struct th_json *pr = th_json_object();
    bool tty = th_json_path_bool(in->c->spec, "tty", false);
    bool priv = ctr_privileged(in->c);
    th_json_set_bool(pr, "terminal", tty);
    struct th_json *user = th_json_object();
    th_json_set_int(user, "uid", u->uid);
    th_json_set_int(user, "gid", u->gid);
    th_json_set_int(user, "umask", 022);
    th_json_set(user, "additionalGids", th_json_dup(u->gids));
    th_json_set(pr, "user", user);
    th_json_set(pr, "args", make_args(in));
    th_json_set(pr, "env", make_env(in, home));
    const char *wd = th_json_path_str(in->c->spec, "workingDir");
    const char *img = in->image->config.workdir;
    th_json_set_str(pr, "cwd", wd && *wd ? wd : img && *img ? img : "/");
    th_json_set(pr, "capabilities", make_caps(in, u));
    th_json_set_bool(pr, "noNewPrivileges",
                     !priv && !th_json_path_bool(in->c->spec, "securityContext.allowPrivilegeEscalation",
                                                 true));
    th_json_set_int(pr, "oomScoreAdj", cg_oom_adj(in->p, in->c, node_memory_b()));
    return pr;
}

int oci_build(const struct oci_in *in, struct th_json **ret, struct oci_user *ret_user,
              struct th_err *err)
{
    struct oci_user u = {0};
    th_autofree char *home = NULL;
    TH_TRY(make_user(in, &u, &home, err));
    TH_AUTO(th_json) struct th_json *linux_ = NULL;
    TH_AUTO(th_json) struct th_json *pr = make_process(in, &u, home);
    int r = th_json_len(th_json_get(pr, "args")) == 0
                ? th_fail(err, TH_R_INVALID, "no command specified")
                : make_linux(in, &linux_, err);
    if (r < 0) {
        th_json_unref(u.gids);
        return r;
    }
    struct th_json *o = th_json_object();
    th_json_set_str(o, "ociVersion", "1.0.2");
    th_json_set(o, "process", th_steal(&pr));
    struct th_json *root = th_json_object();
    th_json_set_str(root, "path", in->rootfs);
    th_json_set_bool(root, "readonly", th_json_path_bool(in->c->spec,
                                                         "securityContext.readOnlyRootFilesystem", false));
    th_json_set(o, "root", root);
    th_json_set(o, "mounts", make_mounts(in));
    struct th_json *ann = th_json_object();
    th_json_set_str(ann, "io.kubernetes.pod.name", in->p->name);
    th_json_set_str(ann, "io.kubernetes.pod.namespace", in->p->ns);
    th_json_set_str(ann, "io.kubernetes.pod.uid", in->p->uid);
    th_json_set_str(ann, "io.kubernetes.container.name", in->c->name);
    th_json_set(o, "annotations", ann);
    th_json_set(o, "linux", th_steal(&linux_));
    *ret = o;
    *ret_user = u;
    return 0;
}
