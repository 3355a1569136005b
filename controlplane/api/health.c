/* /version, /healthz, /livez, /readyz, /metrics/slis, and the key documents of OpenID. */
#include "controlplane/api/priv.h"

#include "base/version.h"
#include "controlplane/resources/token.h"

#include <sys/utsname.h>

static bool is_check(const char *path)
{
    static const char *const roots[] = {"/healthz", "/livez", "/readyz"};
    for (size_t i = 0; i < TH_ARRAY_LEN(roots); i++) {
        size_t n = strlen(roots[i]);
        if (strncmp(path, roots[i], n) == 0 && (path[n] == '\0' || path[n] == '/')) {
            return true;
        }
    }
    return false;
}

static struct th_json *version_json(void)
{
    struct utsname u;
    const char *machine = uname(&u) == 0 ? u.machine : "x86_64";
    const char *arch = th_streq(machine, "aarch64") ? "arm64" : "amd64";
    struct th_json *o = th_json_build(
        "{'major':%s,'minor':%s,'emulationMajor':%s,'emulationMinor':%s,"
        "'minCompatibilityMajor':%s,'minCompatibilityMinor':'35','gitVersion':%s,'gitCommit':'',"
        "'gitTreeState':'clean','buildDate':'','goVersion':'','compiler':'gcc'}",
        TH_KUBE_MAJOR, TH_KUBE_MINOR, TH_KUBE_MAJOR, TH_KUBE_MINOR, TH_KUBE_MAJOR,
        TH_KUBE_VERSION "+thimble-" TH_VERSION);
    th_json_set(o, "platform", th_json_stringf("linux/%s", arch));
    return o;
}

static bool check_ping(const struct th_api *api)
{
    (void)api;
    return true;
}

static bool check_store(const struct th_api *api)
{
    struct th_store_stats s;
    th_store_stats(api->store, &s);
    return !s.read_only;
}

static bool check_started(const struct th_api *api)
{
    return __atomic_load_n(&api->ready, __ATOMIC_ACQUIRE);
}

/* Upstream names every part of its start, and operators' tools look for the names. The work behind
 * them is one step here (th_api_set_ready), so they turn at the same moment. */
static const struct {
    const char *name;
    bool (*ok)(const struct th_api *api);
    bool in_livez;
} checks[] = {
    {"ping", check_ping, true},
    {"log", check_ping, true},
    {"etcd", check_store, true},
    {"informer-sync", check_started, false},
    {"poststarthook/start-apiserver-admission-initializer", check_started, true},
    {"poststarthook/generic-apiserver-start-informers", check_started, true},
    {"poststarthook/priority-and-fairness-config-consumer", check_started, true},
    {"poststarthook/priority-and-fairness-config-producer", check_started, true},
    {"poststarthook/start-apiextensions-informers", check_started, true},
    {"poststarthook/start-apiextensions-controllers", check_started, true},
    {"poststarthook/crd-informer-synced", check_started, true},
    {"poststarthook/bootstrap-controller", check_started, true},
    {"poststarthook/rbac/bootstrap-roles", check_started, true},
    {"poststarthook/start-system-namespaces-controller", check_started, true},
    {"poststarthook/start-service-ip-repair-controllers", check_started, true},
    {"poststarthook/scheduling/bootstrap-system-priority-classes", check_started, true},
    {"poststarthook/start-cluster-authentication-info-controller", check_started, true},
    {"poststarthook/start-kube-aggregator-informers", check_started, true},
    {"poststarthook/apiservice-registration-controller", check_started, true},
    {"poststarthook/apiservice-status-local-available-controller", check_started, true},
    {"poststarthook/apiservice-status-remote-available-controller", check_started, true},
    {"poststarthook/kube-apiserver-autoregistration", check_started, true},
    {"autoregister-completion", check_started, true},
    {"poststarthook/apiservice-openapi-controller", check_started, true},
    {"poststarthook/storage-readiness", check_started, true},
};

static int serve_checks(struct th_call *c, const char *which, const char *one, struct th_err *err)
{
    bool live = !th_streq(which, "readyz");
    bool bad = false;
    bool found = !one;
    th_autobuf struct th_buf b = TH_BUF_INIT;
    for (size_t i = 0; i < TH_ARRAY_LEN(checks); i++) {
        if ((live && !checks[i].in_livez) || (one && !th_streq(one, checks[i].name))) {
            continue;
        }
        found = true;
        bool excluded = false;
        for (size_t k = 0; k < c->query.keys.n; k++) {
            excluded = excluded || (th_streq(c->query.keys.v[k], "exclude") &&
                                    th_streq(c->query.values.v[k], checks[i].name));
        }
        bool ok = excluded || checks[i].ok(c->api);
        bad = bad || !ok;
        th_buf_printf(&b, ok ? "[+]%s %s\n" : "[-]%s %s\n", checks[i].name,
                      excluded ? "excluded: ok" : ok ? "ok" : "failed: reason withheld");
    }
    if (!found) {
        return th_fail(err, TH_R_NOT_FOUND, "the server could not find the requested resource");
    }
    bool verbose = th_query_get(&c->query, "verbose") != NULL;
    th_buf_printf(&b, bad ? "%s check failed\n" : "%s check passed\n", which);
    th_strv_add(&c->resp->headers, "X-Content-Type-Options: nosniff");
    th_respond_text(c->resp, bad ? 500 : 200, "text/plain; charset=utf-8",
                    bad || (verbose && !one) ? th_buf_cstr(&b) : "ok");
    return 1;
}

/* The same checks as Prometheus' series. Upstream counts what probes asked for; here every scrape
 * asks, so there is a result for each check, and no count of others' probes. */
static int serve_slis(struct th_call *c, struct th_err *err)
{
    static const char *const types[] = {"healthz", "livez", "readyz"};
    struct th_buf *b = &c->resp->body;
    th_buf_puts(b, "# HELP kubernetes_healthcheck The result of a health check, 1 is good.\n"
                   "# TYPE kubernetes_healthcheck gauge\n");
    for (size_t i = 0; i < TH_ARRAY_LEN(checks); i++) {
        for (size_t k = 0; k < TH_ARRAY_LEN(types); k++) {
            if (checks[i].in_livez || th_streq(types[k], "readyz")) {
                th_buf_printf(b, "kubernetes_healthcheck{name=\"%s\",type=\"%s\"} %d\n",
                              checks[i].name, types[k], checks[i].ok(c->api));
            }
        }
    }
    TH_TRY(th_buf_check(b, err));
    c->resp->status = 200;
    c->resp->content_type = "text/plain; version=0.0.4; charset=utf-8";
    return 1;
}

int th_health_serve(struct th_call *c, struct th_err *err)
{
    const char *p = c->route.path;
    if (th_streq(p, "/metrics/slis")) {
        return serve_slis(c, err);
    }
    if (th_streq(p, "/version") || th_streq(p, "/version/")) {
        TH_AUTO(th_json) struct th_json *v = version_json();
        th_respond_json(c->resp, 200, v, true);
        return 1;
    }
    if (!is_check(p)) {
        return 0;
    }
    size_t n = strcspn(p + 1, "/");
    th_autofree char *which = th_xstrndup(p + 1, n);
    const char *one = p[n + 1] == '/' && p[n + 2] ? p + n + 2 : NULL;
    return serve_checks(c, which, one, err);
}

int th_oidc_serve(struct th_call *c, struct th_err *err)
{
    const struct th_cluster *k = c->api->cluster;
    if (th_streq(c->route.path, "/openid/v1/jwks") && k->sa_key_pem) {
        th_autobuf struct th_buf b = TH_BUF_INIT;
        TH_TRY(th_token_jwks(k->sa_key_pem, &b, err));
        th_respond_text(c->resp, 200, "application/jwk-set+json", th_buf_cstr(&b));
        return 1;
    }
    if (!th_streq(c->route.path, "/.well-known/openid-configuration") || !k->sa_issuer) {
        return 0;
    }
    TH_AUTO(th_json) struct th_json *o = th_json_build(
        "{'issuer':%s,'jwks_uri':%o,'response_types_supported':['id_token'],"
        "'subject_types_supported':['public'],'id_token_signing_alg_values_supported':['ES256']}",
        k->sa_issuer,
        th_json_stringf("https://%s:%d/openid/v1/jwks", k->advertise_ip ? k->advertise_ip : "",
                        k->advertise_port));
    th_respond_json(c->resp, 200, o, false);
    return 1;
}
