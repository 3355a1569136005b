/* Taints and tolerations; see toleration.h. */
#include "controlplane/schema/toleration.h"

static bool same_or_any(const char *wanted, const char *value)
{
    return !wanted || !*wanted || th_streq(wanted, value);
}

bool th_toleration_covers(const struct th_json *t, const struct th_json *taint)
{
    const char *key = th_json_path_str(t, "key");
    const char *op = th_json_path_str(t, "operator");
    if (!same_or_any(th_json_path_str(t, "effect"), th_json_path_str(taint, "effect")) ||
        !same_or_any(key, th_json_path_str(taint, "key"))) {
        return false;
    }
    if (th_streq(op, "Exists")) {
        return true;
    }
    const char *a = th_json_path_str(t, "value"), *b = th_json_path_str(taint, "value");
    return key && *key && (!op || !*op || th_streq(op, "Equal")) &&
           th_streq(a ? a : "", b ? b : "");
}

bool th_tolerates(const struct th_json *tolerations, const struct th_json *taint)
{
    for (size_t i = 0; i < th_json_len(tolerations); i++) {
        if (th_toleration_covers(th_json_at(tolerations, i), taint)) {
            return true;
        }
    }
    return false;
}

bool th_tolerates_execution(const struct th_json *tolerations, const struct th_json *taints,
                            int64_t *ret_s)
{
    int64_t least = -1;
    for (size_t i = 0; i < th_json_len(taints); i++) {
        const struct th_json *taint = th_json_at(taints, i);
        bool covered = false;
        if (!th_streq(th_json_path_str(taint, "effect"), "NoExecute")) {
            continue;
        }
        for (size_t k = 0; k < th_json_len(tolerations); k++) {
            const struct th_json *t = th_json_at(tolerations, k);
            if (th_toleration_covers(t, taint)) {
                int64_t s = th_json_path_int(t, "tolerationSeconds", -1);
                bool limited = th_json_get(t, "tolerationSeconds") != NULL;
                s = limited && s < 0 ? 0 : s;
                least = limited && (least < 0 || s < least) ? s : least;
                covered = true;
                break; /* the first that covers it is the one in play */
            }
        }
        if (!covered) {
            *ret_s = 0;
            return false;
        }
    }
    *ret_s = least;
    return true;
}
