/*
 * EndpointSlice: for every Service with a selector, the addresses of its pods.
 *
 * One slice per hundred endpoints, named "<service>-<5 characters>" and owned by the Service.
 * Slices that are there are filled again in their order, so that a change of one pod rewrites as
 * few as possible; surplus ones are deleted. A named targetPort may be a different number in each
 * pod, so pods are grouped by the ports they have.
 */
#include "controlplane/controllers/endpoint_util.h"
#include "controlplane/controllers/trigger_time.h"
#include "base/buf.h"

#define MAX_ENDPOINTS 100
#define MANAGED_BY "endpointslice-controller.k8s.io"
#define SERVICE_LABEL "kubernetes.io/service-name"
#define MANAGED_LABEL "endpointslice.kubernetes.io/managed-by"

/* ---- Events ---- */

static void on_slice(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    const struct th_json *obj = now ? now : old;
    const struct th_json *labels = th_json_path(obj, "metadata.labels");
    const char *svc = th_json_str(th_json_get(labels, SERVICE_LABEL));
    if (svc && th_streq(th_json_str(th_json_get(labels, MANAGED_LABEL)), MANAGED_BY)) {
        th_autofree char *key =
            th_xasprintf("%s/%s", th_json_path_str(obj, "metadata.namespace"), svc);
        th_ctrl_enqueue(c, key);
    }
}

/* ---- What the slices should hold ---- */

/* spec.trafficDistribution asks to keep traffic near: an endpoint is for its own zone, or node. */
static struct th_json *hints_for(const struct th_json *svc, const char *zone, const char *node)
{
    const char *wish = th_json_path_str(svc, "spec.trafficDistribution");
    bool same_node = th_streq(wish, "PreferSameNode");
    bool near = same_node || th_streq(wish, "PreferClose") || th_streq(wish, "PreferSameZone");
    struct th_json *hints = th_json_object();
    if (near && zone) {
        th_json_set(hints, "forZones", th_json_build("[{'name':%s}]", zone));
    }
    if (same_node && node) {
        th_json_set(hints, "forNodes", th_json_build("[{'name':%s}]", node));
    }
    return hints;
}

static struct th_json *endpoint_of(struct th_ctrl *c, const struct th_json *svc,
                                   const struct th_json *pod)
{
    bool deleting = th_json_path_str(pod, "metadata.deletionTimestamp") != NULL;
    bool serving = th_pod_is_ready(pod);
    bool always = th_json_path_bool(svc, "spec.publishNotReadyAddresses", false);
    bool ready = always || (serving && !deleting);
    struct th_json *ips = th_json_array();
    th_json_append_str(ips, th_json_path_str(pod, "status.podIP"));
    struct th_json *e = th_json_build(
        "{'addresses':%o,'conditions':{'ready':%b,'serving':%b,'terminating':%b},"
        "'targetRef':{'kind':'Pod','namespace':%s,'name':%s,'uid':%s}}",
        ips, ready, serving, deleting, th_json_path_str(pod, "metadata.namespace"),
        th_json_path_str(pod, "metadata.name"), th_json_path_str(pod, "metadata.uid"));
    const char *node = th_json_path_str(pod, "spec.nodeName");
    if (node && *node) {
        struct th_json *obj TH_AUTO(th_json) =
            th_informer_get(th_ctrl_informer(c, TH_GVR_NODES), NULL, node);
        const char *zone = th_json_str(
            th_json_get(th_json_path(obj, "metadata.labels"), "topology.kubernetes.io/zone"));
        struct th_json *hints TH_AUTO(th_json) = hints_for(svc, zone, node);
        th_json_set_str(e, "nodeName", node);
        if (zone && *zone) {
            th_json_set_str(e, "zone", zone);
        }
        if (ready && th_json_len(hints)) {
            th_json_set(e, "hints", th_json_ref(hints));
        }
    }
    const char *host = th_ep_hostname(svc, pod);
    if (host) {
        th_json_set_str(e, "hostname", host);
    }
    return e;
}

struct wanted {
    struct th_ctrl *c;
    const struct th_json *svc;
    struct th_json *groups; /* [{ports, endpoints}] */
    int64_t trigger_ms;
};

static void add_pod(struct wanted *w, const struct th_json *pod)
{
    struct th_json *ports TH_AUTO(th_json) = th_ep_ports(w->svc, pod, "");
    for (size_t i = 0; i < th_json_len(w->groups); i++) {
        struct th_json *g = th_json_at(w->groups, i);
        if (th_json_len(th_json_get(g, "endpoints")) < MAX_ENDPOINTS &&
            th_json_equal(th_json_get(g, "ports"), ports)) {
            th_json_append(th_json_get(g, "endpoints"), endpoint_of(w->c, w->svc, pod));
            return;
        }
    }
    struct th_json *endpoints = th_json_array();
    th_json_append(endpoints, endpoint_of(w->c, w->svc, pod));
    th_json_append(w->groups,
                   th_json_build("{'ports':%o,'endpoints':%o}", th_json_ref(ports), endpoints));
}

/* ---- Bringing the slices there ---- */

struct have {
    const char *service;
    struct th_json *slices;
};

static bool note_slice(void *arg, struct th_json *slice)
{
    struct have *h = arg;
    const struct th_json *labels = th_json_path(slice, "metadata.labels");
    if (th_streq(th_json_str(th_json_get(labels, SERVICE_LABEL)), h->service) &&
        th_streq(th_json_str(th_json_get(labels, MANAGED_LABEL)), MANAGED_BY)) {
        th_json_append(h->slices, th_json_dup(slice));
    }
    return true;
}

static struct th_json *slice_labels(const struct th_json *svc)
{
    struct th_json *labels = th_json_path(svc, "metadata.labels")
                                 ? th_json_dup(th_json_path(svc, "metadata.labels"))
                                 : th_json_object();
    th_json_set_str(labels, SERVICE_LABEL, th_json_path_str(svc, "metadata.name"));
    th_json_set_str(labels, MANAGED_LABEL, MANAGED_BY);
    if (th_streq(th_json_path_str(svc, "spec.clusterIP"), "None")) {
        th_json_set_str(labels, "service.kubernetes.io/headless", "");
    }
    return labels;
}

static int write_slice(struct th_ctrl *c, const char *key, const struct wanted *w,
                       const struct th_json *group, struct th_json *slice, struct th_err *err)
{
    const struct th_json *svc = w->svc;
    const char *ns = th_json_path_str(svc, "metadata.namespace");
    struct th_json *labels TH_AUTO(th_json) = slice_labels(svc);
    struct th_json *now TH_AUTO(th_json) = NULL;
    if (slice) {
        if (th_json_equal(th_json_get(slice, "endpoints"), th_json_get(group, "endpoints")) &&
            th_json_equal(th_json_get(slice, "ports"), th_json_get(group, "ports")) &&
            th_json_equal(th_json_path(slice, "metadata.labels"), labels)) {
            return 0;
        }
        th_json_set(slice, "endpoints", th_json_dup(th_json_get(group, "endpoints")));
        th_json_set(slice, "ports", th_json_dup(th_json_get(group, "ports")));
        th_json_path_set(slice, "metadata.labels", th_json_ref(labels));
        th_trigger_annotate(slice, w->trigger_ms);
        TH_TRY(th_client_update(th_ctrl_client(c), TH_GVR_ENDPOINTSLICES, ns,
                                th_json_path_str(slice, "metadata.name"), "", slice, &now, err));
    } else {
        struct th_json *owners = th_json_array();
        th_json_append(owners, th_owner_ref_build(svc, true, true));
        th_autofree char *base = th_xasprintf("%s-", th_json_path_str(svc, "metadata.name"));
        struct th_json *made TH_AUTO(th_json) = th_json_build(
            "{'apiVersion':'discovery.k8s.io/"
            "v1','kind':'EndpointSlice','addressType':'IPv4','metadata':"
            "{'generateName':%s,'namespace':%s,'labels':%o,'ownerReferences':%o},'endpoints':%o,'"
            "ports':%o}",
            base, ns, th_json_ref(labels), owners, th_json_dup(th_json_get(group, "endpoints")),
            th_json_dup(th_json_get(group, "ports")));
        th_trigger_annotate(made, w->trigger_ms);
        TH_TRY(th_client_create(th_ctrl_client(c), TH_GVR_ENDPOINTSLICES, ns, made, &now, err));
    }
    th_ctrl_expect(c, key, TH_GVR_ENDPOINTSLICES, now);
    return 0;
}

static int sync_slices(struct th_ctrl *c, const char *key, const struct th_json *svc,
                       const struct wanted *w, struct th_err *err)
{
    struct have h = {th_json_path_str(svc, "metadata.name"), th_json_array()};
    struct th_json *slices TH_AUTO(th_json) = h.slices;
    const char *ns = th_json_path_str(svc, "metadata.namespace");
    th_informer_each(th_ctrl_informer(c, TH_GVR_ENDPOINTSLICES), ns, note_slice, &h);
    size_t n = th_json_len(w->groups), have = th_json_len(slices);
    for (size_t i = 0; i < n; i++) {
        TH_TRY(write_slice(c, key, w, th_json_at(w->groups, i), th_json_at(slices, i), err));
    }
    /* An empty Service keeps one slice, as upstream does. */
    for (size_t i = n; i < have; i++) {
        struct th_json *slice = th_json_at(slices, i);
        if (i == 0) {
            struct th_json *none TH_AUTO(th_json) = th_json_build("{'ports':[],'endpoints':[]}");
            TH_TRY(write_slice(c, key, w, none, slice, err));
            continue;
        }
        TH_TRY(th_ctrl_delete(c, key, TH_GVR_ENDPOINTSLICES, slice, NULL, err));
    }
    if (n == 0 && have == 0) {
        struct th_json *none TH_AUTO(th_json) = th_json_build("{'ports':[],'endpoints':[]}");
        return write_slice(c, key, w, none, NULL, err);
    }
    return 0;
}

static int reconcile(struct th_ctrl *c, const char *key, int64_t *ret_after_ms, struct th_err *err)
{
    (void)ret_after_ms;
    struct th_json *svc TH_AUTO(th_json) = th_ep_service(c, key);
    if (!svc) {
        th_triggers_forget(th_ctrl_state(c), key);
        return 0; /* slices of a deleted Service go by their owner reference */
    }
    struct th_pods pods TH_CLEANUP(th_pods_done) = {NULL, 0, 0};
    struct th_json *groups TH_AUTO(th_json) = th_json_array();
    th_ep_pods(c, svc, &pods);
    struct wanted w = {.c = c, .svc = svc, .groups = groups};
    w.trigger_ms = th_triggers_step(th_ctrl_state(c), key, svc, &pods);
    for (size_t i = 0; i < pods.n; i++) {
        add_pod(&w, pods.v[i]);
    }
    return sync_slices(c, key, svc, &w, err);
}

static const struct th_ctrl_watch watches[] = {
    {.gvr = {"", "v1", "services"}, .on_event = th_ctrl_on_self},
    {.gvr = {"", "v1", "pods"}, .on_event = th_ep_on_pod},
    {.gvr = {"", "v1", "nodes"}},
    {.gvr = {"discovery.k8s.io", "v1", "endpointslices"}, .on_event = on_slice},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_endpointslice = {
    .name = "endpointslice-controller",
    .component = "endpoint-slice-controller",
    .account = "endpointslice-controller",
    .watches = watches,
    .reconcile = reconcile,
    .state_new = th_triggers_new,
    .state_free = th_triggers_free,
};
