/*
 * Pod: created Pending with its QoS class, bound to a node once, and deleted in two steps: a delete
 * sets the deletionTimestamp, and the node agent ends it with a grace period of 0. A pod that is on no
 * node, or that has ended, goes at once.
 */
#include "controlplane/resources/rows.h"
#include "base/buf.h"
#include "base/clock.h"
#include "controlplane/schema/validate.h"

const char *th_pod_selectable(const struct th_json *obj, const char *field, char *buf)
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

void th_pod_prepare_create(const struct th_req_ctx *c, struct th_json *obj)
{
    (void)c;
    struct th_json *status = th_json_object();
    th_json_set_str(status, "phase", "Pending");
    th_json_set_str(status, "qosClass", th_pod_qos(obj));
    if (th_json_len(th_json_path(obj, "spec.schedulingGates"))) {
        th_json_append(
            th_json_path_array(status, "conditions"),
            th_json_build("{'type':'PodScheduled','status':'False','reason':'SchedulingGated',"
                          "'message':'Scheduling is blocked due to non-empty scheduling gates'}"));
    }
    th_json_set(obj, "status", status);
}

void th_pod_prepare_update(const struct th_req_ctx *c, struct th_json *obj, const struct th_json *old)
{
    (void)c;
    const char *qos = th_json_path_str(old, "status.qosClass");
    if (qos) {
        th_json_path_set_str(obj, "status.qosClass", qos);
    }
}

void th_pod_validate_create(const struct th_req_ctx *c, const struct th_json *obj,
                            struct th_err *err)
{
    (void)c;
    if (th_json_len(th_json_path(obj, "spec.ephemeralContainers")) > 0) {
        th_invalid_forbidden(err, "spec.ephemeralContainers", "cannot be set on create");
    }
    const char *node = th_json_path_str(obj, "spec.nodeName");
    if (node && *node && th_json_len(th_json_path(obj, "spec.schedulingGates")) > 0) {
        th_invalid_forbidden(err, "spec.nodeName",
                             "cannot be set until all schedulingGates have been cleared");
    }
}

int64_t th_pod_grace(const struct th_req_ctx *c, const struct th_json *obj, int64_t asked)
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

int th_pod_bind(const struct th_req_ctx *c, const struct th_json *old,
                    const struct th_json *body, struct th_json **ret, struct th_err *err)
{
    TH_TRY(check_binding(old, body, err));
    struct th_json *pod = th_json_dup(old);
    th_json_path_set_str(pod, "spec.nodeName", th_json_path_str(body, "target.name"));
    static const char *const notes[] = {"metadata.annotations", "metadata.labels"};
    for (size_t i = 0; i < TH_ARRAY_LEN(notes); i++) {
        struct th_json_iter it = TH_JSON_ITER(th_json_path(body, notes[i]));
        while (th_json_next(&it)) {
            th_json_set(th_json_path_object(pod, notes[i]), it.name, th_json_dup(it.value));
        }
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
int th_binding_create(const struct th_req_ctx *c, const char *ns, const struct th_json *obj,
                        struct th_json **ret, struct th_err *err)
{
    const char *name = th_json_path_str(obj, "metadata.name");
    if (!name || !*name) {
        return th_fail(err, TH_R_BAD_REQUEST, "name must be provided");
    }
    return th_client_post(c->client, TH_GVR_PODS, ns, name, "binding", obj, ret, err);
}

/* ---- Other subresources ---- */

int th_pod_ephemeral(const struct th_req_ctx *c, const struct th_json *old, const struct th_json *body,
                     struct th_json **ret, struct th_err *err)
{
    (void)c;
    (void)err;
    struct th_json *pod = th_json_dup(old);
    th_json_path_set(pod, "spec.ephemeralContainers", th_json_dup(th_json_path(body, "spec.ephemeralContainers")));
    *ret = pod;
    return 0;
}

static bool same_names(const struct th_json *a, const struct th_json *b)
{
    bool same = th_json_len(a) == th_json_len(b);
    for (size_t i = 0; same && i < th_json_len(a); i++) {
        same = th_streq(th_json_path_str(th_json_at(a, i), "name"),
                        th_json_path_str(th_json_at(b, i), "name"));
    }
    return same;
}

/* Resources of containers; of the rest of the body only other containers, which validation refuses. */
int th_pod_resize(const struct th_req_ctx *c, const struct th_json *old, const struct th_json *body,
                  struct th_json **ret, struct th_err *err)
{
    (void)c;
    (void)err;
    struct th_json *pod = th_json_dup(old);
    static const char *const lists[] = {"spec.containers", "spec.initContainers"};
    for (size_t l = 0; l < TH_ARRAY_LEN(lists); l++) {
        const struct th_json *mine = th_json_path(pod, lists[l]);
        const struct th_json *theirs = th_json_path(body, lists[l]);
        if (!same_names(mine, theirs)) {
            th_json_path_set(pod, lists[l], theirs ? th_json_dup(theirs) : th_json_array());
            continue;
        }
        for (size_t i = 0; i < th_json_len(mine); i++) {
            const struct th_json *res = th_json_get(th_json_at(theirs, i), "resources");
            const struct th_json *pol = th_json_get(th_json_at(theirs, i), "resizePolicy");
            th_json_set(th_json_at(mine, i), "resources", res ? th_json_dup(res) : th_json_object());
            if (pol) {
                th_json_set(th_json_at(mine, i), "resizePolicy", th_json_dup(pol));
            }
        }
    }
    *ret = pod;
    return 0;
}
