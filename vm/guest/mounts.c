/* The kernel's file systems, sysctls and limits.
 *
 * The root image is read-only EROFS. What must be writable lies on tmpfs (identity, sockets) or,
 * after disk.c has mounted it, on the data disk: /var/log is bound from there because container logs
 * must outlive a reboot, and /opt, /srv, /mnt, /home, /data and /root as well, because hostPath
 * volumes of tutorials point there. /etc/thimble is a tmpfs of its own: keys are handed over at
 * every boot and never rest on the disk. */
#include "base/io.h"
#include "base/log.h"
#include "vm/guest/guest.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>

struct mount_row {
    const char *source, *target, *type;
    unsigned long flags;
    const char *data;
    bool may_fail;
};

static const struct mount_row basics[] = {
    {"dev", "/dev", "devtmpfs", MS_NOSUID, "mode=0755", true}, /* stage1 may have done it */
    {"proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, false},
    {"sys", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, false},
    {"run", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755", false},
    {"tmp", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777", false},
    {"etc", "/etc/thimble", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700,size=8m", false},
    {"pts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "mode=0620,gid=5,ptmxmode=0666", false},
    {"shm", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777", false},
    {"mqueue", "/dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, true},
    {"bpf", "/sys/fs/bpf", "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700", true},
};

int th_guest_mount_basics(struct th_err *err)
{
    for (size_t i = 0; i < TH_ARRAY_LEN(basics); i++) {
        const struct mount_row *m = &basics[i];
        (void)mkdir(m->target, 0755); /* below the devtmpfs; elsewhere it exists */
        if (mount(m->source, m->target, m->type, m->flags, m->data) < 0 && errno != EBUSY) {
            if (!m->may_fail) {
                return th_fail_errno(err, errno, TH_R_BOOT_FAILED, "mount %s", m->target);
            }
            th_debug("init", "mount skipped", "target=%s errno=%d", m->target, errno);
        }
    }
    static const char *const links[][2] = {{"/proc/self/fd", "/dev/fd"},
                                           {"/proc/self/fd/0", "/dev/stdin"},
                                           {"/proc/self/fd/1", "/dev/stdout"},
                                           {"/proc/self/fd/2", "/dev/stderr"}};
    for (size_t i = 0; i < TH_ARRAY_LEN(links); i++) {
        (void)symlink(links[i][0], links[i][1]);
    }
    /* Shared, as systemd makes it: mountPropagation: Bidirectional of a volume relies on it. */
    if (mount(NULL, "/", NULL, MS_REC | MS_SHARED, NULL) < 0) {
        th_warn("init", "root not shared", "errno=%d", errno);
    }
    (void)mkdir(TH_GUEST_RUN, 0755);
    TH_TRY(th_io_write_file("/run/resolv.conf", "nameserver " TH_NET_DNS "\n",
                            strlen("nameserver " TH_NET_DNS "\n"), 0644, err));
    return 0;
}

int th_guest_mount_cgroups(const char *root, struct th_err *err)
{
    if (mount("cgroup2", root, "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, "nsdelegate") < 0 &&
        errno != EBUSY) {
        return th_fail_errno(err, errno, TH_R_BOOT_FAILED, "mount %s", root);
    }
    th_autofree char *list = th_path_join(root, "cgroup.controllers");
    th_autobuf struct th_buf have = TH_BUF_INIT;
    TH_TRY(th_io_read_file(list, 4096, &have, err));
    static const char *const wanted[] = {"cpu", "cpuset", "io", "memory", "pids"};
    th_autofree char *own = th_path_join(root, "thimble");
    if (mkdir(own, 0755) < 0 && errno != EEXIST) {
        return th_fail_errno(err, errno, TH_R_BOOT_FAILED, "%s", own);
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(wanted); i++) {
        if (!strstr(th_buf_cstr(&have), wanted[i])) {
            continue;
        }
        th_autofree char *word = th_xasprintf("+%s", wanted[i]);
        const char *const folders[] = {root, own};
        for (size_t k = 0; k < TH_ARRAY_LEN(folders); k++) {
            th_autofree char *file = th_path_join(folders[k], "cgroup.subtree_control");
            TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
            if (th_io_write_file(file, word, strlen(word), 0644, &e) < 0) {
                th_warn("init", "controller not enabled", "name=%s error=%s", wanted[i],
                        th_log_q(e.msg));
            }
        }
    }
    return 0;
}

static const struct {
    const char *path, *value;
    bool host_too; /* belongs to the network namespace, so the host driver may set it */
} sysctls[] = {
    {"net/ipv4/ip_forward", "1", true},
    {"net/ipv4/conf/all/route_localnet", "1", true}, /* NodePorts on 127.0.0.1 */
    {"net/ipv4/conf/default/route_localnet", "1", true},
    {"net/ipv4/conf/all/rp_filter", "0", true},
    {"net/ipv4/conf/default/rp_filter", "0", true},
    {"net/ipv4/ping_group_range", "0 2147483647", true},
    {"net/ipv6/conf/all/forwarding", "1", true},
    {"net/ipv6/conf/default/accept_ra", "0", true},
    {"net/ipv6/conf/default/accept_dad", "0", true}, /* link-local addresses at once */
    {"net/core/somaxconn", "4096", true},
    {"net/ipv4/neigh/default/gc_thresh1", "4096", false},
    {"net/ipv4/neigh/default/gc_thresh2", "8192", false},
    {"net/ipv4/neigh/default/gc_thresh3", "16384", false},
    {"vm/overcommit_memory", "1", false}, /* as kubelet demands */
    {"vm/panic_on_oom", "0", false},
    {"vm/max_map_count", "262144", false},
    {"kernel/panic", "10", false},
    {"kernel/panic_on_oops", "1", false},
    {"kernel/pid_max", "4194304", false},
    {"kernel/keys/root_maxkeys", "1000000", false},
    {"kernel/keys/root_maxbytes", "25000000", false},
    {"fs/inotify/max_user_watches", "1048576", false},
    {"fs/inotify/max_user_instances", "8192", false},
};

void th_guest_sysctls(bool host)
{
    for (size_t i = 0; i < TH_ARRAY_LEN(sysctls); i++) {
        if (host && !sysctls[i].host_too) {
            continue;
        }
        th_autofree char *path = th_path_join("/proc/sys", sysctls[i].path);
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        if (th_io_write_file(path, sysctls[i].value, strlen(sysctls[i].value), 0644, &err) < 0) {
            th_debug("init", "sysctl not set", "name=%s error=%s", sysctls[i].path,
                     th_log_q(err.msg));
        }
    }
}

void th_guest_limits(void)
{
    struct rlimit files = {.rlim_cur = 1048576, .rlim_max = 1048576};
    if (setrlimit(RLIMIT_NOFILE, &files) < 0) {
        th_warn("init", "descriptor limit not raised", "errno=%d", errno);
    }
    struct rlimit core = {.rlim_cur = 0, .rlim_max = RLIM_INFINITY};
    (void)setrlimit(RLIMIT_CORE, &core);
}
