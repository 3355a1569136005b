/*
 * The garbage collector: objects whose owners are gone go too.
 *
 * A graph in memory has one small node per object (where it is, whom it belongs to) and, per owner,
 * the uids of its dependents. Events keep it current; two kinds of keys come out of them:
 *
 *   "dep|<uid>"  an object with owners: when none of them exists any more it is deleted, references
 * to the missing ones among several are removed. An owner that the graph does not know is asked for
 * with a GET before it counts as missing, since caches of different resources are not in step.
 *   "own|<uid>"  an object being deleted with the finalizer foregroundDeletion (its dependents go
 * first; those with blockOwnerDeletion hold it) or orphan (its dependents lose their reference).
 *
 * Rules as k8s.io/kubernetes pkg/controller/garbagecollector. Owners of a kind that is not in the
 * table count as existing: nothing is deleted on a guess.
 *
 * The lock guards the graph; nodes are copied out of it before anything is written to the API.
 */
#include "controlplane/controllers/controller.h"
#include "base/buf.h"
#include "base/hmap.h"
#include <pthread.h>

#define FOREGROUND "foregroundDeletion"
#define ORPHAN "orphan"

static const struct {
    const char *api_version, *kind;
    struct th_gvr gvr;
} kinds[] = {
#define TH_GC_KIND(group_version, kind_, group, version, plural)                                   \
    {group_version, kind_, {group, version, plural}},
#include "controlplane/controllers/gc_kinds.def"
#undef TH_GC_KIND
};

struct owner {
    char *uid, *api_version, *kind, *name;
    bool blocks;
};
struct node {
    size_t kind; /* index into kinds */
    char *uid, *ns, *name;
    struct owner *owners;
    size_t n_owners;
    bool foreground, orphan; /* being deleted, with that finalizer */
};
struct graph {
    pthread_mutex_t lock;
    struct th_hmap nodes;      /* uid -> struct node */
    struct th_hmap dependents; /* owner uid -> struct th_hmap (set of uids) */
};

/* ---- The graph ---- */

static void node_free(void *p)
{
    struct node *n = p;
    if (!n) {
        return;
    }
    for (size_t i = 0; i < n->n_owners; i++) {
        free(n->owners[i].uid);
        free(n->owners[i].api_version);
        free(n->owners[i].kind);
        free(n->owners[i].name);
    }
    free(n->owners);
    free(n->uid);
    free(n->ns);
    free(n->name);
    free(n);
}

static void set_free(void *p)
{
    if (p) {
        th_hmap_done(p);
        free(p);
    }
}

static void *state_new(struct th_ctrl *c)
{
    (void)c;
    struct graph *g = TH_NEW(struct graph);
    pthread_mutex_init(&g->lock, NULL);
    th_hmap_init(&g->nodes, node_free);
    th_hmap_init(&g->dependents, set_free);
    return g;
}

static void state_free(void *p)
{
    struct graph *g = p;
    th_hmap_done(&g->nodes);
    th_hmap_done(&g->dependents);
    pthread_mutex_destroy(&g->lock);
    free(g);
}

static bool has_finalizer(const struct th_json *obj, const char *name)
{
    const struct th_json *list = th_json_path(obj, "metadata.finalizers");
    for (size_t i = 0; i < th_json_len(list); i++) {
        if (th_streq(th_json_str(th_json_at(list, i)), name)) {
            return true;
        }
    }
    return false;
}

static struct node *node_new(size_t kind, const struct th_json *obj)
{
    struct node *n = TH_NEW(struct node);
    n->kind = kind;
    n->uid = th_xstrdup(th_json_path_str(obj, "metadata.uid"));
    n->ns = th_xstrdup(th_json_path_str(obj, "metadata.namespace"));
    n->name = th_xstrdup(th_json_path_str(obj, "metadata.name"));
    if (th_json_path_str(obj, "metadata.deletionTimestamp")) {
        n->foreground = has_finalizer(obj, FOREGROUND);
        n->orphan = has_finalizer(obj, ORPHAN);
    }
    const struct th_json *refs = th_json_path(obj, "metadata.ownerReferences");
    n->owners = th_xcalloc(th_json_len(refs) + 1, sizeof(*n->owners));
    for (size_t i = 0; i < th_json_len(refs); i++) {
        const struct th_json *r = th_json_at(refs, i);
        n->owners[n->n_owners++] = (struct owner){
            th_xstrdup(th_json_path_str(r, "uid")), th_xstrdup(th_json_path_str(r, "apiVersion")),
            th_xstrdup(th_json_path_str(r, "kind")), th_xstrdup(th_json_path_str(r, "name")),
            th_json_path_bool(r, "blockOwnerDeletion", false)};
    }
    return n;
}

static void unlink_node(struct graph *g, const struct node *n)
{
    for (size_t i = 0; i < n->n_owners; i++) {
        struct th_hmap *set = th_hmap_get(&g->dependents, n->owners[i].uid);
        if (set) {
            (void)th_hmap_remove(set, n->uid);
            if (set->n == 0) {
                set_free(th_hmap_remove(&g->dependents, n->owners[i].uid));
            }
        }
    }
}

static void link_node(struct graph *g, const struct node *n)
{
    for (size_t i = 0; i < n->n_owners; i++) {
        struct th_hmap *set = th_hmap_get(&g->dependents, n->owners[i].uid);
        if (!set) {
            set = TH_NEW(struct th_hmap);
            th_hmap_init(set, NULL);
            th_hmap_set(&g->dependents, n->owners[i].uid, set);
        }
        th_hmap_set(set, n->uid, NULL);
    }
}

static void enqueue(struct th_ctrl *c, const char *what, const char *uid)
{
    th_autofree char *key = th_xasprintf("%s|%s", what, uid);
    th_ctrl_enqueue(c, key);
}

static size_t kind_of(const struct th_json *obj)
{
    const char *gv = th_json_path_str(obj, "apiVersion"), *kind = th_json_path_str(obj, "kind");
    for (size_t i = 0; i < TH_ARRAY_LEN(kinds); i++) {
        if (th_streq(kinds[i].kind, kind) && th_streq(kinds[i].api_version, gv)) {
            return i;
        }
    }
    return TH_ARRAY_LEN(kinds);
}

/* The uids that depend on an owner; the caller's. */
static void dependents_of(struct graph *g, const char *uid, struct th_strv *ret)
{
    const struct th_hmap *set = th_hmap_get(&g->dependents, uid);
    struct th_hmap_entry *e;
    for (size_t it = 0; set && (e = th_hmap_next(set, &it));) {
        th_strv_add(ret, e->key);
    }
}

static void on_event(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    struct graph *g = th_ctrl_state(c);
    const struct th_json *obj = now ? now : old;
    const char *uid = th_json_path_str(obj, "metadata.uid");
    size_t kind = kind_of(obj);
    if (!uid || kind == TH_ARRAY_LEN(kinds)) {
        return;
    }
    struct th_strv dependents TH_CLEANUP(th_strv_done) = TH_STRV_INIT;
    struct node *n = now ? node_new(kind, now) : NULL;
    bool busy = n && (n->foreground || n->orphan);
    pthread_mutex_lock(&g->lock);
    struct node *before = th_hmap_remove(&g->nodes, uid);
    if (before) {
        unlink_node(g, before);
    }
    if (n) {
        link_node(g, n);
        th_hmap_set(&g->nodes, uid, n);
    } else {
        dependents_of(g, uid, &dependents);
    }
    pthread_mutex_unlock(&g->lock);
    const struct th_json *refs = th_json_path(obj, "metadata.ownerReferences");
    if (now && th_json_len(refs)) {
        enqueue(c, "dep", uid);
    }
    if (busy) {
        enqueue(c, "own", uid);
    }
    /* A dependent that went, or let go, may have been the last its owner waited for. */
    for (size_t i = 0; before && i < before->n_owners; i++) {
        enqueue(c, "own", before->owners[i].uid);
    }
    for (size_t i = 0; i < dependents.n; i++) {
        enqueue(c, "dep", dependents.v[i]);
    }
    node_free(before);
}

/* A copy of a node, or NULL. */
static struct node *node_copy(struct graph *g, const char *uid)
{
    struct node *copy = NULL;
    pthread_mutex_lock(&g->lock);
    const struct node *n = th_hmap_get(&g->nodes, uid);
    if (n) {
        copy = TH_NEW(struct node);
        *copy = *n;
        copy->uid = th_xstrdup(n->uid);
        copy->ns = th_xstrdup(n->ns);
        copy->name = th_xstrdup(n->name);
        copy->owners = th_xcalloc(n->n_owners + 1, sizeof(*copy->owners));
        for (size_t i = 0; i < n->n_owners; i++) {
            const struct owner *o = &n->owners[i];
            copy->owners[i] = (struct owner){th_xstrdup(o->uid), th_xstrdup(o->api_version),
                                             th_xstrdup(o->kind), th_xstrdup(o->name), o->blocks};
        }
    }
    pthread_mutex_unlock(&g->lock);
    return copy;
}

static inline void node_auto(struct node **n)
{
    node_free(*n);
}

/* ---- Dependents ---- */

enum owner_state { OWNER_SOLID, OWNER_GONE, OWNER_WAITING };

static int owner_state(struct th_ctrl *c, const struct node *n, const struct owner *o,
                       enum owner_state *ret, struct th_err *err)
{
    struct graph *g = th_ctrl_state(c);
    pthread_mutex_lock(&g->lock);
    const struct node *owner = th_hmap_get(&g->nodes, o->uid);
    bool known = owner != NULL, waiting = owner && owner->foreground;
    pthread_mutex_unlock(&g->lock);
    *ret = waiting ? OWNER_WAITING : OWNER_SOLID;
    if (known) {
        return 0;
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(kinds); i++) {
        if (!th_streq(kinds[i].kind, o->kind) || !th_streq(kinds[i].api_version, o->api_version)) {
            continue;
        }
        struct th_json *live TH_AUTO(th_json) = NULL;
        bool cluster_scoped = th_streq(o->kind, "Node") || th_streq(o->kind, "Namespace");
        int r = th_client_get(th_ctrl_client(c), kinds[i].gvr, cluster_scoped ? NULL : n->ns,
                              o->name, &live, err);
        if (r == -TH_R_NOT_FOUND) {
            th_err_done(err);
            *ret = OWNER_GONE;
            return 0;
        }
        TH_TRY(r);
        *ret = th_streq(th_json_path_str(live, "metadata.uid"), o->uid) ? OWNER_SOLID : OWNER_GONE;
        return 0;
    }
    return 0;
}

static int remove_refs(struct th_ctrl *c, const struct node *n, const struct th_strv *uids,
                       struct th_err *err)
{
    struct th_json *refs = th_json_array();
    for (size_t i = 0; i < uids->n; i++) {
        th_json_append(refs, th_json_build("{'$patch':'delete','uid':%s}", uids->v[i]));
    }
    struct th_json *patch TH_AUTO(th_json) =
        th_json_build("{'metadata':{'ownerReferences':%o,'uid':%s}}", refs, n->uid);
    struct th_patch_opts o = {.kind = TH_PATCH_STRATEGIC,
                              .field_manager = "kube-controller-manager"};
    int r = th_client_patch(th_ctrl_client(c), kinds[n->kind].gvr, n->ns, n->name, "", &o, patch,
                            NULL, err);
    if (r == -TH_R_NOT_FOUND || r == -TH_R_CONFLICT) {
        th_err_done(err);
        r = 0;
    }
    return r;
}

static int delete_node(struct th_ctrl *c, const struct node *n, const char *propagation,
                       struct th_err *err)
{
    struct th_delete_opts o = TH_DELETE_OPTS_INIT;
    o.uid = n->uid;
    o.propagation = propagation;
    int r = th_client_delete(th_ctrl_client(c), kinds[n->kind].gvr, n->ns, n->name, &o, NULL, err);
    if (r == -TH_R_NOT_FOUND || r == -TH_R_CONFLICT) {
        th_err_done(err);
        r = 0;
    }
    return r;
}

static int check_dependent(struct th_ctrl *c, const char *uid, struct th_err *err)
{
    struct node *n TH_CLEANUP(node_auto) = node_copy(th_ctrl_state(c), uid);
    if (!n || n->n_owners == 0 || n->foreground || n->orphan) {
        return 0;
    }
    size_t solid = 0, waiting = 0;
    struct th_strv gone TH_CLEANUP(th_strv_done) = TH_STRV_INIT;
    struct th_strv left TH_CLEANUP(th_strv_done) = TH_STRV_INIT;
    for (size_t i = 0; i < n->n_owners; i++) {
        enum owner_state s;
        TH_TRY(owner_state(c, n, &n->owners[i], &s, err));
        solid += s == OWNER_SOLID;
        waiting += s == OWNER_WAITING;
        if (s != OWNER_SOLID) {
            th_strv_add(s == OWNER_GONE ? &gone : &left, n->owners[i].uid);
        }
    }
    if (solid > 0) {
        for (size_t i = 0; i < left.n; i++) {
            th_strv_add(&gone,
                        left.v[i]); /* an owner in foreground deletion need not wait for us */
        }
        return gone.n ? remove_refs(c, n, &gone, err) : 0;
    }
    return delete_node(c, n, waiting ? "Foreground" : "Background", err);
}

/* ---- Owners being deleted ---- */

static int drop_finalizer_fn(void *arg, struct th_json *obj, struct th_err *err)
{
    (void)err;
    struct th_json *list = th_json_path(obj, "metadata.finalizers");
    for (size_t i = 0; i < th_json_len(list); i++) {
        if (th_streq(th_json_str(th_json_at(list, i)), arg)) {
            th_json_del_at(list, i);
            return 1;
        }
    }
    return 0;
}

static int drop_finalizer(struct th_ctrl *c, const struct node *n, const char *name,
                          struct th_err *err)
{
    int r = th_client_modify(th_ctrl_client(c), kinds[n->kind].gvr, n->ns, n->name, "",
                             drop_finalizer_fn, (void *)(uintptr_t)name, NULL, err);
    if (r == -TH_R_NOT_FOUND) {
        th_err_done(err);
        r = 0;
    }
    return r < 0 ? r : 0;
}

static bool blocks(struct graph *g, const char *uid, const char *owner_uid)
{
    const struct node *n = th_hmap_get(&g->nodes, uid);
    for (size_t i = 0; n && i < n->n_owners; i++) {
        if (n->owners[i].blocks && th_streq(n->owners[i].uid, owner_uid)) {
            return true;
        }
    }
    return false;
}

static int check_owner(struct th_ctrl *c, const char *uid, struct th_err *err)
{
    struct graph *g = th_ctrl_state(c);
    struct node *n TH_CLEANUP(node_auto) = node_copy(g, uid);
    if (!n || !(n->foreground || n->orphan)) {
        return 0;
    }
    struct th_strv dependents TH_CLEANUP(th_strv_done) = TH_STRV_INIT;
    bool blocked = false;
    pthread_mutex_lock(&g->lock);
    dependents_of(g, uid, &dependents);
    for (size_t i = 0; i < dependents.n; i++) {
        blocked = blocked || blocks(g, dependents.v[i], uid);
    }
    pthread_mutex_unlock(&g->lock);
    if (n->orphan) {
        struct th_strv owner TH_CLEANUP(th_strv_done) = TH_STRV_INIT;
        th_strv_add(&owner, uid);
        for (size_t i = 0; i < dependents.n; i++) {
            struct node *d TH_CLEANUP(node_auto) = node_copy(g, dependents.v[i]);
            if (d) {
                TH_TRY(remove_refs(c, d, &owner, err));
            }
        }
        return drop_finalizer(c, n, ORPHAN, err);
    }
    for (size_t i = 0; i < dependents.n; i++) {
        enqueue(c, "dep", dependents.v[i]);
    }
    return blocked ? 0 : drop_finalizer(c, n, FOREGROUND, err);
}

static int reconcile(struct th_ctrl *c, const char *key, int64_t *ret_after_ms, struct th_err *err)
{
    (void)ret_after_ms;
    const char *uid = strchr(key, '|');
    return th_startswith(key, "dep|") ? check_dependent(c, uid + 1, err)
                                      : check_owner(c, uid + 1, err);
}

static const struct th_ctrl_watch watches[] = {
#define TH_GC_KIND(group_version, kind_, group, version, plural)                                   \
    {.gvr = {group, version, plural}, .on_event = on_event},
#include "controlplane/controllers/gc_kinds.def"
#undef TH_GC_KIND
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_gc = {
    .name = "garbage-collector-controller",
    .watches = watches,
    .reconcile = reconcile,
    .state_new = state_new,
    .state_free = state_free,
};
