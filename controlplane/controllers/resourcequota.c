/*
 * ResourceQuota: status.hard is the spec's, status.used what is there now.
 *
 * The admission plugin raises status.used before a write is accepted; here it is computed anew when
 * the spec changes, when something that counts goes or ends, and every RESYNC_MS. A new quota is
 * looked at a second time soon: the caches may be a little behind what was there when it came.
 * Objects of which only the number counts are counted in the runtime's caches of everything.
 */
#include "controlplane/controllers/controller.h"
#include "controlplane/controllers/podutil.h"
#include "base/buf.h"
#include "controlplane/schema/quota.h"

#define GVR_QUOTAS ((struct th_gvr){"", "v1", "resourcequotas"})
#define GVR_CLAIMS ((struct th_gvr){"", "v1", "persistentvolumeclaims"})
#define GVR_DEVICES ((struct th_gvr){"resource.k8s.io", "v1", "resourceclaims"})
#define RESYNC_MS 300000
#define SECOND_LOOK_MS 1000

static bool enqueue(void *arg, struct th_json *quota)
{
    th_ctrl_enqueue_obj(arg, quota);
    return true;
}

static void on_quota(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    if (now && (!old || !th_json_equal(th_json_get(old, "spec"), th_json_get(now, "spec")))) {
        th_ctrl_enqueue_obj(c, now);
    }
}

static void on_any(struct th_ctrl *c, const struct th_rl_item *r, const struct th_json *old,
                   const struct th_json *now)
{
    const char *ns = th_json_path_str(now ? now : old, "metadata.namespace");
    bool ended = old && now && !*r->group && th_streq(r->plural, "pods") &&
                 (!th_streq(th_json_path_str(old, "status.phase"),
                            th_json_path_str(now, "status.phase")) ||
                  th_json_path_int(old, "metadata.generation", 0) !=
                      th_json_path_int(now, "metadata.generation", 0)); /* resized, or given a deadline */
    bool changed = old && now && !*r->group &&
                   (th_streq(r->plural, "services") ||
                    th_streq(r->plural, "persistentvolumeclaims"));
    if (ns && (!now || ended || changed)) {
        th_informer_each(th_ctrl_informer(c, GVR_QUOTAS), ns, enqueue, c);
    }
}

struct sum {
    const struct th_json *quota;
    struct th_gvr gvr;
    struct th_amounts *used;
};

static bool add_usage(void *arg, struct th_json *obj)
{
    struct sum *s = arg;
    if (th_quota_covers(s->quota, s->gvr.group, s->gvr.plural, obj)) {
        struct th_amounts one TH_CLEANUP(th_amounts_done) = {NULL, 0};
        th_quota_usage(s->gvr.group, s->gvr.plural, obj, &one);
        th_amounts_add(s->used, &one, 1);
    }
    return true;
}

/* "count/deployments.apps" or a core resource of which the number is limited. */
static int64_t count_of(struct th_ctrl *c, const char *ns, const char *name)
{
    const char *resource = th_startswith(name, "count/") ? name + 6 : name;
    const char *dot = strchr(resource, '.');
    th_autofree char *plural = th_xstrndup(resource, dot ? (size_t)(dot - resource)
                                                         : strlen(resource));
    return (int64_t)th_ctrl_count_objects(c, dot ? dot + 1 : "", plural, ns);
}

static struct th_json *used_of(struct th_ctrl *c, const struct th_json *quota)
{
    const char *ns = th_json_path_str(quota, "metadata.namespace");
    const struct th_gvr gvrs[] = {TH_GVR_PODS, TH_GVR_SERVICES, GVR_CLAIMS, GVR_DEVICES};
    struct th_amounts sum TH_CLEANUP(th_amounts_done) = {NULL, 0};
    for (size_t i = 0; i < TH_ARRAY_LEN(gvrs); i++) {
        struct sum s = {quota, gvrs[i], &sum};
        th_informer_each(th_ctrl_informer(c, gvrs[i]), ns, add_usage, &s);
    }
    struct th_json *used = th_json_object();
    bool scoped = th_json_len(th_json_path(quota, "spec.scopes")) ||
                  th_json_path(quota, "spec.scopeSelector");
    struct th_json_iter it = TH_JSON_ITER(th_json_path(quota, "spec.hard"));
    while (th_json_next(&it)) {
        static const char *const counted[] = {"configmaps", "replicationcontrollers",
                                              "resourcequotas", "secrets"};
        bool count = th_startswith(it.name, "count/");
        for (size_t i = 0; i < TH_ARRAY_LEN(counted); i++) {
            count = count || th_streq(it.name, counted[i]);
        }
        int64_t amount = count && !scoped ? count_of(c, ns, it.name)
                                          : th_amounts_get(&sum, it.name);
        char text[TH_QUANTITY_LEN];
        th_json_set_str(used, it.name,
                        th_quantity_format(th_quota_quantity(it.name, amount), text));
    }
    return used;
}

static int reconcile(struct th_ctrl *c, const char *key, int64_t *ret_after_ms, struct th_err *err)
{
    const char *name = NULL;
    th_autofree char *ns = th_ctrl_key_split(key, &name);
    struct th_json *quota TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, GVR_QUOTAS), ns, name);
    if (!quota) {
        return 0;
    }
    bool first = !th_json_path(quota, "status.used");
    struct th_json *status TH_AUTO(th_json) = th_json_object();
    th_json_set(status, "hard", th_json_dup(th_json_path(quota, "spec.hard")));
    th_json_set(status, "used", used_of(c, quota));
    *ret_after_ms = first ? SECOND_LOOK_MS : RESYNC_MS;
    return th_ctrl_write_status(c, key, GVR_QUOTAS, quota, status, err);
}

static const struct th_ctrl_watch watches[] = {
    {.gvr = {"", "v1", "resourcequotas"}, .on_event = on_quota},
    {.gvr = {"", "v1", "pods"}},
    {.gvr = {"", "v1", "services"}},
    {.gvr = {"", "v1", "persistentvolumeclaims"}},
    {.gvr = {"resource.k8s.io", "v1", "resourceclaims"}},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_resourcequota = {
    .name = "resourcequota-controller",
    .account = "resourcequota-controller",
    .watches = watches,
    .reconcile = reconcile,
    .on_any = on_any,
};
