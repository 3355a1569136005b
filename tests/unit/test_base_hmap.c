/* base/hmap: both maps and the heap against plain models, over seeded random operations. */
#include "base/heap.h"
#include "base/hmap.h"
#include "base/rand.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static int freed;
static void count_free(void *p)
{
    (void)p;
    freed++;
}

static void *num(uintptr_t v)
{
    return (void *)v; /* values are never looked through */
}

static void hash_map_replaces_removes_and_frees(void **state)
{
    (void)state;
    struct th_hmap m;
    freed = 0;
    th_hmap_init(&m, count_free);
    assert_null(th_hmap_get(&m, "a"));
    assert_null(th_hmap_remove(&m, "a"));
    th_hmap_set(&m, "a", num(1));
    th_hmap_set(&m, "", num(2));
    th_hmap_set(&m, "a", num(3));
    assert_int_equal(freed, 1);
    th_hmap_set(&m, "a", num(3)); /* the same pointer again is no replacement */
    assert_int_equal(freed, 1);
    assert_ptr_equal(th_hmap_get(&m, "a"), num(3));
    assert_ptr_equal(th_hmap_get(&m, ""), num(2));
    assert_ptr_equal(th_hmap_get_n(&m, "abc", 1), num(3));
    assert_ptr_equal(th_hmap_remove(&m, "a"), num(3));
    assert_int_equal(freed, 1);
    th_hmap_set(&m, "null", NULL);
    assert_true(th_hmap_has(&m, "null"));
    assert_null(th_hmap_get(&m, "null"));
    assert_int_equal(m.n, 2);
    th_hmap_clear(&m);
    assert_int_equal(freed, 2);
    assert_int_equal(m.n, 0);
    assert_false(th_hmap_has(&m, "null"));
    th_hmap_done(&m);
}

#define KEYS 700

static void hash_map_agrees_with_a_plain_array(void **state)
{
    (void)state;
    static uintptr_t model[KEYS];
    struct th_hmap m;
    th_hmap_init(&m, NULL);
    th_rand_seed(11);
    size_t live = 0;
    for (uintptr_t step = 1; step < 60000; step++) {
        size_t k = th_rand_below(KEYS);
        char key[32];
        (void)snprintf(key, sizeof(key), "node-%zu", k);
        /* phases of growing and of shrinking, so that the table resizes both ways */
        if (th_rand_below(10) < (step / 10000 % 2 ? 3u : 7u)) {
            live += model[k] == 0;
            model[k] = step;
            th_hmap_set(&m, key, num(step));
        } else {
            assert_ptr_equal(th_hmap_remove(&m, key), num(model[k]));
            live -= model[k] != 0;
            model[k] = 0;
        }
        assert_int_equal(m.n, live);
        size_t other = th_rand_below(KEYS);
        (void)snprintf(key, sizeof(key), "node-%zu", other);
        assert_ptr_equal(th_hmap_get(&m, key), num(model[other]));
    }
    size_t seen = 0;
    size_t it = 0;
    struct th_hmap_entry *e;
    while ((e = th_hmap_next(&m, &it))) {
        assert_ptr_equal(e->value, num(model[strtoul(e->key + 5, NULL, 10)]));
        seen++;
    }
    assert_int_equal(seen, live);
    th_hmap_done(&m);
}

/* Keys that share long prefixes and cross every boundary the tree's short heads know. */
static void make_key(size_t k, char *key, size_t n)
{
    switch (k % 4) {
    case 0:
        (void)snprintf(key, n, "/registry/pods/ns-%zu/pod-%zu", k % 7, k);
        break;
    case 1:
        (void)snprintf(key, n, "/registry/pods/ns-%zu", k);
        break;
    case 2:
        (void)snprintf(key, n, "%c%zu", (char)(1 + k % 255), k);
        break;
    default:
        (void)snprintf(key, n, "/registry/%.*s%zu", (int)(k % 23), "aaaaaaaaaaaaaaaaaaaaaaa", k);
        break;
    }
}

struct walk {
    char last[64];
    size_t n;
    size_t stop_after;
};

static bool walk_step(const struct th_omap_entry *e, void *arg)
{
    struct walk *w = arg;
    assert_int_equal(strlen(e->key), e->key_n);
    assert_true(w->n == 0 || strcmp(w->last, e->key) < 0);
    (void)snprintf(w->last, sizeof(w->last), "%s", e->key);
    return ++w->n != w->stop_after;
}

/* Every way of reading the map must give the model's keys in order. */
static void compare_all(const struct th_omap *m, const uintptr_t *model, size_t n_keys)
{
    size_t live = 0;
    for (size_t k = 0; k < n_keys; k++) {
        char key[64];
        make_key(k, key, sizeof(key));
        assert_ptr_equal(th_omap_get(m, key), num(model[k]));
        live += model[k] != 0;
    }
    assert_int_equal(th_omap_count(m), live);
    struct walk w = {.stop_after = SIZE_MAX};
    th_omap_each(m, "", walk_step, &w);
    assert_int_equal(w.n, live);
    size_t stepped = 0;
    struct th_omap_entry e;
    for (bool ok = th_omap_seek(m, "", &e); ok; ok = th_omap_after(m, e.key, &e)) {
        stepped++;
    }
    assert_int_equal(stepped, live);
}

static void compare_prefix(const struct th_omap *m, const uintptr_t *model, size_t n_keys,
                           const char *prefix)
{
    size_t expected = 0;
    const char *least = NULL;
    char least_buf[64];
    for (size_t k = 0; k < n_keys; k++) {
        char key[64];
        make_key(k, key, sizeof(key));
        if (model[k] && th_startswith(key, prefix)) {
            expected++;
        }
        if (model[k] && strcmp(key, prefix) >= 0 && (!least || strcmp(key, least) < 0)) {
            (void)snprintf(least_buf, sizeof(least_buf), "%s", key);
            least = least_buf;
        }
    }
    assert_int_equal(th_omap_count_prefix(m, prefix), expected);
    struct walk w = {.stop_after = SIZE_MAX};
    th_omap_each(m, prefix, walk_step, &w);
    assert_int_equal(w.n, expected);
    struct th_omap_entry e;
    assert_int_equal(th_omap_seek(m, prefix, &e), least != NULL);
    if (least) {
        assert_string_equal(e.key, least);
    }
}

static void ordered_map_agrees_with_a_plain_array(void **state)
{
    (void)state;
    enum { N = 3000 };
    static uintptr_t model[N];
    TH_AUTO(th_omap) struct th_omap *m = th_omap_new(NULL);
    th_rand_seed(5);
    for (uintptr_t step = 1; step <= 60000; step++) {
        size_t k = th_rand_below(N);
        char key[64];
        make_key(k, key, sizeof(key));
        if (th_rand_below(10) < (step / 12000 % 2 ? 1u : 8u)) {
            model[k] = step;
            th_omap_set(m, key, num(step));
        } else {
            assert_ptr_equal(th_omap_remove(m, key), num(model[k]));
            model[k] = 0;
        }
        if (step % 6000 == 0) {
            compare_all(m, model, N);
            static const char *const prefixes[] = {"",
                                                   "/",
                                                   "/registry/",
                                                   "/registry/pods/ns-3/",
                                                   "/registry/pods/ns-3",
                                                   "/registry/aaaaaaaa",
                                                   "/registry/zzz",
                                                   "\x01",
                                                   "\xff",
                                                   "nothing"};
            for (size_t i = 0; i < TH_ARRAY_LEN(prefixes); i++) {
                compare_prefix(m, model, N, prefixes[i]);
            }
        }
    }
}

static void ordered_map_shrinks_to_nothing_in_any_order(void **state)
{
    (void)state;
    enum { N = 5000 };
    for (int order = 0; order < 3; order++) {
        TH_AUTO(th_omap) struct th_omap *m = th_omap_new(NULL);
        for (uintptr_t i = 0; i < N; i++) {
            char key[16];
            (void)snprintf(key, sizeof(key), "%06zu", (size_t)i);
            th_omap_set(m, key, num(i + 1));
        }
        for (size_t i = 0; i < N; i++) {
            size_t k = order == 0 ? i : order == 1 ? N - 1 - i : i * 1237 % N;
            char key[16];
            (void)snprintf(key, sizeof(key), "%06zu", k);
            assert_ptr_equal(th_omap_remove(m, key), num(k + 1));
            assert_null(th_omap_get(m, key));
        }
        assert_int_equal(th_omap_count(m), 0);
        struct th_omap_entry e;
        assert_false(th_omap_seek(m, "", &e));
        th_omap_set(m, "again", num(1));
        assert_true(th_omap_seek(m, "", &e));
        assert_string_equal(e.key, "again");
        assert_false(th_omap_after(m, "again", &e));
    }
}

static void ordered_map_frees_values_it_replaces_and_holds(void **state)
{
    (void)state;
    freed = 0;
    struct th_omap *m = th_omap_new(count_free);
    for (uintptr_t i = 0; i < 200; i++) {
        char key[16];
        (void)snprintf(key, sizeof(key), "%zu", (size_t)i % 150);
        th_omap_set(m, key, num(i + 1));
    }
    assert_int_equal(freed, 50);
    assert_non_null(th_omap_remove(m, "7"));
    assert_null(th_omap_remove(m, "7"));
    assert_int_equal(freed, 50);
    th_omap_free(m);
    assert_int_equal(freed, 199);
}

static void ordered_walk_stops_when_asked(void **state)
{
    (void)state;
    TH_AUTO(th_omap) struct th_omap *m = th_omap_new(NULL);
    for (uintptr_t i = 0; i < 500; i++) {
        char key[16];
        (void)snprintf(key, sizeof(key), "k%03zu", (size_t)i);
        th_omap_set(m, key, num(i + 1));
    }
    struct walk w = {.stop_after = 7};
    th_omap_each(m, "k1", walk_step, &w);
    assert_int_equal(w.n, 7);
    assert_string_equal(w.last, "k106");
}

static void heap_gives_the_earliest_and_lets_any_leave(void **state)
{
    (void)state;
    enum { N = 500 };
    static struct th_heap_node nodes[N];
    struct th_heap h = {0};
    th_rand_seed(3);
    for (size_t i = 0; i < N; i++) {
        th_heap_put(&h, &nodes[i], (int64_t)th_rand_below(100));
    }
    for (size_t i = 0; i < N; i += 3) {
        th_heap_remove(&h, &nodes[i]);
        th_heap_remove(&h, &nodes[i]); /* once more does nothing */
        assert_false(th_heap_has(&nodes[i]));
    }
    for (size_t i = 1; i < N; i += 3) {
        th_heap_put(&h, &nodes[i], (int64_t)th_rand_below(100)); /* moves */
    }
    struct th_heap_node *node;
    int64_t last = -1;
    uint64_t last_seq = 0;
    size_t n = 0;
    while ((node = th_heap_first(&h))) {
        assert_true(node->at > last || (node->at == last && node->seq > last_seq));
        last = node->at;
        last_seq = node->seq;
        th_heap_remove(&h, node);
        n++;
    }
    assert_int_equal(n, N - (N + 2) / 3);
    th_heap_done(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hash_map_replaces_removes_and_frees),
        cmocka_unit_test(hash_map_agrees_with_a_plain_array),
        cmocka_unit_test(ordered_map_agrees_with_a_plain_array),
        cmocka_unit_test(ordered_map_shrinks_to_nothing_in_any_order),
        cmocka_unit_test(ordered_map_frees_values_it_replaces_and_holds),
        cmocka_unit_test(ordered_walk_stops_when_asked),
        cmocka_unit_test(heap_gives_the_earliest_and_lets_any_leave),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
