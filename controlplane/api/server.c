/* HTTP: libmicrohttpd under the pipeline. Only this file and server_body.c know its functions.
 *
 * Each loop of the TLS front has a daemon of its own, without thread and listening socket: the loop
 * hands it connections (plain ends of TLS ones, and those of the Unix socket) and gives it its turns. Who the peer is travels beside the connection: libmicrohttpd
 * copies the address bytes it is given, so an address with a pointer behind it brings our struct
 * sconn to the connection's first callback.
 *
 * A request's life:
 *   head      identity; requests that will be streamed to a node are routed now
 *   body      gathered up to TH_LIMIT_BODY_B
 *   handling  reads in the loop's thread; everything that may wait for a commit in a worker thread,
 *             with the connection suspended, so that many writers share one group commit
 *   answer    bytes, a stored revision shared with the store, or a watch
 *
 * A watch is a chunked answer whose reader hands out frames and suspends the connection when there
 * are none; the store's publisher resumes it. Under `lock` of the request: woken says that something
 * came since the reader looked, suspended that the connection sleeps. While it sleeps libmicrohttpd
 * does not look at its socket, so the TLS front tells us when the client has gone.
 *
 * Through TLS a watch goes past libmicrohttpd once that has sent the head: the front reads the frames
 * from us and sends each handful as one chunk in one record. libmicrohttpd sleeps until the watch is
 * over and then says the end. Thousands of watchers so cost a record each, no socketpair and no resuming.
 *
 * Stopping: no connection may be suspended when the daemon is stopped, so first nothing new is
 * suspended, then every watch is ended and resumed, the workers are drained, and then it stops.
 */
#include "controlplane/api/server.h"

#include "base/encode.h"
#include "base/io.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/threadpool.h"
#include "controlplane/api/flow.h"
#include "controlplane/api/server_body.h"
#include "controlplane/api/server_origin.h"
#include "controlplane/api/streams/relay.h"
#include "controlplane/api/streams/rewrite.h"
#include "controlplane/api/tlsfront.h"
#include "controlplane/api/watch.h"

#include <errno.h>
#include <limits.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <pthread.h>
#include <strings.h>
#include <sys/socket.h>

#define LOOPS 2
#define WORKERS 40 /* as many writes may share a group commit */
#define IDLE_TIMEOUT_S 300
#define DRAIN_B (64u << 20) /* a body up to this is read to its end before it is refused */

struct hreq;
struct sconn { /* one connection, as we know it; refs: the front and libmicrohttpd */
    uint32_t refs;
    struct th_server *server;
    struct th_identity *cert; /* of the client certificate, or NULL */
    bool bad_cert;
    bool is_unix;
    int loop;
    char peer[INET6_ADDRSTRLEN]; /* its address, or "" */
    pthread_mutex_t lock;     /* guards the rest; taken before a request's */
    struct hreq *watching;    /* woken when the client goes */
    struct th_tlsconn *tls;   /* while the front has it; NULL for the Unix socket */
    bool gone;
};

/* What stands where libmicrohttpd expects an address. */
struct fake_address {
    struct sockaddr_in6 in6;
    struct sconn *conn;
};

struct side { /* one loop of the front, as we use it */
    struct MHD_Daemon *daemon; /* runs in its thread */
    pthread_mutex_t lock;      /* guards the rest */
    struct hreq *resumed, **resumed_tail; /* to be resumed in its next turn */
};

struct th_server {
    struct th_api *api;
    struct side sides[LOOPS];
    struct th_tlsfront *front;
    struct th_pool *pool;
    struct th_relay *relay;
    char *unix_path;
    pthread_mutex_t lock;    /* guards stopping and the list of watches */
    bool stopping;
    struct hreq *watches;    /* all requests with a watch */
};

enum hreq_state {
    HREQ_HEAD,
    HREQ_BODY,
    HREQ_HANDLING,
    HREQ_ANSWER,
    HREQ_STREAM_ASKED, /* what the answer is was found in a worker */
    HREQ_STREAM,      /* the body goes to the node */
    HREQ_STREAM_REPLY /* its answer is waited for */
};

struct hreq {
    struct th_server *server;
    struct MHD_Connection *mhd;
    struct sconn *conn;
    char *uri;
    char method[16];
    enum hreq_state state;
    struct th_buf body;
    bool too_large;
    struct th_origin origin;
    struct th_aresp resp;
    bool gzip;
    struct th_flow_class flow;
    /* watch */
    struct hreq *prev, *next; /* in server->watches, under server->lock */
    bool listed;
    pthread_mutex_t lock;     /* guards the three below */
    bool woken, suspended, ending;
    struct th_str frame;      /* what is left of the frame at hand */
    bool direct;              /* atomic: it goes past libmicrohttpd */
    bool over;                /* it has ended; the loop's thread */
    struct hreq *resumed_next; /* under the side's lock */
    bool chunked;             /* the client knows chunks */
    /* stream */
    struct th_relay_stream *stream;
    struct th_html *html;     /* its answer is a page whose links are rewritten */
    struct th_buf page;       /* rewritten, not yet sent */
    bool page_end;
};

/* ---- connections ---- */

static struct sconn *sconn_new(struct th_server *s, struct th_identity *cert, bool bad, bool is_unix)
{
    struct sconn *c = TH_NEW(struct sconn);
    c->refs = 1;
    c->server = s;
    c->cert = cert;
    c->bad_cert = bad;
    c->is_unix = is_unix;
    (void)pthread_mutex_init(&c->lock, NULL);
    return c;
}

static void sconn_unref(struct sconn *c)
{
    if (!c || __atomic_sub_fetch(&c->refs, 1, __ATOMIC_ACQ_REL) > 0) {
        return;
    }
    th_identity_unref(c->cert);
    (void)pthread_mutex_destroy(&c->lock);
    free(c);
}

/* Takes fd and one reference of c. */
static void hand_over(struct th_server *s, int loop, int fd, struct sconn *c)
{
    struct fake_address a = {.in6 = {.sin6_family = AF_INET6}, .conn = c};
    c->loop = loop;
    if (MHD_add_connection(s->sides[loop].daemon, fd, (struct sockaddr *)&a, sizeof(a)) != MHD_YES) {
        th_debug("api", "connection refused", NULL); /* it closed fd */
        sconn_unref(c);
    }
}

static void *on_tls(void *arg, int loop, struct th_tlsconn *tls, int fd, struct th_identity *id,
                    bool bad_cert)
{
    struct th_server *s = arg;
    struct sconn *c = sconn_new(s, id, bad_cert, false);
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

/* Resumes a suspended request, from any thread. libmicrohttpd's own call takes back its signal in a turn
 * that has already looked for resumed connections; so it is made in the loop's thread, before the turn. */
static void resume(struct hreq *h)
{
    struct th_server *s = h->server;
    int loop = h->conn->loop;
    struct side *side = &s->sides[loop];
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

static void resume_all(struct side *side)
{
    (void)pthread_mutex_lock(&side->lock);
    struct hreq *h = side->resumed;
    side->resumed = NULL;
    side->resumed_tail = &side->resumed;
    (void)pthread_mutex_unlock(&side->lock);
    while (h) {
        struct hreq *next = h->resumed_next;
        MHD_resume_connection(h->mhd);
        h = next;
    }
}

/* libmicrohttpd's turn in a loop. */
static int on_turn(void *arg, int loop)
{
    struct th_server *s = arg;
    struct side *side = &s->sides[loop];
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

static void mhd_wake(struct hreq *h);

static void on_gone(void *arg, void *token)
{
    (void)arg;
    struct sconn *c = token;
    (void)pthread_mutex_lock(&c->lock);
    c->gone = true;
    if (c->watching) {
        mhd_wake(c->watching);
    }
    (void)pthread_mutex_unlock(&c->lock);
}

static void on_release(void *arg, void *token)
{
    (void)arg;
    struct sconn *c = token;
    (void)pthread_mutex_lock(&c->lock);
    c->tls = NULL;
    (void)pthread_mutex_unlock(&c->lock);
    sconn_unref(c);
}

static bool client_gone(struct sconn *c)
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


static const char *header(const struct hreq *h, const char *name)
{
    return MHD_lookup_connection_value(h->mhd, MHD_HEADER_KIND, name);
}

/* ---- watches ---- */

/* Has libmicrohttpd look at the request again. */
static void mhd_wake(struct hreq *h)
{
    (void)pthread_mutex_lock(&h->lock);
    h->woken = true;
    if (h->suspended) {
        h->suspended = false;
        resume(h);
    }
    (void)pthread_mutex_unlock(&h->lock);
}

/* From any thread: something has come for a watch or a stream. */
static void watch_wake(void *arg)
{
    struct hreq *h = arg;
    if (!__atomic_load_n(&h->direct, __ATOMIC_ACQUIRE)) {
        mhd_wake(h);
        return;
    }
    (void)pthread_mutex_lock(&h->conn->lock);
    if (h->conn->tls) {
        th_tlsfront_stream_wake(h->conn->tls);
    }
    (void)pthread_mutex_unlock(&h->conn->lock);
}

/* Sleeps until the next wake. False when one came meanwhile. */
static bool watch_sleep(struct hreq *h)
{
    bool slept = false;
    (void)pthread_mutex_lock(&h->lock);
    if (!h->woken && !h->ending) {
        h->suspended = true;
        MHD_suspend_connection(h->mhd);
        slept = true;
    }
    (void)pthread_mutex_unlock(&h->lock);
    return slept;
}

static bool watch_ending(struct hreq *h)
{
    (void)pthread_mutex_lock(&h->lock);
    h->woken = false;
    bool ending = h->ending;
    (void)pthread_mutex_unlock(&h->lock);
    return ending;
}

/* Fills buf with frames. *ret_end is th_apiwatch_next's answer when there are no more for now. */
static size_t watch_fill(struct hreq *h, char *buf, size_t max, int *ret_end)
{
    size_t n = 0;
    *ret_end = 1;
    while (n < max) {
        if (h->frame.n == 0) {
            *ret_end = th_apiwatch_next(h->resp.watch, &h->frame);
            if (*ret_end <= 0) {
                h->frame = (struct th_str){NULL, 0};
                break;
            }
        }
        size_t take = h->frame.n < max - n ? h->frame.n : max - n;
        memcpy(buf + n, h->frame.p, take);
        h->frame.p += take;
        h->frame.n -= take;
        n += take;
    }
    return n;
}

#define CHUNK_HEAD_MAX 8 /* six digits and the end of the line */
#define CHUNK_TAIL 2

/* A watch past libmicrohttpd: as many frames as fit make one chunk and one TLS record. */
static ssize_t direct_read(void *arg, char *buf, size_t max)
{
    struct hreq *h = arg;
    if (h->over || watch_ending(h)) {
        return -1;
    }
    if (max == 0) { /* the client does not read: is it cut off? */
        return th_apiwatch_cut(h->resp.watch) ? -1 : 0;
    }
    int more;
    size_t n = watch_fill(h, buf + CHUNK_HEAD_MAX, max - CHUNK_HEAD_MAX - CHUNK_TAIL, &more);
    if (more < 0) {
        h->over = true;
        mhd_wake(h); /* it says the end */
    }
    if (n == 0) {
        return more < 0 ? -1 : 0;
    }
    char head[CHUNK_HEAD_MAX + 1];
    size_t head_n = (size_t)snprintf(head, sizeof(head), "%zx\r\n", n);
    memcpy(buf, head, head_n);
    memmove(buf + head_n, buf + CHUNK_HEAD_MAX, n);
    memcpy(buf + head_n + n, "\r\n", CHUNK_TAIL);
    return (ssize_t)(head_n + n + CHUNK_TAIL);
}

/* libmicrohttpd has sent the head of a chunked answer through TLS: the rest goes past it. */
static void go_direct(struct hreq *h)
{
    struct sconn *c = h->conn;
    (void)pthread_mutex_lock(&c->lock);
    if (c->tls && h->chunked) {
        __atomic_store_n(&h->direct, true, __ATOMIC_RELEASE);
        th_tlsfront_stream(c->tls, direct_read, h);
    }
    (void)pthread_mutex_unlock(&c->lock);
}

static ssize_t watch_read(void *cls, uint64_t pos, char *buf, size_t max)
{
    struct hreq *h = cls;
    if (pos == 0 && !h->direct) {
        go_direct(h);
    }
    for (;;) {
        if (watch_ending(h) || client_gone(h->conn) || h->over) {
            return MHD_CONTENT_READER_END_OF_STREAM;
        }
        int more = 0;
        size_t n = h->direct ? 0 : watch_fill(h, buf, max, &more);
        if (n > 0) {
            if (more <= 0) { /* the next call must look again */
                (void)pthread_mutex_lock(&h->lock);
                h->woken = true;
                (void)pthread_mutex_unlock(&h->lock);
            }
            h->over = more < 0;
            return (ssize_t)n;
        }
        if (more < 0) {
            return MHD_CONTENT_READER_END_OF_STREAM;
        }
        if (watch_sleep(h)) {
            return 0;
        }
    }
}

/* Among those that are ended at stop. False when the server is stopping: nothing begins any more. */
static bool list_add(struct hreq *h)
{
    struct th_server *s = h->server;
    (void)pthread_mutex_lock(&s->lock);
    bool ok = !s->stopping;
    if (ok) {
        h->next = s->watches;
        if (h->next) {
            h->next->prev = h;
        }
        s->watches = h;
        h->listed = true;
    }
    (void)pthread_mutex_unlock(&s->lock);
    if (ok) {
        (void)pthread_mutex_lock(&h->conn->lock);
        h->conn->watching = h;
        (void)pthread_mutex_unlock(&h->conn->lock);
    }
    return ok;
}

static bool watch_begin(struct hreq *h)
{
    if (!list_add(h)) {
        return false;
    }
    th_apiwatch_attach(h->resp.watch, watch_wake, h);
    return true;
}

static void list_del(struct hreq *h)
{
    if (!h->listed) {
        return;
    }
    (void)pthread_mutex_lock(&h->conn->lock);
    h->conn->watching = NULL;
    if (h->direct && h->conn->tls) {
        th_tlsfront_stream(h->conn->tls, NULL, NULL);
    }
    (void)pthread_mutex_unlock(&h->conn->lock);
    struct th_server *s = h->server;
    (void)pthread_mutex_lock(&s->lock);
    if (h->next) {
        h->next->prev = h->prev;
    }
    if (h->prev) {
        h->prev->next = h->next;
    } else {
        s->watches = h->next;
    }
    h->listed = false;
    (void)pthread_mutex_unlock(&s->lock);
}

/* ---- answers ---- */

static void fail_with(struct hreq *h, const struct th_err *err)
{
    struct th_areq q = {
        .uri = h->uri, .accept = header(h, "Accept"), .user_agent = header(h, "User-Agent")};
    th_api_fail(&h->resp, &q, err);
}

static enum MHD_Result send_answer(struct hreq *h)
{
    h->state = HREQ_ANSWER;
    struct MHD_Response *r;
    if (h->resp.watch && !watch_begin(h)) {
        th_aresp_done(&h->resp);
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        (void)th_fail(&err, TH_R_UNAVAILABLE, "the server is shutting down");
        fail_with(h, &err);
    }
    if (h->resp.watch) {
        r = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 1024, watch_read, h, NULL);
    } else {
        r = th_server_body(&h->resp, h->gzip);
    }
    th_server_headers(r, &h->resp);
    (void)MHD_add_response_header(r, "Audit-Id", h->origin.audit_id);
    enum MHD_Result ok = MHD_queue_response(h->mhd, (unsigned)h->resp.status, r);
    MHD_destroy_response(r);
    return ok;
}

static enum MHD_Result send_error(struct hreq *h, const struct th_err *err)
{
    th_audit_failed(h->resp.audit, err);
    th_aresp_done(&h->resp);
    fail_with(h, err);
    if (err->reason == TH_R_UNAUTHORIZED) {
        th_strv_add(&h->resp.headers, "WWW-Authenticate: Bearer");
    }
    return send_answer(h);
}

/* ---- streams to nodes ---- */

static enum MHD_Result collect_header(void *cls, enum MHD_ValueKind kind, const char *key,
                                      const char *value)
{
    (void)kind;
    static const char *const dropped[] = {"Host",           "Connection",     "Authorization",
                                          "Content-Length", "Keep-Alive",     "Transfer-Encoding",
                                          "Expect",         "Accept-Encoding"};
    if (strncasecmp(key, "Impersonate-", 12) == 0 || strncasecmp(key, "X-Remote-", 9) == 0) {
        return MHD_YES;
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(dropped); i++) {
        if (strcasecmp(key, dropped[i]) == 0) {
            return MHD_YES;
        }
    }
    th_strv_addf(cls, "%s: %s", key, value ? value : "");
    return MHD_YES;
}

static int stream_begin(struct hreq *h, struct th_err *err)
{
    if (!list_add(h)) {
        return th_fail(err, TH_R_UNAVAILABLE, "the server is shutting down");
    }
    th_autostrv struct th_strv headers = TH_STRV_INIT;
    (void)MHD_get_connection_values(h->mhd, MHD_HEADER_KIND, collect_header, &headers);
    const char *length = header(h, "Content-Length");
    struct th_relay_req q = {
        .target = h->resp.stream,
        .method = h->method,
        .headers = &headers,
        .host = header(h, "Host"),
        .upgrade = header(h, "Upgrade") != NULL,
        .length = header(h, "Transfer-Encoding") ? -1 : length ? strtoll(length, NULL, 10) : 0,
        .wake = watch_wake,
        .arg = h,
    };
    TH_TRY(th_relay_open(h->server->relay, &q, &h->stream, err));
    h->state = HREQ_STREAM;
    return 0;
}

/* Forgets that something came, before looking whether there is something. */
static bool still_wanted(struct hreq *h)
{
    (void)pthread_mutex_lock(&h->lock);
    h->woken = false;
    bool ending = h->ending;
    (void)pthread_mutex_unlock(&h->lock);
    return !ending && !client_gone(h->conn);
}

/* As th_relay_read, of a page with its links rewritten. */
static ssize_t page_read(struct hreq *h, char *buf, size_t max)
{
    char raw[8192];
    while (h->page.n == 0 && !h->page_end) {
        ssize_t n = th_relay_read(h->stream, raw, sizeof(raw));
        if (n == 0 || n == -2) {
            return n;
        }
        h->page_end = n < 0;
        th_html_feed(h->html, raw, n > 0 ? (size_t)n : 0, h->page_end, &h->page);
    }
    if (h->page.n == 0) {
        return -1;
    }
    size_t n = h->page.n < max ? h->page.n : max;
    memcpy(buf, h->page.p, n);
    th_buf_consume(&h->page, n);
    return (ssize_t)n;
}

static ssize_t stream_read(void *cls, uint64_t pos, char *buf, size_t max)
{
    (void)pos;
    struct hreq *h = cls;
    for (;;) {
        if (!still_wanted(h)) {
            return MHD_CONTENT_READER_END_WITH_ERROR;
        }
        ssize_t n = h->html ? page_read(h, buf, max) : th_relay_read(h->stream, buf, max);
        if (n > 0) {
            return n;
        }
        if (n < 0) {
            return n == -1 ? MHD_CONTENT_READER_END_OF_STREAM : MHD_CONTENT_READER_END_WITH_ERROR;
        }
        if (watch_sleep(h)) {
            return 0;
        }
    }
}

/* What closes an upgraded connection, after its request is gone. */
struct upgraded {
    struct MHD_UpgradeResponseHandle *urh;
    struct th_server *server;
    int loop;
};

static void upgrade_done(void *arg)
{
    struct upgraded *u = arg;
    (void)MHD_upgrade_action(u->urh, MHD_UPGRADE_ACTION_CLOSE);
    th_tlsfront_want_turn(u->server->front, u->loop);
    free(u);
}

static void on_upgrade(void *cls, struct MHD_Connection *mhd, void *ctx, const char *extra,
                       size_t extra_n, MHD_socket sock, struct MHD_UpgradeResponseHandle *urh)
{
    (void)mhd;
    (void)ctx;
    struct hreq *h = cls;
    struct upgraded *u = TH_NEW(struct upgraded);
    *u = (struct upgraded){urh, h->server, h->conn->loop};
    th_relay_pump(th_steal(&h->stream), sock, extra, extra_n, upgrade_done, u);
}

/* The headers of a proxied answer as the client is to see them. True when it is a page whose links
 * have to be rewritten. */
static bool show_headers(const struct th_rewrite *w, const struct th_strv *headers,
                         struct th_strv *ret)
{
    bool html = false, encoded = false, moved = false;
    for (size_t i = 0; i < headers->n; i++) {
        const char *line = headers->v[i];
        const char *value = strchr(line, ':');
        value = value ? value + 1 + strspn(value + 1, " ") : "";
        if (w && strncasecmp(line, "Access-Control-Allow-", 21) == 0) {
            continue; /* who may read the API server's answers is not for the peer to say */
        }
        if (w && strncasecmp(line, "Location:", 9) == 0) {
            th_autofree char *url = th_rewrite_url(w, value);
            th_strv_addf(ret, "Location: %s", url);
            moved = true;
            continue;
        }
        html = html || (strncasecmp(line, "Content-Type:", 13) == 0 &&
                        strncasecmp(value, "text/html", 9) == 0);
        encoded = encoded || strncasecmp(line, "Content-Encoding:", 17) == 0;
        th_strv_add(ret, line);
    }
    return w && html && !encoded && !moved;
}

static enum MHD_Result stream_answer(struct hreq *h)
{
    struct MHD_Response *r;
    int status = th_relay_status(h->stream);
    const struct th_stream_target *t = h->resp.stream;
    const struct th_rewrite w = {t->prefix, t->who, header(h, "Host")};
    struct th_aresp shown = TH_ARESP_INIT;
    bool html = show_headers(t->prefix ? &w : NULL, th_relay_headers(h->stream), &shown.headers);
    if (status == 101) {
        r = MHD_create_response_for_upgrade(on_upgrade, h);
    } else {
        int64_t length = html ? -1 : th_relay_length(h->stream);
        h->html = html ? th_html_new(&w) : NULL;
        r = MHD_create_response_from_callback(length < 0 ? MHD_SIZE_UNKNOWN : (uint64_t)length,
                                              1024, stream_read, h, NULL);
    }
    th_server_headers(r, &shown);
    (void)MHD_add_response_header(r, "Audit-Id", h->origin.audit_id);
    th_audit_started(h->resp.audit, status);
    th_aresp_done(&shown);
    h->state = HREQ_ANSWER;
    enum MHD_Result ok = MHD_queue_response(h->mhd, (unsigned)status, r);
    MHD_destroy_response(r);
    return ok;
}

static enum MHD_Result stream_failed(struct hreq *h, struct th_err *err)
{
    const struct th_stream_target *t = h->resp.stream;
    th_autofree char *msg = th_xstrdup(err->msg);
    if (t->ip || h->stream) {
        (void)th_fail(err, TH_R_UNAVAILABLE, "%s: %s",
                      t->ip ? "error trying to reach service" : t->who, msg);
    }
    if (!t->plain_errors) {
        return send_error(h, err);
    }
    th_audit_failed(h->resp.audit, err);
    th_aresp_done(&h->resp);
    h->resp.status = 503;
    h->resp.content_type = "text/plain; charset=utf-8";
    th_strv_add(&h->resp.headers, "X-Content-Type-Options: nosniff");
    th_buf_printf(&h->resp.body, "%s\n", err->msg);
    return send_answer(h);
}

/* The body is through: wait for the head of the answer. */
static enum MHD_Result stream_reply(struct hreq *h)
{
    for (;;) {
        if (!still_wanted(h)) {
            return MHD_NO;
        }
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        int r = th_relay_finish(h->stream) > 0 ? th_relay_head(h->stream, &err) : 0;
        if (r < 0) {
            return stream_failed(h, &err);
        }
        if (r > 0) {
            return stream_answer(h);
        }
        if (watch_sleep(h)) {
            return MHD_YES;
        }
    }
}

static enum MHD_Result stream_body(struct hreq *h, const char *data, size_t *data_n)
{
    while (*data_n > 0) {
        if (!still_wanted(h)) {
            return MHD_NO;
        }
        size_t n = th_relay_write(h->stream, data, *data_n);
        data += n;
        *data_n -= n;
        if (n == 0 && watch_sleep(h)) {
            return MHD_YES;
        }
    }
    return MHD_YES;
}

/* ---- requests ---- */

static void make_areq(struct hreq *h, struct th_areq *q)
{
    *q = (struct th_areq){
        .method = h->method,
        .uri = h->uri,
        .body = th_buf_str(&h->body),
        .content_type = header(h, "Content-Type"),
        .accept = header(h, "Accept"),
        .user_agent = header(h, "User-Agent"),
        .if_none_match = header(h, "If-None-Match"),
        .upgrade = header(h, "Upgrade") != NULL,
        .id = h->origin.id,
        .audit_id = h->origin.audit_id,
        .sources = &h->origin.sources,
        .received_us = h->origin.received_us,
    };
}

static void handle(struct hreq *h)
{
    struct th_areq q;
    make_areq(h, &q);
    th_api_handle(h->server->api, &q, &h->resp);
}

static void handle_in_worker(void *arg)
{
    struct hreq *h = arg;
    struct th_flow *flow = th_api_flow(h->server->api);
    struct th_flow_class c = h->flow; /* h may be gone once it is resumed */
    handle(h);
    resume(h);
    th_flow_finish(flow, &c);
}

static void start_job(void *self, void (*fn)(void *arg), void *arg)
{
    struct th_server *s = self;
    th_pool_submit(s->pool, fn, arg);
}

static enum MHD_Result handle_body(struct hreq *h)
{
    if (h->too_large) {
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        (void)th_fail(&err, TH_R_TOO_LARGE, "Request entity too large: limit is %u",
                      TH_LIMIT_BODY_B);
        return send_error(h, &err);
    }
    struct th_areq q;
    make_areq(h, &q);
    struct th_server *s = h->server;
    bool quick = th_api_is_quick(s->api, &q);
    h->state = HREQ_HANDLING;
    if (quick) {
        handle(h);
        return send_answer(h);
    }
    th_api_flow_class(s->api, &q, &h->flow);
    (void)pthread_mutex_lock(&s->lock);
    bool inline_ = s->stopping;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    int r = 0;
    if (!inline_) {
        MHD_suspend_connection(h->mhd);
        r = th_flow_submit(th_api_flow(s->api), &h->flow, handle_in_worker, h, &err);
        if (r < 0) {
            resume(h);
        }
    }
    (void)pthread_mutex_unlock(&s->lock);
    if (r < 0) {
        th_api_fail(&h->resp, &q, &err);
        return MHD_YES; /* resumed: it is sent by the next call */
    }
    if (inline_) {
        handle(h);
        return send_answer(h);
    }
    return MHD_YES;
}

static enum MHD_Result stream_data(struct hreq *h, const char *data, size_t *data_n)
{
    if (*data_n > 0) {
        return stream_body(h, data, data_n);
    }
    h->state = HREQ_STREAM_REPLY;
    return stream_reply(h);
}

static enum MHD_Result stream_or_answer(struct hreq *h)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (!h->resp.stream) {
        return send_answer(h);
    }
    return stream_begin(h, &err) < 0 ? stream_failed(h, &err) : MHD_YES;
}

static void handle_stream_in_worker(void *arg)
{
    struct hreq *h = arg;
    handle(h);
    resume(h);
}

/* A webhook may be asked about the connection: that is for a worker. False when nobody is. */
static bool stream_ask(struct hreq *h)
{
    struct th_server *s = h->server;
    if (!th_api_asks_before_streams(s->api)) {
        return false;
    }
    (void)pthread_mutex_lock(&s->lock);
    bool ok = !s->stopping;
    if (ok) {
        h->state = HREQ_STREAM_ASKED;
        MHD_suspend_connection(h->mhd);
        th_pool_submit(s->pool, handle_stream_in_worker, h);
    }
    (void)pthread_mutex_unlock(&s->lock);
    return ok;
}

static enum MHD_Result begin(struct hreq *h, const char *method)
{
    (void)snprintf(h->method, sizeof(h->method), "%s", method);
    const union MHD_ConnectionInfo *i =
        MHD_get_connection_info(h->mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    h->conn = i->socket_context;
    h->state = HREQ_BODY;
    const char *encoding = header(h, "Accept-Encoding");
    h->gzip = encoding && strstr(encoding, "gzip");
    struct th_areq q;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    const struct sconn *c = h->conn;
    struct th_origin_peer peer = {c->is_unix, c->bad_cert, c->cert, c->peer};
    th_origin_read(h->mhd, &peer, &h->origin);
    make_areq(h, &q);
    if (th_origin_identify(h->server->api, h->mhd, &peer, &q, &h->origin, &err) < 0) {
        return send_error(h, &err);
    }
    q.id = h->origin.id;
    const char *length = header(h, "Content-Length");
    if (length && strtoull(length, NULL, 10) > TH_LIMIT_BODY_B) {
        h->too_large = true; /* unless it turns out to be streamed */
    }
    if (th_api_is_stream(h->server->api, &q)) {
        h->too_large = false;
        if (stream_ask(h)) {
            return MHD_YES;
        }
        handle(h);
        return stream_or_answer(h);
    }
    bool hopeless = h->too_large && strtoull(length, NULL, 10) > DRAIN_B;
    return hopeless ? handle_body(h) : MHD_YES;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *mhd, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *data_n, void **ctx)
{
    (void)cls;
    (void)url;
    struct hreq *h = *ctx;
    switch (h->state) {
    case HREQ_HEAD:
        h->mhd = mhd;
        h->chunked = th_streq(version, MHD_HTTP_VERSION_1_1);
        return begin(h, method);
    case HREQ_BODY:
        if (*data_n > 0) {
            if (h->body.n + *data_n > TH_LIMIT_BODY_B) {
                h->too_large = true;
            } else if (!h->too_large) {
                th_buf_add(&h->body, data, *data_n);
            }
            *data_n = 0;
            return MHD_YES;
        }
        return handle_body(h);
    case HREQ_HANDLING:
        return send_answer(h);
    case HREQ_STREAM_ASKED: {
        enum MHD_Result r = stream_or_answer(h);
        if (h->state != HREQ_STREAM) {
            *data_n = 0;
            return r;
        }
        return stream_data(h, data, data_n);
    }
    case HREQ_STREAM:
        return stream_data(h, data, data_n);
    case HREQ_STREAM_REPLY:
        return stream_reply(h);
    default:
        *data_n = 0; /* the answer stands: what still comes is not wanted */
        return MHD_YES;
    }
}

/* The first that is known of a request: its raw target. */
static void *on_uri(void *cls, const char *uri, struct MHD_Connection *mhd)
{
    struct hreq *h = TH_NEW(struct hreq);
    h->server = cls;
    h->mhd = mhd;
    h->uri = th_xstrdup(uri);
    (void)pthread_mutex_init(&h->lock, NULL);
    return h;
}

static void on_completed(void *cls, struct MHD_Connection *mhd, void **ctx,
                         enum MHD_RequestTerminationCode code)
{
    (void)cls;
    (void)mhd;
    (void)code;
    struct hreq *h = *ctx;
    *ctx = NULL;
    if (!h) {
        return;
    }
    list_del(h);
    th_relay_close(h->stream);
    th_html_free(h->html);
    th_buf_done(&h->page);
    th_aresp_done(&h->resp);
    th_origin_done(&h->origin);
    th_buf_done(&h->body);
    (void)pthread_mutex_destroy(&h->lock);
    free(h->uri);
    free(h);
}

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
        flags, 0, NULL, NULL, on_request, s, MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL,
        MHD_OPTION_URI_LOG_CALLBACK, on_uri, s, MHD_OPTION_NOTIFY_COMPLETED, on_completed, s,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, s, MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes,
        NULL, MHD_OPTION_CONNECTION_LIMIT, (unsigned)TH_LIMIT_CONNECTIONS,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)TH_LIMIT_REQUEST_HEAD_B,
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

int th_server_start(const struct th_server_opts *o, struct th_server **ret, struct th_err *err)
{
    struct th_server *s = TH_NEW(struct th_server);
    s->api = o->api;
    (void)pthread_mutex_init(&s->lock, NULL);
    s->pool = th_pool_new("api", WORKERS);
    th_flow_seats(th_api_flow(o->api), WORKERS, start_job, s);
    s->relay = th_relay_new();
    int r = 0;
    for (size_t i = 0; r >= 0 && i < LOOPS; i++) {
        struct side *side = &s->sides[i];
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
                                      .loops = LOOPS,
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
    for (struct hreq *h = s->watches; h; h = h->next) {
        (void)pthread_mutex_lock(&h->lock);
        h->ending = true;
        if (h->suspended) {
            h->suspended = false;
            resume(h);
        }
        (void)pthread_mutex_unlock(&h->lock);
    }
    (void)pthread_mutex_unlock(&s->lock);
    th_pool_free(s->pool);
    th_relay_free(s->relay);
    if (s->front) {
        th_tlsfront_stop(s->front);
    }
    for (size_t i = 0; i < LOOPS; i++) {
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
