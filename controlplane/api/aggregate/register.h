#ifndef TH_API_AGGREGATE_REGISTER_H
#define TH_API_AGGREGATE_REGISTER_H
#include "base/clock.h"
#include "controlplane/api/aggregate/aggregate.h"

/* Makes, mends and deletes the APIServices of custom resources. False: look again soon. */
bool th_aggr_register_customs(struct th_aggr *a, const struct th_aggr_set *set);
#endif
