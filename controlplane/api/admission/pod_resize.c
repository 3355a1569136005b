/* PodResizeValidator: a resize that the pod's node could never hold is refused at once, whatever else runs
 * there; whether there is room now is the node agent's to find. Only Linux nodes resize. */
#include "controlplane/api/admission/admission.h"

#include "controlplane/schema/podresources.h"

static int refuse(struct th_call *c, const char *pod, const char *cause, const char *why,
                  struct th_err *err)
{
    int r = th_fail_forbidden(err, c->res, pod, "%s", why);
    th_err_add_cause(err, cause, "", "%s", "");
    return r;
}

/* "cpu, requested: 2, allocatable: 1; memory, ..." (milli-CPU and bytes), or NULL: it fits. */
static char *too_much(const struct th_json *pod, const struct th_json *node)
{
    static const char *const names[] = {"cpu", "memory"};
    struct th_amounts asked TH_CLEANUP(th_amounts_done) = {NULL, 0};
    struct th_amounts has TH_CLEANUP(th_amounts_done) = {NULL, 0};
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_pod_requests(pod, &asked);
    th_amounts_read(&has, th_json_path(node, "status.allocatable"));
    for (size_t i = 0; i < TH_ARRAY_LEN(names); i++) {
        int64_t want = th_amounts_get(&asked, names[i]), most = th_amounts_get(&has, names[i]);
        if (want > most) {
            th_buf_printf(&b, "%s%s, requested: %lld, allocatable: %lld", b.n ? "; " : "", names[i],
                          (long long)want, (long long)most);
        }
    }
    return b.n ? th_xstrdup(th_buf_cstr(&b)) : NULL;
}

static int validate(struct th_call *c, const struct th_json *obj, const struct th_json *old,
                    struct th_err *err)
{
    const char *node_name = th_json_path_str(obj, "spec.nodeName");
    if (!old || !th_streq(c->ctx.subresource, "resize") || *c->res->group ||
        !th_streq(c->res->plural, "pods") || !node_name || !*node_name ||
        th_json_equal(th_json_get(obj, "spec"), th_json_get(old, "spec"))) {
        return 0;
    }
    const char *name = th_json_path_str(obj, "metadata.name");
    th_autofree char *key = th_xasprintf("core/nodes/-/%s", node_name);
    TH_AUTO(th_obj) struct th_obj *o = th_store_get(c->api->store, key);
    if (!o) {
        return th_fail_forbidden(err, c->res, name, "node \"%s\" not found", node_name);
    }
    TH_AUTO(th_json) struct th_json *node = NULL;
    TH_TRY(th_json_parse(o->bytes, o->n, NULL, &node, err));
    const struct th_json *labels = th_json_path(node, "metadata.labels");
    const char *os = th_json_str(th_json_get(labels, "kubernetes.io/os"));
    if (os && !th_streq(os, "linux")) {
        th_autofree char *why =
            th_xasprintf("pod resize is only supported on linux nodes, node \"%s\" is \"%s\"",
                         node_name, os);
        return refuse(c, name, "UnsupportedPlatform", why, err);
    }
    th_autofree char *over = too_much(obj, node);
    if (over) {
        th_autofree char *why =
            th_xasprintf("node didn't have enough allocatable resources: %s", over);
        return refuse(c, name, "NodeCapacity", why, err);
    }
    return 0;
}

const struct th_admission_plugin th_admission_pod_resize = {.name = "PodResizeValidator",
                                                            .validate = validate};
