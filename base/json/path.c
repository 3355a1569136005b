/* Reaching into trees by path, and building trees from templates.
 *
 * Problem: code that reads "spec.template.metadata.labels" through four lookups and four tests
 * hides what it wants; code that builds an object call by call hides its shape. Design: paths are
 * small strings walked in place, no allocation; templates are JSON with single quotes and four
 * conversions, read once per call by a parser of a hundred lines.
 *
 * Reading never fails: a step that is missing, null or of another kind gives NULL. Writing makes
 * objects where there is nothing (or something that is not an object) and accepts an index only for
 * an element that exists. Templates are constants of ours, so a malformed one aborts; values never
 * become part of the syntax, so nothing has to be escaped by callers.
 */
#include "base/json/json_priv.h"

#include <inttypes.h>

struct step {
    const char *name; /* NULL: an index */
    size_t n;
    size_t index;
};

/* The next step of *path; false at the end or on malformed text (then *path is not at its NUL). */
static bool next_step(const char **path, struct step *st)
{
    const char *p = *path;
    if (*p == '\0') {
        return false;
    }
    if (*p == '[') {
        size_t i = 0;
        const char *q = p + 1;
        for (; *q >= '0' && *q <= '9' && i < SIZE_MAX / 16; q++) {
            i = i * 10 + (size_t)(*q - '0');
        }
        if (q == p + 1 || *q != ']') {
            return false;
        }
        *st = (struct step){.index = i};
        p = q + 1;
    } else {
        size_t n = strcspn(p, ".[");
        *st = (struct step){.name = p, .n = n};
        p += n;
    }
    *path = *p == '.' ? p + 1 : p;
    return true;
}

static struct th_json *take_step(const struct th_json *o, const struct step *st)
{
    if (!st->name) {
        return th_json_at(o, st->index);
    }
    if (!th_json_is(o, TH_JSON_OBJECT)) {
        return NULL;
    }
    struct lh_entry *e = th_json_find(o, st->name, st->n);
    return e ? lh_entry_v(e) : NULL;
}

struct th_json *th_json_path(const struct th_json *o, const char *path)
{
    struct step st;
    struct th_json *at = th_json_of(th_json_c(o));
    while (at && next_step(&path, &st)) {
        at = take_step(at, &st);
    }
    return *path ? NULL : at;
}

const char *th_json_path_str(const struct th_json *o, const char *path)
{
    return th_json_str(th_json_path(o, path));
}

int64_t th_json_path_int(const struct th_json *o, const char *path, int64_t def)
{
    return th_json_as_int(th_json_path(o, path), def);
}

bool th_json_path_bool(const struct th_json *o, const char *path, bool def)
{
    return th_json_as_bool(th_json_path(o, path), def);
}

static void put_step(struct th_json *o, const struct step *st, struct th_json *value)
{
    if (!st->name) {
        th_json_set_at(o, st->index, value);
        return;
    }
    char small[128];
    th_autofree char *large = NULL;
    char *name = small;
    if (st->n >= sizeof(small)) {
        name = large = th_xmalloc(st->n + 1);
    }
    memcpy(name, st->name, st->n);
    name[st->n] = '\0';
    th_json_set(o, name, value);
}

/* The child of o at st, replaced by a new container when it is not of type t. */
static struct th_json *child(struct th_json *o, const struct step *st, enum th_json_type t)
{
    struct th_json *c = take_step(o, st);
    if (!th_json_is(c, t)) {
        c = t == TH_JSON_ARRAY ? th_json_array() : th_json_object();
        put_step(o, st, c);
    }
    return c;
}

/* Walks to the parent of the last step, making objects on the way. */
static struct th_json *make_parent(struct th_json *o, const char *path, struct step *last)
{
    TH_ASSERT(next_step(&path, last));
    struct step following;
    while (next_step(&path, &following)) {
        o = child(o, last, following.name ? TH_JSON_OBJECT : TH_JSON_ARRAY);
        *last = following;
    }
    TH_ASSERT(*path == '\0');
    return o;
}

void th_json_path_set(struct th_json *o, const char *path, struct th_json *value)
{
    struct step last;
    struct th_json *parent = make_parent(o, path, &last);
    put_step(parent, &last, value);
}

void th_json_path_set_str(struct th_json *o, const char *path, const char *value)
{
    th_json_path_set(o, path, th_json_string(value));
}

void th_json_path_set_int(struct th_json *o, const char *path, int64_t value)
{
    th_json_path_set(o, path, th_json_int(value));
}

void th_json_path_set_bool(struct th_json *o, const char *path, bool value)
{
    th_json_path_set(o, path, th_json_bool(value));
}

bool th_json_path_del(struct th_json *o, const char *path)
{
    struct step st;
    struct step following;
    if (!next_step(&path, &st)) {
        return false;
    }
    while (next_step(&path, &following)) {
        o = take_step(o, &st);
        st = following;
    }
    if (*path) {
        return false;
    }
    if (!st.name) {
        bool there = th_json_is(o, TH_JSON_ARRAY) && st.index < th_json_len(o);
        th_json_del_at(o, st.index);
        return there;
    }
    if (!th_json_is(o, TH_JSON_OBJECT)) {
        return false;
    }
    struct lh_entry *e = th_json_find(o, st.name, st.n);
    return e && lh_table_delete_entry(json_object_get_object(th_json_c(o)), e) == 0;
}

struct th_json *th_json_path_object(struct th_json *o, const char *path)
{
    struct step last;
    struct th_json *parent = make_parent(o, path, &last);
    return child(parent, &last, TH_JSON_OBJECT);
}

struct th_json *th_json_path_array(struct th_json *o, const char *path)
{
    struct step last;
    struct th_json *parent = make_parent(o, path, &last);
    return child(parent, &last, TH_JSON_ARRAY);
}

/* ---- templates ---- */

struct build {
    const char *p;
    va_list ap;
};

static void build_space(struct build *t)
{
    while (*t->p == ' ' || *t->p == '\n' || *t->p == '\t') {
        t->p++;
    }
}

static void build_expect(struct build *t, char c)
{
    build_space(t);
    TH_ASSERT(*t->p == c);
    t->p++;
}

/* 'text' up to the closing quote; a backslash takes the next byte as it is. The caller frees. */
static char *build_quoted(struct build *t)
{
    struct th_buf b = TH_BUF_INIT;
    for (t->p++; *t->p != '\''; t->p++) {
        TH_ASSERT(*t->p != '\0');
        /* "'%s'" is a slip: it would put the two characters into the object */
        TH_ASSERT(t->p[0] != '%' || !t->p[1] || !strchr("sdbof", t->p[1]));
        t->p += t->p[0] == '\\';
        th_buf_putc(&b, *t->p);
    }
    t->p++;
    return th_buf_steal(&b, NULL);
}

static struct th_json *build_argument(struct build *t)
{
    char kind = t->p[1];
    t->p += 2;
    switch (kind) {
    case 's':
        return th_json_string(va_arg(t->ap, const char *));
    case 'd':
        return th_json_int(va_arg(t->ap, int64_t));
    case 'b':
        return th_json_bool(va_arg(t->ap, int) != 0);
    case 'o':
        return va_arg(t->ap, struct th_json *);
    case 'f':
        return th_json_double(va_arg(t->ap, double));
    default:
        TH_ASSERT(!"conversion of a template");
        return NULL;
    }
}

static struct th_json *build_value(struct build *t);

static struct th_json *build_object(struct build *t)
{
    struct th_json *o = th_json_object();
    t->p++;
    build_space(t);
    if (*t->p == '}') {
        t->p++;
        return o;
    }
    for (;;) {
        build_space(t);
        th_autofree char *name = NULL;
        if (t->p[0] == '%' && t->p[1] == 's') {
            t->p += 2;
            name = th_xstrdup(va_arg(t->ap, const char *));
        } else {
            TH_ASSERT(*t->p == '\'');
            name = build_quoted(t);
        }
        build_expect(t, ':');
        th_json_set(o, name, build_value(t));
        build_space(t);
        if (*t->p != ',') {
            build_expect(t, '}');
            return o;
        }
        t->p++;
    }
}

static struct th_json *build_array(struct build *t)
{
    struct th_json *a = th_json_array();
    t->p++;
    build_space(t);
    if (*t->p == ']') {
        t->p++;
        return a;
    }
    for (;;) {
        th_json_append(a, build_value(t));
        build_space(t);
        if (*t->p != ',') {
            build_expect(t, ']');
            return a;
        }
        t->p++;
    }
}

static struct th_json *build_value(struct build *t)
{
    build_space(t);
    switch (*t->p) {
    case '{':
        return build_object(t);
    case '[':
        return build_array(t);
    case '%':
        return build_argument(t);
    case '\'': {
        th_autofree char *s = build_quoted(t);
        return th_json_string(s);
    }
    default: {
        size_t n = strcspn(t->p, ",]} \n\t");
        struct th_json *v = NULL;
        TH_ASSERT(th_json_parse(t->p, n, NULL, &v, NULL) == 0);
        t->p += n;
        return v;
    }
    }
}

struct th_json *th_json_build(const char *template, ...)
{
    struct build t = {.p = template};
    va_start(t.ap, template);
    struct th_json *o = build_value(&t);
    va_end(t.ap);
    build_space(&t);
    TH_ASSERT(*t.p == '\0');
    return o;
}
