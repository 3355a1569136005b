/*
 * metadata.managedFields: parsing, writing and the book-keeping of updates.
 *
 * Every write that is not an apply is an Update: what it added or changed now belongs to its
 * manager, in one entry for each (manager, version, subresource), and is taken from everybody else.
 * What it removed belongs to nobody. An entry's time changes only when its manager took something,
 * so a write that changes nothing leaves managedFields as they were.
 *
 * Objects without managedFields that exist already stay untracked until the first apply; sending
 * managedFields: [] (or [{}]) puts an object there. More than ten updaters are merged into
 * "ancient-changes", oldest first.
 *
 * Managers of other versions than the request's are compared by the same paths: built-in kinds have
 * one version here, and custom resources are converted before they get here.
 */
#include "controlplane/schema/managed_priv.h"
#include "controlplane/schema/gotext.h"
#include "base/clock.h"

#define MAX_UPDATERS 10

static void manager_done(struct th_manager *x)
{
    free(x->name);
    free(x->subresource);
    free(x->api_version);
    free(x->time);
    th_fset_free(x->set);
}

void th_managed_done(struct th_managed *m)
{
    for (size_t i = 0; i < m->n; i++) {
        manager_done(&m->v[i]);
    }
    free(m->v);
    *m = (struct th_managed)TH_MANAGED_INIT;
}

struct th_manager *th_managed_find(struct th_managed *m, const char *name, const char *subresource,
                                   const char *api_version, bool applied)
{
    for (size_t i = 0; i < m->n; i++) {
        struct th_manager *x = &m->v[i];
        if (x->applied == applied && strcmp(x->name, name) == 0 &&
            strcmp(x->subresource, subresource) == 0 &&
            (applied || strcmp(x->api_version, api_version) == 0)) {
            return x;
        }
    }
    return NULL;
}

struct th_manager *th_managed_add(struct th_managed *m, const char *name, const char *subresource,
                                  const char *api_version, bool applied, struct th_fset *set)
{
    m->v = th_xgrow(m->v, &m->cap, m->n + 1, sizeof(*m->v));
    m->v[m->n] = (struct th_manager){.name = th_xstrdup(name),
                                     .subresource = th_xstrdup(subresource),
                                     .api_version = th_xstrdup(api_version),
                                     .applied = applied,
                                     .set = set};
    return &m->v[m->n++];
}

void th_managed_remove(struct th_managed *m, struct th_manager *x)
{
    size_t i = (size_t)(x - m->v);
    manager_done(x);
    memmove(&m->v[i], &m->v[i + 1], (m->n - i - 1) * sizeof(*m->v));
    m->n--;
}

void th_managed_drop_empty(struct th_managed *m, const struct th_manager *keep)
{
    for (size_t i = m->n; i-- > 0;) {
        if (&m->v[i] != keep && th_fset_empty(m->v[i].set)) {
            th_managed_remove(m, &m->v[i]);
        }
    }
}

static int parse_entry(const struct th_json *e, size_t i, struct th_managed *m, struct th_err *err)
{
    const char *name = th_json_str(th_json_get(e, "manager"));
    const char *op = th_json_str(th_json_get(e, "operation"));
    const char *version = th_json_str(th_json_get(e, "apiVersion"));
    const char *type = th_json_str(th_json_get(e, "fieldsType"));
    const char *sub = th_json_str(th_json_get(e, "subresource"));
    const char *time = th_json_str(th_json_get(e, "time"));
    bool applied = th_streq(op, "Apply");
    if (!applied && !th_streq(op, "Update")) {
        return th_fail(err, TH_R_INTERNAL, "operation must be `Apply` or `Update`");
    }
    if (!version || !*version) {
        return th_fail(err, TH_R_INTERNAL, "apiVersion must not be empty");
    }
    if (!type || !*type) {
        return th_fail(err, TH_R_INTERNAL, "missing fieldsType in managed fields entry %zu", i);
    }
    if (strcmp(type, "FieldsV1") != 0) {
        th_autobuf struct th_buf b = TH_BUF_INIT;
        th_go_quote(&b, type);
        return th_fail(err, TH_R_INTERNAL, "invalid fieldsType %s in managed fields entry %zu",
                       th_buf_cstr(&b), i);
    }
    struct th_fset *set;
    TH_AUTO_ERR struct th_err why = TH_ERR_INIT;
    if (th_fset_parse(th_json_get(e, "fieldsV1"), &set, &why) < 0) {
        return th_fail(err, TH_R_INTERNAL, "error decoding set: %s", why.msg);
    }
    name = name ? name : "";
    sub = sub ? sub : "";
    struct th_manager *x = th_managed_find(m, name, sub, version, applied);
    if (x) {
        th_managed_remove(m, x); /* the last of several with one identity counts */
    }
    x = th_managed_add(m, name, sub, version, applied, set);
    x->time = th_xstrdup(time);
    return 0;
}

int th_managed_parse(const struct th_json *entries, struct th_managed *ret, struct th_err *err)
{
    struct th_managed m = TH_MANAGED_INIT;
    for (size_t i = 0; i < th_json_len(entries); i++) {
        int rc = parse_entry(th_json_at(entries, i), i, &m, err);
        if (rc < 0) {
            th_managed_done(&m);
            return rc;
        }
    }
    *ret = m;
    return 0;
}

static int64_t seconds(const struct th_manager *x)
{
    int64_t us;
    return x->time && th_time_parse(x->time, &us, NULL) == 0 ? us / 1000000 : 0;
}

static int stored_order(const void *pa, const void *pb)
{
    const struct th_manager *a = pa, *b = pb;
    if (a->applied != b->applied) {
        return a->applied ? -1 : 1;
    }
    int64_t ta = seconds(a), tb = seconds(b);
    if (ta != tb) {
        return ta < tb ? -1 : 1;
    }
    int c = strcmp(a->name, b->name);
    c = c ? c : strcmp(a->api_version, b->api_version);
    return c ? c : strcmp(a->subresource, b->subresource);
}

struct th_json *th_managed_to_json(struct th_managed *m)
{
    if (m->n == 0) {
        return NULL;
    }
    qsort(m->v, m->n, sizeof(*m->v), stored_order);
    struct th_json *list = th_json_array();
    for (size_t i = 0; i < m->n; i++) {
        const struct th_manager *x = &m->v[i];
        struct th_json *e = th_json_object();
        if (x->name[0]) {
            th_json_set_str(e, "manager", x->name);
        }
        th_json_set_str(e, "operation", x->applied ? "Apply" : "Update");
        th_json_set_str(e, "apiVersion", x->api_version);
        if (x->time) {
            th_json_set_str(e, "time", x->time);
        }
        th_json_set_str(e, "fieldsType", "FieldsV1");
        th_json_set(e, "fieldsV1", th_fset_to_json(x->set));
        if (x->subresource[0]) {
            th_json_set_str(e, "subresource", x->subresource);
        }
        th_json_append(list, e);
    }
    return list;
}

void th_managed_set_on(struct th_json *obj, struct th_managed *m)
{
    struct th_json *meta = th_json_get(obj, "metadata");
    struct th_json *list = th_managed_to_json(m);
    if (list) {
        th_json_set(th_json_path_object(obj, "metadata"), "managedFields", list);
    } else {
        (void)th_json_del(meta, "managedFields");
    }
}

void th_manager_set_time(struct th_manager *x, int64_t now_ms)
{
    char buf[TH_TIME_LEN];
    free(x->time);
    x->time = th_xstrdup(th_time_format(now_ms, buf));
}

char *th_manager_print(const struct th_manager *x)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_go_quote(&b, x->name);
    if (x->subresource[0]) {
        th_buf_puts(&b, " with subresource ");
        th_go_quote(&b, x->subresource);
    }
    if (!x->applied) {
        th_buf_printf(&b, " using %s", x->api_version);
    }
    return th_xstrdup(th_buf_cstr(&b));
}

/* The text that upstream keys managers with; only its order matters here. */
static char *identifier(const struct th_manager *x)
{
    TH_AUTO(th_json) struct th_json *o = th_json_object();
    th_json_set_str(o, "manager", x->name);
    th_json_set_str(o, "operation", x->applied ? "Apply" : "Update");
    if (!x->applied) {
        th_json_set_str(o, "apiVersion", x->api_version);
    }
    if (x->subresource[0]) {
        th_json_set_str(o, "subresource", x->subresource);
    }
    return th_json_to_string(o);
}

int th_manager_cmp(const struct th_manager *a, const struct th_manager *b)
{
    th_autofree char *x = identifier(a), *y = identifier(b);
    return strcmp(x, y);
}

static int oldest_first(const void *pa, const void *pb)
{
    const struct th_manager *a = pa, *b = pb;
    int64_t ta = seconds(a), tb = seconds(b);
    return ta != tb ? (ta < tb ? -1 : 1) : th_manager_cmp(a, b);
}

void th_managed_cap(struct th_managed *m, size_t max)
{
    static const char *const bucket_name = "ancient-changes";
    size_t updaters = 0;
    for (size_t i = 0; i < m->n; i++) {
        updaters += !m->v[i].applied;
    }
    if (updaters <= max) {
        return;
    }
    qsort(m->v, m->n, sizeof(*m->v), oldest_first);
    /* The oldest of a version waits until a second one comes; then both become the bucket. */
    for (size_t i = 0; i < m->n && updaters > max;) {
        struct th_manager *x = &m->v[i], *first = NULL;
        for (size_t k = 0; k < i && !x->applied; k++) {
            if (!m->v[k].applied && strcmp(m->v[k].api_version, x->api_version) == 0) {
                first = &m->v[k];
                break;
            }
        }
        if (!first) {
            i++;
            continue;
        }
        struct th_manager *bucket = th_managed_find(m, bucket_name, "", x->api_version, false);
        if (bucket && bucket != first && bucket != x) {
            first = bucket;
        }
        free(first->name);
        free(first->subresource);
        free(first->time);
        first->name = th_xstrdup(bucket_name);
        first->subresource = th_xstrdup("");
        first->time = th_xstrdup(x->time);
        th_fset_update(&first->set, x->set, th_fset_union);
        th_managed_remove(m, x);
        updaters--;
    }
}

void th_managed_strip(struct th_fset *s)
{
    static const char *const never[] = {"name", "namespace",  "creationTimestamp", "selfLink",
                                        "uid",  "clusterName", "generation",       "managedFields",
                                        "resourceVersion"};
    TH_AUTO(th_fset) struct th_fset *strip = th_fset_new();
    static const char *const tops[] = {"apiVersion", "kind", "metadata"};
    struct th_fpath top = {.step = {.kind = 'f'}};
    for (size_t i = 0; i < TH_ARRAY_LEN(tops); i++) {
        top.step.text = tops[i];
        th_fset_insert(strip, &top);
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(never); i++) {
        struct th_fpath at = {.up = &top, .step = {.kind = 'f', .text = never[i]}};
        th_fset_insert(strip, &at);
    }
    struct th_fset *left = th_fset_difference(s, strip);
    struct th_fset old = *s;
    *s = *left;
    *left = old;
    th_fset_free(left);
}

void th_managed_filter(const struct th_apply_opts *o, struct th_fset *s)
{
    for (size_t i = 0; o->reset_paths && o->reset_paths[i]; i++) {
        th_fset_exclude(s, o->reset_paths[i]);
    }
}

void th_managed_update(const struct th_apply_opts *o, const char *name, struct th_managed *m,
                       const struct th_json *live, const struct th_json *obj)
{
    struct th_tref t = th_tref_root(o->type);
    const char *sub = o->subresource ? o->subresource : "";
    for (size_t i = 0; i < m->n; i++) {
        th_typed_reconcile(t, m->v[i].set);
    }
    TH_AUTO(th_json) struct th_json *a = th_typed_fill(o->type, live);
    TH_AUTO(th_json) struct th_json *b = th_typed_fill(o->type, obj);
    struct th_comparison c;
    th_typed_compare(t, a, b, &c);
    th_managed_filter(o, c.added);
    th_managed_filter(o, c.modified);
    th_managed_filter(o, c.removed);
    TH_AUTO(th_fset) struct th_fset *took = th_fset_union(c.added, c.modified);
    for (size_t i = 0; i < m->n; i++) {
        th_fset_update(&m->v[i].set, took, th_fset_difference);
        th_fset_update(&m->v[i].set, c.removed, th_fset_difference);
    }
    th_comparison_done(&c);
    th_managed_drop_empty(m, NULL);
    th_managed_strip(took);
    if (!th_fset_empty(took)) {
        struct th_manager *x = th_managed_find(m, name, sub, o->api_version, false);
        if (x) {
            th_fset_update(&x->set, took, th_fset_union);
        } else {
            x = th_managed_add(m, name, sub, o->api_version, false, th_steal(&took));
        }
        th_manager_set_time(x, o->now_ms);
    }
}

/* managedFields: [] or [{}] asks to forget all managers. */
static bool is_reset(const struct th_json *list)
{
    if (!th_json_is(list, TH_JSON_ARRAY)) {
        return false;
    }
    size_t n = th_json_len(list);
    return n == 0 || (n == 1 && th_json_len(th_json_at(list, 0)) == 0);
}

int th_managed_fields_update(const struct th_apply_opts *o, const struct th_json *live,
                             struct th_json *obj, struct th_err *err)
{
    (void)err; /* a broken list counts as none: an update never fails for its managedFields */
    const struct th_json *sent = th_json_path(obj, "metadata.managedFields");
    const struct th_json *stored = th_json_path(live, "metadata.managedFields");
    TH_AUTO_MANAGED struct th_managed m = TH_MANAGED_INIT;
    bool of_subresource = o->subresource && *o->subresource;
    if (of_subresource || !is_reset(sent)) {
        bool usable = !of_subresource && th_managed_parse(sent, &m, NULL) == 0 && m.n > 0;
        if (!usable && th_managed_parse(stored, &m, NULL) < 0) {
            m = (struct th_managed)TH_MANAGED_INIT;
        }
    }
    if (m.n == 0 && live) {
        th_managed_set_on(obj, &m);
        return 0;
    }
    TH_AUTO(th_json) struct th_json *before = live ? th_json_dup(live) : NULL;
    (void)th_json_path_del(before, "metadata.managedFields");
    (void)th_json_path_del(obj, "metadata.managedFields");
    const char *name = o->manager && *o->manager ? o->manager : "unknown";
    th_managed_update(o, name, &m, before, obj);
    th_managed_cap(&m, MAX_UPDATERS);
    th_managed_set_on(obj, &m);
    return 0;
}
