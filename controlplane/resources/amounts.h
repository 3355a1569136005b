#ifndef TH_RESOURCES_AMOUNTS_H
#define TH_RESOURCES_AMOUNTS_H
/* Names and amounts of resources (cpu, memory, hugepages-2Mi, example.com/gpu): which names may stand
 * where, and what amounts they may have. */
#include "controlplane/resources/view.h"

/* A plain name that Kubernetes knows somewhere; "pods", "cpu", "limits.memory", ... */
bool th_resource_is_standard(const char *name);
bool th_resource_is_container(const char *name); /* standard ones of containers */
bool th_resource_is_quota(const char *name);     /* standard ones of quotas */
bool th_resource_is_hugepage(const char *name);
bool th_resource_is_native(const char *name);    /* without a prefix or under kubernetes.io/ */
bool th_resource_is_extended(const char *name);  /* example.com/gpu */
bool th_resource_is_integer(const char *name);   /* whole numbers only */

/* Adds the cause of a name that is no resource's at all; the view is the map's entry. */
bool th_check_resource_name(const struct th_view *at, const char *name);
/* At least 0, and whole where it must be. */
void th_check_resource_amount(const struct th_view *at, const char *name);
/* ResourceRequirements of a container, or (pod) of a whole pod. */
void th_check_requirements(const struct th_view *v, bool pod);
#endif
