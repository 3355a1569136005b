#ifndef TH_SCHEMA_OPENAPI_PRIV_H
#define TH_SCHEMA_OPENAPI_PRIV_H
/* Shared by openapi.c (paths, documents) and openapi_types.c (schemas). */
#include "controlplane/schema/openapi.h"

/* What one document reaches: a set of types that grows while schemas are written. */
struct th_oa {
    const char *const *patch_media; /* of the resource whose operations are written */
    struct th_buf *b;
    bool v2;
    const struct th_type **types; /* in order of discovery */
    size_t n_types, cap_types, written;
    unsigned leaves;              /* bits of enum th_oa_leaf */
};
enum th_oa_leaf {
    TH_OA_TIME,
    TH_OA_MICROTIME,
    TH_OA_DURATION,
    TH_OA_QUANTITY,
    TH_OA_INTORSTR,
    TH_OA_RAW,
    TH_OA_FIELDSV1,
    TH_OA_JSON,
    TH_OA_SCHEMA_OR_LIST,
    TH_OA_SCHEMA_OR_BOOL,
    TH_OA_SCHEMA_OR_STRINGS,
    TH_OA_PATCH_BODY,
    TH_OA_LEAVES_
};
void th_oa_string(struct th_buf *b, const char *s); /* quoted and escaped */
/* {"$ref": …} to a type, which is then in the document. */
void th_oa_ref(struct th_oa *oa, const struct th_type *t);
void th_oa_leaf_ref(struct th_oa *oa, enum th_oa_leaf leaf);
void th_oa_reach(struct th_oa *oa, const struct th_type *t);
/* "name":{schema},… for everything reached, including what that reaches. */
void th_oa_schemas(struct th_oa *oa);
void th_oa_done(struct th_oa *oa);
#endif
