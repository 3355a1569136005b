/* A blocking HTTP GET over libcurl: lifecycle hooks, and probes of scheme HTTPS (certificates are
 * not checked there, as upstream). Probes over plain HTTP are in probe.c, without a thread. */
#include "base/limits.h"
#include "vm/node/agent.h"

#include <curl/curl.h>

struct sink {
    struct th_buf *b;
};

static size_t take(char *p, size_t size, size_t n, void *arg)
{
    struct sink *s = arg;
    if (s->b && s->b->n < TH_LIMIT_PROBE_BODY_B) {
        th_buf_add(s->b, p, size * n);
    }
    return size * n;
}

int http_get(const char *ip, int port, const char *path, const char *host, const struct th_json *headers,
             bool tls, const char *user_agent, int64_t timeout_ms, int *ret_status, struct th_buf *body,
             struct th_err *err)
{
    CURL *c = curl_easy_init();
    if (!c) {
        return th_fail(err, TH_R_INTERNAL, "libcurl does not start");
    }
    th_autofree char *url = th_xasprintf("%s://%s:%d%s%s", tls ? "https" : "http", ip, port,
                                         path[0] == '/' ? "" : "/", path);
    struct curl_slist *h = NULL;
    for (size_t i = 0; i < th_json_len(headers); i++) {
        struct th_json *o = th_json_at(headers, i);
        th_autofree char *line = th_xasprintf("%s: %s", th_json_path_str(o, "name"),
                                              th_json_path_str(o, "value"));
        h = curl_slist_append(h, line);
    }
    if (host) {
        th_autofree char *line = th_xasprintf("Host: %s", host);
        h = curl_slist_append(h, line);
    }
    struct sink s = {.b = body};
    curl_easy_setopt(c, CURLOPT_URL, url);
    curl_easy_setopt(c, CURLOPT_HTTPHEADER, h);
    curl_easy_setopt(c, CURLOPT_USERAGENT, user_agent);
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
    curl_easy_setopt(c, CURLOPT_SSL_VERIFYPEER, 0L);
    curl_easy_setopt(c, CURLOPT_SSL_VERIFYHOST, 0L);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, &s);
    CURLcode rc = curl_easy_perform(c);
    long code = 0;
    curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &code);
    curl_easy_cleanup(c);
    curl_slist_free_all(h);
    if (rc != CURLE_OK) {
        return th_fail(err, rc == CURLE_OPERATION_TIMEDOUT ? TH_R_TIMEOUT : TH_R_UNAVAILABLE,
                       "Get \"%s\": %s", url,
                       rc == CURLE_OPERATION_TIMEDOUT
                           ? "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
                           : curl_easy_strerror(rc));
    }
    *ret_status = (int)code;
    return 0;
}
