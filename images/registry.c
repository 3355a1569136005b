/* Pulling: OCI distribution over libcurl.
 *
 * One easy handle per pull keeps the connection. A 401 is answered once with what its
 * WWW-Authenticate asks for: a token from the named realm, or basic credentials (keyring.c). Manifests are
 * hashed before they are believed; blobs go to a file, taken up again where they broke off (Range),
 * and are hashed as a whole before they enter the store. Mirrors are tried first, in their order;
 * a mirror that fails is passed over.
 *
 * A failure to reach any registry is TH_R_OFFLINE: for this product that is an ordinary state, so
 * the message says how to get the image in without a network.
 */
#include "images/registry.h"
#include "base/io.h"
#include "base/limits.h"
#include "images/content_priv.h"
#include "images/reference.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <strings.h>
#include <sys/stat.h>

#define TRIES 5
#define TOKEN_MAX (64u << 10)
#define ACCEPT                                                                                     \
    "Accept: " TH_MT_OCI_INDEX ", " TH_MT_DOCKER_LIST ", " TH_MT_OCI_MANIFEST                      \
    ", " TH_MT_DOCKER_MANIFEST

struct pull {
    struct th_images *s;
    struct th_images_session *ss;
    const struct th_pull_opts *o;
    const struct th_ref *ref;
    CURL *curl;
    struct th_credential cred; /* user NULL: anonymous */
    char *base;       /* "https://host" */
    char *auth;       /* "Authorization: ..." or NULL */
    char *challenge;  /* of the last 401 */
    /* the transfer at work */
    struct th_buf *body; /* or: */
    int fd;
    uint64_t done, total;
    const char *what;
    size_t max;
    bool write_failed;
};

static int offline(const struct pull *p, CURLcode rc, struct th_err *err)
{
    (void)th_fail(err, TH_R_OFFLINE, "cannot reach %s: %s", p->base, curl_easy_strerror(rc));
    return th_hint(err, "without a network, build the image here (thimble image build) or bring it as a "
                        "file: docker save on another machine, then thimble image load FILE");
}

static size_t on_header(char *data, size_t size, size_t n, void *arg)
{
    struct pull *p = arg;
    static const char name[] = "www-authenticate:";
    size_t len = size * n, k = sizeof(name) - 1;
    if (len > k && strncasecmp(data, name, k) == 0) {
        free(p->challenge);
        p->challenge = th_xstrndup(data + k, len - k);
    }
    return len;
}

static size_t on_data(char *data, size_t size, size_t n, void *arg)
{
    struct pull *p = arg;
    size_t len = size * n;
    long status = 0;
    (void)curl_easy_getinfo(p->curl, CURLINFO_RESPONSE_CODE, &status);
    if (status >= 300) {
        return len; /* an error's or redirect's body is of no interest */
    }
    if (p->body) {
        if (p->body->n + len > p->max) {
            return 0;
        }
        th_buf_add(p->body, data, len);
        return len;
    }
    if (p->done + len > TH_LIMIT_LAYER_B || th_io_write_all(p->fd, data, len, NULL) < 0) {
        p->write_failed = true;
        return 0;
    }
    p->done += len;
    if (p->o->progress) {
        struct th_image_progress g = {.stage = "downloading",
                                      .what = p->what,
                                      .done_b = p->done,
                                      .total_b = p->total};
        p->o->progress(p->o->progress_arg, &g);
    }
    return len;
}

static CURLcode perform(struct pull *p, const char *url, const char *const *headers, long *status)
{
    struct curl_slist *h = NULL;
    for (; headers && *headers; headers++) {
        h = curl_slist_append(h, *headers);
    }
    if (p->auth) {
        h = curl_slist_append(h, p->auth);
    }
    int64_t idle_ms = p->o->timeout_ms > 0 ? p->o->timeout_ms : 30000;
    curl_easy_setopt(p->curl, CURLOPT_URL, url);
    curl_easy_setopt(p->curl, CURLOPT_HTTPHEADER, h);
    curl_easy_setopt(p->curl, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(p->curl, CURLOPT_MAXREDIRS, 10L);
    curl_easy_setopt(p->curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(p->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(p->curl, CURLOPT_USERAGENT, "thimble/" TH_VERSION);
    curl_easy_setopt(p->curl, CURLOPT_CONNECTTIMEOUT_MS, (long)(idle_ms < 10000 ? idle_ms : 10000));
    curl_easy_setopt(p->curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(p->curl, CURLOPT_LOW_SPEED_TIME, (long)((idle_ms + 999) / 1000));
    curl_easy_setopt(p->curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(p->curl, CURLOPT_HEADERDATA, p);
    curl_easy_setopt(p->curl, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(p->curl, CURLOPT_WRITEDATA, p);
    CURLcode rc = curl_easy_perform(p->curl);
    (void)curl_easy_getinfo(p->curl, CURLINFO_RESPONSE_CODE, status);
    curl_slist_free_all(h);
    return rc;
}

/* ---- authentication ---- */

/* key="value" of a challenge; caller frees. */
static char *param(const char *challenge, const char *key)
{
    size_t n = strlen(key);
    for (const char *s = challenge; (s = strcasestr(s, key)); s += n) {
        bool start = s == challenge || s[-1] == ' ' || s[-1] == ',';
        if (start && s[n] == '=' && s[n + 1] == '"') {
            return th_xstrndup(s + n + 2, strcspn(s + n + 2, "\""));
        }
    }
    return NULL;
}

static char *basic(const struct pull *p)
{
    th_autofree char *plain = th_xasprintf("%s:%s", p->cred.user, p->cred.password);
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_buf_puts(&b, "Authorization: Basic ");
    th_b64_encode(plain, strlen(plain), &b);
    return th_buf_steal(&b, NULL);
}

static int denied(const struct pull *p, struct th_err *err)
{
    (void)th_fail(err, TH_R_UNAUTHORIZED, "%s does not let us read %s", p->base, p->ref->path);
    return th_hint(err, "the image may not exist or be private: log in on this machine (docker login) for "
                        "thimble image pull, give pods an imagePullSecret");
}

static int authenticate(struct pull *p, struct th_err *err)
{
    th_autofree char *challenge = th_steal(&p->challenge);
    const char *c = challenge ? challenge + strspn(challenge, " \t") : "";
    free(th_steal(&p->auth));
    if (strncasecmp(c, "Basic", 5) == 0 && p->cred.user) {
        p->auth = basic(p);
        return 0;
    }
    th_autofree char *realm = param(c, "realm"), *service = param(c, "service");
    if (strncasecmp(c, "Bearer", 6) != 0 || !realm) {
        return denied(p, err);
    }
    if (!th_startswith(realm, "https://") && !th_startswith(p->base, "http://")) {
        return th_fail(err, TH_R_UNAUTHORIZED, "%s wants a token from an insecure place, %s",
                       p->base, realm);
    }
    th_autobuf struct th_buf url = TH_BUF_INIT, body = TH_BUF_INIT;
    th_buf_printf(&url, "%s%cscope=repository%%3A", realm, strchr(realm, '?') ? '&' : '?');
    th_url_escape(&url, p->ref->path);
    th_buf_puts(&url, "%3Apull");
    if (service) {
        th_buf_puts(&url, "&service=");
        th_url_escape(&url, service);
    }
    if (p->cred.user) {
        p->auth = basic(p);
    }
    long status = 0;
    p->body = &body;
    p->max = TOKEN_MAX;
    CURLcode rc = perform(p, th_buf_cstr(&url), NULL, &status);
    free(th_steal(&p->auth));
    p->body = NULL;
    if (rc != CURLE_OK) {
        return offline(p, rc, err);
    }
    TH_AUTO(th_json) struct th_json *o = NULL;
    if (status != 200 || th_json_parse(th_buf_cstr(&body), body.n, NULL, &o, NULL) < 0) {
        return denied(p, err);
    }
    const char *token = th_json_path_str(o, "token");
    token = token ? token : th_json_path_str(o, "access_token");
    if (!token) {
        return denied(p, err);
    }
    p->auth = th_xasprintf("Authorization: Bearer %s", token);
    return 0;
}

static int status_error(const struct pull *p, long status, const char *what, struct th_err *err)
{
    if (status == 401 || status == 403) {
        return denied(p, err);
    }
    if (status == 404) {
        (void)th_fail(err, TH_R_NO_IMAGE, "%s has no %s of %s", p->base, what, p->ref->path);
        return th_hint(err, "check the name and the tag");
    }
    if (status == 429) {
        (void)th_fail(err, TH_R_TOO_MANY_REQUESTS, "%s says: too many requests", p->base);
        return th_hint(err, "wait, or use credentials or a mirror");
    }
    return th_fail(err, TH_R_UNAVAILABLE, "%s answered %ld for %s", p->base, status, what);
}

/* ---- content ---- */

static int get_manifest(struct pull *p, const char *what, struct th_buf *body, struct th_err *err)
{
    static const char *const headers[] = {ACCEPT, NULL};
    th_autofree char *url =
        th_xasprintf("%s/v2/%s/manifests/%s", p->base, p->ref->path, what);
    for (int tries = 0;; tries++) {
        long status = 0;
        th_buf_clear(body);
        p->body = body;
        p->max = TH_LIMIT_MANIFEST_B;
        CURLcode rc = perform(p, url, headers, &status);
        p->body = NULL;
        if (rc != CURLE_OK) {
            return offline(p, rc, err);
        }
        if (status == 401 && tries == 0) {
            TH_TRY(authenticate(p, err));
            continue;
        }
        return status == 200 ? 0 : status_error(p, status, what, err);
    }
}

static bool transient(CURLcode rc, long status)
{
    return rc == CURLE_PARTIAL_FILE || rc == CURLE_RECV_ERROR || rc == CURLE_GOT_NOTHING ||
           rc == CURLE_OPERATION_TIMEDOUT || rc == CURLE_SEND_ERROR ||
           (rc == CURLE_OK && status >= 500);
}

static int fetch_to(struct pull *p, const char *url, const char *digest, struct th_err *err)
{
    for (int tries = 0; tries < TRIES; tries++) {
        long status = 0;
        th_autofree char *range = th_xasprintf("Range: bytes=%llu-", (unsigned long long)p->done);
        const char *const headers[] = {p->done ? range : "Accept: */*", NULL};
        uint64_t before = p->done;
        CURLcode rc = perform(p, url, headers, &status);
        if (before && status == 200 && p->done > before) { /* Range was not understood: anew */
            if (ftruncate(p->fd, 0) < 0 || lseek(p->fd, 0, SEEK_SET) < 0) {
                return th_fail_errno(err, errno, TH_R_IO, "rewind download");
            }
            p->done = 0;
            continue;
        }
        if (p->write_failed) {
            return th_fail(err, TH_R_NO_SPACE, "cannot write what is downloaded of %s", digest);
        }
        if (status == 401 && rc == CURLE_OK) {
            TH_TRY(authenticate(p, err));
            continue;
        }
        if (rc == CURLE_OK && (status == 200 || status == 206)) {
            return 0;
        }
        if (!transient(rc, status) || tries == TRIES - 1) {
            return rc != CURLE_OK ? offline(p, rc, err) : status_error(p, status, digest, err);
        }
    }
    return th_fail(err, TH_R_UNAVAILABLE, "%s broke off the download of %s again and again",
                   p->base, digest);
}

static int get_blob(struct pull *p, const char *digest, uint64_t size, struct th_err *err)
{
    if (!th_digest_valid(digest)) {
        return th_fail(err, TH_R_BAD_ARCHIVE, "manifest names \"%.80s\", not a sha256 digest",
                       digest ? digest : "");
    }
    if (th_images_has_blob(p->s, digest)) {
        return 0;
    }
    th_autofree char *url = th_xasprintf("%s/v2/%s/blobs/%s", p->base, p->ref->path, digest);
    th_autofree char *file = th_images_session_file(p->ss, "pull");
    th_autoclose int fd = open(file, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "make %s", file);
    }
    p->fd = fd;
    p->done = 0;
    p->total = size;
    p->what = digest;
    TH_TRY(fetch_to(p, url, digest, err));
    if (lseek(fd, 0, SEEK_SET) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "read %s", file);
    }
    char got[TH_DIGEST_LEN];
    return th_images_put_blob(p->ss, th_reader_fd(fd), digest, TH_LIMIT_LAYER_B, got, NULL, err);
}

static int check_digest(const char *want, const struct th_buf *b, char *ret, struct th_err *err)
{
    th_digest_of(th_buf_cstr(b), b->n, ret);
    if (want && !th_streq(want, ret)) {
        (void)th_fail(err, TH_R_DIGEST_MISMATCH, "manifest %s really is %s", want, ret);
        return th_hint(err, "the registry or something on the way damaged it; try again");
    }
    return 0;
}

static const char *choose(const struct th_json *m, const char *arch)
{
    const struct th_json *list = th_json_get(m, "manifests");
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *d = th_json_at(list, i);
        if (th_streq(th_json_path_str(d, "platform.architecture"), arch) &&
            th_streq(th_json_path_str(d, "platform.os"), "linux")) {
            return th_json_path_str(d, "digest");
        }
    }
    return NULL;
}

static int pull_image(struct pull *p, struct th_err *err)
{
    th_autobuf struct th_buf body = TH_BUF_INIT;
    TH_AUTO(th_json) struct th_json *m = NULL;
    char digest[TH_DIGEST_LEN];
    const char *arch = p->o->architecture ? p->o->architecture : th_host_architecture();
    TH_TRY(get_manifest(p, p->ref->digest ? p->ref->digest : p->ref->tag, &body, err));
    TH_TRY(check_digest(p->ref->digest, &body, digest, err));
    TH_TRY(th_json_parse(th_buf_cstr(&body), body.n, NULL, &m, err));
    if (th_json_is(th_json_get(m, "manifests"), TH_JSON_ARRAY)) {
        const char *one = choose(m, arch);
        if (!th_digest_valid(one)) {
            (void)th_fail(err, TH_R_NO_IMAGE, "%s has no image for linux/%s", p->ref->path, arch);
            return th_hint(err, "choose another tag");
        }
        th_autofree char *keep = th_xstrdup(one);
        TH_TRY(get_manifest(p, keep, &body, err));
        TH_TRY(check_digest(keep, &body, digest, err));
        th_json_unref(m);
        m = NULL;
        TH_TRY(th_json_parse(th_buf_cstr(&body), body.n, NULL, &m, err));
    }
    const struct th_json *layers = th_json_get(m, "layers");
    TH_TRY(get_blob(p, th_json_path_str(m, "config.digest"), 0, err));
    for (size_t i = 0; i < th_json_len(layers); i++) {
        const struct th_json *l = th_json_at(layers, i);
        TH_TRY(get_blob(p, th_json_path_str(l, "digest"),
                        (uint64_t)th_json_path_int(l, "size", 0), err));
    }
    TH_TRY(th_images_put_bytes(p->ss, th_buf_cstr(&body), body.n, digest, err));
    TH_AUTO(th_image) struct th_image *img = NULL;
    TH_TRY(th_images_read_image(p->s, digest, &img, err));
    for (size_t i = 0; !(p->s->flags & TH_IMAGES_NO_UNPACK) && i < img->n_layers; i++) {
        TH_TRY(th_images_unpack_blob(p->ss, img->layers[i].digest, img->layers[i].diff_id, NULL,
                                     err));
    }
    th_autofree char *name = th_ref_string(p->ref);
    return th_images_add(p->ss, digest, name, NULL, err);
}

/* ---- where to ---- */

static bool plain_http(const struct pull *p, const char *host)
{
    size_t n = strcspn(host, ":");
    if ((n == 9 && strncmp(host, "localhost", 9) == 0) || strncmp(host, "127.", 4) == 0 ||
        th_startswith(host, "[::1]")) {
        return true;
    }
    for (const char *const *i = p->o->insecure; i && *i; i++) {
        if (th_streq(*i, host)) {
            return true;
        }
    }
    return false;
}

static int try_base(struct pull *p, char *base, struct th_err *err)
{
    free(p->base);
    free(th_steal(&p->auth));
    free(th_steal(&p->challenge));
    p->base = base;
    size_t n = strlen(base);
    while (n > 0 && base[n - 1] == '/') {
        base[--n] = 0;
    }
    return pull_image(p, err);
}

static int pull_any(struct pull *p, struct th_err *err)
{
    size_t n = strlen(p->ref->domain);
    for (const char *const *m = p->o->mirrors; m && *m; m++) {
        TH_AUTO_ERR struct th_err passed = TH_ERR_INIT;
        if (strncmp(*m, p->ref->domain, n) == 0 && (*m)[n] == '=' &&
            try_base(p, th_xstrdup(*m + n + 1), &passed) >= 0) {
            return 0;
        }
    }
    const char *host = th_ref_registry_host(p->ref);
    for (size_t i = 0;; i++) { /* each credential in turn, or once without any */
        bool has = th_keyring_lookup(p->o->keyring, p->ref, i, &p->cred);
        if (!has && i > 0) {
            return -(int)err->reason;
        }
        th_err_done(err);
        int r = try_base(p, th_xasprintf("%s://%s", plain_http(p, host) ? "http" : "https", host), err);
        if (!has || r != -TH_R_UNAUTHORIZED) {
            return r;
        }
    }
}

static void global_init(void)
{
    (void)curl_global_init(CURL_GLOBAL_DEFAULT);
}

int th_images_pull(struct th_images *s, const char *ref, const struct th_pull_opts *opts,
                   struct th_image **ret, struct th_err *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    static const struct th_pull_opts none = {0};
    TH_AUTO_REF struct th_ref r = {0};
    TH_TRY(th_ref_parse(ref, &r, err));
    TH_AUTO(th_images_session) struct th_images_session *ss = NULL;
    TH_TRY(th_images_session_begin(s, &ss, err));
    (void)pthread_once(&once, global_init);
    struct pull p = {
        .s = s, .ss = ss, .o = opts ? opts : &none, .ref = &r, .curl = curl_easy_init(), .fd = -1};
    TH_AUTO_ERR struct th_err why = TH_ERR_INIT; /* pull_any looks at it, the caller may not want it */
    int rc = p.curl ? pull_any(&p, &why) : th_fail(&why, TH_R_INTERNAL, "curl does not start");
    if (rc < 0) {
        th_err_move(err, &why);
        atomic_store(&s->gc_wanted, true);
        (void)th_wrap(err, "pull %s", ref);
    }
    curl_easy_cleanup(p.curl);
    free(p.base);
    free(p.auth);
    free(p.challenge);
    return rc >= 0 && ret ? th_images_resolve(s, ref, ret, err) : rc;
}
