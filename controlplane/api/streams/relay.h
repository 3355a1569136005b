#ifndef TH_API_RELAY_H
#define TH_API_RELAY_H
/* Connections to node agents (and pods) that carry a client's stream. One thread watches sockets and
 * pumps upgraded connections; everything else runs in the caller's thread without blocking. */
#include "base/buf.h"
#include "base/err.h"

struct th_relay;
struct th_relay *th_relay_new(void);
/* Ends all pumps (their done is called); all streams must be closed. NULL-safe. */
void th_relay_free(struct th_relay *r);

/* Where a request goes; made by th_stream_route and by the aggregator. Strings are owned. */
struct th_stream_target {
    char *unix_path;       /* or: */
    char *ip;
    int port;
    char *path;            /* with query */
    char *who;             /* "node n1", for messages */
    char *host;            /* Host header; NULL: the client's */
    char *prefix;          /* the path that stands for the peer's "/" (rewrite.c); NULL: as it is */
    bool plain_errors;     /* failures are text and not a Status */
    char *log_of;          /* the pod whose log it is: what the peer says against it becomes a Status */
    bool tls;
    char *tls_name, *ca_pem; /* as struct th_tls_peer */
    bool insecure;
    const char *cert_pem, *key_pem; /* borrowed */
    struct th_strv headers; /* further ones; they replace the client's of these names */
};

/* The Status that stands for what a node said (`status`, its text) instead of showing the pod's log;
 * upstream's words for each code. Sets err. */
void th_stream_log_fault(const char *pod, int status, const char *said, struct th_err *err);

struct th_relay_stream;
typedef void th_relay_wake_fn(void *arg);
struct th_relay_req {
    const struct th_stream_target *target;
    const char *method;
    const char *host;               /* Host as the client said it, or NULL */
    const struct th_strv *headers;  /* "Name: value", hop-by-hop ones left out */
    bool upgrade;                   /* sends Connection: Upgrade */
    int64_t length;                 /* of the body; 0: none, -1: chunked */
    th_relay_wake_fn *wake;         /* from the relay's thread: try again; must only signal */
    void *arg;
};
/* Connects (at once for Unix sockets, in the background for TCP). */
int th_relay_open(struct th_relay *r, const struct th_relay_req *q, struct th_relay_stream **ret,
                  struct th_err *err) TH_MUST_USE;
/* Bytes of the body that were taken; fewer than n: a wake will come. Once the peer has stopped
 * reading all is taken and dropped, and its answer tells why. */
size_t th_relay_write(struct th_relay_stream *s, const char *p, size_t n);
/* The body is complete. 1 done, 0 a wake will come. */
int th_relay_finish(struct th_relay_stream *s);
/* 1: the answer's head is there; 0: a wake will come; negative: no answer. */
int th_relay_head(struct th_relay_stream *s, struct th_err *err);
int th_relay_status(const struct th_relay_stream *s);
int64_t th_relay_length(const struct th_relay_stream *s); /* of the answer's body; -1: not known */
const struct th_strv *th_relay_headers(const struct th_relay_stream *s); /* hop-by-hop left out */
/* Bytes of the answer's body: > 0, 0: a wake will come, -1: the end, -2: broken off. */
ssize_t th_relay_read(struct th_relay_stream *s, char *buf, size_t max);
/* After 101: moves bytes between the stream and fd (borrowed until done is called, in the relay's
 * thread). extra was read from the client already. Takes s. */
void th_relay_pump(struct th_relay_stream *s, int fd, const char *extra, size_t extra_n,
                   void (*done)(void *arg), void *arg);
/* No wake runs any more after it returns. NULL-safe. */
void th_relay_close(struct th_relay_stream *s);
#endif
