/* Requests that end at a node agent or in a pod: log, exec, attach, portforward, and the proxies.
 *
 * This file decides where a request goes and says what upstream says when it cannot go there; the
 * HTTP server then relays the bytes (relay.c). The node agent ends WebSocket and SPDY itself, so
 * nothing here looks into a stream.
 */
#include "controlplane/api/streams/relay.h"

#include "base/rand.h"
#include "controlplane/api/priv.h"
#include "controlplane/schema/names.h"

#define AGENT_PORT "10250" /* where a kubelet listens */

void th_stream_target_free(struct th_stream_target *t)
{
    if (t) {
        free(t->unix_path);
        free(t->ip);
        free(t->path);
        free(t->who);
        free(t->host);
        free(t->prefix);
        free(t->log_of);
        free(t->tls_name);
        free(t->ca_pem);
        th_strv_done(&t->headers);
        free(t);
    }
}

static int load(struct th_call *c, const char *name, struct th_json **ret, struct th_err *err)
{
    th_autofree char *key = th_store_key(c, name);
    TH_AUTO(th_obj) struct th_obj *o = th_store_get(c->api->store, key);
    if (!o) {
        return th_fail_not_found(err, c->res, name);
    }
    return th_json_parse(o->bytes, o->n, NULL, ret, err);
}

/* "[a b]" of the names in a list, and whether one of them is `name`. */
static bool names_of(const struct th_json *pod, const char *list, const char *name,
                     struct th_buf *b)
{
    const struct th_json *l = th_json_path(pod, list);
    bool found = false;
    th_buf_putc(b, '[');
    for (size_t i = 0; i < th_json_len(l); i++) {
        const char *n = th_json_path_str(th_json_at(l, i), "name");
        th_buf_printf(b, "%s%s", i ? " " : "", n ? n : "");
        found = found || th_streq(n, name);
    }
    th_buf_putc(b, ']');
    return found;
}

/* The container that a request means; borrowed from the pod or the query. */
static int container_of(const struct th_call *c, const struct th_json *pod, const char **ret,
                        struct th_err *err)
{
    const char *asked = th_query_get(&c->query, "container");
    th_autobuf struct th_buf main_ = TH_BUF_INIT;
    th_autobuf struct th_buf init = TH_BUF_INIT;
    th_autobuf struct th_buf ephemeral = TH_BUF_INIT;
    bool known = names_of(pod, "spec.containers", asked, &main_);
    known = names_of(pod, "spec.initContainers", asked, &init) || known;
    known = names_of(pod, "spec.ephemeralContainers", asked, &ephemeral) || known;
    if (asked && *asked) {
        *ret = asked;
        return known ? 0
                     : th_fail(err, TH_R_BAD_REQUEST, "container %s is not valid for pod %s", asked,
                               c->route.name);
    }
    const struct th_json *l = th_json_path(pod, "spec.containers");
    if (th_json_len(l) == 1) {
        *ret = th_json_path_str(th_json_at(l, 0), "name");
        return 0;
    }
    bool has_init = init.n > 2;
    bool has_ephemeral = ephemeral.n > 2;
    return th_fail(err, TH_R_BAD_REQUEST,
                   "a container name must be specified for pod %s, choose one of: %s%s%s%s%s",
                   c->route.name, th_buf_cstr(&main_),
                   has_init ? " or one of the init containers: " : "",
                   has_init ? th_buf_cstr(&init) : "",
                   has_ephemeral ? " or one of the ephemeral containers: " : "",
                   has_ephemeral ? th_buf_cstr(&ephemeral) : "");
}

static const char *raw_query(const struct th_call *c)
{
    const char *q = strchr(c->req->uri, '?');
    return q ? q : "";
}

static struct th_stream_target *to_node(struct th_call *c, const char *node)
{
    struct th_stream_target *t = TH_NEW(struct th_stream_target);
    t->unix_path = th_xstrdup(c->api->node_socket ? c->api->node_socket : "");
    t->who = th_xasprintf("the agent of node %s", node);
    t->host = th_xstrdup(node);
    return t;
}

static int pod_stream(struct th_call *c, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *pod = NULL;
    TH_TRY(load(c, c->route.name, &pod, err));
    const char *sub = c->sub->name;
    bool log = th_streq(sub, "log");
    const char *container = NULL;
    if (!th_streq(sub, "portforward")) {
        TH_TRY(container_of(c, pod, &container, err));
    }
    const char *node = th_json_path_str(pod, "spec.nodeName");
    if (!node || !*node) {
        if (log) { /* nothing has been said yet */
            th_respond_text(c->resp, 200, "text/plain", "");
            return 0;
        }
        return th_fail(err, TH_R_BAD_REQUEST, "pod %s does not have a host assigned",
                       c->route.name);
    }
    const char *uid = th_json_path_str(pod, "metadata.uid");
    th_autobuf struct th_buf b = TH_BUF_INIT;
    if (log) {
        th_buf_printf(&b, "/containerLogs/%s/%s/%s", c->route.ns, c->route.name, container);
    } else if (container) {
        th_buf_printf(&b, "/%s/%s/%s/%s/%s", sub, c->route.ns, c->route.name, uid, container);
    } else {
        th_buf_printf(&b, "/portForward/%s/%s/%s", c->route.ns, c->route.name, uid);
    }
    th_buf_puts(&b, raw_query(c));
    struct th_stream_target *t = to_node(c, node);
    t->path = th_buf_steal(&b, NULL);
    t->log_of = log ? th_xstrdup(c->route.name) : NULL;
    c->resp->stream = t;
    return 0;
}

void th_stream_log_fault(const char *pod, int status, const char *said, struct th_err *err)
{
    if (status == 400) {
        (void)th_fail(err, TH_R_BAD_REQUEST, "%s", said);
        return;
    }
    if (status == 500) {
        (void)th_fail(err, TH_R_INTERNAL, "Internal error occurred: %s", said);
        th_err_add_cause(err, NULL, NULL, "%s", said);
        return;
    }
    enum th_reason reason = th_reason_from_status(NULL, status);
    if (status == 404) {
        (void)th_fail(err, TH_R_NOT_FOUND,
                      "the server could not find the requested resource ( pods/log %s)", pod);
    } else if (status == 503) {
        (void)th_fail(err, TH_R_UNAVAILABLE,
                      "the server is currently unable to handle the request ( pods/log %s)", pod);
    } else if (status > 500) {
        (void)th_fail(err, reason,
                      "an error on the server (\"%s\") has prevented the request from succeeding "
                      "( pods/log %s)", said, pod);
    } else {
        (void)th_fail(err, reason, "the server responded with the status code %d but did not return "
                      "more information ( pods/log %s)", status, pod);
    }
    err->http_code = status;
    th_err_set_object(err, NULL, "pods/log", pod);
}

/* ---- proxies ---- */

/* "[scheme:]name[:port]" */
struct proxy_name {
    char *scheme, *name, *port;
};

static void proxy_name_done(struct proxy_name *p)
{
    free(p->scheme);
    free(p->name);
    free(p->port);
}

static int proxy_name_parse(const char *s, const char *what, struct proxy_name *ret,
                            struct th_err *err)
{
    th_autostrv struct th_strv f = TH_STRV_INIT;
    th_strv_split(&f, s, ':');
    size_t at = f.n == 3 ? 1 : 0;
    bool scheme_ok = f.n < 3 || !*f.v[0] || th_streq(f.v[0], "http") || th_streq(f.v[0], "https");
    if (f.n > 3 || !scheme_ok || !*f.v[at]) {
        return th_fail(err, TH_R_BAD_REQUEST, "invalid %s request \"%s\"", what, s);
    }
    ret->scheme = th_xstrdup(f.n == 3 ? f.v[0] : "");
    ret->name = th_xstrdup(f.v[at]);
    ret->port = th_xstrdup(f.n > at + 1 ? f.v[at + 1] : "");
    return 0;
}

/* What all proxies share: the path behind the proxy's own, and what says where it begins. Takes t. A
 * request for the bare proxy is sent to its "/", since relative links would go astray. */
static int proxy_to(struct th_call *c, struct th_stream_target *t)
{
    const char *rest = c->route.rest;
    size_t path_n = strcspn(c->req->uri, "?");
    bool get = th_streq(c->req->method, "GET") || th_streq(c->req->method, "HEAD");
    if (!rest && get && !c->req->upgrade) {
        th_stream_target_free(t);
        c->resp->status = 301;
        th_strv_addf(&c->resp->headers, "Location: %.*s/%s", (int)path_n, c->req->uri,
                     raw_query(c));
        return 0;
    }
    t->path = th_xasprintf("/%s%s", rest ? rest : "", raw_query(c));
    t->prefix = th_xstrndup(c->req->uri, path_n - (rest ? strlen(rest) + 1 : 0));
    th_strv_addf(&t->headers, "X-Forwarded-Uri: %s/%s", t->prefix, rest ? rest : "");
    c->resp->stream = t;
    return 0;
}

/* port "" is the scheme's own. */
static struct th_stream_target *to_address(const char *ip, const char *port, const char *scheme)
{
    struct th_stream_target *t = TH_NEW(struct th_stream_target);
    t->tls = th_streq(scheme, "https");
    t->insecure = true; /* pods' certificates are nobody's business here, as upstream */
    t->ip = th_xstrdup(ip);
    t->port = *port ? (int)strtol(port, NULL, 10) : t->tls ? 443 : 80;
    t->who = th_xasprintf("%s:%d", ip, t->port);
    return t;
}

static int node_proxy(struct th_call *c, struct th_err *err)
{
    TH_CLEANUP(proxy_name_done) struct proxy_name n = {NULL, NULL, NULL};
    TH_TRY(proxy_name_parse(c->route.name, "node", &n, err));
    TH_AUTO(th_json) struct th_json *node = NULL;
    TH_TRY(load(c, n.name, &node, err));
    if (!*n.port || th_streq(n.port, AGENT_PORT)) {
        return proxy_to(c, to_node(c, n.name));
    }
    const struct th_json *l = th_json_path(node, "status.addresses");
    for (size_t i = 0; i < th_json_len(l); i++) {
        const char *type = th_json_path_str(th_json_at(l, i), "type");
        const char *ip = th_json_path_str(th_json_at(l, i), "address");
        if (ip && th_streq(type, "InternalIP")) {
            return proxy_to(c, to_address(ip, n.port, n.scheme));
        }
    }
    return th_fail(err, TH_R_BAD_REQUEST, "no addresses for hostname");
}

static bool is_reachable(const char *ip)
{
    return ip && *ip && !th_startswith(ip, "127.") && !th_startswith(ip, "169.254.") &&
           !th_streq(ip, "0.0.0.0") && !th_name_ip(ip);
}

static int pod_proxy(struct th_call *c, struct th_err *err)
{
    TH_CLEANUP(proxy_name_done) struct proxy_name n = {NULL, NULL, NULL};
    TH_TRY(proxy_name_parse(c->route.name, "pod", &n, err));
    TH_AUTO(th_json) struct th_json *pod = NULL;
    TH_TRY(load(c, n.name, &pod, err));
    const struct th_json *l = th_json_path(pod, "spec.containers");
    for (size_t i = 0; !*n.port && i < th_json_len(l); i++) {
        int64_t port = th_json_path_int(th_json_at(l, i), "ports[0].containerPort", 0);
        if (port > 0) {
            free(n.port);
            n.port = th_xasprintf("%lld", (long long)port);
        }
    }
    const char *ip = th_json_path_str(pod, "status.podIPs[0].ip");
    if (!is_reachable(ip)) {
        return th_fail(err, TH_R_BAD_REQUEST, "address not allowed");
    }
    return proxy_to(c, to_address(ip, n.port, n.scheme));
}

/* An object of the namespace, in another resource than the one asked for. */
static int load_other(struct th_call *c, const char *plural, const char *name,
                      struct th_json **ret, struct th_err *err)
{
    th_autofree char *key = th_xasprintf("core/%s/%s/%s", plural, c->route.ns, name);
    TH_AUTO(th_obj) struct th_obj *o = th_store_get(c->api->store, key);
    if (!o) {
        return th_fail_not_found(err, th_resource_find("", "v1", plural), name);
    }
    return th_json_parse(o->bytes, o->n, NULL, ret, err);
}

/* Only pods are proxied to: an address must be that of the pod it claims to be. */
static bool is_pods_address(struct th_call *c, const struct th_json *addr)
{
    const char *ns = th_json_path_str(addr, "targetRef.namespace");
    const char *name = th_json_path_str(addr, "targetRef.name");
    TH_AUTO(th_json) struct th_json *pod = NULL;
    if (!name || !th_streq(ns, c->route.ns) || load_other(c, "pods", name, &pod, NULL) < 0) {
        return false;
    }
    const struct th_json *ips = th_json_path(pod, "status.podIPs");
    for (size_t i = 0; i < th_json_len(ips); i++) {
        if (th_streq(th_json_path_str(th_json_at(ips, i), "ip"), th_json_path_str(addr, "ip"))) {
            return true;
        }
    }
    return false;
}

/* One of the subset's addresses, tried from a random one on; NULL: none will do. */
static const char *pick_address(struct th_call *c, const struct th_json *subset)
{
    const struct th_json *l = th_json_get(subset, "addresses");
    size_t n = th_json_len(l), first = n ? (size_t)th_rand_below(n) : 0;
    for (size_t i = 0; i < n; i++) {
        const struct th_json *addr = th_json_at(l, (first + i) % n);
        if (is_pods_address(c, addr)) {
            return th_json_path_str(addr, "ip");
        }
    }
    return NULL;
}

/* A port's number becomes its name, which is what endpoints are known by. */
static int port_name(struct th_call *c, struct proxy_name *n, struct th_err *err)
{
    char *end = NULL;
    long long number = strtoll(n->port, &end, 10);
    if (!*n->port || *end) {
        return 0;
    }
    TH_AUTO(th_json) struct th_json *svc = NULL;
    TH_TRY(load(c, n->name, &svc, err));
    const struct th_json *ports = th_json_path(svc, "spec.ports");
    for (size_t i = 0; i < th_json_len(ports); i++) {
        const struct th_json *p = th_json_at(ports, i);
        if (th_json_path_int(p, "port", 0) == number) {
            const char *name = th_json_path_str(p, "name");
            free(n->port);
            n->port = th_xstrdup(name ? name : "");
            return 0;
        }
    }
    return th_fail(err, TH_R_UNAVAILABLE, "no service port %lld found for service \"%s\"", number,
                   n->name);
}

static int service_proxy(struct th_call *c, struct th_err *err)
{
    TH_CLEANUP(proxy_name_done) struct proxy_name n = {NULL, NULL, NULL};
    TH_TRY(proxy_name_parse(c->route.name, "service", &n, err));
    TH_TRY(port_name(c, &n, err));
    TH_AUTO(th_json) struct th_json *eps = NULL;
    TH_TRY(load_other(c, "endpoints", n.name, &eps, err));
    const struct th_json *subsets = th_json_get(eps, "subsets");
    size_t count = th_json_len(subsets), first = count ? (size_t)th_rand_below(count) : 0;
    for (size_t i = 0; i < count; i++) {
        const struct th_json *s = th_json_at(subsets, (first + i) % count);
        const struct th_json *ports = th_json_get(s, "ports");
        for (size_t k = 0; k < th_json_len(ports); k++) {
            const char *name = th_json_path_str(th_json_at(ports, k), "name");
            const char *ip = th_streq(name ? name : "", n.port) ? pick_address(c, s) : NULL;
            if (ip) {
                char port[24];
                (void)snprintf(port, sizeof(port), "%lld",
                               (long long)th_json_path_int(th_json_at(ports, k), "port", 0));
                return proxy_to(c, to_address(ip, port, n.scheme));
            }
        }
    }
    return th_fail(err, TH_R_UNAVAILABLE, "no endpoints available for service \"%s\"",
                   count ? c->route.name : n.name);
}

int th_stream_route(struct th_call *c, struct th_err *err)
{
    if (!th_streq(c->sub->name, "proxy")) {
        return pod_stream(c, err);
    }
    if (th_streq(c->res->plural, "nodes")) {
        return node_proxy(c, err);
    }
    return th_streq(c->res->plural, "pods") ? pod_proxy(c, err) : service_proxy(c, err);
}
