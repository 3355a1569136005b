#ifndef TH_API_TLSFRONT_H
#define TH_API_TLSFRONT_H
/* TLS ended in front of the HTTP server: accepts, shakes hands, relays to plain sockets. */
#include "base/err.h"
#include "controlplane/api/api.h"

struct th_tlsfront;
/* A connection is ready: fd is the plain end (taken). id is a reference (taken) or NULL without a
 * client certificate; bad_cert says that one was shown that our CA did not sign. Called in the
 * front's thread; must not block. Gives a token for this connection or NULL. */
typedef void *th_tlsfront_fn(void *arg, int fd, struct th_identity *id, bool bad_cert);
struct th_tlsfront_opts {
    const char *ip;
    int port; /* 0: any */
    const char *cert_pem, *key_pem, *client_ca_pem;
    th_tlsfront_fn *fn;
    /* The client's side has ended (once or twice); then the front forgets the token. Both in the
     * front's thread. */
    void (*gone)(void *arg, void *token);
    void (*release)(void *arg, void *token);
    void *arg;
};
int th_tlsfront_start(const struct th_tlsfront_opts *o, struct th_tlsfront **ret,
                      struct th_err *err) TH_MUST_USE;
int th_tlsfront_port(const struct th_tlsfront *f);
void th_tlsfront_stop_accepting(struct th_tlsfront *f); /* connections go on */
void th_tlsfront_free(struct th_tlsfront *f);           /* drops what is open; NULL-safe */
#endif
