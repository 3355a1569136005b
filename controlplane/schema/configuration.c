/*
 * A configuration laid over an object without any manager: what an admission policy's
 * ApplyConfiguration does.
 *
 * It is the merge of server-side apply without its book-keeping: leaves come from the configuration,
 * granular containers are united, elements of associative lists are found by their keys. Nothing can be
 * removed this way, and atomic containers may not be touched, for all they hold would be replaced by the
 * few members that a configuration names.
 */
#include "controlplane/schema/patch.h"
#include "controlplane/schema/typed_priv.h"

/* Paths of atomic containers in the configuration, as upstream prints them, to b. */
static void find_atomics(struct th_tref t, struct th_tval v, const char *path, struct th_buf *b)
{
    t = th_tref_resolve(t, v);
    bool list = t.kind == TH_T_LIST && th_json_is(v.o, TH_JSON_ARRAY);
    bool map = (t.kind == TH_T_STRUCT || t.kind == TH_T_MAP) && th_json_is(v.o, TH_JSON_OBJECT);
    if (!list && !map) {
        return;
    }
    if (t.atomic) {
        th_buf_printf(b, "%s%s", b->n ? ", " : "", path);
    }
    for (size_t i = 0; list && i < th_json_len(v.o); i++) {
        th_autofree char *at = th_xasprintf("%s[%zu]", path, i);
        find_atomics(th_tref_element(t), (struct th_tval){th_json_at(v.o, i), true}, at, b);
    }
    struct th_json_iter it = TH_JSON_ITER(map ? v.o : NULL);
    while (th_json_next(&it)) {
        struct th_tref sub;
        bool named = false;
        if (th_tref_member(t, it.name, &sub, &named) && named) {
            th_autofree char *at = th_xasprintf("%s.%s", path, it.name);
            find_atomics(sub, (struct th_tval){it.value, true}, at, b);
        }
    }
}

int th_merge_configuration(const struct th_type *type, const struct th_json *obj,
                           const struct th_json *config, struct th_json **ret, struct th_err *err)
{
    struct th_tref t = th_tref_root(type);
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    if (th_typed_validate(t, config, false, &local) < 0) {
        return th_fail(err, TH_R_INVALID, "failed to convert patch object to typed object: %s",
                       local.msg);
    }
    th_autobuf struct th_buf atomics = TH_BUF_INIT;
    find_atomics(t, (struct th_tval){config, true}, "", &atomics);
    if (atomics.n) {
        return th_fail(err, TH_R_INVALID,
                       "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: %s",
                       th_buf_cstr(&atomics));
    }
    if (th_typed_validate(t, obj, true, &local) < 0) {
        return th_fail(err, TH_R_INVALID, "failed to convert original object to typed object: %s",
                       local.msg);
    }
    *ret = th_typed_merge(t, obj, config);
    return 0;
}
