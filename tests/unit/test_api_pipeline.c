/* The whole pipeline in this process, without HTTP: a store in memory, requests as server.c makes
 * them, answers as it sends them. */
#include "api_fixture.h"

#include "base/encode.h"
#include "controlplane/api/priv.h"
#include "controlplane/api/watch.h"

static struct api_fixture g_f;
static struct th_identity *g_admin;

static int start(void **state)
{
    (void)state;
    api_fixture_start(&g_f, NULL, &(struct th_api_opts){.continue_expiry = "1h"});
    static const char *const masters[] = {"system:masters", "system:authenticated", NULL};
    g_admin = th_identity_new("admin", NULL, masters);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    th_identity_unref(g_admin);
    api_fixture_stop(&g_f);
    return 0;
}

struct answer {
    struct th_aresp resp;
    struct th_json *o;
    struct th_str body;
};

static void answer_done(struct answer *a)
{
    th_json_unref(a->o);
    th_aresp_done(&a->resp);
}
#define ANSWER TH_CLEANUP(answer_done) struct answer

static struct answer ask_as(const char *accept, const char *method, const char *uri,
                            const char *type, struct th_str body)
{
    struct answer a = {.resp = TH_ARESP_INIT};
    struct th_areq q = {.method = method,
                        .uri = uri,
                        .body = body,
                        .content_type = type,
                        .accept = accept,
                        .user_agent = "unit/1.0",
                        .id = g_admin};
    th_api_handle(g_f.api, &q, &a.resp);
    assert_null(a.resp.pieces);
    a.body = a.resp.body_obj ? (struct th_str){a.resp.body_obj->bytes, a.resp.body_obj->n}
                             : th_buf_str(&a.resp.body);
    if (th_streq(a.resp.content_type, "application/json") && a.body.n > 0) {
        assert_int_equal(th_json_parse(a.body.p, a.body.n, NULL, &a.o, NULL), 0);
    }
    return a;
}

static struct answer ask(const char *method, const char *uri, const char *body)
{
    return ask_as("application/json", method, uri, body ? "application/json" : NULL,
                  th_str_of(body ? body : ""));
}

#define MAPS "/api/v1/namespaces/default/configmaps"

static void make(const char *name)
{
    th_autofree char *body = th_xasprintf(
        "{\"metadata\":{\"name\":\"%s\",\"labels\":{\"n\":\"%s\"}},\"data\":{\"k\":\"v\"}}", name, name);
    ANSWER a = ask("POST", MAPS, body);
    assert_int_equal(a.resp.status, 201);
}

static void drop_all(void)
{
    ANSWER a = ask("DELETE", MAPS, NULL);
    assert_int_equal(a.resp.status, 200);
}

#define assert_path(a, path, text) assert_string_equal(th_json_path_str((a).o, path), text)

static void failures_are_statuses(void **state)
{
    (void)state;
    static const struct {
        const char *method, *uri, *body;
        int code;
        const char *reason, *msg;
    } cases[] = {
        {"GET", MAPS "/x", NULL, 404, "NotFound", "configmaps \"x\" not found"},
        {"GET", "/apis/apps/v1/namespaces/default/deployments/x", NULL, 404, "NotFound",
         "deployments.apps \"x\" not found"},
        {"GET", "/api/v1/nothings", NULL, 404, "NotFound",
         "the server could not find the requested resource"},
        {"PUT", MAPS, "{}", 405, "MethodNotAllowed",
         "the server does not allow this method on the requested resource"},
        {"POST", MAPS, "{", 400, "BadRequest", NULL},
        {"POST", MAPS, "{\"kind\":\"Secret\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"a\"}}", 400,
         "BadRequest",
         "Secret in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Secret) to "
         "(core.ConfigMap): unknown conversion"},
        {"POST", MAPS, "{\"metadata\":{\"name\":\"a\"},\"data\":{\"k\":5}}", 400, "BadRequest",
         "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal "
         "number into Go struct field ConfigMap.data of type string"},
        {"POST", MAPS, "{\"metadata\":{\"name\":\"A_b\"}}", 422, "Invalid", NULL},
        {"POST", MAPS, "{\"metadata\":{\"name\":\"a\",\"namespace\":\"other\"}}", 400, "BadRequest",
         "the namespace of the provided object does not match the namespace sent on the request"},
        {"POST", "/api/v1/namespaces/none/configmaps", "{\"metadata\":{\"name\":\"a\"}}", 404,
         "NotFound", "namespaces \"none\" not found"},
        {"PUT", MAPS "/a", "{\"metadata\":{\"name\":\"b\"}}", 400, "BadRequest",
         "the name of the object (b) does not match the name on the URL (a)"},
        {"DELETE", MAPS "/a?dryRun=Some", NULL, 422, "Invalid", NULL},
        {"POST", MAPS, "{\"metadata\":{\"name\":\"a\",\"resourceVersion\":\"5\"}}", 500, NULL,
         "resourceVersion should not be set on objects to be created"},
        {"GET", MAPS "?continue=%21", NULL, 400, "BadRequest",
         "invalid continue token: continue key is not valid"},
        {"GET", MAPS "?fieldSelector=data.k%3Dv", NULL, 400, "BadRequest", NULL},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        ANSWER a = ask(cases[i].method, cases[i].uri, cases[i].body);
        assert_int_equal(a.resp.status, cases[i].code);
        assert_path(a, "kind", "Status");
        assert_path(a, "status", "Failure");
        assert_true(th_streq(th_json_path_str(a.o, "reason"), cases[i].reason));
        assert_int_equal(th_json_path_int(a.o, "code", 0), cases[i].code);
        if (cases[i].msg) {
            assert_path(a, "message", cases[i].msg);
        }
    }
}

static void a_status_comes_in_the_encoding_that_was_asked_for(void **state)
{
    (void)state;
    ANSWER a = ask_as(TH_TYPE_PROTOBUF, "GET", MAPS "/x", NULL, (struct th_str){"", 0});
    assert_string_equal(a.resp.content_type, TH_TYPE_PROTOBUF);
    const struct th_kind *k = NULL;
    TH_AUTO(th_json) struct th_json *o = NULL;
    assert_int_equal(th_pb_decode(a.body.p, a.body.n, NULL, &k, &o, NULL), 0);
    assert_string_equal(k->kind, "Status");
    assert_string_equal(th_json_path_str(o, "reason"), "NotFound");
    ANSWER b = ask_as("text/html", "GET", MAPS, NULL, (struct th_str){"", 0});
    assert_int_equal(b.resp.status, 406);
    assert_path(b, "reason", "NotAcceptable");
}

static void objects_are_the_same_in_every_encoding(void **state)
{
    (void)state;
    make("enc");
    ANSWER j = ask("GET", MAPS "/enc", NULL);
    ANSWER p = ask_as(TH_TYPE_PROTOBUF, "GET", MAPS "/enc", NULL, (struct th_str){"", 0});
    TH_AUTO(th_json) struct th_json *o = NULL;
    assert_int_equal(th_pb_decode(p.body.p, p.body.n, NULL, NULL, &o, NULL), 0);
    assert_true(th_json_equal(o, j.o));
    ANSWER l = ask_as(TH_TYPE_PROTOBUF, "GET", MAPS, NULL, (struct th_str){"", 0});
    TH_AUTO(th_json) struct th_json *list = NULL;
    assert_int_equal(th_pb_decode(l.body.p, l.body.n, NULL, NULL, &list, NULL), 0);
    assert_string_equal(th_json_path_str(list, "kind"), "ConfigMapList");
    assert_int_equal(th_json_len(th_json_path(list, "items")), 1);
    ANSWER y = ask_as("application/yaml", "GET", MAPS "/enc", NULL, (struct th_str){"", 0});
    assert_string_equal(y.resp.content_type, "application/yaml");
    ANSWER m = ask_as(TH_TYPE_PROTOBUF ";as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", "GET", MAPS,
                      NULL, (struct th_str){"", 0});
    TH_AUTO(th_json) struct th_json *meta = NULL;
    assert_int_equal(th_pb_decode(m.body.p, m.body.n, NULL, NULL, &meta, NULL), 0);
    assert_string_equal(th_json_path_str(meta, "kind"), "PartialObjectMetadataList");
    assert_string_equal(
        th_json_path_str(th_json_at(th_json_path(meta, "items"), 0), "metadata.name"), "enc");
    drop_all();
}

static void items_of_lists_do_not_repeat_what_they_are(void **state)
{
    (void)state;
    make("a");
    make("b");
    ANSWER l = ask("GET", MAPS, NULL);
    assert_int_equal(th_json_len(th_json_path(l.o, "items")), 2);
    for (size_t i = 0; i < 2; i++) {
        const struct th_json *item = th_json_at(th_json_path(l.o, "items"), i);
        assert_false(th_json_has(item, "kind") || th_json_has(item, "apiVersion"));
    }
    ANSWER pretty = ask("GET", MAPS "?pretty=true", NULL);
    assert_true(th_json_equal(pretty.o, l.o));
    drop_all();
}

static void pages_go_on_where_the_last_one_ended(void **state)
{
    (void)state;
    for (char c = 'a'; c <= 'e'; c++) {
        make((char[]){c, '\0'});
    }
    ANSWER first = ask("GET", MAPS "?limit=2", NULL);
    assert_int_equal(th_json_path_int(first.o, "metadata.remainingItemCount", 0), 3);
    make("bb"); /* later than the pages' moment */
    th_autofree char *next = th_xasprintf(MAPS "?limit=9&continue=%s",
                                          th_json_path_str(first.o, "metadata.continue"));
    ANSWER second = ask("GET", next, NULL);
    assert_int_equal(th_json_len(th_json_path(second.o, "items")), 3);
    assert_path(second, "metadata.resourceVersion",
                th_json_path_str(first.o, "metadata.resourceVersion"));
    assert_null(th_json_path_str(second.o, "metadata.continue"));
    ANSWER selected = ask("GET", MAPS "?limit=1&labelSelector=n+in+(b,d)", NULL);
    assert_int_equal(th_json_len(th_json_path(selected.o, "items")), 1);
    assert_non_null(th_json_path_str(selected.o, "metadata.continue"));
    assert_false(th_json_has(th_json_get(selected.o, "metadata"), "remainingItemCount"));
    ANSWER any = ask("GET", MAPS "?limit=2&resourceVersion=0", NULL);
    assert_int_equal(th_json_len(th_json_path(any.o, "items")), 6);
    drop_all();
}

static void an_old_token_is_gone_and_brings_another(void **state)
{
    (void)state;
    make("a");
    make("b");
    make("c");
    th_autobuf struct th_buf token = TH_BUF_INIT;
    const char *old = "{\"v\":\"meta.k8s.io/v1\",\"rv\":2,\"start\":\"a\",\"made\":1}";
    th_b64url_encode(old, strlen(old), &token);
    th_autofree char *all = th_xasprintf(MAPS "?continue=%s", th_buf_cstr(&token));
    ANSWER gone = ask("GET", all, NULL);
    assert_int_equal(gone.resp.status, 410);
    assert_path(gone, "reason", "Expired");
    th_autofree char *next = th_xasprintf(MAPS "?continue=%s",
                                          th_json_path_str(gone.o, "metadata.continue"));
    ANSWER rest = ask("GET", next, NULL);
    assert_int_equal(rest.resp.status, 200);
    assert_int_equal(th_json_len(th_json_path(rest.o, "items")), 2);
    drop_all();
}

static void writes_are_checked_against_versions_and_uids(void **state)
{
    (void)state;
    make("v");
    ANSWER now = ask("GET", MAPS "/v", NULL);
    ANSWER stale = ask("PUT", MAPS "/v", "{\"metadata\":{\"name\":\"v\",\"resourceVersion\":\"1\"}}");
    assert_int_equal(stale.resp.status, 409);
    assert_path(stale, "message",
                "Operation cannot be fulfilled on configmaps \"v\": the object has been modified; "
                "please apply your changes to the latest version and try again");
    ANSWER uid = ask("DELETE", MAPS "/v", "{\"preconditions\":{\"uid\":\"x\"}}");
    assert_int_equal(uid.resp.status, 409);
    th_autofree char *why = th_xasprintf(
        "Operation cannot be fulfilled on configmaps \"v\": Precondition failed: UID in "
        "precondition: x, UID in object meta: %s", th_json_path_str(now.o, "metadata.uid"));
    assert_path(uid, "message", why);
    ANSWER free = ask("PUT", MAPS "/v", "{\"metadata\":{\"name\":\"v\"},\"data\":{\"k\":\"w\"}}");
    assert_int_equal(free.resp.status, 200);
    assert_path(free, "metadata.uid", th_json_path_str(now.o, "metadata.uid"));
    ANSWER same = ask("PUT", MAPS "/v", "{\"metadata\":{\"name\":\"v\"},\"data\":{\"k\":\"w\"}}");
    assert_path(same, "metadata.resourceVersion",
                th_json_path_str(free.o, "metadata.resourceVersion"));
    drop_all();
}

static struct th_str next_frame(struct th_apiwatch *w)
{
    struct th_str f = {NULL, 0};
    assert_int_equal(th_apiwatch_next(w, &f), 1);
    return f;
}

static bool frame_is(struct th_str f, const char *type, const char *needle)
{
    th_autofree char *text = th_xstrndup(f.p, f.n);
    th_autofree char *head = th_xasprintf("{\"type\":\"%s\",", type);
    return th_startswith(text, head) && strstr(text, needle);
}

static void watches_turn_selectors_into_comings_and_goings(void **state)
{
    (void)state;
    make("w");
    ANSWER a = ask("GET", MAPS "?watch=true&labelSelector=n%3Dw&allowWatchBookmarks=true"
                   "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan", NULL);
    assert_non_null(a.resp.watch);
    assert_true(frame_is(next_frame(a.resp.watch), "ADDED", "\"name\":\"w\""));
    assert_true(frame_is(next_frame(a.resp.watch), "BOOKMARK", "k8s.io/initial-events-end"));
    make("other");
    ANSWER u = ask("PUT", MAPS "/w", "{\"metadata\":{\"name\":\"w\",\"labels\":{\"n\":\"x\"}}}");
    assert_int_equal(u.resp.status, 200);
    struct th_str f = next_frame(a.resp.watch);
    assert_true(frame_is(f, "DELETED", "\"n\":\"w\""));
    assert_true(frame_is(f, "DELETED", th_json_path_str(u.o, "metadata.resourceVersion")));
    ANSWER v = ask("PUT", MAPS "/w", "{\"metadata\":{\"name\":\"w\",\"labels\":{\"n\":\"w\"}}}");
    assert_int_equal(v.resp.status, 200);
    assert_true(frame_is(next_frame(a.resp.watch), "ADDED", "\"n\":\"w\""));
    drop_all();
    assert_true(frame_is(next_frame(a.resp.watch), "DELETED", "\"n\":\"w\""));
    assert_int_equal(th_apiwatch_next(a.resp.watch, &f), 0);
}

static void a_watch_of_the_past_beyond_memory_says_gone(void **state)
{
    (void)state;
    make("z");
    ANSWER now = ask("GET", MAPS "/z", NULL);
    int64_t rv = th_store_rv(g_f.store);
    assert_int_equal(th_store_compact(g_f.store, rv, NULL), 0);
    ANSWER a = ask("GET", MAPS "?watch=true&resourceVersion=1", NULL);
    assert_int_equal(a.resp.status, 200);
    struct th_str f = next_frame(a.resp.watch);
    assert_true(frame_is(f, "ERROR", "\"reason\":\"Expired\""));
    assert_true(frame_is(f, "ERROR", "too old resource version: 1"));
    assert_int_equal(th_apiwatch_next(a.resp.watch, &f), -1);
    drop_all();
}

static void versions_of_the_future_are_waited_for_in_vain(void **state)
{
    (void)state;
    ANSWER a = ask("GET", MAPS "?resourceVersion=99999999", NULL);
    assert_int_equal(a.resp.status, 504);
    assert_path(a, "reason", "Timeout");
    const struct th_json *cause = th_json_at(th_json_path(a.o, "details.causes"), 0);
    assert_string_equal(th_json_path_str(cause, "reason"), "ResourceVersionTooLarge");
    assert_int_equal(th_json_path_int(a.o, "details.retryAfterSeconds", 0), 1);
}

static void another_served_form_is_the_same_object(void **state)
{
    (void)state;
    ANSWER e = ask("POST", "/apis/events.k8s.io/v1/namespaces/default/events",
                   "{\"metadata\":{\"name\":\"e\"},\"eventTime\":\"2026-01-02T03:04:05.000000Z\","
                   "\"reportingController\":\"c\",\"reportingInstance\":\"i\",\"action\":\"A\","
                   "\"reason\":\"R\",\"type\":\"Normal\",\"note\":\"n\",\"regarding\":{\"kind\":\"Pod\","
                   "\"name\":\"p\",\"namespace\":\"default\"}}");
    assert_int_equal(e.resp.status, 201);
    assert_path(e, "note", "n");
    ANSWER core = ask("GET", "/api/v1/namespaces/default/events/e", NULL);
    assert_path(core, "message", "n");
    assert_path(core, "involvedObject.name", "p");
    ANSWER list = ask_as(TH_TYPE_PROTOBUF, "GET", "/apis/events.k8s.io/v1/events", NULL,
                         (struct th_str){"", 0});
    TH_AUTO(th_json) struct th_json *o = NULL;
    assert_int_equal(th_pb_decode(list.body.p, list.body.n, NULL, NULL, &o, NULL), 0);
    assert_string_equal(th_json_path_str(th_json_at(th_json_path(o, "items"), 0), "regarding.name"), "p");
}

static void metrics_count_what_was_asked(void **state)
{
    (void)state;
    make("counted");
    ANSWER dry = ask("DELETE", MAPS "/counted?dryRun=All", NULL);
    assert_int_equal(dry.resp.status, 200);
    ANSWER unknown = ask("GET", "/api/v1/made-up-by-a-client", NULL);
    assert_int_equal(unknown.resp.status, 404);
    drop_all();
    ANSWER m = ask("GET", "/metrics", NULL);
    assert_int_equal(m.resp.status, 200);
    const char *text = th_buf_cstr(&m.resp.body);
    static const char *const wanted[] = {
        "apiserver_request_total{code=\"201\",component=\"apiserver\",dry_run=\"\",group=\"\","
        "resource=\"configmaps\",scope=\"namespace\",subresource=\"\",verb=\"POST\","
        "version=\"v1\"} ",
        "code=\"200\",component=\"apiserver\",dry_run=\"All\",group=\"\","
        "resource=\"configmaps\",scope=\"resource\",subresource=\"\",verb=\"DELETE\"",
        "apiserver_request_duration_seconds_bucket{component=\"apiserver\"",
        "verb=\"DELETECOLLECTION\",version=\"v1\",le=\"+Inf\"} ",
        "apiserver_resource_objects{group=\"flowcontrol.apiserver.k8s.io\",resource=\"flowschemas\"} 11\n",
        "apiserver_resource_objects{group=\"\",resource=\"namespaces\"} 4\n",
        "apiserver_flowcontrol_rejected_requests_total{priority_level=\"catch-all\"} 0\n",
        "process_start_time_seconds ",
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(wanted); i++) {
        if (!strstr(text, wanted[i])) {
            fail_msg("no %s", wanted[i]);
        }
    }
    assert_null(strstr(text, "made-up"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(failures_are_statuses),
        cmocka_unit_test(a_status_comes_in_the_encoding_that_was_asked_for),
        cmocka_unit_test(objects_are_the_same_in_every_encoding),
        cmocka_unit_test(items_of_lists_do_not_repeat_what_they_are),
        cmocka_unit_test(pages_go_on_where_the_last_one_ended),
        cmocka_unit_test(an_old_token_is_gone_and_brings_another),
        cmocka_unit_test(writes_are_checked_against_versions_and_uids),
        cmocka_unit_test(watches_turn_selectors_into_comings_and_goings),
        cmocka_unit_test(versions_of_the_future_are_waited_for_in_vain),
        cmocka_unit_test(another_served_form_is_the_same_object),
        cmocka_unit_test(metrics_count_what_was_asked),
        cmocka_unit_test(a_watch_of_the_past_beyond_memory_says_gone),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
