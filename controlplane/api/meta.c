/* metadata: what the server fills in, what an update can never change, and its validation.
 *
 * The rules are those of rest.BeforeCreate, rest.BeforeUpdate and ValidateObjectMeta upstream:
 * a create gets a new uid and creationTimestamp whatever the body says; an update keeps uid,
 * creationTimestamp, deletionTimestamp and generation from the stored object, and a body that
 * names another uid is a conflict (checked in object.c).
 */
#include "controlplane/api/priv.h"

#include "base/clock.h"
#include "base/rand.h"
#include "controlplane/schema/names.h"

#define GENERATED_BASE 58 /* 63 - suffix */
#define GENERATED_SUFFIX 5

char *th_store_prefix(const struct th_resource *storage, const char *ns)
{
    const char *g = *storage->group ? storage->group : "core";
    return ns && *ns ? th_xasprintf("%s/%s/%s/", g, storage->plural, ns)
                     : th_xasprintf("%s/%s/", g, storage->plural);
}

char *th_store_key(const struct th_call *c, const char *name)
{
    const struct th_resource *s = c->storage;
    return th_xasprintf("%s/%s/%s/%s", *s->group ? s->group : "core", s->plural,
                        s->namespaced ? c->route.ns : "-", name);
}

bool th_meta_generate_name(struct th_json *obj)
{
    struct th_json *meta = th_json_path_object(obj, "metadata");
    const char *name = th_json_str(th_json_get(meta, "name"));
    const char *base = th_json_str(th_json_get(meta, "generateName"));
    if ((name && *name) || !base || !*base) {
        return false;
    }
    char suffix[GENERATED_SUFFIX + 1];
    th_rand_suffix(suffix, GENERATED_SUFFIX);
    th_json_set(meta, "name", th_json_stringf("%.*s%s", GENERATED_BASE, base, suffix));
    return true;
}

void th_meta_create(struct th_call *c, struct th_json *obj)
{
    struct th_json *meta = th_json_path_object(obj, "metadata");
    th_json_del(meta, "selfLink");
    th_json_del(meta, "deletionTimestamp");
    th_json_del(meta, "deletionGracePeriodSeconds");
    th_json_del(meta, "resourceVersion");
    th_json_del(meta, "generation");
    char text[TH_TIME_LEN];
    th_json_set_str(meta, "creationTimestamp", th_time_format(c->ctx.now_ms, text));
    char uid[TH_UUID_LEN];
    th_json_set_str(meta, "uid", th_rand_uuid(uid));
    if (c->res->s.has_generation) {
        th_json_set_int(meta, "generation", 1);
    }
}

static void keep(struct th_json *meta, const struct th_json *old, const char *name)
{
    struct th_json *v = th_json_get(old, name);
    if (v) {
        th_json_set(meta, name, th_json_dup(v));
    } else {
        th_json_del(meta, name);
    }
}

void th_meta_update(struct th_json *obj, const struct th_json *old)
{
    struct th_json *meta = th_json_path_object(obj, "metadata");
    const struct th_json *was = th_json_get(old, "metadata");
    keep(meta, was, "creationTimestamp");
    keep(meta, was, "generation");
    th_json_del(meta, "selfLink");
    if (!th_json_str(th_json_get(meta, "uid"))) {
        keep(meta, was, "uid");
    }
    keep(meta, was, "deletionTimestamp");
    if (!th_json_has(meta, "deletionGracePeriodSeconds") || !th_json_has(was, "deletionTimestamp")) {
        keep(meta, was, "deletionGracePeriodSeconds");
    }
}

static void check_labels(const struct th_json *meta, struct th_err *err)
{
    struct th_json_iter it = TH_JSON_ITER(th_json_get(meta, "labels"));
    while (th_json_next(&it)) {
        const char *why = th_name_qualified(it.name);
        if (why) {
            th_err_add_cause(err, "FieldValueInvalid", "metadata.labels", "Invalid value: \"%s\": %s",
                             it.name, why);
        }
        const char *v = th_json_str(it.value);
        why = v ? th_name_label_value(v) : NULL;
        if (why) {
            th_err_add_cause(err, "FieldValueInvalid", "metadata.labels", "Invalid value: \"%s\": %s",
                             v, why);
        }
    }
}

static void check_annotations(const struct th_json *meta, struct th_err *err)
{
    size_t total = 0;
    struct th_json_iter it = TH_JSON_ITER(th_json_get(meta, "annotations"));
    while (th_json_next(&it)) {
        th_autobuf struct th_buf lower = TH_BUF_INIT;
        for (const char *p = it.name; *p; p++) {
            th_buf_putc(&lower, *p >= 'A' && *p <= 'Z' ? (char)(*p - 'A' + 'a') : *p);
        }
        const char *why = th_name_qualified(th_buf_cstr(&lower));
        if (why) {
            th_err_add_cause(err, "FieldValueInvalid", "metadata.annotations",
                             "Invalid value: \"%s\": %s", it.name, why);
        }
        total += strlen(it.name) + th_json_str_len(it.value);
    }
    if (total > TH_LIMIT_ANNOTATIONS_B) {
        th_err_add_cause(err, "FieldValueTooLong", "metadata.annotations",
                         "Too long: may not be more than %u bytes", TH_LIMIT_ANNOTATIONS_B);
    }
}

static void check_owners(const struct th_json *meta, struct th_err *err)
{
    static const char *const needed[] = {"apiVersion", "kind", "name", "uid"};
    static const char *const words[] = {"version", "kind", "name", "uid"};
    const struct th_json *owners = th_json_get(meta, "ownerReferences");
    const char *controller = NULL;
    for (size_t i = 0; i < th_json_len(owners); i++) {
        const struct th_json *o = th_json_at(owners, i);
        for (size_t k = 0; k < TH_ARRAY_LEN(needed); k++) {
            const char *v = th_json_str(th_json_get(o, needed[k]));
            if (!v || !*v) {
                th_autofree char *field =
                    th_xasprintf("metadata.ownerReferences[%zu].%s", i, needed[k]);
                th_err_add_cause(err, "FieldValueInvalid", field,
                                 "Invalid value: \"\": %s must not be empty", words[k]);
            }
        }
        if (th_json_as_bool(th_json_get(o, "controller"), false)) {
            const char *kind = th_json_str(th_json_get(o, "kind"));
            if (controller) {
                th_err_add_cause(err, "FieldValueInvalid", "metadata.ownerReferences",
                                 "Invalid value: Only one reference can have Controller set to "
                                 "true. Found \"true\" in references for %s and %s",
                                 controller, kind ? kind : "");
            }
            controller = kind ? kind : "";
        }
    }
}

/* Kinds of Kubernetes' own want a domain in a finalizer's name, or one of the old names without. The
 * groups that came as libraries, and custom resources, take any name. */
static bool takes_any_finalizer(const struct th_resource *r)
{
    static const char *const groups[] = {"admissionregistration.k8s.io", "apiextensions.k8s.io",
                                         "apiregistration.k8s.io", "coordination.k8s.io"};
    bool any = r->custom != NULL;
    for (size_t i = 0; !any && i < TH_ARRAY_LEN(groups); i++) {
        any = th_streq(r->group, groups[i]);
    }
    return any;
}

static void check_finalizers(const struct th_call *c, const struct th_json *meta,
                             struct th_err *err)
{
    const struct th_json *f = th_json_get(meta, "finalizers");
    for (size_t i = 0; i < th_json_len(f); i++) {
        const char *v = th_json_str(th_json_at(f, i));
        const char *why = th_name_qualified(v ? v : "");
        if (why) {
            th_err_add_cause(err, "FieldValueInvalid", "metadata.finalizers",
                             "Invalid value: \"%s\": %s", v ? v : "", why);
        } else if (!takes_any_finalizer(c->res) && !strchr(v, '/') && !th_streq(v, "orphan") &&
                   !th_streq(v, "foregroundDeletion") && !th_streq(v, "kubernetes")) {
            th_autofree char *field = th_xasprintf("metadata.finalizers[%zu]", i);
            th_err_add_cause(err, "FieldValueInvalid", field,
                             "Invalid value: \"%s\": name is neither a standard finalizer name nor "
                             "is it fully qualified",
                             v);
        }
    }
}

void th_meta_validate(const struct th_call *c, const struct th_json *obj, struct th_err *err)
{
    const struct th_json *meta = th_json_get(obj, "metadata");
    const char *(*name_check)(const char *) =
        c->res->s.name_check ? c->res->s.name_check : th_name_dns1123_subdomain;
    const char *gen = th_json_str(th_json_get(meta, "generateName"));
    const char *name = th_json_str(th_json_get(meta, "name"));
    if (!name || !*name) {
        th_err_add_cause(err, "FieldValueRequired", "metadata.name",
                         "Required value: name or generateName is required");
    } else {
        const char *why = name_check(name);
        if (!why) {
            why = th_name_path_segment(name);
        }
        if (why) {
            th_err_add_cause(err, "FieldValueInvalid",
                             gen && *gen && th_startswith(name, gen) ? "metadata.generateName"
                                                                     : "metadata.name",
                             "Invalid value: \"%s\": %s",
                             gen && *gen && th_startswith(name, gen) ? gen : name, why);
        }
    }
    check_labels(meta, err);
    check_annotations(meta, err);
    check_owners(meta, err);
    check_finalizers(c, meta, err);
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

static void check_immutable(const struct th_json *meta, const struct th_json *was, const char *name,
                            struct th_err *err)
{
    const char *a = th_json_str(th_json_get(meta, name));
    const char *b = th_json_str(th_json_get(was, name));
    if (!th_streq(a ? a : "", b ? b : "")) {
        th_autofree char *field = th_xasprintf("metadata.%s", name);
        th_err_add_cause(err, "FieldValueInvalid", field,
                         "Invalid value: \"%s\": field is immutable", a ? a : "");
    }
}

void th_meta_validate_update(const struct th_call *c, const struct th_json *obj,
                             const struct th_json *old, struct th_err *err)
{
    const struct th_json *meta = th_json_get(obj, "metadata");
    const struct th_json *was = th_json_get(old, "metadata");
    check_labels(meta, err);
    check_annotations(meta, err);
    check_owners(meta, err);
    check_finalizers(c, meta, err);
    if (th_json_has(was, "deletionTimestamp")) {
        const struct th_json *before = th_json_get(was, "finalizers");
        const struct th_json *now = th_json_get(meta, "finalizers");
        th_autobuf struct th_buf added = TH_BUF_INIT;
        for (size_t i = 0; i < th_json_len(now); i++) {
            const char *f = th_json_str(th_json_at(now, i));
            if (f && !list_has(before, f)) {
                th_buf_printf(&added, "%s\"%s\"", added.n ? ", " : "", f);
            }
        }
        if (added.n > 0) {
            th_err_add_cause(err, "FieldValueForbidden", "metadata.finalizers",
                             "Forbidden: no new finalizers can be added if the object is being "
                             "deleted, found new finalizers []string{%s}",
                             th_buf_cstr(&added));
        }
    }
    check_immutable(meta, was, "name", err);
    check_immutable(meta, was, "namespace", err);
    check_immutable(meta, was, "uid", err);
}

int th_meta_check_ns(const struct th_call *c, struct th_json *obj, struct th_err *err)
{
    struct th_json *meta = th_json_path_object(obj, "metadata");
    const char *ns = th_json_str(th_json_get(meta, "namespace"));
    if (!c->res->namespaced) {
        th_json_del(meta, "namespace");
        return 0;
    }
    if (ns && *ns && !th_streq(ns, c->route.ns)) {
        return th_fail(err, TH_R_BAD_REQUEST,
                       "the namespace of the provided object does not match the namespace sent on "
                       "the request");
    }
    th_json_set_str(meta, "namespace", c->route.ns);
    return 0;
}

static struct th_json *plain_meta(const struct th_json *o)
{
    struct th_json *m = th_json_dup(th_json_get(o, "metadata"));
    th_json_del(m, "resourceVersion");
    struct th_json *fields = th_json_get(m, "managedFields");
    for (size_t i = 0; i < th_json_len(fields); i++) {
        th_json_del(th_json_at(fields, i), "time");
    }
    return m;
}

/* Every member of a but metadata is in b and equal. */
static bool members_equal(const struct th_json *a, const struct th_json *b)
{
    struct th_json_iter it = TH_JSON_ITER(a);
    while (th_json_next(&it)) {
        if (!th_streq(it.name, "metadata") && !th_json_equal(it.value, th_json_get(b, it.name))) {
            return false;
        }
    }
    return true;
}

bool th_meta_unchanged(const struct th_json *a, const struct th_json *b)
{
    if (!members_equal(a, b) || !members_equal(b, a)) {
        return false;
    }
    TH_AUTO(th_json) struct th_json *ma = plain_meta(a);
    TH_AUTO(th_json) struct th_json *mb = plain_meta(b);
    return th_json_equal(ma, mb);
}
