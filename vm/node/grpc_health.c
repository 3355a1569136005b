/* The client's side of grpc.health.v1.Health/Check, for gRPC probes: one unary call over plain
 * HTTP/2 (libcurl, prior knowledge), blocking.
 *
 * The request is one message with the service's name (field 1); the answer one message whose field
 * 1 is the serving status, then grpc-status and grpc-message as trailers (or as headers, when there
 * is no message). Both are so small that they are read and written here without a protobuf or gRPC
 * library. Texts are those of upstream's prober. */
#include "base/limits.h"
#include "vm/node/agent.h"

#include <curl/curl.h>
#include <strings.h>

enum { GRPC_OK = 0, GRPC_DEADLINE = 4, GRPC_UNIMPLEMENTED = 12, GRPC_UNAVAILABLE = 14 };

static const char *const CODES[] = {
    "OK",       "Canceled",       "Unknown",          "InvalidArgument",   "DeadlineExceeded",
    "NotFound", "AlreadyExists",  "PermissionDenied", "ResourceExhausted", "FailedPrecondition",
    "Aborted",  "OutOfRange",     "Unimplemented",    "Internal",          "Unavailable",
    "DataLoss", "Unauthenticated"};

struct answer {
    struct th_buf body;
    int status; /* grpc-status, or -1 */
    char *message;
};

static size_t take_body(char *p, size_t size, size_t n, void *arg)
{
    struct answer *a = arg;
    if (a->body.n + size * n > TH_LIMIT_PROBE_BODY_B) {
        return 0;
    }
    th_buf_add(&a->body, p, size * n);
    return size * n;
}

static size_t take_header(char *p, size_t size, size_t n, void *arg)
{
    struct answer *a = arg;
    th_autofree char *line = th_xstrndup(p, size * n);
    line[strcspn(line, "\r\n")] = 0;
    char *v = strchr(line, ':');
    if (v) {
        *v++ = 0;
        v += strspn(v, " ");
        if (strcasecmp(line, "grpc-status") == 0) {
            a->status = (int)strtol(v, NULL, 10);
        } else if (strcasecmp(line, "grpc-message") == 0) {
            free(a->message);
            a->message = th_xstrdup(v);
        }
    }
    return size * n;
}

void grpc_health_request(const char *service, struct th_buf *out)
{
    size_t n = strlen(service);
    th_autobuf struct th_buf m = TH_BUF_INIT;
    if (n > 0) {
        th_buf_putc(&m, 0x0a); /* field 1, length-delimited */
        for (size_t v = n;; v >>= 7) {
            th_buf_putc(&m, (char)((v & 127) | (v > 127 ? 128 : 0)));
            if (v <= 127) {
                break;
            }
        }
        th_buf_add(&m, service, n);
    }
    const char head[5] = {0, (char)(m.n >> 24), (char)(m.n >> 16), (char)(m.n >> 8), (char)m.n};
    th_buf_add(out, head, sizeof(head));
    th_buf_add(out, m.p, m.n);
}

int grpc_health_status(const void *body, size_t n)
{
    const unsigned char *b = body;
    if (n < 5 || b[0] != 0) {
        return -1;
    }
    size_t len = (size_t)b[1] << 24 | (size_t)b[2] << 16 | (size_t)b[3] << 8 | b[4];
    if (len != n - 5) {
        return -1;
    }
    if (len == 0) {
        return 0; /* the default: UNKNOWN */
    }
    return len == 2 && b[5] == 0x08 && b[6] < 128 ? b[6] : -1;
}

bool grpc_health(const char *ip, int port, const char *service, int64_t timeout_ms, char **ret_text)
{
    static const char *const serving[] = {"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"};
    CURL *c = curl_easy_init();
    if (!c) {
        *ret_text = th_xstrdup("error: libcurl does not start");
        return false;
    }
    th_autobuf struct th_buf req = TH_BUF_INIT;
    grpc_health_request(service, &req);
    th_autofree char *url = th_xasprintf("http://%s:%d/grpc.health.v1.Health/Check", ip, port);
    struct curl_slist *h = curl_slist_append(NULL, "Content-Type: application/grpc");
    h = curl_slist_append(h, "TE: trailers");
    struct answer a = {.body = TH_BUF_INIT, .status = -1};
    curl_easy_setopt(c, CURLOPT_URL, url);
    curl_easy_setopt(c, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE);
    curl_easy_setopt(c, CURLOPT_HTTPHEADER, h);
    curl_easy_setopt(c, CURLOPT_USERAGENT, "kube-probe/1.36");
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
    curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE, (long)req.n);
    curl_easy_setopt(c, CURLOPT_POSTFIELDS, req.p);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, take_body);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, &a);
    curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, take_header);
    curl_easy_setopt(c, CURLOPT_HEADERDATA, &a);
    CURLcode rc = curl_easy_perform(c);
    curl_off_t connected = 0;
    long http = 0;
    curl_easy_getinfo(c, CURLINFO_CONNECT_TIME_T, &connected);
    curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &http);
    curl_easy_cleanup(c);
    curl_slist_free_all(h);
    char limit[32];
    (void)snprintf(limit, sizeof(limit), "%llds", (long long)timeout_ms / 1000);
    bool ok = false;
    if (rc != CURLE_OK && connected == 0) {
        /* upstream's dial tries again until the time is over, whatever the reason */
        *ret_text =
            th_xasprintf("timeout: failed to connect service \"%s:%d\" within %s: context deadline "
                         "exceeded",
                         ip, port, limit);
    } else if (rc == CURLE_OPERATION_TIMEDOUT || a.status == GRPC_DEADLINE) {
        *ret_text = th_xasprintf("timeout: health rpc did not complete within %s", limit);
    } else if (a.status == GRPC_UNIMPLEMENTED || (a.status < 0 && http == 404)) {
        *ret_text = th_xasprintf("error: this server does not implement the grpc health protocol "
                                 "(grpc.health.v1.Health): %s",
                                 a.message ? a.message : "");
    } else if (rc != CURLE_OK ||
               (a.status != GRPC_OK && !(a.status < 0 && a.body.n > 0 && http == 200))) {
        /* (libcurl does not wait for trailers after a body whose length was announced) */
        int code =
            a.status >= 0 && a.status < (int)TH_ARRAY_LEN(CODES) ? a.status : GRPC_UNAVAILABLE;
        *ret_text = th_xasprintf("error: health rpc probe failed: rpc error: code = %s desc = %s",
                                 CODES[code], a.message ? a.message : curl_easy_strerror(rc));
    } else {
        int s = grpc_health_status(a.body.p, a.body.n);
        ok = s == 1;
        *ret_text =
            ok ? th_xstrdup("service healthy")
               : th_xasprintf("service unhealthy (responded with \"%s\")",
                              s >= 0 && s < (int)TH_ARRAY_LEN(serving) ? serving[s] : "UNKNOWN");
    }
    th_buf_done(&a.body);
    free(a.message);
    return ok;
}
