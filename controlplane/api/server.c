/* The HTTP server's frame: the loops, their connections, start and stop. libmicrohttpd runs under
 * the pipeline; only the server_*.c files know its functions.
 *
 * Each loop of the TLS front has a daemon of its own, without thread and listening socket: the loop
 * hands it connections (plain ends of TLS ones, and those of the Unix socket) and gives it its
 * turns. Who the peer is travels beside the connection: libmicrohttpd copies the address bytes it
 * is given, so an address with a pointer behind it brings our struct th_sconn to the connection's
 * first callback.
 *
 * Stopping: no connection may be suspended when the daemon is stopped, so first nothing new is
 * suspended, then every watch and stream is ended and resumed, the workers are drained, and then it
 * stops.
 *
 * Upstream serves HTTP/2, many requests on one connection; here a connection carries HTTP/1.1.
 */
#include "controlplane/api/server_priv.h"

#include "base/io.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/threadpool.h"

#include <errno.h>
#include <limits.h>
#include <sys/socket.h>

#define WORKERS 40 /* as many writes may share a group commit */
#define IDLE_TIMEOUT_S 300

/* What stands where libmicrohttpd expects an address. */
struct fake_address {
    struct sockaddr_in6 in6;
    struct th_sconn *conn;
};

/* ---- connections ---- */

static struct th_sconn *sconn_new(struct th_server *s, struct th_identity *cert, bool bad,
                                  bool is_unix)
{
    struct th_sconn *c = TH_NEW(struct th_sconn);
    c->refs = 1;
    c->server = s;
    c->cert = cert;
    c->bad_cert = bad;
    c->is_unix = is_unix;
    (void)pthread_mutex_init(&c->lock, NULL);
    return c;
}

static void sconn_unref(struct th_sconn *c)
{
    if (!c || __atomic_sub_fetch(&c->refs, 1, __ATOMIC_ACQ_REL) > 0) {
        return;
    }
    th_identity_unref(c->cert);
    (void)pthread_mutex_destroy(&c->lock);
    free(c);
}

/* Takes fd and one reference of c. */
static void hand_over(struct th_server *s, int loop, int fd, struct th_sconn *c)
{
    struct fake_address a = {.in6 = {.sin6_family = AF_INET6}, .conn = c};
    c->loop = loop;
    struct MHD_Daemon *d = s->sides[loop].daemon;
    if (MHD_add_connection(d, fd, (struct sockaddr *)&a, sizeof(a)) != MHD_YES) {
        th_debug("api", "connection refused", NULL); /* it closed fd */
        sconn_unref(c);
    }
}

static void *on_tls(void *arg, int loop, struct th_tlsconn *tls, int fd, struct th_identity *id,
                    bool bad_cert)
{
    struct th_server *s = arg;
    struct th_sconn *c = sconn_new(s, id, bad_cert, false);
    c->tls = tls;
    th_tlsconn_peer(tls, c->peer);
    __atomic_add_fetch(&c->refs, 1, __ATOMIC_RELAXED);
    hand_over(s, loop, fd, c);
    return c;
}

static void on_plain(void *arg, int loop, int fd)
{
    hand_over(arg, loop, fd, sconn_new(arg, NULL, false, true));
}

/* libmicrohttpd's own call takes back its signal in a turn that has already looked for resumed
 * connections; so it is made in the loop's thread, before the turn. */
void th_hreq_resume(struct th_hreq *h)
{
    struct th_server *s = h->server;
    int loop = h->conn->loop;
    struct th_server_side *side = &s->sides[loop];
    (void)pthread_mutex_lock(&side->lock);
    bool first = !side->resumed;
    h->resumed_next = NULL;
    *side->resumed_tail = h;
    side->resumed_tail = &h->resumed_next;
    (void)pthread_mutex_unlock(&side->lock);
    if (first) {
        th_tlsfront_want_turn(s->front, loop);
    }
}

static void resume_all(struct th_server_side *side)
{
    (void)pthread_mutex_lock(&side->lock);
    struct th_hreq *h = side->resumed;
    side->resumed = NULL;
    side->resumed_tail = &side->resumed;
    (void)pthread_mutex_unlock(&side->lock);
    while (h) {
        struct th_hreq *next = h->resumed_next;
        MHD_resume_connection(h->mhd);
        h = next;
    }
}

/* libmicrohttpd's turn in a loop. */
static int on_turn(void *arg, int loop)
{
    struct th_server *s = arg;
    struct th_server_side *side = &s->sides[loop];
    MHD_UNSIGNED_LONG_LONG ms = 0;
    resume_all(side);
    (void)MHD_run(side->daemon);
    if (MHD_get_timeout(side->daemon, &ms) != MHD_YES) {
        return -1;
    }
    return ms > INT_MAX ? INT_MAX : (int)ms;
}

static int turn_fd(void *arg, int loop)
{
    struct th_server *s = arg;
    return MHD_get_daemon_info(s->sides[loop].daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
}

static void on_gone(void *arg, void *token)
{
    (void)arg;
    struct th_sconn *c = token;
    (void)pthread_mutex_lock(&c->lock);
    c->gone = true;
    if (c->watching) {
        th_hreq_wake(c->watching);
    }
    (void)pthread_mutex_unlock(&c->lock);
}

static void on_release(void *arg, void *token)
{
    (void)arg;
    struct th_sconn *c = token;
    (void)pthread_mutex_lock(&c->lock);
    c->tls = NULL;
    (void)pthread_mutex_unlock(&c->lock);
    sconn_unref(c);
}

bool th_sconn_gone(struct th_sconn *c)
{
    (void)pthread_mutex_lock(&c->lock);
    bool gone = c->gone;
    (void)pthread_mutex_unlock(&c->lock);
    return gone;
}

static void on_connection(void *cls, struct MHD_Connection *conn, void **ctx,
                          enum MHD_ConnectionNotificationCode code)
{
    (void)cls;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *i =
            MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
        struct fake_address a;
        memcpy(&a, i->client_addr, sizeof(a));
        *ctx = a.conn;
    } else if (*ctx) {
        sconn_unref(*ctx);
        *ctx = NULL;
    }
}

/* ---- start and stop ---- */

static size_t keep_escapes(void *cls, struct MHD_Connection *mhd, char *s)
{
    (void)cls;
    (void)mhd;
    return strlen(s);
}

/* It complains about TCP options on socketpairs, three times a response. */
static void on_log(void *cls, const char *fmt, va_list ap)
{
    (void)cls;
    if (!th_log_enabled(TH_LOG_DEBUG, "http")) {
        return;
    }
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    th_autofree char *text = th_xvasprintf(fmt, ap);
#pragma GCC diagnostic pop
    if (!strstr(text, "TCP_") && !strstr(text, "ushing") && !strstr(text, "corked")) {
        th_debug("http", "libmicrohttpd", "text=%s", th_log_q(text));
    }
}

static struct MHD_Daemon *start_daemon(struct th_server *s)
{
    unsigned flags = MHD_USE_NO_LISTEN_SOCKET | MHD_USE_EPOLL | MHD_USE_ITC |
                     MHD_ALLOW_SUSPEND_RESUME | MHD_ALLOW_UPGRADE;
    if (th_log_enabled(TH_LOG_DEBUG, "http")) {
        flags |= MHD_USE_ERROR_LOG; /* it would make its texts for nobody */
    }
    return MHD_start_daemon(
        flags, 0, NULL, NULL, th_hreq_on_request, s, MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL,
        MHD_OPTION_URI_LOG_CALLBACK, th_hreq_on_uri, s, MHD_OPTION_NOTIFY_COMPLETED,
        th_hreq_on_completed, s, MHD_OPTION_NOTIFY_CONNECTION, on_connection, s,
        MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)TH_LIMIT_CONNECTIONS, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)TH_LIMIT_REQUEST_HEAD_B,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_TIMEOUT_S, MHD_OPTION_END);
}

static int listen_unix(struct th_server *s, const char *path, struct th_err *err)
{
    (void)unlink(path);
    int fd = th_io_unix_listen(path, 0600, 128, err);
    if (fd >= 0) {
        (void)th_io_set_nonblock(fd, true);
        s->unix_path = th_xstrdup(path);
    }
    return fd;
}

static void start_job(void *self, void (*fn)(void *arg), void *arg)
{
    struct th_server *s = self;
    th_pool_submit(s->pool, fn, arg);
}

int th_server_start(const struct th_server_opts *o, struct th_server **ret, struct th_err *err)
{
    struct th_server *s = TH_NEW(struct th_server);
    s->api = o->api;
    (void)pthread_mutex_init(&s->lock, NULL);
    s->pool = th_pool_new("api", WORKERS);
    th_flow_seats(th_api_flow(o->api), WORKERS, start_job, s);
    s->relay = th_relay_new();
    int r = 0;
    for (size_t i = 0; r >= 0 && i < TH_SERVER_LOOPS; i++) {
        struct th_server_side *side = &s->sides[i];
        (void)pthread_mutex_init(&side->lock, NULL);
        side->resumed_tail = &side->resumed;
        side->daemon = start_daemon(s);
        r = side->daemon ? 0 : th_fail_errno(err, errno, TH_R_INTERNAL, "starting the HTTP server");
    }
    th_autoclose int unix_fd = -1;
    if (r >= 0 && o->unix_socket) {
        r = unix_fd = listen_unix(s, o->unix_socket, err);
    }
    if (r >= 0) {
        struct th_tlsfront_opts fo = {.ip = o->listen_ip,
                                      .port = o->listen_port,
                                      .cert_pem = o->cert_pem,
                                      .key_pem = o->key_pem,
                                      .client_ca_pem = o->client_ca_pem,
                                      .unix_listener = unix_fd,
                                      .loops = TH_SERVER_LOOPS,
                                      .front_ca_pem = o->front_ca_pem,
                                      .fn = on_tls,
                                      .plain = on_plain,
                                      .gone = on_gone,
                                      .release = on_release,
                                      .turn = on_turn,
                                      .turn_fd = turn_fd,
                                      .arg = s};
        r = th_tlsfront_start(&fo, &s->front, err);
    }
    if (r < 0) {
        th_server_stop(s);
        return r;
    }
    unix_fd = -1; /* the front's */
    *ret = s;
    return 0;
}

int th_server_port(const struct th_server *s)
{
    return th_tlsfront_port(s->front);
}

void th_server_stop(struct th_server *s)
{
    if (!s) {
        return;
    }
    if (s->front) {
        th_tlsfront_stop_accepting(s->front);
    }
    (void)pthread_mutex_lock(&s->lock);
    s->stopping = true;
    for (struct th_hreq *h = s->watches; h; h = h->next) {
        (void)pthread_mutex_lock(&h->lock);
        h->ending = true;
        if (h->suspended) {
            h->suspended = false;
            th_hreq_resume(h);
        }
        (void)pthread_mutex_unlock(&h->lock);
    }
    (void)pthread_mutex_unlock(&s->lock);
    th_pool_free(s->pool);
    th_relay_free(s->relay);
    if (s->front) {
        th_tlsfront_stop(s->front);
    }
    for (size_t i = 0; i < TH_SERVER_LOOPS; i++) {
        if (s->sides[i].daemon) {
            resume_all(&s->sides[i]);
            MHD_stop_daemon(s->sides[i].daemon);
        }
    }
    th_tlsfront_free(s->front);
    if (s->unix_path) {
        (void)unlink(s->unix_path);
        free(s->unix_path);
    }
    (void)pthread_mutex_destroy(&s->lock);
    free(s);
}
