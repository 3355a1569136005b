/*
 * One call of a webhook.
 *
 * A webhook is named by a URL or by a Service. A Service's certificate is for <name>.<ns>.svc, which
 * no resolver here needs to know: the connection goes to the Service's cluster IP (or, for one
 * without, to an address of its endpoints) while name and certificate are the Service's.
 *
 * Connections are kept: for each server, address and CA there is one HTTP client, which holds a few
 * idle connections of its own. The clients are counted while they are in use; past
 * TH_LIMIT_HOOK_SERVERS the one that was idle longest goes, and when none is idle a call makes one of
 * its own that ends with it. How many calls run at once is bounded by the API server's seats.
 *
 * What goes wrong is told in the words of upstream's HTTP client, which people and tests look for;
 * causes that have no such words are told in libcurl's.
 */
#include "controlplane/api/hook_call.h"

#include "base/encode.h"
#include "base/limits.h"

#include <errno.h>
#include <pthread.h>

struct target {
    char *server; /* "https://host:port" */
    char *path;   /* with query */
    char *to;     /* "address:port" to connect to, or NULL */
};
struct entry {
    char *key; /* server, address, CA */
    struct th_client *client;
    size_t in_use;
    uint64_t used; /* when, in calls */
};
struct th_hook_pool {
    struct th_client *client;
    pthread_mutex_t lock; /* guards all below */
    struct entry v[TH_LIMIT_HOOK_SERVERS];
    size_t n;
    uint64_t calls;
};

static void target_done(struct target *t)
{
    free(t->server);
    free(t->path);
    free(t->to);
}

struct th_hook_pool *th_hook_pool_new(struct th_client *client)
{
    struct th_hook_pool *p = TH_NEW(struct th_hook_pool);
    p->client = client;
    (void)pthread_mutex_init(&p->lock, NULL);
    return p;
}

void th_hook_pool_free(struct th_hook_pool *p)
{
    if (!p) {
        return;
    }
    for (size_t i = 0; i < p->n; i++) {
        th_client_free(p->v[i].client);
        free(p->v[i].key);
    }
    (void)pthread_mutex_destroy(&p->lock);
    free(p);
}

/* Under lock: a place for one more, or NULL when all are in use. */
static struct entry *make_room(struct th_hook_pool *p)
{
    if (p->n < TH_LIMIT_HOOK_SERVERS) {
        return &p->v[p->n++];
    }
    struct entry *oldest = NULL;
    for (size_t i = 0; i < p->n; i++) {
        if (p->v[i].in_use == 0 && (!oldest || p->v[i].used < oldest->used)) {
            oldest = &p->v[i];
        }
    }
    if (oldest) {
        th_client_free(oldest->client);
        free(oldest->key);
    }
    return oldest;
}

/* A client for the target; *ret_own says that it is the caller's, to be freed. */
static int pool_get(struct th_hook_pool *p, const struct target *t, const char *ca,
                    struct th_client **ret, bool *ret_own, struct th_err *err)
{
    th_autofree char *key = th_xasprintf("%s\n%s\n%s", t->server, t->to ? t->to : "", ca ? ca : "");
    int r = 0;
    (void)pthread_mutex_lock(&p->lock);
    struct entry *e = NULL;
    for (size_t i = 0; i < p->n && !e; i++) {
        e = th_streq(p->v[i].key, key) ? &p->v[i] : NULL;
    }
    if (!e) {
        const struct th_client_http_opts o = {.server = t->server,
                                              .ca_pem = ca,
                                              .connect_to = t->to,
                                              .user_agent = "kube-apiserver-admission"};
        struct th_client *made = NULL;
        r = th_client_new_http(&o, &made, err);
        e = r >= 0 ? make_room(p) : NULL;
        if (e) {
            *e = (struct entry){.key = th_steal(&key), .client = made};
        }
        *ret = made;
    }
    *ret_own = r >= 0 && !e;
    if (e) {
        e->in_use++;
        e->used = ++p->calls;
        *ret = e->client;
    }
    (void)pthread_mutex_unlock(&p->lock);
    return r;
}

static void pool_put(struct th_hook_pool *p, struct th_client *client, bool own)
{
    if (own) {
        th_client_free(client);
        return;
    }
    (void)pthread_mutex_lock(&p->lock);
    for (size_t i = 0; i < p->n; i++) {
        p->v[i].in_use -= p->v[i].client == client;
    }
    (void)pthread_mutex_unlock(&p->lock);
}

/* ---- Where to ---- */

static char *timeout_query(const char *path, int64_t timeout_ms)
{
    return th_xasprintf("%s%stimeout=%llds", path, strchr(path, '?') ? "&" : "?",
                        (long long)(timeout_ms / 1000));
}

/* The path as upstream's client joins it: "//a/./b/" is "/a/b". The caller frees. */
static char *clean_path(const char *path)
{
    th_autostrv struct th_strv parts = TH_STRV_INIT, kept = TH_STRV_INIT;
    th_strv_split(&parts, path, '/');
    for (size_t i = 0; i < parts.n; i++) {
        if (th_streq(parts.v[i], "..") && kept.n) {
            free(kept.v[--kept.n]);
        } else if (*parts.v[i] && !th_streq(parts.v[i], ".") && !th_streq(parts.v[i], "..")) {
            th_strv_add(&kept, parts.v[i]);
        }
    }
    th_autofree char *joined = th_strv_join(&kept, "/");
    return th_xasprintf("/%s", joined);
}

char *th_hook_url(const struct th_json *config, int64_t timeout_ms)
{
    const char *url = th_json_path_str(config, "url");
    if (url) {
        const char *host = strstr(url, "://");
        const char *path = host ? strchr(host + 3, '/') : NULL;
        th_autofree char *clean = clean_path(path ? path : "");
        th_autofree char *base =
            th_xasprintf("%.*s%s", path ? (int)(path - url) : (int)strlen(url), url, clean);
        return timeout_query(base, timeout_ms);
    }
    const char *path = th_json_path_str(config, "service.path");
    th_autofree char *clean = clean_path(path ? path : "");
    th_autofree char *base = th_xasprintf(
        "https://%s.%s.svc:%lld%s", th_json_path_str(config, "service.name"),
        th_json_path_str(config, "service.namespace"),
        (long long)th_json_path_int(config, "service.port", 443), clean);
    return timeout_query(base, timeout_ms);
}

/* Address and port behind a Service's port. */
static int resolve(const struct th_json *config, struct th_client *client, char **ret,
                   struct th_err *err)
{
    const char *ns = th_json_path_str(config, "service.namespace");
    const char *name = th_json_path_str(config, "service.name");
    int64_t port = th_json_path_int(config, "service.port", 443);
    TH_AUTO(th_json) struct th_json *svc = NULL;
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    if (th_client_get(client, TH_GVR_SERVICES, ns, name, &svc, &local) < 0) {
        return th_fail(err, TH_R_UNAVAILABLE, "service \"%s\" not found", name ? name : "");
    }
    const struct th_json *ports = th_json_path(svc, "spec.ports");
    const struct th_json *found = NULL;
    for (size_t i = 0; i < th_json_len(ports); i++) {
        if (th_json_path_int(th_json_at(ports, i), "port", 0) == port) {
            found = th_json_at(ports, i);
        }
    }
    const char *external = th_json_path_str(svc, "spec.externalName");
    if (th_streq(th_json_path_str(svc, "spec.type"), "ExternalName") && external && *external) {
        *ret = th_xasprintf("%s:%lld", external, (long long)port);
        return 0;
    }
    if (!found) {
        return th_fail(err, TH_R_UNAVAILABLE, "no service port %lld found for service \"%s\"",
                       (long long)port, name);
    }
    const char *ip = th_json_path_str(svc, "spec.clusterIP");
    if (ip && *ip && !th_streq(ip, "None")) {
        *ret = th_xasprintf("%s:%lld", ip, (long long)port);
        return 0;
    }
    TH_AUTO(th_json) struct th_json *eps = NULL;
    if (th_client_get(client, TH_GVR_ENDPOINTS, ns, name, &eps, &local) >= 0) {
        const char *port_name = th_json_path_str(found, "name");
        const struct th_json *to = th_json_path(eps, "subsets[0].ports");
        ip = th_json_path_str(eps, "subsets[0].addresses[0].ip");
        for (size_t i = 0; ip && i < th_json_len(to); i++) {
            const char *n = th_json_path_str(th_json_at(to, i), "name");
            if (th_streq(n ? n : "", port_name ? port_name : "")) {
                *ret = th_xasprintf("%s:%lld", ip,
                                    (long long)th_json_path_int(th_json_at(to, i), "port", 0));
                return 0;
            }
        }
    }
    return th_fail(err, TH_R_UNAVAILABLE, "no endpoints available for service \"%s\"", name);
}

static int find_target(const char *url, const struct th_json *config, struct th_client *client,
                       struct target *ret, struct th_err *err)
{
    if (!th_startswith(url, "https://")) {
        return th_fail(err, TH_R_UNAVAILABLE, "webhooks are called with https only");
    }
    if (th_json_get(config, "service")) {
        TH_TRY(resolve(config, client, &ret->to, err));
    }
    size_t n = strlen("https://");
    n += strcspn(url + n, "/?");
    ret->server = th_xstrndup(url, n);
    ret->path = url[n] == '/' ? th_xstrdup(url + n) : th_xasprintf("/%s", url + n);
    return 0;
}

/* ---- What went wrong ---- */

static bool says(const struct th_err *e, const char *words)
{
    return e->msg && strstr(e->msg, words);
}

/* The transport's failure in the words of Go's. */
static int fail_transport(const struct th_err *e, const char *url, const struct target *t,
                          struct th_err *err)
{
    const char *host = t->server + strlen("https://");
    th_autofree char *why = NULL;
    if (e->reason == TH_R_TIMEOUT) {
        why = th_xstrdup("context deadline exceeded");
    } else if (e->sys_errno) {
        why = th_xasprintf("dial tcp %s: connect: %s", t->to ? t->to : host,
                           e->sys_errno == ECONNREFUSED   ? "connection refused"
                           : e->sys_errno == EHOSTUNREACH ? "no route to host"
                           : e->sys_errno == ENETUNREACH  ? "network is unreachable"
                           : e->sys_errno == ETIMEDOUT    ? "connection timed out"
                                                          : e->msg);
    } else if (says(e, "Could not resolve")) {
        why = th_xasprintf("dial tcp: lookup %.*s: no such host", (int)strcspn(host, ":"), host);
    } else if (says(e, "does not match target host name")) {
        why = th_xasprintf("tls: failed to verify certificate: x509: certificate is not valid for "
                           "any names, but wanted to match %.*s",
                           (int)strcspn(host, ":"), host);
    } else if (says(e, "certificate verif") || says(e, "self-signed") || says(e, "CAfile") ||
               says(e, "certificate problem")) {
        why = th_xstrdup("tls: failed to verify certificate: x509: certificate signed by unknown "
                         "authority");
    } else {
        why = th_xstrdup(e->msg);
    }
    return th_fail(err, e->reason == TH_R_TIMEOUT ? TH_R_TIMEOUT : TH_R_UNAVAILABLE,
                   "Post \"%s\": %s", url, why);
}

/* An answer that is no success: a Status says why itself. */
static int fail_status(int status, const struct th_err *e, struct th_err *err)
{
    static const char plain[] = "the server answered ";
    if (!th_startswith(e->msg, plain)) {
        return th_fail(err, e->reason, "%s", e->msg);
    }
    if (status == 404) {
        return th_fail(err, TH_R_NOT_FOUND, "the server could not find the requested resource");
    }
    const char *body = strstr(e->msg, ": ");
    if (status >= 500) {
        th_autobuf struct th_buf quoted = TH_BUF_INIT;
        for (const char *p = body ? body + 2 : "unknown"; *p; p++) {
            th_buf_puts(&quoted, *p == '"' ? "\\\"" : *p == '\n' ? "\\n" : "");
            if (*p != '"' && *p != '\n') {
                th_buf_putc(&quoted, *p);
            }
        }
        return th_fail(err, TH_R_INTERNAL,
                       "an error on the server (\"%s\") has prevented the request from succeeding",
                       th_buf_cstr(&quoted));
    }
    return th_fail(err, e->reason, "%s", body ? body + 2 : e->msg);
}

int th_hook_call(struct th_hook_pool *p, const struct th_json *config, const struct th_json *body,
                 int64_t timeout_ms, struct th_json **ret, struct th_err *err)
{
    TH_CLEANUP(target_done) struct target t = {.server = NULL};
    th_autofree char *url = th_hook_url(config, timeout_ms);
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    if (find_target(url, config, p->client, &t, &local) < 0) {
        return th_fail(err, TH_R_UNAVAILABLE, "Post \"%s\": %s", url, local.msg);
    }
    th_autobuf struct th_buf ca = TH_BUF_INIT;
    const char *bundle = th_json_path_str(config, "caBundle");
    if (bundle && *bundle) {
        TH_TRY(th_b64_decode(bundle, strlen(bundle), &ca, err));
    }
    struct th_client *hook = NULL;
    bool own = false;
    TH_TRY(pool_get(p, &t, ca.n ? th_buf_cstr(&ca) : NULL, &hook, &own, err));
    th_autobuf struct th_buf out = TH_BUF_INIT;
    th_autobuf struct th_buf in = TH_BUF_INIT;
    th_buf_init(&in, TH_LIMIT_BODY_B);
    th_json_dump(body, &out);
    const struct th_raw_req req = {.method = "POST",
                                   .path = t.path,
                                   .content_type = "application/json",
                                   .body = th_buf_str(&out),
                                   .timeout_ms = timeout_ms};
    int status = 0;
    int r = th_client_raw(hook, &req, &status, &in, &local);
    pool_put(p, hook, own);
    if (r < 0) {
        return status >= 400 ? fail_status(status, &local, err)
                             : fail_transport(&local, url, &t, err);
    }
    if (th_json_parse(th_buf_cstr(&in), in.n, NULL, ret, &local) < 0) {
        return th_fail(err, TH_R_INTERNAL, "couldn't get version/kind; json parse error: %s",
                       local.msg);
    }
    return 0;
}
