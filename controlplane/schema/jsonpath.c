/*
 * JSONPath in the dialect of k8s.io/client-go/util/jsonpath.
 *
 * A path is a list of steps; each takes a list of values and gives another. Filters hold two lists
 * of their own for the sides of a comparison. The template language around paths (text, range, end)
 * is kubectl's business and not here.
 *
 * Errors in finding (an index past the end) make the whole result an error, as upstream; callers
 * show an empty cell then. Members that are not there are no error.
 *
 * Limits: a path is part of an object and so bounded by its size; nesting of filters and unions by
 * MAX_DEPTH; values found by the size of the object times the steps.
 */
#include "controlplane/schema/jsonpath.h"

#define MAX_DEPTH 16
#define MAX_FOUND 100000

enum step_kind { S_FIELD, S_ARRAY, S_WILDCARD, S_RECURSIVE, S_UNION, S_FILTER, S_CONST };
struct step {
    enum step_kind kind;
    char *name;                 /* S_FIELD */
    int64_t index[3];           /* S_ARRAY: from, to, step */
    bool known[3], derived;
    struct th_jsonpath **lists; /* S_UNION; S_FILTER: left, right */
    size_t n_lists;
    char op[3];                 /* S_FILTER; "" asks whether it is there */
    struct th_json *value;      /* S_CONST */
};
struct th_jsonpath {
    struct step *v;
    size_t n, cap;
};
struct parser {
    const char *p, *end;
    int depth;
    struct th_err *err;
};

void th_jsonpath_free(struct th_jsonpath *p)
{
    for (size_t i = 0; p && i < p->n; i++) {
        struct step *s = &p->v[i];
        free(s->name);
        for (size_t k = 0; k < s->n_lists; k++) {
            th_jsonpath_free(s->lists[k]);
        }
        free(s->lists);
        th_json_unref(s->value);
    }
    if (p) {
        free(p->v);
        free(p);
    }
}

static struct step *add(struct th_jsonpath *p, enum step_kind kind)
{
    p->v = th_xgrow(p->v, &p->cap, p->n + 1, sizeof(*p->v));
    p->v[p->n] = (struct step){.kind = kind};
    return &p->v[p->n++];
}

static int fail(struct parser *s, const char *what)
{
    return th_fail(s->err, TH_R_BAD_REQUEST, "%s", what);
}

static bool ends_name(char c)
{
    return strchr(" \t\r\n.,[]$@{}", c) != NULL; /* the NUL too */
}

static bool starts_word(char c)
{
    return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c >= '0' && c <= '9') || (unsigned char)c >= 0x80;
}

static int parse_list(struct parser *s, struct th_jsonpath *out);

static int parse_sub(struct parser *s, const char *from, const char *to, struct th_jsonpath **ret)
{
    if (s->depth >= MAX_DEPTH) {
        return fail(s, "the path nests too deeply");
    }
    TH_AUTO(th_jsonpath) struct th_jsonpath *sub = TH_NEW(struct th_jsonpath);
    struct parser inner = {.p = from, .end = to, .depth = s->depth + 1, .err = s->err};
    TH_TRY(parse_list(&inner, sub));
    *ret = th_steal(&sub);
    return 0;
}

static int parse_field(struct parser *s, struct th_jsonpath *out)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    while (s->p < s->end && !ends_name(*s->p)) {
        if (*s->p == '\\' && s->p + 1 < s->end) {
            s->p++;
        }
        th_buf_putc(&b, *s->p++);
    }
    if (th_streq(th_buf_cstr(&b), "*")) {
        (void)add(out, S_WILDCARD);
    } else {
        add(out, S_FIELD)->name = th_xstrdup(th_buf_cstr(&b));
    }
    return 0;
}

/* "text" or 'text'. */
static int parse_quote(struct parser *s, struct th_jsonpath *out)
{
    char quote = *s->p++;
    th_autobuf struct th_buf b = TH_BUF_INIT;
    while (s->p < s->end && *s->p != quote) {
        if (*s->p == '\\' && s->p + 1 < s->end) {
            s->p++;
            char c = *s->p++;
            const char *at = strchr("nrt", c);
            th_buf_putc(&b, at && c ? "\n\r\t"[at - "nrt"] : c);
            continue;
        }
        th_buf_putc(&b, *s->p++);
    }
    if (s->p >= s->end) {
        return fail(s, "unterminated quoted string");
    }
    s->p++;
    add(out, S_CONST)->value = th_json_string(th_buf_cstr(&b));
    return 0;
}

static int parse_number(struct parser *s, struct th_jsonpath *out)
{
    const char *from = s->p;
    s->p += *s->p == '+' || *s->p == '-';
    bool dot = false;
    for (; s->p < s->end && ((*s->p >= '0' && *s->p <= '9') || *s->p == '.'); s->p++) {
        dot = dot || *s->p == '.';
    }
    th_autofree char *text = th_xstrndup(from, (size_t)(s->p - from));
    char *end = NULL;
    struct th_json *v = dot ? th_json_double(strtod(text, &end)) : th_json_int(strtoll(text, &end, 10));
    if (*end || end == text) {
        th_json_unref(v);
        return th_fail(s->err, TH_R_BAD_REQUEST, "cannot parse number %s", text);
    }
    add(out, S_CONST)->value = v;
    return 0;
}

static int parse_word(struct parser *s, struct th_jsonpath *out)
{
    const char *from = s->p;
    while (s->p < s->end && !ends_name(*s->p)) {
        s->p++;
    }
    struct th_str word = {from, (size_t)(s->p - from)};
    bool yes = th_str_eq(word, TH_STR("true"));
    if (!yes && !th_str_eq(word, TH_STR("false"))) {
        return th_fail(s->err, TH_R_BAD_REQUEST, "unrecognized identifier %.*s", (int)word.n,
                       word.p);
    }
    add(out, S_CONST)->value = th_json_bool(yes);
    return 0;
}

static const char *operator_at(const char *from, const char *to, size_t *ret_n)
{
    for (const char *p = from; p < to; p++) {
        if (strchr("!<>=", *p) && p > from) {
            size_t n = 1;
            while (p + n < to && strchr("!<>=", p[n])) {
                n++;
            }
            *ret_n = n;
            return p + n < to ? p : NULL;
        }
    }
    return NULL;
}

/* Behind "[?(". */
static int parse_filter(struct parser *s, struct th_jsonpath *out)
{
    const char *from = s->p;
    char quote = '\0';
    for (; s->p < s->end && (quote || *s->p != ')'); s->p++) {
        if (quote ? *s->p == quote && s->p[-1] != '\\' : *s->p == '"' || *s->p == '\'') {
            quote = quote ? '\0' : *s->p;
        }
    }
    if (s->p >= s->end) {
        return fail(s, "unterminated filter");
    }
    const char *to = s->p++;
    if (s->p >= s->end || *s->p++ != ']') {
        return fail(s, "unclosed array expect ]");
    }
    size_t n = 0;
    const char *op = operator_at(from, to, &n);
    if (op && n > 2) {
        return fail(s, "unrecognized filter operator");
    }
    struct th_jsonpath *left = NULL, *right = NULL;
    TH_TRY(parse_sub(s, from, op ? op : to, &left));
    int r = op ? parse_sub(s, op + n, to, &right) : 0;
    if (r < 0) {
        th_jsonpath_free(left);
        return r;
    }
    struct step *f = add(out, S_FILTER);
    f->lists = th_xcalloc(2, sizeof(struct th_jsonpath *));
    f->lists[0] = left;
    f->lists[1] = right;
    f->n_lists = 2;
    if (op) {
        memcpy(f->op, op, n);
    }
    return 0;
}

static int parse_union(struct parser *s, const char *from, const char *to, struct th_jsonpath *out)
{
    size_t at = out->n;
    (void)add(out, S_UNION);
    for (;;) {
        const char *comma = memchr(from, ',', (size_t)(to - from));
        const char *e = comma ? comma : to;
        while (from < e && *from == ' ') {
            from++;
        }
        const char *last = e;
        while (last > from && last[-1] == ' ') {
            last--;
        }
        th_autofree char *text = th_xasprintf("[%.*s]", (int)(last - from), from);
        struct th_jsonpath *one = NULL;
        TH_TRY(parse_sub(s, text, text + strlen(text), &one));
        struct step *u = &out->v[at];
        u->lists = th_xrealloc(u->lists, (u->n_lists + 1) * sizeof(struct th_jsonpath *));
        u->lists[u->n_lists++] = one;
        if (!comma) {
            return 0;
        }
        from = comma + 1;
    }
}

/* "1", "-1", "1:", ":2", "0:3:2", "" : from, to, step. */
static int parse_index(struct parser *s, const char *from, const char *to, struct th_jsonpath *out)
{
    th_autofree char *text = th_xstrndup(from, (size_t)(to - from));
    if (th_streq(text, "*")) {
        text[0] = ':';
    }
    th_autostrv struct th_strv parts = TH_STRV_INIT;
    th_strv_split(&parts, text, ':');
    struct step a = {.kind = S_ARRAY};
    for (size_t i = 0; i < 3 && i < parts.n; i++) {
        char *end = NULL;
        a.known[i] = *parts.v[i] != '\0';
        a.index[i] = strtoll(parts.v[i], &end, 10);
        if (*end || parts.n > 3) {
            return th_fail(s->err, TH_R_BAD_REQUEST, "invalid array index %s", text);
        }
    }
    if (parts.n == 1) {
        a.known[1] = true;
        a.index[1] = a.index[0] + 1;
        a.derived = true;
    }
    *add(out, S_ARRAY) = a;
    return 0;
}

/* At "[". */
static int parse_array(struct parser *s, struct th_jsonpath *out)
{
    const char *from = ++s->p;
    while (s->p < s->end && *s->p != ']') {
        s->p++;
    }
    if (s->p >= s->end) {
        return fail(s, "unterminated array");
    }
    const char *to = s->p++;
    if (memchr(from, ',', (size_t)(to - from))) {
        return parse_union(s, from, to, out);
    }
    if (to - from >= 2 && *from == '\'' && to[-1] == '\'') {
        add(out, S_FIELD)->name = th_xstrndup(from + 1, (size_t)(to - from) - 2);
        return 0;
    }
    return parse_index(s, from, to, out);
}

static int parse_list(struct parser *s, struct th_jsonpath *out)
{
    while (s->p < s->end) {
        size_t left = (size_t)(s->end - s->p);
        char c = *s->p;
        if (left >= 3 && memcmp(s->p, "[?(", 3) == 0) {
            s->p += 3;
            TH_TRY(parse_filter(s, out));
        } else if (left >= 2 && memcmp(s->p, "..", 2) == 0) {
            if (out->n && out->v[out->n - 1].kind == S_RECURSIVE) {
                return fail(s, "invalid multiple recursive descent");
            }
            s->p += 2;
            (void)add(out, S_RECURSIVE);
            if (s->p < s->end && starts_word(*s->p)) {
                TH_TRY(parse_field(s, out));
            }
        } else if (c == ' ' || c == '@' || c == '$') {
            s->p++;
        } else if (c == '[') {
            TH_TRY(parse_array(s, out));
        } else if (c == '"' || c == '\'') {
            TH_TRY(parse_quote(s, out));
        } else if (c == '.') {
            s->p++;
            TH_TRY(parse_field(s, out));
        } else if (c == '+' || c == '-' || (c >= '0' && c <= '9')) {
            TH_TRY(parse_number(s, out));
        } else if (starts_word(c)) {
            TH_TRY(parse_word(s, out));
        } else {
            return th_fail(s->err, TH_R_BAD_REQUEST,
                           "unrecognized character in action: U+%04X '%c'", (unsigned char)c, c);
        }
    }
    return 0;
}

int th_jsonpath_parse(const char *path, struct th_jsonpath **ret, struct th_err *err)
{
    struct parser s = {.p = path, .end = path + strlen(path), .err = err};
    TH_AUTO(th_jsonpath) struct th_jsonpath *p = TH_NEW(struct th_jsonpath);
    TH_TRY(parse_list(&s, p));
    *ret = th_steal(&p);
    return 0;
}

/* ---- Finding ---- */

void th_jsonpath_found_done(struct th_jsonpath_found *f)
{
    free(f->v);
    *f = (struct th_jsonpath_found){.v = NULL};
}

static int put(struct th_jsonpath_found *f, const struct th_json *v, struct th_err *err)
{
    if (f->n >= MAX_FOUND) {
        return th_fail(err, TH_R_TOO_LARGE, "the path finds too much");
    }
    f->v = th_xgrow(f->v, &f->cap, f->n + 1, sizeof(*f->v));
    f->v[f->n++] = v;
    return 0;
}

static int find_in(const struct th_jsonpath *p, const struct th_json *v,
                   struct th_jsonpath_found *out, struct th_err *err);

static int find_array(const struct step *s, const struct th_json *v, struct th_jsonpath_found *out,
                      struct th_err *err)
{
    if (!v) {
        return 0;
    }
    if (!th_json_is(v, TH_JSON_ARRAY)) {
        return th_fail(err, TH_R_BAD_REQUEST, "the value is not array or slice");
    }
    int64_t n = (int64_t)th_json_len(v);
    int64_t from = s->known[0] ? s->index[0] : 0, to = s->known[1] ? s->index[1] : n;
    from += from < 0 ? n : 0;
    to += to < 0 || (to == 0 && s->derived) ? n : 0;
    if (to == from) {
        return 0;
    }
    if (from < 0 || from >= n || to < 0 || to > n || from > to) {
        return th_fail(err, TH_R_BAD_REQUEST, "array index out of bounds: index %lld, length %lld",
                       (long long)from, (long long)n);
    }
    int64_t step = s->known[2] ? s->index[2] : 1;
    if (step <= 0) {
        return th_fail(err, TH_R_BAD_REQUEST, "step must be > 0");
    }
    for (int64_t i = from; i < to; i += step) {
        TH_TRY(put(out, th_json_at(v, (size_t)i), err));
    }
    return 0;
}

static int each_child(const struct th_json *v, struct th_jsonpath_found *out, struct th_err *err)
{
    for (size_t i = 0; th_json_is(v, TH_JSON_ARRAY) && i < th_json_len(v); i++) {
        TH_TRY(put(out, th_json_at(v, i), err));
    }
    struct th_json_iter it = TH_JSON_ITER(th_json_is(v, TH_JSON_OBJECT) ? v : NULL);
    while (th_json_next(&it)) {
        TH_TRY(put(out, it.value, err));
    }
    return 0;
}

static int find_recursive(const struct th_json *v, struct th_jsonpath_found *out,
                          struct th_err *err)
{
    TH_CLEANUP(th_jsonpath_found_done) struct th_jsonpath_found children = {.v = NULL};
    TH_TRY(each_child(v, &children, err));
    if (children.n) {
        TH_TRY(put(out, v, err));
    }
    for (size_t i = 0; i < children.n; i++) {
        TH_TRY(find_recursive(children.v[i], out, err));
    }
    return 0;
}

/* -1, 0, 1; -2 when they cannot be compared. */
static int compare(const struct th_json *a, const struct th_json *b)
{
    if (th_json_str(a) && th_json_str(b)) {
        int c = strcmp(th_json_str(a), th_json_str(b));
        return (c > 0) - (c < 0);
    }
    bool na = th_json_is(a, TH_JSON_INT) || th_json_is(a, TH_JSON_DOUBLE);
    bool nb = th_json_is(b, TH_JSON_INT) || th_json_is(b, TH_JSON_DOUBLE);
    if (na && nb) {
        double x = th_json_as_double(a, 0), y = th_json_as_double(b, 0);
        return (x > y) - (x < y);
    }
    if (th_json_is(a, TH_JSON_BOOL) && th_json_is(b, TH_JSON_BOOL)) {
        return (int)th_json_as_bool(a, false) - (int)th_json_as_bool(b, false);
    }
    return -2;
}

static bool passes(const char *op, int c)
{
    return th_streq(op, "==")   ? c == 0
           : th_streq(op, "!=") ? c != 0
           : th_streq(op, "<")  ? c < 0
           : th_streq(op, ">")  ? c > 0
           : th_streq(op, "<=") ? c <= 0
                                : c >= 0;
}

static int find_filter(const struct step *s, const struct th_json *v, struct th_jsonpath_found *out,
                       struct th_err *err)
{
    if (!th_json_is(v, TH_JSON_ARRAY)) {
        return th_fail(err, TH_R_BAD_REQUEST, "the value is not array or slice and cannot be filtered");
    }
    for (size_t i = 0; i < th_json_len(v); i++) {
        const struct th_json *e = th_json_at(v, i);
        TH_CLEANUP(th_jsonpath_found_done) struct th_jsonpath_found left = {.v = NULL};
        TH_CLEANUP(th_jsonpath_found_done) struct th_jsonpath_found right = {.v = NULL};
        TH_TRY(find_in(s->lists[0], e, &left, err));
        if (!*s->op) {
            if (left.n) {
                TH_TRY(put(out, e, err));
            }
            continue;
        }
        TH_TRY(find_in(s->lists[1], e, &right, err));
        if (left.n == 0 || right.n == 0) {
            continue;
        }
        if (left.n > 1 || right.n > 1) {
            return th_fail(err, TH_R_BAD_REQUEST, "can only compare one element at a time");
        }
        int c = compare(left.v[0], right.v[0]);
        if (c == -2) {
            return th_fail(err, TH_R_BAD_REQUEST, "incompatible types for comparison");
        }
        if (passes(s->op, c)) {
            TH_TRY(put(out, e, err));
        }
    }
    return 0;
}

static int find_step(const struct step *s, const struct th_json *v, struct th_jsonpath_found *out,
                     struct th_err *err)
{
    switch (s->kind) {
    case S_FIELD:
        if (*s->name == '\0') {
            return put(out, v, err); /* "." alone is the object itself */
        }
        return th_json_is(v, TH_JSON_OBJECT) && th_json_has(v, s->name)
                   ? put(out, th_json_get(v, s->name), err)
                   : 0;
    case S_ARRAY:
        return find_array(s, v, out, err);
    case S_WILDCARD:
        return each_child(v, out, err);
    case S_RECURSIVE:
        return find_recursive(v, out, err);
    case S_UNION:
        for (size_t i = 0; i < s->n_lists; i++) {
            TH_TRY(find_in(s->lists[i], v, out, err));
        }
        return 0;
    case S_FILTER:
        return find_filter(s, v, out, err);
    case S_CONST:
        return put(out, s->value, err);
    }
    return 0;
}

static int find_in(const struct th_jsonpath *p, const struct th_json *v,
                   struct th_jsonpath_found *out, struct th_err *err)
{
    struct th_jsonpath_found now = {.v = NULL};
    TH_TRY(put(&now, v, err));
    int r = 0;
    for (size_t i = 0; i < p->n && r >= 0; i++) {
        struct th_jsonpath_found next = {.v = NULL};
        for (size_t k = 0; k < now.n && r >= 0; k++) {
            r = find_step(&p->v[i], now.v[k], &next, err);
        }
        th_jsonpath_found_done(&now);
        now = next;
    }
    for (size_t k = 0; k < now.n && r >= 0; k++) {
        r = put(out, now.v[k], err);
    }
    th_jsonpath_found_done(&now);
    return r;
}

int th_jsonpath_find(const struct th_jsonpath *p, const struct th_json *obj,
                     struct th_jsonpath_found *ret, struct th_err *err)
{
    struct th_jsonpath_found f = {.v = NULL};
    int r = find_in(p, obj, &f, err);
    if (r < 0) {
        th_jsonpath_found_done(&f);
        return r;
    }
    *ret = f;
    return 0;
}
