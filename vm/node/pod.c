/* The pod worker: one pass over one pod.
 *
 * pod_sync is level-based. It looks at what is wanted (the newest object from the API server or the
 * manifest folder), at what is (exit files, crun, the sandbox's mounts) and takes the next steps; it
 * never waits for anything that can take long on its own (a grace period, a hook, a back-off) but
 * asks to be called again. The keyed queue makes sure that one pod is in one worker at a time, so
 * everything in struct pod below "the worker's alone" needs no lock. Whatever kicks a pod (exit of a
 * container, probe result, change of the object, timer) carries no information: a lost or doubled
 * kick costs at most time.
 *
 *   wanted:   volumes -> sandbox -> init containers one by one (sidecars stay) -> app containers
 *   ended:    all app containers ended for good -> sidecars stopped -> sandbox removed, logs kept
 *   deleted:  containers stopped (grace period) -> sandbox, volumes, groups removed -> last status
 *             -> DELETE with grace 0 -> object gone -> folder and logs removed
 *
 * After kill -9 of the agent, pod_first_look reads the folder (podstate.c) and goes on from there. */
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "vm/node/agent.h"

#include <stdarg.h>

#define BACKOFF_MS 10000
#define BACKOFF_MAX_MS 300000
#define BACKOFF_FORGET_MS 600000
#define EVICTION_GRACE_S 1
#define CRITICAL_PRIORITY 2000000000

const char *pod_display(const struct pod *p, char buf[512])
{
    (void)snprintf(buf, 512, "%s_%s(%s)", p->name, p->ns, p->uid);
    return buf;
}

struct ctr *pod_ctr(struct pod *p, const char *name)
{
    for (size_t i = 0; i < p->n_ctrs; i++) {
        if (th_streq(p->ctrs[i].name, name)) {
            return &p->ctrs[i];
        }
    }
    return NULL;
}

void pod_event(struct pod *p, const char *type, const char *reason, const char *ctr,
               const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    th_autofree char *msg = th_xvasprintf(fmt, ap);
    va_end(ap);
    th_log(th_streq(type, "Warning") ? TH_LOG_WARN : TH_LOG_INFO, NODE_MOD, "event",
           "pod=%s/%s reason=%s message=%s", p->ns, p->name, reason, th_log_q(msg));
    if (!p->a->recorder || p->is_static) {
        return;
    }
    TH_AUTO(th_json) struct th_json *ref = th_json_build(
        "{'apiVersion':'v1','kind':'Pod','metadata':{'name':%s,'namespace':%s,'uid':%s}}", p->name,
        p->ns, p->uid);
    const char *rv = th_json_path_str(p->obj, "metadata.resourceVersion");
    if (rv) {
        th_json_path_set_str(ref, "metadata.resourceVersion", rv);
    }
    struct ctr *c = ctr ? pod_ctr(p, ctr) : NULL;
    if (c) {
        th_json_set(ref, "fieldPath", th_json_stringf("spec.%s{%s}", ctr_list(c), ctr));
    }
    th_event_record_at(p->a->recorder, ref, th_json_path_str(ref, "fieldPath"), type, reason, "%s", msg);
}

/* ---- the object ---- */

static void ctr_free_contents(struct ctr *c)
{
    probes_stop(c);
    inst_done(&c->cur);
    inst_done(&c->last);
    th_json_unref(c->wanted);
    free(c->name);
    free(c->wait_reason);
    free(c->wait_message);
    free(c->stop_reason);
    free(c->pull_error);
    free(c->pull_image);
}

void pod_free_contents(struct pod *p)
{
    for (size_t i = 0; i < p->n_ctrs; i++) {
        ctr_free_contents(&p->ctrs[i]);
    }
    free(p->ctrs);
    th_json_unref(p->obj);
    th_json_unref(p->status);
    th_json_unref(p->allocated);
    th_json_unref(p->resize_pending);
    th_json_unref(p->resize_progress);
    free(p->end_reason);
    free(p->end_message);
    free(p->ip);
    free(p->volumes_error);
    free(p->sandbox_error);
    free(p->pushed_status);
}

static const char *const LISTS[] = {"initContainers", "containers", "ephemeralContainers"};

const char *ctr_list(const struct ctr *c)
{
    return c->kind == CTR_APP ? LISTS[1] : c->kind == CTR_EPHEMERAL ? LISTS[2] : LISTS[0];
}

/* A struct ctr for each container of the object that has none yet (only ephemeral ones come later), and
 * each pointed to its spec in this object. */
static void take_ctrs(struct pod *p)
{
    size_t n = 0;
    for (size_t l = 0; l < TH_ARRAY_LEN(LISTS); l++) {
        n += th_json_len(th_json_get(th_json_get(p->obj, "spec"), LISTS[l]));
    }
    if (n > p->n_ctrs || !p->ctrs) {
        struct ctr *more = th_xcalloc(n ? n : 1, sizeof(*more));
        if (p->n_ctrs) {
            memcpy(more, p->ctrs, p->n_ctrs * sizeof(*more));
        }
        free(p->ctrs);
        p->ctrs = more;
    }
    for (size_t l = 0; l < TH_ARRAY_LEN(LISTS); l++) {
        struct th_json *cs = th_json_get(th_json_get(p->obj, "spec"), LISTS[l]);
        for (size_t i = 0; i < th_json_len(cs); i++) {
            struct th_json *spec = th_json_at(cs, i);
            const char *name = th_json_path_str(spec, "name");
            struct ctr *c = pod_ctr(p, name ? name : "");
            if (!c && p->n_ctrs < n) {
                c = &p->ctrs[p->n_ctrs++];
                c->pod = p;
                c->name = th_xstrdup(name ? name : "");
                c->kind = l == 1   ? CTR_APP
                          : l == 2 ? CTR_EPHEMERAL
                          : th_streq(th_json_path_str(spec, "restartPolicy"), "Always") ? CTR_SIDECAR
                                                                                        : CTR_INIT;
            }
            if (c) {
                c->spec = spec;
            }
        }
    }
}

static void take_hooks(struct pod *p, struct th_strv *hooks)
{
    for (size_t i = 0; i < hooks->n; i++) {
        th_autostrv struct th_strv w = TH_STRV_INIT;
        th_strv_split(&w, hooks->v[i], ' ');
        struct ctr *c = w.n > 1 ? pod_ctr(p, w.v[1]) : NULL;
        if (!c) {
            continue;
        }
        if (th_streq(w.v[0], "pre")) {
            c->prestop_running = false;
        } else if (c->cur.id && w.n > 2 && th_streq(w.v[2], c->cur.id)) {
            c->cur.hook_done = true;
            (void)inst_save(&c->cur, NULL);
            if (th_streq(w.v[0], "postfail")) {
                th_autofree char *m = th_xasprintf("FailedPostStartHook");
                ctr_stop_begin(p, c, p->grace_s, m);
            }
        }
    }
}

/* false: nothing is known about this pod any more. */
static bool take_inbox(struct pod *p, bool *ret_gone)
{
    pthread_mutex_lock(&p->mu);
    th_autofree char *text = th_steal(&p->inbox);
    *ret_gone = p->gone;
    th_autostrv struct th_strv hooks = p->finished_hooks;
    p->finished_hooks = (struct th_strv)TH_STRV_INIT;
    if (p->resync_status) {
        p->resync_status = false;
        free(p->pushed_status);
        p->pushed_status = NULL;
    }
    pthread_mutex_unlock(&p->mu);
    if (text) {
        TH_AUTO(th_json) struct th_json *o = NULL;
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        if (th_json_parse(text, strlen(text), NULL, &o, &err) < 0) {
            th_error(NODE_MOD, "pod object not readable", "pod=%s err=%s", p->uid, th_log_q(err.msg));
        } else {
            th_json_unref(p->obj);
            p->obj = th_steal(&o);
            take_ctrs(p);
            p->saved = false;
            p->fresh_obj = true;
            if (p->volumes_refresh_at) { /* what the volumes show may have changed with it */
                p->volumes_refresh_at = th_mono_ms();
            }
        }
    }
    if (p->obj) {
        p->host_network = th_json_path_bool(p->obj, "spec.hostNetwork", false);
        p->grace_s = th_json_path_int(p->obj, "metadata.deletionGracePeriodSeconds",
                                      th_json_path_int(p->obj, "spec.terminationGracePeriodSeconds", 30));
        take_hooks(p, &hooks);
    }
    return p->obj != NULL;
}

static void save(struct pod *p)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (pod_save(p, &err) < 0) {
        th_warn(NODE_MOD, "pod not saved", "pod=%s/%s err=%s", p->ns, p->name, th_log_q(err.msg));
    } else {
        p->saved = true;
    }
}

static void pod_first_look(struct pod *p)
{
    if (p->loaded) {
        return;
    }
    p->loaded = true;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (pod_load(p, &err) < 0) {
        th_warn(NODE_MOD, "pod's state not readable", "pod=%s/%s err=%s", p->ns, p->name,
                th_log_q(err.msg));
    }
    if (p->start_ms == 0) {
        p->start_ms = th_now_ms();
    }
    if (th_streq(th_json_path_str(p->obj, "status.phase"), "Succeeded") ||
        th_streq(th_json_path_str(p->obj, "status.phase"), "Failed")) {
        p->rejected = p->rejected || !th_io_exists(p->dir); /* ended before we knew it */
    }
}

/* ---- containers ---- */

/* restartPolicyRules: does one of them want a container that ended like this started again? */
static bool rule_restarts(const struct ctr *c, int exit_code)
{
    const struct th_json *rules = th_json_get(c->spec, "restartPolicyRules");
    for (size_t i = 0; i < th_json_len(rules); i++) {
        const struct th_json *rule = th_json_at(rules, i), *codes = th_json_get(rule, "exitCodes");
        const struct th_json *values = th_json_get(codes, "values");
        bool listed = false;
        for (size_t k = 0; k < th_json_len(values); k++) {
            listed = listed || th_json_as_int(th_json_at(values, k), -1) == exit_code;
        }
        bool in = th_streq(th_json_path_str(codes, "operator"), "In");
        if (codes && listed == in) {
            return th_streq(th_json_path_str(rule, "action"), "Restart"); /* the first that matches counts */
        }
    }
    return false;
}

bool pod_restartable(const struct pod *p, const struct ctr *c, int exit_code)
{
    if (c->restart_after_stop) {
        return true;
    }
    if (c->kind == CTR_SIDECAR || c->kind == CTR_EPHEMERAL) {
        return c->kind == CTR_SIDECAR;
    }
    const char *policy = th_json_path_str(c->spec, "restartPolicy");
    if (policy && *policy && rule_restarts(c, exit_code)) {
        return true;
    }
    if (!policy || !*policy) {
        policy = th_json_path_str(p->obj, "spec.restartPolicy");
    }
    if (c->kind == CTR_INIT) {
        return exit_code != 0 && !th_streq(policy, "Never");
    }
    if (th_streq(policy, "Never")) {
        return false;
    }
    return !th_streq(policy, "OnFailure") || exit_code != 0;
}

static void forget_instance(struct pod *p, struct ctr *c)
{
    probes_stop(c);
    ctr_delete(p, &c->cur);
    ctr_purge(p, &c->last);
    c->last = c->cur;
    memset(&c->cur, 0, sizeof(c->cur));
    c->stop = STOP_NONE;
    c->prestop_running = false;
    c->restart_after_stop = false;
    c->started = c->ready = false;
}

/* Starts an instance that was created but never said to be started: the agent was killed in between.
 * Only with its conmon, though: one that could not tell the dead agent that the container is made has
 * ended, and nobody would see its output and its end. Such a container has never run; it is made anew. */
static void resume_created(struct pod *p, struct ctr *c)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (ctr_settle(p, c) != I_CREATED) {
        return;
    }
    if (rt_start(p->a, c->cur.id, &err) < 0) {
        th_warn(NODE_MOD, "container not started", "id=%s err=%s", c->cur.id, th_log_q(err.msg));
        ctr_purge(p, &c->cur);
        agent_kick_after(p->a, p->uid, 1000);
        return;
    }
    c->cur.state = I_RUNNING;
    c->cur.started_ms = th_now_ms();
    (void)inst_save(&c->cur, NULL);
    pod_event(p, "Normal", "Started", c->name, "Container started");
}

int64_t crash_backoff_until(int64_t backoff_ms, int64_t last_ms, int64_t finished_ms)
{
    bool forgotten = last_ms && finished_ms - last_ms > BACKOFF_FORGET_MS;
    return backoff_ms > 0 && !forgotten ? finished_ms + backoff_ms : 0;
}

int64_t crash_backoff_next(int64_t backoff_ms, int64_t last_ms, int64_t finished_ms)
{
    if (crash_backoff_until(backoff_ms, last_ms, finished_ms) == 0) {
        return BACKOFF_MS;
    }
    return backoff_ms * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : backoff_ms * 2;
}

/* The current instance has ended and may start again: now, or when the back-off is over. */
static void restart(struct pod *p, struct ctr *c)
{
    int64_t now = th_now_ms();
    int64_t until = crash_backoff_until(c->backoff_ms, c->backoff_last, c->cur.finished_ms);
    if (now < until) {
        char d[TH_TIME_LEN], pod[512];
        if (!c->in_backoff) {
            c->in_backoff = true;
            free(c->wait_reason);
            free(c->wait_message);
            c->wait_reason = th_xstrdup("CrashLoopBackOff");
            c->wait_message = th_xasprintf("back-off %s restarting failed container=%s pod=%s",
                                           th_duration_format(c->backoff_ms * 1000, d), c->name,
                                           pod_display(p, pod));
            pod_event(p, "Warning", "BackOff", c->name,
                      "Back-off restarting failed container %s in pod %s", c->name, pod_display(p, pod));
        }
        agent_kick_after(p->a, p->uid, until - now);
        return;
    }
    c->backoff_ms = crash_backoff_next(c->backoff_ms, c->backoff_last, c->cur.finished_ms);
    c->backoff_last = now;
    /* counted from the instance, so that an agent that is killed right here counts it once */
    c->restarts = c->cur.attempt + 1;
    forget_instance(p, c);
    save(p);
    ctr_start(p, c);
}

static void check_probes(struct pod *p, struct ctr *c)
{
    if (c->cur.state != I_RUNNING || c->stop != STOP_NONE || !c->cur.hook_done) {
        return;
    }
    probes_start(p, c);
    static const char *const names[] = {"startup", "liveness"};
    const enum probe_kind kinds[] = {PROBE_STARTUP, PROBE_LIVENESS};
    for (size_t k = 0; k < 2; k++) {
        struct prober *pr = c->probers[kinds[k]];
        if (!pr || prober_result(pr) != PROBE_FAILURE) {
            continue;
        }
        char msg[256];
        const char *field = k == 0 ? "startupProbe" : "livenessProbe";
        bool never = c->kind != CTR_SIDECAR &&
                     th_streq(th_json_path_str(p->obj, "spec.restartPolicy"), "Never");
        (void)snprintf(msg, sizeof(msg), "Container %s failed %s probe%s", c->name, names[k],
                       never ? "" : ", will be restarted");
        int64_t grace = th_json_path_int(th_json_get(c->spec, field), "terminationGracePeriodSeconds",
                                         th_json_path_int(p->obj, "spec.terminationGracePeriodSeconds", 30));
        ctr_stop_begin(p, c, grace, msg);
        return;
    }
    struct prober *su = c->probers[PROBE_STARTUP];
    c->started = !su || prober_result(su) == PROBE_SUCCESS;
    if (c->started) {
        probes_start(p, c); /* those that waited for it */
    }
    struct prober *rd = c->probers[PROBE_READINESS];
    bool has = th_json_get(c->spec, "readinessProbe") != NULL;
    c->ready = c->started && (!has || (rd && prober_result(rd) == PROBE_SUCCESS));
}

/* One step of one container that should run. */
static void ctr_step(struct pod *p, struct ctr *c)
{
    switch (c->cur.state) {
    case I_NONE:
        ctr_start(p, c);
        break;
    case I_CREATED:
        resume_created(p, c);
        break;
    case I_RUNNING:
        if (c->stop == STOP_NONE && !c->cur.hook_started) {
            ctr_post_start(p, c);
        }
        ctr_stop_step(p, c);
        break;
    case I_EXITED:
        c->started = c->ready = false;
        if (pod_restartable(p, c, c->cur.exit_code)) {
            restart(p, c);
        }
        break;
    }
    if (c->cur.state == I_RUNNING) {
        check_probes(p, c);
    }
}

/* true when some container has ended since the last look. */
static bool poll_all(struct pod *p)
{
    bool changed = false;
    for (size_t i = 0; i < p->n_ctrs; i++) {
        struct ctr *c = &p->ctrs[i];
        enum inst_state before = c->cur.state;
        inst_poll(p, c, &c->cur);
        if (c->cur.state == I_EXITED && before != I_EXITED) {
            changed = true;
            probes_stop(c);
            if (pod_shares_pids(p) || th_json_path_bool(p->obj, "spec.hostPID", false)) {
                /* no namespace of its own ended with it: what it left behind does not go by itself */
                (void)rt_kill(p->a, c->cur.id, "SIGKILL", true, NULL);
            }
            c->stop = STOP_NONE;
            c->started = c->ready = false;
            c->in_backoff = false;
            free(c->wait_reason);
            free(c->wait_message);
            c->wait_reason = c->wait_message = NULL;
        }
    }
    return changed;
}

/* true when the app containers may run. */
static bool run_init(struct pod *p)
{
    for (size_t i = 0; i < p->n_ctrs; i++) {
        struct ctr *c = &p->ctrs[i];
        if (c->kind == CTR_APP || c->kind == CTR_EPHEMERAL) {
            continue;
        }
        if (c->kind == CTR_INIT && (p->init_done || (c->cur.state == I_EXITED && c->cur.exit_code == 0))) {
            continue;
        }
        ctr_step(p, c);
        if (p->init_done) {
            continue;
        }
        if (c->kind == CTR_INIT) {
            return false;
        }
        if (!(c->cur.state == I_RUNNING && c->started)) {
            return false;
        }
    }
    if (!p->init_done) {
        p->init_done = true;
        save(p);
    }
    return true;
}

static void run_containers(struct pod *p)
{
    for (size_t i = 0; i < p->n_ctrs; i++) {
        if (p->ctrs[i].kind == CTR_EPHEMERAL) { /* they are for looking into init containers too */
            ctr_step(p, &p->ctrs[i]);
        }
    }
    if (!run_init(p)) {
        return;
    }
    for (size_t i = 0; i < p->n_ctrs; i++) {
        if (p->ctrs[i].kind == CTR_APP) {
            ctr_step(p, &p->ctrs[i]);
        }
    }
}

/* All that can end has ended, and nothing will start again. */
static bool pod_over(struct pod *p)
{
    size_t apps = 0, over = 0;
    for (size_t i = 0; i < p->n_ctrs; i++) {
        struct ctr *c = &p->ctrs[i];
        bool dead = c->cur.state == I_EXITED && !pod_restartable(p, c, c->cur.exit_code);
        if (c->kind == CTR_INIT && dead && c->cur.exit_code != 0) {
            return true;
        }
        if (c->kind == CTR_APP) {
            apps++;
            over += dead;
        }
    }
    return apps > 0 && over == apps;
}

static bool any_running(const struct pod *p)
{
    for (size_t i = 0; i < p->n_ctrs; i++) {
        if (p->ctrs[i].cur.state == I_RUNNING || p->ctrs[i].cur.state == I_CREATED) {
            return true;
        }
    }
    return false;
}

/* Apps first, then sidecars in reverse order; true when nothing runs any more. */
static bool stop_all(struct pod *p, int64_t grace_s)
{
    bool apps = false;
    for (size_t i = 0; i < p->n_ctrs; i++) {
        struct ctr *c = &p->ctrs[i];
        bool alive = c->cur.state == I_RUNNING || c->cur.state == I_CREATED;
        if (c->kind != CTR_SIDECAR && alive) {
            apps = true;
            ctr_stop_begin(p, c, grace_s, NULL);
            ctr_stop_step(p, c);
        }
    }
    for (size_t i = p->n_ctrs; i > 0 && !apps; i--) {
        struct ctr *c = &p->ctrs[i - 1];
        if (c->kind == CTR_SIDECAR && (c->cur.state == I_RUNNING || c->cur.state == I_CREATED)) {
            ctr_stop_begin(p, c, grace_s, NULL);
            ctr_stop_step(p, c);
            return false;
        }
    }
    return !any_running(p);
}

static void teardown(struct pod *p)
{
    if (p->torn_down) {
        return;
    }
    for (size_t i = 0; i < p->n_ctrs; i++) {
        probes_stop(&p->ctrs[i]);
        p->ctrs[i].ready = p->ctrs[i].started = false;
        ctr_delete(p, &p->ctrs[i].cur);
    }
    sandbox_remove(p);
    volumes_teardown(p);
    cg_pod_remove(p);
    p->sandbox_ready = p->volumes_ready = false;
    p->torn_down = true;
    th_info(NODE_MOD, "pod torn down", "pod=%s/%s uid=%s", p->ns, p->name, p->uid);
}

/* ---- sandbox and volumes ---- */

static bool ensure_sandbox(struct pod *p)
{
    if (p->sandbox_ready && sandbox_alive(p)) {
        return true;
    }
    if (p->sandbox_retry_at && th_mono_ms() < p->sandbox_retry_at) {
        agent_kick_after(p->a, p->uid, p->sandbox_retry_at - th_mono_ms());
        return false;
    }
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    bool had = p->ip != NULL, alive = sandbox_alive(p);
    if (had && !alive) {
        /* the machine was restarted, or someone removed it: everything starts over */
        bool started = false;
        for (size_t i = 0; i < p->n_ctrs; i++) {
            struct ctr *c = &p->ctrs[i];
            started = started || c->cur.state != I_NONE;
            if (c->cur.state == I_CREATED && ctr_settle(p, c) == I_CREATED) {
                ctr_purge(p, &c->cur);
            }
            if (c->cur.state == I_CREATED) {
                return false; /* ctr_settle calls again */
            }
            if (c->cur.state == I_RUNNING) {
                (void)rt_kill(p->a, c->cur.id, "SIGKILL", false, NULL);
                agent_kick_after(p->a, p->uid, 200);
                return false;
            }
        }
        if (started) {
            pod_event(p, "Normal", "SandboxChanged", NULL,
                      "Pod sandbox changed, it will be killed and re-created.");
        }
        p->init_done = false;
        for (size_t i = 0; i < p->n_ctrs; i++) {
            struct ctr *c = &p->ctrs[i];
            if (c->cur.state == I_EXITED) {
                c->restarts = c->cur.attempt + 1;
                c->backoff_ms = 0;
                forget_instance(p, c);
            }
        }
    }
    int r = 0;
    if (!th_json_path_bool(p->obj, "spec.hostUsers", true)) {
        r = th_fail(&err, TH_R_UNSUPPORTED, "user namespaces are not supported by this node");
    } else if (th_streq(th_json_path_str(p->obj, "spec.os.name"), "windows")) {
        r = th_fail(&err, TH_R_UNSUPPORTED, "this node runs Linux containers");
    } else {
        r = cg_pod_create(p, &err);
        r = r < 0 ? r : sandbox_ensure(p, &err);
        r = r < 0 ? r : sandbox_write_files(p, &err);
    }
    if (r < 0) {
        pod_event(p, "Warning", "FailedCreatePodSandBox", NULL, "Failed to create pod sandbox: %s", err.msg);
        free(p->sandbox_error);
        p->sandbox_error = th_xstrdup(err.msg);
        p->sandbox_retry_at = th_mono_ms() + 10000;
        agent_kick_after(p->a, p->uid, 10000);
        return false;
    }
    p->sandbox_ready = true;
    save(p);
    return true;
}

static bool ensure_volumes(struct pod *p)
{
    int64_t now = th_mono_ms();
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (p->volumes_ready) {
        if (p->volumes_refresh_at && now >= p->volumes_refresh_at && volumes_refresh(p, &err) < 0) {
            th_warn(NODE_MOD, "volumes not refreshed", "pod=%s/%s err=%s", p->ns, p->name,
                    th_log_q(err.msg));
        }
        if (p->volumes_refresh_at && p->volumes_refresh_at != INT64_MAX) {
            int64_t in = p->volumes_refresh_at - th_mono_ms();
            agent_kick_after(p->a, p->uid, in > 0 ? in : 1000);
        }
        return true;
    }
    if (p->volumes_retry_at && now < p->volumes_retry_at) {
        agent_kick_after(p->a, p->uid, p->volumes_retry_at - now);
        return false;
    }
    if (volumes_setup(p, &err) < 0) {
        /* 0.5 s, doubled up to 2 min: upstream's back-off of volume operations */
        int64_t wait = 500ll << (p->volumes_failures > 8 ? 8 : p->volumes_failures);
        p->volumes_failures++;
        p->volumes_retry_at = now + (wait > 122000 ? 122000 : wait);
        pod_event(p, "Warning", "FailedMount", NULL, "%s", err.msg);
        agent_kick_after(p->a, p->uid, p->volumes_retry_at - now);
        return false;
    }
    p->volumes_ready = true;
    p->volumes_failures = 0;
    return ensure_volumes(p);
}

/* ---- deletion ---- */

static void finish_deletion(struct pod *p, bool gone)
{
    teardown(p);
    if (!gone && p->a->client && !p->is_static) {
        status_publish(p);
        struct th_delete_opts o = TH_DELETE_OPTS_INIT;
        o.grace_s = 0;
        o.uid = p->uid;
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        int r = th_client_delete(p->a->client, TH_GVR_PODS, p->ns, p->name, &o, NULL, &err);
        if (r < 0 && r != -TH_R_NOT_FOUND && r != -TH_R_CONFLICT) {
            th_warn(NODE_MOD, "pod not deleted from the API server", "pod=%s/%s err=%s", p->ns, p->name,
                    th_log_q(err.msg));
            agent_kick_after(p->a, p->uid, 2000);
            return;
        }
    }
    for (size_t i = 0; i < p->n_ctrs; i++) {
        ctr_purge(p, &p->ctrs[i].cur);
        ctr_purge(p, &p->ctrs[i].last);
    }
    th_autofree char *logs = th_path_joinf(p->a->o.log_dir, "%s_%s_%s", p->ns, p->name, p->uid);
    (void)th_io_rm_rf(logs, NULL);
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (th_io_rm_rf(p->dir, &err) < 0) {
        th_warn(NODE_MOD, "pod's folder not removed", "dir=%s err=%s", p->dir, th_log_q(err.msg));
    }
    p->finished = true;
    agent_pod_forget(p->a, p);
    resize_retry_others(p->a);
}

static void end_by_agent(struct pod *p, const char *reason, const char *message)
{
    if (!p->end_reason) {
        p->end_reason = th_xstrdup(reason);
        p->end_message = th_xstrdup(message);
        save(p);
        pod_event(p, th_streq(reason, "DeadlineExceeded") ? "Normal" : "Warning", reason, NULL, "%s", message);
    }
}

/* What this node cannot enforce, as the kubelet's admission of a pod says it. */
static void check_admission(struct pod *p)
{
    static const char *const field = "securityContext.appArmorProfile.type";
    bool wanted = th_streq(th_json_path_str(th_json_get(p->obj, "spec"), field), "Localhost");
    for (size_t i = 0; i < p->n_ctrs; i++) {
        wanted = wanted || th_streq(th_json_path_str(p->ctrs[i].spec, field), "Localhost");
    }
    if (wanted && !p->end_reason && !th_io_exists("/sys/kernel/security/apparmor")) {
        end_by_agent(p, "AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host");
    }
    th_autofree char *why = p->end_reason ? NULL : sandbox_bad_sysctl(p);
    if (why) {
        th_autofree char *message = th_xasprintf("Pod was rejected: forbidden sysctl: %s", why);
        end_by_agent(p, "SysctlForbidden", message);
    }
}

/* The first look at a pod that nobody granted anything yet: is there room for it? */
static void check_room(struct pod *p)
{
    if (p->allocated || p->is_static || p->end_reason || p->ip ||
        th_json_path_int(p->obj, "spec.priority", 0) >= CRITICAL_PRIORITY) {
        return;
    }
    const char *reason = NULL;
    th_autofree char *why = room_for(p, &reason);
    if (why) {
        th_autofree char *message = th_xasprintf("Pod was rejected: %s", why);
        end_by_agent(p, reason, message);
    }
}

static void take_allocation(struct pod *p)
{
    if (p->fresh_obj) {
        p->fresh_obj = false;
        check_room(p);
        resize_take(p);
    }
}

/* Ended because the node runs out, or because the pod itself is over a limit of storage. */
static void check_eviction(struct pod *p)
{
    if (p->end_reason || pod_over(p)) {
        return;
    }
    pthread_mutex_lock(&p->mu);
    th_autofree char *why = th_steal(&p->evict);
    pthread_mutex_unlock(&p->mu);
    bool fresh = !p->status && !p->ip && !p->is_static &&
                 th_json_path_int(p->obj, "spec.priority", 0) < CRITICAL_PRIORITY;
    if (!why && fresh && atomic_load(&p->a->disk_pressure.on)) {
        why = th_xstrdup("The node had condition: [DiskPressure]. ");
    } else if (!why && fresh && atomic_load(&p->a->memory_pressure.on) &&
               th_streq(pod_qos(p->obj), "BestEffort")) {
        why = th_xstrdup("The node had condition: [MemoryPressure]. ");
    }
    if (why || pod_over_storage(p, &why)) {
        end_by_agent(p, "Evicted", why);
    }
}

static void check_deadline(struct pod *p)
{
    int64_t s = th_json_path_int(p->obj, "spec.activeDeadlineSeconds", 0);
    if (s <= 0 || p->end_reason || pod_over(p)) {
        return;
    }
    int64_t left = p->start_ms + s * 1000 - th_now_ms();
    if (left <= 0) {
        end_by_agent(p, "DeadlineExceeded", "Pod was active on the node longer than the specified deadline");
    } else {
        agent_kick_after(p->a, p->uid, left);
    }
}

void pod_sync(struct pod *p)
{
    bool gone = false;
    if (p->finished || !take_inbox(p, &gone)) {
        return;
    }
    pod_first_look(p);
    (void)poll_all(p);
    bool deleted = gone || th_json_path_str(p->obj, "metadata.deletionTimestamp");
    if (!deleted && !p->rejected) {
        take_allocation(p);
    }
    if (deleted) {
        p->terminating = true;
        if (!p->saved && !p->rejected) {
            save(p);
        }
        if (stop_all(p, p->grace_s)) {
            finish_deletion(p, gone);
        } else {
            status_publish(p);
        }
        return;
    }
    if (p->rejected) {
        return; /* ended before this agent had it; only its deletion concerns us */
    }
    if (!p->saved) {
        save(p);
    }
    check_admission(p);
    check_deadline(p);
    check_eviction(p);
    if (p->end_reason || pod_over(p)) {
        if (stop_all(p, th_streq(p->end_reason, "Evicted") ? EVICTION_GRACE_S : p->grace_s)) {
            teardown(p);
        }
        status_publish(p);
        if (p->torn_down && !p->freed) {
            p->freed = true;
            resize_retry_others(p->a);
        }
        return;
    }
    if (ensure_volumes(p) && ensure_sandbox(p)) {
        if (p->status == NULL) {
            status_publish(p); /* ContainerCreating is seen before a slow image is unpacked */
        }
        resize_step(p);
        run_containers(p);
        if (poll_all(p)) { /* a short-lived one has ended by now */
            agent_kick(p->a, p->uid);
        }
        if (!p->saved) {
            save(p);
        }
    }
    status_publish(p);
    if (p->freed) {
        p->freed = false;
        resize_retry_others(p->a);
    }
}
