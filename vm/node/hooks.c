/* Lifecycle hooks: postStart and preStop, by exec, httpGet or sleep.
 *
 * A hook may take as long as it likes (preStop: the grace period), so each runs in a thread of its
 * own with copies of all it needs, and tells the worker by a line in the pod's finished_hooks. A
 * hook that was running when the agent was killed is not run again: upstream promises at least once
 * for neither. tcpSocket hooks do nothing in upstream either. */
#include "base/clock.h"
#include "base/log.h"
#include "vm/node/agent.h"

struct hook {
    struct pod *p;
    char *ctr, *id, *dir, *ip;
    struct th_json *handler;
    struct th_json *ref; /* the pod, for events */
    bool post_start;
    int port;
    int64_t timeout_ms;
};

static void hook_free(struct hook *h)
{
    pod_unref(h->p);
    free(h->ctr);
    free(h->id);
    free(h->dir);
    free(h->ip);
    th_json_unref(h->handler);
    th_json_unref(h->ref);
    free(h);
}

static int run_exec(struct hook *h, struct th_err *err)
{
    th_autobuf struct th_buf out = TH_BUF_INIT;
    int code = 0;
    TH_TRY(rt_exec(h->p->a, h->id, h->dir, th_json_path(h->handler, "exec.command"), h->timeout_ms,
                   10240, &out, &code, err));
    if (code != 0) {
        return th_fail(err, TH_R_INTERNAL, "command exited with %d: %s", code, th_buf_cstr(&out));
    }
    return 0;
}

static int run_http(struct hook *h, struct th_err *err)
{
    struct th_json *g = th_json_get(h->handler, "httpGet");
    const char *host = th_json_path_str(g, "host");
    const char *path = th_json_path_str(g, "path");
    int status = 0;
    TH_TRY(http_get(host && *host ? host : h->ip, h->port, path && *path ? path : "/", NULL,
                    th_json_get(g, "httpHeaders"), th_streq(th_json_path_str(g, "scheme"), "HTTPS"),
                    "kube-lifecycle/1.36", h->timeout_ms, &status, NULL, err));
    return 0; /* upstream looks at the transport only */
}

static void *hook_thread(void *arg)
{
    struct hook *h = arg;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    int r = 0;
    if (th_json_get(h->handler, "exec")) {
        r = run_exec(h, &err);
    } else if (th_json_get(h->handler, "httpGet")) {
        r = run_http(h, &err);
    } else if (th_json_get(h->handler, "sleep")) {
        int64_t ms = th_json_path_int(h->handler, "sleep.seconds", 0) * 1000;
        th_sleep_ms(ms < h->timeout_ms ? ms : h->timeout_ms);
    }
    if (r < 0) {
        th_warn(NODE_MOD, "lifecycle hook failed", "pod=%s/%s container=%s err=%s", h->p->ns, h->p->name,
                h->ctr, th_log_q(err.msg));
        if (h->p->a->recorder) {
            th_event_record_at(h->p->a->recorder, h->ref, th_json_path_str(h->ref, "fieldPath"), "Warning",
                            h->post_start ? "FailedPostStartHook" : "FailedPreStopHook", "%s",
                            h->post_start ? "PostStartHook failed" : "PreStopHook failed");
        }
    }
    pthread_mutex_lock(&h->p->mu);
    th_strv_addf(&h->p->finished_hooks, "%s %s %s",
                 !h->post_start ? "pre" : r < 0 ? "postfail" : "post", h->ctr, h->id);
    pthread_mutex_unlock(&h->p->mu);
    if (!atomic_load(&h->p->a->stopping)) {
        agent_kick(h->p->a, h->p->uid);
    }
    hook_free(h);
    return NULL;
}

void hook_run(struct pod *p, struct ctr *c, bool post_start)
{
    struct th_json *handler = th_json_path(c->spec, post_start ? "lifecycle.postStart"
                                                               : "lifecycle.preStop");
    struct hook *h = TH_NEW(struct hook);
    pod_ref(p);
    *h = (struct hook){.p = p,
                       .ctr = th_xstrdup(c->name),
                       .id = th_xstrdup(c->cur.id),
                       .dir = th_xstrdup(c->cur.dir),
                       .ip = th_xstrdup(p->ip ? p->ip : "127.0.0.1"),
                       .handler = th_json_dup(handler),
                       .post_start = post_start,
                       .port = probe_port(c, th_json_path(handler, "httpGet.port")),
                       .timeout_ms = post_start ? INT32_MAX : c->stop_kill_at - th_mono_ms()};
    h->ref = th_json_build(
        "{'apiVersion':'v1','kind':'Pod','metadata':{'name':%s,'namespace':%s,'uid':%s}}", p->name, p->ns,
        p->uid);
    th_json_set(h->ref, "fieldPath", th_json_stringf("spec.%s{%s}", ctr_list(c), c->name));
    pthread_t t;
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    if (pthread_create(&t, &attr, hook_thread, h) != 0) {
        th_error(NODE_MOD, "no thread for a lifecycle hook", NULL);
        c->prestop_running = false;
        c->cur.hook_done = true;
        hook_free(h);
    }
    pthread_attr_destroy(&attr);
}
