#ifndef TH_API_ADMISSION_HOOKS_H
#define TH_API_ADMISSION_HOOKS_H
/* What the admission configurations in the store say, compiled: webhooks and policies in the order in
 * which they are asked. Sets are immutable and counted; a change makes a new one. */
#include "controlplane/api/admission/match.h"
#include "controlplane/schema/cel/cel_admission.h"

/* A named condition, compiled; what is wrong with it when prog is NULL. */
struct th_condition {
    char *name, *expr;
    struct th_cel_prog *prog;
    char *error;
};
struct th_conditions {
    struct th_condition *v;
    size_t n;
};
struct th_webhook {
    char *config, *name;
    char *id; /* of both: what reinvocation knows it by */
    struct th_json *json; /* the webhook as configured */
    struct th_match match;
    struct th_conditions conditions;
    bool fail_open;          /* failurePolicy Ignore */
    bool again;              /* reinvocationPolicy IfNeeded */
    bool dry_run_ok, v1beta1, v1_first;
    int64_t timeout_ms;
};
/* Of one configuration object; shared between sets while the object does not change. */
struct th_hookobj;
struct th_policy;
struct th_hookset {
    unsigned refs; /* atomic */
    struct th_hookobj **objs;
    size_t n_objs;
    struct th_webhook **mutating, **validating; /* in order; of the objs */
    size_t n_mutating, n_validating;
    struct th_policy **validating_policies, **mutating_policies; /* those with bindings */
    size_t n_validating_policies, n_mutating_policies;
    bool connects; /* some rule is about CONNECT */
};

struct th_hooks *th_hooks_new(struct th_store *store);
void th_hooks_free(struct th_hooks *h);
/* The newest set, a new reference: whatever was written before this call is in it. NULL when nothing
 * is configured. */
struct th_hookset *th_hooks_get(struct th_hooks *h);
void th_hookset_unref(struct th_hookset *s);
TH_DEFINE_AUTO(th_hookset, th_hookset_unref)
/* matchConditions: 1, 0; an error (its message says what the conditions could not) where failurePolicy
 * does not let it pass. params may be NULL. */
int th_conditions_match(const struct th_conditions *c, struct th_admit *a,
                        const struct th_resource *as, const struct th_json *params, bool fail_open,
                        struct th_err *err) TH_MUST_USE;
void th_conditions_init(struct th_conditions *c, const struct th_json *list, bool params);
void th_conditions_done(struct th_conditions *c);
#endif
