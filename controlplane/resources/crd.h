#ifndef TH_RESOURCES_CRD_H
#define TH_RESOURCES_CRD_H
/* CustomResourceDefinitions: what the API server needs to know about them beyond their row. */
#include "base/json/json.h"

#define TH_CRD_FINALIZER "customresourcecleanup.apiextensions.k8s.io"

/* "True", "False", "Unknown" or NULL when there is no such condition. */
const char *th_crd_condition(const struct th_json *crd, const char *type);
/* Sets it; true when something changed. lastTransitionTime moves with the status. */
bool th_crd_set_condition(struct th_json *crd, const char *type, const char *status,
                          const char *reason, const char *message, int64_t now_ms);
/* Works out accepted names and the conditions NamesAccepted and Established against all other
 * definitions; true when the status changed. */
bool th_crd_settle(struct th_json *crd, const struct th_json *all_items, int64_t now_ms);

/* crd_schema.c: one version's schema, a JSONSchemaProps object; causes are added to err. */
struct th_crd_schema_opts {
    bool status;                 /* the status subresource is on */
    const struct th_json *crd;
};
void th_crd_validate_schema(const struct th_json *schema, const char *path,
                            const struct th_crd_schema_opts *o, struct th_err *err);

struct th_req_ctx;
/* crd_warnings.c: formats that old (NULL: none) did not have and that are not checked. */
void th_crd_warn_formats(const struct th_req_ctx *c, const struct th_json *crd,
                         const struct th_json *old);
#endif
