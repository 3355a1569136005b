/* The DNS server of the cluster: sockets and threads.
 *
 * It listens on the cluster's DNS address, which is put on lo of the node's namespace: pods' packets
 * to it end here and need no Service. One thread reads UDP and accepts TCP; names of the cluster are
 * answered at once from the newest records (dnsdb.c), as is what is in the cache (dnsfwd.c). What has
 * to be asked of others goes to a small pool, TCP connections to another, so that neither keeps the
 * cluster's own names waiting. What waits is limited; over that, and without a nameserver that
 * answers, it is SERVFAIL with an explanation, at once: nobody waits when offline.
 *
 * An answer that ends with a CNAME outside of the cluster (a Service of type ExternalName) needs the
 * records behind it, for resolvers in C libraries follow nothing by themselves; if they cannot be
 * had, the CNAME alone is the answer.
 *
 * The records are replaced under a lock that readers share. Upstream runs CoreDNS in pods. */
#include "base/io.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/threadpool.h"
#include "vm/node/net/dns_priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>

#define PORT 53
#define TCP_IDLE_S 5
#define POOL 8
#define RESOLV_CONF "/etc/resolv.conf"

struct th_dns {
    int udp, tcp, stop_fd;
    pthread_t thread;
    struct th_pool *pool, *tcp_pool;
    atomic_int waiting, connections;
    pthread_rwlock_t lock; /* guards db */
    struct th_dns_db *db;
    struct th_dns_fwd *fwd;
    const struct th_net_opts *o; /* the net's */
};

struct job {
    struct th_dns *d;
    struct sockaddr_in from;
    int conn; /* TCP, or -1 */
    size_t n;
    uint8_t q[];
};

static ldns_pkt *of_cluster(struct th_dns *d, const struct th_dns_q *q, char **ret_chase)
{
    pthread_rwlock_rdlock(&d->lock);
    ldns_pkt *p = th_dns_db_answer(d->db, q, ret_chase);
    pthread_rwlock_unlock(&d->lock);
    return p;
}

static void fail(struct th_dns *d, const struct th_dns_q *q, struct th_buf *ret)
{
    if (!th_dns_fwd_any(d->fwd)) {
        th_dns_fail(q, LDNS_RCODE_SERVFAIL, TH_EDE_NO_AUTHORITY,
                    "not a name of the cluster, and the node has no nameserver", ret);
    } else {
        th_dns_fail(q, LDNS_RCODE_SERVFAIL, TH_EDE_NETWORK,
                    "not a name of the cluster, and the node's nameservers do not answer", ret);
    }
}

/* Adds what is behind a CNAME to an answer that ends with it. */
static void chase(struct th_dns *d, const struct th_dns_q *q, const char *name, ldns_pkt *p)
{
    ldns_pkt *more = th_dns_fwd_ask_name(d->fwd, q, name);
    if (!more) {
        return;
    }
    ldns_rr_list *l = ldns_rr_list_clone(ldns_pkt_answer(more));
    for (size_t i = 0; i < ldns_rr_list_rr_count(l); i++) {
        (void)ldns_pkt_push_rr(p, LDNS_SECTION_ANSWER, ldns_rr_list_rr(l, i));
    }
    ldns_rr_list_free(l);
    ldns_pkt_set_rcode(p, (uint8_t)ldns_pkt_get_rcode(more));
    ldns_pkt_free(more);
}

/* Answers, asking others if need be. Negative: no answer. */
static int answer(struct th_dns *d, const uint8_t *wire, size_t n, bool tcp, struct th_buf *ret)
{
    struct th_dns_q q;
    th_autofree char *name = NULL;
    int r = th_dns_q_parse(wire, n, tcp, &q, ret);
    if (r <= 0) {
        return r;
    }
    ldns_pkt *p = of_cluster(d, &q, &name);
    if (p && name) {
        chase(d, &q, name, p);
    }
    p = p ? p : th_dns_fwd_ask(d->fwd, &q);
    if (p) {
        r = th_dns_end(&q, p, ret);
    } else {
        fail(d, &q, ret);
    }
    th_dns_q_done(&q);
    return r;
}

/* 1: answered without waiting for anybody; 0: others have to be asked; negative: no answer. */
static int answer_now(struct th_dns *d, const uint8_t *wire, size_t n, struct th_buf *ret)
{
    struct th_dns_q q;
    th_autofree char *name = NULL;
    int r = th_dns_q_parse(wire, n, false, &q, ret);
    if (r <= 0) {
        return r < 0 ? r : 1;
    }
    ldns_pkt *p = of_cluster(d, &q, &name);
    bool busy = atomic_load(&d->waiting) >= TH_LIMIT_DNS_WAITING;
    if (p && name && !busy && th_dns_fwd_any(d->fwd)) {
        ldns_pkt_free(p);
        p = NULL;
    } else if (!p) {
        p = th_dns_fwd_cached(d->fwd, &q);
        if (!p && (busy || !th_dns_fwd_any(d->fwd))) {
            fail(d, &q, ret);
            th_dns_q_done(&q);
            return 1;
        }
    }
    if (p) {
        r = th_dns_end(&q, p, ret) < 0 ? -TH_R_PARSE : 1;
    } else {
        r = 0;
    }
    th_dns_q_done(&q);
    return r;
}

static void udp_job(void *arg)
{
    struct job *j = arg;
    th_autobuf struct th_buf b = TH_BUF_INIT;
    if (answer(j->d, j->q, j->n, false, &b) >= 0) {
        (void)sendto(j->d->udp, b.p, b.n, MSG_NOSIGNAL, (struct sockaddr *)&j->from, sizeof(j->from));
    }
    atomic_fetch_sub(&j->d->waiting, 1);
    free(j);
}

static bool read_full(int fd, uint8_t *p, size_t n)
{
    while (n > 0) {
        ssize_t got = recv(fd, p, n, 0);
        if (got <= 0) {
            return false;
        }
        p += got;
        n -= (size_t)got;
    }
    return true;
}

static void tcp_job(void *arg)
{
    struct job *j = arg;
    uint8_t len[2];
    th_autofree uint8_t *q = th_xmalloc(TH_LIMIT_DNS_MESSAGE_B);
    while (read_full(j->conn, len, 2)) {
        size_t n = (size_t)len[0] << 8 | len[1];
        th_autobuf struct th_buf b = TH_BUF_INIT;
        th_buf_add(&b, "\0\0", 2);
        if (n < LDNS_HEADER_SIZE || !read_full(j->conn, q, n) || answer(j->d, q, n, true, &b) < 0) {
            break;
        }
        b.p[0] = (char)((b.n - 2) >> 8);
        b.p[1] = (char)((b.n - 2) & 255);
        if (th_io_write_all(j->conn, b.p, b.n, NULL) < 0) {
            break;
        }
    }
    (void)close(j->conn);
    atomic_fetch_sub(&j->d->connections, 1);
    free(j);
}

static struct job *job_new(struct th_dns *d, int conn, const uint8_t *q, size_t n)
{
    struct job *j = th_xcalloc(1, sizeof(*j) + n);
    j->d = d;
    j->conn = conn;
    j->n = n;
    if (n > 0) {
        memcpy(j->q, q, n);
    }
    return j;
}

static void on_udp(struct th_dns *d, uint8_t *buf)
{
    struct sockaddr_in from;
    socklen_t len = sizeof(from);
    ssize_t n = recvfrom(d->udp, buf, TH_LIMIT_DNS_MESSAGE_B, MSG_DONTWAIT, (struct sockaddr *)&from, &len);
    th_autobuf struct th_buf b = TH_BUF_INIT;
    int r = n < 0 ? -1 : answer_now(d, buf, (size_t)n, &b);
    if (r == 0) {
        struct job *j = job_new(d, -1, buf, (size_t)n);
        j->from = from;
        atomic_fetch_add(&d->waiting, 1);
        th_pool_submit(d->pool, udp_job, j);
    } else if (r > 0) {
        (void)sendto(d->udp, b.p, b.n, MSG_NOSIGNAL, (struct sockaddr *)&from, len);
    }
}

static void on_tcp(struct th_dns *d)
{
    struct timeval tv = {.tv_sec = TCP_IDLE_S};
    int conn = accept4(d->tcp, NULL, NULL, SOCK_CLOEXEC);
    if (conn < 0) {
        return;
    }
    (void)setsockopt(conn, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
    (void)setsockopt(conn, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
    if (atomic_load(&d->connections) >= TH_LIMIT_DNS_WAITING) {
        (void)close(conn);
        return;
    }
    atomic_fetch_add(&d->connections, 1);
    th_pool_submit(d->tcp_pool, tcp_job, job_new(d, conn, NULL, 0));
}

static void *dns_thread(void *arg)
{
    struct th_dns *d = arg;
    th_autofree uint8_t *buf = th_xmalloc(TH_LIMIT_DNS_MESSAGE_B);
    struct pollfd p[] = {{.fd = d->udp, .events = POLLIN},
                         {.fd = d->tcp, .events = POLLIN},
                         {.fd = d->stop_fd, .events = POLLIN}};
    for (;;) {
        if (poll(p, TH_ARRAY_LEN(p), -1) < 0 && errno != EINTR) {
            return NULL;
        }
        if (p[2].revents) {
            return NULL;
        }
        if (p[0].revents) {
            on_udp(d, buf);
        }
        if (p[1].revents) {
            on_tcp(d);
        }
    }
}

void th_dns_update(struct th_dns *d, const struct th_net_state *st)
{
    struct th_dns_db *db = th_dns_db_new(d->o, st);
    pthread_rwlock_wrlock(&d->lock);
    struct th_dns_db *old = d->db;
    d->db = db;
    pthread_rwlock_unlock(&d->lock);
    th_dns_db_free(old);
}

static int listen_on(struct th_dns *d, struct th_err *err)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    if (inet_pton(AF_INET, d->o->cluster_dns, &at.sin_addr) != 1) {
        return th_fail(err, TH_R_INVALID, "\"%s\" is no IPv4 address", d->o->cluster_dns);
    }
    TH_TRY(th_link_lo_addr(d->o->cluster_dns, err));
    int one = 1;
    d->udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    d->tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    d->stop_fd = eventfd(0, EFD_CLOEXEC);
    if (d->udp < 0 || d->tcp < 0 || d->stop_fd < 0 ||
        setsockopt(d->tcp, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
        bind(d->udp, (struct sockaddr *)&at, sizeof(at)) < 0 ||
        bind(d->tcp, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(d->tcp, 64) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "listening on %s:%d", d->o->cluster_dns, PORT);
    }
    return 0;
}

static void dns_free(struct th_dns *d)
{
    int fds[] = {d->udp, d->tcp, d->stop_fd};
    for (size_t i = 0; i < TH_ARRAY_LEN(fds); i++) {
        if (fds[i] >= 0) {
            (void)close(fds[i]);
        }
    }
    th_dns_db_free(d->db);
    th_dns_fwd_free(d->fwd);
    pthread_rwlock_destroy(&d->lock);
    free(d);
}

int th_dns_start(struct th_net *n, struct th_dns **ret, struct th_err *err)
{
    struct th_dns *d = TH_NEW(struct th_dns);
    d->o = &n->o;
    d->udp = d->tcp = d->stop_fd = -1;
    pthread_rwlock_init(&d->lock, NULL);
    d->db = th_dns_db_new(d->o, NULL);
    d->fwd = th_dns_fwd_new(RESOLV_CONF, d->o->cluster_dns);
    int r = listen_on(d, err);
    if (r < 0) {
        dns_free(d);
        return r;
    }
    d->pool = th_pool_new("dns", POOL);
    d->tcp_pool = th_pool_new("dns-tcp", POOL);
    int e = pthread_create(&d->thread, NULL, dns_thread, d);
    if (e != 0) {
        th_pool_free(d->pool);
        th_pool_free(d->tcp_pool);
        dns_free(d);
        return th_fail_errno(err, e, TH_R_INTERNAL, "starting a thread");
    }
    *ret = d;
    return 0;
}

void th_dns_stop(struct th_dns *d)
{
    if (!d) {
        return;
    }
    uint64_t one = 1;
    (void)!write(d->stop_fd, &one, sizeof(one));
    pthread_join(d->thread, NULL);
    th_pool_free(d->pool);
    th_pool_free(d->tcp_pool);
    dns_free(d);
}
