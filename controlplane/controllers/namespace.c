/*
 * Namespace: a deleted one stays Terminating until everything in it is gone; then its finalizer is
 * taken off through /finalize. What there is to delete is asked of discovery, so custom resources
 * are covered. What remains, and which finalizers hold it, is said in the conditions with upstream's
 * words (pkg/controller/namespace/deletion). Upstream waits by estimates of the grace periods; here
 * the key comes again after RETRY_MS, which costs a list of metadata per resource.
 */
#include "controlplane/controllers/controller.h"
#include "controlplane/controllers/podutil.h"
#include "base/buf.h"
#include "base/hmap.h"
#include <inttypes.h>

#define RETRY_MS 500
#define METADATA_LIST "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

/* What is found while a namespace is emptied. */
struct rest {
    size_t left;
    struct th_strv resources;    /* "pods. has 1 resource instances" */
    struct th_hmap finalizers;   /* name -> count as a pointer-sized number */
    struct th_strv failures;
};

static void rest_done(struct rest *r)
{
    th_strv_done(&r->resources);
    th_hmap_done(&r->finalizers);
    th_strv_done(&r->failures);
}

static int call(struct th_ctrl *c, const char *method, const char *path, struct th_json **ret,
                struct th_err *err)
{
    struct th_buf body TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    struct th_raw_req req = {
        .method = method, .path = path, .accept = ret ? METADATA_LIST : "application/json"};
    TH_TRY(th_client_raw(th_ctrl_client(c), &req, NULL, &body, err));
    return ret ? th_json_parse(th_buf_cstr(&body), body.n, NULL, ret, err) : 0;
}

static bool all_deleting(const struct th_json *items)
{
    for (size_t i = 0; i < th_json_len(items); i++) {
        if (!th_json_path_str(th_json_at(items, i), "metadata.deletionTimestamp")) {
            return false;
        }
    }
    return true;
}

static void count_finalizers(struct rest *rest, const struct th_json *items)
{
    for (size_t i = 0; i < th_json_len(items); i++) {
        const struct th_json *list = th_json_path(th_json_at(items, i), "metadata.finalizers");
        for (size_t k = 0; k < th_json_len(list); k++) {
            const char *name = th_json_str(th_json_at(list, k));
            uintptr_t n = (uintptr_t)th_hmap_get(&rest->finalizers, name);
            th_hmap_set(&rest->finalizers, name, (void *)(n + 1));
        }
    }
}

/* Deletes all of one resource and notes what is left (pods within their grace period, say). */
static int empty_one(struct th_ctrl *c, const char *ns, const struct th_rl_item *r,
                     struct rest *rest, struct th_err *err)
{
    th_autofree char *path = th_client_path(th_rl_gvr(r), ns, NULL, NULL);
    struct th_json *found TH_AUTO(th_json) = NULL;
    TH_TRY(call(c, "GET", path, &found, err));
    if (!all_deleting(th_json_get(found, "items"))) {
        th_autofree char *all = th_xasprintf("%s?propagationPolicy=Background", path);
        TH_TRY(call(c, "DELETE", all, NULL, err));
        th_json_unref(th_steal(&found));
        TH_TRY(call(c, "GET", path, &found, err));
    }
    const struct th_json *items = th_json_get(found, "items");
    size_t n = th_json_len(items);
    if (n) {
        rest->left += n;
        th_strv_addf(&rest->resources, "%s.%s has %zu resource instances", r->plural, r->group, n);
        count_finalizers(rest, items);
    }
    return 0;
}

static bool is_pods(const struct th_rl_item *r)
{
    return !*r->group && th_streq(r->plural, "pods");
}

/* Empties the resource of pods, or all others. */
static void empty_some(struct th_ctrl *c, const char *ns, const struct th_rl *served, bool pods,
                       struct rest *rest)
{
    unsigned needed = TH_RL_LIST | TH_RL_DELETECOLLECTION;
    for (size_t i = 0; i < served->n; i++) {
        const struct th_rl_item *r = &served->v[i];
        if (!r->namespaced || !r->preferred || (r->verbs & needed) != needed ||
            is_pods(r) != pods) {
            continue;
        }
        struct th_err one TH_CLEANUP(th_err_done) = TH_ERR_INIT;
        if (empty_one(c, ns, r, rest, &one) < 0 && one.reason != TH_R_NOT_FOUND) {
            th_strv_add(&rest->failures, one.msg ? one.msg : "");
        }
    }
}

/* Pods go first and alone, so that none runs on without the policies, secrets and configuration that
 * were there for it. */
static int empty_it(struct th_ctrl *c, const char *ns, struct rest *rest, struct th_err *err)
{
    struct th_rl served TH_CLEANUP(th_rl_done) = TH_RL_INIT;
    TH_TRY(th_rl_discover(th_ctrl_client(c), &served, err));
    empty_some(c, ns, &served, true, rest);
    if (rest->left == 0) {
        empty_some(c, ns, &served, false, rest);
    }
    return 0;
}

/* ---- Conditions ---- */

static bool set_condition(struct th_json *conditions, const char *type, const char *bad_reason,
                          const char *bad_message, const char *ok_reason, const char *ok_message)
{
    bool bad = bad_message != NULL;
    return th_cond_put(conditions, type, bad ? "True" : "False", bad ? bad_reason : ok_reason,
                       bad ? bad_message : ok_message);
}

static char *remaining(const struct rest *rest)
{
    struct th_strv sorted TH_CLEANUP(th_strv_done) = TH_STRV_INIT;
    for (size_t i = 0; i < rest->resources.n; i++) {
        th_strv_add(&sorted, rest->resources.v[i]);
    }
    th_strv_sort(&sorted);
    th_autofree char *list = th_strv_join(&sorted, ", ");
    return sorted.n ? th_xasprintf("Some resources are remaining: %s", list) : NULL;
}

static char *finalizing(const struct rest *rest)
{
    struct th_strv sorted TH_CLEANUP(th_strv_done) = TH_STRV_INIT;
    struct th_hmap_entry *e;
    for (size_t it = 0; (e = th_hmap_next(&rest->finalizers, &it));) {
        th_strv_addf(&sorted, "%s in %zu resource instances", e->key, (size_t)(uintptr_t)e->value);
    }
    th_strv_sort(&sorted);
    th_autofree char *list = th_strv_join(&sorted, ", ");
    return sorted.n ? th_xasprintf("Some content in the namespace has finalizers remaining: %s",
                                   list)
                    : NULL;
}

static char *failing(const struct rest *rest)
{
    th_autofree char *list = th_strv_join(&rest->failures, ", ");
    return rest->failures.n
               ? th_xasprintf("Failed to delete all resource types, %zu remaining: %s",
                              rest->failures.n, list)
               : NULL;
}

/* Replaces *ns by what it is after the write, if there was something to write. */
static int say(struct th_ctrl *c, struct th_json **ns, const struct rest *rest, struct th_err *err)
{
    struct th_json *conditions = th_json_path_array(*ns, "status.conditions");
    th_autofree char *left = remaining(rest);
    th_autofree char *finalizers = finalizing(rest);
    th_autofree char *failures = failing(rest);
    bool changed =
        set_condition(conditions, "NamespaceDeletionDiscoveryFailure", NULL, NULL,
                      "ResourcesDiscovered", "All resources successfully discovered");
    changed |= set_condition(conditions, "NamespaceDeletionGroupVersionParsingFailure", NULL, NULL,
                             "ParsedGroupVersions", "All legacy kube types successfully parsed");
    changed |= set_condition(
        conditions, "NamespaceDeletionContentFailure", "ContentDeletionFailed", failures,
        "ContentDeleted", "All content successfully deleted, may be waiting on finalization");
    changed |= set_condition(conditions, "NamespaceContentRemaining", "SomeResourcesRemain", left,
                             "ContentRemoved", "All content successfully removed");
    changed |= set_condition(conditions, "NamespaceFinalizersRemaining", "SomeFinalizersRemain",
                             finalizers, "ContentHasNoFinalizers",
                             "All content-preserving finalizers finished");
    if (!changed) {
        return 0;
    }
    struct th_json *now = NULL;
    TH_TRY(th_client_update(th_ctrl_client(c), TH_GVR_NAMESPACES, NULL,
                            th_json_path_str(*ns, "metadata.name"), "status", *ns, &now, err));
    th_json_unref(*ns);
    *ns = now;
    return 0;
}

static int clean_up(struct th_ctrl *c, struct th_json **ns, int64_t *ret_after_ms,
                    struct th_err *err)
{
    const char *name = th_json_path_str(*ns, "metadata.name");
    struct rest rest TH_CLEANUP(rest_done) = {.left = 0};
    th_hmap_init(&rest.finalizers, NULL);
    TH_TRY(empty_it(c, name, &rest, err));
    TH_TRY(say(c, ns, &rest, err));
    if (rest.left || rest.failures.n) {
        *ret_after_ms = RETRY_MS;
        return 0;
    }
    struct th_json *list = th_json_path(*ns, "spec.finalizers");
    for (size_t i = th_json_len(list); i-- > 0;) {
        if (th_streq(th_json_str(th_json_at(list, i)), "kubernetes")) {
            th_json_del_at(list, i);
        }
    }
    return th_client_update(th_ctrl_client(c), TH_GVR_NAMESPACES, NULL,
                            th_json_path_str(*ns, "metadata.name"), "finalize", *ns, NULL, err);
}

static bool is_ours(const struct th_json *ns)
{
    const struct th_json *list = th_json_path(ns, "spec.finalizers");
    for (size_t i = 0; i < th_json_len(list); i++) {
        if (th_streq(th_json_str(th_json_at(list, i)), "kubernetes")) {
            return true;
        }
    }
    return false;
}

static int reconcile(struct th_ctrl *c, const char *key, int64_t *ret_after_ms, struct th_err *err)
{
    struct th_json *ns TH_AUTO(th_json) = NULL;
    int r = th_client_get(th_ctrl_client(c), TH_GVR_NAMESPACES, NULL, key, &ns, err);
    if (r == 0 && th_json_path_str(ns, "metadata.deletionTimestamp") && is_ours(ns)) {
        r = clean_up(c, &ns, ret_after_ms, err);
    }
    if (r == -TH_R_NOT_FOUND) {
        th_err_done(err);
        r = 0;
    }
    return r;
}

static void on_namespace(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    (void)old;
    if (now && th_json_path_str(now, "metadata.deletionTimestamp")) {
        th_ctrl_enqueue_obj(c, now);
    }
}

static const struct th_ctrl_watch watches[] = {
    {.gvr = {"", "v1", "namespaces"}, .on_event = on_namespace},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_namespace = {
    .name = "namespace-controller",
    .account = "namespace-controller",
    .watches = watches,
    .reconcile = reconcile,
};
