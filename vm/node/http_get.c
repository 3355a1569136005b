/* A blocking HTTP GET over libcurl: lifecycle hooks, and probes of scheme HTTPS (certificates are
 * not checked there, as upstream). Probes over plain HTTP are in probe.c, without a thread. */
#include "base/clock.h"
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
    th_autofree char *url = http_url(ip, port, path, tls);
    return http_get_url(url, host, headers, user_agent, timeout_ms, ret_status, NULL, body, err);
}

char *http_url(const char *ip, int port, const char *path, bool tls)
{
    return th_xasprintf("%s://%s:%d%s%s", tls ? "https" : "http", ip, port, path[0] == '/' ? "" : "/", path);
}

int http_get_url(const char *url, const char *host, const struct th_json *headers, const char *user_agent,
                 int64_t timeout_ms, int *ret_status, char **ret_redirect, struct th_buf *body,
                 struct th_err *err)
{
    CURL *c = curl_easy_init();
    if (!c) {
        return th_fail(err, TH_R_INTERNAL, "libcurl does not start");
    }
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
    char *to = NULL;
    if (ret_redirect && rc == CURLE_OK && curl_easy_getinfo(c, CURLINFO_REDIRECT_URL, &to) == CURLE_OK && to) {
        *ret_redirect = th_xstrdup(to);
    }
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

static bool same_host(const char *a, const char *b)
{
    CURLU *x = curl_url(), *y = curl_url();
    char *h = NULL, *k = NULL;
    bool same = x && y && curl_url_set(x, CURLUPART_URL, a, 0) == CURLUE_OK &&
                curl_url_set(y, CURLUPART_URL, b, 0) == CURLUE_OK &&
                curl_url_get(x, CURLUPART_HOST, &h, 0) == CURLUE_OK &&
                curl_url_get(y, CURLUPART_HOST, &k, 0) == CURLUE_OK && th_streq(h, k);
    curl_free(h);
    curl_free(k);
    curl_url_cleanup(x);
    curl_url_cleanup(y);
    return same;
}

int http_get_local(const char *url, const struct th_json *headers, const char *user_agent, int64_t timeout_ms,
                   int *ret_status, struct th_buf *body, struct th_err *err)
{
    th_autofree char *at = th_xstrdup(url);
    int64_t deadline = th_mono_ms() + timeout_ms;
    for (int n = 0;; n++) {
        th_autofree char *to = NULL;
        int64_t left = deadline - th_mono_ms();
        th_buf_clear(body);
        TH_TRY(http_get_url(at, NULL, headers, user_agent, left > 0 ? left : 1, ret_status, &to, body, err));
        if (!to || !same_host(url, to)) {
            return 0;
        }
        if (n == 9) {
            return th_fail(err, TH_R_UNAVAILABLE, "Get \"%s\": stopped after 10 redirects", to);
        }
        free(at);
        at = th_steal(&to);
    }
}
