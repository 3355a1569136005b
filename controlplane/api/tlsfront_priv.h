#ifndef TH_API_TLSFRONT_PRIV_H
#define TH_API_TLSFRONT_PRIV_H
/* Shared by the two ways in which a TLS connection begins: accepted (tlsfront.c) and dialed
 * (tlsdial.c). */
#include "controlplane/api/tlsfront.h"

#include <gnutls/gnutls.h>
#include <pthread.h>

#define CHUNK 16384
#define ROUNDS 32
#define EVENTS 64

enum conn_state { CONN_HANDSHAKE, CONN_RELAY };

struct th_dial_note;
struct conn {
    struct conn *prev, *next;         /* in handshakes or relays */
    struct conn *ready_next;          /* in the ready list */
    bool ready, dead;
    enum conn_state state;
    int64_t deadline_ms;              /* of the handshake */
    int net, plain;                   /* plain is -1 while handshaking */
    gnutls_session_t tls;
    char *ahead;                      /* read from net, not yet given to GnuTLS */
    size_t ahead_off, ahead_n;
    bool net_eof;                     /* the socket's end was seen */
    bool tls_eof;                     /* the peer's data has ended */
    bool plain_eof;                   /* the server's data has ended */
    bool shut_plain, shut_tls;        /* the end was handed on */
    void *token;                      /* the user's, while relaying */
    char *to_plain, *to_tls;          /* what could not be written yet */
    size_t to_plain_off, to_plain_n, to_tls_n;
    struct th_dial_note *note;        /* dialed connections: says why it failed; else NULL */
    gnutls_certificate_credentials_t own_cred; /* of a dialed connection */
    int sys_errno;                    /* of the last failed read or write of net */
};

struct th_tlsfront {
    int epoll, listener, wake, port;
    bool stop, stop_accepting;        /* atomic */
    gnutls_certificate_credentials_t cred;
    gnutls_priority_t priority;
    bool want_cert;
    struct th_tlsfront_opts cb;       /* fn, gone, release, arg */
    struct conn handshakes, relays;   /* rings */
    size_t n_handshakes, n_relays;
    struct conn *ready_head, **ready_tail;
    struct conn *graveyard;           /* freed after the events of this round */
    char buf[CHUNK];
    pthread_t thread;
    pthread_mutex_t lock;             /* guards dialed */
    struct conn *dialed;              /* handed in, not yet in epoll; by next */
};

/* The session's transport, before the handshake. */
void th_tlsconn_transport(struct conn *c);
void th_tlsconn_free(struct conn *c);
/* Among the handshakes, and in epoll; drops it when that fails. */
void th_tlsconn_shake_begin(struct th_tlsfront *f, struct conn *c);
void th_tlsfront_poke(struct th_tlsfront *f);

/* ---- tlsdial.c; in the front's thread ---- */
void th_tlsdial_adopt(struct th_tlsfront *f);
/* Why a handshake failed, to the note. r is GnuTLS's code, or 0 for the deadline. */
void th_tlsdial_failed(struct conn *c, int r);
void th_dial_note_unref(struct th_dial_note *n);
#endif
