/* crun and conmon: the two programs that make and watch containers.
 *
 * conmon is the parent of a container for its whole life: it keeps the log in CRI format, writes
 * the exit code to <exit-dir>/<id>, answers attach clients, and forks away from us at once, so that
 * the end of the agent means nothing to it. It is started with two pipes: we write to the start
 * pipe once the conmon process sits in a control group of its own (it waits for that before it
 * forks on), and it writes {"data": pid} or {"data": -1, "message": ...} to the sync pipe when
 * `crun create` has ended.
 *
 * Nothing here keeps state: every call names a container by its id. Upstream puts containerd or
 * CRI-O between itself and these two. */
#include "base/clock.h"
#include "base/io.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/rand.h"
#include "vm/node/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define CRUN_TIMEOUT_MS 30000
#define CREATE_TIMEOUT_MS 120000

/* What crun prints when it fails: the last line, without its timestamp and level. */
static char *crun_message(const char *text)
{
    th_autostrv struct th_strv lines = TH_STRV_INIT;
    th_strv_split(&lines, text, '\n');
    for (size_t i = lines.n; i > 0; i--) {
        const char *l = lines.v[i - 1];
        if (!*l) {
            continue;
        }
        const char *colon = strstr(l, ": "); /* "2026-01-02T03:04:05.000000Z: message" */
        return th_xstrdup(colon && l[0] == '2' && l[4] == '-' ? colon + 2 : l);
    }
    return th_xstrdup("no message");
}

static int crun_run(struct agent *a, const char *const *args, struct th_buf *out, struct th_err *err)
{
    const char *argv[16] = {a->crun, "--root", a->crun_root};
    size_t n = 3;
    for (; *args; args++) {
        TH_ASSERT(n < TH_ARRAY_LEN(argv) - 1);
        argv[n++] = *args;
    }
    th_autobuf struct th_buf errout = TH_BUF_INIT;
    th_buf_init(&errout, 64 << 10);
    struct th_proc_opts o = {.argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
    TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
    int exit_code = 0;
    int r = th_proc_run(&o, (struct th_str){0}, out, &errout, CRUN_TIMEOUT_MS, &exit_code, &e);
    if (r < 0) {
        if (e.reason == TH_R_TIMEOUT || e.reason == TH_R_NO_TOOL || errout.n == 0) {
            if (err) {
                th_err_move(err, &e);
            }
            return r;
        }
        th_autofree char *m = crun_message(th_buf_cstr(&errout));
        return th_fail(err, TH_R_INTERNAL, "%s", m);
    }
    return 0;
}

static int wait_sync(int fd, pid_t *ret_pid, struct th_err *err)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_buf_init(&b, 64 << 10);
    int64_t deadline = th_mono_ms() + CREATE_TIMEOUT_MS;
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int64_t left = deadline - th_mono_ms();
        int n = left > 0 ? poll(&p, 1, (int)left) : 0;
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return th_fail(err, TH_R_TIMEOUT, "the container was not created in %d s",
                           CREATE_TIMEOUT_MS / 1000);
        }
        char tmp[4096];
        ssize_t got = read(fd, tmp, sizeof(tmp));
        if (got > 0) {
            th_buf_add(&b, tmp, (size_t)got);
        }
        if (got <= 0 || memchr(tmp, '\n', (size_t)got)) {
            break;
        }
    }
    TH_AUTO(th_json) struct th_json *o = NULL;
    if (b.n == 0 || th_json_parse(b.p, b.n, NULL, &o, NULL) < 0) {
        return th_fail(err, TH_R_INTERNAL, "conmon ended without an answer");
    }
    int64_t data = th_json_path_int(o, "data", -1);
    if (data <= 0) {
        const char *m = th_json_path_str(o, "message");
        th_autofree char *text = crun_message(m ? m : "");
        return th_fail(err, TH_R_INTERNAL, "%s", text);
    }
    *ret_pid = (pid_t)data;
    return 0;
}

/* conmon's first process waits on the start pipe, so the whole family lands in the cgroup. */
static void conmon_to_cgroup(struct agent *a, pid_t pid)
{
    th_autofree char *procs = NULL;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    char text[32];
    int n = snprintf(text, sizeof(text), "%d", (int)pid);
    if (cg_conmon_prepare(a, &procs, &err) < 0 ||
        (procs && th_io_write_file(procs, text, (size_t)n, 0644, &err) < 0)) {
        th_warn(NODE_MOD, "conmon stays in the agent's cgroup", "err=%s", th_log_q(err.msg));
    }
}

int rt_create(struct agent *a, const struct rt_create *o, pid_t *ret_pid, struct th_err *err)
{
    int sync_pipe[2], start_pipe[2];
    if (pipe2(sync_pipe, O_CLOEXEC) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "pipe");
    }
    th_autoclose int sync_r = sync_pipe[0];
    th_autoclose int sync_w = sync_pipe[1];
    if (pipe2(start_pipe, O_CLOEXEC) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "pipe");
    }
    th_autoclose int start_r = start_pipe[0];
    th_autoclose int start_w = start_pipe[1];
    th_autofree char *pidfile = th_path_join(o->bundle, "pid");
    th_autofree char *conmon_pid = th_path_join(o->bundle, "conmon.pid");
    th_autofree char *log = th_xasprintf("k8s-file:%s", o->log_path);
    th_autofree char *conmon_log = th_path_join(o->bundle, "conmon.log");
    const char *argv[48] = {a->conmon,     "--api-version", "1",
                            "-c",          o->id,           "-u",
                            o->id,         "-n",            o->ctr_name,
                            "-r",          a->crun,         "-b",
                            o->bundle,     "--persist-dir", o->bundle,
                            "-p",          pidfile,         "-P",
                            conmon_pid,    "-l",            log,
                            "--exit-dir",  a->exit_dir,     "--socket-dir-path",
                            a->attach_dir, "--log-level",   "warning",
                            "--runtime-arg", "--root",      "--runtime-arg",
                            a->crun_root};
    size_t n = 31;
    if (o->tty) {
        argv[n++] = "-t";
    }
    if (o->stdin_open) {
        argv[n++] = "-i";
        if (!o->stdin_once) {
            argv[n++] = "--leave-stdin-open";
        }
    }
    th_autoclose int log_fd = open(conmon_log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    th_autoclose int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    th_autofree char *path = th_xasprintf("PATH=%s", getenv("PATH") ? getenv("PATH")
                                                                    : "/usr/sbin:/usr/bin:/sbin:/bin");
    const char *env[] = {path, "_OCI_SYNCPIPE=3", "_OCI_STARTPIPE=4", "XDG_RUNTIME_DIR=/run", NULL};
    int keep[] = {sync_w, start_r}, keep_as[] = {3, 4};
    struct th_proc_opts po = {.argv = argv,
                              .env = env,
                              .cwd = o->bundle,
                              .stdin_fd = -1,
                              .stdout_fd = null_fd,
                              .stderr_fd = log_fd,
                              .keep_fds = keep,
                              .keep_as = keep_as,
                              .n_keep = 2,
                              .new_session = true};
    pid_t pid = th_proc_start(&po, err);
    if (pid < 0) {
        return (int)pid;
    }
    close(th_steal_fd(&sync_w));
    close(th_steal_fd(&start_r));
    conmon_to_cgroup(a, pid);
    (void)!write(start_w, "go", 2);
    close(th_steal_fd(&start_w));
    int status = 0;
    (void)th_proc_wait(pid, CREATE_TIMEOUT_MS, &status, NULL);
    return wait_sync(sync_r, ret_pid, err);
}

bool rt_conmon_alive(const char *bundle, const char *id)
{
    th_autofree char *file = th_path_join(bundle, "conmon.pid");
    th_autobuf struct th_buf b = TH_BUF_INIT, cmd = TH_BUF_INIT;
    if (th_io_read_file(file, 64, &b, NULL) < 0) {
        return false;
    }
    th_autofree char *path = th_xasprintf("/proc/%ld/cmdline", strtol(th_buf_cstr(&b), NULL, 10));
    /* its command line names the container: a pid is used again sooner or later */
    return th_io_read_file(path, 64 << 10, &cmd, NULL) >= 0 && cmd.n > 0 &&
           memmem(cmd.p, cmd.n, id, strlen(id)) != NULL;
}

int rt_start(struct agent *a, const char *id, struct th_err *err)
{
    return crun_run(a, (const char *[]){"start", id, NULL}, NULL, err);
}

int rt_update(struct agent *a, const char *id, const char *bundle, const struct th_json *resources,
              struct th_err *err)
{
    th_autofree char *path = th_path_join(bundle, "update.json");
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_json_dump(resources, &b);
    TH_TRY(th_io_write_file(path, b.p, b.n, 0600, err));
    int r = crun_run(a, (const char *[]){"update", "--resources", path, id, NULL}, NULL, err);
    (void)unlink(path);
    return r;
}

int rt_kill(struct agent *a, const char *id, const char *sig, bool all, struct th_err *err)
{
    if (all) {
        return crun_run(a, (const char *[]){"kill", "--all", id, sig, NULL}, NULL, err);
    }
    return crun_run(a, (const char *[]){"kill", id, sig, NULL}, NULL, err);
}

int rt_delete(struct agent *a, const char *id, struct th_err *err)
{
    th_autofree char *dir = th_path_join(a->crun_root, id);
    if (!th_io_exists(dir)) {
        return 0;
    }
    return crun_run(a, (const char *[]){"delete", "--force", id, NULL}, NULL, err);
}

int rt_state(struct agent *a, const char *id, char ret[16], pid_t *ret_pid, struct th_err *err)
{
    ret[0] = 0;
    *ret_pid = 0;
    th_autofree char *dir = th_path_join(a->crun_root, id);
    if (!th_io_exists(dir)) {
        return 0;
    }
    th_autobuf struct th_buf out = TH_BUF_INIT;
    TH_TRY(crun_run(a, (const char *[]){"state", id, NULL}, &out, err));
    TH_AUTO(th_json) struct th_json *o = NULL;
    TH_TRY(th_json_parse(out.p, out.n, NULL, &o, err));
    const char *s = th_json_path_str(o, "status");
    (void)snprintf(ret, 16, "%s", s ? s : "");
    *ret_pid = (pid_t)th_json_path_int(o, "pid", 0);
    return 0;
}

int rt_list(struct agent *a, struct th_strv *ids, struct th_err *err)
{
    return th_io_exists(a->crun_root) ? th_io_list(a->crun_root, ids, err) : 0;
}

int rt_exec_process(const char *bundle, const struct th_json *argv, bool tty, char **ret_path,
                    struct th_err *err)
{
    th_autofree char *cfg = th_path_join(bundle, "config.json");
    th_autobuf struct th_buf b = TH_BUF_INIT;
    TH_TRY(th_io_read_file(cfg, TH_LIMIT_CONFIG_FILE_B, &b, err));
    TH_AUTO(th_json) struct th_json *o = NULL;
    TH_TRY(th_json_parse(b.p, b.n, NULL, &o, err));
    struct th_json *process = th_json_get(o, "process");
    th_json_set(process, "args", th_json_dup(argv));
    th_json_set_bool(process, "terminal", tty);
    if (tty) {
        struct th_json *env = th_json_get(process, "env");
        bool has = false;
        for (size_t i = 0; i < th_json_len(env); i++) {
            has = has || th_startswith(th_json_str(th_json_at(env, i)), "TERM=");
        }
        if (!has) {
            th_json_append_str(env, "TERM=xterm");
        }
    }
    char suffix[9];
    th_autofree char *path = th_path_joinf(bundle, "exec-%s.json", th_rand_suffix(suffix, 8));
    th_buf_clear(&b);
    th_json_dump(process, &b);
    TH_TRY(th_io_write_file(path, b.p, b.n, 0600, err));
    *ret_path = th_steal(&path);
    return 0;
}

/* Kills what crun exec started: the process inside first, for crun's end would not end it. */
static void exec_kill(const char *pidfile, pid_t crun)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    if (th_io_read_file(pidfile, 64, &b, NULL) >= 0) {
        long pid = strtol(th_buf_cstr(&b), NULL, 10);
        if (pid > 1) {
            (void)kill((pid_t)pid, SIGKILL);
        }
    }
    (void)kill(crun, SIGKILL);
}

int rt_exec(struct agent *a, const char *id, const char *bundle, const struct th_json *argv,
            int64_t timeout_ms, size_t max, struct th_buf *out, int *ret_exit, struct th_err *err)
{
    th_autofree char *process = NULL;
    TH_TRY(rt_exec_process(bundle, argv, false, &process, err));
    th_autofree char *pidfile = th_xasprintf("%s.pid", process);
    int p[2];
    if (pipe2(p, O_CLOEXEC) < 0) {
        (void)unlink(process);
        return th_fail_errno(err, errno, TH_R_IO, "pipe");
    }
    th_autoclose int rd = p[0];
    th_autoclose int wr = p[1];
    const char *args[] = {a->crun, "--root",  a->crun_root, "exec", "--process",
                          process, "--pid-file", pidfile,   id,     NULL};
    struct th_proc_opts o = {.argv = args, .stdin_fd = -1, .stdout_fd = wr, .stderr_fd = wr};
    pid_t pid = th_proc_start(&o, err);
    if (pid < 0) {
        (void)unlink(process);
        return (int)pid;
    }
    close(th_steal_fd(&wr));
    int64_t deadline = th_mono_ms() + timeout_ms;
    bool timed_out = false;
    for (;;) {
        int64_t left = deadline - th_mono_ms();
        struct pollfd pf = {.fd = rd, .events = POLLIN};
        int n = left > 0 ? poll(&pf, 1, (int)left) : 0;
        if (n < 0 && errno == EINTR) {
            continue;
        }
        char tmp[4096];
        if (n <= 0) {
            timed_out = true;
            break;
        }
        ssize_t got = read(rd, tmp, sizeof(tmp));
        if (got <= 0) {
            break;
        }
        if (out && out->n < max) {
            th_buf_add(out, tmp, (size_t)got < max - out->n ? (size_t)got : max - out->n);
        }
    }
    int status = 0, r = 0;
    if (!timed_out) {
        /* A child that keeps the pipe closed but lives on is waited for within the same limit. */
        int64_t left = deadline - th_mono_ms();
        siginfo_t si = {0};
        while (left > 0 && waitid(P_PID, (id_t)pid, &si, WEXITED | WNOWAIT | WNOHANG) == 0 &&
               si.si_pid == 0) {
            struct timespec ts = {0, 5000000};
            nanosleep(&ts, NULL);
            left = deadline - th_mono_ms();
        }
        timed_out = si.si_pid == 0 && left <= 0;
    }
    if (timed_out) {
        exec_kill(pidfile, pid);
        r = th_fail(err, TH_R_TIMEOUT, "command timed out after %lld s", (long long)timeout_ms / 1000);
    }
    (void)th_proc_wait(pid, 5000, &status, NULL);
    (void)unlink(process);
    (void)unlink(pidfile);
    if (r == 0) {
        *ret_exit = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
    return r;
}

int rt_reopen_log(const char *bundle, struct th_err *err)
{
    th_autofree char *ctl = th_path_join(bundle, "ctl");
    th_autoclose int fd = open(ctl, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "open %s", ctl);
    }
    return th_io_write_all(fd, "2 0 0\n", 6, err);
}

bool rt_exit_read(struct agent *a, const char *id, int *ret_code, int64_t *ret_ms)
{
    th_autofree char *path = th_path_join(a->exit_dir, id);
    struct stat st;
    th_autobuf struct th_buf b = TH_BUF_INIT;
    if (stat(path, &st) < 0 || th_io_read_file(path, 64, &b, NULL) < 0 || b.n == 0) {
        return false;
    }
    *ret_code = (int)strtol(th_buf_cstr(&b), NULL, 10);
    *ret_ms = (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000;
    return true;
}
