/* th-bench-yardstick: what this machine gives without Thimble, for tests/bench/run to divide by.
 *
 *   sqlite DIR ROWS COMMITS BYTES   rows as the store writes them: WAL, synchronous=FULL, its table and index
 *   mhd CERT KEY BYTES              libmicrohttpd with its own TLS and a constant body; prints its port and
 *                                   serves until standard input ends
 *   tls CERT KEY BYTES              so many bytes from one thread to another through TLS on loopback
 *
 * Each prints one line of JSON. */
#include "base/alloc.h"
#include "base/buf.h"
#include "base/io.h"
#include "tests/bench/peer.h"

#include <arpa/inet.h>
#include <microhttpd.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#define RECORD_B 16384

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void sql_ok(int rc, sqlite3 *db)
{
    if (rc != SQLITE_OK && rc != SQLITE_DONE) {
        (void)fprintf(stderr, "SQLite: %s\n", sqlite3_errmsg(db));
        exit(1);
    }
}

static void step(sqlite3 *db, sqlite3_stmt *st)
{
    sql_ok(sqlite3_step(st), db);
    sql_ok(sqlite3_reset(st), db);
}

static int bench_sqlite(const char *dir, size_t rows, size_t commits, size_t bytes)
{
    th_autofree char *path = th_xasprintf("%s/yardstick-%zu.db", dir, rows);
    sqlite3 *db = NULL;
    sqlite3_stmt *begin = NULL, *commit = NULL, *insert = NULL;
    sql_ok(sqlite3_open(path, &db), db);
    sql_ok(sqlite3_exec(db,
                        "PRAGMA auto_vacuum=INCREMENTAL; PRAGMA cache_size=-2048;"
                        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
                        "CREATE TABLE revision(rv INTEGER PRIMARY KEY, key TEXT NOT NULL,"
                        " op INTEGER NOT NULL, create_rv INTEGER NOT NULL, prev_rv INTEGER NOT NULL,"
                        " time_ms INTEGER NOT NULL, log_b INTEGER NOT NULL, value BLOB NOT NULL);"
                        "CREATE INDEX revision_key ON revision(key);",
                        NULL, NULL, NULL),
           db);
    sql_ok(sqlite3_prepare_v2(db, "BEGIN IMMEDIATE", -1, &begin, NULL), db);
    sql_ok(sqlite3_prepare_v2(db, "COMMIT", -1, &commit, NULL), db);
    sql_ok(sqlite3_prepare_v2(db, "INSERT INTO revision VALUES(?1,?2,0,?1,0,?3,?4,?5)", -1, &insert,
                              NULL),
           db);
    char *value = th_xmalloc(bytes);
    memset(value, 'x', bytes);
    double *took = th_xcalloc(commits, sizeof(double));
    double start = peer_now_us();
    sqlite3_int64 rv = 0;
    for (size_t i = 0; i < commits; i++) {
        double t = peer_now_us();
        step(db, begin);
        for (size_t k = 0; k < rows; k++) {
            char key[64];
            rv++;
            (void)snprintf(key, sizeof(key), "core/configmaps/default/bench-%lld", (long long)rv);
            sqlite3_bind_int64(insert, 1, rv);
            sqlite3_bind_text(insert, 2, key, -1, SQLITE_STATIC);
            sqlite3_bind_int64(insert, 3, 1700000000000 + rv);
            sqlite3_bind_int64(insert, 4, rv * (sqlite3_int64)bytes);
            sqlite3_bind_blob(insert, 5, value, (int)bytes, SQLITE_STATIC);
            step(db, insert);
        }
        step(db, commit);
        took[i] = peer_now_us() - t;
    }
    double wall = peer_now_us() - start;
    qsort(took, commits, sizeof(double), by_value);
    printf("{\"p50_us\":%.1f,\"rows_per_s\":%.1f}\n", took[commits / 2],
           (double)(rows * commits) * 1e6 / wall);
    sqlite3_finalize(begin);
    sqlite3_finalize(commit);
    sqlite3_finalize(insert);
    sqlite3_close(db);
    (void)unlink(path);
    return 0;
}

/* ---- libmicrohttpd with its own TLS ---- */

static enum MHD_Result answer(void *cls, struct MHD_Connection *c, const char *url, const char *method,
                              const char *version, const char *data, size_t *data_n, void **ctx)
{
    (void)url;
    (void)method;
    (void)version;
    (void)data;
    *data_n = 0;
    if (!*ctx) {
        *ctx = cls;
        return MHD_YES;
    }
    return MHD_queue_response(c, 200, cls);
}

static char *file_text(const char *path)
{
    struct th_buf b = TH_BUF_INIT;
    if (th_io_read_file(path, 1u << 20, &b, NULL) < 0) {
        perror(path);
        exit(1);
    }
    return th_buf_steal(&b, NULL);
}

static int serve_mhd(const char *cert, const char *key, size_t bytes)
{
    char *body = th_xmalloc(bytes);
    memset(body, 'x', bytes);
    struct MHD_Response *r = MHD_create_response_from_buffer(bytes, body, MHD_RESPMEM_PERSISTENT);
    (void)MHD_add_response_header(r, "Content-Type", "application/json");
    (void)MHD_add_response_header(r, "Cache-Control", "no-cache, private");
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct MHD_Daemon *d = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_TLS, 0, NULL, NULL, answer, r, MHD_OPTION_SOCK_ADDR, &a,
        MHD_OPTION_HTTPS_MEM_CERT, file_text(cert), MHD_OPTION_HTTPS_MEM_KEY, file_text(key),
        MHD_OPTION_THREAD_POOL_SIZE, 2u, MHD_OPTION_END);
    const union MHD_DaemonInfo *i = d ? MHD_get_daemon_info(d, MHD_DAEMON_INFO_BIND_PORT) : NULL;
    if (!i) {
        (void)fprintf(stderr, "libmicrohttpd does not start\n");
        return 1;
    }
    printf("{\"port\":%u}\n", i->port);
    (void)fflush(stdout);
    while (getchar() != EOF) {
        /* until it ends */
    }
    MHD_stop_daemon(d);
    return 0;
}

/* ---- bytes through TLS ---- */

struct pass {
    int fd;
    gnutls_certificate_credentials_t cred;
    size_t bytes;
};

static void *pass_out(void *arg)
{
    struct pass *p = arg;
    gnutls_session_t s;
    char *buf = th_xcalloc(1, RECORD_B);
    int fd = accept(p->fd, NULL, NULL);
    int one = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    (void)gnutls_init(&s, GNUTLS_SERVER | GNUTLS_NO_SIGNAL);
    (void)gnutls_set_default_priority(s);
    (void)gnutls_credentials_set(s, GNUTLS_CRD_CERTIFICATE, p->cred);
    gnutls_transport_set_int(s, fd);
    if (gnutls_handshake(s) < 0) {
        (void)fprintf(stderr, "the handshake failed\n");
        exit(1);
    }
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Length: ";
    char ask[1024];
    while (gnutls_record_recv(s, ask, sizeof(ask)) > 0) {
        int n = snprintf(ask, sizeof(ask), "%s%zu\r\n\r\n", head, p->bytes);
        (void)gnutls_record_send(s, ask, (size_t)n);
        for (size_t left = p->bytes; left > 0;) {
            ssize_t w = gnutls_record_send(s, buf, left < RECORD_B ? left : RECORD_B);
            if (w < 0) {
                return NULL;
            }
            left -= (size_t)w;
        }
    }
    free(buf);
    (void)close(fd);
    gnutls_deinit(s);
    return NULL;
}

static int bench_tls(const char *cert, const char *key, size_t bytes)
{
    struct pass p = {.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), .bytes = bytes};
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(a);
    if (bind(p.fd, (struct sockaddr *)&a, n) < 0 || listen(p.fd, 1) < 0 ||
        getsockname(p.fd, (struct sockaddr *)&a, &n) < 0 ||
        gnutls_certificate_allocate_credentials(&p.cred) < 0 ||
        gnutls_certificate_set_x509_key_file(p.cred, cert, key, GNUTLS_X509_FMT_PEM) < 0) {
        (void)fprintf(stderr, "no listener\n");
        return 1;
    }
    pthread_t t;
    if (pthread_create(&t, NULL, pass_out, &p) != 0) {
        return 1;
    }
    struct peer_opts o = {.host = "127.0.0.1", .port = ntohs(a.sin_port)};
    struct peer c = {.fd = -1};
    double took[9];
    peer_global(&o);
    peer_open(&c, &o);
    for (size_t i = 0; i < TH_ARRAY_LEN(took); i++) {
        double start = peer_now_us();
        peer_send(&c, "GET", 3);
        while (!peer_read(&c)) {
            /* blocking */
        }
        took[i] = peer_now_us() - start;
    }
    (void)shutdown(c.fd, SHUT_WR);
    (void)pthread_join(t, NULL);
    qsort(took, TH_ARRAY_LEN(took), sizeof(double), by_value);
    double p50 = took[TH_ARRAY_LEN(took) / 2];
    printf("{\"p50_us\":%.1f,\"mb_per_s\":%.1f}\n", p50, (double)bytes / p50);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 6 && th_streq(argv[1], "sqlite")) {
        return bench_sqlite(argv[2], strtoul(argv[3], NULL, 10), strtoul(argv[4], NULL, 10),
                            strtoul(argv[5], NULL, 10));
    }
    if (argc == 5 && th_streq(argv[1], "mhd")) {
        return serve_mhd(argv[2], argv[3], strtoul(argv[4], NULL, 10));
    }
    if (argc == 5 && th_streq(argv[1], "tls")) {
        return bench_tls(argv[2], argv[3], strtoul(argv[4], NULL, 10));
    }
    (void)fprintf(stderr, "usage: th-bench-yardstick sqlite|mhd|tls ...\n");
    return 2;
}
