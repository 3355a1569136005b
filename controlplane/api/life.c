/* The life of the API: what it is made of, in which order that comes and goes, and the objects that a
 * cluster begins with.
 *
 * Threads that look after objects (keepers, expiry) use the API through its own client, so they are
 * made last and end first. The first objects are written through the pipeline as anyone's are; those
 * that are there already stay as they are, but for the addresses of the API server itself, which
 * follow what is advertised now. Upstream makes them in post-start hooks and repairs them in loops;
 * here it is done once at start, before /readyz says yes.
 */
#include "controlplane/api/priv.h"

#include "controlplane/api/admission/hooks.h"
#include "controlplane/api/aggregate/aggregate.h"
#include "controlplane/api/customs.h"
#include "controlplane/api/flow.h"
#include "controlplane/api/hook_call.h"
#include "controlplane/api/local.h"
#include "controlplane/api/ticker.h"
#include "controlplane/schema/gotext.h"

#define CONTINUE_EXPIRY_MS 300000
#define EVENT_TTL_MS 3600000
#define REQUEST_TIMEOUT_MS 60000

static int duration_ms(const char *text, int64_t dflt, int64_t *ret, struct th_err *err)
{
    int64_t ns = dflt * 1000000;
    if (text && (th_go_duration_parse(text, &ns, NULL) < 0 || ns < 1000000)) {
        return th_fail(err, TH_R_USAGE, "\"%s\" is not a duration such as 5m or 300ms", text);
    }
    *ret = ns / 1000000;
    return 0;
}

int th_api_new(const struct th_api_opts *o, struct th_api **ret, struct th_err *err)
{
    struct th_api *a = TH_NEW(struct th_api);
    a->store = o->store;
    a->cluster = o->cluster;
    a->node_socket = th_xstrdup(o->node_socket);
    a->server_address = th_xstrdup(o->server_address);
    for (const char *const *p = o->disable_admission; p && *p; p++) {
        th_strv_add(&a->disabled_admission, *p);
    }
    (void)pthread_mutex_init(&a->lock, NULL);
    th_hmap_init(&a->cache, th_doc_free);
    static const char *const masters[] = {"system:masters", "system:authenticated", NULL};
    a->system = th_identity_new("system:apiserver", NULL, masters);
    a->system->system = true;
    a->ticker = th_ticker_new();
    a->metrics = th_metrics_new();
    a->flow = th_flow_new(a->store);
    th_authz_access(a, &a->access);
    int r = duration_ms(o->continue_expiry, CONTINUE_EXPIRY_MS, &a->continue_expiry_ms, err);
    if (r >= 0) {
        r = duration_ms(o->event_ttl, EVENT_TTL_MS, &a->event_ttl_ms, err);
    }
    if (r >= 0) {
        r = duration_ms(o->request_timeout, REQUEST_TIMEOUT_MS, &a->request_timeout_ms, err);
    }
    if (r >= 0) {
        r = th_authz_new(a->store, o->authorization_mode, &a->authz, err);
    }
    if (r >= 0) {
        r = th_authn_new(o->token_file, &a->authn, err);
    }
    if (r >= 0 && o->audit_policy_file) {
        struct th_audit_opts ao = {o->audit_policy_file, o->audit_log, o->audit_log_max_size_mb,
                                   o->audit_log_max_backups, o->audit_log_max_age_days};
        r = th_audit_new(&ao, &a->audit, err);
    }
    if (r >= 0) {
        r = th_client_new_local(a, NULL, NULL, "kube-apiserver", &a->client, err);
    }
    if (r < 0) {
        th_api_free(a);
        return r;
    }
    a->hook_pool = th_hook_pool_new(a->client);
    a->hooks = th_hooks_new(a->store);
    a->customs = th_custom_registry_new(a->store, a->hook_pool);
    const struct th_aggr_opts ag = {.api = a,
                                    .front_cert_pem = o->front_cert_pem,
                                    .front_key_pem = o->front_key_pem,
                                    .front_ca_pem = o->front_ca_pem,
                                    .client_ca_pem = o->client_ca_pem,
                                    .metrics_api = o->metrics_api};
    a->aggr = th_aggr_new(&ag);
    a->usage = th_usage_new(a->store, a->node_socket);
    a->keeper = th_custom_keeper_new(a->store, a->client);
    *ret = a;
    return 0;
}

void th_api_free(struct th_api *a)
{
    if (!a) {
        return;
    }
    th_event_expiry_free(a->event_expiry);
    th_custom_keeper_free(a->keeper);
    th_aggr_free(a->aggr);
    th_usage_free(a->usage);
    th_custom_registry_free(a->customs);
    th_hooks_free(a->hooks);
    th_hook_pool_free(a->hook_pool);
    th_client_free(a->client);
    th_authz_free(a->authz);
    th_authn_free(a->authn);
    th_audit_free(a->audit);
    th_ticker_free(a->ticker);
    th_metrics_free(a->metrics);
    th_flow_free(a->flow);
    th_hmap_done(&a->cache);
    (void)pthread_mutex_destroy(&a->lock);
    th_identity_unref(a->system);
    th_strv_done(&a->disabled_admission);
    free(a->node_socket);
    free(a->server_address);
    free(a);
}

void th_api_set_ready(struct th_api *api, bool ready)
{
    __atomic_store_n(&api->ready, ready, __ATOMIC_RELEASE);
}

/* What the cluster's own endpoints say follows the address that is advertised now. */
static int refresh(struct th_api *api, struct th_gvr gvr, const struct th_json *want,
                   struct th_json *have, struct th_err *err)
{
    static const char *const members[] = {"subsets", "endpoints", "ports"};
    bool changed = false;
    if (!th_streq(gvr.plural, "endpoints") && !th_streq(gvr.plural, "endpointslices")) {
        return 0;
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(members); i++) {
        const struct th_json *m = th_json_get(want, members[i]);
        if (m && !th_json_equal(m, th_json_get(have, members[i]))) {
            th_json_set(have, members[i], th_json_dup(m));
            changed = true;
        }
    }
    return !changed ? 0
                    : th_client_update(api->client, gvr, "default", "kubernetes", "", have, NULL, err);
}

int th_api_bootstrap(struct th_api *api, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *all = th_bootstrap_objects(api->cluster);
    for (size_t i = 0; i < th_json_len(all); i++) {
        const struct th_json *o = th_json_at(all, i);
        th_autofree char *g = NULL;
        th_autofree char *v = NULL;
        TH_TRY(th_gv_split(th_json_path_str(o, "apiVersion"), &g, &v, err));
        const char *kind = th_json_path_str(o, "kind");
        const struct th_resource *r = th_resource_for_kind(g, v, kind);
        if (!r) {
            return th_fail(err, TH_R_INTERNAL, "bootstrap object of unknown kind %s", kind);
        }
        const char *ns = th_json_path_str(o, "metadata.namespace");
        const char *name = th_json_path_str(o, "metadata.name");
        struct th_gvr gvr = {g, v, r->plural};
        TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
        TH_AUTO(th_json) struct th_json *have = NULL;
        if (th_client_get(api->client, gvr, ns, name, &have, &local) >= 0) {
            TH_TRY(refresh(api, gvr, o, have, err));
            continue;
        }
        th_err_done(&local);
        int rc = th_client_create(api->client, gvr, ns, o, NULL, &local);
        if (rc < 0 && rc != -TH_R_ALREADY_EXISTS) {
            if (err) {
                th_err_move(err, &local);
            }
            return th_wrap(err, "making %s %s", kind, name);
        }
    }
    TH_TRY(th_flow_bootstrap(api, err));
    if (!api->event_expiry) {
        api->event_expiry = th_event_expiry_new(api->store, api->event_ttl_ms);
    }
    if (th_authz_uses_rbac(api->authz)) {
        TH_TRY(th_rbac_bootstrap(api, err));
    }
    return th_aggr_bootstrap(api->aggr, err);
}
