/* What is in a configMap, secret, downwardAPI or projected volume right now.
 *
 * ServiceAccount tokens come from the TokenRequest subresource, bound to the pod; one is asked for
 * again when 80 % of its life has passed (or 24 hours), else the one on disk is kept. */
#include "base/clock.h"
#include "base/encode.h"
#include "base/io.h"
#include "base/limits.h"
#include "vm/node/agent.h"

#include <sys/stat.h>

struct item_opts {
    const struct th_json *items;
    mode_t mode;
    bool optional;
};

static int add_value(struct vol_files *f, const struct th_json *obj, bool secret, const char *key,
                     const char *path, mode_t mode, bool *ret_found, struct th_err *err)
{
    const char *text = th_json_str(th_json_get(th_json_get(obj, "data"), key));
    bool binary = secret;
    if (!text && !secret) {
        text = th_json_str(th_json_get(th_json_get(obj, "binaryData"), key));
        binary = text != NULL;
    }
    *ret_found = text != NULL;
    if (!text) {
        return 0;
    }
    struct vol_file *v = vol_files_add(f, path, mode);
    if (binary) {
        return th_b64_decode(text, strlen(text), &v->data, err);
    }
    th_buf_puts(&v->data, text);
    return 0;
}

static int add_object(struct pod *p, bool secret, const char *name, const struct item_opts *o,
                      struct vol_files *f, struct th_err *err)
{
    struct th_gvr gvr = secret ? TH_GVR_SECRETS : TH_GVR_CONFIGMAPS;
    const char *kind = secret ? "secret" : "configmap";
    TH_AUTO(th_json) struct th_json *obj = NULL;
    TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
    int r = node_get_object(p->a, gvr, p->ns, name, &obj, &e);
    if (r == -TH_R_NOT_FOUND && o->optional) {
        return 0;
    }
    if (r < 0) {
        return r == -TH_R_NOT_FOUND ? th_fail(err, TH_R_NOT_FOUND, "%s \"%s\" not found", kind, name)
                                    : th_fail(err, e.reason, "%s", e.msg);
    }
    bool found = false;
    if (th_json_len(o->items) > 0) {
        for (size_t i = 0; i < th_json_len(o->items); i++) {
            struct th_json *it = th_json_at(o->items, i);
            const char *key = th_json_path_str(it, "key"), *path = th_json_path_str(it, "path");
            mode_t mode = (mode_t)th_json_path_int(it, "mode", (int64_t)o->mode);
            TH_TRY(add_value(f, obj, secret, key ? key : "", path ? path : "", mode, &found, err));
            if (!found && !o->optional) {
                return th_fail(err, TH_R_NOT_FOUND, "references non-existent %s key: %s",
                               secret ? "secret" : "config", key ? key : "");
            }
        }
        return 0;
    }
    const char *const maps[] = {"data", "binaryData"};
    for (size_t m = 0; m < 2; m++) {
        struct th_json_iter it = TH_JSON_ITER(th_json_get(obj, maps[m]));
        while (th_json_next(&it)) {
            TH_TRY(add_value(f, obj, secret, it.name, it.name, o->mode, &found, err));
        }
    }
    return 0;
}

static int add_downward(struct pod *p, const struct th_json *items, mode_t mode, struct vol_files *f,
                        struct th_err *err)
{
    for (size_t i = 0; i < th_json_len(items); i++) {
        struct th_json *it = th_json_at(items, i);
        const char *path = th_json_path_str(it, "path");
        th_autofree char *v = NULL;
        const char *field = th_json_path_str(it, "fieldRef.fieldPath");
        if (field) {
            TH_TRY(env_field(p, field, &v, err));
        } else {
            TH_TRY(env_resource(p, th_json_get(it, "resourceFieldRef"), NULL, &v, err));
        }
        struct vol_file *vf = vol_files_add(f, path ? path : "",
                                            (mode_t)th_json_path_int(it, "mode", (int64_t)mode));
        th_buf_puts(&vf->data, v);
    }
    return 0;
}

/* The user that every container of the pod runs as by its spec, or -1: some say none, or another. */
static int64_t user_of_all(const struct pod *p)
{
    static const char *const lists[] = {"spec.initContainers", "spec.containers",
                                        "spec.ephemeralContainers"};
    int64_t of_pod = th_json_path_int(p->obj, "spec.securityContext.runAsUser", -1), all = -1;
    for (size_t l = 0; l < TH_ARRAY_LEN(lists); l++) {
        const struct th_json *list = th_json_path(p->obj, lists[l]);
        for (size_t i = 0; i < th_json_len(list); i++) {
            int64_t user = th_json_path_int(th_json_at(list, i), "securityContext.runAsUser", of_pod);
            if (user < 0 || (all >= 0 && all != user)) {
                return -1;
            }
            all = user;
        }
    }
    return all;
}

/* When the token on disk is to be replaced (wall ms), from its own exp and iat; 0: at once. */
static int64_t token_refresh_at(const char *token)
{
    const char *dot = strchr(token, '.');
    const char *end = dot ? strchr(dot + 1, '.') : NULL;
    th_autobuf struct th_buf b = TH_BUF_INIT;
    TH_AUTO(th_json) struct th_json *o = NULL;
    if (!end || th_b64url_decode(dot + 1, (size_t)(end - dot - 1), &b, NULL) < 0 ||
        th_json_parse(b.p, b.n, NULL, &o, NULL) < 0) {
        return 0;
    }
    int64_t exp = th_json_path_int(o, "exp", 0), iat = th_json_path_int(o, "iat", 0);
    /* a token that is let live longer than was asked says from when on it is stale */
    exp = th_json_as_int(th_json_get(th_json_get(o, "kubernetes.io"), "warnafter"), exp);
    int64_t at = iat + (exp - iat) * 8 / 10;
    if (at > iat + 86400) {
        at = iat + 86400;
    }
    return at * 1000;
}

static int add_token(struct pod *p, const struct th_json *src, const char *dir, mode_t mode,
                     struct vol_files *f, int64_t *ret_refresh_ms, struct th_err *err)
{
    const char *path = th_json_path_str(src, "path");
    th_autofree char *have = th_path_joinf(dir, "..data/%s", path ? path : "token");
    /* nobody else reads it: the group of the volume, when it has one, is let in by whoever writes */
    int64_t user = user_of_all(p);
    bool closed = user >= 0 || th_json_path(p->obj, "spec.securityContext.fsGroup");
    struct vol_file *v = vol_files_add(f, path ? path : "token", closed ? 0600 : mode);
    v->uid = user;
    int64_t now = th_now_ms();
    if (th_io_read_file(have, 64 << 10, &v->data, NULL) >= 0 && v->data.n > 0) {
        int64_t at = token_refresh_at(th_buf_cstr(&v->data));
        if (at > now) {
            *ret_refresh_ms = at - now < *ret_refresh_ms ? at - now : *ret_refresh_ms;
            return 0;
        }
    }
    th_buf_clear(&v->data);
    const char *sa = th_json_path_str(p->obj, "spec.serviceAccountName");
    if (!p->a->client) {
        return th_fail(err, TH_R_UNAVAILABLE, "no API server gives tokens");
    }
    TH_AUTO(th_json) struct th_json *req = th_json_build(
        "{'apiVersion':'authentication.k8s.io/v1','kind':'TokenRequest','spec':{"
        "'expirationSeconds':%d,'boundObjectRef':{'apiVersion':'v1','kind':'Pod','name':%s,'uid':%s}}}",
        th_json_path_int(src, "expirationSeconds", 3600), p->name, p->uid);
    const char *aud = th_json_path_str(src, "audience");
    struct th_json *auds = th_json_path_array(req, "spec.audiences");
    if (aud && *aud) {
        th_json_append_str(auds, aud);
    }
    TH_AUTO(th_json) struct th_json *ans = NULL;
    int r = th_client_post(p->a->client, TH_GVR_SERVICEACCOUNTS, p->ns, sa && *sa ? sa : "default",
                           "token", req, &ans, err);
    if (r < 0) {
        return th_wrap(err, "failed to fetch token");
    }
    const char *token = th_json_path_str(ans, "status.token");
    if (!token) {
        return th_fail(err, TH_R_INTERNAL, "failed to fetch token: the answer has none");
    }
    th_buf_puts(&v->data, token);
    int64_t at = token_refresh_at(token);
    int64_t in = at > now ? at - now : 60000;
    *ret_refresh_ms = in < *ret_refresh_ms ? in : *ret_refresh_ms;
    return 0;
}

static struct item_opts item_opts(const struct th_json *src, mode_t mode)
{
    return (struct item_opts){.items = th_json_get(src, "items"),
                              .mode = mode,
                              .optional = th_json_path_bool(src, "optional", false)};
}

static int add_projected(struct pod *p, const struct th_json *proj, const char *dir,
                         struct vol_files *f, int64_t *ret_refresh_ms, struct th_err *err)
{
    mode_t mode = (mode_t)th_json_path_int(proj, "defaultMode", 0644);
    struct th_json *sources = th_json_get(proj, "sources");
    for (size_t i = 0; i < th_json_len(sources); i++) {
        struct th_json *s = th_json_at(sources, i), *one;
        const char *name;
        if ((one = th_json_get(s, "serviceAccountToken"))) {
            TH_TRY(add_token(p, one, dir, mode, f, ret_refresh_ms, err));
        } else if ((one = th_json_get(s, "configMap")) || (one = th_json_get(s, "secret"))) {
            struct item_opts o = item_opts(one, mode);
            name = th_json_path_str(one, "name");
            TH_TRY(add_object(p, th_json_get(s, "secret") != NULL, name ? name : "", &o, f, err));
        } else if ((one = th_json_get(s, "downwardAPI"))) {
            TH_TRY(add_downward(p, th_json_get(one, "items"), mode, f, err));
        } else {
            return th_fail(err, TH_R_UNSUPPORTED, "this source of a projected volume is not supported");
        }
    }
    return 0;
}

int vol_collect(struct pod *p, const struct th_json *vol, const char *dir, struct vol_files *f,
                int64_t *ret_refresh_ms, struct th_err *err)
{
    struct th_json *s;
    if ((s = th_json_get(vol, "projected"))) {
        return add_projected(p, s, dir, f, ret_refresh_ms, err);
    }
    if ((s = th_json_get(vol, "downwardAPI"))) {
        return add_downward(p, th_json_get(s, "items"),
                            (mode_t)th_json_path_int(s, "defaultMode", 0644), f, err);
    }
    bool secret = th_json_get(vol, "secret") != NULL;
    s = th_json_get(vol, secret ? "secret" : "configMap");
    struct item_opts o = item_opts(s, (mode_t)th_json_path_int(s, "defaultMode", 0644));
    const char *name = th_json_path_str(s, secret ? "secretName" : "name");
    return add_object(p, secret, name ? name : "", &o, f, err);
}
