/* PID 1 of the guest.
 *
 * Boot, in the order that makes the launcher's waiting shortest:
 *   1. kernel file systems, and the modules without which there is no control channel;
 *   2. the channel, and hello on it: the launcher now knows that the acceleration works;
 *   3. all that needs no identity: network, sysctls, cgroups;
 *   4. the identity: data disk, files below /etc/thimble (tmpfs), cluster.json;
 *   5. the control plane; when it serves, the node agent; when that serves, ready.
 * Between 3 and 4 the launcher may make a template of the machine, or this may be a copy of one
 * (protocol.h, `quiet` and `wake`): until then nothing may be drawn at random that is kept, nothing read
 * from the data disk, and no time remembered.
 * From then on init is a supervisor (supervise.c) that answers on the channel. shutdown stops all,
 * unmounts and switches off.
 *
 * init never exits in a VM: what goes wrong before ready is reported as `failed` with its reason,
 * and the launcher pulls the plug after it has read it. Only errors of step 1 end in a panic,
 * which the launcher sees as the machine going away with the cause on the console.
 *
 * With the host driver hostmode.c has made the namespaces and calls th_guest_run with other paths;
 * there is no disk, no module and no power switch then. */
#include "base/clock.h"
#include "base/encode.h"
#include "base/io.h"
#include "base/log.h"
#include "base/proc.h"
#include "vm/guest/guest.h"
#include "vm/node/node.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/random.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#define EARLY_FAILURES_MAX 3
#define DEFAULT_GRACE_MS 20000
#define CLOCK_SLACK_MS 20
#define SEED_MAX_B 256
#define CRUN_TIMEOUT_MS 5000
#define WORKERS_YIELD "1500ms"
#define CPU_WEIGHT 100 /* the kernel's default */
#define CPU_WEIGHT_AWAITED 1000
#define IDLE_AFTER_MS 5000 /* the first pods go first */

void th_guest_progress(struct th_guest *g, const char *step, int64_t since_ms)
{
    int64_t ms = th_mono_ms() - since_ms;
    th_info("init", "step", "name=%s ms=%lld", step, (long long)ms);
    th_ctl_send(g->ctl, th_json_build("{'type':%s,'step':%s,'ms':%d}", TH_CTL_PROGRESS, step, ms));
}

static void fail(struct th_guest *g, const struct th_err *err)
{
    g->phase = TH_PHASE_FAILED;
    free(g->failure);
    g->failure = th_xstrdup(err->msg);
    th_error("init", "start failed", "error=%s", th_log_q(err->msg));
    th_ctl_send(g->ctl, th_json_build("{'type':%s,'reason':%s,'msg':%s,'hint':%s}", TH_CTL_FAILED,
                                      th_reason_code(err->reason), err->msg, err->hint));
}

static void send_hello(struct th_guest *g)
{
    struct utsname u;
    (void)uname(&u);
    th_ctl_send(g->ctl,
                th_json_build("{'type':%s,'version':%s,'kernel':%s,'phase':%s,'uptime_ms':%d,"
                              "'failure':%s}",
                              TH_CTL_HELLO, TH_VERSION, u.release, g->phase, th_mono_ms(),
                              g->failure));
}

/* ---- children ---- */

static void on_idle(struct th_ev_src *src, void *arg)
{
    (void)src;
    (void)arg;
    th_guest_load_modules("idle");
    /* What was read once to start; free pages go back to the host. */
    (void)(th_io_write_file("/proc/sys/vm/drop_caches", "1", 1, 0644, NULL) < 0);
}

static void say_ready(struct th_guest *g)
{
    g->phase = TH_PHASE_READY;
    for (size_t i = 0; i < g->n_children; i++) {
        th_supervise_weight(&g->children[i], CPU_WEIGHT);
    }
    int64_t ms = th_mono_ms() - g->boot_ms;
    th_info("init", "ready", "ms=%lld", (long long)ms);
    th_ctl_send(g->ctl, th_json_build("{'type':%s,'ms':%d}", TH_CTL_READY, ms));
    if (!g->host) {
        (void)th_ev_add_timer(g->ev, IDLE_AFTER_MS, 0, on_idle, g);
    }
}

static void start_next(struct th_guest *g)
{
    for (size_t i = 0; i < g->n_children; i++) {
        struct th_child *c = &g->children[i];
        if (c->state == TH_CHILD_STOPPED) {
            th_supervise_start(c);
            th_supervise_weight(c, i == 0 ? CPU_WEIGHT : CPU_WEIGHT_AWAITED);
            return;
        }
        if (c->state != TH_CHILD_READY) {
            return;
        }
    }
    if (th_streq(g->phase, TH_PHASE_STARTING)) {
        say_ready(g);
    }
}

void th_guest_child_ready(struct th_guest *g, struct th_child *c)
{
    if (th_streq(g->phase, TH_PHASE_STARTING)) {
        th_guest_progress(g, c->name, c->started_ms);
        start_next(g);
    }
}

void th_guest_child_ended(struct th_guest *g, struct th_child *c, int status)
{
    if (!th_streq(g->phase, TH_PHASE_STARTING) || c->total_restarts < EARLY_FAILURES_MAX) {
        return;
    }
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (WIFSIGNALED(status)) {
        (void)th_fail(&err, TH_R_BOOT_FAILED, "%s does not start: killed by signal %d", c->name,
                      WTERMSIG(status));
    } else {
        (void)th_fail(&err, TH_R_BOOT_FAILED, "%s does not start: exit status %d", c->name,
                      WEXITSTATUS(status));
    }
    fail(g, &err);
}

static char *child_cgroup(struct th_guest *g, const char *name)
{
    return g->host ? NULL : th_xasprintf("/sys/fs/cgroup/thimble/%s", name);
}

static void child_add(struct th_guest *g, const char *part, const char *node)
{
    g->children = th_xrealloc(g->children, (g->n_children + 1) * sizeof(*g->children));
    struct th_child *c = &g->children[g->n_children++];
    *c = (struct th_child){.g = g, .ready_fd = -1, .name = th_xstrdup(node ? node : part)};
    c->cgroup = child_cgroup(g, c->name);
    th_strv_add(&c->argv, part);
    if (th_streq(part, "controlplane") && !g->host) { /* the node's start, and who waits for it, go first */
        th_strv_add(&c->argv, "--workers-yield");
        th_strv_add(&c->argv, WORKERS_YIELD);
    }
    if (th_streq(part, "node")) {
        const char *name = th_json_path_str(g->config, "node");
        th_strv_add(&c->argv, "--name");
        th_strv_add(&c->argv, name ? name : "thimble");
        if (g->host) { /* in a VM the whole system is the node's */
            th_strv_add(&c->argv, "--log-dir");
            th_strv_take(&c->argv, th_path_join(g->paths.data, "log/pods"));
            th_strv_add(&c->argv, "--cgroup-parent");
            th_strv_add(&c->argv, g->cgroup_parent);
        }
    }
    th_strv_add(&c->argv, "--data");
    th_strv_add(&c->argv, g->paths.data);
    th_strv_add(&c->argv, "--run");
    th_strv_add(&c->argv, g->paths.run);
    th_strv_add(&c->argv, "--etc");
    th_strv_add(&c->argv, g->paths.etc);
}

static int make_children(struct th_guest *g, struct th_err *err)
{
    const struct th_json *names = th_json_get(g->config, "children");
    for (size_t i = 0; i < th_json_len(names); i++) {
        const char *name = th_json_str(th_json_at(names, i));
        if (!name || !name[0] || strchr(name, '/') || strlen(name) > 64) {
            return th_fail(err, TH_R_BOOT_FAILED, "identity: bad name of a child");
        }
        child_add(g, name, NULL);
    }
    return 0;
}

/* ---- identity ---- */

static void set_clock(int64_t unix_ms)
{
    int64_t off = unix_ms - th_now_ms();
    if (unix_ms <= 0 || (off < CLOCK_SLACK_MS && off > -CLOCK_SLACK_MS)) {
        return;
    }
    struct timespec ts = {.tv_sec = unix_ms / 1000, .tv_nsec = (unix_ms % 1000) * 1000000};
    if (clock_settime(CLOCK_REALTIME, &ts) < 0) {
        th_warn("init", "clock not set", "errno=%d", errno);
        return;
    }
    th_info("init", "clock set", "moved_ms=%lld", (long long)off);
}

static int write_identity(struct th_guest *g, struct th_json *msg, struct th_err *err)
{
    const struct th_json *files = th_json_get(msg, "files");
    TH_TRY(th_io_mkdir_p(g->paths.etc, 0700, err));
    struct th_json_iter it = TH_JSON_ITER(files);
    while (th_json_next(&it)) {
        const char *text = th_json_str(it.value);
        if (!text || strchr(it.name, '/') || it.name[0] == '.') {
            return th_fail(err, TH_R_BOOT_FAILED, "identity: bad file %s", it.name);
        }
        th_autofree char *path = th_path_join(g->paths.etc, it.name);
        TH_TRY(th_io_write_file(path, text, strlen(text), 0600, err));
    }
    struct th_json *config = th_json_get(msg, "config");
    if (!th_json_is(config, TH_JSON_OBJECT)) {
        return th_fail(err, TH_R_BOOT_FAILED, "identity without a config");
    }
    th_json_unref(g->config);
    g->config = th_json_dup(config);
    th_autobuf struct th_buf text = TH_BUF_INIT;
    th_json_dump_pretty(g->config, &text);
    th_buf_putc(&text, '\n');
    th_autofree char *path = th_path_join(g->paths.etc, "cluster.json");
    TH_TRY(th_io_write_file(path, text.p, text.n, 0644, err));

    const char *host = th_json_path_str(msg, "hostname");
    if (host && !g->host) {
        (void)sethostname(host, strlen(host));
        th_autofree char *line = th_xasprintf("%s\n", host);
        TH_TRY(th_io_write_file("/run/hostname", line, strlen(line), 0644, err));
    }
    const char *machine_id = th_json_path_str(msg, "machine_id");
    if (machine_id && !g->host) {
        th_autofree char *line = th_xasprintf("%s\n", machine_id);
        TH_TRY(th_io_write_file("/run/machine-id", line, strlen(line), 0444, err));
    }
    return 0;
}

static int mount_data(struct th_guest *g, struct th_err *err)
{
    int64_t t = th_mono_ms();
    TH_TRY(th_guest_mount_data(TH_GUEST_DATA, err));
    g->data_mounted = true;
    th_guest_progress(g, "data-disk", t);
    return 0;
}

static int take_identity(struct th_guest *g, struct th_json *msg, struct th_err *err)
{
    if (!g->host) {
        TH_TRY(mount_data(g, err));
    }
    int64_t t = th_mono_ms();
    TH_TRY(write_identity(g, msg, err));
    TH_TRY(make_children(g, err));
    th_guest_progress(g, TH_STEP_IDENTITY, t);
    return 0;
}

/* ---- messages ---- */

static struct th_json *status_json(struct th_guest *g)
{
    static const char *const states[] = {[TH_CHILD_STOPPED] = "stopped",
                                         [TH_CHILD_STARTING] = "starting",
                                         [TH_CHILD_READY] = "ready",
                                         [TH_CHILD_BACKOFF] = "backoff"};
    struct th_json *list = th_json_array();
    for (size_t i = 0; i < g->n_children; i++) {
        struct th_child *c = &g->children[i];
        th_json_append(list, th_json_build("{'name':%s,'state':%s,'pid':%d,'restarts':%d}", c->name,
                                           states[c->state], (int64_t)c->pid,
                                           (int64_t)c->total_restarts));
    }
    struct sysinfo si = {0};
    (void)sysinfo(&si);
    return th_json_build("{'type':%s,'phase':%s,'failure':%s,'uptime_ms':%d,'children':%o,"
                         "'memory_total_kb':%d,'memory_free_kb':%d}",
                         TH_CTL_STATUS, g->phase, g->failure, th_mono_ms() - g->boot_ms, list,
                         (int64_t)(si.totalram / 1024 * si.mem_unit),
                         (int64_t)(si.freeram / 1024 * si.mem_unit));
}

static void on_identity(struct th_guest *g, struct th_json *msg)
{
    if (!th_streq(g->phase, TH_PHASE_WAITING)) {
        th_ctl_send(g->ctl, status_json(g));
        return;
    }
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (take_identity(g, msg, &err) < 0) {
        fail(g, &err);
        return;
    }
    g->phase = TH_PHASE_STARTING;
    start_next(g);
}

/* Copies of one machine would draw the same "random" numbers: what only this one was told goes into the
 * kernel's pool, and the generators that were filled from it are filled again. */
static void reseed(const char *seed)
{
    th_autobuf struct th_buf bytes = TH_BUF_INIT;
    struct {
        struct rand_pool_info head;
        unsigned char room[SEED_MAX_B];
    } pool = {.head = {0}};
    if (!seed || th_b64_decode(seed, strlen(seed), &bytes, NULL) < 0 || bytes.n == 0) {
        th_warn("init", "no seed", NULL);
        return;
    }
    size_t n = bytes.n < SEED_MAX_B ? bytes.n : SEED_MAX_B;
    pool.head.entropy_count = (int)n * 8;
    pool.head.buf_size = (int)n;
    memcpy(pool.room, bytes.p, n);
    th_autoclose int fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);
    if (fd < 0 || ioctl(fd, RNDADDENTROPY, &pool) < 0 || ioctl(fd, RNDRESEEDCRNG) < 0) {
        th_warn("init", "random pool not seeded", "errno=%d", errno);
    }
}

/* Reads what init and its parts execute from the root image, so that a machine of this template finds it
 * in its memory. Data is not worth it: of most files little is looked at. */
static void read_programs(void)
{
    th_autobuf struct th_buf maps = TH_BUF_INIT;
    th_autostrv struct th_strv lines = TH_STRV_INIT;
    if (th_io_read_file("/proc/self/maps", 1u << 20, &maps, NULL) < 0) {
        return;
    }
    th_strv_split(&lines, th_buf_cstr(&maps), '\n');
    for (size_t i = 0; i < lines.n; i++) {
        uintptr_t from = 0, to = 0;
        char mode[5] = "";
        if (strchr(lines.v[i], '/') &&
            sscanf(lines.v[i], "%" SCNxPTR "-%" SCNxPTR " %4s", &from, &to, mode) == 3 && mode[2] == 'x') {
            (void)madvise((void *)from, to - from, MADV_POPULATE_READ);
        }
    }
}

static void ask_crun(void)
{
    th_autobuf struct th_buf out = TH_BUF_INIT;
    if (th_proc_runl(&out, CRUN_TIMEOUT_MS, NULL, "crun", "--version", NULL) >= 0) {
        (void)(th_io_write_file(TH_GUEST_RUN "/" TH_NODE_CRUN_VERSION, out.p, out.n, 0644, NULL) < 0);
    }
}

/* What is done now is done for every machine of the template. */
static void on_quiet(struct th_guest *g)
{
    read_programs();
    ask_crun();
    sync();
    th_ctl_send(g->ctl, th_json_build("{'type':%s}", TH_CTL_QUIET));
}

static void on_wake(struct th_guest *g, struct th_json *msg)
{
    set_clock(th_json_path_int(msg, "unix_ms", 0));
    reseed(th_json_path_str(msg, "seed"));
    g->boot_ms = th_mono_ms();
    th_ctl_send(g->ctl, th_json_build("{'type':%s}", TH_CTL_AWAKE));
}

static void on_shutdown(struct th_guest *g, struct th_json *msg)
{
    if (th_streq(g->phase, TH_PHASE_STOPPING)) {
        return;
    }
    th_info("init", "shutting down", NULL);
    th_guest_stop_all(g, th_json_path_int(msg, "grace_ms", DEFAULT_GRACE_MS));
    if (g->data_mounted) {
        int64_t t = th_mono_ms();
        th_guest_unmount_all(g->paths.data);
        th_guest_progress(g, "unmount", t);
    }
    th_ctl_send(g->ctl, th_json_build("{'type':%s}", TH_CTL_BYE));
    th_ctl_flush(g->ctl, 1000);
    th_ev_stop(g->ev, 0);
}

static void on_message(struct th_ctl *ctl, const char *type, struct th_json *msg, void *arg)
{
    struct th_guest *g = arg;
    if (th_streq(type, TH_CTL_IDENTITY)) {
        on_identity(g, msg);
    } else if (th_streq(type, TH_CTL_QUIET)) {
        on_quiet(g);
    } else if (th_streq(type, TH_CTL_WAKE) && !g->host) {
        on_wake(g, msg);
    } else if (th_streq(type, TH_CTL_PING)) {
        th_ctl_send(ctl, th_json_build("{'type':%s,'id':%d,'phase':%s}", TH_CTL_PONG,
                                       th_json_path_int(msg, "id", 0), g->phase));
    } else if (th_streq(type, TH_CTL_STATUS)) {
        th_ctl_send(ctl, status_json(g));
    } else if (th_streq(type, TH_CTL_CLOCK)) {
        if (!g->host) {
            set_clock(th_json_path_int(msg, "unix_ms", 0));
        }
        th_ctl_send(ctl, th_json_build("{'type':%s,'re':%s}", TH_CTL_OK, TH_CTL_CLOCK));
    } else if (th_streq(type, TH_CTL_SHUTDOWN)) {
        on_shutdown(g, msg);
    } else {
        th_debug("init", "unknown control message", "type=%s", th_log_q(type));
    }
}

static void on_open(struct th_ctl *ctl, void *arg)
{
    struct th_guest *g = arg;
    g->ctl = ctl; /* the first opening happens before th_ctl_open_port has returned */
    send_hello(g);
}

/* ---- run ---- */

static void on_sigchld(struct th_ev_src *src, int signo, void *arg)
{
    (void)src;
    (void)signo;
    th_supervise_reap(arg);
}

static void on_sigterm(struct th_ev_src *src, int signo, void *arg)
{
    (void)src;
    (void)signo;
    struct th_guest *g = arg;
    TH_AUTO(th_json) struct th_json *msg = th_json_object();
    on_shutdown(g, msg);
}

int th_guest_run(struct th_guest *g)
{
    (void)th_ev_add_signal(g->ev, SIGCHLD, on_sigchld, g);
    (void)th_ev_add_signal(g->ev, SIGTERM, on_sigterm, g);
    th_supervise_reap(g); /* what ended before the signal was watched */
    int code = th_ev_run(g->ev);
    th_ctl_free(th_steal(&g->ctl));
    for (size_t i = 0; i < g->n_children; i++) {
        th_child_done(&g->children[i]);
    }
    free(g->children);
    free(g->failure);
    th_json_unref(g->config);
    return code;
}

void th_guest_block_signals(void)
{
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGCHLD);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGPIPE);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
}

th_ctl_open_fn *th_guest_on_open(void)
{
    return on_open;
}
th_ctl_fn *th_guest_on_message(void)
{
    return on_message;
}

/* What needs neither identity nor data disk. */
static int prepare(struct th_guest *g, struct th_err *err)
{
    int64_t t = th_mono_ms();
    th_guest_load_modules("early");
    TH_TRY(th_guest_net_up(false, err));
    TH_TRY(th_guest_mount_cgroups("/sys/fs/cgroup", err));
    th_guest_progress(g, "base", t);
    t = th_mono_ms();
    th_guest_load_modules("late");
    th_guest_sysctls(false);
    th_guest_progress(g, "modules", t);
    return 0;
}

static void open_console(void)
{
    int fd = open("/dev/console", O_RDWR | O_NOCTTY | O_CLOEXEC);
    for (int to = 0; fd >= 0 && to < 3; to++) {
        (void)dup2(fd, to);
    }
    if (fd > 2) {
        (void)close(fd);
    }
}

static _Noreturn void power_off(void)
{
    sync();
    (void)reboot(RB_POWER_OFF);
    for (;;) {
        (void)pause();
    }
}

static int vm_main(void)
{
    struct th_guest g = {.boot_ms = th_mono_ms(), .phase = TH_PHASE_WAITING, .ctl_listen_fd = -1};
    g.paths = (struct th_guest_paths){.data = th_xstrdup(TH_GUEST_DATA),
                                      .run = th_xstrdup(TH_GUEST_RUN),
                                      .etc = th_xstrdup(TH_GUEST_ETC)};
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    int mounted = th_guest_mount_basics(&err);
    open_console();
    th_guest_block_signals();
    if (mounted < 0) {
        dprintf(2, "init: %s\n", err.msg);
        return 1;
    }
    (void)setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1);
    (void)setenv("HOME", "/root", 1);
    th_guest_limits();
    th_guest_load_modules("control");
    g.ev = th_ev_new();
    if (th_ctl_open_port(g.ev, on_open, on_message, &g, &g.ctl, &err) < 0) {
        dprintf(2, "init: %s\n", err.msg);
        return 1;
    }
    if (prepare(&g, &err) < 0) {
        fail(&g, &err);
    }
    (void)th_guest_run(&g);
    power_off();
}

int th_init_main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (th_streq(argv[i], "--host")) {
            return th_hostmode_main(argc, argv);
        }
    }
    if (getpid() != 1) {
        (void)fprintf(stderr, "thimbled init: not PID 1; with --host it runs on this system\n");
        return 2;
    }
    return vm_main();
}
