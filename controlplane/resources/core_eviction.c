/* pods/eviction: a delete that disruption budgets may refuse (upstream: registry/core/pod/storage). */
#include "controlplane/resources/rows.h"

#include "base/buf.h"
#include "base/clock.h"
#include "controlplane/client/client.h"
#include "controlplane/schema/selector.h"

#define GVR_BUDGETS ((struct th_gvr){"policy", "v1", "poddisruptionbudgets"})
enum { MOST_DISRUPTED = 2000 };
static const char refused[] =
    "Cannot evict pod as it would violate the pod's disruption budget.";

struct eviction {
    const struct th_req_ctx *c;
    const char *pod;
    bool dry_run;
};

static const struct th_json *condition(const struct th_json *obj, const char *type)
{
    const struct th_json *all = th_json_path(obj, "status.conditions");
    for (size_t i = 0; i < th_json_len(all); i++) {
        if (th_streq(th_json_path_str(th_json_at(all, i), "type"), type)) {
            return th_json_at(all, i);
        }
    }
    return NULL;
}

/* Replaces the condition of that type; lastTransitionTime stays while status does. Takes now. */
static void set_condition(struct th_json *obj, struct th_json *now)
{
    struct th_json *all = th_json_path_array(obj, "status.conditions");
    for (size_t i = 0; i < th_json_len(all); i++) {
        const struct th_json *was = th_json_at(all, i);
        if (!th_streq(th_json_path_str(was, "type"), th_json_path_str(now, "type"))) {
            continue;
        }
        if (th_streq(th_json_path_str(was, "status"), th_json_path_str(now, "status"))) {
            th_json_set_str(now, "lastTransitionTime",
                            th_json_path_str(was, "lastTransitionTime"));
        }
        th_json_set_at(all, i, now);
        return;
    }
    th_json_append(all, now);
}

/* Pods that have ended, not begun, or are already on their way out disrupt nothing. */
static bool needs_no_budget(const struct th_json *pod)
{
    const char *phase = th_json_path_str(pod, "status.phase");
    return th_json_path_str(pod, "metadata.deletionTimestamp") || !phase ||
           th_streq(phase, "Succeeded") || th_streq(phase, "Failed") || th_streq(phase, "Pending");
}

static int refuse(struct th_err *err, int retry_s, const char *why)
{
    (void)th_fail(err, TH_R_TOO_MANY_REQUESTS, "%s", refused);
    if (err) {
        err->retry_after_s = retry_s;
        th_err_add_cause(err, "DisruptionBudget", "", "%s", why);
    }
    return -TH_R_TOO_MANY_REQUESTS;
}

static char *why_none_allowed(const struct th_json *b, const char *name)
{
    int64_t need = th_json_path_int(b, "status.desiredHealthy", 0);
    int64_t have = th_json_path_int(b, "status.currentHealthy", 0);
    const struct th_json *c = condition(b, "DisruptionAllowed");
    const char *reason = th_json_path_str(c, "reason"), *msg = th_json_path_str(c, "message");
    bool says = th_streq(th_json_path_str(c, "status"), "False") && msg && *msg;
    if (says && th_streq(reason, "SyncFailed")) {
        return th_xasprintf("The disruption budget %s does not allow evicting pods currently because "
                            "it failed sync: %s",
                            name, msg);
    }
    if (have <= need) {
        return th_xasprintf("The disruption budget %s needs %lld healthy pods and has %lld currently",
                            name, (long long)need, (long long)have);
    }
    if (says) {
        return th_xasprintf("The disruption budget %s does not allow evicting pods currently (%s): %s",
                            name, reason ? reason : "", msg);
    }
    return th_xasprintf("The disruption budget %s does not allow evicting pods currently", name);
}

/* Takes one disruption from the budget, or says why there is none. */
static int take_one(void *arg, struct th_json *b, struct th_err *err)
{
    const struct eviction *e = arg;
    const char *name = th_json_path_str(b, "metadata.name");
    int64_t allowed = th_json_path_int(b, "status.disruptionsAllowed", 0);
    if (th_json_path_int(b, "status.observedGeneration", 0) <
        th_json_path_int(b, "metadata.generation", 0)) {
        th_autofree char *why = th_xasprintf(
            "The disruption budget %s is still being processed by the server.", name);
        return refuse(err, 10, why);
    }
    if (allowed < 0) {
        return th_fail(err, TH_R_FORBIDDEN,
                       "poddisruptionbudget.policy \"%s\" is forbidden: pdb disruptions allowed is "
                       "negative",
                       name);
    }
    if (th_json_len(th_json_path(b, "status.disruptedPods")) > MOST_DISRUPTED) {
        return th_fail(err, TH_R_FORBIDDEN,
                       "poddisruptionbudget.policy \"%s\" is forbidden: DisruptedPods map too big - "
                       "too many evictions not confirmed by PDB controller",
                       name);
    }
    if (allowed == 0) {
        th_autofree char *why = why_none_allowed(b, name);
        return refuse(err, 0, why);
    }
    if (e->dry_run) {
        return 0;
    }
    char now[TH_TIME_LEN];
    (void)th_time_format(e->c->now_ms, now);
    th_json_path_set_int(b, "status.disruptionsAllowed", allowed - 1);
    th_json_set_str(th_json_path_object(b, "status.disruptedPods"), e->pod, now);
    if (allowed == 1) {
        set_condition(b, th_json_build("{'type':'DisruptionAllowed','status':'False','reason':"
                                       "'InsufficientPods','message':'','observedGeneration':%d,"
                                       "'lastTransitionTime':%s}",
                                       th_json_path_int(b, "status.observedGeneration", 0), now));
    }
    return 1;
}

static bool covers(const struct th_json *budget, const struct th_json *pod)
{
    TH_AUTO(th_selector) struct th_selector *s = NULL;
    return th_selector_from_json(th_json_path(budget, "spec.selector"), &s, NULL) >= 0 &&
           th_selector_matches(s, th_json_path(pod, "metadata.labels"));
}

/* An unready pod that costs the budget nothing. */
static bool is_free(const struct th_json *budget, const struct th_json *pod)
{
    int64_t need = th_json_path_int(budget, "status.desiredHealthy", 0);
    if (th_streq(th_json_path_str(condition(pod, "Ready"), "status"), "True")) {
        return false;
    }
    return th_streq(th_json_path_str(budget, "spec.unhealthyPodEvictionPolicy"), "AlwaysAllow") ||
           (need > 0 && th_json_path_int(budget, "status.currentHealthy", 0) >= need);
}

/* *ret_rv gets the version that the pod must still have, when that matters. */
static int ask_budgets(struct eviction *e, const char *ns, const struct th_json *pod,
                       const char **ret_rv, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *all = NULL;
    const struct th_json *mine = NULL;
    TH_TRY(th_client_list(e->c->client, GVR_BUDGETS, ns, NULL, NULL, &all, err));
    const struct th_json *items = th_json_get(all, "items");
    for (size_t i = 0; i < th_json_len(items); i++) {
        const struct th_json *b = th_json_at(items, i);
        if (covers(b, pod) && mine) {
            return th_fail(err, TH_R_INTERNAL,
                           "This pod has more than one PodDisruptionBudget, which the eviction "
                           "subresource does not support.");
        }
        mine = covers(b, pod) ? b : mine;
    }
    if (!mine) {
        return 0;
    }
    if (is_free(mine, pod)) {
        *ret_rv = th_json_path_str(pod, "metadata.resourceVersion");
        return 0;
    }
    return th_client_modify(e->c->client, GVR_BUDGETS, ns, th_json_path_str(mine, "metadata.name"),
                            "status", take_one, e, NULL, err);
}

static int mark(void *arg, struct th_json *pod, struct th_err *err)
{
    const struct eviction *e = arg;
    (void)err;
    char now[TH_TIME_LEN];
    set_condition(pod, th_json_build("{'type':'DisruptionTarget','status':'True','reason':"
                                     "'EvictionByEvictionAPI','message':'Eviction API: evicting',"
                                     "'lastTransitionTime':%s}",
                                     th_time_format(e->c->now_ms, now)));
    return 1;
}

static int mark_and_delete(struct eviction *e, const char *ns, const struct th_json *pod,
                           const struct th_json *options, const char *rv, struct th_err *err)
{
    struct th_delete_opts o = TH_DELETE_OPTS_INIT;
    TH_AUTO(th_json) struct th_json *marked = NULL;
    o.grace_s = th_json_path_int(options, "gracePeriodSeconds", -1);
    o.propagation = th_json_path_str(options, "propagationPolicy");
    o.uid = th_json_path_str(options, "preconditions.uid");
    rv = rv ? rv : th_json_path_str(options, "preconditions.resourceVersion");
    const char *uid = th_json_path_str(pod, "metadata.uid");
    const char *have = th_json_path_str(pod, "metadata.resourceVersion");
    if (o.uid && *o.uid && !th_streq(o.uid, uid)) {
        return th_fail(err, TH_R_CONFLICT,
                       "Operation cannot be fulfilled on Pod \"%s\": the UID in the precondition (%s) "
                       "does not match the UID in record (%s). The object might have been deleted and "
                       "then recreated",
                       e->pod, o.uid, uid);
    }
    if (rv && *rv && !th_streq(rv, have)) {
        return th_fail(err, TH_R_CONFLICT,
                       "Operation cannot be fulfilled on Pod \"%s\": the ResourceVersion in the "
                       "precondition (%s) does not match the ResourceVersion in record (%s). The "
                       "object might have been modified",
                       e->pod, rv, have);
    }
    if (e->dry_run) {
        return 0;
    }
    TH_TRY(th_client_modify(e->c->client, TH_GVR_PODS, ns, e->pod, "status", mark, e, &marked, err));
    return th_client_delete(e->c->client, TH_GVR_PODS, ns, e->pod, &o, NULL, err);
}

int th_pod_evict(const struct th_req_ctx *c, const char *ns, const char *name,
                 const struct th_json *body, struct th_json **ret, struct th_err *err)
{
    const struct th_json *options = th_json_get(body, "deleteOptions");
    struct eviction e = {.c = c, .pod = name};
    e.dry_run = c->dry_run || th_json_len(th_json_path(options, "dryRun")) > 0;
    const char *named = th_json_path_str(body, "metadata.name"), *rv = NULL;
    TH_AUTO(th_json) struct th_json *pod = NULL;
    if (!named || !th_streq(named, name)) {
        return th_fail(err, TH_R_BAD_REQUEST,
                       "name in URL does not match name in Eviction object");
    }
    TH_TRY(th_client_get(c->client, TH_GVR_PODS, ns, name, &pod, err));
    if (!needs_no_budget(pod)) {
        TH_TRY(ask_budgets(&e, ns, pod, &rv, err));
    }
    TH_TRY(mark_and_delete(&e, ns, pod, options, rv, err));
    *ret = th_json_build("{'kind':'Status','apiVersion':'v1','metadata':{},'status':'Success'}");
    return 0;
}
