#ifndef TH_NODE_NET_DNS_PRIV_H
#define TH_NODE_NET_DNS_PRIV_H
/* Between the files of the DNS server (dns*.c) and their tests. */
#include "vm/node/net/net_priv.h"
#include <ldns/ldns.h>

/* ---- dnsmsg.c: questions and answers ---- */

struct th_dns_q {
    ldns_pkt *in;
    const ldns_rr *rr; /* the question */
    char *name;        /* its name in lower case, without the last dot */
    ldns_rr_type type;
    bool edns;
    size_t limit; /* of the answer */
};
/* 1: a question, which th_dns_q_done ends; 0: it is answered with an error, appended to ret;
 * negative: no query at all, not worth an answer. */
int th_dns_q_parse(const uint8_t *wire, size_t n, bool tcp, struct th_dns_q *q, struct th_buf *ret);
void th_dns_q_done(struct th_dns_q *q);
char *th_dns_name(const ldns_rdf *name); /* in lower case, without the last dot; the caller frees */

ldns_pkt *th_dns_begin(const struct th_dns_q *q); /* an answer with nothing in it */
/* Appends the answer, cut to what the client takes, and frees it. 0 or negative. */
int th_dns_end(const struct th_dns_q *q, ldns_pkt *out, struct th_buf *ret);
/* Appends an answer without records; ede and text (RFC 8914) go to clients that speak EDNS. */
#define TH_EDE_NO_AUTHORITY 22
#define TH_EDE_NETWORK 23
void th_dns_fail(const struct th_dns_q *q, ldns_pkt_rcode rcode, int ede, const char *text,
                 struct th_buf *ret);

/* ---- dnsdb.c: the cluster's records ---- */

struct th_dns_db;
/* st NULL: nothing is known yet, every name of the cluster is SERVFAIL. */
struct th_dns_db *th_dns_db_new(const struct th_net_opts *o, const struct th_net_state *st);
void th_dns_db_free(struct th_dns_db *db); /* NULL-safe */
/* NULL: not a name of the cluster. *ret_chase: the answer ends with this name outside of it, whose
 * records belong to the answer too (the caller frees), or NULL. */
ldns_pkt *th_dns_db_answer(const struct th_dns_db *db, const struct th_dns_q *q, char **ret_chase);

/* ---- dnsfwd.c: everybody else's ---- */

struct th_dns_fwd;
/* Nameservers of a resolv.conf, without the address `not` (our own). */
struct th_dns_fwd *th_dns_fwd_new(const char *resolv_conf, const char *not);
/* One server, for tests. */
struct th_dns_fwd *th_dns_fwd_at(const struct sockaddr_in *server, int timeout_ms);
void th_dns_fwd_free(struct th_dns_fwd *f);
bool th_dns_fwd_any(const struct th_dns_fwd *f); /* is there a nameserver? */
/* An answer from the cache, at once, or NULL. */
ldns_pkt *th_dns_fwd_cached(struct th_dns_fwd *f, const struct th_dns_q *q);
/* Asks; blocks up to a few seconds. NULL: nobody answers. Thread-safe. */
ldns_pkt *th_dns_fwd_ask(struct th_dns_fwd *f, const struct th_dns_q *q);
/* The same for another name of the question's type. */
ldns_pkt *th_dns_fwd_ask_name(struct th_dns_fwd *f, const struct th_dns_q *q, const char *name);
#endif
