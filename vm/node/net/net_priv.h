#ifndef TH_NODE_NET_PRIV_H
#define TH_NODE_NET_PRIV_H
/* Between the files of net/ and their tests. */
#include "base/hmap.h"
#include "vm/node/net/net.h"

#include <net/if.h>
#include <netinet/in.h>
#include <pthread.h>

/* Addresses of one CIDR, by owner. Not thread-safe; see struct th_net. */
struct th_ippool {
    uint32_t first, last;   /* host order, both may be given */
    uint32_t next;          /* where the search begins */
    struct th_hmap by_uid;  /* uid -> char * dotted address */
    struct th_hmap by_ip;   /* address -> NULL */
    char *path;             /* addresses.json */
};
int th_ippool_init(struct th_ippool *p, const char *cidr, const char *path, struct th_err *err);
void th_ippool_done(struct th_ippool *p);
/* The uid's address, given and written to disk when it has none yet. Borrowed. */
int th_ippool_get(struct th_ippool *p, const char *uid, const char **ret, struct th_err *err);
int th_ippool_put(struct th_ippool *p, const char *uid, struct th_err *err);

struct th_services;
struct th_hostports;
struct th_dns;
struct th_health;

struct th_net {
    struct th_net_opts o; /* own copies */
    pthread_mutex_t mu;   /* guards pool */
    struct th_ippool pool;
    struct th_services *services; /* NULL without an API server */
    struct th_hostports *hostports;
    struct th_dns *dns;
    struct th_health *health;
};

/* link.c */
void th_link_name(const char *uid, char out[IFNAMSIZ]);
int th_link_add(const char *netns_path, const char *uid, struct in_addr ip, struct th_err *err);
void th_link_del(const char *uid);
void th_link_prune(bool (*keep)(void *arg, const char *name), void *arg);
int th_link_lo_addr(const char *ip, struct th_err *err); /* ip/32 on lo of this namespace */

/* state.c: one snapshot of the cluster, and what several files read from it */
#define TH_LB_INSIDE_CIDR "198.18.0.0/16" /* EXTERNAL-IPs as pods' packets have them */
#define TH_ENTRY_PORT "entryPort" /* put into ports of a snapshot's Services */
struct th_json;
struct th_net_state {
    struct th_json *services, *namespaces; /* arrays, by name */
    struct th_json *own_pods;              /* of this node */
    struct th_json *policies, *pods;       /* pods of all nodes, only when there are policies */
    struct th_hmap by_service;             /* "ns/name" -> array of its IPv4 EndpointSlices */
};
/* Takes the arrays, any of which may be NULL, and writes entry ports into services. The caller adds
 * the other members. */
struct th_net_state *th_net_state_new(struct th_json *services, struct th_json *slices,
                                      struct th_json *namespaces);
void th_net_state_free(struct th_net_state *st); /* NULL-safe */
TH_DEFINE_AUTO(th_net_state, th_net_state_free)
const struct th_json *th_net_slices(const struct th_net_state *st, const struct th_json *svc);
bool th_is_ip4(const char *s);
bool th_is_cidr4(const char *s);
const char *th_proto_of(const struct th_json *port); /* "tcp", "udp", "sctp" */
bool th_lb_ours(const struct th_json *svc);          /* a LoadBalancer without a class */
bool th_lb_open_to_host(const struct th_json *svc);  /* its source ranges have 127.0.0.1 */
/* For a ClusterIP x.y.A.B: 127.(96+k).A.B on the host, 198.18.A.B inside; false without one. */
bool th_lb_ip(const struct th_net_opts *o, const char *cluster_ip, char out[INET_ADDRSTRLEN]);
bool th_lb_inside_ip(const char *cluster_ip, char out[INET_ADDRSTRLEN]);

/* ruleset.c */
#define TH_AFFINITY "affinity-" /* sets that remember clients */
struct th_nft_table;
struct th_nft_table *th_ruleset_new(const struct th_net_opts *o, const struct th_net_state *st);
/* Endpoints of this node that a Service with a traffic policy Local would use. */
size_t th_local_endpoints(const struct th_net_opts *o, const struct th_net_state *st,
                          const struct th_json *svc);

/* Calls fn for each container port with a hostPort of this node's pods. */
void th_host_ports(const struct th_net_state *st,
                   void (*fn)(void *arg, const struct th_json *pod, const struct th_json *port), void *arg);
/* Is there an endpoint that a connection to this port of the Service could get to? */
bool th_port_usable(const struct th_net_opts *o, const struct th_net_state *st, const struct th_json *svc,
                    const struct th_json *port);
/* Where UDP goes: "IP PORT" of a Service, or "* PORT" of the node, to a struct th_strv of "IP PORT"
 * (ways is made, the caller ends it); text says the same, to compare. */
void th_ruleset_udp(const struct th_net_opts *o, const struct th_net_state *st, struct th_hmap *ways,
                    struct th_buf *text);

/* policy.c: the chains of NetworkPolicies, when there are any; after the Services' */
void th_policy_add(struct th_nft_table *t, const struct th_net_opts *o, const struct th_net_state *st);

/* conntrack.c: forgets translated flows of UDP that go elsewhere. */
void th_conntrack_forget(const struct th_hmap *ways);
bool th_udp_stale(const struct th_hmap *ways, const char *dst, int dport, const char *to, int to_port);

/* health.c: answers on the healthCheckNodePort of Services with externalTrafficPolicy Local. */
struct th_health *th_health_new(void);
void th_health_free(struct th_health *h);
/* Of one thread. */
void th_health_update(struct th_health *h, const struct th_net_opts *o, const struct th_net_state *st);

/* nft.c: runs commands in the namespace of the calling thread. ret_json (may be NULL): what they
 * print, as JSON. */
int th_nft_run(const char *text, struct th_json **ret_json, struct th_err *err);
/* Grows with every change of rules in this namespace, whoever makes it; 0: not to be had. */
uint32_t th_nft_generation(void);
/* Commands that put the clients that the kernel remembers in the table's affinity sets into a
 * table of the same names that is loaded next. */
void th_nft_remembered(const struct th_nft_table *t, struct th_buf *ret);
/* In the pod's namespace: 127.(96+k).0.0/16 leads to load balancers. */
int th_nft_pod(const char *netns_path, const struct th_net_opts *o, struct th_err *err);
/* Watches Services and EndpointSlices; after each change the ruleset is made, and n->hostports and
 * n->dns get the new state. */
int th_services_start(struct th_net *n, struct th_services **ret, struct th_err *err);
void th_services_stop(struct th_services *s);

/* hostports.c */
int th_hostports_start(struct th_net *n, struct th_hostports **ret, struct th_err *err);
void th_hostports_stop(struct th_hostports *h);
void th_hostports_update(struct th_hostports *h, struct th_net_state *st); /* takes */

/* dns.c */
int th_dns_start(struct th_net *n, struct th_dns **ret, struct th_err *err);
void th_dns_stop(struct th_dns *d);
void th_dns_update(struct th_dns *d, const struct th_net_state *st);
#endif
