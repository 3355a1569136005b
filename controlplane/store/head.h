#ifndef TH_STORE_HEAD_H
#define TH_STORE_HEAD_H
/* The head scanner: finds what the store must know about an object in its text, without building a
 * tree, and says how metadata.resourceVersion is put in place. */
#include "base/buf.h"
#include "base/err.h"

struct th_head {
    /* The stamped text is p[0, cut_from) + pre + <rv> + post + p[cut_to, n). */
    size_t cut_from, cut_to;
    const char *pre, *post;
    size_t labels_at, labels_n; /* of the metadata.labels object in p; n is 0 when absent */
};
/* p must be one JSON object; anything else is TH_R_BAD_REQUEST. Brackets, strings and separators
 * are checked, numbers and literals are not: the bytes come from th_json_dump or from ourselves. */
int th_head_scan(const char *p, size_t n, struct th_head *ret, struct th_err *err) TH_MUST_USE;
#endif
