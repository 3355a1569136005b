/* Ports of the host that lead into the cluster's network namespace.
 *
 * The host driver's network namespace has no link to the host's, on purpose: nothing has to be
 * configured, guarded or removed on the host. What connects the two is this relay, which has sockets
 * in both: a socket belongs to the namespace in which it was made, whoever uses it later, so the
 * thread steps into the other namespace for the moment of socket() only.
 *
 * TCP: two buffers per connection, level-triggered epoll with just the events that can be served,
 * half-closes passed on. A socket is no longer watched once both of its directions have ended, or
 * its hang-up would wake us for ever. UDP: each peer gets an upstream socket of its own, so that
 * answers find back; one that was silent for UDP_IDLE_MS is closed.
 *
 * Limits: CONNECTIONS_MAX connections, UDP_PEERS_MAX peers per port; the oldest peer gives way, a
 * connection too many is closed at once. The source address is the relay's, as with QEMU's user
 * network. */
#include "vm/guest/relay.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUF_B 32768
#define TURNS_MAX 16
#define CONNECTIONS_MAX 4096
#define UDP_PEERS_MAX 256
#define UDP_IDLE_MS 60000
#define UDP_SWEEP_MS 15000
#define DATAGRAM_MAX 65536

struct half {
    char *buf; /* read from this side, to be written to the other */
    size_t off, n;
    bool eof, shut; /* nothing more comes; the other side has been told */
};
struct conn {
    struct th_hostrelay *r;
    struct conn *prev, *next;
    int fd[2]; /* 0: the host's side, 1: the cluster's */
    struct th_ev_src *src[2];
    struct half half[2];
    bool connecting;
};
struct peer {
    struct listener *l;
    struct peer *next;
    struct sockaddr_in addr;
    int fd;
    struct th_ev_src *src;
    int64_t used_ms;
};
struct listener {
    struct th_hostrelay *r;
    struct listener *next;
    struct th_hostrelay_port port;
    int fd;
    struct th_ev_src *src;
    struct peer *peers;
    size_t n_peers;
};
struct th_hostrelay {
    struct th_ev *ev;
    int outer_ns, inner_ns;
    struct listener *listeners;
    struct conn *conns;
    size_t n_conns;
    struct th_ev_src *sweep;
};

static int inner_socket(struct th_hostrelay *r, int type)
{
    if (setns(r->inner_ns, CLONE_NEWNET) < 0) {
        return -1;
    }
    int fd = socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (setns(r->outer_ns, CLONE_NEWNET) < 0) {
        th_error("relay", "no way back to the host's network", "errno=%d", errno);
        abort(); /* listening in the wrong namespace would be silent nonsense */
    }
    return fd;
}

static struct sockaddr_in address(const char *ip, int port)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    (void)inet_pton(AF_INET, ip, &sa.sin_addr);
    return sa;
}

/* ---- TCP ---- */

static void conn_free(struct conn *c)
{
    struct th_hostrelay *r = c->r;
    for (int i = 0; i < 2; i++) {
        th_ev_remove(c->src[i]);
        if (c->fd[i] >= 0) {
            (void)close(c->fd[i]);
        }
        free(c->half[i].buf);
    }
    if (c->prev) {
        c->prev->next = c->next;
    } else {
        r->conns = c->next;
    }
    if (c->next) {
        c->next->prev = c->prev;
    }
    r->n_conns--;
    free(c);
}

/* Moves what can be moved from side i to the other one; false when the connection is broken. */
static bool pump(struct conn *c, int i)
{
    struct half *h = &c->half[i];
    for (int turn = 0; turn < TURNS_MAX; turn++) { /* then the others have theirs */
        if (h->n == 0 && !h->eof) {
            ssize_t n = recv(c->fd[i], h->buf, BUF_B, 0);
            if (n < 0) {
                return errno == EAGAIN || errno == EINTR;
            }
            h->off = 0;
            h->n = (size_t)n;
            h->eof = n == 0;
        }
        if (h->n == 0) {
            if (h->eof && !h->shut) {
                h->shut = true;
                (void)shutdown(c->fd[!i], SHUT_WR);
            }
            return true;
        }
        ssize_t n = send(c->fd[!i], h->buf + h->off, h->n, MSG_NOSIGNAL);
        if (n < 0) {
            return errno == EAGAIN || errno == EINTR;
        }
        h->off += (size_t)n;
        h->n -= (size_t)n;
    }
    return true;
}

static void update(struct conn *c)
{
    for (int i = 0; i < 2; i++) {
        const struct half *in = &c->half[i], *out = &c->half[!i];
        if (in->eof && out->shut) {
            th_ev_remove(th_steal(&c->src[i]));
            continue;
        }
        uint32_t events = 0;
        if (!in->eof && in->n == 0) {
            events |= EPOLLIN;
        }
        if (out->n > 0) {
            events |= EPOLLOUT;
        }
        if (c->src[i]) {
            th_ev_set_events(c->src[i], events);
        }
    }
}

static void on_conn(struct th_ev_src *src, int fd, uint32_t events, void *arg)
{
    (void)src;
    struct conn *c = arg;
    if (c->connecting) {
        int e = 0;
        socklen_t len = sizeof(e);
        if (fd != c->fd[1] || (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) == 0) {
            if (events & (EPOLLERR | EPOLLHUP)) {
                conn_free(c);
            }
            return;
        }
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &len) < 0 || e != 0) {
            conn_free(c);
            return;
        }
        c->connecting = false;
    }
    bool ok = !(events & EPOLLERR) && pump(c, 0) && pump(c, 1);
    if (!ok || (c->half[0].shut && c->half[1].shut)) {
        conn_free(c);
        return;
    }
    update(c);
}

static void on_accept(struct th_ev_src *src, int fd, uint32_t events, void *arg)
{
    (void)src;
    (void)events;
    struct listener *l = arg;
    struct th_hostrelay *r = l->r;
    int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (client < 0) {
        return;
    }
    int up = r->n_conns < CONNECTIONS_MAX ? inner_socket(r, SOCK_STREAM) : -1;
    struct sockaddr_in sa = address(l->port.guest_ip, l->port.guest_port);
    if (up < 0 || (connect(up, (struct sockaddr *)&sa, sizeof(sa)) < 0 && errno != EINPROGRESS)) {
        th_debug("relay", "connection refused", "port=%d errno=%d", l->port.host_port, errno);
        if (up >= 0) {
            (void)close(up);
        }
        (void)close(client);
        return;
    }
    int on = 1;
    (void)setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    (void)setsockopt(up, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    struct conn *c = TH_NEW(struct conn);
    *c = (struct conn){.r = r, .fd = {client, up}, .next = r->conns, .connecting = true};
    c->half[0].buf = th_xmalloc(BUF_B);
    c->half[1].buf = th_xmalloc(BUF_B);
    if (r->conns) {
        r->conns->prev = c;
    }
    r->conns = c;
    r->n_conns++;
    c->src[0] = th_ev_add_fd(r->ev, client, 0, on_conn, c);
    c->src[1] = th_ev_add_fd(r->ev, up, EPOLLOUT, on_conn, c);
}

/* ---- UDP ---- */

static void peer_free(struct peer *p)
{
    struct peer **at = &p->l->peers;
    while (*at != p) {
        at = &(*at)->next;
    }
    *at = p->next;
    p->l->n_peers--;
    th_ev_remove(p->src);
    (void)close(p->fd);
    free(p);
}

static char datagram[DATAGRAM_MAX]; /* one thread */

static void on_answer(struct th_ev_src *src, int fd, uint32_t events, void *arg)
{
    (void)src;
    (void)events;
    struct peer *p = arg;
    ssize_t n = recv(fd, datagram, sizeof(datagram), 0);
    if (n >= 0) {
        p->used_ms = th_mono_ms();
        (void)!sendto(p->l->fd, datagram, (size_t)n, MSG_NOSIGNAL, (struct sockaddr *)&p->addr,
                      sizeof(p->addr));
    } /* an error is the ICMP answer to what was sent: dropped, as a network would */
}

static struct peer *peer_get(struct listener *l, const struct sockaddr_in *addr)
{
    struct peer *oldest = NULL;
    for (struct peer *p = l->peers; p; p = p->next) {
        if (p->addr.sin_port == addr->sin_port && p->addr.sin_addr.s_addr == addr->sin_addr.s_addr) {
            return p;
        }
        oldest = !oldest || p->used_ms < oldest->used_ms ? p : oldest;
    }
    if (l->n_peers >= UDP_PEERS_MAX) {
        peer_free(oldest);
    }
    int fd = inner_socket(l->r, SOCK_DGRAM);
    struct sockaddr_in sa = address(l->port.guest_ip, l->port.guest_port);
    if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
        if (fd >= 0) {
            (void)close(fd);
        }
        return NULL;
    }
    struct peer *p = TH_NEW(struct peer);
    *p = (struct peer){.l = l, .next = l->peers, .addr = *addr, .fd = fd};
    p->src = th_ev_add_fd(l->r->ev, fd, EPOLLIN, on_answer, p);
    l->peers = p;
    l->n_peers++;
    return p;
}

static void on_datagram(struct th_ev_src *src, int fd, uint32_t events, void *arg)
{
    (void)src;
    (void)events;
    struct listener *l = arg;
    struct sockaddr_in from;
    socklen_t len = sizeof(from);
    ssize_t n = recvfrom(fd, datagram, sizeof(datagram), 0, (struct sockaddr *)&from, &len);
    struct peer *p = n >= 0 ? peer_get(l, &from) : NULL;
    if (p) {
        p->used_ms = th_mono_ms();
        (void)!send(p->fd, datagram, (size_t)n, MSG_NOSIGNAL);
    }
}

static void on_sweep(struct th_ev_src *src, void *arg)
{
    (void)src;
    struct th_hostrelay *r = arg;
    int64_t limit = th_mono_ms() - UDP_IDLE_MS;
    for (struct listener *l = r->listeners; l; l = l->next) {
        for (struct peer *p = l->peers, *next; p; p = next) {
            next = p->next;
            if (p->used_ms < limit) {
                peer_free(p);
            }
        }
    }
}

/* ---- ports ---- */

static void listener_free(struct listener *l)
{
    while (l->peers) {
        peer_free(l->peers);
    }
    th_ev_remove(l->src);
    (void)close(l->fd);
    free(l);
}

void th_hostrelay_remove(struct th_hostrelay *r, const char *proto, const char *host_ip, int host_port)
{
    for (struct listener **at = &r->listeners; *at; at = &(*at)->next) {
        struct listener *l = *at;
        if (l->port.host_port == host_port && th_streq(l->port.proto, proto) &&
            th_streq(l->port.host_ip, host_ip)) {
            *at = l->next;
            listener_free(l);
            return;
        }
    }
}

int th_hostrelay_add(struct th_hostrelay *r, const struct th_hostrelay_port *port, struct th_err *err)
{
    bool udp = th_streq(port->proto, "udp");
    struct in_addr host, guest;
    if ((!udp && !th_streq(port->proto, "tcp")) || inet_pton(AF_INET, port->host_ip, &host) != 1 ||
        inet_pton(AF_INET, port->guest_ip, &guest) != 1 || ntohl(host.s_addr) >> 24 != 127 ||
        port->host_port < 1 || port->host_port > 65535 || port->guest_port < 1 ||
        port->guest_port > 65535) {
        return th_fail(err, TH_R_BAD_REQUEST, "bad port to relay");
    }
    th_hostrelay_remove(r, port->proto, port->host_ip, port->host_port);
    int type = udp ? SOCK_DGRAM : SOCK_STREAM;
    th_autoclose int fd = socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "socket");
    }
    int on = 1;
    if (!udp) {
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    }
    struct sockaddr_in sa = address(port->host_ip, port->host_port);
    if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || (!udp && listen(fd, 128) < 0)) {
        return th_fail_errno(err, errno, errno == EACCES ? TH_R_NO_PERMISSION : TH_R_PORT_IN_USE,
                             "%s:%d", port->host_ip, port->host_port);
    }
    struct listener *l = TH_NEW(struct listener);
    *l = (struct listener){.r = r, .next = r->listeners, .port = *port, .fd = th_steal_fd(&fd)};
    l->src = th_ev_add_fd(r->ev, l->fd, EPOLLIN, udp ? on_datagram : on_accept, l);
    r->listeners = l;
    return 0;
}

struct th_hostrelay *th_hostrelay_new(struct th_ev *ev, int outer_ns, int inner_ns)
{
    struct th_hostrelay *r = TH_NEW(struct th_hostrelay);
    *r = (struct th_hostrelay){.ev = ev, .outer_ns = outer_ns, .inner_ns = inner_ns};
    r->sweep = th_ev_add_timer(ev, UDP_SWEEP_MS, UDP_SWEEP_MS, on_sweep, r);
    return r;
}

void th_hostrelay_free(struct th_hostrelay *r)
{
    if (!r) {
        return;
    }
    while (r->conns) {
        conn_free(r->conns);
    }
    while (r->listeners) {
        struct listener *l = r->listeners;
        r->listeners = l->next;
        listener_free(l);
    }
    th_ev_remove(r->sweep);
    free(r);
}
