/*
 * Custom objects between the versions of their definition.
 *
 * Objects lie in the store in the version that was the storage version when they were written, and
 * with what the schema knew then. Reading: prune and default by the schema of that version, convert
 * to the version asked for, prune by its schema. Writing: convert to the storage version.
 *
 * Without a webhook, conversion changes apiVersion and nothing else. A webhook is sent the objects of a
 * list together, those that are in another version already; what it may change of metadata is labels
 * and annotations, the rest is put back.
 */
#include "base/rand.h"
#include "controlplane/api/customs.h"
#include "controlplane/api/hook_call.h"

#define TIMEOUT_MS 30000

static const struct th_custom *version_of(const struct th_crd *crd, const char *api_version)
{
    const char *slash = api_version ? strchr(api_version, '/') : NULL;
    for (size_t i = 0; slash && i < crd->n_versions; i++) {
        if (th_streq(crd->versions[i].version, slash + 1)) {
            return &crd->versions[i];
        }
    }
    return NULL;
}

static const struct th_custom *storage_of(const struct th_crd *crd)
{
    for (size_t i = 0; i < crd->n_versions; i++) {
        if (crd->versions[i].storage) {
            return &crd->versions[i];
        }
    }
    return NULL;
}

/* What a webhook gave, with the metadata that it must not change from the original. */
static int accept(struct th_json *made, const struct th_json *original, const char *want,
                  struct th_err *err)
{
    const char *version = th_json_path_str(made, "apiVersion");
    if (!th_streq(version, want)) {
        return th_fail(err, TH_R_INTERNAL, "invalid groupVersion in response, expected %s, got %s",
                       want, version ? version : "");
    }
    if (!th_streq(th_json_path_str(made, "kind"), th_json_path_str(original, "kind"))) {
        return th_fail(err, TH_R_INTERNAL, "invalid kind in response");
    }
    const struct th_json *was = th_json_get(original, "metadata");
    if (!th_json_is(th_json_get(made, "metadata"), TH_JSON_OBJECT)) {
        return th_fail(err, TH_R_INTERNAL, "invalid metadata in response: missing");
    }
    static const char *const fixed[] = {"name", "namespace", "uid"};
    for (size_t i = 0; i < TH_ARRAY_LEN(fixed); i++) {
        const struct th_json *now = th_json_get(th_json_get(made, "metadata"), fixed[i]);
        if (now && !th_json_equal(now, th_json_get(was, fixed[i]))) {
            return th_fail(err, TH_R_INTERNAL, "must have the same %s: %s != %s", fixed[i],
                           th_json_str(now), th_json_str(th_json_get(was, fixed[i])));
        }
    }
    struct th_json *meta = th_json_dup(was);
    static const char *const free_members[] = {"labels", "annotations"};
    for (size_t i = 0; i < TH_ARRAY_LEN(free_members); i++) {
        struct th_json *now = th_json_get(th_json_get(made, "metadata"), free_members[i]);
        if (now) {
            th_json_set(meta, free_members[i], th_json_dup(now));
        } else {
            th_json_del(meta, free_members[i]);
        }
    }
    th_json_set(made, "metadata", meta);
    return 0;
}

/* What an answer gives for these objects, each of which stands in a slot of its own. */
static int take_answer(const struct th_json *answer, const char *review, const char *uid,
                       const char *want, struct th_json ***slots, size_t n, struct th_err *err)
{
    const struct th_json *response = th_json_get(answer, "response");
    bool v1 = th_streq(review, "v1");
    const char *gv = th_json_path_str(answer, "apiVersion");
    const char *kind = th_json_path_str(answer, "kind");
    if (v1 && (!th_streq(gv, "apiextensions.k8s.io/v1") || !th_streq(kind, "ConversionReview"))) {
        return th_fail(err, TH_R_INTERNAL,
                       "expected webhook response of apiextensions.k8s.io/v1, "
                       "Kind=ConversionReview, got %s, Kind=%s",
                       gv ? gv : "/", kind ? kind : "");
    }
    if (!response) {
        return th_fail(err, TH_R_INTERNAL, "no response provided");
    }
    const char *have = th_json_path_str(response, "uid");
    if (v1 && !th_streq(have, uid)) {
        return th_fail(err, TH_R_INTERNAL, "expected response.uid=\"%s\", got \"%s\"", uid,
                       have ? have : "");
    }
    const char *status = th_json_path_str(response, "result.status");
    if (!th_streq(status, "Success")) {
        const char *why = th_json_path_str(response, "result.message");
        return why && *why ? th_fail(err, TH_R_INTERNAL, "%s", why)
                           : th_fail(err, TH_R_INTERNAL,
                                     "response.result.status was '%s', not 'Success'",
                                     status ? status : "");
    }
    struct th_json *list = th_json_get(response, "convertedObjects");
    if (th_json_len(list) != n) {
        return th_fail(err, TH_R_UNKNOWN, "returned %zu objects, expected %zu", th_json_len(list), n);
    }
    for (size_t i = 0; i < n; i++) {
        TH_AUTO(th_json) struct th_json *made = th_json_dup(th_json_at(list, i));
        TH_TRY(accept(made, *slots[i], want, err));
        th_json_unref(*slots[i]);
        *slots[i] = th_steal(&made);
    }
    return 0;
}

static int ask_webhook(const struct th_crd *crd, const char *want, struct th_json ***slots, size_t n,
                       struct th_err *err)
{
    char uid[TH_UUID_LEN];
    (void)th_rand_uuid(uid);
    const struct th_json *versions = th_json_get(crd->webhook, "conversionReviewVersions");
    const char *review = NULL;
    for (size_t i = 0; i < th_json_len(versions) && !review; i++) {
        const char *v = th_json_str(th_json_at(versions, i));
        review = th_streq(v, "v1") || th_streq(v, "v1beta1") ? v : NULL;
    }
    if (!review) {
        return th_fail(err, TH_R_INTERNAL, "no supported conversion review versions");
    }
    struct th_json *objects = th_json_array();
    for (size_t i = 0; i < n; i++) {
        th_json_append(objects, th_json_dup(*slots[i]));
    }
    TH_AUTO(th_json) struct th_json *body = th_json_build(
        "{'kind':'ConversionReview','apiVersion':%o,'request':{'uid':%s,'desiredAPIVersion':%s,"
        "'objects':%o}}",
        th_json_stringf("apiextensions.k8s.io/%s", review), uid, want, objects);
    TH_AUTO(th_json) struct th_json *answer = NULL;
    TH_TRY(th_hook_call(crd->hooks, th_json_get(crd->webhook, "clientConfig"), body, TIMEOUT_MS,
                        &answer, err));
    return take_answer(answer, review, uid, want, slots, n, err);
}

/* Objects of one definition into one version: those that are in another are sent together. */
static int convert(const struct th_custom *to, struct th_json **objs, size_t n, struct th_err *err)
{
    const struct th_crd *crd = to->crd;
    th_autofree char *want = th_xasprintf("%s/%s", crd->group, to->version);
    th_autofree struct th_json ***slots = th_xcalloc(n + 1, sizeof(struct th_json **));
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        if (th_streq(th_json_path_str(objs[i], "apiVersion"), want)) {
            continue;
        }
        if (crd->webhook) {
            slots[k++] = &objs[i];
        } else {
            th_json_set_str(objs[i], "apiVersion", want);
        }
    }
    if (k == 0) {
        return 0;
    }
    const char *have = th_json_path_str(*slots[0], "apiVersion");
    th_autofree char *from = th_xstrdup(have ? have : "");
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    int r = ask_webhook(crd, want, slots, k, &local);
    if (r == -TH_R_UNKNOWN) { /* too many or too few: upstream says that without "failed" */
        return th_fail(err, TH_R_INTERNAL,
                       "Internal error occurred: conversion webhook for %s, Kind=%s %s", from,
                       crd->kind, local.msg);
    }
    if (r < 0) {
        return th_fail(err, TH_R_INTERNAL,
                       "Internal error occurred: conversion webhook for %s, Kind=%s failed: %s",
                       from, crd->kind, local.msg);
    }
    return 0;
}

int th_custom_convert(const struct th_resource *res, struct th_json **obj, struct th_err *err)
{
    const struct th_custom *to = res->custom;
    TH_TRY(convert(to, obj, 1, err));
    (void)th_structural_prune(to->schema, *obj, true);
    return 0;
}

int th_custom_load(const struct th_resource *res, struct th_json **objs, size_t n,
                   struct th_err *err)
{
    const struct th_custom *to = res->custom;
    bool all_own = true;
    for (size_t i = 0; i < n; i++) {
        const struct th_custom *from =
            version_of(to->crd, th_json_path_str(objs[i], "apiVersion"));
        if (from) {
            (void)th_structural_prune(from->schema, objs[i], true);
            th_structural_default(from->schema, objs[i]);
        }
        all_own = all_own && from == to;
    }
    if (all_own) {
        return 0;
    }
    TH_TRY(convert(to, objs, n, err));
    for (size_t i = 0; i < n; i++) {
        (void)th_structural_prune(to->schema, objs[i], true);
    }
    return 0;
}

int th_custom_store(const struct th_resource *res, struct th_json **obj, struct th_err *err)
{
    const struct th_custom *to = storage_of(res->custom->crd);
    if (!to || to == res->custom) {
        return 0;
    }
    return th_custom_convert(&to->res, obj, err);
}
