/*
 * The ReplicaSets of a Deployment: which one is new, what the revisions are, which annotations they
 * carry. Rules as k8s.io/kubernetes pkg/controller/deployment/{sync.go,util}: the new ReplicaSet is
 * the oldest one whose template equals the Deployment's (but for the hash label); a revision is one
 * more than the greatest of the others; annotations are copied but for a few.
 */
#include "controlplane/controllers/deployment_priv.h"
#include "base/buf.h"
#include "base/log.h"
#include <inttypes.h>
#include <stdio.h>

#define REVISION_HISTORY_MAX_B 2000

void th_rs_list_add(struct th_rs_list *l, struct th_json *rs)
{
    l->v = th_xgrow(l->v, &l->cap, l->n + 1, sizeof(*l->v));
    l->v[l->n++] = th_json_ref(rs);
}

void th_rs_list_done(struct th_rs_list *l)
{
    for (size_t i = 0; i < l->n; i++) {
        th_json_unref(l->v[i]);
    }
    free(l->v);
    *l = (struct th_rs_list){NULL, 0, 0};
}

int64_t th_rs_sum(const struct th_rs_list *l, const struct th_json *one_more, const char *path)
{
    int64_t sum = one_more ? th_json_path_int(one_more, path, 0) : 0;
    for (size_t i = 0; i < l->n; i++) {
        sum += th_json_path_int(l->v[i], path, 0);
    }
    return sum;
}

static const char *annotation(const struct th_json *obj, const char *name)
{
    return th_json_str(th_json_get(th_json_path(obj, "metadata.annotations"), name));
}

int64_t th_deploy_revision(const struct th_json *obj)
{
    const char *text = annotation(obj, TH_REVISION_ANNOTATION);
    return text ? strtoll(text, NULL, 10) : 0;
}

/* ---- Numbers of the strategy ---- */

bool th_deploy_is_rolling(const struct th_json *d)
{
    return !th_streq(th_json_path_str(d, "spec.strategy.type"), "Recreate");
}

/* An int-or-percent of total, rounded up or down. */
static int64_t scaled(const struct th_json *v, int64_t total, bool up)
{
    const char *text = th_json_str(v);
    if (!text) {
        return th_json_as_int(v, 0);
    }
    int64_t percent = strtoll(text, NULL, 10);
    return (percent * total + (up ? 99 : 0)) / 100;
}

int64_t th_deploy_max_surge(const struct th_json *d)
{
    if (!th_deploy_is_rolling(d)) {
        return 0;
    }
    int64_t replicas = th_json_path_int(d, "spec.replicas", 1);
    return scaled(th_json_path(d, "spec.strategy.rollingUpdate.maxSurge"), replicas, true);
}

int64_t th_deploy_max_unavailable(const struct th_json *d)
{
    int64_t replicas = th_json_path_int(d, "spec.replicas", 1);
    if (!th_deploy_is_rolling(d) || replicas == 0) {
        return 0;
    }
    int64_t n =
        scaled(th_json_path(d, "spec.strategy.rollingUpdate.maxUnavailable"), replicas, false);
    if (n == 0 && th_deploy_max_surge(d) == 0) {
        n = 1; /* both would block for ever */
    }
    return n > replicas ? replicas : n;
}

int64_t th_deploy_new_rs_replicas(const struct th_deploy *x)
{
    int64_t wanted = th_json_path_int(x->d, "spec.replicas", 1);
    if (!th_deploy_is_rolling(x->d)) {
        return wanted;
    }
    int64_t current = th_rs_sum(&x->all, NULL, "spec.replicas");
    int64_t most = wanted + th_deploy_max_surge(x->d);
    int64_t own = x->new_rs ? th_json_path_int(x->new_rs, "spec.replicas", 0) : 0;
    if (current >= most) {
        return own;
    }
    int64_t up = most - current;
    if (up > wanted - own) {
        up = wanted - own;
    }
    return own + up;
}

bool th_deploy_saturated(const struct th_deploy *x)
{
    if (!x->new_rs) {
        return false;
    }
    int64_t wanted = th_json_path_int(x->d, "spec.replicas", 1);
    const char *desired = annotation(x->new_rs, TH_DESIRED_ANNOTATION);
    return th_json_path_int(x->new_rs, "spec.replicas", 0) == wanted && desired &&
           strtoll(desired, NULL, 10) == wanted &&
           th_json_path_int(x->new_rs, "status.availableReplicas", 0) == wanted;
}

/* ---- Annotations ---- */

/* Replaces the annotation; false when it was so. NULL value removes. */
static bool annotate(struct th_json *obj, const char *name, const char *value)
{
    struct th_json *a = th_json_path_object(obj, "metadata.annotations");
    if (th_streq(th_json_str(th_json_get(a, name)), value)) {
        return false;
    }
    if (value) {
        th_json_set_str(a, name, value);
    } else {
        (void)th_json_del(a, name);
    }
    return true;
}

static bool skip_copy(const char *name)
{
    static const char *const skipped[] = {"kubectl.kubernetes.io/last-applied-configuration",
                                          TH_REVISION_ANNOTATION,
                                          TH_REVISION_HISTORY_ANNOTATION,
                                          TH_DESIRED_ANNOTATION,
                                          TH_MAX_ANNOTATION,
                                          "deprecated.deployment.rollback.to"};
    for (size_t i = 0; i < TH_ARRAY_LEN(skipped); i++) {
        if (th_streq(name, skipped[i])) {
            return true;
        }
    }
    return false;
}

static bool set_size_annotations(const struct th_json *d, struct th_json *rs)
{
    char desired[24], most[24];
    int64_t replicas = th_json_path_int(d, "spec.replicas", 1);
    (void)snprintf(desired, sizeof(desired), "%" PRId64, replicas);
    (void)snprintf(most, sizeof(most), "%" PRId64, replicas + th_deploy_max_surge(d));
    bool changed = annotate(rs, TH_DESIRED_ANNOTATION, desired);
    return annotate(rs, TH_MAX_ANNOTATION, most) || changed;
}

/* The revisions this set stood for before: an undo makes an old one new again. */
static void remember_revision(struct th_json *rs, const char *before)
{
    const char *history = annotation(rs, TH_REVISION_HISTORY_ANNOTATION);
    th_autofree char *longer =
        history && *history ? th_xasprintf("%s,%s", history, before) : th_xstrdup(before);
    const char *shown = longer;
    while (strlen(shown) > REVISION_HISTORY_MAX_B && strchr(shown, ',')) {
        shown = strchr(shown, ',') + 1;
    }
    (void)annotate(rs, TH_REVISION_HISTORY_ANNOTATION, shown);
}

static bool set_rs_annotations(const struct th_json *d, struct th_json *rs, const char *revision,
                               bool exists)
{
    bool changed = false;
    struct th_json_iter it = TH_JSON_ITER(th_json_path(d, "metadata.annotations"));
    while (th_json_next(&it)) {
        if (!skip_copy(it.name)) {
            changed = annotate(rs, it.name, th_json_str(it.value)) || changed;
        }
    }
    const char *now = annotation(rs, TH_REVISION_ANNOTATION);
    int64_t before = now ? strtoll(now, NULL, 10) : 0;
    if (before < strtoll(revision, NULL, 10)) {
        th_autofree char *was = th_xstrdup(now);
        (void)annotate(rs, TH_REVISION_ANNOTATION, revision);
        changed = true;
        if (was) {
            remember_revision(rs, was);
        }
    }
    if (!exists) {
        changed = set_size_annotations(d, rs) || changed;
    }
    return changed;
}

/* ---- Which one is new ---- */

static bool same_template(const struct th_json *a, const struct th_json *b)
{
    struct th_json *ca TH_AUTO(th_json) = th_json_dup(a);
    struct th_json *cb TH_AUTO(th_json) = th_json_dup(b);
    struct th_json *both[] = {ca, cb};
    for (size_t i = 0; i < 2; i++) {
        struct th_json *labels = th_json_path(both[i], "metadata.labels");
        (void)th_json_del(labels, TH_HASH_LABEL);
        if (labels && th_json_len(labels) == 0) {
            (void)th_json_path_del(both[i], "metadata.labels");
        }
        (void)th_json_path_del(both[i], "metadata.creationTimestamp");
        struct th_json *meta = th_json_get(both[i], "metadata");
        if (th_json_has(both[i], "metadata") && th_json_len(meta) == 0) {
            (void)th_json_del(both[i], "metadata");
        }
    }
    return th_json_equal(ca, cb);
}

static int older_first(const void *a, const void *b)
{
    struct th_json *const *x = a, *const *y = b;
    int64_t tx = th_obj_time_ms(*x, "metadata.creationTimestamp");
    int64_t ty = th_obj_time_ms(*y, "metadata.creationTimestamp");
    if (tx != ty) {
        return tx < ty ? -1 : 1;
    }
    return strcmp(th_json_path_str(*x, "metadata.name"), th_json_path_str(*y, "metadata.name"));
}

static void find_new(struct th_deploy *x)
{
    qsort(x->all.v, x->all.n, sizeof(*x->all.v), older_first);
    for (size_t i = 0; i < x->all.n && !x->new_rs; i++) {
        if (same_template(th_json_path(x->all.v[i], "spec.template"),
                          th_json_path(x->d, "spec.template"))) {
            x->new_rs = th_json_ref(x->all.v[i]);
        }
    }
    for (size_t i = 0; i < x->all.n; i++) {
        if (x->all.v[i] != x->new_rs) {
            th_rs_list_add(&x->old, x->all.v[i]);
        }
    }
}

/* ---- Writing ---- */

/* PUTs rs and puts the answer in its place (in *rs and in x->all). */
static int put_rs(struct th_deploy *x, struct th_json **rs, struct th_json *changed,
                  struct th_err *err)
{
    struct th_json *now = NULL;
    TH_TRY(th_client_update(th_ctrl_client(x->c), TH_GVR_REPLICASETS, x->ns,
                            th_json_path_str(changed, "metadata.name"), "", changed, &now, err));
    for (size_t i = 0; i < x->all.n; i++) {
        if (x->all.v[i] == *rs) {
            th_json_unref(x->all.v[i]);
            x->all.v[i] = th_json_ref(now);
        }
    }
    th_json_unref(*rs);
    *rs = now;
    th_ctrl_expect(x->c, x->key, TH_GVR_REPLICASETS, now);
    return 0;
}

int th_deploy_scale_rs(struct th_deploy *x, struct th_json **rs, int64_t replicas,
                       struct th_err *err)
{
    int64_t before = th_json_path_int(*rs, "spec.replicas", 1);
    struct th_json *copy TH_AUTO(th_json) = th_json_dup(*rs);
    bool annotated = set_size_annotations(x->d, copy);
    if (before == replicas && !annotated) {
        return 0;
    }
    th_json_path_set_int(copy, "spec.replicas", replicas);
    TH_TRY(put_rs(x, rs, copy, err));
    if (before == replicas) {
        return 0;
    }
    th_event_record(th_ctrl_recorder(x->c), x->d, "Normal", "ScalingReplicaSet",
                    "Scaled %s replica set %s from %" PRId64 " to %" PRId64,
                    replicas > before ? "up" : "down", th_json_path_str(*rs, "metadata.name"),
                    before, replicas);
    return 1;
}

/* The revision is an annotation of the Deployment; kubectl rollout history and undo read it. */
static int set_deployment_revision(struct th_deploy *x, const char *revision, struct th_err *err)
{
    if (!annotate(x->d, TH_REVISION_ANNOTATION, revision)) {
        return 0;
    }
    struct th_json *now TH_AUTO(th_json) = NULL;
    TH_TRY(th_client_update(th_ctrl_client(x->c), TH_GVR_DEPLOYMENTS, x->ns, x->name, "", x->d,
                            &now, err));
    th_json_path_set_str(x->d, "metadata.resourceVersion",
                         th_json_path_str(now, "metadata.resourceVersion"));
    th_ctrl_expect(x->c, x->key, TH_GVR_DEPLOYMENTS, now);
    return 0;
}

static int update_existing(struct th_deploy *x, const char *revision, struct th_err *err)
{
    struct th_json *copy TH_AUTO(th_json) = th_json_dup(x->new_rs);
    bool changed = set_rs_annotations(x->d, copy, revision, true);
    int64_t min_ready = th_json_path_int(x->d, "spec.minReadySeconds", 0);
    if (th_json_path_int(copy, "spec.minReadySeconds", 0) != min_ready) {
        th_json_path_set_int(copy, "spec.minReadySeconds", min_ready);
        changed = true;
    }
    if (changed) {
        TH_TRY(put_rs(x, &x->new_rs, copy, err));
    }
    TH_TRY(set_deployment_revision(x, annotation(x->new_rs, TH_REVISION_ANNOTATION), err));
    if (th_deploy_has_deadline(x->d) && !th_cond_get(x->d, "Progressing") &&
        th_deploy_set_progress(x, "True", "FoundNewReplicaSet", "Found new replica set \"%s\"",
                               th_json_path_str(x->new_rs, "metadata.name"))) {
        return th_deploy_write_status(x, th_deploy_status(x->d), err);
    }
    return 0;
}

static struct th_json *build_rs(struct th_deploy *x, const char *revision)
{
    char hash[16];
    th_template_hash(th_json_path(x->d, "spec.template"),
                     th_json_path_int(x->d, "status.collisionCount", 0), hash);
    struct th_json *tmpl = th_json_dup(th_json_path(x->d, "spec.template"));
    th_json_set_str(th_json_path_object(tmpl, "metadata.labels"), TH_HASH_LABEL, hash);
    struct th_json *selector = th_json_dup(th_json_path(x->d, "spec.selector"));
    th_json_set_str(th_json_path_object(selector, "matchLabels"), TH_HASH_LABEL, hash);
    struct th_json *owners = th_json_array();
    th_json_append(owners, th_owner_ref_build(x->d, true, true));
    th_autofree char *name = th_xasprintf("%s-%s", x->name, hash);
    struct th_json *rs =
        th_json_build("{'apiVersion':'apps/"
                      "v1','kind':'ReplicaSet','metadata':{'name':%s,'namespace':%s,'labels':%o,"
                      "'ownerReferences':%o},'spec':{'replicas':%d,'minReadySeconds':%d,'selector':"
                      "%o,'template':%o}}",
                      name, x->ns, th_json_dup(th_json_path(tmpl, "metadata.labels")), owners,
                      th_deploy_new_rs_replicas(x),
                      th_json_path_int(x->d, "spec.minReadySeconds", 0), selector, tmpl);
    (void)set_rs_annotations(x->d, rs, revision, false);
    return rs;
}

/* The name is taken: by our own set that the cache has not seen yet, or by chance by another one,
 * which the collision count gets us past. */
static int name_taken(struct th_deploy *x, const struct th_json *rs, struct th_json **ret,
                      struct th_err *err)
{
    struct th_json *there TH_AUTO(th_json) = NULL;
    const char *name = th_json_path_str(rs, "metadata.name");
    TH_TRY(th_client_get(th_ctrl_client(x->c), TH_GVR_REPLICASETS, x->ns, name, &there, err));
    if (th_streq(th_controller_uid(there), th_json_path_str(x->d, "metadata.uid")) &&
        same_template(th_json_path(there, "spec.template"), th_json_path(x->d, "spec.template"))) {
        *ret = th_steal(&there);
        return 0;
    }
    struct th_json *status = th_deploy_status(x->d);
    th_json_set_int(status, "collisionCount", th_json_path_int(status, "collisionCount", 0) + 1);
    TH_TRY(th_deploy_write_status(x, status, err));
    return th_fail(err, TH_R_CONFLICT, "the hash of the template collides with replica set \"%s\"",
                   name);
}

static int create_new(struct th_deploy *x, const char *revision, struct th_err *err)
{
    struct th_json *rs TH_AUTO(th_json) = build_rs(x, revision);
    struct th_json *made TH_AUTO(th_json) = NULL;
    int r = th_client_create(th_ctrl_client(x->c), TH_GVR_REPLICASETS, x->ns, rs, &made, err);
    bool existed = r == -TH_R_ALREADY_EXISTS;
    if (existed) {
        th_err_done(err);
        r = name_taken(x, rs, &made, err);
    }
    if (r < 0) {
        if (r != -TH_R_CONFLICT && th_deploy_has_deadline(x->d) &&
            th_deploy_set_progress(x, "False", "ReplicaSetCreateError",
                                   "Failed to create new replica set \"%s\": %s",
                                   th_json_path_str(rs, "metadata.name"), err->msg)) {
            struct th_err ignored TH_CLEANUP(th_err_done) = TH_ERR_INIT;
            if (th_deploy_write_status(x, th_deploy_status(x->d), &ignored) < 0) {
                th_debug("controllers", "condition not written", "error=%s", th_log_q(ignored.msg));
            }
        }
        return r;
    }
    th_ctrl_expect(x->c, x->key, TH_GVR_REPLICASETS, made);
    x->new_rs = th_json_ref(made);
    th_rs_list_add(&x->all, made);
    if (!existed && th_json_path_int(made, "spec.replicas", 0) > 0) {
        th_event_record(th_ctrl_recorder(x->c), x->d, "Normal", "ScalingReplicaSet",
                        "Scaled up replica set %s from 0 to %" PRId64,
                        th_json_path_str(made, "metadata.name"),
                        th_json_path_int(made, "spec.replicas", 0));
    }
    TH_TRY(set_deployment_revision(x, revision, err));
    if (!existed && th_deploy_has_deadline(x->d)) {
        (void)th_deploy_set_progress(x, "True", "NewReplicaSetCreated",
                                     "Created new replica set \"%s\"",
                                     th_json_path_str(made, "metadata.name"));
    }
    return th_deploy_write_status(x, th_deploy_status(x->d), err);
}

int th_deploy_find_sets(struct th_deploy *x, bool create, struct th_err *err)
{
    find_new(x);
    int64_t greatest = 0;
    for (size_t i = 0; i < x->old.n; i++) {
        int64_t revision = th_deploy_revision(x->old.v[i]);
        greatest = revision > greatest ? revision : greatest;
    }
    char revision[24];
    (void)snprintf(revision, sizeof(revision), "%" PRId64, greatest + 1);
    if (x->new_rs) {
        return update_existing(x, revision, err);
    }
    return create ? create_new(x, revision, err) : 0;
}
