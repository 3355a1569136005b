/* ServiceAccount, and the tokens that are asked for it. */
#include "controlplane/resources/rows.h"
#include "controlplane/resources/cluster.h"
#include "controlplane/resources/token.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/rand.h"

#define TTL_DEFAULT_S 3600
#define TTL_MIN_S 600
#define TTL_MAX_S (1ll << 32)
#define MAX_AUDIENCES 16

/* The object a token is to be bound to must exist, with the uid that is named. */
static int check_bound(const struct th_req_ctx *c, const char *ns, const struct th_json *ref,
                       struct th_token_req *req, struct th_json **ret, struct th_err *err)
{
    const char *kind = th_json_path_str(ref, "kind"), *name = th_json_path_str(ref, "name");
    const char *uid = th_json_path_str(ref, "uid");
    struct th_gvr gvr = th_streq(kind, "Pod")    ? TH_GVR_PODS
                        : th_streq(kind, "Node") ? TH_GVR_NODES
                                                 : TH_GVR_SECRETS;
    if (!th_streq(kind, "Pod") && !th_streq(kind, "Secret") && !th_streq(kind, "Node")) {
        return th_fail(err, TH_R_BAD_REQUEST, "cannot bind token to object of type %s",
                       kind ? kind : "");
    }
    TH_TRY(th_client_get(c->client, gvr, th_streq(kind, "Node") ? NULL : ns, name, ret, err));
    const char *real = th_json_path_str(*ret, "metadata.uid");
    if (uid && *uid && !th_streq(uid, real)) {
        return th_fail(
            err, TH_R_CONFLICT,
            "the UID in the bound object reference (%s) does not match the UID in record. The "
            "object might have been deleted and then recreated",
            uid);
    }
    req->bound_kind = kind;
    req->bound_name = name;
    req->bound_uid = real;
    if (th_streq(kind, "Pod")) {
        req->node_name = th_json_path_str(*ret, "spec.nodeName");
    }
    return 0;
}

int th_serviceaccount_token(const struct th_req_ctx *c, const char *ns, const char *name,
                        const struct th_json *body, struct th_json **ret, struct th_err *err)
{
    const struct th_cluster *cluster = c->cluster;
    struct th_json *sa TH_AUTO(th_json) = NULL;
    struct th_json *bound TH_AUTO(th_json) = NULL;
    TH_TRY(th_client_get(c->client, TH_GVR_SERVICEACCOUNTS, ns, name, &sa, err));
    int64_t ttl = th_json_path_int(body, "spec.expirationSeconds", TTL_DEFAULT_S);
    if (ttl < TTL_MIN_S || ttl > TTL_MAX_S) {
        return th_fail(err, TH_R_INVALID,
                       "TokenRequest.authentication.k8s.io \"%s\" is invalid: "
                       "spec.expirationSeconds: Invalid value: %lld: may not specify a "
                       "duration %s",
                       name, (long long)ttl,
                       ttl < TTL_MIN_S ? "less than 10 minutes" : "larger than 2^32 seconds");
    }
    const char *audiences[MAX_AUDIENCES + 1] = {NULL};
    const struct th_json *list = th_json_path(body, "spec.audiences");
    for (size_t i = 0; i < th_json_len(list) && i < MAX_AUDIENCES; i++) {
        audiences[i] = th_json_str(th_json_at(list, i));
    }
    struct th_token_req req = {.issuer = cluster->sa_issuer,
                               .audiences = audiences,
                               .ns = ns,
                               .sa_name = name,
                               .sa_uid = th_json_path_str(sa, "metadata.uid"),
                               .now_ms = c->now_ms,
                               .ttl_s = ttl};
    const struct th_json *ref = th_json_path(body, "spec.boundObjectRef");
    if (ref) {
        TH_TRY(check_bound(c, ns, ref, &req, &bound, err));
    }
    th_autofree char *token = NULL;
    TH_TRY(th_token_issue(cluster->sa_key_pem, &req, &token, err));
    char until[TH_TIME_LEN], now[TH_TIME_LEN];
    struct th_json *out = th_json_dup(body);
    th_json_set_str(out, "apiVersion", "authentication.k8s.io/v1");
    th_json_set_str(out, "kind", "TokenRequest");
    th_json_set(out, "metadata",
                th_json_build("{'name':%s,'namespace':%s,'creationTimestamp':%s}", name, ns,
                              th_time_format(c->now_ms, now)));
    if (th_json_len(list) == 0) {
        struct th_json *own = th_json_array();
        th_json_append_str(own, cluster->sa_issuer);
        th_json_path_set(out, "spec.audiences", own);
    }
    th_json_path_set_int(out, "spec.expirationSeconds", ttl);
    th_json_set(out, "status",
                th_json_build("{'token':%s,'expirationTimestamp':%s}", token,
                              th_time_format(c->now_ms + ttl * 1000, until)));
    *ret = out;
    return 0;
}
