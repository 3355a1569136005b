/* TLS in front of libmicrohttpd, and the loops that both run in.
 *
 * libmicrohttpd's own TLS cannot carry upgraded connections in bulk, so TLS ends here: a loop, one
 * thread with one epoll, shakes hands without blocking, and then moves bytes between the GnuTLS session
 * and one end of a socketpair (tlsrelay.c); the other end is a plain connection of the HTTP server. That
 * has no thread of its own: the loop gives it its turn after it was handed something, so a request
 * crosses from TLS to HTTP and back without a switch of threads.
 *
 *   loop 0       accepts, and gives each connection to the loop that has the fewest
 *   handshaking  in a FIFO with one fixed deadline; at the cap the oldest goes, since a pause of
 *                accept would delay everybody for the sake of stalled peers
 *   relaying     until one side ends
 *   plain        connections of the Unix socket: the HTTP server's from the start
 *
 * An idle connection holds its session and three descriptors.
 */
#include "controlplane/api/tlsfront_priv.h"

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

#define EVENTS 64
#define TURNS 8 /* of the HTTP server in a row, while it says that it has more to do */

/* ---- lists ---- */

static void ring_init(struct th_tlsconn *r)
{
    r->prev = r->next = r;
}

static void ring_add(struct th_tlsconn *r, struct th_tlsconn *c)
{
    c->prev = r->prev;
    c->next = r;
    r->prev->next = c;
    r->prev = c;
}

static void ring_del(struct th_tlsconn *c)
{
    c->prev->next = c->next;
    c->next->prev = c->prev;
}

void th_conn_free(struct th_tlsconn *c)
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
void th_conn_drop(struct th_tlsconn *c)
{
    struct th_loop *l = c->loop;
    if (c->dead) {
        return;
    }
    c->dead = true;
    c->stream = NULL;
    ring_del(c);
    *(c->state == TH_CONN_HANDSHAKE ? &l->n_handshakes : &l->n_relays) -= 1;
    (void)__atomic_sub_fetch(&l->load, 1, __ATOMIC_RELAXED);
    (void)close(c->net);
    if (c->plain >= 0) {
        (void)close(c->plain);
        l->want_turn = true;
    }
    if (c->token) {
        l->front->cb.gone(l->front->cb.arg, c->token);
        l->front->cb.release(l->front->cb.arg, c->token);
        c->token = NULL;
    }
    c->next = l->graveyard;
    l->graveyard = c;
}

void th_conn_ready(struct th_tlsconn *c)
{
    struct th_loop *l = c->loop;
    if (!c->ready && !c->dead) {
        c->ready = true;
        c->ready_next = NULL;
        *l->ready_tail = c;
        l->ready_tail = &c->ready_next;
    }
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

static bool is_front_proxy(struct th_tlsfront *f, gnutls_x509_crt_t crt)
{
    unsigned status = 0;
    return f->front_ca && gnutls_x509_crt_verify(crt, &f->front_ca, 1, 0, &status) >= 0 &&
           status == 0;
}

/* The subject of the client's certificate, or NULL; *ret_bad when it is not one of ours. */
static struct th_identity *peer_of(struct th_tlsfront *f, struct th_tlsconn *c, bool *ret_bad)
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
            id->front_proxy = is_front_proxy(f, crt);
            *ret_bad = false;
        }
    }
    gnutls_x509_crt_deinit(crt);
    return id;
}

/* c->plain is in place: relaying begins. */
static bool relay_from_now(struct th_tlsconn *c)
{
    struct th_loop *l = c->loop;
    struct epoll_event ev = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET,
                             .data.u64 = (uintptr_t)c | TH_TLS_PLAIN_BIT};
    if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, c->plain, &ev) < 0) {
        th_conn_drop(c);
        return false;
    }
    ring_del(c);
    l->n_handshakes--;
    c->state = TH_CONN_RELAY;
    ring_add(&l->relays, c);
    l->n_relays++;
    th_conn_ready(c);
    return true;
}

void th_tlsconn_peer(const struct th_tlsconn *c, char buf[INET6_ADDRSTRLEN])
{
    struct sockaddr_storage a;
    socklen_t n = sizeof(a);
    const void *ip = &((struct sockaddr_in *)&a)->sin_addr;
    buf[0] = '\0';
    if (getpeername(c->net, (struct sockaddr *)&a, &n) < 0) {
        return;
    }
    if (a.ss_family == AF_INET6) {
        const struct in6_addr *v6 = &((struct sockaddr_in6 *)&a)->sin6_addr;
        bool mapped = IN6_IS_ADDR_V4MAPPED(v6);
        ip = mapped ? (const void *)&v6->s6_addr[12] : v6;
        a.ss_family = mapped ? AF_INET : AF_INET6;
    }
    (void)inet_ntop(a.ss_family, ip, buf, INET6_ADDRSTRLEN);
}

static void begin_relay(struct th_tlsconn *c)
{
    struct th_loop *l = c->loop;
    int pair[2];
    bool bad = false;
    struct th_identity *id = peer_of(l->front, c, &bad);
    if (l->n_relays >= TH_LIMIT_CONNECTIONS / (size_t)l->front->n_loops ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0) {
        th_identity_unref(id);
        th_conn_drop(c);
        return;
    }
    c->plain = pair[0];
    if (!relay_from_now(c)) {
        (void)close(pair[1]);
        th_identity_unref(id);
        return;
    }
    c->token = l->front->cb.fn(l->front->cb.arg, l->index, c, pair[1], id, bad);
    l->want_turn = true;
}

static void shake(struct th_tlsconn *c)
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
        th_conn_drop(c);
        return;
    }
    if (c->note) { /* the other end was given away when it was dialed */
        (void)relay_from_now(c);
    } else {
        begin_relay(c);
    }
}

void th_conn_shake_begin(struct th_tlsconn *c)
{
    struct th_loop *l = c->loop;
    c->deadline_ms = th_mono_ms() + TH_LIMIT_TLS_HANDSHAKE_MS;
    if (l->n_handshakes >= TH_LIMIT_TLS_HANDSHAKES / (size_t)l->front->n_loops) {
        th_conn_drop(l->handshakes.next);
    }
    ring_add(&l->handshakes, c);
    l->n_handshakes++;
    struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                             .data.u64 = (uintptr_t)c};
    if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, c->net, &ev) < 0) {
        th_conn_drop(c);
    }
}

/* A TCP connection that this loop was given. */
static void take_tcp(struct th_loop *l, int fd)
{
    struct th_tlsfront *f = l->front;
    int one = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
    struct th_tlsconn *c = TH_NEW(struct th_tlsconn);
    c->loop = l;
    c->net = fd;
    c->plain = -1;
    if (gnutls_init(&c->tls, GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL) < 0) {
        (void)__atomic_sub_fetch(&l->load, 1, __ATOMIC_RELAXED);
        (void)close(fd);
        free(c);
        return;
    }
    (void)gnutls_priority_set(c->tls, f->priority);
    (void)gnutls_credentials_set(c->tls, GNUTLS_CRD_CERTIFICATE, f->cred);
    gnutls_certificate_server_set_request(c->tls, f->want_cert ? GNUTLS_CERT_REQUEST
                                                               : GNUTLS_CERT_IGNORE);
    th_relay_transport(c);
    th_conn_shake_begin(c);
}

static void take_newcomer(struct th_loop *l, struct th_newcomer n)
{
    if (!n.is_unix) {
        take_tcp(l, n.fd);
        return;
    }
    (void)__atomic_sub_fetch(&l->load, 1, __ATOMIC_RELAXED); /* the HTTP server's from now on */
    l->want_turn = true;
    l->front->cb.plain(l->front->cb.arg, l->index, n.fd);
}

struct th_loop *th_loop_pick(struct th_tlsfront *f)
{
    struct th_loop *best = &f->loops[0];
    for (int i = 1; i < f->n_loops; i++) {
        if (__atomic_load_n(&f->loops[i].load, __ATOMIC_RELAXED) <
            __atomic_load_n(&best->load, __ATOMIC_RELAXED)) {
            best = &f->loops[i];
        }
    }
    (void)__atomic_add_fetch(&best->load, 1, __ATOMIC_RELAXED);
    return best;
}

static void give(struct th_loop *acceptor, struct th_newcomer n)
{
    struct th_loop *to = th_loop_pick(acceptor->front);
    if (to == acceptor) {
        take_newcomer(to, n);
        return;
    }
    (void)pthread_mutex_lock(&to->lock);
    to->inbox = th_xgrow(to->inbox, &to->inbox_cap, to->inbox_n + 1, sizeof(*to->inbox));
    to->inbox[to->inbox_n++] = n;
    (void)pthread_mutex_unlock(&to->lock);
    th_loop_poke(to);
}

static void accept_all(struct th_loop *l, int listener, bool is_unix)
{
    for (int i = 0; i < EVENTS; i++) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if ((errno == EMFILE || errno == ENFILE) && l->n_handshakes > 0) {
                /* Give back what stalls longest rather than leave everybody waiting. */
                th_conn_drop(l->handshakes.next);
            }
            return;
        }
        give(l, (struct th_newcomer){fd, is_unix});
    }
}

/* ---- the threads ---- */

void th_loop_poke(struct th_loop *l)
{
    uint64_t one = 1;
    (void)!write(l->wake, &one, sizeof(one));
}

static int timeout_of(const struct th_loop *l)
{
    int64_t at = l->turn_at_ms;
    if (l->ready_head || l->want_turn) {
        return 0;
    }
    if (l->n_handshakes > 0 && l->handshakes.next->deadline_ms < at) {
        at = l->handshakes.next->deadline_ms;
    }
    if (at == INT64_MAX) {
        return -1;
    }
    int64_t ms = at - th_mono_ms();
    return ms < 0 ? 0 : ms > 3600000 ? 3600000 : (int)ms;
}

/* What still stands in a list stays until it has been taken off there. */
static void bury(struct th_loop *l)
{
    struct th_tlsconn **at = &l->graveyard;
    while (*at) {
        struct th_tlsconn *c = *at;
        if (c->ready || __atomic_load_n(&c->woken, __ATOMIC_ACQUIRE)) {
            at = &c->next;
        } else {
            *at = c->next;
            th_conn_free(c);
        }
    }
}

static void run_ready(struct th_loop *l)
{
    struct th_tlsconn *list = l->ready_head;
    l->ready_head = NULL;
    l->ready_tail = &l->ready_head;
    while (list) {
        struct th_tlsconn *c = list;
        list = c->ready_next;
        c->ready = false;
        if (!c->dead) {
            th_relay_run(c);
        }
    }
}

/* What other threads have left here. */
static void on_wake(struct th_loop *l)
{
    struct th_tlsfront *f = l->front;
    uint64_t n;
    (void)!read(l->wake, &n, sizeof(n));
    l->want_turn = true;
    (void)pthread_mutex_lock(&l->lock);
    struct th_tlsconn *woken = l->woken;
    l->woken = NULL;
    l->woken_tail = &l->woken;
    struct th_newcomer *inbox = l->inbox;
    size_t inbox_n = l->inbox_n;
    struct th_tlsconn *dialed = l->dialed;
    l->dialed = NULL;
    l->inbox = NULL;
    l->inbox_n = l->inbox_cap = 0;
    (void)pthread_mutex_unlock(&l->lock);
    while (woken) {
        struct th_tlsconn *c = woken;
        woken = c->woken_next;
        __atomic_store_n(&c->woken, false, __ATOMIC_RELEASE);
        c->stream_in = true;
        th_conn_ready(c);
    }
    for (size_t i = 0; i < inbox_n; i++) {
        take_newcomer(l, inbox[i]);
    }
    free(inbox);
    th_tlsdial_begin(dialed);
    if (l->index == 0 && __atomic_load_n(&f->stop_accepting, __ATOMIC_ACQUIRE)) {
        int *all[] = {&f->listener, &f->unix_listener};
        for (size_t i = 0; i < TH_ARRAY_LEN(all); i++) {
            if (*all[i] >= 0) {
                (void)close(*all[i]);
                *all[i] = -1;
            }
        }
    }
}

static void on_event(struct th_loop *l, const struct epoll_event *ev)
{
    struct th_tlsfront *f = l->front;
    void *ptr = ev->data.ptr;
    if (ptr == &f->listener || ptr == &f->unix_listener) {
        accept_all(l, *(int *)ptr, ptr == &f->unix_listener);
    } else if (ptr == &l->wake) {
        on_wake(l);
    } else if (ptr == &l->turn_at_ms) {
        l->want_turn = true;
    } else {
        bool plain = ev->data.u64 & TH_TLS_PLAIN_BIT;
        struct th_tlsconn *c = (struct th_tlsconn *)(uintptr_t)(ev->data.u64 & ~TH_TLS_PLAIN_BIT);
        if (c->dead) {
            return;
        }
        if (plain) {
            th_relay_plain_event(c, ev->events);
        } else {
            th_relay_net_event(c, ev->events);
        }
        if (c->state == TH_CONN_HANDSHAKE) {
            shake(c);
        } else {
            th_conn_ready(c);
        }
    }
}

static void give_turn(struct th_loop *l)
{
    struct th_tlsfront *f = l->front;
    if (!l->want_turn && (l->turn_at_ms == INT64_MAX || th_mono_ms() < l->turn_at_ms)) {
        return;
    }
    l->want_turn = false;
    int ms = f->cb.turn ? 0 : -1;
    for (int i = 0; ms == 0 && i < TURNS; i++) {
        ms = f->cb.turn(f->cb.arg, l->index);
    }
    l->want_turn |= ms == 0;
    l->turn_at_ms = ms < 0 ? INT64_MAX : th_mono_ms() + ms;
}

static void round_of(struct th_loop *l, int timeout_ms)
{
    struct epoll_event ev[EVENTS];
    int n = epoll_wait(l->epoll, ev, EVENTS, timeout_ms);
    for (int i = 0; i < n; i++) {
        on_event(l, &ev[i]);
    }
    run_ready(l);
    give_turn(l);
    if (l->n_handshakes > 0) {
        int64_t now = th_mono_ms();
        while (l->n_handshakes > 0 && l->handshakes.next->deadline_ms <= now) {
            th_tlsdial_failed(l->handshakes.next, 0);
            th_conn_drop(l->handshakes.next);
        }
    }
    bury(l);
}

static void *run(void *arg)
{
    struct th_loop *l = arg;
    while (!__atomic_load_n(&l->front->stop, __ATOMIC_ACQUIRE)) {
        round_of(l, timeout_of(l));
    }
    l->want_turn = true;
    round_of(l, 0); /* answers that were made meanwhile */
    round_of(l, 0); /* and their way through TLS */
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
    if (r >= 0 && o->front_ca_pem) {
        gnutls_datum_t ca = {(unsigned char *)o->front_ca_pem, (unsigned)strlen(o->front_ca_pem)};
        r = gnutls_certificate_set_x509_trust_mem(f->cred, &ca, GNUTLS_X509_FMT_PEM);
        r = r >= 0 ? gnutls_x509_crt_init(&f->front_ca) : r;
        r = r >= 0 ? gnutls_x509_crt_import(f->front_ca, &ca, GNUTLS_X509_FMT_PEM) : r;
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

static int add_fd(struct th_loop *l, int fd, void *ptr)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = ptr};
    return epoll_ctl(l->epoll, EPOLL_CTL_ADD, fd, &ev);
}

static int start_loop(struct th_tlsfront *f, int index, struct th_err *err)
{
    struct th_loop *l = &f->loops[index];
    if (add_fd(l, l->wake, &l->wake) < 0 ||
        (f->cb.turn && add_fd(l, f->cb.turn_fd(f->cb.arg, index), &l->turn_at_ms) < 0) ||
        (index == 0 && f->listener >= 0 && add_fd(l, f->listener, &f->listener) < 0) ||
        (index == 0 && f->unix_listener >= 0 &&
         add_fd(l, f->unix_listener, &f->unix_listener) < 0) ||
        pthread_create(&l->thread, NULL, run, l) != 0) {
        return th_fail_errno(err, errno, TH_R_IO, "starting the API server's threads");
    }
    l->has_thread = true;
    char name[16];
    (void)snprintf(name, sizeof(name), "api-io-%d", index % 100);
    (void)pthread_setname_np(l->thread, name);
    return 0;
}

static void init_loop(struct th_tlsfront *f, int index)
{
    struct th_loop *l = &f->loops[index];
    l->front = f;
    l->index = index;
    l->epoll = epoll_create1(EPOLL_CLOEXEC);
    l->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    ring_init(&l->handshakes);
    ring_init(&l->relays);
    l->ready_tail = &l->ready_head;
    l->woken_tail = &l->woken;
    l->turn_at_ms = INT64_MAX;
    (void)pthread_mutex_init(&l->lock, NULL);
}

int th_tlsfront_start(const struct th_tlsfront_opts *o, struct th_tlsfront **ret,
                      struct th_err *err)
{
    struct th_tlsfront *f = TH_NEW(struct th_tlsfront);
    f->cb = *o;
    f->listener = -1;
    f->unix_listener = -1;
    f->n_loops = o->loops;
    f->loops = th_xcalloc((size_t)o->loops, sizeof(*f->loops));
    for (int i = 0; i < f->n_loops; i++) {
        init_loop(f, i);
    }
    int r = 0;
    if (o->ip) {
        r = load_credentials(f, o, err);
        f->listener = r < 0 ? r : listen_on(o->ip, o->port, &f->port, err);
        r = f->listener;
    }
    f->unix_listener = o->unix_listener;
    for (int i = 0; r >= 0 && i < f->n_loops; i++) {
        r = start_loop(f, i, err);
    }
    if (r < 0) {
        f->unix_listener = -1; /* the caller's still */
        th_tlsfront_free(f);
        return r;
    }
    *ret = f;
    return 0;
}

void th_tlsfront_want_turn(struct th_tlsfront *f, int loop)
{
    th_loop_poke(&f->loops[loop]);
}

int th_tlsfront_port(const struct th_tlsfront *f)
{
    return f->port;
}

void th_tlsfront_stop_accepting(struct th_tlsfront *f)
{
    __atomic_store_n(&f->stop_accepting, true, __ATOMIC_RELEASE);
    th_loop_poke(&f->loops[0]);
}

void th_tlsfront_stop(struct th_tlsfront *f)
{
    __atomic_store_n(&f->stop, true, __ATOMIC_RELEASE);
    for (int i = 0; i < f->n_loops; i++) {
        struct th_loop *l = &f->loops[i];
        if (l->has_thread) {
            th_loop_poke(l);
            (void)pthread_join(l->thread, NULL);
            l->has_thread = false;
        }
    }
}

static void free_loop(struct th_loop *l)
{
    th_tlsdial_begin(l->dialed);
    while (l->n_handshakes > 0) {
        th_conn_drop(l->handshakes.next);
    }
    while (l->n_relays > 0) {
        th_conn_drop(l->relays.next);
    }
    while (l->graveyard) {
        struct th_tlsconn *c = l->graveyard;
        l->graveyard = c->next;
        th_conn_free(c);
    }
    for (size_t i = 0; i < l->inbox_n; i++) {
        (void)close(l->inbox[i].fd);
    }
    free(l->inbox);
    (void)close(l->epoll);
    (void)close(l->wake);
    (void)pthread_mutex_destroy(&l->lock);
}

void th_tlsfront_free(struct th_tlsfront *f)
{
    if (!f) {
        return;
    }
    th_tlsfront_stop(f);
    for (int i = 0; i < f->n_loops; i++) {
        free_loop(&f->loops[i]);
    }
    if (f->listener >= 0) {
        (void)close(f->listener);
    }
    if (f->unix_listener >= 0) {
        (void)close(f->unix_listener);
    }
    if (f->cred) {
        gnutls_certificate_free_credentials(f->cred);
    }
    if (f->front_ca) {
        gnutls_x509_crt_deinit(f->front_ca);
    }
    if (f->priority) {
        gnutls_priority_deinit(f->priority);
    }
    free(f->loops);
    free(f);
}
