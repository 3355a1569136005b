/* The recorder of Events over a transport that only remembers what was asked of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/clock.h"
#include "controlplane/client/client_priv.h"

#include <pthread.h>

struct rec {
    struct th_client base;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    struct {
        char method[8];
        char path[256];
        struct th_json *body;
    } v[128];
    size_t n;
    int fail_status; /* the next request */
    const char *fail_body;
};

static int request(struct th_client *c, const struct th_client_req *q, int *ret_status,
                   struct th_buf *ret_body, struct th_err *err)
{
    struct rec *r = (struct rec *)c;
    (void)err;
    pthread_mutex_lock(&r->lock);
    *ret_status = r->fail_status ? r->fail_status : 200;
    th_buf_puts(ret_body, r->fail_status ? r->fail_body : "{}");
    r->fail_status = 0;
    snprintf(r->v[r->n].method, sizeof(r->v[0].method), "%s", q->method);
    snprintf(r->v[r->n].path, sizeof(r->v[0].path), "%s", q->path);
    assert_int_equal(th_json_parse(q->body.p, q->body.n, NULL, &r->v[r->n].body, NULL), 0);
    r->n++;
    pthread_cond_broadcast(&r->cond);
    pthread_mutex_unlock(&r->lock);
    return 0;
}

static const struct th_client_ops ops = {.request = request};

static void rec_init(struct rec *r)
{
    *r = (struct rec){.base = {&ops}};
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->cond, NULL);
}

static void rec_done(struct rec *r)
{
    for (size_t i = 0; i < r->n; i++) {
        th_json_unref(r->v[i].body);
    }
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->cond);
}

static struct th_json *pod(const char *name)
{
    return th_json_build(
        "{'kind':'Pod','apiVersion':'v1','metadata':{'name':%s,'namespace':'ns','uid':'u',"
        "'resourceVersion':'12'}}",
        name);
}

static void an_event_says_what_upstreams_says(void **state)
{
    (void)state;
    struct rec r;
    rec_init(&r);
    TH_AUTO(th_json) struct th_json *p = pod("web");
    TH_AUTO(th_json)
    struct th_json *node =
        th_json_build("{'kind':'Node','apiVersion':'v1','metadata':{'name':'n1','uid':'n1'}}");
    struct th_recorder *e = th_recorder_new(&r.base, "kubelet", "n1");
    th_event_record_at(e, p, "spec.containers{web}", "Normal", "Pulled", "Image \"%s\" present",
                       "x:1");
    th_event_record(e, node, "Warning", "Rebooted", "boot");
    th_recorder_free(e); /* writes what is queued */
    assert_int_equal(r.n, 2);
    assert_string_equal(r.v[0].method, "POST");
    assert_string_equal(r.v[0].path, "/api/v1/namespaces/ns/events");
    const struct th_json *b = r.v[0].body;
    const char *name = th_json_path_str(b, "metadata.name");
    assert_true(th_startswith(name, "web."));
    assert_int_equal(strlen(name), 4 + 16);
    static const char *const want[][2] = {
        {"kind", "Event"},
        {"metadata.namespace", "ns"},
        {"involvedObject.kind", "Pod"},
        {"involvedObject.name", "web"},
        {"involvedObject.uid", "u"},
        {"involvedObject.resourceVersion", "12"},
        {"involvedObject.apiVersion", "v1"},
        {"involvedObject.fieldPath", "spec.containers{web}"},
        {"reason", "Pulled"},
        {"message", "Image \"x:1\" present"},
        {"source.component", "kubelet"},
        {"source.host", "n1"},
        {"type", "Normal"},
        {"reportingComponent", "kubelet"},
        {"reportingInstance", "n1"},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(want); i++) {
        assert_string_equal(th_json_path_str(b, want[i][0]), want[i][1]);
    }
    assert_int_equal(th_json_path_int(b, "count", 0), 1);
    assert_non_null(th_json_path_str(b, "firstTimestamp"));
    assert_string_equal(r.v[1].path,
                        "/api/v1/namespaces/default/events"); /* cluster-scoped objects */
    rec_done(&r);
}

static void the_same_event_is_counted(void **state)
{
    (void)state;
    struct rec r;
    rec_init(&r);
    TH_AUTO(th_json) struct th_json *a = pod("a");
    TH_AUTO(th_json) struct th_json *b = pod("b");
    struct th_recorder *e = th_recorder_new(&r.base, "kubelet", "n1");
    for (int i = 0; i < 3; i++) {
        th_event_record(e, a, "Warning", "BackOff", "Back-off");
    }
    th_event_record(e, b, "Warning", "BackOff", "Back-off");
    th_recorder_free(e);
    assert_int_equal(r.n, 4);
    assert_string_equal(r.v[1].method, "PATCH");
    assert_int_equal(th_json_path_int(r.v[1].body, "count", 0), 2);
    assert_int_equal(th_json_path_int(r.v[2].body, "count", 0), 3);
    th_autofree char *path = th_xasprintf("/api/v1/namespaces/ns/events/%s",
                                          th_json_path_str(r.v[0].body, "metadata.name"));
    assert_string_equal(r.v[2].path, path);
    assert_string_equal(r.v[3].method, "POST");
    rec_done(&r);
}

static void an_event_that_went_away_is_written_anew(void **state)
{
    (void)state;
    struct rec r;
    rec_init(&r);
    TH_AUTO(th_json) struct th_json *a = pod("a");
    struct th_recorder *e = th_recorder_new(&r.base, "x", NULL);
    th_event_record(e, a, "Normal", "R", "m");
    pthread_mutex_lock(&r.lock);
    while (r.n < 1) {
        pthread_cond_wait(&r.cond, &r.lock);
    }
    r.fail_status = 404;
    r.fail_body = "{\"kind\":\"Status\",\"reason\":\"NotFound\",\"message\":\"gone\",\"code\":404}";
    pthread_mutex_unlock(&r.lock);
    th_event_record(e, a, "Normal", "R", "m");
    th_recorder_free(e);
    assert_int_equal(r.n, 3);
    assert_string_equal(r.v[1].method, "PATCH");
    assert_string_equal(r.v[2].method, "POST");
    assert_null(th_json_path(r.v[2].body, "source.host"));
    rec_done(&r);
}

static void a_flood_is_aggregated_and_then_cut(void **state)
{
    (void)state;
    struct rec r;
    rec_init(&r);
    TH_AUTO(th_json) struct th_json *a = pod("a");
    struct th_recorder *e = th_recorder_new(&r.base, "x", "h");
    for (int i = 0; i < 60; i++) {
        th_event_record(e, a, "Warning", "Failed", "message %d", i);
    }
    th_recorder_free(e);
    assert_int_equal(r.n, 25); /* the burst of one source and object */
    for (size_t i = 0; i < r.n; i++) {
        bool folded = i >= 9;
        assert_string_equal(r.v[i].method, i <= 9 ? "POST" : "PATCH");
        assert_int_equal(th_startswith(th_json_path_str(r.v[i].body, "message"),
                                       "(combined from similar events): message"),
                         folded);
    }
    assert_int_equal(th_json_path_int(r.v[24].body, "count", 0), 16);
    rec_done(&r);
}

static void a_refused_event_is_dropped(void **state)
{
    (void)state;
    struct rec r;
    rec_init(&r);
    TH_AUTO(th_json) struct th_json *a = pod("a");
    r.fail_status = 403;
    r.fail_body = "{\"kind\":\"Status\",\"reason\":\"Forbidden\",\"message\":\"being "
                  "terminated\",\"code\":403}";
    struct th_recorder *e = th_recorder_new(&r.base, "x", "h");
    th_event_record(e, a, "Normal", "R", "m");
    th_event_record(e, a, "Normal", "R", "m");
    th_recorder_free(e);
    assert_int_equal(r.n, 2);
    assert_string_equal(r.v[1].method, "POST"); /* nothing was written that could be counted */
    rec_done(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_event_says_what_upstreams_says),
        cmocka_unit_test(the_same_event_is_counted),
        cmocka_unit_test(an_event_that_went_away_is_written_anew),
        cmocka_unit_test(a_flood_is_aggregated_and_then_cut),
        cmocka_unit_test(a_refused_event_is_dropped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
