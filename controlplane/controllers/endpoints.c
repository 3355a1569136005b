/*
 * Endpoints: the older form of a Service's addresses, for clients that still read it. One object of
 * the Service's name; addresses that have the same ports make a subset.
 *
 * Rules as k8s.io/kubernetes pkg/controller/endpoint: subsets are packed so that every set of ports
 * appears once, at most MAX_ADDRESSES are kept (ready ones first) and the object says so. Objects
 * that somebody else made for a Service without a selector are left alone (the mirroring controller
 * makes slices of them).
 */
#include "controlplane/controllers/endpoint_util.h"
#include "controlplane/controllers/trigger_time.h"
#include "base/buf.h"

#define MAX_ADDRESSES 1000
#define MANAGED_LABEL "endpoints.kubernetes.io/managed-by"
#define MANAGED_BY "endpoint-controller"
#define HEADLESS_LABEL "service.kubernetes.io/headless"
#define CAPACITY_ANNOTATION "endpoints.kubernetes.io/over-capacity"

static struct th_json *address_of(const struct th_json *svc, const struct th_json *pod)
{
    struct th_json *a = th_json_build(
        "{'ip':%s,'targetRef':{'kind':'Pod','namespace':%s,'name':%s,'uid':%s}}",
        th_json_path_str(pod, "status.podIP"), th_json_path_str(pod, "metadata.namespace"),
        th_json_path_str(pod, "metadata.name"), th_json_path_str(pod, "metadata.uid"));
    const char *node = th_json_path_str(pod, "spec.nodeName");
    if (node && *node) {
        th_json_set_str(a, "nodeName", node);
    }
    const char *host = th_ep_hostname(svc, pod);
    if (host) {
        th_json_set_str(a, "hostname", host);
    }
    return a;
}

static int compare_ports(const struct th_json *a, const struct th_json *b)
{
    const char *na = th_json_path_str(a, "name"), *nb = th_json_path_str(b, "name");
    int d = strcmp(na ? na : "", nb ? nb : "");
    return d ? d : (int)(th_json_path_int(a, "port", 0) - th_json_path_int(b, "port", 0));
}

static int compare_addresses(const struct th_json *a, const struct th_json *b)
{
    int d = strcmp(th_json_path_str(a, "ip"), th_json_path_str(b, "ip"));
    return d ? d
             : strcmp(th_json_path_str(a, "targetRef.uid"), th_json_path_str(b, "targetRef.uid"));
}

static struct th_json *subset_with(struct th_json *subsets, struct th_json *ports)
{
    for (size_t i = 0; i < th_json_len(subsets); i++) {
        struct th_json *s = th_json_at(subsets, i);
        if (th_json_equal(th_json_get(s, "ports"), ports)) {
            return s;
        }
    }
    struct th_json *s = th_json_object();
    if (ports) {
        th_json_set(s, "ports", th_json_ref(ports));
    }
    th_json_append(subsets, s);
    return s;
}

/* A pod without any of the ports has no place, except in a headless Service without ports. */
static void add_pod(struct th_json *subsets, const struct th_json *svc, const struct th_json *pod)
{
    bool headless = th_streq(th_json_path_str(svc, "spec.clusterIP"), "None");
    bool portless = th_json_len(th_json_path(svc, "spec.ports")) == 0;
    struct th_json *ports TH_AUTO(th_json) = portless ? NULL : th_ep_ports(svc, pod, NULL);
    th_json_sort(ports, compare_ports);
    if (portless ? !headless : th_json_len(ports) == 0) {
        return;
    }
    bool ready =
        th_json_path_bool(svc, "spec.publishNotReadyAddresses", false) || th_pod_is_ready(pod);
    struct th_json *list = th_json_path_array(subset_with(subsets, ports),
                                              ready ? "addresses" : "notReadyAddresses");
    th_json_append(list, address_of(svc, pod));
}

/* True when addresses had to be left out. */
static bool finish(struct th_json *subsets)
{
    static const char *const lists[] = {"addresses", "notReadyAddresses"};
    size_t room = MAX_ADDRESSES;
    bool cut = false;
    for (size_t l = 0; l < TH_ARRAY_LEN(lists); l++) {
        for (size_t i = 0; i < th_json_len(subsets); i++) {
            struct th_json *list = th_json_get(th_json_at(subsets, i), lists[l]);
            th_json_sort(list, compare_addresses);
            while (th_json_len(list) > room) {
                th_json_del_at(list, th_json_len(list) - 1);
                cut = true;
            }
            room -= th_json_len(list);
        }
    }
    return cut;
}

static struct th_json *labels_for(const struct th_json *svc)
{
    struct th_json *labels = th_json_path(svc, "metadata.labels")
                                 ? th_json_dup(th_json_path(svc, "metadata.labels"))
                                 : th_json_object();
    if (th_streq(th_json_path_str(svc, "spec.clusterIP"), "None")) {
        th_json_set_str(labels, HEADLESS_LABEL, "");
    } else {
        (void)th_json_del(labels, HEADLESS_LABEL);
    }
    th_json_set_str(labels, MANAGED_LABEL, MANAGED_BY);
    return labels;
}

static int write_object(struct th_ctrl *c, const char *key, const struct th_json *svc,
                        struct th_json *subsets, bool cut, int64_t trigger_ms, struct th_err *err)
{
    const char *ns = th_json_path_str(svc, "metadata.namespace");
    const char *name = th_json_path_str(svc, "metadata.name");
    struct th_json *have TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, TH_GVR_ENDPOINTS), ns, name);
    struct th_json *labels TH_AUTO(th_json) = labels_for(svc);
    const struct th_json *annotations = th_json_path(have, "metadata.annotations");
    const struct th_json *shown = th_json_get(have, "subsets");
    bool same_subsets = th_json_len(shown) == 0 ? th_json_len(subsets) == 0
                                                : th_json_equal(shown, subsets);
    if (have && same_subsets && th_json_equal(th_json_path(have, "metadata.labels"), labels) &&
        th_json_has(annotations, CAPACITY_ANNOTATION) == cut) {
        return 0;
    }
    struct th_json *obj TH_AUTO(th_json) =
        have ? th_json_ref(have)
             : th_json_build("{'apiVersion':'v1','kind':'Endpoints','metadata':{'name':%s,"
                             "'namespace':%s}}",
                             name, ns);
    th_json_path_set(obj, "metadata.labels", th_json_ref(labels));
    th_json_set(obj, "subsets", th_json_ref(subsets));
    th_trigger_annotate(obj, trigger_ms);
    if (cut) {
        th_json_set_str(th_json_path_object(obj, "metadata.annotations"), CAPACITY_ANNOTATION,
                        "truncated");
    } else {
        (void)th_json_del(th_json_path(obj, "metadata.annotations"), CAPACITY_ANNOTATION);
    }
    struct th_json *now TH_AUTO(th_json) = NULL;
    int r = have ? th_client_update(th_ctrl_client(c), TH_GVR_ENDPOINTS, ns, name, "", obj, &now,
                                    err)
                 : th_client_create(th_ctrl_client(c), TH_GVR_ENDPOINTS, ns, obj, &now, err);
    TH_TRY(r);
    th_ctrl_expect(c, key, TH_GVR_ENDPOINTS, now);
    return 0;
}

/* The Service is gone: so is its object, when it was ours. */
static int clean_up(struct th_ctrl *c, const char *key, struct th_err *err)
{
    const char *name = NULL;
    th_autofree char *ns = th_ctrl_key_split(key, &name);
    struct th_json *svc TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, TH_GVR_SERVICES), ns, name);
    struct th_json *have TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, TH_GVR_ENDPOINTS), ns, name);
    th_triggers_forget(th_ctrl_state(c), key);
    return svc || !have ? 0 : th_ctrl_delete(c, key, TH_GVR_ENDPOINTS, have, NULL, err);
}

static int reconcile(struct th_ctrl *c, const char *key, int64_t *ret_after_ms, struct th_err *err)
{
    (void)ret_after_ms;
    struct th_json *svc TH_AUTO(th_json) = th_ep_service(c, key);
    if (!svc) {
        return clean_up(c, key, err);
    }
    struct th_pods pods TH_CLEANUP(th_pods_done) = {NULL, 0, 0};
    struct th_json *subsets TH_AUTO(th_json) = th_json_array();
    th_ep_pods(c, svc, &pods);
    bool always = th_json_path_bool(svc, "spec.publishNotReadyAddresses", false);
    for (size_t i = 0; i < pods.n; i++) {
        if (always || !th_json_path_str(pods.v[i], "metadata.deletionTimestamp")) {
            add_pod(subsets, svc, pods.v[i]);
        }
    }
    bool cut = finish(subsets);
    int64_t trigger_ms = th_triggers_step(th_ctrl_state(c), key, svc, &pods);
    return write_object(c, key, svc, subsets, cut, trigger_ms, err);
}

/* One that is deleted is made again; others' objects are not our business. */
static void on_endpoints(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    if (!now) {
        th_ctrl_enqueue_obj(c, old);
    }
}

static const struct th_ctrl_watch watches[] = {
    {.gvr = {"", "v1", "services"}, .on_event = th_ctrl_on_self},
    {.gvr = {"", "v1", "pods"}, .on_event = th_ep_on_pod},
    {.gvr = {"", "v1", "endpoints"}, .on_event = on_endpoints},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_endpoints = {
    .name = "endpoints-controller",
    .component = "endpoint-controller",
    .account = "endpoint-controller",
    .watches = watches,
    .reconcile = reconcile,
    .state_new = th_triggers_new,
    .state_free = th_triggers_free,
};
