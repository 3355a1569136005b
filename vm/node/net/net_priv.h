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

struct th_net {
    struct th_net_opts o; /* own copies */
    pthread_mutex_t mu;   /* guards pool */
    struct th_ippool pool;
    struct th_services *services; /* NULL without an API server */
    struct th_hostports *hostports;
    struct th_dns *dns;
};

/* link.c */
void th_link_name(const char *uid, char out[IFNAMSIZ]);
int th_link_add(const char *netns_path, const char *uid, struct in_addr ip, struct th_err *err);
void th_link_del(const char *uid);
void th_link_prune(bool (*keep)(void *arg, const char *name), void *arg);
int th_link_lo_addr(const char *ip, struct th_err *err); /* ip/32 on lo of this namespace */

struct th_json;
/* ruleset.c: services and slices are JSON arrays. Appends a transaction for nft. */
void th_ruleset_build(const struct th_net_opts *o, struct th_json *services, struct th_json *slices,
                      struct th_buf *ret);
/* Is it an IPv4 slice of this Service? */
bool th_slice_of(const struct th_json *slice, const struct th_json *svc);
/* 127.(96+k).A.B for a ClusterIP x.y.A.B; false when there is none. */
bool th_lb_ip(const struct th_net_opts *o, const char *cluster_ip, char out[INET_ADDRSTRLEN]);

/* services.c: runs a transaction in the namespace of the calling thread. */
int th_nft_run(const char *text, struct th_err *err);
/* In the pod's namespace: 127.(96+k).0.0/16 leads to Services. */
int th_nft_pod(const char *netns_path, const struct th_net_opts *o, struct th_err *err);
/* Watches Services and EndpointSlices; after each change the ruleset is made, and n->hostports and
 * n->dns get the new state. */
int th_services_start(struct th_net *n, struct th_services **ret, struct th_err *err);
void th_services_stop(struct th_services *s);

/* hostports.c */
int th_hostports_start(struct th_net *n, struct th_hostports **ret, struct th_err *err);
void th_hostports_stop(struct th_hostports *h);
void th_hostports_update(struct th_hostports *h, struct th_json *services); /* takes */

/* dns.c */
int th_dns_start(struct th_net *n, struct th_dns **ret, struct th_err *err);
void th_dns_stop(struct th_dns *d);
/* The records of a state, and an answer from them. wire: a query; the answer is appended to ret.
 * 1: answered; 0: not our name, forward it; negative: not worth an answer. tcp: no size limit. */
struct th_dns_db;
struct th_dns_db *th_dns_db_new(const struct th_net_opts *o, struct th_json *services,
                                struct th_json *slices);
void th_dns_db_free(struct th_dns_db *db);
int th_dns_answer(const struct th_dns_db *db, const uint8_t *wire, size_t n, bool tcp,
                  struct th_buf *ret);
void th_dns_update(struct th_dns *d, struct th_json *services, struct th_json *slices);
#endif
