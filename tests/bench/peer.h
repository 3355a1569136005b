#ifndef TH_BENCH_PEER_H
#define TH_BENCH_PEER_H
/* One kept connection of the load program: TLS, HTTP/1.1 requests, answers read as far as counting
 * needs. Failures end the program with a message: a benchmark with errors in it measures nothing. */
#include "base/buf.h"

#include <gnutls/gnutls.h>

struct peer_opts {
    const char *host;
    int port;
    const char *ca, *cert, *key; /* files; cert and key may be NULL */
};
struct peer {
    int fd;
    gnutls_session_t tls;
    double began, first_us; /* the request, the first byte of its body */
    int status;             /* 0 until the head is read */
    struct th_buf head;
    bool answered;          /* until the next request */
    bool streaming;         /* body lines are wanted (peer_read_line) */
    bool chunked;
    int chunk_state;
    uint64_t left;          /* of the body, or of the chunk */
    uint64_t body_n;
    size_t lines;           /* the caller's */
    struct th_buf line;     /* the beginning of the line at hand */
    char *raw;              /* read from the socket, not yet given to GnuTLS */
    size_t raw_off, raw_n;
    char *in;               /* bytes read, not yet looked at */
    size_t in_off, in_n;
    bool line_ended;
};

double peer_now_us(void);
void peer_global(const struct peer_opts *o); /* once, before peer_open */
void peer_open(struct peer *p, const struct peer_opts *o); /* connected, handshake done */
void peer_watch(struct peer *p, int epoll);  /* edge-triggered, data.ptr is p */
void peer_send(struct peer *p, const char *bytes, size_t n);
/* True when an answer is complete; false when the socket has no more. */
bool peer_read(struct peer *p);
/* True when p->line holds the beginning of a line of a streamed body. */
bool peer_read_line(struct peer *p);
#endif
