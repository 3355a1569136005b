/* YAML to trees, over libyaml.
 *
 * Problem: manifests are written by people, in YAML, in files of many documents; the API speaks
 * JSON. What kubectl makes of a file must be what we make of it. Design: libyaml's event stream is
 * turned into th_json nodes by recursive descent; resolve.c decides what an unquoted scalar is.
 * Anchors are kept as nodes and copied at each alias. Text that begins like JSON is tried as JSON
 * first, as kubectl does, which is faster and reads JSON's own escapes (surrogate pairs, "\/").
 *
 * Limits: aliases can multiply a small text a billion times, therefore copied nodes count against
 * TH_LIMIT_YAML_NODES like written ones, and depth is that of the resulting tree.
 * Members given twice: the last one wins, and its path is noted. Merged members ("<<") never
 * replace written ones; in a list of merges the earlier wins.
 */
#include "base/json/yaml.h"

#include "base/encode.h"
#include "base/hmap.h"
#include "base/json/yaml_priv.h"
#include "base/limits.h"

#include <yaml.h>

#define MAX_DUPS 100

/* A node under construction. Owns json. */
struct built {
    struct th_json *json;
    size_t nodes;  /* in the tree below, itself included */
    size_t height; /* 1 for a scalar */
    size_t line;   /* where it begins, from 1 */
};

struct parse {
    yaml_parser_t y;
    size_t nodes_left;
    struct th_hmap anchors; /* name -> struct built */
    struct th_buf path;     /* of the node being read */
    struct th_strv *dups;   /* may be NULL */
    struct th_strv *again;  /* the same members as go-yaml's strict reading names them; may be NULL */
    struct th_err *err;
};

static int fail_at(struct parse *p, yaml_mark_t at, const char *what)
{
    return th_fail(p->err, TH_R_PARSE, "line %zu, column %zu: %s", at.line + 1, at.column + 1,
                   what);
}

static int next_event(struct parse *p, yaml_event_t *e)
{
    if (yaml_parser_parse(&p->y, e)) {
        return 0;
    }
    if (p->y.error == YAML_READER_ERROR) {
        return th_fail(p->err, TH_R_PARSE, "byte %zu: %s", p->y.problem_offset, p->y.problem);
    }
    if (!p->y.context) {
        return fail_at(p, p->y.problem_mark, p->y.problem ? p->y.problem : "not YAML");
    }
    return th_fail(p->err, TH_R_PARSE, "line %zu, column %zu: %s %s", p->y.problem_mark.line + 1,
                   p->y.problem_mark.column + 1, p->y.problem, p->y.context);
}

static void built_done(struct built *b)
{
    th_json_unref(b->json);
    b->json = NULL;
}
#define AUTO_BUILT TH_CLEANUP(built_done)

static void anchor_free(void *p)
{
    built_done(p);
    free(p);
}

static void remember_anchor(struct parse *p, const yaml_char_t *anchor, const struct built *b)
{
    if (!anchor) {
        return;
    }
    struct built *a = TH_NEW(struct built);
    *a = *b;
    a->json = th_json_ref(b->json);
    th_hmap_set(&p->anchors, (const char *)anchor, a);
}

/* Accounts for n more nodes. */
static int spend(struct parse *p, size_t n, yaml_mark_t at)
{
    if (n > p->nodes_left) {
        return fail_at(p, at, "document contains excessive aliasing");
    }
    p->nodes_left -= n;
    return 0;
}

static int read_alias(struct parse *p, const yaml_event_t *e, size_t depth, struct built *ret)
{
    const char *name = (const char *)e->data.alias.anchor;
    struct built *a = th_hmap_get(&p->anchors, name);
    if (!a) {
        return fail_at(p, e->start_mark, "unknown anchor");
    }
    if (depth + a->height > TH_LIMIT_JSON_DEPTH + 1) {
        return fail_at(p, e->start_mark, "nested too deeply");
    }
    TH_TRY(spend(p, a->nodes, e->start_mark));
    *ret = *a;
    ret->json = th_json_dup(a->json);
    return 0;
}

static bool tag_is(const yaml_char_t *tag, const char *name)
{
    static const char prefix[] = "tag:yaml.org,2002:";
    const char *t = (const char *)tag;
    return th_startswith(t, prefix) && strcmp(t + sizeof(prefix) - 1, name) == 0;
}

/* The resolved value, after the explicit tag (if any) had its say. */
static int scalar_value(struct parse *p, const yaml_event_t *e, struct th_yaml_value *ret)
{
    const yaml_char_t *tag = e->data.scalar.tag;
    const char *s = (const char *)e->data.scalar.value;
    *ret = (struct th_yaml_value){.kind = TH_YAML_STR};
    if (!tag && !e->data.scalar.plain_implicit) {
        return 0;
    }
    if (!tag) {
        *ret = th_yaml_resolve(s, e->data.scalar.length);
        return 0;
    }
    static const struct {
        const char *tag;
        enum th_yaml_kind kind;
    } tags[] = {{"bool", TH_YAML_BOOL},
                {"int", TH_YAML_INT},
                {"float", TH_YAML_FLOAT},
                {"null", TH_YAML_NULL}};
    for (size_t i = 0; i < TH_ARRAY_LEN(tags); i++) {
        if (!tag_is(tag, tags[i].tag)) {
            continue;
        }
        *ret = th_yaml_resolve(s, e->data.scalar.length);
        bool widened = tags[i].kind == TH_YAML_FLOAT && ret->kind == TH_YAML_INT;
        if (ret->kind != tags[i].kind && !widened) {
            return fail_at(p, e->start_mark, "value does not match its tag");
        }
    }
    return 0; /* !!str, !!timestamp and tags we do not know leave a string */
}

static int scalar_string(struct parse *p, const yaml_event_t *e, struct th_json **ret)
{
    const char *s = (const char *)e->data.scalar.value;
    size_t n = e->data.scalar.length;
    if (!e->data.scalar.tag || !tag_is(e->data.scalar.tag, "binary")) {
        *ret = th_json_string_n(s, n);
        return 0;
    }
    th_autobuf struct th_buf b = TH_BUF_INIT;
    if (th_b64_decode(s, n, &b, NULL) < 0 || !th_utf8_valid(th_buf_cstr(&b), b.n)) {
        return fail_at(p, e->start_mark, "!!binary value is not base64 of UTF-8 text");
    }
    *ret = th_json_string_n(th_buf_cstr(&b), b.n);
    return 0;
}

static int read_scalar(struct parse *p, const yaml_event_t *e, struct built *ret)
{
    struct th_yaml_value v;
    TH_TRY(scalar_value(p, e, &v));
    struct built b = {.nodes = 1, .height = 1};
    switch (v.kind) {
    case TH_YAML_NULL:
        break;
    case TH_YAML_BOOL:
        b.json = th_json_bool(v.b);
        break;
    case TH_YAML_INT:
        b.json = v.is_unsigned ? th_json_of(json_object_new_uint64(v.u)) : th_json_int(v.i);
        break;
    case TH_YAML_FLOAT:
        b.json = th_json_double(v.d);
        break;
    case TH_YAML_RANGE:
        return fail_at(p, e->start_mark, "number that JSON cannot hold");
    case TH_YAML_STR:
    case TH_YAML_TIME:
    case TH_YAML_MERGE:
        TH_TRY(scalar_string(p, e, &b.json));
        break;
    }
    remember_anchor(p, e->data.scalar.anchor, &b);
    *ret = b;
    return 0;
}

static int read_node(struct parse *p, const yaml_event_t *e, size_t depth, struct built *ret);

/* Reads the event of a node, then the node. *ret_end is set instead when the event is `end`. */
static int read_next(struct parse *p, yaml_event_type_t end, size_t depth, struct built *ret,
                     bool *ret_end)
{
    yaml_event_t e;
    TH_TRY(next_event(p, &e));
    int r = 0;
    if (e.type == end) {
        *ret_end = true;
    } else {
        r = read_node(p, &e, depth, ret);
        ret->line = e.start_mark.line + 1;
    }
    yaml_event_delete(&e);
    return r;
}

static void adopt(struct built *parent, const struct built *c)
{
    parent->nodes += c->nodes;
    if (parent->height < c->height + 1) {
        parent->height = c->height + 1;
    }
}

static int read_sequence(struct parse *p, const yaml_event_t *e, size_t depth, struct built *ret)
{
    AUTO_BUILT struct built a = {.json = th_json_array(), .nodes = 1, .height = 1};
    size_t base = p->path.n;
    for (;;) {
        struct built c = {0};
        bool end = false;
        th_buf_printf(&p->path, "[%zu]", th_json_len(a.json));
        TH_TRY(read_next(p, YAML_SEQUENCE_END_EVENT, depth + 1, &c, &end));
        th_buf_truncate(&p->path, base);
        if (end) {
            break;
        }
        adopt(&a, &c);
        th_json_append(a.json, c.json);
    }
    remember_anchor(p, e->data.sequence_start.anchor, &a);
    *ret = a;
    a.json = NULL;
    return 0;
}

/* A mapping's key as a member name; *ret_merge for an unquoted "<<". The caller frees. */
static int read_key(struct parse *p, const yaml_event_t *e, char **ret, bool *ret_merge)
{
    struct th_yaml_value v;
    TH_AUTO(th_json) struct th_json *alias = NULL;
    if (e->type == YAML_ALIAS_EVENT) {
        struct built b;
        TH_TRY(read_alias(p, e, 0, &b));
        alias = b.json;
        if (!th_json_is(alias, TH_JSON_STRING)) {
            return fail_at(p, e->start_mark, "alias as a key is not a string");
        }
        *ret = th_xstrdup(th_json_str(alias));
        return 0;
    }
    if (e->type != YAML_SCALAR_EVENT) {
        return fail_at(p, e->start_mark, "mapping key is not a scalar");
    }
    TH_TRY(scalar_value(p, e, &v));
    const char *s = (const char *)e->data.scalar.value;
    char number[48];
    switch (v.kind) {
    case TH_YAML_NULL:
        return fail_at(p, e->start_mark, "mapping key is null");
    case TH_YAML_RANGE:
        return fail_at(p, e->start_mark, "mapping key is not a string");
    case TH_YAML_BOOL:
        s = v.b ? "true" : "false";
        break;
    case TH_YAML_INT:
        (void)snprintf(number, sizeof(number), v.is_unsigned ? "%llu" : "%lld", (long long)v.i);
        s = number;
        break;
    case TH_YAML_FLOAT:
        (void)th_json_format_double_g(v.d, number);
        s = number;
        break;
    case TH_YAML_MERGE:
        *ret_merge = true;
        break;
    case TH_YAML_STR:
    case TH_YAML_TIME:
        if (strlen(s) != e->data.scalar.length) {
            return fail_at(p, e->start_mark, "NUL in a mapping key");
        }
        break;
    }
    if (e->data.scalar.anchor) {
        AUTO_BUILT struct built b = {.json = th_json_string(s), .nodes = 1, .height = 1};
        remember_anchor(p, e->data.scalar.anchor, &b);
    }
    *ret = th_xstrdup(s);
    return 0;
}

/* Copies the members of source (an object, or a list of objects) that o does not have. */
static bool merge_into(struct th_json *o, const struct th_json *source)
{
    if (th_json_is(source, TH_JSON_ARRAY)) {
        for (size_t i = 0; i < th_json_len(source); i++) {
            if (!th_json_is(th_json_at(source, i), TH_JSON_OBJECT) ||
                !merge_into(o, th_json_at(source, i))) {
                return false;
            }
        }
        return true;
    }
    if (!th_json_is(source, TH_JSON_OBJECT)) {
        return false;
    }
    struct th_json_iter it = TH_JSON_ITER(source);
    while (th_json_next(&it)) {
        if (!th_json_has(o, it.name)) {
            th_json_set(o, it.name, th_json_ref(it.value));
        }
    }
    return true;
}

static void note_dup(struct parse *p, const char *name, size_t line)
{
    if (p->again && p->again->n < MAX_DUPS) {
        TH_AUTO(th_json) struct th_json *key = th_json_string(name);
        th_autofree char *quoted = th_json_to_string(key);
        th_strv_addf(p->again, "line %zu: key %s already set in map", line, quoted);
    }
    const char *path = th_buf_cstr(&p->path);
    if (p->dups && p->dups->n < MAX_DUPS && !th_strv_has(p->dups, path)) {
        th_strv_add(p->dups, path);
    }
}

/* Reads one "key: value" into m; *ret_end when the mapping ends instead. Merges are gathered. */
static int read_member(struct parse *p, size_t depth, struct built *m, struct th_json *merges,
                       bool *ret_end)
{
    yaml_event_t e;
    TH_TRY(next_event(p, &e));
    if (e.type == YAML_MAPPING_END_EVENT) {
        yaml_event_delete(&e);
        *ret_end = true;
        return 0;
    }
    yaml_mark_t at = e.start_mark;
    th_autofree char *name = NULL;
    bool merge = false;
    int r = read_key(p, &e, &name, &merge);
    yaml_event_delete(&e);
    TH_TRY(r);
    if (p->path.n) {
        th_buf_putc(&p->path, '.');
    }
    th_buf_puts(&p->path, name);
    struct built c = {0};
    bool end = false;
    TH_TRY(read_next(p, YAML_NO_EVENT, depth + 1, &c, &end));
    adopt(m, &c);
    if (merge) {
        struct th_json *probe = th_json_object();
        bool ok = merge_into(probe, c.json);
        th_json_unref(probe);
        th_json_append(merges, c.json);
        return ok ? 0 : fail_at(p, at, "map merge requires map or sequence of maps as the value");
    }
    if (th_json_has(m->json, name)) {
        note_dup(p, name, c.line);
    }
    th_json_set(m->json, name, c.json);
    return 0;
}

static int read_mapping(struct parse *p, const yaml_event_t *e, size_t depth, struct built *ret)
{
    AUTO_BUILT struct built m = {.json = th_json_object(), .nodes = 1, .height = 1};
    TH_AUTO(th_json) struct th_json *merges = th_json_array();
    size_t base = p->path.n;
    bool end = false;
    while (!end) {
        TH_TRY(read_member(p, depth, &m, merges, &end));
        th_buf_truncate(&p->path, base);
    }
    for (size_t i = 0; i < th_json_len(merges); i++) {
        (void)merge_into(m.json, th_json_at(merges, i));
    }
    remember_anchor(p, e->data.mapping_start.anchor, &m);
    *ret = m;
    m.json = NULL;
    return 0;
}

static int read_node(struct parse *p, const yaml_event_t *e, size_t depth, struct built *ret)
{
    if (depth > TH_LIMIT_JSON_DEPTH) {
        return fail_at(p, e->start_mark, "nested too deeply");
    }
    if (e->type == YAML_ALIAS_EVENT) {
        return read_alias(p, e, depth, ret);
    }
    TH_TRY(spend(p, 1, e->start_mark));
    switch (e->type) {
    case YAML_SCALAR_EVENT:
        return read_scalar(p, e, ret);
    case YAML_SEQUENCE_START_EVENT:
        return read_sequence(p, e, depth, ret);
    case YAML_MAPPING_START_EVENT:
        return read_mapping(p, e, depth, ret);
    default:
        return fail_at(p, e->start_mark, "unexpected end of document");
    }
}

static int read_documents(struct parse *p, struct th_json *docs)
{
    for (;;) {
        yaml_event_t e;
        TH_TRY(next_event(p, &e));
        yaml_event_type_t type = e.type;
        yaml_event_delete(&e);
        if (type == YAML_STREAM_END_EVENT) {
            return 0;
        }
        if (type != YAML_DOCUMENT_START_EVENT) {
            continue; /* the start of the stream, the end of a document */
        }
        struct built doc = {0};
        bool end = false;
        th_hmap_clear(&p->anchors); /* anchors do not reach into the next document */
        TH_TRY(read_next(p, YAML_NO_EVENT, 0, &doc, &end));
        if (doc.json) {
            th_json_append(docs, doc.json);
        }
    }
}

static int parse_yaml(const char *p, size_t n, struct th_strv *dups, struct th_strv *again,
                      struct th_json **ret_docs, struct th_err *err)
{
    struct parse s = {
        .nodes_left = TH_LIMIT_YAML_NODES, .dups = dups, .again = again, .err = err};
    TH_ASSERT(yaml_parser_initialize(&s.y));
    yaml_parser_set_encoding(&s.y, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&s.y, (const unsigned char *)p, n);
    th_hmap_init(&s.anchors, anchor_free);
    struct th_json *docs = th_json_array();
    int r = read_documents(&s, docs);
    th_hmap_done(&s.anchors);
    th_buf_done(&s.path);
    yaml_parser_delete(&s.y);
    if (r < 0) {
        th_json_unref(docs);
        return r;
    }
    *ret_docs = docs;
    return 0;
}

/* 1 when the text is JSON (then *ret has it), 0 when it should be read as YAML. */
static int try_json(const char *p, size_t n, struct th_strv *dups, struct th_json **ret)
{
    size_t i = 0;
    while (i < n && (p[i] == ' ' || p[i] == '\n' || p[i] == '\r' || p[i] == '\t')) {
        i++;
    }
    if (i == n || (p[i] != '{' && p[i] != '[')) {
        return 0;
    }
    return th_json_parse(p, n, dups, ret, NULL) == 0;
}

int th_yaml_parse(const char *p, size_t n, struct th_json **ret_docs, struct th_err *err)
{
    struct th_json *one = NULL;
    if (try_json(p, n, NULL, &one)) {
        *ret_docs = th_json_array();
        th_json_append(*ret_docs, one);
        return 0;
    }
    return parse_yaml(p, n, NULL, NULL, ret_docs, err);
}

int th_yaml_parse_one(const char *p, size_t n, struct th_strv *dups, struct th_json **ret,
                      struct th_err *err)
{
    if (try_json(p, n, dups, ret)) {
        return 0;
    }
    TH_AUTO(th_json) struct th_json *docs = NULL;
    TH_TRY(parse_yaml(p, n, dups, NULL, &docs, err));
    if (th_json_len(docs) != 1) {
        return th_fail(err, TH_R_PARSE, "expected one YAML document, found %zu", th_json_len(docs));
    }
    *ret = th_json_ref(th_json_at(docs, 0));
    return 0;
}

int th_yaml_check_unique(const char *p, size_t n, struct th_err *err)
{
    th_autostrv struct th_strv again = TH_STRV_INIT;
    TH_AUTO(th_json) struct th_json *docs = NULL;
    TH_TRY(parse_yaml(p, n, NULL, &again, &docs, err));
    if (again.n == 0) {
        return 0;
    }
    th_autofree char *all = th_strv_join(&again, "\n  ");
    return th_fail(err, TH_R_PARSE, "yaml: unmarshal errors:\n  %s", all);
}
