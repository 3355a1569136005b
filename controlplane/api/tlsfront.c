/* TLS in front of libmicrohttpd.
 *
 * libmicrohttpd's own TLS cannot carry upgraded connections in bulk, so TLS ends here: one thread
 * with one epoll accepts, shakes hands without blocking, and then moves bytes between the GnuTLS
 * session and one end of a socketpair; the other end is a plain connection for the HTTP server.
 *
 *   handshaking  in a FIFO with one fixed deadline; at the cap the oldest goes, since a pause of
 *                accept would delay everybody for the sake of stalled peers
 *   relaying     both descriptors edge-triggered; a pump runs until both directions would block,
 *                at most ROUNDS times, and then goes to the end of the ready list, so that one bulk
 *                transfer does not starve the others
 *
 * Memory: what cannot be written at once is kept per connection (one record at most in each
 * direction), the working buffers belong to the thread; an idle connection holds its session and
 * three descriptors. Back-pressure is the sockets' own: a side that does not read stops the other.
 *
 * With edge-triggered epoll, GNUTLS_E_AGAIN does not mean that the socket is empty: only our pull
 * function knows, by its own recv. It reads ahead 16 KB, and what it has read is used up before the
 * pump may rest. A record that GnuTLS could not send must be sent again with the same data.
 */
#include "controlplane/api/tlsfront_priv.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/encode.h"
#include "base/io.h"
#include "base/limits.h"
#include "base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <gnutls/x509.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

/* ---- transport under GnuTLS ---- */

static ssize_t pull(gnutls_transport_ptr_t ptr, void *to, size_t n)
{
    struct conn *c = ptr;
    if (c->ahead_n == 0) {
        if (!c->ahead) {
            c->ahead = th_xmalloc(CHUNK);
        }
        ssize_t r = recv(c->net, c->ahead, CHUNK, 0);
        if (r <= 0) {
            if (r == 0) {
                c->net_eof = true;
            } else {
                c->sys_errno = errno;
            }
            gnutls_transport_set_errno(c->tls, r == 0 ? 0 : errno);
            return r;
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
    struct conn *c = ptr;
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

/* ---- lists ---- */

static void ring_init(struct conn *r)
{
    r->prev = r->next = r;
}

static void ring_add(struct conn *r, struct conn *c)
{
    c->prev = r->prev;
    c->next = r;
    r->prev->next = c;
    r->prev = c;
}

static void ring_del(struct conn *c)
{
    c->prev->next = c->next;
    c->next->prev = c->prev;
}

void th_tlsconn_free(struct conn *c)
{
    gnutls_deinit(c->tls);
    if (c->own_cred) {
        gnutls_certificate_free_credentials(c->own_cred);
    }
    th_dial_note_unref(c->note);
    free(c->ahead);
    free(c->to_plain);
    free(c->to_tls);
    free(c);
}

/* Closes now; the memory goes after this round, since its events may still be in hand. */
static void conn_drop(struct th_tlsfront *f, struct conn *c)
{
    if (c->dead) {
        return;
    }
    c->dead = true;
    ring_del(c);
    *(c->state == CONN_HANDSHAKE ? &f->n_handshakes : &f->n_relays) -= 1;
    (void)close(c->net);
    if (c->plain >= 0) {
        (void)close(c->plain);
    }
    if (c->token) {
        f->cb.gone(f->cb.arg, c->token);
        f->cb.release(f->cb.arg, c->token);
        c->token = NULL;
    }
    c->next = f->graveyard;
    f->graveyard = c;
}

static void make_ready(struct th_tlsfront *f, struct conn *c)
{
    if (!c->ready && !c->dead) {
        c->ready = true;
        c->ready_next = NULL;
        *f->ready_tail = c;
        f->ready_tail = &c->ready_next;
    }
}

/* ---- relaying ---- */

/* One step from the client to the server. 1 moved, 0 would block, -1 broken. */
static int step_in(struct th_tlsfront *f, struct conn *c)
{
    if (c->to_plain_n > 0) {
        ssize_t w = send(c->plain, c->to_plain + c->to_plain_off, c->to_plain_n, MSG_NOSIGNAL);
        if (w < 0) {
            return errno == EAGAIN || errno == EINTR ? 0 : -1;
        }
        c->to_plain_off += (size_t)w;
        c->to_plain_n -= (size_t)w;
        if (c->to_plain_n == 0) {
            free(c->to_plain);
            c->to_plain = NULL;
        }
        return 1;
    }
    if (c->tls_eof) {
        if (!c->shut_plain) {
            c->shut_plain = true;
            if (c->token) {
                f->cb.gone(f->cb.arg, c->token);
            }
            (void)shutdown(c->plain, SHUT_WR);
        }
        return 0;
    }
    ssize_t n = gnutls_record_recv(c->tls, f->buf, sizeof(f->buf));
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
    ssize_t w = send(c->plain, f->buf, (size_t)n, MSG_NOSIGNAL);
    if (w < 0 && errno != EAGAIN && errno != EINTR) {
        return -1;
    }
    size_t done = w > 0 ? (size_t)w : 0;
    if (done < (size_t)n) {
        c->to_plain = th_xmemdup(f->buf + done, (size_t)n - done);
        c->to_plain_off = 0;
        c->to_plain_n = (size_t)n - done;
    }
    return 1;
}

/* One step from the server to the client. */
static int step_out(struct th_tlsfront *f, struct conn *c)
{
    if (c->to_tls_n > 0) {
        ssize_t w = gnutls_record_send(c->tls, c->to_tls, c->to_tls_n);
        if (w == GNUTLS_E_AGAIN || w == GNUTLS_E_INTERRUPTED) {
            return 0;
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
    if (c->plain_eof) {
        if (!c->shut_tls) {
            int r = gnutls_bye(c->tls, GNUTLS_SHUT_WR);
            if (r == GNUTLS_E_AGAIN || r == GNUTLS_E_INTERRUPTED) {
                return 0;
            }
            c->shut_tls = true;
            (void)shutdown(c->net, SHUT_WR);
        }
        return 0;
    }
    ssize_t n = recv(c->plain, f->buf, sizeof(f->buf), 0);
    if (n < 0) {
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    }
    if (n == 0) {
        c->plain_eof = true;
        return 1;
    }
    ssize_t w = gnutls_record_send(c->tls, f->buf, (size_t)n);
    if (w < 0 && w != GNUTLS_E_AGAIN && w != GNUTLS_E_INTERRUPTED) {
        return -1;
    }
    size_t done = w > 0 ? (size_t)w : 0;
    if (done < (size_t)n) {
        c->to_tls = th_xmemdup(f->buf + done, (size_t)n - done);
        c->to_tls_n = (size_t)n - done;
    }
    return 1;
}

static void pump(struct th_tlsfront *f, struct conn *c)
{
    for (int i = 0; i < ROUNDS; i++) {
        int in = step_in(f, c);
        int out = in < 0 ? -1 : step_out(f, c);
        if (in < 0 || out < 0 || (c->shut_tls && c->plain_eof)) {
            /* The server is done: what the client still sends nobody reads. */
            conn_drop(f, c);
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
    make_ready(f, c);
}

/* ---- handshakes ---- */

static char *dn_part(gnutls_x509_crt_t crt, const char *oid, unsigned i)
{
    char buf[256];
    size_t n = sizeof(buf) - 1;
    if (gnutls_x509_crt_get_dn_by_oid(crt, oid, i, 0, buf, &n) < 0) {
        return NULL;
    }
    buf[n < sizeof(buf) ? n : sizeof(buf) - 1] = '\0';
    return th_xstrdup(buf);
}

/* The subject of the client's certificate, or NULL; *ret_bad when it is not one of ours. */
static struct th_identity *peer_of(struct conn *c, bool *ret_bad)
{
    unsigned n = 0;
    const gnutls_datum_t *chain = gnutls_certificate_get_peers(c->tls, &n);
    if (!chain || n == 0) {
        return NULL;
    }
    unsigned status = 0;
    gnutls_x509_crt_t crt = NULL;
    *ret_bad = true;
    if (gnutls_certificate_verify_peers2(c->tls, &status) < 0 || status != 0 ||
        gnutls_x509_crt_init(&crt) < 0) {
        return NULL;
    }
    struct th_identity *id = NULL;
    if (gnutls_x509_crt_import(crt, &chain[0], GNUTLS_X509_FMT_DER) >= 0) {
        th_autofree char *cn = dn_part(crt, GNUTLS_OID_X520_COMMON_NAME, 0);
        th_autostrv struct th_strv orgs = TH_STRV_INIT;
        char *o;
        for (unsigned i = 0; (o = dn_part(crt, GNUTLS_OID_X520_ORGANIZATION_NAME, i)); i++) {
            th_strv_take(&orgs, o);
        }
        if (cn) {
            char sum[TH_SHA256_HEX_LEN];
            th_sha256_hex(chain[0].data, chain[0].size, sum);
            id = th_authn_subject(cn, &orgs);
            th_strv_addf(&id->extra, "authentication.kubernetes.io/credential-id=X509SHA256=%s", sum);
            *ret_bad = false;
        }
    }
    gnutls_x509_crt_deinit(crt);
    return id;
}

/* c->plain is in place and nobody is told: the other end was given away when it was dialed. */
static void begin_dialed(struct th_tlsfront *f, struct conn *c)
{
    struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
    if (epoll_ctl(f->epoll, EPOLL_CTL_ADD, c->plain, &ev) < 0) {
        conn_drop(f, c);
        return;
    }
    ring_del(c);
    f->n_handshakes--;
    c->state = CONN_RELAY;
    ring_add(&f->relays, c);
    f->n_relays++;
    make_ready(f, c);
}

static void begin_relay(struct th_tlsfront *f, struct conn *c)
{
    int pair[2];
    bool bad = false;
    struct th_identity *id = peer_of(c, &bad);
    if (f->n_relays >= TH_LIMIT_CONNECTIONS ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0) {
        th_identity_unref(id);
        conn_drop(f, c);
        return;
    }
    c->plain = pair[0];
    struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
    if (epoll_ctl(f->epoll, EPOLL_CTL_ADD, c->plain, &ev) < 0) {
        (void)close(pair[1]);
        th_identity_unref(id);
        conn_drop(f, c);
        return;
    }
    ring_del(c);
    f->n_handshakes--;
    c->state = CONN_RELAY;
    ring_add(&f->relays, c);
    f->n_relays++;
    c->token = f->cb.fn(f->cb.arg, pair[1], id, bad);
    make_ready(f, c);
}

static void shake(struct th_tlsfront *f, struct conn *c)
{
    int r;
    do {
        r = gnutls_handshake(c->tls);
    } while (r == GNUTLS_E_INTERRUPTED ||
             (r == GNUTLS_E_AGAIN && c->ahead_n > 0 && gnutls_record_get_direction(c->tls) == 0) ||
             (r < 0 && r != GNUTLS_E_AGAIN && !gnutls_error_is_fatal(r)));
    if (r == GNUTLS_E_AGAIN) {
        return;
    }
    if (r < 0) {
        th_debug("tls", "handshake failed", "error=%s", th_log_q(gnutls_strerror(r)));
        th_tlsdial_failed(c, r);
        conn_drop(f, c);
        return;
    }
    if (c->note) {
        begin_dialed(f, c);
    } else {
        begin_relay(f, c);
    }
}

void th_tlsconn_transport(struct conn *c)
{
    static const gnutls_datum_t alpn = {(unsigned char *)"http/1.1", 8};
    (void)gnutls_alpn_set_protocols(c->tls, &alpn, 1, 0);
    gnutls_transport_set_ptr(c->tls, c);
    gnutls_transport_set_pull_function(c->tls, pull);
    gnutls_transport_set_vec_push_function(c->tls, push);
    gnutls_transport_set_pull_timeout_function(c->tls, pull_timeout);
    gnutls_handshake_set_timeout(c->tls, 0);
}

void th_tlsconn_shake_begin(struct th_tlsfront *f, struct conn *c)
{
    c->deadline_ms = th_mono_ms() + TH_LIMIT_TLS_HANDSHAKE_MS;
    if (f->n_handshakes >= TH_LIMIT_TLS_HANDSHAKES) {
        conn_drop(f, f->handshakes.next);
    }
    ring_add(&f->handshakes, c);
    f->n_handshakes++;
    struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
    if (epoll_ctl(f->epoll, EPOLL_CTL_ADD, c->net, &ev) < 0) {
        conn_drop(f, c);
    }
}

static void accept_one(struct th_tlsfront *f, int fd)
{
    int one = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
    struct conn *c = TH_NEW(struct conn);
    c->net = fd;
    c->plain = -1;
    if (gnutls_init(&c->tls, GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL) < 0) {
        (void)close(fd);
        free(c);
        return;
    }
    (void)gnutls_priority_set(c->tls, f->priority);
    (void)gnutls_credentials_set(c->tls, GNUTLS_CRD_CERTIFICATE, f->cred);
    gnutls_certificate_server_set_request(c->tls, f->want_cert ? GNUTLS_CERT_REQUEST
                                                               : GNUTLS_CERT_IGNORE);
    th_tlsconn_transport(c);
    th_tlsconn_shake_begin(f, c);
}

static void accept_all(struct th_tlsfront *f)
{
    for (int i = 0; i < EVENTS; i++) {
        int fd = accept4(f->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE) {
                /* Give back what stalls longest rather than leave everybody waiting. */
                if (f->n_handshakes > 0) {
                    conn_drop(f, f->handshakes.next);
                }
            }
            return;
        }
        accept_one(f, fd);
    }
}

/* ---- the thread ---- */

static int timeout_of(struct th_tlsfront *f)
{
    if (f->ready_head) {
        return 0;
    }
    if (f->n_handshakes == 0) {
        return -1;
    }
    int64_t ms = f->handshakes.next->deadline_ms - th_mono_ms();
    return ms < 0 ? 0 : ms > TH_LIMIT_TLS_HANDSHAKE_MS ? TH_LIMIT_TLS_HANDSHAKE_MS : (int)ms;
}

/* What still stands in the ready list stays until it has been taken off there. */
static void bury(struct th_tlsfront *f)
{
    struct conn **at = &f->graveyard;
    while (*at) {
        struct conn *c = *at;
        if (c->ready) {
            at = &c->next;
        } else {
            *at = c->next;
            th_tlsconn_free(c);
        }
    }
}

static void run_ready(struct th_tlsfront *f)
{
    struct conn *list = f->ready_head;
    f->ready_head = NULL;
    f->ready_tail = &f->ready_head;
    while (list) {
        struct conn *c = list;
        list = c->ready_next;
        c->ready = false;
        if (!c->dead) {
            pump(f, c);
        }
    }
}

static void on_event(struct th_tlsfront *f, void *ptr)
{
    if (ptr == &f->listener) {
        accept_all(f);
    } else if (ptr == &f->wake) {
        uint64_t n;
        (void)!read(f->wake, &n, sizeof(n));
        if (__atomic_load_n(&f->stop_accepting, __ATOMIC_ACQUIRE) && f->listener >= 0) {
            (void)close(f->listener);
            f->listener = -1;
        }
        th_tlsdial_adopt(f);
    } else {
        struct conn *c = ptr;
        if (c->dead) {
            return;
        }
        if (c->state == CONN_HANDSHAKE) {
            shake(f, c);
        } else {
            make_ready(f, c);
        }
    }
}

static void *run(void *arg)
{
    struct th_tlsfront *f = arg;
    struct epoll_event ev[EVENTS];
    while (!__atomic_load_n(&f->stop, __ATOMIC_ACQUIRE)) {
        int n = epoll_wait(f->epoll, ev, EVENTS, timeout_of(f));
        for (int i = 0; i < n; i++) {
            on_event(f, ev[i].data.ptr);
        }
        run_ready(f);
        int64_t now = th_mono_ms();
        while (f->n_handshakes > 0 && f->handshakes.next->deadline_ms <= now) {
            th_tlsdial_failed(f->handshakes.next, 0);
            conn_drop(f, f->handshakes.next);
        }
        bury(f);
    }
    return NULL;
}

static int listen_on(const char *ip, int port, int *ret_port, struct th_err *err)
{
    struct sockaddr_in a4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct sockaddr_in6 a6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    struct sockaddr *sa = (struct sockaddr *)&a4;
    socklen_t n = sizeof(a4);
    if (inet_pton(AF_INET, ip, &a4.sin_addr) != 1) {
        if (inet_pton(AF_INET6, ip, &a6.sin6_addr) != 1) {
            return th_fail(err, TH_R_USAGE, "\"%s\" is not an IP address", ip);
        }
        sa = (struct sockaddr *)&a6;
        n = sizeof(a6);
    }
    th_autoclose int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int one = 1;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
        bind(fd, sa, n) < 0 || listen(fd, SOMAXCONN) < 0) {
        return th_fail_errno(err, errno, errno == EADDRINUSE ? TH_R_PORT_IN_USE : TH_R_IO,
                             "listening on %s:%d", ip, port);
    }
    struct sockaddr_storage got;
    socklen_t len = sizeof(got);
    if (getsockname(fd, (struct sockaddr *)&got, &len) == 0) {
        *ret_port = ntohs(got.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&got)->sin6_port
                                                    : ((struct sockaddr_in *)&got)->sin_port);
    }
    return th_steal_fd(&fd);
}

/* An emulated processor has no AES instructions, and then ChaCha20 costs a third less. */
static bool aes_is_fast(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
#else
    return true;
#endif
}

static int load_credentials(struct th_tlsfront *f, const struct th_tlsfront_opts *o,
                            struct th_err *err)
{
    if (!o->ip) {
        return 0; /* nothing is accepted */
    }
    gnutls_datum_t cert = {(unsigned char *)o->cert_pem, (unsigned)strlen(o->cert_pem)};
    gnutls_datum_t key = {(unsigned char *)o->key_pem, (unsigned)strlen(o->key_pem)};
    int r = gnutls_certificate_allocate_credentials(&f->cred);
    if (r >= 0) {
        r = gnutls_certificate_set_x509_key_mem(f->cred, &cert, &key, GNUTLS_X509_FMT_PEM);
    }
    if (r >= 0 && o->client_ca_pem) {
        gnutls_datum_t ca = {(unsigned char *)o->client_ca_pem, (unsigned)strlen(o->client_ca_pem)};
        r = gnutls_certificate_set_x509_trust_mem(f->cred, &ca, GNUTLS_X509_FMT_PEM);
        f->want_cert = true;
    }
    if (r >= 0) {
        th_autofree char *rules = th_xasprintf(
            "%%SERVER_PRECEDENCE:-VERS-TLS1.0:-VERS-TLS1.1:-CIPHER-ALL:%s",
            aes_is_fast() ? "+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305"
                          : "+CHACHA20-POLY1305:+AES-128-GCM:+AES-256-GCM");
        r = gnutls_priority_init2(&f->priority, rules, NULL, GNUTLS_PRIORITY_INIT_DEF_APPEND);
    }
    return r >= 0 ? 0 : th_fail(err, TH_R_IO, "TLS certificate: %s", gnutls_strerror(r));
}

int th_tlsfront_start(const struct th_tlsfront_opts *o, struct th_tlsfront **ret,
                      struct th_err *err)
{
    struct th_tlsfront *f = TH_NEW(struct th_tlsfront);
    ring_init(&f->handshakes);
    ring_init(&f->relays);
    f->ready_tail = &f->ready_head;
    f->cb = *o;
    f->epoll = epoll_create1(EPOLL_CLOEXEC);
    f->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    f->listener = -1;
    (void)pthread_mutex_init(&f->lock, NULL);
    int r = load_credentials(f, o, err);
    if (r >= 0 && o->ip) {
        r = listen_on(o->ip, o->port, &f->port, err);
        f->listener = r;
    }
    struct epoll_event le = {.events = EPOLLIN, .data.ptr = &f->listener};
    struct epoll_event we = {.events = EPOLLIN, .data.ptr = &f->wake};
    if (r >= 0 && ((o->ip && epoll_ctl(f->epoll, EPOLL_CTL_ADD, f->listener, &le) < 0) ||
                   epoll_ctl(f->epoll, EPOLL_CTL_ADD, f->wake, &we) < 0 ||
                   pthread_create(&f->thread, NULL, run, f) != 0)) {
        r = th_fail_errno(err, errno, TH_R_IO, "starting the TLS thread");
    }
    if (r < 0) {
        f->stop = true;
        f->thread = 0;
        th_tlsfront_free(f);
        return r;
    }
    *ret = f;
    return 0;
}

int th_tlsfront_port(const struct th_tlsfront *f)
{
    return f->port;
}

void th_tlsfront_poke(struct th_tlsfront *f)
{
    uint64_t one = 1;
    (void)!write(f->wake, &one, sizeof(one));
}

void th_tlsfront_stop_accepting(struct th_tlsfront *f)
{
    __atomic_store_n(&f->stop_accepting, true, __ATOMIC_RELEASE);
    th_tlsfront_poke(f);
}

void th_tlsfront_free(struct th_tlsfront *f)
{
    if (!f) {
        return;
    }
    if (f->thread) {
        __atomic_store_n(&f->stop, true, __ATOMIC_RELEASE);
        th_tlsfront_poke(f);
        (void)pthread_join(f->thread, NULL);
    }
    th_tlsdial_adopt(f);
    while (f->n_handshakes > 0) {
        conn_drop(f, f->handshakes.next);
    }
    while (f->n_relays > 0) {
        conn_drop(f, f->relays.next);
    }
    f->ready_head = NULL;
    while (f->graveyard) {
        struct conn *c = f->graveyard;
        f->graveyard = c->next;
        th_tlsconn_free(c);
    }
    if (f->listener >= 0) {
        (void)close(f->listener);
    }
    (void)close(f->epoll);
    (void)close(f->wake);
    (void)pthread_mutex_destroy(&f->lock);
    if (f->cred) {
        gnutls_certificate_free_credentials(f->cred);
    }
    if (f->priority) {
        gnutls_priority_deinit(f->priority);
    }
    free(f);
}
