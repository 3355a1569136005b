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
};
/* *ret_token is the caller's. */
int th_token_issue(const char *key_pem, const struct th_token_req *r, char **ret_token,
                   struct th_err *err) TH_MUST_USE;

struct th_token_claims { /* strings are owned; each may be NULL */
    char *ns, *sa_name, *sa_uid, *pod_name, *pod_uid, *secret_name, *secret_uid, *node_name,
        *node_uid, *jti;
    struct th_strv audiences;
    int64_t issued_s, expires_s;
};
void th_token_claims_done(struct th_token_claims *c);
/* Signature, issuer, audience (NULL: any) and times. TH_R_UNAUTHORIZED with the cause. key_pem may
 * be the private or the public key. */
int th_token_verify(const char *key_pem, const char *issuer, const char *audience,
                    const char *token, struct th_token_claims *ret, struct th_err *err) TH_MUST_USE;
/* The key's id in the token's header and in the JWKS; buf has TH_TOKEN_KID_LEN bytes. */
#define TH_TOKEN_KID_LEN 48
int th_token_kid(const char *key_pem, char *buf, struct th_err *err) TH_MUST_USE;
/* {"keys":[...]} appended to b. */
int th_token_jwks(const char *key_pem, struct th_buf *b, struct th_err *err) TH_MUST_USE;
#endif
