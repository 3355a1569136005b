/* What several controllers do in the same way; see controller.h. */
#include "base/buf.h"
#include "controlplane/controllers/controller.h"

char *th_ctrl_key(const struct th_json *obj)
{
    const char *ns = th_json_path_str(obj, "metadata.namespace");
    const char *name = th_json_path_str(obj, "metadata.name");
    return ns && *ns ? th_xasprintf("%s/%s", ns, name ? name : "")
                     : th_xasprintf("%s", name ? name : "");
}

char *th_ctrl_key_split(const char *key, const char **ret_name)
{
    const char *slash = strchr(key, '/');
    *ret_name = slash ? slash + 1 : key;
    return th_xstrndup(key, slash ? (size_t)(slash - key) : 0);
}

void th_ctrl_enqueue_obj(struct th_ctrl *c, const struct th_json *obj)
{
    th_autofree char *key = th_ctrl_key(obj);
    th_ctrl_enqueue(c, key);
}

void th_ctrl_on_self(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    th_ctrl_enqueue_obj(c, now ? now : old);
}

static void enqueue_owner_of(struct th_ctrl *c, const struct th_json *obj, const char *kind)
{
    const struct th_json *ref = obj ? th_controller_of(obj) : NULL;
    if (!ref || !th_streq(th_json_path_str(ref, "kind"), kind)) {
        return;
    }
    const char *ns = th_json_path_str(obj, "metadata.namespace");
    const char *name = th_json_path_str(ref, "name");
    th_autofree char *key = ns ? th_xasprintf("%s/%s", ns, name) : th_xstrdup(name);
    th_ctrl_enqueue(c, key);
}

void th_ctrl_enqueue_owner(struct th_ctrl *c, const struct th_json *old, const struct th_json *now,
                           const char *kind)
{
    enqueue_owner_of(c, now, kind);
    if (old && (!now || !th_streq(th_controller_uid(old), th_controller_uid(now)))) {
        enqueue_owner_of(c, old, kind);
    }
}

int th_ctrl_delete(struct th_ctrl *c, const char *key, struct th_gvr gvr, const struct th_json *obj,
                   const char *propagation, struct th_err *err)
{
    struct th_delete_opts o = TH_DELETE_OPTS_INIT;
    o.uid = th_json_path_str(obj, "metadata.uid");
    o.propagation = propagation;
    int r = th_client_delete(th_ctrl_client(c), gvr, th_json_path_str(obj, "metadata.namespace"),
                             th_json_path_str(obj, "metadata.name"), &o, NULL, err);
    if (r == -TH_R_NOT_FOUND || r == -TH_R_CONFLICT) {
        th_err_done(err);
        r = 0;
    }
    if (r == 0) {
        th_ctrl_expect_gone(c, key, gvr, obj);
    }
    return r;
}

int th_ctrl_write_status(struct th_ctrl *c, const char *key, struct th_gvr gvr,
                         const struct th_json *obj, struct th_json *status, struct th_err *err)
{
    if (th_json_equal(th_json_get(obj, "status"), status)) {
        return 0;
    }
    struct th_json *copy TH_AUTO(th_json) = th_json_dup(obj);
    struct th_json *now TH_AUTO(th_json) = NULL;
    th_json_set(copy, "status", th_json_ref(status));
    int r = th_client_update(th_ctrl_client(c), gvr, th_json_path_str(obj, "metadata.namespace"),
                             th_json_path_str(obj, "metadata.name"), "status", copy, &now, err);
    if (r == -TH_R_NOT_FOUND) {
        th_err_done(err);
        return 0;
    }
    if (r == 0 && key) {
        th_ctrl_expect(c, key, gvr, now);
    }
    return r;
}

/* ---- One object in every namespace ---- */

void th_ctrl_on_namespace_object(struct th_ctrl *c, const struct th_json *old,
                                 const struct th_json *now, const char *name)
{
    const struct th_json *obj = now ? now : old;
    if (th_streq(th_json_path_str(obj, "metadata.name"), name)) {
        th_ctrl_enqueue(c, th_json_path_str(obj, "metadata.namespace"));
    }
}

int th_ctrl_keep_in_namespace(struct th_ctrl *c, const char *ns, struct th_gvr gvr,
                              const struct th_json *wanted,
                              bool (*same)(const struct th_json *have, const struct th_json *wanted),
                              struct th_err *err)
{
    struct th_json *space TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, TH_GVR_NAMESPACES), "", ns);
    if (!space || !th_streq(th_json_path_str(space, "status.phase"), "Active")) {
        return 0;
    }
    const char *name = th_json_path_str(wanted, "metadata.name");
    struct th_json *have TH_AUTO(th_json) = th_informer_get(th_ctrl_informer(c, gvr), ns, name);
    if (have && (!same || same(have, wanted))) {
        return 0;
    }
    struct th_json *now TH_AUTO(th_json) = NULL;
    int r = have ? th_client_update(th_ctrl_client(c), gvr, ns, name, "", wanted, &now, err)
                 : th_client_create(th_ctrl_client(c), gvr, ns, wanted, &now, err);
    if (r == -TH_R_ALREADY_EXISTS) {
        th_err_done(err);
        return 0;
    }
    TH_TRY(r);
    th_ctrl_expect(c, ns, gvr, now);
    return 0;
}
