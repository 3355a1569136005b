/* The Dockerfile parser.
 *
 * Four layers, each small: lines (continuations, comments, heredocs) make one logical line; the
 * first word picks the instruction from dockerfile.def; a row of a table says which form its rest
 * has (words, one string, JSON or shell, names and values) and which flags it takes; stages group
 * what follows each FROM. Variables are not expanded here: their values depend on the build.
 *
 * What Docker's own parser does in odd corners is kept: comments inside a continued line vanish,
 * blank lines there are a warning, a line's leading blanks fall away but a continuation's do not, a
 * JSON array that does not parse is the shell form. Faults name file and line as compilers do.
 */
#include "images/dockerfile.h"
#include "base/json/json.h"
#include "base/limits.h"

#include <ctype.h>
#include <strings.h>

enum form {
    FORM_STRING,   /* the rest as one argument */
    FORM_WORDS,    /* split at blanks, quotes kept */
    FORM_JSON,     /* JSON array, else one shell string */
    FORM_JSON_WORDS, /* JSON array, else words */
    FORM_PAIRS,    /* k=v ..., or the old "k value" */
    FORM_ARGS,     /* name or name=value, several */
    FORM_SUB,      /* another instruction */
    FORM_HEALTH
};
static const struct {
    const char *word;
    enum form form;
    const char *flags; /* space separated */
    bool heredoc;
} ops[TH_DF_COUNT_] = {
    [TH_DF_ADD] = {"ADD", FORM_JSON_WORDS,
                   "chown chmod link checksum keep-git-dir exclude unpack", true},
    [TH_DF_ARG] = {"ARG", FORM_ARGS, "", false},
    [TH_DF_CMD] = {"CMD", FORM_JSON, "", false},
    [TH_DF_COPY] = {"COPY", FORM_JSON_WORDS, "from chown chmod link parents exclude", true},
    [TH_DF_ENTRYPOINT] = {"ENTRYPOINT", FORM_JSON, "", false},
    [TH_DF_ENV] = {"ENV", FORM_PAIRS, "", false},
    [TH_DF_EXPOSE] = {"EXPOSE", FORM_WORDS, "", false},
    [TH_DF_FROM] = {"FROM", FORM_WORDS, "platform", false},
    [TH_DF_HEALTHCHECK] = {"HEALTHCHECK", FORM_HEALTH,
                           "interval timeout start-period start-interval retries", false},
    [TH_DF_LABEL] = {"LABEL", FORM_PAIRS, "", false},
    [TH_DF_MAINTAINER] = {"MAINTAINER", FORM_STRING, "", false},
    [TH_DF_ONBUILD] = {"ONBUILD", FORM_SUB, "", false},
    [TH_DF_RUN] = {"RUN", FORM_JSON, "mount network security", true},
    [TH_DF_SHELL] = {"SHELL", FORM_JSON, "", false},
    [TH_DF_STOPSIGNAL] = {"STOPSIGNAL", FORM_STRING, "", false},
    [TH_DF_USER] = {"USER", FORM_STRING, "", false},
    [TH_DF_VOLUME] = {"VOLUME", FORM_JSON_WORDS, "", false},
    [TH_DF_WORKDIR] = {"WORKDIR", FORM_STRING, "", false},
};

struct parser {
    const char *file;
    const char *p, *end; /* what is left */
    int line;            /* of p */
    char escape;
    struct th_dockerfile *d;
};

const char *th_df_op_name(enum th_df_op op)
{
    return ops[op].word;
}

const char *th_df_flag(const struct th_df_inst *i, const char *name)
{
    const char *v = NULL;
    for (size_t k = 0; k < i->n_flags; k++) {
        if (th_streq(i->flags[k].name, name)) {
            v = i->flags[k].value;
        }
    }
    return v;
}

void th_df_inst_free(struct th_df_inst *i)
{
    if (!i) {
        return;
    }
    free(i->original);
    for (size_t k = 0; k < i->n_flags; k++) {
        free(i->flags[k].name);
        free(i->flags[k].value);
    }
    free(i->flags);
    th_strv_done(&i->args);
    for (size_t k = 0; k < i->n_heredocs; k++) {
        free(i->heredocs[k].name);
        free(i->heredocs[k].text);
    }
    free(i->heredocs);
    th_df_inst_free(i->onbuild);
    free(i);
}

void th_dockerfile_free(struct th_dockerfile *d)
{
    if (!d) {
        return;
    }
    free(d->syntax);
    for (size_t i = 0; i < d->n_global_args; i++) {
        th_df_inst_free(d->global_args[i]);
    }
    free(d->global_args);
    for (size_t i = 0; i < d->n_stages; i++) {
        struct th_df_stage *s = d->stages[i];
        for (size_t k = 0; k < s->n_insts; k++) {
            th_df_inst_free(s->insts[k]);
        }
        free(s->insts);
        free(s->base);
        free(s->platform);
        free(s->name);
        free(s->original);
        free(s);
    }
    free(d->stages);
    th_strv_done(&d->warnings);
    free(d);
}

static int fault(struct th_err *err, const char *file, int line, const char *fmt, ...)
    TH_PRINTF(4, 5);
static int fault(struct th_err *err, const char *file, int line, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    th_autofree char *msg = th_xvasprintf(fmt, ap);
    va_end(ap);
    return th_fail(err, TH_R_DOCKERFILE, "%s:%d: %s", file, line, msg);
}

/* ---- did you mean ---- */

/* Edits between two words, case ignored; swapped neighbours count as one. */
static size_t distance(const char *a, const char *b)
{
    enum { MAX = 32 };
    size_t d[MAX][MAX];
    size_t n = strlen(a), m = strlen(b);
    if (n >= MAX || m >= MAX) {
        return 99;
    }
    for (size_t i = 0; i <= n; i++) {
        for (size_t j = 0; j <= m; j++) {
            if (i == 0 || j == 0) {
                d[i][j] = i + j;
                continue;
            }
            int x = toupper((unsigned char)a[i - 1]), y = toupper((unsigned char)b[j - 1]);
            size_t best = d[i - 1][j - 1] + (x != y);
            best = d[i - 1][j] + 1 < best ? d[i - 1][j] + 1 : best;
            best = d[i][j - 1] + 1 < best ? d[i][j - 1] + 1 : best;
            if (i > 1 && j > 1 && x == toupper((unsigned char)b[j - 2]) &&
                y == toupper((unsigned char)a[i - 2]) && d[i - 2][j - 2] + 1 < best) {
                best = d[i - 2][j - 2] + 1;
            }
            d[i][j] = best;
        }
    }
    return d[n][m];
}

/* The nearest of a list, when it is near enough; NULL else. */
static const char *nearest(const char *word, const char *const *list, size_t n)
{
    const char *best = NULL;
    size_t least = strlen(word) <= 3 ? 3 : 4; /* less than 3 edits */
    for (size_t i = 0; i < n; i++) {
        size_t d = distance(word, list[i]);
        if (d < least && d < strlen(list[i])) {
            least = d;
            best = list[i];
        }
    }
    return best;
}

/* ---- lines ---- */

static struct th_str next_line(struct parser *p)
{
    const char *nl = memchr(p->p, '\n', (size_t)(p->end - p->p));
    struct th_str s = {p->p, (size_t)((nl ? nl : p->end) - p->p)};
    p->p = nl ? nl + 1 : p->end;
    p->line++;
    if (s.n > 0 && s.p[s.n - 1] == '\r') {
        s.n--;
    }
    return s;
}

static struct th_str trim_left(struct th_str s)
{
    while (s.n > 0 && isspace((unsigned char)*s.p)) {
        s.p++;
        s.n--;
    }
    return s;
}

static struct th_str trim(struct th_str s)
{
    s = trim_left(s);
    while (s.n > 0 && isspace((unsigned char)s.p[s.n - 1])) {
        s.n--;
    }
    return s;
}

/* Cuts a continuation mark off; true when there was one. */
static bool continued(struct th_str *s, char escape)
{
    size_t n = s->n;
    while (n > 0 && (s->p[n - 1] == ' ' || s->p[n - 1] == '\t')) {
        n--;
    }
    if (n == 0 || s->p[n - 1] != escape || (n > 1 && s->p[n - 2] == escape)) {
        return false;
    }
    s->n = n - 1;
    return true;
}

/* The next logical line into b. false at the end. *ret_line is where it began. */
static bool logical_line(struct parser *p, struct th_buf *b, int *ret_line)
{
    bool open = false;
    th_buf_clear(b);
    while (p->p < p->end) {
        struct th_str s = next_line(p);
        struct th_str t = trim_left(s);
        if (t.n > 0 && t.p[0] == '#') {
            continue;
        }
        if (t.n == 0) {
            if (open) {
                th_strv_addf(&p->d->warnings, "%s:%d: empty continuation line", p->file, p->line);
            }
            continue;
        }
        if (!open) {
            *ret_line = p->line;
            s = t;
        }
        open = continued(&s, p->escape);
        th_buf_addstr(b, s);
        if (!open) {
            break;
        }
    }
    struct th_str all = trim(th_buf_str(b));
    return all.n > 0;
}

static int directive(struct parser *p, struct th_str key, struct th_str val, int line,
                     bool *ret_known, struct th_err *err)
{
    static const char *const names[] = {"syntax", "escape", "check"};
    *ret_known = false;
    size_t which = 0;
    for (; which < TH_ARRAY_LEN(names); which++) {
        if (strlen(names[which]) == key.n && strncasecmp(names[which], key.p, key.n) == 0) {
            break;
        }
    }
    if (which == TH_ARRAY_LEN(names)) {
        return 0;
    }
    *ret_known = true;
    if (which == 1) {
        if (val.n != 1 || (val.p[0] != '\\' && val.p[0] != '`')) {
            return fault(err, p->file, line, "invalid ESCAPE '%.*s' does not match ` or \\",
                         (int)(val.n > 20 ? 20 : val.n), val.p);
        }
        p->escape = p->d->escape = val.p[0];
    } else if (which == 0) {
        if (p->d->syntax) {
            return fault(err, p->file, line, "only one syntax parser directive can be used");
        }
        p->d->syntax = th_xstrndup(val.p, val.n);
    }
    return 0;
}

/* Directives stand before everything else, one a line, as "# name=value". */
static int directives(struct parser *p, struct th_err *err)
{
    while (p->p < p->end) {
        struct parser save = *p;
        struct th_str s = trim(next_line(p));
        bool known = false;
        if (s.n > 1 && s.p[0] == '#') {
            s.p++;
            s.n--;
            const char *eq = memchr(s.p, '=', s.n);
            if (eq) {
                struct th_str key = trim((struct th_str){s.p, (size_t)(eq - s.p)});
                struct th_str val =
                    trim((struct th_str){eq + 1, s.n - (size_t)(eq + 1 - s.p)});
                if (key.n && val.n) {
                    TH_TRY(directive(p, key, val, p->line, &known, err));
                }
            }
        }
        if (!known) {
            *p = save;
            return 0;
        }
    }
    return 0;
}

/* ---- words ---- */

/* Splits at blanks outside quotes; quotes and escapes stay in the words. */
static void split_words(const char *s, char escape, struct th_strv *out)
{
    while (*s) {
        while (isspace((unsigned char)*s)) {
            s++;
        }
        const char *from = s;
        char quote = 0;
        while (*s && (quote || !isspace((unsigned char)*s))) {
            if (*s == escape && quote != '\'' && s[1]) {
                s += 2;
                continue;
            }
            if (quote ? *s == quote : (*s == '\'' || *s == '"')) {
                quote = quote ? 0 : *s;
            }
            s++;
        }
        if (s > from) {
            th_strv_take(out, th_xstrndup(from, (size_t)(s - from)));
        }
    }
}

static void split_blanks(const char *s, struct th_strv *out)
{
    while (*s) {
        while (isspace((unsigned char)*s)) {
            s++;
        }
        const char *from = s;
        while (*s && !isspace((unsigned char)*s)) {
            s++;
        }
        if (s > from) {
            th_strv_take(out, th_xstrndup(from, (size_t)(s - from)));
        }
    }
}

/* A JSON array of strings; false when it is anything else. */
static bool json_words(const char *s, struct th_strv *out)
{
    TH_AUTO(th_json) struct th_json *a = NULL;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (*s != '[' || th_json_parse_cstr(s, &a, &err) < 0 || !th_json_is(a, TH_JSON_ARRAY)) {
        return false;
    }
    for (size_t i = 0; i < th_json_len(a); i++) {
        if (!th_json_is(th_json_at(a, i), TH_JSON_STRING)) {
            return false;
        }
    }
    for (size_t i = 0; i < th_json_len(a); i++) {
        th_strv_add(out, th_json_str(th_json_at(a, i)));
    }
    return true;
}

static int take_flags(const char *file, struct th_df_inst *in, const char **ps, char escape,
                      struct th_err *err)
{
    const char *s = *ps;
    size_t cap = 0;
    th_autostrv struct th_strv known = TH_STRV_INIT;
    th_strv_split(&known, ops[in->op].flags, ' ');
    for (;;) {
        while (isspace((unsigned char)*s)) {
            s++;
        }
        if (s[0] != '-' || s[1] != '-') {
            break;
        }
        const char *from = s;
        char quote = 0;
        while (*s && (quote || !isspace((unsigned char)*s))) {
            if (*s == escape && s[1]) {
                s++;
            } else if (quote ? *s == quote : (*s == '\'' || *s == '"')) {
                quote = quote ? 0 : *s;
            }
            s++;
        }
        if (s - from == 2) { /* "--" ends the flags */
            break;
        }
        th_autofree char *word = th_xstrndup(from + 2, (size_t)(s - from) - 2);
        char *eq = strchr(word, '=');
        if (eq) {
            *eq = 0;
        }
        if (!th_strv_has(&known, word) || !*word) {
            const char *near = nearest(word, (const char *const *)known.v, known.n);
            return fault(err, file, in->line, "unknown flag: --%s%s%s%s", word,
                         near && *near ? " (did you mean --" : "", near ? near : "",
                         near && *near ? "?)" : "");
        }
        in->flags = th_xgrow(in->flags, &cap, in->n_flags + 1, sizeof(*in->flags));
        in->flags[in->n_flags++] = (struct th_df_flag){
            .name = th_xstrdup(word), .value = th_xstrdup(eq ? eq + 1 : "")};
    }
    *ps = s;
    return 0;
}

static int take_pairs(const char *file, struct th_df_inst *in, const char *s, char escape,
                      struct th_err *err)
{
    th_autostrv struct th_strv w = TH_STRV_INIT;
    split_words(s, escape, &w);
    if (w.n == 0) {
        return fault(err, file, in->line, "%s requires at least one argument",
                     th_df_op_name(in->op));
    }
    if (!strchr(w.v[0], '=')) { /* the old form: ENV name the rest */
        size_t n = strlen(w.v[0]);
        const char *rest = s + strspn(s, " \t") + n;
        rest += strspn(rest, " \t\n\r");
        if (!*rest) {
            return fault(err, file, in->line, "%s must have two arguments",
                         th_df_op_name(in->op));
        }
        th_strv_addf(&in->args, "%s=%s", w.v[0], rest);
        return 0;
    }
    for (size_t i = 0; i < w.n; i++) {
        const char *eq = strchr(w.v[i], '=');
        if (!eq) {
            return fault(err, file, in->line,
                         "Syntax error - can't find = in \"%.100s\". Must be of the form: "
                         "name=value", w.v[i]);
        }
        if (eq == w.v[i]) {
            return fault(err, file, in->line, "%s names can not be blank",
                         th_df_op_name(in->op));
        }
        th_strv_add(&in->args, w.v[i]);
    }
    return 0;
}

static int parse_line(const char *file, int line, const char *text, char escape, bool sub,
                      struct th_df_inst **ret, struct th_err *err);

static int take_health(const char *file, struct th_df_inst *in, const char *s, struct th_err *err)
{
    th_autostrv struct th_strv w = TH_STRV_INIT;
    split_blanks(s, &w);
    if (w.n == 0) {
        return fault(err, file, in->line, "HEALTHCHECK requires at least one argument");
    }
    if (strcasecmp(w.v[0], "NONE") == 0) {
        if (w.n > 1 || in->n_flags > 0) {
            return fault(err, file, in->line, "HEALTHCHECK NONE takes no arguments");
        }
        th_strv_add(&in->args, "NONE");
        return 0;
    }
    if (strcasecmp(w.v[0], "CMD") != 0) {
        return fault(err, file, in->line, "Unknown type \"%.50s\" in HEALTHCHECK (try CMD)",
                     w.v[0]);
    }
    const char *rest = s + strspn(s, " \t") + 3;
    rest += strspn(rest, " \t");
    if (!*rest) {
        return fault(err, file, in->line, "Missing command after HEALTHCHECK CMD");
    }
    th_strv_add(&in->args, "CMD");
    in->json = json_words(rest, &in->args);
    if (!in->json) {
        th_strv_add(&in->args, rest);
    }
    return 0;
}

static int take_rest(const char *file, struct th_df_inst *in, const char *s, char escape,
                     struct th_err *err)
{
    switch (ops[in->op].form) {
    case FORM_STRING:
        if (*s) {
            th_strv_add(&in->args, s);
        }
        return 0;
    case FORM_WORDS:
        split_words(s, escape, &in->args);
        return 0;
    case FORM_JSON:
    case FORM_JSON_WORDS:
        in->json = json_words(s, &in->args);
        if (!in->json && ops[in->op].form == FORM_JSON) {
            if (*s) {
                th_strv_add(&in->args, s);
            }
        } else if (!in->json) {
            split_words(s, escape, &in->args);
        }
        return 0;
    case FORM_PAIRS:
        return take_pairs(file, in, s, escape, err);
    case FORM_ARGS:
        split_words(s, escape, &in->args);
        for (size_t i = 0; i < in->args.n; i++) {
            if (in->args.v[i][0] == '=') {
                return fault(err, file, in->line, "ARG names can not be blank");
            }
        }
        return 0;
    case FORM_SUB:
        TH_TRY(parse_line(file, in->line, s, escape, true, &in->onbuild, err));
        if (in->onbuild->op == TH_DF_FROM || in->onbuild->op == TH_DF_MAINTAINER) {
            return fault(err, file, in->line, "%s isn't allowed as an ONBUILD trigger",
                         th_df_op_name(in->onbuild->op));
        }
        return 0;
    case FORM_HEALTH:
        return take_health(file, in, s, err);
    }
    return 0;
}

/* How many arguments an instruction must have. */
static int check_count(const char *file, const struct th_df_inst *in, struct th_err *err)
{
    size_t n = in->args.n;
    const char *name = th_df_op_name(in->op);
    switch (in->op) {
    case TH_DF_FROM:
        if (n != 1 && !(n == 3 && strcasecmp(in->args.v[1], "AS") == 0)) {
            return fault(err, file, in->line, "FROM requires either one or three arguments");
        }
        return 0;
    case TH_DF_COPY:
    case TH_DF_ADD:
        if (n < 2) {
            return fault(err, file, in->line, "%s requires at least two arguments, but only %s",
                         name, n ? "one was provided. Destination could not be determined"
                                 : "zero were provided");
        }
        return 0;
    case TH_DF_SHELL:
        if (!in->json || n == 0) {
            return fault(err, file, in->line,
                         "SHELL requires the arguments to be in JSON form");
        }
        return 0;
    case TH_DF_CMD:
    case TH_DF_ENTRYPOINT: /* [] resets */
    case TH_DF_HEALTHCHECK:
    case TH_DF_ONBUILD:
        if (n == 0 && !in->json && !in->onbuild) {
            return fault(err, file, in->line, "%s requires at least one argument", name);
        }
        return 0;
    case TH_DF_WORKDIR:
    case TH_DF_USER:
    case TH_DF_STOPSIGNAL:
    case TH_DF_MAINTAINER:
        if (n != 1) {
            return fault(err, file, in->line, "%s requires exactly one argument", name);
        }
        return 0;
    default:
        if (n == 0) {
            return fault(err, file, in->line, "%s requires at least one argument", name);
        }
        return 0;
    }
}

static int parse_line(const char *file, int line, const char *text, char escape, bool sub,
                      struct th_df_inst **ret, struct th_err *err)
{
    static const char *const words[] = {
#define TH_DF_OP(id, word) word,
#include "images/dockerfile.def"
#undef TH_DF_OP
    };
    text += strspn(text, " \t\r\n");
    size_t n = strcspn(text, " \t\r\n");
    th_autofree char *word = th_xstrndup(text, n > 60 ? 60 : n);
    size_t op = 0;
    while (op < TH_DF_COUNT_ && (strlen(words[op]) != n || strcasecmp(words[op], word) != 0)) {
        op++;
    }
    if (op == TH_DF_COUNT_) {
        const char *near = nearest(word, words, TH_ARRAY_LEN(words));
        return fault(err, file, line, "unknown instruction: %s%s%s%s", word,
                     near ? " (did you mean " : "", near ? near : "", near ? "?)" : "");
    }
    if (sub && op == TH_DF_ONBUILD) {
        return fault(err, file, line, "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed");
    }
    struct th_df_inst *in = TH_NEW(struct th_df_inst);
    in->op = (enum th_df_op)op;
    in->line = line;
    struct th_str all = trim(th_str_of(text));
    in->original = th_xstrndup(all.p, all.n);
    const char *s = in->original + n;
    s += strspn(s, " \t\r\n");
    int r = 0;
    if (*ops[op].flags) {
        r = take_flags(file, in, &s, escape, err);
    }
    if (r >= 0) {
        r = take_rest(file, in, s, escape, err);
    }
    if (r >= 0) {
        r = check_count(file, in, err);
    }
    if (r < 0) {
        th_df_inst_free(in);
        return r;
    }
    *ret = in;
    return 0;
}

int th_df_parse_inst(const char *file, int line, const char *text, char escape,
                     struct th_df_inst **ret, struct th_err *err)
{
    return parse_line(file, line, text, escape, true, ret, err);
}

/* ---- heredocs ---- */

/* "<<EOF", "<<-'EOF'", "3<<EOF": the word and its marks; false for other words. */
static bool heredoc_word(const char *w, struct th_df_heredoc *h)
{
    while (isdigit((unsigned char)*w)) {
        w++;
    }
    if (w[0] != '<' || w[1] != '<') {
        return false;
    }
    w += 2;
    bool chomp = *w == '-';
    w += chomp;
    bool expand = true;
    th_autobuf struct th_buf name = TH_BUF_INIT;
    for (; *w && *w != '<' && *w != '>'; w++) {
        if (*w == '\'' || *w == '"' || *w == '\\') {
            expand = false;
        } else {
            th_buf_putc(&name, *w);
        }
    }
    if (*w == '<' || name.n == 0) {
        return false;
    }
    *h = (struct th_df_heredoc){
        .name = th_buf_steal(&name, NULL), .expand = expand, .chomp = chomp};
    return true;
}

static int read_heredoc(struct parser *p, int line, struct th_df_heredoc *h, struct th_err *err)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    while (p->p < p->end) {
        struct th_str s = next_line(p);
        while (h->chomp && s.n > 0 && s.p[0] == '\t') {
            s.p++;
            s.n--;
        }
        if (s.n == strlen(h->name) && memcmp(s.p, h->name, s.n) == 0) {
            h->text = th_buf_steal(&b, NULL);
            h->text = h->text ? h->text : th_xstrdup("");
            return 0;
        }
        th_buf_addstr(&b, s);
        th_buf_putc(&b, '\n');
    }
    return fault(err, p->file, line, "unterminated heredoc: no line \"%s\"", h->name);
}

static int heredocs(struct parser *p, struct th_df_inst *in, struct th_err *err)
{
    if (!ops[in->op].heredoc || in->json) {
        return 0;
    }
    th_autostrv struct th_strv w = TH_STRV_INIT;
    for (size_t i = 0; i < in->args.n; i++) {
        split_words(in->args.v[i], p->escape, &w);
    }
    size_t cap = 0;
    for (size_t i = 0; i < w.n; i++) {
        struct th_df_heredoc h;
        if (heredoc_word(w.v[i], &h)) {
            in->heredocs = th_xgrow(in->heredocs, &cap, in->n_heredocs + 1, sizeof(h));
            in->heredocs[in->n_heredocs++] = h;
        }
    }
    for (size_t i = 0; i < in->n_heredocs; i++) {
        TH_TRY(read_heredoc(p, in->line, &in->heredocs[i], err));
    }
    return 0;
}

/* ---- stages ---- */

static bool stage_name_ok(const char *s)
{
    if (*s < 'a' || *s > 'z') {
        return false;
    }
    for (; *s; s++) {
        if (!islower((unsigned char)*s) && !isdigit((unsigned char)*s) && !strchr("-_.", *s)) {
            return false;
        }
    }
    return true;
}

static int add_stage(struct parser *p, struct th_df_inst *in, struct th_err *err)
{
    struct th_dockerfile *d = p->d;
    th_autofree char *name = NULL;
    if (in->args.n == 3) {
        name = th_xstrdup(in->args.v[2]);
        for (char *c = name; *c; c++) {
            *c = (char)tolower((unsigned char)*c);
        }
        if (!stage_name_ok(name) || th_streq(name, "context")) {
            return fault(err, p->file, in->line,
                         "invalid name for build stage: \"%.100s\", name can't start with a "
                         "number or contain symbols", in->args.v[2]);
        }
        for (size_t i = 0; i < d->n_stages; i++) {
            if (th_streq(d->stages[i]->name, name)) {
                return fault(err, p->file, in->line,
                             "duplicate name for build stage: \"%s\" (first in line %d)", name,
                             d->stages[i]->line);
            }
        }
    }
    struct th_df_stage *s = TH_NEW(struct th_df_stage);
    s->base = th_xstrdup(in->args.v[0]);
    s->platform = th_xstrdup(th_df_flag(in, "platform"));
    s->name = th_steal(&name);
    s->line = in->line;
    s->original = th_xstrdup(in->original);
    d->stages = th_xrealloc(d->stages, (d->n_stages + 1) * sizeof(struct th_df_stage *));
    d->stages[d->n_stages++] = s;
    return 0;
}

/* Takes `in`. */
static int place(struct parser *p, struct th_df_inst *in, struct th_err *err)
{
    struct th_dockerfile *d = p->d;
    int r = 0;
    if (in->op == TH_DF_FROM) {
        r = add_stage(p, in, err);
        th_df_inst_free(in);
        return r;
    }
    if (d->n_stages == 0) {
        if (in->op != TH_DF_ARG) {
            r = fault(err, p->file, in->line, "no build stage in current context: %s stands "
                      "before the first FROM", th_df_op_name(in->op));
            th_df_inst_free(in);
            return r;
        }
        d->global_args =
            th_xrealloc(d->global_args, (d->n_global_args + 1) * sizeof(struct th_df_inst *));
        d->global_args[d->n_global_args++] = in;
        return 0;
    }
    struct th_df_stage *s = d->stages[d->n_stages - 1];
    s->insts = th_xrealloc(s->insts, (s->n_insts + 1) * sizeof(struct th_df_inst *));
    s->insts[s->n_insts++] = in;
    return 0;
}

static int parse_all(struct parser *p, struct th_err *err)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    int line = 0;
    TH_TRY(directives(p, err));
    while (logical_line(p, &b, &line)) {
        struct th_df_inst *in = NULL;
        TH_TRY(parse_line(p->file, line, th_buf_cstr(&b), p->escape, false, &in, err));
        int r = heredocs(p, in->onbuild ? in->onbuild : in, err);
        if (r < 0) {
            th_df_inst_free(in);
            return r;
        }
        TH_TRY(place(p, in, err));
    }
    if (p->d->n_stages == 0) {
        return fault(err, p->file, 1, "%s",
                     p->d->n_global_args ? "no build stage: there is no FROM"
                                         : "the Dockerfile cannot be empty");
    }
    return 0;
}

int th_dockerfile_parse(const char *file, const char *text, size_t n, struct th_dockerfile **ret,
                        struct th_err *err)
{
    if (n > TH_LIMIT_DOCKERFILE_B) {
        return th_fail(err, TH_R_TOO_LARGE, "%s is larger than %u bytes", file,
                       TH_LIMIT_DOCKERFILE_B);
    }
    struct parser p = {.file = file, .p = text, .end = text + n, .escape = '\\'};
    if (n >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        p.p += 3;
    }
    if (n > 0 && memchr(text, 0, n)) {
        return fault(err, file, 1, "is not a text file");
    }
    p.d = TH_NEW(struct th_dockerfile);
    p.d->escape = '\\';
    int r = parse_all(&p, err);
    if (r < 0) {
        th_dockerfile_free(p.d);
        return r;
    }
    *ret = p.d;
    return 0;
}
