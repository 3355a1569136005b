/*
 * What pods and workloads share: the QoS class, and the scale subresource. The rules of a PodSpec are
 * in rules_pod.c, what may change in a pod in rules_pod_update.c.
 */
#include "controlplane/resources/rows.h"
#include "base/buf.h"
#include "controlplane/schema/quantity.h"
#include "controlplane/schema/selector.h"
#include "controlplane/schema/validate.h"
#include <inttypes.h>

/* ---- QoS: pkg/apis/core/v1/helper/qos ---- */

static bool nonzero(const struct th_json *map, const char *name)
{
    struct th_quantity q;
    const char *text = th_json_str(th_json_get(map, name));
    return text && th_quantity_parse(text, &q, NULL) == 0 && q.nano != 0;
}

static void look(const struct th_json *containers, bool *any, bool *guaranteed)
{
    static const char *const names[] = {"cpu", "memory"};
    for (size_t i = 0; i < th_json_len(containers); i++) {
        const struct th_json *req = th_json_path(th_json_at(containers, i), "resources.requests");
        const struct th_json *lim = th_json_path(th_json_at(containers, i), "resources.limits");
        for (size_t k = 0; k < TH_ARRAY_LEN(names); k++) {
            bool has_req = nonzero(req, names[k]), has_lim = nonzero(lim, names[k]);
            *any = *any || has_req || has_lim;
            struct th_quantity a, b;
            bool same = has_lim && (!has_req ||
                                    (th_quantity_parse(th_json_str(th_json_get(req, names[k])), &a, NULL) == 0 &&
                                     th_quantity_parse(th_json_str(th_json_get(lim, names[k])), &b, NULL) == 0 &&
                                     th_quantity_cmp(a, b) == 0));
            *guaranteed = *guaranteed && same;
        }
    }
}

const char *th_pod_qos(const struct th_json *pod)
{
    bool any = false, guaranteed = true;
    look(th_json_path(pod, "spec.containers"), &any, &guaranteed);
    look(th_json_path(pod, "spec.initContainers"), &any, &guaranteed);
    return !any ? "BestEffort" : guaranteed ? "Guaranteed" : "Burstable";
}

/* ---- scale ---- */

int th_scale_get(const struct th_req_ctx *c, const struct th_json *obj, struct th_json **ret,
                 struct th_err *err)
{
    (void)c;
    (void)err;
    struct th_json *meta = th_json_object();
    static const char *const kept[] = {"name", "namespace", "uid", "resourceVersion", "creationTimestamp"};
    for (size_t i = 0; i < TH_ARRAY_LEN(kept); i++) {
        const char *v = th_json_str(th_json_get(th_json_get(obj, "metadata"), kept[i]));
        if (v) {
            th_json_set_str(meta, kept[i], v);
        }
    }
    struct th_json *scale = th_json_build(
        "{'kind':'Scale','apiVersion':'autoscaling/v1','metadata':%o,'spec':{},'status':{'replicas':%d}}", meta,
        th_json_path_int(obj, "status.replicas", 0));
    int64_t replicas = th_json_path_int(obj, "spec.replicas", 1);
    if (replicas) {
        th_json_path_set_int(scale, "spec.replicas", replicas);
    }
    struct th_selector *sel TH_AUTO(th_selector) = NULL;
    const struct th_json *selector = th_json_path(obj, "spec.selector");
    bool object_form = th_json_has(selector, "matchLabels") || th_json_has(selector, "matchExpressions");
    if (object_form ? th_selector_from_json(selector, &sel, NULL) == 0
                    : (sel = th_selector_from_map(selector)) != NULL) {
        th_autofree char *text = th_selector_format(sel);
        th_json_path_set_str(scale, "status.selector", text);
    }
    *ret = scale;
    return 0;
}

int th_scale_update(const struct th_req_ctx *c, const struct th_json *old, const struct th_json *body,
                    struct th_json **ret, struct th_err *err)
{
    (void)c;
    int64_t replicas = th_json_path_int(body, "spec.replicas", 0);
    if (replicas < 0) {
        th_invalid_int(err, "spec.replicas", replicas, "must be greater than or equal to 0");
        return th_invalid_finish(err, "autoscaling", "Scale", th_json_path_str(old, "metadata.name"));
    }
    struct th_json *obj = th_json_dup(old);
    th_json_path_set_int(obj, "spec.replicas", replicas);
    *ret = obj;
    return 0;
}
