/* The node as the cluster sees it: registration, status, heartbeat.
 *
 * One thread: registers (trying again until the API server answers), then renews the Lease
 * kube-node-lease/<name> every 10 s, and writes the Node's status when something in it has changed,
 * at the latest every 5 minutes; the Lease is what the node lifecycle controller looks at. Conditions,
 * texts and the arithmetic of allocatable (100 MiB of memory and 10 % of the disk held back) are the
 * kubelet's. */
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "base/rand.h"
#include "base/proc.h"
#include "images/archive.h"
#include "base/version.h"
#include "vm/node/agent.h"
#include "vm/node/node.h"

#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>

#define PRODUCT_UUID "/sys/class/dmi/id/product_uuid"
#define LEASE_MS 10000
#define LEASE_DURATION_S 40
#define REPORT_MS 300000
#define EVICTION_MEMORY_B (100ll << 20)
#define MAX_IMAGES 50

static struct {
    pthread_t thread;
    pthread_mutex_t mu;
    pthread_cond_t cond;
    bool running, stop, poked;
} hb = {.mu = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};

int64_t node_memory_b(void)
{
    struct sysinfo s;
    return sysinfo(&s) == 0 ? (int64_t)s.totalram * s.mem_unit : 0;
}

int64_t node_allocatable_memory_b(void)
{
    int64_t mem = node_memory_b();
    return mem < 4 * EVICTION_MEMORY_B ? mem : mem - EVICTION_MEMORY_B;
}

int64_t node_cpus(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? n : 1;
}

static char *file_line(const char *path)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    if (th_io_read_file(path, 4096, &b, NULL) < 0) {
        return th_xstrdup("");
    }
    return th_xstrndup(th_buf_cstr(&b), strcspn(th_buf_cstr(&b), "\n"));
}

static char *os_image(void)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    if (th_io_read_file("/etc/os-release", 64 << 10, &b, NULL) >= 0) {
        const char *p = strstr(th_buf_cstr(&b), "PRETTY_NAME=\"");
        if (p) {
            return th_xstrndup(p + 13, strcspn(p + 13, "\"\n"));
        }
    }
    return th_xstrdup("Thimble");
}

static char *crun_version(struct agent *a)
{
    static char *version; /* asked once; the heartbeat thread only */
    if (!version) {
        th_autobuf struct th_buf out = TH_BUF_INIT;
        /* init may have asked already, when nobody waited for it. */
        th_autofree char *said = th_path_join(a->o.run, TH_NODE_CRUN_VERSION);
        if (th_io_read_file(said, 4096, &out, NULL) < 0) {
            (void)(th_proc_runl(&out, 5000, NULL, a->crun, "--version", NULL) < 0);
        }
        const char *p = strstr(th_buf_cstr(&out), "version ");
        version = p ? th_xstrndup(p + 8, strcspn(p + 8, "\n")) : th_xstrdup("unknown");
    }
    return version;
}

/* The firmware's, on a host. A machine of ours says its machine-id: in its memory is the firmware of
 * the one that its template was made of. */
static char *system_uuid(struct agent *a, const char *machine)
{
    if (a->cg.parent[0] && th_io_exists(PRODUCT_UUID)) {
        return file_line(PRODUCT_UUID);
    }
    return strlen(machine) == 32 ? th_xasprintf("%.8s-%.4s-%.4s-%.4s-%s", machine, machine + 8, machine + 12,
                                                machine + 16, machine + 20)
                                 : th_xstrdup(machine);
}

static struct th_json *node_info(struct agent *a)
{
    struct utsname u;
    (void)uname(&u);
    th_autofree char *machine = file_line("/etc/machine-id");
    th_autofree char *uuid = system_uuid(a, machine);
    th_autofree char *boot = file_line("/proc/sys/kernel/random/boot_id");
    th_autofree char *os = os_image();
    th_autofree char *rt = th_xasprintf("crun://%s", crun_version(a));
    return th_json_build("{'machineID':%s,'systemUUID':%s,'bootID':%s,'kernelVersion':%s,'osImage':%s,"
                         "'containerRuntimeVersion':%s,'kubeletVersion':%s,'kubeProxyVersion':'',"
                         "'operatingSystem':'linux','architecture':%s}",
                         machine, uuid, boot, u.release, os, rt, TH_KUBE_VERSION,
                         th_host_architecture());
}

static void set_resources(struct agent *a, struct th_json *status)
{
    struct statvfs v;
    int64_t disk = statvfs(a->o.data, &v) == 0 ? (int64_t)v.f_blocks * (int64_t)v.f_frsize : 0;
    for (int k = 0; k < 2; k++) {
        struct th_json *r = th_json_object();
        th_json_set(r, "cpu", th_json_stringf("%lld", (long long)node_cpus()));
        if (k == 0) {
            th_json_set(r, "ephemeral-storage", th_json_stringf("%lldKi", (long long)disk / 1024));
        } else {
            th_json_set(r, "ephemeral-storage", th_json_stringf("%lld", (long long)(disk / 10 * 9)));
        }
        th_json_set_str(r, "hugepages-1Gi", "0");
        th_json_set_str(r, "hugepages-2Mi", "0");
        int64_t m = k == 0 ? node_memory_b() : node_allocatable_memory_b();
        th_json_set(r, "memory", th_json_stringf("%lldKi", (long long)m / 1024));
        th_json_set(r, "pods", th_json_stringf("%lld", (long long)a->o.max_pods));
        th_json_set(status, k == 0 ? "capacity" : "allocatable", r);
    }
}

static struct th_json *old_condition(const struct th_json *node, const char *type)
{
    struct th_json *l = th_json_path(node, "status.conditions");
    for (size_t i = 0; i < th_json_len(l); i++) {
        if (th_streq(th_json_path_str(th_json_at(l, i), "type"), type)) {
            return th_json_at(l, i);
        }
    }
    return NULL;
}

static void set_conditions(struct agent *a, const struct th_json *old_node, struct th_json *status)
{
    bool memory = atomic_load(&a->memory_pressure.on), disk = atomic_load(&a->disk_pressure.on);
    const struct {
        const char *type, *status, *reason, *message;
    } rows[] = {
        {"MemoryPressure", memory ? "True" : "False",
         memory ? "KubeletHasInsufficientMemory" : "KubeletHasSufficientMemory",
         memory ? "kubelet has insufficient memory available" : "kubelet has sufficient memory available"},
        {"DiskPressure", disk ? "True" : "False", disk ? "KubeletHasDiskPressure" : "KubeletHasNoDiskPressure",
         disk ? "kubelet has disk pressure" : "kubelet has no disk pressure"},
        {"PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"},
        {"Ready", "True", "KubeletReady", "kubelet is posting ready status"},
    };
    char now[TH_TIME_LEN];
    (void)th_time_format(th_now_ms(), now);
    struct th_json *l = th_json_array();
    for (size_t i = 0; i < TH_ARRAY_LEN(rows); i++) {
        struct th_json *old = old_condition(old_node, rows[i].type);
        const char *since = th_json_path_str(old, "lastTransitionTime");
        bool same = since && th_streq(th_json_path_str(old, "status"), rows[i].status);
        th_json_append(l, th_json_build("{'type':%s,'status':%s,'lastHeartbeatTime':%s,"
                                        "'lastTransitionTime':%s,'reason':%s,'message':%s}",
                                        rows[i].type, rows[i].status, now, same ? since : now,
                                        rows[i].reason, rows[i].message));
    }
    /* those of others stay */
    struct th_json *theirs = th_json_path(old_node, "status.conditions");
    for (size_t i = 0; i < th_json_len(theirs); i++) {
        const char *t = th_json_path_str(th_json_at(theirs, i), "type");
        bool ours = false;
        for (size_t k = 0; k < TH_ARRAY_LEN(rows); k++) {
            ours = ours || th_streq(t, rows[k].type);
        }
        if (!ours) {
            th_json_append(l, th_json_dup(th_json_at(theirs, i)));
        }
    }
    th_json_set(status, "conditions", l);
}

static void set_images(struct agent *a, struct th_json *status)
{
    struct th_image **list = NULL;
    size_t n = 0;
    struct th_json *l = th_json_array();
    if (th_images_list(a->images, &list, &n, NULL) >= 0) {
        for (size_t i = 0; i < n && i < MAX_IMAGES; i++) {
            struct th_json *names = th_json_array();
            for (size_t k = 0; k < list[i]->digests.n; k++) {
                th_json_append_str(names, list[i]->digests.v[k]);
            }
            for (size_t k = 0; k < list[i]->names.n; k++) {
                th_json_append_str(names, list[i]->names.v[k]);
            }
            if (th_json_len(names) == 0) {
                th_json_unref(names);
                continue;
            }
            th_json_append(l, th_json_build("{'names':%o,'sizeBytes':%d}", names, list[i]->size));
        }
        th_image_list_free(list, n);
    }
    th_json_set(status, "images", l);
}

static struct th_json *build_status(struct agent *a, const struct th_json *old)
{
    struct th_json *s = th_json_object();
    set_resources(a, s);
    set_conditions(a, old, s);
    struct th_json *addr = th_json_array();
    th_json_append(addr, th_json_build("{'type':'InternalIP','address':%s}", a->o.node_ip));
    th_json_append(addr, th_json_build("{'type':'Hostname','address':%s}", a->o.name));
    th_json_set(s, "addresses", addr);
    th_json_path_set_int(s, "daemonEndpoints.kubeletEndpoint.Port", 10250);
    th_json_set(s, "nodeInfo", node_info(a));
    set_images(a, s);
    return s;
}

static struct th_json *node_labels(struct agent *a)
{
    struct th_json *l = th_json_object();
    const char *arch = th_host_architecture();
    th_json_set_str(l, "beta.kubernetes.io/arch", arch);
    th_json_set_str(l, "beta.kubernetes.io/instance-type", "thimble");
    th_json_set_str(l, "beta.kubernetes.io/os", "linux");
    th_json_set_str(l, "kubernetes.io/arch", arch);
    th_json_set_str(l, "kubernetes.io/hostname", a->o.name);
    th_json_set_str(l, "kubernetes.io/os", "linux");
    th_json_set_str(l, "node.kubernetes.io/instance-type", "thimble");
    return l;
}

/* Labels that a node of an older version or somebody's hand left out. */
static int mend_labels(struct agent *a, const struct th_json *node, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *want = node_labels(a);
    const struct th_json *have = th_json_path(node, "metadata.labels");
    struct th_json_iter it = TH_JSON_ITER(want);
    while (th_json_next(&it)) {
        if (th_json_equal(th_json_get(have, it.name), it.value)) {
            (void)th_json_del(want, it.name);
        }
    }
    if (th_json_len(want) == 0) {
        return 0;
    }
    TH_AUTO(th_json) struct th_json *patch =
        th_json_build("{'metadata':{'labels':%o}}", th_json_dup(want));
    struct th_patch_opts o = {.kind = TH_PATCH_MERGE_RFC7386, .field_manager = "kubelet"};
    return th_client_patch(a->client, TH_GVR_NODES, NULL, a->o.name, NULL, &o, patch, NULL, err);
}

static int ensure_node(struct agent *a, struct th_json **ret, struct th_err *err)
{
    TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
    int r = th_client_get(a->client, TH_GVR_NODES, NULL, a->o.name, ret, &e);
    if (r >= 0) {
        return 0;
    }
    if (r != -TH_R_NOT_FOUND) {
        th_err_move(err, &e);
        return r;
    }
    TH_AUTO(th_json) struct th_json *n = th_json_build(
        "{'apiVersion':'v1','kind':'Node','metadata':{'name':%s,'labels':%o,'annotations':{"
        "'volumes.kubernetes.io/controller-managed-attach-detach':'true'}},"
        "'spec':{'podCIDR':%s,'podCIDRs':[%s]}}",
        a->o.name, node_labels(a), a->o.pod_cidr, a->o.pod_cidr);
    th_json_set(n, "status", build_status(a, NULL));
    TH_TRY(th_client_create(a->client, TH_GVR_NODES, NULL, n, ret, err));
    th_info(NODE_MOD, "node registered", "name=%s", a->o.name);
    return 0;
}

static struct th_json *comparable(const struct th_json *status)
{
    struct th_json *c = th_json_dup(status);
    struct th_json *l = th_json_get(c, "conditions");
    for (size_t i = 0; i < th_json_len(l); i++) {
        (void)th_json_del(th_json_at(l, i), "lastHeartbeatTime");
    }
    return c;
}

static int write_status(struct agent *a, struct th_json **last, int64_t *last_ms, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *node = NULL;
    TH_TRY(ensure_node(a, &node, err));
    if (!*last) {
        TH_TRY(mend_labels(a, node, err));
    }
    TH_AUTO(th_json) struct th_json *status = build_status(a, node);
    TH_AUTO(th_json) struct th_json *now = comparable(status);
    TH_AUTO(th_json) struct th_json *theirs = comparable(th_json_get(node, "status"));
    bool conds_same = th_json_equal(th_json_get(theirs, "conditions"), th_json_get(now, "conditions"));
    if (*last && conds_same && th_json_equal(*last, now) && th_mono_ms() - *last_ms < REPORT_MS) {
        return 0;
    }
    TH_AUTO(th_json) struct th_json *patch = th_json_object();
    th_json_set(patch, "status", th_json_ref(status));
    struct th_patch_opts o = {.kind = TH_PATCH_MERGE_RFC7386, .field_manager = "kubelet"};
    TH_TRY(th_client_patch(a->client, TH_GVR_NODES, NULL, a->o.name, "status", &o, patch, NULL, err));
    if (!*last && a->recorder) {
        static const char *const reasons[] = {"NodeHasSufficientMemory", "NodeHasNoDiskPressure",
                                              "NodeHasSufficientPID", "NodeReady"};
        th_event_record(a->recorder, node, "Normal", "Starting", "Starting kubelet.");
        for (size_t i = 0; i < TH_ARRAY_LEN(reasons); i++) {
            th_event_record(a->recorder, node, "Normal", reasons[i], "Node %s status is now: %s", a->o.name,
                            reasons[i]);
        }
    }
    th_json_unref(*last);
    *last = th_steal(&now);
    *last_ms = th_mono_ms();
    atomic_store(&a->node_ready, true);
    return 0;
}

static int renew_lease(struct agent *a, struct th_err *err)
{
    char now[TH_TIME_LEN];
    (void)th_time_format_micro(th_now_us(), now);
    TH_AUTO(th_json) struct th_json *patch = th_json_build(
        "{'spec':{'holderIdentity':%s,'leaseDurationSeconds':%d,'renewTime':%s}}", a->o.name,
        (int64_t)LEASE_DURATION_S, now);
    struct th_patch_opts o = {.kind = TH_PATCH_MERGE_RFC7386};
    int r = th_client_patch(a->client, TH_GVR_LEASES, "kube-node-lease", a->o.name, NULL, &o, patch, NULL, err);
    if (r != -TH_R_NOT_FOUND) {
        return r;
    }
    th_err_done(err);
    TH_AUTO(th_json) struct th_json *node = NULL;
    TH_TRY(th_client_get(a->client, TH_GVR_NODES, NULL, a->o.name, &node, err));
    TH_AUTO(th_json) struct th_json *lease = th_json_build(
        "{'apiVersion':'coordination.k8s.io/v1','kind':'Lease','metadata':{'name':%s,'namespace':"
        "'kube-node-lease','ownerReferences':[{'apiVersion':'v1','kind':'Node','name':%s,'uid':%s}]},"
        "'spec':{'holderIdentity':%s,'leaseDurationSeconds':%d,'renewTime':%s}}",
        a->o.name, a->o.name, th_json_path_str(node, "metadata.uid"), a->o.name,
        (int64_t)LEASE_DURATION_S, now);
    return th_client_create(a->client, TH_GVR_LEASES, "kube-node-lease", lease, NULL, err);
}

static void *heartbeat(void *arg)
{
    struct agent *a = arg;
    struct th_json *last = NULL;
    int64_t last_ms = 0, wait = 0;
    bool warned = false;
    pthread_mutex_lock(&hb.mu);
    while (!hb.stop) {
        if (wait > 0 && !hb.poked) {
            struct timespec ts;
            clock_gettime(CLOCK_REALTIME, &ts);
            ts.tv_sec += wait / 1000;
            ts.tv_nsec += (wait % 1000) * 1000000;
            if (ts.tv_nsec >= 1000000000) {
                ts.tv_sec++;
                ts.tv_nsec -= 1000000000;
            }
            (void)pthread_cond_timedwait(&hb.cond, &hb.mu, &ts);
            if (hb.stop) {
                break;
            }
        }
        hb.poked = false;
        pthread_mutex_unlock(&hb.mu);
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        int r = write_status(a, &last, &last_ms, &err);
        r = r < 0 ? r : renew_lease(a, &err);
        if (r < 0 && !warned) {
            th_warn(NODE_MOD, "heartbeat failed", "err=%s", th_log_q(err.msg));
        }
        warned = r < 0;
        wait = r < 0 ? 500 : LEASE_MS;
        pthread_mutex_lock(&hb.mu);
    }
    pthread_mutex_unlock(&hb.mu);
    th_json_unref(last);
    return NULL;
}

int node_status_start(struct agent *a, struct th_err *err)
{
    if (!a->client) {
        return 0;
    }
    int e = pthread_create(&hb.thread, NULL, heartbeat, a);
    if (e != 0) {
        return th_fail_errno(err, e, TH_R_INTERNAL, "starting a thread");
    }
    hb.running = true;
    return 0;
}

void node_status_poke(void)
{
    pthread_mutex_lock(&hb.mu);
    hb.poked = true;
    pthread_cond_signal(&hb.cond);
    pthread_mutex_unlock(&hb.mu);
}

void node_status_stop(struct agent *a)
{
    (void)a;
    if (!hb.running) {
        return;
    }
    pthread_mutex_lock(&hb.mu);
    hb.stop = true;
    pthread_cond_signal(&hb.cond);
    pthread_mutex_unlock(&hb.mu);
    pthread_join(hb.thread, NULL);
    hb.running = false;
}
