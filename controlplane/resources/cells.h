#ifndef TH_RESOURCES_CELLS_H
#define TH_RESOURCES_CELLS_H
/* Table cells that many kinds share. Each call appends one cell. */
#include "controlplane/resources/resource.h"

void th_cell_name(const struct th_json *obj, struct th_json *cells);
/* "5d", or "<unknown>" without a creation time. */
void th_cell_age(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells);
/* Time between `time` (RFC 3339 or NULL) and now; "<unknown>" when it is none. */
void th_cell_since(const struct th_req_ctx *c, const char *time, struct th_json *cells);
/* The string at path, or dflt. */
void th_cell_str(const struct th_json *obj, const char *path, const char *dflt,
                 struct th_json *cells);
/* A map of labels as "a=b,c=d" in the order of keys; "<none>" when empty. */
void th_cell_labels(const struct th_json *map, struct th_json *cells);
/* Scale, wherever it is a subresource. */
extern const struct th_column th_scale_columns[];
void th_row_scale(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells);
/* Two cells: names and images of a list of containers. */
void th_cell_containers(const struct th_json *list, struct th_json *cells);
/* A LabelSelector as text; "<none>" when it selects everything. */
void th_cell_selector(const struct th_json *selector, struct th_json *cells);
/* "ReadWriteOnce" and its kin as "RWO,ROX,RWX,RWOP"; the caller frees. */
char *th_access_modes(const struct th_json *modes);
/* The strings of a list with sep between; the caller frees. */
char *th_join_strings(const struct th_json *list, const char *sep);
#endif
