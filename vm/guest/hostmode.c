/* `thimbled init --host`: the supervisor of the host driver.
 *
 * Two processes. The outer one stays in the host's network namespace and makes a mount namespace of
 * its own, so that nothing it mounts is seen outside. It clones the inner one as PID 1 of new pid,
 * network and mount namespaces; that one is init (init.c) as in a VM, with other paths and no
 * devices. The outer one relays ports (relay.c), starts `thimble port-agent` for each connection to
 * ports.sock as QEMU does in a VM, and ends when init ends.
 *
 * Whatever way the outer process ends, init gets SIGKILL by PR_SET_PDEATHSIG, the kernel ends all
 * processes of init's pid namespace with it, and mounts, links and firewall rules go with the last
 * process that has their namespace. All that can be left are empty control groups and sockets' names,
 * which the launcher removes.
 *
 * Control groups are the host's. On a host with version 1 and an empty version 2 tree beside it
 * ("hybrid") crun takes neither; without that tree, in our mount namespace, it takes version 1. A
 * real-time scheduling class, which some service managers hand down, could not enter version 1's cpu
 * groups and is given up.
 *
 * Limits: the cluster's network has no way out to the host's network, nor to the internet. */
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "base/proc.h"
#include "vm/guest/guest.h"
#include "vm/guest/relay.h"
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define CGROUP2_MAGIC 0x63677270
#define AGENTS_MAX 16

struct opts {
    char *data, *run, *etc, *control, *relay, *profile, *program, *cgroup_parent, *pid_file;
    int ready_fd;
};

struct outer {
    struct opts *o;
    struct th_ev *ev;
    struct th_hostrelay *relay;
    pid_t init;
    int ports_fd, relay_fd;
    int agents;
};

/* One connection of the launcher. */
struct asker {
    struct outer *out;
    int fd;
    struct th_ev_src *src;
    struct th_buf in;
};

/* ---- ports ---- */

static void asker_free(struct asker *a)
{
    th_ev_remove(a->src);
    (void)close(a->fd);
    th_buf_done(&a->in);
    free(a);
}

static int copy_str(const struct th_json *o, const char *name, const char *def, char *to, size_t room,
                    struct th_err *err)
{
    const char *s = th_json_path_str(o, name);
    s = s && *s ? s : def;
    if (!s || strlen(s) >= room) {
        return th_fail(err, TH_R_BAD_REQUEST, "bad \"%s\"", name);
    }
    memcpy(to, s, strlen(s) + 1);
    return 0;
}

static int obey(struct outer *out, const char *line, size_t n, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *req = NULL;
    TH_TRY(th_json_parse(line, n, NULL, &req, err));
    struct th_hostrelay_port port = {.host_port = (int)th_json_path_int(req, "host_port", 0),
                                 .guest_port = (int)th_json_path_int(req, "guest_port", 0)};
    TH_TRY(copy_str(req, "proto", "tcp", port.proto, sizeof(port.proto), err));
    TH_TRY(copy_str(req, "host_ip", NULL, port.host_ip, sizeof(port.host_ip), err));
    TH_TRY(copy_str(req, "guest_ip", TH_NET_GUEST_IP, port.guest_ip, sizeof(port.guest_ip), err));
    const char *op = th_json_path_str(req, "op");
    if (th_streq(op, "add")) {
        return th_hostrelay_add(out->relay, &port, err);
    }
    if (th_streq(op, "remove")) {
        th_hostrelay_remove(out->relay, port.proto, port.host_ip, port.host_port);
        return 0;
    }
    return th_fail(err, TH_R_BAD_REQUEST, "unknown op");
}

static bool answer(struct asker *a, const char *line, size_t n)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    int r = obey(a->out, line, n, &err);
    TH_AUTO(th_json) struct th_json *reply =
        r < 0 ? th_json_build("{'ok':%b,'reason':%s,'msg':%s}", 0, th_reason_code(err.reason), err.msg)
              : th_json_build("{'ok':%b}", 1);
    th_autobuf struct th_buf text = TH_BUF_INIT;
    th_json_dump(reply, &text);
    th_buf_putc(&text, '\n');
    return send(a->fd, text.p, text.n, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)text.n;
}

static void on_asker(struct th_ev_src *src, int fd, uint32_t events, void *arg)
{
    (void)src;
    (void)events;
    struct asker *a = arg;
    char chunk[TH_PORTS_LINE_MAX];
    ssize_t n = read(fd, chunk, sizeof(chunk));
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    bool ok = n > 0;
    if (ok) {
        th_buf_add(&a->in, chunk, (size_t)n);
    }
    for (char *nl; ok && a->in.n && (nl = memchr(a->in.p, '\n', a->in.n));) {
        size_t len = (size_t)(nl - a->in.p);
        ok = answer(a, a->in.p, len);
        th_buf_consume(&a->in, len + 1);
    }
    if (!ok || a->in.n > TH_PORTS_LINE_MAX) {
        asker_free(a);
    }
}

static void on_relay(struct th_ev_src *src, int fd, uint32_t events, void *arg)
{
    (void)src;
    (void)events;
    struct outer *out = arg;
    int conn = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (conn < 0) {
        return;
    }
    struct asker *a = TH_NEW(struct asker);
    *a = (struct asker){.out = out, .fd = conn};
    th_buf_init(&a->in, 4 * TH_PORTS_LINE_MAX);
    a->src = th_ev_add_fd(out->ev, conn, EPOLLIN, on_asker, a);
}

static void on_agent_end(struct th_ev_src *src, pid_t pid, int status, void *arg)
{
    (void)src;
    (void)pid;
    (void)status;
    ((struct outer *)arg)->agents--;
}

static void on_ports(struct th_ev_src *src, int fd, uint32_t events, void *arg)
{
    (void)src;
    (void)events;
    struct outer *out = arg;
    th_autoclose int conn = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    if (conn < 0 || out->agents >= AGENTS_MAX) {
        return;
    }
    const char *argv[] = {out->o->program, "port-agent", "-p", out->o->profile, NULL};
    struct th_proc_opts po = {.argv = argv, .stdin_fd = conn, .stdout_fd = conn, .stderr_fd = -1,
                              .die_with_parent = true};
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    pid_t pid = th_proc_start(&po, &err);
    if (pid < 0) {
        th_warn("init", "port agent does not start", "error=%s", th_log_q(err.msg));
        return;
    }
    out->agents++;
    (void)th_ev_add_child(out->ev, pid, on_agent_end, out);
}

/* ---- the inner process ---- */

static int inner_prepare(struct th_err *err)
{
    if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0) {
        return th_fail_errno(err, errno, TH_R_BOOT_FAILED, "mount /proc");
    }
    /* As in a VM: mountPropagation of volumes relies on it. The peer group is all our own. */
    if (mount(NULL, "/", NULL, MS_REC | MS_SHARED, NULL) < 0) {
        return th_fail_errno(err, errno, TH_R_BOOT_FAILED, "share mounts");
    }
    TH_TRY(th_guest_net_up(true, err));
    th_guest_sysctls(true);
    th_guest_limits();
    return 0;
}

static _Noreturn void inner_main(struct opts *o, int ctl_fd, int ok_fd, int alive_fd)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    struct pollfd gone = {.fd = alive_fd, .events = POLLIN};
    if (poll(&gone, 1, 0) != 0) { /* it ended before the request above: nobody would end us */
        _exit(1);
    }
    (void)setsid();
    th_guest_block_signals();
    struct th_guest g = {.boot_ms = th_mono_ms(), .phase = TH_PHASE_WAITING, .host = true,
                         .ctl_listen_fd = ctl_fd, .cgroup_parent = o->cgroup_parent};
    g.paths = (struct th_guest_paths){.data = o->data, .run = o->run, .etc = o->etc};
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    int r = inner_prepare(&err);
    const char *word = r < 0 ? err.msg : "ok";
    (void)!write(ok_fd, word, strlen(word));
    (void)close(ok_fd);
    if (r < 0) {
        _exit(1);
    }
    g.ev = th_ev_new();
    g.ctl = th_ctl_open_listen(g.ev, ctl_fd, th_guest_on_open(), th_guest_on_message(), &g);
    _exit(th_guest_run(&g));
}

/* ---- the outer process ---- */

static int private_mounts(const struct opts *o, struct th_err *err)
{
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
        return th_fail_errno(err, errno, TH_R_NO_PERMISSION, "mount namespace");
    }
    TH_TRY(th_io_mkdir_p(o->run, 0755, err));
    TH_TRY(th_io_mkdir_p(o->etc, 0700, err));
    if (mount("run", o->run, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755") < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "mount %s", o->run);
    }
    if (mount("etc", o->etc, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700,size=8m") < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "mount %s", o->etc);
    }
    struct statfs root, unified;
    if (statfs("/sys/fs/cgroup", &root) == 0 && root.f_type != CGROUP2_MAGIC &&
        statfs("/sys/fs/cgroup/unified", &unified) == 0 && unified.f_type == CGROUP2_MAGIC &&
        umount2("/sys/fs/cgroup/unified", MNT_DETACH) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "unmount /sys/fs/cgroup/unified");
    }
    return 0;
}

/* Clones init and waits until it stands. */
static int clone_inner(struct opts *o, int ctl_fd, pid_t *ret_pid, struct th_err *err)
{
    int ok[2], alive[2];
    if (pipe2(ok, O_CLOEXEC) < 0 || pipe2(alive, O_CLOEXEC) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "pipe");
    }
    (void)fflush(NULL);
    pid_t pid = (pid_t)syscall(SYS_clone, CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWNS | SIGCHLD, NULL, NULL,
                               NULL, NULL);
    if (pid == 0) {
        (void)close(ok[0]);
        (void)close(alive[1]);
        (void)close(o->ready_fd);
        inner_main(o, ctl_fd, ok[1], alive[0]);
    }
    int e = errno;
    (void)close(ok[1]);
    (void)close(alive[0]); /* alive[1] stays open as long as we are */
    if (pid < 0) {
        return th_fail_errno(err, e, TH_R_NO_PERMISSION, "namespaces");
    }
    char word[512] = "";
    ssize_t n = read(ok[0], word, sizeof(word) - 1);
    (void)close(ok[0]);
    if (n <= 0 || !th_streq(word, "ok")) {
        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, NULL, 0);
        return th_fail(err, TH_R_BOOT_FAILED, "%s", n > 0 ? word : "init ended at once");
    }
    *ret_pid = pid;
    return 0;
}

static int write_pid(const struct opts *o, pid_t pid, struct th_err *err)
{
    th_autofree char *line =
        th_xasprintf("%d %llu\n", (int)pid, (unsigned long long)th_proc_start_ticks(pid));
    return th_io_write_atomic(o->pid_file, line, strlen(line), 0600, err);
}

static void on_init_end(struct th_ev_src *src, pid_t pid, int status, void *arg)
{
    (void)src;
    (void)pid;
    struct outer *out = arg;
    th_info("init", "the cluster has ended", "status=%d", status);
    th_ev_stop(out->ev, WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

static void on_term(struct th_ev_src *src, int signo, void *arg)
{
    (void)src;
    (void)kill(((struct outer *)arg)->init, signo);
}

static int outer_start(struct outer *out, struct th_err *err)
{
    struct opts *o = out->o;
    TH_TRY(private_mounts(o, err));
    (void)unlink(o->control);
    (void)unlink(o->relay);
    th_autoclose int ctl_fd = th_io_unix_listen(o->control, 0600, 4, err);
    TH_TRY(ctl_fd);
    (void)th_io_set_nonblock(ctl_fd, true);
    TH_TRY(clone_inner(o, ctl_fd, &out->init, err));
    TH_TRY(write_pid(o, out->init, err));
    th_autofree char *net = th_xasprintf("/proc/%d/ns/net", (int)out->init);
    int inner_ns = open(net, O_RDONLY | O_CLOEXEC), outer_ns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    if (inner_ns < 0 || outer_ns < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "network namespaces");
    }
    th_autofree char *ports = th_path_join(o->run, TH_PORTS_SOCK);
    TH_TRY(out->ports_fd = th_io_unix_listen(ports, 0600, 16, err));
    TH_TRY(out->relay_fd = th_io_unix_listen(o->relay, 0600, 16, err));
    out->ev = th_ev_new();
    out->relay = th_hostrelay_new(out->ev, outer_ns, inner_ns);
    (void)th_ev_add_fd(out->ev, out->ports_fd, EPOLLIN, on_ports, out);
    (void)th_ev_add_fd(out->ev, out->relay_fd, EPOLLIN, on_relay, out);
    (void)th_ev_add_child(out->ev, out->init, on_init_end, out);
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    (void)th_ev_add_signal(out->ev, SIGTERM, on_term, out);
    return 0;
}

static const struct option options[] = {
    {"host", 0, NULL, 'H'},    {"data", 1, NULL, 0},          {"run", 1, NULL, 1},
    {"etc", 1, NULL, 2},       {"control", 1, NULL, 3},       {"relay", 1, NULL, 4},
    {"profile", 1, NULL, 5},   {"program", 1, NULL, 6},       {"cgroup-parent", 1, NULL, 7},
    {"pid-file", 1, NULL, 8},  {"ready-fd", 1, NULL, 9},      {NULL, 0, NULL, 0}};

static bool parse(int argc, char **argv, struct opts *o)
{
    char **fields[] = {&o->data,    &o->run,     &o->etc,           &o->control, &o->relay,
                       &o->profile, &o->program, &o->cgroup_parent, &o->pid_file};
    int c;
    optind = 1;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (c >= 0 && c < (int)TH_ARRAY_LEN(fields)) {
            *fields[c] = optarg;
        } else if (c == 9) {
            o->ready_fd = (int)strtol(optarg, NULL, 10);
        } else if (c != 'H') {
            return false;
        }
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(fields); i++) {
        if (!*fields[i]) {
            (void)fprintf(stderr, "thimbled init --host: --%s is missing\n", options[i + 1].name);
            return false;
        }
    }
    return optind == argc && o->ready_fd > 2;
}

int th_hostmode_main(int argc, char **argv)
{
    struct opts o = {.ready_fd = -1};
    if (!parse(argc, argv, &o)) {
        (void)fprintf(stderr, "thimbled init --host is started by thimble start --driver host\n");
        return 2;
    }
    (void)th_io_set_cloexec(o.ready_fd, true);
    (void)setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
    (void)signal(SIGHUP, SIG_IGN);
    struct sched_param normal = {0};
    (void)sched_setscheduler(0, SCHED_OTHER, &normal);
    struct outer out = {.o = &o, .ports_fd = -1, .relay_fd = -1};
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    int r = outer_start(&out, &err);
    const char *word = r < 0 ? err.msg : "ok";
    (void)dprintf(o.ready_fd, "%s\n", word);
    (void)close(o.ready_fd);
    if (r < 0) {
        th_error("init", "host driver does not start", "error=%s", th_log_q(err.msg));
        return 1; /* init, if it stands, is killed by our end */
    }
    r = th_ev_run(out.ev);
    th_hostrelay_free(out.relay);
    (void)unlink(o.pid_file);
    return r;
}
