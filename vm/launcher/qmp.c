/* QMP (qmp.h): greeting, qmp_capabilities, commands. Events may come at any time and are skipped. */
#include "vm/launcher/qmp.h"
#include "base/clock.h"
#include <errno.h>
#include <sys/socket.h>

#define QMP_LINE_MAX (1u << 20)
#define QMP_TIMEOUT_MS 10000

static int answer(struct th_qmp *q, struct th_json **ret, struct th_err *err)
{
    for (;;) {
        TH_AUTO(th_json) struct th_json *msg = NULL;
        TH_TRY(th_channel_recv(&q->c, q->deadline_ms, &msg, err));
        if (th_json_has(msg, "error")) {
            const char *desc = th_json_path_str(msg, "error.desc");
            return th_fail(err, TH_R_INTERNAL, "QEMU: %s", desc ? desc : "unknown error");
        }
        if (th_json_has(msg, "return")) {
            if (ret) {
                *ret = th_json_ref(th_json_get(msg, "return"));
            }
            return 0;
        }
    }
}

void th_qmp_done(struct th_qmp *q)
{
    th_channel_done(&q->c);
}

int th_qmp_open(const char *path, int64_t deadline_ms, struct th_qmp *ret, struct th_err *err)
{
    TH_AUTO_QMP struct th_qmp q = TH_QMP_INIT;
    q.deadline_ms = deadline_ms;
    TH_TRY(th_channel_connect(&q.c, path, QMP_LINE_MAX, 0, deadline_ms, err));
    TH_AUTO(th_json) struct th_json *greeting = NULL;
    TH_TRY(th_channel_recv(&q.c, deadline_ms, &greeting, err));
    if (!th_json_has(greeting, "QMP")) {
        return th_fail(err, TH_R_INTERNAL, "%s does not speak QMP", path);
    }
    TH_TRY(th_channel_send(&q.c, th_json_build("{'execute':'qmp_capabilities'}"), err));
    TH_TRY(answer(&q, NULL, err));
    *ret = q;
    q = (struct th_qmp)TH_QMP_INIT;
    return 0;
}

int th_qmp_call(struct th_qmp *q, const char *command, struct th_json *args, struct th_json **ret,
                struct th_err *err)
{
    struct th_json *msg = th_json_build("{'execute':%s}", command);
    if (args) {
        th_json_set(msg, "arguments", args);
    }
    TH_TRY(th_channel_send(&q->c, msg, err));
    return answer(q, ret, err);
}

int th_qmp_give_fd(struct th_qmp *q, const char *name, int fd, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *msg =
        th_json_build("{'execute':'getfd','arguments':{'fdname':%s}}", name);
    th_autobuf struct th_buf line = TH_BUF_INIT;
    th_json_dump(msg, &line);
    th_buf_putc(&line, '\n');
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {.room = {0}};
    struct iovec iov = {.iov_base = line.p, .iov_len = line.n};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
                       .msg_controllen = sizeof(control)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &fd, sizeof(int));
    /* A line this short goes whole or not at all. */
    if (sendmsg(q->c.fd, &m, MSG_NOSIGNAL) != (ssize_t)line.n) {
        return th_fail_errno(err, errno, TH_R_UNAVAILABLE, "QEMU's monitor does not listen");
    }
    return answer(q, NULL, err);
}

int th_qmp_run(const char *path, const char *command, struct th_json *args, struct th_json **ret,
               struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *owned = args;
    TH_AUTO_QMP struct th_qmp q = TH_QMP_INIT;
    TH_TRY(th_qmp_open(path, th_mono_ms() + QMP_TIMEOUT_MS, &q, err));
    return th_qmp_call(&q, command, th_steal(&owned), ret, err);
}

int th_qmp_hmp(const char *path, const char *line, struct th_buf *out, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *ret = NULL;
    TH_TRY(th_qmp_run(path, "human-monitor-command", th_json_build("{'command-line':%s}", line),
                      &ret, err));
    const char *text = th_json_str(ret);
    th_buf_puts(out, text ? text : "");
    return 0;
}
