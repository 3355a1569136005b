#ifndef TH_SCHEMA_QUOTA_H
#define TH_SCHEMA_QUOTA_H
/* What an object uses of a ResourceQuota: for the admission plugin and for the controller. Pure. */
#include "controlplane/schema/podresources.h"
#include "controlplane/schema/quantity.h"

/* The object's usage under all names that quotas know ("pods", "cpu", "requests.cpu", "limits.cpu",
 * "count/pods", "services.nodeports", ...), amounts as in podresources.h. */
void th_quota_usage(const char *group, const char *plural, const struct th_json *obj,
                    struct th_amounts *ret);
/* Whether the quota's scopes mean the object at all. */
bool th_quota_covers(const struct th_json *quota, const char *group, const char *plural,
                     const struct th_json *obj);
/* An amount as the quantity of that name. */
struct th_quantity th_quota_quantity(const char *name, int64_t amount);
/* The amount of a quantity's text under that name. */
int64_t th_quota_amount(const char *name, const char *text);
/* Whether the name counts milli-CPU, or bytes. */
bool th_quota_is_cpu(const char *name);
#endif
