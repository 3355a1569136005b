/*
 * The picture of the cluster and the run of the plugins; see framework.h.
 *
 * The picture keeps per node what can be allocated, what is requested and which pods are there, and
 * of each pod only what plugins ask for, so that placing one pod reads memory and parses nothing.
 * prepare runs once per pod: plugins that look at many pods (spread, affinity) count there, and
 * their filter looks a number up.
 */
#include "controlplane/scheduler/framework.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/rand.h"
#include "controlplane/client/client.h"

#define TH_SCHED_PLUGIN(name) extern const struct th_sched_plugin th_sched_##name;
#include "controlplane/scheduler/plugins.def"
#undef TH_SCHED_PLUGIN

static const struct th_sched_plugin *const plugins[] = {
#define TH_SCHED_PLUGIN(name) &th_sched_##name,
#include "controlplane/scheduler/plugins.def"
#undef TH_SCHED_PLUGIN
};
_Static_assert(TH_ARRAY_LEN(plugins) <= TH_SCHED_PLUGINS_MAX, "a slot of state for each plugin");

/* ---- The picture ---- */

static void node_free(void *p)
{
    struct th_node_info *n = p;
    if (n) {
        free(n->name);
        th_json_unref(n->obj);
        th_amounts_done(&n->allocatable);
        th_amounts_done(&n->requested);
        free(n->pods);
        free(n);
    }
}

static void pod_free(void *p)
{
    struct th_sched_pod *pod = p;
    if (pod) {
        free(pod->key);
        free(pod->ns);
        free(pod->uid);
        free(pod->node);
        free(pod->owner_uid);
        th_json_unref(pod->labels);
        th_aff_free(pod->aff);
        th_amounts_done(&pod->requests);
        th_host_ports_done(&pod->ports);
        th_strv_done(&pod->claims);
        free(pod);
    }
}

static void labels_free(void *p)
{
    th_json_unref(p);
}

void th_picture_init(struct th_picture *p)
{
    *p = (struct th_picture){.n_aff = 0};
    th_hmap_init(&p->nodes, node_free);
    th_hmap_init(&p->pods, pod_free);
    th_hmap_init(&p->nominated, pod_free);
    th_hmap_init(&p->namespaces, labels_free);
}

void th_picture_done(struct th_picture *p)
{
    th_hmap_done(&p->nodes);
    th_hmap_done(&p->pods);
    th_hmap_done(&p->nominated);
    th_hmap_done(&p->namespaces);
}

static void count_pod(struct th_node_info *n, const struct th_sched_pod *pod, int sign)
{
    th_amounts_add(&n->requested, &pod->requests, sign);
    n->cpu += sign * pod->cpu;
    n->memory += sign * pod->memory;
}

static void attach(struct th_node_info *n, struct th_sched_pod *pod)
{
    n->pods = th_xgrow(n->pods, &n->cap_pods, n->n_pods + 1, sizeof(*n->pods));
    n->pods[n->n_pods++] = pod;
    count_pod(n, pod, 1);
}

static void detach(struct th_node_info *n, const struct th_sched_pod *pod)
{
    for (size_t i = 0; i < n->n_pods; i++) {
        if (n->pods[i] == pod) {
            n->pods[i] = n->pods[--n->n_pods];
            count_pod(n, pod, -1);
            return;
        }
    }
}

void th_node_hide(struct th_node_info *n, struct th_sched_pod *pod, bool hidden)
{
    if (pod->removed != hidden) {
        pod->removed = hidden;
        count_pod(n, pod, hidden ? -1 : 1);
    }
}

static char *key_of(const struct th_json *obj)
{
    return th_xasprintf("%s/%s", th_json_path_str(obj, "metadata.namespace"),
                        th_json_path_str(obj, "metadata.name"));
}

static int64_t start_of(const struct th_json *pod)
{
    const char *text = th_json_path_str(pod, "status.startTime");
    int64_t us = 0;
    return text && th_time_parse(text, &us, NULL) == 0 ? us / 1000 : INT64_MAX;
}

static struct th_sched_pod *pod_new(const char *node, const struct th_json *obj)
{
    struct th_sched_pod *pod = TH_NEW(struct th_sched_pod);
    pod->key = key_of(obj);
    pod->ns = th_xstrdup(th_json_path_str(obj, "metadata.namespace"));
    pod->uid = th_xstrdup(th_json_path_str(obj, "metadata.uid"));
    pod->node = th_xstrdup(node);
    pod->owner_uid = th_xstrdup(th_controller_uid(obj));
    pod->labels = th_json_dup(th_json_path(obj, "metadata.labels"));
    pod->aff = th_aff_new(obj);
    pod->priority = th_json_path_int(obj, "spec.priority", 0);
    pod->start_ms = start_of(obj);
    pod->deleting = th_json_path_str(obj, "metadata.deletionTimestamp") != NULL;
    th_pod_requests(obj, &pod->requests);
    const struct th_json *volumes = th_json_path(obj, "spec.volumes");
    for (size_t i = 0; i < th_json_len(volumes); i++) {
        const char *claim =
            th_json_path_str(th_json_at(volumes, i), "persistentVolumeClaim.claimName");
        if (claim) {
            th_strv_add(&pod->claims, claim);
        }
    }
    th_pod_nonzero(obj, &pod->cpu, &pod->memory);
    th_host_ports_read(obj, &pod->ports);
    return pod;
}

bool th_picture_drop_pod(struct th_picture *p, const char *key)
{
    struct th_sched_pod *pod = th_hmap_remove(&p->pods, key);
    if (!pod) {
        return false;
    }
    struct th_node_info *n = th_hmap_get(&p->nodes, pod->node);
    if (n) {
        detach(n, pod);
    }
    p->n_aff -= pod->aff != NULL;
    pod_free(pod);
    return true;
}

void th_picture_put_pod(struct th_picture *p, const char *node, const struct th_json *obj)
{
    struct th_sched_pod *pod = pod_new(node, obj);
    (void)th_picture_drop_pod(p, pod->key);
    pod_free(th_hmap_remove(&p->nominated, pod->key));
    th_hmap_set(&p->pods, pod->key, pod);
    p->n_aff += pod->aff != NULL;
    struct th_node_info *n = th_hmap_get(&p->nodes, node);
    if (n) {
        attach(n, pod);
    }
}

void th_picture_put_node(struct th_picture *p, const struct th_json *obj)
{
    struct th_node_info *n = TH_NEW(struct th_node_info);
    const char *name = th_json_path_str(obj, "metadata.name");
    n->name = th_xstrdup(name);
    n->obj = th_json_dup(obj);
    th_amounts_read(&n->allocatable, th_json_path(obj, "status.allocatable"));
    th_hmap_set(&p->nodes, name, n);
    struct th_hmap_entry *e;
    for (size_t it = 0; (e = th_hmap_next(&p->pods, &it));) {
        struct th_sched_pod *pod = e->value;
        if (th_streq(pod->node, name)) {
            attach(n, pod);
        }
    }
}

void th_picture_drop_node(struct th_picture *p, const char *name)
{
    node_free(th_hmap_remove(&p->nodes, name));
}

void th_picture_nominate(struct th_picture *p, const struct th_json *pod, const char *node)
{
    th_autofree char *key = key_of(pod);
    if (node && *node) {
        th_hmap_set(&p->nominated, key, pod_new(node, pod));
    } else {
        pod_free(th_hmap_remove(&p->nominated, key));
    }
}

void th_picture_put_namespace(struct th_picture *p, const char *name, const struct th_json *labels)
{
    if (labels) {
        th_hmap_set(&p->namespaces, name, th_json_dup(labels));
    } else {
        th_json_unref(th_hmap_remove(&p->namespaces, name));
    }
}

const char *th_node_label(const struct th_node_info *n, const char *key)
{
    return th_json_str(th_json_get(th_json_path(n->obj, "metadata.labels"), key));
}

/* ---- Reasons ---- */

void th_reasons_init(struct th_reasons *r)
{
    th_hmap_init(&r->counts, NULL);
}

void th_reasons_done(struct th_reasons *r)
{
    th_hmap_done(&r->counts);
}

void th_reasons_add(struct th_reasons *r, const char *lines)
{
    struct th_strv all TH_CLEANUP(th_strv_done) = TH_STRV_INIT;
    th_strv_split(&all, lines, '\n');
    for (size_t i = 0; i < all.n; i++) {
        uintptr_t n = (uintptr_t)th_hmap_get(&r->counts, all.v[i]);
        th_hmap_set(&r->counts, all.v[i], (void *)(n + 1));
    }
}

char *th_reasons_text(const struct th_reasons *r, size_t nodes)
{
    struct th_strv parts TH_CLEANUP(th_strv_done) = TH_STRV_INIT;
    struct th_hmap_entry *e;
    for (size_t it = 0; (e = th_hmap_next(&r->counts, &it));) {
        th_strv_addf(&parts, "%zu %s", (size_t)(uintptr_t)e->value, e->key);
    }
    th_strv_sort(&parts);
    th_autofree char *list = th_strv_join(&parts, ", ");
    return th_xasprintf("0/%zu nodes are available: %s.", nodes, list);
}

/* ---- Running the plugins ---- */

void th_sched_ctx_init(struct th_sched_ctx *c, const struct th_picture *p,
                       const struct th_json *pod, struct th_node_info *const *nodes,
                       size_t n_nodes)
{
    *c = (struct th_sched_ctx){.pod = pod,
                               .ns = th_json_path_str(pod, "metadata.namespace"),
                               .labels = th_json_path(pod, "metadata.labels"),
                               .priority = th_json_path_int(pod, "spec.priority", 0),
                               .aff = th_aff_new(pod),
                               .nodes = nodes,
                               .n_nodes = n_nodes,
                               .namespaces = &p->namespaces,
                               .any_aff = p->n_aff > 0};
    th_pod_requests(pod, &c->requests);
    th_pod_nonzero(pod, &c->cpu, &c->memory);
    th_host_ports_read(pod, &c->ports);
    const struct th_json *required = th_json_path(
        pod, "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution");
    if (required) {
        c->required = th_node_selector_new(th_json_get(required, "nodeSelectorTerms"));
    }
}

static void release(struct th_sched_ctx *c)
{
    for (size_t i = 0; i < TH_ARRAY_LEN(plugins); i++) {
        if (c->state[i]) {
            plugins[i]->release(c->state[i]);
            c->state[i] = NULL;
        }
    }
}

void th_sched_ctx_done(struct th_sched_ctx *c)
{
    release(c);
    th_amounts_done(&c->requests);
    th_host_ports_done(&c->ports);
    th_aff_free(c->aff);
    th_node_selector_free(c->required);
}

void th_sched_prepare(struct th_sched_ctx *c)
{
    release(c);
    for (size_t i = 0; i < TH_ARRAY_LEN(plugins); i++) {
        if (plugins[i]->prepare) {
            c->state[i] = plugins[i]->prepare(c);
        }
    }
}

static bool idle(const struct th_sched_ctx *c, size_t i)
{
    return plugins[i]->prepare && !c->state[i];
}

enum th_fit th_sched_filter(const struct th_sched_ctx *c, const struct th_node_info *n,
                            char **ret_why)
{
    for (size_t i = 0; i < TH_ARRAY_LEN(plugins); i++) {
        if (!plugins[i]->filter || idle(c, i)) {
            continue;
        }
        char *why = NULL;
        enum th_fit fit = plugins[i]->filter(c, c->state[i], n, &why);
        if (fit != TH_FIT) {
            if (ret_why) {
                *ret_why = why;
            } else {
                free(why);
            }
            return fit;
        }
    }
    return TH_FIT;
}

enum th_fit th_sched_filter_nominated(struct th_sched_ctx *c, struct th_picture *p,
                                      struct th_node_info *n, char **ret_why)
{
    th_autofree struct th_sched_pod **added =
        th_xcalloc(p->nominated.n + 1, sizeof(struct th_sched_pod *));
    th_autofree char *own = key_of(c->pod);
    size_t n_added = 0;
    struct th_hmap_entry *e;
    for (size_t it = 0; (e = th_hmap_next(&p->nominated, &it));) {
        struct th_sched_pod *pod = e->value;
        if (th_streq(pod->node, n->name) && pod->priority >= c->priority &&
            !th_streq(pod->key, own)) {
            attach(n, pod);
            added[n_added++] = pod;
        }
    }
    if (n_added > 0) {
        th_sched_prepare(c);
        enum th_fit fit = th_sched_filter(c, n, ret_why);
        for (size_t i = 0; i < n_added; i++) {
            detach(n, added[i]);
        }
        th_sched_prepare(c);
        if (fit != TH_FIT) {
            return fit;
        }
    }
    return th_sched_filter(c, n, ret_why);
}

static int64_t normal(enum th_normalize how, int64_t v, int64_t least, int64_t most)
{
    switch (how) {
    case TH_NORM_NONE:
        return v;
    case TH_NORM_MAX:
        return most > 0 ? 100 * v / most : 0;
    case TH_NORM_REVERSE:
        return most > 0 ? 100 - 100 * v / most : 100;
    case TH_NORM_RANGE:
        return most > least ? 100 * (v - least) / (most - least) : 0;
    case TH_NORM_SPREAD:
        return v < 0 ? 0 : most > 0 ? 100 * (most + least - v) / most : 100;
    }
    return 0;
}

static void normalize(enum th_normalize how, int64_t *v, size_t n)
{
    int64_t most = INT64_MIN, least = INT64_MAX;
    for (size_t i = 0; i < n; i++) {
        if (how == TH_NORM_SPREAD && v[i] < 0) {
            continue;
        }
        most = v[i] > most ? v[i] : most;
        least = v[i] < least ? v[i] : least;
    }
    for (size_t i = 0; i < n; i++) {
        v[i] = normal(how, v[i], least, most);
    }
}

struct th_node_info *th_sched_pick(const struct th_sched_ctx *c, struct th_node_info *const *nodes,
                                   size_t n)
{
    th_autofree int64_t *total = th_xcalloc(n + 1, sizeof(*total));
    th_autofree int64_t *raw = th_xcalloc(n + 1, sizeof(*raw));
    for (size_t p = 0; p < TH_ARRAY_LEN(plugins) && n > 1; p++) {
        if (!plugins[p]->score || idle(c, p)) {
            continue;
        }
        for (size_t i = 0; i < n; i++) {
            raw[i] = plugins[p]->score(c, c->state[p], nodes[i]);
        }
        normalize(plugins[p]->normalize, raw, n);
        for (size_t i = 0; i < n; i++) {
            total[i] += raw[i] * plugins[p]->weight;
        }
    }
    size_t best = 0, ties = 1;
    for (size_t i = 1; i < n; i++) {
        if (total[i] > total[best]) {
            best = i;
            ties = 1;
        } else if (total[i] == total[best] && th_rand_below(++ties) == 0) {
            best = i;
        }
    }
    return nodes[best];
}
