/*
 * ClusterIPs and their IPAddress objects; see service_ips.h.
 *
 * The allocator in memory (ipalloc.c) decides quickly; the IPAddress object, whose name is the
 * address, makes it official: one that is there already, somebody else's, takes the address out of the
 * choice. It is written before the Service is committed and removed when that fails; what a crash
 * leaves behind is mended by the controller of service addresses. The configured range can always be
 * used, whether its ServiceCIDR is said to be ready or not, so that the first Services of a new
 * cluster need no controller.
 */
#include "controlplane/resources/service_ips.h"
#include "controlplane/resources/cluster.h"
#include "controlplane/resources/ipalloc.h"

#include "base/log.h"

#define GVR_CIDRS ((struct th_gvr){"networking.k8s.io", "v1", "servicecidrs"})
#define GVR_ADDRESSES ((struct th_gvr){"networking.k8s.io", "v1", "ipaddresses"})
#define TRIES 64 /* addresses that others hold, passed over */

static bool is_ready(const struct th_json *cidr)
{
    const struct th_json *conditions = th_json_path(cidr, "status.conditions");
    for (size_t i = 0; i < th_json_len(conditions); i++) {
        const struct th_json *one = th_json_at(conditions, i);
        if (th_streq(th_json_path_str(one, "type"), "Ready")) {
            return th_streq(th_json_path_str(one, "status"), "True") &&
                   !th_json_path_str(cidr, "metadata.deletionTimestamp");
        }
    }
    return false;
}

/* The ranges of ServiceCIDRs that are ready. */
static void ready_ranges(const struct th_req_ctx *c, struct th_strv *ret)
{
    TH_AUTO(th_json) struct th_json *list = NULL;
    if (th_client_list(c->client, GVR_CIDRS, NULL, NULL, NULL, &list, NULL) < 0) {
        return;
    }
    const struct th_json *items = th_json_get(list, "items");
    for (size_t i = 0; i < th_json_len(items); i++) {
        const struct th_json *cidrs = th_json_path(th_json_at(items, i), "spec.cidrs");
        for (size_t k = 0; k < th_json_len(cidrs) && is_ready(th_json_at(items, i)); k++) {
            th_strv_add(ret, th_json_str(th_json_at(cidrs, k)));
        }
    }
}

/* 0: made; 1: somebody else's; negative: failed. */
static int make_address(const struct th_req_ctx *c, const struct th_json *service, const char *ip,
                        struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *a = th_json_build(
        "{'apiVersion':'networking.k8s.io/v1','kind':'IPAddress','metadata':{'name':%s,'labels':{"
        "'ipaddress.kubernetes.io/ip-family':'IPv4',"
        "'ipaddress.kubernetes.io/managed-by':'ipallocator.k8s.io'}},'spec':{'parentRef':{"
        "'group':'','resource':'services','namespace':%s,'name':%s}}}",
        ip, th_json_path_str(service, "metadata.namespace"),
        th_json_path_str(service, "metadata.name"));
    int r = th_client_create(c->client, GVR_ADDRESSES, NULL, a, NULL, err);
    if (r == -TH_R_ALREADY_EXISTS) {
        th_err_done(err);
        TH_AUTO(th_json) struct th_json *have = NULL;
        r = th_client_get(c->client, GVR_ADDRESSES, NULL, ip, &have, NULL);
        return !th_json_equal(th_json_get(have, "spec"), th_json_get(a, "spec"));
    }
    return r;
}

int th_service_ip_take(const struct th_req_ctx *c, const struct th_json *service, const char *wanted,
                       char *buf, struct th_err *err)
{
    struct th_ipalloc *a = ((const struct th_cluster *)c->cluster)->services;
    th_autostrv struct th_strv more = TH_STRV_INIT, passed = TH_STRV_INIT;
    int r = 1;
    if (c->client) {
        ready_ranges(c, &more);
    }
    for (int i = 0; i < TRIES && r > 0; i++) {
        r = th_ipalloc_ip(a, &more, wanted, buf, err);
        if (r < 0 || c->dry_run || !c->client) {
            break;
        }
        r = make_address(c, service, buf, err);
        if (r != 0) {
            th_strv_add(&passed, buf);
        }
        if (r > 0 && wanted) {
            r = th_fail(err, TH_R_INVALID,
                        "failed to allocate IP %s: provided IP is already allocated", wanted);
        }
    }
    for (size_t i = 0; i < passed.n; i++) {
        th_ipalloc_ip_release(a, passed.v[i]);
    }
    return r > 0 ? th_fail(err, TH_R_INTERNAL, "failed to allocate a serviceIP: range is full") : r;
}

void th_service_ip_free(const struct th_req_ctx *c, const struct th_json *service)
{
    struct th_ipalloc *a = ((const struct th_cluster *)c->cluster)->services;
    const char *ip = th_json_path_str(service, "spec.clusterIP");
    TH_AUTO(th_json) struct th_json *have = NULL;
    if (!ip || !*ip || th_streq(ip, "None")) {
        return;
    }
    if (!c->dry_run && c->client &&
        th_client_get(c->client, GVR_ADDRESSES, NULL, ip, &have, NULL) >= 0 &&
        th_streq(th_json_path_str(have, "spec.parentRef.namespace"),
                 th_json_path_str(service, "metadata.namespace")) &&
        th_streq(th_json_path_str(have, "spec.parentRef.name"),
                 th_json_path_str(service, "metadata.name"))) {
        struct th_delete_opts o = TH_DELETE_OPTS_INIT;
        o.uid = th_json_path_str(have, "metadata.uid");
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        int r = th_client_delete(c->client, GVR_ADDRESSES, NULL, ip, &o, NULL, &err);
        if (r < 0 && r != -TH_R_NOT_FOUND) {
            th_warn("resources", "IPAddress not removed", "name=%s error=%s", ip,
                    th_log_q(err.msg ? err.msg : ""));
        }
    }
    th_ipalloc_ip_release(a, ip);
}
