/* The log of revisions in SQLite.
 *
 * Problem: what was acknowledged must be there after kill -9 and after power loss, at the price of
 * one fsync for as many writes as are waiting, and 50,000 objects must be back in memory in less
 * than a second.
 *
 * Design: one table, one row per revision, the revision being the rowid, so that new rows are
 * always appended at the right edge of the tree; an index over the key, whose entries end in the
 * rowid, so that "newest of every key" reads the index alone. WAL with synchronous=FULL: COMMIT
 * returns after the WAL is on disk. Rows are immutable; compaction is the only thing that deletes.
 * docs/store.md describes the tables for people and for other programs.
 *
 * Compaction walks forward: when it passes a row, the row that this one replaced (prev_rv) is not
 * needed any more, and if it is a deletion, neither is it itself. So it costs what was written,
 * never a scan of what is there, and stops after any number of rows. log_b is the running total of
 * value bytes, which makes "more than N bytes of history" a subtraction.
 *
 * Two connections: `w` belongs to the writer's thread; `r` reads history for watches and lists
 * that begin far back, under read_lock. Each read is one read transaction that looks at the
 * compaction point first, so that it never misses rows that are deleted meanwhile.
 *
 * Failures: an error before or in COMMIT is rolled back, and the caller fails the whole batch.
 * After an I/O error (not after a full disk) the connection is opened anew before the next write,
 * and rows above the newest acknowledged revision, which a failed COMMIT may have left behind, are
 * removed.
 *
 * Upstream: etcd keeps a B+tree keyed by revision and an index in memory, and compacts by
 * rewriting that index; kine has this table with more indexes, polls it for watches and commits
 * with synchronous=NORMAL.
 */
#include "base/io.h"
#include "base/log.h"
#include "controlplane/store/store_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sqlite3.h>

#define SCHEMA_VERSION 1
#define APPLICATION_ID 0x54484d42 /* "THMB" */

static const char SCHEMA[] =
    "PRAGMA auto_vacuum=INCREMENTAL;"
    "BEGIN IMMEDIATE;"
    "CREATE TABLE revision("
    " rv INTEGER PRIMARY KEY,"
    " key TEXT NOT NULL,"
    " op INTEGER NOT NULL,"        /* enum th_store_op */
    " create_rv INTEGER NOT NULL," /* revision that created the key */
    " prev_rv INTEGER NOT NULL,"   /* revision that this one replaced; 0: none */
    " time_ms INTEGER NOT NULL,"   /* wall clock of the commit */
    " log_b INTEGER NOT NULL,"     /* bytes of all values up to and with this one */
    " value BLOB NOT NULL);"       /* the object, resourceVersion in place */
    "CREATE INDEX revision_key ON revision(key);"
    "CREATE TABLE meta(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;";

static int db_fail(struct th_db *db, sqlite3 *c, int rc, struct th_err *err, const char *what)
{
    enum th_reason reason = TH_R_IO;
    switch (rc & 0xff) {
    case SQLITE_FULL:
        reason = TH_R_NO_SPACE;
        break;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        reason = TH_R_STATE_CORRUPT;
        break;
    case SQLITE_IOERR:
        if (c && (sqlite3_system_errno(c) == ENOSPC || sqlite3_system_errno(c) == EDQUOT)) {
            reason = TH_R_NO_SPACE;
        }
        break;
    case SQLITE_PERM:
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
        reason = c && sqlite3_system_errno(c) == EACCES ? TH_R_NO_PERMISSION : TH_R_IO;
        break;
    default:
        break;
    }
    bool own = c && (sqlite3_errcode(c) & 0xff) == (rc & 0xff);
    const char *text = own ? sqlite3_errmsg(c) : sqlite3_errstr(rc);
    int r = th_fail(err, reason, "%s: %s: %s", what, db->path, text);
    if (reason == TH_R_STATE_CORRUPT) {
        th_hint(err,
                "the database is damaged: move %s and its -wal and -shm files away, or put a "
                "copy back, and start again",
                db->path);
    } else if (reason == TH_R_NO_SPACE) {
        th_hint(err, "free some space on the disk of %s; writes work again by themselves",
                db->path);
    }
    return r;
}

static int corrupt(struct th_db *db, struct th_err *err, const char *what)
{
    int r = th_fail(err, TH_R_STATE_CORRUPT, "reading the store: %s: %s", db->path, what);
    th_hint(err,
            "the database is damaged: move %s and its -wal and -shm files away, or put a copy "
            "back, and start again",
            db->path);
    return r;
}

static int prepare(struct th_db *db, sqlite3 *c, const char *sql, sqlite3_stmt **ret,
                   struct th_err *err)
{
    int rc = sqlite3_prepare_v3(c, sql, -1, SQLITE_PREPARE_PERSISTENT, ret, NULL);
    return rc == SQLITE_OK ? 0 : db_fail(db, c, rc, err, "preparing the store");
}

static int64_t pragma_int(sqlite3 *c, const char *sql, int *ret_rc)
{
    sqlite3_stmt *st = NULL;
    int64_t v = 0;
    int rc = sqlite3_prepare_v2(c, sql, -1, &st, NULL);
    if (rc == SQLITE_OK) {
        rc = sqlite3_step(st);
        if (rc == SQLITE_ROW) {
            v = sqlite3_column_int64(st, 0);
            rc = SQLITE_OK;
        } else if (rc == SQLITE_DONE) {
            rc = SQLITE_OK;
        }
    }
    sqlite3_finalize(st);
    *ret_rc = rc;
    return v;
}

static int connect_to(struct th_db *db, int flags, sqlite3 **ret, struct th_err *err)
{
    sqlite3 *c = NULL;
    int rc = sqlite3_open_v2(db->path, &c, flags | SQLITE_OPEN_FULLMUTEX, NULL);
    if (rc == SQLITE_OK) {
        sqlite3_extended_result_codes(c, 1);
        sqlite3_busy_timeout(c, 5000);
        rc = sqlite3_exec(c, "PRAGMA cache_size=-2048", NULL, NULL, NULL);
    }
    if (rc != SQLITE_OK) {
        int r = db_fail(db, c, rc, err, "opening the store");
        sqlite3_close_v2(c);
        return r;
    }
    *ret = c;
    return 0;
}

static void close_writer(struct th_db *db)
{
    sqlite3_stmt **all[] = {&db->insert, &db->begin, &db->commit,       &db->rollback,
                            &db->peek,   &db->erase, &db->set_compacted};
    for (size_t i = 0; i < TH_ARRAY_LEN(all); i++) {
        sqlite3_finalize(*all[i]);
        *all[i] = NULL;
    }
    sqlite3_close_v2(db->w);
    db->w = NULL;
}

/* Makes the tables of an empty file, or checks that they are ours. */
static int check_schema(struct th_db *db, int64_t first_rv, struct th_err *err)
{
    int rc;
    int64_t version = pragma_int(db->w, "PRAGMA user_version", &rc);
    int64_t app = rc == SQLITE_OK ? pragma_int(db->w, "PRAGMA application_id", &rc) : 0;
    int64_t tables =
        rc == SQLITE_OK ? pragma_int(db->w, "SELECT count(*) FROM sqlite_master", &rc) : 0;
    if (rc != SQLITE_OK) {
        return db_fail(db, db->w, rc, err, "reading the store");
    }
    if (version == 0 && app == 0 && tables == 0) {
        th_autofree char *sql =
            th_xasprintf("%sINSERT INTO meta VALUES('compacted_rv', %" PRId64 ");"
                         "PRAGMA application_id=%d; PRAGMA user_version=%d; COMMIT;",
                         SCHEMA, first_rv, APPLICATION_ID, SCHEMA_VERSION);
        rc = sqlite3_exec(db->w, sql, NULL, NULL, NULL);
        return rc == SQLITE_OK ? 0 : db_fail(db, db->w, rc, err, "creating the store");
    }
    if (app != APPLICATION_ID) {
        return corrupt(db, err, "this is not a Thimble store");
    }
    if (version != SCHEMA_VERSION) {
        int r = th_fail(err, TH_R_UNSUPPORTED, "%s has layout %" PRId64 ", this program knows %d",
                        db->path, version, SCHEMA_VERSION);
        th_hint(err, "it was written by another version of Thimble: use that one");
        return r;
    }
    return 0;
}

static int open_writer(struct th_db *db, int64_t first_rv, struct th_err *err)
{
    TH_TRY(connect_to(db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &db->w, err));
    TH_TRY(check_schema(db, first_rv, err));
    int rc = sqlite3_exec(db->w,
                          "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
                          "PRAGMA journal_size_limit=8388608",
                          NULL, NULL, NULL);
    if (rc != SQLITE_OK) {
        return db_fail(db, db->w, rc, err, "opening the store");
    }
    const struct {
        sqlite3_stmt **st;
        const char *sql;
    } all[] = {
        {&db->insert, "INSERT INTO revision(rv, key, op, create_rv, prev_rv, time_ms, log_b, value)"
                      " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"},
        {&db->begin, "BEGIN IMMEDIATE"},
        {&db->commit, "COMMIT"},
        {&db->rollback, "ROLLBACK"},
        {&db->peek, "SELECT rv, op, prev_rv, time_ms, log_b FROM revision WHERE rv > ?1"
                    " ORDER BY rv LIMIT ?2"},
        {&db->erase, "DELETE FROM revision WHERE rv = ?1"},
        {&db->set_compacted, "UPDATE meta SET value = ?1 WHERE name = 'compacted_rv'"},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(all); i++) {
        TH_TRY(prepare(db, db->w, all[i].sql, all[i].st, err));
    }
    return 0;
}

static int open_reader(struct th_db *db, struct th_err *err)
{
    TH_TRY(connect_to(db, SQLITE_OPEN_READWRITE, &db->r, err));
    TH_TRY(prepare(db, db->r, "SELECT value FROM meta WHERE name = 'compacted_rv'",
                   &db->r_compacted, err));
    TH_TRY(prepare(db, db->r,
                   "SELECT rv, op, create_rv, key, value, prev_rv FROM revision"
                   " WHERE rv > ?1 AND rv <= ?2 ORDER BY rv",
                   &db->r_events, err));
    TH_TRY(prepare(db, db->r, "SELECT rv, op, create_rv, key, value FROM revision WHERE rv = ?1",
                   &db->r_row, err));
    return prepare(db, db->r,
                   "SELECT max(rv) FROM revision WHERE key >= ?1 AND key < ?2 AND rv <= ?3"
                   " GROUP BY key ORDER BY key",
                   &db->r_keys, err);
}

static int row_obj(struct th_db *db, sqlite3_stmt *st, struct th_obj **ret, struct th_err *err)
{
    const char *key = (const char *)sqlite3_column_text(st, 3);
    const char *value = sqlite3_column_blob(st, 4);
    int value_n = sqlite3_column_bytes(st, 4);
    if (!key || !value ||
        th_obj_load(key, (size_t)sqlite3_column_bytes(st, 3), value, (size_t)value_n,
                    sqlite3_column_int64(st, 0), sqlite3_column_int64(st, 2), ret, NULL) < 0) {
        return corrupt(db, err, "a row does not hold an object");
    }
    return 0;
}

static int load(struct th_db *db, th_db_load_fn *fn, void *arg, struct th_err *err)
{
    sqlite3_stmt *st = NULL;
    TH_TRY(prepare(db, db->w,
                   "SELECT r.rv, r.op, r.create_rv, r.key, r.value"
                   " FROM (SELECT max(rv) AS newest FROM revision GROUP BY key) AS n"
                   " CROSS JOIN revision AS r ON r.rv = n.newest WHERE r.op <> 2",
                   &st, err));
    int rc, r = 0;
    while (r == 0 && (rc = sqlite3_step(st)) == SQLITE_ROW) {
        struct th_obj *o;
        r = row_obj(db, st, &o, err);
        if (r == 0) {
            fn(arg, o);
        }
    }
    if (r == 0 && rc != SQLITE_DONE) {
        r = db_fail(db, db->w, rc, err, "reading the store");
    }
    sqlite3_finalize(st);
    return r;
}

static int prepare_file(struct th_db *db, struct th_err *err)
{
    th_autofree char *dir = th_xstrdup(db->path);
    char *slash = strrchr(dir, '/');
    if (slash && slash != dir) {
        *slash = '\0';
        TH_TRY(th_io_mkdir_p(dir, 0700, err));
    }
    th_autofree char *lock = th_xasprintf("%s.lock", db->path);
    int r = th_io_lock(lock, 0, &db->lock_fd, err);
    if (r < 0) {
        db->lock_fd = -1;
        th_wrap(err,
                r == -TH_R_LOCKED ? "the store is in use by another process" : "locking the store");
        return r;
    }
    /* Secrets are inside: made by us, since SQLite would make it readable for all. */
    int fd = open(db->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "opening the store: %s", db->path);
    }
    (void)close(fd);
    return 0;
}

int th_db_open(struct th_db *db, const char *path, int64_t first_rv, th_db_load_fn *fn, void *arg,
               int64_t *ret_rv, int64_t *ret_compacted, struct th_err *err)
{
    *db = (struct th_db){.path = th_xstrdup(path), .lock_fd = -1};
    pthread_mutex_init(&db->read_lock, NULL);
    int r = prepare_file(db, err);
    r = r < 0 ? r : open_writer(db, first_rv, err);
    r = r < 0 ? r : open_reader(db, err);
    r = r < 0 ? r : load(db, fn, arg, err);
    if (r == 0) {
        int rc1, rc2, rc3;
        int64_t compacted =
            pragma_int(db->w, "SELECT value FROM meta WHERE name = 'compacted_rv'", &rc1);
        int64_t newest = pragma_int(db->w, "SELECT max(rv) FROM revision", &rc2);
        db->log_b = pragma_int(db->w, "SELECT log_b FROM revision ORDER BY rv DESC LIMIT 1", &rc3);
        if (rc1 != SQLITE_OK || rc2 != SQLITE_OK || rc3 != SQLITE_OK || compacted <= 0) {
            r = corrupt(db, err, "its marks are missing");
        } else {
            *ret_compacted = compacted;
            *ret_rv = newest > compacted ? newest : compacted;
        }
    }
    if (r < 0) {
        th_db_close(db);
    }
    return r;
}

void th_db_close(struct th_db *db)
{
    sqlite3_finalize(db->r_events);
    sqlite3_finalize(db->r_row);
    sqlite3_finalize(db->r_keys);
    sqlite3_finalize(db->r_compacted);
    sqlite3_close_v2(db->r);
    close_writer(db); /* the last connection checkpoints and removes the WAL */
    if (db->lock_fd >= 0) {
        (void)close(db->lock_fd);
    }
    pthread_mutex_destroy(&db->read_lock);
    free(db->path);
    *db = (struct th_db){.lock_fd = -1};
}

/* ---- Writing ---- */

static int run(sqlite3_stmt *st)
{
    int rc = sqlite3_step(st);
    int reset = sqlite3_reset(st);
    return rc == SQLITE_DONE || rc == SQLITE_ROW ? SQLITE_OK : (reset != SQLITE_OK ? reset : rc);
}

static int run1(sqlite3_stmt *st, int64_t v)
{
    sqlite3_bind_int64(st, 1, v);
    return run(st);
}

static int insert_row(struct th_db *db, const struct th_pending *p, int64_t now_ms, int64_t log_b)
{
    const struct th_obj *o = p->ev->obj;
    sqlite3_stmt *st = db->insert;
    sqlite3_bind_int64(st, 1, o->rv);
    sqlite3_bind_text(st, 2, o->key, -1, SQLITE_STATIC);
    sqlite3_bind_int(st, 3, p->op);
    sqlite3_bind_int64(st, 4, o->create_rv);
    sqlite3_bind_int64(st, 5, p->ev->prev ? p->ev->prev->rv : 0);
    sqlite3_bind_int64(st, 6, now_ms);
    sqlite3_bind_int64(st, 7, log_b);
    sqlite3_bind_blob(st, 8, o->bytes, (int)o->n, SQLITE_STATIC);
    return run(st);
}

/* Undoes what is open; SQLite may have rolled back by itself already. */
static void undo(struct th_db *db, int rc)
{
    if (!sqlite3_get_autocommit(db->w)) {
        (void)run(db->rollback);
    }
    int kind = rc & 0xff;
    if (kind == SQLITE_FULL) {
        /* Pages that are safe in the main file need their place in the WAL no longer. */
        (void)sqlite3_wal_checkpoint_v2(db->w, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    } else if (kind != SQLITE_BUSY) {
        db->reopen = true;
    }
}

static int reopen_writer(struct th_db *db, int64_t visible_rv, struct th_err *err)
{
    close_writer(db);
    int r = open_writer(db, visible_rv, err);
    if (r == 0) {
        th_autofree char *sql =
            th_xasprintf("DELETE FROM revision WHERE rv > %" PRId64, visible_rv);
        int rc = sqlite3_exec(db->w, sql, NULL, NULL, NULL);
        r = rc == SQLITE_OK ? 0 : db_fail(db, db->w, rc, err, "opening the store again");
    }
    if (r < 0) {
        close_writer(db);
        return r;
    }
    db->reopen = false;
    return 0;
}

int th_db_commit(struct th_db *db, struct th_pending *const *p, size_t n, int64_t now_ms,
                 int64_t visible_rv, struct th_err *err)
{
    if (db->reopen) {
        TH_TRY(reopen_writer(db, visible_rv, err));
    }
    int64_t log_b = db->log_b;
    int rc = run(db->begin);
    for (size_t i = 0; rc == SQLITE_OK && i < n; i++) {
        log_b += p[i]->ev->obj->n;
        rc = insert_row(db, p[i], now_ms, log_b);
    }
    if (rc == SQLITE_OK && __atomic_load_n(&db->fail_n, __ATOMIC_RELAXED) > 0) {
        __atomic_sub_fetch(&db->fail_n, 1, __ATOMIC_RELAXED);
        rc = __atomic_load_n(&db->fail_rc, __ATOMIC_RELAXED);
    }
    if (rc == SQLITE_OK) {
        rc = run(db->commit);
    }
    if (rc != SQLITE_OK) {
        int r = db_fail(db, db->w, rc, err, "writing the store");
        undo(db, rc);
        return r;
    }
    db->log_b = log_b;
    return 0;
}

int th_db_compact_step(struct th_db *db, int64_t force_rv, int64_t before_ms, int64_t max_b,
                       int max_rows, int64_t *compacted, struct th_err *err)
{
    struct row {
        int64_t rv, drop;
        bool tombstone;
    };
    if (db->reopen) {
        return 0; /* the next write puts things right first */
    }
    th_autobuf struct th_buf rows = TH_BUF_INIT;
    sqlite3_bind_int64(db->peek, 1, *compacted);
    sqlite3_bind_int(db->peek, 2, max_rows);
    int rc, seen = 0;
    while ((rc = sqlite3_step(db->peek)) == SQLITE_ROW) {
        int64_t rv = sqlite3_column_int64(db->peek, 0);
        bool due = rv <= force_rv || sqlite3_column_int64(db->peek, 3) < before_ms ||
                   db->log_b - sqlite3_column_int64(db->peek, 4) > max_b;
        if (!due) {
            break;
        }
        seen++;
        struct row r = {rv, sqlite3_column_int64(db->peek, 2),
                        sqlite3_column_int(db->peek, 1) == TH_STORE_DELETE};
        th_buf_add(&rows, &r, sizeof(r));
    }
    sqlite3_reset(db->peek);
    if (rc != SQLITE_ROW && rc != SQLITE_DONE) {
        return db_fail(db, db->w, rc, err, "compacting the store");
    }
    /* Rows may be missing right below force_rv (compacted by an earlier life); go there anyway. */
    int64_t to =
        rc == SQLITE_DONE && seen < max_rows && force_rv > *compacted ? force_rv : *compacted;
    const struct row *r = (const struct row *)(const void *)rows.p;
    if (seen > 0 && r[seen - 1].rv > to) {
        to = r[seen - 1].rv;
    }
    if (to == *compacted) {
        return 0;
    }
    rc = run(db->begin);
    for (int i = 0; rc == SQLITE_OK && i < seen; i++) {
        if (r[i].drop > 0) {
            rc = run1(db->erase, r[i].drop);
        }
        if (rc == SQLITE_OK && r[i].tombstone) {
            rc = run1(db->erase, r[i].rv);
        }
    }
    rc = rc == SQLITE_OK ? run1(db->set_compacted, to) : rc;
    rc = rc == SQLITE_OK ? run(db->commit) : rc;
    if (rc != SQLITE_OK) {
        int e = db_fail(db, db->w, rc, err, "compacting the store");
        undo(db, rc);
        return e;
    }
    (void)sqlite3_exec(db->w, "PRAGMA incremental_vacuum(256)", NULL, NULL, NULL);
    *compacted = to;
    return seen == max_rows ? 1 : 0;
}

/* ---- Reading history ---- */

/* Begins a read transaction and checks that rv is not compacted in it. */
static int read_begin(struct th_db *db, int64_t rv, struct th_err *err)
{
    int rc = sqlite3_exec(db->r, "BEGIN", NULL, NULL, NULL);
    if (rc == SQLITE_OK) {
        rc = sqlite3_step(db->r_compacted);
    }
    if (rc != SQLITE_ROW) {
        return db_fail(db, db->r, rc, err, "reading the store");
    }
    int64_t compacted = sqlite3_column_int64(db->r_compacted, 0);
    sqlite3_reset(db->r_compacted);
    if (rv < compacted) {
        return th_fail(err, TH_R_EXPIRED, "too old resource version: %" PRId64 " (%" PRId64 ")", rv,
                       compacted);
    }
    return 0;
}

static void read_end(struct th_db *db)
{
    sqlite3_reset(db->r_compacted);
    sqlite3_reset(db->r_events);
    sqlite3_reset(db->r_row);
    sqlite3_reset(db->r_keys);
    if (!sqlite3_get_autocommit(db->r)) {
        (void)sqlite3_exec(db->r, "ROLLBACK", NULL, NULL, NULL);
    }
    pthread_mutex_unlock(&db->read_lock);
}

/* The object of revision rv, or NULL in *ret when it is a deletion. */
static int read_row(struct th_db *db, int64_t rv, struct th_obj **ret, struct th_err *err)
{
    sqlite3_bind_int64(db->r_row, 1, rv);
    int rc = sqlite3_step(db->r_row);
    int r = 0;
    if (rc != SQLITE_ROW) {
        r = rc == SQLITE_DONE ? corrupt(db, err, "a revision is missing")
                              : db_fail(db, db->r, rc, err, "reading the store");
    } else if (sqlite3_column_int(db->r_row, 1) == TH_STORE_DELETE) {
        *ret = NULL;
    } else {
        r = row_obj(db, db->r_row, ret, err);
    }
    sqlite3_reset(db->r_row);
    return r;
}

static int row_event(struct th_db *db, struct th_event **ret, struct th_err *err)
{
    static const enum th_event_type types[] = {TH_EV_ADDED, TH_EV_MODIFIED, TH_EV_DELETED};
    sqlite3_stmt *st = db->r_events;
    int op = sqlite3_column_int(st, 1);
    int64_t prev_rv = sqlite3_column_int64(st, 5);
    if (op < 0 || op > TH_STORE_DELETE) {
        return corrupt(db, err, "a row has an unknown operation");
    }
    struct th_obj *prev = NULL;
    struct th_obj *o = NULL;
    if (prev_rv > 0) {
        TH_TRY(read_row(db, prev_rv, &prev, err));
    }
    int r = row_obj(db, st, &o, err);
    if (r < 0) {
        th_obj_unref(prev);
        return r;
    }
    *ret = th_event_new(types[op], o->rv, o, prev);
    return 0;
}

int th_db_events(struct th_db *db, const char *prefix, int64_t from_rv, int64_t to_rv,
                 bool (*fn)(void *arg, struct th_event *ev), void *arg, int64_t *ret_at,
                 struct th_err *err)
{
    size_t prefix_n = strlen(prefix);
    pthread_mutex_lock(&db->read_lock);
    int r = read_begin(db, from_rv, err);
    int64_t at = from_rv;
    if (r == 0) {
        sqlite3_bind_int64(db->r_events, 1, from_rv);
        sqlite3_bind_int64(db->r_events, 2, to_rv);
        int rc;
        bool more = true;
        while (r == 0 && more && (rc = sqlite3_step(db->r_events)) == SQLITE_ROW) {
            at = sqlite3_column_int64(db->r_events, 0);
            const char *key = (const char *)sqlite3_column_text(db->r_events, 3);
            if (!key || strncmp(key, prefix, prefix_n) != 0) {
                continue;
            }
            struct th_event *ev = NULL;
            r = row_event(db, &ev, err);
            more = r < 0 || fn(arg, ev);
        }
        if (r == 0 && more) {
            if (rc != SQLITE_DONE) {
                r = db_fail(db, db->r, rc, err, "reading the store");
            }
            at = to_rv;
        }
    }
    read_end(db);
    if (r == 0) {
        *ret_at = at;
    }
    return r;
}

int th_db_range(struct th_db *db, const char *prefix, const char *after, size_t limit,
                int64_t at_rv, struct th_store_list *ret, struct th_err *err)
{
    struct th_store_list l = {.rv = at_rv};
    size_t cap = 0;
    th_autofree char *hi = th_xasprintf("%s\xff", prefix);
    /* Keys hold no control characters, so this is the first one that can follow. */
    th_autofree char *next = th_xasprintf("%s\x01", after ? after : "");
    const char *lo = after && strcmp(after, prefix) >= 0 ? next : prefix;
    pthread_mutex_lock(&db->read_lock);
    int r = read_begin(db, at_rv, err);
    if (r == 0) {
        sqlite3_bind_text(db->r_keys, 1, lo, -1, SQLITE_STATIC);
        sqlite3_bind_text(db->r_keys, 2, hi, -1, SQLITE_STATIC);
        sqlite3_bind_int64(db->r_keys, 3, at_rv);
        int rc;
        while (r == 0 && (rc = sqlite3_step(db->r_keys)) == SQLITE_ROW) {
            struct th_obj *o = NULL;
            r = read_row(db, sqlite3_column_int64(db->r_keys, 0), &o, err);
            if (r < 0 || !o) {
                continue;
            }
            if (limit > 0 && l.n == limit) {
                l.more = true;
                l.remaining++;
                th_obj_unref(o);
                continue;
            }
            l.objs = th_xgrow(l.objs, &cap, l.n + 1, sizeof(*l.objs));
            l.objs[l.n++] = o;
        }
        if (r == 0 && rc != SQLITE_DONE) {
            r = db_fail(db, db->r, rc, err, "reading the store");
        }
    }
    read_end(db);
    if (r < 0) {
        th_store_list_done(&l);
        return r;
    }
    *ret = l;
    return 0;
}
