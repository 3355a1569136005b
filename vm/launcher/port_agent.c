/* The port agent: the cluster's way to ask the host for a forward.
 *
 * QEMU starts `thimble port-agent` for each connection of the guest to 10.0.2.100:1, with the
 * connection as stdin and stdout (the host driver's supervisor does the same for ports.sock). It
 * answers line by line until end of file (protocol.h). What comes in is from the guest and not
 * trusted: lines are bounded, only loopback addresses are bound, only forwards of origin "cluster"
 * can be made or removed, so that no pod takes the API's or the user's ports away. */
#include "base/io.h"
#include "vm/launcher/ports.h"
#include "vm/launcher/protocol.h"
#include <errno.h>

#define ORIGIN "cluster"

static struct th_json *refuse(const struct th_err *err)
{
    return th_json_build("{'ok':%b,'reason':%s,'msg':%s}", 0, th_reason_code(err->reason), err->msg);
}

static int do_forward(struct th_profile *p, const struct th_json *req, struct th_json **ret,
                      struct th_err *err)
{
    struct th_machine_port want, got;
    TH_TRY(th_port_from_json(req, &want, err));
    (void)snprintf(want.origin, sizeof(want.origin), ORIGIN);
    TH_TRY(th_ports_forward(p, &want, true, &got, err));
    *ret = th_json_build("{'ok':%b,'host_ip':%s,'host_port':%d,'wanted_port':%d}", 1, got.host_ip,
                         (int64_t)got.host_port, (int64_t)got.wanted_port);
    return 0;
}

static int do_unforward(struct th_profile *p, const struct th_json *req, struct th_json **ret,
                        struct th_err *err)
{
    struct th_machine_port port;
    TH_TRY(th_port_from_json(req, &port, err));
    port.guest_port = port.guest_port ? port.guest_port : 1; /* not asked for here */
    TH_TRY(th_port_check(&port, err));
    TH_AUTO_PORTS struct th_ports book = TH_PORTS_INIT;
    TH_TRY(th_ports_load(p, false, &book, err));
    int at = th_ports_find(&book, port.host_ip, port.host_port, port.proto);
    if (at >= 0 && !th_streq(book.v[at].origin, ORIGIN)) {
        return th_fail(err, TH_R_FORBIDDEN, "this forward is not the cluster's");
    }
    if (at >= 0) {
        TH_TRY(th_ports_unforward(p, port.host_ip, port.host_port, port.proto, err));
    }
    *ret = th_json_build("{'ok':%b}", 1);
    return 0;
}

static int do_list(struct th_profile *p, struct th_json **ret, struct th_err *err)
{
    TH_AUTO_PORTS struct th_ports book = TH_PORTS_INIT;
    TH_TRY(th_ports_load(p, false, &book, err));
    struct th_json *list = th_json_array();
    for (size_t i = 0; i < book.n; i++) {
        th_json_append(list, th_port_to_json(&book.v[i]));
    }
    *ret = th_json_build("{'ok':%b,'ports':%o}", 1, list);
    return 0;
}

struct th_json *th_port_agent_answer(struct th_profile *p, const char *line, size_t n)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    TH_AUTO(th_json) struct th_json *req = NULL;
    struct th_json *ret = NULL;
    int r = th_json_parse(line, n, NULL, &req, &err);
    const char *op = r == 0 ? th_json_path_str(req, "op") : NULL;
    if (r < 0) {
        return refuse(&err);
    }
    if (th_streq(op, "forward")) {
        r = do_forward(p, req, &ret, &err);
    } else if (th_streq(op, "unforward")) {
        r = do_unforward(p, req, &ret, &err);
    } else if (th_streq(op, "list")) {
        r = do_list(p, &ret, &err);
    } else {
        r = th_fail(&err, TH_R_BAD_REQUEST, "unknown op");
    }
    return r < 0 ? refuse(&err) : ret;
}

static int answer_line(const char *profile, const char *line, size_t n, struct th_err *err)
{
    /* Loaded anew for every request: between two of them the machine may have been restarted. */
    TH_AUTO_PROFILE struct th_profile p = {.lock_fd = -1};
    TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
    TH_AUTO(th_json) struct th_json *out = NULL;
    if (th_profile_paths(profile, &p, &e) < 0 || th_profile_load(&p, &e) < 0) {
        out = refuse(&e);
    } else {
        out = th_port_agent_answer(&p, line, n);
    }
    th_autobuf struct th_buf text = TH_BUF_INIT;
    th_json_dump(out, &text);
    th_buf_putc(&text, '\n');
    return th_io_write_all(1, text.p, text.n, err);
}

int th_port_agent_main(const char *profile)
{
    th_autobuf struct th_buf in = TH_BUF_INIT;
    for (;;) {
        char chunk[TH_PORTS_LINE_MAX];
        ssize_t n = read(0, chunk, sizeof(chunk));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return 0;
        }
        th_buf_add(&in, chunk, (size_t)n);
        for (char *nl; in.n && (nl = memchr(in.p, '\n', in.n));) {
            size_t len = (size_t)(nl - in.p);
            if (answer_line(profile, in.p, len, NULL) < 0) {
                return 1;
            }
            th_buf_consume(&in, len + 1);
        }
        if (in.n > TH_PORTS_LINE_MAX) {
            return 1;
        }
    }
}
