/* Environment, expansion and config.json: what a container is given. */
#include "vm/node/agent.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static const char *lookup(void *arg, const char *name)
{
    return th_json_str(th_json_get(arg, name));
}

static void references_are_expanded_as_upstream_does(void **state)
{
    (void)state;
    TH_AUTO(th_json) struct th_json *env = th_json_build("{'A':'x','EMPTY':''}");
    static const char *const cases[][2] = {
        {"$(A)", "x"},       {"a$(A)b$(A)", "axbx"}, {"$(NOPE)", "$(NOPE)"}, {"$$(A)", "$(A)"},
        {"$$$(A)", "$x"},    {"$A", "$A"},           {"$(A", "$(A"},         {"$", "$"},
        {"$(EMPTY)|", "|"},  {"", ""},               {"$()", "$()"},         {"100%$", "100%$"},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        th_autofree char *got = env_expand(cases[i][0], lookup, env);
        assert_string_equal(got, cases[i][1]);
    }
}

static void a_service_gives_its_docker_link_variables(void **state)
{
    (void)state;
    TH_AUTO(th_json) struct th_json *svc = th_json_build(
        "{'metadata':{'name':'my-db'},'spec':{'clusterIP':'10.96.0.7','ports':["
        "{'name':'sql','port':%d,'protocol':'TCP'},{'name':'x-y','port':%d,'protocol':'UDP'}]}}",
        (int64_t)5432, (int64_t)53);
    TH_AUTO(th_json) struct th_json *env = th_json_object();
    env_service(env, svc);
    static const char *const want[][2] = {
        {"MY_DB_SERVICE_HOST", "10.96.0.7"},     {"MY_DB_SERVICE_PORT", "5432"},
        {"MY_DB_SERVICE_PORT_SQL", "5432"},      {"MY_DB_SERVICE_PORT_X_Y", "53"},
        {"MY_DB_PORT", "tcp://10.96.0.7:5432"},  {"MY_DB_PORT_5432_TCP", "tcp://10.96.0.7:5432"},
        {"MY_DB_PORT_5432_TCP_PROTO", "tcp"},    {"MY_DB_PORT_5432_TCP_PORT", "5432"},
        {"MY_DB_PORT_5432_TCP_ADDR", "10.96.0.7"}, {"MY_DB_PORT_53_UDP", "udp://10.96.0.7:53"},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(want); i++) {
        assert_string_equal(th_json_path_str(env, want[i][0]), want[i][1]);
    }
    TH_AUTO(th_json) struct th_json *headless = th_json_build(
        "{'metadata':{'name':'h'},'spec':{'clusterIP':'None','ports':[{'port':%d}]}}", (int64_t)1);
    env_service(env, headless);
    assert_null(th_json_get(env, "H_SERVICE_HOST"));
}

/* A pod without API server, on a node with cgroup v2. */
struct fixture {
    struct agent a;
    struct pod p;
    struct ctr c;
    struct th_image img;
};

static void fixture_init(struct fixture *f, const char *pod_json)
{
    memset(f, 0, sizeof(*f));
    f->a.cg.version = CG_V2;
    f->a.cg.parent = (char *)(uintptr_t) "";
    f->a.ns_dir = (char *)(uintptr_t) "/run/t/ns";
    f->a.o.name = (char *)(uintptr_t) "n1";
    f->a.o.node_ip = (char *)(uintptr_t) "10.0.2.15";
    f->p.a = &f->a;
    f->p.uid = (char *)(uintptr_t) "u-1";
    f->p.ns = (char *)(uintptr_t) "default";
    f->p.name = (char *)(uintptr_t) "web";
    f->p.dir = (char *)(uintptr_t) "/data/pods/u-1";
    f->p.ip = (char *)(uintptr_t) "10.244.0.9";
    assert_true(th_json_parse_cstr(pod_json, &f->p.obj, NULL) >= 0);
    f->c.pod = &f->p;
    f->c.kind = CTR_APP;
    f->c.name = (char *)(uintptr_t) "c";
    f->c.spec = th_json_path(f->p.obj, "spec.containers[0]");
    f->p.ctrs = &f->c;
    f->p.n_ctrs = 1;
    f->img.config.user = (char *)(uintptr_t) "";
    f->img.config.workdir = (char *)(uintptr_t) "/srv";
}

static void fixture_done(struct fixture *f)
{
    th_json_unref(f->p.obj);
    th_strv_done(&f->img.config.entrypoint);
    th_strv_done(&f->img.config.cmd);
    th_strv_done(&f->img.config.env);
}

static int build(struct fixture *f, struct th_json **cfg, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *env = NULL;
    assert_true(env_build(&f->p, &f->c, &env, err) >= 0);
    struct oci_in in = {.p = &f->p, .c = &f->c, .image = &f->img, .rootfs = "/nonexistent/rootfs",
                        .env = env, .cgroup_path = "/kubepods/podu-1/x", .termination_log = "/t"};
    struct oci_user u = {0};
    int r = oci_build(&in, cfg, &u, err);
    th_json_unref(u.gids);
    return r;
}

static char *joined(const struct th_json *l)
{
    th_autostrv struct th_strv v = TH_STRV_INIT;
    for (size_t i = 0; i < th_json_len(l); i++) {
        th_strv_add(&v, th_json_str(th_json_at(l, i)));
    }
    return th_strv_join(&v, "|");
}

static void command_and_args_replace_what_the_image_says(void **state)
{
    (void)state;
    static const struct {
        const char *ctr, *want;
    } cases[] = {
        {"{}", "/entry|a|b"},
        {"{\"args\":[\"z\"]}", "/entry|z"},
        {"{\"command\":[\"/cmd\"]}", "/cmd"},
        {"{\"command\":[\"/cmd\"],\"args\":[\"$(WHO)\",\"$(NO)\"],\"env\":[{\"name\":\"WHO\",\"value\":\"me\"}]}",
         "/cmd|me|$(NO)"},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        struct fixture f;
        th_autofree char *pod = th_xasprintf("{\"spec\":{\"containers\":[%s]}}", cases[i].ctr);
        fixture_init(&f, pod);
        th_strv_add(&f.img.config.entrypoint, "/entry");
        th_strv_add(&f.img.config.cmd, "a");
        th_strv_add(&f.img.config.cmd, "b");
        TH_AUTO(th_json) struct th_json *cfg = NULL;
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        assert_true(build(&f, &cfg, &err) >= 0);
        th_autofree char *got = joined(th_json_path(cfg, "process.args"));
        assert_string_equal(got, cases[i].want);
        assert_string_equal(th_json_path_str(cfg, "process.cwd"), "/srv");
        fixture_done(&f);
    }
}

static void security_context_becomes_capabilities_and_flags(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, "{\"spec\":{\"securityContext\":{\"runAsUser\":1000,\"fsGroup\":2000},\"containers\":[{"
                     "\"command\":[\"x\"],\"securityContext\":{\"allowPrivilegeEscalation\":false,"
                     "\"readOnlyRootFilesystem\":true,\"capabilities\":{\"drop\":[\"ALL\"],"
                     "\"add\":[\"NET_BIND_SERVICE\"]}}}]}}");
    TH_AUTO(th_json) struct th_json *cfg = NULL;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    assert_true(build(&f, &cfg, &err) >= 0);
    th_autofree char *caps = joined(th_json_path(cfg, "process.capabilities.bounding"));
    assert_string_equal(caps, "CAP_NET_BIND_SERVICE");
    assert_int_equal(th_json_len(th_json_path(cfg, "process.capabilities.effective")), 0);
    assert_true(th_json_path_bool(cfg, "process.noNewPrivileges", false));
    assert_true(th_json_path_bool(cfg, "root.readonly", false));
    assert_int_equal(th_json_path_int(cfg, "process.user.uid", -1), 1000);
    TH_AUTO(th_json) struct th_json *gids = th_json_array();
    th_json_append(gids, th_json_int(0));
    th_json_append(gids, th_json_int(2000));
    assert_true(th_json_equal(th_json_path(cfg, "process.user.additionalGids"), gids));
    assert_null(th_json_path(cfg, "linux.seccomp"));
    fixture_done(&f);
}

static void root_is_refused_where_non_root_is_asked_for(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, "{\"spec\":{\"containers\":[{\"command\":[\"x\"],\"securityContext\":"
                     "{\"runAsNonRoot\":true}}]}}");
    TH_AUTO(th_json) struct th_json *cfg = NULL;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    assert_int_equal(build(&f, &cfg, &err), -TH_R_INVALID);
    assert_string_equal(err.msg, "container has runAsNonRoot and image will run as root (pod: "
                                 "\"web_default(u-1)\", container: c)");
    fixture_done(&f);
}

static void limits_become_cgroup_numbers(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, "{\"spec\":{\"containers\":[{\"command\":[\"x\"],\"resources\":{\"limits\":{\"cpu\":"
                     "\"500m\",\"memory\":\"64Mi\"},\"requests\":{\"cpu\":\"100m\"}}}]}}");
    TH_AUTO(th_json) struct th_json *r = cg_resources(&f.p, &f.c);
    assert_int_equal(th_json_path_int(r, "cpu.quota", 0), 50000);
    assert_int_equal(th_json_path_int(r, "cpu.period", 0), 100000);
    assert_int_equal(th_json_path_int(r, "cpu.shares", 0), 102);
    assert_int_equal(th_json_path_int(r, "memory.limit", 0), 64 << 20);
    assert_string_equal(pod_qos(f.p.obj), "Burstable");
    th_autofree char *path = cg_pod_path(&f.p);
    assert_string_equal(path, "/kubepods/burstable/podu-1");
    fixture_done(&f);
    fixture_init(&f, "{\"spec\":{\"containers\":[{\"command\":[\"x\"]}]}}");
    assert_string_equal(pod_qos(f.p.obj), "BestEffort");
    fixture_done(&f);
    fixture_init(&f, "{\"spec\":{\"containers\":[{\"resources\":{\"limits\":{\"cpu\":\"1\",\"memory\":"
                     "\"1Gi\"},\"requests\":{\"cpu\":\"1000m\",\"memory\":\"1024Mi\"}}}]}}");
    assert_string_equal(pod_qos(f.p.obj), "Guaranteed");
    fixture_done(&f);
}

static void fields_of_the_pod_can_be_named(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, "{\"metadata\":{\"labels\":{\"b\":\"2\",\"a.b/c\":\"q\\\"\"}},\"spec\":{\"containers\":[{}]}}");
    static const char *const cases[][2] = {{"metadata.name", "web"},
                                           {"status.podIP", "10.244.0.9"},
                                           {"status.hostIP", "10.0.2.15"},
                                           {"spec.nodeName", "n1"},
                                           {"metadata.labels['b']", "2"},
                                           {"metadata.labels['none']", ""},
                                           {"metadata.labels", "a.b/c=\"q\\\"\"\nb=\"2\""}};
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        th_autofree char *v = NULL;
        assert_true(env_field(&f.p, cases[i][0], &v, NULL) >= 0);
        assert_string_equal(v, cases[i][1]);
    }
    th_autofree char *v = NULL;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    assert_int_equal(env_field(&f.p, "spec.secret", &v, &err), -TH_R_INVALID);
    fixture_done(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(references_are_expanded_as_upstream_does),
        cmocka_unit_test(a_service_gives_its_docker_link_variables),
        cmocka_unit_test(command_and_args_replace_what_the_image_says),
        cmocka_unit_test(security_context_becomes_capabilities_and_flags),
        cmocka_unit_test(root_is_refused_where_non_root_is_asked_for),
        cmocka_unit_test(limits_become_cgroup_numbers),
        cmocka_unit_test(fields_of_the_pod_can_be_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
