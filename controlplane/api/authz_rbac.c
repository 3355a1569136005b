/* The RBAC index: from a subject to its bindings, from a binding to its role, from a role to rules.
 *
 * Problem: every request of everybody asks, and roles change rarely. Design: roles and bindings are
 * parsed once, when they are written, into rules and subjects; bindings hang on lists by subject and
 * namespace in one hash map ("U<user>", "G<group>", prefixed by the namespace of a RoleBinding). A
 * decision looks up the user and each of its groups, cluster-wide and in the request's namespace,
 * and walks the rules found: a few hash look-ups, nothing allocated. ServiceAccount subjects are put
 * under the user name that they have.
 *
 * A watch of the store keeps it current. Its wake only sets a flag; the next decision that sees the
 * flag takes the lock for writing and applies what waits. The store publishes before the writer's
 * call returns, so whoever was told that a binding exists is judged by it at once; upstream's
 * informers take a moment.
 *
 * A role is found by name at the time of the decision: bindings may come before their roles. When it
 * is not there, that is the reason a denial shows, with upstream's words.
 *
 * Locks: `feed` is held by the one thread that drains the watch, and taken first; `lock` guards roles
 * and subjects (readers: decisions; writer: refresh).
 */
#include "base/log.h"
#include "controlplane/api/rbac.h"

#define PREFIX "rbac.authorization.k8s.io/"
#define KEY_STACK_B 512

struct binding {
    char *key;                 /* in the store */
    char *ns;                  /* "" for a ClusterRoleBinding */
    char *name;
    char *role_kind, *role_name;
    char *role_key;            /* in th_rbac.roles */
    struct th_strv subjects;   /* keys in th_rbac.subjects */
    struct th_strv shown;      /* each subject as a reason shows it */
};
struct grant { /* one subject of one binding */
    struct binding *binding; /* borrowed */
    size_t subject;
};
struct grants {
    struct grant *v;
    size_t n, cap;
};
struct th_rbac {
    struct th_store *store;
    struct th_watch *watch;
    int dirty; /* atomic */
    pthread_mutex_t feed;
    pthread_rwlock_t lock;
    struct th_hmap roles;    /* "<namespace>/<name>", "/<name>" for ClusterRoles -> struct th_rules */
    struct th_hmap bindings; /* store key -> struct binding */
    struct th_hmap subjects; /* "<namespace>\x1f" "U<user>" or "G<group>" -> struct grants */
};

/* ---- what is kept ---- */

static void rules_free(void *p)
{
    th_rules_done(p);
    free(p);
}

static void binding_free(void *p)
{
    struct binding *b = p;
    free(b->key);
    free(b->ns);
    free(b->name);
    free(b->role_kind);
    free(b->role_name);
    free(b->role_key);
    th_strv_done(&b->subjects);
    th_strv_done(&b->shown);
    free(b);
}

static void grants_free(void *p)
{
    struct grants *g = p;
    free(g->v);
    free(g);
}

static void unhang(struct th_rbac *r, struct binding *b)
{
    for (size_t i = 0; i < b->subjects.n; i++) {
        struct grants *g = th_hmap_get(&r->subjects, b->subjects.v[i]);
        size_t kept = 0;
        for (size_t k = 0; g && k < g->n; k++) {
            if (g->v[k].binding != b) {
                g->v[kept++] = g->v[k];
            }
        }
        if (g && kept == 0) {
            grants_free(th_hmap_remove(&r->subjects, b->subjects.v[i]));
        } else if (g) {
            g->n = kept;
        }
    }
}

static void hang(struct th_rbac *r, struct binding *b)
{
    for (size_t i = 0; i < b->subjects.n; i++) {
        struct grants *g = th_hmap_get(&r->subjects, b->subjects.v[i]);
        if (!g) {
            g = TH_NEW(struct grants);
            th_hmap_set(&r->subjects, b->subjects.v[i], g);
        }
        g->v = th_xgrow(g->v, &g->cap, g->n + 1, sizeof(*g->v));
        g->v[g->n++] = (struct grant){b, i};
    }
}

static void add_subject(struct binding *b, const struct th_json *s)
{
    const char *kind = th_json_str(th_json_get(s, "kind"));
    const char *name = th_json_str(th_json_get(s, "name"));
    const char *ns = th_json_str(th_json_get(s, "namespace"));
    if (!name) {
        return;
    }
    if (th_streq(kind, "User") || th_streq(kind, "Group")) {
        th_strv_addf(&b->subjects, "%s\x1f%c%s", b->ns, kind[0], name);
        th_strv_addf(&b->shown, "%s \"%s\"", kind, name);
        return;
    }
    ns = ns && *ns ? ns : b->ns;
    if (th_streq(kind, "ServiceAccount") && *ns) {
        th_strv_addf(&b->subjects, "%s\x1fUsystem:serviceaccount:%s:%s", b->ns, ns, name);
        th_strv_addf(&b->shown, "ServiceAccount \"%s/%s\"", name, ns);
    }
}

static const char *or_empty(const char *s)
{
    return s ? s : "";
}

static struct binding *binding_new(const char *key, const struct th_json *o)
{
    struct binding *b = TH_NEW(struct binding);
    b->key = th_xstrdup(key);
    b->ns = th_xstrdup(or_empty(th_json_path_str(o, "metadata.namespace")));
    b->name = th_xstrdup(or_empty(th_json_path_str(o, "metadata.name")));
    b->role_kind = th_xstrdup(or_empty(th_json_path_str(o, "roleRef.kind")));
    b->role_name = th_xstrdup(or_empty(th_json_path_str(o, "roleRef.name")));
    b->role_key = th_xasprintf("%s/%s", th_streq(b->role_kind, "Role") ? b->ns : "", b->role_name);
    const struct th_json *subjects = th_json_get(o, "subjects");
    for (size_t i = 0; i < th_json_len(subjects); i++) {
        add_subject(b, th_json_at(subjects, i));
    }
    return b;
}

/* ---- keeping it current ---- */

/* "<group>/<plural>/<namespace or ->/<name>" -> the key in roles. */
static char *role_key_of(const char *store_key, const char *plural)
{
    const char *rest = store_key + strlen(PREFIX) + strlen(plural) + 1;
    return *rest == '-' && rest[1] == '/' ? th_xstrdup(rest + 1) : th_xstrdup(rest);
}

static void apply(struct th_rbac *r, const struct th_obj *o, bool gone)
{
    const char *what = o->key + strlen(PREFIX);
    bool role = th_startswith(what, "roles/");
    TH_AUTO(th_json) struct th_json *tree = NULL;
    if (!gone && th_json_parse(o->bytes, o->n, NULL, &tree, NULL) < 0) {
        th_warn("api", "an RBAC object is not readable", "key=%s", o->key);
        return;
    }
    if (role || th_startswith(what, "clusterroles/")) {
        th_autofree char *key = role_key_of(o->key, role ? "roles" : "clusterroles");
        struct th_rules *rules = th_hmap_remove(&r->roles, key);
        if (rules) {
            rules_free(rules);
        }
        if (!gone) {
            rules = TH_NEW(struct th_rules);
            th_rules_add_json(rules, th_json_get(tree, "rules"));
            th_hmap_set(&r->roles, key, rules);
        }
        return;
    }
    struct binding *b = th_hmap_remove(&r->bindings, o->key);
    if (b) {
        unhang(r, b);
        binding_free(b);
    }
    if (!gone) {
        b = binding_new(o->key, tree);
        th_hmap_set(&r->bindings, o->key, b);
        hang(r, b);
    }
}

static void wake(void *arg)
{
    struct th_rbac *r = arg;
    __atomic_store_n(&r->dirty, 1, __ATOMIC_RELEASE);
}

/* Everything anew, and a watch from there. Under both locks. */
static void load(struct th_rbac *r)
{
    th_hmap_clear(&r->subjects);
    th_hmap_clear(&r->bindings);
    th_hmap_clear(&r->roles);
    th_watch_close(r->watch);
    r->watch = NULL;
    TH_CLEANUP(th_store_list_done) struct th_store_list l = {.n = 0};
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (th_store_range(r->store, PREFIX, NULL, 0, 0, &l, &err) < 0 ||
        th_watch_open(r->store, PREFIX, l.rv, wake, r, &r->watch, &err) < 0) {
        th_error("api", "RBAC objects cannot be read", "error=%s", th_log_q(err.msg));
        wake(r); /* the next request tries again; until then only masters are let in */
        return;
    }
    for (size_t i = 0; i < l.n; i++) {
        apply(r, l.objs[i], false);
    }
}

static void refresh(struct th_rbac *r)
{
    if (!__atomic_load_n(&r->dirty, __ATOMIC_ACQUIRE)) {
        return;
    }
    (void)pthread_mutex_lock(&r->feed);
    (void)pthread_rwlock_wrlock(&r->lock);
    /* under the lock: whoever finds the flag down reads only after what it stood for is applied */
    if (__atomic_exchange_n(&r->dirty, 0, __ATOMIC_ACQ_REL)) {
        bool cut = r->watch == NULL;
        struct th_event *ev;
        while (!cut && (ev = th_watch_next(r->watch, &cut))) {
            apply(r, ev->obj, ev->type == TH_EV_DELETED);
            th_event_unref(ev);
        }
        if (cut) {
            load(r);
        }
    }
    (void)pthread_rwlock_unlock(&r->lock);
    (void)pthread_mutex_unlock(&r->feed);
}

struct th_rbac *th_rbac_new(struct th_store *store)
{
    struct th_rbac *r = TH_NEW(struct th_rbac);
    r->store = store;
    r->dirty = 1;
    (void)pthread_mutex_init(&r->feed, NULL);
    (void)pthread_rwlock_init(&r->lock, NULL);
    th_hmap_init(&r->roles, rules_free);
    th_hmap_init(&r->bindings, binding_free);
    th_hmap_init(&r->subjects, grants_free);
    return r;
}

void th_rbac_free(struct th_rbac *r)
{
    if (!r) {
        return;
    }
    th_watch_close(r->watch);
    th_hmap_done(&r->subjects);
    th_hmap_done(&r->bindings);
    th_hmap_done(&r->roles);
    (void)pthread_rwlock_destroy(&r->lock);
    (void)pthread_mutex_destroy(&r->feed);
    free(r);
}

/* ---- asking ---- */

/* What one walk over the bindings of an identity does with each; false ends it. */
typedef bool visit_fn(void *arg, const struct grant *g, const struct th_rules *rules);

/* A binding may name a subject twice, or a user and its group: rules() must see it once. */
struct walk {
    struct th_rbac *r;
    visit_fn *fn;
    void *arg;
};

static bool walk_key(const struct walk *w, const char *ns, char kind, const char *name)
{
    size_t ns_n = strlen(ns);
    size_t n = strlen(name);
    char stack[KEY_STACK_B];
    char *key = ns_n + n + 3 > sizeof(stack) ? th_xmalloc(ns_n + n + 3) : stack;
    memcpy(key, ns, ns_n);
    key[ns_n] = '\x1f';
    key[ns_n + 1] = kind;
    memcpy(key + ns_n + 2, name, n + 1);
    const struct grants *g = th_hmap_get_n(&w->r->subjects, key, ns_n + n + 2);
    if (key != stack) {
        free(key);
    }
    for (size_t i = 0; g && i < g->n; i++) {
        const struct th_rules *rules = th_hmap_get(&w->r->roles, g->v[i].binding->role_key);
        if (!w->fn(w->arg, &g->v[i], rules)) {
            return false;
        }
    }
    return true;
}

static void walk(const struct walk *w, const struct th_identity *id, const char *ns)
{
    const char *scopes[] = {"", ns};
    for (size_t s = 0; s < (ns && *ns ? 2u : 1u); s++) {
        if (!walk_key(w, scopes[s], 'U', id->user)) {
            return;
        }
        for (size_t i = 0; i < id->groups.n; i++) {
            if (!walk_key(w, scopes[s], 'G', id->groups.v[i])) {
                return;
            }
        }
    }
}

/* Upstream's listers name the kind in the singular here. */
static void missing_role(const struct binding *b, struct th_strv *problems)
{
    th_autofree char *what = th_xasprintf("%s.rbac.authorization.k8s.io \"%s\" not found",
                                          th_streq(b->role_kind, "Role") ? "role" : "clusterrole",
                                          b->role_name);
    if (!th_strv_has(problems, what)) {
        th_strv_add(problems, what);
    }
}

/* utilerrors.Aggregate: one as it is, several in brackets. */
static void put_problems(const struct th_strv *problems, const char *prefix, struct th_buf *to)
{
    if (!to || problems->n == 0) {
        return;
    }
    th_autofree char *text = th_strv_join(problems, ", ");
    th_buf_printf(to, problems->n > 1 ? "%s[%s]" : "%s%s", prefix, text);
}

struct decision {
    const struct th_attrs *at;
    bool allowed;
    struct th_buf *reason;
    struct th_strv problems;
};

static bool decide(void *arg, const struct grant *g, const struct th_rules *rules)
{
    struct decision *d = arg;
    const struct binding *b = g->binding;
    if (!rules) {
        if (d->reason) {
            missing_role(b, &d->problems);
        }
        return true;
    }
    if (!th_rules_allow(rules, d->at)) {
        return true;
    }
    d->allowed = true;
    if (d->reason) {
        th_buf_printf(d->reason, "RBAC: allowed by %s \"%s%s%s\" of %s \"%s\" to %s",
                      *b->ns ? "RoleBinding" : "ClusterRoleBinding", b->name, *b->ns ? "/" : "",
                      b->ns, b->role_kind, b->role_name, b->shown.v[g->subject]);
    }
    return false;
}

bool th_rbac_allowed(struct th_rbac *r, const struct th_attrs *at, struct th_buf *reason)
{
    struct decision d = {.at = at, .reason = reason, .problems = TH_STRV_INIT};
    refresh(r);
    (void)pthread_rwlock_rdlock(&r->lock);
    walk(&(struct walk){r, decide, &d}, at->id, at->ns);
    (void)pthread_rwlock_unlock(&r->lock);
    if (!d.allowed) {
        put_problems(&d.problems, "RBAC: ", reason);
    }
    th_strv_done(&d.problems);
    return d.allowed;
}

struct gathering {
    struct th_rules *to;
    struct th_strv problems;
    const struct binding **seen;
    size_t n, cap;
};

static bool gather(void *arg, const struct grant *g, const struct th_rules *rules)
{
    struct gathering *x = arg;
    for (size_t i = 0; i < x->n; i++) {
        if (x->seen[i] == g->binding) {
            return true;
        }
    }
    x->seen = th_xgrow(x->seen, &x->cap, x->n + 1, sizeof(struct binding *));
    x->seen[x->n++] = g->binding;
    if (!rules) {
        missing_role(g->binding, &x->problems);
    }
    for (size_t i = 0; rules && i < rules->n; i++) {
        th_rules_add(x->to, &rules->v[i]);
    }
    return true;
}

void th_rbac_rules_for(struct th_rbac *r, const struct th_identity *id, const char *ns,
                       struct th_rules *ret, struct th_buf *problem)
{
    struct gathering x = {.to = ret, .problems = TH_STRV_INIT};
    refresh(r);
    (void)pthread_rwlock_rdlock(&r->lock);
    walk(&(struct walk){r, gather, &x}, id, ns);
    (void)pthread_rwlock_unlock(&r->lock);
    put_problems(&x.problems, "", problem);
    th_strv_done(&x.problems);
    free(x.seen);
}

int th_rbac_role_rules(struct th_rbac *r, const char *kind, const char *name, const char *ns,
                       struct th_rules *ret, struct th_err *err)
{
    bool role = th_streq(kind, "Role");
    th_autofree char *key = th_xasprintf("%s/%s", role && ns ? ns : "", name);
    refresh(r);
    (void)pthread_rwlock_rdlock(&r->lock);
    const struct th_rules *rules = th_hmap_get(&r->roles, key);
    for (size_t i = 0; rules && i < rules->n; i++) {
        th_rules_add(ret, &rules->v[i]);
    }
    (void)pthread_rwlock_unlock(&r->lock);
    if (!rules) {
        return th_fail_obj(err, TH_R_NOT_FOUND, "rbac.authorization.k8s.io",
                           role ? "role" : "clusterrole", name,
                           "%s.rbac.authorization.k8s.io \"%s\" not found",
                           role ? "role" : "clusterrole", name);
    }
    return 0;
}
