/* Ports: which addresses of the host lead into the machine.
 *
 * The book is kept beside the machine's state so that any command can read it; changes happen under
 * ports.lock, not under the profile's lock, because the guest asks for forwards while `start` still
 * holds that one. Origins: "api" (one, made at start), "user" (thimble port add; kept over
 * restarts), "cluster" (Services; forgotten at every start, the cluster asks again).
 *
 * Only 127.0.0.0/8 is ever bound: whatever the guest asks, nothing of it appears on the network.
 * Whether a port can be had is found out by binding it first, since QEMU only says that it could
 * not. Between that and QEMU's bind someone else may take it; then the answer is port-in-use. */
#include "vm/launcher/ports.h"
#include "base/io.h"
#include "base/limits.h"
#include "vm/launcher/protocol.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

#define PORTS_MAX 4096
#define LOCK_WAIT_MS 15000
#define FREE_TRIES 20
#define LOW_PORTS 1024 /* what ordinary users may not bind, unless the host says otherwise */
#define SECOND_CHOICE 8000

void th_ports_done(struct th_ports *l)
{
    free(l->v);
    if (l->lock_fd >= 0) {
        (void)close(l->lock_fd);
    }
    *l = (struct th_ports)TH_PORTS_INIT;
}

void th_ports_put(struct th_ports *l, const struct th_machine_port *port)
{
    l->v = th_xgrow(l->v, &l->cap, l->n + 1, sizeof(*l->v));
    l->v[l->n++] = *port;
}

void th_ports_drop(struct th_ports *l, size_t i)
{
    memmove(&l->v[i], &l->v[i + 1], (l->n - i - 1) * sizeof(*l->v));
    l->n--;
}

int th_ports_find(const struct th_ports *l, const char *host_ip, int host_port, const char *proto)
{
    for (size_t i = 0; i < l->n; i++) {
        const struct th_machine_port *p = &l->v[i];
        if (th_streq(p->host_ip, host_ip) && th_streq(p->proto, proto) &&
            (p->wanted_port == host_port || p->host_port == host_port)) {
            return (int)i;
        }
    }
    return -1;
}

bool th_port_is_loopback(const char *ip)
{
    struct in_addr a;
    return ip && inet_pton(AF_INET, ip, &a) == 1 && (ntohl(a.s_addr) >> 24) == 127;
}

int th_port_check(struct th_machine_port *port, struct th_err *err)
{
    if (!port->host_ip[0]) {
        (void)snprintf(port->host_ip, sizeof(port->host_ip), "127.0.0.1");
    }
    if (!port->proto[0]) {
        (void)snprintf(port->proto, sizeof(port->proto), "tcp");
    }
    if (!th_port_is_loopback(port->host_ip)) {
        (void)th_fail(err, TH_R_BAD_REQUEST, "%s is not a loopback address", port->host_ip);
        return th_hint(err, "only 127.0.0.0/8 can be bound");
    }
    struct in_addr a;
    if (port->guest_ip[0] && inet_pton(AF_INET, port->guest_ip, &a) != 1) {
        return th_fail(err, TH_R_BAD_REQUEST, "%s is no IPv4 address", port->guest_ip);
    }
    if (!th_streq(port->proto, "tcp") && !th_streq(port->proto, "udp")) {
        return th_fail(err, TH_R_BAD_REQUEST, "protocol \"%s\": tcp or udp", port->proto);
    }
    if (port->host_port < 0 || port->host_port > 65535 || port->guest_port < 1 ||
        port->guest_port > 65535) {
        return th_fail(err, TH_R_BAD_REQUEST, "port out of range");
    }
    return 0;
}

struct th_json *th_port_to_json(const struct th_machine_port *p)
{
    return th_json_build("{'host_ip':%s,'host_port':%d,'wanted_port':%d,'guest_ip':%s,"
                         "'guest_port':%d,'proto':%s,'origin':%s}",
                         p->host_ip, (int64_t)p->host_port, (int64_t)p->wanted_port, p->guest_ip,
                         (int64_t)p->guest_port, p->proto, p->origin);
}

static int take_str(const struct th_json *o, const char *name, char *to, size_t room,
                    struct th_err *err)
{
    const struct th_json *v = th_json_get(o, name);
    if (!v) {
        return 0;
    }
    const char *s = th_json_str(v);
    if (!s || strlen(s) >= room) {
        return th_fail(err, TH_R_BAD_REQUEST, "bad \"%s\"", name);
    }
    (void)snprintf(to, room, "%s", s);
    return 0;
}

static int take_port(const struct th_json *o, const char *name, int *to, struct th_err *err)
{
    const struct th_json *v = th_json_get(o, name);
    if (!v) {
        return 0;
    }
    int64_t n = th_json_as_int(v, -1);
    if (n < 0 || n > 65535) {
        return th_fail(err, TH_R_BAD_REQUEST, "bad \"%s\"", name);
    }
    *to = (int)n;
    return 0;
}

int th_port_from_json(const struct th_json *o, struct th_machine_port *ret, struct th_err *err)
{
    struct th_machine_port p = {0};
    if (!th_json_is(o, TH_JSON_OBJECT)) {
        return th_fail(err, TH_R_BAD_REQUEST, "not an object");
    }
    TH_TRY(take_str(o, "host_ip", p.host_ip, sizeof(p.host_ip), err));
    TH_TRY(take_str(o, "guest_ip", p.guest_ip, sizeof(p.guest_ip), err));
    TH_TRY(take_str(o, "proto", p.proto, sizeof(p.proto), err));
    TH_TRY(take_str(o, "origin", p.origin, sizeof(p.origin), err));
    TH_TRY(take_port(o, "host_port", &p.host_port, err));
    TH_TRY(take_port(o, "wanted_port", &p.wanted_port, err));
    TH_TRY(take_port(o, "guest_port", &p.guest_port, err));
    *ret = p;
    return 0;
}

int th_ports_load(const struct th_profile *p, bool lock, struct th_ports *ret, struct th_err *err)
{
    struct th_ports l = TH_PORTS_INIT;
    if (lock) {
        th_autofree char *lock_path = th_profile_file(p, "ports.lock");
        TH_TRY(th_io_lock(lock_path, LOCK_WAIT_MS, &l.lock_fd, err));
    }
    th_autofree char *path = th_profile_file(p, "ports.json");
    th_autobuf struct th_buf text = TH_BUF_INIT;
    TH_AUTO(th_json) struct th_json *list = NULL;
    TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
    int r = th_io_read_file(path, TH_LIMIT_CONFIG_FILE_B, &text, &e);
    if (r == -TH_R_NOT_FOUND) {
        *ret = l;
        return 0;
    }
    r = r < 0 ? r : th_json_parse(text.p ? text.p : "", text.n, NULL, &list, &e);
    for (size_t i = 0; r == 0 && i < th_json_len(list); i++) {
        struct th_machine_port port = {0};
        r = th_port_from_json(th_json_at(list, i), &port, &e);
        r = r < 0 ? r : th_port_check(&port, &e);
        if (r == 0) {
            th_ports_put(&l, &port);
        }
    }
    if (r < 0) {
        th_ports_done(&l);
        (void)th_fail(err, TH_R_STATE_CORRUPT, "%s is damaged: %s", path, e.msg);
        return th_hint(err, "remove the file; forwards of Services come back by themselves");
    }
    *ret = l;
    return 0;
}

int th_ports_save(const struct th_profile *p, const struct th_ports *l, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *list = th_json_array();
    for (size_t i = 0; i < l->n; i++) {
        th_json_append(list, th_port_to_json(&l->v[i]));
    }
    th_autobuf struct th_buf text = TH_BUF_INIT;
    th_json_dump_pretty(list, &text);
    th_buf_putc(&text, '\n');
    th_autofree char *path = th_profile_file(p, "ports.json");
    return th_io_write_atomic(path, text.p, text.n, 0600, err);
}

int th_port_probe(struct th_machine_port *port, struct th_err *err)
{
    int type = th_streq(port->proto, "udp") ? SOCK_DGRAM : SOCK_STREAM;
    th_autoclose int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port->host_port)};
    if (fd < 0 || inet_pton(AF_INET, port->host_ip, &sa.sin_addr) != 1) {
        return th_fail_errno(err, errno, TH_R_IO, "socket");
    }
    int on = 1;
    if (type == SOCK_STREAM) { /* as QEMU does: a connection in TIME_WAIT is no obstacle */
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    }
    if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 ||
        (type == SOCK_STREAM && listen(fd, 1) < 0)) {
        if (errno == EACCES) {
            (void)th_fail(err, TH_R_NO_PERMISSION, "%s:%d: ports below 1024 are not allowed",
                          port->host_ip, port->host_port);
            return th_hint(err, "choose a port from 1024 up, or run: "
                                "sudo sysctl net.ipv4.ip_unprivileged_port_start=0");
        }
        (void)th_fail_errno(err, errno, TH_R_PORT_IN_USE, "%s:%d", port->host_ip, port->host_port);
        return th_hint(err, "find who has it with: ss -ltnp 'sport = :%d'; or choose another port",
                       port->host_port);
    }
    socklen_t len = sizeof(sa);
    if (port->host_port == 0 && getsockname(fd, (struct sockaddr *)&sa, &len) == 0) {
        port->host_port = ntohs(sa.sin_port);
    }
    return 0;
}

static int add_one(struct th_profile *p, const struct th_driver *d, struct th_machine_port *port,
                   struct th_err *err)
{
    TH_TRY(th_port_probe(port, err));
    return d->port_add(p, port, err);
}

static bool may_fall_back(int r)
{
    return r == -TH_R_PORT_IN_USE || r == -TH_R_NO_PERMISSION;
}

/* What a port becomes where it cannot be had: 80 is 8080 and 443 is 8443, so that an address of a
 * Service, which is its own, stays the same over restarts; 0 is any free one. */
static int second_choice(int wanted)
{
    return wanted > 0 && wanted < LOW_PORTS ? wanted + SECOND_CHOICE : 0;
}

int th_ports_forward(struct th_profile *p, const struct th_machine_port *want, bool fall_back,
                     struct th_machine_port *ret, struct th_err *err)
{
    struct th_machine_port port = *want;
    TH_TRY(th_port_check(&port, err));
    port.wanted_port = port.host_port;
    const struct th_driver *d = th_driver_find(p->driver);
    if (!d || !th_profile_alive(p)) {
        return th_fail(err, TH_R_NOT_RUNNING, "the machine of profile \"%s\" does not run", p->name);
    }
    TH_AUTO_PORTS struct th_ports book = TH_PORTS_INIT;
    TH_TRY(th_ports_load(p, true, &book, err));
    if (book.n >= PORTS_MAX) {
        return th_fail(err, TH_R_TOO_LARGE, "more than %d forwards", PORTS_MAX);
    }
    int at = port.host_port ? th_ports_find(&book, port.host_ip, port.host_port, port.proto) : -1;
    if (at >= 0) {
        const struct th_machine_port *have = &book.v[at];
        if (have->guest_port == port.guest_port && th_streq(have->guest_ip, port.guest_ip) &&
            th_streq(have->origin, port.origin)) {
            *ret = *have;
            return 0;
        }
        if (!th_streq(have->origin, port.origin) && !fall_back) {
            return th_fail(err, TH_R_PORT_IN_USE, "%s:%d is forwarded already", port.host_ip,
                           port.host_port);
        }
        if (th_streq(have->origin, port.origin)) {
            TH_TRY(d->port_remove(p, have, err));
            th_ports_drop(&book, (size_t)at);
        }
    }
    int r = add_one(p, d, &port, err);
    for (int tries = 0; fall_back && may_fall_back(r) && tries < FREE_TRIES; tries++) {
        port.host_port = tries == 0 ? second_choice(port.wanted_port) : 0;
        r = add_one(p, d, &port, err);
    }
    TH_TRY(r);
    if (port.wanted_port == 0) {
        port.wanted_port = port.host_port;
    }
    th_ports_put(&book, &port);
    TH_TRY(th_ports_save(p, &book, err));
    *ret = port;
    return 0;
}

int th_ports_unforward(struct th_profile *p, const char *host_ip, int host_port, const char *proto,
                       struct th_err *err)
{
    TH_AUTO_PORTS struct th_ports book = TH_PORTS_INIT;
    TH_TRY(th_ports_load(p, true, &book, err));
    int at = th_ports_find(&book, host_ip, host_port, proto);
    if (at < 0) {
        return th_fail(err, TH_R_NOT_FOUND, "%s:%d/%s is not forwarded", host_ip, host_port, proto);
    }
    const struct th_driver *d = th_driver_find(p->driver);
    if (d && th_profile_alive(p)) {
        TH_TRY(d->port_remove(p, &book.v[at], err));
    }
    th_ports_drop(&book, (size_t)at);
    return th_ports_save(p, &book, err);
}
