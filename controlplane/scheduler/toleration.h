#ifndef TH_SCHEDULER_TOLERATION_H
#define TH_SCHEDULER_TOLERATION_H
#include "base/json/json.h"
/* Whether one of the tolerations covers the taint; rules of core/v1 Toleration.ToleratesTaint. */
bool th_tolerates(const struct th_json *tolerations, const struct th_json *taint);
#endif
