/* WebSocket frames: masked ones in, unmasked ones out. No extensions; messages are bounded by
 * TH_WS_MESSAGE_MAX; fragments are joined; a ping is answered at once. A bare connection goes through
 * the same calls without frames, so that SPDY need not know whether a WebSocket is around it. */
#include "vm/node/ws.h"
#include "base/encode.h"
#include "base/io.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <poll.h>
#include <sys/socket.h>

void ws_init(struct ws *w, int fd, const void *extra, size_t extra_n)
{
    memset(w, 0, sizeof(*w));
    w->fd = fd;
    pthread_mutex_init(&w->mu, NULL);
    th_buf_add(&w->in, extra, extra_n);
}

void ws_init_bare(struct ws *w, int fd, const void *extra, size_t extra_n)
{
    ws_init(w, fd, extra, extra_n);
    w->bare = true;
}

void ws_done(struct ws *w)
{
    th_buf_done(&w->in);
    th_buf_done(&w->message);
    pthread_mutex_destroy(&w->mu);
}

bool ws_fill(struct ws *w)
{
    char buf[16384];
    ssize_t n;
    do {
        n = recv(w->fd, buf, sizeof(buf), 0);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        return true;
    }
    if (n <= 0) {
        return false;
    }
    th_buf_add(&w->in, buf, (size_t)n);
    return true;
}

/* Length of the frame header at the front of w->in, or 0 while it is not complete. */
static size_t frame_head(const struct ws *w, uint64_t *ret_len, size_t *ret_mask)
{
    const unsigned char *b = (const unsigned char *)w->in.p;
    if (w->in.n < 2) {
        return 0;
    }
    size_t n = 2;
    uint64_t len = b[1] & 127;
    size_t ext = len == 126 ? 2 : len == 127 ? 8 : 0;
    if (w->in.n < n + ext + 4) {
        return 0;
    }
    if (ext) {
        len = 0;
        for (size_t i = 0; i < ext; i++) {
            len = len << 8 | b[n + i];
        }
        n += ext;
    }
    *ret_len = len;
    *ret_mask = n;
    return n + 4;
}

int ws_next(struct ws *w, int *ret_op, struct th_buf *msg)
{
    if (w->bare) {
        *ret_op = WS_BINARY;
        th_buf_clear(msg);
        th_buf_add(msg, w->in.p, w->in.n);
        th_buf_clear(&w->in);
        return w->closed ? -1 : msg->n > 0;
    }
    for (;;) {
        uint64_t len = 0;
        size_t mask_at = 0;
        size_t head = frame_head(w, &len, &mask_at);
        if (head == 0) {
            return w->closed ? -1 : 0;
        }
        unsigned char b0 = (unsigned char)w->in.p[0], b1 = (unsigned char)w->in.p[1];
        if (!(b1 & 0x80) || (b0 & 0x70) || len > TH_WS_MESSAGE_MAX ||
            w->message.n + len > TH_WS_MESSAGE_MAX) {
            (void)ws_close(w, 1002, "protocol error");
            return -1;
        }
        if (w->in.n < head + len) {
            return 0;
        }
        int op = b0 & 15;
        unsigned char mask[4];
        memcpy(mask, w->in.p + mask_at, 4);
        char *data = w->in.p + head;
        for (uint64_t i = 0; i < len; i++) {
            data[i] = (char)(data[i] ^ (char)mask[i & 3]);
        }
        if (op == WS_CLOSE) {
            (void)ws_close(w, 1000, "");
            return -1;
        }
        if (op == WS_PING) {
            (void)ws_send(w, WS_PONG, NULL, 0, data, (size_t)len);
        } else if (op != WS_PONG) {
            if (op != WS_CONT) {
                w->message_op = op;
                th_buf_clear(&w->message);
            }
            th_buf_add(&w->message, data, (size_t)len);
        }
        th_buf_consume(&w->in, head + (size_t)len);
        if (op < WS_CLOSE && (b0 & 0x80)) {
            *ret_op = w->message_op;
            th_buf_clear(msg);
            th_buf_add(msg, w->message.p, w->message.n);
            th_buf_clear(&w->message);
            return 1;
        }
    }
}

/* Writes all, waiting for a descriptor that may be non-blocking. */
static bool write_all(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t w = send(fd, p, n, MSG_NOSIGNAL);
        if (w < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            struct pollfd pf = {.fd = fd, .events = POLLOUT};
            if (poll(&pf, 1, 30000) <= 0) {
                return false;
            }
            continue;
        }
        if (w < 0 && errno == EINTR) {
            continue;
        }
        if (w <= 0) {
            return false;
        }
        p += w;
        n -= (size_t)w;
    }
    return true;
}

bool ws_send(struct ws *w, enum ws_op op, const void *head, size_t head_n, const void *p, size_t n)
{
    unsigned char h[10];
    size_t hn = 2;
    uint64_t len = head_n + n;
    h[0] = (unsigned char)(0x80 | (int)op);
    if (len < 126) {
        h[1] = (unsigned char)len;
    } else if (len < 65536) {
        h[1] = 126;
        h[2] = (unsigned char)(len >> 8);
        h[3] = (unsigned char)len;
        hn = 4;
    } else {
        h[1] = 127;
        for (int i = 0; i < 8; i++) {
            h[2 + i] = (unsigned char)(len >> (56 - 8 * i));
        }
        hn = 10;
    }
    th_autobuf struct th_buf b = TH_BUF_INIT;
    if (!w->bare) {
        th_buf_add(&b, h, hn);
    }
    th_buf_add(&b, head, head_n);
    th_buf_add(&b, p, n);
    pthread_mutex_lock(&w->mu);
    bool ok = !w->closed && write_all(w->fd, b.p, b.n);
    pthread_mutex_unlock(&w->mu);
    return ok;
}

bool ws_close(struct ws *w, int code, const char *reason)
{
    unsigned char c[2] = {(unsigned char)(code >> 8), (unsigned char)code};
    if (w->bare) {
        w->closed = true;
        return true;
    }
    bool ok = ws_send(w, WS_CLOSE, c, 2, reason, strlen(reason));
    w->closed = true;
    return ok;
}

void ws_accept_key(const char *key, char out[32])
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    unsigned char digest[20];
    th_autofree char *text = th_xasprintf("%s%s", key, guid);
    th_autobuf struct th_buf b = TH_BUF_INIT;
    (void)gnutls_hash_fast(GNUTLS_DIG_SHA1, text, strlen(text), digest);
    th_b64_encode(digest, sizeof(digest), &b);
    (void)snprintf(out, 32, "%s", th_buf_cstr(&b));
}
