/* What may change in a pod: images, activeDeadlineSeconds, added tolerations, gates taken away, and
 * where a gated pod may go (upstream: ValidatePodUpdate). */
#include "controlplane/resources/rows.h"
#include "controlplane/resources/rules.h"

#include "base/buf.h"

#define TERMS "requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"

/* Containers come and go only by their own subresources; true when the rest cannot be compared. */
static bool count_changed(const struct th_view *v, const struct th_json *old, const char *list)
{
    if (th_view_len(v, list) == th_json_len(th_json_get(old, list))) {
        return false;
    }
    th_bad_forbidden(v, list, "pod updates may not add or remove containers");
    return true;
}

static bool deadline_is_bad(const struct th_view *v, const struct th_json *old)
{
    static const char member[] = "activeDeadlineSeconds";
    const struct th_json *was = th_json_get(old, member);
    int64_t now = th_view_int(v, member, 0);
    if (!th_view_has(v, member)) {
        if (was) {
            th_bad_json(v, member, NULL, "must not update from a positive integer to nil value");
        }
        return false;
    }
    if (now < 0 || now > INT32_MAX) {
        th_bad_int(v, member, now, "must be between 0 and 2147483647, inclusive");
        return true;
    }
    if (was && th_json_as_int(was, 0) < now) {
        th_bad_int(v, member, now, "must be less than or equal to previous value");
        return true;
    }
    return false;
}

static void check_tolerations(const struct th_view *v, const struct th_json *old)
{
    const struct th_json *was = th_json_get(old, "tolerations");
    for (size_t i = 0; i < th_json_len(was); i++) {
        bool found = false;
        for (size_t k = 0; k < th_view_len(v, "tolerations") && !found; k++) {
            struct th_view t = th_view_item(v, "tolerations", k);
            TH_AUTO(th_json) struct th_json *a = th_json_dup(t.obj);
            TH_AUTO(th_json) struct th_json *b = th_json_dup(th_json_at(was, i));
            (void)th_json_del(a, "tolerationSeconds");
            (void)th_json_del(b, "tolerationSeconds");
            found = th_json_equal(a, b);
        }
        if (!found) {
            th_bad_forbidden(v, "tolerations",
                             "existing toleration can not be modified except its tolerationSeconds");
            return;
        }
    }
}

static void check_gates(const struct th_view *v, const struct th_json *old)
{
    const struct th_json *was = th_json_get(old, "schedulingGates");
    for (size_t i = 0; i < th_view_len(v, "schedulingGates"); i++) {
        struct th_view g = th_view_item(v, "schedulingGates", i);
        const char *name = th_view_str(&g, "name");
        bool there = false;
        for (size_t k = 0; k < th_json_len(was) && !there; k++) {
            there = th_streq(th_json_path_str(th_json_at(was, k), "name"), name);
        }
        if (!there) {
            th_autofree char *why =
                th_xasprintf("only deletion is allowed, but found new scheduling gate '%s'", name);
            th_bad_forbidden(&g, "name", why);
        }
    }
}

static bool holds_all(const struct th_json *list, const struct th_json *wanted)
{
    for (size_t i = 0; i < th_json_len(wanted); i++) {
        bool found = false;
        for (size_t k = 0; k < th_json_len(list) && !found; k++) {
            found = th_json_equal(th_json_at(list, k), th_json_at(wanted, i));
        }
        if (!found) {
            return false;
        }
    }
    return true;
}

static bool only_adds(const struct th_json *now, const struct th_json *was)
{
    static const char *const lists[] = {"matchExpressions", "matchFields"};
    size_t before = 0, after = 0;
    bool all = true;
    for (size_t i = 0; i < TH_ARRAY_LEN(lists); i++) {
        before += th_json_len(th_json_get(was, lists[i]));
        after += th_json_len(th_json_get(now, lists[i]));
        all = all && holds_all(th_json_get(now, lists[i]), th_json_get(was, lists[i]));
    }
    return all && (before > 0 || after == 0);
}

static void check_node_selector(const struct th_view *v, const struct th_json *old)
{
    const struct th_json *now = th_view_get(v, "nodeSelector");
    struct th_json_iter it = TH_JSON_ITER(th_json_get(old, "nodeSelector"));
    while (th_json_next(&it)) {
        if (!th_json_equal(th_json_get(now, it.name), it.value)) {
            th_bad_json(v, "nodeSelector", now,
                        "only additions to spec.nodeSelector are allowed (no mutations or deletions)");
            return;
        }
    }
}

static void check_node_affinity(const struct th_view *v, const struct th_json *old)
{
    const struct th_json *was = th_json_path(old, "affinity.nodeAffinity." TERMS);
    const struct th_json *now = th_view_get(v, "affinity.nodeAffinity." TERMS);
    struct th_view affinity = th_view_at(v, "affinity.nodeAffinity");
    if (th_json_len(was) > 0 && th_json_len(was) != th_json_len(now)) {
        th_bad_json(v, "affinity.nodeAffinity." TERMS, now,
                    "no additions/deletions to non-empty NodeSelectorTerms list are allowed");
        return;
    }
    for (size_t i = 0; i < th_json_len(was); i++) {
        struct th_view t = th_view_item(&affinity, TERMS, i);
        if (!only_adds(t.obj, th_json_at(was, i))) {
            th_bad_json(&t, NULL, t.obj, "only additions are allowed (no mutations or deletions)");
        }
    }
}

/* ---- The rest must be the same ---- */

static void keep(struct th_json *spec, const struct th_json *old, const char *member)
{
    const struct th_json *v = th_json_get(old, member);
    if (v) {
        th_json_set(spec, member, th_json_dup(v));
    } else {
        (void)th_json_del(spec, member);
    }
}

static void keep_affinity(struct th_json *spec, const struct th_json *old)
{
    const struct th_json *was = th_json_path(old, "affinity.nodeAffinity");
    if (was) {
        th_json_path_set(spec, "affinity.nodeAffinity", th_json_dup(was));
        return;
    }
    th_json_path_del(spec, "affinity.nodeAffinity");
    if (th_json_len(th_json_get(spec, "affinity")) == 0 && !th_json_get(old, "affinity")) {
        (void)th_json_del(spec, "affinity");
    }
}

static void keep_what_may_change(struct th_json *spec, const struct th_json *old)
{
    static const char *const lists[] = {"containers", "initContainers"};
    static const char *const members[] = {"activeDeadlineSeconds", "tolerations", "schedulingGates"};
    for (size_t l = 0; l < TH_ARRAY_LEN(lists); l++) {
        const struct th_json *a = th_json_get(spec, lists[l]), *b = th_json_get(old, lists[l]);
        for (size_t i = 0; i < th_json_len(a); i++) {
            keep(th_json_at(a, i), th_json_at(b, i), "image");
        }
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(members); i++) {
        keep(spec, old, members[i]);
    }
    if (th_json_path_int(old, "terminationGracePeriodSeconds", 0) < 0 &&
        th_json_path_int(spec, "terminationGracePeriodSeconds", 0) == 1) {
        keep(spec, old, "terminationGracePeriodSeconds");
    }
    if (th_json_len(th_json_get(old, "schedulingGates")) > 0) {
        keep(spec, old, "nodeSelector");
        keep_affinity(spec, old);
    }
}

/* ---- Subresources ---- */

static void check_ephemeral(const struct th_view *v, const struct th_json *old)
{
    const struct th_json *was = th_json_get(old, "ephemeralContainers");
    for (size_t i = 0; i < th_json_len(was); i++) {
        const char *name = th_json_path_str(th_json_at(was, i), "name");
        const struct th_json *now = NULL;
        for (size_t k = 0; k < th_view_len(v, "ephemeralContainers") && !now; k++) {
            struct th_view e = th_view_item(v, "ephemeralContainers", k);
            now = th_view_is(&e, "name", name) ? e.obj : NULL;
        }
        if (!now || !th_json_equal(now, th_json_at(was, i))) {
            th_autofree char *why = th_xasprintf("existing ephemeral containers \"%s\" may not be %s\n",
                                                 name, now ? "changed" : "removed");
            th_bad_forbidden(v, "ephemeralContainers", why);
        }
    }
}

/* True when the lists cannot be compared further. */
static bool order_changed(const struct th_view *v, const struct th_json *old, const char *list)
{
    const struct th_json *was = th_json_get(old, list);
    bool changed = false;
    if (th_view_len(v, list) != th_json_len(was)) {
        th_autofree char *why = th_xasprintf("%s may not be added or removed on resize", list);
        th_bad_forbidden(v, list, why);
        return true;
    }
    for (size_t i = 0; i < th_json_len(was); i++) {
        struct th_view ct = th_view_item(v, list, i);
        if (!th_view_is(&ct, "name", th_json_path_str(th_json_at(was, i), "name"))) {
            th_autofree char *why = th_xasprintf("%s may not be renamed or reordered on resize", list);
            th_bad_forbidden(&ct, "name", why);
            changed = true;
        }
    }
    return changed;
}

static bool some_removed(const struct th_json *now, const struct th_json *was)
{
    struct th_json_iter it = TH_JSON_ITER(was);
    while (th_json_next(&it)) {
        if (!th_json_has(now, it.name)) {
            return true;
        }
    }
    return false;
}

static bool others_changed(const struct th_json *now, const struct th_json *was)
{
    const struct th_json *pair[2][2] = {{now, was}, {was, now}};
    for (int i = 0; i < 2; i++) {
        struct th_json_iter it = TH_JSON_ITER(pair[i][0]);
        while (th_json_next(&it)) {
            if (!th_streq(it.name, "cpu") && !th_streq(it.name, "memory") &&
                !th_json_equal(it.value, th_json_get(pair[i][1], it.name))) {
                return true;
            }
        }
    }
    return false;
}

static void check_resized(const struct th_view *spec, const struct th_view *ct,
                          const struct th_json *was, bool init)
{
    static const char *const members[] = {"requests", "limits"};
    bool others = false;
    for (size_t i = 0; i < TH_ARRAY_LEN(members); i++) {
        const struct th_json *a = th_json_get(th_view_get(ct, "resources"), members[i]);
        const struct th_json *b = th_json_get(th_json_get(was, "resources"), members[i]);
        struct th_view res = th_view_at(ct, "resources");
        if (some_removed(a, b)) {
            th_autofree char *why = th_xasprintf("resource %s cannot be removed", members[i]);
            th_bad_forbidden(&res, members[i], why);
        }
        others |= others_changed(a, b);
    }
    if (others && init) {
        th_bad_forbidden(ct, NULL,
                         "only cpu and memory resources for init or sidecar containers are mutable");
    } else if (others) {
        th_bad_forbidden(spec, NULL, "only cpu and memory resources are mutable");
    }
}

static void check_resize(const struct th_view *v, const struct th_json *obj,
                         const struct th_json *old_pod)
{
    static const char *const lists[] = {"initContainers", "containers"};
    const struct th_json *old = th_json_get(old_pod, "spec");
    if (!th_streq(th_pod_qos(obj), th_pod_qos(old_pod))) {
        const char *class = th_json_path_str(obj, "status.qosClass");
        th_bad_str(v, NULL, class ? class : "",
                   "Pod QOS Class may not change as a result of resizing");
    }
    bool a = order_changed(v, old, "containers"), b = order_changed(v, old, "initContainers");
    for (size_t l = 0; !a && !b && l < TH_ARRAY_LEN(lists); l++) {
        const struct th_json *was = th_json_get(old, lists[l]);
        for (size_t i = 0; i < th_json_len(was); i++) {
            struct th_view ct = th_view_item(v, lists[l], i);
            const struct th_json *policy = th_view_get(&ct, "resizePolicy");
            bool plain_init = l == 0 && !th_view_is(&ct, "restartPolicy", "Always");
            bool same = th_json_equal(ct.obj, th_json_at(was, i));
            check_resized(v, &ct, th_json_at(was, i), l == 0);
            for (size_t k = 0; plain_init && !same && k < th_json_len(policy); k++) {
                if (th_streq(th_json_path_str(th_json_at(policy, k), "restartPolicy"),
                             "RestartContainer")) {
                    th_bad_forbidden(&ct, NULL, "non-sidecar init containers with a resize policy of "
                                                "RestartContainer cannot be resized");
                }
            }
        }
    }
}

void th_pod_validate_update(const struct th_req_ctx *c, const struct th_json *obj,
                            const struct th_json *old_pod, struct th_err *err)
{
    const struct th_json *old = th_json_get(old_pod, "spec");
    struct th_view top = TH_VIEW(obj, err), v = th_view_at(&top, "spec");
    if (th_streq(c->subresource, "ephemeralcontainers")) {
        check_ephemeral(&v, old);
    } else if (th_streq(c->subresource, "resize")) {
        check_resize(&v, obj, old_pod);
    }
    if (c->subresource) { /* each changes its own part, which a PUT may not */
        return;
    }
    if (count_changed(&v, old, "containers") || count_changed(&v, old, "initContainers") ||
        deadline_is_bad(&v, old)) {
        return;
    }
    check_tolerations(&v, old);
    check_gates(&v, old);
    if (th_json_len(th_json_get(old, "schedulingGates")) > 0) {
        check_node_selector(&v, old);
        check_node_affinity(&v, old);
    }
    TH_AUTO(th_json) struct th_json *same = th_json_dup(v.obj);
    keep_what_may_change(same, old);
    if (!th_json_equal(same, old)) {
        th_bad_forbidden(&v, NULL,
                         "pod updates may not change fields other than `spec.containers[*].image`,"
                         "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,"
                         "`spec.tolerations` (only additions to existing tolerations),"
                         "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was "
                         "previously negative)");
    }
}
