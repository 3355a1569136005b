/*
 * A CustomResourceDefinition as rows.
 *
 * Each version becomes one struct th_resource with the hooks that follow: columns out of JSONPaths,
 * scale out of the paths the definition names, status, validation by the compiled schema. From
 * there on the pipeline knows no difference between custom and built-in resources.
 *
 * What lies in the store can be served as it is when it can only have been written by this very
 * schema: one stored version, and a definition that has not changed since it was made. Otherwise
 * every read goes through th_custom_load.
 */
#include "base/encode.h"
#include "base/log.h"
#include "controlplane/api/customs.h"
#include "controlplane/resources/cells.h"
#include "controlplane/resources/crd.h"
#include "controlplane/schema/cel/cel_rules.h"
#include "controlplane/schema/validate.h"

#define SUB_VERBS (TH_VERB_GET | TH_VERB_PATCH | TH_VERB_UPDATE)

/* ---- Table ---- */

static void date_cell(const struct th_req_ctx *c, const struct th_json *v, struct th_json *cells)
{
    TH_AUTO(th_json) struct th_json *o = th_json_build("{'metadata':{'creationTimestamp':%s}}",
                                                       th_json_str(v));
    size_t n = th_json_len(cells);
    th_cell_age(c, o, cells);
    if (th_streq(th_json_str(th_json_at(cells, n)), "<unknown>")) {
        th_json_set_at(cells, n, th_json_string("<invalid>"));
    }
}

static struct th_json *text_cell(const struct th_json *v)
{
    if (!v) {
        return NULL;
    }
    if (th_json_str(v)) {
        return th_json_string(th_json_str(v));
    }
    th_autofree char *text = th_json_to_string(v);
    return th_json_string(text);
}

static void custom_cell(const struct th_req_ctx *c, const char *type, const struct th_json *v,
                        struct th_json *cells)
{
    bool number = th_json_is(v, TH_JSON_INT) || th_json_is(v, TH_JSON_DOUBLE);
    if (th_streq(type, "string")) {
        th_json_append(cells, text_cell(v));
    } else if (th_streq(type, "date") && th_json_str(v)) {
        date_cell(c, v, cells);
    } else if (th_streq(type, "integer") && number) {
        th_json_append(cells, th_json_int((int64_t)th_json_as_double(v, 0)));
        if (th_json_is(v, TH_JSON_INT)) {
            th_json_set_at(cells, th_json_len(cells) - 1, th_json_int(th_json_as_int(v, 0)));
        }
    } else if (th_streq(type, "number") && number) {
        th_json_append(cells, th_json_dup(v));
    } else if (th_streq(type, "boolean") && th_json_is(v, TH_JSON_BOOL)) {
        th_json_append(cells, th_json_bool(th_json_as_bool(v, false)));
    } else {
        th_json_append(cells, NULL);
    }
}

static void custom_row(const struct th_req_ctx *c, const struct th_json *obj,
                       struct th_json *cells)
{
    const struct th_custom *v = c->res->custom;
    th_cell_name(obj, cells);
    for (size_t i = 1; v->columns[i].name; i++) {
        TH_CLEANUP(th_jsonpath_found_done) struct th_jsonpath_found f = {.v = NULL};
        const struct th_jsonpath *p = v->paths[i];
        if (p && th_jsonpath_find(p, obj, &f, NULL) >= 0 && f.n > 0) {
            custom_cell(c, v->columns[i].type, f.v[0], cells);
        } else {
            th_json_append(cells, NULL);
        }
    }
}

/* ---- Status and scale ---- */

static int status_update(const struct th_req_ctx *c, const struct th_json *old,
                         const struct th_json *body, struct th_json **ret, struct th_err *err)
{
    (void)c;
    (void)err;
    struct th_json *n = th_json_dup(old);
    if (th_json_has(body, "status")) {
        th_json_set(n, "status", th_json_dup(th_json_get(body, "status")));
    } else {
        th_json_del(n, "status");
    }
    struct th_json *fields = th_json_path(body, "metadata.managedFields");
    if (fields) {
        th_json_path_set(n, "metadata.managedFields", th_json_dup(fields));
    }
    *ret = n;
    return 0;
}

static int scale_get(const struct th_req_ctx *c, const struct th_json *obj, struct th_json **ret,
                     struct th_err *err)
{
    const struct th_custom *v = c->res->custom;
    const struct th_json *replicas = th_json_path(obj, v->spec_replicas);
    if (!replicas && !c->for_update) {
        return th_fail(err, TH_R_INTERNAL, "Internal error occurred: the spec replicas field "
                                           "\".%s\" does not exist",
                       v->spec_replicas);
    }
    static const char *const kept[] = {"name", "namespace", "uid", "resourceVersion",
                                       "creationTimestamp"};
    struct th_json *scale = th_json_build(
        "{'kind':'Scale','apiVersion':'autoscaling/v1','metadata':{},'spec':{},"
        "'status':{'replicas':%d}}",
        th_json_path_int(obj, v->status_replicas, 0));
    for (size_t i = 0; i < TH_ARRAY_LEN(kept); i++) {
        struct th_json *m = th_json_get(th_json_get(obj, "metadata"), kept[i]);
        if (m) {
            th_json_set(th_json_get(scale, "metadata"), kept[i], th_json_dup(m));
        }
    }
    int64_t n = th_json_as_int(replicas, 0);
    if (n) {
        th_json_path_set_int(scale, "spec.replicas", n);
    }
    const char *selector = v->label_selector ? th_json_path_str(obj, v->label_selector) : NULL;
    if (selector && *selector) {
        th_json_path_set_str(scale, "status.selector", selector);
    }
    *ret = scale;
    return 0;
}

static int scale_update(const struct th_req_ctx *c, const struct th_json *old,
                        const struct th_json *body, struct th_json **ret, struct th_err *err)
{
    const struct th_custom *v = c->res->custom;
    int64_t n = th_json_path_int(body, "spec.replicas", 0);
    if (n < 0) {
        TH_AUTO_ERR struct th_err bad = TH_ERR_INIT;
        th_invalid_int(&bad, "spec.replicas", n, "must be greater than or equal to 0");
        int r = th_invalid_finish(&bad, "autoscaling", "Scale",
                                  th_json_path_str(old, "metadata.name"));
        if (err) {
            th_err_move(err, &bad);
        }
        return r;
    }
    *ret = th_json_dup(old);
    th_json_path_set_int(*ret, v->spec_replicas, n);
    return 0;
}

/* ---- Validation ---- */

static const char *go_type(const struct th_json *v)
{
    static const char *const names[] = {
        [TH_JSON_NULL] = "<nil>",   [TH_JSON_BOOL] = "bool",
        [TH_JSON_INT] = "int64",    [TH_JSON_DOUBLE] = "float64",
        [TH_JSON_STRING] = "string", [TH_JSON_ARRAY] = "[]interface {}",
        [TH_JSON_OBJECT] = "map[string]interface {}"};
    return names[th_json_type(v)];
}

static void check_count(const struct th_json *obj, const char *path, struct th_err *err)
{
    const struct th_json *v = th_json_path(obj, path);
    th_autofree char *at = th_xasprintf(".%s", path);
    if (v && !th_json_is(v, TH_JSON_INT)) {
        th_autofree char *text = th_json_to_string(v);
        th_autofree char *why = th_xasprintf(
            ".%s accessor error: %s is of the type %s, expected int64", path,
            th_json_str(v) ? th_json_str(v) : text, go_type(v));
        th_invalid_int(err, at, 0, why);
        return;
    }
    int64_t n = th_json_as_int(v, 0);
    if (n < 0) {
        th_invalid_int(err, at, n, "should be a non-negative integer");
    } else if (n > INT32_MAX) {
        th_invalid_int(err, at, n, "should be less than or equal to 2147483647");
    }
}

static void check_scale(const struct th_custom *v, const struct th_json *obj, bool spec,
                        struct th_err *err)
{
    if (!v->spec_replicas) {
        return;
    }
    if (spec) {
        check_count(obj, v->spec_replicas, err);
    }
    check_count(obj, v->status_replicas, err);
    const struct th_json *s = v->label_selector ? th_json_path(obj, v->label_selector) : NULL;
    if (s && !th_json_str(s)) {
        th_autofree char *at = th_xasprintf(".%s", v->label_selector);
        th_autofree char *text = th_json_to_string(s);
        th_autofree char *why =
            th_xasprintf(".%s accessor error: %s is of the type %s, expected string",
                         v->label_selector, text, go_type(s));
        th_invalid_str(err, at, "", why);
    }
}

/* A finalizer without a domain is accepted, with a warning. */
static void warn_finalizers(const struct th_req_ctx *c, const struct th_json *obj,
                            const struct th_json *old)
{
    const struct th_json *now = th_json_path(obj, "metadata.finalizers");
    const struct th_json *was = th_json_path(old, "metadata.finalizers");
    for (size_t i = 0; c->warnings && i < th_json_len(now); i++) {
        const char *f = th_json_str(th_json_at(now, i));
        bool known = !f || strchr(f, '/') || th_streq(f, "orphan") ||
                     th_streq(f, "foregroundDeletion") || th_streq(f, "kubernetes");
        for (size_t k = 0; k < th_json_len(was); k++) {
            known = known || th_streq(f, th_json_str(th_json_at(was, k)));
        }
        if (!known) {
            th_strv_addf(c->warnings,
                         "metadata.finalizers: \"%s\": prefer a domain-qualified finalizer name%s "
                         "to avoid accidental conflicts with other finalizer writers",
                         f, strchr(f, '.') ? " including a path (/)" : "");
        }
    }
}

/* Faults of the kinds after which a rule's value may not be what its type says. */
static bool blocks_rules(const struct th_err *err)
{
    static const char *const kinds[] = {"FieldValueNotSupported", "FieldValueRequired",
                                        "FieldValueTooLong", "FieldValueTooMany",
                                        "FieldValueTypeInvalid"};
    for (size_t i = 0; i < err->n_causes; i++) {
        for (size_t k = 0; k < TH_ARRAY_LEN(kinds); k++) {
            if (th_streq(err->causes[i].reason, kinds[k])) {
                return true;
            }
        }
    }
    return false;
}

static void validate(const struct th_req_ctx *c, const struct th_json *obj,
                     const struct th_json *old, struct th_err *err)
{
    const struct th_custom *v = c->res->custom;
    const struct th_structural *s = v->schema;
    bool status = th_streq(c->subresource, "status");
    if (status) {
        const struct th_structural *sub = th_structural_prop(s, "status");
        if (sub && th_json_has(obj, "status")) {
            th_structural_validate(sub, th_json_get(obj, "status"), th_json_get(old, "status"),
                                   th_json_has(old, "status"), "status", err);
        }
    } else {
        th_structural_validate(s, obj, old, old != NULL, "", err);
        th_structural_validate_embedded(s, obj, "", err);
        warn_finalizers(c, obj, old);
    }
    check_scale(v, obj, !status, err);
    TH_AUTO_ERR struct th_err was = TH_ERR_INIT;
    if (old) {
        th_structural_validate_lists(s, old, "", &was);
    }
    if (was.n_causes == 0) {
        th_structural_validate_lists(s, obj, "", err);
    }
    if (!(s->flags & TH_SF_HAS_RULES)) {
        return;
    }
    if (blocks_rules(err)) {
        th_err_add_cause(err, "FieldValueInvalid", "<nil>",
                         "Invalid value: null: some validation rules were not checked because the "
                         "object was invalid; correct the existing errors to complete validation");
        return;
    }
    int64_t budget = TH_CEL_BUDGET;
    th_cel_rules_validate(s, obj, old, "", &budget, c->warnings, err);
}

/* ---- Making rows ---- */

static char *text_of(const struct th_json *o, const char *path)
{
    const char *s = th_json_path_str(o, path);
    return th_xstrdup(s ? s : "");
}

static void strings_of(const struct th_json *o, const char *path, struct th_strv *ret)
{
    const struct th_json *a = th_json_path(o, path);
    for (size_t i = 0; i < th_json_len(a); i++) {
        if (th_json_str(th_json_at(a, i))) {
            th_strv_add(ret, th_json_str(th_json_at(a, i)));
        }
    }
}

static const char *keep(struct th_custom *v, const char *text)
{
    th_strv_add(&v->texts, text ? text : "");
    return v->texts.v[v->texts.n - 1];
}

static void make_columns(struct th_custom *v, const struct th_json *columns)
{
    static const struct th_column name = {"Name", "string", "name",
                                          "Name of the object, unique in its scope", 0};
    static const struct th_column age = {"Age", "date", "", "Time since the object was created", 0};
    size_t n = th_json_len(columns);
    v->columns = th_xcalloc(n + 3, sizeof(*v->columns));
    v->paths = th_xcalloc(n + 3, sizeof(struct th_jsonpath *));
    v->columns[0] = name;
    if (n == 0) { /* upstream's default: the age */
        v->columns[1] = age;
        (void)!th_jsonpath_parse(".metadata.creationTimestamp", &v->paths[1], NULL);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const struct th_json *c = th_json_at(columns, i);
        const char *path = th_json_path_str(c, "jsonPath");
        const char *doc = th_json_path_str(c, "description");
        th_autofree char *made =
            th_xasprintf("Custom resource definition column (in JSONPath format): %s",
                         path ? path : "");
        v->columns[i + 1] = (struct th_column){
            .name = keep(v, th_json_path_str(c, "name")),
            .type = keep(v, th_json_path_str(c, "type")),
            .format = keep(v, th_json_path_str(c, "format")),
            .doc = keep(v, doc && *doc ? doc : made),
            .priority = (int)th_json_path_int(c, "priority", 0)};
        if (path) {
            (void)!th_jsonpath_parse(path, &v->paths[i + 1], NULL);
        }
    }
}

static char *plain_path(const struct th_json *o, const char *path)
{
    const char *s = th_json_path_str(o, path);
    return s && *s ? th_xstrdup(*s == '.' ? s + 1 : s) : NULL;
}

static void make_subs(struct th_custom *v, const struct th_json *subs)
{
    size_t n = 0;
    const char *group = v->crd->group;
    if (th_json_get(subs, "status")) {
        v->subs[n++] = (struct th_subresource){.name = "status",
                                               .group = group,
                                               .version = v->version,
                                               .kind = v->crd->kind,
                                               .verbs = SUB_VERBS,
                                               .update = status_update};
    }
    const struct th_json *scale = th_json_get(subs, "scale");
    if (scale) {
        v->spec_replicas = plain_path(scale, "specReplicasPath");
        v->status_replicas = plain_path(scale, "statusReplicasPath");
        v->label_selector = plain_path(scale, "labelSelectorPath");
    }
    if (v->spec_replicas && v->status_replicas) {
        v->subs[n++] = (struct th_subresource){.name = "scale",
                                               .group = "autoscaling",
                                               .version = "v1",
                                               .kind = "Scale",
                                               .verbs = SUB_VERBS,
                                               .columns = th_scale_columns,
                                               .row = th_row_scale,
                                               .get = scale_get,
                                               .update = scale_update};
    }
}

static char *storage_hash(const struct th_crd *crd, const char *version)
{
    th_autofree char *gvk = th_xasprintf("%s/%s/%s", crd->group, version, crd->kind);
    unsigned char sum[TH_SHA256_LEN];
    struct th_sha256 *h = th_sha256_new();
    th_sha256_add(h, gvk, strlen(gvk));
    th_sha256_finish(h, sum);
    struct th_buf b = TH_BUF_INIT;
    th_b64_encode(sum, 8, &b);
    return th_buf_steal(&b, NULL);
}

static void make_version(struct th_crd *crd, struct th_custom *v, const struct th_json *spec)
{
    v->crd = crd;
    v->version = text_of(spec, "name");
    v->served = th_json_path_bool(spec, "served", false);
    v->storage = th_json_path_bool(spec, "storage", false);
    v->type_name = th_structural_openapi_name(crd->group, v->version, crd->kind);
    v->schema =
        th_structural_new(th_json_path(spec, "schema.openAPIV3Schema"), true, v->type_name);
    v->kind = (struct th_kind){
        .group = crd->group, .version = v->version, .kind = crd->kind, .type = v->schema->table};
    if (th_json_path_bool(spec, "deprecated", false)) {
        const char *w = th_json_path_str(spec, "deprecationWarning");
        v->warning = w ? th_xstrdup(w)
                       : th_xasprintf("%s/%s %s is deprecated", crd->group, v->version, crd->kind);
    }
    make_columns(v, th_json_get(spec, "additionalPrinterColumns"));
    make_subs(v, th_json_get(spec, "subresources"));
    const struct th_json *fields = th_json_get(spec, "selectableFields");
    for (size_t i = 0; i < th_json_len(fields); i++) {
        const char *p = th_json_path_str(th_json_at(fields, i), "jsonPath");
        if (p) {
            th_strv_add(&v->selectable, *p == '.' ? p + 1 : p);
        }
    }
    static const char *const none[] = {NULL};
    v->hash = v->storage ? storage_hash(crd, v->version) : NULL;
    v->res = (struct th_resource){
        .warning = v->warning,
        .group = crd->group,
        .version = v->version,
        .kind = crd->kind,
        .plural = crd->plural,
        .singular = crd->singular,
        .short_names = crd->short_names.n ? (const char *const *)crd->short_names.v : NULL,
        .categories = crd->categories.n ? (const char *const *)crd->categories.v : NULL,
        .namespaced = crd->namespaced,
        .verbs = TH_VERBS_ALL,
        .storage_hash = v->hash,
        .subs = v->subs,
        .columns = v->columns,
        .row = custom_row,
        .selectable = v->selectable.n ? (const char *const *)v->selectable.v : none,
        .s = {.validate_custom = validate, .has_generation = true, .need_rv_on_update = true},
        .custom = v,
        .kind_row = &v->kind,
        .list_kind = crd->list_kind,
    };
    v->stored = v->res;
}

static void version_done(struct th_custom *v)
{
    for (size_t i = 0; v->columns && v->columns[i].name; i++) {
        th_jsonpath_free(v->paths[i]);
    }
    free(v->columns);
    free(v->paths);
    th_strv_done(&v->texts);
    th_strv_done(&v->selectable);
    th_structural_free(v->schema);
    free(v->version);
    free(v->type_name);
    free(v->hash);
    free(v->warning);
    free(v->spec_replicas);
    free(v->status_replicas);
    free(v->label_selector);
}

void th_crd_unref(struct th_crd *crd)
{
    if (!crd || __atomic_sub_fetch(&crd->refs, 1, __ATOMIC_ACQ_REL) > 0) {
        return;
    }
    for (size_t i = 0; i < crd->n_versions; i++) {
        version_done(&crd->versions[i]);
    }
    free(crd->versions);
    free(crd->name);
    free(crd->uid);
    free(crd->group);
    free(crd->plural);
    free(crd->singular);
    free(crd->kind);
    free(crd->list_kind);
    th_strv_done(&crd->short_names);
    th_strv_done(&crd->categories);
    th_json_unref(crd->webhook);
    free(crd);
}

struct th_crd *th_crd_new(const struct th_obj *o, struct th_hook_pool *hooks)
{
    TH_AUTO(th_json) struct th_json *tree = NULL;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (th_json_parse(o->bytes, o->n, NULL, &tree, &err) < 0) {
        th_warn("api", "definition cannot be read", "key=%s error=%s", th_log_q(o->key),
                th_log_q(err.msg));
        return NULL;
    }
    struct th_crd *crd = TH_NEW(struct th_crd);
    crd->refs = 1;
    crd->rv = o->rv;
    crd->hooks = hooks;
    crd->name = text_of(tree, "metadata.name");
    crd->uid = text_of(tree, "metadata.uid");
    crd->group = text_of(tree, "spec.group");
    crd->plural = text_of(tree, "spec.names.plural");
    crd->singular = text_of(tree, "status.acceptedNames.singular");
    crd->kind = text_of(tree, "spec.names.kind");
    crd->list_kind = text_of(tree, "status.acceptedNames.listKind");
    strings_of(tree, "status.acceptedNames.shortNames", &crd->short_names);
    strings_of(tree, "status.acceptedNames.categories", &crd->categories);
    crd->namespaced = th_streq(th_json_path_str(tree, "spec.scope"), "Namespaced");
    crd->established = th_streq(th_crd_condition(tree, "Established"), "True");
    crd->terminating = th_streq(th_crd_condition(tree, "Terminating"), "True");
    if (th_streq(th_json_path_str(tree, "spec.conversion.strategy"), "Webhook")) {
        crd->webhook = th_json_dup(th_json_path(tree, "spec.conversion.webhook"));
    }
    const struct th_json *versions = th_json_path(tree, "spec.versions");
    size_t n = th_json_len(versions);
    crd->versions = th_xcalloc(n + 1, sizeof(*crd->versions));
    crd->n_versions = n;
    const struct th_custom *storage = NULL;
    for (size_t i = 0; i < n; i++) {
        make_version(crd, &crd->versions[i], th_json_at(versions, i));
        storage = crd->versions[i].storage ? &crd->versions[i] : storage;
    }
    bool as_written = th_json_len(th_json_path(tree, "status.storedVersions")) == 1 &&
                      th_json_path_int(tree, "metadata.generation", 0) <= 1;
    for (size_t i = 0; i < n; i++) {
        struct th_custom *v = &crd->versions[i];
        v->res.storage_row = v == storage && as_written ? &v->res
                             : storage                  ? &storage->stored
                                                        : &v->stored;
    }
    return crd;
}
