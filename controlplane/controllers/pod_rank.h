#ifndef TH_POD_RANK_H
#define TH_POD_RANK_H
/* Which pods go first when there are too many. */
#include "controlplane/controllers/pod_control.h"

/* The pods in the order of deletion (borrowed; the caller frees the array). `related` are the pods
 * that serve together with them: many on one node make its pods go earlier. */
struct th_json **th_pod_rank(const struct th_pods *pods, const struct th_pods *related);
#endif
