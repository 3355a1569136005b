/* Host ports against a host and an API server of our own: what is asked for, what is given back, and
 * what Services then say. */
#include "base/io.h"
#include "base/json/yaml.h"
#include "controlplane/client/client.h"
#include "tests/unit/fake_http.h"
#include "vm/node/net/net_priv.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/un.h>
#include <cmocka.h>

#define WAIT_MS 20000

/* Both servers write what they got here, one line each; a test waits for lines. */
struct world {
    char dir[64];
    int host; /* listens for the agent */
    pthread_t thread;
    pthread_mutex_t mu;
    pthread_cond_t cond;
    struct th_strv log;
    bool stop;
    struct fake api;
    struct th_client *client;
    struct th_net net;
    struct th_net_opts opts;
};

static void note(struct world *w, char *line)
{
    pthread_mutex_lock(&w->mu);
    th_strv_take(&w->log, line);
    pthread_cond_broadcast(&w->cond);
    pthread_mutex_unlock(&w->mu);
}

/* Waits for a line that has all of `what`, and takes it away. */
static void await(struct world *w, const char *what)
{
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += WAIT_MS / 1000;
    pthread_mutex_lock(&w->mu);
    for (;;) {
        for (size_t i = 0; i < w->log.n; i++) {
            if (strstr(w->log.v[i], what)) {
                w->log.v[i][0] = 0;
                pthread_mutex_unlock(&w->mu);
                return;
            }
        }
        if (pthread_cond_timedwait(&w->cond, &w->mu, &end) == ETIMEDOUT) {
            th_autofree char *all = th_strv_join(&w->log, "\n");
            pthread_mutex_unlock(&w->mu);
            fail_msg("no \"%s\" in:\n%s", what, all);
        }
    }
}

static bool never(struct world *w, const char *what)
{
    bool found = false;
    pthread_mutex_lock(&w->mu);
    for (size_t i = 0; i < w->log.n; i++) {
        found = found || strstr(w->log.v[i], what);
    }
    pthread_mutex_unlock(&w->mu);
    return !found;
}

/* The host: port 81 is refused, port 82 becomes 30082. */
static void host_answer(struct world *w, int fd, const char *line)
{
    TH_AUTO(th_json) struct th_json *req = NULL;
    assert_int_equal(th_json_parse_cstr(line, &req, NULL), 0);
    int port = (int)th_json_path_int(req, "host_port", 0);
    note(w, th_xasprintf("%s %s:%d/%s -> %d", th_json_path_str(req, "op"), th_json_path_str(req, "host_ip"), port,
                         th_json_path_str(req, "proto"), (int)th_json_path_int(req, "guest_port", 0)));
    th_autofree char *ans =
        port == 81 ? th_xstrdup("{\"ok\":false,\"reason\":\"port-in-use\",\"msg\":\"taken by another\"}\n")
                   : th_xasprintf("{\"ok\":true,\"host_port\":%d,\"wanted_port\":%d}\n", port == 82 ? 30082 : port, port);
    (void)fake_puts(fd, ans);
}

static void *host_thread(void *arg)
{
    struct world *w = arg;
    int conn = accept(w->host, NULL, NULL);
    char line[4096];
    size_t n = 0;
    while (conn >= 0 && recv(conn, line + n, 1, 0) == 1) {
        if (line[n++] == '\n') {
            line[n] = 0;
            host_answer(w, conn, line);
            n = 0;
        }
    }
    if (conn >= 0) {
        (void)close(conn);
    }
    return NULL;
}

static bool api_answer(struct fake *f, int fd, const struct fake_req *q)
{
    struct world *w = f->arg;
    note(w, th_xasprintf("%s %s %.*s", q->method, q->path, (int)q->body_n, q->body ? q->body : ""));
    return fake_json(fd, 200, "{\"kind\":\"X\",\"apiVersion\":\"v1\",\"metadata\":{}}");
}

static void world_start(struct world *w)
{
    *w = (struct world){.dir = "/tmp/th-ports-XXXXXX"};
    assert_non_null(mkdtemp(w->dir));
    pthread_mutex_init(&w->mu, NULL);
    pthread_cond_init(&w->cond, NULL);
    th_autofree char *sock = th_path_join(w->dir, "ports.sock");
    w->host = th_io_unix_listen(sock, 0600, 4, NULL);
    assert_true(w->host >= 0);
    assert_int_equal(pthread_create(&w->thread, NULL, host_thread, w), 0);
    fake_start(&w->api, api_answer, w, NULL);
    th_autofree char *url = th_xasprintf("http://127.0.0.1:%d", w->api.port);
    struct th_client_http_opts co = {.server = url, .user_agent = "test"};
    assert_int_equal(th_client_new_http(&co, &w->client, NULL), 0);
    w->net.o = (struct th_net_opts){.node_name = "here",
                                    .node_ip = "10.0.2.15",
                                    .pod_cidr = "10.244.0.0/24",
                                    .service_cidr = "10.96.0.0/16",
                                    .cluster_dns = "10.96.0.10",
                                    .cluster_domain = "cluster.local",
                                    .profile_number = 2,
                                    .ports_endpoint = th_xasprintf("unix:%s", sock),
                                    .lb_client = w->client};
    assert_int_equal(th_hostports_start(&w->net, &w->net.hostports, NULL), 0);
}

static void world_stop(struct world *w)
{
    th_hostports_stop(w->net.hostports);
    (void)shutdown(w->host, SHUT_RDWR);
    pthread_join(w->thread, NULL);
    (void)close(w->host);
    th_client_free(w->client);
    fake_stop(&w->api);
    free((void *)(uintptr_t)w->net.o.ports_endpoint);
    th_strv_done(&w->log);
    (void)th_io_rm_rf(w->dir, NULL);
}

/* A Service whose ports all have an endpoint, or none. */
static void tell(struct world *w, const char *spec, bool endpoint)
{
    TH_AUTO(th_json) struct th_json *svc = NULL;
    struct th_json *svcs = th_json_array(), *slices = th_json_array();
    if (spec) {
        th_autofree char *text = th_xasprintf("{metadata: {name: s, namespace: shop, uid: u}, spec: %s}", spec);
        assert_int_equal(th_yaml_parse_one(text, strlen(text), NULL, &svc, NULL), 0);
        th_json_append(svcs, th_json_ref(svc));
    }
    struct th_json *ports = th_json_path(svc, "spec.ports");
    struct th_json *slice = th_json_build(
        "{'addressType':'IPv4','metadata':{'namespace':'shop','labels':{'kubernetes.io/service-name':'s'}},"
        "'ports':[],'endpoints':[{'addresses':['10.244.0.5']}]}");
    for (size_t i = 0; i < th_json_len(ports); i++) {
        th_json_append(th_json_get(slice, "ports"), th_json_dup(th_json_at(ports, i)));
    }
    th_json_append(slices, slice);
    if (!endpoint) {
        th_json_unref(slices);
        slices = NULL;
    }
    th_hostports_update(w->net.hostports, th_net_state_new(svcs, slices, NULL));
}

static void a_load_balancer_gets_its_address_and_gives_it_back(void **arg)
{
    (void)arg;
    struct world w;
    world_start(&w);
    tell(&w, "{type: LoadBalancer, clusterIP: 10.96.3.4, ports: [{port: 80, protocol: TCP, nodePort: 30001}]}", true);
    await(&w, "forward 127.98.3.4:80/tcp -> 6"); /* an entry port */
    await(&w, "forward 127.0.0.1:30001/tcp -> 30001");
    await(&w, "PATCH /api/v1/namespaces/shop/services/s/status {\"status\":{\"loadBalancer\":{\"ingress\":"
              "[{\"ip\":\"127.98.3.4\",\"ipMode\":\"Proxy\"}]}}}");
    await(&w, "\"reason\":\"EnsuredLoadBalancer\"");
    tell(&w, NULL, false);
    await(&w, "unforward 127.98.3.4:80/tcp");
    await(&w, "unforward 127.0.0.1:30001/tcp");
    world_stop(&w);
}

static void what_the_host_refuses_or_changes_is_said(void **arg)
{
    (void)arg;
    struct world w;
    world_start(&w);
    tell(&w, "{type: LoadBalancer, clusterIP: 10.96.3.4, ports: [{name: a, port: 81, protocol: TCP}, "
             "{name: b, port: 82, protocol: UDP}, {name: c, port: 83, protocol: SCTP}]}",
         true);
    await(&w, "{\"port\":81,\"protocol\":\"TCP\",\"error\":\"thimble.dev/port-refused\"},"
              "{\"port\":82,\"protocol\":\"UDP\",\"error\":\"thimble.dev/other-port\"},"
              "{\"port\":83,\"protocol\":\"SCTP\",\"error\":\"thimble.dev/port-refused\"}");
    await(&w, "port 81/TCP: taken by another; port 82/UDP: the host gave 127.98.3.4:30082 instead; "
              "port 83/SCTP: the host does not forward SCTP");
    assert_true(never(&w, "/sctp"));
    world_stop(&w);
}

static void without_endpoints_a_forward_is_closed_and_opened_again(void **arg)
{
    (void)arg;
    struct world w;
    static const char SPEC[] = "{type: NodePort, clusterIP: 10.96.3.4, ports: [{port: 80, protocol: TCP, nodePort: 30001}]}";
    world_start(&w);
    tell(&w, SPEC, true);
    await(&w, "forward 127.0.0.1:30001/tcp");
    assert_true(never(&w, "unforward"));
    tell(&w, SPEC, false);
    await(&w, "unforward 127.0.0.1:30001/tcp");
    tell(&w, SPEC, true);
    await(&w, "forward 127.0.0.1:30001/tcp -> 30001");
    tell(&w, NULL, false);
    await(&w, "unforward 127.0.0.1:30001/tcp");
    world_stop(&w);
}

static void source_ranges_without_the_host_close_its_way(void **arg)
{
    (void)arg;
    struct world w;
    world_start(&w);
    tell(&w, "{type: LoadBalancer, clusterIP: 10.96.3.4, loadBalancerSourceRanges: [10.0.0.0/8], "
             "ports: [{port: 80, protocol: TCP, nodePort: 30001}]}",
         true);
    await(&w, "forward 127.0.0.1:30001/tcp");
    await(&w, "\"ip\":\"127.98.3.4\"");
    assert_true(never(&w, "127.98.3.4:80"));
    world_stop(&w);
}

static void load_balancers_of_others_are_left_alone(void **arg)
{
    (void)arg;
    struct world w;
    world_start(&w);
    tell(&w, "{type: LoadBalancer, loadBalancerClass: example.com/x, clusterIP: 10.96.3.4, ports: [{port: 80, "
             "protocol: TCP, nodePort: 30001}]}",
         true);
    await(&w, "forward 127.0.0.1:30001/tcp"); /* node ports are everybody's */
    tell(&w, NULL, false);
    await(&w, "unforward 127.0.0.1:30001/tcp");
    assert_true(never(&w, "PATCH"));
    assert_true(never(&w, "127.98.3.4"));
    world_stop(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_load_balancer_gets_its_address_and_gives_it_back),
        cmocka_unit_test(what_the_host_refuses_or_changes_is_said),
        cmocka_unit_test(without_endpoints_a_forward_is_closed_and_opened_again),
        cmocka_unit_test(source_ranges_without_the_host_close_its_way),
        cmocka_unit_test(load_balancers_of_others_are_left_alone),
    };
    return cmocka_run_group_tests_name("net_hostports", tests, NULL, NULL);
}
