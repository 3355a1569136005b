/* RBAC rules without a server: what they allow, what they cover, how they are shown; and that the
 * defaults of a new cluster parse. */
#include "controlplane/api/rbac.h"
#include "controlplane/resources/rbac_defaults.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct th_rules rules(const char *json)
{
    TH_AUTO(th_json) struct th_json *o = NULL;
    assert_int_equal(th_json_parse_cstr(json, &o, NULL), 0);
    struct th_rules r = {.v = NULL};
    th_rules_add_json(&r, o);
    return r;
}

static bool allows(const char *json, const char *verb, const char *group, const char *plural,
                   const char *sub, const char *name)
{
    TH_CLEANUP(th_rules_done) struct th_rules r = rules(json);
    struct th_attrs at = {.verb = verb, .resource = true, .group = group, .plural = plural,
                          .sub = sub, .name = name};
    return th_rules_allow(&r, &at);
}

static void a_rule_names_groups_resources_and_verbs(void **state)
{
    (void)state;
    static const char pods[] = "[{\"apiGroups\":[\"\"],\"resources\":[\"pods\",\"pods/log\"],"
                               "\"verbs\":[\"get\",\"list\"]}]";
    assert_true(allows(pods, "get", "", "pods", NULL, "x"));
    assert_true(allows(pods, "list", "", "pods", "", NULL));
    assert_true(allows(pods, "get", "", "pods", "log", "x"));
    assert_false(allows(pods, "get", "", "pods", "exec", "x"));
    assert_false(allows(pods, "watch", "", "pods", NULL, NULL));
    assert_false(allows(pods, "get", "apps", "pods", NULL, "x"));
    assert_false(allows(pods, "get", "", "podsx", NULL, "x"));
}

static void stars_stand_for_everything_or_for_one_subresource(void **state)
{
    (void)state;
    static const char all[] = "[{\"apiGroups\":[\"*\"],\"resources\":[\"*\"],\"verbs\":[\"*\"]}]";
    assert_true(allows(all, "zap", "g", "things", "sub", "x"));
    static const char scale[] =
        "[{\"apiGroups\":[\"*\"],\"resources\":[\"*/scale\"],\"verbs\":[\"get\"]}]";
    assert_true(allows(scale, "get", "apps", "deployments", "scale", "x"));
    assert_false(allows(scale, "get", "apps", "deployments", NULL, "x"));
    static const char wrong[] =
        "[{\"apiGroups\":[\"\"],\"resources\":[\"pods/*\"],\"verbs\":[\"get\"]}]";
    assert_false(allows(wrong, "get", "", "pods", "log", "x"));
}

static void names_narrow_a_rule(void **state)
{
    (void)state;
    static const char one[] = "[{\"apiGroups\":[\"\"],\"resources\":[\"secrets\"],\"verbs\":[\"get\","
                              "\"list\"],\"resourceNames\":[\"a\",\"b\"]}]";
    assert_true(allows(one, "get", "", "secrets", NULL, "b"));
    assert_false(allows(one, "get", "", "secrets", NULL, "c"));
    assert_false(allows(one, "list", "", "secrets", NULL, NULL));
}

static void paths_match_whole_or_by_prefix(void **state)
{
    (void)state;
    TH_CLEANUP(th_rules_done) struct th_rules r = rules(
        "[{\"nonResourceURLs\":[\"/healthz\",\"/apis/*\"],\"verbs\":[\"get\"]}]");
    struct th_attrs at = {.verb = "get", .path = "/healthz"};
    assert_true(th_rules_allow(&r, &at));
    at.path = "/healthz/x";
    assert_false(th_rules_allow(&r, &at));
    at.path = "/apis/apps";
    assert_true(th_rules_allow(&r, &at));
    at.path = "/apis";
    assert_false(th_rules_allow(&r, &at));
    at.verb = "post";
    at.path = "/apis/apps";
    assert_false(th_rules_allow(&r, &at));
}

static char *missing(const char *owned, const char *asked)
{
    TH_CLEANUP(th_rules_done) struct th_rules o = rules(owned);
    TH_CLEANUP(th_rules_done) struct th_rules a = rules(asked);
    TH_CLEANUP(th_rules_done) struct th_rules m = {.v = NULL};
    th_rules_uncovered(&o, &a, &m);
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_rules_describe(&m, &b);
    return th_xstrdup(th_buf_cstr(&b));
}

static void what_is_not_covered_is_shown_as_upstream_shows_it(void **state)
{
    (void)state;
    static const struct {
        const char *owned, *asked, *missing;
    } cases[] = {
        {"[{'apiGroups':['*'],'resources':['*'],'verbs':['*']}]",
         "[{'apiGroups':['apps'],'resources':['deployments','a/b'],'verbs':['get','x']}]", ""},
        /* two rules together cover one */
        {"[{'apiGroups':[''],'resources':['pods'],'verbs':['get']},"
         "{'apiGroups':[''],'resources':['pods'],'verbs':['list']}]",
         "[{'apiGroups':[''],'resources':['pods'],'verbs':['get','list']}]", ""},
        {"[{'apiGroups':[''],'resources':['pods'],'verbs':['get']}]",
         "[{'apiGroups':['','apps'],'resources':['pods'],'verbs':['get','list']}]",
         "{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"list\"]}\n"
         "{APIGroups:[\"apps\"], Resources:[\"pods\"], Verbs:[\"get\" \"list\"]}"},
        /* a name covers no more than itself; no name is all names */
        {"[{'apiGroups':[''],'resources':['cm'],'resourceNames':['a'],'verbs':['get']}]",
         "[{'apiGroups':[''],'resources':['cm'],'resourceNames':['a','b'],'verbs':['get']},"
         "{'apiGroups':[''],'resources':['cm'],'verbs':['get']}]",
         "{APIGroups:[\"\"], Resources:[\"cm\"], ResourceNames:[\"b\"], Verbs:[\"get\"]}\n"
         "{APIGroups:[\"\"], Resources:[\"cm\"], Verbs:[\"get\"]}"},
        {"[{'apiGroups':['*'],'resources':['*/scale'],'verbs':['get']}]",
         "[{'apiGroups':['apps'],'resources':['deployments/scale','deployments'],'verbs':['get']}]",
         "{APIGroups:[\"apps\"], Resources:[\"deployments\"], Verbs:[\"get\"]}"},
        {"[{'nonResourceURLs':['/apis/*'],'verbs':['get']}]",
         "[{'nonResourceURLs':['/apis/x','/api','/apis/*','*'],'verbs':['get']}]",
         "{NonResourceURLs:[\"*\"], Verbs:[\"get\"]}\n{NonResourceURLs:[\"/api\"], Verbs:[\"get\"]}"},
        {"[]", "[{'apiGroups':[''],'resources':['*'],'verbs':[]}]", ""},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        th_autofree char *owned = th_xstrdup(cases[i].owned);
        th_autofree char *asked = th_xstrdup(cases[i].asked);
        for (char *p = owned; (p = strchr(p, '\'')); p++) {
            *p = '"';
        }
        for (char *p = asked; (p = strchr(p, '\'')); p++) {
            *p = '"';
        }
        th_autofree char *got = missing(owned, asked);
        assert_string_equal(got, cases[i].missing);
    }
}

static void a_rule_survives_the_way_to_json(void **state)
{
    (void)state;
    TH_AUTO(th_json) struct th_json *node = th_rbac_default("ClusterRole", "system:node");
    assert_non_null(node);
    TH_CLEANUP(th_rules_done) struct th_rules r = {.v = NULL};
    th_rules_add_json(&r, th_json_get(node, "rules"));
    assert_int_equal(r.n, th_json_len(th_json_get(node, "rules")));
    for (size_t i = 0; i < r.n; i++) {
        TH_AUTO(th_json) struct th_json *back = th_rule_json(&r.v[i]);
        assert_true(th_json_equal(back, th_json_at(th_json_get(node, "rules"), i)));
    }
}

static void the_default_objects_are_whole(void **state)
{
    (void)state;
    TH_AUTO(th_json) struct th_json *all = th_rbac_defaults();
    assert_true(th_json_len(all) > 120);
    for (size_t i = 0; i < th_json_len(all); i++) {
        const struct th_json *o = th_json_at(all, i);
        const char *kind = th_json_path_str(o, "kind");
        bool binding = th_endswith(kind, "Binding");
        bool cluster = th_startswith(kind, "Cluster");
        assert_non_null(th_json_path_str(o, "metadata.name"));
        assert_int_equal(th_json_path_str(o, "metadata.namespace") != NULL, !cluster);
        assert_true(binding ? th_json_path_str(o, "roleRef.name") != NULL
                            : th_json_has(o, "rules"));
    }
    assert_null(th_rbac_default("ClusterRole", "no-such-role"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rule_names_groups_resources_and_verbs),
        cmocka_unit_test(stars_stand_for_everything_or_for_one_subresource),
        cmocka_unit_test(names_narrow_a_rule),
        cmocka_unit_test(paths_match_whole_or_by_prefix),
        cmocka_unit_test(what_is_not_covered_is_shown_as_upstream_shows_it),
        cmocka_unit_test(a_rule_survives_the_way_to_json),
        cmocka_unit_test(the_default_objects_are_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
