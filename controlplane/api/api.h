#ifndef TH_API_H
#define TH_API_H
/* The request pipeline, without HTTP: a request in, a response out. server.c feeds it from
 * libmicrohttpd, local.c from calls of controllers in the same process. */
#include "base/buf.h"
#include "base/err.h"
#include "controlplane/resources/access.h"
#include "controlplane/resources/cluster.h"
#include "controlplane/store/store.h"

struct th_api;

/* The name in the certificate of a front proxy: ours towards other servers, and others' towards us. */
#define TH_FRONT_PROXY_NAME "front-proxy-client"

/* ---- The pipeline ---- */
struct th_api_opts {
    struct th_store *store;            /* borrowed */
    struct th_cluster *cluster;        /* borrowed */
    const char *const *disable_admission; /* plugin names, NULL-terminated or NULL */
    const char *node_socket;           /* the node agent's Unix socket */
    const char *token_file;            /* static tokens: token,user,uid,"group1,group2"; or NULL */
    const char *server_address;        /* "127.0.0.1:6443", as /api answers; or NULL */
    const char *authorization_mode;    /* "Node,RBAC" when NULL */
    const char *audit_policy_file;     /* NULL: no audit */
    const char *audit_log;             /* appended to; NULL or "-": standard output */
    int audit_log_max_size_mb, audit_log_max_backups, audit_log_max_age_days; /* 0: no limit */
    const char *continue_expiry;       /* of tokens of paged lists, "300ms"; NULL: 5 minutes */
    const char *event_ttl;             /* how long events last, "90s"; NULL: an hour */
    /* Aggregation: what this server shows to the servers behind APIServices (NULL: no certificate), who
     * may say to us that a request is somebody else's, and who signs clients; for the ConfigMap
     * extension-apiserver-authentication. Copied. */
    const char *front_cert_pem, *front_key_pem, *front_ca_pem, *client_ca_pem;
    bool metrics_api;                  /* serve metrics.k8s.io from the nodes */
    const char *request_timeout;       /* the longest that a request may take; NULL: a minute */
};
int th_api_new(const struct th_api_opts *o, struct th_api **ret, struct th_err *err) TH_MUST_USE;
/* All requests must have ended and all watches be closed. NULL-safe. */
void th_api_free(struct th_api *api);
/* Creates what every cluster has (th_bootstrap_objects) when it is missing. */
int th_api_bootstrap(struct th_api *api, struct th_err *err) TH_MUST_USE;
/* /readyz answers 200 from here on, and 500 before and after. */
void th_api_set_ready(struct th_api *api, bool ready);

struct th_areq {
    const char *method; /* "GET" */
    const char *uri;    /* raw path with query, as sent */
    struct th_str body;
    const struct th_json *body_tree; /* in-process callers: the decoded body instead of bytes */
    const char *content_type, *accept, *user_agent, *if_none_match; /* each may be NULL */
    const char *audit_id;         /* of the request; NULL: it has none yet */
    const struct th_strv *sources; /* addresses it came from, the peer's last; or NULL */
    int64_t received_us;          /* when its head was there; 0: now */
    struct th_identity *id; /* borrowed; never NULL */
    bool upgrade;           /* the client asks for another protocol */
    bool want_tree;         /* answer with resp.tree instead of bytes where there is an object */
};

struct th_apiwatch; /* watch.h */
struct th_audit_event; /* audit.c */
/* A long body that is put together while it is sent (pieces.c): the objects of a list between two
 * texts. One thread at a time. */
struct th_pieces;
size_t th_pieces_total(const struct th_pieces *p);
/* Copies the next bytes, at most max; 0 at the end. */
size_t th_pieces_read(struct th_pieces *p, char *buf, size_t max);
void th_pieces_free(struct th_pieces *p);
struct th_stream_target;
struct th_aresp {
    int status;
    const char *content_type;      /* static */
    struct th_strv headers;        /* "Name: value" */
    struct th_buf body;
    struct th_obj *body_obj;       /* not NULL: these bytes are the body, in place of `body` */
    struct th_pieces *pieces;      /* not NULL: they are the body */
    struct th_json *tree;          /* want_tree */
    struct th_apiwatch *watch;     /* not NULL: the body is this stream of events */
    struct th_stream_target *stream; /* not NULL: forward to the node agent (streams/) */
    struct th_audit_event *audit;  /* of a watch or stream, or NULL: closed with the response */
};
#define TH_ARESP_INIT                                                                              \
    {                                                                                              \
        .status = 0                                                                                \
    }
void th_aresp_done(struct th_aresp *r);
/* Answers anything: failures become Status bodies. Blocks for writes (one group commit). */
void th_api_handle(struct th_api *api, const struct th_areq *req, struct th_aresp *resp);
/* The same for in-process callers: failures come back as an error, resp is filled on success. */
int th_api_call(struct th_api *api, const struct th_areq *req, struct th_aresp *resp,
                struct th_err *err) TH_MUST_USE;
struct th_flow;
struct th_flow_class;
struct th_flow *th_api_flow(struct th_api *api);
/* Where a request belongs in flow control, before it is handled. */
void th_api_flow_class(struct th_api *api, const struct th_areq *req, struct th_flow_class *ret);
/* True when the request never waits for a commit or a hook: it may run in an I/O thread. */
bool th_api_is_quick(struct th_api *api, const struct th_areq *req);
/* True when the answer will be a stream to or from a node (exec, log, proxy, ...): it is asked before
 * the body is there, and its body is streamed. */
bool th_api_is_stream(struct th_api *api, const struct th_areq *req);
/* A request that is turned away before the pipeline: id may not act as somebody else, or (id NULL)
 * nobody knows who asks; how then says what was tried. Only writes it down. */
void th_api_refused(struct th_api *api, const struct th_areq *req, struct th_identity *id,
                    const struct th_err *why, const char *how);
/* A stream's answer has begun, or there will be none. NULL events are fine. */
void th_audit_started(struct th_audit_event *e, int code);
void th_audit_failed(struct th_audit_event *e, const struct th_err *why);
void th_audit_close(struct th_audit_event *e);
/* True when a webhook or a policy may have to be asked before such a stream: then the request may wait,
 * and is not for an I/O thread. */
bool th_api_asks_before_streams(struct th_api *api);
/* A Status body for a failure, in a form that the request asks for; of req only uri, accept and
 * user_agent are looked at, each may be NULL. */
void th_api_fail(struct th_aresp *resp, const struct th_areq *req, const struct th_err *err);

/* ---- Authentication ---- */
/* From a verified client certificate's subject. */
struct th_identity *th_authn_subject(const char *cn, const struct th_strv *orgs);
/* authorization is the header's value or NULL; cert is what the TLS front found or NULL. Gives a
 * new reference; TH_R_UNAUTHORIZED when credentials were given and are not valid. Without any
 * it is system:anonymous. */
int th_authn(struct th_api *api, const char *authorization, struct th_identity *cert,
             struct th_identity **ret, struct th_err *err) TH_MUST_USE;
/* Whom a front proxy (its certificate's identity) names in headers, "X-Remote-...: value" lines as sent:
 * a new reference, or NULL when it may not or does not. */
struct th_identity *th_authn_front_proxy(const struct th_identity *cert,
                                         const struct th_strv *headers);
/* headers are "Impersonate-...: value" lines as sent. Gives a new reference: whom id may and wants to
 * be taken for, id itself when there are none. TH_R_FORBIDDEN, TH_R_BAD_REQUEST. */
int th_impersonate(struct th_api *api, struct th_identity *id, const struct th_strv *headers,
                   struct th_identity **ret, struct th_err *err) TH_MUST_USE;
#endif
