/* The service proxy: keeps the node's nftables in step with Services, EndpointSlices and
 * NetworkPolicies.
 *
 * Informers only raise a flag. One thread takes what has come in within a few milliseconds together,
 * makes the whole table as data (ruleset.c) and sends the kernel the difference to what it has, in
 * one transaction; then DNS, health checks and host ports get the same snapshot. A transaction that
 * the kernel refuses leaves the old rules in place and is tried again as a whole, with back-off.
 * Every few seconds the number of the kernel's rule set is looked at: when anybody else has changed
 * something (a lesson that begins with `nft flush ruleset`), the table is loaded anew. */
#include "base/clock.h"
#include "base/log.h"
#include "controlplane/client/client.h"
#include "vm/node/net/net_priv.h"
#include "vm/node/net/nfttable.h"

#include <errno.h>
#include <time.h>

#define DEBOUNCE_MS 15
#define RETRY_MIN_MS 500
#define RETRY_MAX_MS 30000
#define SYNC_WAIT_MS 100
#define LOOK_MS 10000

enum { SERVICES, SLICES, NAMESPACES, POLICIES, OWN_PODS, INFORMERS };

struct th_services {
    struct th_net *n;
    struct th_informer *inf[INFORMERS];
    struct th_informer *pods; /* of the thread; started with the first NetworkPolicy */
    pthread_t thread;
    pthread_mutex_t mu; /* guards dirty, stop */
    pthread_cond_t cond;
    bool dirty, stop;
    /* of the thread */
    struct th_nft_table *loaded; /* NULL: not known what the kernel has */
    uint32_t generation;         /* of the kernel's rules after loading */
    char *udp;                   /* ways of UDP as they were looked at last */
};

/* ---- the thread ---- */

static void on_event(void *arg, const struct th_json *old, const struct th_json *now)
{
    (void)old;
    (void)now;
    struct th_services *s = arg;
    pthread_mutex_lock(&s->mu);
    s->dirty = true;
    pthread_cond_signal(&s->cond);
    pthread_mutex_unlock(&s->mu);
}

static void on_synced(void *arg)
{
    on_event(arg, NULL, NULL);
}

static bool keep(void *arg, struct th_json *obj)
{
    th_json_append(arg, th_json_ref(obj));
    return true;
}

static int by_name(const struct th_json *a, const struct th_json *b)
{
    const char *const paths[] = {"metadata.namespace", "metadata.name"};
    for (size_t i = 0; i < TH_ARRAY_LEN(paths); i++) {
        const char *x = th_json_path_str(a, paths[i]), *y = th_json_path_str(b, paths[i]);
        int c = strcmp(x ? x : "", y ? y : "");
        if (c) {
            return c;
        }
    }
    return 0;
}

static struct th_json *all_of(struct th_informer *i)
{
    struct th_json *list = th_json_array();
    th_informer_each(i, NULL, keep, list);
    th_json_sort(list, by_name);
    return list;
}

/* UDP endpoints have changed: flows to others than those of now are forgotten. */
static void forget_flows(struct th_services *s, const struct th_net_state *st)
{
    struct th_hmap ways;
    th_autobuf struct th_buf text = TH_BUF_INIT;
    th_ruleset_udp(&s->n->o, st, &ways, &text);
    if (!th_streq(s->udp, th_buf_cstr(&text))) {
        th_conntrack_forget(&ways);
        free(s->udp);
        s->udp = th_xstrdup(th_buf_cstr(&text));
    }
    th_hmap_done(&ways);
}

/* 0, or negative when it has to be tried again. */
static int load(struct th_services *s, const struct th_net_state *st)
{
    TH_AUTO(th_nft_table) struct th_nft_table *next = th_ruleset_new(&s->n->o, st);
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    th_autobuf struct th_buf text = TH_BUF_INIT;
    int64_t at = th_mono_ms();
    th_nft_diff(s->loaded, next, &text);
    if (!s->loaded) {
        th_nft_remembered(next, &text);
    }
    if (text.n > 0 && th_nft_run(th_buf_cstr(&text), NULL, &err) < 0) {
        th_warn("net", "service rules not loaded", "err=%s", th_log_q(err.msg));
        th_nft_table_free(s->loaded);
        s->loaded = NULL; /* somebody else may have changed the table: next time as a whole */
        return -TH_R_IO;
    }
    if (text.n > 0) {
        th_debug("net", "service rules loaded", "services=%zu bytes=%zu ms=%lld",
                 th_json_len(st->services), text.n, (long long)(th_mono_ms() - at));
        th_nft_table_free(s->loaded);
        s->loaded = th_steal(&next);
        s->generation = th_nft_generation();
    }
    forget_flows(s, st);
    return 0;
}

static int rebuild(struct th_services *s)
{
    struct th_net_state *st =
        th_net_state_new(all_of(s->inf[SERVICES]), all_of(s->inf[SLICES]), all_of(s->inf[NAMESPACES]));
    st->own_pods = all_of(s->inf[OWN_PODS]);
    st->policies = all_of(s->inf[POLICIES]);
    st->pods = s->pods ? all_of(s->pods) : NULL;
    if (s->n->dns) {
        th_dns_update(s->n->dns, st);
    }
    int r = load(s, st);
    th_health_update(s->n->health, &s->n->o, st);
    if (s->n->hostports) {
        th_hostports_update(s->n->hostports, st); /* takes */
    } else {
        th_net_state_free(st);
    }
    return r;
}

/* Waits for a change, or until wait_ms have gone by. false: stop. */
static bool wait_change(struct th_services *s, int wait_ms, bool *ret_changed)
{
    struct timespec end;
    (void)clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += wait_ms / 1000;
    end.tv_nsec += (long)(wait_ms % 1000) * 1000000;
    if (end.tv_nsec >= 1000000000) {
        end.tv_sec++;
        end.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&s->mu);
    while (!s->dirty && !s->stop && pthread_cond_timedwait(&s->cond, &s->mu, &end) != ETIMEDOUT) {
    }
    bool stop = s->stop;
    *ret_changed = s->dirty;
    pthread_mutex_unlock(&s->mu);
    return !stop;
}

/* Somebody else's hand in the rules: they are loaded anew as a whole. */
static bool rules_changed(struct th_services *s)
{
    if (!s->loaded || th_nft_generation() == s->generation) {
        return false;
    }
    th_info("net", "rules were changed by somebody else and are loaded anew", NULL);
    th_nft_table_free(s->loaded);
    s->loaded = NULL;
    return true;
}

/* What policies and host ports look at; the rest of a pod changes often. */
static void on_pod(void *arg, const struct th_json *old, const struct th_json *now)
{
    static const char *const paths[] = {"metadata.labels", "status.podIP", "status.phase", "spec.nodeName"};
    bool same = old && now;
    for (size_t i = 0; same && i < TH_ARRAY_LEN(paths); i++) {
        same = th_json_equal(th_json_path(old, paths[i]), th_json_path(now, paths[i]));
    }
    if (!same) {
        on_event(arg, old, now);
    }
}

static bool note_one(void *arg, struct th_json *obj)
{
    (void)obj;
    *(bool *)arg = true;
    return false;
}

/* All pods are watched only when there are policies about them. False: not known yet. */
static bool pods_known(struct th_services *s)
{
    bool policies = false;
    th_informer_each(s->inf[POLICIES], NULL, note_one, &policies);
    if (policies && !s->pods) {
        struct th_informer_opts o = {
            .gvr = TH_GVR_PODS, .on_event = on_pod, .on_synced = on_synced, .arg = s};
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        if (th_informer_start(s->n->o.client, &o, &s->pods, &err) < 0) {
            th_warn("net", "pods are not watched", "err=%s", th_log_q(err.msg));
        }
    }
    return !policies || (s->pods && th_informer_synced(s->pods));
}

static bool synced(const struct th_services *s)
{
    for (size_t i = 0; i < INFORMERS; i++) {
        if (!th_informer_synced(s->inf[i])) {
            return false;
        }
    }
    return true;
}

static void *services_thread(void *arg)
{
    struct th_services *s = arg;
    int wait = 0;
    bool changed;
    while (wait_change(s, wait ? wait : LOOK_MS, &changed)) {
        if (!changed && wait == 0 && !rules_changed(s)) {
            continue;
        }
        th_sleep_ms(DEBOUNCE_MS);
        pthread_mutex_lock(&s->mu);
        s->dirty = false;
        pthread_mutex_unlock(&s->mu);
        if (!synced(s) || !pods_known(s)) {
            wait = SYNC_WAIT_MS; /* half a picture would take working rules away */
            continue;
        }
        if (rebuild(s) < 0) {
            wait = wait < RETRY_MIN_MS ? RETRY_MIN_MS : wait * 2 > RETRY_MAX_MS ? RETRY_MAX_MS : wait * 2;
        } else {
            wait = 0;
        }
    }
    return NULL;
}

static void services_free(struct th_services *s)
{
    for (size_t i = 0; i < INFORMERS; i++) {
        if (s->inf[i]) {
            th_informer_stop(s->inf[i]);
        }
    }
    if (s->pods) {
        th_informer_stop(s->pods);
    }
    pthread_cond_destroy(&s->cond);
    pthread_mutex_destroy(&s->mu);
    th_nft_table_free(s->loaded);
    free(s->udp);
    free(s);
}

int th_services_start(struct th_net *n, struct th_services **ret, struct th_err *err)
{
    static const struct th_gvr gvrs[INFORMERS] = {
        [SERVICES] = {"", "v1", "services"},
        [SLICES] = {"discovery.k8s.io", "v1", "endpointslices"},
        [NAMESPACES] = {"", "v1", "namespaces"},
        [POLICIES] = {"networking.k8s.io", "v1", "networkpolicies"},
        [OWN_PODS] = {"", "v1", "pods"},
    };
    struct th_services *s = TH_NEW(struct th_services);
    th_autofree char *mine = th_xasprintf("spec.nodeName=%s", n->o.node_name);
    s->n = n;
    pthread_mutex_init(&s->mu, NULL);
    pthread_cond_init(&s->cond, NULL);
    int r = 0;
    for (size_t i = 0; i < INFORMERS && r >= 0; i++) {
        struct th_informer_opts o = {
            .gvr = gvrs[i], .on_event = on_event, .on_synced = on_synced, .arg = s};
        if (i == OWN_PODS) {
            o.field_selector = mine;
            o.on_event = on_pod;
        }
        r = th_informer_start(n->o.client, &o, &s->inf[i], err);
    }
    int e = r < 0 ? 0 : pthread_create(&s->thread, NULL, services_thread, s);
    if (r < 0 || e != 0) {
        services_free(s);
        return r < 0 ? r : th_fail_errno(err, e, TH_R_INTERNAL, "starting a thread");
    }
    *ret = s;
    return 0;
}

void th_services_stop(struct th_services *s)
{
    if (!s) {
        return;
    }
    pthread_mutex_lock(&s->mu);
    s->stop = true;
    pthread_cond_signal(&s->cond);
    pthread_mutex_unlock(&s->mu);
    pthread_join(s->thread, NULL);
    services_free(s);
}
