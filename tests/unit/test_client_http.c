/* Typed calls and the HTTP transport against a server that behaves well, badly and not at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/io.h"
#include "controlplane/client/client_priv.h"
#include "fake_http.h"

static struct th_client *connect_to(const struct fake *f)
{
    th_autofree char *url = th_xasprintf("http://127.0.0.1:%d/", f->port);
    struct th_client_http_opts o = {.server = url, .token = "secret"};
    struct th_client *c;
    assert_int_equal(th_client_new_http(&o, &c, NULL), 0);
    return c;
}

/* ---- What goes over the wire ---- */

static bool echo(struct fake *f, int fd, const struct fake_req *q)
{
    (void)f;
    TH_AUTO(th_json) struct th_json *o = th_json_object();
    th_json_set_str(o, "method", q->method);
    th_json_set_str(o, "path", q->path);
    th_json_set_str(o, "head", q->head);
    th_json_set_str(o, "body", q->body);
    th_autofree char *s = th_json_to_string(o);
    return fake_json(fd, 200, s);
}

static void check(struct th_json **o, const char *method, const char *path, const char *type,
                  const char *body)
{
    assert_string_equal(th_json_path_str(*o, "method"), method);
    assert_string_equal(th_json_path_str(*o, "path"), path);
    const char *head = th_json_path_str(*o, "head");
    assert_non_null(strstr(head, "Authorization: Bearer secret\r\n"));
    assert_non_null(strstr(head, "Accept: application/json\r\n"));
    if (type) {
        th_autofree char *line = th_xasprintf("Content-Type: %s\r\n", type);
        assert_non_null(strstr(head, line));
    } else {
        assert_null(strcasestr(head, "Content-Type"));
    }
    assert_string_equal(th_json_path_str(*o, "body"), body);
    th_json_unref(th_steal(o));
}

static void verbs_become_requests(void **state)
{
    (void)state;
    struct fake f;
    fake_start(&f, echo, NULL, NULL);
    struct th_client *c = connect_to(&f);
    TH_AUTO(th_json) struct th_json *obj = th_json_build("{'a':1}");
    struct th_json *o = NULL;
    assert_int_equal(th_client_get(c, TH_GVR_PODS, "ns", "a/b c", &o, NULL), 0);
    check(&o, "GET", "/api/v1/namespaces/ns/pods/a%2Fb%20c", NULL, "");
    assert_int_equal(th_client_create(c, TH_GVR_DEPLOYMENTS, "ns", obj, &o, NULL), 0);
    check(&o, "POST", "/apis/apps/v1/namespaces/ns/deployments", "application/json", "{\"a\":1}");
    assert_int_equal(th_client_update(c, TH_GVR_NODES, "", "n", "status", obj, &o, NULL), 0);
    check(&o, "PUT", "/api/v1/nodes/n/status", "application/json", "{\"a\":1}");
    struct th_patch_opts p = {.kind = TH_PATCH_APPLY, .field_manager = "me & co", .force = true};
    assert_int_equal(th_client_patch(c, TH_GVR_NODES, NULL, "n", NULL, &p, obj, &o, NULL), 0);
    check(&o, "PATCH", "/api/v1/nodes/n?fieldManager=me%20%26%20co&force=true",
          "application/apply-patch+yaml", "{\"a\":1}");
    p = (struct th_patch_opts){.kind = TH_PATCH_STRATEGIC, .dry_run = true};
    assert_int_equal(th_client_patch(c, TH_GVR_NODES, NULL, "n", "status", &p, obj, &o, NULL), 0);
    check(&o, "PATCH", "/api/v1/nodes/n/status?dryRun=All",
          "application/strategic-merge-patch+json", "{\"a\":1}");
    struct th_delete_opts d = {.propagation = "Foreground", .grace_s = 0, .uid = "u"};
    assert_int_equal(th_client_delete(c, TH_GVR_PODS, "ns", "p", &d, &o, NULL), 0);
    check(&o, "DELETE", "/api/v1/namespaces/ns/pods/p", "application/json",
          "{\"kind\":\"DeleteOptions\",\"apiVersion\":\"v1\",\"propagationPolicy\":\"Foreground\","
          "\"gracePeriodSeconds\":0,\"preconditions\":{\"uid\":\"u\"}}");
    assert_int_equal(th_client_post(c, TH_GVR_PODS, "ns", "p", "binding", obj, &o, NULL), 0);
    check(&o, "POST", "/api/v1/namespaces/ns/pods/p/binding", "application/json", "{\"a\":1}");
    assert_int_equal(f.n, 1); /* all of it over one connection */
    th_client_free(c);
    fake_stop(&f);
}

static void a_unix_socket_says_who_we_are(void **state)
{
    (void)state;
    char dir[] = "/tmp/th-client-XXXXXX";
    assert_non_null(mkdtemp(dir));
    th_autofree char *path = th_path_join(dir, "api.sock");
    struct fake f;
    fake_start(&f, echo, NULL, path);
    static const char *const groups[] = {"system:nodes", "g2", NULL};
    struct th_client_http_opts o = {
        .unix_socket = path, .as_user = "system:node:n", .as_groups = groups};
    struct th_client *c;
    assert_int_equal(th_client_new_http(&o, &c, NULL), 0);
    TH_AUTO(th_json) struct th_json *r = NULL;
    assert_int_equal(th_client_get(c, TH_GVR_NODES, NULL, "n", &r, NULL), 0);
    const char *head = th_json_path_str(r, "head");
    assert_non_null(strstr(head, "X-Remote-User: system:node:n\r\n"));
    assert_non_null(strstr(head, "X-Remote-Group: system:nodes\r\n"));
    assert_non_null(strstr(head, "X-Remote-Group: g2\r\n"));
    assert_non_null(strstr(head, "Host: localhost\r\n"));
    th_client_free(c);
    o.as_user = "evil\r\nX-Remote-Group: system:masters";
    assert_int_equal(th_client_new_http(&o, &c, NULL), -TH_R_BAD_REQUEST);
    fake_stop(&f);
    assert_int_equal(th_io_rm_rf(dir, NULL), 0);
}

/* ---- Errors ---- */

static bool refuse(struct fake *f, int fd, const struct fake_req *q)
{
    (void)f;
    if (strstr(q->path, "/invalid")) {
        return fake_json(
            fd, 422,
            "{\"kind\":\"Status\",\"status\":\"Failure\",\"message\":\"Pod \\\"x\\\" is invalid\","
            "\"reason\":\"Invalid\",\"details\":{\"name\":\"x\",\"kind\":\"Pod\",\"group\":\"g\","
            "\"uid\":\"u\",\"retryAfterSeconds\":7,\"causes\":[{\"reason\":\"FieldValueRequired\","
            "\"message\":\"Required value\",\"field\":\"spec.a\"},{\"message\":\"m2\"}]},"
            "\"code\":422}");
    }
    if (strstr(q->path, "/plain")) {
        return fake_answer(fd, 502, "text/plain", "bad gateway\n");
    }
    if (strstr(q->path, "/empty")) {
        return fake_answer(fd, 404, "text/plain", "");
    }
    if (strstr(q->path, "/notjson")) {
        return fake_answer(fd, 200, "text/plain", "<html>");
    }
    if (strstr(q->path, "/torn")) {
        fake_puts(fd, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"kind\":");
        return false;
    }
    return false; /* closes without a word */
}

static void failures_become_errors_with_details(void **state)
{
    (void)state;
    struct fake f;
    fake_start(&f, refuse, NULL, NULL);
    struct th_client *c = connect_to(&f);
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    TH_AUTO(th_json) struct th_json *o = NULL;
    assert_int_equal(th_client_get(c, TH_GVR_PODS, "n", "invalid", &o, &err), -TH_R_INVALID);
    assert_string_equal(err.msg, "Pod \"x\" is invalid");
    assert_int_equal(err.http_code, 422);
    assert_int_equal(err.retry_after_s, 7);
    assert_string_equal(err.name, "x");
    assert_string_equal(err.kind, "Pod");
    assert_string_equal(err.group, "g");
    assert_string_equal(err.uid, "u");
    assert_int_equal(err.n_causes, 2);
    assert_string_equal(err.causes[0].field, "spec.a");
    assert_string_equal(err.causes[0].reason, "FieldValueRequired");
    assert_string_equal(err.causes[1].msg, "m2");
    th_err_done(&err);
    assert_true(th_client_get(c, TH_GVR_PODS, "n", "plain", &o, &err) < 0);
    assert_string_equal(err.msg, "the server answered 502: bad gateway");
    assert_int_equal(err.http_code, 502);
    th_err_done(&err);
    assert_int_equal(th_client_get(c, TH_GVR_PODS, "n", "empty", &o, &err), -TH_R_NOT_FOUND);
    assert_string_equal(err.msg, "the server answered 404");
    th_err_done(&err);
    assert_int_equal(th_client_get(c, TH_GVR_PODS, "n", "notjson", &o, &err), -TH_R_PARSE);
    th_err_done(&err);
    assert_int_equal(th_client_get(c, TH_GVR_PODS, "n", "torn", &o, &err), -TH_R_UNAVAILABLE);
    th_err_done(&err);
    assert_int_equal(th_client_get(c, TH_GVR_PODS, "n", "closed", &o, &err), -TH_R_UNAVAILABLE);
    assert_null(o);
    fake_stop(&f);
    th_err_done(&err);
    assert_int_equal(th_client_get(c, TH_GVR_PODS, "n", "away", &o, &err), -TH_R_UNAVAILABLE);
    th_client_free(c);
}

/* ---- Lists ---- */

struct pages {
    int expire_at; /* this page's token is expired; 0: none */
    int whole;
    char seen[8][1024];
    int n;
};

static bool serve_pages(struct fake *f, int fd, const struct fake_req *q)
{
    struct pages *p = f->arg;
    const char *token = strstr(q->path, "continue=");
    int page = token ? (int)strtol(token + 9, NULL, 10) : 1;
    snprintf(p->seen[p->n++ % 8], sizeof(p->seen[0]), "%s", q->path);
    if (!strstr(q->path, "limit=500")) {
        p->whole++;
        return fake_json(
            fd, 200,
            "{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"metadata\":{\"resourceVersion\":"
            "\"99\"},\"items\":[{\"w\":1},{\"w\":2}]}");
    }
    if (page == p->expire_at) {
        return fake_json(
            fd, 410,
            "{\"kind\":\"Status\",\"reason\":\"Expired\",\"message\":\"too old\",\"code\":410}");
    }
    th_autofree char *body = th_xasprintf("{\"kind\":\"PodList\",\"metadata\":{\"resourceVersion\":"
                                          "\"7\"%s%d%s},\"items\":[{\"n\":%d},{\"n\":%d}]}",
                                          page < 3 ? ",\"continue\":\"" : ",\"x\":\"", page + 1,
                                          "\",\"remainingItemCount\":3", page * 10, page * 10 + 1);
    return fake_json(fd, 200, body);
}

static void lists_are_read_page_by_page(void **state)
{
    (void)state;
    struct fake f;
    struct pages p = {.n = 0};
    fake_start(&f, serve_pages, &p, NULL);
    struct th_client *c = connect_to(&f);
    struct th_json *l = NULL;
    assert_int_equal(th_client_list(c, TH_GVR_PODS, NULL, "a in (b,c)", "", &l, NULL), 0);
    assert_int_equal(th_json_len(th_json_get(l, "items")), 6);
    assert_int_equal(th_json_path_int(l, "items[5].n", 0), 31);
    assert_false(th_json_has(th_json_get(l, "metadata"), "continue"));
    assert_false(th_json_has(th_json_get(l, "metadata"), "remainingItemCount"));
    assert_string_equal(p.seen[1],
                        "/api/v1/pods?labelSelector=a%20in%20%28b%2Cc%29&limit=500&continue=2");
    th_json_unref(th_steal(&l));
    p.expire_at = 3;
    assert_int_equal(th_client_list(c, TH_GVR_PODS, NULL, NULL, NULL, &l, NULL), 0);
    assert_int_equal(th_json_len(th_json_get(l, "items")), 2);
    assert_string_equal(th_json_path_str(l, "metadata.resourceVersion"), "99");
    assert_int_equal(p.whole, 1);
    th_json_unref(th_steal(&l));
    p.expire_at = 1; /* without a token there is nothing to fall back to */
    assert_int_equal(th_client_list(c, TH_GVR_PODS, NULL, NULL, NULL, &l, NULL), -TH_R_EXPIRED);
    th_client_free(c);
    fake_stop(&f);
}

/* ---- Streams ---- */

static bool stream(struct fake *f, int fd, const struct fake_req *q)
{
    (void)f;
    if (strcmp(q->method, "POST") == 0) {
        return echo(f, fd, q);
    }
    fake_stream(fd);
    for (int i = 0; i < 1000; i++) {
        if (!fake_chunk(fd, "line\n")) {
            return false;
        }
    }
    return fake_chunk(fd, "");
}

struct sink {
    size_t n, stop_at;
};

static bool on_data(void *arg, const char *p, size_t n)
{
    struct sink *s = arg;
    (void)p;
    s->n += n;
    return s->stop_at == 0 || s->n < s->stop_at;
}

static long feed(void *arg, char *buf, size_t n)
{
    int *left = arg;
    if (*left < 0) {
        return -1;
    }
    if (*left == 0 || n == 0) {
        return 0;
    }
    (*left)--;
    buf[0] = 'x';
    return 1;
}

static bool warn(struct fake *f, int fd, const struct fake_req *q)
{
    (void)f;
    (void)q;
    return fake_puts(fd, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                         "Warning: 299 - \"unknown field \\\"spec.a\\\"\"\r\n"
                         "warning: 299 - \"second\"\r\nWarning: 299 nonsense\r\n"
                         "Content-Length: 2\r\n\r\n{}");
}

static void note_warning(void *arg, const char *text)
{
    th_buf_printf(arg, "<%s>", text);
}

static void warnings_are_handed_on(void **state)
{
    (void)state;
    struct fake f;
    fake_start(&f, warn, NULL, NULL);
    th_autobuf struct th_buf seen = TH_BUF_INIT;
    th_autofree char *url = th_xasprintf("http://127.0.0.1:%d/", f.port);
    struct th_client_http_opts o = {
        .server = url, .on_warning = note_warning, .warning_arg = &seen};
    struct th_client *c;
    assert_int_equal(th_client_new_http(&o, &c, NULL), 0);
    assert_int_equal(th_client_get(c, TH_GVR_PODS, "ns", "a", NULL, NULL), 0);
    assert_string_equal(th_buf_cstr(&seen), "<unknown field \"spec.a\"><second>");
    th_client_free(c);
    fake_stop(&f);
}

static void bodies_stream_in_and_out(void **state)
{
    (void)state;
    struct fake f;
    fake_start(&f, stream, NULL, NULL);
    struct th_client *c = connect_to(&f);
    struct sink s = {0};
    int status = 0;
    struct th_raw_req q = {
        .method = "GET", .path = "/logs?follow=true", .on_data = on_data, .arg = &s};
    assert_int_equal(th_client_raw(c, &q, &status, NULL, NULL), 0);
    assert_int_equal(status, 200);
    assert_int_equal(s.n, 5000);
    s = (struct sink){.stop_at = 10};
    assert_int_equal(th_client_raw(c, &q, &status, NULL, NULL), 0); /* stopping is no failure */
    int left = 20;
    th_autobuf struct th_buf body = TH_BUF_INIT;
    q = (struct th_raw_req){.method = "POST",
                            .path = "/load",
                            .content_type = "application/x-tar",
                            .in_fn = feed,
                            .arg = &left};
    assert_int_equal(th_client_raw(c, &q, &status, &body, NULL), 0);
    TH_AUTO(th_json) struct th_json *o = NULL;
    assert_int_equal(th_json_parse(body.p, body.n, NULL, &o, NULL), 0);
    assert_string_equal(th_json_path_str(o, "body"), "xxxxxxxxxxxxxxxxxxxx");
    assert_string_equal(th_json_path_str(o, "method"), "POST");
    left = -1;
    assert_int_equal(th_client_raw(c, &q, &status, &body, NULL), -TH_R_CANCELED);
    th_client_free(c);
    fake_stop(&f);
}

/* ---- The update loop ---- */

static bool versions(struct fake *f, int fd, const struct fake_req *q)
{
    int *puts = f->arg;
    if (strcmp(q->method, "GET") == 0) {
        th_autofree char *s = th_xasprintf("{\"n\":%d}", *puts);
        return fake_json(fd, 200, s);
    }
    if ((*puts)++ < 2) {
        return fake_json(
            fd, 409,
            "{\"kind\":\"Status\",\"reason\":\"Conflict\",\"message\":\"c\",\"code\":409}");
    }
    return fake_json(fd, 200, q->body);
}

static int add_hundred(void *arg, struct th_json *obj, struct th_err *err)
{
    (void)err;
    (*(int *)arg)++;
    int64_t n = th_json_path_int(obj, "n", 0);
    th_json_set_int(obj, "n", n + 100);
    return n >= 3 ? 0 : 1;
}

static void a_conflict_is_tried_again_on_the_newest_state(void **state)
{
    (void)state;
    struct fake f;
    int puts = 0, calls = 0;
    fake_start(&f, versions, &puts, NULL);
    struct th_client *c = connect_to(&f);
    TH_AUTO(th_json) struct th_json *o = NULL;
    assert_int_equal(
        th_client_modify(c, TH_GVR_PODS, "n", "p", NULL, add_hundred, &calls, &o, NULL), 1);
    assert_int_equal(th_json_path_int(o, "n", 0), 102);
    assert_int_equal(calls, 3);
    assert_int_equal(
        th_client_modify(c, TH_GVR_PODS, "n", "p", NULL, add_hundred, &calls, NULL, NULL), 0);
    assert_int_equal(puts, 3);
    th_client_free(c);
    fake_stop(&f);
}

static void owners(void **state)
{
    (void)state;
    TH_AUTO(th_json)
    struct th_json *rs = th_json_build(
        "{'apiVersion':'apps/v1','kind':'ReplicaSet','metadata':{'name':'r','uid':'u1'}}");
    TH_AUTO(th_json)
    struct th_json *pod = th_json_build("{'metadata':{'ownerReferences':[{'uid':'u0'},%o]}}",
                                        th_owner_ref_build(rs, true, true));
    assert_string_equal(th_controller_uid(pod), "u1");
    assert_null(th_controller_of(rs));
    assert_null(th_controller_uid(rs));
    assert_true(th_json_as_bool(th_json_get(th_controller_of(pod), "blockOwnerDeletion"), false));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(verbs_become_requests),
        cmocka_unit_test(a_unix_socket_says_who_we_are),
        cmocka_unit_test(failures_become_errors_with_details),
        cmocka_unit_test(lists_are_read_page_by_page),
        cmocka_unit_test(warnings_are_handed_on),
        cmocka_unit_test(bodies_stream_in_and_out),
        cmocka_unit_test(a_conflict_is_tried_again_on_the_newest_state),
        cmocka_unit_test(owners),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
