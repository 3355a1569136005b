/* Static pods: every *.yaml, *.yml and *.json file of a folder is a pod that runs here, API server
 * or not. The folder is read once a second when its files' names, sizes or times have changed.
 * As with the kubelet a pod's name gets the node's name behind it, and its uid is made from the
 * file's content, so a changed file is a new pod that replaces the old one. */
#include "base/encode.h"
#include "base/io.h"
#include "base/json/yaml.h"
#include "base/limits.h"
#include "base/log.h"
#include "vm/node/agent.h"

#include <sys/stat.h>

struct manifests {
    struct agent *a;
    char *seen;           /* names, sizes and times */
    struct th_hmap uids;  /* of the pods now wanted */
};

static char *fingerprint(const char *dir, const struct th_strv *names)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    for (size_t i = 0; i < names->n; i++) {
        th_autofree char *path = th_path_join(dir, names->v[i]);
        struct stat st;
        if (stat(path, &st) == 0) {
            th_buf_printf(&b, "%s %lld %lld.%ld\n", names->v[i], (long long)st.st_size,
                          (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
        }
    }
    char *s = th_buf_steal(&b, NULL);
    return s ? s : th_xstrdup("");
}

static void default_pod(struct agent *a, struct th_json *pod, const char *uid, const char *hash)
{
    if (!th_json_path_str(pod, "metadata.namespace")) {
        th_json_path_set_str(pod, "metadata.namespace", "default");
    }
    const char *name = th_json_path_str(pod, "metadata.name");
    th_autofree char *full = th_xasprintf("%s-%s", name, a->o.name);
    th_json_path_set_str(pod, "metadata.name", full);
    th_json_path_set_str(pod, "metadata.uid", uid);
    th_json_set_str(th_json_path_object(pod, "metadata.annotations"), "kubernetes.io/config.hash", hash);
    th_json_path_set_str(pod, "spec.nodeName", a->o.name);
    if (!th_json_path_str(pod, "spec.restartPolicy")) {
        th_json_path_set_str(pod, "spec.restartPolicy", "Always");
    }
}

static int load_file(struct agent *a, const char *path, struct th_hmap *now, struct th_err *err)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    TH_TRY(th_io_read_file(path, TH_LIMIT_OBJECT_B, &b, err));
    TH_AUTO(th_json) struct th_json *docs = NULL;
    TH_TRY(th_yaml_parse(b.p, b.n, &docs, err));
    for (size_t i = 0; i < th_json_len(docs); i++) {
        struct th_json *pod = th_json_at(docs, i);
        if (!th_streq(th_json_path_str(pod, "kind"), "Pod") || !th_json_path_str(pod, "metadata.name")) {
            return th_fail(err, TH_R_INVALID, "not a Pod with a name");
        }
        th_autobuf struct th_buf text = TH_BUF_INIT;
        th_json_dump(pod, &text);
        th_buf_puts(&text, a->o.name);
        char hash[TH_SHA256_HEX_LEN];
        th_sha256_hex(text.p, text.n, hash);
        hash[32] = 0;
        default_pod(a, pod, hash, hash);
        th_hmap_set(now, hash, NULL);
        agent_pod_desired(a, hash, pod, true);
    }
    return 0;
}

static void scan(struct th_ev_src *src, void *arg)
{
    (void)src;
    struct manifests *m = arg;
    th_autostrv struct th_strv names = TH_STRV_INIT;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (th_io_list(m->a->o.manifest_dir, &names, &err) < 0) {
        return;
    }
    th_autofree char *print = fingerprint(m->a->o.manifest_dir, &names);
    if (th_streq(print, m->seen)) {
        return;
    }
    free(m->seen);
    m->seen = th_steal(&print);
    struct th_hmap now;
    th_hmap_init(&now, NULL);
    for (size_t i = 0; i < names.n; i++) {
        const char *n = names.v[i];
        if (n[0] == '.' || !(th_endswith(n, ".yaml") || th_endswith(n, ".yml") || th_endswith(n, ".json"))) {
            continue;
        }
        th_autofree char *path = th_path_join(m->a->o.manifest_dir, n);
        th_err_done(&err);
        if (load_file(m->a, path, &now, &err) < 0) {
            th_warn(NODE_MOD, "manifest left out", "file=%s err=%s", path, th_log_q(err.msg));
        }
    }
    /* whatever static pod is in the table and not in the folder goes */
    th_autostrv struct th_strv gone = TH_STRV_INIT;
    pthread_mutex_lock(&m->a->mu);
    struct th_hmap_entry *e;
    for (size_t it = 0; (e = th_hmap_next(&m->a->pods, &it));) {
        if (((struct pod *)e->value)->is_static && !th_hmap_has(&now, e->key)) {
            th_strv_add(&gone, e->key);
        }
    }
    pthread_mutex_unlock(&m->a->mu);
    for (size_t i = 0; i < gone.n; i++) {
        agent_pod_desired(m->a, gone.v[i], NULL, true);
    }
    th_hmap_done(&now);
}

int manifests_start(struct agent *a, struct th_err *err)
{
    if (!th_io_is_dir(a->o.manifest_dir)) {
        return th_fail(err, TH_R_USAGE, "--manifest-dir %s is not a folder", a->o.manifest_dir);
    }
    struct manifests *m = TH_NEW(struct manifests); /* lives as long as the process */
    m->a = a;
    scan(NULL, m);
    (void)th_ev_add_timer(a->ev, 1000, 1000, scan, m);
    return 0;
}
