/* From a URL to (group, version, namespace, resource, name, subresource).
 *
 *   /api/v1/<resource>[/<name>[/<sub>[/<rest>]]]
 *   /apis/<group>/<version>/...                        the same behind it
 *   .../namespaces/<ns>/<resource>[/<name>[/<sub>...]] inside a namespace
 *   .../namespaces/<name>[/status|/finalize]           the Namespace itself
 *   /api/v1/watch/..., /apis/<group>/<version>/watch/...   a watch of it, the way of old clients
 *
 * Everything else (discovery, health, OpenAPI) is TH_ROUTE_OTHER and is served by its path. Segments
 * are unescaped one by one, so "%2F" inside a name never splits it; `rest` stays raw, for it is
 * handed on to a proxied server. Whether the resource exists is not known here.
 */
#include "controlplane/api/priv.h"

#include "base/encode.h"

#define MAX_SEGMENTS 12

static char *segment(const char *p, size_t n, struct th_err *err)
{
    if (!memchr(p, '%', n)) {
        return th_xstrndup(p, n);
    }
    th_autobuf struct th_buf b = TH_BUF_INIT;
    if (th_url_unescape(p, n, false, &b, err) < 0 || strlen(th_buf_cstr(&b)) != b.n) {
        return NULL;
    }
    return th_xstrdup(th_buf_cstr(&b));
}

struct split {
    char *v[MAX_SEGMENTS];
    const char *at[MAX_SEGMENTS]; /* where the segment begins in the raw path */
    size_t n;
};

static void split_done(struct split *s)
{
    for (size_t i = 0; i < s->n; i++) {
        free(s->v[i]);
    }
}

/* Empty segments are skipped, as by upstream's splitPath. */
static int split_path(const char *path, size_t n, struct split *s, struct th_err *err)
{
    size_t i = 0;
    while (i < n && s->n < MAX_SEGMENTS) {
        while (i < n && path[i] == '/') {
            i++;
        }
        size_t start = i;
        while (i < n && path[i] != '/') {
            i++;
        }
        if (i > start) {
            s->at[s->n] = path + start;
            s->v[s->n] = segment(path + start, i - start, err);
            if (!s->v[s->n]) {
                return th_fail(err, TH_R_BAD_REQUEST, "invalid URL escape in the path");
            }
            s->n++;
        }
    }
    return 0;
}

static bool is_namespace_sub(const char *s)
{
    return th_streq(s, "status") || th_streq(s, "finalize");
}

/* The part behind group and version; i is its first segment. */
static void route_resource(struct th_route *r, struct split *s, size_t i, const char *end)
{
    if (th_streq(s->v[i], "watch") && s->n > i + 1) {
        r->watch = true;
        i++;
    }
    if (th_streq(s->v[i], "namespaces") && s->n > i + 2 && !is_namespace_sub(s->v[i + 2])) {
        r->ns = th_steal(&s->v[i + 1]);
        i += 2;
    }
    r->plural = th_steal(&s->v[i]);
    if (s->n > i + 1) {
        r->name = th_steal(&s->v[i + 1]);
    }
    if (s->n > i + 2) {
        r->sub = th_steal(&s->v[i + 2]);
        const char *p = s->at[i + 2];
        while (p < end && *p != '/') {
            p++;
        }
        if (p < end) {
            r->rest = th_xstrndup(p + 1, (size_t)(end - p - 1));
        }
    }
    r->kind = TH_ROUTE_RESOURCE;
}

int th_route_parse(const char *uri, struct th_route *ret, struct th_err *err)
{
    struct th_route r = {.kind = TH_ROUTE_OTHER};
    size_t n = strcspn(uri, "?");
    TH_CLEANUP(split_done) struct split s = {.n = 0};
    TH_TRY(split_path(uri, n, &s, err));
    r.path = segment(uri, n, err);
    if (!r.path) {
        return th_fail(err, TH_R_BAD_REQUEST, "invalid URL escape in the path");
    }
    if (s.n >= 3 && th_streq(s.v[0], "api")) {
        r.group = th_xstrdup("");
        r.version = th_steal(&s.v[1]);
        route_resource(&r, &s, 2, uri + n);
    } else if (s.n >= 4 && th_streq(s.v[0], "apis")) {
        r.group = th_steal(&s.v[1]);
        r.version = th_steal(&s.v[2]);
        route_resource(&r, &s, 3, uri + n);
    }
    *ret = r;
    return 0;
}

void th_route_done(struct th_route *r)
{
    free(r->path);
    free(r->group);
    free(r->version);
    free(r->ns);
    free(r->plural);
    free(r->name);
    free(r->sub);
    free(r->rest);
    *r = (struct th_route){0};
}
