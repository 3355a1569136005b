/*
 * Label selectors. Three spellings (a query string, a LabelSelector object, a plain map) and the
 * node affinity's fourth become one list of requirements, sorted by key, that all have to hold.
 *
 * The query grammar is upstream's, quirks included: "in" and "notin" are words only where an
 * operator is expected, "x in (,)" means the empty value, "a=" matches the empty value, and an
 * empty string matches everything. Every fault has upstream's sentence, since kubectl shows it to
 * the user.
 *
 * A selector that matches nothing is a value of its own and differs from an empty one: a null
 * LabelSelector selects no object, an empty one all of them.
 */
#include "controlplane/schema/selector.h"
#include "controlplane/schema/names.h"
#include "controlplane/schema/gotext.h"
#include "base/limits.h"
#include <errno.h>

enum op { OP_IN, OP_NOT_IN, OP_EQ, OP_EQ2, OP_NE, OP_GT, OP_LT, OP_EXISTS, OP_NOT_EXISTS };

struct requirement {
    char *key;
    enum op op;
    struct th_strv values; /* sorted, without duplicates */
};

struct th_selector {
    struct requirement *reqs; /* sorted by key, stable */
    size_t n, cap;
    bool nothing;
};

static void requirement_done(struct requirement *r)
{
    free(r->key);
    th_strv_done(&r->values);
}

void th_selector_free(struct th_selector *s)
{
    if (!s) {
        return;
    }
    for (size_t i = 0; i < s->n; i++) {
        requirement_done(&s->reqs[i]);
    }
    free(s->reqs);
    free(s);
}

struct th_selector *th_selector_everything(void)
{
    return TH_NEW(struct th_selector);
}

struct th_selector *th_selector_nothing(void)
{
    struct th_selector *s = TH_NEW(struct th_selector);
    s->nothing = true;
    return s;
}

bool th_selector_empty(const struct th_selector *s)
{
    return !s->nothing && s->n == 0;
}

bool th_selector_is_nothing(const struct th_selector *s)
{
    return s->nothing;
}

/* Keeps the list sorted; equal keys stay in the order they came in. */
static void add_requirement(struct th_selector *s, struct requirement *r)
{
    s->reqs = th_xgrow(s->reqs, &s->cap, s->n + 1, sizeof(*s->reqs));
    size_t i = s->n++;
    while (i > 0 && strcmp(s->reqs[i - 1].key, r->key) > 0) {
        s->reqs[i] = s->reqs[i - 1];
        i--;
    }
    s->reqs[i] = *r;
    *r = (struct requirement){.key = NULL};
}

static void add_value(struct requirement *r, const char *v)
{
    if (!th_strv_has(&r->values, v)) {
        th_strv_add(&r->values, v);
    }
}

/* ---- Validation, in the words of field errors ---- */

static bool parse_int(const char *s, int64_t *ret)
{
    const char *digits = s + (*s == '+' || *s == '-');
    if (*digits == '\0' || digits[strspn(digits, "0123456789")]) {
        return false;
    }
    errno = 0;
    long long v = strtoll(s, NULL, 10);
    *ret = v;
    return errno == 0;
}

static void add_fault(struct th_strv *faults, const char *path, const char *value, const char *what)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_buf_printf(&b, "%s: Invalid value: ", path);
    th_go_quote(&b, value);
    th_buf_printf(&b, ": %s", what);
    th_strv_add(faults, th_buf_cstr(&b));
}

static char *join_messages(enum th_name_format f, const char *s)
{
    const char *v[TH_NAME_MSGS];
    size_t n = th_name_messages(f, s, v);
    if (n == 0) {
        return NULL;
    }
    th_autobuf struct th_buf b = TH_BUF_INIT;
    for (size_t i = 0; i < n; i++) {
        th_buf_printf(&b, "%s%s", i ? "; " : "", v[i]);
    }
    return th_buf_steal(&b, NULL);
}

static void count_fault(struct th_strv *faults, const struct requirement *r, const char *what)
{
    TH_AUTO(th_json) struct th_json *list = th_json_array();
    for (size_t i = 0; i < r->values.n; i++) {
        th_json_append_str(list, r->values.v[i]);
    }
    th_autofree char *text = th_json_to_string(list);
    th_strv_addf(faults, "values: Invalid value: %s: %s", text, what);
}

/* Takes the faults' text as an aggregate prints it: one as it is, several in brackets. */
static int fail_faults(struct th_strv *faults, struct th_err *err)
{
    if (faults->n == 1) {
        return th_fail(err, TH_R_BAD_REQUEST, "%s", faults->v[0]);
    }
    th_autofree char *all = th_strv_join(faults, ", ");
    return th_fail(err, TH_R_BAD_REQUEST, "[%s]", all);
}

static int check_requirement(const struct requirement *r, struct th_err *err)
{
    th_autostrv struct th_strv faults = TH_STRV_INIT;
    th_autofree char *key_fault = join_messages(TH_NAME_QUALIFIED, r->key);
    if (key_fault) {
        add_fault(&faults, "key", r->key, key_fault);
    }
    size_t n = r->values.n;
    switch (r->op) {
    case OP_IN:
    case OP_NOT_IN:
        if (n == 0) {
            count_fault(&faults, r, "for 'in', 'notin' operators, values set can't be empty");
        }
        break;
    case OP_EQ:
    case OP_EQ2:
    case OP_NE:
        if (n != 1) {
            count_fault(&faults, r, "exact-match compatibility requires one single value");
        }
        break;
    case OP_EXISTS:
    case OP_NOT_EXISTS:
        if (n != 0) {
            count_fault(&faults, r, "values set must be empty for exists and does not exist");
        }
        break;
    case OP_GT:
    case OP_LT:
        if (n != 1) {
            count_fault(&faults, r, "for 'Gt', 'Lt' operators, exactly one value is required");
        }
        for (size_t i = 0; i < n; i++) {
            int64_t v;
            if (!parse_int(r->values.v[i], &v)) {
                th_autofree char *path = th_xasprintf("values[%zu]", i);
                add_fault(&faults, path, r->values.v[i],
                          "for 'Gt', 'Lt' operators, the value must be an integer");
            }
        }
        break;
    }
    for (size_t i = 0; i < n; i++) {
        th_autofree char *fault = join_messages(TH_NAME_LABEL_VALUE, r->values.v[i]);
        if (fault) {
            th_autofree char *path = th_xasprintf("values[%zu][%s]", i, r->key);
            add_fault(&faults, path, r->values.v[i], fault);
        }
    }
    return faults.n ? fail_faults(&faults, err) : 0;
}

/* ---- The query form ---- */

enum token { T_END, T_WORD, T_IN, T_NOTIN, T_OPEN, T_CLOSE, T_COMMA, T_NOT, T_EQ, T_EQ2, T_NE, T_GT, T_LT };

struct lexer {
    const char *p;
    enum token tok; /* the current token; "in" and "notin" are T_IN and T_NOTIN */
    char *text;     /* its text, owned */
};

static void next(struct lexer *l)
{
    static const char special[] = "=!(),><";
    l->p += strspn(l->p, " \t\r\n");
    const char *start = l->p;
    l->tok = T_END;
    if (*start == '\0') {
        /* stays at the end */
    } else if (strchr(special, *start)) {
        static const enum token kinds[] = {T_EQ, T_NOT, T_OPEN, T_CLOSE, T_COMMA, T_GT, T_LT};
        l->tok = kinds[strchr(special, *start) - special];
        l->p++;
        if ((l->tok == T_EQ || l->tok == T_NOT) && *l->p == '=') {
            l->tok = l->tok == T_EQ ? T_EQ2 : T_NE;
            l->p++;
        }
    } else {
        l->p += strcspn(l->p, "=!(),>< \t\r\n");
        size_t n = (size_t)(l->p - start);
        l->tok = n == 2 && memcmp(start, "in", 2) == 0      ? T_IN
                 : n == 5 && memcmp(start, "notin", 5) == 0 ? T_NOTIN
                                                            : T_WORD;
    }
    free(l->text);
    l->text = th_xstrndup(start, (size_t)(l->p - start));
}

static bool is_word(enum token t)
{
    return t == T_WORD || t == T_IN || t == T_NOTIN;
}

static int unexpected(const struct lexer *l, const char *expected, struct th_err *err)
{
    return th_fail(err, TH_R_BAD_REQUEST, "found '%s', expected: %s", l->text, expected);
}

/* "(a,,b)" and friends. */
static int parse_set(struct lexer *l, struct requirement *r, struct th_err *err)
{
    if (l->tok != T_OPEN) {
        return th_fail(err, TH_R_BAD_REQUEST, "found '%s' expected: '('", l->text);
    }
    next(l);
    if (l->tok == T_CLOSE) {
        add_value(r, "");
        next(l);
        return 0;
    }
    if (!is_word(l->tok) && l->tok != T_COMMA) {
        return unexpected(l, "',', ')' or identifier", err);
    }
    for (;;) {
        if (is_word(l->tok)) {
            add_value(r, l->text);
            next(l);
            if (l->tok == T_CLOSE) {
                break;
            }
            if (l->tok != T_COMMA) {
                return unexpected(l, "',' or ')'", err);
            }
        } else if (l->tok == T_COMMA) {
            bool leading = r->values.n == 0;
            next(l);
            if (leading || l->tok == T_COMMA || l->tok == T_CLOSE) {
                add_value(r, "");
            }
            if (l->tok == T_CLOSE) {
                break;
            }
        } else {
            return unexpected(l, "',', or identifier", err);
        }
    }
    next(l);
    return 0;
}

static int parse_operator(struct lexer *l, struct requirement *r, struct th_err *err)
{
    static const enum op ops[] = {[T_IN] = OP_IN,  [T_NOTIN] = OP_NOT_IN, [T_EQ] = OP_EQ,
                                  [T_EQ2] = OP_EQ2, [T_NE] = OP_NE,        [T_GT] = OP_GT,
                                  [T_LT] = OP_LT};
    switch (l->tok) {
    case T_IN:
    case T_NOTIN:
    case T_EQ:
    case T_EQ2:
    case T_NE:
    case T_GT:
    case T_LT:
        r->op = ops[l->tok];
        next(l);
        return 0;
    default:
        return unexpected(l, "in, notin, =, ==, !=, gt, lt", err);
    }
}

static int parse_requirement(struct lexer *l, struct requirement *r, struct th_err *err)
{
    bool negated = l->tok == T_NOT;
    if (negated) {
        next(l);
    }
    if (!is_word(l->tok)) {
        return unexpected(l, "identifier", err);
    }
    r->key = th_xstrdup(l->text);
    th_autofree char *fault = join_messages(TH_NAME_QUALIFIED, r->key);
    if (fault) {
        /* Upstream prints its missing field path this way. */
        th_autostrv struct th_strv faults = TH_STRV_INIT;
        add_fault(&faults, "<nil>", r->key, fault);
        return fail_faults(&faults, err);
    }
    next(l);
    if (negated || l->tok == T_END || l->tok == T_COMMA) {
        r->op = negated ? OP_NOT_EXISTS : OP_EXISTS;
        return check_requirement(r, err);
    }
    TH_TRY(parse_operator(l, r, err));
    if (r->op == OP_IN || r->op == OP_NOT_IN) {
        TH_TRY(parse_set(l, r, err));
    } else if (l->tok == T_END || l->tok == T_COMMA) {
        add_value(r, "");
    } else if (is_word(l->tok)) {
        add_value(r, l->text);
        next(l);
    } else {
        return unexpected(l, "identifier", err);
    }
    th_strv_sort(&r->values);
    return check_requirement(r, err);
}

static int parse_query(struct lexer *l, struct th_selector *s, struct th_err *err)
{
    next(l);
    if (l->tok == T_END) {
        return 0;
    }
    if (!is_word(l->tok) && l->tok != T_NOT) {
        return unexpected(l, "!, identifier, or 'end of string'", err);
    }
    for (;;) {
        struct requirement r = {.key = NULL};
        int rc = parse_requirement(l, &r, err);
        if (rc < 0) {
            requirement_done(&r);
            return th_wrap(err, "unable to parse requirement");
        }
        add_requirement(s, &r);
        if (l->tok == T_END) {
            return 0;
        }
        if (l->tok != T_COMMA) {
            return unexpected(l, "',' or 'end of string'", err);
        }
        next(l);
        if (!is_word(l->tok) && l->tok != T_NOT) {
            return unexpected(l, "identifier after ','", err);
        }
    }
}

int th_selector_parse(const char *s, struct th_selector **ret, struct th_err *err)
{
    s = s ? s : "";
    if (strlen(s) > TH_LIMIT_SELECTOR_B) {
        return th_fail(err, TH_R_BAD_REQUEST, "label selector is longer than %u bytes",
                       TH_LIMIT_SELECTOR_B);
    }
    TH_AUTO(th_selector) struct th_selector *sel = th_selector_everything();
    struct lexer l = {.p = s};
    /* th_wrap works on the error that the caller sees, or on one that nobody does. */
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    int rc = parse_query(&l, sel, err ? err : &local);
    free(l.text);
    TH_TRY(rc);
    *ret = th_steal(&sel);
    return 0;
}

/* ---- The object forms ---- */

/* One {key, operator, values}; Gt and Lt only where node affinity allows them. */
static int add_expression(struct th_selector *s, const struct th_json *e, bool node,
                          struct th_err *err)
{
    static const struct {
        const char *name;
        enum op op;
        bool node_only;
    } ops[] = {{"In", OP_IN, false},
               {"NotIn", OP_NOT_IN, false},
               {"Exists", OP_EXISTS, false},
               {"DoesNotExist", OP_NOT_EXISTS, false},
               {"Gt", OP_GT, true},
               {"Lt", OP_LT, true}};
    const char *key = th_json_str(th_json_get(e, "key"));
    const char *name = th_json_str(th_json_get(e, "operator"));
    name = name ? name : "";
    for (size_t i = 0; i < TH_ARRAY_LEN(ops); i++) {
        if (strcmp(name, ops[i].name) != 0 || (ops[i].node_only && !node)) {
            continue;
        }
        struct requirement r = {.key = th_xstrdup(key ? key : ""), .op = ops[i].op};
        const struct th_json *values = th_json_get(e, "values");
        for (size_t k = 0; k < th_json_len(values); k++) {
            const char *v = th_json_str(th_json_at(values, k));
            th_strv_add(&r.values, v ? v : "");
        }
        int rc = check_requirement(&r, err);
        if (rc < 0) {
            requirement_done(&r);
            return rc;
        }
        add_requirement(s, &r);
        return 0;
    }
    th_autobuf struct th_buf quoted = TH_BUF_INIT;
    th_go_quote(&quoted, name);
    return th_fail(err, TH_R_BAD_REQUEST, "%s is not a valid %s selector operator",
                   th_buf_cstr(&quoted), node ? "node" : "label");
}

int th_selector_from_json(const struct th_json *o, struct th_selector **ret, struct th_err *err)
{
    if (th_json_is_null(o)) {
        *ret = th_selector_nothing();
        return 0;
    }
    TH_AUTO(th_selector) struct th_selector *s = th_selector_everything();
    struct th_json_iter it = TH_JSON_ITER(th_json_get(o, "matchLabels"));
    while (th_json_next(&it)) {
        struct requirement r = {.key = th_xstrdup(it.name), .op = OP_EQ};
        const char *v = th_json_str(it.value);
        th_strv_add(&r.values, v ? v : "");
        int rc = check_requirement(&r, err);
        if (rc < 0) {
            requirement_done(&r);
            return rc;
        }
        add_requirement(s, &r);
    }
    const struct th_json *exprs = th_json_get(o, "matchExpressions");
    for (size_t i = 0; i < th_json_len(exprs); i++) {
        TH_TRY(add_expression(s, th_json_at(exprs, i), false, err));
    }
    *ret = th_steal(&s);
    return 0;
}

struct th_selector *th_selector_from_map(const struct th_json *map)
{
    if (th_json_len(map) == 0) {
        return th_selector_nothing();
    }
    struct th_selector *s = th_selector_everything();
    struct th_json_iter it = TH_JSON_ITER(map);
    while (th_json_next(&it)) {
        struct requirement r = {.key = th_xstrdup(it.name), .op = OP_EQ};
        const char *v = th_json_str(it.value);
        th_strv_add(&r.values, v ? v : "");
        add_requirement(s, &r);
    }
    return s;
}

int th_selector_from_node_expressions(const struct th_json *exprs, struct th_selector **ret,
                                      struct th_err *err)
{
    TH_AUTO(th_selector) struct th_selector *s = th_selector_everything();
    s->nothing = th_json_len(exprs) == 0;
    for (size_t i = 0; i < th_json_len(exprs); i++) {
        TH_TRY(add_expression(s, th_json_at(exprs, i), true, err));
    }
    *ret = th_steal(&s);
    return 0;
}

/* ---- Matching and printing ---- */

static bool requirement_matches(const struct requirement *r, const char *value)
{
    int64_t have, want;
    switch (r->op) {
    case OP_IN:
    case OP_EQ:
    case OP_EQ2:
        return value && th_strv_has(&r->values, value);
    case OP_NOT_IN:
    case OP_NE:
        return !value || !th_strv_has(&r->values, value);
    case OP_EXISTS:
        return value != NULL;
    case OP_NOT_EXISTS:
        return value == NULL;
    case OP_GT:
    case OP_LT:
        return value && parse_int(value, &have) && parse_int(r->values.v[0], &want) &&
               (r->op == OP_GT ? have > want : have < want);
    }
    return false;
}

bool th_selector_matches_fn(const struct th_selector *s,
                            const char *(*get)(void *arg, const char *key), void *arg)
{
    if (s->nothing) {
        return false;
    }
    for (size_t i = 0; i < s->n; i++) {
        if (!requirement_matches(&s->reqs[i], get(arg, s->reqs[i].key))) {
            return false;
        }
    }
    return true;
}

bool th_selector_matches(const struct th_selector *s, const struct th_json *labels)
{
    if (s->nothing) {
        return false;
    }
    for (size_t i = 0; i < s->n; i++) {
        const char *value = th_json_str(th_json_get(labels, s->reqs[i].key));
        if (!requirement_matches(&s->reqs[i], value)) {
            return false;
        }
    }
    return true;
}

const char *th_selector_exact(const struct th_selector *s, const char *key)
{
    for (size_t i = 0; i < s->n; i++) {
        const struct requirement *r = &s->reqs[i];
        if (strcmp(r->key, key) == 0) {
            bool equal = r->op == OP_EQ || r->op == OP_EQ2 || r->op == OP_IN;
            return equal && r->values.n == 1 ? r->values.v[0] : NULL;
        }
    }
    return NULL;
}

char *th_selector_format(const struct th_selector *s)
{
    static const char *const texts[] = {[OP_IN] = " in (",   [OP_NOT_IN] = " notin (", [OP_EQ] = "=",
                                        [OP_EQ2] = "==",     [OP_NE] = "!=",           [OP_GT] = ">",
                                        [OP_LT] = "<",       [OP_EXISTS] = "",
                                        [OP_NOT_EXISTS] = ""};
    th_autobuf struct th_buf b = TH_BUF_INIT;
    for (size_t i = 0; i < s->n; i++) {
        const struct requirement *r = &s->reqs[i];
        th_buf_printf(&b, "%s%s%s%s", i ? "," : "", r->op == OP_NOT_EXISTS ? "!" : "", r->key,
                      texts[r->op]);
        th_autostrv struct th_strv sorted = TH_STRV_INIT;
        for (size_t k = 0; k < r->values.n; k++) {
            th_strv_add(&sorted, r->values.v[k]);
        }
        th_strv_sort(&sorted);
        th_autofree char *values = th_strv_join(&sorted, ",");
        th_buf_puts(&b, values);
        if (r->op == OP_IN || r->op == OP_NOT_IN) {
            th_buf_putc(&b, ')');
        }
    }
    return th_xstrdup(th_buf_cstr(&b));
}
