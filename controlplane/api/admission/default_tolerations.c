/* DefaultTolerationSeconds: a pod stays five minutes on a node that is not ready or not reachable,
 * unless it says otherwise. */
#include "controlplane/api/admission/admission.h"

#define SECONDS 300

static bool tolerates(const struct th_json *list, const char *key)
{
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *t = th_json_at(list, i);
        const char *k = th_json_str(th_json_get(t, "key"));
        const char *effect = th_json_str(th_json_get(t, "effect"));
        bool all = (!k || !*k) && th_streq(th_json_str(th_json_get(t, "operator")), "Exists");
        if ((th_streq(k, key) || all) &&
            (!effect || !*effect || th_streq(effect, "NoExecute"))) {
            return true;
        }
    }
    return false;
}

static int mutate(struct th_call *c, struct th_json *obj, const struct th_json *old,
                  struct th_err *err)
{
    (void)old;
    (void)err;
    /* updates too: they may not take these tolerations away, and most clients do not know of them */
    if (!th_admission_writes(c, "", "pods")) {
        return 0;
    }
    static const char *const keys[] = {"node.kubernetes.io/not-ready",
                                       "node.kubernetes.io/unreachable"};
    for (size_t i = 0; i < TH_ARRAY_LEN(keys); i++) {
        if (!tolerates(th_json_path(obj, "spec.tolerations"), keys[i])) {
            th_json_append(th_json_path_array(obj, "spec.tolerations"),
                           th_json_build("{'key':%s,'operator':'Exists','effect':'NoExecute',"
                                         "'tolerationSeconds':%d}",
                                         keys[i], (int64_t)SECONDS));
        }
    }
    return 0;
}

const struct th_admission_plugin th_admission_default_tolerations = {
    .name = "DefaultTolerationSeconds", .mutate = mutate};
