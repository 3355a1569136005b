/* Writing application/vnd.kubernetes.protobuf from JSON trees; protobuf.c reads it.
 *
 * The tree must be what th_schema_decode leaves; a member of another type is refused rather than
 * guessed at. Absent members are not written: Go's writers also send empty strings and zeros, but
 * every reader takes both alike.
 *
 * A nested message is written in place and moved up once its length is known, so there is one buffer
 * and no second pass. Maps are written sorted by key and lists in order: equal objects give equal
 * bytes. */
#include "base/encode.h"
#include "controlplane/schema/gotext.h"
#include "controlplane/schema/protobuf_priv.h"

static void put_varint(struct th_buf *b, uint64_t v)
{
    while (v >= 0x80) {
        th_buf_putc(b, (char)(v | 0x80));
        v >>= 7;
    }
    th_buf_putc(b, (char)v);
}

static void put_tag(struct th_buf *b, uint32_t number, enum th_pb_wire type)
{
    put_varint(b, (uint64_t)number << 3 | type);
}

static void put_bytes(struct th_buf *b, uint32_t number, const void *p, size_t n)
{
    put_tag(b, number, TH_PB_BYTES);
    put_varint(b, n);
    th_buf_add(b, p, n);
}

static void put_int(struct th_buf *b, uint32_t number, int64_t v)
{
    put_tag(b, number, TH_PB_VARINT);
    put_varint(b, (uint64_t)v);
}

/* Between begin and end lies a nested message. */
static size_t begin(struct th_buf *b, uint32_t number)
{
    put_tag(b, number, TH_PB_BYTES);
    return b->n;
}

static void end(struct th_buf *b, size_t start)
{
    char length[10];
    size_t body = b->n - start, n = 0;
    for (uint64_t v = body;; v >>= 7) {
        length[n++] = (char)(v >= 0x80 ? (v | 0x80) : v);
        if (v < 0x80) {
            break;
        }
    }
    th_buf_add(b, length, n); /* room, and overflow handling */
    if (!b->overflow) {
        memmove(b->p + start + n, b->p + start, body);
        memcpy(b->p + start, length, n);
    }
}

static int wrong(const struct th_field *f, struct th_err *err)
{
    return th_fail(err, TH_R_INTERNAL, "%s does not have the type of its field", f->name);
}

static int put_message(struct th_buf *b, const struct th_type *t, const struct th_json *o,
                       struct th_err *err);

static int put_special(struct th_buf *b, const struct th_field *f, const struct th_json *v,
                       struct th_err *err)
{
    const char *s = th_json_str(v);
    size_t n = th_json_str_len(v);
    int64_t sec;
    int32_t nsec;
    switch (f->type) {
    case TH_F_QUANTITY:
        if (!s) {
            return wrong(f, err);
        }
        put_bytes(b, 1, s, n);
        return 0;
    case TH_F_INTORSTR:
        put_int(b, 1, s != NULL);
        if (s) {
            put_bytes(b, 3, s, n);
        } else {
            put_int(b, 2, th_json_as_int(v, 0));
        }
        return 0;
    case TH_F_TIME:
    case TH_F_MICROTIME:
        if (!s) {
            return wrong(f, err);
        }
        if (th_go_time_parse(s, f->type == TH_F_MICROTIME, &sec, &nsec, err) < 0) {
            return -TH_R_INTERNAL;
        }
        put_int(b, 1, sec);
        put_int(b, 2, nsec);
        return 0;
    case TH_F_DURATION: {
        int64_t ns;
        if (!s || th_go_duration_parse(s, &ns, NULL) < 0) {
            return wrong(f, err);
        }
        put_int(b, 1, ns);
        return 0;
    }
    default: { /* raw JSON */
        th_autobuf struct th_buf text = TH_BUF_INIT;
        th_json_dump(v, &text);
        put_bytes(b, 1, th_buf_cstr(&text), text.n);
        return 0;
    }
    }
}

static int put_union(struct th_buf *b, const struct th_field *f, const struct th_json *v,
                     struct th_err *err)
{
    bool either_bool = f->type == TH_F_SCHEMA_OR_BOOL;
    if (either_bool) {
        put_int(b, 1, th_json_is(v, TH_JSON_OBJECT) || th_json_as_bool(v, false));
    }
    if (th_json_is(v, TH_JSON_OBJECT)) {
        size_t at = begin(b, either_bool ? 2 : 1);
        TH_TRY(put_message(b, f->sub, v, err));
        end(b, at);
        return 0;
    }
    for (size_t i = 0; th_json_is(v, TH_JSON_ARRAY) && i < th_json_len(v); i++) {
        const struct th_json *e = th_json_at(v, i);
        if (f->type == TH_F_SCHEMA_OR_LIST) {
            size_t at = begin(b, 2);
            TH_TRY(put_message(b, f->sub, e, err));
            end(b, at);
        } else {
            const char *s = th_json_str(e);
            put_bytes(b, 2, s ? s : "", th_json_str_len(e));
        }
    }
    return 0;
}

static int put_value(struct th_buf *b, const struct th_field *f, uint32_t number,
                     const struct th_json *v, struct th_err *err)
{
    const char *s = th_json_str(v);
    switch ((enum th_ftype)f->type) {
    case TH_F_STRING:
        if (!s) {
            return wrong(f, err);
        }
        put_bytes(b, number, s, th_json_str_len(v));
        return 0;
    case TH_F_BYTES: {
        th_autobuf struct th_buf raw = TH_BUF_INIT;
        if (!s || th_go_base64_decode(s, th_json_str_len(v), &raw, NULL) < 0) {
            return wrong(f, err);
        }
        put_bytes(b, number, th_buf_cstr(&raw), raw.n);
        return 0;
    }
    case TH_F_BOOL:
        put_int(b, number, th_json_as_bool(v, false));
        return 0;
    case TH_F_INT32:
    case TH_F_INT64:
        if (!th_json_is(v, TH_JSON_INT)) {
            return wrong(f, err);
        }
        put_int(b, number, th_json_as_int(v, 0));
        return 0;
    case TH_F_DOUBLE: {
        double d = th_json_as_double(v, 0);
        uint64_t bits;
        memcpy(&bits, &d, sizeof(bits));
        put_tag(b, number, TH_PB_FIXED64);
        for (int i = 0; i < 8; i++) {
            th_buf_putc(b, (char)(bits >> (8 * i)));
        }
        return 0;
    }
    default:
        break;
    }
    size_t at = begin(b, number);
    if (f->type == TH_F_STRUCT) {
        TH_TRY(put_message(b, f->sub, v, err));
    } else if (f->type >= TH_F_SCHEMA_OR_LIST) {
        TH_TRY(put_union(b, f, v, err));
    } else if (v) {
        TH_TRY(put_special(b, f, v, err));
    }
    end(b, at);
    return 0;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int put_map(struct th_buf *b, const struct th_field *f, const struct th_json *map,
                   struct th_err *err)
{
    size_t n = 0;
    th_autofree const char **names = th_xmalloc((th_json_len(map) + 1) * sizeof(*names));
    struct th_json_iter it = TH_JSON_ITER(map);
    while (th_json_next(&it)) {
        names[n++] = it.name;
    }
    qsort(names, n, sizeof(*names), by_text);
    for (size_t i = 0; i < n; i++) {
        const struct th_json *v = th_json_get(map, names[i]);
        size_t entry = begin(b, f->pb);
        put_bytes(b, 1, names[i], strlen(names[i]));
        if (f->shape == TH_SHAPE_MAP_LIST) {
            size_t list = begin(b, 2);
            for (size_t k = 0; k < th_json_len(v); k++) {
                TH_TRY(put_value(b, f, 1, th_json_at(v, k), err));
            }
            end(b, list);
        } else {
            TH_TRY(put_value(b, f, 2, v, err));
        }
        end(b, entry);
    }
    return 0;
}

static int put_field(struct th_buf *b, const struct th_field *f, const struct th_json *v,
                     struct th_err *err)
{
    if (f->shape == TH_SHAPE_ONE) {
        return put_value(b, f, f->pb, v, err);
    }
    if (f->shape != TH_SHAPE_LIST) {
        return th_json_is(v, TH_JSON_OBJECT) ? put_map(b, f, v, err) : wrong(f, err);
    }
    if (!th_json_is(v, TH_JSON_ARRAY)) {
        return wrong(f, err);
    }
    bool wrapped = f->flags & TH_FF_WRAPPED;
    size_t list = wrapped ? begin(b, f->pb) : 0;
    for (size_t k = 0; k < th_json_len(v); k++) {
        TH_TRY(put_value(b, f, wrapped ? 1 : f->pb, th_json_at(v, k), err));
    }
    if (wrapped) {
        end(b, list);
    }
    return 0;
}

/* The messages of inline structs that are open, outermost first. */
struct open_inline {
    uint8_t via[2];
    size_t at[2], n;
};

/* Closes what the next field is not in, opens what it is in. */
static void move_inline(struct th_buf *b, struct open_inline *in, const uint8_t via[2])
{
    size_t keep = 0;
    while (keep < in->n && via[keep] == in->via[keep]) {
        keep++;
    }
    while (in->n > keep) {
        end(b, in->at[--in->n]);
    }
    while (in->n < 2 && via[in->n]) {
        in->via[in->n] = via[in->n];
        in->at[in->n] = begin(b, via[in->n]);
        in->n++;
    }
}

static int put_message(struct th_buf *b, const struct th_type *t, const struct th_json *o,
                       struct th_err *err)
{
    static const uint8_t none[2] = {0, 0};
    struct open_inline in = {.n = 0};
    if (!th_json_is(o, TH_JSON_OBJECT)) {
        return th_fail(err, TH_R_INTERNAL, "a %s is not an object", t->name);
    }
    for (size_t i = 0; i < t->n_fields; i++) {
        const struct th_field *f = &t->fields[i];
        const struct th_json *v = f->pb ? th_json_get(o, f->name) : NULL;
        if (v) {
            move_inline(b, &in, f->pb_via);
            TH_TRY(put_field(b, f, v, err));
        }
    }
    move_inline(b, &in, none);
    return 0;
}

int th_pb_encode(const struct th_kind *k, const struct th_json *obj, struct th_buf *b,
                 struct th_err *err)
{
    th_buf_add(b, TH_PB_MAGIC, TH_PB_MAGIC_LEN);
    size_t meta = begin(b, 1);
    th_autofree char *api_version =
        *k->group ? th_xasprintf("%s/%s", k->group, k->version) : th_xstrdup(k->version);
    put_bytes(b, 1, api_version, strlen(api_version));
    put_bytes(b, 2, k->kind, strlen(k->kind));
    end(b, meta);
    size_t raw = begin(b, 2);
    TH_TRY(put_message(b, k->type, obj, err));
    end(b, raw);
    /* contentEncoding and contentType, empty as upstream writes them */
    put_bytes(b, 3, "", 0);
    put_bytes(b, 4, "", 0);
    return th_buf_check(b, err);
}

void th_pb_watch_frame(const char *event_type, struct th_str obj, struct th_buf *b)
{
    size_t at = b->n;
    th_buf_add(b, "\0\0\0\0", 4);
    put_bytes(b, 1, event_type, strlen(event_type));
    size_t ext = begin(b, 2);
    put_bytes(b, 1, obj.p, obj.n);
    end(b, ext);
    if (!b->overflow) {
        size_t n = b->n - at - 4;
        for (int i = 0; i < 4; i++) {
            b->p[at + (size_t)i] = (char)(n >> (24 - 8 * i));
        }
    }
}
