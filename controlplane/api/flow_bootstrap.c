/* The priority levels and flow schemas of a new cluster, as upstream has them: made when missing; what
 * an administrator changed stays.
 */
#include "controlplane/api/flow.h"
#include "controlplane/api/priv.h"

#define GROUP "flowcontrol.apiserver.k8s.io"

static const struct {
    const char *name;
    int shares, lendable, queues, hand; /* queues 0: requests over the limit are refused */
} levels[] = {
    {"catch-all", 5, 0, 0, 0},          {"system", 30, 33, 64, 6},
    {"node-high", 40, 25, 64, 6},       {"leader-election", 10, 0, 16, 4},
    {"workload-high", 40, 50, 128, 6},  {"workload-low", 100, 90, 128, 6},
    {"global-default", 20, 50, 128, 6},
};

#define ANY "system:unauthenticated,system:authenticated"
static const struct {
    const char *name, *level;
    int precedence;
    const char *by;     /* distinguisher or NULL */
    const char *users;  /* comma separated; a kube-system ServiceAccount subject is "sa:*" */
    const char *groups;
    const char *verbs, *api_groups, *resources; /* resources NULL: everything */
    bool cluster_scope;
    const char *paths; /* NULL: "*" where resources is NULL, none otherwise */
    const char *more_groups, *more_resources; /* another rule, inside of namespaces, or NULL */
} schemas[] = {
    {"exempt", "exempt", 1, NULL, "", "system:masters", NULL, NULL, NULL, true, NULL},
    {"probes", "exempt", 2, NULL, "", ANY, "get", NULL, "", false, "/healthz,/readyz,/livez"},
    {"system-leader-election", "leader-election", 100, "ByUser",
     "system:kube-controller-manager,system:kube-scheduler,sa:*", "", "get,create,update",
     "coordination.k8s.io", "leases", false, ""},
    {"system-node-high", "node-high", 400, "ByUser", "", "system:nodes", "*", "",
     "nodes,nodes/status", true, "", "coordination.k8s.io", "leases"},
    {"system-nodes", "system", 500, "ByUser", "", "system:nodes", NULL, NULL, NULL, true, NULL},
    {"kube-controller-manager", "workload-high", 800, "ByNamespace",
     "system:kube-controller-manager", "", NULL, NULL, NULL, true, NULL},
    {"kube-scheduler", "workload-high", 800, "ByNamespace", "system:kube-scheduler", "", NULL, NULL,
     NULL, true, NULL},
    {"kube-system-service-accounts", "workload-high", 900, "ByNamespace", "sa:*", "", NULL, NULL,
     NULL, true, NULL},
    {"service-accounts", "workload-low", 9000, "ByUser", "", "system:serviceaccounts", NULL, NULL,
     NULL, true, NULL},
    {"global-default", "global-default", 9900, "ByUser", "", ANY, NULL, NULL, NULL, true, NULL},
    {"catch-all", "catch-all", 10000, "ByUser", "", ANY, NULL, NULL, NULL, true, NULL},
};

static struct th_json *object(const char *kind, const char *name)
{
    return th_json_build("{'apiVersion':'" GROUP "/v1','kind':%s,'metadata':{'name':%s,"
                         "'annotations':{'apf.kubernetes.io/autoupdate-spec':'true'}}}",
                         kind, name);
}

static struct th_json *words(const char *text)
{
    th_autostrv struct th_strv v = TH_STRV_INIT;
    struct th_json *a = th_json_array();
    th_strv_split(&v, text, ',');
    for (size_t i = 0; i < v.n; i++) {
        th_json_append_str(a, v.v[i]);
    }
    if (v.n == 0) {
        th_json_append_str(a, ""); /* the core group */
    }
    return a;
}

static struct th_json *subjects(const char *users, const char *groups)
{
    th_autostrv struct th_strv u = TH_STRV_INIT;
    th_autostrv struct th_strv g = TH_STRV_INIT;
    struct th_json *a = th_json_array();
    th_strv_split(&u, users, ',');
    th_strv_split(&g, groups, ',');
    for (size_t i = 0; i < u.n; i++) {
        if (th_streq(u.v[i], "sa:*")) {
            th_json_append(a, th_json_build("{'kind':'ServiceAccount','serviceAccount':"
                                            "{'namespace':'kube-system','name':'*'}}"));
        } else if (*u.v[i]) {
            th_json_append(a, th_json_build("{'kind':'User','user':{'name':%s}}", u.v[i]));
        }
    }
    for (size_t i = 0; i < g.n; i++) {
        if (*g.v[i]) {
            th_json_append(a, th_json_build("{'kind':'Group','group':{'name':%s}}", g.v[i]));
        }
    }
    return a;
}

static struct th_json *resource_rule(const char *verbs, const char *groups, const char *resources,
                                     bool cluster_scope)
{
    struct th_json *r =
        th_json_build("{'verbs':%o,'apiGroups':%o,'resources':%o,'namespaces':['*']}", words(verbs),
                      words(groups), words(resources));
    if (cluster_scope) {
        th_json_set(r, "clusterScope", th_json_bool(true));
    }
    return r;
}

static struct th_json *schema(size_t i)
{
    struct th_json *o = object("FlowSchema", schemas[i].name);
    bool all = !schemas[i].resources;
    struct th_json *rule = th_json_build("{'subjects':%o}", subjects(schemas[i].users, schemas[i].groups));
    if (all || *schemas[i].resources) {
        th_json_append(th_json_path_array(rule, "resourceRules"),
                       resource_rule(all ? "*" : schemas[i].verbs, all ? "*" : schemas[i].api_groups,
                                     all ? "*" : schemas[i].resources, schemas[i].cluster_scope));
    }
    if (schemas[i].more_resources) {
        th_json_append(th_json_path_array(rule, "resourceRules"),
                       resource_rule(schemas[i].verbs, schemas[i].more_groups,
                                     schemas[i].more_resources, false));
    }
    if (all || *schemas[i].paths) {
        th_json_append(th_json_path_array(rule, "nonResourceRules"),
                       th_json_build("{'verbs':%o,'nonResourceURLs':%o}",
                                     words(all ? "*" : schemas[i].verbs),
                                     words(all ? "*" : schemas[i].paths)));
    }
    struct th_json *spec = th_json_build(
        "{'priorityLevelConfiguration':{'name':%s},'matchingPrecedence':%d,'rules':[%o]}",
        schemas[i].level, (int64_t)schemas[i].precedence, rule);
    if (schemas[i].by) {
        th_json_path_set_str(spec, "distinguisherMethod.type", schemas[i].by);
    }
    th_json_set(o, "spec", spec);
    return o;
}

static struct th_json *level(size_t i)
{
    struct th_json *o = object("PriorityLevelConfiguration", levels[i].name);
    struct th_json *limited =
        th_json_build("{'nominalConcurrencyShares':%d,'lendablePercent':%d,'limitResponse':{'type':%s}}",
                      (int64_t)levels[i].shares, (int64_t)levels[i].lendable,
                      levels[i].queues ? "Queue" : "Reject");
    if (levels[i].queues) {
        th_json_path_set(limited, "limitResponse.queuing",
                         th_json_build("{'queues':%d,'handSize':%d,'queueLengthLimit':50}",
                                       (int64_t)levels[i].queues, (int64_t)levels[i].hand));
    }
    th_json_set(o, "spec", th_json_build("{'type':'Limited','limited':%o}", limited));
    return o;
}

/* Takes o. */
static int make(struct th_api *api, const char *plural, struct th_json *o_, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *o = o_;
    const char *name = th_json_path_str(o, "metadata.name");
    th_autofree char *key = th_xasprintf(GROUP "/%s/-/%s", plural, name);
    TH_AUTO(th_obj) struct th_obj *there = th_store_get(api->store, key);
    if (there) {
        return 0;
    }
    struct th_gvr gvr = {GROUP, "v1", plural};
    int r = th_client_create(api->client, gvr, NULL, o, NULL, err);
    return r < 0 ? th_wrap(err, "making %s %s", plural, name) : 0;
}

int th_flow_bootstrap(struct th_api *api, struct th_err *err)
{
    struct th_json *exempt = object("PriorityLevelConfiguration", "exempt");
    th_json_set(exempt, "spec",
                th_json_build("{'type':'Exempt','exempt':{'nominalConcurrencyShares':0,"
                              "'lendablePercent':0}}"));
    TH_TRY(make(api, "prioritylevelconfigurations", exempt, err));
    for (size_t i = 0; i < TH_ARRAY_LEN(levels); i++) {
        TH_TRY(make(api, "prioritylevelconfigurations", level(i), err));
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(schemas); i++) {
        TH_TRY(make(api, "flowschemas", schema(i), err));
    }
    return 0;
}
