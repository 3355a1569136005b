/*
 * CustomResourceDefinition: its life.
 *
 * Upstream has controllers for accepted names, establishing and structural schemas; between a write
 * and their work a client must wait. Here the status is worked out in the same write, so that a
 * definition is established when its create returns. What cannot be done then (a name that becomes
 * free later, the deletion of instances) is the API server's keeper's (api/custom_keeper.c).
 *
 * A delete marks the definition, adds the finalizer and the Terminating condition; the keeper deletes
 * the instances and takes the finalizer away.
 */
#include "base/clock.h"
#include "controlplane/resources/crd.h"
#include "controlplane/resources/rows.h"

static struct th_json *find_condition(const struct th_json *crd, const char *type)
{
    const struct th_json *list = th_json_path(crd, "status.conditions");
    for (size_t i = 0; i < th_json_len(list); i++) {
        struct th_json *c = th_json_at(list, i);
        if (th_streq(th_json_str(th_json_get(c, "type")), type)) {
            return c;
        }
    }
    return NULL;
}

const char *th_crd_condition(const struct th_json *crd, const char *type)
{
    return th_json_str(th_json_get(find_condition(crd, type), "status"));
}

bool th_crd_set_condition(struct th_json *crd, const char *type, const char *status,
                          const char *reason, const char *message, int64_t now_ms)
{
    char text[TH_TIME_LEN];
    struct th_json *c = find_condition(crd, type);
    if (c && th_streq(th_json_str(th_json_get(c, "status")), status) &&
        th_streq(th_json_str(th_json_get(c, "reason")), reason) &&
        th_streq(th_json_str(th_json_get(c, "message")), message)) {
        return false;
    }
    if (!c) {
        c = th_json_build("{'type':%s}", type);
        th_json_append(th_json_path_array(crd, "status.conditions"), c);
    }
    if (!th_streq(th_json_str(th_json_get(c, "status")), status)) {
        th_json_set_str(c, "lastTransitionTime", th_time_format(now_ms, text));
    }
    th_json_set_str(c, "status", status);
    th_json_set_str(c, "reason", reason);
    th_json_set_str(c, "message", message);
    return true;
}

/* ---- Names ---- */

struct taken {
    struct th_strv resources, kinds;
};

static void take(struct th_strv *l, const struct th_json *v)
{
    const char *s = th_json_str(v);
    if (s && *s) {
        th_strv_add(l, s);
    }
}

/* Names that other definitions of the group have. */
static void gather(const struct th_json *all, const struct th_json *self, struct taken *ret)
{
    const char *group = th_json_path_str(self, "spec.group");
    const char *name = th_json_path_str(self, "metadata.name");
    for (size_t i = 0; i < th_json_len(all); i++) {
        const struct th_json *o = th_json_at(all, i);
        if (!th_streq(th_json_path_str(o, "spec.group"), group) ||
            th_streq(th_json_path_str(o, "metadata.name"), name)) {
            continue;
        }
        const struct th_json *n = th_json_path(o, "status.acceptedNames");
        take(&ret->resources, th_json_get(n, "plural"));
        take(&ret->resources, th_json_get(n, "singular"));
        const struct th_json *shorts = th_json_get(n, "shortNames");
        for (size_t k = 0; k < th_json_len(shorts); k++) {
            take(&ret->resources, th_json_at(shorts, k));
        }
        take(&ret->kinds, th_json_get(n, "kind"));
        take(&ret->kinds, th_json_get(n, "listKind"));
    }
}

struct verdict {
    char reason[32];
    char *message;
};

static void conflict(struct verdict *v, const char *reason, const char *name)
{
    (void)snprintf(v->reason, sizeof(v->reason), "%s", reason);
    free(v->message);
    v->message = th_xasprintf("\"%s\" is already in use", name);
}

static void settle_name(const struct th_json *wanted, struct th_json *accepted, const char *member,
                        const struct th_strv *used, const char *reason, struct verdict *v)
{
    const char *want = th_json_str(th_json_get(wanted, member));
    const char *have = th_json_str(th_json_get(accepted, member));
    if (!want) {
        return;
    }
    if (!th_streq(want, have) && th_strv_has(used, want)) {
        conflict(v, reason, want);
    } else {
        th_json_set_str(accepted, member, want);
    }
}

static bool list_has(const struct th_json *list, const char *s)
{
    for (size_t i = 0; i < th_json_len(list); i++) {
        if (th_streq(th_json_str(th_json_at(list, i)), s)) {
            return true;
        }
    }
    return false;
}

static void copy_member(struct th_json *to, const struct th_json *from, const char *member)
{
    const struct th_json *v = th_json_get(from, member);
    if (th_json_len(v) > 0) {
        th_json_set(to, member, th_json_dup(v));
    } else {
        th_json_del(to, member);
    }
}

static void settle_short_names(const struct th_json *wanted, struct th_json *accepted,
                               const struct th_strv *used, struct verdict *v)
{
    const struct th_json *want = th_json_get(wanted, "shortNames");
    const struct th_json *have = th_json_get(accepted, "shortNames");
    th_autostrv struct th_strv bad = TH_STRV_INIT;
    for (size_t i = 0; i < th_json_len(want); i++) {
        const char *s = th_json_str(th_json_at(want, i));
        if (s && !list_has(have, s) && th_strv_has(used, s)) {
            th_strv_addf(&bad, "\"%s\" is already in use", s);
        }
    }
    if (bad.n == 0) {
        copy_member(accepted, wanted, "shortNames");
        return;
    }
    (void)snprintf(v->reason, sizeof(v->reason), "ShortNamesConflict");
    th_autofree char *all = th_strv_join(&bad, ", ");
    free(v->message);
    v->message = bad.n == 1 ? th_xstrdup(all) : th_xasprintf("[%s]", all);
}

bool th_crd_settle(struct th_json *crd, const struct th_json *all_items, int64_t now_ms)
{
    TH_AUTO(th_json) struct th_json *before = th_json_dup(th_json_get(crd, "status"));
    struct taken used = {TH_STRV_INIT, TH_STRV_INIT};
    gather(all_items, crd, &used);
    const struct th_json *wanted = th_json_path(crd, "spec.names");
    struct th_json *accepted = th_json_path_object(crd, "status.acceptedNames");
    struct verdict v = {.message = NULL};
    settle_name(wanted, accepted, "plural", &used.resources, "PluralConflict", &v);
    settle_name(wanted, accepted, "singular", &used.resources, "SingularConflict", &v);
    settle_short_names(wanted, accepted, &used.resources, &v);
    settle_name(wanted, accepted, "kind", &used.kinds, "KindConflict", &v);
    settle_name(wanted, accepted, "listKind", &used.kinds, "ListKindConflict", &v);
    copy_member(accepted, wanted, "categories");
    bool ok = v.message == NULL;
    (void)th_crd_set_condition(crd, "NamesAccepted", ok ? "True" : "False",
                               ok ? "NoConflicts" : v.reason,
                               ok ? "no conflicts found" : v.message, now_ms);
    if (!th_streq(th_crd_condition(crd, "Established"), "True")) {
        (void)th_crd_set_condition(crd, "Established", ok ? "True" : "False",
                                   ok ? "InitialNamesAccepted" : "NotAccepted",
                                   ok ? "the initial names have been accepted"
                                      : "not all names are accepted",
                                   now_ms);
    }
    free(v.message);
    th_strv_done(&used.resources);
    th_strv_done(&used.kinds);
    return !th_json_equal(before, th_json_get(crd, "status"));
}

/* ---- Hooks ---- */

static void settle(const struct th_req_ctx *c, struct th_json *crd)
{
    TH_AUTO(th_json) struct th_json *list = NULL;
    static const struct th_gvr gvr = {"apiextensions.k8s.io", "v1", "customresourcedefinitions"};
    if (th_client_list(c->client, gvr, NULL, NULL, NULL, &list, NULL) < 0) {
        list = NULL; /* the keeper settles it later */
    }
    (void)th_crd_settle(crd, th_json_get(list, "items"), c->now_ms);
    const char *group = th_json_path_str(crd, "spec.group");
    bool community = th_streq(group, "k8s.io") || th_streq(group, "kubernetes.io") ||
                     th_endswith(group ? group : "", ".k8s.io") ||
                     th_endswith(group ? group : "", ".kubernetes.io");
    const char *approval = th_json_str(th_json_get(th_json_path(crd, "metadata.annotations"),
                                                   "api-approved.kubernetes.io"));
    if (community && approval) {
        bool bypassed = th_startswith(approval, "unapproved");
        th_autofree char *text =
            bypassed ? th_xasprintf("not approved: \"%s\"", approval)
                     : th_xasprintf("approved in %s", approval);
        (void)th_crd_set_condition(crd, "KubernetesAPIApprovalPolicyConformant",
                                   bypassed ? "False" : "True",
                                   bypassed ? "UnapprovedAnnotation" : "ApprovedAnnotation", text,
                                   c->now_ms);
    }
}

static void add_stored_version(struct th_json *crd)
{
    const struct th_json *versions = th_json_path(crd, "spec.versions");
    for (size_t i = 0; i < th_json_len(versions); i++) {
        const struct th_json *v = th_json_at(versions, i);
        const char *name = th_json_str(th_json_get(v, "name"));
        if (!th_json_as_bool(th_json_get(v, "storage"), false)) {
            continue;
        }
        if (name && !list_has(th_json_path(crd, "status.storedVersions"), name)) {
            th_json_append_str(th_json_path_array(crd, "status.storedVersions"), name);
        }
        return;
    }
}

void th_crd_prepare_create(const struct th_req_ctx *c, struct th_json *obj)
{
    th_json_set(obj, "status", th_json_object());
    th_crd_warn_formats(c, obj, NULL);
    add_stored_version(obj);
    settle(c, obj);
}

void th_crd_prepare_update(const struct th_req_ctx *c, struct th_json *obj,
                           const struct th_json *old)
{
    th_crd_warn_formats(c, obj, old);
    add_stored_version(obj);
    if (!th_json_path_str(obj, "metadata.deletionTimestamp")) {
        settle(c, obj);
    }
}

bool th_crd_hold(const struct th_req_ctx *c, struct th_json *obj)
{
    struct th_json *finalizers = th_json_path_array(obj, "metadata.finalizers");
    if (!th_crd_condition(obj, "Terminating")) {
        if (!list_has(finalizers, TH_CRD_FINALIZER)) {
            th_json_append_str(finalizers, TH_CRD_FINALIZER);
        }
        (void)th_crd_set_condition(obj, "Terminating", "True", "InstanceDeletionPending",
                                   "CustomResourceDefinition marked for deletion; CustomResource "
                                   "deletion will begin soon",
                                   c->now_ms);
    }
    bool held = list_has(finalizers, TH_CRD_FINALIZER);
    if (th_json_len(finalizers) == 0) {
        th_json_path_del(obj, "metadata.finalizers");
    }
    return held;
}
