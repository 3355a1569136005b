/*
 * ServiceCIDRs, and the IPAddress objects of Services.
 *
 * A ServiceCIDR has a finalizer and is Ready as soon as it was seen; the API takes addresses from
 * ranges that are. One that is to go stays while some Service's address is in no other range; when
 * that is over it waits DELETION_MS more, in which a request that still saw it as ready may finish.
 *
 * The second controller mends what a crash or a hand left behind: a Service whose address has no
 * IPAddress gets it, an IPAddress of the allocator that no Service holds goes. One that is younger
 * than ORPHAN_MS is left alone, since its Service may be on its way. Upstream's API server does this
 * itself, in a loop.
 */
#include <arpa/inet.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/clock.h"
#include "controlplane/controllers/controller.h"
#include "controlplane/controllers/podutil.h"
#include "controlplane/schema/storage.h"

#define GVR_CIDRS ((struct th_gvr){"networking.k8s.io", "v1", "servicecidrs"})
#define GVR_ADDRESSES ((struct th_gvr){"networking.k8s.io", "v1", "ipaddresses"})
#define FINALIZER "networking.k8s.io/service-cidr-finalizer"
#define MANAGED_LABEL "ipaddress.kubernetes.io/managed-by"
#define MANAGED_BY "ipallocator.k8s.io"
#define DELETION_MS 10000
#define ORPHAN_MS 60000

struct range {
    uint32_t first, last;
};

/* Other families than IPv4 are no range here. */
static bool read_range(const char *text, struct range *ret)
{
    char ip[16];
    unsigned bits = 32;
    struct in_addr addr;
    if (!text || sscanf(text, "%15[0-9.]/%u", ip, &bits) < 1 || bits > 32 ||
        inet_pton(AF_INET, ip, &addr) != 1) {
        return false;
    }
    uint32_t rest = bits == 0 ? UINT32_MAX : (uint32_t)((1ull << (32 - bits)) - 1);
    ret->first = ntohl(addr.s_addr) & ~rest;
    ret->last = ret->first | rest;
    return true;
}

static bool contains(const struct th_json *cidr, struct range r)
{
    const struct th_json *list = th_json_path(cidr, "spec.cidrs");
    for (size_t i = 0; i < th_json_len(list); i++) {
        struct range c;
        if (read_range(th_json_str(th_json_at(list, i)), &c) && r.first >= c.first &&
            r.last <= c.last) {
            return true;
        }
    }
    return false;
}

static bool add_to(void *arg, struct th_json *obj)
{
    th_json_append(arg, th_json_ref(obj));
    return true;
}

static struct th_json *all_of(struct th_ctrl *c, struct th_gvr gvr)
{
    struct th_json *all = th_json_array();
    th_informer_each(th_ctrl_informer(c, gvr), NULL, add_to, all);
    return all;
}

static bool is_allocators(const struct th_json *address)
{
    return th_streq(
        th_json_str(th_json_get(th_json_path(address, "metadata.labels"), MANAGED_LABEL)),
        MANAGED_BY);
}

/* Some other range has all of r, and stays. */
static bool other_contains(const struct th_json *cidrs, const char *but, struct range r)
{
    for (size_t i = 0; i < th_json_len(cidrs); i++) {
        const struct th_json *c = th_json_at(cidrs, i);
        if (!th_streq(th_json_path_str(c, "metadata.name"), but) && contains(c, r)) {
            return true;
        }
    }
    return false;
}

/* No address of the allocator would be in no range. */
static bool can_go(struct th_ctrl *c, const struct th_json *cidr)
{
    struct th_json *cidrs TH_AUTO(th_json) = all_of(c, GVR_CIDRS);
    struct th_json *addresses TH_AUTO(th_json) = all_of(c, GVR_ADDRESSES);
    const char *name = th_json_path_str(cidr, "metadata.name");
    for (size_t i = 0; i < th_json_len(addresses); i++) {
        const struct th_json *a = th_json_at(addresses, i);
        struct range r;
        if (is_allocators(a) && read_range(th_json_path_str(a, "metadata.name"), &r) &&
            contains(cidr, r) && !other_contains(cidrs, name, r)) {
            return false;
        }
    }
    return true;
}

static int set_ready(struct th_ctrl *c, const char *key, const struct th_json *cidr,
                     const char *status, const char *reason, const char *message,
                     struct th_err *err)
{
    struct th_json *now TH_AUTO(th_json) = th_json_dup(th_json_get(cidr, "status"));
    now = now ? now : th_json_object();
    (void)th_cond_put(th_json_path_array(now, "conditions"), "Ready", status, reason, message);
    return th_ctrl_write_status(c, key, GVR_CIDRS, cidr, now, err);
}

static int reconcile_cidr(struct th_ctrl *c, const char *key, int64_t *ret_after_ms,
                          struct th_err *err)
{
    struct th_json *cidr TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, GVR_CIDRS), "", key);
    struct th_json *now = NULL;
    if (!cidr) {
        return 0;
    }
    if (!th_json_path_str(cidr, "metadata.deletionTimestamp")) {
        if (!th_has_finalizer(cidr, FINALIZER)) {
            th_add_finalizer(cidr, FINALIZER);
            TH_TRY(th_client_update(th_ctrl_client(c), GVR_CIDRS, NULL, key, "", cidr, &now, err));
            th_json_unref(cidr);
            cidr = now;
        }
        return set_ready(c, key, cidr, "True", "", "Kubernetes Service CIDR is ready", err);
    }
    if (!th_has_finalizer(cidr, FINALIZER)) {
        return 0;
    }
    if (!can_go(c, cidr)) {
        return set_ready(c, key, cidr, "False", "Terminating",
                         "There are still IPAddresses referencing the ServiceCIDR, please remove "
                         "them or create a new ServiceCIDR",
                         err);
    }
    int64_t left = th_obj_time_ms(cidr, "metadata.deletionTimestamp") + DELETION_MS - th_now_ms();
    if (left > 0) {
        *ret_after_ms = left;
        return 0;
    }
    (void)th_drop_finalizer(cidr, FINALIZER);
    int r = th_client_update(th_ctrl_client(c), GVR_CIDRS, NULL, key, "", cidr, NULL, err);
    if (r == -TH_R_NOT_FOUND) {
        th_err_done(err);
        r = 0;
    }
    return r;
}

static bool enqueue(void *arg, struct th_json *obj)
{
    th_ctrl_enqueue_obj(arg, obj);
    return true;
}

static void on_cidr(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    if (now) {
        th_ctrl_enqueue_obj(c, now);
    }
    if (!old || !now) { /* another one may be held by it, or be free */
        th_informer_each(th_ctrl_informer(c, GVR_CIDRS), NULL, enqueue, c);
    }
}

static bool enqueue_going(void *arg, struct th_json *cidr)
{
    if (th_json_path_str(cidr, "metadata.deletionTimestamp")) {
        th_ctrl_enqueue_obj(arg, cidr);
    }
    return true;
}

static void on_cidrs_address(struct th_ctrl *c, const struct th_json *old,
                             const struct th_json *now)
{
    if (!old || !now) {
        th_informer_each(th_ctrl_informer(c, GVR_CIDRS), NULL, enqueue_going, c);
    }
}

static const struct th_ctrl_watch cidr_watches[] = {
    {.gvr = {"networking.k8s.io", "v1", "servicecidrs"}, .on_event = on_cidr},
    {.gvr = {"networking.k8s.io", "v1", "ipaddresses"}, .on_event = on_cidrs_address},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_servicecidr = {
    .name = "service-cidr-controller",
    .account = "service-cidrs-controller",
    .watches = cidr_watches,
    .reconcile = reconcile_cidr,
};

/* ---- Addresses of Services; keys are addresses ---- */

struct holder {
    const char *ip;
    struct th_json *service; /* a reference, or NULL */
};

static bool look_at_service(void *arg, struct th_json *service)
{
    struct holder *h = arg;
    if (th_streq(th_json_path_str(service, "spec.clusterIP"), h->ip)) {
        h->service = th_json_ref(service);
    }
    return !h->service;
}

static bool refers_to(const struct th_json *address, const struct th_json *service)
{
    const struct th_json *ref = th_json_path(address, "spec.parentRef");
    return th_streq(th_json_path_str(ref, "resource"), "services") &&
           th_streq(th_json_path_str(ref, "namespace"),
                    th_json_path_str(service, "metadata.namespace")) &&
           th_streq(th_json_path_str(ref, "name"), th_json_path_str(service, "metadata.name"));
}

static int make_address(struct th_ctrl *c, const char *key, const struct th_json *service,
                        struct th_err *err)
{
    struct th_json *a TH_AUTO(th_json) = th_json_build(
        "{'apiVersion':'networking.k8s.io/v1','kind':'IPAddress','metadata':{'name':%s,'labels':{"
        "'ipaddress.kubernetes.io/ip-family':'IPv4','" MANAGED_LABEL "':'" MANAGED_BY "'}},"
        "'spec':{'parentRef':{'group':'','resource':'services','namespace':%s,'name':%s}}}",
        key, th_json_path_str(service, "metadata.namespace"),
        th_json_path_str(service, "metadata.name"));
    int r = th_client_create(th_ctrl_client(c), GVR_ADDRESSES, NULL, a, NULL, err);
    if (r == -TH_R_ALREADY_EXISTS) { /* the cache is behind; its event comes here again */
        th_err_done(err);
        return 0;
    }
    if (r >= 0) {
        th_event_record(th_ctrl_recorder(c), service, "Warning", "ClusterIPNotAllocated",
                        "Cluster IP [IPv4]: %s is not allocated; repairing", key);
    }
    return r;
}

static int reconcile_address(struct th_ctrl *c, const char *key, int64_t *ret_after_ms,
                             struct th_err *err)
{
    struct holder h = {key, NULL};
    th_informer_each(th_ctrl_informer(c, TH_GVR_SERVICES), NULL, look_at_service, &h);
    struct th_json *service TH_AUTO(th_json) = h.service;
    struct th_json *address TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, GVR_ADDRESSES), "", key);
    if (!address) {
        return service ? make_address(c, key, service, err) : 0;
    }
    if (!is_allocators(address) || (service && refers_to(address, service))) {
        return 0;
    }
    int64_t left =
        th_obj_time_ms(address, "metadata.creationTimestamp") + ORPHAN_MS - th_now_ms();
    if (left > 0) {
        *ret_after_ms = left;
        return 0;
    }
    th_event_record(th_ctrl_recorder(c), address, "Warning", "IPAddressNotAllocated",
                    "IPAddress %s appears to have leaked: cleaning up", key);
    return th_ctrl_delete(c, key, GVR_ADDRESSES, address, NULL, err);
}

static void enqueue_ip(struct th_ctrl *c, const struct th_json *service)
{
    const char *ip = th_json_path_str(service, "spec.clusterIP");
    if (ip && *ip && !th_streq(ip, "None")) {
        th_ctrl_enqueue(c, ip);
    }
}

static void on_service(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    const char *was = th_json_path_str(old, "spec.clusterIP");
    if (!old || !now || !th_streq(was, th_json_path_str(now, "spec.clusterIP"))) {
        enqueue_ip(c, old);
        enqueue_ip(c, now);
    }
}

static const struct th_ctrl_watch address_watches[] = {
    {.gvr = {"", "v1", "services"}, .on_event = on_service},
    {.gvr = {"networking.k8s.io", "v1", "ipaddresses"}, .on_event = th_ctrl_on_self},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_service_addresses = {
    .name = "ipallocator-repair-controller",
    .account = "service-address-repair",
    .watches = address_watches,
    .reconcile = reconcile_address,
};
