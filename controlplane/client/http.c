/* The HTTP transport: requests over libcurl.
 *
 * Every thread may call; each request takes an easy handle out of a small pool, so that the
 * connection (and the TLS handshake behind it) of an earlier request is used again, and puts it
 * back. More calls at once than the pool holds get handles of their own, closed afterwards.
 * libcurl itself repeats a request whose kept connection turns out to be dead before anything came
 * back.
 *
 * Certificates and keys come as PEM text. Debian's libcurl is built with GnuTLS, which takes file
 * names only, so the text is put into memfds and named /proc/self/fd/N: keys never touch a disk.
 * The system's certificates are not trusted: the cluster has its own CA.
 *
 * Proxy variables of the environment are ignored: the server is on this machine.
 */
#include "controlplane/client/http.h"

#include <errno.h>
#include <strings.h>
#include <sys/mman.h>

struct exchange {
    struct th_http *h;
    const struct th_client_req *req;
    CURL *easy;
    struct th_buf *body;
    bool stopped; /* on_data said so */
    bool aborted; /* in_fn said so */
};

/* ---- Handles ---- */

CURL *th_http_handle(struct th_http *h)
{
    CURL *easy = NULL;
    pthread_mutex_lock(&h->lock);
    if (h->n_idle > 0) {
        easy = h->idle[--h->n_idle];
    }
    pthread_mutex_unlock(&h->lock);
    if (!easy) {
        easy = curl_easy_init();
        TH_ASSERT(easy);
    }
    return easy;
}

void th_http_put_back(struct th_http *h, CURL *easy)
{
    curl_easy_reset(easy); /* keeps the connection */
    pthread_mutex_lock(&h->lock);
    if (h->n_idle < TH_HTTP_IDLE) {
        h->idle[h->n_idle++] = easy;
        easy = NULL;
    }
    pthread_mutex_unlock(&h->lock);
    if (easy) {
        curl_easy_cleanup(easy);
    }
}

static void set_file(CURL *easy, CURLoption option, int fd)
{
    if (fd >= 0) {
        char path[40];
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        curl_easy_setopt(easy, option, path);
    }
}

void th_http_setup(struct th_http *h, CURL *easy, const char *path, const char *query,
                   const char *errbuf)
{
    th_autofree char *url =
        th_xasprintf("%s%s%s%s", h->server, path,
                     query && *query ? (strchr(path, '?') ? "&" : "?") : "", query ? query : "");
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, errbuf);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, 10000L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, 30L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, 10L);
    curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
    if (h->unix_socket) {
        curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, h->unix_socket);
    }
    if (h->connect_to) {
        curl_easy_setopt(easy, CURLOPT_CONNECT_TO, h->connect_to);
    }
    if (h->ca_fd >= 0) {
        set_file(easy, CURLOPT_CAINFO, h->ca_fd);
        curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
    }
    if (h->insecure) {
        curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
        curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
    }
    set_file(easy, CURLOPT_SSLCERT, h->cert_fd);
    set_file(easy, CURLOPT_SSLKEY, h->key_fd);
}

int th_http_fail(struct th_http *h, CURLcode rc, const char *errbuf, struct th_err *err)
{
    enum th_reason reason = TH_R_UNAVAILABLE;
    if (rc == CURLE_OPERATION_TIMEDOUT) {
        reason = TH_R_TIMEOUT;
    } else if (rc == CURLE_ABORTED_BY_CALLBACK) {
        reason = TH_R_CANCELED;
    }
    return th_fail(err, reason, "%s: %s", h->unix_socket ? h->unix_socket : h->server,
                   errbuf[0] ? errbuf : curl_easy_strerror(rc));
}

/* ---- One request ---- */

static size_t on_body(char *p, size_t size, size_t n, void *arg)
{
    struct exchange *x = arg;
    long status = 0;
    n *= size;
    curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &status);
    if (x->req->on_data && status < 400) {
        if (!x->req->on_data(x->req->arg, p, n)) {
            x->stopped = true;
            return 0;
        }
        return n;
    }
    th_buf_add(x->body, p, n);
    return x->body->overflow ? 0 : n;
}

/* Warning: 299 - "text", with \" and \\ inside, as RFC 7234 has it and API servers use it. */
static size_t on_header(char *p, size_t size, size_t n, void *arg)
{
    static const char name[] = "warning:";
    const struct exchange *x = arg;
    n *= size;
    const char *end = p + n;
    if (n <= sizeof(name) || strncasecmp(p, name, sizeof(name) - 1) != 0) {
        return n;
    }
    const char *s = memchr(p, '"', n);
    th_autobuf struct th_buf text = TH_BUF_INIT;
    for (s = s ? s + 1 : end; s < end && *s != '"'; s++) {
        if (*s == '\\' && s + 1 < end) {
            s++;
        }
        if ((unsigned char)*s >= 0x20) {
            th_buf_putc(&text, *s);
        }
    }
    if (text.n) {
        x->h->on_warning(x->h->warning_arg, th_buf_cstr(&text));
    }
    return n;
}

static size_t on_upload(char *p, size_t size, size_t n, void *arg)
{
    struct exchange *x = arg;
    long r = x->req->in_fn(x->req->arg, p, size * n);
    if (r < 0) {
        x->aborted = true;
        return CURL_READFUNC_ABORT;
    }
    return (size_t)r;
}

static int on_progress(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    const struct exchange *x = arg;
    (void)a;
    (void)b;
    (void)c;
    (void)d;
    return __atomic_load_n(x->req->cancel, __ATOMIC_ACQUIRE) ? 1 : 0;
}

/* A copy of the common headers with this request's own; freed by the caller. */
static struct curl_slist *headers_of(struct th_http *h, const struct th_client_req *req)
{
    struct curl_slist *l = NULL;
    for (struct curl_slist *i = h->headers; i; i = i->next) {
        l = curl_slist_append(l, i->data);
    }
    th_autofree char *accept =
        th_xasprintf("Accept: %s", req->accept ? req->accept : "application/json");
    l = curl_slist_append(l, accept);
    if (req->content_type) {
        th_autofree char *type = th_xasprintf("Content-Type: %s", req->content_type);
        l = curl_slist_append(l, type);
    } else {
        l = curl_slist_append(l, "Content-Type:");
    }
    l = curl_slist_append(l, "Expect:"); /* no round trip before a body */
    if (req->in_fn) {
        l = curl_slist_append(l, "Transfer-Encoding: chunked");
    }
    return l;
}

static void set_method(CURL *easy, const struct th_client_req *req, struct exchange *x)
{
    if (req->in_fn) {
        curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_upload);
        curl_easy_setopt(easy, CURLOPT_READDATA, x);
    } else if (req->body.n > 0 || th_streq(req->method, "POST") || th_streq(req->method, "PUT") ||
               th_streq(req->method, "PATCH")) {
        curl_easy_setopt(easy, CURLOPT_POST, 1L);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, req->body.n > 0 ? req->body.p : "");
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)req->body.n);
    } else if (th_streq(req->method, "HEAD")) {
        curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    }
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, req->method);
}

static int request(struct th_client *c, const struct th_client_req *req, int *ret_status,
                   struct th_buf *ret_body, struct th_err *err)
{
    struct th_http *h = (struct th_http *)c;
    char errbuf[CURL_ERROR_SIZE] = "";
    struct exchange x = {.h = h, .req = req, .body = ret_body, .easy = th_http_handle(h)};
    struct curl_slist *headers = headers_of(h, req);
    th_http_setup(h, x.easy, req->path, req->query, errbuf);
    curl_easy_setopt(x.easy, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(x.easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(x.easy, CURLOPT_WRITEDATA, &x);
    curl_easy_setopt(x.easy, CURLOPT_TIMEOUT_MS, (long)req->timeout_ms);
    if (h->on_warning) {
        curl_easy_setopt(x.easy, CURLOPT_HEADERFUNCTION, on_header);
        curl_easy_setopt(x.easy, CURLOPT_HEADERDATA, &x);
    }
    if (req->cancel) {
        curl_easy_setopt(x.easy, CURLOPT_NOPROGRESS, 0L);
        curl_easy_setopt(x.easy, CURLOPT_XFERINFOFUNCTION, on_progress);
        curl_easy_setopt(x.easy, CURLOPT_XFERINFODATA, &x);
    }
    set_method(x.easy, req, &x);
    CURLcode rc = curl_easy_perform(x.easy);
    long status = 0;
    curl_easy_getinfo(x.easy, CURLINFO_RESPONSE_CODE, &status);
    int r = 0;
    if (x.aborted) {
        r = th_fail(err, TH_R_CANCELED, "the body was not sent to its end");
    } else if (ret_body->overflow) {
        r = th_buf_check(ret_body, err);
    } else if (rc != CURLE_OK && !x.stopped) {
        long os = 0;
        curl_easy_getinfo(x.easy, CURLINFO_OS_ERRNO, &os);
        r = th_http_fail(h, rc, errbuf, err);
        if (err && rc == CURLE_COULDNT_CONNECT) {
            err->sys_errno = (int)os;
        }
    }
    *ret_status = (int)status;
    curl_slist_free_all(headers);
    th_http_put_back(h, x.easy);
    return r;
}

/* ---- The transport ---- */

static void http_free(struct th_client *c)
{
    struct th_http *h = (struct th_http *)c;
    for (size_t i = 0; i < h->n_idle; i++) {
        curl_easy_cleanup(h->idle[i]);
    }
    curl_slist_free_all(h->headers);
    curl_slist_free_all(h->connect_to);
    const int fds[] = {h->ca_fd, h->cert_fd, h->key_fd};
    for (size_t i = 0; i < TH_ARRAY_LEN(fds); i++) {
        if (fds[i] >= 0) {
            (void)close(fds[i]);
        }
    }
    pthread_mutex_destroy(&h->lock);
    free(h->server);
    free(h->unix_socket);
    free(h);
}

static const struct th_client_ops ops = {
    .request = request,
    .watch_open = th_http_watch_open,
    .watch_next = th_http_watch_next,
    .watch_wake = th_http_watch_wake,
    .watch_close = th_http_watch_close,
    .free = http_free,
};

/* PEM text in a memfd; -1 for NULL, -2 on failure. */
static int pem_fd(const char *name, const char *pem)
{
    if (!pem) {
        return -1;
    }
    int fd = memfd_create(name, MFD_CLOEXEC);
    size_t n = strlen(pem);
    if (fd >= 0 && write(fd, pem, n) == (ssize_t)n) {
        return fd;
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    return -2;
}

static void add_header(struct th_http *h, const char *name, const char *value)
{
    if (value) {
        th_autofree char *line = th_xasprintf("%s: %s", name, value);
        h->headers = curl_slist_append(h->headers, line);
    }
}

static bool has_control(const char *s)
{
    for (; s && *s; s++) {
        if ((unsigned char)*s < 0x20) {
            return true;
        }
    }
    return false;
}

static int check_opts(const struct th_client_http_opts *o, struct th_err *err)
{
    bool bad = has_control(o->token) || has_control(o->user_agent) || has_control(o->as_user);
    for (size_t i = 0; o->as_groups && o->as_groups[i]; i++) {
        bad = bad || has_control(o->as_groups[i]);
    }
    for (size_t i = 0; o->headers && o->headers[i]; i++) {
        bad = bad || has_control(o->headers[i]);
    }
    if (bad) {
        return th_fail(err, TH_R_BAD_REQUEST, "a token or name has control characters in it");
    }
    if (!o->server && !o->unix_socket) {
        return th_fail(err, TH_R_BAD_REQUEST, "the address of the server is missing");
    }
    return 0;
}

static void init_curl(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

int th_client_new_http(const struct th_client_http_opts *o, struct th_client **ret,
                       struct th_err *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    TH_TRY(check_opts(o, err));
    pthread_once(&once, init_curl);
    struct th_http *h = TH_NEW(struct th_http);
    h->base.ops = &ops;
    pthread_mutex_init(&h->lock, NULL);
    h->unix_socket = th_xstrdup(o->unix_socket);
    h->server = th_xstrdup(o->server ? o->server : "http://localhost");
    size_t n = strlen(h->server);
    while (n > 0 && h->server[n - 1] == '/') {
        h->server[--n] = '\0';
    }
    if (o->connect_to) {
        th_autofree char *to = th_xasprintf("::%s", o->connect_to);
        h->connect_to = curl_slist_append(NULL, to);
    }
    h->ca_fd = pem_fd("ca", o->ca_pem);
    h->cert_fd = pem_fd("cert", o->cert_pem);
    h->key_fd = pem_fd("key", o->key_pem);
    if (h->ca_fd == -2 || h->cert_fd == -2 || h->key_fd == -2) {
        int e = errno;
        http_free(&h->base);
        return th_fail_errno(err, e, TH_R_IO, "keeping certificates in memory");
    }
    th_autofree char *bearer = o->token ? th_xasprintf("Bearer %s", o->token) : NULL;
    add_header(h, "Authorization", bearer);
    add_header(h, "User-Agent", o->user_agent ? o->user_agent : "thimble/" TH_VERSION);
    add_header(h, "X-Remote-User", o->as_user);
    for (size_t i = 0; o->headers && o->headers[i]; i++) {
        h->headers = curl_slist_append(h->headers, o->headers[i]);
    }
    h->insecure = o->insecure;
    h->on_warning = o->on_warning;
    h->warning_arg = o->warning_arg;
    for (size_t i = 0; o->as_groups && o->as_groups[i]; i++) {
        add_header(h, "X-Remote-Group", o->as_groups[i]);
    }
    *ret = &h->base;
    return 0;
}
