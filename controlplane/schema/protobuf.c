/* Reading application/vnd.kubernetes.protobuf into JSON trees.
 *
 * Typed clients send bodies in this form: the bytes "k8s\0", then a runtime.Unknown message that
 * names apiVersion and kind and holds the object's own message. The field tables carry protobuf
 * numbers, so one reader serves every type; nothing is generated per message.
 *
 * Design: a cursor over the bytes, one recursive function per nesting level. A message becomes an
 * object with the same members that decoding JSON would have left (th_schema_complete): Go's
 * protobuf writes empty strings and zeros that JSON leaves out. Fields without a number in the
 * tables, and numbers without a field, are skipped as every protobuf reader does.
 *
 * Limits: nesting as for JSON (TH_LIMIT_JSON_DEPTH); lengths are checked against what is left before
 * anything is allocated. Text must be UTF-8, which upstream does not check here but its JSON output
 * would garble.
 *
 * Special messages: Quantity {1 text}, IntOrString {1 kind, 2 int, 3 text}, Time and MicroTime
 * {1 seconds, 2 nanoseconds; empty is null}, Duration {1 nanoseconds}, RawExtension, FieldsV1 and
 * JSON {1 bytes, which are JSON or again an envelope}, lists as map values {1 items}. */
#include "base/encode.h"
#include "base/limits.h"
#include "controlplane/schema/gotext.h"
#include "controlplane/schema/protobuf_priv.h"
#include "controlplane/schema/schema_priv.h"

struct cursor {
    const unsigned char *p, *end;
    int depth;
    struct th_err *err;
};

struct wire {
    uint32_t number;
    unsigned type;
    uint64_t value;      /* varint, fixed32, fixed64 */
    struct cursor bytes; /* length-delimited */
};

static int short_data(const struct cursor *c)
{
    return th_fail(c->err, TH_R_BAD_REQUEST, "unexpected EOF");
}

static int read_varint(struct cursor *c, uint64_t *ret)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (c->p == c->end) {
            return short_data(c);
        }
        unsigned char byte = *c->p++;
        v |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *ret = v;
            return 0;
        }
    }
    return th_fail(c->err, TH_R_BAD_REQUEST, "proto: integer overflow");
}

static int read_fixed(struct cursor *c, unsigned n, uint64_t *ret)
{
    if ((size_t)(c->end - c->p) < n) {
        return short_data(c);
    }
    uint64_t v = 0;
    for (unsigned i = 0; i < n; i++) {
        v |= (uint64_t)c->p[i] << (8 * i);
    }
    c->p += n;
    *ret = v;
    return 0;
}

/* One field with its value; 0 at the end of the message, 1 when there was one. */
static int next_field(struct cursor *c, struct wire *w)
{
    if (c->p == c->end) {
        return 0;
    }
    uint64_t tag, n;
    TH_TRY(read_varint(c, &tag));
    w->number = (uint32_t)(tag >> 3);
    w->type = (unsigned)(tag & 7);
    if (tag >> 35 || w->number == 0) {
        return th_fail(c->err, TH_R_BAD_REQUEST, "proto: illegal tag %u (wire type %u)", w->number,
                       w->type);
    }
    switch (w->type) {
    case TH_PB_VARINT:
        TH_TRY(read_varint(c, &w->value));
        return 1;
    case TH_PB_FIXED64:
        TH_TRY(read_fixed(c, 8, &w->value));
        return 1;
    case TH_PB_FIXED32:
        TH_TRY(read_fixed(c, 4, &w->value));
        return 1;
    case TH_PB_BYTES:
        TH_TRY(read_varint(c, &n));
        if (n > (uint64_t)(c->end - c->p)) {
            return short_data(c);
        }
        w->bytes = (struct cursor){c->p, c->p + n, c->depth + 1, c->err};
        c->p += n;
        return 1;
    default:
        return th_fail(c->err, TH_R_BAD_REQUEST, "proto: illegal wireType %u", w->type);
    }
}

static int wrong_type(const struct cursor *c, const struct wire *w, const char *field)
{
    return th_fail(c->err, TH_R_BAD_REQUEST, "proto: wrong wireType = %u for field %s", w->type,
                   field);
}

static int need_bytes(const struct cursor *c, const struct wire *w, const char *field)
{
    return w->type == TH_PB_BYTES ? 0 : wrong_type(c, w, field);
}

static int read_text(const struct cursor *c, const struct wire *w, const char *field,
                     struct th_str *ret)
{
    TH_TRY(need_bytes(c, w, field));
    *ret = (struct th_str){(const char *)w->bytes.p, (size_t)(w->bytes.end - w->bytes.p)};
    if (!th_utf8_valid(ret->p, ret->n)) {
        return th_fail(c->err, TH_R_BAD_REQUEST, "proto: field %s contains invalid UTF-8", field);
    }
    return 0;
}

/* ---- Special messages: their fields 1 to 3, the last of each wins ---- */

struct small {
    uint64_t number[4];
    struct cursor bytes[4];
    bool has[4];
};

static int read_small(const struct wire *w, struct small *s)
{
    struct cursor c = w->bytes;
    struct wire f;
    int r;
    while ((r = next_field(&c, &f)) > 0) {
        if (f.number <= 3) {
            s->has[f.number] = true;
            if (f.type == TH_PB_BYTES) {
                s->bytes[f.number] = f.bytes;
            } else {
                s->number[f.number] = f.value;
            }
        }
    }
    return r;
}

static struct th_json *text_of(const struct cursor *c)
{
    size_t n = c->p ? (size_t)(c->end - c->p) : 0;
    return th_json_string_n(n ? (const char *)c->p : "", n);
}

static bool utf8(const struct cursor *c)
{
    return !c->p || th_utf8_valid(c->p, (size_t)(c->end - c->p));
}

static int read_raw(const struct cursor *c, const struct small *s, struct th_json **ret)
{
    const struct cursor *b = &s->bytes[1];
    size_t n = b->p ? (size_t)(b->end - b->p) : 0;
    if (n == 0) {
        *ret = NULL;
        return 0;
    }
    if (n >= TH_PB_MAGIC_LEN && memcmp(b->p, TH_PB_MAGIC, TH_PB_MAGIC_LEN) == 0) {
        if (c->depth > TH_LIMIT_JSON_DEPTH / 4) {
            return th_fail(c->err, TH_R_BAD_REQUEST, "proto: nested too deeply");
        }
        return th_pb_decode_at(b->p, n, NULL, NULL, ret, c->depth, c->err);
    }
    int r = th_json_parse((const char *)b->p, n, NULL, ret, c->err);
    return r < 0 ? -TH_R_BAD_REQUEST : 0;
}

static int read_special(const struct cursor *c, const struct th_field *f, const struct wire *w,
                        struct th_json **ret)
{
    struct small s = {0};
    char text[TH_GO_TIME_LEN];
    TH_TRY(need_bytes(c, w, f->name));
    TH_TRY(read_small(w, &s));
    if (!utf8(&s.bytes[1]) || !utf8(&s.bytes[3])) {
        return th_fail(c->err, TH_R_BAD_REQUEST, "proto: field %s contains invalid UTF-8", f->name);
    }
    switch (f->type) {
    case TH_F_QUANTITY:
        *ret = s.bytes[1].p && s.bytes[1].p != s.bytes[1].end ? text_of(&s.bytes[1])
                                                              : th_json_string("0");
        return 0;
    case TH_F_INTORSTR:
        *ret = s.number[1] == 1 ? text_of(&s.bytes[3]) : th_json_int((int32_t)s.number[2]);
        return 0;
    case TH_F_TIME:
    case TH_F_MICROTIME: {
        int64_t sec = (int64_t)s.number[1];
        bool zero = !s.has[1] && !s.has[2];
        if (zero || sec == TH_GO_ZERO_TIME_S) {
            *ret = NULL;
            return 0;
        }
        if (sec < TH_GO_ZERO_TIME_S || sec > 253402300799ll) {
            return th_fail(c->err, TH_R_BAD_REQUEST, "proto: field %s: time out of range", f->name);
        }
        *ret = th_json_string(
            th_go_time_format(sec, (int32_t)(s.number[2] % 1000000000u),
                              f->type == TH_F_MICROTIME, text));
        return 0;
    }
    case TH_F_DURATION:
        *ret = th_json_string(th_go_duration_format((int64_t)s.number[1], text));
        return 0;
    default:
        return read_raw(c, &s, ret);
    }
}

/* ---- Messages ---- */

static int read_message(struct cursor c, const struct th_type *t, struct th_json *obj);

static int read_struct(const struct cursor *c, const struct th_field *f, const struct wire *w,
                       struct th_json **ret)
{
    TH_TRY(need_bytes(c, w, f->name));
    TH_AUTO(th_json) struct th_json *o = th_json_object();
    TH_TRY(read_message(w->bytes, f->sub, o));
    *ret = th_steal(&o);
    return 0;
}

/* JSONSchemaProps' unions: {1 schema, 2 more} or, for booleans, {1 allows, 2 schema}. */
static int read_union(const struct cursor *c, const struct th_field *f, const struct wire *w,
                      struct th_json **ret)
{
    TH_TRY(need_bytes(c, w, f->name));
    uint32_t schema = f->type == TH_F_SCHEMA_OR_BOOL ? 2 : 1;
    struct cursor in = w->bytes;
    struct wire u;
    TH_AUTO(th_json) struct th_json *one = NULL, *many = NULL;
    bool allows = false;
    int r;
    while ((r = next_field(&in, &u)) > 0) {
        struct th_json *v = NULL;
        struct th_str text;
        if (u.number == schema) {
            TH_TRY(read_struct(&in, f, &u, &v));
            th_json_unref(one);
            one = v;
        } else if (u.number == 1) {
            allows = u.value != 0;
        } else if (u.number == 2) {
            if (f->type == TH_F_SCHEMA_OR_LIST) {
                TH_TRY(read_struct(&in, f, &u, &v));
            } else {
                TH_TRY(read_text(&in, &u, f->name, &text));
                v = th_json_string_n(text.p, text.n);
            }
            if (!many) {
                many = th_json_array();
            }
            th_json_append(many, v);
        }
    }
    TH_TRY(r);
    *ret = many  ? th_steal(&many)
           : one ? th_steal(&one)
                 : f->type == TH_F_SCHEMA_OR_BOOL ? th_json_bool(allows) : NULL;
    return 0;
}

static int read_value(const struct cursor *c, const struct th_field *f, const struct wire *w,
                      struct th_json **ret)
{
    struct th_str text;
    switch ((enum th_ftype)f->type) {
    case TH_F_STRING:
        TH_TRY(read_text(c, w, f->name, &text));
        *ret = th_json_string_n(text.n ? text.p : "", text.n);
        return 0;
    case TH_F_BYTES: {
        TH_TRY(need_bytes(c, w, f->name));
        th_autobuf struct th_buf b = TH_BUF_INIT;
        th_b64_encode(w->bytes.p, (size_t)(w->bytes.end - w->bytes.p), &b);
        *ret = th_json_string(th_buf_cstr(&b));
        return 0;
    }
    case TH_F_BOOL:
    case TH_F_INT32:
    case TH_F_INT64:
        if (w->type != TH_PB_VARINT) {
            return wrong_type(c, w, f->name);
        }
        *ret = f->type == TH_F_BOOL    ? th_json_bool(w->value != 0)
               : f->type == TH_F_INT32 ? th_json_int((int32_t)w->value)
                                       : th_json_int((int64_t)w->value);
        return 0;
    case TH_F_DOUBLE: {
        double d;
        if (w->type != TH_PB_FIXED64) {
            return wrong_type(c, w, f->name);
        }
        memcpy(&d, &w->value, sizeof(d));
        *ret = th_json_double(d);
        return *ret ? 0 : th_fail(c->err, TH_R_BAD_REQUEST, "json: unsupported value: %g", d);
    }
    case TH_F_QUANTITY:
    case TH_F_INTORSTR:
    case TH_F_TIME:
    case TH_F_MICROTIME:
    case TH_F_DURATION:
    case TH_F_RAW:
        return read_special(c, f, w, ret);
    case TH_F_STRUCT:
        return read_struct(c, f, w, ret);
    case TH_F_SCHEMA_OR_LIST:
    case TH_F_SCHEMA_OR_BOOL:
    case TH_F_SCHEMA_OR_STRINGS:
        return read_union(c, f, w, ret);
    }
    return 0;
}

/* {1: items}: a list that is a message of its own. */
static int read_items(struct cursor c, const struct th_field *f, struct th_json *list)
{
    struct wire e;
    int r;
    while ((r = next_field(&c, &e)) > 0) {
        struct th_json *one = NULL;
        if (e.number == 1) {
            TH_TRY(read_value(&c, f, &e, &one));
            th_json_append(list, one);
        }
    }
    return r;
}

static int read_map_entry(const struct cursor *c, const struct th_field *f, const struct wire *w,
                          struct th_json *map)
{
    TH_TRY(need_bytes(c, w, f->name));
    struct cursor in = w->bytes;
    struct wire e, value = {.type = TH_PB_BYTES, .bytes = {in.end, in.end, in.depth, in.err}};
    struct th_str key = {"", 0};
    int r;
    while ((r = next_field(&in, &e)) > 0) {
        if (e.number == 1) {
            TH_TRY(read_text(&in, &e, f->name, &key));
        } else if (e.number == 2) {
            value = e;
        }
    }
    TH_TRY(r);
    if (memchr(key.p, '\0', key.n)) {
        return th_fail(c->err, TH_R_BAD_REQUEST, "proto: a key of %s contains NUL", f->name);
    }
    TH_AUTO(th_json) struct th_json *v = NULL;
    if (f->shape == TH_SHAPE_MAP_LIST) {
        TH_TRY(need_bytes(&in, &value, f->name));
        v = th_json_array();
        TH_TRY(read_items(value.bytes, f, v));
    } else {
        TH_TRY(read_value(&in, f, &value, &v));
    }
    th_autofree char *name = th_xstrndup(key.p, key.n);
    th_json_set(map, name, th_steal(&v));
    return 0;
}

/* Repeated numbers may come packed: one length-delimited run. */
static int read_packed(const struct cursor *c, const struct th_field *f, const struct wire *w,
                       struct th_json *list)
{
    struct cursor in = w->bytes;
    while (in.p < in.end) {
        struct wire one = {.type = f->type == TH_F_DOUBLE ? TH_PB_FIXED64 : TH_PB_VARINT};
        TH_TRY(one.type == TH_PB_VARINT ? read_varint(&in, &one.value)
                                        : read_fixed(&in, 8, &one.value));
        struct th_json *v = NULL;
        TH_TRY(read_value(c, f, &one, &v));
        th_json_append(list, v);
    }
    return 0;
}

static bool is_number(const struct th_field *f)
{
    return f->type == TH_F_BOOL || f->type == TH_F_INT32 || f->type == TH_F_INT64 ||
           f->type == TH_F_DOUBLE;
}

static int read_field(const struct cursor *c, const struct th_field *f, const struct wire *w,
                      struct th_json *obj)
{
    if (f->shape == TH_SHAPE_ONE) {
        struct th_json *v = NULL;
        TH_TRY(read_value(c, f, w, &v));
        th_json_set(obj, f->name, v);
        return 0;
    }
    struct th_json *have = th_json_get(obj, f->name);
    if (!have) {
        have = f->shape == TH_SHAPE_LIST ? th_json_array() : th_json_object();
        th_json_set(obj, f->name, have);
    }
    if (f->shape != TH_SHAPE_LIST) {
        return read_map_entry(c, f, w, have);
    }
    if (f->flags & TH_FF_WRAPPED) {
        TH_TRY(need_bytes(c, w, f->name));
        return read_items(w->bytes, f, have);
    }
    if (is_number(f) && w->type == TH_PB_BYTES) {
        return read_packed(c, f, w, have);
    }
    struct th_json *v = NULL;
    TH_TRY(read_value(c, f, w, &v));
    th_json_append(have, v);
    return 0;
}

/* How many messages of JSON's inline structs lie around a field. */
static size_t via_depth(const struct th_field *f)
{
    return f->pb_via[0] == 0 ? 0 : f->pb_via[1] == 0 ? 1 : 2;
}

/* `via` are the inline structs' messages that were entered so far. */
static int read_inline(struct cursor c, const struct th_type *t, struct th_json *obj,
                       const uint8_t via[2], size_t depth)
{
    struct wire w;
    size_t hint = 0; /* writers go through the fields in order */
    int r;
    while ((r = next_field(&c, &w)) > 0) {
        for (size_t i = 0; i < t->n_fields; i++, hint++) {
            if (hint >= t->n_fields) {
                hint = 0;
            }
            const struct th_field *f = &t->fields[hint];
            size_t d = via_depth(f);
            if (f->pb == 0 || d < depth || memcmp(f->pb_via, via, depth) != 0) {
                continue;
            }
            if (d == depth && f->pb == w.number) {
                TH_TRY(read_field(&c, f, &w, obj));
                break;
            }
            if (d > depth && f->pb_via[depth] == w.number) {
                TH_TRY(need_bytes(&c, &w, f->name));
                TH_TRY(read_inline(w.bytes, t, obj, f->pb_via, depth + 1));
                break;
            }
        }
    }
    return r;
}

static int read_message(struct cursor c, const struct th_type *t, struct th_json *obj)
{
    if (c.depth > TH_LIMIT_JSON_DEPTH) {
        return th_fail(c.err, TH_R_BAD_REQUEST, "proto: nested too deeply");
    }
    static const uint8_t none[2] = {0, 0};
    TH_TRY(read_inline(c, t, obj, none, 0));
    th_schema_complete(t, obj);
    return 0;
}

/* ---- The envelope ---- */

struct envelope {
    struct th_str api_version, kind, encoding;
    struct cursor raw;
};

static int read_envelope(struct cursor c, struct envelope *e)
{
    struct wire w;
    int r;
    while ((r = next_field(&c, &w)) > 0) {
        if (w.type != TH_PB_BYTES) {
            continue;
        }
        if (w.number == 1) {
            struct small s = {0};
            TH_TRY(read_small(&w, &s));
            for (int i = 1; i <= 2; i++) {
                struct th_str *to = i == 1 ? &e->api_version : &e->kind;
                *to = (struct th_str){(const char *)s.bytes[i].p,
                                      s.bytes[i].p ? (size_t)(s.bytes[i].end - s.bytes[i].p) : 0};
            }
        } else if (w.number == 2) {
            e->raw = w.bytes;
        } else if (w.number == 3) {
            e->encoding = (struct th_str){(const char *)w.bytes.p,
                                          (size_t)(w.bytes.end - w.bytes.p)};
        }
    }
    return r;
}

static int find_kind(const struct envelope *e, const struct th_kind **ret, struct th_err *err)
{
    th_autofree char *api_version = th_xstrndup(e->api_version.n ? e->api_version.p : "",
                                                e->api_version.n);
    th_autofree char *kind = th_xstrndup(e->kind.n ? e->kind.p : "", e->kind.n);
    th_autofree char *group = NULL, *version = NULL;
    if (!*kind) {
        return *ret ? 0 : th_fail(err, TH_R_BAD_REQUEST, "Object 'Kind' is missing in protobuf");
    }
    if (!*api_version && *ret) {
        *ret = th_kind_find((*ret)->group, (*ret)->version, kind);
    } else {
        TH_TRY(th_gv_split(api_version, &group, &version, err));
        *ret = th_kind_find(group, version, kind);
    }
    if (!*ret) {
        return th_fail(err, TH_R_BAD_REQUEST, "no kind \"%s\" is registered for version \"%s\"",
                       kind, api_version);
    }
    return 0;
}

int th_pb_decode_at(const void *p, size_t n, const struct th_kind *k,
                    const struct th_kind **ret_kind, struct th_json **ret, int depth,
                    struct th_err *err)
{
    struct cursor c = {p, (const unsigned char *)p + n, depth + 1, err};
    if (n >= TH_PB_MAGIC_LEN && memcmp(p, TH_PB_MAGIC, TH_PB_MAGIC_LEN) == 0) {
        struct envelope e = {.raw = {c.end, c.end, c.depth, err}};
        c.p += TH_PB_MAGIC_LEN;
        TH_TRY(read_envelope(c, &e));
        if (e.encoding.n) {
            return th_fail(err, TH_R_BAD_REQUEST, "protobuf content encoding is not supported");
        }
        TH_TRY(find_kind(&e, &k, err));
        c = e.raw;
    } else if (!k) {
        return th_fail(err, TH_R_BAD_REQUEST,
                       "provided data does not appear to be a protobuf message, expected prefix "
                       "[107 56 115 0]");
    }
    TH_AUTO(th_json) struct th_json *obj = th_json_object();
    th_json_set_str(obj, "kind", k->kind);
    th_json_set(obj, "apiVersion",
                *k->group ? th_json_stringf("%s/%s", k->group, k->version)
                          : th_json_string(k->version));
    TH_TRY(read_message(c, k->type, obj));
    if (ret_kind) {
        *ret_kind = k;
    }
    *ret = th_steal(&obj);
    return 0;
}

int th_pb_decode(const void *p, size_t n, const struct th_kind *k, const struct th_kind **ret_kind,
                 struct th_json **ret, struct th_err *err)
{
    return th_pb_decode_at(p, n, k, ret_kind, ret, 0, err);
}
