#ifndef TH_CEL_RULES_H
#define TH_CEL_RULES_H
/* x-kubernetes-validations: the rules of one schema node. Rules belong to their node and are
 * compiled with the whole schema. */
#include "controlplane/schema/cel/cel.h"

struct th_cel_rule {
    char *rule, *message, *message_expr, *reason, *field_path; /* rule and message may be "" */
    bool optional_old;     /* optionalOldSelf */
    bool uses_old;
    struct th_cel_prog *prog, *message_prog; /* NULL: see error */
    char *error;           /* why prog is missing, or NULL */
    char *message_error;
    char *at;              /* field_path normalized, without the first dot; or NULL */
};
struct th_cel_rule *th_cel_rules_new(const struct th_json *list, size_t *ret_n);
void th_cel_rules_free(struct th_cel_rule *v, size_t n);
/* Compiles the rules of all nodes below a resource's root. */
void th_cel_rules_compile(const struct th_structural *root);

/* When a definition is written: faults of rules (syntax, types, messages, paths). `path` is that of
 * the node in the definition. */
void th_cel_rules_check(const struct th_structural *root, const char *path, struct th_err *err);

/* The part of it that looks at what rules may cost (cel_rules_cost.c); all of them compile. */
void th_cel_rules_check_cost(const struct th_structural *root, const char *path,
                             struct th_err *err);

/* When an object is written. old is NULL on create. *budget goes down; below zero nothing more is
 * evaluated. Warnings (may be NULL) get what ratcheting lets pass. */
void th_cel_rules_validate(const struct th_structural *root, const struct th_json *obj,
                           const struct th_json *old, const char *path, int64_t *budget,
                           struct th_strv *warnings, struct th_err *err);
#endif
