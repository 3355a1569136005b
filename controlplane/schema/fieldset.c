/*
 * Sets of field paths, kept as a tree: a node is one step, `member` says that the path ending there
 * is in the set, `sub` holds longer ones. A parent's membership and its children's are independent:
 * owning "labels" (somebody made the map) differs from owning "labels.app".
 *
 * Nodes are sorted as upstream sorts them (members by name, then list-map keys by value, set
 * values, indexes), so that the set operations are merges of sorted lists, and fieldsV1 comes out
 * in upstream's order. Two steps are the same when their canonical texts are.
 *
 * Invariant: no node is neither a member nor has a non-empty sub, except while a set is being built.
 * Depth is bounded by the JSON parser's limit, through the object or the fieldsV1 it comes from.
 */
#include "controlplane/schema/fieldset.h"
#include "controlplane/schema/gotext.h"

struct th_fset *th_fset_new(void)
{
    return TH_NEW(struct th_fset);
}

static void node_done(struct th_fnode *n)
{
    free(n->text);
    th_json_unref(n->val);
    th_fset_free(n->sub);
}

void th_fset_free(struct th_fset *s)
{
    if (!s) {
        return;
    }
    for (size_t i = 0; i < s->n; i++) {
        node_done(&s->v[i]);
    }
    free(s->v);
    free(s);
}

bool th_fset_empty(const struct th_fset *s)
{
    for (size_t i = 0; s && i < s->n; i++) {
        if (s->v[i].member || !th_fset_empty(s->v[i].sub)) {
            return false;
        }
    }
    return true;
}

/* ---- Order ---- */

static int cmp_values(const struct th_json *a, const struct th_json *b)
{
    enum th_json_type ta = th_json_type(a), tb = th_json_type(b);
    bool na = ta == TH_JSON_INT || ta == TH_JSON_DOUBLE, nb = tb == TH_JSON_INT || tb == TH_JSON_DOUBLE;
    if (ta == TH_JSON_INT && tb == TH_JSON_INT) {
        int64_t x = th_json_as_int(a, 0), y = th_json_as_int(b, 0);
        return (x > y) - (x < y);
    }
    if (na && nb) {
        double x = th_json_as_double(a, 0), y = th_json_as_double(b, 0);
        return (x > y) - (x < y);
    }
    if (ta == TH_JSON_STRING && tb == TH_JSON_STRING) {
        return strcmp(th_json_str(a), th_json_str(b));
    }
    if (ta == TH_JSON_BOOL && tb == TH_JSON_BOOL) {
        return th_json_as_bool(a, false) - th_json_as_bool(b, false);
    }
    /* Numbers, then strings, booleans, lists, maps, null. */
    static const int rank[] = {[TH_JSON_INT] = 0,   [TH_JSON_DOUBLE] = 0, [TH_JSON_STRING] = 1,
                               [TH_JSON_BOOL] = 2,  [TH_JSON_ARRAY] = 3,  [TH_JSON_OBJECT] = 4,
                               [TH_JSON_NULL] = 5};
    return rank[ta] - rank[tb];
}

static int cmp_keys(const struct th_json *a, const struct th_json *b)
{
    struct th_json_iter x = TH_JSON_ITER(a), y = TH_JSON_ITER(b);
    for (;;) {
        bool more_x = th_json_next(&x), more_y = th_json_next(&y);
        if (!more_x || !more_y) {
            return more_x - more_y;
        }
        int c = strcmp(x.name, y.name);
        c = c ? c : cmp_values(x.value, y.value);
        if (c) {
            return c;
        }
    }
}

static int rank_of(char kind)
{
    return kind == 'f' ? 0 : kind == 'k' ? 1 : kind == 'v' ? 2 : 3;
}

static int cmp_steps(struct th_fstep a, struct th_fstep b)
{
    if (a.kind != b.kind) {
        return rank_of(a.kind) - rank_of(b.kind);
    }
    int text = strcmp(a.text, b.text);
    if (text == 0 || a.kind == 'f') {
        return text;
    }
    int c = a.kind == 'k' ? cmp_keys(a.val, b.val) : a.kind == 'v' ? cmp_values(a.val, b.val) : 0;
    if (a.kind == 'i') {
        size_t na = strlen(a.text), nb = strlen(b.text);
        c = (na > nb) - (na < nb);
    }
    return c ? c : text;
}

static struct th_fstep step_of(const struct th_fnode *n)
{
    return (struct th_fstep){.kind = n->kind, .text = n->text, .val = n->val};
}

/* The position of a step, or where it belongs. */
static bool locate(const struct th_fset *s, struct th_fstep step, size_t *ret)
{
    size_t lo = 0, hi = s->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = cmp_steps(step_of(&s->v[mid]), step);
        if (c == 0) {
            *ret = mid;
            return true;
        }
        if (c < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    *ret = lo;
    return false;
}

const struct th_fnode *th_fset_find(const struct th_fset *s, struct th_fstep step)
{
    size_t i;
    return s && locate(s, step, &i) ? &s->v[i] : NULL;
}

struct th_fnode *th_fset_node(struct th_fset *s, struct th_fstep step)
{
    size_t i;
    if (!locate(s, step, &i)) {
        s->v = th_xgrow(s->v, &s->cap, s->n + 1, sizeof(*s->v));
        memmove(&s->v[i + 1], &s->v[i], (s->n - i) * sizeof(*s->v));
        s->n++;
        s->v[i] = (struct th_fnode){.kind = step.kind,
                                    .text = th_xstrdup(step.text),
                                    .val = step.val ? th_json_dup(step.val) : NULL};
    }
    return &s->v[i];
}

static struct th_fset *descend(struct th_fset *s, const struct th_fpath *path)
{
    if (!path) {
        return s;
    }
    struct th_fnode *n = th_fset_node(descend(s, path->up), path->step);
    n->sub = n->sub ? n->sub : th_fset_new();
    return n->sub;
}

void th_fset_insert(struct th_fset *s, const struct th_fpath *path)
{
    if (path) {
        th_fset_node(descend(s, path->up), path->step)->member = true;
    }
}

/* ---- Operations ---- */

/* Appends a copy of n with other contents; takes sub, and drops what is empty. */
static void push(struct th_fset *s, const struct th_fnode *n, bool member, struct th_fset *sub)
{
    if (th_fset_empty(sub)) {
        th_fset_free(sub);
        sub = NULL;
    }
    if (!member && !sub) {
        return;
    }
    s->v = th_xgrow(s->v, &s->cap, s->n + 1, sizeof(*s->v));
    s->v[s->n++] = (struct th_fnode){.kind = n->kind,
                                     .text = th_xstrdup(n->text),
                                     .val = th_json_ref(n->val),
                                     .member = member,
                                     .sub = sub};
}

struct th_fset *th_fset_dup(const struct th_fset *s)
{
    return th_fset_union(s, NULL);
}

enum set_op { OP_UNION, OP_INTERSECTION, OP_DIFFERENCE };

static struct th_fset *combine(const struct th_fset *a, const struct th_fset *b, enum set_op op)
{
    struct th_fset *out = th_fset_new();
    size_t i = 0, j = 0, na = a ? a->n : 0, nb = b ? b->n : 0;
    while (i < na || j < nb) {
        int c = i >= na ? 1 : j >= nb ? -1 : cmp_steps(step_of(&a->v[i]), step_of(&b->v[j]));
        const struct th_fnode *x = c <= 0 ? &a->v[i++] : NULL, *y = c >= 0 ? &b->v[j++] : NULL;
        const struct th_fnode *one = x ? x : y;
        bool mx = x && x->member, my = y && y->member;
        const struct th_fset *sx = x ? x->sub : NULL, *sy = y ? y->sub : NULL;
        bool member = op == OP_UNION ? mx || my : op == OP_INTERSECTION ? mx && my : mx && !my;
        bool descend_needed = op == OP_UNION          ? sx || sy
                              : op == OP_INTERSECTION ? sx && sy
                                                      : sx != NULL;
        push(out, one, member, descend_needed ? combine(sx, sy, op) : NULL);
    }
    return out;
}

struct th_fset *th_fset_union(const struct th_fset *a, const struct th_fset *b)
{
    return combine(a, b, OP_UNION);
}

struct th_fset *th_fset_intersection(const struct th_fset *a, const struct th_fset *b)
{
    return combine(a, b, OP_INTERSECTION);
}

struct th_fset *th_fset_difference(const struct th_fset *a, const struct th_fset *b)
{
    return combine(a, b, OP_DIFFERENCE);
}

void th_fset_update(struct th_fset **a, const struct th_fset *b,
                    struct th_fset *(*fn)(const struct th_fset *, const struct th_fset *))
{
    struct th_fset *made = fn(*a, b);
    th_fset_free(*a);
    *a = made;
}

static void remove_at(struct th_fset *s, size_t i)
{
    node_done(&s->v[i]);
    memmove(&s->v[i], &s->v[i + 1], (s->n - i - 1) * sizeof(*s->v));
    s->n--;
}

void th_fset_exclude(struct th_fset *s, const char *path)
{
    const char *dot = strchr(path, '.');
    th_autofree char *name = dot ? th_xstrndup(path, (size_t)(dot - path)) : th_xstrdup(path);
    size_t i;
    if (!s || !locate(s, (struct th_fstep){.kind = 'f', .text = name}, &i)) {
        return;
    }
    struct th_fnode *n = &s->v[i];
    if (!dot) {
        remove_at(s, i);
        return;
    }
    if (strcmp(dot, ".*") == 0) {
        th_fset_free(n->sub);
        n->sub = NULL;
    } else {
        th_fset_exclude(n->sub, dot + 1);
    }
    if (!n->member && th_fset_empty(n->sub)) {
        remove_at(s, i);
    }
}

/* ---- Text ---- */

void th_fstep_print(struct th_fstep step, struct th_buf *b)
{
    if (step.kind == 'f') {
        th_buf_printf(b, ".%s", step.text);
        return;
    }
    th_buf_putc(b, '[');
    if (step.kind == 'k') {
        struct th_json_iter it = TH_JSON_ITER(step.val);
        for (const char *sep = ""; th_json_next(&it); sep = ",") {
            th_buf_printf(b, "%s%s=", sep, it.name);
            if (th_json_is(it.value, TH_JSON_STRING)) {
                th_go_quote(b, th_json_str(it.value));
            } else {
                th_json_dump(it.value, b);
            }
        }
    } else if (step.kind == 'v') {
        th_buf_putc(b, '=');
        if (th_json_is(step.val, TH_JSON_STRING)) {
            th_go_quote(b, th_json_str(step.val));
        } else {
            th_json_dump(step.val, b);
        }
    } else {
        th_buf_puts(b, step.text);
    }
    th_buf_putc(b, ']');
}

static void each(const struct th_fset *s, struct th_buf *path,
                 void (*fn)(void *arg, const char *path), void *arg)
{
    size_t base = path->n;
    /* The paths that end on this level come first, as upstream lists them. */
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; s && i < s->n; i++) {
            const struct th_fnode *n = &s->v[i];
            if (pass == 0 ? !n->member : !n->sub) {
                continue;
            }
            th_fstep_print(step_of(n), path);
            if (pass == 0) {
                fn(arg, th_buf_cstr(path));
            } else {
                each(n->sub, path, fn, arg);
            }
            th_buf_truncate(path, base);
        }
    }
}

void th_fset_each(const struct th_fset *s, void (*fn)(void *arg, const char *path), void *arg)
{
    th_autobuf struct th_buf path = TH_BUF_INIT;
    each(s, &path, fn, arg);
}

/* ---- fieldsV1 ---- */

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The members in order of name: the canonical form of a key. */
static struct th_json *sorted_members(const struct th_json *o)
{
    size_t n = 0;
    const char **names = th_xcalloc(th_json_len(o) + 1, sizeof(*names));
    struct th_json_iter it = TH_JSON_ITER(o);
    while (th_json_next(&it)) {
        names[n++] = it.name;
    }
    qsort(names, n, sizeof(*names), by_name);
    struct th_json *out = th_json_object();
    for (size_t i = 0; i < n; i++) {
        th_json_set(out, names[i], th_json_dup(th_json_get(o, names[i])));
    }
    free(names);
    return out;
}

static int add_parsed(struct th_fset *s, const char *key, const struct th_json *below,
                      struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *val = NULL;
    th_autofree char *text = NULL;
    char kind = key[0];
    if (kind == '\0' || key[1] != ':') {
        return th_fail(err, TH_R_PARSE, "missing colon: %s", key);
    }
    if (kind == 'k' || kind == 'v') {
        TH_AUTO(th_json) struct th_json *raw = NULL;
        TH_TRY(th_json_parse_cstr(key + 2, &raw, err));
        if (kind == 'k' && !th_json_is(raw, TH_JSON_OBJECT)) {
            return th_fail(err, TH_R_PARSE, "parsing key as path element: %s", key);
        }
        val = kind == 'k' ? sorted_members(raw) : th_steal(&raw);
        text = th_json_to_string(val);
    } else if (kind == 'i') {
        const char *digits = key + 2 + (key[2] == '-');
        if (*digits == '\0' || digits[strspn(digits, "0123456789")] || strlen(digits) > 18) {
            return th_fail(err, TH_R_PARSE, "parsing key as path element: %s", key);
        }
    } else if (kind != 'f') {
        return 0;
    }
    struct th_fset *sub;
    TH_TRY(th_fset_parse(below, &sub, err));
    struct th_fnode *n =
        th_fset_node(s, (struct th_fstep){.kind = kind, .text = text ? text : key + 2, .val = val});
    n->member = th_fset_empty(sub) || th_json_has(below, ".");
    th_fset_free(n->sub);
    n->sub = NULL;
    if (th_fset_empty(sub)) {
        th_fset_free(sub);
    } else {
        n->sub = sub;
    }
    return 0;
}

int th_fset_parse(const struct th_json *fields, struct th_fset **ret, struct th_err *err)
{
    if (fields && !th_json_is(fields, TH_JSON_OBJECT)) {
        return th_fail(err, TH_R_PARSE, "fieldsV1 is not an object");
    }
    TH_AUTO(th_fset) struct th_fset *s = th_fset_new();
    struct th_json_iter it = TH_JSON_ITER(fields);
    while (th_json_next(&it)) {
        if (strcmp(it.name, ".") != 0) {
            TH_TRY(add_parsed(s, it.name, it.value, err));
        }
    }
    *ret = th_steal(&s);
    return 0;
}

struct th_json *th_fset_to_json(const struct th_fset *s)
{
    struct th_json *out = th_json_object();
    for (size_t i = 0; s && i < s->n; i++) {
        const struct th_fnode *n = &s->v[i];
        struct th_json *below = NULL;
        if (!th_fset_empty(n->sub)) {
            below = th_fset_to_json(n->sub);
            if (n->member) {
                struct th_json *with_self = th_json_object();
                th_json_set(with_self, ".", th_json_object());
                struct th_json_iter it = TH_JSON_ITER(below);
                while (th_json_next(&it)) {
                    th_json_set(with_self, it.name, th_json_ref(it.value));
                }
                th_json_unref(below);
                below = with_self;
            }
        }
        if (below || n->member) {
            th_autofree char *key = th_xasprintf("%c:%s", n->kind, n->text);
            th_json_set(out, key, below ? below : th_json_object());
        }
    }
    return out;
}
