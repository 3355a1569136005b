#ifndef TH_RESOURCES_PODRULES_H
#define TH_RESOURCES_PODRULES_H
/* What pods and the templates of workloads have in common. */
#include "controlplane/resources/resource.h"

const char *th_pod_qos(const struct th_json *pod); /* "Guaranteed", "Burstable", "BestEffort" */
/* Cells of kubectl get pods, wide ones included. */
void th_pod_row(const struct th_req_ctx *c, const struct th_json *pod, struct th_json *cells);
/* Rules of a PodSpec that the tables cannot say; path is its field ("spec", "spec.template.spec"). */
void th_validate_pod_spec(const struct th_json *spec, const char *path, struct th_err *err);
/* What may change in a pod: images, activeDeadlineSeconds, added tolerations, gates taken away. */
void th_pod_validate_update(const struct th_req_ctx *c, const struct th_json *obj,
                            const struct th_json *old, struct th_err *err);
/* spec.selector must be there, parse, not be empty, and match spec.template's labels; and the template
 * is validated, with restartPolicy Always. */
void th_validate_workload(const struct th_json *obj, struct th_err *err);
/* spec.selector of apps/v1 workloads never changes. */
void th_validate_selector_immutable(const struct th_json *obj, const struct th_json *old,
                                    struct th_err *err);
/* "containers", "images" and selector cells of workloads. */
void th_cell_containers(const struct th_json *obj, const char *path, struct th_json *cells);
void th_cell_selector(const struct th_json *selector, struct th_json *cells);
/* The scale subresource over spec.replicas, status.replicas and the selector. */
int th_scale_get(const struct th_req_ctx *c, const struct th_json *obj, struct th_json **ret,
                 struct th_err *err);
int th_scale_update(const struct th_req_ctx *c, const struct th_json *old, const struct th_json *body,
                    struct th_json **ret, struct th_err *err);
#endif
