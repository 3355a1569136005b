#ifndef TH_SCHEMA_PRIV_H
#define TH_SCHEMA_PRIV_H
/* Between the files of this folder and the generated schema_tables.c. */
#include "controlplane/schema/schema.h"
extern const struct th_type *const th_builtin_types; /* sorted by name */
extern const size_t th_builtin_types_n;
extern const struct th_kind *const th_builtin_kinds; /* sorted by group, version, kind */
extern const size_t th_builtin_kinds_n;

/* One row of data/type_defaults.tsv. */
struct th_default {
    const char *path;       /* from the object of the type */
    const char *value;      /* JSON */
    const char *cond;       /* path that must be set (cond_unset: must not be), or NULL */
    const char *cond_value; /* what cond must be, or NULL */
    bool cond_unset;
    bool pointer;           /* a zero value counts as set */
    void (*hook)(struct th_json *obj);
};
struct th_default_list {
    const struct th_default *rows;
    size_t n;
};
extern const struct th_default_list *const th_builtin_defaults; /* by the type's index */

/* default_hooks.c: what rows cannot say. Each gets the object of its type. */
void th_default_pod(struct th_json *pod);
void th_default_pod_spec(struct th_json *spec);
void th_default_secret(struct th_json *secret);
void th_default_autoscaler_v1(struct th_json *hpa);
void th_default_image_pull_policy(struct th_json *container);
void th_default_volume(struct th_json *volume);
void th_default_service(struct th_json *svc);
void th_default_namespace(struct th_json *ns);
void th_default_node_status(struct th_json *status);
void th_default_limit_range_item(struct th_json *item);
void th_default_replication_controller(struct th_json *rc);
void th_default_stateful_set(struct th_json *set);
void th_default_job(struct th_json *job);
void th_default_device_taint(struct th_json *taint);
void th_default_custom_resource_definition(struct th_json *crd);

#endif
