/* The host driver: the cluster on this very system, without a virtual machine.
 *
 * What runs is thimbled's supervisor (vm/guest/hostmode.c), a process of its own session with the
 * cluster in namespaces below it. The state folder has its sockets: control.sock (init's, as in a
 * VM), relay.sock (ports), and the folders run/ and etc/, on which only the cluster sees the tmpfs
 * that is mounted there. init.pid names the cluster's PID 1: when that is gone, so is every process,
 * mount, link and firewall rule of the cluster. Left are empty control groups named by
 * cgroup_name(), which kill removes.
 *
 * Needs root: container images own files of any user, and namespaces with a network of their own need
 * its rights. */
#include "base/clock.h"
#include "base/io.h"
#include "base/proc.h"
#include "vm/launcher/channel.h"
#include "vm/launcher/driver.h"
#include "vm/launcher/protocol.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define START_MS 15000
#define KILL_WAIT_MS 20000
#define ASK_MS 5000
#define READY_FD 3

static int check(struct th_err *err)
{
    if (geteuid() != 0) {
        (void)th_fail(err, TH_R_NO_PERMISSION, "the host driver needs root");
        return th_hint(err, "run it with sudo, or use --driver libvirt");
    }
    static const char *const tools[] = {"crun", "conmon"};
    for (size_t i = 0; i < TH_ARRAY_LEN(tools); i++) {
        th_autofree char *path = th_proc_find(tools[i]);
        if (!path) {
            (void)th_fail(err, TH_R_NO_TOOL, "%s is not installed", tools[i]);
            return th_hint(err, "sudo apt-get install --no-install-recommends crun conmon");
        }
    }
    if (!th_io_exists("/sys/fs/cgroup/cgroup.controllers") &&
        !th_io_is_dir("/sys/fs/cgroup/memory")) {
        (void)th_fail(err, TH_R_UNSUPPORTED, "no control groups are mounted at /sys/fs/cgroup");
        return th_hint(err, "use --driver libvirt");
    }
    return 0;
}

/* The same for every command on this profile, even when its settings are damaged; different for
 * profiles of one name below different folders. */
static char *cgroup_name(const struct th_profile *p)
{
    uint32_t h = 2166136261u;
    for (const char *c = p->state; *c; c++) {
        h = (h ^ (unsigned char)*c) * 16777619u;
    }
    return th_xasprintf("thimble-%s-%08x", p->name, h);
}

static bool rmdir_tree(const char *dir)
{
    th_autostrv struct th_strv names = TH_STRV_INIT;
    if (th_io_list(dir, &names, NULL) < 0) {
        return true;
    }
    for (size_t i = 0; i < names.n; i++) {
        th_autofree char *sub = th_path_join(dir, names.v[i]);
        if (th_io_is_dir(sub)) {
            (void)rmdir_tree(sub);
        }
    }
    return rmdir(dir) == 0 || errno == ENOENT;
}

/* Groups stay busy for a moment after their last process. */
static void remove_cgroups(const struct th_profile *p, int64_t deadline_ms)
{
    th_autofree char *name = cgroup_name(p);
    th_autostrv struct th_strv dirs = TH_STRV_INIT, mounts = TH_STRV_INIT;
    th_strv_take(&dirs, th_path_join("/sys/fs/cgroup", name));
    if (th_io_list("/sys/fs/cgroup", &mounts, NULL) == 0) {
        for (size_t i = 0; i < mounts.n; i++) {
            th_strv_addf(&dirs, "/sys/fs/cgroup/%s/%s", mounts.v[i], name);
        }
    }
    for (size_t i = 0; i < dirs.n; i++) {
        while (th_io_is_dir(dirs.v[i]) && !rmdir_tree(dirs.v[i]) && th_mono_ms() < deadline_ms) {
            th_sleep_ms(10);
        }
    }
}

static pid_t read_init(const struct th_profile *p)
{
    th_autofree char *path = th_profile_file(p, TH_HOST_PID);
    th_autobuf struct th_buf text = TH_BUF_INIT;
    if (th_io_read_file(path, 64, &text, NULL) < 0) {
        return 0;
    }
    char *end = NULL;
    long pid = strtol(th_buf_cstr(&text), &end, 10);
    uint64_t ticks = strtoull(end, NULL, 10);
    return th_process_is((pid_t)pid, ticks) ? (pid_t)pid : 0;
}

static int kill_machine(struct th_profile *p, struct th_err *err)
{
    int64_t deadline = th_mono_ms() + KILL_WAIT_MS;
    pid_t outer, init = 0;
    for (;;) {
        outer = th_profile_alive(p);
        init = read_init(p);
        if (outer > 0) {
            (void)kill(outer, SIGKILL);
            (void)waitpid(outer, NULL, WNOHANG); /* when it is this command that started it */
        }
        if (init > 0) {
            (void)kill(init, SIGKILL);
        }
        if ((outer <= 0 && init <= 0) || th_mono_ms() >= deadline) {
            break;
        }
        th_sleep_ms(5);
    }
    if (outer > 0 || init > 0) {
        return th_fail(err, TH_R_INTERNAL, "the process %d does not end", (int)(init > 0 ? init : outer));
    }
    remove_cgroups(p, deadline);
    static const char *const files[] = {TH_HOST_CONTROL, TH_HOST_RELAY, TH_HOST_PID};
    for (size_t i = 0; i < TH_ARRAY_LEN(files); i++) {
        th_autofree char *path = th_profile_file(p, files[i]);
        (void)unlink(path);
    }
    return 0;
}

static int ask(struct th_profile *p, const char *op, const struct th_machine_port *port, struct th_err *err)
{
    th_autofree char *path = th_profile_file(p, TH_HOST_RELAY);
    int64_t deadline = th_mono_ms() + ASK_MS;
    TH_AUTO_CHANNEL struct th_channel c = TH_CHANNEL_INIT;
    TH_TRY(th_channel_connect(&c, path, TH_PORTS_LINE_MAX, 0, deadline, err));
    TH_TRY(th_channel_send(&c,
                           th_json_build("{'op':%s,'host_ip':%s,'host_port':%d,'guest_ip':%s,"
                                         "'guest_port':%d,'proto':%s}",
                                         op, port->host_ip, (int64_t)port->host_port, port->guest_ip,
                                         (int64_t)port->guest_port, port->proto),
                           err));
    TH_AUTO(th_json) struct th_json *reply = NULL;
    TH_TRY(th_channel_recv(&c, deadline, &reply, err));
    if (th_json_path_bool(reply, "ok", false)) {
        return 0;
    }
    const char *code = th_json_path_str(reply, "reason"), *msg = th_json_path_str(reply, "msg");
    enum th_reason reason = TH_R_INTERNAL;
    for (int r = 1; r < TH_R_COUNT_; r++) {
        if (th_streq(th_reason_code((enum th_reason)r), code)) {
            reason = (enum th_reason)r;
        }
    }
    return th_fail(err, reason, "%s", msg ? msg : "the port cannot be relayed");
}

static int port_add(struct th_profile *p, const struct th_machine_port *port, struct th_err *err)
{
    return ask(p, "add", port, err);
}

static int port_remove(struct th_profile *p, const struct th_machine_port *port, struct th_err *err)
{
    return ask(p, "remove", port, err);
}

/* What the supervisor says on its ready pipe: "ok", or why not. */
static int wait_ok(int fd, struct th_err *err)
{
    th_autobuf struct th_buf word = TH_BUF_INIT;
    TH_TRY(th_io_read_fd(fd, 4096, &word, err)); /* it, or its end, closes the pipe */
    if (th_streq(th_buf_cstr(&word), "ok\n")) {
        return 0;
    }
    if (word.n > 0) {
        th_buf_truncate(&word, word.n - 1);
    }
    return th_fail(err, TH_R_BOOT_FAILED, "%s",
                   word.n ? th_buf_cstr(&word) : "the supervisor ended at once");
}

static pid_t spawn(const struct th_machine_spec *spec, int ready_fd, int log_fd, struct th_err *err)
{
    struct th_profile *p = spec->profile;
    th_autofree char *run = th_profile_file(p, TH_HOST_RUN), *etc = th_profile_file(p, TH_HOST_ETC);
    th_autofree char *relay = th_profile_file(p, TH_HOST_RELAY), *pid_file = th_profile_file(p, TH_HOST_PID);
    th_autofree char *name = cgroup_name(p), *parent = th_xasprintf("/%s", name);
    const char *argv[] = {spec->thimbled, "init",        "--host",      "--data",          spec->disk,
                          "--run",        run,           "--etc",       etc,               "--control",
                          spec->control,  "--relay",     relay,         "--profile",       p->name,
                          "--program",    spec->program, "--pid-file",  pid_file,          "--cgroup-parent",
                          parent,         "--ready-fd",  "3",           NULL};
    int as = READY_FD;
    struct th_proc_opts o = {.argv = argv, .cwd = "/", .stdin_fd = -1, .stdout_fd = log_fd,
                             .stderr_fd = log_fd, .keep_fds = &ready_fd, .keep_as = &as, .n_keep = 1,
                             .new_session = true};
    return th_proc_start(&o, err);
}

static int check_socket_path(const struct th_profile *p, struct th_err *err)
{
    /* The longest ones are those that conmon makes for kubectl attach. */
    size_t need = strlen(p->state) + strlen("/" TH_HOST_RUN "/node.sock");
    if (need >= sizeof(((struct sockaddr_un *)NULL)->sun_path)) {
        (void)th_fail(err, TH_R_USAGE, "the path %s is too long for Unix sockets", p->state);
        return th_hint(err, "set XDG_STATE_HOME to a shorter folder");
    }
    return 0;
}

static int start(const struct th_machine_spec *spec, pid_t *ret_pid, struct th_err *err)
{
    struct th_profile *p = spec->profile;
    TH_TRY(check_socket_path(p, err));
    TH_TRY(kill_machine(p, err)); /* what a crash left */
    th_autoclose int log_fd = open(spec->console, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    int pipe_fd[2];
    if (log_fd < 0 || pipe2(pipe_fd, O_CLOEXEC) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "%s", spec->console);
    }
    pid_t pid = spawn(spec, pipe_fd[1], log_fd, err);
    (void)close(pipe_fd[1]);
    int r = pid < 0 ? (int)pid : wait_ok(pipe_fd[0], err);
    (void)close(pipe_fd[0]);
    for (size_t i = 0; i < spec->n_ports && r >= 0; i++) {
        r = port_add(p, &spec->ports[i], err);
    }
    if (r >= 0) {
        *ret_pid = pid;
        return 0;
    }
    if (pid > 0) {
        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, NULL, 0);
    }
    (void)kill_machine(p, NULL);
    return r;
}

static int64_t rss_of(const char *pid)
{
    th_autofree char *path = th_path_joinf("/proc", "%s/status", pid);
    th_autobuf struct th_buf text = TH_BUF_INIT;
    if (th_io_read_file(path, 65536, &text, NULL) < 0) {
        return 0;
    }
    const char *row = strstr(th_buf_cstr(&text), "\nVmRSS:");
    return row ? strtoll(row + 7, NULL, 10) : 0;
}

/* The supervisor and everybody in a pid namespace of its children. Pages that are shared count
 * each time. */
static int64_t rss_kb(pid_t pid)
{
    char ours[64] = "";
    th_autofree char *kids = th_xasprintf("/proc/%d/task/%d/children", (int)pid, (int)pid);
    th_autobuf struct th_buf list = TH_BUF_INIT;
    if (th_io_read_file(kids, 4096, &list, NULL) == 0 && list.n) {
        th_autofree char *link = th_xasprintf("/proc/%ld/ns/pid", strtol(th_buf_cstr(&list), NULL, 10));
        (void)!readlink(link, ours, sizeof(ours) - 1);
    }
    th_autofree char *self = th_xasprintf("%d", (int)pid);
    int64_t sum = rss_of(self);
    th_autostrv struct th_strv names = TH_STRV_INIT;
    if (!ours[0] || th_io_list("/proc", &names, NULL) < 0) {
        return sum;
    }
    for (size_t i = 0; i < names.n; i++) {
        char theirs[64] = "";
        th_autofree char *link = th_path_joinf("/proc", "%s/ns/pid", names.v[i]);
        if (names.v[i][0] >= '0' && names.v[i][0] <= '9' &&
            readlink(link, theirs, sizeof(theirs) - 1) > 0 && th_streq(ours, theirs)) {
            sum += rss_of(names.v[i]);
        }
    }
    return sum;
}

const struct th_driver th_driver_host = {
    .name = "host",
    .check = check,
    .start = start,
    .kill = kill_machine,
    .port_add = port_add,
    .port_remove = port_remove,
    .rss_kb = rss_kb,
};
