#ifndef TH_API_PRIV_H
#define TH_API_PRIV_H
/* Shared inside api/ only. */
#include "base/hmap.h"
#include "base/limits.h"
#include "controlplane/api/api.h"
#include "controlplane/client/client.h"
#include "controlplane/resources/resource.h"
#include "controlplane/schema/patch.h"
#include "controlplane/schema/schema.h"
#include "controlplane/schema/selector.h"

#include <pthread.h>

/* ---- query.c ---- */
struct th_query {
    struct th_strv keys, values; /* decoded, in order */
};
int th_query_parse(const char *text, struct th_query *ret, struct th_err *err) TH_MUST_USE;
void th_query_done(struct th_query *q);
const char *th_query_get(const struct th_query *q, const char *key); /* first value or NULL */
/* As upstream's conversion of query strings: absent, "0" and "false" (any case) are false. */
bool th_query_bool(const struct th_query *q, const char *key);
/* dflt when absent; TH_R_BAD_REQUEST when it is not a number. */
int th_query_int(const struct th_query *q, const char *key, int64_t dflt, int64_t *ret,
                 struct th_err *err) TH_MUST_USE;

/* ---- route.c ---- */
enum th_route_kind { TH_ROUTE_OTHER, TH_ROUTE_RESOURCE };
struct th_route {
    enum th_route_kind kind;
    char *path;    /* decoded, without query */
    char *group;   /* "" for core */
    char *version;
    char *ns;      /* NULL: none in the path */
    char *plural, *name, *sub; /* name and sub may be NULL */
    bool watch;                /* the path says that it is a watch */
    char *rest;    /* what follows the subresource ("a/b" of nodes/n/proxy/a/b), raw, or NULL */
};
int th_route_parse(const char *uri, struct th_route *ret, struct th_err *err) TH_MUST_USE;
void th_route_done(struct th_route *r);

/* ---- negotiate.c ---- */
enum th_form { TH_FORM_OBJECT, TH_FORM_TABLE, TH_FORM_PARTIAL };
enum th_media { TH_MEDIA_JSON, TH_MEDIA_YAML, TH_MEDIA_PROTOBUF };
struct th_accept {
    enum th_form form;
    enum th_media media;
    bool pretty;
    const char *gv; /* of Table or PartialObjectMetadata: "meta.k8s.io/v1" or v1beta1 */
};
/* What an endpoint can answer with beside the object. */
enum th_transforms { TH_TRANSFORMS_NONE, TH_TRANSFORMS_PARTIAL, TH_TRANSFORMS_ALL };
/* TH_R_NOT_ACCEPTABLE when nothing fits. transforms and protobuf say what is possible. */
int th_accept_parse(const char *header, enum th_transforms transforms, bool watch, bool protobuf,
                    struct th_accept *ret, struct th_err *err) TH_MUST_USE;
/* JSON is indented for whoever asks with ?pretty=true, and for people: curl, wget and browsers, unless
 * they say pretty=false. */
bool th_wants_pretty(const struct th_areq *req);
/* Finds whether a media type with these parameters ("as=X;g=Y;v=Z" order-free) comes before plain
 * JSON in Accept; for discovery. */
bool th_accept_wants(const char *header, const char *as, const char *g, const char *v);

/* ---- api.c ---- */
struct th_audit;
struct th_audit_event;
struct th_authn;
struct th_authz;
struct th_ticker;
struct th_admission;
struct th_metrics;
struct th_customs;
struct th_custom_registry;
struct th_custom_keeper;
struct th_flow;
struct th_event_expiry;
struct th_aggr;
struct th_aggr_set;
struct th_hook_pool;
struct th_hooks;
struct th_api {
    struct th_store *store;
    struct th_cluster *cluster;
    struct th_client *client; /* in-process, as the system */
    struct th_identity *system;
    struct th_audit *audit; /* NULL: nothing is written down */
    struct th_authn *authn;
    struct th_authz *authz;
    struct th_access access; /* the same, as rows see it */
    struct th_metrics *metrics;
    struct th_hook_pool *hook_pool; /* connections to webhooks */
    struct th_hooks *hooks;         /* what admission configurations say */
    struct th_custom_registry *customs;
    struct th_custom_keeper *keeper;
    struct th_aggr *aggr;   /* aggregate/ */
    struct th_usage *usage;
    struct th_flow *flow;
    struct th_ticker *ticker;
    struct th_event_expiry *event_expiry; /* from the bootstrap on */
    struct th_strv disabled_admission;
    char *node_socket, *server_address;
    int64_t continue_expiry_ms, event_ttl_ms, request_timeout_ms;
    bool ready;             /* atomic */
    pthread_mutex_t lock;   /* guards the caches below */
    struct th_hmap cache;   /* discovery and OpenAPI documents: name -> struct th_doc */
    uint64_t docs_serial;   /* of the sets of custom resources and APIServices that they are made from */
};

/* One request on its way. */
struct th_call {
    struct th_api *api;
    const struct th_areq *req;
    struct th_aresp *resp;
    struct th_route route;
    struct th_query query;
    const struct th_resource *res;     /* as asked */
    const struct th_resource *storage; /* where it is stored; res unless another form */
    const struct th_subresource *sub;
    const struct th_kind *kind;        /* of res */
    struct th_customs *customs;        /* keeps custom rows alive; NULL until they are asked for */
    struct th_aggr_set *aggr;          /* the APIServices; NULL until they are asked for */
    struct th_accept accept;
    struct th_req_ctx ctx;
    struct th_strv warnings;
    bool dry_run;
    bool reviewed;                     /* webhooks and policies were asked already */
    bool generated;                    /* metadata.name was made from generateName */
    const struct th_json *delete_options; /* of a delete, or NULL */
    bool applied;                      /* managedFields were made by apply: keep them */
    enum th_field_validation fv;
    char *manager;                     /* field manager */
    struct th_obj *made;               /* the revision that was written and is the answer, or NULL */
    const char *verb;                  /* "get", "list", ... as authorization names it */
    struct th_audit_event *audit;      /* what the policy wants written, or NULL */
};

/* TH_R_TIMEOUT when the call took longer than its client or this server allows (api.c). */
int th_call_in_time(const struct th_call *c, struct th_err *err) TH_MUST_USE;

/* ---- served.c ---- */
/* The set of custom resources for this call, taken on first use. */
struct th_customs *th_call_customs(struct th_call *c);
struct th_aggr_set *th_call_aggr(struct th_call *c); /* likewise, the APIServices */
/* The row's group and version has no local APIService: it is not served. */
bool th_call_hides(struct th_call *c, const struct th_resource *r);
/* Some row that this call sees is of the group. */
bool th_group_served(struct th_call *c, const char *group);
/* Locks api->lock with the documents in api->cache made from this call's rows, or dropped. */
void th_call_lock_docs(struct th_call *c);
/* The rows that this call sees, built-in ones first; NULL past the end. */
const struct th_resource *th_call_resource_at(struct th_call *c, size_t i);

/* ---- status.c ---- */
struct th_json *th_status_json(const struct th_err *err);
/* th_fail plus Status.details; any of group, kind, name may be NULL. */
int th_fail_obj(struct th_err *err, enum th_reason reason, const char *group, const char *kind,
                const char *name, const char *fmt, ...) TH_PRINTF(6, 7);
/* "deployments.apps", "pods": the caller frees. */
char *th_gr_name(const char *group, const char *plural);
int th_fail_not_found(struct th_err *err, const struct th_resource *r, const char *name);
int th_fail_exists(struct th_err *err, const struct th_resource *r, const char *name);
int th_fail_conflict(struct th_err *err, const struct th_resource *r, const char *name,
                     const char *why);
/* Forbidden by admission: 'pods "x" is forbidden: why'. */
int th_fail_forbidden(struct th_err *err, const struct th_resource *r, const char *name,
                      const char *fmt, ...) TH_PRINTF(4, 5);
/* Builds the Invalid error from the causes gathered in err. 0 when there are none. */
int th_fail_invalid(struct th_err *err, const char *group, const char *kind, const char *name);

/* ---- meta.c: metadata that the server owns ---- */
char *th_store_key(const struct th_call *c, const char *name);
char *th_store_prefix(const struct th_resource *storage, const char *ns);
void th_meta_create(struct th_call *c, struct th_json *obj);
bool th_meta_generate_name(struct th_json *obj); /* true when a name was made */
/* Puts what an update can never change back from old. */
void th_meta_update(struct th_json *obj, const struct th_json *old);
void th_meta_validate(const struct th_call *c, const struct th_json *obj, struct th_err *err);
void th_meta_validate_update(const struct th_call *c, const struct th_json *obj,
                             const struct th_json *old, struct th_err *err);
/* Namespace of the body against the one of the path. */
int th_meta_check_ns(const struct th_call *c, struct th_json *obj, struct th_err *err) TH_MUST_USE;
/* An object is equal but for managedFields' times. */
bool th_meta_unchanged(const struct th_json *a, const struct th_json *b);

/* ---- decode.c ---- */
/* The body as an object of kind (group, version, kind names; k may be NULL for unknown types):
 * decoded by media type, checked against the type, defaulted when dflt. */
int th_decode_body(struct th_call *c, const char *group, const char *version, const char *kind,
                   bool dflt, struct th_json **ret, struct th_err *err) TH_MUST_USE;
/* A built-in kind, or the custom one that this call is about. */
const struct th_kind *th_call_kind(const struct th_call *c, const char *group, const char *version,
                                   const char *kind);
/* Parses the bytes of an options body (DeleteOptions); NULL for an empty body. */
int th_decode_options(struct th_call *c, const char *kind, struct th_json **ret,
                      struct th_err *err) TH_MUST_USE;
/* What decoding does to a tree that was made by a patch: type check, pruning, defaults.
 * from_map: the patch was a strategic merge, whose errors are worded otherwise. */
int th_decode_tree(struct th_call *c, const struct th_kind *k, struct th_json *obj,
                   const struct th_strv *dups, bool from_map, struct th_err *err) TH_MUST_USE;
/* Error text prefix of upstream's decoder. */
int th_decode_wrap(struct th_err *err, const char *kind, const char *version, const char *want);

/* ---- object.c: the write path that all verbs share ---- */
/* Parses stored bytes and converts them to the served form. */
int th_object_load(const struct th_resource *res, const struct th_obj *o, struct th_json **ret,
                   struct th_err *err) TH_MUST_USE;
/* The same for n objects of one row, which a conversion webhook gets together; the caller unrefs. */
int th_object_load_all(const struct th_resource *res, struct th_obj *const *objs, size_t n,
                       struct th_json **ret, struct th_err *err) TH_MUST_USE;
/* Takes obj. *ret_rv_obj gets the stored revision (NULL with dryRun), *ret the object as answered. */
int th_object_create(struct th_call *c, struct th_json *obj, struct th_json **ret,
                     struct th_err *err) TH_MUST_USE;
struct th_update {
    struct th_obj *old_obj;
    const struct th_json *old;
    bool unconditional; /* the body named no revision */
    bool applied;       /* managedFields were made by apply */
    bool keep_fields;   /* leave managedFields alone (deletes) */
    bool same_generation; /* what changes is not what the user wants of the object (binding) */
};
/* Takes obj. TH_R_CONFLICT with `*ret_retry` set when another write came between. */
int th_object_update(struct th_call *c, const struct th_update *u, struct th_json *obj,
                     struct th_json **ret, bool *ret_retry, struct th_err *err) TH_MUST_USE;
int th_object_dump(struct th_call *c, struct th_json *obj, struct th_buf *b, struct th_err *err) TH_MUST_USE;
const char *const *th_reset_paths(const struct th_call *c);

/* ---- delete.c ---- */
struct th_delete_req {
    const char *propagation;
    int64_t grace_s; /* -1: not said */
    const char *uid, *rv;
    bool orphan_dependents_set, orphan_dependents;
};
int th_delete_one(struct th_call *c, struct th_obj *o, const struct th_delete_req *d,
                  struct th_json **ret_obj, bool *ret_gone, struct th_err *err) TH_MUST_USE;
int th_delete_parse(struct th_call *c, struct th_delete_req *d, struct th_json **ret_hold,
                    struct th_err *err) TH_MUST_USE;

/* ---- respond.c ---- */
/* Answers with one object. Both take nothing; bytes are shared where no change is needed. */
int th_respond_obj(struct th_call *c, int status, struct th_obj *o, struct th_err *err) TH_MUST_USE;
/* Takes obj. */
int th_respond_tree(struct th_call *c, int status, struct th_json *obj, struct th_err *err) TH_MUST_USE;
/* The same for an object that was just written: c->made's bytes where they are the answer. */
int th_respond_made(struct th_call *c, int status, struct th_json *obj,
                    struct th_err *err) TH_MUST_USE;
void th_respond_json(struct th_aresp *r, int status, const struct th_json *o, bool pretty);
#define TH_TYPE_PROTOBUF "application/vnd.kubernetes.protobuf"
/* k has a form in protobuf; NULL has none. */
bool th_kind_has_protobuf(const struct th_kind *k);
/* Stored bytes in the form that c->accept says, in protobuf with its envelope, to b. */
int th_protobuf_of(const struct th_call *c, struct th_str json, struct th_buf *b,
                   struct th_err *err) TH_MUST_USE;
void th_respond_text(struct th_aresp *r, int status, const char *content_type, const char *text);

/* ---- pieces.c ---- */
/* Takes what head, tail and l hold. Each object loses its first `skip` bytes for one "{". */
struct th_pieces *th_pieces_new(struct th_buf *head, struct th_buf *tail, struct th_store_list *l,
                                size_t skip);

/* ---- table.c ---- */
/* Column definitions of the row as JSON text; the subresource's when it has its own. */
void th_table_columns(const struct th_call *c, struct th_buf *b);
/* One row: {"cells":[...],"object":...}; include is "None", "Metadata" (default) or "Object". */
int th_table_row(const struct th_call *c, const struct th_json *obj, const char *include,
                 struct th_buf *b, struct th_err *err) TH_MUST_USE;
/* Opening of a Table up to and including "rows":[ ; rv and the others may be NULL. */
void th_table_head(const struct th_call *c, const char *rv, const char *cont, int64_t remaining,
                   bool columns, struct th_buf *b);
int th_table_include(const struct th_call *c, const char **ret, struct th_err *err) TH_MUST_USE;
void th_partial_meta(const struct th_json *obj, const char *gv, struct th_buf *b);

/* ---- select.c ---- */
struct th_select {
    struct th_selector *labels;   /* NULL: all */
    struct th_fieldsel fields;
    const struct th_resource *res;
    bool parse;                   /* some field needs the parsed object */
    const char *name, *ns;        /* a metadata.name / metadata.namespace equality, or NULL */
};
int th_select_parse(const struct th_call *c, struct th_select *ret, struct th_err *err) TH_MUST_USE;
void th_select_done(struct th_select *s);
/* Fails when an object that is stored in another form cannot be converted. */
int th_select_test(const struct th_select *s, const struct th_obj *o, bool *ret,
                   struct th_err *err) TH_MUST_USE;
bool th_select_matches(const struct th_select *s, const struct th_obj *o); /* then: false */
bool th_select_all(const struct th_select *s);

/* ---- virtual.c: kinds that are made on being asked (th_strategy.list_virtual) ---- */
/* All objects that the path names, unfiltered, as a list at the newest revision. */
int th_virtual_list(struct th_call *c, struct th_store_list *ret, struct th_err *err) TH_MUST_USE;
int th_virtual_get(struct th_call *c, const char *name, struct th_obj **ret,
                   struct th_err *err) TH_MUST_USE;

/* ---- usage.c: what nodes and pods use, asked of the node agents ---- */
struct th_usage;
struct th_usage *th_usage_new(struct th_store *store, const char *node_socket);
void th_usage_free(struct th_usage *u);
/* th_access.usage; self is the struct th_api. */
int th_usage_get(void *self, bool pods, const char *ns, const char *name, struct th_json **ret,
                 struct th_err *err);

/* ---- event_expiry.c ---- */
struct th_event_expiry *th_event_expiry_new(struct th_store *store, int64_t ttl_ms);
void th_event_expiry_free(struct th_event_expiry *x);

/* ---- one file per verb ---- */
int th_verb_get(struct th_call *c, struct th_err *err);
int th_verb_list(struct th_call *c, struct th_err *err);
int th_verb_watch(struct th_call *c, struct th_err *err);
int th_verb_create(struct th_call *c, struct th_err *err);
int th_verb_update(struct th_call *c, struct th_err *err);
int th_verb_patch(struct th_call *c, struct th_err *err);
int th_verb_delete(struct th_call *c, struct th_err *err);
int th_verb_deletecollection(struct th_call *c, struct th_err *err);
int th_verb_sub_get(struct th_call *c, struct th_err *err);
int th_verb_sub_update(struct th_call *c, struct th_err *err);
int th_verb_sub_create(struct th_call *c, struct th_err *err);

/* Writes a subresource's body over the stored object and answers (subresource.c). */
int th_sub_write(struct th_call *c, struct th_obj *old_obj, const struct th_json *old,
                 const struct th_json *body, bool applied, bool *ret_retry,
                 struct th_err *err) TH_MUST_USE;

/* Commits obj (taken) in place of old and answers as the subresource shows it. */
int th_sub_commit(struct th_call *c, struct th_obj *old_obj, const struct th_json *old,
                  struct th_json *obj, bool applied, bool *ret_retry,
                  struct th_err *err) TH_MUST_USE;

/* ---- list options (listopts.c) ---- */
struct th_listopts {
    int64_t rv;      /* -1: not said */
    enum { TH_RVM_NONE, TH_RVM_EXACT, TH_RVM_NOT_OLDER } match;
    int64_t limit;
    const char *cont;
    bool watch, bookmarks, initial_events, initial_events_set;
    int64_t timeout_s; /* 0: not said */
};
int th_listopts_parse(const struct th_query *q, bool watch, struct th_listopts *ret,
                      struct th_err *err) TH_MUST_USE;
/* TH_R_TIMEOUT as upstream when rv has not been reached yet. */
int th_listopts_check_rv(const struct th_call *c, int64_t rv, struct th_err *err) TH_MUST_USE;

/* ---- authz.c ---- */
/* modes: --authorization-mode, NULL for "Node,RBAC". */
int th_authz_new(struct th_store *store, const char *modes, struct th_authz **ret,
                 struct th_err *err) TH_MUST_USE;
void th_authz_free(struct th_authz *a);
bool th_authz_uses_rbac(const struct th_authz *a);
/* Why is appended to reason, which may be NULL; then nothing is allocated. */
bool th_authz_allowed(struct th_authz *a, const struct th_attrs *at, struct th_buf *reason);
/* The same as a Forbidden error. */
int th_authorize(struct th_api *api, const struct th_attrs *at, struct th_err *err) TH_MUST_USE;
/* May who updates or applies what is not there create it? */
int th_authorize_create(struct th_call *c, struct th_err *err) TH_MUST_USE;
void th_authz_access(struct th_api *api, struct th_access *ret);

/* ---- audit.c ---- */
struct th_audit_opts {
    const char *policy_file, *log_path; /* log_path NULL or "-": standard output */
    int max_size_mb, max_backups, max_age_days; /* audit_log.h */
};
int th_audit_new(const struct th_audit_opts *o, struct th_audit **ret,
                 struct th_err *err) TH_MUST_USE;
void th_audit_free(struct th_audit *a);
/* Before authorization; api->audit is not NULL. */
void th_audit_begin(struct th_call *c, const struct th_attrs *at);
/* Written with the request's event, if there is one. */
void th_audit_annotate(struct th_call *c, const char *key, const char *value);
/* The same where the policy wants what was sent. */
void th_audit_annotate_request(struct th_call *c, const char *key, const char *value);
/* When c->audit is not NULL: the answer is there, or the failure. The event of what goes on (a watch,
 * a stream) moves to the response. */
void th_audit_end(struct th_call *c, int code, const struct th_err *failure);
/* A request that was turned away before the pipeline; how: nobody knows who asks, this was tried. */
void th_audit_refused(struct th_call *c, const struct th_attrs *at, const struct th_err *why,
                      const char *how);

/* ---- fresh.c: objects that are made at the start, in one commit ---- */
struct th_fresh {
    struct th_store_write *v;
    size_t n, cap;
    struct th_strv keys, texts;
};
/* A copy of wanted with what the server adds. */
int th_fresh_add(struct th_fresh *f, const char *key, const struct th_json *wanted,
                 const struct th_kind *k, struct th_err *err) TH_MUST_USE;
int th_fresh_commit(struct th_store *store, struct th_fresh *f, struct th_err *err) TH_MUST_USE;
void th_fresh_done(struct th_fresh *f);

/* ---- rbac_bootstrap.c ---- */
/* Makes and mends the default roles and bindings, in one commit. */
int th_rbac_bootstrap(struct th_api *api, struct th_err *err) TH_MUST_USE;

/* ---- admission/admission.h has the plugins ---- */
int th_admit_mutate(struct th_call *c, struct th_json *obj, const struct th_json *old,
                    struct th_err *err) TH_MUST_USE;
int th_admit_validate(struct th_call *c, const struct th_json *obj, const struct th_json *old,
                      struct th_err *err) TH_MUST_USE;
/* Deletes; o is what goes. */
int th_admit_delete(struct th_call *c, const char *name, struct th_obj *o,
                    struct th_err *err) TH_MUST_USE;
/* What is configured in the cluster (webhooks and policies) alone, of a POST that writes nothing by
 * itself: reviews, bindings. It may change obj. */
int th_admit_review(struct th_call *c, struct th_json *obj, struct th_err *err) TH_MUST_USE;
/* The same of a connection (exec, attach, portforward, proxy). */
int th_admit_connect(struct th_call *c, struct th_err *err) TH_MUST_USE;

/* ---- paths that are not resources (discovery.c, health.c, openapi_serve.c) ---- */
/* 1 answered, 0 not such a path. */
int th_discovery_serve(struct th_call *c, struct th_err *err);
int th_health_serve(struct th_call *c, struct th_err *err);
int th_openapi_serve(struct th_call *c, struct th_err *err);
int th_metrics_serve(struct th_call *c, struct th_err *err);
int th_oidc_serve(struct th_call *c, struct th_err *err);

struct th_doc { /* a cached document */
    char *text;
    size_t n;
    char etag[72];
    const char *content_type;
};
void th_doc_free(void *d);
/* Answers with a cached document, 304 when If-None-Match says so. */
void th_doc_respond(struct th_call *c, const struct th_doc *d, const char *content_type);

/* ---- authn.c ---- */
/* token_file: static tokens, or NULL. */
int th_authn_new(const char *token_file, struct th_authn **ret, struct th_err *err) TH_MUST_USE;
void th_authn_free(struct th_authn *a);
/* th_access.token; self is the struct th_api. */
int th_authn_token(void *self, const char *token, const char *const *audiences,
                   struct th_identity **ret, struct th_strv *ret_audiences,
                   struct th_err *err) TH_MUST_USE;

/* ---- metrics.c ---- */
struct th_metrics *th_metrics_new(void);
void th_metrics_free(struct th_metrics *m);
void th_metrics_request(struct th_metrics *m, const struct th_call *c, int code, int64_t us);

/* ---- streams/ ---- */
int th_stream_route(struct th_call *c, struct th_err *err);
void th_stream_target_free(struct th_stream_target *t);
#endif
