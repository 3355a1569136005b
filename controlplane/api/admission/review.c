/*
 * A write as webhooks and policies see it.
 *
 * What they are shown is what the endpoint takes: for most subresources the whole object, for a scale
 * the Scale that it shows, for those that are only posted to (eviction, binding, token) the body, for a
 * connection its options. A change that a mutator makes to a Scale is carried back into the object
 * that it is part of.
 *
 * An object has a form for each row that serves it (versions of a custom resource, Events in two
 * groups). The request's own form is the truth; another one is converted on first use and dropped when
 * the object changes. A mutator that was shown another form hands its change back in it.
 */
#include "controlplane/api/admission/review.h"

#include "controlplane/api/admission/hooks.h"
#include "controlplane/api/customs.h"

static bool is_core(const struct th_resource *r, const char *plural)
{
    return !*r->group && th_streq(r->plural, plural);
}

/* The subresource shows something of its own (a Scale), and takes it. */
static bool shows_part(const struct th_admit *a)
{
    const struct th_subresource *s = a->c->sub;
    return s && s->get && s->update && th_streq(a->op, "UPDATE");
}

/* The object is of the subresource's kind, not of the resource's. */
static bool has_own_kind(const struct th_admit *a)
{
    return a->c->sub && !th_streq(a->c->sub->kind, a->c->res->kind);
}

static int show(struct th_admit *a)
{
    struct th_call *c = a->c;
    bool before = c->ctx.for_update;
    c->ctx.for_update = true;
    int r = c->sub->get(&c->ctx, a->target, &a->shown, NULL);
    if (r >= 0 && a->target_old) {
        r = c->sub->get(&c->ctx, a->target_old, &a->shown_old, NULL);
    }
    c->ctx.for_update = before;
    return r;
}

bool th_admit_exempt(const struct th_call *c)
{
    static const char *const kinds[] = {
        "ValidatingWebhookConfiguration",   "MutatingWebhookConfiguration",
        "ValidatingAdmissionPolicy",        "MutatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding", "MutatingAdmissionPolicyBinding"};
    for (size_t i = 0; th_streq(c->res->group, "admissionregistration.k8s.io") &&
                       i < TH_ARRAY_LEN(kinds); i++) {
        if (th_streq(c->res->kind, kinds[i])) {
            return true;
        }
    }
    return false;
}

int th_admit_forbidden(const struct th_admit *a, struct th_err *err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    th_autofree char *why = th_xvasprintf(fmt, ap);
    va_end(ap);
    const char *name = *a->name ? a->name : th_json_path_str(a->object, "metadata.name");
    if (!name || !*name) {
        name = th_json_path_str(a->object, "metadata.generateName");
    }
    return th_fail_forbidden(err, a->c->res, name && *name ? name : "Unknown", "%s", why);
}

bool th_admit_begin(struct th_admit *a, struct th_call *c, const char *op, struct th_json *obj,
                    const struct th_json *old)
{
    struct th_hookset *set =
        c->reviewed || th_admit_exempt(c) ? NULL : th_hooks_get(c->api->hooks);
    if (!set) {
        return false;
    }
    *a = (struct th_admit){.c = c, .op = op, .object = obj, .old = old, .set = set};
    a->target = obj;
    a->target_old = old;
    const char *name = c->route.name ? c->route.name
                                     : th_json_path_str(obj ? obj : old, "metadata.name");
    a->name_copy = th_xstrdup(name ? name : "");
    a->name = a->name_copy;
    a->ns = is_core(c->res, "namespaces")         ? a->name
            : c->res->namespaced && c->route.ns ? c->route.ns
                                                : "";
    if (shows_part(a)) {
        if (show(a) < 0) {
            th_admit_end(a);
            return false; /* nothing to show: what is wrong with it is said by validation */
        }
        a->object = a->shown;
        a->old = a->shown_old;
    }
    return true;
}

static void drop_forms(struct th_admit *a)
{
    for (size_t i = 0; i < a->n_forms; i++) {
        th_json_unref(a->forms[i].object);
        th_json_unref(a->forms[i].old);
    }
    a->n_forms = 0;
}

void th_admit_end(struct th_admit *a)
{
    drop_forms(a);
    free(a->name_copy);
    th_json_unref(a->shown);
    th_json_unref(a->shown_old);
    th_json_unref(a->options);
    th_json_unref(a->ns_object);
    th_json_unref(a->user);
    th_json_unref(a->last_output);
    th_json_unref(a->policies_output);
    th_strv_done(&a->policies_seen);
    th_strv_done(&a->seen);
    th_strv_done(&a->again);
    th_hookset_unref(a->set);
    a->set = NULL;
}

struct th_match_key th_admit_key(const struct th_admit *a, const struct th_resource *as)
{
    return (struct th_match_key){.op = a->op,
                                 .group = as->group,
                                 .version = as->version,
                                 .plural = as->plural,
                                 .sub = a->c->route.sub ? a->c->route.sub : "",
                                 .ns = a->ns,
                                 .name = a->name};
}

/* ---- Forms ---- */

static const struct th_resource *stored_as(const struct th_resource *r)
{
    if (!r->storage_gv_plural) {
        return r;
    }
    th_autostrv struct th_strv parts = TH_STRV_INIT;
    th_strv_split(&parts, r->storage_gv_plural, '/');
    return th_resource_find(th_streq(parts.v[0], "core") ? "" : parts.v[0], parts.v[1], parts.v[2]);
}

const struct th_resource *th_admit_equivalent(struct th_admit *a, size_t i)
{
    const struct th_resource *own = a->c->res;
    if (own->custom) {
        const struct th_crd *crd = own->custom->crd;
        for (size_t k = 0; k < crd->n_versions; k++) {
            const struct th_resource *r = &crd->versions[k].res;
            if (r != own && crd->versions[k].served && i-- == 0) {
                return r;
            }
        }
        return NULL;
    }
    const struct th_resource *r, *home = stored_as(own);
    for (size_t k = 0; (r = th_resource_at(k)); k++) {
        bool related = r == home || (r->storage_gv_plural && stored_as(r) == home);
        if (related && r != own && i-- == 0) {
            return r;
        }
    }
    return NULL;
}

static int convert(const struct th_resource *from, const struct th_resource *to,
                   struct th_json **obj, struct th_err *err)
{
    if (!*obj || from == to) {
        return 0;
    }
    if (to->custom) {
        return th_custom_convert(to, obj, err);
    }
    const struct th_resource *home = stored_as(to);
    if (from != home && from->to_storage) {
        TH_TRY(from->to_storage(*obj, err));
    }
    return to != home && to->from_storage ? to->from_storage(*obj, err) : 0;
}

int th_admit_form(struct th_admit *a, const struct th_resource *as, struct th_json **ret_object,
                  const struct th_json **ret_old, struct th_err *err)
{
    *ret_object = a->object;
    *ret_old = a->old;
    if (as == a->c->res || has_own_kind(a)) {
        return 0;
    }
    struct th_admit_form *f = NULL;
    for (size_t i = 0; i < a->n_forms && !f; i++) {
        f = a->forms[i].res == as ? &a->forms[i] : NULL;
    }
    if (!f) {
        if (a->n_forms == TH_ADMIT_FORMS) {
            drop_forms(a);
        }
        f = &a->forms[a->n_forms++];
        *f = (struct th_admit_form){
            .res = as,
            .object = a->object ? th_json_dup(a->object) : NULL,
            .old = a->old ? th_json_dup(a->old) : NULL,
        };
        TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
        if (convert(a->c->res, as, &f->object, &local) < 0 ||
            convert(a->c->res, as, &f->old, &local) < 0) {
            drop_forms(a);
            return th_fail(err, TH_R_INTERNAL, "Internal error occurred: %s", local.msg);
        }
    }
    *ret_object = f->object;
    *ret_old = f->old;
    return 0;
}

/* Makes dst what src is, member by member. */
static void become(struct th_json *dst, const struct th_json *src)
{
    struct th_json_iter it = TH_JSON_ITER(dst);
    while (th_json_next(&it)) {
        if (!th_json_has(src, it.name)) {
            (void)th_json_del(dst, it.name);
        }
    }
    struct th_json_iter from = TH_JSON_ITER(src);
    while (th_json_next(&from)) {
        th_json_set(dst, from.name, th_json_ref(from.value));
    }
}

static int check_type(struct th_admit *a, struct th_json *o, struct th_err *err)
{
    struct th_call *c = a->c;
    bool own = has_own_kind(a);
    const struct th_kind *k =
        own ? th_kind_find(c->sub->group, c->sub->version, c->sub->kind)
            : th_call_kind(c, c->res->group, c->res->version, c->res->kind);
    if (!k) {
        return 0;
    }
    th_autostrv struct th_strv unknown = TH_STRV_INIT;
    TH_TRY(th_schema_decode(k->type, o, &unknown, err));
    th_schema_default(k, o);
    return 0;
}

int th_admit_replace(struct th_admit *a, const struct th_resource *as, struct th_json *object_,
                     bool *ret_changed, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *object = object_;
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    int r = th_json_is(object, TH_JSON_OBJECT)
                ? 0
                : th_fail(&local, TH_R_INTERNAL, "the patch did not make an object");
    if (r >= 0 && !has_own_kind(a)) {
        r = convert(as, a->c->res, &object, &local);
    }
    if (r >= 0) {
        r = check_type(a, object, &local);
    }
    if (r < 0) {
        return th_fail(err, TH_R_INTERNAL, "Internal error occurred: %s", local.msg);
    }
    *ret_changed = !th_json_equal(object, a->object);
    if (!*ret_changed) {
        return 0;
    }
    become(a->object, object);
    drop_forms(a);
    if (a->shown && a->target) {
        TH_AUTO(th_json) struct th_json *whole = NULL;
        TH_TRY(a->c->sub->update(&a->c->ctx, a->target, a->object, &whole, err));
        become(a->target, whole);
    }
    return 0;
}

/* ---- What surrounds the object ---- */

int th_admit_namespace(struct th_admit *a, const struct th_json **ret, struct th_err *err)
{
    if (!a->ns_object) {
        th_autofree char *key = th_xasprintf("core/namespaces/-/%s", a->ns);
        TH_AUTO(th_obj) struct th_obj *o = th_store_get(a->c->api->store, key);
        if (!o) {
            return th_fail_obj(err, TH_R_NOT_FOUND, "", "namespaces", a->ns,
                               "namespaces \"%s\" not found", a->ns);
        }
        TH_TRY(th_json_parse(o->bytes, o->n, NULL, &a->ns_object, err));
    }
    *ret = a->ns_object;
    return 0;
}

static void copy_query(struct th_json *o, const struct th_call *c, const char *name)
{
    const char *v = th_query_get(&c->query, name);
    if (v && *v) {
        th_json_set_str(o, name, v);
    }
}

static struct th_json *delete_options(const struct th_call *c)
{
    static const char *const members[] = {"gracePeriodSeconds", "preconditions", "orphanDependents",
                                          "propagationPolicy", "dryRun"};
    struct th_json *o = th_json_build("{'kind':'DeleteOptions','apiVersion':'meta.k8s.io/v1'}");
    for (size_t i = 0; i < TH_ARRAY_LEN(members); i++) {
        struct th_json *v = th_json_get(c->delete_options, members[i]);
        if (v) {
            th_json_set(o, members[i], th_json_dup(v));
        }
    }
    if (!th_json_has(o, "propagationPolicy")) {
        copy_query(o, c, "propagationPolicy");
    }
    int64_t grace = -1;
    if (!th_json_has(o, "gracePeriodSeconds") &&
        th_query_int(&c->query, "gracePeriodSeconds", -1, &grace, NULL) >= 0 && grace >= 0) {
        th_json_set_int(o, "gracePeriodSeconds", grace);
    }
    return o;
}

static struct th_json *make_options(const struct th_admit *a)
{
    const struct th_call *c = a->c;
    struct th_json *o;
    if (th_streq(a->op, "CONNECT")) {
        return NULL;
    }
    if (th_streq(a->op, "DELETE")) {
        o = delete_options(c);
    } else {
        o = th_json_build("{'kind':%s,'apiVersion':'meta.k8s.io/v1'}",
                          th_streq(a->op, "CREATE") ? "CreateOptions" : "UpdateOptions");
        copy_query(o, c, "fieldManager");
        copy_query(o, c, "fieldValidation");
    }
    if (c->dry_run && !th_json_has(o, "dryRun")) {
        struct th_json *all = th_json_array();
        th_json_append_str(all, "All");
        th_json_set(o, "dryRun", all);
    }
    return o;
}

struct th_json *th_admit_kind(const struct th_admit *a, const struct th_resource *as)
{
    const struct th_subresource *s = has_own_kind(a) ? a->c->sub : NULL;
    return th_json_build("{'group':%s,'version':%s,'kind':%s}", s ? s->group : as->group,
                         s ? s->version : as->version, s ? s->kind : as->kind);
}

static struct th_json *resource_of(const struct th_resource *as)
{
    return th_json_build("{'group':%s,'version':%s,'resource':%s}", as->group, as->version,
                         as->plural);
}

static void set_if(struct th_json *o, const char *name, const char *v)
{
    if (v && *v) {
        th_json_set_str(o, name, v);
    }
}

struct th_json *th_admit_request(struct th_admit *a, const struct th_resource *as)
{
    const char *sub = a->c->route.sub;
    if (!a->options) {
        a->options = make_options(a);
    }
    if (!a->user) {
        a->user = th_identity_json(a->c->req->id);
    }
    struct th_json *r = th_json_object();
    th_json_set(r, "kind", th_admit_kind(a, as));
    th_json_set(r, "resource", resource_of(as));
    set_if(r, "subResource", sub);
    th_json_set(r, "requestKind", th_admit_kind(a, a->c->res));
    th_json_set(r, "requestResource", resource_of(a->c->res));
    set_if(r, "requestSubResource", sub);
    set_if(r, "name", a->name);
    set_if(r, "namespace", a->ns);
    th_json_set_str(r, "operation", a->op);
    th_json_set(r, "userInfo", th_json_dup(a->user));
    th_json_set_bool(r, "dryRun", a->c->dry_run);
    th_json_set(r, "options", a->options ? th_json_dup(a->options) : NULL);
    return r;
}
