/*
 * Service: gets its ClusterIP and node ports when it is created or changed, and gives them back
 * when it goes. What a type does not need is cleared on a change of type, as upstream does for
 * clients that PUT what they read.
 */
#include "controlplane/resources/rows.h"
#include "controlplane/resources/cluster.h"
#include "controlplane/resources/ipalloc.h"
#include "controlplane/resources/service_ips.h"
#include "base/buf.h"
#include "controlplane/schema/selector.h"
#include "controlplane/schema/validate.h"
#include <inttypes.h>

static bool is_type(const struct th_json *svc, const char *type)
{
    return th_streq(th_json_path_str(svc, "spec.type"), type);
}

static bool has_node_ports(const struct th_json *svc)
{
    return is_type(svc, "NodePort") ||
           (is_type(svc, "LoadBalancer") &&
            th_json_path_bool(svc, "spec.allocateLoadBalancerNodePorts", true));
}

/* Load balancers ask such Services' nodes whether they have endpoints. */
static bool has_check_port(const struct th_json *svc)
{
    return is_type(svc, "LoadBalancer") &&
           th_streq(th_json_path_str(svc, "spec.externalTrafficPolicy"), "Local");
}

static int64_t check_port(const struct th_json *svc)
{
    return th_json_path_int(svc, "spec.healthCheckNodePort", 0);
}

/* ---- Printing ---- */

static char *external(const struct th_json *svc)
{
    struct th_strv list TH_CLEANUP(th_strv_done) = TH_STRV_INIT;
    if (is_type(svc, "ExternalName")) {
        const char *name = th_json_path_str(svc, "spec.externalName");
        return th_xstrdup(name ? name : "");
    }
    if (is_type(svc, "LoadBalancer")) {
        const struct th_json *in = th_json_path(svc, "status.loadBalancer.ingress");
        for (size_t i = 0; i < th_json_len(in); i++) {
            const char *ip = th_json_path_str(th_json_at(in, i), "ip");
            const char *host = th_json_path_str(th_json_at(in, i), "hostname");
            th_strv_add(&list, ip ? ip : host ? host : "");
        }
    }
    const struct th_json *ips = th_json_path(svc, "spec.externalIPs");
    for (size_t i = 0; i < th_json_len(ips); i++) {
        th_strv_add(&list, th_json_str(th_json_at(ips, i)));
    }
    if (list.n) {
        return th_strv_join(&list, ",");
    }
    return th_xstrdup(is_type(svc, "LoadBalancer") ? "<pending>" : "<none>");
}

void th_row_service(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells)
{
    struct th_buf ports TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    const struct th_json *list = th_json_path(obj, "spec.ports");
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *p = th_json_at(list, i);
        int64_t node = th_json_path_int(p, "nodePort", 0);
        const char *proto = th_json_path_str(p, "protocol");
        th_buf_printf(&ports, "%s%" PRId64, i ? "," : "", th_json_path_int(p, "port", 0));
        if (node) {
            th_buf_printf(&ports, ":%" PRId64, node);
        }
        th_buf_printf(&ports, "/%s", proto ? proto : "TCP");
    }
    th_autofree char *ext = external(obj);
    th_cell_name(obj, cells);
    th_cell_str(obj, "spec.type", "", cells);
    th_cell_str(obj, "spec.clusterIP", "<none>", cells);
    th_json_append_str(cells, ext);
    th_json_append_str(cells, ports.n ? th_buf_cstr(&ports) : "<none>");
    th_cell_age(c, obj, cells);
    const struct th_json *map = th_json_path(obj, "spec.selector");
    struct th_selector *sel TH_AUTO(th_selector) = th_selector_from_map(map);
    th_autofree char *text = th_json_len(map) ? th_selector_format(sel) : th_xstrdup("<none>");
    th_json_append_str(cells, text);
}

/* ---- Preparing ---- */

static void set_families(struct th_json *svc)
{
    if (is_type(svc, "ExternalName")) {
        return;
    }
    struct th_json *spec = th_json_get(svc, "spec");
    if (!th_json_get(spec, "ipFamilyPolicy")) {
        th_json_set_str(spec, "ipFamilyPolicy", "SingleStack");
    }
    if (th_json_len(th_json_get(spec, "ipFamilies")) == 0) {
        struct th_json *families = th_json_array();
        th_json_append_str(families, "IPv4");
        th_json_set(spec, "ipFamilies", families);
    }
    if (!th_json_get(spec, "internalTrafficPolicy")) {
        th_json_set_str(spec, "internalTrafficPolicy", "Cluster");
    }
    if ((is_type(svc, "NodePort") || is_type(svc, "LoadBalancer")) &&
        !th_json_get(spec, "externalTrafficPolicy")) {
        th_json_set_str(spec, "externalTrafficPolicy", "Cluster");
    }
    if (is_type(svc, "LoadBalancer") && !th_json_has(spec, "allocateLoadBalancerNodePorts")) {
        th_json_set_bool(spec, "allocateLoadBalancerNodePorts", true);
    }
}

/* clusterIP and clusterIPs say the same; a client that speaks of one means both. */
static void sync_ips(struct th_json *spec, const struct th_json *old)
{
    const char *ip = th_json_path_str(spec, "clusterIP"), *was = th_json_path_str(old, "clusterIP");
    const struct th_json *ips = th_json_get(spec, "clusterIPs");
    bool changed = !th_streq(ip ? ip : "", was ? was : "");
    if (changed && th_json_equal(ips, th_json_get(old, "clusterIPs"))) {
        if (!ip || !*ip) {
            (void)th_json_del(spec, "clusterIPs");
        } else if (th_json_len(ips) == 0) {
            struct th_json *one = th_json_array();
            th_json_append_str(one, ip);
            th_json_set(spec, "clusterIPs", one);
        } else {
            th_json_set_at(th_json_get(spec, "clusterIPs"), 0, th_json_string(ip));
        }
    } else if (!changed && old && th_json_len(ips) > 0) {
        th_json_set(spec, "clusterIP", th_json_dup(th_json_at(ips, 0)));
    }
}

void th_service_prepare_create(const struct th_req_ctx *c, struct th_json *obj)
{
    (void)c;
    sync_ips(th_json_get(obj, "spec"), NULL);
    th_json_set(obj, "status", th_json_build("{'loadBalancer':{}}"));
    set_families(obj);
}

/* A client that leaves the address or the node ports out of a PUT keeps those there are. */
static void keep_allocated(struct th_json *obj, const struct th_json *old)
{
    static const char *const kept[] = {"clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"};
    struct th_json *spec = th_json_get(obj, "spec");
    for (size_t i = 0; i < TH_ARRAY_LEN(kept); i++) {
        struct th_json *v = th_json_get(th_json_get(old, "spec"), kept[i]);
        const char *now = th_json_str(th_json_get(spec, kept[i]));
        if (v && (!th_json_has(spec, kept[i]) || (now && !*now))) {
            th_json_set(spec, kept[i], th_json_dup(v));
        }
    }
    struct th_json *ports = th_json_get(spec, "ports");
    const struct th_json *before = th_json_path(old, "spec.ports");
    for (size_t i = 0; i < th_json_len(ports) && has_node_ports(obj); i++) {
        struct th_json *p = th_json_at(ports, i);
        for (size_t k = 0; k < th_json_len(before) && !th_json_path_int(p, "nodePort", 0); k++) {
            const struct th_json *b = th_json_at(before, k);
            int64_t node = th_json_path_int(b, "nodePort", 0);
            if (node && th_json_path_int(b, "port", 0) == th_json_path_int(p, "port", 0) &&
                th_streq(th_json_path_str(b, "protocol"), th_json_path_str(p, "protocol"))) {
                th_json_set_int(p, "nodePort", node);
            }
        }
    }
}

void th_service_prepare_update(const struct th_req_ctx *c, struct th_json *obj,
                           const struct th_json *old)
{
    (void)c;
    struct th_json *spec = th_json_get(obj, "spec");
    struct th_json *ports = th_json_get(spec, "ports");
    if (!is_type(obj, "ExternalName") && !is_type(old, "ExternalName")) {
        keep_allocated(obj, old);
    }
    sync_ips(spec, th_json_get(old, "spec"));
    if (is_type(obj, "ExternalName")) {
        static const char *const dropped[] = {"clusterIP", "clusterIPs", "ipFamilies",
                                              "ipFamilyPolicy", "internalTrafficPolicy"};
        for (size_t i = 0; i < TH_ARRAY_LEN(dropped) && !is_type(old, "ExternalName"); i++) {
            (void)th_json_del(spec, dropped[i]);
        }
    }
    if (!has_node_ports(obj) && has_node_ports(old) && !is_type(obj, "LoadBalancer")) {
        for (size_t i = 0; i < th_json_len(ports); i++) {
            (void)th_json_del(th_json_at(ports, i), "nodePort");
        }
        (void)th_json_del(spec, "externalTrafficPolicy");
    }
    if (!is_type(obj, "LoadBalancer") && is_type(old, "LoadBalancer")) {
        (void)th_json_del(spec, "allocateLoadBalancerNodePorts");
        th_json_path_set(obj, "status.loadBalancer", th_json_object());
    }
    if (has_check_port(old) && has_check_port(obj) && !check_port(obj)) {
        th_json_set_int(spec, "healthCheckNodePort", check_port(old));
    } else if (has_check_port(old) && !has_check_port(obj) && check_port(obj) == check_port(old)) {
        (void)th_json_del(spec, "healthCheckNodePort");
    }
    set_families(obj);
}

/* ---- Allocation ---- */

static int invalid(const struct th_json *obj, const char *path, const char *bad, struct th_err *err)
{
    th_autofree char *why = th_xstrdup(err->msg);
    th_err_done(err);
    th_invalid_str(err, path, bad, why);
    return th_invalid_finish(err, "", "Service", th_json_path_str(obj, "metadata.name"));
}

static int allocate_ip(const struct th_req_ctx *c, struct th_json *obj, const struct th_json *old,
                       struct th_err *err)
{
    const char *wanted = th_json_path_str(obj, "spec.clusterIP");
    const char *was = old ? th_json_path_str(old, "spec.clusterIP") : NULL;
    char ip[16];
    if (is_type(obj, "ExternalName")) {
        return 0;
    }
    if (wanted && *wanted) {
        if (!th_streq(wanted, "None") && !th_streq(wanted, was) &&
            th_service_ip_take(c, obj, wanted, ip, err) < 0) {
            return invalid(obj, "spec.clusterIPs", wanted, err);
        }
    } else {
        TH_TRY(th_service_ip_take(c, obj, NULL, ip, err));
        th_json_path_set_str(obj, "spec.clusterIP", ip);
    }
    struct th_json *ips = th_json_array();
    th_json_append_str(ips, th_json_path_str(obj, "spec.clusterIP"));
    th_json_path_set(obj, "spec.clusterIPs", ips);
    return 0;
}

static bool holds_port(const struct th_json *svc, int64_t port, size_t before)
{
    const struct th_json *ports = th_json_path(svc, "spec.ports");
    for (size_t i = 0; i < th_json_len(ports) && i < before; i++) {
        if (th_json_path_int(th_json_at(ports, i), "nodePort", 0) == port) {
            return true;
        }
    }
    return false;
}

static int allocate_ports(struct th_ipalloc *a, struct th_json *obj, const struct th_json *old,
                          struct th_err *err)
{
    const struct th_json *ports = th_json_path(obj, "spec.ports");
    for (size_t i = 0; i < th_json_len(ports); i++) {
        struct th_json *p = th_json_at(ports, i);
        int64_t wanted = th_json_path_int(p, "nodePort", 0);
        int got = 0;
        if (!wanted && !has_node_ports(obj)) {
            continue;
        }
        /* TCP and UDP of one number may be one Service's. */
        if (wanted && ((old && holds_port(old, wanted, SIZE_MAX)) || holds_port(obj, wanted, i))) {
            continue;
        }
        if (th_ipalloc_port(a, (int)wanted, &got, err) < 0) {
            th_autofree char *path = th_field_path("spec.ports[%zu].nodePort", i);
            th_autofree char *why = th_xstrdup(err->msg);
            th_err_done(err);
            th_invalid_int(err, path, wanted, why);
            return th_invalid_finish(err, "", "Service", th_json_path_str(obj, "metadata.name"));
        }
        th_json_set_int(p, "nodePort", got);
    }
    return 0;
}

static int allocate_check_port(struct th_ipalloc *a, struct th_json *obj, const struct th_json *old,
                               struct th_err *err)
{
    int64_t wanted = check_port(obj);
    int got = 0;
    if (!has_check_port(obj) || (wanted && old && check_port(old) == wanted)) {
        return 0;
    }
    if (th_ipalloc_port(a, (int)wanted, &got, err) < 0) {
        th_autofree char *why = th_xstrdup(err->msg);
        th_err_done(err);
        th_invalid_int(err, "spec.healthCheckNodePort", wanted, why);
        return th_invalid_finish(err, "", "Service", th_json_path_str(obj, "metadata.name"));
    }
    th_json_path_set_int(obj, "spec.healthCheckNodePort", got);
    return 0;
}

void th_service_release(const struct th_req_ctx *c, const struct th_json *obj)
{
    const struct th_cluster *cluster = c->cluster;
    const struct th_json *ports = th_json_path(obj, "spec.ports");
    if (!cluster->services) {
        return;
    }
    th_service_ip_free(c, obj);
    for (size_t i = 0; i < th_json_len(ports); i++) {
        th_ipalloc_port_release(cluster->services,
                                (int)th_json_path_int(th_json_at(ports, i), "nodePort", 0));
    }
    th_ipalloc_port_release(cluster->services, (int)check_port(obj));
}

int th_service_allocate(const struct th_req_ctx *c, struct th_json *obj, const struct th_json *old,
                    struct th_err *err)
{
    const struct th_cluster *cluster = c->cluster;
    if (!cluster->services) {
        return th_fail(err, TH_R_INTERNAL, "this control plane has no address allocator");
    }
    TH_TRY(allocate_ip(c, obj, old, err));
    int r = allocate_ports(cluster->services, obj, old, err);
    r = r < 0 ? r : allocate_check_port(cluster->services, obj, old, err);
    if (r < 0 && !old) {
        th_service_ip_free(c, obj);
    }
    TH_TRY(r);
    /* What the old form held and the new one does not is free again. */
    const struct th_json *ports = th_json_path(old, "spec.ports");
    for (size_t i = 0; i < th_json_len(ports); i++) {
        int64_t node = th_json_path_int(th_json_at(ports, i), "nodePort", 0);
        if (node && !holds_port(obj, node, SIZE_MAX)) {
            th_ipalloc_port_release(cluster->services, (int)node);
        }
    }
    if (old && check_port(old) && check_port(old) != check_port(obj)) {
        th_ipalloc_port_release(cluster->services, (int)check_port(old));
    }
    if (old && !th_json_path_str(obj, "spec.clusterIP")) {
        th_service_ip_free(c, old);
    }
    return 0;
}
