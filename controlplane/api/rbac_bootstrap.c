/* The default roles and bindings: made when missing, mended when they lack something.
 *
 * Problem: some hundred and thirty objects must be there before the first request of anybody but an
 * administrator can be judged, at every start, and a start has a tenth of a second. Design: those
 * that are missing are built here the way the pipeline would (uid, creation time, managed fields)
 * and go into the store in one commit; those that are there are compared and written through the
 * in-process client only when they lack something.
 *
 * Mending is upstream's: what a role lacks (permissions, selectors, labels, annotations) and what a
 * binding lacks (subjects) is added, what users added stays; a binding to another role is made anew;
 * an object whose annotation rbac.authorization.kubernetes.io/autoupdate says "false" is left alone.
 */
#include "controlplane/api/rbac.h"

#include "controlplane/resources/rbac_defaults.h"

#define GROUP "rbac.authorization.k8s.io"
#define AUTOUPDATE "rbac.authorization.kubernetes.io/autoupdate"
#define AGGREGATION "\"aggregationRule\":"

static const char *plural_of(const char *kind)
{
    return th_streq(kind, "ClusterRole")          ? "clusterroles"
           : th_streq(kind, "ClusterRoleBinding") ? "clusterrolebindings"
           : th_streq(kind, "Role")               ? "roles"
                                                  : "rolebindings";
}

/* ---- objects that are there ---- */

static bool merge_map(struct th_json *have, const struct th_json *wanted, const char *path)
{
    bool changed = false;
    struct th_json_iter it = TH_JSON_ITER(th_json_path(wanted, path));
    while (th_json_next(&it)) {
        struct th_json *map = th_json_path_object(have, path);
        if (!th_json_has(map, it.name)) {
            th_json_set(map, it.name, th_json_dup(it.value));
            changed = true;
        }
    }
    return changed;
}

static bool merge_rules(struct th_json *have, const struct th_json *wanted)
{
    TH_CLEANUP(th_rules_done) struct th_rules is = {.v = NULL};
    TH_CLEANUP(th_rules_done) struct th_rules should = {.v = NULL};
    TH_CLEANUP(th_rules_done) struct th_rules missing = {.v = NULL};
    th_rules_add_json(&is, th_json_get(have, "rules"));
    th_rules_add_json(&should, th_json_get(wanted, "rules"));
    th_rules_uncovered(&is, &should, &missing);
    for (size_t i = 0; i < missing.n; i++) {
        th_json_append(th_json_path_array(have, "rules"), th_rule_json(&missing.v[i]));
    }
    return missing.n > 0;
}

/* Appends those elements of wanted's list that have lacks. */
static bool merge_list(struct th_json *have, const struct th_json *wanted, const char *path)
{
    bool changed = false;
    const struct th_json *from = th_json_path(wanted, path);
    for (size_t i = 0; i < th_json_len(from); i++) {
        struct th_json *list = th_json_path_array(have, path);
        bool found = false;
        for (size_t k = 0; k < th_json_len(list) && !found; k++) {
            found = th_json_equal(th_json_at(list, k), th_json_at(from, i));
        }
        if (!found) {
            th_json_append(list, th_json_dup(th_json_at(from, i)));
            changed = true;
        }
    }
    return changed;
}

static bool merge(struct th_json *have, const struct th_json *wanted)
{
    bool changed = merge_map(have, wanted, "metadata.annotations");
    changed |= merge_map(have, wanted, "metadata.labels");
    if (th_json_get(wanted, "roleRef")) {
        return merge_list(have, wanted, "subjects") || changed;
    }
    changed |= merge_rules(have, wanted);
    if (!th_json_get(wanted, "aggregationRule") && th_json_get(have, "aggregationRule")) {
        th_json_del(have, "aggregationRule");
        changed = true;
    }
    return merge_list(have, wanted, "aggregationRule.clusterRoleSelectors") || changed;
}

static bool holds(const struct th_obj *o, const char *name, const struct th_json *value)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_buf_printf(&b, "\"%s\":", name);
    th_json_dump(value, &b);
    return memmem(o->bytes, o->n, b.p, b.n) != NULL;
}

/* Whether the stored text has every member of the wanted object as it is. That is how nearly all are found
 * at every start but the first, and comparing trees of all of them is a tenth of a start. Text inside
 * strings does not deceive: quotes are escaped there. */
static bool is_as_made(const struct th_obj *o, struct th_json *wanted)
{
    struct th_json_iter it = TH_JSON_ITER(wanted);
    while (th_json_next(&it)) {
        if (!th_streq(it.name, "metadata") && !th_streq(it.name, "apiVersion") &&
            !th_streq(it.name, "kind") && !holds(o, it.name, it.value)) {
            return false;
        }
    }
    static const char *const maps[] = {"annotations", "labels"};
    const struct th_json *meta = th_json_get(wanted, "metadata");
    for (size_t i = 0; i < TH_ARRAY_LEN(maps); i++) {
        const struct th_json *map = th_json_get(meta, maps[i]);
        if (th_json_len(map) > 0 && !holds(o, maps[i], map)) {
            return false;
        }
    }
    /* A role that gathers others' rules where it should have its own is mended too. */
    return th_json_get(wanted, "aggregationRule") || !memmem(o->bytes, o->n, AGGREGATION, strlen(AGGREGATION));
}

static int mend(struct th_api *api, const struct th_obj *o, struct th_json *wanted, struct th_err *err)
{
    if (is_as_made(o, wanted)) {
        return 0;
    }
    TH_AUTO(th_json) struct th_json *have = NULL;
    TH_TRY(th_json_parse(o->bytes, o->n, NULL, &have, err));
    const struct th_json *notes = th_json_path(have, "metadata.annotations");
    if (th_streq(th_json_str(th_json_get(notes, AUTOUPDATE)), "false")) {
        return 0;
    }
    const char *kind = th_json_path_str(wanted, "kind");
    const char *ns = th_json_path_str(wanted, "metadata.namespace");
    const char *name = th_json_path_str(wanted, "metadata.name");
    struct th_gvr gvr = {GROUP, "v1", plural_of(kind)};
    if (!th_json_equal(th_json_get(have, "roleRef"), th_json_get(wanted, "roleRef"))) {
        struct th_delete_opts d = TH_DELETE_OPTS_INIT;
        TH_TRY(th_client_delete(api->client, gvr, ns, name, &d, NULL, err));
        return th_client_create(api->client, gvr, ns, wanted, NULL, err);
    }
    if (!merge(have, wanted)) {
        return 0;
    }
    return th_client_update(api->client, gvr, ns, name, "", have, NULL, err);
}

int th_rbac_bootstrap(struct th_api *api, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *all = th_rbac_defaults();
    TH_CLEANUP(th_fresh_done) struct th_fresh f = {.n = 0};
    for (size_t i = 0; i < th_json_len(all); i++) {
        struct th_json *o = th_json_at(all, i);
        const char *kind = th_json_path_str(o, "kind");
        const char *ns = th_json_path_str(o, "metadata.namespace");
        th_autofree char *key = th_xasprintf(GROUP "/%s/%s/%s", plural_of(kind), ns ? ns : "-",
                                             th_json_path_str(o, "metadata.name"));
        TH_AUTO(th_obj) struct th_obj *there = th_store_get(api->store, key);
        int r = there ? mend(api, there, o, err)
                      : th_fresh_add(&f, key, o, th_kind_find(GROUP, "v1", kind), err);
        if (r < 0) {
            return th_wrap(err, "default RBAC object %s", key);
        }
    }
    return th_fresh_commit(api->store, &f, err);
}
