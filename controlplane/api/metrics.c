/* /metrics in Prometheus' text form: requests by verb and code with their time, and the store. */
#include "controlplane/api/priv.h"

#include "base/io.h"
#include "controlplane/api/flow.h"

#include <unistd.h>

#define MAX_ROWS 128

struct row {
    char verb[20];
    int code;
    uint64_t count, us;
};
struct th_metrics {
    pthread_mutex_t lock;
    struct row rows[MAX_ROWS]; /* verbs x codes that occurred: a few dozen */
    size_t n;
};

struct th_metrics *th_metrics_new(void)
{
    struct th_metrics *m = TH_NEW(struct th_metrics);
    (void)pthread_mutex_init(&m->lock, NULL);
    return m;
}

void th_metrics_free(struct th_metrics *m)
{
    if (m) {
        (void)pthread_mutex_destroy(&m->lock);
        free(m);
    }
}

void th_metrics_request(struct th_metrics *m, const char *verb, int code, int64_t us)
{
    (void)pthread_mutex_lock(&m->lock);
    size_t i = 0;
    while (i < m->n && (m->rows[i].code != code || strcmp(m->rows[i].verb, verb) != 0)) {
        i++;
    }
    if (i == m->n && m->n < MAX_ROWS) {
        (void)snprintf(m->rows[i].verb, sizeof(m->rows[i].verb), "%s", verb);
        m->rows[i].code = code;
        m->n++;
    }
    if (i < m->n) {
        m->rows[i].count++;
        m->rows[i].us += us > 0 ? (uint64_t)us : 0;
    }
    (void)pthread_mutex_unlock(&m->lock);
}

static long resident_bytes(void)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    if (th_io_read_file("/proc/self/statm", 4096, &b, NULL) < 0) {
        return 0;
    }
    char *end = NULL;
    (void)strtol(th_buf_cstr(&b), &end, 10);
    return strtol(end, NULL, 10) * sysconf(_SC_PAGESIZE);
}

static void gauge(struct th_buf *b, const char *name, const char *help, const char *type,
                  uint64_t value)
{
    th_buf_printf(b, "# HELP %s %s\n# TYPE %s %s\n%s %llu\n", name, help, name, type, name,
                  (unsigned long long)value);
}

int th_metrics_serve(struct th_call *c, struct th_err *err)
{
    (void)err;
    if (!th_streq(c->route.path, "/metrics")) {
        return 0;
    }
    struct th_buf *b = &c->resp->body;
    struct th_metrics *m = c->api->metrics;
    (void)pthread_mutex_lock(&m->lock);
    th_buf_puts(b, "# HELP apiserver_request_total Requests by verb and HTTP code.\n"
                   "# TYPE apiserver_request_total counter\n");
    for (size_t i = 0; i < m->n; i++) {
        th_buf_printf(b, "apiserver_request_total{verb=\"%s\",code=\"%d\"} %llu\n", m->rows[i].verb,
                      m->rows[i].code, (unsigned long long)m->rows[i].count);
    }
    th_buf_puts(b, "# HELP apiserver_request_duration_seconds_sum Time spent in requests.\n"
                   "# TYPE apiserver_request_duration_seconds_sum counter\n");
    for (size_t i = 0; i < m->n; i++) {
        th_buf_printf(b, "apiserver_request_duration_seconds_sum{verb=\"%s\",code=\"%d\"} %.6f\n",
                      m->rows[i].verb, m->rows[i].code, (double)m->rows[i].us / 1e6);
    }
    (void)pthread_mutex_unlock(&m->lock);
    th_flow_metrics(c->api->flow, b);
    struct th_store_stats s;
    th_store_stats(c->api->store, &s);
    gauge(b, "thimble_store_objects", "Objects in the store.", "gauge", s.keys);
    gauge(b, "thimble_store_bytes", "Bytes of the newest revisions.", "gauge", s.bytes);
    gauge(b, "thimble_store_watchers", "Open watches.", "gauge", s.watchers);
    gauge(b, "thimble_store_commits_total", "Group commits.", "counter", s.commits);
    gauge(b, "thimble_store_rows_total", "Rows written.", "counter", s.rows);
    gauge(b, "thimble_store_revision", "Newest revision.", "gauge",
          (uint64_t)th_store_rv(c->api->store));
    gauge(b, "process_resident_memory_bytes", "Resident memory.", "gauge",
          (uint64_t)resident_bytes());
    c->resp->status = 200;
    c->resp->content_type = "text/plain; version=0.0.4; charset=utf-8";
    return 1;
}
