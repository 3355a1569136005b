/*
 * The addresses and node ports that Services hold.
 *
 * Addresses come from the configured range and from those of other ServiceCIDRs, which the caller
 * names with every call: which of them are ready is the API's to say, and so nothing here can be
 * behind. Ranges may overlap; an address is taken once, in a map by its text.
 *
 * Upstream splits a range: addresses that are given out by themselves come from above the offset
 * min(max(16, size / 16), 256), so that ones chosen by hand (the DNS Service's, say) seldom collide.
 * Node ports likewise. The search begins at a random place, so that a freed address is not at once
 * another Service's.
 */
#include "controlplane/resources/ipalloc.h"
#include "base/buf.h"
#include "base/hmap.h"
#include "base/rand.h"
#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>

#define RANGE_MAX_BITS 16 /* larger ranges use their first 65536 addresses */
#define OFFSET_MIN 16
#define OFFSET_MAX 256
#define PORT_OFFSET_MAX 128

struct range {
    uint32_t base, size;
};
struct th_ipalloc {
    pthread_mutex_t lock;
    struct range own;
    struct th_hmap ips; /* text of an address -> this */
    int port_first, n_ports;
    uint8_t *ports;
};

static bool read_range(const char *cidr, struct range *ret)
{
    char ip[16];
    unsigned bits = 0;
    struct in_addr addr;
    if (!cidr || sscanf(cidr, "%15[0-9.]/%u", ip, &bits) != 2 || inet_pton(AF_INET, ip, &addr) != 1 ||
        bits < 8 || bits > 30) {
        return false;
    }
    unsigned host_bits = 32 - bits;
    ret->size = 1u << (host_bits > RANGE_MAX_BITS ? RANGE_MAX_BITS : host_bits);
    ret->base = ntohl(addr.s_addr) & ~((1u << host_bits) - 1);
    return true;
}

int th_ipalloc_new(const char *cidr, int port_first, int port_last, struct th_ipalloc **ret,
                   struct th_err *err)
{
    struct range own;
    if (!read_range(cidr, &own) || own.size < 16 || port_first < 1 || port_last < port_first ||
        port_last > 65535) {
        return th_fail(err, TH_R_USAGE, "\"%s\" is not an IPv4 service range of /8 to /28", cidr);
    }
    struct th_ipalloc *a = TH_NEW(struct th_ipalloc);
    pthread_mutex_init(&a->lock, NULL);
    a->own = own;
    th_hmap_init(&a->ips, NULL);
    a->port_first = port_first;
    a->n_ports = port_last - port_first + 1;
    a->ports = th_xcalloc((size_t)a->n_ports, 1);
    *ret = a;
    return 0;
}

void th_ipalloc_free(struct th_ipalloc *a)
{
    if (a) {
        pthread_mutex_destroy(&a->lock);
        th_hmap_done(&a->ips);
        free(a->ports);
        free(a);
    }
}

/* An address of the range that a Service may have: neither the network's own nor the last. */
static bool is_in(const struct range *r, const char *ip)
{
    struct in_addr addr;
    if (inet_pton(AF_INET, ip, &addr) != 1) {
        return false;
    }
    int64_t i = (int64_t)ntohl(addr.s_addr) - r->base;
    return i > 0 && i < (int64_t)r->size - 1;
}

static int64_t clamp(int64_t v, int64_t lo, int64_t hi)
{
    return v < lo ? lo : v > hi ? hi : v;
}

/* The i-th address of the range, as text; true when it is free. */
static bool is_free(const struct th_ipalloc *a, const struct range *r, int64_t i, char *buf)
{
    struct in_addr addr = {htonl(r->base + (uint32_t)i)};
    (void)inet_ntop(AF_INET, &addr, buf, 16);
    return !th_hmap_has(&a->ips, buf);
}

static bool find_ip(const struct th_ipalloc *a, const struct range *r, char *buf)
{
    int64_t end = (int64_t)r->size - 1;
    int64_t offset = clamp(r->size / 16, OFFSET_MIN, OFFSET_MAX);
    offset = offset < end ? offset : end;
    int64_t upper = end - offset;
    int64_t at = upper > 0 ? (int64_t)th_rand_below((uint64_t)upper) : 0;
    for (int64_t i = 0; i < upper; i++) {
        if (is_free(a, r, offset + (at + i) % upper, buf)) {
            return true;
        }
    }
    for (int64_t i = 1; i < offset; i++) {
        if (is_free(a, r, i, buf)) {
            return true;
        }
    }
    return false;
}

/* A free slot of [offset, n), else of [1, offset); -1 when all are taken. */
static int64_t find_free(const uint8_t *used, int64_t n, int64_t offset, int64_t first)
{
    int64_t upper = n - offset;
    int64_t at = upper > 0 ? (int64_t)th_rand_below((uint64_t)upper) : 0;
    for (int64_t i = 0; i < upper; i++) {
        int64_t k = offset + (at + i) % upper;
        if (!used[k]) {
            return k;
        }
    }
    for (int64_t k = first; k < offset; k++) {
        if (!used[k]) {
            return k;
        }
    }
    return -1;
}

static int take_wanted(struct th_ipalloc *a, const struct th_strv *more, const char *wanted,
                       char *buf, struct th_err *err)
{
    bool inside = is_in(&a->own, wanted);
    struct range r;
    for (size_t i = 0; more && i < more->n && !inside; i++) {
        inside = read_range(more->v[i], &r) && is_in(&r, wanted);
    }
    if (!inside) {
        return th_fail(err, TH_R_INVALID,
                       "failed to allocate IP %s: the provided network does not match the current range",
                       wanted);
    }
    if (th_hmap_has(&a->ips, wanted)) {
        return th_fail(err, TH_R_INVALID, "failed to allocate IP %s: provided IP is already allocated",
                       wanted);
    }
    (void)snprintf(buf, 16, "%s", wanted);
    return 0;
}

static int take_any(struct th_ipalloc *a, const struct th_strv *more, char *buf, struct th_err *err)
{
    bool found = find_ip(a, &a->own, buf);
    struct range r;
    for (size_t i = 0; more && i < more->n && !found; i++) {
        found = read_range(more->v[i], &r) && find_ip(a, &r, buf);
    }
    return found ? 0 : th_fail(err, TH_R_INTERNAL, "failed to allocate a serviceIP: range is full");
}

int th_ipalloc_ip(struct th_ipalloc *a, const struct th_strv *more, const char *wanted, char *buf,
                  struct th_err *err)
{
    pthread_mutex_lock(&a->lock);
    int r = wanted ? take_wanted(a, more, wanted, buf, err) : take_any(a, more, buf, err);
    if (r == 0) {
        th_hmap_set(&a->ips, buf, a);
    }
    pthread_mutex_unlock(&a->lock);
    return r;
}

void th_ipalloc_ip_release(struct th_ipalloc *a, const char *ip)
{
    pthread_mutex_lock(&a->lock);
    if (ip) {
        (void)th_hmap_remove(&a->ips, ip);
    }
    pthread_mutex_unlock(&a->lock);
}

int th_ipalloc_port(struct th_ipalloc *a, int wanted, int *ret_port, struct th_err *err)
{
    int r = 0;
    pthread_mutex_lock(&a->lock);
    int64_t i = wanted - a->port_first;
    if (wanted && (i < 0 || i >= a->n_ports)) {
        r = th_fail(err, TH_R_INVALID, "provided port is not in the valid range. The range of valid ports is %d-%d",
                    a->port_first, a->port_first + a->n_ports - 1);
    } else if (wanted && a->ports[i]) {
        r = th_fail(err, TH_R_INVALID, "provided port is already allocated");
    } else if (!wanted) {
        i = find_free(a->ports, a->n_ports, clamp(a->n_ports / 32, OFFSET_MIN, PORT_OFFSET_MAX), 0);
        if (i < 0) {
            r = th_fail(err, TH_R_INTERNAL, "failed to allocate a nodePort: range is full");
        }
    }
    if (r == 0) {
        a->ports[i] = 1;
        *ret_port = (int)i + a->port_first;
    }
    pthread_mutex_unlock(&a->lock);
    return r;
}

void th_ipalloc_port_release(struct th_ipalloc *a, int port)
{
    pthread_mutex_lock(&a->lock);
    int i = port - a->port_first;
    if (i >= 0 && i < a->n_ports) {
        a->ports[i] = 0;
    }
    pthread_mutex_unlock(&a->lock);
}

void th_ipalloc_note(struct th_ipalloc *a, const struct th_json *service)
{
    pthread_mutex_lock(&a->lock);
    const char *ip = th_json_path_str(service, "spec.clusterIP");
    if (ip && *ip && !th_streq(ip, "None")) {
        th_hmap_set(&a->ips, ip, a);
    }
    const struct th_json *ports = th_json_path(service, "spec.ports");
    for (size_t k = 0; k < th_json_len(ports); k++) {
        int64_t p = th_json_path_int(th_json_at(ports, k), "nodePort", 0) - a->port_first;
        if (p >= 0 && p < a->n_ports) {
            a->ports[p] = 1;
        }
    }
    int64_t check = th_json_path_int(service, "spec.healthCheckNodePort", 0) - a->port_first;
    if (check >= 0 && check < a->n_ports) {
        a->ports[check] = 1;
    }
    pthread_mutex_unlock(&a->lock);
}
