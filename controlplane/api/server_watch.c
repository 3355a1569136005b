/* Answers that sleep: how a request waits for news, and watches.
 *
 * A watch is a chunked answer whose reader hands out frames and suspends the connection when there
 * are none; the store's publisher resumes it. Under `lock` of the request: woken says that
 * something came since the reader looked, suspended that the connection sleeps. While it sleeps
 * libmicrohttpd does not look at its socket, so the TLS front tells us when the client has gone.
 * Streams to nodes (server_stream.c) sleep and wake in the same way.
 *
 * Through TLS a watch goes past libmicrohttpd once that has sent the head: the front reads the
 * frames from us and sends each handful as one chunk in one record. libmicrohttpd sleeps until the
 * watch is over and then says the end. Thousands of watchers so cost a record each, no socketpair
 * and no resuming.
 *
 * Whoever may sleep stands in the server's list, so that stopping finds and ends it.
 */
#include "controlplane/api/server_priv.h"

#include "controlplane/api/watch.h"

void th_hreq_wake(struct th_hreq *h)
{
    (void)pthread_mutex_lock(&h->lock);
    h->woken = true;
    if (h->suspended) {
        h->suspended = false;
        th_hreq_resume(h);
    }
    (void)pthread_mutex_unlock(&h->lock);
}

void th_hreq_on_news(void *arg)
{
    struct th_hreq *h = arg;
    if (!__atomic_load_n(&h->direct, __ATOMIC_ACQUIRE)) {
        th_hreq_wake(h);
        return;
    }
    (void)pthread_mutex_lock(&h->conn->lock);
    if (h->conn->tls) {
        th_tlsfront_stream_wake(h->conn->tls);
    }
    (void)pthread_mutex_unlock(&h->conn->lock);
}

bool th_hreq_sleep(struct th_hreq *h)
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

/* Forgets that something came, before looking whether there is something. */
static bool now_ending(struct th_hreq *h)
{
    (void)pthread_mutex_lock(&h->lock);
    h->woken = false;
    bool ending = h->ending;
    (void)pthread_mutex_unlock(&h->lock);
    return ending;
}

bool th_hreq_wanted(struct th_hreq *h)
{
    return !now_ending(h) && !th_sconn_gone(h->conn);
}

/* Fills buf with frames. *ret_end is th_apiwatch_next's answer when there are no more for now. */
static size_t watch_fill(struct th_hreq *h, char *buf, size_t max, int *ret_end)
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
    struct th_hreq *h = arg;
    if (h->over || now_ending(h)) {
        return -1;
    }
    if (max == 0) { /* the client does not read: is it cut off? */
        return th_apiwatch_cut(h->resp.watch) ? -1 : 0;
    }
    int more;
    size_t n = watch_fill(h, buf + CHUNK_HEAD_MAX, max - CHUNK_HEAD_MAX - CHUNK_TAIL, &more);
    if (more < 0) {
        h->over = true;
        th_hreq_wake(h); /* it says the end */
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
static void go_direct(struct th_hreq *h)
{
    struct th_sconn *c = h->conn;
    (void)pthread_mutex_lock(&c->lock);
    if (c->tls && h->chunked) {
        __atomic_store_n(&h->direct, true, __ATOMIC_RELEASE);
        th_tlsfront_stream(c->tls, direct_read, h);
    }
    (void)pthread_mutex_unlock(&c->lock);
}

ssize_t th_hreq_watch_read(void *cls, uint64_t pos, char *buf, size_t max)
{
    struct th_hreq *h = cls;
    if (pos == 0 && !h->direct) {
        go_direct(h);
    }
    for (;;) {
        if (!th_hreq_wanted(h) || h->over) {
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
        if (th_hreq_sleep(h)) {
            return 0;
        }
    }
}

bool th_hreq_list(struct th_hreq *h)
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

bool th_hreq_watch_begin(struct th_hreq *h)
{
    if (!th_hreq_list(h)) {
        return false;
    }
    th_apiwatch_attach(h->resp.watch, th_hreq_on_news, h);
    return true;
}

void th_hreq_unlist(struct th_hreq *h)
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
