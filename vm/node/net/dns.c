/* The DNS server of the cluster: sockets, and names that are not ours.
 *
 * It listens on the cluster's DNS address, which is put on lo of the node's namespace: pods' packets
 * to it end here and need no Service. Two threads read (UDP; TCP connections are handed on); names
 * of the cluster are answered at once from the newest database (dnsdb.c), everything else goes to
 * the first nameserver of the node's resolv.conf from a small pool with a short time limit. Without
 * one the answer is REFUSED, and SERVFAIL when it is silent, so that nobody waits when offline.
 *
 * The database is replaced under a lock that readers share. What waits for upstream is limited;
 * over that the answer is SERVFAIL. Answers of upstream are handed on unread and not cached. */
#include "base/io.h"
#include "base/log.h"
#include "base/threadpool.h"
#include "vm/node/net/net_priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>

#define PORT 53
#define MSG_MAX 65535
#define UPSTREAM_MS 2000
#define TCP_IDLE_S 5
#define WAITING_MAX 256
#define POOL 8
enum { RCODE_SERVFAIL = 2, RCODE_REFUSED = 5 };

struct th_dns {
    int udp, tcp, stop_fd;
    pthread_t thread;
    struct th_pool *pool;
    atomic_int waiting;
    pthread_rwlock_t lock; /* guards db */
    struct th_dns_db *db;
    struct th_net_opts *o; /* the net's */
    struct sockaddr_in upstream;
    bool has_upstream;
};

struct job {
    struct th_dns *d;
    struct sockaddr_in from;
    int conn; /* TCP, or -1 */
    size_t n;
    uint8_t q[];
};

static void refuse(const uint8_t *q, size_t n, int rcode, struct th_buf *ret)
{
    uint8_t h[12] = {q[0], q[1], (uint8_t)(0x80 | (q[2] & 0x79)), (uint8_t)(0x80 | rcode)};
    /* the question alone is given back: it ends after the name's zero and four bytes */
    size_t end = 12;
    while (end < n && q[end] != 0 && q[end] < 64) {
        end += (size_t)q[end] + 1;
    }
    end += 5;
    bool whole = end <= n && q[end - 5] == 0;
    h[5] = whole ? 1 : 0;
    th_buf_add(ret, h, sizeof(h));
    if (whole) {
        th_buf_add(ret, q + 12, end - 12);
    }
}

static int upstream_udp(struct th_dns *d, const uint8_t *q, size_t n, struct th_buf *ret)
{
    th_autoclose int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&d->upstream, sizeof(d->upstream)) < 0 ||
        send(fd, q, n, MSG_NOSIGNAL) < 0) {
        return -errno;
    }
    struct pollfd p = {.fd = fd, .events = POLLIN};
    th_autofree uint8_t *buf = th_xmalloc(MSG_MAX);
    while (poll(&p, 1, UPSTREAM_MS) > 0) {
        ssize_t got = recv(fd, buf, MSG_MAX, 0);
        if (got < 0) {
            return -errno;
        }
        if (got >= 12 && buf[0] == q[0] && buf[1] == q[1]) {
            th_buf_add(ret, buf, (size_t)got);
            return 0;
        }
    }
    return -ETIMEDOUT;
}

static void forward(struct th_dns *d, const uint8_t *q, size_t n, struct th_buf *ret)
{
    if (!d->has_upstream) {
        refuse(q, n, RCODE_REFUSED, ret);
    } else if (upstream_udp(d, q, n, ret) < 0) {
        refuse(q, n, RCODE_SERVFAIL, ret);
    }
}

static int local(struct th_dns *d, const uint8_t *q, size_t n, bool tcp, struct th_buf *ret)
{
    pthread_rwlock_rdlock(&d->lock);
    int r = th_dns_answer(d->db, q, n, tcp, ret);
    pthread_rwlock_unlock(&d->lock);
    return r;
}

static void udp_job(void *arg)
{
    struct job *j = arg;
    th_autobuf struct th_buf b = TH_BUF_INIT;
    forward(j->d, j->q, j->n, &b);
    (void)sendto(j->d->udp, b.p, b.n, MSG_NOSIGNAL, (struct sockaddr *)&j->from, sizeof(j->from));
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
    th_autofree uint8_t *q = th_xmalloc(MSG_MAX);
    while (read_full(j->conn, len, 2)) {
        size_t n = (size_t)len[0] << 8 | len[1];
        th_autobuf struct th_buf b = TH_BUF_INIT;
        th_buf_add(&b, "\0\0", 2);
        if (n < 12 || !read_full(j->conn, q, n)) {
            break;
        }
        int r = local(j->d, q, n, true, &b);
        if (r == 0) {
            forward(j->d, q, n, &b);
        }
        if (r < 0 || b.n - 2 > MSG_MAX) {
            break;
        }
        b.p[0] = (char)((b.n - 2) >> 8);
        b.p[1] = (char)((b.n - 2) & 255);
        if (th_io_write_all(j->conn, b.p, b.n, NULL) < 0) {
            break;
        }
    }
    (void)close(j->conn);
    atomic_fetch_sub(&j->d->waiting, 1);
    free(j);
}

static void submit(struct th_dns *d, struct job j, const uint8_t *q, void (*fn)(void *))
{
    struct job *copy = th_xmalloc(sizeof(j) + j.n);
    *copy = j;
    if (j.n > 0) {
        memcpy(copy->q, q, j.n);
    }
    atomic_fetch_add(&d->waiting, 1);
    th_pool_submit(d->pool, fn, copy);
}

static void on_udp(struct th_dns *d, uint8_t *buf)
{
    struct job j = {.d = d, .conn = -1};
    socklen_t len = sizeof(j.from);
    ssize_t n = recvfrom(d->udp, buf, MSG_MAX, MSG_DONTWAIT, (struct sockaddr *)&j.from, &len);
    if (n < 12 || (buf[2] & 0x80)) {
        return;
    }
    th_autobuf struct th_buf b = TH_BUF_INIT;
    int r = local(d, buf, (size_t)n, false, &b);
    if (r == 0 && d->has_upstream && atomic_load(&d->waiting) < WAITING_MAX) {
        j.n = (size_t)n;
        submit(d, j, buf, udp_job);
        return;
    }
    if (r == 0) {
        refuse(buf, (size_t)n, d->has_upstream ? RCODE_SERVFAIL : RCODE_REFUSED, &b);
    }
    if (r >= 0) {
        (void)sendto(d->udp, b.p, b.n, MSG_NOSIGNAL, (struct sockaddr *)&j.from, len);
    }
}

static void on_tcp(struct th_dns *d)
{
    struct job j = {.d = d};
    struct timeval tv = {.tv_sec = TCP_IDLE_S};
    j.conn = accept4(d->tcp, NULL, NULL, SOCK_CLOEXEC);
    if (j.conn < 0) {
        return;
    }
    (void)setsockopt(j.conn, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
    (void)setsockopt(j.conn, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
    if (atomic_load(&d->waiting) >= WAITING_MAX) {
        (void)close(j.conn);
        return;
    }
    submit(d, j, NULL, tcp_job);
}

static void *dns_thread(void *arg)
{
    struct th_dns *d = arg;
    th_autofree uint8_t *buf = th_xmalloc(MSG_MAX);
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

static void find_upstream(struct th_dns *d)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_autostrv struct th_strv lines = TH_STRV_INIT;
    if (th_io_read_file("/etc/resolv.conf", 64 << 10, &b, NULL) < 0) {
        return;
    }
    th_strv_split(&lines, th_buf_cstr(&b), '\n');
    for (size_t i = 0; i < lines.n && !d->has_upstream; i++) {
        char ip[64];
        d->upstream = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(PORT)};
        d->has_upstream = sscanf(lines.v[i], "nameserver %63s", ip) == 1 &&
                          !th_streq(ip, d->o->cluster_dns) &&
                          inet_pton(AF_INET, ip, &d->upstream.sin_addr) == 1;
    }
}

void th_dns_update(struct th_dns *d, struct th_json *services, struct th_json *slices)
{
    struct th_dns_db *db = th_dns_db_new(d->o, services, slices);
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
    pthread_rwlock_destroy(&d->lock);
    free(d);
}

int th_dns_start(struct th_net *n, struct th_dns **ret, struct th_err *err)
{
    struct th_dns *d = TH_NEW(struct th_dns);
    d->o = &n->o;
    d->udp = d->tcp = d->stop_fd = -1;
    pthread_rwlock_init(&d->lock, NULL);
    d->db = th_dns_db_new(d->o, NULL, NULL);
    find_upstream(d);
    int r = listen_on(d, err);
    if (r < 0) {
        dns_free(d);
        return r;
    }
    d->pool = th_pool_new("dns", POOL);
    int e = pthread_create(&d->thread, NULL, dns_thread, d);
    if (e != 0) {
        th_pool_free(d->pool);
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
    dns_free(d);
}
