/* The table of pods, and what kicks them.
 *
 * A pod enters the table when the API server (or the manifest folder) says that it belongs to this
 * node, or when its folder is found on disk at start; it leaves when its worker has nothing left to
 * do. Sources only put the newest object into the pod's inbox and add its uid to the keyed queue;
 * workers take it from there (pod.c).
 *
 * Before the informer has synced, pods found on disk run on as they are: an API server that is away
 * stops nothing. After it has, those that the API server does not know are stopped. */
#include "base/clock.h"
#include "base/io.h"
#include "base/limits.h"
#include "base/log.h"
#include "vm/node/agent.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/inotify.h>

#define RESYNC_MS 60000
#define LOG_CHECK_MS 10000
#define FIRST_LOOK_MS 3000

void pod_ref(struct pod *p)
{
    atomic_fetch_add(&p->refs, 1);
}

void ctr_views_free(struct ctr_view *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(v[i].name);
        free(v[i].id);
        free(v[i].dir);
        free(v[i].log_path);
        free(v[i].prev_log_path);
        free(v[i].wait_reason);
        free(v[i].cgroup);
    }
    free(v);
}

void pod_unref(struct pod *p)
{
    if (!p || atomic_fetch_sub(&p->refs, 1) != 1) {
        return;
    }
    pod_free_contents(p);
    ctr_views_free(p->views, p->n_views);
    free(p->inbox);
    free(p->pub_status);
    free(p->view.cgroup);
    free(p->view.ports);
    free(p->evict);
    free(p->pub_ip);
    th_strv_done(&p->finished_hooks);
    pthread_mutex_destroy(&p->mu);
    free(p->uid);
    free(p->ns);
    free(p->name);
    free(p->dir);
    free(p);
}

static void pod_unref_void(void *p)
{
    pod_unref(p);
}

struct pod *agent_pod_find(struct agent *a, const char *uid)
{
    pthread_mutex_lock(&a->mu);
    struct pod *p = th_hmap_get(&a->pods, uid);
    if (p) {
        pod_ref(p);
    }
    pthread_mutex_unlock(&a->mu);
    return p;
}

/* Just after a start of the agent, pods are in the table before their workers have looked at them. */
static void wait_looked_at(struct pod *p)
{
    for (int64_t until = th_mono_ms() + FIRST_LOOK_MS; th_mono_ms() < until;) {
        pthread_mutex_lock(&p->mu);
        bool known = p->views != NULL;
        pthread_mutex_unlock(&p->mu);
        if (known) {
            return;
        }
        th_sleep_ms(10);
    }
}

struct pod *agent_pod_by_name(struct agent *a, const char *ns, const char *name)
{
    struct pod *found = NULL;
    pthread_mutex_lock(&a->mu);
    struct th_hmap_entry *e;
    for (size_t it = 0; (e = th_hmap_next(&a->pods, &it));) {
        struct pod *p = e->value;
        if (th_streq(p->name, name) && th_streq(p->ns, ns)) {
            pthread_mutex_lock(&p->mu);
            bool gone = p->gone;
            pthread_mutex_unlock(&p->mu);
            if (!found || !gone) {
                found = p;
            }
        }
    }
    if (found) {
        pod_ref(found);
    }
    pthread_mutex_unlock(&a->mu);
    if (found) {
        wait_looked_at(found);
    }
    return found;
}

void agent_kick(struct agent *a, const char *uid)
{
    th_wq_add(a->wq, uid);
}

void agent_kick_after(struct agent *a, const char *uid, int64_t ms)
{
    th_wq_add_after(a->wq, uid, ms < 1 ? 1 : ms);
}

void agent_register_ctr(struct agent *a, const char *id, const char *uid)
{
    pthread_mutex_lock(&a->mu);
    if (uid) {
        th_hmap_set(&a->by_ctr, id, th_xstrdup(uid));
    } else {
        free(th_hmap_remove(&a->by_ctr, id));
    }
    pthread_mutex_unlock(&a->mu);
}

static struct pod *pod_new(struct agent *a, const char *uid, const char *ns, const char *name)
{
    struct pod *p = TH_NEW(struct pod);
    atomic_init(&p->refs, 1);
    p->a = a;
    p->uid = th_xstrdup(uid);
    p->ns = th_xstrdup(ns);
    p->name = th_xstrdup(name);
    p->dir = th_path_joinf(a->o.data, "pods/%s", uid);
    pthread_mutex_init(&p->mu, NULL);
    return p;
}

static bool safe_part(const char *s)
{
    return s && *s && !strchr(s, '/') && !th_streq(s, ".") && !th_streq(s, "..") && strlen(s) < 254;
}

void agent_pod_desired(struct agent *a, const char *uid, const struct th_json *obj, bool is_static)
{
    const char *ns = th_json_path_str(obj, "metadata.namespace");
    const char *name = th_json_path_str(obj, "metadata.name");
    if (!safe_part(uid) || (obj && (!safe_part(ns) || !safe_part(name)))) {
        th_warn(NODE_MOD, "pod with an impossible name left out", NULL);
        return;
    }
    pthread_mutex_lock(&a->mu);
    struct pod *p = th_hmap_get(&a->pods, uid);
    if (!p && obj) {
        p = pod_new(a, uid, ns, name);
        p->is_static = is_static;
        th_hmap_set(&a->pods, uid, p);
    }
    if (p) {
        pthread_mutex_lock(&p->mu);
        if (obj) {
            free(p->inbox);
            p->inbox = th_json_to_string(obj);
        }
        p->gone = obj == NULL;
        pthread_mutex_unlock(&p->mu);
    }
    pthread_mutex_unlock(&a->mu);
    if (p) {
        agent_kick(a, uid);
    }
}

void agent_pod_forget(struct agent *a, struct pod *p)
{
    pthread_mutex_lock(&a->mu);
    bool ours = th_hmap_get(&a->pods, p->uid) == p;
    if (ours) {
        (void)th_hmap_remove(&a->pods, p->uid);
    }
    pthread_mutex_unlock(&a->mu);
    if (ours) {
        pod_unref(p);
    }
}

static void *worker(void *arg)
{
    struct agent *a = arg;
    char *uid;
    while ((uid = th_wq_get(a->wq))) {
        TH_AUTO(pod) struct pod *p = agent_pod_find(a, uid);
        if (p) {
            pod_sync(p);
        }
        th_wq_done(a->wq, uid);
        free(uid);
    }
    return NULL;
}

/* ---- start: what is on disk ---- */

static int load_pod(struct agent *a, const char *uid, struct th_err *err)
{
    th_autofree char *path = th_path_joinf(a->o.data, "pods/%s/pod.json", uid);
    th_autofree char *spath = th_path_joinf(a->o.data, "pods/%s/state.json", uid);
    th_autobuf struct th_buf b = TH_BUF_INIT, sb = TH_BUF_INIT;
    TH_AUTO(th_json) struct th_json *o = NULL;
    TH_AUTO(th_json) struct th_json *st = NULL;
    TH_TRY(th_io_read_file(path, TH_LIMIT_CONFIG_FILE_B, &b, err));
    TH_TRY(th_json_parse(b.p, b.n, NULL, &o, err));
    bool is_static = false;
    if (th_io_read_file(spath, TH_LIMIT_CONFIG_FILE_B, &sb, NULL) >= 0 &&
        th_json_parse(sb.p, sb.n, NULL, &st, NULL) >= 0) {
        is_static = th_json_path_bool(st, "static", false);
    }
    agent_pod_desired(a, uid, o, is_static);
    return 0;
}

/* Containers that no pod's folder knows: made by an agent that died before it wrote. None should
 * exist, since the record is written first; a lost folder is the only way. */
static void drop_strangers(struct agent *a)
{
    th_autostrv struct th_strv ids = TH_STRV_INIT;
    struct th_hmap known;
    th_hmap_init(&known, NULL);
    th_autofree char *pods = th_path_join(a->o.data, "pods");
    th_autostrv struct th_strv uids = TH_STRV_INIT;
    list_or_none(pods, &uids);
    for (size_t i = 0; i < uids.n; i++) {
        th_autofree char *cd = th_path_joinf(pods, "%s/containers", uids.v[i]);
        th_autostrv struct th_strv names = TH_STRV_INIT;
        if (!th_io_exists(cd) || th_io_list(cd, &names, NULL) < 0) {
            continue;
        }
        for (size_t k = 0; k < names.n; k++) {
            th_autofree char *d = th_path_join(cd, names.v[k]);
            th_autostrv struct th_strv nums = TH_STRV_INIT;
            list_or_none(d, &nums);
            for (size_t m = 0; m < nums.n; m++) {
                th_autofree char *one = th_path_join(d, nums.v[m]);
                struct inst i2 = {0};
                if (inst_load(one, &i2, NULL) >= 0) {
                    th_hmap_set(&known, i2.id, NULL);
                    inst_done(&i2);
                }
            }
        }
    }
    if (rt_list(a, &ids, NULL) >= 0) {
        for (size_t i = 0; i < ids.n; i++) {
            if (!th_hmap_has(&known, ids.v[i])) {
                th_warn(NODE_MOD, "container of no known pod removed", "id=%s", ids.v[i]);
                (void)rt_delete(a, ids.v[i], NULL);
            }
        }
    }
    /* leases of containers that are gone */
    th_autostrv struct th_strv leases = TH_STRV_INIT;
    if (th_images_leases(a->images, &leases, NULL) >= 0) {
        for (size_t i = 0; i < leases.n; i++) {
            if (strlen(leases.v[i]) == 64 && !th_hmap_has(&known, leases.v[i])) {
                (void)th_images_unlease(a->images, leases.v[i], NULL);
            }
        }
    }
    th_hmap_done(&known);
}

int agent_load(struct agent *a, struct th_err *err)
{
    pthread_mutex_init(&a->mu, NULL);
    th_hmap_init(&a->pods, pod_unref_void);
    th_hmap_init(&a->by_ctr, free);
    a->wq = th_wq_new(200, 10000);
    th_autofree char *pods = th_path_join(a->o.data, "pods");
    const char *dirs[] = {a->o.data, pods, a->o.run, a->exit_dir, a->crun_root, a->attach_dir, a->ns_dir,
                          a->o.log_dir};
    for (size_t i = 0; i < TH_ARRAY_LEN(dirs); i++) {
        TH_TRY(th_io_mkdir_p(dirs[i], 0755, err));
    }
    th_autostrv struct th_strv uids = TH_STRV_INIT;
    TH_TRY(th_io_list(pods, &uids, err));
    for (size_t i = 0; i < uids.n; i++) {
        TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
        if (load_pod(a, uids.v[i], &e) < 0) {
            th_warn(NODE_MOD, "pod's folder not readable, removed", "uid=%s err=%s", uids.v[i],
                    th_log_q(e.msg));
            th_autofree char *d = th_path_join(pods, uids.v[i]);
            (void)th_io_rm_rf(d, NULL);
        }
    }
    drop_strangers(a);
    sandbox_prune(a, &uids);
    return th_net_restore(a->net, (const char *const *)uids.v, uids.n, err);
}

/* ---- sources of kicks ---- */

static void on_exit_file(struct th_ev_src *src, int fd, uint32_t events, void *arg)
{
    (void)src;
    (void)events;
    struct agent *a = arg;
    char buf[8192] __attribute__((aligned(8)));
    ssize_t n = read(fd, buf, sizeof(buf));
    for (ssize_t off = 0; off + (ssize_t)sizeof(struct inotify_event) <= n;) {
        struct inotify_event *e = (struct inotify_event *)(void *)(buf + off);
        off += (ssize_t)sizeof(*e) + (ssize_t)e->len;
        if (e->len == 0) {
            continue;
        }
        pthread_mutex_lock(&a->mu);
        th_autofree char *uid = th_xstrdup(th_hmap_get(&a->by_ctr, e->name));
        pthread_mutex_unlock(&a->mu);
        if (uid) {
            agent_kick(a, uid);
        }
    }
}

static void on_resync(struct th_ev_src *src, void *arg)
{
    (void)src;
    struct agent *a = arg;
    pthread_mutex_lock(&a->mu);
    struct th_hmap_entry *e;
    for (size_t it = 0; (e = th_hmap_next(&a->pods, &it));) {
        th_wq_add(a->wq, e->key);
    }
    pthread_mutex_unlock(&a->mu);
}

static void on_log_check(struct th_ev_src *src, void *arg)
{
    (void)src;
    logs_rotate(arg);
}

static void on_pod(void *arg, const struct th_json *old, const struct th_json *now)
{
    struct agent *a = arg;
    const char *uid = th_json_path_str(now ? now : old, "metadata.uid");
    if (!uid) {
        return;
    }
    const char *old_uid = th_json_path_str(old, "metadata.uid");
    if (now && old_uid && !th_streq(old_uid, uid)) {
        agent_pod_desired(a, old_uid, NULL, false);
    }
    agent_pod_desired(a, uid, now, false);
}

struct seen {
    struct th_hmap uids;
};

static bool note_uid(void *arg, struct th_json *obj)
{
    const char *uid = th_json_path_str(obj, "metadata.uid");
    if (uid) {
        th_hmap_set(&((struct seen *)arg)->uids, uid, NULL);
    }
    return true;
}

/* The first full list is here: what it does not name does not belong here any more. */
static void on_pods_synced(void *arg)
{
    struct agent *a = arg;
    struct seen s;
    th_hmap_init(&s.uids, NULL);
    th_informer_each(a->pod_inf, NULL, note_uid, &s);
    th_autostrv struct th_strv gone = TH_STRV_INIT;
    pthread_mutex_lock(&a->mu);
    struct th_hmap_entry *e;
    for (size_t it = 0; (e = th_hmap_next(&a->pods, &it));) {
        struct pod *p = e->value;
        if (!p->is_static && !th_hmap_has(&s.uids, e->key)) {
            th_strv_add(&gone, e->key);
        }
    }
    pthread_mutex_unlock(&a->mu);
    for (size_t i = 0; i < gone.n; i++) {
        agent_pod_desired(a, gone.v[i], NULL, false);
    }
    th_hmap_done(&s.uids);
    th_info(NODE_MOD, "pods synced", "gone=%zu", gone.n);
}

static void on_synced_wait(struct th_ev_src *src, void *arg)
{
    struct agent *a = arg;
    if (th_informer_synced(a->pod_inf)) {
        on_pods_synced(a);
        th_ev_remove(src);
    }
}

static int start_informers(struct agent *a, struct th_err *err)
{
    th_autofree char *sel = th_xasprintf("spec.nodeName=%s", a->o.name);
    struct th_informer_opts svc = {.gvr = TH_GVR_SERVICES, .arg = a};
    TH_TRY(th_informer_start(a->client, &svc, &a->svc_inf, err));
    struct th_informer_opts o = {.gvr = TH_GVR_PODS, .field_selector = sel, .on_event = on_pod, .arg = a};
    TH_TRY(th_informer_start(a->client, &o, &a->pod_inf, err));
    (void)th_ev_add_timer(a->ev, 50, 100, on_synced_wait, a);
    return 0;
}

int agent_start(struct agent *a, struct th_err *err)
{
    a->inotify_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (a->inotify_fd < 0 ||
        inotify_add_watch(a->inotify_fd, a->exit_dir, IN_CLOSE_WRITE | IN_MOVED_TO) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "watching %s", a->exit_dir);
    }
    (void)th_ev_add_fd(a->ev, a->inotify_fd, EPOLLIN, on_exit_file, a);
    (void)th_ev_add_timer(a->ev, RESYNC_MS, RESYNC_MS, on_resync, a);
    (void)th_ev_add_timer(a->ev, LOG_CHECK_MS, LOG_CHECK_MS, on_log_check, a);
    for (a->n_workers = 0; a->n_workers < TH_ARRAY_LEN(a->workers); a->n_workers++) {
        int e = pthread_create(&a->workers[a->n_workers], NULL, worker, a);
        if (e != 0) {
            return th_fail_errno(err, e, TH_R_INTERNAL, "starting a worker");
        }
    }
    TH_TRY(eviction_start(a, err));
    if (a->client) {
        TH_TRY(start_informers(a, err));
    }
    return a->o.manifest_dir ? manifests_start(a, err) : 0;
}

void agent_stop(struct agent *a)
{
    atomic_store(&a->stopping, true);
    eviction_stop();
    if (a->pod_inf) {
        th_informer_stop(a->pod_inf);
    }
    if (a->svc_inf) {
        th_informer_stop(a->svc_inf);
    }
    if (a->wq) {
        th_wq_shutdown(a->wq);
    }
    for (size_t i = 0; i < a->n_workers; i++) {
        pthread_join(a->workers[i], NULL);
    }
    th_hmap_done(&a->pods);
    th_hmap_done(&a->by_ctr);
    if (a->wq) {
        th_wq_free(a->wq);
    }
}
