#ifndef TH_CLUSTER_H
#define TH_CLUSTER_H
/* What one control plane is configured with, and the allocators that its resources share. */
#include "base/err.h"
#include "base/pki.h"
#include <pthread.h>
struct th_ipalloc;
struct th_cluster {
    const char *service_cidr;    /* "10.96.0.0/16" */
    const char *pod_cidr;        /* "10.244.0.0/16" */
    const char *cluster_domain;  /* "cluster.local" */
    const char *dns_ip;          /* "10.96.0.10" */
    const char *advertise_ip;    /* the API server as pods reach it */
    int advertise_port;
    int node_port_first, node_port_last; /* 30000, 32767 */
    const char *ca_cert_pem;     /* for kube-root-ca.crt */
    const char *sa_key_pem;      /* signs ServiceAccount tokens */
    const char *sa_issuer;       /* "https://kubernetes.default.svc.cluster.local" */
    bool runs_controllers, runs_scheduler; /* in this process */
    const char *volumes_dir;     /* of volumes on the data disk; NULL: no StorageClass "standard" */
    struct th_ipalloc *services; /* ClusterIPs and nodePorts in use; rebuilt from the store */
};
#endif
