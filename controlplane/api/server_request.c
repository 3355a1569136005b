/* The life of a request, as libmicrohttpd calls it:
 *   head      identity; requests that will be streamed to a node are routed now (server_stream.c)
 *   body      gathered up to TH_LIMIT_BODY_B
 *   handling  reads in the loop's thread; everything that may wait for a commit in a worker thread,
 *             with the connection suspended, so that many writers share one group commit
 *   answer    bytes, a stored revision shared with the store (server_body.c), or a watch
 *             (server_watch.c)
 *
 * A request belongs to its loop's thread, but while a worker has it: from the suspending to the
 * resuming nobody else looks at it. Once the server stops nothing is handed to workers any more:
 * what still comes is handled in the loop. A body over the limit is read to its end before it is
 * refused, for a client that is still writing does not see the answer; only a hopeless one is
 * refused at once.
 */
#include "controlplane/api/server_priv.h"

#include "base/limits.h"
#include "base/threadpool.h"
#include "controlplane/api/server_body.h"
#include "controlplane/api/streams/rewrite.h"

#define DRAIN_B (64u << 20) /* a body up to this is read to its end before it is refused */

const char *th_hreq_header(const struct th_hreq *h, const char *name)
{
    return MHD_lookup_connection_value(h->mhd, MHD_HEADER_KIND, name);
}

static void make_areq(struct th_hreq *h, struct th_areq *q)
{
    *q = (struct th_areq){
        .method = h->method,
        .uri = h->uri,
        .body = th_buf_str(&h->body),
        .content_type = th_hreq_header(h, "Content-Type"),
        .accept = th_hreq_header(h, "Accept"),
        .user_agent = th_hreq_header(h, "User-Agent"),
        .if_none_match = th_hreq_header(h, "If-None-Match"),
        .upgrade = th_hreq_header(h, "Upgrade") != NULL,
        .id = h->origin.id,
        .audit_id = h->origin.audit_id,
        .sources = &h->origin.sources,
        .received_us = h->origin.received_us,
    };
}

static void handle(struct th_hreq *h)
{
    struct th_areq q;
    make_areq(h, &q);
    th_api_handle(h->server->api, &q, &h->resp);
}

/* ---- answers ---- */

static void fail_with(struct th_hreq *h, const struct th_err *err)
{
    struct th_areq q = {
        .uri = h->uri,
        .accept = th_hreq_header(h, "Accept"),
        .user_agent = th_hreq_header(h, "User-Agent"),
    };
    th_api_fail(&h->resp, &q, err);
}

enum MHD_Result th_hreq_queue(struct th_hreq *h, struct MHD_Response *r,
                              const struct th_aresp *shown)
{
    h->state = TH_HREQ_ANSWER;
    th_server_headers(r, shown);
    (void)MHD_add_response_header(r, "Audit-Id", h->origin.audit_id);
    enum MHD_Result ok = MHD_queue_response(h->mhd, (unsigned)shown->status, r);
    MHD_destroy_response(r);
    return ok;
}

enum MHD_Result th_hreq_send(struct th_hreq *h)
{
    struct MHD_Response *r;
    if (h->resp.watch && !th_hreq_watch_begin(h)) {
        th_aresp_done(&h->resp);
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        (void)th_fail(&err, TH_R_UNAVAILABLE, "the server is shutting down");
        fail_with(h, &err);
    }
    if (h->resp.watch) {
        r = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 1024, th_hreq_watch_read, h, NULL);
    } else {
        r = th_server_body(&h->resp, h->gzip);
    }
    return th_hreq_queue(h, r, &h->resp);
}

enum MHD_Result th_hreq_send_error(struct th_hreq *h, const struct th_err *err)
{
    th_audit_failed(h->resp.audit, err);
    th_aresp_done(&h->resp);
    fail_with(h, err);
    if (err->reason == TH_R_UNAUTHORIZED) {
        th_strv_add(&h->resp.headers, "WWW-Authenticate: Bearer");
    }
    return th_hreq_send(h);
}

/* ---- requests ---- */

static void handle_in_worker(void *arg)
{
    struct th_hreq *h = arg;
    struct th_flow *flow = th_api_flow(h->server->api);
    struct th_flow_class c = h->flow; /* h may be gone once it is resumed */
    handle(h);
    th_hreq_resume(h);
    th_flow_finish(flow, &c);
}

static enum MHD_Result handle_body(struct th_hreq *h)
{
    if (h->too_large) {
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        (void)th_fail(&err, TH_R_TOO_LARGE, "Request entity too large: limit is %u",
                      TH_LIMIT_BODY_B);
        return th_hreq_send_error(h, &err);
    }
    struct th_areq q;
    make_areq(h, &q);
    struct th_server *s = h->server;
    bool quick = th_api_is_quick(s->api, &q);
    h->state = TH_HREQ_HANDLING;
    if (quick) {
        handle(h);
        return th_hreq_send(h);
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
            th_hreq_resume(h);
        }
    }
    (void)pthread_mutex_unlock(&s->lock);
    if (r < 0) {
        th_api_fail(&h->resp, &q, &err);
        return MHD_YES; /* resumed: it is sent by the next call */
    }
    if (inline_) {
        handle(h);
        return th_hreq_send(h);
    }
    return MHD_YES;
}

static void handle_stream_in_worker(void *arg)
{
    struct th_hreq *h = arg;
    handle(h);
    th_hreq_resume(h);
}

/* A webhook may be asked about the connection: that is for a worker. False when nobody is. */
static bool stream_ask(struct th_hreq *h)
{
    struct th_server *s = h->server;
    if (!th_api_asks_before_streams(s->api)) {
        return false;
    }
    (void)pthread_mutex_lock(&s->lock);
    bool ok = !s->stopping;
    if (ok) {
        h->state = TH_HREQ_STREAM_ASKED;
        MHD_suspend_connection(h->mhd);
        th_pool_submit(s->pool, handle_stream_in_worker, h);
    }
    (void)pthread_mutex_unlock(&s->lock);
    return ok;
}

static enum MHD_Result begin(struct th_hreq *h, const char *method)
{
    (void)snprintf(h->method, sizeof(h->method), "%s", method);
    const union MHD_ConnectionInfo *i =
        MHD_get_connection_info(h->mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    h->conn = i->socket_context;
    h->state = TH_HREQ_BODY;
    const char *encoding = th_hreq_header(h, "Accept-Encoding");
    h->gzip = encoding && strstr(encoding, "gzip");
    struct th_areq q;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    const struct th_sconn *c = h->conn;
    struct th_origin_peer peer = {c->is_unix, c->bad_cert, c->cert, c->peer};
    th_origin_read(h->mhd, &peer, &h->origin);
    make_areq(h, &q);
    if (th_origin_identify(h->server->api, h->mhd, &peer, &q, &h->origin, &err) < 0) {
        return th_hreq_send_error(h, &err);
    }
    q.id = h->origin.id;
    const char *length = th_hreq_header(h, "Content-Length");
    if (length && strtoull(length, NULL, 10) > TH_LIMIT_BODY_B) {
        h->too_large = true; /* unless it turns out to be streamed */
    }
    if (th_api_is_stream(h->server->api, &q)) {
        h->too_large = false;
        if (stream_ask(h)) {
            return MHD_YES;
        }
        handle(h);
        return th_hreq_stream_or_send(h);
    }
    bool hopeless = h->too_large && strtoull(length, NULL, 10) > DRAIN_B;
    return hopeless ? handle_body(h) : MHD_YES;
}

enum MHD_Result th_hreq_on_request(void *cls, struct MHD_Connection *mhd, const char *url,
                                   const char *method, const char *version, const char *data,
                                   size_t *data_n, void **ctx)
{
    (void)cls;
    (void)url;
    struct th_hreq *h = *ctx;
    switch (h->state) {
    case TH_HREQ_HEAD:
        h->mhd = mhd;
        h->chunked = th_streq(version, MHD_HTTP_VERSION_1_1);
        return begin(h, method);
    case TH_HREQ_BODY:
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
    case TH_HREQ_HANDLING:
        return th_hreq_send(h);
    case TH_HREQ_STREAM_ASKED: {
        enum MHD_Result r = th_hreq_stream_or_send(h);
        if (h->state != TH_HREQ_STREAM) {
            *data_n = 0;
            return r;
        }
        return th_hreq_stream_data(h, data, data_n);
    }
    case TH_HREQ_STREAM:
        return th_hreq_stream_data(h, data, data_n);
    case TH_HREQ_STREAM_REPLY:
        return th_hreq_stream_reply(h);
    default:
        *data_n = 0; /* the answer stands: what still comes is not wanted */
        return MHD_YES;
    }
}

/* The first that is known of a request: its raw target. */
void *th_hreq_on_uri(void *cls, const char *uri, struct MHD_Connection *mhd)
{
    struct th_hreq *h = TH_NEW(struct th_hreq);
    h->server = cls;
    h->mhd = mhd;
    h->uri = th_xstrdup(uri);
    (void)pthread_mutex_init(&h->lock, NULL);
    return h;
}

void th_hreq_on_completed(void *cls, struct MHD_Connection *mhd, void **ctx,
                          enum MHD_RequestTerminationCode code)
{
    (void)cls;
    (void)mhd;
    (void)code;
    struct th_hreq *h = *ctx;
    *ctx = NULL;
    if (!h) {
        return;
    }
    th_hreq_unlist(h);
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
