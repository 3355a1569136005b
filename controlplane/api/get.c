/* GET of one object. resourceVersion is accepted and, as the newest is always served, only checked
 * against the future. */
#include "controlplane/api/priv.h"

int th_verb_get(struct th_call *c, struct th_err *err)
{
    struct th_listopts o;
    TH_TRY(th_listopts_parse(&c->query, false, &o, err));
    TH_TRY(th_listopts_check_rv(c, o.rv, err));
    th_autofree char *key = th_store_key(c, c->route.name);
    TH_AUTO(th_obj) struct th_obj *obj = NULL;
    if (c->res->s.list_virtual) {
        TH_TRY(th_virtual_get(c, c->route.name, &obj, err));
    } else {
        obj = th_store_get(c->api->store, key);
    }
    if (!obj) {
        return th_fail_not_found(err, c->res, c->route.name);
    }
    return th_respond_obj(c, 200, obj, err);
}
