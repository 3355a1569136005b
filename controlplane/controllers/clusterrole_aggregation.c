/* ClusterRole aggregation: a role with an aggregationRule has the rules of all roles that its label
 * selectors choose, by name, each rule once. That is how admin, edit and view grow when a custom
 * resource brings roles of its own. Whatever somebody wrote into its rules is replaced, as upstream.
 *
 * Any change of any ClusterRole may concern any aggregated one, so there is one key, for all of
 * them: they are a handful, and a burst of changes is one reconcile. A role that gathers from another
 * aggregated one (admin from edit from view) follows when that one's change comes back. */
#include "controlplane/controllers/controller.h"
#include "controlplane/schema/selector.h"

#define KEY "all"

static const struct th_gvr gvr = {"rbac.authorization.k8s.io", "v1", "clusterroles"};

static void on_role(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    (void)old;
    (void)now;
    th_ctrl_enqueue(c, KEY);
}

static bool collect(void *arg, struct th_json *obj)
{
    th_json_append(arg, th_json_ref(obj));
    return true;
}

static int by_name(const struct th_json *a, const struct th_json *b)
{
    return strcmp(th_json_path_str(a, "metadata.name"), th_json_path_str(b, "metadata.name"));
}

static void add_new(struct th_json *rules, const struct th_json *from)
{
    for (size_t i = 0; i < th_json_len(from); i++) {
        bool there = false;
        for (size_t k = 0; k < th_json_len(rules) && !there; k++) {
            there = th_json_equal(th_json_at(rules, k), th_json_at(from, i));
        }
        if (!there) {
            th_json_append(rules, th_json_dup(th_json_at(from, i)));
        }
    }
}

static int aggregate(struct th_ctrl *c, const struct th_json *role, const struct th_json *all,
                     struct th_err *err)
{
    const char *name = th_json_path_str(role, "metadata.name");
    const struct th_json *selectors = th_json_path(role, "aggregationRule.clusterRoleSelectors");
    TH_AUTO(th_json) struct th_json *rules = th_json_array();
    for (size_t i = 0; i < th_json_len(selectors); i++) {
        TH_AUTO(th_selector) struct th_selector *s = NULL;
        TH_TRY(th_selector_from_json(th_json_at(selectors, i), &s, err));
        for (size_t k = 0; k < th_json_len(all); k++) {
            const struct th_json *other = th_json_at(all, k);
            if (!th_streq(th_json_path_str(other, "metadata.name"), name) &&
                th_selector_matches(s, th_json_path(other, "metadata.labels"))) {
                add_new(rules, th_json_get(other, "rules"));
            }
        }
    }
    const struct th_json *have = th_json_get(role, "rules");
    if (th_json_equal(have, rules) || (th_json_len(have) == 0 && th_json_len(rules) == 0)) {
        return 0;
    }
    TH_AUTO(th_json) struct th_json *wanted = th_json_build(
        "{'apiVersion':'rbac.authorization.k8s.io/v1','kind':'ClusterRole','metadata':{'name':%s},"
        "'rules':%o}",
        name, th_json_ref(rules));
    struct th_patch_opts o = {.kind = TH_PATCH_APPLY,
                              .field_manager = "clusterrole-aggregation-controller",
                              .force = true};
    int r = th_client_patch(th_ctrl_client(c), gvr, NULL, name, "", &o, wanted, NULL, err);
    return r < 0 ? th_wrap(err, "aggregating %s", name) : 0;
}

static int reconcile(struct th_ctrl *c, const char *key, int64_t *ret_after_ms, struct th_err *err)
{
    (void)key;
    (void)ret_after_ms;
    TH_AUTO(th_json) struct th_json *all = th_json_array();
    th_informer_each(th_ctrl_informer(c, gvr), NULL, collect, all);
    th_json_sort(all, by_name);
    for (size_t i = 0; i < th_json_len(all); i++) {
        const struct th_json *role = th_json_at(all, i);
        if (th_json_get(role, "aggregationRule")) {
            TH_TRY(aggregate(c, role, all, err));
        }
    }
    return 0;
}

static const struct th_ctrl_watch watches[] = {
    {.gvr = {"rbac.authorization.k8s.io", "v1", "clusterroles"}, .on_event = on_role},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_clusterrole_aggregation = {
    .name = "clusterrole-aggregation-controller",
    .account = "clusterrole-aggregation-controller",
    .watches = watches,
    .reconcile = reconcile,
};
