/* The tokens that are asked for a ServiceAccount: the subresource token, TokenRequest in and out.
 *
 * A token for the API server that the node asks for a pod (3607 seconds, what the admission plugin
 * writes into every pod) is made to live a year, with the moment from which its use is stale noted
 * inside: upstream's way of not breaking clients that read their token once. The answer's expiry is
 * the one that was asked for, so whoever renews by it renews hourly. */
#include "controlplane/resources/rows.h"

#include "base/clock.h"
#include "controlplane/resources/cluster.h"
#include "controlplane/resources/token.h"
#include "controlplane/schema/validate.h"

#define GROUP "authentication.k8s.io"
#define TTL_DEFAULT_S 3600
#define TTL_MIN_S 600
#define TTL_MAX_S (1ll << 32)
#define TTL_WARN_ONLY_S 3607
#define TTL_EXTENDED_S (365ll * 24 * 3600)
#define MAX_AUDIENCES 64

static int conflict(struct th_err *err, const char *group, const char *kind, const char *name,
                    const char *why)
{
    int r = th_fail(err, TH_R_CONFLICT, "Operation cannot be fulfilled on %s%s%s \"%s\": %s", kind,
                    *group ? "." : "", group, name, why);
    th_err_set_object(err, group, kind, name);
    return r;
}

/* The object a token is to be bound to must exist, with the uid that is named; a pod must run as
 * the account. *node is the node of a bound pod, when it is there. */
static int check_bound(const struct th_req_ctx *c, const char *ns, const struct th_json *ref,
                       struct th_token_req *req, struct th_json **bound, struct th_json **node,
                       struct th_err *err)
{
    const char *kind = th_json_path_str(ref, "kind");
    const char *name = th_json_path_str(ref, "name");
    const char *uid = th_json_path_str(ref, "uid");
    const char *version = th_json_path_str(ref, "apiVersion");
    bool pod = th_streq(kind, "Pod");
    bool is_node = th_streq(kind, "Node");
    bool core = !version || !strchr(version, '/');
    if (!core || (!pod && !is_node && !th_streq(kind, "Secret"))) {
        th_autofree char *gv = th_xstrdup(version ? version : "");
        return th_fail(err, TH_R_BAD_REQUEST, "cannot bind token to object of type %s%s, Kind=%s",
                       core ? "/" : "", gv, kind ? kind : "");
    }
    struct th_gvr gvr = pod ? TH_GVR_PODS : is_node ? TH_GVR_NODES : TH_GVR_SECRETS;
    TH_TRY(th_client_get(c->client, gvr, is_node ? NULL : ns, name ? name : "", bound, err));
    if (pod && !th_streq(th_json_path_str(*bound, "spec.serviceAccountName"), req->sa_name)) {
        return th_fail(err, TH_R_BAD_REQUEST,
                       "cannot bind token for serviceaccount \"%s\" to pod running with different "
                       "serviceaccount name.",
                       req->sa_name);
    }
    const char *real = th_json_path_str(*bound, "metadata.uid");
    if (uid && *uid && !th_streq(uid, real)) {
        th_autofree char *why =
            th_xasprintf("the UID in the bound object reference (%s) does not match the UID in "
                         "record. The object might have been deleted and then recreated",
                         uid);
        return conflict(err, "", kind, name, why);
    }
    req->bound_kind = kind;
    req->bound_name = name;
    req->bound_uid = real;
    req->node_name = pod ? th_json_path_str(*bound, "spec.nodeName") : NULL;
    if (req->node_name && th_client_get(c->client, TH_GVR_NODES, NULL, req->node_name, node, NULL) >= 0) {
        req->node_uid = th_json_path_str(*node, "metadata.uid");
    }
    return 0;
}

static int invalid(struct th_err *causes, const char *name, struct th_err *err)
{
    int r = th_invalid_finish(causes, GROUP, "TokenRequest", name);
    if (r < 0 && err) {
        th_err_move(err, causes);
    }
    return r;
}

/* What the body says of itself must fit the URL. */
static int check_meta(const struct th_json *body, const char *ns, const char *name,
                      const char *sa_uid, struct th_err *err)
{
    TH_AUTO_ERR struct th_err causes = TH_ERR_INIT;
    const char *in_body = th_json_path_str(body, "metadata.name");
    if (in_body && *in_body && !th_streq(in_body, name)) {
        th_invalid_str(&causes, "metadata.name", in_body,
                       "must match the service account name if specified");
    }
    in_body = th_json_path_str(body, "metadata.namespace");
    if (in_body && *in_body && !th_streq(in_body, ns)) {
        th_invalid_str(&causes, "metadata.namespace", in_body,
                       "must match the service account namespace if specified");
    }
    TH_TRY(invalid(&causes, name, err));
    const char *uid = th_json_path_str(body, "metadata.uid");
    if (uid && *uid && !th_streq(uid, sa_uid)) {
        th_autofree char *why =
            th_xasprintf("the UID in the token request (%s) does not match the UID of the service "
                         "account (%s)",
                         uid, sa_uid);
        return conflict(err, GROUP, "TokenRequest", name, why);
    }
    return 0;
}

static int check_spec(const struct th_json *body, int64_t ttl, struct th_err *err)
{
    TH_AUTO_ERR struct th_err causes = TH_ERR_INIT;
    if (ttl < TTL_MIN_S) {
        th_invalid_int(&causes, "spec.expirationSeconds", ttl,
                       "may not specify a duration less than 10 minutes");
    }
    if (ttl > TTL_MAX_S) {
        th_invalid_int(&causes, "spec.expirationSeconds", ttl,
                       "may not specify a duration larger than 2^32 seconds");
    }
    size_t n = th_json_len(th_json_path(body, "spec.audiences"));
    if (n > MAX_AUDIENCES) {
        th_invalid_too_many(&causes, "spec.audiences", n, MAX_AUDIENCES);
    }
    return invalid(&causes, "", err);
}

static struct th_json *answer(const struct th_req_ctx *c, const struct th_json *body,
                              const struct th_token_req *req, int64_t ttl, const char *token)
{
    char until[TH_TIME_LEN];
    char now[TH_TIME_LEN];
    struct th_json *out = th_json_dup(body);
    th_json_set_str(out, "apiVersion", GROUP "/v1");
    th_json_set_str(out, "kind", "TokenRequest");
    struct th_json *meta = th_json_path_object(out, "metadata");
    th_json_set_str(meta, "name", req->sa_name);
    th_json_set_str(meta, "namespace", req->ns);
    th_json_set_str(meta, "uid", req->sa_uid);
    th_json_set_str(meta, "creationTimestamp", th_time_format(c->now_ms, now));
    struct th_json *audiences = th_json_array();
    for (const char *const *a = req->audiences; *a; a++) {
        th_json_append_str(audiences, *a);
    }
    th_json_path_set(out, "spec.audiences", audiences);
    th_json_path_set_int(out, "spec.expirationSeconds", ttl);
    th_json_set(out, "status",
                th_json_build("{'token':%s,'expirationTimestamp':%s}", token,
                              th_time_format(c->now_ms + ttl * 1000, until)));
    return out;
}

int th_serviceaccount_token(const struct th_req_ctx *c, const char *ns, const char *name,
                            const struct th_json *body, struct th_json **ret, struct th_err *err)
{
    const struct th_cluster *cluster = c->cluster;
    TH_AUTO(th_json) struct th_json *sa = NULL;
    TH_AUTO(th_json) struct th_json *bound = NULL;
    TH_AUTO(th_json) struct th_json *node = NULL;
    TH_TRY(th_client_get(c->client, TH_GVR_SERVICEACCOUNTS, ns, name, &sa, err));
    const char *uid = th_json_path_str(sa, "metadata.uid");
    TH_TRY(check_meta(body, ns, name, uid, err));
    int64_t ttl = th_json_path_int(body, "spec.expirationSeconds", TTL_DEFAULT_S);
    TH_TRY(check_spec(body, ttl, err));
    if (!cluster->sa_key_pem) {
        return th_fail(err, TH_R_NOT_FOUND, "the server could not find the requested resource");
    }
    const char *audiences[MAX_AUDIENCES + 1] = {NULL};
    const struct th_json *list = th_json_path(body, "spec.audiences");
    bool own = true;
    for (size_t i = 0; i < th_json_len(list); i++) {
        const char *a = th_json_str(th_json_at(list, i));
        audiences[i] = a ? a : "";
        own = own && th_streq(a, cluster->sa_issuer);
    }
    if (!audiences[0]) {
        audiences[0] = cluster->sa_issuer;
    }
    struct th_token_req req = {.issuer = cluster->sa_issuer,
                               .audiences = audiences,
                               .ns = ns,
                               .sa_name = name,
                               .sa_uid = uid,
                               .now_ms = c->now_ms,
                               .ttl_s = ttl};
    const struct th_json *ref = th_json_path(body, "spec.boundObjectRef");
    if (ref) {
        TH_TRY(check_bound(c, ns, ref, &req, &bound, &node, err));
    }
    if (own && ttl == TTL_WARN_ONLY_S && th_streq(req.bound_kind, "Pod")) {
        req.warn_after_s = ttl;
        req.ttl_s = TTL_EXTENDED_S;
    }
    if (c->dry_run) {
        *ret = answer(c, body, &req, ttl, "");
        return 0;
    }
    th_autofree char *token = NULL;
    int r = th_token_issue(cluster->sa_key_pem, &req, &token, err);
    free(req.jti);
    TH_TRY(r);
    *ret = answer(c, body, &req, ttl, token);
    return 0;
}
