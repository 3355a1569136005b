#ifndef TH_API_ADMISSION_MATCH_H
#define TH_API_ADMISSION_MATCH_H
/* Which requests a webhook or a policy is about: rules, selectors, match policy. */
#include "controlplane/api/admission/review.h"

struct th_match_rule {
    struct th_strv ops, groups, versions, resources, names;
    enum { TH_SCOPE_ALL, TH_SCOPE_NAMESPACED, TH_SCOPE_CLUSTER } scope;
};
struct th_match {
    struct th_match_rule *rules, *exclude;
    size_t n_rules, n_exclude;
    struct th_selector *namespaces, *objects; /* NULL: all */
    char *selector_error;                     /* a selector that does not parse, or NULL */
    bool equivalent;
    bool empty_matches; /* no rules at all stand for everything (policies' bindings) */
};
/* Of a webhook (rules, namespaceSelector, objectSelector, matchPolicy) or of MatchResources
 * (resourceRules, excludeResourceRules, ...); o may be NULL: matches all. */
void th_match_init(struct th_match *m, const struct th_json *o);
void th_match_done(struct th_match *m);
/* The rules alone, without selectors: for the request as a resource of this name. */
bool th_match_rules(const struct th_match_rule *rules, size_t n, const struct th_match_key *k);
/* 1 and the row that it matched as (an equivalent of the request's, maybe), 0, or an error: the
 * namespace is not there. */
int th_match(const struct th_match *m, struct th_admit *a, const struct th_resource **ret,
             struct th_err *err) TH_MUST_USE;
#endif
