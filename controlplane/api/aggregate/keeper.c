/*
 * The keeper of APIServices: which are available, and those of custom resources.
 *
 * One thread, woken by watches on APIServices and definitions, and on Services and EndpointSlices while
 * some APIService has a Service. For each of those it looks at the Service and its endpoints, asks the
 * server for its discovery, and writes the condition Available with upstream's reasons and messages when
 * it has changed. A server that answered is asked again after half a minute, one that did not soon and
 * then less and less often, and both at once when the Service, its endpoints or the APIService change.
 *
 * It is part of the API server and no controller: upstream's API server does it too. Servers are asked
 * one after another, so one that does not answer at all keeps the others waiting for some seconds.
 */
#include "base/clock.h"
#include "base/log.h"
#include "base/rand.h"
#include "controlplane/api/aggregate/register.h"
#include "controlplane/api/rounds.h"

#define CRDS_PREFIX "apiextensions.k8s.io/customresourcedefinitions/"
#define SERVICES_PREFIX "core/services/"
#define SLICES_PREFIX "discovery.k8s.io/endpointslices/"
#define FIRST_WAIT_MS 50
#define LONGEST_WAIT_MS 30000
#define AGAIN_MS 30000 /* a server that answers */

struct server { /* what is known of one remote APIService */
    uint64_t seen; /* hash of what its availability follows from */
    int64_t next_ms, wait_ms;
};

struct th_aggr_keeper {
    struct th_aggr *a;
    struct th_watch *watches[4];
    struct th_hmap servers; /* by name */
    struct th_rounds rounds;
};

/* ---- the condition ---- */

struct verdict {
    const char *status, *reason;
    char *message;
};

static int set_condition(void *arg, struct th_json *o, struct th_err *err)
{
    (void)err;
    const struct verdict *v = arg;
    struct th_json *list = th_json_path_array(o, "status.conditions");
    struct th_json *cond = NULL;
    for (size_t i = 0; i < th_json_len(list); i++) {
        if (th_streq(th_json_path_str(th_json_at(list, i), "type"), "Available")) {
            cond = th_json_at(list, i);
        }
    }
    bool moved = !cond || !th_streq(th_json_path_str(cond, "status"), v->status);
    if (!moved && th_streq(th_json_path_str(cond, "reason"), v->reason) &&
        th_streq(th_json_path_str(cond, "message"), v->message)) {
        return 0;
    }
    if (!cond) {
        cond = th_json_build("{'type':'Available'}");
        th_json_append(list, cond);
    }
    char now[TH_TIME_LEN];
    if (moved) {
        th_json_set_str(cond, "lastTransitionTime", th_time_format(th_now_ms(), now));
    }
    th_json_set_str(cond, "message", v->message);
    th_json_set_str(cond, "reason", v->reason);
    th_json_set_str(cond, "status", v->status);
    return 1;
}

static void write_verdict(struct th_aggr_keeper *k, const char *name, struct verdict *v)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    int r = th_client_modify(k->a->api->client, TH_GVR_APISERVICES, NULL, name, "status",
                             set_condition, v, NULL, &err);
    if (r < 0 && r != -TH_R_NOT_FOUND) {
        th_warn("api", "condition of APIService not written", "name=%s error=%s", th_log_q(name),
                th_log_q(err.msg));
    }
    free(v->message);
    v->message = NULL;
}

/* ---- Services and endpoints ---- */

static bool slice_serves(const struct th_json *slice, const char *port)
{
    bool ready = false, has_port = false;
    const struct th_json *l = th_json_get(slice, "endpoints");
    for (size_t i = 0; i < th_json_len(l); i++) {
        ready = ready || th_json_path_bool(th_json_at(l, i), "conditions.ready", true);
    }
    l = th_json_get(slice, "ports");
    for (size_t i = 0; i < th_json_len(l); i++) {
        const char *name = th_json_path_str(th_json_at(l, i), "name");
        has_port = has_port || (th_streq(name ? name : "", port) &&
                                th_json_path(th_json_at(l, i), "port"));
    }
    return ready && has_port;
}

/* Looks through the EndpointSlices of the Service; their revisions go into *seen. */
static void look_at_slices(struct th_aggr_keeper *k, const struct th_aggr_service *s,
                           const char *port, bool *ret_any, bool *ret_serve, uint64_t *seen)
{
    th_autofree char *prefix = th_xasprintf(SLICES_PREFIX "%s/", s->ns);
    TH_CLEANUP(th_store_list_done) struct th_store_list l = {.n = 0};
    if (th_store_range(k->a->api->store, prefix, NULL, 0, 0, &l, NULL) < 0) {
        return;
    }
    for (size_t i = 0; i < l.n; i++) {
        struct th_str owner;
        TH_AUTO(th_json) struct th_json *slice = NULL;
        if (!th_obj_label(l.objs[i], "kubernetes.io/service-name", &owner) ||
            !th_str_eq(owner, th_str_of(s->service)) ||
            th_json_parse(l.objs[i]->bytes, l.objs[i]->n, NULL, &slice, NULL) < 0) {
            continue;
        }
        *seen = *seen * 31 + (uint64_t)l.objs[i]->rv;
        *ret_any = true;
        *ret_serve = *ret_serve || slice_serves(slice, port);
    }
}

/* What can be said without asking the server; reason NULL: nothing speaks against it. */
static struct verdict look_at_service(struct th_aggr_keeper *k, const struct th_aggr_service *s,
                                      uint64_t *seen)
{
    th_autofree char *key = th_xasprintf(SERVICES_PREFIX "%s/%s", s->ns, s->service);
    TH_AUTO(th_obj) struct th_obj *o = th_store_get(k->a->api->store, key);
    TH_AUTO(th_json) struct th_json *svc = NULL;
    if (!o || th_json_parse(o->bytes, o->n, NULL, &svc, NULL) < 0) {
        return (struct verdict){"False", "ServiceNotFound",
                                th_xasprintf("service/%s in \"%s\" is not present", s->service,
                                             s->ns)};
    }
    *seen = *seen * 31 + (uint64_t)o->rv;
    const struct th_json *ports = th_json_path(svc, "spec.ports");
    const char *port = NULL;
    for (size_t i = 0; i < th_json_len(ports) && !port; i++) {
        if (th_json_path_int(th_json_at(ports, i), "port", 0) == s->port) {
            const char *name = th_json_path_str(th_json_at(ports, i), "name");
            port = name ? name : "";
        }
    }
    bool any = false, serve = false;
    look_at_slices(k, s, port ? port : "", &any, &serve, seen);
    if (!th_streq(th_json_path_str(svc, "spec.type"), "ClusterIP")) {
        return (struct verdict){"True", NULL, NULL};
    }
    if (!port) {
        return (struct verdict){"False", "ServicePortError",
                                th_xasprintf("service/%s in \"%s\" is not listening on port %d",
                                             s->service, s->ns, s->port)};
    }
    if (!any) {
        return (struct verdict){"False", "EndpointsNotFound",
                                th_xasprintf("cannot find endpointslices for service/%s in \"%s\"",
                                             s->service, s->ns)};
    }
    if (!serve) {
        return (struct verdict){"False", "MissingEndpoints",
                                th_xasprintf("endpointslices for service/%s in \"%s\" have no "
                                             "addresses with port name \"%s\"",
                                             s->service, s->ns, port)};
    }
    return (struct verdict){"True", NULL, NULL};
}

static void probe(struct th_aggr_keeper *k, const struct th_aggr_service *s, struct server *known,
                  struct verdict *v)
{
    TH_AUTO(th_json) struct th_json *list = NULL;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (th_aggr_probe(k->a, s, &list, &err) < 0) {
        *v = (struct verdict){"False", "FailedDiscoveryCheck", th_xstrdup(err.msg)};
        known->wait_ms = known->wait_ms ? known->wait_ms * 2 : FIRST_WAIT_MS;
        known->wait_ms = known->wait_ms > LONGEST_WAIT_MS ? LONGEST_WAIT_MS : known->wait_ms;
        known->next_ms = th_mono_real_ms() + known->wait_ms;
        th_aggr_docs_stale(k->a, s->name);
        return;
    }
    th_aggr_docs_learn(k->a, s, list);
    *v = (struct verdict){"True", "Passed", th_xstrdup("all checks passed")};
    known->wait_ms = 0;
    known->next_ms = th_mono_real_ms() + AGAIN_MS;
}

/* What of an APIService says whom to ask. */
static uint64_t spec_hash(const struct th_aggr_service *s)
{
    th_autofree char *text = th_xasprintf("%s/%s:%d %d %s", s->ns, s->service, s->port, s->insecure,
                                          s->ca_pem ? s->ca_pem : "");
    return th_hash64(text, strlen(text));
}

static void check_remote(struct th_aggr_keeper *k, const struct th_aggr_service *s)
{
    struct server *known = th_hmap_get(&k->servers, s->name);
    if (!known) {
        known = TH_NEW(struct server);
        th_hmap_set(&k->servers, s->name, known);
    }
    uint64_t seen = spec_hash(s);
    struct verdict v = look_at_service(k, s, &seen);
    if (v.reason) {
        th_aggr_docs_stale(k->a, s->name);
        known->seen = 0;
        write_verdict(k, s->name, &v);
    } else if (seen != known->seen || th_mono_real_ms() >= known->next_ms) {
        if (seen != known->seen) {
            known->wait_ms = 0;
        }
        known->seen = seen;
        probe(k, s, known, &v);
        write_verdict(k, s->name, &v);
    }
}

/* ---- the thread ---- */

/* When something has to be done next, with nothing happening; INT64_MAX: never. */
static int64_t look(struct th_aggr_keeper *k)
{
    struct th_aggr_set *set = th_aggr_get(k->a);
    int64_t next = INT64_MAX;
    if (!th_aggr_register_customs(k->a, set)) {
        next = th_mono_real_ms() + 1000;
    }
    for (size_t i = 0; set && i < set->n; i++) {
        const struct th_aggr_service *s = &set->v[i];
        if (!s->local) {
            check_remote(k, s);
            const struct server *known = th_hmap_get(&k->servers, s->name);
            next = known->seen && known->next_ms < next ? known->next_ms : next;
        } else if (!s->available) {
            struct verdict v = {"True", "Local",
                                th_xstrdup("Local APIServices are always available")};
            write_verdict(k, s->name, &v);
        }
    }
    th_aggr_docs_forget(k->a, set);
    th_aggr_unref(set);
    return next;
}

/* Services and endpoints change all the time: they are watched only while somebody depends on them. */
static void follow_all(struct th_aggr_keeper *k)
{
    static const char *const prefixes[] = {TH_APISERVICES_PREFIX, CRDS_PREFIX, SERVICES_PREFIX,
                                           SLICES_PREFIX};
    struct th_store *store = k->a->api->store;
    th_rounds_follow(&k->rounds, store, prefixes[0], &k->watches[0]);
    th_rounds_follow(&k->rounds, store, prefixes[1], &k->watches[1]);
    struct th_aggr_set *set = th_aggr_get(k->a);
    bool remote = set && set->any_remote;
    th_aggr_unref(set);
    for (size_t i = 2; i < TH_ARRAY_LEN(prefixes); i++) {
        if (remote) {
            th_rounds_follow(&k->rounds, store, prefixes[i], &k->watches[i]);
        } else if (k->watches[i]) {
            th_watch_close(k->watches[i]);
            k->watches[i] = NULL;
        }
    }
}

static int64_t round_of(void *arg, bool woken)
{
    (void)woken;
    struct th_aggr_keeper *k = arg;
    th_store_settle(k->a->api->store);
    follow_all(k);
    return look(k);
}

struct th_aggr_keeper *th_aggr_keeper_new(struct th_aggr *a)
{
    struct th_aggr_keeper *k = TH_NEW(struct th_aggr_keeper);
    k->a = a;
    th_hmap_init(&k->servers, free);
    th_rounds_start(&k->rounds, round_of, k);
    return k;
}

void th_aggr_keeper_free(struct th_aggr_keeper *k)
{
    if (!k) {
        return;
    }
    th_rounds_stop(&k->rounds, k->watches, TH_ARRAY_LEN(k->watches));
    th_hmap_done(&k->servers);
    free(k);
}
