/* What pods ask for: requests of all kinds of containers, host ports, tolerations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "controlplane/scheduler/plugin.h"
#include "controlplane/schema/toleration.h"

static struct th_json *parse(const char *text)
{
    struct th_json *o = NULL;
    th_autofree char *quoted = th_xstrdup(text);
    for (char *c = quoted; *c; c++) {
        *c = *c == '\'' ? '"' : *c;
    }
    assert_int_equal(th_json_parse_cstr(quoted, &o, NULL), 0);
    return o;
}

#define CPU(c) "'resources':{'requests':{'cpu':'" c "','memory':'1Mi'}}"

static void requests_are_summed_as_containers_run(void **state)
{
    (void)state;
    static const struct {
        const char *pod;
        int64_t cpu, memory;
    } cases[] = {
        {"{'spec':{'containers':[{" CPU("100m") "},{" CPU("0.25") "}]}}", 350, 2 << 20},
        {"{'spec':{'containers':[{" CPU("100m") "}],'initContainers':[{" CPU("1") "}]}}", 1000,
         1 << 20},
        {"{'spec':{'containers':[{" CPU("100m") "}],'initContainers':[{'restartPolicy':'Always',"
         CPU("200m") "},{" CPU("1") "}]}}", 1200, 2 << 20},
        {"{'spec':{'containers':[{" CPU("2") "}],'initContainers':[{" CPU("1") "},"
         "{'restartPolicy':'Always'," CPU("200m") "}]}}", 2200, 2 << 20},
        {"{'spec':{'containers':[{" CPU("1") "}],'overhead':{'cpu':'10m'}}}", 1010, 1 << 20},
        {"{'spec':{'containers':[{" CPU("1") "}],'resources':{'requests':{'cpu':'3'}}}}", 3000,
         1 << 20},
        {"{'spec':{'containers':[{}]}}", 0, 0},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        struct th_json *pod TH_AUTO(th_json) = parse(cases[i].pod);
        struct th_amounts a TH_CLEANUP(th_amounts_done) = {NULL, 0};
        th_pod_requests(pod, &a);
        assert_int_equal(th_amounts_get(&a, "cpu"), cases[i].cpu);
        assert_int_equal(th_amounts_get(&a, "memory"), cases[i].memory);
        assert_int_equal(th_amounts_get(&a, "pods"), 1);
    }
}

static void host_ports_of_what_runs_with_the_pod_count(void **state)
{
    (void)state;
    struct th_json *pod TH_AUTO(th_json) =
        parse("{'spec':{'containers':[{'ports':[{'containerPort':1,'hostPort':10},"
              "{'containerPort':2}]}],'initContainers':[{'ports':[{'hostPort':11}]},"
              "{'restartPolicy':'Always','ports':[{'hostPort':12,'hostIP':'0.0.0.0',"
              "'protocol':'UDP'}]}]}}");
    struct th_host_ports p TH_CLEANUP(th_host_ports_done) = {NULL, 0};
    th_host_ports_read(pod, &p);
    assert_int_equal(p.n, 2);
    assert_int_equal(p.v[0].port, 10);
    assert_string_equal(p.v[0].proto, "TCP");
    assert_int_equal(p.v[1].port, 12);
    assert_string_equal(p.v[1].proto, "UDP");
    assert_string_equal(p.v[1].ip, "");
}

static void tolerations_cover_taints(void **state)
{
    (void)state;
    static const struct {
        const char *toleration;
        bool covers; /* k=v:NoExecute */
    } cases[] = {
        {"{'key':'k','operator':'Equal','value':'v','effect':'NoExecute'}", true},
        {"{'key':'k','value':'v'}", true},
        {"{'key':'k','value':'w'}", false},
        {"{'key':'k','operator':'Exists'}", true},
        {"{'key':'k','operator':'Exists','effect':'NoSchedule'}", false},
        {"{'operator':'Exists'}", true},
        {"{'key':'l','operator':'Exists'}", false},
        {"{'value':'v'}", false},
    };
    struct th_json *taint TH_AUTO(th_json) = parse("{'key':'k','value':'v','effect':'NoExecute'}");
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        struct th_json *t TH_AUTO(th_json) = parse(cases[i].toleration);
        assert_int_equal(th_toleration_covers(t, taint), cases[i].covers);
    }
}

static void execution_is_tolerated_for_the_shortest_time(void **state)
{
    (void)state;
    struct th_json *taints TH_AUTO(th_json) =
        parse("[{'key':'a','effect':'NoExecute'},{'key':'b','effect':'NoExecute'},"
              "{'key':'c','effect':'NoSchedule'}]");
    static const struct {
        const char *tolerations;
        bool tolerated;
        int64_t seconds;
    } cases[] = {
        {"[{'key':'a','operator':'Exists'}]", false, 0},
        {"[{'operator':'Exists'}]", true, -1},
        {"[{'key':'a','operator':'Exists','tolerationSeconds':9},"
         "{'key':'b','operator':'Exists','tolerationSeconds':5}]", true, 5},
        {"[{'key':'a','operator':'Exists','tolerationSeconds':-9},"
         "{'key':'b','operator':'Exists'}]", true, 0},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        struct th_json *t TH_AUTO(th_json) = parse(cases[i].tolerations);
        int64_t seconds = 77;
        assert_int_equal(th_tolerates_execution(t, taints, &seconds), cases[i].tolerated);
        assert_int_equal(seconds, cases[i].seconds);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_summed_as_containers_run),
        cmocka_unit_test(host_ports_of_what_runs_with_the_pod_count),
        cmocka_unit_test(tolerations_cover_taints),
        cmocka_unit_test(execution_is_tolerated_for_the_shortest_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
