#ifndef TH_API_SERVER_ORIGIN_H
#define TH_API_SERVER_ORIGIN_H
/* Where a request comes from and who asks, read from its head and its connection. */
#include "controlplane/api/server.h"
#include <microhttpd.h>

struct th_origin {
    struct th_identity *id;  /* NULL until th_origin_identify */
    char *audit_id;          /* as the client sent it, or made */
    struct th_strv sources;  /* addresses: forwarded ones, then the peer's */
    int64_t received_us;
};
struct th_origin_peer { /* what the connection says */
    bool is_unix;             /* root on this machine: who it is it says itself */
    bool bad_cert;            /* showed a certificate that our CA did not sign */
    struct th_identity *cert; /* borrowed; or NULL */
    const char *address;      /* "" on a Unix socket */
};
/* Everything but the identity; o is zeroed before. */
void th_origin_read(struct MHD_Connection *mhd, const struct th_origin_peer *p, struct th_origin *o);
/* Authenticates and impersonates. A failure is written to the audit log too; req is filled but for
 * its identity. */
int th_origin_identify(struct th_api *api, struct MHD_Connection *mhd,
                       const struct th_origin_peer *p, const struct th_areq *req,
                       struct th_origin *o, struct th_err *err) TH_MUST_USE;
void th_origin_done(struct th_origin *o);
#endif
