/* What runs here costs: /stats/summary and /metrics/resource, in the kubelet's words.
 *
 * Numbers come from the control groups, /proc and statvfs when they are asked for; nothing is
 * sampled in the background. usageNanoCores is a rate: the difference to the reading before (at
 * least a second old) of the same group, or the average since the start when there is none. What a
 * pod writes (upper layers, logs, emptyDirs) is counted by walking its folders, which upstream does
 * too, at most once in 10 s. */
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "vm/node/agent.h"

#include <ftw.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#define RATE_MS 1000

/* ---- readings kept for rates ---- */

struct reading {
    int64_t at_ms;
    uint64_t cpu_ns, rate;
};
static struct {
    pthread_mutex_t mu;
    bool made;
    struct th_hmap by_path;
} readings = {.mu = PTHREAD_MUTEX_INITIALIZER};

static uint64_t cpu_rate(const char *path, uint64_t cpu_ns, int64_t started_ms)
{
    int64_t now = th_now_ms();
    pthread_mutex_lock(&readings.mu);
    if (!readings.made) {
        th_hmap_init(&readings.by_path, free);
        readings.made = true;
    }
    struct reading *r = th_hmap_get(&readings.by_path, path);
    if (!r) {
        int64_t age = now - started_ms;
        r = TH_NEW(struct reading);
        *r = (struct reading){now, cpu_ns, age > 0 ? cpu_ns / (uint64_t)age * 1000 : 0};
        th_hmap_set(&readings.by_path, path, r);
    } else if (now - r->at_ms >= RATE_MS && cpu_ns >= r->cpu_ns) {
        r->rate = (cpu_ns - r->cpu_ns) * 1000 / (uint64_t)(now - r->at_ms);
        r->at_ms = now;
        r->cpu_ns = cpu_ns;
    }
    uint64_t rate = r->rate;
    /* groups that are gone: thrown away once an hour's worth of nobody asking has passed */
    struct th_hmap_entry *e;
    th_autostrv struct th_strv old = TH_STRV_INIT;
    for (size_t it = 0; (e = th_hmap_next(&readings.by_path, &it));) {
        if (now - ((struct reading *)e->value)->at_ms > 3600000) {
            th_strv_add(&old, e->key);
        }
    }
    for (size_t i = 0; i < old.n; i++) {
        free(th_hmap_remove(&readings.by_path, old.v[i]));
    }
    pthread_mutex_unlock(&readings.mu);
    return rate;
}

/* ---- folders ---- */

static _Thread_local struct fs_usage walked;

static int walk_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)path;
    (void)ftw;
    if (type != FTW_NS) {
        walked.used_b += (uint64_t)st->st_blocks * 512;
        walked.inodes++;
    }
    return 0;
}

struct fs_usage fs_usage(const char *path)
{
    walked = (struct fs_usage){0};
    (void)nftw(path, walk_one, 16, FTW_PHYS | FTW_MOUNT);
    return walked;
}

/* ---- what is looked at: copied out of the table, so that no lock is held while reading ---- */

struct seen_ctr {
    char *name, *cgroup, *dir, *log_path;
    int64_t started_ms;
    pid_t pid;
};
struct seen_pod {
    char *ns, *name, *uid, *cgroup, *dir;
    int64_t start_ms;
    struct seen_ctr *ctrs;
    size_t n;
    struct th_strv volumes; /* name, folder, ... of emptyDirs */
};
struct seen {
    struct seen_pod *v;
    size_t n;
};

static void see_pod(struct pod *p, struct seen_pod *s)
{
    *s = (struct seen_pod){.ns = th_xstrdup(p->ns),
                           .name = th_xstrdup(p->name),
                           .uid = th_xstrdup(p->uid),
                           .dir = th_xstrdup(p->dir),
                           .volumes = TH_STRV_INIT};
    pthread_mutex_lock(&p->mu);
    s->ctrs = th_xcalloc(p->n_views ? p->n_views : 1, sizeof(*s->ctrs));
    for (size_t i = 0; i < p->n_views; i++) {
        struct ctr_view *v = &p->views[i];
        if (!v->running || !v->cgroup) {
            continue;
        }
        s->ctrs[s->n++] =
            (struct seen_ctr){th_xstrdup(v->name),     th_xstrdup(v->cgroup), th_xstrdup(v->dir),
                              th_xstrdup(v->log_path), v->started_ms,         v->pid};
        if (!s->cgroup) {
            s->cgroup = th_xstrndup(v->cgroup, (size_t)(th_path_base(v->cgroup) - v->cgroup) - 1);
        }
    }
    TH_AUTO(th_json) struct th_json *st = NULL;
    if (p->pub_status && th_json_parse_cstr(p->pub_status, &st, NULL) >= 0) {
        int64_t us = 0;
        const char *t = th_json_path_str(st, "startTime");
        if (t && th_time_parse(t, &us, NULL) >= 0) {
            s->start_ms = us / 1000;
        }
    }
    pthread_mutex_unlock(&p->mu);
    th_autofree char *vols = th_path_joinf(p->dir, "volumes/kubernetes.io~empty-dir");
    th_autostrv struct th_strv names = TH_STRV_INIT;
    if (th_io_is_dir(vols)) {
        list_or_none(vols, &names);
    }
    for (size_t i = 0; i < names.n; i++) {
        th_strv_add(&s->volumes, names.v[i]);
        th_strv_take(&s->volumes, th_path_join(vols, names.v[i]));
    }
}

static void see(struct agent *a, struct seen *ret)
{
    pthread_mutex_lock(&a->mu);
    ret->v = th_xcalloc(a->pods.n ? a->pods.n : 1, sizeof(*ret->v));
    ret->n = 0;
    struct th_hmap_entry *e;
    for (size_t it = 0; (e = th_hmap_next(&a->pods, &it));) {
        see_pod(e->value, &ret->v[ret->n]);
        if (ret->v[ret->n].n > 0) {
            ret->n++;
            continue;
        }
        struct seen_pod *p = &ret->v[ret->n]; /* nothing runs in it */
        free(p->ns);
        free(p->name);
        free(p->uid);
        free(p->dir);
        free(p->ctrs);
        th_strv_done(&p->volumes);
    }
    pthread_mutex_unlock(&a->mu);
}

static void see_done(struct seen *s)
{
    for (size_t i = 0; i < s->n; i++) {
        struct seen_pod *p = &s->v[i];
        for (size_t k = 0; k < p->n; k++) {
            free(p->ctrs[k].name);
            free(p->ctrs[k].cgroup);
            free(p->ctrs[k].dir);
            free(p->ctrs[k].log_path);
        }
        free(p->ctrs);
        free(p->ns);
        free(p->name);
        free(p->uid);
        free(p->cgroup);
        free(p->dir);
        th_strv_done(&p->volumes);
    }
    free(s->v);
}

/* ---- /stats/summary ---- */

static void put_time(struct th_json *o, const char *name, int64_t ms)
{
    char t[TH_TIME_LEN];
    th_json_set_str(o, name, th_time_format(ms, t));
}

static void put(struct th_json *o, const char *name, uint64_t v)
{
    th_json_set_int(o, name, v > INT64_MAX ? INT64_MAX : (int64_t)v);
}

static void put_usage(struct th_json *o, const struct cg_usage *u, const char *path,
                      int64_t started_ms)
{
    struct th_json *cpu = th_json_object(), *mem = th_json_object();
    put_time(cpu, "time", th_now_ms());
    put(cpu, "usageNanoCores", cpu_rate(path, u->cpu_ns, started_ms));
    put(cpu, "usageCoreNanoSeconds", u->cpu_ns);
    put_time(mem, "time", th_now_ms());
    put(mem, "usageBytes", u->memory_b);
    put(mem, "workingSetBytes", u->working_set_b);
    put(mem, "rssBytes", u->rss_b);
    put(mem, "pageFaults", u->faults);
    put(mem, "majorPageFaults", u->major_faults);
    th_json_set(o, "cpu", cpu);
    th_json_set(o, "memory", mem);
}

static struct th_json *fs_of(const char *path, const struct fs_usage *used)
{
    struct statvfs v;
    struct th_json *o = th_json_object();
    put_time(o, "time", th_now_ms());
    if (statvfs(path, &v) == 0) {
        put(o, "availableBytes", (uint64_t)v.f_bavail * v.f_frsize);
        put(o, "capacityBytes", (uint64_t)v.f_blocks * v.f_frsize);
        put(o, "usedBytes", used ? used->used_b : (uint64_t)(v.f_blocks - v.f_bfree) * v.f_frsize);
        put(o, "inodesFree", v.f_favail);
        put(o, "inodes", v.f_files);
        put(o, "inodesUsed", used ? used->inodes : v.f_files - v.f_ffree);
    }
    return o;
}

/* Counters of an interface as one process sees it. */
static struct th_json *network(pid_t pid, const char *ifname)
{
    th_autofree char *path =
        pid > 0 ? th_xasprintf("/proc/%d/net/dev", (int)pid) : th_xstrdup("/proc/net/dev");
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_autofree char *tag = th_xasprintf("%s:", ifname);
    const char *at =
        th_io_read_file(path, 256 << 10, &b, NULL) >= 0 ? strstr(th_buf_cstr(&b), tag) : NULL;
    unsigned long long rx = 0, rx_err = 0, tx = 0, tx_err = 0;
    if (!at || sscanf(at + strlen(tag), "%llu %*u %llu %*u %*u %*u %*u %*u %llu %*u %llu", &rx,
                      &rx_err, &tx, &tx_err) != 4) {
        return NULL;
    }
    struct th_json *one = th_json_object();
    th_json_set_str(one, "name", ifname);
    put(one, "rxBytes", rx);
    put(one, "rxErrors", rx_err);
    put(one, "txBytes", tx);
    put(one, "txErrors", tx_err);
    struct th_json *o = th_json_dup(one);
    put_time(o, "time", th_now_ms());
    th_json_append(th_json_path_array(o, "interfaces"), one);
    return o;
}

static struct th_json *ctr_stats(struct agent *a, const struct seen_ctr *c, bool brief,
                                 struct fs_usage *sum)
{
    struct th_json *o = th_json_object();
    struct cg_usage u;
    th_json_set_str(o, "name", c->name);
    put_time(o, "startTime", c->started_ms);
    if (cg_usage_read(a, c->cgroup, &u) >= 0) {
        put_usage(o, &u, c->cgroup, c->started_ms);
    }
    if (brief) {
        return o;
    }
    th_autofree char *upper = th_path_join(c->dir, "upper");
    struct fs_usage root = fs_usage(upper), log = fs_usage(c->log_path ? c->log_path : "");
    th_json_set(o, "rootfs", fs_of(a->o.images_dir, &root));
    th_json_set(o, "logs", fs_of(a->o.log_dir, &log));
    sum->used_b += root.used_b + log.used_b;
    sum->inodes += root.inodes + log.inodes;
    return o;
}

static struct th_json *pod_stats(struct agent *a, const struct seen_pod *p, bool brief)
{
    struct th_json *o =
        th_json_build("{'podRef':{'name':%s,'namespace':%s,'uid':%s}}", p->name, p->ns, p->uid);
    put_time(o, "startTime", p->start_ms);
    struct fs_usage sum = {0};
    struct th_json *ctrs = th_json_path_array(o, "containers");
    for (size_t i = 0; i < p->n; i++) {
        th_json_append(ctrs, ctr_stats(a, &p->ctrs[i], brief, &sum));
    }
    struct cg_usage u;
    if (cg_usage_read(a, p->cgroup, &u) >= 0) {
        put_usage(o, &u, p->cgroup, p->start_ms);
    }
    if (brief) {
        return o;
    }
    struct th_json *net = network(p->ctrs[0].pid, "eth0");
    if (net) {
        th_json_set(o, "network", net);
    }
    struct th_json *vols = p->volumes.n ? th_json_path_array(o, "volume") : NULL;
    for (size_t i = 0; i + 1 < p->volumes.n; i += 2) {
        struct fs_usage used = fs_usage(p->volumes.v[i + 1]);
        struct th_json *v = fs_of(p->volumes.v[i + 1], &used);
        th_json_set_str(v, "name", p->volumes.v[i]);
        th_json_append(vols, v);
        sum.used_b += used.used_b;
        sum.inodes += used.inodes;
    }
    th_json_set(o, "ephemeral-storage", fs_of(p->dir, &sum));
    return o;
}

static struct th_json *node_stats(struct agent *a, bool brief)
{
    struct cg_node n;
    cg_node_usage(&n);
    struct cg_usage u = {.cpu_ns = n.cpu_ns,
                         .memory_b = n.memory_b,
                         .working_set_b = n.working_set_b,
                         .rss_b = n.rss_b,
                         .faults = n.faults,
                         .major_faults = n.major_faults};
    struct th_json *o = th_json_object();
    th_json_set_str(o, "nodeName", a->o.name);
    put_time(o, "startTime", a->start_ms);
    put_usage(o, &u, "/", a->start_ms);
    put(th_json_get(o, "memory"), "availableBytes", n.available_b);
    if (brief) {
        return o;
    }
    struct th_json *net = network(0, "eth0");
    if (net) {
        th_json_set(o, "network", net);
    }
    th_json_set(o, "fs", fs_of(a->o.data, NULL));
    struct th_images_usage du;
    struct fs_usage used = {0};
    if (th_images_du(a->images, &du, NULL) >= 0) {
        used.used_b = du.blobs_b + du.layers_b;
    }
    struct th_json *runtime = th_json_object();
    th_json_set(runtime, "imageFs", fs_of(a->o.images_dir, &used));
    th_json_set(o, "runtime", runtime);
    return o;
}

struct th_json *stats_summary(struct agent *a, bool brief)
{
    struct seen s;
    see(a, &s);
    struct th_json *o = th_json_object();
    th_json_set(o, "node", node_stats(a, brief));
    struct th_json *pods = th_json_path_array(o, "pods");
    for (size_t i = 0; i < s.n; i++) {
        th_json_append(pods, pod_stats(a, &s.v[i], brief));
    }
    see_done(&s);
    return o;
}

/* ---- /metrics/resource ---- */

static void head(struct th_buf *b, const char *name, const char *type, const char *help)
{
    th_buf_printf(b, "# HELP %s [STABLE] %s\n# TYPE %s %s\n", name, help, name, type);
}

enum what { CPU, MEMORY, START };

static void value(struct th_buf *b, enum what what, const struct cg_usage *u, int64_t start_ms)
{
    long long now = (long long)th_now_ms();
    if (what == CPU) {
        th_buf_printf(b, " %.9g %lld\n", (double)u->cpu_ns / 1e9, now);
    } else if (what == MEMORY) {
        th_buf_printf(b, " %llu %lld\n", (unsigned long long)u->working_set_b, now);
    } else {
        th_buf_printf(b, " %.3f %lld\n", (double)start_ms / 1000.0, now);
    }
}

static void container_lines(struct agent *a, const struct seen *s, enum what what, const char *name,
                            struct th_buf *b)
{
    for (size_t i = 0; i < s->n; i++) {
        for (size_t k = 0; k < s->v[i].n; k++) {
            const struct seen_ctr *c = &s->v[i].ctrs[k];
            struct cg_usage u;
            if (cg_usage_read(a, c->cgroup, &u) >= 0) {
                th_buf_printf(b, "%s{container=\"%s\",namespace=\"%s\",pod=\"%s\"}", name, c->name,
                              s->v[i].ns, s->v[i].name);
                value(b, what, &u, c->started_ms);
            }
        }
    }
}

static void pod_lines(struct agent *a, const struct seen *s, enum what what, const char *name,
                      struct th_buf *b)
{
    for (size_t i = 0; i < s->n; i++) {
        struct cg_usage u;
        if (cg_usage_read(a, s->v[i].cgroup, &u) >= 0) {
            th_buf_printf(b, "%s{namespace=\"%s\",pod=\"%s\"}", name, s->v[i].ns, s->v[i].name);
            value(b, what, &u, 0);
        }
    }
}

void stats_metrics_resource(struct agent *a, struct th_buf *b)
{
    struct seen s;
    see(a, &s);
    struct cg_node n;
    cg_node_usage(&n);
    struct cg_usage node = {.cpu_ns = n.cpu_ns, .working_set_b = n.working_set_b};
    head(b, "container_cpu_usage_seconds_total", "counter",
         "Cumulative cpu time consumed by the container in core-seconds");
    container_lines(a, &s, CPU, "container_cpu_usage_seconds_total", b);
    head(b, "container_memory_working_set_bytes", "gauge",
         "Current working set of the container in bytes");
    container_lines(a, &s, MEMORY, "container_memory_working_set_bytes", b);
    head(b, "container_start_time_seconds", "gauge",
         "Start time of the container since unix epoch in seconds");
    container_lines(a, &s, START, "container_start_time_seconds", b);
    head(b, "node_cpu_usage_seconds_total", "counter",
         "Cumulative cpu time consumed by the node in core-seconds");
    th_buf_puts(b, "node_cpu_usage_seconds_total");
    value(b, CPU, &node, 0);
    head(b, "node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes");
    th_buf_puts(b, "node_memory_working_set_bytes");
    value(b, MEMORY, &node, 0);
    head(b, "pod_cpu_usage_seconds_total", "counter",
         "Cumulative cpu time consumed by the pod in core-seconds");
    pod_lines(a, &s, CPU, "pod_cpu_usage_seconds_total", b);
    head(b, "pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes");
    pod_lines(a, &s, MEMORY, "pod_memory_working_set_bytes", b);
    head(b, "resource_scrape_error", "gauge",
         "1 if there was an error while getting container metrics, 0 otherwise");
    th_buf_puts(b, "resource_scrape_error 0\n");
    see_done(&s);
}
