#ifndef TH_SCHEMA_PATCH_H
#define TH_SCHEMA_PATCH_H
/* Every way to change an object. Inputs are not modified; *ret is a new tree. `t` NULL means
 * no schema is known. */
#include "controlplane/schema/schema.h"

/* RFC 6902. A failing "test" or a missing path is TH_R_INVALID with upstream's words. */
int th_json_patch(const struct th_json *obj, const struct th_json *ops, struct th_json **ret,
                  struct th_err *err) TH_MUST_USE;
/* RFC 7386. */
int th_merge_patch(const struct th_json *obj, const struct th_json *patch, struct th_json **ret,
                   struct th_err *err) TH_MUST_USE;
/* Drops members that are null, at every depth, inside arrays too. */
void th_prune_nulls(struct th_json *o);
/* Kubernetes strategic merge, directives included ($patch, $retainKeys,
 * $deleteFromPrimitiveList/x, $setElementOrder/x). */
int th_strategic_merge(const struct th_type *t, const struct th_json *obj,
                       const struct th_json *patch, struct th_json **ret,
                       struct th_err *err) TH_MUST_USE;

/* A configuration (a partial object) laid over obj, by the type's list and map kinds, without managers
 * (configuration.c). TH_R_INVALID when it does not fit its type or touches something atomic. */
int th_merge_configuration(const struct th_type *t, const struct th_json *obj,
                           const struct th_json *config, struct th_json **ret,
                           struct th_err *err) TH_MUST_USE;

/* ---- Server-side apply and managedFields (apply.c): structured-merge-diff v6's laws ---- */
struct th_apply_opts {
    const struct th_type *type;
    const char *api_version;  /* of the request, recorded in managedFields */
    const char *manager;      /* fieldManager; required for apply */
    const char *subresource;  /* "" or "status", "scale" */
    bool force;
    int64_t now_ms;
    /* Paths that this resource resets for this endpoint ("status" for the main one, "spec" and
     * "metadata.*" for status), never owned; NULL-terminated or NULL. */
    const char *const *reset_paths;
};
/* live may be NULL (create). `applied` is the configuration. *ret has metadata.managedFields
 * updated. Conflicts are TH_R_CONFLICT with one FieldManagerConflict cause each and upstream's
 * message. */
int th_apply(const struct th_apply_opts *o, const struct th_json *live, const struct th_json *applied,
             struct th_json **ret, struct th_err *err) TH_MUST_USE;
/* The first part of th_apply alone: is `applied` a configuration of this type? What its schema does
 * not declare is TH_R_UNKNOWN (upstream answers 500 without a reason). */
int th_apply_check(const struct th_apply_opts *o, const struct th_json *applied,
                   struct th_err *err) TH_MUST_USE;
/* After any other write: computes what changed between live (NULL on create) and obj, records it
 * for o->manager with operation Update, takes it from the other managers, and writes
 * obj.metadata.managedFields in place. Honours an explicit managedFields: [] or [{}] (reset). */
int th_managed_fields_update(const struct th_apply_opts *o, const struct th_json *live,
                             struct th_json *obj, struct th_err *err) TH_MUST_USE;
#endif
