/* Discovery: which groups, versions and resources there are.
 *
 * Two forms of the same rows: the aggregated one (APIGroupDiscoveryList, v2 and v2beta1), which
 * kubectl and client-go ask for first at /api and /apis, and the one document per group version.
 * A document is built once and kept with its ETag until the set of custom resources or of APIServices
 * changes. What servers behind APIServices serve is in them as it was found when they were asked last.
 */
#include "controlplane/api/aggregate/aggregate.h"

#include "base/encode.h"
#include "controlplane/api/customs.h"

static const struct {
    unsigned bit;
    const char *name;
} verb_names[] = {
    {TH_VERB_CREATE, "create"}, {TH_VERB_DELETE, "delete"},
    {TH_VERB_DELETECOLLECTION, "deletecollection"},
    {TH_VERB_GET, "get"},       {TH_VERB_LIST, "list"},
    {TH_VERB_PATCH, "patch"},   {TH_VERB_UPDATE, "update"},
    {TH_VERB_WATCH, "watch"},
};

static struct th_json *verbs_json(unsigned verbs)
{
    struct th_json *a = th_json_array();
    for (size_t i = 0; i < TH_ARRAY_LEN(verb_names); i++) {
        if (verbs & verb_names[i].bit) {
            th_json_append_str(a, verb_names[i].name);
        }
    }
    return a;
}

/* Of a definition that is being deleted, only what is allowed until it is gone. */
static unsigned shown_verbs(const struct th_resource *r)
{
    const unsigned last = TH_VERB_GET | TH_VERB_LIST | TH_VERB_WATCH | TH_VERB_DELETE |
                          TH_VERB_DELETECOLLECTION;
    return r->custom && r->custom->crd->terminating ? r->verbs & last : r->verbs;
}

static void set_strings(struct th_json *o, const char *name, const char *const *list)
{
    if (!list || !*list) {
        return;
    }
    struct th_json *a = th_json_array();
    for (; *list; list++) {
        th_json_append_str(a, *list);
    }
    th_json_set(o, name, a);
}

static char *gv_name(const char *group, const char *version)
{
    return *group ? th_xasprintf("%s/%s", group, version) : th_xstrdup(version);
}

/* The priority of a group's version among its versions, as its APIService says. */
static int64_t version_priority(struct th_call *c, const char *group, const char *version)
{
    const struct th_aggr_service *s = th_aggr_find(th_call_aggr(c), group, version);
    int64_t of_group = 0, of_version = 0;
    th_aggr_priorities(group, version, &of_group, &of_version);
    return s ? s->version_priority : of_version;
}

static bool version_first(struct th_call *c, const char *group, const char *a, const char *b)
{
    int64_t x = version_priority(c, group, a), y = version_priority(c, group, b);
    return x != y ? x > y : th_version_before(a, b);
}

/* The versions of a group, best first. */
static void versions_of(struct th_call *c, const char *group, struct th_strv *ret)
{
    const struct th_resource *r;
    for (size_t i = 0; (r = th_call_resource_at(c, i)); i++) {
        if (th_streq(r->group, group) && !th_strv_has(ret, r->version)) {
            th_strv_add(ret, r->version);
        }
    }
    const struct th_aggr_set *set = th_call_aggr(c);
    for (size_t i = 0; set && i < set->n; i++) {
        const struct th_aggr_service *s = &set->v[i];
        if (!s->local && th_streq(s->group, group) && !th_strv_has(ret, s->version)) {
            th_strv_add(ret, s->version);
        }
    }
    for (size_t i = 1; i < ret->n; i++) {
        for (size_t k = i; k > 0 && version_first(c, group, ret->v[k], ret->v[k - 1]); k--) {
            char *t = ret->v[k];
            ret->v[k] = ret->v[k - 1];
            ret->v[k - 1] = t;
        }
    }
}

static bool is_built_in_group(const char *group)
{
    const char *g;
    for (size_t i = 0; (g = th_group_at(i)); i++) {
        if (th_streq(g, group)) {
            return true;
        }
    }
    return false;
}

struct other_group {
    const char *name;
    int64_t priority;
};

static int by_priority(const void *x, const void *y)
{
    const struct other_group *a = x, *b = y;
    return a->priority != b->priority ? (a->priority > b->priority ? -1 : 1)
                                      : strcmp(a->name, b->name);
}

/* All groups: the built-in ones in their order, then the others by priority and name. */
static void groups_of(struct th_call *c, struct th_strv *ret)
{
    const char *g;
    for (size_t i = 0; (g = th_group_at(i)); i++) {
        th_strv_add(ret, g);
    }
    th_autostrv struct th_strv names = TH_STRV_INIT;
    const struct th_customs *customs = th_call_customs(c);
    for (size_t i = 0; customs && i < customs->groups.n; i++) {
        th_strv_add(&names, customs->groups.v[i]);
    }
    const struct th_aggr_set *set = th_call_aggr(c);
    for (size_t i = 0; set && i < set->n; i++) {
        const struct th_aggr_service *s = &set->v[i];
        bool served = !s->local || th_group_served(c, s->group);
        if (served && !th_strv_has(&names, s->group)) {
            th_strv_add(&names, s->group);
        }
    }
    th_autofree struct other_group *v = th_xcalloc(names.n + 1, sizeof(*v));
    size_t n = 0;
    for (size_t i = 0; i < names.n; i++) {
        if (!is_built_in_group(names.v[i])) {
            int64_t of_version = 0;
            v[n].name = names.v[i];
            th_aggr_priorities(names.v[i], "", &v[n].priority, &of_version);
            for (size_t k = 0; set && k < set->n; k++) {
                if (th_streq(set->v[k].group, names.v[i])) {
                    v[n].priority = set->v[k].group_top;
                }
            }
            n++;
        }
    }
    qsort(v, n, sizeof(*v), by_priority);
    for (size_t i = 0; i < n; i++) {
        th_strv_add(ret, v[i].name);
    }
}

/* ---- one document per group version ---- */

static struct th_json *api_resource_list(struct th_call *c, const char *group, const char *version)
{
    struct th_json *list = th_json_array();
    const struct th_resource *r;
    for (size_t i = 0; (r = th_call_resource_at(c, i)); i++) {
        if (!th_streq(r->group, group) || !th_streq(r->version, version)) {
            continue;
        }
        struct th_json *o = th_json_build(
            "{'name':%s,'singularName':%s,'namespaced':%b,'kind':%s,'verbs':%o}", r->plural,
            r->singular, (int)r->namespaced, r->kind, verbs_json(shown_verbs(r)));
        set_strings(o, "shortNames", r->short_names);
        set_strings(o, "categories", r->categories);
        if (r->storage_hash && *r->storage_hash) {
            th_json_set_str(o, "storageVersionHash", r->storage_hash);
        }
        th_json_append(list, o);
        for (const struct th_subresource *s = r->subs; s && s->name; s++) {
            struct th_json *so = th_json_build(
                "{'name':%o,'singularName':'','namespaced':%b}",
                th_json_stringf("%s/%s", r->plural, s->name), (int)r->namespaced);
            if (!th_streq(s->group, group) || !th_streq(s->version, version)) {
                th_json_set_str(so, "group", s->group);
                th_json_set_str(so, "version", s->version);
            }
            th_json_set_str(so, "kind", s->kind);
            th_json_set(so, "verbs", verbs_json(s->verbs));
            th_json_append(list, so);
        }
    }
    if (th_json_len(list) == 0) {
        th_json_unref(list);
        return NULL;
    }
    th_autofree char *gv = gv_name(group, version);
    return th_json_build("{'kind':'APIResourceList','apiVersion':'v1','groupVersion':%s,"
                         "'resources':%o}",
                         gv, list);
}

static struct th_json *group_json(struct th_call *c, const char *group, bool top)
{
    th_autostrv struct th_strv versions = TH_STRV_INIT;
    versions_of(c, group, &versions);
    if (versions.n == 0) {
        return NULL;
    }
    struct th_json *list = th_json_array();
    for (size_t i = 0; i < versions.n; i++) {
        th_autofree char *gv = gv_name(group, versions.v[i]);
        th_json_append(list, th_json_build("{'groupVersion':%s,'version':%s}", gv, versions.v[i]));
    }
    struct th_json *o = top ? th_json_build("{'kind':'APIGroup','apiVersion':'v1'}")
                            : th_json_object();
    th_json_set_str(o, "name", group);
    th_json_set(o, "preferredVersion", th_json_dup(th_json_at(list, 0)));
    th_json_set(o, "versions", list);
    return o;
}

static struct th_json *group_list(struct th_call *c)
{
    struct th_json *groups = th_json_array();
    th_autostrv struct th_strv names = TH_STRV_INIT;
    groups_of(c, &names);
    for (size_t i = 0; i < names.n; i++) {
        const char *g = names.v[i];
        struct th_json *o = *g ? group_json(c, g, false) : NULL;
        if (o) {
            th_json_append(groups, o);
        }
    }
    return th_json_build("{'kind':'APIGroupList','apiVersion':'v1','groups':%o}", groups);
}

/* ---- aggregated ---- */

static struct th_json *kind_json(const char *group, const char *version, const char *kind)
{
    return th_json_build("{'group':%s,'version':%s,'kind':%s}", group, version, kind);
}

static struct th_json *resource_discovery(const struct th_resource *r)
{
    struct th_json *o = th_json_build(
        "{'resource':%s,'responseKind':%o,'scope':%s,'singularResource':%s,'verbs':%o}", r->plural,
        kind_json(r->group, r->version, r->kind), r->namespaced ? "Namespaced" : "Cluster",
        r->singular, verbs_json(shown_verbs(r)));
    set_strings(o, "shortNames", r->short_names);
    set_strings(o, "categories", r->categories);
    struct th_json *subs = th_json_array();
    for (const struct th_subresource *s = r->subs; s && s->name; s++) {
        th_json_append(subs, th_json_build("{'subresource':%s,'responseKind':%o,'verbs':%o}",
                                           s->name, kind_json(s->group, s->version, s->kind),
                                           verbs_json(s->verbs)));
    }
    if (th_json_len(subs) > 0) {
        th_json_set(o, "subresources", subs);
    } else {
        th_json_unref(subs);
    }
    return o;
}

/* Of a server behind a Service: what it said when it was asked last. */
static struct th_json *remote_version(struct th_call *c, const struct th_aggr_service *s)
{
    bool stale = true;
    struct th_json *resources = th_aggr_docs_resources(c->api->aggr, s->name, &stale);
    return th_json_build("{'version':%s,'resources':%o,'freshness':%s}", s->version,
                         resources ? resources : th_json_array(), stale ? "Stale" : "Current");
}

static struct th_json *group_discovery(struct th_call *c, const char *group)
{
    th_autostrv struct th_strv versions = TH_STRV_INIT;
    versions_of(c, group, &versions);
    if (versions.n == 0) {
        return NULL;
    }
    struct th_json *list = th_json_array();
    for (size_t i = 0; i < versions.n; i++) {
        const struct th_aggr_service *remote = th_aggr_find(th_call_aggr(c), group, versions.v[i]);
        if (remote && !remote->local) {
            th_json_append(list, remote_version(c, remote));
            continue;
        }
        struct th_json *resources = th_json_array();
        const struct th_resource *r;
        for (size_t k = 0; (r = th_call_resource_at(c, k)); k++) {
            if (th_streq(r->group, group) && th_streq(r->version, versions.v[i])) {
                th_json_append(resources, resource_discovery(r));
            }
        }
        th_json_append(list, th_json_build("{'version':%s,'resources':%o,'freshness':'Current'}",
                                           versions.v[i], resources));
    }
    struct th_json *meta = th_json_object();
    if (*group) {
        th_json_set_str(meta, "name", group);
    }
    return th_json_build("{'metadata':%o,'versions':%o}", meta, list);
}

static struct th_json *aggregated(struct th_call *c, bool core, const char *version)
{
    struct th_json *items = th_json_array();
    th_autostrv struct th_strv names = TH_STRV_INIT;
    groups_of(c, &names);
    for (size_t i = 0; i < names.n; i++) {
        const char *g = names.v[i];
        struct th_json *o = core == (*g == '\0') ? group_discovery(c, g) : NULL;
        if (o) {
            th_json_append(items, o);
        }
    }
    return th_json_build("{'kind':'APIGroupDiscoveryList','apiVersion':%o,'metadata':{},"
                         "'items':%o}",
                         th_json_stringf("apidiscovery.k8s.io/%s", version), items);
}

/* ---- documents ---- */

void th_doc_free(void *p)
{
    struct th_doc *d = p;
    if (d) {
        free(d->text);
        free(d);
    }
}

/* Takes o. */
static const struct th_doc *keep(struct th_call *c, const char *key, struct th_json *o)
{
    struct th_doc *d = TH_NEW(struct th_doc);
    struct th_buf b = TH_BUF_INIT;
    th_json_dump(o, &b);
    th_buf_putc(&b, '\n');
    th_json_unref(o);
    d->text = th_buf_steal(&b, &d->n);
    char hex[TH_SHA256_HEX_LEN];
    th_sha256_hex(d->text, d->n, hex);
    (void)snprintf(d->etag, sizeof(d->etag), "\"%.64s\"", hex);
    th_hmap_set(&c->api->cache, key, d);
    return d;
}

void th_doc_respond(struct th_call *c, const struct th_doc *d, const char *content_type)
{
    struct th_aresp *r = c->resp;
    th_strv_addf(&r->headers, "ETag: %s", d->etag);
    th_strv_add(&r->headers, "Vary: Accept");
    r->content_type = content_type;
    if (th_streq(c->req->if_none_match, d->etag)) {
        r->status = 304;
        return;
    }
    r->status = 200;
    th_buf_add(&r->body, d->text, d->n);
}

#define AGGREGATED_TYPE(v) "application/json;g=apidiscovery.k8s.io;v=" v ";as=APIGroupDiscoveryList"

static int serve_aggregated(struct th_call *c, bool core)
{
    static const struct {
        const char *v, *type, *core_key, *key;
    } forms[] = {
        {"v2", AGGREGATED_TYPE("v2"), "agg2/api", "agg2/apis"},
        {"v2beta1", AGGREGATED_TYPE("v2beta1"), "agg1/api", "agg1/apis"},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(forms); i++) {
        if (!th_accept_wants(c->req->accept, "APIGroupDiscoveryList", "apidiscovery.k8s.io",
                             forms[i].v)) {
            continue;
        }
        const char *key = core ? forms[i].core_key : forms[i].key;
        th_call_lock_docs(c);
        const struct th_doc *d = th_hmap_get(&c->api->cache, key);
        if (!d) {
            d = keep(c, key, aggregated(c, core, forms[i].v));
        }
        th_doc_respond(c, d, forms[i].type);
        (void)pthread_mutex_unlock(&c->api->lock);
        return 1;
    }
    return 0;
}

static int respond(struct th_call *c, struct th_json *o_, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *o = o_;
    if (!o) {
        return th_fail(err, TH_R_NOT_FOUND, "the server could not find the requested resource");
    }
    TH_TRY(th_accept_parse(c->req->accept, TH_TRANSFORMS_NONE, false, true, &c->accept, err));
    c->accept.pretty = c->accept.pretty || th_wants_pretty(c->req);
    TH_TRY(th_respond_tree(c, 200, th_steal(&o), err));
    return 1;
}

static struct th_json *api_versions(const struct th_api *api)
{
    struct th_json *o =
        th_json_build("{'kind':'APIVersions','versions':['v1'],'serverAddressByClientCIDRs':[]}");
    if (api->server_address) {
        th_json_append(th_json_get(o, "serverAddressByClientCIDRs"),
                       th_json_build("{'clientCIDR':'0.0.0.0/0','serverAddress':%s}",
                                     api->server_address));
    }
    return o;
}

static struct th_json *root_paths(struct th_call *c)
{
    struct th_json *paths = th_json_array();
    static const char *const fixed[] = {"/.well-known/openid-configuration", "/api", "/api/v1",
                                        "/apis"};
    for (size_t i = 0; i < TH_ARRAY_LEN(fixed); i++) {
        th_json_append_str(paths, fixed[i]);
    }
    th_autostrv struct th_strv names = TH_STRV_INIT;
    groups_of(c, &names);
    for (size_t i = 0; i < names.n; i++) {
        const char *g = names.v[i];
        th_autostrv struct th_strv versions = TH_STRV_INIT;
        versions_of(c, g, &versions);
        if (!*g || versions.n == 0) {
            continue;
        }
        th_json_append(paths, th_json_stringf("/apis/%s", g));
        for (size_t k = 0; k < versions.n; k++) {
            th_json_append(paths, th_json_stringf("/apis/%s/%s", g, versions.v[k]));
        }
    }
    static const char *const rest[] = {"/healthz", "/livez", "/metrics", "/openapi/v2",
                                       "/openapi/v3", "/openid/v1/jwks", "/readyz", "/version"};
    for (size_t i = 0; i < TH_ARRAY_LEN(rest); i++) {
        th_json_append_str(paths, rest[i]);
    }
    return th_json_build("{'paths':%o}", paths);
}

int th_discovery_serve(struct th_call *c, struct th_err *err)
{
    if (!th_streq(c->req->method, "GET") && !th_streq(c->req->method, "HEAD")) {
        return 0;
    }
    th_autostrv struct th_strv all = TH_STRV_INIT;
    th_strv_split(&all, c->route.path, '/');
    const char *p[4] = {NULL};
    size_t n = 0;
    for (size_t i = 0; i < all.n; i++) {
        if (*all.v[i]) {
            if (n == 4) {
                return 0;
            }
            p[n++] = all.v[i];
        }
    }
    if (n == 0) {
        return respond(c, root_paths(c), err);
    }
    if (th_streq(p[0], "api")) {
        if (n == 1) {
            return serve_aggregated(c, true) ? 1 : respond(c, api_versions(c->api), err);
        }
        return n == 2 ? respond(c, api_resource_list(c, "", p[1]), err) : 0;
    }
    if (th_streq(p[0], "apis")) {
        if (n == 1) {
            return serve_aggregated(c, false) ? 1 : respond(c, group_list(c), err);
        }
        if (n == 2) {
            return respond(c, group_json(c, p[1], true), err);
        }
        return n == 3 ? respond(c, api_resource_list(c, p[1], p[2]), err) : 0;
    }
    return 0;
}
