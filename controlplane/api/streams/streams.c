/* Requests that end at a node agent or in a pod: log, exec, attach, portforward, and the proxies.
 *
 * This file decides where a request goes and says what upstream says when it cannot go there; the
 * HTTP server then relays the bytes (relay.c). The node agent ends WebSocket and SPDY itself, so
 * nothing here looks into a stream.
 */
#include "controlplane/api/streams/relay.h"

#include "base/encode.h"
#include "controlplane/api/priv.h"

void th_stream_target_free(struct th_stream_target *t)
{
    if (t) {
        free(t->unix_path);
        free(t->ip);
        free(t->path);
        free(t->who);
        free(t->host);
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
    c->resp->stream = t;
    return 0;
}

static int node_proxy(struct th_call *c, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *node = NULL;
    TH_TRY(load(c, c->route.name, &node, err));
    struct th_stream_target *t = to_node(c, c->route.name);
    t->path = th_xasprintf("/%s%s", c->route.rest ? c->route.rest : "", raw_query(c));
    c->resp->stream = t;
    return 0;
}

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

static int proxy_name_parse(const char *s, struct proxy_name *ret, struct th_err *err)
{
    th_autostrv struct th_strv f = TH_STRV_INIT;
    th_strv_split(&f, s, ':');
    if (f.n > 3 || (f.n == 3 && !th_streq(f.v[0], "http") && !th_streq(f.v[0], "https") && *f.v[0])) {
        return th_fail(err, TH_R_BAD_REQUEST, "invalid service request \"%s\"", s);
    }
    size_t at = f.n == 3 ? 1 : 0;
    ret->scheme = th_xstrdup(f.n == 3 ? f.v[0] : "");
    ret->name = th_xstrdup(f.v[at]);
    ret->port = th_xstrdup(f.n > at + 1 ? f.v[at + 1] : "");
    if (th_streq(ret->scheme, "https")) {
        return th_fail(err, TH_R_UNSUPPORTED, "the proxy does not speak HTTPS to pods yet");
    }
    return 0;
}

static int to_pod(struct th_call *c, const char *ip, int64_t port, struct th_err *err)
{
    if (!ip || !*ip) {
        return th_fail(err, TH_R_UNAVAILABLE, "address not allowed: %s has no address yet",
                       c->route.name);
    }
    struct th_stream_target *t = TH_NEW(struct th_stream_target);
    t->ip = th_xstrdup(ip);
    t->port = (int)port;
    t->who = th_xasprintf("%s:%lld", ip, (long long)port);
    t->host = th_xstrdup(t->who);
    t->path = th_xasprintf("/%s%s", c->route.rest ? c->route.rest : "", raw_query(c));
    c->resp->stream = t;
    return 0;
}

static int pod_proxy(struct th_call *c, struct th_err *err)
{
    TH_CLEANUP(proxy_name_done) struct proxy_name n = {NULL, NULL, NULL};
    TH_TRY(proxy_name_parse(c->route.name, &n, err));
    TH_AUTO(th_json) struct th_json *pod = NULL;
    TH_TRY(load(c, n.name, &pod, err));
    int64_t port = strtoll(n.port, NULL, 10);
    const struct th_json *l = th_json_path(pod, "spec.containers");
    for (size_t i = 0; port == 0 && !*n.port && i < th_json_len(l); i++) {
        port = th_json_path_int(th_json_at(l, i), "ports[0].containerPort", 0);
    }
    return to_pod(c, th_json_path_str(pod, "status.podIP"), port ? port : 80, err);
}

/* A ready address of the Service's EndpointSlices for the port that was asked for. */
static bool find_endpoint(struct th_call *c, const char *service, const char *port_name,
                          char **ret_ip, int64_t *ret_port)
{
    th_autofree char *prefix = th_xasprintf("discovery.k8s.io/endpointslices/%s/", c->route.ns);
    TH_CLEANUP(th_store_list_done) struct th_store_list l = {.n = 0};
    if (th_store_range(c->api->store, prefix, NULL, 0, 0, &l, NULL) < 0) {
        return false;
    }
    for (size_t i = 0; i < l.n; i++) {
        struct th_str owner;
        TH_AUTO(th_json) struct th_json *slice = NULL;
        if (!th_obj_label(l.objs[i], "kubernetes.io/service-name", &owner) ||
            !th_str_eq(owner, th_str_of(service)) ||
            th_json_parse(l.objs[i]->bytes, l.objs[i]->n, NULL, &slice, NULL) < 0) {
            continue;
        }
        const struct th_json *ports = th_json_get(slice, "ports");
        int64_t port = 0;
        for (size_t k = 0; k < th_json_len(ports) && port == 0; k++) {
            const char *name = th_json_path_str(th_json_at(ports, k), "name");
            if (th_streq(name ? name : "", port_name)) {
                port = th_json_path_int(th_json_at(ports, k), "port", 0);
            }
        }
        const struct th_json *eps = th_json_get(slice, "endpoints");
        for (size_t k = 0; port > 0 && k < th_json_len(eps); k++) {
            const struct th_json *e = th_json_at(eps, k);
            const char *ip = th_json_path_str(e, "addresses[0]");
            if (ip && th_json_path_bool(e, "conditions.ready", true)) {
                *ret_ip = th_xstrdup(ip);
                *ret_port = port;
                return true;
            }
        }
    }
    return false;
}

static int service_proxy(struct th_call *c, struct th_err *err)
{
    TH_CLEANUP(proxy_name_done) struct proxy_name n = {NULL, NULL, NULL};
    TH_TRY(proxy_name_parse(c->route.name, &n, err));
    TH_AUTO(th_json) struct th_json *svc = NULL;
    TH_TRY(load(c, n.name, &svc, err));
    const struct th_json *ports = th_json_path(svc, "spec.ports");
    const char *port_name = NULL;
    for (size_t i = 0; i < th_json_len(ports) && !port_name; i++) {
        const struct th_json *p = th_json_at(ports, i);
        const char *name = th_json_path_str(p, "name");
        char number[24];
        (void)snprintf(number, sizeof(number), "%lld",
                       (long long)th_json_path_int(p, "port", 0));
        if (!*n.port || th_streq(n.port, number) || th_streq(n.port, name)) {
            port_name = name ? name : "";
        }
    }
    th_autofree char *ip = NULL;
    int64_t port = 0;
    if (!port_name || !find_endpoint(c, n.name, port_name, &ip, &port)) {
        return th_fail(err, TH_R_UNAVAILABLE, "no endpoints available for service \"%s\"",
                       c->route.name);
    }
    return to_pod(c, ip, port, err);
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
