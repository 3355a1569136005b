/* Typed calls over any transport.
 *
 * Everything here is the same whether the API server is in this process or behind TLS: building
 * the path of a resource, the options of a verb as query or DeleteOptions body, paging through
 * lists, and turning a Status into th_err. A transport only carries one request to an answer
 * (client_priv.h).
 *
 * Lists ask for pages of TH_LIMIT_LIST_PAGE, as client-go's pager does; and as there, a continue
 * token that expires halfway makes the client ask for everything at once, because a list of pages
 * from two revisions would be no state that ever was.
 */
#include "base/encode.h"
#include "base/json/slice.h"
#include "base/limits.h"
#include "controlplane/client/client_priv.h"

#include <inttypes.h>

/* ---- Paths and queries ---- */

static void add_part(struct th_buf *b, const char *s)
{
    if (s && *s) {
        th_buf_putc(b, '/');
        th_url_escape(b, s);
    }
}

void th_client_add_path(struct th_buf *b, struct th_gvr r, const char *ns, const char *name,
                        const char *sub)
{
    th_buf_puts(b, r.group && *r.group ? "/apis" : "/api");
    add_part(b, r.group);
    add_part(b, r.version);
    if (ns && *ns) {
        th_buf_puts(b, "/namespaces");
        add_part(b, ns);
    }
    add_part(b, r.plural);
    add_part(b, name);
    const char *p = sub ? sub : "";
    if (*p) {
        th_buf_putc(b, '/');
    }
    for (; *p; p++) { /* "proxy/a/b" keeps its slashes */
        if (*p == '/') {
            th_buf_putc(b, '/');
        } else {
            const char one[2] = {*p, '\0'};
            th_url_escape(b, one);
        }
    }
}

char *th_client_path(struct th_gvr r, const char *ns, const char *name, const char *subresource)
{
    struct th_buf b = TH_BUF_INIT;
    th_client_add_path(&b, r, ns, name, subresource);
    return th_buf_steal(&b, NULL);
}

void th_client_add_query(struct th_buf *b, const char *name, const char *value)
{
    if (!value) {
        return;
    }
    if (b->n > 0) {
        th_buf_putc(b, '&');
    }
    th_buf_puts(b, name);
    th_buf_putc(b, '=');
    th_url_escape(b, value);
}

static const char *or_null(const char *s)
{
    return s && *s ? s : NULL;
}

void th_client_watch_query(struct th_buf *b, const struct th_watch_req *req)
{
    th_client_add_query(b, "watch", "true");
    th_client_add_query(b, "resourceVersion", req->resource_version);
    th_client_add_query(b, "labelSelector", or_null(req->label_selector));
    th_client_add_query(b, "fieldSelector", or_null(req->field_selector));
    if (req->bookmarks) {
        th_client_add_query(b, "allowWatchBookmarks", "true");
    }
    if (req->timeout_s > 0) {
        char n[16];
        snprintf(n, sizeof(n), "%d", req->timeout_s);
        th_client_add_query(b, "timeoutSeconds", n);
    }
}

/* ---- Status to error ---- */

static char *dup_path(const struct th_json *o, const char *path)
{
    return th_xstrdup(or_null(th_json_path_str(o, path)));
}

static void take_details(const struct th_json *status, struct th_err *err)
{
    err->name = dup_path(status, "details.name");
    err->group = dup_path(status, "details.group");
    err->kind = dup_path(status, "details.kind");
    err->uid = dup_path(status, "details.uid");
    err->retry_after_s = (int)th_json_path_int(status, "details.retryAfterSeconds", 0);
    const struct th_json *causes = th_json_path(status, "details.causes");
    for (size_t i = 0; i < th_json_len(causes); i++) {
        const struct th_json *c = th_json_at(causes, i);
        const char *reason = th_json_str(th_json_get(c, "reason"));
        const char *field = th_json_str(th_json_get(c, "field"));
        const char *msg = th_json_str(th_json_get(c, "message"));
        th_err_add_cause(err, reason ? reason : "", field ? field : "", "%s", msg ? msg : "");
    }
}

int th_client_fail_status(int http_status, struct th_str body, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *status = NULL;
    if (body.n == 0 || th_json_parse(body.p, body.n, NULL, &status, NULL) < 0 ||
        !th_streq(th_json_path_str(status, "kind"), "Status")) {
        int n = body.n > 300 ? 300 : (int)body.n;
        while (n > 0 && (body.p[n - 1] == '\n' || body.p[n - 1] == '\r')) {
            n--;
        }
        int r =
            th_fail(err, th_reason_from_status(NULL, http_status), "the server answered %d%s%.*s",
                    http_status, n > 0 ? ": " : "", n, n > 0 ? body.p : "");
        if (err) {
            err->http_code = http_status;
        }
        return r;
    }
    int code = (int)th_json_path_int(status, "code", http_status);
    const char *msg = th_json_path_str(status, "message");
    enum th_reason reason = th_reason_from_status(th_json_path_str(status, "reason"), code);
    /* The node agent's Status objects say more than metav1 has words for (vm/node/server.c). */
    const char *next = th_json_path_str(status, "thimble.next");
    reason = th_reason_from_code(th_json_path_str(status, "thimble.reason"), reason);
    int r = th_fail(err, reason, "%s", msg && *msg ? msg : "the server gave no message");
    if (next) {
        (void)th_hint(err, "%s", next);
    }
    if (err) {
        err->http_code = code;
        take_details(status, err);
    }
    return r;
}

int th_client_do(struct th_client *c, const struct th_client_req *req, struct th_buf *ret_body,
                 struct th_err *err)
{
    int status = 0;
    th_autobuf struct th_buf own = TH_BUF_INIT;
    struct th_buf *body = ret_body ? ret_body : &own;
    TH_TRY(c->ops->request(c, req, &status, body, err));
    return status >= 400 ? th_client_fail_status(status, th_buf_str(body), err) : 0;
}

/* ---- Verbs ---- */

void th_client_free(struct th_client *c)
{
    if (c) {
        c->ops->free(c);
    }
}

static int parse_answer(const struct th_buf *body, struct th_json **ret, struct th_err *err)
{
    if (!ret) {
        return 0;
    }
    if (th_json_parse(body->p, body->n, NULL, ret, err) < 0) {
        th_wrap(err, "reading the server's answer");
        return -TH_R_PARSE;
    }
    return 0;
}

/* One request at a resource's path; obj may be NULL. */
static int call(struct th_client *c, const char *method, const char *path, const char *query,
                const char *content_type, const struct th_json *obj, struct th_json **ret,
                struct th_err *err)
{
    th_autobuf struct th_buf body = TH_BUF_INIT;
    th_autobuf struct th_buf answer = TH_BUF_INIT;
    if (obj) {
        th_json_dump(obj, &body);
    }
    struct th_client_req req = {.method = method,
                                .path = path,
                                .query = query,
                                .content_type = obj ? content_type : NULL,
                                .body = th_buf_str(&body)};
    TH_TRY(th_client_do(c, &req, &answer, err));
    return parse_answer(&answer, ret, err);
}

static int call_at(struct th_client *c, const char *method, struct th_gvr r, const char *ns,
                   const char *name, const char *sub, const struct th_json *obj,
                   struct th_json **ret, struct th_err *err)
{
    th_autofree char *path = th_client_path(r, ns, name, sub);
    return call(c, method, path, NULL, "application/json", obj, ret, err);
}

int th_client_get(struct th_client *c, struct th_gvr r, const char *ns, const char *name,
                  struct th_json **ret, struct th_err *err)
{
    return call_at(c, "GET", r, ns, name, NULL, NULL, ret, err);
}

int th_client_create(struct th_client *c, struct th_gvr r, const char *ns,
                     const struct th_json *obj, struct th_json **ret, struct th_err *err)
{
    return call_at(c, "POST", r, ns, NULL, NULL, obj, ret, err);
}

int th_client_update(struct th_client *c, struct th_gvr r, const char *ns, const char *name,
                     const char *subresource, const struct th_json *obj, struct th_json **ret,
                     struct th_err *err)
{
    return call_at(c, "PUT", r, ns, name, subresource, obj, ret, err);
}

int th_client_post(struct th_client *c, struct th_gvr r, const char *ns, const char *name,
                   const char *subresource, const struct th_json *body, struct th_json **ret,
                   struct th_err *err)
{
    return call_at(c, "POST", r, ns, name, subresource, body, ret, err);
}

int th_client_patch(struct th_client *c, struct th_gvr r, const char *ns, const char *name,
                    const char *subresource, const struct th_patch_opts *o,
                    const struct th_json *patch, struct th_json **ret, struct th_err *err)
{
    static const char *const types[] = {
        [TH_PATCH_JSON] = "application/json-patch+json",
        [TH_PATCH_MERGE_RFC7386] = "application/merge-patch+json",
        [TH_PATCH_STRATEGIC] = "application/strategic-merge-patch+json",
        [TH_PATCH_APPLY] = "application/apply-patch+yaml", /* JSON is YAML */
    };
    th_autofree char *path = th_client_path(r, ns, name, subresource);
    th_autobuf struct th_buf query = TH_BUF_INIT;
    th_client_add_query(&query, "fieldManager", or_null(o->field_manager));
    th_client_add_query(&query, "force", o->force ? "true" : NULL);
    th_client_add_query(&query, "dryRun", o->dry_run ? "All" : NULL);
    th_client_add_query(&query, "fieldValidation", or_null(o->field_validation));
    return call(c, "PATCH", path, th_buf_cstr(&query), types[o->kind], patch, ret, err);
}

int th_client_delete(struct th_client *c, struct th_gvr r, const char *ns, const char *name,
                     const struct th_delete_opts *o, struct th_json **ret, struct th_err *err)
{
    static const struct th_delete_opts defaults = TH_DELETE_OPTS_INIT;
    o = o ? o : &defaults;
    TH_AUTO(th_json)
    struct th_json *body = th_json_build("{'kind':'DeleteOptions','apiVersion':'v1'}");
    if (o->propagation) {
        th_json_set_str(body, "propagationPolicy", o->propagation);
    }
    if (o->grace_s >= 0) {
        th_json_set_int(body, "gracePeriodSeconds", o->grace_s);
    }
    if (o->uid) {
        th_json_path_set_str(body, "preconditions.uid", o->uid);
    }
    if (o->resource_version) {
        th_json_path_set_str(body, "preconditions.resourceVersion", o->resource_version);
    }
    return call_at(c, "DELETE", r, ns, name, NULL, body, ret, err);
}

int th_client_raw(struct th_client *c, const struct th_raw_req *req, int *ret_status,
                  struct th_buf *ret_body, struct th_err *err)
{
    struct th_client_req q = {.method = req->method ? req->method : "GET",
                              .path = req->path,
                              .content_type = req->content_type,
                              .accept = req->accept,
                              .body = req->body,
                              .in_fn = req->in_fn,
                              .on_data = req->on_data,
                              .arg = req->arg,
                              .timeout_ms = req->timeout_ms};
    int status = 0;
    th_autobuf struct th_buf own = TH_BUF_INIT;
    struct th_buf *body = ret_body ? ret_body : &own;
    size_t before = body->n;
    int r = c->ops->request(c, &q, &status, body, err);
    if (ret_status) {
        *ret_status = r < 0 && err && err->http_code ? err->http_code : status;
    }
    if (r == 0 && status >= 400) {
        struct th_str text = {body->p ? body->p + before : "", body->n - before};
        r = th_client_fail_status(status, text, err);
    }
    return r;
}

/* ---- Lists ---- */

struct paging {
    const char *path, *label_selector, *field_selector;
    char *token; /* NULL: the first page */
    bool whole;  /* no limit */
};

static int get_page(struct th_client *c, const struct paging *p, const bool *cancel,
                    struct th_buf *ret_text, struct th_err *err)
{
    th_autobuf struct th_buf query = TH_BUF_INIT;
    th_client_add_query(&query, "labelSelector", or_null(p->label_selector));
    th_client_add_query(&query, "fieldSelector", or_null(p->field_selector));
    if (!p->whole) {
        char limit[16];
        snprintf(limit, sizeof(limit), "%d", TH_LIMIT_LIST_PAGE);
        th_client_add_query(&query, "limit", limit);
    }
    th_client_add_query(&query, "continue", p->token);
    struct th_client_req req = {
        .method = "GET", .path = p->path, .query = th_buf_cstr(&query), .cancel = cancel};
    return th_client_do(c, &req, ret_text, err);
}

static char *slice_dup(struct th_str s)
{
    return s.n > 0 ? th_xstrndup(s.p, s.n) : NULL;
}

int th_client_list_pages(struct th_client *c, struct th_gvr r, const char *ns,
                         const char *label_selector, const char *field_selector, const bool *cancel,
                         th_list_page_fn *fn, void *arg, char **ret_rv, struct th_err *err)
{
    th_autofree char *path = th_client_path(r, ns, NULL, NULL);
    th_autofree char *rv = NULL;
    struct paging p = {
        .path = path, .label_selector = label_selector, .field_selector = field_selector};
    bool restart = false;
    int rc;
    do {
        th_autobuf struct th_buf text = TH_BUF_INIT;
        TH_AUTO_ERR struct th_err page_err = TH_ERR_INIT;
        rc = get_page(c, &p, cancel, &text, &page_err);
        if (rc == -TH_R_EXPIRED && p.token) {
            free(th_steal(&p.token));
            th_buf_clear(&text);
            p.whole = restart = true;
            rc = get_page(c, &p, cancel, &text, &page_err);
        }
        free(th_steal(&p.token));
        if (rc < 0) {
            if (err) {
                th_err_move(err, &page_err);
            }
            break;
        }
        struct th_str meta = th_json_slice_get(th_buf_str(&text), "metadata");
        p.token = slice_dup(th_json_slice_text(th_json_slice_get(meta, "continue")));
        free(rv);
        rv = slice_dup(th_json_slice_text(th_json_slice_get(meta, "resourceVersion")));
        rc = fn(arg, th_buf_str(&text), restart, err);
        restart = false;
    } while (rc >= 0 && p.token);
    free(p.token);
    if (rc >= 0 && ret_rv) {
        *ret_rv = rv ? th_steal(&rv) : th_xstrdup("");
    }
    return rc < 0 ? rc : 0;
}

/* Items of a list do not say what they are; the list does. */
static void name_items(struct th_json *page)
{
    const char *kind = th_json_path_str(page, "kind");
    const char *version = th_json_path_str(page, "apiVersion");
    size_t n = kind ? strlen(kind) : 0;
    if (!version || n <= 4 || strcmp(kind + n - 4, "List") != 0) {
        return;
    }
    struct th_json *items = th_json_get(page, "items");
    for (size_t i = 0; i < th_json_len(items); i++) {
        struct th_json *o = th_json_at(items, i);
        if (th_json_is(o, TH_JSON_OBJECT) && !th_json_has(o, "kind")) {
            th_json_set(o, "kind", th_json_stringf("%.*s", (int)n - 4, kind));
            th_json_set_str(o, "apiVersion", version);
        }
    }
}

static int gather_page(void *arg, struct th_str text, bool restart, struct th_err *err)
{
    struct th_json **list = arg;
    TH_AUTO(th_json) struct th_json *page = NULL;
    if (th_json_parse(text.p, text.n, NULL, &page, err) < 0) {
        th_wrap(err, "reading the server's answer");
        return -TH_R_PARSE;
    }
    name_items(page);
    if (restart) {
        th_json_unref(th_steal(list));
    }
    if (!*list) {
        *list = th_steal(&page);
        return 0;
    }
    struct th_json *into = th_json_path_array(*list, "items");
    struct th_json *items = th_json_get(page, "items");
    for (size_t i = 0; i < th_json_len(items); i++) {
        th_json_append(into, th_json_ref(th_json_at(items, i)));
    }
    return 0;
}

int th_client_list(struct th_client *c, struct th_gvr r, const char *ns, const char *label_selector,
                   const char *field_selector, struct th_json **ret_list, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *list = NULL;
    TH_TRY(th_client_list_pages(c, r, ns, label_selector, field_selector, NULL, gather_page, &list,
                                NULL, err));
    (void)th_json_path_del(list, "metadata.continue");
    (void)th_json_path_del(list, "metadata.remainingItemCount");
    if (ret_list) {
        *ret_list = th_steal(&list);
    }
    return 0;
}
