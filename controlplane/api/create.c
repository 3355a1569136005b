/* POST to a collection. */
#include "controlplane/api/priv.h"

/* Kinds that are answered, not stored: reviews and Binding. */
static int create_virtual(struct th_call *c, struct th_json *obj_, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *obj = obj_;
    struct th_json *answer = NULL;
    TH_TRY(th_admit_review(c, obj, err));
    TH_TRY(c->res->s.create_virtual(&c->ctx, c->route.ns, obj, &answer, err));
    return th_respond_tree(c, 201, answer, err);
}

int th_verb_create(struct th_call *c, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *obj = NULL;
    TH_TRY(th_decode_body(c, c->res->group, c->res->version, c->res->kind, true, &obj, err));
    TH_TRY(th_meta_check_ns(c, obj, err));
    if (c->res->s.create_virtual) {
        return create_virtual(c, th_steal(&obj), err);
    }
    struct th_json *made = NULL;
    TH_TRY(th_object_create(c, th_steal(&obj), &made, err));
    return th_respond_made(c, 201, made, err);
}
