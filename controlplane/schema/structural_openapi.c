/*
 * The schema of a custom resource as OpenAPI documents publish it.
 *
 * v3 shows nearly what the definition says. v2 (Swagger) knows no unions and no nullable values, and
 * old kubectl takes a list of properties for a complete one; so there unions, defaults and what
 * stands below values of unknown shape are left out, as upstream does. apiVersion, kind and metadata
 * are added to the kind itself and to embedded resources.
 */
#include "controlplane/schema/structural.h"

static const char api_version_doc[] =
    "APIVersion defines the group and version of the schema this object follows, such as apps/v1.";
static const char kind_doc[] = "The kind of this object, in CamelCase.";

char *th_structural_openapi_name(const char *group, const char *version, const char *kind)
{
    th_autostrv struct th_strv parts = TH_STRV_INIT;
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_strv_split(&parts, group, '.');
    for (size_t i = parts.n; i > 0; i--) {
        th_buf_printf(&b, "%s.", parts.v[i - 1]);
    }
    return th_xasprintf("%s%s.%s", th_buf_cstr(&b), version, kind);
}

static struct th_json *ref(const char *name, const char *doc, bool v2)
{
    struct th_json *target = th_json_stringf("#/%s/io.k8s.apimachinery.pkg.apis.meta.v1.%s",
                                             v2 ? "definitions" : "components/schemas", name);
    return v2 ? th_json_build("{'description':%s,'$ref':%o}", doc, target)
              : th_json_build("{'description':%s,'allOf':[{'$ref':%o}]}", doc, target);
}

static void add_type_meta(struct th_json *props, bool v2, const char *meta, const char *meta_doc)
{
    th_json_set(props, "apiVersion",
                th_json_build("{'description':%s,'type':'string'}", api_version_doc));
    th_json_set(props, "kind", th_json_build("{'description':%s,'type':'string'}", kind_doc));
    th_json_set(props, "metadata", ref(meta, meta_doc, v2));
}

static bool flag(const struct th_json *s, const char *name)
{
    return th_json_as_bool(th_json_get(s, name), false);
}

static void require(struct th_json *s, const char *name)
{
    struct th_json *list = th_json_path_array(s, "required");
    for (size_t i = 0; i < th_json_len(list); i++) {
        if (th_streq(th_json_str(th_json_at(list, i)), name)) {
            return;
        }
    }
    th_json_append_str(list, name);
}

static void add_embedded(struct th_json *s, bool v2)
{
    if (!flag(s, "x-kubernetes-embedded-resource") ||
        (v2 && flag(s, "x-kubernetes-preserve-unknown-fields"))) {
        return;
    }
    add_type_meta(th_json_path_object(s, "properties"), v2, "ObjectMeta",
                  "Metadata of the embedded object.");
    require(s, "kind");
    require(s, "apiVersion");
}

/* Members that v2's readers would take for non-null although they may be null. */
static void drop_nullable_required(struct th_json *s)
{
    const struct th_json *list = th_json_get(s, "required");
    const struct th_json *props = th_json_get(s, "properties");
    struct th_json *kept = th_json_array();
    for (size_t i = 0; i < th_json_len(list); i++) {
        const char *name = th_json_str(th_json_at(list, i));
        if (name && !flag(th_json_get(props, name), "nullable")) {
            th_json_append_str(kept, name);
        }
    }
    if (th_json_len(kept) && !flag(th_json_get(s, "additionalProperties"), "nullable")) {
        th_json_set(s, "required", kept);
    } else {
        th_json_unref(kept);
        th_json_del(s, "required");
    }
}

static void simplify(struct th_json *s)
{
    static const char *const unions[] = {"allOf", "anyOf", "oneOf", "not", "default"};
    for (size_t i = 0; i < TH_ARRAY_LEN(unions); i++) {
        th_json_del(s, unions[i]);
    }
    drop_nullable_required(s);
    bool preserve = flag(s, "x-kubernetes-preserve-unknown-fields");
    if (flag(s, "nullable")) {
        th_json_del(s, "nullable");
        th_json_del(s, "type");
    }
    if (!th_json_get(s, "type") || preserve) {
        th_json_del(s, "items");
        th_json_del(s, "properties");
    }
    const char *type = th_json_str(th_json_get(s, "type"));
    if ((th_streq(type, "array") && !th_json_get(s, "items")) ||
        (th_streq(type, "object") && preserve)) {
        th_json_del(s, "type");
    }
}

static void rework(struct th_json *s, bool v2)
{
    if (!th_json_is(s, TH_JSON_OBJECT)) {
        return;
    }
    if (v2) {
        simplify(s);
    }
    struct th_json_iter it = TH_JSON_ITER(th_json_get(s, "properties"));
    while (th_json_next(&it)) {
        rework(it.value, v2);
    }
    rework(th_json_get(s, "items"), v2);
    rework(th_json_get(s, "additionalProperties"), v2);
    add_embedded(s, v2);
}

static void put_kind(const struct th_oa_custom *c, const char *kind, struct th_json *s)
{
    th_json_set(s, "x-kubernetes-group-version-kind",
                th_json_build("[{'group':%s,'kind':%s,'version':%s}]", c->group, kind, c->version));
    struct th_json *fields = th_json_array();
    for (size_t i = 0; i < th_json_len(c->selectable); i++) {
        const char *path = th_json_path_str(th_json_at(c->selectable, i), "jsonPath");
        th_json_append(fields, th_json_build("{'fieldPath':%s}",
                                             path && *path == '.' ? path + 1 : path));
    }
    if (th_json_len(fields)) {
        th_json_set(s, "x-kubernetes-selectable-fields", fields);
    } else {
        th_json_unref(fields);
    }
}

/* Takes s. */
static void put_inside(struct th_json *s, struct th_buf *out)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_json_dump_sorted(s, &b);
    th_buf_add(out, b.p + 1, b.n - 2);
    th_json_unref(s);
}

void th_structural_openapi(const struct th_oa_custom *c, bool v2, struct th_buf *out)
{
    bool open = !c->schema || (v2 && flag(c->schema, "x-kubernetes-preserve-unknown-fields"));
    struct th_json *s = open ? th_json_build("{'type':'object'}") : th_json_dup(c->schema);
    if (!open) {
        rework(s, v2);
        if (!th_json_get(s, "type")) {
            th_json_set_str(s, "type", "object");
        }
        add_type_meta(th_json_path_object(s, "properties"), v2, "ObjectMeta",
                      "Standard object's metadata.");
    }
    put_kind(c, c->kind, s);
    put_inside(s, out);
}

void th_structural_openapi_list(const struct th_oa_custom *c, bool v2, struct th_buf *out)
{
    th_autofree char *name = th_structural_openapi_name(c->group, c->version, c->kind);
    struct th_json *item =
        th_json_build("{'$ref':%o}",
                      th_json_stringf("#/%s/%s", v2 ? "definitions" : "components/schemas", name));
    struct th_json *s = th_json_build(
        "{'description':%o,'type':'object','required':['items'],'properties':{'items':"
        "{'type':'array','description':%o,'items':%o}}}",
        th_json_stringf("%s is a list of %s", c->list_kind, c->kind),
        th_json_stringf("List of %s objects.", c->kind), item);
    add_type_meta(th_json_get(s, "properties"), v2, "ListMeta", "Standard list metadata.");
    put_kind(c, c->list_kind, s);
    put_inside(s, out);
}
