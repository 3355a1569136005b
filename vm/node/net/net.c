/* The node's network: start, and pods coming and going. The work on links is in link.c, on
 * addresses in ippool.c.
 *
 * Order matters for kill -9 safety: the address is on disk before the link is made, and the link is
 * gone before the address is given back. */
#include "vm/node/net/net.h"
#include "base/io.h"
#include "base/log.h"
#include "vm/node/net/net_priv.h"
#include "vm/node/net/nfttable.h"

#include <arpa/inet.h>

static void opts_done(struct th_net_opts *o)
{
    const char *all[] = {o->node_name,   o->node_ip,        o->pod_cidr,      o->data_dir,
                         o->cluster_dns, o->cluster_domain, o->ports_endpoint, o->service_cidr};
    for (size_t i = 0; i < TH_ARRAY_LEN(all); i++) {
        free((void *)(uintptr_t)all[i]);
    }
}

/* Forwarding; 127.0.0.0/8 as a way to node ports; and no limit on ICMP errors, by which UDP is
 * refused: whoever gets them is in here. */
static void switches_on(void)
{
    static const char *const on[][2] = {{"ip_forward", "1"}, {"conf/all/route_localnet", "1"},
                                        {"icmp_ratelimit", "0"}};
    for (size_t i = 0; i < TH_ARRAY_LEN(on); i++) {
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        th_autofree char *path = th_path_join("/proc/sys/net/ipv4", on[i][0]);
        if (th_io_write_file(path, on[i][1], 1, 0644, &err) < 0) {
            th_warn("net", "sysctl not set", "path=%s err=%s", path, th_log_q(err.msg));
        }
    }
}

/* DNS first (its address must be ours before rules name it), then host ports, which the services'
 * thread feeds. Without an API server only the rules that pods need to leave the node. */
static int services_on(struct th_net *n, struct th_err *err)
{
    TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
    if (!n->o.client) {
        TH_AUTO(th_net_state) struct th_net_state *st = th_net_state_new(NULL, NULL, NULL);
        TH_AUTO(th_nft_table) struct th_nft_table *t = th_ruleset_new(&n->o, st);
        th_autobuf struct th_buf text = TH_BUF_INIT;
        th_nft_diff(NULL, t, &text);
        if (th_nft_run(th_buf_cstr(&text), NULL, &e) < 0) {
            th_warn("net", "pods cannot leave the node", "err=%s", th_log_q(e.msg));
        }
        return 0;
    }
    if (th_dns_start(n, &n->dns, &e) < 0) {
        th_error("net", "no cluster DNS", "err=%s", th_log_q(e.msg));
    }
    n->health = th_health_new();
    if (n->o.ports_endpoint && *n->o.ports_endpoint) {
        TH_TRY(th_hostports_start(n, &n->hostports, err));
    }
    return th_services_start(n, &n->services, err);
}

int th_net_start(const struct th_net_opts *o, struct th_net **ret, struct th_err *err)
{
    TH_TRY(th_io_mkdir_p(o->data_dir, 0700, err));
    struct th_net *n = TH_NEW(struct th_net);
    n->o = (struct th_net_opts){
        .node_name = th_xstrdup(o->node_name),
        .node_ip = th_xstrdup(o->node_ip),
        .pod_cidr = th_xstrdup(o->pod_cidr),
        .data_dir = th_xstrdup(o->data_dir),
        .cluster_dns = th_xstrdup(o->cluster_dns),
        .cluster_domain = th_xstrdup(o->cluster_domain),
        .ports_endpoint = th_xstrdup(o->ports_endpoint),
        .service_cidr = th_xstrdup(o->service_cidr),
        .profile_number = o->profile_number,
        .client = o->client,
        .lb_client = o->lb_client,
    };
    pthread_mutex_init(&n->mu, NULL);
    th_autofree char *path = th_path_join(o->data_dir, "addresses.json");
    int r = th_ippool_init(&n->pool, o->pod_cidr, path, err);
    if (r < 0) {
        th_net_stop(n);
        return r;
    }
    switches_on();
    r = services_on(n, err);
    if (r < 0) {
        th_net_stop(n);
        return r;
    }
    *ret = n;
    return 0;
}

void th_net_stop(struct th_net *n)
{
    if (!n) {
        return;
    }
    th_services_stop(n->services);
    th_hostports_stop(n->hostports);
    th_health_free(n->health);
    th_dns_stop(n->dns);
    th_ippool_done(&n->pool);
    pthread_mutex_destroy(&n->mu);
    opts_done(&n->o);
    free(n);
}

int th_net_pod_add(struct th_net *n, const char *netns_path, const char *uid,
                   char ret_ip[TH_NET_IP_LEN], struct th_err *err)
{
    char text[TH_NET_IP_LEN];
    pthread_mutex_lock(&n->mu);
    const char *ip = NULL;
    int r = th_ippool_get(&n->pool, uid, &ip, err);
    if (r >= 0) {
        (void)snprintf(text, sizeof(text), "%s", ip);
    }
    pthread_mutex_unlock(&n->mu);
    TH_TRY(r);
    struct in_addr a;
    if (inet_pton(AF_INET, text, &a) != 1) {
        return th_fail(err, TH_R_STATE_CORRUPT, "address \"%s\" of pod %s", text, uid);
    }
    TH_TRY(th_link_add(netns_path, uid, a, err));
    TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
    if (th_nft_pod(netns_path, &n->o, &e) < 0) {
        th_warn("net", "pod will not reach LoadBalancer addresses", "uid=%s err=%s", uid,
                th_log_q(e.msg));
    }
    memcpy(ret_ip, text, sizeof(text));
    return 0;
}

void th_net_pod_del(struct th_net *n, const char *uid)
{
    th_link_del(uid);
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    pthread_mutex_lock(&n->mu);
    int r = th_ippool_put(&n->pool, uid, &err);
    pthread_mutex_unlock(&n->mu);
    if (r < 0) {
        th_warn("net", "address not given back", "uid=%s err=%s", uid, th_log_q(err.msg));
    }
}

static bool in_set(void *arg, const char *name)
{
    return th_hmap_has(arg, name);
}

int th_net_restore(struct th_net *n, const char *const *uids, size_t count, struct th_err *err)
{
    struct th_hmap names, keep;
    th_hmap_init(&names, NULL);
    th_hmap_init(&keep, NULL);
    for (size_t i = 0; i < count; i++) {
        char name[IFNAMSIZ];
        th_link_name(uids[i], name);
        th_hmap_set(&names, name, NULL);
        th_hmap_set(&keep, uids[i], NULL);
    }
    th_link_prune(in_set, &names);
    th_autostrv struct th_strv gone = TH_STRV_INIT;
    pthread_mutex_lock(&n->mu);
    struct th_hmap_entry *e;
    for (size_t it = 0; (e = th_hmap_next(&n->pool.by_uid, &it));) {
        if (!th_hmap_has(&keep, e->key)) {
            th_strv_add(&gone, e->key);
        }
    }
    int r = 0;
    for (size_t i = 0; i < gone.n && r >= 0; i++) {
        r = th_ippool_put(&n->pool, gone.v[i], err);
    }
    pthread_mutex_unlock(&n->mu);
    th_hmap_done(&names);
    th_hmap_done(&keep);
    return r;
}
