/* healthCheckNodePort: a load balancer in front of several nodes asks each of them whether it has
 * endpoints of a Service with externalTrafficPolicy Local, and leaves out those that have none.
 *
 * Every such Service gets a small HTTP server on its port of the node, which answers any path with
 * the number of endpoints here: 200, or 503 when there are none, in upstream's form. Each has a thread
 * of libmicrohttpd, connections are few and short-lived by its limits. A port that is taken is tried
 * again with the next change of the cluster. */
#include "base/json/json.h"
#include "base/limits.h"
#include "base/log.h"
#include "vm/node/net/net_priv.h"

#include <microhttpd.h>
#include <stdatomic.h>

#define IDLE_S 5

struct check {
    char *ns, *name;
    int port;
    atomic_size_t endpoints;
    struct MHD_Daemon *daemon;
    bool wanted; /* of the updating thread */
};

struct th_health {
    struct th_hmap checks; /* "ns/name port" -> struct check */
};

static enum MHD_Result on_request(void *arg, struct MHD_Connection *conn, const char *url,
                                  const char *method, const char *version, const char *body,
                                  size_t *body_n, void **state)
{
    (void)url;
    (void)method;
    (void)version;
    (void)body;
    if (!*state) {
        *state = arg; /* headers first, then once more to answer */
        return MHD_YES;
    }
    if (*body_n > 0) {
        *body_n = 0;
        return MHD_YES;
    }
    struct check *c = arg;
    size_t n = atomic_load(&c->endpoints);
    th_autofree char *weight = th_xasprintf("%zu", n);
    char *text = th_xasprintf("{\n\t\"service\": {\n\t\t\"namespace\": \"%s\",\n\t\t\"name\": \"%s\"\n\t},\n"
                              "\t\"localEndpoints\": %zu,\n\t\"serviceProxyHealthy\": true\n}",
                              c->ns, c->name, n);
    struct MHD_Response *r = MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
    (void)MHD_add_response_header(r, "Content-Type", "application/json");
    (void)MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    (void)MHD_add_response_header(r, "X-Load-Balancing-Endpoint-Weight", weight);
    enum MHD_Result ok = MHD_queue_response(conn, n > 0 ? 200 : 503, r);
    MHD_destroy_response(r);
    return ok;
}

static void check_free(void *p)
{
    struct check *c = p;
    if (c->daemon) {
        MHD_stop_daemon(c->daemon);
    }
    free(c->ns);
    free(c->name);
    free(c);
}

struct th_health *th_health_new(void)
{
    struct th_health *h = TH_NEW(struct th_health);
    th_hmap_init(&h->checks, check_free);
    return h;
}

void th_health_free(struct th_health *h)
{
    if (h) {
        th_hmap_done(&h->checks);
        free(h);
    }
}

static void want(struct th_health *h, const struct th_json *svc, int port, size_t endpoints)
{
    const char *ns = th_json_path_str(svc, "metadata.namespace"), *name = th_json_path_str(svc, "metadata.name");
    th_autofree char *key = th_xasprintf("%s/%s %d", ns, name, port);
    struct check *c = th_hmap_get(&h->checks, key);
    if (!c) {
        if (h->checks.n >= TH_LIMIT_HEALTH_CHECKS) {
            return;
        }
        c = TH_NEW(struct check);
        c->ns = th_xstrdup(ns);
        c->name = th_xstrdup(name);
        c->port = port;
        th_hmap_set(&h->checks, key, c);
    }
    c->wanted = true;
    atomic_store(&c->endpoints, endpoints);
    if (!c->daemon) {
        c->daemon = MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL, (uint16_t)port, NULL, NULL,
                                     on_request, c, MHD_OPTION_CONNECTION_TIMEOUT, IDLE_S,
                                     MHD_OPTION_CONNECTION_LIMIT, 64, MHD_OPTION_LISTENING_ADDRESS_REUSE, 1,
                                     MHD_OPTION_END);
        if (!c->daemon) {
            th_warn("net", "health check not served", "service=%s/%s port=%d", ns, name, port);
        }
    }
}

void th_health_update(struct th_health *h, const struct th_net_opts *o, const struct th_net_state *st)
{
    struct th_hmap_entry *e;
    for (size_t it = 0; (e = th_hmap_next(&h->checks, &it));) {
        ((struct check *)e->value)->wanted = false;
    }
    for (size_t i = 0; i < th_json_len(st->services); i++) {
        const struct th_json *svc = th_json_at(st->services, i);
        int64_t port = th_json_path_int(svc, "spec.healthCheckNodePort", 0);
        if (port > 0 && port < 65536 && th_streq(th_json_path_str(svc, "spec.type"), "LoadBalancer") &&
            th_streq(th_json_path_str(svc, "spec.externalTrafficPolicy"), "Local")) {
            want(h, svc, (int)port, th_local_endpoints(o, st, svc));
        }
    }
    th_autostrv struct th_strv gone = TH_STRV_INIT;
    for (size_t it = 0; (e = th_hmap_next(&h->checks, &it));) {
        if (!((struct check *)e->value)->wanted) {
            th_strv_add(&gone, e->key);
        }
    }
    for (size_t i = 0; i < gone.n; i++) {
        check_free(th_hmap_remove(&h->checks, gone.v[i]));
    }
}
