#ifndef TH_CONTROLLERS_H
#define TH_CONTROLLERS_H
/* The controllers as a set: started after the API answers, stopped before it ends. */
#include "controlplane/client/client.h"

struct th_controllers;
struct th_controllers_opts {
    const char *only;     /* NULL or "all"; else a comma list of names, "-name" leaves one out */
    const char *pod_cidr; /* node ranges are cut from it */
    const char *control_plane_ip; /* the node of this address gets the role label; NULL: none */
    const char *service_cidr;
    const char *cluster_domain;
    const char *ca_cert_pem; /* what root-CA ConfigMaps carry */
    const char *ca_key_pem;  /* signs certificates; NULL: none are signed. Borrowed */
    const char *sa_key_pem;  /* signs tokens of Secrets; NULL: none are made. Borrowed */
    const char *volumes_dir; /* where thimble.dev/host-path makes volumes; NULL: it makes none */
    size_t workers;          /* 0: default */
    /* Gives a client that acts as this ServiceAccount of kube-system ("": as the API server), to be
     * freed by the set. NULL: all controllers use the set's client. */
    int (*client_for)(void *arg, const char *account, struct th_client **ret, struct th_err *err);
    void *client_arg;
    /* As kube-controller-manager's flags of these names; 0: its default. */
    int64_t node_monitor_period_ms;    /* 5 s */
    int64_t node_monitor_grace_ms;     /* 40 s */
    int64_t node_startup_grace_ms;     /* 60 s */
    int64_t terminated_pod_gc_threshold; /* 12500 */
};
/* Gives at once; informers synchronize in the background. The client is borrowed and must outlive
 * the set. */
int th_controllers_start(struct th_client *client, const struct th_controllers_opts *o,
                         struct th_controllers **ret, struct th_err *err) TH_MUST_USE;
void th_controllers_stop(struct th_controllers *c); /* joins and frees; NULL-safe */
#endif
