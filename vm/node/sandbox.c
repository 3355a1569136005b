/* The pod's sandbox: namespaces without a process.
 *
 * A thread unshares network, IPC and UTS namespaces, sets the host name and bind-mounts each onto
 * <run>/ns/<uid>/{net,ipc,uts}; the mounts keep the namespaces alive after the thread has ended, so
 * there is no pause container. <run> is a tmpfs: after a boot the mounts are gone, sandbox_alive
 * says so, and the worker makes a new sandbox. The network namespace is also linked as
 * <run>/netns/<uid>.
 *
 * A pid namespace cannot be held that way (it ends with its first process); for shareProcessNamespace
 * there is a process after all (pause.c).
 *
 * hostNetwork, hostIPC: that namespace is simply not made; UTS follows the network as in runc. */
#include "base/io.h"
#include "base/limits.h"
#include "base/log.h"
#include "vm/node/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>

#define NSFS_MAGIC 0x6e736673

char *sandbox_ns_path(const struct pod *p, const char *kind)
{
    return th_xasprintf("%s/%s/%s", p->a->ns_dir, p->uid, kind);
}

char *sandbox_hostname(const struct pod *p)
{
    if (p->host_network) {
        return th_xstrdup(p->a->o.name);
    }
    const char *h = th_json_path_str(p->obj, "spec.hostnameOverride");
    h = h && *h ? h : th_json_path_str(p->obj, "spec.hostname");
    char *name = th_xstrdup(h && *h ? h : p->name);
    /* Host names end at 63 characters, without a trailing dash or dot. */
    if (strlen(name) > 63) {
        size_t n = 63;
        while (n > 0 && (name[n - 1] == '-' || name[n - 1] == '.')) {
            n--;
        }
        name[n] = 0;
    }
    return name;
}

static char *sandbox_fqdn(const struct pod *p, const char *host)
{
    const char *override = th_json_path_str(p->obj, "spec.hostnameOverride");
    if (override && *override) {
        return NULL; /* it is the whole name */
    }
    const char *sub = th_json_path_str(p->obj, "spec.subdomain");
    if (!sub || !*sub) {
        return NULL;
    }
    return th_xasprintf("%s.%s.%s.svc.%s", host, sub, p->ns, p->a->o.cluster_domain);
}

struct ns_job {
    const char *dir;
    const char *hostname;
    const struct th_json *sysctls;
    bool net, ipc;
    char sysctl_bad[128];
    int error; /* errno, or 0 */
};

static int ns_pin(const char *dir, const char *kind)
{
    th_autofree char *target = th_path_join(dir, kind);
    th_autofree char *source = th_xasprintf("/proc/self/task/%ld/ns/%s", syscall(SYS_gettid), kind);
    th_autoclose int fd = open(target, O_RDONLY | O_CREAT | O_CLOEXEC, 0444);
    if (fd < 0 || mount(source, target, NULL, MS_BIND, NULL) < 0) {
        return errno;
    }
    return 0;
}

/* "net/ipv4/conf/eth0.1/x" is another way of writing "net.ipv4.conf.eth0/1.x": the first separator says
 * which. */
static char *sysctl_name(const char *given)
{
    char *name = th_xstrdup(given ? given : "");
    const char *first = strpbrk(name, "./");
    for (char *c = first && *first == '/' ? name : NULL; c && *c; c++) {
        *c = *c == '/' ? '.' : *c == '.' ? '/' : *c;
    }
    return name;
}

static void *ns_make(void *arg)
{
    struct ns_job *j = arg;
    int flags = (j->net ? CLONE_NEWNET | CLONE_NEWUTS : 0) | (j->ipc ? CLONE_NEWIPC : 0);
    if (flags && unshare(flags) < 0) {
        j->error = errno;
        return NULL;
    }
    if (j->net && sethostname(j->hostname, strlen(j->hostname)) < 0) {
        j->error = errno;
        return NULL;
    }
    if (j->net && ((j->error = ns_pin(j->dir, "net")) != 0 || (j->error = ns_pin(j->dir, "uts")) != 0)) {
        return NULL;
    }
    if (j->ipc && (j->error = ns_pin(j->dir, "ipc")) != 0) {
        return NULL;
    }
    for (size_t i = 0; i < th_json_len(j->sysctls); i++) {
        struct th_json *s = th_json_at(j->sysctls, i);
        const char *value = th_json_path_str(s, "value");
        th_autofree char *name = sysctl_name(th_json_path_str(s, "name"));
        th_autofree char *file = th_xasprintf("/proc/sys/%s", name);
        for (char *c = file + 10; *c; c++) {
            *c = *c == '.' ? '/' : *c == '/' ? '.' : *c;
        }
        if (!th_path_is_inside(file + 10) || !value ||
            th_io_write_file(file, value, strlen(value), 0644, NULL) < 0) {
            (void)snprintf(j->sysctl_bad, sizeof(j->sysctl_bad), "%s", name);
            j->error = EINVAL;
            return NULL;
        }
    }
    return NULL;
}

bool sandbox_alive(const struct pod *p)
{
    const char *kind = p->host_network ? "ipc" : "net";
    th_autofree char *ns = th_path_join(p->a->ns_dir, p->uid);
    if (pod_shares_pids(p) && !pause_alive(ns)) {
        return false;
    }
    if (p->host_network && th_json_path_bool(p->obj, "spec.hostIPC", false)) {
        return th_io_is_dir(ns);
    }
    th_autofree char *path = sandbox_ns_path(p, kind);
    struct statfs s;
    return statfs(path, &s) == 0 && s.f_type == NSFS_MAGIC;
}

static void ns_drop(const char *dir)
{
    static const char *const kinds[] = {"net", "uts", "ipc", "pid"};
    pause_end(dir);
    for (size_t i = 0; i < TH_ARRAY_LEN(kinds); i++) {
        th_autofree char *path = th_path_join(dir, kinds[i]);
        while (umount2(path, MNT_DETACH) == 0) {
        }
        (void)unlink(path);
    }
    (void)rmdir(dir);
}

void sandbox_prune(struct agent *a, const struct th_strv *keep)
{
    th_autostrv struct th_strv names = TH_STRV_INIT;
    list_or_none(a->ns_dir, &names);
    for (size_t i = 0; i < names.n; i++) {
        if (!th_strv_has(keep, names.v[i])) {
            th_autofree char *dir = th_path_join(a->ns_dir, names.v[i]);
            ns_drop(dir);
        }
    }
}

/* Those that change nothing outside of the pod: upstream's safe set. */
static const char *const SAFE_SYSCTLS[] = {"kernel.shm_rmid_forced",
                                           "net.ipv4.ip_local_port_range",
                                           "net.ipv4.tcp_syncookies",
                                           "net.ipv4.ping_group_range",
                                           "net.ipv4.ip_unprivileged_port_start",
                                           "net.ipv4.ip_local_reserved_ports",
                                           "net.ipv4.tcp_keepalive_time",
                                           "net.ipv4.tcp_fin_timeout",
                                           "net.ipv4.tcp_keepalive_intvl",
                                           "net.ipv4.tcp_keepalive_probes",
                                           "net.ipv4.tcp_rmem",
                                           "net.ipv4.tcp_wmem"};

char *sandbox_bad_sysctl(const struct pod *p)
{
    const struct th_json *list = th_json_path(p->obj, "spec.securityContext.sysctls");
    bool host_ipc = th_json_path_bool(p->obj, "spec.hostIPC", false);
    for (size_t i = 0; i < th_json_len(list); i++) {
        th_autofree char *name = sysctl_name(th_json_path_str(th_json_at(list, i), "name"));
        bool safe = false;
        for (size_t k = 0; k < TH_ARRAY_LEN(SAFE_SYSCTLS); k++) {
            safe = safe || th_streq(name, SAFE_SYSCTLS[k]);
        }
        if (!safe) {
            return th_xasprintf("\"%s\" not allowlisted", name);
        }
        bool net = th_startswith(name, "net.");
        if (net ? p->host_network : host_ipc) {
            return th_xasprintf("\"%s\" not allowed with host %s enabled", name, net ? "net" : "ipc");
        }
    }
    return NULL;
}

int sandbox_ensure(struct pod *p, struct th_err *err)
{
    /* namespaces without an address are those of an agent that was killed on the way */
    if (sandbox_alive(p) && p->ip) {
        return 0;
    }
    th_autofree char *dir = th_path_join(p->a->ns_dir, p->uid);
    ns_drop(dir);
    TH_TRY(th_io_mkdir_p(dir, 0700, err));
    th_autofree char *host = sandbox_hostname(p);
    th_autofree char *fqdn = sandbox_fqdn(p, host);
    bool as_fqdn = fqdn && th_json_path_bool(p->obj, "spec.setHostnameAsFQDN", false);
    if (as_fqdn && strlen(fqdn) > 64) {
        return th_fail(err, TH_R_INVALID,
                       "Failed to construct FQDN from Pod hostname and cluster domain, FQDN %s is too "
                       "long (64 characters is the max, %zu characters requested)",
                       fqdn, strlen(fqdn));
    }
    struct ns_job j = {.dir = dir,
                       .hostname = as_fqdn ? fqdn : host,
                       .sysctls = th_json_path(p->obj, "spec.securityContext.sysctls"),
                       .net = !p->host_network,
                       .ipc = !th_json_path_bool(p->obj, "spec.hostIPC", false)};
    pthread_t t;
    int e = pthread_create(&t, NULL, ns_make, &j);
    if (e != 0) {
        return th_fail_errno(err, e, TH_R_INTERNAL, "starting a thread");
    }
    pthread_join(t, NULL);
    if (j.error) {
        ns_drop(dir);
        if (j.sysctl_bad[0]) {
            return th_fail(err, TH_R_INVALID, "sysctl \"%s\" could not be set", j.sysctl_bad);
        }
        return th_fail_errno(err, j.error, TH_R_IO, "creating the pod's namespaces");
    }
    int r = pod_shares_pids(p) ? pause_start(p->a, dir, err) : 0;
    if (r < 0) {
        ns_drop(dir);
        return r;
    }
    free(p->ip);
    p->ip = NULL;
    if (p->host_network) {
        p->ip = th_xstrdup(p->a->o.node_ip);
        return 0;
    }
    char ip[TH_NET_IP_LEN];
    th_autofree char *net = sandbox_ns_path(p, "net");
    r = th_net_pod_add(p->a->net, net, p->uid, ip, err);
    if (r < 0) {
        ns_drop(dir);
        return th_wrap(err, "setup network for sandbox");
    }
    p->ip = th_xstrdup(ip);
    return 0;
}

void sandbox_remove(struct pod *p)
{
    th_autofree char *dir = th_path_join(p->a->ns_dir, p->uid);
    if (!p->host_network) {
        th_net_pod_del(p->a->net, p->uid);
    }
    ns_drop(dir);
}

/* ---- files ---- */

static void hosts_text(struct pod *p, struct th_buf *b, const char *host, const char *fqdn)
{
    if (p->host_network) {
        th_buf_puts(b, "# Kubernetes-managed hosts file (host network).\n");
        if (th_io_read_file("/etc/hosts", 1 << 20, b, NULL) < 0) {
            th_buf_puts(b, "127.0.0.1\tlocalhost\n");
        }
    } else {
        th_buf_puts(b, "# Kubernetes-managed hosts file.\n"
                       "127.0.0.1\tlocalhost\n"
                       "::1\tlocalhost ip6-localhost ip6-loopback\n"
                       "fe00::\tip6-localnet\n"
                       "fe00::\tip6-mcastprefix\n"
                       "fe00::1\tip6-allnodes\n"
                       "fe00::2\tip6-allrouters\n");
        th_buf_printf(b, "%s\t%s%s%s\n", p->ip, fqdn ? fqdn : "", fqdn ? "\t" : "", host);
    }
    struct th_json *aliases = th_json_path(p->obj, "spec.hostAliases");
    if (th_json_len(aliases) > 0) {
        th_buf_puts(b, "\n# Entries added by HostAliases.\n");
    }
    for (size_t i = 0; i < th_json_len(aliases); i++) {
        struct th_json *names = th_json_path(th_json_at(aliases, i), "hostnames");
        th_buf_puts(b, th_json_path_str(th_json_at(aliases, i), "ip"));
        for (size_t k = 0; k < th_json_len(names); k++) {
            th_buf_printf(b, "\t%s", th_json_str(th_json_at(names, k)));
        }
        th_buf_putc(b, '\n');
    }
}

static void add_unique(struct th_strv *l, const char *s)
{
    if (s && *s && !th_strv_has(l, s)) {
        th_strv_add(l, s);
    }
}

static void resolv_host(struct th_strv *servers, struct th_strv *search, struct th_strv *options)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    if (th_io_read_file("/etc/resolv.conf", 64 << 10, &b, NULL) < 0) {
        return;
    }
    th_autostrv struct th_strv lines = TH_STRV_INIT;
    th_strv_split(&lines, th_buf_cstr(&b), '\n');
    for (size_t i = 0; i < lines.n; i++) {
        for (char *c = lines.v[i]; *c; c++) {
            *c = *c == '\t' ? ' ' : *c;
        }
        th_autostrv struct th_strv words = TH_STRV_INIT;
        th_strv_split(&words, lines.v[i], ' ');
        struct th_strv *to = th_streq(words.v[0], "nameserver") ? servers
                             : th_streq(words.v[0], "search")   ? search
                             : th_streq(words.v[0], "options")  ? options
                                                                : NULL;
        for (size_t k = 1; to && k < words.n; k++) {
            add_unique(to, words.v[k]);
        }
    }
}

static void resolv_text(struct pod *p, struct th_buf *b)
{
    th_autostrv struct th_strv servers = TH_STRV_INIT, search = TH_STRV_INIT, options = TH_STRV_INIT;
    const char *policy = th_json_path_str(p->obj, "spec.dnsPolicy");
    bool cluster = !policy || th_streq(policy, "ClusterFirstWithHostNet") ||
                   (th_streq(policy, "ClusterFirst") && !p->host_network);
    if (cluster) {
        add_unique(&servers, p->a->o.cluster_dns);
        th_strv_addf(&search, "%s.svc.%s", p->ns, p->a->o.cluster_domain);
        th_strv_addf(&search, "svc.%s", p->a->o.cluster_domain);
        add_unique(&search, p->a->o.cluster_domain);
        add_unique(&options, "ndots:5");
    } else if (!th_streq(policy, "None")) {
        resolv_host(&servers, &search, &options);
    }
    struct th_json *cfg = th_json_path(p->obj, "spec.dnsConfig");
    struct th_json *l = th_json_get(cfg, "nameservers");
    for (size_t i = 0; i < th_json_len(l); i++) {
        add_unique(&servers, th_json_str(th_json_at(l, i)));
    }
    l = th_json_get(cfg, "searches");
    for (size_t i = 0; i < th_json_len(l); i++) {
        add_unique(&search, th_json_str(th_json_at(l, i)));
    }
    l = th_json_get(cfg, "options");
    for (size_t i = 0; i < th_json_len(l); i++) {
        const char *name = th_json_path_str(th_json_at(l, i), "name");
        const char *value = th_json_path_str(th_json_at(l, i), "value");
        size_t n = name ? strlen(name) : 0;
        size_t out = 0;
        for (size_t k = 0; n && k < options.n; k++) { /* an option given by the pod replaces ours */
            bool same = strncmp(options.v[k], name, n) == 0 &&
                        (options.v[k][n] == 0 || options.v[k][n] == ':');
            if (same) {
                free(options.v[k]);
            } else {
                options.v[out++] = options.v[k];
            }
        }
        if (n) {
            options.n = out;
            th_strv_addf(&options, "%s%s%s", name, value ? ":" : "", value ? value : "");
        }
    }
    if (search.n > 0) {
        th_autofree char *s = th_strv_join(&search, " ");
        th_buf_printf(b, "search %s\n", s);
    }
    for (size_t i = 0; i < servers.n && i < 3; i++) {
        th_buf_printf(b, "nameserver %s\n", servers.v[i]);
    }
    if (options.n > 0) {
        th_autofree char *s = th_strv_join(&options, " ");
        th_buf_printf(b, "options %s\n", s);
    }
}

static int put_file(struct pod *p, const char *name, const struct th_buf *b, struct th_err *err)
{
    th_autofree char *path = th_path_join(p->dir, name);
    /* In place: containers have the file itself mounted. */
    return th_io_write_file(path, b->p, b->n, 0644, err);
}

int sandbox_write_files(struct pod *p, struct th_err *err)
{
    th_autofree char *host = sandbox_hostname(p);
    th_autofree char *fqdn = sandbox_fqdn(p, host);
    th_autobuf struct th_buf b = TH_BUF_INIT;
    hosts_text(p, &b, host, fqdn);
    TH_TRY(put_file(p, "etc-hosts", &b, err));
    th_buf_clear(&b);
    th_buf_printf(&b, "%s\n", host);
    TH_TRY(put_file(p, "hostname", &b, err));
    th_buf_clear(&b);
    resolv_text(p, &b);
    return put_file(p, "resolv.conf", &b, err);
}
