/* RUN steps as containers, through the crun program.
 *
 * A bundle is one config.json in a folder of its own: own pid, mount, ipc, uts and network
 * namespaces (only loopback in the last, unless host networking was asked for), Docker's default
 * capabilities, the usual masked paths. The root is the overlay that the builder mounted.
 *
 * The runtime's own messages go to a log file, so that they are told apart from what the process
 * prints: a command that is not there is the step's failure (127), anything else is ours.
 */
#include "images/builder.h"
#include "base/io.h"
#include "base/json/json.h"
#include "base/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

struct crun {
    char *program, *state_dir, *cgroup_path;
    uint64_t memory_max_b;
};

static const char *const capabilities[] = {
    "CAP_CHOWN",  "CAP_DAC_OVERRIDE", "CAP_FSETID",   "CAP_FOWNER",           "CAP_MKNOD",
    "CAP_NET_RAW", "CAP_SETGID",      "CAP_SETUID",   "CAP_SETFCAP",          "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE"};
static const char *const masked[] = {"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                                     "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug",
                                     "/proc/scsi", "/sys/firmware"};
static const char *const readonly[] = {"/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq",
                                       "/proc/sys", "/proc/sysrq-trigger"};
static const char *const namespaces[] = {"pid", "ipc", "uts", "mount", "network"};

static struct th_json *strings(const char *const *v, size_t n)
{
    struct th_json *a = th_json_array();
    for (size_t i = 0; i < n; i++) {
        th_json_append_str(a, v[i]);
    }
    return a;
}

static struct th_json *list(const char *const *v)
{
    size_t n = 0;
    while (v && v[n]) {
        n++;
    }
    return strings(v, n);
}

static void add_mount(struct th_json *mounts, const char *type, const char *source,
                      const char *target, const char *const *options, size_t n)
{
    th_json_append(mounts,
                   th_json_build("{'destination':%s,'type':%s,'source':%s,'options':%o}", target,
                                 type, source, strings(options, n)));
}
#define OPTS(...)                                                                                  \
    (const char *const[]){__VA_ARGS__}, sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *)

static struct th_json *mounts_of(const struct th_run_spec *s)
{
    struct th_json *m = th_json_array();
    add_mount(m, "proc", "proc", "/proc", OPTS("nosuid", "noexec", "nodev"));
    add_mount(m, "tmpfs", "tmpfs", "/dev", OPTS("nosuid", "strictatime", "mode=755", "size=65536k"));
    add_mount(m, "devpts", "devpts", "/dev/pts",
              OPTS("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"));
    add_mount(m, "tmpfs", "shm", "/dev/shm",
              OPTS("nosuid", "noexec", "nodev", "mode=1777", "size=65536k"));
    add_mount(m, "mqueue", "mqueue", "/dev/mqueue", OPTS("nosuid", "noexec", "nodev"));
    if (s->host_network) { /* a fresh sysfs needs a network namespace of one's own */
        add_mount(m, "bind", "/sys", "/sys", OPTS("rbind", "nosuid", "noexec", "nodev", "ro"));
    } else {
        add_mount(m, "sysfs", "sysfs", "/sys", OPTS("nosuid", "noexec", "nodev", "ro"));
    }
    for (size_t i = 0; i < s->n_mounts; i++) {
        const struct th_run_mount *x = &s->mounts[i];
        if (x->source) {
            add_mount(m, "bind", x->source, x->target, OPTS("rbind", x->read_only ? "ro" : "rw"));
        } else if (x->tmpfs_size_b) {
            th_autofree char *size =
                th_xasprintf("size=%llu", (unsigned long long)x->tmpfs_size_b);
            add_mount(m, "tmpfs", "tmpfs", x->target, OPTS("nosuid", "nodev", size));
        } else {
            add_mount(m, "tmpfs", "tmpfs", x->target, OPTS("nosuid", "nodev"));
        }
    }
    return m;
}

static struct th_json *linux_of(const struct crun *c, const struct th_run_spec *s)
{
    struct th_json *ns = th_json_array();
    for (size_t i = 0; i < TH_ARRAY_LEN(namespaces); i++) {
        if (!(s->host_network && th_streq(namespaces[i], "network"))) {
            th_json_append(ns, th_json_build("{'type':%s}", namespaces[i]));
        }
    }
    struct th_json *l =
        th_json_build("{'namespaces':%o,'maskedPaths':%o,'readonlyPaths':%o}", ns,
                      strings(masked, TH_ARRAY_LEN(masked)),
                      strings(readonly, TH_ARRAY_LEN(readonly)));
    if (c->cgroup_path) {
        th_json_append(th_json_get(l, "namespaces"), th_json_build("{'type':'cgroup'}"));
        th_json_set(l, "cgroupsPath", th_json_stringf("%s/%s", c->cgroup_path, s->id));
        if (c->memory_max_b) {
            th_json_path_set_int(l, "resources.memory.limit", (int64_t)c->memory_max_b);
        }
    }
    return l;
}

static struct th_json *config_of(const struct crun *c, const struct th_run_spec *s)
{
    struct th_json *caps = th_json_object();
    static const char *const sets[] = {"bounding", "effective", "permitted"};
    for (size_t i = 0; i < TH_ARRAY_LEN(sets); i++) {
        th_json_set(caps, sets[i], strings(capabilities, TH_ARRAY_LEN(capabilities)));
    }
    struct th_json *gids = th_json_array();
    for (size_t i = 0; i < s->n_gids; i++) {
        th_json_append(gids, th_json_int(s->gids[i]));
    }
    struct th_json *process = th_json_build(
        "{'terminal':%b,'user':{'uid':%d,'gid':%d,'umask':18,'additionalGids':%o},'args':%o,"
        "'env':%o,'cwd':%s,'capabilities':%o,'noNewPrivileges':%b}",
        0, (int64_t)s->uid, (int64_t)s->gid, gids, list(s->argv), list(s->env),
        s->cwd && *s->cwd ? s->cwd : "/", caps, 0);
    return th_json_build("{'ociVersion':'1.0.2','process':%o,'root':{'path':%s,'readonly':%b},"
                         "'hostname':'thimble-build','mounts':%o,'linux':%o}",
                         process, s->rootfs, 0, mounts_of(s), linux_of(c, s));
}

/* ---- running ---- */

static void crun_kill(const struct crun *c, const char *id)
{
    (void)th_proc_runl(NULL, 10000, NULL, c->program, "--root", c->state_dir, "delete", "--force",
                       id, NULL);
}

/* Passes output on until the pipe closes; kills the container when canceled. */
static void pump(const struct crun *c, const struct th_run_spec *s, int fd)
{
    char buf[16384];
    bool killed = false;
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int n = poll(&p, 1, 200);
        if (!killed && s->cancel && atomic_load(s->cancel)) {
            crun_kill(c, s->id);
            killed = true;
        }
        if (n < 0 && errno != EINTR) {
            return;
        }
        if (n <= 0) {
            continue;
        }
        ssize_t k = read(fd, buf, sizeof(buf));
        if (k < 0 && errno == EINTR) {
            continue;
        }
        if (k <= 0) {
            return;
        }
        if (s->output) {
            s->output(s->output_arg, buf, (size_t)k);
        }
    }
}

/* What crun itself said, without its time stamp. */
static char *runtime_message(const char *log)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    if (th_io_read_file(log, 65536, &b, NULL) < 0 || b.n == 0) {
        return NULL;
    }
    TH_AUTO(th_json) struct th_json *o = NULL;
    size_t n = strcspn(b.p, "\n");
    if (th_json_parse(b.p, n, NULL, &o, NULL) == 0 && th_json_path_str(o, "msg")) {
        return th_xstrdup(th_json_path_str(o, "msg"));
    }
    return th_xstrndup(b.p, n);
}

static int outcome(const struct th_run_spec *s, const char *log, int status, int *ret_exit,
                   struct th_err *err)
{
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    th_autofree char *msg = code == 0 ? NULL : runtime_message(log);
    bool not_run = msg && strstr(msg, "exec") &&
                   (strstr(msg, "not found") || strstr(msg, "No such file or directory") ||
                    strstr(msg, "Permission denied"));
    if (not_run) {
        th_autofree char *line = th_xasprintf("%s\n", msg);
        if (s->output) {
            s->output(s->output_arg, line, strlen(line));
        }
        code = strstr(msg, "Permission denied") ? 126 : 127;
    } else if (msg) {
        return th_fail(err, TH_R_BUILD_FAILED, "cannot start the step's container: %s", msg);
    }
    *ret_exit = code;
    return 0;
}

static int run_bundle(const struct crun *c, const struct th_run_spec *s, const char *bundle,
                      int *ret_exit, struct th_err *err)
{
    th_autofree char *log = th_path_join(bundle, "crun.log");
    th_autofree char *log_arg = th_xasprintf("file:%s", log);
    const char *argv[] = {c->program, "--root", c->state_dir, "--log", log_arg, "--log-format",
                          "json", c->cgroup_path ? "--cgroup-manager=cgroupfs"
                                                 : "--cgroup-manager=disabled",
                          "run", "--bundle", bundle, s->id, NULL};
    int p[2];
    if (pipe2(p, O_CLOEXEC) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "pipe");
    }
    struct th_proc_opts o = {
        .argv = argv, .stdin_fd = -1, .stdout_fd = p[1], .stderr_fd = p[1]};
    pid_t pid = th_proc_start(&o, err);
    (void)close(p[1]);
    if (pid < 0) {
        (void)close(p[0]);
        return (int)pid;
    }
    pump(c, s, p[0]);
    (void)close(p[0]);
    int status = 0;
    TH_TRY(th_proc_wait(pid, -1, &status, err));
    return outcome(s, log, status, ret_exit, err);
}

static int crun_run(void *arg, const struct th_run_spec *s, int *ret_exit, struct th_err *err)
{
    const struct crun *c = arg;
    th_autofree char *bundle = th_xasprintf("%s/bundle-%s", c->state_dir, s->id);
    th_autofree char *file = th_path_join(bundle, "config.json");
    TH_TRY(th_io_mkdir_p(bundle, 0700, err));
    TH_AUTO(th_json) struct th_json *config = config_of(c, s);
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_json_dump(config, &b);
    int r = th_io_write_file(file, b.p, b.n, 0600, err);
    r = r < 0 ? r : run_bundle(c, s, bundle, ret_exit, err);
    if (r < 0 || *ret_exit >= 128) {
        crun_kill(c, s->id); /* leaves nothing behind whatever happened */
    }
    (void)th_io_rm_rf(bundle, NULL);
    return r;
}

int th_runner_crun_new(const struct th_runner_crun_opts *opts, struct th_build_runner *ret,
                       struct th_err *err)
{
    char *program = th_proc_find(opts->crun ? opts->crun : "crun");
    if (!program) {
        (void)th_fail(err, TH_R_NO_TOOL, "crun is not there: RUN steps need it");
        return th_hint(err, "apt-get install crun");
    }
    struct crun *c = TH_NEW(struct crun);
    c->program = program;
    c->state_dir = th_xstrdup(opts->state_dir);
    c->cgroup_path = th_xstrdup(opts->cgroup_path);
    c->memory_max_b = opts->memory_max_b;
    *ret = (struct th_build_runner){.run = crun_run, .arg = c};
    return 0;
}

void th_runner_crun_free(struct th_build_runner *r)
{
    struct crun *c = r->arg;
    if (c) {
        free(c->program);
        free(c->state_dir);
        free(c->cgroup_path);
        free(c);
    }
    *r = (struct th_build_runner){0};
}
