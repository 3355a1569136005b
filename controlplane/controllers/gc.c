/*
 * The garbage collector: objects whose owners are gone go too.
 *
 * A graph in memory has one small node per object of every resource that the API serves (where it
 * is, whom it belongs to) and, per owner, the uids of its dependents. Events keep it current; two
 * kinds of keys come out of them:
 *
 *   "dep|<uid>"  an object with owners: when none of them exists any more it is deleted, references
 * to the missing ones among several are removed. An owner that the graph does not know is asked for
 * with a GET before it counts as missing, since caches of different resources are not in step.
 *   "own|<uid>"  an object being deleted with the finalizer foregroundDeletion (its dependents go
 * first; those with blockOwnerDeletion hold it) or orphan (its dependents lose their reference).
 *
 * Rules as k8s.io/kubernetes pkg/controller/garbagecollector. A namespaced owner is looked for in
 * the dependent's own namespace only. Owners of a kind that is not served, and namespaced owners of
 * cluster-scoped objects, count as existing: nothing is deleted on a guess.
 *
 * The lock guards the graph; nodes are copied out of it before anything is written to the API.
 */
#include "controlplane/controllers/controller.h"
#include "base/buf.h"
#include "base/hmap.h"
#include <pthread.h>

#define FOREGROUND "foregroundDeletion"
#define ORPHAN "orphan"

struct owner {
    char *uid, *api_version, *kind, *name;
    bool blocks;
};
struct node {
    const struct th_rl_item *r; /* the graph's; lives as long as it */
    char *uid, *ns, *name;
    struct owner *owners;
    size_t n_owners;
    bool deleting;           /* has a deletionTimestamp */
    bool foreground, orphan; /* and that finalizer */
};
struct graph {
    pthread_mutex_t lock;
    struct th_hmap kinds;      /* "apiVersion|Kind" -> struct th_rl_item; never removed */
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

static void kind_free(void *p)
{
    th_rl_item_done(p);
    free(p);
}

static void *state_new(struct th_ctrl *c)
{
    (void)c;
    struct graph *g = TH_NEW(struct graph);
    pthread_mutex_init(&g->lock, NULL);
    th_hmap_init(&g->kinds, kind_free);
    th_hmap_init(&g->nodes, node_free);
    th_hmap_init(&g->dependents, set_free);
    return g;
}

static void state_free(void *p)
{
    struct graph *g = p;
    th_hmap_done(&g->nodes);
    th_hmap_done(&g->dependents);
    th_hmap_done(&g->kinds);
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

static struct node *node_new(const struct th_rl_item *r, const struct th_json *obj)
{
    struct node *n = TH_NEW(struct node);
    n->r = r;
    n->uid = th_xstrdup(th_json_path_str(obj, "metadata.uid"));
    n->ns = th_xstrdup(th_json_path_str(obj, "metadata.namespace"));
    n->name = th_xstrdup(th_json_path_str(obj, "metadata.name"));
    n->deleting = th_json_path_str(obj, "metadata.deletionTimestamp") != NULL;
    if (n->deleting) {
        n->foreground = has_finalizer(obj, FOREGROUND);
        n->orphan = has_finalizer(obj, ORPHAN);
    }
    const struct th_json *refs = th_json_path(obj, "metadata.ownerReferences");
    n->owners = th_xcalloc(th_json_len(refs) + 1, sizeof(*n->owners));
    for (size_t i = 0; i < th_json_len(refs); i++) {
        const struct th_json *ref = th_json_at(refs, i);
        n->owners[n->n_owners++] = (struct owner){
            th_xstrdup(th_json_path_str(ref, "uid")),
            th_xstrdup(th_json_path_str(ref, "apiVersion")),
            th_xstrdup(th_json_path_str(ref, "kind")), th_xstrdup(th_json_path_str(ref, "name")),
            th_json_path_bool(ref, "blockOwnerDeletion", false)};
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

/* The graph's own copy of the resource. */
static const struct th_rl_item *kind_of(struct graph *g, const struct th_rl_item *r)
{
    th_autofree char *key = th_xasprintf("%s/%s|%s", r->group, r->version, r->plural);
    struct th_rl_item *own = th_hmap_get(&g->kinds, key);
    if (!own) {
        own = TH_NEW(struct th_rl_item);
        *own = th_rl_item_dup(r);
        th_hmap_set(&g->kinds, key, own);
    }
    return own;
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

static void on_any(struct th_ctrl *c, const struct th_rl_item *r, const struct th_json *old,
                   const struct th_json *now)
{
    struct graph *g = th_ctrl_state(c);
    const struct th_json *obj = now ? now : old;
    const char *uid = th_json_path_str(obj, "metadata.uid");
    if (!uid) {
        return;
    }
    struct th_strv dependents TH_CLEANUP(th_strv_done) = TH_STRV_INIT;
    pthread_mutex_lock(&g->lock);
    struct node *n = now ? node_new(kind_of(g, r), now) : NULL;
    struct node *before = th_hmap_remove(&g->nodes, uid);
    bool busy = n && (n->foreground || n->orphan);
    bool began = busy && !(before && (before->foreground || before->orphan));
    bool owned = n && n->n_owners > 0;
    if (before) {
        unlink_node(g, before);
    }
    if (n) {
        link_node(g, n);
        th_hmap_set(&g->nodes, uid, n);
    }
    if (!n || began) {
        dependents_of(g, uid, &dependents);
    }
    pthread_mutex_unlock(&g->lock);
    if (owned) {
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

/* Where a node and an owner it names cannot belong together. */
static void say_invalid(struct th_ctrl *c, const struct node *n, const struct owner *o)
{
    const char *slash = *n->r->group ? "/" : "";
    th_autofree char *gv = th_xasprintf("%s%s%s", n->r->group, slash, n->r->version);
    struct th_json *obj TH_AUTO(th_json) =
        th_json_build("{'apiVersion':%s,'kind':%s,'metadata':{'name':%s,'uid':%s}}", gv, n->r->kind,
                      n->name, n->uid);
    if (n->ns) {
        th_json_path_set_str(obj, "metadata.namespace", n->ns);
    }
    th_event_record(th_ctrl_recorder(c), obj, "Warning", "OwnerRefInvalidNamespace",
                    "ownerRef [%s/%s, namespace: %s, name: %s, uid: %s] does not exist in "
                    "namespace \"%s\"",
                    o->api_version, o->kind, n->ns ? n->ns : "", o->name, o->uid,
                    n->ns ? n->ns : "");
}

/* What the graph knows of an owner: whether it is there and where, and whether it waits. */
struct known {
    bool there, waiting, elsewhere;
};

static struct known look_up(struct graph *g, const struct node *n, const struct owner *o)
{
    struct known k = {false, false, false};
    pthread_mutex_lock(&g->lock);
    const struct node *owner = th_hmap_get(&g->nodes, o->uid);
    if (owner) {
        k.there = true;
        k.waiting = owner->foreground;
        k.elsewhere = owner->r->namespaced && !th_streq(owner->ns, n->ns);
    }
    pthread_mutex_unlock(&g->lock);
    return k;
}

static int owner_state(struct th_ctrl *c, const struct node *n, const struct owner *o,
                       enum owner_state *ret, struct th_err *err)
{
    struct known k = look_up(th_ctrl_state(c), n, o);
    if (k.elsewhere) {
        say_invalid(c, n, o);
    } else if (k.there) {
        *ret = k.waiting ? OWNER_WAITING : OWNER_SOLID;
        return 0;
    }
    struct th_rl_item r TH_CLEANUP(th_rl_item_done) = {.group = NULL};
    *ret = OWNER_SOLID;
    if (!th_ctrl_served(c, o->api_version, o->kind, &r)) {
        return 0;
    }
    if (r.namespaced && !n->ns) {
        if (!k.elsewhere) {
            say_invalid(c, n, o);
        }
        return 0;
    }
    struct th_json *live TH_AUTO(th_json) = NULL;
    int e = th_client_get(th_ctrl_client(c), th_rl_gvr(&r), r.namespaced ? n->ns : NULL, o->name,
                          &live, err);
    if (e == -TH_R_NOT_FOUND) {
        th_err_done(err);
        *ret = OWNER_GONE;
        return 0;
    }
    TH_TRY(e);
    *ret = th_streq(th_json_path_str(live, "metadata.uid"), o->uid) ? OWNER_SOLID : OWNER_GONE;
    return 0;
}

/* Changes the object of n as fn says; it may be gone by now. */
static int modify(struct th_ctrl *c, const struct node *n, th_modify_fn *fn, void *arg,
                       struct th_err *err)
{
    int r = th_client_modify(th_ctrl_client(c), th_rl_gvr(n->r), n->ns, n->name, "", fn, arg, NULL,
                             err);
    if (r == -TH_R_NOT_FOUND) {
        th_err_done(err);
        r = 0;
    }
    return r < 0 ? r : 0;
}

struct refs_arg {
    const char *uid;
    const struct th_strv *owners;
};

static int remove_refs_fn(void *arg, struct th_json *obj, struct th_err *err)
{
    (void)err;
    const struct refs_arg *a = arg;
    struct th_json *refs = th_json_path(obj, "metadata.ownerReferences");
    if (!th_streq(th_json_path_str(obj, "metadata.uid"), a->uid)) {
        return 0;
    }
    int changed = 0;
    for (size_t i = th_json_len(refs); i-- > 0;) {
        if (th_strv_has(a->owners, th_json_path_str(th_json_at(refs, i), "uid"))) {
            th_json_del_at(refs, i);
            changed = 1;
        }
    }
    return changed;
}

static int remove_refs(struct th_ctrl *c, const struct node *n, const struct th_strv *uids,
                       struct th_err *err)
{
    struct refs_arg a = {n->uid, uids};
    return modify(c, n, remove_refs_fn, &a, err);
}

static int unblock_fn(void *arg, struct th_json *obj, struct th_err *err)
{
    (void)err;
    struct th_json *refs = th_json_path(obj, "metadata.ownerReferences");
    if (!th_streq(th_json_path_str(obj, "metadata.uid"), arg)) {
        return 0;
    }
    int changed = 0;
    for (size_t i = 0; i < th_json_len(refs); i++) {
        struct th_json *ref = th_json_at(refs, i);
        if (th_json_path_bool(ref, "blockOwnerDeletion", false)) {
            th_json_set_bool(ref, "blockOwnerDeletion", false);
            changed = 1;
        }
    }
    return changed;
}

static int delete_node(struct th_ctrl *c, const struct node *n, const char *propagation,
                       struct th_err *err)
{
    struct th_delete_opts o = TH_DELETE_OPTS_INIT;
    o.uid = n->uid;
    o.propagation = propagation;
    int r = th_client_delete(th_ctrl_client(c), th_rl_gvr(n->r), n->ns, n->name, &o, NULL, err);
    if (r == -TH_R_NOT_FOUND || r == -TH_R_CONFLICT) {
        th_err_done(err);
        r = 0;
    }
    return r;
}

/* Whether anything depends on the node, and whether one of those waits for its own dependents: then
 * two may wait for each other. */
static bool has_dependents(struct graph *g, const char *uid, bool *ret_circle)
{
    struct th_strv uids TH_CLEANUP(th_strv_done) = TH_STRV_INIT;
    pthread_mutex_lock(&g->lock);
    dependents_of(g, uid, &uids);
    *ret_circle = false;
    for (size_t i = 0; i < uids.n; i++) {
        const struct node *d = th_hmap_get(&g->nodes, uids.v[i]);
        *ret_circle = *ret_circle || (d && d->foreground);
    }
    pthread_mutex_unlock(&g->lock);
    return uids.n > 0;
}

/* All owners are gone, or at most wait for their dependents. */
static int delete_dependent(struct th_ctrl *c, const struct node *n, bool owner_waits,
                            struct th_err *err)
{
    bool circle = false;
    if (!owner_waits || !has_dependents(th_ctrl_state(c), n->uid, &circle)) {
        return delete_node(c, n, n->orphan ? "Orphan" : n->foreground ? "Foreground" : "Background",
                           err);
    }
    if (circle) {
        TH_TRY(modify(c, n, unblock_fn, n->uid, err));
    }
    return delete_node(c, n, "Foreground", err);
}

/* Whether the graph alone says that nothing is to be done: all owners are there and none waits. */
static bool is_settled(struct graph *g, const struct node *n)
{
    for (size_t i = 0; i < n->n_owners; i++) {
        struct known k = look_up(g, n, &n->owners[i]);
        if (!k.there || k.waiting || k.elsewhere) {
            return false;
        }
    }
    return true;
}

/* The object as it is now: what the graph knows of its owners may be old, and that must not cost it
 * its life. NULL when it is gone. */
static int ask_afresh(struct th_ctrl *c, const struct node *n, struct node **ret,
                      struct th_err *err)
{
    struct th_json *live TH_AUTO(th_json) = NULL;
    int r = th_client_get(th_ctrl_client(c), th_rl_gvr(n->r), n->ns, n->name, &live, err);
    *ret = NULL;
    if (r == -TH_R_NOT_FOUND) {
        th_err_done(err);
        return 0;
    }
    TH_TRY(r);
    if (th_streq(th_json_path_str(live, "metadata.uid"), n->uid)) {
        *ret = node_new(n->r, live);
    }
    return 0;
}

static int check_dependent(struct th_ctrl *c, const char *uid, struct th_err *err)
{
    struct node *known TH_CLEANUP(node_auto) = node_copy(th_ctrl_state(c), uid);
    if (!known || known->n_owners == 0 || known->deleting || is_settled(th_ctrl_state(c), known)) {
        return 0;
    }
    struct node *n TH_CLEANUP(node_auto) = NULL;
    TH_TRY(ask_afresh(c, known, &n, err));
    if (!n || n->n_owners == 0 || n->deleting) {
        return 0;
    }
    size_t solid = 0, waiting = 0;
    struct th_strv let_go TH_CLEANUP(th_strv_done) = TH_STRV_INIT;
    for (size_t i = 0; i < n->n_owners; i++) {
        enum owner_state s;
        TH_TRY(owner_state(c, n, &n->owners[i], &s, err));
        solid += s == OWNER_SOLID;
        waiting += s == OWNER_WAITING;
        if (s != OWNER_SOLID) {
            th_strv_add(&let_go, n->owners[i].uid);
        }
    }
    if (solid > 0) { /* an owner in foreground deletion need not wait for us then */
        return let_go.n ? remove_refs(c, n, &let_go, err) : 0;
    }
    return delete_dependent(c, n, waiting > 0, err);
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
    return modify(c, n, drop_finalizer_fn, (void *)(uintptr_t)name, err);
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
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_gc = {
    .name = "garbage-collector-controller",
    .account = "generic-garbage-collector",
    .watches = watches,
    .reconcile = reconcile,
    .on_any = on_any,
    .state_new = state_new,
    .state_free = state_free,
};
