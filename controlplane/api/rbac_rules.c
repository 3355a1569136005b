/* What a PolicyRule means: does it allow a request, does it cover another rule, how is it shown.
 *
 * Rules are kept as lists of strings, each list one block of memory: a request walks a handful of
 * them and allocates nothing. Matching is upstream's: "*" stands for everything, "pods/log" for one
 * subresource, "*" + "/scale" for a subresource of everything; "pods/" + "*" is no pattern.
 *
 * Covering is decided on single permissions (one group, one resource, one verb, one name), since a
 * rule may be covered by several rules together; what is left is joined again by verb for people.
 * Upstream joins in the order of a Go map and sorts the lines; so does this, without the map.
 */
#include "controlplane/api/rbac.h"

#include "controlplane/schema/gotext.h"

/* ---- lists ---- */

static char **list_new(size_t n, size_t bytes, char **ret_text)
{
    char **l = th_xmalloc((n + 1) * sizeof(*l) + bytes);
    *ret_text = (char *)(l + n + 1);
    l[n] = NULL;
    return l;
}

static char **list_of_json(const struct th_json *a)
{
    size_t n = th_json_len(a);
    size_t bytes = 0;
    if (n == 0 || !th_json_is(a, TH_JSON_ARRAY)) {
        return NULL;
    }
    for (size_t i = 0; i < n; i++) {
        bytes += th_json_str_len(th_json_at(a, i)) + 1;
    }
    char *p;
    char **l = list_new(n, bytes, &p);
    for (size_t i = 0; i < n; i++) {
        const char *s = th_json_str(th_json_at(a, i));
        size_t len = s ? strlen(s) : 0;
        memcpy(p, s ? s : "", len + 1);
        l[i] = p;
        p += len + 1;
    }
    return l;
}

static size_t list_len(char *const *l)
{
    size_t n = 0;
    while (l && l[n]) {
        n++;
    }
    return n;
}

static char **list_dup(char *const *from)
{
    size_t n = list_len(from);
    size_t bytes = 0;
    if (n == 0) {
        return NULL;
    }
    for (size_t i = 0; i < n; i++) {
        bytes += strlen(from[i]) + 1;
    }
    char *p;
    char **l = list_new(n, bytes, &p);
    for (size_t i = 0; i < n; i++) {
        size_t len = strlen(from[i]) + 1;
        memcpy(p, from[i], len);
        l[i] = p;
        p += len;
    }
    return l;
}

static bool has(char *const *l, const char *s)
{
    for (; l && *l; l++) {
        if (strcmp(*l, s) == 0) {
            return true;
        }
    }
    return false;
}

static bool lists_equal(char *const *a, char *const *b)
{
    size_t n = list_len(a);
    if (n != list_len(b)) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (strcmp(a[i], b[i]) != 0) {
            return false;
        }
    }
    return true;
}

static struct th_json *list_json(char *const *l)
{
    struct th_json *a = th_json_array();
    for (; l && *l; l++) {
        th_json_append_str(a, *l);
    }
    return a;
}

/* ---- rules ---- */

static void rule_done(struct th_rule *r)
{
    free(r->verbs);
    free(r->groups);
    free(r->resources);
    free(r->names);
    free(r->urls);
}

void th_rules_done(struct th_rules *r)
{
    for (size_t i = 0; i < r->n; i++) {
        rule_done(&r->v[i]);
    }
    free(r->v);
    *r = (struct th_rules){.v = NULL};
}

static struct th_rule *grow(struct th_rules *r)
{
    r->v = th_xgrow(r->v, &r->cap, r->n + 1, sizeof(*r->v));
    r->v[r->n] = (struct th_rule){.verbs = NULL};
    return &r->v[r->n++];
}

void th_rules_add_json(struct th_rules *r, const struct th_json *list)
{
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *o = th_json_at(list, i);
        *grow(r) = (struct th_rule){
            .verbs = list_of_json(th_json_get(o, "verbs")),
            .groups = list_of_json(th_json_get(o, "apiGroups")),
            .resources = list_of_json(th_json_get(o, "resources")),
            .names = list_of_json(th_json_get(o, "resourceNames")),
            .urls = list_of_json(th_json_get(o, "nonResourceURLs")),
        };
    }
}

void th_rules_add(struct th_rules *r, const struct th_rule *rule)
{
    *grow(r) = (struct th_rule){
        .verbs = list_dup(rule->verbs),
        .groups = list_dup(rule->groups),
        .resources = list_dup(rule->resources),
        .names = list_dup(rule->names),
        .urls = list_dup(rule->urls),
    };
}

struct th_json *th_rule_json(const struct th_rule *r)
{
    const struct {
        const char *name;
        char **list;
    } members[] = {{"verbs", r->verbs},
                   {"apiGroups", r->groups},
                   {"resources", r->resources},
                   {"resourceNames", r->names},
                   {"nonResourceURLs", r->urls}};
    struct th_json *o = th_json_object();
    for (size_t i = 0; i < TH_ARRAY_LEN(members); i++) {
        if (members[i].list) {
            th_json_set(o, members[i].name, list_json(members[i].list));
        }
    }
    return o;
}

/* ---- does it allow ---- */

static bool resource_matches(char *const *l, const char *plural, const char *sub)
{
    size_t n = strlen(plural);
    for (; l && *l; l++) {
        const char *r = *l;
        if (strcmp(r, "*") == 0) {
            return true;
        }
        if (!sub || !*sub) {
            if (strcmp(r, plural) == 0) {
                return true;
            }
            continue;
        }
        if (strncmp(r, plural, n) == 0 && r[n] == '/' && strcmp(r + n + 1, sub) == 0) {
            return true;
        }
        if (r[0] == '*' && r[1] == '/' && strcmp(r + 2, sub) == 0) {
            return true;
        }
    }
    return false;
}

/* A path pattern may end with "*", and with several. */
static bool url_matches(const char *pattern, const char *path)
{
    size_t n = strlen(pattern);
    if (n == 0 || pattern[n - 1] != '*') {
        return strcmp(pattern, path) == 0;
    }
    while (n > 0 && pattern[n - 1] == '*') {
        n--;
    }
    return strcmp(pattern, path) == 0 || strncmp(pattern, path, n) == 0;
}

bool th_rule_allows(const struct th_rule *r, const struct th_attrs *at)
{
    if (!has(r->verbs, at->verb) && !has(r->verbs, "*")) {
        return false;
    }
    if (!at->resource) {
        for (char *const *u = r->urls; u && *u; u++) {
            if (url_matches(*u, at->path)) {
                return true;
            }
        }
        return false;
    }
    return (has(r->groups, at->group) || has(r->groups, "*")) &&
           resource_matches(r->resources, at->plural, at->sub) &&
           (!r->names || has(r->names, at->name ? at->name : ""));
}

bool th_rules_allow(const struct th_rules *r, const struct th_attrs *at)
{
    for (size_t i = 0; i < r->n; i++) {
        if (th_rule_allows(&r->v[i], at)) {
            return true;
        }
    }
    return false;
}

/* ---- does it cover ---- */

/* One permission: members are borrowed, group and resource or url are NULL. */
struct atom {
    const char *verb, *group, *resource, *name, *url;
};

static bool resource_covers(char *const *owned, const char *resource)
{
    if (has(owned, "*") || has(owned, resource)) {
        return true;
    }
    const char *slash = strchr(resource, '/');
    for (; slash && owned && *owned; owned++) {
        if ((*owned)[0] == '*' && strcmp(*owned + 1, slash) == 0) {
            return true;
        }
    }
    return false;
}

static bool covers(const struct th_rule *o, const struct atom *a)
{
    if (!has(o->verbs, "*") && !has(o->verbs, a->verb)) {
        return false;
    }
    if (a->url) {
        for (char *const *u = o->urls; u && *u; u++) {
            if (url_matches(*u, a->url)) {
                return true;
            }
        }
        return false;
    }
    return (has(o->groups, "*") || has(o->groups, a->group)) &&
           resource_covers(o->resources, a->resource) &&
           (!o->names || (a->name && has(o->names, a->name)));
}

static void add_atom(struct th_rules *to, const struct atom *a)
{
    char *verbs[] = {(char *)(uintptr_t)a->verb, NULL};
    char *groups[] = {(char *)(uintptr_t)a->group, NULL};
    char *resources[] = {(char *)(uintptr_t)a->resource, NULL};
    char *names[] = {(char *)(uintptr_t)a->name, NULL};
    char *urls[] = {(char *)(uintptr_t)a->url, NULL};
    struct th_rule r = {verbs, groups, resources, names, urls};
    th_rules_add(to, &r);
}

static void judge(const struct th_rules *owned, const struct atom *a, struct th_rules *missing)
{
    for (size_t i = 0; i < owned->n; i++) {
        if (covers(&owned->v[i], a)) {
            return;
        }
    }
    add_atom(missing, a);
}

static void judge_rule(const struct th_rules *owned, const struct th_rule *r,
                       struct th_rules *missing)
{
    for (char *const *g = r->groups; g && *g; g++) {
        for (char *const *s = r->resources; s && *s; s++) {
            for (char *const *v = r->verbs; v && *v; v++) {
                struct atom a = {.verb = *v, .group = *g, .resource = *s};
                if (!r->names) {
                    judge(owned, &a, missing);
                }
                for (char *const *n = r->names; n && *n; n++) {
                    a.name = *n;
                    judge(owned, &a, missing);
                }
            }
        }
    }
    for (char *const *u = r->urls; u && *u; u++) {
        for (char *const *v = r->verbs; v && *v; v++) {
            judge(owned, &(struct atom){.verb = *v, .url = *u}, missing);
        }
    }
}

void th_rules_uncovered(const struct th_rules *owned, const struct th_rules *asked,
                        struct th_rules *missing)
{
    for (size_t i = 0; i < asked->n; i++) {
        judge_rule(owned, &asked->v[i], missing);
    }
}

/* ---- how it is shown ---- */

static bool is_simple(const struct th_rule *r)
{
    return !r->urls && list_len(r->groups) == 1 && list_len(r->resources) == 1 &&
           list_len(r->names) <= 1;
}

static void put_list(struct th_buf *b, const char *name, char *const *l)
{
    if (!l) {
        return;
    }
    th_buf_printf(b, "%s%s:[", th_buf_cstr(b)[b->n - 1] == '{' ? "" : ", ", name);
    for (size_t i = 0; l[i]; i++) {
        if (i > 0) {
            th_buf_putc(b, ' ');
        }
        th_go_quote(b, l[i]);
    }
    th_buf_putc(b, ']');
}

static char *describe(const struct th_rule *r)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_buf_putc(&b, '{');
    put_list(&b, "APIGroups", r->groups);
    put_list(&b, "Resources", r->resources);
    put_list(&b, "NonResourceURLs", r->urls);
    put_list(&b, "ResourceNames", r->names);
    put_list(&b, "Verbs", r->verbs);
    th_buf_putc(&b, '}');
    return th_buf_steal(&b, NULL);
}

static char **joined(char *const *a, char *const *b)
{
    size_t n = list_len(a);
    size_t m = list_len(b);
    char **tmp = th_xcalloc(n + m + 1, sizeof(*tmp));
    if (n > 0) {
        memcpy(tmp, a, n * sizeof(*tmp));
    }
    if (m > 0) {
        memcpy(tmp + n, b, m * sizeof(*tmp));
    }
    char **l = list_dup(tmp);
    free(tmp);
    return l;
}

static void compact(const struct th_rules *r, struct th_rules *to)
{
    for (size_t i = 0; i < r->n; i++) {
        const struct th_rule *x = &r->v[i];
        struct th_rule *same = NULL;
        for (size_t j = 0; is_simple(x) && !same && j < to->n; j++) {
            struct th_rule *y = &to->v[j];
            if (is_simple(y) && lists_equal(x->groups, y->groups) &&
                lists_equal(x->resources, y->resources) && lists_equal(x->names, y->names)) {
                same = y;
            }
        }
        if (!same) {
            th_rules_add(to, x);
            continue;
        }
        char **verbs = joined(same->verbs, x->verbs);
        free(same->verbs);
        same->verbs = verbs;
    }
}

void th_rules_describe(const struct th_rules *r, struct th_buf *b)
{
    TH_CLEANUP(th_rules_done) struct th_rules few = {.v = NULL};
    th_autostrv struct th_strv lines = TH_STRV_INIT;
    compact(r, &few);
    for (size_t i = 0; i < few.n; i++) {
        char *line = describe(&few.v[i]);
        if (th_strv_has(&lines, line)) {
            free(line);
        } else {
            th_strv_take(&lines, line);
        }
    }
    th_strv_sort(&lines);
    th_autofree char *text = th_strv_join(&lines, "\n");
    th_buf_puts(b, text);
}
