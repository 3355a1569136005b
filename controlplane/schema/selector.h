#ifndef TH_SCHEMA_SELECTOR_H
#define TH_SCHEMA_SELECTOR_H
/* Label and field selectors: the query form ("a=b,c in (d,e),!f") and the object form
 * (metav1.LabelSelector). Immutable after parsing; matching is thread-safe. Errors are
 * TH_R_BAD_REQUEST with upstream's words. */
#include "base/json/json.h"
struct th_selector;
int th_selector_parse(const char *s, struct th_selector **ret, struct th_err *err) TH_MUST_USE;
/* {matchLabels, matchExpressions}; null matches nothing, {} everything. */
int th_selector_from_json(const struct th_json *o, struct th_selector **ret, struct th_err *err)
    TH_MUST_USE;
/* A plain map (Service.spec.selector): all must be equal; an empty or null map matches nothing. */
struct th_selector *th_selector_from_map(const struct th_json *map);
/* matchExpressions of a NodeSelectorTerm: a LabelSelector's operators plus Gt and Lt. An empty or
 * null list matches nothing, as an empty term does. */
int th_selector_from_node_expressions(const struct th_json *exprs, struct th_selector **ret,
                                      struct th_err *err) TH_MUST_USE;
struct th_selector *th_selector_everything(void);
struct th_selector *th_selector_nothing(void);
void th_selector_free(struct th_selector *s);
TH_DEFINE_AUTO(th_selector, th_selector_free)
bool th_selector_empty(const struct th_selector *s); /* matches everything */
bool th_selector_is_nothing(const struct th_selector *s);
bool th_selector_matches(const struct th_selector *s, const struct th_json *labels);
/* get(arg, key) gives the label's value or NULL. */
bool th_selector_matches_fn(const struct th_selector *s, const char *(*get)(void *arg, const char *key),
                            void *arg);
/* The one value that `key` must have, or NULL when the selector does not say so. Borrowed. */
const char *th_selector_exact(const struct th_selector *s, const char *key);
char *th_selector_format(const struct th_selector *s); /* canonical text; the caller frees */

/* nodeSelectorTerms (matchExpressions and matchFields, terms ORed), parsed once and matched against
 * many nodes. A term that does not parse matches nothing, as upstream decides at run time. */
struct th_node_selector;
struct th_node_selector *th_node_selector_new(const struct th_json *terms);
void th_node_selector_free(struct th_node_selector *s);
TH_DEFINE_AUTO(th_node_selector, th_node_selector_free)
bool th_node_selector_matches(const struct th_node_selector *s, const struct th_json *node_labels,
                              const char *node_name);

/* Field selectors: "status.phase!=Running,spec.nodeName=n1" (=, ==, !=). */
struct th_fieldsel_term {
    char *field, *value;
    bool negate;
};
struct th_fieldsel {
    struct th_fieldsel_term *terms;
    size_t n;
};
int th_fieldsel_parse(const char *s, struct th_fieldsel *ret, struct th_err *err) TH_MUST_USE;
void th_fieldsel_done(struct th_fieldsel *f);
/* get(arg, field) gives the field's value; NULL counts as "". */
bool th_fieldsel_matches_fn(const struct th_fieldsel *f,
                            const char *(*get)(void *arg, const char *field), void *arg);
char *th_fieldsel_format(const struct th_fieldsel *f); /* escaped, canonical; the caller frees */
#endif
