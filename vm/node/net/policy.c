/* NetworkPolicy, as chains of the same table: a pure function of policies, pods and namespaces.
 *
 * Policies are about pods, so they are looked at after Services have been translated: in the forward
 * hook, and for what pods send to the node itself (DNS, the API server) in the input hook. Only first
 * packets of connections are looked at. Two maps lead from the address of a pod of this node that a
 * policy isolates to a chain; pods with the same policies share it. In it, each thing that is allowed
 * is a rule that returns, and the end drops; the policies of the other direction come after.
 *
 *   policy-egress, policy-ingress   maps: address of a pod -> jump egress-HASH, ingress-HASH
 *   peers-…                         sets: addresses of the pods of one rule's peers
 *   named-…                         sets: address, protocol and number of ports given by name
 *
 * So pods that come and go change elements, not rules. Without policies none of this is there.
 *
 * The node's own connections are never held back (probes), but what comes from the host through a
 * node port or a load balancer is: it was sent to the node's address. The DNS server is no pod here;
 * it counts as one of kube-system with k8s-app=kube-dns, as policies that allow DNS name it. Pods in
 * the node's network have no address of their own and are neither isolated nor peers. Upstream leaves
 * enforcement to network plug-ins; connections that exist are left alone, which it leaves open. */
#include "base/json/json.h"
#include "base/rand.h"
#include "controlplane/schema/selector.h"
#include "vm/node/net/net_priv.h"
#include "vm/node/net/nfttable.h"

#define NAME_MAX_B 120

struct pod {
    const char *ns, *ip;
    const struct th_json *labels, *ns_labels, *containers;
    bool here;
};
/* A peer of a rule that is pods, parsed once for all pods. */
struct peer {
    bool by_ns, by_pod;
    struct th_selector *ns, *pods; /* NULL: not parsed, matches nothing */
};
struct peers {
    struct peer *v;
    size_t n;
    bool all; /* the rule names none */
};
struct policy {
    const struct th_json *obj;
    const char *ns;
    struct th_selector *pods;
    bool types[2]; /* by direction */
    char *name;    /* "ns/name", or a hash of it when that is long */
};
struct gen {
    const struct th_net_opts *o;
    const struct th_net_state *st;
    struct th_nft_table *t;
    struct pod *pods;
    size_t n_pods;
    struct policy *policies;
    size_t n_policies;
};

enum { INGRESS, EGRESS };
static const char *const DIRECTIONS[] = {"ingress", "egress"};
/* Members of rules with the peers, and the address of a packet that is the peer's. */
static const char *const PEERS[] = {"from", "to"}, *const PEER_ADDR[] = {"ip saddr", "ip daddr"};

/* ---- reading ---- */

static bool is_over(const struct th_json *pod)
{
    const char *phase = th_json_path_str(pod, "status.phase");
    return th_streq(phase, "Succeeded") || th_streq(phase, "Failed");
}

static const struct th_json *namespace_labels(const struct gen *g, const char *ns)
{
    for (size_t i = 0; i < th_json_len(g->st->namespaces); i++) {
        const struct th_json *n = th_json_at(g->st->namespaces, i);
        if (th_streq(th_json_path_str(n, "metadata.name"), ns)) {
            return th_json_path(n, "metadata.labels");
        }
    }
    return NULL;
}

static void read_pods(struct gen *g, const struct th_json *dns_labels)
{
    size_t n = th_json_len(g->st->pods);
    g->pods = th_xcalloc(n + 1, sizeof(*g->pods));
    for (size_t i = 0; i < n; i++) {
        const struct th_json *p = th_json_at(g->st->pods, i);
        const char *ip = th_json_path_str(p, "status.podIP");
        if (th_is_ip4(ip) && !is_over(p) && !th_json_path_bool(p, "spec.hostNetwork", false)) {
            g->pods[g->n_pods++] =
                (struct pod){.ns = th_json_path_str(p, "metadata.namespace"),
                             .ip = ip,
                             .labels = th_json_path(p, "metadata.labels"),
                             .ns_labels = namespace_labels(g, th_json_path_str(p, "metadata.namespace")),
                             .containers = th_json_path(p, "spec.containers"),
                             .here = th_streq(th_json_path_str(p, "spec.nodeName"), g->o->node_name)};
        }
    }
    g->pods[g->n_pods++] =
        (struct pod){.ns = "kube-system", .ip = g->o->cluster_dns, .labels = dns_labels,
                     .ns_labels = namespace_labels(g, "kube-system")};
}

static void read_policies(struct gen *g)
{
    size_t n = th_json_len(g->st->policies);
    g->policies = th_xcalloc(n, sizeof(*g->policies));
    for (size_t i = 0; i < n; i++) {
        const struct th_json *obj = th_json_at(g->st->policies, i);
        struct policy *p = &g->policies[g->n_policies];
        const struct th_json *types = th_json_path(obj, "spec.policyTypes");
        const struct th_json *pods = th_json_path(obj, "spec.podSelector");
        if (pods && th_selector_from_json(pods, &p->pods, NULL) < 0) {
            continue; /* the API server takes none such */
        }
        p->pods = pods ? p->pods : th_selector_everything();
        p->obj = obj;
        p->ns = th_json_path_str(obj, "metadata.namespace");
        p->name = th_xasprintf("%s/%s", p->ns, th_json_path_str(obj, "metadata.name"));
        if (strlen(p->name) > NAME_MAX_B) {
            unsigned long long h = th_hash64(p->name, strlen(p->name));
            free(p->name);
            p->name = th_xasprintf("%016llx", h);
        }
        for (size_t k = 0; k < th_json_len(types); k++) {
            p->types[th_streq(th_json_str(th_json_at(types, k)), "Egress") ? EGRESS : INGRESS] = true;
        }
        if (th_json_len(types) == 0) {
            p->types[INGRESS] = true;
            p->types[EGRESS] = th_json_len(th_json_path(obj, "spec.egress")) > 0;
        }
        g->n_policies++;
    }
}

static struct peers peers_new(const struct th_json *list)
{
    struct peers r = {.v = th_xcalloc(th_json_len(list) + 1, sizeof(struct peer)), .all = th_json_len(list) == 0};
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *ns = th_json_get(th_json_at(list, i), "namespaceSelector");
        const struct th_json *pods = th_json_get(th_json_at(list, i), "podSelector");
        if (ns || pods) {
            struct peer *p = &r.v[r.n++];
            p->by_ns = ns != NULL;
            p->by_pod = pods != NULL;
            (void)!(ns ? th_selector_from_json(ns, &p->ns, NULL) : 0);
            (void)!(pods ? th_selector_from_json(pods, &p->pods, NULL) : 0);
        }
    }
    return r;
}

static void peers_done(struct peers *r)
{
    for (size_t i = 0; i < r->n; i++) {
        th_selector_free(r->v[i].ns);
        th_selector_free(r->v[i].pods);
    }
    free(r->v);
}

static bool peer_is(const struct policy *p, const struct peer *peer, const struct pod *pod)
{
    bool ns = peer->by_ns ? peer->ns && th_selector_matches(peer->ns, pod->ns_labels) : th_streq(pod->ns, p->ns);
    return ns && (!peer->by_pod || (peer->pods && th_selector_matches(peer->pods, pod->labels)));
}

/* Is the pod among the peers of a rule? */
static bool is_peer(const struct policy *p, const struct peers *peers, const struct pod *pod)
{
    for (size_t i = 0; i < peers->n; i++) {
        if (peer_is(p, &peers->v[i], pod)) {
            return true;
        }
    }
    return peers->all;
}

/* ---- one rule of a policy ---- */

/* Alternatives of a match, as parts of rules: who, and which port. */
static void peer_matches(struct gen *g, const struct policy *p, int dir, size_t number,
                         const struct th_json *list, const struct peers *peers, struct th_strv *ret)
{
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *block = th_json_get(th_json_at(list, i), "ipBlock");
        const char *cidr = th_json_path_str(block, "cidr");
        const struct th_json *except = th_json_get(block, "except");
        if (!th_is_cidr4(cidr)) {
            continue;
        }
        th_autobuf struct th_buf b = TH_BUF_INIT;
        th_buf_printf(&b, "%s %s", PEER_ADDR[dir], cidr);
        for (size_t k = 0; k < th_json_len(except); k++) {
            const char *e = th_json_str(th_json_at(except, k));
            if (th_is_cidr4(e)) {
                th_buf_printf(&b, " %s != %s", PEER_ADDR[dir], e);
            }
        }
        th_strv_take(ret, th_buf_steal(&b, NULL));
    }
    if (peers->all) {
        th_strv_add(ret, "");
    } else if (peers->n > 0) {
        th_autofree char *set = th_xasprintf("peers-%s-%s/%zu", DIRECTIONS[dir], p->name, number);
        if (!th_nft_has_set(g->t, set)) {
            th_nft_set(g->t, set, false, "type ipv4_addr");
        }
        for (size_t i = 0; i < g->n_pods; i++) {
            if (is_peer(p, peers, &g->pods[i])) {
                (void)th_nft_element(g->t, set, g->pods[i].ip, NULL);
            }
        }
        th_strv_addf(ret, "%s @%s", PEER_ADDR[dir], set);
    }
}

static void add_named(struct gen *g, const char *set, const struct pod *pod, const char *name, const char *proto)
{
    bool dns = !pod->containers && (th_streq(name, "dns") || th_streq(name, "dns-tcp"));
    if (dns) {
        th_autofree char *e = th_xasprintf("%s . %s . 53", pod->ip, proto);
        (void)th_nft_element(g->t, set, e, NULL);
    }
    for (size_t i = 0; i < th_json_len(pod->containers); i++) {
        const struct th_json *ports = th_json_get(th_json_at(pod->containers, i), "ports");
        for (size_t k = 0; k < th_json_len(ports); k++) {
            const struct th_json *port = th_json_at(ports, k);
            int number = (int)th_json_path_int(port, "containerPort", 0);
            if (th_streq(th_json_path_str(port, "name"), name) && th_streq(th_proto_of(port), proto) && number > 0) {
                th_autofree char *e = th_xasprintf("%s . %s . %d", pod->ip, proto, number);
                (void)th_nft_element(g->t, set, e, NULL);
            }
        }
    }
}

/* A port by name may be another number in every pod: the pods that it is looked up in are those the
 * packet goes to. */
static char *named_match(struct gen *g, const struct policy *p, int dir, size_t number, size_t k,
                         const struct peers *peers, const char *name, const char *proto)
{
    th_autofree char *set = th_xasprintf("named-%s-%s/%zu/%zu", DIRECTIONS[dir], p->name, number, k);
    if (!th_nft_has_set(g->t, set)) {
        th_nft_set(g->t, set, false, "type ipv4_addr . inet_proto . inet_service");
    }
    for (size_t i = 0; i < g->n_pods; i++) {
        const struct pod *pod = &g->pods[i];
        bool goes_there = dir == EGRESS ? is_peer(p, peers, pod)
                                        : th_streq(pod->ns, p->ns) && th_selector_matches(p->pods, pod->labels);
        if (goes_there) {
            add_named(g, set, pod, name, proto);
        }
    }
    return th_xasprintf("ip daddr . meta l4proto . th dport @%s", set);
}

static void port_matches(struct gen *g, const struct policy *p, int dir, size_t number, const struct peers *peers,
                         const struct th_json *ports, struct th_strv *ret)
{
    for (size_t k = 0; k < th_json_len(ports); k++) {
        const struct th_json *port = th_json_at(ports, k), *which = th_json_get(port, "port");
        const char *proto = th_proto_of(port), *name = th_json_str(which);
        int64_t first = th_json_as_int(which, 0), last = th_json_path_int(port, "endPort", first);
        if (name) {
            th_strv_take(ret, named_match(g, p, dir, number, k, peers, name, proto));
        } else if (!which) {
            th_strv_addf(ret, "meta l4proto %s", proto);
        } else if (first > 0 && first < 65536 && last == first) {
            th_strv_addf(ret, "meta l4proto %s th dport %d", proto, (int)first);
        } else if (first > 0 && last > first && last < 65536) {
            th_strv_addf(ret, "meta l4proto %s th dport %d-%d", proto, (int)first, (int)last);
        }
    }
    if (th_json_len(ports) == 0) {
        th_strv_add(ret, "");
    }
}

static void policy_rules(struct gen *g, const char *chain, const struct policy *p, int dir)
{
    const struct th_json *rules = th_json_get(th_json_get(p->obj, "spec"), DIRECTIONS[dir]);
    for (size_t i = 0; i < th_json_len(rules); i++) {
        const struct th_json *rule = th_json_at(rules, i), *list = th_json_get(rule, PEERS[dir]);
        struct peers peers = peers_new(list);
        th_autostrv struct th_strv who = TH_STRV_INIT, what = TH_STRV_INIT;
        peer_matches(g, p, dir, i, list, &peers, &who);
        port_matches(g, p, dir, i, &peers, th_json_get(rule, "ports"), &what);
        peers_done(&peers);
        for (size_t a = 0; a < who.n; a++) {
            for (size_t b = 0; b < what.n; b++) {
                th_nft_rule(g->t, chain, "%s%s%s%sreturn", who.v[a], *who.v[a] ? " " : "", what.v[b],
                            *what.v[b] ? " " : "");
            }
        }
    }
}

/* ---- pods ---- */

static void isolate(struct gen *g, const struct pod *pod, int dir)
{
    th_autobuf struct th_buf names = TH_BUF_INIT;
    for (size_t i = 0; i < g->n_policies; i++) {
        const struct policy *p = &g->policies[i];
        if (p->types[dir] && th_streq(p->ns, pod->ns) && th_selector_matches(p->pods, pod->labels)) {
            th_buf_printf(&names, "%s\n", p->name);
        }
    }
    if (names.n == 0) {
        return;
    }
    th_autofree char *chain =
        th_xasprintf("%s-%016llx", DIRECTIONS[dir], (unsigned long long)th_hash64(names.p, names.n));
    if (!th_nft_has_chain(g->t, chain)) {
        th_nft_chain(g->t, chain, NULL);
        for (size_t i = 0; i < g->n_policies; i++) {
            const struct policy *p = &g->policies[i];
            if (p->types[dir] && th_streq(p->ns, pod->ns) && th_selector_matches(p->pods, pod->labels)) {
                policy_rules(g, chain, p, dir);
            }
        }
        th_nft_rule(g->t, chain, "drop");
    }
    th_autofree char *map = th_xasprintf("policy-%s", DIRECTIONS[dir]);
    th_autofree char *verdict = th_xasprintf("jump %s", chain);
    (void)th_nft_element(g->t, map, pod->ip, verdict);
}

static void frame(struct gen *g)
{
    static const char KNOWN[] = "ct state established,related accept";
    struct th_nft_table *t = g->t;
    th_nft_set(t, "policy-ingress", true, "type ipv4_addr : verdict");
    th_nft_set(t, "policy-egress", true, "type ipv4_addr : verdict");
    th_nft_chain(t, "policy-forward", "type filter hook forward priority 0");
    th_nft_rule(t, "policy-forward", "%s", KNOWN);
    th_nft_rule(t, "policy-forward", "ip saddr . ip daddr @hairpin accept");
    th_nft_rule(t, "policy-forward", "ip saddr vmap @policy-egress");
    th_nft_rule(t, "policy-forward", "ip daddr vmap @policy-ingress");
    th_nft_chain(t, "policy-input", "type filter hook input priority 0");
    th_nft_rule(t, "policy-input", "%s", KNOWN);
    th_nft_rule(t, "policy-input", "ip saddr vmap @policy-egress");
    th_nft_chain(t, "policy-output", "type filter hook output priority 0");
    th_nft_rule(t, "policy-output", "%s", KNOWN);
    th_nft_rule(t, "policy-output", "ct original ip daddr %s ip daddr vmap @policy-ingress", g->o->node_ip);
}

void th_policy_add(struct th_nft_table *t, const struct th_net_opts *o, const struct th_net_state *st)
{
    if (th_json_len(st->policies) == 0) {
        return;
    }
    struct gen g = {.o = o, .st = st, .t = t};
    TH_AUTO(th_json) struct th_json *dns = th_json_build("{'k8s-app':'kube-dns'}");
    read_pods(&g, dns);
    read_policies(&g);
    frame(&g);
    for (size_t i = 0; i < g.n_pods; i++) {
        if (g.pods[i].here) {
            isolate(&g, &g.pods[i], INGRESS);
            isolate(&g, &g.pods[i], EGRESS);
        }
    }
    for (size_t i = 0; i < g.n_policies; i++) {
        th_selector_free(g.policies[i].pods);
        free(g.policies[i].name);
    }
    free(g.policies);
    free(g.pods);
}
