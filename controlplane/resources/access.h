#ifndef TH_RESOURCES_ACCESS_H
#define TH_RESOURCES_ACCESS_H
/* Who asks, what is asked, and what a row may ask back about it. The review kinds are rows like any
 * other, but what they answer is known only to the API server: it fills struct th_access. */
#include "base/json/json.h"

/* ---- Who ---- */
struct th_identity { /* immutable after it was made; reference-counted */
    uint32_t refs;
    char *user, *uid;
    struct th_strv groups;
    struct th_strv extra; /* "key=value": authentication.kubernetes.io/pod-name=..., ... */
    bool system;          /* in-process and trusted: passes authorization */
    bool front_proxy;     /* a front proxy's certificate: it says in headers who asks */
    struct th_identity *by; /* who is taken for this one (impersonation), or NULL */
};
struct th_identity *th_identity_new(const char *user, const char *uid, const char *const *groups);
struct th_identity *th_identity_ref(struct th_identity *id);
void th_identity_unref(struct th_identity *id);
TH_DEFINE_AUTO(th_identity, th_identity_unref)
bool th_identity_in(const struct th_identity *id, const char *group);
/* The node whose agent this is ("system:node:<name>" in system:nodes), or NULL; borrowed. "" when it
 * is a node that does not say which. */
const char *th_identity_node(const struct th_identity *id);
/* {username, uid, groups, extra} as the reviews and audit show it; members that are empty are left
 * out. The caller's. */
struct th_json *th_identity_json(const struct th_identity *id);
/* The reverse, of a SubjectAccessReview's spec; user is its name for the user ("user"). */
struct th_identity *th_identity_of_json(const struct th_json *o, const char *user);

/* ---- What ---- */
struct th_attrs {
    const struct th_identity *id;
    const char *verb;
    bool resource;                   /* else path */
    const char *group, *version, *plural, *sub, *ns, *name; /* NULL or "" when not there */
    const char *path;
    const char *field_selector;      /* of a list, raw, or NULL */
};

/* ---- What the API server answers ---- */
struct th_access {
    void *self;
    /* Why is appended to reason (may be NULL), also for a no. */
    bool (*allowed)(void *self, const struct th_attrs *at, struct th_buf *reason);
    /* All rules of id in a namespace: policy rules as JSON, the caller's. *ret_incomplete: there may
     * be more; problem gets what went wrong on the way. */
    struct th_json *(*rules)(void *self, const struct th_identity *id, const char *ns,
                             bool *ret_incomplete, struct th_buf *problem);
    /* A bearer token for one of the audiences (NULL-terminated; NULL or empty: the API server's own);
     * those that matched are added to ret_audiences. TH_R_UNAUTHORIZED says why not. */
    int (*token)(void *self, const char *token, const char *const *audiences,
                 struct th_identity **ret, struct th_strv *ret_audiences, struct th_err *err);
    /* What nodes (pods: false) or pods use, as NodeMetrics or PodMetrics of ns (NULL: all), or the one
     * of that name; an array, sorted. It may take a second. */
    int (*usage)(void *self, bool pods, const char *ns, const char *name, struct th_json **ret,
                 struct th_err *err);
};
#endif
