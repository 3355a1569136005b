/* Trees to YAML, as kubectl prints them.
 *
 * Problem: people diff `-o yaml` output between clusters; ours should differ only where the objects
 * do. Design: libyaml's emitter is the ancestor of the one kubectl uses, so folding, indentation
 * and the choice between plain and quoted follow from asking it for the same styles: block
 * collections, literal style for text with line breaks, plain for strings that read back as
 * strings, double quotes for those that would not. Members are sorted the way that library sorts
 * them: runs of digits count as numbers, letters come after everything else.
 */
#include "base/json/yaml.h"

#include "base/encode.h"
#include "base/json/yaml_priv.h"

#include <yaml.h>

static int append(void *arg, unsigned char *p, size_t n)
{
    th_buf_add(arg, p, n);
    return 1;
}

static bool is_digit(unsigned char c)
{
    return c >= '0' && c <= '9';
}

/* Bytes of a multi-byte character count as letters, which is what nearly all of them are. */
static bool is_letter(unsigned char c)
{
    return ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c >= 0x80;
}

/* Compares the numbers at the difference: their values, then their lengths. */
static int compare_numbers(const unsigned char *a, const unsigned char *b, size_t at)
{
    uint64_t x = 0;
    uint64_t y = 0;
    if (a[at] == '0' || b[at] == '0') {
        /* inside a number that has begun, a zero is a digit like any other, not a leading one */
        for (size_t j = at; j > 0 && is_digit(a[j - 1]); j--) {
            if (a[j - 1] != '0') {
                x = y = 1;
                break;
            }
        }
    }
    size_t i = at;
    size_t j = at;
    for (; is_digit(a[i]); i++) {
        x = x * 10 + (a[i] - '0');
    }
    for (; is_digit(b[j]); j++) {
        y = y * 10 + (b[j] - '0');
    }
    if (x != y) {
        return x < y ? -1 : 1;
    }
    if (i != j) {
        return i < j ? -1 : 1;
    }
    return a[at] < b[at] ? -1 : 1;
}

static int compare_names(const char *s, const char *t)
{
    const unsigned char *a = (const unsigned char *)s;
    const unsigned char *b = (const unsigned char *)t;
    bool digits = false;
    size_t i = 0;
    for (; a[i] && a[i] == b[i]; i++) {
        digits = is_digit(a[i]);
    }
    if (!a[i] || !b[i]) {
        return !!a[i] - !!b[i];
    }
    bool al = is_letter(a[i]);
    bool bl = is_letter(b[i]);
    if (al && bl) {
        return a[i] < b[i] ? -1 : 1;
    }
    if (al || bl) {
        /* after a digit a letter ends the number and comes first; elsewhere letters come last */
        return (digits ? al : bl) ? -1 : 1;
    }
    return compare_numbers(a, b, i);
}

static int by_name(const void *a, const void *b)
{
    return compare_names(lh_entry_k(*(struct lh_entry *const *)a),
                         lh_entry_k(*(struct lh_entry *const *)b));
}

static void emit(yaml_emitter_t *y, yaml_event_t *e)
{
    TH_ASSERT(yaml_emitter_emit(y, e));
}

static void emit_scalar(yaml_emitter_t *y, const char *tag, const char *s, size_t n,
                        yaml_scalar_style_t style)
{
    yaml_event_t e;
    TH_ASSERT(yaml_scalar_event_initialize(&e, NULL, (const yaml_char_t *)tag,
                                           (const yaml_char_t *)s, (int)n, !tag, !tag, style));
    emit(y, &e);
}

static void emit_string(yaml_emitter_t *y, const char *s, size_t n)
{
    if (!th_utf8_valid(s, n)) {
        th_autobuf struct th_buf b = TH_BUF_INIT;
        th_b64_encode(s, n, &b);
        emit_scalar(y, "tag:yaml.org,2002:binary", th_buf_cstr(&b), b.n, YAML_PLAIN_SCALAR_STYLE);
        return;
    }
    bool plain = th_yaml_resolve(s, n).kind == TH_YAML_STR && !th_yaml_is_base60(s, n);
    emit_scalar(y, NULL, s, n,
                memchr(s, '\n', n) ? YAML_LITERAL_SCALAR_STYLE
                : plain            ? YAML_PLAIN_SCALAR_STYLE
                                   : YAML_DOUBLE_QUOTED_SCALAR_STYLE);
}

static void emit_number(yaml_emitter_t *y, const struct th_json *o)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_json_dump(o, &b);
    if (strpbrk(th_buf_cstr(&b), ".e")) {
        char text[48];
        size_t n = th_json_format_double_g(th_json_as_double(o, 0), text);
        emit_scalar(y, NULL, text, n, YAML_PLAIN_SCALAR_STYLE);
    } else {
        emit_scalar(y, NULL, th_buf_cstr(&b), b.n, YAML_PLAIN_SCALAR_STYLE);
    }
}

static void emit_node(yaml_emitter_t *y, const struct th_json *o);

static void emit_mapping(yaml_emitter_t *y, const struct th_json *o)
{
    yaml_event_t e;
    TH_ASSERT(yaml_mapping_start_event_initialize(&e, NULL, NULL, 1, YAML_BLOCK_MAPPING_STYLE));
    emit(y, &e);
    size_t n = th_json_len(o);
    th_autofree struct lh_entry **v = th_xmalloc((n + 1) * sizeof(struct lh_entry *));
    size_t i = 0;
    for (struct lh_entry *m = th_json_first(o); m; m = lh_entry_next(m)) {
        v[i++] = m;
    }
    qsort(v, n, sizeof(struct lh_entry *), by_name);
    for (i = 0; i < n; i++) {
        const char *name = lh_entry_k(v[i]);
        emit_string(y, name, strlen(name));
        emit_node(y, lh_entry_v(v[i]));
    }
    TH_ASSERT(yaml_mapping_end_event_initialize(&e));
    emit(y, &e);
}

static void emit_sequence(yaml_emitter_t *y, const struct th_json *o)
{
    yaml_event_t e;
    TH_ASSERT(yaml_sequence_start_event_initialize(&e, NULL, NULL, 1, YAML_BLOCK_SEQUENCE_STYLE));
    emit(y, &e);
    for (size_t i = 0; i < th_json_len(o); i++) {
        emit_node(y, th_json_at(o, i));
    }
    TH_ASSERT(yaml_sequence_end_event_initialize(&e));
    emit(y, &e);
}

static void emit_node(yaml_emitter_t *y, const struct th_json *o)
{
    switch (th_json_type(o)) {
    case TH_JSON_NULL:
        emit_scalar(y, NULL, "null", 4, YAML_PLAIN_SCALAR_STYLE);
        break;
    case TH_JSON_BOOL: {
        const char *s = th_json_as_bool(o, false) ? "true" : "false";
        emit_scalar(y, NULL, s, strlen(s), YAML_PLAIN_SCALAR_STYLE);
        break;
    }
    case TH_JSON_INT:
    case TH_JSON_DOUBLE:
        emit_number(y, o);
        break;
    case TH_JSON_STRING:
        emit_string(y, th_json_str(o), th_json_str_len(o));
        break;
    case TH_JSON_ARRAY:
        emit_sequence(y, o);
        break;
    case TH_JSON_OBJECT:
        emit_mapping(y, o);
        break;
    }
}

void th_yaml_dump(const struct th_json *o, struct th_buf *b)
{
    yaml_emitter_t y;
    yaml_event_t e;
    TH_ASSERT(yaml_emitter_initialize(&y));
    yaml_emitter_set_output(&y, append, b);
    yaml_emitter_set_unicode(&y, 1);
    TH_ASSERT(yaml_stream_start_event_initialize(&e, YAML_UTF8_ENCODING));
    emit(&y, &e);
    TH_ASSERT(yaml_document_start_event_initialize(&e, NULL, NULL, NULL, 1));
    emit(&y, &e);
    emit_node(&y, o);
    TH_ASSERT(yaml_document_end_event_initialize(&e, 1));
    emit(&y, &e);
    y.open_ended = 0; /* text that ends in blank lines would otherwise be followed by "..." */
    TH_ASSERT(yaml_stream_end_event_initialize(&e));
    emit(&y, &e);
    yaml_emitter_delete(&y);
}
