/* The request pipeline: authorize, route, dispatch to the verb, turn failures into Status.
 *
 * It knows nothing of HTTP's wire: server.c and local.c hand in a request with an identity that was
 * established already, and get a response that is bytes, a shared stored revision, a tree, a watch
 * or the order to forward to a node. Everything a verb needs stands in one struct th_call that
 * lives on this stack; nothing of it survives but what the response took.
 */
#include "controlplane/api/priv.h"

#include "base/clock.h"
#include "base/log.h"
#include "controlplane/api/admission/hooks.h"
#include "controlplane/api/aggregate/aggregate.h"
#include "controlplane/api/customs.h"
#include "controlplane/api/flow.h"
#include "controlplane/api/hook_call.h"
#include "controlplane/api/watch.h"
#include "controlplane/schema/gotext.h"

#define MANAGER_MAX 128

/* ---- responses ---- */

void th_aresp_done(struct th_aresp *r)
{
    th_strv_done(&r->headers);
    th_buf_done(&r->body);
    th_obj_unref(r->body_obj);
    th_pieces_free(r->pieces);
    th_json_unref(r->tree);
    th_apiwatch_close(r->watch);
    th_stream_target_free(r->stream);
    th_audit_close(r->audit);
    *r = (struct th_aresp)TH_ARESP_INIT;
}

void th_api_fail(struct th_aresp *resp, const struct th_areq *req, const struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *s = th_status_json(err);
    struct th_accept a = {.form = TH_FORM_OBJECT};
    if (th_accept_parse(req->accept, TH_TRANSFORMS_NONE, false, true, &a, NULL) < 0) {
        a.media = TH_MEDIA_JSON; /* nothing fits: then it is said in JSON that nothing does */
    }
    const struct th_kind *k = th_kind_find("", "v1", "Status");
    th_respond_json(resp, err->http_code ? err->http_code : th_reason_http(err->reason), s,
                    a.pretty || th_wants_pretty(req));
    if (a.media == TH_MEDIA_PROTOBUF) {
        th_buf_clear(&resp->body);
        TH_ASSERT(th_pb_encode(k, s, &resp->body, NULL) >= 0);
        resp->content_type = TH_TYPE_PROTOBUF;
    }
    if (err->retry_after_s > 0) {
        th_strv_addf(&resp->headers, "Retry-After: %d", err->retry_after_s);
    }
}

/* ---- options that many verbs share ---- */

static void unsupported(struct th_err *err, const char *field, const char *value,
                        const char *supported)
{
    th_err_add_cause(err, "FieldValueNotSupported", field,
                     "Unsupported value: \"%s\": supported values: %s", value, supported);
}

static int parse_options(struct th_call *c, const char *kind, struct th_err *err)
{
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    c->fv = TH_FV_WARN;
    const char *fv = th_query_get(&c->query, "fieldValidation");
    if (th_streq(fv, "Strict")) {
        c->fv = TH_FV_STRICT;
    } else if (th_streq(fv, "Ignore")) {
        c->fv = TH_FV_IGNORE;
    } else if (fv && *fv && !th_streq(fv, "Warn")) {
        unsupported(&local, "fieldValidation", fv, "\"\", \"Ignore\", \"Strict\", \"Warn\"");
    }
    for (size_t i = 0; i < c->query.keys.n; i++) {
        if (th_streq(c->query.keys.v[i], "dryRun") && *c->query.values.v[i]) {
            if (!th_streq(c->query.values.v[i], "All")) {
                unsupported(&local, "dryRun", c->query.values.v[i], "\"All\"");
            }
            c->dry_run = true;
        }
    }
    const char *manager = th_query_get(&c->query, "fieldManager");
    if (manager && strlen(manager) > MANAGER_MAX) {
        th_err_add_cause(&local, "FieldValueTooLong", "fieldManager",
                         "Too long: may not be more than %d bytes", MANAGER_MAX);
    }
    if (manager && *manager) {
        c->manager = th_xstrdup(manager);
    } else {
        const char *ua = c->req->user_agent;
        size_t n = ua ? strcspn(ua, "/") : 0;
        c->manager = n > 0 ? th_xstrndup(ua, n > MANAGER_MAX ? MANAGER_MAX : n)
                           : th_xstrdup("unknown");
    }
    c->ctx.dry_run = c->dry_run;
    int r = th_fail_invalid(&local, "meta.k8s.io", kind, "");
    if (r < 0 && err) {
        th_err_move(err, &local);
    }
    return r;
}

/* ---- routing to a verb ---- */

typedef int verb_fn(struct th_call *c, struct th_err *err);

static int fail_unknown(struct th_err *err)
{
    return th_fail(err, TH_R_NOT_FOUND, "the server could not find the requested resource");
}

static int fail_method(struct th_err *err)
{
    return th_fail(err, TH_R_METHOD_NOT_ALLOWED,
                   "the server does not allow this method on the requested resource");
}

static const char *const stream_names[] = {"log", "exec", "attach", "portforward", "proxy"};

static bool is_stream_name(const char *sub)
{
    for (size_t i = 0; sub && i < TH_ARRAY_LEN(stream_names); i++) {
        if (th_streq(sub, stream_names[i])) {
            return true;
        }
    }
    return false;
}

/* Whether a URL may end in one of them; a "%" may hide anything. */
static bool names_stream(const char *uri)
{
    bool may = strchr(uri, '%') != NULL;
    for (size_t i = 0; !may && i < TH_ARRAY_LEN(stream_names); i++) {
        may = strstr(uri, stream_names[i]) != NULL;
    }
    return may;
}

struct verb_row {
    const char *method;
    unsigned bit;
    const char *verb;
    const char *options; /* kind of its options */
    verb_fn *fn, *sub_fn;
};
static const struct verb_row item_verbs[] = {
    {"GET", TH_VERB_GET, "get", "GetOptions", th_verb_get, th_verb_sub_get},
    {"POST", TH_VERB_CREATE, "create", "CreateOptions", NULL, th_verb_sub_create},
    {"PUT", TH_VERB_UPDATE, "update", "UpdateOptions", th_verb_update, th_verb_sub_update},
    {"PATCH", TH_VERB_PATCH, "patch", "PatchOptions", th_verb_patch, th_verb_patch},
    {"DELETE", TH_VERB_DELETE, "delete", "DeleteOptions", th_verb_delete, NULL},
    {"OPTIONS", TH_VERB_GET, "", "GetOptions", NULL, NULL}, /* through proxies only */
};
static const struct verb_row collection_verbs[] = {
    {"GET", TH_VERB_LIST, "list", "ListOptions", th_verb_list, NULL},
    {"POST", TH_VERB_CREATE, "create", "CreateOptions", th_verb_create, NULL},
    {"DELETE", TH_VERB_DELETECOLLECTION, "deletecollection", "DeleteOptions",
     th_verb_deletecollection, NULL},
};
static const struct verb_row watch_verb = {"GET",         TH_VERB_WATCH,  "watch",
                                           "ListOptions", th_verb_watch, NULL};

static const struct verb_row *find_verb(const struct th_call *c)
{
    const char *m = c->req->method;
    if (th_streq(m, "HEAD")) {
        m = "GET";
    }
    if (c->route.watch) {
        return th_streq(m, "GET") && !c->route.sub ? &watch_verb : NULL;
    }
    if (c->route.name) {
        for (size_t i = 0; i < TH_ARRAY_LEN(item_verbs); i++) {
            if (th_streq(item_verbs[i].method, m)) {
                return &item_verbs[i];
            }
        }
        return NULL;
    }
    if (th_streq(m, "GET") && th_query_bool(&c->query, "watch")) {
        return &watch_verb;
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(collection_verbs); i++) {
        if (th_streq(collection_verbs[i].method, m)) {
            return &collection_verbs[i];
        }
    }
    return NULL;
}

static int find_resource(struct th_call *c, struct th_err *err)
{
    const struct th_route *r = &c->route;
    c->res = th_resource_find(r->group, r->version, r->plural);
    if (c->res && th_call_hides(c, c->res)) {
        c->res = NULL;
    }
    if (!c->res && *r->group) {
        c->res = th_customs_find(th_call_customs(c), r->group, r->version, r->plural,
                                 c->req->id->system);
    }
    if (!c->res || (!c->res->namespaced && r->ns) || (c->res->namespaced && r->name && !r->ns)) {
        return fail_unknown(err);
    }
    c->storage = c->res;
    if (c->res->storage_gv_plural) {
        th_autostrv struct th_strv parts = TH_STRV_INIT;
        th_strv_split(&parts, c->res->storage_gv_plural, '/');
        TH_ASSERT(parts.n == 3);
        const char *g = th_streq(parts.v[0], "core") ? "" : parts.v[0];
        c->storage = th_resource_find(g, parts.v[1], parts.v[2]);
        TH_ASSERT(c->storage);
    }
    if (c->res->storage_row) {
        c->storage = c->res->storage_row;
    }
    if (c->res->warning) {
        th_strv_add(&c->warnings, c->res->warning);
    }
    c->ctx.res = c->res;
    c->kind = th_resource_kind(c->res);
    if (r->sub) {
        for (const struct th_subresource *s = c->res->subs; s && s->name; s++) {
            if (th_streq(s->name, r->sub)) {
                c->sub = s;
            }
        }
        if (!c->sub || (r->rest && !th_streq(r->sub, "proxy"))) {
            return fail_unknown(err);
        }
        c->ctx.subresource = c->sub->name;
    }
    return 0;
}

/* A list of one name counts as asking for that name. The caller frees. */
static char *selected_name(const char *fields)
{
    struct th_fieldsel f = {.n = 0};
    char *name = NULL;
    if (th_fieldsel_parse(fields, &f, NULL) < 0) {
        return NULL;
    }
    for (size_t i = 0; i < f.n && !name; i++) {
        const struct th_fieldsel_term *t = &f.terms[i];
        if (!t->negate && th_streq(t->field, "metadata.name") && *t->value &&
            !strpbrk(t->value, "/%") && !th_streq(t->value, ".") && !th_streq(t->value, "..")) {
            name = th_xstrdup(t->value);
        }
    }
    th_fieldsel_done(&f);
    return name;
}

/* Which schema and level a request belonged to, as clients and tests look for it. */
static void show_flow(struct th_call *c, const struct th_attrs *at)
{
    if (c->req->id->system) {
        return;
    }
    struct th_flow_class f;
    th_flow_classify(c->api->flow, at, &f);
    if (*f.schema_uid) {
        th_strv_addf(&c->resp->headers, "X-Kubernetes-PF-FlowSchema-UID: %s", f.schema_uid);
        th_strv_addf(&c->resp->headers, "X-Kubernetes-PF-PriorityLevel-UID: %s", f.level_uid);
    }
}

/* ---- how long it may take ---- */

/* Streams and watches have no deadline; all else has the server's, or the client's when it is sooner.
 * The client's reckoning begins when its head was there, so that waiting for a seat counts. */
static int read_deadline(struct th_call *c, struct th_err *err)
{
    bool resource = c->route.kind == TH_ROUTE_RESOURCE;
    if (resource && (find_verb(c) == &watch_verb || is_stream_name(c->route.sub))) {
        return 0;
    }
    const char *text = th_query_get(&c->query, "timeout");
    int64_t wanted_ns = 0;
    TH_AUTO_ERR struct th_err why = TH_ERR_INIT;
    if (text && *text && th_go_duration_parse(text, &wanted_ns, &why) < 0) {
        return th_fail(err, TH_R_BAD_REQUEST, "invalid timeout specified in the request URL - %s",
                       why.msg);
    }
    int64_t us = c->api->request_timeout_ms * 1000;
    if (wanted_ns > 0 && wanted_ns / 1000 < us) {
        us = wanted_ns / 1000;
    }
    int64_t waited_us = c->req->received_us ? th_now_us() - c->req->received_us : 0;
    c->ctx.deadline_us = th_mono_us() + us - waited_us;
    return 0;
}

int th_call_in_time(const struct th_call *c, struct th_err *err)
{
    if (c->ctx.deadline_us == 0 || th_mono_us() < c->ctx.deadline_us) {
        return 0;
    }
    return th_fail(err, TH_R_TIMEOUT,
                   "Timeout: request did not complete within requested timeout - context deadline "
                   "exceeded");
}

/* What is asked, from the request line alone: who may not ask learns nothing of what there is. only is
 * what selected_name gave, or NULL. */
static struct th_attrs asked(const struct th_call *c, const struct verb_row *v, const char *fields,
                             const char *only)
{
    const struct th_route *r = &c->route;
    const char *m = c->req->method;
    bool patch = th_streq(m, "PATCH"), put = th_streq(m, "PUT"), post = th_streq(m, "POST");
    const char *other = patch ? "patch" : put ? "update" : post ? "create" : "";
    return (struct th_attrs){
        .id = c->req->id,
        .verb = v ? v->verb : other,
        .resource = true,
        .group = r->group,
        .version = r->version,
        .plural = r->plural,
        .sub = r->sub,
        .ns = th_streq(r->plural, "namespaces") && !*r->group ? r->name : r->ns,
        .name = r->name ? r->name : only,
        .field_selector = fields,
    };
}

/* Upstream's rule: what is only made (reviews, bindings, tokens) and what changes one part of an
 * object has no rows. */
static enum th_transforms transforms(const struct th_call *c)
{
    bool rows = c->sub ? th_streq(c->sub->name, "status") || th_streq(c->sub->name, "scale")
                       : c->res->s.create_virtual == NULL;
    return rows ? TH_TRANSFORMS_ALL : TH_TRANSFORMS_PARTIAL;
}

static int serve_resource(struct th_call *c, struct th_err *err)
{
    const struct verb_row *v = find_verb(c);
    bool list = v == &watch_verb || (v && !c->route.name && th_streq(v->verb, "list"));
    const char *fields = list ? th_query_get(&c->query, "fieldSelector") : NULL;
    th_autofree char *only = fields ? selected_name(fields) : NULL;
    struct th_attrs at = asked(c, v, fields, only);
    if (v) {
        c->verb = v->verb;
    }
    show_flow(c, &at);
    if (c->api->audit) {
        th_audit_begin(c, &at);
    }
    TH_TRY(th_authorize(c->api, &at, err));
    TH_TRY(find_resource(c, err));
    bool stream = c->sub && is_stream_name(c->sub->name);
    unsigned allowed = c->sub ? c->sub->verbs : c->res->verbs;
    if (!v || !(allowed & v->bit) || (!stream && !(c->sub ? v->sub_fn : v->fn)) ||
        (th_streq(v->verb, "create") && c->res->namespaced && !c->route.ns)) {
        return fail_method(err);
    }
    if (stream) {
        if (!th_streq(c->sub->name, "log")) {
            TH_TRY(th_admit_connect(c, err));
        }
        return th_stream_route(c, err);
    }
    TH_TRY(parse_options(c, v->options, err));
    TH_TRY(th_accept_parse(c->req->accept, transforms(c), v == &watch_verb,
                           th_kind_has_protobuf(c->kind), &c->accept, err));
    c->accept.pretty = v != &watch_verb && (c->accept.pretty || th_wants_pretty(c->req));
    return c->sub ? v->sub_fn(c, err) : v->fn(c, err);
}

static const char *path_verb(const struct th_call *c)
{
    const char *m = c->req->method;
    return th_streq(m, "GET") || th_streq(m, "HEAD") ? "get"
           : th_streq(m, "POST")                     ? "post"
           : th_streq(m, "PUT")                      ? "put"
           : th_streq(m, "PATCH")                    ? "patch"
           : th_streq(m, "OPTIONS")                  ? "options"
                                                     : "delete";
}

/* The server behind an APIService that answers this request, or NULL: this one does. */
static const struct th_aggr_service *remote_of(struct th_call *c)
{
    static const char v3[] = "/openapi/v3";
    const char *path = c->route.path;
    if (strncmp(path, "/apis/", 6) != 0 && strncmp(path, "/openapi/v3/apis/", 17) != 0) {
        return NULL;
    }
    return th_aggr_of_path(th_call_aggr(c), *(path + 1) == 'o' ? path + sizeof(v3) - 1 : path);
}

/* What kind of request it is follows from its path alone; the rows are the other server's. */
static int serve_remote(struct th_call *c, const struct th_aggr_service *s, struct th_err *err)
{
    bool resource = c->route.kind == TH_ROUTE_RESOURCE;
    const struct verb_row *v = resource ? find_verb(c) : NULL;
    c->verb = resource ? (v ? v->verb : "") : path_verb(c);
    struct th_attrs at = {.id = c->req->id,
                          .verb = c->verb,
                          .resource = resource,
                          .group = c->route.group,
                          .version = c->route.version,
                          .plural = c->route.plural,
                          .sub = c->route.sub,
                          .ns = c->route.ns,
                          .name = c->route.name,
                          .path = c->route.path};
    show_flow(c, &at);
    if (c->api->audit) {
        th_audit_begin(c, &at);
    }
    TH_TRY(th_authorize(c->api, &at, err));
    return th_aggr_proxy(c, s, err);
}

static int serve_other(struct th_call *c, struct th_err *err)
{
    c->verb = path_verb(c);
    struct th_attrs at = {.id = c->req->id, .verb = c->verb, .path = c->route.path};
    show_flow(c, &at);
    if (c->api->audit) {
        th_audit_begin(c, &at);
    }
    TH_TRY(th_authorize(c->api, &at, err));
    static verb_fn *const serve[] = {th_health_serve, th_discovery_serve, th_openapi_serve,
                                     th_metrics_serve, th_oidc_serve};
    for (size_t i = 0; i < TH_ARRAY_LEN(serve); i++) {
        int r = serve[i](c, err);
        if (r != 0) {
            return r < 0 ? r : 0;
        }
    }
    return fail_unknown(err);
}

/* The first characters of text, as many as fit; UTF-8 is not cut in two. */
static size_t cut(const char *text, size_t max)
{
    size_t n = strlen(text);
    if (n <= max) {
        return n;
    }
    for (n = max; n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80;) {
        n--;
    }
    return n;
}

/* Each text once. All of them together are kept short of what clients take for headers: past that
 * each is cut, and then the rest is left out. */
static void add_warnings(struct th_call *c)
{
    size_t total = 0;
    for (size_t i = 0; i < c->warnings.n; i++) {
        total += strlen(c->warnings.v[i]);
    }
    size_t each = total > TH_LIMIT_WARNINGS_B ? TH_LIMIT_WARNING_CUT_B : total;
    size_t written = 0;
    for (size_t i = 0; i < c->warnings.n && written < TH_LIMIT_WARNINGS_B; i++) {
        const char *text = c->warnings.v[i];
        bool before = false;
        for (size_t k = 0; k < i && !before; k++) {
            before = th_streq(c->warnings.v[k], text);
        }
        if (before) {
            continue;
        }
        size_t n = cut(text, each);
        th_autobuf struct th_buf b = TH_BUF_INIT;
        for (size_t k = 0; k < n; k++) {
            if (text[k] == '"' || text[k] == '\\') {
                th_buf_putc(&b, '\\');
            }
            th_buf_putc(&b, (unsigned char)text[k] < 0x20 ? ' ' : text[k]);
        }
        written += n;
        th_strv_addf(&c->resp->headers, "Warning: 299 - \"%s\"", th_buf_cstr(&b));
    }
}

static void call_done(struct th_call *c)
{
    th_route_done(&c->route);
    th_query_done(&c->query);
    th_strv_done(&c->warnings);
    th_customs_unref(c->customs);
    th_aggr_unref(c->aggr);
    free(c->manager);
    th_obj_unref(c->made);
}

/* Clients send their own deadline as ?timeout=. Calls here end well before any, so it is only read;
 * upstream does not read it of calls that may go on (watches, streams). */
static int check_timeout(const struct th_call *c, struct th_err *err)
{
    const char *text = th_query_get(&c->query, "timeout");
    int64_t ns = 0;
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    if (!text || !*text || c->route.watch || th_query_bool(&c->query, "watch") ||
        (c->route.sub && is_stream_name(c->route.sub)) || th_go_duration_parse(text, &ns, &local) == 0) {
        return 0;
    }
    return th_fail(err, TH_R_BAD_REQUEST, "invalid timeout specified in the request URL - %s",
                   local.msg);
}

int th_api_call(struct th_api *api, const struct th_areq *req, struct th_aresp *resp,
                struct th_err *err)
{
    TH_CLEANUP(call_done) struct th_call c = {.api = api, .req = req, .resp = resp};
    c.warnings = (struct th_strv)TH_STRV_INIT;
    c.ctx = (struct th_req_ctx){
        .user = req->id->system ? "" : req->id->user,
        .groups = (const char *const *)req->id->groups.v,
        .now_ms = th_now_ms(),
        .warnings = &c.warnings,
        .client = api->client,
        .cluster = api->cluster,
        .extra = (const char *const *)req->id->extra.v,
        .uid = req->id->uid,
        .id = req->id,
        .access = &api->access,
    };
    int64_t start_us = th_mono_us();
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    const char *query = strchr(req->uri, '?');
    int r = th_route_parse(req->uri, &c.route, &local);
    if (r >= 0) {
        r = th_query_parse(query ? query + 1 : "", &c.query, &local);
    }
    if (r >= 0 && !req->id->system) {
        r = read_deadline(&c, &local);
    }
    if (r >= 0) {
        r = th_call_in_time(&c, &local); /* it may have waited for a seat */
    }
    if (r >= 0) {
        r = check_timeout(&c, &local);
    }
    if (r >= 0) {
        const struct th_aggr_service *remote = remote_of(&c);
        r = remote                              ? serve_remote(&c, remote, &local)
            : c.route.kind == TH_ROUTE_RESOURCE ? serve_resource(&c, &local)
                                                : serve_other(&c, &local);
    }
    add_warnings(&c);
    int code = r >= 0 ? resp->status
                      : (local.http_code ? local.http_code : th_reason_http(local.reason));
    if (c.audit) {
        th_audit_end(&c, code, r < 0 ? &local : NULL);
    }
    th_metrics_request(api->metrics, &c, code, th_mono_us() - start_us);
    if (r < 0) {
        if (code >= 500) {
            th_warn("api", "request failed", "method=%s uri=%s code=%d error=%s", req->method,
                    th_log_q(c.route.path ? c.route.path : ""), code, th_log_q(local.msg));
        }
        if (err) {
            th_err_move(err, &local);
        }
    }
    return r;
}

void th_api_handle(struct th_api *api, const struct th_areq *req, struct th_aresp *resp)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (th_api_call(api, req, resp, &err) < 0) {
        th_buf_clear(&resp->body);
        th_api_fail(resp, req, &err);
    }
}

/* Segments of a path: "/api/v1/pods" has 3. */
static size_t depth(const char *uri)
{
    size_t n = 0;
    for (const char *p = uri; *p && *p != '?'; p++) {
        n += *p == '/' && p[1] != '/' && p[1] != '?' && p[1] != '\0';
    }
    return n;
}

/* A list that is more than joining bytes: other forms are made object by object, selectors look at
 * each. It may take long enough to be felt by others on the same I/O thread. */
static bool is_long_list(const struct th_areq *q)
{
    bool core = strncmp(q->uri, "/api/", 5) == 0;
    size_t n = depth(q->uri);
    bool collection = core ? n == 3 || n == 5 : n == 4 || n == 6;
    const char *query = strchr(q->uri, '?');
    if (!collection || (!core && strncmp(q->uri, "/apis/", 6) != 0) ||
        (query && strstr(query, "watch="))) {
        return false;
    }
    return (q->accept && (strstr(q->accept, "as=") || strstr(q->accept, "protobuf") ||
                          strstr(q->accept, "yaml"))) ||
           (query && (strstr(query, "Selector=") || strstr(query, "pretty=")));
}

/* Objects of this group may have to be converted by a webhook before they can be shown. */
static bool may_convert(struct th_api *api, const char *uri)
{
    static const char prefix[] = "/apis/";
    if (!th_startswith(uri, prefix)) {
        return false;
    }
    const char *g, *group = uri + strlen(prefix);
    size_t n = strcspn(group, "/?");
    for (size_t i = 0; (g = th_group_at(i)); i++) {
        if (strlen(g) == n && strncmp(g, group, n) == 0) {
            return false;
        }
    }
    TH_AUTO(th_customs) struct th_customs *set = th_customs_get(api->customs);
    for (size_t i = 0; set && i < set->n; i++) {
        const struct th_crd *crd = set->v[i];
        if (crd->webhook && strlen(crd->group) == n && strncmp(crd->group, group, n) == 0) {
            return true;
        }
    }
    return false;
}

bool th_api_is_quick(struct th_api *api, const struct th_areq *req)
{
    const char *query = strchr(req->uri, '?');
    bool read = th_streq(req->method, "GET") || th_streq(req->method, "HEAD");
    bool watch = query && strstr(query, "watch="); /* takes no worker for as long as it lasts */
    return read && !is_long_list(req) &&
           !th_startswith(req->uri, "/apis/metrics.k8s.io/") && /* nodes are asked */
           (watch || !may_convert(api, req->uri));
}

struct th_flow *th_api_flow(struct th_api *api)
{
    return api->flow;
}

/* What a request is about, before it is handled: only its request line is looked at. */
static struct th_attrs outline(struct th_call *c)
{
    const char *query = strchr(c->req->uri, '?');
    bool ok = th_route_parse(c->req->uri, &c->route, NULL) >= 0 &&
              th_query_parse(query ? query + 1 : "", &c->query, NULL) >= 0;
    if (ok && c->route.kind == TH_ROUTE_RESOURCE) {
        return asked(c, find_verb(c), NULL, NULL);
    }
    return (struct th_attrs){
        .id = c->req->id, .verb = "post", .path = c->route.path ? c->route.path : ""};
}

void th_api_flow_class(struct th_api *api, const struct th_areq *req, struct th_flow_class *ret)
{
    TH_CLEANUP(call_done) struct th_call c = {.api = api, .req = req};
    c.warnings = (struct th_strv)TH_STRV_INIT;
    struct th_attrs at = outline(&c);
    th_flow_classify(api->flow, &at, ret);
}

void th_api_refused(struct th_api *api, const struct th_areq *req, struct th_identity *id,
                    const struct th_err *why, const char *how)
{
    if (!api->audit) {
        return;
    }
    static const char *const none[] = {NULL};
    TH_AUTO(th_identity) struct th_identity *nobody = id ? NULL : th_identity_new("", NULL, none);
    struct th_areq q = *req;
    q.id = id ? id : nobody;
    TH_CLEANUP(call_done) struct th_call c = {.api = api, .req = &q};
    c.warnings = (struct th_strv)TH_STRV_INIT;
    struct th_attrs at = outline(&c);
    bool get = th_streq(req->method, "GET") || th_streq(req->method, "HEAD");
    if (!at.resource && get) {
        at.verb = "get";
    }
    th_audit_refused(&c, &at, why, how);
}

bool th_api_asks_before_streams(struct th_api *api)
{
    TH_AUTO(th_hookset) struct th_hookset *set = th_hooks_get(api->hooks);
    return set && set->connects;
}

bool th_api_is_stream(struct th_api *api, const struct th_areq *req)
{
    if (th_startswith(req->uri, "/api/") && !names_stream(req->uri)) {
        return false; /* most requests, without parsing */
    }
    TH_CLEANUP(call_done) struct th_call c = {.api = api, .req = req};
    c.warnings = (struct th_strv)TH_STRV_INIT;
    if (th_route_parse(req->uri, &c.route, NULL) < 0) {
        return false;
    }
    return (c.route.kind == TH_ROUTE_RESOURCE && is_stream_name(c.route.sub)) || remote_of(&c);
}
