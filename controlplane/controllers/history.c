/*
 * ControllerRevisions; see history.h. The data of one is the patch that brings the owner back to
 * it: {"spec": {"template": {..., "$patch": "replace"}}}, which kubectl rollout undo applies. Two
 * revisions with the same data are one: an undo gives the old one the next number. As
 * k8s.io/kubernetes pkg/controller/history.
 */
#include "controlplane/controllers/history.h"
#include "base/buf.h"
#include <inttypes.h>

/* Members in the order of their names: clients compare the bytes with what Go writes. */
static struct th_json *data_of(const struct th_json *owner)
{
    struct th_json *t = th_json_dup(th_json_path(owner, "spec.template"));
    th_json_set_str(t, "$patch", "replace");
    struct th_json *data TH_AUTO(th_json) = th_json_build("{'spec':{'template':%o}}", t);
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_json_dump_sorted(data, &b);
    struct th_json *sorted = NULL;
    return th_json_parse(b.p, b.n, NULL, &sorted, NULL) < 0 ? th_steal(&data) : sorted;
}

const struct th_json *th_history_template(const struct th_json *revision)
{
    return th_json_path(revision, "data.spec.template");
}

static int by_revision(const struct th_json *a, const struct th_json *b)
{
    int64_t ra = th_json_path_int(a, "revision", 0), rb = th_json_path_int(b, "revision", 0);
    if (ra != rb) {
        return ra < rb ? -1 : 1;
    }
    int64_t ta = th_obj_time_ms(a, "metadata.creationTimestamp");
    int64_t tb = th_obj_time_ms(b, "metadata.creationTimestamp");
    return ta != tb ? (ta < tb ? -1 : 1)
                    : strcmp(th_json_path_str(a, "metadata.name"),
                             th_json_path_str(b, "metadata.name"));
}

static bool collect(void *arg, struct th_json *revision)
{
    th_json_append(arg, th_json_ref(revision));
    return true;
}

static struct th_json *build(const struct th_json *owner, const struct th_json *data,
                             int64_t revision, int64_t collisions)
{
    char hash[16];
    th_template_hash(th_json_path(owner, "spec.template"), collisions, hash);
    th_autofree char *name = th_xasprintf("%s-%s", th_json_path_str(owner, "metadata.name"), hash);
    struct th_json *owners = th_json_array();
    th_json_append(owners, th_owner_ref_build(owner, true, true));
    const struct th_json *labels = th_json_path(owner, "spec.template.metadata.labels");
    struct th_json *copy = labels ? th_json_dup(labels) : th_json_object();
    th_json_set_str(copy, TH_REVISION_HASH_LABEL, hash);
    struct th_json *made =
        th_json_build("{'apiVersion':'apps/v1','kind':'ControllerRevision','metadata':{'name':%s,"
                      "'namespace':%s,'labels':%o,'ownerReferences':%o},'data':%o,'revision':%d}",
                      name, th_json_path_str(owner, "metadata.namespace"), copy, owners,
                      th_json_dup(data), revision);
    const struct th_json *notes = th_json_path(owner, "metadata.annotations");
    if (notes) { /* kubectl rollout history shows their change-cause */
        th_json_path_set(made, "metadata.annotations", th_json_dup(notes));
    }
    return made;
}

static int create(struct th_ctrl *c, const char *key, const struct th_json *owner,
                  const struct th_json *data, int64_t revision, int64_t *collisions,
                  struct th_json **ret, struct th_err *err)
{
    const char *ns = th_json_path_str(owner, "metadata.namespace");
    for (;;) {
        struct th_json *obj TH_AUTO(th_json) = build(owner, data, revision, *collisions);
        int r = th_client_create(th_ctrl_client(c), TH_GVR_REVISIONS, ns, obj, ret, err);
        if (r != -TH_R_ALREADY_EXISTS) {
            if (r >= 0) {
                th_ctrl_expect(c, key, TH_GVR_REVISIONS, *ret);
            }
            return r;
        }
        th_err_done(err);
        struct th_json *there TH_AUTO(th_json) = NULL;
        TH_TRY(th_client_get(th_ctrl_client(c), TH_GVR_REVISIONS, ns,
                             th_json_path_str(obj, "metadata.name"), &there, err));
        if (th_streq(th_controller_uid(there), th_json_path_str(owner, "metadata.uid")) &&
            th_json_equal(th_json_get(there, "data"), data)) {
            *ret = th_steal(&there);
            return 0;
        }
        (*collisions)++;
    }
}

static int renumber(struct th_ctrl *c, const char *key, struct th_json *revision, int64_t number,
                    struct th_json **ret, struct th_err *err)
{
    th_json_set_int(revision, "revision", number);
    TH_TRY(th_client_update(th_ctrl_client(c), TH_GVR_REVISIONS,
                            th_json_path_str(revision, "metadata.namespace"),
                            th_json_path_str(revision, "metadata.name"), "", revision, ret, err));
    th_ctrl_expect(c, key, TH_GVR_REVISIONS, *ret);
    return 0;
}

int th_history_current(struct th_ctrl *c, const char *key, const struct th_json *owner,
                       int64_t *ret_collisions, struct th_json **ret_all, struct th_err *err)
{
    struct th_json *all TH_AUTO(th_json) = th_json_array();
    struct th_json *data TH_AUTO(th_json) = data_of(owner);
    th_informer_by_owner(th_ctrl_informer(c, TH_GVR_REVISIONS),
                         th_json_path_str(owner, "metadata.uid"), collect, all);
    th_json_sort(all, by_revision);
    size_t n = th_json_len(all), at = n;
    int64_t last = n ? th_json_path_int(th_json_at(all, n - 1), "revision", 0) : 0;
    for (size_t i = 0; i < n; i++) {
        at = th_json_equal(th_json_get(th_json_at(all, i), "data"), data) ? i : at;
    }
    if (at + 1 < n || at == n) {
        struct th_json *now TH_AUTO(th_json) = NULL;
        if (at == n) {
            TH_TRY(create(c, key, owner, data, last + 1, ret_collisions, &now, err));
        } else {
            TH_TRY(renumber(c, key, th_json_at(all, at), last + 1, &now, err));
            th_json_del_at(all, at);
        }
        th_json_append(all, th_json_ref(now));
    }
    *ret_all = th_steal(&all);
    return 0;
}

int th_history_trim(struct th_ctrl *c, const char *key, const struct th_json *owner,
                    const struct th_json *all, const struct th_strv *live, struct th_err *err)
{
    int64_t keep = th_json_path_int(owner, "spec.revisionHistoryLimit", 10), old = 0;
    for (size_t i = 0; i < th_json_len(all); i++) {
        old += !th_strv_has(live, th_json_path_str(th_json_at(all, i), "metadata.name"));
    }
    for (size_t i = 0; i < th_json_len(all) && old > keep; i++) {
        const struct th_json *revision = th_json_at(all, i);
        if (!th_strv_has(live, th_json_path_str(revision, "metadata.name"))) {
            TH_TRY(th_ctrl_delete(c, key, TH_GVR_REVISIONS, revision, NULL, err));
            old--;
        }
    }
    return 0;
}
