#ifndef TH_CLIENT_HTTP_H
#define TH_CLIENT_HTTP_H
/* Shared by the two halves of the HTTP transport: requests (http.c) and watches (http_watch.c). */
#include "controlplane/client/client_priv.h"

#include <curl/curl.h>
#include <pthread.h>

#define TH_HTTP_IDLE 8 /* connections kept for the next request */

struct th_http {
    struct th_client base;
    char *server, *unix_socket;
    struct curl_slist *headers; /* of every request */
    struct curl_slist *connect_to; /* or NULL */
    int ca_fd, cert_fd, key_fd; /* memfds, or -1 */
    bool insecure;
    void (*on_warning)(void *arg, const char *text);
    void *warning_arg;
    pthread_mutex_t lock;
    CURL *idle[TH_HTTP_IDLE]; /* lock */
    size_t n_idle;            /* lock */
};

CURL *th_http_handle(struct th_http *h); /* an idle one, or a new one */
void th_http_put_back(struct th_http *h, CURL *easy);
/* Server, TLS, user agent: what all requests share. */
void th_http_setup(struct th_http *h, CURL *easy, const char *path, const char *query,
                   const char *errbuf);
/* A transport failure as an error. */
int th_http_fail(struct th_http *h, CURLcode rc, const char *errbuf, struct th_err *err);

int th_http_watch_open(struct th_client *c, const struct th_watch_req *req,
                       struct th_client_watch **ret, struct th_err *err);
int th_http_watch_next(struct th_client_watch *w, int64_t timeout_ms, struct th_watch_item *ret,
                       struct th_err *err);
void th_http_watch_wake(struct th_client_watch *w);
void th_http_watch_close(struct th_client_watch *w);
#endif
