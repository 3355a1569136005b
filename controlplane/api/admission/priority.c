/* Priority: priorityClassName becomes priority and preemptionPolicy; without a name the class marked
 * globalDefault counts, and without one the priority is 0. A pod may not set the number itself. */
#include "controlplane/api/admission/admission.h"

static struct th_json *find_class(struct th_call *c, const char *name)
{
    th_autofree char *key = th_xasprintf("scheduling.k8s.io/priorityclasses/-/%s", name);
    TH_AUTO(th_obj) struct th_obj *o = th_store_get(c->api->store, key);
    struct th_json *tree = NULL;
    if (!o || th_json_parse(o->bytes, o->n, NULL, &tree, NULL) < 0) {
        return NULL;
    }
    return tree;
}

/* The class with globalDefault; the lowest value when several are marked. */
static struct th_json *find_default(struct th_call *c)
{
    TH_CLEANUP(th_store_list_done) struct th_store_list l = {.n = 0};
    struct th_json *best = NULL;
    if (th_store_range(c->api->store, "scheduling.k8s.io/priorityclasses/", NULL, 0, 0, &l, NULL) <
        0) {
        return NULL;
    }
    for (size_t i = 0; i < l.n; i++) {
        TH_AUTO(th_json) struct th_json *t = NULL;
        if (!memmem(l.objs[i]->bytes, l.objs[i]->n, "\"globalDefault\":true", 20)) {
            continue; /* as stored, so most need not be parsed for every pod */
        }
        if (th_json_parse(l.objs[i]->bytes, l.objs[i]->n, NULL, &t, NULL) < 0 ||
            !th_json_path_bool(t, "globalDefault", false)) {
            continue;
        }
        if (!best || th_json_path_int(t, "value", 0) < th_json_path_int(best, "value", 0)) {
            th_json_unref(best);
            best = th_steal(&t);
        }
    }
    return best;
}

/* What was set when the pod was made stays when an update leaves it out, as a manifest does that is
 * replaced; validation sees to any other change. */
static void keep_old(struct th_json *obj, const struct th_json *old)
{
    static const char *const fields[] = {"spec.priority", "spec.preemptionPolicy"};
    for (size_t i = 0; i < TH_ARRAY_LEN(fields); i++) {
        const struct th_json *was = th_json_path(old, fields[i]);
        if (was && !th_json_path(obj, fields[i])) {
            th_json_path_set(obj, fields[i], th_json_dup(was));
        }
    }
}

static int mutate(struct th_call *c, struct th_json *obj, const struct th_json *old,
                  struct th_err *err)
{
    if (old && th_admission_writes(c, "", "pods")) {
        keep_old(obj, old);
        return 0;
    }
    if (!th_admission_creates(c, "", "pods", old)) {
        return 0;
    }
    const char *pod = th_json_path_str(obj, "metadata.name");
    const char *name = th_json_path_str(obj, "spec.priorityClassName");
    TH_AUTO(th_json) struct th_json *class = NULL;
    if (name && *name) {
        class = find_class(c, name);
        if (!class) {
            return th_fail_forbidden(err, c->res, pod,
                                     "no PriorityClass with name %s was found", name);
        }
    } else {
        class = find_default(c);
        if (class) {
            th_json_path_set_str(obj, "spec.priorityClassName",
                                 th_json_path_str(class, "metadata.name"));
        }
    }
    int64_t value = th_json_path_int(class, "value", 0);
    const struct th_json *asked = th_json_path(obj, "spec.priority");
    if (asked && th_json_as_int(asked, 0) != value) {
        return th_fail_forbidden(err, c->res, pod,
                                 "the integer value of priority (%lld) must not be provided in pod "
                                 "spec; priority admission controller computed %lld from the given "
                                 "PriorityClass name",
                                 (long long)th_json_as_int(asked, 0), (long long)value);
    }
    th_json_path_set_int(obj, "spec.priority", value);
    const char *policy = th_json_path_str(class, "preemptionPolicy");
    const char *have = th_json_path_str(obj, "spec.preemptionPolicy");
    policy = policy && *policy ? policy : "PreemptLowerPriority";
    if (have && !th_streq(have, policy)) {
        return th_fail_forbidden(err, c->res, pod,
                                 "the string value of PreemptionPolicy (%s) must not be provided in "
                                 "pod spec; priority admission controller computed %s from the given "
                                 "PriorityClass name",
                                 have, policy);
    }
    th_json_path_set_str(obj, "spec.preemptionPolicy", policy);
    return 0;
}

const struct th_admission_plugin th_admission_priority = {.name = "Priority", .mutate = mutate};
