/* Which requests the rules of webhooks and policies are about. */
#include "controlplane/api/admission/match.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void init(struct th_match *m, const char *text)
{
    TH_AUTO(th_json) struct th_json *o = NULL;
    th_autofree char *quoted = th_xstrdup(text);
    for (char *p = quoted; *p; p++) {
        *p = *p == '\'' ? '"' : *p;
    }
    assert_int_equal(th_json_parse_cstr(quoted, &o, NULL), 0);
    th_match_init(m, o);
}

struct row {
    const char *rule; /* members of one rule besides operations, groups and versions */
    const char *group, *version, *plural, *sub, *ns;
    bool matches;
};

static void rules_match_groups_versions_resources_and_scopes(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"'apiGroups':['apps'],'apiVersions':['v1'],'resources':['deployments']", "apps", "v1",
         "deployments", "", "n", true},
        {"'apiGroups':['apps'],'apiVersions':['v1'],'resources':['deployments']", "apps", "v1",
         "deployments", "scale", "n", false},
        {"'apiGroups':['apps'],'apiVersions':['v1'],'resources':['deployments/scale']", "apps", "v1",
         "deployments", "scale", "n", true},
        {"'apiGroups':[''],'apiVersions':['v1'],'resources':['pods/*']", "", "v1", "pods", "exec",
         "n", true},
        {"'apiGroups':[''],'apiVersions':['v1'],'resources':['pods/*']", "", "v1", "pods", "", "n",
         true},
        {"'apiGroups':['*'],'apiVersions':['*'],'resources':['*']", "x.io", "v9", "things", "", "n",
         true},
        {"'apiGroups':['*'],'apiVersions':['*'],'resources':['*']", "x.io", "v9", "things", "status",
         "n", false},
        {"'apiGroups':['*'],'apiVersions':['*'],'resources':['*/status']", "x.io", "v9", "things",
         "status", "n", true},
        {"'apiGroups':['*'],'apiVersions':['*'],'resources':['*/*']", "x.io", "v9", "things", "", "n",
         true},
        {"'apiGroups':['*'],'apiVersions':['v1'],'resources':['*']", "x.io", "v9", "things", "", "n",
         false},
        {"'apiGroups':[''],'apiVersions':['v1'],'resources':['*'],'scope':'Namespaced'", "", "v1",
         "pods", "", "n", true},
        {"'apiGroups':[''],'apiVersions':['v1'],'resources':['*'],'scope':'Namespaced'", "", "v1",
         "nodes", "", "", false},
        {"'apiGroups':[''],'apiVersions':['v1'],'resources':['*'],'scope':'Cluster'", "", "v1",
         "nodes", "", "", true},
        /* a Namespace is cluster-scoped although the request is in it */
        {"'apiGroups':[''],'apiVersions':['v1'],'resources':['*'],'scope':'Namespaced'", "", "v1",
         "namespaces", "", "n", false},
        {"'apiGroups':[''],'apiVersions':['v1'],'resources':['*'],'scope':'Cluster'", "", "v1",
         "namespaces", "", "n", true},
        {"'apiGroups':[''],'apiVersions':['v1'],'resources':['pods'],'resourceNames':['b']", "", "v1",
         "pods", "", "n", false},
        {"'apiGroups':[''],'apiVersions':['v1'],'resources':['pods'],'resourceNames':['a','b']", "",
         "v1", "pods", "", "n", true},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(rows); i++) {
        const struct row *r = &rows[i];
        TH_CLEANUP(th_match_done) struct th_match m;
        th_autofree char *text = th_xasprintf("{'rules':[{'operations':['CREATE'],%s}]}", r->rule);
        init(&m, text);
        struct th_match_key k = {"CREATE", r->group, r->version, r->plural, r->sub, r->ns, "a"};
        if (th_match_rules(m.rules, m.n_rules, &k) != r->matches) {
            fail_msg("%s against %s/%s", r->rule, r->plural, r->sub);
        }
        k.op = "DELETE";
        assert_false(th_match_rules(m.rules, m.n_rules, &k));
    }
}

static void match_resources_have_selectors_and_policy(void **state)
{
    (void)state;
    TH_CLEANUP(th_match_done) struct th_match m;
    init(&m, "{'resourceRules':[],'excludeResourceRules':[{'operations':['*'],'apiGroups':['*'],"
             "'apiVersions':['*'],'resources':['secrets']}],'matchPolicy':'Equivalent',"
             "'namespaceSelector':{},'objectSelector':{'matchLabels':{'a':'b'}}}");
    assert_true(m.equivalent && m.empty_matches);
    assert_int_equal(m.n_exclude, 1);
    assert_null(m.namespaces); /* an empty selector is none */
    assert_non_null(m.objects);
    TH_CLEANUP(th_match_done) struct th_match bad;
    init(&bad, "{'rules':[],'objectSelector':{'matchExpressions':[{'key':'a','operator':'No'}]}}");
    assert_non_null(bad.selector_error);
    assert_false(bad.equivalent || bad.empty_matches);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules_match_groups_versions_resources_and_scopes),
        cmocka_unit_test(match_resources_have_selectors_and_policy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
