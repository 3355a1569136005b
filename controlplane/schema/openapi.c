/* OpenAPI documents: paths, operations and their parameters.
 *
 * kubectl reads one document per group version (v3): explain and client-side validation use the
 * schemas; whether the server validates fields is decided by finding the query parameter
 * fieldValidation on a PATCH of the kind. Everything is derived from a list of resources, so a new
 * resource row appears here by itself.
 *
 * The text is written straight into a buffer: no tree is built for documents of a megabyte. Types
 * that operations name are collected on the way, and their schemas follow (openapi_types.c).
 *
 * Upstream also describes the deprecated /watch/ paths and its non-resource paths; these are left
 * out. v2 is served as JSON only. */
#include "controlplane/schema/openapi_priv.h"

struct op {
    const char *method, *action, *id_verb, *id_suffix;
    const struct th_type *body, *answer;
    const char *const *params; /* names of query parameters */
    bool patch_body, created, accepted, in_collection;
};

static const struct {
    const char *name, *type, *doc;
} params[] = {
    {"allowWatchBookmarks", "boolean", "Ask for BOOKMARK events while watching."},
    {"continue", "string", "Where the previous page of the list ended."},
    {"fieldSelector", "string", "Only objects whose fields match."},
    {"labelSelector", "string", "Only objects whose labels match."},
    {"limit", "integer", "At most that many objects in one answer."},
    {"resourceVersion", "string", "The state to read, see resourceVersionMatch."},
    {"resourceVersionMatch", "string", "How resourceVersion is meant: Exact or NotOlderThan."},
    {"sendInitialEvents", "boolean", "Begin a watch with the objects there are."},
    {"timeoutSeconds", "integer", "Ends the call after that time."},
    {"watch", "boolean", "Stream changes instead of a list."},
    {"dryRun", "string", "All: do everything but store the result."},
    {"fieldManager", "string", "Who makes the change, for managedFields."},
    {"fieldValidation", "string",
     "What to do about unknown and duplicate fields: Ignore, Warn or Strict."},
    {"force", "boolean", "Take over fields that another manager owns (apply only)."},
    {"gracePeriodSeconds", "integer", "Time to shut down in; 0 deletes at once."},
    {"ignoreStoreReadErrorWithClusterBreakingPotential", "boolean",
     "Delete although the stored object cannot be read."},
    {"orphanDependents", "boolean", "Deprecated: use propagationPolicy."},
    {"propagationPolicy", "string",
     "What becomes of dependents: Orphan, Background or Foreground."},
    {"pretty", "string", "true: indent the output."},
    {"name", "string", "The object's name."},
    {"namespace", "string", "The object's namespace."},
};
static const char *const list_params[] = {
    "allowWatchBookmarks", "continue", "fieldSelector", "labelSelector", "limit", "resourceVersion",
    "resourceVersionMatch", "sendInitialEvents", "timeoutSeconds", "watch", NULL};
static const char *const write_params[] = {"dryRun", "fieldManager", "fieldValidation", NULL};
static const char *const patch_params[] = {"dryRun", "fieldManager", "fieldValidation", "force",
                                           NULL};
static const char *const delete_params[] = {
    "dryRun", "gracePeriodSeconds", "ignoreStoreReadErrorWithClusterBreakingPotential",
    "orphanDependents", "propagationPolicy", NULL};
static const char *const collection_params[] = {
    "continue", "dryRun", "fieldSelector", "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential", "labelSelector", "limit",
    "orphanDependents", "propagationPolicy", "resourceVersion", "resourceVersionMatch",
    "sendInitialEvents", "timeoutSeconds", NULL};
static const char *const media[] = {"application/json", "application/yaml",
                                    "application/vnd.kubernetes.protobuf", NULL};
static const char *const patch_media[] = {
    "application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json",
    "application/strategic-merge-patch+json", NULL};
/* kubectl patches with what it finds here: custom resources know no strategic merge. */
static const char *const custom_patch_media[] = {"application/apply-patch+yaml",
                                                 "application/json-patch+json",
                                                 "application/merge-patch+json", NULL};

char *th_openapi_gv_path(const char *group, const char *version)
{
    return *group ? th_xasprintf("apis/%s/%s", group, version) : th_xasprintf("api/%s", version);
}

/* ---- Names ---- */

/* "rbac.authorization.k8s.io" is RbacAuthorization, "" Core. */
static void put_group_name(struct th_buf *b, const char *group)
{
    size_t n = strlen(group);
    if (th_endswith(group, ".k8s.io")) {
        n -= strlen(".k8s.io");
    }
    if (n == 0) {
        th_buf_puts(b, "Core");
    }
    bool up = true;
    for (size_t i = 0; i < n; i++) {
        if (group[i] == '.' || group[i] == '-') {
            up = true;
        } else {
            th_buf_putc(b, up && group[i] >= 'a' && group[i] <= 'z' ? (char)(group[i] - 32)
                                                                   : group[i]);
            up = false;
        }
    }
}

static void put_capital(struct th_buf *b, const char *s)
{
    if (*s) {
        th_buf_putc(b, *s >= 'a' && *s <= 'z' ? (char)(*s - 32) : *s);
        th_buf_puts(b, s + 1);
    }
}

static const struct th_type *kind_type(const char *group, const char *version, const char *kind)
{
    const struct th_kind *k = th_kind_find(group, version, kind);
    return k ? k->type : NULL;
}

/* ---- Operations ---- */

static void put_param(struct th_oa *oa, const char *name, const char *in)
{
    for (size_t i = 0; i < TH_ARRAY_LEN(params); i++) {
        if (strcmp(params[i].name, name) != 0) {
            continue;
        }
        struct th_buf *b = oa->b;
        th_buf_printf(b, "{\"name\":\"%s\",\"in\":\"%s\",\"description\":", name, in);
        th_oa_string(b, params[i].doc);
        if (strcmp(in, "path") == 0) {
            th_buf_puts(b, ",\"required\":true");
        }
        th_buf_printf(b, oa->v2 ? ",\"type\":\"%s\",\"uniqueItems\":true}"
                                : ",\"schema\":{\"type\":\"%s\",\"uniqueItems\":true}}",
                      params[i].type);
        return;
    }
    TH_ASSERT(!"a parameter without a row");
}

static void put_schema(struct th_oa *oa, const struct th_type *t)
{
    if (t) {
        th_oa_ref(oa, t);
    } else {
        th_buf_puts(oa->b, "{\"type\":\"string\"}");
    }
}

static void put_content(struct th_oa *oa, const struct th_type *t, const char *const *types)
{
    th_buf_puts(oa->b, "\"content\":{");
    for (size_t i = 0; types[i]; i++) {
        th_buf_printf(oa->b, "%s\"%s\":{\"schema\":", i ? "," : "", types[i]);
        if (types == oa->patch_media) {
            th_oa_leaf_ref(oa, TH_OA_PATCH_BODY);
        } else {
            put_schema(oa, t);
        }
        th_buf_putc(oa->b, '}');
    }
    th_buf_putc(oa->b, '}');
}

static void put_response(struct th_oa *oa, int code, const char *text, const struct th_type *t)
{
    static const char *const plain[] = {"*/*", NULL};
    th_buf_printf(oa->b, "\"%d\":{\"description\":\"%s\",", code, text);
    if (oa->v2) {
        th_buf_puts(oa->b, "\"schema\":");
        put_schema(oa, t);
    } else {
        put_content(oa, t, t ? media : plain);
    }
    th_buf_puts(oa->b, "},");
}

static void put_media_list(struct th_buf *b, const char *name, const char *const *types)
{
    th_buf_printf(b, "\"%s\":[", name);
    for (size_t i = 0; types[i]; i++) {
        th_buf_printf(b, "%s\"%s\"", i ? "," : "", types[i]);
    }
    th_buf_puts(b, "],");
}

static void put_body(struct th_oa *oa, const struct op *op)
{
    struct th_buf *b = oa->b;
    if (oa->v2) {
        th_buf_printf(b, "{\"in\":\"body\",\"name\":\"body\",%s\"schema\":",
                      op->patch_body || strcmp(op->method, "delete") ? "\"required\":true," : "");
        if (op->patch_body) {
            th_oa_leaf_ref(oa, TH_OA_PATCH_BODY);
        } else {
            put_schema(oa, op->body);
        }
        th_buf_putc(b, '}');
        return;
    }
    static const char *const every[] = {"*/*", NULL};
    th_buf_puts(b, "\"requestBody\":{");
    put_content(oa, op->body, op->patch_body ? oa->patch_media : every);
    th_buf_printf(b, "%s},", strcmp(op->method, "delete") ? ",\"required\":true" : "");
}

static void put_op(struct th_oa *oa, const struct th_openapi_resource *r, const char *gvk_group,
                   const char *gvk_version, const char *gvk_kind, bool namespaced,
                   const char *sub_name, const struct op *op, bool first)
{
    struct th_buf *b = oa->b;
    bool body = op->patch_body || op->body;
    oa->patch_media = r->type ? custom_patch_media : patch_media;
    th_buf_printf(b, "%s\"%s\":{\"description\":\"%s %s%s%s\",\"operationId\":\"%s",
                  first ? "" : ",", op->method, op->id_verb, sub_name, *sub_name ? " of " : "",
                  r->kind, op->id_verb);
    put_group_name(b, r->group);
    put_capital(b, r->version);
    th_buf_puts(b, op->in_collection ? "Collection" : "");
    th_buf_puts(b, namespaced ? "Namespaced" : "");
    th_buf_puts(b, r->kind);
    put_capital(b, sub_name);
    th_buf_printf(b, "%s\",", op->id_suffix ? op->id_suffix : "");
    bool any = op->params && op->params[0];
    if (any || (body && oa->v2)) {
        th_buf_puts(b, "\"parameters\":[");
        for (size_t i = 0; any && op->params[i]; i++) {
            th_buf_puts(b, i ? "," : "");
            put_param(oa, op->params[i], "query");
        }
        if (body && oa->v2) {
            th_buf_puts(b, any ? "," : "");
            put_body(oa, op);
        }
        th_buf_puts(b, "],");
    }
    if (oa->v2) {
        static const char *const every[] = {"*/*", NULL};
        put_media_list(b, "consumes", op->patch_body ? oa->patch_media : every);
        put_media_list(b, "produces", op->answer ? media : every);
    } else if (body) {
        put_body(oa, op);
    }
    th_buf_puts(b, "\"responses\":{");
    put_response(oa, 200, "OK", op->answer);
    if (op->created) {
        put_response(oa, 201, "Created", op->answer);
    }
    if (op->accepted) {
        put_response(oa, 202, "Accepted", op->answer);
    }
    th_buf_printf(b, "\"401\":{\"description\":\"Unauthorized\"}},\"tags\":[\"%s_%s\"],",
                  *r->group ? r->group : "core", r->version);
    th_buf_printf(b,
                  "\"x-kubernetes-action\":\"%s\",\"x-kubernetes-group-version-kind\":{\"group\":"
                  "\"%s\",\"kind\":\"%s\",\"version\":\"%s\"}}",
                  op->action, gvk_group, gvk_kind, gvk_version);
}

static void put_path(struct th_oa *oa, const char *path, bool *any)
{
    th_buf_puts(oa->b, *any ? "," : "");
    *any = true;
    th_oa_string(oa->b, path);
    th_buf_puts(oa->b, ":{");
}

static void end_path(struct th_oa *oa, bool named, bool namespaced)
{
    struct th_buf *b = oa->b;
    th_buf_puts(b, ",\"parameters\":[");
    if (named) {
        put_param(oa, "name", "path");
        th_buf_putc(b, ',');
    }
    if (namespaced) {
        put_param(oa, "namespace", "path");
        th_buf_putc(b, ',');
    }
    put_param(oa, "pretty", "query");
    th_buf_puts(b, "]}");
}

static void put_collection(struct th_oa *oa, const struct th_openapi_resource *r,
                           const struct th_type *type, const struct th_type *list, const char *path,
                           bool *any)
{
    const struct th_type *status = th_type_find("meta.Status");
    const struct th_type *options = th_type_find("meta.DeleteOptions");
    const struct op ops[] = {
        {"get", "list", "list", NULL, NULL, list, list_params},
        {"post", "post", "create", NULL, type, type, write_params, .created = true,
         .accepted = true},
        {"delete", "deletecollection", "delete", NULL, options, status, collection_params,
         .in_collection = true},
    };
    static const unsigned need[] = {TH_OA_LIST, TH_OA_CREATE, TH_OA_DELETECOLLECTION};
    bool first = true;
    for (size_t i = 0; i < TH_ARRAY_LEN(ops); i++) {
        if (r->verbs & need[i]) {
            if (first) {
                put_path(oa, path, any);
            }
            put_op(oa, r, r->group, r->version, r->kind, r->namespaced, "", &ops[i], first);
            first = false;
        }
    }
    if (!first) {
        end_path(oa, false, r->namespaced);
    }
}

/* The operations on one object or one subresource of it. */
static void put_item(struct th_oa *oa, const struct th_openapi_resource *r, const char *path,
                     const struct th_openapi_sub *sub, const struct th_type *type, bool *any)
{
    const struct th_type *status = th_type_find("meta.Status");
    const struct th_type *options = th_type_find("meta.DeleteOptions");
    bool pod = strcmp(r->kind, "Pod") == 0; /* its delete answers with the Pod */
    const struct op ops[] = {
        {"get", type ? "get" : "connect", type ? "read" : "connectGet", NULL, NULL, type, NULL},
        {"put", "put", "replace", NULL, type, type, write_params, .created = true},
        {"patch", "patch", "patch", NULL, NULL, type, patch_params, .patch_body = true,
         .created = true},
        {"delete", "delete", "delete", NULL, options, pod ? type : status, delete_params,
         .accepted = true},
        {"post", type ? "post" : "connect", type ? "create" : "connectPost", NULL, type, type,
         type ? write_params : NULL, .created = true, .accepted = true},
    };
    static const unsigned need[] = {TH_OA_GET, TH_OA_UPDATE, TH_OA_PATCH, TH_OA_DELETE,
                                    TH_OA_CREATE};
    unsigned verbs = sub ? sub->verbs : r->verbs & ~TH_OA_CREATE;
    bool first = true;
    for (size_t i = 0; i < TH_ARRAY_LEN(ops); i++) {
        if (verbs & need[i]) {
            if (first) {
                put_path(oa, path, any);
            }
            put_op(oa, r, sub && sub->group ? sub->group : r->group,
                   sub && sub->version ? sub->version : r->version,
                   sub && sub->kind ? sub->kind : r->kind, r->namespaced, sub ? sub->name : "",
                   &ops[i], first);
            first = false;
        }
    }
    if (!first) {
        end_path(oa, true, r->namespaced);
    }
}

static void put_resource(struct th_oa *oa, const struct th_openapi_resource *r, bool *any)
{
    const struct th_type *type = r->type ? r->type : kind_type(r->group, r->version, r->kind);
    th_autofree char *list_kind = th_xasprintf("%sList", r->kind);
    const struct th_type *list =
        r->list_type ? r->list_type : kind_type(r->group, r->version, list_kind);
    if (r->type) { /* its text refers to these */
        th_oa_reach(oa, th_type_find("meta.ObjectMeta"));
        th_oa_reach(oa, th_type_find("meta.ListMeta"));
    }
    th_autofree char *gv = th_openapi_gv_path(r->group, r->version);
    th_autofree char *base =
        th_xasprintf("/%s/%s%s", gv, r->namespaced ? "namespaces/{namespace}/" : "", r->plural);
    th_autofree char *item = th_xasprintf("%s/{name}", base);
    if (r->namespaced && (r->verbs & TH_OA_LIST)) {
        th_autofree char *all = th_xasprintf("/%s/%s", gv, r->plural);
        const struct op op = {"get", "list", "list", "ForAllNamespaces", NULL, list, list_params};
        put_path(oa, all, any);
        put_op(oa, r, r->group, r->version, r->kind, false, "", &op, true);
        end_path(oa, false, false);
    }
    put_collection(oa, r, type, list, base, any);
    put_item(oa, r, item, NULL, type, any);
    for (const struct th_openapi_sub *s = r->subs; s && s->name; s++) {
        th_autofree char *path = th_xasprintf("%s/%s", item, s->name);
        bool stream = strcmp(s->name, "log") == 0 || strcmp(s->name, "exec") == 0 ||
                      strcmp(s->name, "attach") == 0 || strcmp(s->name, "portforward") == 0 ||
                      strcmp(s->name, "proxy") == 0;
        const struct th_type *t = stream ? NULL
                                  : r->type && th_streq(s->name, "status") ? type
                                  : s->kind ? kind_type(s->group ? s->group : r->group,
                                                        s->version ? s->version : r->version,
                                                        s->kind)
                                            : type;
        put_item(oa, r, path, s, t, any);
    }
}

/* ---- Documents ---- */

static void reach_meta(struct th_oa *oa)
{
    static const char *const always[] = {"meta.APIResourceList", "meta.Status",
                                         "meta.DeleteOptions", "meta.WatchEvent"};
    for (size_t i = 0; i < TH_ARRAY_LEN(always); i++) {
        th_oa_reach(oa, th_type_find(always[i]));
    }
}

void th_openapi_v3(const char *group, const char *version, const struct th_openapi_resource *res,
                   size_t n, struct th_buf *out)
{
    struct th_oa oa = {.b = out};
    bool any = false;
    th_buf_puts(out, "{\"openapi\":\"3.0.0\",\"info\":{\"title\":\"Kubernetes\",\"version\":"
                     "\"unversioned\"},\"paths\":{");
    for (size_t i = 0; i < n; i++) {
        if (th_streq(res[i].group, group) && th_streq(res[i].version, version)) {
            put_resource(&oa, &res[i], &any);
        }
    }
    reach_meta(&oa);
    th_buf_puts(out, "},\"components\":{\"schemas\":{");
    th_oa_schemas(&oa);
    th_buf_puts(out, "},\"securitySchemes\":{\"BearerToken\":{\"type\":\"apiKey\",\"name\":"
                     "\"authorization\",\"in\":\"header\",\"description\":\"Bearer token\"}}}}");
    th_oa_done(&oa);
}

void th_openapi_v2(const struct th_openapi_resource *res, size_t n, struct th_buf *out)
{
    struct th_oa oa = {.b = out, .v2 = true};
    bool any = false;
    th_buf_puts(out, "{\"swagger\":\"2.0\",\"info\":{\"title\":\"Kubernetes\",\"version\":"
                     "\"unversioned\"},\"paths\":{");
    for (size_t i = 0; i < n; i++) {
        put_resource(&oa, &res[i], &any);
    }
    reach_meta(&oa);
    th_buf_puts(out, "},\"definitions\":{");
    th_oa_schemas(&oa);
    th_buf_puts(out, "},\"securityDefinitions\":{\"BearerToken\":{\"type\":\"apiKey\",\"name\":"
                     "\"authorization\",\"in\":\"header\",\"description\":\"Bearer token\"}},"
                     "\"security\":[{\"BearerToken\":[]}]}");
    th_oa_done(&oa);
}

void th_openapi_v3_index(const char *const *paths, const char *const *hashes, size_t n,
                         struct th_buf *out)
{
    th_buf_puts(out, "{\"paths\":{");
    for (size_t i = 0; i < n; i++) {
        th_buf_puts(out, i ? "," : "");
        th_oa_string(out, paths[i]);
        th_buf_printf(out, ":{\"serverRelativeURL\":\"/openapi/v3/%s?hash=%s\"}", paths[i],
                      hashes[i]);
    }
    th_buf_puts(out, "}}");
}
