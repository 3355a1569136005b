/* The OpenAPI v2 document as protobuf, for clients that read no other form of it (kubectl explain
 * with plaintext-openapiv2, client-go's OpenAPISchema).
 *
 * The message types are those of gnostic's openapiv2 model. It wraps what JSON says directly: a map
 * is a message of named values, a choice (a body or another parameter, a response or a reference) is
 * a message with one member, extensions are named values whose text is YAML, which JSON is. The
 * tables below say for each message which JSON member goes where; members without a row are left out,
 * for a schema has many keywords that this document never holds.
 *
 * The text is walked in slices: no tree of the megabytes of the document is ever made.
 */
#include "base/json/slice.h"
#include "base/json/json.h"
#include "controlplane/schema/openapi.h"
#include "controlplane/schema/schema.h"

enum how {
    AS_STRING,
    AS_STRINGS,
    AS_BOOL,
    AS_ANY,     /* YAML text */
    AS_ANYS,
    AS_MESSAGE,
    AS_MESSAGES,
    AS_NAMED,   /* a message of {name, value}s */
    AS_TYPE,    /* a string or strings in a message */
    AS_ITEMS,   /* one schema in a message */
    AS_CHOICE,  /* a message in a message; the outer member says which of the choice */
    AS_PARAMETERS,
    AS_RESPONSES,
    AS_EXTRA,   /* additionalProperties: a schema or a boolean */
    AS_SECURITY
};

struct msg;
struct row {
    const char *name;
    uint32_t number;
    enum how how;
    const struct msg *sub;
    uint32_t choice; /* AS_CHOICE, and NAMED values that are choices: member of the inner message */
};
struct msg {
    const struct row *rows; /* ends with name NULL */
    uint32_t extensions;    /* number of vendor_extension, 0: none */
};

static const struct msg schema;

static const struct row schema_rows[] = {
    {"$ref", 1, AS_STRING, NULL, 0},
    {"format", 2, AS_STRING, NULL, 0},
    {"title", 3, AS_STRING, NULL, 0},
    {"description", 4, AS_STRING, NULL, 0},
    {"default", 5, AS_ANY, NULL, 0},
    {"pattern", 13, AS_STRING, NULL, 0},
    {"uniqueItems", 16, AS_BOOL, NULL, 0},
    {"required", 19, AS_STRINGS, NULL, 0},
    {"enum", 20, AS_ANYS, NULL, 0},
    {"additionalProperties", 21, AS_EXTRA, &schema, 0},
    {"type", 22, AS_TYPE, NULL, 0},
    {"items", 23, AS_ITEMS, &schema, 0},
    {"allOf", 24, AS_MESSAGES, &schema, 0},
    {"properties", 25, AS_NAMED, &schema, 0},
    {"discriminator", 26, AS_STRING, NULL, 0},
    {"readOnly", 27, AS_BOOL, NULL, 0},
    {"example", 30, AS_ANY, NULL, 0},
    {NULL, 0, AS_STRING, NULL, 0},
};
static const struct msg schema = {schema_rows, 31};

static const struct row body_rows[] = {
    {"description", 1, AS_STRING, NULL, 0}, {"name", 2, AS_STRING, NULL, 0},
    {"in", 3, AS_STRING, NULL, 0},          {"required", 4, AS_BOOL, NULL, 0},
    {"schema", 5, AS_MESSAGE, &schema, 0},  {NULL, 0, AS_STRING, NULL, 0},
};
static const struct msg body_parameter = {body_rows, 6};

static const struct row query_rows[] = {
    {"required", 1, AS_BOOL, NULL, 0},      {"in", 2, AS_STRING, NULL, 0},
    {"description", 3, AS_STRING, NULL, 0}, {"name", 4, AS_STRING, NULL, 0},
    {"type", 6, AS_STRING, NULL, 0},        {"format", 7, AS_STRING, NULL, 0},
    {"uniqueItems", 20, AS_BOOL, NULL, 0},  {NULL, 0, AS_STRING, NULL, 0},
};
static const struct msg query_parameter = {query_rows, 23};

static const struct row path_rows[] = {
    {"required", 1, AS_BOOL, NULL, 0},      {"in", 2, AS_STRING, NULL, 0},
    {"description", 3, AS_STRING, NULL, 0}, {"name", 4, AS_STRING, NULL, 0},
    {"type", 5, AS_STRING, NULL, 0},        {"format", 6, AS_STRING, NULL, 0},
    {"uniqueItems", 19, AS_BOOL, NULL, 0},  {NULL, 0, AS_STRING, NULL, 0},
};
static const struct msg path_parameter = {path_rows, 22};

static const struct row response_rows[] = {
    {"description", 1, AS_STRING, NULL, 0},
    {"schema", 2, AS_CHOICE, &schema, 1},
    {NULL, 0, AS_STRING, NULL, 0},
};
static const struct msg response = {response_rows, 5};

static const struct row operation_rows[] = {
    {"tags", 1, AS_STRINGS, NULL, 0},         {"summary", 2, AS_STRING, NULL, 0},
    {"description", 3, AS_STRING, NULL, 0},   {"operationId", 5, AS_STRING, NULL, 0},
    {"produces", 6, AS_STRINGS, NULL, 0},     {"consumes", 7, AS_STRINGS, NULL, 0},
    {"parameters", 8, AS_PARAMETERS, NULL, 0}, {"responses", 9, AS_RESPONSES, NULL, 0},
    {"schemes", 10, AS_STRINGS, NULL, 0},     {"deprecated", 11, AS_BOOL, NULL, 0},
    {NULL, 0, AS_STRING, NULL, 0},
};
static const struct msg operation = {operation_rows, 13};

static const struct row path_item_rows[] = {
    {"get", 2, AS_MESSAGE, &operation, 0},     {"put", 3, AS_MESSAGE, &operation, 0},
    {"post", 4, AS_MESSAGE, &operation, 0},    {"delete", 5, AS_MESSAGE, &operation, 0},
    {"options", 6, AS_MESSAGE, &operation, 0}, {"head", 7, AS_MESSAGE, &operation, 0},
    {"patch", 8, AS_MESSAGE, &operation, 0},   {"parameters", 9, AS_PARAMETERS, NULL, 0},
    {NULL, 0, AS_STRING, NULL, 0},
};
static const struct msg path_item = {path_item_rows, 10};

static const struct row info_rows[] = {
    {"title", 1, AS_STRING, NULL, 0},
    {"version", 2, AS_STRING, NULL, 0},
    {"description", 3, AS_STRING, NULL, 0},
    {NULL, 0, AS_STRING, NULL, 0},
};
static const struct msg info = {info_rows, 7};

static const struct row key_rows[] = {
    {"type", 1, AS_STRING, NULL, 0},        {"name", 2, AS_STRING, NULL, 0},
    {"in", 3, AS_STRING, NULL, 0},          {"description", 4, AS_STRING, NULL, 0},
    {NULL, 0, AS_STRING, NULL, 0},
};
static const struct msg api_key = {key_rows, 5};

static const struct row document_rows[] = {
    {"swagger", 1, AS_STRING, NULL, 0},
    {"info", 2, AS_MESSAGE, &info, 0},
    {"paths", 8, AS_NAMED, &path_item, 0},
    {"definitions", 9, AS_NAMED, &schema, 0},
    {"security", 12, AS_SECURITY, NULL, 0},
    {"securityDefinitions", 13, AS_NAMED, &api_key, 2},
    {NULL, 0, AS_STRING, NULL, 0},
};
static const struct msg document = {document_rows, 16};

static int put_msg(struct th_buf *b, const struct msg *m, struct th_str v, struct th_err *err);

/* A number that says a message of the text follows; also for strings. */
static void put_text(struct th_buf *b, uint32_t number, struct th_str s)
{
    size_t at = th_pb_begin(b, number);
    th_buf_addstr(b, s);
    th_pb_end(b, at);
}

static int put_string(struct th_buf *b, uint32_t number, struct th_str v, struct th_err *err)
{
    struct th_str plain = th_json_slice_text(v);
    if (plain.p) {
        put_text(b, number, plain);
        return 0;
    }
    TH_AUTO(th_json) struct th_json *o = NULL;
    TH_TRY(th_json_parse(v.p, v.n, NULL, &o, err));
    const char *s = th_json_str(o);
    put_text(b, number, (struct th_str){s ? s : "", th_json_str_len(o)});
    return 0;
}

static void put_true(struct th_buf *b, uint32_t number)
{
    uint32_t tag = number << 3;
    if (tag >= 0x80) {
        th_buf_putc(b, (char)(tag | 0x80));
        tag >>= 7;
    }
    th_buf_putc(b, (char)tag);
    th_buf_putc(b, 1);
}

static void put_any(struct th_buf *b, uint32_t number, struct th_str v)
{
    size_t at = th_pb_begin(b, number);
    put_text(b, 2, v);
    th_pb_end(b, at);
}

static int put_sub(struct th_buf *b, uint32_t number, const struct msg *m, uint32_t choice,
                   struct th_str v, struct th_err *err)
{
    size_t at = th_pb_begin(b, number);
    size_t inner = choice ? th_pb_begin(b, choice) : 0;
    TH_TRY(put_msg(b, m, v, err));
    if (choice) {
        th_pb_end(b, inner);
    }
    th_pb_end(b, at);
    return 0;
}

/* {1: name, 2: value}; `list` is the number of these in the message around them. */
static int put_named(struct th_buf *b, uint32_t list, const struct msg *m, uint32_t choice,
                     struct th_str map, struct th_err *err)
{
    struct th_json_slice s = TH_JSON_SLICE(map);
    struct th_str name, v;
    while (th_json_slice_member(&s, &name, &v)) {
        size_t at = th_pb_begin(b, list);
        put_text(b, 1, name);
        TH_TRY(put_sub(b, 2, m, choice, v, err));
        th_pb_end(b, at);
    }
    return 0;
}

static int put_parameters(struct th_buf *b, uint32_t number, struct th_str list, struct th_err *err)
{
    struct th_json_slice s = TH_JSON_SLICE(list);
    struct th_str v;
    while (th_json_slice_element(&s, &v)) {
        struct th_str in = th_json_slice_text(th_json_slice_get(v, "in"));
        bool body = th_str_eq(in, TH_STR("body"));
        bool path = th_str_eq(in, TH_STR("path"));
        size_t item = th_pb_begin(b, number);    /* ParametersItem */
        size_t parameter = th_pb_begin(b, 1);    /* Parameter */
        if (body) {
            TH_TRY(put_sub(b, 1, &body_parameter, 0, v, err));
        } else {
            size_t other = th_pb_begin(b, 2);    /* NonBodyParameter */
            TH_TRY(put_sub(b, path ? 4 : 3, path ? &path_parameter : &query_parameter, 0, v, err));
            th_pb_end(b, other);
        }
        th_pb_end(b, parameter);
        th_pb_end(b, item);
    }
    return 0;
}

static void put_security(struct th_buf *b, uint32_t number, struct th_str list)
{
    struct th_json_slice s = TH_JSON_SLICE(list);
    struct th_str one;
    while (th_json_slice_element(&s, &one)) {
        size_t at = th_pb_begin(b, number);
        struct th_json_slice m = TH_JSON_SLICE(one);
        struct th_str name, scopes;
        while (th_json_slice_member(&m, &name, &scopes)) {
            size_t named = th_pb_begin(b, 1);
            put_text(b, 1, name);
            put_text(b, 2, (struct th_str){"", 0}); /* no scopes */
            th_pb_end(b, named);
        }
        th_pb_end(b, at);
    }
}

static int put_list(struct th_buf *b, const struct row *r, struct th_str list, struct th_err *err)
{
    struct th_json_slice s = TH_JSON_SLICE(list);
    struct th_str v;
    while (th_json_slice_element(&s, &v)) {
        if (r->how == AS_STRINGS) {
            TH_TRY(put_string(b, r->number, v, err));
        } else if (r->how == AS_ANYS) {
            put_any(b, r->number, v);
        } else {
            TH_TRY(put_sub(b, r->number, r->sub, 0, v, err));
        }
    }
    return 0;
}

static int put_type(struct th_buf *b, uint32_t number, struct th_str v, struct th_err *err)
{
    const struct row strings = {"type", 1, AS_STRINGS, NULL, 0};
    size_t at = th_pb_begin(b, number);
    if (v.n > 0 && v.p[0] == '[') {
        TH_TRY(put_list(b, &strings, v, err));
    } else {
        TH_TRY(put_string(b, 1, v, err));
    }
    th_pb_end(b, at);
    return 0;
}

static int put_row(struct th_buf *b, const struct row *r, struct th_str v, struct th_err *err)
{
    bool yes = v.n > 0 && v.p[0] == 't';
    size_t at;
    int rc = 0;
    switch (r->how) {
    case AS_STRING:
        return put_string(b, r->number, v, err);
    case AS_STRINGS:
    case AS_ANYS:
    case AS_MESSAGES:
        return put_list(b, r, v, err);
    case AS_BOOL:
        if (yes) {
            put_true(b, r->number);
        }
        return 0;
    case AS_ANY:
        put_any(b, r->number, v);
        return 0;
    case AS_MESSAGE:
        return put_sub(b, r->number, r->sub, 0, v, err);
    case AS_CHOICE:
        return put_sub(b, r->number, r->sub, r->choice, v, err);
    case AS_ITEMS:
        return put_sub(b, r->number, r->sub, 1, v, err);
    case AS_TYPE:
        return put_type(b, r->number, v, err);
    case AS_NAMED:
        at = th_pb_begin(b, r->number);
        /* Paths has its extensions first and the paths as member 2 */
        rc = put_named(b, r->sub == &path_item ? 2 : 1, r->sub, r->choice, v, err);
        th_pb_end(b, at);
        return rc;
    case AS_PARAMETERS:
        return put_parameters(b, r->number, v, err);
    case AS_RESPONSES:
        at = th_pb_begin(b, r->number);
        rc = put_named(b, 1, &response, 1, v, err);
        th_pb_end(b, at);
        return rc;
    case AS_EXTRA:
        if (v.n > 0 && v.p[0] == '{') {
            return put_sub(b, r->number, r->sub, 1, v, err);
        }
        at = th_pb_begin(b, r->number);
        if (yes) {
            put_true(b, 2);
        }
        th_pb_end(b, at);
        return 0;
    case AS_SECURITY:
        put_security(b, r->number, v);
        return 0;
    }
    return 0;
}

static int put_msg(struct th_buf *b, const struct msg *m, struct th_str v, struct th_err *err)
{
    struct th_json_slice s = TH_JSON_SLICE(v);
    struct th_str name, value;
    while (th_json_slice_member(&s, &name, &value)) {
        if (name.n > 2 && name.p[0] == 'x' && name.p[1] == '-') {
            size_t at = th_pb_begin(b, m->extensions);
            put_text(b, 1, name);
            put_any(b, 2, value);
            th_pb_end(b, at);
            continue;
        }
        for (const struct row *r = m->rows; r->name; r++) {
            if (th_str_eq(name, th_str_of(r->name))) {
                TH_TRY(put_row(b, r, value, err));
                break;
            }
        }
    }
    return th_json_slice_ended(&s) ? 0 : th_fail(err, TH_R_INTERNAL, "an OpenAPI document is broken");
}

int th_openapi_v2_protobuf(struct th_str json, struct th_buf *b, struct th_err *err)
{
    TH_TRY(put_msg(b, &document, json, err));
    return th_buf_check(b, err);
}
