/* ServiceAccount tokens.
 *
 * A token is header.claims.signature, each base64url, signed with ES256 by the cluster's key. The
 * private claims stand under "kubernetes.io": namespace, serviceaccount, and the pod, secret or node
 * it is bound to. Tokens of Secrets are older and flat: "kubernetes.io/serviceaccount/namespace" and
 * its kin stand beside the public claims, and there is neither audience nor expiry.
 *
 * Parsing checks form, algorithm, issuer and signature: what never changes about a token and can be
 * remembered. Times are checked at each use; audiences, and whether the account and the pod still
 * live, are authn.c's question. Only our own key is accepted, so "kid" is checked by the signature
 * and not used for choosing.
 */
#include "controlplane/resources/token.h"

#include "base/clock.h"
#include "base/encode.h"
#include "base/json/json.h"
#include "base/limits.h"
#include "base/pki.h"
#include "base/rand.h"

#define LEEWAY_S 60 /* as upstream's JWT library */
#define LEGACY "kubernetes.io/serviceaccount/"

int th_token_kid(const char *key_pem, char *buf, struct th_err *err)
{
    unsigned char xy[64];
    TH_TRY(th_pki_public_xy(key_pem, xy, xy + 32, err));
    struct th_sha256 *h = th_sha256_new();
    th_sha256_add(h, xy, sizeof(xy));
    unsigned char sum[TH_SHA256_LEN];
    th_sha256_finish(h, sum);
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_b64url_encode(sum, sizeof(sum), &b);
    (void)snprintf(buf, TH_TOKEN_KID_LEN, "%s", th_buf_cstr(&b));
    return 0;
}

int th_token_jwks(const char *key_pem, struct th_buf *b, struct th_err *err)
{
    unsigned char x[32];
    unsigned char y[32];
    TH_TRY(th_pki_public_xy(key_pem, x, y, err));
    char kid[TH_TOKEN_KID_LEN];
    TH_TRY(th_token_kid(key_pem, kid, err));
    th_autobuf struct th_buf bx = TH_BUF_INIT;
    th_autobuf struct th_buf by = TH_BUF_INIT;
    th_b64url_encode(x, sizeof(x), &bx);
    th_b64url_encode(y, sizeof(y), &by);
    th_buf_printf(b,
                  "{\"keys\":[{\"use\":\"sig\",\"kty\":\"EC\",\"kid\":\"%s\",\"crv\":\"P-256\","
                  "\"alg\":\"ES256\",\"x\":\"%s\",\"y\":\"%s\"}]}",
                  kid, th_buf_cstr(&bx), th_buf_cstr(&by));
    return 0;
}

static void set_ref(struct th_json *k8s, const char *what, const char *name, const char *uid)
{
    struct th_json *o = th_json_object();
    th_json_set_str(o, "name", name);
    if (uid) {
        th_json_set_str(o, "uid", uid);
    }
    th_json_set(k8s, what, o);
}

static struct th_json *claims_of(struct th_token_req *r)
{
    struct th_json *aud = th_json_array();
    for (const char *const *a = r->audiences; a && *a; a++) {
        th_json_append_str(aud, *a);
    }
    if (th_json_len(aud) == 0) {
        th_json_append_str(aud, r->issuer);
    }
    int64_t now_s = r->now_ms / 1000;
    char jti[TH_UUID_LEN];
    struct th_json *k8s = th_json_object();
    th_json_set_str(k8s, "namespace", r->ns);
    if (th_streq(r->bound_kind, "Pod")) {
        if (r->node_name) {
            set_ref(k8s, "node", r->node_name, r->node_uid);
        }
        set_ref(k8s, "pod", r->bound_name, r->bound_uid);
    } else if (th_streq(r->bound_kind, "Secret")) {
        set_ref(k8s, "secret", r->bound_name, r->bound_uid);
    } else if (th_streq(r->bound_kind, "Node")) {
        set_ref(k8s, "node", r->bound_name, r->bound_uid);
    }
    set_ref(k8s, "serviceaccount", r->sa_name, r->sa_uid);
    if (r->warn_after_s > 0) {
        th_json_set_int(k8s, "warnafter", now_s + r->warn_after_s);
    }
    struct th_json *c = th_json_build(
        "{'aud':%o,'exp':%d,'iat':%d,'iss':%s,'jti':%s,'kubernetes.io':%o,'nbf':%d}", aud,
        now_s + r->ttl_s, now_s, r->issuer, th_rand_uuid(jti), k8s, now_s);
    th_json_set(c, "sub", th_json_stringf("system:serviceaccount:%s:%s", r->ns, r->sa_name));
    r->jti = th_xstrdup(jti);
    return c;
}

static int sign(const char *key_pem, const struct th_json *claims, char **ret_token,
                struct th_err *err)
{
    char kid[TH_TOKEN_KID_LEN];
    TH_TRY(th_token_kid(key_pem, kid, err));
    th_autofree char *header = th_xasprintf("{\"alg\":\"ES256\",\"kid\":\"%s\"}", kid);
    th_autofree char *text = th_json_to_string(claims);
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_b64url_encode(header, strlen(header), &b);
    th_buf_putc(&b, '.');
    th_b64url_encode(text, strlen(text), &b);
    unsigned char sig[64];
    TH_TRY(th_pki_sign_es256(key_pem, b.p, b.n, sig, err));
    th_buf_putc(&b, '.');
    th_b64url_encode(sig, sizeof(sig), &b);
    *ret_token = th_buf_steal(&b, NULL);
    return 0;
}

int th_token_issue(const char *key_pem, struct th_token_req *r, char **ret_token,
                   struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *claims = claims_of(r);
    return sign(key_pem, claims, ret_token, err);
}

int th_token_issue_legacy(const char *key_pem, const char *ns, const char *sa_name,
                          const char *sa_uid, const char *secret, char **ret_token,
                          struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *claims = th_json_build(
        "{'iss':'" TH_TOKEN_LEGACY_ISSUER "','" LEGACY "namespace':%s,'" LEGACY "secret.name':%s,'"
        LEGACY "service-account.name':%s,'" LEGACY "service-account.uid':%s,'sub':%o}",
        ns, secret, sa_name, sa_uid, th_json_stringf("system:serviceaccount:%s:%s", ns, sa_name));
    return sign(key_pem, claims, ret_token, err);
}

void th_token_claims_done(struct th_token_claims *c)
{
    char *all[] = {c->issuer,   c->subject,    c->jti,         c->ns,         c->sa_name,
                   c->sa_uid,   c->pod_name,   c->pod_uid,     c->secret_name, c->secret_uid,
                   c->node_name, c->node_uid};
    for (size_t i = 0; i < TH_ARRAY_LEN(all); i++) {
        free(all[i]);
    }
    th_strv_done(&c->audiences);
    *c = (struct th_token_claims){0};
}

static int bad(struct th_err *err, const char *why)
{
    return th_fail(err, TH_R_UNAUTHORIZED, "%s", why);
}

static int decode_json(const char *p, size_t n, struct th_json **ret)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    TH_TRY(th_b64url_decode(p, n, &b, NULL));
    TH_AUTO(th_json) struct th_json *o = NULL;
    TH_TRY(th_json_parse(th_buf_cstr(&b), b.n, NULL, &o, NULL));
    if (!th_json_is(o, TH_JSON_OBJECT)) {
        return -TH_R_PARSE;
    }
    *ret = th_steal(&o);
    return 0;
}

static char *claim(const struct th_json *o, const char *name)
{
    return th_xstrdup(th_json_str(th_json_get(o, name)));
}

static void read_ref(const struct th_json *k8s, const char *what, char **name, char **uid)
{
    const struct th_json *ref = th_json_get(k8s, what);
    *name = claim(ref, "name");
    *uid = claim(ref, "uid");
}

static void read_claims(const struct th_json *o, struct th_token_claims *c)
{
    c->issuer = claim(o, "iss");
    c->subject = claim(o, "sub");
    c->jti = claim(o, "jti");
    c->expires_s = th_json_as_int(th_json_get(o, "exp"), 0);
    c->issued_s = th_json_as_int(th_json_get(o, "iat"), 0);
    c->not_before_s = th_json_as_int(th_json_get(o, "nbf"), 0);
    const struct th_json *aud = th_json_get(o, "aud");
    if (th_json_str(aud)) {
        th_strv_add(&c->audiences, th_json_str(aud));
    }
    for (size_t i = 0; th_json_is(aud, TH_JSON_ARRAY) && i < th_json_len(aud); i++) {
        const char *a = th_json_str(th_json_at(aud, i));
        th_strv_add(&c->audiences, a ? a : "");
    }
    c->legacy = th_streq(c->issuer, TH_TOKEN_LEGACY_ISSUER);
    if (c->legacy) {
        c->ns = claim(o, LEGACY "namespace");
        c->secret_name = claim(o, LEGACY "secret.name");
        c->sa_name = claim(o, LEGACY "service-account.name");
        c->sa_uid = claim(o, LEGACY "service-account.uid");
        return;
    }
    const struct th_json *k8s = th_json_get(o, "kubernetes.io");
    c->ns = claim(k8s, "namespace");
    read_ref(k8s, "serviceaccount", &c->sa_name, &c->sa_uid);
    read_ref(k8s, "pod", &c->pod_name, &c->pod_uid);
    read_ref(k8s, "secret", &c->secret_name, &c->secret_uid);
    read_ref(k8s, "node", &c->node_name, &c->node_uid);
}

static int check_claims(const struct th_token_claims *c, const char *issuer, struct th_err *err)
{
    if (!c->legacy && !th_streq(c->issuer, issuer)) {
        return bad(err, "issued by somebody else");
    }
    if (!c->ns || !c->sa_name || !c->sa_uid || (c->legacy && !c->secret_name)) {
        return bad(err, "no service account in the token");
    }
    th_autofree char *subject = th_xasprintf("system:serviceaccount:%s:%s", c->ns, c->sa_name);
    return th_streq(subject, c->subject) ? 0 : bad(err, "sub claim is invalid");
}

int th_token_parse(const char *key_pem, const char *issuer, const char *token,
                   struct th_token_claims *ret, struct th_err *err)
{
    const char *dot1 = strchr(token, '.');
    const char *dot2 = dot1 ? strchr(dot1 + 1, '.') : NULL;
    if (!dot2 || strlen(token) > TH_LIMIT_TOKEN_B) {
        return bad(err, "not a JWT");
    }
    TH_AUTO(th_json) struct th_json *header = NULL;
    TH_AUTO(th_json) struct th_json *body = NULL;
    th_autobuf struct th_buf sig = TH_BUF_INIT;
    if (decode_json(token, (size_t)(dot1 - token), &header) < 0 ||
        decode_json(dot1 + 1, (size_t)(dot2 - dot1 - 1), &body) < 0 ||
        th_b64url_decode(dot2 + 1, strlen(dot2 + 1), &sig, NULL) < 0 || sig.n != 64) {
        return bad(err, "not a JWT");
    }
    if (!th_streq(th_json_str(th_json_get(header, "alg")), "ES256")) {
        return bad(err, "unexpected signature algorithm");
    }
    TH_CLEANUP(th_token_claims_done) struct th_token_claims c = {0};
    read_claims(body, &c);
    TH_TRY(check_claims(&c, issuer, err));
    if (th_pki_verify_es256(key_pem, token, (size_t)(dot2 - token), (unsigned char *)sig.p, NULL) <
        0) {
        return bad(err, "the signature does not verify");
    }
    *ret = c;
    c = (struct th_token_claims){0};
    return 0;
}

int th_token_check_time(const struct th_token_claims *c, int64_t now_ms, struct th_err *err)
{
    int64_t now_s = now_ms / 1000;
    if (c->expires_s && now_s - LEEWAY_S > c->expires_s) {
        return bad(err, "service account token has expired");
    }
    if (c->not_before_s && now_s + LEEWAY_S < c->not_before_s) {
        return bad(err, "service account token is not valid yet");
    }
    if (c->issued_s && now_s + LEEWAY_S < c->issued_s) {
        return bad(err, "service account token is issued in the future");
    }
    return 0;
}
