/* The store's behaviour without crashes and threads: preconditions, atomicity, stamping, lists,
 * watches, compaction, reopening, damage. Every case runs against memory and against SQLite where
 * both must agree. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/io.h"
#include "base/rand.h"
#include "controlplane/store/store_priv.h"

#include <inttypes.h>
#include <sched.h>
#include <sqlite3.h>
#include <sys/stat.h>

static char g_dir[64];
static char *g_path;

static int fresh_dir(void **state)
{
    (void)state;
    snprintf(g_dir, sizeof(g_dir), "/tmp/th-store-XXXXXX");
    assert_non_null(mkdtemp(g_dir));
    g_path = th_path_join(g_dir, "state.db");
    return 0;
}

static int drop_dir(void **state)
{
    (void)state;
    free(g_path);
    return th_io_rm_rf(g_dir, NULL);
}

static struct th_store *open_store(const char *path, int64_t max_b)
{
    struct th_store_opts o = {.path = path, .history_max_b = max_b};
    struct th_store *s;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (th_store_open(&o, &s, &err) < 0) {
        fail_msg("open: %s", err.msg);
    }
    return s;
}

static int put(struct th_store *s, enum th_store_op op, const char *key, const char *data,
               int64_t expect, struct th_obj **ret)
{
    th_autofree char *text = th_xasprintf("{\"metadata\":{\"name\":\"x\",\"uid\":\"u\",\"labels\":"
                                          "{\"app\":\"%s\"}},\"data\":\"%s\"}",
                                          data, data);
    bool bare = op == TH_STORE_DELETE;
    struct th_store_write w = {op, key, bare ? NULL : text, bare ? 0 : strlen(text), expect};
    struct th_obj *o = NULL;
    int r = th_store_commit(s, &w, 1, &o, NULL);
    if (ret) {
        *ret = o;
    } else {
        th_obj_unref(o);
    }
    return r;
}

static char *data_of(const struct th_obj *o)
{
    const char *p = strstr(o->bytes, "\"data\":\"") + 8;
    return th_xstrndup(p, (size_t)(strchr(p, '"') - p));
}

static void check_data(const struct th_obj *o, const char *want)
{
    th_autofree char *d = data_of(o);
    assert_string_equal(d, want);
}

/* ---- Head scanner ---- */

static void resource_version_is_put_where_it_belongs(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"{\"metadata\":{\"name\":\"a\",\"uid\":\"u\",\"x\":1}}",
         "{\"metadata\":{\"name\":\"a\",\"uid\":\"u\",\"resourceVersion\":\"42\",\"x\":1}}"},
        {"{\"metadata\":{\"name\":\"a\"}}",
         "{\"metadata\":{\"resourceVersion\":\"42\",\"name\":\"a\"}}"},
        {"{\"metadata\":{}}", "{\"metadata\":{\"resourceVersion\":\"42\"}}"},
        {"{\"metadata\":null,\"a\":1}", "{\"metadata\":{\"resourceVersion\":\"42\"},\"a\":1}"},
        {"{\"a\":1}", "{\"metadata\":{\"resourceVersion\":\"42\"},\"a\":1}"},
        {" { } ", " {\"metadata\":{\"resourceVersion\":\"42\"} } "},
        {"{\"metadata\":{\"resourceVersion\":\"7\",\"uid\":\"u\"}}",
         "{\"metadata\":{\"resourceVersion\":\"42\",\"uid\":\"u\"}}"},
        {"{\"metadata\":{\"uid\":\"u\",\"resourceVersion\":null}}",
         "{\"metadata\":{\"uid\":\"u\",\"resourceVersion\":\"42\"}}"},
        /* Traps: the names in strings, in other objects, behind escaped quotes. */
        {"{\"spec\":{\"metadata\":{\"resourceVersion\":\"1\"}},\"a\":\"\\\\\",\"b\":"
         "\"\\\"metadata\\\":{\","
         "\"metadata\":{\"annotations\":{\"resourceVersion\":\"9\",\"uid\":\"z\"},\"uid\":\"u\"}}",
         "{\"spec\":{\"metadata\":{\"resourceVersion\":\"1\"}},\"a\":\"\\\\\",\"b\":"
         "\"\\\"metadata\\\":{\","
         "\"metadata\":{\"annotations\":{\"resourceVersion\":\"9\",\"uid\":\"z\"},\"uid\":\"u\","
         "\"resourceVersion\":\"42\"}}"},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        struct th_head h;
        assert_int_equal(th_head_scan(cases[i][0], strlen(cases[i][0]), &h, NULL), 0);
        TH_AUTO(th_obj)
        struct th_obj *o = th_obj_new("k", &h, cases[i][0], strlen(cases[i][0]), 42, 1);
        assert_string_equal(o->bytes, cases[i][1]);
        assert_int_equal(o->n, strlen(cases[i][1]));
        TH_AUTO(th_obj) struct th_obj *again = th_obj_restamp(o, 42);
        assert_string_equal(again->bytes, cases[i][1]);
    }
}

static void what_is_not_an_object_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "null",
        "[]",
        "{",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1}}",
        "{\"a\":1} x",
        "{a:1}",
        "{\"a\":\"}",
        "{\"a\":{\"b\":1}",
        "{\"metadata\":{\"uid\"}}",
        "{,}",
        "{\"a\":1,}",
        "{\"a\":}",
        "{\"metadata\":{\"uid\":\"x\",}}",
        "{\"a\" 1}",
        "\"metadata\"",
        "{\"a\":\"\\\"}",
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(bad); i++) {
        struct th_head h;
        if (th_head_scan(bad[i], strlen(bad[i]), &h, NULL) != -TH_R_BAD_REQUEST) {
            fail_msg("accepted: %s", bad[i]);
        }
    }
}

static void labels_are_found_without_parsing(void **state)
{
    (void)state;
    static const char text[] =
        "{\"metadata\":{\"labels\":{\"a\":\"1\",\"example.com/b\":\"\",\"n\":5},"
        "\"uid\":\"u\",\"managedFields\":[{\"labels\":{\"c\":\"3\"}}]}}";
    struct th_head h;
    assert_int_equal(th_head_scan(text, sizeof(text) - 1, &h, NULL), 0);
    TH_AUTO(th_obj) struct th_obj *o = th_obj_new("k", &h, text, sizeof(text) - 1, 7, 7);
    struct th_str v;
    assert_true(th_obj_label(o, "a", &v));
    assert_true(th_str_eq(v, TH_STR("1")));
    assert_true(th_obj_label(o, "example.com/b", &v));
    assert_int_equal(v.n, 0);
    assert_false(th_obj_label(o, "n", &v));
    assert_false(th_obj_label(o, "c", &v));
    TH_AUTO(th_obj) struct th_obj *o2 = th_obj_restamp(o, 123456789);
    assert_true(th_obj_label(o2, "a", &v));
    assert_true(th_str_eq(v, TH_STR("1")));
}

/* ---- Writes ---- */

static void preconditions(struct th_store *s)
{
    TH_AUTO(th_obj) struct th_obj *a = NULL;
    TH_AUTO(th_obj) struct th_obj *b = NULL;
    assert_int_equal(th_store_rv(s), 1);
    assert_int_equal(put(s, TH_STORE_UPDATE, "core/pods/d/a", "1", 0, NULL), -TH_R_NOT_FOUND);
    assert_int_equal(put(s, TH_STORE_DELETE, "core/pods/d/a", "", 0, NULL), -TH_R_NOT_FOUND);
    assert_int_equal(put(s, TH_STORE_CREATE, "core/pods/d/a", "1", 0, &a), 0);
    assert_int_equal(a->rv, 2);
    assert_int_equal(a->create_rv, 2);
    assert_non_null(strstr(a->bytes, "\"resourceVersion\":\"2\""));
    assert_int_equal(put(s, TH_STORE_CREATE, "core/pods/d/a", "1", 0, NULL), -TH_R_ALREADY_EXISTS);
    assert_int_equal(put(s, TH_STORE_UPDATE, "core/pods/d/a", "2", 2, &b), 0);
    assert_int_equal(b->rv, 3);
    assert_int_equal(b->create_rv, 2);
    assert_int_equal(put(s, TH_STORE_UPDATE, "core/pods/d/a", "3", 2, NULL), -TH_R_CONFLICT);
    assert_int_equal(put(s, TH_STORE_DELETE, "core/pods/d/a", "", 2, NULL), -TH_R_CONFLICT);
    assert_int_equal(th_store_rv(s), 3); /* failures take no revision */
    assert_int_equal(put(s, TH_STORE_DELETE, "core/pods/d/a", "", 3, NULL), 0);
    assert_null(th_store_get(s, "core/pods/d/a"));
    assert_int_equal(th_store_rv(s), 4);
    assert_int_equal(put(s, TH_STORE_CREATE, "core/pods/d/a", "4", 0, NULL), 0);
    TH_AUTO(th_obj) struct th_obj *now = th_store_get(s, "core/pods/d/a");
    assert_int_equal(now->create_rv, 5);
}

static void preconditions_are_checked_against_the_newest_state(void **state)
{
    (void)state;
    struct th_store *s = open_store(NULL, 0);
    preconditions(s);
    th_store_close(s);
    s = open_store(g_path, 0);
    preconditions(s);
    th_store_close(s);
}

static void several_writes_are_all_or_none(void **state)
{
    (void)state;
    struct th_store *s = open_store(g_path, 0);
    static const char t[] = "{\"data\":\"t\"}";
    struct th_store_write w[] = {
        {TH_STORE_CREATE, "a/b/-/1", t, sizeof(t) - 1, 0},
        {TH_STORE_UPDATE, "a/b/-/1", t, sizeof(t) - 1, 0},
        {TH_STORE_CREATE, "a/b/-/2", t, sizeof(t) - 1, 0},
        {TH_STORE_DELETE, "a/b/-/1", NULL, 0, 0},
        {TH_STORE_CREATE, "a/b/-/2", t, sizeof(t) - 1, 0},
    };
    struct th_obj *o[5];
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    assert_int_equal(th_store_commit(s, w, 5, o, &err), -TH_R_ALREADY_EXISTS);
    assert_int_equal(th_store_rv(s), 1);
    assert_null(th_store_get(s, "a/b/-/1"));
    assert_null(th_store_get(s, "a/b/-/2"));
    assert_int_equal(th_store_commit(s, w, 4, o, &err), 0);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(o[i]->rv, 2 + i);
        th_obj_unref(o[i]);
    }
    assert_null(th_store_get(s, "a/b/-/1"));
    struct th_store_write bad = {TH_STORE_CREATE, "a/b/-/3", "[1]", 3, 0};
    assert_int_equal(th_store_commit(s, &bad, 1, NULL, NULL), -TH_R_BAD_REQUEST);
    th_autofree char *big = th_xmalloc(TH_LIMIT_OBJECT_B + 1);
    bad = (struct th_store_write){TH_STORE_CREATE, "a/b/-/3", big, TH_LIMIT_OBJECT_B + 1, 0};
    assert_int_equal(th_store_commit(s, &bad, 1, NULL, NULL), -TH_R_TOO_LARGE);
    th_store_close(s);
}

/* ---- Lists ---- */

static void lists(struct th_store *s)
{
    for (int i = 0; i < 30; i++) {
        char key[40];
        snprintf(key, sizeof(key), "core/pods/ns%d/p%02d", i % 3, i);
        assert_int_equal(put(s, TH_STORE_CREATE, key, "v", 0, NULL), 0);
    }
    assert_int_equal(put(s, TH_STORE_CREATE, "core/pods2/ns1/x", "v", 0, NULL), 0);
    struct th_store_list l;
    assert_int_equal(th_store_range(s, "core/pods/", NULL, 0, 0, &l, NULL), 0);
    assert_int_equal(l.n, 30);
    assert_false(l.more);
    assert_int_equal(l.rv, th_store_rv(s));
    int64_t at = l.rv;
    th_store_list_done(&l);
    assert_int_equal(th_store_range(s, "core/pods/ns1/", NULL, 4, 0, &l, NULL), 0);
    assert_int_equal(l.n, 4);
    assert_true(l.more);
    assert_int_equal(l.remaining, 6);
    assert_string_equal(l.objs[3]->key, "core/pods/ns1/p10");
    th_store_list_done(&l);
    /* The world changes; the list at its revision does not. */
    assert_int_equal(put(s, TH_STORE_DELETE, "core/pods/ns1/p13", "", 0, NULL), 0);
    assert_int_equal(put(s, TH_STORE_UPDATE, "core/pods/ns1/p16", "new", 0, NULL), 0);
    assert_int_equal(put(s, TH_STORE_UPDATE, "core/pods/ns1/p16", "newer", 0, NULL), 0);
    assert_int_equal(put(s, TH_STORE_CREATE, "core/pods/ns1/p14", "new", 0, NULL), 0);
    assert_int_equal(th_store_range(s, "core/pods/ns1/", "core/pods/ns1/p10", 3, at, &l, NULL), 0);
    assert_int_equal(l.n, 3);
    assert_int_equal(l.rv, at);
    assert_int_equal(l.remaining, 3);
    assert_string_equal(l.objs[0]->key, "core/pods/ns1/p13");
    assert_string_equal(l.objs[1]->key, "core/pods/ns1/p16");
    check_data(l.objs[1], "v");
    assert_string_equal(l.objs[2]->key, "core/pods/ns1/p19");
    th_store_list_done(&l);
    assert_int_equal(th_store_range(s, "core/pods/ns1/p13", NULL, 0, 0, &l, NULL), 0);
    assert_int_equal(l.n, 0);
    assert_int_equal(th_store_range(s, "", NULL, 0, at, &l, NULL), 0);
    assert_int_equal(l.n, 31);
    th_store_list_done(&l);
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    assert_int_equal(th_store_range(s, "", NULL, 0, at + 100, &l, &err), -TH_R_TIMEOUT);
    assert_string_equal(err.msg, "Timeout: Too large resource version: 132, current: 36");
}

static void lists_are_consistent_at_their_revision(void **state)
{
    (void)state;
    struct th_store *s = open_store(NULL, 0);
    lists(s);
    th_store_close(s);
    s = open_store(g_path, 0);
    lists(s);
    th_store_close(s);
}

static void history_is_read_from_sqlite_after_a_restart(void **state)
{
    (void)state;
    struct th_store *s = open_store(g_path, 0);
    lists(s);
    th_store_close(s);
    s = open_store(g_path, 0);
    struct th_store_list l;
    assert_int_equal(th_store_rv(s), 36);
    assert_int_equal(th_store_range(s, "core/pods/ns1/", "core/pods/ns1/p10", 3, 32, &l, NULL), 0);
    assert_int_equal(l.n, 3);
    assert_int_equal(l.remaining, 3);
    check_data(l.objs[1], "v");
    assert_string_equal(l.objs[0]->key, "core/pods/ns1/p13");
    th_store_list_done(&l);
    struct th_watch *w;
    bool cut;
    assert_int_equal(th_watch_open(s, "core/pods/ns1/", 32, NULL, NULL, &w, NULL), 0);
    static const enum th_event_type types[] = {TH_EV_DELETED, TH_EV_MODIFIED, TH_EV_MODIFIED,
                                               TH_EV_ADDED};
    for (int i = 0; i < 4; i++) {
        struct th_event *e = th_watch_next(w, &cut);
        assert_non_null(e);
        assert_int_equal(e->type, types[i]);
        assert_int_equal(e->rv, 33 + i);
        assert_int_equal(e->obj->rv, 33 + i);
        assert_int_equal(e->prev != NULL, types[i] != TH_EV_ADDED);
        th_event_unref(e);
    }
    assert_null(th_watch_next(w, &cut));
    assert_false(cut);
    assert_int_equal(th_watch_progress(w), 36);
    th_watch_close(w);
    th_store_close(s);
}

/* ---- Watches ---- */

static void count_wake(void *arg)
{
    __atomic_add_fetch((int *)arg, 1, __ATOMIC_RELAXED);
}

static void expect_event(struct th_watch *w, enum th_event_type type, const char *key, int64_t rv)
{
    struct th_event *e = th_watch_next(w, NULL);
    assert_non_null(e);
    assert_int_equal(e->type, type);
    assert_string_equal(e->obj->key, key);
    assert_int_equal(e->rv, rv);
    th_event_unref(e);
}

static void watches(struct th_store *s)
{
    struct th_watch *all, *pods, *ns, *one, *future;
    int woken = 0;
    bool cut;
    assert_int_equal(th_watch_open(s, "", 1, NULL, NULL, &all, NULL), 0);
    assert_int_equal(th_watch_open(s, "core/pods/", 1, count_wake, &woken, &pods, NULL), 0);
    assert_int_equal(th_watch_open(s, "core/pods/d/", 1, NULL, NULL, &ns, NULL), 0);
    assert_int_equal(th_watch_open(s, "core/pods/d/a", 1, NULL, NULL, &one, NULL), 0);
    assert_int_equal(th_watch_open(s, "core/", 3, NULL, NULL, &future, NULL), 0);
    assert_int_equal(put(s, TH_STORE_CREATE, "core/pods/d/a", "1", 0, NULL), 0);
    assert_int_equal(put(s, TH_STORE_CREATE, "core/pods/e/b", "1", 0, NULL), 0);
    assert_int_equal(put(s, TH_STORE_CREATE, "apps/deployments/d/a", "1", 0, NULL), 0);
    assert_int_equal(put(s, TH_STORE_UPDATE, "core/pods/d/a", "2", 0, NULL), 0);
    assert_int_equal(put(s, TH_STORE_DELETE, "core/pods/d/a", "", 0, NULL), 0);
    assert_int_equal(__atomic_load_n(&woken, __ATOMIC_RELAXED), 1);
    for (int64_t rv = 2; rv <= 6; rv++) {
        struct th_event *e = th_watch_next(all, &cut);
        assert_int_equal(e->rv, rv);
        th_event_unref(e);
    }
    assert_null(th_watch_next(all, &cut));
    expect_event(pods, TH_EV_ADDED, "core/pods/d/a", 2);
    assert_int_equal(th_watch_progress(pods), 2);
    expect_event(pods, TH_EV_ADDED, "core/pods/e/b", 3);
    expect_event(pods, TH_EV_MODIFIED, "core/pods/d/a", 5);
    expect_event(pods, TH_EV_DELETED, "core/pods/d/a", 6);
    assert_null(th_watch_next(pods, &cut));
    expect_event(ns, TH_EV_ADDED, "core/pods/d/a", 2);
    expect_event(ns, TH_EV_MODIFIED, "core/pods/d/a", 5);
    expect_event(one, TH_EV_ADDED, "core/pods/d/a", 2);
    expect_event(future, TH_EV_MODIFIED, "core/pods/d/a", 5);
    struct th_event *e = th_watch_next(ns, &cut);
    struct th_str f = th_event_frame(e, TH_EV_DELETED);
    assert_memory_equal(f.p, "{\"type\":\"DELETED\",\"object\":{\"metadata\":", 38);
    assert_non_null(strstr(f.p, "\"resourceVersion\":\"6\""));
    assert_memory_equal(f.p + f.n - 3, "}}\n", 3);
    assert_ptr_equal(th_event_frame(e, TH_EV_DELETED).p, f.p);
    check_data(e->obj, "2");
    th_event_unref(e);
    assert_null(th_watch_next(ns, &cut));
    assert_int_equal(th_watch_progress(ns), 6);
    /* Late comers read the past from the ring. */
    struct th_watch *late;
    assert_int_equal(th_watch_open(s, "core/pods/d/", 4, NULL, NULL, &late, NULL), 0);
    e = th_watch_next(late, &cut);
    assert_int_equal(e->rv, 5);
    /* A selector's transition shows the state before with the revision of the change. */
    f = th_event_frame(e, TH_EV_DELETED);
    assert_non_null(strstr(f.p, "\"resourceVersion\":\"5\""));
    assert_non_null(strstr(f.p, "\"data\":\"1\""));
    th_event_unref(e);
    expect_event(late, TH_EV_DELETED, "core/pods/d/a", 6);
    struct th_watch *v[] = {all, pods, ns, one, future, late};
    for (size_t i = 0; i < TH_ARRAY_LEN(v); i++) {
        th_watch_close(v[i]);
    }
    struct th_store_stats st;
    th_store_stats(s, &st);
    assert_int_equal(st.watchers, 0);
    assert_int_equal(st.keys, 2);
}

static void watchers_get_their_events_once_and_in_order(void **state)
{
    (void)state;
    struct th_store *s = open_store(NULL, 0);
    watches(s);
    th_store_close(s);
    s = open_store(g_path, 0);
    watches(s);
    th_store_close(s);
}

static void slow_watchers_are_cut_off(void **state)
{
    (void)state;
    struct th_store *s = open_store(NULL, 0);
    struct th_watch *slow, *other;
    bool cut;
    assert_int_equal(th_watch_open(s, "core/pods/", 1, NULL, NULL, &slow, NULL), 0);
    assert_int_equal(th_watch_open(s, "core/nodes/", 1, NULL, NULL, &other, NULL), 0);
    static const char t[] = "{\"data\":\"t\"}";
    assert_int_equal(put(s, TH_STORE_CREATE, "core/pods/d/a", "x", 0, NULL), 0);
    struct th_store_write w[256];
    for (size_t i = 0; i < TH_ARRAY_LEN(w); i++) {
        w[i] = (struct th_store_write){TH_STORE_UPDATE, "core/pods/d/a", t, sizeof(t) - 1, 0};
    }
    for (int i = 0; i < 17; i++) {
        assert_int_equal(th_store_commit(s, w, TH_ARRAY_LEN(w), NULL, NULL), 0);
    }
    assert_null(th_watch_next(slow, &cut));
    assert_true(cut);
    assert_null(th_watch_next(other, &cut));
    assert_false(cut);
    assert_int_equal(th_watch_progress(other), th_store_rv(s));
    th_watch_close(slow);
    th_watch_close(other);
    th_store_close(s);
}

/* ---- Compaction ---- */

static void compaction_keeps_the_newest_and_expires_the_rest(void **state)
{
    (void)state;
    for (int mem = 0; mem < 2; mem++) {
        struct th_store *s = open_store(mem ? NULL : g_path, 0);
        for (int i = 0; i < 600; i++) {
            char key[32];
            snprintf(key, sizeof(key), "a/b/-/%d", i % 20);
            bool del = i % 7 == 6;
            TH_AUTO(th_obj) struct th_obj *now = th_store_get(s, key);
            enum th_store_op op = !now ? TH_STORE_CREATE : del ? TH_STORE_DELETE : TH_STORE_UPDATE;
            assert_int_equal(put(s, op, key, "v", 0, NULL), 0);
        }
        struct th_store_list before, after;
        assert_int_equal(th_store_range(s, "a/", NULL, 0, 500, &before, NULL), 0);
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        assert_int_equal(th_store_compact(s, 10000, &err), -TH_R_BAD_REQUEST);
        assert_int_equal(th_store_compact(s, 500, &err), 0);
        assert_int_equal(th_store_compact(s, 400, &err), 0);
        assert_int_equal(th_store_compacted_rv(s), 500);
        struct th_watch *w;
        assert_int_equal(th_watch_open(s, "a/", 499, NULL, NULL, &w, &err), -TH_R_EXPIRED);
        assert_string_equal(err.msg, "too old resource version: 499 (500)");
        assert_int_equal(th_store_range(s, "a/", NULL, 0, 499, &after, NULL), -TH_R_EXPIRED);
        if (!mem) { /* what is left is on disk, not in the ring */
            th_store_close(s);
            s = open_store(g_path, 0);
            assert_int_equal(th_store_compacted_rv(s), 500);
        }
        assert_int_equal(th_store_range(s, "a/", NULL, 0, 500, &after, NULL), 0);
        assert_int_equal(after.n, before.n);
        for (size_t i = 0; i < after.n; i++) {
            assert_string_equal(after.objs[i]->bytes, before.objs[i]->bytes);
        }
        th_store_list_done(&before);
        th_store_list_done(&after);
        assert_int_equal(th_watch_open(s, "a/", 500, NULL, NULL, &w, NULL), 0);
        for (int64_t rv = 501; rv <= 601; rv++) {
            struct th_event *e = th_watch_next(w, NULL);
            assert_int_equal(e->rv, rv);
            assert_int_equal(e->prev != NULL, e->type != TH_EV_ADDED);
            th_event_unref(e);
        }
        th_watch_close(w);
        /* All of it, so that the newest row is a deletion that goes away: revisions go on. */
        assert_int_equal(put(s, TH_STORE_CREATE, "a/c/-/1", "v", 0, NULL), 0);
        assert_int_equal(put(s, TH_STORE_DELETE, "a/c/-/1", "v", 0, NULL), 0);
        assert_int_equal(th_store_compact(s, 603, &err), 0);
        if (!mem) {
            th_store_close(s);
            s = open_store(g_path, 0);
        }
        assert_int_equal(th_store_rv(s), 603);
        assert_int_equal(th_watch_open(s, "a/", 603, NULL, NULL, &w, NULL), 0);
        th_watch_close(w);
        th_store_close(s);
    }
}

static void memory_history_is_bounded_by_size(void **state)
{
    (void)state;
    struct th_store *s = open_store(NULL, 20000);
    assert_int_equal(put(s, TH_STORE_CREATE, "a/b/-/1", "v", 0, NULL), 0);
    for (int i = 0; i < 500; i++) {
        assert_int_equal(put(s, TH_STORE_UPDATE, "a/b/-/1", "v", 0, NULL), 0);
    }
    assert_true(th_store_compacted_rv(s) > 300);
    struct th_watch *w;
    assert_int_equal(th_watch_open(s, "a/", 5, NULL, NULL, &w, NULL), -TH_R_EXPIRED);
    th_store_close(s);
}

static void old_history_goes_by_itself(void **state)
{
    (void)state;
    th_clock_simulate(1000000);
    struct th_store_opts o = {.path = g_path, .history_max_age_ms = 3600000};
    struct th_store *s;
    assert_int_equal(th_store_open(&o, &s, NULL), 0);
    assert_int_equal(put(s, TH_STORE_CREATE, "a/b/-/1", "v", 0, NULL), 0);
    assert_int_equal(put(s, TH_STORE_UPDATE, "a/b/-/1", "v", 0, NULL), 0);
    th_clock_advance_ms(3500000);
    assert_int_equal(put(s, TH_STORE_UPDATE, "a/b/-/1", "v", 0, NULL), 0);
    th_clock_advance_ms(200000);
    while (th_store_compacted_rv(s) < 3) {
        th_clock_advance_ms(1);
        sched_yield();
    }
    assert_int_equal(th_store_compacted_rv(s), 3);
    th_store_close(s);
    th_clock_real();
}

/* ---- Trouble ---- */

static void a_full_disk_fails_writes_and_recovers(void **state)
{
    (void)state;
    struct th_store *s = open_store(g_path, 0);
    struct th_store_stats st;
    assert_int_equal(put(s, TH_STORE_CREATE, "a/b/-/1", "v", 0, NULL), 0);
    assert_int_equal(th_store_test_sql(s, "PRAGMA max_page_count=8"), SQLITE_OK);
    th_autofree char *big = th_xmalloc(100001);
    memset(big, 'x', 100000);
    big[100000] = '\0';
    th_autofree char *text = th_xasprintf("{\"data\":\"%s\"}", big);
    struct th_store_write w[] = {{TH_STORE_CREATE, "a/b/-/2", text, strlen(text), 0},
                                 {TH_STORE_DELETE, "a/b/-/1", NULL, 0, 0}};
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    assert_int_equal(th_store_commit(s, w, 2, NULL, &err), -TH_R_NO_SPACE);
    assert_non_null(err.hint);
    th_store_stats(s, &st);
    assert_true(st.read_only);
    assert_int_equal(st.keys, 1);
    assert_int_equal(th_store_rv(s), 2);
    TH_AUTO(th_obj) struct th_obj *o = th_store_get(s, "a/b/-/1");
    assert_non_null(o);
    assert_int_equal(th_store_test_sql(s, "PRAGMA max_page_count=1000000"), SQLITE_OK);
    assert_int_equal(th_store_commit(s, w, 2, NULL, &err), 0);
    th_store_stats(s, &st);
    assert_false(st.read_only);
    assert_int_equal(th_store_rv(s), 4);
    th_store_close(s);
    s = open_store(g_path, 0);
    TH_AUTO(th_obj) struct th_obj *o2 = th_store_get(s, "a/b/-/2");
    assert_int_equal(o2->rv, 3);
    th_store_close(s);
}

static void an_io_error_fails_the_batch_and_the_connection_is_renewed(void **state)
{
    (void)state;
    struct th_store *s = open_store(g_path, 0);
    assert_int_equal(put(s, TH_STORE_CREATE, "a/b/-/1", "v", 0, NULL), 0);
    th_store_test_fail(s, SQLITE_IOERR_FSYNC, 2);
    assert_int_equal(put(s, TH_STORE_CREATE, "a/b/-/2", "v", 0, NULL), -TH_R_IO);
    assert_int_equal(put(s, TH_STORE_CREATE, "a/b/-/2", "v", 0, NULL), -TH_R_IO);
    assert_null(th_store_get(s, "a/b/-/2"));
    TH_AUTO(th_obj) struct th_obj *o = NULL;
    assert_int_equal(put(s, TH_STORE_CREATE, "a/b/-/2", "v", 0, &o), 0);
    assert_int_equal(o->rv, 3);
    th_store_close(s);
}

static void damage_is_reported_with_a_next_step(void **state)
{
    (void)state;
    struct th_store *s = open_store(g_path, 0);
    for (int i = 0; i < 200; i++) {
        char key[32];
        snprintf(key, sizeof(key), "a/b/-/%d", i);
        assert_int_equal(put(s, TH_STORE_CREATE, key, "v", 0, NULL), 0);
    }
    th_store_close(s);
    th_autobuf struct th_buf b = TH_BUF_INIT;
    assert_int_equal(th_io_read_file(g_path, 1 << 24, &b, NULL), 0);
    struct th_store_opts o = {.path = g_path};
    memset(b.p + 4096, 0x5a, b.n - 4096); /* all pages but the first */
    assert_int_equal(th_io_write_file(g_path, b.p, b.n, 0600, NULL), 0);
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    assert_int_equal(th_store_open(&o, &s, &err), -TH_R_STATE_CORRUPT);
    assert_non_null(err.hint);
    memset(b.p, 0x5a, 4096);
    assert_int_equal(th_io_write_file(g_path, b.p, b.n, 0600, NULL), 0);
    assert_int_equal(th_store_open(&o, &s, &err), -TH_R_STATE_CORRUPT);
}

static void a_second_process_is_kept_out_and_the_file_is_private(void **state)
{
    (void)state;
    struct th_store *s = open_store(g_path, 0);
    struct th_store_opts o = {.path = g_path};
    struct th_store *s2;
    assert_int_equal(th_store_open(&o, &s2, NULL), -TH_R_LOCKED);
    struct stat st;
    assert_int_equal(stat(g_path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    th_store_close(s);
}

/* ---- Property: memory is the replayed history ---- */

struct model {
    struct th_omap *now; /* key -> data string */
};

static bool same(struct th_omap *model, const struct th_store_list *l)
{
    struct th_omap_entry e;
    bool have = th_omap_seek(model, "", &e);
    for (size_t i = 0; i < l->n; i++) {
        if (!have || strcmp(e.key, l->objs[i]->key) != 0) {
            return false;
        }
        th_autofree char *d = data_of(l->objs[i]);
        if (strcmp(d, e.value) != 0) {
            return false;
        }
        have = th_omap_after(model, e.key, &e);
    }
    return !have;
}

static struct th_omap *copy_model(const struct th_omap *m)
{
    struct th_omap *c = th_omap_new(free);
    struct th_omap_entry e;
    for (bool have = th_omap_seek(m, "", &e); have; have = th_omap_after(m, e.key, &e)) {
        th_omap_set(c, e.key, th_xstrdup(e.value));
    }
    return c;
}

static void random_history(const char *path, bool reopen)
{
    enum { STEPS = 400 };
    struct th_store *s = open_store(path, 0);
    struct th_omap *at[STEPS + 2] = {NULL};
    at[1] = th_omap_new(free);
    for (int i = 0; i < STEPS; i++) {
        th_autofree char *key = th_xasprintf("g/r/-/%d", (int)th_rand_below(25));
        th_autofree char *data = th_xasprintf("d%d", i);
        struct th_omap *m = copy_model(at[i + 1]);
        bool have = th_omap_get(m, key) != NULL;
        enum th_store_op op = !have                   ? TH_STORE_CREATE
                              : th_rand_below(3) == 0 ? TH_STORE_DELETE
                                                      : TH_STORE_UPDATE;
        assert_int_equal(put(s, op, key, data, 0, NULL), 0);
        free(th_omap_remove(m, key));
        if (op != TH_STORE_DELETE) {
            th_omap_set(m, key, th_xstrdup(data));
        }
        at[i + 2] = m;
        if (reopen && th_rand_below(60) == 0) {
            th_store_close(s);
            s = open_store(path, 0);
        }
    }
    for (int64_t rv = 1; rv <= STEPS + 1; rv++) {
        struct th_store_list l;
        assert_int_equal(th_store_range(s, "g/", NULL, 0, rv, &l, NULL), 0);
        if (!same(at[rv], &l)) {
            fail_msg("the state at revision %" PRId64 " differs", rv);
        }
        th_store_list_done(&l);
    }
    /* Replaying the events from any revision leads from the state there to the state now. */
    for (int64_t rv = 1; rv <= STEPS + 1; rv += 37) {
        struct th_omap *m = copy_model(at[rv]);
        struct th_watch *w;
        assert_int_equal(th_watch_open(s, "g/", rv, NULL, NULL, &w, NULL), 0);
        struct th_event *e;
        int64_t last = rv;
        while ((e = th_watch_next(w, NULL))) {
            assert_int_equal(e->rv, ++last);
            char *old = th_omap_remove(m, e->obj->key);
            assert_int_equal(old != NULL, e->prev != NULL);
            if (old) {
                check_data(e->prev, old);
            }
            free(old);
            if (e->type != TH_EV_DELETED) {
                th_omap_set(m, e->obj->key, data_of(e->obj));
            }
            th_event_unref(e);
        }
        th_watch_close(w);
        struct th_store_list l;
        assert_int_equal(th_store_range(s, "g/", NULL, 0, 0, &l, NULL), 0);
        assert_true(same(m, &l));
        th_store_list_done(&l);
        th_omap_free(m);
    }
    for (int i = 0; i < STEPS + 2; i++) {
        th_omap_free(at[i]);
    }
    th_store_close(s);
}

static void memory_equals_replayed_history(void **state)
{
    (void)state;
    random_history(NULL, false);
    random_history(g_path, false);
    th_autofree char *other = th_xasprintf("%s2", g_path);
    random_history(other, true);
}

static void many_objects_come_back_complete(void **state)
{
    (void)state;
    enum { N = 20000, STEP = 500 };
    struct th_store *s = open_store(g_path, 0);
    static char keys[STEP][48];
    struct th_store_write w[STEP];
    static const char t[] = "{\"metadata\":{\"uid\":\"u\"},\"data\":\"some text\"}";
    for (int i = 0; i < N; i += STEP) {
        for (int k = 0; k < STEP; k++) {
            snprintf(keys[k], sizeof(keys[k]), "core/configmaps/ns%d/c%05d", (i + k) % 10, i + k);
            w[k] = (struct th_store_write){TH_STORE_CREATE, keys[k], t, sizeof(t) - 1, 0};
        }
        assert_int_equal(th_store_commit(s, w, STEP, NULL, NULL), 0);
    }
    th_store_close(s);
    s = open_store(g_path, 0);
    struct th_store_stats st;
    th_store_stats(s, &st);
    assert_int_equal(st.keys, N);
    assert_int_equal(th_store_rv(s), N + 1);
    th_store_close(s);
}

#define T(f) cmocka_unit_test_setup_teardown(f, fresh_dir, drop_dir)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(resource_version_is_put_where_it_belongs),
        T(what_is_not_an_object_is_refused),
        T(labels_are_found_without_parsing),
        T(preconditions_are_checked_against_the_newest_state),
        T(several_writes_are_all_or_none),
        T(lists_are_consistent_at_their_revision),
        T(history_is_read_from_sqlite_after_a_restart),
        T(watchers_get_their_events_once_and_in_order),
        T(slow_watchers_are_cut_off),
        T(compaction_keeps_the_newest_and_expires_the_rest),
        T(memory_history_is_bounded_by_size),
        T(old_history_goes_by_itself),
        T(a_full_disk_fails_writes_and_recovers),
        T(an_io_error_fails_the_batch_and_the_connection_is_renewed),
        T(damage_is_reported_with_a_next_step),
        T(a_second_process_is_kept_out_and_the_file_is_private),
        T(memory_equals_replayed_history),
        T(many_objects_come_back_complete),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
