#ifndef TH_SCHEMA_JSONPATH_H
#define TH_SCHEMA_JSONPATH_H
/* JSONPath as kubectl and custom columns write it: .spec.x, ['a.b'], [0], [-1:], [*], ..name,
 * [?(@.type=="Ready")], [a,b]. A parsed path is immutable; any thread may use it. */
#include "base/json/json.h"

struct th_jsonpath;
/* path without the braces (".spec.replicas"). TH_R_BAD_REQUEST with upstream's words. */
int th_jsonpath_parse(const char *path, struct th_jsonpath **ret, struct th_err *err) TH_MUST_USE;
void th_jsonpath_free(struct th_jsonpath *p);
TH_DEFINE_AUTO(th_jsonpath, th_jsonpath_free)
/* What the path finds in obj. Missing keys find nothing; an index out of bounds or a comparison of
 * unlike values is an error. Values are borrowed from obj and the path. */
struct th_jsonpath_found {
    const struct th_json **v; /* NULL entries are JSON null */
    size_t n, cap;
};
int th_jsonpath_find(const struct th_jsonpath *p, const struct th_json *obj,
                     struct th_jsonpath_found *ret, struct th_err *err) TH_MUST_USE;
void th_jsonpath_found_done(struct th_jsonpath_found *f);
#endif
