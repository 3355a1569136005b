#ifndef TH_SCHEMA_OPENAPI_H
#define TH_SCHEMA_OPENAPI_H
/* OpenAPI documents out of the type tables and a list of resources. Pure and thread-safe; a document
 * is worth caching, since it only changes with the list. */
#include "controlplane/schema/schema.h"

/* Bits of `verbs`: the values of resources/resource.h's enum th_verb. */
#define TH_OA_GET 1u
#define TH_OA_LIST 2u
#define TH_OA_WATCH 4u
#define TH_OA_CREATE 8u
#define TH_OA_UPDATE 16u
#define TH_OA_PATCH 32u
#define TH_OA_DELETE 64u
#define TH_OA_DELETECOLLECTION 128u

struct th_openapi_sub {
    const char *name;                  /* "status", "scale", "log"; NULL ends a list */
    const char *group, *version, *kind; /* of body and answer */
    unsigned verbs;
};
struct th_openapi_resource {
    const char *group, *version, *kind, *plural;
    bool namespaced;
    unsigned verbs;
    const struct th_openapi_sub *subs; /* may be NULL */
    const struct th_type *type;        /* a custom resource's; NULL: th_kind_find's */
    const struct th_type *list_type;   /* the same of its list */
};

/* One group version as OpenAPI 3.0 JSON: the paths of those of the n resources that are in it, and
 * every schema they reach. Appends to out; overflow shows in th_buf_check. */
void th_openapi_v3(const char *group, const char *version, const struct th_openapi_resource *res,
                   size_t n, struct th_buf *out);
/* All of them as one Swagger 2.0 JSON document. */
void th_openapi_v2(const struct th_openapi_resource *res, size_t n, struct th_buf *out);
/* {"paths":{"api/v1":{"serverRelativeURL":"/openapi/v3/api/v1?hash=…"}}}: paths[i] is "api/v1" or
 * "apis/apps/v1", hashes[i] an identification of that document's bytes. */
void th_openapi_v3_index(const char *const *paths, const char *const *hashes, size_t n,
                         struct th_buf *out);
/* "api/v1" or "apis/apps/v1"; the caller frees. */
char *th_openapi_gv_path(const char *group, const char *version);
/* What th_openapi_v2 wrote, as gnostic's openapiv2.Document message. */
int th_openapi_v2_protobuf(struct th_str json, struct th_buf *b, struct th_err *err) TH_MUST_USE;
#endif
