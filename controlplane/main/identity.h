#ifndef TH_CP_IDENTITY_H
#define TH_CP_IDENTITY_H
/* The keys and certificates of a control plane that was not given any. */
#include "base/err.h"

struct th_cp_identity { /* PEM, owned */
    char *ca_cert, *ca_key;
    char *server_cert, *server_key;
    char *admin_cert, *admin_key;
    char *sa_key;
    char *front_ca_cert, *front_ca_key; /* who may name users in headers */
    char *front_cert, *front_key;       /* this server, towards aggregated ones */
};
struct th_cp_names {
    const char *service_ip;     /* first address of the Service range */
    const char *cluster_domain;
    const char *listen_ip, *advertise_ip; /* each may be NULL */
};
/* Fills what is NULL in id: read from dir/pki, or made and written there. dir NULL: only made. */
int th_cp_identity_complete(struct th_cp_identity *id, const char *dir,
                            const struct th_cp_names *names, struct th_err *err) TH_MUST_USE;
void th_cp_identity_done(struct th_cp_identity *id);
/* A kubeconfig for the admin, mode 0600. */
int th_cp_kubeconfig_write(const struct th_cp_identity *id, const char *server_url,
                           const char *path, struct th_err *err) TH_MUST_USE;
#endif
