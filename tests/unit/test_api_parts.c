/* The parts of the request pipeline one by one: paths, query strings, Accept, list options. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "controlplane/api/priv.h"

/* ---- paths ---- */

static void paths_name_what_they_address(void **state)
{
    (void)state;
    static const struct {
        const char *uri, *group, *version, *ns, *plural, *name, *sub, *rest;
    } cases[] = {
        {"/api/v1/pods", "", "v1", NULL, "pods", NULL, NULL, NULL},
        {"/api/v1/namespaces/a/pods/p?x=y", "", "v1", "a", "pods", "p", NULL, NULL},
        {"/api/v1/namespaces/a", "", "v1", NULL, "namespaces", "a", NULL, NULL},
        {"/api/v1/namespaces/a/status", "", "v1", NULL, "namespaces", "a", "status", NULL},
        {"/api/v1/namespaces/a/finalize", "", "v1", NULL, "namespaces", "a", "finalize", NULL},
        {"/apis/apps/v1/namespaces/a/deployments/d/scale", "apps", "v1", "a", "deployments", "d",
         "scale", NULL},
        {"/apis/apps/v1//namespaces/a/deployments/", "apps", "v1", "a", "deployments", NULL, NULL,
         NULL},
        {"/api/v1/nodes/n/proxy/x%2Fy/z", "", "v1", NULL, "nodes", "n", "proxy", "x%2Fy/z"},
        {"/api/v1/namespaces/a/configmaps/x%2fy", "", "v1", "a", "configmaps", "x/y", NULL, NULL},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        TH_CLEANUP(th_route_done) struct th_route r = {0};
        assert_int_equal(th_route_parse(cases[i].uri, &r, NULL), 0);
        assert_int_equal(r.kind, TH_ROUTE_RESOURCE);
        assert_true(th_streq(r.group, cases[i].group) && th_streq(r.version, cases[i].version));
        assert_true(th_streq(r.ns, cases[i].ns) && th_streq(r.plural, cases[i].plural));
        assert_true(th_streq(r.name, cases[i].name) && th_streq(r.sub, cases[i].sub));
        assert_true(th_streq(r.rest, cases[i].rest));
    }
}

static void old_watch_paths_are_watches(void **state)
{
    (void)state;
    TH_CLEANUP(th_route_done) struct th_route r = {0};
    assert_int_equal(th_route_parse("/api/v1/watch/namespaces/a/pods/p", &r, NULL), 0);
    assert_true(r.watch && th_streq(r.ns, "a") && th_streq(r.plural, "pods"));
    assert_string_equal(r.name, "p");
    th_route_done(&r);
    assert_int_equal(th_route_parse("/apis/apps/v1/watch/deployments", &r, NULL), 0);
    assert_true(r.watch && th_streq(r.plural, "deployments") && !r.name);
}

static void other_paths_are_left_to_others(void **state)
{
    (void)state;
    static const char *const uris[] = {"/", "/api", "/api/v1", "/apis/apps/v1", "/healthz?verbose"};
    for (size_t i = 0; i < TH_ARRAY_LEN(uris); i++) {
        TH_CLEANUP(th_route_done) struct th_route r = {0};
        assert_int_equal(th_route_parse(uris[i], &r, NULL), 0);
        assert_int_equal(r.kind, TH_ROUTE_OTHER);
    }
    struct th_route r;
    assert_int_equal(th_route_parse("/api/v1/namespaces/%zz/pods", &r, NULL), -TH_R_BAD_REQUEST);
    assert_int_equal(th_route_parse("/api/v1/pods/a%00b", &r, NULL), -TH_R_BAD_REQUEST);
}

/* ---- query strings ---- */

static void queries_keep_order_and_decode(void **state)
{
    (void)state;
    TH_CLEANUP(th_query_done) struct th_query q = {0};
    assert_int_equal(th_query_parse("command=ls&command=-l&labelSelector=a%3Db+c&&empty&x=", &q, NULL), 0);
    assert_int_equal(q.keys.n, 5);
    assert_string_equal(q.values.v[1], "-l");
    assert_string_equal(th_query_get(&q, "labelSelector"), "a=b c");
    assert_string_equal(th_query_get(&q, "empty"), "");
    assert_null(th_query_get(&q, "none"));
    struct th_query bad;
    assert_int_equal(th_query_parse("a=%g1", &bad, NULL), -TH_R_BAD_REQUEST);
}

static void booleans_and_numbers_are_read_as_upstream_reads_them(void **state)
{
    (void)state;
    TH_CLEANUP(th_query_done) struct th_query q = {0};
    assert_int_equal(th_query_parse("a=true&b=1&c=false&d=0&e=False&f=&n=12&m=x", &q, NULL), 0);
    assert_true(th_query_bool(&q, "a") && th_query_bool(&q, "b") && th_query_bool(&q, "f"));
    assert_false(th_query_bool(&q, "c") || th_query_bool(&q, "d") || th_query_bool(&q, "e"));
    assert_false(th_query_bool(&q, "none"));
    int64_t n = 0;
    assert_int_equal(th_query_int(&q, "n", 3, &n, NULL), 0);
    assert_int_equal(n, 12);
    assert_int_equal(th_query_int(&q, "none", 3, &n, NULL), 0);
    assert_int_equal(n, 3);
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    assert_int_equal(th_query_int(&q, "m", 3, &n, &err), -TH_R_BAD_REQUEST);
    assert_string_equal(err.msg, "strconv.ParseInt: parsing \"x\": invalid syntax");
}

/* ---- Accept ---- */

#define PB "application/vnd.kubernetes.protobuf"
#define TABLE "application/json;as=Table;v=v1;g=meta.k8s.io"

static void accept_takes_the_first_form_there_is(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        bool watch, protobuf;
        enum th_form form;
        enum th_media media;
    } cases[] = {
        {NULL, false, true, TH_FORM_OBJECT, TH_MEDIA_JSON},
        {"*/*", false, true, TH_FORM_OBJECT, TH_MEDIA_JSON},
        {"application/json, */*", false, true, TH_FORM_OBJECT, TH_MEDIA_JSON},
        {PB ",application/json", false, true, TH_FORM_OBJECT, TH_MEDIA_PROTOBUF},
        {PB ", */*", true, true, TH_FORM_OBJECT, TH_MEDIA_PROTOBUF},
        {PB ",application/json", false, false, TH_FORM_OBJECT, TH_MEDIA_JSON},
        {"application/yaml", false, false, TH_FORM_OBJECT, TH_MEDIA_YAML},
        {TABLE ",application/json", false, true, TH_FORM_TABLE, TH_MEDIA_JSON},
        {PB ";as=Table;v=v1;g=meta.k8s.io," TABLE, false, true, TH_FORM_TABLE, TH_MEDIA_JSON},
        {PB ";as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json", false, true,
         TH_FORM_PARTIAL, TH_MEDIA_PROTOBUF},
        {"application/json;as=Nothing;g=x;v=y,application/yaml", false, true, TH_FORM_OBJECT,
         TH_MEDIA_YAML},
        {"application/yaml;q=0.5, application/json;q=0.9", false, true, TH_FORM_OBJECT,
         TH_MEDIA_JSON},
        {"text/html,application/xhtml+xml,*/*;q=0.8", false, true, TH_FORM_OBJECT, TH_MEDIA_JSON},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        struct th_accept a;
        assert_int_equal(
            th_accept_parse(cases[i].header, TH_TRANSFORMS_ALL, cases[i].watch, cases[i].protobuf, &a, NULL), 0);
        assert_int_equal(a.form, cases[i].form);
        assert_int_equal(a.media, cases[i].media);
    }
}

static void what_cannot_be_answered_is_not_acceptable(void **state)
{
    (void)state;
    struct th_accept a;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    assert_int_equal(th_accept_parse("text/html", TH_TRANSFORMS_ALL, false, true, &a, &err),
                     -TH_R_NOT_ACCEPTABLE);
    assert_string_equal(err.msg, "only the following media types are accepted: application/json, "
                                 "application/yaml, " PB);
    assert_int_equal(th_accept_parse("application/yaml", TH_TRANSFORMS_ALL, true, true, &a, &err),
                     -TH_R_NOT_ACCEPTABLE);
    assert_string_equal(err.msg, "only the following media types are accepted: "
                                 "application/json;stream=watch, " PB ";stream=watch");
    assert_int_equal(th_accept_parse(PB, TH_TRANSFORMS_ALL, false, false, &a, NULL), -TH_R_NOT_ACCEPTABLE);
    const char *table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    const char *partial = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    assert_int_equal(th_accept_parse(table, TH_TRANSFORMS_PARTIAL, false, true, &a, NULL),
                     -TH_R_NOT_ACCEPTABLE);
    assert_int_equal(th_accept_parse(partial, TH_TRANSFORMS_PARTIAL, false, true, &a, NULL), 0);
    assert_int_equal(th_accept_parse(partial, TH_TRANSFORMS_NONE, false, true, &a, NULL),
                     -TH_R_NOT_ACCEPTABLE);
    assert_int_equal(th_accept_parse(PB ";q=0", TH_TRANSFORMS_ALL, false, true, &a, NULL), -TH_R_NOT_ACCEPTABLE);
}

static void aggregated_discovery_is_wanted_before_plain_json_only(void **state)
{
    (void)state;
    const char *as = "APIGroupDiscoveryList";
    const char *g = "apidiscovery.k8s.io";
    assert_true(th_accept_wants("application/json;g=apidiscovery.k8s.io;v=v2;"
                                "as=APIGroupDiscoveryList,application/json", as, g, "v2"));
    assert_false(th_accept_wants("application/json,application/json;g=apidiscovery.k8s.io;v=v2;"
                                 "as=APIGroupDiscoveryList", as, g, "v2"));
    assert_false(th_accept_wants(NULL, as, g, "v2"));
}

/* ---- list options ---- */

static int listopts(const char *query, bool watch, struct th_listopts *o, struct th_err *err)
{
    TH_CLEANUP(th_query_done) struct th_query q = {0};
    assert_int_equal(th_query_parse(query, &q, NULL), 0);
    int r = th_listopts_parse(&q, watch, o, err);
    o->cont = NULL; /* it points into q */
    return r;
}

static void list_options_have_upstreams_rules(void **state)
{
    (void)state;
    static const struct {
        const char *query;
        bool watch;
        int code;
        const char *msg;
    } bad[] = {
        {"resourceVersionMatch=Exact", false, -TH_R_INVALID,
         "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: "
         "resourceVersionMatch is forbidden unless resourceVersion is provided"},
        {"resourceVersionMatch=Exact&resourceVersion=0", false, -TH_R_INVALID,
         "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: "
         "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""},
        {"resourceVersionMatch=Foo&resourceVersion=5", false, -TH_R_INVALID,
         "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Unsupported value: "
         "\"Foo\": supported values: \"Exact\", \"NotOlderThan\", \"\""},
        {"sendInitialEvents=true", false, -TH_R_INVALID,
         "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: "
         "sendInitialEvents is forbidden for list"},
        {"sendInitialEvents=true", true, -TH_R_INVALID,
         "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: "
         "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"},
        {"resourceVersionMatch=NotOlderThan", true, -TH_R_INVALID,
         "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: "
         "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"},
        {"continue=x&resourceVersion=5", false, -TH_R_BAD_REQUEST,
         "specifying resource version is not allowed when using continue"},
        {"resourceVersion=abc", false, -TH_R_BAD_REQUEST,
         "invalid resource version: resourceVersion: Invalid value: \"abc\": strconv.ParseUint: "
         "parsing \"abc\": invalid syntax"},
        {"limit=x", false, -TH_R_BAD_REQUEST, "strconv.ParseInt: parsing \"x\": invalid syntax"},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(bad); i++) {
        struct th_listopts o = {0};
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        assert_int_equal(listopts(bad[i].query, bad[i].watch, &o, &err), bad[i].code);
        assert_string_equal(err.msg, bad[i].msg);
    }
    struct th_listopts o;
    assert_int_equal(listopts("resourceVersion=7&resourceVersionMatch=Exact&limit=-1", false, &o, NULL), 0);
    assert_true(o.rv == 7 && o.match == TH_RVM_EXACT && o.limit == 0);
    assert_int_equal(listopts("continue=x&resourceVersion=0", false, &o, NULL), 0);
    assert_int_equal(listopts("sendInitialEvents=false&resourceVersionMatch=NotOlderThan"
                              "&allowWatchBookmarks=true&timeoutSeconds=9", true, &o, NULL), 0);
    assert_true(o.initial_events_set && !o.initial_events && o.bookmarks && o.timeout_s == 9);
    assert_int_equal(o.rv, -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_name_what_they_address),
        cmocka_unit_test(old_watch_paths_are_watches),
        cmocka_unit_test(other_paths_are_left_to_others),
        cmocka_unit_test(queries_keep_order_and_decode),
        cmocka_unit_test(booleans_and_numbers_are_read_as_upstream_reads_them),
        cmocka_unit_test(accept_takes_the_first_form_there_is),
        cmocka_unit_test(what_cannot_be_answered_is_not_acceptable),
        cmocka_unit_test(aggregated_discovery_is_wanted_before_plain_json_only),
        cmocka_unit_test(list_options_have_upstreams_rules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
