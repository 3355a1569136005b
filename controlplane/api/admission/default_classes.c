/* DefaultStorageClass and DefaultIngressClass: a claim or an Ingress that names no class gets the one
 * that is marked as default; the newest of several, then the first by name. */
#include "controlplane/api/admission/admission.h"

#include "base/clock.h"

/* The name of the default class among the objects under prefix, or NULL. */
static char *find_default(struct th_call *c, const char *prefix, const char *mark)
{
    TH_CLEANUP(th_store_list_done) struct th_store_list l = {.n = 0};
    char *best = NULL;
    int64_t best_us = INT64_MIN;
    if (th_store_range(c->api->store, prefix, NULL, 0, 0, &l, NULL) < 0) {
        return NULL;
    }
    for (size_t i = 0; i < l.n; i++) {
        TH_AUTO(th_json) struct th_json *t = NULL;
        int64_t us = 0;
        if (th_json_parse(l.objs[i]->bytes, l.objs[i]->n, NULL, &t, NULL) < 0 ||
            !th_streq(th_json_str(th_json_get(th_json_path(t, "metadata.annotations"), mark)),
                      "true")) {
            continue;
        }
        (void)th_time_parse(th_json_path_str(t, "metadata.creationTimestamp"), &us, NULL);
        if (us > best_us) { /* keys come in order of names */
            free(best);
            best = th_xstrdup(th_json_path_str(t, "metadata.name"));
            best_us = us;
        }
    }
    return best;
}

static int default_storage(struct th_call *c, struct th_json *obj, const struct th_json *old,
                           struct th_err *err)
{
    (void)err;
    const struct th_json *notes = th_json_path(obj, "metadata.annotations");
    if (!th_admission_creates(c, "", "persistentvolumeclaims", old) ||
        th_json_path(obj, "spec.storageClassName") ||
        th_json_get(notes, "volume.beta.kubernetes.io/storage-class")) {
        return 0;
    }
    th_autofree char *class = find_default(c, "storage.k8s.io/storageclasses/",
                                           "storageclass.kubernetes.io/is-default-class");
    if (class) {
        th_json_path_set_str(obj, "spec.storageClassName", class);
    }
    return 0;
}

static int default_ingress(struct th_call *c, struct th_json *obj, const struct th_json *old,
                           struct th_err *err)
{
    (void)err;
    const struct th_json *notes = th_json_path(obj, "metadata.annotations");
    if (!th_admission_creates(c, "networking.k8s.io", "ingresses", old) ||
        th_json_path(obj, "spec.ingressClassName") ||
        th_json_get(notes, "kubernetes.io/ingress.class")) {
        return 0;
    }
    th_autofree char *class = find_default(c, "networking.k8s.io/ingressclasses/",
                                           "ingressclass.kubernetes.io/is-default-class");
    if (class) {
        th_json_path_set_str(obj, "spec.ingressClassName", class);
    }
    return 0;
}

const struct th_admission_plugin th_admission_default_storage_class = {
    .name = "DefaultStorageClass", .mutate = default_storage};
const struct th_admission_plugin th_admission_default_ingress_class = {
    .name = "DefaultIngressClass", .mutate = default_ingress};
