/* links: thimble_node thimble_base */
/* Any message gets an answer that parses, has its id and fits, or none. The first byte says over
 * what it came. */
#include "base/json/json.h"
#include "vm/node/net/dns_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct th_net_opts OPTS = {.node_name = "here",
                                        .node_ip = "10.0.2.15",
                                        .pod_cidr = "10.244.0.0/24",
                                        .service_cidr = "10.96.0.0/16",
                                        .cluster_dns = "10.96.0.10",
                                        .cluster_domain = "cluster.local"};

static struct th_json *objects(const char *text)
{
    struct th_json *o = NULL;
    TH_ASSERT(th_json_parse_cstr(text, &o, NULL) == 0);
    return o;
}

static struct th_dns_db *records(void)
{
    TH_AUTO(th_net_state)
    struct th_net_state *st = th_net_state_new(
        objects("[{\"metadata\":{\"namespace\":\"shop\",\"name\":\"web\"},\"spec\":{\"clusterIP\":\"10.96.1.1\","
                "\"ports\":[{\"name\":\"http\",\"port\":80}]}},"
                "{\"metadata\":{\"namespace\":\"shop\",\"name\":\"out\"},\"spec\":{\"type\":\"ExternalName\","
                "\"externalName\":\"example.com\"}},"
                "{\"metadata\":{\"namespace\":\"shop\",\"name\":\"all\"},\"spec\":{\"clusterIP\":\"None\"}}]"),
        objects("[{\"metadata\":{\"namespace\":\"shop\",\"name\":\"a1\",\"labels\":"
                "{\"kubernetes.io/service-name\":\"all\"}},\"addressType\":\"IPv4\",\"ports\":[{\"name\":\"x\","
                "\"port\":1}],\"endpoints\":[{\"addresses\":[\"10.244.0.5\"],\"hostname\":\"a\"},"
                "{\"addresses\":[\"10.244.0.6\"]}]}]"),
        objects("[{\"metadata\":{\"name\":\"shop\"}}]"));
    return th_dns_db_new(&OPTS, st);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct th_dns_db *db;
    db = db ? db : records();
    if (size < 1) {
        return 0;
    }
    bool tcp = data[0] & 1;
    th_autobuf struct th_buf out = TH_BUF_INIT;
    th_autofree char *chase = NULL;
    struct th_dns_q q;
    int r = th_dns_q_parse(data + 1, size - 1, tcp, &q, &out);
    size_t limit = 512;
    if (r > 0) {
        limit = q.limit;
        ldns_pkt *p = th_dns_db_answer(db, &q, &chase);
        if (p) {
            TH_ASSERT(th_dns_end(&q, p, &out) == 0);
        } else {
            th_dns_fail(&q, LDNS_RCODE_SERVFAIL, TH_EDE_NETWORK, "nobody", &out);
        }
        th_dns_q_done(&q);
    }
    TH_ASSERT(r < 0 || out.n >= LDNS_HEADER_SIZE);
    if (out.n > 0) {
        ldns_pkt *back = NULL;
        TH_ASSERT(out.n <= (tcp ? 65535 : limit < 1232 ? 1232 : limit));
        TH_ASSERT(memcmp(out.p, data + 1, 2) == 0);
        TH_ASSERT(ldns_wire2pkt(&back, (const uint8_t *)out.p, out.n) == LDNS_STATUS_OK);
        TH_ASSERT(ldns_pkt_qr(back));
        ldns_pkt_free(back);
    }
    return 0;
}
