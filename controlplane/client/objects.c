/* Small things that every writer of objects needs: owner references and the update loop.
 *
 * The update loop is client-go's RetryOnConflict in the one form that is right: read, change,
 * write, and on a conflict read again, so that the change is always made to what is really there.
 */
#include "base/clock.h"
#include "base/rand.h"
#include "controlplane/client/client.h"

#define MODIFY_TRIES 8

struct th_json *th_owner_ref_build(const struct th_json *owner, bool controller,
                                   bool block_owner_deletion)
{
    struct th_json *ref = th_json_object();
    th_json_set_str(ref, "apiVersion", th_json_path_str(owner, "apiVersion"));
    th_json_set_str(ref, "kind", th_json_path_str(owner, "kind"));
    th_json_set_str(ref, "name", th_json_path_str(owner, "metadata.name"));
    th_json_set_str(ref, "uid", th_json_path_str(owner, "metadata.uid"));
    if (controller) {
        th_json_set_bool(ref, "controller", true);
    }
    if (block_owner_deletion) {
        th_json_set_bool(ref, "blockOwnerDeletion", true);
    }
    return ref;
}

struct th_json *th_controller_of(const struct th_json *obj)
{
    const struct th_json *refs = th_json_path(obj, "metadata.ownerReferences");
    for (size_t i = 0; i < th_json_len(refs); i++) {
        struct th_json *ref = th_json_at(refs, i);
        if (th_json_as_bool(th_json_get(ref, "controller"), false)) {
            return ref;
        }
    }
    return NULL;
}

const char *th_controller_uid(const struct th_json *obj)
{
    return th_json_str(th_json_get(th_controller_of(obj), "uid"));
}

int th_client_modify(struct th_client *c, struct th_gvr r, const char *ns, const char *name,
                     const char *subresource, th_modify_fn *fn, void *arg, struct th_json **ret,
                     struct th_err *err)
{
    for (int try = 1;; try++) {
        TH_AUTO(th_json) struct th_json *obj = NULL;
        TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
        TH_TRY(th_client_get(c, r, ns, name, &obj, err));
        int rc = fn(arg, obj, err);
        if (rc < 0) {
            return rc;
        }
        if (rc == 0) {
            if (ret) {
                *ret = th_steal(&obj);
            }
            return 0;
        }
        rc = th_client_update(c, r, ns, name, subresource, obj, ret, &e);
        if (rc != -TH_R_CONFLICT || try == MODIFY_TRIES) {
            if (rc < 0 && err) {
                th_err_move(err, &e);
            }
            return rc < 0 ? rc : 1;
        }
        th_sleep_ms(try * 5 + (int64_t)th_rand_below(10));
    }
}
