/*
 * Pod: created Pending with its QoS class, bound to a node once, and deleted in two steps: a delete
 * sets the deletionTimestamp, and the node agent ends it with a grace period of 0. A pod that is on no
 * node, or that has ended, goes at once.
 */
#include "controlplane/resources/cells.h"
#include "controlplane/resources/podrules.h"
#include "base/buf.h"
#include "base/clock.h"
#include "controlplane/schema/validate.h"

static const char *const short_names[] = {"po", NULL};
static const char *const categories[] = {"all", NULL};
static const char *const selectable[] = {
    "spec.nodeName",      "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName",
    "spec.hostNetwork",   "status.phase",       "status.podIP",       "status.podIPs",
    "status.nominatedNodeName", "spec.host", NULL};

static const char *selectable_value(const struct th_json *obj, const char *field, char *buf)
{
    (void)buf;
    if (th_streq(field, "spec.host")) {
        field = "spec.nodeName";
    }
    if (th_streq(field, "spec.hostNetwork")) {
        return th_json_path_bool(obj, field, false) ? "true" : "false";
    }
    if (th_streq(field, "status.podIPs")) {
        field = "status.podIPs[0].ip";
    }
    const char *v = th_json_path_str(obj, field);
    return v ? v : "";
}

static const struct th_column columns[] = {
    TH_COL_NAME,
    {"Ready", "string", "", "Containers that are ready, of all", 0},
    {"Status", "string", "", "What the pod is doing, in one word", 0},
    {"Restarts", "string", "", "How often containers were restarted, and when last", 0},
    TH_COL_AGE,
    {"IP", "string", "", "Address of the pod", 1},
    {"Node", "string", "", "Node the pod is on", 1},
    {"Nominated Node", "string", "", "Node that preemption makes room on", 1},
    {"Readiness Gates", "string", "", "Further conditions that are met, of all", 1},
    {0},
};

static void prepare_create(const struct th_req_ctx *c, struct th_json *obj)
{
    (void)c;
    struct th_json *status = th_json_object();
    th_json_set_str(status, "phase", "Pending");
    th_json_set_str(status, "qosClass", th_pod_qos(obj));
    th_json_set(obj, "status", status);
}

static void prepare_update(const struct th_req_ctx *c, struct th_json *obj, const struct th_json *old)
{
    (void)c;
    const char *qos = th_json_path_str(old, "status.qosClass");
    if (qos) {
        th_json_path_set_str(obj, "status.qosClass", qos);
    }
}

static void validate(const struct th_req_ctx *c, const struct th_json *obj, struct th_err *err)
{
    (void)c;
    th_validate_pod_spec(th_json_get(obj, "spec"), "spec", err);
}

static int64_t grace(const struct th_req_ctx *c, const struct th_json *obj, int64_t asked)
{
    (void)c;
    const char *node = th_json_path_str(obj, "spec.nodeName");
    const char *phase = th_json_path_str(obj, "status.phase");
    if (!node || !*node || th_streq(phase, "Succeeded") || th_streq(phase, "Failed")) {
        return 0;
    }
    return asked >= 0 ? asked : th_json_path_int(obj, "spec.terminationGracePeriodSeconds", 30);
}

/* ---- Binding ---- */

static int check_binding(const struct th_json *pod, const struct th_json *body, struct th_err *err)
{
    const char *node = th_json_path_str(body, "target.name");
    const char *kind = th_json_path_str(body, "target.kind");
    const char *name = th_json_path_str(pod, "metadata.name");
    static const char *const kinds[] = {"Node", "<empty>", NULL};
    if (kind && *kind && !th_streq(kind, "Node")) {
        th_invalid_not_supported(err, "target.kind", kind, kinds);
    }
    if (!node || !*node) {
        th_invalid_required(err, "target.name", "");
    }
    TH_TRY(th_invalid_finish(err, "", "Binding", name));
    const char *uid = th_json_path_str(body, "metadata.uid");
    const char *have = th_json_path_str(pod, "metadata.uid");
    const char *why = NULL;
    th_autofree char *text = NULL;
    const char *now = th_json_path_str(pod, "spec.nodeName");
    if (uid && *uid && !th_streq(uid, have)) {
        why = text = th_xasprintf("Precondition failed: UID in precondition: %s, UID in object "
                                  "meta: %s", uid, have ? have : "");
    } else if (th_json_path_str(pod, "metadata.deletionTimestamp")) {
        why = text = th_xasprintf("pod %s is being deleted, cannot be assigned to a host", name);
    } else if (now && *now) {
        why = text = th_xasprintf("pod %s is already assigned to node \"%s\"", name, now);
    } else if (th_json_len(th_json_path(pod, "spec.schedulingGates")) > 0) {
        why = text = th_xasprintf("pod %s has non-empty .spec.schedulingGates", name);
    }
    if (!why) {
        return 0;
    }
    return th_fail(err, TH_R_CONFLICT,
                   "Operation cannot be fulfilled on pods/binding \"%s\": %s", name, why);
}

static int bind_pod(const struct th_req_ctx *c, const struct th_json *old,
                    const struct th_json *body, struct th_json **ret, struct th_err *err)
{
    TH_TRY(check_binding(old, body, err));
    struct th_json *pod = th_json_dup(old);
    th_json_path_set_str(pod, "spec.nodeName", th_json_path_str(body, "target.name"));
    struct th_json_iter it = TH_JSON_ITER(th_json_path(body, "metadata.annotations"));
    while (th_json_next(&it)) {
        th_json_set(th_json_path_object(pod, "metadata.annotations"), it.name,
                    th_json_dup(it.value));
    }
    char text[TH_TIME_LEN];
    struct th_json *conditions = th_json_path_array(pod, "status.conditions");
    struct th_json *scheduled =
        th_json_build("{'type':'PodScheduled','status':'True','lastTransitionTime':%s}",
                      th_time_format(c->now_ms, text));
    for (size_t i = 0; i < th_json_len(conditions); i++) {
        if (th_streq(th_json_path_str(th_json_at(conditions, i), "type"), "PodScheduled")) {
            th_json_set_at(conditions, i, scheduled);
            *ret = pod;
            return 0;
        }
    }
    th_json_append(conditions, scheduled);
    *ret = pod;
    return 0;
}

/* The Binding kind of old: its own name says which pod. */
static int bind_virtual(const struct th_req_ctx *c, const char *ns, const struct th_json *obj,
                        struct th_json **ret, struct th_err *err)
{
    const char *name = th_json_path_str(obj, "metadata.name");
    if (!name || !*name) {
        return th_fail(err, TH_R_BAD_REQUEST, "name must be provided");
    }
    return th_client_post(c->client, TH_GVR_PODS, ns, name, "binding", obj, ret, err);
}

const struct th_resource th_res_core_bindings = {
    .group = "",
    .version = "v1",
    .kind = "Binding",
    .plural = "bindings",
    .singular = "binding",
    .namespaced = true,
    .verbs = TH_VERB_CREATE,
    .s = {.create_virtual = bind_virtual},
};

/* ---- Other subresources ---- */

static int evict(const struct th_req_ctx *c, const char *ns, const char *name, const struct th_json *body,
                 struct th_json **ret, struct th_err *err)
{
    struct th_delete_opts o = TH_DELETE_OPTS_INIT;
    o.grace_s = th_json_path_int(body, "deleteOptions.gracePeriodSeconds", -1);
    o.uid = th_json_path_str(body, "deleteOptions.preconditions.uid");
    TH_TRY(th_client_delete(c->client, TH_GVR_PODS, ns, name, &o, NULL, err));
    *ret = th_json_build("{'kind':'Status','apiVersion':'v1','metadata':{},'status':'Success','code':%d}",
                         (int64_t)201);
    return 0;
}

static int ephemeral(const struct th_req_ctx *c, const struct th_json *old, const struct th_json *body,
                     struct th_json **ret, struct th_err *err)
{
    (void)c;
    (void)err;
    struct th_json *pod = th_json_dup(old);
    th_json_path_set(pod, "spec.ephemeralContainers", th_json_dup(th_json_path(body, "spec.ephemeralContainers")));
    *ret = pod;
    return 0;
}

/* Resources of containers, by name; nothing else of the body counts. */
static int resize(const struct th_req_ctx *c, const struct th_json *old, const struct th_json *body,
                  struct th_json **ret, struct th_err *err)
{
    (void)c;
    (void)err;
    struct th_json *pod = th_json_dup(old);
    static const char *const lists[] = {"spec.containers", "spec.initContainers"};
    for (size_t l = 0; l < TH_ARRAY_LEN(lists); l++) {
        const struct th_json *mine = th_json_path(pod, lists[l]);
        const struct th_json *theirs = th_json_path(body, lists[l]);
        for (size_t i = 0; i < th_json_len(mine) && i < th_json_len(theirs); i++) {
            const struct th_json *res = th_json_get(th_json_at(theirs, i), "resources");
            const struct th_json *pol = th_json_get(th_json_at(theirs, i), "resizePolicy");
            if (res) {
                th_json_set(th_json_at(mine, i), "resources", th_json_dup(res));
            }
            if (pol) {
                th_json_set(th_json_at(mine, i), "resizePolicy", th_json_dup(pol));
            }
        }
    }
    *ret = pod;
    return 0;
}

#define RWP (TH_VERB_GET | TH_VERB_UPDATE | TH_VERB_PATCH)
static const struct th_subresource subs[] = {
    {"attach", "", "v1", "PodAttachOptions", TH_VERB_CREATE | TH_VERB_GET},
    {"binding", "", "v1", "Binding", TH_VERB_CREATE, .update = bind_pod},
    {"ephemeralcontainers", "", "v1", "Pod", RWP, .update = ephemeral},
    {"eviction", "policy", "v1", "Eviction", TH_VERB_CREATE, .create = evict},
    {"exec", "", "v1", "PodExecOptions", TH_VERB_CREATE | TH_VERB_GET},
    {"log", "", "v1", "Pod", TH_VERB_GET},
    {"portforward", "", "v1", "PodPortForwardOptions", TH_VERB_CREATE | TH_VERB_GET},
    {"proxy", "", "v1", "PodProxyOptions",
     TH_VERB_CREATE | TH_VERB_DELETE | TH_VERB_GET | TH_VERB_PATCH | TH_VERB_UPDATE},
    {"resize", "", "v1", "Pod", RWP, .update = resize},
    {"status", "", "v1", "Pod", RWP},
    {0},
};

const struct th_resource th_res_core_pods = {
    .group = "",
    .version = "v1",
    .kind = "Pod",
    .plural = "pods",
    .singular = "pod",
    .short_names = short_names,
    .categories = categories,
    .namespaced = true,
    .verbs = TH_VERBS_ALL,
    .storage_hash = "xPOwRZ+Yhw8=",
    .subs = subs,
    .columns = columns,
    .row = th_pod_row,
    .selectable = selectable,
    .selectable_value = selectable_value,
    .s = {.prepare_create = prepare_create,
          .prepare_update = prepare_update,
          .validate = validate,
          .validate_update = th_pod_validate_update,
          .grace = grace,
          .has_generation = true},
};
