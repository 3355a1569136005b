/*
 * TaintToleration: NoSchedule and NoExecute taints keep pods away that do not tolerate them;
 * PreferNoSchedule ones count against a node.
 */
#include "controlplane/scheduler/plugin.h"
#include "controlplane/scheduler/toleration.h"

bool th_tolerates(const struct th_json *tolerations, const struct th_json *taint)
{
    const char *key = th_json_path_str(taint, "key");
    const char *value = th_json_path_str(taint, "value");
    const char *effect = th_json_path_str(taint, "effect");
    for (size_t i = 0; i < th_json_len(tolerations); i++) {
        const struct th_json *t = th_json_at(tolerations, i);
        const char *t_effect = th_json_path_str(t, "effect");
        const char *t_key = th_json_path_str(t, "key");
        const char *t_value = th_json_path_str(t, "value");
        const char *op = th_json_path_str(t, "operator");
        if (t_effect && *t_effect && !th_streq(t_effect, effect)) {
            continue;
        }
        if (t_key && *t_key && !th_streq(t_key, key)) {
            continue;
        }
        if (th_streq(op, "Exists")) {
            return true;
        }
        if (t_key && *t_key && th_streq(t_value ? t_value : "", value ? value : "")) {
            return true;
        }
    }
    return false;
}

static const char *filter(const struct th_sched_ctx *c, const struct th_node_info *n, char *buf,
                          char **ret_more)
{
    (void)buf;
    (void)ret_more;
    const struct th_json *taints = th_json_path(n->obj, "spec.taints");
    const struct th_json *tolerations = th_json_path(c->pod, "spec.tolerations");
    for (size_t i = 0; i < th_json_len(taints); i++) {
        const struct th_json *taint = th_json_at(taints, i);
        if (!th_streq(th_json_path_str(taint, "effect"), "PreferNoSchedule") &&
            !th_tolerates(tolerations, taint)) {
            return "node(s) had untolerated taint(s)";
        }
    }
    return NULL;
}

static int64_t score(const struct th_sched_ctx *c, const struct th_node_info *n)
{
    const struct th_json *taints = th_json_path(n->obj, "spec.taints");
    const struct th_json *tolerations = th_json_path(c->pod, "spec.tolerations");
    int64_t intolerable = 0;
    for (size_t i = 0; i < th_json_len(taints); i++) {
        const struct th_json *taint = th_json_at(taints, i);
        intolerable += th_streq(th_json_path_str(taint, "effect"), "PreferNoSchedule") &&
                       !th_tolerates(tolerations, taint);
    }
    return intolerable;
}

const struct th_sched_plugin th_sched_taint_toleration = {
    .name = "TaintToleration",
    .filter = filter,
    .score = score,
    .weight = 3,
    .score_is_reverse = true,
};
