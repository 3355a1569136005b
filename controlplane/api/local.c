/* The in-process transport of controlplane/client: requests go straight into the pipeline.
 *
 * What a server behind an APIService answers is asked of it over HTTPS, after the pipeline has authorized
 * it.
 *
 * A request still travels as path, query and bytes, so that authorization, admission, validation
 * and conflicts are the same for a controller as for kubectl; what it saves is HTTP, TLS and two
 * system calls. A watch waits on a condition variable that the store's publisher signals.
 */
#include "controlplane/api/local.h"

#include "base/clock.h"
#include "controlplane/api/aggregate/aggregate.h"
#include "controlplane/api/streams/relay.h"
#include "controlplane/api/watch.h"
#include "controlplane/client/client_priv.h"

struct local {
    struct th_client base;
    struct th_api *api;
    struct th_identity *id;
    char *user_agent;
};

static int handle(struct local *l, const char *method, const char *path, const char *query,
                  const struct th_client_req *req, struct th_aresp *resp, struct th_err *err)
{
    th_autofree char *uri = query && *query ? th_xasprintf("%s%c%s", path,
                                                           strchr(path, '?') ? '&' : '?', query)
                                            : th_xstrdup(path);
    struct th_areq q = {
        .method = method,
        .uri = uri,
        .body = req ? req->body : (struct th_str){"", 0},
        .content_type = req ? req->content_type : NULL,
        .accept = req && req->accept ? req->accept : "application/json",
        .user_agent = l->user_agent,
        .id = l->id,
    };
    return th_api_call(l->api, &q, resp, err);
}

static int deliver(const struct th_client_req *req, struct th_str body, struct th_buf *ret_body)
{
    if (req->on_data) {
        (void)req->on_data(req->arg, body.p, body.n);
    } else {
        th_buf_add(ret_body, body.p, body.n);
    }
    return 0;
}

/* A client of the server that answers for a path in place of this one. */
static int remote_client(struct local *l, const char *path, struct th_client **ret,
                         struct th_err *err)
{
    struct th_aggr_set *set = th_aggr_get(l->api->aggr);
    const struct th_aggr_service *s = th_aggr_of_path(set, path);
    int r = s ? th_aggr_client(l->api->aggr, s, l->id, ret, err)
              : th_fail(err, TH_R_UNAVAILABLE, "service unavailable");
    th_aggr_unref(set);
    return r;
}

static int remote_request(struct local *l, const struct th_client_req *req, int *ret_status,
                          struct th_buf *ret_body, struct th_err *err)
{
    TH_AUTO(th_client) struct th_client *remote = NULL;
    TH_TRY(remote_client(l, req->path, &remote, err));
    return remote->ops->request(remote, req, ret_status, ret_body, err);
}

static int request(struct th_client *c, const struct th_client_req *req, int *ret_status,
                   struct th_buf *ret_body, struct th_err *err)
{
    struct local *l = (struct local *)c;
    th_autobuf struct th_buf gathered = TH_BUF_INIT;
    struct th_client_req copy = *req;
    if (req->in_fn) {
        char chunk[8192];
        long n = 0;
        while ((n = req->in_fn(req->arg, chunk, sizeof(chunk))) > 0) {
            th_buf_add(&gathered, chunk, (size_t)n);
        }
        if (n < 0) {
            return th_fail(err, TH_R_CANCELED, "the request was given up by its sender");
        }
        copy.body = th_buf_str(&gathered);
    }
    TH_CLEANUP(th_aresp_done) struct th_aresp resp = TH_ARESP_INIT;
    TH_TRY(handle(l, req->method, req->path, req->query, &copy, &resp, err));
    if (resp.stream && resp.stream->tls) {
        return remote_request(l, &copy, ret_status, ret_body, err);
    }
    if (resp.stream || resp.watch) {
        return th_fail(err, TH_R_UNSUPPORTED, "streams are not served to in-process clients");
    }
    *ret_status = resp.status;
    if (resp.pieces) {
        size_t n = th_pieces_total(resp.pieces);
        th_buf_reserve(&resp.body, n + 1);
        resp.body.n = th_pieces_read(resp.pieces, resp.body.p, n);
        resp.body.p[resp.body.n] = '\0';
    }
    struct th_str body = resp.body_obj ? (struct th_str){resp.body_obj->bytes, resp.body_obj->n}
                                       : th_buf_str(&resp.body);
    return deliver(req, body, ret_body);
}

/* ---- watches ---- */

struct th_client_watch {
    struct th_client *remote;          /* the watch is another server's, or NULL */
    struct th_client_watch *remote_watch;
    struct th_apiwatch *w;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool woken;   /* something may wait in w */
    bool poked;   /* watch_wake */
    struct th_clock_watch clock;
};

static void wake(void *arg)
{
    struct th_client_watch *w = arg;
    (void)pthread_mutex_lock(&w->lock);
    w->woken = true;
    (void)pthread_cond_signal(&w->cond);
    (void)pthread_mutex_unlock(&w->lock);
}

static void watch_wake(struct th_client_watch *w)
{
    if (w->remote) {
        w->remote->ops->watch_wake(w->remote_watch);
        return;
    }
    (void)pthread_mutex_lock(&w->lock);
    w->poked = true;
    (void)pthread_cond_signal(&w->cond);
    (void)pthread_mutex_unlock(&w->lock);
}

static int watch_open(struct th_client *c, const struct th_watch_req *req,
                      struct th_client_watch **ret, struct th_err *err)
{
    struct local *l = (struct local *)c;
    th_autobuf struct th_buf path = TH_BUF_INIT;
    th_autobuf struct th_buf query = TH_BUF_INIT;
    th_client_add_path(&path, req->gvr, req->ns, NULL, NULL);
    th_client_watch_query(&query, req);
    TH_CLEANUP(th_aresp_done) struct th_aresp resp = TH_ARESP_INIT;
    TH_TRY(handle(l, "GET", th_buf_cstr(&path), th_buf_cstr(&query), NULL, &resp, err));
    if (resp.stream && resp.stream->tls) {
        TH_AUTO(th_client) struct th_client *remote = NULL;
        struct th_client_watch *rw = NULL;
        TH_TRY(remote_client(l, th_buf_cstr(&path), &remote, err));
        TH_TRY(remote->ops->watch_open(remote, req, &rw, err));
        struct th_client_watch *w = TH_NEW(struct th_client_watch);
        w->remote_watch = rw;
        w->remote = th_steal(&remote);
        *ret = w;
        return 0;
    }
    if (!resp.watch) {
        return th_fail(err, TH_R_INTERNAL, "the server did not answer with a watch");
    }
    struct th_client_watch *w = TH_NEW(struct th_client_watch);
    (void)pthread_mutex_init(&w->lock, NULL);
    (void)pthread_cond_init(&w->cond, NULL);
    w->w = th_steal(&resp.watch);
    w->woken = true;
    w->clock = (struct th_clock_watch){.fn = wake, .arg = w};
    th_clock_watch_add(&w->clock);
    th_apiwatch_attach(w->w, wake, w);
    *ret = w;
    return 0;
}

static int item_of(struct th_str frame, struct th_watch_item *ret, struct th_err *err)
{
    /* {"type":"ADDED","object":{...}}\n : frames are made by us, so their shape is known. */
    static const struct {
        struct th_str prefix;
        enum th_watch_item_type type;
    } shapes[] = {
        {TH_STR("{\"type\":\"ADDED\",\"object\":"), TH_WI_ADDED},
        {TH_STR("{\"type\":\"MODIFIED\",\"object\":"), TH_WI_MODIFIED},
        {TH_STR("{\"type\":\"DELETED\",\"object\":"), TH_WI_DELETED},
        {TH_STR("{\"type\":\"BOOKMARK\",\"object\":"), TH_WI_BOOKMARK},
        {TH_STR("{\"type\":\"ERROR\",\"object\":"), TH_WI_ERROR},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(shapes); i++) {
        size_t n = shapes[i].prefix.n;
        if (frame.n > n + 2 && memcmp(frame.p, shapes[i].prefix.p, n) == 0) {
            ret->type = shapes[i].type;
            ret->object = (struct th_str){frame.p + n, frame.n - n - 2};
            return 1;
        }
    }
    return th_fail(err, TH_R_INTERNAL, "a watch frame of unknown shape");
}

static int watch_next(struct th_client_watch *w, int64_t timeout_ms, struct th_watch_item *ret,
                      struct th_err *err)
{
    if (w->remote) {
        return w->remote->ops->watch_next(w->remote_watch, timeout_ms, ret, err);
    }
    int64_t deadline = timeout_ms < 0 ? INT64_MAX : th_mono_ms() + timeout_ms;
    for (;;) {
        (void)pthread_mutex_lock(&w->lock);
        w->woken = false;
        bool poked = w->poked;
        w->poked = false;
        (void)pthread_mutex_unlock(&w->lock);
        if (poked) {
            return 0;
        }
        struct th_str frame;
        int r = th_apiwatch_next(w->w, &frame);
        if (r > 0) {
            return item_of(frame, ret, err);
        }
        if (r < 0) {
            return th_fail(err, TH_R_UNAVAILABLE, "the watch ended");
        }
        if (th_mono_ms() >= deadline) {
            return 0;
        }
        (void)pthread_mutex_lock(&w->lock);
        if (!w->woken && !w->poked) {
            th_clock_cond_wait(&w->cond, &w->lock, deadline);
        }
        (void)pthread_mutex_unlock(&w->lock);
    }
}

static void watch_close(struct th_client_watch *w)
{
    if (!w) {
        return;
    }
    if (w->remote) {
        w->remote->ops->watch_close(w->remote_watch);
        th_client_free(w->remote);
        free(w);
        return;
    }
    th_apiwatch_close(w->w);
    th_clock_watch_del(&w->clock);
    (void)pthread_cond_destroy(&w->cond);
    (void)pthread_mutex_destroy(&w->lock);
    free(w);
}

static void local_free(struct th_client *c)
{
    struct local *l = (struct local *)c;
    th_identity_unref(l->id);
    free(l->user_agent);
    free(l);
}

static const struct th_client_ops ops = {
    .request = request,
    .watch_open = watch_open,
    .watch_next = watch_next,
    .watch_wake = watch_wake,
    .watch_close = watch_close,
    .free = local_free,
};

int th_client_new_local(struct th_api *api, const char *user, const char *const *groups,
                        const char *user_agent, struct th_client **ret, struct th_err *err)
{
    (void)err;
    struct local *l = TH_NEW(struct local);
    l->base.ops = &ops;
    l->api = api;
    static const char *const masters[] = {"system:masters", "system:authenticated", NULL};
    l->id = th_identity_new(user ? user : "system:apiserver", NULL, user ? groups : masters);
    l->id->system = user == NULL;
    l->user_agent = th_xstrdup(user_agent);
    *ret = &l->base;
    return 0;
}
