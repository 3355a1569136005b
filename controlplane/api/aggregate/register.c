/*
 * The local APIServices: one for every group and version that this server answers itself, so that
 * clients find all of them in one list; the ConfigMap that servers behind Services read to know whom to
 * believe; and the role that lets who may view, edit or administer a namespace read metrics.
 *
 * Those of built-in groups are made at the start (label "onstart"): a user may delete or change them
 * until the next start. Those of custom resources follow the definitions all the time ("true"). One that
 * a user made has no such label and is left alone. apiregistration.k8s.io has none, as upstream.
 */
#include "controlplane/api/aggregate/aggregate.h"
#include "controlplane/api/aggregate/register.h"

#include "base/log.h"
#include "controlplane/api/customs.h"

#define LABEL "kube-aggregator.kubernetes.io/automanaged"

static struct th_json *wanted(const char *group, const char *version, const char *managed)
{
    int64_t group_priority = 0, version_priority = 0;
    th_aggr_priorities(group, version, &group_priority, &version_priority);
    struct th_json *spec = th_json_object();
    if (*group) {
        th_json_set_str(spec, "group", group);
    }
    th_json_set_str(spec, "version", version);
    th_json_set_int(spec, "groupPriorityMinimum", group_priority);
    th_json_set_int(spec, "versionPriority", version_priority);
    return th_json_build("{'apiVersion':'apiregistration.k8s.io/v1','kind':'APIService',"
                         "'metadata':{'name':%o,'labels':{'" LABEL "':%s}},'spec':%o}",
                         th_json_stringf("%s.%s", version, group), managed, spec);
}

static const char *managed_how(const struct th_json *o)
{
    return th_json_str(th_json_get(th_json_path(o, "metadata.labels"), LABEL));
}

static int load(struct th_aggr *a, const char *name, struct th_json **ret, struct th_err *err)
{
    th_autofree char *key = th_xasprintf(TH_APISERVICES_PREFIX "-/%s", name);
    TH_AUTO(th_obj) struct th_obj *o = th_store_get(a->api->store, key);
    return o ? th_json_parse(o->bytes, o->n, NULL, ret, err) : 0;
}

/* ---- built-in groups ---- */

static int add_built_in(struct th_aggr *a, const struct th_resource *r, struct th_fresh *f,
                        struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *want = wanted(r->group, r->version, "onstart");
    const char *name = th_json_path_str(want, "metadata.name");
    TH_AUTO(th_json) struct th_json *have = NULL;
    TH_TRY(load(a, name, &have, err));
    if (!have) {
        const struct th_resource *row = th_resource_find("apiregistration.k8s.io", "v1", "apiservices");
        const struct th_req_ctx ctx = {.now_ms = th_now_ms()};
        row->s.prepare_create(&ctx, want);
        th_autofree char *key = th_xasprintf(TH_APISERVICES_PREFIX "-/%s", name);
        return th_fresh_add(f, key, want, th_resource_kind(row), err);
    }
    if (!managed_how(have) || th_json_equal(th_json_get(have, "spec"), th_json_get(want, "spec"))) {
        return 0;
    }
    th_json_set(have, "spec", th_json_dup(th_json_get(want, "spec")));
    return th_client_update(a->api->client, TH_GVR_APISERVICES, NULL, name, "", have, NULL, err);
}

static bool is_first_of_gv(size_t i)
{
    const struct th_resource *r = th_resource_at(i);
    for (size_t k = 0; k < i; k++) {
        const struct th_resource *s = th_resource_at(k);
        if (th_streq(s->group, r->group) && th_streq(s->version, r->version)) {
            return false;
        }
    }
    return true;
}

static int register_built_in(struct th_aggr *a, struct th_err *err)
{
    TH_CLEANUP(th_fresh_done) struct th_fresh f = {.n = 0};
    const struct th_resource *r;
    for (size_t i = 0; (r = th_resource_at(i)); i++) {
        bool wants = (!r->optional || a->metrics_api) &&
                     !th_streq(r->group, "apiregistration.k8s.io") && is_first_of_gv(i);
        if (wants) {
            TH_TRY(add_built_in(a, r, &f, err));
        }
    }
    return th_fresh_commit(a->api->store, &f, err);
}

/* ---- the ConfigMap ---- */

static int publish_authentication(struct th_aggr *a, struct th_err *err)
{
    static const char name[] = "extension-apiserver-authentication";
    TH_AUTO(th_json) struct th_json *data = th_json_object();
    if (a->client_ca) {
        th_json_set_str(data, "client-ca-file", a->client_ca);
    }
    if (a->front_ca) {
        th_json_set_str(data, "requestheader-allowed-names", "[\"" TH_FRONT_PROXY_NAME "\"]");
        th_json_set_str(data, "requestheader-client-ca-file", a->front_ca);
        th_json_set_str(data, "requestheader-extra-headers-prefix", "[\"X-Remote-Extra-\"]");
        th_json_set_str(data, "requestheader-group-headers", "[\"X-Remote-Group\"]");
        th_json_set_str(data, "requestheader-uid-headers", "[\"X-Remote-Uid\"]");
        th_json_set_str(data, "requestheader-username-headers", "[\"X-Remote-User\"]");
    }
    TH_AUTO(th_json) struct th_json *have = NULL;
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    struct th_client *c = a->api->client;
    if (th_client_get(c, TH_GVR_CONFIGMAPS, "kube-system", name, &have, &local) >= 0) {
        if (th_json_equal(th_json_get(have, "data"), data)) {
            return 0;
        }
        th_json_set(have, "data", th_steal(&data));
        return th_client_update(c, TH_GVR_CONFIGMAPS, "kube-system", name, "", have, NULL, err);
    }
    TH_AUTO(th_json) struct th_json *o =
        th_json_build("{'apiVersion':'v1','kind':'ConfigMap','metadata':{'name':%s,"
                      "'namespace':'kube-system'},'data':%o}",
                      name, th_steal(&data));
    return th_client_create(c, TH_GVR_CONFIGMAPS, "kube-system", o, NULL, err);
}

/* ---- the role for metrics ---- */

/* The one that a metrics server brings along; view, edit and admin gather it by its labels. */
static int publish_metrics_reader(struct th_aggr *a, struct th_err *err)
{
    const struct th_gvr roles = {"rbac.authorization.k8s.io", "v1", "clusterroles"};
    TH_AUTO(th_json) struct th_json *o = th_json_build(
        "{'apiVersion':'rbac.authorization.k8s.io/v1','kind':'ClusterRole','metadata':{"
        "'name':'system:aggregated-metrics-reader','labels':{"
        "'rbac.authorization.k8s.io/aggregate-to-admin':'true',"
        "'rbac.authorization.k8s.io/aggregate-to-edit':'true',"
        "'rbac.authorization.k8s.io/aggregate-to-view':'true'}},'rules':[{"
        "'apiGroups':['metrics.k8s.io'],'resources':['pods','nodes'],'verbs':['get','list','watch']}]}");
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    int r = th_client_create(a->api->client, roles, NULL, o, NULL, &local);
    if (r == -TH_R_ALREADY_EXISTS) {
        return 0;
    }
    if (r < 0 && err) {
        th_err_move(err, &local);
    }
    return r;
}

int th_aggr_bootstrap(struct th_aggr *a, struct th_err *err)
{
    TH_TRY(register_built_in(a, err));
    if (a->metrics_api) {
        TH_TRY(publish_metrics_reader(a, err));
    }
    TH_TRY(publish_authentication(a, err));
    if (!a->keeper) {
        a->keeper = th_aggr_keeper_new(a);
    }
    return 0;
}

/* ---- custom resources ---- */

static bool is_custom(const struct th_customs *set, const char *group, const char *version)
{
    for (size_t i = 0; set && i < set->n; i++) {
        for (size_t k = 0; th_streq(set->v[i]->group, group) && k < set->v[i]->n_versions; k++) {
            if (set->v[i]->versions[k].served && th_streq(set->v[i]->versions[k].version, version)) {
                return true;
            }
        }
    }
    return false;
}

static bool is_built_in(const char *group, const char *version)
{
    const struct th_resource *r;
    for (size_t i = 0; (r = th_resource_at(i)); i++) {
        if (th_streq(r->group, group) && th_streq(r->version, version)) {
            return true;
        }
    }
    return false;
}

static bool make(struct th_aggr *a, const char *group, const char *version)
{
    TH_AUTO(th_json) struct th_json *o = wanted(group, version, "true");
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    int r = th_client_create(a->api->client, TH_GVR_APISERVICES, NULL, o, NULL, &err);
    if (r < 0 && r != -TH_R_ALREADY_EXISTS) {
        th_warn("api", "APIService not made", "group=%s version=%s error=%s", group, version,
                th_log_q(err.msg));
        return false;
    }
    return true;
}

/* What is there but not as it should be: deleted when nothing is served, mended when it was changed. */
static bool check(struct th_aggr *a, const struct th_aggr_service *s, bool served)
{
    TH_AUTO(th_json) struct th_json *have = NULL;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (load(a, s->name, &have, &err) < 0 || !have || !th_streq(managed_how(have), "true")) {
        return true;
    }
    int r = 0;
    if (!served) {
        struct th_delete_opts d = TH_DELETE_OPTS_INIT;
        d.uid = th_json_path_str(have, "metadata.uid");
        r = th_client_delete(a->api->client, TH_GVR_APISERVICES, NULL, s->name, &d, NULL, &err);
    } else {
        TH_AUTO(th_json) struct th_json *want = wanted(s->group, s->version, "true");
        if (!th_json_equal(th_json_get(have, "spec"), th_json_get(want, "spec"))) {
            th_json_set(have, "spec", th_json_dup(th_json_get(want, "spec")));
            r = th_client_update(a->api->client, TH_GVR_APISERVICES, NULL, s->name, "", have, NULL,
                                 &err);
        }
    }
    return r >= 0 || r == -TH_R_NOT_FOUND || r == -TH_R_CONFLICT;
}

bool th_aggr_register_customs(struct th_aggr *a, const struct th_aggr_set *set)
{
    bool done = true;
    struct th_customs *customs = th_customs_get(a->api->customs);
    for (size_t i = 0; customs && i < customs->n; i++) {
        const struct th_crd *crd = customs->v[i];
        for (size_t k = 0; k < crd->n_versions; k++) {
            const struct th_custom *v = &crd->versions[k];
            if (v->served && !th_aggr_find(set, crd->group, v->version) &&
                !is_built_in(crd->group, v->version)) {
                done = make(a, crd->group, v->version) && done;
            }
        }
    }
    for (size_t i = 0; set && i < set->n; i++) {
        const struct th_aggr_service *s = &set->v[i];
        if (!is_built_in(s->group, s->version)) {
            done = check(a, s, is_custom(customs, s->group, s->version)) && done;
        }
    }
    th_customs_unref(customs);
    return done;
}
