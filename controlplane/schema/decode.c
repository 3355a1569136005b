/* Decoding: from any JSON to what upstream's server would hold, in place.
 *
 * Upstream decodes into Go structs and writes them out again; that round trip decides which values
 * are refused, which members vanish, and which appear although nobody sent them. This file does the
 * same over the tables, in two steps per struct:
 *
 *  1. check_*: every member against its field, in the order sent. Unknown members are removed and
 *     noted. Times, quantities, durations, bytes take their canonical text.
 *  2. complete: what Go's encoder does with zero values. `omitempty` drops false, 0, "", [] and {}
 *     (unless a pointer); a struct without `omitzero` is always there ("status": {}), and so is a
 *     field without `omitempty` ("containers": null).
 *
 * Errors follow sigs.k8s.io/json (a case-sensitive encoding/json): a value of the wrong JSON type is
 * remembered, decoding goes on, and the first one is reported at the end; a type with its own
 * decoder (Quantity, Time, ...) ends it at once. Messages name the innermost struct, the dotted path
 * of members (no indexes, embedded structs included) and Go's type.
 *
 * Custom resources (TH_TF_CUSTOM) are not Go structs: unknown members are removed or kept, the rest
 * is validation's business.
 *
 * Limits: depth is the parser's (TH_LIMIT_JSON_DEPTH). A number that is not an integer is shown as
 * written by us ("number 1.5"), not with the sender's digits. */
#include "base/encode.h"
#include "controlplane/schema/gotext.h"
#include "controlplane/schema/quantity.h"
#include "controlplane/schema/decode_priv.h"

#define MAX_STRICT_ERRORS 100 /* sigs.k8s.io/json stops counting there */

struct decoder {
    struct th_strv *unknown; /* NULL: not counted here */
    struct th_err *err;
    int saved;               /* first remembered error's code, or 0; its text is in err */
    bool from_map;           /* errors as upstream's converter from maps has them */
};

static int check_struct(struct decoder *d, const struct th_type *t, struct th_json *obj,
                        const struct th_decode_at *at);
static int check_shape(struct decoder *d, const struct th_field *f, struct th_json *v,
                       struct th_json **ret, const struct th_decode_at *at);

/* An error that ends decoding at once replaces one that was only remembered. */
static int fatal_text(struct decoder *d, const char *text)
{
    d->saved = 0;
    return th_fail(d->err, TH_R_BAD_REQUEST, "%s", text);
}

static int type_error(struct decoder *d, const struct th_field *f, const struct th_decode_at *at,
                      const struct th_json *v, bool with_digits, const char *go_type, bool fatal)
{
    if (d->saved && !fatal) {
        return 0;
    }
    th_autobuf struct th_buf b = TH_BUF_INIT;
    if (d->from_map) { /* types with a decoder of their own still see JSON */
        th_decode_map_error(fatal ? NULL : f, v, with_digits, go_type, &b);
    } else {
        th_decode_json_error(at, v, with_digits, go_type, &b);
    }
    int code = th_fail(d->err, TH_R_BAD_REQUEST, "%s", th_buf_cstr(&b));
    if (fatal) {
        d->saved = 0;
        return code;
    }
    d->saved = code;
    return 0;
}

static int element_error(struct decoder *d, const struct th_field *f, const struct th_json *v,
                         bool with_digits, bool fatal, const struct th_decode_at *at)
{
    th_autobuf struct th_buf go = TH_BUF_INIT;
    th_decode_go_element(f, &go);
    return type_error(d, f, at, v, with_digits, th_buf_cstr(&go), fatal);
}

/* ---- Scalars. *ret is v itself (borrowed) or a new node. ---- */

static int check_int(struct decoder *d, const struct th_field *f, struct th_json *v, bool fatal,
                     const struct th_decode_at *at)
{
    if (!th_json_is(v, TH_JSON_INT)) {
        return element_error(d, f, v, th_json_is(v, TH_JSON_DOUBLE), fatal, at);
    }
    int64_t n = th_json_as_int(v, 0);
    bool narrow = f->type == TH_F_INT32 || f->type == TH_F_INTORSTR;
    if (narrow && (n < INT32_MIN || n > INT32_MAX)) {
        return element_error(d, f, v, true, fatal, at);
    }
    return 0;
}

static int check_time(struct decoder *d, const struct th_field *f, struct th_json *v,
                      struct th_json **ret, const struct th_decode_at *at)
{
    const char *s = th_json_str(v);
    if (!s) {
        return type_error(d, NULL, at, v, false, "string", true);
    }
    bool micro = f->type == TH_F_MICROTIME;
    int64_t sec;
    int32_t nsec;
    TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
    if (th_go_time_parse(s, micro, &sec, &nsec, &e) < 0) {
        return fatal_text(d, e.msg);
    }
    if (sec == TH_GO_ZERO_TIME_S && (nsec == 0 || !micro)) {
        *ret = NULL;
        return 0;
    }
    char text[TH_GO_TIME_LEN];
    th_go_time_format(sec, nsec, micro, text);
    if (strcmp(text, s) != 0) {
        *ret = th_json_string(text);
    }
    return 0;
}

static int check_quantity(struct decoder *d, struct th_json *v, struct th_json **ret)
{
    th_autobuf struct th_buf raw = TH_BUF_INIT;
    const char *given = th_json_str(v);
    if (given) {
        th_buf_puts(&raw, given + strspn(given, " \t\r\n\v\f"));
        while (raw.n && strchr(" \t\r\n\v\f", raw.p[raw.n - 1])) {
            th_buf_truncate(&raw, raw.n - 1);
        }
    } else {
        th_json_dump(v, &raw); /* a number's digits; anything else fails to parse, as upstream */
    }
    TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
    struct th_quantity q;
    if (th_quantity_parse(th_buf_cstr(&raw), &q, &e) < 0) {
        return fatal_text(d, e.msg);
    }
    char text[TH_QUANTITY_LEN];
    th_quantity_format(q, text);
    if (!given || strcmp(text, given) != 0) {
        *ret = th_json_string(text);
    }
    return 0;
}

static int check_duration(struct decoder *d, struct th_json *v, struct th_json **ret,
                          const struct th_decode_at *at)
{
    const char *s = th_json_str(v);
    if (!s) {
        return type_error(d, NULL, at, v, false, "string", true);
    }
    int64_t ns;
    TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
    if (th_go_duration_parse(s, &ns, &e) < 0) {
        return fatal_text(d, e.msg);
    }
    char text[TH_GO_TIME_LEN];
    th_go_duration_format(ns, text);
    if (strcmp(text, s) != 0) {
        *ret = th_json_string(text);
    }
    return 0;
}

static int check_bytes(struct decoder *d, const struct th_field *f, struct th_json *v,
                       struct th_json **ret, const struct th_decode_at *at)
{
    th_autobuf struct th_buf bytes = TH_BUF_INIT;
    if (th_json_is(v, TH_JSON_ARRAY)) { /* []byte also reads [1,2,3] */
        for (size_t i = 0; i < th_json_len(v); i++) {
            struct th_json *e = th_json_at(v, i);
            int64_t n = th_json_as_int(e, e ? -1 : 0);
            if (n < 0 || n > 255) {
                return type_error(d, f, at, e, th_json_is(e, TH_JSON_INT), "uint8", false);
            }
            th_buf_putc(&bytes, (char)n);
        }
    } else {
        const char *s = th_json_str(v);
        if (!s) {
            return element_error(d, f, v, false, false, at);
        }
        TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
        if (th_go_base64_decode(s, th_json_str_len(v), &bytes, &e) < 0) {
            if (!d->saved) {
                d->saved = th_fail(d->err, TH_R_BAD_REQUEST, "%s", e.msg);
            }
            return 0;
        }
        if (!memchr(s, '\n', th_json_str_len(v)) && !memchr(s, '\r', th_json_str_len(v))) {
            return 0;
        }
    }
    th_autobuf struct th_buf text = TH_BUF_INIT;
    th_b64_encode(bytes.p ? bytes.p : "", bytes.n, &text);
    *ret = th_json_string(th_buf_cstr(&text));
    return 0;
}

/* Schemas inside a JSONSchemaProps union go through a decoder of their own, which knows no strict
 * errors: unknown members vanish silently. */
static int check_schema(struct decoder *d, const struct th_field *f, struct th_json *v,
                        struct th_json **ret, const struct th_decode_at *at)
{
    struct decoder quiet = {.err = d->err, .saved = d->saved, .from_map = d->from_map};
    int r = 0;
    if (th_json_is(v, TH_JSON_OBJECT)) {
        r = check_struct(&quiet, f->sub, v, at);
    } else if (f->type == TH_F_SCHEMA_OR_BOOL) {
        if (!th_json_is(v, TH_JSON_BOOL)) {
            return fatal_text(d, "boolean or JSON schema expected");
        }
    } else if (th_json_is(v, TH_JSON_ARRAY) && f->type == TH_F_SCHEMA_OR_LIST) {
        const struct th_field list = {.name = f->name, .sub = f->sub, .type = TH_F_STRUCT,
                                      .shape = TH_SHAPE_LIST, .go = "[]v1.JSONSchemaProps"};
        struct th_json *same = v;
        r = check_shape(&quiet, &list, v, &same, at);
    } else if (th_json_is(v, TH_JSON_ARRAY)) {
        const struct th_field list = {.name = f->name, .type = TH_F_STRING,
                                      .shape = TH_SHAPE_LIST};
        struct th_json *same = v;
        r = check_shape(&quiet, &list, v, &same, at);
    } else {
        *ret = NULL; /* upstream's decoder leaves the union empty */
    }
    if (quiet.saved && r >= 0) {
        d->saved = 0;
        return quiet.saved; /* errors of a custom decoder end everything */
    }
    return r;
}

static int check_one(struct decoder *d, const struct th_field *f, struct th_json *v,
                     struct th_json **ret, const struct th_decode_at *at)
{
    switch ((enum th_ftype)f->type) {
    case TH_F_STRING:
        return th_json_str(v) ? 0 : element_error(d, f, v, false, false, at);
    case TH_F_BOOL:
        return th_json_is(v, TH_JSON_BOOL) ? 0 : element_error(d, f, v, false, false, at);
    case TH_F_INT32:
    case TH_F_INT64:
        return check_int(d, f, v, false, at);
    case TH_F_DOUBLE:
        return th_json_is(v, TH_JSON_INT) || th_json_is(v, TH_JSON_DOUBLE)
                   ? 0
                   : element_error(d, f, v, false, false, at);
    case TH_F_BYTES:
        return check_bytes(d, f, v, ret, at);
    case TH_F_QUANTITY:
        return check_quantity(d, v, ret);
    case TH_F_INTORSTR:
        return th_json_str(v) ? 0 : check_int(d, f, v, true, at);
    case TH_F_TIME:
    case TH_F_MICROTIME:
        return check_time(d, f, v, ret, at);
    case TH_F_DURATION:
        return check_duration(d, v, ret, at);
    case TH_F_RAW:
        return 0;
    case TH_F_STRUCT:
        if (!th_json_is(v, TH_JSON_OBJECT)) {
            return element_error(d, f, v, false, false, at);
        }
        return check_struct(d, f->sub, v, at);
    case TH_F_SCHEMA_OR_LIST:
    case TH_F_SCHEMA_OR_BOOL:
    case TH_F_SCHEMA_OR_STRINGS:
        return check_schema(d, f, v, ret, at);
    }
    return 0;
}

/* ---- Zero values ---- */


/* What a null becomes in a list or as a map's value, and what a field without omitempty shows. */
static struct th_json *zero_one(const struct th_field *f)
{
    switch ((enum th_ftype)f->type) {
    case TH_F_STRING:
    case TH_F_BYTES:
        return th_json_string("");
    case TH_F_BOOL:
    case TH_F_SCHEMA_OR_BOOL:
        return th_json_bool(false);
    case TH_F_INT32:
    case TH_F_INT64:
    case TH_F_INTORSTR:
    case TH_F_DOUBLE:
        return th_json_int(0);
    case TH_F_QUANTITY:
        return th_json_string("0");
    case TH_F_DURATION:
        return th_json_string("0s");
    case TH_F_STRUCT: {
        struct th_json *o = th_json_object();
        th_schema_complete(f->sub, o);
        return o;
    }
    case TH_F_TIME:
    case TH_F_MICROTIME:
    case TH_F_RAW:
    case TH_F_SCHEMA_OR_LIST:
    case TH_F_SCHEMA_OR_STRINGS:
        return NULL;
    }
    return NULL;
}

/* Go's omitempty: false, 0, "", nil, empty list or map; never a struct. */
static bool is_empty(const struct th_field *f, const struct th_json *v)
{
    if (f->shape != TH_SHAPE_ONE) {
        return th_json_len(v) == 0;
    }
    switch ((enum th_ftype)f->type) {
    case TH_F_STRING:
    case TH_F_BYTES:
        return !v || th_json_str_len(v) == 0;
    case TH_F_BOOL:
        return !th_json_as_bool(v, false);
    case TH_F_INT32:
    case TH_F_INT64:
    case TH_F_DOUBLE:
        return th_json_as_double(v, 0) == 0;
    default:
        return false;
    }
}

/* An empty managedFields is not nothing: it asks to forget all managers, and
 * th_managed_fields_update, which every write goes through, takes it away. */
static bool asks_reset(const struct th_field *f)
{
    return f->type == TH_F_STRUCT && strcmp(f->sub->name, "meta.ManagedFieldsEntry") == 0;
}

void th_schema_complete(const struct th_type *t, struct th_json *obj)
{
    for (size_t i = 0; i < t->n_fields; i++) {
        const struct th_field *f = &t->fields[i];
        struct th_json *v = th_json_get(obj, f->name);
        if (f->flags & TH_FF_POINTER) {
            if (v) {
                continue;
            }
            if (f->flags & TH_FF_OMITEMPTY) {
                th_json_del(obj, f->name);
            } else {
                th_json_set(obj, f->name, NULL);
            }
        } else if (f->flags & TH_FF_OMITZERO) {
            if (!v) {
                th_json_del(obj, f->name);
            }
        } else if ((f->flags & TH_FF_OMITEMPTY) && is_empty(f, v)) {
            if (!v || !asks_reset(f)) {
                th_json_del(obj, f->name);
            }
        } else if (!v) {
            th_json_set(obj, f->name, f->shape == TH_SHAPE_ONE ? zero_one(f) : NULL);
        }
    }
}

/* ---- Containers ---- */

static int check_list(struct decoder *d, const struct th_field *f, struct th_json *v,
                      const struct th_decode_at *at)
{
    for (size_t i = 0; i < th_json_len(v); i++) {
        struct th_decode_at here = {.up = at, .index = i};
        struct th_json *e = th_json_at(v, i), *now = e;
        if (e) {
            TH_TRY(check_one(d, f, e, &now, &here));
        } else {
            now = zero_one(f);
        }
        if (now != e) {
            th_json_set_at(v, i, now);
        }
    }
    return 0;
}

static int check_map(struct decoder *d, const struct th_field *f, struct th_json *v,
                     const struct th_decode_at *at)
{
    const struct th_field list = {.name = f->name, .type = f->type, .shape = TH_SHAPE_LIST,
                                  .sub = f->sub, .go = f->go ? "v1.ExtraValue" : NULL};
    /* Members must not be set while they are walked; few need it. */
    th_autostrv struct th_strv names = TH_STRV_INIT;
    TH_AUTO(th_json) struct th_json *values = th_json_array();
    struct th_json_iter it = TH_JSON_ITER(v);
    while (th_json_next(&it)) {
        struct th_decode_at here = {.up = at, .key = it.name};
        struct th_json *now = it.value;
        if (f->shape == TH_SHAPE_MAP_LIST) {
            if (it.value) {
                TH_TRY(check_shape(d, &list, it.value, &now, &here));
            }
        } else if (it.value) {
            TH_TRY(check_one(d, f, it.value, &now, &here));
        } else {
            now = zero_one(f);
        }
        if (now != it.value) {
            th_strv_add(&names, it.name);
            th_json_append(values, now);
        }
    }
    for (size_t i = 0; i < names.n; i++) {
        th_json_set(v, names.v[i], th_json_ref(th_json_at(values, i)));
    }
    return 0;
}

static int check_shape(struct decoder *d, const struct th_field *f, struct th_json *v,
                       struct th_json **ret, const struct th_decode_at *at)
{
    if (f->shape == TH_SHAPE_ONE) {
        return check_one(d, f, v, ret, at);
    }
    bool list = f->shape == TH_SHAPE_LIST;
    if (!th_json_is(v, list ? TH_JSON_ARRAY : TH_JSON_OBJECT)) {
        th_autobuf struct th_buf go = TH_BUF_INIT;
        th_decode_go_whole(f, &go);
        return type_error(d, f, at, v, false, th_buf_cstr(&go), false);
    }
    return list ? check_list(d, f, v, at) : check_map(d, f, v, at);
}

static void note_unknown(struct decoder *d, const struct th_decode_at *at)
{
    if (!d->unknown || d->unknown->n >= MAX_STRICT_ERRORS) {
        return;
    }
    th_autobuf struct th_buf path = TH_BUF_INIT;
    th_decode_strict_path(at, &path);
    if (!th_strv_has(d->unknown, th_buf_cstr(&path))) {
        th_strv_add(d->unknown, th_buf_cstr(&path));
    }
}

/* A custom resource's member: only unknown members matter here, and metadata, which is Go's. */
static int check_custom(struct decoder *d, const struct th_field *f, struct th_json *v,
                        const struct th_decode_at *at)
{
    bool whole = f->shape == TH_SHAPE_ONE;
    if (f->type != TH_F_STRUCT && !(f->elem && !whole)) {
        return 0;
    }
    if (whole && !(f->sub->flags & TH_TF_CUSTOM)) {
        struct th_json *same = v;
        return check_one(d, f, v, &same, at);
    }
    if (whole) {
        return th_json_is(v, TH_JSON_OBJECT) ? check_struct(d, f->sub, v, at) : 0;
    }
    const struct th_field one = {.name = "", .type = f->type, .sub = f->sub};
    const struct th_field *elem = f->elem ? f->elem : &one;
    if (f->shape == TH_SHAPE_LIST) {
        for (size_t i = 0; th_json_is(v, TH_JSON_ARRAY) && i < th_json_len(v); i++) {
            struct th_decode_at here = {.up = at, .index = i};
            TH_TRY(check_custom(d, elem, th_json_at(v, i), &here));
        }
        return 0;
    }
    struct th_json_iter it = TH_JSON_ITER(th_json_is(v, TH_JSON_OBJECT) ? v : NULL);
    while (th_json_next(&it)) {
        struct th_decode_at here = {.up = at, .key = it.name};
        TH_TRY(check_custom(d, elem, it.value, &here));
    }
    return 0;
}

static int check_struct(struct decoder *d, const struct th_type *t, struct th_json *obj,
                        const struct th_decode_at *at)
{
    bool custom = (t->flags & TH_TF_CUSTOM) != 0;
    const struct th_field *changed_inline[8];
    const struct th_field **changed = changed_inline;
    TH_AUTO(th_json) struct th_json *values = NULL;
    th_autofree const struct th_field **changed_heap = NULL;
    size_t n_changed = 0, cap = TH_ARRAY_LEN(changed_inline);
    struct th_json_iter it = TH_JSON_ITER(obj);
    while (th_json_next(&it)) {
        const struct th_field *f = th_type_field(t, it.name);
        if (!f) {
            f = t->any;
        }
        struct th_decode_at here = {.up = at, .key = it.name, .owner = custom ? NULL : t,
                          .field = custom ? NULL : f};
        if (!f) {
            if (!(t->flags & TH_TF_PRESERVE)) {
                here.owner = NULL;
                note_unknown(d, &here);
                th_json_del(obj, it.name);
            }
            continue;
        }
        if (!it.value) {
            continue; /* null leaves the zero value; complete() decides what is shown */
        }
        if (custom) {
            TH_TRY(check_custom(d, f, it.value, &here));
            continue;
        }
        struct th_json *now = it.value;
        TH_TRY(check_shape(d, f, it.value, &now, &here));
        if (now != it.value) {
            if (n_changed == cap) {
                cap *= 2;
                const struct th_field **more = th_xmalloc(cap * sizeof(*more));
                memcpy(more, changed, n_changed * sizeof(*more));
                free(changed_heap);
                changed = changed_heap = more;
            }
            if (!values) {
                values = th_json_array();
            }
            changed[n_changed++] = f;
            th_json_append(values, now);
        }
    }
    for (size_t i = 0; i < n_changed; i++) {
        th_json_set(obj, changed[i]->name, th_json_ref(th_json_at(values, i)));
    }
    if (!custom && !d->saved) {
        th_schema_complete(t, obj);
    }
    return 0;
}

static int decode(const struct th_type *t, struct th_json *obj, struct th_strv *unknown, bool from_map,
                  struct th_err *err)
{
    struct decoder d = {.unknown = unknown, .err = err, .from_map = from_map};
    if (!th_json_is(obj, TH_JSON_OBJECT)) {
        th_autobuf struct th_buf go = TH_BUF_INIT;
        const struct th_field top = {.name = "", .type = TH_F_STRUCT, .sub = t};
        th_decode_go_element(&top, &go);
        return type_error(&d, NULL, NULL, obj, false, th_buf_cstr(&go), true);
    }
    TH_TRY(check_struct(&d, t, obj, NULL));
    return d.saved;
}

int th_schema_decode(const struct th_type *t, struct th_json *obj, struct th_strv *unknown,
                     struct th_err *err)
{
    return decode(t, obj, unknown, false, err);
}

int th_schema_decode_map(const struct th_type *t, struct th_json *obj, struct th_strv *unknown,
                         struct th_err *err)
{
    return decode(t, obj, unknown, true, err);
}

/* ---- Field validation ---- */

/* A duplicate inside something unknown is only unknown. */
static bool inside_unknown(const struct th_strv *unknown, const char *path)
{
    for (size_t i = 0; unknown && i < unknown->n; i++) {
        size_t n = strlen(unknown->v[i]);
        if (strncmp(path, unknown->v[i], n) == 0 && strchr(".[", path[n])) {
            return true; /* strchr finds the NUL too: equal paths */
        }
    }
    return false;
}

int th_schema_field_validation(enum th_field_validation mode, const struct th_strv *unknown,
                               const struct th_strv *dups, struct th_strv *warnings,
                               struct th_err *err)
{
    if (mode == TH_FV_IGNORE) {
        return 0;
    }
    th_autostrv struct th_strv all = TH_STRV_INIT;
    for (int pass = 0; pass < 2; pass++) {
        const struct th_strv *paths = pass ? dups : unknown;
        for (size_t i = 0; paths && i < paths->n && all.n < MAX_STRICT_ERRORS; i++) {
            if (pass && inside_unknown(unknown, paths->v[i])) {
                continue;
            }
            th_autobuf struct th_buf text = TH_BUF_INIT;
            th_buf_puts(&text, pass ? "duplicate field " : "unknown field ");
            th_go_quote(&text, paths->v[i]);
            if (!th_strv_has(&all, th_buf_cstr(&text))) {
                th_strv_add(&all, th_buf_cstr(&text));
            }
        }
    }
    if (all.n == 0) {
        return 0;
    }
    if (mode == TH_FV_STRICT) {
        th_autofree char *joined = th_strv_join(&all, ", ");
        return th_fail(err, TH_R_BAD_REQUEST, "strict decoding error: %s", joined);
    }
    for (size_t i = 0; warnings && i < all.n; i++) {
        th_strv_add(warnings, all.v[i]);
    }
    return 0;
}

/* ---- Canonical order ---- */

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void reorder(struct th_json *obj, const char **names, size_t n)
{
    bool sorted = true;
    struct th_json_iter it = TH_JSON_ITER(obj);
    for (size_t i = 0; i < n && sorted; i++) {
        sorted = th_json_next(&it) && strcmp(it.name, names[i]) == 0;
    }
    if (sorted) {
        return;
    }
    for (size_t i = 0; i < n; i++) { /* the name's memory goes with the member: copy first */
        th_autofree char *name = th_xstrdup(names[i]);
        struct th_json *v = th_json_ref(th_json_get(obj, name));
        th_json_del(obj, name);
        th_json_set(obj, name, v);
    }
}

static void sort_map(struct th_json *map)
{
    size_t n = th_json_len(map), i = 0;
    if (n < 2) {
        return;
    }
    th_autofree const char **names = th_xmalloc(n * sizeof(*names));
    struct th_json_iter it = TH_JSON_ITER(map);
    while (th_json_next(&it)) {
        names[i++] = it.name;
    }
    qsort(names, n, sizeof(*names), by_text);
    reorder(map, names, n);
}

static void canonicalize_shape(const struct th_field *f, struct th_json *v);

static void canonicalize_value(const struct th_field *f, struct th_json *v)
{
    if (f->elem && f->shape != TH_SHAPE_ONE) {
        canonicalize_shape(f->elem, v);
        return;
    }
    if (f->sub && th_json_is(v, TH_JSON_OBJECT)) {
        th_schema_canonicalize(f->sub, v);
    }
    for (size_t i = 0; f->type == TH_F_SCHEMA_OR_LIST && i < th_json_len(v) &&
                       th_json_is(v, TH_JSON_ARRAY); i++) {
        th_schema_canonicalize(f->sub, th_json_at(v, i));
    }
}

static void canonicalize_shape(const struct th_field *f, struct th_json *v)
{
    bool inside = f->sub || f->elem;
    if (f->shape == TH_SHAPE_ONE) {
        canonicalize_value(f, v);
    } else if (f->shape == TH_SHAPE_LIST) {
        for (size_t k = 0; inside && th_json_is(v, TH_JSON_ARRAY) && k < th_json_len(v); k++) {
            canonicalize_value(f, th_json_at(v, k));
        }
    } else if (th_json_is(v, TH_JSON_OBJECT)) {
        sort_map(v);
        struct th_json_iter it = TH_JSON_ITER(v);
        while (inside && th_json_next(&it)) {
            canonicalize_value(f, it.value);
        }
    }
}

void th_schema_canonicalize(const struct th_type *t, struct th_json *obj)
{
    size_t len = th_json_len(obj), n = 0;
    if (!th_json_is(obj, TH_JSON_OBJECT) || len == 0) {
        return;
    }
    th_autofree const char **names = th_xmalloc(len * sizeof(*names));
    for (size_t i = 0; i < t->n_fields && n < len; i++) {
        const struct th_field *f = &t->fields[i];
        if (!th_json_has(obj, f->name)) {
            continue;
        }
        names[n++] = f->name;
        canonicalize_shape(f, th_json_get(obj, f->name));
    }
    size_t known = n;
    struct th_json_iter it = TH_JSON_ITER(obj);
    while (n < len && th_json_next(&it)) {
        if (!th_type_field(t, it.name)) {
            names[n++] = it.name;
        }
    }
    qsort(names + known, n - known, sizeof(*names), by_text);
    reorder(obj, names, n);
}
