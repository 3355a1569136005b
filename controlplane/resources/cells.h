#ifndef TH_RESOURCES_CELLS_H
#define TH_RESOURCES_CELLS_H
/* Table cells that many kinds share. */
#include "controlplane/resources/resource.h"

#define TH_COL_NAME {"Name", "string", "name", "Name of the object, unique in its scope", 0}
#define TH_COL_AGE {"Age", "string", "", "Time since the object was created", 0}

void th_cell_name(const struct th_json *obj, struct th_json *cells);
/* "5d", or "<unknown>" without a creation time. */
void th_cell_age(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells);
/* The string at path, or dflt. */
void th_cell_str(const struct th_json *obj, const char *path, const char *dflt,
                 struct th_json *cells);
#endif
