/* An ordered map from strings to pointers: a B+ tree.
 *
 * Problem: the store's index holds every key of the cluster and answers point reads, prefix ranges
 * and continuation ("the next key after this one") all day; keys are long and share long prefixes
 * (/registry/pods/default/...). A balanced binary tree would miss the cache at each of its twenty
 * levels. Design: values live in leaves of up to CAP entries, which are linked in order; inner
 * nodes hold separators that only guide the way, each the shortest string that tells its two
 * neighbours apart. Both kinds of node keep their keys in the same struct keys.
 *
 * Searching a node touches none of its key strings but the first: the prefix that all keys of the
 * node share is compared once, and the eight bytes after it are kept as big-endian numbers (`head`)
 * that a binary search compares as integers. Only equal heads lead to the strings.
 *
 * Invariants: separator i is greater than every key below child i and not greater than any key
 * below child i+1. Every node but the root and the last leaf has at least MIN keys, and no leaf but
 * a lone root is empty. keys.common is the length of the longest prefix that all keys of the node
 * share; head[i] holds the bytes of key i from there on, zero padded.
 */
#include "base/hmap.h"

#include <endian.h>

#define CAP 48
#define MIN ((CAP - 1) / 2) /* what both halves of a split inner node have at least */

struct key {
    char *p;
    size_t n;
};

struct keys {
    size_t n;
    size_t common;
    uint64_t head[CAP];
    struct key key[CAP];
};

struct node {
    struct keys keys; /* first in both kinds of node */
};
struct leaf {
    struct node node;
    void *value[CAP];
    struct leaf *prev, *next;
};
struct inner {
    struct node node;
    struct node *child[CAP + 1];
};

struct th_omap {
    struct node *root;
    unsigned height; /* 0: the root is a leaf */
    size_t n;
    void (*free_fn)(void *);
};

/* ---- the keys of one node ---- */

static size_t shared_prefix(struct key a, struct key b)
{
    size_t n = a.n < b.n ? a.n : b.n;
    size_t i = 0;
    while (i < n && a.p[i] == b.p[i]) {
        i++;
    }
    return i;
}

static int compare(const char *a, size_t an, const char *b, size_t bn)
{
    size_t n = an < bn ? an : bn;
    int r = n ? memcmp(a, b, n) : 0;
    return r ? r : (an > bn) - (an < bn);
}

/* Bytes from..from+7 as a number; what lies behind the end counts as 0. */
static uint64_t head_of(const char *p, size_t n, size_t from)
{
    uint64_t v = 0;
    if (n > from) {
        memcpy(&v, p + from, n - from < 8 ? n - from : 8);
    }
    return be64toh(v);
}

static void keys_set_common(struct keys *k, size_t common)
{
    k->common = common;
    for (size_t i = 0; i < k->n; i++) {
        k->head[i] = head_of(k->key[i].p, k->key[i].n, common);
    }
}

/* After any change but an insertion: recomputes what is derived. */
static void keys_refresh(struct keys *k)
{
    keys_set_common(k, k->n ? shared_prefix(k->key[0], k->key[k->n - 1]) : 0);
}

/* The first position whose key is >= key; *ret_equal tells whether it is the key itself. */
static size_t keys_find(const struct keys *k, const char *key, size_t n, bool *ret_equal)
{
    *ret_equal = false;
    if (k->n == 0) {
        return 0;
    }
    if (k->common) {
        size_t m = n < k->common ? n : k->common;
        int r = memcmp(key, k->key[0].p, m);
        if (r != 0 || n < k->common) {
            return r <= 0 ? 0 : k->n; /* before or after all of them */
        }
    }
    uint64_t head = head_of(key, n, k->common);
    size_t low = 0;
    size_t high = k->n;
    while (low < high) {
        size_t mid = (low + high) / 2;
        int r = (k->head[mid] > head) - (k->head[mid] < head);
        if (r == 0) {
            r = compare(k->key[mid].p, k->key[mid].n, key, n);
            if (r == 0) {
                *ret_equal = true;
                return mid;
            }
        }
        if (r < 0) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

static void keys_insert(struct keys *k, size_t at, struct key key)
{
    memmove(&k->key[at + 1], &k->key[at], (k->n - at) * sizeof(k->key[0]));
    memmove(&k->head[at + 1], &k->head[at], (k->n - at) * sizeof(k->head[0]));
    k->key[at] = key;
    k->n++;
    /* Between two keys the new one shares their prefix; at an end it may shorten it. */
    size_t common = k->common;
    if (k->n <= 2 || at == 0 || at == k->n - 1) {
        common = shared_prefix(k->key[0], k->key[k->n - 1]);
    }
    if (common != k->common) {
        keys_set_common(k, common);
    } else {
        k->head[at] = head_of(key.p, key.n, common);
    }
}

/* Gives the key back to the caller. */
static struct key keys_remove(struct keys *k, size_t at)
{
    struct key key = k->key[at];
    k->n--;
    memmove(&k->key[at], &k->key[at + 1], (k->n - at) * sizeof(k->key[0]));
    memmove(&k->head[at], &k->head[at + 1], (k->n - at) * sizeof(k->head[0]));
    size_t common = k->n ? shared_prefix(k->key[0], k->key[k->n - 1]) : 0;
    if (common != k->common) {
        keys_set_common(k, common);
    }
    return key;
}

/* Moves the keys from..n-1 of src to the end of dst. */
static void keys_move_tail(struct keys *dst, struct keys *src, size_t from)
{
    size_t count = src->n - from;
    memcpy(&dst->key[dst->n], &src->key[from], count * sizeof(src->key[0]));
    dst->n += count;
    src->n = from;
    keys_refresh(dst);
    keys_refresh(src);
}

/* ---- looking up ---- */

static struct leaf *as_leaf(struct node *x)
{
    return (struct leaf *)x;
}

static struct inner *as_inner(struct node *x)
{
    return (struct inner *)x;
}

/* The child of x whose range holds key. */
static size_t child_index(const struct node *x, const char *key, size_t n)
{
    bool equal;
    size_t i = keys_find(&x->keys, key, n, &equal);
    return i + equal; /* a key equal to a separator lies to its right */
}

static struct leaf *find_leaf(const struct th_omap *m, const char *key, size_t n)
{
    struct node *x = m->root;
    for (unsigned level = m->height; level > 0; level--) {
        x = as_inner(x)->child[child_index(x, key, n)];
    }
    return as_leaf(x);
}

size_t th_omap_count(const struct th_omap *m)
{
    return m->n;
}

void *th_omap_get(const struct th_omap *m, const char *key)
{
    size_t n = strlen(key);
    struct leaf *l = find_leaf(m, key, n);
    bool equal;
    size_t i = keys_find(&l->node.keys, key, n, &equal);
    return equal ? l->value[i] : NULL;
}

static bool entry_at(struct leaf *l, size_t i, struct th_omap_entry *ret)
{
    if (i == l->node.keys.n) {
        l = l->next; /* leaves other than a lone root are never empty */
        i = 0;
    }
    if (!l || l->node.keys.n == 0) {
        return false;
    }
    *ret = (struct th_omap_entry){l->node.keys.key[i].p, l->node.keys.key[i].n, l->value[i]};
    return true;
}

bool th_omap_seek(const struct th_omap *m, const char *from, struct th_omap_entry *ret)
{
    size_t n = strlen(from);
    struct leaf *l = find_leaf(m, from, n);
    bool equal;
    return entry_at(l, keys_find(&l->node.keys, from, n, &equal), ret);
}

bool th_omap_after(const struct th_omap *m, const char *key, struct th_omap_entry *ret)
{
    size_t n = strlen(key);
    struct leaf *l = find_leaf(m, key, n);
    bool equal;
    size_t i = keys_find(&l->node.keys, key, n, &equal);
    return entry_at(l, i + equal, ret);
}

static bool has_prefix(struct key k, const char *prefix, size_t n)
{
    return k.n >= n && (n == 0 || memcmp(k.p, prefix, n) == 0);
}

void th_omap_each(const struct th_omap *m, const char *prefix,
                  bool (*fn)(const struct th_omap_entry *e, void *arg), void *arg)
{
    size_t n = strlen(prefix);
    struct leaf *l = find_leaf(m, prefix, n);
    bool equal;
    size_t i = keys_find(&l->node.keys, prefix, n, &equal);
    for (; l; l = l->next, i = 0) {
        for (; i < l->node.keys.n; i++) {
            struct key k = l->node.keys.key[i];
            struct th_omap_entry e = {k.p, k.n, l->value[i]};
            if (!has_prefix(k, prefix, n) || !fn(&e, arg)) {
                return;
            }
        }
    }
}

size_t th_omap_count_prefix(const struct th_omap *m, const char *prefix)
{
    size_t n = strlen(prefix);
    if (n == 0) {
        return m->n;
    }
    struct leaf *l = find_leaf(m, prefix, n);
    bool equal;
    size_t i = keys_find(&l->node.keys, prefix, n, &equal);
    size_t count = 0;
    for (; l; l = l->next, i = 0) {
        const struct keys *k = &l->node.keys;
        if (i < k->n && has_prefix(k->key[k->n - 1], prefix, n)) {
            count += k->n - i; /* then all between have it, too */
            continue;
        }
        while (i < k->n && has_prefix(k->key[i], prefix, n)) {
            count++;
            i++;
        }
        if (i < k->n) {
            break;
        }
    }
    return count;
}

/* ---- growing ---- */

struct th_omap *th_omap_new(void (*free_fn)(void *))
{
    struct th_omap *m = TH_NEW(struct th_omap);
    m->root = &TH_NEW(struct leaf)->node;
    m->free_fn = free_fn;
    return m;
}

static struct key key_new(const char *p, size_t n)
{
    return (struct key){th_xstrndup(p, n), n};
}

/* What splits off to the right of a node that was full. */
struct split {
    struct key separator;
    struct node *right; /* NULL: no split */
};

static struct split split_leaf(struct leaf *l, size_t at)
{
    struct leaf *r = TH_NEW(struct leaf);
    size_t count = l->node.keys.n - at;
    memcpy(r->value, &l->value[at], count * sizeof(l->value[0]));
    keys_move_tail(&r->node.keys, &l->node.keys, at);
    r->prev = l;
    r->next = l->next;
    if (r->next) {
        r->next->prev = r;
    }
    l->next = r;
    struct key last = l->node.keys.key[at - 1];
    struct key first = r->node.keys.key[0];
    return (struct split){key_new(first.p, shared_prefix(last, first) + 1), &r->node};
}

static struct split split_inner(struct inner *x, size_t at)
{
    struct inner *r = TH_NEW(struct inner);
    size_t n = x->node.keys.n;
    memcpy(r->child, &x->child[at + 1], (n - at) * sizeof(x->child[0]));
    keys_move_tail(&r->node.keys, &x->node.keys, at + 1);
    /* the key in the middle moves up instead of staying on one side */
    return (struct split){keys_remove(&x->node.keys, at), &r->node};
}

static void leaf_insert(struct leaf *l, size_t at, struct key key, void *value)
{
    memmove(&l->value[at + 1], &l->value[at], (l->node.keys.n - at) * sizeof(l->value[0]));
    l->value[at] = value;
    keys_insert(&l->node.keys, at, key);
}

static void inner_insert(struct inner *x, size_t at, struct split s)
{
    memmove(&x->child[at + 2], &x->child[at + 1], (x->node.keys.n - at) * sizeof(x->child[0]));
    x->child[at + 1] = s.right;
    keys_insert(&x->node.keys, at, s.separator);
}

static struct split set_in_leaf(struct th_omap *m, struct leaf *l, const char *key, size_t n,
                                void *value)
{
    bool equal;
    size_t at = keys_find(&l->node.keys, key, n, &equal);
    if (equal) {
        void *old = l->value[at];
        l->value[at] = value;
        if (m->free_fn && old && old != value) {
            m->free_fn(old);
        }
        return (struct split){.right = NULL};
    }
    m->n++;
    struct split s = {.right = NULL};
    if (l->node.keys.n == CAP) {
        /* Keys that arrive in order leave full leaves behind, not half empty ones. */
        bool appending = at == CAP && !l->next;
        s = split_leaf(l, appending ? CAP - 1 : MIN);
        /* Between the halves the separator decides, being shorter than the key it was cut from. */
        if (at > l->node.keys.n ||
            (at == l->node.keys.n && compare(key, n, s.separator.p, s.separator.n) >= 0)) {
            at -= l->node.keys.n;
            l = as_leaf(s.right);
        }
    }
    leaf_insert(l, at, key_new(key, n), value);
    return s;
}

static struct split set_below(struct th_omap *m, struct node *x, unsigned level, const char *key,
                              size_t n, void *value)
{
    if (level == 0) {
        return set_in_leaf(m, as_leaf(x), key, n, value);
    }
    size_t at = child_index(x, key, n);
    struct split below = set_below(m, as_inner(x)->child[at], level - 1, key, n, value);
    struct split s = {.right = NULL};
    if (below.right) {
        if (x->keys.n == CAP) {
            s = split_inner(as_inner(x), MIN);
            if (at > x->keys.n) {
                at -= x->keys.n + 1;
                x = s.right;
            }
        }
        inner_insert(as_inner(x), at, below);
    }
    return s;
}

void th_omap_set(struct th_omap *m, const char *key, void *value)
{
    struct split s = set_below(m, m->root, m->height, key, strlen(key), value);
    if (s.right) {
        struct inner *root = TH_NEW(struct inner);
        root->child[0] = m->root;
        inner_insert(root, 0, s);
        m->root = &root->node;
        m->height++;
    }
}

/* ---- shrinking ---- */

/* Joins child i+1 of x into child i; the separator between leaves is dropped, the one between
 * inner nodes comes down. */
static void join_children(struct inner *x, size_t i, bool leaves)
{
    struct node *left = x->child[i];
    struct node *right = x->child[i + 1];
    struct key separator = keys_remove(&x->node.keys, i);
    memmove(&x->child[i + 1], &x->child[i + 2], (x->node.keys.n - i) * sizeof(x->child[0]));
    size_t at = left->keys.n;
    if (leaves) {
        struct leaf *l = as_leaf(left);
        struct leaf *r = as_leaf(right);
        memcpy(&l->value[at], r->value, r->node.keys.n * sizeof(r->value[0]));
        l->next = r->next;
        if (l->next) {
            l->next->prev = l;
        }
        free(separator.p);
    } else {
        memcpy(&as_inner(left)->child[at + 1], as_inner(right)->child,
               (right->keys.n + 1) * sizeof(x->child[0]));
        keys_insert(&left->keys, at, separator);
    }
    keys_move_tail(&left->keys, &right->keys, 0);
    free(right);
}

/* Moves the last entry of leaf i to the front of leaf i+1, or the other way round. */
static void shift_leaves(struct inner *x, size_t i, bool to_right)
{
    struct leaf *l = as_leaf(x->child[i]);
    struct leaf *r = as_leaf(x->child[i + 1]);
    if (to_right) {
        size_t last = l->node.keys.n - 1;
        void *v = l->value[last];
        leaf_insert(r, 0, keys_remove(&l->node.keys, last), v);
    } else {
        void *v = r->value[0];
        memmove(&r->value[0], &r->value[1], (r->node.keys.n - 1) * sizeof(r->value[0]));
        leaf_insert(l, l->node.keys.n, keys_remove(&r->node.keys, 0), v);
    }
    struct key last = l->node.keys.key[l->node.keys.n - 1];
    struct key first = r->node.keys.key[0];
    struct keys *k = &x->node.keys;
    free(k->key[i].p);
    k->key[i] = key_new(first.p, shared_prefix(last, first) + 1);
    keys_refresh(k);
}

static void shift_inners(struct inner *x, size_t i, bool to_right)
{
    struct inner *l = as_inner(x->child[i]);
    struct inner *r = as_inner(x->child[i + 1]);
    struct keys *k = &x->node.keys;
    struct key down = k->key[i];
    if (to_right) {
        size_t last = l->node.keys.n;
        memmove(&r->child[1], &r->child[0], (r->node.keys.n + 1) * sizeof(r->child[0]));
        r->child[0] = l->child[last];
        keys_insert(&r->node.keys, 0, down);
        k->key[i] = keys_remove(&l->node.keys, last - 1);
    } else {
        keys_insert(&l->node.keys, l->node.keys.n, down);
        l->child[l->node.keys.n] = r->child[0];
        memmove(&r->child[0], &r->child[1], r->node.keys.n * sizeof(r->child[0]));
        k->key[i] = keys_remove(&r->node.keys, 0);
    }
    keys_refresh(k);
}

/* Child i has too few keys: takes one from a neighbour, or joins with it. */
static void mend(struct inner *x, size_t i, bool leaves)
{
    size_t left = i > 0 ? i - 1 : 0; /* the pair is left, left+1 */
    bool to_right = left != i;       /* the starved one is the right one */
    struct node *donor = x->child[to_right ? left : left + 1];
    if (donor->keys.n <= MIN) {
        join_children(x, left, leaves);
    } else if (leaves) {
        shift_leaves(x, left, to_right);
    } else {
        shift_inners(x, left, to_right);
    }
}

static bool remove_below(struct node *x, unsigned level, const char *key, size_t n, void **ret)
{
    if (level > 0) {
        size_t i = child_index(x, key, n);
        struct node *c = as_inner(x)->child[i];
        if (!remove_below(c, level - 1, key, n, ret)) {
            return false;
        }
        if (c->keys.n < MIN) {
            mend(as_inner(x), i, level == 1);
        }
        return true;
    }
    bool equal;
    size_t i = keys_find(&x->keys, key, n, &equal);
    if (!equal) {
        return false;
    }
    struct leaf *l = as_leaf(x);
    *ret = l->value[i];
    struct key k = keys_remove(&x->keys, i);
    memmove(&l->value[i], &l->value[i + 1], (x->keys.n - i) * sizeof(l->value[0]));
    free(k.p);
    return true;
}

void *th_omap_remove(struct th_omap *m, const char *key)
{
    void *value = NULL;
    if (!remove_below(m->root, m->height, key, strlen(key), &value)) {
        return NULL;
    }
    m->n--;
    if (m->height > 0 && m->root->keys.n == 0) {
        struct node *only = as_inner(m->root)->child[0];
        free(m->root);
        m->root = only;
        m->height--;
    }
    return value;
}

static void free_below(struct th_omap *m, struct node *x, unsigned level)
{
    for (size_t i = 0; i < x->keys.n; i++) {
        free(x->keys.key[i].p);
        if (level == 0 && m->free_fn && as_leaf(x)->value[i]) {
            m->free_fn(as_leaf(x)->value[i]);
        }
    }
    for (size_t i = 0; level > 0 && i <= x->keys.n; i++) {
        free_below(m, as_inner(x)->child[i], level - 1);
    }
    free(x);
}

void th_omap_free(struct th_omap *m)
{
    if (m) {
        free_below(m, m->root, m->height);
        free(m);
    }
}
