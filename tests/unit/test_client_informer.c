/* Informers against a scripted server: torn and slow streams, forgotten revisions, objects that
 * vanish while nobody watched, stopping at any moment. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/clock.h"
#include "controlplane/client/client_priv.h"
#include "fake_http.h"

#define POD(name, rv, extra)                                                                       \
    "{\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"" name                       \
    "\",\"namespace\":\"d\","                                                                      \
    "\"resourceVersion\":\"" rv "\"" extra "}}"
#define EV(type, obj) "{\"type\":\"" type "\",\"object\":" obj "}\n"
#define LIST(rv, items)                                                                            \
    "{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"metadata\":{\"resourceVersion\":\"" rv          \
    "\"},\"items\":[" items "]}"
#define GONE                                                                                       \
    "{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"status\":\"Failure\",\"message\":\"too old "     \
    "resource version: 1 (9)\","                                                                   \
    "\"reason\":\"Expired\",\"code\":410}"

/* One step of the script answers one request: a list or a watch that must ask for `rv`. */
struct step {
    const char *rv;                            /* NULL: a list is expected */
    const char *text;                          /* the list, or what the watch sends */
    int status;                                /* 0: 200 */
    enum { CLOSE, END, HANG, TEAR, SLOW } how; /* after the text of a watch */
};

struct script {
    const struct step *steps;
    size_t n, at;
    char bad[2048];
    /* what was reported */
    pthread_mutex_t lock;
    pthread_cond_t cond;
    char log[4096];
    int synced;
};

static void send_watch(struct fake *f, int fd, const struct step *s)
{
    fake_stream(fd);
    if (s->how == SLOW) { /* byte by byte, over chunk borders */
        for (const char *p = s->text; *p; p++) {
            const char one[2] = {*p, '\0'};
            if (!fake_chunk(fd, one)) {
                return;
            }
        }
    } else if (*s->text) {
        fake_chunk(fd, s->text);
    }
    if (s->how == END) {
        fake_chunk(fd, "");
    } else if (s->how == TEAR) {
        fake_puts(fd, "ff\r\n{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"to");
    } else if (s->how == HANG || s->how == SLOW) {
        pthread_mutex_lock(&f->lock);
        while (!f->stop) {
            pthread_cond_wait(&f->cond, &f->lock);
        }
        pthread_mutex_unlock(&f->lock);
    }
}

static bool play(struct fake *f, int fd, const struct fake_req *q)
{
    struct script *s = f->arg;
    pthread_mutex_lock(&s->lock);
    const struct step *st = s->at < s->n ? &s->steps[s->at++] : NULL;
    bool watch = strstr(q->path, "watch=true") != NULL;
    th_autofree char *rv = st && st->rv ? th_xasprintf("resourceVersion=%s&", st->rv) : NULL;
    if (!st || watch != (st->rv != NULL) || (rv && !strstr(q->path, rv)) ||
        (watch && !strstr(q->path, "allowWatchBookmarks=true"))) {
        snprintf(s->bad, sizeof(s->bad), "unexpected request: %s", q->path);
        pthread_cond_broadcast(&s->cond);
        pthread_mutex_unlock(&s->lock);
        return false;
    }
    pthread_mutex_unlock(&s->lock);
    if (st->status) {
        return fake_json(fd, st->status, st->text);
    }
    if (!st->rv) {
        if (st->how == TEAR) {
            fake_puts(fd, "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{\"items\":[");
            return false;
        }
        if (st->how == HANG) {
            send_watch(f, fd, st);
            return false;
        }
        return fake_json(fd, 200, st->text);
    }
    send_watch(f, fd, st);
    return st->how == END;
}

static void note(struct script *s, const char *what, const struct th_json *o)
{
    size_t n = strlen(s->log);
    snprintf(s->log + n, sizeof(s->log) - n, "%s%s@%s ", what, th_json_path_str(o, "metadata.name"),
             th_json_path_str(o, "metadata.resourceVersion"));
}

static void on_event(void *arg, const struct th_json *old, const struct th_json *now)
{
    struct script *s = arg;
    pthread_mutex_lock(&s->lock);
    note(s, old && now ? "~" : now ? "+" : "-", now ? now : old);
    if (now && !th_streq(th_json_path_str(now, "kind"), "Pod")) {
        snprintf(s->bad, sizeof(s->bad), "an object without kind");
    }
    pthread_cond_broadcast(&s->cond);
    pthread_mutex_unlock(&s->lock);
}

static void on_synced(void *arg)
{
    struct script *s = arg;
    pthread_mutex_lock(&s->lock);
    s->synced++;
    pthread_mutex_unlock(&s->lock);
}

/* Waits until the whole of want was reported; the limit is only for a failing test. */
static void expect_log(struct script *s, const char *want)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 30;
    pthread_mutex_lock(&s->lock);
    while (strcmp(s->log, want) != 0 && !s->bad[0] && strlen(s->log) < strlen(want)) {
        if (pthread_cond_timedwait(&s->cond, &s->lock, &until) != 0) {
            break;
        }
    }
    th_autofree char *log = th_xstrdup(s->log);
    th_autofree char *bad = th_xstrdup(s->bad);
    pthread_mutex_unlock(&s->lock);
    assert_string_equal(bad, "");
    assert_string_equal(log, want);
}

struct world {
    struct fake f;
    struct script s;
    struct th_client *c;
    struct th_informer *i;
};

static void begin(struct world *w, const struct step *steps, size_t n)
{
    memset(w, 0, sizeof(*w));
    w->s.steps = steps;
    w->s.n = n;
    pthread_mutex_init(&w->s.lock, NULL);
    pthread_cond_init(&w->s.cond, NULL);
    fake_start(&w->f, play, &w->s, NULL);
    th_autofree char *url = th_xasprintf("http://127.0.0.1:%d", w->f.port);
    struct th_client_http_opts ho = {.server = url};
    assert_int_equal(th_client_new_http(&ho, &w->c, NULL), 0);
    struct th_informer_opts o = {
        .gvr = TH_GVR_PODS, .on_event = on_event, .on_synced = on_synced, .arg = &w->s};
    assert_int_equal(th_informer_start(w->c, &o, &w->i, NULL), 0);
}

static void finish(struct world *w)
{
    th_informer_stop(w->i);
    th_client_free(w->c);
    fake_stop(&w->f);
    pthread_mutex_destroy(&w->s.lock);
    pthread_cond_destroy(&w->s.cond);
}

static void the_cache_follows_list_and_watch(void **state)
{
    (void)state;
    static const struct step steps[] = {
        {NULL,
         LIST("5",
              "{\"metadata\":{\"name\":\"a\",\"namespace\":\"d\",\"resourceVersion\":\"3\"}}," POD(
                  "b", "4", "")),
         0, CLOSE},
        {"5",
         EV("ADDED", POD("c", "6", "")) EV("MODIFIED", POD("a", "7", ""))
             EV("DELETED", POD("b", "8", "")),
         0, HANG},
    };
    struct world w;
    begin(&w, steps, TH_ARRAY_LEN(steps));
    assert_true(th_informer_wait_synced(w.i, -1));
    expect_log(&w.s, "+a@3 +b@4 +c@6 ~a@7 -b@8 ");
    assert_int_equal(th_informer_count(w.i), 2);
    TH_AUTO(th_json) struct th_json *a = th_informer_get(w.i, "d", "a");
    assert_string_equal(th_json_path_str(a, "metadata.resourceVersion"), "7");
    assert_null(th_informer_get(w.i, "d", "b"));
    assert_null(th_informer_get(w.i, "", "a"));
    finish(&w); /* while the watch hangs */
    assert_int_equal(w.s.synced, 1);
}

static void torn_streams_go_on_where_they_were(void **state)
{
    (void)state;
    static const char bookmark[] =
        EV("BOOKMARK",
           "{\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"metadata\":{\"resourceVersion\":\"20\"}}");
    static const struct step steps[] = {
        {NULL, "", 0, TEAR},
        {NULL,
         "{\"kind\":\"Status\",\"message\":\"not "
         "yet\",\"reason\":\"ServiceUnavailable\",\"code\":503}",
         503, CLOSE},
        {NULL, LIST("5", ""), 0, CLOSE},
        {"5", EV("ADDED", POD("a", "6", "")), 0, TEAR},      /* half a line is no event */
        {"6", EV("ADDED", POD("b", "7", "")), 0, CLOSE},     /* broken off */
        {"7", bookmark, 0, END},                             /* ended as it should */
        {"20", EV("MODIFIED", POD("b", "21", "")), 0, SLOW}, /* byte by byte */
    };
    struct world w;
    begin(&w, steps, TH_ARRAY_LEN(steps));
    expect_log(&w.s, "+a@6 +b@7 ~b@21 ");
    finish(&w);
}

static void a_forgotten_revision_means_listing_again(void **state)
{
    (void)state;
    static const struct step steps[] = {
        {NULL, LIST("5", POD("a", "2", "") "," POD("b", "3", "") "," POD("c", "4", "")), 0, CLOSE},
        {"5", EV("ERROR", GONE), 0, END},
        /* b vanished, c changed, d is new, a is as it was */
        {NULL, LIST("30", POD("a", "2", "") "," POD("c", "28", "") "," POD("d", "29", "")), 0,
         CLOSE},
        {"30", GONE, 410, CLOSE},
        {NULL, LIST("40", POD("d", "29", "")), 0, CLOSE},
        {"40", "", 0, HANG},
    };
    struct world w;
    begin(&w, steps, TH_ARRAY_LEN(steps));
    expect_log(&w.s, "+a@2 +b@3 +c@4 -b@3 ~c@28 +d@29 -a@2 -c@28 ");
    assert_int_equal(th_informer_count(w.i), 1);
    finish(&w);
    assert_int_equal(w.s.synced, 1);
}

static void stopping_does_not_wait_for_a_hanging_list(void **state)
{
    (void)state;
    static const struct step steps[] = {{NULL, "{", 0, HANG}};
    struct world w;
    begin(&w, steps, TH_ARRAY_LEN(steps));
    pthread_mutex_lock(&w.f.lock);
    while (w.f.requests == 0) {
        pthread_cond_wait(&w.f.cond, &w.f.lock);
    }
    pthread_mutex_unlock(&w.f.lock);
    assert_false(th_informer_synced(w.i));
    assert_false(th_informer_wait_synced(w.i, 0));
    finish(&w);
}

static bool count(void *arg, struct th_json *obj)
{
    (void)obj;
    return ++*(int *)arg < 100;
}

static void owners_and_namespaces_are_indexed(void **state)
{
    (void)state;
#define OWNED(uid)                                                                                 \
    ",\"ownerReferences\":[{\"uid\":\"x\"},{\"uid\":\"" uid "\",\"controller\":true}]"
    static const struct step steps[] = {
        {NULL,
         LIST("5", POD("a", "2", OWNED("u1")) "," POD("b", "3", OWNED("u1")) "," POD(
                       "c", "4", OWNED("u2")) ",{\"metadata\":{\"name\":\"z\",\"namespace\":\"dd\","
                                              "\"resourceVersion\":\"1\"}}"),
         0, CLOSE},
        {"5", EV("MODIFIED", POD("b", "6", OWNED("u2"))) EV("DELETED", POD("c", "7", OWNED("u2"))),
         0, HANG},
    };
    struct world w;
    begin(&w, steps, TH_ARRAY_LEN(steps));
    expect_log(&w.s, "+a@2 +b@3 +c@4 +z@1 ~b@6 -c@7 ");
    int n = 0;
    th_informer_by_owner(w.i, "u1", count, &n);
    assert_int_equal(n, 1);
    th_informer_by_owner(w.i, "u2", count, &n);
    assert_int_equal(n, 2);
    th_informer_by_owner(w.i, "x", count, &n);
    assert_int_equal(n, 2);
    th_informer_each(w.i, "d", count, &n);
    assert_int_equal(n, 4);
    th_informer_each(w.i, NULL, count, &n);
    assert_int_equal(n, 7);
    finish(&w);
}

static bool big_stream(struct fake *f, int fd, const struct fake_req *q)
{
    (void)f;
    if (!strstr(q->path, "watch=true")) {
        return fake_json(fd, 200, LIST("1", ""));
    }
    /* Much more at once than is read ahead, in lines of 300 KB. */
    th_autofree char *pad = th_xmalloc(300001);
    memset(pad, 'p', 300000);
    pad[300000] = '\0';
    fake_stream(fd);
    for (int i = 0; i < 30; i++) {
        th_autofree char *line = th_xasprintf("{\"type\":\"ADDED\",\"object\":{\"kind\":\"Pod\","
                                              "\"metadata\":{\"name\":\"p%d\",\"namespace\":\"d\","
                                              "\"resourceVersion\":\"%d\"},\"x\":\"%s\"}}\n",
                                              i, i + 2, pad);
        if (!fake_chunk(fd, line)) {
            return false;
        }
    }
    pthread_mutex_lock(&f->lock);
    while (!f->stop) {
        pthread_cond_wait(&f->cond, &f->lock);
    }
    pthread_mutex_unlock(&f->lock);
    return false;
}

static void more_than_fits_the_buffer_comes_through(void **state)
{
    (void)state;
    struct fake f;
    fake_start(&f, big_stream, NULL, NULL);
    th_autofree char *url = th_xasprintf("http://127.0.0.1:%d", f.port);
    struct th_client_http_opts ho = {.server = url};
    struct th_client *c;
    assert_int_equal(th_client_new_http(&ho, &c, NULL), 0);
    struct th_watch_req r = {.gvr = TH_GVR_PODS, .resource_version = "1"};
    struct th_client_watch *w;
    assert_int_equal(c->ops->watch_open(c, &r, &w, NULL), 0);
    for (int i = 0; i < 30; i++) {
        struct th_watch_item it;
        assert_int_equal(c->ops->watch_next(w, 30000, &it, NULL), 1);
        assert_int_equal(it.type, TH_WI_ADDED);
        assert_true(it.object.n > 300000);
    }
    struct th_watch_item it;
    assert_int_equal(c->ops->watch_next(w, 1, &it, NULL), 0);
    c->ops->watch_wake(w);
    assert_int_equal(c->ops->watch_next(w, 30000, &it, NULL), 0);
    c->ops->watch_close(w);
    th_client_free(c);
    fake_stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_cache_follows_list_and_watch),
        cmocka_unit_test(torn_streams_go_on_where_they_were),
        cmocka_unit_test(a_forgotten_revision_means_listing_again),
        cmocka_unit_test(stopping_does_not_wait_for_a_hanging_list),
        cmocka_unit_test(owners_and_namespaces_are_indexed),
        cmocka_unit_test(more_than_fits_the_buffer_comes_through),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
