#ifndef TH_API_RBAC_H
#define TH_API_RBAC_H
/* RBAC: rules as plain strings, and the index of who has which. */
#include "controlplane/api/priv.h"

/* ---- Rules (rbac_rules.c); pure ---- */
struct th_rule { /* each list is one allocation, NULL-terminated; NULL when empty */
    char **verbs, **groups, **resources, **names, **urls;
};
struct th_rules {
    struct th_rule *v;
    size_t n, cap;
};
void th_rules_done(struct th_rules *r);
/* Appends what a list of PolicyRules says. */
void th_rules_add_json(struct th_rules *r, const struct th_json *list);
void th_rules_add(struct th_rules *r, const struct th_rule *rule); /* copies */
struct th_json *th_rule_json(const struct th_rule *r);             /* the caller's */
bool th_rule_allows(const struct th_rule *r, const struct th_attrs *at);
bool th_rules_allow(const struct th_rules *r, const struct th_attrs *at);
/* Appends to missing what asked has and owned does not cover, broken down to single permissions. */
void th_rules_uncovered(const struct th_rules *owned, const struct th_rules *asked,
                        struct th_rules *missing);
/* One rule a line, those that differ only in verbs joined, sorted:
 * {APIGroups:["apps"], Resources:["deployments"], Verbs:["get" "list"]} */
void th_rules_describe(const struct th_rules *r, struct th_buf *b);

/* ---- The index (authz_rbac.c); thread-safe ---- */
struct th_rbac;
struct th_rbac *th_rbac_new(struct th_store *store);
void th_rbac_free(struct th_rbac *r);
/* Why it is allowed, or which roles could not be found, is appended to reason (may be NULL). */
bool th_rbac_allowed(struct th_rbac *r, const struct th_attrs *at, struct th_buf *reason);
/* Appends all rules of id, in ns (NULL or "": cluster-wide ones) to ret; problems to problem (may be
 * NULL). */
void th_rbac_rules_for(struct th_rbac *r, const struct th_identity *id, const char *ns,
                       struct th_rules *ret, struct th_buf *problem);
/* The rules of a role that is referred to from a binding in ns. TH_R_NOT_FOUND. */
int th_rbac_role_rules(struct th_rbac *r, const char *kind, const char *name, const char *ns,
                       struct th_rules *ret, struct th_err *err) TH_MUST_USE;

/* ---- Nodes (authz_node.c) ---- */
/* node is th_identity_node's. rules are those of system:node. */
bool th_node_allowed(struct th_store *store, const char *node, const struct th_rules *rules,
                     const struct th_attrs *at, struct th_buf *reason);

/* ---- authz.c ---- */
struct th_rbac *th_authz_rbac(struct th_authz *a);
#endif
