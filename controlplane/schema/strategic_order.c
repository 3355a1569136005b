/*
 * The order of lists that a strategic merge patch merged, and the words for its faults.
 *
 * Elements fall into two groups: those that the patch (or its $setElementOrder) names, and those
 * that only the server has. Each group is sorted by its own order; then the server's elements are
 * put among the others, each before the first one that stood behind it in the live list. Sorting
 * is a stable insertion with upstream's comparison, which takes elements unknown to the order as
 * smaller than what stands before them; lists are short.
 *
 * Faults print values as Go's %v does, since the text reaches clients.
 */
#include "controlplane/schema/gotext.h"
#include "controlplane/schema/strategic_priv.h"

static bool same(const struct th_json *a, const struct th_json *b, const char *key)
{
    return key ? th_json_equal(th_json_get(a, key), th_json_get(b, key)) : th_json_equal(a, b);
}

int64_t th_strategic_index(const struct th_json *list, const struct th_json *e, const char *key)
{
    for (size_t i = 0; i < th_json_len(list); i++) {
        if (same(th_json_at(list, i), e, key)) {
            return (int64_t)i;
        }
    }
    return -1;
}

struct th_json *th_strategic_union(const struct th_json *a, const struct th_json *b)
{
    const struct th_json *lists[] = {a, b};
    size_t n = 0;
    struct th_json **v = th_xcalloc(th_json_len(a) + th_json_len(b) + 1, sizeof(*v));
    for (size_t l = 0; l < 2; l++) {
        for (size_t i = 0; i < th_json_len(lists[l]); i++) {
            v[n++] = th_json_at(lists[l], i);
        }
    }
    /* A duplicate's place is taken by the last element, as upstream's way of deduplicating does:
     * what the order laws leave open then comes out the same. */
    for (size_t i = 0; i + 1 < n; i++) {
        for (size_t j = i + 1; j < n;) {
            if (th_json_equal(v[i], v[j])) {
                v[j] = v[--n];
            } else {
                j++;
            }
        }
    }
    struct th_json *out = th_json_array();
    for (size_t i = 0; i < n; i++) {
        th_json_append(out, th_json_ref(v[i]));
    }
    free(v);
    return out;
}

static int check_keys(const struct th_json *list, const char *key, struct th_err *err)
{
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *e = th_json_at(list, i);
        if (!th_json_is(e, TH_JSON_OBJECT)) {
            return th_strategic_bad_arg_type("map[string]interface {}", e, err);
        }
        if (!th_json_has(e, key)) {
            return th_strategic_no_merge_key(e, key, err);
        }
    }
    return 0;
}

static void sort_by(struct th_json *list, const struct th_json *order, const char *key)
{
    size_t n = th_json_len(list);
    struct pos {
        struct th_json *e;
        int64_t at;
    } *v = th_xcalloc(n + 1, sizeof(*v));
    for (size_t i = 0; i < n; i++) {
        struct pos p = {.e = th_json_ref(th_json_at(list, i))};
        p.at = th_strategic_index(order, p.e, key);
        size_t k = i;
        while (k > 0 && (p.at < 0 || v[k - 1].at < 0 || p.at < v[k - 1].at)) {
            v[k] = v[k - 1];
            k--;
        }
        v[k] = p;
    }
    for (size_t i = 0; i < n; i++) {
        th_json_set_at(list, i, v[i].e);
    }
    free(v);
}

int th_strategic_order(const struct th_json *merged, const struct th_json *wanted,
                       const struct th_json *live, const char *key, bool maps,
                       struct th_json **ret, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *named = th_json_array();
    TH_AUTO(th_json) struct th_json *others = th_json_array();
    if (key) {
        TH_TRY(check_keys(merged, key, err));
    }
    if (maps && key) {
        TH_TRY(check_keys(wanted, key, err));
        TH_TRY(check_keys(live, key, err));
    }
    for (size_t i = 0; i < th_json_len(merged); i++) {
        struct th_json *e = th_json_at(merged, i);
        th_json_append(th_strategic_index(wanted, e, key) >= 0 ? named : others, th_json_ref(e));
    }
    sort_by(named, wanted, key);
    sort_by(others, live, key);
    struct th_json *all = th_json_array();
    size_t i = 0, j = 0, n_others = th_json_len(others), n_named = th_json_len(named);
    while (i < n_others || j < n_named) {
        bool other = j >= n_named;
        if (i < n_others && j < n_named) {
            int64_t at_i = th_strategic_index(live, th_json_at(others, i), key);
            int64_t at_j = th_strategic_index(live, th_json_at(named, j), key);
            other = at_i >= 0 && at_j >= 0 && at_i < at_j;
        }
        th_json_append(all, th_json_ref(other ? th_json_at(others, i++) : th_json_at(named, j++)));
    }
    *ret = all;
    return 0;
}

int th_strategic_check_order(const struct th_json *patch, const struct th_json *order,
                             const char *key, struct th_err *err)
{
    size_t at = 0, n = th_json_len(patch), n_order = th_json_len(order);
    if (n == 0 || n_order == 0) {
        return 0;
    }
    for (size_t i = 0; i < n; i++) {
        const struct th_json *e = th_json_at(patch, i);
        if (key && !th_json_is(e, TH_JSON_OBJECT)) {
            return th_strategic_bad_arg_type("map[string]interface {}", e, err);
        }
        if (th_json_is(e, TH_JSON_OBJECT) && th_json_has(e, "$patch") &&
            (at < n_order || th_streq(th_json_str(th_json_get(e, "$patch")), "delete"))) {
            continue;
        }
        bool found = false;
        while (!found && at < n_order) {
            const struct th_json *o = th_json_at(order, at++);
            if (key && !th_json_is(o, TH_JSON_OBJECT)) {
                return th_strategic_bad_arg_type("map[string]interface {}", o, err);
            }
            if (key && !th_json_has(e, key)) {
                return th_strategic_no_merge_key(e, key, err);
            }
            if (key && !th_json_has(o, key)) {
                return th_strategic_no_merge_key(o, key, err);
            }
            found = same(e, o, key);
        }
        if (!found) {
            th_autofree char *a = th_go_print(patch), *b = th_go_print(order);
            return th_fail(err, TH_R_INTERNAL,
                           "The order in patch list:\n%s\n doesn't match $setElementOrder list:\n"
                           "%s\n",
                           a, b);
        }
    }
    return 0;
}

/* ---- Faults ---- */

int th_strategic_no_merge_key(const struct th_json *map, const char *key, struct th_err *err)
{
    th_autofree char *text = th_go_print(map);
    return th_fail(err, TH_R_INTERNAL, "map: %s does not contain declared merge key: %s", text, key);
}

int th_strategic_bad_arg_type(const char *expected, const struct th_json *got, struct th_err *err)
{
    static const char *const names[] = {
        [TH_JSON_NULL] = "%!s(<nil>)",      [TH_JSON_BOOL] = "bool",
        [TH_JSON_INT] = "int64",            [TH_JSON_DOUBLE] = "float64",
        [TH_JSON_STRING] = "string",        [TH_JSON_ARRAY] = "[]interface {}",
        [TH_JSON_OBJECT] = "map[string]interface {}",
    };
    return th_fail(err, TH_R_INTERNAL, "expected a %s, but received a %s", expected,
                   names[th_json_type(got)]);
}

int th_strategic_bad_patch_type(const struct th_json *directive, const struct th_json *map,
                                struct th_err *err)
{
    /* Go's %s of what is not a string. */
    static const char *const formats[] = {
        [TH_JSON_NULL] = "%!s(<nil>)",
        [TH_JSON_BOOL] = "%!s(bool=",
        [TH_JSON_INT] = "%!s(int64=",
        [TH_JSON_DOUBLE] = "%!s(float64=",
    };
    th_autofree char *what = th_go_print(directive), *text = th_go_print(map);
    enum th_json_type t = th_json_type(directive);
    if (t <= TH_JSON_DOUBLE) {
        return th_fail(err, TH_R_INTERNAL, "unknown patch type: %s%s%s in map: %s", formats[t],
                       t == TH_JSON_NULL ? "" : what, t == TH_JSON_NULL ? "" : ")", text);
    }
    return th_fail(err, TH_R_INTERNAL, "unknown patch type: %s in map: %s", what, text);
}
