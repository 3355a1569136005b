#ifndef TH_API_AGGREGATE_H
#define TH_API_AGGREGATE_H
/* Aggregation: APIServices say who answers for a group and version, this server or one behind a
 * Service. Sets of them never change, as those of custom resources (customs.h). */
#include "controlplane/api/priv.h"

struct th_aggr_service {
    char *name, *group, *version;
    int64_t group_priority, version_priority;
    int64_t group_top; /* the highest of the group's */
    bool local, available;
    char *ns, *service; /* not local */
    int port;
    bool insecure;
    char *ca_pem; /* or NULL */
    int64_t rv;
};
struct th_aggr_set {
    unsigned refs; /* atomic */
    uint64_t serial;
    struct th_aggr_service *v; /* sorted: group priority, group, version priority, version */
    size_t n;
    bool any_remote;
};
/* What a remote server said of its group and version; guarded by th_aggr's lock, copied out. */
struct th_aggr_docs {
    struct th_json *resources; /* APIResourceDiscovery objects; NULL: not known */
    char *v3_hash;             /* of its OpenAPI v3 document, or NULL */
    struct th_json *v2;        /* its part of OpenAPI v2: {paths, definitions}, or NULL */
    bool stale;                /* it could not be asked lately */
};

struct th_aggr_opts {
    struct th_api *api; /* borrowed */
    const char *front_cert_pem, *front_key_pem, *front_ca_pem, *client_ca_pem; /* copied */
    bool metrics_api;
};
struct th_aggr *th_aggr_new(const struct th_aggr_opts *o);
void th_aggr_free(struct th_aggr *a);
/* Makes what is missing of the local APIServices and the ConfigMap, then starts looking after them. */
int th_aggr_bootstrap(struct th_aggr *a, struct th_err *err) TH_MUST_USE;

/* The newest set, a new reference: whatever was written before this call is in it. */
struct th_aggr_set *th_aggr_get(struct th_aggr *a);
void th_aggr_unref(struct th_aggr_set *s);
const struct th_aggr_service *th_aggr_find(const struct th_aggr_set *s, const char *group,
                                           const char *version);
/* The remote service that answers for a path ("/apis/<group>/<version>..."), or NULL. */
const struct th_aggr_service *th_aggr_of_path(const struct th_aggr_set *s, const char *path);

/* ---- priorities.c ---- */
/* Of a built-in or custom group and version, as upstream registers them. */
void th_aggr_priorities(const char *group, const char *version, int64_t *ret_group,
                        int64_t *ret_version);
/* GA before beta before alpha, higher numbers first, other names last in their order. */
bool th_version_before(const char *a, const char *b);

/* ---- resolve.c ---- */
/* An address behind a Service's port: a ready endpoint, or the external name's. */
int th_service_resolve(struct th_store *store, const char *ns, const char *name, int64_t port,
                       char **ret_ip, int *ret_port, struct th_err *err) TH_MUST_USE;

/* ---- proxy.c ---- */
/* Answers c (an authorized request) with the order to forward it to s. */
int th_aggr_proxy(struct th_call *c, const struct th_aggr_service *s, struct th_err *err);
/* A client of the server behind s that acts as id. */
int th_aggr_client(struct th_aggr *a, const struct th_aggr_service *s, const struct th_identity *id,
                   struct th_client **ret, struct th_err *err) TH_MUST_USE;

/* ---- keeper.c ---- */
struct th_aggr_keeper;
struct th_aggr_keeper *th_aggr_keeper_new(struct th_aggr *a);
void th_aggr_keeper_free(struct th_aggr_keeper *k);

/* ---- docs.c: what remote servers say of themselves ---- */
/* Asks s for its discovery (the check that it is there). TH_R_UNAVAILABLE says why not in the words of
 * the condition. *ret is the APIResourceList. */
int th_aggr_probe(struct th_aggr *a, const struct th_aggr_service *s, struct th_json **ret,
                  struct th_err *err) TH_MUST_USE;
/* Takes what a probe gave, and asks for the OpenAPI documents when they have changed. */
void th_aggr_docs_learn(struct th_aggr *a, const struct th_aggr_service *s,
                        const struct th_json *resource_list);
void th_aggr_docs_stale(struct th_aggr *a, const char *name);
void th_aggr_docs_forget(struct th_aggr *a, const struct th_aggr_set *keep);
/* APIResourceDiscovery objects, the caller's; NULL when nothing is known. */
struct th_json *th_aggr_docs_resources(struct th_aggr *a, const char *name, bool *ret_stale);
char *th_aggr_docs_v3_hash(struct th_aggr *a, const char *name);
struct th_json *th_aggr_docs_v2(struct th_aggr *a, const char *name);
uint64_t th_aggr_docs_serial(struct th_aggr *a); /* grows whenever one of them changes */

/* ---- Inside ---- */
struct th_aggr {
    struct th_api *api;
    char *front_cert, *front_key, *front_ca, *client_ca;
    bool metrics_api;
    struct th_aggr_keeper *keeper;
    pthread_mutex_t lock; /* guards everything below */
    struct th_watch *watch;
    struct th_aggr_set *now;
    struct th_hmap docs; /* name -> struct th_aggr_docs */
    uint64_t docs_serial;
};
#define TH_APISERVICES_PREFIX "apiregistration.k8s.io/apiservices/"
#define TH_GVR_APISERVICES ((struct th_gvr){"apiregistration.k8s.io", "v1", "apiservices"})
void th_aggr_docs_free(void *docs);
#endif
