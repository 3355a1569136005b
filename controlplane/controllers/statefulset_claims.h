#ifndef TH_STATEFULSET_CLAIMS_H
#define TH_STATEFULSET_CLAIMS_H
/* Who owns the claims of a StatefulSet's pods. Pure. */
#include "base/json/json.h"

/* Sets the owner references of claim as the set's persistentVolumeClaimRetentionPolicy wants them; true
 * when that changed something. set and pod have apiVersion and kind; surplus: the set has shrunk below
 * the pod. */
bool th_statefulset_own_claim(struct th_json *claim, const struct th_json *set,
                              const struct th_json *pod, bool surplus);
#endif
