/* Who is asking: client certificates, bearer tokens, or nobody.
 *
 * The TLS front has verified a certificate against our CA and hands in its subject; CN is the user
 * and each O a group, as upstream. Bearer tokens are static ones from a file, or ServiceAccount
 * tokens that we signed. Credentials that are given and wrong are 401; none at all is
 * system:anonymous, which authorization then lets reach what system:public-info-viewer names. A
 * token counts only when there is no certificate, the order of upstream's authenticators.
 *
 * A ServiceAccount token is looked at in two steps. That it is ours (form, issuer, signature) never
 * changes, costs an elliptic-curve operation, and is remembered by the token's SHA-256. That it is
 * good now is decided each time: expiry, audience, and that the ServiceAccount, and the pod, Secret
 * or node it is bound to are still the same objects. An object that is being deleted still counts
 * for a minute after its time, upstream's leeway.
 */
#include "controlplane/api/priv.h"

#include "base/clock.h"
#include "base/encode.h"
#include "base/io.h"
#include "base/log.h"
#include "controlplane/resources/token.h"

#include <ctype.h>
#include <strings.h>

#define LEEWAY_MS 60000
#define EXTRA "authentication.kubernetes.io/"

struct th_authn {
    struct th_json *tokens; /* static: token -> {user, uid, groups}; immutable */
    pthread_mutex_t lock;   /* guards known */
    struct th_hmap known;   /* SHA-256 of a token -> struct known */
};
struct known { /* a token with a good signature; immutable, reference-counted */
    uint32_t refs;
    struct th_token_claims claims;
};

struct th_identity *th_authn_subject(const char *cn, const struct th_strv *orgs)
{
    struct th_identity *id = th_identity_new(cn, NULL, (const char *const *)orgs->v);
    if (!th_identity_in(id, "system:authenticated")) {
        th_strv_add(&id->groups, "system:authenticated");
    }
    return id;
}

/* ---- static tokens ---- */

/* One line of CSV: fields, quoted ones may hold commas and doubled quotes. */
static void split_csv(const char *line, size_t n, struct th_strv *ret)
{
    const char *end = line + n;
    for (const char *p = line;; p++) {
        th_autobuf struct th_buf b = TH_BUF_INIT;
        while (p < end && *p == ' ') {
            p++;
        }
        if (p < end && *p == '"') {
            for (p++; p < end && (*p != '"' || (p + 1 < end && p[1] == '"')); p++) {
                p += *p == '"';
                th_buf_putc(&b, *p);
            }
            while (p < end && *p != ',') {
                p++;
            }
        } else {
            for (; p < end && *p != ','; p++) {
                th_buf_putc(&b, *p);
            }
        }
        th_strv_add(ret, th_buf_cstr(&b));
        if (p >= end) {
            return;
        }
    }
}

/* token,user,uid[,"group1,group2"] */
static int add_token_line(struct th_json *tokens, const char *line, size_t n, struct th_err *err)
{
    th_autostrv struct th_strv f = TH_STRV_INIT;
    split_csv(line, n, &f);
    if (f.n < 3) {
        return th_fail(err, TH_R_PARSE, "a line of the token file has fewer than three columns");
    }
    if (!*f.v[0]) {
        return 0; /* upstream skips it with a warning */
    }
    struct th_json *list = th_json_array();
    th_autostrv struct th_strv g = TH_STRV_INIT;
    if (f.n > 3 && *f.v[3]) {
        th_strv_split(&g, f.v[3], ',');
    }
    for (size_t i = 0; i < g.n; i++) {
        th_json_append_str(list, g.v[i]);
    }
    th_json_set(tokens, f.v[0],
                th_json_build("{'user':%s,'uid':%s,'groups':%o}", f.v[1], f.v[2], list));
    return 0;
}

static int load_tokens(struct th_authn *a, const char *path, struct th_err *err)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    TH_TRY(th_io_read_file(path, TH_LIMIT_CONFIG_FILE_B, &b, err));
    a->tokens = th_json_object();
    const char *p = th_buf_cstr(&b);
    while (*p) {
        size_t n = strcspn(p, "\r\n");
        if (n > 0 && *p != '#') {
            TH_TRY(add_token_line(a->tokens, p, n, err));
        }
        p += n + (p[n] != '\0');
    }
    return 0;
}

static bool same_token(const char *a, const char *b)
{
    size_t n = strlen(a);
    unsigned char diff = strlen(b) != n;
    for (size_t i = 0; !diff && i < n; i++) {
        diff |= (unsigned char)(a[i] ^ b[i]);
    }
    return diff == 0;
}

static struct th_identity *from_static(const struct th_authn *a, const char *token)
{
    const struct th_json *t = a->tokens ? th_json_get(a->tokens, token) : NULL;
    if (!t) {
        return NULL;
    }
    struct th_identity *id = th_identity_new(th_json_str(th_json_get(t, "user")),
                                             th_json_str(th_json_get(t, "uid")), NULL);
    const struct th_json *g = th_json_get(t, "groups");
    for (size_t i = 0; i < th_json_len(g); i++) {
        th_strv_add(&id->groups, th_json_str(th_json_at(g, i)));
    }
    th_strv_add(&id->groups, "system:authenticated");
    return id;
}

/* ---- ServiceAccount tokens ---- */

static void known_unref(void *p)
{
    struct known *k = p;
    if (k && __atomic_sub_fetch(&k->refs, 1, __ATOMIC_ACQ_REL) == 0) {
        th_token_claims_done(&k->claims);
        free(k);
    }
}

static void known_autounref(struct known **k)
{
    known_unref(*k);
}

static int parse_token(struct th_api *api, const char *token, struct known **ret,
                       struct th_err *err)
{
    struct th_authn *a = api->authn;
    char sum[TH_SHA256_HEX_LEN];
    th_sha256_hex(token, strlen(token), sum);
    (void)pthread_mutex_lock(&a->lock);
    struct known *k = th_hmap_get(&a->known, sum);
    if (k) {
        __atomic_add_fetch(&k->refs, 1, __ATOMIC_RELAXED);
    }
    (void)pthread_mutex_unlock(&a->lock);
    if (k) {
        *ret = k;
        return 0;
    }
    struct th_token_claims c = {0};
    TH_TRY(th_token_parse(api->cluster->sa_key_pem, api->cluster->sa_issuer, token, &c, err));
    k = TH_NEW(struct known);
    k->claims = c;
    k->refs = 2;
    (void)pthread_mutex_lock(&a->lock);
    if (a->known.n >= TH_LIMIT_TOKEN_CACHE) {
        th_hmap_clear(&a->known);
    }
    th_hmap_set(&a->known, sum, k);
    (void)pthread_mutex_unlock(&a->lock);
    *ret = k;
    return 0;
}

static int invalid(struct th_err *err, const char *fmt, ...) TH_PRINTF(2, 3);
static int invalid(struct th_err *err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    th_autofree char *why = th_xvasprintf(fmt, ap);
    va_end(ap);
    return th_fail(err, TH_R_UNAUTHORIZED, "%s", why);
}

static struct th_json *load(struct th_api *api, const char *plural, const char *ns,
                            const char *name)
{
    th_autofree char *key = th_xasprintf("core/%s/%s/%s", plural, ns ? ns : "-", name);
    TH_AUTO(th_obj) struct th_obj *o = th_store_get(api->store, key);
    struct th_json *tree = NULL;
    return o && th_json_parse(o->bytes, o->n, NULL, &tree, NULL) >= 0 ? tree : NULL;
}

static bool gone_for_long(const struct th_json *o)
{
    const char *t = th_json_path_str(o, "metadata.deletionTimestamp");
    int64_t us = 0;
    return t && th_time_parse(t, &us, NULL) >= 0 && us / 1000 < th_now_ms() - LEEWAY_MS;
}

/* what: "pod", "secret", "node", whose plurals are regular. */
static int check_bound(struct th_api *api, const char *what, const char *ns, const char *name,
                       const char *uid, struct th_err *err)
{
    if (!name) {
        return 0;
    }
    th_autofree char *plural = th_xasprintf("%ss", what);
    TH_AUTO(th_json) struct th_json *o = load(api, plural, ns, name);
    const char *real = th_json_path_str(o, "metadata.uid");
    if (!o || gone_for_long(o)) {
        return invalid(err, "service account token has been invalidated");
    }
    if (!th_streq(real, uid)) {
        const char *shown = th_streq(what, "pod")      ? "Pod"
                            : th_streq(what, "secret") ? "Secret"
                                                       : "Node";
        return invalid(err, "%s UID (%s) does not match service account %s ref claim (%s)", shown,
                       real ? real : "", what, uid ? uid : "");
    }
    return 0;
}

static int check_account(struct th_api *api, const struct th_token_claims *t, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *sa = load(api, "serviceaccounts", t->ns, t->sa_name);
    if (!sa) {
        return invalid(err, "serviceaccounts \"%s\" not found", t->sa_name);
    }
    const char *uid = th_json_path_str(sa, "metadata.uid");
    if (!th_streq(uid, t->sa_uid)) {
        return invalid(err, "service account UID (%s) does not match claim (%s)", uid ? uid : "",
                       t->sa_uid);
    }
    if (gone_for_long(sa)) {
        return invalid(err, "service account %s/%s has been deleted", t->ns, t->sa_name);
    }
    return 0;
}

/* The day of the token's last use is a label of its Secret: one write a day. A failure is no reason to
 * refuse the token. */
static void note_use(struct th_api *api, const struct th_token_claims *t,
                     const struct th_json *secret)
{
    static const char label[] = "kubernetes.io/legacy-token-last-used";
    char today[TH_TIME_LEN];
    th_time_format(th_now_ms(), today)[strlen("2006-01-02")] = 0;
    const char *last = th_json_str(th_json_get(th_json_path(secret, "metadata.labels"), label));
    if (th_streq(last, today) || !api->client) {
        return;
    }
    TH_AUTO(th_json) struct th_json *patch =
        th_json_build("{'metadata':{'uid':%s,'labels':{%s:%s}}}",
                      th_json_path_str(secret, "metadata.uid"), label, today);
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    struct th_patch_opts o = {.kind = TH_PATCH_MERGE_RFC7386};
    if (th_client_patch(api->client, TH_GVR_SECRETS, t->ns, t->secret_name, "", &o, patch, NULL,
                        &err) < 0) {
        th_warn("authn", "a token's use was not noted", "secret=%s/%s error=%s", t->ns,
                t->secret_name, th_log_q(err.msg ? err.msg : ""));
    }
}

static int check_legacy(struct th_api *api, const struct th_token_claims *t, const char *token,
                        struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *secret = load(api, "secrets", t->ns, t->secret_name);
    if (!secret || th_json_path(secret, "metadata.deletionTimestamp")) {
        return invalid(err, "Token has been invalidated");
    }
    const char *packed = th_json_path_str(secret, "data.token");
    th_autobuf struct th_buf copy = TH_BUF_INIT;
    if (!packed || th_b64_decode(packed, strlen(packed), &copy, NULL) < 0 ||
        !same_token(th_buf_cstr(&copy), token)) {
        return invalid(err, "Token does not match server's copy");
    }
    TH_TRY(check_account(api, t, err));
    static const char label[] = "kubernetes.io/legacy-token-invalid-since";
    const char *since = th_json_str(th_json_get(th_json_path(secret, "metadata.labels"), label));
    note_use(api, t, secret);
    if (since && *since) {
        return invalid(err,
                       "the token in secret %s/%s for service account %s/%s has been marked "
                       "invalid. Use tokens from the TokenRequest API or manually created "
                       "secret-based tokens, or remove the '%s' label from the secret to "
                       "temporarily allow use of this token",
                       t->ns, t->secret_name, t->ns, t->sa_name, label);
    }
    return 0;
}

static int check_live(struct th_api *api, const struct th_token_claims *t, const char *token,
                      struct th_err *err)
{
    if (t->legacy) {
        return check_legacy(api, t, token, err);
    }
    TH_TRY(th_token_check_time(t, th_now_ms(), err));
    TH_TRY(check_account(api, t, err));
    TH_TRY(check_bound(api, "secret", t->ns, t->secret_name, t->secret_uid, err));
    TH_TRY(check_bound(api, "pod", t->ns, t->pod_name, t->pod_uid, err));
    return t->pod_name ? 0 : check_bound(api, "node", NULL, t->node_name, t->node_uid, err);
}

static struct th_identity *identity_of(const struct th_token_claims *t)
{
    th_autofree char *user = th_xasprintf("system:serviceaccount:%s:%s", t->ns, t->sa_name);
    struct th_identity *id = th_identity_new(user, t->sa_uid, NULL);
    th_strv_add(&id->groups, "system:serviceaccounts");
    th_strv_addf(&id->groups, "system:serviceaccounts:%s", t->ns);
    th_strv_add(&id->groups, "system:authenticated");
    if (t->legacy) {
        return id;
    }
    if (t->jti) {
        th_strv_addf(&id->extra, EXTRA "credential-id=JTI=%s", t->jti);
    }
    const struct {
        const char *name, *value;
    } more[] = {{"node-name", t->node_name},
                {"node-uid", t->node_name ? t->node_uid : NULL},
                {"pod-name", t->pod_name},
                {"pod-uid", t->pod_uid}};
    for (size_t i = 0; i < TH_ARRAY_LEN(more); i++) {
        if (more[i].value && *more[i].value) {
            th_strv_addf(&id->extra, EXTRA "%s=%s", more[i].name, more[i].value);
        }
    }
    return id;
}

/* Those of wanted that the token is for. A token without audiences (static, legacy) is for the API
 * server, whose name is the issuer. */
static bool match_audiences(const struct th_api *api, const struct th_strv *has,
                            const char *const *wanted, struct th_strv *ret)
{
    const char *own[] = {api->cluster->sa_issuer, NULL};
    bool any = false;
    for (const char *const *w = wanted && *wanted ? wanted : own; *w; w++) {
        bool yes = has ? th_strv_has(has, *w) : th_streq(*w, own[0]);
        if (yes && ret && !th_strv_has(ret, *w)) {
            th_strv_add(ret, *w);
        }
        any = any || yes;
    }
    return any;
}

int th_authn_token(void *self, const char *token, const char *const *audiences,
                   struct th_identity **ret, struct th_strv *ret_audiences, struct th_err *err)
{
    struct th_api *api = self;
    struct th_identity *id = from_static(api->authn, token);
    if (id) {
        if (!match_audiences(api, NULL, audiences, ret_audiences)) {
            th_identity_unref(id);
            return invalid(err, "invalid bearer token");
        }
        *ret = id;
        return 0;
    }
    TH_CLEANUP(known_autounref) struct known *k = NULL;
    if (!api->cluster->sa_key_pem || parse_token(api, token, &k, NULL) < 0) {
        return invalid(err, "invalid bearer token");
    }
    const struct th_token_claims *t = &k->claims;
    if (!match_audiences(api, t->legacy ? NULL : &t->audiences, audiences, ret_audiences)) {
        th_autofree char *have = th_strv_join(&t->audiences, "\" \"");
        th_autostrv struct th_strv want = TH_STRV_INIT;
        for (const char *const *w = audiences; w && *w; w++) {
            th_strv_add(&want, *w);
        }
        if (want.n == 0) {
            th_strv_add(&want, api->cluster->sa_issuer);
        }
        th_autofree char *wanted = th_strv_join(&want, "\" \"");
        return invalid(err,
                       "[invalid bearer token, token audiences [\"%s\"] is invalid for the target "
                       "audiences [\"%s\"]]",
                       have, wanted);
    }
    TH_AUTO_ERR struct th_err why = TH_ERR_INIT;
    if (check_live(api, t, token, &why) < 0) {
        return invalid(err, "[invalid bearer token, %s]", why.msg);
    }
    *ret = identity_of(t);
    return 0;
}

/* ---- a request's credentials ---- */

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
        if (*token && th_authn_token(api, token, NULL, ret, NULL, NULL) >= 0) {
            return 0;
        }
        /* why stays with the server: the answer says the same to everybody */
        return th_fail(err, TH_R_UNAUTHORIZED, "Unauthorized");
    }
    if (authorization && *authorization) {
        return th_fail(err, TH_R_UNAUTHORIZED, "Unauthorized");
    }
    static const char *const groups[] = {"system:unauthenticated", NULL};
    *ret = th_identity_new("system:anonymous", NULL, groups);
    return 0;
}

/* A header's value when the line is of that name; *ret_rest (may be NULL): the name goes on there. */
static const char *remote_header(const char *line, const char *name, const char **ret_rest)
{
    size_t n = strlen(name);
    const char *colon = strchr(line, ':');
    if (!colon || strncasecmp(line, name, n) != 0 || (!ret_rest && line + n != colon)) {
        return NULL;
    }
    if (ret_rest) {
        *ret_rest = line + n;
    }
    return colon + 1 + strspn(colon + 1, " ");
}

struct th_identity *th_authn_front_proxy(const struct th_identity *cert,
                                         const struct th_strv *headers)
{
    const char *user = NULL, *uid = NULL;
    if (!th_streq(cert->user, TH_FRONT_PROXY_NAME)) {
        return NULL;
    }
    for (size_t i = 0; i < headers->n; i++) {
        const char *u = remote_header(headers->v[i], "X-Remote-User", NULL);
        const char *d = remote_header(headers->v[i], "X-Remote-Uid", NULL);
        user = u && !user ? u : user;
        uid = d && !uid ? d : uid;
    }
    if (!user || !*user) {
        return NULL;
    }
    struct th_identity *id = th_identity_new(user, uid, NULL);
    for (size_t i = 0; i < headers->n; i++) {
        const char *key = NULL;
        const char *value = remote_header(headers->v[i], "X-Remote-Group", NULL);
        if (value) {
            th_strv_add(&id->groups, value);
        }
        value = remote_header(headers->v[i], "X-Remote-Extra-", &key);
        if (value) {
            th_autobuf struct th_buf name = TH_BUF_INIT;
            size_t n = strcspn(key, ":");
            if (th_url_unescape(key, n, false, &name, NULL) < 0) {
                th_buf_clear(&name);
                th_buf_add(&name, key, n);
            }
            for (size_t k = 0; k < name.n; k++) {
                name.p[k] = (char)tolower((unsigned char)name.p[k]);
            }
            th_strv_addf(&id->extra, "%s=%s", th_buf_cstr(&name), value);
        }
    }
    if (!th_identity_in(id, "system:authenticated")) {
        th_strv_add(&id->groups, "system:authenticated");
    }
    return id;
}

int th_authn_new(const char *token_file, struct th_authn **ret, struct th_err *err)
{
    struct th_authn *a = TH_NEW(struct th_authn);
    (void)pthread_mutex_init(&a->lock, NULL);
    th_hmap_init(&a->known, known_unref);
    int r = token_file ? load_tokens(a, token_file, err) : 0;
    if (r < 0) {
        th_authn_free(a);
        return r;
    }
    *ret = a;
    return 0;
}

void th_authn_free(struct th_authn *a)
{
    if (!a) {
        return;
    }
    th_hmap_done(&a->known);
    (void)pthread_mutex_destroy(&a->lock);
    th_json_unref(a->tokens);
    free(a);
}
