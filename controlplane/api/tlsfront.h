#ifndef TH_API_TLSFRONT_H
#define TH_API_TLSFRONT_H
/* The loops that connections live in: they accept, shake hands, relay between TLS and plain sockets,
 * and give the HTTP server behind those its turn. */
#include "base/err.h"
#include "controlplane/api/api.h"

#include <netinet/in.h>

struct th_tlsfront;
struct th_tlsconn; /* one TLS connection; lives until `release` was called with its token */

struct th_tlsfront_opts {
    const char *ip; /* NULL: no TCP is accepted; it may still dial */
    int port;       /* 0: any */
    const char *cert_pem, *key_pem, *client_ca_pem;
    const char *front_ca_pem; /* signs front proxies, whose identity has front_proxy; or NULL */
    int unix_listener; /* taken when the start succeeds; -1: none */
    int loops;         /* threads */
    /* All of these are called in the thread of the loop that is named, and must not block. */
    /* A TLS connection is ready: fd is the plain end (taken). id is a reference (taken) or NULL
     * without a client certificate; bad_cert says that one was shown that our CA did not sign. Gives
     * a token for this connection or NULL. */
    void *(*fn)(void *arg, int loop, struct th_tlsconn *c, int fd, struct th_identity *id,
                bool bad_cert);
    void (*plain)(void *arg, int loop, int fd); /* a connection of the Unix socket (fd is taken) */
    void (*gone)(void *arg, void *token);       /* the client's side has ended (once or twice) */
    void (*release)(void *arg, void *token);    /* the front forgets the token */
    /* The HTTP server (NULL: there is none) works off what has come. Gives the milliseconds until it
     * wants its next turn at the latest, or -1. */
    int (*turn)(void *arg, int loop);
    int (*turn_fd)(void *arg, int loop); /* readable when it wants a turn */
    void *arg;
};
int th_tlsfront_start(const struct th_tlsfront_opts *o, struct th_tlsfront **ret,
                      struct th_err *err) TH_MUST_USE;
void th_tlsfront_want_turn(struct th_tlsfront *f, int loop); /* from any thread */
int th_tlsfront_port(const struct th_tlsfront *f);
void th_tlsfront_stop_accepting(struct th_tlsfront *f); /* connections go on */
void th_tlsfront_stop(struct th_tlsfront *f);           /* ends the threads after one last turn */
void th_tlsfront_free(struct th_tlsfront *f);           /* drops what is open; NULL-safe */

/* The client's address as text; "" when it is gone already. */
void th_tlsconn_peer(const struct th_tlsconn *c, char buf[INET6_ADDRSTRLEN]);

/* Streams past the HTTP server: after what that has written so far, what `read` gives is sent as one
 * TLS record each. read puts up to max bytes into buf: 0 means nothing now, -1 that the stream is over
 * and the HTTP server goes on. With max 0 it only says whether the stream is over; a client that does
 * not read is then dropped. Both in the loop's thread; fn NULL ends a stream. */
typedef ssize_t th_tlsfront_read_fn(void *arg, char *buf, size_t max);
void th_tlsfront_stream(struct th_tlsconn *c, th_tlsfront_read_fn *fn, void *arg);
/* read has something to give. From any thread, while the token is not released. */
void th_tlsfront_stream_wake(struct th_tlsconn *c);

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
