/* The store's front: opening, reading, handing in writes.
 *
 * Reads take the index's lock for reading, count references up and go. A list at an earlier
 * revision begins with the present and undoes the ring's events back to that revision; only when
 * the ring does not reach back far enough is SQLite asked.
 *
 * A caller's thread does what can be done before the queue: sizes are checked and heads are
 * scanned there, so that the writer (writer.c) has little left to do. A full queue makes callers wait.
 */
#include "base/log.h"
#include "controlplane/store/store_priv.h"

#include <inttypes.h>
#include <sqlite3.h>

/* With a database behind it, the ring is only a short cut. */
#define RING_MAX_EVENTS 4096
#define RING_MAX_B (8u << 20)
#define DEFAULT_AGE_MS (24 * 3600 * INT64_C(1000))
#define DEFAULT_HISTORY_B (INT64_C(256) << 20)

/* ---- Opening and closing ---- */

static void obj_free(void *o)
{
    th_obj_unref(o);
}

static void load_one(void *arg, struct th_obj *o)
{
    struct th_store *s = arg;
    th_omap_set(s->index, o->key, o);
    s->bytes += o->n;
}

static void clock_moved(void *arg)
{
    struct th_store *s = arg;
    pthread_mutex_lock(&s->q.lock);
    pthread_cond_broadcast(&s->q.cond);
    pthread_mutex_unlock(&s->q.lock);
}

static void init_locks(struct th_store *s)
{
    pthread_rwlockattr_t attr;
    pthread_rwlockattr_init(&attr);
    /* Readers come without pause; the writer must not wait for a gap. */
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&s->lock, &attr);
    pthread_rwlockattr_destroy(&attr);
    pthread_mutex_init(&s->q.lock, NULL);
    pthread_cond_init(&s->q.cond, NULL);
    pthread_cond_init(&s->q.space, NULL);
    s->q.last = &s->q.first;
    th_hub_init(&s->hub);
}

static void store_free(struct th_store *s)
{
    th_ring_done(&s->ring);
    th_omap_free(s->index);
    th_hmap_done(&s->staged);
    th_hub_done(&s->hub);
    if (s->db) {
        th_db_close(s->db);
        free(s->db);
    }
    pthread_cond_destroy(&s->q.cond);
    pthread_cond_destroy(&s->q.space);
    pthread_mutex_destroy(&s->q.lock);
    pthread_rwlock_destroy(&s->lock);
    free(s);
}

int th_store_open(const struct th_store_opts *opts, struct th_store **ret, struct th_err *err)
{
    struct th_store *s = TH_NEW(struct th_store);
    int64_t first_rv = opts->first_rv > 0 ? opts->first_rv : 1;
    s->max_age_ms = opts->history_max_age_ms > 0 ? opts->history_max_age_ms : DEFAULT_AGE_MS;
    s->max_b = opts->history_max_b > 0 ? opts->history_max_b : DEFAULT_HISTORY_B;
    s->index = th_omap_new(obj_free);
    th_hmap_init(&s->staged, NULL);
    init_locks(s);
    s->rv = s->compacted_rv = first_rv;
    s->ring.max_n = opts->path ? RING_MAX_EVENTS : SIZE_MAX;
    s->ring.max_b = opts->path ? RING_MAX_B : (size_t)s->max_b;
    if (opts->path) {
        struct th_db *db = TH_NEW(struct th_db);
        int r = th_db_open(db, opts->path, first_rv, load_one, s, &s->rv, &s->compacted_rv, err);
        if (r < 0) {
            free(db);
            store_free(s);
            return r;
        }
        s->db = db;
    }
    s->next_rv = s->rv + 1;
    s->published_rv = s->rv;
    s->q.compact_at_ms = th_mono_ms();
    int e = pthread_create(&s->compactor, NULL, th_store_compactor_main, s);
    if (e != 0) {
        store_free(s);
        return th_fail_errno(err, e, TH_R_INTERNAL, "starting the store's compaction");
    }
    s->clock_watch = (struct th_clock_watch){.fn = clock_moved, .arg = s};
    th_clock_watch_add(&s->clock_watch);
    th_info("store", "open", "keys=%zu rv=%" PRId64 " compacted_rv=%" PRId64 " path=%s",
            th_omap_count(s->index), s->rv, s->compacted_rv, opts->path ? opts->path : "(memory)");
    *ret = s;
    return 0;
}

void th_store_close(struct th_store *s)
{
    if (!s) {
        return;
    }
    th_clock_watch_del(&s->clock_watch);
    pthread_mutex_lock(&s->q.lock);
    s->q.stop = true;
    pthread_cond_broadcast(&s->q.cond);
    pthread_mutex_unlock(&s->q.lock);
    pthread_join(s->compactor, NULL);
    TH_ASSERT(s->hub.watchers == 0);
    store_free(s);
}

/* ---- Reading ---- */

int64_t th_store_rv(struct th_store *s)
{
    pthread_rwlock_rdlock(&s->lock);
    int64_t rv = s->rv;
    pthread_rwlock_unlock(&s->lock);
    return rv;
}

int64_t th_store_compacted_rv(struct th_store *s)
{
    pthread_rwlock_rdlock(&s->lock);
    int64_t rv = s->compacted_rv;
    pthread_rwlock_unlock(&s->lock);
    return rv;
}

struct th_obj *th_store_get(struct th_store *s, const char *key)
{
    pthread_rwlock_rdlock(&s->lock);
    struct th_obj *o = th_obj_ref(th_omap_get(s->index, key));
    pthread_rwlock_unlock(&s->lock);
    return o;
}

void th_store_list_done(struct th_store_list *l)
{
    for (size_t i = 0; i < l->n; i++) {
        th_obj_unref(l->objs[i]);
    }
    free(l->objs);
    *l = (struct th_store_list){.n = 0};
}

struct lister {
    struct th_store_list l;
    size_t cap, limit;
};

static void list_add(struct lister *x, struct th_obj *o)
{
    if (x->limit > 0 && x->l.n == x->limit) {
        x->l.more = true;
        x->l.remaining++;
        return;
    }
    x->l.objs = th_xgrow(x->l.objs, &x->cap, x->l.n + 1, sizeof(struct th_obj *));
    x->l.objs[x->l.n++] = th_obj_ref(o);
}

/* Where a list begins: the first entry under prefix with a key > after. */
static bool list_first(const struct th_omap *m, const char *prefix, const char *after,
                       struct th_omap_entry *e)
{
    return after && strcmp(after, prefix) >= 0 ? th_omap_after(m, after, e)
                                               : th_omap_seek(m, prefix, e);
}

/* How keys under prefix looked before the ring's events after at_rv: key -> event whose prev is it.
 */
static struct th_omap *undo_since(struct th_store *s, const char *prefix, int64_t at_rv)
{
    struct th_omap *undo = th_omap_new(NULL);
    size_t prefix_n = strlen(prefix);
    for (size_t i = th_ring_after(&s->ring, at_rv); i < s->ring.n; i++) {
        struct th_event *ev = th_ring_at(&s->ring, i)->ev;
        if (strncmp(ev->obj->key, prefix, prefix_n) == 0 && !th_omap_get(undo, ev->obj->key)) {
            th_omap_set(undo, ev->obj->key, ev);
        }
    }
    return undo;
}

/* Index and undo list merged in key order; lock held. */
static void list_merged(struct th_store *s, const char *prefix, const char *after,
                        const struct th_omap *undo, struct lister *x)
{
    size_t prefix_n = strlen(prefix);
    struct th_omap_entry a, b;
    bool have_a = list_first(s->index, prefix, after, &a);
    bool have_b = undo && list_first(undo, prefix, after, &b);
    for (;;) {
        have_a = have_a && strncmp(a.key, prefix, prefix_n) == 0;
        if (!have_a && !have_b) {
            return;
        }
        int c = !have_b ? -1 : !have_a ? 1 : strcmp(a.key, b.key);
        if (c < 0) {
            list_add(x, a.value);
        } else if (((struct th_event *)b.value)->prev) {
            list_add(x, ((struct th_event *)b.value)->prev);
        }
        if (c <= 0) {
            have_a = th_omap_after(s->index, a.key, &a);
        }
        if (c >= 0) {
            have_b = th_omap_after(undo, b.key, &b);
        }
    }
}

int th_store_range(struct th_store *s, const char *prefix, const char *after, size_t limit,
                   int64_t at_rv, struct th_store_list *ret, struct th_err *err)
{
    struct lister x = {.limit = limit};
    int r = 0;
    bool from_db = false;
    pthread_rwlock_rdlock(&s->lock);
    if (at_rv <= 0 || at_rv == s->rv) {
        x.l.rv = s->rv;
        list_merged(s, prefix, after, NULL, &x);
    } else if (at_rv > s->rv) {
        r = th_fail(err, TH_R_TIMEOUT,
                    "Timeout: Too large resource version: %" PRId64 ", current: %" PRId64, at_rv,
                    s->rv);
        if (err) {
            err->retry_after_s = 1;
        }
    } else if (at_rv < s->compacted_rv) {
        r = th_fail(err, TH_R_EXPIRED, "too old resource version: %" PRId64 " (%" PRId64 ")", at_rv,
                    s->compacted_rv);
    } else if (s->ring.n > 0 && th_ring_at(&s->ring, 0)->ev->rv <= at_rv + 1) {
        TH_AUTO(th_omap) struct th_omap *undo = undo_since(s, prefix, at_rv);
        x.l.rv = at_rv;
        list_merged(s, prefix, after, undo, &x);
    } else {
        from_db = true;
    }
    pthread_rwlock_unlock(&s->lock);
    if (from_db) {
        return th_db_range(s->db, prefix, after, limit, at_rv, ret, err);
    }
    if (r == 0) {
        *ret = x.l;
    }
    return r;
}

/* ---- Writing ---- */

static int prepare(struct th_request *q, struct th_err *err)
{
    for (size_t i = 0; i < q->n; i++) {
        const struct th_store_write *w = &q->w[i];
        if (w->op == TH_STORE_DELETE && !w->bytes) {
            continue;
        }
        if (!w->bytes) {
            return th_fail(err, TH_R_BAD_REQUEST, "a write of \"%s\" without an object", w->key);
        }
        if (w->n > TH_LIMIT_OBJECT_B) {
            return th_fail(err, TH_R_TOO_LARGE,
                           "the object is too large: %zu bytes, the limit is %u", w->n,
                           TH_LIMIT_OBJECT_B);
        }
        TH_TRY(th_head_scan(w->bytes, w->n, &q->heads[i], err));
    }
    return 0;
}

static void wait_for(struct th_request *q)
{
    while (sem_wait(&q->done) != 0) {
        /* a signal came */
    }
}

/* Queues q and waits for its outcome, as the writer if nobody else is. */
static int submit(struct th_store *s, struct th_request *q, struct th_err *err)
{
    sem_init(&q->done, 0, 0);
    pthread_mutex_lock(&s->q.lock);
    while (s->q.n >= TH_LIMIT_WRITE_QUEUE && !s->q.stop) {
        pthread_cond_wait(&s->q.space, &s->q.lock);
    }
    bool closing = s->q.stop;
    bool lead = !closing && !s->q.busy;
    if (!closing) {
        *s->q.last = q;
        s->q.last = &q->next;
        s->q.n++;
        s->q.busy = true;
    }
    pthread_mutex_unlock(&s->q.lock);
    if (closing) {
        q->rc = th_fail(&q->err, TH_R_UNAVAILABLE, "the store is closing");
    } else {
        if (lead) {
            th_store_write_turn(s);
        }
        wait_for(q);
        if (q->lead) {
            th_store_write_turn(s);
            wait_for(q);
        }
    }
    sem_destroy(&q->done);
    if (q->rc < 0 && err) {
        th_err_move(err, &q->err);
    }
    th_err_done(&q->err);
    return q->rc;
}

int th_store_commit(struct th_store *s, const struct th_store_write *w, size_t n,
                    struct th_obj **ret_objs, struct th_err *err)
{
    struct th_head head1;
    struct th_pending pend1 = {.ev = NULL};
    struct th_request q = {.w = w, .n = n, .heads = &head1, .pend = &pend1, .err = TH_ERR_INIT};
    th_autofree struct th_head *heads = NULL;
    th_autofree struct th_pending *pend = NULL;
    if (n == 0) {
        return 0;
    }
    if (n > 1) { /* one write, the usual case, allocates nothing */
        q.heads = heads = th_xcalloc(n, sizeof(*heads));
        q.pend = pend = th_xcalloc(n, sizeof(*pend));
    }
    TH_TRY(prepare(&q, err));
    int r = submit(s, &q, err);
    for (size_t i = 0; r == 0 && i < n; i++) {
        if (ret_objs) {
            ret_objs[i] = th_obj_ref(q.pend[i].ev->obj);
        }
        th_event_unref(q.pend[i].ev);
    }
    return r;
}

int th_store_compact(struct th_store *s, int64_t rv, struct th_err *err)
{
    struct th_request q = {.compact_rv = rv, .err = TH_ERR_INIT};
    int64_t now = th_store_rv(s);
    if (rv > now) {
        return th_fail(err, TH_R_BAD_REQUEST,
                       "revision %" PRId64 " is in the future: %" PRId64 " is the newest", rv, now);
    }
    return rv <= th_store_compacted_rv(s) ? 0 : submit(s, &q, err);
}

void th_store_stats(struct th_store *s, struct th_store_stats *ret)
{
    pthread_mutex_lock(&s->hub.lock);
    size_t watchers = s->hub.watchers;
    pthread_mutex_unlock(&s->hub.lock);
    pthread_rwlock_rdlock(&s->lock);
    *ret = (struct th_store_stats){.keys = th_omap_count(s->index),
                                   .bytes = s->bytes,
                                   .watchers = watchers,
                                   .commits = s->commits,
                                   .rows = s->rows,
                                   .events = s->events,
                                   .read_only = __atomic_load_n(&s->read_only, __ATOMIC_RELAXED)};
    pthread_rwlock_unlock(&s->lock);
}

/* ---- Hooks of the tests ---- */

int th_store_test_sql(struct th_store *s, const char *sql)
{
    return sqlite3_exec(s->db->w, sql, NULL, NULL, NULL);
}

void th_store_test_fail(struct th_store *s, int sqlite_rc, int n)
{
    __atomic_store_n(&s->db->fail_rc, sqlite_rc, __ATOMIC_RELAXED);
    __atomic_store_n(&s->db->fail_n, n, __ATOMIC_RELAXED);
}
