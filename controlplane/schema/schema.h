#ifndef TH_SCHEMA_H
#define TH_SCHEMA_H
/* Types as data. A type is a table of fields; decoding with field validation, defaulting, pruning,
 * patching, protobuf and OpenAPI all read it. Built-in types are generated at build time from
 * schema/data/schema_ga.tsv into .rodata (schema_tables.c in the build folder); a custom resource's
 * schema becomes the same structs at run time. All tables are immutable once published. */
#include "base/json/json.h"

enum th_ftype {
    TH_F_STRING,
    TH_F_BOOL,
    TH_F_INT32,
    TH_F_INT64,
    TH_F_DOUBLE,
    TH_F_BYTES,     /* base64 in JSON */
    TH_F_QUANTITY,  /* "500m"; numbers are accepted and kept as strings */
    TH_F_INTORSTR,
    TH_F_TIME,      /* metav1.Time */
    TH_F_MICROTIME,
    TH_F_DURATION,  /* metav1.Duration, "1h0m0s" */
    TH_F_RAW,       /* any JSON value: RawExtension, JSON, FieldsV1 */
    TH_F_STRUCT,    /* sub is set */
    /* JSONSchemaProps' unions; sub is JSONSchemaProps: */
    TH_F_SCHEMA_OR_LIST,   /* an object or an array of objects */
    TH_F_SCHEMA_OR_BOOL,   /* an object or a boolean */
    TH_F_SCHEMA_OR_STRINGS /* an object or an array of strings */
};
enum th_shape { /* of `type`; maps have string keys */
    TH_SHAPE_ONE,
    TH_SHAPE_LIST,
    TH_SHAPE_MAP,
    TH_SHAPE_MAP_LIST /* a map of lists: UserInfo.extra */
};
enum th_topology { TH_TOPO_GRANULAR, TH_TOPO_ATOMIC, TH_TOPO_SET, TH_TOPO_MAP }; /* list type / map type */

#define TH_FF_REQUIRED 1u  /* OpenAPI "required" */
#define TH_FF_OMITEMPTY 2u
#define TH_FF_OMITZERO 4u
#define TH_FF_POINTER 8u
#define TH_FF_OPEN_ENUM 16u /* enum values are known constants, others are allowed */
#define TH_FF_INLINE 32u    /* kind and apiVersion of TypeMeta: not in protobuf */
#define TH_FF_WRAPPED 64u   /* a list that is a message {1: items} in protobuf */
#define TH_PATCH_MERGE 1u
#define TH_PATCH_REPLACE 2u
#define TH_PATCH_RETAIN_KEYS 4u

struct th_type;
struct th_field {
    const char *name;          /* JSON name */
    const struct th_type *sub; /* TH_F_STRUCT only */
    const char *const *keys;   /* list-map keys, NULL-terminated; NULL otherwise */
    const char *const *enums;  /* NULL-terminated; NULL otherwise */
    const char *merge_key;     /* strategic merge key or NULL */
    const char *dflt;          /* default as JSON text, or NULL */
    uint16_t pb;               /* protobuf field number; 0: not in protobuf */
    uint8_t pb_via[2];         /* numbers of the messages around it where JSON has it inline */
    uint8_t type;              /* enum th_ftype */
    uint8_t shape;             /* enum th_shape */
    uint8_t topology;          /* enum th_topology */
    uint8_t patch;             /* TH_PATCH_* */
    uint16_t flags;            /* TH_FF_* */
    const char *go;            /* Go's name of the type where it is not the obvious one, or NULL */
    const char *go_embedded;   /* the embedded structs it sits in ("VolumeSource"), or NULL */
    const char *doc;           /* what explain says; NULL if custom */
    const struct th_field *elem; /* custom resources: one element where it is a list or map itself;
                                    type is TH_F_RAW then */
};
struct th_structural;
struct th_type {
    const char *name; /* "core.v1.PodSpec"; OpenAPI name "io.k8s.api.core.v1.PodSpec" via th_type_openapi_name */
    const struct th_field *fields;
    uint16_t n_fields;
    uint8_t flags; /* TH_TF_* */
    const struct th_field *const *by_name; /* sorted by name, for binary search */
    const struct th_field *any; /* additionalProperties / preserve-unknown: not NULL for CRDs */
    const char *doc;            /* what explain says; NULL for lists and if custom */
    const struct th_structural *structural; /* TH_TF_CUSTOM: rules and defaults; else NULL */
    const char *openapi; /* TH_TF_CUSTOM: the schema's text for documents, without braces, or NULL */
};
#define TH_TF_ATOMIC 1u      /* struct type: atomic */
#define TH_TF_PRESERVE 2u    /* unknown fields are kept */
#define TH_TF_CUSTOM 4u      /* of a custom resource: no Go struct's zero values, nothing dropped */
#define TH_TF_DEFAULTS 8u    /* it or a type below it has defaults */

struct th_kind {
    const char *group; /* "" for core */
    const char *version;
    const char *kind;
    const struct th_type *type;
    bool is_list;
};

/* Built-in lookups; NULL when there is none. Thread-safe, no allocation. */
const struct th_kind *th_kind_find(const char *group, const char *version, const char *kind);
const struct th_kind *th_kind_at(size_t i); /* enumerates; NULL past the end */
const struct th_type *th_type_find(const char *name);
const struct th_type *th_type_at(size_t i); /* enumerates, sorted by name; NULL past the end */
/* "io.k8s.api.core.v1.PodSpec" for "core.v1.PodSpec"; the caller frees. */
char *th_type_openapi_name(const struct th_type *t);
const struct th_field *th_type_field(const struct th_type *t, const char *json_name);
/* Field at a dotted path without indexes ("spec.template.spec"); NULL when there is none. */
const struct th_field *th_type_path(const struct th_type *t, const char *path);
/* Splits "apps/v1" or "v1"; group gets "" for core. Both are owned by the caller. */
int th_gv_split(const char *api_version, char **ret_group, char **ret_version, struct th_err *err);

/* ---- Decoding (decode.c) ---- */
enum th_field_validation { TH_FV_IGNORE, TH_FV_WARN, TH_FV_STRICT };
/* Checks and normalizes a freshly parsed object in place: values of the wrong JSON type are
 * TH_R_BAD_REQUEST with Go's decoder's words ("json: cannot unmarshal string into Go struct field
 * DeploymentSpec.spec.replicas of type int32"), unknown members are removed and their paths
 * ("spec.foo", "spec.containers[0].bar") added to `unknown`; null members are dropped; empty
 * omitempty members are dropped. Duplicates are the JSON parser's business. */
int th_schema_decode(const struct th_type *t, struct th_json *obj, struct th_strv *unknown,
                     struct th_err *err) TH_MUST_USE;
/* The same, with the errors of upstream's converter from maps, which takes what a strategic merge made:
 * "cannot restore map from string". */
int th_schema_decode_map(const struct th_type *t, struct th_json *obj, struct th_strv *unknown,
                         struct th_err *err) TH_MUST_USE;
/* Turns unknown and duplicate paths into what upstream answers: STRICT gives TH_R_BAD_REQUEST
 * 'strict decoding error: unknown field "spec.foo"', WARN adds 'unknown field "spec.foo"' to
 * warnings, IGNORE nothing. */
int th_schema_field_validation(enum th_field_validation mode, const struct th_strv *unknown,
                               const struct th_strv *dups, struct th_strv *warnings,
                               struct th_err *err) TH_MUST_USE;
/* Fills defaults from the tables (schema/data/defaults.tsv rows become code or data in default.c,
 * conditions included), kind by kind. obj is the whole object of kind k. */
void th_schema_default(const struct th_kind *k, struct th_json *obj);
/* Adds and drops what Go's encoder shows of zero values, in one struct ("status": {}). */
void th_schema_complete(const struct th_type *t, struct th_json *obj);
/* Sorts members into the table's order, recursively: the canonical form at rest. */
void th_schema_canonicalize(const struct th_type *t, struct th_json *obj);

/* ---- Protobuf (protobuf.c): application/vnd.kubernetes.protobuf ---- */
/* Decodes the k8s\0 envelope or, without it, a bare message when `k` is given. The result has
 * apiVersion and kind set. ret_kind may be NULL. */
int th_pb_decode(const void *p, size_t n, const struct th_kind *k, const struct th_kind **ret_kind,
                 struct th_json **ret, struct th_err *err) TH_MUST_USE;
/* Encodes with the envelope. obj must have passed th_schema_decode. */
int th_pb_encode(const struct th_kind *k, const struct th_json *obj, struct th_buf *b,
                 struct th_err *err) TH_MUST_USE;
/* The same from JSON text as it is stored, without a tree. */
int th_pb_encode_text(const struct th_kind *k, struct th_str json, struct th_buf *b,
                      struct th_err *err) TH_MUST_USE;
/* The pieces, for lists: an envelope is open between th_pb_envelope and th_pb_envelope_end, a
 * nested message with a field number between th_pb_begin and th_pb_end (both take what the first
 * returned); th_pb_message appends the members of one bare message. */
size_t th_pb_envelope(struct th_buf *b, const char *api_version, const char *kind);
int th_pb_envelope_end(struct th_buf *b, size_t at, struct th_err *err) TH_MUST_USE;
size_t th_pb_begin(struct th_buf *b, uint32_t number);
void th_pb_end(struct th_buf *b, size_t at);
int th_pb_message(const struct th_type *t, struct th_str json, struct th_buf *b,
                  struct th_err *err) TH_MUST_USE;

/* Appends one frame of application/vnd.kubernetes.protobuf;stream=watch: 4 bytes of length, then a
 * bare WatchEvent around `obj`, which is what th_pb_encode made (envelope included). */
void th_pb_watch_frame(const char *event_type, struct th_str obj, struct th_buf *b);

/* ---- OpenAPI (openapi.c) ---- */
struct th_openapi_path; /* the API server describes its routes; see openapi.h */
#endif
