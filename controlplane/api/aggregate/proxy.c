/* Requests for groups and versions that a Service answers: who asks is written into the front proxy's
 * headers, the connection shows the front proxy's certificate, and the rest passes as it came. */
#include "controlplane/api/aggregate/aggregate.h"

#include "base/encode.h"
#include "controlplane/api/streams/relay.h"

/* Extra keys travel in header names: what may not stand there is percent-encoded. */
static void escape_key(const char *key, size_t n, struct th_buf *b)
{
    static const char allowed[] = "!#$&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
                                  "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for (size_t i = 0; i < n; i++) {
        if (key[i] && strchr(allowed, key[i])) {
            th_buf_putc(b, key[i]);
        } else {
            th_buf_printf(b, "%%%02X", (unsigned char)key[i]);
        }
    }
}

static void add_header(struct th_strv *to, const char *name, const char *value)
{
    if (!strpbrk(value, "\r\n")) {
        th_strv_addf(to, "%s: %s", name, value);
    }
}

static void user_headers(const struct th_identity *id, struct th_strv *to)
{
    add_header(to, "X-Remote-User", id->user);
    if (id->uid && *id->uid) {
        add_header(to, "X-Remote-Uid", id->uid);
    }
    for (size_t i = 0; i < id->groups.n; i++) {
        add_header(to, "X-Remote-Group", id->groups.v[i]);
    }
    for (size_t i = 0; i < id->extra.n; i++) {
        const char *eq = strchr(id->extra.v[i], '=');
        if (eq) {
            th_autobuf struct th_buf name = TH_BUF_INIT;
            th_buf_puts(&name, "X-Remote-Extra-");
            escape_key(id->extra.v[i], (size_t)(eq - id->extra.v[i]), &name);
            add_header(to, th_buf_cstr(&name), eq + 1);
        }
    }
}

static int unavailable(struct th_call *c)
{
    c->resp->status = 503;
    c->resp->content_type = "text/plain; charset=utf-8";
    th_strv_add(&c->resp->headers, "X-Content-Type-Options: nosniff");
    th_buf_puts(&c->resp->body, "service unavailable\n");
    return 0;
}

int th_aggr_proxy(struct th_call *c, const struct th_aggr_service *s, struct th_err *err)
{
    (void)err;
    const struct th_aggr *a = c->api->aggr;
    th_autofree char *ip = NULL;
    int port = 0;
    if (!s->available ||
        th_service_resolve(c->api->store, s->ns, s->service, s->port, &ip, &port, NULL) < 0) {
        return unavailable(c);
    }
    struct th_stream_target *t = TH_NEW(struct th_stream_target);
    t->ip = th_steal(&ip);
    t->port = port;
    t->path = th_xstrdup(c->req->uri);
    t->who = th_xasprintf("%s:%d", t->ip, port);
    t->host = th_xstrdup(t->who);
    t->plain_errors = true;
    t->tls = true;
    t->tls_name = th_xasprintf("%s.%s.svc", s->service, s->ns);
    t->ca_pem = th_xstrdup(s->ca_pem);
    t->insecure = s->insecure;
    t->cert_pem = a->front_cert;
    t->key_pem = a->front_key;
    user_headers(c->req->id, &t->headers);
    th_strv_addf(&t->headers, "X-Forwarded-Uri: %s", c->route.path);
    c->resp->stream = t;
    return 0;
}

int th_aggr_client(struct th_aggr *a, const struct th_aggr_service *s, const struct th_identity *id,
                   struct th_client **ret, struct th_err *err)
{
    th_autofree char *ip = NULL;
    int port = 0;
    TH_TRY(th_service_resolve(a->api->store, s->ns, s->service, s->port, &ip, &port, err));
    th_autofree char *server = th_xasprintf("https://%s.%s.svc:%d", s->service, s->ns, s->port);
    th_autofree char *to = th_xasprintf("%s:%d", ip, port);
    th_autostrv struct th_strv headers = TH_STRV_INIT;
    user_headers(id, &headers);
    const struct th_client_http_opts o = {.server = server,
                                          .connect_to = to,
                                          .ca_pem = s->ca_pem,
                                          .insecure = s->insecure,
                                          .cert_pem = a->front_cert,
                                          .key_pem = a->front_key,
                                          .headers = (const char *const *)headers.v,
                                          .user_agent = "kube-aggregator"};
    return th_client_new_http(&o, ret, err);
}
