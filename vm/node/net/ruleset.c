/* Services as an nftables ruleset, in text: a pure function of Services and EndpointSlices.
 *
 * One table `ip thimble` of our own holds everything; it is replaced as a whole in one transaction.
 * Two maps lead from "address, protocol, port" (ClusterIPs, external addresses) and from "protocol,
 * port" of any address of the node (node ports) to a chain per Service port, whose only rule picks
 * an endpoint: numgen random, or with sessionAffinity ClientIP a hash of the client's address over
 * the sorted endpoints. NAT happens once per connection; conntrack does the rest.
 *
 * Filter hooks see only what was not translated: a ClusterIP without endpoints (or without that
 * port) is refused at once with ICMP port unreachable, and so are node ports without endpoints.
 * Traffic policy Local without an endpoint on this node drops, as upstream.
 *
 * The source address is kept except where the answer would go astray: a pod that reaches itself
 * through a Service, and clients on 127.0.0.0/8. They, and pods that leave the node, get the node's
 * address. Upstream hides the client behind the node for node ports with policy Cluster; with one
 * node nothing needs that. Affinity is by hash, so its timeout is not looked at and a change in the
 * number of endpoints moves clients. IPv4 only. */
#include "base/json/json.h"
#include "vm/node/net/net_priv.h"
#include "base/json/json.h"

#include <arpa/inet.h>
#include <ctype.h>

enum { EP_READY = 1, EP_LOCAL = 2, EP_TERMINATING = 4 };

struct ep {
    char ip[INET_ADDRSTRLEN];
    int port;
    unsigned flags;
};

struct eps {
    struct ep *v;
    size_t n, cap;
};

struct gen {
    const struct th_net_opts *o;
    struct th_json *slices;
    struct th_buf chains, vips, nodeports, noports, reject_ext, cluster_ips;
    struct th_hmap seen;    /* map keys given: a second Service with the same one is left out */
    struct th_hmap hairpin; /* endpoint addresses */
    int next;
};

static const char *proto_of(const struct th_json *port)
{
    const char *p = th_json_path_str(port, "protocol");
    return th_streq(p, "UDP") ? "udp" : th_streq(p, "SCTP") ? "sctp" : "tcp";
}

static bool is_ip4(const char *s)
{
    struct in_addr a;
    return s && inet_pton(AF_INET, s, &a) == 1;
}

bool th_slice_of(const struct th_json *slice, const struct th_json *svc)
{
    const char *name =
        th_json_str(th_json_get(th_json_path(slice, "metadata.labels"), "kubernetes.io/service-name"));
    return th_streq(name, th_json_path_str(svc, "metadata.name")) &&
           th_streq(th_json_path_str(slice, "metadata.namespace"),
                    th_json_path_str(svc, "metadata.namespace")) &&
           th_streq(th_json_path_str(slice, "addressType"), "IPv4");
}

static int ep_cmp(const void *a, const void *b)
{
    const struct ep *x = a, *y = b;
    int c = strcmp(x->ip, y->ip);
    return c ? c : (x->port > y->port) - (x->port < y->port);
}

static void add_slice(struct gen *g, const struct th_json *slice, int port, bool all, struct eps *l)
{
    struct th_json *list = th_json_get(slice, "endpoints");
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *e = th_json_at(list, i);
        const char *ip = th_json_str(th_json_at(th_json_get(e, "addresses"), 0));
        if (!is_ip4(ip)) {
            continue;
        }
        struct ep p = {.port = port};
        (void)snprintf(p.ip, sizeof(p.ip), "%s", ip);
        if (all || th_json_path_bool(e, "conditions.ready", true)) {
            p.flags |= EP_READY;
        } else if (th_json_path_bool(e, "conditions.serving", false) &&
                   th_json_path_bool(e, "conditions.terminating", false)) {
            p.flags |= EP_TERMINATING;
        } else {
            continue;
        }
        const char *node = th_json_path_str(e, "nodeName");
        if (!node || th_streq(node, g->o->node_name)) {
            p.flags |= EP_LOCAL;
        }
        l->v = th_xgrow(l->v, &l->cap, l->n + 1, sizeof(*l->v));
        l->v[l->n++] = p;
    }
}

static void collect(struct gen *g, const struct th_json *svc, const struct th_json *port,
                    struct eps *l)
{
    const char *name = th_json_path_str(port, "name");
    bool all = th_json_path_bool(svc, "spec.publishNotReadyAddresses", false);
    for (size_t i = 0; i < th_json_len(g->slices); i++) {
        const struct th_json *s = th_json_at(g->slices, i);
        if (!th_slice_of(s, svc)) {
            continue;
        }
        struct th_json *ports = th_json_get(s, "ports");
        for (size_t k = 0; k < th_json_len(ports); k++) {
            const struct th_json *p = th_json_at(ports, k);
            const char *pn = th_json_path_str(p, "name");
            int number = (int)th_json_path_int(p, "port", 0);
            if (th_streq(pn ? pn : "", name ? name : "") && th_streq(proto_of(p), proto_of(port)) &&
                number > 0) {
                add_slice(g, s, number, all, l);
            }
        }
    }
    if (l->n > 0) {
        qsort(l->v, l->n, sizeof(*l->v), ep_cmp);
    }
}

/* Keeps endpoints with all of `want`; doubles go. */
static struct eps chosen(const struct eps *all, unsigned want)
{
    struct eps r = {0};
    for (size_t i = 0; i < all->n; i++) {
        if ((all->v[i].flags & want) == want && (r.n == 0 || ep_cmp(&r.v[r.n - 1], &all->v[i]) != 0)) {
            r.v = th_xgrow(r.v, &r.cap, r.n + 1, sizeof(*r.v));
            r.v[r.n++] = all->v[i];
        }
    }
    return r;
}

/* The verdict for a Service port under a traffic policy: "goto s3", "drop", or NULL: refuse. */
static char *verdict(struct gen *g, const struct th_json *svc, const char *proto,
                     const struct eps *all, bool local)
{
    unsigned where = local ? EP_LOCAL : 0;
    struct eps l = chosen(all, EP_READY | where);
    if (l.n == 0) {
        free(l.v);
        l = chosen(all, EP_TERMINATING | where);
    }
    if (l.n == 0) {
        free(l.v);
        return local && all->n > 0 ? th_xstrdup("drop") : NULL;
    }
    bool sticky = th_streq(th_json_path_str(svc, "spec.sessionAffinity"), "ClientIP");
    th_buf_printf(&g->chains, "\tchain s%d {\n\t\tmeta l4proto %s dnat ip to ", g->next, proto);
    if (l.n == 1) {
        th_buf_printf(&g->chains, "%s:%d\n", l.v[0].ip, l.v[0].port);
    } else {
        th_buf_printf(&g->chains, "%s mod %zu map { ", sticky ? "jhash ip saddr" : "numgen random",
                      l.n);
        for (size_t i = 0; i < l.n; i++) {
            th_buf_printf(&g->chains, "%s%zu : %s . %d", i ? ", " : "", i, l.v[i].ip, l.v[i].port);
        }
        th_buf_puts(&g->chains, " }\n");
    }
    th_buf_puts(&g->chains, "\t}\n");
    for (size_t i = 0; i < l.n; i++) {
        th_hmap_set(&g->hairpin, l.v[i].ip, NULL);
    }
    free(l.v);
    return th_xasprintf("goto s%d", g->next++);
}

static void element(struct th_buf *b, const char *text)
{
    th_buf_printf(b, "%s\n\t\t\t%s", b->n ? "," : "", text);
}

/* An address of a Service: into the map, or to be refused when it is nobody else's. */
static void vip(struct gen *g, const char *ip, const char *proto, int port, const char *v, bool cluster)
{
    th_autofree char *key = th_xasprintf("%s . %s . %d", ip, proto, port);
    if (!is_ip4(ip) || th_streq(ip, g->o->cluster_dns) || th_hmap_has(&g->seen, key)) {
        return;
    }
    th_hmap_set(&g->seen, key, NULL);
    if (v) {
        th_autofree char *e = th_xasprintf("%s : %s", key, v);
        element(&g->vips, e);
    } else if (!cluster) {
        element(&g->reject_ext, key);
    }
}

static void node_port(struct gen *g, const char *proto, int port, const char *v)
{
    th_autofree char *key = th_xasprintf("%s . %d", proto, port);
    if (port <= 0 || th_hmap_has(&g->seen, key)) {
        return;
    }
    th_hmap_set(&g->seen, key, NULL);
    if (v) {
        th_autofree char *e = th_xasprintf("%s : %s", key, v);
        element(&g->nodeports, e);
    } else {
        element(&g->noports, key);
    }
}

bool th_lb_ip(const struct th_net_opts *o, const char *cluster_ip, char out[INET_ADDRSTRLEN])
{
    struct in_addr a;
    if (!cluster_ip || inet_pton(AF_INET, cluster_ip, &a) != 1 || o->profile_number < 0 ||
        o->profile_number > 159) {
        return false;
    }
    uint32_t net = (127u << 24) | ((uint32_t)(96 + o->profile_number) << 16);
    a.s_addr = htonl(net | (ntohl(a.s_addr) & 0xffff));
    (void)inet_ntop(AF_INET, &a, out, INET_ADDRSTRLEN);
    return true;
}

static void external(struct gen *g, const struct th_json *svc, const char *proto, int port,
                     const char *v)
{
    struct th_json *ext = th_json_path(svc, "spec.externalIPs");
    for (size_t i = 0; i < th_json_len(ext); i++) {
        const char *ip = th_json_str(th_json_at(ext, i));
        vip(g, ip ? ip : "", proto, port, v, false);
    }
    if (!th_streq(th_json_path_str(svc, "spec.type"), "LoadBalancer")) {
        return;
    }
    char lb[INET_ADDRSTRLEN];
    if (th_lb_ip(g->o, th_json_path_str(svc, "spec.clusterIP"), lb)) {
        vip(g, lb, proto, port, v, false); /* processes on the node's own network */
    }
    struct th_json *in = th_json_path(svc, "status.loadBalancer.ingress");
    for (size_t i = 0; i < th_json_len(in); i++) {
        const char *ip = th_json_path_str(th_json_at(in, i), "ip");
        if (!th_streq(th_json_path_str(th_json_at(in, i), "ipMode"), "Proxy")) {
            vip(g, ip ? ip : "", proto, port, v, false);
        }
    }
}

static void service(struct gen *g, const struct th_json *svc)
{
    const char *ip = th_json_path_str(svc, "spec.clusterIP");
    if (!is_ip4(ip) || th_streq(th_json_path_str(svc, "spec.type"), "ExternalName") ||
        th_json_has(th_json_path(svc, "metadata.labels"), "service.kubernetes.io/service-proxy-name")) {
        return;
    }
    bool in_local = th_streq(th_json_path_str(svc, "spec.internalTrafficPolicy"), "Local");
    bool ex_local = th_streq(th_json_path_str(svc, "spec.externalTrafficPolicy"), "Local");
    if (!th_streq(ip, g->o->cluster_dns)) {
        element(&g->cluster_ips, ip);
    }
    struct th_json *ports = th_json_path(svc, "spec.ports");
    for (size_t i = 0; i < th_json_len(ports); i++) {
        const struct th_json *p = th_json_at(ports, i);
        const char *proto = proto_of(p);
        int number = (int)th_json_path_int(p, "port", 0);
        struct eps all = {0};
        collect(g, svc, p, &all);
        th_autofree char *in = verdict(g, svc, proto, &all, in_local);
        th_autofree char *ex = in_local == ex_local ? th_xstrdup(in)
                                                    : verdict(g, svc, proto, &all, ex_local);
        vip(g, ip, proto, number, in, true);
        external(g, svc, proto, number, ex);
        node_port(g, proto, (int)th_json_path_int(p, "nodePort", 0), ex);
        free(all.v);
    }
}

static void set_of(struct th_buf *b, const char *kind, const char *name, const char *type,
                   const struct th_buf *elements)
{
    th_buf_printf(b, "\t%s %s {\n\t\ttype %s\n", kind, name, type);
    if (elements->n > 0) {
        th_buf_printf(b, "\t\telements = {%s\n\t\t}\n", elements->p);
    }
    th_buf_puts(b, "\t}\n");
}

static void hairpins(struct gen *g, struct th_buf *ret)
{
    th_autostrv struct th_strv ips = TH_STRV_INIT;
    struct th_hmap_entry *e;
    for (size_t it = 0; (e = th_hmap_next(&g->hairpin, &it));) {
        th_strv_add(&ips, e->key);
    }
    th_strv_sort(&ips);
    for (size_t i = 0; i < ips.n; i++) {
        th_autofree char *t = th_xasprintf("%s . %s", ips.v[i], ips.v[i]);
        element(ret, t);
    }
}

static void base_chains(struct gen *g, struct th_buf *b)
{
    static const char LOOK[] = "\t\tip daddr . meta l4proto . th dport vmap @vips\n"
                               "\t\tfib daddr type local meta l4proto . th dport vmap @nodeports\n";
    static const char REFUSE[] = "\t\tct state new ip daddr . meta l4proto . th dport @noext reject\n";
    th_buf_printf(b, "\tchain prerouting {\n\t\ttype nat hook prerouting priority -100\n%s\t}\n", LOOK);
    th_buf_printf(b, "\tchain output {\n\t\ttype nat hook output priority -100\n%s\t}\n", LOOK);
    th_buf_printf(b,
                  "\tchain postrouting {\n\t\ttype nat hook postrouting priority 100\n"
                  "\t\tip saddr . ip daddr @hairpin snat to %s\n"
                  "\t\tip saddr 127.0.0.0/8 ip daddr != 127.0.0.0/8 snat to %s\n"
                  "\t\tip saddr %s ip daddr != %s oifname != \"th*\" snat to %s\n\t}\n",
                  g->o->node_ip, g->o->node_ip, g->o->pod_cidr, g->o->pod_cidr, g->o->node_ip);
    th_buf_printf(b,
                  "\tchain forward {\n\t\ttype filter hook forward priority -10\n"
                  "\t\tct state new ip daddr @cluster_ips reject\n%s\t}\n",
                  REFUSE);
    th_buf_printf(b,
                  "\tchain local_out {\n\t\ttype filter hook output priority -10\n"
                  "\t\tct state new ip daddr @cluster_ips reject\n%s"
                  "\t}\n",
                  REFUSE);
    th_buf_printf(b,
                  "\tchain input {\n\t\ttype filter hook input priority -10\n"
                  "\t\tct state new meta l4proto . th dport @noports reject\n%s\t}\n",
                  REFUSE);
}

void th_ruleset_build(const struct th_net_opts *o, struct th_json *services, struct th_json *slices,
                      struct th_buf *ret)
{
    struct gen g = {.o = o, .slices = slices};
    th_hmap_init(&g.seen, NULL);
    th_hmap_init(&g.hairpin, NULL);
    for (size_t i = 0; i < th_json_len(services); i++) {
        service(&g, th_json_at(services, i));
    }
    th_autobuf struct th_buf hair = TH_BUF_INIT;
    hairpins(&g, &hair);
    th_buf_puts(ret, "add table ip thimble\ndelete table ip thimble\ntable ip thimble {\n");
    th_buf_addstr(ret, th_buf_str(&g.chains));
    set_of(ret, "map", "vips", "ipv4_addr . inet_proto . inet_service : verdict", &g.vips);
    set_of(ret, "map", "nodeports", "inet_proto . inet_service : verdict", &g.nodeports);
    set_of(ret, "set", "noports", "inet_proto . inet_service", &g.noports);
    set_of(ret, "set", "noext", "ipv4_addr . inet_proto . inet_service", &g.reject_ext);
    set_of(ret, "set", "cluster_ips", "ipv4_addr", &g.cluster_ips);
    set_of(ret, "set", "hairpin", "ipv4_addr . ipv4_addr", &hair);
    base_chains(&g, ret);
    th_buf_puts(ret, "}\n");
    struct th_buf *bufs[] = {&g.chains,  &g.vips,       &g.nodeports,
                             &g.noports, &g.reject_ext, &g.cluster_ips};
    for (size_t i = 0; i < TH_ARRAY_LEN(bufs); i++) {
        th_buf_done(bufs[i]);
    }
    th_hmap_done(&g.seen);
    th_hmap_done(&g.hairpin);
}
