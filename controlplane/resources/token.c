/* ServiceAccount tokens.
 *
 * A token is header.claims.signature, each base64url, signed with ES256 by the cluster's key. The
 * private claims stand under "kubernetes.io": namespace, serviceaccount, and the pod, secret or node
 * it is bound to. Verification checks algorithm, signature, issuer, audience, nbf and exp; whether
 * the account and the pod still live is authn.c's question, for it needs the store. Only our own
 * key is accepted, so "kid" is checked by the signature and not used for choosing.
 */
#include "controlplane/resources/token.h"

#include "base/clock.h"
#include "base/encode.h"
#include "base/json/json.h"
#include "base/limits.h"
#include "base/pki.h"
#include "base/rand.h"

#define TOKEN_MAX_B (16u << 10)
#define LEEWAY_S 10

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

static struct th_json *claims_of(const struct th_token_req *r)
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
    struct th_json *c = th_json_build(
        "{'aud':%o,'exp':%d,'iat':%d,'iss':%s,'jti':%s,'kubernetes.io':%o,'nbf':%d}", aud,
        now_s + r->ttl_s, now_s, r->issuer, th_rand_uuid(jti), k8s, now_s);
    th_json_set(c, "sub", th_json_stringf("system:serviceaccount:%s:%s", r->ns, r->sa_name));
    return c;
}

int th_token_issue(const char *key_pem, const struct th_token_req *r, char **ret_token,
                   struct th_err *err)
{
    char kid[TH_TOKEN_KID_LEN];
    TH_TRY(th_token_kid(key_pem, kid, err));
    th_autofree char *header = th_xasprintf("{\"alg\":\"ES256\",\"kid\":\"%s\"}", kid);
    TH_AUTO(th_json) struct th_json *claims = claims_of(r);
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

void th_token_claims_done(struct th_token_claims *c)
{
    free(c->ns);
    free(c->sa_name);
    free(c->sa_uid);
    free(c->pod_name);
    free(c->pod_uid);
    free(c->secret_name);
    free(c->secret_uid);
    free(c->node_name);
    free(c->node_uid);
    free(c->jti);
    th_strv_done(&c->audiences);
    *c = (struct th_token_claims){0};
}

static int bad(struct th_err *err, const char *why)
{
    return th_fail(err, TH_R_UNAUTHORIZED, "invalid bearer token: %s", why);
}

static int decode_json(const char *p, size_t n, struct th_json **ret)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    TH_TRY(th_b64url_decode(p, n, &b, NULL));
    return th_json_parse(th_buf_cstr(&b), b.n, NULL, ret, NULL);
}

static char *claim(const struct th_json *k8s, const char *path)
{
    return th_xstrdup(th_json_path_str(k8s, path));
}

static int read_claims(const struct th_json *o, const char *issuer, const char *audience,
                       struct th_token_claims *c, struct th_err *err)
{
    if (!th_streq(th_json_str(th_json_get(o, "iss")), issuer)) {
        return bad(err, "issued by somebody else");
    }
    int64_t now_s = th_now_ms() / 1000;
    c->expires_s = th_json_as_int(th_json_get(o, "exp"), 0);
    c->issued_s = th_json_as_int(th_json_get(o, "iat"), 0);
    if (now_s > c->expires_s + LEEWAY_S) {
        return bad(err, "token has expired");
    }
    if (now_s + LEEWAY_S < th_json_as_int(th_json_get(o, "nbf"), 0)) {
        return bad(err, "token is not valid yet");
    }
    const struct th_json *aud = th_json_get(o, "aud");
    if (th_json_str(aud)) {
        th_strv_add(&c->audiences, th_json_str(aud));
    }
    for (size_t i = 0; i < th_json_len(aud); i++) {
        const char *a = th_json_str(th_json_at(aud, i));
        th_strv_add(&c->audiences, a ? a : "");
    }
    if (audience && !th_strv_has(&c->audiences, audience)) {
        return bad(err, "token audience does not match");
    }
    const struct th_json *k8s = th_json_get(o, "kubernetes.io");
    c->ns = claim(k8s, "namespace");
    c->sa_name = claim(k8s, "serviceaccount.name");
    c->sa_uid = claim(k8s, "serviceaccount.uid");
    c->pod_name = claim(k8s, "pod.name");
    c->pod_uid = claim(k8s, "pod.uid");
    c->secret_name = claim(k8s, "secret.name");
    c->secret_uid = claim(k8s, "secret.uid");
    c->node_name = claim(k8s, "node.name");
    c->node_uid = claim(k8s, "node.uid");
    c->jti = th_xstrdup(th_json_str(th_json_get(o, "jti")));
    return c->ns && c->sa_name ? 0 : bad(err, "no service account in the token");
}

int th_token_verify(const char *key_pem, const char *issuer, const char *audience,
                    const char *token, struct th_token_claims *ret, struct th_err *err)
{
    const char *dot1 = strchr(token, '.');
    const char *dot2 = dot1 ? strchr(dot1 + 1, '.') : NULL;
    if (!dot2 || strlen(token) > TOKEN_MAX_B) {
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
    if (th_pki_verify_es256(key_pem, token, (size_t)(dot2 - token), (unsigned char *)sig.p, NULL) <
        0) {
        return bad(err, "the signature does not verify");
    }
    struct th_token_claims c = {0};
    int r = read_claims(body, issuer, audience, &c, err);
    if (r < 0) {
        th_token_claims_done(&c);
        return r;
    }
    *ret = c;
    return 0;
}
