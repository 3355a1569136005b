/* A stream that only goes out, over a WebSocket: what reads a log through a browser.
 *
 * Subprotocols are upstream's: "binary.k8s.io" (also when the client names none) sends the bytes in
 * binary messages, "base64.binary.k8s.io" in text messages as base64. The end is a close frame. What the
 * client sends is read, so that its close is seen, and dropped.
 *
 * Each stream has a thread of its own, detached; it ends with the source, the client or the agent. */
#include "vm/node/server.h"
#include "base/encode.h"
#include "vm/node/ws.h"

#include <poll.h>

#define CHUNK 16384
#define QUIET_MS 50 /* how long an empty source is left alone */

struct out {
    struct agent *a;
    reply_stream_fn *fn;
    void (*done)(void *);
    void *arg;
    bool base64;
    struct ws ws;
    struct MHD_UpgradeResponseHandle *urh;
};

static const char *choose(const char *offered, bool spdy)
{
    static const char *const ours[] = {"binary.k8s.io", "base64.binary.k8s.io"};
    th_autostrv struct th_strv l = TH_STRV_INIT;
    th_strv_split(&l, offered ? offered : "", ',');
    for (size_t k = 0; k < TH_ARRAY_LEN(ours) && !spdy; k++) {
        for (size_t i = 0; i < l.n; i++) {
            const char *w = l.v[i] + strspn(l.v[i], " ");
            if (strcspn(w, " ") == strlen(ours[k]) && th_startswith(w, ours[k])) {
                return ours[k];
            }
        }
    }
    return !spdy && (!offered || !*offered) ? "" : NULL;
}

/* false: the client has left. */
static bool client_there(struct out *o, int wait_ms)
{
    struct pollfd p = {.fd = o->ws.fd, .events = POLLIN};
    th_autobuf struct th_buf m = TH_BUF_INIT;
    int op = 0, r = 0;
    if (poll(&p, 1, wait_ms) > 0 && !ws_fill(&o->ws)) {
        return false;
    }
    while ((r = ws_next(&o->ws, &op, &m)) > 0) {
        th_buf_clear(&m);
    }
    return r >= 0;
}

static bool send_part(struct out *o, const char *p, size_t n)
{
    if (!o->base64) {
        return ws_send(&o->ws, WS_BINARY, NULL, 0, p, n);
    }
    th_autobuf struct th_buf text = TH_BUF_INIT;
    th_b64_encode(p, n, &text);
    return ws_send(&o->ws, WS_TEXT, NULL, 0, text.p, text.n);
}

static void *run(void *arg)
{
    struct out *o = arg;
    char buf[CHUNK];
    ssize_t n = 0;
    bool there = true;
    while (there && n >= 0 && !atomic_load(&o->a->stopping)) {
        n = o->fn(o->arg, buf, sizeof(buf));
        there = n > 0 ? send_part(o, buf, (size_t)n) && client_there(o, 0) : n < 0 || client_there(o, QUIET_MS);
    }
    if (there) {
        (void)ws_close(&o->ws, 1000, "");
        for (int i = 0; i < 40 && client_there(o, QUIET_MS); i++) { /* its answer, or its end */
        }
    }
    o->done(o->arg);
    ws_done(&o->ws);
    (void)MHD_upgrade_action(o->urh, MHD_UPGRADE_ACTION_CLOSE);
    free(o);
    return NULL;
}

static void upgraded(void *cls, struct MHD_Connection *c, void *ctx, const char *extra, size_t extra_n,
                     MHD_socket sock, struct MHD_UpgradeResponseHandle *urh)
{
    (void)c;
    (void)ctx;
    struct out *o = cls;
    o->urh = urh;
    ws_init(&o->ws, sock, extra, extra_n);
    (void)th_io_set_nonblock(sock, false);
    pthread_t t;
    if (pthread_create(&t, NULL, run, o) != 0) {
        o->done(o->arg);
        ws_done(&o->ws);
        free(o);
        (void)MHD_upgrade_action(urh, MHD_UPGRADE_ACTION_CLOSE);
        return;
    }
    pthread_detach(t);
}

bool ws_wanted(struct req *r)
{
    return MHD_lookup_connection_value(r->c, MHD_HEADER_KIND, "Sec-WebSocket-Key") != NULL;
}

enum MHD_Result ws_stream(struct req *r, reply_stream_fn *fn, void (*done)(void *), void *arg)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    struct upgrade u;
    if (!upgrade_choose(r, &u, choose, &err)) {
        done(arg);
        return reply_err(r, &err);
    }
    struct out *o = TH_NEW(struct out);
    *o = (struct out){.a = r->a, .fn = fn, .done = done, .arg = arg, .base64 = th_startswith(u.proto, "base64")};
    return upgrade_reply(r, &u, upgraded, o);
}
