/* PodTopologyLabels: a pod that gets a node, by Binding or from the start, carries that node's zone
 * and region as labels of its own. */
#include "controlplane/api/admission/admission.h"

static int mutate(struct th_call *c, struct th_json *obj, const struct th_json *old,
                  struct th_err *err)
{
    (void)err;
    static const char *const labels[] = {"topology.kubernetes.io/zone",
                                         "topology.kubernetes.io/region"};
    const char *node_name = th_json_path_str(obj, "spec.nodeName");
    bool bound = c->sub && th_streq(c->sub->name, "binding") && !*c->res->group &&
                 th_streq(c->res->plural, "pods");
    if ((!bound && !th_admission_creates(c, "", "pods", old)) || !node_name || !*node_name) {
        return 0;
    }
    th_autofree char *key = th_xasprintf("core/nodes/-/%s", node_name);
    TH_AUTO(th_obj) struct th_obj *o = th_store_get(c->api->store, key);
    TH_AUTO(th_json) struct th_json *node = NULL;
    if (!o || th_json_parse(o->bytes, o->n, NULL, &node, NULL) < 0) {
        return 0;
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(labels); i++) {
        const char *v = th_json_str(th_json_get(th_json_path(node, "metadata.labels"), labels[i]));
        if (v) {
            th_json_set_str(th_json_path_object(obj, "metadata.labels"), labels[i], v);
        }
    }
    return 0;
}

const struct th_admission_plugin th_admission_pod_topology = {.name = "PodTopologyLabels",
                                                              .mutate = mutate};
