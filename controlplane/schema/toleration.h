#ifndef TH_SCHEMA_TOLERATION_H
#define TH_SCHEMA_TOLERATION_H
/* Taints and tolerations, rules of core/v1 Toleration.ToleratesTaint. Pure. */
#include "base/json/json.h"
/* Whether this toleration covers the taint. */
bool th_toleration_covers(const struct th_json *toleration, const struct th_json *taint);
/* Whether one of the tolerations does. */
bool th_tolerates(const struct th_json *tolerations, const struct th_json *taint);
/* Whether the pod tolerates all NoExecute taints of the list, and for how long: *ret_s is the
 * shortest tolerationSeconds in play, -1 for ever, 0 not at all. */
bool th_tolerates_execution(const struct th_json *tolerations, const struct th_json *taints,
                            int64_t *ret_s);
#endif
