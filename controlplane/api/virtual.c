/* Kinds that are made on being asked, as if they were stored: their objects become revisions that
 * nobody keeps, and so selectors, Tables and other forms work on them as on any. There are no pages
 * of them, and no watches. */
#include "controlplane/api/priv.h"

static int add(struct th_call *c, const struct th_json *o, int64_t rv, struct th_obj **ret,
               struct th_err *err)
{
    const char *ns = th_json_path_str(o, "metadata.namespace");
    const char *name = th_json_path_str(o, "metadata.name");
    th_autofree char *prefix = th_store_prefix(c->storage, ns);
    th_autofree char *key = th_xasprintf("%s%s%s", prefix, ns ? "" : "-/",
                                         name ? name : "");
    th_autofree char *text = th_json_to_string(o);
    return th_obj_make(key, th_str_of(text), rv, ret, err);
}

int th_virtual_list(struct th_call *c, struct th_store_list *ret, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *all = NULL;
    TH_TRY(c->res->s.list_virtual(&c->ctx, c->route.ns, NULL, &all, err));
    TH_CLEANUP(th_store_list_done) struct th_store_list l = {.rv = th_store_rv(c->api->store)};
    l.objs = th_xcalloc(th_json_len(all) + 1, sizeof(struct th_obj *));
    for (size_t i = 0; i < th_json_len(all); i++) {
        TH_TRY(add(c, th_json_at(all, i), l.rv, &l.objs[l.n], err));
        l.n++;
    }
    *ret = l;
    l = (struct th_store_list){.n = 0};
    return 0;
}

int th_virtual_get(struct th_call *c, const char *name, struct th_obj **ret, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *all = NULL;
    TH_TRY(c->res->s.list_virtual(&c->ctx, c->route.ns, name, &all, err));
    *ret = NULL;
    return th_json_len(all) == 0 ? 0 : add(c, th_json_at(all, 0), 0, ret, err);
}
