/* PodSecurity: the labels pod-security.kubernetes.io/enforce and /warn of a namespace (and their
 * -version) say which standard its pods must keep, and which one they are warned about. Templates of
 * workloads are only warned about. /audit is checked, and nothing comes of it. */
#include "controlplane/api/admission/pod_security.h"

#include "controlplane/api/admission/admission.h"
#include "controlplane/schema/validate.h"

#define LABEL "pod-security.kubernetes.io/"
enum { MOST_PODS = 3000 };

struct rule {
    enum th_ps_level level;
    int minor;
};
struct policy {
    struct rule enforce, audit, warn;
};

static const char *const levels[] = {"privileged", "baseline", "restricted"};

static const char *label_of(const struct th_json *ns, const char *label)
{
    return th_json_str(th_json_get(th_json_path(ns, "metadata.labels"), label));
}

static void bad_label(const char *label, const char *value, const char *why, struct th_err *err)
{
    th_autofree char *path = th_xasprintf("metadata.labels[%s]", label);
    th_invalid_str(err, path, value, why);
}

/* 1 there and good, 0 missing, -1 bad (said in err, *ret is `bad`). */
static int read_level(const struct th_json *ns, const char *label, enum th_ps_level bad,
                      enum th_ps_level *ret, struct th_err *err)
{
    const char *v = label_of(ns, label);
    if (!v) {
        return 0;
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(levels); i++) {
        if (th_streq(v, levels[i])) {
            *ret = (enum th_ps_level)i;
            return 1;
        }
    }
    bad_label(label, v, "must be one of privileged, baseline, restricted", err);
    *ret = bad;
    return -1;
}

static int read_version(const struct th_json *ns, const char *label, int *ret, struct th_err *err)
{
    const char *v = label_of(ns, label);
    if (!v) {
        return 0;
    }
    *ret = TH_PS_LATEST;
    if (th_streq(v, "latest")) {
        return 1;
    }
    const char *digits = th_startswith(v, "v1.") ? v + 3 : "";
    size_t n = strspn(digits, "0123456789");
    if (n == 0 || n > 6 || digits[n] || (n > 1 && *digits == '0')) {
        bad_label(label, v, "must be \"latest\" or \"v1.x\"", err);
        return -1;
    }
    *ret = (int)strtol(digits, NULL, 10);
    return 1;
}

/* Adds a cause for every label that is not valid. */
static struct policy read_policy(const struct th_json *ns, struct th_err *err)
{
    struct policy p = {{TH_PS_PRIVILEGED, TH_PS_LATEST},
                       {TH_PS_PRIVILEGED, TH_PS_LATEST},
                       {TH_PS_PRIVILEGED, TH_PS_LATEST}};
    int enforce = read_level(ns, LABEL "enforce", TH_PS_RESTRICTED, &p.enforce.level, err);
    (void)read_version(ns, LABEL "enforce-version", &p.enforce.minor, err);
    (void)read_level(ns, LABEL "audit", TH_PS_PRIVILEGED, &p.audit.level, err);
    (void)read_version(ns, LABEL "audit-version", &p.audit.minor, err);
    int warn = read_level(ns, LABEL "warn", TH_PS_PRIVILEGED, &p.warn.level, err);
    int warn_version = read_version(ns, LABEL "warn-version", &p.warn.minor, err);
    if (warn == 0 && enforce > 0 && p.enforce.level > p.warn.level) {
        p.warn.level = p.enforce.level;
        p.warn.minor = warn_version == 0 ? p.enforce.minor : p.warn.minor;
    }
    return p;
}

static char *rule_text(struct rule r)
{
    return r.minor == TH_PS_LATEST ? th_xasprintf("%s:latest", levels[r.level])
                                   : th_xasprintf("%s:v1.%d", levels[r.level], r.minor);
}

static char *joined(const struct th_strv *v)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    for (size_t i = 0; i < v->n; i++) {
        th_buf_printf(&b, "%s%s", i ? ", " : "", v->v[i]);
    }
    return th_xstrdup(th_buf_cstr(&b));
}

/* What is wrong with the pod by the rule, or NULL. */
static char *violations(struct rule r, const struct th_json *meta, const struct th_json *spec,
                        bool details)
{
    TH_CLEANUP(th_ps_result_done) struct th_ps_result res = {.reasons = {0}};
    th_ps_check(r.level, r.minor, th_json_get(meta, "annotations"), spec, &res);
    return res.reasons.n == 0 ? NULL : joined(details ? &res.details : &res.reasons);
}

/* ---- Pods and templates ---- */

static bool images_differ(const struct th_json *a, const struct th_json *b)
{
    static const char *const lists[] = {"spec.initContainers", "spec.containers",
                                        "spec.ephemeralContainers"};
    for (size_t l = 0; l < TH_ARRAY_LEN(lists); l++) {
        const struct th_json *x = th_json_path(a, lists[l]), *y = th_json_path(b, lists[l]);
        if (th_json_len(x) != th_json_len(y)) {
            return true;
        }
        for (size_t i = 0; i < th_json_len(x); i++) {
            if (!th_streq(th_json_path_str(th_json_at(x, i), "image"),
                          th_json_path_str(th_json_at(y, i), "image"))) {
                return true;
            }
        }
    }
    return false;
}

static const char *template_path(const struct th_resource *r)
{
    static const struct {
        const char *group, *plural, *path;
    } kinds[] = {{"", "podtemplates", "template"},
                 {"", "replicationcontrollers", "spec.template"},
                 {"apps", "replicasets", "spec.template"},
                 {"apps", "deployments", "spec.template"},
                 {"apps", "statefulsets", "spec.template"},
                 {"apps", "daemonsets", "spec.template"},
                 {"batch", "jobs", "spec.template"},
                 {"batch", "cronjobs", "spec.jobTemplate.spec.template"}};
    for (size_t i = 0; i < TH_ARRAY_LEN(kinds); i++) {
        if (th_streq(r->group, kinds[i].group) && th_streq(r->plural, kinds[i].plural)) {
            return kinds[i].path;
        }
    }
    return NULL;
}

static int check_pod(struct th_call *c, const struct th_json *obj, const struct th_json *pod,
                     bool enforce, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *ns = NULL;
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    th_autofree char *key = th_xasprintf("core/namespaces/-/%s", c->route.ns);
    TH_AUTO(th_obj) struct th_obj *o = th_store_get(c->api->store, key);
    if (!o || !strstr(o->bytes, LABEL) || th_json_parse(o->bytes, o->n, NULL, &ns, NULL) < 0) {
        if (enforce) {
            th_audit_annotate(c, LABEL "enforce-policy", "privileged:latest");
        }
        return 0;
    }
    struct policy p = read_policy(ns, &local);
    const struct th_json *meta = th_json_get(pod, "metadata"), *spec = th_json_get(pod, "spec");
    if (enforce) {
        th_autofree char *bad = violations(p.enforce, meta, spec, true);
        th_autofree char *rule = rule_text(p.enforce);
        th_audit_annotate(c, LABEL "enforce-policy", rule);
        if (bad) {
            return th_fail_forbidden(err, c->res, th_json_path_str(obj, "metadata.name"),
                                     "violates PodSecurity \"%s\": %s", rule, bad);
        }
    }
    th_autofree char *noted = spec ? violations(p.audit, meta, spec, true) : NULL;
    if (noted) {
        th_autofree char *rule = rule_text(p.audit);
        th_autofree char *text = th_xasprintf("would violate PodSecurity \"%s\": %s", rule, noted);
        th_audit_annotate(c, LABEL "audit-violations", text);
    }
    th_autofree char *bad = spec ? violations(p.warn, meta, spec, true) : NULL;
    th_autofree char *rule = rule_text(p.warn);
    if (bad && c->ctx.warnings) {
        th_strv_addf(c->ctx.warnings, "would violate PodSecurity \"%s\": %s", rule, bad);
    }
    return 0;
}

/* ---- Namespaces ---- */

struct tally {
    char *what, *first;
    size_t n;
};

static int by_line(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Warns about the pods that are there and break the rule. */
static void look_at_pods(struct th_call *c, const char *ns, struct rule r)
{
    TH_CLEANUP(th_store_list_done) struct th_store_list l = {.n = 0};
    TH_CLEANUP(th_strv_done) struct th_strv lines = {0};
    struct tally tallies[64];
    size_t n = 0;
    th_autofree char *prefix = th_xasprintf("core/pods/%s/", ns);
    if (th_store_range(c->api->store, prefix, NULL, MOST_PODS, 0, &l, NULL) < 0) {
        return;
    }
    for (size_t i = 0; i < l.n; i++) {
        TH_AUTO(th_json) struct th_json *pod = NULL;
        if (th_json_parse(l.objs[i]->bytes, l.objs[i]->n, NULL, &pod, NULL) < 0) {
            continue;
        }
        th_autofree char *what =
            violations(r, th_json_get(pod, "metadata"), th_json_get(pod, "spec"), false);
        size_t k = 0;
        while (what && k < n && !th_streq(tallies[k].what, what)) {
            k++;
        }
        if (what && k == n && n < TH_ARRAY_LEN(tallies)) {
            tallies[n++] = (struct tally){
                .what = th_xstrdup(what), .first = th_xstrdup(th_json_path_str(pod, "metadata.name"))};
        }
        if (what && k < n) {
            tallies[k].n++;
        }
    }
    for (size_t i = 0; i < n; i++) {
        const struct tally *t = &tallies[i];
        if (t->n == 1) {
            th_strv_addf(&lines, "%s: %s", t->first, t->what);
        } else {
            th_strv_addf(&lines, "%s (and %zu other pod%s): %s", t->first, t->n - 1,
                         t->n > 2 ? "s" : "", t->what);
        }
        free(t->what);
        free(t->first);
    }
    if (lines.n > 0) {
        th_autofree char *rule = rule_text(r);
        qsort(lines.v, lines.n, sizeof(*lines.v), by_line);
        th_strv_addf(c->ctx.warnings,
                     "existing pods in namespace \"%s\" violate the new PodSecurity enforce level "
                     "\"%s\"",
                     ns, rule);
    }
    for (size_t i = 0; i < lines.n; i++) {
        th_strv_add(c->ctx.warnings, lines.v[i]);
    }
}

static int check_namespace(struct th_call *c, const struct th_json *obj, const struct th_json *old,
                           struct th_err *err)
{
    TH_AUTO_ERR struct th_err bad = TH_ERR_INIT;
    TH_AUTO_ERR struct th_err was = TH_ERR_INIT;
    const char *name = th_json_path_str(obj, "metadata.name");
    struct policy now = read_policy(obj, &bad), before = read_policy(old, &was);
    if (bad.n_causes > 0 && (!old || was.n_causes != bad.n_causes)) {
        int r = th_fail_invalid(&bad, c->res->group, c->res->kind, name);
        if (err) {
            th_err_move(err, &bad);
        }
        return r;
    }
    bool same = now.enforce.level == before.enforce.level && now.enforce.minor == before.enforce.minor;
    bool relaxed =
        now.enforce.minor == before.enforce.minor && now.enforce.level <= before.enforce.level;
    if (old && !same && !relaxed && now.enforce.level != TH_PS_PRIVILEGED && c->ctx.warnings) {
        look_at_pods(c, name, now.enforce);
    }
    return 0;
}

static int validate(struct th_call *c, const struct th_json *obj, const struct th_json *old,
                    struct th_err *err)
{
    static const char *const ignored[] = {"binding", "eviction", "status"};
    bool core = th_streq(c->res->group, "");
    if (core && th_streq(c->res->plural, "pods")) {
        for (size_t i = 0; c->sub && i < TH_ARRAY_LEN(ignored); i++) {
            if (th_streq(c->sub->name, ignored[i])) {
                return 0;
            }
        }
        return old && !images_differ(obj, old) ? 0 : check_pod(c, obj, obj, true, err);
    }
    if (c->sub) {
        return 0;
    }
    if (core && th_streq(c->res->plural, "namespaces")) {
        return check_namespace(c, obj, old, err);
    }
    const char *path = template_path(c->res);
    return path ? check_pod(c, obj, th_json_path(obj, path), false, err) : 0;
}

const struct th_admission_plugin th_admission_pod_security = {.name = "PodSecurity",
                                                              .validate = validate};
