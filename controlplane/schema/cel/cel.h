#ifndef TH_CEL_H
#define TH_CEL_H
/* The Common Expression Language as Kubernetes uses it: CRD validation rules, and whatever else
 * evaluates expressions over objects (admission policies, match conditions).
 *
 * An expression is parsed and checked once against the types of its variables, and evaluated any
 * number of times, by any thread, against values. Values are JSON trees seen through a structural
 * schema (or none: dynamic). Evaluation costs units as upstream counts them and stops at a limit. */
#include "controlplane/schema/structural.h"

/* ---- Types of variables ---- */
struct th_cel_var_type {
    const char *name;
    enum {
        TH_CEL_VAR_DYN,
        TH_CEL_VAR_BOOL,
        TH_CEL_VAR_INT,
        TH_CEL_VAR_STRING,
        TH_CEL_VAR_SCHEMA,          /* schema is set */
        TH_CEL_VAR_OPTIONAL_SCHEMA, /* optional_type of it */
        TH_CEL_VAR_TABLE,           /* table is set */
        TH_CEL_VAR_NAMED,           /* named is set: its members are other programs */
        TH_CEL_VAR_AUTHORIZER,
        TH_CEL_VAR_RESOURCE_CHECK
    } kind;
    const struct th_structural *schema; /* outlives the program */
    bool resource; /* apiVersion, kind and metadata are members */
    const struct th_type *table;        /* a built-in type; of a resource with a schema: metadata's */
    const char *const *hidden;          /* members of it that are not to be seen, or NULL */
    const struct th_cel_named *named;   /* outlive the program */
    size_t n_named;
};

struct th_cel_prog;
/* A program by name, as `variables.x` is evaluated: once, when it is first asked for. */
struct th_cel_named {
    const char *name;
    const struct th_cel_prog *prog; /* NULL: it could not be compiled */
    const char *error;              /* why */
};
enum th_cel_result {
    TH_CEL_RESULT_ANY,
    TH_CEL_RESULT_BOOL,
    TH_CEL_RESULT_STRING,
    /* The following say what was there instead ("must evaluate to bool but got int"). */
    TH_CEL_RESULT_IS_BOOL,
    TH_CEL_RESULT_IS_STRING,
    TH_CEL_RESULT_STRING_OR_NULL,
    TH_CEL_RESULT_OBJECT, /* Object{...}; literals of Object and JSONPatch may be written */
    TH_CEL_RESULT_PATCHES /* a list of JSONPatch{...} */
};
/* Compiles an expression over variables. TH_R_INVALID with what upstream's compiler prints
 * ("ERROR: <input>:1:6: undeclared reference to 'x' (in container '')\n | ..."), or with
 * "must evaluate to a bool" and the like when `want` is not met. */
int th_cel_compile(const char *text, const struct th_cel_var_type *vars, size_t n_vars,
                   enum th_cel_result want, struct th_cel_prog **ret, struct th_err *err) TH_MUST_USE;
void th_cel_prog_free(struct th_cel_prog *p);
TH_DEFINE_AUTO(th_cel_prog, th_cel_prog_free)
/* Whether the expression mentions a variable. */
bool th_cel_prog_uses(const struct th_cel_prog *p, const char *var);
/* What an evaluation may cost at most, with every value as large as its schema allows; and how many
 * values of a schema fit into one request. */
double th_cel_max_cost(const struct th_cel_prog *p, const struct th_cel_var_type *vars,
                       size_t n_vars);
double th_cel_max_places(const struct th_structural *s);

/* ---- Evaluation ---- */
/* Who is asked whether something is allowed. */
struct th_cel_question {
    const char *account_ns, *account; /* of a ServiceAccount; NULL: the user of the request */
    const char *path;                 /* NULL: a resource */
    const char *group, *resource, *sub, *ns, *name, *fields, *labels; /* "" when not said */
    const char *verb;
};
struct th_cel_authorizer {
    void *self;
    /* Why is appended to reason. */
    bool (*allowed)(void *self, const struct th_cel_question *q, struct th_buf *reason);
    struct th_cel_question own; /* of authorizer.requestResource */
};
struct th_cel_binding {
    const char *name;
    const struct th_json *value; /* borrowed; only read */
    const struct th_structural *schema; /* NULL: dynamic */
    bool resource;
    bool optional, present; /* optional: an optional_type, empty unless present */
    const struct th_cel_authorizer *authorizer; /* an Authorizer, or with `check` a ResourceCheck */
    bool check;
    const struct th_cel_named *named; /* TH_CEL_VAR_NAMED; at most one binding has it */
    size_t n_named;
};
#define TH_CEL_PER_CALL_LIMIT 1000000u /* cost of one expression */
#define TH_CEL_BUDGET 10000000         /* of all expressions of one request */
enum th_cel_outcome { TH_CEL_FALSE, TH_CEL_TRUE, TH_CEL_TEXT, TH_CEL_OTHER };
/* Evaluates. *ret_cost gets what it cost, also on failure. *ret_text (may be NULL) gets the value of
 * a string result, *ret_json (may be NULL) any result as JSON. Failures are TH_R_BAD_REQUEST with
 * upstream's words ("no such key: x", "operation cancelled: actual cost limit exceeded"). */
int th_cel_eval(const struct th_cel_prog *p, const struct th_cel_binding *vars, size_t n_vars,
                uint64_t cost_limit, int64_t now_ms, enum th_cel_outcome *ret, uint64_t *ret_cost,
                char **ret_text, struct th_json **ret_json, struct th_err *err) TH_MUST_USE;

/* Several programs over the same values: what `variables` name is evaluated once for all. vars are
 * borrowed until the session ends. One thread at a time. */
struct th_cel_session;
struct th_cel_session *th_cel_session_new(const struct th_cel_binding *vars, size_t n_vars,
                                          int64_t now_ms);
void th_cel_session_free(struct th_cel_session *s);
TH_DEFINE_AUTO(th_cel_session, th_cel_session_free)
/* As th_cel_eval; *ret_cost has what named programs cost on the way, too. */
int th_cel_session_eval(struct th_cel_session *s, const struct th_cel_prog *p, uint64_t cost_limit,
                        enum th_cel_outcome *ret, uint64_t *ret_cost, char **ret_text,
                        struct th_json **ret_json, struct th_err *err) TH_MUST_USE;
#endif
