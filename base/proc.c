/* Child processes.
 *
 * Problem: Thimble runs crun, conmon, qemu tools and compilers, often from threads of a process
 * with much memory and many descriptors. fork copies page tables and runs arbitrary code of a
 * multi-threaded program in the child; a shell adds quoting bugs. Design: clone with CLONE_VM and
 * CLONE_VFORK, as posix_spawn does, but with our own setup code, because posix_spawn knows neither
 * PR_SET_PDEATHSIG nor "close everything I did not name". The child borrows our memory until
 * execve, so its code (child_main) only makes system calls and writes to one struct.
 *
 * Invariants: all signals are blocked while the child shares memory, and it starts with none
 * blocked and all handlers at their defaults. A descriptor reaches the child only through
 * stdin/stdout/stderr or keep_fds. PR_SET_PDEATHSIG fires when the *thread* that started the child
 * ends: die_with_parent is for threads that live as long as the process.
 *
 * Running to the end does not wait for the pipes to close but for the process: a daemon left behind
 * by the child (conmon does that by design) may hold them for ever. Timeouts are real time,
 * since the other process does not live on our simulated clock.
 */
#include "base/proc.h"

#include "base/clock.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define CHILD_STACK_B (64 * 1024)
#define TAIL_B 4096 /* of stderr, for the message */
#define ARGS_MAX 64

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1u << 2)
#endif

struct fd_move {
    int from, to;
};

struct child {
    const struct th_proc_opts *opts;
    const char *path;
    struct fd_move *moves; /* sorted by `to`; starts with 0, 1, 2 */
    size_t n_moves;
    pid_t parent;
    int error; /* written by the child */
    const char *step;
};

static int child_fail(struct child *c, const char *step)
{
    c->error = errno;
    c->step = step;
    return 127;
}

static int child_descriptors(struct child *c)
{
    int above = c->moves[c->n_moves - 1].to + 1;
    for (size_t i = 0; i < c->n_moves; i++) {
        /* first out of the way of all targets, so that the order of moves does not matter */
        c->moves[i].from = fcntl(c->moves[i].from, F_DUPFD_CLOEXEC, above);
        if (c->moves[i].from < 0) {
            return -1;
        }
    }
    unsigned next = 0; /* the first number not yet decided on */
    for (size_t i = 0; i < c->n_moves; i++) {
        unsigned to = (unsigned)c->moves[i].to;
        if (dup2(c->moves[i].from, c->moves[i].to) < 0) {
            return -1;
        }
        if (to > next) {
            (void)syscall(SYS_close_range, next, to - 1, CLOSE_RANGE_CLOEXEC);
        }
        next = to + 1;
    }
    /* kernels before 5.11 cannot; ours are opened with O_CLOEXEC everywhere, this is the safety net
     */
    (void)syscall(SYS_close_range, next, ~0u, CLOSE_RANGE_CLOEXEC);
    return 0;
}

static int child_main(void *arg)
{
    struct child *c = arg;
    const struct th_proc_opts *o = c->opts;
    struct sigaction dfl = {.sa_handler = SIG_DFL};
    for (int s = 1; s < NSIG; s++) {
        (void)sigaction(s, &dfl, NULL); /* fails for SIGKILL, SIGSTOP and libc's own */
    }
    if (o->new_session && setsid() < 0) {
        return child_fail(c, "setsid");
    }
    if (o->die_with_parent) {
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) {
            return child_fail(c, "prctl");
        }
        if (getppid() != c->parent) {
            _exit(127); /* it died before the line above */
        }
    }
    if (o->cwd && chdir(o->cwd) != 0) {
        return child_fail(c, "chdir");
    }
    if (child_descriptors(c) != 0) {
        return child_fail(c, "passing descriptors");
    }
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)execve(c->path, (char *const *)o->argv, o->env ? (char *const *)o->env : environ);
    return child_fail(c, "execve");
}

static int by_target(const void *a, const void *b)
{
    return ((const struct fd_move *)a)->to - ((const struct fd_move *)b)->to;
}

static pid_t clone_child(struct child *c)
{
    void *stack = mmap(NULL, CHILD_STACK_B, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (stack == MAP_FAILED) {
        return -1;
    }
    sigset_t all;
    sigset_t old;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    pid_t pid =
        clone(child_main, (char *)stack + CHILD_STACK_B, CLONE_VM | CLONE_VFORK | SIGCHLD, c);
    int e = errno;
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    (void)munmap(stack, CHILD_STACK_B);
    errno = e;
    return pid;
}

pid_t th_proc_start(const struct th_proc_opts *opts, struct th_err *err)
{
    const char *name = opts->argv[0];
    th_autofree char *path = th_proc_find(name);
    if (!path) {
        return th_fail(err, TH_R_NO_TOOL, "%s: no such program", name);
    }
    th_autoclose int null_fd = -1;
    if (opts->stdin_fd < 0) {
        null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (null_fd < 0) {
            return th_fail_errno(err, errno, TH_R_IO, "/dev/null");
        }
    }
    size_t n = 3 + opts->n_keep;
    th_autofree struct fd_move *moves = th_xcalloc(n, sizeof(*moves));
    moves[0] = (struct fd_move){opts->stdin_fd < 0 ? null_fd : opts->stdin_fd, 0};
    moves[1] = (struct fd_move){opts->stdout_fd < 0 ? STDOUT_FILENO : opts->stdout_fd, 1};
    moves[2] = (struct fd_move){opts->stderr_fd < 0 ? STDERR_FILENO : opts->stderr_fd, 2};
    for (size_t i = 0; i < opts->n_keep; i++) {
        TH_ASSERT(opts->keep_as[i] > 2);
        moves[3 + i] = (struct fd_move){opts->keep_fds[i], opts->keep_as[i]};
    }
    qsort(moves, n, sizeof(*moves), by_target);
    struct child c = {.opts = opts, .path = path, .moves = moves, .n_moves = n, .parent = getpid()};
    pid_t pid = clone_child(&c);
    if (pid < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "starting %s", name);
    }
    if (c.step) {
        (void)waitpid(pid, NULL, 0);
        bool missing = strcmp(c.step, "execve") == 0 && (c.error == ENOENT || c.error == ENOEXEC);
        return th_fail_errno(err, c.error, missing ? TH_R_NO_TOOL : TH_R_IO, "starting %s: %s",
                             name, c.step);
    }
    return pid;
}

int th_proc_pidfd(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

static int reap(pid_t pid, int *status)
{
    pid_t r;
    do {
        r = waitpid(pid, status, 0);
    } while (r < 0 && errno == EINTR);
    return r == pid ? 0 : -1;
}

static int64_t left_until(int64_t deadline)
{
    if (deadline == INT64_MAX) {
        return -1;
    }
    int64_t left = deadline - th_mono_real_ms();
    return left < 0 ? 0 : left > INT_MAX ? INT_MAX : left;
}

static int64_t deadline_of(int64_t timeout_ms)
{
    return timeout_ms < 0 ? INT64_MAX : th_mono_real_ms() + timeout_ms;
}

/* Ends the child (a leader's whole group) and says so. */
static int timed_out(pid_t pid, bool leader, struct th_err *err)
{
    int status;
    (void)kill(leader ? -pid : pid, SIGKILL);
    (void)reap(pid, &status);
    return th_fail(err, TH_R_TIMEOUT, "process %d did not end in time and was killed", (int)pid);
}

int th_proc_wait(pid_t pid, int64_t timeout_ms, int *ret_status, struct th_err *err)
{
    int status = 0;
    if (timeout_ms >= 0) {
        int64_t deadline = deadline_of(timeout_ms);
        th_autoclose int fd = th_proc_pidfd(pid);
        if (fd < 0) {
            return th_fail_errno(err, errno, TH_R_IO, "pidfd_open %d", (int)pid);
        }
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int r;
        do {
            r = poll(&p, 1, (int)left_until(deadline));
        } while (r < 0 && errno == EINTR);
        if (r == 0) {
            return timed_out(pid, false, err);
        }
    }
    if (reap(pid, &status) != 0) {
        return th_fail_errno(err, errno, TH_R_IO, "waiting for process %d", (int)pid);
    }
    *ret_status = status;
    return 0;
}

/* ---- running to the end ---- */

struct capture {
    int fd; /* our end of the pipe; -1 when closed */
    struct th_buf *to;
    bool tail; /* keep only the last TAIL_B bytes */
};

/* Reads what is there; closes at the end of the stream. */
static void drain(struct capture *c)
{
    char chunk[16384];
    for (;;) {
        ssize_t r = read(c->fd, chunk, sizeof(chunk));
        if (r < 0 && errno == EINTR) {
            continue;
        }
        if (r > 0) {
            th_buf_add(c->to, chunk, (size_t)r);
            if (c->tail && c->to->n > TAIL_B) {
                th_buf_consume(c->to, c->to->n - TAIL_B);
            }
            continue;
        }
        if (r == 0) {
            (void)close(c->fd);
            c->fd = -1;
        }
        return;
    }
}

/* Until the process ends: its output moves to the buffers. */
static int gather(pid_t pid, bool leader, struct capture *out, struct capture *errout,
                  int64_t timeout_ms, int *ret_status, struct th_err *err)
{
    int64_t deadline = deadline_of(timeout_ms);
    th_autoclose int fd = th_proc_pidfd(pid);
    if (fd < 0) {
        int e = errno;
        (void)timed_out(pid, leader, NULL);
        return th_fail_errno(err, e, TH_R_IO, "pidfd_open");
    }
    for (;;) {
        struct pollfd p[3] = {
            {.fd = fd, .events = POLLIN},
            {.fd = out->fd, .events = POLLIN},
            {.fd = errout->fd, .events = POLLIN},
        };
        int r = poll(p, 3, (int)left_until(deadline));
        if (r < 0 && errno == EINTR) {
            continue;
        }
        if (r == 0) {
            return timed_out(pid, leader, err);
        }
        /* The end is looked at before the pipes are, so nothing written before it is missed. */
        if (out->fd >= 0) {
            drain(out);
        }
        if (errout->fd >= 0) {
            drain(errout);
        }
        if (p[0].revents) {
            return reap(pid, ret_status) == 0
                       ? 0
                       : th_fail_errno(err, errno, TH_R_IO, "waiting for process %d", (int)pid);
        }
    }
}

static int stdin_of(struct th_str in, struct th_err *err)
{
    /* A memory file needs nobody to feed it, and no SIGPIPE can come of it. */
    th_autoclose int fd = memfd_create("stdin", MFD_CLOEXEC);
    if (fd < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "memfd_create");
    }
    TH_TRY(th_io_write_all(fd, in.p, in.n, err));
    (void)lseek(fd, 0, SEEK_SET);
    return th_steal_fd(&fd);
}

static int make_pipe(int *ret_ours, int *ret_childs, struct th_err *err)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0) {
        return th_fail_errno(err, errno, TH_R_IO, "pipe");
    }
    (void)th_io_set_nonblock(fds[0], true);
    *ret_ours = fds[0];
    *ret_childs = fds[1];
    return 0;
}

/* The last line that is not empty, at most 300 bytes of it. */
static struct th_str last_line(const struct th_buf *b)
{
    const char *p = th_buf_cstr(b);
    size_t end = b->n;
    while (end > 0 && (unsigned char)p[end - 1] <= ' ') {
        end--;
    }
    size_t start = end;
    while (start > 0 && p[start - 1] != '\n') {
        start--;
    }
    return (struct th_str){p + start, end - start > 300 ? 300 : end - start};
}

static int verdict(const char *name, int status, const struct th_buf *errout, int *ret_exit,
                   struct th_err *err)
{
    int code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    if (ret_exit) {
        *ret_exit = code;
    }
    if (code == 0) {
        return 0;
    }
    struct th_str why = last_line(errout);
    if (WIFSIGNALED(status)) {
        return th_fail(err, TH_R_INTERNAL, "%s was killed by signal %d%s%.*s", name,
                       WTERMSIG(status), why.n ? ": " : "", (int)why.n, why.p);
    }
    return th_fail(err, TH_R_INTERNAL, "%s failed with exit status %d%s%.*s", name, code,
                   why.n ? ": " : "", (int)why.n, why.p);
}

int th_proc_run(const struct th_proc_opts *opts, struct th_str in, struct th_buf *out,
                struct th_buf *errout, int64_t timeout_ms, int *ret_exit, struct th_err *err)
{
    th_autobuf struct th_buf tail = TH_BUF_INIT;
    th_autoclose int in_fd = -1;
    th_autoclose int out_w = -1;
    th_autoclose int err_w = -1;
    struct capture co = {.fd = -1, .to = out};
    struct capture ce = {.fd = -1, .to = errout ? errout : &tail, .tail = !errout};
    struct th_proc_opts o = *opts;
    int r = 0;
    if (in.n > 0) {
        r = in_fd = stdin_of(in, err);
        o.stdin_fd = in_fd;
    }
    if (r >= 0 && out) {
        r = make_pipe(&co.fd, &out_w, err);
    } else if (r >= 0) {
        r = out_w = open("/dev/null", O_WRONLY | O_CLOEXEC);
        r = r < 0 ? th_fail_errno(err, errno, TH_R_IO, "/dev/null") : 0;
    }
    /* one buffer for both means one pipe, which keeps the order of what was written */
    bool joined = out && out == errout;
    if (r >= 0 && !joined) {
        r = make_pipe(&ce.fd, &err_w, err);
    }
    int status = 0;
    if (r >= 0) {
        o.stdout_fd = out_w;
        o.stderr_fd = joined ? out_w : err_w;
        pid_t pid = th_proc_start(&o, err);
        r = pid;
        if (pid > 0) {
            r = gather(pid, o.new_session, &co, &ce, timeout_ms, &status, err);
        }
    }
    if (co.fd >= 0) {
        (void)close(co.fd);
    }
    if (ce.fd >= 0) {
        (void)close(ce.fd);
    }
    return r < 0 ? r : verdict(opts->argv[0], status, ce.to, ret_exit, err);
}

int th_proc_runl(struct th_buf *out, int64_t timeout_ms, struct th_err *err, const char *arg0, ...)
{
    const char *argv[ARGS_MAX] = {arg0};
    va_list ap;
    va_start(ap, arg0);
    for (size_t n = 1; (argv[n] = va_arg(ap, const char *)); n++) {
        TH_ASSERT(n < ARGS_MAX - 1);
    }
    va_end(ap);
    struct th_proc_opts o = {.argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
    return th_proc_run(&o, (struct th_str){0}, out, NULL, timeout_ms, NULL, err);
}

static bool is_program(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

char *th_proc_find(const char *program)
{
    if (strchr(program, '/')) {
        return th_xstrdup(program); /* execve decides; it may be relative to the child's folder */
    }
    const char *path = getenv("PATH");
    th_autostrv struct th_strv dirs = TH_STRV_INIT;
    th_strv_split(&dirs, path ? path : "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", ':');
    for (size_t i = 0; i < dirs.n && *program; i++) {
        /* relative folders in PATH would make the answer depend on where we stand */
        if (dirs.v[i][0] == '/') {
            th_autofree char *full = th_path_join(dirs.v[i], program);
            if (is_program(full)) {
                return th_steal(&full);
            }
        }
    }
    return NULL;
}

uint64_t th_proc_start_ticks(pid_t pid)
{
    char path[40];
    (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    th_autobuf struct th_buf b = TH_BUF_INIT;
    if (th_io_read_file(path, 8192, &b, NULL) < 0) {
        return 0;
    }
    /* The second field is the command in parentheses and may hold anything; fields 3.. follow. */
    const char *p = strrchr(th_buf_cstr(&b), ')');
    for (int field = 2; p && field < 22; field++) {
        p = strchr(p + 1, ' ');
    }
    return p ? strtoull(p + 1, NULL, 10) : 0;
}
