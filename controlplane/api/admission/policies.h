#ifndef TH_API_ADMISSION_POLICIES_H
#define TH_API_ADMISSION_POLICIES_H
/* Admission policies and their bindings, compiled; and what both kinds of them share at run time. */
#include "controlplane/api/admission/hooks.h"

struct th_validation {
    char *expr, *message, *reason, *message_expr;
    struct th_cel_prog *prog, *message_prog;
    char *error; /* expr does not compile */
};
struct th_mutation {
    bool apply; /* an apply configuration; otherwise a JSON patch */
    char *expr, *error;
    struct th_cel_prog *prog;
};
struct th_annotation {
    char *key, *expr, *error;
    struct th_cel_prog *prog;
};
struct th_binding {
    char *name, *policy;
    struct th_match match;
    struct th_json *param_ref; /* or NULL */
    bool deny, warn, audit;
    struct th_json *actions;
};
struct th_policy {
    char *name;
    bool mutating, fail_open, again;
    char *param_group, *param_version, *param_kind; /* of paramKind, or NULL */
    struct th_match match;
    struct th_conditions conditions;
    struct th_cel_variables variables;
    struct th_validation *validations;
    size_t n_validations;
    struct th_mutation *mutations;
    size_t n_mutations;
    struct th_annotation *annotations;
    size_t n_annotations;
    /* of one set */
    struct th_binding **bindings;
    size_t n_bindings;
};
struct th_policy *th_policy_new(const struct th_json *o, bool mutating);
void th_policy_free(struct th_policy *p);
struct th_binding *th_binding_new(const struct th_json *o);
void th_binding_free(struct th_binding *b);

/* The parameter objects of a binding: an array whose elements may be null ("no parameter"); the
 * caller's. */
int th_policy_params(struct th_admit *a, const struct th_policy *p, const struct th_resource *row,
                     const struct th_binding *b, struct th_json **ret,
                     struct th_err *err) TH_MUST_USE;
/* The row of its parameters; NULL when it has none. */
int th_policy_param_row(struct th_admit *a, const struct th_policy *p,
                        const struct th_resource **ret, struct th_err *err) TH_MUST_USE;
/* Expressions of a policy may not be asked about this request. */
bool th_policy_exempt(const struct th_call *c);

/* What expressions see of one request; session is made by th_cel_scope_open. */
struct th_cel_scope {
    struct th_cel_binding vars[8];
    size_t n;
    struct th_cel_authorizer authorizer;
    struct th_admit *a;
    struct th_json *request, *ns; /* owned */
    struct th_cel_session *session;
    int64_t budget;
};
int th_cel_scope_open(struct th_cel_scope *s, struct th_admit *a, const struct th_resource *as,
                      const struct th_json *params, const struct th_cel_variables *variables,
                      bool with_namespace, struct th_err *err) TH_MUST_USE;
void th_cel_scope_close(struct th_cel_scope *s);
#define TH_CEL_BUDGET_CONDITIONS 2500000 /* of all match conditions together */
#endif
