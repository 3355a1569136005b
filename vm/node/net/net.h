#ifndef TH_NODE_NET_H
#define TH_NODE_NET_H
/* The node's network as the pod worker sees it. All calls are thread-safe.
 * link.c has pods' links and addresses; services, DNS and host ports live beside it. */
#include "base/err.h"
#include <stddef.h>

struct th_client;
struct th_net;

#define TH_NET_IP_LEN 46

struct th_net_opts {
    const char *node_name;
    const char *node_ip;        /* "10.0.2.15" */
    const char *pod_cidr;       /* this node's pods: "10.244.0.0/24" */
    const char *service_cidr;   /* "10.96.0.0/16" */
    int profile_number;         /* k of LoadBalancer addresses 127.(96+k).A.B */
    const char *data_dir;       /* addresses in use are kept in <data_dir>/addresses.json */
    const char *cluster_dns;    /* "10.96.0.10" */
    const char *cluster_domain; /* "cluster.local" */
    const char *ports_endpoint; /* where host ports are asked for, or NULL */
    struct th_client *client;   /* reads the cluster; NULL: no API server, no services */
    struct th_client *lb_client; /* writes the status of Services and Events about them */
};

/* Switches forwarding on and reads the addresses in use. Strings of o are copied. */
int th_net_start(const struct th_net_opts *o, struct th_net **ret, struct th_err *err);
void th_net_stop(struct th_net *n); /* links of pods stay: their containers go on */

/* Gives the pod an address (the one it had before, when it had one) and a link in the network
 * namespace at netns_path: eth0 with the address, lo up, default route. */
int th_net_pod_add(struct th_net *n, const char *netns_path, const char *uid,
                   char ret_ip[TH_NET_IP_LEN], struct th_err *err);
/* Removes link, route and address. A pod that is not known is not an error. */
void th_net_pod_del(struct th_net *n, const char *uid);
/* After a restart of the agent: these pods exist; every other address and link is given back. */
int th_net_restore(struct th_net *n, const char *const *uids, size_t count, struct th_err *err);

/* Opens a stream socket inside a pod's network namespace, connected to 127.0.0.1:port (the way
 * port-forward reaches containers). Blocking, with a time limit. fd or negative. */
int th_net_pod_connect(const char *netns_path, int port, int timeout_ms, struct th_err *err);
#endif
