/*
 * Mutating and validating admission webhooks.
 *
 * A webhook that matches a request is sent an AdmissionReview and answers whether it is allowed, what to
 * warn of, and, if it mutates, a JSON patch. Mutating webhooks are called one after the other, each sees
 * what those before made of the object; when one changes it, those before that asked for it
 * (reinvocationPolicy IfNeeded) are called once more after the whole chain. Validating webhooks are
 * called at the same time, up to TH_LIMIT_HOOK_CALLS of them, and the first in order that refuses is
 * the answer.
 *
 * A webhook that cannot be asked counts by its failurePolicy; one that says no always counts. A dry run
 * is refused when a webhook has side effects that it cannot leave out.
 */
#include "controlplane/api/admission/hooks.h"
#include "controlplane/api/hook_call.h"

#include "base/limits.h"
#include "base/log.h"
#include "base/encode.h"
#include "base/rand.h"

enum verdict { ALLOWED, REFUSED, UNREACHABLE };

struct answer {
    enum verdict verdict;
    struct th_err err; /* REFUSED: the answer; UNREACHABLE: why, without the webhook's name */
    struct th_json *review; /* what it said */
};

static void answer_done(struct answer *x)
{
    th_err_done(&x->err);
    th_json_unref(x->review);
}

static void unreachable(struct answer *x, const char *fmt, ...) TH_PRINTF(2, 3);
static void unreachable(struct answer *x, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    th_autofree char *s = th_xvasprintf(fmt, ap);
    va_end(ap);
    x->verdict = UNREACHABLE;
    (void)th_fail(&x->err, TH_R_INTERNAL, "%s", s);
}

/* ---- One webhook ---- */

/* The Status of a webhook that says no, with its name in front. */
static void refuse(struct answer *x, const struct th_webhook *w, const struct th_json *result)
{
    const char *message = th_json_path_str(result, "message");
    const char *reason = th_json_path_str(result, "reason");
    int64_t code = th_json_path_int(result, "code", 0);
    code = code < 400 || code > 599 ? 400 : code;
    const char *why = message && *message ? message : reason && *reason ? reason : NULL;
    x->verdict = REFUSED;
    (void)th_fail(&x->err, th_reason_from_status(reason, (int)code),
                  "admission webhook \"%s\" denied the request%s%s", w->name, why ? ": " : " ",
                  why ? why : "without explanation");
    x->err.http_code = (int)code;
    x->err.status_reason = th_xstrdup(reason ? reason : "");
    x->err.name = th_xstrdup(th_json_path_str(result, "details.name"));
    x->err.group = th_xstrdup(th_json_path_str(result, "details.group"));
    x->err.kind = th_xstrdup(th_json_path_str(result, "details.kind"));
    x->err.uid = th_xstrdup(th_json_path_str(result, "details.uid"));
    x->err.retry_after_s = (int)th_json_path_int(result, "details.retryAfterSeconds", 0);
    const struct th_json *causes = th_json_path(result, "details.causes");
    for (size_t i = 0; i < th_json_len(causes); i++) {
        const struct th_json *c = th_json_at(causes, i);
        const char *r = th_json_path_str(c, "reason"), *m = th_json_path_str(c, "message");
        const char *f = th_json_path_str(c, "field");
        th_err_add_cause(&x->err, r ? r : "", f ? f : "", "%s", m ? m : "");
    }
}

/* NULL when the webhook knows no version of the review that is known here. */
static struct th_json *make_review(const struct th_webhook *w, struct th_admit *a,
                                   const struct th_resource *as, struct th_err *err)
{
    if (!w->v1_first && !w->v1beta1) {
        (void)th_fail(err, TH_R_INTERNAL,
                      "could not create admission objects: webhook does not accept known "
                      "AdmissionReview versions (v1, v1beta1)");
        return NULL;
    }
    struct th_json *object = NULL;
    const struct th_json *old = NULL;
    if (th_admit_form(a, as, &object, &old, err) < 0) {
        return NULL;
    }
    char uid[TH_UUID_LEN];
    struct th_json *request = th_json_object();
    th_json_set_str(request, "uid", th_rand_uuid(uid));
    TH_AUTO(th_json) struct th_json *rest = th_admit_request(a, as);
    struct th_json_iter it = TH_JSON_ITER(rest);
    while (th_json_next(&it)) {
        if (th_streq(it.name, "dryRun")) { /* in upstream's order, for those who read it */
            th_json_set(request, "object", object ? th_json_dup(object) : NULL);
            th_json_set(request, "oldObject", old ? th_json_dup(old) : NULL);
        }
        th_json_set(request, it.name, it.value ? th_json_dup(it.value) : NULL);
    }
    return th_json_build("{'kind':'AdmissionReview','apiVersion':%s,'request':%o}",
                         w->v1_first ? "admission.k8s.io/v1" : "admission.k8s.io/v1beta1", request);
}

/* What upstream checks of an answer; false with the reason in x. */
static bool verify(struct answer *x, const struct th_webhook *w, const struct th_json *asked,
                   bool mutating)
{
    static const char prefix[] = "received invalid webhook response: ";
    const struct th_json *r = th_json_get(x->review, "response");
    const char *uid = th_json_path_str(asked, "request.uid");
    const char *have = th_json_path_str(r, "uid");
    const char *gv = th_json_path_str(x->review, "apiVersion");
    const char *kind = th_json_path_str(x->review, "kind");
    const char *patch = th_json_path_str(r, "patch");
    bool typed = th_json_get(r, "patchType") != NULL;
    if (!th_json_is(r, TH_JSON_OBJECT)) {
        unreachable(x, "%swebhook response was absent", prefix);
        return false;
    }
    if (!w->v1_first) {
        return true; /* of v1beta1 nothing more was ever checked */
    }
    if (!th_streq(have, uid)) {
        unreachable(x, "%sexpected response.uid=\"%s\", got \"%s\"", prefix, uid, have ? have : "");
    } else if (!th_streq(gv, "admission.k8s.io/v1") || !th_streq(kind, "AdmissionReview")) {
        unreachable(x, "%sexpected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, "
                       "got %s, Kind=%s",
                    prefix, gv ? gv : "/", kind ? kind : "");
    } else if (!mutating && patch && *patch) {
        unreachable(x, "%svalidating webhook may not return response.patch", prefix);
    } else if (!mutating && typed) {
        unreachable(x, "%svalidating webhook may not return response.patchType", prefix);
    } else if (mutating && patch && *patch && !typed) {
        unreachable(x, "%swebhook returned response.patch but not response.patchType", prefix);
    } else if (mutating && typed && !(patch && *patch)) {
        unreachable(x, "%swebhook returned response.patchType but not response.patch", prefix);
    } else {
        return true;
    }
    return false;
}

static void ask(struct th_hook_pool *pool, const struct th_webhook *w, const struct th_json *review,
                bool mutating, struct answer *x)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (th_hook_call(pool, th_json_get(w->json, "clientConfig"), review, w->timeout_ms, &x->review,
                     &err) < 0) {
        unreachable(x, "failed to call webhook: %s", err.msg);
        return;
    }
    if (!verify(x, w, review, mutating)) {
        return;
    }
    const struct th_json *r = th_json_get(x->review, "response");
    if (!th_json_path_bool(r, "allowed", false)) {
        refuse(x, w, th_json_get(r, "result") ? th_json_get(r, "result") : th_json_get(r, "status"));
    }
}

/* Warnings and annotations of an answer. */
static void take_notes(struct th_admit *a, const struct th_webhook *w, const struct answer *x)
{
    const struct th_json *r = th_json_get(x->review, "response");
    const struct th_json *warnings = th_json_get(r, "warnings");
    for (size_t i = 0; x->verdict != UNREACHABLE && i < th_json_len(warnings); i++) {
        const char *s = th_json_str(th_json_at(warnings, i));
        if (s) {
            th_strv_add(&a->c->warnings, s);
        }
    }
    struct th_json_iter it = TH_JSON_ITER(
        x->verdict != UNREACHABLE ? th_json_get(r, "auditAnnotations") : NULL);
    while (th_json_next(&it)) {
        th_autofree char *key = th_xasprintf("%s/%s", w->name, it.name);
        th_audit_annotate(a->c, key, th_json_str(it.value) ? th_json_str(it.value) : "");
    }
}

/* The answer of a webhook that did not allow, as an error of the request; 0 when it is passed over. */
static int settle(struct th_admit *a, const struct th_webhook *w, struct answer *x, const char *note,
                  struct th_err *err)
{
    if (x->verdict == REFUSED) {
        int r = -(int)x->err.reason;
        if (err) {
            th_err_move(err, &x->err);
        }
        return r;
    }
    th_autofree char *text =
        th_xasprintf("failed calling webhook \"%s\": %s", w->name, x->err.msg);
    th_warn("api", w->fail_open ? "webhook failed, failing open" : "webhook failed, failing closed",
            "webhook=%s error=%s", th_log_q(w->name), th_log_q(text));
    if (w->fail_open) {
        th_audit_annotate(a->c, note, w->name);
        return 0;
    }
    (void)th_fail(err, TH_R_INTERNAL, "Internal error occurred: %s", text);
    if (err) {
        th_err_add_cause(err, "", "", "%s", text);
    }
    return -TH_R_INTERNAL;
}

/* 1 when it is to be called, as *ret_as. */
static int wanted(const struct th_webhook *w, struct th_admit *a, const struct th_resource **ret_as,
                  struct th_err *err)
{
    int r = th_match(&w->match, a, ret_as, err);
    if (r <= 0) {
        return r;
    }
    TH_AUTO_ERR struct th_err why = TH_ERR_INIT;
    r = th_conditions_match(&w->conditions, a, *ret_as, NULL, w->fail_open, &why);
    return r < 0 ? th_admit_forbidden(a, err, "%s", why.msg) : r;
}

static int check_dry_run(const struct th_webhook *w, const struct th_admit *a, struct th_err *err)
{
    return a->c->dry_run && !w->dry_run_ok
               ? th_fail(err, TH_R_BAD_REQUEST, "admission webhook \"%s\" does not support dry run",
                         w->name)
               : 0;
}

/* ---- Mutating ---- */

static void note_mutation(struct th_admit *a, const struct th_webhook *w, size_t index, bool changed,
                          const struct th_json *patch)
{
    th_autofree char *key = th_xasprintf("mutation.webhook.admission.k8s.io/round_%d_index_%zu",
                                         a->reinvoking ? 1 : 0, index);
    TH_AUTO(th_json) struct th_json *o = th_json_build(
        "{'configuration':%s,'webhook':%s,'mutated':%b}", w->config, w->name, (int)changed);
    th_autofree char *text = th_json_to_string(o);
    th_audit_annotate(a->c, key, text);
    if (patch && a->c->audit) {
        th_autofree char *pkey = th_xasprintf("patch.webhook.admission.k8s.io/round_%d_index_%zu",
                                              a->reinvoking ? 1 : 0, index);
        TH_AUTO(th_json) struct th_json *p = th_json_build(
            "{'configuration':%s,'webhook':%s,'patch':%o,'patchType':'JSONPatch'}", w->config,
            w->name, th_json_dup(patch));
        th_autofree char *ptext = th_json_to_string(p);
        th_audit_annotate_request(a->c, pkey, ptext);
    }
}

/* Applies the answer's patch. */
static int take_patch(struct th_admit *a, const struct th_webhook *w, const struct th_resource *as,
                      struct answer *x, struct th_json **ret_patch, bool *ret_changed,
                      struct th_err *err)
{
    const struct th_json *r = th_json_get(x->review, "response");
    const char *b64 = th_json_path_str(r, "patch");
    const char *type = th_json_path_str(r, "patchType");
    th_autobuf struct th_buf text = TH_BUF_INIT;
    TH_AUTO_ERR struct th_err why = TH_ERR_INIT;
    if (!b64 || !*b64) {
        return 0;
    }
    if (th_b64_decode(b64, strlen(b64), &text, &why) < 0 ||
        th_json_parse(th_buf_cstr(&text), text.n, NULL, ret_patch, &why) < 0 ||
        !th_json_is(*ret_patch, TH_JSON_ARRAY)) {
        unreachable(x, "received undecodable patch in webhook response: %s",
                    why.msg ? why.msg : "it is no list of operations");
        return 0;
    }
    if (th_json_len(*ret_patch) == 0) {
        return 0;
    }
    if (!a->object) {
        return th_fail(err, TH_R_INTERNAL,
                       "Internal error occurred: admission webhook \"%s\" attempted to modify the "
                       "object, which is not supported for this operation",
                       w->name);
    }
    if (w->v1_first && !th_streq(type, "JSONPatch")) {
        unreachable(x, "unsupported patch type \"%s\"", type ? type : "");
        return 0;
    }
    struct th_json *object = NULL, *made = NULL;
    const struct th_json *old = NULL;
    TH_TRY(th_admit_form(a, as, &object, &old, err));
    if (th_json_patch(object, *ret_patch, &made, &why) < 0) {
        return th_fail(err, TH_R_INTERNAL, "Internal error occurred: %s",
                       why.hint ? why.hint : why.msg);
    }
    return th_admit_replace(a, as, made, ret_changed, err);
}

/* Those that were called before must be called again. */
static void require_again(struct th_admit *a)
{
    for (size_t i = 0; i < a->seen.n; i++) {
        if (!th_strv_has(&a->again, a->seen.v[i])) {
            th_strv_add(&a->again, a->seen.v[i]);
        }
    }
    th_strv_done(&a->seen);
    a->reinvoke = true;
}

static int mutate_one(struct th_admit *a, const struct th_webhook *w, const struct th_resource *as,
                      size_t index, struct th_err *err)
{
    TH_CLEANUP(answer_done) struct answer x = {.verdict = ALLOWED};
    TH_AUTO(th_json) struct th_json *patch = NULL;
    bool changed = false;
    TH_TRY(check_dry_run(w, a, err));
    TH_AUTO(th_json) struct th_json *review = make_review(w, a, as, &x.err);
    if (review) {
        ask(a->c->api->hook_pool, w, review, true, &x);
    } else {
        x.verdict = UNREACHABLE;
    }
    take_notes(a, w, &x);
    if (x.verdict == ALLOWED) {
        TH_TRY(take_patch(a, w, as, &x, &patch, &changed, err));
    }
    note_mutation(a, w, index, changed, patch);
    if (changed) {
        require_again(a);
    }
    if (w->again) {
        th_strv_add(&a->seen, w->id);
    }
    th_autofree char *note =
        th_xasprintf("failed-open.mutation.webhook.admission.k8s.io/round_%d_index_%zu",
                     a->reinvoking ? 1 : 0, index);
    return x.verdict == ALLOWED ? 0 : settle(a, w, &x, note, err);
}

static int review_mutate(struct th_admit *a, struct th_err *err)
{
    if (a->reinvoking && a->last_output && !th_json_equal(a->last_output, a->object)) {
        require_again(a);
        a->reinvoke = false; /* there is no third round */
    }
    for (size_t i = 0; i < a->set->n_mutating; i++) {
        const struct th_webhook *w = a->set->mutating[i];
        const struct th_resource *as = NULL;
        int r = wanted(w, a, &as, err);
        if (r > 0 && (!a->reinvoking || th_strv_has(&a->again, w->id))) {
            r = mutate_one(a, w, as, i, err);
        }
        TH_TRY(r);
    }
    if (!a->reinvoking && a->set->n_mutating && a->object) {
        a->last_output = th_json_dup(a->object);
    }
    return 0;
}

const struct th_admission_plugin th_admission_mutating_webhook = {
    .name = "MutatingAdmissionWebhook", .review_mutate = review_mutate};

/* ---- Validating ---- */

struct job {
    const struct th_webhook *w;
    struct th_hook_pool *pool;
    struct th_json *review; /* a tree of this job's own */
    struct answer x;
    pthread_t thread;
    bool started;
};

static void *run_job(void *arg)
{
    struct job *j = arg;
    ask(j->pool, j->w, j->review, false, &j->x);
    return NULL;
}

static void jobs_run(struct job *v, size_t n)
{
    for (size_t from = 0; from < n; from += TH_LIMIT_HOOK_CALLS) {
        size_t to = from + TH_LIMIT_HOOK_CALLS < n ? from + TH_LIMIT_HOOK_CALLS : n;
        for (size_t i = from; i < to; i++) { /* the last one here: this thread has to wait anyway */
            v[i].started = i + 1 < to && v[i].review &&
                           pthread_create(&v[i].thread, NULL, run_job, &v[i]) == 0;
            if (!v[i].started && v[i].review) {
                (void)run_job(&v[i]);
            }
        }
        for (size_t i = from; i < to; i++) {
            if (v[i].started) {
                (void)pthread_join(v[i].thread, NULL);
            }
        }
    }
}

static int review_validate(struct th_admit *a, struct th_err *err)
{
    size_t n = 0, all = a->set->n_validating;
    struct job *v = all ? th_xcalloc(all, sizeof(*v)) : NULL;
    int r = 0;
    for (size_t i = 0; i < all && r >= 0; i++) {
        const struct th_webhook *w = a->set->validating[i];
        const struct th_resource *as = NULL;
        r = wanted(w, a, &as, err);
        if (r > 0) {
            struct job *j = &v[n++];
            *j = (struct job){.w = w, .pool = a->c->api->hook_pool};
            r = check_dry_run(w, a, err);
            j->review = r >= 0 ? make_review(w, a, as, &j->x.err) : NULL;
            j->x.verdict = j->review ? ALLOWED : UNREACHABLE;
        }
    }
    if (r >= 0) {
        jobs_run(v, n);
    }
    for (size_t i = 0; i < n; i++) {
        if (r >= 0) {
            take_notes(a, v[i].w, &v[i].x);
            th_autofree char *note = th_xasprintf(
                "failed-open.validating.webhook.admission.k8s.io/round_0_index_%zu", i);
            r = v[i].x.verdict == ALLOWED ? 0 : settle(a, v[i].w, &v[i].x, note, err);
        }
        answer_done(&v[i].x);
        th_json_unref(v[i].review);
    }
    free(v);
    return r;
}

const struct th_admission_plugin th_admission_validating_webhook = {
    .name = "ValidatingAdmissionWebhook", .review_validate = review_validate};
