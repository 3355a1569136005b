/* Names outside of the cluster: asked of the node's nameservers, with a small cache.
 *
 * A question goes out anew, with an id and a port of its own, over UDP; an answer that is cut short is
 * asked for again over TCP, so that what is kept is whole whatever the client speaks. Answers count
 * only with the same id and question. Nameservers are those of resolv.conf, in its order, beginning
 * with the one that answered last; one that was silent is not asked again for DOWN_MS unless all
 * are, so that an offline cluster says SERVFAIL at once and not after seconds. One question at a time
 * still tries, so that the way back is noticed.
 *
 * Positive and negative answers are kept for their TTL but at most CACHE_S, and handed out with what
 * is left of it. The cache is bounded by number and size; when full, what is oldest goes. Answers
 * depend on the DO and CD bits, which are part of the key. Answers are handed on without their
 * signatures being checked. */
#include "base/clock.h"
#include "base/io.h"
#include "base/limits.h"
#include "base/rand.h"
#include "vm/node/net/dns_priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/socket.h>

#define PORT 53
#define SERVERS_MAX 3
#define TIMEOUT_MS 2000
#define DOWN_MS 5000
#define CACHE_S 30
#define QUERY_SIZE 1232

struct cached {
    uint8_t *wire;
    size_t n;
    int64_t at_ms, until_ms;
};

struct th_dns_fwd {
    struct sockaddr_in servers[SERVERS_MAX];
    size_t n;
    int timeout_ms;
    pthread_mutex_t mu; /* guards what follows */
    size_t first; /* answered last */
    int64_t down_until[SERVERS_MAX];
    bool probing;
    struct th_hmap cache; /* "name type class flags" -> struct cached */
};

static void cached_free(void *p)
{
    struct cached *c = p;
    free(c->wire);
    free(c);
}

static struct th_dns_fwd *fwd_new(int timeout_ms)
{
    struct th_dns_fwd *f = TH_NEW(struct th_dns_fwd);
    f->timeout_ms = timeout_ms;
    pthread_mutex_init(&f->mu, NULL);
    th_hmap_init(&f->cache, cached_free);
    return f;
}

struct th_dns_fwd *th_dns_fwd_at(const struct sockaddr_in *server, int timeout_ms)
{
    struct th_dns_fwd *f = fwd_new(timeout_ms);
    f->servers[f->n++] = *server;
    return f;
}

struct th_dns_fwd *th_dns_fwd_new(const char *resolv_conf, const char *not)
{
    struct th_dns_fwd *f = fwd_new(TIMEOUT_MS);
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_autostrv struct th_strv lines = TH_STRV_INIT;
    if (th_io_read_file(resolv_conf, TH_LIMIT_RESOLV_CONF_B, &b, NULL) < 0) {
        return f;
    }
    th_strv_split(&lines, th_buf_cstr(&b), '\n');
    for (size_t i = 0; i < lines.n && f->n < SERVERS_MAX; i++) {
        char ip[64];
        struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(PORT)};
        if (sscanf(lines.v[i], "nameserver %63s", ip) == 1 && !th_streq(ip, not) &&
            inet_pton(AF_INET, ip, &at.sin_addr) == 1) {
            f->servers[f->n++] = at;
        }
    }
    return f;
}

void th_dns_fwd_free(struct th_dns_fwd *f)
{
    if (f) {
        th_hmap_done(&f->cache);
        pthread_mutex_destroy(&f->mu);
        free(f);
    }
}

bool th_dns_fwd_any(const struct th_dns_fwd *f)
{
    return f->n > 0;
}

/* ---- the cache ---- */

static char *key_of(const struct th_dns_q *q, const char *name)
{
    return th_xasprintf("%s %d %d%d", name, (int)q->type, q->edns && ldns_pkt_edns_do(q->in),
                        ldns_pkt_cd(q->in));
}

static void lower_ttl(ldns_rr_list *l, uint32_t age)
{
    for (size_t i = 0; i < ldns_rr_list_rr_count(l); i++) {
        ldns_rr *rr = ldns_rr_list_rr(l, i);
        uint32_t ttl = ldns_rr_ttl(rr);
        ldns_rr_set_ttl(rr, ttl > age ? ttl - age : 0);
    }
}

static ldns_pkt *from_cache(struct th_dns_fwd *f, const char *key)
{
    int64_t now = th_mono_ms();
    ldns_pkt *p = NULL;
    pthread_mutex_lock(&f->mu);
    const struct cached *c = th_hmap_get(&f->cache, key);
    int64_t age = c ? now - c->at_ms : 0;
    if (c && now < c->until_ms && ldns_wire2pkt(&p, c->wire, c->n) != LDNS_STATUS_OK) {
        p = NULL;
    }
    pthread_mutex_unlock(&f->mu);
    if (p) {
        lower_ttl(ldns_pkt_answer(p), (uint32_t)(age / 1000));
        lower_ttl(ldns_pkt_authority(p), (uint32_t)(age / 1000));
        lower_ttl(ldns_pkt_additional(p), (uint32_t)(age / 1000));
    }
    return p;
}

/* Seconds that an answer may be kept. */
static uint32_t keep_s(const ldns_pkt *p)
{
    uint32_t s = CACHE_S;
    const ldns_rr_list *l = ldns_pkt_answer(p);
    bool negative = ldns_pkt_get_rcode(p) == LDNS_RCODE_NXDOMAIN || ldns_rr_list_rr_count(l) == 0;
    if (ldns_pkt_tc(p) || (ldns_pkt_get_rcode(p) != LDNS_RCODE_NOERROR &&
                           ldns_pkt_get_rcode(p) != LDNS_RCODE_NXDOMAIN)) {
        return 0;
    }
    for (size_t i = 0; i < ldns_rr_list_rr_count(l); i++) {
        uint32_t ttl = ldns_rr_ttl(ldns_rr_list_rr(l, i));
        s = ttl < s ? ttl : s;
    }
    l = ldns_pkt_authority(p);
    bool soa = false;
    for (size_t i = 0; negative && i < ldns_rr_list_rr_count(l); i++) {
        const ldns_rr *rr = ldns_rr_list_rr(l, i);
        if (ldns_rr_get_type(rr) == LDNS_RR_TYPE_SOA && ldns_rr_rd_count(rr) == 7) {
            uint32_t minimum = ldns_rdf2native_int32(ldns_rr_rdf(rr, 6)), ttl = ldns_rr_ttl(rr);
            minimum = ttl < minimum ? ttl : minimum;
            s = minimum < s ? minimum : s;
            soa = true;
        }
    }
    return negative && !soa ? 0 : s;
}

/* Under the lock: drops what has run out, and the oldest when that was not enough. */
static void make_room(struct th_dns_fwd *f, int64_t now)
{
    th_autostrv struct th_strv gone = TH_STRV_INIT;
    const char *oldest = NULL;
    int64_t oldest_at = INT64_MAX;
    struct th_hmap_entry *e;
    for (size_t it = 0; (e = th_hmap_next(&f->cache, &it));) {
        const struct cached *c = e->value;
        if (c->until_ms <= now) {
            th_strv_add(&gone, e->key);
        } else if (c->at_ms < oldest_at) {
            oldest = e->key;
            oldest_at = c->at_ms;
        }
    }
    if (gone.n == 0 && oldest) {
        th_strv_add(&gone, oldest);
    }
    for (size_t i = 0; i < gone.n; i++) {
        cached_free(th_hmap_remove(&f->cache, gone.v[i]));
    }
}

static void into_cache(struct th_dns_fwd *f, const char *key, const ldns_pkt *p)
{
    uint32_t s = keep_s(p);
    uint8_t *wire = NULL;
    size_t n = 0;
    if (s == 0 || ldns_pkt2wire(&wire, p, &n) != LDNS_STATUS_OK || n > TH_LIMIT_DNS_CACHED_B) {
        free(wire);
        return;
    }
    struct cached *c = TH_NEW(struct cached);
    int64_t now = th_mono_ms();
    *c = (struct cached){.wire = wire, .n = n, .at_ms = now, .until_ms = now + (int64_t)s * 1000};
    pthread_mutex_lock(&f->mu);
    if (f->cache.n >= TH_LIMIT_DNS_CACHE && !th_hmap_has(&f->cache, key)) {
        make_room(f, now);
    }
    th_hmap_set(&f->cache, key, c);
    pthread_mutex_unlock(&f->mu);
}

/* ---- asking ---- */

static bool same_question(const ldns_pkt *a, const ldns_pkt *b)
{
    const ldns_rr_list *x = ldns_pkt_question(a), *y = ldns_pkt_question(b);
    return ldns_pkt_qr(b) && ldns_pkt_id(a) == ldns_pkt_id(b) && ldns_rr_list_rr_count(x) == 1 &&
           ldns_rr_list_rr_count(y) == 1 &&
           ldns_rr_compare(ldns_rr_list_rr(x, 0), ldns_rr_list_rr(y, 0)) == 0;
}

/* Waits for the descriptor; false when the time is over. */
static bool ready(int fd, short events, int64_t deadline)
{
    for (;;) {
        int64_t left = deadline - th_mono_ms();
        struct pollfd p = {.fd = fd, .events = events};
        int r = left > 0 ? poll(&p, 1, (int)left) : 0;
        if (r >= 0 || errno != EINTR) {
            return r > 0;
        }
    }
}

static int open_to(const struct sockaddr_in *server, int type, int64_t deadline)
{
    th_autoclose int fd = socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int e = 0;
    socklen_t len = sizeof(e);
    if (fd < 0) {
        return -1;
    }
    if (connect(fd, (const struct sockaddr *)server, sizeof(*server)) < 0 &&
        (errno != EINPROGRESS || !ready(fd, POLLOUT, deadline) ||
         getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &len) < 0 || e != 0)) {
        return -1;
    }
    return th_steal_fd(&fd);
}

static ldns_pkt *ask_udp(const struct sockaddr_in *server, const ldns_pkt *query, const uint8_t *wire,
                         size_t n, int64_t deadline)
{
    th_autoclose int fd = open_to(server, SOCK_DGRAM, deadline);
    if (fd < 0 || send(fd, wire, n, MSG_NOSIGNAL) < 0) {
        return NULL;
    }
    th_autofree uint8_t *buf = th_xmalloc(TH_LIMIT_DNS_MESSAGE_B);
    while (ready(fd, POLLIN, deadline)) {
        ssize_t got = recv(fd, buf, TH_LIMIT_DNS_MESSAGE_B, 0);
        ldns_pkt *p = NULL;
        if (got < 0 && errno != EAGAIN && errno != EINTR) {
            return NULL; /* nobody listens there */
        }
        if (got > 0 && ldns_wire2pkt(&p, buf, (size_t)got) == LDNS_STATUS_OK) {
            if (same_question(query, p)) {
                return p;
            }
            ldns_pkt_free(p);
        }
    }
    return NULL;
}

static bool read_full(int fd, uint8_t *p, size_t n, int64_t deadline)
{
    while (n > 0) {
        ssize_t got = ready(fd, POLLIN, deadline) ? recv(fd, p, n, 0) : 0;
        if (got <= 0) {
            return false;
        }
        p += got;
        n -= (size_t)got;
    }
    return true;
}

static ldns_pkt *ask_tcp(const struct sockaddr_in *server, const ldns_pkt *query, const uint8_t *wire,
                         size_t n, int64_t deadline)
{
    th_autoclose int fd = open_to(server, SOCK_STREAM, deadline);
    th_autobuf struct th_buf b = TH_BUF_INIT;
    uint8_t len[2] = {(uint8_t)(n >> 8), (uint8_t)n};
    th_buf_add(&b, len, 2);
    th_buf_add(&b, wire, n);
    if (fd < 0 || send(fd, b.p, b.n, MSG_NOSIGNAL) != (ssize_t)b.n || !read_full(fd, len, 2, deadline)) {
        return NULL;
    }
    size_t want = (size_t)len[0] << 8 | len[1];
    th_autofree uint8_t *buf = th_xmalloc(want + 1);
    ldns_pkt *p = NULL;
    if (!read_full(fd, buf, want, deadline) || ldns_wire2pkt(&p, buf, want) != LDNS_STATUS_OK) {
        return NULL;
    }
    if (!same_question(query, p)) {
        ldns_pkt_free(p);
        p = NULL;
    }
    return p;
}

/* Which server is next after `tried`; -1 when the rest is known to be silent. */
static int choose(struct th_dns_fwd *f, const bool *tried, bool *ret_probe)
{
    int64_t now = th_mono_ms();
    int at = -1;
    *ret_probe = false;
    pthread_mutex_lock(&f->mu);
    for (size_t i = 0; i < f->n && at < 0; i++) {
        size_t k = (f->first + i) % f->n;
        at = !tried[k] && f->down_until[k] <= now ? (int)k : -1;
    }
    if (at < 0 && !f->probing && f->n > 0 && !tried[f->first]) {
        at = (int)f->first;
        f->probing = *ret_probe = true;
    }
    pthread_mutex_unlock(&f->mu);
    return at;
}

static void note(struct th_dns_fwd *f, int server, bool answered, bool probe)
{
    pthread_mutex_lock(&f->mu);
    f->down_until[server] = answered ? 0 : th_mono_ms() + DOWN_MS;
    f->first = answered ? (size_t)server : ((size_t)server + 1) % f->n;
    f->probing = probe ? false : f->probing;
    pthread_mutex_unlock(&f->mu);
}

static ldns_pkt *ask_servers(struct th_dns_fwd *f, const ldns_pkt *query)
{
    bool tried[SERVERS_MAX] = {false}, probe;
    uint8_t *wire = NULL;
    size_t n = 0;
    ldns_pkt *p = NULL;
    if (ldns_pkt2wire(&wire, query, &n) != LDNS_STATUS_OK) {
        return NULL;
    }
    for (int at; !p && (at = choose(f, tried, &probe)) >= 0;) {
        int64_t deadline = th_mono_ms() + f->timeout_ms;
        tried[at] = true;
        p = ask_udp(&f->servers[at], query, wire, n, deadline);
        if (p && ldns_pkt_tc(p)) {
            ldns_pkt *whole = ask_tcp(&f->servers[at], query, wire, n, th_mono_ms() + f->timeout_ms);
            if (whole) {
                ldns_pkt_free(p);
                p = whole;
            }
        }
        note(f, at, p != NULL, probe);
    }
    free(wire);
    return p;
}

static ldns_pkt *query_for(const struct th_dns_q *q, const char *name)
{
    ldns_rdf *owner = ldns_dname_new_frm_str(name);
    ldns_pkt *p = owner ? ldns_pkt_query_new(owner, q->type, LDNS_RR_CLASS_IN, LDNS_RD) : NULL;
    if (!p) {
        ldns_rdf_deep_free(owner);
        return NULL;
    }
    uint16_t id;
    th_rand_bytes(&id, sizeof(id));
    ldns_pkt_set_id(p, id);
    ldns_pkt_set_cd(p, ldns_pkt_cd(q->in));
    ldns_pkt_set_edns_udp_size(p, QUERY_SIZE);
    ldns_pkt_set_edns_do(p, q->edns && ldns_pkt_edns_do(q->in));
    return p;
}

static void move_all(ldns_pkt *to, ldns_pkt_section sec, ldns_rr_list *l)
{
    for (ldns_rr *rr; (rr = ldns_rr_list_pop_rr(l));) {
        (void)ldns_pkt_push_rr(to, sec, rr);
    }
}

static void reverse(ldns_rr_list *l)
{
    size_t n = ldns_rr_list_rr_count(l);
    for (size_t i = 0; i < n / 2; i++) {
        ldns_rr *a = ldns_rr_list_rr(l, i);
        (void)ldns_rr_list_set_rr(l, ldns_rr_list_rr(l, n - 1 - i), i);
        (void)ldns_rr_list_set_rr(l, a, n - 1 - i);
    }
}

/* The server's answer as the client's: its id and question, our EDNS. Takes p. */
static ldns_pkt *as_answer(const struct th_dns_q *q, ldns_pkt *p)
{
    ldns_pkt *out = p ? th_dns_begin(q) : NULL;
    if (!out) {
        return NULL;
    }
    ldns_pkt_set_rcode(out, (uint8_t)ldns_pkt_get_rcode(p));
    ldns_pkt_set_ad(out, ldns_pkt_ad(p));
    ldns_pkt_set_tc(out, ldns_pkt_tc(p));
    ldns_rr_list *lists[] = {ldns_pkt_answer(p), ldns_pkt_authority(p), ldns_pkt_additional(p)};
    static const ldns_pkt_section secs[] = {LDNS_SECTION_ANSWER, LDNS_SECTION_AUTHORITY,
                                            LDNS_SECTION_ADDITIONAL};
    for (size_t i = 0; i < TH_ARRAY_LEN(lists); i++) {
        reverse(lists[i]); /* the end is popped first */
        move_all(out, secs[i], lists[i]);
    }
    ldns_pkt_free(p);
    return out;
}

ldns_pkt *th_dns_fwd_cached(struct th_dns_fwd *f, const struct th_dns_q *q)
{
    th_autofree char *key = key_of(q, q->name);
    return as_answer(q, from_cache(f, key));
}

ldns_pkt *th_dns_fwd_ask_name(struct th_dns_fwd *f, const struct th_dns_q *q, const char *name)
{
    th_autofree char *key = key_of(q, name);
    ldns_pkt *p = from_cache(f, key);
    if (!p) {
        ldns_pkt *query = query_for(q, name);
        p = query ? ask_servers(f, query) : NULL;
        ldns_pkt_free(query);
        if (p) {
            into_cache(f, key, p);
        }
    }
    return as_answer(q, p);
}

ldns_pkt *th_dns_fwd_ask(struct th_dns_fwd *f, const struct th_dns_q *q)
{
    return th_dns_fwd_ask_name(f, q, q->name);
}
