/* links: thimble_schema thimble_base */
/* Any text as an expression, over dynamic values and over a schema: nothing but an answer or an error
 * comes out, within the cost limit. Patterns and JSONPaths are tried on the same text. */
#include "controlplane/schema/cel/cel.h"
#include "controlplane/schema/jsonpath.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char schema_text[] =
    "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"s\":{\"type\":\"string\"},"
    "\"t\":{\"type\":\"string\",\"format\":\"date-time\"},\"l\":{\"type\":\"array\","
    "\"x-kubernetes-list-type\":\"set\",\"items\":{\"type\":\"string\"}},"
    "\"m\":{\"type\":\"object\",\"additionalProperties\":{\"type\":\"number\"}}}}";
static const char self_text[] =
    "{\"apiVersion\":\"v1\",\"kind\":\"K\",\"metadata\":{\"name\":\"n\"},\"a\":1,\"s\":\"x\","
    "\"t\":\"2024-01-01T00:00:00Z\",\"l\":[\"a\",\"b\"],\"m\":{\"k\":1.5}}";

static void try(const char *text, const struct th_structural *s, const struct th_json *self)
{
    const struct th_cel_var_type type = {.name = "self",
                                         .kind = s ? TH_CEL_VAR_SCHEMA : TH_CEL_VAR_DYN,
                                         .schema = s,
                                         .resource = true};
    const struct th_cel_binding bind = {
        .name = "self", .value = self, .schema = s, .resource = true};
    TH_AUTO(th_cel_prog) struct th_cel_prog *p = NULL;
    TH_AUTO(th_json) struct th_json *out = NULL;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    enum th_cel_outcome o;
    uint64_t cost = 0;
    if (th_cel_compile(text, &type, 1, TH_CEL_RESULT_ANY, &p, &err) < 0) {
        TH_ASSERT(err.msg && *err.msg);
        return;
    }
    if (th_cel_eval(p, &bind, 1, 20000, 0, &o, &cost, NULL, &out, &err) < 0) {
        TH_ASSERT(err.msg && *err.msg);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct th_json *self;
    static struct th_structural *s;
    if (!self) {
        TH_AUTO(th_json) struct th_json *props = NULL;
        TH_ASSERT(th_json_parse_cstr(self_text, &self, NULL) == 0);
        TH_ASSERT(th_json_parse_cstr(schema_text, &props, NULL) == 0);
        s = th_structural_new(props, true, "t");
    }
    if (size > 4096) {
        return 0;
    }
    th_autofree char *text = th_xstrndup((const char *)data, size);
    try(text, NULL, self);
    try(text, s, self);
    TH_AUTO(th_regex) struct th_regex *re = NULL;
    if (th_regex_new(text, strlen(text), &re, NULL) >= 0) {
        (void)!th_regex_match(re, self_text, strlen(self_text), NULL);
    }
    TH_AUTO(th_jsonpath) struct th_jsonpath *path = NULL;
    struct th_jsonpath_found found = {.v = NULL};
    if (th_jsonpath_parse(text, &path, NULL) >= 0 &&
        th_jsonpath_find(path, self, &found, NULL) >= 0) {
        th_jsonpath_found_done(&found);
    }
    return 0;
}
