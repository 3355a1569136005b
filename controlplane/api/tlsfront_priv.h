#ifndef TH_API_TLSFRONT_PRIV_H
#define TH_API_TLSFRONT_PRIV_H
/* What tlsfront.c (loops, handshakes), tlsrelay.c (bytes) and tlsdial.c (connections to others) share. All of a loop and its connections
 * belongs to the loop's thread but what is marked. */
#include "controlplane/api/tlsfront.h"

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <pthread.h>

#define TH_TLS_CHUNK 16384

struct th_loop;
enum th_conn_state { TH_CONN_HANDSHAKE, TH_CONN_RELAY };

struct th_tlsconn {
    struct th_tlsconn *prev, *next; /* in handshakes or relays */
    struct th_tlsconn *ready_next;  /* in the ready list */
    struct th_loop *loop;
    bool ready, dead;
    enum th_conn_state state;
    int64_t deadline_ms;            /* of the handshake */
    int net, plain;                 /* plain is -1 while handshaking */
    gnutls_session_t tls;
    char *ahead;                    /* read from net, not yet given to GnuTLS */
    size_t ahead_off, ahead_n;
    bool net_in, net_hup;           /* net may be readable; it has ended, or will */
    bool plain_in, plain_hup;
    bool plain_full;                /* epoll tells when plain may be written */
    bool net_eof;                   /* the socket's end was seen */
    bool tls_eof;                   /* the peer's data has ended */
    bool plain_eof;                 /* the server's data has ended */
    bool shut_plain, shut_tls;      /* the end was handed on */
    void *token;                    /* the user's, while relaying */
    char *to_plain, *to_tls;        /* what could not be written yet */
    size_t to_plain_off, to_plain_n, to_tls_n;
    th_tlsfront_read_fn *stream;    /* or NULL */
    void *stream_arg;
    bool stream_in;                 /* it may have something */
    struct th_dial_note *note;      /* dialed connections: says why it failed; else NULL */
    gnutls_certificate_credentials_t own_cred; /* of a dialed connection */
    int sys_errno;                  /* of the last failed read or write of net */
    bool woken;                     /* atomic: in loop->woken */
    struct th_tlsconn *woken_next;  /* loop->lock */
};

/* epoll's data: a connection's two descriptors differ in the lowest bit. */
#define TH_TLS_PLAIN_BIT ((uintptr_t)1)

struct th_newcomer {
    int fd;
    bool is_unix;
};

struct th_loop {
    struct th_tlsfront *front;
    int index;
    int epoll, wake;
    struct th_tlsconn handshakes, relays; /* rings */
    size_t n_handshakes, n_relays;
    struct th_tlsconn *ready_head, **ready_tail;
    struct th_tlsconn *graveyard; /* freed after the events of this round */
    bool want_turn;               /* the HTTP server was given something */
    int64_t turn_at_ms;           /* its own wish, or INT64_MAX */
    char buf[TH_TLS_CHUNK];
    pthread_t thread;
    bool has_thread;
    size_t load; /* atomic: connections that live here or are on their way */
    pthread_mutex_t lock; /* guards the rest */
    struct th_tlsconn *woken, **woken_tail;
    struct th_tlsconn *dialed; /* by next */
    struct th_newcomer *inbox;
    size_t inbox_n, inbox_cap;
};

struct th_tlsfront {
    int listener, unix_listener, port;
    bool stop, stop_accepting; /* atomic */
    gnutls_certificate_credentials_t cred;
    gnutls_priority_t priority;
    bool want_cert;
    gnutls_x509_crt_t front_ca; /* or NULL */
    struct th_tlsfront_opts cb;
    int n_loops;
    struct th_loop *loops;
};

void th_loop_poke(struct th_loop *l); /* from any thread */
void th_conn_ready(struct th_tlsconn *c);
void th_conn_drop(struct th_tlsconn *c);
void th_conn_free(struct th_tlsconn *c);

/* Among the handshakes, and in epoll; drops it when that fails. */
void th_conn_shake_begin(struct th_tlsconn *c);
struct th_loop *th_loop_pick(struct th_tlsfront *f); /* the one with the fewest connections, counted there */

/* ---- tlsdial.c ---- */
void th_tlsdial_begin(struct th_tlsconn *dialed); /* a list, in its loop's thread */
/* Why a handshake failed, to the note. r is GnuTLS's code, or 0 for the deadline. */
void th_tlsdial_failed(struct th_tlsconn *c, int r);

/* ---- tlsrelay.c ---- */
void th_relay_transport(struct th_tlsconn *c);
void th_relay_net_event(struct th_tlsconn *c, uint32_t events);
void th_relay_plain_event(struct th_tlsconn *c, uint32_t events);
/* Moves bytes until nothing moves, or its turn is over (then it is ready again). */
void th_relay_run(struct th_tlsconn *c);
#endif
