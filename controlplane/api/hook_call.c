/*
 * One call of a webhook.
 *
 * A webhook is named by a URL or by a Service. A Service's certificate is for <name>.<ns>.svc, which
 * no resolver here needs to know: the connection goes to the Service's cluster IP (or, for one
 * without, to an address of its endpoints) while name and certificate are the Service's.
 *
 * Each call is a connection of its own. Upstream keeps them; a machine's worth of webhooks is called
 * rarely enough, and nothing stale is ever met this way.
 */
#include "controlplane/api/hook_call.h"

#include "base/encode.h"
#include "base/limits.h"

struct target {
    char *server; /* "https://host:port" */
    char *path;   /* with query */
    char *to;     /* "address:port" to connect to, or NULL */
};

static void target_done(struct target *t)
{
    free(t->server);
    free(t->path);
    free(t->to);
}

static char *timeout_query(const char *path, int64_t timeout_ms)
{
    return th_xasprintf("%s%stimeout=%llds", path, strchr(path, '?') ? "&" : "?",
                        (long long)(timeout_ms / 1000));
}

char *th_hook_url(const struct th_json *config, int64_t timeout_ms)
{
    const char *url = th_json_path_str(config, "url");
    if (url) {
        return timeout_query(url, timeout_ms);
    }
    const char *path = th_json_path_str(config, "service.path");
    th_autofree char *base = th_xasprintf(
        "https://%s.%s.svc:%lld%s", th_json_path_str(config, "service.name"),
        th_json_path_str(config, "service.namespace"),
        (long long)th_json_path_int(config, "service.port", 443), path && *path ? path : "/");
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
        ip = th_json_path_str(eps, "subsets[0].addresses[0].ip");
        int64_t to = th_json_path_int(eps, "subsets[0].ports[0].port", 0);
        if (ip && to) {
            *ret = th_xasprintf("%s:%lld", ip, (long long)to);
            return 0;
        }
    }
    return th_fail(err, TH_R_UNAVAILABLE, "no endpoints available for service \"%s\"", name);
}

static int find_target(const struct th_json *config, struct th_client *client, int64_t timeout_ms,
                       struct target *ret, struct th_err *err)
{
    th_autofree char *url = th_hook_url(config, timeout_ms);
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

int th_hook_call(const struct th_json *config, struct th_client *client,
                 const struct th_json *body, int64_t timeout_ms, struct th_json **ret,
                 struct th_err *err)
{
    TH_CLEANUP(target_done) struct target t = {.server = NULL};
    TH_TRY(find_target(config, client, timeout_ms, &t, err));
    th_autobuf struct th_buf ca = TH_BUF_INIT;
    const char *bundle = th_json_path_str(config, "caBundle");
    if (bundle && *bundle) {
        TH_TRY(th_b64_decode(bundle, strlen(bundle), &ca, err));
    }
    const struct th_client_http_opts o = {.server = t.server,
                                          .ca_pem = ca.n ? th_buf_cstr(&ca) : NULL,
                                          .connect_to = t.to,
                                          .user_agent = "kube-apiserver-admission"};
    TH_AUTO(th_client) struct th_client *hook = NULL;
    TH_TRY(th_client_new_http(&o, &hook, err));
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
    TH_TRY(th_client_raw(hook, &req, &status, &in, err));
    return th_json_parse(th_buf_cstr(&in), in.n, NULL, ret, err);
}
