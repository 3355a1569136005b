/*
 * Namespace: a deleted one stays Terminating until everything in it is gone; then its finalizer is
 * taken off through /finalize. What there is to delete is asked of discovery, so kinds that come
 * later are covered. What remains is named in the conditions, as upstream does.
 */
#include "controlplane/controllers/controller.h"
#include "controlplane/controllers/podutil.h"
#include "base/buf.h"
#include <inttypes.h>

#define RETRY_MS 500

static int get_json(struct th_ctrl *c, const char *method, const char *path, struct th_json **ret,
                    struct th_err *err)
{
    struct th_buf body TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    struct th_raw_req req = {.method = method, .path = path, .accept = "application/json"};
    TH_TRY(th_client_raw(th_ctrl_client(c), &req, NULL, &body, err));
    return th_json_parse(th_buf_cstr(&body), body.n, NULL, ret, err);
}

static bool has_verb(const struct th_json *resource, const char *verb)
{
    const struct th_json *verbs = th_json_get(resource, "verbs");
    for (size_t i = 0; i < th_json_len(verbs); i++) {
        if (th_streq(th_json_str(th_json_at(verbs, i)), verb)) {
            return true;
        }
    }
    return false;
}

/* Paths "/api/v1/namespaces/NS/pods" of all that can be deleted in the namespace. */
static int deletable(struct th_ctrl *c, const char *ns, struct th_strv *ret, struct th_err *err)
{
    struct th_strv roots TH_CLEANUP(th_strv_done) = TH_STRV_INIT;
    struct th_json *groups TH_AUTO(th_json) = NULL;
    th_strv_add(&roots, "/api/v1");
    TH_TRY(get_json(c, "GET", "/apis", &groups, err));
    const struct th_json *list = th_json_get(groups, "groups");
    for (size_t i = 0; i < th_json_len(list); i++) {
        th_strv_addf(&roots, "/apis/%s",
                     th_json_path_str(th_json_at(list, i), "preferredVersion.groupVersion"));
    }
    for (size_t i = 0; i < roots.n; i++) {
        struct th_json *doc TH_AUTO(th_json) = NULL;
        TH_TRY(get_json(c, "GET", roots.v[i], &doc, err));
        const struct th_json *resources = th_json_get(doc, "resources");
        for (size_t k = 0; k < th_json_len(resources); k++) {
            const struct th_json *r = th_json_at(resources, k);
            const char *name = th_json_path_str(r, "name");
            if (th_json_path_bool(r, "namespaced", false) && !strchr(name, '/') &&
                has_verb(r, "deletecollection")) {
                th_strv_addf(ret, "%s/namespaces/%s/%s", roots.v[i], ns, name);
            }
        }
    }
    return 0;
}

/* Deletes what there is and counts what is left (pods within their grace period). */
static int empty_it(struct th_ctrl *c, const char *ns, size_t *ret_left, struct th_buf *ret_what,
                    struct th_err *err)
{
    struct th_strv paths TH_CLEANUP(th_strv_done) = TH_STRV_INIT;
    TH_TRY(deletable(c, ns, &paths, err));
    for (size_t i = 0; i < paths.n; i++) {
        struct th_json *gone TH_AUTO(th_json) = NULL;
        struct th_json *rest TH_AUTO(th_json) = NULL;
        TH_TRY(get_json(c, "GET", paths.v[i], &rest, err));
        if (th_json_len(th_json_get(rest, "items")) == 0) {
            continue;
        }
        TH_TRY(get_json(c, "DELETE", paths.v[i], &gone, err));
        th_json_unref(rest);
        rest = NULL;
        TH_TRY(get_json(c, "GET", paths.v[i], &rest, err));
        size_t n = th_json_len(th_json_get(rest, "items"));
        if (n) {
            *ret_left += n;
            th_buf_printf(ret_what, "%s%s has %zu resource instances", ret_what->n ? ", " : "",
                          strrchr(paths.v[i], '/') + 1, n);
        }
    }
    return 0;
}

static int say_what_remains(struct th_ctrl *c, const struct th_json *ns, const char *what,
                            struct th_err *err)
{
    struct th_json *copy TH_AUTO(th_json) = th_json_dup(ns);
    th_autofree char *message = th_xasprintf("Some resources are remaining: %s", what);
    struct th_json *conditions = th_json_path_array(copy, "status.conditions");
    if (!th_cond_set(conditions, "NamespaceContentRemaining", "True", "SomeResourcesRemain",
                     message, false)) {
        return 0;
    }
    int r = th_client_update(th_ctrl_client(c), TH_GVR_NAMESPACES, NULL,
                             th_json_path_str(ns, "metadata.name"), "status", copy, NULL, err);
    if (r == -TH_R_CONFLICT || r == -TH_R_NOT_FOUND) {
        th_err_done(err);
        r = 0;
    }
    return r;
}

static int reconcile(struct th_ctrl *c, const char *key, int64_t *ret_after_ms, struct th_err *err)
{
    struct th_json *ns TH_AUTO(th_json) = NULL;
    int r = th_client_get(th_ctrl_client(c), TH_GVR_NAMESPACES, NULL, key, &ns, err);
    if (r == -TH_R_NOT_FOUND) {
        th_err_done(err);
        return 0;
    }
    TH_TRY(r);
    if (!th_json_path_str(ns, "metadata.deletionTimestamp") ||
        th_json_len(th_json_path(ns, "spec.finalizers")) == 0) {
        return 0;
    }
    size_t left = 0;
    struct th_buf what TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    TH_TRY(empty_it(c, key, &left, &what, err));
    if (left) {
        *ret_after_ms = RETRY_MS;
        return say_what_remains(c, ns, th_buf_cstr(&what), err);
    }
    th_json_path_set(ns, "spec.finalizers", th_json_array());
    r = th_client_update(th_ctrl_client(c), TH_GVR_NAMESPACES, NULL, key, "finalize", ns, NULL,
                         err);
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
    .watches = watches,
    .reconcile = reconcile,
};
