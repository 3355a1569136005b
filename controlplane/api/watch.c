/* WATCH: events from a revision on, as this client asked to see them.
 *
 * A watch is a small state machine over the store's watch:
 *
 *   initial   (no revision, "0", or sendInitialEvents) each object of a snapshot as ADDED
 *   mark      (sendInitialEvents) the bookmark annotated k8s.io/initial-events-end
 *   live      events; bookmarks once a minute and before the end; until timeoutSeconds
 *
 * Plain JSON frames are serialized once per event by the store and shared by all watchers. A
 * selector turns a change into ADDED when the object begins to match and into DELETED, with its
 * last matching state stamped with the new revision, when it ceases to. Tables and metadata-only
 * watches are built per watcher.
 *
 * A revision that is gone gives one ERROR event with the 410 Status, on a stream with status 200,
 * as upstream's watch cache does; a watcher that is cut off for being slow just ends, and the
 * client goes on from the last revision it saw.
 */
#include "controlplane/api/watch.h"

#include "base/clock.h"
#include "base/rand.h"
#include "controlplane/api/customs.h"
#include "controlplane/api/priv.h"
#include "controlplane/api/ticker.h"

#define BOOKMARK_MS 60000
#define DEFAULT_TIMEOUT_S 1800 /* to twice as much, at random, as upstream's min-request-timeout */

struct th_apiwatch {
    struct th_call call; /* res, storage, accept and ctx only: what rows and forms need */
    struct th_ticker *ticker;
    struct th_tick tick;
    bool ticking;
    struct th_select select;
    char *include;
    struct th_watch *w;          /* NULL: only what is in `last` */
    struct th_store_list initial;
    size_t next_initial;
    bool mark;                   /* the end of the initial events is still to be told */
    bool bookmarks;
    bool columns_sent;
    bool ended;
    int64_t mark_rv;
    int64_t sent_rv;             /* newest revision the client knows */
    int64_t deadline_ms, bookmark_ms;
    struct th_event *cur;        /* keeps the frame handed out alive */
    struct th_buf scratch;
    th_apiwatch_wake_fn *wake;
    void *wake_arg;
    pthread_mutex_t lock;        /* guards wake and woken */
    bool woken;
};

static void on_wake(void *arg)
{
    struct th_apiwatch *w = arg;
    (void)pthread_mutex_lock(&w->lock);
    w->woken = true;
    if (w->wake) {
        w->wake(w->wake_arg);
    }
    (void)pthread_mutex_unlock(&w->lock);
}

static int64_t next_due(const struct th_apiwatch *w)
{
    return w->bookmarks && w->bookmark_ms < w->deadline_ms ? w->bookmark_ms : w->deadline_ms;
}

void th_apiwatch_attach(struct th_apiwatch *w, th_apiwatch_wake_fn *fn, void *arg)
{
    (void)pthread_mutex_lock(&w->lock);
    w->wake = fn;
    w->wake_arg = arg;
    if (w->woken) {
        fn(arg);
    }
    (void)pthread_mutex_unlock(&w->lock);
    if (!w->ended) {
        th_tick_add(w->ticker, &w->tick, next_due(w), on_wake, w);
        w->ticking = true;
    }
}

void th_apiwatch_close(struct th_apiwatch *w)
{
    if (!w) {
        return;
    }
    if (w->ticking) {
        th_tick_del(w->ticker, &w->tick);
    }
    if (w->w) {
        th_watch_close(w->w);
    }
    if (w->cur) {
        th_event_unref(w->cur);
    }
    th_select_done(&w->select);
    th_customs_unref(w->call.customs);
    th_store_list_done(&w->initial);
    th_buf_done(&w->scratch);
    free(w->include);
    (void)pthread_mutex_destroy(&w->lock);
    free(w);
}

static const char *type_name(enum th_event_type t)
{
    static const char *const names[] = {"ADDED", "MODIFIED", "DELETED"};
    return names[t];
}

static void put_rv(struct th_apiwatch *w, const char *rv)
{
    int64_t v = strtoll(rv ? rv : "0", NULL, 10);
    if (v > w->sent_rv) {
        w->sent_rv = v;
    }
}

/* One frame around an object's text, in the encoding of this watch. k is the object's kind; without
 * one (or a protobuf form) there is JSON only. */
static bool put_frame(struct th_apiwatch *w, const char *type, struct th_str object,
                      const struct th_kind *k)
{
    struct th_buf *b = &w->scratch;
    th_buf_clear(b);
    if (w->call.accept.media == TH_MEDIA_PROTOBUF) {
        th_autobuf struct th_buf made = TH_BUF_INIT;
        if (!k || th_pb_encode_text(k, object, &made, NULL) < 0) {
            return false;
        }
        th_pb_watch_frame(type, th_buf_str(&made), b);
        return true;
    }
    th_buf_printf(b, "{\"type\":\"%s\",\"object\":", type);
    th_buf_addstr(b, object);
    th_buf_puts(b, "}\n");
    return true;
}

static const struct th_kind *partial_kind(const struct th_apiwatch *w)
{
    const char *version = strchr(w->call.accept.gv, '/') + 1;
    return th_kind_find("meta.k8s.io", version, "PartialObjectMetadata");
}

/* A parsed object in the form of this watch. */
static bool frame_tree(struct th_apiwatch *w, enum th_event_type type, const struct th_json *o)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    const struct th_kind *k = w->call.kind;
    w->call.ctx.now_ms = th_now_ms(); /* ages of Table rows */
    const char *rv = th_json_path_str(o, "metadata.resourceVersion");
    if (w->call.accept.form == TH_FORM_TABLE) {
        th_table_head(&w->call, rv, NULL, 0, !w->columns_sent, &b);
        if (th_table_row(&w->call, o, w->include, &b, NULL) < 0) {
            return false;
        }
        th_buf_puts(&b, "]}");
        w->columns_sent = true;
    } else if (w->call.accept.form == TH_FORM_PARTIAL) {
        th_partial_meta(o, w->call.accept.gv, &b);
        k = partial_kind(w);
    } else {
        th_json_dump(o, &b);
    }
    put_rv(w, rv);
    return put_frame(w, type_name(type), th_buf_str(&b), k);
}

static bool plain(const struct th_apiwatch *w)
{
    return w->call.accept.form == TH_FORM_OBJECT && w->call.res == w->call.storage;
}

static bool frame_obj(struct th_apiwatch *w, enum th_event_type type, const struct th_obj *o)
{
    if (plain(w)) {
        return put_frame(w, type_name(type), (struct th_str){o->bytes, o->n}, w->call.kind);
    }
    TH_AUTO(th_json) struct th_json *tree = NULL;
    return th_object_load(w->call.res, o, &tree, NULL) >= 0 && frame_tree(w, type, tree);
}

/* The state before, stamped with the revision at which it ceased to match. */
static bool frame_gone(struct th_apiwatch *w, const struct th_obj *prev, int64_t rv)
{
    TH_AUTO(th_json) struct th_json *tree = NULL;
    if (th_object_load(w->call.res, prev, &tree, NULL) < 0) {
        return false;
    }
    th_json_path_set(tree, "metadata.resourceVersion", th_json_stringf("%lld", (long long)rv));
    return frame_tree(w, TH_EV_DELETED, tree);
}

static int encode_event(void *arg, const char *type, struct th_str object, struct th_buf *b)
{
    th_autobuf struct th_buf made = TH_BUF_INIT;
    TH_TRY(th_pb_encode_text(arg, object, &made, NULL));
    th_pb_watch_frame(type, th_buf_str(&made), b);
    return 0;
}

/* Takes e. True when a frame was made. */
static bool frame_event(struct th_apiwatch *w, struct th_event *e, struct th_str *ret)
{
    bool is = e->obj && th_select_matches(&w->select, e->obj);
    bool was = false;
    enum th_event_type as = e->type;
    if (!th_select_all(&w->select)) {
        if (e->type == TH_EV_MODIFIED) {
            was = e->prev && th_select_matches(&w->select, e->prev);
            as = is && was ? TH_EV_MODIFIED : is ? TH_EV_ADDED : TH_EV_DELETED;
        } else if (e->type == TH_EV_DELETED && !is) {
            was = e->prev && th_select_matches(&w->select, e->prev);
        }
    }
    bool made = false;
    if (is) {
        w->sent_rv = e->rv;
        if (plain(w)) {
            *ret = w->call.accept.media == TH_MEDIA_PROTOBUF
                       ? th_event_encoded(e, as, encode_event, (void *)(uintptr_t)w->call.kind)
                       : th_event_frame(e, as);
            w->cur = e; /* the frame lives as long as the event */
            return ret->p != NULL;
        }
        made = frame_obj(w, as, e->obj);
    } else if (was) {
        made = frame_gone(w, e->prev, e->rv);
    }
    th_event_unref(e);
    *ret = th_buf_str(&w->scratch);
    return made;
}

static void frame_bookmark(struct th_apiwatch *w, int64_t rv, bool initial_end)
{
    const struct th_resource *r = w->call.res;
    TH_AUTO(th_json) struct th_json *meta =
        th_json_build("{'resourceVersion':%o}", th_json_stringf("%lld", (long long)rv));
    if (initial_end) {
        th_json_path_set(meta, "annotations",
                         th_json_build("{'k8s.io/initial-events-end':'true'}"));
    }
    th_autofree char *gv = *r->group ? th_xasprintf("%s/%s", r->group, r->version)
                                     : th_xstrdup(r->version);
    th_autobuf struct th_buf b = TH_BUF_INIT;
    const struct th_kind *k = w->call.kind;
    if (w->call.accept.form == TH_FORM_TABLE) {
        /* A Table without rows would lose the annotation: one row carries the metadata. */
        char text[24];
        (void)snprintf(text, sizeof(text), "%lld", (long long)rv);
        th_table_head(&w->call, text, NULL, 0, !w->columns_sent, &b);
        w->columns_sent = true;
        th_buf_puts(&b, "{\"cells\":[],\"object\":{\"kind\":\"PartialObjectMetadata\","
                        "\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":");
        th_json_dump(meta, &b);
        th_buf_puts(&b, "}}]}");
    } else {
        bool partial = w->call.accept.form == TH_FORM_PARTIAL;
        TH_AUTO(th_json) struct th_json *o = th_json_build(
            "{'kind':%s,'apiVersion':%s}", partial ? "PartialObjectMetadata" : r->kind,
            partial ? w->call.accept.gv : gv);
        th_json_set(o, "metadata", th_json_ref(meta));
        th_json_dump(o, &b);
        k = partial ? partial_kind(w) : k;
    }
    (void)put_frame(w, "BOOKMARK", th_buf_str(&b), k);
    w->sent_rv = rv;
}

/* Frames of the snapshot and its end mark. */
static bool next_initial(struct th_apiwatch *w)
{
    while (w->next_initial < w->initial.n) {
        size_t i = w->next_initial++;
        bool made = frame_obj(w, TH_EV_ADDED, w->initial.objs[i]);
        if (w->next_initial == w->initial.n) {
            th_store_list_done(&w->initial);
            w->initial = (struct th_store_list){.n = 0};
            w->next_initial = 0;
            w->sent_rv = w->mark_rv;
        }
        if (made) {
            return true;
        }
    }
    if (w->mark) {
        w->mark = false;
        frame_bookmark(w, w->mark_rv, true);
        return true;
    }
    return false;
}

/* Bookmarks and the end, when nothing else waits. */
static int idle(struct th_apiwatch *w, struct th_str *ret)
{
    int64_t now = th_mono_ms();
    bool over = now >= w->deadline_ms;
    int64_t rv = th_watch_progress(w->w);
    bool due = w->bookmarks && rv > 0 && (now >= w->bookmark_ms || (over && rv > w->sent_rv));
    if (now >= w->bookmark_ms) {
        w->bookmark_ms = now + BOOKMARK_MS;
    }
    if (over) {
        w->ended = true;
    } else if (w->ticking) {
        th_tick_set(w->ticker, &w->tick, next_due(w));
    }
    if (due) {
        frame_bookmark(w, rv, false);
        *ret = th_buf_str(&w->scratch);
        return 1;
    }
    return over ? -1 : 0;
}

int th_apiwatch_next(struct th_apiwatch *w, struct th_str *ret)
{
    if (w->cur) {
        th_event_unref(w->cur);
        w->cur = NULL;
    }
    if (next_initial(w)) {
        *ret = th_buf_str(&w->scratch);
        return 1;
    }
    if (!w->w && !w->ended) { /* the one frame that was prepared: an ERROR event */
        w->ended = true;
        *ret = th_buf_str(&w->scratch);
        return 1;
    }
    while (!w->ended) {
        bool cut = false;
        struct th_event *e = th_watch_next(w->w, &cut);
        if (cut) {
            if (e) {
                th_event_unref(e);
            }
            w->ended = true;
            return -1;
        }
        if (!e) {
            return idle(w, ret);
        }
        if (frame_event(w, e, ret)) {
            return 1;
        }
    }
    return -1;
}

bool th_apiwatch_cut(struct th_apiwatch *w)
{
    return w->w && th_watch_cut(w->w);
}

/* The snapshot that a watch without revision begins with. */
static int take_snapshot(struct th_call *c, struct th_apiwatch *w, const char *prefix,
                         struct th_err *err)
{
    TH_TRY(th_store_range(c->api->store, prefix, NULL, 0, 0, &w->initial, err));
    w->mark_rv = w->initial.rv;
    w->sent_rv = w->initial.rv;
    size_t n = 0;
    for (size_t i = 0; i < w->initial.n; i++) {
        if (th_select_matches(&w->select, w->initial.objs[i])) {
            w->initial.objs[n++] = w->initial.objs[i];
        } else {
            th_obj_unref(w->initial.objs[i]);
        }
    }
    w->initial.n = n;
    if (n == 0) {
        th_store_list_done(&w->initial);
        w->initial = (struct th_store_list){.n = 0};
    }
    return 0;
}

static void frame_error(struct th_apiwatch *w, const struct th_err *e)
{
    TH_AUTO(th_json) struct th_json *status = th_status_json(e);
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_json_dump(status, &b);
    (void)put_frame(w, "ERROR", th_buf_str(&b), th_kind_find("", "v1", "Status"));
}

static int open_at(struct th_call *c, struct th_apiwatch *w, const struct th_listopts *o,
                   struct th_err *err)
{
    /* A field selector on one name narrows the stream to one key's prefix. */
    th_autofree char *base = th_store_prefix(c->storage, c->res->namespaced ? c->route.ns : NULL);
    bool one = w->select.name && (!c->res->namespaced || c->route.ns);
    th_autofree char *prefix =
        one ? (c->res->namespaced ? th_xasprintf("%s%s", base, w->select.name)
                                  : th_xasprintf("%s-/%s", base, w->select.name))
            : th_xstrdup(base);
    bool legacy = !o->initial_events_set && o->rv <= 0;
    int64_t from = o->rv;
    if (legacy || o->initial_events) {
        TH_TRY(th_listopts_check_rv(c, o->rv, err));
        TH_TRY(take_snapshot(c, w, prefix, err));
        from = w->mark_rv;
        w->mark = o->bookmarks; /* legacy requests are watch lists too, upstream's defaults say */
    } else if (o->initial_events_set && o->rv <= 0) {
        from = th_store_rv(c->api->store);
    }
    w->sent_rv = from;
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    int r = th_watch_open(c->api->store, prefix, from, on_wake, w, &w->w, &local);
    if (r == -TH_R_EXPIRED || r == -TH_R_GONE) {
        frame_error(w, &local);
        return 0;
    }
    if (r < 0 && err) {
        th_err_move(err, &local);
    }
    return r;
}

int th_verb_watch(struct th_call *c, struct th_err *err)
{
    struct th_listopts o;
    TH_TRY(th_listopts_parse(&c->query, true, &o, err));
    struct th_apiwatch *w = TH_NEW(struct th_apiwatch);
    (void)pthread_mutex_init(&w->lock, NULL);
    w->call = (struct th_call){.api = c->api,
                               .res = c->res,
                               .storage = c->storage,
                               .kind = c->kind,
                               .customs = th_customs_ref(c->customs),
                               .accept = c->accept,
                               .ctx = c->ctx};
    w->call.ctx.warnings = NULL;
    w->call.ctx.user = "";
    w->call.ctx.groups = NULL;
    w->call.ctx.extra = NULL;
    w->call.ctx.uid = NULL;
    w->ticker = c->api->ticker;
    w->bookmarks = o.bookmarks;
    int64_t now = th_mono_ms();
    int64_t timeout_s = o.timeout_s > 0 ? o.timeout_s
                                        : DEFAULT_TIMEOUT_S +
                                              (int64_t)th_rand_below(DEFAULT_TIMEOUT_S);
    if (timeout_s > INT32_MAX) {
        timeout_s = INT32_MAX;
    }
    w->deadline_ms = now + timeout_s * 1000;
    w->bookmark_ms = now + BOOKMARK_MS;
    const char *include = NULL;
    int r = th_table_include(c, &include, err);
    w->include = th_xstrdup(include);
    if (r >= 0) {
        r = th_select_parse(c, &w->select, err);
    }
    if (r >= 0) {
        r = open_at(c, w, &o, err);
    }
    if (r < 0) {
        th_apiwatch_close(w);
        return r;
    }
    c->resp->status = 200;
    c->resp->content_type = c->accept.media == TH_MEDIA_PROTOBUF ? TH_TYPE_PROTOBUF ";stream=watch"
                                                                 : "application/json";
    c->resp->watch = w;
    return 0;
}
