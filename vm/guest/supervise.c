/* Supervision: the children run, each in a cgroup of its own, and come back when they end.
 *
 * init is PID 1, so every orphan becomes its child; one SIGCHLD handler reaps whatever has ended
 * (th_supervise_reap) and looks whether it was one of ours. A child that ends is started again after
 * a delay that doubles from 200 ms to 10 s and is forgotten once it has been up for 30 s. Only the
 * process itself is signalled, never its cgroup: containers of the node agent live elsewhere and go
 * on when it is restarted.
 *
 * Readiness: the child gets the writing end of a pipe (--ready-fd N) and writes to it once it
 * serves. A child that closes it without a word, by ending, was not ready.
 *
 * A child is a fork of init that goes on in its part's main function (main.c), with no exec between:
 * the dynamic linker binds some thirty libraries for the one program, which is a quarter of a second
 * of an emulated CPU for each exec. init has one thread and little memory, and the child closes what
 * it inherits, so nothing of init is seen there but the libraries. The fork also lets it enter its
 * cgroup first, so that nothing that it starts can be left outside. */
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "vm/guest/guest.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define DELAY_FIRST_MS 200
#define DELAY_MAX_MS 10000
#define FORGET_AFTER_MS 30000

static th_part_fn *(*find_part)(const char *name);
static char *title; /* the bytes of init's arguments, which the system shows */
static size_t title_n;

void th_supervise_parts(th_part_fn *(*find)(const char *name), int argc, char **argv)
{
    find_part = find;
    title = argv[0];
    title_n = (size_t)(argv[argc - 1] + strlen(argv[argc - 1]) + 1 - argv[0]);
}

int64_t th_supervise_delay_ms(int restarts)
{
    int64_t delay = DELAY_FIRST_MS;
    for (int i = 0; i < restarts && delay < DELAY_MAX_MS; i++) {
        delay *= 2;
    }
    return delay < DELAY_MAX_MS ? delay : DELAY_MAX_MS;
}

static void close_ready(struct th_child *c)
{
    th_ev_remove(th_steal(&c->ready_src));
    if (c->ready_fd >= 0) {
        (void)close(th_steal_fd(&c->ready_fd));
    }
}

static void on_ready_fd(struct th_ev_src *src, int fd, uint32_t events, void *arg)
{
    (void)src;
    (void)events;
    struct th_child *c = arg;
    char word[64];
    ssize_t n = read(fd, word, sizeof(word));
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    close_ready(c);
    if (n > 0 && c->state == TH_CHILD_STARTING) {
        c->state = TH_CHILD_READY;
        th_info("init", "child is ready", "name=%s ms=%lld", c->name,
                (long long)(th_mono_ms() - c->started_ms));
        th_guest_child_ready(c->g, c);
    }
}

/* What ps shows: the words of the part, as many as fit where init's own stood. */
static void set_title(char **argv)
{
    memset(title, 0, title_n);
    size_t n = 0;
    for (; *argv && n < title_n; argv++) {
        int k = snprintf(title + n, title_n - n, "%s%s", n ? "" : "thimbled ", *argv);
        n += k >= 0 ? (size_t)k + 1 : 0;
    }
}

static _Noreturn void child_run(struct th_child *c, th_part_fn *run, char **argv, int argc, int cgroup_fd,
                                int ready_fd)
{
    if (cgroup_fd >= 0 && write(cgroup_fd, "0", 1) < 0) {
        dprintf(2, "thimbled: %s: enter the cgroup: %s\n", c->name, strerror(errno));
    }
    if (ready_fd > 3) {
        (void)close_range(3, (unsigned)ready_fd - 1, 0);
    }
    (void)close_range((unsigned)ready_fd + 1, ~0u, 0);
    (void)fcntl(ready_fd, F_SETFD, 0);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null >= 0) {
        (void)dup2(null, 0);
        (void)close(null);
    }
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)setsid();
    (void)prctl(PR_SET_NAME, argv[0]);
    set_title(argv);
    exit(run(argc, argv));
}

/* While the machine starts, the node agent, which is waited for, goes before what the control plane does
 * besides answering it. */
void th_supervise_weight(struct th_child *c, int weight)
{
    if (!c->cgroup) {
        return;
    }
    th_autofree char *path = th_path_join(c->cgroup, "cpu.weight");
    char text[16];
    int n = snprintf(text, sizeof(text), "%d", weight);
    (void)(th_io_write_file(path, text, (size_t)n, 0644, NULL) < 0); /* a kernel without the controller */
}

static int open_cgroup(struct th_child *c)
{
    if (!c->cgroup) {
        return -1;
    }
    if (mkdir(c->cgroup, 0755) < 0 && errno != EEXIST) {
        th_warn("init", "no cgroup for a child", "path=%s errno=%d", c->cgroup, errno);
        return -1;
    }
    th_autofree char *procs = th_path_join(c->cgroup, "cgroup.procs");
    return open(procs, O_WRONLY | O_CLOEXEC);
}

void th_supervise_start(struct th_child *c)
{
    th_part_fn *run = find_part ? find_part(c->argv.v[0]) : NULL;
    if (!run) {
        th_error("init", "no such part", "name=%s", c->argv.v[0]);
        return;
    }
    int pipe_fd[2];
    if (pipe2(pipe_fd, O_CLOEXEC | O_NONBLOCK) < 0) {
        th_error("init", "pipe", "errno=%d", errno);
        return;
    }
    th_autostrv struct th_strv argv = TH_STRV_INIT;
    for (size_t i = 0; i < c->argv.n; i++) {
        th_strv_add(&argv, c->argv.v[i]);
    }
    th_strv_add(&argv, "--ready-fd");
    th_strv_addf(&argv, "%d", pipe_fd[1]);
    th_autoclose int cgroup_fd = open_cgroup(c);
    (void)fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        child_run(c, run, argv.v, (int)argv.n, cgroup_fd, pipe_fd[1]);
    }
    (void)close(pipe_fd[1]);
    if (pid < 0) {
        th_error("init", "fork", "name=%s errno=%d", c->name, errno);
        (void)close(pipe_fd[0]);
        return;
    }
    c->pid = pid;
    c->state = TH_CHILD_STARTING;
    c->started_ms = th_mono_ms();
    c->ready_fd = pipe_fd[0];
    c->ready_src = th_ev_add_fd(c->g->ev, c->ready_fd, EPOLLIN, on_ready_fd, c);
    th_info("init", "child started", "name=%s pid=%d", c->name, (int)pid);
}

static void on_retry(struct th_ev_src *src, void *arg)
{
    (void)src;
    struct th_child *c = arg;
    c->retry_src = NULL; /* one-shot sources free themselves */
    if (c->state == TH_CHILD_BACKOFF) {
        th_supervise_start(c);
    }
}

static void child_ended(struct th_guest *g, struct th_child *c, int status)
{
    c->pid = 0;
    close_ready(c);
    int64_t up_ms = th_mono_ms() - c->started_ms;
    th_log(TH_LOG_WARN, "init", "child ended", "name=%s exit=%d signal=%d up_ms=%lld", c->name,
           WIFEXITED(status) ? WEXITSTATUS(status) : -1, WIFSIGNALED(status) ? WTERMSIG(status) : 0,
           (long long)up_ms);
    if (c->state == TH_CHILD_STOPPED) {
        return;
    }
    if (up_ms >= FORGET_AFTER_MS) {
        c->restarts = 0;
    }
    c->state = TH_CHILD_BACKOFF;
    int64_t delay = th_supervise_delay_ms(c->restarts);
    c->restarts++;
    c->total_restarts++;
    c->retry_src = th_ev_add_timer(g->ev, delay, 0, on_retry, c);
    th_guest_child_ended(g, c, status);
}

void th_supervise_reap(struct th_guest *g)
{
    for (;;) {
        int status = 0;
        pid_t pid = waitpid(-1, &status, WNOHANG);
        if (pid <= 0) {
            return;
        }
        for (size_t i = 0; i < g->n_children; i++) {
            if (g->children[i].pid == pid) {
                child_ended(g, &g->children[i], status);
                break;
            }
        }
    }
}

void th_supervise_stop(struct th_child *c, int64_t timeout_ms)
{
    c->state = TH_CHILD_STOPPED;
    th_ev_remove(th_steal(&c->retry_src));
    if (c->pid <= 0) {
        return;
    }
    (void)kill(c->pid, SIGTERM);
    int64_t deadline = th_mono_ms() + timeout_ms;
    while (c->pid > 0 && th_mono_ms() < deadline) {
        th_supervise_reap(c->g);
        if (c->pid > 0) {
            th_sleep_ms(5);
        }
    }
    if (c->pid > 0) {
        th_warn("init", "child does not end", "name=%s", c->name);
        (void)kill(c->pid, SIGKILL);
        while (c->pid > 0) {
            th_supervise_reap(c->g);
            th_sleep_ms(1);
        }
    }
}

void th_child_done(struct th_child *c)
{
    close_ready(c);
    th_ev_remove(th_steal(&c->retry_src));
    free(c->name);
    free(c->cgroup);
    th_strv_done(&c->argv);
}
