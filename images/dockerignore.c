/* .dockerignore and the build context.
 *
 * Patterns are compiled to tokens and matched by a table of states, never by backtracking, so that
 * a hostile pattern costs at most its length times the path's. The rules are moby/patternmatcher's:
 * lines are trimmed, cleaned as paths, a leading slash means nothing, "!" brings back, the last
 * pattern that matches decides, and a pattern that matches a folder matches all below it. "**"
 * stands for any number of folders, "*" and "?" stay inside one name.
 *
 * An excluded folder is still entered when a "!" pattern may reach into it, and is only sent when
 * something in it is.
 */
#include "images/dockerignore.h"
#include "base/io.h"
#include "base/limits.h"
#include "images/layer.h"

#include <sys/stat.h>

/* "**" followed by a slash is an optional run of folders: T_OPT (skip or enter), then T_DIRS. */
enum tok_kind { T_LIT, T_ONE, T_STAR, T_ANY, T_OPT, T_DIRS, T_CLASS };
struct tok {
    enum tok_kind kind;
    char c;
    bool negated;
    char *set; /* T_CLASS: pairs of from, to */
    size_t n_set;
};
struct glob {
    struct tok *t;
    size_t n, cap;
};
struct pattern {
    bool negative;
    char *text; /* cleaned, without "!" */
    struct glob g;
};
struct th_ignore {
    struct pattern *v;
    size_t n, cap;
    bool any_negative;
};

static void glob_done(struct glob *g)
{
    for (size_t i = 0; i < g->n; i++) {
        free(g->t[i].set);
    }
    free(g->t);
    *g = (struct glob){0};
}

static struct tok *add_tok(struct glob *g, enum tok_kind kind, char c)
{
    g->t = th_xgrow(g->t, &g->cap, g->n + 1, sizeof(*g->t));
    g->t[g->n] = (struct tok){.kind = kind, .c = c};
    return &g->t[g->n++];
}

/* [a-z^...]; returns the byte after the ], NULL when malformed. */
static const char *parse_class(struct glob *g, const char *p)
{
    struct tok *t = add_tok(g, T_CLASS, 0);
    if (*p == '^' || *p == '!') {
        t->negated = true;
        p++;
    }
    size_t cap = 0;
    for (bool first = true; *p && (*p != ']' || first); first = false) {
        if (*p == '\\' && p[1]) {
            p++;
        }
        char from = *p++, to = from;
        if (*p == '-' && p[1] && p[1] != ']') {
            to = p[1];
            p += 2;
        }
        t->set = th_xgrow(t->set, &cap, t->n_set + 2, 1);
        t->set[t->n_set++] = from;
        t->set[t->n_set++] = to;
    }
    return *p == ']' ? p + 1 : NULL;
}

static bool compile(const char *p, struct glob *g)
{
    while (*p) {
        if (p[0] == '*' && p[1] == '*') {
            while (*p == '*') {
                p++;
            }
            if (*p == '/') {
                add_tok(g, T_OPT, 0);
                add_tok(g, T_DIRS, 0);
                p++;
            } else {
                add_tok(g, T_ANY, 0);
            }
        } else if (*p == '*') {
            add_tok(g, T_STAR, 0);
            p++;
        } else if (*p == '?') {
            add_tok(g, T_ONE, 0);
            p++;
        } else if (*p == '[') {
            p = parse_class(g, p + 1);
            if (!p) {
                return false;
            }
        } else {
            if (*p == '\\') {
                if (!*++p) {
                    return false;
                }
            }
            add_tok(g, T_LIT, *p++);
        }
    }
    return true;
}

static bool in_class(const struct tok *t, char c)
{
    bool hit = false;
    for (size_t i = 0; i < t->n_set; i += 2) {
        hit = hit || ((unsigned char)c >= (unsigned char)t->set[i] &&
                      (unsigned char)c <= (unsigned char)t->set[i + 1]);
    }
    return hit != t->negated && c != '/';
}

/* States: on[i] is set when the tokens before i match what has been read. */
static void follow_empty(const struct glob *g, bool *on)
{
    for (size_t i = 0; i < g->n; i++) {
        if (on[i] && (g->t[i].kind == T_STAR || g->t[i].kind == T_ANY)) {
            on[i + 1] = true;
        } else if (on[i] && g->t[i].kind == T_OPT) {
            on[i + 1] = on[i + 2] = true;
        }
    }
}

static bool glob_match(const struct glob *g, const char *s, size_t n)
{
    th_autofree bool *on = th_xcalloc(g->n + 1, sizeof(bool));
    th_autofree bool *next = th_xcalloc(g->n + 1, sizeof(bool));
    on[0] = true;
    follow_empty(g, on);
    for (size_t k = 0; k < n; k++) {
        char c = s[k];
        memset(next, 0, (g->n + 1) * sizeof(bool));
        for (size_t i = 0; i < g->n; i++) {
            if (!on[i]) {
                continue;
            }
            const struct tok *t = &g->t[i];
            switch (t->kind) {
            case T_LIT:
                next[i + 1] |= t->c == c;
                break;
            case T_ONE:
                next[i + 1] |= c != '/';
                break;
            case T_CLASS:
                next[i + 1] |= in_class(t, c);
                break;
            case T_STAR:
                next[i] |= c != '/';
                break;
            case T_ANY:
                next[i] = true;
                break;
            case T_OPT:
                break;
            case T_DIRS:
                next[i] = true;
                next[i + 1] |= c == '/';
                break;
            }
        }
        follow_empty(g, next);
        bool *tmp = on;
        on = next;
        next = tmp;
    }
    return on[g->n];
}

bool th_glob_match(const char *pattern, const char *path)
{
    struct glob g = {0};
    bool ok = compile(pattern, &g) && glob_match(&g, path, strlen(path));
    glob_done(&g);
    return ok;
}

/* path.Clean without the leading slash: "./a//b/../c/" is "a/c". */
static char *clean_pattern(const char *p, size_t n)
{
    th_autofree char *copy = th_xstrndup(p, n);
    th_autostrv struct th_strv parts = TH_STRV_INIT, out = TH_STRV_INIT;
    th_strv_split(&parts, copy, '/');
    for (size_t i = 0; i < parts.n; i++) {
        const char *s = parts.v[i];
        if (!*s || th_streq(s, ".")) {
            continue;
        }
        if (th_streq(s, "..")) {
            if (out.n > 0) {
                free(out.v[--out.n]);
                out.v[out.n] = NULL;
            }
            continue;
        }
        th_strv_add(&out, s);
    }
    return out.n ? th_strv_join(&out, "/") : th_xstrdup("");
}

static int add_line(struct th_ignore *ig, const char *p, size_t n, struct th_err *err)
{
    while (n > 0 && (*p == ' ' || *p == '\t' || *p == '\r')) {
        p++;
        n--;
    }
    while (n > 0 && (p[n - 1] == ' ' || p[n - 1] == '\t' || p[n - 1] == '\r')) {
        n--;
    }
    bool negative = n > 0 && *p == '!';
    if (negative) {
        p++;
        n--;
        while (n > 0 && (*p == ' ' || *p == '\t')) {
            p++;
            n--;
        }
        if (n == 0) {
            return th_fail(err, TH_R_INVALID, "illegal exclusion pattern: \"!\"");
        }
    }
    if (n == 0) {
        return 0;
    }
    th_autofree char *text = clean_pattern(p, n);
    if (!*text) {
        return 0; /* "." and "/" mean the context itself, which is never left out */
    }
    struct pattern pat = {.negative = negative};
    if (!compile(text, &pat.g)) {
        glob_done(&pat.g);
        return th_fail(err, TH_R_INVALID, "syntax error in pattern \"%.100s\"", text);
    }
    pat.text = th_steal(&text);
    ig->v = th_xgrow(ig->v, &ig->cap, ig->n + 1, sizeof(*ig->v));
    ig->v[ig->n++] = pat;
    ig->any_negative = ig->any_negative || negative;
    return 0;
}

int th_ignore_parse(const char *text, size_t n, struct th_ignore **ret, struct th_err *err)
{
    struct th_ignore *ig = TH_NEW(struct th_ignore);
    const char *end = text + n;
    if (n >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        text += 3;
    }
    int r = n > TH_LIMIT_DOCKERFILE_B
                ? th_fail(err, TH_R_TOO_LARGE, ".dockerignore is larger than 1 MiB")
                : 0;
    while (r == 0 && text < end) {
        const char *nl = memchr(text, '\n', (size_t)(end - text));
        size_t len = (size_t)((nl ? nl : end) - text);
        if (len > 0 && *text != '#' && !memchr(text, 0, len)) {
            r = add_line(ig, text, len, err);
        }
        text = nl ? nl + 1 : end;
    }
    if (r < 0) {
        th_ignore_free(ig);
        return r;
    }
    *ret = ig;
    return 0;
}

void th_ignore_free(struct th_ignore *ig)
{
    if (ig) {
        for (size_t i = 0; i < ig->n; i++) {
            free(ig->v[i].text);
            glob_done(&ig->v[i].g);
        }
        free(ig->v);
        free(ig);
    }
}

bool th_ignore_match(const struct th_ignore *ig, const char *rel)
{
    bool matched = false;
    for (size_t i = 0; ig && i < ig->n; i++) {
        const struct pattern *p = &ig->v[i];
        if (p->negative != matched) {
            continue; /* could not change anything */
        }
        bool hit = false;
        for (const char *s = rel; !hit && s;) {
            const char *slash = strchr(s, '/');
            hit = glob_match(&p->g, rel, slash ? (size_t)(slash - rel) : strlen(rel));
            s = slash ? slash + 1 : NULL;
        }
        if (hit) {
            matched = !p->negative;
        }
    }
    return matched;
}

bool th_ignore_must_descend(const struct th_ignore *ig, const char *rel)
{
    size_t n = strlen(rel);
    for (size_t i = 0; ig && i < ig->n; i++) {
        const struct pattern *p = &ig->v[i];
        if (!p->negative) {
            continue;
        }
        size_t lit = strcspn(p->text, "*?[\\");
        size_t common = lit < n ? lit : n;
        if (strncmp(p->text, rel, common) == 0 &&
            (p->text[lit] || lit <= n || p->text[n] == '/')) {
            return true;
        }
    }
    return false;
}

/* ---- the context ---- */

struct ctx {
    const char *dir;
    const struct th_ignore *ig;
    const char *dockerfile, *ignore_file;
};

static bool wanted(const struct ctx *c, const char *rel, bool is_dir, int depth)
{
    if (th_streq(rel, c->dockerfile) || th_streq(rel, c->ignore_file) ||
        !th_ignore_match(c->ig, rel)) {
        return true;
    }
    size_t n = strlen(rel);
    bool above_dockerfile = strncmp(c->dockerfile, rel, n) == 0 && c->dockerfile[n] == '/';
    if (!is_dir || depth > 64) {
        return false;
    }
    if (above_dockerfile) {
        return true;
    }
    if (!th_ignore_must_descend(c->ig, rel)) {
        return false;
    }
    th_autofree char *path = th_path_join(c->dir, rel);
    th_autostrv struct th_strv names = TH_STRV_INIT;
    if (th_io_list(path, &names, NULL) < 0) {
        return false;
    }
    for (size_t i = 0; i < names.n; i++) {
        th_autofree char *child = th_xasprintf("%s/%s", rel, names.v[i]);
        th_autofree char *full = th_path_join(c->dir, child);
        struct stat st;
        if (lstat(full, &st) == 0 && wanted(c, child, S_ISDIR(st.st_mode), depth + 1)) {
            return true;
        }
    }
    return false;
}

static bool ctx_filter(void *arg, const char *rel, bool is_dir)
{
    return wanted(arg, rel, is_dir, 0);
}

int th_folder_write(const char *dir, const struct th_writer *out, struct th_err *err)
{
    struct th_layer_write_opts o = {.owner_root = true};
    struct th_tar_writer w;
    th_tar_writer_init(&w, *out);
    TH_TRY(th_layer_write(dir, &o, &w, NULL, err));
    return th_tar_write_end(&w, err);
}

int th_context_write(const char *dir, const char *dockerfile, const struct th_writer *out,
                     uint64_t *ret_bytes, struct th_err *err)
{
    if (!th_io_is_dir(dir)) {
        (void)th_fail(err, TH_R_NOT_FOUND, "build context %s is not a folder", dir);
        return th_hint(err, "give the folder that holds the Dockerfile");
    }
    th_autofree char *own = th_xasprintf("%s.dockerignore", dockerfile);
    th_autofree char *own_path = th_path_join(dir, own);
    th_autofree char *path = th_path_join(dir, ".dockerignore");
    bool has_own = th_io_exists(own_path);
    th_autobuf struct th_buf text = TH_BUF_INIT;
    if (has_own || th_io_exists(path)) {
        TH_TRY(th_io_read_file(has_own ? own_path : path, TH_LIMIT_DOCKERFILE_B, &text, err));
    }
    TH_AUTO(th_ignore) struct th_ignore *ig = NULL;
    TH_TRY(th_ignore_parse(th_buf_cstr(&text), text.n, &ig, err));
    struct ctx c = {.dir = dir,
                    .ig = ig,
                    .dockerfile = dockerfile,
                    .ignore_file = has_own ? own : ".dockerignore"};
    struct th_layer_write_opts o = {
        .owner_root = true, .filter = ctx_filter, .filter_arg = &c};
    struct th_tar_writer w;
    struct th_layer_stat st = {0};
    th_tar_writer_init(&w, *out);
    TH_TRY(th_layer_write(dir, &o, &w, &st, err));
    TH_TRY(th_tar_write_end(&w, err));
    if (ret_bytes) {
        *ret_bytes = st.bytes;
    }
    return 0;
}
