#ifndef TH_SCHEMA_PRIV_H
#define TH_SCHEMA_PRIV_H
/* Between schema.c and the generated schema_tables.c. */
#include "controlplane/schema/schema.h"
extern const struct th_type *const th_builtin_types; /* sorted by name */
extern const size_t th_builtin_types_n;
extern const struct th_kind *const th_builtin_kinds; /* sorted by group, version, kind */
extern const size_t th_builtin_kinds_n;
#endif
