#ifndef TH_CLIENT_H
#define TH_CLIENT_H
/* The one client interface: controllers, scheduler, node agent and CLI. Two transports: in-process
 * (the API pipeline called directly, th_client_new_local in controlplane/api/local.h) and HTTP over
 * TLS or a Unix socket (th_client_new_http). All calls block and are thread-safe. Objects are
 * th_json trees that the caller owns. */
#include "base/json/json.h"

struct th_client;
void th_client_free(struct th_client *c);
TH_DEFINE_AUTO(th_client, th_client_free)

/* A resource as the client names it. */
struct th_gvr {
    const char *group; /* "" for core */
    const char *version;
    const char *plural;
};
#define TH_GVR_PODS ((struct th_gvr){"", "v1", "pods"})
#define TH_GVR_NODES ((struct th_gvr){"", "v1", "nodes"})
#define TH_GVR_SERVICES ((struct th_gvr){"", "v1", "services"})
#define TH_GVR_ENDPOINTS ((struct th_gvr){"", "v1", "endpoints"})
#define TH_GVR_EVENTS ((struct th_gvr){"", "v1", "events"})
#define TH_GVR_CONFIGMAPS ((struct th_gvr){"", "v1", "configmaps"})
#define TH_GVR_SECRETS ((struct th_gvr){"", "v1", "secrets"})
#define TH_GVR_SERVICEACCOUNTS ((struct th_gvr){"", "v1", "serviceaccounts"})
#define TH_GVR_NAMESPACES ((struct th_gvr){"", "v1", "namespaces"})
#define TH_GVR_LEASES ((struct th_gvr){"coordination.k8s.io", "v1", "leases"})
#define TH_GVR_ENDPOINTSLICES ((struct th_gvr){"discovery.k8s.io", "v1", "endpointslices"})
#define TH_GVR_REPLICASETS ((struct th_gvr){"apps", "v1", "replicasets"})
#define TH_GVR_DEPLOYMENTS ((struct th_gvr){"apps", "v1", "deployments"})

/* ns is NULL or "" for cluster-scoped resources and for lists over all namespaces. Failures are
 * the server's Status turned into th_err (reason, causes, details), or TH_R_UNAVAILABLE when the
 * server cannot be reached. ret may be NULL where the answer is not wanted. */
int th_client_get(struct th_client *c, struct th_gvr r, const char *ns, const char *name,
                  struct th_json **ret, struct th_err *err) TH_MUST_USE;
/* The whole list object; label_selector and field_selector may be NULL. Pages by itself. */
int th_client_list(struct th_client *c, struct th_gvr r, const char *ns, const char *label_selector,
                   const char *field_selector, struct th_json **ret_list,
                   struct th_err *err) TH_MUST_USE;
int th_client_create(struct th_client *c, struct th_gvr r, const char *ns,
                     const struct th_json *obj, struct th_json **ret,
                     struct th_err *err) TH_MUST_USE;
/* PUT of the object at its own name; subresource "" or "status", ... */
int th_client_update(struct th_client *c, struct th_gvr r, const char *ns, const char *name,
                     const char *subresource, const struct th_json *obj, struct th_json **ret,
                     struct th_err *err) TH_MUST_USE;
enum th_patch_kind { TH_PATCH_JSON, TH_PATCH_MERGE_RFC7386, TH_PATCH_STRATEGIC, TH_PATCH_APPLY };
struct th_patch_opts {
    enum th_patch_kind kind;
    const char *field_manager; /* needed for apply */
    bool force;                /* apply */
    bool dry_run;
    const char *field_validation; /* NULL (the server's default), "Ignore", "Warn", "Strict" */
};
int th_client_patch(struct th_client *c, struct th_gvr r, const char *ns, const char *name,
                    const char *subresource, const struct th_patch_opts *o,
                    const struct th_json *patch, struct th_json **ret,
                    struct th_err *err) TH_MUST_USE;
struct th_delete_opts {
    const char *propagation; /* NULL, "Background", "Foreground", "Orphan" */
    int64_t grace_s;         /* -1: the object's default */
    const char *uid;         /* precondition or NULL */
    const char *resource_version;
};
#define TH_DELETE_OPTS_INIT                                                                        \
    {                                                                                              \
        .grace_s = -1                                                                              \
    }
int th_client_delete(struct th_client *c, struct th_gvr r, const char *ns, const char *name,
                     const struct th_delete_opts *o, struct th_json **ret,
                     struct th_err *err) TH_MUST_USE;
/* POST to a subresource: pods/binding, pods/eviction, serviceaccounts/token. */
int th_client_post(struct th_client *c, struct th_gvr r, const char *ns, const char *name,
                   const char *subresource, const struct th_json *body, struct th_json **ret,
                   struct th_err *err) TH_MUST_USE;

/* Any other request: path with query ("/api/v1/nodes/n/proxy/..."). Body and answer are bytes.
 * on_data (may be NULL) gets the answer piece by piece instead of ret_body and returns false to
 * stop. in_fn feeds a streamed body (chunked), returns bytes written, 0 at the end, < 0 to abort.
 * *ret_status gets the HTTP status; statuses >= 400 are also turned into an error. */
struct th_raw_req {
    const char *method, *path, *content_type, *accept;
    struct th_str body;
    long (*in_fn)(void *arg, char *buf, size_t n);
    bool (*on_data)(void *arg, const char *p, size_t n);
    void *arg;
    int64_t timeout_ms; /* 0: none */
};
int th_client_raw(struct th_client *c, const struct th_raw_req *req, int *ret_status,
                  struct th_buf *ret_body, struct th_err *err) TH_MUST_USE;

/* ---- Helpers (objects.c) ---- */
/* "/apis/apps/v1/namespaces/NS/deployments/NAME/SUB"; ns, name, subresource may be NULL or "". The
 * caller frees. */
char *th_client_path(struct th_gvr r, const char *ns, const char *name, const char *subresource);
/* An owner reference to owner (needs apiVersion, kind, metadata.name and uid); the caller's. */
struct th_json *th_owner_ref_build(const struct th_json *owner, bool controller,
                                   bool block_owner_deletion);
/* The owner reference with controller=true, borrowed, or NULL; and its uid. */
struct th_json *th_controller_of(const struct th_json *obj);
const char *th_controller_uid(const struct th_json *obj);
/* Reads the object, lets fn change it, and PUTs it (to the subresource); on a conflict all of it
 * again, a few times. fn returns 1 to write, 0 when nothing is to be changed, < 0 to give up. Gives
 * 1 when it was written, 0 when not; *ret (may be NULL) is the object as it is then. */
typedef int th_modify_fn(void *arg, struct th_json *obj, struct th_err *err);
int th_client_modify(struct th_client *c, struct th_gvr r, const char *ns, const char *name,
                     const char *subresource, th_modify_fn *fn, void *arg, struct th_json **ret,
                     struct th_err *err) TH_MUST_USE;

/* ---- HTTP transport (http.c, libcurl) ---- */
struct th_client_http_opts {
    const char *server;      /* "https://127.0.0.1:6443" */
    const char *unix_socket; /* not NULL: connect there, server gives only Host and scheme http */
    const char *connect_to;  /* "address:port" in place of the server's own, whose name and
                                certificate stay; or NULL */
    const char *ca_pem, *cert_pem, *key_pem, *token;
    bool insecure;                /* the server's certificate is not looked at */
    const char *const *headers;   /* "Name: value" of every request; NULL-terminated or NULL */
    const char *user_agent;
    /* Unix socket only (the server trusts root there): who we are, X-Remote-User / X-Remote-Group.
     */
    const char *as_user;
    const char *const *as_groups; /* NULL-terminated or NULL */
    /* Warnings that the server gives with an answer (Warning: 299), in the calling thread; NULL:
     * passed over. */
    void (*on_warning)(void *arg, const char *text);
    void *warning_arg;
};
int th_client_new_http(const struct th_client_http_opts *o, struct th_client **ret,
                       struct th_err *err) TH_MUST_USE;

/* ---- Informers: a cache kept current by list + watch ---- */
struct th_informer;
struct th_informer_opts {
    struct th_gvr gvr;
    const char *ns;             /* NULL: all */
    const char *label_selector; /* NULL: all */
    const char *field_selector;
    bool metadata_only; /* objects in cache and events are {apiVersion, kind, metadata} */
    /* Called in the informer's thread after the cache has changed; old is NULL for an addition, now
     * is NULL for a deletion. Both are borrowed and immutable. After every (re)list, deletions
     * that were missed are reported too. */
    void (*on_event)(void *arg, const struct th_json *old, const struct th_json *now);
    void (*on_synced)(void *arg); /* once, after the first full list */
    void *arg;
};
/* Starts a thread that lists, watches, and lists again when it must, with back-off. */
int th_informer_start(struct th_client *c, const struct th_informer_opts *o,
                      struct th_informer **ret, struct th_err *err) TH_MUST_USE;
void th_informer_stop(struct th_informer *i); /* joins and frees */
bool th_informer_synced(struct th_informer *i);
bool th_informer_wait_synced(struct th_informer *i, int64_t timeout_ms);
/* A new reference to the cached object ("ns/name" or "name"), or NULL. Read-only: other threads
 * may hold it; th_json_dup before changing. The cache keeps bytes and parses per call, so that
 * trees are never shared between threads. */
struct th_json *th_informer_get(struct th_informer *i, const char *ns, const char *name);
/* All objects (of ns, or of all with NULL), one after another; fn returns false to stop. */
void th_informer_each(struct th_informer *i, const char *ns,
                      bool (*fn)(void *arg, struct th_json *obj), void *arg);
size_t th_informer_count(struct th_informer *i);
size_t th_informer_count_in(struct th_informer *i, const char *ns);
/* Objects whose owner reference with controller=true has this uid; objects with a named index. */
void th_informer_by_owner(struct th_informer *i, const char *owner_uid,
                          bool (*fn)(void *arg, struct th_json *obj), void *arg);

/* ---- Events (events.c): the recorder ---- */
/* Writes or counts up a core/v1 Event about obj (needs apiVersion, kind, metadata); asynchronous,
 * dropped with a log line when the server is away. type is "Normal" or "Warning". Repeated events
 * (same object, reason and message) become one with count. */
struct th_recorder;
struct th_recorder *th_recorder_new(struct th_client *c, const char *component, const char *host);
void th_recorder_free(struct th_recorder *r);
/* About a part of obj: field_path is "spec.containers{web}". */
void th_event_record_at(struct th_recorder *r, const struct th_json *obj, const char *field_path,
                        const char *type, const char *reason, const char *fmt, ...) TH_PRINTF(6, 7);
void th_event_record(struct th_recorder *r, const struct th_json *obj, const char *type,
                     const char *reason, const char *fmt, ...) TH_PRINTF(5, 6);
#endif
