#ifndef TH_CEL_PRIV_H
#define TH_CEL_PRIV_H
/* Between the files of this folder. */
#include "controlplane/schema/cel/cel.h"
#include "controlplane/schema/quantity.h"

/* ---- arena.c: memory of one program or one evaluation ---- */
struct cel_chunk;
struct cel_arena {
    struct cel_chunk *chunks;
    size_t left;
    char *at;
    size_t total;
};
void *cel_alloc(struct cel_arena *a, size_t n); /* zeroed */
char *cel_strdup(struct cel_arena *a, const char *s, size_t n);
char *cel_printf(struct cel_arena *a, const char *fmt, ...) TH_PRINTF(2, 3);
void cel_arena_done(struct cel_arena *a);
/* A point to go back to: what was allocated after it is freed. */
struct cel_mark {
    struct cel_chunk *chunks;
    size_t left;
    char *at;
};
struct cel_mark cel_arena_mark(const struct cel_arena *a);
void cel_arena_release(struct cel_arena *a, struct cel_mark m);

/* ---- Values ---- */
enum cel_kind {
    CEL_ERROR,
    CEL_NULL,
    CEL_BOOL,
    CEL_INT,
    CEL_UINT,
    CEL_DOUBLE,
    CEL_STRING,
    CEL_BYTES,
    CEL_TIMESTAMP,
    CEL_DURATION,
    CEL_LIST,
    CEL_MAP,
    CEL_OPTIONAL,
    CEL_TYPE,
    CEL_URL,
    CEL_QUANTITY,
    CEL_IP,
    CEL_CIDR,
    CEL_FORMAT,
    CEL_SEMVER,
    CEL_AUTHORIZER,
    CEL_PATH_CHECK,
    CEL_GROUP_CHECK,
    CEL_RESOURCE_CHECK,
    CEL_DECISION,
    CEL_NAMED, /* the variable whose members are programs */
    CEL_KINDS_
};
struct cel_list;
struct cel_map;
struct cel_ip {
    uint8_t b[16];
    bool v6;
};
struct cel_val {
    enum cel_kind kind;
    union {
        bool b;
        int64_t i; /* CEL_INT; CEL_DURATION in nanoseconds */
        uint64_t u;
        double d;
        struct th_str s;     /* string, bytes, TYPE's name, FORMAT's name, ERROR's text, URL */
        struct {
            int64_t sec;
            int32_t nsec;
        } ts;
        const struct cel_list *list;
        const struct cel_map *map;
        const struct cel_val *opt; /* NULL: none */
        const struct th_quantity *quantity;
        struct {
            const struct cel_ip *ip;
            int bits;
        } net; /* IP, CIDR */
        const struct cel_semver *semver;
        const struct cel_authz *authz; /* AUTHORIZER to DECISION */
    };
};
struct cel_list {
    struct cel_val *v; /* NULL: seen through json */
    size_t n;
    const struct th_json *json;
    const struct th_structural *schema; /* of the list; NULL: dynamic */
};
struct cel_map {
    struct cel_val *keys, *vals; /* NULL: seen through json */
    size_t n;
    const struct th_json *json;
    const struct th_structural *schema; /* of the map or object */
    bool object;   /* members are the schema's, names are escaped */
    bool resource; /* apiVersion, kind, metadata too */
    bool meta;     /* metadata of a resource: name and generateName */
    const char *type_name; /* of a literal of a message type, or NULL */
};
/* What is gathered on the way to an answer of the authorizer, and the answer. */
struct cel_authz {
    const struct th_cel_authorizer *by;
    struct th_cel_question q;
    bool allowed;
    const char *reason;
};
struct cel_semver {
    uint64_t major, minor, patch;
    const char *pre, *build;
};

/* ---- One evaluation ---- */
struct cel_local {
    const struct cel_local *up;
    const char *name;
    struct cel_val v;
};
struct cel_eval {
    struct cel_arena a;
    const struct th_cel_prog *prog;
    const struct th_cel_binding *vars;
    size_t n_vars;
    uint64_t cost, limit;
    bool over;
    int64_t now_ms;
    int depth;
    struct cel_named_slot *slots; /* values of named programs, by their place; or NULL */
    uint64_t named_cost;          /* of those evaluated since it was looked at */
    size_t named_runs;            /* how many have been evaluated */
};
/* Counts; false when the limit is passed (everything then ends in an error). */
bool cel_charge(struct cel_eval *e, uint64_t units);
/* Units for walking n bytes: a tenth, rounded up. */
uint64_t cel_text_cost(size_t n);

/* value.c */
struct cel_val cel_error(struct cel_eval *e, const char *fmt, ...) TH_PRINTF(2, 3);
struct cel_val cel_no_overload(void);
static inline struct cel_val cel_bool(bool b)
{
    return (struct cel_val){.kind = CEL_BOOL, .b = b};
}
static inline struct cel_val cel_int(int64_t i)
{
    return (struct cel_val){.kind = CEL_INT, .i = i};
}
static inline struct cel_val cel_double(double d)
{
    return (struct cel_val){.kind = CEL_DOUBLE, .d = d};
}
static inline struct cel_val cel_string(const char *p, size_t n)
{
    return (struct cel_val){.kind = CEL_STRING, .s = {p, n}};
}
struct cel_val cel_text(const char *s);
struct cel_val cel_none(void);
struct cel_val cel_some(struct cel_eval *e, struct cel_val v);
struct cel_val cel_make_list(struct cel_eval *e, struct cel_val *v, size_t n);
struct cel_val cel_make_map(struct cel_eval *e, struct cel_val *keys, struct cel_val *vals, size_t n);
struct cel_val cel_of_json(struct cel_eval *e, const struct th_json *j,
                           const struct th_structural *s, bool resource);
struct th_json *cel_to_json(const struct cel_val *v, struct cel_eval *e); /* a new tree */
size_t cel_list_len(const struct cel_list *l);
struct cel_val cel_list_at(struct cel_eval *e, const struct cel_list *l, size_t i);
size_t cel_map_len(const struct cel_map *m);
/* false when there is no such key. */
bool cel_map_get(struct cel_eval *e, const struct cel_map *m, struct cel_val key,
                 struct cel_val *ret);
/* All keys, as a list in the arena. */
struct cel_val *cel_map_keys(struct cel_eval *e, const struct cel_map *m, size_t *ret_n);
/* 1, 0; -1 when they cannot be compared (an error inside). */
int cel_equal(struct cel_eval *e, struct cel_val a, struct cel_val b);
/* -1, 0, 1; 2 unordered (NaN); 3 not comparable. */
int cel_compare(struct cel_val a, struct cel_val b);
const char *cel_type_name(struct cel_val v);
/* value's text for errors and format: as upstream prints it. */
void cel_print(struct cel_eval *e, struct cel_val v, struct th_buf *b);
size_t cel_runes(struct th_str s);
size_t cel_char_len(const char *p, const char *end);
/* Escaped member names ("__dot__") and back. */
bool cel_escape(const char *name, struct th_buf *b);

/* ---- Syntax ---- */
enum cel_node_kind {
    N_LIT,
    N_IDENT,
    N_SELECT,
    N_CALL,
    N_LIST,
    N_MAP,
    N_MESSAGE, /* Type{field: value}: name, fields, args */
    N_FOLD
};
enum cel_fold {
    FOLD_ALL,
    FOLD_EXISTS,
    FOLD_EXISTS_ONE,
    FOLD_MAP,
    FOLD_FILTER,
    FOLD_TRANSFORM_LIST,
    FOLD_TRANSFORM_MAP,
    FOLD_TRANSFORM_ENTRY,
    FOLD_SORT_BY,
    FOLD_OPT_MAP,
    FOLD_OPT_FLAT_MAP
};
struct cel_fn;
struct cel_type;
struct cel_node {
    enum cel_node_kind kind;
    uint32_t pos;              /* byte offset in the source */
    struct cel_val lit;        /* N_LIT */
    const char *name;          /* ident, field, function; fold: first variable */
    const char *name2;         /* fold: second variable or NULL */
    struct cel_node *target;   /* select, member call; fold: range */
    struct cel_node **args;    /* call, list; map: keys and values in turn */
    bool *optional;            /* list and map entries with ?; NULL: none */
    const char **fields;       /* message: names of its values */
    size_t n_args;
    bool test;                 /* has() */
    bool opt_select;           /* .? */
    bool absolute;             /* ".name" */
    enum cel_fold fold;
    struct cel_node *filter, *step; /* fold: filter may be NULL */
    const struct cel_type *type; /* after checking */
    const struct cel_fn **fns;   /* candidate overloads after checking */
    size_t n_fns;
};
struct cel_issue {
    uint32_t pos;
    char *msg;
};
struct cel_issues {
    struct cel_issue *v;
    size_t n, cap;
};
struct th_cel_prog {
    struct cel_arena a;
    char *text;
    struct cel_node *root;
    struct th_strv used; /* variables mentioned */
    const struct cel_type *type; /* of the result */
    bool messages;               /* Object and JSONPatch may be made */
    bool checks_names;           /* and the result's types must fit their places */
    struct cel_issues issues;
};
void cel_issue(struct th_cel_prog *p, uint32_t pos, const char *fmt, ...) TH_PRINTF(3, 4);
struct cel_node *cel_parse(struct th_cel_prog *p); /* NULL with issues */

/* ---- Functions ---- */
typedef struct cel_val cel_call_fn(struct cel_eval *e, struct cel_val *args, size_t n);
struct cel_fn {
    const char *name;
    const char *sig; /* "m:sS>b"; see functions.def */
    cel_call_fn *call;
};
extern const struct cel_fn cel_functions[];
extern const size_t cel_functions_n;
bool cel_fn_is_member(const struct cel_fn *f);

/* ---- Types (types.c) ---- */
struct cel_type {
    enum {
        T_DYN,
        T_ERROR,
        T_KIND,     /* of_kind without parameters */
        T_LIST,
        T_MAP,
        T_OPTIONAL,
        T_TYPE,
        T_OBJECT,
        T_PARAM
    } t;
    enum cel_kind of_kind;
    const struct cel_type *a, *b;
    const struct th_structural *schema;
    bool resource, meta;
    const struct th_type *table;      /* a built-in type; of a resource with a schema: metadata's */
    const char *const *hidden;        /* members of it that are not there */
    const char *name;                 /* a message type */
    const struct th_cel_named *named; /* members are programs */
    size_t n_named;
    char param;
};
/* As the checker names it, or with go as Go prints it ("null_type"). */
void cel_print_type(const struct cel_type *t, bool go, struct th_buf *b);
/* Whether it is Object, list(JSONPatch), ...: what a message type's name says. */
bool cel_type_is_message(const struct cel_type *t, const char *name);
/* check.c */
int cel_check(struct th_cel_prog *p, const struct th_cel_var_type *vars, size_t n_vars,
              const struct cel_type **ret);
/* eval.c, for macros with functions of their own */
struct cel_val cel_eval_node(struct cel_eval *e, const struct cel_node *n,
                             const struct cel_local *locals);
#endif
