/* The list of all resources.
 *
 * The generated rows are an array in the order of schema/data/resources.tsv; this file answers
 * lookups in it. They are linear over some seventy rows of pointers: the router asks once a
 * request, and a comparison of the plural fails on its first bytes almost always.
 */
#include "controlplane/resources/rows.h"

/* Upstream's priorities, from schema/data/apigroups.tsv. */
static const char *const groups[] = {
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
};

const struct th_resource *th_resource_at(size_t i)
{
    return i < th_resource_rows_n ? th_resource_rows[i] : NULL;
}

const struct th_resource *th_resource_find(const char *group, const char *version,
                                           const char *plural)
{
    for (size_t i = 0; i < th_resource_rows_n; i++) {
        const struct th_resource *r = th_resource_rows[i];
        if (strcmp(r->plural, plural) == 0 && strcmp(r->group, group) == 0 &&
            strcmp(r->version, version) == 0) {
            return r;
        }
    }
    return NULL;
}

const struct th_resource *th_resource_for_kind(const char *group, const char *version,
                                               const char *kind)
{
    for (size_t i = 0; i < th_resource_rows_n; i++) {
        const struct th_resource *r = th_resource_rows[i];
        if (strcmp(r->kind, kind) == 0 && strcmp(r->group, group) == 0 &&
            strcmp(r->version, version) == 0) {
            return r;
        }
    }
    return NULL;
}

const struct th_kind *th_resource_kind(const struct th_resource *r)
{
    return r->kind_row ? r->kind_row : th_kind_find(r->group, r->version, r->kind);
}

const char *th_group_at(size_t i)
{
    return i < TH_ARRAY_LEN(groups) ? groups[i] : NULL;
}
