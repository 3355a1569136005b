#ifndef TH_RESOURCES_TOKEN_H
#define TH_RESOURCES_TOKEN_H
/* ServiceAccount tokens: JWTs signed with ES256, as the TokenRequest API makes them. */
#include "base/buf.h"
#include "base/err.h"

struct th_token_req {
    const char *issuer;
    const char *const *audiences; /* NULL-terminated; NULL or empty: the issuer */
    const char *ns, *sa_name, *sa_uid;
    /* The object it is bound to; kind NULL: none. Pod, Secret or Node. */
    const char *bound_kind, *bound_name, *bound_uid;
    const char *node_name, *node_uid; /* of a bound pod, or NULL */
    int64_t now_ms;
    int64_t ttl_s;
    int64_t warn_after_s; /* 0: none; from then on the use of the token is stale */
    char *jti;            /* out: the token's id, the caller's to free */
};
/* *ret_token is the caller's. */
int th_token_issue(const char *key_pem, struct th_token_req *r, char **ret_token,
                   struct th_err *err) TH_MUST_USE;
/* The token of a Secret of type kubernetes.io/service-account-token: it never expires and is good
 * for as long as the Secret holds it. */
int th_token_issue_legacy(const char *key_pem, const char *ns, const char *sa_name,
                          const char *sa_uid, const char *secret, char **ret_token,
                          struct th_err *err) TH_MUST_USE;

#define TH_TOKEN_LEGACY_ISSUER "kubernetes/serviceaccount"
struct th_token_claims { /* strings are owned; each may be NULL */
    char *issuer, *subject, *jti;
    char *ns, *sa_name, *sa_uid, *pod_name, *pod_uid, *secret_name, *secret_uid, *node_name,
        *node_uid;
    struct th_strv audiences;
    int64_t issued_s, not_before_s, expires_s; /* 0: not said */
    bool legacy;                               /* of a Secret: no audience, no times */
};
void th_token_claims_done(struct th_token_claims *c);
/* Form, algorithm and signature; nothing is said about time, audience and whether what it is bound to
 * still lives. TH_R_UNAUTHORIZED when it is not one of ours (its issuer is neither issuer nor that
 * of legacy tokens, or the key is another). key_pem may be the private or the public key. */
int th_token_parse(const char *key_pem, const char *issuer, const char *token,
                   struct th_token_claims *ret, struct th_err *err) TH_MUST_USE;
/* TH_R_UNAUTHORIZED when it has expired or is not valid yet. */
int th_token_check_time(const struct th_token_claims *c, int64_t now_ms,
                        struct th_err *err) TH_MUST_USE;
/* The key's id in the token's header and in the JWKS; buf has TH_TOKEN_KID_LEN bytes. */
#define TH_TOKEN_KID_LEN 48
int th_token_kid(const char *key_pem, char *buf, struct th_err *err) TH_MUST_USE;
/* {"keys":[...]} appended to b. */
int th_token_jwks(const char *key_pem, struct th_buf *b, struct th_err *err) TH_MUST_USE;
#endif
