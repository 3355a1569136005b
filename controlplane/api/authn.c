/* Who is asking: client certificates, bearer tokens, or nobody.
 *
 * The TLS front has verified a certificate against our CA and hands in its subject; CN is the user
 * and each O a group, as upstream. Bearer tokens are ServiceAccount tokens that we signed, or
 * static ones from a file. Credentials that are given and wrong are 401; none at all is
 * system:anonymous, which authorization lets reach health and version only. A token wins over a
 * certificate only when there is no certificate, the order of upstream's authenticators.
 */
#include "controlplane/api/priv.h"

#include "base/io.h"
#include "controlplane/resources/token.h"

#include <strings.h>

struct th_identity *th_authn_subject(const char *cn, const struct th_strv *orgs)
{
    struct th_identity *id = th_identity_new(cn, NULL, (const char *const *)orgs->v);
    if (!th_identity_in(id, "system:authenticated")) {
        th_strv_add(&id->groups, "system:authenticated");
    }
    return id;
}

static int fail(struct th_err *err)
{
    return th_fail(err, TH_R_UNAUTHORIZED, "Unauthorized");
}

/* One line: token,user,uid[,"group1,group2"] */
static void add_token_line(struct th_json *tokens, const char *line, size_t n)
{
    th_autofree char *text = th_xstrndup(line, n);
    th_autostrv struct th_strv f = TH_STRV_INIT;
    char *quote = strchr(text, '"');
    th_autofree char *groups = NULL;
    if (quote) {
        char *end = strchr(quote + 1, '"');
        groups = th_xstrndup(quote + 1, end ? (size_t)(end - quote - 1) : strlen(quote + 1));
        *quote = '\0';
    }
    th_strv_split(&f, text, ',');
    if (f.n < 3 || !*f.v[0] || !*f.v[1]) {
        return;
    }
    if (!groups && f.n > 3) {
        groups = th_xstrdup(f.v[3]);
    }
    th_autostrv struct th_strv g = TH_STRV_INIT;
    if (groups && *groups) {
        th_strv_split(&g, groups, ',');
    }
    struct th_json *list = th_json_array();
    for (size_t i = 0; i < g.n; i++) {
        th_json_append_str(list, g.v[i]);
    }
    th_json_set(tokens, f.v[0],
                th_json_build("{'user':%s,'uid':%s,'groups':%o}", f.v[1], f.v[2], list));
}

int th_authn_load_tokens(struct th_api *api, const char *path, struct th_err *err)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    TH_TRY(th_io_read_file(path, TH_LIMIT_CONFIG_FILE_B, &b, err));
    api->tokens = th_json_object();
    const char *p = th_buf_cstr(&b);
    while (*p) {
        size_t n = strcspn(p, "\r\n");
        if (n > 0 && *p != '#') {
            add_token_line(api->tokens, p, n);
        }
        p += n + (p[n] != '\0');
    }
    return 0;
}

static int from_static(struct th_api *api, const char *token, struct th_identity **ret)
{
    const struct th_json *t = api->tokens ? th_json_get(api->tokens, token) : NULL;
    if (!t) {
        return 0;
    }
    struct th_identity *id = th_identity_new(th_json_str(th_json_get(t, "user")),
                                             th_json_str(th_json_get(t, "uid")), NULL);
    const struct th_json *g = th_json_get(t, "groups");
    for (size_t i = 0; i < th_json_len(g); i++) {
        th_strv_add(&id->groups, th_json_str(th_json_at(g, i)));
    }
    th_strv_add(&id->groups, "system:authenticated");
    *ret = id;
    return 1;
}

/* The object a token is bound to must still be the same one. */
static bool still_there(struct th_api *api, const char *plural, const char *ns, const char *name,
                        const char *uid)
{
    th_autofree char *key = th_xasprintf("core/%s/%s/%s", plural, ns ? ns : "-", name);
    TH_AUTO(th_obj) struct th_obj *o = th_store_get(api->store, key);
    TH_AUTO(th_json) struct th_json *tree = NULL;
    if (!o || th_json_parse(o->bytes, o->n, NULL, &tree, NULL) < 0) {
        return false;
    }
    return !uid || !*uid || th_streq(th_json_path_str(tree, "metadata.uid"), uid);
}

static int from_service_account(struct th_api *api, const char *token, struct th_identity **ret,
                                struct th_err *err)
{
    TH_CLEANUP(th_token_claims_done) struct th_token_claims t = {0};
    if (!api->cluster->sa_key_pem ||
        th_token_verify(api->cluster->sa_key_pem, api->cluster->sa_issuer,
                        api->cluster->sa_issuer, token, &t, NULL) < 0) {
        return fail(err);
    }
    if (!still_there(api, "serviceaccounts", t.ns, t.sa_name, t.sa_uid) ||
        (t.pod_name && !still_there(api, "pods", t.ns, t.pod_name, t.pod_uid))) {
        return fail(err);
    }
    th_autofree char *user = th_xasprintf("system:serviceaccount:%s:%s", t.ns, t.sa_name);
    struct th_identity *id = th_identity_new(user, t.sa_uid, NULL);
    th_strv_add(&id->groups, "system:serviceaccounts");
    th_strv_addf(&id->groups, "system:serviceaccounts:%s", t.ns);
    th_strv_add(&id->groups, "system:authenticated");
    if (t.jti) {
        th_strv_addf(&id->extra, "authentication.kubernetes.io/credential-id=JTI=%s", t.jti);
    }
    if (t.node_name) {
        th_strv_addf(&id->extra, "authentication.kubernetes.io/node-name=%s", t.node_name);
    }
    if (t.pod_name) {
        th_strv_addf(&id->extra, "authentication.kubernetes.io/pod-name=%s", t.pod_name);
        th_strv_addf(&id->extra, "authentication.kubernetes.io/pod-uid=%s",
                     t.pod_uid ? t.pod_uid : "");
    }
    *ret = id;
    return 0;
}

int th_authn(struct th_api *api, const char *authorization, struct th_identity *cert,
             struct th_identity **ret, struct th_err *err)
{
    if (cert) {
        *ret = th_identity_ref(cert);
        return 0;
    }
    if (authorization && strncasecmp(authorization, "Bearer ", 7) == 0) {
        const char *token = authorization + 7;
        while (*token == ' ') {
            token++;
        }
        if (from_static(api, token, ret) > 0) {
            return 0;
        }
        return from_service_account(api, token, ret, err);
    }
    if (authorization && *authorization) {
        return fail(err);
    }
    static const char *const groups[] = {"system:unauthenticated", NULL};
    *ret = th_identity_new("system:anonymous", NULL, groups);
    return 0;
}
