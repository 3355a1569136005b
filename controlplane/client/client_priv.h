#ifndef TH_CLIENT_PRIV_H
#define TH_CLIENT_PRIV_H
/* What a transport of the client implements: http.c (libcurl) and the API server's in-process one.
 *
 * A transport embeds `struct th_client` as its first member and sets `ops`. Everything typed
 * (paths, paging, Status to th_err, informers, events) is built on these calls by the files of this
 * folder. */
#include "controlplane/client/client.h"

struct th_client_ops;
struct th_client {
    const struct th_client_ops *ops;
};

struct th_client_req {
    const char *method; /* "GET", "POST", "PUT", "PATCH", "DELETE", ... */
    const char *path;  /* "/api/v1/namespaces/default/pods/x"; percent-encoded, may carry a query */
    const char *query; /* "limit=500&continue=..." percent-encoded, without '?'; or NULL */
    const char *content_type; /* of body; NULL without one */
    const char *accept;       /* NULL: "application/json" */
    struct th_str body;
    long (*in_fn)(void *arg, char *buf, size_t n); /* as th_raw_req; NULL: body */
    /* The answer's body piece by piece, statuses >= 400 excluded (they go to ret_body); NULL: all
     * to ret_body. Returns false to stop, which is success. */
    bool (*on_data)(void *arg, const char *p, size_t n);
    void *arg;
    int64_t timeout_ms; /* 0: none */
    const bool *cancel; /* atomic; true ends the request with TH_R_CANCELED soon; may be NULL */
};

enum th_watch_item_type {
    TH_WI_ADDED,
    TH_WI_MODIFIED,
    TH_WI_DELETED,
    TH_WI_BOOKMARK,
    TH_WI_ERROR /* object is a Status; the watch is over */
};
struct th_watch_item {
    enum th_watch_item_type type;
    struct th_str object; /* JSON text, borrowed until the next call on this watch */
};
struct th_watch_req {
    struct th_gvr gvr;
    const char *ns;                              /* NULL: all */
    const char *label_selector, *field_selector; /* or NULL */
    const char *resource_version;                /* not NULL */
    bool bookmarks;
    int timeout_s; /* the server ends the watch after that; 0: its default */
};
struct th_client_watch; /* a transport's own */

struct th_client_ops {
    /* One request. Returns 0 when an HTTP answer came, whatever its status: *ret_status and the
     * body (appended to ret_body) are set, a Status object included when it is one. A transport
     * that has the failure as a th_err already (the in-process one) may return it instead, complete
     * with details, causes and http_code. Otherwise negative means that no answer came:
     * TH_R_UNAVAILABLE, TH_R_TIMEOUT, TH_R_CANCELED. ret_body is never NULL. Thread-safe. */
    int (*request)(struct th_client *c, const struct th_client_req *req, int *ret_status,
                   struct th_buf *ret_body, struct th_err *err);
    /* Begins a watch; may return before the server has answered. */
    int (*watch_open)(struct th_client *c, const struct th_watch_req *req,
                      struct th_client_watch **ret, struct th_err *err);
    /* Next item: 1 with *ret set, 0 when timeout_ms went by or watch_wake was called, negative when
     * the watch is over: TH_R_EXPIRED/TH_R_GONE (list again), TH_R_UNAVAILABLE (the stream ended:
     * watch again), or what the server answered instead of a stream. One thread at a time. */
    int (*watch_next)(struct th_client_watch *w, int64_t timeout_ms, struct th_watch_item *ret,
                      struct th_err *err);
    /* From any thread: a watch_next that waits (or the next one that would) returns 0 soon. */
    void (*watch_wake)(struct th_client_watch *w);
    void (*watch_close)(struct th_client_watch *w);
    void (*free)(struct th_client *c);
};

/* "/api/v1/namespaces/NS/PLURAL/NAME/SUB" appended to b, parts percent-encoded; ns, name and sub
 * may be NULL or "". */
void th_client_add_path(struct th_buf *b, struct th_gvr r, const char *ns, const char *name,
                        const char *sub);
/* "&name=value" (without '&' when b is empty), value percent-encoded; nothing when value is NULL.
 */
void th_client_add_query(struct th_buf *b, const char *name, const char *value);
/* The query of a watch. */
void th_client_watch_query(struct th_buf *b, const struct th_watch_req *req);
/* Sets err from the body of an answer with a status >= 400 (a Status object or any text) and
 * returns its code. */
int th_client_fail_status(int http_status, struct th_str body, struct th_err *err);
/* request(), with statuses >= 400 turned into errors. */
int th_client_do(struct th_client *c, const struct th_client_req *req, struct th_buf *ret_body,
                 struct th_err *err) TH_MUST_USE;
/* A list page by page: fn gets the text of each page's list object and returns < 0 to give up.
 * *ret_rv is the list's resourceVersion (caller frees; may be NULL). When the continue token
 * expires halfway, the whole list is asked for at once and fn gets it with restart = true: forget
 * the pages before. */
typedef int th_list_page_fn(void *arg, struct th_str page, bool restart, struct th_err *err);
int th_client_list_pages(struct th_client *c, struct th_gvr r, const char *ns,
                         const char *label_selector, const char *field_selector, const bool *cancel,
                         th_list_page_fn *fn, void *arg, char **ret_rv,
                         struct th_err *err) TH_MUST_USE;
#endif
