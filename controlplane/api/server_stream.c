/* Requests that are not answered here but by a node's agent, a pod, a service or an aggregated API
 * server: both bodies pass through as they come, by a stream of the relay (streams/relay.h).
 *
 *   asked     who it goes to was found in a worker, since a webhook had to be asked
 *   stream    what the client sends goes to the peer as fast as that takes it
 *   reply     the head of its answer is waited for
 *   answer    its body is read as libmicrohttpd wants it; a page has its links rewritten on the
 *             way; an upgraded connection is handed to the relay whole
 *
 * A stream that has nothing to read or cannot write sleeps as a watch does (server_watch.c); the
 * relay wakes it. Headers that speak of this connection or of who asks are not passed on.
 */
#include "controlplane/api/server_priv.h"

#include "base/limits.h"
#include "controlplane/api/streams/rewrite.h"

#include <strings.h>

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

static int stream_begin(struct th_hreq *h, struct th_err *err)
{
    if (!th_hreq_list(h)) {
        return th_fail(err, TH_R_UNAVAILABLE, "the server is shutting down");
    }
    th_autostrv struct th_strv headers = TH_STRV_INIT;
    (void)MHD_get_connection_values(h->mhd, MHD_HEADER_KIND, collect_header, &headers);
    const char *length = th_hreq_header(h, "Content-Length");
    bool chunked = th_hreq_header(h, "Transfer-Encoding") != NULL;
    struct th_relay_req q = {
        .target = h->resp.stream,
        .method = h->method,
        .headers = &headers,
        .host = th_hreq_header(h, "Host"),
        .upgrade = th_hreq_header(h, "Upgrade") != NULL,
        .length = chunked ? -1 : length ? strtoll(length, NULL, 10) : 0,
        .wake = th_hreq_on_news,
        .arg = h,
    };
    TH_TRY(th_relay_open(h->server->relay, &q, &h->stream, err));
    h->state = TH_HREQ_STREAM;
    return 0;
}

/* As th_relay_read, of a page with its links rewritten. */
static ssize_t page_read(struct th_hreq *h, char *buf, size_t max)
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
    struct th_hreq *h = cls;
    for (;;) {
        if (!th_hreq_wanted(h)) {
            return MHD_CONTENT_READER_END_WITH_ERROR;
        }
        ssize_t n = h->html ? page_read(h, buf, max) : th_relay_read(h->stream, buf, max);
        if (n > 0) {
            return n;
        }
        if (n < 0) {
            return n == -1 ? MHD_CONTENT_READER_END_OF_STREAM : MHD_CONTENT_READER_END_WITH_ERROR;
        }
        if (th_hreq_sleep(h)) {
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
    struct th_hreq *h = cls;
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

static enum MHD_Result stream_answer(struct th_hreq *h)
{
    struct MHD_Response *r;
    int status = th_relay_status(h->stream);
    const struct th_stream_target *t = h->resp.stream;
    const struct th_rewrite w = {t->prefix, t->who, th_hreq_header(h, "Host")};
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
    th_audit_started(h->resp.audit, status);
    shown.status = status;
    enum MHD_Result ok = th_hreq_queue(h, r, &shown);
    th_aresp_done(&shown);
    return ok;
}

static enum MHD_Result stream_failed(struct th_hreq *h, struct th_err *err)
{
    const struct th_stream_target *t = h->resp.stream;
    th_autofree char *msg = th_xstrdup(err->msg);
    if (t->ip || h->stream) {
        (void)th_fail(err, TH_R_UNAVAILABLE, "%s: %s",
                      t->ip ? "error trying to reach service" : t->who, msg);
    }
    if (!t->plain_errors) {
        return th_hreq_send_error(h, err);
    }
    th_audit_failed(h->resp.audit, err);
    th_aresp_done(&h->resp);
    h->resp.status = 503;
    h->resp.content_type = "text/plain; charset=utf-8";
    th_strv_add(&h->resp.headers, "X-Content-Type-Options: nosniff");
    th_buf_printf(&h->resp.body, "%s\n", err->msg);
    return th_hreq_send(h);
}

/* A node that does not show a log says why in plain text: all of it, up to a limit, becomes a Status. */
static enum MHD_Result stream_refused(struct th_hreq *h)
{
    char raw[4096];
    while (h->page.n < TH_LIMIT_NODE_FAULT_B) {
        if (!th_hreq_wanted(h)) {
            return MHD_NO;
        }
        ssize_t n = th_relay_read(h->stream, raw, sizeof(raw));
        if (n < 0) {
            break;
        }
        if (n > 0) {
            th_buf_add(&h->page, raw, (size_t)n);
        } else if (th_hreq_sleep(h)) {
            return MHD_YES;
        }
    }
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    th_stream_log_fault(h->resp.stream->log_of, th_relay_status(h->stream),
                        th_buf_cstr(&h->page), &err);
    return th_hreq_send_error(h, &err);
}

static bool is_refused(const struct th_hreq *h)
{
    int status = th_relay_status(h->stream);
    return h->resp.stream->log_of && status != 101 && (status < 200 || status > 206);
}

enum MHD_Result th_hreq_stream_reply(struct th_hreq *h)
{
    for (;;) {
        if (!th_hreq_wanted(h)) {
            return MHD_NO;
        }
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        int r = th_relay_finish(h->stream) > 0 ? th_relay_head(h->stream, &err) : 0;
        if (r < 0) {
            return stream_failed(h, &err);
        }
        if (r > 0) {
            return is_refused(h) ? stream_refused(h) : stream_answer(h);
        }
        if (th_hreq_sleep(h)) {
            return MHD_YES;
        }
    }
}

static enum MHD_Result stream_body(struct th_hreq *h, const char *data, size_t *data_n)
{
    while (*data_n > 0) {
        if (!th_hreq_wanted(h)) {
            return MHD_NO;
        }
        size_t n = th_relay_write(h->stream, data, *data_n);
        data += n;
        *data_n -= n;
        if (n == 0 && th_hreq_sleep(h)) {
            return MHD_YES;
        }
    }
    return MHD_YES;
}

enum MHD_Result th_hreq_stream_data(struct th_hreq *h, const char *data, size_t *data_n)
{
    if (*data_n > 0) {
        return stream_body(h, data, data_n);
    }
    h->state = TH_HREQ_STREAM_REPLY;
    return th_hreq_stream_reply(h);
}

enum MHD_Result th_hreq_stream_or_send(struct th_hreq *h)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (!h->resp.stream) {
        return th_hreq_send(h);
    }
    return stream_begin(h, &err) < 0 ? stream_failed(h, &err) : MHD_YES;
}
