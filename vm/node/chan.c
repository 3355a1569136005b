/* Kubernetes' remote command protocol, over WebSocket and over SPDY/3.1.
 *
 * WebSocket: messages are binary, the first byte is the channel: 0 stdin, 1 stdout, 2 stderr, 3
 * error (a Status as JSON at the end), 4 resize ({"Width","Height"}); in v5 also 255, whose second
 * byte names a channel the client has closed, which is how stdin ends. v4 has no such message:
 * there stdin is open until the connection ends. The first version ("channel.k8s.io", or no name at all)
 * says a failure in words. With base64.channel.k8s.io (v1) and v4.base64.channel.k8s.io messages are text:
 * the channel as a digit, then the bytes in base64.
 *
 * SPDY (kubectl before 1.29, client-go's SPDY executor): one stream per channel, opened by the
 * client with the header streamtype; what is wanted is known from the query, so the session waits
 * until all of them are there. A stream's end is a flag on its last frame. v4's error stream has a
 * Status; v1 to v3 say a failure in words, and v1 and v2 know no resize. */
#include "vm/node/chan.h"
#include "base/clock.h"
#include "base/encode.h"

#include <poll.h>

#define CH_CLOSE 255
#define SPDY_CHUNK (1u << 20)

static const char *const TYPES[] = {"stdin", "stdout", "stderr", "error", "resize"};

const char *chans_choose(const char *offered, bool spdy)
{
    static const char *const ours[] = {"v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io",
                                       "v2.channel.k8s.io", "channel.k8s.io"};
    th_autostrv struct th_strv l = TH_STRV_INIT;
    th_strv_split(&l, offered ? offered : "", ',');
    static const char *const ws[] = {"v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io",
                                     "channel.k8s.io", "base64.channel.k8s.io"};
    const char *const *known = spdy ? ours : ws;
    for (size_t k = 0; k < TH_ARRAY_LEN(ours); k++) {
        for (size_t i = 0; i < l.n && !(spdy && k == 0); i++) { /* v5 is WebSocket's only */
            const char *w = l.v[i] + strspn(l.v[i], " ");
            size_t n = strcspn(w, " ");
            if (n == strlen(known[k]) && strncmp(w, known[k], n) == 0) {
                return known[k];
            }
        }
    }
    return !offered || !*offered ? "" : NULL; /* without a name it is the first version */
}

void chans_init(struct chans *c, int fd, const void *extra, size_t extra_n, bool spdy,
                const char *proto)
{
    memset(c, 0, sizeof(*c));
    c->spdy_on = spdy;
    c->version = proto[0] == 'v' ? proto[1] - '0' : 1;
    c->base64 = strstr(proto, "base64") != NULL;
    if (spdy) {
        ws_init_bare(&c->ws, fd, extra, extra_n);
        spdy_init(&c->spdy);
    } else {
        ws_init(&c->ws, fd, extra, extra_n);
    }
}

void chans_done(struct chans *c)
{
    if (c->spdy_on) {
        spdy_done(&c->spdy);
    }
    ws_done(&c->ws);
}

static bool spdy_flush(struct chans *c, const struct th_buf *b)
{
    return b->n == 0 || ws_send(&c->ws, WS_BINARY, NULL, 0, b->p, b->n);
}

static bool spdy_syn(struct chans *c, const struct spdy_frame *f)
{
    th_autobuf struct th_buf out = TH_BUF_INIT;
    const char *type = spdy_header(f, "streamtype");
    for (int k = 0; k < CH_COUNT_; k++) {
        if (th_streq(type, TYPES[k]) && c->ids[k] == 0) {
            c->ids[k] = f->stream;
            spdy_put_reply(&c->spdy, &out, f->stream);
            return spdy_flush(c, &out);
        }
    }
    spdy_put_rst(&out, f->stream, SPDY_REFUSED_STREAM);
    return spdy_flush(c, &out);
}

static bool all_open(const struct chans *c, unsigned expected)
{
    bool all = true;
    for (int k = 0; k < CH_COUNT_; k++) {
        all = all && (!(expected & 1u << k) || c->ids[k] != 0);
    }
    return all;
}

/* With expected, stops as soon as those channels stand: what follows is for the session. */
static bool spdy_take(struct chans *c, unsigned expected, chans_fn *fn, void *arg)
{
    struct spdy_frame f;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    int r = 0;
    while (!(expected && all_open(c, expected)) && (r = spdy_next(&c->spdy, &f, &err)) > 0) {
        bool ok = true;
        th_autobuf struct th_buf out = TH_BUF_INIT;
        if (f.kind == SPDY_SYN_STREAM) {
            ok = spdy_syn(c, &f);
        } else if (f.kind == SPDY_PING) {
            spdy_put_ping(&out, f.value);
            ok = spdy_flush(c, &out);
        }
        for (int k = 0; k < CH_COUNT_ && f.stream; k++) {
            bool its = c->ids[k] == f.stream;
            if (its && f.kind == SPDY_DATA && f.n > 0 && fn) {
                fn(arg, (enum chan)k, f.p, f.n);
            }
            if (its && fn && (f.fin || f.kind == SPDY_RST)) {
                fn(arg, (enum chan)k, NULL, 0);
            }
        }
        spdy_frame_done(&f);
        if (!ok) {
            return false;
        }
    }
    return r >= 0;
}

bool chans_fill(struct chans *c)
{
    c->gone = c->gone || !ws_fill(&c->ws);
    return !c->gone;
}

/* "1aGVsbG8=" becomes the byte 1 and "hello". */
static bool from_base64(struct th_buf *m)
{
    th_autobuf struct th_buf out = TH_BUF_INIT;
    if (m->n == 0 || m->p[0] < '0' || m->p[0] > '9') {
        return false;
    }
    th_buf_putc(&out, (char)(m->p[0] - '0'));
    if (th_b64_decode(m->p + 1, m->n - 1, &out, NULL) < 0) {
        return false;
    }
    th_buf_clear(m);
    th_buf_add(m, out.p, out.n);
    return true;
}

static bool take(struct chans *c, unsigned expected, chans_fn *fn, void *arg)
{
    th_autobuf struct th_buf m = TH_BUF_INIT;
    int op = 0, r;
    while ((r = ws_next(&c->ws, &op, &m)) > 0) {
        if (c->spdy_on) {
            spdy_feed(&c->spdy, m.p, m.n);
            continue;
        }
        if (c->base64 && !from_base64(&m)) {
            continue; /* as upstream: what cannot be read is dropped */
        }
        unsigned char ch = m.n ? (unsigned char)m.p[0] : CH_CLOSE;
        if (ch < CH_COUNT_) {
            fn(arg, (enum chan)ch, m.p + 1, m.n - 1);
        } else if (c->version >= 5 && m.n >= 2 && (unsigned char)m.p[1] < CH_COUNT_) {
            fn(arg, (enum chan)m.p[1], NULL, 0);
        }
    }
    if (r == 0 && c->spdy_on && !spdy_take(c, expected, fn, arg)) {
        r = -1;
    }
    c->gone = c->gone || r < 0;
    return !c->gone;
}

bool chans_take(struct chans *c, chans_fn *fn, void *arg)
{
    return take(c, 0, fn, arg);
}

bool chans_open(struct chans *c, unsigned expected, int timeout_ms)
{
    if (!c->spdy_on) {
        /* as upstream: an empty message tells the client that it works */
        enum chan hello = expected & 1u << CH_STDOUT   ? CH_STDOUT
                          : expected & 1u << CH_STDERR ? CH_STDERR
                                                       : CH_ERROR;
        return chans_send(c, hello, NULL, 0);
    }
    int64_t deadline = th_mono_ms() + timeout_ms;
    for (;;) {
        if (!take(c, expected, NULL, NULL)) {
            return false;
        }
        if (all_open(c, expected)) {
            return true;
        }
        struct pollfd p = {.fd = c->ws.fd, .events = POLLIN};
        int64_t left = deadline - th_mono_ms();
        if (left <= 0 || poll(&p, 1, (int)left) <= 0 || !chans_fill(c)) {
            return false;
        }
    }
}

static bool spdy_send(struct chans *c, enum chan ch, bool fin, const char *p, size_t n)
{
    if (c->ids[ch] == 0) {
        return true;
    }
    do {
        size_t part = n < SPDY_CHUNK ? n : SPDY_CHUNK;
        th_autobuf struct th_buf b = TH_BUF_INIT;
        spdy_put_data(&b, c->ids[ch], fin && part == n, p, part);
        if (!spdy_flush(c, &b)) {
            return false;
        }
        p = part ? p + part : p;
        n -= part;
    } while (n > 0);
    return true;
}

bool chans_send(struct chans *c, enum chan ch, const void *p, size_t n)
{
    if (c->spdy_on) {
        return n == 0 || spdy_send(c, ch, false, p, n);
    }
    if (c->base64) {
        char digit = (char)('0' + (int)ch);
        th_autobuf struct th_buf text = TH_BUF_INIT;
        th_b64_encode(p, n, &text);
        return ws_send(&c->ws, WS_TEXT, &digit, 1, text.p, text.n);
    }
    unsigned char head = (unsigned char)ch;
    return ws_send(&c->ws, WS_BINARY, &head, 1, p, n);
}

void chans_status(struct chans *c, const struct th_json *status)
{
    th_autofree char *text = NULL;
    if (c->version >= 4) {
        text = th_json_to_string(status);
    } else if (th_streq(th_json_path_str(status, "status"), "Success")) {
        return;
    } else {
        text = th_xasprintf("error executing command in container: %s",
                            th_json_path_str(status, "message"));
    }
    (void)chans_send(c, CH_ERROR, text, strlen(text));
}

void chans_close(struct chans *c)
{
    if (c->gone || c->ws.closed) {
        return;
    }
    static const enum chan order[] = {CH_STDOUT, CH_STDERR, CH_ERROR, CH_RESIZE, CH_STDIN};
    for (size_t i = 0; c->spdy_on && i < TH_ARRAY_LEN(order); i++) {
        (void)spdy_send(c, order[i], true, "", 0);
    }
    struct pollfd p = {.fd = c->ws.fd, .events = POLLIN};
    if (!c->spdy_on) {
        (void)ws_close(&c->ws, 1000, "");
    }
    /* let the client's end come, so that our last bytes are not reset away */
    int64_t deadline = th_mono_ms() + 2000;
    while (th_mono_ms() < deadline && poll(&p, 1, 100) >= 0) {
        if ((p.revents & POLLIN) && !ws_fill(&c->ws)) {
            break;
        }
        if (p.revents & (POLLHUP | POLLERR)) {
            break;
        }
        th_buf_clear(&c->ws.in);
    }
}
