/*
 * Merging into a kubeconfig.
 *
 * The file belongs to the user and holds the keys to other clusters, so it is handled with care: it
 * is read whole, changed as a tree (unknown members are kept), and replaced in one rename. kubectl
 * guards its own changes with PATH.lock, made with O_EXCL; taking the same lock keeps both from
 * losing the other's change. A lock older than STALE_LOCK_MS was left by a program that died.
 *
 * Not kept: comments and the order of members, as with `kubectl config`.
 */
#include "cli/kubeconfig.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/encode.h"
#include "base/io.h"
#include "base/json/json.h"
#include "base/json/yaml.h"
#include "base/limits.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>

#define LOCK_WAIT_MS 5000
#define LOCK_POLL_MS 20
#define STALE_LOCK_MS 60000

char *th_kubeconfig_path(void)
{
    const char *env = getenv("KUBECONFIG");
    if (env && *env) {
        struct th_strv parts = TH_STRV_INIT;
        th_strv_split(&parts, env, ':');
        char *first = NULL;
        for (size_t i = 0; i < parts.n && !first; i++) {
            first = parts.v[i][0] ? th_xstrdup(parts.v[i]) : NULL;
        }
        th_strv_done(&parts);
        if (first) {
            return first;
        }
    }
    const char *home = getenv("HOME");
    return th_path_join(home && *home ? home : "/root", ".kube/config");
}

/* The file that a chain of symbolic links ends at, so that the rename replaces that one. */
static char *resolve(const char *path)
{
    char real[PATH_MAX];
    return th_xstrdup(realpath(path, real) ? real : path);
}

struct lock {
    char *path;
};

static void lock_release(struct lock *l)
{
    if (l->path) {
        (void)unlink(l->path);
        free(l->path);
        l->path = NULL;
    }
}

static int lock_take(const char *target, struct lock *ret, struct th_err *err)
{
    th_autofree char *path = th_xasprintf("%s.lock", target);
    int64_t deadline = th_mono_ms() + LOCK_WAIT_MS;
    for (;;) {
        th_autoclose int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
        if (fd >= 0) {
            ret->path = th_steal(&path);
            return 0;
        }
        if (errno != EEXIST) {
            return th_fail_errno(err, errno, TH_R_KUBECONFIG, "cannot lock the kubeconfig with %s",
                                 path);
        }
        struct stat st;
        if (stat(path, &st) == 0 && th_now_ms() - (int64_t)st.st_mtime * 1000 > STALE_LOCK_MS) {
            (void)unlink(path);
            continue;
        }
        if (th_mono_ms() > deadline) {
            (void)th_fail(err, TH_R_LOCKED, "the kubeconfig %s is locked by another program",
                          target);
            return th_hint(err, "if none is running, remove %s", path);
        }
        th_sleep_ms(LOCK_POLL_MS);
    }
}

static struct th_json *new_config(void)
{
    return th_json_build("{'apiVersion':'v1','kind':'Config','preferences':{},'clusters':[],"
                         "'users':[],'contexts':[],'current-context':''}");
}

static bool list_or_absent(const struct th_json *config, const char *name)
{
    const struct th_json *v = th_json_get(config, name);
    return !v || th_json_is(v, TH_JSON_ARRAY);
}

/* A missing or empty file is an empty configuration. */
static int load(const char *path, struct th_json **ret, struct th_err *err)
{
    struct th_buf text TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    int r = th_io_read_file(path, TH_LIMIT_CONFIG_FILE_B, &text, err);
    if (r == -TH_R_NOT_FOUND) {
        th_err_done(err);
        *ret = new_config();
        return 0;
    }
    if (r < 0) {
        if (err && r != -TH_R_NO_PERMISSION) {
            err->reason = TH_R_KUBECONFIG;
        }
        return th_hint(err, "repair or move the file away, or point KUBECONFIG at another one");
    }
    struct th_json *docs TH_AUTO(th_json) = NULL;
    struct th_json *config TH_AUTO(th_json) = NULL;
    if (th_yaml_parse(text.p ? text.p : "", text.n, &docs, err) < 0) {
        (void)th_wrap(err, "%s is not a kubeconfig", path);
        if (err) {
            err->reason = TH_R_KUBECONFIG;
        }
        return th_hint(err, "repair or move the file away, or point KUBECONFIG at another one");
    }
    config = th_json_len(docs) == 0 ? new_config() : th_json_ref(th_json_at(docs, 0));
    if (!th_json_is(config, TH_JSON_OBJECT) || th_json_len(docs) > 1 ||
        !list_or_absent(config, "clusters") || !list_or_absent(config, "users") ||
        !list_or_absent(config, "contexts")) {
        (void)th_fail(err, TH_R_KUBECONFIG, "%s is not a kubeconfig", path);
        return th_hint(err, "repair or move the file away, or point KUBECONFIG at another one");
    }
    *ret = th_steal(&config);
    return 0;
}

static int save(const char *path, const struct th_json *config, struct th_err *err)
{
    struct th_buf text TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    th_yaml_dump(config, &text);
    return th_io_write_atomic(path, text.p, text.n, 0600, err);
}

static size_t find(const struct th_json *list, const char *name)
{
    size_t n = th_json_len(list);
    for (size_t i = 0; i < n; i++) {
        if (th_streq(th_json_path_str(th_json_at(list, i), "name"), name)) {
            return i;
        }
    }
    return n;
}

static void put(struct th_json *config, const char *list_name, struct th_json *entry)
{
    struct th_json *list = th_json_path_array(config, list_name);
    size_t i = find(list, th_json_path_str(entry, "name"));
    if (i < th_json_len(list)) {
        th_json_set_at(list, i, entry);
    } else {
        th_json_append(list, entry);
    }
}

static void take(struct th_json *config, const char *list_name, const char *name)
{
    struct th_json *list = th_json_get(config, list_name);
    size_t i = find(list, name);
    if (i < th_json_len(list)) {
        th_json_del_at(list, i);
    }
}

static struct th_json *base64(const char *text)
{
    struct th_buf b TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    th_b64_encode(text, strlen(text), &b);
    return th_json_string(th_buf_cstr(&b));
}

int th_kubeconfig_merge(const char *path, const struct th_kube_entry *e, bool set_current,
                        char **ret_previous, struct th_err *err)
{
    th_autofree char *target = resolve(path);
    th_autofree char *folder = th_xstrdup(target);
    char *slash = strrchr(folder, '/');
    if (slash && slash != folder) {
        *slash = 0;
        TH_TRY(th_io_mkdir_p(folder, 0700, err));
    }
    struct lock lock TH_CLEANUP(lock_release) = {NULL};
    TH_TRY(lock_take(target, &lock, err));
    struct th_json *config TH_AUTO(th_json) = NULL;
    TH_TRY(load(target, &config, err));

    put(config, "clusters",
        th_json_build("{'name':%s,'cluster':{'certificate-authority-data':%o,'server':%s}}",
                      e->name, base64(e->ca_pem), e->server));
    put(config, "users",
        th_json_build("{'name':%s,'user':{'client-certificate-data':%o,'client-key-data':%o}}",
                      e->name, base64(e->cert_pem), base64(e->key_pem)));
    put(config, "contexts",
        th_json_build("{'name':%s,'context':{'cluster':%s,'user':%s,'namespace':'default'}}",
                      e->name, e->name, e->name));
    th_autofree char *previous = NULL;
    if (set_current) {
        const char *now = th_json_path_str(config, "current-context");
        if (!th_streq(now, e->name)) {
            previous = th_xstrdup(now ? now : "");
            th_json_set_str(config, "current-context", e->name);
        }
    }
    TH_TRY(save(target, config, err));
    if (ret_previous) {
        *ret_previous = th_steal(&previous);
    }
    return 0;
}

int th_kubeconfig_remove(const char *path, const char *name, const char *previous,
                         struct th_err *err)
{
    if (!th_io_exists(path)) {
        return 0;
    }
    th_autofree char *target = resolve(path);
    struct lock lock TH_CLEANUP(lock_release) = {NULL};
    TH_TRY(lock_take(target, &lock, err));
    struct th_json *config TH_AUTO(th_json) = NULL;
    TH_TRY(load(target, &config, err));
    take(config, "clusters", name);
    take(config, "users", name);
    take(config, "contexts", name);
    if (th_streq(th_json_path_str(config, "current-context"), name)) {
        const struct th_json *contexts = th_json_get(config, "contexts");
        bool back = previous && *previous && find(contexts, previous) < th_json_len(contexts);
        th_json_set_str(config, "current-context", back ? previous : "");
    }
    return save(target, config, err);
}

char *th_kubeconfig_server(const char *path, const char *name)
{
    struct th_json *config TH_AUTO(th_json) = NULL;
    struct th_err err TH_CLEANUP(th_err_done) = TH_ERR_INIT;
    if (load(path, &config, &err) < 0) {
        return NULL;
    }
    const struct th_json *list = th_json_get(config, "clusters");
    return th_xstrdup(th_json_path_str(th_json_at(list, find(list, name)), "cluster.server"));
}
