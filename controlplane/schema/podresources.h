#ifndef TH_SCHEMA_PODRESOURCES_H
#define TH_SCHEMA_PODRESOURCES_H
/* Amounts of resources, and what a pod asks for: for the scheduler and for quotas. Pure. */
#include "base/json/json.h"

/* Amounts by resource name: milli-CPU for "cpu", whole units for the others. */
struct th_amount {
    char *name;
    int64_t value;
};
struct th_amounts {
    struct th_amount *v;
    size_t n;
};
void th_amounts_done(struct th_amounts *a);
int64_t th_amounts_get(const struct th_amounts *a, const char *name);
/* a += sign * b */
void th_amounts_add(struct th_amounts *a, const struct th_amounts *b, int sign);
/* From a quantity map such as status.allocatable; bad quantities count as 0. */
void th_amounts_read(struct th_amounts *a, const struct th_json *map);
/* What a pod needs: containers and sidecars together, or the greediest init container with the
 * sidecars before it; what spec.resources says for the pod as a whole comes instead, resource by
 * resource; plus overhead. As k8s.io/component-helpers resource.PodRequests. Adds "pods": 1. */
void th_pod_requests(const struct th_json *pod, struct th_amounts *ret);
/* The same of limits, without "pods". */
void th_pod_limits(const struct th_json *pod, struct th_amounts *ret);
/* CPU and memory for scoring: a container that asks for none counts with upstream's small default,
 * so that such pods spread too. */
void th_pod_nonzero(const struct th_json *pod, int64_t *ret_cpu, int64_t *ret_memory);
#endif
