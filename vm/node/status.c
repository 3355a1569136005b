/* status of a pod, as the kubelet writes it: phase, conditions, one status per container.
 *
 * status_build is a pure function of struct pod (and the status before, for transition times).
 * status_publish gives the result to the other threads (views for logs and exec, pod IP for
 * `/pods`), and sends it to the API server as a merge patch when it differs from what was taken
 * last. A patch carries the pod's uid, so it never lands on a namesake. Conditions that others own
 * (readiness gates, PodScheduled, DisruptionTarget) are taken over from the object. */
#include "base/clock.h"
#include "base/log.h"
#include "images/reference.h"
#include "vm/node/agent.h"

#include <sys/stat.h>

static void set_time(struct th_json *o, const char *name, int64_t ms)
{
    char t[TH_TIME_LEN];
    if (ms > 0) {
        th_json_set_str(o, name, th_time_format(ms, t));
    }
}

/* ---- containers ---- */

static struct th_json *terminated(const struct inst *i)
{
    struct th_json *t = th_json_object();
    th_json_set_int(t, "exitCode", i->exit_code);
    if (i->signal) {
        th_json_set_int(t, "signal", i->signal);
    }
    th_json_set_str(t, "reason", i->reason ? i->reason : "Error");
    if (i->message && *i->message) {
        th_json_set_str(t, "message", i->message);
    }
    set_time(t, "startedAt", i->started_ms > 0 ? i->started_ms : 1); /* never ran: the epoch */
    set_time(t, "finishedAt", i->finished_ms);
    th_json_set(t, "containerID", th_json_stringf("crun://%s", i->id));
    struct th_json *o = th_json_object();
    th_json_set(o, "terminated", t);
    return o;
}

static struct th_json *waiting(const struct pod *p, const struct ctr *c)
{
    bool has_init = th_json_len(th_json_path(p->obj, "spec.initContainers")) > 0;
    struct th_json *w = th_json_object();
    th_json_set_str(w, "reason", c->wait_reason ? c->wait_reason
                                 : has_init     ? "PodInitializing"
                                                : "ContainerCreating");
    if (c->wait_message) {
        th_json_set_str(w, "message", c->wait_message);
    }
    struct th_json *o = th_json_object();
    th_json_set(o, "waiting", w);
    return o;
}

static bool shown_waiting(const struct ctr *c)
{
    return c->cur.state == I_NONE || c->cur.state == I_CREATED ||
           (c->cur.state == I_EXITED && c->wait_reason && !c->pod->terminating && !c->pod->end_reason &&
            pod_restartable(c->pod, c, c->cur.exit_code));
}

static void add_resources(struct th_json *o, const struct ctr *c)
{
    const struct th_json *r = th_json_get(c->spec, "resources");
    if (th_json_len(th_json_get(r, "requests")) > 0) {
        th_json_set(o, "allocatedResources", th_json_dup(th_json_get(r, "requests")));
    }
    r = c->cur.resources ? c->cur.resources : r;
    struct th_json *copy = th_json_object();
    static const char *const keys[] = {"limits", "requests"};
    for (size_t i = 0; i < 2; i++) {
        if (th_json_len(th_json_get(r, keys[i])) > 0) {
            th_json_set(copy, keys[i], th_json_dup(th_json_get(r, keys[i])));
        }
    }
    th_json_set(o, "resources", copy);
}

static void add_mounts(struct th_json *o, const struct ctr *c)
{
    struct th_json *m = th_json_get(c->spec, "volumeMounts");
    if (th_json_len(m) == 0) {
        return;
    }
    struct th_json *l = th_json_array();
    for (size_t i = 0; i < th_json_len(m); i++) {
        struct th_json *s = th_json_at(m, i);
        struct th_json *v = th_json_object();
        th_json_set_str(v, "name", th_json_path_str(s, "name"));
        th_json_set_str(v, "mountPath", th_json_path_str(s, "mountPath"));
        if (th_json_path_bool(s, "readOnly", false)) {
            th_json_set_bool(v, "readOnly", true);
            th_json_set_str(v, "recursiveReadOnly", "Disabled");
        }
        th_json_append(l, v);
    }
    th_json_set(o, "volumeMounts", l);
}

static void add_user(struct th_json *o, const struct inst *i)
{
    struct th_json *u = th_json_object();
    th_json_set_int(u, "uid", i->uid);
    th_json_set_int(u, "gid", i->gid);
    th_json_set(u, "supplementalGroups", i->gids ? th_json_dup(i->gids) : th_json_array());
    th_json_path_object(o, "user");
    th_json_path_set(o, "user.linux", u);
}

static struct th_json *ctr_status(const struct pod *p, const struct ctr *c)
{
    struct th_json *o = th_json_object();
    const struct inst *shown = c->cur.state != I_NONE ? &c->cur : c->last.state != I_NONE ? &c->last : NULL;
    bool running = c->cur.state == I_RUNNING;
    bool wait = shown_waiting(c);
    th_json_set_str(o, "name", c->name);
    if (running) {
        struct th_json *r = th_json_object();
        set_time(r, "startedAt", c->cur.started_ms);
        struct th_json *s = th_json_object();
        th_json_set(s, "running", r);
        th_json_set(o, "state", s);
    } else {
        th_json_set(o, "state", wait ? waiting(p, c) : terminated(&c->cur));
    }
    const struct inst *before = wait && c->cur.state == I_EXITED ? &c->cur : &c->last;
    th_json_set(o, "lastState", before->state == I_EXITED ? terminated(before) : th_json_object());
    bool done_init = c->kind == CTR_INIT && c->cur.state == I_EXITED && c->cur.exit_code == 0;
    th_json_set_bool(o, "ready", c->kind == CTR_INIT ? done_init : running && c->ready);
    th_json_set_int(o, "restartCount", c->restarts);
    th_autofree char *norm = NULL;
    const char *image = th_json_path_str(c->spec, "image");
    if (shown && th_ref_normalize(shown->image, &norm, NULL) >= 0) {
        image = norm;
    }
    th_json_set_str(o, "image", image ? image : "");
    th_json_set_str(o, "imageID", shown && shown->image_ref ? shown->image_ref : "");
    if (shown) {
        th_json_set(o, "containerID", th_json_stringf("crun://%s", shown->id));
    }
    if (c->kind == CTR_EPHEMERAL) {
        th_json_set_bool(o, "ready", false);
    }
    bool started = running && (c->kind == CTR_INIT ? c->cur.hook_done : c->started);
    th_json_set_bool(o, "started", started);
    if (running) {
        add_resources(o, c);
    }
    add_mounts(o, c);
    if (running) {
        add_user(o, &c->cur);
    }
    return o;
}

/* ---- phase ---- */

const char *pod_phase(struct pod *p)
{
    if (p->end_reason) {
        return "Failed";
    }
    size_t running = 0, waits = 0, stopped = 0, ok = 0, alive = 0;
    bool pending_init = false, failed_init = false;
    for (size_t i = 0; i < p->n_ctrs; i++) {
        struct ctr *c = &p->ctrs[i];
        bool exited = c->cur.state == I_EXITED;
        alive += c->cur.state == I_RUNNING || c->cur.state == I_CREATED;
        if (c->kind == CTR_EPHEMERAL) {
            continue;
        }
        if (c->kind == CTR_INIT) {
            bool fine = p->init_done || (exited && c->cur.exit_code == 0);
            failed_init = failed_init || (exited && !fine && !pod_restartable(p, c, c->cur.exit_code));
            pending_init = pending_init || !fine;
        } else if (c->kind == CTR_SIDECAR) {
            pending_init = pending_init || (!p->init_done && !c->started);
        } else if (c->cur.state == I_RUNNING) {
            running++;
        } else if (exited && !shown_waiting(c)) {
            stopped++;
            ok += c->cur.exit_code == 0;
        } else if (exited || c->last.state == I_EXITED) {
            stopped++;
        } else {
            waits++;
        }
    }
    if (failed_init) {
        return alive ? "Pending" : "Failed";
    }
    if (p->terminating && p->torn_down && stopped > 0 && !pending_init) {
        return stopped == ok && waits == 0 ? "Succeeded" : "Failed";
    }
    if (pending_init || waits > 0) {
        return "Pending";
    }
    if (running > 0) {
        return "Running";
    }
    bool over = stopped > 0;
    for (size_t i = 0; i < p->n_ctrs && over; i++) {
        struct ctr *c = &p->ctrs[i];
        over = c->kind != CTR_APP ||
               (c->cur.state == I_EXITED && !pod_restartable(p, c, c->cur.exit_code));
    }
    if (over && alive == 0) {
        return stopped == ok ? "Succeeded" : "Failed";
    }
    return stopped > 0 ? "Running" : "Pending";
}

/* ---- conditions ---- */

static struct th_json *find_condition(const struct th_json *status, const char *type)
{
    struct th_json *l = th_json_get(status, "conditions");
    for (size_t i = 0; i < th_json_len(l); i++) {
        if (th_streq(th_json_path_str(th_json_at(l, i), "type"), type)) {
            return th_json_at(l, i);
        }
    }
    return NULL;
}

static void add_condition(struct pod *p, struct th_json *list, const char *type, bool yes,
                          const char *reason, const char *message)
{
    struct th_json *c = th_json_object();
    th_json_set_str(c, "type", type);
    int64_t gen = th_json_path_int(p->obj, "metadata.generation", 0);
    if (gen > 0) {
        th_json_set_int(c, "observedGeneration", gen);
    }
    th_json_set_str(c, "status", yes ? "True" : "False");
    struct th_json *old = find_condition(p->status, type);
    if (!old) {
        old = find_condition(th_json_get(p->obj, "status"), type);
    }
    const char *was = th_json_path_str(old, "status");
    const char *when = th_json_path_str(old, "lastTransitionTime");
    if (when && th_streq(was, yes ? "True" : "False")) {
        th_json_set_str(c, "lastTransitionTime", when);
    } else {
        set_time(c, "lastTransitionTime", th_now_ms());
    }
    if (reason) {
        th_json_set_str(c, "reason", reason);
    }
    if (message && *message) {
        th_json_set_str(c, "message", message);
    }
    th_json_append(list, c);
}

static void add_resize(struct pod *p, struct th_json *list, const char *type, const struct th_json *what)
{
    if (!what) {
        return;
    }
    const char *reason = th_json_path_str(what, "reason");
    add_condition(p, list, type, true, reason && *reason ? reason : NULL, th_json_path_str(what, "message"));
    th_json_set_int(th_json_at(list, th_json_len(list) - 1), "observedGeneration",
                    th_json_path_int(what, "observedGeneration", 0));
}

static void unready_text(struct pod *p, bool init, char *buf, size_t cap)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    for (size_t i = 0; i < p->n_ctrs; i++) {
        struct ctr *c = &p->ctrs[i];
        bool bad = init ? (c->kind == CTR_INIT ? !(c->cur.state == I_EXITED && c->cur.exit_code == 0)
                                               : c->kind == CTR_SIDECAR && !c->started)
                        : c->kind != CTR_INIT && c->kind != CTR_EPHEMERAL && !(c->cur.state == I_RUNNING && c->ready);
        if (bad) {
            th_buf_printf(&b, "%s%s", b.n ? " " : "", c->name);
        }
    }
    buf[0] = 0;
    if (b.n) {
        (void)snprintf(buf, cap, "containers with %s status: [%s]", init ? "incomplete" : "unready",
                       th_buf_cstr(&b));
    }
}

static bool gates_ready(struct pod *p, struct th_buf *message)
{
    struct th_json *gates = th_json_path(p->obj, "spec.readinessGates");
    for (size_t i = 0; i < th_json_len(gates); i++) {
        const char *type = th_json_path_str(th_json_at(gates, i), "conditionType");
        struct th_json *c = find_condition(th_json_get(p->obj, "status"), type);
        const char *s = th_json_path_str(c, "status");
        if (th_streq(s, "True")) {
            continue;
        }
        th_buf_puts(message, message->n ? ", " : "");
        if (!c) {
            th_buf_printf(message, "corresponding condition of pod readiness gate \"%s\" does not exist.", type);
        } else {
            th_buf_printf(message, "the status of pod readiness gate \"%s\" is not \"True\", but %s", type,
                          s ? s : "");
        }
    }
    return message->n == 0;
}

static bool own_condition(const char *type)
{
    static const char *const own[] = {"PodReadyToStartContainers", "Initialized", "Ready",
                                      "ContainersReady", "PodScheduled", "PodResizePending",
                                      "PodResizeInProgress"};
    for (size_t i = 0; i < TH_ARRAY_LEN(own); i++) {
        if (th_streq(own[i], type)) {
            return true;
        }
    }
    return false;
}

static struct th_json *conditions(struct pod *p, const char *phase)
{
    struct th_json *l = th_json_array();
    char bad[1024];
    add_condition(p, l, "PodReadyToStartContainers", p->sandbox_ready && !p->torn_down, NULL, NULL);
    bool done = th_streq(phase, "Succeeded");
    unready_text(p, true, bad, sizeof(bad));
    if (p->init_done || !bad[0] || done) {
        add_condition(p, l, "Initialized", true, done ? "PodCompleted" : NULL, NULL);
    } else {
        add_condition(p, l, "Initialized", false, "ContainersNotInitialized", bad);
    }
    unready_text(p, false, bad, sizeof(bad));
    bool failed = th_streq(phase, "Failed");
    if (done || failed) {
        const char *why = done ? "PodCompleted" : "PodFailed";
        add_condition(p, l, "Ready", false, why, NULL);
        add_condition(p, l, "ContainersReady", false, why, NULL);
    } else if (bad[0]) {
        add_condition(p, l, "Ready", false, "ContainersNotReady", bad);
        add_condition(p, l, "ContainersReady", false, "ContainersNotReady", bad);
    } else {
        th_autobuf struct th_buf gates = TH_BUF_INIT;
        bool ok = gates_ready(p, &gates);
        add_condition(p, l, "Ready", ok, ok ? NULL : "ReadinessGatesNotReady", th_buf_cstr(&gates));
        add_condition(p, l, "ContainersReady", true, NULL, NULL);
    }
    struct th_json *sched = find_condition(th_json_get(p->obj, "status"), "PodScheduled");
    if (sched) {
        int64_t gen = th_json_path_int(p->obj, "metadata.generation", 0);
        sched = th_json_dup(sched);
        if (gen > 0) {
            th_json_set_int(sched, "observedGeneration", gen);
        }
        th_json_append(l, sched);
    } else {
        add_condition(p, l, "PodScheduled", true, NULL, NULL);
    }
    add_resize(p, l, "PodResizePending", p->resize_pending);
    add_resize(p, l, "PodResizeInProgress", p->resize_progress);
    if (th_streq(p->end_reason, "Evicted")) {
        add_condition(p, l, "DisruptionTarget", true, "TerminationByKubelet", p->end_message);
    }
    struct th_json *theirs = th_json_path(p->obj, "status.conditions");
    for (size_t i = 0; i < th_json_len(theirs); i++) {
        struct th_json *c = th_json_at(theirs, i);
        const char *type = th_json_path_str(c, "type");
        bool ours = th_streq(type, "DisruptionTarget") && th_streq(p->end_reason, "Evicted");
        if (!ours && !own_condition(type)) {
            th_json_append(l, th_json_dup(c));
        }
    }
    return l;
}

struct th_json *status_build(struct pod *p)
{
    const char *phase = pod_phase(p);
    struct th_json *s = th_json_object();
    int64_t gen = th_json_path_int(p->obj, "metadata.generation", 0);
    if (gen > 0) {
        th_json_set_int(s, "observedGeneration", gen);
    }
    th_json_set_str(s, "phase", phase);
    th_json_set(s, "conditions", conditions(p, phase));
    if (p->end_reason) {
        th_json_set_str(s, "message", p->end_message);
        th_json_set_str(s, "reason", p->end_reason);
    }
    th_json_set_str(s, "hostIP", p->a->o.node_ip);
    struct th_json *ips = th_json_path_array(s, "hostIPs");
    th_json_append(ips, th_json_build("{'ip':%s}", p->a->o.node_ip));
    if (p->ip) {
        th_json_set_str(s, "podIP", p->ip);
        th_json_append(th_json_path_array(s, "podIPs"), th_json_build("{'ip':%s}", p->ip));
    }
    set_time(s, "startTime", p->start_ms);
    struct th_json *inits = NULL, *debug = NULL, *apps = th_json_array();
    for (size_t i = 0; i < p->n_ctrs; i++) {
        struct ctr *c = &p->ctrs[i];
        if (c->kind == CTR_APP) {
            th_json_append(apps, ctr_status(p, c));
        } else if (c->kind == CTR_EPHEMERAL) {
            debug = debug ? debug : th_json_array();
            th_json_append(debug, ctr_status(p, c));
        } else {
            inits = inits ? inits : th_json_array();
            th_json_append(inits, ctr_status(p, c));
        }
    }
    if (inits) {
        th_json_set(s, "initContainerStatuses", inits);
    }
    th_json_set(s, "containerStatuses", apps);
    if (debug) {
        th_json_set(s, "ephemeralContainerStatuses", debug);
    }
    th_json_set_str(s, "qosClass", pod_qos(p->obj));
    return s;
}

/* ---- publishing ---- */

static void publish_views(struct pod *p, const char *text)
{
    th_autofree char *group = cg_pod_path(p);
    struct ctr_view *v = th_xcalloc(p->n_ctrs ? p->n_ctrs : 1, sizeof(*v));
    for (size_t i = 0; i < p->n_ctrs; i++) {
        struct ctr *c = &p->ctrs[i];
        bool running = c->cur.state == I_RUNNING;
        const struct inst *log = c->cur.state != I_NONE ? &c->cur : &c->last;
        v[i] = (struct ctr_view){
            .name = th_xstrdup(c->name),
            .id = running ? th_xstrdup(c->cur.id) : NULL,
            .dir = running ? th_xstrdup(c->cur.dir) : NULL,
            .log_path = th_xstrdup(log->log_path),
            .prev_log_path = log == &c->cur && c->last.log_path ? th_xstrdup(c->last.log_path) : NULL,
            .wait_reason = shown_waiting(c) ? th_xstrdup(c->wait_reason ? c->wait_reason
                                                                        : "ContainerCreating")
                                            : NULL,
            .running = running,
            .cgroup = running ? th_path_join(group, c->cur.id) : NULL,
            .started_ms = c->cur.started_ms,
            .pid = running ? c->cur.pid : 0,
            .tty = th_json_path_bool(c->spec, "tty", false),
            .stdin_open = th_json_path_bool(c->spec, "stdin", false),
        };
    }
    int64_t cpu = pod_request(p, "cpu"), memory = pod_request(p, "memory"), disk = pod_request(p, "ephemeral-storage");
    struct pod_view view = {.running = !p->torn_down && !p->end_reason && !p->terminating,
                            .cgroup = th_steal(&group),
                            .cpu_request_m = cpu > 0 ? cpu : 0,
                            .holds = !p->torn_down && !p->rejected,
                            .ports = room_ports(p),
                            .resize_pending = p->resize_pending != NULL,
                            .priority = th_json_path_int(p->obj, "spec.priority", 0),
                            .memory_request_b = memory > 0 ? (uint64_t)memory : 0,
                            .disk_request_b = disk > 0 ? (uint64_t)disk : 0};
    pthread_mutex_lock(&p->mu);
    free(p->view.cgroup);
    free(p->view.ports);
    p->view = view;
    struct ctr_view *old = p->views;
    size_t n_old = p->n_views;
    p->views = v;
    p->n_views = p->n_ctrs;
    free(p->pub_status);
    p->pub_status = th_xstrdup(text);
    free(p->pub_ip);
    p->pub_ip = th_xstrdup(p->ip);
    pthread_mutex_unlock(&p->mu);
    ctr_views_free(old, n_old);
}

static void push(struct pod *p, const char *text)
{
    if (!p->a->client || p->is_static || th_streq(p->pushed_status, text)) {
        return;
    }
    if (p->push_retry_at && th_mono_ms() < p->push_retry_at) {
        agent_kick_after(p->a, p->uid, p->push_retry_at - th_mono_ms());
        return;
    }
    TH_AUTO(th_json) struct th_json *patch = th_json_object();
    th_json_path_set_str(patch, "metadata.uid", p->uid);
    th_json_set(patch, "status", th_json_ref(p->status));
    struct th_patch_opts o = {.kind = TH_PATCH_MERGE_RFC7386, .field_manager = "kubelet"};
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    int r = th_client_patch(p->a->client, TH_GVR_PODS, p->ns, p->name, "status", &o, patch, NULL, &err);
    if (r >= 0 || r == -TH_R_NOT_FOUND) {
        free(p->pushed_status);
        p->pushed_status = th_xstrdup(text);
        p->push_failures = 0;
        p->push_retry_at = 0;
        return;
    }
    p->push_failures++;
    int64_t wait = 200ll << (p->push_failures > 6 ? 6 : p->push_failures);
    p->push_retry_at = th_mono_ms() + wait;
    th_warn(NODE_MOD, "pod status not written", "pod=%s/%s err=%s retry_ms=%lld", p->ns, p->name,
            th_log_q(err.msg), (long long)wait);
    agent_kick_after(p->a, p->uid, wait);
}

/* Kept so that a restarted agent goes on from what it said last: readiness, transition times. Not
 * durable on purpose; without it (or half written) those begin anew. */
static void keep(struct pod *p, const char *text)
{
    th_autofree char *path = th_path_join(p->dir, "status.json");
    if (!th_streq(p->pub_status, text) && th_io_is_dir(p->dir) &&
        th_io_write_file(path, text, strlen(text), 0600, NULL) < 0) {
        th_debug(NODE_MOD, "status not kept", "pod=%s", p->uid);
    }
}

void status_publish(struct pod *p)
{
    struct th_json *s = status_build(p);
    th_json_unref(p->status);
    p->status = s;
    th_autofree char *text = th_json_to_string(s);
    keep(p, text);
    publish_views(p, text);
    push(p, text);
}
