/* exec and attach: processes whose streams a client holds (chan.c has the protocols).
 *
 * exec starts `crun exec` with pipes, or with a terminal received through crun's console socket.
 * attach connects to the socket conmon offers beside each container; it does not end with the
 * container's output but with the container. One thread per connection moves all bytes with poll;
 * nothing is read from a side whose other end is full. */
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "base/proc.h"
#include "vm/node/chan.h"
#include "vm/node/server.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#define STREAMS_MS 30000 /* for a SPDY client to open its streams, as upstream */

struct session {
    struct agent *a;
    struct pod *p;
    char *ctr, *id, *dir;
    bool attach, want_in, want_out, want_err, tty, spdy;
    const char *proto;
    struct th_json *argv;
    struct chans ch;
    bool ch_open;
    struct MHD_UpgradeResponseHandle *urh;
    /* the process */
    pid_t pid;
    int pidfd;
    int in_fd, out_fd, err_fd; /* attach: in_fd == out_fd is conmon's socket */
    int tty_fd;                /* exec with a terminal: in_fd and out_fd are copies */
    char *process_file, *pid_file, *console;
    struct th_buf to_in;
    bool in_closed;
};

static void session_free(struct session *s)
{
    int *fds[] = {&s->in_fd, &s->err_fd, &s->tty_fd, &s->pidfd};
    if (s->out_fd >= 0 && s->out_fd != s->in_fd && s->out_fd != s->tty_fd) {
        close(s->out_fd);
    }
    if (s->in_fd == s->tty_fd) {
        s->in_fd = -1;
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(fds); i++) {
        if (*fds[i] >= 0) {
            close(*fds[i]);
        }
    }
    char *files[] = {s->process_file, s->pid_file, s->console};
    for (size_t i = 0; i < TH_ARRAY_LEN(files); i++) {
        if (files[i]) {
            (void)unlink(files[i]);
            free(files[i]);
        }
    }
    if (s->ch_open) {
        chans_done(&s->ch);
    }
    th_buf_done(&s->to_in);
    th_json_unref(s->argv);
    pod_unref(s->p);
    free(s->ctr);
    free(s->id);
    free(s->dir);
    free(s);
}

/* ---- the end: a Status ---- */

static void end_with_exit(struct session *s, int code)
{
    TH_AUTO(th_json) struct th_json *o = NULL;
    if (code == 0) {
        o = th_json_build("{'metadata':{},'status':'Success'}");
    } else {
        th_autofree char *n = th_xasprintf("%d", code);
        th_autofree char *m = th_xasprintf("command terminated with non-zero exit code: command terminated "
                                           "with exit code %d", code);
        o = th_json_build("{'metadata':{},'status':'Failure','message':%s,'reason':'NonZeroExitCode',"
                          "'details':{'causes':[{'reason':'ExitCode','message':%s}]}}", m, n);
    }
    chans_status(&s->ch, o);
}

static void end_with_error(struct session *s, const struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *o = th_json_build(
        "{'metadata':{},'status':'Failure','message':%s,'reason':'InternalError','details':{'causes':["
        "{'message':%s}]},'code':500}", err->msg, err->msg);
    chans_status(&s->ch, o);
}

/* ---- starting ---- */

static int console_listen(struct session *s, struct th_err *err)
{
    s->console = th_xasprintf("%s.tty", s->process_file);
    return th_io_unix_listen(s->console, 0600, 1, err);
}

static int console_take(int listener, struct th_err *err)
{
    struct pollfd p = {.fd = listener, .events = POLLIN};
    if (poll(&p, 1, 10000) <= 0) {
        return th_fail(err, TH_R_TIMEOUT, "no terminal came from crun");
    }
    th_autoclose int c = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    char data[256], control[CMSG_SPACE(sizeof(int))];
    struct iovec iov = {data, sizeof(data)};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
                       .msg_controllen = sizeof(control)};
    if (c < 0 || recvmsg(c, &m, MSG_CMSG_CLOEXEC) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "receiving the terminal");
    }
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    int fd = -1;
    if (!h || h->cmsg_type != SCM_RIGHTS) {
        return th_fail(err, TH_R_INTERNAL, "crun sent no terminal");
    }
    memcpy(&fd, CMSG_DATA(h), sizeof(fd));
    return fd;
}

static int start_exec(struct session *s, struct th_err *err)
{
    TH_TRY(rt_exec_process(s->dir, s->argv, s->tty, &s->process_file, err));
    s->pid_file = th_xasprintf("%s.pid", s->process_file);
    th_autoclose int listener = -1;
    if (s->tty) {
        listener = console_listen(s, err);
        TH_TRY(listener);
    }
    int in[2] = {-1, -1}, out[2] = {-1, -1}, er[2] = {-1, -1};
    if ((!s->tty && s->want_in && pipe2(in, O_CLOEXEC) < 0) || pipe2(out, O_CLOEXEC) < 0 ||
        pipe2(er, O_CLOEXEC) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "pipe");
    }
    const char *argv[16] = {s->a->crun,      "--root",       s->a->crun_root, "exec", "--process",
                            s->process_file, "--pid-file", s->pid_file};
    size_t n = 8;
    if (s->tty) {
        argv[n++] = "--console-socket";
        argv[n++] = s->console;
    }
    argv[n++] = s->id;
    struct th_proc_opts o = {.argv = argv, .stdin_fd = in[0], .stdout_fd = out[1], .stderr_fd = er[1]};
    s->pid = th_proc_start(&o, err);
    if (in[0] >= 0) {
        close(in[0]);
    }
    close(out[1]);
    close(er[1]);
    s->in_fd = in[1];
    s->out_fd = out[0];
    s->err_fd = er[0];
    if (s->pid < 0) {
        return (int)s->pid;
    }
    s->pidfd = th_proc_pidfd(s->pid);
    if (s->tty) {
        TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
        int fd = console_take(listener, &e);
        if (fd >= 0) {
            close(s->out_fd);
            s->tty_fd = s->in_fd = s->out_fd = fd;
        } /* else crun has said on stderr why, and ends */
    }
    return 0;
}

static int start_attach(struct session *s, struct th_err *err)
{
    th_autofree char *path = th_path_joinf(s->a->attach_dir, "%s/attach", s->id);
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    th_autofree char *dir = th_path_join(s->a->attach_dir, s->id);
    th_autoclose int dfd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    (void)snprintf(to.sun_path, sizeof(to.sun_path), "/proc/self/fd/%d/attach", dfd);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (dfd < 0 || fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0) {
        int e = errno;
        if (fd >= 0) {
            close(fd);
        }
        if (e == ENOENT || e == ECONNREFUSED) { /* it ended before its status said so */
            return th_fail(err, TH_R_NOT_FOUND, "container not found (\"%s\")", s->ctr);
        }
        return th_fail_errno(err, e, TH_R_IO, "connecting to %s", path);
    }
    s->in_fd = s->out_fd = fd;
    return 0;
}

/* ---- moving bytes ---- */

static void resize(struct session *s, const char *p, size_t n)
{
    TH_AUTO(th_json) struct th_json *o = NULL;
    if (th_json_parse(p, n, NULL, &o, NULL) < 0) {
        return;
    }
    struct winsize w = {.ws_col = (unsigned short)th_json_path_int(o, "Width", 80),
                        .ws_row = (unsigned short)th_json_path_int(o, "Height", 24)};
    if (s->tty_fd >= 0) {
        (void)ioctl(s->tty_fd, TIOCSWINSZ, &w);
    } else if (s->attach) {
        th_autofree char *ctl = th_path_join(s->dir, "ctl");
        th_autoclose int fd = open(ctl, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
        char line[64];
        int len = snprintf(line, sizeof(line), "1 %d %d\n", w.ws_row, w.ws_col);
        /* conmon takes only the first of the lines that it reads at once: wait for the one before */
        int unread = 0;
        for (int i = 0; fd >= 0 && i < 50 && ioctl(fd, FIONREAD, &unread) == 0 && unread > 0; i++) {
            th_sleep_ms(1);
        }
        if (fd >= 0) {
            (void)!write(fd, line, (size_t)len);
        }
    }
}

static void close_stdin(struct session *s)
{
    s->in_closed = true;
    if (s->to_in.n > 0 || s->in_fd < 0) {
        return; /* after what is waiting */
    }
    if (s->tty_fd >= 0) {
        return;
    }
    if (s->attach) {
        (void)shutdown(s->in_fd, SHUT_WR);
    } else {
        close(s->in_fd);
        s->in_fd = -1;
    }
}

static void flush_stdin(struct session *s)
{
    while (s->to_in.n > 0 && s->in_fd >= 0) {
        size_t n = s->to_in.n > 8192 ? 8192 : s->to_in.n;
        ssize_t w = s->attach ? send(s->in_fd, s->to_in.p, n, MSG_NOSIGNAL | MSG_DONTWAIT)
                              : write(s->in_fd, s->to_in.p, n);
        if (w < 0 && (errno == EAGAIN || errno == EINTR)) {
            return;
        }
        if (w < 0) { /* the process has closed its end */
            th_buf_clear(&s->to_in);
            close_stdin(s);
            return;
        }
        th_buf_consume(&s->to_in, (size_t)w);
    }
    if (s->in_closed) {
        close_stdin(s);
    }
}

static void on_channel(void *arg, enum chan ch, const char *p, size_t n)
{
    struct session *s = arg;
    if (ch == CH_STDIN && p && s->want_in && !s->in_closed) {
        th_buf_add(&s->to_in, p, n);
        flush_stdin(s);
    } else if (ch == CH_STDIN && !p) {
        close_stdin(s);
    } else if (ch == CH_RESIZE && p) {
        resize(s, p, n);
    }
}

/* false: nothing more will come from this descriptor. */
static bool pass_on(struct session *s, int fd, enum chan ch, bool wanted)
{
    char buf[16384];
    ssize_t n = read(fd, buf, sizeof(buf));
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return true;
    }
    if (n <= 0) {
        return false; /* EIO: the terminal's last user has gone */
    }
    if (s->attach) { /* conmon puts 2 (stdout) or 3 (stderr) in front of each packet */
        ch = buf[0] == 3 ? CH_STDERR : CH_STDOUT;
        wanted = ch == CH_STDERR ? s->want_err : s->want_out;
        return !wanted || n < 2 || chans_send(&s->ch, ch, buf + 1, (size_t)n - 1);
    }
    return !wanted || chans_send(&s->ch, ch, buf, (size_t)n);
}

static void kill_exec(struct session *s)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    if (s->pid_file && th_io_read_file(s->pid_file, 64, &b, NULL) >= 0) {
        long inner = strtol(th_buf_cstr(&b), NULL, 10);
        if (inner > 1) {
            (void)kill((pid_t)inner, SIGKILL);
        }
    }
    if (s->pid > 0) {
        (void)kill(s->pid, SIGKILL);
    }
}

/* Until the process has ended and its output is passed on (true), or the client has gone (false). */
static bool pump(struct session *s)
{
    bool out_open = s->out_fd >= 0, err_open = s->err_fd >= 0, exited = s->pidfd < 0;
    int64_t drain_until = 0;
    if (!chans_take(&s->ch, on_channel, s)) {
        return false;
    }
    while (out_open || err_open || !exited) {
        if (s->pidfd < 0 && !out_open) {
            break; /* attach: conmon has closed */
        }
        if (exited && s->pidfd >= 0) {
            /* what a child left in the background keeps open is not waited for */
            drain_until = drain_until ? drain_until : th_mono_ms() + 200;
            if (th_mono_ms() >= drain_until) {
                break;
            }
        }
        bool full = s->to_in.n > 65536;
        struct pollfd p[5] = {
            {.fd = full ? -1 : s->ch.ws.fd, .events = POLLIN},
            {.fd = out_open ? s->out_fd : -1, .events = POLLIN},
            {.fd = err_open ? s->err_fd : -1, .events = POLLIN},
            {.fd = s->to_in.n ? s->in_fd : -1, .events = POLLOUT},
            {.fd = exited ? -1 : s->pidfd, .events = POLLIN},
        };
        if (poll(p, 5, exited && s->pidfd >= 0 ? 50 : 5000) < 0 && errno != EINTR) {
            return false;
        }
        if (atomic_load(&s->a->stopping)) {
            return false;
        }
        if (p[0].revents && (!chans_fill(&s->ch) || !chans_take(&s->ch, on_channel, s))) {
            return false;
        }
        if (p[3].revents) {
            flush_stdin(s);
        }
        if (p[1].revents) {
            out_open = pass_on(s, s->out_fd, CH_STDOUT, s->want_out);
        }
        if (p[2].revents) {
            err_open = pass_on(s, s->err_fd, CH_STDERR, s->want_err || s->tty);
        }
        exited = exited || p[4].revents;
    }
    return true;
}

static void run(struct session *s)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    unsigned expected = 1u << CH_ERROR | (s->want_in ? 1u << CH_STDIN : 0) | (s->want_out ? 1u << CH_STDOUT : 0) |
                        (s->want_err && !s->tty ? 1u << CH_STDERR : 0) |
                        (s->tty && s->ch.version >= 3 ? 1u << CH_RESIZE : 0);
    if (!chans_open(&s->ch, expected, STREAMS_MS)) {
        return;
    }
    int r = s->attach ? start_attach(s, &err) : start_exec(s, &err);
    if (r < 0) {
        end_with_error(s, &err);
        return;
    }
    if (s->in_fd >= 0) {
        (void)th_io_set_nonblock(s->in_fd, true);
    }
    bool there = pump(s);
    if (s->pid > 0) {
        if (!there) {
            kill_exec(s);
        }
        int status = 0;
        (void)th_proc_wait(s->pid, 5000, &status, NULL);
        s->pid = 0;
        if (there) {
            end_with_exit(s, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
        }
    } else if (there) {
        end_with_exit(s, 0);
    }
}

static void *session_thread(void *arg)
{
    struct session *s = arg;
    run(s);
    chans_close(&s->ch);
    struct MHD_UpgradeResponseHandle *urh = s->urh;
    session_free(s);
    (void)MHD_upgrade_action(urh, MHD_UPGRADE_ACTION_CLOSE);
    return NULL;
}

static void upgraded(void *cls, struct MHD_Connection *c, void *ctx, const char *extra, size_t extra_n,
                     MHD_socket sock, struct MHD_UpgradeResponseHandle *urh)
{
    (void)c;
    (void)ctx;
    struct session *s = cls;
    s->urh = urh;
    chans_init(&s->ch, sock, extra, extra_n, s->spdy, s->proto);
    s->ch_open = true;
    (void)th_io_set_nonblock(sock, false);
    pthread_t t;
    if (pthread_create(&t, NULL, session_thread, s) != 0) {
        session_free(s);
        (void)MHD_upgrade_action(urh, MHD_UPGRADE_ACTION_CLOSE);
        return;
    }
    pthread_detach(t);
}

static struct session *session_new(struct req *r, bool attach, struct th_err *err)
{
    /* /exec/<ns>/<pod>/<uid>/<container>, the uid may be left out */
    size_t n = r->path.n;
    if (n != 4 && n != 5) {
        (void)th_fail(err, TH_R_NOT_FOUND, "not found");
        return NULL;
    }
    TH_AUTO(pod) struct pod *p = agent_pod_by_name(r->a, r->path.v[1], r->path.v[2]);
    if (!p || (n == 5 && !th_streq(p->uid, r->path.v[3]))) {
        (void)th_fail(err, TH_R_NOT_FOUND, "pod does not exist");
        return NULL;
    }
    const char *name = r->path.v[n - 1];
    struct session *s = TH_NEW(struct session);
    *s = (struct session){.a = r->a, .attach = attach, .in_fd = -1, .out_fd = -1, .err_fd = -1,
                          .tty_fd = -1, .pidfd = -1};
    pthread_mutex_lock(&p->mu);
    for (size_t i = 0; i < p->n_views; i++) {
        if (th_streq(p->views[i].name, name) && p->views[i].running) {
            s->id = th_xstrdup(p->views[i].id);
            s->dir = th_xstrdup(p->views[i].dir);
            s->tty = attach && p->views[i].tty;
        }
    }
    pthread_mutex_unlock(&p->mu);
    s->p = th_steal(&p);
    s->ctr = th_xstrdup(name);
    if (!s->id) {
        (void)th_fail(err, TH_R_NOT_FOUND, "container not found (\"%s\")", name);
        session_free(s);
        return NULL;
    }
    s->want_in = req_query_bool(r, "stdin", req_query_bool(r, "input", false));
    s->want_out = req_query_bool(r, "stdout", req_query_bool(r, "output", false));
    s->want_err = req_query_bool(r, "stderr", req_query_bool(r, "error", false));
    s->tty = s->tty || req_query_bool(r, "tty", false);
    th_autostrv struct th_strv cmd = TH_STRV_INIT;
    req_query_all(r, "command", &cmd);
    s->argv = th_json_array();
    for (size_t i = 0; i < cmd.n; i++) {
        th_json_append_str(s->argv, cmd.v[i]);
    }
    if (!attach && cmd.n == 0) {
        (void)th_fail(err, TH_R_BAD_REQUEST, "you must specify at least one command for the container");
        session_free(s);
        return NULL;
    }
    return s;
}

enum MHD_Result exec_request(struct req *r, bool attach)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    struct upgrade u;
    if (!upgrade_choose(r, &u, chans_choose, &err)) {
        return reply_err(r, &err);
    }
    struct session *s = session_new(r, attach, &err);
    if (!s) {
        return reply_err(r, &err);
    }
    s->spdy = u.spdy;
    s->proto = u.proto;
    return upgrade_reply(r, &u, upgraded, s);
}
