/* From a Service's port to an address, without a proxy on the way: the API server can reach pods, and
 * need not be where cluster IPs lead somewhere. Endpoints are taken at random, as a cluster IP would.
 *
 * A Service of type ExternalName is looked up by this machine's resolver, which may take its time; it is
 * the caller's thread that waits. */
#include "controlplane/api/aggregate/aggregate.h"

#include "base/rand.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>

static int external(const char *host, int64_t port, char **ret_ip, int *ret_port,
                    struct th_err *err)
{
    const struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    int r = getaddrinfo(host, NULL, &hints, &found);
    if (r != 0) {
        return th_fail(err, TH_R_UNAVAILABLE, "dial tcp: lookup %s: %s", host, gai_strerror(r));
    }
    struct sockaddr_in a;
    char text[INET_ADDRSTRLEN];
    memcpy(&a, found->ai_addr, sizeof(a));
    freeaddrinfo(found);
    *ret_ip = th_xstrdup(inet_ntop(AF_INET, &a.sin_addr, text, sizeof(text)));
    *ret_port = (int)port;
    return 0;
}

/* The slice's port of that name; 0: it has none. */
static int64_t slice_port(const struct th_json *slice, const char *name)
{
    const struct th_json *ports = th_json_get(slice, "ports");
    for (size_t i = 0; i < th_json_len(ports); i++) {
        const char *n = th_json_path_str(th_json_at(ports, i), "name");
        if (th_streq(n ? n : "", name)) {
            return th_json_path_int(th_json_at(ports, i), "port", 0);
        }
    }
    return 0;
}

static int from_slices(struct th_store *store, const char *ns, const char *name, const char *port,
                       char **ret_ip, int *ret_port, struct th_err *err)
{
    th_autofree char *prefix = th_xasprintf("discovery.k8s.io/endpointslices/%s/", ns);
    TH_CLEANUP(th_store_list_done) struct th_store_list l = {.n = 0};
    TH_TRY(th_store_range(store, prefix, NULL, 0, 0, &l, err));
    uint64_t seen = 0;
    th_autofree char *ip = NULL;
    for (size_t i = 0; i < l.n; i++) {
        struct th_str owner;
        TH_AUTO(th_json) struct th_json *slice = NULL;
        if (!th_obj_label(l.objs[i], "kubernetes.io/service-name", &owner) ||
            !th_str_eq(owner, th_str_of(name)) ||
            th_json_parse(l.objs[i]->bytes, l.objs[i]->n, NULL, &slice, NULL) < 0) {
            continue;
        }
        int64_t number = slice_port(slice, port);
        const struct th_json *eps = th_json_get(slice, "endpoints");
        for (size_t k = 0; number > 0 && k < th_json_len(eps); k++) {
            const struct th_json *e = th_json_at(eps, k);
            const char *address = th_json_path_str(e, "addresses[0]");
            if (address && th_json_path_bool(e, "conditions.ready", true) &&
                th_rand_below(++seen) == 0) {
                free(ip);
                ip = th_xstrdup(address);
                *ret_port = (int)number;
            }
        }
    }
    *ret_ip = th_steal(&ip);
    return *ret_ip ? 0
                   : th_fail(err, TH_R_UNAVAILABLE, "no endpoints available for service \"%s\"",
                             name);
}

int th_service_resolve(struct th_store *store, const char *ns, const char *name, int64_t port,
                       char **ret_ip, int *ret_port, struct th_err *err)
{
    th_autofree char *key = th_xasprintf("core/services/%s/%s", ns, name);
    TH_AUTO(th_obj) struct th_obj *o = th_store_get(store, key);
    TH_AUTO(th_json) struct th_json *svc = NULL;
    if (!o) {
        return th_fail(err, TH_R_UNAVAILABLE, "service \"%s\" not found", name);
    }
    TH_TRY(th_json_parse(o->bytes, o->n, NULL, &svc, err));
    if (th_streq(th_json_path_str(svc, "spec.type"), "ExternalName")) {
        return external(th_json_path_str(svc, "spec.externalName"), port, ret_ip, ret_port, err);
    }
    const struct th_json *ports = th_json_path(svc, "spec.ports");
    for (size_t i = 0; i < th_json_len(ports); i++) {
        const struct th_json *p = th_json_at(ports, i);
        if (th_json_path_int(p, "port", 0) == port) {
            const char *port_name = th_json_path_str(p, "name");
            return from_slices(store, ns, name, port_name ? port_name : "", ret_ip, ret_port, err);
        }
    }
    return th_fail(err, TH_R_UNAVAILABLE, "no service port %lld found for service \"%s\"",
                   (long long)port, name);
}
