/* The load program's connections. Sockets are blocking while they are set up and while a request is
 * sent (requests are small), and only reading is driven by epoll. The parser knows what API servers
 * send: Content-Length or chunks, no trailers. */
#include "tests/bench/peer.h"

#include "base/alloc.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define READ_B 16384
#define LINE_B 512 /* of a line that is kept */

static gnutls_certificate_credentials_t cred;
static gnutls_priority_t priority;

double peer_now_us(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void die(const char *what, const char *why)
{
    (void)fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

static void need(int r, const char *what)
{
    if (r < 0) {
        die(what, gnutls_strerror(r));
    }
}

void peer_global(const struct peer_opts *o)
{
    need(gnutls_certificate_allocate_credentials(&cred), "credentials");
    if (o->ca) {
        need(gnutls_certificate_set_x509_trust_file(cred, o->ca, GNUTLS_X509_FMT_PEM), o->ca);
    }
    if (o->cert) {
        need(gnutls_certificate_set_x509_key_file(cred, o->cert, o->key, GNUTLS_X509_FMT_PEM), o->cert);
    }
    need(gnutls_priority_init2(&priority, "-VERS-TLS1.0:-VERS-TLS1.1", NULL,
                               GNUTLS_PRIORITY_INIT_DEF_APPEND),
         "priority");
}

/* One recv for many records: GnuTLS asks for five bytes, then for the rest. */
static ssize_t pull(gnutls_transport_ptr_t ptr, void *to, size_t n)
{
    struct peer *p = ptr;
    if (p->raw_n == 0) {
        ssize_t r = recv(p->fd, p->raw, READ_B, 0);
        if (r <= 0) {
            gnutls_transport_set_errno(p->tls, r == 0 ? 0 : errno);
            return r;
        }
        p->raw_off = 0;
        p->raw_n = (size_t)r;
    }
    size_t take = n < p->raw_n ? n : p->raw_n;
    memcpy(to, p->raw + p->raw_off, take);
    p->raw_off += take;
    p->raw_n -= take;
    return (ssize_t)take;
}

static ssize_t push(gnutls_transport_ptr_t ptr, const void *from, size_t n)
{
    struct peer *p = ptr;
    ssize_t r = send(p->fd, from, n, MSG_NOSIGNAL);
    if (r < 0) {
        gnutls_transport_set_errno(p->tls, errno);
    }
    return r;
}

void peer_open(struct peer *p, const struct peer_opts *o)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)o->port)};
    int one = 1;
    p->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (p->fd < 0 || inet_pton(AF_INET, o->host, &a.sin_addr) != 1 ||
        connect(p->fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
        die("connecting", strerror(errno));
    }
    (void)setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    need(gnutls_init(&p->tls, GNUTLS_CLIENT | GNUTLS_NO_SIGNAL), "session");
    need(gnutls_priority_set(p->tls, priority), "priority");
    need(gnutls_credentials_set(p->tls, GNUTLS_CRD_CERTIFICATE, cred), "credentials");
    if (o->ca) {
        gnutls_session_set_verify_cert(p->tls, NULL, 0);
    }
    p->raw = th_xmalloc(READ_B);
    p->in = th_xmalloc(READ_B);
    gnutls_transport_set_ptr(p->tls, p);
    gnutls_transport_set_pull_function(p->tls, pull);
    gnutls_transport_set_push_function(p->tls, push);
    int r;
    do {
        r = gnutls_handshake(p->tls);
    } while (r < 0 && !gnutls_error_is_fatal(r));
    need(r, "handshake");
}

void peer_watch(struct peer *p, int epoll)
{
    struct epoll_event ev = {.events = EPOLLIN | EPOLLET, .data.ptr = p};
    (void)fcntl(p->fd, F_SETFL, fcntl(p->fd, F_GETFL) | O_NONBLOCK);
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, p->fd, &ev) < 0) {
        die("epoll", strerror(errno));
    }
}

void peer_send(struct peer *p, const char *bytes, size_t n)
{
    p->status = 0;
    p->answered = false;
    p->first_us = 0;
    p->body_n = 0;
    th_buf_clear(&p->head);
    while (n > 0) {
        ssize_t w = gnutls_record_send(p->tls, bytes, n);
        if (w == GNUTLS_E_AGAIN || w == GNUTLS_E_INTERRUPTED) {
            struct pollfd f = {.fd = p->fd, .events = POLLOUT};
            (void)poll(&f, 1, 1000);
            continue;
        }
        need((int)w, "sending");
        bytes += w;
        n -= (size_t)w;
    }
}

/* False when nothing is there. */
static bool fill(struct peer *p)
{
    while (p->in_off == p->in_n) {
        ssize_t n = gnutls_record_recv(p->tls, p->in, READ_B);
        if (n == GNUTLS_E_AGAIN) {
            return false;
        }
        if (n == 0) {
            die("reading", "the server closed the connection");
        }
        if (n < 0 && !gnutls_error_is_fatal((int)n)) {
            continue; /* session tickets and the like */
        }
        need((int)n, "reading");
        p->in_off = 0;
        p->in_n = (size_t)n;
    }
    return true;
}

static void end_of_head(struct peer *p)
{
    const char *h = th_buf_cstr(&p->head);
    p->status = (int)strtol(h + strcspn(h, " "), NULL, 10);
    const char *length = strcasestr(h, "\r\nContent-Length:");
    p->chunked = strcasestr(h, "\r\nTransfer-Encoding: chunked") != NULL;
    p->left = length ? strtoull(length + strlen("\r\nContent-Length:"), NULL, 10) : 0;
    p->chunk_state = 0;
}

static bool read_head(struct peer *p)
{
    while (!p->status) {
        if (!fill(p)) {
            return false;
        }
        th_buf_putc(&p->head, p->in[p->in_off++]);
        if (p->head.n >= 4 && memcmp(p->head.p + p->head.n - 4, "\r\n\r\n", 4) == 0) {
            end_of_head(p);
        }
    }
    return true;
}

/* Bytes of the body that are at hand; 0 with *ret_end at its end, or when nothing is there. */
static size_t body_bytes(struct peer *p, bool *ret_end)
{
    *ret_end = false;
    if (!p->chunked) {
        *ret_end = p->left == 0;
        if (p->left == 0 || !fill(p)) {
            return 0;
        }
        size_t have = p->in_n - p->in_off;
        return have < p->left ? have : (size_t)p->left;
    }
    enum { SIZE, EXTENSION, DATA, AFTER, LAST };
    for (;;) {
        if (!fill(p)) {
            return 0;
        }
        char c = p->in[p->in_off];
        switch (p->chunk_state) {
        case SIZE: {
            int digit = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
            if (digit >= 0) {
                p->left = p->left * 16 + (unsigned)digit;
                p->in_off++;
                break;
            }
            p->chunk_state = EXTENSION;
            break;
        }
        case EXTENSION:
            p->in_off++;
            if (c == '\n') {
                p->chunk_state = p->left > 0 ? DATA : LAST;
            }
            break;
        case DATA: {
            if (p->left == 0) {
                p->chunk_state = AFTER;
                break;
            }
            size_t have = p->in_n - p->in_off;
            return have < p->left ? have : (size_t)p->left;
        }
        case AFTER:
            p->in_off++;
            if (c == '\n') {
                p->chunk_state = SIZE;
            }
            break;
        default:
            p->in_off++;
            if (c == '\n') {
                p->chunk_state = SIZE;
                *ret_end = true;
                return 0;
            }
        }
    }
}

static void take(struct peer *p, size_t n)
{
    if (p->body_n == 0) {
        p->first_us = peer_now_us();
    }
    p->in_off += n;
    p->left -= n;
    p->body_n += n;
}

bool peer_read(struct peer *p)
{
    if (p->answered || !read_head(p) || p->streaming) {
        return false;
    }
    bool end;
    size_t n;
    while ((n = body_bytes(p, &end)) > 0) {
        take(p, n);
    }
    p->answered = end;
    return end;
}

bool peer_read_line(struct peer *p)
{
    bool end;
    size_t n;
    if (!read_head(p)) {
        return false;
    }
    if (p->line_ended) {
        p->line_ended = false;
        th_buf_clear(&p->line);
    }
    while ((n = body_bytes(p, &end)) > 0) {
        const char *at = p->in + p->in_off;
        const char *nl = memchr(at, '\n', n);
        size_t part = nl ? (size_t)(nl - at) : n;
        size_t keep = p->line.n < LINE_B ? LINE_B - p->line.n : 0;
        th_buf_add(&p->line, at, part < keep ? part : keep);
        take(p, part + (nl != NULL));
        if (nl) {
            p->line_ended = true;
            return true;
        }
    }
    if (end) {
        die("watching", "the server ended the watch");
    }
    return false;
}
