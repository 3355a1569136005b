/* Accept: which of our forms the client wants.
 *
 * Clients send lists such as "application/json;as=Table;v=v1;g=meta.k8s.io,application/json" or
 * "application/vnd.kubernetes.protobuf,application/json". We take the first clause that we can
 * produce, those with a higher q= first: JSON always, YAML outside watches, protobuf where the kind
 * has a protobuf form, and where the resource has rows or metadata the transformations Table (not in
 * protobuf, which it has no form in) and PartialObjectMetadata[List].
 */
#include "controlplane/api/priv.h"

#include <strings.h>

#define MAX_CLAUSES 32

struct clause {
    struct th_str type;
    struct th_str as, g, v, stream, pretty;
    int q; /* thousandths */
};

static struct th_str trim(struct th_str s)
{
    while (s.n > 0 && (*s.p == ' ' || *s.p == '\t')) {
        s.p++;
        s.n--;
    }
    while (s.n > 0 && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t')) {
        s.n--;
    }
    return s;
}

/* Takes up to `sep` off the front of *rest. */
static struct th_str cut(struct th_str *rest, char sep)
{
    const char *e = memchr(rest->p, sep, rest->n);
    struct th_str part = {rest->p, e ? (size_t)(e - rest->p) : rest->n};
    size_t used = part.n + (e ? 1 : 0);
    rest->p += used;
    rest->n -= used;
    return trim(part);
}

/* "0.8" is 800; what is no number counts as 1, as upstream's parser has it. */
static int weight(struct th_str v)
{
    if (v.n == 0 || (v.p[0] != '0' && v.p[0] != '1')) {
        return 1000;
    }
    int q = (v.p[0] - '0') * 1000;
    int unit = 100;
    for (size_t i = 2; i < v.n && v.p[1] == '.' && unit > 0 && v.p[i] >= '0' && v.p[i] <= '9'; i++) {
        q += (v.p[i] - '0') * unit;
        unit /= 10;
    }
    return q;
}

static bool next_clause(struct th_str *rest, struct clause *c)
{
    while (rest->n > 0) {
        struct th_str text = cut(rest, ',');
        if (text.n == 0) {
            continue;
        }
        *c = (struct clause){.type = cut(&text, ';'), .q = 1000};
        while (text.n > 0) {
            struct th_str value = cut(&text, ';');
            struct th_str key = cut(&value, '=');
            if (th_str_eq(key, TH_STR("q"))) {
                c->q = weight(value);
            }
            struct th_str *slot = th_str_eq(key, TH_STR("as"))       ? &c->as
                                  : th_str_eq(key, TH_STR("g"))      ? &c->g
                                  : th_str_eq(key, TH_STR("v"))      ? &c->v
                                  : th_str_eq(key, TH_STR("stream")) ? &c->stream
                                  : th_str_eq(key, TH_STR("pretty")) ? &c->pretty
                                                                     : NULL;
            if (slot) {
                *slot = value;
            }
        }
        return true;
    }
    return false;
}

static bool is_json(struct th_str t)
{
    return th_str_eq(t, TH_STR("application/json")) || th_str_eq(t, TH_STR("*/*")) ||
           th_str_eq(t, TH_STR("application/*"));
}

static bool media_of(const struct clause *c, bool watch, bool protobuf, enum th_media *ret)
{
    if (is_json(c->type)) {
        *ret = TH_MEDIA_JSON;
        return true;
    }
    if (th_str_eq(c->type, TH_STR("application/yaml"))) {
        *ret = TH_MEDIA_YAML;
        return !watch;
    }
    *ret = TH_MEDIA_PROTOBUF;
    return protobuf && th_str_eq(c->type, TH_STR("application/vnd.kubernetes.protobuf"));
}

static bool fits(const struct clause *c, enum th_transforms transforms, bool watch, bool protobuf,
                 struct th_accept *ret)
{
    struct th_accept a = {.form = TH_FORM_OBJECT};
    if (!media_of(c, watch, protobuf, &a.media)) {
        return false;
    }
    a.pretty = th_str_eq(c->pretty, TH_STR("1"));
    if (c->as.n > 0) {
        bool v1 = th_str_eq(c->v, TH_STR("v1"));
        bool beta = th_str_eq(c->v, TH_STR("v1beta1"));
        if (transforms == TH_TRANSFORMS_NONE || !(v1 || beta) || !th_str_eq(c->g, TH_STR("meta.k8s.io"))) {
            return false;
        }
        if (th_str_eq(c->as, TH_STR("Table")) && a.media != TH_MEDIA_PROTOBUF &&
            transforms == TH_TRANSFORMS_ALL) {
            a.form = TH_FORM_TABLE;
        } else if (th_str_eq(c->as, TH_STR("PartialObjectMetadata")) ||
                   th_str_eq(c->as, TH_STR("PartialObjectMetadataList"))) {
            a.form = TH_FORM_PARTIAL;
        } else {
            return false;
        }
        a.gv = v1 ? "meta.k8s.io/v1" : "meta.k8s.io/v1beta1";
    }
    *ret = a;
    return true;
}

int th_accept_parse(const char *header, enum th_transforms transforms, bool watch, bool protobuf,
                    struct th_accept *ret, struct th_err *err)
{
    if (!header || !*header) {
        *ret = (struct th_accept){.form = TH_FORM_OBJECT};
        return 0;
    }
    struct th_str rest = th_str_of(header);
    struct clause c;
    int best = 0;
    for (size_t i = 0; i < MAX_CLAUSES && next_clause(&rest, &c); i++) {
        struct th_accept a;
        if (c.q > best && fits(&c, transforms, watch, protobuf, &a)) {
            *ret = a;
            best = c.q;
        }
    }
    if (best > 0) {
        return 0;
    }
    return th_fail(err, TH_R_NOT_ACCEPTABLE, "only the following media types are accepted: %s%s",
                   watch ? "application/json;stream=watch" : "application/json, application/yaml",
                   !protobuf ? ""
                   : watch   ? ", application/vnd.kubernetes.protobuf;stream=watch"
                             : ", application/vnd.kubernetes.protobuf");
}

bool th_accept_wants(const char *header, const char *as, const char *g, const char *v)
{
    struct th_str rest = th_str_of(header ? header : "");
    struct clause c;
    while (next_clause(&rest, &c)) {
        if (!is_json(c.type)) {
            continue;
        }
        if (c.as.n == 0) {
            return false;
        }
        if (th_str_eq(c.as, th_str_of(as)) && th_str_eq(c.g, th_str_of(g)) &&
            th_str_eq(c.v, th_str_of(v))) {
            return true;
        }
    }
    return false;
}

bool th_wants_pretty(const struct th_areq *req)
{
    static const char *const people[] = {"curl", "Wget", "Mozilla/5.0"};
    const char *query = req->uri ? strchr(req->uri, '?') : NULL;
    if (query && strstr(query, "pretty=")) {
        struct th_query q;
        if (th_query_parse(query + 1, &q, NULL) >= 0) {
            bool said = th_query_get(&q, "pretty") != NULL, wish = th_query_bool(&q, "pretty");
            th_query_done(&q);
            if (said) {
                return wish;
            }
        }
    }
    for (size_t i = 0; req->user_agent && i < TH_ARRAY_LEN(people); i++) {
        if (th_startswith(req->user_agent, people[i])) {
            return true;
        }
    }
    return false;
}
