#ifndef TH_API_SERVER_PRIV_H
#define TH_API_SERVER_PRIV_H
/* What server.c (loops, connections), server_request.c (the life of a request), server_watch.c
 * (sleeping, watches) and server_stream.c (requests that go to nodes) share. All of a request
 * belongs to its loop's thread but what is marked. Locks are taken in this order: a connection's, a
 * request's, a side's; the server's before a request's. */
#include "controlplane/api/flow.h"
#include "controlplane/api/server.h"
#include "controlplane/api/server_origin.h"
#include "controlplane/api/streams/relay.h"
#include "controlplane/api/tlsfront.h"

#include <microhttpd.h>
#include <netinet/in.h>
#include <pthread.h>

#define TH_SERVER_LOOPS 2

struct th_hreq;

struct th_sconn { /* one connection, as we know it; refs: the front and libmicrohttpd */
    uint32_t refs;
    struct th_server *server;
    struct th_identity *cert; /* of the client certificate, or NULL */
    bool bad_cert;
    bool is_unix;
    int loop;
    char peer[INET6_ADDRSTRLEN]; /* its address, or "" */
    pthread_mutex_t lock;     /* guards the rest */
    struct th_hreq *watching; /* woken when the client goes */
    struct th_tlsconn *tls;   /* while the front has it; NULL for the Unix socket */
    bool gone;
};

struct th_server_side { /* one loop of the front, as we use it */
    struct MHD_Daemon *daemon; /* runs in its thread */
    pthread_mutex_t lock;      /* guards the rest */
    struct th_hreq *resumed, **resumed_tail; /* to be resumed in its next turn */
};

struct th_server {
    struct th_api *api;
    struct th_server_side sides[TH_SERVER_LOOPS];
    struct th_tlsfront *front;
    struct th_pool *pool;
    struct th_relay *relay;
    char *unix_path;
    pthread_mutex_t lock;    /* guards stopping and the list of watches */
    bool stopping;
    struct th_hreq *watches; /* all requests that may sleep */
};

enum th_hreq_state {
    TH_HREQ_HEAD,
    TH_HREQ_BODY,
    TH_HREQ_HANDLING,
    TH_HREQ_ANSWER,
    TH_HREQ_STREAM_ASKED, /* what the answer is was found in a worker */
    TH_HREQ_STREAM,       /* the body goes to the node */
    TH_HREQ_STREAM_REPLY  /* its answer is waited for */
};

struct th_hreq { /* one request */
    struct th_server *server;
    struct MHD_Connection *mhd;
    struct th_sconn *conn;
    char *uri;
    char method[16];
    enum th_hreq_state state;
    struct th_buf body;
    bool too_large;
    struct th_origin origin;
    struct th_aresp resp;
    bool gzip;
    struct th_flow_class flow;
    /* sleeping, watches */
    struct th_hreq *prev, *next; /* in server->watches, under server->lock */
    bool listed;
    pthread_mutex_t lock;     /* guards the three below */
    bool woken, suspended, ending;
    struct th_str frame;      /* what is left of the frame at hand */
    bool direct;              /* atomic: it goes past libmicrohttpd */
    bool over;                /* it has ended; the loop's thread */
    struct th_hreq *resumed_next; /* under the side's lock */
    bool chunked;             /* the client knows chunks */
    /* stream */
    struct th_relay_stream *stream;
    struct th_html *html;     /* its answer is a page whose links are rewritten */
    struct th_buf page;       /* rewritten, not yet sent; or why a node refuses */
    bool page_end;
};

/* server.c */
/* Resumes a suspended request, from any thread. */
void th_hreq_resume(struct th_hreq *h);
/* Whether the client has gone; any thread. */
bool th_sconn_gone(struct th_sconn *c);

/* server_request.c: libmicrohttpd's callbacks, its cls the server, and what answers. */
void *th_hreq_on_uri(void *cls, const char *uri, struct MHD_Connection *mhd);
enum MHD_Result th_hreq_on_request(void *cls, struct MHD_Connection *mhd, const char *url,
                                   const char *method, const char *version, const char *data,
                                   size_t *data_n, void **ctx);
void th_hreq_on_completed(void *cls, struct MHD_Connection *mhd, void **ctx,
                          enum MHD_RequestTerminationCode code);
/* The first header of that name, or NULL; borrowed from the connection. */
const char *th_hreq_header(const struct th_hreq *h, const char *name);
/* Sends h->resp, whose body it takes. */
enum MHD_Result th_hreq_send(struct th_hreq *h);
/* Sends err as a Status instead of h->resp. */
enum MHD_Result th_hreq_send_error(struct th_hreq *h, const struct th_err *err);
/* Sends r with the status and the headers of shown; takes r. */
enum MHD_Result th_hreq_queue(struct th_hreq *h, struct MHD_Response *r,
                              const struct th_aresp *shown);

/* server_watch.c */
/* Has libmicrohttpd look at the request again; any thread. */
void th_hreq_wake(struct th_hreq *h);
/* From any thread: something has come for a watch or a stream. arg: the request. */
void th_hreq_on_news(void *arg);
/* Sleeps until the next wake. False when one came meanwhile. */
bool th_hreq_sleep(struct th_hreq *h);
/* Forgets that something came, before looking whether there is something. False when the client has
 * gone or the server stops. */
bool th_hreq_wanted(struct th_hreq *h);
/* Among those that are ended at stop. False when the server is stopping: nothing begins any more.
 * */
bool th_hreq_list(struct th_hreq *h);
/* Out of it, if it is there; no more frames are asked for. */
void th_hreq_unlist(struct th_hreq *h);
/* Begins the watch of h->resp: false when the server is stopping. th_hreq_watch_read reads it. */
bool th_hreq_watch_begin(struct th_hreq *h);
ssize_t th_hreq_watch_read(void *cls, uint64_t pos, char *buf, size_t max);

/* server_stream.c */
/* The pipeline has h->resp: begins its stream, or sends what it is instead. */
enum MHD_Result th_hreq_stream_or_send(struct th_hreq *h);
/* More of the client's body for the stream; none left: waits for the answer. */
enum MHD_Result th_hreq_stream_data(struct th_hreq *h, const char *data, size_t *data_n);
/* The body is through: sends the answer once its head is there. */
enum MHD_Result th_hreq_stream_reply(struct th_hreq *h);
#endif
