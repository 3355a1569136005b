/* Services as an nftables table: a pure function of Services and EndpointSlices.
 *
 * One table `ip thimble`, in which NetworkPolicy (policy.c) has its chains too. Connections are looked at once, by the first packet, in the two nat hooks
 * that come before routing; conntrack does the rest. `dispatch` leads by map from address, protocol
 * and port of a Service (@services), or from a port of the node itself (@nodeports), to a chain:
 *
 *   svc-NS/NAME/PROTO/PORT     one of all endpoints
 *   local-…                    one of this node's endpoints (a traffic policy is Local)
 *   ext-…                      externalTrafficPolicy Local: pods and the node itself may use all
 *                              endpoints, others only those of this node
 *   fw-…                       loadBalancerSourceRanges: who may go on to ext or svc
 *   ep-…/IP/PORT               sessionAffinity ClientIP: notes the client, then goes to the endpoint
 *   hostport-PROTO/PORT        the pod of this node that has this hostPort
 *   refuse                     TCP reset, or ICMP port unreachable
 *
 * Addresses without endpoints, and ports that a Service does not have, are refused at once, from
 * pods and from the node; addresses of the Service network that nobody has are dropped; both as
 * upstream's proxy does, except that upstream answers TCP with ICMP too, which Linux shows to a
 * client on the same machine only after a second. Policy Local without an endpoint here drops.
 *
 * Affinity is one dynamic set per endpoint, whose elements the kernel adds with the client's address
 * and forgets timeoutSeconds after the last connection; so it outlives changes of other endpoints
 * (nfttable.c), and services.c carries it over a restart of the agent.
 *
 * The address of a LoadBalancer Service is 127.(96+k).A.B on the host. Inside, three ways lead to it:
 * the node's own processes use that address; pods cannot send 127.0.0.0/8, so their namespace turns
 * it into 198.18.A.B (benchmarking addresses, RFC 2544), which is routed here; the host's relay comes
 * to an "entry port" of the node (th_entries_assign), which only it uses, so that node ports and load
 * balancer stay two things and Services without node ports work too.
 *
 * The source address is kept except where the answer would go astray: a pod that reaches itself
 * through a Service, and clients on 127.0.0.0/8. They, and pods that leave the node, get the node's
 * address. Upstream hides the client behind the node for external traffic with policy Cluster; with
 * one node nothing needs that. IPv4 only. */
#include "base/json/json.h"
#include "vm/node/net/net_priv.h"
#include "vm/node/net/nfttable.h"

#include <arpa/inet.h>

#define SERVICE_TYPE "type ipv4_addr . inet_proto . inet_service"
#define AFFINITY_SECONDS 10800 /* the API's default */

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
    const struct th_net_state *st;
    struct th_nft_table *t;
};

/* One port of one Service. */
struct svcport {
    const struct th_json *svc, *port;
    const char *proto;
    int number;
    char *key; /* ns/name/proto/port */
    struct eps all;
};

/* ---- endpoints ---- */

static int ep_cmp(const void *a, const void *b)
{
    const struct ep *x = a, *y = b;
    int c = strcmp(x->ip, y->ip);
    return c ? c : (x->port > y->port) - (x->port < y->port);
}

static unsigned state_of(const struct th_json *endpoint)
{
    if (th_json_path_bool(endpoint, "conditions.ready", true)) {
        return EP_READY;
    }
    return th_json_path_bool(endpoint, "conditions.serving", false) &&
                   th_json_path_bool(endpoint, "conditions.terminating", false)
               ? EP_TERMINATING
               : 0;
}

static void add_slice(struct gen *g, const struct th_json *slice, int port, struct eps *l)
{
    struct th_json *list = th_json_get(slice, "endpoints");
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *e = th_json_at(list, i);
        const char *ip = th_json_str(th_json_at(th_json_get(e, "addresses"), 0));
        struct ep p = {.port = port, .flags = state_of(e)};
        if (!th_is_ip4(ip) || p.flags == 0) {
            continue;
        }
        (void)snprintf(p.ip, sizeof(p.ip), "%s", ip);
        const char *node = th_json_path_str(e, "nodeName");
        if (!node || th_streq(node, g->o->node_name)) {
            p.flags |= EP_LOCAL;
        }
        l->v = th_xgrow(l->v, &l->cap, l->n + 1, sizeof(*l->v));
        l->v[l->n++] = p;
    }
}

static void collect(struct gen *g, struct svcport *s)
{
    const char *name = th_json_path_str(s->port, "name");
    const struct th_json *slices = th_net_slices(g->st, s->svc);
    for (size_t i = 0; i < th_json_len(slices); i++) {
        const struct th_json *slice = th_json_at(slices, i);
        struct th_json *ports = th_json_get(slice, "ports");
        for (size_t k = 0; k < th_json_len(ports); k++) {
            const struct th_json *p = th_json_at(ports, k);
            const char *pn = th_json_path_str(p, "name");
            int64_t number = th_json_path_int(p, "port", 0);
            if (th_streq(pn ? pn : "", name ? name : "") && th_streq(th_proto_of(p), s->proto) &&
                number > 0 && number < 65536) {
                add_slice(g, slice, (int)number, &s->all);
            }
        }
    }
    if (s->all.n > 0) {
        qsort(s->all.v, s->all.n, sizeof(*s->all.v), ep_cmp);
    }
}

/* Endpoints with all of `want`; doubles go. */
static struct eps having(const struct eps *all, unsigned want)
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

/* Those that get new connections: the ready ones; when there are none, those that still serve while
 * they end. */
static struct eps usable(const struct eps *all, unsigned where)
{
    struct eps r = having(all, EP_READY | where);
    if (r.n == 0) {
        free(r.v);
        r = having(all, EP_TERMINATING | where);
    }
    return r;
}

size_t th_local_endpoints(const struct th_net_opts *o, const struct th_net_state *st,
                          const struct th_json *svc)
{
    struct gen g = {.o = o, .st = st};
    struct eps all = {0};
    const struct th_json *slices = th_net_slices(st, svc);
    for (size_t i = 0; i < th_json_len(slices); i++) {
        add_slice(&g, th_json_at(slices, i), 0, &all);
    }
    if (all.n > 0) {
        qsort(all.v, all.n, sizeof(*all.v), ep_cmp);
    }
    struct eps l = usable(&all, EP_LOCAL);
    size_t n = l.n;
    free(all.v);
    free(l.v);
    return n;
}

bool th_port_usable(const struct th_net_opts *o, const struct th_net_state *st, const struct th_json *svc,
                    const struct th_json *port)
{
    struct gen g = {.o = o, .st = st};
    struct svcport s = {.svc = svc, .port = port, .proto = th_proto_of(port)};
    collect(&g, &s);
    bool any = s.all.n > 0;
    free(s.all.v);
    return any;
}

/* ---- chains of a Service port ---- */

/* The chain of an endpoint of a Service with affinity; @set remembers its clients. */
static char *sticky_endpoint(struct gen *g, const struct svcport *s, const struct ep *e, char **ret_set)
{
    int64_t seconds = th_json_path_int(s->svc, "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
                                       AFFINITY_SECONDS);
    char *chain = th_xasprintf("ep-%s/%s/%d", s->key, e->ip, e->port);
    *ret_set = th_xasprintf("%s%d/%s/%s/%d", TH_AFFINITY, (int)seconds, s->key, e->ip, e->port);
    if (!th_nft_has_chain(g->t, chain)) {
        th_autofree char *spec = th_xasprintf("type ipv4_addr; flags dynamic,timeout; timeout %ds",
                                              (int)seconds);
        th_nft_set(g->t, *ret_set, false, spec);
        th_nft_chain(g->t, chain, NULL);
        th_nft_rule(g->t, chain, "update @%s { ip saddr }", *ret_set);
        th_nft_rule(g->t, chain, "meta l4proto %s dnat ip to %s:%d", s->proto, e->ip, e->port);
    }
    return chain;
}

static void sticky_rules(struct gen *g, const struct svcport *s, const char *chain, const struct eps *l)
{
    th_autobuf struct th_buf pick = TH_BUF_INIT;
    for (size_t i = 0; i < l->n; i++) {
        th_autofree char *set = NULL, *to = sticky_endpoint(g, s, &l->v[i], &set);
        th_nft_rule(g->t, chain, "ip saddr @%s goto %s", set, to);
        th_buf_printf(&pick, "%s%zu : goto %s", i ? ", " : "", i, to);
    }
    th_nft_rule(g->t, chain, "numgen random mod %zu vmap { %s }", l->n, th_buf_cstr(&pick));
}

static void plain_rules(struct gen *g, const struct svcport *s, const char *chain, const struct eps *l)
{
    if (l->n == 1) {
        th_nft_rule(g->t, chain, "meta l4proto %s dnat ip to %s:%d", s->proto, l->v[0].ip, l->v[0].port);
        return;
    }
    th_autobuf struct th_buf pick = TH_BUF_INIT;
    for (size_t i = 0; i < l->n; i++) {
        th_buf_printf(&pick, "%s%zu : %s . %d", i ? ", " : "", i, l->v[i].ip, l->v[i].port);
    }
    th_nft_rule(g->t, chain, "meta l4proto %s dnat ip to numgen random mod %zu map { %s }", s->proto, l->n,
                th_buf_cstr(&pick));
}

/* "goto svc-…" or "goto local-…", or NULL without an endpoint. */
static char *endpoints_verdict(struct gen *g, const struct svcport *s, bool local)
{
    struct eps l = usable(&s->all, local ? EP_LOCAL : 0);
    if (l.n == 0) {
        free(l.v);
        return NULL;
    }
    char *verdict = th_xasprintf("goto %s-%s", local ? "local" : "svc", s->key);
    const char *chain = verdict + strlen("goto ");
    if (!th_nft_has_chain(g->t, chain)) {
        th_nft_chain(g->t, chain, NULL);
        if (th_streq(th_json_path_str(s->svc, "spec.sessionAffinity"), "ClientIP")) {
            sticky_rules(g, s, chain, &l);
        } else {
            plain_rules(g, s, chain, &l);
        }
    }
    for (size_t i = 0; i < l.n; i++) {
        th_autofree char *self = th_xasprintf("%s . %s", l.v[i].ip, l.v[i].ip);
        (void)th_nft_element(g->t, "hairpin", self, NULL);
    }
    free(l.v);
    return verdict;
}

/* What becomes of traffic to the ClusterIP. */
static char *internal_verdict(struct gen *g, const struct svcport *s)
{
    bool local = th_streq(th_json_path_str(s->svc, "spec.internalTrafficPolicy"), "Local");
    char *v = endpoints_verdict(g, s, local);
    return v ? v : th_xstrdup(local && s->all.n > 0 ? "drop" : "goto refuse");
}

/* And to node ports, external addresses and load balancers. */
static char *external_verdict(struct gen *g, const struct svcport *s)
{
    th_autofree char *all = endpoints_verdict(g, s, false);
    if (!th_streq(th_json_path_str(s->svc, "spec.externalTrafficPolicy"), "Local") || !all) {
        return all ? th_steal(&all) : th_xstrdup("goto refuse");
    }
    th_autofree char *local = endpoints_verdict(g, s, true);
    char *verdict = th_xasprintf("goto ext-%s", s->key);
    const char *chain = verdict + strlen("goto ");
    th_nft_chain(g->t, chain, NULL);
    th_nft_rule(g->t, chain, "ip saddr %s %s", g->o->pod_cidr, all);
    th_nft_rule(g->t, chain, "fib saddr type local %s", all);
    th_nft_rule(g->t, chain, "%s", local ? local : "drop");
    return verdict;
}

/* The external verdict behind loadBalancerSourceRanges. */
static char *firewalled(struct gen *g, const struct svcport *s, const char *external)
{
    const struct th_json *ranges = th_json_path(s->svc, "spec.loadBalancerSourceRanges");
    if (th_json_len(ranges) == 0) {
        return th_xstrdup(external);
    }
    char *verdict = th_xasprintf("goto fw-%s", s->key);
    const char *chain = verdict + strlen("goto ");
    th_nft_chain(g->t, chain, NULL);
    for (size_t i = 0; i < th_json_len(ranges); i++) {
        const char *r = th_json_str(th_json_at(ranges, i));
        if (th_is_cidr4(r)) {
            th_nft_rule(g->t, chain, "ip saddr %s %s", r, external);
        }
    }
    th_nft_rule(g->t, chain, "drop");
    return verdict;
}

/* ---- ways to a Service port ---- */

static void address(struct gen *g, const struct svcport *s, const char *ip, const char *verdict)
{
    if (th_is_ip4(ip) && !th_streq(ip, g->o->cluster_dns)) {
        th_autofree char *key = th_xasprintf("%s . %s . %d", ip, s->proto, s->number);
        (void)th_nft_element(g->t, "services", key, verdict);
    }
}

static void port_of_node(struct gen *g, const struct svcport *s, const char *map, int64_t port,
                         const char *verdict)
{
    if (port > 0 && port < 65536) {
        th_autofree char *key = th_xasprintf("%s . %d", s->proto, (int)port);
        (void)th_nft_element(g->t, map, key, verdict);
    }
}

static void load_balancer(struct gen *g, const struct svcport *s, const char *external)
{
    th_autofree char *v = firewalled(g, s, external);
    char ip[INET_ADDRSTRLEN];
    const char *cluster_ip = th_json_path_str(s->svc, "spec.clusterIP");
    if (th_lb_ours(s->svc)) {
        if (th_lb_ip(g->o, cluster_ip, ip)) {
            address(g, s, ip, v);
        }
        if (th_lb_inside_ip(cluster_ip, ip)) {
            address(g, s, ip, v);
        }
        port_of_node(g, s, "entries", th_json_path_int(s->port, TH_ENTRY_PORT, 0), external);
        return;
    }
    struct th_json *in = th_json_path(s->svc, "status.loadBalancer.ingress");
    for (size_t i = 0; i < th_json_len(in); i++) {
        if (!th_streq(th_json_path_str(th_json_at(in, i), "ipMode"), "Proxy")) {
            address(g, s, th_json_path_str(th_json_at(in, i), "ip"), v);
        }
    }
}

static void service_port(struct gen *g, struct svcport *s)
{
    const char *type = th_json_path_str(s->svc, "spec.type");
    struct th_json *ips = th_json_path(s->svc, "spec.externalIPs");
    int64_t node_port = th_json_path_int(s->port, "nodePort", 0);
    bool lb = th_streq(type, "LoadBalancer");
    collect(g, s);
    th_autofree char *in = internal_verdict(g, s);
    address(g, s, th_json_path_str(s->svc, "spec.clusterIP"), in);
    if (lb || node_port > 0 || th_json_len(ips) > 0) {
        th_autofree char *ext = external_verdict(g, s);
        for (size_t i = 0; i < th_json_len(ips); i++) {
            address(g, s, th_json_str(th_json_at(ips, i)), ext);
        }
        port_of_node(g, s, "nodeports", node_port, ext);
        if (lb) {
            load_balancer(g, s, ext);
        }
    }
}

static void service(struct gen *g, const struct th_json *svc)
{
    const char *ip = th_json_path_str(svc, "spec.clusterIP");
    if (!th_is_ip4(ip) || th_streq(th_json_path_str(svc, "spec.type"), "ExternalName") ||
        th_json_has(th_json_path(svc, "metadata.labels"), "service.kubernetes.io/service-proxy-name")) {
        return;
    }
    if (!th_streq(ip, g->o->cluster_dns)) {
        (void)th_nft_element(g->t, "cluster_ips", ip, NULL);
    }
    struct th_json *ports = th_json_path(svc, "spec.ports");
    for (size_t i = 0; i < th_json_len(ports); i++) {
        struct svcport s = {.svc = svc, .port = th_json_at(ports, i)};
        s.proto = th_proto_of(s.port);
        s.number = (int)th_json_path_int(s.port, "port", 0);
        s.key = th_xasprintf("%s/%s/%s/%d", th_json_path_str(svc, "metadata.namespace"),
                             th_json_path_str(svc, "metadata.name"), s.proto, s.number);
        service_port(g, &s);
        free(s.key);
        free(s.all.v);
    }
}

/* ---- host ports of pods ---- */

void th_host_ports(const struct th_net_state *st,
                   void (*fn)(void *arg, const struct th_json *pod, const struct th_json *port), void *arg)
{
    for (size_t i = 0; i < th_json_len(st->own_pods); i++) {
        const struct th_json *pod = th_json_at(st->own_pods, i);
        const char *phase = th_json_path_str(pod, "status.phase");
        struct th_json *containers = th_json_path(pod, "spec.containers");
        if (!th_is_ip4(th_json_path_str(pod, "status.podIP")) || th_streq(phase, "Succeeded") ||
            th_streq(phase, "Failed") || th_json_path_bool(pod, "spec.hostNetwork", false)) {
            continue;
        }
        for (size_t k = 0; k < th_json_len(containers); k++) {
            struct th_json *ports = th_json_get(th_json_at(containers, k), "ports");
            for (size_t m = 0; m < th_json_len(ports); m++) {
                const struct th_json *p = th_json_at(ports, m);
                int64_t host = th_json_path_int(p, "hostPort", 0), own = th_json_path_int(p, "containerPort", 0);
                if (host > 0 && host < 65536 && own > 0 && own < 65536) {
                    fn(arg, pod, p);
                }
            }
        }
    }
}

static void host_port(void *arg, const struct th_json *pod, const struct th_json *port)
{
    struct gen *g = arg;
    const char *ip = th_json_path_str(pod, "status.podIP"), *at = th_json_path_str(port, "hostIP");
    const char *proto = th_proto_of(port);
    int number = (int)th_json_path_int(port, "hostPort", 0);
    bool any = !at || !*at || th_streq(at, "0.0.0.0");
    if (!any && !th_is_ip4(at)) {
        return;
    }
    th_autofree char *verdict =
        th_xasprintf("goto hostport-%s%s%s/%d", any ? "" : at, any ? "" : "/", proto, number);
    th_autofree char *key = any ? th_xasprintf("%s . %d", proto, number)
                                : th_xasprintf("%s . %s . %d", at, proto, number);
    if (th_nft_element(g->t, any ? "hostports" : "services", key, verdict)) {
        const char *chain = verdict + strlen("goto ");
        th_autofree char *self = th_xasprintf("%s . %s", ip, ip);
        th_nft_chain(g->t, chain, NULL);
        th_nft_rule(g->t, chain, "meta l4proto %s dnat ip to %s:%d", proto, ip,
                    (int)th_json_path_int(port, "containerPort", 0));
        (void)th_nft_element(g->t, "hairpin", self, NULL);
    }
    if (at && th_startswith(at, "127.")) { /* the machine's own: its host's programs too, but no pods */
        th_autofree char *entry = th_xasprintf("%s . %d", proto, number);
        (void)th_nft_element(g->t, "entries", entry, verdict);
    }
}

/* ---- what is always there ---- */

/* Host ports are the agent's to ask for ("tcp:10.0.2.100:1"), no pod's. */
static void refuse_port_agent(struct gen *g)
{
    const char *at = g->o->ports_endpoint, *colon = at ? strrchr(at, ':') : NULL;
    if (at && th_startswith(at, "tcp:") && colon > at + 4) {
        th_autofree char *ip = th_xstrndup(at + 4, (size_t)(colon - at - 4));
        if (th_is_ip4(ip)) {
            th_nft_rule(g->t, "dispatch", "ip saddr %s ip daddr %s goto refuse", g->o->pod_cidr, ip);
        }
    }
}

static void frame(struct gen *g)
{
    struct th_nft_table *t = g->t;
    const struct th_net_opts *o = g->o;
    th_nft_set(t, "services", true, SERVICE_TYPE " : verdict");
    th_nft_set(t, "nodeports", true, "type inet_proto . inet_service : verdict");
    th_nft_set(t, "hostports", true, "type inet_proto . inet_service : verdict");
    th_nft_set(t, "entries", true, "type inet_proto . inet_service : verdict");
    th_nft_set(t, "cluster_ips", false, "type ipv4_addr");
    th_nft_set(t, "hairpin", false, "type ipv4_addr . ipv4_addr");

    th_nft_chain(t, "refuse", NULL);
    th_nft_rule(t, "refuse", "meta l4proto tcp reject with tcp reset");
    th_nft_rule(t, "refuse", "reject");

    th_nft_chain(t, "dispatch", NULL);
    refuse_port_agent(g);
    th_nft_rule(t, "dispatch", "ip daddr . meta l4proto . th dport vmap @services");
    th_nft_rule(t, "dispatch", "ip daddr @cluster_ips goto refuse");
    th_nft_rule(t, "dispatch", "ip daddr %s return", o->cluster_dns);
    th_nft_rule(t, "dispatch", "ip daddr %s drop", o->service_cidr);
    th_nft_rule(t, "dispatch", "ip daddr %s goto refuse", TH_LB_INSIDE_CIDR);
    th_nft_rule(t, "dispatch", "fib daddr type local meta l4proto . th dport vmap @hostports");
    th_nft_rule(t, "dispatch", "fib daddr type local meta l4proto . th dport vmap @nodeports");
    th_nft_rule(t, "dispatch", "fib daddr type local ip saddr != %s meta l4proto . th dport vmap @entries",
                o->pod_cidr);

    th_nft_chain(t, "prerouting", "type nat hook prerouting priority -100");
    th_nft_rule(t, "prerouting", "jump dispatch");
    th_nft_chain(t, "output", "type nat hook output priority -100");
    th_nft_rule(t, "output", "jump dispatch");
    th_nft_chain(t, "postrouting", "type nat hook postrouting priority 100");
    th_nft_rule(t, "postrouting", "ip saddr . ip daddr @hairpin snat to %s", o->node_ip);
    th_nft_rule(t, "postrouting", "ip saddr 127.0.0.0/8 ip daddr != 127.0.0.0/8 snat to %s", o->node_ip);
    th_nft_rule(t, "postrouting", "ip saddr %s ip daddr != %s oifname != \"th*\" snat to %s", o->pod_cidr,
                o->pod_cidr, o->node_ip);
}

struct th_nft_table *th_ruleset_new(const struct th_net_opts *o, const struct th_net_state *st)
{
    struct gen g = {.o = o, .st = st, .t = th_nft_table_new("ip", "thimble")};
    frame(&g);
    for (size_t i = 0; i < th_json_len(st->services); i++) {
        service(&g, th_json_at(st->services, i));
    }
    th_host_ports(st, host_port, &g);
    th_policy_add(g.t, o, st);
    return g.t;
}

/* ---- where UDP goes ---- */

static void ways_free(void *p)
{
    th_strv_done(p);
    free(p);
}

static void way(struct th_hmap *ways, const char *ip, int64_t port, const struct eps *l, struct th_buf *text)
{
    th_autofree char *key = th_xasprintf("%s %d", ip, (int)port);
    if (port <= 0 || th_hmap_has(ways, key)) {
        return;
    }
    struct th_strv *ends = TH_NEW(struct th_strv);
    th_buf_printf(text, "%s:", key);
    for (size_t i = 0; i < l->n; i++) {
        th_strv_addf(ends, "%s %d", l->v[i].ip, l->v[i].port);
        th_buf_printf(text, " %s %d,", l->v[i].ip, l->v[i].port);
    }
    th_buf_putc(text, '\n');
    th_hmap_set(ways, key, ends);
}

static void ways_of(struct gen *g, struct svcport *s, struct th_hmap *ways, struct th_buf *text)
{
    char ip[INET_ADDRSTRLEN];
    const char *cluster_ip = th_json_path_str(s->svc, "spec.clusterIP");
    struct th_json *ips = th_json_path(s->svc, "spec.externalIPs");
    collect(g, s);
    struct eps l = usable(&s->all, 0), here = usable(&s->all, EP_LOCAL);
    for (size_t i = 0; i < here.n; i++) { /* may be others when none is ready here */
        l.v = th_xgrow(l.v, &l.cap, l.n + 1, sizeof(*l.v));
        l.v[l.n++] = here.v[i];
    }
    way(ways, cluster_ip, s->number, &l, text);
    way(ways, "*", th_json_path_int(s->port, "nodePort", 0), &l, text);
    for (size_t i = 0; i < th_json_len(ips); i++) {
        const char *e = th_json_str(th_json_at(ips, i));
        way(ways, e ? e : "", s->number, &l, text);
    }
    if (th_lb_ours(s->svc)) {
        way(ways, "*", th_json_path_int(s->port, TH_ENTRY_PORT, 0), &l, text);
        if (th_lb_ip(g->o, cluster_ip, ip)) {
            way(ways, ip, s->number, &l, text);
        }
        if (th_lb_inside_ip(cluster_ip, ip)) {
            way(ways, ip, s->number, &l, text);
        }
    }
    free(l.v);
    free(here.v);
    free(s->all.v);
}

struct ways {
    struct th_hmap *ways;
    struct th_buf *text;
};

static void host_way(void *arg, const struct th_json *pod, const struct th_json *port)
{
    struct ways *w = arg;
    const char *at = th_json_path_str(port, "hostIP");
    struct ep end = {.port = (int)th_json_path_int(port, "containerPort", 0)};
    struct eps one = {.v = &end, .n = 1};
    (void)snprintf(end.ip, sizeof(end.ip), "%s", th_json_path_str(pod, "status.podIP"));
    if (th_streq(th_proto_of(port), "udp")) {
        way(w->ways, !at || !*at || th_streq(at, "0.0.0.0") ? "*" : at,
            th_json_path_int(port, "hostPort", 0), &one, w->text);
    }
}

void th_ruleset_udp(const struct th_net_opts *o, const struct th_net_state *st, struct th_hmap *ways,
                    struct th_buf *text)
{
    struct gen g = {.o = o, .st = st};
    struct ways w = {ways, text};
    th_hmap_init(ways, ways_free);
    th_host_ports(st, host_way, &w);
    for (size_t i = 0; i < th_json_len(st->services); i++) {
        const struct th_json *svc = th_json_at(st->services, i);
        struct th_json *ports = th_is_ip4(th_json_path_str(svc, "spec.clusterIP"))
                                    ? th_json_path(svc, "spec.ports")
                                    : NULL;
        for (size_t k = 0; k < th_json_len(ports); k++) {
            struct svcport s = {.svc = svc, .port = th_json_at(ports, k)};
            s.proto = th_proto_of(s.port);
            s.number = (int)th_json_path_int(s.port, "port", 0);
            if (th_streq(s.proto, "udp")) {
                ways_of(&g, &s, ways, text);
            }
        }
    }
}
