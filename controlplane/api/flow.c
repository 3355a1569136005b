/* Who may run now: priority levels, flows and queues.
 *
 * Problem: requests that may wait (for a commit, a webhook, a long Table) run in a fixed number of
 * worker threads. With one queue in front of them, a client that sends a thousand at once makes
 * everybody wait behind it.
 *
 * Design: each thread is a seat. Seats belong to levels in proportion to their nominal shares, at
 * least one each; a free seat is lent to whoever asks. When none is free a request waits in one of
 * its level's queues: the shortest of the few that its flow's hash deals it (shuffle sharding), so that
 * a flow that fills its own queues leaves others some. When a seat comes free, the level that uses
 * the least of its share goes next, and its queues take turns. A full queue, or a level that
 * does not queue, answers 429. Exempt levels never wait here.
 *
 * Requests that are answered at once (reads of what is in memory) and those that last (watches, streams)
 * are classified for their headers but take no seat.
 *
 * The objects are followed through a watch of the store; a change marks the tables as stale, and the
 * next request makes them anew. Levels are only ever added or changed here, so a request that runs can
 * always give its seat back.
 *
 * Upstream differs: it counts all requests with 600 seats by default, weighs large lists as several
 * seats, and adjusts how much is lent from measured demand.
 */
#include "controlplane/api/flow.h"

#include "base/clock.h"

#include <pthread.h>

#define PREFIX "flowcontrol.apiserver.k8s.io/"
#define MAX_QUEUES 1024
#define MAX_HAND 16
#define RETRY_AFTER_S 1

struct job {
    struct job *next;
    void (*fn)(void *arg);
    void *arg;
};
struct queue {
    struct job *first, **last;
    size_t n;
};
struct level {
    char *name;
    char uid[40];
    bool exempt, reject;
    size_t shares, assured;
    struct queue *queues;
    size_t n_queues, hand, limit;
    size_t next; /* queue whose turn it is */
    size_t executing, waiting;
    uint64_t dispatched, rejected;
};

struct th_flow {
    struct th_store *store;
    struct th_watch *watch;
    bool stale; /* atomic */
    pthread_mutex_t lock; /* guards all below */
    struct th_flow_schema **schemas;
    size_t n_schemas;
    struct level *levels;
    size_t n_levels, cap_levels;
    size_t seats, executing;
    th_flow_start_fn *start;
    void *self;
};

/* ---- the tables ---- */

static void on_change(void *arg)
{
    struct th_flow *f = arg;
    __atomic_store_n(&f->stale, true, __ATOMIC_RELEASE);
}

static size_t level_index(const struct th_flow *f, const char *name)
{
    size_t i = 0;
    while (i < f->n_levels && !th_streq(f->levels[i].name, name)) {
        i++;
    }
    return i;
}

static size_t bounded(int64_t v, size_t least, size_t most)
{
    return v < (int64_t)least ? least : v > (int64_t)most ? most : (size_t)v;
}

static void read_level(struct th_flow *f, const struct th_json *o)
{
    const char *name = th_json_path_str(o, "metadata.name");
    const char *uid = th_json_path_str(o, "metadata.uid");
    size_t i = level_index(f, name);
    if (i == f->n_levels) {
        f->levels = th_xgrow(f->levels, &f->cap_levels, f->n_levels + 1, sizeof(*f->levels));
        f->levels[f->n_levels++] = (struct level){.name = th_xstrdup(name)};
    }
    struct level *l = &f->levels[i];
    (void)snprintf(l->uid, sizeof(l->uid), "%s", uid ? uid : "");
    l->exempt = th_streq(th_json_path_str(o, "spec.type"), "Exempt");
    l->reject = th_streq(th_json_path_str(o, "spec.limited.limitResponse.type"), "Reject");
    l->shares = bounded(th_json_path_int(o, "spec.limited.nominalConcurrencyShares", 30), 0, 100000);
    const struct th_json *q = th_json_path(o, "spec.limited.limitResponse.queuing");
    size_t n = bounded(th_json_path_int(q, "queues", 64), 1, MAX_QUEUES);
    l->limit = bounded(th_json_path_int(q, "queueLengthLimit", 50), 1, 10000);
    if (l->waiting == 0 && n != l->n_queues) { /* who waits keeps its place until the next change */
        free(l->queues);
        l->queues = th_xcalloc(n, sizeof(*l->queues));
        l->n_queues = n;
        l->next = 0;
        for (size_t k = 0; k < n; k++) {
            l->queues[k].last = &l->queues[k].first;
        }
    }
    size_t most = l->n_queues < MAX_HAND ? l->n_queues : MAX_HAND;
    l->hand = bounded(th_json_path_int(q, "handSize", 8), 1, most);
}

static void share_seats(struct th_flow *f)
{
    size_t total = 0;
    for (size_t i = 0; i < f->n_levels; i++) {
        total += f->levels[i].exempt ? 0 : f->levels[i].shares;
    }
    for (size_t i = 0; i < f->n_levels; i++) {
        struct level *l = &f->levels[i];
        l->assured = total ? (f->seats * l->shares + total - 1) / total : 0;
        l->assured = l->assured ? l->assured : 1;
    }
}

static void drop_schemas(struct th_flow *f)
{
    for (size_t i = 0; i < f->n_schemas; i++) {
        th_flow_schema_free(f->schemas[i]);
    }
    free(f->schemas);
    f->schemas = NULL;
    f->n_schemas = 0;
}

/* Under lock. */
static void refresh(struct th_flow *f)
{
    if (!__atomic_exchange_n(&f->stale, false, __ATOMIC_ACQ_REL)) {
        return;
    }
    struct th_event *e;
    bool cut = false;
    while (f->watch && (e = th_watch_next(f->watch, &cut))) {
        th_event_unref(e);
    }
    struct th_store_list l = {.n = 0};
    if (th_store_range(f->store, PREFIX, NULL, 0, 0, &l, NULL) < 0) {
        return;
    }
    drop_schemas(f);
    f->schemas = th_xcalloc(l.n + 1, sizeof(struct th_flow_schema *));
    for (size_t i = 0; i < l.n; i++) {
        TH_AUTO(th_json) struct th_json *o = NULL;
        if (th_json_parse(l.objs[i]->bytes, l.objs[i]->n, NULL, &o, NULL) < 0) {
            continue;
        }
        if (th_startswith(l.objs[i]->key, PREFIX "flowschemas/")) {
            f->schemas[f->n_schemas++] = th_flow_schema_new(o);
        } else {
            read_level(f, o);
        }
    }
    th_store_list_done(&l);
    qsort(f->schemas, f->n_schemas, sizeof(struct th_flow_schema *), th_flow_schema_cmp);
    share_seats(f);
}

struct th_flow *th_flow_new(struct th_store *store)
{
    struct th_flow *f = TH_NEW(struct th_flow);
    f->store = store;
    f->stale = true;
    (void)pthread_mutex_init(&f->lock, NULL);
    if (th_watch_open(store, PREFIX, th_store_rv(store), on_change, f, &f->watch, NULL) < 0) {
        f->watch = NULL;
    }
    return f;
}

void th_flow_free(struct th_flow *f)
{
    if (!f) {
        return;
    }
    th_watch_close(f->watch);
    drop_schemas(f);
    for (size_t i = 0; i < f->n_levels; i++) {
        free(f->levels[i].name);
        free(f->levels[i].queues);
    }
    free(f->levels);
    (void)pthread_mutex_destroy(&f->lock);
    free(f);
}

void th_flow_seats(struct th_flow *f, size_t seats, th_flow_start_fn *start, void *self)
{
    (void)pthread_mutex_lock(&f->lock);
    f->seats = seats;
    f->start = start;
    f->self = self;
    share_seats(f);
    (void)pthread_mutex_unlock(&f->lock);
}

/* ---- classes ---- */

static uint64_t hash_of(const char *a, const char *b)
{
    uint64_t h = 1469598103934665603ull; /* FNV-1a */
    for (const char *p = a; *p; p++) {
        h = (h ^ (unsigned char)*p) * 1099511628211ull;
    }
    h = (h ^ 0xff) * 1099511628211ull;
    for (const char *p = b; p && *p; p++) {
        h = (h ^ (unsigned char)*p) * 1099511628211ull;
    }
    return h;
}

void th_flow_classify(struct th_flow *f, const struct th_attrs *at, struct th_flow_class *ret)
{
    *ret = (struct th_flow_class){.level = SIZE_MAX};
    (void)pthread_mutex_lock(&f->lock);
    refresh(f);
    for (size_t i = 0; i < f->n_schemas; i++) {
        const struct th_flow_schema *s = f->schemas[i];
        size_t level = level_index(f, s->level);
        if (level == f->n_levels || !th_flow_schema_matches(s, at)) {
            continue; /* a schema without its level matches nothing */
        }
        memcpy(ret->schema_uid, s->uid, sizeof(ret->schema_uid));
        memcpy(ret->level_uid, f->levels[level].uid, sizeof(ret->level_uid));
        ret->level = level;
        ret->hash = hash_of(s->name, s->distinguish == TH_FLOW_BY_USER        ? at->id->user
                                     : s->distinguish == TH_FLOW_BY_NAMESPACE ? at->ns
                                                                              : NULL);
        break;
    }
    (void)pthread_mutex_unlock(&f->lock);
}

/* ---- seats ---- */

/* The shortest of the queues that the hash deals. */
static struct queue *deal(struct level *l, uint64_t hash)
{
    size_t dealt[MAX_HAND];
    struct queue *best = NULL;
    for (size_t i = 0; i < l->hand; i++) {
        size_t card = (size_t)(hash % (l->n_queues - i));
        hash /= l->n_queues - i;
        for (size_t k = 0; k < i; k++) { /* dealt is sorted: skip what is out */
            card += dealt[k] <= card;
        }
        size_t at = i;
        for (; at > 0 && dealt[at - 1] > card; at--) {
            dealt[at] = dealt[at - 1];
        }
        dealt[at] = card;
        if (!best || l->queues[card].n < best->n) {
            best = &l->queues[card];
        }
    }
    return best;
}

static struct job *take(struct level *l)
{
    while (l->queues[l->next].n == 0) {
        l->next = (l->next + 1) % l->n_queues;
    }
    struct queue *q = &l->queues[l->next];
    struct job *j = q->first;
    q->first = j->next;
    if (!q->first) {
        q->last = &q->first;
    }
    q->n--;
    l->waiting--;
    l->next = (l->next + 1) % l->n_queues;
    return j;
}

int th_flow_submit(struct th_flow *f, const struct th_flow_class *c, void (*fn)(void *arg), void *arg,
                   struct th_err *err)
{
    (void)pthread_mutex_lock(&f->lock);
    struct level *l = c->level < f->n_levels ? &f->levels[c->level] : NULL;
    bool now = !l || l->exempt || f->executing < f->seats;
    struct queue *q = now || l->reject ? NULL : deal(l, c->hash);
    if (now) {
        if (l) {
            l->executing++;
            l->dispatched++;
        }
        f->executing += l && !l->exempt;
    } else if (q && q->n < l->limit) {
        struct job *j = TH_NEW(struct job);
        *j = (struct job){.fn = fn, .arg = arg};
        *q->last = j;
        q->last = &j->next;
        q->n++;
        l->waiting++;
    } else {
        l->rejected++;
        (void)pthread_mutex_unlock(&f->lock);
        (void)th_fail(err, TH_R_TOO_MANY_REQUESTS, "Too many requests, please try again later.");
        if (err) {
            err->retry_after_s = RETRY_AFTER_S;
        }
        return -TH_R_TOO_MANY_REQUESTS;
    }
    (void)pthread_mutex_unlock(&f->lock);
    if (now) {
        f->start(f->self, fn, arg);
    }
    return 0;
}

void th_flow_finish(struct th_flow *f, const struct th_flow_class *c)
{
    struct job *j = NULL;
    (void)pthread_mutex_lock(&f->lock);
    struct level *mine = c->level < f->n_levels ? &f->levels[c->level] : NULL;
    if (mine) {
        mine->executing--;
        f->executing -= !mine->exempt;
    }
    struct level *best = NULL;
    for (size_t i = 0; i < f->n_levels && f->executing < f->seats; i++) {
        struct level *l = &f->levels[i];
        if (l->waiting > 0 &&
            (!best || l->executing * best->assured < best->executing * l->assured)) {
            best = l;
        }
    }
    if (best) {
        j = take(best);
        best->executing++;
        best->dispatched++;
        f->executing++;
    }
    (void)pthread_mutex_unlock(&f->lock);
    if (j) {
        f->start(f->self, j->fn, j->arg);
        free(j);
    }
}

/* ---- metrics ---- */

void th_flow_metrics(struct th_flow *f, struct th_buf *b)
{
    static const struct {
        const char *name, *help, *type;
    } all[] = {
        {"apiserver_flowcontrol_current_inqueue_requests", "Requests that wait for a seat.", "gauge"},
        {"apiserver_flowcontrol_current_executing_requests", "Requests that have a seat.", "gauge"},
        {"apiserver_flowcontrol_dispatched_requests_total", "Requests that got a seat.", "counter"},
        {"apiserver_flowcontrol_rejected_requests_total", "Requests answered with 429.", "counter"},
        {"apiserver_flowcontrol_nominal_limit_seats", "Seats that are a level's own.", "gauge"},
    };
    (void)pthread_mutex_lock(&f->lock);
    for (size_t i = 0; i < TH_ARRAY_LEN(all); i++) {
        th_buf_printf(b, "# HELP %s %s\n# TYPE %s %s\n", all[i].name, all[i].help, all[i].name,
                      all[i].type);
        for (size_t k = 0; k < f->n_levels; k++) {
            const struct level *l = &f->levels[k];
            const uint64_t values[] = {l->waiting, l->executing, l->dispatched, l->rejected,
                                       l->exempt ? 0 : l->assured};
            th_buf_printf(b, "%s{priority_level=\"%s\"} %llu\n", all[i].name, l->name,
                          (unsigned long long)values[i]);
        }
    }
    (void)pthread_mutex_unlock(&f->lock);
}
