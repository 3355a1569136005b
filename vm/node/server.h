#ifndef TH_NODE_SERVER_H
#define TH_NODE_SERVER_H
/* Between the files of the node agent's HTTP server. Handlers run in their connection's thread. */
#include "vm/node/agent.h"

#include <microhttpd.h>
#include <sys/stat.h>

/* One request. Handlers answer through one of the reply functions. */
struct req {
    struct agent *a;
    struct MHD_Connection *c;
    const char *method, *url;
    struct th_strv path;  /* "containerLogs", "ns", "pod", "container" */
    struct upload *up;    /* a body that a handler thread reads, or NULL */
    bool begun;
};
/* Query argument; NULL when missing. req_query_all gives each value of a repeated one. */
const char *req_query(struct req *r, const char *name);
bool req_query_bool(struct req *r, const char *name, bool def);
int64_t req_query_int(struct req *r, const char *name, int64_t def);
void req_query_all(struct req *r, const char *name, struct th_strv *ret);

enum MHD_Result reply_text(struct req *r, unsigned code, const char *type, const char *text, size_t n);
enum MHD_Result reply_json(struct req *r, unsigned code, const struct th_json *o);
enum MHD_Result reply_err(struct req *r, const struct th_err *err);       /* text/plain */
enum MHD_Result reply_status(struct req *r, const struct th_err *err);    /* metav1.Status */
/* Streams what fn gives (bytes, 0: nothing now but alive, -1: end); done frees arg. */
typedef ssize_t reply_stream_fn(void *arg, char *buf, size_t max);
enum MHD_Result reply_stream(struct req *r, const char *type, reply_stream_fn *fn, void (*done)(void *),
                             void *arg);

/* images_http.c */
enum MHD_Result images_request(struct req *r);
bool images_wants_body(const struct req *r);
struct upload *images_upload_begin(struct req *r);
bool images_upload_data(struct upload *u, const char *p, size_t n);
void images_upload_drop(struct upload *u); /* the client went away before the end */

/* upgrade.c: a connection that becomes a stream, by WebSocket or by SPDY/3.1 */
struct upgrade {
    bool spdy;         /* bare SPDY/3.1; false: a WebSocket */
    const char *proto; /* the subprotocol, a constant */
    const char *key;   /* Sec-WebSocket-Key */
};
/* What the client asks for; choose picks from its list of subprotocols (NULL: none). false: err says
 * why not. */
bool upgrade_choose(struct req *r, struct upgrade *ret, const char *(*choose)(const char *offered, bool spdy),
                    struct th_err *err);
/* Answers 101; fn is called with arg once the connection is a stream. */
enum MHD_Result upgrade_reply(struct req *r, const struct upgrade *u, MHD_UpgradeHandler fn, void *arg);

/* ws_stream.c: the same as reply_stream, for a client that asks for a WebSocket */
bool ws_wanted(struct req *r);
enum MHD_Result ws_stream(struct req *r, reply_stream_fn *fn, void (*done)(void *), void *arg);

/* logfiles.c: the node's log folder. Opens path inside root, folders and plain files only; the page of
 * links to what is in an open folder. */
enum MHD_Result logfiles_request(struct req *r);
int logfiles_open(const char *root, const char *path, struct stat *ret_st, struct th_err *err);
int logfiles_list(int fd, struct th_buf *b, struct th_err *err);

/* exec.c: exec, attach; portforward.c */
enum MHD_Result exec_request(struct req *r, bool attach);
enum MHD_Result portforward_request(struct req *r);
#endif
