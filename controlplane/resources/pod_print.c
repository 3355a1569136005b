/*
 * The words of kubectl get pods: READY, STATUS, RESTARTS. Rules as k8s.io/kubernetes
 * pkg/printers/internalversion printPod: init containers first, then the containers' waiting and
 * terminated reasons, last what deletion makes of it.
 */
#include "controlplane/resources/rows.h"
#include "base/buf.h"
#include "base/clock.h"
#include <inttypes.h>

struct restarts {
    int64_t count, last_ms;
};

static void note_restarts(const struct th_json *status, struct restarts *r)
{
    int64_t us = 0;
    r->count += th_json_path_int(status, "restartCount", 0);
    const char *at = th_json_path_str(status, "lastState.terminated.finishedAt");
    if (at && th_time_parse(at, &us, NULL) == 0 && us / 1000 > r->last_ms) {
        r->last_ms = us / 1000;
    }
}

static bool is_sidecar(const struct th_json *pod, const char *name)
{
    const struct th_json *list = th_json_path(pod, "spec.initContainers");
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *ctr = th_json_at(list, i);
        if (th_streq(th_json_path_str(ctr, "name"), name)) {
            return th_streq(th_json_path_str(ctr, "restartPolicy"), "Always");
        }
    }
    return false;
}

static bool condition_true(const struct th_json *pod, const char *type)
{
    const struct th_json *list = th_json_path(pod, "status.conditions");
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *c = th_json_at(list, i);
        if (th_streq(th_json_path_str(c, "type"), type)) {
            return th_streq(th_json_path_str(c, "status"), "True");
        }
    }
    return false;
}

static char *ended_reason(const struct th_json *ended, const char *prefix)
{
    const char *reason = th_json_path_str(ended, "reason");
    int64_t sig = th_json_path_int(ended, "signal", 0);
    if (reason && *reason) {
        return th_xasprintf("%s%s", prefix, reason);
    }
    if (sig) {
        return th_xasprintf("%sSignal:%" PRId64, prefix, sig);
    }
    return th_xasprintf("%sExitCode:%" PRId64, prefix, th_json_path_int(ended, "exitCode", 0));
}

struct view {
    struct restarts all, sidecars;
    int64_t total, ready;
    char *reason;
};

static void say(struct view *v, char *reason)
{
    free(v->reason);
    v->reason = reason;
}

/* True while init containers are what the pod is about. */
static bool init_view(const struct th_json *pod, struct view *v)
{
    const struct th_json *list = th_json_path(pod, "status.initContainerStatuses");
    size_t n = th_json_len(th_json_path(pod, "spec.initContainers"));
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *st = th_json_at(list, i);
        bool sidecar = is_sidecar(pod, th_json_path_str(st, "name"));
        note_restarts(st, &v->all);
        if (sidecar) {
            note_restarts(st, &v->sidecars);
        }
        const struct th_json *ended = th_json_path(st, "state.terminated");
        if (ended && th_json_path_int(ended, "exitCode", 0) == 0) {
            continue;
        }
        if (sidecar && th_json_path_bool(st, "started", false)) {
            v->ready += th_json_path_bool(st, "ready", false);
            continue;
        }
        const char *waiting = th_json_path_str(st, "state.waiting.reason");
        if (ended) {
            say(v, ended_reason(ended, "Init:"));
        } else if (waiting && *waiting && !th_streq(waiting, "PodInitializing")) {
            say(v, th_xasprintf("Init:%s", waiting));
        } else {
            say(v, th_xasprintf("Init:%zu/%zu", i, n));
        }
        return true;
    }
    return false;
}

static void container_view(const struct th_json *pod, struct view *v)
{
    const struct th_json *list = th_json_path(pod, "status.containerStatuses");
    bool running = false;
    v->all = v->sidecars;
    for (size_t i = th_json_len(list); i > 0; i--) {
        const struct th_json *st = th_json_at(list, i - 1);
        note_restarts(st, &v->all);
        const char *waiting = th_json_path_str(st, "state.waiting.reason");
        const struct th_json *ended = th_json_path(st, "state.terminated");
        if (waiting && *waiting) {
            say(v, th_xstrdup(waiting));
        } else if (ended) {
            say(v, ended_reason(ended, ""));
        } else if (th_json_path_bool(st, "ready", false) && th_json_path(st, "state.running")) {
            running = true;
            v->ready++;
        }
    }
    if (th_streq(v->reason, "Completed") && running) {
        say(v, th_xstrdup(condition_true(pod, "Ready") ? "Running" : "NotReady"));
    }
}

static void count_total(const struct th_json *pod, struct view *v)
{
    v->total = (int64_t)th_json_len(th_json_path(pod, "spec.containers"));
    const struct th_json *list = th_json_path(pod, "spec.initContainers");
    for (size_t i = 0; i < th_json_len(list); i++) {
        v->total += th_streq(th_json_path_str(th_json_at(list, i), "restartPolicy"), "Always");
    }
}

static void final_words(const struct th_json *pod, struct view *v)
{
    const char *why = th_json_path_str(pod, "status.reason");
    const char *phase = th_json_path_str(pod, "status.phase");
    if (!th_json_path_str(pod, "metadata.deletionTimestamp")) {
        return;
    }
    if (th_streq(why, "NodeLost")) {
        say(v, th_xstrdup("Unknown"));
    } else if (!th_streq(phase, "Succeeded") && !th_streq(phase, "Failed")) {
        say(v, th_xstrdup("Terminating"));
    }
}

static void wide_cells(const struct th_json *pod, struct th_json *cells)
{
    const char *ip = th_json_path_str(pod, "status.podIPs[0].ip");
    if (!ip) {
        ip = th_json_path_str(pod, "status.podIP");
    }
    th_json_append_str(cells, ip && *ip ? ip : "<none>");
    th_cell_str(pod, "spec.nodeName", "<none>", cells);
    th_cell_str(pod, "status.nominatedNodeName", "<none>", cells);
    const struct th_json *gates = th_json_path(pod, "spec.readinessGates");
    int met = 0;
    for (size_t i = 0; i < th_json_len(gates); i++) {
        met += condition_true(pod, th_json_path_str(th_json_at(gates, i), "conditionType"));
    }
    th_json_append(cells, th_json_len(gates) ? th_json_stringf("%d/%zu", met, th_json_len(gates))
                                             : th_json_string("<none>"));
}

void th_row_pod(const struct th_req_ctx *c, const struct th_json *pod, struct th_json *cells)
{
    struct view v = {.reason = NULL};
    const char *why = th_json_path_str(pod, "status.reason");
    const char *phase = th_json_path_str(pod, "status.phase");
    say(&v, th_xstrdup(why && *why ? why : phase ? phase : ""));
    const struct th_json *conditions = th_json_path(pod, "status.conditions");
    for (size_t i = 0; i < th_json_len(conditions); i++) {
        if (th_streq(th_json_path_str(th_json_at(conditions, i), "reason"), "SchedulingGated")) {
            say(&v, th_xstrdup("SchedulingGated"));
        }
    }
    count_total(pod, &v);
    if (!init_view(pod, &v) || condition_true(pod, "Initialized")) {
        container_view(pod, &v);
    }
    final_words(pod, &v);
    th_cell_name(pod, cells);
    th_json_append(cells, th_json_stringf("%" PRId64 "/%" PRId64, v.ready, v.total));
    th_json_append_str(cells, v.reason);
    char age[TH_TIME_LEN];
    if (v.all.count > 0 && v.all.last_ms > 0) {
        int64_t ms = c->now_ms - v.all.last_ms;
        th_json_append(cells, th_json_stringf("%" PRId64 " (%s ago)", v.all.count,
                                              th_duration_human(ms < 0 ? 0 : ms, age)));
    } else {
        th_json_append(cells, th_json_stringf("%" PRId64, v.all.count));
    }
    th_cell_age(c, pod, cells);
    wide_cells(pod, cells);
    free(v.reason);
}
