#ifndef TH_API_ADMISSION_H
#define TH_API_ADMISSION_H
/* One admission plugin: a row of plugins.def and a file. A plugin is asked for every write; it
 * returns 0 when the write is none of its business. */
#include "controlplane/api/priv.h"

struct th_admit;
struct th_admission_plugin {
    const char *name; /* upstream's, for --disable-admission; NULL: always on */
    /* May change obj. old is NULL on create. */
    int (*mutate)(struct th_call *c, struct th_json *obj, const struct th_json *old,
                  struct th_err *err);
    int (*validate)(struct th_call *c, const struct th_json *obj, const struct th_json *old,
                    struct th_err *err);
    int (*on_delete)(struct th_call *c, const char *name, struct th_err *err);
    /* Of what is configured in the cluster (review.h), for every operation. Mutators are asked again
     * when one after them has changed the object and set a->reinvoke. */
    int (*review_mutate)(struct th_admit *a, struct th_err *err);
    int (*review_validate)(struct th_admit *a, struct th_err *err);
};
/* True for a create (not an update, not a subresource) of this core kind. */
bool th_admission_creates(const struct th_call *c, const char *group, const char *plural,
                          const struct th_json *old);
/* The same for an update, too. */
bool th_admission_writes(const struct th_call *c, const char *group, const char *plural);
#endif
