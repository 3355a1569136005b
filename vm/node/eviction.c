/* When the node runs out: eviction, and the node's pressure conditions.
 *
 * Two watches, as in the kubelet:
 *
 * - Limits on local storage belong to a pod: sizeLimit of emptyDirs, ephemeral-storage of
 * containers (upper layer and log) and their sum. Its worker looks every 10 s (pod_over_storage)
 * and ends the pod.
 * - Signals belong to the node: memory.available < 100 MiB, nodefs.available < 10 % (at most 1 GiB:
 * a large disk of one's own machine that is nine tenths full is no emergency). A thread looks every
 * 10 s. Below a threshold the node says so (MemoryPressure, DiskPressure; for 5 minutes after the
 * last time), takes no more pods that would make it worse, and ends one pod a look: those that use
 * more than they requested first, then by priority, then by how far they are over. Pods of the
 * system and static ones stay.
 *
 * Disk space is got back from images before pods: content nobody names, then the build cache.
 * Images with a name stay, unlike upstream, which pulls them again: here most were built or loaded
 * by hand, and there may be no network. */
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "controlplane/schema/quantity.h"
#include "vm/node/agent.h"

#include <sys/statvfs.h>

#define LOOK_MS 10000
#define TRANSITION_MS 300000
#define MEMORY_B (100ull << 20)
#define DISK_MAX_B (1ull << 30)
#define GC_HIGH_PERCENT 85
#define CRITICAL_PRIORITY 2000000000

static struct {
    pthread_t thread;
    pthread_mutex_t mu;
    pthread_cond_t cond;
    bool running, stop;
} watch = {.mu = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};

/* ---- a pod's own limits ---- */

static uint64_t ctr_disk(const struct ctr *c)
{
    if (!c->cur.dir) {
        return 0;
    }
    th_autofree char *upper = th_path_join(c->cur.dir, "upper");
    return fs_usage(upper).used_b + (c->cur.log_path ? fs_usage(c->cur.log_path).used_b : 0);
}

static const struct th_json *disk_limit(const struct ctr *c)
{
    return th_json_get(th_json_path(c->spec, "resources.limits"), "ephemeral-storage");
}

/* Adds up all volumes that are on the node's disk; true when one is over its own limit. */
static bool volume_over(struct pod *p, uint64_t *total, char **ret)
{
    struct th_json *vols = th_json_path(p->obj, "spec.volumes");
    for (size_t i = 0; i < th_json_len(vols); i++) {
        struct th_json *v = th_json_at(vols, i), *e = th_json_get(v, "emptyDir");
        if (!e) {
            continue;
        }
        th_autofree char *dir = volume_dir(p, v);
        uint64_t used = fs_usage(dir).used_b;
        int64_t limit = quantity_value(th_json_get(e, "sizeLimit"), 0);
        *total += th_streq(th_json_path_str(e, "medium"), "Memory") ? 0 : used;
        if (limit > 0 && used > (uint64_t)limit) {
            *ret = th_xasprintf("Usage of EmptyDir volume \"%s\" exceeds the limit \"%s\". ",
                                th_json_path_str(v, "name"), th_json_path_str(e, "sizeLimit"));
            return true;
        }
    }
    return false;
}

bool pod_over_storage(struct pod *p, char **ret)
{
    bool limited = false, all = true;
    int64_t sum = 0;
    for (size_t i = 0; i < p->n_ctrs; i++) {
        int64_t l = quantity_value(disk_limit(&p->ctrs[i]), 0);
        limited = limited || l > 0;
        all = all && (l > 0 || p->ctrs[i].kind == CTR_INIT || p->ctrs[i].kind == CTR_EPHEMERAL);
        sum += p->ctrs[i].kind == CTR_INIT ? 0 : l;
    }
    struct th_json *vols = th_json_path(p->obj, "spec.volumes");
    for (size_t i = 0; i < th_json_len(vols); i++) {
        limited = limited || th_json_path(th_json_at(vols, i), "emptyDir.sizeLimit");
    }
    if (!limited) {
        return false;
    }
    int64_t now = th_mono_ms();
    if (now < p->storage_check_at) {
        agent_kick_after(p->a, p->uid, p->storage_check_at - now);
        return false;
    }
    p->storage_check_at = now + LOOK_MS;
    agent_kick_after(p->a, p->uid, LOOK_MS);
    uint64_t total = 0;
    if (volume_over(p, &total, ret)) {
        return true;
    }
    for (size_t i = 0; i < p->n_ctrs; i++) {
        struct ctr *c = &p->ctrs[i];
        uint64_t used = ctr_disk(c);
        int64_t limit = quantity_value(disk_limit(c), 0);
        total += used;
        if (limit > 0 && used > (uint64_t)limit) {
            *ret = th_xasprintf("Container %s exceeded its local ephemeral storage limit \"%s\". ",
                                c->name, th_json_str(disk_limit(c)));
            return true;
        }
    }
    if (all && sum > 0 && total > (uint64_t)sum) {
        struct th_quantity q = th_quantity_from_value(sum, TH_Q_BINARY_SI);
        char text[TH_QUANTITY_LEN];
        *ret = th_xasprintf(
            "Pod ephemeral local storage usage exceeds the total limit of containers %s. ",
            th_quantity_format(q, text));
        return true;
    }
    return false;
}

/* ---- the node ---- */

static uint64_t disk_free(struct agent *a, uint64_t *ret_total)
{
    struct statvfs v;
    if (statvfs(a->o.data, &v) < 0) {
        *ret_total = 0;
        return UINT64_MAX;
    }
    *ret_total = (uint64_t)v.f_blocks * v.f_frsize;
    return (uint64_t)v.f_bavail * v.f_frsize;
}

uint64_t eviction_disk_threshold_b(uint64_t total_b)
{
    return total_b / 10 < DISK_MAX_B ? total_b / 10 : DISK_MAX_B;
}

static void node_event(struct agent *a, const char *type, const char *reason, const char *fmt, ...)
    TH_PRINTF(4, 5);
static void node_event(struct agent *a, const char *type, const char *reason, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    th_autofree char *text = th_xvasprintf(fmt, ap);
    va_end(ap);
    th_warn(NODE_MOD, "node event", "reason=%s message=%s", reason, th_log_q(text));
    if (a->recorder) {
        TH_AUTO(th_json)
        struct th_json *ref =
            th_json_build("{'apiVersion':'v1','kind':'Node','metadata':{'name':%s,'uid':%s}}",
                          a->o.name, a->o.name);
        th_event_record(a->recorder, ref, type, reason, "%s", text);
    }
}

/* Sets a pressure, or ends it when it has not been seen for a while. */
static void set_pressure(struct agent *a, struct pressure *p, bool low, const char *bad,
                         const char *good)
{
    int64_t now = th_mono_ms();
    bool was = atomic_load(&p->on);
    if (low) {
        p->last_ms = now;
    }
    bool on = low || (was && now - p->last_ms < TRANSITION_MS);
    if (on == was) {
        return;
    }
    atomic_store(&p->on, on);
    node_event(a, "Normal", on ? bad : good, "Node %s status is now: %s", a->o.name,
               on ? bad : good);
    node_status_poke();
}

static void reclaim_images(struct agent *a)
{
    uint64_t total = 0;
    for (int step = 0; step < 2; step++) {
        uint64_t left = disk_free(a, &total), freed = 0;
        if (total == 0 || left > total / 100 * (100 - GC_HIGH_PERCENT)) {
            return;
        }
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        struct th_images_gc_opts o = {.drop_untagged = true, .drop_cache = step == 1};
        if (th_images_gc(a->images, &o, &freed, &err) < 0) {
            node_event(a, "Warning", "ImageGCFailed", "%s", err.msg);
        } else if (freed > 0) {
            th_info(NODE_MOD, "disk space got back from images", "bytes=%llu cache=%d",
                    (unsigned long long)freed, step);
        }
    }
}

/* Which pod goes first: over its request, low priority, far over. */
static bool worse(const struct victim *x, const struct victim *y)
{
    bool over_x = x->used_b > x->request_b, over_y = y->used_b > y->request_b;
    if (over_x != over_y) {
        return over_x;
    }
    if (x->priority != y->priority) {
        return x->priority < y->priority;
    }
    return (int64_t)(x->used_b - x->request_b) > (int64_t)(y->used_b - y->request_b);
}

struct pod *eviction_choose(struct victim *v, size_t n)
{
    size_t best = n;
    for (size_t i = 0; i < n; i++) {
        if (v[i].priority < CRITICAL_PRIORITY && v[i].used_b > 0 &&
            (best == n || worse(&v[i], &v[best]))) {
            best = i;
        }
    }
    return best == n ? NULL : v[best].p;
}

static uint64_t memory_of(struct agent *a, const struct pod_view *w)
{
    struct cg_usage u;
    return w->cgroup && cg_usage_read(a, w->cgroup, &u) >= 0 ? u.working_set_b : 0;
}

static uint64_t disk_of(struct agent *a, const struct pod *p)
{
    th_autofree char *logs = th_path_joinf(a->o.log_dir, "%s_%s_%s", p->ns, p->name, p->uid);
    return fs_usage(p->dir).used_b + fs_usage(logs).used_b;
}

static void evict_one(struct agent *a, bool disk, uint64_t threshold_b, uint64_t available_b)
{
    struct victim *v = NULL;
    size_t n = 0, cap = 0;
    struct th_hmap_entry *e;
    pthread_mutex_lock(&a->mu);
    for (size_t it = 0; (e = th_hmap_next(&a->pods, &it));) {
        struct pod *p = e->value;
        if (!p->is_static) {
            v = th_xgrow(v, &cap, n + 1, sizeof(*v));
            v[n++] = (struct victim){.p = p};
            pod_ref(p);
        }
    }
    pthread_mutex_unlock(&a->mu);
    for (size_t i = 0; i < n; i++) {
        struct pod *p = v[i].p;
        pthread_mutex_lock(&p->mu);
        struct pod_view w = p->view;
        w.cgroup = th_xstrdup(w.cgroup);
        pthread_mutex_unlock(&p->mu);
        v[i].priority = w.priority;
        v[i].request_b = disk ? w.disk_request_b : w.memory_request_b;
        v[i].used_b = !w.running ? 0 : disk ? disk_of(a, p) : memory_of(a, &w);
        free(w.cgroup);
    }
    struct pod *p = eviction_choose(v, n);
    if (p) {
        struct th_quantity t = th_quantity_from_value((int64_t)threshold_b, TH_Q_BINARY_SI);
        struct th_quantity av =
            th_quantity_from_value((int64_t)(available_b / 1024 * 1024), TH_Q_BINARY_SI);
        char ts[TH_QUANTITY_LEN], as[TH_QUANTITY_LEN];
        pthread_mutex_lock(&p->mu);
        free(p->evict);
        p->evict = th_xasprintf(
            "The node was low on resource: %s. Threshold quantity: %s, available: %s. ",
            disk ? "ephemeral-storage" : "memory", th_quantity_format(t, ts),
            th_quantity_format(av, as));
        pthread_mutex_unlock(&p->mu);
        agent_kick(a, p->uid);
    }
    for (size_t i = 0; i < n; i++) {
        pod_unref(v[i].p);
    }
    free(v);
}

static void look(struct agent *a)
{
    struct cg_node n;
    cg_node_usage(&n);
    bool memory = n.available_b < MEMORY_B;
    uint64_t total = 0;
    reclaim_images(a);
    uint64_t left = disk_free(a, &total), least = eviction_disk_threshold_b(total);
    bool disk = total > 0 && left < least;
    set_pressure(a, &a->memory_pressure, memory, "NodeHasInsufficientMemory",
                 "NodeHasSufficientMemory");
    set_pressure(a, &a->disk_pressure, disk, "NodeHasDiskPressure", "NodeHasNoDiskPressure");
    if (memory || disk) {
        node_event(a, "Warning", "EvictionThresholdMet", "Attempting to reclaim %s",
                   memory ? "memory" : "ephemeral-storage");
        evict_one(a, !memory, memory ? MEMORY_B : least, memory ? n.available_b : left);
    }
}

static void *watch_thread(void *arg)
{
    pthread_mutex_lock(&watch.mu);
    while (!watch.stop) {
        struct timespec ts;
        clock_gettime(CLOCK_REALTIME, &ts);
        ts.tv_sec += LOOK_MS / 1000;
        (void)pthread_cond_timedwait(&watch.cond, &watch.mu, &ts);
        if (!watch.stop) {
            pthread_mutex_unlock(&watch.mu);
            look(arg);
            pthread_mutex_lock(&watch.mu);
        }
    }
    pthread_mutex_unlock(&watch.mu);
    return NULL;
}

int eviction_start(struct agent *a, struct th_err *err)
{
    int e = pthread_create(&watch.thread, NULL, watch_thread, a);
    if (e != 0) {
        return th_fail_errno(err, e, TH_R_INTERNAL, "starting a thread");
    }
    watch.running = true;
    return 0;
}

void eviction_stop(void)
{
    if (!watch.running) {
        return;
    }
    pthread_mutex_lock(&watch.mu);
    watch.stop = true;
    pthread_cond_signal(&watch.cond);
    pthread_mutex_unlock(&watch.mu);
    pthread_join(watch.thread, NULL);
    watch.running = false;
}
