/* The HTTP transport: watches.
 *
 * A watch is an answer that does not end: one JSON object per line. It is read in the thread that
 * asks for the next item, through a multi handle of its own, because curl_multi_wakeup is the one
 * way to interrupt a waiting libcurl from another thread. Lines gather in one buffer; when a good
 * deal of complete lines waits there, the transfer is paused, so a slow reader fills the server's
 * queue and not our memory.
 *
 * A status >= 400 has a Status as body, which becomes the error of the next call. The end of the
 * stream is an ordinary thing (servers end watches after some minutes) and is TH_R_UNAVAILABLE:
 * watch again from the last revision. A line that was cut in two by a broken connection is
 * dropped.
 */
#include "base/clock.h"
#include "base/json/slice.h"
#include "base/limits.h"
#include "controlplane/client/http.h"

#define PAUSE_AT_B (1u << 20)
#define LINE_MAX_B (2 * (size_t)TH_LIMIT_BODY_B)

struct th_client_watch {
    struct th_http *h;
    CURL *easy;
    CURLM *multi;
    struct curl_slist *headers;
    char errbuf[CURL_ERROR_SIZE];
    struct th_buf in;
    size_t at;      /* start of the first line that was not given out */
    size_t scanned; /* no newline between at and here */
    bool paused, done, too_long;
    CURLcode rc;
    bool woken; /* atomic */
};

static size_t on_body(char *p, size_t size, size_t n, void *arg)
{
    struct th_client_watch *w = arg;
    n *= size;
    size_t have = w->in.n - w->at;
    if (have > PAUSE_AT_B && memchr(w->in.p + w->at, '\n', have)) {
        w->paused = true;
        return CURL_WRITEFUNC_PAUSE;
    }
    if (have > LINE_MAX_B) {
        w->too_long = true;
        return 0;
    }
    th_buf_add(&w->in, p, n);
    return n;
}

int th_http_watch_open(struct th_client *c, const struct th_watch_req *req,
                       struct th_client_watch **ret, struct th_err *err)
{
    (void)err;
    struct th_client_watch *w = TH_NEW(struct th_client_watch);
    w->h = (struct th_http *)c;
    th_autofree char *path = th_client_path(req->gvr, req->ns, NULL, NULL);
    th_autobuf struct th_buf query = TH_BUF_INIT;
    th_client_watch_query(&query, req);
    for (struct curl_slist *i = w->h->headers; i; i = i->next) {
        w->headers = curl_slist_append(w->headers, i->data);
    }
    w->headers = curl_slist_append(w->headers, "Accept: application/json");
    w->easy = curl_easy_init();
    w->multi = curl_multi_init();
    TH_ASSERT(w->easy && w->multi);
    th_http_setup(w->h, w->easy, path, th_buf_cstr(&query), w->errbuf);
    curl_easy_setopt(w->easy, CURLOPT_HTTPHEADER, w->headers);
    curl_easy_setopt(w->easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(w->easy, CURLOPT_WRITEDATA, w);
    curl_multi_add_handle(w->multi, w->easy);
    *ret = w;
    return 0;
}

/* The next complete line without its newline; the slice lives until the buffer changes. */
static bool take_line(struct th_client_watch *w, struct th_str *ret)
{
    if (w->at > 0 && (w->at == w->in.n || w->at > PAUSE_AT_B)) {
        size_t gone = w->at;
        th_buf_consume(&w->in, gone);
        w->at = 0;
        w->scanned -= gone;
    }
    const char *from = w->in.p + w->scanned;
    const char *nl = w->in.n > w->scanned ? memchr(from, '\n', w->in.n - w->scanned) : NULL;
    if (!nl) {
        w->scanned = w->in.n;
        return false;
    }
    *ret = (struct th_str){w->in.p + w->at, (size_t)(nl - (w->in.p + w->at))};
    w->at = w->scanned = (size_t)(nl - w->in.p) + 1;
    return true;
}

static int parse_line(struct th_str line, struct th_watch_item *ret, struct th_err *err)
{
    static const struct {
        const char *name;
        enum th_watch_item_type type;
    } types[] = {{"ADDED", TH_WI_ADDED},
                 {"MODIFIED", TH_WI_MODIFIED},
                 {"DELETED", TH_WI_DELETED},
                 {"BOOKMARK", TH_WI_BOOKMARK},
                 {"ERROR", TH_WI_ERROR}};
    struct th_str type = th_json_slice_text(th_json_slice_get(line, "type"));
    struct th_str object = th_json_slice_get(line, "object");
    for (size_t i = 0; object.p && i < TH_ARRAY_LEN(types); i++) {
        if (th_str_eq(type, th_str_of(types[i].name))) {
            *ret = (struct th_watch_item){types[i].type, object};
            return 1;
        }
    }
    return th_fail(err, TH_R_PARSE, "a watch line that is no event: %.*s",
                   (int)(line.n > 200 ? 200 : line.n), line.p);
}

/* The stream is over and all lines are given out. */
static int finish(struct th_client_watch *w, struct th_err *err)
{
    long status = 0;
    curl_easy_getinfo(w->easy, CURLINFO_RESPONSE_CODE, &status);
    if (w->too_long) {
        return th_fail(err, TH_R_TOO_LARGE, "a watch line is longer than %zu bytes", LINE_MAX_B);
    }
    if (status >= 400) {
        struct th_str body = {w->in.p ? w->in.p + w->at : "", w->in.n - w->at};
        return th_client_fail_status((int)status, body, err);
    }
    if (w->rc != CURLE_OK) {
        return th_http_fail(w->h, w->rc, w->errbuf, err);
    }
    return th_fail(err, TH_R_UNAVAILABLE, "the watch ended");
}

static bool is_stream(struct th_client_watch *w)
{
    long status = 0;
    curl_easy_getinfo(w->easy, CURLINFO_RESPONSE_CODE, &status);
    return status < 400;
}

static void pump(struct th_client_watch *w)
{
    int running, left;
    if (w->paused) { /* no complete line is left, or we were not here */
        w->paused = false;
        curl_easy_pause(w->easy, CURLPAUSE_CONT);
    }
    CURLMcode mc = curl_multi_perform(w->multi, &running);
    for (CURLMsg *m; (m = curl_multi_info_read(w->multi, &left));) {
        if (m->msg == CURLMSG_DONE) {
            w->done = true;
            w->rc = m->data.result;
        }
    }
    if (mc != CURLM_OK && !w->done) {
        w->done = true;
        w->rc = CURLE_RECV_ERROR;
    }
}

int th_http_watch_next(struct th_client_watch *w, int64_t timeout_ms, struct th_watch_item *ret,
                       struct th_err *err)
{
    int64_t deadline = th_mono_ms() + timeout_ms;
    for (;;) {
        struct th_str line;
        if (w->in.n > w->at && is_stream(w) && take_line(w, &line)) {
            if (line.n == 0) {
                continue;
            }
            return parse_line(line, ret, err);
        }
        if (w->done) {
            return finish(w, err);
        }
        if (__atomic_exchange_n(&w->woken, false, __ATOMIC_ACQ_REL)) {
            return 0;
        }
        pump(w);
        if (w->done || (w->in.n > w->scanned && is_stream(w))) {
            continue;
        }
        int64_t left = deadline - th_mono_ms();
        if (left <= 0) {
            return 0;
        }
        curl_multi_poll(w->multi, NULL, 0, (int)(left > 60000 ? 60000 : left), NULL);
    }
}

void th_http_watch_wake(struct th_client_watch *w)
{
    __atomic_store_n(&w->woken, true, __ATOMIC_RELEASE);
    curl_multi_wakeup(w->multi);
}

void th_http_watch_close(struct th_client_watch *w)
{
    if (!w) {
        return;
    }
    curl_multi_remove_handle(w->multi, w->easy);
    curl_easy_cleanup(w->easy);
    curl_multi_cleanup(w->multi);
    curl_slist_free_all(w->headers);
    th_buf_done(&w->in);
    free(w);
}
