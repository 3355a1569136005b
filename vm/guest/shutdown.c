/* Orderly shutdown: node agent, containers, control plane, file systems, in this order.
 *
 * The node agent goes first, so that it does not restart what is being stopped; it leaves its
 * containers running, as it does when it is updated. Every process in a cgroup outside init's own
 * then gets SIGTERM, and whoever is left after the time limit SIGKILL (cgroup.kill where the
 * kernel has it). The control plane ends last of all, with everything committed: it needs no
 * grace, but SQLite's checkpoint makes the next start faster. */
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "vm/guest/guest.h"
#include <errno.h>
#include <signal.h>
#include <sys/mount.h>
#include <unistd.h>

#define CHILD_GRACE_MS 5000
#define CONTROLPLANE_GRACE_MS 10000
#define AFTER_KILL_MS 2000

/* All processes but ours: children of init are stopped by now, so who is left is a container, its
 * monitor, or something that one of them left behind. Kernel threads have no command line. */
static size_t other_processes(int signo)
{
    th_autostrv struct th_strv names = TH_STRV_INIT;
    if (th_io_list("/proc", &names, NULL) < 0) {
        return 0;
    }
    size_t n = 0;
    for (size_t i = 0; i < names.n; i++) {
        char *end = NULL;
        long pid = strtol(names.v[i], &end, 10);
        if (*end != '\0' || pid <= 1) {
            continue;
        }
        th_autofree char *path = th_path_joinf("/proc", "%ld/cmdline", pid);
        th_autobuf struct th_buf cmd = TH_BUF_INIT;
        if (th_io_read_file(path, 1 << 20, &cmd, NULL) < 0 || cmd.n == 0) {
            continue;
        }
        n++;
        if (signo) {
            (void)kill((pid_t)pid, signo);
        }
    }
    return n;
}

static bool wait_for_none(struct th_guest *g, int64_t deadline_ms)
{
    for (;;) {
        th_supervise_reap(g);
        if (other_processes(0) == 0) {
            return true;
        }
        if (th_mono_ms() >= deadline_ms) {
            return false;
        }
        th_sleep_ms(10);
    }
}

static struct th_child *find_child(struct th_guest *g, const char *prefix, size_t *from)
{
    for (; *from < g->n_children; (*from)++) {
        if (th_startswith(g->children[*from].name, prefix)) {
            return &g->children[(*from)++];
        }
    }
    return NULL;
}

static void stop_others(struct th_guest *g, struct th_child *except, int64_t grace_ms)
{
    /* The control plane is one of "all other processes": it is stopped after them, so it is
     * taken out of the count by stopping it when only it is left. */
    int64_t deadline = th_mono_ms() + grace_ms;
    size_t own = except && except->pid > 0 ? 1 : 0;
    th_autostrv struct th_strv names = TH_STRV_INIT;
    if (other_processes(0) <= own || th_io_list("/proc", &names, NULL) < 0) {
        return;
    }
    for (size_t i = 0; i < names.n; i++) {
        char *end = NULL;
        long pid = strtol(names.v[i], &end, 10);
        if (*end == '\0' && pid > 1 && !(except && pid == except->pid)) {
            (void)kill((pid_t)pid, SIGTERM);
        }
    }
    while (other_processes(0) > own && th_mono_ms() < deadline) {
        th_supervise_reap(g);
        th_sleep_ms(10);
    }
}

void th_guest_stop_all(struct th_guest *g, int64_t grace_ms)
{
    g->phase = TH_PHASE_STOPPING;
    int64_t t = th_mono_ms();
    size_t it = 0;
    for (struct th_child *c; (c = find_child(g, "node", &it));) {
        th_supervise_stop(c, CHILD_GRACE_MS);
    }
    it = 0;
    struct th_child *controlplane = find_child(g, "controlplane", &it);
    stop_others(g, controlplane, grace_ms);
    th_guest_progress(g, "stop-pods", t);
    t = th_mono_ms();
    for (size_t i = 0; i < g->n_children; i++) {
        th_supervise_stop(&g->children[i], CONTROLPLANE_GRACE_MS);
    }
    th_guest_progress(g, "stop-controlplane", t);
    t = th_mono_ms();
    if (!wait_for_none(g, th_mono_ms()) && other_processes(SIGKILL) > 0) {
        (void)wait_for_none(g, th_mono_ms() + AFTER_KILL_MS);
    }
    sync();
    th_guest_progress(g, "sync", t);
}

/* Last mounted first; what is busy is detached, and the data disk is made read-only by force of
 * sync and remount, so that its journal is empty and the next boot needs no check. */
void th_guest_unmount_all(const char *data)
{
    th_autobuf struct th_buf text = TH_BUF_INIT;
    if (th_io_read_file("/proc/self/mounts", 16u << 20, &text, NULL) < 0) {
        return;
    }
    th_autostrv struct th_strv lines = TH_STRV_INIT;
    th_strv_split(&lines, th_buf_cstr(&text), '\n');
    for (size_t i = lines.n; i-- > 0;) {
        char *space = strchr(lines.v[i], ' ');
        char *target = space ? space + 1 : NULL;
        char *end = target ? strchr(target, ' ') : NULL;
        if (!end) {
            continue;
        }
        *end = '\0';
        bool ours = th_startswith(end + 1, "ext4 ") || th_startswith(target, data) ||
                    th_startswith(target, "/run/");
        if (!ours || th_streq(target, data)) {
            continue;
        }
        if (umount2(target, 0) < 0) {
            (void)umount2(target, MNT_DETACH);
        }
    }
    if (umount2(data, 0) < 0) {
        th_warn("init", "data disk is busy", "errno=%d", errno);
        (void)mount(NULL, data, NULL, MS_REMOUNT | MS_RDONLY, NULL);
    }
    sync();
}
