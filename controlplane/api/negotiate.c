/* Accept: which of our forms the client wants.
 *
 * Clients send lists such as "application/json;as=Table;v=v1;g=meta.k8s.io,application/json" or
 * "application/vnd.kubernetes.protobuf,application/json". We go through the clauses in order and
 * take the first that we can produce: JSON always, YAML outside watches, and where the resource
 * has rows or metadata the transformations Table and PartialObjectMetadata[List]. Protobuf is never
 * produced: every client that asks for it also takes JSON. q= weights are ignored, as no client of
 * Kubernetes sends them in another order than its preference.
 */
#include "controlplane/api/priv.h"

#include <strings.h>

struct clause {
    struct th_str type;
    struct th_str as, g, v, stream, pretty;
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

static bool next_clause(struct th_str *rest, struct clause *c)
{
    while (rest->n > 0) {
        struct th_str text = cut(rest, ',');
        if (text.n == 0) {
            continue;
        }
        *c = (struct clause){.type = cut(&text, ';')};
        while (text.n > 0) {
            struct th_str value = cut(&text, ';');
            struct th_str key = cut(&value, '=');
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

static bool fits(const struct clause *c, bool transforms, bool watch, struct th_accept *ret)
{
    struct th_accept a = {.form = TH_FORM_OBJECT};
    bool yaml = th_str_eq(c->type, TH_STR("application/yaml"));
    if (!is_json(c->type) && !(yaml && !watch)) {
        return false;
    }
    a.yaml = yaml;
    a.pretty = th_str_eq(c->pretty, TH_STR("1"));
    if (c->as.n > 0) {
        bool v1 = th_str_eq(c->v, TH_STR("v1"));
        bool beta = th_str_eq(c->v, TH_STR("v1beta1"));
        if (!transforms || !(v1 || beta) || !th_str_eq(c->g, TH_STR("meta.k8s.io"))) {
            return false;
        }
        if (th_str_eq(c->as, TH_STR("Table"))) {
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

int th_accept_parse(const char *header, bool transforms, bool watch, struct th_accept *ret,
                    struct th_err *err)
{
    if (!header || !*header) {
        *ret = (struct th_accept){.form = TH_FORM_OBJECT};
        return 0;
    }
    struct th_str rest = th_str_of(header);
    struct clause c;
    while (next_clause(&rest, &c)) {
        if (fits(&c, transforms, watch, ret)) {
            return 0;
        }
    }
    return th_fail(err, TH_R_NOT_ACCEPTABLE, "only the following media types are accepted: %s",
                   watch ? "application/json;stream=watch"
                         : "application/json, application/yaml");
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
