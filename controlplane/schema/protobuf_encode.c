/* Writing application/vnd.kubernetes.protobuf from JSON text; protobuf.c reads it.
 *
 * Problem: stored objects are JSON bytes, and typed Go clients prefer protobuf. Parsing a tree for
 * each object of a list would cost many times the encoding itself.
 *
 * Design: one pass over the text, guided by the type's table: a member's name finds its field (in
 * canonical text it is nearly always the next one of the table), the value is written at once. A
 * nested message is written in place and moved up once its length is known, so there is one buffer
 * and no second pass. A tree is dumped first and goes the same way.
 *
 * The text must be what th_schema_decode leaves or th_json_dump writes; a member of another type is
 * refused rather than guessed at, one that the table does not know is left out. Absent members are
 * not written: Go's writers also send empty strings and zeros, but every reader takes both alike.
 * Members, map entries and elements keep the order of the text: equal texts give equal bytes. */
#include "base/encode.h"
#include "base/limits.h"
#include "controlplane/schema/gotext.h"
#include "controlplane/schema/protobuf_priv.h"

struct enc {
    struct th_buf *b;
    const char *p, *end;
    struct th_buf scratch; /* a string with escapes, undone */
    struct th_err *err;
    int depth;
};

static size_t varint(char out[10], uint64_t v)
{
    size_t n = 0;
    for (; v >= 0x80; v >>= 7) {
        out[n++] = (char)(v | 0x80);
    }
    out[n++] = (char)v;
    return n;
}

static void put_head(struct th_buf *b, uint32_t number, enum th_pb_wire type, uint64_t v)
{
    char text[20];
    size_t n = varint(text, (uint64_t)number << 3 | type);
    n += varint(text + n, v);
    th_buf_add(b, text, n);
}

static void put_bytes(struct th_buf *b, uint32_t number, const void *p, size_t n)
{
    put_head(b, number, TH_PB_BYTES, n);
    th_buf_add(b, p, n);
}

static void put_int(struct th_buf *b, uint32_t number, int64_t v)
{
    put_head(b, number, TH_PB_VARINT, (uint64_t)v);
}

/* Between begin and end lies a nested message. */
static size_t begin(struct th_buf *b, uint32_t number)
{
    char tag[10];
    th_buf_add(b, tag, varint(tag, (uint64_t)number << 3 | TH_PB_BYTES));
    return b->n;
}

static void end(struct th_buf *b, size_t start)
{
    char length[10];
    size_t body = b->n - start;
    size_t n = varint(length, body);
    th_buf_add(b, length, n); /* room, and overflow handling */
    if (!b->overflow) {
        memmove(b->p + start + n, b->p + start, body);
        memcpy(b->p + start, length, n);
    }
}

/* ---- reading the text ---- */

static int malformed(struct enc *e)
{
    return th_fail(e->err, TH_R_INTERNAL, "the object's text is not JSON");
}

static int wrong(struct enc *e, const struct th_field *f)
{
    return th_fail(e->err, TH_R_INTERNAL, "%s does not have the type of its field", f->name);
}

static char peek(struct enc *e)
{
    while (e->p < e->end && (*e->p == ' ' || *e->p == '\n' || *e->p == '\t' || *e->p == '\r')) {
        e->p++;
    }
    return e->p < e->end ? *e->p : '\0';
}

/* Inside of brackets: 1 when another element or member comes, 0 behind the closing one. */
static int more(struct enc *e, char close, bool *first)
{
    char c = peek(e);
    if (c == close) {
        e->p++;
        return 0;
    }
    if (!*first) {
        if (c != ',') {
            return malformed(e);
        }
        e->p++;
        c = peek(e);
    }
    *first = false;
    return c && c != close ? 1 : malformed(e);
}

static int hex4(struct enc *e, uint32_t *ret)
{
    uint32_t v = 0;
    if (e->end - e->p < 4) {
        return malformed(e);
    }
    for (int i = 0; i < 4; i++) {
        char c = *e->p++;
        int d = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
        if (d < 0) {
            return malformed(e);
        }
        v = v << 4 | (uint32_t)d;
    }
    *ret = v;
    return 0;
}

static void put_utf8(struct th_buf *b, uint32_t c)
{
    char t[4];
    size_t n = 0;
    if (c < 0x80) {
        t[n++] = (char)c;
    } else if (c < 0x800) {
        t[n++] = (char)(0xc0 | c >> 6);
        t[n++] = (char)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        t[n++] = (char)(0xe0 | c >> 12);
        t[n++] = (char)(0x80 | (c >> 6 & 0x3f));
        t[n++] = (char)(0x80 | (c & 0x3f));
    } else {
        t[n++] = (char)(0xf0 | c >> 18);
        t[n++] = (char)(0x80 | (c >> 12 & 0x3f));
        t[n++] = (char)(0x80 | (c >> 6 & 0x3f));
        t[n++] = (char)(0x80 | (c & 0x3f));
    }
    th_buf_add(b, t, n);
}

/* p is behind a backslash. */
static int escape(struct enc *e)
{
    static const char from[] = "\"\\/bfnrt";
    static const char to[] = "\"\\/\b\f\n\r\t";
    char c = e->p < e->end ? *e->p++ : '\0';
    const char *at = c ? strchr(from, c) : NULL;
    if (at) {
        th_buf_putc(&e->scratch, to[at - from]);
        return 0;
    }
    uint32_t v, low;
    if (c != 'u') {
        return malformed(e);
    }
    TH_TRY(hex4(e, &v));
    if (v >= 0xd800 && v < 0xdc00 && e->end - e->p >= 6 && e->p[0] == '\\' && e->p[1] == 'u') {
        e->p += 2;
        TH_TRY(hex4(e, &low));
        v = 0x10000 + ((v - 0xd800) << 10) + ((low - 0xdc00) & 0x3ff);
    }
    put_utf8(&e->scratch, v);
    return 0;
}

/* A string; the result points into the text or into scratch. */
static int string(struct enc *e, struct th_str *ret)
{
    if (peek(e) != '"') {
        return malformed(e);
    }
    const char *from = ++e->p;
    const char *quote = memchr(from, '"', (size_t)(e->end - from));
    if (!quote) {
        return malformed(e);
    }
    if (!memchr(from, '\\', (size_t)(quote - from))) {
        *ret = (struct th_str){from, (size_t)(quote - from)};
        e->p = quote + 1;
        return 0;
    }
    th_buf_clear(&e->scratch);
    while (e->p < e->end && *e->p != '"') {
        if (*e->p == '\\') {
            e->p++;
            TH_TRY(escape(e));
        } else {
            th_buf_putc(&e->scratch, *e->p++);
        }
    }
    if (e->p == e->end) {
        return malformed(e);
    }
    e->p++;
    *ret = th_buf_str(&e->scratch);
    return 0;
}

static int skip_string(struct enc *e)
{
    for (e->p++; e->p < e->end && *e->p != '"'; e->p++) {
        if (*e->p == '\\') {
            e->p++;
        }
    }
    if (e->p >= e->end) {
        return malformed(e);
    }
    e->p++;
    return 0;
}

/* Any value; ret gets its text. */
static int skip(struct enc *e, struct th_str *ret)
{
    size_t depth = 0;
    (void)peek(e);
    const char *from = e->p;
    do {
        char c = e->p < e->end ? *e->p : '\0';
        if (c == '"') {
            TH_TRY(skip_string(e));
        } else if (c == '{' || c == '[') {
            depth++;
            e->p++;
        } else if (c == '}' || c == ']') {
            if (depth == 0) {
                return malformed(e);
            }
            depth--;
            e->p++;
        } else if (c == '\0') {
            return malformed(e);
        } else if (depth > 0) {
            e->p++;
        } else {
            while (e->p < e->end && *e->p != ',' && *e->p != '}' && *e->p != ']') {
                e->p++;
            }
        }
    } while (depth > 0);
    *ret = (struct th_str){from, (size_t)(e->p - from)};
    return 0;
}

static bool is_null(struct enc *e)
{
    if (peek(e) == 'n' && e->end - e->p >= 4) {
        e->p += 4;
        return true;
    }
    return false;
}

static int boolean(struct enc *e, const struct th_field *f, bool *ret)
{
    struct th_str v;
    TH_TRY(skip(e, &v));
    *ret = v.n > 0 && v.p[0] == 't';
    return v.n > 0 && (v.p[0] == 't' || v.p[0] == 'f') ? 0 : wrong(e, f);
}

/* A number as text that ends in NUL. */
static int number(struct enc *e, const struct th_field *f, char out[64])
{
    struct th_str v;
    TH_TRY(skip(e, &v));
    if (v.n == 0 || v.n > 63 || !strchr("-0123456789", v.p[0])) {
        return wrong(e, f);
    }
    memcpy(out, v.p, v.n);
    out[v.n] = '\0';
    return 0;
}

static int integer(struct enc *e, const struct th_field *f, int64_t *ret)
{
    char text[64];
    char *stop = NULL;
    TH_TRY(number(e, f, text));
    *ret = strtoll(text, &stop, 10);
    return *stop == '\0' || *stop == ' ' ? 0 : wrong(e, f);
}

/* ---- values ---- */

static int message(struct enc *e, const struct th_type *t);

static int text_of(struct enc *e, const struct th_field *f, char out[64])
{
    struct th_str s;
    if (peek(e) != '"') {
        return wrong(e, f);
    }
    TH_TRY(string(e, &s));
    if (s.n > 63) {
        return wrong(e, f);
    }
    memcpy(out, s.p, s.n);
    out[s.n] = '\0';
    return 0;
}

static int special(struct enc *e, const struct th_field *f)
{
    char text[64];
    struct th_str s;
    int64_t v;
    int32_t nsec;
    switch (f->type) {
    case TH_F_QUANTITY:
        if (peek(e) != '"') {
            return wrong(e, f);
        }
        TH_TRY(string(e, &s));
        put_bytes(e->b, 1, s.p, s.n);
        return 0;
    case TH_F_INTORSTR:
        if (peek(e) == '"') {
            TH_TRY(string(e, &s));
            put_int(e->b, 1, 1);
            put_bytes(e->b, 3, s.p, s.n);
        } else {
            TH_TRY(integer(e, f, &v));
            put_int(e->b, 1, 0);
            put_int(e->b, 2, v);
        }
        return 0;
    case TH_F_TIME:
    case TH_F_MICROTIME:
        TH_TRY(text_of(e, f, text));
        if (th_go_time_parse(text, f->type == TH_F_MICROTIME, &v, &nsec, e->err) < 0) {
            return -TH_R_INTERNAL;
        }
        put_int(e->b, 1, v);
        put_int(e->b, 2, nsec);
        return 0;
    case TH_F_DURATION:
        TH_TRY(text_of(e, f, text));
        if (th_go_duration_parse(text, &v, NULL) < 0) {
            return wrong(e, f);
        }
        put_int(e->b, 1, v);
        return 0;
    default: /* raw JSON */
        TH_TRY(skip(e, &s));
        put_bytes(e->b, 1, s.p, s.n);
        return 0;
    }
}

static int either(struct enc *e, const struct th_field *f)
{
    bool with_bool = f->type == TH_F_SCHEMA_OR_BOOL;
    char c = peek(e);
    if (c == '{') {
        if (with_bool) {
            put_int(e->b, 1, 1);
        }
        size_t at = begin(e->b, with_bool ? 2 : 1);
        TH_TRY(message(e, f->sub));
        end(e->b, at);
        return 0;
    }
    if (c != '[') {
        bool v;
        TH_TRY(boolean(e, f, &v));
        put_int(e->b, 1, v);
        return 0;
    }
    e->p++;
    bool first = true;
    int r;
    while ((r = more(e, ']', &first)) > 0) {
        if (f->type == TH_F_SCHEMA_OR_LIST) {
            size_t at = begin(e->b, 2);
            TH_TRY(message(e, f->sub));
            end(e->b, at);
        } else {
            struct th_str s;
            TH_TRY(string(e, &s));
            put_bytes(e->b, 2, s.p, s.n);
        }
    }
    return r;
}

static int base64(struct enc *e, const struct th_field *f, uint32_t number)
{
    struct th_str s;
    th_autobuf struct th_buf raw = TH_BUF_INIT;
    TH_TRY(string(e, &s));
    if (th_go_base64_decode(s.p, s.n, &raw, NULL) < 0) {
        return wrong(e, f);
    }
    put_bytes(e->b, number, th_buf_cstr(&raw), raw.n);
    return 0;
}

static int floating(struct enc *e, const struct th_field *f, uint32_t field)
{
    char text[64];
    TH_TRY(number(e, f, text));
    double d = strtod(text, NULL);
    uint64_t bits;
    memcpy(&bits, &d, sizeof(bits));
    char out[20];
    size_t n = varint(out, (uint64_t)field << 3 | TH_PB_FIXED64);
    for (int i = 0; i < 8; i++) {
        out[n++] = (char)(bits >> (8 * i));
    }
    th_buf_add(e->b, out, n);
    return 0;
}

static int value(struct enc *e, const struct th_field *f, uint32_t number)
{
    struct th_str s;
    int64_t v;
    bool yes;
    switch ((enum th_ftype)f->type) {
    case TH_F_STRING:
        if (peek(e) != '"') {
            return wrong(e, f);
        }
        TH_TRY(string(e, &s));
        put_bytes(e->b, number, s.p, s.n);
        return 0;
    case TH_F_BYTES:
        return peek(e) == '"' ? base64(e, f, number) : wrong(e, f);
    case TH_F_BOOL:
        TH_TRY(boolean(e, f, &yes));
        put_int(e->b, number, yes);
        return 0;
    case TH_F_INT32:
    case TH_F_INT64:
        TH_TRY(integer(e, f, &v));
        put_int(e->b, number, v);
        return 0;
    case TH_F_DOUBLE:
        return floating(e, f, number);
    default:
        break;
    }
    size_t at = begin(e->b, number);
    if (f->type == TH_F_STRUCT) {
        TH_TRY(message(e, f->sub));
    } else if (f->type >= TH_F_SCHEMA_OR_LIST) {
        TH_TRY(either(e, f));
    } else if (f->type == TH_F_RAW || !is_null(e)) {
        TH_TRY(special(e, f));
    }
    end(e->b, at);
    return 0;
}

static int list(struct enc *e, const struct th_field *f, uint32_t number)
{
    if (peek(e) != '[') {
        return wrong(e, f);
    }
    e->p++;
    bool first = true;
    int r;
    while ((r = more(e, ']', &first)) > 0) {
        TH_TRY(value(e, f, number));
    }
    return r;
}

static int map(struct enc *e, const struct th_field *f)
{
    if (peek(e) != '{') {
        return wrong(e, f);
    }
    e->p++;
    bool first = true;
    int r;
    while ((r = more(e, '}', &first)) > 0) {
        size_t entry = begin(e->b, f->pb);
        struct th_str name;
        TH_TRY(string(e, &name));
        put_bytes(e->b, 1, name.p, name.n);
        if (peek(e) != ':') {
            return malformed(e);
        }
        e->p++;
        if (f->shape == TH_SHAPE_MAP_LIST) {
            size_t at = begin(e->b, 2);
            TH_TRY(list(e, f, 1));
            end(e->b, at);
        } else {
            TH_TRY(value(e, f, 2));
        }
        end(e->b, entry);
    }
    return r;
}

static int field(struct enc *e, const struct th_field *f)
{
    if (f->shape == TH_SHAPE_ONE) {
        return value(e, f, f->pb);
    }
    if (f->shape != TH_SHAPE_LIST) {
        return map(e, f);
    }
    if (!(f->flags & TH_FF_WRAPPED)) {
        return list(e, f, f->pb);
    }
    size_t at = begin(e->b, f->pb);
    TH_TRY(list(e, f, 1));
    end(e->b, at);
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

/* In canonical text the fields come in the table's order. */
static const struct th_field *find(const struct th_type *t, struct th_str name, size_t *next)
{
    for (size_t i = *next; i < t->n_fields && i < *next + 4; i++) {
        const char *have = t->fields[i].name;
        if (strncmp(have, name.p, name.n) == 0 && have[name.n] == '\0') {
            *next = i + 1;
            return &t->fields[i];
        }
    }
    char text[128];
    if (name.n >= sizeof(text)) {
        return NULL;
    }
    memcpy(text, name.p, name.n);
    text[name.n] = '\0';
    const struct th_field *f = th_type_field(t, text);
    *next = f ? (size_t)(f - t->fields) + 1 : *next;
    return f;
}

static int message(struct enc *e, const struct th_type *t)
{
    static const uint8_t none[2] = {0, 0};
    struct open_inline in = {.n = 0};
    if (peek(e) != '{') {
        return th_fail(e->err, TH_R_INTERNAL, "a %s is not an object", t->name);
    }
    if (++e->depth > TH_LIMIT_JSON_DEPTH) {
        return malformed(e);
    }
    e->p++;
    size_t next = 0;
    bool first = true;
    int r;
    while ((r = more(e, '}', &first)) > 0) {
        struct th_str name;
        TH_TRY(string(e, &name));
        if (peek(e) != ':') {
            return malformed(e);
        }
        e->p++;
        const struct th_field *f = find(t, name, &next);
        bool raw = f && f->type == TH_F_RAW && f->shape == TH_SHAPE_ONE;
        if (!f || !f->pb) {
            struct th_str ignored;
            TH_TRY(skip(e, &ignored));
        } else if (raw || !is_null(e)) {
            move_inline(e->b, &in, f->pb_via);
            TH_TRY(field(e, f));
        }
    }
    move_inline(e->b, &in, none);
    e->depth--;
    return r;
}

/* ---- the outside ---- */

int th_pb_message(const struct th_type *t, struct th_str json, struct th_buf *b, struct th_err *err)
{
    struct enc e = {.b = b, .p = json.p, .end = json.p + json.n, .err = err};
    int r = message(&e, t);
    if (r >= 0 && peek(&e) != '\0') {
        r = malformed(&e);
    }
    th_buf_done(&e.scratch);
    return r;
}

size_t th_pb_begin(struct th_buf *b, uint32_t number)
{
    return begin(b, number);
}

void th_pb_end(struct th_buf *b, size_t at)
{
    end(b, at);
}

size_t th_pb_envelope(struct th_buf *b, const char *api_version, const char *kind)
{
    th_buf_add(b, TH_PB_MAGIC, TH_PB_MAGIC_LEN);
    size_t meta = begin(b, 1);
    put_bytes(b, 1, api_version, strlen(api_version));
    put_bytes(b, 2, kind, strlen(kind));
    end(b, meta);
    return begin(b, 2);
}

int th_pb_envelope_end(struct th_buf *b, size_t at, struct th_err *err)
{
    end(b, at);
    /* contentEncoding and contentType, empty as upstream writes them */
    put_bytes(b, 3, "", 0);
    put_bytes(b, 4, "", 0);
    return th_buf_check(b, err);
}

int th_pb_encode_text(const struct th_kind *k, struct th_str json, struct th_buf *b,
                      struct th_err *err)
{
    char gv[256];
    (void)snprintf(gv, sizeof(gv), "%s%s%s", k->group, *k->group ? "/" : "", k->version);
    size_t raw = th_pb_envelope(b, gv, k->kind);
    TH_TRY(th_pb_message(k->type, json, b, err));
    return th_pb_envelope_end(b, raw, err);
}

int th_pb_encode(const struct th_kind *k, const struct th_json *obj, struct th_buf *b,
                 struct th_err *err)
{
    th_autobuf struct th_buf text = TH_BUF_INIT;
    th_json_dump(obj, &text);
    return th_pb_encode_text(k, th_buf_str(&text), b, err);
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
