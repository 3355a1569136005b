/*
 * What the servers behind APIServices say of themselves, kept for discovery and OpenAPI.
 *
 * The check that a server is there asks for its discovery document anyway; it is turned into the
 * aggregated form and kept. Its OpenAPI is asked for when the hash in its v3 index has changed. The v3
 * document itself is not kept: whoever wants it is passed on to the server. Of v2 only the paths of the
 * group and version are kept, and the definitions that they lead to.
 */
#include "controlplane/api/aggregate/aggregate.h"

#include "base/limits.h"
#include "base/log.h"

#define ASK_MS 5000
#define V2_MAX_B (16u << 20)

void th_aggr_docs_free(void *p)
{
    struct th_aggr_docs *d = p;
    if (d) {
        th_json_unref(d->resources);
        th_json_unref(d->v2);
        free(d->v3_hash);
        free(d);
    }
}

static struct th_identity *own_identity(void)
{
    static const char *const groups[] = {"system:masters", NULL};
    return th_identity_new("system:kube-aggregator", NULL, groups);
}

/* GET path as JSON. */
static int ask(struct th_client *client, const char *path, struct th_json **ret, int *ret_status,
               struct th_err *err)
{
    th_autobuf struct th_buf body = TH_BUF_INIT;
    th_buf_init(&body, V2_MAX_B);
    const struct th_raw_req req = {
        .method = "GET", .path = path, .accept = "application/json", .timeout_ms = ASK_MS};
    TH_TRY(th_client_raw(client, &req, ret_status, &body, err));
    return th_json_parse(th_buf_cstr(&body), body.n, NULL, ret, err);
}

int th_aggr_probe(struct th_aggr *a, const struct th_aggr_service *s, struct th_json **ret,
                  struct th_err *err)
{
    th_autofree char *ip = NULL;
    int port = 0;
    TH_TRY(th_service_resolve(a->api->store, s->ns, s->service, s->port, &ip, &port, err));
    TH_AUTO(th_identity) struct th_identity *id = own_identity();
    TH_AUTO(th_client) struct th_client *client = NULL;
    TH_TRY(th_aggr_client(a, s, id, &client, err));
    th_autofree char *path = th_xasprintf("/apis/%s/%s", s->group, s->version);
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    int status = 0;
    if (ask(client, path, ret, &status, &local) >= 0) {
        return 0;
    }
    if (status > 0 && (status < 200 || status >= 300)) {
        return th_fail(err, TH_R_UNAVAILABLE,
                       "failing or missing response from https://%s:%d%s: bad status from "
                       "https://%s:%d%s: %d",
                       ip, port, path, ip, port, path, status);
    }
    return th_fail(err, TH_R_UNAVAILABLE,
                   "failing or missing response from https://%s:%d%s: Get \"https://%s:%d%s\": %s", ip,
                   port, path, ip, port, path, local.msg);
}

/* ---- discovery ---- */

static struct th_json *response_kind(const struct th_aggr_service *s, const struct th_json *r)
{
    const char *group = th_json_path_str(r, "group"), *version = th_json_path_str(r, "version");
    const char *kind = th_json_path_str(r, "kind");
    bool own = !version || !*version;
    return th_json_build("{'group':%s,'version':%s,'kind':%s}", own ? s->group : group ? group : "",
                         own ? s->version : version, kind ? kind : "");
}

static void copy(struct th_json *to, const struct th_json *from, const char *name)
{
    const struct th_json *v = th_json_get(from, name);
    if (v && th_json_len(v) > 0) {
        th_json_set(to, name, th_json_dup(v));
    }
}

static struct th_json *verbs_of(const struct th_json *r)
{
    const struct th_json *v = th_json_get(r, "verbs");
    return v ? th_json_dup(v) : th_json_array();
}

/* An APIResourceList as the resources of an APIVersionDiscovery. */
static struct th_json *convert(const struct th_aggr_service *s, const struct th_json *list)
{
    struct th_json *all = th_json_array();
    const struct th_json *l = th_json_get(list, "resources");
    for (size_t i = 0; i < th_json_len(l); i++) {
        const struct th_json *r = th_json_at(l, i);
        const char *name = th_json_path_str(r, "name");
        const char *singular = th_json_path_str(r, "singularName");
        const char *kind = th_json_path_str(r, "kind");
        if (!name || strchr(name, '/')) {
            continue;
        }
        th_autofree char *lower = th_xstrdup(kind ? kind : "");
        for (char *p = lower; *p; p++) {
            *p = *p >= 'A' && *p <= 'Z' ? (char)(*p + 32) : *p;
        }
        struct th_json *o = th_json_build(
            "{'resource':%s,'responseKind':%o,'scope':%s,'singularResource':%s,'verbs':%o}", name,
            response_kind(s, r),
            th_json_path_bool(r, "namespaced", false) ? "Namespaced" : "Cluster",
            singular && *singular ? singular : lower, verbs_of(r));
        copy(o, r, "shortNames");
        copy(o, r, "categories");
        struct th_json *subs = th_json_array();
        size_t n = strlen(name);
        for (size_t k = 0; k < th_json_len(l); k++) {
            const struct th_json *sub = th_json_at(l, k);
            const char *sub_name = th_json_path_str(sub, "name");
            if (sub_name && strncmp(sub_name, name, n) == 0 && sub_name[n] == '/') {
                th_json_append(subs, th_json_build("{'subresource':%s,'responseKind':%o,'verbs':%o}",
                                                   sub_name + n + 1, response_kind(s, sub),
                                                   verbs_of(sub)));
            }
        }
        if (th_json_len(subs) > 0) {
            th_json_set(o, "subresources", subs);
        } else {
            th_json_unref(subs);
        }
        th_json_append(all, o);
    }
    return all;
}

/* ---- OpenAPI ---- */

static char *hash_in_index(const struct th_json *index, const struct th_aggr_service *s)
{
    th_autofree char *path = th_xasprintf("apis/%s/%s", s->group, s->version);
    const struct th_json *e = th_json_get(th_json_get(index, "paths"), path);
    const char *url = th_json_str(th_json_get(e, "serverRelativeURL"));
    const char *hash = url ? strstr(url, "hash=") : NULL;
    return hash ? th_xstrndup(hash + 5, strcspn(hash + 5, "&")) : NULL;
}

/* Adds the definitions that v refers to, and those that they refer to. */
static void add_refs(const struct th_json *v, const struct th_json *from, struct th_json *to)
{
    static const char start[] = "#/definitions/";
    if (th_json_is(v, TH_JSON_ARRAY)) {
        for (size_t i = 0; i < th_json_len(v); i++) {
            add_refs(th_json_at(v, i), from, to);
        }
        return;
    }
    if (!th_json_is(v, TH_JSON_OBJECT)) {
        return;
    }
    struct th_json_iter it = TH_JSON_ITER(v);
    while (th_json_next(&it)) {
        const char *ref = th_streq(it.name, "$ref") ? th_json_str(it.value) : NULL;
        if (!ref || !th_startswith(ref, start)) {
            add_refs(it.value, from, to);
            continue;
        }
        const char *name = ref + sizeof(start) - 1;
        const struct th_json *def = th_json_get(from, name);
        if (def && !th_json_has(to, name)) {
            th_json_set(to, name, th_json_dup(def));
            add_refs(def, from, to);
        }
    }
}

static struct th_json *part_of_v2(const struct th_json *doc, const struct th_aggr_service *s)
{
    struct th_json *paths = th_json_object();
    th_autofree char *own = th_xasprintf("/apis/%s/%s/", s->group, s->version);
    struct th_json_iter it = TH_JSON_ITER(th_json_get(doc, "paths"));
    while (th_json_next(&it)) {
        if (th_startswith(it.name, own)) {
            th_json_set(paths, it.name, th_json_dup(it.value));
        }
    }
    struct th_json *defs = th_json_object();
    const struct th_json *all = th_json_get(doc, "definitions");
    add_refs(paths, all, defs);
    /* kinds that no operation refers to but that belong to the group: lists of options, and the like */
    it = (struct th_json_iter)TH_JSON_ITER(all);
    while (th_json_next(&it)) {
        const struct th_json *gvk = th_json_at(th_json_get(it.value, "x-kubernetes-group-version-kind"), 0);
        if (gvk && th_streq(th_json_path_str(gvk, "group"), s->group) &&
            th_streq(th_json_path_str(gvk, "version"), s->version) && !th_json_has(defs, it.name)) {
            th_json_set(defs, it.name, th_json_dup(it.value));
            add_refs(it.value, all, defs);
        }
    }
    return th_json_build("{'paths':%o,'definitions':%o}", paths, defs);
}

/* ---- what is kept ---- */

/* Under the lock. */
static struct th_aggr_docs *docs_of(struct th_aggr *a, const char *name)
{
    struct th_aggr_docs *d = th_hmap_get(&a->docs, name);
    if (!d) {
        d = TH_NEW(struct th_aggr_docs);
        th_hmap_set(&a->docs, name, d);
    }
    return d;
}

static bool learn_resources(struct th_aggr *a, const char *name, struct th_json *resources)
{
    (void)pthread_mutex_lock(&a->lock);
    struct th_aggr_docs *d = docs_of(a, name);
    bool changed = d->stale || !d->resources || !th_json_equal(d->resources, resources);
    th_json_unref(d->resources);
    d->resources = resources;
    d->stale = false;
    a->docs_serial += changed;
    (void)pthread_mutex_unlock(&a->lock);
    return changed;
}

static void learn_openapi(struct th_aggr *a, const struct th_aggr_service *s)
{
    TH_AUTO(th_identity) struct th_identity *id = own_identity();
    TH_AUTO(th_client) struct th_client *client = NULL;
    TH_AUTO(th_json) struct th_json *index = NULL;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    int status = 0;
    if (th_aggr_client(a, s, id, &client, &err) < 0) {
        return;
    }
    (void)!ask(client, "/openapi/v3", &index, &status, NULL);
    th_autofree char *hash = hash_in_index(index, s);
    th_autofree char *had = th_aggr_docs_v3_hash(a, s->name);
    if (hash && th_streq(hash, had)) {
        return;
    }
    TH_AUTO(th_json) struct th_json *doc = NULL;
    if (ask(client, "/openapi/v2", &doc, &status, &err) < 0) {
        th_debug("api", "no OpenAPI v2", "apiservice=%s error=%s", th_log_q(s->name),
                 th_log_q(err.msg));
    }
    struct th_json *part = doc ? part_of_v2(doc, s) : NULL;
    (void)pthread_mutex_lock(&a->lock);
    struct th_aggr_docs *d = docs_of(a, s->name);
    bool changed = !th_streq(d->v3_hash, hash) || (part && !d->v2) ||
                   (part && !th_json_equal(part, d->v2));
    free(d->v3_hash);
    d->v3_hash = th_steal(&hash);
    th_json_unref(d->v2);
    d->v2 = part;
    a->docs_serial += changed;
    (void)pthread_mutex_unlock(&a->lock);
}

void th_aggr_docs_learn(struct th_aggr *a, const struct th_aggr_service *s,
                        const struct th_json *resource_list)
{
    (void)learn_resources(a, s->name, convert(s, resource_list));
    learn_openapi(a, s);
}

void th_aggr_docs_stale(struct th_aggr *a, const char *name)
{
    (void)pthread_mutex_lock(&a->lock);
    struct th_aggr_docs *d = docs_of(a, name);
    a->docs_serial += !d->stale;
    d->stale = true;
    (void)pthread_mutex_unlock(&a->lock);
}

void th_aggr_docs_forget(struct th_aggr *a, const struct th_aggr_set *keep)
{
    th_autostrv struct th_strv gone = TH_STRV_INIT;
    (void)pthread_mutex_lock(&a->lock);
    const struct th_hmap_entry *e;
    for (size_t it = 0; (e = th_hmap_next(&a->docs, &it));) {
        bool there = false;
        for (size_t i = 0; keep && i < keep->n && !there; i++) {
            there = !keep->v[i].local && th_streq(keep->v[i].name, e->key);
        }
        if (!there) {
            th_strv_add(&gone, e->key);
        }
    }
    for (size_t i = 0; i < gone.n; i++) {
        th_aggr_docs_free(th_hmap_remove(&a->docs, gone.v[i]));
        a->docs_serial++;
    }
    (void)pthread_mutex_unlock(&a->lock);
}

struct th_json *th_aggr_docs_resources(struct th_aggr *a, const char *name, bool *ret_stale)
{
    (void)pthread_mutex_lock(&a->lock);
    const struct th_aggr_docs *d = th_hmap_get(&a->docs, name);
    struct th_json *r = d && d->resources ? th_json_dup(d->resources) : NULL;
    *ret_stale = !d || d->stale || !d->resources;
    (void)pthread_mutex_unlock(&a->lock);
    return r;
}

char *th_aggr_docs_v3_hash(struct th_aggr *a, const char *name)
{
    (void)pthread_mutex_lock(&a->lock);
    const struct th_aggr_docs *d = th_hmap_get(&a->docs, name);
    char *hash = d ? th_xstrdup(d->v3_hash) : NULL;
    (void)pthread_mutex_unlock(&a->lock);
    return hash;
}

struct th_json *th_aggr_docs_v2(struct th_aggr *a, const char *name)
{
    (void)pthread_mutex_lock(&a->lock);
    const struct th_aggr_docs *d = th_hmap_get(&a->docs, name);
    struct th_json *v2 = d && d->v2 ? th_json_dup(d->v2) : NULL;
    (void)pthread_mutex_unlock(&a->lock);
    return v2;
}

uint64_t th_aggr_docs_serial(struct th_aggr *a)
{
    (void)pthread_mutex_lock(&a->lock);
    uint64_t n = a->docs_serial;
    (void)pthread_mutex_unlock(&a->lock);
    return n;
}
