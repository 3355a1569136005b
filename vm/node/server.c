/* The node agent's own HTTP server, on a Unix socket that only root (the API server) reaches.
 *
 * Few requests, each possibly long (logs -f, exec, builds): one thread per connection, so handlers
 * may simply block. Whoever may call was decided by the API server; here only names are checked.
 *
 *   GET  /healthz  /pods  /metrics  /metrics/resource  /stats/summary
 *   GET  /containerLogs/<ns>/<pod>/<container>
 *   GET  /logs/...                 -> logfiles.c
 *   *    /exec, /attach, /portForward  -> upgraded connections (exec.c)
 *   *    /images/...                   -> images_http.c
 */
#include "vm/node/server.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "vm/node/logs.h"

#include <errno.h>
#include <strings.h>

/* A connection's pool. Above 32 KiB libmicrohttpd maps it, and AddressSanitizer takes a mapping that
 * falls on an ended thread's stack for that stack. */
#if defined(__SANITIZE_ADDRESS__)
#define POOL_B ((size_t)32 << 10)
#else
#define POOL_B ((size_t)128 << 10)
#endif

static struct MHD_Daemon *daemon_;

const char *req_query(struct req *r, const char *name)
{
    return MHD_lookup_connection_value(r->c, MHD_GET_ARGUMENT_KIND, name);
}

bool req_query_bool(struct req *r, const char *name, bool def)
{
    const char *v = req_query(r, name);
    /* the API's rule: clients write True, yes or nothing at all */
    return v ? strcasecmp(v, "false") != 0 && !th_streq(v, "0") : def;
}

int64_t req_query_int(struct req *r, const char *name, int64_t def)
{
    const char *v = req_query(r, name);
    return v && *v ? strtoll(v, NULL, 10) : def;
}

struct query_all {
    const char *name;
    struct th_strv *to;
};

static enum MHD_Result each_arg(void *cls, enum MHD_ValueKind kind, const char *key, const char *value)
{
    (void)kind;
    struct query_all *q = cls;
    if (th_streq(key, q->name)) {
        th_strv_add(q->to, value ? value : "");
    }
    return MHD_YES;
}

void req_query_all(struct req *r, const char *name, struct th_strv *ret)
{
    struct query_all q = {name, ret};
    (void)MHD_get_connection_values(r->c, MHD_GET_ARGUMENT_KIND, each_arg, &q);
}

enum MHD_Result reply_text(struct req *r, unsigned code, const char *type, const char *text, size_t n)
{
    struct MHD_Response *resp = MHD_create_response_from_buffer(n, (void *)(uintptr_t)text,
                                                                MHD_RESPMEM_MUST_COPY);
    (void)MHD_add_response_header(resp, "Content-Type", type);
    enum MHD_Result ok = MHD_queue_response(r->c, code, resp);
    MHD_destroy_response(resp);
    return ok;
}

enum MHD_Result reply_json(struct req *r, unsigned code, const struct th_json *o)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_json_dump(o, &b);
    th_buf_putc(&b, '\n');
    return reply_text(r, code, "application/json", b.p, b.n);
}

enum MHD_Result reply_err(struct req *r, const struct th_err *err)
{
    unsigned code = (unsigned)(err->http_code ? err->http_code : th_reason_http(err->reason));
    return reply_text(r, code, "text/plain; charset=utf-8", err->msg ? err->msg : "",
                      err->msg ? strlen(err->msg) : 0);
}

enum MHD_Result reply_status(struct req *r, const struct th_err *err)
{
    int code = err->http_code ? err->http_code : th_reason_http(err->reason);
    TH_AUTO(th_json) struct th_json *s = th_json_build(
        "{'kind':'Status','apiVersion':'v1','metadata':{},'status':'Failure','message':%s,'reason':%s,"
        "'code':%d,'thimble':{'reason':%s,'next':%s}}",
        err->msg, th_reason_status(err->reason), (int64_t)code, th_reason_code(err->reason),
        err->hint);
    return reply_json(r, (unsigned)code, s);
}

/* ---- streams ---- */

struct stream {
    reply_stream_fn *fn;
    void (*done)(void *);
    void *arg;
    struct agent *a;
};

static ssize_t stream_read(void *cls, uint64_t pos, char *buf, size_t max)
{
    (void)pos;
    struct stream *s = cls;
    for (;;) {
        ssize_t n = s->fn(s->arg, buf, max);
        if (n > 0) {
            return n;
        }
        if (n < 0 || atomic_load(&s->a->stopping)) {
            return MHD_CONTENT_READER_END_OF_STREAM;
        }
        struct timespec ts = {0, 50000000};
        nanosleep(&ts, NULL);
    }
}

static void stream_free(void *cls)
{
    struct stream *s = cls;
    s->done(s->arg);
    free(s);
}

enum MHD_Result reply_stream(struct req *r, const char *type, reply_stream_fn *fn, void (*done)(void *),
                             void *arg)
{
    struct stream *s = TH_NEW(struct stream);
    *s = (struct stream){.fn = fn, .done = done, .arg = arg, .a = r->a};
    struct MHD_Response *resp = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16384, stream_read, s,
                                                                  stream_free);
    (void)MHD_add_response_header(resp, "Content-Type", type);
    enum MHD_Result ok = MHD_queue_response(r->c, 200, resp);
    MHD_destroy_response(resp);
    return ok;
}

/* ---- logs ---- */

struct log_stream {
    struct log_reader *r;
    struct pod *p;
    char *ctr, *id;      /* id: the container followed, NULL when it does not run */
    bool follow;
    int idle;
    struct th_buf out;
};

static void log_stream_free(void *arg)
{
    struct log_stream *s = arg;
    log_reader_free(s->r);
    pod_unref(s->p);
    free(s->ctr);
    free(s->id);
    th_buf_done(&s->out);
    free(s);
}

static bool still_running(struct log_stream *s)
{
    bool yes = false;
    pthread_mutex_lock(&s->p->mu);
    for (size_t i = 0; i < s->p->n_views; i++) {
        struct ctr_view *v = &s->p->views[i];
        if (th_streq(v->name, s->ctr)) {
            yes = v->running && th_streq(v->id, s->id);
        }
    }
    pthread_mutex_unlock(&s->p->mu);
    return yes && !s->p->finished;
}

static ssize_t log_stream_read(void *arg, char *buf, size_t max)
{
    struct log_stream *s = arg;
    if (s->out.n == 0) {
        bool running = s->follow && still_running(s); /* asked before reading: nothing is lost */
        int r = log_reader_read(s->r, &s->out, max);
        if (r < 0) {
            return -1;
        }
        if (r == 0) {
            return running ? 0 : -1;
        }
    }
    size_t n = s->out.n < max ? s->out.n : max;
    memcpy(buf, s->out.p, n);
    th_buf_consume(&s->out, n);
    return (ssize_t)n;
}

static int log_opts_from(struct req *r, struct log_opts *o, struct th_err *err)
{
    *o = (struct log_opts){.follow = req_query_bool(r, "follow", false),
                           .timestamps = req_query_bool(r, "timestamps", false),
                           .tail = req_query_int(r, "tailLines", -1),
                           .limit_b = req_query_int(r, "limitBytes", -1)};
    const char *stream = req_query(r, "stream");
    o->stream = stream && !th_streq(stream, "All") ? stream : NULL;
    int64_t s = req_query_int(r, "sinceSeconds", 0);
    const char *t = req_query(r, "sinceTime");
    if (s > 0) {
        o->since_us = th_now_us() - s * 1000000;
    } else if (t && *t) {
        TH_TRY(th_time_parse(t, &o->since_us, err));
    }
    return 0;
}

static int log_open(struct req *r, struct log_stream **ret, struct th_err *err)
{
    struct log_opts o;
    TH_TRY(log_opts_from(r, &o, err));
    TH_AUTO(pod) struct pod *p = agent_pod_by_name(r->a, r->path.v[1], r->path.v[2]);
    if (!p) {
        return th_fail(err, TH_R_NOT_FOUND, "pod does not exist");
    }
    const char *name = r->path.v[3];
    bool previous = req_query_bool(r, "previous", false), found = false;
    th_autofree char *path = NULL;
    th_autofree char *wait = NULL;
    th_autofree char *id = NULL;
    pthread_mutex_lock(&p->mu);
    for (size_t i = 0; i < p->n_views; i++) {
        struct ctr_view *v = &p->views[i];
        if (th_streq(v->name, name)) {
            found = true;
            /* a container in back-off: its last instance is what people want to read */
            path = th_xstrdup(previous ? v->prev_log_path : v->log_path);
            wait = th_xstrdup(v->wait_reason);
            id = th_xstrdup(v->id);
        }
    }
    pthread_mutex_unlock(&p->mu);
    if (!found) {
        return th_fail(err, TH_R_BAD_REQUEST, "container \"%s\" in pod \"%s\" is not available", name, p->name);
    }
    if (!path && previous) {
        return th_fail(err, TH_R_BAD_REQUEST, "previous terminated container \"%s\" in pod \"%s\" not found",
                       name, p->name);
    }
    if (!path) {
        return th_fail(err, TH_R_BAD_REQUEST, "container \"%s\" in pod \"%s\" is waiting to start: %s", name,
                       p->name, wait ? wait : "ContainerCreating");
    }
    struct log_reader *lr = NULL;
    TH_TRY(log_reader_new(path, &o, &lr, err));
    struct log_stream *s = TH_NEW(struct log_stream);
    *s = (struct log_stream){.r = lr, .p = th_steal(&p), .ctr = th_xstrdup(name),
                             .id = previous ? NULL : th_steal(&id), .follow = o.follow && !previous};
    *ret = s;
    return 0;
}

static enum MHD_Result logs_request(struct req *r)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    struct log_stream *s = NULL;
    if (r->path.n != 4) {
        (void)th_fail(&err, TH_R_NOT_FOUND, "not found");
        return reply_err(r, &err);
    }
    if (log_open(r, &s, &err) < 0) {
        return reply_err(r, &err);
    }
    if (ws_wanted(r)) {
        return ws_stream(r, log_stream_read, log_stream_free, s);
    }
    return reply_stream(r, "text/plain", log_stream_read, log_stream_free, s);
}

/* ---- what the node tells about itself ---- */

static struct th_json *pods_list(struct agent *a)
{
    struct th_json *items = th_json_array();
    pthread_mutex_lock(&a->mu);
    struct th_hmap_entry *e;
    for (size_t it = 0; (e = th_hmap_next(&a->pods, &it));) {
        struct pod *p = e->value;
        pthread_mutex_lock(&p->mu);
        struct th_json *status = NULL;
        if (p->pub_status && th_json_parse_cstr(p->pub_status, &status, NULL) >= 0) {
            th_json_append(items, th_json_build("{'metadata':{'name':%s,'namespace':%s,'uid':%s},"
                                                "'status':%o}", p->name, p->ns, p->uid, status));
        }
        pthread_mutex_unlock(&p->mu);
    }
    pthread_mutex_unlock(&a->mu);
    return th_json_build("{'kind':'PodList','apiVersion':'v1','metadata':{},'items':%o}", items);
}

static void metrics_text(struct agent *a, struct th_buf *b)
{
    pthread_mutex_lock(&a->mu);
    size_t pods = a->pods.n;
    pthread_mutex_unlock(&a->mu);
    th_buf_printf(b, "# HELP kubelet_running_pods Number of pods known to the node agent\n"
                     "# TYPE kubelet_running_pods gauge\nkubelet_running_pods %zu\n", pods);
    stats_metrics_resource(a, b);
}

/* ---- routing ---- */

static enum MHD_Result route(struct req *r)
{
    const char *first = r->path.n ? r->path.v[0] : "";
    bool get = th_streq(r->method, "GET");
    if (th_streq(first, "healthz") && get) {
        return reply_text(r, 200, "text/plain; charset=utf-8", "ok", 2);
    }
    if (th_streq(first, "containerLogs") && get) {
        return logs_request(r);
    }
    if (th_streq(first, "logs") && get && th_startswith(r->url, "/logs")) {
        return logfiles_request(r);
    }
    if (th_streq(first, "exec")) {
        return exec_request(r, false);
    }
    if (th_streq(first, "attach")) {
        return exec_request(r, true);
    }
    if (th_streq(first, "portForward")) {
        return portforward_request(r);
    }
    if (th_streq(first, "images")) {
        return images_request(r);
    }
    if ((th_streq(first, "pods") || th_streq(first, "runningpods")) && get) {
        TH_AUTO(th_json) struct th_json *o = pods_list(r->a);
        return reply_json(r, 200, o);
    }
    if (th_streq(first, "metrics") && get) {
        th_autobuf struct th_buf b = TH_BUF_INIT;
        bool resource = r->path.n == 2 && th_streq(r->path.v[1], "resource");
        if (r->path.n == 1 || resource) {
            (resource ? stats_metrics_resource : metrics_text)(r->a, &b);
            return reply_text(r, 200, "text/plain; version=0.0.4; charset=utf-8", b.p, b.n);
        }
    }
    if (th_streq(first, "stats") && r->path.n == 2 && th_streq(r->path.v[1], "summary")) {
        TH_AUTO(th_json) struct th_json *o = stats_summary(r->a, req_query_bool(r, "only_cpu_and_memory", false));
        return reply_json(r, 200, o);
    }
    return reply_text(r, 404, "text/plain; charset=utf-8", "404 page not found\n", 19);
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *c, const char *url, const char *method,
                                  const char *version, const char *data, size_t *data_n, void **ctx)
{
    (void)version;
    struct req *r = *ctx;
    if (!r) {
        r = TH_NEW(struct req);
        *r = (struct req){.a = cls, .c = c};
        r->method = method;
        r->url = url;
        th_strv_split(&r->path, url[0] == '/' ? url + 1 : url, '/');
        while (r->path.n && !r->path.v[r->path.n - 1][0]) {
            free(r->path.v[--r->path.n]);
        }
        *ctx = r;
        if (images_wants_body(r)) {
            r->up = images_upload_begin(r);
        }
        return MHD_YES;
    }
    r->url = url;
    r->method = method;
    if (*data_n > 0) {
        if (r->up && !images_upload_data(r->up, data, *data_n)) {
            /* its reader has ended: what follows is thrown away, the answer says why */
        }
        *data_n = 0;
        return MHD_YES;
    }
    if (r->begun) {
        return MHD_YES;
    }
    r->begun = true;
    return route(r);
}

static void on_completed(void *cls, struct MHD_Connection *c, void **ctx, enum MHD_RequestTerminationCode why)
{
    (void)cls;
    (void)c;
    (void)why;
    struct req *r = *ctx;
    if (r) {
        if (r->up) {
            images_upload_drop(r->up);
        }
        th_strv_done(&r->path);
        free(r);
        *ctx = NULL;
    }
}

int server_start(struct agent *a, struct th_err *err)
{
    (void)unlink(a->o.node_socket);
    int fd = th_io_unix_listen(a->o.node_socket, 0600, 128, err);
    if (fd < 0) {
        return fd;
    }
    daemon_ = MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION |
                                   MHD_USE_POLL | MHD_ALLOW_UPGRADE | MHD_USE_ITC |
                                   MHD_USE_ERROR_LOG,
                               0, NULL, NULL, on_request, a, MHD_OPTION_LISTEN_SOCKET, fd,
                               MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL,
                               MHD_OPTION_CONNECTION_MEMORY_LIMIT, POOL_B,
                               MHD_OPTION_END);
    if (!daemon_) {
        close(fd);
        return th_fail(err, TH_R_INTERNAL, "the node agent's server does not start");
    }
    return 0;
}

void server_stop(struct agent *a)
{
    atomic_store(&a->stopping, true);
    if (daemon_) {
        MHD_stop_daemon(daemon_);
        daemon_ = NULL;
        (void)unlink(a->o.node_socket);
    }
}
