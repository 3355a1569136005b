#ifndef TH_RESOURCE_H
#define TH_RESOURCE_H
/* A resource is a row: what it is called, which verbs and subresources it has, how it is printed,
 * and the few hooks where the schema cannot say it. Routing, discovery, OpenAPI, Tables, field
 * selectors and authorization read the row; nothing else is written per kind.
 *
 * Rows are generated: gen_rows.py compiles schema/data (names, verbs, columns, selectable fields)
 * and rows.tsv (cells, hooks) into resource_rows.c. Hooks are declared in rows.h and live in the
 * file of their kind or group. */
#include "base/json/json.h"
#include "controlplane/client/client.h"
#include "controlplane/resources/access.h"
#include "controlplane/schema/schema.h"

enum th_verb {
    TH_VERB_GET = 1,
    TH_VERB_LIST = 2,
    TH_VERB_WATCH = 4,
    TH_VERB_CREATE = 8,
    TH_VERB_UPDATE = 16,
    TH_VERB_PATCH = 32,
    TH_VERB_DELETE = 64,
    TH_VERB_DELETECOLLECTION = 128
};
#define TH_VERBS_ALL 255u

/* What a hook may use: who asks, what time it is, and reads through the store's cache. */
struct th_resource;
struct th_req_ctx {
    const char *user;            /* "" when the system itself acts */
    const char *const *groups;   /* NULL-terminated or NULL */
    int64_t now_ms;
    int64_t deadline_us;         /* th_mono_us() when nobody waits any more, 0: never */
    bool dry_run;
    struct th_strv *warnings;    /* HTTP Warning headers, one text each */
    struct th_client *client;    /* in-process, acting as the system */
    void *cluster;               /* struct th_cluster (resources/cluster.h): allocators, config */
    const char *subresource;     /* the one written through, NULL: the object itself */
    const char *const *extra;    /* who asks, further: "key=value", NULL-terminated or NULL */
    const char *uid;             /* of the user, or NULL */
    struct th_identity *id;      /* who asks, whole */
    const struct th_access *access; /* what reviews ask */
    const struct th_resource *res; /* of the request, or NULL */
    bool for_update;             /* a subresource's get on the way to a patch of it */
};

struct th_column {
    const char *name;
    const char *type;   /* "string", "integer", "date", ... */
    const char *format; /* "name" or "" */
    const char *doc;
    int priority;
};

/* A member that never changes once the object is there; ends with path NULL. */
struct th_frozen {
    const char *path, *words; /* what the cause says */
    bool forbidden;           /* "Forbidden: words"; otherwise "Invalid value: ...: words" */
};
/* Strategy hooks; each may be NULL. obj is the new object and may be changed by prepare hooks;
 * old is what is stored. validate hooks append causes (th_err_add_cause) and change nothing else. */
struct th_custom;
struct th_strategy {
    void (*prepare_create)(const struct th_req_ctx *c, struct th_json *obj);
    void (*prepare_update)(const struct th_req_ctx *c, struct th_json *obj, const struct th_json *old);
    /* In place of prepare_update when a status is written. */
    void (*prepare_status)(const struct th_req_ctx *c, struct th_json *obj, const struct th_json *old);
    void (*validate)(const struct th_req_ctx *c, const struct th_json *obj, struct th_err *err);
    /* Further rules of a create alone, and of an update alone. */
    void (*validate_create)(const struct th_req_ctx *c, const struct th_json *obj,
                            struct th_err *err);
    void (*validate_update)(const struct th_req_ctx *c, const struct th_json *obj,
                            const struct th_json *old, struct th_err *err);
    /* In place of both when a status is written: the rest of the object is as it was. */
    void (*validate_status)(const struct th_req_ctx *c, const struct th_json *obj,
                            const struct th_json *old, struct th_err *err);
    /* Custom resources: after the others, for every write; old is NULL on create. */
    void (*validate_custom)(const struct th_req_ctx *c, const struct th_json *obj,
                            const struct th_json *old, struct th_err *err);
    const struct th_frozen *frozen; /* NULL: none */
    /* What a valid write is warned about (c->warnings); old is NULL on create. Not asked when a
     * subresource is written. */
    void (*warn)(const struct th_req_ctx *c, const struct th_json *obj, const struct th_json *old);
    /* After validation, before the commit: allocations (ClusterIP, nodePort) and their failures.
     * old is NULL on create. release undoes it when the commit fails or the object is deleted. */
    int (*allocate)(const struct th_req_ctx *c, struct th_json *obj, const struct th_json *old,
                    struct th_err *err);
    void (*release)(const struct th_req_ctx *c, const struct th_json *obj);
    /* Says how a delete goes: the grace period in seconds for this object (-1 asked: the default).
     * Return 0 to delete at once. NULL: at once. */
    int64_t (*grace)(const struct th_req_ctx *c, const struct th_json *obj, int64_t asked);
    /* True: metadata.generation grows when anything outside metadata and status changed. */
    bool has_generation;
    bool allow_create_on_update; /* PUT creates (Lease, ...) */
    bool need_rv_on_update;      /* AllowUnconditionalUpdate = false */
    bool orphans_by_default;     /* a delete that names no policy leaves the dependents */
    const char *delete_warning;  /* whoever deletes without a policy is told this, or NULL */
    bool no_status_reset;        /* status is written through the main endpoint too */
    /* A delete began or an object being deleted changed (deletionTimestamp is set). May adjust obj
     * (Namespace: phase Terminating); true: it stays although metadata.finalizers is empty. */
    bool (*hold)(const struct th_req_ctx *c, struct th_json *obj);
    const char *(*name_check)(const char *name); /* NULL: DNS-1123 subdomain */
    /* Kinds that are never stored (reviews, Binding): answers the create. */
    int (*create_virtual)(const struct th_req_ctx *c, const char *ns, const struct th_json *obj,
                          struct th_json **ret, struct th_err *err);
    /* Kinds that are never stored but can be read: all objects (of ns, NULL: of all namespaces), or
     * the one of that name when name is not NULL, as an array sorted by namespace and name. */
    int (*list_virtual)(const struct th_req_ctx *c, const char *ns, const char *name,
                        struct th_json **ret, struct th_err *err);
};

/* Subresources that change the object: status, scale, finalize, binding, eviction, approval, ...
 * Streams (log, exec, attach, portforward, proxy) are the API server's; they have kind and verbs
 * here and no hooks. */
struct th_subresource {
    const char *name;      /* "status" */
    const char *group, *version, *kind; /* of body and answer */
    unsigned verbs;
    /* PUT and PATCH: builds the new object from the stored one and the body; NULL with name
     * "status": the status part of body over old. POST without a create hook does the same and
     * answers with a Status (binding). */
    int (*update)(const struct th_req_ctx *c, const struct th_json *old, const struct th_json *body,
                  struct th_json **ret, struct th_err *err);
    /* How its kind is printed when that is not the resource's own; NULL: as the resource. */
    const struct th_column *columns;
    void (*row)(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells);
    /* GET: what is shown; NULL: the whole object. */
    int (*get)(const struct th_req_ctx *c, const struct th_json *obj, struct th_json **ret,
               struct th_err *err);
    /* POST: does it all and answers. */
    int (*create)(const struct th_req_ctx *c, const char *ns, const char *name,
                  const struct th_json *body, struct th_json **ret, struct th_err *err);
};

struct th_resource {
    const char *group, *version, *kind, *plural, *singular;
    const char *const *short_names; /* NULL-terminated or NULL */
    const char *const *categories;
    bool namespaced;
    unsigned verbs;
    const char *storage_hash;          /* discovery's storageVersionHash */
    /* Other served form of the same stored objects (events.k8s.io, autoscaling/v1): objects are
     * stored as this row's group and converted. NULL: stored as itself. */
    const char *storage_gv_plural;     /* "core/v1/events" */
    int (*to_storage)(struct th_json *obj, struct th_err *err);
    int (*from_storage)(struct th_json *obj, struct th_err *err);
    const struct th_subresource *subs; /* ends with name NULL; NULL: none */
    const struct th_column *columns;   /* ends with name NULL; NULL: Name and Created At */
    /* One cell per column, appended to cells. */
    void (*row)(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells);
    /* Field selector paths beyond metadata.name and metadata.namespace, NULL-terminated or NULL. */
    const char *const *selectable;
    /* Value of a selectable field when it is not simply the string at that path; NULL: it is. The
     * result may point into obj or to buf (64 bytes). */
    const char *(*selectable_value)(const struct th_json *obj, const char *field, char *buf);
    struct th_strategy s;
    /* Rows of custom resources, made at run time (api/customs.h); NULL in all others. */
    const struct th_custom *custom;
    const struct th_kind *kind_row;        /* th_resource_kind */
    const struct th_resource *storage_row; /* in place of storage_gv_plural */
    const char *list_kind;                 /* NULL: kind + "List" */
    bool optional; /* served only while a local APIService of its group and version is there */
    const char *warning;                   /* whoever uses it at all is told this, or NULL */
};

/* All built-in rows, in discovery order; NULL past the end. Thread-safe. */
const struct th_resource *th_resource_at(size_t i);
const struct th_resource *th_resource_find(const char *group, const char *version, const char *plural);
const struct th_resource *th_resource_for_kind(const char *group, const char *version, const char *kind);
const struct th_kind *th_resource_kind(const struct th_resource *r);
/* Everything about obj but its metadata: the rules of its types (rules.tsv), the row's hooks, what never
 * changes. old is NULL on create. Adds causes to err. */
void th_resource_validate(const struct th_resource *r, const struct th_req_ctx *c,
                          const struct th_json *obj, const struct th_json *old, struct th_err *err);
/* Group order and names of discovery ("", "apiregistration.k8s.io", "apps", ...). */
const char *th_group_at(size_t i);

/* Objects that a new cluster has (namespaces, default roles, priority classes, kubernetes Service,
 * ...), created when missing at every start. Each is a full object. The caller unrefs the array. */
struct th_json *th_bootstrap_objects(const void *cluster);
#endif
