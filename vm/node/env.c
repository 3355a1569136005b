/* A container's environment, command line expansion and what pods may say about themselves.
 *
 * Order, later wins: Service variables (enableServiceLinks: every Service of the pod's namespace;
 * the API server's own always), envFrom in order, env in order. $(NAME) in a value sees what was
 * set before it and the Service variables; an unknown name stays as written, $$ is a dollar sign.
 * Names from envFrom that are not usable as variables are taken all the same, as upstream does
 * since 1.34; only '=' and empty names are impossible.
 *
 * A missing ConfigMap, Secret or key that is not optional is -TH_R_INVALID; the worker shows the
 * text as CreateContainerConfigError, and tries again. */
#include "base/clock.h"
#include "base/encode.h"
#include "controlplane/schema/quantity.h"
#include "vm/node/agent.h"

#include <ctype.h>
#include <inttypes.h>

char *env_expand(const char *s, const char *(*lookup)(void *arg, const char *name), void *arg)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    for (const char *c = s; *c; c++) {
        if (*c != '$' || !c[1]) {
            th_buf_putc(&b, *c);
            continue;
        }
        if (c[1] == '$') {
            th_buf_putc(&b, '$');
            c++;
            continue;
        }
        const char *end = c[1] == '(' ? strchr(c, ')') : NULL;
        if (!end) {
            /* "$x" and an unclosed "$(" stay as they are, both characters */
            th_buf_add(&b, c, 2);
            c++;
            continue;
        }
        th_autofree char *name = th_xstrndup(c + 2, (size_t)(end - c - 2));
        const char *v = lookup(arg, name);
        if (v) {
            th_buf_puts(&b, v);
        } else {
            th_buf_add(&b, c, (size_t)(end - c + 1));
        }
        c = end;
    }
    size_t n = 0;
    char *r = th_buf_steal(&b, &n);
    return r ? r : th_xstrdup("");
}

int node_get_object(struct agent *a, struct th_gvr r, const char *ns, const char *name,
                    struct th_json **ret, struct th_err *err)
{
    if (!a->client) {
        return th_fail(err, TH_R_NOT_FOUND, "%s \"%s\" not found", r.plural, name);
    }
    return th_client_get(a->client, r, ns, name, ret, err);
}

static const char *quoted_label(char *buf, size_t cap, const char *path, const char *prefix)
{
    /* metadata.labels['key'] */
    size_t n = strlen(prefix);
    if (strncmp(path, prefix, n) != 0 || path[n] != '[' || path[n + 1] != '\'') {
        return NULL;
    }
    size_t len = strlen(path + n + 2);
    if (len < 2 || len - 2 >= cap || strcmp(path + n + 2 + len - 2, "']") != 0) {
        return NULL;
    }
    memcpy(buf, path + n + 2, len - 2);
    buf[len - 2] = 0;
    return buf;
}

/* key="value" lines, sorted, values as Go's %q. */
static char *map_text(const struct th_json *map)
{
    th_autostrv struct th_strv lines = TH_STRV_INIT;
    struct th_json_iter it = TH_JSON_ITER(map);
    while (th_json_next(&it)) {
        th_autobuf struct th_buf b = TH_BUF_INIT;
        TH_AUTO(th_json) struct th_json *v = th_json_string(th_json_str(it.value));
        th_buf_printf(&b, "%s=", it.name);
        th_json_dump(v, &b);
        th_strv_add(&lines, th_buf_cstr(&b));
    }
    th_strv_sort(&lines);
    return th_strv_join(&lines, "\n");
}

int env_field(struct pod *p, const char *path, char **ret, struct th_err *err)
{
    char key[320];
    const char *v = NULL;
    if (quoted_label(key, sizeof(key), path, "metadata.labels")) {
        v = th_json_str(th_json_get(th_json_path(p->obj, "metadata.labels"), key));
        v = v ? v : "";
    } else if (quoted_label(key, sizeof(key), path, "metadata.annotations")) {
        v = th_json_str(th_json_get(th_json_path(p->obj, "metadata.annotations"), key));
        v = v ? v : "";
    } else if (th_streq(path, "metadata.labels") || th_streq(path, "metadata.annotations")) {
        *ret = map_text(th_json_path(p->obj, path));
        return 0;
    } else if (th_streq(path, "metadata.name")) {
        v = p->name;
    } else if (th_streq(path, "metadata.namespace")) {
        v = p->ns;
    } else if (th_streq(path, "metadata.uid")) {
        v = p->uid;
    } else if (th_streq(path, "spec.nodeName")) {
        v = p->a->o.name;
    } else if (th_streq(path, "spec.serviceAccountName")) {
        v = th_json_path_str(p->obj, path);
        v = v ? v : "";
    } else if (th_streq(path, "status.podIP") || th_streq(path, "status.podIPs")) {
        v = p->ip ? p->ip : "";
    } else if (th_streq(path, "status.hostIP") || th_streq(path, "status.hostIPs")) {
        v = p->a->o.node_ip;
    }
    if (!v) {
        return th_fail(err, TH_R_INVALID, "unsupported fieldPath: %s", path);
    }
    *ret = th_xstrdup(v);
    return 0;
}

int env_resource(struct pod *p, const struct th_json *ref, const char *def_ctr, char **ret,
                 struct th_err *err)
{
    const char *res = th_json_path_str(ref, "resource");
    const char *name = th_json_path_str(ref, "containerName");
    struct ctr *c = pod_ctr(p, name && *name ? name : def_ctr ? def_ctr : "");
    const char *dot = res ? strchr(res, '.') : NULL;
    if (!c || !dot) {
        return th_fail(err, TH_R_INVALID, "container %s not found", name ? name : "");
    }
    th_autofree char *which = th_xstrndup(res, (size_t)(dot - res)); /* "limits" or "requests" */
    const char *what = dot + 1;
    struct th_json *r = th_json_get(c->spec, "resources");
    struct th_json *q = th_json_get(th_json_get(r, which), what);
    struct th_quantity v = {0};
    const char *text = th_json_str(q);
    if (text) {
        TH_TRY(th_quantity_parse(text, &v, err));
    } else if (th_streq(which, "limits") && th_streq(what, "cpu")) {
        v.nano = (__int128)node_cpus() * 1000000000;
    } else if (th_streq(which, "limits") && th_streq(what, "memory")) {
        v.nano = (__int128)node_allocatable_memory_b() * 1000000000;
    }
    struct th_quantity div = {.nano = 1000000000};
    const char *d = th_json_path_str(ref, "divisor");
    if (d && !th_streq(d, "0")) {
        TH_TRY(th_quantity_parse(d, &div, err));
    }
    if (div.nano <= 0) {
        div.nano = 1000000000;
    }
    *ret = th_xasprintf("%" PRId64, (int64_t)((v.nano + div.nano - 1) / div.nano));
    return 0;
}

static char *env_prefix(const char *svc)
{
    char *s = th_xstrdup(svc);
    for (char *c = s; *c; c++) {
        *c = *c == '-' || *c == '.' ? '_' : (char)toupper((unsigned char)*c);
    }
    return s;
}

static void setf(struct th_json *env, const char *value, const char *fmt, ...) TH_PRINTF(3, 4);
static void setf(struct th_json *env, const char *value, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    th_autofree char *name = th_xvasprintf(fmt, ap);
    va_end(ap);
    th_json_set_str(env, name, value);
}

void env_service(struct th_json *env, const struct th_json *svc)
{
    const char *ip = th_json_path_str(svc, "spec.clusterIP");
    struct th_json *ports = th_json_path(svc, "spec.ports");
    if (!ip || !*ip || th_streq(ip, "None") || th_json_len(ports) == 0) {
        return;
    }
    th_autofree char *pre = env_prefix(th_json_path_str(svc, "metadata.name"));
    setf(env, ip, "%s_SERVICE_HOST", pre);
    for (size_t i = 0; i < th_json_len(ports); i++) {
        struct th_json *port = th_json_at(ports, i);
        char num[16];
        (void)snprintf(num, sizeof(num), "%d", (int)th_json_path_int(port, "port", 0));
        const char *proto = th_json_path_str(port, "protocol");
        const char *name = th_json_path_str(port, "name");
        th_autofree char *lower = th_xstrdup(proto ? proto : "TCP");
        th_autofree char *upper = th_xstrdup(proto ? proto : "TCP");
        for (char *c = lower; *c; c++) {
            *c = (char)tolower((unsigned char)*c);
        }
        th_autofree char *url = th_xasprintf("%s://%s:%s", lower, ip, num);
        if (i == 0) {
            setf(env, num, "%s_SERVICE_PORT", pre);
            setf(env, url, "%s_PORT", pre);
        }
        if (name && *name) {
            th_autofree char *pn = env_prefix(name);
            setf(env, num, "%s_SERVICE_PORT_%s", pre, pn);
        }
        setf(env, url, "%s_PORT_%s_%s", pre, num, upper);
        setf(env, lower, "%s_PORT_%s_%s_PROTO", pre, num, upper);
        setf(env, num, "%s_PORT_%s_%s_PORT", pre, num, upper);
        setf(env, ip, "%s_PORT_%s_%s_ADDR", pre, num, upper);
    }
}

static bool each_service(void *arg, struct th_json *svc)
{
    env_service(arg, svc);
    return true;
}

static void service_links(struct pod *p, struct th_json *env)
{
    if (!p->a->svc_inf) {
        return;
    }
    /* just after a start of the agent: wait for the first list, but not for ever */
    int64_t left = p->a->start_ms + 5000 - th_now_ms();
    if (left > 0) {
        (void)th_informer_wait_synced(p->a->svc_inf, left);
    }
    TH_AUTO(th_json) struct th_json *k = th_informer_get(p->a->svc_inf, "default", "kubernetes");
    if (k) {
        env_service(env, k);
    }
    if (th_json_path_bool(p->obj, "spec.enableServiceLinks", true)) {
        th_informer_each(p->a->svc_inf, p->ns, each_service, env);
    }
}

static const char *lookup_env(void *arg, const char *name)
{
    return th_json_str(th_json_get(arg, name));
}

/* data of a ConfigMap as text, of a Secret decoded. NULL without error: optional and missing. */
static int source_value(const struct th_json *obj, bool secret, const char *key, char **ret,
                        struct th_err *err)
{
    const char *text = th_json_str(th_json_get(th_json_get(obj, "data"), key));
    *ret = NULL;
    if (!text) {
        return 0;
    }
    if (!secret) {
        *ret = th_xstrdup(text);
        return 0;
    }
    th_autobuf struct th_buf b = TH_BUF_INIT;
    TH_TRY(th_b64_decode(text, strlen(text), &b, err));
    char *s = th_buf_steal(&b, NULL);
    *ret = s ? s : th_xstrdup("");
    return 0;
}

static int fetch_source(struct pod *p, bool secret, const struct th_json *ref, struct th_json **ret,
                        struct th_err *err)
{
    const char *name = th_json_path_str(ref, "name");
    struct th_gvr gvr = secret ? TH_GVR_SECRETS : TH_GVR_CONFIGMAPS;
    *ret = NULL;
    TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
    int r = node_get_object(p->a, gvr, p->ns, name ? name : "", ret, &e);
    if (r == -TH_R_NOT_FOUND && th_json_path_bool(ref, "optional", false)) {
        return 0;
    }
    if (r == -TH_R_NOT_FOUND) {
        return th_fail(err, TH_R_INVALID, "%s \"%s\" not found", secret ? "secret" : "configmap",
                       name ? name : "");
    }
    if (r < 0) {
        return th_fail(err, TH_R_INVALID, "failed to fetch %s %s/%s: %s",
                       secret ? "secret" : "configmap", p->ns, name ? name : "", e.msg);
    }
    return 0;
}

static int from_source(struct pod *p, const struct th_json *from, struct th_json *env,
                       struct th_err *err)
{
    const char *prefix = th_json_path_str(from, "prefix");
    bool secret = th_json_get(from, "secretRef") != NULL;
    struct th_json *ref = th_json_get(from, secret ? "secretRef" : "configMapRef");
    TH_AUTO(th_json) struct th_json *obj = NULL;
    TH_TRY(fetch_source(p, secret, ref, &obj, err));
    struct th_json_iter it = TH_JSON_ITER(th_json_get(obj, "data"));
    while (th_json_next(&it)) {
        th_autofree char *v = NULL;
        TH_TRY(source_value(obj, secret, it.name, &v, err));
        if (v && it.name[0] && !strchr(it.name, '=')) {
            setf(env, v, "%s%s", prefix ? prefix : "", it.name);
        }
    }
    return 0;
}

static int value_from(struct pod *p, const struct ctr *c, const struct th_json *from, char **ret,
                      struct th_err *err)
{
    struct th_json *ref = th_json_get(from, "fieldRef");
    if (ref) {
        return env_field(p, th_json_path_str(ref, "fieldPath"), ret, err);
    }
    if ((ref = th_json_get(from, "resourceFieldRef"))) {
        return env_resource(p, ref, c->name, ret, err);
    }
    bool secret = th_json_get(from, "secretKeyRef") != NULL;
    ref = th_json_get(from, secret ? "secretKeyRef" : "configMapKeyRef");
    if (!ref) {
        return th_fail(err, TH_R_UNSUPPORTED, "this source of an environment variable is not supported");
    }
    TH_AUTO(th_json) struct th_json *obj = NULL;
    TH_TRY(fetch_source(p, secret, ref, &obj, err));
    const char *key = th_json_path_str(ref, "key");
    if (obj) {
        TH_TRY(source_value(obj, secret, key ? key : "", ret, err));
    }
    if (!*ret && !th_json_path_bool(ref, "optional", false)) {
        return th_fail(err, TH_R_INVALID, "couldn't find key %s in %s %s/%s", key ? key : "",
                       secret ? "Secret" : "ConfigMap", p->ns, th_json_path_str(ref, "name"));
    }
    return 0;
}

int env_build(struct pod *p, const struct ctr *c, struct th_json **ret, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *env = th_json_object();
    service_links(p, env);
    struct th_json *from = th_json_get(c->spec, "envFrom");
    for (size_t i = 0; i < th_json_len(from); i++) {
        TH_TRY(from_source(p, th_json_at(from, i), env, err));
    }
    struct th_json *list = th_json_get(c->spec, "env");
    for (size_t i = 0; i < th_json_len(list); i++) {
        struct th_json *e = th_json_at(list, i);
        const char *name = th_json_path_str(e, "name"), *value = th_json_path_str(e, "value");
        struct th_json *vf = th_json_get(e, "valueFrom");
        th_autofree char *v = NULL;
        if (vf) {
            TH_TRY(value_from(p, c, vf, &v, err));
            if (!v) {
                continue;
            }
        } else {
            v = env_expand(value ? value : "", lookup_env, env);
        }
        if (name && *name) {
            th_json_set_str(env, name, v);
        }
    }
    *ret = th_steal(&env);
    return 0;
}
