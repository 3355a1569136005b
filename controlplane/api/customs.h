#ifndef TH_API_CUSTOMS_H
#define TH_API_CUSTOMS_H
/* The resources that CustomResourceDefinitions make: rows like the built-in ones, in sets that
 * never change. A definition that changes makes a new set; whoever serves a request or a watch
 * keeps a reference to the set that its rows are from. */
#include "controlplane/resources/resource.h"
#include "controlplane/schema/jsonpath.h"
#include "controlplane/schema/structural.h"
#include "controlplane/store/store.h"

struct th_crd;
struct th_hook_pool;
/* One version of a definition. */
struct th_custom {
    struct th_resource res;    /* the row that is served */
    struct th_resource stored; /* the same as what lies in the store; another address */
    struct th_kind kind;
    const struct th_crd *crd;
    struct th_structural *schema;
    bool served, storage;
    char *warning;             /* of a deprecated version, or NULL */
    char *version, *type_name, *hash;
    struct th_subresource subs[3];
    struct th_column *columns; /* NULL: the default ones */
    struct th_jsonpath **paths; /* of the columns after Name; NULL entries find nothing */
    struct th_strv texts;      /* what columns point to */
    struct th_strv selectable;
    char *spec_replicas, *status_replicas, *label_selector; /* of scale, or NULL; without the dot */
};
/* One definition. */
struct th_crd {
    unsigned refs; /* atomic */
    char *name, *uid, *group, *plural, *singular, *kind, *list_kind;
    struct th_strv short_names, categories;
    int64_t rv;
    bool namespaced, established, terminating;
    struct th_custom *versions;
    size_t n_versions;
    struct th_json *webhook; /* spec.conversion.webhook, or NULL */
    struct th_hook_pool *hooks; /* for the webhook */
};
struct th_customs {
    unsigned refs; /* atomic */
    uint64_t serial;   /* grows with each set; 0 is none's */
    struct th_crd **v; /* sorted by name */
    size_t n;
    struct th_strv groups; /* sorted; of what is served */
};

struct th_custom_registry;
struct th_custom_registry *th_custom_registry_new(struct th_store *store, struct th_hook_pool *hooks);
void th_custom_registry_free(struct th_custom_registry *r);
/* The newest set, a new reference: whatever was written before this call is in it. */
struct th_customs *th_customs_get(struct th_custom_registry *r);
struct th_customs *th_customs_ref(struct th_customs *c);
void th_customs_unref(struct th_customs *c);
TH_DEFINE_AUTO(th_customs, th_customs_unref)
/* The row, or NULL. `all`: also of versions and definitions that are not served. */
const struct th_resource *th_customs_find(const struct th_customs *c, const char *group,
                                          const char *version, const char *plural, bool all);
/* Enumerates what is served, sorted by definition; NULL past the end. */
const struct th_resource *th_customs_at(const struct th_customs *c, size_t i);

/* custom_row.c */
struct th_crd *th_crd_new(const struct th_obj *o, struct th_hook_pool *hooks);
void th_crd_unref(struct th_crd *crd);

/* convert.c: n parsed objects in any stored versions into the row's, pruned and with defaults, with at
 * most one call of the webhook; or one of the row's version into the stored one. */
int th_custom_load(const struct th_resource *res, struct th_json **objs, size_t n,
                   struct th_err *err) TH_MUST_USE;
/* Between any two versions. */
int th_custom_convert(const struct th_resource *res, struct th_json **obj,
                      struct th_err *err) TH_MUST_USE;
int th_custom_store(const struct th_resource *res, struct th_json **obj,
                    struct th_err *err) TH_MUST_USE;

/* custom_keeper.c: finalizes definitions that are being deleted, settles names that became free. */
struct th_custom_keeper;
struct th_custom_keeper *th_custom_keeper_new(struct th_store *store, struct th_client *client);
void th_custom_keeper_free(struct th_custom_keeper *k);
#endif
