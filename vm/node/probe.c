/* Probes: is a container started, alive, ready?
 *
 * Each probe is a small state machine in the loop thread: timer -> attempt (a non-blocking socket,
 * or a `crun exec` child) -> result -> timer. No thread and no helper process waits for an HTTP or
 * TCP probe. Workers make and end probers and read `result`; everything else in struct prober
 * belongs to the loop thread, which gets both by th_ev_post.
 *
 * Timing is upstream's with one addition: until a startup or readiness probe has succeeded for the
 * first time, extra looks are taken between two periods (100 ms, doubled). A look that succeeds
 * counts, one that fails is forgotten: thresholds and events see only what upstream would have seen.
 * So a server that needs 200 ms is ready after 300 ms instead of a whole period.
 *
 * Scheme HTTPS and gRPC run in a short-lived thread (http_get.c, grpc_health.c), and so does an HTTP
 * probe that is answered with a redirect: those to the same host are followed, one that leads elsewhere
 * is a success with a warning. */
#include "base/clock.h"
#include "base/io.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/proc.h"
#include "vm/node/agent.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define FIRST_LOOK_MS 100
#define FIRST_REGULAR_MS 1000 /* upstream notices a started container about then */

enum how { HOW_EXEC, HOW_HTTP, HOW_HTTPS, HOW_TCP, HOW_GRPC, HOW_NONE };

struct prober {
    atomic_int result;    /* enum probe_result; the loop writes, workers read */
    struct agent *a;
    char *uid, *ctr, *id, *dir;
    enum probe_kind kind;
    enum how how;
    struct th_json *ref;  /* the pod, for events */
    struct th_json *argv;
    char *host;           /* address to connect to */
    int port;
    char *request, *url;
    struct th_json *spec;
    int64_t period_ms, timeout_ms;
    int success_threshold, failure_threshold;
    /* running */
    int successes, failures;
    bool dead, busy, extra; /* extra: this attempt is a look between periods */
    bool in_thread;
    int64_t next_regular, look_ms;
    struct th_ev_src *timer, *io, *child, *limit;
    int fd;
    bool connected;
    size_t sent;
    struct th_buf in;
    pid_t pid;
    char *process_file, *pid_file;
    int exit_status;
    bool exited, eof;
};

static void attempt(struct prober *pr);

static void prober_free(struct prober *pr)
{
    free(pr->uid);
    free(pr->ctr);
    free(pr->id);
    free(pr->dir);
    free(pr->host);
    free(pr->request);
    free(pr->url);
    th_json_unref(pr->ref);
    th_json_unref(pr->argv);
    th_json_unref(pr->spec);
    th_buf_done(&pr->in);
    free(pr->process_file);
    free(pr->pid_file);
    free(pr);
}

enum probe_result prober_result(const struct prober *pr)
{
    return (enum probe_result)atomic_load(&pr->result);
}

int probe_port(const struct ctr *c, const struct th_json *port)
{
    const char *name = th_json_str(port);
    if (!name) {
        return (int)th_json_as_int(port, -1);
    }
    struct th_json *ports = th_json_get(c->spec, "ports");
    for (size_t i = 0; i < th_json_len(ports); i++) {
        if (th_streq(th_json_path_str(th_json_at(ports, i), "name"), name)) {
            return (int)th_json_path_int(th_json_at(ports, i), "containerPort", -1);
        }
    }
    char *end = NULL;
    long v = strtol(name, &end, 10);
    return *name && !*end ? (int)v : -1;
}

/* ---- the end of an attempt ---- */

static void attempt_clear(struct prober *pr)
{
    th_ev_remove(pr->io);
    th_ev_remove(pr->limit);
    pr->io = pr->limit = NULL;
    if (pr->fd >= 0) {
        close(pr->fd);
        pr->fd = -1;
    }
    if (pr->process_file) {
        (void)unlink(pr->process_file);
        (void)unlink(pr->pid_file);
        free(pr->process_file);
        free(pr->pid_file);
        pr->process_file = pr->pid_file = NULL;
    }
    th_buf_clear(&pr->in);
    pr->connected = pr->exited = pr->eof = false;
    pr->sent = 0;
    pr->busy = false;
}

static void on_timer(struct th_ev_src *src, void *arg)
{
    (void)src;
    struct prober *pr = arg;
    pr->timer = NULL;
    attempt(pr);
}

static void schedule(struct prober *pr)
{
    int64_t now = th_mono_ms();
    if (!pr->extra) {
        pr->next_regular = now + pr->period_ms;
    }
    int64_t wait = pr->next_regular - now;
    bool eager = pr->kind != PROBE_LIVENESS && atomic_load(&pr->result) != PROBE_SUCCESS &&
                 pr->success_threshold == 1 && pr->look_ms < pr->period_ms;
    pr->extra = false;
    if (eager && pr->look_ms < wait) {
        wait = pr->look_ms;
        pr->look_ms *= 2;
        pr->extra = true;
    }
    pr->timer = th_ev_add_timer(pr->a->ev, wait > 0 ? wait : 1, 0, on_timer, pr);
}

static void set_result(struct prober *pr, enum probe_result r)
{
    if (atomic_exchange(&pr->result, r) != (int)r) {
        agent_kick(pr->a, pr->uid);
    }
}

static void attempt_done(struct prober *pr, bool ok, const char *text)
{
    static const char *const names[] = {"Startup", "Liveness", "Readiness"};
    th_autofree char *why = th_xstrdup(text ? text : "");
    attempt_clear(pr);
    if (pr->dead) {
        prober_free(pr);
        return;
    }
    if (!ok && pr->extra) {
        schedule(pr);
        return;
    }
    if (ok) {
        pr->failures = 0;
        pr->successes++;
        pr->look_ms = pr->period_ms; /* no extra looks after the first success */
        if (pr->successes >= pr->success_threshold) {
            set_result(pr, PROBE_SUCCESS);
        }
    } else {
        pr->successes = 0;
        pr->failures++;
        th_debug(NODE_MOD, "probe failed", "pod=%s container=%s kind=%s text=%s", pr->uid, pr->ctr,
                 names[pr->kind], th_log_q(why));
        if (pr->a->recorder) {
            th_event_record_at(pr->a->recorder, pr->ref, th_json_path_str(pr->ref, "fieldPath"), "Warning", "Unhealthy", "%s probe failed: %s",
                            names[pr->kind], why);
        }
        if (pr->failures >= pr->failure_threshold) {
            set_result(pr, PROBE_FAILURE);
            if (pr->kind != PROBE_READINESS) {
                return; /* the container will be restarted: no more attempts */
            }
        }
    }
    if (pr->kind == PROBE_STARTUP && atomic_load(&pr->result) == PROBE_SUCCESS) {
        return;
    }
    schedule(pr);
}

/* ---- sockets ---- */

static void net_failed(struct prober *pr, int e)
{
    const char *why = e == ECONNREFUSED ? "connect: connection refused"
                      : e == EHOSTUNREACH ? "connect: no route to host"
                      : e == ECONNRESET ? "read: connection reset by peer"
                      : e == ETIMEDOUT ? "i/o timeout"
                                       : strerror(e);
    th_autofree char *dial = th_xasprintf("dial tcp %s:%d: %s", pr->host, pr->port, why);
    th_autofree char *text =
        pr->how == HOW_TCP ? th_xstrdup(dial)
        : e == ETIMEDOUT
            ? th_xasprintf("Get \"%s\": context deadline exceeded (Client.Timeout exceeded while "
                           "awaiting headers)", pr->url)
            : th_xasprintf("Get \"%s\": %s", pr->url, dial);
    attempt_done(pr, false, text);
}

static void attempt_call(struct prober *pr);

static void http_verdict(struct prober *pr)
{
    const char *s = th_buf_cstr(&pr->in);
    const char *sp = th_startswith(s, "HTTP/1.") ? strchr(s, ' ') : NULL;
    long code = sp ? strtol(sp + 1, NULL, 10) : 0;
    if (code == 0) {
        th_autofree char *t = th_xasprintf("Get \"%s\": %s", pr->url,
                                           pr->in.n ? "net/http: HTTP/1.x transport connection broken: "
                                                      "malformed HTTP response" : "EOF");
        attempt_done(pr, false, t);
        return;
    }
    if (code >= 300 && code < 400) {
        attempt_clear(pr);
        pr->busy = true;
        attempt_call(pr);
        return;
    }
    char t[80];
    (void)snprintf(t, sizeof(t), "HTTP probe failed with statuscode: %ld", code);
    attempt_done(pr, code >= 200 && code < 400, t);
}

static void on_socket(struct th_ev_src *src, int fd, uint32_t events, void *arg)
{
    (void)src;
    (void)events;
    struct prober *pr = arg;
    if (!pr->connected) {
        int e = 0;
        socklen_t n = sizeof(e);
        (void)getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &n);
        if (e != 0) {
            net_failed(pr, e);
            return;
        }
        pr->connected = true;
        if (pr->how == HOW_TCP) {
            attempt_done(pr, true, NULL);
            return;
        }
    }
    size_t len = strlen(pr->request);
    if (pr->sent < len) {
        ssize_t w = send(fd, pr->request + pr->sent, len - pr->sent, MSG_NOSIGNAL);
        if (w < 0 && errno != EAGAIN) {
            net_failed(pr, errno);
            return;
        }
        pr->sent += w > 0 ? (size_t)w : 0;
        if (pr->sent == len) {
            th_ev_set_events(pr->io, EPOLLIN);
        }
        return;
    }
    char buf[4096];
    ssize_t r = recv(fd, buf, sizeof(buf), 0);
    if (r < 0) {
        if (errno != EAGAIN) {
            net_failed(pr, errno);
        }
        return;
    }
    th_buf_add(&pr->in, buf, (size_t)r);
    if (r == 0 || pr->in.n >= TH_LIMIT_PROBE_BODY_B || memchr(pr->in.p, '\n', pr->in.n)) {
        http_verdict(pr); /* the status line is all that counts */
    }
}

static void on_limit(struct th_ev_src *src, void *arg)
{
    (void)src;
    struct prober *pr = arg;
    pr->limit = NULL;
    net_failed(pr, ETIMEDOUT);
}

static void attempt_socket(struct prober *pr)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)pr->port)};
    if (pr->port <= 0 || pr->port > 65535) {
        attempt_done(pr, false, "the probe's port is not among the container's ports");
        return;
    }
    if (inet_pton(AF_INET, pr->host, &to.sin_addr) != 1) {
        if (!th_streq(pr->host, "localhost")) {
            attempt_done(pr, false, "the probe's host is not an IPv4 address");
            return;
        }
        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    }
    pr->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (pr->fd < 0) {
        net_failed(pr, errno);
        return;
    }
    struct linger lg = {.l_onoff = 1, .l_linger = 0}; /* no TIME_WAIT per probe */
    (void)setsockopt(pr->fd, SOL_SOCKET, SO_LINGER, &lg, sizeof(lg));
    if (connect(pr->fd, (struct sockaddr *)&to, sizeof(to)) < 0 && errno != EINPROGRESS) {
        net_failed(pr, errno);
        return;
    }
    pr->io = th_ev_add_fd(pr->a->ev, pr->fd, EPOLLOUT, on_socket, pr);
    pr->limit = th_ev_add_timer(pr->a->ev, pr->timeout_ms, 0, on_limit, pr);
}

/* ---- https and gRPC: a thread for one attempt ---- */

struct call {
    struct prober *pr;
    bool ok;
    char *text;
    char *warning; /* it succeeded, but */
};

static void call_done(void *arg)
{
    static const char *const names[] = {"Startup", "Liveness", "Readiness"};
    struct call *j = arg;
    j->pr->in_thread = false;
    if (j->warning && !j->pr->dead && j->pr->a->recorder) {
        th_event_record_at(j->pr->a->recorder, j->pr->ref, th_json_path_str(j->pr->ref, "fieldPath"), "Warning",
                           "ProbeWarning", "%s probe warning: %s", names[j->pr->kind], j->warning);
    }
    free(j->warning);
    attempt_done(j->pr, j->ok, j->text);
    free(j->text);
    free(j);
}

static void *call_thread(void *arg)
{
    struct call *j = arg;
    struct prober *pr = j->pr;
    if (pr->how == HOW_GRPC) {
        const char *service = th_json_path_str(pr->spec, "grpc.service");
        j->ok = grpc_health(pr->host, pr->port, service ? service : "", pr->timeout_ms, &j->text);
    } else {
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        const char *path = th_json_path_str(pr->spec, "httpGet.path");
        int status = 0;
        th_autobuf struct th_buf body = TH_BUF_INIT;
        th_autofree char *url = http_url(pr->host, pr->port, path && *path ? path : "/", pr->how == HOW_HTTPS);
        int r = http_get_local(url, th_json_path(pr->spec, "httpGet.httpHeaders"), "kube-probe/1.36",
                               pr->timeout_ms, &status, &body, &err);
        j->ok = r >= 0 && status >= 200 && status < 400;
        if (j->ok && status >= 300) {
            j->warning = th_xasprintf("Probe terminated redirects, Response body: %s", th_buf_cstr(&body));
        }
        j->text = r < 0 ? th_xstrdup(err.msg)
                        : th_xasprintf("HTTP probe failed with statuscode: %d", status);
    }
    th_ev_post(pr->a->ev, call_done, j);
    return NULL;
}

static void attempt_call(struct prober *pr)
{
    struct call *j = TH_NEW(struct call);
    j->pr = pr;
    pthread_t t;
    pr->in_thread = true;
    if (pthread_create(&t, NULL, call_thread, j) != 0) {
        free(j);
        pr->in_thread = false;
        attempt_done(pr, false, "no thread");
        return;
    }
    pthread_detach(t);
}

/* ---- exec ---- */

static void exec_maybe_done(struct prober *pr)
{
    if (!pr->exited) {
        return;
    }
    /* what is still in the pipe */
    char buf[4096];
    ssize_t r;
    while (pr->fd >= 0 && (r = read(pr->fd, buf, sizeof(buf))) > 0 && pr->in.n < TH_LIMIT_PROBE_BODY_B) {
        th_buf_add(&pr->in, buf, (size_t)r);
    }
    bool ok = WIFEXITED(pr->exit_status) && WEXITSTATUS(pr->exit_status) == 0;
    th_autofree char *text = th_xstrdup(th_buf_cstr(&pr->in));
    attempt_done(pr, ok, text);
}

static void on_exec_child(struct th_ev_src *src, pid_t pid, int status, void *arg)
{
    (void)src;
    (void)pid;
    struct prober *pr = arg;
    pr->child = NULL;
    pr->pid = 0;
    pr->exited = true;
    pr->exit_status = status;
    exec_maybe_done(pr);
}

static void on_exec_out(struct th_ev_src *src, int fd, uint32_t events, void *arg)
{
    (void)events;
    struct prober *pr = arg;
    char buf[4096];
    ssize_t r = read(fd, buf, sizeof(buf));
    if (r > 0 && pr->in.n < TH_LIMIT_PROBE_BODY_B) {
        th_buf_add(&pr->in, buf, (size_t)r);
    }
    if (r == 0 || (r < 0 && errno != EAGAIN)) {
        th_ev_remove(src);
        pr->io = NULL;
    }
}

static void exec_kill(struct prober *pr)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    if (pr->pid_file && th_io_read_file(pr->pid_file, 64, &b, NULL) >= 0) {
        long inner = strtol(th_buf_cstr(&b), NULL, 10);
        if (inner > 1) {
            (void)kill((pid_t)inner, SIGKILL);
        }
    }
    if (pr->pid > 0) {
        (void)kill(pr->pid, SIGKILL);
    }
}

static void on_exec_limit(struct th_ev_src *src, void *arg)
{
    (void)src;
    struct prober *pr = arg;
    pr->limit = NULL;
    exec_kill(pr);
    th_autostrv struct th_strv words = TH_STRV_INIT;
    for (size_t i = 0; i < th_json_len(pr->argv); i++) {
        th_strv_add(&words, th_json_str(th_json_at(pr->argv, i)));
    }
    th_autofree char *cmd = th_strv_join(&words, " ");
    TH_AUTO(th_json) struct th_json *quoted = th_json_string(cmd);
    th_buf_clear(&pr->in);
    th_buf_puts(&pr->in, "command timed out: ");
    th_json_dump(quoted, &pr->in);
    th_buf_printf(&pr->in, " timed out after %llds", (long long)pr->timeout_ms / 1000);
    /* the child's end finishes the attempt */
}

static void attempt_exec(struct prober *pr)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    int p[2];
    if (rt_exec_process(pr->dir, pr->argv, false, &pr->process_file, &err) < 0 ||
        pipe2(p, O_CLOEXEC) < 0) {
        attempt_done(pr, false, err.msg ? err.msg : "pipe");
        return;
    }
    pr->pid_file = th_xasprintf("%s.pid", pr->process_file);
    const char *argv[] = {pr->a->crun,  "--root",       pr->a->crun_root, "exec", "--process",
                          pr->process_file, "--pid-file", pr->pid_file,   pr->id, NULL};
    struct th_proc_opts o = {.argv = argv, .stdin_fd = -1, .stdout_fd = p[1], .stderr_fd = p[1]};
    pr->pid = th_proc_start(&o, &err);
    close(p[1]);
    if (pr->pid < 0) {
        close(p[0]);
        pr->pid = 0;
        attempt_done(pr, false, err.msg);
        return;
    }
    pr->fd = p[0];
    (void)th_io_set_nonblock(pr->fd, true);
    pr->io = th_ev_add_fd(pr->a->ev, pr->fd, EPOLLIN, on_exec_out, pr);
    pr->child = th_ev_add_child(pr->a->ev, pr->pid, on_exec_child, pr);
    pr->limit = th_ev_add_timer(pr->a->ev, pr->timeout_ms, 0, on_exec_limit, pr);
}

static void attempt(struct prober *pr)
{
    pr->busy = true;
    switch (pr->how) {
    case HOW_EXEC:
        attempt_exec(pr);
        break;
    case HOW_HTTP:
    case HOW_TCP:
        attempt_socket(pr);
        break;
    case HOW_HTTPS:
    case HOW_GRPC:
        attempt_call(pr);
        break;
    case HOW_NONE:
        attempt_done(pr, false, "missing probe handler");
        break;
    }
}

/* ---- coming and going ---- */

static void prober_begin(void *arg)
{
    struct prober *pr = arg;
    if (pr->dead) {
        return; /* prober_end, posted behind us, frees it */
    }
    if (pr->kind == PROBE_STARTUP && atomic_load(&pr->result) == PROBE_SUCCESS) {
        return; /* it had started before the agent did */
    }
    int64_t delay = pr->next_regular; /* until the first attempt; see prober_new */
    if (pr->kind != PROBE_LIVENESS && pr->success_threshold == 1 && delay == FIRST_REGULAR_MS) {
        pr->extra = true;
        delay = pr->look_ms;
        pr->look_ms *= 2;
    }
    pr->next_regular += th_mono_ms();
    pr->timer = th_ev_add_timer(pr->a->ev, delay > 0 ? delay : 1, 0, on_timer, pr);
}

/* What was said last about this very container: a restart of the agent does not make
 * it unready. */
static bool known_good(struct pod *p, const struct ctr *c, enum probe_kind kind)
{
    th_autofree char *id = th_xasprintf("crun://%s", c->cur.id);
    static const char *const lists[] = {"containerStatuses", "initContainerStatuses"}; /* those with probes */
    for (size_t l = 0; l < 2 && kind != PROBE_LIVENESS; l++) {
        struct th_json *cs = th_json_get(p->status, lists[l]);
        for (size_t i = 0; i < th_json_len(cs); i++) {
            struct th_json *s = th_json_at(cs, i);
            if (th_streq(th_json_path_str(s, "containerID"), id)) {
                return th_json_path_bool(s, kind == PROBE_STARTUP ? "started" : "ready", false);
            }
        }
    }
    return kind == PROBE_LIVENESS;
}

static void prober_end(void *arg)
{
    struct prober *pr = arg;
    pr->dead = true;
    th_ev_remove(pr->timer);
    pr->timer = NULL;
    if (pr->in_thread) {
        return; /* freed when the thread's answer comes */
    }
    if (pr->child) {
        exec_kill(pr);
        return; /* freed when the child has been reaped */
    }
    attempt_clear(pr);
    prober_free(pr);
}

static struct prober *prober_new(struct pod *p, struct ctr *c, enum probe_kind kind,
                                 const struct th_json *spec)
{
    struct prober *pr = TH_NEW(struct prober);
    pr->a = p->a;
    pr->uid = th_xstrdup(p->uid);
    pr->ctr = th_xstrdup(c->name);
    pr->id = th_xstrdup(c->cur.id);
    pr->dir = th_xstrdup(c->cur.dir);
    pr->kind = kind;
    pr->fd = -1;
    pr->spec = th_json_dup(spec);
    pr->look_ms = FIRST_LOOK_MS;
    pr->ref = th_json_build(
        "{'apiVersion':'v1','kind':'Pod','metadata':{'name':%s,'namespace':%s,'uid':%s}}", p->name, p->ns,
        p->uid);
    th_json_set(pr->ref, "fieldPath",
                th_json_stringf("spec.%s{%s}", ctr_list(c), c->name));
    pr->period_ms = th_json_path_int(spec, "periodSeconds", 10) * 1000;
    pr->timeout_ms = th_json_path_int(spec, "timeoutSeconds", 1) * 1000;
    pr->period_ms = pr->period_ms < 1000 ? 1000 : pr->period_ms;
    pr->timeout_ms = pr->timeout_ms < 1000 ? 1000 : pr->timeout_ms;
    pr->success_threshold = (int)th_json_path_int(spec, "successThreshold", 1);
    pr->failure_threshold = (int)th_json_path_int(spec, "failureThreshold", 3);
    int64_t initial = th_json_path_int(spec, "initialDelaySeconds", 0) * 1000;
    int64_t age = th_now_ms() - c->cur.started_ms;
    pr->next_regular = initial > 0 ? initial - age : age < FIRST_REGULAR_MS ? FIRST_REGULAR_MS : 1;
    atomic_init(&pr->result, known_good(p, c, kind) ? PROBE_SUCCESS : PROBE_UNKNOWN);
    const char *ip = p->ip ? p->ip : "127.0.0.1";
    struct th_json *h;
    pr->how = HOW_NONE;
    if ((h = th_json_get(spec, "exec"))) {
        pr->how = HOW_EXEC;
        pr->argv = th_json_dup(th_json_get(h, "command"));
    } else if ((h = th_json_get(spec, "httpGet"))) {
        bool tls = th_streq(th_json_path_str(h, "scheme"), "HTTPS");
        const char *host = th_json_path_str(h, "host"), *path = th_json_path_str(h, "path");
        pr->how = tls ? HOW_HTTPS : HOW_HTTP;
        pr->host = th_xstrdup(host && *host ? host : ip);
        pr->port = probe_port(c, th_json_get(h, "port"));
        path = path && *path ? path : "/";
        pr->url = th_xasprintf("%s://%s:%d%s%s", tls ? "https" : "http", pr->host, pr->port,
                               path[0] == '/' ? "" : "/", path);
        th_autobuf struct th_buf b = TH_BUF_INIT;
        th_buf_printf(&b, "GET %s%s HTTP/1.1\r\n", path[0] == '/' ? "" : "/", path);
        struct th_json *hs = th_json_get(h, "httpHeaders");
        bool has_host = false, has_agent = false;
        for (size_t i = 0; i < th_json_len(hs); i++) {
            const char *n = th_json_path_str(th_json_at(hs, i), "name");
            const char *v = th_json_path_str(th_json_at(hs, i), "value");
            has_host = has_host || (n && strcasecmp(n, "host") == 0);
            has_agent = has_agent || (n && strcasecmp(n, "user-agent") == 0);
            th_buf_printf(&b, "%s: %s\r\n", n ? n : "", v ? v : "");
        }
        if (!has_host) {
            th_buf_printf(&b, "Host: %s:%d\r\n", pr->host, pr->port);
        }
        if (!has_agent) {
            th_buf_puts(&b, "User-Agent: kube-probe/1.36\r\n");
        }
        th_buf_puts(&b, "Accept: */*\r\nConnection: close\r\n\r\n");
        pr->request = th_buf_steal(&b, NULL);
    } else if ((h = th_json_get(spec, "tcpSocket"))) {
        const char *host = th_json_path_str(h, "host");
        pr->how = HOW_TCP;
        pr->host = th_xstrdup(host && *host ? host : ip);
        pr->port = probe_port(c, th_json_get(h, "port"));
    } else if ((h = th_json_get(spec, "grpc"))) {
        pr->how = HOW_GRPC;
        pr->host = th_xstrdup(ip);
        pr->port = (int)th_json_path_int(h, "port", 0);
    }
    return pr;
}

void probes_start(struct pod *p, struct ctr *c)
{
    static const char *const fields[] = {"startupProbe", "livenessProbe", "readinessProbe"};
    bool gate = th_json_get(c->spec, fields[PROBE_STARTUP]) != NULL;
    for (int k = 0; k < PROBE_KINDS_; k++) {
        struct th_json *spec = th_json_get(c->spec, fields[k]);
        if (!spec || c->probers[k] || (k != PROBE_STARTUP && gate && !c->started)) {
            continue;
        }
        c->probers[k] = prober_new(p, c, (enum probe_kind)k, spec);
        th_ev_post(p->a->ev, prober_begin, c->probers[k]);
    }
}

void probes_stop(struct ctr *c)
{
    for (int k = 0; k < PROBE_KINDS_; k++) {
        if (c->probers[k]) {
            th_ev_post(c->pod->a->ev, prober_end, c->probers[k]);
            c->probers[k] = NULL;
        }
    }
}
