/* TaintNodesByCondition: a node begins with the taint not-ready, so that no pod comes before the node
 * life cycle controller has seen its conditions. */
#include "controlplane/api/admission/admission.h"

static int mutate(struct th_call *c, struct th_json *obj, const struct th_json *old,
                  struct th_err *err)
{
    (void)err;
    static const char *const key = "node.kubernetes.io/not-ready";
    if (!th_admission_creates(c, "", "nodes", old)) {
        return 0;
    }
    struct th_json *taints = th_json_path_array(obj, "spec.taints");
    for (size_t i = 0; i < th_json_len(taints); i++) {
        const struct th_json *t = th_json_at(taints, i);
        if (th_streq(th_json_path_str(t, "key"), key) &&
            th_streq(th_json_path_str(t, "effect"), "NoSchedule")) {
            return 0;
        }
    }
    th_json_append(taints, th_json_build("{'key':%s,'effect':'NoSchedule'}", key));
    return 0;
}

const struct th_admission_plugin th_admission_node_taint = {.name = "TaintNodesByCondition",
                                                            .mutate = mutate};
