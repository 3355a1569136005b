#ifndef TH_SCHEMA_SELECTOR_H
#define TH_SCHEMA_SELECTOR_H
/* Label and field selectors: the query form ("a=b,c in (d,e),!f") and the object form
 * (metav1.LabelSelector). Immutable after parsing; matching is thread-safe. */
#include "base/json/json.h"
struct th_selector;
int th_selector_parse(const char *s, struct th_selector **ret, struct th_err *err) TH_MUST_USE;
/* {matchLabels, matchExpressions}; null matches nothing, {} everything. */
int th_selector_from_json(const struct th_json *o, struct th_selector **ret, struct th_err *err)
    TH_MUST_USE;
/* A plain map (Service.spec.selector): all must be equal; an empty or null map matches nothing. */
struct th_selector *th_selector_from_map(const struct th_json *map);
void th_selector_free(struct th_selector *s);
TH_DEFINE_AUTO(th_selector, th_selector_free)
bool th_selector_empty(const struct th_selector *s); /* matches everything */
bool th_selector_matches(const struct th_selector *s, const struct th_json *labels);
/* get(arg, key) gives the label's value or NULL. */
bool th_selector_matches_fn(const struct th_selector *s, const char *(*get)(void *arg, const char *key),
                            void *arg);
char *th_selector_format(const struct th_selector *s); /* canonical text; the caller frees */

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
#endif
