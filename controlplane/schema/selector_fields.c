/*
 * Field selectors, and node selectors, which mix labels with the one field metadata.name.
 *
 * A field selector is a list of field=value or field!=value terms. Commas, equal signs and
 * backslashes inside a value are escaped with a backslash, and unescaped ones are faults. Which
 * fields an endpoint knows is the resource's business; here a field is any text.
 *
 * Node selector terms are ORed, the parts of one term ANDed; a term with neither expressions nor
 * fields selects nothing. matchFields knows only In and NotIn with one value each, as upstream.
 */
#include "controlplane/schema/selector.h"
#include "base/limits.h"

void th_fieldsel_done(struct th_fieldsel *f)
{
    for (size_t i = 0; i < f->n; i++) {
        free(f->terms[i].field);
        free(f->terms[i].value);
    }
    free(f->terms);
    *f = (struct th_fieldsel){.terms = NULL};
}

static int unescape(const char *s, char **ret, struct th_err *err)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    for (; *s; s++) {
        if (*s == '\\') {
            s++;
            if (*s != '\\' && *s != ',' && *s != '=') {
                /* The whole character, which may be several bytes long. */
                int n = *s != '\0';
                while (n > 0 && (s[n] & 0xc0) == 0x80) {
                    n++;
                }
                return th_fail(err, TH_R_BAD_REQUEST,
                               "invalid field selector: invalid escape sequence: \\%.*s", n, s);
            }
        } else if (*s == ',' || *s == '=') {
            return th_fail(err, TH_R_BAD_REQUEST,
                           "invalid field selector: unescaped character in value: %d", *s);
        }
        th_buf_putc(&b, *s);
    }
    *ret = th_xstrdup(th_buf_cstr(&b));
    return 0;
}

static int parse_term(const char *all, const char *part, struct th_fieldsel_term *ret,
                      struct th_err *err)
{
    const char *p = part;
    while (*p && *p != '=' && !(p[0] == '!' && p[1] == '=')) {
        p++;
    }
    if (*p == '\0') {
        return th_fail(err, TH_R_BAD_REQUEST, "invalid selector: '%s'; can't understand '%s'", all,
                       part);
    }
    size_t op = *p == '!' || p[1] == '=' ? 2 : 1;
    char *value = NULL;
    TH_TRY(unescape(p + op, &value, err));
    ret->field = th_xstrndup(part, (size_t)(p - part));
    ret->value = value;
    ret->negate = *p == '!';
    return 0;
}

int th_fieldsel_parse(const char *s, struct th_fieldsel *ret, struct th_err *err)
{
    s = s ? s : "";
    if (strlen(s) > TH_LIMIT_SELECTOR_B) {
        return th_fail(err, TH_R_BAD_REQUEST, "field selector is longer than %u bytes",
                       TH_LIMIT_SELECTOR_B);
    }
    th_autostrv struct th_strv parts = TH_STRV_INIT;
    const char *start = s;
    for (const char *p = s;; p++) {
        if (*p == '\\' && p[1]) {
            p++;
        } else if (*p == ',' || *p == '\0') {
            if (p > start) {
                th_strv_take(&parts, th_xstrndup(start, (size_t)(p - start)));
            }
            if (*p == '\0') {
                break;
            }
            start = p + 1;
        }
    }
    th_strv_sort(&parts);
    struct th_fieldsel f = {.terms = NULL};
    if (parts.n > 0) {
        f.terms = th_xcalloc(parts.n, sizeof(*f.terms));
    }
    for (size_t i = 0; i < parts.n; i++) {
        int rc = parse_term(s, parts.v[i], &f.terms[f.n], err);
        if (rc < 0) {
            th_fieldsel_done(&f);
            return rc;
        }
        if (f.terms[f.n].field[0] || f.terms[f.n].value[0]) {
            f.n++;
        } else { /* a bare operator says nothing */
            free(f.terms[f.n].field);
            free(f.terms[f.n].value);
        }
    }
    *ret = f;
    return 0;
}

bool th_fieldsel_matches_fn(const struct th_fieldsel *f,
                            const char *(*get)(void *arg, const char *field), void *arg)
{
    for (size_t i = 0; i < f->n; i++) {
        const char *v = get(arg, f->terms[i].field);
        if ((strcmp(v ? v : "", f->terms[i].value) == 0) == f->terms[i].negate) {
            return false;
        }
    }
    return true;
}

char *th_fieldsel_format(const struct th_fieldsel *f)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    for (size_t i = 0; i < f->n; i++) {
        const struct th_fieldsel_term *t = &f->terms[i];
        th_buf_printf(&b, "%s%s%s", i ? "," : "", t->field, t->negate ? "!=" : "=");
        for (const char *p = t->value; *p; p++) {
            if (*p == '\\' || *p == ',' || *p == '=') {
                th_buf_putc(&b, '\\');
            }
            th_buf_putc(&b, *p);
        }
    }
    return th_xstrdup(th_buf_cstr(&b));
}

/* ---- Node selectors ---- */

struct term {
    struct th_selector *labels; /* NULL: no matchExpressions */
    struct th_json *fields;     /* matchFields, a copy; NULL: none */
};
struct th_node_selector {
    struct term *terms;
    size_t n;
};

void th_node_selector_free(struct th_node_selector *s)
{
    if (!s) {
        return;
    }
    for (size_t i = 0; i < s->n; i++) {
        th_selector_free(s->terms[i].labels);
        th_json_unref(s->terms[i].fields);
    }
    free(s->terms);
    free(s);
}

static bool known_field(const struct th_json *f)
{
    const char *key = th_json_str(th_json_get(f, "key"));
    const char *op = th_json_str(th_json_get(f, "operator"));
    return th_streq(key, "metadata.name") && (th_streq(op, "In") || th_streq(op, "NotIn")) &&
           th_json_len(th_json_get(f, "values")) == 1;
}

struct th_node_selector *th_node_selector_new(const struct th_json *terms)
{
    struct th_node_selector *s = TH_NEW(struct th_node_selector);
    size_t n = th_json_len(terms);
    s->terms = n ? th_xcalloc(n, sizeof(*s->terms)) : NULL;
    for (size_t i = 0; i < n; i++) {
        const struct th_json *term = th_json_at(terms, i);
        const struct th_json *exprs = th_json_get(term, "matchExpressions");
        struct th_json *fields = th_json_get(term, "matchFields");
        bool good = th_json_len(exprs) + th_json_len(fields) > 0;
        for (size_t k = 0; k < th_json_len(fields); k++) {
            good = good && known_field(th_json_at(fields, k));
        }
        struct term t = {.labels = NULL};
        if (good && th_json_len(exprs) > 0) {
            good = th_selector_from_node_expressions(exprs, &t.labels, NULL) == 0;
        }
        if (good) {
            t.fields = th_json_len(fields) ? th_json_dup(fields) : NULL;
            s->terms[s->n++] = t;
        }
    }
    return s;
}

static bool term_matches(const struct term *t, const struct th_json *labels, const char *name)
{
    if (t->labels && !th_selector_matches(t->labels, labels)) {
        return false;
    }
    for (size_t i = 0; i < th_json_len(t->fields); i++) {
        const struct th_json *f = th_json_at(t->fields, i);
        bool in = th_streq(th_json_str(th_json_get(f, "operator")), "In");
        if (th_streq(name, th_json_str(th_json_at(th_json_get(f, "values"), 0))) != in) {
            return false;
        }
    }
    return true;
}

bool th_node_selector_matches(const struct th_node_selector *s, const struct th_json *node_labels,
                              const char *node_name)
{
    for (size_t i = 0; i < s->n; i++) {
        if (term_matches(&s->terms[i], node_labels, node_name)) {
            return true;
        }
    }
    return false;
}
