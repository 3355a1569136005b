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

struct th_net {
    struct th_net_opts o; /* own copies */
    pthread_mutex_t mu;   /* guards pool */
    struct th_ippool pool;
};

/* link.c */
void th_link_name(const char *uid, char out[IFNAMSIZ]);
int th_link_add(const char *netns_path, const char *uid, struct in_addr ip, struct th_err *err);
void th_link_del(const char *uid);
void th_link_prune(bool (*keep)(void *arg, const char *name), void *arg);
#endif
