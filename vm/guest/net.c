/* Addresses and routes of the machine itself; pods' links belong to the node agent.
 *
 * In a VM the one card has QEMU's user network, whose addresses never change, so there is no DHCP:
 * asking would cost a second of boot. With the host driver the network namespace has no link to
 * the outside at all: the node's address sits on lo, and only Services are routed there, so that
 * anything else fails at once with "network unreachable" and not after a timeout. */
#include "base/log.h"
#include "vm/guest/guest.h"
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static void set_addr(struct sockaddr *sa, const char *ip)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    (void)inet_pton(AF_INET, ip, &in.sin_addr);
    memcpy(sa, &in, sizeof(in));
}

static int link_set(int fd, const char *name, const char *ip, const char *mask, struct th_err *err)
{
    struct ifreq req = {0};
    (void)snprintf(req.ifr_name, sizeof(req.ifr_name), "%s", name);
    if (ip) {
        set_addr(&req.ifr_addr, ip);
        if (ioctl(fd, SIOCSIFADDR, &req) < 0) {
            return th_fail_errno(err, errno, TH_R_BOOT_FAILED, "address of %s", name);
        }
        set_addr(&req.ifr_netmask, mask);
        if (ioctl(fd, SIOCSIFNETMASK, &req) < 0) {
            return th_fail_errno(err, errno, TH_R_BOOT_FAILED, "netmask of %s", name);
        }
    }
    char *label = strchr(req.ifr_name, ':');
    if (label) {
        return 0;
    }
    if (ioctl(fd, SIOCGIFFLAGS, &req) < 0) {
        return th_fail_errno(err, errno, TH_R_BOOT_FAILED, "no network card %s", name);
    }
    req.ifr_flags |= IFF_UP | IFF_RUNNING;
    if (ioctl(fd, SIOCSIFFLAGS, &req) < 0) {
        return th_fail_errno(err, errno, TH_R_BOOT_FAILED, "bring %s up", name);
    }
    return 0;
}

static int route_add(int fd, const char *to, const char *mask, const char *via, char *dev,
                     struct th_err *err)
{
    struct rtentry rt = {.rt_flags = RTF_UP | (via ? RTF_GATEWAY : 0), .rt_dev = dev};
    set_addr(&rt.rt_dst, to);
    set_addr(&rt.rt_genmask, mask);
    if (via) {
        set_addr(&rt.rt_gateway, via);
    }
    if (ioctl(fd, SIOCADDRT, &rt) < 0 && errno != EEXIST) {
        return th_fail_errno(err, errno, TH_R_BOOT_FAILED, "route to %s", to);
    }
    return 0;
}

int th_guest_net_up(bool host, struct th_err *err)
{
    th_autoclose int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return th_fail_errno(err, errno, TH_R_BOOT_FAILED, "socket");
    }
    TH_TRY(link_set(fd, "lo", "127.0.0.1", "255.0.0.0", err));
    if (host) {
        TH_TRY(link_set(fd, "lo:1", TH_NET_GUEST_IP, "255.255.255.255", err));
        char lo[] = "lo";
        return route_add(fd, "10.96.0.0", "255.255.0.0", NULL, lo, err);
    }
    TH_TRY(link_set(fd, "eth0", TH_NET_GUEST_IP, "255.255.255.0", err));
    char eth[] = "eth0";
    return route_add(fd, "0.0.0.0", "0.0.0.0", TH_NET_GATEWAY, eth, err);
}
