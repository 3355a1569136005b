/* Bytes between a TLS session and the plain socket of the HTTP server.
 *
 * Both descriptors are edge-triggered, so what is known of them is kept: net_in and plain_in say that
 * there may be something to read. A read that gives less than was asked for has emptied the socket and
 * saves the call that would say so, unless its end was announced already (…_hup): no second event would
 * come for that. EPOLLOUT of the plain socket is asked for only while something waits for it, or each
 * read of the other end would wake this loop.
 *
 * With edge-triggered epoll, GNUTLS_E_AGAIN does not mean that the socket is empty: only our pull
 * function knows, by its own recv. It reads ahead 16 KB, and what it has read is used up before the
 * connection may rest. A record that GnuTLS could not send must be sent again with the same data.
 *
 * A run ends when both directions would block, or after ROUNDS steps; then the connection goes to the
 * end of the ready list, so that one bulk transfer does not starve the others.
 *
 * Memory: what cannot be written at once is kept per connection (one record at most in each direction),
 * the working buffer belongs to the loop. Back-pressure is the sockets' own: a side that does not read
 * stops the other.
 *
 * A stream (a watch) goes past the HTTP server, which has sent the head and sleeps: no socketpair, no
 * call per event but the one that sends the record. It comes after all that the HTTP server wrote.
 */
#include "controlplane/api/tlsfront_priv.h"

#include "base/alloc.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define ROUNDS 32

/* ---- transport under GnuTLS ---- */

static ssize_t pull(gnutls_transport_ptr_t ptr, void *to, size_t n)
{
    struct th_tlsconn *c = ptr;
    if (c->ahead_n == 0) {
        if (!c->net_in) {
            gnutls_transport_set_errno(c->tls, EAGAIN);
            return -1;
        }
        if (!c->ahead) {
            c->ahead = th_xmalloc(TH_TLS_CHUNK);
        }
        ssize_t r = recv(c->net, c->ahead, TH_TLS_CHUNK, 0);
        if (r <= 0) {
            if (r == 0) {
                c->net_eof = true;
            } else {
                c->sys_errno = errno;
                c->net_in = errno != EAGAIN;
            }
            gnutls_transport_set_errno(c->tls, r == 0 ? 0 : errno);
            return r;
        }
        if (r < TH_TLS_CHUNK && !c->net_hup) {
            c->net_in = false;
        }
        c->ahead_off = 0;
        c->ahead_n = (size_t)r;
    }
    size_t take = n < c->ahead_n ? n : c->ahead_n;
    memcpy(to, c->ahead + c->ahead_off, take);
    c->ahead_off += take;
    c->ahead_n -= take;
    return (ssize_t)take;
}

static ssize_t push(gnutls_transport_ptr_t ptr, const giovec_t *iov, int n)
{
    struct th_tlsconn *c = ptr;
    struct msghdr m = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)n};
    ssize_t r = sendmsg(c->net, &m, MSG_NOSIGNAL);
    if (r < 0) {
        c->sys_errno = errno;
        gnutls_transport_set_errno(c->tls, errno);
    }
    return r;
}

static int pull_timeout(gnutls_transport_ptr_t ptr, unsigned ms)
{
    (void)ptr;
    (void)ms;
    return 1; /* never asked to wait: the session is non-blocking */
}

void th_relay_transport(struct th_tlsconn *c)
{
    static const gnutls_datum_t alpn = {(unsigned char *)"http/1.1", 8};
    (void)gnutls_alpn_set_protocols(c->tls, &alpn, 1, 0);
    gnutls_handshake_set_timeout(c->tls, 0);
    gnutls_transport_set_ptr(c->tls, c);
    gnutls_transport_set_pull_function(c->tls, pull);
    gnutls_transport_set_vec_push_function(c->tls, push);
    gnutls_transport_set_pull_timeout_function(c->tls, pull_timeout);
}

void th_relay_net_event(struct th_tlsconn *c, uint32_t events)
{
    c->net_in |= (events & ~(uint32_t)EPOLLOUT) != 0;
    c->net_hup |= (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
}

void th_relay_plain_event(struct th_tlsconn *c, uint32_t events)
{
    c->plain_in |= (events & ~(uint32_t)EPOLLOUT) != 0;
    c->plain_hup |= (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
}

/* ---- from the client to the server ---- */

/* Whether epoll tells that plain can be written. */
static void watch_plain(struct th_tlsconn *c, bool full)
{
    if (c->plain_full != full) {
        c->plain_full = full;
        struct epoll_event ev = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET | (full ? EPOLLOUT : 0u),
                                 .data.u64 = (uintptr_t)c | TH_TLS_PLAIN_BIT};
        (void)epoll_ctl(c->loop->epoll, EPOLL_CTL_MOD, c->plain, &ev);
    }
}

static int flush_to_plain(struct th_tlsconn *c)
{
    ssize_t w = send(c->plain, c->to_plain + c->to_plain_off, c->to_plain_n, MSG_NOSIGNAL);
    if (w < 0) {
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    }
    c->loop->want_turn = true;
    c->to_plain_off += (size_t)w;
    c->to_plain_n -= (size_t)w;
    if (c->to_plain_n == 0) {
        free(c->to_plain);
        c->to_plain = NULL;
        watch_plain(c, false);
    }
    return 1;
}

/* One step from the client to the server. 1 moved, 0 would block, -1 broken. */
static int step_in(struct th_tlsconn *c)
{
    if (c->to_plain_n > 0) {
        return flush_to_plain(c);
    }
    if (c->tls_eof) {
        if (!c->shut_plain) {
            c->shut_plain = true;
            if (c->token) {
                c->loop->front->cb.gone(c->loop->front->cb.arg, c->token);
            }
            (void)shutdown(c->plain, SHUT_WR);
            c->loop->want_turn = true;
        }
        return 0;
    }
    if (!c->net_in && c->ahead_n == 0 && gnutls_record_check_pending(c->tls) == 0) {
        return 0; /* what a watch sends does not come with anything to read */
    }
    char *buf = c->loop->buf;
    ssize_t n = gnutls_record_recv(c->tls, buf, TH_TLS_CHUNK);
    if (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED) {
        return c->ahead_n > 0 ? 1 : 0;
    }
    if (n == GNUTLS_E_REHANDSHAKE || (n < 0 && !gnutls_error_is_fatal((int)n))) {
        return 1;
    }
    if (n <= 0) {
        c->tls_eof = true; /* close_notify, or the peer just went */
        return n == 0 || c->net_eof ? 1 : -1;
    }
    ssize_t w = send(c->plain, buf, (size_t)n, MSG_NOSIGNAL);
    if (w < 0 && errno != EAGAIN && errno != EINTR) {
        return -1;
    }
    c->loop->want_turn = true;
    size_t done = w > 0 ? (size_t)w : 0;
    if (done < (size_t)n) {
        c->to_plain = th_xmemdup(buf + done, (size_t)n - done);
        c->to_plain_off = 0;
        c->to_plain_n = (size_t)n - done;
        watch_plain(c, true);
    }
    return 1;
}

/* ---- from the server to the client ---- */

static int flush_to_tls(struct th_tlsconn *c)
{
    ssize_t w = gnutls_record_send(c->tls, c->to_tls, c->to_tls_n);
    if (w == GNUTLS_E_AGAIN || w == GNUTLS_E_INTERRUPTED) {
        /* One that does not read, and whose watch was cut off for it, is not waited for. */
        return c->stream && c->stream_in && c->stream(c->stream_arg, NULL, 0) < 0 ? -1 : 0;
    }
    if (w < 0) {
        return -1;
    }
    if ((size_t)w < c->to_tls_n) {
        memmove(c->to_tls, c->to_tls + w, c->to_tls_n - (size_t)w);
    }
    c->to_tls_n -= (size_t)w;
    if (c->to_tls_n == 0) {
        free(c->to_tls);
        c->to_tls = NULL;
    }
    return 1;
}

static int send_record(struct th_tlsconn *c, const char *p, size_t n)
{
    ssize_t w = gnutls_record_send(c->tls, p, n);
    if (w < 0 && w != GNUTLS_E_AGAIN && w != GNUTLS_E_INTERRUPTED) {
        return -1;
    }
    size_t done = w > 0 ? (size_t)w : 0;
    if (done < n) {
        c->to_tls = th_xmemdup(p + done, n - done);
        c->to_tls_n = n - done;
    }
    return 1;
}

static int say_bye(struct th_tlsconn *c)
{
    if (c->shut_tls) {
        return 0;
    }
    int r = gnutls_bye(c->tls, GNUTLS_SHUT_WR);
    if (r == GNUTLS_E_AGAIN || r == GNUTLS_E_INTERRUPTED) {
        return 0;
    }
    c->shut_tls = true;
    (void)shutdown(c->net, SHUT_WR);
    return 0;
}

/* One step from the server to the client. */
static int step_out(struct th_tlsconn *c)
{
    if (c->to_tls_n > 0) {
        return flush_to_tls(c);
    }
    if (c->plain_eof) {
        return say_bye(c);
    }
    char *buf = c->loop->buf;
    if (c->plain_in) {
        ssize_t n = recv(c->plain, buf, TH_TLS_CHUNK, 0);
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            return -1;
        }
        if (n == 0) {
            c->plain_eof = true;
            return 1;
        }
        if (n < 0 || (n < TH_TLS_CHUNK && !c->plain_hup)) {
            c->plain_in = n < 0 && errno == EINTR;
        }
        if (n > 0) {
            return send_record(c, buf, (size_t)n);
        }
    }
    if (c->stream && c->stream_in) {
        ssize_t n = c->stream(c->stream_arg, buf, TH_TLS_CHUNK);
        if (n > 0) {
            return send_record(c, buf, (size_t)n);
        }
        c->stream_in = false;
        if (n < 0) {
            c->stream = NULL;
            c->loop->want_turn = true;
        }
    }
    return 0;
}

void th_relay_run(struct th_tlsconn *c)
{
    for (int i = 0; i < ROUNDS; i++) {
        int in = step_in(c);
        int out = in < 0 ? -1 : step_out(c);
        if (in < 0 || out < 0 || (c->shut_tls && c->plain_eof)) {
            /* The server is done: what the client still sends nobody reads. */
            th_conn_drop(c);
            return;
        }
        if (in == 0 && out == 0) {
            if (c->ahead_n == 0) {
                free(c->ahead);
                c->ahead = NULL;
            }
            return;
        }
    }
    th_conn_ready(c);
}

/* ---- streams ---- */

void th_tlsfront_stream(struct th_tlsconn *c, th_tlsfront_read_fn *fn, void *arg)
{
    c->stream = fn;
    c->stream_arg = arg;
    c->stream_in = fn != NULL;
    if (fn) {
        c->plain_in = true; /* what the HTTP server wrote comes first */
        th_conn_ready(c);
    }
}

void th_tlsfront_stream_wake(struct th_tlsconn *c)
{
    struct th_loop *l = c->loop;
    if (__atomic_exchange_n(&c->woken, true, __ATOMIC_ACQ_REL)) {
        return;
    }
    (void)pthread_mutex_lock(&l->lock);
    bool first = !l->woken;
    c->woken_next = NULL;
    *l->woken_tail = c;
    l->woken_tail = &c->woken_next;
    (void)pthread_mutex_unlock(&l->lock);
    if (first) {
        th_loop_poke(l);
    }
}
