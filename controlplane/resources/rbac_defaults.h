#ifndef TH_RESOURCES_RBAC_DEFAULTS_H
#define TH_RESOURCES_RBAC_DEFAULTS_H
/* The roles and bindings of a new cluster, from schema/data/rbac_defaults.tsv. */
#include "base/json/json.h"

/* All of them as full objects, in the table's order; the caller's. */
struct th_json *th_rbac_defaults(void);
/* One cluster-scoped object, the caller's; NULL when there is none of that name. */
struct th_json *th_rbac_default(const char *kind, const char *name);
#endif
