/* The four kinds that ask what somebody may do. They are answered, never stored: who and what are
 * read out of the body, the API server's authorizer decides (access.h), and the body comes back with
 * a status. SelfSubject... kinds ask about whoever sends them. */
#include "controlplane/resources/rows.h"
#include "controlplane/schema/validate.h"

#define GROUP "authorization.k8s.io"

/* ---- validation ---- */

static void check_selector(const struct th_json *ra, const char *which, struct th_err *err)
{
    const struct th_json *s = th_json_get(ra, which);
    if (!th_json_has(ra, which)) {
        return;
    }
    th_autofree char *path = th_xasprintf("spec.resourceAttributes.%s", which);
    const char *raw = th_json_str(th_json_get(s, "rawSelector"));
    bool has_raw = raw && *raw;
    bool has_reqs = th_json_len(th_json_get(s, "requirements")) > 0;
    if (has_raw && has_reqs) {
        th_autofree char *field = th_xasprintf("%s.rawSelector", path);
        th_invalid_str(err, field, raw, "may not specified at the same time as requirements");
    } else if (!has_raw && !has_reqs) {
        th_autofree char *field = th_xasprintf("%s.requirements", path);
        th_autofree char *why = th_xasprintf(
            "when %s is specified, requirements or rawSelector is required", path);
        th_invalid_required(err, field, why);
    }
}

static void check_attributes(const struct th_json *spec, struct th_err *err)
{
    const struct th_json *ra = th_json_get(spec, "resourceAttributes");
    const struct th_json *na = th_json_get(spec, "nonResourceAttributes");
    if (ra && na) {
        th_invalid_value(err, "spec.nonResourceAttributes", na,
                         "cannot be specified in combination with resourceAttributes");
    }
    if (!ra && !na) {
        th_invalid_value(err, "spec.resourceAttributes", NULL,
                         "exactly one of nonResourceAttributes or resourceAttributes must be "
                         "specified");
    }
    if (ra) {
        check_selector(ra, "fieldSelector", err);
        check_selector(ra, "labelSelector", err);
    }
}

static void check_subject(const struct th_json *spec, struct th_err *err)
{
    const char *user = th_json_path_str(spec, "user");
    if ((!user || !*user) && th_json_len(th_json_get(spec, "groups")) == 0) {
        th_invalid_str(err, "spec.user", "", "at least one of user or group must be specified");
    }
}

/* Reviews have no metadata, but for a namespace where the kind is namespaced. */
static void check_meta(const struct th_json *obj, bool namespaced, struct th_err *err)
{
    struct th_json_iter it = TH_JSON_ITER(th_json_get(obj, "metadata"));
    while (th_json_next(&it)) {
        bool empty = th_json_is_null(it.value) || (th_json_str(it.value) && !*th_json_str(it.value));
        if (!empty && !th_streq(it.name, "managedFields") &&
            !(namespaced && th_streq(it.name, "namespace"))) {
            th_invalid_value(err, "metadata", th_json_get(obj, "metadata"),
                             namespaced ? "must be empty except for namespace" : "must be empty");
            return;
        }
    }
}

static int invalid(const char *kind, struct th_err *causes, struct th_err *err)
{
    int r = th_invalid_finish(causes, GROUP, kind, "");
    if (r < 0 && err) {
        th_err_move(err, causes);
    }
    return r;
}

/* ---- deciding ---- */

/* requirements of a field selector as text: only what says "equal" narrows anything for us. */
static char *field_selector(const struct th_json *ra)
{
    const struct th_json *s = th_json_get(ra, "fieldSelector");
    const char *raw = th_json_str(th_json_get(s, "rawSelector"));
    const struct th_json *reqs = th_json_get(s, "requirements");
    if (raw && *raw) {
        return th_xstrdup(raw);
    }
    th_autobuf struct th_buf b = TH_BUF_INIT;
    for (size_t i = 0; i < th_json_len(reqs); i++) {
        const struct th_json *r = th_json_at(reqs, i);
        const struct th_json *values = th_json_get(r, "values");
        const char *op = th_json_path_str(r, "operator");
        const char *key = th_json_path_str(r, "key");
        const char *value = th_json_str(th_json_at(values, 0));
        if (key && value && th_json_len(values) == 1 &&
            (th_streq(op, "In") || th_streq(op, "NotIn"))) {
            th_buf_printf(&b, "%s%s%s%s", b.n ? "," : "", key, th_streq(op, "In") ? "=" : "!=",
                          value);
        }
    }
    return b.n ? th_buf_steal(&b, NULL) : NULL;
}

static const char *or_empty(const struct th_json *o, const char *name)
{
    const char *s = th_json_str(th_json_get(o, name));
    return s ? s : "";
}

static struct th_json *decide(const struct th_req_ctx *c, const struct th_identity *id,
                              const struct th_json *spec)
{
    const struct th_json *ra = th_json_get(spec, "resourceAttributes");
    const struct th_json *na = th_json_get(spec, "nonResourceAttributes");
    th_autofree char *fields = field_selector(ra);
    const char *version = or_empty(ra, "version");
    struct th_attrs at = {.id = id, .verb = or_empty(ra ? ra : na, "verb")};
    if (ra) {
        at.resource = true;
        at.group = or_empty(ra, "group");
        at.version = *version ? version : "*";
        at.plural = or_empty(ra, "resource");
        at.sub = or_empty(ra, "subresource");
        at.ns = or_empty(ra, "namespace");
        at.name = or_empty(ra, "name");
        at.field_selector = fields;
    } else {
        at.path = or_empty(na, "path");
    }
    th_autobuf struct th_buf reason = TH_BUF_INIT;
    bool ok = c->access->allowed(c->access->self, &at, &reason);
    struct th_json *status = th_json_build("{'allowed':%b}", ok);
    if (reason.n > 0) {
        th_json_set_str(status, "reason", th_buf_cstr(&reason));
    }
    return status;
}

static struct th_json *answer(const struct th_json *obj, struct th_json *status)
{
    struct th_json *out = th_json_dup(obj);
    th_json_set(out, "status", status);
    return out;
}

int th_review_self_access(const struct th_req_ctx *c, const char *ns, const struct th_json *obj,
                       struct th_json **ret, struct th_err *err)
{
    (void)ns;
    TH_AUTO_ERR struct th_err causes = TH_ERR_INIT;
    const struct th_json *spec = th_json_get(obj, "spec");
    check_attributes(spec, &causes);
    check_meta(obj, false, &causes);
    TH_TRY(invalid("SelfSubjectAccessReview", &causes, err));
    *ret = answer(obj, decide(c, c->id, spec));
    return 0;
}

static int access_of(const struct th_req_ctx *c, const struct th_json *obj, struct th_json **ret)
{
    const struct th_json *spec = th_json_get(obj, "spec");
    TH_AUTO(th_identity) struct th_identity *id = th_identity_of_json(spec, "user");
    *ret = answer(obj, decide(c, id, spec));
    return 0;
}

int th_review_access(const struct th_req_ctx *c, const char *ns, const struct th_json *obj,
                         struct th_json **ret, struct th_err *err)
{
    (void)ns;
    TH_AUTO_ERR struct th_err causes = TH_ERR_INIT;
    check_attributes(th_json_get(obj, "spec"), &causes);
    check_subject(th_json_get(obj, "spec"), &causes);
    check_meta(obj, false, &causes);
    TH_TRY(invalid("SubjectAccessReview", &causes, err));
    return access_of(c, obj, ret);
}

int th_review_local_access(const struct th_req_ctx *c, const char *ns, const struct th_json *obj,
                        struct th_json **ret, struct th_err *err)
{
    TH_AUTO_ERR struct th_err causes = TH_ERR_INIT;
    const struct th_json *spec = th_json_get(obj, "spec");
    check_attributes(spec, &causes);
    check_subject(spec, &causes);
    check_meta(obj, true, &causes);
    const struct th_json *ra = th_json_get(spec, "resourceAttributes");
    if (ra && !th_streq(or_empty(ra, "namespace"), ns)) {
        th_invalid_str(&causes, "spec.resourceAttributes.namespace", or_empty(ra, "namespace"),
                       "must match metadata.namespace");
    }
    if (th_json_get(spec, "nonResourceAttributes")) {
        th_invalid_value(&causes, "spec.nonResourceAttributes",
                         th_json_get(spec, "nonResourceAttributes"),
                         "disallowed on this kind of request");
    }
    TH_TRY(invalid("LocalSubjectAccessReview", &causes, err));
    return access_of(c, obj, ret);
}

/* ---- what may I do at all ---- */

static struct th_json *part_of(const struct th_json *rule, const char *const *members)
{
    struct th_json *o = th_json_object();
    for (; *members; members++) {
        const struct th_json *v = th_json_get(rule, *members);
        if (v) {
            th_json_set(o, *members, th_json_dup(v));
        }
    }
    return o;
}

int th_review_rules(const struct th_req_ctx *c, const char *ns, const struct th_json *obj,
                        struct th_json **ret, struct th_err *err)
{
    (void)ns;
    static const char *const of_resources[] = {"verbs", "apiGroups", "resources", "resourceNames",
                                               NULL};
    static const char *const of_paths[] = {"verbs", "nonResourceURLs", NULL};
    const char *in = th_json_path_str(obj, "spec.namespace");
    if (!in || !*in) {
        return th_fail(err, TH_R_BAD_REQUEST, "no namespace on request");
    }
    bool incomplete = false;
    th_autobuf struct th_buf problem = TH_BUF_INIT;
    TH_AUTO(th_json) struct th_json *rules =
        c->access->rules(c->access->self, c->id, in, &incomplete, &problem);
    struct th_json *resources = th_json_array();
    struct th_json *paths = th_json_array();
    for (size_t i = 0; i < th_json_len(rules); i++) {
        const struct th_json *r = th_json_at(rules, i);
        if (th_json_len(th_json_get(r, "resources")) > 0) {
            th_json_append(resources, part_of(r, of_resources));
        }
        if (th_json_len(th_json_get(r, "nonResourceURLs")) > 0) {
            th_json_append(paths, part_of(r, of_paths));
        }
    }
    *ret = th_json_build("{'kind':'SelfSubjectRulesReview','apiVersion':'" GROUP "/v1','metadata':"
                         "{'creationTimestamp':%o},'spec':{},'status':{'resourceRules':%o,"
                         "'nonResourceRules':%o,'incomplete':%b}}",
                         (struct th_json *)NULL, resources, paths, incomplete);
    if (problem.n > 0) {
        th_json_path_set_str(*ret, "status.evaluationError", th_buf_cstr(&problem));
    }
    return 0;
}
