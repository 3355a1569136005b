/* Services as nftables: golden files of rules and of transactions between states, the kernel's own
 * opinion of them, and what is read from a snapshot besides. TH_REGENERATE=1 writes the golden files
 * anew. */
#include "base/io.h"
#include "base/json/yaml.h"
#include "base/rand.h"
#include "vm/node/net/net_priv.h"
#include "vm/node/net/nfttable.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

static const struct th_net_opts OPTS = {.node_name = "here",
                                        .node_ip = "10.0.2.15",
                                        .pod_cidr = "10.244.0.0/24",
                                        .service_cidr = "10.96.0.0/16",
                                        .cluster_dns = "10.96.0.10",
                                        .cluster_domain = "cluster.local",
                                        .ports_endpoint = "tcp:10.0.2.100:1"};

static struct th_net_state *state_of(struct th_json *docs)
{
    static const char *const kinds[] = {"Service", "EndpointSlice", "Namespace", "NetworkPolicy", "Pod"};
    struct th_json *lists[TH_ARRAY_LEN(kinds)];
    for (size_t k = 0; k < TH_ARRAY_LEN(kinds); k++) {
        lists[k] = th_json_array();
    }
    for (size_t i = 0; i < th_json_len(docs); i++) {
        for (size_t k = 0; k < TH_ARRAY_LEN(kinds); k++) {
            if (th_streq(th_json_path_str(th_json_at(docs, i), "kind"), kinds[k])) {
                th_json_append(lists[k], th_json_ref(th_json_at(docs, i)));
            }
        }
    }
    struct th_net_state *st = th_net_state_new(lists[0], lists[1], lists[2]);
    st->policies = lists[3];
    st->pods = lists[4];
    st->own_pods = th_json_ref(lists[4]); /* hostPorts are given to pods of here only */
    return st;
}

static struct th_net_state *parse(const char *yaml)
{
    TH_AUTO(th_json) struct th_json *docs = NULL;
    assert_int_equal(th_yaml_parse(yaml, strlen(yaml), &docs, NULL), 0);
    return state_of(docs);
}

static char *golden_path(const char *name)
{
    return th_xasprintf("%s/tests/golden/net/%s", getenv("TH_SOURCE_DIR"), name);
}

static struct th_net_state *load(const char *name)
{
    th_autofree char *path = golden_path(name);
    th_autobuf struct th_buf b = TH_BUF_INIT;
    assert_int_equal(th_io_read_file(path, 1 << 20, &b, NULL), 0);
    return parse(th_buf_cstr(&b));
}

static void is_golden(const char *name, const struct th_buf *got)
{
    th_autofree char *path = golden_path(name);
    th_autobuf struct th_buf want = TH_BUF_INIT;
    if (getenv("TH_REGENERATE")) {
        assert_int_equal(th_io_write_file(path, got->p, got->n, 0644, NULL), 0);
    }
    assert_int_equal(th_io_read_file(path, 1 << 20, &want, NULL), 0);
    assert_string_equal(th_buf_cstr(got), th_buf_cstr(&want));
}

static void services_give_these_rules_and_changes_these_transactions(void **arg)
{
    (void)arg;
    TH_AUTO(th_net_state) struct th_net_state *one = load("one.yaml"), *two = load("two.yaml");
    TH_AUTO(th_nft_table) struct th_nft_table *a = th_ruleset_new(&OPTS, one), *b = th_ruleset_new(&OPTS, two);
    th_autobuf struct th_buf whole = TH_BUF_INIT, change = TH_BUF_INIT, same = TH_BUF_INIT;
    th_nft_diff(NULL, a, &whole);
    is_golden("one.nft", &whole);
    th_nft_diff(a, b, &change);
    is_golden("one-to-two.nft", &change);
    th_nft_diff(a, a, &same);
    assert_int_equal(same.n, 0);
}

static void policies_give_these_rules(void **arg)
{
    (void)arg;
    TH_AUTO(th_net_state) struct th_net_state *st = load("policies.yaml"), *none = parse("kind: Namespace");
    TH_AUTO(th_nft_table) struct th_nft_table *a = th_ruleset_new(&OPTS, none), *b = th_ruleset_new(&OPTS, st);
    th_autobuf struct th_buf change = TH_BUF_INIT;
    th_nft_diff(a, b, &change);
    is_golden("policies.nft", &change);
}

/* ---- the kernel ---- */

static bool own_network(void)
{
    if (unshare(CLONE_NEWNET) == 0) {
        return true;
    }
    return unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0;
}

/* The kernel's table as sorted lines without handles. */
static char *listing(void)
{
    TH_AUTO(th_json) struct th_json *all = NULL;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (th_nft_run("list table ip thimble", &all, &err) < 0) {
        fail_msg("%s", err.msg);
    }
    th_autostrv struct th_strv lines = TH_STRV_INIT;
    const struct th_json *list = th_json_get(all, "nftables");
    int number = 0;
    for (size_t i = 1; i < th_json_len(list); i++) { /* 0 has versions */
        struct th_json_iter it = TH_JSON_ITER(th_json_at(list, i));
        (void)th_json_next(&it);
        (void)th_json_del(it.value, "handle");
        struct th_json *elems = th_json_get(it.value, "elem");
        th_autostrv struct th_strv texts = TH_STRV_INIT;
        for (size_t k = 0; k < th_json_len(elems); k++) {
            th_strv_take(&texts, th_json_to_string(th_json_at(elems, k)));
        }
        (void)th_json_del(it.value, "elem");
        th_strv_sort(&texts);
        th_autofree char *inside = th_strv_join(&texts, ",");
        th_autofree char *self = th_json_to_string(it.value);
        th_strv_addf(&lines, "%s %s %06d %s %s", th_streq(it.name, "rule") ? "rule" : it.name,
                     th_streq(it.name, "rule") ? th_json_path_str(it.value, "chain") : "",
                     th_streq(it.name, "rule") ? number++ : 0, self, inside);
    }
    /* rules are numbered over the table: only their order within a chain is to count */
    th_strv_sort(&lines);
    for (size_t i = 0; i < lines.n; i++) {
        char *at = th_startswith(lines.v[i], "rule ") ? strchr(lines.v[i] + 5, ' ') : NULL;
        if (at) {
            at++;
            while (*at >= '0' && *at <= '9') {
                *at++ = '#';
            }
        }
    }
    return th_strv_join(&lines, "\n");
}

static void run(const struct th_buf *text)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (text->n > 0 && th_nft_run(th_buf_cstr(text), NULL, &err) < 0) {
        fail_msg("%s in:\n%s", err.msg, th_buf_cstr(text));
    }
}

/* A state by chance: a few Services out of the golden ones, with endpoints that come and go. */
static struct th_net_state *random_state(void)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    for (int i = 0; i < 6; i++) {
        if (th_rand_below(3) == 0) {
            continue;
        }
        bool lb = th_rand_below(2), local = th_rand_below(2), sticky = th_rand_below(2);
        th_buf_printf(&b,
                      "---\nkind: Service\nmetadata: {name: s%d, namespace: ns1}\n"
                      "spec: {type: %s, clusterIP: 10.96.2.%d, externalTrafficPolicy: %s, "
                      "internalTrafficPolicy: %s, sessionAffinity: %s, loadBalancerSourceRanges: [%s], "
                      "ports: [{port: 80, protocol: TCP, nodePort: %d}, {port: 81, name: u, protocol: UDP}]}\n",
                      i, lb ? "LoadBalancer" : "NodePort", i + 1, local ? "Local" : "Cluster",
                      th_rand_below(4) ? "Cluster" : "Local", sticky ? "ClientIP" : "None",
                      th_rand_below(2) ? "10.0.0.0/8" : "", 30100 + i);
        th_buf_printf(&b,
                      "---\nkind: EndpointSlice\nmetadata: {name: s%d, namespace: ns1, labels: "
                      "{kubernetes.io/service-name: s%d}}\naddressType: IPv4\n"
                      "ports: [{name: '', port: 80, protocol: TCP}, {name: u, port: 81, protocol: UDP}]\n"
                      "endpoints:\n",
                      i, i);
        uint64_t n = th_rand_below(4);
        for (uint64_t k = 0; k < n; k++) {
            th_buf_printf(&b, "  - {addresses: [10.244.0.%d], nodeName: %s, conditions: {ready: %s}}\n",
                          2 + (int)th_rand_below(6), th_rand_below(2) ? "here" : "there",
                          th_rand_below(4) ? "true" : "false");
        }
    }
    return parse(th_buf_cstr(&b));
}

static void the_kernel_takes_changes_and_ends_where_a_whole_load_ends(void **arg)
{
    (void)arg;
    if (!own_network()) {
        print_message("no network namespace of its own may be made: not run\n");
        skip();
    }
    TH_AUTO(th_net_state) struct th_net_state *one = load("one.yaml"), *two = load("two.yaml");
    TH_AUTO(th_nft_table) struct th_nft_table *now = th_ruleset_new(&OPTS, one), *next = th_ruleset_new(&OPTS, two);
    th_autobuf struct th_buf text = TH_BUF_INIT;
    th_nft_diff(NULL, now, &text);
    run(&text);
    th_buf_clear(&text);
    th_nft_diff(now, next, &text);
    run(&text);
    th_nft_table_free(now);
    now = th_steal(&next);
    th_rand_seed(8);
    for (int i = 0; i < 12; i++) {
        TH_AUTO(th_net_state) struct th_net_state *st = i == 5 ? load("policies.yaml") : random_state();
        next = th_ruleset_new(&OPTS, st);
        th_buf_clear(&text);
        th_nft_diff(now, next, &text);
        run(&text);
        th_autofree char *by_steps = listing();
        th_buf_clear(&text);
        th_nft_diff(NULL, next, &text);
        run(&text);
        th_autofree char *at_once = listing();
        assert_string_equal(by_steps, at_once);
        th_nft_table_free(now);
        now = th_steal(&next);
    }
}

static void clients_are_remembered_over_a_whole_load(void **arg)
{
    (void)arg;
    if (!own_network()) {
        print_message("no network namespace of its own may be made: not run\n");
        skip();
    }
    static const char SET[] = "affinity-60/shop/sticky/tcp/80/10.244.0.20/80";
    TH_AUTO(th_net_state) struct th_net_state *one = load("one.yaml"), *two = load("two.yaml");
    TH_AUTO(th_nft_table) struct th_nft_table *a = th_ruleset_new(&OPTS, one), *b = th_ruleset_new(&OPTS, two);
    th_autobuf struct th_buf text = TH_BUF_INIT;
    th_nft_diff(NULL, a, &text);
    th_buf_printf(&text, "add element ip thimble %s { 10.244.0.99 }\n", SET);
    th_buf_puts(&text, "add element ip thimble affinity-60/shop/sticky/tcp/80/10.244.0.21/80 { 10.244.0.98 }\n");
    run(&text);
    th_buf_clear(&text);
    th_nft_diff(NULL, b, &text); /* an agent that knows nothing of a */
    th_nft_remembered(b, &text);
    run(&text);
    TH_AUTO(th_json) struct th_json *set = NULL;
    th_autofree char *list = th_xasprintf("list set ip thimble %s", SET);
    assert_int_equal(th_nft_run(list, &set, NULL), 0);
    th_autofree char *said = th_json_to_string(set);
    assert_non_null(strstr(said, "10.244.0.99"));
    assert_null(strstr(said, "10.244.0.98"));
}

static void any_change_of_rules_is_noticed(void **arg)
{
    (void)arg;
    if (!own_network()) {
        print_message("no network namespace of its own may be made: not run\n");
        skip();
    }
    uint32_t before = th_nft_generation();
    assert_int_equal(th_nft_generation(), before);
    assert_int_equal(th_nft_run("add table ip other", NULL, NULL), 0);
    uint32_t after = th_nft_generation();
    assert_int_not_equal(after, before);
    TH_AUTO(th_json) struct th_json *list = NULL;
    assert_int_equal(th_nft_run("list tables", &list, NULL), 0);
    assert_int_equal(th_nft_generation(), after);
}

/* ---- what else is read from a snapshot ---- */

static void flows_of_udp_are_stale_when_their_service_leads_elsewhere(void **arg)
{
    (void)arg;
    TH_AUTO(th_net_state) struct th_net_state *one = load("one.yaml");
    struct th_hmap ways;
    th_autobuf struct th_buf text = TH_BUF_INIT;
    th_ruleset_udp(&OPTS, one, &ways, &text);
    assert_false(th_udp_stale(&ways, "10.96.1.1", 53, "10.244.0.5", 5353));
    assert_true(th_udp_stale(&ways, "10.96.1.1", 53, "10.244.0.6", 5353)); /* not ready */
    assert_true(th_udp_stale(&ways, "10.96.1.1", 53, "10.244.0.5", 53));
    assert_true(th_udp_stale(&ways, "10.96.1.99", 53, "10.244.0.5", 5353)); /* no such Service */
    th_hmap_done(&ways);
}

static void entry_ports_differ_and_stay(void **arg)
{
    (void)arg;
    th_autobuf struct th_buf b = TH_BUF_INIT;
    for (int i = 0; i < 600; i++) {
        th_buf_printf(&b,
                      "---\nkind: Service\nmetadata: {name: s%03d, namespace: ns1}\nspec: {type: LoadBalancer, "
                      "clusterIP: 10.96.%d.%d, ports: [{port: 80, protocol: TCP}, {port: 80, protocol: UDP}]}\n",
                      i, i / 200, i % 200 + 1);
    }
    TH_AUTO(th_net_state) struct th_net_state *x = parse(th_buf_cstr(&b)), *y = parse(th_buf_cstr(&b));
    bool seen[65536] = {false};
    for (size_t i = 0; i < th_json_len(x->services); i++) {
        for (size_t k = 0; k < 2; k++) {
            th_autofree char *path = th_xasprintf("spec.ports[%zu]." TH_ENTRY_PORT, k);
            int64_t port = th_json_path_int(th_json_at(x->services, i), path, 0);
            assert_true(port >= 61000 && port < 65536 && !seen[port]);
            seen[port] = true;
            assert_int_equal(th_json_path_int(th_json_at(y->services, i), path, 0), port);
        }
    }
}

static void source_ranges_open_to_the_host(void **arg)
{
    (void)arg;
    static const struct {
        const char *ranges;
        bool open;
    } cases[] = {{"", true},           {"0.0.0.0/0", true},        {"127.0.0.0/8", true},
                 {"10.0.0.0/8", false}, {"10.0.0.0/8, 127.0.0.1/32", true}, {"127.0.0.2/32", false},
                 {"'::/0'", false},    {"nonsense", false}};
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        th_autofree char *text = th_xasprintf("kind: Service\nspec: {type: LoadBalancer, "
                                              "loadBalancerSourceRanges: [%s]}\n",
                                              cases[i].ranges);
        TH_AUTO(th_net_state) struct th_net_state *st = parse(text);
        assert_int_equal(th_lb_open_to_host(th_json_at(st->services, 0)), cases[i].open);
    }
}

static void endpoints_of_this_node_are_counted(void **arg)
{
    (void)arg;
    TH_AUTO(th_net_state) struct th_net_state *one = load("one.yaml");
    static const struct {
        const char *name;
        size_t local;
        bool usable;
    } cases[] = {{"plain", 2, true}, {"ending", 1, true}, {"empty", 0, false}, {"inner-local", 0, true}, {"lb", 1, true}};
    for (size_t i = 0; i < th_json_len(one->services); i++) {
        const struct th_json *svc = th_json_at(one->services, i);
        for (size_t k = 0; k < TH_ARRAY_LEN(cases); k++) {
            if (th_streq(th_json_path_str(svc, "metadata.name"), cases[k].name)) {
                assert_int_equal(th_local_endpoints(&OPTS, one, svc), cases[k].local);
                assert_int_equal(th_port_usable(&OPTS, one, svc, th_json_path(svc, "spec.ports[0]")),
                                 cases[k].usable);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(services_give_these_rules_and_changes_these_transactions),
        cmocka_unit_test(policies_give_these_rules),
        cmocka_unit_test(the_kernel_takes_changes_and_ends_where_a_whole_load_ends),
        cmocka_unit_test(clients_are_remembered_over_a_whole_load),
        cmocka_unit_test(any_change_of_rules_is_noticed),
        cmocka_unit_test(flows_of_udp_are_stale_when_their_service_leads_elsewhere),
        cmocka_unit_test(entry_ports_differ_and_stay),
        cmocka_unit_test(source_ranges_open_to_the_host),
        cmocka_unit_test(endpoints_of_this_node_are_counted),
    };
    return cmocka_run_group_tests_name("net_ruleset", tests, NULL, NULL);
}
