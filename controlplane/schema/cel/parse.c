/*
 * From text to a tree.
 *
 * A recursive descent parser over CEL's grammar; the lexer is asked token by token. Macros are
 * recognized by their name and number of arguments, as in the language's definition, and become
 * nodes of their own (N_FOLD) in place of the general comprehension that they are defined by: the
 * evaluator can then keep a list that is being built instead of copying it at each step.
 *
 * Limits: nesting is bounded by MAX_DEPTH, text by TH_LIMIT_CEL_B. Faults are gathered with their
 * position; the first syntax error ends parsing.
 */
#include "base/limits.h"
#include "controlplane/schema/cel/cel_priv.h"

#include <errno.h>

#define MAX_DEPTH 100

enum token {
    TK_END,
    TK_IDENT,
    TK_INT,
    TK_UINT,
    TK_DOUBLE,
    TK_STRING,
    TK_BYTES,
    TK_OP,
    TK_BAD
};
struct parser {
    struct th_cel_prog *prog;
    const char *p, *end;
    enum token tok;
    const char *start; /* of the token */
    size_t len;
    char op[3];
    struct cel_val value;
    int depth;
    bool failed;
};

void cel_issue(struct th_cel_prog *p, uint32_t pos, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    th_autofree char *s = th_xvasprintf(fmt, ap);
    va_end(ap);
    p->issues.v = th_xgrow(p->issues.v, &p->issues.cap, p->issues.n + 1, sizeof(*p->issues.v));
    p->issues.v[p->issues.n++] =
        (struct cel_issue){.pos = pos, .msg = cel_strdup(&p->a, s, strlen(s))};
}

static uint32_t pos_of(const struct parser *s)
{
    return (uint32_t)(s->start - s->prog->text);
}

static struct cel_node *fail(struct parser *s, const char *msg)
{
    if (!s->failed) {
        cel_issue(s->prog, pos_of(s), "Syntax error: %s", msg);
    }
    s->failed = true;
    return NULL;
}

/* ---- Tokens ---- */

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static int hex_of(char c)
{
    return is_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                 : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                        : -1;
}

static void put_rune(struct th_buf *b, uint32_t c)
{
    if (c < 0x80) {
        th_buf_putc(b, (char)c);
    } else if (c < 0x800) {
        th_buf_putc(b, (char)(0xc0 | c >> 6));
        th_buf_putc(b, (char)(0x80 | (c & 0x3f)));
    } else if (c < 0x10000) {
        th_buf_putc(b, (char)(0xe0 | c >> 12));
        th_buf_putc(b, (char)(0x80 | (c >> 6 & 0x3f)));
        th_buf_putc(b, (char)(0x80 | (c & 0x3f)));
    } else {
        th_buf_putc(b, (char)(0xf0 | c >> 18));
        th_buf_putc(b, (char)(0x80 | (c >> 12 & 0x3f)));
        th_buf_putc(b, (char)(0x80 | (c >> 6 & 0x3f)));
        th_buf_putc(b, (char)(0x80 | (c & 0x3f)));
    }
}

/* Digits of a numeric escape; false when there are too few or the rune is none. */
static bool escape_number(struct parser *s, int digits, int base, bool bytes, struct th_buf *b)
{
    uint32_t v = 0;
    for (int i = 0; i < digits; i++) {
        int h = s->p < s->end ? hex_of(*s->p) : -1;
        if (h < 0 || h >= base) {
            return false;
        }
        v = v * (uint32_t)base + (uint32_t)h;
        s->p++;
    }
    if (bytes) {
        th_buf_putc(b, (char)v);
        return v < 256;
    }
    if (v > 0x10ffff || (v >= 0xd800 && v < 0xe000)) {
        return false;
    }
    put_rune(b, v);
    return true;
}

static bool escape(struct parser *s, bool bytes, struct th_buf *b)
{
    static const char letters[] = "abfnrtv\\'\"`?", codes[] = "\a\b\f\n\r\t\v\\'\"`?";
    char c = s->p < s->end ? *s->p : '\0';
    const char *at = c ? strchr(letters, c) : NULL;
    if (at) {
        th_buf_putc(b, codes[at - letters]);
        s->p++;
        return true;
    }
    if (c >= '0' && c <= '3') {
        return escape_number(s, 3, 8, bytes, b);
    }
    s->p++;
    return c == 'x' || c == 'X' ? escape_number(s, 2, 16, bytes, b)
           : c == 'u' && !bytes ? escape_number(s, 4, 16, false, b)
           : c == 'U' && !bytes ? escape_number(s, 8, 16, false, b)
                                : false;
}

/* At the opening quote. */
static void string_token(struct parser *s, bool raw, bool bytes)
{
    char q = *s->p;
    bool triple = s->end - s->p >= 3 && s->p[1] == q && s->p[2] == q;
    s->p += triple ? 3 : 1;
    th_autobuf struct th_buf b = TH_BUF_INIT;
    for (;;) {
        if (s->p >= s->end || (!triple && (*s->p == '\n' || *s->p == '\r'))) {
            s->tok = TK_BAD;
            return;
        }
        if (*s->p == q && (!triple || (s->end - s->p >= 3 && s->p[1] == q && s->p[2] == q))) {
            s->p += triple ? 3 : 1;
            break;
        }
        if (*s->p == '\\' && !raw) {
            s->p++;
            if (!escape(s, bytes, &b)) {
                s->tok = TK_BAD;
                return;
            }
            continue;
        }
        th_buf_putc(&b, *s->p++);
    }
    s->tok = bytes ? TK_BYTES : TK_STRING;
    s->value = (struct cel_val){.kind = bytes ? CEL_BYTES : CEL_STRING,
                                .s = {cel_strdup(&s->prog->a, th_buf_cstr(&b), b.n), b.n}};
}

static void number_token(struct parser *s)
{
    bool hex = s->end - s->p > 2 && s->p[0] == '0' && (s->p[1] == 'x' || s->p[1] == 'X');
    const char *from = s->p;
    bool real = false;
    s->p += hex ? 2 : 0;
    while (s->p < s->end && (hex ? hex_of(*s->p) >= 0 : is_digit(*s->p))) {
        s->p++;
    }
    if (!hex && s->p + 1 < s->end && *s->p == '.' && is_digit(s->p[1])) {
        real = true;
        for (s->p++; s->p < s->end && is_digit(*s->p); s->p++) {
        }
    }
    if (!hex && s->p < s->end && (*s->p == 'e' || *s->p == 'E')) {
        const char *q = s->p + 1;
        q += q < s->end && (*q == '+' || *q == '-');
        if (q < s->end && is_digit(*q)) {
            real = true;
            for (s->p = q; s->p < s->end && is_digit(*s->p); s->p++) {
            }
        }
    }
    th_autofree char *text = th_xstrndup(from, (size_t)(s->p - from));
    s->tok = real ? TK_DOUBLE : TK_INT;
    errno = 0;
    if (real) {
        s->value = cel_double(strtod(text, NULL));
        return;
    }
    unsigned long long u = strtoull(text, NULL, hex ? 16 : 10);
    if (s->p < s->end && (*s->p == 'u' || *s->p == 'U')) {
        s->p++;
        s->tok = TK_UINT;
        s->value = (struct cel_val){.kind = CEL_UINT, .u = u};
    } else {
        s->value = (struct cel_val){.kind = CEL_UINT, .u = u}; /* the sign is not known yet */
    }
    if (errno == ERANGE) {
        s->tok = TK_BAD;
    }
}

static void next(struct parser *s)
{
    for (;;) {
        while (s->p < s->end && strchr(" \t\r\n\f", *s->p)) {
            s->p++;
        }
        if (s->end - s->p >= 2 && s->p[0] == '/' && s->p[1] == '/') {
            while (s->p < s->end && *s->p != '\n') {
                s->p++;
            }
            continue;
        }
        break;
    }
    s->start = s->p;
    s->op[0] = '\0';
    if (s->p >= s->end) {
        s->tok = TK_END;
        s->len = 0;
        return;
    }
    /* r"", b"", rb"", br"" */
    size_t prefix = 0;
    bool raw = false, bytes = false;
    while (prefix < 2 && s->p + prefix < s->end && strchr("rRbB", s->p[prefix])) {
        raw |= s->p[prefix] == 'r' || s->p[prefix] == 'R';
        bytes |= s->p[prefix] == 'b' || s->p[prefix] == 'B';
        prefix++;
    }
    if (s->p + prefix < s->end && (s->p[prefix] == '"' || s->p[prefix] == '\'') &&
        (prefix < 2 || (raw && bytes))) {
        s->p += prefix;
        string_token(s, raw, bytes);
    } else if (is_letter(*s->p)) {
        s->tok = TK_IDENT;
        while (s->p < s->end && (is_letter(*s->p) || is_digit(*s->p))) {
            s->p++;
        }
    } else if (is_digit(*s->p) || (*s->p == '.' && s->p + 1 < s->end && is_digit(s->p[1]))) {
        number_token(s);
    } else {
        static const char *const ops[] = {"==", "!=", "<=", ">=", "&&", "||"};
        s->tok = TK_OP;
        size_t n = 1;
        for (size_t i = 0; i < TH_ARRAY_LEN(ops); i++) {
            n = s->end - s->p >= 2 && memcmp(s->p, ops[i], 2) == 0 ? 2 : n;
        }
        memcpy(s->op, s->p, n);
        s->op[n] = '\0';
        s->tok = n == 2 || strchr("+-*/%!<>=?:.,()[]{}", *s->p) ? TK_OP : TK_BAD;
        s->p += n;
    }
    s->len = (size_t)(s->p - s->start);
}

static bool is_op(const struct parser *s, const char *op)
{
    return s->tok == TK_OP && strcmp(s->op, op) == 0;
}

static bool is_word(const struct parser *s, const char *word)
{
    return s->tok == TK_IDENT && strlen(word) == s->len && memcmp(s->start, word, s->len) == 0;
}

static struct cel_node *unexpected(struct parser *s, const char *wanted)
{
    if (s->tok == TK_BAD) {
        return fail(s, cel_printf(&s->prog->a, "token recognition error at: '%.*s'",
                                  s->len ? (int)s->len : 1, s->start));
    }
    return fail(s, cel_printf(&s->prog->a, "mismatched input '%.*s' expecting %s",
                              s->tok == TK_END ? 5 : (int)s->len,
                              s->tok == TK_END ? "<EOF>" : s->start, wanted));
}

static bool expect(struct parser *s, const char *op)
{
    if (!is_op(s, op)) {
        (void)unexpected(s, cel_printf(&s->prog->a, "'%s'", op));
        return false;
    }
    next(s);
    return true;
}

/* ---- Nodes ---- */

static struct cel_node *node(struct parser *s, enum cel_node_kind kind, uint32_t pos)
{
    struct cel_node *n = cel_alloc(&s->prog->a, sizeof(*n));
    n->kind = kind;
    n->pos = pos;
    return n;
}

static struct cel_node *call(struct parser *s, uint32_t pos, const char *name,
                             struct cel_node *target, struct cel_node **args, size_t n)
{
    struct cel_node *c = node(s, N_CALL, pos);
    c->name = name;
    c->target = target;
    c->args = cel_alloc(&s->prog->a, (n + 1) * sizeof(*args));
    for (size_t i = 0; i < n; i++) {
        c->args[i] = args[i];
    }
    c->n_args = n;
    return c;
}

static struct cel_node *expr(struct parser *s);

struct args {
    struct cel_node **v;
    bool *optional;
    size_t n, cap, cap_opt;
    bool any_optional;
};

static void args_done(struct args *a)
{
    free(a->v);
    free(a->optional);
}

static void args_add(struct args *a, struct cel_node *n, bool optional)
{
    a->v = th_xgrow(a->v, &a->cap, a->n + 1, sizeof(struct cel_node *));
    a->optional = th_xgrow(a->optional, &a->cap_opt, a->n + 1, sizeof(*a->optional));
    a->v[a->n] = n;
    a->optional[a->n++] = optional;
    a->any_optional |= optional;
}

/* Expressions up to the closing bracket, which is taken. */
static bool parse_args(struct parser *s, const char *close, bool optionals, struct args *ret)
{
    while (!is_op(s, close)) {
        bool opt = optionals && is_op(s, "?");
        if (opt) {
            next(s);
        }
        struct cel_node *n = expr(s);
        if (!n) {
            return false;
        }
        args_add(ret, n, opt);
        if (!is_op(s, ",")) {
            break;
        }
        next(s);
        if (is_op(s, close) && strcmp(close, ")") == 0) {
            return unexpected(s, "an expression") != NULL;
        }
    }
    return expect(s, close);
}

static bool is_reserved(const char *s, size_t n)
{
    static const char *const words[] = {"as",     "break", "const",   "continue",  "else",
                                        "for",    "function", "if",   "import",    "let",
                                        "loop",   "package", "namespace", "return", "var",
                                        "void",   "while"};
    for (size_t i = 0; i < TH_ARRAY_LEN(words); i++) {
        if (strlen(words[i]) == n && memcmp(words[i], s, n) == 0) {
            return true;
        }
    }
    return false;
}

/* ---- Macros ---- */

struct macro {
    const char *name;
    size_t args;
    enum cel_fold fold;
    int vars; /* iteration variables */
    bool filter;
};
static const struct macro macros[] = {
    {"all", 2, FOLD_ALL, 1, false},
    {"exists", 2, FOLD_EXISTS, 1, false},
    {"exists_one", 2, FOLD_EXISTS_ONE, 1, false},
    {"existsOne", 2, FOLD_EXISTS_ONE, 1, false},
    {"map", 2, FOLD_MAP, 1, false},
    {"map", 3, FOLD_MAP, 1, true},
    {"filter", 2, FOLD_FILTER, 1, false},
    {"all", 3, FOLD_ALL, 2, false},
    {"exists", 3, FOLD_EXISTS, 2, false},
    {"existsOne", 3, FOLD_EXISTS_ONE, 2, false},
    {"exists_one", 3, FOLD_EXISTS_ONE, 2, false},
    {"transformList", 3, FOLD_TRANSFORM_LIST, 2, false},
    {"transformList", 4, FOLD_TRANSFORM_LIST, 2, true},
    {"transformMap", 3, FOLD_TRANSFORM_MAP, 2, false},
    {"transformMap", 4, FOLD_TRANSFORM_MAP, 2, true},
    {"transformMapEntry", 3, FOLD_TRANSFORM_ENTRY, 2, false},
    {"transformMapEntry", 4, FOLD_TRANSFORM_ENTRY, 2, true},
    {"sortBy", 2, FOLD_SORT_BY, 1, false},
    {"optMap", 2, FOLD_OPT_MAP, 1, false},
    {"optFlatMap", 2, FOLD_OPT_FLAT_MAP, 1, false},
};

static const struct macro *find_macro(const char *name, size_t n_args)
{
    for (size_t i = 0; i < TH_ARRAY_LEN(macros); i++) {
        if (strcmp(macros[i].name, name) == 0 && macros[i].args == n_args) {
            return &macros[i];
        }
    }
    return NULL;
}

static struct cel_node *expand(struct parser *s, const struct macro *m, uint32_t pos,
                               struct cel_node *target, const struct args *a)
{
    struct cel_node *f = node(s, N_FOLD, pos);
    f->fold = m->fold;
    f->target = target;
    size_t i = 0;
    for (; i < (size_t)m->vars; i++) {
        if (a->v[i]->kind != N_IDENT || a->v[i]->absolute) {
            if (!s->failed) {
                cel_issue(s->prog, a->v[i]->pos, "argument must be a simple name");
            }
            s->failed = true;
            return NULL;
        }
        *(i ? &f->name2 : &f->name) = a->v[i]->name;
    }
    f->filter = m->filter ? a->v[i++] : NULL;
    f->step = a->v[i];
    return f;
}

/* has(a.b) */
static struct cel_node *expand_has(struct parser *s, uint32_t pos, const struct args *a)
{
    if (a->n != 1 || a->v[0]->kind != N_SELECT || a->v[0]->test) {
        if (!s->failed) {
            cel_issue(s->prog, pos, "invalid argument to has() macro");
        }
        s->failed = true;
        return NULL;
    }
    struct cel_node *n = a->v[0];
    n->test = true;
    n->pos = pos;
    return n;
}

/* ---- Grammar ---- */

/* The node keeps what was collected, in the program's own memory. */
static void set_elements(struct parser *s, struct cel_node *n, const struct args *a)
{
    n->args = cel_alloc(&s->prog->a, (a->n + 1) * sizeof(struct cel_node *));
    n->n_args = a->n;
    n->optional = a->any_optional ? cel_alloc(&s->prog->a, a->n) : NULL;
    for (size_t i = 0; i < a->n; i++) {
        n->args[i] = a->v[i];
        if (n->optional) {
            n->optional[i] = a->optional[i];
        }
    }
}

static struct cel_node *list_literal(struct parser *s)
{
    struct cel_node *n = node(s, N_LIST, pos_of(s));
    next(s);
    TH_CLEANUP(args_done) struct args a = {.v = NULL};
    if (!parse_args(s, "]", true, &a)) {
        return NULL;
    }
    set_elements(s, n, &a);
    return n;
}

/* ": value" behind a key, or behind the name of a field (key NULL). */
static bool entry_value(struct parser *s, struct args *a, struct cel_node *key, bool opt)
{
    struct cel_node *v = expect(s, ":") ? expr(s) : NULL;
    if (!v) {
        return false;
    }
    if (key) {
        args_add(a, key, opt);
    }
    args_add(a, v, opt);
    return true;
}

static struct cel_node *map_literal(struct parser *s)
{
    struct cel_node *n = node(s, N_MAP, pos_of(s));
    next(s);
    TH_CLEANUP(args_done) struct args a = {.v = NULL};
    while (!is_op(s, "}")) {
        bool opt = is_op(s, "?");
        if (opt) {
            next(s);
        }
        struct cel_node *k = expr(s);
        if (!k || !entry_value(s, &a, k, opt)) {
            return NULL;
        }
        if (!is_op(s, ",")) {
            break;
        }
        next(s);
    }
    if (!expect(s, "}")) {
        return NULL;
    }
    set_elements(s, n, &a);
    return n;
}

static struct cel_node *literal(struct parser *s, struct cel_val v)
{
    struct cel_node *n = node(s, N_LIT, pos_of(s));
    n->lit = v;
    next(s);
    return n;
}

static struct cel_node *int_literal(struct parser *s, bool negative)
{
    uint64_t u = s->value.u, max = (uint64_t)INT64_MAX + (negative ? 1 : 0);
    if (s->tok == TK_INT && u > max) {
        return fail(s, "invalid int literal");
    }
    if (s->tok == TK_UINT) {
        return literal(s, s->value);
    }
    return literal(s, cel_int(negative ? (int64_t)(0 - u) : (int64_t)u));
}

/* A name, maybe called. */
static struct cel_node *name_or_call(struct parser *s, bool absolute, uint32_t pos)
{
    if (s->tok != TK_IDENT) {
        return unexpected(s, "IDENTIFIER");
    }
    if (is_reserved(s->start, s->len)) {
        return fail(s, cel_printf(&s->prog->a, "reserved identifier: %.*s", (int)s->len, s->start));
    }
    const char *name = cel_strdup(&s->prog->a, s->start, s->len);
    next(s);
    if (!is_op(s, "(")) {
        struct cel_node *n = node(s, N_IDENT, pos);
        n->name = name;
        n->absolute = absolute;
        return n;
    }
    uint32_t at = pos_of(s);
    next(s);
    TH_CLEANUP(args_done) struct args a = {.v = NULL};
    if (!parse_args(s, ")", false, &a)) {
        return NULL;
    }
    if (strcmp(name, "has") == 0 && !absolute) {
        return expand_has(s, at, &a);
    }
    return call(s, at, name, NULL, a.v, a.n);
}

static struct cel_node *primary(struct parser *s)
{
    switch (s->tok) {
    case TK_INT:
    case TK_UINT:
        return int_literal(s, false);
    case TK_DOUBLE:
    case TK_STRING:
    case TK_BYTES:
        return literal(s, s->value);
    case TK_IDENT:
        if (is_word(s, "true") || is_word(s, "false")) {
            return literal(s, cel_bool(is_word(s, "true")));
        }
        if (is_word(s, "null")) {
            return literal(s, (struct cel_val){.kind = CEL_NULL});
        }
        if (is_word(s, "in")) {
            return unexpected(s, "an expression");
        }
        return name_or_call(s, false, pos_of(s));
    case TK_OP:
        if (is_op(s, "(")) {
            next(s);
            struct cel_node *n = expr(s);
            return n && expect(s, ")") ? n : NULL;
        }
        if (is_op(s, "[")) {
            return list_literal(s);
        }
        if (is_op(s, "{")) {
            return map_literal(s);
        }
        if (is_op(s, ".")) {
            uint32_t pos = pos_of(s);
            next(s);
            return name_or_call(s, true, pos);
        }
        break;
    default:
        break;
    }
    return unexpected(s, "an expression");
}

/* "Object.spec" of a chain of names, or NULL. */
static const char *type_name(struct parser *s, const struct cel_node *n)
{
    if (n->kind == N_IDENT) {
        return n->name;
    }
    const char *of = n->kind == N_SELECT && !n->test && !n->opt_select ? type_name(s, n->target) : NULL;
    return of ? cel_printf(&s->prog->a, "%s.%s", of, n->name) : NULL;
}

/* Type{field: value, ?field: value}; at the brace. */
static struct cel_node *message_literal(struct parser *s, struct cel_node *type, const char *name)
{
    struct cel_node *n = node(s, N_MESSAGE, type->pos);
    n->name = name;
    next(s);
    TH_CLEANUP(args_done) struct args a = {.v = NULL};
    th_autostrv struct th_strv fields = TH_STRV_INIT;
    while (!is_op(s, "}")) {
        bool opt = is_op(s, "?");
        if (opt) {
            next(s);
        }
        if (s->tok != TK_IDENT) {
            return unexpected(s, "IDENTIFIER");
        }
        th_strv_take(&fields, th_xstrndup(s->start, s->len));
        next(s);
        if (!entry_value(s, &a, NULL, opt)) {
            return NULL;
        }
        if (!is_op(s, ",")) {
            break;
        }
        next(s);
    }
    if (!expect(s, "}")) {
        return NULL;
    }
    set_elements(s, n, &a);
    n->fields = cel_alloc(&s->prog->a, (a.n + 1) * sizeof(char *));
    for (size_t i = 0; i < a.n; i++) {
        n->fields[i] = cel_strdup(&s->prog->a, fields.v[i], strlen(fields.v[i]));
    }
    return n;
}

/* Behind a dot. */
static struct cel_node *select_or_call(struct parser *s, struct cel_node *of, uint32_t dot)
{
    bool opt = is_op(s, "?");
    if (opt) {
        next(s);
    }
    const char *name = NULL;
    if (s->tok == TK_OP || s->tok == TK_END || s->tok == TK_BAD) {
        const char *close = s->tok == TK_BAD && *s->start == '`'
                                ? memchr(s->start + 1, '`', (size_t)(s->end - s->start - 1))
                                : NULL;
        if (!close) {
            return unexpected(s, "IDENTIFIER");
        }
        name = cel_strdup(&s->prog->a, s->start + 1, (size_t)(close - s->start) - 1);
        s->p = close + 1;
    } else if (s->tok != TK_IDENT) {
        return unexpected(s, "IDENTIFIER");
    } else {
        name = cel_strdup(&s->prog->a, s->start, s->len);
    }
    next(s);
    if (is_op(s, "(") && !opt) {
        uint32_t at = pos_of(s);
        next(s);
        TH_CLEANUP(args_done) struct args a = {.v = NULL};
        if (!parse_args(s, ")", false, &a)) {
            return NULL;
        }
        const struct macro *m = find_macro(name, a.n);
        return m ? expand(s, m, at, of, &a) : call(s, at, name, of, a.v, a.n);
    }
    struct cel_node *n = node(s, N_SELECT, dot);
    n->name = name;
    n->target = of;
    n->opt_select = opt;
    return n;
}

static struct cel_node *member(struct parser *s)
{
    struct cel_node *n = primary(s);
    while (n) {
        uint32_t pos = pos_of(s);
        if (is_op(s, ".")) {
            next(s);
            n = select_or_call(s, n, pos);
        } else if (is_op(s, "[")) {
            next(s);
            bool opt = is_op(s, "?");
            if (opt) {
                next(s);
            }
            struct cel_node *args[2] = {n, expr(s)};
            if (!args[1] || !expect(s, "]")) {
                return NULL;
            }
            n = call(s, pos, opt ? "_[?_]" : "_[_]", NULL, args, 2);
        } else if (is_op(s, "{") && (n->kind == N_IDENT || n->kind == N_SELECT)) {
            const char *name = type_name(s, n);
            if (!name) {
                return unexpected(s, "<EOF>");
            }
            n = message_literal(s, n, name);
        } else {
            return n;
        }
    }
    return NULL;
}

static struct cel_node *unary(struct parser *s)
{
    uint32_t pos = pos_of(s);
    if (!is_op(s, "!") && !is_op(s, "-")) {
        return member(s);
    }
    if (++s->depth > MAX_DEPTH) {
        return fail(s, "expression recursion limit exceeded: 100");
    }
    const char *name = is_op(s, "!") ? "!_" : "-_";
    bool minus = name[0] == '-';
    next(s);
    struct cel_node *n = NULL;
    if (minus && s->tok == TK_INT) { /* so that the least int can be written */
        n = int_literal(s, true);
        s->depth--;
        return n;
    }
    if (minus && s->tok == TK_DOUBLE) {
        s->value.d = -s->value.d;
        s->depth--;
        return literal(s, s->value);
    }
    n = unary(s);
    s->depth--;
    return n ? call(s, pos, name, NULL, &n, 1) : NULL;
}

/* Binary operators by level, loosest first. */
static const struct {
    int level;
    const char *op, *name;
} binary[] = {
    {0, "||", "_||_"}, {1, "&&", "_&&_"}, {2, "==", "_==_"}, {2, "!=", "_!=_"},
    {2, "<", "_<_"},   {2, "<=", "_<=_"}, {2, ">", "_>_"},   {2, ">=", "_>=_"},
    {2, "in", "@in"},  {3, "+", "_+_"},   {3, "-", "_-_"},   {4, "*", "_*_"},
    {4, "/", "_/_"},   {4, "%", "_%_"},
};

static const char *operator_of(const struct parser *s, int level)
{
    for (size_t i = 0; i < TH_ARRAY_LEN(binary); i++) {
        if (binary[i].level == level &&
            (binary[i].op[0] == 'i' ? is_word(s, "in") : is_op(s, binary[i].op))) {
            return binary[i].name;
        }
    }
    return NULL;
}

static struct cel_node *level(struct parser *s, int l)
{
    if (l > 4) {
        return unary(s);
    }
    struct cel_node *n = level(s, l + 1);
    const char *name;
    while (n && (name = operator_of(s, l))) {
        uint32_t pos = pos_of(s);
        next(s);
        struct cel_node *args[2] = {n, level(s, l + 1)};
        n = args[1] ? call(s, pos, name, NULL, args, 2) : NULL;
    }
    return n;
}

static struct cel_node *expr(struct parser *s)
{
    if (++s->depth > MAX_DEPTH) {
        return fail(s, "expression recursion limit exceeded: 100");
    }
    struct cel_node *n = level(s, 0);
    if (n && is_op(s, "?")) {
        uint32_t pos = pos_of(s);
        next(s);
        struct cel_node *a = level(s, 0);
        if (!a || !expect(s, ":")) {
            return NULL;
        }
        struct cel_node *args[3] = {n, a, expr(s)};
        n = args[2] ? call(s, pos, "_?_:_", NULL, args, 3) : NULL;
    }
    s->depth--;
    return n;
}

struct cel_node *cel_parse(struct th_cel_prog *p)
{
    struct parser s = {.prog = p, .p = p->text, .end = p->text + strlen(p->text)};
    next(&s);
    struct cel_node *n = expr(&s);
    if (n && s.tok != TK_END) {
        n = unexpected(&s, "<EOF>");
    }
    return s.failed ? NULL : n;
}
