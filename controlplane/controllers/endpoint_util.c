/* Services and their pods; see endpoint_util.h. */
#include "controlplane/controllers/endpoint_util.h"
#include "base/buf.h"

struct pod_event {
    struct th_ctrl *c;
    const struct th_json *labels[2];
};

static bool enqueue_selecting(void *arg, struct th_json *svc)
{
    struct pod_event *e = arg;
    struct th_selector *sel TH_AUTO(th_selector) =
        th_selector_from_map(th_json_path(svc, "spec.selector"));
    if (th_selector_matches(sel, e->labels[0]) ||
        (e->labels[1] && th_selector_matches(sel, e->labels[1]))) {
        th_ctrl_enqueue_obj(e->c, svc);
    }
    return true;
}

void th_ep_on_pod(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    struct pod_event e = {
        c,
        {th_json_path(now ? now : old, "metadata.labels"), th_json_path(old, "metadata.labels")}};
    th_informer_each(th_ctrl_informer(c, TH_GVR_SERVICES),
                     th_json_path_str(now ? now : old, "metadata.namespace"), enqueue_selecting,
                     &e);
}

struct th_json *th_ep_service(struct th_ctrl *c, const char *key)
{
    const char *name = NULL;
    th_autofree char *ns = th_ctrl_key_split(key, &name);
    struct th_json *svc TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, TH_GVR_SERVICES), ns, name);
    if (!svc || th_json_len(th_json_path(svc, "spec.selector")) == 0 ||
        th_streq(th_json_path_str(svc, "spec.type"), "ExternalName") ||
        th_json_path_str(svc, "metadata.deletionTimestamp")) {
        return NULL;
    }
    return th_steal(&svc);
}

struct select {
    struct th_selector *sel;
    struct th_pods *pods;
};

static bool add_pod(void *arg, struct th_json *pod)
{
    struct select *s = arg;
    const char *ip = th_json_path_str(pod, "status.podIP");
    const char *phase = th_json_path_str(pod, "status.phase");
    if (ip && *ip && !th_streq(phase, "Succeeded") && !th_streq(phase, "Failed") &&
        th_selector_matches(s->sel, th_json_path(pod, "metadata.labels"))) {
        th_pods_add(s->pods, pod);
    }
    return true;
}

void th_ep_pods(struct th_ctrl *c, const struct th_json *svc, struct th_pods *ret)
{
    struct th_selector *sel TH_AUTO(th_selector) =
        th_selector_from_map(th_json_path(svc, "spec.selector"));
    struct select s = {sel, ret};
    th_informer_each(th_ctrl_informer(c, TH_GVR_PODS), th_json_path_str(svc, "metadata.namespace"),
                     add_pod, &s);
}

static int64_t named_port(const struct th_json *containers, const char *name, const char *proto,
                          bool sidecars)
{
    for (size_t i = 0; i < th_json_len(containers); i++) {
        const struct th_json *container = th_json_at(containers, i);
        if (sidecars && !th_streq(th_json_path_str(container, "restartPolicy"), "Always")) {
            continue;
        }
        const struct th_json *ports = th_json_get(container, "ports");
        for (size_t k = 0; k < th_json_len(ports); k++) {
            const struct th_json *p = th_json_at(ports, k);
            const char *p_proto = th_json_path_str(p, "protocol");
            if (th_streq(th_json_path_str(p, "name"), name) &&
                th_streq(p_proto ? p_proto : "TCP", proto ? proto : "TCP")) {
                return th_json_path_int(p, "containerPort", 0);
            }
        }
    }
    return 0;
}

int64_t th_ep_target_port(const struct th_json *port, const struct th_json *pod)
{
    const struct th_json *target = th_json_get(port, "targetPort");
    const char *name = th_json_str(target);
    if (!name) {
        int64_t n = th_json_as_int(target, 0);
        return n ? n : th_json_path_int(port, "port", 0);
    }
    const char *proto = th_json_path_str(port, "protocol");
    int64_t n = named_port(th_json_path(pod, "spec.containers"), name, proto, false);
    return n ? n : named_port(th_json_path(pod, "spec.initContainers"), name, proto, true);
}

struct th_json *th_ep_ports(const struct th_json *svc, const struct th_json *pod, const char *unnamed)
{
    struct th_json *out = th_json_array();
    const struct th_json *ports = th_json_path(svc, "spec.ports");
    for (size_t i = 0; i < th_json_len(ports); i++) {
        const struct th_json *p = th_json_at(ports, i);
        int64_t number = th_ep_target_port(p, pod);
        if (number == 0) {
            continue;
        }
        const char *name = th_json_path_str(p, "name"), *proto = th_json_path_str(p, "protocol");
        const char *app = th_json_path_str(p, "appProtocol");
        struct th_json *port =
            th_json_build("{'port':%d,'protocol':%s}", number, proto ? proto : "TCP");
        name = name && *name ? name : unnamed;
        if (name) {
            th_json_set_str(port, "name", name);
        }
        if (app) {
            th_json_set_str(port, "appProtocol", app);
        }
        th_json_append(out, port);
    }
    return out;
}

const char *th_ep_hostname(const struct th_json *svc, const struct th_json *pod)
{
    const char *host = th_json_path_str(pod, "spec.hostname");
    bool ours = th_streq(th_json_path_str(pod, "spec.subdomain"),
                         th_json_path_str(svc, "metadata.name"));
    return ours && host && *host ? host : NULL;
}
