/*
 * Server-side apply.
 *
 * A manager sends the fields it wants, and only those. The result is the live object with that
 * configuration laid over it, minus what the same manager applied before, does not mention now, and
 * nobody else owns. Fields that others own and that would change are conflicts, unless forced; then
 * they change hands. What does not change may be owned by many.
 *
 * Steps, in upstream's order: check the configuration; when the object has no managers yet, give
 * what is there to "before-first-apply"; merge; prune; compare with the live object; find
 * conflicts; write managedFields.
 *
 * kubectl's two exceptions live here as upstream keeps them in the server: for the manager
 * "kubectl", a conflict is allowed where the last-applied annotation of client-side apply has the
 * live value (moving from one way of applying to the other needs no force), and the annotation, if
 * there, follows what is applied.
 */
#include "controlplane/schema/managed_priv.h"
#include "base/limits.h"

#define LAST_APPLIED "kubectl.kubernetes.io/last-applied-configuration"

struct conflict {
    char *manager;     /* as printed */
    struct th_fset *s; /* the paths */
};

struct applying {
    const struct th_apply_opts *o;
    struct th_tref type;
    const struct th_json *live; /* without managedFields; never NULL */
    const struct th_json *config;
    struct th_managed m;
    const char *sub;
};

/* ---- Messages ---- */

static int wrap_typed(const struct applying *a, const char *what, const struct th_json *o, int rc,
                      struct th_err *err)
{
    if (rc < 0 && err) {
        const char *ns = th_json_path_str(o, "metadata.namespace");
        const char *name = th_json_path_str(o, "metadata.name");
        const char *kind = th_json_path_str(o, "kind");
        const char *gv = a->o->api_version;
        (void)th_wrap(err, "failed to create typed %s object (%s/%s; %s%s, Kind=%s)", what,
                      ns ? ns : "", name ? name : "", strchr(gv, '/') ? "" : "/", gv,
                      kind ? kind : "");
    }
    return rc;
}

struct conflict_text {
    struct th_err *err;
    struct th_buf *b;
    const char *manager;
    size_t n;
    char *first;
};

static void add_conflict(void *arg, const char *path)
{
    struct conflict_text *t = arg;
    if (t->err) {
        th_err_add_cause(t->err, "FieldManagerConflict", path, "conflict with %s", t->manager);
    }
    th_buf_printf(t->b, "\n- %s", path);
    t->n++;
    if (!t->first) {
        t->first = th_xstrdup(path);
    }
}

static int fail_conflicts(const struct conflict *v, size_t n, struct th_err *err)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    TH_AUTO_ERR struct th_err causes = TH_ERR_INIT;
    struct conflict_text t = {.err = &causes, .b = &b};
    for (size_t i = 0; i < n; i++) {
        th_buf_printf(&b, "%sconflicts with %s:", i ? "\n" : "", v[i].manager);
        t.manager = v[i].manager;
        th_fset_each(v[i].s, add_conflict, &t);
    }
    if (t.n == 1) {
        (void)th_fail(err, TH_R_CONFLICT, "Apply failed with 1 conflict: conflict with %s: %s",
                      t.manager, t.first);
    } else {
        (void)th_fail(err, TH_R_CONFLICT, "Apply failed with %zu conflicts: %s", t.n,
                      th_buf_cstr(&b));
    }
    free(t.first);
    for (size_t i = 0; err && i < causes.n_causes; i++) {
        th_err_add_cause(err, causes.causes[i].reason, causes.causes[i].field, "%s",
                         causes.causes[i].msg);
    }
    return -TH_R_CONFLICT;
}

/* ---- Conflicts ---- */

static void conflicts_done(struct conflict *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(v[i].manager);
        th_fset_free(v[i].s);
    }
    free(v);
}

static int conflict_order(const void *a, const void *b)
{
    return th_manager_cmp(*(const struct th_manager *const *)a, *(const struct th_manager *const *)b);
}

/* What others own of the paths that change, by manager, in the order of messages. */
static size_t find_conflicts(struct applying *a, const struct th_manager *self,
                             const struct th_fset *changed, struct conflict **ret)
{
    size_t n = 0, n_others = 0;
    const struct th_manager **others = th_xcalloc(a->m.n + 1, sizeof(*others));
    struct conflict *v = th_xcalloc(a->m.n + 1, sizeof(*v));
    for (size_t i = 0; i < a->m.n; i++) {
        if (&a->m.v[i] != self) {
            others[n_others++] = &a->m.v[i];
        }
    }
    qsort(others, n_others, sizeof(*others), conflict_order);
    for (size_t i = 0; i < n_others; i++) {
        struct th_fset *s = th_fset_intersection(others[i]->set, changed);
        if (th_fset_empty(s)) {
            th_fset_free(s);
        } else {
            v[n++] = (struct conflict){.manager = th_manager_print(others[i]), .s = s};
        }
    }
    free(others);
    *ret = v;
    return n;
}

/* The fields that client-side apply set last and that still have its values; NULL when that cannot
 * be known. */
static struct th_fset *allowed_by_last_applied(const struct applying *a)
{
    const struct th_json *annotations = th_json_path(a->live, "metadata.annotations");
    const char *text = th_json_str(th_json_get(annotations, LAST_APPLIED));
    TH_AUTO(th_json) struct th_json *last = NULL;
    if (!text || !*text || th_json_parse_cstr(text, &last, NULL) < 0 ||
        !th_streq(th_json_path_str(last, "apiVersion"), a->o->api_version) ||
        th_typed_validate(a->type, last, false, NULL) < 0) {
        return NULL;
    }
    struct th_fset *s = th_typed_fields(a->type, last);
    struct th_comparison c;
    th_typed_compare(a->type, last, a->live, &c);
    th_fset_update(&s, c.modified, th_fset_difference);
    th_fset_update(&s, c.added, th_fset_difference);
    th_fset_update(&s, c.removed, th_fset_difference);
    th_comparison_done(&c);
    return s;
}

/* 0: go on (by force); negative: the conflicts that stay. */
static int settle_conflicts(struct applying *a, struct conflict *v, size_t n, struct th_err *err)
{
    if (a->o->force || n == 0) {
        return 0;
    }
    TH_AUTO(th_fset) struct th_fset *allowed =
        strcmp(a->o->manager, "kubectl") == 0 ? allowed_by_last_applied(a) : NULL;
    size_t left = 0;
    for (size_t i = 0; allowed && i < n; i++) {
        th_fset_update(&v[i].s, allowed, th_fset_difference);
    }
    for (size_t i = 0; i < n; i++) {
        if (!th_fset_empty(v[i].s)) {
            struct conflict keep = v[i];
            v[i] = v[left];
            v[left++] = keep;
        }
    }
    return left ? fail_conflicts(v, left, err) : 0;
}

/* ---- Pruning ---- */

static struct th_fset *named_fields(const struct applying *a, const struct th_json *o)
{
    TH_AUTO(th_fset) struct th_fset *s = th_typed_fields(a->type, o);
    return th_typed_ensure_named(a->type, s);
}

/* Takes out of `merged` what the manager applied before and nobody owns now. */
static struct th_json *prune(struct applying *a, const struct th_json *merged,
                             const struct th_fset *last)
{
    TH_AUTO(th_fset) struct th_fset *last_named = th_typed_ensure_named(a->type, last);
    TH_AUTO(th_fset) struct th_fset *merged_set = named_fields(a, merged);
    TH_AUTO(th_json) struct th_json *bare = th_typed_remove(a->type, merged, last_named);
    /* Back comes what any manager owns, the new configuration's fields among them. */
    TH_AUTO(th_fset) struct th_fset *owned = th_fset_new();
    for (size_t i = 0; i < a->m.n; i++) {
        th_fset_update(&owned, a->m.v[i].set, th_fset_union);
    }
    TH_AUTO(th_fset) struct th_fset *keep = named_fields(a, bare);
    TH_AUTO(th_fset) struct th_fset *owned_named = th_typed_ensure_named(a->type, owned);
    th_fset_update(&keep, owned_named, th_fset_union);
    TH_AUTO(th_fset) struct th_fset *gone = th_fset_difference(merged_set, keep);
    TH_AUTO(th_json) struct th_json *with_owned = th_typed_remove(a->type, merged, gone);
    /* And what was removed only because it stood inside, and was not applied before. */
    TH_AUTO(th_fset) struct th_fset *kept = named_fields(a, with_owned);
    TH_AUTO(th_fset) struct th_fset *really = th_fset_difference(merged_set, kept);
    th_fset_update(&really, last_named, th_fset_intersection);
    return th_typed_remove(a->type, merged, really);
}

/* ---- Applying ---- */

static int check_config(const struct applying *a, struct th_err *err)
{
    const char *version = th_json_path_str(a->config, "apiVersion");
    if (!th_json_is(a->config, TH_JSON_OBJECT)) {
        return th_fail(err, TH_R_BAD_REQUEST, "error decoding YAML: the configuration is not a map");
    }
    if (!a->o->manager || !*a->o->manager) {
        return th_fail(err, TH_R_BAD_REQUEST,
                       "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is "
                       "required for apply patch");
    }
    if (!th_streq(version, a->o->api_version)) {
        return th_fail(err, TH_R_BAD_REQUEST,
                       "Incorrect version specified in apply patch. Specified patch version: %s, "
                       "expected: %s",
                       version ? version : "", a->o->api_version);
    }
    if (th_json_is(th_json_path(a->config, "metadata.managedFields"), TH_JSON_ARRAY)) {
        return th_fail(err, TH_R_BAD_REQUEST, "metadata.managedFields must be nil");
    }
    return wrap_typed(a, "patch", a->config, th_typed_validate(a->type, a->config, false, err), err);
}

static struct th_json *sorted_copy(const struct th_json *o);

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* A copy with members in order of name, as Go encodes maps. */
static struct th_json *sorted_copy(const struct th_json *o)
{
    if (th_json_is(o, TH_JSON_ARRAY)) {
        struct th_json *out = th_json_array();
        for (size_t i = 0; i < th_json_len(o); i++) {
            th_json_append(out, sorted_copy(th_json_at(o, i)));
        }
        return out;
    }
    if (!th_json_is(o, TH_JSON_OBJECT)) {
        return th_json_dup(o);
    }
    th_autostrv struct th_strv names = TH_STRV_INIT;
    struct th_json_iter it = TH_JSON_ITER(o);
    while (th_json_next(&it)) {
        th_strv_add(&names, it.name);
    }
    if (names.n) {
        qsort(names.v, names.n, sizeof(*names.v), by_name);
    }
    struct th_json *out = th_json_object();
    for (size_t i = 0; i < names.n; i++) {
        th_json_set(out, names.v[i], sorted_copy(th_json_get(o, names.v[i])));
    }
    return out;
}

/* kubectl: the annotation of client-side apply, where there is one, says what was applied now. */
static void follow_last_applied(const struct applying *a, struct th_json *obj)
{
    struct th_json *annotations = th_json_path(obj, "metadata.annotations");
    const char *have = th_json_str(th_json_get(annotations, LAST_APPLIED));
    if (strcmp(a->o->manager, "kubectl") != 0 || !have || !*have) {
        return;
    }
    TH_AUTO(th_json) struct th_json *config = sorted_copy(a->config);
    struct th_json *own = th_json_path(config, "metadata.annotations");
    (void)th_json_del(own, LAST_APPLIED);
    th_autofree char *text = th_json_to_string(config);
    th_autofree char *line = th_xasprintf("%s\n", text);
    size_t total = strlen(LAST_APPLIED) + strlen(line);
    struct th_json_iter it = TH_JSON_ITER(annotations);
    while (th_json_next(&it)) {
        if (strcmp(it.name, LAST_APPLIED) != 0) {
            total += strlen(it.name) + th_json_str_len(it.value);
        }
    }
    if (total > TH_LIMIT_ANNOTATIONS_B) {
        (void)th_json_del(annotations, LAST_APPLIED);
    } else {
        th_json_set_str(annotations, LAST_APPLIED, line);
    }
}

static int apply(struct applying *a, struct th_json **ret, struct th_err *err)
{
    const struct th_apply_opts *o = a->o;
    for (size_t i = 0; i < a->m.n; i++) {
        th_typed_reconcile(a->type, a->m.v[i].set);
    }
    /* Twice: what is stored, and what upstream compares, which has all that Go would write. */
    TH_AUTO(th_json) struct th_json *live_full = th_typed_fill(o->type, a->live);
    TH_AUTO(th_json) struct th_json *obj = th_typed_merge(a->type, a->live, a->config);
    TH_AUTO(th_json) struct th_json *obj_full = th_typed_merge(a->type, live_full, a->config);
    TH_AUTO(th_fset) struct th_fset *last = NULL;
    struct th_fset *set = th_typed_fields(a->type, a->config);
    th_managed_filter(o, set);
    struct th_manager *self = th_managed_find(&a->m, o->manager, a->sub, o->api_version, true);
    if (self) {
        last = self->set;
        self->set = set;
        free(self->api_version);
        self->api_version = th_xstrdup(o->api_version);
    } else {
        self = th_managed_add(&a->m, o->manager, a->sub, o->api_version, true, set);
    }
    if (!th_fset_empty(last)) {
        struct th_json *pruned = prune(a, obj, last), *pruned_full = prune(a, obj_full, last);
        th_json_unref(obj);
        th_json_unref(obj_full);
        obj = pruned;
        obj_full = pruned_full;
    }
    struct th_comparison c;
    th_typed_compare(a->type, live_full, obj_full, &c);
    th_managed_filter(o, c.added);
    th_managed_filter(o, c.modified);
    th_managed_filter(o, c.removed);
    th_fset_update(&c.modified, c.added, th_fset_union);
    struct conflict *v;
    size_t n = find_conflicts(a, self, c.modified, &v);
    int rc = settle_conflicts(a, v, n, err);
    conflicts_done(v, n);
    for (size_t i = 0; rc == 0 && i < a->m.n; i++) {
        if (&a->m.v[i] != self) {
            th_fset_update(&a->m.v[i].set, c.modified, th_fset_difference);
            th_fset_update(&a->m.v[i].set, c.removed, th_fset_difference);
        }
    }
    th_comparison_done(&c);
    TH_TRY(rc);
    /* Upstream sets the time when its full objects differ, and later takes it back when the stored
     * ones turn out the same; the two steps are one here. */
    if (!th_json_equal(live_full, obj_full) && (!self->time || !th_json_equal(a->live, obj))) {
        th_manager_set_time(self, o->now_ms);
    }
    th_managed_strip(self->set);
    th_managed_drop_empty(&a->m, NULL);
    if (!obj) {
        obj = th_json_object();
    }
    follow_last_applied(a, obj);
    th_managed_set_on(obj, &a->m);
    *ret = th_steal(&obj);
    return 0;
}

int th_apply(const struct th_apply_opts *o, const struct th_json *live,
             const struct th_json *applied, struct th_json **ret, struct th_err *err)
{
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    err = err ? err : &local;
    TH_AUTO(th_json) struct th_json *before = live ? th_json_dup(live) : th_json_object();
    (void)th_json_path_del(before, "metadata.managedFields");
    struct applying a = {.o = o,
                         .type = th_tref_root(o->type),
                         .live = before,
                         .config = applied,
                         .sub = o->subresource ? o->subresource : ""};
    TH_TRY(check_config(&a, err));
    if (th_managed_parse(th_json_path(live, "metadata.managedFields"), &a.m, err) < 0) {
        return th_wrap(err, "failed to decode managed fields");
    }
    if (a.m.n == 0 && live) {
        th_managed_update(o, "before-first-apply", &a.m, NULL, before);
    }
    int rc = apply(&a, ret, err);
    th_managed_done(&a.m);
    return rc;
}

int th_apply_check(const struct th_apply_opts *o, const struct th_json *applied, struct th_err *err)
{
    struct applying a = {.o = o, .type = th_tref_root(o->type), .config = applied};
    return check_config(&a, err);
}
