/* ServiceAccount: every pod runs as an account of its namespace and finds its token, the cluster's
 * CA and the namespace's name under /var/run/secrets/kubernetes.io/serviceaccount.
 *
 * The volume is the projected one of upstream, kube-api-access-<5 characters>: a bound token for
 * 3607 seconds, the ConfigMap kube-root-ca.crt, and the namespace through the downward API.
 * Containers that mount something there already are left alone. Mirror pods are not touched.
 *
 * The account "default" of a namespace that was made a moment ago is on its way from its controller,
 * so it is waited for, about as long as upstream does.
 */
#include "base/rand.h"
#include "controlplane/api/admission/admission.h"

#include <poll.h>

#define WAIT_STEPS 60
#define WAIT_STEP_MS 20
#define MOUNT_PATH "/var/run/secrets/kubernetes.io/serviceaccount"
#define TOKEN_SECONDS 3607

static bool mounts_it(const struct th_json *container)
{
    const struct th_json *m = th_json_get(container, "volumeMounts");
    for (size_t i = 0; i < th_json_len(m); i++) {
        if (th_streq(th_json_path_str(th_json_at(m, i), "mountPath"), MOUNT_PATH)) {
            return true;
        }
    }
    return false;
}

static size_t add_mounts(struct th_json *obj, const char *list_path, const char *volume)
{
    struct th_json *list = th_json_path(obj, list_path);
    size_t added = 0;
    for (size_t i = 0; i < th_json_len(list); i++) {
        struct th_json *ct = th_json_at(list, i);
        if (!mounts_it(ct)) {
            th_json_append(th_json_path_array(ct, "volumeMounts"),
                           th_json_build("{'name':%s,'readOnly':%b,'mountPath':%s}", volume, 1,
                                         MOUNT_PATH));
            added++;
        }
    }
    return added;
}

static struct th_json *token_volume(const char *name)
{
    return th_json_build(
        "{'name':%s,'projected':{'sources':["
        "{'serviceAccountToken':{'expirationSeconds':%d,'path':'token'}},"
        "{'configMap':{'name':'kube-root-ca.crt','items':[{'key':'ca.crt','path':'ca.crt'}]}},"
        "{'downwardAPI':{'items':[{'path':'namespace','fieldRef':"
        "{'apiVersion':'v1','fieldPath':'metadata.namespace'}}]}}],'defaultMode':%d}}",
        name, (int64_t)TOKEN_SECONDS, (int64_t)0644);
}

static struct th_obj *find_account(struct th_call *c, const char *name)
{
    th_autofree char *key = th_xasprintf("core/serviceaccounts/%s/%s", c->route.ns, name);
    struct th_obj *o = th_store_get(c->api->store, key);
    for (int i = 0; !o && th_streq(name, "default") && i < WAIT_STEPS; i++) {
        (void)poll(NULL, 0, WAIT_STEP_MS);
        o = th_store_get(c->api->store, key);
    }
    return o;
}

static int mutate(struct th_call *c, struct th_json *obj, const struct th_json *old,
                  struct th_err *err)
{
    if (!th_admission_creates(c, "", "pods", old)) {
        return 0;
    }
    if (th_json_get(th_json_path(obj, "metadata.annotations"), "kubernetes.io/config.mirror")) {
        return 0;
    }
    const char *pod = th_json_path_str(obj, "metadata.name");
    const char *name = th_json_path_str(obj, "spec.serviceAccountName");
    if (!name || !*name) {
        th_json_path_set_str(obj, "spec.serviceAccountName", "default");
        th_json_path_set_str(obj, "spec.serviceAccount", "default");
        name = "default";
    } else {
        th_json_path_set_str(obj, "spec.serviceAccount", name);
    }
    TH_AUTO(th_obj) struct th_obj *o = find_account(c, name);
    if (!o) {
        return th_fail_forbidden(err, c->res, pod,
                                 "error looking up service account %s/%s: serviceaccount \"%s\" not "
                                 "found",
                                 c->route.ns, name, name);
    }
    TH_AUTO(th_json) struct th_json *sa = NULL;
    TH_TRY(th_json_parse(o->bytes, o->n, NULL, &sa, err));
    const struct th_json *pull = th_json_get(sa, "imagePullSecrets");
    if (th_json_len(th_json_path(obj, "spec.imagePullSecrets")) == 0 && th_json_len(pull) > 0) {
        th_json_path_set(obj, "spec.imagePullSecrets", th_json_dup(pull));
    }
    bool wanted = th_json_path_bool(sa, "automountServiceAccountToken", true);
    if (!th_json_path_bool(obj, "spec.automountServiceAccountToken", wanted)) {
        return 0;
    }
    char suffix[6];
    th_autofree char *volume = th_xasprintf("kube-api-access-%s", th_rand_suffix(suffix, 5));
    size_t n = add_mounts(obj, "spec.initContainers", volume);
    n += add_mounts(obj, "spec.containers", volume);
    if (n > 0) {
        th_json_append(th_json_path_array(obj, "spec.volumes"), token_volume(volume));
    }
    return 0;
}

const struct th_admission_plugin th_admission_service_account = {.name = "ServiceAccount",
                                                                 .mutate = mutate};
