/* Streams to the node agent: HTTP/1.1 as a client, without ever blocking or gathering.
 *
 * The thread that serves the client's connection does the reading and writing itself, straight
 * between its own buffers and the node's socket. When the socket would block it arms the socket
 * (EPOLLONESHOT) and puts the client's connection to sleep; our one thread only waits for events and
 * wakes it. So a gigabyte of an image passes through with two buffers of the HTTP server in memory,
 * and whoever is slow slows the other down.
 *
 * After a 101 both ends are plain byte streams; our thread pumps them with a buffer for each
 * direction, half-closing as they end.
 *
 * Limits: a head of TH_LIMIT_HEADER_B; a request's body is read by the node before its answer is
 * passed on, since the HTTP server takes a body to its end before it answers.
 */
#include "controlplane/api/streams/relay.h"

#include "base/encode.h"
#include "base/io.h"
#include "base/limits.h"
#include "controlplane/api/tlsfront.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#define PUMP_B 65536
#define EVENTS 64

enum body_mode { BODY_NONE, BODY_LENGTH, BODY_CHUNKED, BODY_TO_END };
enum chunk_state { CHUNK_SIZE, CHUNK_DATA, CHUNK_DATA_END, CHUNK_TRAILER };

/* What epoll points to. */
struct source {
    enum { SOURCE_WAKE, SOURCE_STREAM, SOURCE_PUMP_NODE, SOURCE_PUMP_CLIENT } kind;
    void *owner;
};

struct th_relay_stream {
    struct th_relay *relay;
    struct source source;
    int fd;
    bool upgrade, broken;       /* broken: the peer reads no more */
    bool sent;                  /* something was */
    int sys_errno;              /* why it is broken */
    char *address;              /* "10.0.0.1:80"; NULL: a Unix socket */
    struct th_dial_note *note;  /* of a TLS connection */
    struct th_buf out;          /* head, or a chunk's frame, still to be written */
    int64_t length;             /* as th_relay_req */
    bool finished;              /* the end of the body is in out */
    struct th_buf in;           /* head while it is read, then what came behind it */
    size_t in_off;
    bool have_head;
    int status;
    struct th_strv headers;
    enum body_mode mode;
    int64_t left;               /* BODY_LENGTH, or of the current chunk */
    enum chunk_state chunk;
    struct th_buf line;
    bool ended;
    th_relay_wake_fn *wake;
    void *arg;
    pthread_mutex_t lock;       /* held while wake runs */
    bool closed;
    struct th_relay_stream *next_dead;
};

struct half {
    char *buf;
    size_t off, n;
    bool eof, shut;
};
struct pump {
    struct pump *prev, *next;
    struct source node_source, client_source;
    struct th_relay_stream *stream;
    int client;
    bool node_in, client_in;    /* in epoll */
    struct half up, down;       /* client to node, node to client */
    void (*done)(void *arg);
    void *arg;
    bool dead;
    struct pump *next_dead;
};

struct th_relay {
    int epoll, wake;
    struct source wake_source;
    pthread_t thread;
    pthread_mutex_t lock;       /* guards the rest */
    bool stop;
    struct pump pumps;          /* ring */
    struct pump *fresh;         /* handed in, not yet in epoll */
    struct th_relay_stream *dead; /* freed by the thread, after the events at hand */
    struct th_tlsfront *dialer; /* made when the first target wants TLS */
};

static void nudge(struct th_relay *r)
{
    uint64_t one = 1;
    (void)!write(r->wake, &one, sizeof(one));
}

static void arm(struct th_relay_stream *s, uint32_t events)
{
    struct epoll_event ev = {.events = events | EPOLLRDHUP | EPOLLONESHOT, .data.ptr = &s->source};
    (void)epoll_ctl(s->relay->epoll, EPOLL_CTL_MOD, s->fd, &ev);
}

/* ---- opening ---- */

static int connect_to(const struct th_stream_target *t, struct th_err *err)
{
    if (t->unix_path) {
        int fd = th_io_unix_connect(t->unix_path, err);
        if (fd >= 0) {
            (void)th_io_set_nonblock(fd, true);
        }
        return fd;
    }
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)t->port)};
    if (inet_pton(AF_INET, t->ip, &a.sin_addr) != 1) {
        return th_fail(err, TH_R_BAD_REQUEST, "\"%s\" is not an IPv4 address", t->ip);
    }
    th_autoclose int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0 && errno != EINPROGRESS)) {
        return th_fail_errno(err, errno, TH_R_UNAVAILABLE, "connecting to %s:%d", t->ip, t->port);
    }
    return th_steal_fd(&fd);
}

static struct th_tlsfront *dialer(struct th_relay *r, struct th_err *err)
{
    static const struct th_tlsfront_opts none = {.unix_listener = -1, .loops = 1};
    (void)pthread_mutex_lock(&r->lock);
    if (!r->dialer && th_tlsfront_start(&none, &r->dialer, err) < 0) {
        r->dialer = NULL;
    }
    struct th_tlsfront *f = r->dialer;
    (void)pthread_mutex_unlock(&r->lock);
    return f;
}

/* Puts TLS on fd (taken): gives the plain end. */
static int wrap(struct th_relay *r, int fd_, const struct th_stream_target *t,
                struct th_dial_note **ret_note, struct th_err *err)
{
    th_autoclose int fd = fd_;
    struct th_tlsfront *f = dialer(r, err);
    if (!f) {
        return -TH_R_UNAVAILABLE;
    }
    const struct th_tls_peer peer = {.name = t->tls_name ? t->tls_name : t->ip,
                                     .ca_pem = t->ca_pem,
                                     .insecure = t->insecure,
                                     .cert_pem = t->cert_pem,
                                     .key_pem = t->key_pem};
    int plain = -1;
    TH_TRY(th_tlsdial(f, th_steal_fd(&fd), &peer, &plain, ret_note, err));
    return plain;
}

static void write_head(struct th_buf *b, const struct th_relay_req *q)
{
    th_buf_printf(b, "%s %s HTTP/1.1\r\nHost: %s\r\n", q->method, q->target->path,
                  q->target->host ? q->target->host : q->host ? q->host : "node");
    for (size_t i = 0; i < q->headers->n; i++) {
        th_buf_printf(b, "%s\r\n", q->headers->v[i]);
    }
    for (size_t i = 0; i < q->target->headers.n; i++) {
        th_buf_printf(b, "%s\r\n", q->target->headers.v[i]);
    }
    if (q->length > 0) {
        th_buf_printf(b, "Content-Length: %lld\r\n", (long long)q->length);
    } else if (q->length < 0) {
        th_buf_puts(b, "Transfer-Encoding: chunked\r\n");
    }
    th_buf_puts(b, q->upgrade ? "Connection: Upgrade\r\n\r\n" : "Connection: close\r\n\r\n");
}

int th_relay_open(struct th_relay *r, const struct th_relay_req *q, struct th_relay_stream **ret,
                  struct th_err *err)
{
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    int fd = connect_to(q->target, &local);
    struct th_dial_note *note = NULL;
    if (fd >= 0 && q->target->tls) {
        fd = wrap(r, fd, q->target, &note, &local);
    }
    if (fd < 0) {
        return q->target->ip ? th_fail(err, TH_R_UNAVAILABLE, "%s", local.msg)
                             : th_fail(err, TH_R_UNAVAILABLE, "%s cannot be reached: %s",
                                       q->target->who, local.msg);
    }
    struct th_relay_stream *s = TH_NEW(struct th_relay_stream);
    s->relay = r;
    s->source = (struct source){SOURCE_STREAM, s};
    s->fd = fd;
    s->note = note;
    s->address = q->target->ip ? th_xasprintf("%s:%d", q->target->ip, q->target->port) : NULL;
    s->upgrade = q->upgrade;
    s->length = q->length;
    s->wake = q->wake;
    s->arg = q->arg;
    (void)pthread_mutex_init(&s->lock, NULL);
    write_head(&s->out, q);
    struct epoll_event ev = {.events = EPOLLONESHOT, .data.ptr = &s->source};
    if (epoll_ctl(r->epoll, EPOLL_CTL_ADD, fd, &ev) < 0) {
        int e = errno;
        th_relay_close(s);
        return th_fail_errno(err, e, TH_R_INTERNAL, "watching a stream");
    }
    *ret = s;
    return 0;
}

/* ---- the request ---- */

/* Writes what stands in out. True when it is empty. */
static bool flush(struct th_relay_stream *s)
{
    while (s->out.n > 0 && !s->broken) {
        ssize_t w = send(s->fd, s->out.p, s->out.n, MSG_NOSIGNAL);
        if (w < 0) {
            if (errno == EAGAIN || errno == EINTR || errno == ENOTCONN) {
                arm(s, EPOLLOUT);
                return false;
            }
            s->broken = true;
            s->sys_errno = errno;
            break;
        }
        s->sent = true;
        th_buf_consume(&s->out, (size_t)w);
    }
    if (s->broken) {
        th_buf_clear(&s->out);
    }
    return true;
}

size_t th_relay_write(struct th_relay_stream *s, const char *p, size_t n)
{
    if (!flush(s)) {
        return 0;
    }
    if (s->broken || n == 0) {
        return n;
    }
    if (s->length < 0) {
        th_buf_printf(&s->out, "%zx\r\n", n);
        th_buf_add(&s->out, p, n);
        th_buf_puts(&s->out, "\r\n");
        (void)flush(s); /* what is left is one buffer of the server at most */
        return n;
    }
    ssize_t w = send(s->fd, p, n, MSG_NOSIGNAL);
    if (w < 0 && (errno == EAGAIN || errno == EINTR)) {
        arm(s, EPOLLOUT);
        return 0;
    }
    if (w < 0) {
        s->broken = true;
        return n;
    }
    if ((size_t)w < n) {
        arm(s, EPOLLOUT);
    }
    return (size_t)w;
}

int th_relay_finish(struct th_relay_stream *s)
{
    if (!s->finished) {
        s->finished = true;
        if (s->length < 0 && !s->broken) {
            th_buf_puts(&s->out, "0\r\n\r\n");
        }
    }
    return flush(s) ? 1 : 0;
}

/* ---- the answer ---- */

static bool is_hop(const char *line)
{
    static const char *const names[] = {"Connection:",     "Transfer-Encoding:", "Content-Length:",
                                        "Keep-Alive:",     "Date:",              "Trailer:",
                                        "Proxy-Connection:"};
    for (size_t i = 0; i < TH_ARRAY_LEN(names); i++) {
        if (strncasecmp(line, names[i], strlen(names[i])) == 0) {
            return true;
        }
    }
    return false;
}

static void read_header(struct th_relay_stream *s, const char *line)
{
    if (strncasecmp(line, "Transfer-Encoding:", 18) == 0 && strcasestr(line, "chunked")) {
        s->mode = BODY_CHUNKED;
    } else if (strncasecmp(line, "Content-Length:", 15) == 0 && s->mode != BODY_CHUNKED) {
        s->mode = BODY_LENGTH;
        s->left = strtoll(line + 15, NULL, 10);
    }
    if (!is_hop(line)) {
        th_strv_add(&s->headers, line);
    }
}

/* The head stands in `in` up to `end`. */
static int parse_head(struct th_relay_stream *s, size_t end, struct th_err *err)
{
    th_autofree char *text = th_xstrndup(s->in.p, end);
    if (!th_startswith(text, "HTTP/1.") || strlen(text) < 12) {
        return th_fail(err, TH_R_UNAVAILABLE, "the answer is not HTTP");
    }
    s->status = (int)strtol(text + 9, NULL, 10);
    s->mode = BODY_TO_END;
    th_strv_done(&s->headers);
    char *line = strstr(text, "\r\n");
    while (line) {
        line += 2;
        char *next = strstr(line, "\r\n");
        if (next) {
            *next = '\0';
        }
        if (*line) {
            read_header(s, line);
        }
        line = next;
    }
    if (s->status == 204 || s->status == 304) {
        s->mode = BODY_NONE;
    }
    return 0;
}

/* Why no answer came, as Go's programs say it; e is the socket's error, 0: it was closed. */
static int no_answer(struct th_relay_stream *s, int e, struct th_err *err)
{
    th_autofree char *why = s->note ? th_dial_note_why(s->note) : NULL;
    e = s->sys_errno ? s->sys_errno : e;
    if (!s->address) {
        return th_fail_errno(err, e ? e : ECONNRESET, TH_R_UNAVAILABLE,
                             "the connection was closed before an answer came");
    }
    if (!why && !s->sent && e) {
        why = th_xasprintf("connect: %s", strerror(e));
        why[9] = (char)tolower((unsigned char)why[9]);
    }
    if (why) {
        return th_fail(err, TH_R_UNAVAILABLE, "%s%s%s%s",
                       th_startswith(why, "connect: ") ? "dial tcp " : "",
                       th_startswith(why, "connect: ") ? s->address : "",
                       th_startswith(why, "connect: ") ? ": " : "", why);
    }
    return e ? th_fail(err, TH_R_UNAVAILABLE, "read tcp %s: read: connection reset by peer",
                       s->address)
             : th_fail(err, TH_R_UNAVAILABLE, "EOF");
}

int th_relay_head(struct th_relay_stream *s, struct th_err *err)
{
    if (!flush(s)) {
        return 0;
    }
    while (!s->have_head) {
        char *end = s->in.n > 0 ? memmem(s->in.p, s->in.n, "\r\n\r\n", 4) : NULL;
        if (end) {
            size_t n = (size_t)(end - s->in.p);
            TH_TRY(parse_head(s, n, err));
            th_buf_consume(&s->in, n + 4);
            s->have_head = s->status == 101 || s->status >= 200;
            continue;
        }
        if (s->in.n > TH_LIMIT_HEADER_B) {
            return th_fail(err, TH_R_UNAVAILABLE, "the answer's head is too long");
        }
        th_buf_reserve(&s->in, 4096);
        ssize_t n = recv(s->fd, s->in.p + s->in.n, 4096, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR || errno == ENOTCONN)) {
            arm(s, EPOLLIN);
            return 0;
        }
        if (n <= 0) {
            return no_answer(s, n < 0 ? errno : 0, err);
        }
        s->in.n += (size_t)n;
        s->in.p[s->in.n] = '\0';
    }
    return 1;
}

int th_relay_status(const struct th_relay_stream *s)
{
    return s->status;
}

int64_t th_relay_length(const struct th_relay_stream *s)
{
    return s->mode == BODY_NONE ? 0 : s->mode == BODY_LENGTH ? s->left : -1;
}

const struct th_strv *th_relay_headers(const struct th_relay_stream *s)
{
    return &s->headers;
}

/* Raw bytes: what came with the head, then the socket. As th_relay_read. */
static ssize_t raw_read(struct th_relay_stream *s, char *buf, size_t max)
{
    if (s->in.n > s->in_off) {
        size_t n = s->in.n - s->in_off < max ? s->in.n - s->in_off : max;
        memcpy(buf, s->in.p + s->in_off, n);
        s->in_off += n;
        if (s->in_off == s->in.n) {
            th_buf_done(&s->in);
            th_buf_init(&s->in, 0);
            s->in_off = 0;
        }
        return (ssize_t)n;
    }
    ssize_t n = recv(s->fd, buf, max, 0);
    if (n > 0) {
        return n;
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        arm(s, EPOLLIN);
        return 0;
    }
    return n == 0 ? -1 : -2;
}

static bool is_end(struct th_relay_stream *s)
{
    s->ended = true;
    return true;
}

/* One line of the chunked framing is in s->line. False when it is malformed. */
static bool chunk_line(struct th_relay_stream *s)
{
    const char *t = th_buf_cstr(&s->line);
    bool ok = true;
    if (s->chunk == CHUNK_SIZE) {
        char *end = NULL;
        s->left = strtoll(t, &end, 16);
        ok = end != t && s->left >= 0;
        s->chunk = s->left > 0 ? CHUNK_DATA : CHUNK_TRAILER;
    } else if (s->chunk == CHUNK_DATA_END) {
        s->chunk = CHUNK_SIZE;
    } else if (s->line.n == 0) {
        ok = is_end(s);
    }
    th_buf_clear(&s->line);
    return ok;
}

/* Decodes n raw bytes in place. The bytes of data, or -2. */
static ssize_t unchunk(struct th_relay_stream *s, char *buf, size_t n)
{
    size_t out = 0;
    for (size_t i = 0; i < n && !s->ended;) {
        if (s->chunk == CHUNK_DATA) {
            size_t take = (int64_t)(n - i) < s->left ? n - i : (size_t)s->left;
            memmove(buf + out, buf + i, take);
            out += take;
            i += take;
            s->left -= (int64_t)take;
            if (s->left == 0) {
                s->chunk = CHUNK_DATA_END;
            }
            continue;
        }
        char ch = buf[i++];
        if (ch == '\n') {
            if (!chunk_line(s)) {
                return -2;
            }
        } else if (ch != '\r') {
            th_buf_putc(&s->line, ch);
            if (s->line.n > 4096) {
                return -2;
            }
        }
    }
    return (ssize_t)out;
}

ssize_t th_relay_read(struct th_relay_stream *s, char *buf, size_t max)
{
    for (;;) {
        if (s->ended || s->mode == BODY_NONE || (s->mode == BODY_LENGTH && s->left == 0)) {
            return -1;
        }
        size_t want = s->mode == BODY_LENGTH && (int64_t)max > s->left ? (size_t)s->left : max;
        ssize_t n = raw_read(s, buf, want);
        if (n <= 0) {
            return n == -1 && s->mode != BODY_TO_END ? -2 : n;
        }
        if (s->mode == BODY_CHUNKED) {
            n = unchunk(s, buf, (size_t)n);
            if (n == 0) {
                continue; /* only framing */
            }
            return n;
        }
        if (s->mode == BODY_LENGTH) {
            s->left -= n;
        }
        return n;
    }
}

/* ---- pumps ---- */

/* Moves from one socket to another until one would block. False when the pair is broken. */
static bool move(struct half *h, int from, int to)
{
    for (int i = 0; i < 16; i++) {
        if (h->n > 0) {
            ssize_t w = send(to, h->buf + h->off, h->n, MSG_NOSIGNAL);
            if (w < 0) {
                return errno == EAGAIN || errno == EINTR;
            }
            h->off += (size_t)w;
            h->n -= (size_t)w;
            continue;
        }
        if (h->eof) {
            if (!h->shut) {
                h->shut = true;
                (void)shutdown(to, SHUT_WR);
            }
            return true;
        }
        if (!h->buf) {
            h->buf = th_xmalloc(PUMP_B);
        }
        ssize_t n = recv(from, h->buf, PUMP_B, 0);
        if (n < 0) {
            return errno == EAGAIN || errno == EINTR;
        }
        h->eof = n == 0;
        h->off = 0;
        h->n = (size_t)n;
    }
    return true;
}

/* Wants nothing: out of epoll, since a closed peer would report itself for ever. */
static void watch_fd(struct th_relay *r, int fd, struct source *src, uint32_t events, bool *in)
{
    struct epoll_event ev = {.events = events, .data.ptr = src};
    if (events == 0) {
        if (*in) {
            (void)epoll_ctl(r->epoll, EPOLL_CTL_DEL, fd, NULL);
        }
    } else {
        (void)epoll_ctl(r->epoll, *in ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &ev);
    }
    *in = events != 0;
}

/* Level-triggered on what can make progress only, so a blocked side costs nothing. */
static void pump_set(struct th_relay *r, struct pump *p)
{
    uint32_t node = (p->down.n == 0 && !p->down.eof ? EPOLLIN : 0u) |
                    (p->up.n > 0 && !p->down.eof ? EPOLLOUT : 0u);
    uint32_t client = (p->up.n == 0 && !p->up.eof ? EPOLLIN : 0u) | (p->down.n ? EPOLLOUT : 0u);
    watch_fd(r, p->stream->fd, &p->node_source, node, &p->node_in);
    watch_fd(r, p->client, &p->client_source, client, &p->client_in);
}

static void pump_end(struct th_relay *r, struct pump *p)
{
    if (p->dead) {
        return;
    }
    p->dead = true;
    watch_fd(r, p->client, &p->client_source, 0, &p->client_in);
    (void)pthread_mutex_lock(&r->lock);
    p->prev->next = p->next;
    p->next->prev = p->prev;
    (void)pthread_mutex_unlock(&r->lock);
    p->done(p->arg);
    th_relay_close(p->stream);
}

static void pump_run(struct th_relay *r, struct pump *p)
{
    if (p->dead) {
        return;
    }
    if (!move(&p->up, p->client, p->stream->fd)) {
        p->up.n = 0; /* the node takes no more; what it still says is passed on */
        p->up.eof = p->up.shut = true;
    }
    if (!move(&p->down, p->stream->fd, p->client) || p->down.shut) {
        pump_end(r, p);
    } else {
        pump_set(r, p);
    }
}

static void pump_free(struct pump *p)
{
    free(p->up.buf);
    free(p->down.buf);
    free(p);
}

static void preload(struct half *h, const char *p, size_t n)
{
    if (n > 0) {
        h->buf = th_xmalloc(n > PUMP_B ? n : PUMP_B);
        memcpy(h->buf, p, n);
        h->n = n;
    }
}

void th_relay_pump(struct th_relay_stream *s, int fd, const char *extra, size_t extra_n,
                   void (*done)(void *arg), void *arg)
{
    struct th_relay *r = s->relay;
    struct pump *p = TH_NEW(struct pump);
    p->node_source = (struct source){SOURCE_PUMP_NODE, p};
    p->client_source = (struct source){SOURCE_PUMP_CLIENT, p};
    p->stream = s;
    p->client = fd;
    p->done = done;
    p->arg = arg;
    (void)th_io_set_nonblock(fd, true);
    preload(&p->up, extra, extra_n);
    preload(&p->down, s->in.p + s->in_off, s->in.n - s->in_off);
    (void)pthread_mutex_lock(&s->lock);
    s->wake = NULL;
    (void)pthread_mutex_unlock(&s->lock);
    (void)pthread_mutex_lock(&r->lock);
    p->next_dead = r->fresh;
    r->fresh = p;
    p->prev = r->pumps.prev;
    p->next = &r->pumps;
    p->prev->next = p;
    r->pumps.prev = p;
    (void)pthread_mutex_unlock(&r->lock);
    nudge(r);
}

/* ---- the thread ---- */

void th_relay_close(struct th_relay_stream *s)
{
    if (!s) {
        return;
    }
    (void)pthread_mutex_lock(&s->lock);
    s->closed = true;
    (void)pthread_mutex_unlock(&s->lock);
    (void)epoll_ctl(s->relay->epoll, EPOLL_CTL_DEL, s->fd, NULL);
    (void)close(s->fd);
    (void)pthread_mutex_lock(&s->relay->lock);
    s->next_dead = s->relay->dead;
    s->relay->dead = s;
    (void)pthread_mutex_unlock(&s->relay->lock);
    nudge(s->relay);
}

static void stream_free(struct th_relay_stream *s)
{
    th_buf_done(&s->out);
    th_buf_done(&s->in);
    th_buf_done(&s->line);
    th_strv_done(&s->headers);
    th_dial_note_unref(s->note);
    free(s->address);
    (void)pthread_mutex_destroy(&s->lock);
    free(s);
}

static void on_event(struct th_relay *r, struct source *src)
{
    uint64_t n;
    struct th_relay_stream *s;
    switch (src->kind) {
    case SOURCE_WAKE:
        (void)!read(r->wake, &n, sizeof(n));
        break;
    case SOURCE_STREAM:
        s = src->owner;
        (void)pthread_mutex_lock(&s->lock);
        if (!s->closed && s->wake) {
            s->wake(s->arg);
        }
        (void)pthread_mutex_unlock(&s->lock);
        break;
    default:
        pump_run(r, src->owner);
        break;
    }
}

/* Starts new pumps, and frees what nobody can point to any more. */
static bool house_keeping(struct th_relay *r, struct pump **graves)
{
    (void)pthread_mutex_lock(&r->lock);
    struct pump *fresh = r->fresh;
    struct th_relay_stream *dead = r->dead;
    r->fresh = NULL;
    r->dead = NULL;
    bool stop = r->stop;
    (void)pthread_mutex_unlock(&r->lock);
    while (dead) {
        struct th_relay_stream *s = dead;
        dead = s->next_dead;
        stream_free(s);
    }
    while (*graves) {
        struct pump *p = *graves;
        *graves = p->next_dead;
        pump_free(p);
    }
    while (fresh) {
        struct pump *p = fresh;
        fresh = p->next_dead;
        p->node_in = true; /* since it was opened */
        pump_run(r, p);
        if (p->dead) {
            p->next_dead = *graves;
            *graves = p;
        }
    }
    return !stop;
}

static void *run(void *arg)
{
    struct th_relay *r = arg;
    struct epoll_event ev[EVENTS];
    struct pump *graves = NULL;
    while (house_keeping(r, &graves)) {
        int n = epoll_wait(r->epoll, ev, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            struct source *src = ev[i].data.ptr;
            bool pump = src->kind == SOURCE_PUMP_NODE || src->kind == SOURCE_PUMP_CLIENT;
            struct pump *p = pump ? src->owner : NULL;
            bool was_dead = p && p->dead;
            on_event(r, src);
            if (p && p->dead && !was_dead) {
                p->next_dead = graves;
                graves = p;
            }
        }
    }
    while (r->pumps.next != &r->pumps) {
        struct pump *p = r->pumps.next;
        pump_end(r, p);
        p->next_dead = graves;
        graves = p;
    }
    (void)house_keeping(r, &graves);
    return NULL;
}

struct th_relay *th_relay_new(void)
{
    struct th_relay *r = TH_NEW(struct th_relay);
    (void)pthread_mutex_init(&r->lock, NULL);
    r->pumps.prev = r->pumps.next = &r->pumps;
    r->epoll = epoll_create1(EPOLL_CLOEXEC);
    r->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    r->wake_source = (struct source){SOURCE_WAKE, r};
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = &r->wake_source};
    TH_ASSERT(r->epoll >= 0 && r->wake >= 0 &&
              epoll_ctl(r->epoll, EPOLL_CTL_ADD, r->wake, &ev) == 0);
    TH_ASSERT(pthread_create(&r->thread, NULL, run, r) == 0);
    return r;
}

void th_relay_free(struct th_relay *r)
{
    if (!r) {
        return;
    }
    (void)pthread_mutex_lock(&r->lock);
    r->stop = true;
    (void)pthread_mutex_unlock(&r->lock);
    nudge(r);
    (void)pthread_join(r->thread, NULL);
    while (r->dead) {
        struct th_relay_stream *s = r->dead;
        r->dead = s->next_dead;
        stream_free(s);
    }
    th_tlsfront_free(r->dialer);
    (void)close(r->epoll);
    (void)close(r->wake);
    (void)pthread_mutex_destroy(&r->lock);
    free(r);
}
