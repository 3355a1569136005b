/* Nodes that fall silent, their taints, the eviction of their pods, and the pods of nodes that are
 * gone; the clock is simulated. */
#include "inprocess.h"

#define NODES "/api/v1/nodes"
#define PODS "/api/v1/namespaces/default/pods"
#define LEASES "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"

static void make_node(struct inproc *p, const char *name)
{
    th_autofree char *text = th_xasprintf(
        "{'metadata':{'name':'%s','labels':{'kubernetes.io/os':'linux'}},'status':{'conditions':["
        "{'type':'Ready','status':'True','reason':'KubeletReady',"
        "'lastHeartbeatTime':'2026-01-01T00:00:00Z','lastTransitionTime':'2026-01-01T00:00:00Z'},"
        "{'type':'DiskPressure','status':'False','lastTransitionTime':'2026-01-01T00:00:00Z'}]}}",
        name);
    api_make(p, NODES, text);
}

static void make_pod(struct inproc *p, const char *name, const char *node, const char *tolerations)
{
    th_autofree char *path = th_xasprintf("%s/%s/status", PODS, name);
    th_autofree char *text = th_xasprintf(
        "{'metadata':{'name':'%s'},'spec':{'nodeName':'%s','tolerations':[%s],"
        "'automountServiceAccountToken':false,"
        "'terminationGracePeriodSeconds':0,'containers':[{'name':'c','image':'i'}]}}",
        name, node, tolerations);
    api_make(p, PODS, text);
    api_patch(p, path,
              "{'status':{'phase':'Running','conditions':[{'type':'Ready','status':'True',"
              "'lastTransitionTime':'2026-01-01T00:00:00Z'}]}}");
}

static void renew(struct inproc *p, const char *name)
{
    static int n;
    th_autofree char *path = th_xasprintf("%s/%s", LEASES, name);
    th_autofree char *spec = th_xasprintf(
        "'spec':{'holderIdentity':'%s','renewTime':'2026-01-01T00:00:%02d.%06dZ'}", name,
        n / 1000000, n % 1000000);
    struct th_json *have TH_AUTO(th_json) = api_get(p, path);
    th_autofree char *text = have
                                 ? th_xasprintf("{%s}", spec)
                                 : th_xasprintf("{'metadata':{'name':'%s'},%s}", name, spec);
    n++;
    if (have) {
        api_patch(p, path, text);
    } else {
        api_make(p, LEASES, text);
    }
}

static const struct th_json *condition(const struct th_json *o, const char *type)
{
    const struct th_json *list = th_json_path(o, "status.conditions");
    for (size_t i = 0; i < th_json_len(list); i++) {
        if (th_streq(th_json_path_str(th_json_at(list, i), "type"), type)) {
            return th_json_at(list, i);
        }
    }
    return NULL;
}

static bool is(const struct th_json *o, const char *type, const char *status, const char *reason)
{
    const struct th_json *c = condition(o, type);
    return th_streq(th_json_path_str(c, "status"), status) &&
           (!reason || th_streq(th_json_path_str(c, "reason"), reason));
}

static bool tainted(const struct th_json *o, const char *key, const char *effect)
{
    const struct th_json *list = th_json_path(o, "spec.taints");
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *t = th_json_at(list, i);
        if (th_streq(th_json_path_str(t, "key"), key) &&
            th_streq(th_json_path_str(t, "effect"), effect)) {
            return th_json_path_str(t, "timeAdded") != NULL;
        }
    }
    return false;
}

static bool is_unknown(const struct th_json *o)
{
    return is(o, "Ready", "Unknown", "NodeStatusUnknown") &&
           is(o, "DiskPressure", "Unknown", "NodeStatusUnknown") &&
           is(o, "MemoryPressure", "Unknown", "NodeStatusNeverUpdated") &&
           th_streq(th_json_path_str(condition(o, "Ready"), "message"),
                    "Kubelet stopped posting node status.");
}

static bool is_ready(const struct th_json *o)
{
    return is(o, "Ready", "True", NULL);
}

static bool is_not_ready(const struct th_json *o)
{
    return is(o, "Ready", "False", NULL);
}

static bool is_unreachable(const struct th_json *o)
{
    return tainted(o, "node.kubernetes.io/unreachable", "NoSchedule") &&
           tainted(o, "node.kubernetes.io/unreachable", "NoExecute");
}

static bool is_unreachable_for_new_ones(const struct th_json *o)
{
    return tainted(o, "node.kubernetes.io/unreachable", "NoSchedule");
}

static bool has_no_taints(const struct th_json *o)
{
    return o && th_json_len(th_json_path(o, "spec.taints")) == 0;
}

static bool is_cordoned(const struct th_json *o)
{
    return tainted(o, "node.kubernetes.io/unschedulable", "NoSchedule");
}

static bool is_gone(const struct th_json *o)
{
    return o == NULL;
}

static bool has_both_labels(const struct th_json *o)
{
    return th_streq(
        th_json_str(th_json_get(th_json_path(o, "metadata.labels"), "beta.kubernetes.io/os")),
        "linux");
}

static bool has_pressure(const struct th_json *o)
{
    return tainted(o, "node.kubernetes.io/disk-pressure", "NoSchedule");
}

/* Lets `ms` go by in steps, while the nodes named renew their leases. */
static void pass(struct inproc *p, int64_t ms, const char *alive)
{
    for (int64_t t = 0; t < ms; t += 5000) {
        if (alive) {
            renew(p, alive);
        }
        pause_ms(20);
        th_clock_advance_ms(5000);
    }
    pause_ms(20);
}

/* Lets time pass until the object at path is as wanted (WAIT_MS of real time at most). */
static void pass_until(struct inproc *p, const char *what, const char *path,
                       bool (*check)(const struct th_json *o), const char *alive)
{
    int64_t until = th_mono_real_ms() + WAIT_MS;
    for (;;) {
        struct th_json *o TH_AUTO(th_json) = api_get(p, path);
        if (check(o)) {
            return;
        }
        if (th_mono_real_ms() > until) {
            fail_msg("waited for: %s", what);
        }
        pass(p, 5000, alive);
    }
}

static void a_silent_node_becomes_unknown_and_comes_back(void **state)
{
    (void)state;
    struct inproc *p = inproc_new("node-lifecycle-controller", false);
    make_node(p, "live");
    make_node(p, "dead");
    make_pod(p, "x", "dead", "");
    await(p, "labels of old names", NODES "/dead", has_both_labels);
    renew(p, "dead");
    pass(p, 30000, "live");
    await(p, "still ready within the grace period", NODES "/dead", is_ready);
    pass_until(p, "Unknown", NODES "/dead", is_unknown, "live");
    pass_until(p, "taints", NODES "/dead", is_unreachable, "live");
    await(p, "its pod is not ready", PODS "/x", is_not_ready);
    struct th_json *live TH_AUTO(th_json) = api_get(p, NODES "/live");
    assert_true(is_ready(live) && has_no_taints(live));
    api_send(p, "PATCH", NODES "/dead/status", "application/strategic-merge-patch+json",
             "{'status':{'conditions':[{'type':'Ready','status':'True','reason':'KubeletReady',"
             "'lastHeartbeatTime':'2026-01-01T00:02:00Z'},{'type':'DiskPressure',"
             "'status':'True'}]}}");
    await(p, "pressure", NODES "/dead", has_pressure);
    api_send(p, "PATCH", NODES "/dead/status", "application/strategic-merge-patch+json",
             "{'status':{'conditions':[{'type':'DiskPressure','status':'False'}]}}");
    await(p, "no taints", NODES "/dead", has_no_taints);
    inproc_free(p);
}

static void cordoned_nodes_have_the_taint(void **state)
{
    (void)state;
    struct inproc *p = inproc_new("node-lifecycle-controller", false);
    make_node(p, "n");
    api_patch(p, NODES "/n", "{'spec':{'unschedulable':true}}");
    await(p, "taint", NODES "/n", is_cordoned);
    api_patch(p, NODES "/n", "{'spec':{'unschedulable':null}}");
    await(p, "no taint", NODES "/n", has_no_taints);
    inproc_free(p);
}

static void nobody_is_evicted_when_all_nodes_are_silent(void **state)
{
    (void)state;
    struct inproc *p = inproc_new("node-lifecycle-controller,taint-eviction-controller", false);
    make_node(p, "only");
    make_pod(p, "x", "only", "");
    pass_until(p, "Unknown", NODES "/only", is_unknown, NULL);
    await(p, "NoSchedule", NODES "/only", is_unreachable_for_new_ones);
    pass(p, 400000, NULL);
    struct th_json *node TH_AUTO(th_json) = api_get(p, NODES "/only");
    assert_false(is_unreachable(node));
    struct th_json *pod TH_AUTO(th_json) = api_get(p, PODS "/x");
    assert_non_null(pod);
    inproc_free(p);
}

static void pods_leave_as_long_after_as_they_tolerate(void **state)
{
    (void)state;
    struct inproc *p = inproc_new("taint-eviction-controller", false);
    make_node(p, "n");
    make_pod(p, "now", "n", "{'key':'other','operator':'Exists'}");
    make_pod(p, "later", "n",
             "{'key':'bad','operator':'Exists','effect':'NoExecute','tolerationSeconds':60}");
    make_pod(p, "never", "n", "{'key':'bad','operator':'Exists'}");
    make_pod(p, "wrong", "n", "{'key':'bad','value':'2','effect':'NoExecute'}");
    api_patch(p, NODES "/n",
              "{'spec':{'taints':[{'key':'bad','value':'1','effect':'NoExecute'}]}}");
    await(p, "one goes at once", PODS "/now", is_gone);
    await(p, "the other value too", PODS "/wrong", is_gone);
    pass(p, 50000, NULL);
    struct th_json *later TH_AUTO(th_json) = api_get(p, PODS "/later");
    assert_non_null(later);
    pass_until(p, "one goes after its seconds", PODS "/later", is_gone, NULL);
    struct th_json *never TH_AUTO(th_json) = api_get(p, PODS "/never");
    assert_non_null(never);
    inproc_free(p);
}

static void a_taint_that_goes_in_time_spares_the_pod(void **state)
{
    (void)state;
    struct inproc *p = inproc_new("taint-eviction-controller", false);
    make_node(p, "n");
    make_pod(p, "x", "n",
             "{'key':'bad','operator':'Exists','effect':'NoExecute','tolerationSeconds':60}");
    make_pod(p, "mark", "n", "");
    api_patch(p, NODES "/n", "{'spec':{'taints':[{'key':'bad','effect':'NoExecute'}]}}");
    await(p, "the taint works", PODS "/mark", is_gone);
    pass(p, 30000, NULL);
    api_patch(p, NODES "/n", "{'spec':{'taints':null}}");
    pass(p, 60000, NULL);
    struct th_json *x TH_AUTO(th_json) = api_get(p, PODS "/x");
    assert_non_null(x);
    inproc_free(p);
}

static void pods_of_a_node_that_is_gone_go_after_a_while(void **state)
{
    (void)state;
    struct inproc *p = inproc_new("pod-garbage-collector-controller", false);
    make_node(p, "n");
    make_pod(p, "x", "n", "");
    make_pod(p, "y", "m", "");
    pass(p, 35000, NULL);
    struct th_json *y TH_AUTO(th_json) = api_get(p, PODS "/y");
    assert_non_null(y);
    pass_until(p, "the pod of the missing node", PODS "/y", is_gone, NULL);
    struct th_json *x TH_AUTO(th_json) = api_get(p, PODS "/x");
    assert_non_null(x);
    inproc_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_silent_node_becomes_unknown_and_comes_back),
        cmocka_unit_test(cordoned_nodes_have_the_taint),
        cmocka_unit_test(nobody_is_evicted_when_all_nodes_are_silent),
        cmocka_unit_test(pods_leave_as_long_after_as_they_tolerate),
        cmocka_unit_test(a_taint_that_goes_in_time_spares_the_pod),
        cmocka_unit_test(pods_of_a_node_that_is_gone_go_after_a_while),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
