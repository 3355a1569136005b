/* Warnings about definitions: formats that no value is checked for. */
#include "controlplane/resources/crd.h"
#include "controlplane/resources/resource.h"
#include "controlplane/schema/structural.h"

static bool checked(const char *type, const char *format)
{
    if (!*type || th_streq(type, "string")) {
        return th_format_known(format);
    }
    if (th_streq(type, "integer")) {
        return th_streq(format, "int32") || th_streq(format, "int64");
    }
    return th_streq(type, "number") && (th_streq(format, "float") || th_streq(format, "double"));
}

static void find(const struct th_json *schema, struct th_strv *out)
{
    static const char *const lists[] = {"allOf", "anyOf", "oneOf"};
    static const char *const ones[] = {"items", "additionalProperties", "not"};
    if (!th_json_is(schema, TH_JSON_OBJECT)) {
        return;
    }
    const char *format = th_json_str(th_json_get(schema, "format"));
    const char *type = th_json_str(th_json_get(schema, "type"));
    if (format && *format && !checked(type ? type : "", format) && !th_strv_has(out, format)) {
        th_strv_add(out, format);
    }
    const struct th_json *members = th_json_get(schema, "properties");
    struct th_json_iter it = TH_JSON_ITER(th_json_is(members, TH_JSON_OBJECT) ? members : NULL);
    while (th_json_next(&it)) {
        find(it.value, out);
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(lists); i++) {
        const struct th_json *list = th_json_get(schema, lists[i]);
        for (size_t k = 0; k < th_json_len(list); k++) {
            find(th_json_at(list, k), out);
        }
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(ones); i++) {
        find(th_json_get(schema, ones[i]), out);
    }
}

static void find_all(const struct th_json *crd, struct th_strv *out)
{
    const struct th_json *versions = th_json_path(crd, "spec.versions");
    for (size_t i = 0; i < th_json_len(versions); i++) {
        find(th_json_path(th_json_at(versions, i), "schema.openAPIV3Schema"), out);
    }
}

void th_crd_warn_formats(const struct th_req_ctx *c, const struct th_json *crd,
                         const struct th_json *old)
{
    if (!c->warnings) {
        return;
    }
    th_autostrv struct th_strv now = TH_STRV_INIT, before = TH_STRV_INIT;
    find_all(crd, &now);
    find_all(old, &before);
    for (size_t i = 0; i < now.n; i++) {
        if (!th_strv_has(&before, now.v[i])) {
            th_strv_addf(c->warnings, "unrecognized format \"%s\"", now.v[i]);
        }
    }
}
