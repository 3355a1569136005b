#ifndef TH_SCHEMA_CEL_TYPES_H
#define TH_SCHEMA_CEL_TYPES_H
/* Types of expressions, for the checker: made in mem, never freed by themselves. */
#include "controlplane/schema/cel/cel_priv.h"

/* What the parameters A and B of a signature were found to be; NULL: nothing yet. */
struct cel_bindings {
    const struct cel_type *v[2];
};

extern const struct cel_type cel_dyn, cel_bad;
extern const struct cel_type cel_kinds[CEL_KINDS_]; /* of kinds without parts */

const struct cel_type *cel_type_make(struct cel_arena *mem, int t, const struct cel_type *a,
                                     const struct cel_type *b);
/* NULL: the schema has no type that expressions may use. resource: it has apiVersion, kind and
 * metadata besides. */
const struct cel_type *cel_type_of_schema(struct cel_arena *mem, const struct th_structural *s,
                                          bool resource);
/* hidden: members of the table that are not there; may be NULL. */
const struct cel_type *cel_type_of_table(struct cel_arena *mem, const struct th_type *table,
                                         const char *const *hidden);
/* Of the member of an object; NULL: there is none of that name. */
const struct cel_type *cel_type_member(struct cel_arena *mem, const struct cel_type *t,
                                       const char *name);
/* Members of what a literal of a message type makes; of Object anything. */
const struct cel_type *cel_type_message_member(const struct cel_type *t, const char *name);
/* One type of a signature; *s moves on. */
const struct cel_type *cel_type_of_sig(struct cel_arena *mem, const char **s);
/* A value of type from may stand where to is asked for; b gets what parameters were bound to. */
bool cel_type_takes(const struct cel_type *to, const struct cel_type *from,
                    struct cel_bindings *b) TH_MUST_USE;
/* t with its parameters replaced; unbound ones are dyn. */
const struct cel_type *cel_type_substitute(struct cel_arena *mem, const struct cel_type *t,
                                           const struct cel_bindings *b);
bool cel_type_same(const struct cel_type *a, const struct cel_type *b);
#endif
