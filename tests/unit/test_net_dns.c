/* The cluster's DNS: records, the form of messages, and asking others (a server of our own on
 * loopback, which counts). */
#include "base/clock.h"
#include "base/json/yaml.h"
#include "base/limits.h"
#include "vm/node/net/dns_priv.h"

#include <arpa/inet.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/socket.h>
#include <cmocka.h>

static const struct th_net_opts OPTS = {.node_name = "here",
                                        .node_ip = "10.0.2.15",
                                        .pod_cidr = "10.244.0.0/24",
                                        .service_cidr = "10.96.0.0/16",
                                        .cluster_dns = "10.96.0.10",
                                        .cluster_domain = "cluster.local"};

static const char CLUSTER[] =
    "kind: Namespace\nmetadata: {name: shop}\n---\n"
    "kind: Service\nmetadata: {name: web, namespace: shop}\nspec: {type: ClusterIP, clusterIP: 10.96.1.1, ports: "
    "[{name: http, port: 80, protocol: TCP}, {name: Dns, port: 53, protocol: UDP}]}\n---\n"
    "kind: Service\nmetadata: {name: peers, namespace: shop}\nspec: {type: ClusterIP, clusterIP: None, ports: "
    "[{name: http, port: 80, protocol: TCP}]}\n---\n"
    "kind: EndpointSlice\nmetadata: {name: p1, namespace: shop, labels: {kubernetes.io/service-name: peers}}\n"
    "addressType: IPv4\nports: [{name: http, port: 8080, protocol: TCP}]\nendpoints:\n"
    "  - {addresses: [10.244.0.5], hostname: a, conditions: {ready: true}}\n"
    "  - {addresses: [10.244.0.6], conditions: {ready: true}}\n"
    "  - {addresses: [10.244.0.7], hostname: c, conditions: {ready: false}}\n---\n"
    "kind: Service\nmetadata: {name: nobody, namespace: shop}\nspec: {type: ClusterIP, clusterIP: None}\n---\n"
    "kind: Service\nmetadata: {name: alias, namespace: shop}\nspec: {type: ExternalName, externalName: "
    "web.shop.svc.cluster.local}\n---\n"
    "kind: Service\nmetadata: {name: loop, namespace: shop}\nspec: {type: ExternalName, externalName: "
    "loop.shop.svc.cluster.local}\n---\n"
    "kind: Service\nmetadata: {name: out, namespace: shop}\nspec: {type: ExternalName, externalName: "
    "www.example.com}\n";

static struct th_net_state *state_of(const char *yaml)
{
    TH_AUTO(th_json) struct th_json *docs = NULL;
    assert_int_equal(th_yaml_parse(yaml, strlen(yaml), &docs, NULL), 0);
    struct th_json *lists[] = {th_json_array(), th_json_array(), th_json_array()};
    static const char *const kinds[] = {"Service", "EndpointSlice", "Namespace"};
    for (size_t i = 0; i < th_json_len(docs); i++) {
        for (size_t k = 0; k < TH_ARRAY_LEN(kinds); k++) {
            if (th_streq(th_json_path_str(th_json_at(docs, i), "kind"), kinds[k])) {
                th_json_append(lists[k], th_json_ref(th_json_at(docs, i)));
            }
        }
    }
    return th_net_state_new(lists[0], lists[1], lists[2]);
}

/* ---- questions and answers as text ---- */

struct ask {
    int edns, version;
    bool tcp;
};

static void question(const char *name, const char *type, struct ask o, struct th_buf *ret)
{
    ldns_pkt *p = ldns_pkt_query_new(ldns_dname_new_frm_str(name), ldns_get_rr_type_by_name(type),
                                     LDNS_RR_CLASS_IN, LDNS_RD);
    ldns_pkt_set_id(p, 4711);
    if (o.edns) {
        ldns_pkt_set_edns_udp_size(p, (uint16_t)o.edns);
        ldns_pkt_set_edns_version(p, (uint8_t)o.version);
    }
    uint8_t *wire = NULL;
    size_t n = 0;
    assert_int_equal(ldns_pkt2wire(&wire, p, &n), LDNS_STATUS_OK);
    th_buf_add(ret, wire, n);
    free(wire);
    ldns_pkt_free(p);
}

static void list(const ldns_rr_list *l, const char *label, struct th_buf *b)
{
    th_autostrv struct th_strv lines = TH_STRV_INIT;
    for (size_t i = 0; i < ldns_rr_list_rr_count(l); i++) {
        char *s = ldns_rr2str(ldns_rr_list_rr(l, i));
        for (char *c = s; *c; c++) {
            *c = *c == '\t' ? ' ' : *c == '\n' ? 0 : *c;
        }
        th_strv_add(&lines, s);
        free(s);
    }
    th_strv_sort(&lines);
    for (size_t i = 0; i < lines.n; i++) {
        th_buf_printf(b, "%s%s", i ? "; " : label, lines.v[i]);
    }
}

/* "NOERROR aa | answers | +authority | +additional" */
static char *text_of(const void *wire, size_t n)
{
    ldns_pkt *p = NULL;
    assert_int_equal(ldns_wire2pkt(&p, wire, n), LDNS_STATUS_OK);
    assert_int_equal(ldns_pkt_id(p), 4711);
    assert_true(ldns_pkt_qr(p));
    th_autobuf struct th_buf b = TH_BUF_INIT;
    char *rcode = ldns_pkt_rcode2str(ldns_pkt_get_rcode(p));
    th_buf_printf(&b, "%s%s%s", rcode, ldns_pkt_aa(p) ? " aa" : "", ldns_pkt_tc(p) ? " tc" : "");
    free(rcode);
    if (ldns_pkt_edns(p)) {
        th_buf_printf(&b, " edns%d", ldns_pkt_edns_extended_rcode(p));
    }
    list(ldns_pkt_answer(p), " | ", &b);
    list(ldns_pkt_authority(p), " | auth ", &b);
    list(ldns_pkt_additional(p), " | more ", &b);
    ldns_pkt_free(p);
    return th_buf_steal(&b, NULL);
}

static char *ask_db(const struct th_dns_db *db, const char *name, const char *type, struct ask o, char **ret_chase)
{
    th_autobuf struct th_buf in = TH_BUF_INIT, out = TH_BUF_INIT;
    th_autofree char *chase = NULL;
    struct th_dns_q q;
    question(name, type, o, &in);
    int r = th_dns_q_parse((const uint8_t *)in.p, in.n, o.tcp, &q, &out);
    if (r > 0) {
        ldns_pkt *p = th_dns_db_answer(db, &q, &chase);
        if (!p) {
            th_dns_q_done(&q);
            return th_xstrdup("not ours");
        }
        assert_int_equal(th_dns_end(&q, p, &out), 0);
        th_dns_q_done(&q);
    }
    if (ret_chase) {
        *ret_chase = th_steal(&chase);
    }
    return text_of(out.p, out.n);
}

#define SOA "auth cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5"

static void names_of_the_cluster_have_these_records(void **arg)
{
    (void)arg;
    static const char *const cases[][3] = {
        {"web.shop.svc.cluster.local", "A", "NOERROR aa | web.shop.svc.cluster.local. 5 IN A 10.96.1.1"},
        {"WEB.Shop.svc.cluster.LOCAL", "A", "NOERROR aa | WEB.Shop.svc.cluster.LOCAL. 5 IN A 10.96.1.1"},
        {"web.shop.svc.cluster.local", "AAAA", "NOERROR aa | " SOA},
        {"_http._tcp.web.shop.svc.cluster.local", "SRV",
         "NOERROR aa | _http._tcp.web.shop.svc.cluster.local. 5 IN SRV 0 100 80 web.shop.svc.cluster.local. | more "
         "web.shop.svc.cluster.local. 5 IN A 10.96.1.1"},
        {"_dns._udp.web.shop.svc.cluster.local", "SRV",
         "NOERROR aa | _dns._udp.web.shop.svc.cluster.local. 5 IN SRV 0 100 53 web.shop.svc.cluster.local. | more "
         "web.shop.svc.cluster.local. 5 IN A 10.96.1.1"},
        {"_http._udp.web.shop.svc.cluster.local", "SRV", "NXDOMAIN aa | " SOA},
        {"web.shop.svc.cluster.local", "SRV",
         "NOERROR aa | web.shop.svc.cluster.local. 5 IN SRV 0 50 53 web.shop.svc.cluster.local.; "
         "web.shop.svc.cluster.local. 5 IN SRV 0 50 80 web.shop.svc.cluster.local. | more "
         "web.shop.svc.cluster.local. 5 IN A 10.96.1.1"},
        {"peers.shop.svc.cluster.local", "A",
         "NOERROR aa | peers.shop.svc.cluster.local. 5 IN A 10.244.0.5; peers.shop.svc.cluster.local. 5 IN A "
         "10.244.0.6"},
        {"a.peers.shop.svc.cluster.local", "A", "NOERROR aa | a.peers.shop.svc.cluster.local. 5 IN A 10.244.0.5"},
        {"10-244-0-6.peers.shop.svc.cluster.local", "A",
         "NOERROR aa | 10-244-0-6.peers.shop.svc.cluster.local. 5 IN A 10.244.0.6"},
        {"c.peers.shop.svc.cluster.local", "A", "NXDOMAIN aa | " SOA},
        {"_http._tcp.peers.shop.svc.cluster.local", "SRV",
         "NOERROR aa | _http._tcp.peers.shop.svc.cluster.local. 5 IN SRV 0 50 8080 "
         "10-244-0-6.peers.shop.svc.cluster.local.; _http._tcp.peers.shop.svc.cluster.local. 5 IN SRV 0 50 8080 "
         "a.peers.shop.svc.cluster.local. | more 10-244-0-6.peers.shop.svc.cluster.local. 5 IN A 10.244.0.6; "
         "a.peers.shop.svc.cluster.local. 5 IN A 10.244.0.5"},
        {"nobody.shop.svc.cluster.local", "A", "NXDOMAIN aa | " SOA},
        {"1.1.96.10.in-addr.arpa", "PTR", "NOERROR aa | 1.1.96.10.in-addr.arpa. 5 IN PTR web.shop.svc.cluster.local."},
        {"5.0.244.10.in-addr.arpa", "PTR",
         "NOERROR aa | 5.0.244.10.in-addr.arpa. 5 IN PTR a.peers.shop.svc.cluster.local."},
        {"9.9.96.10.in-addr.arpa", "PTR",
         "NXDOMAIN aa | auth 96.10.in-addr.arpa. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 "
         "86400 5"},
        {"8.8.8.8.in-addr.arpa", "PTR", "not ours"},
        {"10-244-0-9.shop.pod.cluster.local", "A",
         "NOERROR aa | 10-244-0-9.shop.pod.cluster.local. 5 IN A 10.244.0.9"},
        {"10-244-0-9.shop.pod.cluster.local", "AAAA", "NOERROR aa | " SOA},
        {"10-244-0-9.nowhere.pod.cluster.local", "A", "NXDOMAIN aa | " SOA},
        {"10-244-0-999.shop.pod.cluster.local", "A", "NXDOMAIN aa | " SOA},
        {"10-244-0-9.x.shop.pod.cluster.local", "A", "NXDOMAIN aa | " SOA},
        {"shop.svc.cluster.local", "A", "NOERROR aa | " SOA},
        {"shop.pod.cluster.local", "A", "NOERROR aa | " SOA},
        {"nowhere.svc.cluster.local", "A", "NXDOMAIN aa | " SOA},
        {"svc.cluster.local", "A", "NOERROR aa | " SOA},
        {"alias.shop.svc.cluster.local", "A",
         "NOERROR aa | alias.shop.svc.cluster.local. 5 IN CNAME web.shop.svc.cluster.local.; "
         "web.shop.svc.cluster.local. 5 IN A 10.96.1.1"},
        {"alias.shop.svc.cluster.local", "AAAA",
         "NOERROR aa | alias.shop.svc.cluster.local. 5 IN CNAME web.shop.svc.cluster.local. | " SOA},
        {"alias.shop.svc.cluster.local", "CNAME",
         "NOERROR aa | alias.shop.svc.cluster.local. 5 IN CNAME web.shop.svc.cluster.local."},
        {"cluster.local", "NS", "NOERROR aa | cluster.local. 5 IN NS ns.dns.cluster.local."},
        {"ns.dns.cluster.local", "A", "NOERROR aa | ns.dns.cluster.local. 5 IN A 10.96.0.10"},
        {"dns-version.cluster.local", "TXT", "NOERROR aa | dns-version.cluster.local. 5 IN TXT \"1.1.0\""},
        {"www.example.com", "A", "not ours"},
        {"notcluster.local", "A", "not ours"},
    };
    TH_AUTO(th_net_state) struct th_net_state *st = state_of(CLUSTER);
    struct th_dns_db *db = th_dns_db_new(&OPTS, st);
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        th_autofree char *got = ask_db(db, cases[i][0], cases[i][1], (struct ask){0}, NULL);
        if (!th_streq(got, cases[i][2])) {
            fail_msg("%s %s:\n got %s\nwant %s", cases[i][0], cases[i][1], got, cases[i][2]);
        }
    }
    th_dns_db_free(db);
}

static void before_the_first_state_names_are_not_denied(void **arg)
{
    (void)arg;
    struct th_dns_db *db = th_dns_db_new(&OPTS, NULL);
    th_autofree char *got = ask_db(db, "web.shop.svc.cluster.local", "A", (struct ask){0}, NULL);
    assert_string_equal(got, "SERVFAIL");
    th_autofree char *other = ask_db(db, "www.example.com", "A", (struct ask){0}, NULL);
    assert_string_equal(other, "not ours");
    th_dns_db_free(db);
}

static void external_names_lead_outside_and_loops_end(void **arg)
{
    (void)arg;
    TH_AUTO(th_net_state) struct th_net_state *st = state_of(CLUSTER);
    struct th_dns_db *db = th_dns_db_new(&OPTS, st);
    th_autofree char *chase = NULL, *none = NULL, *loop = NULL;
    th_autofree char *out = ask_db(db, "out.shop.svc.cluster.local", "A", (struct ask){0}, &chase);
    assert_string_equal(out, "NOERROR aa | out.shop.svc.cluster.local. 5 IN CNAME www.example.com.");
    assert_string_equal(chase, "www.example.com");
    th_autofree char *cname = ask_db(db, "out.shop.svc.cluster.local", "CNAME", (struct ask){0}, &none);
    assert_string_equal(cname, out);
    assert_null(none);
    th_autofree char *round = ask_db(db, "loop.shop.svc.cluster.local", "A", (struct ask){0}, &loop);
    assert_non_null(strstr(round, "CNAME loop.shop.svc.cluster.local."));
    assert_null(loop);
    th_dns_db_free(db);
}

static void long_answers_are_cut_for_udp_only(void **arg)
{
    (void)arg;
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_buf_puts(&b, "kind: Service\nmetadata: {name: many, namespace: shop}\nspec: {type: ClusterIP, clusterIP: None}\n"
                    "---\nkind: EndpointSlice\nmetadata: {name: m, namespace: shop, labels: "
                    "{kubernetes.io/service-name: many}}\naddressType: IPv4\nports: [{name: '', port: 80}]\nendpoints:\n");
    for (int i = 2; i < 200; i++) {
        th_buf_printf(&b, "  - {addresses: [10.244.0.%d]}\n", i);
    }
    TH_AUTO(th_net_state) struct th_net_state *st = state_of(th_buf_cstr(&b));
    struct th_dns_db *db = th_dns_db_new(&OPTS, st);
    th_autofree char *udp = ask_db(db, "many.shop.svc.cluster.local", "A", (struct ask){0}, NULL);
    th_autofree char *edns = ask_db(db, "many.shop.svc.cluster.local", "A", (struct ask){.edns = 65535}, NULL);
    th_autofree char *tcp = ask_db(db, "many.shop.svc.cluster.local", "A", (struct ask){.tcp = true}, NULL);
    assert_string_equal(udp, "NOERROR aa tc");
    assert_string_equal(edns, "NOERROR aa tc edns0");
    assert_true(th_startswith(tcp, "NOERROR aa | many."));
    size_t n = 0;
    for (const char *at = tcp; (at = strstr(at, " IN A ")); at++) {
        n++;
    }
    assert_int_equal(n, 198);
    th_dns_db_free(db);
}

static void messages_that_are_no_questions_get_the_code_that_says_so(void **arg)
{
    (void)arg;
    th_autobuf struct th_buf in = TH_BUF_INIT;
    question("web.shop.svc.cluster.local", "A", (struct ask){0}, &in);
    static const struct {
        int at, value, r, rcode;
    } cases[] = {
        {2, 0x81, -TH_R_PARSE, 0},         /* an answer: ignored, or two servers could talk for ever */
        {2, 0x29, 0, LDNS_RCODE_NOTIMPL},  /* opcode UPDATE */
        {5, 2, 0, LDNS_RCODE_FORMERR},     /* two questions announced, one there */
        {5, 0, 0, LDNS_RCODE_FORMERR},     /* none */
        {12, 0xc0, 0, LDNS_RCODE_FORMERR}, /* a pointer to itself */
        {12, 99, 0, LDNS_RCODE_FORMERR},   /* a label that is too long */
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        th_autobuf struct th_buf out = TH_BUF_INIT;
        th_autofree uint8_t *wire = th_xmemdup(in.p, in.n);
        struct th_dns_q q;
        wire[cases[i].at] = (uint8_t)cases[i].value;
        if (cases[i].at == 12 && cases[i].value == 0xc0) {
            wire[13] = 12;
        }
        assert_int_equal(th_dns_q_parse(wire, in.n, false, &q, &out), cases[i].r);
        assert_int_equal(out.n > 0, cases[i].r == 0);
        if (out.n) {
            assert_int_equal((uint8_t)out.p[3] & 15, cases[i].rcode);
            assert_memory_equal(out.p, in.p, 2);
        }
    }
    struct th_dns_q q;
    th_autobuf struct th_buf none = TH_BUF_INIT;
    assert_true(th_dns_q_parse((const uint8_t *)in.p, 11, false, &q, &none) < 0);
    TH_AUTO(th_net_state) struct th_net_state *st = state_of(CLUSTER);
    struct th_dns_db *db = th_dns_db_new(&OPTS, st);
    th_autofree char *bad = ask_db(db, "web.shop.svc.cluster.local", "A", (struct ask){.edns = 1232, .version = 1}, NULL);
    assert_string_equal(bad, "NOERROR edns1"); /* BADVERS is 16: one above the header's four bits */
    th_autofree char *axfr = ask_db(db, "cluster.local", "AXFR", (struct ask){.tcp = true}, NULL);
    assert_string_equal(axfr, "REFUSED");
    th_dns_db_free(db);
}

/* ---- others ---- */

struct upstream {
    int udp, tcp, stop[2];
    struct sockaddr_in at;
    atomic_int udp_asked, tcp_asked;
    atomic_bool silent;
    pthread_t thread;
};

/* "long" is cut over UDP, "none" does not exist, "zero" must not be kept, "forged" has another id. */
static size_t upstream_answer(const uint8_t *in, size_t n, bool tcp, uint8_t **ret)
{
    ldns_pkt *q = NULL, *p = ldns_pkt_new();
    assert_int_equal(ldns_wire2pkt(&q, in, n), LDNS_STATUS_OK);
    ldns_rr *rr = ldns_rr_list_rr(ldns_pkt_question(q), 0);
    th_autofree char *name = th_dns_name(ldns_rr_owner(rr));
    ldns_pkt_set_id(p, (uint16_t)(ldns_pkt_id(q) + (th_startswith(name, "forged") ? 1 : 0)));
    ldns_pkt_set_qr(p, true);
    ldns_pkt_push_rr(p, LDNS_SECTION_QUESTION, ldns_rr_clone(rr));
    ldns_rr *a = NULL;
    if (th_startswith(name, "none")) {
        ldns_pkt_set_rcode(p, LDNS_RCODE_NXDOMAIN);
        ldns_rr_new_frm_str(&a, "example.com. 300 IN SOA a. b. 1 2 3 4 7", 0, NULL, NULL);
        ldns_pkt_push_rr(p, LDNS_SECTION_AUTHORITY, a);
    } else if (th_startswith(name, "long") && !tcp) {
        ldns_pkt_set_tc(p, true);
    } else {
        th_autofree char *text = th_xasprintf("%s. %d IN A 192.0.2.1", name, th_startswith(name, "zero") ? 0 : 300);
        ldns_rr_new_frm_str(&a, text, 0, NULL, NULL);
        ldns_pkt_push_rr(p, LDNS_SECTION_ANSWER, a);
    }
    size_t out = 0;
    assert_int_equal(ldns_pkt2wire(ret, p, &out), LDNS_STATUS_OK);
    ldns_pkt_free(p);
    ldns_pkt_free(q);
    return out;
}

static void *upstream_thread(void *arg)
{
    struct upstream *u = arg;
    struct pollfd p[] = {{.fd = u->udp, .events = POLLIN},
                         {.fd = u->tcp, .events = POLLIN},
                         {.fd = u->stop[0], .events = POLLIN}};
    uint8_t in[2048], *out = NULL;
    while (poll(p, 3, -1) > 0 && !p[2].revents) {
        if (p[0].revents) {
            struct sockaddr_in from;
            socklen_t len = sizeof(from);
            ssize_t n = recvfrom(u->udp, in, sizeof(in), 0, (struct sockaddr *)&from, &len);
            atomic_fetch_add(&u->udp_asked, 1);
            if (n > 0 && !atomic_load(&u->silent)) {
                size_t m = upstream_answer(in, (size_t)n, false, &out);
                (void)!sendto(u->udp, out, m, 0, (struct sockaddr *)&from, len);
                free(out);
            }
        }
        if (p[1].revents) {
            int c = accept(u->tcp, NULL, NULL);
            ssize_t n = recv(c, in, sizeof(in), 0);
            atomic_fetch_add(&u->tcp_asked, 1);
            if (n > 2) {
                size_t m = upstream_answer(in + 2, (size_t)n - 2, true, &out);
                uint8_t head[2] = {(uint8_t)(m >> 8), (uint8_t)m};
                (void)!send(c, head, 2, 0);
                (void)!send(c, out, m, 0);
                free(out);
            }
            (void)close(c);
        }
    }
    return NULL;
}

static void upstream_start(struct upstream *u)
{
    *u = (struct upstream){.at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(u->at);
    for (int tries = 0; tries < 20; tries++) { /* the port must be free for both */
        u->at.sin_port = 0;
        u->udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        u->tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(u->udp, (struct sockaddr *)&u->at, len), 0);
        assert_int_equal(getsockname(u->udp, (struct sockaddr *)&u->at, &len), 0);
        if (bind(u->tcp, (struct sockaddr *)&u->at, len) == 0) {
            break;
        }
        (void)close(u->udp);
        (void)close(u->tcp);
    }
    assert_int_equal(listen(u->tcp, 8), 0);
    assert_int_equal(pipe(u->stop), 0);
    assert_int_equal(pthread_create(&u->thread, NULL, upstream_thread, u), 0);
}

static void upstream_stop(struct upstream *u)
{
    (void)!write(u->stop[1], "x", 1);
    pthread_join(u->thread, NULL);
    (void)close(u->udp);
    (void)close(u->tcp);
    (void)close(u->stop[0]);
    (void)close(u->stop[1]);
}

static char *ask_fwd(struct th_dns_fwd *f, const char *name, struct ask o)
{
    th_autobuf struct th_buf in = TH_BUF_INIT, out = TH_BUF_INIT;
    struct th_dns_q q;
    question(name, "A", o, &in);
    assert_int_equal(th_dns_q_parse((const uint8_t *)in.p, in.n, o.tcp, &q, &out), 1);
    ldns_pkt *p = th_dns_fwd_ask(f, &q);
    char *text = NULL;
    if (p) {
        assert_int_equal(th_dns_end(&q, p, &out), 0);
        text = text_of(out.p, out.n);
    }
    th_dns_q_done(&q);
    return text ? text : th_xstrdup("nobody answers");
}

static void others_are_asked_once_and_remembered(void **arg)
{
    (void)arg;
    struct upstream u;
    upstream_start(&u);
    struct th_dns_fwd *f = th_dns_fwd_at(&u.at, 2000);
    th_clock_simulate(1700000000000);
    th_autofree char *one = ask_fwd(f, "www.example.com", (struct ask){0});
    assert_string_equal(one, "NOERROR | www.example.com. 300 IN A 192.0.2.1");
    th_clock_advance_ms(10000);
    th_autofree char *two = ask_fwd(f, "WWW.example.com", (struct ask){0});
    assert_string_equal(two, "NOERROR | WWW.example.com. 290 IN A 192.0.2.1");
    assert_int_equal(atomic_load(&u.udp_asked), 1);
    th_clock_advance_ms(21000);
    th_autofree char *three = ask_fwd(f, "www.example.com", (struct ask){0});
    assert_string_equal(three, one);
    assert_int_equal(atomic_load(&u.udp_asked), 2);
    /* what does not exist is kept as long as its SOA says */
    th_autofree char *none = ask_fwd(f, "none.example.com", (struct ask){0});
    assert_true(th_startswith(none, "NXDOMAIN | auth example.com. 300 IN SOA"));
    th_clock_advance_ms(6000);
    th_autofree char *none2 = ask_fwd(f, "none.example.com", (struct ask){0});
    assert_true(th_startswith(none2, "NXDOMAIN | auth example.com. 294 IN SOA"));
    assert_int_equal(atomic_load(&u.udp_asked), 3);
    th_clock_advance_ms(2000);
    th_autofree char *none3 = ask_fwd(f, "none.example.com", (struct ask){0});
    assert_int_equal(atomic_load(&u.udp_asked), 4);
    /* TTL 0 is not kept */
    th_autofree char *zero = ask_fwd(f, "zero.example.com", (struct ask){0});
    th_autofree char *zero2 = ask_fwd(f, "zero.example.com", (struct ask){0});
    assert_string_equal(zero, zero2);
    assert_int_equal(atomic_load(&u.udp_asked), 6);
    th_clock_real();
    th_dns_fwd_free(f);
    upstream_stop(&u);
}

static void cut_answers_are_fetched_whole(void **arg)
{
    (void)arg;
    struct upstream u;
    upstream_start(&u);
    struct th_dns_fwd *f = th_dns_fwd_at(&u.at, 2000);
    th_autofree char *got = ask_fwd(f, "long.example.com", (struct ask){.edns = 4096});
    assert_string_equal(got, "NOERROR edns0 | long.example.com. 300 IN A 192.0.2.1");
    assert_int_equal(atomic_load(&u.tcp_asked), 1);
    th_dns_fwd_free(f);
    upstream_stop(&u);
}

static void the_cache_is_bounded(void **arg)
{
    (void)arg;
    struct upstream u;
    upstream_start(&u);
    struct th_dns_fwd *f = th_dns_fwd_at(&u.at, 2000);
    th_clock_simulate(1700000000000);
    for (int i = 0; i <= TH_LIMIT_DNS_CACHE; i++) {
        th_autofree char *name = th_xasprintf("h%d.example.com", i);
        free(ask_fwd(f, name, (struct ask){0}));
        th_clock_advance_ms(1);
    }
    int before = atomic_load(&u.udp_asked);
    free(ask_fwd(f, "h1.example.com", (struct ask){0})); /* still there */
    assert_int_equal(atomic_load(&u.udp_asked), before);
    free(ask_fwd(f, "h0.example.com", (struct ask){0})); /* the oldest had to go */
    assert_int_equal(atomic_load(&u.udp_asked), before + 1);
    th_clock_real();
    th_dns_fwd_free(f);
    upstream_stop(&u);
}

static void silent_servers_are_not_waited_for_again(void **arg)
{
    (void)arg;
    struct upstream u;
    upstream_start(&u);
    atomic_store(&u.silent, true);
    struct th_dns_fwd *f = th_dns_fwd_at(&u.at, 1000); /* ms: enough for an answer on a busy machine */
    th_autofree char *one = ask_fwd(f, "a.example.com", (struct ask){0});
    assert_string_equal(one, "nobody answers");
    th_autofree char *forged = NULL, *back = NULL;
    atomic_store(&u.silent, false);
    forged = ask_fwd(f, "forged.example.com", (struct ask){0}); /* not our id: as good as silent */
    assert_string_equal(forged, "nobody answers");
    back = ask_fwd(f, "a.example.com", (struct ask){0}); /* one question at a time tries */
    assert_string_equal(back, "NOERROR | a.example.com. 300 IN A 192.0.2.1");
    th_dns_fwd_free(f);
    upstream_stop(&u);
    struct sockaddr_in closed = u.at; /* nobody listens there any more */
    f = th_dns_fwd_at(&closed, 20000);
    int64_t at = th_mono_ms();
    th_autofree char *none = ask_fwd(f, "b.example.com", (struct ask){0});
    assert_string_equal(none, "nobody answers");
    assert_true(th_mono_ms() - at < 20000);
    th_dns_fwd_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_of_the_cluster_have_these_records),
        cmocka_unit_test(before_the_first_state_names_are_not_denied),
        cmocka_unit_test(external_names_lead_outside_and_loops_end),
        cmocka_unit_test(long_answers_are_cut_for_udp_only),
        cmocka_unit_test(messages_that_are_no_questions_get_the_code_that_says_so),
        cmocka_unit_test(others_are_asked_once_and_remembered),
        cmocka_unit_test(cut_answers_are_fetched_whole),
        cmocka_unit_test(the_cache_is_bounded),
        cmocka_unit_test(silent_servers_are_not_waited_for_again),
    };
    return cmocka_run_group_tests_name("net_dns", tests, NULL, NULL);
}
