#ifndef TH_SCHEMA_STRUCTURAL_H
#define TH_SCHEMA_STRUCTURAL_H
/* A CustomResourceDefinition's schema (apiextensions.k8s.io/v1 JSONSchemaProps) compiled once: the
 * type table that decoding, pruning, server-side apply and canonical form read, like that of a
 * built-in type, and the tree of value rules that only custom resources have. Immutable after it
 * was made; any number of threads may use it. */
#include "controlplane/schema/regex.h"
#include "controlplane/schema/schema.h"

enum th_stype {
    TH_ST_ANY, /* no type said */
    TH_ST_STRING,
    TH_ST_NUMBER,
    TH_ST_INTEGER,
    TH_ST_BOOLEAN,
    TH_ST_ARRAY,
    TH_ST_OBJECT,
    TH_ST_UNKNOWN /* a word that is no type; validation of the definition refuses it */
};
#define TH_SF_NULLABLE 1u
#define TH_SF_PRESERVE 2u      /* x-kubernetes-preserve-unknown-fields */
#define TH_SF_EMBEDDED 4u      /* x-kubernetes-embedded-resource */
#define TH_SF_INTORSTR 8u      /* x-kubernetes-int-or-string */
#define TH_SF_ANY_MEMBERS 16u  /* additionalProperties: true */
#define TH_SF_NO_MEMBERS 32u   /* additionalProperties: false */
#define TH_SF_LIST_SET 64u
#define TH_SF_LIST_MAP 128u
#define TH_SF_MAP_ATOMIC 256u
#define TH_SF_UNIQUE 512u
#define TH_SF_EXCL_MAX 1024u
#define TH_SF_EXCL_MIN 2048u
#define TH_SF_HAS_MAX 4096u
#define TH_SF_HAS_MIN 8192u
#define TH_SF_HAS_MULTIPLE 16384u
#define TH_SF_HAS_RULES 32768u /* here or below */
#define TH_SF_HAS_DEFAULTS 65536u

struct th_structural;
struct th_sprop {
    char *name;
    struct th_structural *s;
};
struct th_slist {
    struct th_structural **v;
    size_t n;
};
struct th_cel_rule; /* cel_rules.h */
struct th_structural {
    enum th_stype type;
    unsigned flags; /* TH_SF_* */
    struct th_sprop *props; /* sorted by name */
    size_t n_props;
    struct th_structural *items, *additional; /* or NULL */
    struct th_strv required, keys;
    char *format, *pattern;   /* or NULL */
    struct th_regex *regex;   /* NULL when the pattern does not parse */
    double max, min, multiple;
    int64_t max_length, min_length, max_items, min_items, max_props, min_props; /* -1: not said */
    struct th_json *enums;    /* an array or NULL */
    struct th_json *dflt;     /* or NULL */
    struct th_slist all_of, any_of, one_of;
    struct th_structural *not_of;
    struct th_cel_rule *rules; /* x-kubernetes-validations */
    size_t n_rules;
    /* The table's side. */
    struct th_field self;      /* one value of this schema, without a name */
    struct th_type *table;     /* of objects with known members, else NULL */
    char *dflt_text;
};

/* Compiles a JSONSchemaProps object that passed th_schema_decode; NULL gives an empty schema. With
 * root, apiVersion, kind and metadata are members whether declared or not, and `type_name` names
 * the table ("com.example.v1.CronTab"). */
struct th_structural *th_structural_new(const struct th_json *props, bool root,
                                        const char *type_name);
void th_structural_free(struct th_structural *s);
TH_DEFINE_AUTO(th_structural, th_structural_free)
const struct th_structural *th_structural_prop(const struct th_structural *s, const char *name);
/* The word for a value's type in schemas: "integer", "object", "null". */
const char *th_stype_of(const struct th_json *v);
const char *th_stype_name(enum th_stype t);

/* Fills defaults, and drops nulls that are neither allowed nor defaulted. */
void th_structural_default(const struct th_structural *s, struct th_json *obj);
/* What is wrong with v, causes with upstream's words added to err; paths begin with `path`. old is
 * the value before (NULL: none): what did not change is not reported (ratcheting). */
void th_structural_validate(const struct th_structural *s, const struct th_json *v,
                            const struct th_json *old, bool has_old, const char *path,
                            struct th_err *err);
/* Uniqueness in lists of type set and map. */
void th_structural_validate_lists(const struct th_structural *s, const struct th_json *v,
                                  const char *path, struct th_err *err);
/* Embedded resources: their names and labels, apiVersion and kind. */
void th_structural_validate_embedded(const struct th_structural *s, const struct th_json *v,
                                     const char *path, struct th_err *err);
/* Removes what the schema does not know; true when something was removed. */
bool th_structural_prune(const struct th_structural *s, struct th_json *v, bool resource_root);

/* formats.c: whether the format is one that is checked, and whether s has it. */
bool th_format_known(const char *format);
bool th_format_valid(const char *format, const char *s);

/* structural_openapi.c: the inside of the schema of a kind as OpenAPI documents have it, without
 * braces; the JSONSchemaProps comes from the definition's version. */
struct th_oa_custom {
    const char *group, *version, *kind, *list_kind;
    const struct th_json *schema;     /* JSONSchemaProps or NULL */
    const struct th_json *selectable; /* spec.versions[].selectableFields or NULL */
};
void th_structural_openapi(const struct th_oa_custom *c, bool v2, struct th_buf *out);
void th_structural_openapi_list(const struct th_oa_custom *c, bool v2, struct th_buf *out);
/* "com.example.stable.v1.CronTab"; the caller frees. */
char *th_structural_openapi_name(const char *group, const char *version, const char *kind);
#endif
