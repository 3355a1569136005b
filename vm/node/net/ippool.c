/* Addresses of pods: which uid has which, kept in a small JSON file ({"uid": "10.244.0.7", ...})
 * that is written before an address is used. See link.c for the rules. */
#include "base/io.h"
#include "base/json/json.h"
#include "base/limits.h"
#include "base/log.h"
#include "vm/node/net/net_priv.h"

#include <arpa/inet.h>

static int cidr_parse(const char *cidr, uint32_t *first, uint32_t *last, struct th_err *err)
{
    const char *slash = strchr(cidr, '/');
    th_autofree char *ip = th_xstrndup(cidr, slash ? (size_t)(slash - cidr) : strlen(cidr));
    struct in_addr a;
    char *end = NULL;
    long bits = slash ? strtol(slash + 1, &end, 10) : -1;
    if (inet_pton(AF_INET, ip, &a) != 1 || bits < 8 || bits > 29 || !end || *end) {
        return th_fail(err, TH_R_USAGE, "pod CIDR \"%s\" is not an IPv4 network of /8 to /29", cidr);
    }
    uint32_t mask = 0xffffffffu << (32 - bits);
    uint32_t net = ntohl(a.s_addr) & mask;
    *first = net + 2;
    *last = (net | ~mask) - 1;
    return 0;
}

int th_ippool_init(struct th_ippool *p, const char *cidr, const char *path, struct th_err *err)
{
    memset(p, 0, sizeof(*p));
    th_hmap_init(&p->by_uid, free);
    th_hmap_init(&p->by_ip, NULL);
    p->path = th_xstrdup(path);
    TH_TRY(cidr_parse(cidr, &p->first, &p->last, err));
    p->next = p->first;
    th_autobuf struct th_buf b = TH_BUF_INIT;
    TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
    int r = th_io_read_file(path, TH_LIMIT_CONFIG_FILE_B, &b, &e);
    if (r == -TH_R_NOT_FOUND) {
        return 0;
    }
    TH_AUTO(th_json) struct th_json *o = NULL;
    if (r < 0 || th_json_parse(b.p, b.n, NULL, &o, &e) < 0) {
        return th_fail(err, TH_R_STATE_CORRUPT, "%s: %s", path, e.msg);
    }
    struct th_json_iter it = TH_JSON_ITER(th_json_get(o, "pods"));
    while (th_json_next(&it)) {
        const char *ip = th_json_str(it.value);
        if (ip && !th_hmap_has(&p->by_ip, ip)) {
            th_hmap_set(&p->by_uid, it.name, th_xstrdup(ip));
            th_hmap_set(&p->by_ip, ip, NULL);
        }
    }
    struct in_addr a;
    const char *last = th_json_path_str(o, "last");
    if (last && inet_pton(AF_INET, last, &a) == 1) {
        p->next = ntohl(a.s_addr) + 1;
    }
    return 0;
}

void th_ippool_done(struct th_ippool *p)
{
    th_hmap_done(&p->by_uid);
    th_hmap_done(&p->by_ip);
    free(p->path);
}

static int save(struct th_ippool *p, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *o = th_json_object();
    struct in_addr a = {.s_addr = htonl(p->next - 1)};
    char text[INET_ADDRSTRLEN];
    th_json_set_str(o, "last", inet_ntop(AF_INET, &a, text, sizeof(text)));
    struct th_json *pods = th_json_path_object(o, "pods");
    struct th_hmap_entry *e;
    for (size_t it = 0; (e = th_hmap_next(&p->by_uid, &it));) {
        th_json_set_str(pods, e->key, e->value);
    }
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_json_dump(o, &b);
    return th_io_write_atomic(p->path, b.p, b.n, 0600, err);
}

int th_ippool_get(struct th_ippool *p, const char *uid, const char **ret, struct th_err *err)
{
    const char *have = th_hmap_get(&p->by_uid, uid);
    if (have) {
        *ret = have;
        return 0;
    }
    uint32_t size = p->last - p->first + 1;
    for (uint32_t i = 0; i < size; i++) {
        if (p->next < p->first || p->next > p->last) {
            p->next = p->first;
        }
        struct in_addr a = {.s_addr = htonl(p->next++)};
        char text[INET_ADDRSTRLEN];
        (void)inet_ntop(AF_INET, &a, text, sizeof(text));
        if (th_hmap_has(&p->by_ip, text)) {
            continue;
        }
        th_hmap_set(&p->by_uid, uid, th_xstrdup(text));
        th_hmap_set(&p->by_ip, text, NULL);
        int r = save(p, err);
        if (r < 0) {
            free(th_hmap_remove(&p->by_uid, uid));
            (void)th_hmap_remove(&p->by_ip, text);
            return r;
        }
        *ret = th_hmap_get(&p->by_uid, uid);
        return 0;
    }
    return th_fail(err, TH_R_NO_SPACE, "no free address is left in the node's pod CIDR (%u in use)", size);
}

int th_ippool_put(struct th_ippool *p, const char *uid, struct th_err *err)
{
    th_autofree char *ip = th_hmap_remove(&p->by_uid, uid);
    if (!ip) {
        return 0;
    }
    (void)th_hmap_remove(&p->by_ip, ip);
    return save(p, err);
}
