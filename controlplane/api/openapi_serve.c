/* /openapi/v2 (JSON and protobuf) and /openapi/v3, made from the rows once and kept.
 *
 * The v3 index names each document with a hash of its bytes; a request that carries the right hash
 * may be cached for ever, as upstream says.
 */
#include "controlplane/api/aggregate/aggregate.h"

#include "base/encode.h"
#include "controlplane/api/customs.h"
#include "controlplane/schema/openapi.h"

#define MAX_SUBS 12

struct listing {
    struct th_openapi_resource *v;
    struct th_openapi_sub *subs;
    struct th_type *types; /* two for each custom row: the kind and its list */
    struct th_strv texts;  /* what types point to */
    size_t n, n_types;
};

static void listing_done(struct listing *l)
{
    free(l->v);
    free(l->subs);
    free(l->types);
    th_strv_done(&l->texts);
}

static const char *keep_text(struct listing *l, char *text)
{
    th_strv_take(&l->texts, text);
    return text;
}

static const struct th_type *add_type(struct listing *l, char *name, struct th_buf *text)
{
    struct th_type *t = &l->types[l->n_types++];
    *t = (struct th_type){.name = keep_text(l, name),
                          .flags = TH_TF_CUSTOM,
                          .openapi = keep_text(l, th_buf_steal(text, NULL))};
    return t;
}

/* The schemas of a custom row, made from the definition in the store: the parsed form of all
 * definitions would be too large to be kept. */
static void add_custom(struct th_call *c, struct listing *l, const struct th_resource *r, bool v2,
                       struct th_openapi_resource *ret)
{
    const struct th_crd *crd = r->custom->crd;
    th_autofree char *key =
        th_xasprintf("apiextensions.k8s.io/customresourcedefinitions/-/%s", crd->name);
    TH_AUTO(th_obj) struct th_obj *o = th_store_get(c->api->store, key);
    TH_AUTO(th_json) struct th_json *tree = NULL;
    struct th_oa_custom oa = {
        .group = r->group, .version = r->version, .kind = r->kind, .list_kind = r->list_kind};
    if (o && th_json_parse(o->bytes, o->n, NULL, &tree, NULL) >= 0) {
        const struct th_json *versions = th_json_path(tree, "spec.versions");
        for (size_t i = 0; i < th_json_len(versions); i++) {
            const struct th_json *v = th_json_at(versions, i);
            if (th_streq(th_json_path_str(v, "name"), r->version)) {
                oa.schema = th_json_path(v, "schema.openAPIV3Schema");
                oa.selectable = th_json_get(v, "selectableFields");
            }
        }
    }
    struct th_buf text = TH_BUF_INIT;
    th_structural_openapi(&oa, v2, &text);
    ret->type = add_type(l, th_structural_openapi_name(r->group, r->version, r->kind), &text);
    th_structural_openapi_list(&oa, v2, &text);
    ret->list_type =
        add_type(l, th_structural_openapi_name(r->group, r->version, r->list_kind), &text);
}

static void listing_make(struct th_call *c, bool v2, struct listing *l)
{
    size_t n = 0;
    while (th_call_resource_at(c, n)) {
        n++;
    }
    l->v = th_xcalloc(n, sizeof(*l->v));
    l->subs = th_xcalloc(n * MAX_SUBS, sizeof(*l->subs));
    l->types = th_xcalloc(2 * n, sizeof(*l->types));
    for (size_t i = 0; i < n; i++) {
        const struct th_resource *r = th_call_resource_at(c, i);
        struct th_openapi_sub *subs = l->subs + i * MAX_SUBS;
        size_t k = 0;
        for (const struct th_subresource *s = r->subs; s && s->name && k < MAX_SUBS - 1; s++) {
            subs[k++] = (struct th_openapi_sub){.name = s->name,
                                                .group = s->group,
                                                .version = s->version,
                                                .kind = s->kind,
                                                .verbs = s->verbs};
        }
        l->v[i] = (struct th_openapi_resource){.group = r->group,
                                               .version = r->version,
                                               .kind = r->kind,
                                               .plural = r->plural,
                                               .namespaced = r->namespaced,
                                               .verbs = r->verbs,
                                               .subs = k ? subs : NULL};
        if (r->custom) {
            add_custom(c, l, r, v2, &l->v[i]);
        }
    }
    l->n = n;
}

/* Under api->lock. */
static const struct th_doc *keep(struct th_api *api, const char *key, struct th_buf *b)
{
    struct th_doc *d = TH_NEW(struct th_doc);
    char hex[TH_SHA256_HEX_LEN];
    th_sha256_hex(b->p, b->n, hex);
    (void)snprintf(d->etag, sizeof(d->etag), "\"%.64s\"", hex);
    d->text = th_buf_steal(b, &d->n);
    th_hmap_set(&api->cache, key, d);
    return d;
}

static bool is_first_of_gv(const struct listing *l, size_t i)
{
    for (size_t k = 0; k < i; k++) {
        if (th_streq(l->v[k].group, l->v[i].group) && th_streq(l->v[k].version, l->v[i].version)) {
            return false;
        }
    }
    return true;
}

/* Builds every v3 document and the index. */
static void build_v3(struct th_call *c)
{
    struct th_api *api = c->api;
    TH_CLEANUP(listing_done) struct listing l = {.n = 0};
    listing_make(c, false, &l);
    th_autostrv struct th_strv paths = TH_STRV_INIT;
    th_autostrv struct th_strv hashes = TH_STRV_INIT;
    for (size_t i = 0; i < l.n; i++) {
        if (!is_first_of_gv(&l, i)) {
            continue;
        }
        char *path = th_openapi_gv_path(l.v[i].group, l.v[i].version);
        th_autofree char *key = th_xasprintf("/openapi/v3/%s", path);
        const struct th_doc *d = th_hmap_get(&api->cache, key);
        if (!d) {
            th_autobuf struct th_buf b = TH_BUF_INIT;
            th_openapi_v3(l.v[i].group, l.v[i].version, l.v, l.n, &b);
            d = keep(api, key, &b);
        }
        th_strv_take(&paths, path);
        th_strv_take(&hashes, th_xstrndup(d->etag + 1, 64));
    }
    const struct th_aggr_set *set = th_call_aggr(c);
    for (size_t i = 0; set && i < set->n; i++) {
        const struct th_aggr_service *s = &set->v[i];
        char *hash = s->local ? NULL : th_aggr_docs_v3_hash(api->aggr, s->name);
        if (hash) { /* whoever asks for it is passed on */
            th_strv_take(&paths, th_openapi_gv_path(s->group, s->version));
            th_strv_take(&hashes, hash);
        }
    }
    th_autobuf struct th_buf index = TH_BUF_INIT;
    th_openapi_v3_index((const char *const *)paths.v, (const char *const *)hashes.v, paths.n,
                        &index);
    (void)keep(api, "/openapi/v3", &index);
}

/* Where the members of the top-level object `name` begin in a document that this server wrote; 0: it
 * has none. */
static size_t members_at(const struct th_buf *b, const char *name)
{
    size_t n = strlen(name);
    int depth = 0;
    for (size_t i = 0; i < b->n; i++) {
        char ch = b->p[i];
        if (ch == '"') {
            size_t from = i + 1;
            for (i++; i < b->n && b->p[i] != '"'; i++) {
                i += b->p[i] == '\\';
            }
            if (depth == 1 && i - from == n && memcmp(b->p + from, name, n) == 0 &&
                i + 2 < b->n && b->p[i + 1] == ':' && b->p[i + 2] == '{') {
                return i + 3;
            }
        } else if (ch == '{' || ch == '[') {
            depth++;
        } else if (ch == '}' || ch == ']') {
            depth--;
        }
    }
    return 0;
}

/* Puts members of o that b does not have yet where the top-level object `name` begins in b. */
static void insert_members(struct th_buf *b, const char *name, const struct th_json *o)
{
    size_t at = members_at(b, name);
    th_autobuf struct th_buf more = TH_BUF_INIT;
    struct th_json_iter it = TH_JSON_ITER(o);
    while (at && th_json_next(&it)) {
        th_autofree char *member = th_xasprintf("\"%s\":{", it.name);
        if (memmem(b->p, b->n, member, strlen(member))) {
            continue; /* shared types: ours say the same */
        }
        th_buf_printf(&more, "\"%s\":", it.name);
        th_json_dump(it.value, &more);
        th_buf_putc(&more, ',');
    }
    if (more.n == 0) {
        return;
    }
    if (b->p[at] == '}') {
        more.n--;
    }
    th_autobuf struct th_buf all = TH_BUF_INIT;
    th_buf_add(&all, b->p, at);
    th_buf_add(&all, more.p, more.n);
    th_buf_add(&all, b->p + at, b->n - at);
    th_buf_done(b);
    *b = all;
    all = (struct th_buf)TH_BUF_INIT;
}

static void build_v2(struct th_call *c)
{
    struct th_api *api = c->api;
    TH_CLEANUP(listing_done) struct listing l = {.n = 0};
    listing_make(c, true, &l);
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_openapi_v2(l.v, l.n, &b);
    const struct th_aggr_set *set = th_call_aggr(c);
    for (size_t i = 0; set && i < set->n; i++) {
        TH_AUTO(th_json) struct th_json *part =
            set->v[i].local ? NULL : th_aggr_docs_v2(api->aggr, set->v[i].name);
        insert_members(&b, "paths", th_json_get(part, "paths"));
        insert_members(&b, "definitions", th_json_get(part, "definitions"));
    }
    (void)keep(api, "/openapi/v2", &b);
}

#define V2_PROTOBUF_TYPE "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"

/* Under api->lock. */
static const struct th_doc *v2(struct th_call *c, bool protobuf, struct th_err *err)
{
    struct th_api *api = c->api;
    const struct th_doc *json = th_hmap_get(&api->cache, "/openapi/v2");
    if (!json) {
        build_v2(c);
        json = th_hmap_get(&api->cache, "/openapi/v2");
    }
    const struct th_doc *d = protobuf ? th_hmap_get(&api->cache, "/openapi/v2 protobuf") : json;
    if (!d) {
        th_autobuf struct th_buf b = TH_BUF_INIT;
        if (th_openapi_v2_protobuf((struct th_str){json->text, json->n}, &b, err) < 0) {
            return NULL;
        }
        d = keep(api, "/openapi/v2 protobuf", &b);
    }
    return d;
}

static const struct th_doc *v3(struct th_call *c, const char *path)
{
    struct th_api *api = c->api;
    if (!th_hmap_has(&api->cache, "/openapi/v3")) {
        build_v3(c);
    }
    return th_hmap_get(&api->cache, path);
}

/* v2 has a protobuf form, which old clients name in the first of two spellings. */
static int choose(const char *accept, bool has_protobuf, bool *ret_protobuf, struct th_err *err)
{
    struct th_accept a;
    *ret_protobuf = has_protobuf && accept &&
                    (strstr(accept, "com.github.proto-openapi.spec.v2@v1.0+protobuf") ||
                     strstr(accept, "com.github.proto-openapi.spec.v2.v1.0+protobuf"));
    return *ret_protobuf ? 0 : th_accept_parse(accept, TH_TRANSFORMS_NONE, true, false, &a, err);
}

int th_openapi_serve(struct th_call *c, struct th_err *err)
{
    const char *path = c->route.path;
    bool is_v2 = th_streq(path, "/openapi/v2");
    bool protobuf = false;
    if (!th_startswith(path, "/openapi/v")) {
        return 0;
    }
    if (choose(c->req->accept, is_v2, &protobuf, err) < 0) {
        return th_fail(err, TH_R_NOT_ACCEPTABLE,
                       "only the following media types are accepted: application/json%s",
                       is_v2 ? ", " V2_PROTOBUF_TYPE : "");
    }
    th_call_lock_docs(c);
    const struct th_doc *d = is_v2 ? v2(c, protobuf, err) : v3(c, path);
    if (d) {
        th_doc_respond(c, d, protobuf ? V2_PROTOBUF_TYPE : "application/json");
    }
    (void)pthread_mutex_unlock(&c->api->lock);
    return d ? 1 : th_fail(err, TH_R_NOT_FOUND, "the server could not find the requested resource");
}
