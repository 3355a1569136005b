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
    const char *ip; /* NULL: nothing is accepted, it only dials */
    int port;       /* 0: any */
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

/* ---- Dialing (tlsdial.c) ---- */
struct th_tls_peer {
    const char *name;       /* of the server, that its certificate must have */
    const char *ca_pem;     /* who may have signed it; NULL: the system's authorities */
    bool insecure;          /* it is not looked at */
    const char *cert_pem, *key_pem; /* what is shown when it asks; or NULL */
};
struct th_dial_note; /* reference-counted; why a dialed connection failed */
/* Takes fd, a socket that is connected or about to be, and gives the plain end of a relay: what is
 * written there goes to the peer once the handshake is done; when that fails the plain end closes and
 * the note says why. Any thread; does not block. */
int th_tlsdial(struct th_tlsfront *f, int fd, const struct th_tls_peer *peer, int *ret_plain,
               struct th_dial_note **ret_note, struct th_err *err) TH_MUST_USE;
/* NULL when nothing failed (yet); the caller frees. */
char *th_dial_note_why(struct th_dial_note *n);
void th_dial_note_unref(struct th_dial_note *n); /* NULL-safe */
#endif
