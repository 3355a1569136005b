/*
 * ResourceQuota: a write that would use more than a quota of its namespace allows is refused; one
 * that fits is added to status.used before it is accepted, so that two at once cannot both take the
 * last place (the quota's resource version decides who was first). What is taken back when the
 * write fails after all is the controller's to find.
 *
 * A pod in a namespace whose quota limits CPU or memory must say how much it wants, in every
 * container. Rules as k8s.io/apiserver admission/plugin/resourcequota.
 */
#include "controlplane/api/admission/admission.h"
#include "controlplane/schema/quota.h"

#define GVR_QUOTAS ((struct th_gvr){"", "v1", "resourcequotas"})
#define TRIES 10

struct claim {
    struct th_call *c;
    const struct th_json *obj, *old;
    struct th_amounts now, before; /* usage of obj and of old */
};

static char *map_text(const struct th_strv *names, const struct th_json *quota, const char *path,
                      const struct th_amounts *amounts)
{
    struct th_buf b TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    for (size_t i = 0; i < names->n; i++) {
        const char *name = names->v[i];
        char text[TH_QUANTITY_LEN];
        const char *v = amounts ? th_quantity_format(
                                      th_quota_quantity(name, th_amounts_get(amounts, name)), text)
                                : th_json_str(th_json_get(th_json_path(quota, path), name));
        th_buf_printf(&b, "%s%s=%s", i ? "," : "", name, v ? v : "0");
    }
    return th_xstrdup(th_buf_cstr(&b));
}

/* Whether the pod says for itself as a whole how much it wants of something: then nothing is asked of its
 * containers. */
static bool says_as_a_whole(const struct th_json *pod)
{
    static const char *const sides[] = {"spec.resources.requests", "spec.resources.limits"};
    bool says = false;
    for (size_t s = 0; s < TH_ARRAY_LEN(sides); s++) {
        struct th_json_iter it = TH_JSON_ITER(th_json_path(pod, sides[s]));
        while (th_json_next(&it)) {
            says = says || th_streq(it.name, "cpu") || th_streq(it.name, "memory") ||
                   th_startswith(it.name, "hugepages-");
        }
    }
    return says;
}

/* "limits.cpu for: a,b; requests.memory for: a" of what containers do not say though the quota
 * limits it; NULL when all is said. */
static char *missing(const struct th_json *quota, const struct th_json *pod)
{
    static const char *const names[] = {"cpu",          "limits.cpu",   "limits.memory",
                                        "memory",       "requests.cpu", "requests.memory"};
    static const char *const lists[] = {"spec.containers", "spec.initContainers"};
    struct th_buf b TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    const struct th_json *hard = th_json_path(quota, "spec.hard");
    for (size_t i = 0; i < TH_ARRAY_LEN(names) && !says_as_a_whole(pod); i++) {
        const char *dot = strchr(names[i], '.'), *resource = dot ? dot + 1 : names[i];
        const char *side = th_startswith(names[i], "limits.") ? "limits" : "requests";
        th_autostrv struct th_strv who = TH_STRV_INIT;
        for (size_t l = 0; th_json_has(hard, names[i]) && l < TH_ARRAY_LEN(lists); l++) {
            const struct th_json *list = th_json_path(pod, lists[l]);
            for (size_t k = 0; k < th_json_len(list); k++) {
                const struct th_json *ctr = th_json_at(list, k);
                if (!th_json_has(th_json_get(th_json_get(ctr, "resources"), side), resource)) {
                    th_strv_add(&who, th_json_path_str(ctr, "name"));
                }
            }
        }
        th_strv_sort(&who);
        if (who.n) {
            th_autofree char *list = th_strv_join(&who, ",");
            th_buf_printf(&b, "%s%s for: %s", b.n ? "; " : "", names[i], list);
        }
    }
    return b.n ? th_xstrdup(th_buf_cstr(&b)) : NULL;
}

/* What the write adds under the names that the quota limits. */
static void delta_for(const struct claim *x, const struct th_json *quota, struct th_amounts *ret)
{
    const char *group = x->c->res->group, *plural = x->c->res->plural;
    bool now = th_quota_covers(quota, group, plural, x->obj);
    bool before = x->old && th_quota_covers(quota, group, plural, x->old);
    struct th_json_iter it = TH_JSON_ITER(th_json_path(quota, "spec.hard"));
    while (th_json_next(&it)) {
        int64_t d = (now ? th_amounts_get(&x->now, it.name) : 0) -
                    (before ? th_amounts_get(&x->before, it.name) : 0);
        if (d > 0) {
            struct th_amount one = {(char *)(uintptr_t)it.name, d};
            struct th_amounts list = {&one, 1};
            th_amounts_add(ret, &list, 1);
        }
    }
}

/* 1: status.used of the quota (changed in place) has to be stored. */
static int take(const struct claim *x, struct th_json *quota, struct th_err *err)
{
    struct th_amounts delta TH_CLEANUP(th_amounts_done) = {NULL, 0};
    struct th_strv over TH_CLEANUP(th_strv_done) = TH_STRV_INIT;
    const char *name = th_json_path_str(x->obj, "metadata.name");
    const char *quota_name = th_json_path_str(quota, "metadata.name");
    bool pod = !*x->c->res->group && th_streq(x->c->res->plural, "pods");
    th_autofree char *unsaid =
        pod && (!x->old || x->c->ctx.subresource) && th_quota_covers(quota, "", "pods", x->obj) ? missing(quota, x->obj) : NULL;
    if (unsaid) {
        return th_fail_forbidden(err, x->c->res, name, "failed quota: %s: must specify %s",
                                 quota_name, unsaid);
    }
    delta_for(x, quota, &delta);
    for (size_t i = 0; i < delta.n; i++) {
        const char *n = delta.v[i].name;
        const char *limit = th_json_str(th_json_get(th_json_path(quota, "spec.hard"), n));
        const char *used = th_json_str(th_json_get(th_json_path(quota, "status.used"), n));
        int64_t sum = th_quota_amount(n, used) + delta.v[i].value;
        if (sum > th_quota_amount(n, limit)) {
            th_strv_add(&over, n);
        }
    }
    if (over.n) {
        th_strv_sort(&over);
        th_autofree char *asked = map_text(&over, quota, NULL, &delta);
        th_autofree char *used = map_text(&over, quota, "status.used", NULL);
        th_autofree char *limit = map_text(&over, quota, "spec.hard", NULL);
        return th_fail_forbidden(err, x->c->res, name,
                                 "exceeded quota: %s, requested: %s, used: %s, limited: %s",
                                 quota_name, asked, used, limit);
    }
    for (size_t i = 0; i < delta.n; i++) {
        const char *n = delta.v[i].name;
        struct th_json *used = th_json_path_object(quota, "status.used");
        int64_t sum = th_quota_amount(n, th_json_str(th_json_get(used, n))) + delta.v[i].value;
        char text[TH_QUANTITY_LEN];
        th_json_set_str(used, n, th_quantity_format(th_quota_quantity(n, sum), text));
    }
    return delta.n > 0;
}

static int charge(const struct claim *x, const char *name, struct th_err *err)
{
    const char *ns = x->c->route.ns;
    for (int i = 0; i < TRIES; i++) {
        TH_AUTO(th_json) struct th_json *quota = NULL;
        int r = th_client_get(x->c->ctx.client, GVR_QUOTAS, ns, name, &quota, err);
        if (r >= 0) {
            r = take(x, quota, err);
            if (r <= 0 || x->c->ctx.dry_run) {
                return r < 0 ? r : 0;
            }
            r = th_client_update(x->c->ctx.client, GVR_QUOTAS, ns, name, "status", quota, NULL,
                                 err);
        }
        if (r == -TH_R_NOT_FOUND) {
            th_err_done(err);
            return 0;
        }
        if (r != -TH_R_CONFLICT) {
            return r < 0 ? r : 0;
        }
        th_err_done(err);
    }
    return th_fail(err, TH_R_CONFLICT, "quota %s is being changed by others", name);
}

/* Parts of objects that change what they use: a pod's amounts, a claim's size and class. */
static bool counts(const struct th_call *c)
{
    const char *sub = c->ctx.subresource;
    return !sub || !*sub ||
           (!*c->res->group && ((th_streq(c->res->plural, "pods") && th_streq(sub, "resize")) ||
                                (th_streq(c->res->plural, "persistentvolumeclaims") &&
                                 th_streq(sub, "status"))));
}

static int validate(struct th_call *c, const struct th_json *obj, const struct th_json *old,
                    struct th_err *err)
{
    bool quota = !*c->res->group && th_streq(c->res->plural, "resourcequotas");
    if (!c->res->namespaced || !c->route.ns || !counts(c) || (quota && old)) {
        return 0;
    }
    th_autofree char *prefix = th_xasprintf("core/resourcequotas/%s/", c->route.ns);
    TH_CLEANUP(th_store_list_done) struct th_store_list l = {.n = 0};
    TH_TRY(th_store_range(c->api->store, prefix, NULL, 0, 0, &l, err));
    if (l.n == 0) {
        return 0;
    }
    struct claim x = {.c = c, .obj = obj, .old = old};
    th_quota_usage(c->res->group, c->res->plural, obj, &x.now);
    if (old) {
        th_quota_usage(c->res->group, c->res->plural, old, &x.before);
    }
    int r = 0;
    for (size_t i = 0; i < l.n && r >= 0; i++) {
        TH_AUTO(th_json) struct th_json *q = NULL;
        if (th_json_parse(l.objs[i]->bytes, l.objs[i]->n, NULL, &q, NULL) == 0) {
            r = charge(&x, th_json_path_str(q, "metadata.name"), err);
        }
    }
    th_amounts_done(&x.now);
    th_amounts_done(&x.before);
    return r;
}

const struct th_admission_plugin th_admission_resource_quota = {.name = "ResourceQuota",
                                                                .validate = validate};
