/* Subresources that show or change the stored object: status, scale, finalize, approval, resize;
 * and those that act: binding, eviction, token.
 *
 * A row says what a subresource's body is and how it maps onto the object; "status" without a hook
 * takes the status of the body and leaves everything else, as upstream's status strategies do:
 * spec, labels and owner references stay, annotations and finalizers may change.
 */
#include "controlplane/api/priv.h"

#define RETRIES 10

static struct th_json *status_over(const struct th_json *old, const struct th_json *body)
{
    struct th_json *n = th_json_dup(old);
    struct th_json *status = th_json_get(body, "status");
    if (status) {
        th_json_set(n, "status", th_json_dup(status));
    } else {
        th_json_del(n, "status");
    }
    struct th_json *meta = th_json_dup(th_json_get(body, "metadata"));
    static const char *const kept[] = {"labels", "ownerReferences"};
    for (size_t i = 0; i < TH_ARRAY_LEN(kept); i++) {
        struct th_json *v = th_json_get(th_json_get(old, "metadata"), kept[i]);
        if (v) {
            th_json_set(meta, kept[i], th_json_dup(v));
        } else {
            th_json_del(meta, kept[i]);
        }
    }
    th_json_set(n, "metadata", meta);
    return n;
}

int th_sub_write(struct th_call *c, struct th_obj *old_obj, const struct th_json *old,
                 const struct th_json *body, bool applied, bool *ret_retry, struct th_err *err)
{
    struct th_json *n = NULL;
    if (c->sub->update) {
        TH_TRY(c->sub->update(&c->ctx, old, body, &n, err));
        struct th_json *rv = th_json_path(body, "metadata.resourceVersion");
        if (rv && *th_json_str(rv)) {
            th_json_path_set(n, "metadata.resourceVersion", th_json_dup(rv));
        }
    } else if (th_streq(c->sub->name, "status")) {
        n = status_over(old, body);
    } else {
        return th_fail(err, TH_R_UNSUPPORTED, "%s/%s cannot be written yet", c->res->plural,
                       c->sub->name);
    }
    return th_sub_commit(c, old_obj, old, n, applied, ret_retry, err);
}

int th_sub_commit(struct th_call *c, struct th_obj *old_obj, const struct th_json *old,
                  struct th_json *obj, bool applied, bool *ret_retry, struct th_err *err)
{
    struct th_update u = {.old_obj = old_obj, .old = old, .applied = applied};
    struct th_json *made = NULL;
    TH_TRY(th_object_update(c, &u, obj, &made, ret_retry, err));
    if (!c->sub->get) {
        return th_respond_made(c, 200, made, err);
    }
    struct th_json *shown = NULL;
    int r = c->sub->get(&c->ctx, made, &shown, err);
    th_json_unref(made);
    TH_TRY(r);
    return th_respond_tree(c, 200, shown, err);
}

int th_verb_sub_get(struct th_call *c, struct th_err *err)
{
    th_autofree char *key = th_store_key(c, c->route.name);
    TH_AUTO(th_obj) struct th_obj *obj = th_store_get(c->api->store, key);
    if (!obj) {
        return th_fail_not_found(err, c->res, c->route.name);
    }
    if (!c->sub->get) {
        return th_respond_obj(c, 200, obj, err);
    }
    TH_AUTO(th_json) struct th_json *tree = NULL;
    TH_TRY(th_object_load(c->res, obj, &tree, err));
    struct th_json *shown = NULL;
    TH_TRY(c->sub->get(&c->ctx, tree, &shown, err));
    return th_respond_tree(c, 200, shown, err);
}

int th_verb_sub_update(struct th_call *c, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *body = NULL;
    TH_TRY(th_decode_body(c, c->sub->group, c->sub->version, c->sub->kind, true, &body, err));
    const char *name = th_json_path_str(body, "metadata.name");
    if (!th_streq(name, c->route.name)) {
        return th_fail(err, TH_R_BAD_REQUEST,
                       "the name of the object (%s) does not match the name on the URL (%s)",
                       name ? name : "", c->route.name);
    }
    TH_TRY(th_meta_check_ns(c, body, err));
    const char *rv = th_json_path_str(body, "metadata.resourceVersion");
    bool unconditional = !rv || !*rv || th_streq(rv, "0");
    th_autofree char *key = th_store_key(c, c->route.name);
    for (int i = 0;; i++) {
        TH_AUTO(th_obj) struct th_obj *old_obj = th_store_get(c->api->store, key);
        if (!old_obj) {
            return th_fail_not_found(err, c->res, c->route.name);
        }
        TH_AUTO(th_json) struct th_json *old = NULL;
        TH_TRY(th_object_load(c->res, old_obj, &old, err));
        bool retry = false;
        int r = th_sub_write(c, old_obj, old, body, false, &retry, err);
        if (r >= 0 || !retry || !unconditional || i == RETRIES) {
            return r;
        }
    }
}

/* POST that changes the stored object: binding. The change is the system's own, so nobody becomes
 * a manager of its fields; a write that came between is tried over. */
static int post_change(struct th_call *c, const struct th_json *body, struct th_err *err)
{
    th_autofree char *key = th_store_key(c, c->route.name);
    for (int i = 0;; i++) {
        TH_AUTO(th_obj) struct th_obj *old_obj = th_store_get(c->api->store, key);
        if (!old_obj) {
            return th_fail_not_found(err, c->res, c->route.name);
        }
        TH_AUTO(th_json) struct th_json *old = NULL;
        TH_TRY(th_object_load(c->res, old_obj, &old, err));
        struct th_json *n = NULL;
        TH_TRY(c->sub->update(&c->ctx, old, body, &n, err));
        struct th_update u = {.old_obj = old_obj, .old = old, .applied = true, .same_generation = true};
        TH_AUTO(th_json) struct th_json *made = NULL;
        bool retry = false;
        int r = th_object_update(c, &u, n, &made, &retry, err);
        if (r >= 0) {
            return th_respond_tree(c, 201,
                                   th_json_build("{'kind':'Status','apiVersion':'v1',"
                                                 "'metadata':{},'status':'Success','code':%d}",
                                                 (int64_t)201),
                                   err);
        }
        if (!retry || i == RETRIES) {
            return r;
        }
        th_err_done(err);
    }
}

int th_verb_sub_create(struct th_call *c, struct th_err *err)
{
    if (!c->sub->create && !c->sub->update) {
        return th_fail(err, TH_R_UNSUPPORTED, "%s/%s is not there yet", c->res->plural,
                       c->sub->name);
    }
    TH_AUTO(th_json) struct th_json *body = NULL;
    TH_TRY(th_decode_body(c, c->sub->group, c->sub->version, c->sub->kind, true, &body, err));
    const char *ns = c->res->namespaced ? c->route.ns : NULL;
    const char *have = th_json_path_str(body, "metadata.namespace");
    if (ns && have && *have && !th_streq(have, ns)) {
        return th_fail(err, TH_R_BAD_REQUEST,
                       "the namespace of the provided object does not match the namespace sent on "
                       "the request");
    }
    const char *name = th_json_path_str(body, "metadata.name");
    if (name && *name && !th_streq(name, c->route.name)) {
        return th_fail(err, TH_R_BAD_REQUEST,
                       "the name of the object (%s) does not match the name on the URL (%s)", name,
                       c->route.name);
    }
    if (!c->sub->create) {
        TH_TRY(th_admit_review(c, body, err));
        c->reviewed = true;
        return post_change(c, body, err);
    }
    TH_TRY(th_admit_mutate(c, body, NULL, err));
    TH_TRY(th_admit_validate(c, body, NULL, err));
    struct th_json *answer = NULL;
    TH_TRY(c->sub->create(&c->ctx, ns, c->route.name, body, &answer, err));
    return th_respond_tree(c, 201, answer, err);
}
