/*
 * Walks over a custom object along its schema: defaults, pruning, list uniqueness, embedded
 * resources.
 *
 * Defaults are filled from the outside in: a default that is an object is then walked itself. A null
 * where the schema does not allow null counts as missing: it gets the default, or is taken out when
 * there is none. Where nulls are allowed they stay.
 *
 * Pruning here serves defaults and conversions; what clients send is pruned while it is decoded,
 * over the type table, which also reports what was removed.
 */
#include "controlplane/schema/names.h"
#include "controlplane/schema/structural.h"
#include "controlplane/schema/validate.h"

/* ---- Defaults ---- */

static bool bad_null(const struct th_structural *s, const struct th_json *v)
{
    return !v && s && !(s->flags & TH_SF_NULLABLE);
}

static void default_array(const struct th_structural *s, struct th_json *a)
{
    for (size_t i = 0; s->items && i < th_json_len(a); i++) {
        if (bad_null(s->items, th_json_at(a, i)) && s->items->dflt) {
            th_json_set_at(a, i, th_json_dup(s->items->dflt));
        }
        th_structural_default(s->items, th_json_at(a, i));
    }
}

void th_structural_default(const struct th_structural *s, struct th_json *obj)
{
    if (!s) {
        return;
    }
    if (th_json_is(obj, TH_JSON_ARRAY)) {
        default_array(s, obj);
        return;
    }
    if (!th_json_is(obj, TH_JSON_OBJECT)) {
        return;
    }
    for (size_t i = 0; i < s->n_props; i++) {
        const struct th_sprop *p = &s->props[i];
        struct th_json *v = th_json_get(obj, p->name);
        if (v) {
            continue;
        }
        bool has = th_json_has(obj, p->name);
        if (p->s->dflt && (!has || bad_null(p->s, v))) {
            th_json_set(obj, p->name, th_json_dup(p->s->dflt));
        }
    }
    th_autostrv struct th_strv set = TH_STRV_INIT;
    struct th_json_iter it = TH_JSON_ITER(obj);
    while (th_json_next(&it)) {
        const struct th_structural *sub = th_structural_prop(s, it.name);
        sub = sub ? sub : s->additional;
        if (it.value) {
            th_structural_default(sub, it.value);
        } else if (bad_null(sub, it.value) && !sub->dflt) {
            th_json_del(obj, it.name);
        } else if (bad_null(sub, it.value)) {
            th_strv_add(&set, it.name); /* of a map: members have theirs by now */
        }
    }
    for (size_t i = 0; i < set.n; i++) {
        th_json_set(obj, set.v[i], th_json_dup(s->additional->dflt));
        th_structural_default(s->additional, th_json_get(obj, set.v[i]));
    }
}

/* ---- Pruning ---- */

static bool prune(const struct th_structural *s, struct th_json *v, bool keep, bool root)
{
    bool changed = false;
    if (th_json_is(v, TH_JSON_ARRAY)) {
        for (size_t i = 0; i < th_json_len(v); i++) {
            const struct th_structural *items = s ? s->items : NULL;
            changed |= items || !keep ? prune(items, th_json_at(v, i),
                                              items && (items->flags & TH_SF_PRESERVE), false)
                                      : false;
        }
        return changed;
    }
    struct th_json_iter it = TH_JSON_ITER(th_json_is(v, TH_JSON_OBJECT) ? v : NULL);
    while (th_json_next(&it)) {
        bool meta = th_streq(it.name, "apiVersion") || th_streq(it.name, "kind") ||
                    th_streq(it.name, "metadata");
        if (meta && s && (root || (s->flags & TH_SF_EMBEDDED))) {
            continue;
        }
        const struct th_structural *sub = s ? th_structural_prop(s, it.name) : NULL;
        sub = sub ? sub : s ? s->additional : NULL;
        if (sub) {
            changed |= prune(sub, it.value, (sub->flags & TH_SF_PRESERVE) != 0, false);
        } else if (!keep && !(s && (s->flags & TH_SF_ANY_MEMBERS))) {
            th_json_del(v, it.name);
            changed = true;
        }
    }
    return changed;
}

bool th_structural_prune(const struct th_structural *s, struct th_json *v, bool resource_root)
{
    return prune(s, v, s && (s->flags & TH_SF_PRESERVE), resource_root);
}

/* ---- Lists of type set and map ---- */

/* What tells an element apart: itself, or the object of its keys. A new reference. */
static struct th_json *identity(const struct th_structural *s, const struct th_json *e)
{
    if (!(s->flags & TH_SF_LIST_MAP)) {
        return th_json_dup(e);
    }
    struct th_json *o = th_json_object();
    for (size_t i = 0; i < s->keys.n; i++) {
        if (th_json_has(e, s->keys.v[i])) {
            th_json_set(o, s->keys.v[i], th_json_dup(th_json_get(e, s->keys.v[i])));
        }
    }
    return o;
}

static void check_list(const struct th_structural *s, const struct th_json *a, const char *path,
                       struct th_err *err)
{
    size_t n = th_json_len(a);
    for (size_t i = 0; (s->flags & TH_SF_LIST_MAP) && i < n; i++) {
        const struct th_json *e = th_json_at(a, i);
        if (e && !th_json_is(e, TH_JSON_OBJECT)) {
            th_autofree char *at = th_field_index(path, i);
            th_invalid_value(err, at, e, "must be an object for an array of list-type map");
            return;
        }
    }
    /* text of each identity -> how often it was seen */
    th_autostrv struct th_strv seen = TH_STRV_INIT;
    th_autostrv struct th_strv told = TH_STRV_INIT;
    for (size_t i = 0; i < n; i++) {
        TH_AUTO(th_json) struct th_json *id = identity(s, th_json_at(a, i));
        th_autobuf struct th_buf text = TH_BUF_INIT;
        th_json_dump_sorted(id, &text);
        if (th_strv_has(&seen, th_buf_cstr(&text))) {
            if (!th_strv_has(&told, th_buf_cstr(&text))) {
                th_autofree char *at = th_field_index(path, i);
                th_invalid_duplicate(err, at, id);
                th_strv_add(&told, th_buf_cstr(&text));
            }
        } else {
            th_strv_add(&seen, th_buf_cstr(&text));
        }
    }
}

void th_structural_validate_lists(const struct th_structural *s, const struct th_json *v,
                                  const char *path, struct th_err *err)
{
    if (!s) {
        return;
    }
    if (th_json_is(v, TH_JSON_ARRAY)) {
        if (s->flags & (TH_SF_LIST_SET | TH_SF_LIST_MAP)) {
            check_list(s, v, path, err);
        }
        for (size_t i = 0; s->items && i < th_json_len(v); i++) {
            th_autofree char *at = th_field_index(path, i);
            th_structural_validate_lists(s->items, th_json_at(v, i), at, err);
        }
        return;
    }
    struct th_json_iter it = TH_JSON_ITER(th_json_is(v, TH_JSON_OBJECT) ? v : NULL);
    while (th_json_next(&it)) {
        const struct th_structural *sub = th_structural_prop(s, it.name);
        if (sub || s->additional) {
            th_autofree char *at =
                sub ? th_field_child(path, it.name) : th_field_key(path, it.name);
            th_structural_validate_lists(sub ? sub : s->additional, it.value, at, err);
        }
    }
}

/* ---- Embedded resources ---- */

static void check_embedded(const struct th_json *v, const char *path, struct th_err *err)
{
    const char *version = th_json_str(th_json_get(v, "apiVersion"));
    const char *kind = th_json_str(th_json_get(v, "kind"));
    th_autofree char *version_at = th_field_child(path, "apiVersion");
    th_autofree char *kind_at = th_field_child(path, "kind");
    if (!th_json_has(v, "apiVersion")) {
        th_invalid_required(err, version_at, "");
    } else if (!version) {
        th_invalid_value(err, version_at, th_json_get(v, "apiVersion"), "must be a string");
    } else if (!*version) {
        th_invalid_str(err, version_at, version, "must not be empty");
    } else {
        const char *slash = strchr(version, '/');
        if (slash && strchr(slash + 1, '/')) {
            th_autofree char *why =
                th_xasprintf("unexpected GroupVersion string: %s", version);
            th_invalid_str(err, version_at, version, why);
        }
    }
    if (!th_json_has(v, "kind")) {
        th_invalid_required(err, kind_at, "");
    } else if (!kind) {
        th_invalid_value(err, kind_at, th_json_get(v, "kind"), "must be a string");
    } else if (!*kind) {
        th_invalid_str(err, kind_at, kind, "must not be empty");
    } else {
        th_autofree char *lower = th_xstrdup(kind);
        for (char *p = lower; *p; p++) {
            *p = (char)(*p >= 'A' && *p <= 'Z' ? *p + 32 : *p);
        }
        const char *why = th_name_dns1035_label(lower);
        if (why) {
            th_autofree char *text =
                th_xasprintf("may have mixed case, but should otherwise match: %s", why);
            th_invalid_str(err, kind_at, kind, text);
        }
    }
    const char *name = th_json_path_str(v, "metadata.name");
    const char *why = name && *name ? th_name_dns1123_subdomain(name) : NULL;
    if (why) {
        th_autofree char *meta = th_field_child(path, "metadata");
        th_autofree char *at = th_field_child(meta, "name");
        th_invalid_str(err, at, name, why);
    }
    th_autofree char *labels_at = th_xasprintf("%s.metadata.labels", path);
    struct th_json_iter it = TH_JSON_ITER(th_json_path(v, "metadata.labels"));
    while (th_json_next(&it)) {
        const char *bad = th_name_qualified(it.name);
        if (bad) {
            th_invalid_str(err, labels_at, it.name, bad);
        }
        const char *text = th_json_str(it.value);
        bad = text ? th_name_label_value(text) : NULL;
        if (bad) {
            th_invalid_str(err, labels_at, text, bad);
        }
    }
}

void th_structural_validate_embedded(const struct th_structural *s, const struct th_json *v,
                                     const char *path, struct th_err *err)
{
    if (!s) {
        return;
    }
    if (th_json_is(v, TH_JSON_ARRAY)) {
        for (size_t i = 0; s->items && i < th_json_len(v); i++) {
            th_autofree char *at = th_field_index(path, i);
            th_structural_validate_embedded(s->items, th_json_at(v, i), at, err);
        }
        return;
    }
    if (!th_json_is(v, TH_JSON_OBJECT)) {
        return;
    }
    if (s->flags & TH_SF_EMBEDDED) {
        check_embedded(v, path, err);
    }
    struct th_json_iter it = TH_JSON_ITER(v);
    while (th_json_next(&it)) {
        const struct th_structural *sub = th_structural_prop(s, it.name);
        if (sub || s->additional) {
            th_autofree char *at =
                sub ? th_field_child(path, it.name) : th_field_key(path, it.name);
            th_structural_validate_embedded(sub ? sub : s->additional, it.value, at, err);
        }
    }
}
