/* /metrics in Prometheus' text form, under upstream's names where they mean the same: requests by
 * verb, resource and code, their duration as a histogram, objects by resource, flow control, and the
 * process; the store's own figures are thimble_store_*.
 *
 * A series is found by its label text. What a client can invent never becomes a label: group, version
 * and resource come from a row that was found, so their number is bounded by the rows (and custom
 * resources by TH_LIMIT_SERIES; what comes after counts under an empty resource). The duration of a
 * watch is the time to its first byte, as the rest is the client's.
 */
#include "controlplane/api/priv.h"

#include "base/clock.h"
#include "base/io.h"
#include "controlplane/api/flow.h"

#include <dirent.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

static const int buckets_ms[] = {5,    25,   50,   100,  200,  400,  600,   800,   1000,  1250, 1500, 2000,
                                 3000, 4000, 5000, 6000, 8000, 10000, 15000, 20000, 30000, 45000, 60000};

struct duration {
    uint64_t in[TH_ARRAY_LEN(buckets_ms)]; /* those above the bucket before and up to this one */
    uint64_t count, us;
};
struct th_metrics {
    pthread_mutex_t lock;
    struct th_hmap codes;     /* labels with code -> uint64_t */
    struct th_hmap durations; /* labels -> struct duration */
    int64_t started_ms;
};

struct th_metrics *th_metrics_new(void)
{
    struct th_metrics *m = TH_NEW(struct th_metrics);
    (void)pthread_mutex_init(&m->lock, NULL);
    th_hmap_init(&m->codes, free);
    th_hmap_init(&m->durations, free);
    m->started_ms = th_now_ms();
    return m;
}

void th_metrics_free(struct th_metrics *m)
{
    if (m) {
        th_hmap_done(&m->codes);
        th_hmap_done(&m->durations);
        (void)pthread_mutex_destroy(&m->lock);
        free(m);
    }
}

/* Upstream's words for the verbs here: those of HTTP, but for lists and watches. */
static const char *verb_of(const struct th_call *c)
{
    static const struct {
        const char *verb, *shown;
    } map[] = {{"get", "GET"},       {"list", "LIST"},     {"watch", "WATCH"},
               {"create", "POST"},   {"post", "POST"},     {"update", "PUT"},
               {"put", "PUT"},       {"patch", "PATCH"},   {"delete", "DELETE"},
               {"deletecollection", "DELETECOLLECTION"}};
    if (c->verb && th_streq(c->verb, "patch") && c->req->content_type &&
        th_startswith(c->req->content_type, "application/apply-patch")) {
        return "APPLY";
    }
    if (c->resp && c->resp->stream) {
        return "CONNECT";
    }
    for (size_t i = 0; c->verb && i < TH_ARRAY_LEN(map); i++) {
        if (th_streq(map[i].verb, c->verb)) {
            return map[i].shown;
        }
    }
    return "other";
}

static int labels_of(const struct th_call *c, bool known, char *buf, size_t n)
{
    const struct th_resource *r = known ? c->res : NULL;
    const char *scope = !r ? "" : c->route.name ? "resource" : c->route.ns ? "namespace" : "cluster";
    return snprintf(buf, n,
                    "component=\"apiserver\",dry_run=\"%s\",group=\"%s\",resource=\"%s\",scope=\"%s\","
                    "subresource=\"%s\",verb=\"%s\",version=\"%s\"",
                    c->dry_run ? "All" : "", r ? r->group : "", r ? r->plural : "", scope,
                    r && c->sub ? c->sub->name : "", verb_of(c), r ? r->version : "");
}

/* Under lock. */
static void *series(struct th_hmap *m, const char *labels, size_t size)
{
    void *v = th_hmap_get(m, labels);
    if (!v) {
        v = th_xcalloc(1, size);
        th_hmap_set(m, labels, v);
    }
    return v;
}

void th_metrics_request(struct th_metrics *m, const struct th_call *c, int code, int64_t us)
{
    char labels[512];
    char with_code[540];
    (void)pthread_mutex_lock(&m->lock);
    (void)labels_of(c, m->durations.n < TH_LIMIT_SERIES, labels, sizeof(labels));
    (void)snprintf(with_code, sizeof(with_code), "code=\"%d\",%s", code, labels);
    ++*(uint64_t *)series(&m->codes, with_code, sizeof(uint64_t));
    struct duration *d = series(&m->durations, labels, sizeof(*d));
    us = us > 0 ? us : 0;
    d->count++;
    d->us += (uint64_t)us;
    for (size_t i = 0; i < TH_ARRAY_LEN(buckets_ms); i++) {
        if (us <= (int64_t)buckets_ms[i] * 1000) {
            d->in[i]++;
            break;
        }
    }
    (void)pthread_mutex_unlock(&m->lock);
}

/* ---- writing ---- */

static void head(struct th_buf *b, const char *name, const char *help, const char *type)
{
    th_buf_printf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void single(struct th_buf *b, const char *name, const char *help, const char *type,
                   double value)
{
    head(b, name, help, type);
    th_buf_printf(b, "%s %.15g\n", name, value);
}

static void put_requests(struct th_metrics *m, struct th_buf *b)
{
    (void)pthread_mutex_lock(&m->lock);
    const struct th_hmap_entry *e;
    head(b, "apiserver_request_total", "Requests by verb, resource, scope and HTTP code.", "counter");
    for (size_t it = 0; (e = th_hmap_next(&m->codes, &it));) {
        th_buf_printf(b, "apiserver_request_total{%s} %llu\n", e->key,
                      (unsigned long long)*(const uint64_t *)e->value);
    }
    const char *name = "apiserver_request_duration_seconds";
    head(b, name, "Time until the answer begins.", "histogram");
    for (size_t it = 0; (e = th_hmap_next(&m->durations, &it));) {
        const struct duration *d = e->value;
        uint64_t sum = 0;
        for (size_t i = 0; i < TH_ARRAY_LEN(buckets_ms); i++) {
            sum += d->in[i];
            th_buf_printf(b, "%s_bucket{%s,le=\"%g\"} %llu\n", name, e->key, buckets_ms[i] / 1000.0,
                          (unsigned long long)sum);
        }
        th_buf_printf(b, "%s_bucket{%s,le=\"+Inf\"} %llu\n%s_sum{%s} %.6f\n%s_count{%s} %llu\n", name,
                      e->key, (unsigned long long)d->count, name, e->key, (double)d->us / 1e6, name,
                      e->key, (unsigned long long)d->count);
    }
    (void)pthread_mutex_unlock(&m->lock);
}

/* Objects by resource: the keys' first two segments, which come sorted. */
static void put_objects(struct th_store *s, struct th_buf *b)
{
    TH_CLEANUP(th_store_list_done) struct th_store_list l = {.n = 0};
    if (th_store_range(s, "", NULL, 0, 0, &l, NULL) < 0) {
        return;
    }
    head(b, "apiserver_resource_objects", "Stored objects by resource.", "gauge");
    for (size_t i = 0; i < l.n;) {
        const char *key = l.objs[i]->key;
        size_t group = strcspn(key, "/");
        size_t n = group + 1 + strcspn(key + group + 1, "/");
        size_t k = i;
        while (k < l.n && strncmp(l.objs[k]->key, key, n + 1) == 0) {
            k++;
        }
        bool core = group == 4 && memcmp(key, "core", 4) == 0;
        th_buf_printf(b, "apiserver_resource_objects{group=\"%.*s\",resource=\"%.*s\"} %zu\n",
                      core ? 0 : (int)group, key, (int)(n - group - 1), key + group + 1, k - i);
        i = k;
    }
}

static double resident_bytes(void)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    if (th_io_read_file("/proc/self/statm", 4096, &b, NULL) < 0) {
        return 0;
    }
    char *end = NULL;
    (void)strtol(th_buf_cstr(&b), &end, 10);
    return (double)strtol(end, NULL, 10) * (double)sysconf(_SC_PAGESIZE);
}

static double open_files(void)
{
    DIR *d = opendir("/proc/self/fd");
    double n = 0;
    while (d && readdir(d)) {
        n++;
    }
    if (d) {
        (void)closedir(d);
    }
    return n > 3 ? n - 3 : 0; /* ".", ".." and the folder itself */
}

static void put_process(const struct th_metrics *m, struct th_buf *b)
{
    struct timespec cpu = {0, 0};
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    single(b, "process_cpu_seconds_total", "User and system time.", "counter",
           (double)cpu.tv_sec + (double)cpu.tv_nsec / 1e9);
    single(b, "process_resident_memory_bytes", "Resident memory.", "gauge", resident_bytes());
    single(b, "process_open_fds", "Open files.", "gauge", open_files());
    single(b, "process_start_time_seconds", "When the process started.", "gauge",
           (double)m->started_ms / 1000);
}

static void put_store(struct th_store *store, struct th_buf *b)
{
    struct th_store_stats s;
    th_store_stats(store, &s);
    single(b, "thimble_store_objects", "Objects in the store.", "gauge", (double)s.keys);
    single(b, "thimble_store_bytes", "Bytes of the newest revisions.", "gauge", (double)s.bytes);
    single(b, "thimble_store_watchers", "Open watches.", "gauge", (double)s.watchers);
    single(b, "thimble_store_commits_total", "Group commits.", "counter", (double)s.commits);
    single(b, "thimble_store_rows_total", "Rows written.", "counter", (double)s.rows);
    single(b, "thimble_store_revision", "Newest revision.", "gauge", (double)th_store_rv(store));
}

int th_metrics_serve(struct th_call *c, struct th_err *err)
{
    if (!th_streq(c->route.path, "/metrics")) {
        return 0;
    }
    struct th_buf *b = &c->resp->body;
    put_requests(c->api->metrics, b);
    th_flow_metrics(c->api->flow, b);
    put_objects(c->api->store, b);
    put_store(c->api->store, b);
    put_process(c->api->metrics, b);
    TH_TRY(th_buf_check(b, err));
    c->resp->status = 200;
    c->resp->content_type = "text/plain; version=0.0.4; charset=utf-8";
    return 1;
}
