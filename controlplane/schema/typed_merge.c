/*
 * Objects through their types, part two: comparing, merging and removing.
 *
 * Comparing tells which paths were added, modified and removed; a container that appears or goes
 * counts itself too. Merging lays a configuration over an object: leaves come from the
 * configuration where it has them, granular containers are united. Lists of the two are interleaved
 * so that both orders hold where they can: elements that both have stand in the configuration's
 * order, elements that only the object has stay near their neighbours. Removing takes paths out and
 * leaves emptied containers in place.
 *
 * Elements are looked up through a hash of their canonical key, since a set may hold tens of
 * thousands of values. Elements that share a key (only possible in what is stored already) are
 * compared as a group and never merged.
 */
#include "controlplane/schema/typed_priv.h"
#include "base/hmap.h"

static const struct th_tval absent = {NULL, false};

static struct th_tval member_of(struct th_tval v, const char *name)
{
    return v.has && th_json_has(v.o, name) ? (struct th_tval){th_json_get(v.o, name), true} : absent;
}

/* The value as a container of this type, absent when it is null or something else. */
static struct th_tval container(struct th_tref t, struct th_tval v)
{
    enum th_json_type want = t.kind == TH_T_LIST ? TH_JSON_ARRAY : TH_JSON_OBJECT;
    return v.has && th_json_is(v.o, want) ? v : absent;
}

/* A place that is taken as a whole: a scalar, an atomic container, or both sides empty. */
static bool is_leaf(struct th_tref t, struct th_tval a, struct th_tval b)
{
    return t.kind == TH_T_SCALAR || t.atomic ||
           (th_json_len(container(t, a).o) == 0 && th_json_len(container(t, b).o) == 0);
}

/* ---- Elements of a list with their steps ---- */

struct items {
    struct th_titem *v;
    const struct th_json **e;
    size_t n;
    struct th_hmap first; /* text to index + 1 of its first element */
    bool *dup;            /* at that index: the key comes again */
};

static void items_init(struct items *s, struct th_tref t, const struct th_json *list)
{
    size_t n = th_json_len(list);
    *s = (struct items){.v = th_xcalloc(n + 1, sizeof(*s->v)),
                        .e = th_xcalloc(n + 1, sizeof(*s->e)),
                        .dup = th_xcalloc(n + 1, sizeof(*s->dup))};
    th_hmap_init(&s->first, NULL);
    for (size_t i = 0; i < n; i++) {
        if (th_titem_of(t, th_json_at(list, i), &s->v[s->n], NULL) < 0) {
            continue;
        }
        uintptr_t at = (uintptr_t)th_hmap_get(&s->first, s->v[s->n].text);
        if (at) {
            s->dup[at - 1] = true;
        } else {
            th_hmap_set(&s->first, s->v[s->n].text, (void *)(uintptr_t)(s->n + 1));
        }
        s->e[s->n++] = th_json_at(list, i);
    }
}

static void items_done(struct items *s)
{
    for (size_t i = 0; i < s->n; i++) {
        th_titem_done(&s->v[i]);
    }
    free(s->v);
    free(s->e);
    free(s->dup);
    th_hmap_done(&s->first);
}

/* Index + 1 of the first element with this key, 0 when there is none. */
static size_t lookup(const struct items *s, const char *text)
{
    return (size_t)(uintptr_t)th_hmap_get(&s->first, text);
}

/* ---- Comparison ---- */

static void compare(struct th_tref t, struct th_tval a, struct th_tval b,
                    const struct th_fpath *path, struct th_comparison *c);

static bool same_group(const struct items *l, const struct items *r, const char *text)
{
    size_t j = 0;
    for (size_t i = 0; i < l->n; i++) {
        if (strcmp(l->v[i].text, text) != 0) {
            continue;
        }
        while (j < r->n && strcmp(r->v[j].text, text) != 0) {
            j++;
        }
        if (j == r->n || !th_json_equal(l->e[i], r->e[j++])) {
            return false;
        }
    }
    while (j < r->n && strcmp(r->v[j].text, text) != 0) {
        j++;
    }
    return j == r->n;
}

static void compare_lists(struct th_tref t, struct th_tval a, struct th_tval b,
                          const struct th_fpath *path, struct th_comparison *c)
{
    struct items l, r;
    items_init(&l, t, a.o);
    items_init(&r, t, b.o);
    struct th_tref et = th_tref_element(t);
    for (size_t k = 0; k < l.n + r.n; k++) {
        bool left = k < l.n;
        size_t i = left ? k : k - l.n;
        const struct items *own = left ? &l : &r;
        struct th_fpath at = {.up = path, .step = own->v[i].step};
        if (lookup(own, own->v[i].text) != i + 1 || (!left && lookup(&l, own->v[i].text))) {
            continue; /* seen before */
        }
        size_t li = lookup(&l, own->v[i].text), ri = lookup(&r, own->v[i].text);
        bool ldup = li && l.dup[li - 1], rdup = ri && r.dup[ri - 1];
        struct th_tval lv = li ? (struct th_tval){l.e[li - 1], true} : absent;
        struct th_tval rv = ri ? (struct th_tval){r.e[ri - 1], true} : absent;
        if (!ldup && !rdup) {
            compare(et, lv, rv, &at, c);
        } else if (ldup && rdup) {
            if (!same_group(&l, &r, own->v[i].text)) {
                th_fset_insert(c->modified, &at);
            }
        } else if (ldup) {
            if (ri) {
                compare(et, absent, rv, &at, c);
            }
            th_fset_insert(c->removed, &at);
        } else {
            if (li) {
                compare(et, lv, absent, &at, c);
            }
            th_fset_insert(c->added, &at);
        }
    }
    items_done(&l);
    items_done(&r);
}

static void compare_members(struct th_tref t, struct th_tval a, struct th_tval b,
                            const struct th_fpath *path, struct th_comparison *c)
{
    const struct th_tval sides[] = {a, b};
    for (int s = 0; s < 2; s++) {
        struct th_json_iter it = TH_JSON_ITER(sides[s].o);
        while (th_json_next(&it)) {
            if (s == 1 && member_of(a, it.name).has) {
                continue;
            }
            struct th_tref sub;
            (void)th_tref_member(t, it.name, &sub, NULL);
            struct th_fpath at = {.up = path, .step = {.kind = 'f', .text = it.name}};
            compare(sub, member_of(a, it.name), member_of(b, it.name), &at, c);
        }
    }
}

/* Compares as one kind of value; true when the place was a leaf. */
static bool compare_as(struct th_tref t, struct th_tval a, struct th_tval b,
                       const struct th_fpath *path, struct th_comparison *c)
{
    if (is_leaf(t, a, b)) {
        if (!a.has) {
            th_fset_insert(c->added, path);
        } else if (!b.has) {
            th_fset_insert(c->removed, path);
        } else if (!th_json_equal(a.o, b.o)) {
            th_fset_insert(c->modified, path);
        }
        return true;
    }
    if (t.kind == TH_T_LIST) {
        compare_lists(t, container(t, a), container(t, b), path, c);
    } else {
        compare_members(t, container(t, a), container(t, b), path, c);
    }
    return false;
}

static void compare(struct th_tref t, struct th_tval a, struct th_tval b,
                    const struct th_fpath *path, struct th_comparison *c)
{
    struct th_tref ta = th_tref_resolve(t, a), tb = th_tref_resolve(t, b);
    bool leaf;
    if (!b.has) {
        leaf = compare_as(ta, a, b, path, c);
    } else if (!a.has || ta.kind == tb.kind) {
        leaf = compare_as(tb, a, b, path, c);
    } else {
        (void)compare_as(ta, a, b, path, c);
        leaf = compare_as(tb, a, b, path, c);
    }
    if (!leaf && !a.has) {
        th_fset_insert(c->added, path);
    } else if (!leaf && !b.has) {
        th_fset_insert(c->removed, path);
    }
}

void th_typed_compare(struct th_tref t, const struct th_json *a, const struct th_json *b,
                      struct th_comparison *ret)
{
    *ret = (struct th_comparison){th_fset_new(), th_fset_new(), th_fset_new()};
    compare(t, (struct th_tval){a, true}, (struct th_tval){b, true}, NULL, ret);
}

void th_comparison_done(struct th_comparison *c)
{
    th_fset_free(c->added);
    th_fset_free(c->modified);
    th_fset_free(c->removed);
}

/* ---- Merge ---- */

/* The merged value, or *ret_has false when there is none. */
static struct th_json *merge(struct th_tref t, struct th_tval a, struct th_tval b, bool *ret_has);

static void merge_item(struct th_json *out, struct th_tref t, struct th_tval l, struct th_tval r)
{
    bool has;
    struct th_json *v = merge(t, l, r, &has);
    if (has) {
        th_json_append(out, v);
    }
}

static struct th_json *merge_lists(struct th_tref t, struct th_tval a, struct th_tval b)
{
    struct items l, r;
    items_init(&l, t, a.o);
    items_init(&r, t, b.o);
    struct th_tref et = th_tref_element(t);
    struct th_json *out = th_json_array();
    bool *merged = th_xcalloc(r.n + 1, sizeof(*merged)); /* by index in r */
    /* The elements of r that l has too, in r's order: shared is the next of them. */
    size_t shared = 0;
    while (shared < r.n && !lookup(&l, r.v[shared].text)) {
        shared++;
    }
    for (size_t li = 0, ri = 0; li < l.n || ri < r.n;) {
        size_t in_r = li < l.n ? lookup(&r, l.v[li].text) : 0;
        bool equal = in_r && ri < r.n && strcmp(l.v[li].text, r.v[ri].text) == 0;
        if (!equal && in_r && ri < r.n && shared < r.n && in_r != shared + 1) {
            li++; /* shared, but not the one whose turn it is */
            continue;
        }
        if (!equal && li < l.n) {
            if (!in_r) {
                merge_item(out, et, (struct th_tval){l.e[li], true}, absent);
                li++;
                continue;
            }
            if (merged[in_r - 1]) {
                li++;
            }
        }
        if (ri < r.n) {
            size_t in_l = lookup(&l, r.v[ri].text);
            struct th_tval lv = absent;
            if (in_l) { /* what stands several times is not merged with */
                lv = (struct th_tval){l.dup[in_l - 1] ? NULL : l.e[in_l - 1], true};
            }
            merged[ri] = true;
            merge_item(out, et, lv, (struct th_tval){r.e[ri], true});
            if (equal || ri == shared) {
                do {
                    shared++;
                } while (shared < r.n && !lookup(&l, r.v[shared].text));
            }
            ri++;
            li += equal;
        }
    }
    free(merged);
    items_done(&l);
    items_done(&r);
    return out;
}

static struct th_json *merge_members(struct th_tref t, struct th_tval a, struct th_tval b)
{
    const struct th_tval sides[] = {a, b};
    struct th_json *out = th_json_object();
    for (int s = 0; s < 2; s++) {
        struct th_json_iter it = TH_JSON_ITER(sides[s].o);
        while (th_json_next(&it)) {
            if (s == 1 && member_of(a, it.name).has) {
                continue;
            }
            struct th_tref sub;
            bool has;
            (void)th_tref_member(t, it.name, &sub, NULL);
            struct th_json *v = merge(sub, member_of(a, it.name), member_of(b, it.name), &has);
            if (has) {
                th_json_set(out, it.name, v);
            }
        }
    }
    return out;
}

static struct th_json *merge(struct th_tref t, struct th_tval a, struct th_tval b, bool *ret_has)
{
    t = th_tref_resolve(t, b.has ? b : a);
    *ret_has = true;
    if (is_leaf(t, a, b)) {
        return th_json_dup(b.has ? b.o : a.o);
    }
    struct th_json *out = t.kind == TH_T_LIST
                              ? merge_lists(t, container(t, a), container(t, b))
                              : merge_members(t, container(t, a), container(t, b));
    *ret_has = th_json_len(out) > 0;
    if (!*ret_has) {
        th_json_unref(out);
        return NULL;
    }
    return out;
}

struct th_json *th_typed_merge(struct th_tref t, const struct th_json *a, const struct th_json *b)
{
    bool has;
    return merge(t, (struct th_tval){a, true}, (struct th_tval){b, true}, &has);
}

/* ---- Removal ---- */

/* A value from which paths were taken; one that is empty now stays as an empty container. */
static struct th_json *remove_below(struct th_tref t, const struct th_json *o,
                                    const struct th_fset *s)
{
    struct th_json *left = th_typed_remove(t, o, s);
    if (!left && th_json_is(o, TH_JSON_OBJECT)) {
        return th_json_object();
    }
    if (!left && th_json_is(o, TH_JSON_ARRAY)) {
        return th_json_array();
    }
    return left;
}

static struct th_json *remove_items(struct th_tref t, const struct th_json *o,
                                    const struct th_fset *s)
{
    struct th_json *out = th_json_array();
    for (size_t i = 0; i < th_json_len(o); i++) {
        const struct th_json *e = th_json_at(o, i);
        struct th_titem item;
        if (th_titem_of(t, e, &item, NULL) < 0) {
            th_json_append(out, th_json_dup(e));
            continue;
        }
        const struct th_fnode *n = th_fset_find(s, item.step);
        if (!n) {
            th_json_append(out, th_json_dup(e));
        } else if (!n->member) {
            th_json_append(out, remove_below(th_tref_element(t), e, n->sub));
        }
        th_titem_done(&item);
    }
    return out;
}

static struct th_json *remove_members(struct th_tref t, const struct th_json *o,
                                      const struct th_fset *s)
{
    struct th_json *out = th_json_object();
    struct th_json_iter it = TH_JSON_ITER(o);
    while (th_json_next(&it)) {
        const struct th_fnode *n =
            th_fset_find(s, (struct th_fstep){.kind = 'f', .text = it.name});
        if (!n) {
            th_json_set(out, it.name, th_json_dup(it.value));
        } else if (!n->member) {
            struct th_tref sub;
            (void)th_tref_member(t, it.name, &sub, NULL);
            th_json_set(out, it.name, remove_below(sub, it.value, n->sub));
        }
    }
    return out;
}

struct th_json *th_typed_remove(struct th_tref t, const struct th_json *o, const struct th_fset *s)
{
    t = th_tref_resolve(t, (struct th_tval){o, true});
    if (t.kind == TH_T_SCALAR) {
        return th_json_dup(o);
    }
    if (t.atomic || th_json_len(container(t, (struct th_tval){o, true}).o) == 0) {
        return NULL;
    }
    struct th_json *out = t.kind == TH_T_LIST ? remove_items(t, o, s) : remove_members(t, o, s);
    if (th_json_len(out) == 0) {
        th_json_unref(out);
        return NULL;
    }
    return out;
}
