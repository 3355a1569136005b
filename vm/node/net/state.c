/* What the node's network is made from: one snapshot of the cluster's Services, EndpointSlices and
 * Namespaces, and a few facts that several files read from it. Rules, DNS and host ports are pure
 * functions of a snapshot, so that they always agree and can be tested without a cluster.
 *
 * Slices are indexed by their Service once, or every reader would go through all of them for every
 * Service. A snapshot belongs to one thread at a time. */
#include "vm/node/net/net_priv.h"
#include "base/json/json.h"
#include "base/rand.h"

#include <arpa/inet.h>

#define ENTRY_FIRST 61000 /* above the range of ephemeral ports */
#define ENTRY_COUNT 4536

static void unref(void *p)
{
    th_json_unref(p);
}

static char *key_of(const char *ns, const char *name)
{
    return th_xasprintf("%s/%s", ns ? ns : "", name ? name : "");
}

static void index_slice(struct th_net_state *st, struct th_json *slice)
{
    const struct th_json *labels = th_json_path(slice, "metadata.labels");
    const char *svc = th_json_str(th_json_get(labels, "kubernetes.io/service-name"));
    if (!svc || !th_streq(th_json_path_str(slice, "addressType"), "IPv4")) {
        return;
    }
    th_autofree char *key = key_of(th_json_path_str(slice, "metadata.namespace"), svc);
    struct th_json *list = th_hmap_get(&st->by_service, key);
    if (!list) {
        list = th_json_array();
        th_hmap_set(&st->by_service, key, list);
    }
    th_json_append(list, th_json_ref(slice));
}

/* Every port of a LoadBalancer Service gets a port of the node for the host's relay. The number is
 * a hash, so that it is mostly the same after a restart and for all that look. */
static void assign_entries(struct th_json *services)
{
    th_autofree bool *taken = th_xcalloc(ENTRY_COUNT, sizeof(*taken));
    for (size_t i = 0; i < th_json_len(services); i++) {
        const struct th_json *svc = th_json_at(services, i);
        const char *ip = th_json_path_str(svc, "spec.clusterIP");
        struct th_json *ports = th_lb_ours(svc) && th_is_ip4(ip) ? th_json_path(svc, "spec.ports") : NULL;
        for (size_t k = 0; k < th_json_len(ports); k++) {
            struct th_json *p = th_json_at(ports, k);
            th_autofree char *key =
                th_xasprintf("%s %s %d", ip, th_proto_of(p), (int)th_json_path_int(p, "port", 0));
            uint32_t at = th_fnv32a(key, strlen(key), TH_FNV32A_INIT) % ENTRY_COUNT, tries = 0;
            while (taken[at] && tries++ < ENTRY_COUNT) {
                at = (at + 1) % ENTRY_COUNT;
            }
            if (!taken[at]) {
                taken[at] = true;
                th_json_set_int(p, TH_ENTRY_PORT, ENTRY_FIRST + (int)at);
            }
        }
    }
}

struct th_net_state *th_net_state_new(struct th_json *services, struct th_json *slices,
                                      struct th_json *namespaces)
{
    struct th_net_state *st = TH_NEW(struct th_net_state);
    st->services = services;
    st->namespaces = namespaces;
    th_hmap_init(&st->by_service, unref);
    for (size_t i = 0; i < th_json_len(slices); i++) {
        index_slice(st, th_json_at(slices, i));
    }
    th_json_unref(slices);
    assign_entries(services);
    return st;
}

void th_net_state_free(struct th_net_state *st)
{
    if (st) {
        th_json_unref(st->services);
        th_json_unref(st->namespaces);
        th_json_unref(st->pods);
        th_json_unref(st->own_pods);
        th_json_unref(st->policies);
        th_hmap_done(&st->by_service);
        free(st);
    }
}

const struct th_json *th_net_slices(const struct th_net_state *st, const struct th_json *svc)
{
    th_autofree char *key =
        key_of(th_json_path_str(svc, "metadata.namespace"), th_json_path_str(svc, "metadata.name"));
    return th_hmap_get(&st->by_service, key);
}

bool th_is_ip4(const char *s)
{
    struct in_addr a;
    return s && inet_pton(AF_INET, s, &a) == 1;
}

bool th_is_cidr4(const char *s)
{
    const char *slash = s ? strchr(s, '/') : NULL;
    th_autofree char *ip = slash ? th_xstrndup(s, (size_t)(slash - s)) : NULL;
    char *end = NULL;
    long bits = slash ? strtol(slash + 1, &end, 10) : -1;
    return th_is_ip4(ip) && end != slash + 1 && *end == 0 && bits >= 0 && bits <= 32;
}

const char *th_proto_of(const struct th_json *port)
{
    const char *p = th_json_path_str(port, "protocol");
    return th_streq(p, "UDP") ? "udp" : th_streq(p, "SCTP") ? "sctp" : "tcp";
}

/* ---- addresses of load balancers ---- */

static bool second_half(const char *cluster_ip, uint32_t first_half, char out[INET_ADDRSTRLEN])
{
    struct in_addr a;
    if (!cluster_ip || inet_pton(AF_INET, cluster_ip, &a) != 1) {
        return false;
    }
    a.s_addr = htonl(first_half << 16 | (ntohl(a.s_addr) & 0xffff));
    (void)inet_ntop(AF_INET, &a, out, INET_ADDRSTRLEN);
    return true;
}

/* The mapping keeps the lower half of an address: only the cluster's own range has such addresses,
 * or two ranges would share them. */
static bool in_own_range(const struct th_net_opts *o, const char *cluster_ip)
{
    struct in_addr own, a;
    th_autofree char *net = th_xstrndup(o->service_cidr, strcspn(o->service_cidr, "/"));
    return inet_pton(AF_INET, net, &own) == 1 && cluster_ip &&
           inet_pton(AF_INET, cluster_ip, &a) == 1 &&
           ntohl(own.s_addr) >> 16 == ntohl(a.s_addr) >> 16;
}

bool th_lb_ip(const struct th_net_opts *o, const char *cluster_ip, char out[INET_ADDRSTRLEN])
{
    return in_own_range(o, cluster_ip) && o->profile_number >= 0 && o->profile_number <= 159 &&
           second_half(cluster_ip, 127u << 8 | (uint32_t)(96 + o->profile_number), out);
}

bool th_lb_inside_ip(const char *cluster_ip, char out[INET_ADDRSTRLEN])
{
    return second_half(cluster_ip, 198u << 8 | 18u, out);
}

bool th_lb_ours(const struct th_json *svc)
{
    return th_streq(th_json_path_str(svc, "spec.type"), "LoadBalancer") &&
           !th_json_path_str(svc, "spec.loadBalancerClass");
}

/* Is 127.0.0.1, where programs of the host come from, among the ranges a Service is open to? */
bool th_lb_open_to_host(const struct th_json *svc)
{
    const struct th_json *ranges = th_json_path(svc, "spec.loadBalancerSourceRanges");
    bool open = th_json_len(ranges) == 0;
    for (size_t i = 0; i < th_json_len(ranges) && !open; i++) {
        const char *r = th_json_str(th_json_at(ranges, i));
        const char *slash = r ? strchr(r, '/') : NULL;
        th_autofree char *ip = slash ? th_xstrndup(r, (size_t)(slash - r)) : NULL;
        struct in_addr a;
        long bits = slash ? strtol(slash + 1, NULL, 10) : -1;
        if (ip && inet_pton(AF_INET, ip, &a) == 1 && bits >= 0 && bits <= 32) {
            uint32_t mask = bits == 0 ? 0 : 0xffffffffu << (32 - bits);
            open = ((ntohl(a.s_addr) ^ INADDR_LOOPBACK) & mask) == 0;
        }
    }
    return open;
}
