/* The write path that create, update, patch, apply and the subresources share.
 *
 *   create: managedFields -> admission (mutating) -> prepare -> metadata -> validate
 *           -> admission (validating) -> allocate -> commit
 *           (what admission adds belongs to no manager, as upstream)
 *   update: the same with what is stored beside it; a change of nothing writes nothing and answers
 *           with what is stored, as upstream; an object that is being deleted and has lost its last
 *           finalizer goes in the same commit.
 *
 * Stored values are canonical: members in the schema's order, no resourceVersion (the store stamps
 * it). Another served form of a kind (events.k8s.io) is converted at both ends, here.
 */
#include "controlplane/api/priv.h"

#include "base/log.h"
#include "controlplane/api/customs.h"

int th_object_load(const struct th_resource *res, const struct th_obj *o, struct th_json **ret,
                   struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *tree = NULL;
    TH_TRY(th_json_parse(o->bytes, o->n, NULL, &tree, err));
    if (res->custom && res->storage_row != res) {
        TH_TRY(th_custom_load(res, &tree, 1, err));
    }
    if (res->storage_gv_plural && res->from_storage) {
        TH_TRY(res->from_storage(tree, err));
    }
    *ret = th_steal(&tree);
    return 0;
}

int th_object_load_all(const struct th_resource *res, struct th_obj *const *objs, size_t n,
                       struct th_json **ret, struct th_err *err)
{
    bool together = res->custom && res->storage_row != res;
    int r = 0;
    for (size_t i = 0; i < n; i++) {
        ret[i] = NULL;
    }
    for (size_t i = 0; i < n && r >= 0; i++) {
        r = together ? th_json_parse(objs[i]->bytes, objs[i]->n, NULL, &ret[i], err)
                     : th_object_load(res, objs[i], &ret[i], err);
    }
    if (r >= 0 && together && n) {
        r = th_custom_load(res, ret, n, err);
    }
    for (size_t i = 0; i < n && r < 0; i++) {
        th_json_unref(ret[i]);
        ret[i] = NULL;
    }
    return r;
}

/* obj in the served form into bytes at rest; obj is left in the stored form. */
int th_object_dump(struct th_call *c, struct th_json *obj_, struct th_buf *b, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *obj = th_json_ref(obj_);
    if (c->res->custom) {
        TH_TRY(th_custom_store(c->res, &obj, err));
    }
    if (c->res != c->storage && c->res->to_storage) {
        TH_TRY(c->res->to_storage(obj, err));
    }
    const struct th_kind *k = th_resource_kind(c->storage);
    if (k) {
        th_schema_canonicalize(k->type, obj);
    }
    th_json_path_del(obj, "metadata.resourceVersion");
    th_json_dump(obj, b);
    TH_TRY(th_buf_check(b, err));
    if (b->n > TH_LIMIT_OBJECT_B) {
        return th_fail(err, TH_R_TOO_LARGE, "Request entity too large: limit is %u",
                       TH_LIMIT_OBJECT_B);
    }
    return 0;
}

/* The same, and obj stays in the served form (its members may be sorted, its revision goes). */
static int dump_stored(struct th_call *c, struct th_json *obj, struct th_buf *b, struct th_err *err)
{
    if (c->res == c->storage) {
        return th_object_dump(c, obj, b, err);
    }
    TH_AUTO(th_json) struct th_json *stored = th_json_dup(obj);
    return th_object_dump(c, stored, b, err);
}

static void keep_made(struct th_call *c, struct th_obj *made)
{
    th_obj_unref(c->made);
    c->made = th_obj_ref(made);
}

static bool has_status_sub(const struct th_resource *r)
{
    for (const struct th_subresource *s = r->subs; s && s->name; s++) {
        if (th_streq(s->name, "status")) {
            return true;
        }
    }
    return false;
}

const char *const *th_reset_paths(const struct th_call *c)
{
    static const char *const main_paths[] = {"status", NULL};
    static const char *const status_paths[] = {"spec", "metadata.labels",
                                               "metadata.ownerReferences", NULL};
    if (c->sub && th_streq(c->sub->name, "status")) {
        return status_paths;
    }
    return has_status_sub(c->res) && !c->res->s.no_status_reset ? main_paths : NULL;
}

/* Problems here never fail a write, as upstream: fields are then just not tracked. */
static void track_fields(struct th_call *c, const struct th_json *live, struct th_json *obj)
{
    if (!c->kind) {
        return;
    }
    th_autofree char *gv = *c->res->group ? th_xasprintf("%s/%s", c->res->group, c->res->version)
                                          : th_xstrdup(c->res->version);
    struct th_apply_opts o = {
        .type = c->kind->type,
        .api_version = gv,
        .manager = c->manager,
        .subresource = c->sub ? c->sub->name : "",
        .now_ms = c->ctx.now_ms,
        .reset_paths = th_reset_paths(c),
    };
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    if (th_managed_fields_update(&o, live, obj, &local) < 0) {
        th_debug("api", "fields not tracked", "error=%s", th_log_q(local.msg));
    }
}

static int validate(struct th_call *c, const struct th_json *obj, const struct th_json *old,
                    struct th_err *err)
{
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    if (old) {
        th_meta_validate_update(c, obj, old, &local);
    } else {
        th_meta_validate(c, obj, &local);
    }
    const struct th_strategy *s = &c->res->s;
    if (old && c->sub && th_streq(c->sub->name, "status")) {
        if (s->validate_status) {
            s->validate_status(&c->ctx, obj, old, &local);
        }
    } else {
        th_resource_validate(c->res, &c->ctx, obj, old, &local);
    }
    if (c->res->s.validate_custom) {
        c->res->s.validate_custom(&c->ctx, obj, old, &local);
    }
    int r = th_fail_invalid(&local, c->res->group, c->res->kind,
                            th_json_path_str(obj, "metadata.name"));
    if (r >= 0 && s->warn && !c->sub && !c->req->id->system) {
        s->warn(&c->ctx, obj, old);
    }
    if (r < 0 && err) {
        th_err_move(err, &local);
    }
    return r;
}

static int commit_error(struct th_call *c, int r, const char *name, struct th_err *err)
{
    switch (-r) {
    case TH_R_ALREADY_EXISTS:
        return th_fail_exists(err, c->res, name);
    case TH_R_NOT_FOUND:
        return th_fail_not_found(err, c->res, name);
    case TH_R_CONFLICT:
        return th_fail_conflict(err, c->res, name, NULL);
    default:
        return r;
    }
}

/* What a dry run answers: no revision was made, so none is shown on create. */
static int create_once(struct th_call *c, struct th_json *obj, struct th_json **ret,
                       struct th_err *err)
{
    const char *name = th_json_path_str(obj, "metadata.name");
    th_autobuf struct th_buf b = TH_BUF_INIT;
    TH_TRY(dump_stored(c, obj, &b, err));
    TH_TRY(th_call_in_time(c, err)); /* admission may have taken long: then it is not written */
    th_autofree char *key = th_store_key(c, name);
    if (c->dry_run) {
        TH_AUTO(th_obj) struct th_obj *there = th_store_get(c->api->store, key);
        if (there) {
            return th_fail_exists(err, c->res, name);
        }
        *ret = th_json_ref(obj);
        return 0;
    }
    struct th_store_write w = {
        .op = TH_STORE_CREATE, .key = key, .bytes = th_buf_cstr(&b), .n = b.n};
    TH_AUTO(th_obj) struct th_obj *made = NULL;
    int r = th_store_commit(c->api->store, &w, 1, &made, err);
    if (r < 0) {
        return commit_error(c, r, name, err);
    }
    keep_made(c, made);
    th_json_path_set(obj, "metadata.resourceVersion",
                     th_json_stringf("%lld", (long long)made->rv));
    *ret = th_json_ref(obj);
    return 0;
}

#define NAME_RETRIES 8

int th_object_create(struct th_call *c, struct th_json *obj_, struct th_json **ret,
                     struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *obj = obj_;
    const char *rv = th_json_path_str(obj, "metadata.resourceVersion");
    bool has_rv = rv && *rv && !th_streq(rv, "0");
    bool generated = th_meta_generate_name(obj);
    c->generated = generated;
    if (c->res->custom && c->res->custom->crd->terminating) {
        return th_fail_forbidden(err, c->res, th_json_path_str(obj, "metadata.name"),
                                 "create not allowed while custom resource definition is "
                                 "terminating");
    }
    if (!c->applied) {
        track_fields(c, NULL, obj);
    }
    TH_TRY(th_admit_mutate(c, obj, NULL, err));
    if (has_status_sub(c->res) && !c->res->s.no_status_reset) {
        th_json_del(obj, "status");
        if (c->kind && !c->res->custom) {
            th_schema_complete(c->kind->type, obj); /* as Go shows a status that says nothing */
        }
    }
    th_meta_create(c, obj);
    if (c->res->s.prepare_create) {
        c->res->s.prepare_create(&c->ctx, obj);
    }
    if (c->kind && !c->res->custom && has_status_sub(c->res) && !th_json_has(obj, "status")) {
        /* Go writes a struct that is not a pointer also when it is empty; JSON patches add to it. */
        th_json_set(obj, "status", th_json_object());
    }
    TH_TRY(validate(c, obj, NULL, err));
    TH_TRY(th_admit_validate(c, obj, NULL, err));
    /* Last, as upstream's storage does, which a dry run does not reach; it gives no reason, and clients
     * show that. */
    if (has_rv && !c->dry_run) {
        return th_fail(err, TH_R_UNKNOWN,
                       "resourceVersion should not be set on objects to be created");
    }
    if (c->res->s.allocate) {
        TH_TRY(c->res->s.allocate(&c->ctx, obj, NULL, err));
    }
    int r = create_once(c, obj, ret, err);
    for (int i = 1; r == -TH_R_ALREADY_EXISTS && generated && i < NAME_RETRIES; i++) {
        th_json_path_set_str(obj, "metadata.name", "");
        (void)th_meta_generate_name(obj);
        r = create_once(c, obj, ret, err);
    }
    if ((r < 0 || c->dry_run) && c->res->s.release) {
        c->res->s.release(&c->ctx, obj);
    }
    return r;
}

/* Anything but metadata and, where it is written apart, status differs. */
static bool spec_changed(const struct th_json *a, const struct th_json *b, bool status_too)
{
    const struct th_json *pair[2][2] = {{a, b}, {b, a}};
    for (int i = 0; i < 2; i++) {
        struct th_json_iter it = TH_JSON_ITER(pair[i][0]);
        while (th_json_next(&it)) {
            if (!th_streq(it.name, "metadata") && (status_too || !th_streq(it.name, "status")) &&
                !th_json_equal(it.value, th_json_get(pair[i][1], it.name))) {
                return true;
            }
        }
    }
    return false;
}

static void keep_member(struct th_json *obj, const struct th_json *old, const char *name)
{
    struct th_json *v = th_json_get(old, name);
    if (v) {
        th_json_set(obj, name, th_json_dup(v));
    } else {
        th_json_del(obj, name);
    }
}

static void prepare_update(struct th_call *c, struct th_json *obj, const struct th_update *u)
{
    const struct th_json *old = u->old;
    th_meta_update(obj, old);
    bool main_endpoint = !c->sub;
    if (main_endpoint && has_status_sub(c->res) && !c->res->s.no_status_reset) {
        keep_member(obj, old, "status");
    }
    if (main_endpoint && c->res->s.prepare_update) {
        c->res->s.prepare_update(&c->ctx, obj, old);
    }
    if (c->sub && c->res->s.prepare_status && th_streq(c->sub->name, "status")) {
        c->res->s.prepare_status(&c->ctx, obj, old);
    }
    if (c->res->s.has_generation && !u->same_generation &&
        spec_changed(obj, old, c->res->custom && !has_status_sub(c->res))) {
        th_json_path_set_int(obj, "metadata.generation",
                             th_json_path_int(old, "metadata.generation", 0) + 1);
    }
}

/* True when the update leaves an object that nothing holds back from going. */
static bool goes_now(struct th_call *c, struct th_json *obj)
{
    const struct th_json *meta = th_json_get(obj, "metadata");
    if (!th_json_str(th_json_get(meta, "deletionTimestamp"))) {
        return false;
    }
    bool held = c->res->s.hold && c->res->s.hold(&c->ctx, obj);
    return !held && th_json_len(th_json_get(meta, "finalizers")) == 0 &&
           th_json_as_int(th_json_get(meta, "deletionGracePeriodSeconds"), 0) == 0;
}

static int commit_update(struct th_call *c, const struct th_update *u, struct th_json *obj,
                         struct th_json **ret, bool *ret_retry, struct th_err *err)
{
    const char *name = th_json_path_str(obj, "metadata.name");
    bool gone = goes_now(c, obj);
    th_autobuf struct th_buf b = TH_BUF_INIT;
    TH_TRY(dump_stored(c, obj, &b, err));
    TH_TRY(th_call_in_time(c, err));
    if (!c->dry_run) {
        struct th_store_write w = {.op = gone ? TH_STORE_DELETE : TH_STORE_UPDATE,
                                   .key = u->old_obj->key,
                                   .bytes = th_buf_cstr(&b),
                                   .n = b.n,
                                   .expect_rv = u->old_obj->rv};
        TH_AUTO(th_obj) struct th_obj *made = NULL;
        int r = th_store_commit(c->api->store, &w, 1, &made, err);
        if (r < 0) {
            *ret_retry = r == -TH_R_CONFLICT;
            return commit_error(c, r, name, err);
        }
        keep_made(c, made);
        th_json_path_set(obj, "metadata.resourceVersion",
                         th_json_stringf("%lld", (long long)made->rv));
        if (gone && c->res->s.release) {
            c->res->s.release(&c->ctx, obj);
        }
    } else {
        th_json_path_set(obj, "metadata.resourceVersion",
                         th_json_stringf("%lld", (long long)u->old_obj->rv));
    }
    *ret = th_json_ref(obj);
    return 0;
}

static int check_preconditions(struct th_call *c, const struct th_update *u,
                               const struct th_json *obj, struct th_err *err)
{
    const char *name = th_json_path_str(u->old, "metadata.name");
    const char *uid = th_json_path_str(obj, "metadata.uid");
    const char *old_uid = th_json_path_str(u->old, "metadata.uid");
    if (uid && *uid && !th_streq(uid, old_uid)) {
        th_autofree char *why =
            th_xasprintf("Precondition failed: UID in precondition: %s, UID in object meta: %s",
                         uid, old_uid ? old_uid : "");
        return th_fail_conflict(err, c->res, name, why);
    }
    const char *rv = th_json_path_str(obj, "metadata.resourceVersion");
    if (!rv || !*rv || th_streq(rv, "0")) {
        if (c->res->s.need_rv_on_update && u->unconditional) {
            TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
            th_err_add_cause(&local, "FieldValueInvalid", "metadata.resourceVersion",
                             "Invalid value: 0: must be specified for an update");
            int r = th_fail_invalid(&local, c->res->group, c->res->kind, name);
            if (err) {
                th_err_move(err, &local);
            }
            return r;
        }
        return 0;
    }
    char now[24];
    (void)snprintf(now, sizeof(now), "%lld", (long long)u->old_obj->rv);
    return th_streq(rv, now) ? 0 : th_fail_conflict(err, c->res, name, NULL);
}

int th_object_update(struct th_call *c, const struct th_update *u, struct th_json *obj_,
                     struct th_json **ret, bool *ret_retry, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *obj = obj_;
    *ret_retry = false;
    TH_TRY(check_preconditions(c, u, obj, err));
    if (!u->applied) {
        track_fields(c, u->old, obj);
    }
    TH_TRY(th_admit_mutate(c, obj, u->old, err));
    prepare_update(c, obj, u);
    TH_TRY(validate(c, obj, u->old, err));
    TH_TRY(th_admit_validate(c, obj, u->old, err));
    if (c->res->s.allocate) {
        TH_TRY(c->res->s.allocate(&c->ctx, obj, u->old, err));
    }
    if (th_meta_unchanged(u->old, obj) && !goes_now(c, obj)) {
        keep_made(c, u->old_obj);
        *ret = th_json_dup(u->old);
        return 0;
    }
    return commit_update(c, u, obj, ret, ret_retry, err);
}
