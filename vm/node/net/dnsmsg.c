/* DNS messages: taking questions apart and putting answers together.
 *
 * Bytes from the network are parsed by ldns and by nothing else here; what it cannot parse gets
 * FORMERR from the header alone, so that a broken client learns about it. One question of class IN,
 * opcode QUERY, is what the server understands; others get the code that says so. EDNS (RFC 6891):
 * the client's buffer counts up to the size that no path fragments, version 0 only; errors carry an
 * explanation (RFC 8914), which dig shows.
 *
 * An answer that is too long first loses its additional records, which nobody needs, then all
 * records with the TC bit set: the client asks again over TCP. */
#include "vm/node/net/dns_priv.h"

#include <ctype.h>

#define UDP_MIN 512
#define UDP_MAX 1232
#define TCP_MAX 65535
#define EDNS_EDE 15

char *th_dns_name(const ldns_rdf *name)
{
    char *s = ldns_rdf2str(name);
    size_t n = s ? strlen(s) : 0;
    for (size_t i = 0; i < n; i++) {
        s[i] = (char)tolower((unsigned char)s[i]);
    }
    if (n > 0 && s[n - 1] == '.') {
        s[n - 1] = 0;
    }
    return s;
}

/* What cannot be parsed: the header comes back with a code. */
static int header_only(const uint8_t *wire, int rcode, struct th_buf *ret)
{
    uint8_t h[12] = {wire[0], wire[1], (uint8_t)(0x80 | (wire[2] & 0x79)), (uint8_t)(0x80 | rcode)};
    th_buf_add(ret, h, sizeof(h));
    return 0;
}

static int refuse(struct th_dns_q *q, ldns_pkt_rcode rcode, struct th_buf *ret)
{
    th_dns_fail(q, rcode, 0, NULL, ret);
    th_dns_q_done(q);
    return 0;
}

int th_dns_q_parse(const uint8_t *wire, size_t n, bool tcp, struct th_dns_q *q, struct th_buf *ret)
{
    *q = (struct th_dns_q){.limit = tcp ? TCP_MAX : UDP_MIN};
    if (n < LDNS_HEADER_SIZE || (wire[2] & 0x80)) {
        return -TH_R_PARSE;
    }
    if ((wire[2] >> 3 & 15) != LDNS_PACKET_QUERY) {
        return header_only(wire, LDNS_RCODE_NOTIMPL, ret);
    }
    if (ldns_wire2pkt(&q->in, wire, n) != LDNS_STATUS_OK) {
        q->in = NULL;
        return header_only(wire, LDNS_RCODE_FORMERR, ret);
    }
    const ldns_rr_list *questions = ldns_pkt_question(q->in);
    if (ldns_rr_list_rr_count(questions) != 1) {
        th_dns_q_done(q);
        return header_only(wire, LDNS_RCODE_FORMERR, ret);
    }
    q->rr = ldns_rr_list_rr(questions, 0);
    q->type = ldns_rr_get_type(q->rr);
    q->name = th_dns_name(ldns_rr_owner(q->rr));
    q->edns = ldns_pkt_edns(q->in);
    if (q->edns && !tcp) {
        size_t size = ldns_pkt_edns_udp_size(q->in);
        q->limit = size < UDP_MIN ? UDP_MIN : size > UDP_MAX ? UDP_MAX : size;
    }
    if (q->edns && ldns_pkt_edns_version(q->in) != 0) {
        ldns_pkt *out = th_dns_begin(q);
        ldns_pkt_set_edns_extended_rcode(out, 1); /* BADVERS */
        (void)th_dns_end(q, out, ret);
        th_dns_q_done(q);
        return 0;
    }
    if (!q->name || ldns_rr_get_class(q->rr) != LDNS_RR_CLASS_IN) {
        return refuse(q, q->name ? LDNS_RCODE_REFUSED : LDNS_RCODE_FORMERR, ret);
    }
    if (q->type == LDNS_RR_TYPE_AXFR || q->type == LDNS_RR_TYPE_IXFR) {
        return refuse(q, LDNS_RCODE_REFUSED, ret);
    }
    return 1;
}

void th_dns_q_done(struct th_dns_q *q)
{
    ldns_pkt_free(q->in);
    free(q->name);
    *q = (struct th_dns_q){0};
}

ldns_pkt *th_dns_begin(const struct th_dns_q *q)
{
    ldns_pkt *out = ldns_pkt_new();
    TH_ASSERT(out);
    ldns_pkt_set_id(out, ldns_pkt_id(q->in));
    ldns_pkt_set_qr(out, true);
    ldns_pkt_set_rd(out, ldns_pkt_rd(q->in));
    ldns_pkt_set_cd(out, ldns_pkt_cd(q->in));
    ldns_pkt_set_ra(out, true);
    (void)ldns_pkt_push_rr(out, LDNS_SECTION_QUESTION, ldns_rr_clone(q->rr));
    if (q->edns) {
        ldns_pkt_set_edns_udp_size(out, UDP_MAX);
        ldns_pkt_set_edns_do(out, ldns_pkt_edns_do(q->in));
    }
    return out;
}

static void clear(ldns_pkt *p, ldns_pkt_section sec)
{
    if (sec == LDNS_SECTION_ANSWER) {
        ldns_rr_list_deep_free(ldns_pkt_answer(p));
        ldns_pkt_set_answer(p, ldns_rr_list_new());
    } else if (sec == LDNS_SECTION_AUTHORITY) {
        ldns_rr_list_deep_free(ldns_pkt_authority(p));
        ldns_pkt_set_authority(p, ldns_rr_list_new());
    } else {
        ldns_rr_list_deep_free(ldns_pkt_additional(p));
        ldns_pkt_set_additional(p, ldns_rr_list_new());
    }
    ldns_pkt_set_section_count(p, sec, 0);
}

int th_dns_end(const struct th_dns_q *q, ldns_pkt *out, struct th_buf *ret)
{
    uint8_t *wire = NULL;
    size_t n = 0;
    bool ok = ldns_pkt2wire(&wire, out, &n) == LDNS_STATUS_OK;
    for (int cut = 0; ok && n > q->limit && cut < 2; cut++) {
        clear(out, LDNS_SECTION_ADDITIONAL);
        if (cut == 1) {
            clear(out, LDNS_SECTION_ANSWER);
            clear(out, LDNS_SECTION_AUTHORITY);
            ldns_pkt_set_tc(out, true);
        }
        free(wire);
        wire = NULL;
        ok = ldns_pkt2wire(&wire, out, &n) == LDNS_STATUS_OK;
    }
    if (ok) {
        th_buf_add(ret, wire, n);
    }
    free(wire);
    ldns_pkt_free(out);
    return ok ? 0 : -TH_R_PARSE;
}

void th_dns_fail(const struct th_dns_q *q, ldns_pkt_rcode rcode, int ede, const char *text,
                 struct th_buf *ret)
{
    ldns_pkt *out = th_dns_begin(q);
    ldns_pkt_set_rcode(out, (uint8_t)rcode);
    if (q->edns && text) {
        size_t n = strlen(text) + 2; /* option code, length, then the code and its text */
        th_autobuf struct th_buf b = TH_BUF_INIT;
        const uint8_t head[] = {0, EDNS_EDE, (uint8_t)(n >> 8), (uint8_t)n, 0, (uint8_t)ede};
        th_buf_add(&b, head, sizeof(head));
        th_buf_puts(&b, text);
        ldns_pkt_set_edns_data(out, ldns_rdf_new_frm_data(LDNS_RDF_TYPE_UNKNOWN, b.n, b.p));
    }
    (void)th_dns_end(q, out, ret);
}
