#ifndef TH_RESOURCES_POD_AMOUNTS_H
#define TH_RESOURCES_POD_AMOUNTS_H
/* What a pod asks for in all: containers side by side, init containers one after another, sidecars
 * beside both, amounts of the whole pod in place of the sums (upstream: PodRequests, PodLimits). */
#include "base/json/json.h"

/* which: "requests" or "limits". A map of quantities as text, the caller's; never NULL. */
struct th_json *th_pod_amounts(const struct th_json *pod, const char *which, bool overhead);
/* into[name] += text. */
void th_amount_add(struct th_json *into, const char *name, const char *text);
#endif
