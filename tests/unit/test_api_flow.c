/* Flow control: which requests belong where, who gets a seat, who waits, who is refused. */
#include "api_fixture.h"

#include "controlplane/api/flow.h"
#include "controlplane/api/priv.h"

static struct api_fixture g_f;
static struct th_flow *g_flow;

/* What was started, in order: the argument of each job. */
static int g_started[512];
static size_t g_n;

static void start_fn(void *self, void (*fn)(void *arg), void *arg)
{
    (void)self;
    (void)fn;
    g_started[g_n++] = *(int *)arg;
}

static void job(void *arg)
{
    (void)arg;
}

static int begin(void **state)
{
    (void)state;
    api_fixture_start(&g_f, NULL, NULL);
    g_flow = th_flow_new(g_f.store);
    th_flow_seats(g_flow, 2, start_fn, NULL);
    g_n = 0;
    return 0;
}

static int end(void **state)
{
    (void)state;
    th_flow_free(g_flow);
    api_fixture_stop(&g_f);
    return 0;
}

static struct th_flow_class class_of(const char *user, const char *group, const char *verb,
                                     const char *api_group, const char *plural, const char *ns,
                                     const char *path)
{
    const char *groups[] = {group, "system:authenticated", NULL};
    TH_AUTO(th_identity) struct th_identity *id = th_identity_new(user, NULL, groups);
    struct th_attrs at = {.id = id,
                          .verb = verb,
                          .resource = path == NULL,
                          .group = api_group,
                          .version = "v1",
                          .plural = plural,
                          .ns = ns,
                          .path = path};
    struct th_flow_class c;
    th_flow_classify(g_flow, &at, &c);
    return c;
}

static char *uid_of(const char *plural, const char *name)
{
    th_autofree char *key = th_xasprintf("flowcontrol.apiserver.k8s.io/%s/-/%s", plural, name);
    TH_AUTO(th_obj) struct th_obj *o = th_store_get(g_f.store, key);
    assert_non_null(o);
    TH_AUTO(th_json) struct th_json *tree = NULL;
    assert_int_equal(th_json_parse(o->bytes, o->n, NULL, &tree, NULL), 0);
    return th_xstrdup(th_json_path_str(tree, "metadata.uid"));
}

static void requests_belong_to_the_schema_that_matches_first(void **state)
{
    (void)state;
    static const struct {
        const char *user, *group, *verb, *api_group, *plural, *ns, *path, *schema, *level;
    } cases[] = {
        {"admin", "system:masters", "create", "", "pods", "a", NULL, "exempt", "exempt"},
        {"x", "x", "get", NULL, NULL, NULL, "/healthz", "probes", "exempt"},
        {"x", "x", "get", NULL, NULL, NULL, "/version", "global-default", "global-default"},
        {"system:node:n", "system:nodes", "update", "coordination.k8s.io", "leases", "kube-node-lease",
         NULL, "system-node-high", "node-high"},
        {"system:node:n", "system:nodes", "create", "", "events", "a", NULL, "system-nodes", "system"},
        {"system:kube-scheduler", "x", "update", "coordination.k8s.io", "leases", "kube-system", NULL,
         "system-leader-election", "leader-election"},
        {"system:kube-scheduler", "x", "create", "", "bindings", "a", NULL, "kube-scheduler",
         "workload-high"},
        {"system:serviceaccount:kube-system:c", "system:serviceaccounts:kube-system", "list", "", "pods",
         NULL, NULL, "kube-system-service-accounts", "workload-high"},
        {"system:serviceaccount:a:b", "system:serviceaccounts", "list", "", "pods", "a", NULL,
         "service-accounts", "workload-low"},
        {"alice", "devs", "delete", "apps", "deployments", "a", NULL, "global-default",
         "global-default"},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        struct th_flow_class c =
            class_of(cases[i].user, cases[i].group, cases[i].verb, cases[i].api_group,
                     cases[i].plural, cases[i].ns, cases[i].path);
        th_autofree char *schema = uid_of("flowschemas", cases[i].schema);
        th_autofree char *level = uid_of("prioritylevelconfigurations", cases[i].level);
        assert_string_equal(c.schema_uid, schema);
        assert_string_equal(c.level_uid, level);
    }
}

static void a_new_schema_counts_at_once(void **state)
{
    (void)state;
    (void)class_of("alice", "devs", "get", "", "pods", "a", NULL);
    struct th_gvr gvr = {"flowcontrol.apiserver.k8s.io", "v1", "flowschemas"};
    TH_AUTO(th_json) struct th_json *o = th_json_build(
        "{'apiVersion':'flowcontrol.apiserver.k8s.io/v1','kind':'FlowSchema','metadata':{'name':"
        "'mine'},'spec':{'matchingPrecedence':5,'priorityLevelConfiguration':{'name':'system'},"
        "'rules':[{'subjects':[{'kind':'User','user':{'name':'alice'}}],'resourceRules':[{'verbs':"
        "['get'],'apiGroups':[''],'resources':['pods'],'namespaces':['a']}]}]}}");
    assert_int_equal(th_client_create(g_f.api->client, gvr, NULL, o, NULL, NULL), 0);
    th_autofree char *mine = uid_of("flowschemas", "mine");
    struct th_flow_class c = class_of("alice", "devs", "get", "", "pods", "a", NULL);
    assert_string_equal(c.schema_uid, mine);
    c = class_of("alice", "devs", "get", "", "pods", "b", NULL);
    assert_string_not_equal(c.schema_uid, mine);
    c = class_of("bob", "devs", "get", "", "pods", "a", NULL);
    assert_string_not_equal(c.schema_uid, mine);
}

static struct th_flow_class user(const char *name)
{
    return class_of(name, "devs", "create", "", "pods", "a", NULL);
}

static void a_crowd_of_one_flow_does_not_hold_up_another(void **state)
{
    (void)state;
    struct th_flow_class crowd = user("crowd");
    struct th_flow_class other = user("other");
    int many = 1, one = 2;
    for (int i = 0; i < 100; i++) {
        assert_int_equal(th_flow_submit(g_flow, &crowd, job, &many, NULL), 0);
    }
    assert_int_equal(g_n, 2); /* the seats */
    assert_int_equal(th_flow_submit(g_flow, &other, job, &one, NULL), 0);
    bool ran = false;
    size_t turns = 0;
    while (!ran) {
        th_flow_finish(g_flow, &crowd);
        turns++;
        ran = g_started[g_n - 1] == one;
    }
    assert_true(turns <= 8); /* a hand of queues, not the hundred before it */
    while (g_n < 101) {
        th_flow_finish(g_flow, &crowd);
    }
    th_flow_finish(g_flow, &crowd);
    th_flow_finish(g_flow, &other);
    assert_int_equal(g_n, 101);
}

static void a_full_hand_is_refused_with_a_time_to_come_back(void **state)
{
    (void)state;
    struct th_flow_class crowd = user("crowd");
    int many = 1;
    int r = 0;
    size_t taken = 0;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    for (; taken < 1000 && r == 0; taken++) {
        r = th_flow_submit(g_flow, &crowd, job, &many, &err);
    }
    assert_int_equal(r, -TH_R_TOO_MANY_REQUESTS);
    assert_int_equal(taken, 2 + 6 * 50 + 1); /* seats, hand x queue length, the one too many */
    assert_int_equal(err.retry_after_s, 1);
    assert_string_equal(err.msg, "Too many requests, please try again later.");
    struct th_flow_class admin = class_of("a", "system:masters", "create", "", "pods", "a", NULL);
    int exempt = 3;
    assert_int_equal(th_flow_submit(g_flow, &admin, job, &exempt, NULL), 0);
    assert_int_equal(g_started[g_n - 1], exempt);
    th_flow_finish(g_flow, &admin);
    while (g_n < taken) {
        th_flow_finish(g_flow, &crowd);
    }
    th_flow_finish(g_flow, &crowd);
    th_flow_finish(g_flow, &crowd);
}

static void levels_share_seats_by_their_shares(void **state)
{
    (void)state;
    struct th_flow_class node =
        class_of("system:node:n", "system:nodes", "create", "", "events", "a", NULL);
    struct th_flow_class crowd = user("crowd");
    int many = 1, nodes = 2;
    for (int i = 0; i < 20; i++) {
        assert_int_equal(th_flow_submit(g_flow, &crowd, job, &many, NULL), 0);
    }
    for (int i = 0; i < 20; i++) {
        assert_int_equal(th_flow_submit(g_flow, &node, job, &nodes, NULL), 0);
    }
    th_flow_finish(g_flow, &crowd); /* both seats were lent to the crowd: the nodes' level is next */
    assert_int_equal(g_started[g_n - 1], nodes);
    th_flow_finish(g_flow, &crowd);
    size_t of_nodes = 1;
    const struct th_flow_class *running[2] = {&node, g_started[g_n - 1] == nodes ? &node : &crowd};
    for (int i = 0; i < 38; i++) {
        th_flow_finish(g_flow, running[i % 2]);
        if (g_n <= 40 && i < 37) {
            running[i % 2] = g_started[g_n - 1] == nodes ? &node : &crowd;
            of_nodes += g_started[g_n - 1] == nodes;
        }
    }
    assert_true(of_nodes >= 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(requests_belong_to_the_schema_that_matches_first, begin, end),
        cmocka_unit_test_setup_teardown(a_new_schema_counts_at_once, begin, end),
        cmocka_unit_test_setup_teardown(a_crowd_of_one_flow_does_not_hold_up_another, begin, end),
        cmocka_unit_test_setup_teardown(a_full_hand_is_refused_with_a_time_to_come_back, begin, end),
        cmocka_unit_test_setup_teardown(levels_share_seats_by_their_shares, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
