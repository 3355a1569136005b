/* What the node agent reads and writes: logs, volumes of files, addresses, WebSocket frames. */
#include "base/clock.h"
#include "base/io.h"
#include "vm/node/agent.h"
#include "vm/node/logs.h"
#include "vm/node/net/net_priv.h"
#include "vm/node/server.h"
#include "vm/node/ws.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <sys/socket.h>
#include <sys/stat.h>

static char *dir;

static int make_dir(void **state)
{
    (void)state;
    char tmpl[] = "/tmp/th-node-XXXXXX";
    dir = th_xstrdup(mkdtemp(tmpl));
    return 0;
}

static int drop_dir(void **state)
{
    (void)state;
    (void)th_io_rm_rf(dir, NULL);
    free(dir);
    return 0;
}

static void put(const char *name, const char *text)
{
    th_autofree char *path = th_path_join(dir, name);
    assert_true(th_io_write_file(path, text, strlen(text), 0644, NULL) >= 0);
}

#define T(n) "2026-01-02T03:04:0" n ".000000000+00:00"

static char *read_log(const struct log_opts *o)
{
    th_autofree char *path = th_path_join(dir, "0.log");
    struct log_reader *r = NULL;
    assert_true(log_reader_new(path, o, &r, NULL) >= 0);
    th_autobuf struct th_buf b = TH_BUF_INIT;
    while (log_reader_read(r, &b, 64) > 0) {
    }
    log_reader_free(r);
    char *s = th_buf_steal(&b, NULL);
    return s ? s : th_xstrdup("");
}

static void logs_are_read_over_rotated_parts(void **state)
{
    (void)state;
    put("0.log.20260102-030400", T("0") " stdout F one\n" T("1") " stderr F two\n");
    put("0.log", T("2") " stdout P thr\n" T("2") " stdout F ee\n" T("3") " stdout F \n" T("4") " stdout F four\n");
    struct log_opts all = {.tail = -1, .limit_b = -1};
    th_autofree char *a = read_log(&all);
    assert_string_equal(a, "one\ntwo\nthree\n\nfour\n");
    struct log_opts tail = {.tail = 2, .limit_b = -1};
    th_autofree char *b = read_log(&tail);
    assert_string_equal(b, "\nfour\n");
    struct log_opts more = {.tail = 5, .limit_b = -1};
    th_autofree char *c = read_log(&more);
    assert_string_equal(c, "two\nthree\n\nfour\n");
    struct log_opts none = {.tail = 0, .limit_b = -1};
    th_autofree char *d = read_log(&none);
    assert_string_equal(d, "");
}

static void logs_can_be_cut_by_time_bytes_and_stream(void **state)
{
    (void)state;
    put("0.log", T("1") " stdout F one\n" T("2") " stderr F two\n" T("3") " stdout F three\n");
    int64_t us = 0;
    assert_true(th_time_parse("2026-01-02T03:04:02Z", &us, NULL) >= 0);
    struct log_opts since = {.tail = -1, .limit_b = -1, .since_us = us};
    th_autofree char *a = read_log(&since);
    assert_string_equal(a, "two\nthree\n");
    struct log_opts limit = {.tail = -1, .limit_b = 6};
    th_autofree char *b = read_log(&limit);
    assert_string_equal(b, "one\ntw");
    struct log_opts stream = {.tail = -1, .limit_b = -1, .stream = "Stderr"};
    th_autofree char *c = read_log(&stream);
    assert_string_equal(c, "two\n");
    struct log_opts stamps = {.tail = 1, .limit_b = -1, .timestamps = true};
    th_autofree char *d = read_log(&stamps);
    assert_string_equal(d, "2026-01-02T03:04:03.000000000Z three\n");
}

static char *slurp(const char *name)
{
    th_autofree char *path = th_path_join(dir, name);
    th_autobuf struct th_buf b = TH_BUF_INIT;
    if (th_io_read_file(path, 1 << 20, &b, NULL) < 0) {
        return NULL;
    }
    char *s = th_buf_steal(&b, NULL);
    return s ? s : th_xstrdup("");
}

static void a_volume_is_swapped_as_a_whole(void **state)
{
    (void)state;
    struct vol_files f = {0};
    th_buf_puts(&vol_files_add(&f, "a", 0644)->data, "1");
    th_buf_puts(&vol_files_add(&f, "sub/b", 0400)->data, "2");
    bool changed = false;
    assert_true(vol_write(dir, &f, -1, &changed, NULL) >= 0);
    assert_true(changed);
    th_autofree char *a = slurp("a");
    th_autofree char *b = slurp("..data/sub/b");
    assert_string_equal(a, "1");
    assert_string_equal(b, "2");
    struct stat st;
    th_autofree char *bp = th_path_join(dir, "sub/b");
    assert_int_equal(stat(bp, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0400);
    assert_true(vol_write(dir, &f, -1, &changed, NULL) >= 0);
    assert_false(changed);
    vol_files_done(&f);

    th_buf_puts(&vol_files_add(&f, "a", 0644)->data, "new");
    assert_true(vol_write(dir, &f, -1, &changed, NULL) >= 0);
    assert_true(changed);
    th_autofree char *a2 = slurp("a");
    assert_string_equal(a2, "new");
    th_autostrv struct th_strv names = TH_STRV_INIT;
    assert_true(th_io_list(dir, &names, NULL) >= 0);
    assert_int_equal(names.n, 3); /* the generation, ..data, a: nothing of the old is left */
    vol_files_done(&f);
}

static void a_volume_cannot_write_outside_itself(void **state)
{
    (void)state;
    struct vol_files f = {0};
    th_buf_puts(&vol_files_add(&f, "../x", 0644)->data, "1");
    bool changed = false;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    assert_int_equal(vol_write(dir, &f, -1, &changed, &err), -TH_R_INVALID);
    vol_files_done(&f);
}

/* A token that is still good is kept without asking anybody, so that no API server is needed here. */
static void put_token(void)
{
    long long now = (long long)(th_now_ms() / 1000);
    th_autofree char *claims = th_xasprintf("{\"iat\":%lld,\"exp\":%lld}", now, now + 3600);
    struct vol_files f = {0};
    struct vol_file *v = vol_files_add(&f, "token", 0644);
    th_buf_puts(&v->data, "e30.");
    th_b64url_encode(claims, strlen(claims), &v->data);
    th_buf_puts(&v->data, ".x");
    bool changed = false;
    assert_true(vol_write(dir, &f, -1, &changed, NULL) >= 0);
    vol_files_done(&f);
}

static void a_token_is_its_users_alone(void **state)
{
    (void)state;
    static const struct {
        const char *spec;
        mode_t mode;
        int64_t uid;
    } cases[] = {
        {"{'containers':[{}]}", 0640, -1},
        {"{'containers':[{'securityContext':{'runAsUser':7}},{}]}", 0640, -1},
        {"{'securityContext':{'runAsUser':7},'containers':[{},{'securityContext':{'runAsUser':8}}]}", 0640, -1},
        {"{'securityContext':{'runAsUser':7},'initContainers':[{}],'containers':[{}]}", 0600, 7},
        {"{'securityContext':{'runAsUser':7},'containers':[{'securityContext':{'runAsUser':0}}]}", 0600, 0},
        {"{'securityContext':{'fsGroup':9},'containers':[{}]}", 0600, -1},
        {"{'securityContext':{'runAsUser':7},'containers':[{}],'ephemeralContainers':[{"
         "'securityContext':{'runAsUser':8}}]}", 0640, -1},
    };
    put_token();
    TH_AUTO(th_json) struct th_json *vol = th_json_build(
        "{'name':'t','projected':{'defaultMode':%d,'sources':[{'serviceAccountToken':{'path':'token'}}]}}",
        (int64_t)0640);
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        TH_AUTO(th_json) struct th_json *spec = th_json_build(cases[i].spec);
        TH_AUTO(th_json) struct th_json *obj = th_json_build("{'spec':%o}", th_json_dup(spec));
        struct pod p = {.obj = obj};
        struct vol_files f = {0};
        int64_t refresh_ms = INT64_MAX;
        assert_true(vol_collect(&p, vol, dir, &f, &refresh_ms, NULL) >= 0);
        assert_int_equal(f.n, 1);
        assert_int_equal(f.v[0].mode, cases[i].mode);
        assert_int_equal(f.v[0].uid, cases[i].uid);
        vol_files_done(&f);
    }
}

static void a_file_is_its_users(void **state)
{
    (void)state;
    int64_t user = geteuid() == 0 ? 1234 : (int64_t)geteuid(); /* to whom one may give a file */
    struct vol_files f = {0};
    struct vol_file *v = vol_files_add(&f, "own", 0600);
    v->uid = user;
    th_buf_puts(&v->data, "1");
    bool changed = false;
    assert_true(vol_write(dir, &f, -1, &changed, NULL) >= 0);
    vol_files_done(&f);
    th_autofree char *path = th_path_join(dir, "own");
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_uid, user);
    assert_int_equal(st.st_mode & 0777, 0600);
}

static void log_files_are_listed_and_nothing_else_is_opened(void **state)
{
    (void)state;
    th_autofree char *file = th_path_join(dir, "a&b #1.log");
    th_autofree char *sub = th_path_join(dir, "pods");
    th_autofree char *out = th_path_join(dir, "out");
    th_autofree char *fifo = th_path_join(dir, "pods/fifo");
    assert_true(th_io_write_file(file, "text", 4, 0644, NULL) >= 0);
    assert_true(th_io_mkdir_p(sub, 0755, NULL) >= 0);
    assert_int_equal(symlink("/etc/passwd", out), 0);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    struct stat st;
    th_autoclose int root = logfiles_open(dir, "/", &st, NULL);
    assert_true(root >= 0 && S_ISDIR(st.st_mode));
    th_autobuf struct th_buf b = TH_BUF_INIT;
    assert_true(logfiles_list(root, &b, NULL) >= 0);
    assert_string_equal(th_buf_cstr(&b),
                        "<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n"
                        "<a href=\"a%26b%20%231.log\">a&amp;b #1.log</a>\n<a href=\"out\">out</a>\n"
                        "<a href=\"pods/\">pods/</a>\n</pre>\n");
    th_autoclose int one = logfiles_open(dir, "/a&b #1.log", &st, NULL);
    assert_true(one >= 0 && S_ISREG(st.st_mode) && st.st_size == 4);
    static const char *const none[] = {"/out", "/../x", "/pods/../../..", "/pods/fifo", "/nothing"};
    for (size_t i = 0; i < TH_ARRAY_LEN(none); i++) {
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        assert_int_equal(logfiles_open(dir, none[i], &st, &err), -TH_R_NOT_FOUND);
        assert_string_equal(err.msg, "404 page not found\n");
    }
}

static void addresses_are_kept_and_given_once(void **state)
{
    (void)state;
    th_autofree char *path = th_path_join(dir, "addresses.json");
    struct th_ippool p;
    const char *ip = NULL;
    assert_true(th_ippool_init(&p, "10.244.3.0/29", path, NULL) >= 0);
    assert_true(th_ippool_get(&p, "a", &ip, NULL) >= 0);
    assert_string_equal(ip, "10.244.3.2");
    assert_true(th_ippool_get(&p, "b", &ip, NULL) >= 0);
    assert_string_equal(ip, "10.244.3.3");
    assert_true(th_ippool_put(&p, "a", NULL) >= 0);
    th_ippool_done(&p);
    assert_true(th_ippool_init(&p, "10.244.3.0/29", path, NULL) >= 0); /* as after a restart */
    assert_true(th_ippool_get(&p, "b", &ip, NULL) >= 0);
    assert_string_equal(ip, "10.244.3.3");
    static const char *const more[] = {"10.244.3.4", "10.244.3.5", "10.244.3.6", "10.244.3.2"};
    for (size_t i = 0; i < 4; i++) { /* the one given back rests until the others are taken */
        char uid[8];
        (void)snprintf(uid, sizeof(uid), "u%zu", i);
        assert_true(th_ippool_get(&p, uid, &ip, NULL) >= 0);
        assert_string_equal(ip, more[i]);
    }
    assert_int_equal(th_ippool_get(&p, "last", &ip, NULL), -TH_R_NO_SPACE);
    th_ippool_done(&p);
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    assert_int_equal(th_ippool_init(&p, "nonsense", path, &err), -TH_R_USAGE);
    th_ippool_done(&p);
}

static void mask_send(int fd, int b0, const char *text)
{
    unsigned char f[256] = {(unsigned char)b0, (unsigned char)(0x80 | strlen(text)), 1, 2, 3, 4};
    for (size_t i = 0; i < strlen(text); i++) {
        f[6 + i] = (unsigned char)text[i] ^ f[2 + (i & 3)];
    }
    assert_int_equal(send(fd, f, 6 + strlen(text), 0), 6 + strlen(text));
}

static void websocket_messages_come_whole_and_pings_are_answered(void **state)
{
    (void)state;
    int sv[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    struct ws w;
    ws_init(&w, sv[0], NULL, 0);
    mask_send(sv[1], 0x02, "he");       /* first fragment */
    mask_send(sv[1], 0x89, "p");        /* a ping in between */
    mask_send(sv[1], 0x80, "llo");      /* last fragment */
    assert_true(ws_fill(&w));
    int op = 0;
    th_autobuf struct th_buf m = TH_BUF_INIT;
    assert_int_equal(ws_next(&w, &op, &m), 1);
    assert_int_equal(op, WS_BINARY);
    assert_string_equal(th_buf_cstr(&m), "hello");
    assert_int_equal(ws_next(&w, &op, &m), 0);
    char pong[8];
    assert_int_equal(recv(sv[1], pong, sizeof(pong), 0), 3);
    assert_int_equal((unsigned char)pong[0], 0x8a);
    const char unmasked[] = {(char)0x82, 1, 'x', 0, 0, 0};
    assert_int_equal(send(sv[1], unmasked, sizeof(unmasked), 0), (int)sizeof(unmasked));
    assert_true(ws_fill(&w));
    assert_int_equal(ws_next(&w, &op, &m), -1);
    ws_done(&w);
    close(sv[0]);
    close(sv[1]);
    char accept[32];
    ws_accept_key("dGhlIHNhbXBsZSBub25jZQ==", accept); /* RFC 6455's example */
    assert_string_equal(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

int main(void)
{
#define IN_DIR(f) cmocka_unit_test_setup_teardown(f, make_dir, drop_dir)
    const struct CMUnitTest tests[] = {
        IN_DIR(logs_are_read_over_rotated_parts),
        IN_DIR(logs_can_be_cut_by_time_bytes_and_stream),
        IN_DIR(a_volume_is_swapped_as_a_whole),
        IN_DIR(a_volume_cannot_write_outside_itself),
        IN_DIR(a_token_is_its_users_alone),
        IN_DIR(a_file_is_its_users),
        IN_DIR(log_files_are_listed_and_nothing_else_is_opened),
        IN_DIR(addresses_are_kept_and_given_once),
        cmocka_unit_test(websocket_messages_come_whole_and_pings_are_answered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
