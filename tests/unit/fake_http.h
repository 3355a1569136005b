#ifndef TH_TEST_FAKE_HTTP_H
#define TH_TEST_FAKE_HTTP_H
/* A tiny HTTP/1.1 server for tests: a thread per connection, plain sockets, and a handler that
 * writes whatever bytes it likes, torn answers included. */
#include "base/buf.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>

struct fake_req {
    char method[16];
    char path[1024]; /* with query */
    char *head;      /* all header lines */
    char *body;
    size_t body_n;
};
struct fake;
/* Answers on fd; returns false to close the connection. */
typedef bool fake_fn(struct fake *f, int fd, const struct fake_req *q);
struct fake {
    int fd, port;
    fake_fn *fn;
    void *arg;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    int conns[256];
    pthread_t threads[256];
    size_t n; /* connections so far */
    size_t requests;
    bool stop;
};
struct fake_conn {
    struct fake *f;
    int fd;
};

static inline bool fake_send(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t w = send(fd, p, n, MSG_NOSIGNAL);
        if (w <= 0) {
            return false;
        }
        p += w;
        n -= (size_t)w;
    }
    return true;
}

static inline bool fake_puts(int fd, const char *s)
{
    return fake_send(fd, s, strlen(s));
}

static inline bool fake_answer(int fd, int status, const char *type, const char *body)
{
    th_autofree char *head =
        th_xasprintf("HTTP/1.1 %d X\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n%s", status,
                     type, strlen(body), body);
    return fake_puts(fd, head);
}

static inline bool fake_json(int fd, int status, const char *body)
{
    return fake_answer(fd, status, "application/json", body);
}

/* A chunk of a chunked answer; "" ends it. */
static inline bool fake_chunk(int fd, const char *s)
{
    th_autofree char *c = th_xasprintf("%zx\r\n%s\r\n", strlen(s), s);
    return fake_puts(fd, c);
}

static inline bool fake_stream(int fd)
{
    return fake_puts(fd, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                         "Transfer-Encoding: chunked\r\n\r\n");
}

static inline bool fake_more(int fd, struct th_buf *b)
{
    char tmp[4096];
    ssize_t n = recv(fd, tmp, sizeof(tmp), 0);
    if (n <= 0) {
        return false;
    }
    th_buf_add(b, tmp, (size_t)n);
    return true;
}

/* Decodes a chunked body from b, reading more as needed; leaves what follows in b. */
static inline bool fake_read_chunks(int fd, struct th_buf *b, struct th_buf *body)
{
    for (;;) {
        char *nl;
        while (!(nl = b->n ? strstr(b->p, "\r\n") : NULL)) {
            if (!fake_more(fd, b)) {
                return false;
            }
        }
        size_t n = strtoul(b->p, NULL, 16);
        size_t at = (size_t)(nl - b->p) + 2;
        while (b->n < at + n + 2) {
            if (!fake_more(fd, b)) {
                return false;
            }
        }
        th_buf_add(body, b->p + at, n);
        th_buf_consume(b, at + n + 2);
        if (n == 0) {
            return true;
        }
    }
}

static inline bool fake_read(int fd, struct th_buf *b, struct fake_req *q)
{
    char *end;
    while (!(end = b->n ? strstr(b->p, "\r\n\r\n") : NULL)) {
        if (!fake_more(fd, b)) {
            return false;
        }
    }
    size_t head_n = (size_t)(end - b->p) + 4;
    q->head = th_xstrndup(b->p, head_n);
    th_buf_consume(b, head_n);
    (void)sscanf(q->head, "%15s %1023s", q->method, q->path);
    th_autobuf struct th_buf body = TH_BUF_INIT;
    const char *len = strcasestr(q->head, "\r\nContent-Length:");
    if (strcasestr(q->head, "Transfer-Encoding: chunked")) {
        if (!fake_read_chunks(fd, b, &body)) {
            return false;
        }
    } else if (len) {
        size_t n = strtoul(len + 17, NULL, 10);
        while (b->n < n) {
            if (!fake_more(fd, b)) {
                return false;
            }
        }
        th_buf_add(&body, b->p, n);
        th_buf_consume(b, n);
    }
    q->body_n = body.n;
    q->body = th_xstrdup(th_buf_cstr(&body));
    return true;
}

static inline void *fake_conn_main(void *arg)
{
    struct fake_conn *c = arg;
    th_autobuf struct th_buf in = TH_BUF_INIT;
    bool more = true;
    while (more) {
        struct fake_req q = {.head = NULL};
        more = fake_read(c->fd, &in, &q);
        if (more) {
            pthread_mutex_lock(&c->f->lock);
            c->f->requests++;
            pthread_cond_broadcast(&c->f->cond);
            pthread_mutex_unlock(&c->f->lock);
            more = c->f->fn(c->f, c->fd, &q);
        }
        free(q.head);
        free(q.body);
    }
    shutdown(c->fd, SHUT_RDWR); /* closed by fake_stop, so that the number is not used again */
    free(c);
    return NULL;
}

static inline void *fake_main(void *arg)
{
    struct fake *f = arg;
    int fd;
    while ((fd = accept(f->fd, NULL, NULL)) >= 0) {
        pthread_mutex_lock(&f->lock);
        if (f->stop || f->n == TH_ARRAY_LEN(f->conns)) {
            pthread_mutex_unlock(&f->lock);
            close(fd);
            break;
        }
        struct fake_conn *c = TH_NEW(struct fake_conn);
        *c = (struct fake_conn){f, fd};
        f->conns[f->n] = fd;
        (void)pthread_create(&f->threads[f->n++], NULL, fake_conn_main, c);
        pthread_mutex_unlock(&f->lock);
    }
    return NULL;
}

/* unix_path NULL: 127.0.0.1 and a free port. */
static inline void fake_start(struct fake *f, fake_fn *fn, void *arg, const char *unix_path)
{
    *f = (struct fake){.fn = fn, .arg = arg};
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->cond, NULL);
    if (unix_path) {
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        snprintf(a.sun_path, sizeof(a.sun_path), "%s", unix_path);
        f->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        TH_ASSERT(bind(f->fd, (struct sockaddr *)&a, sizeof(a)) == 0);
    } else {
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t n = sizeof(a);
        f->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        TH_ASSERT(bind(f->fd, (struct sockaddr *)&a, n) == 0);
        TH_ASSERT(getsockname(f->fd, (struct sockaddr *)&a, &n) == 0);
        f->port = ntohs(a.sin_port);
    }
    TH_ASSERT(listen(f->fd, 64) == 0);
    TH_ASSERT(pthread_create(&f->thread, NULL, fake_main, f) == 0);
}

static inline void fake_stop(struct fake *f)
{
    pthread_mutex_lock(&f->lock);
    f->stop = true;
    pthread_cond_broadcast(&f->cond);
    for (size_t i = 0; i < f->n; i++) {
        shutdown(f->conns[i], SHUT_RDWR);
    }
    pthread_mutex_unlock(&f->lock);
    shutdown(f->fd, SHUT_RDWR);
    pthread_join(f->thread, NULL);
    for (size_t i = 0; i < f->n; i++) {
        pthread_join(f->threads[i], NULL);
        close(f->conns[i]);
    }
    close(f->fd);
    pthread_cond_destroy(&f->cond);
    pthread_mutex_destroy(&f->lock);
}
#endif
