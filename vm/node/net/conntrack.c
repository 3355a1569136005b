/* Flows of UDP that go where they should not go any more.
 *
 * NAT is decided by a connection's first packet and conntrack repeats it. A TCP connection to a pod
 * that is gone is reset and the client connects anew; UDP has no end, and a client that keeps its
 * port (a resolver, a game, a metrics sender) would send to the dead address for as long as it sends.
 * So after UDP Services or their endpoints have changed, all flows that were translated are compared
 * with where their Service leads now, and those that differ are forgotten: the next packet chooses
 * again. Upstream's proxy does the same.
 *
 * Over ctnetlink, by hand: one dump and a few deletions need no library. What the dump says is the
 * kernel's and trusted for its form; lengths are checked by the NLMSG and NLA macros all the same. */
#include "base/hmap.h"
#include "base/log.h"
#include "vm/node/net/net_priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <sys/socket.h>

#define DUMP_B (64u << 10)
#define TUPLE_MAX 256

struct tuple {
    struct in_addr src, dst;
    uint8_t proto;
    uint16_t sport, dport; /* host order */
};

struct flow {
    struct tuple orig, reply;
    uint32_t status;
    struct nlattr *orig_attr; /* as the kernel names it */
};

typedef void attr_fn(void *arg, int type, struct nlattr *a);

static void *attr_data(struct nlattr *a)
{
    return (char *)a + NLA_HDRLEN;
}

static void each_attr(void *p, size_t n, attr_fn *fn, void *arg)
{
    struct nlattr *a = p;
    while (n >= sizeof(*a) && a->nla_len >= sizeof(*a) && a->nla_len <= n) {
        fn(arg, a->nla_type & NLA_TYPE_MASK, a);
        size_t step = NLA_ALIGN(a->nla_len);
        if (step >= n) {
            return;
        }
        n -= step;
        a = (struct nlattr *)(void *)((char *)a + step);
    }
}

static void each_inside(struct nlattr *a, attr_fn *fn, void *arg)
{
    each_attr(attr_data(a), a->nla_len - NLA_HDRLEN, fn, arg);
}

static void take(const struct nlattr *a, void *to, size_t n)
{
    if (a->nla_len >= NLA_HDRLEN + n) {
        memcpy(to, (const char *)a + NLA_HDRLEN, n);
    }
}

static void on_ip(void *arg, int type, struct nlattr *a)
{
    struct tuple *t = arg;
    if (type == CTA_IP_V4_SRC || type == CTA_IP_V4_DST) {
        take(a, type == CTA_IP_V4_SRC ? &t->src : &t->dst, sizeof(t->src));
    }
}

static void on_proto(void *arg, int type, struct nlattr *a)
{
    struct tuple *t = arg;
    uint16_t port = 0;
    if (type == CTA_PROTO_NUM) {
        take(a, &t->proto, 1);
    } else if (type == CTA_PROTO_SRC_PORT || type == CTA_PROTO_DST_PORT) {
        take(a, &port, sizeof(port));
        *(type == CTA_PROTO_SRC_PORT ? &t->sport : &t->dport) = ntohs(port);
    }
}

static void on_tuple(void *arg, int type, struct nlattr *a)
{
    if (type == CTA_TUPLE_IP) {
        each_inside(a, on_ip, arg);
    } else if (type == CTA_TUPLE_PROTO) {
        each_inside(a, on_proto, arg);
    }
}

static void on_flow(void *arg, int type, struct nlattr *a)
{
    struct flow *f = arg;
    if (type == CTA_TUPLE_ORIG) {
        f->orig_attr = a;
        each_inside(a, on_tuple, &f->orig);
    } else if (type == CTA_TUPLE_REPLY) {
        each_inside(a, on_tuple, &f->reply);
    } else if (type == CTA_STATUS) {
        take(a, &f->status, sizeof(f->status));
        f->status = ntohl(f->status);
    }
}

/* ---- which flows are stale ---- */

bool th_udp_stale(const struct th_hmap *ways, const char *dst, int dport, const char *to, int to_port)
{
    th_autofree char *addr = th_xasprintf("%s %d", dst, dport);
    th_autofree char *any = th_xasprintf("* %d", dport);
    th_autofree char *end = th_xasprintf("%s %d", to, to_port);
    const struct th_strv *ends = th_hmap_get(ways, addr);
    ends = ends ? ends : th_hmap_get(ways, any);
    return !ends || !th_strv_has(ends, end);
}

static bool is_stale(const struct th_hmap *ways, const struct flow *f)
{
    char dst[INET_ADDRSTRLEN], to[INET_ADDRSTRLEN];
    if (f->orig.proto != IPPROTO_UDP || !(f->status & IPS_DST_NAT) || !f->orig_attr) {
        return false;
    }
    (void)inet_ntop(AF_INET, &f->orig.dst, dst, sizeof(dst));
    (void)inet_ntop(AF_INET, &f->reply.src, to, sizeof(to));
    return th_udp_stale(ways, dst, f->orig.dport, to, f->reply.sport);
}

/* ---- netlink ---- */

struct request {
    struct nlmsghdr h;
    struct nfgenmsg g;
    char tuple[TUPLE_MAX];
};

static bool ask(int fd, int type, int flags, const struct nlattr *tuple, size_t tuple_n)
{
    struct request r = {.g = {.nfgen_family = AF_INET, .version = NFNETLINK_V0}};
    if (tuple_n > sizeof(r.tuple)) {
        return false;
    }
    r.h.nlmsg_type = (uint16_t)(NFNL_SUBSYS_CTNETLINK << 8 | type);
    r.h.nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
    r.h.nlmsg_len = (uint32_t)(NLMSG_LENGTH(sizeof(r.g)) + tuple_n);
    if (tuple_n > 0) {
        memcpy(r.tuple, tuple, tuple_n);
    }
    struct sockaddr_nl to = {.nl_family = AF_NETLINK};
    return sendto(fd, &r, r.h.nlmsg_len, 0, (struct sockaddr *)&to, sizeof(to)) >= 0;
}

/* Looks at one answer; false when the dump has ended. Tuples of stale flows are kept one after the
 * other in ret: deleting while the dump runs would disturb it. */
static bool look(struct nlmsghdr *h, const struct th_hmap *ways, struct th_buf *ret, int *error)
{
    if (h->nlmsg_type == NLMSG_DONE) {
        return false;
    }
    if (h->nlmsg_type == NLMSG_ERROR) {
        *error = -((struct nlmsgerr *)NLMSG_DATA(h))->error;
        return false;
    }
    size_t skip = NLMSG_ALIGN(sizeof(struct nfgenmsg));
    struct flow f = {0};
    if (h->nlmsg_len >= NLMSG_LENGTH(skip)) {
        each_attr((char *)NLMSG_DATA(h) + skip, h->nlmsg_len - NLMSG_LENGTH(skip), on_flow, &f);
    }
    if (is_stale(ways, &f)) {
        static const char zeros[NLA_ALIGNTO];
        th_buf_add(ret, f.orig_attr, f.orig_attr->nla_len);
        th_buf_add(ret, zeros, (size_t)(NLA_ALIGN(f.orig_attr->nla_len) - f.orig_attr->nla_len));
    }
    return true;
}

static int find(int fd, const struct th_hmap *ways, struct th_buf *ret)
{
    int error = 0;
    th_autofree char *buf = th_xmalloc(DUMP_B);
    if (!ask(fd, IPCTNL_MSG_CT_GET, NLM_F_DUMP, NULL, 0)) {
        return errno;
    }
    for (;;) {
        ssize_t got = recv(fd, buf, DUMP_B, 0);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return got < 0 ? errno : EPIPE;
        }
        unsigned n = (unsigned)got;
        for (struct nlmsghdr *h = (struct nlmsghdr *)(void *)buf; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
            if (!look(h, ways, ret, &error)) {
                return error;
            }
        }
    }
}

static void drop(void *arg, int type, struct nlattr *a)
{
    (void)type;
    char answer[1024];
    int fd = *(int *)arg;
    if (ask(fd, IPCTNL_MSG_CT_DELETE, NLM_F_ACK, a, NLA_ALIGN(a->nla_len))) {
        (void)!recv(fd, answer, sizeof(answer), 0); /* a flow that has ended by itself is as good */
    }
}

void th_conntrack_forget(const struct th_hmap *ways)
{
    th_autoclose int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
    th_autobuf struct th_buf stale = TH_BUF_INIT;
    int e = fd < 0 ? errno : find(fd, ways, &stale);
    if (e != 0) {
        th_warn("net", "flows of UDP not looked at", "errno=%d", e);
    } else if (stale.n > 0) {
        th_debug("net", "stale flows of UDP forgotten", "bytes=%zu", stale.n);
        each_attr(stale.p, stale.n, drop, &fd);
    }
}
