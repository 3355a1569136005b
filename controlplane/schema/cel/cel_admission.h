#ifndef TH_CEL_ADMISSION_H
#define TH_CEL_ADMISSION_H
/* What expressions of admission see: object, oldObject, request, namespaceObject, and as the case may
 * be params, authorizer, authorizer.requestResource and variables. One place, because expressions are
 * compiled when they are written (resources/), when they run (api/admission/) and once more against
 * the types of what they match (controllers/). */
#include "controlplane/schema/cel/cel.h"

#define TH_CEL_ADMIT_PARAMS 1u
#define TH_CEL_ADMIT_AUTHORIZER 2u
#define TH_CEL_ADMIT_VARIABLES 4u /* even if there are none */

struct th_cel_env {
    unsigned flags;                       /* TH_CEL_ADMIT_* */
    const struct th_cel_named *variables; /* those that stand before the expression */
    size_t n_variables;
    const struct th_cel_var_type *object, *params; /* types instead of dyn, or NULL */
};
/* TH_R_INVALID with upstream's words ("compilation failed: ERROR: <input>:1:…", or "must evaluate to
 * bool but got int"). */
int th_cel_admission_compile(const char *text, const struct th_cel_env *env,
                             enum th_cel_result want, struct th_cel_prog **ret,
                             struct th_err *err) TH_MUST_USE;

/* spec.variables of a policy, compiled one after the other: each sees those before it. Those that do
 * not compile have no program and say why when they are used. The list is the caller's. */
struct th_cel_variables {
    struct th_cel_named *v;
    struct th_cel_prog **progs;
    size_t n;
};
void th_cel_variables_init(struct th_cel_variables *l, const struct th_json *list,
                           const struct th_cel_env *env);
void th_cel_variables_done(struct th_cel_variables *l);

/* Runs one program of the session within a budget: what it cost is taken off. Failures are as upstream's
 * policies word them ("expression '…' resulted in error: no such key: x"); TH_R_EXPIRED when the
 * budget is used up. */
int th_cel_admission_eval(struct th_cel_session *s, const struct th_cel_prog *p, const char *expr,
                          int64_t *budget, enum th_cel_outcome *ret, char **ret_text,
                          struct th_json **ret_json, struct th_err *err) TH_MUST_USE;
#endif
