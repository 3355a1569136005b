#ifndef TH_CONTROLLERS_RESOURCE_LIST_H
#define TH_CONTROLLERS_RESOURCE_LIST_H
/* What the API serves, as its aggregated discovery says: for controllers that work on whatever
 * there is (garbage collection, namespaces, quotas), custom resources included. */
#include "controlplane/client/client.h"

enum th_rl_verb {
    TH_RL_LIST = 1,
    TH_RL_WATCH = 2,
    TH_RL_DELETE = 4,
    TH_RL_DELETECOLLECTION = 8
};
struct th_rl_item {
    char *group, *version, *plural, *kind;
    unsigned verbs;
    bool namespaced;
    bool preferred; /* the best version of its group that has this resource */
};
struct th_rl {
    struct th_rl_item *v;
    size_t n;
};
/* Replaces *ret (TH_RL_INIT at first). */
#define TH_RL_INIT                                                                                 \
    {                                                                                              \
        NULL, 0                                                                                    \
    }
int th_rl_discover(struct th_client *client, struct th_rl *ret, struct th_err *err) TH_MUST_USE;
void th_rl_done(struct th_rl *l);
void th_rl_item_done(struct th_rl_item *r);
struct th_rl_item th_rl_item_dup(const struct th_rl_item *r); /* strings are the caller's */
/* By the apiVersion and kind that objects and references carry; NULL when it is not served. */
const struct th_rl_item *th_rl_for_kind(const struct th_rl *l, const char *api_version,
                                        const char *kind);
const struct th_rl_item *th_rl_for_gvr(const struct th_rl *l, struct th_gvr gvr);
struct th_gvr th_rl_gvr(const struct th_rl_item *r); /* borrows from r */
#endif
