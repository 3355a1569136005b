#ifndef TH_RESOURCES_PODRULES_H
#define TH_RESOURCES_PODRULES_H
/* What pods and the templates of workloads have in common. */
#include "controlplane/resources/resource.h"

const char *th_pod_qos(const struct th_json *pod); /* "Guaranteed", "Burstable", "BestEffort" */
/* What may change in a pod: images, activeDeadlineSeconds, added tolerations, gates taken away. */
void th_pod_validate_update(const struct th_req_ctx *c, const struct th_json *obj,
                            const struct th_json *old, struct th_err *err);
/* The scale subresource over spec.replicas, status.replicas and the selector. */
int th_scale_get(const struct th_req_ctx *c, const struct th_json *obj, struct th_json **ret,
                 struct th_err *err);
int th_scale_update(const struct th_req_ctx *c, const struct th_json *old, const struct th_json *body,
                    struct th_json **ret, struct th_err *err);
#endif
