/* Pods' links and addresses, over rtnetlink.
 *
 * Every pod has a veth pair: `eth0` in its network namespace with <ip>/32, and `th<hash>` on the
 * node with a /32 route to it. The pod's default route is 169.254.1.1, an address nobody has: a
 * permanent neighbour entry names the node end's hardware address, so no answer to ARP is needed
 * for it (proxy ARP is on as well, for pods that ask). Nothing is bridged; every packet is routed
 * and so passes the node's netfilter, where Services live.
 *
 * Addresses come from the node's CIDR, one per pod UID, and are written to addresses.json before a
 * link is made: a pod keeps its address when its sandbox is made again, and no restart gives one
 * address to two pods. The next free one after the last given is taken, so that an address rests as
 * long as possible before it is used again. The first (network), second (the node's own use) and
 * last (broadcast) addresses are not given.
 *
 * Netlink sockets belong to the namespace they were opened in; the one for the pod's side is opened
 * by a thread that enters the namespace and ends. IPv4 only. Upstream leaves all of this to CNI
 * plug-ins. */
#include "vm/node/net/net_priv.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "base/rand.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define GATEWAY "169.254.1.1"
static const unsigned char HOST_MAC[6] = {0xee, 0xee, 0xee, 0xee, 0xee, 0xee};

/* ---- netlink requests ---- */

struct nlreq {
    union {
        struct nlmsghdr h;
        char bytes[1024];
    };
};

static void *nl_begin(struct nlreq *r, int type, int flags, size_t body)
{
    memset(r, 0, sizeof(*r));
    r->h.nlmsg_type = (uint16_t)type;
    r->h.nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | flags);
    r->h.nlmsg_len = (uint32_t)NLMSG_LENGTH(body);
    return NLMSG_DATA(&r->h);
}

static struct rtattr *nl_attr(struct nlreq *r, int type, const void *p, size_t n)
{
    size_t off = NLMSG_ALIGN(r->h.nlmsg_len);
    TH_ASSERT(off + RTA_SPACE(n) <= sizeof(r->bytes));
    struct rtattr *a = (struct rtattr *)(void *)(r->bytes + off);
    a->rta_type = (uint16_t)type;
    a->rta_len = (uint16_t)RTA_LENGTH(n);
    if (n > 0) {
        memcpy(RTA_DATA(a), p, n);
    }
    r->h.nlmsg_len = (uint32_t)(off + RTA_ALIGN(a->rta_len));
    return a;
}

static void nl_attr_end(struct nlreq *r, struct rtattr *a)
{
    a->rta_len = (uint16_t)(r->bytes + r->h.nlmsg_len - (char *)a);
}

/* Sends and waits for the acknowledgement; 0 or -errno. */
static int nl_talk(int fd, struct nlreq *r)
{
    struct sockaddr_nl to = {.nl_family = AF_NETLINK};
    r->h.nlmsg_seq = 1;
    if (sendto(fd, r, r->h.nlmsg_len, 0, (struct sockaddr *)&to, sizeof(to)) < 0) {
        return -errno;
    }
    char buf[4096] __attribute__((aligned(NLMSG_ALIGNTO)));
    for (;;) {
        ssize_t n = recv(fd, buf, sizeof(buf), 0);
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            return -errno;
        }
        struct nlmsghdr *h = (struct nlmsghdr *)(void *)buf;
        for (; NLMSG_OK(h, (unsigned)n); h = NLMSG_NEXT(h, n)) {
            if (h->nlmsg_type == NLMSG_ERROR) {
                return ((struct nlmsgerr *)NLMSG_DATA(h))->error;
            }
        }
    }
}

static int nl_open(void)
{
    return socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
}

/* ---- work inside a network namespace ---- */

struct in_ns {
    int ns_fd;
    int domain, type, protocol;
    int fd; /* result, or -errno */
};

static void *in_ns_socket(void *arg)
{
    struct in_ns *j = arg;
    if (setns(j->ns_fd, CLONE_NEWNET) < 0) {
        j->fd = -errno;
        return NULL;
    }
    j->fd = socket(j->domain, j->type | SOCK_CLOEXEC, j->protocol);
    if (j->fd < 0) {
        j->fd = -errno;
    }
    return NULL;
}

/* A socket that lives in the namespace ns_fd; negative errno on failure. */
static int ns_socket(int ns_fd, int domain, int type, int protocol)
{
    struct in_ns j = {.ns_fd = ns_fd, .domain = domain, .type = type, .protocol = protocol, .fd = -1};
    pthread_t t;
    int e = pthread_create(&t, NULL, in_ns_socket, &j);
    if (e != 0) {
        return -e;
    }
    pthread_join(t, NULL);
    return j.fd;
}

static int if_index(int any_sock, const char *name)
{
    struct ifreq ifr = {0};
    (void)snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
    return ioctl(any_sock, SIOCGIFINDEX, &ifr) < 0 ? -errno : ifr.ifr_ifindex;
}

/* ---- the steps of making a link ---- */

void th_link_name(const char *uid, char out[IFNAMSIZ])
{
    (void)snprintf(out, IFNAMSIZ, "th%010llx",
                   (unsigned long long)(th_fnv32a(uid, strlen(uid), TH_FNV32A_INIT)) << 8 |
                       (th_fnv32a(uid, strlen(uid), 77) & 0xff));
}

static int link_del(int fd, const char *name)
{
    struct nlreq r;
    struct ifinfomsg *m = nl_begin(&r, RTM_DELLINK, 0, sizeof(*m));
    m->ifi_family = AF_UNSPEC;
    nl_attr(&r, IFLA_IFNAME, name, strlen(name) + 1);
    return nl_talk(fd, &r);
}

static int veth_new(int fd, const char *host, int ns_fd)
{
    struct nlreq r;
    struct ifinfomsg *m = nl_begin(&r, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sizeof(*m));
    m->ifi_family = AF_UNSPEC;
    nl_attr(&r, IFLA_IFNAME, host, strlen(host) + 1);
    nl_attr(&r, IFLA_ADDRESS, HOST_MAC, sizeof(HOST_MAC));
    struct rtattr *info = nl_attr(&r, IFLA_LINKINFO, NULL, 0);
    nl_attr(&r, IFLA_INFO_KIND, "veth", 5);
    struct rtattr *data = nl_attr(&r, IFLA_INFO_DATA, NULL, 0);
    struct ifinfomsg peer_head = {.ifi_family = AF_UNSPEC};
    struct rtattr *peer = nl_attr(&r, VETH_INFO_PEER, &peer_head, sizeof(peer_head));
    nl_attr(&r, IFLA_IFNAME, "eth0", 5);
    uint32_t nsfd = (uint32_t)ns_fd;
    nl_attr(&r, IFLA_NET_NS_FD, &nsfd, sizeof(nsfd));
    nl_attr_end(&r, peer);
    nl_attr_end(&r, data);
    nl_attr_end(&r, info);
    return nl_talk(fd, &r);
}

static int link_up(int fd, int index)
{
    struct nlreq r;
    struct ifinfomsg *m = nl_begin(&r, RTM_NEWLINK, 0, sizeof(*m));
    m->ifi_family = AF_UNSPEC;
    m->ifi_index = index;
    m->ifi_flags = IFF_UP;
    m->ifi_change = IFF_UP;
    return nl_talk(fd, &r);
}

static int addr_add(int fd, int index, struct in_addr ip)
{
    struct nlreq r;
    struct ifaddrmsg *m = nl_begin(&r, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, sizeof(*m));
    m->ifa_family = AF_INET;
    m->ifa_prefixlen = 32;
    m->ifa_scope = RT_SCOPE_UNIVERSE;
    m->ifa_index = (unsigned)index;
    nl_attr(&r, IFA_LOCAL, &ip, sizeof(ip));
    nl_attr(&r, IFA_ADDRESS, &ip, sizeof(ip));
    return nl_talk(fd, &r);
}

int th_link_lo_addr(const char *ip, struct th_err *err)
{
    struct in_addr a;
    if (inet_pton(AF_INET, ip, &a) != 1) {
        return th_fail(err, TH_R_INVALID, "\"%s\" is no IPv4 address", ip);
    }
    th_autoclose int nl = nl_open();
    int e = nl < 0 ? -errno : addr_add(nl, (int)if_nametoindex("lo"), a);
    return e < 0 ? th_fail_errno(err, -e, TH_R_IO, "address %s of lo", ip) : 0;
}

/* dst NULL: default route. via NULL: directly on the link. */
static int route_add(int fd, int index, const struct in_addr *dst, const struct in_addr *via)
{
    struct nlreq r;
    struct rtmsg *m = nl_begin(&r, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, sizeof(*m));
    m->rtm_family = AF_INET;
    m->rtm_dst_len = dst ? 32 : 0;
    m->rtm_table = RT_TABLE_MAIN;
    m->rtm_protocol = RTPROT_BOOT;
    m->rtm_scope = via ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK;
    m->rtm_type = RTN_UNICAST;
    if (dst) {
        nl_attr(&r, RTA_DST, dst, sizeof(*dst));
    }
    if (via) {
        nl_attr(&r, RTA_GATEWAY, via, sizeof(*via));
    }
    uint32_t oif = (uint32_t)index;
    nl_attr(&r, RTA_OIF, &oif, sizeof(oif));
    return nl_talk(fd, &r);
}

static int neigh_add(int fd, int index, struct in_addr ip, const unsigned char mac[6])
{
    struct nlreq r;
    struct ndmsg *m = nl_begin(&r, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, sizeof(*m));
    m->ndm_family = AF_INET;
    m->ndm_ifindex = index;
    m->ndm_state = NUD_PERMANENT;
    nl_attr(&r, NDA_DST, &ip, sizeof(ip));
    nl_attr(&r, NDA_LLADDR, mac, 6);
    return nl_talk(fd, &r);
}

static void sysctl_set(const char *value, const char *fmt, ...) TH_PRINTF(2, 3);
static void sysctl_set(const char *value, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    th_autofree char *path = th_xvasprintf(fmt, ap);
    va_end(ap);
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (th_io_write_file(path, value, strlen(value), 0644, &err) < 0) {
        th_warn("net", "sysctl not set", "path=%s err=%s", path, th_log_q(err.msg));
    }
}

static int pod_side(int ns_fd, struct in_addr ip, struct th_err *err)
{
    th_autoclose int nl = ns_socket(ns_fd, AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    th_autoclose int in = ns_socket(ns_fd, AF_INET, SOCK_DGRAM, 0);
    if (nl < 0 || in < 0) {
        return th_fail_errno(err, nl < 0 ? -nl : -in, TH_R_IO, "entering the pod's network namespace");
    }
    int lo = if_index(in, "lo"), eth = if_index(in, "eth0");
    if (lo < 0 || eth < 0) {
        return th_fail_errno(err, lo < 0 ? -lo : -eth, TH_R_IO, "finding the pod's links");
    }
    struct in_addr gw;
    (void)inet_pton(AF_INET, GATEWAY, &gw);
    int e;
    if ((e = link_up(nl, lo)) < 0 || (e = addr_add(nl, eth, ip)) < 0 || (e = link_up(nl, eth)) < 0 ||
        (e = route_add(nl, eth, &gw, NULL)) < 0 || (e = neigh_add(nl, eth, gw, HOST_MAC)) < 0 ||
        (e = route_add(nl, eth, NULL, &gw)) < 0) {
        return th_fail_errno(err, -e, TH_R_IO, "setting up the pod's link");
    }
    return 0;
}

int th_link_add(const char *netns_path, const char *uid, struct in_addr ip, struct th_err *err)
{
    char name[IFNAMSIZ];
    th_link_name(uid, name);
    th_autoclose int ns_fd = open(netns_path, O_RDONLY | O_CLOEXEC);
    if (ns_fd < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "open %s", netns_path);
    }
    th_autoclose int nl = nl_open();
    th_autoclose int in = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (nl < 0 || in < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "opening a netlink socket");
    }
    (void)link_del(nl, name); /* left over from a sandbox that was killed half made */
    int e = veth_new(nl, name, ns_fd);
    if (e < 0) {
        return th_fail_errno(err, -e, TH_R_IO, "creating veth pair %s", name);
    }
    int index = if_index(in, name);
    sysctl_set("1", "/proc/sys/net/ipv4/conf/%s/proxy_arp", name);
    sysctl_set("0", "/proc/sys/net/ipv4/neigh/%s/proxy_delay", name);
    if (index < 0 || (e = link_up(nl, index)) < 0 || (e = route_add(nl, index, &ip, NULL)) < 0) {
        (void)link_del(nl, name);
        return th_fail_errno(err, index < 0 ? -index : -e, TH_R_IO, "setting up link %s", name);
    }
    int r = pod_side(ns_fd, ip, err);
    if (r < 0) {
        (void)link_del(nl, name);
    }
    return r;
}

void th_link_del(const char *uid)
{
    char name[IFNAMSIZ];
    th_link_name(uid, name);
    th_autoclose int nl = nl_open();
    if (nl >= 0) {
        (void)link_del(nl, name);
    }
}

void th_link_prune(bool (*keep)(void *arg, const char *name), void *arg)
{
    struct if_nameindex *all = if_nameindex();
    th_autoclose int nl = nl_open();
    for (struct if_nameindex *i = all; i && i->if_name; i++) {
        if (th_startswith(i->if_name, "th") && strlen(i->if_name) == 12 && !keep(arg, i->if_name)) {
            (void)link_del(nl, i->if_name);
        }
    }
    if_freenameindex(all);
}

int th_net_pod_connect(const char *netns_path, int port, int timeout_ms, struct th_err *err)
{
    th_autoclose int ns_fd = open(netns_path, O_RDONLY | O_CLOEXEC);
    if (ns_fd < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "open %s", netns_path);
    }
    th_autoclose int fd = ns_socket(ns_fd, AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return th_fail_errno(err, -fd, TH_R_IO, "opening a socket in the pod's network namespace");
    }
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0) {
        if (errno != EINPROGRESS) {
            return th_fail_errno(err, errno, TH_R_UNAVAILABLE, "connecting to port %d of the pod", port);
        }
        struct pollfd p = {.fd = fd, .events = POLLOUT};
        int soerr = ETIMEDOUT;
        socklen_t len = sizeof(soerr);
        if (poll(&p, 1, timeout_ms) > 0) {
            (void)getsockopt(fd, SOL_SOCKET, SO_ERROR, &soerr, &len);
        }
        if (soerr != 0) {
            return th_fail_errno(err, soerr, TH_R_UNAVAILABLE, "connecting to port %d of the pod", port);
        }
    }
    (void)th_io_set_nonblock(fd, false);
    return th_steal_fd(&fd);
}
