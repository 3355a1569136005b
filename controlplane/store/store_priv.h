#ifndef TH_STORE_PRIV_H
#define TH_STORE_PRIV_H
/* Inside of the store, for its own files and its tests.
 *
 * Locks, in the order in which they may be taken together:
 *   hub.lock       watchers and their buckets; held while a batch is published and while a watch
 *                  is opened or closed, so that both see one line of revisions
 *   lock (rwlock)  the index, the ring, rv, compacted_rv; the writer alone takes it for writing
 *   watch.lock     one watcher's queue
 * Alone: q.lock (waiting writes), db.read_lock (the reading connection).
 * The writing connection, next_rv and what is staged belong to the writer: to the thread that set
 * q.busy, or was handed it. */
#include "base/clock.h"
#include "base/hmap.h"
#include "base/limits.h"
#include "controlplane/store/head.h"
#include "controlplane/store/store.h"

#include <pthread.h>
#include <semaphore.h>

/* ---- obj.c ---- */
/* A new object of p stamped with rv as h says. */
struct th_obj *th_obj_new(const char *key, const struct th_head *h, const char *p, size_t n,
                          int64_t rv, int64_t create_rv);
/* A new object of bytes that carry their resourceVersion already (rows of the database). */
int th_obj_load(const char *key, size_t key_n, const char *p, size_t n, int64_t rv,
                int64_t create_rv, struct th_obj **ret, struct th_err *err) TH_MUST_USE;
/* o's bytes stamped anew. */
struct th_obj *th_obj_restamp(const struct th_obj *o, int64_t rv);
/* Takes the references. */
struct th_event *th_event_new(enum th_event_type type, int64_t rv, struct th_obj *obj,
                              struct th_obj *prev);

/* ---- ring.c: recent events, oldest first, revisions without gaps ---- */
struct th_ring_entry {
    struct th_event *ev;
    int64_t time_ms;
    size_t cost_b;
};
struct th_ring {
    struct th_ring_entry *v; /* circular, cap is a power of two */
    size_t head, n, cap;
    size_t bytes;
    size_t max_n, max_b;
};
void th_ring_done(struct th_ring *r);
void th_ring_push(struct th_ring *r, struct th_event *ev, int64_t time_ms); /* takes ev */
struct th_ring_entry *th_ring_at(struct th_ring *r, size_t i);
/* Index of the first event with a revision > rv; r->n when there is none. */
size_t th_ring_after(struct th_ring *r, int64_t rv);
/* Removes and returns the oldest; the caller owns the reference. */
struct th_event *th_ring_pop(struct th_ring *r);
bool th_ring_over(const struct th_ring *r);

/* ---- One write on its way ---- */
struct th_pending {
    struct th_event *ev;      /* becomes visible when the batch is durable */
    struct th_pending *under; /* the write of the same key before it, in the same batch */
    const char *key;          /* ev->obj->key */
    int op;
};
struct th_request {
    struct th_request *next;
    const struct th_store_write *w;
    struct th_head *heads;
    size_t n;
    int64_t compact_rv; /* > 0: a request for compaction, n is 0 */
    struct th_pending *pend;
    bool lead;       /* woken to be the writer */
    bool staged;     /* has a place in the batch */
    bool on_pending; /* its precondition failed because of a write of this batch */
    int rc;
    struct th_err err;
    sem_t done;
};

/* ---- sqlite.c ---- */
struct sqlite3;
struct sqlite3_stmt;
struct th_db {
    char *path;
    int lock_fd;
    struct sqlite3 *w;
    struct sqlite3_stmt *insert, *begin, *commit, *rollback, *peek, *erase, *set_compacted;
    int64_t log_b;       /* bytes of all values ever written (column log_b of the newest row) */
    bool reopen;         /* an I/O error: open anew before the next write */
    int fail_rc, fail_n; /* tests: the next fail_n commits end with this result code */
    pthread_mutex_t read_lock;
    struct sqlite3 *r;
    struct sqlite3_stmt *r_events, *r_row, *r_keys, *r_compacted;
};
typedef void th_db_load_fn(void *arg, struct th_obj *o);
/* Opens or creates; calls fn for the newest object of each key. *ret_rv, *ret_compacted: the newest
 * revision and the compaction point. */
int th_db_open(struct th_db *db, const char *path, int64_t first_rv, th_db_load_fn *fn, void *arg,
               int64_t *ret_rv, int64_t *ret_compacted, struct th_err *err) TH_MUST_USE;
void th_db_close(struct th_db *db);
/* One durable transaction with these writes. visible_rv: the newest acknowledged revision. */
int th_db_commit(struct th_db *db, struct th_pending *const *p, size_t n, int64_t now_ms,
                 int64_t visible_rv, struct th_err *err) TH_MUST_USE;
/* One step of compaction, at most max_rows revisions: those <= force_rv, and those that are older
 * than before_ms or more than max_b bytes of log behind. *compacted moves on; returns 1 when
 * there may be more to do, 0 when not. */
int th_db_compact_step(struct th_db *db, int64_t force_rv, int64_t before_ms, int64_t max_b,
                       int max_rows, int64_t *compacted, struct th_err *err) TH_MUST_USE;
/* Calls fn for events from_rv < rv <= to_rv under prefix until it returns false; *ret_at is the
 * last revision that was looked at. TH_R_EXPIRED when from_rv is compacted. Takes read_lock. */
int th_db_events(struct th_db *db, const char *prefix, int64_t from_rv, int64_t to_rv,
                 bool (*fn)(void *arg, struct th_event *ev), void *arg, int64_t *ret_at,
                 struct th_err *err) TH_MUST_USE;
/* The state under prefix as of at_rv, as th_store_range. Takes read_lock. */
int th_db_range(struct th_db *db, const char *prefix, const char *after, size_t limit,
                int64_t at_rv, struct th_store_list *ret, struct th_err *err) TH_MUST_USE;

/* ---- watch.c ---- */
struct th_hub {
    pthread_mutex_t lock;
    struct th_hmap buckets; /* prefix -> struct bucket */
    size_t watchers;
};
void th_hub_init(struct th_hub *h);
void th_hub_done(struct th_hub *h);
void th_hub_publish(struct th_hub *h, struct th_event *ev); /* hub.lock held */

/* ---- the whole ---- */
struct th_store {
    struct th_db *db; /* NULL: memory only */
    int64_t max_age_ms, max_b;

    pthread_rwlock_t lock;
    struct th_omap *index; /* key -> struct th_obj, newest, without deleted ones */
    struct th_ring ring;
    int64_t rv; /* newest visible */
    int64_t compacted_rv;
    size_t bytes;
    uint64_t commits, rows, events;

    int64_t published_rv; /* atomic: every watcher has been offered all up to here */
    bool read_only;       /* atomic */
    struct th_hub hub;

    struct {
        pthread_mutex_t lock; /* guards all of it */
        pthread_cond_t cond;  /* the compactor's: it is due, or nobody writes any more */
        pthread_cond_t space;
        struct th_request *first, **last;
        size_t n;
        bool busy; /* somebody is the writer */
        bool stop;
        bool compact_waits;            /* the compactor is to be the next writer */
        bool compact_turn;             /* it is now */
        int64_t compact_at_ms;         /* monotonic */
        struct th_request *compacting; /* waiting for compaction to reach their revision */
    } q;
    pthread_t compactor;
    struct th_clock_watch clock_watch;
    /* the writer's own */
    int64_t next_rv;
    struct th_hmap staged; /* key -> newest struct th_pending of the batch */
};
/* Commits one batch of what waits and hands the role on. The caller is the writer. */
void th_store_write_turn(struct th_store *s);
void *th_store_compactor_main(void *store);
/* Drops ring entries: over its limits, and with rv <= compacted. Returns events to unref in *drop
 * (th_buf of pointers), since that is done outside of the lock. lock held for writing. */
void th_store_trim_ring(struct th_store *s, int64_t now_ms, struct th_buf *drop);
void th_store_drop_events(struct th_buf *drop);

/* Tests. SQL on the writing connection (PRAGMA max_page_count); the next n commits fail with an
 * SQLite result code. */
int th_store_test_sql(struct th_store *s, const char *sql);
void th_store_test_fail(struct th_store *s, int sqlite_rc, int n);
#endif
