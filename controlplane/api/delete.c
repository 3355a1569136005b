/* DELETE and DELETE of a collection.
 *
 * A delete is one of three things, decided per object (rest.BeforeDelete and Store.Delete upstream):
 *   marked    finalizers remain, or the kind holds it (Namespace): deletionTimestamp now, grace 0
 *   graceful  the kind has a grace period (Pod on a node): deletionTimestamp in the future, the one
 *             who stops it deletes again with grace 0
 *   at once   the key goes; watchers see the last state stamped with the new revision
 *
 * propagationPolicy becomes the finalizers "orphan" and "foregroundDeletion", which the garbage
 * collector takes off; Background adds none and takes both away.
 */
#include "controlplane/api/priv.h"

#include "base/clock.h"

#define DELETE_RETRIES 10

static bool is_one_of(const char *s, const char *const *list)
{
    for (; s && *list; list++) {
        if (strcmp(s, *list) == 0) {
            return true;
        }
    }
    return false;
}

int th_delete_parse(struct th_call *c, struct th_delete_req *d, struct th_json **ret_hold,
                    struct th_err *err)
{
    *d = (struct th_delete_req){.grace_s = -1};
    TH_AUTO(th_json) struct th_json *o = NULL;
    TH_TRY(th_decode_options(c, "DeleteOptions", &o, err));
    const char *policy = th_json_str(th_json_get(o, "propagationPolicy"));
    d->propagation = policy && *policy ? policy : th_query_get(&c->query, "propagationPolicy");
    int64_t asked = -1;
    TH_TRY(th_query_int(&c->query, "gracePeriodSeconds", -1, &asked, err));
    d->grace_s = th_json_as_int(th_json_get(o, "gracePeriodSeconds"), asked);
    d->orphan_dependents_set = th_json_get(o, "orphanDependents") != NULL ||
                               th_query_get(&c->query, "orphanDependents") != NULL;
    d->orphan_dependents = th_json_as_bool(th_json_get(o, "orphanDependents"),
                                           th_query_bool(&c->query, "orphanDependents"));
    d->uid = th_json_path_str(o, "preconditions.uid");
    d->rv = th_json_path_str(o, "preconditions.resourceVersion");
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    static const char *const policies[] = {"Foreground", "Background", "Orphan", NULL};
    if (d->propagation && *d->propagation && !is_one_of(d->propagation, policies)) {
        th_err_add_cause(&local, "FieldValueNotSupported", "propagationPolicy",
                         "Unsupported value: \"%s\": supported values: \"Foreground\", "
                         "\"Background\", \"Orphan\", \"nil\"",
                         d->propagation);
    }
    if (d->propagation && d->orphan_dependents_set) {
        th_err_add_cause(&local, "FieldValueInvalid", "propagationPolicy",
                         "Invalid value: \"%s\": orphanDependents and deletionPropagation cannot "
                         "be both set",
                         d->propagation);
    }
    const struct th_json *dry = th_json_get(o, "dryRun");
    if (th_json_len(dry) > 0) {
        if (th_json_len(dry) != 1 || !th_streq(th_json_str(th_json_at(dry, 0)), "All")) {
            th_err_add_cause(&local, "FieldValueNotSupported", "dryRun",
                             "Unsupported value: supported values: \"All\"");
        }
        c->dry_run = true;
        c->ctx.dry_run = true;
    }
    int r = th_fail_invalid(&local, "meta.k8s.io", "DeleteOptions", "");
    if (r < 0) {
        if (err) {
            th_err_move(err, &local);
        }
        return r;
    }
    if (c->res->s.delete_warning && !d->orphan_dependents_set &&
        !(d->propagation && *d->propagation)) {
        th_strv_add(&c->warnings, c->res->s.delete_warning);
    }
    *ret_hold = th_steal(&o);
    return 0;
}

static bool list_has(const struct th_json *list, const char *s)
{
    for (size_t i = 0; i < th_json_len(list); i++) {
        if (th_streq(th_json_str(th_json_at(list, i)), s)) {
            return true;
        }
    }
    return false;
}

static void set_finalizer(struct th_json *obj, const char *name, bool want)
{
    struct th_json *meta = th_json_path_object(obj, "metadata");
    struct th_json *list = th_json_get(meta, "finalizers");
    if (want == list_has(list, name)) {
        return;
    }
    struct th_json *n = th_json_array();
    for (size_t i = 0; i < th_json_len(list); i++) {
        if (want || !th_streq(th_json_str(th_json_at(list, i)), name)) {
            th_json_append(n, th_json_ref(th_json_at(list, i)));
        }
    }
    if (want) {
        th_json_append_str(n, name);
    }
    if (th_json_len(n) > 0) {
        th_json_set(meta, "finalizers", n);
    } else {
        th_json_unref(n);
        th_json_del(meta, "finalizers");
    }
}

static void propagation_finalizers(const struct th_call *c, struct th_json *obj,
                                   const struct th_delete_req *d)
{
    const struct th_json *now = th_json_path(obj, "metadata.finalizers");
    bool orphan = list_has(now, "orphan");
    bool foreground = list_has(now, "foregroundDeletion");
    if (d->orphan_dependents_set) {
        orphan = d->orphan_dependents;
        foreground = foreground && !orphan;
    } else if (d->propagation && *d->propagation) {
        orphan = th_streq(d->propagation, "Orphan");
        foreground = th_streq(d->propagation, "Foreground");
    } else if (!orphan && !foreground) {
        orphan = c->res->s.orphans_by_default;
    }
    set_finalizer(obj, "orphan", orphan);
    set_finalizer(obj, "foregroundDeletion", foreground);
}

static int check_preconditions(struct th_call *c, const struct th_obj *o,
                               const struct th_json *obj, const struct th_delete_req *d,
                               struct th_err *err)
{
    const char *name = th_json_path_str(obj, "metadata.name");
    const char *uid = th_json_path_str(obj, "metadata.uid");
    if (d->uid && !th_streq(d->uid, uid)) {
        th_autofree char *why =
            th_xasprintf("Precondition failed: UID in precondition: %s, UID in object meta: %s",
                         d->uid, uid ? uid : "");
        return th_fail_conflict(err, c->res, name, why);
    }
    char rv[24];
    (void)snprintf(rv, sizeof(rv), "%lld", (long long)o->rv);
    if (d->rv && !th_streq(d->rv, rv)) {
        th_autofree char *why = th_xasprintf("Precondition failed: ResourceVersion in precondition: "
                                             "%s, ResourceVersion in object meta: %s",
                                             d->rv, rv);
        return th_fail_conflict(err, c->res, name, why);
    }
    return 0;
}

/* Puts deletionTimestamp and grace into obj. False when the delete changes nothing there. */
static bool mark(struct th_call *c, struct th_json *obj, int64_t grace_s)
{
    struct th_json *meta = th_json_path_object(obj, "metadata");
    bool deleting = th_json_str(th_json_get(meta, "deletionTimestamp")) != NULL;
    int64_t old_grace = th_json_as_int(th_json_get(meta, "deletionGracePeriodSeconds"), 0);
    if (deleting && grace_s >= old_grace) {
        return false; /* only shortened, never prolonged */
    }
    char text[TH_TIME_LEN];
    int64_t from = c->ctx.now_ms;
    if (deleting) {
        int64_t at_us = 0;
        (void)th_time_parse(th_json_str(th_json_get(meta, "deletionTimestamp")), &at_us, NULL);
        from = at_us / 1000 - old_grace * 1000;
    }
    th_json_set_str(meta, "deletionTimestamp", th_time_format(from + grace_s * 1000, text));
    th_json_set_int(meta, "deletionGracePeriodSeconds", grace_s);
    if (!deleting && c->res->s.has_generation) {
        th_json_set_int(meta, "generation", th_json_as_int(th_json_get(meta, "generation"), 0) + 1);
    }
    return true;
}

static int write_back(struct th_call *c, struct th_obj *o, struct th_json *obj, bool gone,
                      struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *stored = th_json_dup(obj);
    th_autobuf struct th_buf b = TH_BUF_INIT;
    TH_TRY(th_object_dump(c, stored, &b, err));
    if (c->dry_run) {
        return 0;
    }
    struct th_store_write w = {.op = gone ? TH_STORE_DELETE : TH_STORE_UPDATE,
                               .key = o->key,
                               .bytes = th_buf_cstr(&b),
                               .n = b.n,
                               .expect_rv = o->rv};
    TH_AUTO(th_obj) struct th_obj *made = NULL;
    int r = th_store_commit(c->api->store, &w, 1, &made, err);
    if (r < 0) {
        return r;
    }
    if (made) {
        th_json_path_set(obj, "metadata.resourceVersion",
                         th_json_stringf("%lld", (long long)made->rv));
    }
    if (gone && c->res->s.release) {
        c->res->s.release(&c->ctx, obj);
    }
    return 0;
}

/* One try. *ret_gone says that the object is away. */
static int delete_once(struct th_call *c, struct th_obj *o, const struct th_delete_req *d,
                       struct th_json **ret_obj, bool *ret_gone, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *obj = NULL;
    TH_TRY(th_object_load(c->res, o, &obj, err));
    TH_TRY(check_preconditions(c, o, obj, d, err));
    TH_AUTO(th_json) struct th_json *before = th_json_dup(obj);
    propagation_finalizers(c, obj, d);
    int64_t grace = 0;
    if (c->res->s.grace) {
        grace = c->res->s.grace(&c->ctx, obj, d->grace_s);
    }
    bool finalizers = th_json_len(th_json_path(obj, "metadata.finalizers")) > 0;
    bool gone = false;
    (void)mark(c, obj, grace > 0 ? grace : 0);
    bool held = c->res->s.hold && c->res->s.hold(&c->ctx, obj);
    if (grace <= 0 && !finalizers && !held) {
        gone = true;
    }
    if (gone && !c->res->s.grace) { /* as it was: only graceful kinds show when they went */
        th_json_unref(obj);
        obj = th_json_ref(before);
    }
    if (gone || !th_json_equal(before, obj)) {
        TH_TRY(write_back(c, o, obj, gone, err));
    }
    *ret_gone = gone;
    *ret_obj = th_steal(&obj);
    return 0;
}

int th_delete_one(struct th_call *c, struct th_obj *first, const struct th_delete_req *d,
                  struct th_json **ret_obj, bool *ret_gone, struct th_err *err)
{
    TH_AUTO(th_obj) struct th_obj *o = th_obj_ref(first);
    th_autofree char *name = th_xstrdup(strrchr(o->key, '/') + 1);
    for (int i = 0;; i++) {
        int r = delete_once(c, o, d, ret_obj, ret_gone, err);
        if (r >= 0) {
            return r;
        }
        bool raced = r == -TH_R_CONFLICT && err && !err->kind; /* the store's, not a precondition's */
        if (r == -TH_R_NOT_FOUND) {
            return th_fail_not_found(err, c->res, name);
        }
        if (!raced || i == DELETE_RETRIES) {
            return raced ? th_fail_conflict(err, c->res, name, NULL) : r;
        }
        th_err_done(err);
        struct th_obj *again = th_store_get(c->api->store, o->key);
        if (!again) {
            return th_fail_not_found(err, c->res, name);
        }
        th_obj_unref(o);
        o = again;
    }
}

/* Kinds whose delete answers with the object even when it is gone (ReturnDeletedObject). */
static bool returns_object(const struct th_resource *r)
{
    static const char *const core[] = {"pods", "services", "serviceaccounts", "podtemplates",
                                       "resourcequotas", "persistentvolumes",
                                       "persistentvolumeclaims", NULL};
    return !*r->group && is_one_of(r->plural, core);
}

int th_verb_delete(struct th_call *c, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *hold = NULL;
    struct th_delete_req d;
    TH_TRY(th_delete_parse(c, &d, &hold, err));
    th_autofree char *key = th_store_key(c, c->route.name);
    TH_AUTO(th_obj) struct th_obj *o = th_store_get(c->api->store, key);
    if (!o) {
        return th_fail_not_found(err, c->res, c->route.name);
    }
    c->delete_options = hold;
    TH_TRY(th_admit_delete(c, c->route.name, o, err));
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    TH_AUTO(th_json) struct th_json *obj = NULL;
    bool gone = false;
    int r = th_delete_one(c, o, &d, &obj, &gone, &local);
    if (r < 0) {
        if (err) {
            th_err_move(err, &local);
        }
        return r;
    }
    if (!gone || returns_object(c->res)) {
        return th_respond_tree(c, 200, th_steal(&obj), err);
    }
    struct th_json *status = th_json_build(
        "{'kind':'Status','apiVersion':'v1','metadata':{},'status':'Success','details':{'name':%s}}",
        c->route.name);
    struct th_json *details = th_json_get(status, "details");
    if (*c->res->group) {
        th_json_set_str(details, "group", c->res->group);
    }
    th_json_set_str(details, "kind", c->res->plural);
    th_json_set_str(details, "uid", th_json_path_str(obj, "metadata.uid"));
    return th_respond_tree(c, 200, status, err);
}

int th_verb_deletecollection(struct th_call *c, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *hold = NULL;
    struct th_delete_req d;
    TH_TRY(th_delete_parse(c, &d, &hold, err));
    c->delete_options = hold;
    TH_CLEANUP(th_select_done) struct th_select sel = {0};
    TH_TRY(th_select_parse(c, &sel, err));
    th_autofree char *prefix = th_store_prefix(c->storage, c->res->namespaced ? c->route.ns : NULL);
    TH_CLEANUP(th_store_list_done) struct th_store_list l = {.n = 0};
    TH_TRY(th_store_range(c->api->store, prefix, NULL, 0, 0, &l, err));
    struct th_json *items = th_json_array();
    th_autofree char *gv = *c->res->group ? th_xasprintf("%s/%s", c->res->group, c->res->version)
                                          : th_xstrdup(c->res->version);
    TH_AUTO(th_json) struct th_json *list =
        th_json_build("{'kind':%o,'apiVersion':%s,'metadata':{'resourceVersion':%o},'items':%o}",
                      c->res->list_kind ? th_json_string(c->res->list_kind)
                                        : th_json_stringf("%sList", c->res->kind),
                      gv,
                      th_json_stringf("%lld", (long long)l.rv), items);
    for (size_t i = 0; i < l.n; i++) {
        bool selected = false;
        TH_TRY(th_select_test(&sel, l.objs[i], &selected, err));
        if (!selected) {
            continue;
        }
        TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
        struct th_json *obj = NULL;
        bool gone = false;
        int r = th_admit_delete(c, strrchr(l.objs[i]->key, '/') + 1, l.objs[i], &local);
        if (r >= 0) {
            r = th_delete_one(c, l.objs[i], &d, &obj, &gone, &local);
        }
        if (r == -TH_R_NOT_FOUND) {
            continue; /* somebody else was faster */
        }
        if (r < 0) {
            if (err) {
                th_err_move(err, &local);
            }
            return r;
        }
        th_json_append(items, obj);
    }
    if (c->accept.form != TH_FORM_OBJECT) {
        c->accept.form = TH_FORM_OBJECT;
    }
    return th_respond_tree(c, 200, th_steal(&list), err);
}
