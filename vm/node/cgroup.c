/* Control groups of pods.
 *
 * The tree is Kubernetes' (cgroupfs driver): <parent>/kubepods/pod<uid> for Guaranteed pods,
 * .../burstable/pod<uid> and .../besteffort/pod<uid> for the others, one group per container below
 * made by crun from the limits in config.json, and <parent>/thimble/conmon for all conmons, outside
 * of the agent's own group so that whatever ends the agent by its group leaves them alone.
 *
 * A pod has at most --pod-max-pids processes and threads, so that a fork bomb ends in its pod (upstream's
 * default is no limit; this node is the whole cluster).
 *
 * Version 2 is what the guest has. On version 1 (hybrid hosts, host driver) crun puts containers
 * into every controller by itself and the pod's level has no limits of its own: each container's
 * still hold. The arithmetic (shares from millicores, shares to weight, quota per 100 ms) is
 * Kubernetes'. */
#include "base/io.h"
#include "base/log.h"
#include "controlplane/schema/quantity.h"
#include "vm/node/agent.h"

#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>

#define CGROUP2_MAGIC 0x63677270
#define PERIOD_US 100000

int cg_detect(struct agent *a, struct th_err *err)
{
    a->cg.mount = th_xstrdup("/sys/fs/cgroup");
    a->cg.parent = th_xstrdup(a->o.cgroup_parent ? a->o.cgroup_parent : "");
    struct statfs s;
    if (statfs(a->cg.mount, &s) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "%s", a->cg.mount);
    }
    if (s.f_type == CGROUP2_MAGIC) {
        a->cg.version = CG_V2;
        return 0;
    }
    if (th_io_is_dir("/sys/fs/cgroup/memory")) {
        a->cg.version = CG_V1;
        return 0;
    }
    return th_fail(err, TH_R_UNSUPPORTED, "no control groups are mounted at %s", a->cg.mount);
}

int64_t quantity_value(const struct th_json *q, int64_t def)
{
    struct th_quantity v;
    const char *s = th_json_str(q);
    if (!s) {
        return th_json_as_int(q, def);
    }
    return th_quantity_parse(s, &v, NULL) < 0 ? def : th_quantity_value(v);
}

int64_t quantity_milli(const struct th_json *q, int64_t def)
{
    struct th_quantity v;
    const char *s = th_json_str(q);
    if (!s) {
        return q ? th_json_as_int(q, 0) * 1000 : def;
    }
    return th_quantity_parse(s, &v, NULL) < 0 ? def : th_quantity_milli(v);
}

const char *pod_qos(const struct th_json *pod)
{
    const char *given = th_json_path_str(pod, "status.qosClass");
    if (given && *given) {
        return given;
    }
    bool any = false, guaranteed = true;
    const char *lists[] = {"spec.initContainers", "spec.containers"};
    for (size_t l = 0; l < 2; l++) {
        struct th_json *cs = th_json_path(pod, lists[l]);
        for (size_t i = 0; i < th_json_len(cs); i++) {
            for (int k = 0; k < 2; k++) {
                const char *res = k ? "memory" : "cpu";
                struct th_json *r = th_json_path(th_json_at(cs, i), "resources");
                int64_t req = quantity_milli(th_json_get(th_json_get(r, "requests"), res), 0);
                int64_t lim = quantity_milli(th_json_get(th_json_get(r, "limits"), res), 0);
                any = any || req > 0 || lim > 0;
                guaranteed = guaranteed && lim > 0 && (req == 0 || req == lim);
            }
        }
    }
    return !any ? "BestEffort" : guaranteed ? "Guaranteed" : "Burstable";
}

char *cg_pod_path(const struct pod *p)
{
    const char *qos = pod_qos(p->obj);
    return th_xasprintf("%s/kubepods%s/pod%s", p->a->cg.parent,
                        th_streq(qos, "Burstable")    ? "/burstable"
                        : th_streq(qos, "BestEffort") ? "/besteffort"
                                                      : "",
                        p->uid);
}

static int64_t shares_of(int64_t milli)
{
    int64_t s = milli * 1024 / 1000;
    return s < 2 ? 2 : s > 262144 ? 262144 : s;
}

static int64_t weight_of(int64_t shares)
{
    return 1 + ((shares - 2) * 9999) / 262142;
}

static int64_t quota_of(int64_t milli)
{
    int64_t q = milli * PERIOD_US / 1000;
    return q < 1000 ? 1000 : q;
}

/* Requests (or limits) of the pod as a whole: the greater of all app containers plus sidecars, and
 * each init container plus the sidecars before it. -1 when some app container has no limit. */
static int64_t pod_sum(const struct pod *p, const char *which, const char *res, bool need_all)
{
    int64_t apps = 0, sidecars = 0, peak = 0;
    bool missing = false;
    for (size_t i = 0; i < p->n_ctrs; i++) {
        const struct ctr *c = &p->ctrs[i];
        if (c->kind == CTR_EPHEMERAL) {
            continue; /* they have no resources of their own */
        }
        struct th_json *r = th_json_get(c->spec, "resources");
        struct th_json *q = th_json_get(th_json_get(r, which), res);
        if (!q && !need_all) {
            q = th_json_get(th_json_get(r, "limits"), res);
        }
        int64_t v = th_streq(res, "cpu") ? quantity_milli(q, 0) : quantity_value(q, 0);
        missing = missing || (need_all && v == 0);
        if (c->kind == CTR_APP) {
            apps += v;
        } else if (c->kind == CTR_SIDECAR) {
            sidecars += v;
        } else if (v + sidecars > peak) {
            peak = v + sidecars;
        }
    }
    bool cpu = th_streq(res, "cpu");
    struct th_json *whole = th_json_path(p->obj, "spec.resources");
    struct th_json *q = th_json_get(th_json_get(whole, which), res);
    if (missing && !q) {
        return -1;
    }
    int64_t v = apps + sidecars > peak ? apps + sidecars : peak;
    v = !q ? v : cpu ? quantity_milli(q, 0) : quantity_value(q, 0);
    struct th_json *more = th_json_get(th_json_path(p->obj, "spec.overhead"), res);
    return v + (cpu ? quantity_milli(more, 0) : quantity_value(more, 0));
}

int64_t pod_request(const struct pod *p, const char *resource)
{
    return pod_sum(p, "requests", resource, false);
}

static void cg_write(const char *dir, const char *file, const char *fmt, ...) TH_PRINTF(3, 4);
static void cg_write(const char *dir, const char *file, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    th_autofree char *text = th_xvasprintf(fmt, ap);
    va_end(ap);
    th_autofree char *path = th_path_join(dir, file);
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (th_io_write_file(path, text, strlen(text), 0644, &err) < 0) {
        th_debug(NODE_MOD, "control group file not written", "err=%s", th_log_q(err.msg));
    }
}

/* Makes every group on the way and hands the controllers down to the last but one. */
static int v2_make(struct agent *a, const char *path, bool leaf, struct th_err *err)
{
    static const char *const controllers[] = {"+cpu", "+memory", "+pids", "+io", "+cpuset"};
    th_autostrv struct th_strv parts = TH_STRV_INIT;
    th_strv_split(&parts, path, '/');
    th_autobuf struct th_buf dir = TH_BUF_INIT;
    th_buf_puts(&dir, a->cg.mount);
    for (size_t i = 0; i <= parts.n; i++) {
        if (i < parts.n && !parts.v[i][0]) {
            if (i > 0) {
                continue;
            }
        }
        if (i > 0 || !leaf) {
            for (size_t k = 0; k < TH_ARRAY_LEN(controllers) && !(leaf && i == parts.n); k++) {
                cg_write(th_buf_cstr(&dir), "cgroup.subtree_control", "%s", controllers[k]);
            }
        }
        if (i == parts.n) {
            break;
        }
        if (parts.v[i][0]) {
            th_buf_printf(&dir, "/%s", parts.v[i]);
            if (mkdir(th_buf_cstr(&dir), 0755) < 0 && errno != EEXIST) {
                return th_fail_errno(err, errno, TH_R_IO, "creating control group %s",
                                     th_buf_cstr(&dir));
            }
        }
    }
    return 0;
}

int cg_pod_create(struct pod *p, struct th_err *err)
{
    struct agent *a = p->a;
    th_autofree char *path = cg_pod_path(p);
    th_autofree char *pids = a->o.pod_pids > 0 ? th_xasprintf("%lld", (long long)a->o.pod_pids) : th_xstrdup("max");
    if (a->cg.version != CG_V2) {
        /* crun makes the folders of its controllers; here only what holds for the pod as a whole */
        th_autofree char *v1 = th_xasprintf("%s/pids%s", a->cg.mount, path);
        th_autofree char *there = th_path_join(a->cg.mount, "pids");
        if (th_io_is_dir(there) && th_io_mkdir_p(v1, 0755, NULL) >= 0) {
            cg_write(v1, "pids.max", "%s", pids);
        }
        return 0;
    }
    TH_TRY(v2_make(a, path, false, err));
    th_autofree char *dir = th_xasprintf("%s%s", a->cg.mount, path);
    cg_write(dir, "pids.max", "%s", pids);
    cg_pod_limits(p, true);
    cg_pod_limits(p, false);
    return 0;
}

/* The number a limit file begins with; INT64_MAX for "max". */
static int64_t limit_now(const char *dir, const char *file)
{
    th_autofree char *path = th_path_join(dir, file);
    th_autobuf struct th_buf b = TH_BUF_INIT;
    if (th_io_read_file(path, 4096, &b, NULL) < 0 || th_startswith(th_buf_cstr(&b), "max")) {
        return INT64_MAX;
    }
    return strtoll(th_buf_cstr(&b), NULL, 10);
}

void cg_pod_limits(struct pod *p, bool grow)
{
    if (p->a->cg.version != CG_V2) {
        return; /* the pod's level has no limits there */
    }
    th_autofree char *path = cg_pod_path(p);
    th_autofree char *dir = th_xasprintf("%s%s", p->a->cg.mount, path);
    if (grow) {
        cg_write(dir, "cpu.weight", "%lld",
                 (long long)weight_of(shares_of(pod_sum(p, "requests", "cpu", false))));
    }
    int64_t cpu = pod_sum(p, "limits", "cpu", true), now = limit_now(dir, "cpu.max");
    int64_t want = cpu > 0 ? quota_of(cpu) : INT64_MAX;
    if (want != now && (want > now) == grow) {
        if (cpu > 0) {
            cg_write(dir, "cpu.max", "%lld %d", (long long)want, PERIOD_US);
        } else {
            cg_write(dir, "cpu.max", "max %d", PERIOD_US);
        }
    }
    int64_t mem = pod_sum(p, "limits", "memory", true);
    want = mem > 0 ? mem : INT64_MAX;
    now = limit_now(dir, "memory.max");
    if (want != now && (want > now) == grow) {
        if (mem > 0) {
            cg_write(dir, "memory.max", "%lld", (long long)mem);
        } else {
            cg_write(dir, "memory.max", "max");
        }
    }
}

static const char *const V1_CONTROLLERS[] = {"cpu",     "cpuacct", "cpuset", "memory", "devices",
                                             "freezer", "blkio",   "pids",   "systemd", "net_cls",
                                             "hugetlb", "perf_event", "unified"};

static void rmdir_tree(const char *dir)
{
    th_autostrv struct th_strv names = TH_STRV_INIT;
    if (!th_io_is_dir(dir) || th_io_list(dir, &names, NULL) < 0) {
        return;
    }
    for (size_t i = 0; i < names.n; i++) {
        th_autofree char *sub = th_path_join(dir, names.v[i]);
        if (th_io_is_dir(sub)) {
            rmdir_tree(sub);
        }
    }
    (void)rmdir(dir);
}

void cg_pod_remove(struct pod *p)
{
    th_autofree char *path = cg_pod_path(p);
    if (p->a->cg.version == CG_V2) {
        th_autofree char *dir = th_xasprintf("%s%s", p->a->cg.mount, path);
        cg_write(dir, "cgroup.kill", "1");
        rmdir_tree(dir);
        return;
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(V1_CONTROLLERS); i++) {
        th_autofree char *dir = th_xasprintf("%s/%s%s", p->a->cg.mount, V1_CONTROLLERS[i], path);
        rmdir_tree(dir);
    }
}

int cg_conmon_prepare(struct agent *a, char **ret_procs_path, struct th_err *err)
{
    th_autofree char *path = th_xasprintf("%s/thimble/conmon", a->cg.parent);
    if (a->cg.version == CG_V2) {
        TH_TRY(v2_make(a, path, true, err));
        *ret_procs_path = th_xasprintf("%s%s/cgroup.procs", a->cg.mount, path);
        return 0;
    }
    th_autofree char *dir = th_xasprintf("%s/systemd%s", a->cg.mount, path);
    if (th_io_is_dir("/sys/fs/cgroup/systemd") && th_io_mkdir_p(dir, 0755, NULL) >= 0) {
        *ret_procs_path = th_path_join(dir, "cgroup.procs");
    }
    return 0;
}

struct th_json *cg_resources(const struct pod *p, const struct ctr *c)
{
    struct th_json *res = th_json_get(c->spec, "resources");
    struct th_json *req = th_json_get(res, "requests"), *lim = th_json_get(res, "limits");
    int64_t cpu_lim = quantity_milli(th_json_get(lim, "cpu"), 0);
    int64_t cpu_req = quantity_milli(th_json_get(req, "cpu"), cpu_lim);
    int64_t mem_lim = quantity_value(th_json_get(lim, "memory"), 0);
    struct th_json *o = th_json_object();
    th_json_path_set_int(o, "cpu.shares", shares_of(cpu_req));
    if (cpu_lim > 0) {
        th_json_path_set_int(o, "cpu.quota", quota_of(cpu_lim));
        th_json_path_set_int(o, "cpu.period", PERIOD_US);
    }
    if (mem_lim > 0) {
        th_json_path_set_int(o, "memory.limit", mem_lim);
        if (p->a->cg.version == CG_V2) {
            th_autofree char *pod = cg_pod_path(p);
            th_autofree char *swap = th_xasprintf("%s%s/memory.swap.max", p->a->cg.mount, pod);
            if (th_io_exists(swap)) { /* kernels without swap have no such file */
                th_json_path_set_int(o, "memory.swap", mem_lim);
            }
            th_json_set(o, "unified", th_json_build("{'memory.oom.group':'1'}"));
        }
    }
    return o;
}

/* The lowest oom_score_adj we may give: without CAP_SYS_RESOURCE (some hosts take it even from root)
 * it is our own. */
static int64_t oom_floor(void)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    if (th_io_read_file("/proc/self/status", 64 << 10, &b, NULL) >= 0) {
        const char *eff = strstr(th_buf_cstr(&b), "CapEff:");
        if (eff && (strtoull(eff + 7, NULL, 16) >> 24 & 1)) {
            return -1000;
        }
    }
    th_buf_clear(&b);
    return th_io_read_file("/proc/self/oom_score_adj", 64, &b, NULL) < 0
               ? 0
               : strtol(th_buf_cstr(&b), NULL, 10);
}

static int64_t oom_wanted(const struct pod *p, const struct ctr *c, int64_t capacity_b)
{
    const char *prio = th_json_path_str(p->obj, "spec.priorityClassName");
    if (th_streq(prio, "system-node-critical")) {
        return -997;
    }
    const char *qos = pod_qos(p->obj);
    if (th_streq(qos, "Guaranteed")) {
        return -997;
    }
    if (th_streq(qos, "BestEffort") || capacity_b <= 0) {
        return 1000;
    }
    struct th_json *res = th_json_get(c->spec, "resources");
    int64_t mem = quantity_value(th_json_get(th_json_get(res, "requests"), "memory"),
                                 quantity_value(th_json_get(th_json_get(res, "limits"), "memory"), 0));
    int64_t adj = 1000 - 1000 * mem / capacity_b;
    return adj < 3 ? 3 : adj >= 1000 ? 999 : adj;
}

int64_t cg_oom_adj(const struct pod *p, const struct ctr *c, int64_t capacity_b)
{
    int64_t want = oom_wanted(p, c, capacity_b), floor = oom_floor();
    return want < floor ? floor : want;
}

static uint64_t file_field(const char *path, const char *key)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    if (th_io_read_file(path, 64 << 10, &b, NULL) < 0) {
        return 0;
    }
    if (!key) {
        return strtoull(th_buf_cstr(&b), NULL, 10);
    }
    size_t n = strlen(key);
    for (const char *l = th_buf_cstr(&b); l && *l; l = strchr(l, '\n') ? strchr(l, '\n') + 1 : NULL) {
        if (strncmp(l, key, n) == 0 && l[n] == ' ') {
            return strtoull(l + n + 1, NULL, 10);
        }
    }
    return 0;
}

static uint64_t meminfo_b(const char *key)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    const char *at = th_io_read_file("/proc/meminfo", 64 << 10, &b, NULL) >= 0 ? strstr(th_buf_cstr(&b), key) : NULL;
    return at ? strtoull(at + strlen(key), NULL, 10) * 1024 : 0;
}

bool cg_oom_killed(const struct pod *p, const char *ctr_id)
{
    th_autofree char *pod = cg_pod_path(p);
    if (p->a->cg.version == CG_V2) {
        th_autofree char *f = th_xasprintf("%s%s/%s/memory.events", p->a->cg.mount, pod, ctr_id);
        return file_field(f, "oom_kill") > 0;
    }
    th_autofree char *f = th_xasprintf("%s/memory%s/%s/memory.oom_control", p->a->cg.mount, pod, ctr_id);
    return file_field(f, "oom_kill") > 0;
}

int cg_usage_read(const struct agent *a, const char *path, struct cg_usage *ret)
{
    memset(ret, 0, sizeof(*ret));
    if (a->cg.version == CG_V2) {
        th_autofree char *cpu = th_xasprintf("%s%s/cpu.stat", a->cg.mount, path);
        th_autofree char *mem = th_xasprintf("%s%s/memory.current", a->cg.mount, path);
        th_autofree char *stat = th_xasprintf("%s%s/memory.stat", a->cg.mount, path);
        if (!th_io_exists(mem)) {
            return -1;
        }
        ret->cpu_ns = file_field(cpu, "usage_usec") * 1000;
        ret->memory_b = file_field(mem, NULL);
        ret->rss_b = file_field(stat, "anon");
        ret->faults = file_field(stat, "pgfault");
        ret->major_faults = file_field(stat, "pgmajfault");
        uint64_t inactive = file_field(stat, "inactive_file");
        ret->working_set_b = ret->memory_b > inactive ? ret->memory_b - inactive : 0;
        return 0;
    }
    th_autofree char *cpu = th_xasprintf("%s/cpuacct%s/cpuacct.usage", a->cg.mount, path);
    th_autofree char *mem = th_xasprintf("%s/memory%s/memory.usage_in_bytes", a->cg.mount, path);
    th_autofree char *stat = th_xasprintf("%s/memory%s/memory.stat", a->cg.mount, path);
    if (!th_io_exists(mem)) {
        return -1;
    }
    ret->cpu_ns = file_field(cpu, NULL);
    ret->memory_b = file_field(mem, NULL);
    ret->rss_b = file_field(stat, "total_rss");
    ret->faults = file_field(stat, "total_pgfault");
    ret->major_faults = file_field(stat, "total_pgmajfault");
    uint64_t inactive = file_field(stat, "total_inactive_file");
    ret->working_set_b = ret->memory_b > inactive ? ret->memory_b - inactive : 0;
    return 0;
}

/* From /proc, so that it means the same with either version and in a group of its own: user, nice, system,
 * irq, softirq and steal of the first line, in ticks; memory that could be had at once is available. */
void cg_node_usage(struct cg_node *ret)
{
    memset(ret, 0, sizeof(*ret));
    th_autobuf struct th_buf b = TH_BUF_INIT;
    unsigned long long t[8] = {0};
    long hz = sysconf(_SC_CLK_TCK);
    if (th_io_read_file("/proc/stat", 1 << 20, &b, NULL) >= 0 &&
        sscanf(th_buf_cstr(&b), "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &t[0], &t[1], &t[2], &t[3], &t[4],
               &t[5], &t[6], &t[7]) == 8 && hz > 0) {
        ret->cpu_ns = (t[0] + t[1] + t[2] + t[5] + t[6] + t[7]) * (1000000000ull / (unsigned long long)hz);
    }
    uint64_t total = meminfo_b("MemTotal:"), free_b = meminfo_b("MemFree:");
    ret->available_b = meminfo_b("MemAvailable:");
    ret->rss_b = meminfo_b("AnonPages:");
    ret->faults = file_field("/proc/vmstat", "pgfault");
    ret->major_faults = file_field("/proc/vmstat", "pgmajfault");
    ret->memory_b = total > free_b ? total - free_b : 0;
    ret->working_set_b = total > ret->available_b ? total - ret->available_b : 0;
}
