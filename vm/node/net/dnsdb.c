/* The cluster's DNS records, and answers from them.
 *
 * The records follow "Kubernetes DNS-Based Service Discovery" 1.1: A, SRV and PTR for ClusterIPs,
 * the ready endpoints' addresses and names for headless Services, CNAME for ExternalName, and pods'
 * dashed addresses in namespaces that exist. What the specification leaves open is as in CoreDNS:
 * SRV of a Service's plain name lists all its ports, weights share 100, a headless Service without
 * endpoints does not exist, TTL 5.
 *
 * A database is made anew for every state and never changed, so readers need no lock. Names above a
 * record exist without data, as do those of namespaces; everything else below the cluster's domain,
 * and reverse names of the cluster's own networks, is NXDOMAIN. Answers without data carry the SOA,
 * by which resolvers keep them five seconds. There is no IPv6: AAAA of a name that exists is an empty
 * answer. Owners in answers are written as the client wrote them (some mix cases to see whether the
 * answer is theirs). Before the first state is known, after a start, it is SERVFAIL: clients ask again,
 * while a name that does not exist is remembered. Addresses come in another order each time, as many clients take the first. */
#include "base/json/json.h"
#include "base/rand.h"
#include "vm/node/net/dns_priv.h"

#include <arpa/inet.h>
#include <ctype.h>

#define TTL 5
#define CHAIN_MAX 8

struct name {
    ldns_rr_list *rrs;
};
struct th_dns_db {
    char *domain; /* "cluster.local", lower case */
    struct th_strv zones; /* the domain and reverse names of our networks */
    struct th_hmap names;
    bool known; /* made from a state */
};

static void name_free(void *p)
{
    struct name *n = p;
    ldns_rr_list_deep_free(n->rrs);
    free(n);
}

static struct name *name_at(struct th_dns_db *db, const char *fqdn)
{
    struct name *n = th_hmap_get(&db->names, fqdn);
    if (!n) {
        n = TH_NEW(struct name);
        n->rrs = ldns_rr_list_new();
        th_hmap_set(&db->names, fqdn, n);
    }
    return n;
}

static bool has_rr(const ldns_rr_list *l, const ldns_rr *rr)
{
    for (size_t i = 0; i < ldns_rr_list_rr_count(l); i++) {
        if (ldns_rr_compare(ldns_rr_list_rr(l, i), rr) == 0) {
            return true;
        }
    }
    return false;
}

/* fmt gives type and data: "SRV 0 100 80 x." Names that ldns does not take have no record. */
static void put(struct th_dns_db *db, const char *fqdn, const char *fmt, ...) TH_PRINTF(3, 4);
static void put(struct th_dns_db *db, const char *fqdn, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    th_autofree char *data = th_xvasprintf(fmt, ap);
    va_end(ap);
    th_autofree char *text = th_xasprintf("%s. %d IN %s", fqdn, TTL, data);
    ldns_rr *rr = NULL;
    if (ldns_rr_new_frm_str(&rr, text, TTL, NULL, NULL) != LDNS_STATUS_OK || !rr) {
        return;
    }
    struct name *n = name_at(db, fqdn);
    if (has_rr(n->rrs, rr)) {
        ldns_rr_free(rr);
    } else {
        (void)ldns_rr_list_push_rr(n->rrs, rr);
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
    const char *name = th_json_path_str(port, "name");
    int number = (int)th_json_path_int(port, "port", 0);
    if (number <= 0) {
        return;
    }
    put(db, svc, "SRV 0 100 %d %s.", number, target);
    if (name && *name) {
        th_autofree char *at = th_xasprintf("_%s._%s.%s", name, th_proto_of(port), svc);
        for (char *c = at; *c; c++) {
            *c = (char)tolower((unsigned char)*c);
        }
        put(db, at, "SRV 0 100 %d %s.", number, target);
    }
}

static void put_endpoint(struct th_dns_db *db, const struct th_json *slice, const struct th_json *e,
                         const char *fqdn)
{
    const char *ip = th_json_str(th_json_at(th_json_get(e, "addresses"), 0));
    if (!th_is_ip4(ip)) {
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

static void put_headless(struct th_dns_db *db, const struct th_json *slices, const char *fqdn)
{
    for (size_t i = 0; i < th_json_len(slices); i++) {
        const struct th_json *s = th_json_at(slices, i);
        struct th_json *list = th_json_get(s, "endpoints");
        for (size_t k = 0; k < th_json_len(list); k++) {
            const struct th_json *e = th_json_at(list, k);
            if (th_json_path_bool(e, "conditions.ready", true)) {
                put_endpoint(db, s, e, fqdn);
            }
        }
    }
}

static void put_service(struct th_dns_db *db, const struct th_net_state *st, const struct th_json *svc)
{
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
        put_headless(db, th_net_slices(st, svc), fqdn);
    } else if (th_is_ip4(ip)) {
        put(db, fqdn, "A %s", ip);
        put_ptr(db, ip, fqdn);
        struct th_json *ports = th_json_path(svc, "spec.ports");
        for (size_t k = 0; k < th_json_len(ports); k++) {
            put_srv(db, th_json_at(ports, k), fqdn, fqdn);
        }
    }
}

/* "10.96.0.0/16" -> "96.10.in-addr.arpa"; networks that do not end at a byte have no zone. */
static void add_reverse_zone(struct th_dns_db *db, const char *cidr)
{
    int a, b, c, d, bits;
    if (!cidr || sscanf(cidr, "%d.%d.%d.%d/%d", &a, &b, &c, &d, &bits) != 5) {
        return;
    }
    if (bits == 8) {
        th_strv_addf(&db->zones, "%d.in-addr.arpa", a);
    } else if (bits == 16) {
        th_strv_addf(&db->zones, "%d.%d.in-addr.arpa", b, a);
    } else if (bits == 24) {
        th_strv_addf(&db->zones, "%d.%d.%d.in-addr.arpa", c, b, a);
    }
}

static void put_zone(struct th_dns_db *db, const struct th_net_opts *o)
{
    const char *d = db->domain;
    th_autofree char *server = th_xasprintf("ns.dns.%s", d);
    th_autofree char *version = th_xasprintf("dns-version.%s", d);
    put(db, d, "SOA ns.dns.%s. hostmaster.%s. 1 7200 1800 86400 %d", d, d, TTL);
    put(db, d, "NS %s.", server);
    put(db, server, "A %s", o->cluster_dns);
    put(db, version, "TXT \"1.1.0\"");
    static const char *const parts[] = {"svc", "pod"};
    for (size_t i = 0; i < TH_ARRAY_LEN(parts); i++) {
        th_autofree char *at = th_xasprintf("%s.%s", parts[i], d);
        (void)name_at(db, at);
    }
}

struct th_dns_db *th_dns_db_new(const struct th_net_opts *o, const struct th_net_state *st)
{
    struct th_dns_db *db = TH_NEW(struct th_dns_db);
    db->domain = th_xstrdup(o->cluster_domain);
    db->known = st != NULL;
    th_hmap_init(&db->names, name_free);
    th_strv_add(&db->zones, db->domain);
    add_reverse_zone(db, o->service_cidr);
    add_reverse_zone(db, o->pod_cidr);
    put_zone(db, o);
    for (size_t i = 0; st && i < th_json_len(st->namespaces); i++) {
        const char *ns = th_json_path_str(th_json_at(st->namespaces, i), "metadata.name");
        th_autofree char *svc = th_xasprintf("%s.svc.%s", ns, db->domain);
        th_autofree char *pod = th_xasprintf("%s.pod.%s", ns, db->domain);
        (void)name_at(db, svc);
        (void)name_at(db, pod);
    }
    for (size_t i = 0; st && i < th_json_len(st->services); i++) {
        put_service(db, st, th_json_at(st->services, i));
    }
    return db;
}

void th_dns_db_free(struct th_dns_db *db)
{
    if (db) {
        th_hmap_done(&db->names);
        th_strv_done(&db->zones);
        free(db->domain);
        free(db);
    }
}

/* ---- answers ---- */

struct reply {
    const struct th_dns_db *db;
    ldns_pkt *p;
    ldns_rr_type type;
};

static bool wanted(const struct reply *r, const ldns_rr *rr)
{
    ldns_rr_type t = ldns_rr_get_type(rr);
    return r->type == LDNS_RR_TYPE_ANY || t == r->type || t == LDNS_RR_TYPE_CNAME;
}

/* Adds a copy with the owner as asked for. */
static ldns_rr *add(struct reply *r, ldns_pkt_section sec, const ldns_rr *rr, const ldns_rdf *owner)
{
    ldns_rr *copy = ldns_rr_clone(rr);
    if (owner) {
        ldns_rdf_deep_free(ldns_rr_owner(copy));
        ldns_rr_set_owner(copy, ldns_rdf_clone(owner));
    }
    (void)ldns_pkt_push_rr(r->p, sec, copy);
    return copy;
}

static const char *zone_of(const struct th_dns_db *db, const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; i < db->zones.n; i++) {
        size_t z = strlen(db->zones.v[i]);
        if (n >= z && th_streq(name + n - z, db->zones.v[i]) && (n == z || name[n - z - 1] == '.')) {
            return db->zones.v[i];
        }
    }
    return NULL;
}

/* a-b-c-d.<ns>.pod.<domain>, of a namespace that exists: its record, the caller's. */
static ldns_rr *pod_record(const struct th_dns_db *db, const char *name)
{
    char ip[INET_ADDRSTRLEN];
    th_autofree char *end = th_xasprintf(".pod.%s", db->domain);
    const char *dot = strchr(name, '.');
    if (!dot || !th_endswith(name, end) || dot - name >= INET_ADDRSTRLEN ||
        strlen(dot) <= strlen(end) || !th_hmap_has(&db->names, dot + 1)) {
        return NULL;
    }
    memcpy(ip, name, (size_t)(dot - name));
    ip[dot - name] = 0;
    for (char *c = ip; *c; c++) {
        *c = *c == '-' ? '.' : *c;
    }
    ldns_rr *rr = NULL;
    th_autofree char *text = th_xasprintf("%s. %d IN A %s", name, TTL, ip);
    if (!th_is_ip4(ip) || ldns_rr_new_frm_str(&rr, text, TTL, NULL, NULL) != LDNS_STATUS_OK) {
        return NULL;
    }
    return rr;
}

/* Weights share 100; addresses of the targets come along. */
static void finish_srv(struct reply *r)
{
    ldns_rr_list *answer = ldns_pkt_answer(r->p);
    size_t n = 0;
    for (size_t i = 0; i < ldns_rr_list_rr_count(answer); i++) {
        n += ldns_rr_get_type(ldns_rr_list_rr(answer, i)) == LDNS_RR_TYPE_SRV;
    }
    for (size_t i = 0; i < ldns_rr_list_rr_count(answer); i++) {
        ldns_rr *rr = ldns_rr_list_rr(answer, i);
        if (ldns_rr_get_type(rr) != LDNS_RR_TYPE_SRV) {
            continue;
        }
        uint16_t weight = (uint16_t)(n < 100 ? 100 / n : 1);
        ldns_rdf_deep_free(ldns_rr_set_rdf(rr, ldns_native2rdf_int16(LDNS_RDF_TYPE_INT16, weight), 1));
        th_autofree char *target = th_dns_name(ldns_rr_rdf(rr, 3));
        const struct name *t = target ? th_hmap_get(&r->db->names, target) : NULL;
        for (size_t k = 0; t && k < ldns_rr_list_rr_count(t->rrs); k++) {
            const ldns_rr *a = ldns_rr_list_rr(t->rrs, k);
            if (ldns_rr_get_type(a) == LDNS_RR_TYPE_A && !has_rr(ldns_pkt_additional(r->p), a)) {
                (void)add(r, LDNS_SECTION_ADDITIONAL, a, NULL);
            }
        }
    }
}

/* The records of one name; false when it does not exist. *ret_cname is where a CNAME leads. */
static bool fill(struct reply *r, const char *name, const ldns_rdf *owner, char **ret_cname)
{
    const struct name *n = th_hmap_get(&r->db->names, name);
    size_t count = n ? ldns_rr_list_rr_count(n->rrs) : 0;
    size_t first = count > 1 ? (size_t)th_rand_below(count) : 0;
    for (size_t i = 0; i < count; i++) {
        const ldns_rr *rr = ldns_rr_list_rr(n->rrs, (first + i) % count);
        if (wanted(r, rr)) {
            const ldns_rr *copy = add(r, LDNS_SECTION_ANSWER, rr, owner);
            if (ldns_rr_get_type(rr) == LDNS_RR_TYPE_CNAME && r->type != LDNS_RR_TYPE_CNAME &&
                r->type != LDNS_RR_TYPE_ANY) {
                free(*ret_cname);
                *ret_cname = th_dns_name(ldns_rr_rdf(copy, 0));
            }
        }
    }
    ldns_rr *pod = n ? NULL : pod_record(r->db, name);
    if (pod && wanted(r, pod)) {
        (void)add(r, LDNS_SECTION_ANSWER, pod, owner);
    }
    ldns_rr_free(pod);
    return n || pod;
}

static void add_soa(struct reply *r, const char *name)
{
    const char *zone = zone_of(r->db, name), *d = r->db->domain;
    ldns_rr *rr = NULL;
    th_autofree char *text = th_xasprintf("%s. %d IN SOA ns.dns.%s. hostmaster.%s. 1 7200 1800 86400 %d",
                                          zone ? zone : d, TTL, d, d, TTL);
    if (zone && ldns_rr_new_frm_str(&rr, text, TTL, NULL, NULL) == LDNS_STATUS_OK) {
        (void)ldns_pkt_push_rr(r->p, LDNS_SECTION_AUTHORITY, rr);
    }
}

static bool is_ours(const struct th_dns_db *db, const char *name)
{
    return th_hmap_has(&db->names, name) || zone_of(db, name);
}

ldns_pkt *th_dns_db_answer(const struct th_dns_db *db, const struct th_dns_q *q, char **ret_chase)
{
    *ret_chase = NULL;
    if (!is_ours(db, q->name)) {
        return NULL;
    }
    struct reply r = {.db = db, .p = th_dns_begin(q), .type = q->type};
    if (!db->known) {
        ldns_pkt_set_rcode(r.p, LDNS_RCODE_SERVFAIL);
        return r.p;
    }
    ldns_pkt_set_aa(r.p, true);
    th_autofree char *name = th_xstrdup(q->name), *next = NULL;
    bool exists = fill(&r, name, ldns_rr_owner(q->rr), &next);
    for (int i = 0; i < CHAIN_MAX && next; i++) {
        free(name);
        name = th_steal(&next);
        if (!is_ours(db, name)) {
            *ret_chase = th_steal(&name);
            return r.p;
        }
        exists = fill(&r, name, NULL, &next);
    }
    if (!exists) {
        ldns_pkt_set_rcode(r.p, LDNS_RCODE_NXDOMAIN);
    }
    if (q->type == LDNS_RR_TYPE_SRV) {
        finish_srv(&r);
    }
    const ldns_rr_list *answer = ldns_pkt_answer(r.p);
    size_t n = ldns_rr_list_rr_count(answer);
    if (n == 0 || (q->type != LDNS_RR_TYPE_CNAME && q->type != LDNS_RR_TYPE_ANY &&
                   ldns_rr_get_type(ldns_rr_list_rr(answer, n - 1)) == LDNS_RR_TYPE_CNAME)) {
        add_soa(&r, name);
    }
    return r.p;
}
