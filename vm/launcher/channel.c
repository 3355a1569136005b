/* The host's end of line protocols (channel.h). Blocking with poll and an absolute deadline: the
 * launcher does one thing at a time. */
#include "vm/launcher/channel.h"
#include "base/clock.h"
#include "base/io.h"
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>

#define RETRY_MS 10
#define SEND_TIMEOUT_MS 10000

int th_channel_connect(struct th_channel *c, const char *path, size_t line_max, pid_t pid,
                       int64_t deadline_ms, struct th_err *err)
{
    for (;;) {
        int fd = th_io_unix_connect(path, err);
        if (fd >= 0) {
            (void)th_io_set_nonblock(fd, true);
            (void)th_io_set_cloexec(fd, true);
            *c = (struct th_channel){.fd = fd, .line_max = line_max};
            th_buf_init(&c->in, line_max + 65536);
            return 0;
        }
        bool alive = pid > 0 && (kill(pid, 0) == 0 || errno == EPERM);
        if (!alive || th_mono_ms() >= deadline_ms) {
            return fd;
        }
        th_sleep_ms(RETRY_MS);
    }
}

void th_channel_done(struct th_channel *c)
{
    if (c->fd >= 0) {
        (void)close(c->fd);
    }
    c->fd = -1;
    th_buf_done(&c->in);
}

int th_channel_send(struct th_channel *c, struct th_json *msg, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *owned = msg;
    th_autobuf struct th_buf line = TH_BUF_INIT;
    th_json_dump(owned, &line);
    th_buf_putc(&line, '\n');
    size_t done = 0;
    while (done < line.n) {
        ssize_t n = send(c->fd, line.p + done, line.n - done, MSG_NOSIGNAL);
        if (n > 0) {
            done += (size_t)n;
            continue;
        }
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && errno != EAGAIN) {
            return th_fail_errno(err, errno, TH_R_UNAVAILABLE, "the machine does not listen");
        }
        struct pollfd p = {.fd = c->fd, .events = POLLOUT};
        if (poll(&p, 1, SEND_TIMEOUT_MS) == 0) {
            return th_fail(err, TH_R_TIMEOUT, "the machine does not listen");
        }
    }
    return 0;
}

static int take_line(struct th_channel *c, struct th_json **ret, struct th_err *err)
{
    char *nl = c->in.n ? memchr(c->in.p, '\n', c->in.n) : NULL;
    if (!nl) {
        return c->in.n > c->line_max ? th_fail(err, TH_R_TOO_LARGE, "a line from the machine is too long")
                                     : 0;
    }
    size_t n = (size_t)(nl - c->in.p);
    int r = th_json_parse(c->in.p, n, NULL, ret, err);
    th_buf_consume(&c->in, n + 1);
    return r < 0 ? th_wrap(err, "the machine answers nonsense") : 1;
}

int th_channel_recv(struct th_channel *c, int64_t deadline_ms, struct th_json **ret,
                    struct th_err *err)
{
    for (;;) {
        int r = take_line(c, ret, err);
        if (r != 0) {
            return r < 0 ? r : 0;
        }
        int64_t left = deadline_ms - th_mono_ms();
        struct pollfd p = {.fd = c->fd, .events = POLLIN};
        int n = poll(&p, 1, left > 0 ? (int)(left < 60000 ? left : 60000) : 0);
        if (n < 0 && errno != EINTR) {
            return th_fail_errno(err, errno, TH_R_IO, "poll");
        }
        if (n <= 0) {
            if (th_mono_ms() >= deadline_ms) {
                return th_fail(err, TH_R_TIMEOUT, "no answer from the machine");
            }
            continue;
        }
        char chunk[65536];
        ssize_t got = read(c->fd, chunk, sizeof(chunk));
        if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
            continue;
        }
        if (got <= 0) {
            return th_fail(err, TH_R_UNAVAILABLE, "the machine has gone away");
        }
        th_buf_add(&c->in, chunk, (size_t)got);
    }
}
