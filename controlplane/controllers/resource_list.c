/* The list of served resources; see resource_list.h. Both documents of the aggregated form (/api
 * and /apis) have versions in the order of preference, so the first one that has a resource is the
 * preferred one. */
#include "controlplane/controllers/resource_list.h"
#include "base/buf.h"

#define AGGREGATED "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

static const struct {
    const char *name;
    unsigned bit;
} verb_bits[] = {{"list", TH_RL_LIST},
                 {"watch", TH_RL_WATCH},
                 {"delete", TH_RL_DELETE},
                 {"deletecollection", TH_RL_DELETECOLLECTION}};

void th_rl_item_done(struct th_rl_item *r)
{
    free(r->group);
    free(r->version);
    free(r->plural);
    free(r->kind);
    *r = (struct th_rl_item){.group = NULL};
}

struct th_rl_item th_rl_item_dup(const struct th_rl_item *r)
{
    struct th_rl_item copy = *r;
    copy.group = th_xstrdup(r->group);
    copy.version = th_xstrdup(r->version);
    copy.plural = th_xstrdup(r->plural);
    copy.kind = th_xstrdup(r->kind);
    return copy;
}

void th_rl_done(struct th_rl *l)
{
    for (size_t i = 0; i < l->n; i++) {
        th_rl_item_done(&l->v[i]);
    }
    free(l->v);
    *l = (struct th_rl)TH_RL_INIT;
}

static unsigned verbs_of(const struct th_json *list)
{
    unsigned bits = 0;
    for (size_t i = 0; i < th_json_len(list); i++) {
        for (size_t k = 0; k < TH_ARRAY_LEN(verb_bits); k++) {
            if (th_streq(th_json_str(th_json_at(list, i)), verb_bits[k].name)) {
                bits |= verb_bits[k].bit;
            }
        }
    }
    return bits;
}

static bool has_resource(const struct th_rl *l, const char *group, const char *plural)
{
    for (size_t i = 0; i < l->n; i++) {
        if (th_streq(l->v[i].group, group) && th_streq(l->v[i].plural, plural)) {
            return true;
        }
    }
    return false;
}

static void add_group(struct th_rl *l, const struct th_json *group)
{
    const char *name = th_json_path_str(group, "metadata.name");
    name = name ? name : "";
    const struct th_json *versions = th_json_get(group, "versions");
    for (size_t i = 0; i < th_json_len(versions); i++) {
        const struct th_json *version = th_json_at(versions, i);
        const struct th_json *resources = th_json_get(version, "resources");
        for (size_t k = 0; k < th_json_len(resources); k++) {
            const struct th_json *r = th_json_at(resources, k);
            const char *plural = th_json_path_str(r, "resource");
            const char *kind = th_json_path_str(r, "responseKind.kind");
            if (!plural || !kind) {
                continue;
            }
            bool preferred = !has_resource(l, name, plural);
            l->v = th_xrealloc(l->v, (l->n + 1) * sizeof(*l->v));
            l->v[l->n++] = (struct th_rl_item){
                .group = th_xstrdup(name),
                .version = th_xstrdup(th_json_path_str(version, "version")),
                .plural = th_xstrdup(plural),
                .kind = th_xstrdup(kind),
                .verbs = verbs_of(th_json_get(r, "verbs")),
                .namespaced = th_streq(th_json_path_str(r, "scope"), "Namespaced"),
                .preferred = preferred,
            };
        }
    }
}

int th_rl_discover(struct th_client *client, struct th_rl *ret, struct th_err *err)
{
    static const char *const roots[] = {"/api", "/apis"};
    struct th_rl now TH_CLEANUP(th_rl_done) = TH_RL_INIT;
    for (size_t i = 0; i < TH_ARRAY_LEN(roots); i++) {
        struct th_buf body TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
        struct th_json *doc TH_AUTO(th_json) = NULL;
        struct th_raw_req req = {.method = "GET", .path = roots[i], .accept = AGGREGATED};
        TH_TRY(th_client_raw(client, &req, NULL, &body, err));
        TH_TRY(th_json_parse(th_buf_cstr(&body), body.n, NULL, &doc, err));
        const struct th_json *groups = th_json_get(doc, "items");
        for (size_t k = 0; k < th_json_len(groups); k++) {
            add_group(&now, th_json_at(groups, k));
        }
    }
    struct th_rl before = *ret;
    *ret = now;
    now = before;
    return 0;
}

const struct th_rl_item *th_rl_for_kind(const struct th_rl *l, const char *api_version,
                                        const char *kind)
{
    const char *slash = api_version ? strchr(api_version, '/') : NULL;
    size_t group_n = slash ? (size_t)(slash - api_version) : 0;
    const char *version = slash ? slash + 1 : api_version;
    for (size_t i = 0; version && i < l->n; i++) {
        const struct th_rl_item *r = &l->v[i];
        if (th_streq(r->kind, kind) && th_streq(r->version, version) &&
            strlen(r->group) == group_n && strncmp(r->group, api_version, group_n) == 0) {
            return r;
        }
    }
    return NULL;
}

const struct th_rl_item *th_rl_for_gvr(const struct th_rl *l, struct th_gvr gvr)
{
    for (size_t i = 0; i < l->n; i++) {
        const struct th_rl_item *r = &l->v[i];
        if (th_streq(r->plural, gvr.plural) && th_streq(r->group, gvr.group) &&
            th_streq(r->version, gvr.version)) {
            return r;
        }
    }
    return NULL;
}

struct th_gvr th_rl_gvr(const struct th_rl_item *r)
{
    return (struct th_gvr){r->group, r->version, r->plural};
}
