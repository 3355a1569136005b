/* port-forward: connections from a client's machine into a pod's network namespace.
 *
 * The client speaks SPDY/3.1, either bare or inside the messages of a WebSocket (subprotocol
 * SPDY/3.1+portforward.k8s.io); the frames are the same. For each connection it opens two streams
 * with the headers streamtype (data, error), port and requestid, which makes them a pair. A pair is
 * a thread here: it connects to 127.0.0.1:port inside the pod and moves bytes until both sides are
 * done; what goes wrong is said in words on the error stream.
 *
 * Client libraries that know no SPDY (Python, Java, JavaScript) use a plain WebSocket instead: the
 * ports are in the query, each has a channel for data and one for errors, and there is one
 * connection per port.
 *
 *   session thread: reads frames, makes pairs, puts data into a pair's buffer and wakes it
 *   pair thread:    owns its socket; sends data frames itself
 *
 * A full buffer stops the session's reading: one pair that does not read holds the others up, as it
 * does in upstream's, whose streams have no flow control of their own either. */
#include "base/clock.h"
#include "base/io.h"
#include "base/limits.h"
#include "base/log.h"
#include "vm/node/server.h"
#include "vm/node/spdy.h"
#include "vm/node/ws.h"

#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#define CHANNELS "v4.channel.k8s.io"
#define CONNECT_MS 10000
#define BUFFER_B (256u << 10)
#define LINGER_MS 5000 /* for the client's end, after the pod's */

struct pair {
    struct session *s;
    struct pair *next;
    char *request;
    uint32_t data_id, error_id;
    int port;
    pthread_t thread;
    bool started;
    int wake;
    pthread_mutex_t mu; /* guards the rest */
    pthread_cond_t room;
    struct th_buf to_pod;
    bool client_done, dead, finished;
};

struct session {
    struct agent *a;
    struct pod *p;
    char *netns;              /* NULL: the node's own */
    bool spdy_bare, channels; /* channels: a WebSocket without SPDY, ports are fixed at the start */
    int64_t ports[16];
    size_t n_ports;
    struct ws ws;
    struct spdy spdy; /* the session thread's */
    struct pair *pairs;
    size_t n_pairs;
    bool open;
    struct MHD_UpgradeResponseHandle *urh;
};

/* ---- one connection ---- */

static void nudge(struct pair *q)
{
    uint64_t one = 1;
    (void)!write(q->wake, &one, sizeof(one));
}

static void send_data(struct session *s, uint32_t stream, bool fin, const void *p, size_t n)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    if (s->channels) {
        unsigned char ch = (unsigned char)stream;
        (void)(n == 0 ||
               ws_send(&s->ws, WS_BINARY, &ch, 1, p, n)); /* channels have no end of their own */
        return;
    }
    spdy_put_data(&b, stream, fin, p, n);
    (void)ws_send(&s->ws, WS_BINARY, NULL, 0, b.p, b.n);
}

static int connect_pod(struct pair *q, struct th_err *err)
{
    const char *ns = q->s->netns ? q->s->netns : "/proc/self/ns/net";
    TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
    int fd = th_net_pod_connect(ns, q->port, CONNECT_MS, &e);
    if (fd >= 0) {
        return fd;
    }
    const char *why = e.sys_errno == ECONNREFUSED ? "connect: connection refused"
                      : e.sys_errno == ETIMEDOUT  ? "i/o timeout"
                                                  : e.msg;
    return th_fail(
        err, e.reason,
        "error forwarding port %d to pod %s, uid %s: failed to connect to localhost:%d inside "
        "namespace \"%s\": dial tcp4 127.0.0.1:%d: %s",
        q->port, q->s->p->name, q->s->p->uid, q->port, ns, q->port, why);
}

/* Writes what waits for the pod. false: it takes no more. */
static bool to_pod(struct pair *q, int fd)
{
    bool ok = true;
    pthread_mutex_lock(&q->mu);
    while (q->to_pod.n > 0) {
        ssize_t w = send(fd, q->to_pod.p, q->to_pod.n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (w <= 0) {
            ok = w < 0 && (errno == EAGAIN || errno == EINTR);
            break;
        }
        th_buf_consume(&q->to_pod, (size_t)w);
    }
    if (!ok) {
        th_buf_clear(&q->to_pod);
    }
    pthread_cond_signal(&q->room);
    pthread_mutex_unlock(&q->mu);
    return ok;
}

static bool from_pod(struct pair *q, int fd)
{
    char buf[32768];
    ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return true;
    }
    if (n > 0) {
        send_data(q->s, q->data_id, false, buf, (size_t)n);
    }
    return n > 0;
}

static void move(struct pair *q, int fd)
{
    bool shut = false, pod_done = false;
    int64_t until = INT64_MAX;
    while (th_mono_ms() < until) {
        pthread_mutex_lock(&q->mu);
        bool waiting = q->to_pod.n > 0, client_done = q->client_done, dead = q->dead;
        pthread_mutex_unlock(&q->mu);
        if (dead || (pod_done && client_done)) {
            return;
        }
        if (client_done && !waiting && !shut) {
            (void)shutdown(fd, SHUT_WR);
            shut = true;
        }
        struct pollfd p[2] = {
            {.fd = pod_done && !waiting ? -1 : fd,
             .events = (short)((pod_done ? 0 : POLLIN) | (waiting ? POLLOUT : 0))},
            {.fd = q->wake, .events = POLLIN}};
        if (poll(p, 2, 1000) < 0 && errno != EINTR) {
            return;
        }
        uint64_t drop;
        if (p[1].revents) {
            (void)!read(q->wake, &drop, sizeof(drop));
        }
        if (waiting && (p[0].revents & (POLLOUT | POLLERR | POLLHUP)) && !to_pod(q, fd)) {
            pthread_mutex_lock(&q->mu);
            q->client_done = true; /* nothing more is taken */
            pthread_mutex_unlock(&q->mu);
        }
        if (!pod_done && (p[0].revents & (POLLIN | POLLERR | POLLHUP)) && !from_pod(q, fd)) {
            pod_done = true;
            send_data(q->s, q->data_id, true, "", 0);
            send_data(q->s, q->error_id, true, "", 0);
            until = th_mono_ms() + LINGER_MS;
        }
    }
}

static void *pair_thread(void *arg)
{
    struct pair *q = arg;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    th_autoclose int fd = connect_pod(q, &err);
    if (fd >= 0) {
        move(q, fd);
    } else {
        send_data(q->s, q->error_id, true, err.msg, strlen(err.msg));
        send_data(q->s, q->data_id, true, "", 0);
    }
    pthread_mutex_lock(&q->mu);
    q->finished = true;
    th_buf_clear(&q->to_pod);
    pthread_cond_signal(&q->room);
    pthread_mutex_unlock(&q->mu);
    return NULL;
}

static void pair_free(struct pair *q)
{
    if (q->started) {
        pthread_join(q->thread, NULL);
    }
    close(q->wake);
    pthread_mutex_destroy(&q->mu);
    pthread_cond_destroy(&q->room);
    th_buf_done(&q->to_pod);
    free(q->request);
    free(q);
}

/* ---- the session ---- */

static struct pair *pair_of(struct session *s, uint32_t stream)
{
    struct pair *q = s->pairs;
    while (q && q->data_id != stream && q->error_id != stream) {
        q = q->next;
    }
    return q;
}

static void drop_finished(struct session *s, bool all)
{
    for (struct pair **at = &s->pairs; *at;) {
        struct pair *q = *at;
        pthread_mutex_lock(&q->mu);
        q->dead = q->dead || all;
        bool done = q->finished || !q->started;
        pthread_mutex_unlock(&q->mu);
        if (all) {
            nudge(q);
        }
        if (all || (done && q->started)) {
            *at = q->next;
            s->n_pairs--;
            pair_free(q);
        } else {
            at = &q->next;
        }
    }
}

static struct pair *pair_get(struct session *s, const char *request)
{
    for (struct pair *q = s->pairs; q; q = q->next) {
        if (th_streq(q->request, request) && !q->started) {
            return q;
        }
    }
    if (s->n_pairs >= TH_LIMIT_FORWARDS) {
        return NULL;
    }
    struct pair *q = TH_NEW(struct pair);
    q->s = s;
    q->request = th_xstrdup(request);
    q->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_mutex_init(&q->mu, NULL);
    pthread_cond_init(&q->room, NULL);
    q->next = s->pairs;
    s->pairs = q;
    s->n_pairs++;
    return q;
}

static void on_syn(struct session *s, const struct spdy_frame *f)
{
    th_autobuf struct th_buf out = TH_BUF_INIT;
    const char *type = spdy_header(f, "streamtype"), *port = spdy_header(f, "port");
    const char *request = spdy_header(f, "requestid");
    bool data = th_streq(type, "data");
    char *end = NULL;
    long number = port && *port ? strtol(port, &end, 10) : 0;
    bool valid = (data || th_streq(type, "error")) && number > 0 && number < 65536 && !*end;
    char made[16]; /* clients before requestid: the error stream comes right before its data stream
                    */
    (void)snprintf(made, sizeof(made), "%u", data ? f->stream - 2 : f->stream);
    struct pair *q = valid ? pair_get(s, request ? request : made) : NULL;
    uint32_t *id = q ? data ? &q->data_id : &q->error_id : NULL;
    if (!q || *id != 0) {
        spdy_put_rst(&out, f->stream, SPDY_REFUSED_STREAM);
    } else {
        *id = f->stream;
        q->port = (int)number;
        spdy_put_reply(&s->spdy, &out, f->stream);
    }
    (void)ws_send(&s->ws, WS_BINARY, NULL, 0, out.p, out.n);
    if (q && q->data_id && q->error_id && !q->started) {
        q->started = pthread_create(&q->thread, NULL, pair_thread, q) == 0;
    }
}

static void on_data(struct session *s, const struct spdy_frame *f)
{
    struct pair *q = pair_of(s, f->stream);
    if (!q || q->data_id != f->stream) {
        return; /* the client closes its side of the error stream at once; ended pairs are forgotten
                 */
    }
    pthread_mutex_lock(&q->mu);
    while (q->to_pod.n > BUFFER_B && !q->finished && !q->client_done && q->started) {
        pthread_cond_wait(&q->room, &q->mu);
    }
    if (!q->finished && !q->client_done) {
        th_buf_add(&q->to_pod, f->p, f->n);
    }
    q->client_done = q->client_done || f->fin || f->kind == SPDY_RST;
    q->dead = q->dead || f->kind == SPDY_RST;
    pthread_mutex_unlock(&q->mu);
    nudge(q);
}

/* Two channels for each port, data and error; the first message of each is the port, 16 bits, the
 * lower byte first. */
static void open_channels(struct session *s)
{
    for (size_t i = 0; i < s->n_ports; i++) {
        char name[24];
        (void)snprintf(name, sizeof(name), "%zu", i);
        struct pair *q = pair_get(s, name);
        q->data_id = (uint32_t)(2 * i);
        q->error_id = (uint32_t)(2 * i + 1);
        q->port = (int)s->ports[i];
        const char port[2] = {(char)q->port, (char)(q->port >> 8)};
        send_data(s, q->data_id, false, port, 2);
        send_data(s, q->error_id, false, port, 2);
        q->started = pthread_create(&q->thread, NULL, pair_thread, q) == 0;
    }
}

/* false: the client has gone, or all connections have ended. */
static bool take_messages(struct session *s)
{
    th_autobuf struct th_buf m = TH_BUF_INIT;
    int op = 0, r;
    while ((r = ws_next(&s->ws, &op, &m)) > 0) {
        if (m.n > 1) {
            struct spdy_frame f = {
                .kind = SPDY_DATA, .stream = (unsigned char)m.p[0], .p = m.p + 1, .n = m.n - 1};
            on_data(s, &f);
        }
    }
    if (r == 0 && s->n_pairs == 0) {
        (void)ws_close(&s->ws, 1000, "");
        return false;
    }
    return r == 0;
}

/* false: the client has gone, or speaks something else. */
static bool take_frames(struct session *s)
{
    th_autobuf struct th_buf m = TH_BUF_INIT;
    int op = 0, r;
    while ((r = ws_next(&s->ws, &op, &m)) > 0) {
        spdy_feed(&s->spdy, m.p, m.n);
    }
    if (r < 0) {
        return false;
    }
    struct spdy_frame f;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    while ((r = spdy_next(&s->spdy, &f, &err)) > 0) {
        if (f.kind == SPDY_SYN_STREAM) {
            on_syn(s, &f);
        } else if (f.kind == SPDY_DATA || f.kind == SPDY_RST) {
            on_data(s, &f);
        } else if (f.kind == SPDY_PING) {
            th_autobuf struct th_buf out = TH_BUF_INIT;
            spdy_put_ping(&out, f.value);
            (void)ws_send(&s->ws, WS_BINARY, NULL, 0, out.p, out.n);
        }
        spdy_frame_done(&f);
    }
    if (r < 0) {
        th_warn(NODE_MOD, "port-forward ended", "err=%s", th_log_q(err.msg));
    }
    return r == 0;
}

static void session_free(struct session *s)
{
    if (s->open) {
        drop_finished(s, true);
        spdy_done(&s->spdy);
        ws_done(&s->ws);
    }
    pod_unref(s->p);
    free(s->netns);
    free(s);
}

static void *session_thread(void *arg)
{
    struct session *s = arg;
    if (s->channels) {
        open_channels(s);
    }
    while (s->channels ? take_messages(s) : take_frames(s)) {
        struct pollfd p = {.fd = s->ws.fd, .events = POLLIN};
        if ((poll(&p, 1, s->channels ? 100 : 1000) < 0 && errno != EINTR) ||
            atomic_load(&s->a->stopping)) {
            break;
        }
        if (p.revents && !ws_fill(&s->ws)) {
            break;
        }
        drop_finished(s, false);
    }
    (void)shutdown(s->ws.fd, SHUT_RDWR); /* pairs that are still sending stop */
    struct MHD_UpgradeResponseHandle *urh = s->urh;
    session_free(s);
    (void)MHD_upgrade_action(urh, MHD_UPGRADE_ACTION_CLOSE);
    (void)malloc_trim(0); /* megabytes went through small buffers of many threads */
    return NULL;
}

static void upgraded(void *cls, struct MHD_Connection *c, void *ctx, const char *extra,
                     size_t extra_n, MHD_socket sock, struct MHD_UpgradeResponseHandle *urh)
{
    (void)c;
    (void)ctx;
    struct session *s = cls;
    s->urh = urh;
    s->open = true;
    spdy_init(&s->spdy);
    if (s->spdy_bare) {
        ws_init_bare(&s->ws, sock, extra, extra_n);
    } else {
        ws_init(&s->ws, sock, extra, extra_n);
    }
    (void)th_io_set_nonblock(sock, false);
    pthread_t t;
    if (pthread_create(&t, NULL, session_thread, s) != 0) {
        session_free(s);
        (void)MHD_upgrade_action(urh, MHD_UPGRADE_ACTION_CLOSE);
        return;
    }
    pthread_detach(t);
}

static const char *choose(const char *offered, bool spdy)
{
    const char *ours = spdy ? "portforward.k8s.io" : "SPDY/3.1+portforward.k8s.io";
    th_autostrv struct th_strv l = TH_STRV_INIT;
    th_strv_split(&l, offered ? offered : "", ',');
    for (size_t i = 0; i < l.n; i++) {
        if (th_streq(l.v[i] + strspn(l.v[i], " "), ours)) {
            return ours;
        }
        if (!spdy && th_streq(l.v[i] + strspn(l.v[i], " "), CHANNELS)) {
            return CHANNELS;
        }
    }
    return spdy && (!offered || !*offered) ? "" : NULL;
}

/* ?ports=80,81 or ?port=80&port=81 */
static bool take_ports(struct req *r, struct session *s)
{
    th_autostrv struct th_strv l = TH_STRV_INIT;
    req_query_all(r, "ports", &l);
    req_query_all(r, "port", &l);
    th_autofree char *all = th_strv_join(&l, ",");
    th_autostrv struct th_strv one = TH_STRV_INIT;
    th_strv_split(&one, all, ',');
    for (size_t i = 0; i < one.n && *all; i++) {
        char *end = NULL;
        long port = strtol(one.v[i], &end, 10);
        if (port < 1 || port > 65535 || *end || s->n_ports == TH_ARRAY_LEN(s->ports)) {
            return false;
        }
        s->ports[s->n_ports++] = port;
    }
    return s->n_ports > 0;
}

enum MHD_Result portforward_request(struct req *r)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    struct upgrade u;
    /* /portForward/<ns>/<pod>/<uid>, the uid may be left out */
    size_t n = r->path.n;
    TH_AUTO(pod)
    struct pod *p = n >= 3 ? agent_pod_by_name(r->a, r->path.v[1], r->path.v[2]) : NULL;
    if (!p || n > 4 || (n == 4 && !th_streq(p->uid, r->path.v[3]))) {
        (void)th_fail(&err, TH_R_NOT_FOUND, "pod does not exist");
        return reply_err(r, &err);
    }
    if (!upgrade_choose(r, &u, choose, &err)) {
        return reply_err(r, &err);
    }
    struct session *s = TH_NEW(struct session);
    th_autofree char *netns = sandbox_ns_path(p, "net");
    *s = (struct session){
        .a = r->a, .spdy_bare = u.spdy, .netns = th_io_exists(netns) ? th_steal(&netns) : NULL};
    s->p = th_steal(&p);
    s->channels = th_streq(u.proto, CHANNELS);
    if (s->channels && !take_ports(r, s)) {
        session_free(s);
        (void)th_fail(&err, TH_R_BAD_REQUEST,
                      "query parameter \"port\" is required: 1 to 16 port numbers");
        return reply_err(r, &err);
    }
    return upgrade_reply(r, &u, upgraded, s);
}
