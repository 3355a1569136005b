/* The audit log: who asked for what, and what came of it, one JSON object a line.
 *
 * A policy (audit.k8s.io/v1 Policy, YAML) decides by its first rule that fits how much is written of a
 * request: None, Metadata, Request (with what was sent), RequestResponse (with what was answered).
 * Events have upstream's form: RequestReceived before anything is decided, ResponseStarted when a
 * watch or a stream to a node begins, ResponseComplete when an answer is there or has ended; stages
 * that the policy omits are left out. All events of a request carry the auditID that its answer has
 * in the header Audit-Id. Without a policy nothing is written and a request pays one comparison.
 *
 * What goes on (a watch, a stream) takes its event along in the response and closes it there; that is
 * why an event knows its log. Requests that never reach the pipeline, for their credentials were bad
 * or they may not impersonate, come in through th_api_refused. Lines go to audit_log.c.
 */
#include "controlplane/api/audit_log.h"
#include "controlplane/api/priv.h"

#include "base/clock.h"
#include "base/io.h"
#include "base/json/yaml.h"
#include "base/log.h"
#include "base/rand.h"

enum level { LEVEL_NONE, LEVEL_METADATA, LEVEL_REQUEST, LEVEL_RESPONSE };
static const char *const level_names[] = {"None", "Metadata", "Request", "RequestResponse"};

struct th_audit {
    struct th_json *policy; /* immutable */
    struct th_audit_log *log;
};
struct th_audit_event { /* belongs to the request, then to its answer */
    struct th_audit *audit;
    enum level level;
    bool goes_on;               /* a watch or a stream: its end comes later */
    bool started;
    const struct th_json *rule; /* of the policy */
    struct th_json *base;       /* what all stages of the request share */
};

/* ---- the policy ---- */

static int parse_level(const struct th_json *rule, enum level *ret)
{
    const char *text = th_json_path_str(rule, "level");
    for (size_t i = 0; i < TH_ARRAY_LEN(level_names); i++) {
        if (th_streq(text, level_names[i])) {
            *ret = (enum level)i;
            return 0;
        }
    }
    return -1;
}

static int load_policy(struct th_audit *a, const char *path, struct th_err *err)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    TH_TRY(th_io_read_file(path, TH_LIMIT_CONFIG_FILE_B, &b, err));
    TH_TRY(th_yaml_parse_one(th_buf_cstr(&b), b.n, NULL, &a->policy, err));
    const struct th_json *rules = th_json_get(a->policy, "rules");
    if (!th_streq(th_json_path_str(a->policy, "kind"), "Policy") || th_json_len(rules) == 0) {
        return th_fail(err, TH_R_USAGE, "%s is no audit Policy with rules", path);
    }
    for (size_t i = 0; i < th_json_len(rules); i++) {
        enum level l;
        if (parse_level(th_json_at(rules, i), &l) < 0) {
            return th_fail(err, TH_R_USAGE, "%s: rules[%zu].level is none of None, Metadata, Request, "
                                            "RequestResponse",
                           path, i);
        }
    }
    return 0;
}

static bool lists(const struct th_json *list, const char *s)
{
    for (size_t i = 0; s && i < th_json_len(list); i++) {
        if (th_streq(th_json_str(th_json_at(list, i)), s)) {
            return true;
        }
    }
    return false;
}

static bool empty(const struct th_json *list)
{
    return th_json_len(list) == 0;
}

static bool resource_fits(const struct th_json *r, const struct th_attrs *at)
{
    const char *group = th_json_path_str(r, "group");
    if (!th_streq(group ? group : "", at->group)) {
        return false;
    }
    const struct th_json *names = th_json_get(r, "resourceNames");
    if (!empty(names) && !lists(names, at->name)) {
        return false;
    }
    const struct th_json *list = th_json_get(r, "resources");
    if (empty(list) || lists(list, "*")) {
        return true;
    }
    bool sub = at->sub && *at->sub;
    th_autofree char *full = th_xasprintf("%s%s%s", at->plural, sub ? "/" : "", sub ? at->sub : "");
    th_autofree char *all = th_xasprintf("%s/*", at->plural);
    th_autofree char *any = th_xasprintf("*/%s", sub ? at->sub : "");
    return lists(list, full) || (sub && (lists(list, all) || lists(list, any)));
}

static bool path_fits(const struct th_json *list, const char *path)
{
    for (size_t i = 0; i < th_json_len(list); i++) {
        const char *p = th_json_str(th_json_at(list, i));
        size_t n = p ? strlen(p) : 0;
        if (n > 0 && (p[n - 1] == '*' ? strncmp(p, path, n - 1) == 0 : strcmp(p, path) == 0)) {
            return true;
        }
    }
    return false;
}

static bool rule_fits(const struct th_json *rule, const struct th_attrs *at)
{
    const struct th_json *users = th_json_get(rule, "users");
    const struct th_json *groups = th_json_get(rule, "userGroups");
    const struct th_json *verbs = th_json_get(rule, "verbs");
    if ((!empty(users) && !lists(users, at->id->user)) ||
        (!empty(verbs) && !lists(verbs, at->verb) && !lists(verbs, "*"))) {
        return false;
    }
    bool in = empty(groups);
    for (size_t i = 0; !in && i < at->id->groups.n; i++) {
        in = lists(groups, at->id->groups.v[i]);
    }
    const struct th_json *spaces = th_json_get(rule, "namespaces");
    const struct th_json *resources = th_json_get(rule, "resources");
    const struct th_json *paths = th_json_get(rule, "nonResourceURLs");
    if (!in) {
        return false;
    }
    if (empty(spaces) && empty(resources) && empty(paths)) {
        return true;
    }
    if (!at->resource) {
        return path_fits(paths, at->path);
    }
    if ((empty(spaces) && empty(resources)) || (!empty(spaces) && !lists(spaces, at->ns ? at->ns : ""))) {
        return false;
    }
    for (size_t i = 0; i < th_json_len(resources); i++) {
        if (resource_fits(th_json_at(resources, i), at)) {
            return true;
        }
    }
    return empty(resources);
}

/* ---- writing ---- */

static bool omitted(const struct th_audit *a, const struct th_audit_event *e, const char *stage)
{
    return lists(th_json_get(a->policy, "omitStages"), stage) ||
           lists(th_json_get(e->rule, "omitStages"), stage);
}

static void put(struct th_audit *a, const struct th_audit_event *e, const char *stage,
                struct th_json *more)
{
    TH_AUTO(th_json) struct th_json *extra = more;
    if (omitted(a, e, stage)) {
        return;
    }
    TH_AUTO(th_json) struct th_json *o = th_json_dup(e->base);
    char now[TH_TIME_LEN];
    th_json_set_str(o, "stage", stage);
    th_json_set_str(o, "stageTimestamp", th_time_format_micro(th_now_us(), now));
    struct th_json_iter it = TH_JSON_ITER(extra);
    while (th_json_next(&it)) {
        th_json_set(o, it.name, th_json_dup(it.value));
    }
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_json_dump(o, &b);
    th_buf_putc(&b, '\n');
    th_audit_log_put(a->log, b.p, b.n);
}

static void set_str(struct th_json *o, const char *name, const char *s)
{
    if (s && *s) {
        th_json_set_str(o, name, s);
    }
}

static struct th_json *base_of(const struct th_call *c, const struct th_attrs *at, enum level level)
{
    char made[TH_UUID_LEN];
    char now[TH_TIME_LEN];
    const char *id = c->req->audit_id ? c->req->audit_id : th_rand_uuid(made);
    const struct th_identity *who = at->id->by ? at->id->by : at->id;
    struct th_json *o = th_json_build(
        "{'kind':'Event','apiVersion':'audit.k8s.io/v1','level':%s,'auditID':%s,'stage':%s,"
        "'requestURI':%s,'verb':%s,'user':%o}",
        level_names[level], id, "", c->req->uri, at->verb, th_identity_json(who));
    if (at->id->by) {
        th_json_set(o, "impersonatedUser", th_identity_json(at->id));
    }
    if (c->req->sources && c->req->sources->n > 0) {
        struct th_json *ips = th_json_array();
        for (size_t i = 0; i < c->req->sources->n; i++) {
            th_json_append_str(ips, c->req->sources->v[i]);
        }
        th_json_set(o, "sourceIPs", ips);
    }
    set_str(o, "userAgent", c->req->user_agent);
    if (at->resource) {
        struct th_json *ref = th_json_object();
        set_str(ref, "resource", at->plural);
        set_str(ref, "namespace", at->ns);
        set_str(ref, "name", at->name);
        set_str(ref, "apiGroup", at->group);
        set_str(ref, "apiVersion", at->version);
        set_str(ref, "subresource", at->sub);
        th_json_set(o, "objectRef", ref);
    }
    int64_t received_us = c->req->received_us ? c->req->received_us : th_now_us();
    th_json_set_str(o, "requestReceivedTimestamp", th_time_format_micro(received_us, now));
    return o;
}

/* The event of a request as the first rule that fits wants it, or NULL. */
static struct th_audit_event *begin(struct th_call *c, const struct th_attrs *at)
{
    struct th_audit *a = c->api->audit;
    const struct th_json *rules = th_json_get(a->policy, "rules");
    for (size_t i = 0; i < th_json_len(rules); i++) {
        const struct th_json *rule = th_json_at(rules, i);
        enum level level = LEVEL_NONE;
        if (!rule_fits(rule, at)) {
            continue;
        }
        if (parse_level(rule, &level) < 0 || level == LEVEL_NONE) {
            return NULL;
        }
        struct th_audit_event *e = TH_NEW(struct th_audit_event);
        *e = (struct th_audit_event){
            .audit = a, .level = level, .rule = rule, .base = base_of(c, at, level)};
        put(a, e, "RequestReceived", NULL);
        return e;
    }
    return NULL;
}

static void event_free(struct th_audit_event *e)
{
    th_json_unref(e->base);
    free(e);
}

void th_audit_begin(struct th_call *c, const struct th_attrs *at)
{
    struct th_audit_event *e = at->id->system ? NULL : begin(c, at);
    if (e) {
        th_autobuf struct th_buf reason = TH_BUF_INIT;
        bool ok = th_authz_allowed(c->api->authz, at, &reason);
        th_json_set(e->base, "annotations",
                    th_json_build("{'authorization.k8s.io/decision':%s,"
                                  "'authorization.k8s.io/reason':%s}",
                                  ok ? "allow" : "forbid", th_buf_cstr(&reason)));
        c->audit = e;
    }
}

void th_audit_annotate(struct th_call *c, const char *key, const char *value)
{
    struct th_json *all = c->audit ? th_json_get(c->audit->base, "annotations") : NULL;
    if (all && !th_json_has(all, key)) {
        th_json_set_str(all, key, value);
    }
}

void th_audit_annotate_request(struct th_call *c, const char *key, const char *value)
{
    if (c->audit && c->audit->level >= LEVEL_REQUEST) {
        th_audit_annotate(c, key, value);
    }
}

/* The body as sent, decoded by what it looks like; NULL when it is none of ours. */
static struct th_json *request_object(const struct th_call *c)
{
    const struct th_areq *q = c->req;
    struct th_json *o = NULL;
    if (q->body_tree) {
        return th_json_dup(q->body_tree);
    }
    if (q->body.n == 0 || th_json_parse(q->body.p, q->body.n, NULL, &o, NULL) >= 0 ||
        th_pb_decode(q->body.p, q->body.n, NULL, NULL, &o, NULL) >= 0 ||
        th_yaml_parse_one(q->body.p, q->body.n, NULL, &o, NULL) >= 0) {
        return o;
    }
    return NULL;
}

static struct th_json *response_object(const struct th_aresp *r)
{
    struct th_json *o = NULL;
    if (r->tree) {
        return th_json_dup(r->tree);
    }
    struct th_str text = r->body_obj ? (struct th_str){r->body_obj->bytes, r->body_obj->n}
                                     : th_buf_str(&r->body);
    return text.n > 0 && th_json_parse(text.p, text.n, NULL, &o, NULL) >= 0 ? o : NULL;
}

static void finish_ref(struct th_audit_event *e, const struct th_json *sent)
{
    static const char *const members[] = {"name", "uid", "resourceVersion"};
    struct th_json *ref = th_json_get(e->base, "objectRef");
    for (size_t i = 0; ref && i < TH_ARRAY_LEN(members); i++) {
        const char *v = th_json_str(th_json_get(th_json_get(sent, "metadata"), members[i]));
        if (!th_json_get(ref, members[i])) {
            set_str(ref, members[i], v);
        }
    }
}

static void set_code(struct th_audit_event *e, int code)
{
    th_json_set(e->base, "responseStatus",
                th_json_build("{'metadata':{},'code':%d}", (int64_t)code));
}

static void set_failure(struct th_audit_event *e, const struct th_json *status)
{
    struct th_json *said = th_json_dup(status);
    (void)th_json_del(said, "kind"); /* an event's status does not say what it is */
    (void)th_json_del(said, "apiVersion");
    th_json_set(e->base, "responseStatus", said);
}

void th_audit_end(struct th_call *c, int code, const struct th_err *failure)
{
    struct th_audit_event *e = th_steal(&c->audit);
    struct th_json *more = th_json_object();
    TH_AUTO(th_json) struct th_json *status = failure ? th_status_json(failure) : NULL;
    if (status) {
        set_failure(e, status);
    } else {
        set_code(e, code);
    }
    bool body = c->verb && !th_streq(c->verb, "get") && !th_streq(c->verb, "list") &&
                !th_streq(c->verb, "watch");
    TH_AUTO(th_json) struct th_json *sent = body ? request_object(c) : NULL;
    finish_ref(e, sent);
    if (e->level >= LEVEL_REQUEST && sent) {
        th_json_set(e->base, "requestObject", th_json_ref(sent));
    }
    e->goes_on = c->resp->watch || c->resp->stream;
    if (e->goes_on) {
        th_json_unref(more);
        c->resp->audit = e;
        if (c->resp->watch) {
            th_audit_started(e, code);
        }
        return;
    }
    if (e->level >= LEVEL_RESPONSE) {
        struct th_json *o = status ? th_json_dup(status) : response_object(c->resp);
        if (o) {
            th_json_set(more, "responseObject", o);
        }
    }
    put(e->audit, e, "ResponseComplete", more);
    event_free(e);
}

void th_audit_started(struct th_audit_event *e, int code)
{
    if (e && !e->started) {
        e->started = true;
        set_code(e, code);
        put(e->audit, e, "ResponseStarted", NULL);
    }
}

void th_audit_failed(struct th_audit_event *e, const struct th_err *why)
{
    if (e) {
        TH_AUTO(th_json) struct th_json *status = th_status_json(why);
        set_failure(e, status);
        if (!e->started) {
            e->started = true;
            put(e->audit, e, "ResponseStarted", NULL);
        }
    }
}

void th_audit_close(struct th_audit_event *e)
{
    if (!e) {
        return;
    }
    if (!e->started) { /* the client went before there was an answer */
        th_json_set(e->base, "responseStatus",
                    th_json_build("{'metadata':{},'status':'Success',"
                                  "'message':'Connection closed early','code':%d}",
                                  (int64_t)200));
        put(e->audit, e, "ResponseStarted", NULL);
    }
    put(e->audit, e, "ResponseComplete", NULL);
    event_free(e);
}

void th_audit_refused(struct th_call *c, const struct th_attrs *at, const struct th_err *why,
                      const char *how)
{
    struct th_audit_event *e = begin(c, at);
    if (!e) {
        return;
    }
    if (how) { /* nobody knows who it was: what was tried is all there is to say */
        th_json_set(e->base, "responseStatus",
                    th_json_build("{'metadata':{},'message':%s,'code':%d}", how,
                                  (int64_t)th_reason_http(why->reason)));
        put(e->audit, e, "ResponseStarted", NULL);
    } else {
        TH_AUTO(th_json) struct th_json *status = th_status_json(why);
        set_failure(e, status);
        put(e->audit, e, "ResponseComplete", NULL);
    }
    event_free(e);
}

int th_audit_new(const struct th_audit_opts *o, struct th_audit **ret, struct th_err *err)
{
    struct th_audit *a = TH_NEW(struct th_audit);
    int r = load_policy(a, o->policy_file, err);
    if (r >= 0) {
        r = th_audit_log_open(o->log_path ? o->log_path : "-", o->max_size_mb, o->max_backups,
                              o->max_age_days, &a->log, err);
    }
    if (r < 0) {
        th_audit_free(a);
        return r;
    }
    *ret = a;
    return 0;
}

void th_audit_free(struct th_audit *a)
{
    if (!a) {
        return;
    }
    th_audit_log_close(a->log);
    th_json_unref(a->policy);
    free(a);
}
