/* PUT.
 *
 * A body that names a resourceVersion is written only over that revision; one that names none is
 * written over whatever is there (where the kind allows it), and then a write that came between
 * is no reason to fail: we read again and repeat.
 */
#include "controlplane/api/priv.h"

#define UPDATE_RETRIES 10

/* checkName of upstream's handlers. */
static int check_name(const struct th_call *c, const struct th_json *obj, struct th_err *err)
{
    const char *name = th_json_path_str(obj, "metadata.name");
    if (!name || !*name) {
        return th_fail(err, TH_R_BAD_REQUEST,
                       "the name of the object (%s based on URL) was undeterminable: name must be "
                       "provided",
                       c->route.name);
    }
    if (!th_streq(name, c->route.name)) {
        return th_fail(err, TH_R_BAD_REQUEST,
                       "the name of the object (%s) does not match the name on the URL (%s)", name,
                       c->route.name);
    }
    return 0;
}

int th_authorize_create(struct th_call *c, struct th_err *err)
{
    struct th_attrs at = {.id = c->req->id,
                          .verb = "create",
                          .resource = true,
                          .group = c->res->group,
                          .version = c->res->version,
                          .plural = c->res->plural,
                          .ns = c->route.ns,
                          .name = c->route.name};
    return th_authorize(c->api, &at, err);
}

static int create_instead(struct th_call *c, const struct th_json *body, struct th_err *err)
{
    if (!c->res->s.allow_create_on_update) {
        return th_fail_not_found(err, c->res, c->route.name);
    }
    TH_TRY(th_authorize_create(c, err));
    struct th_json *made = NULL;
    TH_TRY(th_object_create(c, th_json_dup(body), &made, err));
    return th_respond_made(c, 201, made, err);
}

int th_verb_update(struct th_call *c, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *body = NULL;
    TH_TRY(th_decode_body(c, c->res->group, c->res->version, c->res->kind, true, &body, err));
    TH_TRY(th_meta_check_ns(c, body, err));
    TH_TRY(check_name(c, body, err));
    const char *rv = th_json_path_str(body, "metadata.resourceVersion");
    bool unconditional = !rv || !*rv || th_streq(rv, "0");
    th_autofree char *key = th_store_key(c, c->route.name);
    for (int i = 0;; i++) {
        TH_AUTO(th_obj) struct th_obj *old_obj = th_store_get(c->api->store, key);
        if (!old_obj) {
            return create_instead(c, body, err);
        }
        TH_AUTO(th_json) struct th_json *old = NULL;
        TH_TRY(th_object_load(c->res, old_obj, &old, err));
        struct th_update u = {.old_obj = old_obj, .old = old, .unconditional = unconditional};
        struct th_json *made = NULL;
        bool retry = false;
        int r = th_object_update(c, &u, th_json_dup(body), &made, &retry, err);
        if (r >= 0) {
            return th_respond_made(c, 200, made, err);
        }
        if (!retry || !unconditional || i == UPDATE_RETRIES) {
            return r;
        }
    }
}
