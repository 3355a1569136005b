/*
 * What nodes and pods use, measured at the node agents: the numbers behind metrics.k8s.io.
 *
 * An agent tells how much processor time a container has used since it began, so a rate needs two
 * samples. Nothing is sampled while nobody asks: whoever asks gets the rate between the newest two
 * samples when the last one is young, otherwise another sample is taken, and a second one a moment later
 * when the one before is too old to speak of now. An autoscaler that asks every quarter of a minute gets
 * the rate over just that time. A container that began between two samples has its rate since then.
 *
 * Upstream leaves this to a metrics server that samples all nodes all the time.
 *
 * Limits: one agent (the socket this server was given); a container whose second sample is missing has no
 * metrics, and its pod is left out, as by a metrics server.
 */
#include "base/clock.h"
#include "controlplane/api/priv.h"
#include "controlplane/schema/quantity.h"

#define FRESH_MS 5000 /* samples this young are not taken again */
#define OLD_MS 60000  /* and one this old says nothing about now */
#define APART_MS 1000
#define ASK_MS 10000
#define SUMMARY_MAX_B (16u << 20)

struct cost {
    int64_t cpu_ns, memory_b, started_ms;
};
struct sample {
    int64_t at_ms;
    struct th_hmap costs; /* "n/<node>", "p/<ns>/<pod>/<uid>/<container>" -> struct cost */
    struct th_json *summary;
};
struct th_usage {
    struct th_store *store;
    char *node_socket;
    pthread_mutex_t lock; /* guards the two below, and is held while the agent is asked */
    struct sample *last, *before;
};

static void sample_free(struct sample *s)
{
    if (s) {
        th_hmap_done(&s->costs);
        th_json_unref(s->summary);
        free(s);
    }
}
TH_DEFINE_AUTO(sample, sample_free)

struct th_usage *th_usage_new(struct th_store *store, const char *node_socket)
{
    struct th_usage *u = TH_NEW(struct th_usage);
    u->store = store;
    u->node_socket = th_xstrdup(node_socket);
    (void)pthread_mutex_init(&u->lock, NULL);
    return u;
}

void th_usage_free(struct th_usage *u)
{
    if (!u) {
        return;
    }
    sample_free(u->last);
    sample_free(u->before);
    (void)pthread_mutex_destroy(&u->lock);
    free(u->node_socket);
    free(u);
}

/* ---- samples ---- */

static int64_t time_ms(const struct th_json *o, const char *path)
{
    int64_t us = 0;
    const char *t = th_json_path_str(o, path);
    return t && th_time_parse(t, &us, NULL) >= 0 ? us / 1000 : 0;
}

static void note(struct sample *s, char *key_, const struct th_json *o)
{
    th_autofree char *key = key_;
    struct cost *c = TH_NEW(struct cost);
    c->cpu_ns = th_json_path_int(o, "cpu.usageCoreNanoSeconds", -1);
    c->memory_b = th_json_path_int(o, "memory.workingSetBytes", -1);
    c->started_ms = time_ms(o, "startTime");
    if (c->cpu_ns < 0 || c->memory_b < 0) {
        free(c);
        return;
    }
    th_hmap_set(&s->costs, key, c);
}

static char *container_key(const struct th_json *pod, const struct th_json *ctr)
{
    return th_xasprintf("p/%s/%s/%s/%s", th_json_path_str(pod, "podRef.namespace"),
                        th_json_path_str(pod, "podRef.name"), th_json_path_str(pod, "podRef.uid"),
                        th_json_path_str(ctr, "name"));
}

static int take(struct th_usage *u, struct sample **ret, struct th_err *err)
{
    const struct th_client_http_opts o = {.unix_socket = u->node_socket};
    TH_AUTO(th_client) struct th_client *agent = NULL;
    th_autobuf struct th_buf body = TH_BUF_INIT;
    th_buf_init(&body, SUMMARY_MAX_B);
    const struct th_raw_req req = {.method = "GET",
                                   .path = "/stats/summary?only_cpu_and_memory=true",
                                   .timeout_ms = ASK_MS};
    int status = 0;
    TH_TRY(th_client_new_http(&o, &agent, err));
    TH_TRY(th_client_raw(agent, &req, &status, &body, err));
    TH_AUTO(sample) struct sample *s = TH_NEW(struct sample);
    th_hmap_init(&s->costs, free);
    TH_TRY(th_json_parse(th_buf_cstr(&body), body.n, NULL, &s->summary, err));
    s->at_ms = th_now_ms();
    const struct th_json *node = th_json_get(s->summary, "node");
    note(s, th_xasprintf("n/%s", th_json_path_str(node, "nodeName")), node);
    const struct th_json *pods = th_json_get(s->summary, "pods");
    for (size_t i = 0; i < th_json_len(pods); i++) {
        const struct th_json *pod = th_json_at(pods, i);
        const struct th_json *ctrs = th_json_get(pod, "containers");
        for (size_t k = 0; k < th_json_len(ctrs); k++) {
            note(s, container_key(pod, th_json_at(ctrs, k)), th_json_at(ctrs, k));
        }
    }
    *ret = th_steal(&s);
    return 0;
}

static int push(struct th_usage *u, struct th_err *err)
{
    struct sample *s = NULL;
    TH_TRY(take(u, &s, err));
    sample_free(u->before);
    u->before = u->last;
    u->last = s;
    return 0;
}

/* Two samples that speak of now. */
static int refresh(struct th_usage *u, struct th_err *err)
{
    int64_t now = th_now_ms();
    if (u->last && u->before && now - u->last->at_ms < FRESH_MS) {
        return 0;
    }
    bool alone = !u->last || now - u->last->at_ms > OLD_MS;
    if (u->last && !alone && now - u->last->at_ms < APART_MS) {
        th_sleep_ms(APART_MS);
    }
    TH_TRY(push(u, err));
    if (alone) {
        th_sleep_ms(APART_MS);
        TH_TRY(push(u, err));
    }
    return 0;
}

/* ---- metrics ---- */

/* {cpu, memory}; NULL when there is no rate yet. */
static struct th_json *usage_of(const struct th_usage *u, const char *key)
{
    const struct cost *now = th_hmap_get(&u->last->costs, key);
    const struct cost *was = th_hmap_get(&u->before->costs, key);
    if (!now) {
        return NULL;
    }
    int64_t from_ns = 0, from_ms = now->started_ms;
    if (was && was->cpu_ns <= now->cpu_ns && was->started_ms == now->started_ms) {
        from_ns = was->cpu_ns;
        from_ms = u->before->at_ms;
    }
    int64_t ms = u->last->at_ms - from_ms;
    if (ms <= 0 || (from_ns == 0 && from_ms < u->before->at_ms && !was)) {
        return NULL;
    }
    struct th_quantity cpu = {(__int128)(now->cpu_ns - from_ns) * 1000 / ms, TH_Q_DECIMAL_SI};
    struct th_quantity memory = th_quantity_from_value(now->memory_b, TH_Q_BINARY_SI);
    char cpu_text[TH_QUANTITY_LEN], memory_text[TH_QUANTITY_LEN];
    return th_json_build("{'cpu':%s,'memory':%s}", th_quantity_format(cpu, cpu_text),
                         th_quantity_format(memory, memory_text));
}

static void stamp(const struct th_usage *u, struct th_json *o)
{
    char text[TH_TIME_LEN];
    th_json_set_str(o, "timestamp", th_time_format(u->last->at_ms, text));
    th_json_set_str(o, "window",
                    th_duration_format((u->last->at_ms - u->before->at_ms) * 1000, text));
}

/* The object's labels go with its metrics, for selectors. NULL: there is no such object. */
static struct th_json *head(struct th_usage *u, const char *plural, const char *kind, const char *ns,
                            const char *name)
{
    th_autofree char *key = th_xasprintf("core/%s/%s/%s", plural, ns ? ns : "-", name);
    TH_AUTO(th_obj) struct th_obj *stored = th_store_get(u->store, key);
    TH_AUTO(th_json) struct th_json *obj = NULL;
    if (!stored || th_json_parse(stored->bytes, stored->n, NULL, &obj, NULL) < 0) {
        return NULL;
    }
    struct th_json *o = th_json_build("{'kind':%s,'apiVersion':'metrics.k8s.io/v1beta1',"
                                      "'metadata':{'name':%s}}",
                                      kind, name);
    struct th_json *meta = th_json_get(o, "metadata");
    const struct th_json *labels = th_json_path(obj, "metadata.labels");
    char text[TH_TIME_LEN];
    if (ns) {
        th_json_set_str(meta, "namespace", ns);
    }
    th_json_set_str(meta, "creationTimestamp", th_time_format(u->last->at_ms, text));
    if (th_json_len(labels) > 0) {
        th_json_set(meta, "labels", th_json_dup(labels));
    }
    return o;
}

static void add_node(struct th_usage *u, const char *name, struct th_json *all)
{
    const char *node = th_json_path_str(u->last->summary, "node.nodeName");
    th_autofree char *key = th_xasprintf("n/%s", node ? node : "");
    struct th_json *use = !name || th_streq(name, node) ? usage_of(u, key) : NULL;
    struct th_json *o = use ? head(u, "nodes", "NodeMetrics", NULL, node) : NULL;
    if (!o) {
        th_json_unref(use);
        return;
    }
    stamp(u, o);
    th_json_set(o, "usage", use);
    th_json_append(all, o);
}

static void add_pod(struct th_usage *u, const struct th_json *pod, struct th_json *all)
{
    TH_AUTO(th_json) struct th_json *list = th_json_array();
    const struct th_json *ctrs = th_json_get(pod, "containers");
    for (size_t i = 0; i < th_json_len(ctrs); i++) {
        th_autofree char *key = container_key(pod, th_json_at(ctrs, i));
        struct th_json *use = usage_of(u, key);
        if (!use) {
            return; /* half a pod's usage would be taken for all of it */
        }
        th_json_append(list, th_json_build("{'name':%s,'usage':%o}",
                                           th_json_path_str(th_json_at(ctrs, i), "name"), use));
    }
    struct th_json *o = th_json_len(list) > 0
                            ? head(u, "pods", "PodMetrics", th_json_path_str(pod, "podRef.namespace"),
                                   th_json_path_str(pod, "podRef.name"))
                            : NULL;
    if (o) {
        stamp(u, o);
        th_json_set(o, "containers", th_steal(&list));
        th_json_append(all, o);
    }
}

static int by_name(const void *x, const void *y)
{
    const struct th_json *const *a = x, *const *b = y;
    int r = strcmp(th_json_path_str(*a, "podRef.namespace"), th_json_path_str(*b, "podRef.namespace"));
    return r ? r : strcmp(th_json_path_str(*a, "podRef.name"), th_json_path_str(*b, "podRef.name"));
}

static void add_pods(struct th_usage *u, const char *ns, const char *name, struct th_json *all)
{
    const struct th_json *pods = th_json_get(u->last->summary, "pods");
    size_t n = 0;
    th_autofree const struct th_json **v = th_xcalloc(th_json_len(pods) + 1, sizeof(*v));
    for (size_t i = 0; i < th_json_len(pods); i++) {
        const struct th_json *p = th_json_at(pods, i);
        const char *pod_ns = th_json_path_str(p, "podRef.namespace");
        const char *pod_name = th_json_path_str(p, "podRef.name");
        if (pod_ns && pod_name && (!ns || th_streq(ns, pod_ns)) &&
            (!name || th_streq(name, pod_name))) {
            v[n++] = p;
        }
    }
    qsort(v, n, sizeof(*v), by_name);
    for (size_t i = 0; i < n; i++) {
        add_pod(u, v[i], all);
    }
}

int th_usage_get(void *self, bool pods, const char *ns, const char *name, struct th_json **ret,
                 struct th_err *err)
{
    struct th_usage *u = ((struct th_api *)self)->usage;
    TH_AUTO(th_json) struct th_json *all = th_json_array();
    (void)pthread_mutex_lock(&u->lock);
    int r = refresh(u, err);
    if (r >= 0) {
        if (pods) {
            add_pods(u, ns, name, all);
        } else {
            add_node(u, name, all);
        }
    }
    (void)pthread_mutex_unlock(&u->lock);
    if (r < 0) {
        return th_wrap(err, "asking the node agent what is used");
    }
    if (name && th_json_len(all) == 0) {
        return th_fail_obj(err, TH_R_NOT_FOUND, "metrics.k8s.io",
                           pods ? "podmetrics" : "nodemetrics", name,
                           pods ? "podmetrics.metrics.k8s.io \"%s/%s\" not found"
                                : "nodemetrics.metrics.k8s.io \"%s%s\" not found",
                           pods ? (ns ? ns : "") : "", name);
    }
    *ret = th_steal(&all);
    return 0;
}
