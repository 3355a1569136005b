/* DNS records of Services, and answers from them.
 *
 * The records follow "Kubernetes DNS-Based Service Discovery" 1.1: A, SRV and PTR for ClusterIPs,
 * the endpoints' addresses and names for headless Services, CNAME for ExternalName, and pods'
 * dashed addresses. A database is made anew for every state and never changed, so readers need no
 * lock. Names above a record exist without data; everything else below the cluster's domain is
 * NXDOMAIN with the SOA, for which resolvers keep the answer five seconds. There is no IPv6: AAAA of
 * a name that exists is an empty answer. Bytes from the network are taken apart by ldns only. */
#include "base/json/json.h"
#include "vm/node/net/net_priv.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <ldns/ldns.h>

#define TTL 5
#define UDP_MIN 512
#define UDP_MAX 1232

struct name {
    struct th_strv data; /* "A 10.96.0.1", "SRV 0 100 80 x.", ... */
};
struct th_dns_db {
    char *domain; /* "cluster.local", lower case */
    struct th_hmap names;
};

static void name_free(void *p)
{
    struct name *n = p;
    th_strv_done(&n->data);
    free(n);
}

static struct name *name_at(struct th_dns_db *db, const char *fqdn)
{
    struct name *n = th_hmap_get(&db->names, fqdn);
    if (!n) {
        n = TH_NEW(struct name);
        th_hmap_set(&db->names, fqdn, n);
    }
    return n;
}

static void put(struct th_dns_db *db, const char *fqdn, const char *fmt, ...) TH_PRINTF(3, 4);
static void put(struct th_dns_db *db, const char *fqdn, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    th_autofree char *text = th_xvasprintf(fmt, ap);
    va_end(ap);
    struct name *n = name_at(db, fqdn);
    if (!th_strv_has(&n->data, text)) {
        th_strv_add(&n->data, text);
    }
    for (const char *up = strchr(fqdn, '.'); up && th_endswith(up, db->domain); up = strchr(up + 1, '.')) {
        (void)name_at(db, up + 1);
    }
}

static void put_ptr(struct th_dns_db *db, const char *ip, const char *fqdn)
{
    struct in_addr a;
    if (inet_pton(AF_INET, ip, &a) == 1) {
        const unsigned char *b = (const unsigned char *)&a;
        th_autofree char *rev =
            th_xasprintf("%d.%d.%d.%d.in-addr.arpa", b[3], b[2], b[1], b[0]);
        put(db, rev, "PTR %s.", fqdn);
    }
}

static void put_srv(struct th_dns_db *db, const struct th_json *port, const char *svc, const char *target)
{
    const char *name = th_json_path_str(port, "name"), *proto = th_json_path_str(port, "protocol");
    if (name && *name) {
        th_autofree char *at = th_xasprintf("_%s._%s.%s", name, proto ? proto : "TCP", svc);
        for (char *c = at; *c; c++) {
            *c = (char)tolower((unsigned char)*c);
        }
        put(db, at, "SRV 0 100 %d %s.", (int)th_json_path_int(port, "port", 0), target);
    }
}

static void put_endpoint(struct th_dns_db *db, const struct th_json *slice, const struct th_json *e,
                         const char *fqdn)
{
    struct in_addr a;
    const char *ip = th_json_str(th_json_at(th_json_get(e, "addresses"), 0));
    if (!ip || inet_pton(AF_INET, ip, &a) != 1) {
        return;
    }
    const char *host = th_json_path_str(e, "hostname");
    th_autofree char *dashed = th_xstrdup(ip);
    for (char *c = dashed; *c; c++) {
        *c = *c == '.' ? '-' : *c;
    }
    th_autofree char *own = th_xasprintf("%s.%s", host && *host ? host : dashed, fqdn);
    put(db, fqdn, "A %s", ip);
    put(db, own, "A %s", ip);
    put_ptr(db, ip, own);
    struct th_json *ports = th_json_get(slice, "ports");
    for (size_t i = 0; i < th_json_len(ports); i++) {
        put_srv(db, th_json_at(ports, i), fqdn, own);
    }
}

static void put_headless(struct th_dns_db *db, const struct th_json *svc, struct th_json *slices,
                         const char *fqdn)
{
    bool all = th_json_path_bool(svc, "spec.publishNotReadyAddresses", false);
    for (size_t i = 0; i < th_json_len(slices); i++) {
        const struct th_json *s = th_json_at(slices, i);
        struct th_json *list = th_slice_of(s, svc) ? th_json_get(s, "endpoints") : NULL;
        for (size_t k = 0; k < th_json_len(list); k++) {
            const struct th_json *e = th_json_at(list, k);
            if (all || th_json_path_bool(e, "conditions.ready", true)) {
                put_endpoint(db, s, e, fqdn);
            }
        }
    }
}

struct th_dns_db *th_dns_db_new(const struct th_net_opts *o, struct th_json *services,
                                struct th_json *slices)
{
    struct th_dns_db *db = TH_NEW(struct th_dns_db);
    db->domain = th_xstrdup(o->cluster_domain);
    th_hmap_init(&db->names, name_free);
    th_autofree char *version = th_xasprintf("dns-version.%s", db->domain);
    put(db, version, "TXT \"1.1.0\"");
    for (size_t i = 0; i < th_json_len(services); i++) {
        const struct th_json *svc = th_json_at(services, i);
        const char *ip = th_json_path_str(svc, "spec.clusterIP");
        const char *ext = th_json_path_str(svc, "spec.externalName");
        th_autofree char *fqdn =
            th_xasprintf("%s.%s.svc.%s", th_json_path_str(svc, "metadata.name"),
                         th_json_path_str(svc, "metadata.namespace"), db->domain);
        if (th_streq(th_json_path_str(svc, "spec.type"), "ExternalName")) {
            if (ext && *ext) {
                put(db, fqdn, "CNAME %s%s", ext, th_endswith(ext, ".") ? "" : ".");
            }
        } else if (th_streq(ip, "None")) {
            put_headless(db, svc, slices, fqdn);
        } else if (ip && *ip && !strchr(ip, ':')) {
            put(db, fqdn, "A %s", ip);
            put_ptr(db, ip, fqdn);
            struct th_json *ports = th_json_path(svc, "spec.ports");
            for (size_t k = 0; k < th_json_len(ports); k++) {
                put_srv(db, th_json_at(ports, k), fqdn, fqdn);
            }
        }
    }
    return db;
}

void th_dns_db_free(struct th_dns_db *db)
{
    if (db) {
        th_hmap_done(&db->names);
        free(db->domain);
        free(db);
    }
}

/* ---- answers ---- */

static void add_rr(ldns_pkt *p, ldns_pkt_section sec, const char *owner, const char *data)
{
    char ttl_and_class[] = "5 IN";
    th_autofree char *text = th_xasprintf("%s. %s %s", owner, ttl_and_class, data);
    ldns_rr *rr = NULL;
    if (ldns_rr_new_frm_str(&rr, text, TTL, NULL, NULL) == LDNS_STATUS_OK && rr) {
        (void)ldns_pkt_push_rr(p, sec, rr);
    }
}

/* a-b-c-d.<ns>.pod.<domain> */
static bool pod_name(const struct th_dns_db *db, const char *q, char ip[INET_ADDRSTRLEN])
{
    th_autofree char *end = th_xasprintf(".pod.%s", db->domain);
    const char *dot = strchr(q, '.');
    if (!dot || !th_endswith(q, end) || dot - q >= INET_ADDRSTRLEN) {
        return false;
    }
    const char *ns = dot + 1, *ns_end = q + strlen(q) - strlen(end);
    if (ns >= ns_end || memchr(ns, '.', (size_t)(ns_end - ns))) {
        return false;
    }
    memcpy(ip, q, (size_t)(dot - q));
    ip[dot - q] = 0;
    for (char *c = ip; *c; c++) {
        *c = *c == '-' ? '.' : *c;
    }
    struct in_addr a;
    return inet_pton(AF_INET, ip, &a) == 1;
}

static void fill(const struct th_dns_db *db, ldns_pkt *p, const char *q, const char *type)
{
    char ip[INET_ADDRSTRLEN];
    const struct name *n = th_hmap_get(&db->names, q);
    bool exists = n != NULL;
    size_t tn = strlen(type);
    for (size_t i = 0; n && i < n->data.n; i++) {
        const char *d = n->data.v[i];
        if (th_streq(type, "ANY") || th_startswith(d, "CNAME ") ||
            (strncmp(d, type, tn) == 0 && d[tn] == ' ')) {
            add_rr(p, LDNS_SECTION_ANSWER, q, d);
        }
    }
    if (!n && pod_name(db, q, ip)) {
        th_autofree char *d = th_xasprintf("A %s", ip);
        exists = true;
        if (th_streq(type, "A") || th_streq(type, "ANY")) {
            add_rr(p, LDNS_SECTION_ANSWER, q, d);
        }
    }
    if (!exists) {
        ldns_pkt_set_rcode(p, LDNS_RCODE_NXDOMAIN);
    }
    if (ldns_pkt_ancount(p) == 0) {
        th_autofree char *soa =
            th_xasprintf("SOA ns.dns.%s. hostmaster.%s. 1 7200 1800 86400 5", db->domain, db->domain);
        add_rr(p, LDNS_SECTION_AUTHORITY, db->domain, soa);
    }
}

static int finish(ldns_pkt *p, size_t limit, struct th_buf *ret)
{
    uint8_t *wire = NULL;
    size_t n = 0;
    if (ldns_pkt2wire(&wire, p, &n) != LDNS_STATUS_OK) {
        return -TH_R_PARSE;
    }
    if (n > limit) {
        /* The client asks again over TCP. The lists stay the packet's, only the counts go. */
        free(wire);
        wire = NULL;
        ldns_pkt_set_tc(p, true);
        ldns_rr_list_deep_free(ldns_pkt_answer(p));
        ldns_rr_list_deep_free(ldns_pkt_authority(p));
        ldns_pkt_set_answer(p, ldns_rr_list_new());
        ldns_pkt_set_authority(p, ldns_rr_list_new());
        ldns_pkt_set_ancount(p, 0);
        ldns_pkt_set_nscount(p, 0);
        if (ldns_pkt2wire(&wire, p, &n) != LDNS_STATUS_OK) {
            return -TH_R_PARSE;
        }
    }
    th_buf_add(ret, wire, n);
    free(wire);
    return 1;
}

/* The question's name in lower case without the last dot; the caller frees. */
static char *question(const ldns_rr *q)
{
    char *s = ldns_rdf2str(ldns_rr_owner(q));
    size_t n = s ? strlen(s) : 0;
    for (size_t i = 0; i < n; i++) {
        s[i] = (char)tolower((unsigned char)s[i]);
    }
    if (n > 0 && s[n - 1] == '.') {
        s[n - 1] = 0;
    }
    return s;
}

static bool is_ours(const struct th_dns_db *db, const char *q)
{
    size_t n = strlen(q), d = strlen(db->domain);
    return th_hmap_has(&db->names, q) || th_streq(q, db->domain) ||
           (n > d && q[n - d - 1] == '.' && th_streq(q + n - d, db->domain));
}

int th_dns_answer(const struct th_dns_db *db, const uint8_t *wire, size_t n, bool tcp,
                  struct th_buf *ret)
{
    ldns_pkt *in = NULL;
    if (n < 12 || ldns_wire2pkt(&in, wire, n) != LDNS_STATUS_OK) {
        return -TH_R_PARSE;
    }
    int r = -TH_R_PARSE;
    const ldns_rr_list *ql = ldns_pkt_question(in);
    if (!ldns_pkt_qr(in) && ldns_pkt_get_opcode(in) == LDNS_PACKET_QUERY && ldns_rr_list_rr_count(ql) == 1) {
        const ldns_rr *q = ldns_rr_list_rr(ql, 0);
        char *name = question(q);
        r = name && ldns_rr_get_class(q) == LDNS_RR_CLASS_IN && is_ours(db, name) ? 1 : 0;
        if (r == 1) {
            ldns_pkt *out = ldns_pkt_new();
            ldns_pkt_set_id(out, ldns_pkt_id(in));
            ldns_pkt_set_qr(out, true);
            ldns_pkt_set_aa(out, true);
            ldns_pkt_set_rd(out, ldns_pkt_rd(in));
            ldns_pkt_set_ra(out, true);
            (void)ldns_pkt_push_rr(out, LDNS_SECTION_QUESTION, ldns_rr_clone(q));
            char *type = ldns_rr_type2str(ldns_rr_get_type(q));
            fill(db, out, name, type ? type : "");
            free(type);
            size_t limit = ldns_pkt_edns(in) ? ldns_pkt_edns_udp_size(in) : UDP_MIN;
            limit = limit < UDP_MIN ? UDP_MIN : limit > UDP_MAX ? UDP_MAX : limit;
            r = finish(out, tcp ? 65535 : limit, ret);
            ldns_pkt_free(out);
        }
        free(name);
    }
    ldns_pkt_free(in);
    return r;
}
