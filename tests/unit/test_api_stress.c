/* The pipeline under a mixed load: writers of every kind, readers in every encoding and watchers at
 * once, in one process and small enough for the thread sanitizer. Each watcher rebuilds the state from
 * what it is told; at the end it must have what a list shows, with revisions that only ever grew. */
#include "api_fixture.h"

#include "base/clock.h"
#include "base/io.h"
#include "base/json/slice.h"
#include "base/rand.h"
#include "controlplane/api/priv.h"
#include "controlplane/api/watch.h"

enum { WRITERS = 4, READERS = 3, WATCHERS = 6, ROUNDS = 120, NAMES = 10 };

static struct {
    struct api_fixture f;
    struct th_identity *admin;
    bool writing;     /* atomic */
    uint64_t written; /* atomic */
    uint64_t bad;     /* atomic: answers that must not be */
} g;

static int request(const char *accept, const char *method, const char *uri, const char *type,
                   const char *body, struct th_aresp *resp)
{
    *resp = (struct th_aresp)TH_ARESP_INIT;
    struct th_areq q = {.method = method,
                        .uri = uri,
                        .body = th_str_of(body),
                        .content_type = type,
                        .accept = accept,
                        .user_agent = "stress/1",
                        .id = g.admin};
    th_api_handle(g.f.api, &q, resp);
    return resp->status;
}

#define BASE "/api/v1/namespaces/default/configmaps"

static void write_once(uint64_t dice, int round)
{
    int name = (int)(dice % NAMES);
    char uri[160];
    (void)snprintf(uri, sizeof(uri), BASE "/m%d", name);
    th_autofree char *body = th_xasprintf(
        "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"m%d\",\"labels\":"
        "{\"even\":\"%d\"}},\"data\":{\"k\":\"%d\"}}",
        name, round % 2, round);
    TH_CLEANUP(th_aresp_done) struct th_aresp r = TH_ARESP_INIT;
    int code;
    switch (dice / NAMES % 6) {
    case 0:
    case 1:
        code = request(NULL, "POST", BASE, "application/json", body, &r);
        break;
    case 2:
        code = request(NULL, "PUT", uri, "application/json", body, &r);
        break;
    case 3:
        code = request(NULL, "PATCH", uri, "application/merge-patch+json", body, &r);
        break;
    case 4:
        (void)snprintf(uri, sizeof(uri), BASE "/m%d?fieldManager=stress&force=true", name);
        code = request(NULL, "PATCH", uri, "application/apply-patch+yaml", body, &r);
        break;
    default:
        code = request(NULL, "DELETE", uri, NULL, "", &r);
        break;
    }
    if (code == 200 || code == 201) {
        __atomic_add_fetch(&g.written, 1, __ATOMIC_RELAXED);
    } else if (code != 404 && code != 409) {
        __atomic_add_fetch(&g.bad, 1, __ATOMIC_RELAXED);
    }
}

static void *writer(void *arg)
{
    (void)arg;
    for (int i = 0; i < ROUNDS; i++) {
        write_once(th_rand_below(NAMES * 6), i);
    }
    return NULL;
}

static void *reader(void *arg)
{
    static const struct {
        const char *uri, *accept;
    } reads[] = {
        {BASE "/m1", "application/json"},
        {BASE "/m2", TH_TYPE_PROTOBUF},
        {BASE, "application/json"},
        {BASE, TH_TYPE_PROTOBUF},
        {BASE "?limit=3", "application/json"},
        {BASE "?labelSelector=even%3D1", "application/json;as=Table;g=meta.k8s.io;v=v1"},
        {"/api/v1/configmaps?fieldSelector=metadata.name%3Dm3", "application/yaml"},
        {"/apis", "application/json"},
        {"/metrics", NULL},
        {"/openapi/v3", NULL},
    };
    size_t i = (size_t)(uintptr_t)arg;
    do {
        TH_CLEANUP(th_aresp_done) struct th_aresp r = TH_ARESP_INIT;
        int code = request(reads[i].accept, "GET", reads[i].uri, NULL, "", &r);
        if (code != 200 && code != 404) {
            __atomic_add_fetch(&g.bad, 1, __ATOMIC_RELAXED);
        }
        i = (i + 1) % TH_ARRAY_LEN(reads);
    } while (__atomic_load_n(&g.writing, __ATOMIC_ACQUIRE));
    return NULL;
}

struct watcher {
    pthread_t thread;
    const char *uri;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool woken;
    struct th_strv state; /* "m1=rv", what it was told */
    int64_t rv;
    bool disorder;
};

static void wake(void *arg)
{
    struct watcher *w = arg;
    (void)pthread_mutex_lock(&w->lock);
    w->woken = true;
    (void)pthread_cond_signal(&w->cond);
    (void)pthread_mutex_unlock(&w->lock);
}

static void take(struct watcher *w, struct th_str frame)
{
    struct th_str type = th_json_slice_text(th_json_slice_get(frame, "type"));
    struct th_str o = th_json_slice_get(frame, "object");
    struct th_str name = th_json_slice_text(th_json_slice_path(o, "metadata.name"));
    struct th_str text = th_json_slice_text(th_json_slice_path(o, "metadata.resourceVersion"));
    int64_t rv = text.p ? strtoll(text.p, NULL, 10) : 0;
    if (th_str_eq(type, TH_STR("BOOKMARK"))) {
        w->rv = rv > w->rv ? rv : w->rv;
        return;
    }
    bool initial = w->rv == 0;
    w->disorder = w->disorder || (!initial && rv <= w->rv);
    w->rv = initial ? 0 : rv;
    th_autofree char *key = th_xasprintf("%.*s=", (int)name.n, name.p);
    for (size_t i = 0; i < w->state.n; i++) {
        if (th_startswith(w->state.v[i], key)) {
            free(w->state.v[i]);
            w->state.v[i] = w->state.v[--w->state.n];
            w->state.v[w->state.n] = NULL;
            break;
        }
    }
    if (!th_str_eq(type, TH_STR("DELETED"))) {
        th_strv_addf(&w->state, "%s%lld", key, (long long)rv);
    }
}

/* Follows until it knows everything up to the end of writing. */
static void *watcher(void *arg)
{
    struct watcher *w = arg;
    TH_CLEANUP(th_aresp_done) struct th_aresp r = TH_ARESP_INIT;
    assert_int_equal(request("application/json", "GET", w->uri, NULL, "", &r), 200);
    th_apiwatch_attach(r.watch, wake, w);
    for (;;) {
        (void)pthread_mutex_lock(&w->lock);
        w->woken = false;
        (void)pthread_mutex_unlock(&w->lock);
        bool over = !__atomic_load_n(&g.writing, __ATOMIC_ACQUIRE);
        struct th_str frame;
        int got = th_apiwatch_next(r.watch, &frame);
        if (got > 0) {
            take(w, frame);
            continue;
        }
        if (got < 0 || over) {
            break; /* nothing waits, and nothing was written after we looked */
        }
        (void)pthread_mutex_lock(&w->lock);
        while (!w->woken) {
            (void)pthread_cond_wait(&w->cond, &w->lock);
        }
        (void)pthread_mutex_unlock(&w->lock);
    }
    return NULL;
}

/* A client that keeps opening watches, in protobuf, and leaves in the middle. */
static void *visitor(void *arg)
{
    (void)arg;
    while (__atomic_load_n(&g.writing, __ATOMIC_ACQUIRE)) {
        struct watcher w = {.woken = false};
        (void)pthread_mutex_init(&w.lock, NULL);
        (void)pthread_cond_init(&w.cond, NULL);
        TH_CLEANUP(th_aresp_done) struct th_aresp r = TH_ARESP_INIT;
        if (request(TH_TYPE_PROTOBUF, "GET", BASE "?watch=1&labelSelector=even%3D1", NULL, "", &r) !=
            200) {
            __atomic_add_fetch(&g.bad, 1, __ATOMIC_RELAXED);
            break;
        }
        th_apiwatch_attach(r.watch, wake, &w);
        struct th_str frame;
        for (int i = 0; i < 20 && th_apiwatch_next(r.watch, &frame) > 0; i++) {
        }
        th_apiwatch_close(th_steal(&r.watch));
        (void)pthread_cond_destroy(&w.cond);
        (void)pthread_mutex_destroy(&w.lock);
    }
    return NULL;
}

static void check_watcher(struct watcher *w, const char *list_uri)
{
    TH_CLEANUP(th_aresp_done) struct th_aresp r = TH_ARESP_INIT;
    assert_int_equal(request("application/json", "GET", list_uri, NULL, "", &r), 200);
    TH_AUTO(th_json) struct th_json *list = NULL;
    assert_int_equal(th_json_parse(r.body.p, r.body.n, NULL, &list, NULL), 0);
    const struct th_json *items = th_json_get(list, "items");
    assert_false(w->disorder);
    assert_int_equal(th_json_len(items), w->state.n);
    for (size_t i = 0; i < w->state.n; i++) {
        const struct th_json *o = th_json_at(items, i);
        th_autofree char *want = th_xasprintf("%s=%s", th_json_path_str(o, "metadata.name"),
                                              th_json_path_str(o, "metadata.resourceVersion"));
        assert_true(th_strv_has(&w->state, want));
    }
}

static void readers_writers_and_watchers_agree(void **state)
{
    (void)state;
    static const char *const uris[][2] = {
        {BASE "?watch=1&allowWatchBookmarks=1", BASE},
        {BASE "?watch=1&allowWatchBookmarks=1&labelSelector=even%3D1", BASE "?labelSelector=even%3D1"},
        {BASE "?watch=1&allowWatchBookmarks=1&fieldSelector=metadata.name%3Dm1",
         BASE "?fieldSelector=metadata.name%3Dm1"},
    };
    struct watcher w[WATCHERS] = {{.rv = 0}};
    pthread_t writers[WRITERS], readers[READERS], visits;
    g.writing = true;
    for (size_t i = 0; i < WATCHERS; i++) {
        w[i].uri = uris[i % TH_ARRAY_LEN(uris)][0];
        (void)pthread_mutex_init(&w[i].lock, NULL);
        (void)pthread_cond_init(&w[i].cond, NULL);
        assert_int_equal(pthread_create(&w[i].thread, NULL, watcher, &w[i]), 0);
    }
    for (uintptr_t i = 0; i < READERS; i++) {
        assert_int_equal(pthread_create(&readers[i], NULL, reader, (void *)(i * 3)), 0);
    }
    for (size_t i = 0; i < WRITERS; i++) {
        assert_int_equal(pthread_create(&writers[i], NULL, writer, NULL), 0);
    }
    assert_int_equal(pthread_create(&visits, NULL, visitor, NULL), 0);
    for (size_t i = 0; i < WRITERS; i++) {
        (void)pthread_join(writers[i], NULL);
    }
    __atomic_store_n(&g.writing, false, __ATOMIC_RELEASE);
    for (size_t i = 0; i < READERS; i++) {
        (void)pthread_join(readers[i], NULL);
    }
    (void)pthread_join(visits, NULL);
    for (size_t i = 0; i < WATCHERS; i++) {
        wake(&w[i]);
        (void)pthread_join(w[i].thread, NULL);
        check_watcher(&w[i], uris[i % TH_ARRAY_LEN(uris)][1]);
        th_strv_done(&w[i].state);
        (void)pthread_cond_destroy(&w[i].cond);
        (void)pthread_mutex_destroy(&w[i].lock);
    }
    assert_int_equal(g.bad, 0);
    assert_true(g.written > ROUNDS);
}

static char g_dir[64];

static int start(void **state)
{
    (void)state;
    (void)snprintf(g_dir, sizeof(g_dir), "/tmp/th-api-XXXXXX");
    assert_non_null(mkdtemp(g_dir));
    th_autofree char *path = th_path_join(g_dir, "state.db");
    api_fixture_start(&g.f, path, NULL);
    static const char *const masters[] = {"system:masters", "system:authenticated", NULL};
    g.admin = th_identity_new("admin", NULL, masters);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    th_identity_unref(g.admin);
    api_fixture_stop(&g.f);
    return th_io_rm_rf(g_dir, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readers_writers_and_watchers_agree),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
