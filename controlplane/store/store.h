#ifndef TH_STORE_H
#define TH_STORE_H
/* The store: revisions in SQLite, the newest of each key in memory, watches.
 *
 * Keys are "<group or 'core'>/<plural>/<namespace or '-'>/<name>", so a prefix is a resource or a
 * namespace of it. Values are canonical JSON bytes WITHOUT metadata.resourceVersion; the store
 * stamps it: th_obj.bytes hold the complete object with resourceVersion in place.
 *
 * Writers block until their group commit is durable. Readers never touch SQLite. All functions are
 * thread-safe unless they say otherwise. */
#include "base/json/json.h"

struct th_store;

/* One immutable revision of one object; reference-counted, shared by everybody. */
struct th_obj {
    uint32_t refs; /* atomic; th_obj_ref/unref only */
    uint32_t n;    /* bytes */
    int64_t rv;
    int64_t create_rv; /* revision that created this key */
    const char *key;   /* NUL-terminated, inside the same allocation */
    const char *bytes; /* canonical JSON, NUL-terminated, inside the same allocation */
    /* The head: slices into bytes or NULL, found once by the head scanner. */
    const char *labels_json; /* start of the metadata.labels object text, or NULL */
    uint32_t labels_n;
    uint32_t pad;
};
struct th_obj *th_obj_ref(struct th_obj *o);
void th_obj_unref(struct th_obj *o);
TH_DEFINE_AUTO(th_obj, th_obj_unref)
/* An object that is stored nowhere, with the revision rv: what is made on being asked. The JSON text is
 * copied. */
int th_obj_make(const char *key, struct th_str json, int64_t rv, struct th_obj **ret,
                struct th_err *err) TH_MUST_USE;
/* The label's value matched against the head without parsing the object. */
bool th_obj_label(const struct th_obj *o, const char *key, struct th_str *ret_value);

struct th_store_opts {
    const char *path; /* SQLite file; NULL keeps everything in memory (bare mode, tests) */
    int64_t history_max_age_ms; /* compaction: revisions older than this and not newest go; 0:
                                   default 24 h */
    int64_t history_max_b;      /* and when history exceeds this; 0: default 256 MiB */
    int64_t first_rv;           /* of an empty store; 0: 1 */
};
int th_store_open(const struct th_store_opts *opts, struct th_store **ret,
                  struct th_err *err) TH_MUST_USE;
void th_store_close(
    struct th_store *s); /* waits for queued writes; watches must be closed before */

int64_t th_store_rv(struct th_store *s); /* newest visible revision */
/* Newest revision of key, a new reference, or NULL. */
struct th_obj *th_store_get(struct th_store *s, const char *key);

/* A consistent list of newest revisions under prefix, in key order, from keys > after (NULL: from
 * the start), at most limit (0: all), at the visible revision *ret_rv. at_rv > 0 reads the state
 * as of that revision (from memory history or SQLite; TH_R_EXPIRED when compacted). The caller
 * frees with th_store_list_done. */
struct th_store_list {
    struct th_obj **objs; /* references */
    size_t n;
    int64_t rv;
    bool more;        /* limit reached and keys remain */
    size_t remaining; /* how many remain, when more */
};
int th_store_range(struct th_store *s, const char *prefix, const char *after, size_t limit,
                   int64_t at_rv, struct th_store_list *ret, struct th_err *err) TH_MUST_USE;
void th_store_list_done(struct th_store_list *l);

/* One write. Preconditions are checked against the newest state INCLUDING writes queued before. */
enum th_store_op { TH_STORE_CREATE, TH_STORE_UPDATE, TH_STORE_DELETE };
struct th_store_write {
    enum th_store_op op;
    const char *key;
    const char *bytes; /* object without resourceVersion; for DELETE the final state (shown to
                          watchers) or NULL */
    size_t n;
    int64_t expect_rv; /* UPDATE, DELETE: the revision that was read; 0: any */
};
/* Runs n writes atomically (all or none). CREATE of an existing key is TH_R_ALREADY_EXISTS,
 * UPDATE or DELETE of a missing one TH_R_NOT_FOUND, a different revision TH_R_CONFLICT, a full
 * disk TH_R_NO_SPACE. ret_objs (n entries, may be NULL) get references to the new revisions. */
int th_store_commit(struct th_store *s, const struct th_store_write *w, size_t n,
                    struct th_obj **ret_objs, struct th_err *err) TH_MUST_USE;

/* ---- Watch ---- */
enum th_event_type { TH_EV_ADDED, TH_EV_MODIFIED, TH_EV_DELETED };
struct th_event { /* immutable, shared by all watchers */
    uint32_t refs;
    enum th_event_type type;
    int64_t rv;
    struct th_obj *obj;  /* new state; for DELETED the last state stamped with the deletion's rv */
    struct th_obj *prev; /* state before, or NULL */
    /* Frames made once, when the first watcher needs one, and shared: JSON lines
     * {"type":"ADDED","object":...}\n by type as shown, then another encoding by type. */
    void *frames[2 * 3];
};
struct th_event *th_event_ref(struct th_event *e);
void th_event_unref(struct th_event *e);
/* The shared JSON frame with its type as given (selector transitions rewrite it); valid while e is
 * referenced. */
struct th_str th_event_frame(struct th_event *e, enum th_event_type as);

/* The same in another encoding (one per kind of object: events of a kind are always asked for with
 * the same fn). fn appends the frame of an object's text. */
typedef int th_event_encode_fn(void *arg, const char *type, struct th_str object,
                               struct th_buf *b);
/* {NULL, 0} when fn failed. */
struct th_str th_event_encoded(struct th_event *e, enum th_event_type as, th_event_encode_fn *fn,
                               void *arg);

struct th_watch;
/* Called in the thread of whoever writes when the watcher's queue goes from empty to not empty, or when it
 * was cut off; must only signal (resume a connection, post to a loop), never block. */
typedef void th_watch_wake_fn(void *arg);
/* Events with rv > from_rv under prefix, in order, none lost or repeated. TH_R_EXPIRED ("too old
 * resource version: 5 (10)") when from_rv is compacted; TH_R_TIMEOUT-free: a from_rv in the future
 * waits. Older revisions than memory holds are read from SQLite. */
int th_watch_open(struct th_store *s, const char *prefix, int64_t from_rv, th_watch_wake_fn *wake,
                  void *arg, struct th_watch **ret, struct th_err *err) TH_MUST_USE;
/* Next event (a new reference) or NULL when none waits. *ret_cut is set when the watcher was too
 * slow and cut off (queue over TH_LIMIT_WATCH_QUEUE): close it, the client lists again. */
struct th_event *th_watch_next(struct th_watch *w, bool *ret_cut);
bool th_watch_cut(struct th_watch *w); /* it was cut off; th_watch_next will say so */
/* Revision up to which this watcher has been offered everything: safe for a BOOKMARK when
 * th_watch_next gave NULL. */
int64_t th_watch_progress(struct th_watch *w);
void th_watch_close(struct th_watch *w);

/* Gives when what is being published has reached all watches: for one who was woken by one watch and
 * looks at what another one keeps current. */
void th_store_settle(struct th_store *s);

/* Drops history at or below rv. */
int th_store_compact(struct th_store *s, int64_t rv, struct th_err *err);
int64_t th_store_compacted_rv(struct th_store *s);
struct th_store_stats {
    size_t keys;
    size_t bytes;
    size_t watchers;
    uint64_t commits, rows, events;
    bool read_only; /* the disk is full or broken: writes fail until it recovers */
};
void th_store_stats(struct th_store *s, struct th_store_stats *ret);
#endif
