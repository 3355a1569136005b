/*
 * Which APIServices there are, and who answers for what.
 *
 * As with custom resources (customs.c): the set follows the store when it is asked for, so a request
 * sees every APIService that was written before it came. A request for a group and version whose
 * APIService names a Service is not this server's to answer: it is authorized here and passed on
 * (proxy.c). The keeper (keeper.c) makes the local APIServices, one for each group and version that is
 * served here, and finds out which of the others are available.
 */
#include "controlplane/api/aggregate/aggregate.h"

#include "base/encode.h"
#include "base/log.h"
#include "controlplane/api/rounds.h"

struct th_aggr *th_aggr_new(const struct th_aggr_opts *o)
{
    struct th_aggr *a = TH_NEW(struct th_aggr);
    a->api = o->api;
    a->front_cert = th_xstrdup(o->front_cert_pem);
    a->front_key = th_xstrdup(o->front_key_pem);
    a->front_ca = th_xstrdup(o->front_ca_pem);
    a->client_ca = th_xstrdup(o->client_ca_pem);
    a->metrics_api = o->metrics_api;
    (void)pthread_mutex_init(&a->lock, NULL);
    th_hmap_init(&a->docs, th_aggr_docs_free);
    return a;
}

void th_aggr_free(struct th_aggr *a)
{
    if (!a) {
        return;
    }
    th_aggr_keeper_free(a->keeper);
    if (a->watch) {
        th_watch_close(a->watch);
    }
    th_aggr_unref(a->now);
    th_hmap_done(&a->docs);
    (void)pthread_mutex_destroy(&a->lock);
    free(a->front_cert);
    free(a->front_key);
    free(a->front_ca);
    free(a->client_ca);
    free(a);
}

static void service_done(struct th_aggr_service *s)
{
    free(s->name);
    free(s->group);
    free(s->version);
    free(s->ns);
    free(s->service);
    free(s->ca_pem);
}

void th_aggr_unref(struct th_aggr_set *s)
{
    if (!s || __atomic_sub_fetch(&s->refs, 1, __ATOMIC_ACQ_REL) > 0) {
        return;
    }
    for (size_t i = 0; i < s->n; i++) {
        service_done(&s->v[i]);
    }
    free(s->v);
    free(s);
}

static bool is_available(const struct th_json *o)
{
    const struct th_json *list = th_json_path(o, "status.conditions");
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *cond = th_json_at(list, i);
        if (th_streq(th_json_path_str(cond, "type"), "Available")) {
            return th_streq(th_json_path_str(cond, "status"), "True");
        }
    }
    return false;
}

static char *dup_str(const struct th_json *o, const char *path)
{
    const char *s = th_json_path_str(o, path);
    return th_xstrdup(s ? s : "");
}

static void fill(struct th_aggr_service *s, const struct th_json *o, int64_t rv)
{
    s->name = dup_str(o, "metadata.name");
    s->group = dup_str(o, "spec.group");
    s->version = dup_str(o, "spec.version");
    s->group_priority = th_json_path_int(o, "spec.groupPriorityMinimum", 0);
    s->version_priority = th_json_path_int(o, "spec.versionPriority", 0);
    s->rv = rv;
    s->local = !th_json_path(o, "spec.service");
    s->available = is_available(o);
    if (s->local) {
        return;
    }
    s->ns = dup_str(o, "spec.service.namespace");
    s->service = dup_str(o, "spec.service.name");
    s->port = (int)th_json_path_int(o, "spec.service.port", 443);
    s->insecure = th_json_path_bool(o, "spec.insecureSkipTLSVerify", false);
    const char *bundle = th_json_path_str(o, "spec.caBundle");
    th_autobuf struct th_buf pem = TH_BUF_INIT;
    if (bundle && *bundle && th_b64_decode(bundle, strlen(bundle), &pem, NULL) >= 0) {
        s->ca_pem = th_buf_steal(&pem, NULL);
    }
}

static int by_group(const void *x, const void *y)
{
    const struct th_aggr_service *a = x, *b = y;
    return strcmp(a->group, b->group);
}

/* Groups by their highest priority, then by name; in a group versions by theirs. */
static int by_priority(const void *x, const void *y)
{
    const struct th_aggr_service *a = x, *b = y;
    if (a->group_top != b->group_top) {
        return a->group_top > b->group_top ? -1 : 1;
    }
    int r = strcmp(a->group, b->group);
    if (r != 0) {
        return r;
    }
    if (a->version_priority != b->version_priority) {
        return a->version_priority > b->version_priority ? -1 : 1;
    }
    return th_version_before(a->version, b->version)   ? -1
           : th_version_before(b->version, a->version) ? 1
                                                       : 0;
}

static void sort(struct th_aggr_set *set)
{
    qsort(set->v, set->n, sizeof(*set->v), by_group);
    for (size_t i = 0; i < set->n;) {
        size_t end = i;
        int64_t top = 0;
        for (; end < set->n && th_streq(set->v[end].group, set->v[i].group); end++) {
            top = set->v[end].group_priority > top ? set->v[end].group_priority : top;
        }
        for (; i < end; i++) {
            set->v[i].group_top = top;
        }
    }
    qsort(set->v, set->n, sizeof(*set->v), by_priority);
}

static void rebuild(struct th_aggr *a)
{
    TH_CLEANUP(th_store_list_done) struct th_store_list l = {.n = 0};
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (th_store_range(a->api->store, TH_APISERVICES_PREFIX, NULL, 0, 0, &l, &err) < 0) {
        th_warn("api", "APIServices cannot be read", "error=%s", th_log_q(err.msg));
        return;
    }
    struct th_aggr_set *s = TH_NEW(struct th_aggr_set);
    s->refs = 1;
    s->serial = a->now ? a->now->serial + 1 : 1;
    s->v = th_xcalloc(l.n + 1, sizeof(*s->v));
    for (size_t i = 0; i < l.n; i++) {
        TH_AUTO(th_json) struct th_json *o = NULL;
        if (th_json_parse(l.objs[i]->bytes, l.objs[i]->n, NULL, &o, NULL) >= 0) {
            fill(&s->v[s->n], o, l.objs[i]->rv);
            s->any_remote = s->any_remote || !s->v[s->n].local;
            s->n++;
        }
    }
    sort(s);
    th_aggr_unref(a->now);
    a->now = s;
}

struct th_aggr_set *th_aggr_get(struct th_aggr *a)
{
    (void)pthread_mutex_lock(&a->lock);
    if (th_bell_rang(a->api->store, TH_APISERVICES_PREFIX, NULL, NULL, &a->watch) || !a->now) {
        rebuild(a);
    }
    struct th_aggr_set *s = a->now;
    if (s) {
        __atomic_add_fetch(&s->refs, 1, __ATOMIC_RELAXED);
    }
    (void)pthread_mutex_unlock(&a->lock);
    return s;
}

const struct th_aggr_service *th_aggr_find(const struct th_aggr_set *s, const char *group,
                                           const char *version)
{
    for (size_t i = 0; s && i < s->n; i++) {
        if (th_streq(s->v[i].group, group) && th_streq(s->v[i].version, version)) {
            return &s->v[i];
        }
    }
    return NULL;
}

const struct th_aggr_service *th_aggr_of_path(const struct th_aggr_set *s, const char *path)
{
    static const char root[] = "/apis/";
    if (!s || !s->any_remote || strncmp(path, root, sizeof(root) - 1) != 0) {
        return NULL;
    }
    const char *group = path + sizeof(root) - 1;
    size_t group_n = strcspn(group, "/?");
    const char *version = group + group_n + (group[group_n] == '/');
    size_t version_n = strcspn(version, "/?");
    for (size_t i = 0; i < s->n; i++) {
        const struct th_aggr_service *v = &s->v[i];
        if (!v->local && th_str_eq(th_str_of(v->group), (struct th_str){group, group_n}) &&
            th_str_eq(th_str_of(v->version), (struct th_str){version, version_n})) {
            return v;
        }
    }
    return NULL;
}
