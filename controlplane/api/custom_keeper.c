/*
 * The keeper of CustomResourceDefinitions: what has to be done after a write and not in it.
 *
 *   - A definition that is being deleted: its instances are deleted (their own finalizers may take
 *     their time), then the finalizer is taken off and the definition goes.
 *   - A definition that could not have its names: when another one of the group has gone, its names
 *     are looked at again.
 *
 * One thread, woken by a watch on the definitions. While instances are left it looks again after a
 * short while, longer each time. It is part of the API server and no controller: a server without
 * controllers must let go of definitions, too.
 */
#include "base/clock.h"
#include "base/log.h"
#include "controlplane/api/customs.h"
#include "controlplane/api/rounds.h"
#include "controlplane/resources/crd.h"

#define PREFIX "apiextensions.k8s.io/customresourcedefinitions/"
#define FIRST_WAIT_MS 50
#define LONGEST_WAIT_MS 5000

static const struct th_gvr crds = {"apiextensions.k8s.io", "v1", "customresourcedefinitions"};

struct th_custom_keeper {
    struct th_store *store;
    struct th_client *client;
    struct th_watch *watch;
    int64_t wait_ms; /* before the next try */
    struct th_rounds rounds;
};

/* ---- Deleting instances ---- */

/* Deletes what there is; how many are left. */
static size_t delete_instances(struct th_custom_keeper *k, const struct th_json *crd)
{
    const char *group = th_json_path_str(crd, "spec.group");
    const char *plural = th_json_path_str(crd, "spec.names.plural");
    const char *version = th_json_path_str(crd, "spec.versions[0].name");
    th_autofree char *prefix = th_xasprintf("%s/%s/", group, plural);
    TH_CLEANUP(th_store_list_done) struct th_store_list l = {.n = 0};
    if (th_store_range(k->store, prefix, NULL, 0, 0, &l, NULL) < 0) {
        return 1;
    }
    const struct th_gvr gvr = {group, version, plural};
    for (size_t i = 0; i < l.n; i++) {
        th_autofree char *ns = th_xstrdup(l.objs[i]->key + strlen(prefix));
        char *slash = strchr(ns, '/');
        TH_ASSERT(slash);
        *slash = '\0';
        const struct th_delete_opts o = TH_DELETE_OPTS_INIT;
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        int r = th_client_delete(k->client, gvr, th_streq(ns, "-") ? NULL : ns, slash + 1, &o, NULL,
                                 &err);
        if (r < 0 && r != -TH_R_NOT_FOUND) {
            th_warn("api", "instance not deleted", "key=%s error=%s", th_log_q(l.objs[i]->key),
                    th_log_q(err.msg));
        }
    }
    th_store_list_done(&l);
    l = (struct th_store_list){.n = 0};
    return th_store_range(k->store, prefix, NULL, 0, 0, &l, NULL) < 0 ? 1 : l.n;
}

static int take_finalizer(void *arg, struct th_json *crd, struct th_err *err)
{
    (void)arg;
    (void)err;
    const struct th_json *list = th_json_path(crd, "metadata.finalizers");
    struct th_json *kept = th_json_array();
    for (size_t i = 0; i < th_json_len(list); i++) {
        if (!th_streq(th_json_str(th_json_at(list, i)), TH_CRD_FINALIZER)) {
            th_json_append(kept, th_json_ref(th_json_at(list, i)));
        }
    }
    bool changed = th_json_len(kept) != th_json_len(list);
    th_json_path_set(crd, "metadata.finalizers", kept);
    return changed;
}

static int say_in_progress(void *arg, struct th_json *crd, struct th_err *err)
{
    (void)arg;
    (void)err;
    return th_crd_set_condition(crd, "Terminating", "True", "InstanceDeletionInProgress",
                                "CustomResource deletion is in progress", th_now_ms());
}

static bool has_finalizer(const struct th_json *crd)
{
    const struct th_json *list = th_json_path(crd, "metadata.finalizers");
    for (size_t i = 0; i < th_json_len(list); i++) {
        if (th_streq(th_json_str(th_json_at(list, i)), TH_CRD_FINALIZER)) {
            return true;
        }
    }
    return false;
}

/* True when it has to be looked at again. */
static bool finalize(struct th_custom_keeper *k, const struct th_json *crd)
{
    const char *name = th_json_path_str(crd, "metadata.name");
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    bool established = th_streq(th_crd_condition(crd, "Established"), "True");
    if (established && delete_instances(k, crd) > 0) {
        (void)!th_client_modify(k->client, crds, NULL, name, "status", say_in_progress, NULL, NULL,
                               &err);
        return true;
    }
    int r = th_client_modify(k->client, crds, NULL, name, NULL, take_finalizer, NULL, NULL, &err);
    if (r < 0 && r != -TH_R_NOT_FOUND) {
        th_warn("api", "definition not finalized", "name=%s error=%s", th_log_q(name),
                th_log_q(err.msg));
        return true;
    }
    return false;
}

/* ---- Names ---- */

static int settle(void *arg, struct th_json *crd, struct th_err *err)
{
    (void)err;
    return th_crd_settle(crd, arg, th_now_ms());
}

static bool look(struct th_custom_keeper *k)
{
    TH_AUTO(th_json) struct th_json *list = NULL;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (th_client_list(k->client, crds, NULL, NULL, NULL, &list, &err) < 0) {
        return true;
    }
    bool again = false;
    struct th_json *items = th_json_get(list, "items");
    for (size_t i = 0; i < th_json_len(items); i++) {
        const struct th_json *crd = th_json_at(items, i);
        if (th_json_path_str(crd, "metadata.deletionTimestamp")) {
            again |= has_finalizer(crd) && finalize(k, crd);
        } else if (!th_streq(th_crd_condition(crd, "NamesAccepted"), "True") ||
                   !th_streq(th_crd_condition(crd, "Established"), "True")) {
            TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
            int r = th_client_modify(k->client, crds, NULL, th_json_path_str(crd, "metadata.name"),
                                     "status", settle, items, NULL, &local);
            again |= r < 0 && r != -TH_R_NOT_FOUND;
        }
    }
    return again;
}

/* ---- The thread ---- */

static int64_t round_of(void *arg, bool woken)
{
    struct th_custom_keeper *k = arg;
    int64_t longer = k->wait_ms * 2 > LONGEST_WAIT_MS ? LONGEST_WAIT_MS : k->wait_ms * 2;
    k->wait_ms = woken ? FIRST_WAIT_MS : longer;
    th_rounds_follow(&k->rounds, k->store, PREFIX, &k->watch);
    return look(k) ? th_mono_real_ms() + k->wait_ms : INT64_MAX;
}

struct th_custom_keeper *th_custom_keeper_new(struct th_store *store, struct th_client *client)
{
    struct th_custom_keeper *k = TH_NEW(struct th_custom_keeper);
    k->store = store;
    k->client = client;
    th_rounds_start(&k->rounds, round_of, k);
    return k;
}

void th_custom_keeper_free(struct th_custom_keeper *k)
{
    if (!k) {
        return;
    }
    th_rounds_stop(&k->rounds, &k->watch, 1);
    free(k);
}
