/* Trees to text.
 *
 * Problem: objects at rest are bytes, so every write ends here; json-c's own serializer builds
 * the text in a buffer hung onto the node (memory that stays, and a write to a tree that others may
 * be reading), byte by byte. Design: one recursive walk over the nodes that appends to the caller's
 * th_buf. Strings are copied in runs; only quotes, backslashes and control characters interrupt
 * one.
 *
 * The text is canonical: no space, no escaped '/', non-ASCII as it is, doubles in the shortest form
 * that reads back the same, laid out as Go lays them out (an integral double has no ".0"). Equal
 * trees with equal member order therefore give equal bytes, on which ETags and "nothing changed"
 * tests rest.
 *
 * Room is reserved in steps without looking at the buffer's max, which is compared once at the end;
 * an overflow takes back the whole document, as for any other addition.
 */
#include "base/json/json_priv.h"

#include <math.h>
#include <stdio.h>

struct out {
    struct th_buf *b;
    int indent; /* spaces per level; 0: compact */
    bool sorted;
};

static void room(struct th_buf *b, size_t n)
{
    if (b->cap - b->n <= n) {
        th_buf_reserve(b, n);
    }
}

static void put(struct th_buf *b, const char *p, size_t n)
{
    room(b, n);
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

static void put_char(struct th_buf *b, char c)
{
    room(b, 1);
    b->p[b->n++] = c;
}

/* 0: as it is; 'u': \u00XX; else the letter after the backslash. */
static const char escape_of[256] = {
    [0 ... 7] = 'u', ['\b'] = 'b', ['\t'] = 't',      ['\n'] = 'n', [11] = 'u',
    ['\f'] = 'f',    ['\r'] = 'r', [14 ... 31] = 'u', ['"'] = '"',  ['\\'] = '\\',
};

static void put_string(struct th_buf *b, const char *s, size_t n)
{
    static const char hex[] = "0123456789abcdef";
    room(b, n + 2);
    b->p[b->n++] = '"';
    const char *end = s + n;
    while (s < end) {
        const char *run = s;
        while (s < end && !escape_of[(unsigned char)*s]) {
            s++;
        }
        if (s > run) {
            put(b, run, (size_t)(s - run));
        }
        if (s < end) {
            unsigned char c = (unsigned char)*s++;
            char e = escape_of[c];
            if (e == 'u') {
                put(b, (char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]}, 6);
            } else {
                put(b, (char[]){'\\', e}, 2);
            }
        }
    }
    put_char(b, '"');
}

static void put_uint(struct th_buf *b, uint64_t v)
{
    char text[20];
    size_t at = sizeof(text);
    do {
        text[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    put(b, text + at, sizeof(text) - at);
}

/* The exponent form is used below 10^low and from 10^high on. */
static size_t format_double(double v, int low, int high, int exp_digits, char *buf)
{
    /* Every decimal of 15 digits survives a double, so that is where the search may begin; only
     * subnormal numbers have less precision than that. */
    char sci[32];
    for (int precision = fpclassify(v) == FP_SUBNORMAL ? 0 : 14; precision <= 16; precision++) {
        (void)snprintf(sci, sizeof(sci), "%.*e", precision, v);
        if (strtod(sci, NULL) == v) {
            break;
        }
    }
    char digits[20];
    int n = 0;
    char *at = buf;
    const char *p = sci;
    if (*p == '-') {
        *at++ = *p++;
    }
    for (; *p != 'e'; p++) {
        if (*p != '.') {
            digits[n++] = *p;
        }
    }
    int exp = (int)strtol(p + 1, NULL, 10);
    while (n > 1 && digits[n - 1] == '0') {
        n--;
    }
    if (v != 0 && (exp < low || exp >= high)) {
        *at++ = digits[0];
        if (n > 1) {
            *at++ = '.';
            at = (char *)mempcpy(at, digits + 1, (size_t)n - 1);
        }
        at += snprintf(at, 8, "e%c%0*d", exp < 0 ? '-' : '+', exp_digits, abs(exp));
        return (size_t)(at - buf);
    }
    if (exp < 0) {
        *at++ = '0';
        *at++ = '.';
        for (int i = -1; i > exp; i--) {
            *at++ = '0';
        }
        at = (char *)mempcpy(at, digits, (size_t)n);
    } else {
        for (int i = 0; i <= exp || i < n; i++) {
            if (i == exp + 1) {
                *at++ = '.';
            }
            *at++ = i < n ? digits[i] : '0';
        }
    }
    *at = '\0';
    return (size_t)(at - buf);
}

size_t th_json_format_double(double v, char *buf)
{
    /* Go goes on without exponent up to 10^21, but such text would read back as an integer that
     * does not fit 64 bits. */
    return format_double(v, -6, 18, 1, buf);
}

size_t th_json_format_double_g(double v, char *buf)
{
    return format_double(v, -4, 6, 2, buf);
}

static void put_number(struct th_buf *b, struct json_object *o)
{
    if (json_object_is_type(o, json_type_double)) {
        char text[48];
        put(b, text, th_json_format_double(json_object_get_double(o), text));
        return;
    }
    int64_t v = json_object_get_int64(o);
    if (v < 0) {
        put_char(b, '-');
        put_uint(b, -(uint64_t)v);
    } else {
        put_uint(b, json_object_get_uint64(o));
    }
}

static void new_line(const struct out *w, size_t level)
{
    if (w->indent) {
        size_t n = level * (size_t)w->indent;
        room(w->b, n + 1);
        w->b->p[w->b->n++] = '\n';
        memset(w->b->p + w->b->n, ' ', n);
        w->b->n += n;
    }
}

static void put_value(const struct out *w, struct json_object *o, size_t level);

static void put_member(const struct out *w, struct lh_entry *e, size_t level, bool first)
{
    if (!first) {
        put_char(w->b, ',');
    }
    new_line(w, level + 1);
    const char *k = lh_entry_k(e);
    put_string(w->b, k, strlen(k));
    if (w->indent) {
        put(w->b, ": ", 2);
    } else {
        put_char(w->b, ':');
    }
    put_value(w, lh_entry_v(e), level + 1);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(lh_entry_k(*(struct lh_entry *const *)a),
                  lh_entry_k(*(struct lh_entry *const *)b));
}

static void put_object(const struct out *w, struct json_object *o, size_t level)
{
    struct lh_table *t = json_object_get_object(o);
    size_t n = (size_t)lh_table_length(t);
    if (n == 0) {
        put(w->b, "{}", 2);
        return;
    }
    put_char(w->b, '{');
    if (w->sorted && n > 1) {
        th_autofree struct lh_entry **v = th_xmalloc(n * sizeof(struct lh_entry *));
        size_t i = 0;
        for (struct lh_entry *e = lh_table_head(t); e; e = lh_entry_next(e)) {
            v[i++] = e;
        }
        qsort(v, n, sizeof(struct lh_entry *), by_name);
        for (i = 0; i < n; i++) {
            put_member(w, v[i], level, i == 0);
        }
    } else {
        struct lh_entry *head = lh_table_head(t);
        for (struct lh_entry *e = head; e; e = lh_entry_next(e)) {
            put_member(w, e, level, e == head);
        }
    }
    new_line(w, level);
    put_char(w->b, '}');
}

static void put_array(const struct out *w, struct json_object *o, size_t level)
{
    size_t n = json_object_array_length(o);
    if (n == 0) {
        put(w->b, "[]", 2);
        return;
    }
    put_char(w->b, '[');
    for (size_t i = 0; i < n; i++) {
        if (i > 0) {
            put_char(w->b, ',');
        }
        new_line(w, level + 1);
        put_value(w, json_object_array_get_idx(o, i), level + 1);
    }
    new_line(w, level);
    put_char(w->b, ']');
}

static void put_value(const struct out *w, struct json_object *o, size_t level)
{
    switch (json_object_get_type(o)) {
    case json_type_null:
        put(w->b, "null", 4);
        break;
    case json_type_boolean:
        if (json_object_get_boolean(o)) {
            put(w->b, "true", 4);
        } else {
            put(w->b, "false", 5);
        }
        break;
    case json_type_int:
    case json_type_double:
        put_number(w->b, o);
        break;
    case json_type_string:
        put_string(w->b, json_object_get_string(o), (size_t)json_object_get_string_len(o));
        break;
    case json_type_array:
        put_array(w, o, level);
        break;
    case json_type_object:
        put_object(w, o, level);
        break;
    }
}

static void dump(const struct th_json *o, struct out w)
{
    size_t before = w.b->n;
    put_value(&w, th_json_c(o), 0);
    if (w.b->n > (w.b->max ? w.b->max : TH_BUF_DEFAULT_MAX)) {
        w.b->n = before;
        w.b->overflow = true;
    }
    w.b->p[w.b->n] = '\0';
}

void th_json_dump(const struct th_json *o, struct th_buf *b)
{
    dump(o, (struct out){.b = b});
}

void th_json_dump_sorted(const struct th_json *o, struct th_buf *b)
{
    dump(o, (struct out){.b = b, .sorted = true});
}

void th_json_dump_pretty(const struct th_json *o, struct th_buf *b)
{
    dump(o, (struct out){.b = b, .indent = 2});
}

void th_json_dump_pretty_sorted(const struct th_json *o, struct th_buf *b)
{
    dump(o, (struct out){.b = b, .indent = 2, .sorted = true});
}

char *th_json_to_string(const struct th_json *o)
{
    struct th_buf b = TH_BUF_INIT;
    th_json_dump(o, &b);
    return th_buf_steal(&b, NULL);
}
