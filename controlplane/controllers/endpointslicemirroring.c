/*
 * EndpointSlice mirroring: for a Service without a selector somebody writes the Endpoints by hand;
 * consumers read slices, so each of its subsets is mirrored into slices that the Endpoints own.
 *
 * Rules as k8s.io/kubernetes pkg/controller/endpointslicemirroring: not for Endpoints that carry
 * the label skip-mirror or a leader annotation, nor for those without a Service; labels and
 * annotations come along; at most MAX_ADDRESSES of a subset.
 */
#include "controlplane/controllers/controller.h"
#include "base/buf.h"

#define MAX_ADDRESSES 1000
#define MANAGED_BY "endpointslicemirroring-controller.k8s.io"
#define MANAGED_LABEL "endpointslice.kubernetes.io/managed-by"
#define SERVICE_LABEL "kubernetes.io/service-name"
#define SKIP_LABEL "endpointslice.kubernetes.io/skip-mirror"
#define LEADER_ANNOTATION "control-plane.alpha.kubernetes.io/leader"

static const char *label(const struct th_json *obj, const char *name)
{
    return th_json_str(th_json_get(th_json_path(obj, "metadata.labels"), name));
}

/* The Endpoints of the key when they are to be mirrored; the caller unrefs. */
static struct th_json *source_of(struct th_ctrl *c, const char *ns, const char *name)
{
    struct th_json *ep TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, TH_GVR_ENDPOINTS), ns, name);
    struct th_json *svc TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, TH_GVR_SERVICES), ns, name);
    if (!ep || !svc || th_streq(label(ep, SKIP_LABEL), "true") ||
        th_json_has(th_json_path(ep, "metadata.annotations"), LEADER_ANNOTATION) ||
        th_json_path(svc, "spec.selector")) {
        return NULL;
    }
    return th_steal(&ep);
}

static struct th_json *labels_for(const struct th_json *ep)
{
    struct th_json *labels = th_json_path(ep, "metadata.labels")
                                 ? th_json_dup(th_json_path(ep, "metadata.labels"))
                                 : th_json_object();
    th_json_set_str(labels, SERVICE_LABEL, th_json_path_str(ep, "metadata.name"));
    th_json_set_str(labels, MANAGED_LABEL, MANAGED_BY);
    return labels;
}

static struct th_json *annotations_for(const struct th_json *ep)
{
    struct th_json *a = th_json_path(ep, "metadata.annotations")
                            ? th_json_dup(th_json_path(ep, "metadata.annotations"))
                            : th_json_object();
    (void)th_json_del(a, "kubectl.kubernetes.io/last-applied-configuration");
    return a;
}

static struct th_json *ports_of(const struct th_json *subset)
{
    struct th_json *out = th_json_array();
    const struct th_json *ports = th_json_get(subset, "ports");
    for (size_t i = 0; i < th_json_len(ports); i++) {
        struct th_json *p = th_json_dup(th_json_at(ports, i));
        if (!th_json_has(p, "name")) {
            th_json_set_str(p, "name", "");
        }
        if (!th_json_has(p, "protocol")) {
            th_json_set_str(p, "protocol", "TCP");
        }
        th_json_append(out, p);
    }
    return out;
}

static void add_endpoints(struct th_json *out, const struct th_json *addresses, bool ready,
                          bool v6)
{
    static const char *const copied[] = {"hostname", "nodeName", "targetRef"};
    for (size_t i = 0; i < th_json_len(addresses) && th_json_len(out) < MAX_ADDRESSES; i++) {
        const struct th_json *a = th_json_at(addresses, i);
        const char *ip = th_json_path_str(a, "ip");
        if (!ip || (strchr(ip, ':') != NULL) != v6) {
            continue;
        }
        struct th_json *ips = th_json_array();
        th_json_append_str(ips, ip);
        struct th_json *e =
            th_json_build("{'addresses':%o,'conditions':{'ready':%b}}", ips, ready);
        for (size_t k = 0; k < TH_ARRAY_LEN(copied); k++) {
            if (th_json_get(a, copied[k])) {
                th_json_set(e, copied[k], th_json_dup(th_json_get(a, copied[k])));
            }
        }
        th_json_append(out, e);
    }
}

/* The slices that there should be, without name and owner. */
static struct th_json *wanted_of(const struct th_json *ep)
{
    struct th_json *out = th_json_array();
    const struct th_json *subsets = th_json_get(ep, "subsets");
    for (size_t i = 0; i < th_json_len(subsets) * 2; i++) {
        const struct th_json *subset = th_json_at(subsets, i / 2);
        bool v6 = i % 2;
        struct th_json *endpoints TH_AUTO(th_json) = th_json_array();
        add_endpoints(endpoints, th_json_get(subset, "addresses"), true, v6);
        add_endpoints(endpoints, th_json_get(subset, "notReadyAddresses"), false, v6);
        if (th_json_len(endpoints) == 0) {
            continue;
        }
        th_json_append(out, th_json_build("{'addressType':%s,'endpoints':%o,'ports':%o}",
                                          v6 ? "IPv6" : "IPv4", th_json_ref(endpoints),
                                          ports_of(subset)));
    }
    return out;
}

struct have {
    const char *service;
    struct th_json *slices;
};

static bool note_slice(void *arg, struct th_json *slice)
{
    struct have *h = arg;
    if (th_streq(label(slice, SERVICE_LABEL), h->service) &&
        th_streq(label(slice, MANAGED_LABEL), MANAGED_BY)) {
        th_json_append(h->slices, th_json_ref(slice));
    }
    return true;
}

static bool same_slice(const struct th_json *have, const struct th_json *want)
{
    return th_streq(th_json_path_str(have, "addressType"), th_json_path_str(want, "addressType")) &&
           th_json_equal(th_json_get(have, "endpoints"), th_json_get(want, "endpoints")) &&
           th_json_equal(th_json_get(have, "ports"), th_json_get(want, "ports"));
}

/* Writes want into have (NULL: into a new one). */
static int write_slice(struct th_ctrl *c, const char *key, const struct th_json *ep,
                       struct th_json *have, const struct th_json *want, struct th_err *err)
{
    const char *ns = th_json_path_str(ep, "metadata.namespace");
    struct th_json *labels TH_AUTO(th_json) = labels_for(ep);
    struct th_json *annotations TH_AUTO(th_json) = annotations_for(ep);
    struct th_json *now TH_AUTO(th_json) = NULL;
    const struct th_json *shown = th_json_path(have, "metadata.annotations");
    if (have && same_slice(have, want) &&
        th_json_equal(th_json_path(have, "metadata.labels"), labels) &&
        (shown ? th_json_equal(shown, annotations) : th_json_len(annotations) == 0)) {
        return 0;
    }
    struct th_json *owners = th_json_array();
    th_json_append(owners, th_owner_ref_build(ep, true, true));
    th_autofree char *base = th_xasprintf("%s-", th_json_path_str(ep, "metadata.name"));
    struct th_json *obj TH_AUTO(th_json) =
        have ? th_json_ref(have)
             : th_json_build("{'apiVersion':'discovery.k8s.io/v1','kind':'EndpointSlice',"
                             "'metadata':{'generateName':%s,'namespace':%s}}",
                             base, ns);
    th_json_path_set(obj, "metadata.ownerReferences", owners);
    th_json_path_set(obj, "metadata.labels", th_json_ref(labels));
    th_json_path_set(obj, "metadata.annotations", th_json_ref(annotations));
    th_json_set_str(obj, "addressType", th_json_path_str(want, "addressType"));
    th_json_set(obj, "endpoints", th_json_dup(th_json_get(want, "endpoints")));
    th_json_set(obj, "ports", th_json_dup(th_json_get(want, "ports")));
    int r = have ? th_client_update(th_ctrl_client(c), TH_GVR_ENDPOINTSLICES, ns,
                                    th_json_path_str(obj, "metadata.name"), "", obj, &now, err)
                 : th_client_create(th_ctrl_client(c), TH_GVR_ENDPOINTSLICES, ns, obj, &now, err);
    TH_TRY(r);
    th_ctrl_expect(c, key, TH_GVR_ENDPOINTSLICES, now);
    return 0;
}

/* A slice that may be rewritten as want: its address type cannot change. */
static struct th_json *take_slice(struct th_json *slices, const struct th_json *want)
{
    for (size_t i = 0; i < th_json_len(slices); i++) {
        struct th_json *s = th_json_at(slices, i);
        if (th_streq(th_json_path_str(s, "addressType"), th_json_path_str(want, "addressType"))) {
            struct th_json *taken = th_json_ref(s);
            th_json_del_at(slices, i);
            return taken;
        }
    }
    return NULL;
}

static int reconcile(struct th_ctrl *c, const char *key, int64_t *ret_after_ms, struct th_err *err)
{
    (void)ret_after_ms;
    const char *name = NULL;
    th_autofree char *ns = th_ctrl_key_split(key, &name);
    struct th_json *ep TH_AUTO(th_json) = source_of(c, ns, name);
    struct th_json *slices TH_AUTO(th_json) = th_json_array();
    struct th_json *wanted TH_AUTO(th_json) = ep ? wanted_of(ep) : th_json_array();
    struct have h = {name, slices};
    th_informer_each(th_ctrl_informer(c, TH_GVR_ENDPOINTSLICES), ns, note_slice, &h);
    for (size_t i = 0; i < th_json_len(wanted); i++) {
        const struct th_json *want = th_json_at(wanted, i);
        struct th_json *have TH_AUTO(th_json) = take_slice(slices, want);
        TH_TRY(write_slice(c, key, ep, have, want, err));
    }
    for (size_t i = 0; i < th_json_len(slices); i++) {
        TH_TRY(th_ctrl_delete(c, key, TH_GVR_ENDPOINTSLICES, th_json_at(slices, i), NULL, err));
    }
    return 0;
}

static void on_slice(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    const struct th_json *obj = now ? now : old;
    const char *svc = label(obj, SERVICE_LABEL);
    if (svc && th_streq(label(obj, MANAGED_LABEL), MANAGED_BY)) {
        th_autofree char *key =
            th_xasprintf("%s/%s", th_json_path_str(obj, "metadata.namespace"), svc);
        th_ctrl_enqueue(c, key);
    }
}

static const struct th_ctrl_watch watches[] = {
    {.gvr = {"", "v1", "services"}, .on_event = th_ctrl_on_self},
    {.gvr = {"", "v1", "endpoints"}, .on_event = th_ctrl_on_self},
    {.gvr = {"discovery.k8s.io", "v1", "endpointslices"}, .on_event = on_slice},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_endpointslicemirroring = {
    .name = "endpointslice-mirroring-controller",
    .component = "endpoint-slice-mirroring-controller",
    .account = "endpointslicemirroring-controller",
    .watches = watches,
    .reconcile = reconcile,
};
