/* The two kinds that ask who somebody is: TokenReview about a token, SelfSubjectReview about whoever
 * sends it. Answered, never stored. */
#include "base/clock.h"
#include "controlplane/resources/rows.h"

#define GROUP "authentication.k8s.io"
#define MAX_AUDIENCES 64

int th_review_token(const struct th_req_ctx *c, const char *ns, const struct th_json *obj,
                        struct th_json **ret, struct th_err *err)
{
    (void)ns;
    const char *token = th_json_path_str(obj, "spec.token");
    const struct th_json *list = th_json_path(obj, "spec.audiences");
    if (!token || !*token) {
        return th_fail(err, TH_R_BAD_REQUEST, "token is required for TokenReview in authentication");
    }
    if (th_json_len(list) > MAX_AUDIENCES) {
        return th_fail(err, TH_R_BAD_REQUEST, "at most %d audiences may be asked for", MAX_AUDIENCES);
    }
    const char *wanted[MAX_AUDIENCES + 1] = {NULL};
    for (size_t i = 0; i < th_json_len(list); i++) {
        const char *a = th_json_str(th_json_at(list, i));
        wanted[i] = a ? a : "";
    }
    TH_AUTO(th_identity) struct th_identity *id = NULL;
    th_autostrv struct th_strv matched = TH_STRV_INIT;
    TH_AUTO_ERR struct th_err why = TH_ERR_INIT;
    struct th_json *status = th_json_object();
    if (c->access->token(c->access->self, token, wanted, &id, &matched, &why) >= 0) {
        th_json_set_bool(status, "authenticated", true);
        th_json_set(status, "user", th_identity_json(id));
        for (size_t i = 0; i < matched.n; i++) {
            th_json_append_str(th_json_path_array(status, "audiences"), matched.v[i]);
        }
    } else {
        th_json_set(status, "user", th_json_object());
        th_json_set_str(status, "error", why.msg);
    }
    *ret = th_json_dup(obj);
    th_json_set(*ret, "status", status);
    return 0;
}

int th_review_self(const struct th_req_ctx *c, const char *ns, const struct th_json *obj,
                       struct th_json **ret, struct th_err *err)
{
    (void)ns;
    (void)obj;
    (void)err;
    char now[TH_TIME_LEN];
    *ret = th_json_build("{'kind':'SelfSubjectReview','apiVersion':'" GROUP "/v1','metadata':"
                         "{'creationTimestamp':%s},'status':{'userInfo':%o}}",
                         th_time_format(c->now_ms, now), th_identity_json(c->id));
    return 0;
}
