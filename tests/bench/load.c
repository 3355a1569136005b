/* th-bench-load: clients of an API server over TLS, cheap enough not to be what is measured.
 *
 *   th-bench-load get    host= port= ca= cert= key= path= clients= total=
 *   th-bench-load create ... path=COLLECTION body=FILE prefix= clients= total=
 *   th-bench-load list   ... path= total=
 *   th-bench-load watch  ... path=COLLECTION watch_path=PATH?watch=1 body=FILE prefix= clients=WATCHERS total= rate=PER_SECOND
 *
 * One thread and one epoll hold all connections, which are open before the clock starts; `body` is a
 * JSON object in which @NAME@ stands for the name. The watch load has a second thread, which writes at
 * a steady rate whatever the watchers do; each event's delay runs from before its request is sent until
 * the last watcher has read all of it. Watchers check that events come in order, each once.
 *
 * One line of JSON on standard output tells what happened. Times are in microseconds. */
#include "base/alloc.h"
#include "base/buf.h"
#include "base/io.h"
#include "tests/bench/peer.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

#define EVENTS 256

struct load {
    struct peer_opts peer;
    const char *path, *watch_path, *prefix, *verb;
    char *body; /* with @NAME@ */
    size_t clients, total;
    double rate;
    double *took;   /* of each request, us */
    size_t begun, done;
    uint64_t bytes;
};

static double cpu_us(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double quantile(double *v, size_t n, double q)
{
    return n == 0 ? 0 : v[(size_t)((double)(n - 1) * q)];
}

/* ---- requests ---- */

static void put_request(struct load *l, size_t i, struct th_buf *b)
{
    th_buf_clear(b);
    if (!th_streq(l->verb, "POST")) {
        th_buf_printf(b, "GET %s HTTP/1.1\r\nHost: %s\r\nAccept: application/json\r\n\r\n",
                      l->watch_path ? l->watch_path : l->path, l->peer.host);
        return;
    }
    th_autobuf struct th_buf body = TH_BUF_INIT;
    for (const char *p = l->body; *p;) {
        const char *at = strstr(p, "@NAME@");
        size_t n = at ? (size_t)(at - p) : strlen(p);
        th_buf_add(&body, p, n);
        p += n;
        if (at) {
            th_buf_printf(&body, "%s-%zu", l->prefix, i);
            p += strlen("@NAME@");
        }
    }
    th_buf_printf(b,
                  "POST %s HTTP/1.1\r\nHost: %s\r\nAccept: application/json\r\n"
                  "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                  l->path, l->peer.host, body.n);
    th_buf_add(b, body.p, body.n);
}

static void send_next(struct load *l, struct peer *p)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    put_request(l, l->begun++, &b);
    p->began = peer_now_us();
    peer_send(p, b.p, b.n);
}

static void check_status(const struct peer *p, int want)
{
    if (p->status != want) {
        (void)fprintf(stderr, "status %d, not %d: %.*s\n", p->status, want, (int)p->head.n, p->head.p);
        exit(1);
    }
}

static int run_requests(struct load *l, int want)
{
    int ep = epoll_create1(EPOLL_CLOEXEC);
    struct peer *peers = th_xcalloc(l->clients, sizeof(*peers));
    l->took = th_xcalloc(l->total, sizeof(double));
    for (size_t i = 0; i < l->clients; i++) {
        peer_open(&peers[i], &l->peer);
        peer_watch(&peers[i], ep);
    }
    double start = peer_now_us(), cpu = cpu_us();
    for (size_t i = 0; i < l->clients && l->begun < l->total; i++) {
        send_next(l, &peers[i]);
    }
    struct epoll_event ev[EVENTS];
    while (l->done < l->total) {
        int n = epoll_wait(ep, ev, EVENTS, 60000);
        if (n <= 0) {
            (void)fprintf(stderr, "no answer for a minute\n");
            return 1;
        }
        for (int i = 0; i < n; i++) {
            struct peer *p = ev[i].data.ptr;
            while (peer_read(p)) {
                check_status(p, want);
                l->took[l->done++] = peer_now_us() - p->began;
                l->bytes += p->body_n;
                if (l->begun < l->total) {
                    send_next(l, p);
                }
            }
        }
    }
    double wall = peer_now_us() - start;
    cpu = cpu_us() - cpu;
    qsort(l->took, l->total, sizeof(double), by_value);
    printf("{\"requests\":%zu,\"per_s\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f,\"client_cpu_us\":%.1f,"
           "\"body_b\":%.0f}\n",
           l->total, (double)l->total * 1e6 / wall, quantile(l->took, l->total, 0.5),
           quantile(l->took, l->total, 0.99), cpu / (double)l->total,
           (double)l->bytes / (double)l->total);
    return 0;
}

static int run_list(struct load *l)
{
    int ep = epoll_create1(EPOLL_CLOEXEC);
    struct peer p = {.fd = -1};
    double *first = th_xcalloc(l->total, sizeof(double));
    l->took = th_xcalloc(l->total, sizeof(double));
    peer_open(&p, &l->peer);
    peer_watch(&p, ep);
    for (size_t i = 0; i < l->total; i++) {
        send_next(l, &p);
        struct epoll_event ev;
        while (!peer_read(&p)) {
            if (epoll_wait(ep, &ev, 1, 60000) <= 0) {
                (void)fprintf(stderr, "no answer for a minute\n");
                return 1;
            }
        }
        check_status(&p, 200);
        l->took[i] = peer_now_us() - p.began;
        first[i] = p.first_us - p.began;
        l->bytes = p.body_n;
    }
    qsort(l->took, l->total, sizeof(double), by_value);
    qsort(first, l->total, sizeof(double), by_value);
    double p50 = quantile(l->took, l->total, 0.5);
    printf("{\"body_b\":%llu,\"first_us\":%.1f,\"p50_us\":%.1f,\"mb_per_s\":%.1f}\n",
           (unsigned long long)l->bytes, quantile(first, l->total, 0.5), p50, (double)l->bytes / p50);
    return 0;
}

/* ---- watches ---- */

struct writer {
    struct load *l;
    double *sent; /* of each event; written before the request goes out */
    size_t late;  /* writes that began later than they should, since the one before was still under way */
    double commit_us;
};

static void *write_steadily(void *arg)
{
    struct writer *w = arg;
    struct load *l = w->l;
    int ep = epoll_create1(EPOLL_CLOEXEC);
    struct peer p = {.fd = -1};
    struct load mine = *l;
    mine.verb = "POST";
    mine.begun = 0;
    peer_open(&p, &l->peer);
    peer_watch(&p, ep);
    double *took = th_xcalloc(l->total, sizeof(double));
    double next = peer_now_us() + 100e3;
    for (size_t i = 0; i < l->total; i++) {
        double now = peer_now_us();
        if (now < next) {
            struct timespec t = {.tv_nsec = (long)((next - now) * 1e3)};
            (void)nanosleep(&t, NULL);
        } else {
            w->late++;
        }
        next += 1e6 / l->rate;
        __atomic_store(&w->sent[i], &(double){peer_now_us()}, __ATOMIC_RELEASE);
        send_next(&mine, &p);
        struct epoll_event ev;
        while (!peer_read(&p)) {
            if (epoll_wait(ep, &ev, 1, 60000) <= 0) {
                (void)fprintf(stderr, "no answer for a minute\n");
                exit(1);
            }
        }
        check_status(&p, 201);
        took[i] = peer_now_us() - w->sent[i];
    }
    qsort(took, l->total, sizeof(double), by_value);
    w->commit_us = quantile(took, l->total, 0.5);
    free(took);
    return NULL;
}

/* One line of a watcher: its event is the next one, or something was lost, repeated or reordered. */
static size_t event_of(struct load *l, struct peer *p)
{
    th_autofree char *name = th_xasprintf("\"name\":\"%s-%zu\"", l->prefix, p->lines);
    if (!strstr(th_buf_cstr(&p->line), name)) {
        (void)fprintf(stderr, "event %zu is not %s: %.200s\n", p->lines, name, th_buf_cstr(&p->line));
        exit(1);
    }
    return p->lines++;
}

static int run_watch(struct load *l)
{
    int ep = epoll_create1(EPOLL_CLOEXEC);
    struct peer *peers = th_xcalloc(l->clients, sizeof(*peers));
    size_t *seen = th_xcalloc(l->total, sizeof(size_t));
    l->took = th_xcalloc(l->total, sizeof(double));
    struct writer w = {.l = l, .sent = th_xcalloc(l->total, sizeof(double))};
    struct epoll_event ev[EVENTS];
    for (size_t i = 0; i < l->clients; i++) {
        peers[i].streaming = true;
        peer_open(&peers[i], &l->peer);
        peer_watch(&peers[i], ep);
        send_next(l, &peers[i]);
        while (!peers[i].status) { /* the head: it watches */
            (void)peer_read(&peers[i]);
            (void)epoll_wait(ep, ev, 1, 1);
        }
        check_status(&peers[i], 200);
    }
    printf("watching\n");
    (void)fflush(stdout);
    (void)getchar(); /* whoever asked for it looks at the server's memory now */
    double cpu = cpu_us();
    pthread_t thread;
    if (pthread_create(&thread, NULL, write_steadily, &w) != 0) {
        return 1;
    }
    while (l->done < l->total) {
        int n = epoll_wait(ep, ev, EVENTS, 60000);
        if (n <= 0) {
            (void)fprintf(stderr, "no event for a minute\n");
            return 1;
        }
        for (int i = 0; i < n; i++) {
            struct peer *p = ev[i].data.ptr;
            while (peer_read_line(p)) {
                size_t k = event_of(l, p);
                if (++seen[k] == l->clients) {
                    double sent;
                    __atomic_load(&w.sent[k], &sent, __ATOMIC_ACQUIRE);
                    l->took[l->done++] = peer_now_us() - sent;
                }
            }
        }
    }
    (void)pthread_join(thread, NULL);
    qsort(l->took, l->total, sizeof(double), by_value);
    printf("{\"watchers\":%zu,\"events\":%zu,\"p50_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f,"
           "\"late\":%zu,\"create_p50_us\":%.1f,\"client_cpu_us\":%.2f}\n",
           l->clients, l->total, quantile(l->took, l->total, 0.5), quantile(l->took, l->total, 0.99),
           l->took[l->total - 1], w.late, w.commit_us,
           (cpu_us() - cpu) / (double)(l->clients * l->total));
    return 0;
}

/* ---- arguments ---- */

static const char *option(int argc, char **argv, const char *name, const char *dflt)
{
    size_t n = strlen(name);
    for (int i = 2; i < argc; i++) {
        if (strncmp(argv[i], name, n) == 0 && argv[i][n] == '=') {
            return argv[i] + n + 1;
        }
    }
    return dflt;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        (void)fprintf(stderr, "usage: th-bench-load get|create|list|watch NAME=VALUE...\n");
        return 2;
    }
    struct load l = {
        .peer = {.host = option(argc, argv, "host", "127.0.0.1"),
                 .port = (int)strtol(option(argc, argv, "port", "6443"), NULL, 10),
                 .ca = option(argc, argv, "ca", NULL),
                 .cert = option(argc, argv, "cert", NULL),
                 .key = option(argc, argv, "key", NULL)},
        .path = option(argc, argv, "path", "/livez"),
        .watch_path = option(argc, argv, "watch_path", NULL),
        .prefix = option(argc, argv, "prefix", "bench"),
        .verb = th_streq(argv[1], "create") ? "POST" : "GET",
        .clients = strtoul(option(argc, argv, "clients", "1"), NULL, 10),
        .total = strtoul(option(argc, argv, "total", "1000"), NULL, 10),
        .rate = strtod(option(argc, argv, "rate", "200"), NULL),
    };
    const char *body = option(argc, argv, "body", NULL);
    if (body) {
        th_autobuf struct th_buf b = TH_BUF_INIT;
        if (th_io_read_file(body, 4u << 20, &b, NULL) < 0) {
            perror(body);
            return 1;
        }
        l.body = th_xstrdup(th_buf_cstr(&b));
    }
    peer_global(&l.peer);
    if (th_streq(argv[1], "list")) {
        return run_list(&l);
    }
    if (th_streq(argv[1], "watch")) {
        return run_watch(&l);
    }
    return run_requests(&l, th_streq(argv[1], "create") ? 201 : 200);
}
