#ifndef TH_SCHEMA_MANAGED_PRIV_H
#define TH_SCHEMA_MANAGED_PRIV_H
/* metadata.managedFields in memory: who owns which fields. */
#include "controlplane/schema/patch.h"
#include "controlplane/schema/typed_priv.h"

struct th_manager {
    char *name, *subresource, *api_version; /* owned; subresource may be "" */
    bool applied;                           /* operation Apply, else Update */
    char *time;                             /* owned; NULL when never set */
    struct th_fset *set;                    /* owned */
};
struct th_managed {
    struct th_manager *v;
    size_t n, cap;
};
#define TH_MANAGED_INIT                                                                            \
    {                                                                                              \
        .v = NULL                                                                                  \
    }
void th_managed_done(struct th_managed *m);
#define TH_AUTO_MANAGED TH_CLEANUP(th_managed_done)
int th_managed_parse(const struct th_json *entries, struct th_managed *ret, struct th_err *err)
    TH_MUST_USE;
/* Sorted as upstream stores them; NULL when there is none. */
struct th_json *th_managed_to_json(struct th_managed *m);
/* The entry of this identity: appliers are told apart by name and subresource, updaters by version
 * too. NULL when there is none. */
struct th_manager *th_managed_find(struct th_managed *m, const char *name, const char *subresource,
                                   const char *api_version, bool applied);
/* Takes set. */
struct th_manager *th_managed_add(struct th_managed *m, const char *name, const char *subresource,
                                  const char *api_version, bool applied, struct th_fset *set);
void th_managed_remove(struct th_managed *m, struct th_manager *x);
void th_managed_drop_empty(struct th_managed *m, const struct th_manager *keep);
/* Merges the oldest updaters until at most `max` are left. */
void th_managed_cap(struct th_managed *m, size_t max);
void th_manager_set_time(struct th_manager *x, int64_t now_ms);
/* How messages name a manager: "kubectl" using apps/v1; the caller frees. */
char *th_manager_print(const struct th_manager *x);
/* Orders managers as upstream orders their identifiers. */
int th_manager_cmp(const struct th_manager *a, const struct th_manager *b);

/* What th_managed_fields_update does, on a list of managers; obj has no managedFields. */
void th_managed_update(const struct th_apply_opts *o, const char *name, struct th_managed *m,
                       const struct th_json *live, const struct th_json *obj);
void th_managed_set_on(struct th_json *obj, struct th_managed *m); /* writes the field */
/* Removes what no manager ever owns: name, uid, ... */
void th_managed_strip(struct th_fset *s);
void th_managed_filter(const struct th_apply_opts *o, struct th_fset *s); /* reset_paths */
#endif
