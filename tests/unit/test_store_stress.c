/* The store under load and under the axe: many writers, watchers and readers at once; kill -9 in
 * the middle of writing; failing commits among good ones. Sizes are small enough for the thread
 * sanitizer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/io.h"
#include "base/rand.h"
#include "controlplane/store/store_priv.h"

#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/wait.h>

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

static struct th_store *open_store(const char *path)
{
    struct th_store_opts o = {.path = path};
    struct th_store *s;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (th_store_open(&o, &s, &err) < 0) {
        fail_msg("open: %s", err.msg);
    }
    return s;
}

static int put(struct th_store *s, enum th_store_op op, const char *key, int64_t value,
               int64_t expect, int64_t *ret_rv)
{
    th_autofree char *text =
        th_xasprintf("{\"metadata\":{\"uid\":\"u\"},\"v\":%" PRId64 "}", value);
    struct th_store_write w = {op, key, text, strlen(text), expect};
    struct th_obj *o = NULL;
    int r = th_store_commit(s, &w, 1, &o, NULL);
    if (r == 0 && ret_rv) {
        *ret_rv = o->rv;
    }
    th_obj_unref(o);
    return r;
}

static int64_t value_of(const struct th_obj *o)
{
    return strtoll(strstr(o->bytes, "\"v\":") + 4, NULL, 10);
}

/* ---- Writers x watchers x readers ---- */

enum { WRITERS = 6, ROUNDS = 150, WATCHERS = 8, KEYS = 12 };

struct world {
    struct th_store *s;
    bool writing;  /* atomic */
    int failed;    /* atomic */
    int64_t acked; /* atomic: writes that succeeded */
};

static void bad(struct world *w, const char *what)
{
    print_error("%s\n", what);
    __atomic_add_fetch(&w->failed, 1, __ATOMIC_RELAXED);
}

/* Counts a shared number up under optimistic locking, creates and deletes. */
static void *writer(void *arg)
{
    struct world *w = arg;
    for (int i = 0; i < ROUNDS; i++) {
        char key[40];
        snprintf(key, sizeof(key), "core/pods/ns%d/k%d", (int)th_rand_below(3),
                 (int)th_rand_below(KEYS));
        TH_AUTO(th_obj) struct th_obj *o = th_store_get(w->s, key);
        int r;
        if (!o) {
            r = put(w->s, TH_STORE_CREATE, key, 1, 0, NULL);
        } else if (th_rand_below(10) == 0) {
            r = put(w->s, TH_STORE_DELETE, key, value_of(o), o->rv, NULL);
        } else {
            r = put(w->s, TH_STORE_UPDATE, key, value_of(o) + 1, o->rv, NULL);
        }
        if (r == 0) {
            __atomic_add_fetch(&w->acked, 1, __ATOMIC_RELAXED);
        } else if (r != -TH_R_CONFLICT && r != -TH_R_NOT_FOUND && r != -TH_R_ALREADY_EXISTS) {
            bad(w, "an unexpected outcome of a write");
        }
    }
    return NULL;
}

/* Lists, then watches from there; at the end its copy must be the store's. */
struct watcher {
    struct world *w;
    const char *prefix;
    struct th_omap *copy; /* key -> th_obj */
    int64_t last;
    struct th_watch *watch;
};

static void obj_free(void *o)
{
    th_obj_unref(o);
}

static void apply(struct watcher *x, struct th_event *e)
{
    struct th_obj *old = th_omap_get(x->copy, e->obj->key);
    if (e->rv <= x->last) {
        bad(x->w, "an event out of order or twice");
    }
    x->last = e->rv;
    if ((old ? old->rv : 0) != (e->prev ? e->prev->rv : 0)) {
        bad(x->w, "the state before an event is not the one that was seen");
    }
    if (e->type == TH_EV_DELETED) {
        th_obj_unref(th_omap_remove(x->copy, e->obj->key));
    } else {
        th_omap_set(x->copy, e->obj->key, th_obj_ref(e->obj));
    }
    struct th_str f = th_event_frame(e, e->type);
    if (f.p[f.n - 1] != '\n') {
        bad(x->w, "a frame without its end");
    }
}

static void begin(struct watcher *x)
{
    struct th_store_list l;
    th_omap_free(x->copy);
    x->copy = th_omap_new(obj_free);
    if (th_store_range(x->w->s, x->prefix, NULL, 0, 0, &l, NULL) < 0) {
        bad(x->w, "a list failed");
        return;
    }
    for (size_t i = 0; i < l.n; i++) {
        th_omap_set(x->copy, l.objs[i]->key, th_obj_ref(l.objs[i]));
    }
    x->last = l.rv;
    th_store_list_done(&l);
    sched_yield(); /* writes come between list and watch */
    if (th_watch_open(x->w->s, x->prefix, x->last, NULL, NULL, &x->watch, NULL) < 0) {
        bad(x->w, "a watch failed");
    }
}

static bool equal_now(struct watcher *x)
{
    struct th_store_list l;
    bool same = th_store_range(x->w->s, x->prefix, NULL, 0, 0, &l, NULL) == 0 &&
                l.n == th_omap_count(x->copy);
    for (size_t i = 0; same && i < l.n; i++) {
        struct th_obj *o = th_omap_get(x->copy, l.objs[i]->key);
        same = o && o->rv == l.objs[i]->rv;
    }
    th_store_list_done(&l);
    return same;
}

static void *watcher(void *arg)
{
    struct watcher *x = arg;
    begin(x);
    for (;;) {
        bool writing = __atomic_load_n(&x->w->writing, __ATOMIC_ACQUIRE);
        bool cut;
        struct th_event *e = th_watch_next(x->watch, &cut);
        if (e) {
            apply(x, e);
            th_event_unref(e);
            continue;
        }
        if (cut) {
            bad(x->w, "cut off");
            break;
        }
        int64_t progress = th_watch_progress(x->watch);
        if (progress < x->last) {
            bad(x->w, "progress goes backwards");
        }
        if (!writing) {
            break;
        }
        if (th_rand_below(4) == 0) { /* go away and come back at the bookmark */
            th_watch_close(x->watch);
            x->last = progress;
            if (th_watch_open(x->w->s, x->prefix, progress, NULL, NULL, &x->watch, NULL) < 0) {
                bad(x->w, "a watch from a bookmark failed");
                break;
            }
        }
        sched_yield();
    }
    if (!equal_now(x)) {
        bad(x->w, "the watcher's copy differs from the store");
    }
    th_watch_close(x->watch);
    th_omap_free(x->copy);
    return NULL;
}

/* Pages of one list must come from one revision, whatever is written meanwhile. */
static void *reader(void *arg)
{
    struct world *w = arg;
    while (__atomic_load_n(&w->writing, __ATOMIC_ACQUIRE)) {
        struct th_store_list all, page;
        int64_t rv = th_store_rv(w->s);
        if (th_store_range(w->s, "core/pods/", NULL, 0, rv, &all, NULL) < 0) {
            bad(w, "a list at a revision failed");
            continue;
        }
        size_t n = 0;
        char *after = NULL;
        bool more = true;
        while (more && th_store_range(w->s, "core/pods/", after, 5, rv, &page, NULL) == 0) {
            for (size_t i = 0; i < page.n; i++, n++) {
                if (n >= all.n || page.objs[i]->rv != all.objs[n]->rv || page.objs[i]->rv > rv) {
                    bad(w, "pages differ from the whole");
                }
            }
            if (page.n > 0) {
                free(after);
                after = th_xstrdup(page.objs[page.n - 1]->key);
            }
            more = page.more;
            th_store_list_done(&page);
        }
        if (n != all.n) {
            bad(w, "pages are fewer than the whole");
        }
        free(after);
        th_store_list_done(&all);
        sched_yield();
    }
    return NULL;
}

static void storm(const char *path)
{
    static const char *const prefixes[] = {"", "core/pods/", "core/pods/ns1/", "core/pods/ns2/k3"};
    struct world w = {.s = open_store(path), .writing = true};
    pthread_t writers[WRITERS], watchers[WATCHERS], readers[2];
    struct watcher x[WATCHERS] = {{NULL}};
    for (int i = 0; i < WATCHERS; i++) {
        x[i] = (struct watcher){.w = &w, .prefix = prefixes[(size_t)i % TH_ARRAY_LEN(prefixes)]};
        assert_int_equal(pthread_create(&watchers[i], NULL, watcher, &x[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&readers[i], NULL, reader, &w), 0);
    }
    for (int i = 0; i < WRITERS; i++) {
        assert_int_equal(pthread_create(&writers[i], NULL, writer, &w), 0);
    }
    for (int i = 0; i < WRITERS; i++) {
        pthread_join(writers[i], NULL);
    }
    __atomic_store_n(&w.writing, false, __ATOMIC_RELEASE);
    for (int i = 0; i < WATCHERS; i++) {
        pthread_join(watchers[i], NULL);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(readers[i], NULL);
    }
    assert_int_equal(w.failed, 0);
    assert_int_equal(th_store_rv(w.s), 1 + w.acked); /* each acknowledged write is one revision */
    struct th_store_list before, after;
    assert_int_equal(th_store_range(w.s, "", NULL, 0, 0, &before, NULL), 0);
    struct th_store_stats st;
    th_store_stats(w.s, &st);
    assert_int_equal(st.rows, w.acked);
    assert_true(st.commits <= st.rows);
    th_store_close(w.s);
    if (path) {
        w.s = open_store(path);
        assert_int_equal(th_store_range(w.s, "", NULL, 0, 0, &after, NULL), 0);
        assert_int_equal(after.n, before.n);
        assert_int_equal(after.rv, before.rv);
        for (size_t i = 0; i < after.n; i++) {
            assert_string_equal(after.objs[i]->bytes, before.objs[i]->bytes);
        }
        th_store_list_done(&after);
        th_store_close(w.s);
    }
    th_store_list_done(&before);
}

static void writers_watchers_and_readers_agree_in_memory(void **state)
{
    (void)state;
    storm(NULL);
}

static void writers_watchers_and_readers_agree_on_disk(void **state)
{
    (void)state;
    storm(g_path);
}

/* ---- Watches that begin in the past, while writes and compaction go on ---- */

static void *history_writer(void *arg)
{
    struct world *w = arg;
    for (int i = 0; i < 400; i++) {
        if (put(w->s, TH_STORE_UPDATE, "a/b/-/1", i, 0, NULL) < 0) {
            bad(w, "a write failed");
        }
    }
    __atomic_store_n(&w->writing, false, __ATOMIC_RELEASE);
    return NULL;
}

static void watches_from_the_past_lose_nothing_or_are_cut_off(void **state)
{
    (void)state;
    struct world w = {.s = open_store(g_path)};
    assert_int_equal(put(w.s, TH_STORE_CREATE, "a/b/-/1", 0, 0, NULL), 0);
    for (int i = 0; i < 700; i++) {
        assert_int_equal(put(w.s, TH_STORE_UPDATE, "a/b/-/1", i, 0, NULL), 0);
    }
    th_store_close(w.s);
    w = (struct world){.s = open_store(g_path),
                       .writing = true}; /* an empty ring: SQLite must answer */
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, history_writer, &w), 0);
    struct th_watch *a, *b;
    assert_int_equal(th_watch_open(w.s, "a/", 1, NULL, NULL, &a, NULL), 0);
    assert_int_equal(th_watch_open(w.s, "a/", 100, NULL, NULL, &b, NULL), 0);
    int64_t next = 2;
    bool cut = false;
    for (;;) {
        bool writing = __atomic_load_n(&w.writing, __ATOMIC_ACQUIRE);
        struct th_event *e = th_watch_next(a, &cut);
        assert_false(cut);
        if (e) {
            assert_int_equal(e->rv, next++);
            th_event_unref(e);
        } else if (!writing) {
            break;
        } else {
            sched_yield();
        }
    }
    assert_int_equal(next, 702 + 401);
    pthread_join(t, NULL);
    /* b has read nothing yet; its past goes away under it. */
    struct th_event *e = th_watch_next(b, &cut);
    assert_int_equal(e->rv, 101);
    th_event_unref(e);
    assert_int_equal(th_store_compact(w.s, 600, NULL), 0);
    next = 102;
    while ((e = th_watch_next(b, &cut))) {
        assert_int_equal(e->rv, next++);
        th_event_unref(e);
    }
    assert_true(cut);
    assert_true(next < 600);
    th_watch_close(a);
    th_watch_close(b);
    assert_int_equal(w.failed, 0);
    th_store_close(w.s);
}

/* ---- Failing commits among good ones ---- */

static void *failing_writer(void *arg)
{
    struct world *w = arg;
    static int ids;
    for (int i = 0; i < 100; i++) {
        char key[40];
        snprintf(key, sizeof(key), "a/b/-/%06d", __atomic_add_fetch(&ids, 1, __ATOMIC_RELAXED));
        int r = put(w->s, TH_STORE_CREATE, key, i, 0, NULL);
        TH_AUTO(th_obj) struct th_obj *o = th_store_get(w->s, key);
        if ((r == 0) != (o != NULL)) {
            bad(w, "what was acknowledged and what is there differ");
        }
        if (r == 0) {
            __atomic_add_fetch(&w->acked, 1, __ATOMIC_RELAXED);
        } else if (r != -TH_R_IO && r != -TH_R_NO_SPACE) {
            bad(w, "an unexpected outcome");
        }
    }
    return NULL;
}

static void failed_batches_leave_no_trace(void **state)
{
    (void)state;
    struct world w = {.s = open_store(g_path)};
    pthread_t t[4];
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&t[i], NULL, failing_writer, &w), 0);
    }
    for (int i = 0; i < 10; i++) {
        th_store_test_fail(w.s, i % 2 ? SQLITE_FULL : SQLITE_IOERR_WRITE, 2);
        int64_t rv = th_store_rv(w.s);
        for (int k = 0; k < 1000 && th_store_rv(w.s) < rv + 5; k++) {
            sched_yield();
        }
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(t[i], NULL);
    }
    assert_int_equal(w.failed, 0);
    struct th_store_stats st;
    th_store_stats(w.s, &st);
    assert_int_equal(st.keys, w.acked);
    assert_int_equal(th_store_rv(w.s), 1 + w.acked);
    th_store_close(w.s);
    w.s = open_store(g_path);
    th_store_stats(w.s, &st);
    assert_int_equal(st.keys, w.acked);
    th_store_close(w.s);
}

/* ---- kill -9 ---- */

struct ack {
    int32_t id;
    int32_t value;
};

struct child {
    struct th_store *s;
    int fd, id;
};

static void *child_writer(void *arg)
{
    struct child *c = arg;
    char key[32];
    snprintf(key, sizeof(key), "a/b/-/%d", c->id);
    for (int32_t i = 0;; i++) {
        if (put(c->s, i == 0 ? TH_STORE_CREATE : TH_STORE_UPDATE, key, i, 0, NULL) < 0) {
            _exit(3);
        }
        struct ack a = {c->id, i};
        if (write(c->fd, &a, sizeof(a)) != sizeof(a)) {
            _exit(4);
        }
    }
    return NULL;
}

static _Noreturn void child_main(int fd)
{
    struct child c[4];
    struct th_store *s = open_store(g_path);
    for (int i = 0; i < 4; i++) {
        c[i] = (struct child){s, fd, i};
        pthread_t t;
        if (pthread_create(&t, NULL, child_writer, &c[i]) != 0) {
            _exit(5);
        }
    }
    for (;;) {
        pause();
    }
}

static void what_was_acknowledged_survives_kill_9(void **state)
{
    (void)state;
    for (int round = 0; round < 4; round++) {
        (void)th_io_rm_rf(g_dir, NULL);
        int fds[2];
        assert_int_equal(pipe(fds), 0);
        pid_t pid = fork();
        if (pid == 0) {
            close(fds[0]);
            child_main(fds[1]);
        }
        close(fds[1]);
        int32_t acked[4] = {-1, -1, -1, -1};
        int left = 40 + (int)th_rand_below(200);
        struct ack a;
        ssize_t n;
        while ((n = read(fds[0], &a, sizeof(a))) == sizeof(a)) { /* to the end, kill included */
            acked[a.id] = a.value;
            if (left-- == 0) {
                kill(pid, SIGKILL);
            }
        }
        close(fds[0]);
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));
        struct th_store *s = open_store(g_path);
        for (int i = 0; i < 4; i++) {
            char key[32];
            snprintf(key, sizeof(key), "a/b/-/%d", i);
            TH_AUTO(th_obj) struct th_obj *o = th_store_get(s, key);
            assert_int_equal(o != NULL || acked[i] < 0, true);
            if (o && value_of(o) < acked[i]) {
                fail_msg("lost: key %d has %" PRId64 ", %d was acknowledged", i, value_of(o),
                         acked[i]);
            }
        }
        assert_int_equal(put(s, TH_STORE_CREATE, "a/b/-/more", 1, 0, NULL), 0);
        th_store_close(s);
    }
}

#define T(f) cmocka_unit_test_setup_teardown(f, fresh_dir, drop_dir)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(what_was_acknowledged_survives_kill_9), /* first: it forks */
        T(writers_watchers_and_readers_agree_in_memory),
        T(writers_watchers_and_readers_agree_on_disk),
        T(watches_from_the_past_lose_nothing_or_are_cut_off),
        T(failed_batches_leave_no_trace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
