/* The writer: one transaction for all that waits.
 *
 * Problem: an fsync costs 0.3 ms and more; thirty clients that write at once must share it, and
 * each must still see its own precondition checked against everything before it. And a client that
 * writes alone should not pay for two switches of threads on the way to the disk and back.
 *
 * Design: callers put requests into a queue. Who finds nobody writing takes the role of the writer
 * (q.busy) himself; the others sleep. The writer takes what is there (up to TH_LIMIT_COMMIT_ROWS
 * rows), checks and stages request after request against the index and what is staged already, writes
 * all rows in one transaction, and only then publishes: index and ring under the write lock, then
 * every watcher, in the order of revisions, then the callers wake. While he waits for the disk, the
 * next batch gathers by itself; there is no timer. After one batch he hands the role to the first who
 * waits, so nobody works long for others.
 *
 * A write has one revision; the writes of one atomic request have neighbouring ones and become
 * visible together.
 *
 * When the transaction fails, the staged objects are dropped, next_rv goes back, and every request
 * of the batch fails with the same reason. So does a request that had been refused because of a
 * write in this batch: what it was told would not be true. Nothing sticks: the next batch tries
 * again.
 *
 * Compaction is done by a thread that asks for the role like everybody, in small steps between
 * batches, so that no write waits for more than one of them. Revisions that are given up by a failed batch are used again; nobody has seen them.
 */
#include "base/log.h"
#include "controlplane/store/store_priv.h"

#include <inttypes.h>

#define COMPACT_STEP_ROWS 256
#define COMPACT_PERIOD_MS 60000
#define COMPACT_RETRY_MS 5000

struct batch {
    struct th_request *first; /* all requests, in order */
    struct th_pending **rows; /* what is to be written */
    size_t n, cap;
};

/* ---- Staging ---- */

/* The newest state of key: staged, else visible. Borrowed. */
static struct th_obj *newest(struct th_store *s, const char *key, struct th_pending **ret_staged)
{
    struct th_pending *p = th_hmap_get(&s->staged, key);
    *ret_staged = p;
    if (p) {
        return p->op == TH_STORE_DELETE ? NULL : p->ev->obj;
    }
    /* Only the writer changes the index, so he may read without the lock. */
    return th_omap_get(s->index, key);
}

static int check(const struct th_store_write *w, const struct th_obj *cur, struct th_err *err)
{
    if (w->op == TH_STORE_CREATE) {
        return cur ? th_fail(err, TH_R_ALREADY_EXISTS, "\"%s\" already exists", w->key) : 0;
    }
    if (!cur) {
        return th_fail(err, TH_R_NOT_FOUND, "\"%s\" not found", w->key);
    }
    if (w->expect_rv != 0 && w->expect_rv != cur->rv) {
        return th_fail(err, TH_R_CONFLICT,
                       "the object has been modified; please apply your changes "
                       "to the latest version and try again");
    }
    return 0;
}

static int stage_one(struct th_store *s, struct th_request *q, size_t i, struct th_err *err)
{
    const struct th_store_write *w = &q->w[i];
    struct th_pending *p = &q->pend[i];
    struct th_obj *cur = newest(s, w->key, &p->under);
    int r = check(w, cur, err);
    if (r < 0) {
        q->on_pending = p->under != NULL;
        return r;
    }
    static const enum th_event_type types[] = {TH_EV_ADDED, TH_EV_MODIFIED, TH_EV_DELETED};
    int64_t rv = s->next_rv++;
    struct th_obj *o =
        w->bytes ? th_obj_new(w->key, &q->heads[i], w->bytes, w->n, rv, cur ? cur->create_rv : rv)
                 : th_obj_restamp(cur, rv);
    p->op = w->op;
    p->ev = th_event_new(types[w->op], rv, o, th_obj_ref(cur));
    p->key = o->key;
    th_hmap_set(&s->staged, p->key, p);
    return 0;
}

/* Takes back the first n writes of a request, newest first. */
static void unstage(struct th_store *s, struct th_request *q, size_t n)
{
    while (n > 0) {
        struct th_pending *p = &q->pend[--n];
        if (p->under) {
            th_hmap_set(&s->staged, p->key, p->under);
        } else {
            (void)th_hmap_remove(&s->staged, p->key);
        }
        th_event_unref(p->ev);
        p->ev = NULL;
        s->next_rv--;
    }
}

static void stage(struct th_store *s, struct batch *b, struct th_request *q)
{
    for (size_t i = 0; i < q->n; i++) {
        q->rc = stage_one(s, q, i, &q->err);
        if (q->rc < 0) {
            unstage(s, q, i);
            return;
        }
    }
    q->staged = true;
    b->rows = th_xgrow(b->rows, &b->cap, b->n + q->n, sizeof(struct th_pending *));
    for (size_t i = 0; i < q->n; i++) {
        b->rows[b->n++] = &q->pend[i];
    }
}

/* ---- Outcome ---- */

static void fail_batch(struct th_store *s, struct batch *b, const struct th_err *cause)
{
    for (struct th_request *q = b->first; q; q = q->next) {
        if (!q->staged && !q->on_pending) {
            continue;
        }
        q->rc = th_fail(&q->err, cause->reason, "%s", cause->msg);
        if (cause->hint) {
            th_hint(&q->err, "%s", cause->hint);
        }
    }
    for (size_t i = 0; i < b->n; i++) {
        th_event_unref(b->rows[i]->ev);
        b->rows[i]->ev = NULL;
    }
    s->next_rv = s->rv + 1;
}

void th_store_trim_ring(struct th_store *s, int64_t now_ms, struct th_buf *drop)
{
    struct th_ring *r = &s->ring;
    while (r->n > 0) {
        struct th_ring_entry *e = th_ring_at(r, 0);
        bool old = !s->db && now_ms - e->time_ms > s->max_age_ms;
        if (e->ev->rv > s->compacted_rv && !old && !th_ring_over(r)) {
            break;
        }
        if (!s->db && e->ev->rv > s->compacted_rv) {
            s->compacted_rv = e->ev->rv;
        }
        struct th_event *ev = th_ring_pop(r);
        th_buf_add(drop, &ev, sizeof(struct th_event *));
    }
}

void th_store_drop_events(struct th_buf *drop)
{
    struct th_event **v = (struct th_event **)(void *)drop->p;
    for (size_t i = 0; i < drop->n / sizeof(struct th_event *); i++) {
        th_event_unref(v[i]);
    }
    th_buf_done(drop);
}

static void show(struct th_store *s, struct th_event *ev, int64_t now_ms)
{
    struct th_obj *o = ev->obj;
    if (ev->prev) {
        s->bytes -= ev->prev->n;
    }
    if (ev->type == TH_EV_DELETED) {
        th_obj_unref(th_omap_remove(s->index, o->key));
    } else {
        s->bytes += o->n;
        th_omap_set(s->index, o->key, th_obj_ref(o));
    }
    th_ring_push(&s->ring, ev, now_ms);
    s->rv = ev->rv;
}

/* The batch is durable: everybody may see it. Takes the events. */
static void publish(struct th_store *s, struct batch *b, int64_t now_ms)
{
    struct th_buf drop = TH_BUF_INIT;
    pthread_mutex_lock(&s->hub.lock);
    pthread_rwlock_wrlock(&s->lock);
    for (size_t i = 0; i < b->n; i++) {
        show(s, th_event_ref(b->rows[i]->ev), now_ms);
    }
    s->commits++;
    s->rows += b->n;
    s->events += b->n;
    th_store_trim_ring(s, now_ms, &drop);
    pthread_rwlock_unlock(&s->lock);
    for (size_t i = 0; i < b->n; i++) {
        th_hub_publish(&s->hub, b->rows[i]->ev);
    }
    __atomic_store_n(&s->published_rv, s->rv, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&s->hub.lock);
    th_store_drop_events(&drop);
}

/* Wakes the callers of a list of requests. After this the requests are gone. */
static void complete(struct th_request *first)
{
    for (struct th_request *q = first, *next; q; q = next) {
        next = q->next;
        sem_post(&q->done);
    }
}

static void run_batch(struct th_store *s, struct batch *b)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    for (struct th_request *q = b->first; q; q = q->next) {
        stage(s, b, q);
    }
    th_hmap_clear(&s->staged);
    if (b->n > 0) {
        int64_t now_ms = th_now_ms();
        int r = s->db ? th_db_commit(s->db, b->rows, b->n, now_ms, s->rv, &err) : 0;
        bool was = __atomic_exchange_n(&s->read_only, r < 0, __ATOMIC_RELAXED);
        if (r < 0) {
            if (!was) {
                th_error("store", "writes fail", "err=%s", th_log_q(err.msg));
            }
            fail_batch(s, b, &err);
        } else {
            if (was) {
                th_info("store", "writes work again", NULL);
            }
            publish(s, b, now_ms);
        }
    }
    complete(b->first);
}

/* ---- Compaction ---- */

/* Raises the compaction point in memory and forgets what is below it. */
static void forget_below(struct th_store *s, int64_t compacted)
{
    struct th_buf drop = TH_BUF_INIT;
    pthread_rwlock_wrlock(&s->lock);
    if (compacted > s->compacted_rv) {
        s->compacted_rv = compacted;
    }
    th_store_trim_ring(s, th_now_ms(), &drop);
    pthread_rwlock_unlock(&s->lock);
    th_store_drop_events(&drop);
}

/* One step, as the writer; sets when the next one is due. */
static void compact(struct th_store *s)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    int64_t force = 0;
    pthread_mutex_lock(&s->q.lock);
    for (struct th_request *q = s->q.compacting; q; q = q->next) {
        force = q->compact_rv > force ? q->compact_rv : force;
    }
    pthread_mutex_unlock(&s->q.lock);
    int r = 0;
    if (s->db) {
        int64_t compacted = s->compacted_rv; /* only the writer changes it */
        r = th_db_compact_step(s->db, force, th_now_ms() - s->max_age_ms, s->max_b,
                               COMPACT_STEP_ROWS, &compacted, &err);
        forget_below(s, compacted);
    } else {
        forget_below(s, force);
    }
    if (r < 0) {
        th_warn("store", "compaction failed", "err=%s", th_log_q(err.msg));
    }
    struct th_request *done = NULL;
    pthread_mutex_lock(&s->q.lock);
    s->q.compact_at_ms = th_mono_ms() + (r < 0 ? COMPACT_RETRY_MS : r > 0 ? 0 : COMPACT_PERIOD_MS);
    struct th_request **at = &s->q.compacting;
    while (*at) {
        struct th_request *q = *at;
        if (r < 0) {
            q->rc = th_fail(&q->err, err.reason, "%s", err.msg);
        }
        if (r < 0 || s->compacted_rv >= q->compact_rv) {
            *at = q->next;
            q->next = done;
            done = q;
        } else {
            at = &q->next;
        }
    }
    pthread_mutex_unlock(&s->q.lock);
    complete(done);
}

/* ---- The role ---- */

/* Takes requests for one batch; q.lock held. Compaction requests go to their own list. */
static void take(struct th_store *s, struct batch *b)
{
    struct th_request **tail = &b->first;
    size_t rows = 0;
    while (s->q.first && (rows == 0 || rows + s->q.first->n <= TH_LIMIT_COMMIT_ROWS)) {
        struct th_request *q = s->q.first;
        s->q.first = q->next;
        s->q.n--;
        q->next = NULL;
        if (q->compact_rv > 0) {
            q->next = s->q.compacting;
            s->q.compacting = q;
            s->q.compact_at_ms = 0;
            s->q.compact_waits = true;
            pthread_cond_signal(&s->q.cond);
            continue;
        }
        *tail = q;
        tail = &q->next;
        rows += q->n;
    }
    if (!s->q.first) {
        s->q.last = &s->q.first;
    }
    pthread_cond_broadcast(&s->q.space);
}

/* The role goes to the compaction when it waits for it, else to the first request, else to nobody. */
static void hand_on(struct th_store *s)
{
    struct th_request *next = NULL;
    pthread_mutex_lock(&s->q.lock);
    if (s->q.compact_waits) {
        s->q.compact_waits = false;
        s->q.compact_turn = true;
        pthread_cond_signal(&s->q.cond);
    } else if (s->q.first) {
        next = s->q.first;
        next->lead = true;
    } else {
        s->q.busy = false;
        if (s->q.stop) {
            pthread_cond_signal(&s->q.cond);
        }
    }
    pthread_mutex_unlock(&s->q.lock);
    if (next) {
        sem_post(&next->done);
    }
}

void th_store_write_turn(struct th_store *s)
{
    struct batch b = {.n = 0};
    pthread_mutex_lock(&s->q.lock);
    take(s, &b);
    pthread_mutex_unlock(&s->q.lock);
    if (b.first) {
        run_batch(s, &b);
    }
    free(b.rows);
    hand_on(s);
}

/* The compaction waits until it is due, and then for the role. */
void *th_store_compactor_main(void *store)
{
    struct th_store *s = store;
    pthread_mutex_lock(&s->q.lock);
    for (;;) {
        bool due = s->q.compacting || th_mono_ms() >= s->q.compact_at_ms;
        if (s->q.stop && !s->q.busy && !s->q.compacting) {
            break;
        }
        if (s->q.compact_turn || (due && !s->q.busy)) {
            s->q.compact_turn = false;
            s->q.busy = true;
            pthread_mutex_unlock(&s->q.lock);
            compact(s);
            hand_on(s);
            pthread_mutex_lock(&s->q.lock);
        } else if (due || s->q.stop) {
            s->q.compact_waits = due;
            pthread_cond_wait(&s->q.cond, &s->q.lock);
        } else {
            th_clock_cond_wait(&s->q.cond, &s->q.lock, s->q.compact_at_ms);
        }
    }
    pthread_mutex_unlock(&s->q.lock);
    return NULL;
}
