/* Lists, sets and optional values. */
#include "controlplane/schema/cel/fn_priv.h"

/* All elements in the arena, charged one each. */
static struct cel_val *elements(struct cel_eval *e, const struct cel_list *l, size_t *ret_n)
{
    size_t n = cel_list_len(l);
    struct cel_val *v = cel_charge(e, n) ? cel_alloc(&e->a, (n + 1) * sizeof(*v)) : NULL;
    *ret_n = v ? n : 0;
    for (size_t i = 0; i < *ret_n; i++) {
        v[i] = cel_list_at(e, l, i);
    }
    return v;
}

CEL_FN_DEF(cel_fn_is_sorted)
{
    size_t k;
    struct cel_val *v = elements(e, args[0].list, &k);
    for (size_t i = 1; i < k; i++) {
        int c = cel_compare(v[i - 1], v[i]);
        if (c == 3) {
            return cel_no_overload();
        }
        if (c == 1) {
            return cel_bool(false);
        }
    }
    return cel_bool(true);
}

CEL_FN_DEF(cel_fn_sum)
{
    size_t k;
    struct cel_val *v = elements(e, args[0].list, &k);
    if (k == 0) {
        return cel_int(0);
    }
    struct cel_val sum = v[0];
    for (size_t i = 1; i < k && sum.kind != CEL_ERROR; i++) {
        struct cel_val pair[2] = {sum, v[i]};
        if (v[i].kind != sum.kind) {
            return cel_no_overload();
        }
        sum = cel_fn_add(e, pair, 2);
    }
    return sum;
}

static struct cel_val extreme(struct cel_eval *e, const struct cel_list *l, int want,
                              const char *name)
{
    size_t k;
    struct cel_val *v = elements(e, l, &k);
    if (k == 0) {
        return cel_error(e, "%s called on empty list", name);
    }
    struct cel_val best = v[0];
    for (size_t i = 1; i < k; i++) {
        int c = cel_compare(v[i], best);
        if (c == 3) {
            return cel_no_overload();
        }
        best = c == want ? v[i] : best;
    }
    return best;
}

CEL_FN_DEF(cel_fn_min)
{
    return extreme(e, args[0].list, -1, "min");
}

CEL_FN_DEF(cel_fn_max)
{
    return extreme(e, args[0].list, 1, "max");
}

CEL_FN_DEF(cel_fn_list_index_of)
{
    size_t k;
    struct cel_val *v = elements(e, args[0].list, &k);
    for (size_t i = 0; i < k; i++) {
        if (cel_equal(e, v[i], args[1]) == 1) {
            return cel_int((int64_t)i);
        }
    }
    return cel_int(-1);
}

CEL_FN_DEF(cel_fn_list_last_index_of)
{
    size_t k;
    struct cel_val *v = elements(e, args[0].list, &k);
    while (k-- > 0) {
        if (cel_equal(e, v[k], args[1]) == 1) {
            return cel_int((int64_t)k);
        }
    }
    return cel_int(-1);
}

CEL_FN_DEF(cel_fn_slice)
{
    size_t k;
    struct cel_val *v = elements(e, args[0].list, &k);
    int64_t from = args[1].i, to = args[2].i;
    if (from < 0 || to < 0) {
        return cel_error(e, "cannot slice(%lld, %lld), negative indexes not supported",
                         (long long)from, (long long)to);
    }
    if (from > to) {
        return cel_error(e, "cannot slice(%lld, %lld), start index must be less than or equal to "
                            "end index",
                         (long long)from, (long long)to);
    }
    if ((uint64_t)to > k) {
        return cel_error(e, "cannot slice(%lld, %lld), list is length %zu", (long long)from,
                         (long long)to, k);
    }
    return cel_make_list(e, v + from, (size_t)(to - from));
}

static bool flatten(struct cel_eval *e, const struct cel_list *l, int64_t depth,
                    struct cel_val **v, size_t *n, size_t *cap)
{
    for (size_t i = 0; i < cel_list_len(l); i++) {
        struct cel_val x = cel_list_at(e, l, i);
        if (!cel_charge(e, 1)) {
            return false;
        }
        if (x.kind == CEL_LIST && depth > 0) {
            if (!flatten(e, x.list, depth - 1, v, n, cap)) {
                return false;
            }
            continue;
        }
        if (*n == *cap) {
            *cap = *cap ? *cap * 2 : 8;
            struct cel_val *more = cel_alloc(&e->a, *cap * sizeof(*more));
            if (*n) {
                memcpy(more, *v, *n * sizeof(*more));
            }
            *v = more;
        }
        (*v)[(*n)++] = x;
    }
    return true;
}

CEL_FN_DEF(cel_fn_flatten)
{
    struct cel_val *v = NULL;
    size_t k = 0, cap = 0;
    int64_t depth = n > 1 ? args[1].i : 1;
    if (depth < 0) {
        return cel_error(e, "level must be non-negative");
    }
    return flatten(e, args[0].list, depth > 64 ? 64 : depth, &v, &k, &cap)
               ? cel_make_list(e, v, k)
               : cel_no_overload();
}

CEL_FN_DEF(cel_fn_range)
{
    int64_t k = args[0].i < 0 ? 0 : args[0].i;
    if (!cel_charge(e, (uint64_t)k)) {
        return cel_no_overload();
    }
    struct cel_val *v = cel_alloc(&e->a, ((size_t)k + 1) * sizeof(*v));
    for (int64_t i = 0; i < k; i++) {
        v[i] = cel_int(i);
    }
    return cel_make_list(e, v, (size_t)k);
}

CEL_FN_DEF(cel_fn_distinct)
{
    size_t k, m = 0;
    struct cel_val *v = elements(e, args[0].list, &k);
    for (size_t i = 0; i < k; i++) {
        bool seen = false;
        for (size_t j = 0; j < m && !seen; j++) {
            if (!cel_charge(e, 1)) {
                return cel_no_overload();
            }
            seen = cel_equal(e, v[j], v[i]) == 1;
        }
        if (!seen) {
            v[m++] = v[i];
        }
    }
    return cel_make_list(e, v, m);
}

CEL_FN_DEF(cel_fn_reverse)
{
    size_t k;
    struct cel_val *v = elements(e, args[0].list, &k);
    for (size_t i = 0; i < k / 2; i++) {
        struct cel_val t = v[i];
        v[i] = v[k - 1 - i];
        v[k - 1 - i] = t;
    }
    return cel_make_list(e, v, k);
}

static int by_value(const void *a, const void *b)
{
    return cel_compare(*(const struct cel_val *)a, *(const struct cel_val *)b);
}

CEL_FN_DEF(cel_fn_sort)
{
    size_t k;
    struct cel_val *v = elements(e, args[0].list, &k);
    for (size_t i = 0; i < k; i++) {
        if (v[i].kind != v[0].kind || cel_compare(v[i], v[i]) == 3) {
            return cel_error(e, "list elements must be comparable and have the same type");
        }
    }
    if (k > 1 && cel_charge(e, k)) {
        qsort(v, k, sizeof(*v), by_value);
    }
    return cel_make_list(e, v, k);
}

CEL_FN_DEF(cel_fn_first)
{
    return cel_list_len(args[0].list) ? cel_some(e, cel_list_at(e, args[0].list, 0)) : cel_none();
}

CEL_FN_DEF(cel_fn_last)
{
    size_t k = cel_list_len(args[0].list);
    return k ? cel_some(e, cel_list_at(e, args[0].list, k - 1)) : cel_none();
}

/* ---- Sets ---- */

static bool has(struct cel_eval *e, const struct cel_val *v, size_t n, struct cel_val x)
{
    for (size_t i = 0; i < n; i++) {
        if (!cel_charge(e, 1)) {
            return false;
        }
        if (cel_equal(e, v[i], x) == 1) {
            return true;
        }
    }
    return false;
}

/* Every (or any) element of b is in a. */
static bool compare_sets(struct cel_eval *e, struct cel_val a, struct cel_val b, bool any)
{
    size_t x, y;
    struct cel_val *v = elements(e, a.list, &x), *w = elements(e, b.list, &y);
    for (size_t i = 0; i < y; i++) {
        if (has(e, v, x, w[i]) == any) {
            return any;
        }
    }
    return !any;
}

CEL_FN_DEF(cel_fn_sets_contains)
{
    return cel_bool(compare_sets(e, args[0], args[1], false));
}

CEL_FN_DEF(cel_fn_sets_equivalent)
{
    return cel_bool(compare_sets(e, args[0], args[1], false) &&
                    compare_sets(e, args[1], args[0], false));
}

CEL_FN_DEF(cel_fn_sets_intersects)
{
    return cel_bool(compare_sets(e, args[0], args[1], true));
}

/* ---- Optional values ---- */

CEL_FN_DEF(cel_fn_optional_of)
{
    return cel_some(e, args[0]);
}

CEL_FN_DEF(cel_fn_optional_none)
{
    return cel_none();
}

static bool is_zero(struct cel_val v)
{
    switch (v.kind) {
    case CEL_NULL:
        return true;
    case CEL_BOOL:
        return !v.b;
    case CEL_INT:
    case CEL_DURATION:
        return v.i == 0;
    case CEL_UINT:
        return v.u == 0;
    case CEL_DOUBLE:
        return v.d == 0;
    case CEL_STRING:
    case CEL_BYTES:
        return v.s.n == 0;
    case CEL_LIST:
        return cel_list_len(v.list) == 0;
    case CEL_MAP:
        return cel_map_len(v.map) == 0;
    case CEL_OPTIONAL:
        return !v.opt;
    default:
        return false;
    }
}

CEL_FN_DEF(cel_fn_optional_non_zero)
{
    return is_zero(args[0]) ? cel_none() : cel_some(e, args[0]);
}

CEL_FN_DEF(cel_fn_has_value)
{
    return cel_bool(args[0].opt != NULL);
}

CEL_FN_DEF(cel_fn_value)
{
    return args[0].opt ? *args[0].opt : cel_error(e, "optional.none() dereference");
}

CEL_FN_DEF(cel_fn_or)
{
    return args[0].opt ? args[0] : args[1];
}

CEL_FN_DEF(cel_fn_or_value)
{
    return args[0].opt ? *args[0].opt : args[1];
}

CEL_FN_DEF(cel_fn_unwrap)
{
    size_t k, m = 0;
    struct cel_val *v = elements(e, args[0].list, &k);
    for (size_t i = 0; i < k; i++) {
        if (v[i].kind != CEL_OPTIONAL) {
            return cel_no_overload();
        }
        if (v[i].opt) {
            v[m++] = *v[i].opt;
        }
    }
    return cel_make_list(e, v, m);
}
