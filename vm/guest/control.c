/* init's end of the control channel (protocol.h).
 *
 * Two transports behind one struct. The virtio-serial port is one device for ever: when the
 * launcher goes away, reads give end of file and poll says hang-up until the next one opens its
 * end. Level-triggered polling would spin on that, so it is watched edge-triggered: the kernel
 * wakes us when the host's end opens or closes, and that edge is the new connection. With the host
 * driver a Unix socket listens; a new connection replaces the one before (a launcher that was
 * killed must not keep the channel).
 *
 * What nobody is there to read is dropped: progress is for watching, state is asked for. Output is
 * bounded by TH_CTL_LINE_MAX; a launcher that stops reading loses messages, never blocks init. */
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "vm/guest/guest.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

struct th_ctl {
    struct th_ev *ev;
    int fd;        /* the port or the connection; -1 */
    int listen_fd; /* -1 with the port */
    bool connected;
    struct th_ev_src *src, *listen_src;
    struct th_buf in, out;
    th_ctl_open_fn *open_fn;
    th_ctl_fn *fn;
    void *arg;
};

static void drop_connection(struct th_ctl *c)
{
    c->connected = false;
    th_buf_clear(&c->in);
    th_buf_clear(&c->out);
    if (c->listen_fd >= 0 && c->fd >= 0) {
        th_ev_remove(th_steal(&c->src));
        (void)close(th_steal_fd(&c->fd));
    }
}

static void flush_out(struct th_ctl *c)
{
    while (c->connected && c->out.n > 0) {
        ssize_t n = write(c->fd, c->out.p, c->out.n);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && errno != EAGAIN) {
            drop_connection(c);
            return;
        }
        if (n <= 0) {
            break;
        }
        th_buf_consume(&c->out, (size_t)n);
    }
    if (c->src && c->listen_fd >= 0) {
        th_ev_set_events(c->src, EPOLLIN | (c->out.n > 0 ? (uint32_t)EPOLLOUT : 0));
    }
}

static void take_lines(struct th_ctl *c)
{
    for (;;) {
        char *nl = c->in.n ? memchr(c->in.p, '\n', c->in.n) : NULL;
        if (!nl) {
            break;
        }
        size_t len = (size_t)(nl - c->in.p);
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        TH_AUTO(th_json) struct th_json *msg = NULL;
        int r = th_json_parse(c->in.p, len, NULL, &msg, &err);
        th_buf_consume(&c->in, len + 1);
        const char *type = r < 0 ? NULL : th_json_path_str(msg, "type");
        if (!type) {
            th_warn("init", "control line not understood", "error=%s",
                    th_log_q(r < 0 ? err.msg : "no type"));
            continue;
        }
        c->fn(c, type, msg, c->arg);
    }
    if (c->in.n > TH_CTL_LINE_MAX) {
        th_warn("init", "control line too long", NULL);
        th_buf_clear(&c->in);
    }
}

static void read_in(struct th_ctl *c)
{
    while (c->fd >= 0) {
        char chunk[16384];
        ssize_t n = read(c->fd, chunk, sizeof(chunk));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && errno == EAGAIN) {
            break;
        }
        if (n <= 0) {
            drop_connection(c);
            return;
        }
        th_buf_add(&c->in, chunk, (size_t)n);
        take_lines(c);
    }
}

static bool port_is_open(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT};
    return poll(&p, 1, 0) >= 0 && !(p.revents & POLLHUP);
}

static void on_port(struct th_ev_src *src, int fd, uint32_t events, void *arg)
{
    (void)src;
    (void)events;
    struct th_ctl *c = arg;
    bool is_open = port_is_open(fd);
    if (is_open && !c->connected) {
        c->connected = true;
        c->open_fn(c, c->arg);
    }
    if (is_open) {
        read_in(c);
        flush_out(c);
    } else {
        drop_connection(c);
    }
}

static void on_connection(struct th_ev_src *src, int fd, uint32_t events, void *arg)
{
    (void)src;
    (void)fd;
    struct th_ctl *c = arg;
    if (events & EPOLLOUT) {
        flush_out(c);
    }
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        read_in(c);
    }
}

static void on_listen(struct th_ev_src *src, int fd, uint32_t events, void *arg)
{
    (void)src;
    (void)events;
    struct th_ctl *c = arg;
    int conn = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (conn < 0) {
        return;
    }
    drop_connection(c);
    c->fd = conn;
    c->connected = true;
    c->src = th_ev_add_fd(c->ev, conn, EPOLLIN, on_connection, c);
    c->open_fn(c, c->arg);
}

static struct th_ctl *ctl_new(struct th_ev *ev, th_ctl_open_fn *open_fn, th_ctl_fn *fn, void *arg)
{
    struct th_ctl *c = TH_NEW(struct th_ctl);
    *c = (struct th_ctl){
        .ev = ev, .fd = -1, .listen_fd = -1, .open_fn = open_fn, .fn = fn, .arg = arg};
    th_buf_init(&c->in, 2 * TH_CTL_LINE_MAX);
    th_buf_init(&c->out, TH_CTL_LINE_MAX);
    return c;
}

static int find_port(char **ret, struct th_err *err)
{
    th_autostrv struct th_strv names = TH_STRV_INIT;
    TH_TRY(th_io_list("/sys/class/virtio-ports", &names, err));
    for (size_t i = 0; i < names.n; i++) {
        th_autofree char *path = th_path_joinf("/sys/class/virtio-ports", "%s/name", names.v[i]);
        th_autobuf struct th_buf name = TH_BUF_INIT;
        if (th_io_read_file(path, 256, &name, NULL) == 0 &&
            th_startswith(th_buf_cstr(&name), TH_CTL_PORT_NAME "\n")) {
            *ret = th_xasprintf("/dev/%s", names.v[i]);
            return 0;
        }
    }
    return th_fail(err, TH_R_BOOT_FAILED, "no virtio port named " TH_CTL_PORT_NAME);
}

int th_ctl_open_port(struct th_ev *ev, th_ctl_open_fn *open_fn, th_ctl_fn *fn, void *arg,
                     struct th_ctl **ret, struct th_err *err)
{
    th_autofree char *dev = NULL;
    /* Port names arrive in a message of their own, a moment after the driver has started. */
    int r = -TH_R_BOOT_FAILED;
    for (int tries = 0; tries < 400 && r < 0; tries++) {
        if (tries > 0) {
            th_sleep_ms(5);
        }
        r = find_port(&dev, err);
    }
    TH_TRY(r);
    int fd = open(dev, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        return th_fail_errno(err, errno, TH_R_BOOT_FAILED, "%s", dev);
    }
    struct th_ctl *c = ctl_new(ev, open_fn, fn, arg);
    c->fd = fd;
    c->src = th_ev_add_fd(ev, fd, EPOLLIN | EPOLLOUT | EPOLLET, on_port, c);
    *ret = c;
    if (port_is_open(fd)) { /* the launcher was there before us; what it said waits for the loop */
        c->connected = true;
        open_fn(c, arg);
    }
    return 0;
}

struct th_ctl *th_ctl_open_listen(struct th_ev *ev, int listen_fd, th_ctl_open_fn *open_fn,
                                  th_ctl_fn *fn, void *arg)
{
    struct th_ctl *c = ctl_new(ev, open_fn, fn, arg);
    c->listen_fd = listen_fd;
    c->listen_src = th_ev_add_fd(ev, listen_fd, EPOLLIN, on_listen, c);
    return c;
}

void th_ctl_free(struct th_ctl *c)
{
    if (!c) {
        return;
    }
    th_ev_remove(c->src);
    th_ev_remove(c->listen_src);
    if (c->fd >= 0) {
        (void)close(c->fd);
    }
    th_buf_done(&c->in);
    th_buf_done(&c->out);
    free(c);
}

void th_ctl_send(struct th_ctl *c, struct th_json *msg)
{
    TH_AUTO(th_json) struct th_json *owned = msg;
    if (!c || !c->connected) {
        return;
    }
    th_autobuf struct th_buf line = TH_BUF_INIT;
    th_json_dump(owned, &line);
    th_buf_putc(&line, '\n');
    if (c->out.n + line.n > TH_CTL_LINE_MAX) {
        th_debug("init", "control message dropped", "bytes=%zu", line.n);
        return;
    }
    th_buf_add(&c->out, line.p, line.n);
    flush_out(c);
}

void th_ctl_flush(struct th_ctl *c, int64_t timeout_ms)
{
    int64_t deadline = th_mono_ms() + timeout_ms;
    while (c && c->connected && c->out.n > 0 && th_mono_ms() < deadline) {
        struct pollfd p = {.fd = c->fd, .events = POLLOUT};
        if (poll(&p, 1, 50) > 0 && (p.revents & POLLHUP)) {
            return;
        }
        flush_out(c);
    }
}
