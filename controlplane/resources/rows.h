#ifndef TH_RESOURCES_ROWS_H
#define TH_RESOURCES_ROWS_H
/* What the generated rows (gen_rows.py, rows.tsv) stand on: cells as data, and the hooks of kinds.
 * A hook is declared here and lives in the file of its kind or group. */
#include "controlplane/resources/cells.h"
#include "controlplane/resources/podrules.h"
#include "controlplane/schema/names.h"

typedef void th_cell_fn(const struct th_req_ctx *c, const struct th_json *obj,
                        struct th_json *cells);
enum th_cell_kind {
    TH_CELL_END,
    TH_CELL_NAME,
    TH_CELL_AGE,
    TH_CELL_STR,
    TH_CELL_INT,
    TH_CELL_BOOL,
    TH_CELL_BOOL_TEXT,
    TH_CELL_VALUE,
    TH_CELL_INTORSTR,
    TH_CELL_COUNT,
    TH_CELL_SINCE,
    TH_CELL_JOIN,
    TH_CELL_LABELS,
    TH_CELL_SELECTOR,
    TH_CELL_CONTAINERS,
    TH_CELL_FN
};
struct th_cell {
    enum th_cell_kind kind;
    const char *path, *dflt;
    th_cell_fn *fn;
};
/* Appends the cells of a TH_CELL_END-terminated list. */
void th_cells(const struct th_req_ctx *c, const struct th_json *obj, const struct th_cell *list,
              struct th_json *cells);

/* All rows, in the order of schema/data/resources.tsv (generated). */
extern const struct th_resource *const th_resource_rows[];
extern const size_t th_resource_rows_n;

/* ---- Cells that take more than a path ---- */
th_cell_fn th_row_pod, th_row_event, th_row_service, th_row_endpoints, th_row_node_status,
    th_row_node_roles, th_row_node_addresses, th_row_pvc, th_row_pv, th_row_quota, th_row_slice;
th_cell_fn th_row_ready_of_replicas, th_row_revision_owner, th_row_job, th_row_hpa, th_row_hpa_v1;
th_cell_fn th_row_param_kind, th_row_param_ref, th_row_csr, th_row_flowschema_missing,
    th_row_ingressclass, th_row_ingress, th_row_parent_ref, th_row_role_ref, th_row_subjects,
    th_row_api_service, th_row_component_status, th_row_metrics, th_row_claim_state, th_row_csidriver, th_row_storageclass;

/* ---- Values of selectable fields ---- */
typedef const char *th_selectable_fn(const struct th_json *obj, const char *field, char *buf);
th_selectable_fn th_pod_selectable, th_node_selectable, th_event_selectable;
th_selectable_fn th_selectable_count; /* a number, 0 when missing */

/* ---- Strategy ---- */
typedef void th_prepare_create_fn(const struct th_req_ctx *c, struct th_json *obj);
typedef void th_prepare_update_fn(const struct th_req_ctx *c, struct th_json *obj,
                                  const struct th_json *old);
typedef void th_validate_fn(const struct th_req_ctx *c, const struct th_json *obj,
                            struct th_err *err);
typedef void th_validate_update_fn(const struct th_req_ctx *c, const struct th_json *obj,
                                   const struct th_json *old, struct th_err *err);
typedef int th_sub_update_fn(const struct th_req_ctx *c, const struct th_json *old,
                             const struct th_json *body, struct th_json **ret, struct th_err *err);
typedef int th_sub_create_fn(const struct th_req_ctx *c, const char *ns, const char *name,
                             const struct th_json *body, struct th_json **ret, struct th_err *err);
th_prepare_create_fn th_namespace_prepare_create, th_pod_prepare_create,
    th_service_prepare_create;
th_prepare_create_fn th_pv_prepare_create; /* Pending, since now */
th_prepare_create_fn th_pvc_prepare_create; /* Pending; dataSource and dataSourceRef agree */
th_prepare_create_fn th_job_prepare_create; /* its own selector, and labels that match it */
th_prepare_create_fn th_phase_pending; /* status: {phase: Pending} */
th_prepare_update_fn th_namespace_prepare_update, th_pod_prepare_update,
    th_service_prepare_update, th_secret_prepare_update, th_pv_prepare_status;
th_prepare_create_fn th_csr_prepare_create; /* certificates_csr.c */
th_prepare_update_fn th_csr_prepare_update;
th_validate_fn th_csr_validate;
th_validate_update_fn th_csr_validate_update, th_csr_validate_status;
typedef void th_warn_fn(const struct th_req_ctx *c, const struct th_json *obj,
                        const struct th_json *old); /* warnings.c */
th_warn_fn th_pod_warn, th_podtemplate_warn, th_workload_warn, th_statefulset_warn, th_job_warn,
    th_cronjob_warn, th_service_warn, th_endpoints_warn, th_slice_warn, th_networkpolicy_warn,
    th_ingress_warn, th_secret_warn, th_serviceaccount_warn, th_node_warn, th_quota_warn,
    th_runtimeclass_warn, th_pv_warn, th_pvc_warn, th_storageclass_warn, th_csidriver_warn;
th_validate_fn th_pod_validate_create, th_statefulset_validate_create,
    th_revision_validate_create, th_ingress_validate_create, th_job_validate_create, th_cronjob_validate_create;
th_validate_update_fn th_csi_driver_validate_update, th_data_validate_update, th_quota_validate_update, th_quota_validate_status,
    th_node_validate_update, th_pv_validate_update, th_pvc_validate_update;
th_validate_update_fn th_service_validate_update, th_statefulset_validate_update,
    th_job_validate_update, th_workload_validate_status, th_service_cidr_validate_update,
    th_pdb_validate_status;
int64_t th_pod_grace(const struct th_req_ctx *c, const struct th_json *obj, int64_t asked);
bool th_namespace_hold(const struct th_req_ctx *c, struct th_json *obj);
int th_service_allocate(const struct th_req_ctx *c, struct th_json *obj, const struct th_json *old,
                        struct th_err *err);
void th_service_release(const struct th_req_ctx *c, const struct th_json *obj);

th_prepare_create_fn th_crd_prepare_create;
th_prepare_update_fn th_crd_prepare_update;
th_validate_fn th_crd_validate;
th_validate_update_fn th_crd_validate_update;
bool th_crd_hold(const struct th_req_ctx *c, struct th_json *obj);

th_prepare_create_fn th_api_service_prepare_create; /* apiregistration.c */
th_validate_fn th_api_service_validate;
th_validate_update_fn th_api_service_validate_status;

/* ---- Subresources and kinds that are never stored ---- */
th_sub_update_fn th_namespace_finalize, th_pod_bind, th_pod_ephemeral, th_pod_resize,
    th_csr_approval, th_csr_status;
th_sub_create_fn th_pod_evict, th_serviceaccount_token;
typedef int th_virtual_fn(const struct th_req_ctx *c, const char *ns, const struct th_json *obj,
                          struct th_json **ret, struct th_err *err);
th_virtual_fn th_binding_create;
th_virtual_fn th_review_token, th_review_self; /* authentication_reviews.c */
th_virtual_fn th_review_access, th_review_local_access, th_review_self_access,
    th_review_rules; /* authorization_reviews.c */

typedef int th_list_virtual_fn(const struct th_req_ctx *c, const char *ns, const char *name,
                               struct th_json **ret, struct th_err *err);
th_list_virtual_fn th_component_statuses; /* core_componentstatuses.c */
th_list_virtual_fn th_node_metrics, th_pod_metrics; /* metrics.c */

/* ---- Other served forms ---- */
/* A copy whose members begin with an upper (or lower) case letter at every level: Go's names. */
struct th_json *th_recase(const struct th_json *v, bool upper);
int th_event_to_storage(struct th_json *obj, struct th_err *err);
int th_event_from_storage(struct th_json *obj, struct th_err *err);
int th_hpa_to_storage(struct th_json *obj, struct th_err *err);
int th_hpa_from_storage(struct th_json *obj, struct th_err *err);

#endif
