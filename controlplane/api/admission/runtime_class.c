/* RuntimeClass: a pod that names one gets its overhead, node selector and tolerations; a class that is
 * not there, or an overhead of the pod's own that differs, is refused. */
#include "controlplane/api/admission/admission.h"

/* 1 found, 0 the pod names none. */
static int find(struct th_call *c, const struct th_json *obj, struct th_json **ret,
                struct th_err *err)
{
    const char *name = th_json_path_str(obj, "spec.runtimeClassName");
    if (!name) {
        return 0;
    }
    th_autofree char *key = th_xasprintf("node.k8s.io/runtimeclasses/-/%s", name);
    TH_AUTO(th_obj) struct th_obj *o = th_store_get(c->api->store, key);
    if (!o || th_json_parse(o->bytes, o->n, NULL, ret, NULL) < 0) {
        return th_fail_forbidden(err, c->res, th_json_path_str(obj, "metadata.name"),
                                 "pod rejected: RuntimeClass \"%s\" not found", name);
    }
    return 1;
}

static int check_overhead(struct th_call *c, const struct th_json *obj, const struct th_json *class,
                          struct th_err *err)
{
    const struct th_json *want = th_json_path(class, "overhead.podFixed");
    const struct th_json *have = th_json_path(obj, "spec.overhead");
    bool defined = th_json_get(class, "overhead") != NULL;
    if (defined && have && th_json_len(have) > 0 && !th_json_equal(want, have)) {
        return th_fail_forbidden(
            err, c->res, th_json_path_str(obj, "metadata.name"),
            "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead");
    }
    if (!defined && have) {
        return th_fail_forbidden(err, c->res, th_json_path_str(obj, "metadata.name"),
                                 "pod rejected: Pod Overhead set without corresponding RuntimeClass "
                                 "defined Overhead");
    }
    return 0;
}

static int merge_selector(struct th_call *c, struct th_json *obj, const struct th_json *add,
                          struct th_err *err)
{
    struct th_json_iter it = TH_JSON_ITER(add);
    while (th_json_next(&it)) {
        const char *have =
            th_json_str(th_json_get(th_json_path(obj, "spec.nodeSelector"), it.name));
        const char *want = th_json_str(it.value);
        if (have && !th_streq(have, want)) {
            return th_fail_forbidden(
                err, c->res, th_json_path_str(obj, "metadata.name"),
                "conflict: runtimeClass.scheduling.nodeSelector[%s] = %s; "
                "pod.spec.nodeSelector[%s] = %s",
                it.name, want, it.name, have);
        }
        th_json_set_str(th_json_path_object(obj, "spec.nodeSelector"), it.name, want);
    }
    return 0;
}

static void merge_tolerations(struct th_json *obj, const struct th_json *add)
{
    for (size_t i = 0; i < th_json_len(add); i++) {
        struct th_json *all = th_json_path_array(obj, "spec.tolerations");
        bool there = false;
        for (size_t k = 0; k < th_json_len(all) && !there; k++) {
            there = th_json_equal(th_json_at(all, k), th_json_at(add, i));
        }
        if (!there) {
            th_json_append(all, th_json_dup(th_json_at(add, i)));
        }
    }
}

static int mutate(struct th_call *c, struct th_json *obj, const struct th_json *old,
                  struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *class = NULL;
    if (!th_admission_creates(c, "", "pods", old)) {
        return 0;
    }
    int found = find(c, obj, &class, err);
    if (found <= 0) {
        return found;
    }
    if (th_json_get(class, "overhead")) {
        TH_TRY(check_overhead(c, obj, class, err));
        th_json_path_set(obj, "spec.overhead", th_json_dup(th_json_path(class, "overhead.podFixed")));
    }
    TH_TRY(merge_selector(c, obj, th_json_path(class, "scheduling.nodeSelector"), err));
    merge_tolerations(obj, th_json_path(class, "scheduling.tolerations"));
    return 0;
}

static int validate(struct th_call *c, const struct th_json *obj, const struct th_json *old,
                    struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *class = NULL;
    if (!th_admission_creates(c, "", "pods", old)) {
        return 0;
    }
    TH_TRY(find(c, obj, &class, err));
    return check_overhead(c, obj, class, err);
}

const struct th_admission_plugin th_admission_runtime_class = {
    .name = "RuntimeClass", .mutate = mutate, .validate = validate};
