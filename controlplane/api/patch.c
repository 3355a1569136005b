/* PATCH: JSON patch, merge patch, strategic merge patch, server-side apply.
 *
 * A patch is a function of the stored object. It is computed, checked like a PUT, and committed
 * over the revision it was computed from; when another write came between, it is computed again
 * (upstream does the same five times), unless the patch itself names a resourceVersion.
 * Apply to an object that does not exist creates it.
 */
#include "controlplane/api/priv.h"

#include "base/json/yaml.h"
#include "controlplane/schema/gotext.h"

#define PATCH_RETRIES 5

struct patch {
    enum th_patch_kind kind;
    struct th_json *doc;
    struct th_strv dups;
    bool force;
};

static void patch_done(struct patch *p)
{
    th_json_unref(p->doc);
    th_strv_done(&p->dups);
}

static int kind_of(const char *content_type, bool custom, enum th_patch_kind *ret,
                   struct th_err *err)
{
    static const struct {
        const char *type;
        enum th_patch_kind kind;
    } types[] = {
        {"application/json-patch+json", TH_PATCH_JSON},
        {"application/merge-patch+json", TH_PATCH_MERGE_RFC7386},
        {"application/strategic-merge-patch+json", TH_PATCH_STRATEGIC},
        {"application/apply-patch+yaml", TH_PATCH_APPLY},
    };
    struct th_str have = {content_type ? content_type : "",
                          content_type ? strcspn(content_type, "; \t") : 0};
    for (size_t i = 0; i < TH_ARRAY_LEN(types); i++) {
        if (custom && types[i].kind == TH_PATCH_STRATEGIC) {
            continue;
        }
        if (th_str_eq(have, th_str_of(types[i].type))) {
            *ret = types[i].kind;
            return 0;
        }
    }
    return th_fail(err, TH_R_UNSUPPORTED_MEDIA,
                   "the body of the request was in an unknown format - accepted media types "
                   "include: application/json-patch+json, application/merge-patch+json, "
                   "application/apply-patch+yaml%s",
                   custom ? "" : ", application/strategic-merge-patch+json");
}

static int check_options(struct th_call *c, const struct patch *p, struct th_err *err)
{
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    const char *manager = th_query_get(&c->query, "fieldManager");
    if (p->kind == TH_PATCH_APPLY && (!manager || !*manager)) {
        th_err_add_cause(&local, "FieldValueRequired", "fieldManager",
                         "Required value: is required for apply patch");
    }
    if (p->kind != TH_PATCH_APPLY && th_query_get(&c->query, "force")) {
        th_err_add_cause(&local, "FieldValueForbidden", "force",
                         "Forbidden: may not be specified for non-apply patch");
    }
    int r = th_fail_invalid(&local, "meta.k8s.io", "PatchOptions", "");
    if (r < 0 && err) {
        th_err_move(err, &local);
    }
    return r;
}

static int parse(struct th_call *c, struct patch *p, struct th_err *err)
{
    const struct th_areq *q = c->req;
    TH_TRY(kind_of(q->content_type, c->res->custom != NULL, &p->kind, err));
    p->force = th_query_bool(&c->query, "force");
    TH_TRY(check_options(c, p, err));
    if (q->body_tree) {
        p->doc = th_json_dup(q->body_tree);
        return 0;
    }
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    int r = p->kind == TH_PATCH_APPLY
                ? th_yaml_parse_one(q->body.p, q->body.n, &p->dups, &p->doc, &local)
                : th_json_parse(q->body.p, q->body.n, &p->dups, &p->doc, &local);
    if (r < 0) {
        return th_fail(err, TH_R_BAD_REQUEST, "error decoding %s: %s",
                       p->kind == TH_PATCH_APPLY ? "YAML" : "patch", local.msg);
    }
    if (p->kind == TH_PATCH_JSON && th_json_len(p->doc) > TH_LIMIT_PATCH_OPS) {
        return th_fail(err, TH_R_TOO_LARGE,
                       "The allowed maximum operations in a JSON patch is %d, got %zu",
                       TH_LIMIT_PATCH_OPS, th_json_len(p->doc));
    }
    if (p->kind != TH_PATCH_JSON && !th_json_is(p->doc, TH_JSON_OBJECT)) {
        return th_fail(err, TH_R_BAD_REQUEST,
                       "error decoding patch: json: cannot unmarshal into Go value of type "
                       "map[string]interface {}");
    }
    return 0;
}

/* What a patch made is not of the kind: said of the patch for a strategic merge and of the result for
 * the others, and of no object by name, as upstream. */
static int fail_patch(const struct patch *p, const struct th_json *made, struct th_err *why,
                      struct th_err *err)
{
    if (why->reason != TH_R_BAD_REQUEST || why->n_causes > 0) {
        int r = -(int)why->reason;
        if (err) {
            th_err_move(err, why);
        }
        return r;
    }
    bool map = p->kind == TH_PATCH_STRATEGIC;
    th_autofree char *value = map ? th_go_print(p->doc) : th_json_to_string(made);
    th_autobuf struct th_buf quoted = TH_BUF_INIT;
    th_go_quote(&quoted, value);
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    th_err_add_cause(&local, "FieldValueInvalid", "patch", "Invalid value: %s: %s",
                     th_buf_cstr(&quoted), why->msg);
    int r = th_fail_invalid(&local, "", "", "");
    if (err) {
        th_err_move(err, &local);
    }
    return r;
}

/* The configuration of an applied Scale, said of the object itself: whoever applies a Scale owns the
 * object's replicas, under the subresource's name. Upstream maps the managers there and back. */
static struct th_json *scale_as_object(const struct th_call *c, const char *gv,
                                       const struct th_json *scale)
{
    struct th_json *o = th_json_build("{'apiVersion':%s,'kind':%s}", gv, c->res->kind);
    struct th_json *replicas = th_json_path(scale, "spec.replicas");
    struct th_json *rv = th_json_path(scale, "metadata.resourceVersion");
    th_json_set(o, "metadata", th_json_object());
    if (rv) {
        th_json_path_set(o, "metadata.resourceVersion", th_json_ref(rv));
    }
    if (replicas) {
        th_json_path_set(o, "spec.replicas", th_json_ref(replicas));
    }
    return o;
}

/* What may be applied through a subresource that is the whole object with a part that counts. */
struct part {
    const char *sub, *paths[3];
    const char *items[4]; /* members of a list's objects that count; none: all of them */
};
static const struct part parts[] = {
    {"ephemeralcontainers", {"spec.ephemeralContainers"}, {NULL}},
    {"resize", {"spec.containers", "spec.initContainers"}, {"name", "resources", "resizePolicy"}},
    {"approval", {"metadata.labels", "metadata.annotations", "status.conditions"}, {NULL}},
};

static struct th_json *only_members(const struct th_json *list, const char *const *members)
{
    struct th_json *all = th_json_array();
    for (size_t i = 0; i < th_json_len(list); i++) {
        struct th_json *o = th_json_object();
        for (const char *const *m = members; *m; m++) {
            struct th_json *v = th_json_get(th_json_at(list, i), *m);
            if (v) {
                th_json_set(o, *m, th_json_dup(v));
            }
        }
        th_json_append(all, o);
    }
    return all;
}

/* The part of an applied configuration that its subresource takes; the rest is not owned either. */
static struct th_json *part_of(const struct th_call *c, const struct th_json *doc)
{
    static const char *const identity[] = {"name", "namespace", "uid", "resourceVersion"};
    const struct part *p = NULL;
    for (size_t i = 0; c->sub && i < TH_ARRAY_LEN(parts); i++) {
        p = th_streq(parts[i].sub, c->sub->name) ? &parts[i] : p;
    }
    if (!p) {
        return th_json_dup(doc);
    }
    struct th_json *o = th_json_build("{'apiVersion':%s,'kind':%s,'metadata':{}}",
                                      th_json_path_str(doc, "apiVersion"),
                                      th_json_path_str(doc, "kind"));
    for (size_t i = 0; i < TH_ARRAY_LEN(identity); i++) {
        struct th_json *v = th_json_get(th_json_get(doc, "metadata"), identity[i]);
        if (v) {
            th_json_set(th_json_get(o, "metadata"), identity[i], th_json_dup(v));
        }
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(p->paths) && p->paths[i]; i++) {
        const struct th_json *v = th_json_path(doc, p->paths[i]);
        if (v) {
            th_json_path_set(o, p->paths[i],
                             p->items[0] ? only_members(v, p->items) : th_json_dup(v));
        }
    }
    return o;
}

static int check_applied(struct th_call *c, const struct patch *p, const char *gv, const char *kind,
                         struct th_err *err)
{
    const char *have_gv = th_json_path_str(p->doc, "apiVersion");
    const char *have_kind = th_json_path_str(p->doc, "kind");
    if (!th_streq(have_gv, gv) || !have_kind) {
        return th_fail(err, TH_R_BAD_REQUEST,
                       "invalid object type: the applied configuration must have apiVersion %s and "
                       "kind %s",
                       gv, kind);
    }
    const char *name = th_json_path_str(p->doc, "metadata.name");
    if (name && *name && !th_streq(name, c->route.name)) {
        return th_fail(err, TH_R_BAD_REQUEST,
                       "the name of the object (%s) does not match the name on the URL (%s)", name,
                       c->route.name);
    }
    return 0;
}

/* fieldValidation of an applied configuration: members that the schema does not know are refused
 * whatever is asked for, so what is left are members given twice. Upstream has a warning for them
 * too, but drops it, since its lines do not fit into a header. */
static int check_unique(struct th_call *c, const struct patch *p, struct th_err *err)
{
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    if (c->fv != TH_FV_STRICT || p->dups.n == 0 ||
        th_yaml_check_unique(c->req->body.p, c->req->body.n, &local) == 0) {
        return 0;
    }
    return th_fail(err, TH_R_BAD_REQUEST,
                   "error strict decoding YAML: error converting YAML to JSON: %s", local.msg);
}

static int apply(struct th_call *c, const struct patch *p, const struct th_json *live,
                 struct th_json **ret, struct th_err *err)
{
    bool scale = c->sub && th_streq(c->sub->kind, "Scale");
    if (!c->kind || (c->sub && !scale && !th_streq(c->sub->kind, c->res->kind))) {
        return th_fail(err, TH_R_UNSUPPORTED, "apply is not supported for %s%s%s", c->res->plural,
                       c->sub ? "/" : "", c->sub ? c->sub->name : "");
    }
    th_autofree char *gv = *c->res->group ? th_xasprintf("%s/%s", c->res->group, c->res->version)
                                          : th_xstrdup(c->res->version);
    TH_TRY(check_applied(c, p, scale ? "autoscaling/v1" : gv, scale ? "Scale" : c->res->kind, err));
    struct th_apply_opts o = {
        .type = c->kind->type,
        .api_version = gv,
        .manager = c->manager,
        .subresource = c->sub ? c->sub->name : "",
        .force = p->force,
        .now_ms = c->ctx.now_ms,
        .reset_paths = th_reset_paths(c),
    };
    if (scale) {
        struct th_apply_opts said = o;
        said.type = th_kind_find("autoscaling", "v1", "Scale")->type;
        said.api_version = "autoscaling/v1";
        TH_TRY(th_apply_check(&said, p->doc, err));
    }
    TH_AUTO(th_json) struct th_json *doc =
        scale ? scale_as_object(c, gv, p->doc) : part_of(c, p->doc);
    struct th_json *meta = th_json_path_object(doc, "metadata");
    th_json_set_str(meta, "name", c->route.name);
    if (c->res->namespaced) {
        TH_TRY(th_meta_check_ns(c, doc, err));
    }
    TH_AUTO(th_json) struct th_json *made = NULL;
    th_autostrv struct th_strv unknown = TH_STRV_INIT;
    TH_TRY(th_apply(&o, live, doc, &made, err));
    TH_TRY(check_unique(c, p, err));
    TH_TRY(th_schema_decode(c->kind->type, made, &unknown, err));
    *ret = th_steal(&made);
    return 0;
}

/* live with the patch, nothing checked yet; not for apply. */
static int patched(struct th_call *c, const struct patch *p, const struct th_json *live,
                   struct th_json **ret, struct th_err *err)
{
    switch (p->kind) {
    case TH_PATCH_JSON:
        return th_json_patch(live, p->doc, ret, err);
    case TH_PATCH_MERGE_RFC7386:
        return th_merge_patch(live, p->doc, ret, err);
    default:
        if (!c->kind) {
            return th_fail(err, TH_R_UNSUPPORTED_MEDIA,
                           "the body of the request was in an unknown format - accepted media "
                           "types include: application/json-patch+json, "
                           "application/merge-patch+json, application/apply-patch+yaml");
        }
        return th_strategic_merge(c->kind->type, live, p->doc, ret, err);
    }
}

/* The object that the patch makes out of live (not NULL but for apply). */
static int compute(struct th_call *c, const struct patch *p, const struct th_json *live,
                   struct th_json **ret, struct th_err *err)
{
    if (p->kind == TH_PATCH_APPLY) {
        return apply(c, p, live, ret, err);
    }
    TH_AUTO(th_json) struct th_json *o = NULL;
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    TH_TRY(patched(c, p, live, &o, err));
    if (!th_json_is(o, TH_JSON_OBJECT)) {
        return th_fail(err, TH_R_BAD_REQUEST, "the patch did not make an object");
    }
    if (th_decode_tree(c, c->kind, o, &p->dups, p->kind == TH_PATCH_STRATEGIC, &local) < 0) {
        th_json_unref(th_steal(&o)); /* decoding has changed it: once more, for the message */
        TH_TRY(patched(c, p, live, &o, err));
        return fail_patch(p, o, &local, err);
    }
    *ret = th_steal(&o);
    return 0;
}

static int check_identity(struct th_call *c, struct th_json *o, struct th_err *err)
{
    const char *name = th_json_path_str(o, "metadata.name");
    if (!th_streq(name, c->route.name)) {
        return th_fail(err, TH_R_BAD_REQUEST,
                       "the name of the object (%s) does not match the name on the URL (%s)",
                       name ? name : "", c->route.name);
    }
    return th_meta_check_ns(c, o, err);
}

static int create_by_apply(struct th_call *c, const struct patch *p, struct th_err *err)
{
    if (p->kind != TH_PATCH_APPLY || c->sub) {
        return th_fail_not_found(err, c->res, c->route.name);
    }
    const char *uid = th_json_path_str(p->doc, "metadata.uid");
    if (uid && *uid) {
        return th_fail_conflict(err, c->res, c->route.name,
                                "uid mismatch: the provided object specified uid, and no existing "
                                "object was found");
    }
    TH_TRY(th_authorize_create(c, err));
    struct th_json *o = NULL;
    TH_TRY(apply(c, p, NULL, &o, err));
    if (c->kind) {
        th_schema_default(c->kind, o);
    }
    c->applied = true;
    struct th_json *made = NULL;
    TH_TRY(th_object_create(c, o, &made, err));
    return th_respond_made(c, 201, made, err);
}

static int patch_once(struct th_call *c, const struct patch *p, struct th_obj *old_obj,
                      bool *ret_retry, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *old = NULL;
    TH_TRY(th_object_load(c->res, old_obj, &old, err));
    if (c->sub && p->kind == TH_PATCH_APPLY && !th_streq(c->sub->name, "status")) {
        struct th_json *o = NULL;
        TH_TRY(apply(c, p, old, &o, err));
        if (th_streq(c->sub->kind, c->res->kind) && c->sub->update) {
            TH_AUTO(th_json) struct th_json *body = o;
            th_schema_default(c->kind, body);
            TH_TRY(c->sub->update(&c->ctx, old, body, &o, err));
            th_json_path_set(o, "metadata.managedFields",
                             th_json_dup(th_json_path(body, "metadata.managedFields")));
        }
        return th_sub_commit(c, old_obj, old, o, true, ret_retry, err);
    }
    if (c->sub) {
        TH_AUTO(th_json) struct th_json *shown = NULL;
        const struct th_json *live = old;
        if (c->sub->get) {
            c->ctx.for_update = true;
            TH_TRY(c->sub->get(&c->ctx, old, &shown, err));
            c->ctx.for_update = false;
            live = shown;
        }
        TH_AUTO(th_json) struct th_json *body = NULL;
        const struct th_kind *whole = c->kind;
        c->kind = th_call_kind(c, c->sub->group, c->sub->version, c->sub->kind);
        int r = compute(c, p, live, &body, err);
        const struct th_kind *part = c->kind;
        c->kind = whole;
        TH_TRY(r);
        if (part) {
            th_schema_default(part, body);
        }
        return th_sub_write(c, old_obj, old, body, p->kind == TH_PATCH_APPLY, ret_retry, err);
    }
    struct th_json *o = NULL;
    TH_TRY(compute(c, p, old, &o, err));
    if (c->kind) {
        th_schema_default(c->kind, o);
    }
    int r = check_identity(c, o, err);
    if (r < 0) {
        th_json_unref(o);
        return r;
    }
    struct th_update u = {
        .old_obj = old_obj, .old = old, .applied = p->kind == TH_PATCH_APPLY};
    struct th_json *made = NULL;
    TH_TRY(th_object_update(c, &u, o, &made, ret_retry, err));
    return th_respond_made(c, 200, made, err);
}

int th_verb_patch(struct th_call *c, struct th_err *err)
{
    TH_CLEANUP(patch_done) struct patch p = {.dups = TH_STRV_INIT};
    TH_TRY(parse(c, &p, err));
    th_autofree char *key = th_store_key(c, c->route.name);
    for (int i = 0;; i++) {
        TH_AUTO(th_obj) struct th_obj *old_obj = th_store_get(c->api->store, key);
        if (!old_obj) {
            return create_by_apply(c, &p, err);
        }
        bool retry = false;
        int r = patch_once(c, &p, old_obj, &retry, err);
        if (r >= 0 || !retry || i == PATCH_RETRIES) {
            return r;
        }
    }
}
